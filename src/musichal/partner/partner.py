"""The partner: hears percepts, keeps a position in memory, and decides what to play next.

It follows the player through its memory by several kinds of context at once, weighs what they lead to, holds back what does
not fit, and plays one state of memory after the other; or it rests, and says why. Nothing is played that was not found.

One decision takes these steps, each in a module of its own: whose turn it is (`turn`), where memory could go on
(`candidates`), what holds that back (`filters`), one choice (`selection`), and who plays which of its notes (`voices`).
"""

import dataclasses
from collections import deque
from collections.abc import Mapping

import numpy as np

from musichal.arrays import Float64
from musichal.hearing.percepts import SILENCE, Percept
from musichal.memory.memory import Memory
from musichal.partner.activation import Activation
from musichal.partner.candidates import Candidates, find_candidates
from musichal.partner.decision import Alternative, Context, Decision, Filter, Influence
from musichal.partner.filters import Filtered, apply_filters
from musichal.partner.influences import (
    CONTEXTS,
    INFLUENCES,
    PLAYER_INFLUENCES,
    Recent,
    find_matches,
    player_contexts,
    weights,
)
from musichal.partner.learning import Learner
from musichal.partner.library import Library
from musichal.partner.selection import Choice, choose, runners_up
from musichal.partner.settings import PartnerSettings
from musichal.partner.situation import Situation, SituationTracker
from musichal.partner.turn import Turn, take_turn
from musichal.partner.voices import Voices

