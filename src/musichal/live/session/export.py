"""A session for a DAW: its markers and beats, MIDI of several parts, a Reaper project, and both players as sound.

Times are seconds of the input, from the first sample of the session on. A MIDI tick is shorter than a sample at 48 kHz, from 94
beats a minute on; so what is written lies with the sound to the sample.
"""

import contextlib
import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal, Self

import mido
import numpy as np

from musichal.arrays import Float32
from musichal.audio.instrument import Instrument, render_notes
from musichal.audio.levels import at_loudness, mix
from musichal.audio.slices import render_slices
from musichal.errors import InputError
from musichal.live.engine import slice_events
from musichal.live.output.midi_file import in_ticks
from musichal.live.session.event_log import Changed, Marked, Played, Silences
from musichal.live.session.session import Session
from musichal.note import PERCUSSION_CHANNEL, Note, Slice
from musichal.partner.decision import Decision
from musichal.partner.form import WISHES, Form, FormCourse
from musichal.partner.mode_controller import directed_by

MarkerKind = Literal["mark", "section", "mode", "key"]

_JUST_IN_S = 1e-6  # so that a time is not rounded to before its section
_SURE_KEY = 0.5
_KEY_HOLDS_S = 6.0
_FREE_US = 500_000  # 120 beats a minute, where no pulse is known
_FAR_BEATS, _APART_BEATS, _LEAST_BEATS = 32, 8, 8
_OFF_BEAT = 0.2
_SHORTEST_BEAT = 0.75


@dataclass(frozen=True)
class Marker:
    """Something at a time: a mark of the player's, a section of the form, a mode, or a key of the player."""

    at_s: float
    kind: MarkerKind
    text: str

    @property
    def words(self) -> str:
        """The marker as a DAW shows it."""
        return self.text if self.kind in ("mark", "section") else f"{self.kind} {self.text}"


def session_markers(session: Session) -> list[Marker]:
    """Return marks, sections, modes and keys of a session, in order of time."""
    _, form = directed_by(session.settings.partner.direction)
    rate_hz = session.settings.stream_rate_hz
    changes = [(e.at_sample / rate_hz, e.changes) for e in session.entries if isinstance(e, Changed)]
    wishes = [(at_s, asked) for at_s, asked in changes if not asked.keys().isdisjoint(WISHES)]
    found = [*_sections(form, wishes, session.duration_s), *_modes(session.decisions), *_keys(session.decisions)]
    return sorted([*session_marks(session), *found], key=lambda marker: marker.at_s)


def session_marks(session: Session) -> list[Marker]:
    """Return the marks that the player made, in order of time."""
    marks = [entry for entry in session.entries if isinstance(entry, Marked)]
    rate_hz = session.settings.stream_rate_hz
    return [Marker(m.at_sample / rate_hz, "mark", m.text or f"mark {number}") for number, m in enumerate(marks, start=1)]


def _sections(form: Form, changes: Sequence[tuple[float, Mapping[str, object]]], end_s: float) -> list[Marker]:
    """Return when sections of a form began, as the player held it and moved it on: `changes` at their times."""
    course, found, now_s = FormCourse(form), list[Marker](), 0.0
    for at_s, wishes in [*changes, (end_s, {})]:
        while now_s < at_s:
            moment = course.at(now_s)
            text = "end of the form" if moment.has_ended else moment.name
            if text and (not found or found[-1].text != text):
                found.append(Marker(round(now_s, 5), "section", text))
            if moment.until_s is None or not now_s < moment.until_s < at_s:
                break
            now_s = moment.until_s + _JUST_IN_S
        now_s = at_s
        with contextlib.suppress(InputError):
            course.change(wishes, at_s)
    return found


def _modes(decisions: Iterable[Decision]) -> list[Marker]:
    found: list[Marker] = []
    for decision in decisions:
        if decision.mode and (not found or found[-1].text != decision.mode):
            found.append(Marker(decision.time_s, "mode", decision.mode))
    return found


