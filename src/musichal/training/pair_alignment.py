"""Pairs of recordings: whether two hold one performance, and when in one is a moment of the other.

Onsets and harmony of both are correlated at every offset up to ten seconds. Parts of one music agree at their own offset,
whatever instruments play them; of two musics neither agrees at any. Music that repeats agrees at several offsets: the one next
to none is taken, unless another is clearly better.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from musichal.arrays import Float64, Int64
from musichal.audio.midi_take import MidiTake
from musichal.audio.recording import Recording
from musichal.errors import InputError
from musichal.hearing.percepts import SegmentFeatures
from musichal.memory.partner_file import StoredRecording
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec

LEAST_AGREEMENT = 0.3
"""Of one music are recordings whose correlations of onsets and of harmony add up to this, at some offset."""
MORE_AT_ONCE = 0.5
"""With so much more of `parts_at_once` than the others, a player may be the band."""
STEP_S, CHROMA_S = 0.01, 0.1
"""Steps in which onsets and harmony are compared."""
_ONSET_S = 0.025
_LONGEST_OFFSET_S = 10.0
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


def aligned(player: Sounding, others: Sounding) -> float:
    """Return how much later a moment is in the others' recording than in the player's, in seconds.

    Raises `InputError` where the two are not of one music.
    """
    lags = np.arange(-round(_LONGEST_OFFSET_S / STEP_S), round(_LONGEST_OFFSET_S / STEP_S) + 1)
    onsets = _correlation(player.onsets[:, None], others.onsets[:, None], lags)
    harmony = _correlation(player.chroma, others.chroma, np.unique(np.rint(lags * STEP_S / CHROMA_S)).astype(np.int64))
    agreement = onsets + np.interp(lags, np.linspace(lags[0], lags[-1], len(harmony)), harmony)
    near = np.flatnonzero(np.abs(lags) <= round(_NEAR_S / STEP_S))
    usual, best = int(near[np.argmax(agreement[near])]), int(np.argmax(agreement))
    chosen = best if agreement[best] > agreement[usual] + _BETTER else usual
    offset_s = round(float(lags[chosen]) * STEP_S, 2)
    if agreement[chosen] < LEAST_AGREEMENT:
        raise InputError(
            f"{player.name} and {others.name} are not of one performance: their onsets and harmony agree by"
            f" {agreement[chosen]:.2f} at best ({offset_s:+.2f} s apart), and {LEAST_AGREEMENT:g} is needed"
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
