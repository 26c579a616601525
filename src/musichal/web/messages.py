"""What the page is told: each event of a performance as one message, a table of JSON values.

Live, the messages come one by one; of a session, all of them are made from its files. The page draws both by the same
functions. A message has a kind, ``k``, and times in seconds of the stream:

=============  ==================================================================================================
``hello``      what is played and how: recordings, modes, settings, parameters, commands, form (`hello`)
``entry``      an entry of the event log (``at``): ``onset``, ``stage``, ``change``, ``mark``, ``skipped``, ``lost``, ``end``
``percept``    a segment of what was heard: tokens, levels, notes, mean chroma
``decision``   a decision's whole record, with its reason in words (``words``) and in short (``short``)
``level``      the level of the input, twenty times a second; it carries the time of the stream (``at``)
``stage``      what a player wants to know at a glance, four times a second
``drift``, ``event``, ``statistics``   as observers of the engine get them
=============  ==================================================================================================
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from musichal.hearing.percepts import Percept
from musichal.live.control import COMMANDS_HELP, DISPLAY_COMMANDS, KEYS
from musichal.live.drift import DriftReport
from musichal.live.session.event_log import Changed, Ended, Entry, Lost, Marked, Skipped, Staged, Struck, notes_and_chroma
from musichal.live.session.session import DRIFT, EVENTS, PERCEPTS, Session
from musichal.live.stage import DOES, StageState
from musichal.parameters import NUMBERS, VOICE_NUMBERS, WORDS
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain, short_reason
from musichal.partner.mode_controller import directed_by
from musichal.partner.modes import AUTO
from musichal.partner.settings import VOICES, PartnerSettings
from musichal.text import parse_json

Message = dict[str, Any]


def hello(settings: PartnerSettings, *, recordings: Sequence[Mapping[str, object]], **more: object) -> Message:
    """Return the first message: what is played, by which settings, and what can be changed.

    `recordings` have a ``name`` and a ``duration_s``; `more` holds further values, such as ``live`` and ``title``.
    """
    modes, form = directed_by(settings.direction)
    numbers = {name: getattr(settings, name) for name in NUMBERS}
    voices = [voice.name for voice in settings.voices]
    return {
        "k": "hello",
        "recordings": list(recordings),
        "mode": settings.direction.mode or AUTO,
        "modes": [{"name": name, "about": mode.about} for name, mode in modes.items()],
        "settings": {**numbers, "time": settings.time, "voices": ", ".join(voices)},
        "parameters": [p.to_dict() | {"ends": list(p.ends)} for p in (*NUMBERS.values(), *WORDS.values())],
        "voice_parameters": [p.to_dict() for p in VOICE_NUMBERS.values()],
        "voices": voices,
        "all_voices": [voice.name for voice in VOICES],
        "commands": dict(COMMANDS_HELP),
        "keys": {key: name for key, name in KEYS.items() if name not in DISPLAY_COMMANDS},
        "does": dict(DOES),
        "form": {"title": form.title, "end_s": form.end_s, "sections": [dataclasses.asdict(s) for s in form.sections]},
        **more,
    }


def decision_message(decision: Decision, names: Sequence[str]) -> Message:
    """Return a decision's message; `names` are those of the recordings."""
    record = json.loads(decision.to_json())
    return {"k": "decision", **record, "words": explain(decision, names), "short": short_reason(decision)}


def entry_message(entry: Entry, sample_rate_hz: int) -> Message | None:
    """Return the message of an entry of the event log, None where the page does not need it."""
    values: Message
    match entry:
        case Struck(_, onset):
            values = {"onset": onset.sample / sample_rate_hz}
        case Changed(_, changes):
            values = {"change": dict(changes)}
        case Staged(_, control):
            values = {"stage": control}
        case Marked(_, text):
            values = {"mark": text}
        case Skipped(_, _, why):
            values = {"skipped": why}
        case Lost(_, samples):
            values = {"lost": samples}
        case Ended():
            values = {"end": True}
        case _:
            return None
    return {"k": "entry", "at": entry.at_sample / sample_rate_hz, **values}


def percept_message(percept: Percept, sample_rate_hz: int) -> Message:
    """Return the message of a percept."""
    heard = percept.heard
    return {
        "k": "percept",
        "at": round(heard.start_sample / sample_rate_hz, 3),
        "length_s": round(heard.length_samples / sample_rate_hz, 3),
        "tokens": percept.tokens.tolist(),
        "level_db": [round(float(level), 1) for level in heard.level_db],
        "clipped": round(heard.full_scale_share, 4),
        **notes_and_chroma(percept),
    }


def drift_message(report: DriftReport) -> Message:
    """Return the message of an alarm about the input."""
    return {"k": "drift", "text": report.text, **report.to_dict()}


def stage_message(state: StageState) -> Message:
    """Return the message of the state of the stage."""
    return {"k": "stage", "at": round(state.time_s, 3), **dataclasses.asdict(state)}


def session_messages(session: Session, names: Sequence[str], sample_rate_hz: int) -> Iterator[Message]:
    """Yield the messages of a session as a page that was open would have had them, but for levels; not in order of time.

    `sample_rate_hz` is the clock's.
    """
    for decision in session.decisions:
        yield decision_message(decision, names)
    for entry in session.entries:
        if (message := entry_message(entry, sample_rate_hz)) is not None:
            yield message
    for values in _lines(session.folder / PERCEPTS):
        yield _stored_percept(values, sample_rate_hz)
    for name, kind in ((DRIFT, "drift"), (EVENTS, "event")):
        for values in _lines(session.folder / name):
            yield {**values, "k": kind}


def _stored_percept(values: Mapping[str, Any], sample_rate_hz: int) -> Message:
    return {
        "k": "percept",
        "at": values.get("start_sample", 0) / sample_rate_hz,
        "length_s": values.get("length_samples", 0) / sample_rate_hz,
        "tokens": values.get("tokens", [[], []]),
        "level_db": values.get("level_db", []),
        "notes": values.get("notes", []),
        "chroma": values.get("chroma", []),
    }


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the whole lines of a file of JSON, those that are tables; nothing where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for line in stream:
            try:
                values = parse_json(line, max_depth=8)
            except ValueError:
                continue  # cut off
            if isinstance(values, dict):
                yield values
