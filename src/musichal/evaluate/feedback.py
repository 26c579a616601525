"""Acoustic feedback: how a partner does that hears its own answer in the room.

The loop runs block by block, as live: each note that the partner decides is rendered, delayed by the latency of a sound card,
and mixed into the blocks that the partner hears next. Each level is also run with a partner that does not know its own notes,
and both are compared with a run without feedback. The player falls silent before the end, to show whether the partner goes on
answering itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.evaluate.answers import mean_of
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import SILENCE
from musichal.live.engine import Engine
from musichal.memory.partner_file import PartnerModel
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings

BLOCK_S = 0.01
OUTPUT_S = 0.02
"""Least delay from decision to sound: two blocks and a converter."""
LEVELS_DB = (-20.0, -10.0, 0.0)
STEP_S = 0.5
_OTHER_SEED = 1000

Render = Callable[[Note], Float32]
"""Returns the sound of one note from its onset on, mono, at the sample rate of the player."""


@dataclass(frozen=True)
class Loop:
    """One run.

    The partner learned `learned` gestures with a sound, `learned_own` of them while it was louder than the player. `last_s` is
    the time of its last decision to play, `heard` (steps, 12) its chroma of the player at the end of each step, and `own` (n,)
    its sound.
    """

    decisions: tuple[Decision, ...]
    learned: int
    learned_own: int
    last_s: float
    heard: Float64 = field(repr=False)
    own: Float32 = field(repr=False)


@dataclass(frozen=True)
class Feedback:
    """A partner that hears itself at a level, compared with the run without feedback.

    `level_db` is the level of its sound relative to the player's; `knows` says whether it removes its own sound. It last
    decided to play `on_s` after the player's end (at most `longest_on_s` over several players), without feedback
    `alone_on_s`. `learned_own` is the share of learned gestures during which it was louder than the player; `kept` how much
    of the player it learned, relative to the run without feedback. `heard` is the similarity of its chroma of the player to
    that of the run without feedback, `harmony` that of its notes, at most 1; `harmony_at_best` is the latter for two runs
    without feedback and with other seeds.
    """

    level_db: float
    knows: bool
    on_s: float
    longest_on_s: float
    learned: int
    learned_own: float
    harmony: float
    heard: float
    kept: float
    alone_on_s: float
    harmony_at_best: float


def play_in_a_room(
    model: PartnerModel,
    samples: Float32,
    render: Render,
    *,
    sample_rate_hz: int,
    settings: PartnerSettings,
    seed: int,
    gain: float,
    knows: bool = True,
) -> Loop:
    """Let a partner answer samples (n,) while it hears itself, `gain` times as loud as rendered."""
    spec = model.spec
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=sample_rate_hz)
    rng = np.random.default_rng(seed)
    partner = Partner(model.memory, settings, rng=rng, sample_rate_hz=spec.sample_rate_hz, knows_its_sound=knows)
    engine = Engine(listener, partner, sample_rate_hz=spec.sample_rate_hz)
    own, block = np.zeros(len(samples), dtype=np.float32), round(BLOCK_S * sample_rate_hz)
    decisions: list[Decision] = []
    hears = np.zeros((int(len(samples) / sample_rate_hz / STEP_S), 12))
    for first in range(0, len(samples), block):
        heard = samples[first : first + block] + np.float32(gain) * own[first : first + block]
        decided = engine.push(heard).decisions
        hears[int((first + block) / sample_rate_hz / STEP_S - 1e-9) :] = partner.harmony
        decisions += decided
        for note in (note for decision in decided for note in decision.notes):
            # What is due already sounds with the next block.
            at = max(first + block, round((note.onset_s + OUTPUT_S) * sample_rate_hz))
            sound = render(note)[: max(0, len(own) - at)]
            own[at : at + len(sound)] += sound
    learned, of_own = _learned(partner, samples, own * np.float32(gain), sample_rate_hz)
    played = [d.time_s for d in decisions if d.kind == "play"]
    return Loop(tuple(decisions), learned, of_own, max(played, default=0.0), hears, own)


def feedback(
    model: PartnerModel,
    samples: Float32,
    render: Render,
    *,
    sample_rate_hz: int,
    player_s: float,
    settings: PartnerSettings,
    seed: int,
    levels_db: tuple[float, ...] = LEVELS_DB,
) -> tuple[Feedback, ...]:
    """Return how a partner does at each level, with and without knowing its own sound.

    * `samples`: shape (n,). A player, who is silent from `player_s` on.
    * `levels_db`: How loud the partner's sound is against the player's, by their mean power while the player plays.
    """

    def run(gain: float, knows: bool, *, other: int = 0) -> Loop:
        return play_in_a_room(
            model, samples, render, sample_rate_hz=sample_rate_hz, settings=settings, seed=seed + other, gain=gain, knows=knows
        )

    alone, alike = run(0.0, True), run(0.0, True, other=_OTHER_SEED)
    steps = int(player_s / STEP_S)
    player = slice(0, round(player_s * sample_rate_hz))
    power = float(np.mean(alone.own[player] ** 2))
    as_loud = float(np.sqrt(np.mean(samples[player] ** 2) / power)) if power > 0 else 0.0
    found = []
    for level_db in levels_db:
        for knows in (True, False):
            loop = run(as_loud * 10 ** (level_db / 20), knows)
            on_s = max(0.0, loop.last_s - player_s)
            found.append(
                Feedback(
                    level_db=level_db,
                    knows=knows,
                    on_s=on_s,
                    longest_on_s=on_s,
                    learned=loop.learned,
                    learned_own=loop.learned_own / loop.learned if loop.learned else 0.0,
                    harmony=_likeness(alone.decisions, loop.decisions, player_s),
                    heard=_alike(alone.heard[:steps], loop.heard[:steps]),
                    kept=(loop.learned - loop.learned_own) / alone.learned if alone.learned else 0.0,
                    alone_on_s=max(0.0, alone.last_s - player_s),
                    harmony_at_best=_likeness(alone.decisions, alike.decisions, player_s),
                )
            )
    return tuple(found)


def mean_feedback(alike: Sequence[Feedback]) -> Feedback:
    """Return the mean of runs at one level, with the longest time and the sum of what was learned."""
    learned = sum(f.learned for f in alike)
    found: Feedback = mean_of(
        alike,
        level_db=alike[0].level_db,
        knows=alike[0].knows,
        longest_on_s=max(f.longest_on_s for f in alike),
        learned=learned,
        learned_own=sum(f.learned_own * f.learned for f in alike) / learned if learned else 0.0,
    )
    return found


def _learned(partner: Partner, samples: Float32, own: Float32, rate_hz: int) -> tuple[int, int]:
    """Return how many gestures with a sound are in the partner's live memory, and during how many its own was the louder."""
    count = of_own = 0
    for segment in partner.library.segments:
        if not segment.live:
            continue
        rows = segment.memory.states
        for row in rows[(rows["tokens"] != SILENCE).any(axis=1)]:
            span = slice(round(row["start_s"] * rate_hz), round((row["start_s"] + row["duration_s"]) * rate_hz))
            count += 1
            of_own += bool(np.sum(own[span] ** 2) > np.sum(samples[span] ** 2))
    return count, of_own


