"""What could be played in a turn, and the record of what was drawn from it."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from musichal.arrays import Float64, rounded
from musichal.partner.candidates import Candidates, Draw, Filtered, runners_up, scores
from musichal.partner.decision import Alternative, Context, Decision, Filter, HarmonyUse, Influence, PulseUse
from musichal.partner.expectation import Expectation
from musichal.partner.influences import CONTEXTS, INFLUENCES, Activation
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.player import Situation
from musichal.partner.scenario import Plan
from musichal.partner.timing import BeatFit
from musichal.partner.turn_taking import Turn

_ALTERNATIVES = 3
_BEGINNING = 2.0  # so many times sharper is the place in the beat weighed where a phrase begins


@dataclass(frozen=True)
class Options:
    """Candidates of a turn with their influences' weights, filters and scores."""

    turn: Turn
    found: Candidates
    filtered: Filtered
    weights: Float64
    scores: Float64
    plan: Plan | None = None  # of the scenario
    fit: BeatFit | None = None  # to the pulse
    asked: tuple[str, ...] = ()  # influences beside those of the settings, last


@dataclass(frozen=True)
class NoOption:
    """Why nothing can be played, and how many candidates there were."""

    why: str
    candidates: int = 0


def in_beat(library: MemoryPool, options: Options, turn: Turn) -> Options:
    """Return options weighed by their place in the beat, where there is a pulse."""
    plan = turn.timing.plan
    if plan is None:
        return options
    fit = plan.fit(library, options.found.states)
    if turn.step is not None:
        return replace(options, fit=fit)
    sharpness = turn.settings.beat_weight * (_BEGINNING if turn.begins else 1)
    factors = rounded(plan.factors(fit, sharpness=sharpness))[:, None]
    possible = np.isfinite(options.scores)
    values = np.where(possible, rounded(np.where(possible, options.scores, 0) * factors), -np.inf)
    if not (values > 0).any():
        return replace(options, fit=fit)  # nothing lies near the place wanted
    filtered = Filtered({**options.filtered.factors, "beat": factors})
    return Options(options.turn, options.found, filtered, options.weights, values, options.plan, fit, options.asked)


def choice_record(
    library: MemoryPool, activation: Activation, options: Options, drawn: Draw, turn: Turn, **course: Any
) -> dict[str, Any]:  # fmt: skip
    """Return what was chosen and why, the fields of a `Choice`; `course` holds those that are not in the options."""
    found = options.found
    state = int(found.states[drawn.candidate])
    known, beside = library.rows(found.states), library.beside(state)
    recording, start_s = known.rows["recording"][drawn.candidate], known.rows["start_s"][drawn.candidate]
    values = found.influences[:, drawn.candidate, drawn.transposition]
    total = float(values @ options.weights)
    names = (*INFLUENCES, *options.asked)
    factors = options.filtered.of(drawn.candidate, drawn.transposition)
    return dict(
        mode=turn.mode,
        state=state,
        recording=int(recording),
        live=drawn.candidate >= known.first_live,
        source_start_s=float(start_s),
        transposition=int(found.transpositions[drawn.transposition]),
        score=drawn.score,
        chance=drawn.chance,
        filter=math.prod(factors.values()),
        tonalness=found.tonal,
        contexts=_contexts(library, activation, options, drawn),
        influences=tuple(
            Influence(name, value, weight, value * weight / total)
            for name, value, weight in zip(names, values.tolist(), options.weights.tolist(), strict=True)
        ),
        filters=tuple(Filter(name, factor) for name, factor in factors.items()),
        alternatives=_alternatives(library, options, drawn),
        candidates=len(found.states),
        phrase=turn.phrase,
        returns="" if turn.step is None or turn.step.state != state else turn.step.words,
        answers=turn.answers,
        beside=None if beside is None else (beside.recording, beside.start_s),
        tempo_bpm=None if turn.room.pulse is None else turn.room.pulse.tempo_bpm,
        free=turn.room.why,
        **course,
    )


