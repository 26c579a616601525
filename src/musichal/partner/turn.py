"""One turn: what the partner may do at one moment, with which settings, and what it has in mind."""

from dataclasses import dataclass

from musichal.partner.pulse import Pulse
from musichal.partner.settings import PartnerSettings
from musichal.partner.situation import Situation


@dataclass(frozen=True)
class Step:
    """A state that is to be played, as a part of something that comes back, and what that is in words."""

    state: int
    transposition: int
    words: str


@dataclass(frozen=True)
class Turn:
    """What the partner may do now.

    `situation` is what it answers to: the present, or a moment of the player's phrase that it goes back over. `rest` is the
    reason not to play, one of `musichal.partner.decision.REST_REASONS`; `expected_s` how long that is expected to last, where
    that is known, and `again_s` when to look again if nothing happens before. A rest that `keeps_phrase` is one inside a
    phrase. `mode` is the name of the mode that `settings` come from.

    Of a turn to play: `phrase` counts the partner's phrases, and this state `begins` it, should `close` it, or is the `last` of
    all; `step` is what must be played; `stretch` is how much longer than recorded it is to last; `gain_db` what form and fade
    make it louder; `pulse` what notes move onto; `answers` the stretch of the player's past that it answers, and `recall` the
    moment of that which it goes back to now, as it was; `at_once` lets the state's first note sound without waiting; `until_s`
    is when the next state must begin.
    """

    settings: PartnerSettings
    situation: Situation
    rest: str | None = None
    expected_s: float | None = None
    again_s: float | None = None
    keeps_phrase: bool = False
    mode: str = ""
    phrase: int = 0
    begins: bool = False
    closes: bool = False
    last: bool = False
    step: Step | None = None
    stretch: float = 1.0
    gain_db: float = 0.0
    pulse: Pulse | None = None
    recall: Situation | None = None
    answers: tuple[float, float] | None = None
    at_once: bool = False
    until_s: float | None = None
