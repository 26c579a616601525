"""What stands out in a performance: how well its choices were founded, and the moments to hear again.

Everything is read from the records of decisions. A *stretch* is what the partner played without a rest, in one phrase, up to
`_LONGEST_S` of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from musichal.hearing.percepts import SILENCE
from musichal.partner.decision import Context, Decision
from musichal.text import clock, counted

MomentKind = Literal["mark", "agreement", "recognised", "return", "answer", "together", "fullest", "ending"]

_LONGEST_S = 12.0
_LEAST_CHOICES = 3
_PAUSE_S = 1.0
_TOGETHER_S = 1.0
_FULL_S = 8.0
_LEAST_RECOGNISED = 4
_MOST_OF_A_KIND = 3
_OF_THE_PLAYER = frozenset(("harmonic", "percussive", "likeness", "pairs", "chroma", "rhythm", "loudness"))
_AGREED = 0.5


@dataclass(frozen=True)
class Stretch:
    """Choices in a row, and how well they were founded: 0 (nothing spoke for them) to 1.

    `choices` and `jumps` count; `telling` is the number of the decision whose strongest reason is the strongest.
    """

    start_s: float
    end_s: float
    founded: float
    choices: int
    jumps: int
    telling: int


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is needed of a choice to play: a performance may last hours, and a record takes kilobytes."""

    begin_s: float
    end_s: float
    phrase: int
    number: int
    founded: float
    weight: tuple[bool, float]
    agreed: bool
    known: int
    jumped: bool
    returns: str
    answers: tuple[float, float] | None


@dataclass(frozen=True)
class Moment:
    """Something to hear again, and why, in words."""

    start_s: float
    end_s: float
    kind: MomentKind
    why: str


def founded(decision: Decision) -> float:
    """Return how well a choice was founded, 0 to 1.

    It is the mean value of the influences, each weighed by its share, less where another place scored higher.
    """
    value = sum(i.share * i.value for i in decision.influences)
    other = decision.alternatives[0].score if decision.alternatives else 0.0
    return value * (min(1.0, decision.score / other) if other > 0 else 1.0)


def _choices(decisions: Iterable[Decision]) -> Iterator[_Choice]:
    """Yield each choice to play once, whatever its voices."""
    before: tuple[int, float] | None = None
    for d in decisions:
        if d.kind != "play" or (d.choice, d.time_s) == before:
            continue
        before = d.choice, d.time_s
        yield _Choice(
            d.begin_s, d.begin_s + d.duration_s, d.phrase, d.number, founded(d),
            weight=(bool(d.notes), max((i.share for i in d.influences), default=0.0)),
            agreed=sum(i.share for i in d.influences if i.name in _OF_THE_PLAYER) >= _AGREED,
            known=max((_known(c) for c in d.contexts if c.source in ("harmonic", "percussive")), default=0),
            jumped=d.jumped, returns=d.returns, answers=d.answers,
        )  # fmt: skip


def _known(context: Context) -> int:
    """Return how many sounds of the player's a context holds that the recordings have; 0 where they are all the same."""
    sounds = [token for token in context.tokens if token != SILENCE]
    return 0 if context.live or len(set(sounds)) < 2 else len(sounds)


def stretches(decisions: Iterable[Decision]) -> list[Stretch]:
    """Return what was played as stretches of at least three choices."""
    found: list[Stretch] = []
    group: list[_Choice] = []
    for c in (*_choices(decisions), None):
        if c is not None and group and _goes_on(group, c):
            group.append(c)
            continue
        if len(group) >= _LEAST_CHOICES:
            mean, telling = sum(g.founded for g in group) / len(group), max(group, key=lambda g: g.weight)
            jumps = sum(g.jumped for g in group)
            found.append(Stretch(group[0].begin_s, group[-1].end_s, mean, len(group), jumps, telling.number))
        group = [] if c is None else [c]
    return found


def _goes_on(group: Sequence[_Choice], c: _Choice) -> bool:
    soon = c.begin_s - group[-1].end_s <= _PAUSE_S and c.begin_s - group[0].begin_s < _LONGEST_S
    return soon and c.phrase == group[-1].phrase


def find_moments(decisions: Iterable[Decision], marks: Iterable[tuple[float, str]], *, end_s: float) -> list[Moment]:
    """Return the player's marks (seconds and text) and what stands out by itself, in order of time."""
    choices = list(_choices(decisions))
    found = [Moment(at_s, at_s, "mark", text) for at_s, text in marks]
    found += _agreement(choices)
    found += _recognised(choices)
    found += _returns(choices)
    found += _answers(choices)
    found += _together(decisions)
    found += _fullest(decisions, end_s)
    found += _ending(decisions)
    return sorted(found, key=lambda moment: (moment.start_s, moment.kind))


