"""A live performance: the input, the partner, the ports, the controls and the session, opened together and closed whole."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from musichal.audio.instrument import find_keys
from musichal.errors import InputError, MusicHalError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import OnsetQueue
from musichal.hearing.front_end import input_latency_s
from musichal.hearing.listener import Listener
from musichal.live.control import CONTROLLER_COMMANDS, CcMap, Command, CommandQueue, read_cc_map
from musichal.live.drift import DriftMonitor
from musichal.live.engine import CHANNEL, EngineObserver, EventLoop, ObserverThread, Player
from musichal.live.input.controllers import ControlInputs, LiveLearning, MidiClock, midi_commands
from musichal.live.input.link import LinkClock, LinkSession, need_aalink
from musichal.live.input.live_input import Channels, InputEvent, LiveInput
from musichal.live.input.midi_input import MIDI_SCHEME, MidiInput, MixedInput, parse_mix
from musichal.live.input.osc import OscInput, OscOutput
from musichal.live.live_engine import LiveEngine
from musichal.live.output.routing import (
    LiveOutput,
    Routing,
    check_files,
    largest_latency_s,
    read_routing,
    settings_for,
    single_port,
)
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import PortSettings
from musichal.live.parts import AnalysisThread, warm_up
from musichal.live.session.recorder import LiveSessionWriter
from musichal.live.session.session import SessionSettings, session_folder
from musichal.live.stage import PartnerWatch
from musichal.machine import now_s, raise_priority, sha256_of, short_pauses
from musichal.memory.partner_file import PartnerModel
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain
from musichal.partner.made_ready import load_ready
from musichal.partner.mode_controller import directed_by
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings
from musichal.partner.voices import unheard_voices
from musichal.spec import PerceptionSpec
from musichal.text import path_text, printable

_JOIN_S, _SETTLE_S = 20.0, 1.0
_WAIT_S = 0.1
# Below the scheduler's. Busy programs must not put the analysis aside while it holds the interpreter.
_ENGINE_LEVEL, _ANALYSIS_LEVEL = 6, 2
_MOST_NEWS = 64
_DEFAULT_BLOCK = 512
_CLOCK, _MONITOR = "--clock-out", "--monitor"


@dataclass(frozen=True, kw_only=True)
class OscPorts:
    """UDP ports of OSC: `listen` for commands, `send` for events; None means none."""

    listen: int | None = None
    send: int | None = None
    host: str = "127.0.0.1"
    to_host: str = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class LiveRequest:
    """The options of a live performance, as `musichal play` has them."""

    partner: Path
    input: str | None = None
    channels: Channels = None
    midi_out: str | None = None
    audio_out: str | None = None
    sound: str = "soundfont"
    soundfont: Path | None = None
    program: int = 4
    voices: Path | None = None
    session: Path | None = None
    osc: OscPorts = OscPorts()
    control_in: str | None = None
    control_map: Path | None = None
    clock_in: str | None = None
    clock_out: str | None = None
    monitor: str | None = None
    link: bool = False
    duration_s: float | None = None
    block: int = 256
    latency_s: float = 0.0
    seed: int = 0
    force: bool = False
    settings: PartnerSettings = PartnerSettings()  # noqa: RUF009 - frozen


MakePlayer = Callable[[PartnerModel, PartnerSettings, int], Player]
"""Returns the player for a partner, settings and a seed."""


def live_player(model: PartnerModel, settings: PartnerSettings, seed: int) -> Player:
    """Return the partner that plays."""
    return Partner(model.memory, settings, rng=np.random.default_rng(seed), sample_rate_hz=model.spec.sample_rate_hz)


def live_source(
    request: LiveRequest,
    spec: PerceptionSpec,
    on_event: Callable[[InputEvent], None],
    *,
    monitor: Scheduler | None = None,
) -> LiveInput | MidiInput:
    """Return the input of a request, not yet open; `monitor` plays what a MIDI player plays."""
    wanted, block = request.input or "", request.block
    if MIDI_SCHEME not in wanted:
        return LiveInput(request.input, channels=request.channels, block_samples=block, on_event=on_event)
    hear = None if monitor is None else partial(monitor.forward, _MONITOR)
    how: dict[str, Any] = {"keys": find_keys(request.soundfont), "monitor": hear, "on_event": on_event}
    if (mix := parse_mix(wanted)) is not None:
        return MixedInput(mix, spec_rate_hz=spec.sample_rate_hz, channels=request.channels, block_samples=block, **how)
    name = wanted.removeprefix(MIDI_SCHEME)
    return MidiInput(name, sample_rate_hz=spec.sample_rate_hz, block_samples=block or _DEFAULT_BLOCK, **how)


class LivePerformance:
    """Plays inside its context; leaving it ends every note and closes the session whole.

    Raises `MusicHalError` on entering, for what cannot be opened, before the session begins; on leaving, if the analysis
    failed.

    * `make_player`: Returns the partner that plays.
    * `observers`: Called on a thread beside the engine.
    * `loading`: Returns a context manager that is open while the partner is loaded.
    * `stop_event`: Returns a context manager that gives the event which ends the performance. It is entered just before the
      session begins and left when all is closed: a handler of Ctrl-C that it installs leaves the session whole, or not there.
    * `warnings`: What was not closed whole.
    * `summary`: Statistics of the performance, once it is over.
    """

    def __init__(
        self,
        request: LiveRequest,
        *,
        make_player: MakePlayer = live_player,
        observers: Sequence[EngineObserver] = (),
        loading: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        stop_event: Callable[[], AbstractContextManager[threading.Event]] = lambda: contextlib.nullcontext(threading.Event()),
    ) -> None:
        if request.control_map is not None and request.control_in is None:
            raise InputError("--map says what controllers do: name their MIDI input with --control-in")
        if request.link and request.clock_in is not None:
            raise InputError("one clock at a time: give --link or --clock-in")
        if request.monitor is not None and MIDI_SCHEME not in (request.input or ""):
            raise InputError("--monitor plays what a MIDI player plays: give --input midi:NAME")
        if request.link:
            need_aalink()
        self._control_map = CcMap([]) if request.control_map is None else read_cc_map(request.control_map)
        self.routings = _routings(request)
        if request.voices is not None:
            chosen = settings_for(self.routings[0], request.settings, printable(request.voices))
            request = replace(request, settings=chosen)
        self.request = request
        self._make_player, self._told = make_player, list(observers)
        self._loading, self._stop_event = loading, stop_event
        self.engine: LiveEngine
        self.input: LiveInput | MidiInput
        self.warnings: list[str] = []
        self.summary: dict[str, Any] = {}
        self._commands = CommandQueue()
        modes = list(directed_by(request.settings.direction)[0])
        self.learning = LiveLearning(self._control_map, request.control_map, modes, works=request.control_in is not None)
        self._news: deque[tuple[str, str]] = deque(maxlen=_MOST_NEWS)
        self._writer: LiveSessionWriter | None = None
        self._osc_in: OscInput | None = None
        self._link: LinkClock | None = None
        self._is_open = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            last = stack.enter_context(ExitStack())
            with self._loading():
                digest = sha256_of(self.request.partner)
                self.model = load_ready(self.request.partner)
            self._open(stack, last, digest)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            self.stop()
            self._observers.close()
            self._finish()
        if self.engine.error is not None and error is None:
            raise self.engine.error

    def put(self, command: Command) -> None:
        """Give a command, from any thread."""
        if command.name in CONTROLLER_COMMANDS:
            self.learning.obey(command)
        else:
            self._commands.put(command)

    def explain(self, decision: Decision) -> str:
        """Return the reason of a decision in words."""
        return explain(decision, [recording.name for recording in self.model.recordings])

    @property
    def is_playing(self) -> bool:
        """Return whether it still plays."""
        return not (self._stop.is_set() or self.engine.quitting.is_set())

    @property
    def is_cut_short(self) -> bool:
        """Return whether the session ended before the music."""
        return self._writer is not None and self._writer.trouble is not None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over, at most `timeout_s`; return whether it is over."""
        until_s = None if timeout_s is None else now_s() + timeout_s
        while self.is_playing and (until_s is None or now_s() < until_s):
            self._stop.wait(_WAIT_S)
            self.tend()
        return not self.is_playing

    def tend(self) -> None:
        """Watch the partner's file and the time; call it a few times a second."""
        text = self._watch.news()
        if text is not None:
            self.engine.tell("partner", text)
        if self.request.duration_s is not None and self.engine.now_stream_s >= self.request.duration_s:
            self._stop.set()

    def stop(self) -> None:
        """End the engine's thread; one that hangs is left behind."""
        self._stop.set()
        self._thread.join(_JOIN_S)

    def _open(self, stack: ExitStack, last: ExitStack, digest: str) -> None:
        request, model = self.request, self.model
        spec = model.spec
        encoder = create_encoder(spec)
        warm_up(spec, encoder, model.vocabularies)
        ports = [port for routing in self.routings for port in routing.ports]
        clock = [PortSettings(_CLOCK, request.clock_out, is_clock=True)] if request.clock_out is not None else []
        scheduler = self._scheduler = stack.enter_context(Scheduler([*ports, *clock]))
        monitor = stack.enter_context(_apart(_monitor_port(request)))
        slices = stack.enter_context(_apart(_slices_port(request, model)))
        self._open_osc(stack)
        # Whatever can be wrong with the request is opened before the session is begun.
        stack.enter_context(self._midi_inputs())
        live = self.input = live_source(request, spec, self._report_input, monitor=monitor)
        stack.enter_context(live)
        rate_hz = live.sample_rate_hz
        block = request.block or _DEFAULT_BLOCK
        late_s = input_latency_s(spec, source_rate_hz=rate_hz, block=block, capture_s=live.capture_s)
        out_s = largest_latency_s(self.routings, request.latency_s if slices is not None else 0.0)
        request = self.request = replace(request, settings=_sent_early(request.settings, late_s + out_s))
        beside = isinstance(live, MixedInput) and live.keys_beside
        known = OnsetQueue(beside=beside) if isinstance(live, MidiInput | MixedInput) else None
        listener = Listener(spec, encoder, model.vocabularies, source_rate_hz=rate_hz, known=known)
        player = self._make_player(model, request.settings, request.seed)
        self._stop = last.enter_context(self._stop_event())
        if request.session is not None:
            stack.enter_context(session_folder(request.session))
            self._writer = self._session(request.session, digest)
            self._told.append(self._writer)
        self._observers = ObserverThread(self._told, on_error=lambda text: self._news.append(("observer", text)))
        stack.callback(self._observers.close)
        overlap = -(-spec.segment_samples // spec.hop_samples)
        self.engine = LiveEngine(
            source=live,
            front_end=listener.front_end,
            analysis=AnalysisThread(listener.step, most_waiting=overlap, in_thread=lambda: raise_priority(_ANALYSIS_LEVEL)),
            loop=EventLoop(player, sample_rate_hz=spec.sample_rate_hz),
            output=LiveOutput(
                scheduler,
                self.routings,
                slices=slices,
                recordings=len(model.recordings),
                slices_latency_s=request.latency_s,
                beside=() if monitor is None else (monitor,),
                clock=None if request.clock_out is None else _CLOCK,
            ),
            clock=live.clock,
            spec=spec,
            source_rate_hz=rate_hz,
            block=block,
            capture_s=live.capture_s,
            drift=DriftMonitor(model),
            commands=self._commands,
            observer=self._observers,
            status=player.status if isinstance(player, Partner) else None,
            news=self._news,
        )
        self._is_open = True
        if request.link:
            self._link = LinkClock(self.engine.stream_s, self._put_clock("link"), self._say_link)
            stack.enter_context(LinkSession(self._link, self._say_link))
        sounds = [text for one in (slices, monitor) if one is not None for text in one.opened.values()]
        if model.beats_advice:
            self.engine.tell("partner", model.beats_advice)
        if unheard := unheard_voices(model.memory, self.request.settings):
            self.engine.tell("partner", unheard)
        # A port that stands for no MIDI beside slices is not reported.
        is_silent = bool(slices) and request.midi_out is None and request.voices is None
        for text in sounds if is_silent else [*scheduler.opened.values(), *sounds]:
            self.engine.tell("port", f"plays to {text}")
        self._watch = PartnerWatch(request.partner, digest)
        stack.enter_context(short_pauses())
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        raise_priority(_ENGINE_LEVEL)
        self.engine.run(self._stop)

    def _report_input(self, event: InputEvent) -> None:
        """Pass an event of the input on, unless the engine reports it itself as lost samples."""
        if event.kind not in ("lost", "behind") or not event.lost_samples:
            self._news.append((f"input-{event.kind}", event.text))

    def _open_osc(self, stack: ExitStack) -> None:
        osc = self.request.osc
        if osc.listen is not None:
            self._osc_in = OscInput(osc.listen, self.put, host=osc.host)
            stack.callback(self._osc_in.close)
        if osc.send is not None:
            rate_hz = self.model.spec.sample_rate_hz
            output = OscOutput(osc.send, host=osc.to_host, sample_rate_hz=rate_hz, explain=self.explain)
            stack.callback(output.close)
            self._told.append(output)

    def _midi_inputs(self) -> ControlInputs:
        """Return the MIDI inputs, not yet open: one may give both controllers and the clock."""
        request = self.request
        clock = MidiClock(lambda at_s: self.engine.stream_s(at_s) if self._is_open else None, self._put_clock("midi"))
        clock_in = request.clock_in or request.control_in
        takes = {}
        for name in (request.control_in, clock_in):
            if name is not None:
                here = self._control_map if name == request.control_in else CcMap([])
                learning = self.learning if name == request.control_in else None
                takes[name] = midi_commands(here, self.put, clock if name == clock_in else None, learning)
        return ControlInputs(takes, lambda kind, text: self._news.append((kind, text)))

    def _put_clock(self, source: str) -> Callable[[Mapping[str, object] | None], object]:
        return lambda pulse: self._commands.put(Command("clock", {**(pulse or {}), "source": source}))

    def _say_link(self, text: str) -> None:
        self.engine.tell("link", text)

    def _session(self, folder: Path, digest: str) -> LiveSessionWriter:
        request, rate_hz = self.request, self.input.sample_rate_hz
        settings = SessionSettings(
            partner_path=path_text(request.partner.resolve()),
            partner_sha256=digest,
            partner=request.settings,
            seed=request.seed,
            channel=CHANNEL,
            program=request.program,
            sample_rate_hz=rate_hz,
            input_name=printable(self.input.device.name),
            keys_beside=isinstance(self.input, MixedInput) and self.input.keys_beside,
            stream_rate_hz=self.model.spec.sample_rate_hz,
        )
        return LiveSessionWriter(
            folder,
            settings,
            clock_rate_hz=self.model.spec.sample_rate_hz,
            on_trouble=lambda text: self._news.append(("session", text)),
        )

    def _finish(self) -> None:
        """End all notes, make the summary, close the session."""
        self._scheduler.panic()
        until_s = now_s() + _SETTLE_S
        while (midi := self._scheduler.statistics()).struck != midi.ended and now_s() < until_s:
            threading.Event().wait(0.05)
        engine, live = self.engine, self.input
        self.summary = {
            **engine.statistics(),
            "duration_s": round(engine.now_stream_s, 3),
            "input": live.device.label,
            "input_rate_hz": live.sample_rate_hz,
            "xruns": live.xruns,
            "callback_p99_ms": live.callback_ms(0.99),
            "ports": self._scheduler.opened,
            "priority": self._scheduler.priority,
            "partner_replaced": self._watch.replaced,
            "error": None if engine.error is None else str(engine.error),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        }
        if self._osc_in is not None:
            self.summary["osc"] = {name: getattr(self._osc_in, name) for name in ("received", "malformed", "dropped")}
        if self._link is not None:
            self.summary["link"] = self._link.to_dict()
        if self._writer is None:
            return
        try:
            self._writer.finish(self.summary)
        except (MusicHalError, OSError) as error:
            self.warnings.append(f"the session was not closed whole: {error}")
        if self._writer.trouble is not None:
            self.summary["reply"] = None if self._writer.reply_at is None else str(self._writer.reply_at)
            kept = "" if self._writer.reply_at is None else f"; the answer is whole in {printable(self._writer.reply_at)}"
            self.warnings.append(self._writer.trouble + kept)


def _routings(request: LiveRequest) -> list[Routing]:
    """Return where notes go: ports by --voices or --midi-out, and a synthesiser where --audio-out asks for one."""
    if request.voices is not None and request.midi_out is not None:
        raise InputError("--voices names its ports itself: leave --midi-out out")
    routings = []
    if request.voices is not None:
        routings.append(read_routing(request.voices))
    elif request.midi_out is not None or request.audio_out is None or request.sound == "slices":
        address = request.midi_out or ("auto:" if request.audio_out is None else "none:")
        if Path(address).suffix.lower() in (".mid", ".midi") and ":" not in address:
            address = f"file:{address}"
        routings.append(single_port(address, channel=CHANNEL))
    if request.audio_out is not None and request.sound == "soundfont":
        program = bytes((0xC0 | CHANNEL, request.program))
        address = f"synth:{request.soundfont or ''}"
        routings.append(single_port(address, channel=CHANNEL, name="--audio-out", setup=(program,)))
    check_files(routings, inputs=[request.partner], force=request.force)
    # The latency that holds for all, unless the table of voices has one for the port.
    latency_s = request.latency_s
    return [
        replace(r, ports=tuple(port if port.latency_s else replace(port, latency_s=latency_s) for port in r.ports))
        for r in routings
    ]


def _sent_early(settings: PartnerSettings, latency_s: float) -> PartnerSettings:
    """Return settings by which notes on the pulse are sent so much earlier, unless the player has set by how much."""
    if "latency_ms" in settings.explicit:
        return settings
    return settings.changed({"latency_ms": min(1000.0, round(1000 * latency_s, 1))})


@contextmanager
def _apart(port: PortSettings | None) -> Iterator[Scheduler | None]:
    """Open a sound output on a scheduler of its own, where one is asked for."""
    if port is None:
        yield None
        return
    with Scheduler([port]) as scheduler:
        yield scheduler


def _monitor_port(request: LiveRequest) -> PortSettings | None:
    """Return the sound output for what a MIDI player plays."""
    if request.monitor is None:
        return None
    device = "" if request.monitor == "default" else f">{request.monitor}"
    return PortSettings(_MONITOR, f"keys:{request.soundfont or ''}{device}")


def _slices_port(request: LiveRequest, model: PartnerModel) -> PortSettings | None:
    """Return the sound output for slices of the partner's recordings."""
    if request.audio_out is None or request.sound != "slices":
        return None
    if any(recording.flac is None for recording in model.recordings):
        raise InputError(f"{printable(request.partner)} was trained with --no-audio: it has no sound to cut slices from")
    device = "" if request.audio_out == "default" else f">{request.audio_out}"
    return PortSettings("--audio-out", f"slices:{request.partner}{device}", latency_s=request.latency_s)
