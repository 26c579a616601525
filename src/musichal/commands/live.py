"""`musichal play` with a live input: listens to a device and answers at once, until it is told to stop."""

import contextlib
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from musichal.api.answer import CHANNEL
from musichal.commands.display import Board, Display
from musichal.commands.options import PlayOptions
from musichal.commands.play import settings_of
from musichal.commands.terminal import Terminal, keys
from musichal.errors import InputError, MusicHalError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.live.analysis_thread import AnalysisThread
from musichal.live.control import CcMap, Command, CommandBox, key_command, read_cc_map
from musichal.live.drift import DriftMonitor
from musichal.live.engine import EngineObserver, EventLoop, ObserverThread, Player
from musichal.live.input.link import LinkClock, LinkSession, need_aalink
from musichal.live.input.live_input import InputEvent, LiveInput
from musichal.live.input.midi_clock import MidiClock
from musichal.live.input.osc import OscInput, OscOutput
from musichal.live.live_engine import LiveEngine
from musichal.live.output.live_output import LiveOutput
from musichal.live.output.midi_ports import open_midi_input
from musichal.live.output.routing import Routing, VoiceRoute, read_routing, single_port
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import PortSettings
from musichal.live.realtime import raise_priority, short_pauses
from musichal.live.session.recorder import LiveSessionWriter, SessionRecorder
from musichal.live.session.session import SessionSettings, file_sha256, session_folder
from musichal.machine import now_s
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.explanation import explain
from musichal.partner.mode_controller import directed_by
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from musichal.text import printable

_POLL_S = 0.12
_LOOK_S = 5.0
_JOIN_S = 20.0
_SETTLE_S = 1.0
# Below the scheduler's; hearing too must not be put aside by busy programs while it holds the interpreter.
_ENGINE_LEVEL, _HEARING_LEVEL = 6, 2
_WARM_UP_SEGMENTS = 3
_MOST_MODE_KEYS = 9
_MOST_NEWS = 64


MakePlayer = Callable[[PartnerModel, PartnerSettings, int], Player]
"""Returns the player for a partner, settings and a seed."""


def live_player(model: PartnerModel, settings: PartnerSettings, seed: int) -> Player:
    """Return the partner that plays."""
    return Partner(model.memory, settings, rng=np.random.default_rng(seed), sample_rate_hz=model.spec.sample_rate_hz)


