"""Both ends of every setting of the partner, for whoever asks what it does."""

from collections.abc import Mapping
from types import MappingProxyType

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
        "pace": (0.0, 1.0),
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
        "phrasing": {"direction": {"mode": "couple"}},
        "pace_limit": {"pace": 1.0},
        "subdivision": {"quantise": 1.0},
        "pulse_confidence": {"quantise": 1.0},
    }
)
"""What a setting needs beside it to mean anything."""