def _keys(decisions: Iterable[Decision]) -> list[Marker]:
    """Return where the player's key changes, leaving out what is unsure or does not last."""
    sure = [(d.time_s, d.harmony.key) for d in decisions if d.harmony is not None and d.harmony.key_chance >= _SURE_KEY]
    runs: list[tuple[float, float, str]] = []
    for time_s, key in sure:
        start_s = runs.pop()[0] if runs and runs[-1][2] == key else time_s
        runs.append((start_s, time_s, key))
    found: list[Marker] = []
    for start_s, last_s, key in runs:
        if last_s - start_s >= _KEY_HOLDS_S and (not found or found[-1].text != key):
            found.append(Marker(start_s, "key", key))
    return found


# ── beats ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class TempoStep:
    """From `start_s` on, where beat number `beat` falls, a beat lasts `beat_us` microseconds, as MIDI files count."""

    start_s: float
    beat: int
    beat_us: int

    @property
    def bpm(self) -> float:
        """Beats per minute."""
        return 60e6 / self.beat_us


@dataclass(frozen=True)
class TempoMap:
    """Steps of tempo without a gap; the first begins at 0 s with beat 0, the last has no end."""

    steps: tuple[TempoStep, ...] = (TempoStep(0.0, 0, _FREE_US),)

    def beat_at(self, time_s: float) -> float:
        """Return how many beats have passed at a time."""
        step = self.steps[max(0, bisect_right(self.steps, time_s, key=lambda s: s.start_s) - 1)]
        return step.beat + (time_s - step.start_s) * 1e6 / step.beat_us

    @classmethod
    def through(cls, beats_s: Sequence[tuple[float, int]]) -> Self:
        """Return the map in which beats, numbered upwards from one at 0 s, fall at these times, to half a microsecond each."""
        steps: list[TempoStep] = []
        now_s = 0.0
        for (_, number), (next_s, next_number) in pairwise(beats_s):
            # Measured from where the steps so far really end, so that rounding does not add up.
            beat_us = max(1, round((next_s - now_s) * 1e6 / (next_number - number)))
            steps.append(TempoStep(now_s, number, beat_us))
            now_s += beat_us * (next_number - number) / 1e6
        if not steps:
            return cls()
        usual_us = round(now_s * 1e6 / beats_s[-1][1])
        return cls((*steps, TempoStep(now_s, beats_s[-1][1], usual_us)))


def tempo_map(decisions: Iterable[Decision], *, start_s: float = 0.0) -> TempoMap:
    """Return the beats that the partner went by, from `start_s` on, which becomes 0.

    Where it played in free time, beats are only counted: as many as fit at the tempo that follows.
    """
    grid: list[tuple[float, int]] = [(0.0, 0)]
    for run in _runs(decisions, start_s):
        period_s = (run[-1][0] - run[0][0]) / (run[-1][1] - run[0][1])
        while run and run[0][0] - grid[-1][0] < _SHORTEST_BEAT * period_s:
            run = run[1:]  # noqa: PLW2901
        if len(run) < 2:
            continue
        first = grid[-1][1] + max(1, round((run[0][0] - grid[-1][0]) / period_s))
        grid += [(at_s, first + number - run[0][1]) for at_s, number in run]
    return TempoMap.through(grid)


def _runs(decisions: Iterable[Decision], start_s: float) -> list[list[tuple[float, int]]]:
    """Return stretches of one pulse, each as some of its beats with their numbers."""
    runs: list[list[tuple[float, int]]] = []
    gone_by = [(d.begin_s, d.tempo_bpm, d.pulse.got) for d in decisions if d.pulse is not None and d.tempo_bpm is not None]
    for begin_s, tempo_bpm, got in sorted(gone_by):
        period_s = 60 / tempo_bpm
        at_s = begin_s - start_s - got * period_s
        if at_s < 0:
            continue
        if runs:
            before_s, number = runs[-1][-1]
            beats = round((at_s - before_s) / period_s)
            fits = abs(at_s - before_s - beats * period_s) <= _OFF_BEAT * period_s * max(1.0, beats / _APART_BEATS)
            if fits and beats <= _FAR_BEATS:
                if beats >= _APART_BEATS:
                    runs[-1].append((at_s, number + beats))
                continue
        runs.append([(at_s, 0)])
    return [run for run in runs if run[-1][1] >= _LEAST_BEATS]