def _contexts(library: MemoryPool, activation: Activation, options: Options, drawn: Draw) -> tuple[Context, ...]:
    """Return the matches that spoke for a choice in its transposition."""
    found, situation, settings = options.found, options.turn.situation, options.turn.settings
    values = found.influences[:, drawn.candidate, drawn.transposition].tolist()
    live, contexts = drawn.candidate >= library.rows(found.states).first_live, []
    for name, peak in zip(CONTEXTS, found.peaks[drawn.candidate].tolist(), strict=True):
        if peak < 0 or not values[INFLUENCES.index(name)]:
            continue
        match, tokens, age_s = activation.source(name, peak, situation.now_s)
        paired, strength = match["heard"] >= 0, float(match["strength"])
        state = int(match["heard"] if paired else match["segment"] + match["state"])
        place = library.heard_place(state) if paired else library.place(state)
        contexts.append(
            Context(
                source=name,
                tokens=tokens,
                state=state,
                recording=place.recording,
                end_s=place.start_s + place.duration_s,
                live=live,
                paired=bool(paired),
                age_s=age_s,
                strength=strength,
                value=strength * float(np.exp(-age_s / settings.activation_s)),
                pace=float(match["pace"]),
            )
        )
    return tuple(contexts)


def _alternatives(library: MemoryPool, options: Options, drawn: Draw) -> tuple[Alternative, ...]:
    """Return the best other states, each in its best transposition."""
    found, known = options.found, library.rows(options.found.states)
    recordings, starts_s = known.rows["recording"], known.rows["start_s"]
    return tuple(
        Alternative(
            int(found.states[row]), int(recordings[row]), float(starts_s[row]), int(found.transpositions[column]),
            float(options.scores[row, column]), row >= known.first_live,
        )
        for row, column in runners_up(options.scores, drawn, most=_ALTERNATIVES)
    )  # fmt: skip


def harmony_use(expected: Expectation, moved: str, left_out: tuple[int, ...], tuning_cents: float) -> HarmonyUse:
    """Return the harmony that a choice was fitted to."""
    return HarmonyUse(
        **expected.named, accounts=expected.confidence, moved=moved, left_out=left_out, tuning_cents=tuning_cents
    )  # fmt: skip


def pulse_use(options: Options, drawn: Draw, turn: Turn, begin_s: float) -> PulseUse | None:
    """Return how a choice that begins at a time goes by the pulse."""
    plan, fit = turn.timing.plan, options.fit
    if plan is None or fit is None:
        return None
    row = drawn.candidate
    beat_s, phase = float(fit.beat_s[row]), float(fit.phase[row])
    return PulseUse(
        source=plan.pulse.source,
        confidence=plan.pulse.confidence,
        strength=plan.strength,
        wanted=((plan.start_s - plan.pulse.beat_s) / beat_s - plan.offset) % 1,
        phase=phase if fit.known[row] else None,
        got=((begin_s - plan.pulse.beat_s) / beat_s) % 1,
    )


def ruled_out(found: Candidates, importance: Float64, filtered: Filtered) -> str:
    """Return the reason to rest where nothing can be played: no support, too little, or the first filter that ruled it out."""
    factors = filtered.product(found.influences.shape[1:])
    if factors.any():
        return "weak match" if scores(found.influences, importance, factors).any() else "no support"
    for name, reason in (("regions", "regions"), ("no repeat", "repeats"), ("auto-jump", "repeats")):
        factor = filtered.factors.get(name)
        if factor is not None and not factor.all():
            return reason
    return "weak match"


def rest_record(
    why: NoOption, situation: Situation, turn: Turn, *, number: int, choice: int, earnable: float
) -> Decision:  # fmt: skip
    """Return the record of a rest, decision `number` after `choice` choices."""
    return Decision(
        number=number,
        time_s=situation.now_s,
        kind="rest",
        rest=why.why,
        voice=turn.settings.voices[0].name,
        mode=turn.mode,
        choice=choice,
        earnable=earnable,
        candidates=why.candidates,
        silent_s=situation.silent_s,
        expected_s=turn.expected_s,
    )