def _likeness(alone: tuple[Decision, ...], looped: tuple[Decision, ...], until_s: float) -> float:
    """Return the mean cosine of what sounds of both by pitch class."""
    return _mean_cosine(_chroma(alone, until_s), _chroma(looped, until_s), 0.0)


def _alike(alone: Float64, looped: Float64) -> float:
    """Return the mean correlation of chromas of shape (steps, 12)."""
    a, b = (chroma - chroma.mean(axis=1, keepdims=True) for chroma in (alone, looped))
    return _mean_cosine(a, b, 1e-12)


def _mean_cosine(a: Float64, b: Float64, least: float) -> float:
    """Return the mean cosine of rows (steps, 12), over the steps in which both are there; 0 without one."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both = norms > least
    return float((np.einsum("nd,nd->n", a, b)[both] / norms[both]).mean()) if both.any() else 0.0


def _chroma(decisions: tuple[Decision, ...], until_s: float) -> Float64:
    """Return for how long each pitch class sounds in each second around each step, shape (steps, 12)."""
    out = np.zeros((int(until_s / STEP_S), 12))
    starts = np.arange(len(out)) * STEP_S
    for note in (note for decision in decisions for note in decision.notes):
        end_s = note.onset_s + note.duration_s
        out[:, note.pitch % 12] += np.clip(np.minimum(end_s, starts + 2 * STEP_S) - np.maximum(note.onset_s, starts), 0, None)
    return out
