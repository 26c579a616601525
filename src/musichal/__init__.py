"""MusicHal: an AI partner for improvising musicians that hears in learned tokens and answers in MIDI.

    >>> import musichal as mh
    >>> y, sr = mh.read_audio(mh.example("band"))
    >>> partner = mh.train((y[: 10 * sr], sr))
    >>> guitar, sr = mh.read_audio(mh.example("guitar"))
    >>> answer = partner.respond(guitar[: 10 * sr], sr, mode="shadow", seed=7)
    >>> print(answer.decisions[-1].reason)  # doctest: +ELLIPSIS
    At ...

Everything here is loaded when it is first used, so that the import is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musichal import evaluate, plot
    from musichal.api.answer import Answer, ExplainedDecision, Source, Stream
    from musichal.api.live import Live
    from musichal.api.partner import Analysis, Partner, analyse, load, train
    from musichal.api.sound import example, read_audio
    from musichal.errors import InputError, MissingExtraError, MusicHalError, PartnerFileError
    from musichal.spec import PerceptionSpec

__version__ = "0.1.0"

__all__ = [
    "Analysis",
    "Answer",
    "ExplainedDecision",
    "InputError",
    "Live",
    "MissingExtraError",
    "MusicHalError",
    "Partner",
    "PartnerFileError",
    "PerceptionSpec",
    "Source",
    "Stream",
    "__version__",
    "analyse",
    "evaluate",
    "example",
    "load",
    "plot",
    "read_audio",
    "train",
]

_PLACES = {
    "api.answer": ("Answer", "ExplainedDecision", "Source", "Stream"),
    "api.live": ("Live",),
    "api.partner": ("Analysis", "Partner", "analyse", "load", "train"),
    "api.sound": ("example", "read_audio"),
    "errors": ("InputError", "MissingExtraError", "MusicHalError", "PartnerFileError"),
    "spec": ("PerceptionSpec",),
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name in ("evaluate", "plot"):
        return import_module(f"musichal.{name}")
    for place, names in _PLACES.items():
        if name in names:
            value = getattr(import_module(f"musichal.{place}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'musichal' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, those not loaded yet too."""
    return sorted(__all__)
