"""How near to the beat notes leave: a player with known beats, MIDI out, through a real JACK server and `musichal play`.

Conventions
-----------
The player strikes plucked notes (synthetic) on every beat and between some, or plays the second half of a song's melody to a
partner that learned the first half of its band, at periods of 256 frames. *Asynchrony* is counted in frames of the server, from
the player's true beat, the nearest place of its grid, to a note-on at the receiver, plus the latency that was stated for the
output: positive is late. The microphone stands for a capture port: what it gives in a cycle was taken
in the period before. *Planned* is the same for what the partner decided, by its own record; the difference is what the way to
the port adds.
"""

import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from benchmarks.duo_quality import MATERIAL, Song, duo_of, songs_of
from benchmarks.figure import Figure
from benchmarks.jack_microphone import JackMicrophone
from benchmarks.jack_midi import JackReceiver, private_server, wait_for
from benchmarks.live_speed import plucked
from musichal.arrays import Float32, Float64
from musichal.errors import InputError
from musichal.evaluate.time_together import BeatMap
from musichal.evaluate.together import hear_duo
from musichal.live.session.session import read_session
from musichal.memory.partner_file import PartnerModel, save_partner

_RATE_HZ = 48_000
_PERIOD = 256
_BPM = 113.0
_START_S = 60.0
_SETTLE_BEATS = 16
_ON_BEATS = ("quantise=1", "subdivision=1")
_LOUD = 0.02
_MELODIES = 4


@dataclass(frozen=True)
class KnownPlayer:
    """A player at 48 kHz: sound (n,), second of the first stroke, true beats, and from when on notes count."""

    sound: Float32
    first_s: float
    beats: BeatMap
    settled_s: float


def plucking_player(seconds: float = 30.0) -> KnownPlayer:
    """Return a player who strikes every beat, and the middle of every other one."""
    beat = 60 / _BPM * _RATE_HZ
    count = int(seconds * _RATE_HZ / beat)
    rng = np.random.default_rng(0)
    strokes = [k * beat + _RATE_HZ for k in range(count)] + [(k + 0.5) * beat + _RATE_HZ for k in range(1, count, 2)]
    length = round(_RATE_HZ + (count + 8) * beat)
    sound = plucked(np.sort(np.round(strokes)).astype(np.int64), rate_hz=_RATE_HZ, length=length, rng=rng)
    beats_s = 1 + np.arange(count + 9) * 60 / _BPM
    return KnownPlayer(sound, _first_s(sound), BeatMap(beats_s, "known"), 1 + _SETTLE_BEATS * 60 / _BPM)


def melody_player(song: Song) -> tuple[PartnerModel, KnownPlayer, int]:
    """Return a partner of the first half of a song's band, the player of the second, and their parts of a beat."""
    duo = duo_of(song)
    heard = hear_duo(duo)
    assert heard.beats is not None
    samples = duo.player.samples[round(heard.start_s * duo.player.sample_rate_hz) :]
    sound = soxr.resample(samples, duo.player.sample_rate_hz, _RATE_HZ).astype(np.float32)
    beats = heard.beats
    return heard.model, KnownPlayer(sound, _first_s(sound), beats, float(beats.beats_s[_SETTLE_BEATS])), heard.grid


def _first_s(sound: Float32) -> float:
    return int(np.argmax(np.abs(sound) > _LOUD)) / _RATE_HZ


