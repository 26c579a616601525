"""The transcript: exactly what reached a partner on stage, and at which sample of the stream.

Live, a segment is heard a little after it is complete, or skipped; so what a partner decides depends on when things reached
it. The transcript holds that. Whoever gives the same entries to the same `EventLoop` gets the same decisions.

Conventions
-----------
Samples are those of the clock, at the spec's rate; entries are in the order in which they happened, and their samples never
go back. One entry is one line of JSON, ``{"at": sample, ...}``.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from musichal.hearing.percepts import Onset, Percept
from musichal.memory.container import parse_json
from musichal.partner.decision import Decision

StageControl = Literal["mute", "unmute", "panic", "listen", "deaf"]
STAGE_CONTROLS: tuple[StageControl, ...] = ("mute", "unmute", "panic", "listen", "deaf")


@dataclass(frozen=True)
class Struck:
    """An onset reached the partner."""

    at_sample: int
    onset: Onset


@dataclass(frozen=True)
class Perceived:
    """Percept number `index` reached the partner; `digest` is that of what was heard."""

    at_sample: int
    index: int
    digest: str


@dataclass(frozen=True)
class Skipped:
    """Segment number `index` was not heard.

    Hearing was `late`, or the player had it stop listening (`deaf`), or it lies in a long gap of the input (`lost`).
    """

    at_sample: int
    index: int
    why: Literal["late", "deaf", "lost"]


@dataclass(frozen=True)
class Changed:
    """The player changed something by hand, and the partner took it."""

    at_sample: int
    changes: Mapping[str, object]


@dataclass(frozen=True)
class Staged:
    """Something that concerns the stage and not the partner."""

    at_sample: int
    control: StageControl


@dataclass(frozen=True)
class Lost:
    """`samples` of the input, at its own rate, never came; silence stands for them in the recording, if not `left_out`."""

    at_sample: int
    samples: int
    left_out: bool = False


@dataclass(frozen=True)
class Ended:
    """The performance was closed in order; nothing is decided behind it.

    On stage, what sounds is ended there. Offline the stream itself is over, with the last of what the light path held back,
    and what was decided `plays_out`.
    """

    at_sample: int
    plays_out: bool = False


Entry = Struck | Perceived | Skipped | Changed | Staged | Lost | Ended


def percept_digest(percept: Percept) -> str:
    """Return a digest of what a partner can tell of a percept: its frames, tokens, gestures, onsets and notes in place."""
    heard = percept.heard
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.ascontiguousarray(percept.tokens).tobytes())
    digest.update(np.ascontiguousarray(heard.frame_samples).tobytes())
    places = [
        [g.tokens for g in percept.gestures],
        [round(g.start_s, 6) for g in percept.gestures],
        list(heard.onset_samples),
        [(n.pitch, n.velocity) for n in heard.notes],
    ]
    digest.update(json.dumps(places).encode())
    return digest.hexdigest()


def percept_to_json(percept: Percept) -> str:
    """Return what was heard of a segment as one line of JSON."""
    heard = percept.heard
    values = {
        "index": heard.index,
        "start_sample": heard.start_sample,
        "length_samples": heard.length_samples,
        "available_at": heard.available_at,
        "tokens": percept.tokens.tolist(),
        "level_db": [round(float(level), 1) for level in heard.level_db],
        "onset_samples": list(heard.onset_samples),
    }
    return json.dumps(values, allow_nan=False, separators=(",", ":"))


def entries_of(onsets: Iterable[Onset], percepts: Iterable[Percept]) -> list[Entry]:
    """Return what was heard as entries, in the order in which a `EventLoop` takes it on the virtual clock."""
    entries: list[Struck | Perceived] = [Struck(onset.decided_at, onset) for onset in onsets]
    entries += [Perceived(p.heard.available_at, p.heard.index, percept_digest(p)) for p in percepts]
    return sorted(entries, key=lambda entry: entry.at_sample)


def entry_to_json(entry: Entry) -> str:
    """Return an entry as one line of JSON."""
    values: dict[str, object] = {"at": entry.at_sample}
    match entry:
        case Struck(_, onset):
            values["onset"] = [onset.sample, onset.decided_at]
        case Perceived(_, index, digest):
            values |= {"percept": index, "digest": digest}
        case Skipped(_, index, why):
            values |= {"skipped": index, "why": why}
        case Changed(_, changes):
            values["change"] = dict(changes)
        case Staged(_, control):
            values["stage"] = control
        case Lost(_, samples, left_out):
            values |= {"lost": samples, "left_out": left_out}
        case Ended(_, plays_out):
            values |= {"end": True, "plays_out": plays_out}
    return json.dumps(values, allow_nan=False, separators=(",", ":"))


def entry_from_json(line: str) -> Entry:
    """Return the entry that `entry_to_json` wrote; raises `ValueError` for anything else."""
    values = parse_json(line.encode(), max_depth=6)
    if not isinstance(values, dict):
        raise ValueError("not an entry of a transcript")
    at = _whole(values.get("at"))
    for name, read in _READERS.items():
        if name in values:
            return read(at, values)
    raise ValueError("an unknown entry")


def _struck(at: int, values: dict[str, Any]) -> Struck:
    onset = values["onset"]
    if not isinstance(onset, list) or len(onset) != 2:
        raise ValueError("an onset is a pair of samples")
    return Struck(at, Onset(_whole(onset[0]), _whole(onset[1])))


def _perceived(at: int, values: dict[str, Any]) -> Perceived:
    return Perceived(at, _whole(values["percept"]), str(values.get("digest", "")))


def _skipped(at: int, values: dict[str, Any]) -> Skipped:
    why = values.get("why")
    if why not in ("late", "deaf", "lost"):
        raise ValueError("a segment is skipped because hearing is late or deaf, or its sound lost")
    return Skipped(at, _whole(values["skipped"]), why)


def _changed(at: int, values: dict[str, Any]) -> Changed:
    if not isinstance(values["change"], dict):
        raise ValueError("a change has names and values")
    return Changed(at, values["change"])


def _staged(at: int, values: dict[str, Any]) -> Staged:
    if values["stage"] not in STAGE_CONTROLS:
        raise ValueError("an unknown control of the stage")
    return Staged(at, values["stage"])


def _lost(at: int, values: dict[str, Any]) -> Lost:
    return Lost(at, _whole(values["lost"]), values.get("left_out") is True)


def _ended(at: int, values: dict[str, Any]) -> Ended:
    return Ended(at, values.get("plays_out") is True)


_READERS: Mapping[str, Callable[[int, dict[str, Any]], Entry]] = {
    "onset": _struck,
    "percept": _perceived,
    "skipped": _skipped,
    "change": _changed,
    "stage": _staged,
    "lost": _lost,
    "end": _ended,
}


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError("a count must be a whole number")
    return value


def as_sounded(decisions: Iterable[Decision], entries: Iterable[Entry], *, sample_rate_hz: int) -> Iterator[Decision]:
    """Yield decisions with their notes as far as they sounded: mute, panic and the end taken into account.

    While muted, nothing is struck and nothing goes on sounding. A panic ends what sounds and drops what had been decided; so
    does the end of a performance that does not play out.
    """
    cuts = [
        (entry.at_sample / sample_rate_hz, entry.control if isinstance(entry, Staged) else "panic")
        for entry in entries
        if isinstance(entry, Staged) or (isinstance(entry, Ended) and not entry.plays_out)
    ]
    silences = _muted_spans(cuts)
    panics = [at_s for at_s, control in cuts if control == "panic"]
    ends = sorted([*panics, *(first for first, _ in silences)])
    for decision in decisions:
        notes = []
        for note in decision.notes:
            muted = any(first <= note.onset_s < last for first, last in silences)
            dropped = any(decision.time_s < at_s <= note.onset_s for at_s in panics)
            if muted or dropped:
                continue
            end_s = min([at_s for at_s in ends if at_s > note.onset_s], default=math.inf)
            cut = end_s < note.onset_s + note.duration_s
            notes.append(replace(note, duration_s=end_s - note.onset_s) if cut else note)
        yield replace(decision, notes=tuple(notes))


def _muted_spans(cuts: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    spans, since = [], None
    for at_s, control in cuts:
        if control == "mute" and since is None:
            since = at_s
        elif control == "unmute" and since is not None:
            spans.append((since, at_s))
            since = None
    return spans if since is None else [*spans, (since, math.inf)]
