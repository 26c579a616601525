"""The beat network: how likely a step of evidence is a beat, half a beat, or a bar's first beat.

One gated recurrent layer (Cho et al., EMNLP 2014) reads evidence forwards only, as in Böck, Krebs & Widmer, ISMIR 2014.
`tools/train_beats.py` trained it, on rendered songs of known beats, to answer `DELAY_S` late, when the attack has been heard
whole.
"""

from functools import cache
from importlib.resources import files

import numpy as np
from safetensors.numpy import load

from musichal.arrays import Float32
from musichal.hearing.beat_evidence import STEP_S

DELAY_S = 2 * STEP_S


@cache
def _weights() -> tuple[Float32, ...]:
    kept = load((files("musichal.hearing") / "beat_model.safetensors").read_bytes())
    return tuple(kept[name] for name in ("input", "recurrent", "input_bias", "recurrent_bias", "output", "output_bias"))


class BeatNetwork:
    """Turns steps of evidence into probabilities."""

    def __init__(self) -> None:
        self._state: Float32 = np.zeros(_weights()[1].shape[0], dtype=np.float32)

    def push(self, evidence: Float32) -> Float32:
        """Take the next steps (n, kinds); return probabilities (n, 3): of a beat, of half a beat, of a bar's first beat."""
        inward, recurrent, inward_bias, recurrent_bias, outward, outward_bias = _weights()
        size = len(self._state)
        # One step at a time, so that a result does not depend on how many come at once.
        states = np.empty((len(evidence), size), dtype=np.float32)
        for number, step in enumerate(evidence):
            drive = step @ inward + inward_bias
            own = self._state @ recurrent + recurrent_bias
            gates = 1 / (1 + np.exp(-(drive[: 2 * size] + own[: 2 * size])))
            new = np.tanh(drive[2 * size :] + gates[:size] * own[2 * size :])
            self._state = states[number] = new + gates[size:] * (self._state - new)
        logits = np.array([state @ outward + outward_bias for state in states]).reshape(-1, outward.shape[1])
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
