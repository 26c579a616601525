"""How well drum hits are heard: onset and drum, F-measure within 50 ms, matched drum by drum (`mir_eval.util.match_events`).

Songs are those to report on in the material of `benchmarks.duo_material`: their drum tracks alone, played by soundfonts whose
kits the network has heard; the same tracks played by kits that it has never heard (AVL Drumkits, Debian's
avldrums.lv2-soundfont, whose open hat is only half open); and the bands that they belong to. The network and its thresholds
come from other songs (`tools.train_drums`).

Conventions
-----------
Scores are micro averages over all hits. Keys of General MIDI's kit belong to six drums: hand claps and side sticks are snares,
pedal hats are closed, every cymbal is a cymbal. Other percussion (shakers, hand drums, bells) is not asked about: no hit is due
there, and one within 50 ms of it is not wrong. Truth within 30 ms on one drum is one hit. In the usual three classes, hats are
one and toms and cymbals are left out, in what is heard too.

The peer in the same run is the onset detector with a rule on the spectral centroid of the 50 ms after the onset (kick below
350 Hz, snare below 3500 Hz, closed hat above). ADTLib, a permissive peer, does not install (its madmom does not build).
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.duo_quality import Song, songs_of
from benchmarks.figure import Figure
from musichal.arrays import Float32, Float64
from musichal.audio.instrument import render_notes
from musichal.audio.recording import read_recording
from musichal.audio.soundfont import SoundFont, open_soundfont
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.hearing.drums import DrumTracker
from musichal.hearing.encoders import create_encoder
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.listener import FeatureExtractor
from musichal.machine import single_blas_thread
from musichal.note import DRUMS, HeardNote, Note
from musichal.spec import PerceptionSpec

TOLERANCE_S = 0.05
KEPT_FONTS = tuple(Path(f"/usr/share/sounds/sf2/{name}_4_LV2.sf2") for name in ("Red_Zeppelin", "Black_Pearl"))
"""Kits that the network has never heard."""
_OWN_KEYS = {35: 36, 48: 47, 50: 45, 52: 49}
"""Where those kits have another drum than General MIDI, the nearest that is right."""
_SAME_S = 0.03
_OTHER_KIT_S = 30.0
_DRUM_OF_KEY = {
    **dict.fromkeys((35, 36), 36), **dict.fromkeys((37, 38, 39, 40), 38), **dict.fromkeys((42, 44), 42), 46: 46,
    **dict.fromkeys((41, 43, 45, 47, 48, 50), 45), **dict.fromkeys((49, 51, 52, 53, 55, 57, 59), 49),
}  # fmt: skip
_THREE = {36: 36, 38: 38, 42: 42, 46: 42}
_CENTROIDS_HZ = (350.0, 3500.0)

Hits = Sequence[tuple[float, int]]
"""Times in seconds and drums, as keys of `DRUMS`."""
Rows = Sequence[Sequence[float]]
"""Times in seconds, keys and velocities."""


@dataclass
class Counts:
    """Hits found, heard and due, by drum, and how far those found are from their true times."""

    found: dict[int, int] = field(default_factory=dict)
    heard: dict[int, int] = field(default_factory=dict)
    due: dict[int, int] = field(default_factory=dict)
    errors_s: list[float] = field(default_factory=list)

    def add(self, true: Hits, heard: Hits, unasked_s: Float64) -> None:
        """Count one recording."""
        match: Any = _mir_eval().match_events
        for drum in {d for _, d in true} | {d for _, d in heard}:
            due_s, got_s = _once(t for t, d in true if d == drum), np.sort([t for t, d in heard if d == drum])
            pairs = match(due_s, got_s, TOLERANCE_S) if len(due_s) and len(got_s) else []
            right = {j for _, j in pairs}
            wrong = [t for j, t in enumerate(got_s) if j not in right and not _near(float(t), unasked_s)]
            for table, n in ((self.found, len(pairs)), (self.heard, len(pairs) + len(wrong)), (self.due, len(due_s))):
                table[drum] = table.get(drum, 0) + n
            self.errors_s += [float(got_s[j] - due_s[i]) for i, j in pairs]

    def f_measure(self, *drums: int) -> float:
        """Return the micro average over some drums, over all of them if none is named."""
        found, heard, due = (
            sum(n for drum, n in table.items() if not drums or drum in drums) for table in (self.found, self.heard, self.due)
        )
        return 2 * found / max(1, heard + due)


def _mir_eval() -> Any:
    try:
        return import_module("mir_eval.util")
    except ImportError as error:
        raise MissingExtraError(f"mir_eval is not installed; {install_hint('bench')}") from error


def _once(times_s: Iterable[float]) -> Float64:
    ordered = np.sort(np.fromiter(times_s, dtype=np.float64))
    return ordered[np.diff(ordered, prepend=-np.inf) > _SAME_S]


def _near(time_s: float, others_s: Float64) -> bool:
    return bool(len(others_s)) and float(np.abs(others_s - time_s).min()) <= TOLERANCE_S


def _in_three(hits: Hits) -> list[tuple[float, int]]:
    return [(t, _THREE[d]) for t, d in hits if d in _THREE]


def heard_hits(samples: Float32, rate_hz: int, spec: PerceptionSpec) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """Return the hits of a whole recording, (n,), as the listener hears them, and the peer's."""
    tracker = DrumTracker(spec)
    onsets: list[int] = []
    heard: list[HeardNote] = []
    stream: list[Float32] = []
    for result in FrontEnd(spec, source_rate_hz=rate_hz).stream(samples, block_samples=rate_hz):
        onsets += [onset.sample for onset in result.onsets]
        for window in result.windows:
            heard += tracker.step(window)
            start = spec.context_samples
            stream.append(window.samples[start : start + window.length_samples])
    heard += tracker.flush()
    whole = np.concatenate(stream) if stream else np.zeros(0, np.float32)
    peer = [(sample / spec.sample_rate_hz, _by_centroid(whole[sample:], spec.sample_rate_hz)) for sample in onsets]
    return [(hit.onset_s, hit.pitch) for hit in heard], peer


