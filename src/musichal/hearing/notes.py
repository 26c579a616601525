"""Notes: which pitches sound, from when to when, how loud; polyphonic, causal, streaming.

For every frame two small networks, trained on random music by `tools/train_notes.py`, give for each pitch the probability that
it begins and that it sounds. The first sees each pitch's view (`note_frames`) at a few moments around the frame. The second
sees what the first said of that pitch, of its neighbours and of those that share partials with it, and so tells a note from
another one's harmonics. A note starts where the sum of the former probability over 0.1 s peaks above a threshold, at its
centre of mass. It ends when it no longer sounds, or when it begins again. Below the gate (`GateSpec.open_db`) there is no note.

A note that sounds begins again, too, where it is unlikely but an onset of the whole sound is heard (`onsets`) and no other
pitch is likelier to have begun there: something was struck. And what surely sounds for 0.4 s is a note even if its beginning
was not heard: a drone, or a chord that was there before anyone listened. A decision needs up to 0.4 s of later sound, so a
note that starts near the end of a segment comes a segment or two later, with its true times.

Velocity is the level of the note's loudest partial over its first 80 ms, on a line from -54 dBFS (1) to -6 dBFS (127).

The input is the mix, not the harmonic stem: a prototype found more notes of rendered chorales in the mix (F 0.80) than in
the stem (0.75), and hardly fewer beside drums (0.66 to 0.69).
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter1d

from musichal.arrays import Bool, Float32, Int64
from musichal.errors import InputError
from musichal.hearing.model_weights import model_digest, model_weights
from musichal.hearing.note_frames import (
    HARMONIC_OFFSETS,
    LOWEST_NOTE,
    N_FRESH,
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
FRESH_LAGS = (-3, -1, 0, 1, 3)
"""Frames, relative to the current one, at which the first network sees the long, the short and the fresh views."""
OWN_LAGS = (-2, -1, 0, 1, 2)
OTHER_LAGS = (-1, 1)
OTHER_PITCHES = (-40, -36, -34, -31, -28, -24, -19, -12, -7, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 7, 12, 19, 24)
"""Frames, and distances in semitones, at which the second network sees what the first said of a pitch and of others."""
SECOND_LOOK = 2
"""Frames that the second network looks behind and ahead."""
BEHIND = -min(*LONG_LAGS, *SHORT_LAGS)
AHEAD = max(*LONG_LAGS, *SHORT_LAGS)
_PEAK_FRAMES = 4  # A beginning is the largest within 53 ms either way.
_SPREAD_FRAMES = 3  # A soft beginning's probability is spread: it is summed over this many frames either way.
_SUM_OF_A_SURE_ONE = 3.8  # what the training targets of one beginning add up to
_MARGIN = _PEAK_FRAMES + _SPREAD_FRAMES
_HOLD_FRAMES = 4  # A note ends where it does not sound for 53 ms.
_STRIKE_FRAMES = 6  # Its velocity is decided over 80 ms.
_HELD_FRAMES = 30  # A pitch that sounds for 0.4 s is a note, whether it was heard to begin or not.
_FADED_S = 0.08  # A sound that dies away sooner is no note; one that is struck again may be.
_HIGH_PARTIALS, _PARTIAL_DB = (31, 34, 36, 38, 40), 3.0  # the sixth to the tenth, in semitones
_RELEASE_DB = 6.0  # What falls by more over 0.1 s is let go, not struck again.
_NEARLY = 0.9  # An onset that no pitch surely explains is that of the likeliest, or of one nearly as likely.
_AHEAD_ROWS = max(_MARGIN, _HOLD_FRAMES, _STRIKE_FRAMES)
_SUREST = np.float32(8)  # Log-odds beyond it tell nothing more.
_SOFTEST_DB, _LOUDEST_DB = -54.0, -6.0


class _Rows(NamedTuple):
    """What is known of consecutive frames: begins, sounds (probabilities) and level (dBFS), each (n, N_NOTES)."""

    begins: Float32
    sounds: Float32
    level_db: Float32

    def joined(self, later: "_Rows") -> "_Rows":
        return _Rows(*(np.concatenate(pair) for pair in zip(self, later, strict=True)))

    @staticmethod
    def silent(n: int) -> "_Rows":
        nothing = np.zeros((n, N_NOTES), dtype=np.float32)
        return _Rows(nothing, nothing, nothing - np.float32(120))


class _Looks(NamedTuple):
    """What the first network made of consecutive frames (see `NoteModel.first_look`), and their level in dBFS."""

    hidden: Float32
    answers: Float32
    level_db: Float32

    def joined(self, later: "_Looks") -> "_Looks":
        return _Looks(*(np.concatenate(pair) for pair in zip(self, later, strict=True)))

    @staticmethod
    def silent(n: int, units: int) -> "_Looks":
        return _Looks(
            np.zeros((n, N_NOTES, units), np.float32),
            np.full((n, 2, N_NOTES), -_SUREST, np.float32),
            np.full((n, N_NOTES), -120, np.float32),
        )


class NoteTracker:
    """Follows the notes of one stream, and holds all its state.

    Raises `InputError` if the spec has the digest of another note model than the one in this installation.
    """

    def __init__(self, spec: PerceptionSpec) -> None:
        digest = model_digest("note")
        if spec.notes.digest not in ("", digest):
            raise InputError(
                "the note model is not the one this partner was trained with:"
                f" partner has {spec.notes.digest}, this MusicHal has {digest};"
                " `musichal rehear` hears its recordings again, if it holds them"
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
        self._struck += [sample - self._start for sample in window.onset_samples]
        samples = window.samples[first : self._spec.context_samples + window.length_samples]
        self._end += len(samples)
        return ended + self._hear(self._front_end.push(samples))

    def flush(self) -> list[HeardNote]:
        """End the stream: return the notes that still sounded. The tracker is then as new, at the stream's end."""
        # Silence fills up what lies ahead of the last frames.
        ended = self._hear(self._front_end.flush())
        ended += self._hear(no_views(AHEAD))
        ended += self._look_again(_Looks.silent(SECOND_LOOK, self._model.units))
        ended += self._decide(self._rows.joined(_Rows.silent(_AHEAD_ROWS)))
        last = self._frame
        for note in np.flatnonzero(self._onsets >= 0):
            ended += self._ended(int(note), last, least_s=self._settings.min_duration_s)
        self._restart(self._end)
        return sorted(ended, key=lambda n: (n.onset_s, n.pitch))

    def _restart(self, start_sample: int) -> None:
        self._start = self._end = start_sample
        self._front_end = NoteFrontEnd(self._spec.sample_rate_hz)
        self._views = no_views(BEHIND)
        self._looks = _Looks.silent(SECOND_LOOK, self._model.units)
        self._rows = _Rows.silent(_MARGIN)
        self._frame = 0
        # Per pitch: the frame of the note's beginning (-1: none sounds), its refined place and its velocity.
        self._onsets: Int64 = np.full(N_NOTES, -1, dtype=np.int64)
        self._places = np.zeros(N_NOTES)
        self._velocities = np.zeros(N_NOTES, dtype=np.int64)
        self._struck: list[int] = []  # onsets of the whole sound, in samples of the stream since its start
        self._steady: Int64 = np.zeros(N_NOTES, dtype=np.int64)  # for how many frames it has surely sounded

    def _hear(self, views: NoteFrames) -> list[HeardNote]:
        known = NoteFrames(*(np.concatenate(pair) for pair in zip(self._views, views, strict=True)))
        hidden, answers = self._model.first_look(known)
        now = slice(BEHIND, BEHIND + len(answers))
        partials = known.long[now, :, : len(HARMONIC_OFFSETS)].max(axis=2)
        level_db = np.float32(60) * (partials - 1) + known.reference_db[now, None]
        self._views = NoteFrames(*(part[len(answers) :] for part in known))
        return self._look_again(_Looks(hidden, answers, level_db))

    def _look_again(self, looks: _Looks) -> list[HeardNote]:
        known = self._looks.joined(looks)
        probability = self._model.second_look(known.hidden, known.answers)
        n = len(probability)
        self._looks = _Looks(*(part[n:] for part in known))
        level_db = known.level_db[SECOND_LOOK : SECOND_LOOK + n]
        return self._decide(self._rows.joined(_Rows(probability[:, 0], probability[:, 1], level_db)))

    def _decide(self, rows: _Rows) -> list[HeardNote]:
        """Decide on all frames that enough is known about; `rows` start `_MARGIN` frames before the first of them."""
        count = rows.begins.shape[0] - _MARGIN - _AHEAD_ROWS
        if count <= 0:
            self._rows = rows
            return []
        begins, again, places = self._beginnings(rows.begins, count)
        ends = _MARGIN + np.arange(count)
        alive = rows.sounds[ends] > self._settings.sound
        strike = rows.level_db[ends]
        for ahead in range(1, _HOLD_FRAMES):
            alive |= rows.sounds[ends + ahead] > self._settings.sound
        for ahead in range(1, _STRIKE_FRAMES):
            strike = np.maximum(strike, rows.level_db[ends + ahead])
        audible = strike > self._spec.gate.open_db
        begins &= audible & ~self._overtones(rows.begins, strike)
        again &= audible & self._at_onsets(count)[:, None]
        falls = rows.level_db[ends + _STRIKE_FRAMES - 1] < rows.level_db[ends - 2] - np.float32(_RELEASE_DB)
        ended: list[HeardNote] = []
        held = self._held(rows.sounds[ends] > self._settings.held)
        for note in np.flatnonzero((self._onsets >= 0) | begins.any(axis=0) | held.any(axis=0)).tolist():
            for i in np.flatnonzero(begins[:, note] | again[:, note] | held[:, note] | ~alive[:, note]).tolist():
                frame, onset = self._frame + i, int(self._onsets[note])
                starts = bool(begins[i, note] if onset < 0 else (begins[i, note] or again[i, note]) and not falls[i, note])
                if onset >= 0 and (starts or (not alive[i, note] and frame - onset >= _HOLD_FRAMES - 1)):
                    ended += self._ended(note, frame, least_s=self._settings.min_duration_s if starts else _FADED_S)
                if starts or (held[i, note] and onset < 0):
                    self._onsets[note] = frame
                    self._places[note] = frame + float(places[i, note]) if starts else frame - _HELD_FRAMES + 1
                    self._velocities[note] = velocity_of(float(strike[i, note]))
        self._frame += count
        self._rows = _Rows(*(array[count:] for array in rows))
        return sorted(ended, key=lambda n: (n.onset_s, n.pitch))

    @staticmethod
    def _overtones(begins: Float32, strike: Float32) -> Bool:
        """Return where a pitch is softer, and less likely to begin, than one that has it as a high partial; (n, N_NOTES)."""
        near = maximum_filter1d(begins, 2 * _SPREAD_FRAMES + 1, axis=0)[_MARGIN : _MARGIN + len(strike)]
        overtone = np.zeros(strike.shape, dtype=np.bool_)
        for up in _HIGH_PARTIALS:
            louder = strike[:, :-up] > strike[:, up:] + np.float32(_PARTIAL_DB)
            overtone[:, up:] |= louder & (near[:, :-up] > near[:, up:])
        return overtone

    def _held(self, surely: Bool) -> Bool:
        """Return where a pitch has surely sounded for just `_HELD_FRAMES`; where that began need not have been heard."""
        held = np.zeros_like(surely)
        for sure, out in zip(surely, held, strict=True):
            self._steady = np.where(sure, self._steady + 1, 0)
            out[:] = self._steady == _HELD_FRAMES
        return held

    def _at_onsets(self, count: int) -> Bool:
        """Return which of the next `count` frames are near an onset of the whole sound, and forget those left behind."""
        near: Bool = np.zeros(count, dtype=np.bool_)
        frames = [round(sample / self._front_end.hop_samples) - self._frame for sample in self._struck]
        for frame in frames:
            near[max(0, frame - _PEAK_FRAMES) : max(0, frame + _PEAK_FRAMES + 1)] = True
        self._struck = [s for s, frame in zip(self._struck, frames, strict=True) if frame + _PEAK_FRAMES >= count]
        return near

    def _beginnings(self, begins: Float32, count: int) -> tuple[Bool, Bool, Float32]:
        """Return where notes begin, where they might begin again, and how far (in frames) from there; (count, N_NOTES)."""
        n = begins.shape[0] - 2 * _SPREAD_FRAMES
        lags = range(-_SPREAD_FRAMES, _SPREAD_FRAMES + 1)
        parts = [begins[_SPREAD_FRAMES + lag : _SPREAD_FRAMES + lag + n] for lag in lags]
        mass: Float32 = np.zeros_like(parts[0])
        moment: Float32 = np.zeros_like(parts[0])
        for lag, part in zip(lags, parts, strict=True):
            mass += part
            moment += np.float32(lag) * part
        here = mass[_PEAK_FRAMES : _PEAK_FRAMES + count]
        peak: Bool = here > 0
        for lag in range(1, _PEAK_FRAMES + 1):
            # Of equal neighbours the first one counts.
            before, after = (slice(_PEAK_FRAMES + step, _PEAK_FRAMES + step + count) for step in (-lag, lag))
            peak &= (here > mass[before]) & (here >= mass[after])
        likeliest = maximum_filter1d(mass.max(axis=1), 2 * _PEAK_FRAMES + 1)[_PEAK_FRAMES : _PEAK_FRAMES + count, None]
        places = (moment[_PEAK_FRAMES : _PEAK_FRAMES + count] / np.maximum(here, np.float32(1e-6))).astype(np.float32)
        least, least_again = (np.float32(p * _SUM_OF_A_SURE_ONE) for p in (self._settings.begin, self._settings.again))
        return peak & (here > least), peak & (here > least_again) & (here >= np.float32(_NEARLY) * likeliest), places

    def _ended(self, note: int, frame: int, *, least_s: float) -> list[HeardNote]:
        place, rate = float(self._places[note]), self._spec.sample_rate_hz
        self._onsets[note] = -1
        onset_s = max(0.0, self._start + place * self._front_end.hop_samples) / rate
        duration_s = min(frame * self._front_end.hop_samples / rate, (self._end - self._start) / rate)
        duration_s -= onset_s - self._start / rate
        if duration_s < least_s:
            return []
        return [HeardNote(onset_s, duration_s, LOWEST_NOTE + note, int(self._velocities[note]))]


