"""`musichal check`: what could go wrong tonight, in ten lines, each green or with what to do."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.text import Text

from musichal.audio.levels import LevelMeter, Levels
from musichal.commands.options import PlayOptions
from musichal.commands.play import live_request
from musichal.commands.terminal import Terminal
from musichal.errors import CheckFailedError, InputError, MusicHalError
from musichal.live.input.live_input import LiveInput
from musichal.live.input.midi_input import MidiInput
from musichal.live.live_performance import LivePerformance, LiveRequest, live_source
from musichal.live.output.midi_ports import open_midi_input
from musichal.live.output.routing import Routing
from musichal.live.output.scheduler import Scheduler
from musichal.live.stage import zone_of
from musichal.machine import now_s, processors
from musichal.memory.partner_file import load_partner
from musichal.note import Note
from musichal.text import clock, counted, printable

_PLANNED_S = 3600.0
_ROOM_S, _OWN_S, _PLAYER_S = 3.0, 3.0, 4.0
"""Of the ten seconds: silence, its own notes, the player."""
_BYTES_PER_SAMPLE, _LOG_BYTES_PER_S = 4, 12_000
_SPARE = 2.0
_HEARD_DB, _APART_DB, _NEAR_DB = 6.0, 20.0, 10.0
_WAIT_S = 0.05
_TUNE = (60, 64, 67, 72, 67, 64)
_SYS = Path("/sys")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at, whether it is good (None: it cannot be told), and what is so, or what to do."""

    name: str
    good: bool | None
    text: str


def check_command(options: PlayOptions, terminal: Terminal) -> list[Finding]:
    """Look at everything that `musichal play` with the same options would need, for ten seconds, and say what to do."""
    options.check()
    if not options.is_live:
        raise InputError("check is for an evening with a live input: a recording needs none")
    asked = LivePerformance(live_request(options))
    request, routings = asked.request, asked.routings
    with terminal.progress("Loading the partner"):
        model = load_partner(request.partner)
    findings = [
        Finding(name="partner", good=True, text=f"{printable(request.partner)}: {counted(len(model.memory), 'gesture')}")
    ]
    with contextlib.ExitStack() as stack:
        scheduler, ports = _ports(routings, stack)
        findings += [*ports, *_controllers(request), disk(request)]
        findings += [governor(), power(), _load()]
        try:
            with live_source(request, model.spec, lambda _: None) as source:
                findings += _listen(source, scheduler, request, model.spec.gate.open_db, terminal)
        except MusicHalError as error:
            findings.append(Finding(name="input", good=False, text=str(error)))
    terminal.result({"findings": [asdict(finding) for finding in findings]})
    marks = {True: ("good", "green"), False: ("DO", "bold red"), None: ("?", "yellow")}
    for finding in findings:
        word, style = marks[finding.good]
        if not terminal.as_json:
            line = Text.assemble((f"{word:<5}", style), f"{finding.name:<12}{finding.text}")
            terminal.out.print(line, highlight=False, soft_wrap=True)
    bad = [finding.name for finding in findings if finding.good is False]
    if bad:
        raise CheckFailedError(f"before you play, look after: {', '.join(bad)}")
    terminal.say("All is well: play.")
    return findings


# ── ports ────────────────────────────────────────────────────────────────────


def _ports(routings: Sequence[Routing], stack: contextlib.ExitStack) -> tuple[Scheduler | None, list[Finding]]:
    """Open the ports that would be played to, but no file; return the scheduler, None without ports."""
    wanted = [p for routing in routings for p in routing.ports if not p.address.startswith(("file:", "none:"))]
    if not wanted:
        return None, [Finding(name="output", good=None, text="notes go to no instrument (a file, or nothing)")]
    try:
        scheduler = stack.enter_context(Scheduler(wanted))
    except MusicHalError as error:
        return None, [Finding(name="output", good=False, text=str(error))]
    found = [Finding(name="output", good=True, text=f"notes go to {text}") for text in scheduler.opened.values()]
    if scheduler.priority.startswith("ordinary"):
        found.append(Finding(name="priority", good=False, text=scheduler.priority))
    else:
        found.append(Finding(name="priority", good=True, text=scheduler.priority))
    return scheduler, found


