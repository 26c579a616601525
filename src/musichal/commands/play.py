"""`musichal play`: a recording in, an answer out; or live, until the end, showing what happens.

Live, the stage board is shown at a terminal, elsewhere plain lines.
"""

import _thread
import contextlib
import math
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from musichal.api.answer import Answer
from musichal.api.partner import respond
from musichal.api.sound import example
from musichal.audio.files import write_sound
from musichal.audio.instrument import find_instrument
from musichal.audio.midi_take import MidiChoice
from musichal.audio.recording import read_recording
from musichal.commands.board import Board, Display
from musichal.commands.options import PlayOptions, settings_from
from musichal.commands.terminal import RETAKEN, Poll, Terminal, keys
from musichal.errors import InputError
from musichal.hearing.percepts import SOURCES
from musichal.live.control import DISPLAY_COMMANDS, KEY_NAMES, Command, key_command
from musichal.live.engine import CHANNEL, EngineObserver, Performance
from musichal.live.live_performance import LivePerformance, LiveRequest, MakePlayer, OscPorts, live_player
from musichal.live.output.files import MIDI, PICTURE, SOUND, check_outputs
from musichal.live.output.routing import read_routing, settings_for
from musichal.live.session.recorder import write_session
from musichal.live.session.session import SessionSettings, session_folder
from musichal.machine import now_s, sha256_of
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.explanation import explain, summarise
from musichal.partner.form import parse_form
from musichal.partner.lead_sheet import read_chart
from musichal.partner.made_ready import load_ready
from musichal.partner.mode_controller import directed_by
from musichal.partner.modes import AUTO, built_in_modes, parse_modes
from musichal.partner.scenario import Scenario, parse_scenario
from musichal.partner.settings import Direction, PartnerSettings
from musichal.partner.voices import unheard_voices
from musichal.plots.style import picture_format, save_figure
from musichal.text import path_text, printable, read_text, unknown_name

_SOUND_RATE_HZ = 44100
_SHOWN_DECISIONS = 5
RECORDING, PLAYER = example("band"), example("guitar")
"""A rock band, and the solo guitar of the same song: what benchmarks train on and play with."""


# ── what to play by ──────────────────────────────────────────────────────────


def settings_of(options: PlayOptions) -> PartnerSettings:
    """Return the settings that the options ask for, with mode, modes, form and scenario read and checked."""
    if options.settings is not None:
        return options.settings
    pairs = [_named_regions(pair, options.partner) for pair in options.set_ or []]
    chosen = replace(settings_from(pairs), direction=direction(options.mode, options.modes, options.form))
    if options.scenario is None:
        return chosen
    return chosen.changed({"scenario": read_scenario(options.scenario, options.partner)})


def _named_regions(pair: str, partner: Path) -> str:
    """Return a setting with regions in numbers where it names them as markers of the partner's MIDI files do."""
    name, _, value = (part.strip() for part in pair.partition("="))
    parts = [part.strip() for part in value.split(",")]
    if name not in ("use", "avoid") or all(re.match(r"\d|all$|none$|$", part) for part in parts):
        return pair
    named: dict[str, list[str]] = {}
    for number, recording in enumerate(load_partner(partner).recordings):
        for text, start_s, end_s in recording.take.regions(duration_s=recording.duration_s) if recording.take else ():
            named.setdefault(text.casefold(), []).append(f"{number}:{start_s:.3f}-{end_s:.3f}")
    for part in parts:
        if not re.match(r"\d", part) and part.casefold() not in named:
            raise unknown_name("region", part, list(named) or ["all", "none", "0:10-20.5"])
    return f"{name}={', '.join(region for part in parts for region in named.get(part.casefold(), [part]))}"


