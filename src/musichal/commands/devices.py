"""`musichal devices` and `learn`: the sound and MIDI of this machine, their latency, and a map of MIDI controllers."""

import contextlib
import importlib.util
import io
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.text import Text

from musichal.arrays import Float32, Float64
from musichal.atomic import open_atomically
from musichal.commands.options import positive_seconds
from musichal.commands.terminal import Poll, Terminal, keys, table_of
from musichal.errors import InputError, MusicHalError, install_hint
from musichal.live.control import BUTTONS, cc_map_toml, read_cc_map
from musichal.live.input.controllers import Mover, learned, parse_wish, struck
from musichal.live.input.live_input import LiveInput, Scan, scan_devices
from musichal.live.output.files import MAP, check_outputs
from musichal.live.output.midi_ports import INSTEAD, MidiSystem, midi_systems, open_midi_input
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import PortSettings
from musichal.machine import now_s, silent_stderr
from musichal.note import Note
from musichal.text import counted, printable, read_text


@dataclass(frozen=True)
class Part:
    """Something that live playing can use: whether it `works`, and in `detail` what it gives or how to get it."""

    name: str
    works: bool
    detail: str


def devices_command(
    *,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure what the output takes to sound: the value for `play --latency`.")
    ] = False,
    input: Annotated[str | None, typer.Option(help="--latency: the input that hears the output.")] = None,
    midi_out: Annotated[str, typer.Option(help="--latency: the port that plays the clicks, as of `play`; or synth:")] = "auto:",
    by_ear: Annotated[bool, typer.Option("--by-ear", help="--latency: without an input: tap a key along with clicks.")] = False,
    terminal: Terminal,
) -> None:
    """Show the devices, and what works; what is missing is no error. Or measure the latency of an output."""
    if latency:
        latency_command(input=input, midi_out=midi_out, by_ear=by_ear, terminal=terminal)
        return
    if input is not None or midi_out != "auto:" or by_ear:
        raise InputError("--input, --midi-out and --by-ear are for --latency")
    scan, sound = _sound()
    with silent_stderr():
        systems, midi = _midi()
    parts = [sound, *midi, _jack(), Part("OSC", True, "control in, notes and decisions out"), _synth(), _link()]
    terminal.result(
        {
            "inputs": [device.to_dict() for device in scan.inputs],
            "outputs": [device.to_dict() for device in scan.outputs],
            "midi_outputs": [{"system": system.name, "name": name} for system in systems for name in system.outputs],
            "midi_inputs": [{"system": system.name, "name": name} for system in systems for name in system.inputs],
            "parts": [asdict(part) for part in parts],
        }
    )
    for title, found in (("Audio inputs", scan.inputs), ("Audio outputs", scan.outputs)):
        rows = [
            (str(x.number), x.name, x.host_api, str(x.channels), f"{x.default_rate_hz:.0f} Hz", "yes" if x.is_default else "")
            for x in found
        ]
        _show(title, ("number", "name", "by", "channels", "rate", "default"), rows, terminal)
    for title, side in (("MIDI outputs", "outputs"), ("MIDI inputs", "inputs")):
        names = [(name, system.name) for system in systems for name in getattr(system, side)]
        _show(title, ("name", "system"), names, terminal)
    verdicts = {True: Text("works", "green"), False: Text("missing", "yellow")}
    working = [(part.name, verdicts[part.works], part.detail) for part in parts]
    terminal.show(table_of("What works here", ("part", "", "what it gives, or how to get it"), working))


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], terminal: Terminal) -> None:
    if rows:
        terminal.show(table_of(title, columns, rows))
    else:
        terminal.say(f"{title}: none")


def _sound() -> tuple[Scan, Part]:
    try:
        scan = scan_devices()
    except MusicHalError as error:
        return Scan((), ()), Part("live sound", False, str(error))
    if not scan.inputs:
        return scan, Part("live sound", False, "PortAudio works, and finds no input: plug one in, or start a sound server")
    return scan, Part("live sound", True, f"{counted(len(scan.inputs), 'input')}, {counted(len(scan.outputs), 'output')}")


