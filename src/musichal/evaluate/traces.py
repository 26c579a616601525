"""Harmony, density, loudness and register over time: of what a player played and of what answered.

Conventions
-----------
A trace has a row every `STEP_S`; row k covers [k, k + 1) steps. Density is smoothed over `SMOOTH_S`, as single onsets are
too sparse to correlate. Loudness of notes is their velocity on the line on which hearing puts it, −54 to −6 dBFS, summed
as power while they sound; below `FLOOR_DB` it is all silence. Register is the mean pitch of the notes that sound, each as
long as it does, over `SMOOTH_S` too; of a player, of the notes that were heard.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Float64
from musichal.live.performance import HeardStream
from musichal.note import HeardNote, Note

STEP_S = 0.25
SMOOTH_S = 1.0
FLOOR_DB = -60.0
_CHORD_S = 0.03
_SOFTEST_DB, _LOUDEST_DB = -54.0, -6.0


@dataclass(frozen=True)
class Trace:
    """What is heard of one player, row by row.

    `chroma` (n, 12), zero where nothing has a pitch; `density_hz` (n,) onsets per second; `loudness_db` (n,); `pitch` (n,) the
    mean MIDI pitch, NaN where no note sounds.
    """

    chroma: Float64
    density_hz: Float64
    loudness_db: Float64
    pitch: Float64

    @property
    def sounding(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return in which steps anything sounds, shape (n,)."""
        return self.loudness_db > FLOOR_DB


def steps_in(duration_s: float) -> int:
    """Return how many whole steps fit."""
    return int(duration_s / STEP_S + 1e-9)


def player_trace(heard: HeardStream, notes: Sequence[HeardNote], *, duration_s: float) -> Trace:
    """Return the trace of what was heard of a player, and of the notes among it, `duration_s` from the start."""
    n = steps_in(duration_s)
    at = heard.frame_samples / heard.sample_rate_hz / STEP_S
    inside = at < n
    row = at[inside].astype(np.int64)
    frames = np.bincount(row, minlength=n)
    chroma = np.zeros((n, 12))
    np.add.at(chroma, row, heard.chroma[inside].astype(np.float64))
    power = np.bincount(row, weights=10 ** (heard.level_db[inside].astype(np.float64) / 10), minlength=n)
    return Trace(
        chroma=chroma / np.maximum(frames, 1)[:, None],
        density_hz=_density(heard.onset_samples / heard.sample_rate_hz, n),
        loudness_db=_decibels(power / np.maximum(frames, 1)),
        pitch=_pitch(notes, n),
    )


def answer_trace(notes: Sequence[Note], *, duration_s: float) -> Trace:
    """Return the trace of notes, `duration_s` from the start; what was struck within 30 ms counts as one onset."""
    n = steps_in(duration_s)
    chroma, power = np.zeros((n, 12)), np.zeros(n)
    for note in notes:
        rows, share = _sounds(note, n)
        strength = 10 ** ((_SOFTEST_DB + (note.velocity - 1) / 126 * (_LOUDEST_DB - _SOFTEST_DB)) / 10)
        chroma[rows, note.pitch % 12] += share * np.sqrt(strength)
        power[rows] += share * strength
    onsets = np.sort([note.onset_s for note in notes])
    struck = onsets[np.diff(onsets, prepend=-1.0) > _CHORD_S] if len(onsets) else onsets
    return Trace(chroma, _density(np.asarray(struck, dtype=np.float64), n), _decibels(power), _pitch(notes, n))


def _sounds(note: HeardNote | Note, n: int) -> tuple[AnyArray, AnyArray]:
    """Return the steps of `n` in which a note sounds, and for what share of each."""
    first, last = note.onset_s / STEP_S, (note.onset_s + note.duration_s) / STEP_S
    rows = np.arange(int(first), min(n, int(np.ceil(last))))
    return rows, np.minimum(rows + 1, last) - np.maximum(rows, first)


def _pitch(notes: Sequence[HeardNote] | Sequence[Note], n: int) -> Float64:
    pitch, sounding = np.zeros(n), np.zeros(n)
    for note in notes:
        rows, share = _sounds(note, n)
        pitch[rows] += share * note.pitch
        sounding[rows] += share
    width = round(SMOOTH_S / STEP_S)
    if n >= width:
        pitch, sounding = (np.convolve(values, np.ones(width), mode="same") for values in (pitch, sounding))
    return np.where(sounding > 1e-9, pitch / np.maximum(sounding, 1e-9), np.nan)


def _density(onsets_s: Float64, n: int) -> Float64:
    counts = np.bincount(np.clip((onsets_s / STEP_S).astype(np.int64), 0, max(0, n)), minlength=n + 1)[:n]
    width = round(SMOOTH_S / STEP_S)
    return np.convolve(counts, np.ones(width), mode="same") / SMOOTH_S if n >= width else counts / STEP_S


def _decibels(power: Float64) -> Float64:
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR_DB)
