"""Decisions in plain words, from the record alone; in short, for a glance; and what the partner is about at a moment."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Literal

from musichal.note import DRUMS, PERCUSSION_CHANNEL, Note
from musichal.partner.decision import REST_REASONS, Context, Decision, chance_class
from musichal.partner.form import FormPlace
from musichal.partner.mode_controller import ModeController
from musichal.partner.symbols import CONTOUR_BREAK, CONTOUR_LEVEL, RHYTHM_BREAK
from musichal.pulse import Pulse
from musichal.text import clock, counted, pitch_name

_SURE = 0.995  # A draw more certain than this was none.
_HELD_BACK = 0.5
_OLD_S = 0.5
_LEAST_SHARE = 0.005
_FILTERS = MappingProxyType(
    {
        "learned live": "being learned in this performance",
        "auto-jump": "continuing one recording for long",
        "notes": "having no note",
        "harmony": "notes that do not fit what sounds",
        "register": "notes outside the register",
        "density": "a density unlike the one wanted",
        "loudness": "a loudness unlike the one wanted",
        "scenario": "the scenario",
        "follow register": "a pitch far from the one wanted",
        "phrase beginning": "not beginning a phrase where it was recorded",
        "phrase end": "not ending a phrase where it was recorded",
        "more like this": "being far from what you wanted more of",
        "less like this": "being near what you wanted less of",
        "something else": "being near what you wanted changed",
        "beat": "lying elsewhere in the beat or where memory seldom strikes notes, or beginning without an attack",
        "key": "being played in another transposition",
    }
)
"""Filters in words."""
_CLASSES = MappingProxyType(
    {
        "best": "as good or better",
        "lesser": "less good, with at least half its score,",
        "under half": "under half its score",
        "no support": "without anything that spoke for them",
    }
)
"""Classes of choices in words."""
SOURCE_WORDS = MappingProxyType({"harmonic": "harmony", "percussive": "attack"})
"""What a source of the sound is called among musicians."""
_CARRIERS = MappingProxyType(
    {
        **SOURCE_WORDS,
        "likeness": "likeness",
        "pairs": "how others answered you",
        "chroma": "the harmony that sounds",
        "own": "what it played itself",
        "continuity": "going on",
    }
)
"""Influences in words, where their names are not."""
_BEAT_PLACES: Mapping[float, str] = MappingProxyType(
    {
        0.0: "on the beat",
        0.25: "a quarter into the beat",
        1 / 3: "a third into the beat",
        0.5: "half a beat in",
        2 / 3: "two thirds into the beat",
        0.75: "three quarters into the beat",
    }
)
_WHOSE = MappingProxyType(
    {
        "heard": "your",
        "memory": "your",
        "tap": "your tapped",
        "midi": "the MIDI clock's",
        "link": "Link's",
        "osc": "the OSC clock's",
    }
)
"""Whose a pulse is, in words, by its source."""
_SAME_PLACE = 0.1
_STEPS_TOLD = 8
_SHORTER = ("much shorter", "much shorter", "half as long", "shorter")
_RATIOS = (*_SHORTER, "even", "longer", "twice as long", "much longer", "much longer")
"""Symbols of rhythm in words: an interval beside the one before it."""


def explain(decision: Decision, recordings: Sequence[str]) -> str:
    """Return one or two sentences that say what was decided and why; `recordings` are the names of the memory's recordings."""
    at = f"At {clock(decision.time_s)}"
    if decision.kind == "rest":
        reason = REST_REASONS[decision.rest or "no match"]
        since = f" (for {decision.silent_s:.1f} s)" if decision.rest == "silence" else ""
        until = "" if decision.expected_s is None else f", for {decision.expected_s:.1f} s"
        return f"{at} rested: {reason}{since}{until}."
    assert decision.state is not None and decision.recording is not None and decision.source_start_s is not None
    moved = "" if decision.voice == "drums" else _moved(decision)  # drums are never transposed
    if decision.octaves:
        moved += f", an octave {'higher' if decision.octaves > 0 else 'lower'} for its register"
    where = _place(decision.recording, decision.source_start_s, recordings, live=decision.live, now_s=decision.time_s)
    sentence = f"{at}{_who(decision)} {_what(decision)} from {where}{moved}: {_why(decision, recordings)}."
    sentence += f" {_time(decision)}{_harmony(decision)}"
    held = [f for f in decision.filters if f.factor < _HELD_BACK]
    if held:
        weakest = min(held, key=lambda f: f.factor)
        sentence += f" It was held back to {_share(weakest.factor)} by {_FILTERS.get(weakest.name, weakest.name)}."
    if decision.alternatives:
        nearest = decision.alternatives[0]
        drawn = f", drawn with a chance of {decision.chance:.0%}" if decision.chance < _SURE else ""
        other = _place(nearest.recording, nearest.start_s, recordings, live=nearest.live, now_s=decision.time_s)
        sentence += f" It scored {_score(decision.score)}{drawn}; the best other place, {other}, {_score(nearest.score)}."
    return sentence