def _midi() -> tuple[tuple[MidiSystem, ...], list[Part]]:
    try:
        systems = midi_systems()
    except MusicHalError as error:
        return (), [Part("MIDI ports", False, str(error))]
    if not any(system.works for system in systems):
        reasons = "; ".join(f"{system.name}: {system.trouble}" for system in systems)
        return systems, [Part("MIDI ports", False, f"no MIDI system works here ({reasons}); {INSTEAD}")]
    return systems, [
        Part(
            f"MIDI by {system.name}",
            system.works,
            system.trouble or f"{counted(len(system.outputs), 'output')}, {counted(len(system.inputs), 'input')}",
        )
        for system in systems
    ]


def _jack() -> Part:
    try:
        import jack  # noqa: F401
    except ImportError:
        return Part("JACK MIDI, exact to the sample", False, f"JACK-Client is not installed; {install_hint('jack')}")
    except OSError:
        return Part("JACK MIDI, exact to the sample", False, "libjack is not installed; Debian, Ubuntu: apt-get install jackd2")
    return Part("JACK MIDI, exact to the sample", True, "needs a running JACK server")


def _synth() -> Part:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says on standard output where it found its library
            import fluidsynth  # noqa: F401
    except ImportError as error:  # pyfluidsynth says the same where it does not find the library
        if error.name == "fluidsynth":
            return Part("live synth", False, f"a built-in sound plays instead; for a soundfont: {install_hint('synth')}")
        return Part("live synth", False, "FluidSynth is not installed; Debian, Ubuntu: apt-get install libfluidsynth3")
    return Part("live synth", True, "plays a soundfont by FluidSynth")


def _link() -> Part:
    if importlib.util.find_spec("aalink") is None:
        return Part("Ableton Link", False, f"aalink, which is under the GPL, is not installed; {install_hint('link')}")
    return Part("Ableton Link", True, "tempo and beat of a session on the local network: `musichal play --link`")


# ── learn ────────────────────────────────────────────────────────────────────


def learn_command(
    *,
    path: Annotated[Path, typer.Argument(metavar="MAP", help="The map of controllers (TOML); its entries stay.")],
    wishes: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND...", help="For each controller NAME (a button), NAME=LOW:HIGH or NAME=CHOICE,CHOICE."),
    ],
    control_in: Annotated[str, typer.Option(help="The MIDI input: part of its name, or virtual:NAME.")],
    within: Annotated[str, typer.Option(help="How long to wait for each controller.")] = "60s",
    terminal: Terminal,
) -> None:
    """Ask for one controller after another, and write the map after each.

    Raises `MusicHalError` for a wish, a map or a MIDI input that cannot be used; what was learned before is written.
    """
    timeout_s = positive_seconds(within, "--within")
    asked = [parse_wish(text) for text in wishes]
    mappings, text = [], ""
    check_outputs([(path, MAP)], force=True)
    if path.exists():  # what is no map is refused here
        mappings, text = list(read_cc_map(path).mappings), read_text(path)
    taken: set[tuple[int, int]] = set()
    messages: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()
    with open_midi_input(control_in, lambda data: messages.put(tuple(data))) as port:
        terminal.say(f"Listening to {printable(port.name)}.")
        for wish in asked:
            button = wish.name in BUTTONS
            terminal.say(f"Move the controller{', or strike the note,' if button else ''} for {wish.name} …")
            place, note = _moved(messages.get, Mover(taken), timeout_s, notes=button)
            if place is None:
                raise InputError(f"no controller was moved for {wish.name} within {timeout_s:g} s")
            if not note:
                taken.add(place)
            mappings = learned(mappings, wish, place, note=note)
            text = cc_map_toml(mappings, before=text)
            with open_atomically(path) as stream:
                stream.write(text.encode())
            terminal.say(f"  {'note' if note else 'controller'} {place[1]} on channel {place[0] + 1} is {wish.name}")
    terminal.result({"map": str(path), "learned": [w.name for w in asked], "mappings": len(mappings)})
    terminal.say(f"Wrote {printable(path)}; play with --control-in and --map {printable(path)}.")