def _by_centroid(after: Float32, rate_hz: int) -> int:
    """Return the drum that the rule takes the sound right behind an onset for."""
    n = round(0.05 * rate_hz)
    spectrum = np.abs(np.fft.rfft(after[:n] * np.hanning(len(after[:n])), n)) + 1e-12
    centroid_hz = float(np.fft.rfftfreq(n, 1 / rate_hz) @ spectrum / spectrum.sum())
    return 36 if centroid_hz < _CENTROIDS_HZ[0] else 38 if centroid_hz < _CENTROIDS_HZ[1] else 42


def _truth(rows: Iterable[Sequence[float]], until_s: float) -> tuple[list[tuple[float, int]], Float64]:
    """Return the hits of the kit, and when other percussion is struck."""
    hits = [(float(t), int(key)) for t, key, _ in rows if 0 <= t < until_s]
    asked = [(t, _DRUM_OF_KEY[key]) for t, key in hits if key in _DRUM_OF_KEY]
    return asked, np.array([t for t, key in hits if key not in _DRUM_OF_KEY])


def _mono(path: Path) -> tuple[Float32, int]:
    recording = read_recording(path)
    samples = recording.samples
    return (samples if samples.ndim == 1 else samples.mean(axis=1)), recording.sample_rate_hz


def _with_font(font: SoundFont, rows: Rows, spec: PerceptionSpec) -> tuple[Float32, Rows]:
    """Return a drum track played by one of `KEPT_FONTS`, whose kit is its first program, and what was played."""
    kept = [
        (t, _OWN_KEYS.get(int(key), key), velocity)
        for t, key, velocity in rows
        if 0 <= t < _OTHER_KIT_S and int(key) in _DRUM_OF_KEY
    ]
    notes = [Note(float(t), 0.3, int(key), max(1, int(velocity))) for t, key, velocity in kept]
    stereo = render_notes(notes, font, sample_rate_hz=spec.sample_rate_hz)
    mono = stereo.mean(axis=1)
    loudest = float(np.abs(mono).max(initial=1e-6))
    return (mono * (0.5 / loudest)).astype(np.float32), kept


@dataclass(frozen=True)
class Group:
    """One kind of recordings: how the tracker does, and how the peer does."""

    ours: Counts
    three: Counts
    peer: Counts

    def add(self, samples: Float32, rate_hz: int, rows: Iterable[Sequence[float]], spec: PerceptionSpec) -> None:
        """Hear one recording and count."""
        true, unasked_s = _truth(rows, len(samples) / rate_hz)
        heard, peer = heard_hits(samples, rate_hz, spec)
        self.ours.add(true, heard, unasked_s)
        self.three.add(_in_three(true), _in_three(heard), unasked_s)
        self.peer.add(_in_three(true), peer, unasked_s)


