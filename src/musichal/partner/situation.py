"""What the player is doing now, as far as the partner's choice depends on it."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32
from musichal.hearing.percepts import SILENCE, Percept
from musichal.partner.settings import PartnerSettings


@dataclass(frozen=True)
class Situation:
    """The player, at one moment.

    `tokens` are the tokens of the last closed gestures, oldest first, one tuple per source; `chroma` (12,) the recent
    chroma, zero before anything was heard; `silent_s` how long nothing audible has been heard.
    """

    now_s: float
    tokens: tuple[tuple[int, ...], tuple[int, ...]]
    chroma: Float32
    silent_s: float


class SituationTracker:
    """Follows the player percept by percept."""

    def __init__(self, settings: PartnerSettings, *, sample_rate_hz: int) -> None:
        self._chroma_s = settings.chroma_s
        self._rate_hz = sample_rate_hz
        self._tokens: tuple[deque[int], deque[int]] = (
            deque(maxlen=settings.memory_gestures),
            deque(maxlen=settings.memory_gestures),
        )
        self._chroma: Float32 = np.zeros(12, dtype=np.float32)
        self._heard_until = 0
        self._audible_until = 0

    def hear(self, percept: Percept) -> None:
        """Take the next percept."""
        heard = percept.heard
        end = heard.start_sample + heard.length_samples
        audible = heard.audible.any(axis=0)
        # Each frame's chroma fades with its age at the end of the segment; silence adds nothing, so the last harmony stays.
        age_s = (end - heard.frame_samples) / self._rate_hz
        weight = np.where(audible, np.exp(-age_s / self._chroma_s), 0).astype(np.float32)
        if audible.any():
            fade = np.float32(np.exp(-(end - self._heard_until) / self._rate_hz / self._chroma_s))
            self._chroma = fade * self._chroma + weight @ heard.chroma
            self._audible_until = int(heard.frame_samples[audible][-1])
        self._heard_until = end
        for gesture in percept.gestures:
            if gesture.tokens == (SILENCE, SILENCE):
                continue
            for kept, token in zip(self._tokens, gesture.tokens, strict=True):
                kept.append(token)

    def at(self, now_s: float) -> Situation:
        """Return the situation at a time, in seconds of the stream."""
        return Situation(
            now_s=now_s,
            tokens=(tuple(self._tokens[0]), tuple(self._tokens[1])),
            chroma=self._chroma.copy(),
            silent_s=max(0.0, now_s - self._audible_until / self._rate_hz),
        )
