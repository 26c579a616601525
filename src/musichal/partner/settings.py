"""How the partner plays: weights, limits, filters. Nothing here changes how it hears."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from musichal.errors import InputError

_LARGEST = 1_000_000
"""No setting means anything beyond this."""


@dataclass(frozen=True, kw_only=True)
class PartnerSettings:
    """Settings of a performance; each changes what is played.

    Parameters
    ----------
    harmonic_weight, percussive_weight, chroma_weight, continuity_weight : float
        Weight of each influence on a candidate's score.
    min_context : int
        Shortest token context that makes a place in memory a candidate.
    max_candidates : int
        How many places per token stream are weighed.
    chroma_candidates : int
        How many places are weighed because their harmony fits best, whatever came before them.
    no_repeat : int
        A state is not jumped to while it is among the last so many states played.
    max_run : int
        After so many states in recorded order the partner must jump.
    noteless_factor : float
        What the score of a state without a note is multiplied by, at most 1, in a memory that has notes.
    rest_below : float
        How much of what the player can speak for a candidate (tokens and chroma, without continuity) must be there.
    rest_after_silence_s : float
        It rests once the player has been silent for so long.
    max_transposition : int
        Largest transposition in semitones, up or down.
    transposition_penalty : float
        What each semitone of transposition takes off the chroma influence.
    temperature : float
        0 takes the best candidate; above, candidates are drawn with probability exp(score / temperature).
    memory_gestures : int
        How many of the player's gestures are remembered for matching.
    chroma_s : float
        Time constant of the chroma that candidates are fitted to.
    """

    harmonic_weight: float = 1.2
    percussive_weight: float = 0.6
    chroma_weight: float = 1.0
    continuity_weight: float = 0.9
    min_context: int = 1
    max_candidates: int = 48
    chroma_candidates: int = 16
    no_repeat: int = 24
    max_run: int = 24
    noteless_factor: float = 0.7
    rest_below: float = 0.15
    rest_after_silence_s: float = 2.0
    max_transposition: int = 6
    transposition_penalty: float = 0.03
    temperature: float = 0.03
    memory_gestures: int = 32
    chroma_s: float = 1.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= _LARGEST:  # not so for NaN either
                raise InputError(f"partner setting {name} must be a number from 0 to {_LARGEST}, not {value:.6g}")
        if self.noteless_factor > 1:
            raise InputError(f"partner setting noteless_factor must be at most 1, not {self.noteless_factor}")
        if self.max_transposition > 6:
            raise InputError(f"partner setting max_transposition must be at most 6, not {self.max_transposition}")
        if min(self.min_context, self.max_candidates, self.max_run, self.memory_gestures) < 1:
            raise InputError("partner settings min_context, max_candidates, max_run and memory_gestures start at 1")
        if self.chroma_s == 0 or not self.total_weight:
            raise InputError("partner setting chroma_s must be positive, and so must one of the weights")

    @property
    def total_weight(self) -> float:
        """Return the score of a candidate that fits in every way."""
        return self.harmonic_weight + self.percussive_weight + self.chroma_weight + self.continuity_weight

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return settings from `to_dict`'s values; InputError names what is unknown or of the wrong type."""
        known: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise InputError(f"unknown partner setting {name!r}; there are: {', '.join(known)}")
            allowed = int if isinstance(known[name], int) else int | float
            if isinstance(value, bool) or not isinstance(value, allowed):
                kind = "a whole number" if isinstance(known[name], int) else "a number"
                raise InputError(f"partner setting {name} must be {kind} like {known[name]}, not {value!r}")
            if isinstance(value, int) and abs(value) > _LARGEST:  # before it is made a float, which may be too small for it
                raise InputError(f"partner setting {name} must be a number from 0 to {_LARGEST}")
        return cls(**{name: type(known[name])(value) for name, value in values.items()})
