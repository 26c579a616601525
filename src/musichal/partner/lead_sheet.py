"""Lead sheets: the chords of a song, from text, MIDI or MusicXML, as a scenario.

Conventions
-----------
A chart is a row of bars, and a bar a row of chords of equal length; a bar without a chord goes on with the one before. Steps of
the scenario are all as long as the shortest chord needs.

Text has bars between ``|``, as ``| Dm7 | G7 | C | % |``: ``%`` is the bar before, ``/`` or ``.`` goes on with the chord,
``N.C.`` is none, and ``|: … :|`` is played twice. Lines such as ``tempo: 132`` and ``meter: 3/4`` may come first, and ``#``
begins a comment.
"""

import io
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from musichal.audio.score import Score, parse_midi, score_of, tempo_map
from musichal.errors import InputError
from musichal.partner.chords import CHORDS, TYPOGRAPHY, chord_labels, chord_number
from musichal.partner.scenario import LONGEST, Scenario
from musichal.text import decoded, open_file, reason

NO_CHORD = -1
MUSICXML_SUFFIXES = frozenset((".musicxml", ".xml", ".mxl"))
_TEMPO_BPM, _METER = 120.0, (4, 4)
_MOST_STEPS_IN_BAR = 48
_MOST_BYTES = 8_000_000
_HEADER = re.compile(r"(tempo|meter|time)\s*[:=]\s*(\S+)\s*$", re.IGNORECASE)
_HOLDS, _NONE = frozenset("/.-"), frozenset(("N.C.", "NC", "N.C"))
_ALTERED = {-2: "bb", -1: "b", 0: "", 1: "#", 2: "##"}