def _moved(decision: Decision) -> str:
    """Say by how much memory is transposed, and why it is now."""
    semitones, harmony = decision.transposition, decision.harmony
    why = f" because {harmony.moved}" if harmony is not None and harmony.moved else ""
    if semitones:
        return f", moved by {semitones:+d} semitone{'s' * (abs(semitones) != 1)}{why}"
    return f", at its recorded pitch again{why}" if why and not decision.live else ""


def _score(score: float) -> str:
    return f"{score:.2f}" if score >= 0.01 else "less than 0.01"


def _share(factor: float) -> str:
    return f"{factor:.0%}" if factor >= _LEAST_SHARE else "less than 1%"


def _place(recording: int, start_s: float, recordings: Sequence[str], *, live: bool, now_s: float) -> str:
    if live:
        return f"your own phrase of {max(0.0, now_s - start_s):.0f} s ago"
    return f"{recordings[recording]} {clock(start_s)}"


def _who(decision: Decision) -> str:
    return "" if decision.voice == "all" else f" the {decision.voice}"


def _what(decision: Decision) -> str:
    names = [_note_name(n) for n in decision.notes]
    if not names and decision.harmony is not None and decision.harmony.left_out:
        return f"let {decision.duration_s:.2f} s pass without a note, as memory's would clash there,"
    if not names:
        return f"let {decision.duration_s:.2f} s pass without a note, as memory has none there,"
    shown = " ".join(names[:6]) + (" …" if len(names) > 6 else "")
    return f"played {shown} ({decision.duration_s:.2f} s)"


def _note_name(note: Note) -> str:
    if note.channel != PERCUSSION_CHANNEL:
        return pitch_name(note.pitch)
    return DRUMS.get(note.pitch, f"drum {note.pitch}").replace(" ", "-")


def explain_briefly(decision: Decision, recordings: Sequence[str]) -> str:
    """Return one line: when, what, and the strongest reason."""
    if decision.kind == "rest":
        return explain(decision, recordings).removesuffix(".")
    strongest = _why(decision, recordings).partition("; ")[0].partition(" [")[0]
    what = _what(decision).removesuffix(",")
    return f"At {clock(decision.time_s)}{_who(decision)} {what}: {strongest}"


