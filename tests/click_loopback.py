"""A JACK client that is an instrument before a microphone: each note-on at `in` is a click at `out` a stated time later."""

import sys

import jack
import numpy as np


def main() -> None:
    delay_s = float(sys.argv[1])
    jack.set_error_function(lambda _text: None)
    jack.set_info_function(lambda _text: None)
    client = jack.Client("loopback", no_start_server=True, use_exact_name=True)
    notes, sound = client.midi_inports.register("in"), client.outports.register("out")
    t = np.arange(round(0.05 * client.samplerate)) / client.samplerate
    click = (0.5 * np.sin(2 * np.pi * 880 * t) * np.exp(-t * 80)).astype(np.float32)
    state = {"frame": 0, "begin": -1}

    @client.set_process_callback
    def _process(n_frames: int) -> None:
        now, state["frame"] = state["frame"], state["frame"] + n_frames
        for offset, data in notes.incoming_midi_events():
            message = bytes(data)
            if message[0] & 0xF0 == 0x90 and message[2]:
                state["begin"] = now + offset + round(delay_s * client.samplerate)
        out = sound.get_array()
        out[:] = 0
        first = now - state["begin"]
        if state["begin"] >= 0 and -n_frames < first < len(click):
            part = click[max(0, first) : first + n_frames]
            out[max(0, -first) : max(0, -first) + len(part)] = part

    with client:
        print("ready", flush=True)  # noqa: T201 - talking is its trade
        sys.stdin.read()


if __name__ == "__main__":
    main()