@dataclass(frozen=True)
class Chart:
    """The chords of a song: for each bar, labels as in `Scenario`, −1 for none; `bar_s` is how long a bar lasts."""

    bars: tuple[tuple[int, ...], ...]
    bar_s: float

    def scenario(self) -> Scenario:
        """Return the scenario; raises `InputError` for a chart without chords, or with too many in a bar."""
        steps = math.lcm(1, *(len(bar) for bar in self.bars))
        if steps > _MOST_STEPS_IN_BAR:
            raise InputError(f"its bars hold chords of too many lengths: {steps} steps a bar")
        labels = [label for bar in self.bars for label in bar for _ in range(steps // len(bar))]
        if all(label == NO_CHORD for label in labels):
            raise InputError("it has no chords")
        if len(labels) > LONGEST:
            raise InputError(f"it has {len(labels)} steps; {LONGEST} are the most")
        return Scenario(kind="chords", labels=tuple(labels), seconds=self.bar_s / steps)


def parse_chart(text: str) -> Chart:
    """Return the chart that a text describes; raises `InputError` for anything else."""
    tempo_bpm, meter, lines = _TEMPO_BPM, _METER, []
    for line in text.translate(TYPOGRAPHY).splitlines():
        header = _HEADER.match(line.strip())
        if header is None:
            lines.append("" if line.lstrip().startswith("#") else line)
        elif header[1].lower() == "tempo":
            tempo_bpm = _number(header[2])
        else:
            meter = _meter(header[2])
    bars: list[tuple[int, ...]] = []
    repeat_from = 0
    for cell in re.split(r"\|\|?|\|\]", " ".join(lines)):
        bar = cell.strip()
        if bar.startswith(":"):
            repeat_from, bar = len(bars), bar[1:].strip()
        repeats = bar.endswith(":")
        if bar := bar.removesuffix(":").strip():
            bars.append(_bar(bar.split(), bars))
        if repeats:
            bars += bars[repeat_from:]
            repeat_from = len(bars)
    return Chart(tuple(bars), 60 / tempo_bpm * meter[0] * 4 / meter[1])


def _bar(words: Sequence[str], before: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if list(words) == ["%"]:
        if not before:
            raise InputError("its first bar repeats the one before")
        return before[-1]
    last, labels = before[-1][-1] if before else NO_CHORD, []
    for word in words:
        if word in _NONE:
            last = NO_CHORD
        elif word not in _HOLDS:
            last = chord_number(word.partition("/")[0])
        labels.append(last)
    return tuple(labels)


def _number(text: str) -> float:
    try:
        tempo_bpm = float(text)
    except ValueError:
        tempo_bpm = math.nan
    if not 10 <= tempo_bpm <= 1000:
        raise InputError(f"its tempo must be in [10, 1000] beats a minute, got {text[:20]!r}")
    return tempo_bpm


def _meter(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,2})/(1|2|4|8|16)", text)
    if match is None or not int(match[1]):
        raise InputError(f"its meter must be such as 4/4 or 6/8, got {text[:20]!r}")
    return int(match[1]), int(match[2])


def midi_chart(data: bytes, *, name: str) -> Chart:
    """Return the chords of a MIDI file: those that its markers name, else those that its notes make in each half of a bar.

    Raises `InputError` where it is no MIDI file, or has neither.
    """
    midi = parse_midi(data, name=name)
    score = score_of(midi, name=name)
    edges = score.downbeats_s
    bar_s = float(np.median(np.diff(edges))) if len(edges) > 1 else max(score.duration_s, 0.5)
    if len(edges) < 2 or score.duration_s > edges[-1] + 0.05:
        edges = np.append(edges, edges[-1] + bar_s)
    named = []
    tempos = tempo_map(midi, name=name)
    for track in midi.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type in ("marker", "text", "lyrics") and (label := _named(message.text)) is not None:
                named.append((float(tempos.seconds([tick])[0]), label))
    if len(named) > 1:
        named.sort()
        times = [time_s for time_s, _ in named]
        halves = [named[max(0, int(np.searchsorted(times, at + 0.05)) - 1)][1] for at in _halves(edges)]
    else:
        halves = _sounding(score, _halves(edges), bar_s / 2)
    return Chart(tuple((a,) if a == b else (a, b) for a, b in zip(halves[::2], halves[1::2], strict=True)), bar_s)


def _named(text: str) -> int | None:
    try:
        return chord_number(text.strip().partition("/")[0])
    except InputError:
        return None


def _halves(edges: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> list[float]:
    return [time_s for start_s, end_s in pairwise(edges.tolist()) for time_s in (start_s, (start_s + end_s) / 2)]


def _sounding(score: Score, times_s: Sequence[float], length_s: float) -> list[int]:
    """Return the chord of each stretch, by how long its pitch classes sound."""
    chroma = np.zeros((len(times_s), 12))
    begins, ends = np.array(times_s), np.append(times_s[1:], times_s[-1] + length_s)
    for track in score.tracks:
        for note in () if track.is_drums else track.notes:
            shared = np.minimum(ends, note.onset_s + note.duration_s) - np.maximum(begins, note.onset_s)
            chroma[:, note.pitch % 12] += np.maximum(shared, 0)
    units = chroma / np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-9)
    return [NO_CHORD if label == CHORDS else label for label in chord_labels(units).tolist()]


def musicxml_chart(data: bytes) -> Chart:
    """Return the chord symbols of a MusicXML file, packed (.mxl) or not; raises `InputError` where it has none."""
    root = _xml(_unpacked(data))
    part = root.find("part")
    if part is None:
        raise InputError("it is no MusicXML score with parts")
    tempo_bpm = next((float(s.get("tempo", 0)) for s in root.iter("sound") if s.get("tempo")), _TEMPO_BPM)
    beats, beat_type, divisions = 4, 4, 1
    bars: list[tuple[int, ...]] = []
    last = NO_CHORD
    for measure in part.iter("measure"):
        at, chords = 0, []
        for element in measure:
            divisions = int(element.findtext("divisions", str(divisions)))
            beats, beat_type = (
                int(element.findtext("time/beats", str(beats))),
                int(element.findtext("time/beat-type", str(beat_type))),
            )
            if element.tag == "harmony":
                chords.append((at, _harmony(element)))
            elif element.tag in ("note", "forward", "backup") and element.find("chord") is None:
                at += int(element.findtext("duration", "0")) * (-1 if element.tag == "backup" else 1)
        beat = max(1, divisions * 4 // beat_type)
        labels = []
        for number in range(max(1, beats)):
            heard = [label for start, label in chords if start <= number * beat]
            last = heard[-1] if heard else last
            labels.append(last)
        bars.append((labels[0],) if len({*labels}) == 1 else tuple(labels))
    return Chart(tuple(bars), 60 / _number(str(tempo_bpm)) * beats * 4 / beat_type)


def _harmony(element: ET.Element) -> int:
    kind = element.findtext("kind", "major")
    if kind == "none":
        return NO_CHORD
    step, alter = element.findtext("root/root-step", ""), round(float(element.findtext("root/root-alter", "0")))
    minor = "m" if kind.startswith(("minor", "diminished", "half-diminished")) else ""
    return chord_number(f"{step}{_ALTERED.get(alter, '?')}{minor}")


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(b"PK"):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            inside = [
                i for i in packed.infolist() if i.filename.endswith((".xml", ".musicxml")) and "META-INF" not in i.filename
            ]
            if not inside or inside[0].file_size > _MOST_BYTES:
                raise InputError("it holds no score, or too large a one")
            with packed.open(inside[0]) as stream:
                return stream.read(_MOST_BYTES)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError("it is a damaged .mxl file") from error


def _xml(data: bytes) -> ET.Element:
    if b"<!ENTITY" in data:
        raise InputError("it is a MusicXML file with entities of its own, which is not read")
    try:
        return ET.fromstring(data)  # noqa: S314 - without entities nothing expands
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InputError("it is no MusicXML file, or a damaged one") from error


def read_chart(path: Path) -> Scenario:
    """Return the scenario of a lead sheet: MIDI, MusicXML, or text; raises `InputError` where it is none of these."""
    try:
        with open_file(path) as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {reason(error)}") from error
    if len(data) > _MOST_BYTES:
        raise InputError(f"is larger than {_MOST_BYTES // 1_000_000} MB")
    is_midi, is_xml = data.startswith((b"MThd", b"RIFF")), path.suffix.lower() in MUSICXML_SUFFIXES
    text = "" if is_midi or is_xml else decoded(data)
    try:
        if is_midi:
            return midi_chart(data, name=path.name).scenario()
        return (musicxml_chart(data) if is_xml else parse_chart(text)).scenario()
    except InputError:
        raise
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"is damaged: {error}") from error
