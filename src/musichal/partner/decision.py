"""The record of a decision: what was chosen, why, and what nearly was.

A record is one line of JSON and holds what the choice was made from, so that a reader can compute it again: the score is the
product of the filters times the sum of weight × value over the influences, an influence's share is its part of that sum, and
the value of a context is its strength faded by its age.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, Self

from musichal.note import PERCUSSION_CHANNEL, Note

REST_REASONS = {
    "waiting": "nothing has been heard yet",
    "silence": "the player is silent",
    "no match": "memory has no place like this situation",
    "weak match": "nothing in memory fits well enough",
    "no support": "nothing speaks for any place in memory",
    "no key": "you play in no key that memory knows, and all of it would clash",
    "repeats": "everything that fits was just played, or would continue one recording for too long",
    "listening": "it listens to you and waits for the end of your phrase",
    "your turn": "it has answered; it is your turn",
    "yields": "you began again, and it yields to you",
    "breath": "it pauses between two phrases",
    "pulse": "it listens for your pulse before it joins in",
    "beat": "it waits for the beat on which its phrase begins",
    "next note": "it waits for your next note",
    "on purpose": "its mode is to listen in silence",
    "score": "the form asks for silence",
    "ending": "it has played its last phrase",
    "ended": "the form is over",
    "paused": "you have paused it",
    "regions": "everything that fits lies outside the regions to play from",
}

ChanceClass = Literal["best", "lesser", "under half", "no support"]


@dataclass(frozen=True, slots=True)
class Influence:
    """One influence on a choice: its value (0 to 1), its weight, and its share."""

    name: str
    value: float
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter on a choice, and the factor that multiplied the score."""

    name: str
    factor: float


@dataclass(frozen=True, slots=True)
class Context:
    """A stretch of the recent past that agreed with memory.

    `source` is the influence, `tokens` are the symbols that agreed, `state` is where in memory they ended. The match had a
    `strength`, `age_s` ago, and has faded to `value`. Memory has gone on from there at `pace`, relative to the recording.
    `paired` says that it is a player's past that agreed (`state`, `recording` and `end_s` are theirs), beside which the others
    did what is played.
    """

    source: str
    tokens: tuple[int, ...]
    state: int
    recording: int
    end_s: float
    live: bool = False
    paired: bool = False
    age_s: float = 0.0
    strength: float = 0.0
    value: float = 0.0
    pace: float = 1.0


@dataclass(frozen=True, slots=True)
class PulseUse:
    """How a choice goes by the pulse: its `source` and `confidence`, and how far it is gone by (`strength`, 0 to 1).

    Phases are parts of a beat, 0 to 1: the one `wanted` of memory where the choice was to begin, the state's own `phase`, and
    that of the room's beat at which it begins, `got`. `phase` is None where memory's place in the beat is not known.
    """

    source: str
    confidence: float
    strength: float
    wanted: float
    phase: float | None
    got: float


@dataclass(frozen=True, slots=True)
class HarmonyUse:
    """The harmony that a choice was fitted to.

    `key` and `chord` are the player's, `expected` is the chord that memory expects while the choice sounds, each with its
    `chance`; `accounts` (0 to 1) is how far memory's harmony accounts for what the player plays. `moved` says why the
    transposition is this one, empty where it is kept; `left_out` are the pitches of the state that clash and are not played.
    The player is `tuning_cents` off, which was corrected.
    """

    key: str
    key_chance: float
    chord: str
    chord_chance: float
    expected: str
    expected_chance: float
    accounts: float
    moved: str = ""
    left_out: tuple[int, ...] = ()
    tuning_cents: float = 0.0