def direction(mode: str, modes: Path | None, form: Path | None) -> Direction:
    """Return the mode, the table of modes and the form to play by, read and checked."""
    table = built_in_modes()
    modes_text = "" if modes is None else read_text(modes)
    if modes is not None:
        table = parse_modes(modes_text, table, source=printable(modes))
    if mode not in (*table, AUTO):
        raise unknown_name("mode", mode, [*table, AUTO])
    form_text = "" if form is None else read_text(form)
    if form is not None:
        parse_form(form_text, table, source=printable(form))
    return Direction(mode=mode, modes=modes_text, form=form_text)


def read_scenario(path: Path, partner: Path) -> Scenario:
    """Return the scenario of a file: TOML (see `parse_scenario`; a partner that it names lies relative to it), or a chart."""

    def tokens_of(recording: str | int, other: str | None, source: str) -> Sequence[int]:
        model = load_partner(partner)
        if other is not None:
            own, model = model, load_partner(path.parent / other)
            alike = (np.array_equal(a.centres, b.centres) for a, b in zip(own.vocabularies, model.vocabularies, strict=True))
            if own.spec != model.spec or not all(alike):
                raise InputError(f"{printable(other)} has other vocabularies than {printable(partner)}: train both together")
        return recording_tokens(model, recording, source)

    try:
        return parse_scenario(read_text(path), tokens_of) if path.suffix.lower() == ".toml" else read_chart(path)
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from error


def recording_tokens(model: PartnerModel, recording: str | int, source: str) -> list[int]:
    """Return the tokens of one source of a recording's gestures, in order; the recording by its name or number."""
    names = [r.name for r in model.recordings]
    if isinstance(recording, str):
        if recording not in names:
            raise unknown_name("recording", recording, names)
        recording = names.index(recording)
    if not 0 <= recording < len(names):
        raise InputError(f"recording must be in [0, {len(names) - 1}], got {recording}")
    states = model.memory.states
    tokens: list[int] = states["tokens"][states["recording"] == recording, SOURCES.index(source)].tolist()
    return tokens


def start_command(options: PlayOptions, terminal: Terminal) -> None:
    """Let a partner answer a player, live or from a recording."""
    options.check()
    if not options.is_live:
        play_command(options, terminal)
    elif options.web:
        from musichal.commands.web import live_web_command

        live_web_command(options, terminal)
    else:
        live_command(options, terminal)


# ── a recording in, an answer out ────────────────────────────────────────────


def play_command(options: PlayOptions, terminal: Terminal) -> Performance:
    """Let a partner answer a recording, write what was asked for, and report what was played and why.

    Raises `MusicHalError` for any input that cannot be used or output that cannot be written; what was written before stays
    whole.
    """
    routing = None if options.voices is None else read_routing(options.voices)
    settings = settings_of(options)
    if routing is not None and options.voices is not None:
        settings = settings_for(routing, settings, printable(options.voices))
    wanted = ((options.midi_out, MIDI), (options.audio_out, SOUND), (options.mix_out, SOUND), (options.picture, PICTURE))
    if all(path is None for path, _ in wanted) and options.session is None:
        raise InputError("nothing to write: give at least one of --midi-out, --audio-out, --mix-out, --picture, --session")
    if options.picture is not None:
        picture_format(options.picture)
    assert options.input is not None
    outputs = check_outputs(
        wanted, inputs=[options.partner, options.input, *filter(None, [options.voices])], force=options.force
    )
    sounds = options.audio_out is not None or options.mix_out is not None
    if sounds and options.sound == "soundfont":
        for remark in getattr(find_instrument(options.soundfont), "remarks", lambda _program: ())(options.program - 1):
            terminal.warn(remark)  # a file that is no soundfont is refused before anything is played
    with contextlib.ExitStack() as stack, terminal.progress("Loading the partner") as progress:
        model = load_ready(options.partner)
        if model.beats_advice:
            terminal.warn(model.beats_advice)
        if unheard := unheard_voices(model.memory, settings):
            terminal.warn(unheard)
        player = read_recording(options.input, strict=options.strict, midi=MidiChoice(soundfont=options.soundfont))
        for warning in player.warnings:
            terminal.warn(f"{player.name}: {warning}")
        if sounds and options.sound == "slices" and any(r.flac is None for r in model.recordings):
            raise InputError(f"{printable(options.partner)} was trained with --no-audio: it has no sound to cut slices from")
        if options.session is not None:
            stack.enter_context(session_folder(options.session))
        answer = respond(
            model,
            player.samples,
            player.sample_rate_hz,
            settings=settings,
            seed=options.seed,
            progress=lambda share: progress(f"Playing with {player.name}", share),
            on_drift=lambda report: terminal.warn(report.text),
            take=player.take,
        )
        answer.routing = routing
        progress("Writing", 1.0)
        _write(options, settings, player.name, answer)
    _report(options, [*outputs, *filter(None, [options.session])], model, answer.performance, terminal)
    return answer.performance


