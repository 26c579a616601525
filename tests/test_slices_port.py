"""The partner's recordings as its voice, through a real process and a real sound system."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.jack_midi import wait_for
from jack_server import JackServer
from musichal.errors import InputError
from musichal.live.output.jack_midi import FrameClock
from musichal.live.output.routing import LiveOutput, single_port
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import NOTE, FrameBuffer, PortSettings, note_frame, read_note
from musichal.machine import now_s
from musichal.memory.partner_file import PartnerModel
from musichal.note import Note, Slice
from musichal.partner.decision import Decision
from test_scheduler import PATIENT, kinds, notes_sent, run_until


class FeatureExtractor:
    """A JACK client that keeps what it hears."""

    def __init__(self) -> None:
        import jack

        self.client = jack.Client("ear", no_start_server=True)
        self._port = self.client.inports.register("in")
        self._blocks: list[np.ndarray] = []
        self.client.set_process_callback(lambda _frames: self._blocks.append(self._port.get_array().copy()))

    def __enter__(self) -> "FeatureExtractor":
        self.client.activate()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.deactivate()
        self.client.close()

    def listen_to(self, name: str) -> None:
        import jack

        def connected() -> bool:
            found = [p.name for p in self.client.get_ports(is_audio=True, is_output=True) if name in p.name]
            try:
                return bool(found) and self.client.connect(found[0], self._port) is None
            except jack.JackErrorCode:  # its client is not active yet
                return False

        assert wait_for(connected, 20.0), [p.name for p in self.client.get_ports()]

    def heard(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.float32), *self._blocks])


@pytest.mark.live
def test_slices_come_out_of_the_sound_system_as_they_are_in_the_recording(
    jack_server: JackServer, trained_path: Path, trained: PartnerModel
) -> None:
    recording = trained.recordings[0]
    rate = recording.sample_rate_hz
    with FeatureExtractor() as ear, Scheduler([PortSettings("voice", f"slices:{trained_path}")], settings=PATIENT) as scheduler:
        ear.listen_to("PortAudio")
        start_s = now_s() + 0.4
        scheduler.play("voice", [Slice(start_s + 0.5 * k, 0.5, 0, 2.0 + 0.5 * k) for k in range(4)])
        events = run_until(scheduler, lambda events: len(notes_sent(events)) == 8)
        assert "port-lost" not in kinds(events)
        assert wait_for(lambda: not ear.heard()[-4800:].any(), 10.0), "it ended"
        heard = ear.heard().astype(np.float64)
    import soxr

    expected = soxr.resample(
        recording.samples()[round(2.1 * rate) : round(3.9 * rate)].astype(np.float64), rate, jack_server.rate_hz
    )
    spectrum = np.fft.rfft(heard, 1 << 19) * np.conj(np.fft.rfft(expected, 1 << 19))
    at = int(np.argmax(np.fft.irfft(spectrum)))
    # An xrun may cost a period here and there, and moves what comes behind it; the rest is the recording.
    same, length, moved = [], 9600, 4096
    for first in range(0, len(expected) - length + 1, length):
        part, around = expected[first : first + length], heard[max(0, at + first - moved) : at + first + length + moved]
        best = int(np.argmax(np.correlate(around, part, "valid")))
        same.append(np.corrcoef(around[best : best + length], part)[0, 1])
    assert np.mean(np.array(same) > 0.9) > 0.6, same


@pytest.mark.live
def test_a_panic_ends_a_slice(jack_server: JackServer, trained_path: Path) -> None:
    with FeatureExtractor() as ear, Scheduler([PortSettings("voice", f"slices:{trained_path}")], settings=PATIENT) as scheduler:
        ear.listen_to("PortAudio")
        scheduler.play("voice", [Slice(now_s(), 7.0, 0, 1.0)])
        assert wait_for(lambda: bool(np.abs(ear.heard()[-9600:]).max(initial=0.0) > 0.01) and scheduler.alive(), 5.0)
        scheduler.panic()
        assert wait_for(lambda: not ear.heard()[-4800:].any() and scheduler.alive(), 3.0)


@pytest.mark.live
def test_a_keyboard_is_heard_on_its_monitor_and_falls_silent_with_musichal(jack_server: JackServer) -> None:
    with FeatureExtractor() as ear, Scheduler([PortSettings("keys", "keys:")], settings=PATIENT) as scheduler:
        ear.listen_to("PortAudio")
        scheduler.forward("keys", b"\x90\x45\x64")
        assert wait_for(lambda: bool(np.abs(ear.heard()[-9600:]).max(initial=0.0) > 0.01) and scheduler.alive(), 5.0)
        sound = ear.heard()[-9600:]
        loudest = np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 18))) / (1 << 18) * jack_server.rate_hz
        assert loudest == pytest.approx(440, rel=0.01)
        scheduler.panic()
        assert wait_for(lambda: not ear.heard()[-4800:].any() and scheduler.alive(), 3.0)


@pytest.mark.live
def test_an_unknown_output_lists_what_there_is(jack_server: JackServer, trained_path: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="no audio output 'Built-in'"),
        Scheduler([PortSettings("voice", f"slices:{trained_path}>Built-in")]),
    ):
        pass
    with pytest.raises(InputError, match=r"none\.hal"), Scheduler([PortSettings("voice", f"slices:{tmp_path / 'none.hal'}")]):
        pass


def test_notes_and_slices_survive_the_wire() -> None:
    piece, note = Slice(1.0, 0.5, 3, 12.5, -7.0, 0.25), Note(1.0, 0.5, 60, 90, 2)
    buffer = FrameBuffer()
    for byte in note_frame(piece, 1, tag=9) + note_frame(note, 0, tag=7, bend_semitones=0.5):
        buffer.add(bytes((byte,)))
    assert [read_note(body) for kind, body in buffer.frames(9) if kind == NOTE] == [(1, piece, 9, 0.0), (0, note, 7, 0.5)]


def test_decisions_become_slices_once_for_all_voices_and_not_of_the_players_own() -> None:
    def decision(number: int, time_s: float, recording: int | None, *, live: bool = False) -> Decision:
        start_s = None if recording is None else 2.0
        return Decision(
            number, time_s, "play", duration_s=0.5, choice=1, recording=recording, live=live, source_start_s=start_s
        )

    nowhere = Scheduler([PortSettings("out", "none:")], settings=PATIENT)
    with nowhere, Scheduler([PortSettings("voice", "none:")], settings=PATIENT) as scheduler:
        output = LiveOutput(nowhere, [single_port("none:")], slices=scheduler, recordings=2)
        start_s = now_s() + 0.1
        decisions = [
            *(decision(0, 0.0, 0), decision(1, 0.0, 0), decision(2, 0.1, 2)),
            *(decision(3, 0.1, None), decision(4, 0.2, 1, live=True), decision(5, 0.3, 1)),
        ]
        assert [output.play(one, lambda time_s: start_s + time_s) for one in decisions] == [1, 0, 0, 0, 0, 1]
        events = notes_sent(run_until(scheduler, lambda events: len(notes_sent(events)) == 4))
        # The second is due while the first sounds: slices are one key, so it ends the first.
        assert [(event.data[0], event.tag) for event in events] == [(0x90, 0), (0x80, 0), (0x90, 5), (0x80, 5)]


def test_the_line_follows_reports_slowly_and_starts_anew_after_a_jump() -> None:
    line = FrameClock(48_000)
    rng = np.random.default_rng(1)
    for k in range(400):
        line.report(256 * k, 10.0 + 256 * k / 48_000 + float(rng.uniform(-0.001, 0.001)))
    assert abs(line.frame_at(15.0) - 240_000) <= 10, "a millisecond of jitter, 48 frames, does not pass"
    line.report(256 * 400, 11.0 + 256 * 400 / 48_000)
    assert line.frame_at(16.0) == 240_000