# ── files for a DAW ───────────────────────────────────────────────────────────

TICKS_PER_BEAT = 30_720
_FOUR_FOUR = {"numerator": 4, "denominator": 4}


@dataclass(frozen=True)
class Part:
    """What one track plays, and the General MIDI program (0 to 127) of its channel, if it has one."""

    name: str
    notes: tuple[Note, ...]
    program: int | None = None

    @property
    def channel(self) -> int:
        """The channel of its pitched notes; where it has none, that of its drums."""
        return next((note.channel for note in self.notes if note.channel != PERCUSSION_CHANNEL), PERCUSSION_CHANNEL)


def part_messages(part: Part, tempo: TempoMap) -> list[tuple[int, bytes]]:
    """Return the messages of a part and their ticks in order; at one tick every note-off comes before any note-on."""
    notes = in_ticks(part.notes, lambda time_s: round(tempo.beat_at(time_s) * TICKS_PER_BEAT))
    found = []
    for note in notes:
        channel, pitch = note.key
        found.append((int(note.onset), bytes((0x90 | channel, pitch, note.velocity))))
        found.append((int(note.until), bytes((0x80 | channel, pitch, 0))))
    return sorted(found, key=lambda message: (message[0], message[1][0] & 0x10, message[1]))


def score_bytes(parts: Sequence[Part], tempo: TempoMap, markers: Iterable[tuple[float, str]] = ()) -> bytes:
    """Return a MIDI file (format 1): a track with tempo and `markers` (seconds and text), then one for each part."""
    steps: list[tuple[int, mido.MetaMessage]] = [(0, mido.MetaMessage("time_signature", **_FOUR_FOUR))]
    steps += [(s.beat * TICKS_PER_BEAT, mido.MetaMessage("set_tempo", tempo=s.beat_us)) for s in tempo.steps]
    for at_s, text in markers:
        steps.append((round(tempo.beat_at(at_s) * TICKS_PER_BEAT), mido.MetaMessage("marker", text=text)))
    tracks = [_track("MusicHal", sorted(steps, key=lambda step: step[0]))]
    for part in parts:
        messages = [(tick, mido.Message.from_bytes(data)) for tick, data in part_messages(part, tempo)]
        if part.program is not None and messages:
            messages.insert(0, (0, mido.Message("program_change", channel=part.channel, program=part.program)))
        tracks.append(_track(part.name, messages))
    out = io.BytesIO()
    mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT, charset="utf-8", tracks=tracks).save(file=out)
    return out.getvalue()


def _track(name: str, messages: Iterable[tuple[int, mido.Message | mido.MetaMessage]]) -> mido.MidiTrack:
    track, before = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
    for tick, message in messages:
        track.append(message.copy(time=tick - before))
        before = tick
    return track


# ── a Reaper project ─────────────────────────────────────────────────────────

_METRE = 4 + (4 << 16)
_SQUARE = 1  # the tempo holds until the next point


@dataclass(frozen=True)
class SoundTrack:
    """A track with one file, in the folder of the project, from 0 on."""

    name: str
    file: str
    duration_s: float
    muted: bool = False


