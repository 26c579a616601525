"""Whose turn it is: whether the partner may play now, and with which settings.

This is the step before every choice. Modes, phrases and breath come in here: they give the settings that hold now, or the
reason for which the partner keeps silent.
"""

from dataclasses import dataclass

from musichal.partner.settings import PartnerSettings
from musichal.partner.situation import Situation


@dataclass(frozen=True)
class Turn:
    """What the partner may do now.

    `rest` is the reason not to play, one of `musichal.partner.decision.REST_REASONS`; `expected_s` how long that is expected
    to last, where that is known. `mode` is the name of the mode that `settings` come from.
    """

    settings: PartnerSettings
    rest: str | None = None
    expected_s: float | None = None
    mode: str = ""


def take_turn(situation: Situation, settings: PartnerSettings, *, heard_anything: bool) -> Turn:
    """Return the turn of a partner that plays along: it waits for the first sound, and rests when the player does."""
    if not heard_anything:
        return Turn(settings, "waiting")
    if situation.silent_s > settings.rest_after_silence_s:
        return Turn(settings, "silence")
    return Turn(settings)