def _controllers(request: LiveRequest) -> Iterator[Finding]:
    """Yield whether the controllers and the clock are there."""
    names = {"controllers": request.control_in, "clock": request.clock_in}
    for what, name in names.items():
        if name is None:
            continue
        try:
            with open_midi_input(name, lambda _: None) as port:
                yield Finding(name=what, good=True, text=f"{port.name} is there")
        except MusicHalError as error:
            yield Finding(name=what, good=False, text=str(error))
    if request.control_in is None and request.clock_in is None:
        yield Finding(name="controllers", good=None, text="none: the keys of the terminal are all there is (--control-in)")


# ── the machine ──────────────────────────────────────────────────────────────


def disk(request: LiveRequest) -> Finding:
    """Return whether there is room for the session, for as long as is planned."""
    if request.session is None:
        return Finding(name="disk", good=None, text="nothing is recorded (--session FOLDER keeps the evening)")
    if request.session.exists() and (not request.session.is_dir() or any(request.session.iterdir())):
        return Finding(name="disk", good=False, text=f"{printable(request.session)} exists and is not empty: name a new folder")
    planned_s = request.duration_s or _PLANNED_S
    needed = planned_s * (48_000 * _BYTES_PER_SAMPLE + _LOG_BYTES_PER_S)
    place = next(folder for folder in (request.session.absolute(), *request.session.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free, {clock(planned_s, decimals=0)} of music need {needed / 1e9:.2f} GB"
    if request.duration_s is None:
        text += " (--for says how long you play)"
    good = free > _SPARE * needed
    return Finding(name="disk", good=good, text=text if good else f"{text}: make room, or record on another disk")


def governor(root: Path = _SYS) -> Finding:
    """Return whether the processors run at their full clock."""
    found = {_read(path) for path in root.glob("devices/system/cpu/cpu*/cpufreq/scaling_governor")} - {""}
    if not found:
        clocked = "the system does not say how they are clocked"
        return Finding(name="CPU", good=None, text=f"{counted(processors(), 'processor')}; {clocked}")
    if found == {"performance"}:
        return Finding(name="CPU", good=True, text="the processors run at full clock")
    text = f"the governor is {', '.join(sorted(found))}: sudo cpupower frequency-set -g performance"
    return Finding(name="CPU", good=False, text=text)


def power(root: Path = _SYS) -> Finding:
    """Return whether the machine runs on mains, and how to keep it from sleeping."""
    awake = {"linux": "systemd-inhibit musichal play …", "darwin": "caffeinate -i musichal play …"}.get(sys.platform, "")
    hint = f"; so that it does not sleep: {awake}" if awake and (shutil.which(awake.split()[0]) is not None) else ""
    supplies = list(root.glob("class/power_supply/*"))
    if any(_read(supply / "status") == "Discharging" for supply in supplies):
        return Finding(name="power", good=False, text=f"it runs on its battery: plug in the charger{hint}")
    if not supplies:
        return Finding(name="power", good=None, text=f"no battery found{hint}")
    return Finding(name="power", good=True, text=f"it runs on mains{hint}")


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""


def _load() -> Finding:
    """Return whether other programs keep the processors busy."""
    if not hasattr(os, "getloadavg"):
        return Finding(name="load", good=None, text="the system does not say how busy it is: close other programs")
    load, count = os.getloadavg()[0], processors()
    text = f"{load:.1f} programs want to run on {counted(count, 'processor')}"
    return Finding(name="load", good=load < count, text=text if load < count else f"{text}: close other programs")


# ── the sound ────────────────────────────────────────────────────────────────


def _listen(
    source: LiveInput | MidiInput, scheduler: Scheduler | None, request: LiveRequest, gate_db: float, terminal: Terminal
) -> list[Finding]:
    """Listen for ten seconds: to the room, to its own notes, to the player."""
    if isinstance(source, MidiInput):
        return [Finding(name="input", good=True, text=f"{source.device.label}: its notes come exactly, without sound")]
    _heard(source, scheduler, 0.5)  # the first blocks come together
    lost, xruns = source.lost_samples, source.xruns
    terminal.say("Be silent for 6 seconds: it listens to the room, then plays a few notes.")
    room = _heard(source, scheduler, _ROOM_S)
    until_s = _play(scheduler) if scheduler is not None else now_s()
    own = _heard(source, scheduler, max(_OWN_S, until_s - now_s()))
    terminal.say("Now play, as loudly as you will tonight.")
    player = _heard(source, scheduler, _PLAYER_S)
    lost, xruns = source.lost_samples - lost, source.xruns - xruns
    rate_hz, block = source.sample_rate_hz, request.block or 512
    label = f"{source.device.label}, {rate_hz} Hz, period {block} ({1000 * block / rate_hz:.1f} ms)"
    if lost or xruns:
        lost_ms = 1000 * lost / rate_hz
        told = f"{label}: {lost_ms:.0f} ms lost in 10 s ({counted(xruns, 'xrun')}): raise the period, --block {2 * block}"
        found = [Finding(name="input", good=False, text=told)]
    else:
        found = [Finding(name="input", good=True, text=f"{label}: nothing lost in 10 s")]
    return [
        *found,
        room_finding(room, gate_db),
        player_finding(player, room),
        leakage(own, room, player, played=scheduler is not None),
    ]


def _heard(source: LiveInput, scheduler: Scheduler | None, duration_s: float) -> Levels:
    """Return the levels of so many seconds of the input."""
    meter, until_s = LevelMeter(), now_s() + duration_s
    while now_s() < until_s:
        source.wait(_WAIT_S)
        if scheduler is not None:
            scheduler.alive()  # else it would end the notes
        for block in source.read():
            meter.see(block.samples[:, None], block.samples)
    return meter.take()


def _play(scheduler: Scheduler) -> float:
    """Play a few notes on every port; return when they are over."""
    begin_s = now_s() + 0.2
    for port in scheduler.ports:
        scheduler.play(port, [Note(begin_s + 0.4 * k, 0.35, pitch, 90) for k, pitch in enumerate(_TUNE)], tag=0)
    return begin_s + 0.4 * len(_TUNE)


def room_finding(room: Levels, gate_db: float) -> Finding:
    """Return whether the room is quieter than what is taken for playing."""
    text = f"{room.rms_db:.0f} dBFS"
    good = room.rms_db < gate_db
    advice = f"{text}, louder than {gate_db:.0f}, from where on it hears music: a closer microphone, or less gain"
    return Finding(name="room", good=good, text=f"{text}: quiet enough" if good else advice)


def player_finding(player: Levels, room: Levels) -> Finding:
    """Return whether the player's level is good."""
    zone, text = zone_of(player.peak_db), f"peak {player.peak_db:.0f} dBFS"
    if zone != "none" and player.rms_db < room.rms_db + _HEARD_DB:
        return Finding(name="player", good=False, text=f"{text}: no louder than the room: be silent while it listens to that")
    if zone == "none":
        return Finding(name="player", good=False, text=f"{text}: nobody is heard; is the right input chosen and turned up?")
    advice = {"quiet": "turn the gain up", "loud": "turn the gain down a little", "too loud": "turn the gain down"}
    return Finding(name="player", good=zone == "good", text=f"{text}: " + advice.get(zone, "good"))


def leakage(own: Levels, room: Levels, player: Levels, *, played: bool) -> Finding:
    """Return how much of its own sound comes back to the microphone, beside the player."""
    if not played:
        return Finding(name="own sound", good=None, text="it played nothing, so none came back")
    if own.rms_db < room.rms_db + _HEARD_DB:
        return Finding(name="own sound", good=True, text="none comes back to the microphone (if you heard the six notes)")
    apart_db = player.rms_db - own.rms_db
    text = f"comes back at {own.rms_db:.0f} dBFS, {abs(apart_db):.0f} dB {'below' if apart_db >= 0 else 'above'} you"
    if apart_db >= _APART_DB:
        return Finding(name="own sound", good=True, text=text)
    do = "turn its loudspeaker away" if apart_db >= _NEAR_DB else "wear headphones, or use a close microphone or a pickup"
    return Finding(name="own sound", good=False, text=f"{text}: {do}")
