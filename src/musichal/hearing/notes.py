"""Notes: which pitches sound, from when to when, how loud; polyphonic, causal, streaming.

For every frame a small network, trained on random music by `tools/train_notes.py`, gives for each pitch the probability
that it begins and that it sounds. It sees each pitch's view (`note_frames`) at a few moments around the frame. A note starts
where the sum of the former over 0.1 s peaks above a threshold, at its centre of mass; it ends when it no longer sounds, or
when it is struck again. Below the gate (`GateSpec.open_db`) there is no note. A decision needs up to 0.4 s of later sound, so
a note that starts near the end of a segment comes a segment or two later, with its true times.

Velocity is the level of the note's loudest partial over its first 80 ms, on a line from -54 dBFS (1) to -6 dBFS (127).

The input is the mix, not the harmonic stem: a prototype found more notes of rendered chorales in the mix (F 0.80) than in
the stem (0.75), and hardly fewer beside drums (0.66 to 0.69).
"""

import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load

from musichal.arrays import Bool, Float32, Int64
from musichal.errors import InputError
from musichal.hearing.note_frames import (
    HARMONIC_OFFSETS,
    LOWEST_NOTE,
    N_LONG,
    N_NOTES,
    N_SHORT,
    NoteFrames,
    NoteFrontEnd,
)
from musichal.hearing.percepts import Window
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec

LONG_LAGS = (-9, -4, 0, 3, 6)
SHORT_LAGS = (-4, -2, -1, 0, 1, 3)
"""Frames, relative to the current one, at which the network sees the long and the short views."""
BEHIND = -min(*LONG_LAGS, *SHORT_LAGS)
AHEAD = max(*LONG_LAGS, *SHORT_LAGS)
_FILE = "note_model.safetensors"
_PEAK_FRAMES = 4  # A beginning is the largest within 53 ms either way.
_SPREAD_FRAMES = 3  # A soft beginning's probability is spread: it is summed over this many frames either way.
_SUM_OF_A_SURE_ONE = 3.8  # what the training targets of one beginning add up to
_MARGIN = _PEAK_FRAMES + _SPREAD_FRAMES
_RISE_DB = 2.5  # A note that sounds is struck again only if its first partials get louder by this much,
_FIRST_PARTIALS = 6  # in the mean of so many.
_HOLD_FRAMES = 4  # A note ends where it does not sound for 53 ms.
_STRIKE_FRAMES = 6  # Its velocity is decided over 80 ms.
_AHEAD_ROWS = max(_MARGIN, _HOLD_FRAMES, _STRIKE_FRAMES)
_SOFTEST_DB, _LOUDEST_DB = -54.0, -6.0


class _Rows(NamedTuple):
    """What is known of consecutive frames: begins, sounds (probabilities), level (dBFS) and attack, each (n, N_NOTES).

    `attack` is the mean relative level, in dB, of a pitch's first partials through the short window.
    """

    begins: Float32
    sounds: Float32
    level_db: Float32
    attack_db: Float32

    def joined(self, later: "_Rows") -> "_Rows":
        return _Rows(*(np.concatenate(pair) for pair in zip(self, later, strict=True)))

    @staticmethod
    def silent(n: int) -> "_Rows":
        nothing = np.zeros((n, N_NOTES), dtype=np.float32)
        return _Rows(nothing, nothing, nothing - np.float32(120), nothing)


