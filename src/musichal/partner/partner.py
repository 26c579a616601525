"""The partner: hears percepts, keeps a position in memory, and decides what to play next.

It follows the player through its memory by several kinds of context at once, weighs what they lead to, holds back what does
not fit, and plays one state of memory after the other; or it rests, and says why. Nothing is played that was not found.

One decision takes these steps, each in a module of its own: whose turn it is (`director`), where memory could go on
(`candidates`), what holds that back (`filters`), one choice (`selection`), and who plays which of its notes (`voices`).
"""

import dataclasses
import math
from collections import deque
from collections.abc import Mapping
from itertools import islice

import numpy as np

from musichal.arrays import Float32, Float64
from musichal.hearing.percepts import SILENCE, Percept
from musichal.memory.memory import Memory
from musichal.partner.candidates import (
    Candidates,
    Filtered,
    Sounding,
    apply_filters,
    find_candidates,
    sounding,
    transpositions,
    wanted_pitch,
)
from musichal.partner.choice import Choice, choose, runners_up
from musichal.partner.decision import Alternative, Context, Decision, Filter, Influence
from musichal.partner.influences import (
    CONTEXTS,
    INFLUENCES,
    PLAYER_INFLUENCES,
    Activation,
    Recent,
    find_matches,
    player_contexts,
    weights,
)
from musichal.partner.memory_pool import Learner, MemoryPool
from musichal.partner.mode_controller import ModeController
from musichal.partner.player import Situation, SituationTracker
from musichal.partner.scenario import WEIGHT, Guide, Plan
from musichal.partner.self_cancellation import SelfCancellation
from musichal.partner.settings import PartnerSettings
from musichal.partner.timing import in_time
from musichal.partner.turn_taking import Turn
from musichal.partner.voices import Voices, octaves_towards

_ALTERNATIVES = 3
_OWN_LENGTH, _OWN_PLACES = 8, 16
_LOUDEST_FOLLOWED_DB = 12.0
_SHORTEST_S = 0.02
_OF_PLAYER: Float64 = np.array([float(name in PLAYER_INFLUENCES) for name in INFLUENCES])
_OF_PLAYER.setflags(write=False)


@dataclasses.dataclass(frozen=True)
class _Weighed:
    """Candidates with their scores, and the situation and turn that these are for."""

    found: Candidates
    filtered: Filtered
    scores: Float64
    situation: Situation
    turn: Turn
    importance: Float64
    guided: "_Guided | None" = None


@dataclasses.dataclass(frozen=True)
class _Guided:
    """A step of a scenario, and where memory can go on from there."""

    guide: Guide
    step: int
    plan: Plan

    def applied(self, found: Candidates, filtered: Filtered, importance: Float64) -> tuple[Candidates, Filtered, Float64]:
        """Let the plan speak for its places, and strike out what has another label than the one asked for."""
        value = self.guide.value(found.states, found.transpositions, self.plan)
        fits = self.guide.fits(found.states, found.transpositions, self.step).astype(np.float64)
        return (
            dataclasses.replace(found, influences=np.concatenate([found.influences, value[None]])),
            Filtered({**filtered.factors, "scenario": fits}),
            np.append(importance, WEIGHT),
        )


@dataclasses.dataclass(frozen=True)
class _Nothing:
    """Why nothing can be played, and how many candidates there were."""

    why: str
    candidates: int = 0


