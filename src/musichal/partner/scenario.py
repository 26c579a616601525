"""Scenarios: a list of labels that the partner is to follow, as in Dicy2 (Nika, Chemillier & Assayag, ACM CIE 14(2), 2017).

Labels are chords, or tokens of one source; another recording's tokens are a scenario too. A chord lasts `seconds`, a token as
long as the state of memory that is played for it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from musichal.errors import InputError
from musichal.hearing.percepts import SOURCES
from musichal.text import parse_toml

KINDS = ("chords", *SOURCES)
LONGEST = 10_000
_ROOTS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_STEPS = "C D EF G A B"
_CHORD = re.compile(r"([A-G])([#b]?)(m(?!aj)|min|-)?([a-z0-9#b+°/-]*)", re.IGNORECASE | re.ASCII)
MINOR = 12
"""A minor chord is its root plus this."""


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
        if self.kind != "chords":
            return f"{self.kind} {label}"
        return f"{_ROOTS[label % 12]}{'m' if label >= MINOR else ''}"

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


def chord_number(name: str) -> int:
    """Return the number of a chord such as C, F#m, Bbmaj7 or Dm7: its root, plus 12 if it is minor.

    What is added to the triad is not told apart. Raises `InputError` for what is no chord.
    """
    match = _CHORD.fullmatch(name.strip())
    if match is None or match[1] not in "ABCDEFG":
        raise InputError(f"{name!r} is no chord such as C, F#m or Bb7")
    root = _STEPS.index(match[1]) + {"#": 1, "b": -1, "": 0}[match[2]]
    minor = match[3] is not None or match[4].startswith(("dim", "°"))
    return root % 12 + MINOR * minor


def parse_scenario(text: str, tokens_of: Callable[[str | int, str | None, str], Sequence[int]]) -> Scenario:
    """Return the scenario that a TOML text describes.

    It has one of ``chords = ["C", "Am"]``, ``tokens = [3, 5]`` and ``recording = "take.wav"`` (a name or a number; with
    ``partner = "other.hal"``, one of another partner), and may have ``source`` (of tokens: harmonic or percussive), ``seconds``
    (that a chord lasts) and ``repeat``.

    Parameters
    ----------
    text : str
    tokens_of : callable
        Returns the tokens of a recording (by name or number) of a partner (None for the one that plays), of a source.

    Raises
    ------
    InputError
        For anything else.
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
