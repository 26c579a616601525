"""What two partners hear differently in the same recording.

Token numbers mean nothing across partners: each vocabulary numbers its sounds as it likes. So the question is which moments
a partner takes for the same sound, and whether the other agrees.

Conventions
-----------
Frames of both are paired by nearest time, at most half the longer stride apart. Agreement is over pairs in which both hear
sound; silence is compared over all pairs. The Rand index is the share of all pairs of moments on which both agree that they
are the same sound or not; the adjusted index is 0 for chance and 1 for the same partition. Information is in bits.

References
----------
Rand, J. Am. Stat. Assoc. 66(336), 1971. Hubert & Arabie, J. Classification 2, 1985 (adjusted index). Normalised mutual
information with the mean of both entropies: Vinh, Epps & Bailey, JMLR 11, 2010.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import entr

from musichal.arrays import AnyArray, Float32, Float64, Int64
from musichal.audio.midi_take import MidiTake
from musichal.audio.recording import samples_digest
from musichal.errors import InputError
from musichal.evaluate.alignment import LiveStream, even_blocks, hear_live
from musichal.evaluate.partner_stats import Diversity, token_diversity
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.memory.partner_file import PartnerModel

_SHOWN_SPLITS = 3
_LEAST_SHARE = 0.1
_GESTURE_TOLERANCE_S = 0.05


@dataclass(frozen=True)
class Agreement:
    """How far two rows of labels are the same partition of their moments; see the conventions of the module.

    `moments` are the labelled ones. `rand`, `adjusted_rand` and `normalised_information` are 1 for partitions that agree.
    """

    moments: int
    rand: float
    adjusted_rand: float
    information_bits: float
    normalised_information: float


@dataclass(frozen=True)
class Split:
    """A sound of one partner that is several sounds to the other: (token, share of its frames), commonest first."""

    token: int
    frames: int
    parts: tuple[tuple[int, float], ...]
    first_s: float


@dataclass(frozen=True)
class SourceComparison:
    """One source.

    `silence_agreement` is the share of frames that both hear or neither, `only_first_silent` the share that the first alone
    holds for silence. `split_by_second` are sounds of the first that the second hears as several.
    """

    source: str
    frames: int
    silence_agreement: float
    only_first_silent: float
    only_second_silent: float
    agreement: Agreement
    diversity: tuple[Diversity, ...]
    split_by_second: tuple[Split, ...]
    split_by_first: tuple[Split, ...]


@dataclass(frozen=True)
class Comparison:
    """Two partners on one recording; pairs are (first, second).

    `learned` says whether a partner was trained on this very recording: it has its sounds, and the other has to make do.
    `shared_gesture_starts` is the F-measure of the starts of gestures, within 50 ms of one another.
    """

    recording: str
    duration_s: float
    learned: tuple[bool, bool]
    spec_differences: tuple[tuple[str, Any, Any], ...]
    installation_differences: tuple[tuple[str, str, str], ...]
    same_vocabularies: tuple[bool, ...]
    frames: tuple[int, int]
    gestures_per_second: tuple[float, float]
    shared_gesture_starts: float
    notes: tuple[int, int]
    sources: tuple[SourceComparison, ...]

    @property
    def hear_alike(self) -> bool:
        """Whether not one frame differs in what it means: the same frames, silence, and partition."""
        return self.frames[0] == self.frames[1] and all(
            s.silence_agreement == 1 and s.agreement.rand == 1 and s.frames == self.frames[0] for s in self.sources
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self) | {"hear_alike": self.hear_alike}


def partition_agreement(first: AnyArray, second: AnyArray) -> Agreement:
    """Return how far two rows of labels (n,), whole numbers from 0, are the same partition; 1 throughout where n < 2."""
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"labels of shapes {first.shape} and {second.shape} cannot be compared")
    n = len(first)
    table = contingency(first, second).astype(np.float64)
    if n < 2:
        return Agreement(n, 1.0, 1.0, 0.0, 1.0)
    pairs = n * (n - 1) / 2
    both, one, other = _pairs(table), _pairs(table.sum(axis=1)), _pairs(table.sum(axis=0))
    chance = one * other / pairs
    most = (one + other) / 2
    information, joint = _information(table / n)
    return Agreement(
        moments=n,
        rand=(pairs + 2 * both - one - other) / pairs,
        adjusted_rand=1.0 if most == chance else (both - chance) / (most - chance),
        information_bits=information,
        normalised_information=1.0 if joint == 0 else min(1.0, information / joint),
    )


def contingency(first: AnyArray, second: AnyArray) -> Int64:
    """Return how often each label of `first` meets each of `second`, shape (labels of first, labels of second)."""
    shape = (int(first.max(initial=-1)) + 1, int(second.max(initial=-1)) + 1)
    flat = first.astype(np.int64) * shape[1] + second
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def _pairs(counts: Float64) -> float:
    return float((counts * (counts - 1)).sum() / 2)


def _information(p: Float64) -> tuple[float, float]:
    """Return mutual information and the mean of both entropies, in bits."""
    entropies = [float(entr(p.sum(axis=axis)).sum() / np.log(2)) for axis in (1, 0)]
    together = float(entr(p).sum() / np.log(2))
    return max(0.0, sum(entropies) - together), sum(entropies) / 2


def compare_partners(
    first: PartnerModel,
    second: PartnerModel,
    samples: Float32,
    *,
    name: str,
    sample_rate_hz: int,
    take: MidiTake | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Comparison:
    """Let two partners hear samples (n,) and return what differs; `take` is what is known of a MIDI player in them."""
    tell = progress or (lambda _what, _share: None)
    heard: list[LiveStream] = []
    for number, (model, which) in enumerate(((first, "the first"), (second, "the second"))):

        def done(share: float, number: int = number, which: str = which) -> None:
            tell(f"Hearing {name} with {which}", (number + share) / 2)

        blocks = even_blocks(len(samples), sample_rate_hz)
        heard.append(
            hear_live(model, samples, sample_rate_hz=sample_rate_hz, blocks=blocks, progress=done, with_beats=False, take=take)
        )
    times = [h.frame_samples / m.spec.sample_rate_hz for h, m in zip(heard, (first, second), strict=True)]
    strides_s = [m.spec.encoder.stride_samples / m.spec.sample_rate_hz for m in (first, second)]
    mine, theirs = _paired(times[0], times[1], tolerance_s=max(strides_s) / 2)
    if not len(mine):
        raise InputError(f"{name}: the partners have no moment in common to compare")
    duration_s = len(samples) / sample_rate_hz
    digest = samples_digest(samples)
    return Comparison(
        recording=name,
        duration_s=duration_s,
        learned=(digest in {r.digest for r in first.recordings}, digest in {r.digest for r in second.recordings}),
        spec_differences=tuple(first.spec.differences(second.spec)),
        installation_differences=_installation_differences(first, second),
        same_vocabularies=tuple(a.digest() == b.digest() for a, b in zip(first.vocabularies, second.vocabularies, strict=True)),
        frames=(len(times[0]), len(times[1])),
        gestures_per_second=(len(heard[0].gestures) / duration_s, len(heard[1].gestures) / duration_s),
        shared_gesture_starts=shared_starts(
            *(np.array([g.start_s for g in h.gestures]) for h in heard), tolerance_s=_GESTURE_TOLERANCE_S
        ),
        notes=(len(heard[0].notes), len(heard[1].notes)),
        sources=tuple(
            _source(
                source,
                (heard[0].tokens[source], heard[1].tokens[source]),
                (mine, theirs),
                times[0],
                sizes=(first.spec.vocabulary.size, second.spec.vocabulary.size),
                duration_s=duration_s,
            )
            for source in range(len(SOURCES))
        ),
    )


def _installation_differences(first: PartnerModel, second: PartnerModel) -> tuple[tuple[str, str, str], ...]:
    names = sorted({*first.trained_with, *second.trained_with})
    both = [(name, first.trained_with.get(name, "unknown"), second.trained_with.get(name, "unknown")) for name in names]
    return tuple(item for item in both if item[1] != item[2])


def _paired(first_s: Float64, second_s: Float64, *, tolerance_s: float) -> tuple[Int64, Int64]:
    """Return the frames of both that are one another's nearest in time: each frame is in one pair at most."""
    to_second, to_first = _nearest(first_s, second_s), _nearest(second_s, first_s)
    mine = np.arange(len(first_s))
    mutual = (to_first[to_second] == mine) & (np.abs(second_s[to_second] - first_s) <= tolerance_s + 1e-9)
    return mine[mutual], to_second[mutual]


