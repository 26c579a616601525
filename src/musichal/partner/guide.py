"""Following a scenario through memory, with anticipation.

Where the partner has to jump, it looks for the longest beginning of what is left of the scenario that memory ever played
through, in any transposition allowed: so it jumps to where it can go on for longest (Nika, Chemillier & Assayag, ACM CIE
14(2), 2017). Suffix automata find such beginnings in a number of steps that grows with their length, not with the memory.
From there on, what is played has the label that is asked for; among several such places the player's influences choose.
"""

from dataclasses import dataclass

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64
from musichal.memory.token_index import TokenIndex
from musichal.partner.harmony import unit_chroma
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.scenario import MINOR, Scenario

WEIGHT = 2.0
"""Weight of a planned place beside the influences of the settings."""
_PLACES = 48
_AHEAD = 32
_NO_CHORD = 24


@dataclass(frozen=True)
class Plan:
    """Places for the label asked for now: `states` (k,) in `transpositions` (k,), each going on right for `lengths` (k,)."""

    states: Int64
    transpositions: Int64
    lengths: Int64


class Guide:
    """Follows one scenario through the partner's memory (not through what is learned while playing).

    Parameters
    ----------
    scenario : Scenario
    library : MemoryPool
    """

    def __init__(self, scenario: Scenario, library: MemoryPool) -> None:
        self.scenario = scenario
        self._base = library.base
        self._step = 0
        self._began_s: float | None = None
        self._ended: str | None = None
        self._plans: dict[tuple[int, int], Plan] = {}
        if scenario.kind == "chords":
            self._labels = chord_labels(self._base.units)
            recordings = self._base.memory.states["recording"]
            changes = (np.diff(self._labels) != 0) | (np.diff(recordings) != 0)
            self._firsts = np.concatenate([[0], np.flatnonzero(changes) + 1])[: len(self._labels)].astype(np.int64)
            self._index = TokenIndex()
            for number, first in enumerate(self._firsts.tolist()):
                if number and recordings[first] != recordings[first - 1]:
                    self._index.start_sequence()
                self._index.append(int(self._labels[first]))
        else:
            source = int(scenario.kind == "percussive")
            self._labels = self._base.memory.states["tokens"][:, source].astype(np.int64)
            self._firsts = np.arange(len(self._labels))
            self._index = self._base.memory.indexes[source]

    @property
    def ended(self) -> str | None:
        """Return how the scenario ended, or None while it goes on."""
        return self._ended

    def at(self, now_s: float) -> int | None:
        """Return the step that is asked for now, None when the scenario is over."""
        if self._began_s is None:
            self._began_s = now_s
        if self._ended is not None:
            return None
        step = self._step
        if self.scenario.kind == "chords":
            step = int((now_s - self._began_s) / self.scenario.seconds + 1e-9)
        total = len(self.scenario.labels)
        if step >= total and not self.scenario.repeat:
            self._ended = f"all {total} steps of the scenario were played"
            return None
        return step % total

    def played(self) -> None:
        """Learn that what was asked for was played."""
        self._step += 1

    def give_up(self, step: int) -> None:
        """Learn that memory has nothing for a step: from there on the partner plays freely."""
        total = len(self.scenario.labels)
        self._ended = (
            f"the scenario got to step {step + 1} of {total} ({self.scenario.name(step)}), which nothing in memory fits"
        )

    def told(self, step: int) -> str:
        """Return where in the scenario a step is, in words."""
        return f"step {step + 1} of {len(self.scenario.labels)}: {self.scenario.name(step)}"

    def plan(self, step: int, transpositions: Int64) -> Plan:
        """Return the places from which memory goes on as the scenario does for longest, in each transposition."""
        key = (step, len(transpositions))
        if key not in self._plans:
            self._plans.clear()
            self._plans[key] = self._planned(step, transpositions)
        return self._plans[key]

    def fits(self, states: Int64, transpositions: Int64, step: int) -> AnyArray:
        """Return which states have the label that is asked for, in each transposition; shape (n, t)."""
        label = self.scenario.labels[step]
        out = np.zeros((len(states), len(transpositions)), dtype=bool)
        known = (states >= 0) & (states < len(self._labels))
        own = self._labels[states[known]]
        for column, shift in enumerate(transpositions.tolist()):
            if self.scenario.kind == "chords" or shift == 0:
                out[known, column] = own == transposed(label, -shift, self.scenario.kind)
        return out

    def value(self, states: Int64, transpositions: Int64, plan: Plan) -> Float64:
        """Return how far memory goes on as asked from each state, n / (n + 1) for n labels; shape (n, t)."""
        out = np.zeros((len(states), len(transpositions)))
        if len(states) and len(plan.states):
            rows = np.minimum(np.searchsorted(states, plan.states), len(states) - 1)
            columns = plan.transpositions - transpositions[0]
            there = states[rows] == plan.states
            np.maximum.at(out, (rows[there], columns[there]), (plan.lengths / (plan.lengths + 1))[there])
        return out

    def _planned(self, step: int, transpositions: Int64) -> Plan:
        kind, labels = self.scenario.kind, self.scenario.labels
        ahead = [*labels[step:], *(labels if self.scenario.repeat else ())][:_AHEAD]
        if kind == "chords":  # memory's index has each chord once, however long it lasts
            ahead = [label for i, label in enumerate(ahead) if not i or label != ahead[i - 1]]
        rows: list[tuple[int, int, int]] = []
        for shift in transpositions.tolist():
            if kind != "chords" and shift:
                continue
            wanted = [transposed(label, -shift, kind) for label in ahead]
            length = _longest_prefix(self._index, wanted)
            if length:
                match = self._index.longest_context(wanted[:length], max_length=length)
                ends = self._index.occurrences(match, limit=_PLACES)
                rows += [(int(self._firsts[end - length + 1]), shift, length) for end in ends.tolist()]
        rows.sort()
        columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return Plan(columns[:, 0], columns[:, 1], columns[:, 2])


def _longest_prefix(index: TokenIndex, labels: list[int]) -> int:
    """Return how many of the first labels occur in a row: if n do, so do fewer."""
    low, high = 0, len(labels)
    while low < high:
        middle = (low + high + 1) // 2
        if index.longest_context(labels[:middle], max_length=middle).length == middle:
            low = middle
        else:
            high = middle - 1
    return low


def transposed(label: int, shift: int, kind: str) -> int:
    """Return a chord moved by semitones; a token is what it is."""
    if kind != "chords" or not 0 <= label < _NO_CHORD:
        return label
    return (label % 12 + shift) % 12 + MINOR * (label >= MINOR)


def chord_labels(units: AnyArray) -> Int64:
    """Return the chord that each state's chroma fits best: 0 to 11 major from C, 12 to 23 minor, 24 none; shape (n,)."""
    templates = np.zeros((24, 12))
    for root in range(12):
        templates[root, [root, (root + 4) % 12, (root + 7) % 12]] = 1
        templates[root + MINOR, [root, (root + 3) % 12, (root + 7) % 12]] = 1
    fit = np.asarray(units, dtype=np.float64) @ unit_chroma(templates).T
    return np.where(fit.max(axis=1, initial=0.0) > 0.3, np.argmax(fit, axis=1), _NO_CHORD).astype(np.int64)
