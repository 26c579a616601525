"""How well the beat is found while the music plays: F-measure by `mir_eval.beat` of beats that are predicted, and more.

Conventions
-----------
A predicted beat counts when it lies within 70 ms of a true one; the first 5 s are left out, as is the rule. Where onsets alone
cannot tell which level of the metre is the beat, and whether it is on or off, "any level" (AMLt) says how much of the time the
pulse as such was right. Songs are four of each set to report on in the material of `benchmarks.duo_material`, their first
minute; clips are real recordings of constant tempo, whose beats are known within 30 ms.

After a push of the tempo, a pulse is right when the beat it predicts next lies within 70 ms of a true one, or of half of it, at
a period within 6 % of the true one, its half or its double; it is back when it stays right for four beats. Of free playing, a
moment claims a pulse when a partner would go by it at all.

The peers are librosa's tracker, which is offline: it has heard all before it says where the first beat was; and, where
`MADMOM_PYTHON` names an interpreter that has it, madmom's, online (Böck, Krebs & Widmer, ISMIR 2014; its weights are not
free for every use). madmom 0.16 knows no Python after 3.9; it is shown what it misses, and needs NumPy before 1.24.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.duo_quality import MATERIAL, songs_of
from benchmarks.figure import Figure
from musichal.arrays import Float64
from musichal.audio.instrument import EmbeddedInstrument, render_notes
from musichal.audio.recording import Recording, read_recording
from musichal.commands.play import RECORDING
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.hearing.beats import BeatTracker, predicted_beats
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor
from musichal.hearing.percepts import Percept
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.partner.room_pulse import PulseKeeper
from musichal.partner.settings import PartnerSettings
from musichal.pulse import Pulse
from musichal.spec import PerceptionSpec

AUDIO = Path(__file__).resolve().parents[1] / "tests" / "audio"
"""The clips, in a checkout."""
CLIPS = ("rock140_guitar", "rock140_mix", "rock140_backing", "ballad95_guitar", "ballad95_mix", "ballad95_backing")
_SONGS, _HEARD_S = 4, 60
_NEAR_S, _SAME_PERIOD, _STAYS_BEATS = 0.07, 0.06, 4
_MADMOM = """
import collections, collections.abc, json, sys
for name in ("MutableSequence", "Sequence", "Mapping", "MutableMapping", "Iterable"):
    setattr(collections, name, getattr(collections.abc, name))
import numpy as np
np.float, np.int, np.bool = float, int, bool
from madmom.features.beats import DBNBeatTrackingProcessor, RNNBeatProcessor
for path in sys.argv[1:]:
    track = DBNBeatTrackingProcessor(fps=100, online=True)
    print(json.dumps([float(b) for b in track(RNNBeatProcessor(online=True)(path))]), flush=True)
"""


def percepts_of(recording: Recording, spec: PerceptionSpec) -> list[Percept]:
    """Return what is heard of a recording's first minute; without tokens, which the pulse does not need."""
    extractor = FeatureExtractor(spec, create_encoder(spec))
    samples = recording.samples[: _HEARD_S * recording.sample_rate_hz]
    heard = extractor.stream(samples, source_rate_hz=recording.sample_rate_hz)
    return [Percept(h, np.zeros((2, 0), dtype=np.int16)) for h in heard]


def beat_scores(truth: Float64, beats: Float64) -> tuple[float, float]:
    """Return F-measure and AMLt of beats, behind the first 5 s. Raises `MissingExtraError` without the ``bench`` extra."""
    beat = _module("mir_eval.beat")
    true, found = beat.trim_beats(truth), beat.trim_beats(beats)
    if len(found) < 2:
        return 0.0, 0.0
    return float(beat.f_measure(true, found)), float(beat.continuity(true, found)[3])