class NoteTracker:
    """Follows the notes of one stream, and holds all its state.

    Raises `InputError` if the spec has the digest of another note model than the one in this installation.
    """

    def __init__(self, spec: PerceptionSpec) -> None:
        digest = note_model_digest()
        if spec.notes.digest not in ("", digest):
            raise InputError(
                "the note model is not the one this partner was trained with:"
                f" partner has {spec.notes.digest}, this MusicHal has {digest}"
            )
        self._spec = spec
        self._settings = spec.notes
        self._model = NoteModel()
        self._restart(0)

    def step(self, window: Window) -> list[HeardNote]:
        """Take the next window and return the notes that ended, ordered by onset, then pitch.

        Samples that an earlier window contained are not analysed twice. Where segments were skipped, all notes end and the
        tracker restarts after the gap.
        """
        ended: list[HeardNote] = []
        if window.start_sample > self._end:
            ended = self.flush()
            self._restart(window.start_sample)
        first = self._spec.context_samples + self._end - window.start_sample
        samples = window.samples[first : self._spec.context_samples + window.length_samples]
        self._end += len(samples)
        return ended + self._hear(self._front_end.push(samples))

    def flush(self) -> list[HeardNote]:
        """End the stream: return the notes that still sounded. The tracker is then as new, at the stream's end."""
        # Silence fills up what lies ahead of the last frames.
        ended = self._hear(self._front_end.flush())
        ended += self._hear(_no_views(AHEAD))
        ended += self._decide(self._rows.joined(_Rows.silent(_AHEAD_ROWS)))
        last = self._frame
        for note in np.flatnonzero(self._onsets >= 0):
            ended += self._ended(int(note), last)
        self._restart(self._end)
        return sorted(ended, key=lambda n: (n.onset_s, n.pitch))

    def _restart(self, start_sample: int) -> None:
        self._start = self._end = start_sample
        self._front_end = NoteFrontEnd(self._spec.sample_rate_hz)
        self._views = _no_views(BEHIND)
        self._rows = _Rows.silent(_MARGIN)
        self._frame = 0
        # Per pitch: the frame of the note's beginning (-1: none sounds), its refined place and its velocity.
        self._onsets: Int64 = np.full(N_NOTES, -1, dtype=np.int64)
        self._places = np.zeros(N_NOTES)
        self._velocities = np.zeros(N_NOTES, dtype=np.int64)

    def _hear(self, views: NoteFrames) -> list[HeardNote]:
        known = NoteFrames(*(np.concatenate(pair) for pair in zip(self._views, views, strict=True)))
        probability = self._model.evaluate(known)
        n = probability.shape[0]
        partials = known.long[BEHIND : BEHIND + n, :, : len(HARMONIC_OFFSETS)].max(axis=2)
        level_db = np.float32(60) * (partials - 1) + known.reference_db[BEHIND : BEHIND + n, None]
        attack_db = np.float32(60) * known.short[BEHIND : BEHIND + n, :, :_FIRST_PARTIALS].mean(axis=2)
        self._views = NoteFrames(*(part[n:] for part in known))
        return self._decide(self._rows.joined(_Rows(probability[..., 0], probability[..., 1], level_db, attack_db)))

    def _decide(self, rows: _Rows) -> list[HeardNote]:
        """Decide on all frames that enough is known about; `rows` start `_MARGIN` frames before the first of them."""
        count = rows.begins.shape[0] - _MARGIN - _AHEAD_ROWS
        if count <= 0:
            self._rows = rows
            return []
        begins, places = self._beginnings(rows.begins, count)
        ends = _MARGIN + np.arange(count)
        alive = rows.sounds[ends] > self._settings.sound
        strike, attack, before = rows.level_db[ends], rows.attack_db[ends], rows.attack_db[ends - 1]
        for ahead in range(1, _HOLD_FRAMES):
            alive |= rows.sounds[ends + ahead] > self._settings.sound
        for lag in range(1, _STRIKE_FRAMES):
            strike = np.maximum(strike, rows.level_db[ends + lag])
            attack = np.maximum(attack, rows.attack_db[ends + lag])
            before = np.minimum(before, rows.attack_db[ends - lag])
        begins &= strike > self._spec.gate.open_db
        louder = attack - before >= np.float32(_RISE_DB)
        ended: list[HeardNote] = []
        for i in range(count):
            fading = (self._onsets >= 0) & ~alive[i] & (self._frame - self._onsets >= _HOLD_FRAMES - 1)
            starting = begins[i] & ((self._onsets < 0) | louder[i])
            for note in np.flatnonzero(fading | (starting & (self._onsets >= 0))):
                ended += self._ended(int(note), self._frame)
            for note in np.flatnonzero(starting):
                self._onsets[note] = self._frame
                self._places[note] = self._frame + float(places[i, note])
                self._velocities[note] = velocity_of(float(strike[i, note]))
            self._frame += 1
        self._rows = _Rows(*(array[count:] for array in rows))
        return sorted(ended, key=lambda n: (n.onset_s, n.pitch))

    def _beginnings(self, begins: Float32, count: int) -> tuple[Bool, Float32]:
        """Return where notes begin, and by how many frames their true places differ; both (count, N_NOTES)."""
        n = begins.shape[0] - 2 * _SPREAD_FRAMES
        lags = range(-_SPREAD_FRAMES, _SPREAD_FRAMES + 1)
        parts = [begins[_SPREAD_FRAMES + lag : _SPREAD_FRAMES + lag + n] for lag in lags]
        mass: Float32 = np.zeros_like(parts[0])
        moment: Float32 = np.zeros_like(parts[0])
        for lag, part in zip(lags, parts, strict=True):
            mass += part
            moment += np.float32(lag) * part
        here = mass[_PEAK_FRAMES : _PEAK_FRAMES + count]
        peak: Bool = here > np.float32(self._settings.begin * _SUM_OF_A_SURE_ONE)
        for lag in range(1, _PEAK_FRAMES + 1):
            # Of equal neighbours the first one counts.
            peak &= here > mass[_PEAK_FRAMES - lag : _PEAK_FRAMES - lag + count]
            peak &= here >= mass[_PEAK_FRAMES + lag : _PEAK_FRAMES + lag + count]
        places = (moment[_PEAK_FRAMES : _PEAK_FRAMES + count] / np.maximum(here, np.float32(1e-6))).astype(np.float32)
        return peak, places

    def _ended(self, note: int, frame: int) -> list[HeardNote]:
        place, rate = float(self._places[note]), self._spec.sample_rate_hz
        self._onsets[note] = -1
        onset_s = max(0.0, self._start + place * self._front_end.hop_samples) / rate
        duration_s = min(frame * self._front_end.hop_samples / rate, (self._end - self._start) / rate)
        duration_s -= onset_s - self._start / rate
        if duration_s < self._settings.min_duration_s:
            return []
        return [HeardNote(onset_s, duration_s, LOWEST_NOTE + note, int(self._velocities[note]))]


