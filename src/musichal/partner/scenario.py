"""Scenarios: a list of labels that the partner is to follow, as in Dicy2 (Nika, Chemillier & Assayag, ACM CIE 14(2), 2017).

Labels are chords, or tokens of one source; another recording's tokens are a scenario too. A chord lasts `seconds`, a token as
long as the state of memory that is played for it.

Where the partner has to jump, it looks for the longest beginning of what is left of the scenario that memory ever played
through, in any transposition allowed: so it jumps to where it can go on for longest. Suffix automata find such beginnings in a
number of steps that grows with their length, not with the memory. From there on, what is played has the label that is asked
for; among several such places the player's influences choose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64
from musichal.errors import InputError
from musichal.hearing.percepts import SOURCES
from musichal.memory.token_index import TokenIndex
from musichal.partner.chords import CHORDS, MINOR, chord_labels, chord_name, chord_number
from musichal.partner.memory_pool import MemoryPool
from musichal.text import parse_toml

KINDS = ("chords", *SOURCES)
LONGEST = 10_000


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What to follow: `labels` are chords (0 to 11 major from C, 12 to 23 minor) or tokens, as `kind` says.

    `seconds` is how long a chord lasts; `repeat` begins again at the end.
    """

    kind: str
    labels: tuple[int, ...]
    seconds: float = 2.0
    repeat: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"a scenario is of {', '.join(KINDS)}, not {self.kind!r}")
        highest = 23 if self.kind == "chords" else 1023
        if not 1 <= len(self.labels) <= LONGEST:
            raise InputError(f"a scenario has from 1 to {LONGEST} labels, not {len(self.labels)}")
        for label in self.labels:
            if type(label) is not int or not -1 <= label <= highest:
                raise InputError(f"a scenario's labels are numbers from -1 to {highest}, not {label!r}")
        if not 0.05 <= self.seconds <= 3600:
            raise InputError(f"a chord of a scenario lasts from 0.05 to 3600 s, not {self.seconds:g}")

    def name(self, step: int) -> str:
        """Return the name of a label."""
        label = self.labels[step]
        return chord_name(label) if self.kind == "chords" else f"{self.kind} {label}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"kind": self.kind, "labels": list(self.labels), "seconds": self.seconds, "repeat": self.repeat}

    @classmethod
    def from_value(cls, value: object) -> Self | None:
        """Return a scenario from chords in words (none for no words), from `to_dict`'s values, or as it is.

        Raises `InputError` for anything else.
        """
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, str):
            names = value.replace(",", " ").split()
            return cls(kind="chords", labels=tuple(map(chord_number, names))) if names else None
        if not isinstance(value, Mapping) or not set(value) <= {"kind", "labels", "seconds", "repeat"}:
            raise InputError(f"a scenario is a row of chords such as 'C Am F G', not {value!r}")
        labels, seconds = value.get("labels"), value.get("seconds", 2.0)
        if not isinstance(labels, list | tuple) or not isinstance(value.get("kind"), str):
            raise InputError("a scenario names its kind and its labels")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise InputError(f"a scenario's seconds are a number, not {seconds!r}")
        return cls(kind=value["kind"], labels=tuple(labels), seconds=float(seconds), repeat=bool(value.get("repeat", False)))


