"""The partner: hears percepts, keeps a position in memory, and decides what to play next.

A first, honest decision: match the player's recent gestures in both token streams, go on from where memory was in the same
situation, transpose to fit what sounds, do not repeat, and rest where nothing fits. Nothing is played that was not found.
"""

import dataclasses
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float64, Int64
from musichal.hearing.percepts import SOURCES, Percept
from musichal.memory.memory import Memory
from musichal.partner.candidates import INFLUENCES, Candidates, find_candidates
from musichal.partner.decision import Alternative, Context, Decision, Influence, PlannedNote
from musichal.partner.settings import PartnerSettings
from musichal.partner.situation import Situation, SituationTracker

_ALTERNATIVES = 3
_CONTINUITY = INFLUENCES.index("continuity")


@dataclass(frozen=True)
class _Choice:
    """Row and column of a `Candidates`' influences, its score, and the probability with which it was drawn."""

    candidate: int
    transposition: int
    score: float
    chance: float


class Partner:
    """Decides what to play, one state of memory at a time.

    Parameters
    ----------
    memory : Memory
    settings : PartnerSettings
    rng : numpy.random.Generator
        The only source of chance.
    sample_rate_hz : int
        Rate of the stream that percepts count in.
    """

    def __init__(self, memory: Memory, settings: PartnerSettings, *, rng: np.random.Generator, sample_rate_hz: int) -> None:
        self.memory = memory
        self.settings = settings
        self._rng = rng
        self._tracker = SituationTracker(settings, sample_rate_hz=sample_rate_hz)
        self._heard_anything = False
        self._position: int | None = None
        self._transposition = 0
        self._run = 0
        self._played: deque[int] = deque(maxlen=max(1, settings.no_repeat))
        self._number = 0
        self._resting: str | None = None
        self._due_s: float | None = None

    @property
    def due_s(self) -> float | None:
        """When it wants to decide next: when what it plays is over, at once if it rests and heard something new."""
        return self._due_s

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept of the player."""
        self._tracker.hear(percept)
        self._heard_anything = self._heard_anything or bool(percept.heard.audible.any())
        if self._due_s is None:
            self._due_s = now_s

    def hear_onset(self, onset_s: float, now_s: float) -> None:
        """Learn of an onset; this partner waits for the percept."""

    def change(self, changes: Mapping[str, object], now_s: float) -> None:
        """Change settings while playing; raises `InputError` as `PartnerSettings` does."""
        self.settings = PartnerSettings.from_dict({**self.settings.to_dict(), **changes})

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide what to play from `now_s` on: a state of memory, for its duration, or a rest.

        One record stands for one rest: it is given again only if its reason changes.
        """
        decision = self._decide(now_s)
        if decision.kind == "play":
            self._due_s, self._resting = now_s + decision.duration_s, None
            return (decision,)
        # While it rests, nothing is due: the next percept makes it decide again.
        before, self._due_s, self._resting = self._resting, None, decision.rest
        return () if decision.rest == before else (decision,)

    def _decide(self, now_s: float) -> Decision:
        situation = self._tracker.at(now_s)
        if not self._heard_anything:
            return self._rest("waiting", situation)
        if situation.silent_s > self.settings.rest_after_silence_s:
            return self._rest("silence", situation)
        found = find_candidates(
            self.memory,
            situation,
            position=self._position,
            transposition=self._transposition,
            settings=self.settings,
        )
        if not len(found.states):
            return self._rest("no match", situation)
        allowed = self._allowed(found)
        if not allowed.any():
            return self._rest("repeats", situation)
        weights = self._weights()
        scores = (found.influences @ weights) * found.filters[:, None]
        scores[~allowed] = -np.inf
        # Continuity alone is no reason to play: the player must speak for a candidate. What does not fit well enough is
        # not drawn either, however high the temperature.
        evidence = (found.influences[:, :, :_CONTINUITY] @ weights[:_CONTINUITY]) * found.filters[:, None]
        scores[evidence < self.settings.rest_below * self._earnable()] = -np.inf
        if not np.isfinite(scores).any():
            return self._rest("weak match", situation, candidates=len(found.states))
        return self._play(found, self._choose(scores), scores, situation)

    def _earnable(self) -> float:
        """Return what the player can speak for a candidate of this memory at most: the weights of tokens and chroma.

        Without notes there is no harmony to fit: a drummer's memory must not be held to what it cannot have.
        """
        s = self.settings
        return s.percussive_weight + (s.harmonic_weight + s.chroma_weight) * (len(self.memory.notes) > 0)

    def _weights(self) -> Float64:
        s = self.settings
        return np.array([s.harmonic_weight, s.percussive_weight, s.chroma_weight, s.continuity_weight])

    def _allowed(self, found: Candidates) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Strike out what was played lately, and the successor once the run is long enough."""
        following = None if self._position is None else self.memory.successor(self._position)
        lately = set(list(self._played)[-self.settings.no_repeat :]) if self.settings.no_repeat else set()
        allowed = np.array([state not in lately for state in found.states.tolist()])
        if following is not None and self._run >= self.settings.max_run:
            allowed[found.states == following] = False
        return allowed

    def _choose(self, scores: Float64) -> _Choice:
        """Choose a candidate: the best one, or one drawn by how close it comes to the best."""
        flat = scores.ravel()
        if self.settings.temperature > 0:
            with np.errstate(over="ignore"):  # at a temperature next to 0 all but the best are infinitely far
                chance = np.cumsum(np.exp((flat - flat.max()) / self.settings.temperature))
            # The last sum itself, not another way of adding: a draw can then only fall on a candidate with a chance.
            index = int(np.searchsorted(chance, self._rng.random() * chance[-1], side="right"))
            drawn = float((chance[index] - (chance[index - 1] if index else 0.0)) / chance[-1])
        else:
            index, drawn = int(np.argmax(flat)), 1.0
        candidate, transposition = np.unravel_index(index, scores.shape)
        return _Choice(int(candidate), int(transposition), float(flat[index]), drawn)

    def _play(self, found: Candidates, choice: _Choice, scores: Float64, situation: Situation) -> Decision:
        earnable = self._earnable()
        state = int(found.states[choice.candidate])
        transposition = int(found.transpositions[choice.transposition])
        following = None if self._position is None else self.memory.successor(self._position)
        jumped = state != following
        self._run = 1 if jumped else self._run + 1
        self._position, self._transposition = state, transposition
        self._played.append(state)
        place = self.memory.place(state)
        values = found.influences[choice.candidate, choice.transposition]
        # rest_below = 0 lets a candidate pass for which nothing speaks.
        total = float(values @ self._weights()) or 1.0
        influences = tuple(
            Influence(name, float(value), float(weight), float(value * weight / total))
            for name, value, weight in zip(INFLUENCES, values, self._weights(), strict=True)
        )
        return self._numbered(
            Decision(
                number=0,
                time_s=situation.now_s,
                kind="play",
                state=state,
                recording=place.recording,
                source_start_s=place.start_s,
                duration_s=place.duration_s,
                transposition=transposition,
                jumped=jumped,
                run=self._run,
                score=choice.score,
                chance=choice.chance,
                filter=float(found.filters[choice.candidate]),
                earnable=earnable,
                # A match that does not speak for the chosen transposition was no reason for it.
                contexts=self._contexts(state, found.contexts[choice.candidate] * (values[: len(SOURCES)] > 0), situation),
                influences=influences,
                alternatives=self._alternatives(found, scores, choice),
                candidates=len(found.states),
                silent_s=situation.silent_s,
                notes=self._notes(state, transposition, situation.now_s),
            )
        )

    def _contexts(self, state: int, lengths: Int64, situation: Situation) -> tuple[Context, ...]:
        contexts = []
        for source, length in enumerate(lengths.tolist()):
            if length:
                place = self.memory.place(state - 1)
                contexts.append(
                    Context(
                        source=SOURCES[source],
                        tokens=situation.tokens[source][-length:],
                        state=state - 1,
                        recording=place.recording,
                        end_s=place.start_s + place.duration_s,
                    )
                )
        return tuple(contexts)

    def _alternatives(self, found: Candidates, scores: Float64, choice: _Choice) -> tuple[Alternative, ...]:
        """Return the best other states, each in its best transposition."""
        best = scores.max(axis=1)
        best[choice.candidate] = -np.inf
        order = np.argsort(-best, kind="stable")[:_ALTERNATIVES]
        out = []
        for row in order[np.isfinite(best[order])].tolist():
            place = self.memory.place(int(found.states[row]))
            shift = int(found.transpositions[int(np.argmax(scores[row]))])
            out.append(Alternative(int(found.states[row]), place.recording, place.start_s, shift, float(best[row])))
        return tuple(out)

    def _notes(self, state: int, transposition: int, now_s: float) -> tuple[PlannedNote, ...]:
        """Return a state's notes, transposed; a note that would leave MIDI's range moves by octaves."""
        notes = []
        for note in self.memory.notes_of(state):
            pitch = int(note["pitch"]) + transposition
            pitch += 12 * (pitch < 0) - 12 * (pitch > 127)
            notes.append(PlannedNote(now_s + float(note["offset_s"]), float(note["duration_s"]), pitch, int(note["velocity"])))
        return tuple(notes)

    def _rest(self, why: str, situation: Situation, *, candidates: int = 0) -> Decision:
        earnable = self._earnable()
        # A rest ends the phrase: what comes after it is a new beginning, not a continuation.
        self._position, self._transposition, self._run = None, 0, 0
        return self._numbered(
            Decision(
                number=0,
                time_s=situation.now_s,
                kind="rest",
                rest=why,
                earnable=earnable,
                candidates=candidates,
                silent_s=situation.silent_s,
            )
        )

    def _numbered(self, decision: Decision) -> Decision:
        numbered = dataclasses.replace(decision, number=self._number)
        self._number += 1
        return numbered