def velocity_of(level_db: float) -> int:
    """Return the velocity, 1 to 127, of a note whose loudest partial has `level_db` dBFS."""
    share = (level_db - _SOFTEST_DB) / (_LOUDEST_DB - _SOFTEST_DB)
    return round(1 + 126 * min(1.0, max(0.0, share)))


def _no_views(n: int) -> NoteFrames:
    long, short = (np.zeros((n, N_NOTES, width), dtype=np.float32) for width in (N_LONG, N_SHORT))
    return NoteFrames(long, short, np.zeros(n, dtype=np.float32), np.full(n, -120, dtype=np.float32))


@lru_cache(maxsize=1)
def _stored() -> bytes:
    return files("musichal.hearing").joinpath(_FILE).read_bytes()


def note_model_digest() -> str:
    """Return the SHA-256 of the weights, as 64 hexadecimal digits."""
    return hashlib.sha256(_stored()).hexdigest()


class NoteModel:
    """The packaged network. It is a pure function of the views that it is given."""

    def __init__(self) -> None:
        weights: dict[str, Float32] = load(_stored())
        inputs = len(LONG_LAGS) * N_LONG + len(SHORT_LAGS) * N_SHORT + 2
        if weights["w0"].shape[0] != inputs:
            raise ValueError(f"the note model has {weights['w0'].shape[0]} inputs, the front end gives {inputs}")
        w0 = weights["w0"]
        split = len(LONG_LAGS) * N_LONG
        self._long = [w0[i : i + N_LONG].copy() for i in range(0, split, N_LONG)]
        self._short = [w0[i : i + N_SHORT].copy() for i in range(split, inputs - 2, N_SHORT)]
        self._loudness = w0[-2]
        pitches = np.arange(N_NOTES, dtype=np.float32) / np.float32(N_NOTES)
        self._bias = pitches[:, None] * w0[-1] + weights["b0"]
        self._layers = [(weights["w1"], weights["b1"]), (weights["w2"], weights["b2"])]

    def evaluate(self, views: NoteFrames) -> Float32:
        """Return probabilities (n - BEHIND - AHEAD, N_NOTES, 2), begins and sounds, for all but the outer frames of n."""
        count = len(views.loudness) - BEHIND - AHEAD
        if count <= 0:
            return np.zeros((0, N_NOTES, 2), dtype=np.float32)
        hidden = self._bias + (views.loudness[BEHIND : BEHIND + count, None] * self._loudness)[:, None, :]
        # One product per frame, so small that no BLAS splits it: its rounding does not depend on the number of threads.
        for lags, view, parts in ((LONG_LAGS, views.long, self._long), (SHORT_LAGS, views.short, self._short)):
            for lag, weights in zip(lags, parts, strict=True):
                seen = view[BEHIND + lag : BEHIND + lag + count]
                hidden += seen @ weights
        for weights, bias in self._layers:
            np.maximum(hidden, 0, out=hidden)
            hidden = hidden @ weights
            hidden += bias
        return 1 / (1 + np.exp(-hidden))