def reaper_project(
    sounds: Sequence[SoundTrack],
    parts: Sequence[Part],
    tempo: TempoMap,
    markers: Iterable[tuple[float, str]],
    *,
    sample_rate_hz: int,
) -> str:
    """Return the text of a project: a track for each sound and each part, and the markers (seconds and text)."""
    lines = ['<REAPER_PROJECT 0.1 "6.0" 0', "  TIMELOCKMODE 0", f"  SAMPLERATE {sample_rate_hz} 1 0"]
    lines += [
        f"  TEMPO {tempo.steps[0].bpm:.10f} 4 4",
        "  <TEMPOENVEX",
        "    ACT 1 -1",
        "    VIS 1 0 1",
        "    DEFSHAPE 1 -1 -1",
    ]
    for number, step in enumerate(tempo.steps):
        metre = f" {_METRE} 0 1" if number == 0 else ""
        lines.append(f"    PT {step.start_s:.12f} {step.bpm:.10f} {_SQUARE}{metre}")
    lines.append("  >")
    lines += [f"  MARKER {n} {at_s:.12f} {_quoted(text)} 0" for n, (at_s, text) in enumerate(markers, start=1)]
    for sound in sounds:
        source = ["<SOURCE WAVE", f"  FILE {_quoted(sound.file)}", ">"]
        lines += _reaper_track(sound.name, sound.duration_s, source, muted=sound.muted)
    for part in parts:
        end_s = max((note.onset_s + note.duration_s for note in part.notes), default=0.0) + 1.0
        lines += _reaper_track(part.name, end_s, _midi(part, tempo, end_s))
    return "\n".join([*lines, ">", ""])


def _reaper_track(name: str, duration_s: float, source: Sequence[str], *, muted: bool = False) -> list[str]:
    item = [f"POSITION 0\n      LENGTH {duration_s:.12f}", "LOOP 0", f"NAME {_quoted(name)}", *source]
    head = ["  <TRACK", f"    NAME {_quoted(name)}", f"    MUTESOLO {int(muted)} 0 0", "    <ITEM"]
    return [*head, *(f"      {line}" for line in item), "    >", "  >"]


def _midi(part: Part, tempo: TempoMap, end_s: float) -> list[str]:
    lines, before = ["<SOURCE MIDI", f"  HASDATA 1 {TICKS_PER_BEAT} QN"], 0
    for tick, (status, first, second) in part_messages(part, tempo):
        lines.append(f"  E {tick - before} {status:02x} {first:02x} {second:02x}")
        before = tick
    end = max(before, round(tempo.beat_at(end_s) * TICKS_PER_BEAT))
    return [*lines, f"  E {end - before} b0 7b 00", ">"]


def _quoted(text: str) -> str:
    """Return text for one value, on one line: in the first quotation marks that it does not hold itself."""
    text = " ".join(text.splitlines())
    mark = next((mark for mark in "\"'`" if mark not in text), None)
    return f"`{text.replace('`', chr(39))}`" if mark is None else f"{mark}{text}{mark}"


# ── both players ──────────────────────────────────────────────────────────────

_RINGS_S = 10.0  # what was struck so long before a stretch may still sound in it
_CHANNELS = [channel for channel in range(16) if channel != PERCUSSION_CHANNEL]