def _group() -> Group:
    return Group(Counts(), Counts(), Counts())


def _drummed_songs() -> list[Song]:
    return [song for song in songs_of("report") if (song.folder / "drums.wav").exists() and song.truth["drum_hits"]]


def measure_groups(spec: PerceptionSpec) -> dict[str, Group]:
    """Hear every report song's drums alone, by another kit and under its band."""
    fonts = [open_soundfont(path) for path in KEPT_FONTS if path.is_file()]
    if not fonts:
        raise InputError("the kits to test with are missing: apt-get install avldrums.lv2-soundfont")
    groups = {name: _group() for name in ("drums alone", "another kit", "under a band")}
    for number, song in enumerate(_drummed_songs()):
        rows = song.truth["drum_hits"]
        groups["drums alone"].add(*_mono(song.folder / "drums.wav"), rows, spec)
        groups["under a band"].add(*_mono(song.folder / "band.wav"), rows, spec)
        samples, kept = _with_font(fonts[number % len(fonts)], rows, spec)
        if kept:
            groups["another kit"].add(samples, spec.sample_rate_hz, kept, spec)
    return groups


def _melodies() -> Iterator[Path]:
    for song in songs_of("report", sets=("freedoom", "mma", "free")):
        if (song.folder / "player.wav").exists():
            yield song.folder / "player.wav"


def false_hits_per_min(paths: Iterable[Path], spec: PerceptionSpec) -> list[float]:
    """Return how many hits a minute each recording without drums is said to have."""
    rates = []
    for path in paths:
        samples, rate_hz = _mono(path)
        rates.append(60 * len(heard_hits(samples, rate_hz, spec)[0]) / (len(samples) / rate_hz))
    return rates


def share_of_hearing(spec: PerceptionSpec) -> float:
    """Return the part of the front end's time per segment that the tracker takes, the median over a recording."""
    samples, rate_hz = _mono(_drummed_songs()[0].folder / "band.wav")
    extractor, tracker = FeatureExtractor(spec, create_encoder(spec)), DrumTracker(spec)
    shares = []
    for result in FrontEnd(spec, source_rate_hz=rate_hz).stream(samples[: 20 * rate_hz], block_samples=rate_hz):
        for window in result.windows:
            begin = time.perf_counter()
            extractor.step(window)
            between = time.perf_counter()
            tracker.step(window)
            shares.append((time.perf_counter() - between) / (between - begin))
    return float(np.median(shares))


_GOALS = {"drums alone": 0.90, "another kit": 0.75, "under a band": 0.65}


@single_blas_thread()
def measure_drums() -> list[Figure]:
    """Return the F-measure of each group with its goal, drum by drum too, false hits a minute, accuracy in time, and cost."""
    spec, figures = PerceptionSpec(), []
    for name, group in measure_groups(spec).items():
        figures.append(Figure(f"drums (onset and drum F, six drums): {name}", group.ours.f_measure(), "", _GOALS[name], True))
        figures += [
            Figure(f"{name}: {drum} ({group.ours.due.get(key, 0)} hits)", group.ours.f_measure(key), "")
            for key, drum in DRUMS.items()
        ]
        figures.append(
            Figure(
                f"{name}: kick, snare and hats",
                group.three.f_measure(),
                "",
                peer="centroid rule",
                peer_value=group.peer.f_measure(),
            )
        )
        errors_ms = 1000 * np.array(group.ours.errors_s)
        figures.append(Figure(f"{name}: median time error", float(np.median(errors_ms)), "ms"))
        figures.append(Figure(f"{name}: median absolute time error", float(np.median(np.abs(errors_ms))), "ms", 10.0))
    for name, paths in (
        ("melodies and free playing alone", _melodies()),
        ("chorales", (song.folder / "band.wav" for song in songs_of("report", sets=("chorale",)))),
    ):
        rates = false_hits_per_min(paths, spec)
        figures.append(Figure(f"false hits: {name} ({len(rates)} recordings), mean", float(np.mean(rates)), "1/min"))
        figures.append(Figure(f"false hits: {name}, median", float(np.median(rates)), "1/min"))
    figures.append(Figure("time of the tracker, share of the whole front end's", share_of_hearing(spec), "", 0.10))
    return figures
