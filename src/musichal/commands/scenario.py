"""`musichal play --scenario`: the file that names what the partner is to follow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musichal.errors import InputError
from musichal.hearing.percepts import SOURCES
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.scenario import Scenario, parse_scenario
from musichal.text import printable, read_text


def read_scenario(path: Path, partner: Path) -> Scenario:
    """Return the scenario of a file (see `parse_scenario`); a partner that it names lies relative to it.

    Raises
    ------
    InputError
        If the file cannot be read, or is no scenario; if it names another partner's recording, and that partner has other
        vocabularies, so that its tokens mean nothing to this one.
    """
    text = read_text(path)

    def tokens_of(recording: str | int, other: str | None, source: str) -> Sequence[int]:
        model = load_partner(partner)
        if other is not None:
            own, model = model, load_partner(path.parent / other)
            if not _hear_alike(own, model):
                raise InputError(
                    f"{printable(Path(other))} hears in other sounds than {printable(partner)}: train both together"
                )
        return recording_tokens(model, recording, source)

    try:
        return parse_scenario(text, tokens_of)
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from error


def recording_tokens(model: PartnerModel, recording: str | int, source: str) -> list[int]:
    """Return the tokens of one source of a recording's gestures, in order; the recording by its name or number."""
    names = [r.name for r in model.recordings]
    if isinstance(recording, str):
        if recording not in names:
            raise InputError(f"there is no recording {recording!r}; there are: {', '.join(names)}")
        recording = names.index(recording)
    if not 0 <= recording < len(names):
        raise InputError(f"there is no recording {recording}; there are {len(names)}, counted from 0")
    states = model.memory.states
    tokens: list[int] = states["tokens"][states["recording"] == recording, SOURCES.index(source)].tolist()
    return tokens


def _hear_alike(one: PartnerModel, other: PartnerModel) -> bool:
    return one.spec == other.spec and all(
        np.array_equal(a.centres, b.centres) for a, b in zip(one.vocabularies, other.vocabularies, strict=True)
    )
