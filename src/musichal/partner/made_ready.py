"""What a partner makes of a large memory before it plays is made once and kept on this machine (`musichal.memory.ready`)."""

import gc
from collections.abc import Callable

from musichal.memory.container import read_container
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel, keep_partner, load_with_digest, save_partner
from musichal.memory.ready import KEPT_FROM, name_of
from musichal.partner.expectation import harmonic_cells
from musichal.partner.memory_pool import MemorySegment, has_beats, token_counts, usual_ioi_s
from musichal.partner.phrases import find_phrases
from musichal.partner.room_pulse import beat_habit
from musichal.partner.timing import struck_places
from musichal.text import PathLike

_DERIVED: tuple[Callable[[Memory], object], ...] = (
    MemorySegment,
    find_phrases,
    harmonic_cells,
    beat_habit,
    struck_places,
    usual_ioi_s,
    has_beats,
    token_counts,
)


def save_ready(path: PathLike, model: PartnerModel) -> None:
    """Write a partner file, as `save_partner` does, and make it ready here."""
    save_partner(path, model)
    make_ready(read_container(path).digest, model)


def load_ready(path: PathLike) -> PartnerModel:
    """Load a partner, as `load_partner` does, and make it ready here."""
    model, digest = load_with_digest(path)
    make_ready(digest, model)
    return model


def make_ready(digest: str, model: PartnerModel, *, least: int = KEPT_FROM) -> None:
    """Keep what takes long to make of the partner whose file has this digest, if its memory is large."""
    memory = model.memory
    if memory.kept is not None or len(memory) < least:
        return
    segment = memory.derived(MemorySegment)
    for one in (segment, *([segment.players.segment] if segment.players else [])):
        for index in (*one.memory.indexes, one.rhythm, one.contour):
            index.compact()
        _ = one.pasts
    keep_partner(digest, model, {name_of(make): memory.derived(make) for make in _DERIVED})
    gc.collect()