def _moved(
    get: Callable[..., tuple[int, ...]], mover: Mover, timeout_s: float, *, notes: bool
) -> tuple[tuple[int, int] | None, bool]:
    """Return the channel and number of the controller that is moved next, None where none is in time, and if it is a note."""
    until_s = now_s() + timeout_s
    while (left_s := until_s - now_s()) > 0:
        try:
            data = get(timeout=left_s)
        except queue.Empty:
            break
        note = struck(data) if notes else None
        place = mover.take(data) or note
        if place is not None:
            return place, note is not None
    return None, False


# ── latency ──────────────────────────────────────────────────────────────────

ANTICIPATION_S = 0.02
"""So much before a beat musicians tap who hear it (10 to 50 ms: Repp & Su, Psychonomic Bulletin & Review 2013)."""
_PITCH, _VELOCITY, _NOTE_S = 72, 112, 0.05
_CLICKS, _APART_S = 12, 0.75
_BEATS, _BEAT_S, _FIRST_BEATS = 20, 0.6, 4
_FIRST_S, _BEFORE_S = 1.5, 0.1
_SHORTEST_S, _EARLIEST_TAP_S = 0.0005, 0.15
_LOUDER, _RISEN = 4.0, 0.2
_FEWEST = 4
_POLL_S = 0.05
_SURE_S = 0.01


@dataclass(frozen=True)
class Measured:
    """The median of latencies, half of which lie within `spread_s` around it, and their number."""

    median_s: float
    spread_s: float
    number: int


def measured(latencies_s: Float64) -> Measured:
    """Return the median and the spread of latencies, shape (n,), n > 0."""
    low, median, high = np.percentile(latencies_s, [25, 50, 75])
    return Measured(float(median), float(high - low), len(latencies_s))