class Partner:
    """Decides what to play, one state of memory at a time.

    Parameters
    ----------
    memory : Memory
        Never changed: what is learned while playing is kept beside it.
    settings : PartnerSettings
    rng : numpy.random.Generator
        The only source of chance.
    sample_rate_hz : int
        Rate of the stream that percepts count in.
    knows_its_sound : bool
        Whether its own sound is taken off what it hears; without, it is measured what that does.

    Raises
    ------
    InputError
        Where the settings' direction names an unknown mode, or its modes or form are wrong.
    """

    def __init__(
        self,
        memory: Memory,
        settings: PartnerSettings,
        *,
        rng: np.random.Generator,
        sample_rate_hz: int,
        knows_its_sound: bool = True,
    ) -> None:
        self._knows_its_sound = knows_its_sound
        self.library = MemoryPool(memory)
        self.settings = settings
        self._rng = rng
        self._tracker = SituationTracker(sample_rate_hz=sample_rate_hz)
        directed = settings.direction.mode or settings.direction.form
        self._director = ModeController(
            self.library, settings, rng=rng.spawn(1)[0] if directed else rng, sample_rate_hz=sample_rate_hz
        )
        self._own_sound = SelfCancellation(sample_rate_hz=sample_rate_hz)
        self._learner = Learner()
        self._voices = Voices()
        self._activation = Activation()
        self._sounds: Sounding | None = None
        self._prepared: _Weighed | None = None
        self._recalled: int | None = None
        self._heard_gestures = 0
        self._position: int | None = None
        self._transposition = 0
        self._run = 0
        self._played: deque[int] = deque(maxlen=10_000)
        self._own: deque[int] = deque(maxlen=_OWN_LENGTH)
        self._own_until: tuple[int, float] | None = None
        self._number = 0
        self._choices = 0
        self._resting: str | None = None
        self._due_s: float | None = None
        self._guide: Guide | None = None

    @property
    def due_s(self) -> float | None:
        """When it wants to decide next: when what it plays or rests for is over, or at once if it heard something new."""
        return self._due_s

    @property
    def harmony(self) -> Float32:
        """The recent chroma of the player, shape (12,), as it hears it: less its own sound."""
        return self._tracker.chroma

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept of the player."""
        self._follow_own()
        settings = self._director.settings(self.settings)
        percept = self._own_sound.without(percept)
        self._tracker.hear(percept, settings)
        if self._own_sound.alone_since_s is not None:
            self._tracker.silent_since(self._own_sound.alone_since_s)
        self._learn(percept, now_s)
        situation = self._tracker.at(now_s, settings)
        self._director.hear(percept, situation, now_s)
        if situation.heard != self._heard_gestures:
            self._heard_gestures = situation.heard
            for name, recent in player_contexts(situation).items():
                self._activate(name, recent)
        # What is known before a decision is asked for is found before.
        self._sounds = sounding(self.library, situation.chroma, settings, self._sounds)
        for search in self._sounds.searches:
            search.states(self._choices)
        self._prepared = None
        if self._director.mode.trigger == "onset":
            # What an onset will release is chosen from what is weighed already.
            self._prepared = self._weighed_ahead(now_s)
        if self._due_s is None:
            self._due_s = now_s

    def hear_onset(self, onset_s: float, now_s: float) -> None:
        """Learn of an onset; in a mode that answers each of them, what is prepared is due at once."""
        if self._own_sound.struck(onset_s):
            # If it was the player's all the same, the percept will tell.
            return
        if self._director.hear_onset(onset_s, now_s):
            self._due_s = now_s

    def change(self, changes: Mapping[str, object], now_s: float) -> None:
        """Take the player's wishes: settings by their names, "mode", "region", "clock", and the director's buttons.

        Raises `InputError` for what is unknown or not possible; nothing changes then.
        """
        self._follow_own()
        self.settings = self._director.change(changes, now_s, self.settings)
        if set(changes) - {"clock"}:  # a clock moves notes, and says nothing of which ones; it is told again every few seconds
            self._prepared = None
            if self._resting is not None:
                self._due_s = now_s

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide what to play from `now_s` on: a state of memory, for its duration, or a rest.

        Each voice that plays has a record of its own. One record stands for one rest: it is given again only if its reason
        changes.
        """
        self._follow_own()
        situation = self._tracker.at(now_s, self._director.settings(self.settings), pitch=self._director.pitch)
        turn = self._director.turn(situation, self.settings)
        decisions = self._decide(situation, turn)
        first = decisions[0]
        if first.kind == "play":
            self._due_s, self._resting = max(now_s + _SHORTEST_S, now_s + first.duration_s), None
            return decisions
        # While it rests, nothing is due before the end that is known of: the next percept makes it decide again.
        again_s = turn.again_s if turn.again_s is not None and turn.again_s > now_s else None
        before, self._due_s, self._resting = self._resting, again_s, first.rest
        return () if first.rest == before else self._numbered(decisions)

    def _learn(self, percept: Percept, now_s: float) -> None:
        """Take what the player did into memory, as soon as it is complete."""
        if not self.settings.live_weight:
            return
        self._learner.hear(percept)
        for gesture, notes in self._learner.complete(now_s):
            silent = gesture.tokens == (SILENCE, SILENCE)
            if not silent or len(self.library.shelves) > 1:
                state = self.library.learn(gesture, notes, most=self.settings.live_gestures)
                self._director.learned(state, start_s=gesture.start_s, duration_s=gesture.duration_s, silent=silent)
        if self._position is not None and not self.library.holds(self._position):
            self._position, self._run = None, 0

    def _activate(self, name: str, recent: Recent, *, but: int | None = None, limit: int | None = None) -> None:
        """Set peaks wherever memory was in this situation, `but` at one state."""
        matches = find_matches(self.library, name, recent, settings=self.settings, limit=limit, but=but)
        self._activation.insert(name, matches, recent.symbols)

    def _decide(self, situation: Situation, turn: Turn) -> tuple[Decision, ...]:
        # A scenario goes on when the player does not.
        if turn.rest is not None and not (turn.rest == "silence" and self._guided(turn) is not None):
            return self._rest(turn.rest, situation, turn)
        weighed = self._released(turn) or self._weigh(turn)
        if isinstance(weighed, _Nothing):
            return self._rest(weighed.why, situation, turn, candidates=weighed.candidates)
        choice = choose(weighed.scores, temperature=turn.settings.temperature, rng=self._rng)
        return self._play(weighed, choice, situation, turn)

    def _weighed_ahead(self, now_s: float) -> _Weighed | None:
        """Weigh what could be played at the next onset."""
        settings = self._director.settings(self.settings)
        weighed = self._weigh(Turn(settings, self._tracker.at(now_s, settings, pitch=self._director.pitch)))
        return None if isinstance(weighed, _Nothing) else weighed

    def _released(self, turn: Turn) -> _Weighed | None:
        """Return what was weighed ahead, if that is good for this turn: it is used once."""
        prepared, self._prepared = self._prepared, None
        plain = turn.step is None and turn.recall is None and not (turn.begins or turn.closes)
        return prepared if prepared is not None and plain and prepared.turn.settings == turn.settings else None

    def _weigh(self, turn: Turn) -> _Weighed | _Nothing:
        """Return what could be played in a turn, or the reason for which nothing can."""
        settings, situation = turn.settings, turn.situation
        self._recall(turn)
        guided = self._guided(turn)
        also = self._director.also(turn)
        self._sounds = sounding(self.library, situation.chroma, settings, self._sounds)
        found = find_candidates(
            self.library, self._activation, situation, self._sounds, position=self._position, transposition=self._transposition,
            settings=settings, turn=self._choices,
            also=also if guided is None else np.concatenate([also, guided.plan.states]),
        )  # fmt: skip
        if not len(found.states):
            return _Nothing("no match")
        fixed = turn.step is not None or turn.timing.last
        filtered = apply_filters(
            self.library, situation, found.states, found.transpositions,
            played=() if fixed else list(islice(reversed(self._played), settings.no_repeat)),
            following=None if self._position is None or fixed else self.library.successor(self._position),
            run=self._run, tonal=found.tonal, settings=settings,
        )  # fmt: skip
        filtered.factors.update(self._director.filters(found.states, turn, now_s=situation.now_s))
        importance = weights(settings)
        if guided is not None:
            found, filtered, importance = guided.applied(found, filtered, importance)
        factors = filtered.product(found.influences.shape[1:])
        scores = _weighted(found.influences, importance) * factors
        if turn.step is not None:
            # What comes back is played whatever speaks for it; if it cannot be, the phrase goes on without it.
            here = (found.states == turn.step.state)[:, None] & (found.transpositions == turn.step.transposition)[None, :]
            if here.any():
                return _Weighed(found, filtered, np.where(here, scores, -np.inf), situation, turn, importance, guided)
        scores[factors == 0] = -np.inf
        # Continuity alone is no reason to play: the player must speak for a candidate. What does not fit well enough is
        # not drawn either, however high the temperature. But an ending is owed.
        least = settings.rest_below * self._earnable(settings, situation)
        if least > 0 and not turn.timing.last and guided is None:
            evidence = _weighted(found.influences, importance * _OF_PLAYER) * factors
            scores[evidence < least] = -np.inf
        if scores.max() == -np.inf:
            why = _struck_out(filtered, factors)
            return _Nothing("weak match", len(found.states)) if why is None else _Nothing(why)
        return _Weighed(found, filtered, scores, situation, turn, importance, guided)

    def _guided(self, turn: Turn) -> _Guided | None:
        """Return what the scenario asks for now, if there is one that memory can follow."""
        scenario = turn.settings.scenario
        if scenario is None or turn.rest == "waiting" or not len(self.library.base):
            return None
        if self._guide is None or self._guide.scenario != scenario:
            self._guide = Guide(scenario, self.library)
        step = self._guide.at(turn.situation.now_s)
        if step is None:
            return None
        plan = self._guide.plan(step, transpositions(turn.settings))
        if not len(plan.states):
            self._guide.give_up(step)
            return None
        return _Guided(self._guide, step, plan)

    def _scenario_told(self, guided: _Guided | None) -> str:
        if guided is not None:
            return guided.guide.told(guided.step)
        return "" if self._guide is None or self._guide.ended is None else f"{self._guide.ended}; free from there on"

    def _recall(self, turn: Turn) -> None:
        """Let the moment of the player's phrase that the turn goes back to point on from now, and nothing later than that."""
        past = turn.recall
        if past is None:
            self._recalled = None
            return
        if past.heard == self._recalled:
            return
        if self._recalled is None:
            for name in CONTEXTS:
                self._activation.clear(name)
        self._recalled = past.heard
        later_s = turn.situation.now_s - past.now_s
        for name, recent in player_contexts(past).items():
            starts_s = tuple(start_s + later_s for start_s in recent.starts_s)
            self._activate(name, Recent(recent.symbols, recent.since_s + later_s, starts_s))

    def _earnable(self, settings: PartnerSettings, situation: Situation) -> float:
        """Return what the player can speak for a candidate of this memory at most.

        Without notes there is no harmony to fit: a drummer's memory must not be held to what it cannot have. Nor must a
        drummer who plays be held to harmony; but noise, which sounds and has none, must.
        """
        harmony = settings.harmonic_weight + settings.chroma_weight
        can_have = situation.harmonic_share if self.library.has_notes else 0.0
        return settings.player_weight - harmony * (1 - can_have)

    def _play(self, weighed: _Weighed, choice: Choice, situation: Situation, turn: Turn) -> tuple[Decision, ...]:
        settings, now_s = turn.settings, situation.now_s
        found, filtered, answered = weighed.found, weighed.filtered, weighed.situation
        state = int(found.states[choice.candidate])
        transposition = int(found.transpositions[choice.transposition])
        following = None if self._position is None else self.library.successor(self._position)
        jumped = state != following
        self._run = 1 if jumped else self._run + 1
        self._position, self._transposition = state, transposition
        self._played.append(state)
        place = self.library.place(state)
        shelf, local = self.library.find(state)
        values = found.influences[:, choice.candidate, choice.transposition]
        importance, guided = weighed.importance, weighed.guided
        # rest_below = 0 lets a candidate pass for which nothing speaks.
        total = float(values @ importance) or 1.0
        factors = filtered.of(choice.candidate, choice.transposition)
        followed_db = _limited_db(answered.level_db if settings.dynamics > 0 else answered.room_db)
        # As far as dynamics are the player's, they are not the recording's.
        own_db = _limited_db(float(shelf.memory.states["level_db"][local]) - shelf.usual_level_db)
        gain_db = settings.gain_db + settings.dynamics * followed_db - abs(settings.dynamics) * own_db + turn.gain_db
        octaves = self._octaves(state, transposition, answered, settings)
        parts = self._voices.play(
            self.library, state, transposition=transposition + 12 * octaves, now_s=now_s, duration_s=place.duration_s,
            gain_db=gain_db, settings=settings,
        )  # fmt: skip
        parts, lasts_s = in_time(parts, turn.timing, now_s=now_s, duration_s=place.duration_s)
        if self._knows_its_sound:
            self._own_sound.played(sorted((n for notes in parts.values() for n in notes), key=lambda n: n.onset_s))
        contexts = self._contexts(found, choice, answered, settings)
        alternatives = self._alternatives(found, weighed.scores, choice)
        influences = tuple(
            Influence(name, value, weight, value * weight / total)
            for name, value, weight in zip(
                (*INFLUENCES, "scenario")[: len(values)], values.tolist(), importance.tolist(), strict=True
            )
        )
        filters = tuple(Filter(name, factor) for name, factor in factors.items())
        product, earnable = math.prod(factors.values()), self._earnable(settings, answered)
        heard = [(voice, notes) for number, (voice, notes) in enumerate(parts.items()) if notes or not number]
        # A voice without a note has nothing to tell; but the first voice tells of every choice.
        decisions = tuple(
            Decision(
                number=self._number + number,
                time_s=situation.now_s,
                kind="play",
                voice=voice,
                mode=turn.mode,
                choice=self._choices,
                state=state,
                recording=place.recording,
                live=shelf.live,
                source_start_s=place.start_s,
                duration_s=lasts_s,
                transposition=transposition,
                octaves=octaves,
                jumped=jumped,
                run=self._run,
                score=choice.score,
                chance=choice.chance,
                filter=product,
                earnable=earnable,
                tonalness=found.tonal,
                gain_db=gain_db,
                contexts=contexts,
                influences=influences,
                filters=filters,
                alternatives=alternatives,
                candidates=len(found.states),
                silent_s=situation.silent_s,
                scenario=self._scenario_told(guided),
                phrase=turn.phrase,
                stretch=turn.timing.stretch,
                returns="" if turn.step is None or turn.step.state != state else turn.step.words,
                answers=turn.answers,
                tempo_bpm=None if turn.timing.pulse is None else turn.timing.pulse.tempo_bpm,
                notes=notes,
            )
            for number, (voice, notes) in enumerate(heard)
        )
        self._number += len(decisions)
        self._choices += 1
        if guided is not None:
            guided.guide.played()
        self._director.played(state, transposition, turn, now_s=now_s)
        self._own_until = state, now_s + lasts_s
        return decisions

    def _octaves(self, state: int, transposition: int, answered: Situation, settings: PartnerSettings) -> int:
        """Return by how many octaves a state moves into the player's register, or into the one opposite."""
        shelf, local = self.library.find(state)
        beside = shelf.beside[local]
        if not settings.follow_register or not beside["notes"]:
            return 0
        middle = (float(beside["lowest"]) + float(beside["highest"])) / 2 + transposition
        return octaves_towards(wanted_pitch(self.library, answered, settings), middle, settings.follow_register)

    def _follow_own(self) -> None:
        """Let the partner's own last choices point on, to wherever memory went on from the like of them.

        That is looked up when the last choice is out and the next thing happens: nothing asks for it before.
        """
        if self._own_until is None:
            return
        (state, until_s), self._own_until = self._own_until, None
        shelf, local = self.library.find(state)
        token = int(shelf.memory.states["tokens"][local, 0])
        self._activation.clear("own")
        self._own.append(token)
        if token != SILENCE:
            self._activate("own", Recent(tuple(self._own), until_s, ()), but=state, limit=_OWN_PLACES)

    def _contexts(
        self, found: Candidates, choice: Choice, situation: Situation, settings: PartnerSettings
    ) -> tuple[Context, ...]:
        """Return the matches that spoke for a choice. One that does not speak for its transposition was no reason for it."""
        state = int(found.states[choice.candidate])
        shelf, _ = self.library.find(state)
        values = found.influences[:, choice.candidate, choice.transposition]
        contexts = []
        for column, name in enumerate(CONTEXTS):
            peak = int(found.peaks[choice.candidate, column])
            if peak < 0 or not values[INFLUENCES.index(name)]:
                continue
            source = self._activation.source(name, peak, situation.now_s)
            place = self.library.place(source.state)
            contexts.append(
                Context(
                    source=name,
                    tokens=source.symbols,
                    state=source.state,
                    recording=place.recording,
                    end_s=place.start_s + place.duration_s,
                    live=shelf.live,
                    age_s=source.age_s,
                    strength=source.strength,
                    value=source.strength * float(np.exp(-source.age_s / settings.activation_s)),
                    pace=source.pace,
                )
            )
        return tuple(contexts)

    def _alternatives(self, found: Candidates, scores: Float64, choice: Choice) -> tuple[Alternative, ...]:
        """Return the best other states, each in its best transposition."""
        out = []
        for row, column in runners_up(scores, choice, most=_ALTERNATIVES):
            state = int(found.states[row])
            place, (shelf, _) = self.library.place(state), self.library.find(state)
            shift, score = int(found.transpositions[column]), float(scores[row, column])
            out.append(Alternative(state, place.recording, place.start_s, shift, score, shelf.live))
        return tuple(out)

    def _rest(self, why: str, situation: Situation, turn: Turn, *, candidates: int = 0) -> tuple[Decision, ...]:
        if not turn.keeps_phrase:
            # A rest ends the phrase: what comes after it is a new beginning, not a continuation.
            self._position, self._transposition, self._run = None, 0, 0
            self._own.clear()
            self._activation.clear("own")
        return (
            Decision(
                number=0,
                time_s=situation.now_s,
                kind="rest",
                rest=why,
                voice=turn.settings.voices[0].name,
                mode=turn.mode,
                choice=self._choices,
                earnable=self._earnable(turn.settings, situation),
                candidates=candidates,
                silent_s=situation.silent_s,
                expected_s=turn.expected_s,
            ),
        )

    def _numbered(self, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
        """Return decisions numbered in the order in which they are given out."""
        out = tuple(dataclasses.replace(d, number=self._number + i) for i, d in enumerate(decisions))
        self._number += len(out)
        return out


def _limited_db(level_db: float) -> float:
    return min(_LOUDEST_FOLLOWED_DB, max(-_LOUDEST_FOLLOWED_DB, float(level_db)))


def _weighted(influences: Float64, importance: Float64) -> Float64:
    """Return the sum of all influences, each as important as it is, shape (n, t)."""
    kinds, n, t = influences.shape
    return (importance @ influences.transpose(0, 2, 1).reshape(kinds, t * n)).reshape(t, n).T


def _struck_out(filtered: Filtered, factors: Float64) -> str | None:
    """Return the reason to rest if filters leave nothing: the filter without which something would be left."""
    if factors.any():
        return None
    for name, reason in (("regions", "regions"), ("no repeat", "repeats"), ("auto-jump", "repeats")):
        factor = filtered.factors.get(name)
        if factor is not None and not factor.all():
            return reason
    return "weak match"