def _why(decision: Decision, recordings: Sequence[str]) -> str:
    """Name the influences that carried the choice, the strongest first."""
    phrases = {context.source: _context_phrase(context, recordings, decision) for context in decision.contexts}
    values = {influence.name: influence.value for influence in decision.influences}
    fits = values.get("chroma", 0.0)
    phrases["chroma"] = f"its harmony fits what sounds ({fits:.2f})"
    if decision.beside is not None:
        then = f"{recordings[decision.beside[0]]} {clock(decision.beside[1])}"
        phrases["pairs"] = f"you sounded like now ({values.get('pairs', 0.0):.2f}) at {then}, and they answered so"
    phrases["continuity"] = "it goes on from what was played before"
    if decision.jumped:
        phrases["continuity"] = "nothing else spoke for any place, and a phrase begins there"
    carried = sorted((i for i in decision.influences if i.share >= _LEAST_SHARE), key=lambda i: -i.share)
    named = [f"{phrases[i.name]} [{i.share:.0%}]" for i in carried if i.name in phrases]
    asked = any(f.name == "scenario" for f in decision.filters)
    guided = [f"the scenario asks for it ({decision.scenario})"] if asked else [decision.scenario] if decision.scenario else []
    if decision.returns:
        guided.append(f"it brings back {decision.returns}")
    if decision.answers is not None:
        guided.append(f"it answers what you played from {clock(decision.answers[0])} to {clock(decision.answers[1])}")
    return "; ".join([*guided, *named]) or "it was the only place that could follow"


def _harmony(decision: Decision) -> str:
    """Say what harmony a choice was fitted to, and what of it was left out."""
    use = decision.harmony
    if use is None or not decision.tonalness:
        return ""
    heard = f"You play {use.chord} in {use.key} ({min(use.chord_chance, use.key_chance):.0%} sure)"
    said = f" {heard}; memory expects {use.expected} next ({use.expected_chance:.0%})."
    if use.tuning_cents:
        way = "sharp" if use.tuning_cents > 0 else "flat"
        said += f" You are {abs(use.tuning_cents):.0f} cents {way}; it hears you as in tune."
    if use.left_out:
        clashing = " ".join(map(pitch_name, use.left_out))
        said += f" It left out {counted(len(use.left_out), 'note')} that would clash ({clashing})."
    return said


def _time(decision: Decision) -> str:
    """Say whether a choice is in time or free, and why."""
    use = decision.pulse
    if use is None or decision.tempo_bpm is None:
        return f"It plays in free time: {decision.free}." if decision.free else "It plays in free time."
    whose = _WHOSE.get(use.source, f"the {use.source}'s")
    sure = f", {use.confidence:.0%} sure" if use.confidence < _SURE else ""
    part = f", as far as {use.strength:.0%}" if use.strength < 1 else ""
    beats = ", with the beat where memory has it" if use.source == "memory" else ""
    pulse = f"{whose} pulse of {decision.tempo_bpm:.0f} beats a minute{beats}{sure}{part}"
    if use.phase is None:
        return f"It goes by {pulse}, from a place whose beat is not known."
    # What was wanted is a place in memory's beat: where the choice lies elsewhere in the room's, it is told beside memory's.
    met = _same_place(use.wanted, use.got) or _same_place(use.wanted, use.phase)
    asked = "" if met else f" where {_beat_place(use.wanted)} was wanted"
    as_in_memory = _same_place(use.phase, use.got)
    there = f"{asked}, as in memory" if as_in_memory else f"; in memory it began {_beat_place(use.phase)}{asked}"
    return f"It goes by {pulse}. It begins {_beat_place(use.got)}{there}."


def _same_place(phase: float, other: float) -> bool:
    """Whether two places in the beat are as good as one, or have one name in words."""
    return _apart(phase, other) < _SAME_PLACE or _beat_place(phase) == _beat_place(other)


def _apart(phase: float, other: float) -> float:
    """Return how far two places in the beat are apart, 0 to 0.5."""
    return abs((phase - other + 0.5) % 1 - 0.5)


def _beat_place(phase: float) -> str:
    """Return a place in the beat in words: the nearest of its halves, quarters and thirds."""
    return _BEAT_PLACES[min(_BEAT_PLACES, key=lambda place: _apart(phase, place))]