def velocity_of(level_db: float) -> int:
    """Return the velocity, 1 to 127, of a note whose loudest partial has `level_db` dBFS."""
    share = (level_db - _SOFTEST_DB) / (_LOUDEST_DB - _SOFTEST_DB)
    return round(1 + 126 * min(1.0, max(0.0, share)))


def no_views(n: int) -> NoteFrames:
    """Return the views of `n` frames of silence."""
    long, short, fresh = (np.zeros((n, N_NOTES, width), dtype=np.float32) for width in (N_LONG, N_SHORT, N_FRESH))
    return NoteFrames(long, short, fresh, np.zeros((n, 2), np.float32), np.zeros(n, np.float32), np.full(n, -120, np.float32))


class NoteModel:
    """The two networks. They are pure functions of what they are given."""

    def __init__(self, weights: Mapping[str, Float32] | None = None) -> None:
        """Take the weights; the packaged ones without any."""
        views = ((LONG_LAGS, N_LONG), (SHORT_LAGS, N_SHORT), (FRESH_LAGS, N_FRESH))
        ends = list(accumulate((len(lags) * width for lags, width in (*views, (FRESH_LAGS, 2))), initial=0))
        weights = model_weights("note", {"w0": ends[-1] + 2}, weights)
        w0 = weights["w0"]
        self._views = [
            (lags, [w0[i : i + width].copy() for i in range(end - len(lags) * width, end, width)])
            for (lags, width), end in zip(views, ends[1:], strict=False)
        ]
        self._burst = w0[ends[-2] : ends[-1]].reshape(len(FRESH_LAGS), 2, -1)
        self._loudness = w0[-2]
        pitches = np.arange(N_NOTES, dtype=np.float32) / np.float32(N_NOTES)
        self._bias = pitches[:, None] * w0[-1] + weights["b0"]
        self._layers = [(weights["w1"], weights["b1"]), (weights["w2"], weights["b2"])]
        self.units = weights["w2"].shape[0]
        self._second = [(weights[f"v{i}"].T.copy(), weights[f"c{i}"][:, None]) for i in range(3) if "v0" in weights]

    def first_look(self, views: NoteFrames) -> tuple[Float32, Float32]:
        """Return what the first network makes of all but the outer frames of n, `BEHIND` and `AHEAD` of them.

        Its last hidden layer, (frames, N_NOTES, units), and its answers, (frames, 2, N_NOTES): the log-odds that a pitch
        begins and that it sounds.
        """
        count = max(0, len(views.loudness) - BEHIND - AHEAD)
        for_all = views.loudness[BEHIND : BEHIND + count, None] * self._loudness
        for lag, weights in zip(FRESH_LAGS, self._burst, strict=True):
            seen = views.burst[BEHIND + lag : BEHIND + lag + count]
            for_all += seen[:, :1] * weights[0] + seen[:, 1:] * weights[1]
        hidden = self._bias + for_all[:, None, :]
        # One product per frame, so small that no BLAS splits it: its rounding does not depend on the number of threads.
        for (lags, parts), view in zip(self._views, (views.long, views.short, views.fresh), strict=True):
            for lag, weights in zip(lags, parts, strict=True):
                hidden += view[BEHIND + lag : BEHIND + lag + count] @ weights
        (w1, b1), (w2, b2) = self._layers
        hidden = np.maximum(np.maximum(hidden, 0) @ w1 + b1, 0)
        answers = np.clip(hidden @ w2 + b2, -_SUREST, _SUREST)
        return hidden, np.ascontiguousarray(answers.transpose(0, 2, 1))

    @staticmethod
    def second_inputs(hidden: Float32, answers: Float32) -> Float32:
        """Return what the second network sees of all but the outer `SECOND_LOOK` frames: (frames, inputs, N_NOTES)."""
        count, margin, units = len(answers) - 2 * SECOND_LOOK, max(map(abs, OTHER_PITCHES)), hidden.shape[2]
        own, other = len(OWN_LAGS), len(OTHER_LAGS) * len(OTHER_PITCHES)
        inputs = np.empty((max(0, count), units + 2 * (own + other), N_NOTES), np.float32)
        if count <= 0:
            return inputs
        inputs[:, :units] = hidden[SECOND_LOOK : SECOND_LOOK + count].transpose(0, 2, 1)
        padded = np.pad(answers, ((0, 0), (0, 0), (margin, margin)), constant_values=-_SUREST)
        places = [(lag, 0) for lag in OWN_LAGS] + [(lag, pitch) for pitch in OTHER_PITCHES for lag in OTHER_LAGS]
        for i, (lag, pitch) in enumerate(places):
            first, low = SECOND_LOOK + lag, margin + pitch
            inputs[:, units + 2 * i : units + 2 * i + 2] = padded[first : first + count, :, low : low + N_NOTES]
        return inputs

    def second_look(self, hidden: Float32, answers: Float32) -> Float32:
        """Return the probabilities that each pitch begins and sounds, (frames, 2, N_NOTES), of all but the outer frames."""
        x = self.second_inputs(hidden, answers)
        for weights, bias in self._second[:-1]:
            x = np.maximum(weights @ x + bias, 0)
        weights, bias = self._second[-1]
        return np.asarray(1 / (1 + np.exp(-(weights @ x + bias))), dtype=np.float32)