@dataclass(frozen=True, slots=True)
class Alternative:
    """A candidate that was not chosen."""

    state: int
    recording: int
    start_s: float
    transposition: int
    score: float
    live: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen and why: the part of a record that all voices of a choice share. Empty for a rest.

    `choice` counts choices. `live` says that the state is the player's own, learned while playing. `duration_s` is how long
    the state lasts, `stretch` how much longer than recorded; `octaves` is the shift into a register beyond the
    `transposition`, `gain_db` how much louder than remembered it is played. `run` counts states in recorded order, and
    `jumped` says that this one begins a run. `chance` is the probability with which the choice was drawn; `filter` the
    product of all filters; `earnable` what the player's influences could have contributed at most, of which `rest_below` is a
    share; `tonalness` how far the present is harmony, which scales harmonic tokens and chroma. `silent_s` is how long the
    player had been silent. `phrase` counts the partner's phrases. `returns` names what is brought back, `answers` the span of
    the player's past that is answered, `scenario` the step that is followed.

    `beside` is the recording of the player, and the second in it, beside whom the others did what is played, in a memory of
    pairs.

    `harmony` is the harmony that it was fitted to, None before anything was heard.

    `start_s` is when the state begins in the stream, later than the decision where it is planned ahead. `pulse` is how it goes
    by the pulse of `tempo_bpm`, None where it plays in free time, which `free` explains.
    """

    mode: str = ""
    choice: int = 0
    state: int | None = None
    recording: int | None = None
    live: bool = False
    source_start_s: float | None = None
    duration_s: float = 0.0
    transposition: int = 0
    octaves: int = 0
    jumped: bool = False
    run: int = 0
    score: float = 0.0
    chance: float = 1.0
    filter: float = 1.0
    earnable: float = 0.0
    tonalness: float = 0.0
    gain_db: float = 0.0
    contexts: tuple[Context, ...] = ()
    influences: tuple[Influence, ...] = ()
    filters: tuple[Filter, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    candidates: int = 0
    silent_s: float = 0.0
    scenario: str = ""
    phrase: int = 0
    stretch: float = 1.0
    returns: str = ""
    answers: tuple[float, float] | None = None
    beside: tuple[int, float] | None = None
    start_s: float | None = None
    tempo_bpm: float | None = None
    pulse: PulseUse | None = None
    free: str = ""
    harmony: HarmonyUse | None = None


@dataclass(frozen=True)
class Decision(Choice):
    """A choice as one voice plays it, or a rest.

    Each voice of a choice has a `number` of its own. `rest` is one of `REST_REASONS`; `expected_s` how long a rest was
    expected to last, where that was known.
    """

    number: int
    time_s: float
    kind: Literal["play", "rest"]
    rest: str | None = None
    voice: str = "all"
    expected_s: float | None = None
    notes: tuple[Note, ...] = ()

    @property
    def begin_s(self) -> float:
        """When the choice begins: the decision's own time, unless it was planned ahead."""
        return self.time_s if self.start_s is None else self.start_s

    def to_json(self, before: "Decision | None" = None) -> str:
        """Return the record as one line of JSON.

        Where `before` is another voice of the same choice, only what differs is written: ``{"as": 6, "number": 7, ...}``.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if before is not None and before.kind == self.kind == "play" and before.choice == self.choice:
            values = {"as": before.number, **{name: v for name, v in values.items() if v != getattr(before, name)}}
        return json.dumps(values, allow_nan=False, separators=(",", ":"), default=_plain)

    @classmethod
    def from_json(cls, line: str, before: Self | None = None) -> Self:
        """Return the decision that `to_json` wrote, given the one `before` it."""
        values: dict[str, Any] = json.loads(line)
        if "as" in values:
            if before is None or values.pop("as") != before.number:
                raise ValueError("the line refers to another one than the line before")
            values = {f.name: getattr(before, f.name) for f in dataclasses.fields(cls)} | _parsed(values)
            return cls(**values)
        return cls(**_parsed(values))


def chance_class(choice: Choice) -> ChanceClass:
    """Return how well founded a choice to play was, by its own record.

    "no support" where no influence has a share in it; "under half" and "lesser" where its score is under half of the best other
    place's, or less than that; "best" where no other place scored higher.
    """
    if not any(influence.share > 0 for influence in choice.influences):
        return "no support"
    other = choice.alternatives[0].score if choice.alternatives else 0.0
    return "under half" if choice.score < other / 2 else "lesser" if choice.score < other else "best"


def _plain(part: Any) -> dict[str, Any]:
    values = dataclasses.asdict(part)
    if isinstance(part, Note) and part.channel != PERCUSSION_CHANNEL:
        del values["channel"]  # chosen behind the record, but for drums
    return values


def _parsed(values: dict[str, Any]) -> dict[str, Any]:
    """Return values of a record with their parts as objects."""
    parts = {
        "contexts": Context, "influences": Influence, "filters": Filter, "alternatives": Alternative, "notes": Note,
    }  # fmt: skip
    for name in parts.keys() & values.keys():
        values[name] = tuple(parts[name](**part) for part in values[name])
    if values.get("pulse") is not None:
        values["pulse"] = PulseUse(**values["pulse"])
    if values.get("harmony") is not None:
        harmony = HarmonyUse(**values["harmony"])
        values["harmony"] = dataclasses.replace(harmony, left_out=tuple(harmony.left_out))
    for name in ("answers", "beside"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    if "contexts" in values:
        values["contexts"] = tuple(dataclasses.replace(c, tokens=tuple(c.tokens)) for c in values["contexts"])
    return values