def _context_phrase(context: Context, recordings: Sequence[str], decision: Decision) -> str:
    n = len(context.tokens)
    where = f"your own phrase of {max(0.0, decision.time_s - context.end_s):.0f} s ago" if context.live else (
        f"{recordings[context.recording]} {clock(context.end_s)}"
    )  # fmt: skip
    ago = f", {context.age_s:.1f} s ago" if context.age_s >= _OLD_S else ""
    led = f"{ago} led there before, at {where}"
    if context.paired:
        led = f"{ago}: when you played this before, at {where}, they answered so"
    if context.source == "likeness":
        return f"your last seconds, by likeness ({context.strength:.2f}){led}"
    if context.source == "rhythm":
        return f"the rhythm of your last {counted(n + 1, 'note')} ({_in_words(context.tokens, _ratio)}){led}"
    if context.source == "loudness":
        return f"the loudness of your last {counted(n + 1, 'sound')} ({_in_words(context.tokens, _step)}){led}"
    if context.source == "own":
        alike = round(context.strength / max(1e-9, 1 - context.strength))
        return f"what is like its own last {counted(alike, 'gesture')}{led}"
    what = SOURCE_WORDS.get(context.source, context.source)
    return f"the {what} of your last {f'{n} sounds' if n > 1 else 'sound'}{led}"


def _in_words(symbols: Sequence[int], word: Callable[[int], str]) -> str:
    """Name the last steps, equal ones that follow one another once."""
    return ", ".join(name for name, _ in groupby(map(word, symbols[-_STEPS_TOLD:])))


def _ratio(symbol: int) -> str:
    """Name how much longer an interval was than the one before."""
    return "a pause" if symbol == RHYTHM_BREAK else _RATIOS[symbol]


def _step(symbol: int) -> str:
    """Name a step of loudness."""
    names = {CONTOUR_BREAK: "a pause", CONTOUR_LEVEL: "the same"}
    return names.get(symbol, "louder" if symbol > CONTOUR_LEVEL else "softer")


def summarise(decisions: Iterable[Decision], *, end_s: float) -> list[str]:
    """Return a few lines on a performance that ended at `end_s`: how much was played, and how long it rested and why.

    Decisions are taken one at a time: a performance may last hours.
    """
    counts: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    shares: defaultdict[str, float] = defaultdict(float)
    rests: defaultdict[str, list[float]] = defaultdict(list)
    chosen: set[int] = set()
    before: Decision | None = None
    for decision in decisions:
        if before is not None:
            _count_rest(rests, before, until_s=decision.time_s)
        before = decision
        if decision.kind != "play":
            continue
        counts["notes"] += len(decision.notes)
        if decision.voice != "all" and decision.choice in chosen:
            continue  # another voice of it
        chosen.add(decision.choice)
        counts.update(played=1, jumps=decision.jumped, transposed=decision.transposition != 0, own=decision.live)
        classes[chance_class(decision)] += 1
        for influence in decision.influences:
            shares[influence.name] += influence.share
    if before is None:
        return ["Nothing was decided: the input was too short."]
    _count_rest(rests, before, until_s=end_s)
    played, lines = counts["played"], []
    if played:
        told_shares = [(_CARRIERS.get(n, n), share / played) for n, share in sorted(shares.items(), key=lambda s: -s[1])]
        carried = ", ".join(f"{name} {share:.0%}" for name, share in told_shares if share >= _LEAST_SHARE)
        lines.append(
            f"Played {counted(counts['notes'], 'note')} in {counted(played, 'gesture')} of memory;"
            f" jumped {counted(counts['jumps'], 'time')}, else went on in order."
        )
        lines.append(f"What carried the choices, on average: {carried}.")
        told_of = (f"{words} {classes[name] / played:.0%}" for name, words in _CLASSES.items() if classes[name])
        lines.append(f"Beside the best other place at the time, the choices were: {', '.join(told_of)}.")
        if counts["transposed"]:
            lines.append(f"Transposed {counted(counts['transposed'], 'gesture')} to fit.")
        if counts["own"]:
            lines.append(f"Took {counted(counts['own'], 'gesture')} from what you played before.")
    else:
        lines.append("Played nothing.")
    for why in sorted(rests, key=lambda r: -sum(rests[r])):
        times = rests[why]
        lines.append(f"Rested {counted(len(times), 'time')}, {sum(times):.1f} s in all: {REST_REASONS[why]}.")
    return lines


