"""How well notes are heard: precision, recall and F-measure on rendered scores, by `mir_eval.transcription`.

A note counts as found when a heard one starts within 50 ms of it and has its pitch (50 cents); where it ends is not asked.
Pieces go through the front end and the tracker as in the listener. They come from the test split of `scores`; the tracker's
networks have heard random music only, and its thresholds were chosen on the train split. Repeated notes are asked for one by
one; bands with drums come from the material of the duos, where it is there, and are heard by basic-pitch, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from benchmarks.note_bands import UNTRAINED_FONT, band_pieces, peer_notes
from benchmarks.scores import (
    OTHER_INSTRUMENTS,
    SAMPLE_RATE_HZ,
    Rendering,
    ScoreNote,
    Split,
    chorales,
    detuned,
    drum_loops,
    drummed,
    ensembles,
    render_notes,
    single_lines,
    with_pink_noise,
)
from musichal.arrays import Float32
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.notes import NoteTracker
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec

ONSET_TOLERANCE_S = 0.05


@dataclass(frozen=True)
class GroupQuality:
    """Means over the pieces of a group; `notes_per_s` counts what was heard, right or wrong."""

    group: str
    pieces: int
    precision: float
    recall: float
    f_measure: float
    notes_per_s: float


@dataclass(frozen=True)
class NoteQuality:
    """Quality by group; drums alone have no right notes, so only `notes_per_s` says something there."""

    groups: tuple[GroupQuality, ...]

    def __getitem__(self, group: str) -> GroupQuality:
        return next(g for g in self.groups if g.group == group)


def heard_notes(samples: Float32, spec: PerceptionSpec) -> list[HeardNote]:
    """Return the notes of a whole recording, (n,) at the spec's rate, as the listener would hear them."""
    tracker = NoteTracker(spec)
    heard: list[HeardNote] = []
    for result in FrontEnd(spec, source_rate_hz=spec.sample_rate_hz).stream(samples):
        for window in result.windows:
            heard += tracker.step(window)
    return sorted(heard + tracker.flush(), key=lambda n: (n.onset_s, n.pitch))


def _as_intervals(notes: Sequence[Any]) -> tuple[Any, Any]:
    times = np.array([(n.onset_s, n.onset_s + n.duration_s) for n in notes]).reshape(-1, 2)
    return times, 440.0 * 2.0 ** ((np.array([n.pitch for n in notes], dtype=np.float64) - 69) / 12)


def note_scores(piece: Rendering, heard: Sequence[HeardNote]) -> tuple[float, float, float]:
    """Return precision, recall and F-measure of onsets with pitches; zeros where nothing was heard or was there.

    Raises `MissingExtraError` without the ``bench`` extra.
    """
    try:
        transcription = import_module("mir_eval.transcription")
    except ImportError as error:
        raise MissingExtraError(f"mir_eval is not installed; {install_hint('bench')}") from error
    if not piece.notes or not heard:
        return 0.0, 0.0, 0.0
    precision, recall, f_measure, _ = transcription.precision_recall_f1_overlap(
        *_as_intervals(piece.notes), *_as_intervals(heard), onset_tolerance=ONSET_TOLERANCE_S, offset_ratio=None
    )
    return float(precision), float(recall), float(f_measure)


def group_quality(group: str, pieces: Sequence[Rendering], spec: PerceptionSpec) -> GroupQuality:
    """Return the means over `pieces`."""
    results, rates = [], []
    for piece in pieces:
        heard = heard_notes(piece.samples, spec)
        results.append(note_scores(piece, heard))
        rates.append(len(heard) / piece.duration_s)
    precision, recall, f_measure = np.mean(results, axis=0).tolist()
    return GroupQuality(group, len(pieces), precision, recall, f_measure, float(np.mean(rates)))


def note_quality(spec: PerceptionSpec | None = None, *, split: Split = "test") -> NoteQuality:
    """Measure single lines, chorales, ensembles, all of them spoiled in several ways, and drums alone."""
    spec = spec or PerceptionSpec()
    rng = np.random.default_rng(0)
    lines = single_lines(split, per_instrument=1)
    polyphony = chorales(split) + ensembles(split)
    groups = {
        "single lines": lines,
        "single lines, other instruments": single_lines(split, per_instrument=1, instruments=OTHER_INSTRUMENTS),
        "chorales": chorales(split),
        "ensembles": ensembles(split),
        "chorales with drums": drummed(split),
        "polyphony 35 cents sharp": [detuned(piece, cents=35.0) for piece in polyphony],
        "polyphony 35 cents flat": [detuned(piece, cents=-35.0) for piece in polyphony],
        "polyphony, pink noise at 15 dB": [with_pink_noise(piece, snr_db=15.0, rng=rng) for piece in polyphony],
        "drums alone": drum_loops(split),
    }
    return NoteQuality(tuple(group_quality(name, pieces, spec) for name, pieces in groups.items()))


_SINGLE_LINE_GOAL, _POLYPHONY_GOAL, _REPEATED_GOAL = 0.85, 0.55, 0.93
# (what plays, General MIDI program, pitch, seconds from stroke to stroke, seconds that each lasts, strokes)
_REPEATED = (
    ("piano, every 125 ms", 0, 60, 0.125, 0.11, 72),
    ("nylon guitar, every 125 ms", 24, 52, 0.125, 0.11, 72),
    ("marimba, every 80 ms", 12, 72, 0.08, 0.07, 72),
    ("tongued flute, every 300 ms", 73, 72, 0.3, 0.22, 30),
)


def repeated_notes() -> list[Figure]:
    """Return the F-measure of one pitch struck again and again, for each instrument."""
    figures = []
    for name, program, pitch, every_s, lasts_s, count in _REPEATED:
        notes = tuple(ScoreNote(0.25 + i * every_s, lasts_s, pitch, 90, program) for i in range(count))
        piece = Rendering(name, render_notes(notes), SAMPLE_RATE_HZ, notes, ())
        f_measure = group_quality(name, [piece], PerceptionSpec()).f_measure
        figures.append(Figure(f"repeated notes: {name}", f_measure, "", goal=_REPEATED_GOAL, at_least=True))
    return figures


def band_notes() -> list[Figure]:
    """Return the F-measure of bands with drums beside basic-pitch's; none without the material."""
    figures = []
    fonts = {"bands with drums": None, f"bands with drums, of {UNTRAINED_FONT} (not trained on)": UNTRAINED_FONT}
    for group, font in fonts.items():
        try:
            pieces = band_pieces("report", font=font)
        except InputError:
            return []
        peer = peer_notes(pieces)
        scores = None if peer is None else [note_scores(piece, heard)[2] for piece, heard in zip(pieces, peer, strict=True)]
        figures.append(
            Figure(
                f"notes (onset and pitch F): {group}, {len(pieces)} pieces",
                group_quality(group, pieces, PerceptionSpec()).f_measure,
                "",
                peer="basic-pitch",
                peer_value=None if scores is None else float(np.mean(scores)),
            )
        )
    return figures


def measure_notes() -> list[Figure]:
    """Return the F-measure of each group, with its goal, and how many notes a second drums alone bring in."""
    figures = []
    for g in note_quality().groups:
        if g.group == "drums alone":
            figures.append(Figure("notes heard in drums alone", g.notes_per_s, "notes/s"))
            continue
        goal = _SINGLE_LINE_GOAL if g.group.startswith("single lines") else _POLYPHONY_GOAL
        figures.append(Figure(f"notes (onset and pitch F): {g.group}", g.f_measure, "", goal=goal, at_least=True))
    return figures + repeated_notes() + band_notes()
