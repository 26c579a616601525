"""The event log: what reached the partner, and at which sample of the stream.

Live, a segment is heard a little after it is complete, or skipped, so decisions depend on when events reach the partner.
The log keeps that: the same entries given to the same `EventLoop` give the same decisions.

Conventions
-----------
Samples count at the spec's rate. Entries are in the order in which they happened; their samples never decrease. One entry
is one line of JSON, ``{"at": sample, ...}``.
"""

import hashlib
import json
import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, overload

import numpy as np

from musichal.audio.midi_take import Control, count_of, played_of
from musichal.audio.session_input import whole_lines
from musichal.errors import InputError
from musichal.hearing.percepts import Onset, Percept
from musichal.note import HeardNote, Note, Slice
from musichal.partner.decision import Decision
from musichal.text import parse_json, printable

Piece = TypeVar("Piece", Note, Slice)

_LONGEST_S = 1e6
StageControl = Literal["mute", "unmute", "panic", "pause", "listen", "deaf"]
STAGE_CONTROLS: tuple[StageControl, ...] = get_args(StageControl)
_LAST_DIGIT_S = 1e-7


@dataclass(frozen=True)
class Struck:
    """An onset reached the partner."""

    at_sample: int
    onset: Onset


@dataclass(frozen=True)
class Played:
    """Notes and drum hits of a MIDI player ended: they are part of the next percept, in the place of those heard.

    `controls` are its other messages; nothing hears them.
    """

    at_sample: int
    notes: tuple[HeardNote, ...]
    hits: tuple[HeardNote, ...] = ()
    controls: tuple[Control, ...] = ()


@dataclass(frozen=True)
class Perceived:
    """Percept number `index` reached the partner; `digest` is its `percept_digest`."""

    at_sample: int
    index: int
    digest: str


@dataclass(frozen=True)
class Skipped:
    """Segment number `index` was not heard: hearing was `late`, switched off (`deaf`), or the input had a gap (`lost`)."""

    at_sample: int
    index: int
    why: Literal["late", "deaf", "lost"]


@dataclass(frozen=True)
class Changed:
    """The player changed settings, and the partner took them."""

    at_sample: int
    changes: Mapping[str, object]


@dataclass(frozen=True)
class Staged:
    """A control of the output, not of the partner."""

    at_sample: int
    control: StageControl


@dataclass(frozen=True)
class Marked:
    """The player marked this moment, with a few words or none."""

    at_sample: int
    text: str = ""


@dataclass(frozen=True)
class Lost:
    """`samples` of the input, at its own rate, never arrived. Silence replaces them in the recording unless `left_out`."""

    at_sample: int
    samples: int
    left_out: bool = False


@dataclass(frozen=True)
class Ended:
    """The performance was closed in order; nothing is decided after it.

    Live, sounding notes end here. Offline the stream is over, and what was decided `plays_out`.
    """

    at_sample: int
    plays_out: bool = False


Entry = Struck | Played | Perceived | Skipped | Changed | Staged | Marked | Lost | Ended


def percept_digest(percept: Percept) -> str:
    """Return a digest of everything a partner uses of a percept: frames, tokens, gestures, onsets, notes and hits."""
    heard = percept.heard
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.ascontiguousarray(percept.tokens).tobytes())
    digest.update(np.ascontiguousarray(heard.frame_samples).tobytes())
    places = [
        [g.tokens for g in percept.gestures],
        [round(g.start_s, 6) for g in percept.gestures],
        list(heard.onset_samples),
        [(n.pitch, n.velocity) for n in heard.notes],
        *([[(h.pitch, h.velocity) for h in heard.hits]] if heard.hits else []),
    ]
    digest.update(json.dumps(places).encode())
    return digest.hexdigest()


def percept_to_json(percept: Percept) -> str:
    """Return what was heard of a segment as one line of JSON."""
    heard = percept.heard
    return to_line(
        {
            "index": heard.index,
            "start_sample": heard.start_sample,
            "length_samples": heard.length_samples,
            "available_at": heard.available_at,
            "tokens": percept.tokens.tolist(),
            "level_db": [round(float(level), 1) for level in heard.level_db],
            "onset_samples": list(heard.onset_samples),
            **notes_and_chroma(percept),
        }
    )


def notes_and_chroma(percept: Percept) -> dict[str, Any]:
    """Return what is kept to be looked at: the notes that ended (onset, duration, pitch, velocity), and the mean chroma.

    Chroma is in fifteenths of its strongest bin, and times are rounded to milliseconds, a half always up: so processors that
    compute a last digit otherwise write the same.
    """
    heard = percept.heard
    chroma = heard.chroma.mean(axis=0) if len(heard.chroma) else np.zeros(0)
    return {
        "notes": [[_milliseconds(n.onset_s), _milliseconds(n.duration_s), n.pitch, n.velocity] for n in heard.notes],
        "chroma": np.rint(15 * chroma / max(float(chroma.max(initial=0)), 1e-9)).astype(int).tolist(),
    }


def _milliseconds(time_s: float) -> float:
    return round(time_s + _LAST_DIGIT_S, 3)


def to_line(values: Mapping[str, Any]) -> str:
    """Return values as one line of JSON."""
    return json.dumps(values, allow_nan=False, separators=(",", ":"))