def measure_pulse() -> list[Figure]:
    """Return the figures of the clips and, where the material is there, of its songs, beside the peers'.

    Raises
    ------
    MissingExtraError
        Without the ``bench`` extra.
    InputError
        Without a checkout: the clips are in its tests.
    """
    if not AUDIO.is_dir():
        raise InputError(f"the clips with known tempo are in a checkout's tests/audio only, beside {RECORDING.name}")
    spec = PerceptionSpec()
    tracks = {
        f"clip {clip}": [
            (AUDIO / f"{clip}.ogg", json.loads((AUDIO / f"{clip.split('_')[0]}.json").read_text("utf-8"))["beats"])
        ]
        for clip in CLIPS
    }
    goals: dict[str, float] = {}
    if MATERIAL.is_dir():
        for kind in ("mma", "freedoom"):
            songs = songs_of("report", sets=(kind,), most=_SONGS)
            for part, name in (("band", "bands"), ("player", "melodies")):
                tracks[f"{kind} {name}"] = [(song.folder / f"{part}.wav", song.truth["beats_s"]) for song in songs]
        goals = {f"{kind} {part}": f for kind in ("mma", "freedoom") for part, f in (("bands", 0.88), ("melodies", 0.60))}
    paths = [path for found in tracks.values() for path, _ in found]
    with ThreadPoolExecutor(1) as beside:
        madmom = beside.submit(_madmom, paths)
        beats = {path: _beats(path, spec) for path in paths}
        others = [*_push_figures(spec), *_free_figures(spec)] if MATERIAL.is_dir() else []
        online = madmom.result()
    figures = [f for name, found in tracks.items() for f in _beat_figures(name, found, goals.get(name), beats, online)]
    return [*figures, *others, *_level_figures(spec)]


def _beats(path: Path, spec: PerceptionSpec) -> tuple[Float64, Float64]:
    """Return the beats that are predicted while a recording plays, and those that librosa finds in it."""
    recording = read_recording(path)
    mono = recording.samples[: _HEARD_S * recording.sample_rate_hz]
    mono = mono.reshape(mono.shape[0], -1).mean(axis=1)
    _, offline = _module("librosa").beat.beat_track(y=mono, sr=recording.sample_rate_hz, units="time")
    return predicted_beats(percepts_of(recording, spec), sample_rate_hz=spec.sample_rate_hz), np.asarray(offline)


def _beat_figures(
    name: str,
    tracks: Sequence[tuple[Path, Sequence[float]]],
    goal: float | None,
    found: Mapping[Path, tuple[Float64, Float64]],
    online: Mapping[Path, Float64],
) -> Iterator[Figure]:
    rows, late = [], []
    for path, beats_s in tracks:
        truth = np.array([b for b in beats_s if b < _HEARD_S])
        beats, offline = found[path]
        peers = [offline] if path not in online else [offline, online[path][online[path] < _HEARD_S]]
        rows.append([beat_scores(truth, all_beats) for all_beats in (beats, *peers)])
        away = beats[:, None] - truth
        away = away[np.arange(len(beats)), np.abs(away).argmin(axis=1)]
        if len(away := away[np.abs(away) < _NEAR_S]):
            late.append(float(np.median(away)))
    means = np.mean(rows, axis=0)
    for peer, label in enumerate(("librosa, offline", "madmom, online")[: len(means) - 1], start=1):
        for k, score in enumerate(("F", "any level")):
            limit = goal if peer == 1 and k == 0 else None
            figure_name = f"{name}: predicted beats ({score})"
            yield Figure(figure_name, float(means[0, k]), "", limit, True, peer=label, peer_value=float(means[peer, k]))
    if late:
        yield Figure(f"{name}: median of how late a right beat is", 1000 * float(np.mean(late)), "ms")


def _madmom(paths: Sequence[Path]) -> dict[Path, Float64]:
    """Return the beats of madmom's online tracker, none without `MADMOM_PYTHON`."""
    if not (python := os.environ.get("MADMOM_PYTHON")):
        return {}
    said = subprocess.run([python, "-W", "ignore", "-c", _MADMOM, *map(str, paths)], capture_output=True, text=True, check=True)  # noqa: S603 - named by hand
    return {path: np.array(json.loads(line)) for path, line in zip(paths, said.stdout.splitlines(), strict=True)}


def _pulses(percepts: Iterable[Percept], rate_hz: int) -> Iterator[tuple[float, Pulse | None]]:
    tracker = BeatTracker()
    for percept in percepts:
        tracker.hear(percept, sample_rate_hz=rate_hz)
        yield percept.heard.available_at / rate_hz, tracker.pulse()


def _is_right(pulse: Pulse | None, now_s: float, truth: Float64) -> bool:
    if pulse is None:
        return False
    here = min(max(1, int(np.searchsorted(truth, now_s))), len(truth) - 1)
    true_s = truth[here] - truth[here - 1]
    if min(abs(pulse.period_s / true_s / ratio - 1) for ratio in (0.5, 1.0, 2.0)) > _SAME_PERIOD:
        return False
    halves = np.sort(np.concatenate([truth, (truth[1:] + truth[:-1]) / 2]))
    return bool(np.abs(halves - pulse.next_s(now_s)).min() < _NEAR_S)


