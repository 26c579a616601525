"""A Reaper project as text, with sound, MIDI and markers on one time line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from musichal.live.output.midi_score import TICKS_PER_BEAT, Part, part_messages
from musichal.live.session.timeline import TempoMap

_FOUR_FOUR = 4 + (4 << 16)
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
        metre = f" {_FOUR_FOUR} 0 1" if number == 0 else ""
        lines.append(f"    PT {step.start_s:.12f} {step.bpm:.10f} {_SQUARE}{metre}")
    lines.append("  >")
    lines += [f"  MARKER {n} {at_s:.12f} {_quoted(text)} 0" for n, (at_s, text) in enumerate(markers, start=1)]
    for sound in sounds:
        source = ["<SOURCE WAVE", f"  FILE {_quoted(sound.file)}", ">"]
        lines += _track(sound.name, sound.duration_s, source, muted=sound.muted)
    for part in parts:
        end_s = max((note.onset_s + note.duration_s for note in part.notes), default=0.0) + 1.0
        lines += _track(part.name, end_s, _midi(part, tempo, end_s))
    return "\n".join([*lines, ">", ""])


def _track(name: str, duration_s: float, source: Sequence[str], *, muted: bool = False) -> list[str]:
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