def entries_of(onsets: Iterable[Onset], percepts: Iterable[Percept], *, known: bool = False) -> list[Entry]:
    """Return entries in the order in which an offline `EventLoop` takes them; `known` notes are those of a MIDI player."""
    entries: list[Struck | Played | Perceived] = [Struck(onset.decided_at, onset) for onset in onsets]
    for percept in percepts:
        heard = percept.heard
        if known:
            entries.append(Played(heard.available_at, heard.notes, heard.hits))
        entries.append(Perceived(heard.available_at, heard.index, percept_digest(percept)))
    return sorted(entries, key=lambda entry: entry.at_sample)


def entry_to_json(entry: Entry) -> str:
    """Return an entry as one line of JSON."""
    values: dict[str, object] = {}
    match entry:
        case Struck(_, onset):
            values = {"onset": [onset.sample, onset.decided_at, *onset.pitches], **({"drum": True} if onset.is_drum else {})}
        case Played(_, notes, hits, controls):
            lists = {"notes": notes, "hits": hits}
            values = {k: [[n.onset_s, n.duration_s, n.pitch, n.velocity] for n in some] for k, some in lists.items()}
            if controls:
                values["controls"] = [[control.time_s, *control.data] for control in controls]
        case Perceived(_, index, digest):
            values = {"percept": index, "digest": digest}
        case Skipped(_, index, why):
            values = {"skipped": index, "why": why}
        case Changed(_, changes):
            values = {"change": dict(changes)}
        case Staged(_, control):
            values = {"stage": control}
        case Marked(_, text):
            values = {"mark": text}
        case Lost(_, samples, left_out):
            values = {"lost": samples, "left_out": left_out}
        case Ended(_, plays_out):
            values = {"end": True, "plays_out": plays_out}
    return to_line({"at": entry.at_sample, **values})


def entry_from_json(line: str) -> Entry:
    """Return the entry that `entry_to_json` wrote; raise `ValueError` for anything else."""
    values = parse_json(line.encode(), max_depth=6)
    if not isinstance(values, dict):
        raise ValueError("not an object")
    at = count_of(values.get("at"))
    entry: Entry
    match values:
        case {"onset": [sample, decided_at, *pitches]}:
            keys = tuple(count_of(p, 127) for p in pitches)
            entry = Struck(at, Onset(count_of(sample), count_of(decided_at), keys, values.get("drum") is True))
        case {"notes": [*notes]}:
            entry = Played(at, *played_of(notes, values))
        case {"percept": index}:
            entry = Perceived(at, count_of(index), str(values.get("digest", "")))
        case {"skipped": index, "why": "late" | "deaf" | "lost" as why}:
            entry = Skipped(at, count_of(index), why)
        case {"change": dict(changes)}:
            entry = Changed(at, changes)
        case {"stage": control} if control in STAGE_CONTROLS:
            entry = Staged(at, control)
        case {"mark": str(text)}:
            entry = Marked(at, text)
        case {"lost": samples}:
            entry = Lost(at, count_of(samples), values.get("left_out") is True)
        case {"end": _}:
            entry = Ended(at, values.get("plays_out") is True)
        case _:
            raise ValueError("unknown kind of entry, or a value of the wrong type")
    return entry


class Silences:
    """When mute, panic, pause and the end let nothing sound.

    While muted, nothing starts or goes on. A panic ends what sounds and drops what was decided before it, and so do a pause and
    an end that does not play out.
    """

    def __init__(self, entries: Iterable[Entry], *, sample_rate_hz: int) -> None:
        self._mutes: list[float] = []  # muted from each even place to the odd one after it
        self._panics: list[float] = []
        for entry in entries:
            at_s = entry.at_sample / sample_rate_hz
            if isinstance(entry, Ended):
                self._panics += [] if entry.plays_out else [at_s]
            elif isinstance(entry, Staged) and entry.control in ("panic", "pause"):
                self._panics.append(at_s)
            elif isinstance(entry, Staged) and entry.control == ("unmute" if len(self._mutes) % 2 else "mute"):
                self._mutes.append(at_s)
        self._ends = [*sorted([*self._panics, *self._mutes[::2]]), math.inf]

    def sounded(self, piece: Piece, decided_s: float) -> Piece | None:
        """Return what sounded of a note or slice that was decided then; None where nothing did."""
        dropped = bisect_right(self._panics, decided_s) < bisect_right(self._panics, piece.onset_s)
        if dropped or bisect_right(self._mutes, piece.onset_s) % 2:
            return None
        end_s = self._ends[bisect_right(self._ends, piece.onset_s)]
        cut = end_s < piece.onset_s + piece.duration_s
        return replace(piece, duration_s=end_s - piece.onset_s) if cut else piece


def as_sounded(decisions: Iterable[Decision], entries: Iterable[Entry], *, sample_rate_hz: int) -> Iterator[Decision]:
    """Yield decisions with the notes that really sounded, see `Silences`."""
    silences = Silences(entries, sample_rate_hz=sample_rate_hz)
    for decision in decisions:
        notes = (silences.sounded(note, decision.time_s) for note in decision.notes)
        yield replace(decision, notes=tuple(note for note in notes if note is not None))


# ── decisions, left on the disk ──────────────────────────────────────────────

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