def _nearest(times_s: Float64, others_s: Float64) -> Int64:
    after = np.clip(np.searchsorted(others_s, times_s), 0, len(others_s) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(times_s - others_s[before]) <= np.abs(others_s[after] - times_s), before, after)


def _source(
    source: int,
    tokens: tuple[AnyArray, AnyArray],
    paired: tuple[Int64, Int64],
    times_s: Float64,
    *,
    sizes: tuple[int, int],
    duration_s: float,
) -> SourceComparison:
    first, second = tokens[0][paired[0]], tokens[1][paired[1]]
    silent = first == SILENCE, second == SILENCE
    sounding = ~silent[0] & ~silent[1]
    a, b, at_s = first[sounding], second[sounding], times_s[paired[0]][sounding]
    return SourceComparison(
        source=SOURCES[source],
        frames=len(first),
        silence_agreement=float(np.mean(silent[0] == silent[1])),
        only_first_silent=float(np.mean(silent[0] & ~silent[1])),
        only_second_silent=float(np.mean(~silent[0] & silent[1])),
        agreement=partition_agreement(a, b),
        diversity=tuple(token_diversity([t], size=n, duration_s=duration_s) for t, n in zip(tokens, sizes, strict=True)),
        split_by_second=_splits(a, b, at_s),
        split_by_first=_splits(b, a, at_s),
    )


def _splits(first: AnyArray, second: AnyArray, at_s: Float64) -> tuple[Split, ...]:
    """Return the sounds of the first that the second divides most: by the frames outside the commonest part."""
    if not len(first):
        return ()
    table = contingency(first, second)
    outside = table.sum(axis=1) - table.max(axis=1)
    out = []
    for token in np.argsort(-outside, kind="stable")[:_SHOWN_SPLITS]:
        if not outside[token]:
            break
        shares = table[token] / table[token].sum()
        parts = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k] >= _LEAST_SHARE]
        out.append(
            Split(
                token=int(token),
                frames=int(table[token].sum()),
                parts=tuple((k, float(shares[k])) for k in parts),
                first_s=float(at_s[np.argmax(first == token)]),
            )
        )
    return tuple(out)


def shared_starts(first_s: Float64, second_s: Float64, *, tolerance_s: float) -> float:
    """Return the F-measure of two ascending rows of times, each matched once at most; 1 where both are empty."""
    i = j = matched = 0
    while i < len(first_s) and j < len(second_s):
        if abs(first_s[i] - second_s[j]) <= tolerance_s:
            matched, i, j = matched + 1, i + 1, j + 1
        elif first_s[i] < second_s[j]:
            i += 1
        else:
            j += 1
    total = len(first_s) + len(second_s)
    return 2 * matched / total if total else 1.0
