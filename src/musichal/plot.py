"""Pictures, as matplotlib figures: ``mh.plot.performance(answer)``."""

from typing import TYPE_CHECKING

from musichal.api.answer import Answer
from musichal.api.partner import Partner

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def performance(answer: Answer) -> "Figure":
    """Draw a player, the tokens heard, the decisions and the answer on one time axis.

    Parameters
    ----------
    answer : Answer

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import musichal as mh
    >>> y, sr = mh.read_audio(mh.example("band"))
    >>> partner = mh.train((y[: 10 * sr], sr))
    >>> figure = mh.plot.performance(partner.respond(y[: 5 * sr], sr))
    >>> len(figure.axes) > 2
    True
    """
    return answer.to_figure()


def partner(partner: Partner) -> "Figure":
    """Draw what a partner learned: its recordings, their tokens and notes, and what repeats.

    Parameters
    ----------
    partner : Partner

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import musichal as mh
    >>> y, sr = mh.read_audio(mh.example("band"))
    >>> figure = mh.plot.partner(mh.train((y[: 10 * sr], sr)))
    >>> len(figure.axes) > 2
    True
    """
    from musichal.plots.partner import draw_partner

    return draw_partner(partner.model)
