"""Trials: each parameter at both ends of its usual range, for `musichal evaluate --effects`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from musichal.parameters import MODE_NUMBERS, MODE_WORDS, NUMBERS, VOICE_NUMBERS, WORDS, Parameter

LATE_S: Mapping[str, float] = {"mode: turn": 6.0}
"""How long the player waits before beginning, for what matters only until then."""


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
