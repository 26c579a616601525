"""Files for a DAW: MIDI of several parts on the beats of a tempo map, with markers; and a Reaper project.

A tick is shorter than a sample at 48 kHz, from 94 beats a minute on; so what is written lies with the sound to the sample.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mido

from musichal.live.output.midi_file import in_ticks
from musichal.live.session.timeline import TempoMap
from musichal.note import PERCUSSION_CHANNEL, Note

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