class Duo:
    """What a player and a partner did in a session.

    * `instrument`: Plays the partner's notes.
    * `recordings`: The partner's own: where given, it sounds in slices of them.
    """

    def __init__(
        self, session: Session, instrument: Instrument, *, recordings: Sequence[tuple[Float32, int]] | None = None
    ) -> None:
        self.session, self._instrument = session, instrument
        self.rate_hz = session.settings.sample_rate_hz
        self._voices: dict[str, list[Note]] = {}
        self._recordings = recordings
        self._slices: list[Slice] = []
        if recordings is None:
            for _ in self._sounded():
                pass
        else:
            silences = Silences(session.entries, sample_rate_hz=session.settings.stream_rate_hz)
            self._slices = slice_events(self._sounded(), live_recording=len(recordings), sounded=silences.sounded)

    def _sounded(self) -> Iterator[Decision]:
        """Yield the decisions as they sounded, and keep their notes: more of a performance may not fit into memory."""
        for d in self.session.sounded():
            if d.notes:
                self._voices.setdefault(d.voice, []).extend(d.notes)
            yield d

    @cached_property
    def samples(self) -> Float32:
        """The whole input."""
        return self.session.samples()

    @property
    def duration_s(self) -> float:
        """Length of the input."""
        return self.session.duration_s

    @property
    def notes_s(self) -> float:
        """When the last note ends; 0 without notes."""
        return max((n.onset_s + n.duration_s for notes in self._voices.values() for n in notes), default=0.0)

    def parts(self, start_s: float, end_s: float) -> list[Part]:
        """Return a part for each voice that plays in a stretch, whose start becomes 0; notes that reach into it are cut."""
        program, parts = self.session.settings.program, []
        for number, (voice, notes) in enumerate(self._voices.items()):
            channel = _CHANNELS[number % len(_CHANNELS)]
            if inside := _within([_on(note, channel) for note in notes], start_s, end_s):
                pitched = any(note.channel != PERCUSSION_CHANNEL for note in inside)
                parts.append(Part("partner" if voice == "all" else voice, inside, program if pitched else None))
        return parts

    def player_part(self, start_s: float, end_s: float) -> Part | None:
        """Return what a MIDI player played in a stretch; None where the input was sound, or nothing was played."""
        heard = [note for entry in self.session.entries if isinstance(entry, Played) for note in entry.notes]
        notes = [Note(n.onset_s, n.duration_s, n.pitch, max(1, n.velocity)) for n in heard]
        inside = _within(notes, start_s, end_s)
        return Part("player", inside) if inside else None

    def player(self, start_s: float, end_s: float) -> Float32:
        """Return the input of a stretch, shape (n,)."""
        return self.samples[round(start_s * self.rate_hz) : round(end_s * self.rate_hz)]

    def answer(self, start_s: float, end_s: float) -> Float32:
        """Return how the answer sounded in a stretch, at one loudness, shape (n, 2)."""
        first, length = round(start_s * self.rate_hz), round(end_s * self.rate_hz) - round(start_s * self.rate_hz)
        # Rendered from a whole second on, so that each note begins at the same sample as in the whole.
        from_s = float(int(max(0.0, start_s - _RINGS_S)))
        skip = first - round(from_s * self.rate_hz)
        if self._recordings is not None:
            sources = [*self._recordings, (self.samples, self.rate_hz)]
            moved = [piece.at(piece.onset_s - from_s) for piece in self._slices if from_s <= piece.onset_s < end_s]
            sound = render_slices(moved, sources, sample_rate_hz=self.rate_hz)
            sound = np.stack([sound, sound], axis=1) if sound.ndim == 1 else sound
        else:
            channel = self.session.settings.channel
            struck = [n for notes in self._voices.values() for n in notes if from_s <= n.onset_s < end_s]
            moved_notes = [replace(_on(n, channel), onset_s=n.onset_s - from_s) for n in struck]
            programs = {channel: self.session.settings.program}
            sound = render_notes(moved_notes, self._instrument, sample_rate_hz=self.rate_hz, programs=programs)
        sound = sound[skip : skip + length]
        sound = np.pad(sound, [(0, length - len(sound)), (0, 0)])
        return at_loudness(sound, sample_rate_hz=self.rate_hz)

    def mixed(self, player: Float32, answer: Float32) -> Float32:
        """Return both together, equally loud, the player to the left."""
        rates = {"player_rate_hz": self.rate_hz, "answer_rate_hz": self.rate_hz, "sample_rate_hz": self.rate_hz}
        return mix(at_loudness(player, sample_rate_hz=self.rate_hz), answer, **rates)


def _on(note: Note, channel: int) -> Note:
    """Return a note on a channel, a drum on its own."""
    return note if note.channel == PERCUSSION_CHANNEL else replace(note, channel=channel)


def _within(notes: Sequence[Note], start_s: float, end_s: float) -> tuple[Note, ...]:
    """Return the notes that sound from `start_s` to `end_s`, cut to it, with `start_s` as 0."""
    cut = []
    for note in notes:
        first_s, last_s = max(start_s, note.onset_s), min(end_s, note.onset_s + note.duration_s)
        if last_s > first_s:
            cut.append(replace(note, onset_s=first_s - start_s, duration_s=last_s - first_s))
    return tuple(cut)
