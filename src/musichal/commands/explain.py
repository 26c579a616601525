"""`musichal explain` and `moments`: why a session was played as it was, what stands out in it, and how it sounds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from musichal.atomic import make_folder
from musichal.audio.files import write_sound
from musichal.audio.instrument import find_instrument, render_notes
from musichal.audio.levels import at_loudness
from musichal.commands.options import Force, MovedPartner, SessionFolder
from musichal.commands.session import known_partner, names_of, partner_path
from musichal.commands.terminal import Rows, Terminal, table_of
from musichal.errors import InputError
from musichal.evaluate.moments import Stretch, find_moments, stretches
from musichal.hearing.percepts import SILENCE
from musichal.live.output.files import SOUND, check_outputs
from musichal.live.session.export import Duo, Marker, session_markers, session_marks
from musichal.live.session.session import Session, read_session
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.explanation import SOURCE_WORDS, explain, explain_briefly, summarise
from musichal.text import clock, counted, parse_seconds, printable

_RATE_HZ = 44100
# A place is hard to recognise without what led to it.
_BEFORE_S, _AFTER_S = 1.0, 0.5
_BEFORE_MARK_S, _AFTER_MARK_S = 15.0, 5.0
_SHOWN_STRETCHES = 3
_MOST_LINES = 60
_MOST_MARKERS = 8
_TOKENS_SHOWN = 16
_LEAD_IN_S = 3.0
BEST, LEAST = "best", "least"
Span = tuple[float, float]


def explain_command(
    *,
    folder: SessionFolder,
    at: Annotated[
        str | None,
        typer.Option(help="A time (1:23): the decision then, in full. A part: 1:00-1:20, a mode, a mark, 'best' or 'least'."),
    ] = None,
    listen: Annotated[
        Path | None,
        typer.Option(help="Write the duo, or a part, as sound into this folder; of one time, its place in the recording."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Tell every decision.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Of one time: the figures behind the decision.")] = False,
    partner: MovedPartner = None,
    force: Force = False,
    terminal: Terminal,
) -> None:
    """Explain a session: all of it on a page, a part of it, or the decision at one time in full.

    `at` is a time, a stretch such as 1:00-1:20, a mode, a mark, or "best" or "least". `every` tells each decision, `figures`
    what one is made of. `listen` is a folder for the sound.
    """
    session = read_session(folder)
    decisions = session.decisions
    found = None if at is None else _find(at, session)
    needed = listen is not None and isinstance(found, float)
    path = partner_path(session.settings, partner) if needed else known_partner(session.settings, partner, terminal)
    model = None if path is None else load_partner(path)
    names = names_of(decisions, model)
    for sentence in session.recovered:
        terminal.warn(sentence)
    if isinstance(found, float):
        _explain_moment(session, found, names, model, terminal, listen=listen, figures=figures, force=force)
        return
    end_s = session.duration_s
    spans = [(0.0, end_s)] if found is None else found
    told = _Told(decisions, None if found is None else spans)
    if found is not None and not told.count:
        raise InputError(f"nothing was decided at --at {printable(at or '')}")
    written = _write_spans(session, spans, listen, force=force, whole=found is None) if listen is not None else []
    lines, all_stretches = summarise(told, end_s=min(end_s, spans[-1][1])), stretches(told)
    terminal.result(
        {
            "session": str(folder),
            "spans": [{"start_s": start_s, "end_s": until_s} for start_s, until_s in spans],
            "summary": lines,
            "best": [_plain_stretch(s) for s in _founded(all_stretches, best=True)],
            "least": [_plain_stretch(s) for s in _founded(all_stretches, best=False)],
            "decisions": Rows(_plain(d, names) for d in told),
            "written": [str(path) for path in written],
        }
    )
    if not terminal.as_json:
        seen = _told_stretches(told, all_stretches, names)
        _tell(session, told, names, terminal, lines=lines, seen=seen, spans=None if found is None else spans, every=every)
    for path in written:
        terminal.say(f"Wrote {printable(path)}")


def _tell(
    session: Session,
    told: "_Told",
    names: Sequence[str],
    terminal: Terminal,
    *,
    lines: Sequence[str],
    seen: Iterable[str],
    spans: Sequence[Span] | None,
    every: bool,
) -> None:
    """Print the summary of spans, or of all, and what else there is to say; `seen` are the lines on stretches."""
    if spans is not None:
        terminal.say(", ".join(f"{clock(a)} to {clock(b)}" for a, b in spans) + ":")
    for line in [*lines, *(_page(session, seen) if spans is None else ())]:
        terminal.say(line)
    if every or (spans is not None and told.count <= _MOST_LINES):
        terminal.say("")
        for decision in told:
            terminal.say(explain(decision, names) if every else explain_briefly(decision, names))
    elif spans is not None:
        for line in seen:
            terminal.say(line)
        terminal.say(f"--all tells all {told.count} decisions.")


class _Told:
    """The decisions of some spans, or all, read one at a time however often."""

    def __init__(self, decisions: Sequence[Decision], spans: Sequence[Span] | None) -> None:
        self._decisions, self._spans = decisions, spans
        self.count = len(decisions) if spans is None else sum(1 for _ in self)

    def __iter__(self) -> Iterator[Decision]:
        spans = self._spans
        return (d for d in self._decisions if spans is None or any(a <= d.time_s < b for a, b in spans))


def _find(at: str, session: Session) -> float | list[Span]:
    """Return the time that is meant, or the spans: see `explain_command`."""
    text, end_s = at.strip(), session.duration_s
    marks = {name: mark for n, mark in enumerate(session_marks(session), start=1) for name in (mark.text, f"mark {n}")}
    modes = _mode_spans(session.decisions, end_s)
    if text in modes:
        return modes[text]
    if text in marks:
        return [(max(0.0, marks[text].at_s - _BEFORE_MARK_S), min(end_s, marks[text].at_s + _AFTER_MARK_S))]
    if text in (BEST, LEAST):
        return sorted((s.start_s, s.end_s) for s in _founded(stretches(session.decisions), best=text == BEST))
    first, dash, last = text.partition("-")
    if dash and first:
        span = parse_seconds(first, "--at"), parse_seconds(last, "--at")
        if not span[0] < span[1]:
            raise InputError(f"--at {printable(text)} ends before it begins")
        if span[0] >= end_s:
            raise InputError(f"the session ends at {clock(end_s)}")
        return [span]
    try:
        return parse_seconds(text, "--at")
    except InputError as error:
        there = [*modes, *(f'"{name}"' for name in marks), BEST, LEAST]
        raise InputError(f"{error}, a stretch such as 1:00-1:20, or one of {', '.join(there)}") from error


def _mode_spans(decisions: Iterable[Decision], end_s: float) -> dict[str, list[Span]]:
    """Return when each mode held, the modes in order of appearance."""
    moded = (d for d in decisions if d.mode)
    runs = [(mode, next(group).time_s) for mode, group in groupby(moded, key=lambda d: d.mode)]
    spans: dict[str, list[Span]] = {}
    for (mode, start_s), until_s in zip(runs, [*(s for _, s in runs[1:]), end_s], strict=False):
        spans.setdefault(mode, []).append((start_s, max(start_s, until_s)))
    return spans


def _founded(found: Iterable[Stretch], *, best: bool) -> list[Stretch]:
    """Return the stretches that are founded best, or least."""
    return sorted(found, key=lambda s: -s.founded if best else s.founded)[:_SHOWN_STRETCHES]


# ── a page ───────────────────────────────────────────────────────────────────


def _page(session: Session, seen: Iterable[str]) -> Iterator[str]:
    """Yield the lines that say when what was, where to look, and how."""
    spans = _mode_spans(session.decisions, session.duration_s)
    if spans:
        held = (f"{mode} {clock(sum(b - a for a, b in own), decimals=0)}" for mode, own in spans.items())
        yield f"Modes: {', '.join(held)}."
    markers = [marker for marker in session_markers(session) if marker.kind != "mode"]
    for kind, title in (("mark", "Marks"), ("section", "Sections"), ("key", "Your keys")):
        if own := [marker for marker in markers if marker.kind == kind]:
            yield f"{title}: {_listed(own)}."
    yield from seen
    shown = next(iter(spans), "couple")
    yield f"More: --at 1:23 in full, --at 1:00-1:20, --at {shown}, --at {LEAST}; --all for each decision."
    yield "Sound: --listen FOLDER, with or without --at; `musichal moments` for what stands out."


def _listed(markers: Sequence[Marker]) -> str:
    more = f" and {len(markers) - _MOST_MARKERS} more" if len(markers) > _MOST_MARKERS else ""
    return ", ".join(f"{clock(m.at_s, decimals=0)} {m.text}" for m in markers[:_MOST_MARKERS]) + more


def _told_stretches(told: Iterable[Decision], found: Iterable[Stretch], names: Sequence[str]) -> Iterator[str]:
    best = _founded(found, best=True)
    least = [s for s in _founded(found, best=False) if s not in best]
    wanted = {s.telling for s in (*best, *least)}
    telling = {d.number: d for d in told if d.number in wanted}
    for title, shown in (("Best founded", best), ("Least founded", least)):
        if shown:
            yield f"{title}:"
        for stretch in sorted(shown, key=lambda s: s.start_s):
            how = f"{counted(stretch.choices, 'gesture')}, {counted(stretch.jumps, 'jump')}"
            why = explain_briefly(telling[stretch.telling], names)
            yield f"  {clock(stretch.start_s)} to {clock(stretch.end_s)} ({how}). {why}"


def _plain_stretch(stretch: Stretch) -> dict[str, float]:
    return {"start_s": stretch.start_s, "end_s": stretch.end_s, "founded": stretch.founded}


# ── one decision ─────────────────────────────────────────────────────────────


def _explain_moment(
    session: Session,
    at_s: float,
    names: Sequence[str],
    model: PartnerModel | None,
    terminal: Terminal,
    *,
    listen: Path | None,
    figures: bool,
    force: bool,
) -> Decision:
    """Explain the decision at a time in full; `listen` is a folder for its sounds."""
    decisions, end_s = session.decisions, session.duration_s
    decision = decision_at(decisions, at_s)
    if at_s > end_s:
        terminal.warn(f"the session ends at {clock(end_s)}: this is its last decision")
    written: list[Path] = []
    if listen is not None and decision.kind != "play":
        later = next((d for d in decisions if d.kind == "play" and d.time_s > decision.time_s), None)
        hint = f"; it plays next at {clock(later.time_s)}" if later is not None else ""
        terminal.warn(f"there is nothing to listen to at {clock(decision.time_s)}: it rested{hint}")
    elif listen is not None and model is not None:
        written = _listen(decision, listen, model, session, force=force)
    terminal.result({"session": str(session.folder), **_plain(decision, names), "written": [str(path) for path in written]})
    terminal.say(explain(decision, names))
    tables = list(_tables(decision, names))
    for table in tables if figures else ():
        terminal.show(table)
    if tables and not figures:
        terminal.say("--figures shows the figures behind it, and what else it might have played.")
    for path in written:
        terminal.say(f"Wrote {printable(path)}")
    return decision


def decision_at(decisions: Sequence[Decision], at_s: float) -> Decision:
    """Return the last decision taken by a time; raises `InputError` where there is none yet."""
    latest = None
    for decision in decisions:
        if decision.time_s <= at_s + 0.005:  # as `clock` rounds
            latest = decision
    if latest is None:
        first = f"; the first decision is at {clock(decisions[0].time_s)}" if decisions else ""
        raise InputError(f"there is no decision by {clock(at_s)}{first}")
    return latest


def _plain(decision: Decision, names: Sequence[str]) -> dict[str, object]:
    return {"words": explain(decision, names), "decision": asdict(decision)}


def _tables(decision: Decision, names: Sequence[str]) -> Iterator[Table]:
    if decision.influences:
        by_share = sorted(decision.influences, key=lambda i: -i.share)
        rows = [(i.name, f"{i.value:.3f}", f"{i.weight:g}", f"{i.share:.1%}") for i in by_share]
        yield table_of("Influences", ("influence", "value", "weight", "share"), rows, right=True)
    if decision.alternatives:
        chosen = ("chosen", f"{decision.transposition:+d}", f"{decision.score:.3f}")
        others = [
            (
                f"{'what you played' if other.live else names[other.recording]} {clock(other.start_s)}",
                f"{other.transposition:+d}",
                f"{other.score:.3f}",
            )
            for other in decision.alternatives
        ]
        title = f"The best of {decision.candidates} candidates"
        yield table_of(title, ("place", "transposed by", "score"), [chosen, *others], right=True)
    if recognised := [c for c in decision.contexts if c.source in SOURCE_WORDS]:
        numbers = [(SOURCE_WORDS[c.source], _numbers(c.tokens[-_TOKENS_SHOWN:])) for c in recognised]
        yield table_of("What it recognised, in the numbers of its pictures", ("", "sounds"), numbers)


def _numbers(tokens: Sequence[int]) -> str:
    return " ".join("–" if token == SILENCE else str(token) for token in tokens)


def _listen(decision: Decision, folder: Path, model: PartnerModel, session: Session, *, force: bool) -> list[Path]:
    """Write the place in the recording, what was played from it, and the player at that time, each as a WAV.

    In a memory of pairs, also the player beside that place.
    """
    assert decision.recording is not None and decision.source_start_s is not None
    settings = session.settings
    rate = settings.sample_rate_hz
    make_folder(folder)
    stamp = clock(decision.time_s).replace(":", "m")
    paths = [folder / f"{stamp}-{what}.wav" for what in ("source", "answer", "player", "player-then")]
    check_outputs([(path, SOUND) for path in paths], inputs=[], force=force)
    if decision.live:  # learned from the player: the session's own input has it
        written = [(paths[0], session.stretch(*_bounds(rate, decision.source_start_s, decision.duration_s)), rate)]
    else:
        stored = model.recordings[decision.recording]
        first, last = _bounds(stored.sample_rate_hz, decision.source_start_s, decision.duration_s)
        written = [(paths[0], stored.samples()[first:last], stored.sample_rate_hz)]
    if decision.beside is not None:
        then = model.recordings[decision.beside[0]]
        first, last = _bounds(then.sample_rate_hz, decision.beside[1], decision.duration_s)
        written.append((paths[3], then.samples()[first:last], then.sample_rate_hz))
    player = session.stretch(*_bounds(rate, decision.time_s, decision.duration_s))
    events = [
        Note(max(0.0, n.onset_s - decision.time_s), n.duration_s, n.pitch, n.velocity, settings.channel) for n in decision.notes
    ]
    programs = {settings.channel: settings.program}
    answer = render_notes(events, find_instrument(), sample_rate_hz=_RATE_HZ, programs=programs)
    silence = np.zeros((round(_BEFORE_S * _RATE_HZ), 2), dtype=np.float32)
    written += [(paths[1], np.concatenate([silence, answer]), _RATE_HZ), (paths[2], player, rate)]
    for path, sound, rate_hz in written:
        write_sound(path, at_loudness(sound, sample_rate_hz=rate_hz), sample_rate_hz=rate_hz)
    return [path for path, *_ in written]


def _bounds(rate_hz: int, start_s: float, duration_s: float) -> tuple[int, int]:
    """Return from which sample to which one hears a place with what led to it."""
    return max(0, round((start_s - _BEFORE_S) * rate_hz)), round((start_s + duration_s + _AFTER_S) * rate_hz)


# ── sound ────────────────────────────────────────────────────────────────────


def _write_spans(session: Session, spans: Sequence[Span], folder: Path, *, force: bool, whole: bool) -> list[Path]:
    """Write player, answer and both together, of each span that begins before the input ends."""
    duo = Duo(session, find_instrument())
    spans = [(start_s, min(end_s, duo.duration_s)) for start_s, end_s in spans if start_s < duo.duration_s]
    stamps = ["" if whole else f"{_stamp(start_s)}-" for start_s, _ in spans]
    make_folder(folder)
    paths = [folder / f"{stamp}{what}.wav" for stamp in stamps for what in ("player", "answer", "duo")]
    check_outputs([(path, SOUND) for path in paths], inputs=[], force=force)
    written = iter(paths)
    for start_s, end_s in spans:
        player, answer = duo.player(start_s, end_s), duo.answer(start_s, end_s)
        for sound in (player, answer, duo.mixed(player, answer)):
            write_sound(next(written), sound, sample_rate_hz=duo.rate_hz)
    return paths


def _stamp(time_s: float) -> str:
    return clock(time_s).replace(":", "m")


# ── moments ──────────────────────────────────────────────────────────────────


class _Sounded:
    """The decisions of a session as they sounded, read one at a time however often."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __iter__(self) -> Iterator[Decision]:
        return self._session.sounded()