def _push_figures(spec: PerceptionSpec) -> Iterator[Figure]:
    for part, name in (("band", "bands"), ("player", "melodies")):
        back = []
        for song in songs_of("report", sets=("tempo_push",)):
            truth, push_s = np.array(song.truth["beats_s"]), song.truth["push_s"]
            heard = percepts_of(read_recording(song.folder / f"{part}.wav"), spec)
            seen = [(t, _is_right(p, t, truth)) for t, p in _pulses(heard, spec.sample_rate_hz) if push_s < t < truth[-1]]
            place = np.interp([push_s, *(t for t, _ in seen)], truth, np.arange(len(truth)))
            beats, right = place[1:] - place[0], np.array([r for _, r in seen])
            stays = [b for b in beats if right[(beats >= b) & (beats < b + _STAYS_BEATS)].all()]
            back.append(stays[0] if stays else len(truth))
        yield Figure(f"tempo pushed by 8 %, {name}: beats until it is back, median", float(np.median(back)), "beats", 4)
        yield Figure(f"tempo pushed by 8 %, {name}: back within four beats", float(np.mean(np.array(back) <= 4)), "")


def _free_figures(spec: PerceptionSpec) -> Iterator[Figure]:
    settings, claimed = PartnerSettings(), []
    for song in songs_of("report", sets=("free",)):
        keeper = PulseKeeper(sample_rate_hz=spec.sample_rate_hz)
        for percept in percepts_of(read_recording(song.folder / "player.wav"), spec):
            keeper.hear(percept, settings)
            claimed.append(keeper.at(percept.heard.available_at / spec.sample_rate_hz, settings).strength > 0)
    yield Figure("free playing: share of moments that claim a pulse", float(np.mean(claimed)), "", 0.05)


_Groove = list[tuple[tuple[int, int], ...]]


def _level_figures(spec: PerceptionSpec) -> Iterator[Figure]:
    """Yield how soon a change is followed after which the beat is elsewhere: half a beat away, or twice as long."""
    half_s, changed = 0.35, 40
    hat = ((42, 60),)
    kick, snare, strong, weak = ((36, 95), *hat), ((38, 95), *hat), ((60, 110),), ((60, 60),)
    before: _Groove = [kick, hat, snare, hat]
    grooves: list[tuple[str, _Groove, _Groove, float, int]] = [
        ("off the beat", before, before[-1:] + before[:-1], half_s, PERCUSSION_CHANNEL),
        ("twice as fast as the beat", [kick, snare], before, 0.0, PERCUSSION_CHANNEL),
        ("off the beat, by accents alone,", [strong, weak], [weak, strong], half_s, 0),
    ]
    for name, first, then, shift_s, channel in grooves:
        times, period_s = 0.2 + half_s * np.arange(2 * changed), 2 * half_s
        hits = [
            Note(float(time_s), 0.2, key, velocity, channel)
            for k, time_s in enumerate(times)
            for key, velocity in (first if k < changed else then)[k % len(first if k < changed else then)]
        ]
        samples = render_notes(hits, EmbeddedInstrument(), sample_rate_hz=spec.sample_rate_hz).mean(axis=1)
        true, right = Pulse(float(times[0]) + shift_s, period_s), []
        for now_s, pulse in _pulses(percepts_of(Recording("drums", spec.sample_rate_hz, samples), spec), spec.sample_rate_hz):
            beat_s = 0.0 if pulse is None else pulse.next_s(now_s)
            same = pulse is not None and abs(pulse.period_s / period_s - 1) < _SAME_PERIOD
            right.append((now_s, same and abs(true.nearest_s(beat_s) - beat_s) < _NEAR_S))
        wrong_s = max((t for t, is_right in right if not is_right and t < times[-1]), default=0.0)
        most = changed * half_s / period_s
        beats = min(most, max(0.0, wrong_s - times[changed]) / period_s)
        yield Figure(f"a pulse {name} is left after, of {most:.0f} beats", float(beats), "beats", 4)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name.split('.', maxsplit=1)[0]} is not installed; {install_hint('bench')}") from error
