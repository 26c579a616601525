"""What the partner is about at a moment, for those who show it: its mode and who chose it, and where the form is."""

import math
from dataclasses import dataclass
from typing import Literal

from musichal.partner.form import FormPlace
from musichal.partner.mode_controller import ModeController
from musichal.pulse import Pulse


@dataclass(frozen=True, kw_only=True)
class PartnerStatus:
    """The partner at one moment.

    `mode_left_s` is how long it stays in the mode at least, where it changes modes itself; `waits_for_pauses` says that the
    mode plays only once the player pauses.
    """

    mode: str = ""
    chosen_by: Literal["you", "the form", "auto"] = "you"
    mode_left_s: float | None = None
    waits_for_pauses: bool = False
    paused: bool = False
    form: FormPlace | None = None
    pulse: Pulse | None = None


def partner_status(modes: ModeController, now_s: float, pulse: Pulse | None) -> PartnerStatus:
    """Return the status at a time, where it goes by a pulse; nothing is changed by asking."""
    course, keeper, mode = modes.course, modes.keeper, modes.mode
    form = course.place(now_s)
    by_form = keeper is not None and not keeper.user_override and course.at(now_s).mode is not None
    left_s = math.inf if keeper is None or by_form else keeper.until_s - now_s
    wanders = keeper is not None and math.isfinite(keeper.until_s)
    return PartnerStatus(
        mode=mode.name,
        chosen_by="the form" if by_form else "auto" if wanders else "you",
        mode_left_s=max(0.0, left_s) if math.isfinite(left_s) else None,
        waits_for_pauses=mode.turn == "answer" or mode.trigger == "phrase end",
        paused=course.paused,
        form=form,
        pulse=pulse,
    )