def _agreement(choices: Sequence[_Choice]) -> list[Moment]:
    """Return the longest time in which the player carried each choice."""
    runs: list[list[_Choice]] = []
    for d in choices:
        if not d.agreed:
            runs.append([])
        elif runs and runs[-1] and d.begin_s - runs[-1][-1].end_s <= _PAUSE_S:
            runs[-1].append(d)
        else:
            runs.append([d])
    longest = max((run for run in runs if len(run) >= _LEAST_CHOICES), key=lambda r: r[-1].end_s - r[0].begin_s, default=None)
    if longest is None:
        return []
    start_s, end_s = longest[0].begin_s, longest[-1].end_s
    return [
        Moment(start_s, end_s, "agreement", f"the longest agreement: for {end_s - start_s:.1f} s you carried what it chose")
    ]


def _recognised(choices: Sequence[_Choice]) -> list[Moment]:
    """Return the longest stretch of the player's that memory knew."""
    decision = max(choices, key=lambda c: c.known, default=None)
    if decision is None or decision.known < _LEAST_RECOGNISED:
        return []
    why = f"it knew the most of what you played: {counted(decision.known, 'sound')} in a row"
    return [Moment(decision.begin_s, decision.end_s, "recognised", why)]


def _returns(choices: Sequence[_Choice]) -> list[Moment]:
    found: list[Moment] = []
    for before, d in zip([None, *choices], choices, strict=False):
        if not d.returns:
            continue
        if before is not None and before.returns == d.returns:
            first = found.pop()
            found.append(Moment(first.start_s, d.end_s, "return", first.why))
        else:
            found.append(Moment(d.begin_s, d.end_s, "return", f"it brings back {d.returns}"))
    return sorted(found, key=lambda m: m.start_s - m.end_s)[:_MOST_OF_A_KIND]


def _answers(choices: Sequence[_Choice]) -> list[Moment]:
    spans = {d.answers: d for d in reversed(choices) if d.answers is not None}
    ends = {d.answers: d for d in choices if d.answers is not None}
    longest = sorted(spans, key=lambda span: span[0] - span[1])[:_MOST_OF_A_KIND]
    return [
        Moment(
            spans[span].begin_s, ends[span].end_s, "answer",
            f"it answers your phrase from {clock(span[0], decimals=0)} to {clock(span[1], decimals=0)}",
        )
        for span in longest
    ]  # fmt: skip


def _together(decisions: Iterable[Decision]) -> list[Moment]:
    """Return where player and partner fell silent together."""
    found, partner_s, start_s, told_s = [], 0.0, 0.0, -1.0
    for d in decisions:
        if d.kind == "play":
            start_s = d.begin_s if d.begin_s - partner_s > _PAUSE_S else start_s
            partner_s = max([partner_s, *(n.onset_s + n.duration_s for n in d.notes)])
        elif d.silent_s >= _PAUSE_S and partner_s > told_s and abs(d.time_s - d.silent_s - partner_s) <= _TOGETHER_S:
            told_s = partner_s
            found.append((partner_s - start_s, Moment(start_s, partner_s, "together", "you fell silent together")))
    return [moment for _, moment in sorted(found, key=lambda item: -item[0])[:_MOST_OF_A_KIND]]


def _fullest(decisions: Iterable[Decision], end_s: float) -> list[Moment]:
    onsets_s = sorted(n.onset_s for d in decisions for n in d.notes)
    if end_s < 2 * _FULL_S or not onsets_s:
        return []
    counts, last = [], 0
    for first, start_s in enumerate(onsets_s):
        while last < len(onsets_s) and onsets_s[last] < start_s + _FULL_S:
            last += 1
        counts.append(last - first)
    most = max(range(len(counts)), key=counts.__getitem__)
    why = f"it plays the most: {counted(counts[most], 'note')} in {_FULL_S:.0f} s"
    return [Moment(onsets_s[most], onsets_s[most] + _FULL_S, "fullest", why)]


def _ending(decisions: Iterable[Decision]) -> list[Moment]:
    """Return the last phrase."""
    last = stretches(decisions)[-1:]
    ended = any(d.rest in ("ending", "ended") for d in decisions)
    why = "its last phrase, as the form asked" if ended else "its last phrase"
    return [Moment(stretch.start_s, stretch.end_s, "ending", why) for stretch in last]