def moments_command(
    *,
    folder: SessionFolder,
    listen: Annotated[Path | None, typer.Option(help="Write the duo at each moment into this folder (WAV).")] = None,
    force: Force = False,
    terminal: Terminal,
) -> None:
    """List the player's marks and what stands out in a session; with `listen` write the duo at each into this folder."""
    session = read_session(folder)
    for sentence in session.recovered:
        terminal.warn(sentence)
    end_s = session.duration_s
    marks = [(mark.at_s, mark.text) for mark in session_marks(session)]
    moments = [m for m in find_moments(_Sounded(session), marks, end_s=end_s) if m.start_s < end_s]
    names = [f"{number:02d}-{_stamp(m.start_s)}-{m.kind}.wav" for number, m in enumerate(moments, start=1)]
    paths = [None if listen is None else listen / name for name in names]
    if listen is not None and moments:
        make_folder(listen)
        check_outputs([(path, SOUND) for path in paths], inputs=[], force=force)
        duo = Duo(session, find_instrument())
        with terminal.progress("Rendering") as progress:
            for number, (moment, path) in enumerate(zip(moments, paths, strict=True)):
                progress("Rendering", number / len(moments))
                before_s, after_s = (_BEFORE_MARK_S, _AFTER_MARK_S) if moment.kind == "mark" else (_LEAD_IN_S, _LEAD_IN_S)
                span = max(0.0, moment.start_s - before_s), min(end_s, moment.end_s + after_s)
                sound = duo.mixed(duo.player(*span), duo.answer(*span))
                write_sound(path or "", sound, sample_rate_hz=duo.rate_hz)
    found = [{**asdict(m), "sound": None if path is None else str(path)} for m, path in zip(moments, paths, strict=True)]
    terminal.result({"session": str(folder), "moments": found})
    for moment in moments:
        until = f" to {clock(moment.end_s, decimals=0)}" if moment.end_s - moment.start_s >= 1 else ""
        why = f"your mark: {moment.why}" if moment.kind == "mark" else moment.why
        terminal.say(f"{clock(moment.start_s, decimals=0)}{until}  {why}")
    if not moments:
        terminal.say(f"Nothing stands out in {printable(folder)}: the partner hardly played.")
    elif listen is not None:
        terminal.say(f"Wrote {counted(len(moments), 'sound')} into {printable(listen)}.")
    else:
        terminal.say("--listen FOLDER writes the sound of each; `musichal export` takes a stretch into a DAW.")