def _count_rest(rests: dict[str, list[float]], decision: Decision, *, until_s: float) -> None:
    if (span := _rest_span(decision, until_s)) is not None:
        rests[span.reason].append(span.end_s - span.start_s)


@dataclass(frozen=True)
class RestSpan:
    """The partner rested from `start_s` to `end_s`; `reason` is a key of `REST_REASONS`."""

    start_s: float
    end_s: float
    reason: str


def rest_spans(decisions: Sequence[Decision], *, end_s: float) -> list[RestSpan]:
    """Return when the partner rested, and why: each rest holds until the next decision, the last until `end_s`."""
    ends_s = [*(d.time_s for d in decisions[1:]), end_s]
    spans = (_rest_span(decision, until_s) for decision, until_s in zip(decisions, ends_s, strict=False))
    return [span for span in spans if span is not None]


def _rest_span(decision: Decision, until_s: float) -> RestSpan | None:
    if decision.kind == "rest" and until_s > decision.time_s:
        return RestSpan(decision.time_s, until_s, decision.rest or "no match")
    return None


# ── in short ─────────────────────────────────────────────────────────────────

_CARRIED = MappingProxyType(
    {
        "harmonic": "your harmony led there",
        "percussive": "your attack led there",
        "likeness": "you sound like this place",
        "pairs": "they answered you so",
        "chroma": "it fits your harmony",
        "rhythm": "it fits your rhythm",
        "loudness": "it follows your loudness",
        "own": "it fits what it played",
        "continuity": "it goes on",
    }
)
"""What carried a choice."""


def short_reason(decision: Decision) -> str:
    """Return why, from the record alone."""
    if decision.kind == "rest":
        return REST_REASONS[decision.rest or "no match"]
    if decision.returns:
        return f"brings back {decision.returns}"
    if decision.answers is not None:
        return "answers your phrase"
    if decision.scenario:
        return f"follows {decision.scenario}"
    carried = max(decision.influences, key=lambda i: i.share, default=None)
    if carried is None or carried.share <= 0:
        return "begins anew" if decision.jumped else "it was the only place that could follow"
    return _CARRIED.get(carried.name, carried.name)


# ── the status ───────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class PartnerStatus:
    """The partner at one moment.

    `mode_left_s` is how long it stays in the mode at least, where it changes modes itself; `waits_for_pauses` says that the
    mode plays only once the player pauses.
    """

    mode: str = ""
    chosen_by: Literal["you", "the form", "auto"] = "you"
    mode_left_s: float | None = None
    waits_for_pauses: bool = False
    paused: bool = False
    form: FormPlace | None = None
    pulse: Pulse | None = None


def partner_status(modes: ModeController, now_s: float, pulse: Pulse | None) -> PartnerStatus:
    """Return the status at a time, where it goes by a pulse; nothing is changed by asking."""
    course, keeper, mode = modes.course, modes.keeper, modes.mode
    form = course.place(now_s)
    by_form = keeper is not None and not keeper.user_override and course.at(now_s).mode is not None
    left_s = math.inf if keeper is None or by_form else keeper.until_s - now_s
    wanders = keeper is not None and math.isfinite(keeper.until_s)
    return PartnerStatus(
        mode=mode.name,
        chosen_by="the form" if by_form else "auto" if wanders else "you",
        mode_left_s=max(0.0, left_s) if math.isfinite(left_s) else None,
        waits_for_pauses=mode.turn == "answer" or mode.trigger == "phrase end",
        paused=course.paused,
        form=form,
        pulse=pulse,
    )
