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
from scipy.signal import correlate

from benchmarks.duo_quality import MATERIAL, Song, duo_of, songs_of
from benchmarks.figure import Figure
from benchmarks.jack_microphone import JackMicrophone
from benchmarks.jack_midi import JackReceiver, private_server, wait_for
from benchmarks.live_speed import plucked
from musichal.arrays import Bool, Float32, Float64
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
_NEAR_S = 0.2  # so much sound may be lost within a second of it, and its place is still found
_WHOLE_S, _SAME_S = 1.5, 2e-4  # around a note, and how far the place of the sound there may vary where none is lost
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
    Returns ``planned`` and ``received``, arrays of shape (n,); ``added_ms``, shape (m,), what the way to the port adds to the
    notes around which no sound was lost; ``xruns``; and ``latency_ms`` as the session has it. Raises `InputError` where
    MusicHal does not play.
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
    stream_s, played_s = _found_again(player, heard, played.settings.sample_rate_hz)
    sounding_s = np.array([n.onset_s + sent_ms / 1000 for d in decisions for n in d.notes])
    planned = sounding_s + np.interp(sounding_s, stream_s, played_s - stream_s)
    received = np.array([frame / _RATE_HZ + latency_ms / 1000 for frame in struck])
    if not (planned.size and received.size):
        raise InputError("no note was played and received")
    whole = planned[_lies_in_whole_sound(sounding_s, stream_s, played_s)]
    apart = received[None, :] - whole[:, None]
    return {
        "planned": _asynchronies_ms(planned, player, places),
        "received": _asynchronies_ms(received, player, places),
        "added_ms": 1000 * apart[np.arange(len(whole)), np.abs(apart).argmin(axis=1)],
        "xruns": xruns,
        "latency_ms": sent_ms,
    }


def _found_again(player: KnownPlayer, heard: Float32, rate_hz: int) -> tuple[Float64, Float64]:
    """Return places of the player's sound in what was recorded, and in itself, both in s.

    It is looked for second by second, near the place before: on a busy computer JACK and the input lose sound, and each counts
    what was lost by its own clock.
    """
    if rate_hz != _RATE_HZ:
        raise InputError(f"the session has {rate_hz} Hz, not the server's {_RATE_HZ}")
    reach, late = round(_NEAR_S * rate_hz), round((_first_s(heard) - player.first_s) * rate_hz)
    places = []
    for first in range(round(player.first_s * rate_hz), len(player.sound) - rate_hz, rate_hz):
        begin = max(0, first + late - reach)
        around, second = heard[begin : first + late + rate_hz + reach], player.sound[first : first + rate_hz]
        if len(around) < rate_hz or np.abs(second).max() < _LOUD:
            continue
        late = begin + int(np.argmax(correlate(around, second, mode="valid"))) - first
        places.append((first + late, first))
    if not places:
        raise InputError("the session has nothing of the player's sound")
    stream_s, played_s = np.asarray(places, np.float64).T / rate_hz
    return stream_s, played_s


def _lies_in_whole_sound(times_s: Float64, stream_s: Float64, played_s: Float64) -> Bool:
    """Return which times lie where the sound's place in the stream is the same for `_WHOLE_S` before and after."""
    late_s = stream_s - played_s
    whole = np.zeros(len(times_s), bool)
    for k, time_s in enumerate(times_s):
        near = late_s[np.abs(stream_s - time_s) < _WHOLE_S]
        whole[k] = bool(len(near) > 1 and np.ptp(near) < _SAME_S and stream_s[0] <= time_s <= stream_s[-1])
    return whole


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
    if len(found["added_ms"]):
        added_ms = abs(float(np.median(found["added_ms"])))
        figures.append(Figure(f"{name}: added by the way to the port, without its sign", added_ms, "ms", 2.0))
    figures.append(Figure(f"{name}: notes received (xruns: {found['xruns']})", len(found["received"]), ""))
    return figures