def live_command(
    options: PlayOptions, terminal: Terminal, *, make_player: MakePlayer = live_player, observers: Sequence[EngineObserver] = ()
) -> dict[str, Any]:
    """Play until the player quits, the time is over, or Ctrl-C; then end every note and close the session whole.

    Raises
    ------
    MusicHalError
        For what cannot be opened, before a sound is heard; for hearing that fails, after all is closed.
    """
    _check_inputs(options)
    if options.sound == "slices" and options.audio_out is None:
        options = replace(options, audio_out="default")
    control_map = CcMap([]) if options.control_map is None else read_cc_map(options.control_map)
    routings = _routings(options)
    settings = _with_voices(options, settings_of(options), routings)
    with contextlib.ExitStack() as last, contextlib.ExitStack() as stack:
        model, digest = _load(options, terminal)
        encoder = create_encoder(model.spec)
        _warm_up(model, encoder)
        names = [recording.name for recording in model.recordings]
        board, box = Board(lambda decision: explain(decision, names)), CommandBox()
        news: deque[tuple[str, str]] = deque(maxlen=_MOST_NEWS)
        ports = [port for routing in routings for port in routing.ports]
        scheduler = stack.enter_context(Scheduler(ports))
        slices = stack.enter_context(_slices(options, model))
        osc_in, osc_out = _osc(options, box, stack, model)
        told: list[EngineObserver] = [*observers, *osc_out]
        engine: LiveEngine | None = None

        def stream_s(at_s: float) -> float | None:
            return None if engine is None else engine.stream_s(at_s)

        # Whatever can be wrong with what was asked for is opened before the session is begun.
        stack.enter_context(_midi_inputs(options, control_map, box, stream_s))
        live = stack.enter_context(
            LiveInput(
                options.input,
                channels=options.channels,
                block_samples=options.block,
                on_event=lambda e: _report_input(e, news),
            )
        )
        rate_hz = live.sample_rate_hz
        listener = Listener(model.spec, encoder, model.vocabularies, source_rate_hz=rate_hz)
        player = make_player(model, settings, options.seed)
        # From where the session is begun until all is closed, Ctrl-C ends the performance in order, so that the session is
        # whole or not there.
        stop = last.enter_context(_stop_signals())
        writer = None
        if options.session is not None:
            stack.enter_context(session_folder(options.session))
            writer = _session(options, settings, model, digest, rate_hz=rate_hz, input_name=live.device.name, news=news)
            told.append(writer)
        beside = ObserverThread(told, on_error=lambda text: news.append(("observer", text)))
        stack.callback(beside.close)
        overlap = -(-model.spec.segment_samples // model.spec.hop_samples)
        output = LiveOutput(scheduler, routings, slices=slices, recordings=len(model.recordings))
        engine = LiveEngine(
            source=live,
            front_end=listener.front_end,
            analysis=AnalysisThread(listener.step, most_waiting=overlap, in_thread=lambda: raise_priority(_HEARING_LEVEL)),
            loop=EventLoop(player, sample_rate_hz=model.spec.sample_rate_hz),
            output=output,
            clock=live.clock,
            spec=model.spec,
            source_rate_hz=rate_hz,
            block=options.block or 512,
            drift=DriftMonitor(model),
            commands=box,
            observers=[board, beside],
            news=news,
        )
        link = stack.enter_context(_link(options, box, engine))
        for text in _opened(scheduler, slices, options):
            engine.tell("port", f"plays to {text}")
        watch = _PartnerWatch(options.partner, digest)
        title = f"MusicHal listens to {printable(live.device.label)}"
        modes = list(directed_by(settings.direction)[0])[:_MOST_MODE_KEYS]
        display = Display(board, lambda: live.level, terminal, title=title, modes=modes if sys.stdin.isatty() else ())
        with keys() as poll, display, _playing(engine, stop):
            _attend(engine, stop, lambda: _key_commands(poll, modes), box, display, watch, options.duration_s)
        beside.close()
        summary = _finish(engine, live, scheduler, watch, osc_in, link, writer, terminal)
    if engine.error is not None:
        raise engine.error
    _report(options, engine, summary, terminal)
    return summary


def _check_inputs(options: PlayOptions) -> None:
    """Refuse two clocks, Link where it is not installed, and a map for controllers that nobody listens to."""
    if options.control_map is not None and options.control_in is None:
        raise InputError("--map says what controllers do: name their MIDI input with --control-in")
    if options.link and options.clock_in is not None:
        raise InputError("one clock at a time: give --link or --clock-in")
    if options.link:
        need_aalink()


def _report_input(event: InputEvent, news: deque[tuple[str, str]]) -> None:
    """Pass an event of the input on, unless the engine reports it itself as lost samples."""
    if event.kind not in ("lost", "behind") or not event.lost_samples:
        news.append((f"input-{event.kind}", event.text))


def _osc(
    options: PlayOptions, box: CommandBox, stack: contextlib.ExitStack, model: PartnerModel
) -> tuple[OscInput | None, list[EngineObserver]]:
    """Open OSC as far as it is asked for: commands that come in, and what is told."""
    osc_in, told = None, []
    listen, send = options.osc_ports()
    if listen is not None:
        osc_in = OscInput(listen, box.put, host=options.osc_host)
        stack.callback(osc_in.close)
    if send is not None:
        names = [recording.name for recording in model.recordings]
        osc_out = OscOutput(
            send,
            host=options.osc_to,
            sample_rate_hz=model.spec.sample_rate_hz,
            explain=lambda decision: explain(decision, names),
        )
        stack.callback(osc_out.close)
        told.append(osc_out)
    return osc_in, list(told)


def _load(options: PlayOptions, terminal: Terminal) -> tuple[PartnerModel, str]:
    with terminal.progress("Loading the partner"):
        digest = file_sha256(options.partner)
        return load_partner(options.partner), digest


def _routings(options: PlayOptions) -> list[Routing]:
    """Return where notes go: ports by --voices or --midi-out, and a synthesiser where --audio-out asks for one."""
    if options.voices is not None and options.midi_out is not None:
        raise InputError("--voices names its ports itself: leave --midi-out out")
    routings = []
    if options.voices is not None:
        routings.append(read_routing(options.voices))
    elif options.midi_out is not None or options.audio_out is None or options.sound == "slices":
        address = options.midi_out or ("auto:" if options.audio_out is None else "none:")
        if Path(address).suffix.lower() in (".mid", ".midi") and ":" not in address:
            address = f"file:{address}"
        routings.append(single_port(address, channel=CHANNEL))
    if options.audio_out is not None and options.sound == "soundfont":
        program = bytes((0xC0 | CHANNEL, options.program - 1))
        port = PortSettings("--audio-out", f"synth:{options.soundfont or ''}", setup=(program,))
        routings.append(Routing((port,), {}, VoiceRoute(port.name, CHANNEL)))
    return routings


def _opened(scheduler: Scheduler, slices: Scheduler | None, options: PlayOptions) -> list[str]:
    """Return what was opened, in words; the nowhere that stands for MIDI beside slices is none of it."""
    sounds = [] if slices is None else list(slices.opened.values())
    return sounds if slices and options.midi_out is None and options.voices is None else [*scheduler.opened.values(), *sounds]


def _with_voices(options: PlayOptions, settings: PartnerSettings, routings: Sequence[Routing]) -> PartnerSettings:
    """Return the settings with the voices of the table, if none were given; raise `InputError` for a voice without a route."""
    if options.voices is None:
        return settings
    table, path = routings[0], printable(options.voices)
    if "voices" not in settings.explicit and not all(table.route_of(v.name) for v in settings.voices):
        try:
            return settings.changed({"voices": ", ".join(table.voices)})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    for voice in settings.voices:
        if table.route_of(voice.name) is None:
            raise InputError(f"{path} has no route for the voice {voice.name!r}: add [voice.{voice.name}] with a port")
    return settings


@contextmanager
def _slices(options: PlayOptions, model: PartnerModel) -> Iterator[Scheduler | None]:
    """Open the partner's recordings as a voice where that is asked for, in a scheduler of its own while the block runs."""
    if options.audio_out is None or options.sound != "slices":
        yield None
        return
    if any(recording.flac is None for recording in model.recordings):
        raise InputError(f"{printable(options.partner)} was trained with --no-audio: it has no sound to cut slices from")
    device = "" if options.audio_out == "default" else f">{options.audio_out}"
    port = PortSettings("--audio-out", f"slices:{options.partner}{device}")
    with Scheduler([port]) as scheduler:
        yield scheduler


def _warm_up(model: PartnerModel, encoder: Any) -> None:
    """Hear some noise, so that the first segment on stage is heard as quickly as any other."""
    spec = model.spec
    listener = Listener(spec, encoder, model.vocabularies, source_rate_hz=spec.sample_rate_hz)
    length = spec.segment_samples * _WARM_UP_SEGMENTS + spec.lookahead_samples
    listener.push((0.1 * np.random.default_rng(0).standard_normal(length)).astype(np.float32))


def _session(
    options: PlayOptions,
    settings: PartnerSettings,
    model: PartnerModel,
    digest: str,
    *,
    rate_hz: int,
    input_name: str,
    news: deque[tuple[str, str]],
) -> LiveSessionWriter:
    assert options.session is not None
    stored = SessionSettings(
        partner_path=str(options.partner.resolve()),
        partner_sha256=digest,
        partner=settings,
        seed=options.seed,
        channel=CHANNEL,
        program=options.program - 1,
        sample_rate_hz=rate_hz,
        input_name=printable(input_name),
    )
    recorder = SessionRecorder(options.session, sample_rate_hz=rate_hz, on_trouble=lambda text: news.append(("session", text)))
    return LiveSessionWriter(options.session, stored, sample_rate_hz=model.spec.sample_rate_hz, recorder=recorder)


def _close_session(writer: LiveSessionWriter, summary: dict[str, Any], terminal: Terminal) -> None:
    try:
        writer.close(summary)
    except (MusicHalError, OSError) as error:
        terminal.warn(f"the session was not closed whole: {error}")
    if writer.trouble is not None:
        terminal.warn(writer.trouble)


class _PartnerWatch:
    """Notices that the partner's file is another one than was loaded; what plays stays what it was."""

    def __init__(self, path: Path, digest: str) -> None:
        self._path, self._digest = path, digest
        self._stamp, self._next_s = self._look(), 0.0
        self.replaced: str | None = None

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def news(self) -> str | None:
        """Return a sentence when the file has just become another one."""
        moment_s = now_s()
        if moment_s < self._next_s:
            return None
        self._next_s = moment_s + _LOOK_S
        stamp = self._look()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        if stamp is None:
            return None  # it may be about to come back
        with contextlib.suppress(InputError):
            found = file_sha256(self._path)
            if found != self._digest:
                self.replaced = found
                return (
                    f"{printable(self._path)} was replaced while playing (SHA-256 now {found[:12]}…):"
                    f" what plays is what was loaded ({self._digest[:12]}…)"
                )
        return None


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and a options to end set, as often as they come; nothing else is interrupted by them."""
    stop = threading.Event()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = signal.Signals[name]
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _playing(engine: LiveEngine, stop: threading.Event) -> Iterator[threading.Thread]:
    """Run the engine in a thread while the block runs, with Python's own pauses kept short."""

    def run() -> None:
        raise_priority(_ENGINE_LEVEL)
        engine.run(stop)

    thread = threading.Thread(target=run, name="engine", daemon=True)
    with short_pauses():
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join(_JOIN_S)


def _key_commands(poll: Callable[[float], str], modes: Sequence[str]) -> list[Command]:
    """Wait a little for keys, and return what they ask for."""
    return [command for key in poll(_POLL_S) if (command := key_command(key, modes)) is not None]


def _attend(
    engine: LiveEngine,
    stop: threading.Event,
    asked: Callable[[], Sequence[Command]],
    box: CommandBox,
    display: Display,
    watch: _PartnerWatch,
    duration_s: float | None,
) -> None:
    """Show what happens and pass keys on, until it is over."""
    while not (stop.is_set() or engine.quitting.is_set()):
        for command in asked():
            box.put(command)
        text = watch.news()
        if text is not None:
            engine.tell("partner", text)
        display.update()
        if duration_s is not None and engine.now_stream_s >= duration_s:
            stop.set()


@contextmanager
def _midi_inputs(
    options: PlayOptions, control_map: CcMap, box: CommandBox, stream_s: Callable[[float], float | None]
) -> Iterator[None]:
    """Listen to the MIDI inputs that are asked for while the block runs: one may give both controllers and the clock."""
    clock = MidiClock(stream_s, lambda pulse: box.put(Command("clock", pulse)))
    clock_in = None if options.link else options.clock_in or options.control_in
    with contextlib.ExitStack() as stack:
        for name in {options.control_in, clock_in} - {None}:
            assert name is not None
            here = control_map if name == options.control_in else CcMap([])
            stack.enter_context(_controllers(name, here, box, clock if name == clock_in else None))
        yield


@contextmanager
def _link(options: PlayOptions, box: CommandBox, engine: LiveEngine) -> Iterator[LinkClock | None]:
    """Follow an Ableton Link session while the block runs, where that is asked for."""
    if not options.link:
        yield None
        return

    def say(text: str) -> None:
        engine.tell("link", text)

    clock = LinkClock(engine.stream_s, lambda pulse: box.put(Command("clock", pulse)), say)
    with LinkSession(clock, say):
        yield clock


@contextmanager
def _controllers(wanted: str, control_map: CcMap, box: CommandBox, clock: MidiClock | None) -> Iterator[None]:
    """Listen to a MIDI input for controllers, and for MIDI clock, while the block runs."""

    def take(data: Sequence[int]) -> None:
        if len(data) == 3 and data[0] & 0xF0 == 0xB0:
            for asked in control_map.commands(data[0] & 0x0F, data[1] & 0x7F, data[2] & 0x7F):
                box.put(asked)
        elif clock is not None and len(data) == 1:
            clock.take(data[0], now_s())

    with open_midi_input(wanted, take):
        yield


def _finish(
    engine: LiveEngine,
    live: LiveInput,
    scheduler: Scheduler,
    watch: _PartnerWatch,
    osc_in: OscInput | None,
    link: LinkClock | None,
    writer: LiveSessionWriter | None,
    terminal: Terminal,
) -> dict[str, Any]:
    scheduler.panic()
    until_s = now_s() + _SETTLE_S
    while (midi := scheduler.statistics()).struck != midi.ended and now_s() < until_s:
        threading.Event().wait(0.05)
    summary = _summary(engine, live, scheduler, watch)
    if osc_in is not None:
        summary["osc"] = {name: getattr(osc_in, name) for name in ("received", "malformed", "dropped")}
    if link is not None:
        summary["link"] = link.to_dict()
    if writer is not None:
        _close_session(writer, summary, terminal)
    return summary


def _summary(engine: LiveEngine, live: LiveInput, scheduler: Scheduler, watch: _PartnerWatch) -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        **engine.statistics(),
        "duration_s": round(engine.now_stream_s, 3),
        "input": live.device.label,
        "input_rate_hz": live.sample_rate_hz,
        "xruns": live.xruns,
        "callback_p99_ms": live.callback_ms(0.99),
        "ports": scheduler.opened,
        "priority": scheduler.priority,
        "partner_replaced": watch.replaced,
        "error": None if engine.error is None else str(engine.error),
        "load_average": load,
    }


def _report(options: PlayOptions, engine: LiveEngine, summary: dict[str, Any], terminal: Terminal) -> None:
    terminal.result(summary)
    counts = engine.counts
    terminal.say(
        f"Played {counts.notes} notes in {summary['duration_s']:.1f} s; heard {counts.segments} segments"
        f" ({counts.skipped} skipped), {counts.onsets} onsets."
    )
    if counts.lost_samples:
        terminal.say(f"{counts.lost_samples} samples of the input were lost, in {counts.gaps} places.")
    if options.session is not None:
        terminal.say(f"Wrote {printable(options.session)}; `musichal replay {printable(options.session)}` plays it again.")
