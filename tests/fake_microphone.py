"""A JACK client that is a microphone: a program of its own, which plays a sound file sample by sample after a signal.

It talks in lines. On standard output, one JSON object each: ``{"ready": ...}`` once its ports are there, ``{"started": ...}``
with the server's frame and the `time.monotonic` at which the first sample of the file is in, ``{"finished": ...}`` with the
xruns that the server reported since the start. On standard input: ``go`` plays the file (again), ``stop`` falls silent, and the
end of the input ends the program. Before, between and after, it sends digital silence.

As with a real microphone, what the server misses in an xrun is lost: the sound goes on in the server's time.
"""
# ruff: noqa: T201 - talking is its trade.

import argparse
import json
import queue
import signal
import sys
import threading
import time
from pathlib import Path

import jack
import numpy as np
import soundfile


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--server", required=True)
    parser.add_argument("--name", default="fakemic")
    parser.add_argument("--before-s", type=float, default=0.0, help="silence between `go` and the file")
    parser.add_argument("--after-s", type=float, default=0.0, help="silence behind the file, before `finished`")
    parser.add_argument("--loop", action="store_true", help="play the file again and again")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    jack.set_error_function(lambda _text: None)
    jack.set_info_function(lambda _text: None)

    sound, rate = soundfile.read(options.file, dtype="float32", always_2d=True)
    client = jack.Client(options.name, servername=options.server, no_start_server=True, use_exact_name=True)
    if client.samplerate != rate:
        tell(error=f"the file is at {rate} Hz, the server at {client.samplerate} Hz")
        sys.exit(1)
    before, after = (np.zeros((round(s * rate), sound.shape[1]), np.float32) for s in (options.before_s, options.after_s))
    played = np.concatenate([before, sound, after])
    ports = [client.outports.register(f"out_{number + 1}") for number in range(sound.shape[1])]
    news: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
    state = {"go": False, "start": -1, "xruns": 0}

    @client.set_xrun_callback
    def _xrun(_delayed_us: float) -> None:
        state["xruns"] += 1

    @client.set_process_callback
    def _process(n_frames: int) -> None:
        now = client.last_frame_time
        if state["go"]:
            state.update(go=False, start=now, xruns=0)
            late_s = client.frames_since_cycle_start / rate
            first_s = time.monotonic() - late_s + len(before) / rate
            news.put({"started": {"frame": now + len(before), "monotonic_s": first_s}})
        start = state["start"]
        for port in ports:
            port.get_array()[:] = 0
        if start < 0:
            return
        first = (now - start) & 0xFFFFFFFF  # the server's count of frames goes round
        if options.loop:
            rows = np.arange(first, first + n_frames) % len(played)
            part = played[rows]
        else:
            part = played[first : first + n_frames]
        for channel, port in enumerate(ports):
            port.get_array()[: len(part)] = part[:, channel]
        if not options.loop and first + n_frames >= len(played):
            state["start"] = -1
            news.put({"finished": {"frame": start + len(played), "xruns": state["xruns"]}})

    def speak() -> None:
        while True:
            tell(**news.get())

    with client:
        threading.Thread(target=speak, daemon=True).start()
        tell(ready={"rate_hz": rate, "period": client.blocksize, "ports": [port.name for port in ports]})
        for line in sys.stdin:
            if line.strip() == "go":
                state["go"] = True
            elif line.strip() == "stop":
                state["start"] = -1


if __name__ == "__main__":
    main()