def beats_heard(
    partner: Path, player: KnownPlayer, *, latency_ms: float = 0.0, settings: tuple[str, ...] = _ON_BEATS, places: int = 1
) -> dict[str, Any]:
    """Play with a partner for a while; return the asynchronies in ms that it planned, and those that were received.

    They are those from the nearest of so many `places` in a beat.
    Returns ``planned`` and ``received``, arrays of shape (n,), ``added_ms``, the median of what the way to the port adds,
    ``xruns``, and ``latency_ms`` as the session has it. Raises `InputError` where MusicHal does not play.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        private_server(rate_hz=_RATE_HZ, period=_PERIOD),
        JackMicrophone(player.sound) as microphone,
        JackReceiver() as receiver,
    ):
        session = Path(folder) / "session"
        command = [
            *(sys.executable, "-m", "musichal", "play", str(partner), "--input", microphone.name, "--block", str(_PERIOD)),
            *("--midi-out", "jack:MusicHal", "--latency", str(latency_ms), "--session", str(session), "--mode", "couple"),
            *(part for setting in ("rest_below=0.02", *settings) for part in ("--set", setting)),
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:  # noqa: S603
            said: list[str] = []
            threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True).start()
            try:
                wait_for(lambda: any("listens to" in line for line in said) or process.poll() is not None, _START_S)
                if process.poll() is not None:
                    raise InputError(f"MusicHal ended: {''.join(said)[-300:]}")
                receiver.connect("MusicHal", timeout_s=_START_S)
                start = microphone.go()
                time.sleep(len(player.sound) / _RATE_HZ)
            finally:
                process.terminate()
                process.wait(60)
        first = start - _PERIOD - receiver.origin
        struck = [m.frame - first for m in receiver.messages() if m.data[0] & 0xF0 == 0x90 and m.data[2]]
        xruns = receiver.xruns
        played = read_session(session)
        heard = np.concatenate(list(played.sound()))
        decisions = list(played.decisions)
    sent_ms = played.settings.partner.latency_ms
    # The first stroke in what was recorded says where the player's sound is in the stream.
    begun_s = int(np.argmax(np.abs(heard) > _LOUD)) / played.settings.sample_rate_hz - player.first_s
    planned = np.array([n.onset_s + sent_ms / 1000 - begun_s for d in decisions for n in d.notes])
    received = np.array([frame / _RATE_HZ + latency_ms / 1000 for frame in struck])
    if not (planned.size and received.size):
        raise InputError("no note was played and received")
    apart = received[None, :] - planned[:, None]
    return {
        "planned": _asynchronies_ms(planned, player, places),
        "received": _asynchronies_ms(received, player, places),
        "added_ms": 1000 * float(np.median(apart[np.arange(len(planned)), np.abs(apart).argmin(axis=1)])),
        "xruns": xruns,
        "latency_ms": sent_ms,
    }


def _asynchronies_ms(times_s: Float64, player: KnownPlayer, places: int) -> Float64:
    """Return how late times are, in ms, behind the nearest places of the player's grid, while there is one."""
    late_s = times_s[(times_s > player.settled_s) & (times_s < player.beats.beats_s[-1])]
    at = player.beats.places(late_s)
    return np.asarray(1000 * (at - np.round(at * places) / places) * player.beats.period_s(at))


def measure_timing(partner: Path) -> list[Figure]:
    """Measure asynchronies of notes that are moved onto beats, with a latency of the output too, and of notes as they are.

    The last are answers to melodies of songs that are only reported, where the material of `benchmarks.duo_material` is.
    """
    figures = []
    strokes = plucking_player()
    cases = [
        ("on beats, --latency 0", partner, strokes, 0.0, _ON_BEATS, 1),
        ("on beats, --latency 60", partner, strokes, 60.0, _ON_BEATS, 1),
        ("16ths", partner, strokes, 0.0, (), 4),
    ]
    with tempfile.TemporaryDirectory() as folder:
        if MATERIAL.exists():
            for song in songs_of("report", sets=("mma",), most=_MELODIES):
                model, melody, grid = melody_player(song)
                file = Path(folder) / f"{song.folder.name}.hal"
                save_partner(file, model)
                cases.append((f"{song.folder.name}, melody alone", file, melody, 0.0, (), grid))
        for case, file, player, latency_ms, settings, places in cases:
            figures += _figures(case, beats_heard(file, player, latency_ms=latency_ms, settings=settings, places=places))
    return figures


def _figures(case: str, found: dict[str, Any]) -> list[Figure]:
    figures, name = [], f"asynchrony {case}"
    for what in ("planned", "received"):
        if not len(found[what]):
            raise InputError(f"too few notes were {what} ({case})")
        median, low, high = np.percentile(found[what], [50, 10, 90])
        goal = 10.0 if what == "received" else None
        figures += [
            Figure(f"{name}, {what}: median, without its sign ({median:+.1f})", abs(float(median)), "ms", goal),
            Figure(f"{name}, {what}: from the 10th percentile to the 90th", float(high - low), "ms"),
        ]
    figures.append(Figure(f"{name}: added by the way to the port, without its sign", abs(found["added_ms"]), "ms", 2.0))
    figures.append(Figure(f"{name}: notes received (xruns: {found['xruns']})", len(found["received"]), ""))
    return figures
