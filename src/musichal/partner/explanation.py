"""Decisions in plain words, from the record alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from musichal.hearing.percepts import SILENCE
from musichal.partner.decision import REST_REASONS, Context, Decision

_SURE = 0.995  # A draw more certain than this was none.
_PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")


def pitch_name(pitch: int) -> str:
    """Return the name of a MIDI pitch; 60 is C4."""
    return f"{_PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"


def clock(seconds: float) -> str:
    """Return minutes:seconds with two decimals, as 1:02.50."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def explain(decision: Decision, recordings: Sequence[str]) -> str:
    """Return one or two sentences that say what was decided and why.

    Parameters
    ----------
    decision : Decision
    recordings : sequence of str
        Names of the memory's recordings, by number.
    """
    at = f"At {clock(decision.time_s)}"
    if decision.kind == "rest":
        reason = REST_REASONS[decision.rest or "no match"]
        since = f" (for {decision.silent_s:.1f} s)" if decision.rest == "silence" else ""
        return f"{at} rested: {reason}{since}."
    assert decision.state is not None and decision.recording is not None and decision.source_start_s is not None
    what = _what(decision)
    where = f"{recordings[decision.recording]} {clock(decision.source_start_s)}"
    moved = f", moved by {decision.transposition:+d} semitones" if decision.transposition else ""
    sentence = f"{at} {what} from {where}{moved}: {_why(decision, recordings)}."
    if decision.alternatives:
        nearest = decision.alternatives[0]
        drawn = f", drawn with a chance of {decision.chance:.0%}" if decision.chance < _SURE else ""
        sentence += (
            f" It scored {decision.score:.2f}{drawn}; the best other place, {recordings[nearest.recording]}"
            f" {clock(nearest.start_s)}, {nearest.score:.2f}."
        )
    return sentence


def _what(decision: Decision) -> str:
    names = [pitch_name(n.pitch) for n in decision.notes]
    if not names:
        return f"let {decision.duration_s:.2f} s pass without a note, as memory has none there,"
    shown = " ".join(names[:6]) + (" …" if len(names) > 6 else "")
    return f"played {shown} ({decision.duration_s:.2f} s)"


def _why(decision: Decision, recordings: Sequence[str]) -> str:
    """Name the influences that carried the choice, the strongest first."""
    phrases = {context.source: _context_phrase(context, recordings) for context in decision.contexts}
    values = {influence.name: influence.value for influence in decision.influences}
    phrases["chroma"] = f"its harmony fits what sounds ({values['chroma']:.2f})"
    phrases["continuity"] = "it goes on from what was played before"
    carried = sorted((i for i in decision.influences if i.share > 0), key=lambda i: -i.share)
    named = [f"{phrases[i.name]} [{i.share:.0%}]" for i in carried if i.name in phrases]
    return "; ".join(named) if named else "it was the only place that could follow"


def _context_phrase(context: Context, recordings: Sequence[str]) -> str:
    n = len(context.tokens)
    tokens = " ".join("silence" if t == SILENCE else str(t) for t in context.tokens[-8:])
    shown = tokens if n <= 8 else f"… {tokens}"
    past = f"your last {n} {context.source} gestures ({shown})" if n > 1 else f"your last {context.source} gesture ({shown})"
    return f"{past} led there before, at {recordings[context.recording]} {clock(context.end_s)}"


def summarise(decisions: Sequence[Decision], *, end_s: float) -> list[str]:
    """Return a few lines on a performance that ended at `end_s`: how much was played, and how long it rested and why."""
    played = [d for d in decisions if d.kind == "play"]
    lines = []
    if played:
        notes = sum(len(d.notes) for d in played)
        jumps = sum(d.jumped for d in played)
        shares: Counter[str] = Counter()
        for decision in played:
            for influence in decision.influences:
                shares[influence.name] += influence.share / len(played)  # type: ignore[assignment]
        carried = ", ".join(f"{name} {share:.0%}" for name, share in shares.most_common())
        lines.append(
            f"Played {counted(notes, 'note')} in {counted(len(played), 'gesture')} of memory;"
            f" jumped {counted(jumps, 'time')}, else went on in order."
        )
        lines.append(f"What carried the choices, on average: {carried}.")
        transposed = sum(d.transposition != 0 for d in played)
        if transposed:
            lines.append(f"Transposed {counted(transposed, 'gesture')} to fit.")
    elif decisions:
        lines.append("Played nothing.")
    rests: dict[str, list[float]] = {}
    for span in rest_spans(decisions, end_s=end_s):
        rests.setdefault(span.reason, []).append(span.end_s - span.start_s)
    for reason in sorted(rests, key=lambda r: -sum(rests[r])):
        times = rests[reason]
        lines.append(f"Rested {counted(len(times), 'time')}, {sum(times):.1f} s in all: {REST_REASONS[reason]}.")
    return lines or ["Nothing was decided: the input was too short."]


@dataclass(frozen=True)
class RestSpan:
    """The partner rested from `start_s` to `end_s`; `reason` is a key of `REST_REASONS`."""

    start_s: float
    end_s: float
    reason: str


def rest_spans(decisions: Sequence[Decision], *, end_s: float) -> list[RestSpan]:
    """Return when the partner rested, and why: each rest holds until the next decision, the last until `end_s`."""
    spans = []
    ends_s = [*(d.time_s for d in decisions[1:]), end_s]
    for decision, until_s in zip(decisions, ends_s, strict=False):
        if decision.kind == "rest" and until_s > decision.time_s:
            spans.append(RestSpan(decision.time_s, until_s, decision.rest or "no match"))
    return spans


def counted(number: int, noun: str) -> str:
    """Return "1 note", "2 notes"."""
    return f"{number} {noun}{'s' * (number != 1)}"
