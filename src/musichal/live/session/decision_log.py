"""The decisions of a session, left on the disk: a performance may last hours, and a decision takes kilobytes in memory.

A line with ``"as"`` is another voice of the choice on the line before, and holds only what differs from that.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

from musichal.audio.session_input import whole_lines
from musichal.errors import InputError
from musichal.partner.decision import Decision
from musichal.text import printable

_ANOTHER_VOICE = b'{"as":'


class DecisionLog(Sequence[Decision]):
    """The decisions in a file, each read when it is asked for; without a file there are none.

    Raises `InputError` for a line that is no decision. A last line that was cut off is left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts, self._wholes = array("q", [0]), array("q")  # of each line; the line that it refers to
        before: Decision | None = None
        for number, line in whole_lines(path):
            before = _decision(path, number, line, before)
            self._wholes.append(self._wholes[-1] if line.startswith(_ANOTHER_VOICE) else number - 1)
            self._starts.append(self._starts[-1] + len(line) + 1)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._wholes)

    def __iter__(self) -> Iterator[Decision]:
        """Yield them in order, one in memory at a time."""
        return self._from(0)

    @overload
    def __getitem__(self, place: int) -> Decision: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Decision]: ...
    def __getitem__(self, place: int | slice) -> Decision | Sequence[Decision]:
        """Return the decision at a place, or those at several."""
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        number = range(len(self))[place]
        first = self._wholes[number]
        return next(islice(self._from(first), number - first, None))

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence holds the same decisions."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _from(self, first: int) -> Iterator[Decision]:
        number = first
        for number, decision in enumerate(read_decisions(self._path, start=self._starts[first]), start=first + 1):
            if number > len(self):
                return
            yield decision
        if number < len(self):
            raise InputError(f"{printable(self._path)} lost lines while it was read")


def read_decisions(path: Path, *, start: int = 0) -> Iterator[Decision]:
    """Yield the decisions of a file from byte `start` on, one in memory at a time; raise `InputError` for a damaged line."""
    decision: Decision | None = None
    for number, line in whole_lines(path, start=start):
        decision = _decision(path, number, line, decision)
        yield decision


def _decision(path: Path, number: int, line: bytes, before: Decision | None) -> Decision:
    try:
        return Decision.from_json(line.decode(errors="replace"), before)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{printable(path)}: line {number} is not a decision") from error