def parse_scenario(text: str, tokens_of: Callable[[str | int, str | None, str], Sequence[int]]) -> Scenario:
    """Return the scenario that a TOML text describes.

    It has one of ``chords = ["C", "Am"]``, ``tokens = [3, 5]`` and ``recording = "take.wav"`` (a name or a number; with
    ``partner = "other.hal"``, one of another partner), and may have ``source`` (of tokens: harmonic or percussive), ``seconds``
    (that a chord lasts) and ``repeat``. `tokens_of`: returns the tokens of a recording (by name or number) of a partner (None
    for the one that plays), of a source. Raises `InputError` for anything else.
    """
    table = parse_toml(text, source="the scenario")
    what = [name for name in ("chords", "tokens", "recording") if name in table]
    unknown = set(table) - {"chords", "tokens", "recording", "partner", "source", "seconds", "repeat"}
    if len(what) != 1 or unknown:
        wrong = f"unknown: {', '.join(sorted(unknown))}" if unknown else f"it has {' and '.join(what) or 'none'}"
        raise InputError(f"a scenario has one of chords, tokens and recording; {wrong}")
    source, seconds, repeat = table.get("source", SOURCES[0]), table.get("seconds", 2.0), table.get("repeat", False)
    if source not in SOURCES or not isinstance(repeat, bool):
        raise InputError("a scenario's source is harmonic or percussive, and its repeat is true or false")
    labels: object
    if what == ["chords"]:
        chords = table["chords"]
        if not isinstance(chords, list) or not all(isinstance(c, str) for c in chords):
            raise InputError('a scenario\'s chords are a list such as ["C", "Am"]')
        labels = [chord_number(c) for c in chords]
    elif what == ["tokens"]:
        labels = table["tokens"]
    else:
        recording, partner = table["recording"], table.get("partner")
        if not isinstance(recording, str | int) or not isinstance(partner, str | None):
            raise InputError("a scenario's recording is a name or a number, and its partner a file")
        labels = list(tokens_of(recording, partner, source))
    kind = "chords" if what == ["chords"] else source
    scenario = Scenario.from_value({"kind": kind, "labels": labels, "seconds": seconds, "repeat": repeat})
    assert scenario is not None
    return scenario


WEIGHT = 2.0
"""Weight of a planned place beside the influences of the settings."""
_PLACES = 48
_AHEAD = 32


@dataclass(frozen=True)
class Plan:
    """Places for the label of a `step`: `states` (k,) in `transpositions` (k,), each going on as asked for `lengths` (k,)."""

    step: int
    states: Int64
    transpositions: Int64
    lengths: Int64


class Guide:
    """Follows one scenario through the partner's memory, without what is learned while playing."""

    def __init__(self, scenario: Scenario, library: MemoryPool) -> None:
        self.scenario = scenario
        self._base = library.base
        self._step = 0
        self._began_s: float | None = None
        self._ended = ""
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

    def ask(self, now_s: float, transpositions: Int64) -> Plan | None:
        """Return where memory can go on with what is asked for now; None where the scenario or memory ends."""
        if self._began_s is None:
            self._began_s = now_s
        if self._ended:
            return None
        step, total = self._step, len(self.scenario.labels)
        if self.scenario.kind == "chords":
            step = int((now_s - self._began_s) / self.scenario.seconds + 1e-9)
        if step >= total and not self.scenario.repeat:
            self._ended = f"all {total} steps of the scenario were played"
            return None
        plan = self._plan(step % total, transpositions)
        if not len(plan.states):
            name = self.scenario.name(step % total)
            self._ended = f"the scenario got to step {step % total + 1} of {total} ({name}), which nothing in memory fits"
            return None
        return plan

    def played(self) -> None:
        """Go on to the next step: what was asked for was played."""
        self._step += 1

    def told(self, plan: Plan | None) -> str:
        """Return in words where in the scenario a plan is, or how the scenario ended."""
        if plan is None:
            return f"{self._ended}; free from there on" if self._ended else ""
        return f"step {plan.step + 1} of {len(self.scenario.labels)}: {self.scenario.name(plan.step)}"

    def _plan(self, step: int, transpositions: Int64) -> Plan:
        """Return the places from which memory goes on as the scenario does for longest, in each transposition."""
        key = (step, len(transpositions))
        if key not in self._plans:
            self._plans = {key: self._planned(step, transpositions)}
        return self._plans[key]

    def fits(self, states: Int64, transpositions: Int64, plan: Plan) -> AnyArray:
        """Return which states have the label that a plan is for, in each transposition; shape (n, t)."""
        label = self.scenario.labels[plan.step]
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
        return Plan(step, columns[:, 0], columns[:, 1], columns[:, 2])


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
    if kind != "chords" or not 0 <= label < CHORDS:
        return label
    return (label % 12 + shift) % 12 + MINOR * (label >= MINOR)