def _write(options: PlayOptions, settings: PartnerSettings, player: str, answer: Answer) -> None:
    program = options.program - 1
    if options.midi_out is not None:
        answer.to_midi(options.midi_out, program=program, force=options.force)
    if options.audio_out is not None or options.mix_out is not None:
        sound = answer.to_audio(_SOUND_RATE_HZ, sound=options.sound, program=program, soundfont=options.soundfont)
        if options.audio_out is not None:
            write_sound(Path(options.audio_out), sound, sample_rate_hz=_SOUND_RATE_HZ)
        if options.mix_out is not None:
            write_sound(options.mix_out, answer.to_mix(sound, _SOUND_RATE_HZ), sample_rate_hz=_SOUND_RATE_HZ)
    if options.picture is not None:
        save_figure(answer.to_figure(), options.picture)
    if options.session is not None:
        session = SessionSettings(
            partner_path=path_text(options.partner.resolve()),
            partner_sha256=sha256_of(options.partner),
            partner=settings,
            seed=options.seed,
            channel=CHANNEL,
            program=program,
            sample_rate_hz=answer.sr,
            input_name=player,
            stream_rate_hz=answer.model.spec.sample_rate_hz,
        )
        write_session(options.session, session, answer.y, answer.performance)


def _report(
    options: PlayOptions, written: Sequence[Path], model: PartnerModel, performance: Performance, terminal: Terminal
) -> None:
    names = [r.name for r in model.recordings]
    decisions = performance.decisions
    summary = summarise(decisions, end_s=performance.duration_s)
    terminal.result(
        {
            "duration_s": performance.duration_s,
            "decisions": len(decisions),
            "played": sum(d.kind == "play" for d in decisions),
            "rests": dict(Counter(d.rest for d in decisions if d.rest)),
            "notes": sum(len(d.notes) for d in decisions),
            "written": [str(path) for path in written],
            "summary": summary,
            "drift": [report.to_dict() for report in performance.drift],
        }
    )
    name = Path(options.input or "").name
    terminal.say(f"MusicHal listened to {printable(name)} for {performance.duration_s:.1f} s.")
    for line in summary:
        terminal.say(line)
    telling = [d for d in decisions if d.jumped or d.kind == "rest"]
    shown = telling[:: max(1, len(telling) // _SHOWN_DECISIONS)][:_SHOWN_DECISIONS]
    if shown:
        terminal.say("Some of its decisions, and why:")
        for decision in shown:
            terminal.say(f"  {explain(decision, names)}")
    for path in written:
        terminal.say(f"Wrote {printable(path)}")


# ── live ──────────────────────────────────────────────────────────────────────

_POLL_S = 0.12
_MOST_MODE_KEYS = 9
QUITS_WITHIN_S = 2.0
"""A key quits if it was pressed so shortly before: one stroke by mistake must not end a concert."""


def live_command(
    options: PlayOptions,
    terminal: Terminal,
    *,
    make_player: MakePlayer = live_player,
    observers: Sequence[EngineObserver] = (),
    opened: Callable[[LivePerformance], object] = lambda _: None,
) -> dict[str, Any]:
    """Play until the player quits, the time is over, or Ctrl-C; then end every note and close the session whole.

    `opened` is called once all is open and plays.

    Raises `MusicHalError` for what cannot be opened, before a sound is heard; if the analysis fails, after all is closed.
    """
    board = Board()
    performance = LivePerformance(
        live_request(options),
        make_player=make_player,
        observers=[board, *observers],
        loading=lambda: terminal.progress("Loading the partner"),
        stop_event=stop_signals,
    )
    board.explain = performance.explain
    with performance:
        opened(performance)
        board.title = f"MusicHal listens to {printable(performance.input.device.label)}"
        board.duration_s = performance.request.duration_s or board.duration_s
        modes = list(directed_by(performance.request.settings.direction)[0])[:_MOST_MODE_KEYS]
        board.modes = modes if sys.stdin.isatty() else ()
        with keys_to(performance.put, modes, board), Display(board, terminal) as display:
            while not performance.wait(_POLL_S):
                display.update()
            performance.stop()
    for warning in performance.warnings:
        terminal.warn(warning)
    _report_live(performance, terminal)
    return performance.summary


@contextmanager
def keys_to(put: Callable[[Command], object], modes: Sequence[str], board: Board) -> Iterator[None]:
    """Turn the keys that are pressed into commands while the block runs, on a thread: a tap must not wait for the display."""
    ended = threading.Event()

    def read(poll: Poll) -> None:
        quit_until_s = -math.inf
        while not ended.is_set():
            for key in poll(_POLL_S):
                asked = key_command(key, modes)
                if key == RETAKEN:
                    board.key("redraw")
                elif asked is None:
                    board.say(f"the key {key!r} does nothing: ? shows the keys")
                elif asked.name in DISPLAY_COMMANDS:
                    board.key(asked.name)
                elif asked.name == "quit" and now_s() >= quit_until_s:
                    quit_until_s = now_s() + QUITS_WITHIN_S
                    board.say(f"press {KEY_NAMES.get(key, key)} again to end", for_s=QUITS_WITHIN_S)
                else:
                    put(asked)

    with keys() as poll:
        thread = threading.Thread(target=read, args=(poll,), name="keys", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def live_request(options: PlayOptions) -> LiveRequest:
    """Return the options of a live performance, files of settings read and checked; what has the same name is the same."""
    listen, send = options.osc_ports()
    other: dict[str, Any] = {
        "audio_out": options.audio_out or ("default" if options.sound == "slices" else None),
        "program": options.program - 1,
        "osc": OscPorts(listen=listen, send=send, host=options.osc_host, to_host=options.osc_to),
        "latency_s": options.latency / 1000,
        "settings": settings_of(options),
    }
    same = {field.name: getattr(options, field.name) for field in fields(LiveRequest) if field.name not in other}
    return LiveRequest(**same, **other)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and other signals to end set; they interrupt nothing while the block runs."""
    stop = threading.Event()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = signal.Signals[name]
            # In a thread: the handler may interrupt a `stop.wait` that holds the event's lock for a moment.
            before[number] = signal.signal(number, lambda *_: _thread.start_new_thread(stop.set, ()))
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report_live(performance: LivePerformance, terminal: Terminal) -> None:
    terminal.result(performance.summary)
    counts = performance.engine.counts
    terminal.say(
        f"Played {counts.notes} notes in {performance.summary['duration_s']:.1f} s; heard {counts.segments} segments"
        f" ({counts.skipped} skipped), {counts.onsets} onsets."
    )
    if counts.lost_samples:
        terminal.say(f"{counts.lost_samples} samples of the input were lost, in {counts.gaps} places.")
    session = performance.request.session
    if session is not None and not performance.is_cut_short:
        terminal.say(f"Wrote {printable(session)}; `musichal replay {printable(session)}` plays it again.")