_ALTERNATIVES = 3
_OWN_LENGTH, _OWN_PLACES = 8, 16
_LOUDEST_FOLLOWED_DB = 12.0
_PLAYER = [INFLUENCES.index(name) for name in PLAYER_INFLUENCES]


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
    """

    def __init__(self, memory: Memory, settings: PartnerSettings, *, rng: np.random.Generator, sample_rate_hz: int) -> None:
        self.library = Library(memory)
        self.settings = settings
        self._rng = rng
        self._tracker = SituationTracker(sample_rate_hz=sample_rate_hz)
        self._learner = Learner()
        self._voices = Voices()
        self._activation = Activation()
        self._heard_anything = False
        self._heard_gestures = 0
        self._position: int | None = None
        self._transposition = 0
        self._run = 0
        self._played: deque[int] = deque(maxlen=10_000)
        self._own: deque[int] = deque(maxlen=_OWN_LENGTH)
        self._number = 0
        self._choices = 0
        self._resting: str | None = None
        self._due_s: float | None = None

    @property
    def due_s(self) -> float | None:
        """When it wants to decide next: when what it plays is over, at once if it rests and heard something new."""
        return self._due_s

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept of the player."""
        self._tracker.hear(percept, self.settings)
        self._heard_anything = self._heard_anything or bool(percept.heard.audible.any())
        self._learn(percept, now_s)
        situation = self._tracker.at(now_s, self.settings)
        if situation.heard != self._heard_gestures:
            self._heard_gestures = situation.heard
            for name, recent in player_contexts(situation).items():
                self._activate(name, recent)
        if self._due_s is None:
            self._due_s = now_s

    def hear_onset(self, onset_s: float, now_s: float) -> None:
        """Learn of an onset; this partner waits for the percept."""

    def change(self, changes: Mapping[str, object], now_s: float) -> None:
        """Change settings while playing; raises `InputError` as `PartnerSettings.changed` does."""
        self.settings = self.settings.changed(changes)

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide what to play from `now_s` on: a state of memory, for its duration, or a rest.

        Each voice that plays has a record of its own. One record stands for one rest: it is given again only if its reason
        changes.
        """
        decisions = self._decide(now_s)
        first = decisions[0]
        if first.kind == "play":
            self._due_s, self._resting = now_s + first.duration_s, None
            return decisions
        # While it rests, nothing is due: the next percept makes it decide again.
        before, self._due_s, self._resting = self._resting, None, first.rest
        return () if first.rest == before else self._numbered(decisions)

    def _learn(self, percept: Percept, now_s: float) -> None:
        """Take what the player did into memory, as soon as it is complete."""
        if not self.settings.live_weight:
            return
        self._learner.hear(percept)
        for gesture, notes in self._learner.complete(now_s):
            if gesture.tokens != (SILENCE, SILENCE) or len(self.library.shelves) > 1:
                self.library.learn(gesture, notes, most=self.settings.live_gestures)
        if self._position is not None and not self.library.holds(self._position):
            self._position, self._run = None, 0

    def _activate(self, name: str, recent: Recent, *, but: int | None = None, limit: int | None = None) -> None:
        """Set peaks wherever memory was in this situation, `but` at one state."""
        for shelf in self.library.shelves:
            matches = find_matches(shelf, name, recent, settings=self.settings, limit=limit)
            if but is not None:
                matches = matches[matches["state"] + shelf.first != but]
            self._activation.insert(name, shelf, matches, recent.symbols)

    def _decide(self, now_s: float) -> tuple[Decision, ...]:
        situation = self._tracker.at(now_s, self.settings)
        turn = take_turn(situation, self.settings, heard_anything=self._heard_anything)
        if turn.rest is not None:
            return self._rest(turn.rest, situation, turn)
        settings = turn.settings
        found = find_candidates(
            self.library, self._activation, situation, position=self._position, transposition=self._transposition,
            settings=settings, turn=self._choices,
        )  # fmt: skip
        if not len(found.states):
            return self._rest("no match", situation, turn)
        filtered = apply_filters(
            self.library, situation, found.states, found.transpositions,
            played=list(self._played)[-settings.no_repeat :] if settings.no_repeat else (),
            following=None if self._position is None else self.library.successor(self._position),
            run=self._run, tonal=found.tonal, settings=settings,
        )  # fmt: skip
        shape = found.influences.shape[:2]
        factors = filtered.product((shape[0], shape[1]))
        why = _struck_out(filtered, factors)
        if why is not None:
            return self._rest(why, situation, turn)
        importance = weights(settings)
        scores = (found.influences @ importance) * factors
        scores[factors == 0] = -np.inf
        # Continuity alone is no reason to play: the player must speak for a candidate. What does not fit well enough is
        # not drawn either, however high the temperature.
        evidence = (found.influences[:, :, _PLAYER] @ importance[_PLAYER]) * factors
        scores[evidence < settings.rest_below * self._earnable(settings)] = -np.inf
        if not np.isfinite(scores).any():
            return self._rest("weak match", situation, turn, candidates=len(found.states))
        choice = choose(scores, temperature=settings.temperature, rng=self._rng)
        return self._play(found, filtered, choice, scores, situation, turn)

    def _earnable(self, settings: PartnerSettings) -> float:
        """Return what the player can speak for a candidate of this memory at most.

        Without notes there is no harmony to fit: a drummer's memory must not be held to what it cannot have.
        """
        harmony = settings.harmonic_weight + settings.chroma_weight
        return settings.player_weight - (0 if self.library.has_notes else harmony)

    def _play(
        self, found: Candidates, filtered: Filtered, choice: Choice, scores: Float64, situation: Situation, turn: Turn
    ) -> tuple[Decision, ...]:
        settings = turn.settings
        state = int(found.states[choice.candidate])
        transposition = int(found.transpositions[choice.transposition])
        following = None if self._position is None else self.library.successor(self._position)
        jumped = state != following
        self._run = 1 if jumped else self._run + 1
        self._position, self._transposition = state, transposition
        self._played.append(state)
        place = self.library.place(state)
        shelf, _ = self.library.find(state)
        values = found.influences[choice.candidate, choice.transposition]
        importance = weights(settings)
        # rest_below = 0 lets a candidate pass for which nothing speaks.
        total = float(values @ importance) or 1.0
        factors = filtered.of(choice.candidate, choice.transposition)
        followed_db = float(np.clip(situation.level_db, -_LOUDEST_FOLLOWED_DB, _LOUDEST_FOLLOWED_DB))
        gain_db = settings.gain_db + settings.dynamics * followed_db
        parts = self._voices.play(
            self.library, state, transposition=transposition, now_s=situation.now_s, duration_s=place.duration_s,
            gain_db=gain_db, settings=settings,
        )  # fmt: skip
        contexts = self._contexts(found, choice, situation, settings)
        alternatives = self._alternatives(found, scores, choice)
        # A voice without a note has nothing to tell; but the first voice tells of every choice.
        decisions = tuple(
            Decision(
                number=0,
                time_s=situation.now_s,
                kind="play",
                voice=part.voice,
                mode=turn.mode,
                choice=self._choices,
                state=state,
                recording=place.recording,
                live=shelf.live,
                source_start_s=place.start_s,
                duration_s=place.duration_s,
                transposition=transposition,
                jumped=jumped,
                run=self._run,
                score=choice.score,
                chance=choice.chance,
                filter=float(np.prod(list(factors.values()))),
                earnable=self._earnable(settings),
                tonalness=found.tonal,
                gain_db=gain_db,
                contexts=contexts,
                influences=tuple(
                    Influence(name, float(value), float(weight), float(value * weight / total))
                    for name, value, weight in zip(INFLUENCES, values, importance, strict=True)
                ),
                filters=tuple(Filter(name, factor) for name, factor in factors.items()),
                alternatives=alternatives,
                candidates=len(found.states),
                silent_s=situation.silent_s,
                notes=part.notes,
            )
            for number, part in enumerate(parts)
            if part.notes or not number
        )
        self._choices += 1
        self._remember_own(state, situation.now_s + place.duration_s)
        return self._numbered(decisions)

    def _remember_own(self, state: int, until_s: float) -> None:
        """Let the partner's own last choices point on, to wherever memory went on from the like of them."""
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
        values = found.influences[choice.candidate, choice.transposition]
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
                earnable=self._earnable(turn.settings),
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


def _struck_out(filtered: Filtered, factors: Float64) -> str | None:
    """Return the reason to rest if filters leave nothing: the filter without which something would be left."""
    if factors.any():
        return None
    for name, reason in (("regions", "regions"), ("no repeat", "repeats"), ("auto-jump", "repeats")):
        factor = filtered.factors.get(name)
        if factor is not None and not factor.all():
            return reason
    return "weak match"
