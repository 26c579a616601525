"""Which voice plays where, from a TOML table, and the output that plays decisions so.

    [port.synth]
    to = "virtual:MusicHal"      # any address of musichal.live.output.ports.ADDRESSES
    latency_ms = 12.0            # what the instrument takes to sound: notes leave that much earlier
    mpe = true                   # a channel for every note …
    mpe_members = 15             # … of so many
    mpe_bend_semitones = 48

    [voice.melody]
    port = "synth"               # the name of a port, or an address itself
    channel = 1                  # 1 to 16, as instruments count; drums are on 10 if it is left out
    transpose = -12              # semitones
    range = [40, 84]             # MIDI pitches, lowest and highest
    outside = "fold"             # by octaves into the range, or "drop"
    program = 33                 # 1 to 128, as General MIDI counts
    velocity = { gamma = 1.0, floor = 1, ceiling = 127 }

Every key but a voice's `port` may be left out.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from musichal.errors import InputError, MusicHalError
from musichal.live.engine import slice_events
from musichal.live.output.files import MIDI, check_outputs
from musichal.live.output.scheduler import Scheduler
from musichal.live.output.scheduler_protocol import LONGEST_LATENCY_S, MpeZone, PortSettings, Trouble
from musichal.live.session.export import Part
from musichal.machine import now_s
from musichal.note import PERCUSSION_CHANNEL, Note, check_integer
from musichal.partner.decision import Decision
from musichal.partner.settings import PartnerSettings
from musichal.pulse import Pulse
from musichal.text import PathLike, check_keys, number_in, printable, read_toml

_OCTAVE = 12
_ALIVE_S = 0.1
_RESTART_S = 2.0


@dataclass(frozen=True, slots=True)
class VelocityCurve:
    """From the velocity of a choice to the one that is sent: `floor` + ((v − 1) / 126)^`gamma` · (`ceiling` − `floor`).

    `gamma` (0.1 to 10) under 1 makes soft notes louder, above 1 softer. `floor` and `ceiling` are from 1 to 127.
    """

    gamma: float = 1.0
    floor: int = 1
    ceiling: int = 127

    def __post_init__(self) -> None:
        if not 0.1 <= self.gamma <= 10:
            raise ValueError(f"gamma must be in [0.1, 10], got {self.gamma!r}")
        check_integer("ceiling", self.ceiling, 1, 127)
        check_integer("floor", self.floor, 1, self.ceiling)

    def __call__(self, velocity: int) -> int:
        """Return the velocity to send for `velocity` (1 to 127); the curve never falls."""
        return round(self.floor + ((velocity - 1) / 126) ** self.gamma * (self.ceiling - self.floor))


@dataclass(frozen=True, slots=True)
class VoiceRoute:
    """Where a voice plays, and how its notes are changed on the way.

    `channel` counts from 0; drum hits go to `drum_channel`, every other note to `channel`.
    """

    port: str
    channel: int = 0
    transpose: int = 0
    lowest: int = 0
    highest: int = 127
    outside: Literal["fold", "drop"] = "fold"
    program: int | None = None
    velocity: VelocityCurve = field(default_factory=VelocityCurve)
    drum_channel: int = PERCUSSION_CHANNEL

    def __post_init__(self) -> None:
        check_integer("channel", self.channel, 0, 15)
        check_integer("drum_channel", self.drum_channel, 0, 15)
        check_integer("transpose", self.transpose, -96, 96)
        check_integer("the range's lowest", self.lowest, 0, 127)
        check_integer("the range's highest", self.highest, self.lowest, 127)
        if self.outside not in ("fold", "drop"):
            raise ValueError(f"outside must be 'fold' or 'drop', got {self.outside!r}")
        if self.program is not None:
            check_integer("program", self.program, 0, 127)

    def place(self, note: Note, onset_s: float) -> Note | None:
        """Return the note as it is played from `onset_s` on, or None where it is left out."""
        pitch = self.pitch(note.pitch)
        if pitch is None:
            return None
        channel = self.drum_channel if note.channel == PERCUSSION_CHANNEL else self.channel
        return Note(onset_s, note.duration_s, pitch, self.velocity(note.velocity), channel)

    def pitch(self, pitch: int) -> int | None:
        """Return where a pitch is played, or None where it is left out.

        Outside the range it moves by octaves, by as few as can be; in a range without this pitch class it is left out.
        """
        moved = pitch + self.transpose
        if self.lowest <= moved <= self.highest:
            return moved
        if self.outside == "drop":
            return None
        if moved < self.lowest:
            moved += math.ceil((self.lowest - moved) / _OCTAVE) * _OCTAVE
        else:
            moved -= math.ceil((moved - self.highest) / _OCTAVE) * _OCTAVE
        return moved if self.lowest <= moved <= self.highest else None


@dataclass(frozen=True)
class Routing:
    """The ports, and the route of every voice. A voice without one plays where `default` says, if anywhere."""

    ports: tuple[PortSettings, ...]
    voices: Mapping[str, VoiceRoute]
    default: VoiceRoute | None = None

    def route_of(self, voice: str) -> VoiceRoute | None:
        """Return the route of a voice, None where it has none."""
        return self.voices.get(voice, self.default)


def single_port(address: str, *, channel: int = 0, name: str = "out", setup: tuple[bytes, ...] = ()) -> Routing:
    """Return the routing where every voice plays on one channel of one port. Raises `ValueError` for a wrong channel."""
    return Routing((PortSettings(name, address, setup=setup),), {}, VoiceRoute(name, channel))


def check_files(routings: Iterable[Routing], *, inputs: Iterable[PathLike], force: bool) -> None:
    """Raise `InputError` where a MIDI file cannot be written, or would replace what MusicHal did not write."""
    files = [port.address.partition(":")[2] for r in routings for port in r.ports if port.address.startswith("file:")]
    check_outputs([(file, MIDI) for file in files if file], inputs=inputs, force=force)


def read_routing(path: PathLike) -> Routing:
    """Read a TOML file of ports and voices. Raises `InputError` naming the file, the place and what is wrong there."""
    table = read_toml(path)
    try:
        return parse_routing(table)
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from error


def parse_routing(table: Mapping[str, Any]) -> Routing:
    """Return the routing that a table describes. Raises `InputError` for unknown keys and for values that cannot be."""
    check_keys(table, ("port", "voice"), "the table")
    named = _tables("port", table)
    voices = _tables("voice", table)
    if not voices:
        raise InputError("there is no voice: write [voice.NAME] with a port")
    routes = {name: _voice(f"voice.{name}", values) for name, values in voices.items()}
    ports = [_port(name, values, _programs(name, routes.values())) for name, values in named.items()]
    for route in routes.values():
        if route.port not in {port.name for port in ports}:
            ports.append(PortSettings(route.port, route.port, setup=_programs(route.port, routes.values())))
    unused = sorted(named.keys() - {route.port for route in routes.values()})
    if unused:
        raise InputError(f"port.{unused[0]}: no voice plays on it")
    return Routing(tuple(ports), routes)


def _programs(port: str, routes: Iterable[VoiceRoute]) -> tuple[bytes, ...]:
    chosen: dict[int, int] = {}
    for route in routes:
        if route.port != port or route.program is None:
            continue
        if chosen.setdefault(route.channel, route.program) != route.program:
            raise InputError(f"two voices ask for different programs on channel {route.channel + 1} of {printable(port)}")
    return tuple(bytes((0xC0 | channel, program)) for channel, program in sorted(chosen.items()))


def _port(name: str, values: Mapping[str, Any], setup: tuple[bytes, ...]) -> PortSettings:
    where = f"port.{name}"
    check_keys(values, ("to", "latency_ms", "mpe", "mpe_members", "mpe_bend_semitones"), where)
    mpe = values.get("mpe", False)
    if type(mpe) is not bool:
        raise InputError(f"{where}: mpe must be true or false, got {mpe!r}")
    if not mpe and ("mpe_members" in values or "mpe_bend_semitones" in values):
        raise InputError(f"{where}: mpe_members and mpe_bend_semitones need mpe = true")
    if mpe:
        # Every note has a channel of its own there, so a program goes to the master channel, for the whole zone.
        setup = tuple(sorted({bytes((0xC0, data[1])) for data in setup}))
        if len(setup) > 1:
            raise InputError(f"{where}: an MPE port has one program for all its voices")
    try:
        latency_ms = number_in(values.get("latency_ms", 0.0), 0, 1000 * LONGEST_LATENCY_S, f"{where}: latency_ms")
        check_integer("mpe_members", members := values.get("mpe_members", 15), 1, 15)
        check_integer("mpe_bend_semitones", bend_semitones := values.get("mpe_bend_semitones", 48), 1, 96)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    zone = MpeZone(members, bend_semitones) if mpe else None
    return PortSettings(name, _text(where, values, "to"), latency_s=latency_ms / 1000, zone=zone, setup=setup)


def _voice(where: str, values: Mapping[str, Any]) -> VoiceRoute:
    check_keys(values, ("port", "channel", "transpose", "range", "outside", "program", "velocity"), where)
    limits, curve = values.get("range", [0, 127]), values.get("velocity", {})
    if not (isinstance(limits, list) and len(limits) == 2):
        raise InputError(f"{where}: range must be the lowest and the highest pitch, such as [40, 84]")
    if not isinstance(curve, dict):
        raise InputError(f"{where}: velocity must be a table, got {curve!r}")
    check_keys(curve, ("gamma", "floor", "ceiling"), f"{where}.velocity")
    gamma = number_in(curve.get("gamma", 1.0), 0.1, 10, f"{where}.velocity: gamma")
    channel, program = values.get("channel", 1), values.get("program", 1)
    try:
        check_integer("channel", channel, 1, 16)
        check_integer("program", program, 1, 128)
        return VoiceRoute(
            port=_text(where, values, "port"),
            channel=channel - 1,
            transpose=values.get("transpose", 0),
            lowest=limits[0],
            highest=limits[1],
            outside=values.get("outside", "fold"),
            program=program - 1 if "program" in values else None,
            velocity=VelocityCurve(**curve | {"gamma": gamma}),
            drum_channel=channel - 1 if "channel" in values else PERCUSSION_CHANNEL,
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _tables(kind: str, table: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    tables = table.get(kind, {})
    if not isinstance(tables, dict) or not all(isinstance(values, dict) for values in tables.values()):
        raise InputError(f"{kind} must be tables, such as [{kind}.NAME]")
    return dict(tables)


def _text(where: str, values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        raise InputError(f"{where} needs {key}")
    text = values[key]
    if not isinstance(text, str):
        raise InputError(f"{where}: {key} must be text, got {text!r}")
    return text


def settings_for(routing: Routing, settings: PartnerSettings, name: str) -> PartnerSettings:
    """Return settings with the voices of a table called `name`, unless others were chosen.

    Raises `InputError` for a voice without a route, and one that does not exist.
    """
    if "voices" not in settings.explicit and not all(routing.route_of(v.name) for v in settings.voices):
        try:
            return settings.changed({"voices": ", ".join(routing.voices)})
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    for voice in settings.voices:
        if routing.route_of(voice.name) is None:
            raise InputError(f"{name} has no route for the voice {voice.name!r}: add [voice.{voice.name}] with a port")
    return settings


def routed_parts(decisions: Iterable[Decision], routing: Routing, *, program: int) -> list[Part]:
    """Return what each voice plays, on its channel and in its range; `program` is for pitched voices that name none.

    Here all ports are one: where a voice of another port or program has the channel already, the next takes a free one.
    """
    notes: dict[str, list[Note]] = {}
    for decision in decisions:
        notes.setdefault(decision.voice, []).extend(decision.notes)
    routes = {voice: route for voice in notes if (route := routing.route_of(voice)) is not None}
    free = [
        channel for channel in range(15, -1, -1) if channel not in {PERCUSSION_CHANNEL, *(r.channel for r in routes.values())}
    ]
    users: dict[int, tuple[str, int | None]] = {}
    parts = []
    for voice, route in routes.items():
        pitched, user = any(note.channel != PERCUSSION_CHANNEL for note in notes[voice]), (route.port, route.program)
        taken = pitched and users.setdefault(route.channel, user) != user
        own = replace(route, channel=free.pop()) if taken and free else route
        if placed := [note for n in notes[voice] if (note := own.place(n, n.onset_s)) is not None]:
            parts.append(Part(voice, tuple(placed), program if pitched and own.program is None else own.program))
    return parts


class LiveOutput:
    """Plays decisions on the ports of a scheduler, and restarts it where it ended.

    * `scheduler`: Entered; its ports are those of all routings.
    * `routings`: Every note is played by each of them.
    * `slices`: A second one, entered, with one port ``slices:PARTNER.hal``: plays the recording of each decision too.
    * `recordings`: How many recordings the partner has. What the player played, learned live, is not among them.
    * `slices_latency_s`: Latency of the port of `slices`.
    * `beside`: Others that are kept alive, and silenced in a panic.
    * `clock`: The port of the scheduler that sends MIDI clock.
    * `latency_s`: The largest latency of a port. What is sent to a faster one leaves later by as much as it is faster, so
      that all sound together. The partner sends what is to sound on time so much earlier: see `musichal.parameters`,
      ``latency_ms``.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        routings: Sequence[Routing],
        *,
        slices: Scheduler | None = None,
        recordings: int = 0,
        slices_latency_s: float = 0.0,
        beside: Sequence[Scheduler] = (),
        clock: str | None = None,
    ) -> None:
        self.latency_s = largest_latency_s(routings, slices_latency_s)
        self._scheduler, self._slices, self._routings = scheduler, slices, tuple(routings)
        self._schedulers = (scheduler, *([] if slices is None else [slices]), *beside)
        self._clock = clock
        self._pulse: tuple[float, float] | None = None
        self._recordings = recordings
        self._alive_s = -math.inf
        self._has_several = sum(len(one.ports) for one in self._schedulers) > 1
        self._restarted_s = [-math.inf for _ in self._schedulers]
        self._muted = self._begun = False
        self._unrouted: set[str] = set()
        self._news: list[tuple[str, str]] = []
        self._last_slice: tuple[int, float] | None = None

    def play(self, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Schedule the notes of a decision, and its slice; returns how many were taken.

        A voice without a route is not played, and reported once.
        """
        if decision.notes and not self._begun:
            self._begun = True
            self._scheduler.begin(moment_of(0.0) + self.latency_s)
        taken = 0
        for routing in self._routings:
            route = routing.route_of(decision.voice)
            if route is None:
                self._report_unrouted(decision.voice)
                continue
            placed = [route.place(note, moment_of(note.onset_s) + self.latency_s) for note in decision.notes]
            notes = [note for note in placed if note is not None]
            taken += self._scheduler.play(route.port, notes, tag=_tag(decision))
        return taken + (0 if self._slices is None else self._play_slice(self._slices, decision, moment_of))

    def _report_unrouted(self, voice: str) -> None:
        if voice not in self._unrouted:
            self._unrouted.add(voice)
            self._news.append(("voice", f"the voice {voice!r} has no route in the table of voices: it is not played there"))

    def _play_slice(self, scheduler: Scheduler, decision: Decision, moment_of: Callable[[float], float]) -> int:
        """Schedule the slice of a decision; voices that share a state are one slice."""
        events = slice_events([decision])
        place = decision.choice, decision.time_s
        if not events or place == self._last_slice or events[0].recording >= self._recordings:
            return 0
        self._last_slice = place
        return scheduler.play(
            scheduler.ports[0], [events[0].at(moment_of(events[0].onset_s) + self.latency_s)], tag=_tag(decision)
        )

    def follow(self, pulse_of: Callable[[], Pulse | None], moment_of: Callable[[float], float]) -> None:
        """Send MIDI clock by a pulse of the stream, or stop it; call it a few times a second."""
        if self._clock is None:
            return
        pulse = pulse_of()
        found = None if pulse is None else (moment_of(pulse.beat_s) + self.latency_s, pulse.period_s)
        if found is None and self._pulse is not None:
            self._scheduler.follow(self._clock, 0.0, 0.0)
        elif found is not None:
            self._scheduler.follow(self._clock, *found)
        self._pulse = found

    def mute(self, muted: bool) -> None:
        """While muted, strike no note; what sounds ends."""
        self._muted = muted
        for scheduler in self._schedulers:
            scheduler.mute(muted)

    def panic(self) -> None:
        """End everything, and drop what is scheduled."""
        for scheduler in self._schedulers:
            scheduler.panic()

    def tend(self) -> Sequence[tuple[str, str]]:
        """Report to the schedulers that the engine is alive; returns what went wrong since the last call."""
        now = now_s()
        if now - self._alive_s < _ALIVE_S:
            return ()
        self._alive_s = now
        news, self._news = self._news, []
        for index, scheduler in enumerate(self._schedulers):
            restarted = self._keep_alive(index, scheduler, now)
            for event in scheduler.events():
                if isinstance(event, Trouble):
                    port = f"{event.port}: " if event.port is not None and self._has_several else ""
                    news.append((event.kind, port + event.text))
            news += restarted
        return news

    def _keep_alive(self, index: int, scheduler: Scheduler, now: float) -> list[tuple[str, str]]:
        if scheduler.alive() or now - self._restarted_s[index] <= _RESTART_S:
            return []
        self._restarted_s[index] = now
        try:
            scheduler.restart()
            scheduler.mute(self._muted)
        except (MusicHalError, OSError) as error:
            return [("scheduler", f"the scheduler cannot be restarted: {error}")]
        return [("scheduler", "the scheduler is restarted")]

    def statistics(self) -> Mapping[str, object]:
        """Return the figures of the first scheduler, those in seconds as milliseconds."""
        values: dict[str, object] = {}
        for name, value in asdict(self._scheduler.statistics()).items():
            seconds = name.endswith("_s")
            values[f"midi_{name.removesuffix('_s')}" + ("_ms" if seconds else "")] = (
                round(1000 * value, 3) if seconds else value
            )
        return values


def largest_latency_s(routings: Sequence[Routing], slices_latency_s: float = 0.0) -> float:
    """Return the largest latency of a port."""
    return max([slices_latency_s, *(port.latency_s for routing in routings for port in routing.ports)])


def _tag(decision: Decision) -> int:
    return decision.number & 0xFFFFFFFF
