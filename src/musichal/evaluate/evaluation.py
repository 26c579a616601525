"""The evaluation of a partner: what `musichal evaluate` measures.

Each contestant answers each excerpt, and each answer is measured the same way. `--effects` answers the same excerpts with a
parameter at both ends of its usual range. Its outcomes are numbers that a listener would notice, and two that the partner's
reasons give: the mean score, and the longest context of the player's past. An effect is the mean difference between the ends
over excerpts, in units of the outcome's standard deviation (Cohen's d, pooled). One choice that falls otherwise changes all
later ones, so a difference alone is no effect: whether it exceeds chance is an exact test of the paired differences by change
of sign (Fisher 1935), with the largest of all outcomes as its statistic (Westfall & Young 1993). The effect of the seed
alone is measured beside them.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np

from musichal.arrays import Float64
from musichal.evaluate.answers import (
    Excerpt,
    Harmony,
    MakePlayer,
    MemoryUse,
    Phrasing,
    Progress,
    answer,
    harmony,
    hear_excerpt,
    joined,
    mean_of,
    memory_use,
    notes_of,
    phrases_of_notes,
    phrasing,
    player_phrases,
)
from musichal.evaluate.feedback import Feedback
from musichal.evaluate.listening import DIMENSIONS, Listening, Trace, answer_of, follow, listening, player_trace
from musichal.machine import starting_children
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.note import Note
from musichal.parameters import MODE_NUMBERS, MODE_WORDS, NUMBERS, VOICE_NUMBERS, WORDS, Parameter
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from musichal.text import unknown_name

OUTCOMES = (
    "notes per second",
    "mean pitch",
    "mean velocity",
    "spread of velocity",
    "note length",
    "onsets even",
    "silence",
    "phrase length",
    "mean run",
    "continued",
    "repeated",
    "visited",
    "learned live",
    "transposed",
    "brought back",
    "how well it fits",
    "longest context",
    *(f"{dimension} follows" for dimension in DIMENSIONS),
)

_CLEAR = 99.0
_SIGNIFICANT = 0.05
_MOST_EXACT = 12
_DRAWS = 4096
_PERIODS_S = np.geomspace(0.1, 0.6, 120)
_EFFECT_EXCERPTS = 8
CHANCE = "(the seed alone)"
Sheet = tuple[str, Sequence[Sequence[str]]]
"""A table of texts: its title, and rows with the header first."""
LATE_S: Mapping[str, float] = {"mode: turn": 6.0}
"""How long the player waits before beginning, for what matters only until then."""


@dataclass(frozen=True)
class Contestant:
    """How one way of playing did on all excerpts together; `answers` and their `traces` are per excerpt."""

    name: str
    listening: Listening
    memory: MemoryUse
    harmony: Harmony
    phrasing: Phrasing
    answers: tuple[tuple[Decision, ...], ...]
    traces: tuple[Trace, ...]


@dataclass(frozen=True)
class Room:
    """How one way of playing did where it heard itself."""

    way: str
    feedback: Feedback


@dataclass(frozen=True)
class Effect:
    """What moving a parameter from one end to the other does: `size` in standard deviations of `outcome`.

    `p_value` is how often chance alone would move any outcome as consistently; `others` the share of notes of either end that
    the other end lacks, from 0 (nothing changes) to 1.
    """

    parameter: str
    ends: tuple[str, str]
    outcome: str
    size: float
    p_value: float
    others: float


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; `long_runs` is the use of memory in one go of `long_run_s`, by contestant."""

    partner: str
    excerpt_s: float
    excerpts: tuple[Excerpt, ...]
    players: tuple[Trace, ...]
    contestants: tuple[Contestant, ...]
    long_run_s: float
    long_runs: Mapping[str, MemoryUse]
    effects: tuple[Effect, ...] = ()
    rooms: tuple[Room, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the answers themselves."""
        return {
            "partner": self.partner,
            "excerpt_s": self.excerpt_s,
            "excerpts": [{"recording": e.name, "start_s": e.start_s} for e in self.excerpts],
            "contestants": [
                {
                    "name": c.name,
                    **{part: dataclasses.asdict(getattr(c, part)) for part in ("listening", "memory", "harmony", "phrasing")},
                }
                for c in self.contestants
            ],
            "long_run_s": self.long_run_s,
            "long_run": {name: dataclasses.asdict(use) for name, use in self.long_runs.items()},
            "effects": [dataclasses.asdict(e) for e in self.effects],
            "rooms": [{"way": r.way, **dataclasses.asdict(r.feedback)} for r in self.rooms],
        }


def contest(
    contestants: Mapping[str, MakePlayer], excerpts: Sequence[Excerpt], memory: Memory, *, seed: int, progress: Progress
) -> tuple[tuple[Trace, ...], tuple[Contestant, ...]]:
    """Let every contestant answer every excerpt.

    Returns (players, contestants): The traces of the excerpts themselves, and how each contestant did.
    """
    duration_s = min(e.duration_s for e in excerpts)
    players = tuple(player_trace(e.heard, e.notes, duration_s=duration_s) for e in excerpts)
    done = []
    for number, (name, make) in enumerate(contestants.items()):
        answers = []
        for i, excerpt in enumerate(excerpts):
            progress(f"Answering as {name}", (number + i / len(excerpts)) / len(contestants))
            answers.append(answer(excerpt, make(seed + i)))
        done.append(_measured(name, answers, excerpts, players, memory, duration_s=duration_s, seed=seed))
    return players, tuple(done)


def _measured(
    name: str,
    answers: Sequence[tuple[Decision, ...]],
    excerpts: Sequence[Excerpt],
    players: Sequence[Trace],
    memory: Memory,
    *,
    duration_s: float,
    seed: int,
) -> Contestant:
    notes = [notes_of(a) for a in answers]
    placed = [answer_of(a, duration_s=duration_s) for a in answers]
    uses = [memory_use(a, memory) for a in answers]
    harmonies = [harmony(n, p) for n, p in zip(notes, players, strict=True)]
    phrasings = [
        phrasing(n, player_phrases(p), duration_s=e.duration_s, memory=memory)
        for n, p, e in zip(notes, players, excerpts, strict=True)
    ]
    visited = {d.state for a in answers for d in a if d.state is not None and not d.live}
    counted = sum(h.notes for h in harmonies)
    gaps = [p.gap_s for p in phrasings if p.gap_s is not None]
    return Contestant(
        name=name,
        listening=listening(placed, players, rng=np.random.default_rng(seed)),
        memory=mean_of(
            uses,
            states=sum(u.states for u in uses),
            visited=len(visited) / max(1, len(memory)),
            longest_quote_s=max(u.longest_quote_s for u in uses),
        ),
        harmony=Harmony(
            notes=counted,
            consonant=sum(h.notes * h.consonant for h in harmonies) / max(1, counted),
            consonant_when_shifted=sum(h.notes * h.consonant_when_shifted for h in harmonies) / max(1, counted),
        ),
        phrasing=mean_of(phrasings, gap_s=float(np.median(gaps)) if gaps else None, phrases=sum(p.phrases for p in phrasings)),
        answers=tuple(answers),
        traces=tuple(answer.trace for answer in placed),
    )


# Effects of parameters


@dataclass(frozen=True)
class Trial:
    """A parameter, the words for its two ends, the settings of each, and how late the player begins."""

    parameter: str
    words: tuple[str, str]
    changes: tuple[dict[str, Any], dict[str, Any]]
    late_s: float = 0.0


def trials() -> tuple[Trial, ...]:
    """Return a trial for each setting of the partner, each setting of a voice, and each column of a mode.

    A voice's settings are tried on the bass beside melody and chords.
    """
    found = [_trial(p.name, p.ends, p.beside) for p in (*NUMBERS.values(), *WORDS.values())]
    found.append(_trial("direction", ({}, {"mode": "couple"}), {}))
    found += [_trial(f"bass.{p.name}", p.ends, {"voices": "melody,bass,chords"}) for p in VOICE_NUMBERS.values()]
    return (*found, *(_mode_trial(p) for p in (*MODE_NUMBERS.values(), *MODE_WORDS.values())))


def _trial(name: str, ends: tuple[Any, Any], beside: Mapping[str, object]) -> Trial:
    low, high = ends
    return Trial(name, (_words(low), _words(high)), ({**beside, name: low}, {**beside, name: high}))


def _mode_trial(column: Parameter) -> Trial:
    name, (low, high) = f"mode: {column.name}", (f"{end:g}" if isinstance(end, float) else end for end in column.ends)
    mode = str(column.beside["mode"])

    def changed(value: str) -> dict[str, object]:
        if mode != "auto":
            return {"direction": {"mode": "x", "modes": f'[x]\nlike = "{mode}"\n{column.name} = {value}\n'}}
        soon = "" if column.name == "stay_s" else "stay_s = [1, 2]\n"
        # The partner leaves a mode at the end of a phrase, so short phrases.
        table = f'[couple]\nlike = "couple"\nphrase = 0.3\n{soon}{column.name} = {value}\n'
        return {"direction": {"mode": "auto", "modes": table}}

    return Trial(name, (low.strip('"'), high.strip('"')), (changed(low), changed(high)), LATE_S.get(name, 0.0))


def _words(end: object) -> str:
    if isinstance(end, Mapping):
        return ", ".join(f"{key} {value}" for key, value in end.items()) or "none"
    return f"{end:g}" if isinstance(end, int | float) else str(end or "none")


def chosen_trials(names: Sequence[str]) -> tuple[Trial, ...]:
    """Return the trials of the parameters named, of all if none is; raise `InputError` for an unknown one."""
    there = {trial.parameter: trial for trial in trials()}
    for name in names:
        if name not in there:
            raise unknown_name("parameter", name, there)
    return tuple(there[name] for name in names) or tuple(there.values())


def parameter_effects(
    model: PartnerModel,
    settings: PartnerSettings,
    excerpts: Sequence[Excerpt],
    chosen: Sequence[Trial],
    *,
    file: Path,
    processes: int,
    seed: int,
    progress: Progress,
) -> tuple[Effect, ...]:
    """Return what chance does, and what each parameter does between its ends, on a few of the excerpts."""
    few = excerpts[:: max(1, len(excerpts) // _EFFECT_EXCERPTS)][:_EFFECT_EXCERPTS]
    tried = [Trial(CHANCE, ("one seed", "another"), ({}, {})), *chosen]
    found: list[Effect] = []
    if processes == 1:
        for number, trial in enumerate(tried):
            progress(f"What {trial.parameter} does", number / len(tried))
            found.append(_try(model, settings, few, trial, seed))
        return tuple(found)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            with starting_children():
                waiting = [pool.submit(_try_in_process, file, settings, few, trial, seed) for trial in tried]
            for number, (trial, future) in enumerate(zip(tried, waiting, strict=True)):
                progress(f"What {trial.parameter} does", number / len(tried))
                found.append(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.kill()  # it has nothing to lose, and minutes to go
            raise
    return tuple(found)


@lru_cache(maxsize=1)
def _loaded(file: Path) -> PartnerModel:
    """Load a partner once in a process that tries parameters."""
    return load_partner(file)


def _try_in_process(file: Path, settings: PartnerSettings, excerpts: Sequence[Excerpt], trial: Trial, seed: int) -> Effect:
    return _try(_loaded(file), settings, excerpts, trial, seed)


def _try(model: PartnerModel, settings: PartnerSettings, excerpts: Sequence[Excerpt], trial: Trial, seed: int) -> Effect:
    rate = model.spec.sample_rate_hz

    def playing(changes: Mapping[str, object], other: int) -> MakePlayer:
        chosen = settings.changed(changes)
        return lambda number: Partner(model.memory, chosen, rng=np.random.default_rng(number + other), sample_rate_hz=rate)

    ways = {
        words: playing(changes, number * (trial.parameter == CHANCE) * len(excerpts))
        for number, (words, changes) in enumerate(zip(trial.words, trial.changes, strict=True))
    }
    if trial.late_s:
        silence = np.zeros(round(trial.late_s * rate), dtype=np.float32)
        wait = hear_excerpt(model, silence, sample_rate_hz=rate, name="silence")
        excerpts = [joined([wait, e], duration_s=wait.duration_s + e.duration_s) for e in excerpts]
    return effect(trial.parameter, ways, excerpts, model.memory, seed=seed)


def outcomes(decisions: Sequence[Decision], excerpt: Excerpt, memory: Memory) -> Float64:
    """Return the outcomes of one answer, as many as `OUTCOMES`; what silence does not have is 0."""
    notes = notes_of(decisions)
    use = memory_use(decisions, memory)
    duration_s = excerpt.duration_s
    phrases = phrases_of_notes([(n.onset_s, n.onset_s + n.duration_s) for n in notes])
    lengths = phrases[:, 1] - phrases[:, 0]
    played = [d for d in decisions if d.kind == "play"]
    velocities = [n.velocity for n in notes]
    follows = follow(
        answer_of(decisions, duration_s=duration_s), player_trace(excerpt.heard, excerpt.notes, duration_s=duration_s)
    )
    return np.array(
        [
            len(notes) / duration_s,
            _mean([n.pitch for n in notes]),
            _mean(velocities),
            float(np.std(velocities)) if velocities else 0.0,
            _mean([n.duration_s for n in notes]),
            _evenness(notes),
            max(0.0, 1 - float(lengths.sum()) / duration_s),
            _mean(lengths.tolist()),
            use.mean_run,
            use.continued,
            use.repeated,
            use.visited,
            use.learned,
            _mean([float(d.transposition != 0) for d in played]),
            _mean([float(bool(d.returns)) for d in played]),
            _mean([d.score for d in played]),
            # In doublings: one very long quotation must not outweigh all the rest.
            _mean([math.log2(1 + max((len(c.tokens) for c in d.contexts if c.source != "own"), default=0)) for d in played]),
            *follows,
        ]
    )


def effect(
    parameter: str, ends: Mapping[str, MakePlayer], excerpts: Sequence[Excerpt], memory: Memory, *, seed: int = 0
) -> Effect:
    """Return what a parameter does; `ends` holds a partner for each of its two ends, by the words for that end."""
    (low, make_low), (high, make_high) = ends.items()
    answers = [[answer(e, make(seed + i)) for i, e in enumerate(excerpts)] for make in (make_low, make_high)]
    values = np.array([[outcomes(a, e, memory) for a, e in zip(own, excerpts, strict=True)] for own in answers])
    difference = values[1].mean(axis=0) - values[0].mean(axis=0)
    spread = np.sqrt((values[0].var(axis=0) + values[1].var(axis=0)) / 2)
    # Without any spread a difference is as clear as it can be.
    size = np.where(
        spread > 1e-9, difference / np.maximum(spread, 1e-9), np.sign(difference) * _CLEAR * (np.abs(difference) > 1e-9)
    )
    p_values = against_chance(values[1] - values[0])
    # Of what is beyond chance the largest, and where nothing is, what is nearest to it.
    clear = p_values <= _SIGNIFICANT
    most = int(np.argmax(np.where(clear, np.abs(size), -1.0) if clear.any() else -p_values))
    pairs = [({_key(n) for n in notes_of(a)}, {_key(n) for n in notes_of(b)}) for a, b in zip(*answers, strict=True)]
    union = sum(len(a | b) for a, b in pairs)
    others = sum(len(a ^ b) for a, b in pairs) / union if union else 0.0
    return Effect(parameter, (low, high), OUTCOMES[most], float(size[most]), float(p_values[most]), others)


def against_chance(differences: Float64) -> Float64:
    """Return for each outcome how often chance moves any of them as consistently, shape (k,).

    * `differences`: shape (n, k). Of each excerpt and outcome between the ends. By chance alone each excerpt's would as well
      have the other sign, all signs together. Consistency is the mean over the root mean square. Up to twelve excerpts all
      signs are tried.
    """
    n = len(differences)
    scale = np.sqrt(np.mean(differences**2, axis=0))
    units = np.where(scale > 1e-9, differences / np.maximum(scale, 1e-9), 0.0)
    if n <= _MOST_EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.vstack([np.ones(n), np.random.default_rng(0).choice([-1.0, 1.0], (_DRAWS - 1, n))])
    largest = np.abs(signs @ units / n).max(axis=1)
    observed = np.abs(units.mean(axis=0))
    return (largest[:, None] >= observed[None, :] - 1e-9).mean(axis=0)


def _evenness(notes: Sequence[Note]) -> float:
    """Return how far onsets lie on one even grid, 0 to 1: the largest mean resultant over periods of 0.1 to 0.6 s."""
    if len(notes) < 2:
        return 0.0
    turns = np.array([n.onset_s for n in notes])[None, :] / _PERIODS_S[:, None]
    return float(np.abs(np.exp(2j * np.pi * turns).mean(axis=1)).max())


def _key(note: Note) -> tuple[float, int, float, int]:
    return round(note.onset_s, 3), note.pitch, round(note.duration_s, 3), note.velocity


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
