"""Recordings of one performance beside each other, and a recording beside its notes: when in one is a moment of the other.

Onsets and harmony of two recordings are correlated at every offset up to ten seconds. Parts of one music agree at their own
offset, whatever instruments play them; of two musics neither agrees at any. Music that repeats agrees at several offsets: the
one next to none is taken, unless another is clearly better.

A recording and the MIDI file of the same performance differ by an offset, and by a drift where two clocks counted. Windows of
the recording are correlated with the file at every lag. The line of lags on which they agree best in sum is found first, and
the notes that are heard there then make it exact (the median slope over matched onsets).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy.ndimage import gaussian_filter1d

from musichal.arrays import Float64, Int64
from musichal.audio.midi_take import Control, Label, MidiTake
from musichal.audio.recording import Recording
from musichal.errors import InputError
from musichal.hearing.percepts import SegmentFeatures
from musichal.memory.partner_file import StoredRecording
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec

_PAIR_AGREEMENT = 0.3
"""Of one music are recordings whose correlations of onsets and of harmony add up to this, at some offset."""
_DOUBTFUL = 0.5  # below, the offset may be wrong: parts of one performance had 0.57 to 1.44, elsewhere in the song mostly less
MORE_AT_ONCE = 0.5
"""With so much more of `parts_at_once` than the others, a player may be the band."""
STEP_S, CHROMA_S = 0.01, 0.1
"""Steps in which onsets and harmony are compared."""
_ONSET_S = 0.025
_PAIR_OFFSET_S = 10.0
_NEAR_S, _BETTER = 0.15, 0.1  # another offset than one so near to none must agree better by so much
_APART_S, _APART = 2.0, 0.05  # so far, or by such a share, the lengths of a pair may differ


def check_pairs(recordings: Sequence[Recording | StoredRecording], pairs: Sequence[tuple[int, int]]) -> None:
    """Raise `InputError` for a pair whose recordings cannot be of one performance."""
    for player, others in ((recordings[a], recordings[b]) for a, b in pairs):
        names = f"{player.name} and {others.name}"
        if player.digest == others.digest:
            raise InputError(f"{names} are the same sound: a pair is a player, and what the others played beside them")
        lengths_s = player.duration_s, others.duration_s
        if max(lengths_s) - min(lengths_s) > max(_APART_S, _APART * max(lengths_s)):
            raise InputError(
                f"{names} are no pair: one lasts {lengths_s[0]:.1f} s and the other {lengths_s[1]:.1f} s;"
                " they must hold one performance from its beginning to its end"
            )


def parts_at_once(notes: Iterable[HeardNote], hits: Sequence[HeardNote], *, duration_s: float) -> float:
    """Return how much goes on in a recording: how many notes sound on average, and each three drum hits a second for one."""
    return (sum(note.duration_s for note in notes) + len(hits) / 3) / duration_s


@dataclass(frozen=True)
class Sounding:
    """What is compared of a recording: its onsets (n,) every 10 ms, and its chroma (k, 12), centred, every 100 ms.

    `onsets_s` (m,) are the onsets themselves.
    """

    name: str
    onsets: Float64
    chroma: Float64
    onsets_s: Float64

    @classmethod
    def of(cls, name: str, segments: Iterable[SegmentFeatures], spec: PerceptionSpec) -> "Sounding":
        """Return it of what was heard; raises `InputError` where nothing was."""
        rate_hz, onsets, chroma = spec.sample_rate_hz, np.zeros(1), np.zeros((1, 12))
        times_s: list[float] = []
        for segment in segments:
            end_s = (segment.start_sample + segment.length_samples) / rate_hz
            onsets.resize(int(end_s / STEP_S) + 1, refcheck=False)
            chroma.resize((int(end_s / CHROMA_S) + 1, 12), refcheck=False)
            times_s += [onset / rate_hz for onset in segment.onset_samples]
            for onset in segment.onset_samples:
                onsets[min(int(onset / rate_hz / STEP_S), len(onsets) - 1)] = 1.0
            heard = segment.audible.any(axis=0)
            places = (segment.frame_samples[heard] / rate_hz / CHROMA_S).astype(np.int64)
            np.add.at(chroma, np.minimum(places, len(chroma) - 1), segment.chroma[heard].astype(np.float64))
        if not chroma.any():
            raise InputError(f"{name} is silent throughout: nothing can be learned from its pair")
        chroma = _centred(chroma)
        smooth = gaussian_filter1d(onsets, _ONSET_S / STEP_S)
        return cls(name, smooth - smooth.mean(), chroma, np.array(times_s))

    @classmethod
    def of_notes(cls, name: str, take: MidiTake) -> "Sounding":
        """Return it of the notes of a MIDI file."""
        last_s = max((note.onset_s + note.duration_s for note in take.onsets), default=0.0)
        onsets, chroma = np.zeros(int(last_s / STEP_S) + 2), np.zeros((int(last_s / CHROMA_S) + 2, 12))
        for note in take.onsets:
            onsets[int(note.onset_s / STEP_S)] = 1.0
        for note in take.notes:
            first, end = int(note.onset_s / CHROMA_S), int((note.onset_s + note.duration_s) / CHROMA_S) + 1
            chroma[first:end, note.pitch % 12] += note.velocity
        smooth = gaussian_filter1d(onsets, _ONSET_S / STEP_S)
        return cls(name, smooth - smooth.mean(), _centred(chroma), np.array([note.onset_s for note in take.onsets]))


def _centred(chroma: Float64) -> Float64:
    """Return rows of chroma (n, 12) of mean 0 and length 1, or 0."""
    centred = chroma - chroma.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9))


def aligned(player: Sounding, others: Sounding, *, warn: Callable[[str], None] | None = None) -> float:
    """Return how much later a moment is in the others' recording than in the player's, in seconds.

    `warn` is told where that is doubtful. Raises `InputError` where the two are not of one music.
    """
    lags = np.arange(-round(_PAIR_OFFSET_S / STEP_S), round(_PAIR_OFFSET_S / STEP_S) + 1)
    onsets = _correlation(player.onsets[:, None], others.onsets[:, None], lags)
    harmony = _correlation(player.chroma, others.chroma, np.unique(np.rint(lags * STEP_S / CHROMA_S)).astype(np.int64))
    agreement = onsets + np.interp(lags, np.linspace(lags[0], lags[-1], len(harmony)), harmony)
    near = np.flatnonzero(np.abs(lags) <= round(_NEAR_S / STEP_S))
    usual, best = int(near[np.argmax(agreement[near])]), int(np.argmax(agreement))
    chosen = best if agreement[best] > agreement[usual] + _BETTER else usual
    offset_s = round(float(lags[chosen]) * STEP_S, 2)
    if agreement[chosen] < _PAIR_AGREEMENT:
        raise InputError(
            f"{player.name} and {others.name} are not of one performance: their onsets and harmony agree by"
            f" {agreement[chosen]:.2f} at best ({offset_s:+.2f} s apart), and {_PAIR_AGREEMENT:g} is needed"
        )
    if agreement[chosen] < _DOUBTFUL and warn is not None:
        warn(
            f"{player.name} and {others.name} agree by {agreement[chosen]:.2f} only ({offset_s:+.2f} s apart), where most pairs"
            " have 0.6 or more: do both begin at the same moment of one performance?"
        )
    return offset_s


def _correlation(a: Float64, b: Float64, lags: Int64) -> Float64:
    """Return the correlation of rows (n, k) with those (m, k) that come so many rows later."""
    from scipy.signal import correlate

    full = sum(correlate(b[:, k], a[:, k], mode="full", method="fft") for k in range(a.shape[1]))
    places = lags + len(a) - 1
    inside = (places >= 0) & (places < len(full))
    found = np.where(inside, full[np.clip(places, 0, len(full) - 1)], 0.0)
    return np.asarray(found / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))


# ── the sound and the notes of one performance ───────────────────────────────

_LEAST_AGREEMENT = 0.75
"""Of one performance are a recording and notes whose correlations of onsets and of harmony add up to this. Other music in the
same metre and key comes to 0.65."""
_WINDOW_S, _HOP_S = 12.0, 6.0
_LONGEST_OFFSET_S, _LARGEST_DRIFT, _DRIFT_STEP = 4.0, 0.01, 0.0005
_REACHES_S = (0.1, 0.05, 0.03, 0.03)
_LEAST_MATCHED, _EARLY = 5, 0.9
_STRUM_S = 0.03  # what is struck within it is heard as one, from its first

_Timed = TypeVar("_Timed", Control, Label)


@dataclass(frozen=True)
class NoteAlignment:
    """What is at `time_s` of a recording is at `offset_s` + (1 + `drift`) · `time_s` of the file; `agreement` from −2 to 2."""

    offset_s: float
    drift: float
    agreement: float

    def moved(self, take: MidiTake, *, duration_s: float) -> MidiTake:
        """Return what the file says at the times of the recording, as far as it lies within it.

        What was set before holds from the recording's beginning on: controls, and the marker and the key that came last.
        """

        def times(at_s: Float64) -> Float64:
            return (at_s - self.offset_s) / (1 + self.drift)

        def heard(notes: tuple[HeardNote, ...]) -> tuple[HeardNote, ...]:
            onsets = times(np.array([note.onset_s for note in notes]))
            return tuple(
                replace(note, onset_s=onset_s, duration_s=note.duration_s / (1 + self.drift))
                for note, onset_s in zip(notes, onsets.tolist(), strict=True)
                if 0 <= onset_s < duration_s
            )

        beats_s, downbeats_s = (times(at_s) for at_s in (take.beats_s, take.downbeats_s))
        inside = (beats_s >= 0) & (beats_s < duration_s)
        kept = (downbeats_s >= 0) & (downbeats_s < duration_s)

        def placed(timed: Sequence[_Timed]) -> tuple[_Timed, ...]:
            at_s = times(np.array([one.time_s for one in timed])).tolist()
            return tuple(replace(one, time_s=s) for one, s in zip(timed, at_s, strict=True) if s < duration_s)

        controls, labels = placed(take.controls), placed(take.labels)
        last = {label.kind: label for label in labels if label.kind in ("marker", "key") and label.time_s < 0}.values()
        return MidiTake(
            heard(take.notes),
            heard(take.hits),
            beats_s[inside],
            downbeats_s[kept],
            is_rendered=False,
            controls=tuple(replace(control, time_s=max(0.0, control.time_s)) for control in controls),
            labels=tuple(
                replace(label, time_s=max(0.0, label.time_s)) for label in labels if label.time_s >= 0 or label in last
            ),
        )


def align_notes(sound: Sounding, take: MidiTake, *, name: str) -> NoteAlignment:
    """Find where in a MIDI file the moments of a recording are.

    Raises `InputError` if the two are not of one performance, with how far they agree.
    """
    notes = Sounding.of_notes(name, take)
    found = _coarse(sound, notes)
    if found.agreement < _LEAST_AGREEMENT:
        raise InputError(
            f"{sound.name} and {name} are not of one performance: their onsets and harmony agree by {found.agreement:.2f}"
            f" at best, and {_LEAST_AGREEMENT:g} is needed"
        )
    onsets_s = np.unique(sound.onsets_s)
    struck = np.unique([note.onset_s for note in take.onsets])
    struck = struck[np.diff(struck, prepend=-np.inf) > _STRUM_S]
    for reach_s in _REACHES_S:
        there = found.offset_s + (1 + found.drift) * onsets_s
        after = np.minimum(np.searchsorted(struck, there), len(struck) - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.where(there - struck[before] < struck[after] - there, before, after)
        near = np.abs(struck[nearer] - there) <= reach_s
        if np.count_nonzero(near) < _LEAST_MATCHED:
            break
        at_s, lead_s = onsets_s[near], struck[nearer][near] - onsets_s[near]
        drift = _slope(at_s, lead_s) if np.ptp(at_s) >= _WINDOW_S else 0.0  # too short to tell a drift
        # An attack is heard late, never early.
        found = replace(found, offset_s=float(np.quantile(lead_s - drift * at_s, _EARLY)), drift=drift)
    return found


def _slope(x: Float64, y: Float64) -> float:
    """Return the median slope between points that are a third, a half or two thirds of them apart (Theil, Sen); x ascends."""
    n = len(x)
    steps = (max(1, n // 3), max(1, n // 2), max(1, 2 * n // 3))
    return float(np.median(np.concatenate([(y[k:] - y[:-k]) / (x[k:] - x[:-k]) for k in steps])))


def _coarse(sound: Sounding, notes: Sounding) -> NoteAlignment:
    """Return the line of lags on which windows of the sound agree best with the notes in sum."""
    length_s = len(sound.onsets) * STEP_S
    reach_s = _LONGEST_OFFSET_S + _LARGEST_DRIFT * length_s
    lags = np.arange(-reach_s, reach_s + STEP_S / 2, STEP_S)
    starts = np.arange(0.0, max(length_s - _WINDOW_S / 2, STEP_S), _HOP_S)
    curves = np.stack([_agreement(sound, notes, start_s, lags) for start_s in starts.tolist()])
    centres = np.minimum(starts + _WINDOW_S / 2, length_s / 2 if length_s < _WINDOW_S else np.inf)
    best = NoteAlignment(0.0, 0.0, -np.inf)
    steps = round(_LARGEST_DRIFT / _DRIFT_STEP) if length_s > 2 * _WINDOW_S else 0
    for drift in (np.arange(-steps, steps + 1) * _DRIFT_STEP).tolist():
        shifts = np.rint(drift * centres / STEP_S).astype(np.int64)
        total = np.mean([np.roll(curve, -shift) for curve, shift in zip(curves, shifts.tolist(), strict=True)], axis=0)
        inside = np.abs(lags) <= _LONGEST_OFFSET_S
        place = int(np.argmax(np.where(inside, total, -np.inf)))
        if total[place] > best.agreement:
            best = NoteAlignment(float(lags[place]), drift, float(total[place]))
    return best


def _agreement(sound: Sounding, notes: Sounding, start_s: float, lags: Float64) -> Float64:
    """Return how far a window of the sound agrees with the notes at each lag: correlations of onsets and of harmony."""
    from scipy.signal import correlate

    total = np.zeros(len(lags))
    for mine, theirs, step_s in (
        (sound.onsets[:, None], notes.onsets[:, None], STEP_S),
        (sound.chroma, notes.chroma, CHROMA_S),
    ):
        first, long = round(start_s / step_s), round(_WINDOW_S / step_s)
        part = mine[first : first + long]
        low, high = first + int(np.floor(lags[0] / step_s)), first + int(np.ceil(lags[-1] / step_s)) + len(part) + 1
        stretch = np.zeros((high - low, theirs.shape[1]))
        begin, end = max(low, 0), min(high, len(theirs))
        if begin < end:
            stretch[begin - low : end - low] = theirs[begin:end]
        dots = sum(correlate(stretch[:, k], part[:, k], mode="valid", method="fft") for k in range(part.shape[1]))
        energy = np.cumsum(np.append(0.0, np.square(stretch).sum(axis=1)))
        norms = np.sqrt(np.maximum(energy[len(part) :] - energy[: -len(part)], 1e-9) * max(float(np.square(part).sum()), 1e-9))
        total += np.interp(lags, (low - first + np.arange(len(dots))) * step_s, dots / norms)
    return total
