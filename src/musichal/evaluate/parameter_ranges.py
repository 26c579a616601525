"""Both ends of every setting of the partner, of a voice and of a mode, for whoever asks what it does."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

ENDS: Mapping[str, tuple[object, object]] = MappingProxyType(
    {
        "harmonic_weight": (0.0, 3.0),
        "percussive_weight": (0.0, 3.0),
        "chroma_weight": (0.0, 3.0),
        "rhythm_weight": (0.0, 3.0),
        "loudness_weight": (0.0, 3.0),
        "own_weight": (0.0, 3.0),
        "continuity_weight": (0.0, 3.0),
        "activation_s": (0.1, 10.0),
        "min_context": (1, 4),
        "max_candidates": (1, 64),
        "chroma_candidates": (0, 64),
        "no_repeat": (0, 40),
        "jump_after": (0, 100),
        "max_run": (1, 100),
        "noteless_factor": (0.0, 1.0),
        "follow_harmony": (-1.0, 1.0),
        "follow_density": (-1.0, 1.0),
        "follow_loudness": (-1.0, 1.0),
        "dynamics": (-1.0, 1.0),
        "gain_db": (-20.0, 20.0),
        "low_pitch": (0, 72),
        "high_pitch": (50, 127),
        "follow_register": (-1.0, 1.0),
        "phrasing": (0.0, 1.0),
        "pace": (-1.0, 1.0),
        "pace_limit": (1.0, 4.0),
        "quantise": (0.0, 1.0),
        "subdivision": (1, 8),
        "pulse_confidence": (0.0, 1.0),
        "rest_below": (0.0, 0.9),
        "rest_after_silence_s": (0.1, 100.0),
        "max_transposition": (0, 6),
        "transposition_penalty": (0.0, 0.5),
        "temperature": (0.0, 1.0),
        "memory_gestures": (1, 32),
        "chroma_s": (0.02, 30.0),
        "live_weight": (0.0, 1.0),
        "live_gestures": (1, 2000),
        "live_s": (0.0, 600.0),
        "use": ((), "0:0-3"),
        "avoid": ((), "0:0-5"),
        "voices": ("all", "melody,bass,chords"),
        "direction": ({}, {"mode": "couple"}),
        "scenario": ("", "B E A"),
    }
)
"""Both ends of each setting: as far as they go, or as far as anyone would."""
BESIDE: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "chroma_candidates": {"max_candidates": 1},
        "phrasing": {"direction": {"mode": "couple"}},
        "pace_limit": {"pace": 1.0},
        "subdivision": {"quantise": 1.0},
        "pulse_confidence": {"quantise": 1.0, "subdivision": 1},
    }
)
"""What a setting needs beside it to mean anything."""
LATE_S: Mapping[str, float] = MappingProxyType({"mode: turn": 6.0})
"""How long the player waits before they begin, for what matters only until then."""
VOICE_ENDS: Mapping[str, tuple[object, object]] = MappingProxyType(
    {
        "low_pitch": (0, 41),
        "high_pitch": (39, 96),
        "most_per_s": (0.5, 0.0),
        "gain_db": (-20.0, 20.0),
        "hold": (0.0, 1.0),
    }
)
"""Both ends of each setting of a voice; they are tried on the bass beside melody and chords."""
MODE_ENDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "turn": ("couple", '"along"', '"own"'),
        "trigger": ("couple", '"own end"', '"onset"'),
        "phrase": ("couple", "0.3", "5"),
        "breath": ("couple", "0", "10"),
        "patience_s": ("mirror", "1", "30"),
        "recall": ("mirror", "0", "1"),
        "returns": ("couple", "0", "1"),
        "stay_s": ("auto", "[1, 2]", "[60, 90]"),
        "next": ("auto", "{ rest = 1 }", "{ lead = 1 }"),
    }
)
"""Which mode each column of a mode is tried on, and both its ends, as they stand in the table. Where it is the partner who
changes modes, it begins in couple, and goes on soon."""


@dataclass(frozen=True)
class Trial:
    """A parameter with the words for both of its ends, what they change of the settings, and how late the player begins."""

    parameter: str
    words: tuple[str, str]
    changes: tuple[dict[str, Any], dict[str, Any]]
    late_s: float = 0.0


def trials() -> tuple[Trial, ...]:
    """Return a trial for every setting of the partner, every setting of a voice and every column of a mode."""
    found = [
        Trial(name, (_words(ends[0]), _words(ends[1])), _both(name, ends, BESIDE.get(name, {}))) for name, ends in ENDS.items()
    ]
    for name, ends in VOICE_ENDS.items():
        words = f"{ends[0]:g}", f"{ends[1]:g}"
        found.append(Trial(f"bass.{name}", words, _both(f"bass.{name}", ends, {"voices": "melody,bass,chords"})))
    for column, (like, low, high) in MODE_ENDS.items():
        words, name = (low.strip('"'), high.strip('"')), f"mode: {column}"
        found.append(Trial(name, words, _columns(column, like, (low, high)), LATE_S.get(name, 0.0)))
    return tuple(found)


def _both(name: str, ends: tuple[object, object], beside: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    low, high = ends
    return {**beside, name: low}, {**beside, name: high}


def _columns(column: str, like: str, ends: tuple[str, str]) -> tuple[dict[str, object], dict[str, object]]:
    def changed(value: str) -> dict[str, object]:
        if like != "auto":
            return {"direction": {"mode": "x", "modes": f'[x]\nlike = "{like}"\n{column} = {value}\n'}}
        soon = "" if column == "stay_s" else "stay_s = [1, 2]\n"
        # Shorter phrases, since a mode is left at the end of one.
        table = f'[couple]\nlike = "couple"\nphrase = 0.3\n{soon}{column} = {value}\n'
        return {"direction": {"mode": "auto", "modes": table}}

    return changed(ends[0]), changed(ends[1])


def _words(end: object) -> str:
    if isinstance(end, Mapping):
        return ", ".join(f"{key} {value}" for key, value in end.items()) or "none"
    return f"{end:g}" if isinstance(end, int | float) else str(end or "none")