def clicks_heard(samples: Float32, sent: Float64, *, rate_hz: int) -> Float64:
    """Return how long after it was sent each click that is heard begins, in s.

    * `samples`: Shape (n,).
    * `sent`: Where in the samples clicks were sent, shape (m,).
    """
    from scipy.ndimage import uniform_filter1d  # slow to import, and only the delay test needs it

    smooth = max(1, round(_SHORTEST_S * rate_hz))
    envelope = uniform_filter1d(np.abs(samples).astype(np.float64), smooth)
    before, after = round(_BEFORE_S * rate_hz), round((_APART_S - _BEFORE_S) * rate_hz)
    parts, begins = [], []
    for place in np.round(sent).astype(int).tolist():
        if place < before or place + after > len(envelope):
            continue
        quiet, part = envelope[place - before : place], envelope[place : place + after]
        if part.max() > _LOUDER * max(float(quiet.max()), 1e-4):
            parts.append(part)
            begins.append(int(np.argmax(part > _RISEN * part.max())))
    if not parts:
        return np.zeros(0)
    # One that is like most others says where a click begins; the others are laid over it.
    model = parts[int(np.argsort(begins)[len(begins) // 2])]
    begin = int(np.median(begins))
    reach = round(_BEFORE_S * rate_hz)
    shape = model[max(0, begin - smooth) : begin + reach]
    lags = [int(np.argmax(np.correlate(part, shape, mode="valid"))) + min(begin, smooth) for part in parts]
    return np.array(lags) / rate_hz


def taps_after(taps_s: Float64, clicks_s: Float64) -> Float64:
    """Return how long after the click that it belongs to each tap comes, without those of the first clicks, shape (n,)."""
    found = []
    for tap_s in taps_s.tolist():
        since_s = tap_s - clicks_s
        here = since_s[(since_s >= -_EARLIEST_TAP_S) & (since_s < _BEAT_S - _EARLIEST_TAP_S)]
        if here.size and tap_s - clicks_s[0] > _FIRST_BEATS * _BEAT_S - _EARLIEST_TAP_S:
            found.append(here[0])
    return np.array(found)


def latency_command(*, input: str | None, midi_out: str, by_ear: bool, terminal: Terminal) -> None:
    """Measure what an output takes to sound, and say the value for ``--latency``."""
    with _output(midi_out, terminal) as scheduler:
        latencies_s = np.zeros(0) if by_ear else _by_loopback(scheduler, input, terminal)
        by_ear = by_ear or len(latencies_s) < _FEWEST
        if by_ear:
            latencies_s = _by_tap(scheduler, terminal)
    found = measured(latencies_s)
    latency_s = max(0.0, found.median_s + (ANTICIPATION_S if by_ear else 0.0))
    value = {"latency_ms": round(1000 * latency_s, 1), "median_ms": round(1000 * found.median_s, 2)}
    method = "tap" if by_ear else "loopback"
    terminal.result({**value, "spread_ms": round(1000 * found.spread_s, 2), "number": found.number, "method": method})
    spread = f"median {1000 * found.median_s:.1f} ms of {found.number}, half of them within {1000 * found.spread_s:.1f} ms"
    if by_ear:
        terminal.say(f"You tapped that long after the clicks were sent: {spread}.")
        terminal.say(
            f"People tap 10 to 50 ms before a beat that they hear; {1000 * ANTICIPATION_S:.0f} ms are added for that."
            " A loopback (a microphone before the loudspeaker, or a cable) is exact."
        )
    else:
        terminal.say(f"The clicks were heard that long after they were sent: {spread}.")
    if found.spread_s > _SURE_S:
        terminal.warn("that varies much: measure again, in a quiet room, with a short sound")
    terminal.say(f"Play with --latency {1000 * latency_s:.0f}")


@contextlib.contextmanager
def _output(address: str, terminal: Terminal) -> Iterator[Scheduler]:
    with Scheduler([PortSettings("out", address)]) as scheduler:
        terminal.say(f"Playing to {printable(scheduler.opened['out'])}.")
        yield scheduler


def _plan(scheduler: Scheduler, number: int, apart_s: float) -> Float64:
    """Schedule clicks; return their moments."""
    moments: Float64 = now_s() + _FIRST_S + apart_s * np.arange(number, dtype=np.float64)
    scheduler.play("out", [Note(float(moment_s), _NOTE_S, _PITCH, _VELOCITY) for moment_s in moments])
    return moments


def _by_loopback(scheduler: Scheduler, device: str | None, terminal: Terminal) -> Float64:
    """Return the latencies of the clicks that were heard at an input."""
    with LiveInput(device) as live:
        terminal.say(f"Listening to {printable(live.device.label)}: {_CLICKS} clicks …")
        moments = _plan(scheduler, _CLICKS, _APART_S)
        parts: list[Float32] = []
        while now_s() < moments[-1] + _APART_S + 0.2:
            live.wait(_POLL_S)
            scheduler.alive()
            for block in live.read():
                parts += [np.zeros(block.lost_before, dtype=np.float32), block.samples]
        if not parts:
            return np.zeros(0)
        sent = np.array([live.clock.position_at(moment_s + live.capture_s) for moment_s in moments])
        found = clicks_heard(np.concatenate(parts), sent, rate_hz=live.sample_rate_hz)
        if len(found) < _FEWEST:
            terminal.warn(
                f"{len(found)} of {_CLICKS} clicks were heard at {live.device.label}: is the output connected, and does the"
                " input hear it?"
            )
        return found


def _by_tap(scheduler: Scheduler, terminal: Terminal) -> Float64:
    """Return how long after the clicks a key was pressed."""
    terminal.say(f"Tap the space bar along with the clicks, {_BEATS} of them …")
    taps: list[float] = []
    with keys() as poll:
        moments = _plan(scheduler, _BEATS, _BEAT_S)
        while now_s() < moments[-1] + _BEAT_S:
            taps += _pressed(poll)
            scheduler.alive()
    found = taps_after(np.array(taps), moments)
    if len(found) < _FEWEST:
        raise InputError(
            "nobody tapped, and no loopback was heard: name the input that hears the output with --input, or tap at a terminal"
        )
    return found


def _pressed(poll: Poll) -> list[float]:
    pressed = poll(_POLL_S)
    return [now_s()] if pressed else []
