"""Music whose every note is known: scores rendered with a soundfont, as truth to measure hearing against.

Conventions
-----------
A `Rendering` is mono float32 with the notes and drum hits that are in it, in seconds from its first sample; `notes`
are ordered by onset, then pitch. A note *sounds* from its onset to onset + duration as notated; the synthesiser's
attack and release are part of what a listener has to cope with, not of the truth.

Single lines are folk songs of the Essen collection and dances of Ryan's Mammoth Collection; polyphony is Bach
chorales on one instrument and chorales, madrigals and quartets on ensembles; drums are patterns of a General MIDI kit.
All scores come with `music21`. Train and test never share a piece, a drum pattern or a tempo. Everything is
deterministic: the pieces are listed, velocities come from a generator seeded by the piece's place in its list. Songs
go at 90 to 130 quarter notes a minute, a singer's pace.

The soundfont (TimGM6mb) and the scores come with the packages of the ``bench`` extra; none is shipped by us.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import soxr

from musichal.arrays import Float32
from musichal.audio import instrument
from musichal.audio.soundfont import SoundFont, open_soundfont
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.note import Note

Split = Literal["train", "test"]
DrumKind = Literal["hat", "snare", "kick"]

SAMPLE_RATE_HZ = 24000
LEAD_IN_S = 0.25
"""Silence before the first note of every rendering."""
TAIL_S = 0.35
"""Sound kept after the last note's end."""
HARMONY_RMS = 0.08
DRUMS_RMS = 0.06


@dataclass(frozen=True)
class ScoreNote:
    """A note as the score has it, with the General MIDI program that plays it."""

    onset_s: float
    duration_s: float
    pitch: int
    velocity: int
    program: int = 0


@dataclass(frozen=True)
class DrumHit:
    """A stroke of the drum kit."""

    onset_s: float
    kind: DrumKind
    velocity: int


@dataclass(frozen=True)
class Rendering:
    """Rendered music with its truth; `samples` is (n,) float32."""

    name: str
    samples: Float32
    sample_rate_hz: int
    notes: tuple[ScoreNote, ...]
    drum_hits: tuple[DrumHit, ...]

    @property
    def duration_s(self) -> float:
        """Length of the samples."""
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True)
class Instrument:
    """A General MIDI program and the octaves by which a tune moves into its range."""

    name: str
    program: int
    octaves: int = 0


INSTRUMENTS = (
    Instrument("piano", 0),
    Instrument("nylon guitar", 24, -1),
    Instrument("flute", 73, 1),
    Instrument("violin", 40),
    Instrument("trumpet", 56),
    Instrument("alto sax", 65),
    Instrument("church organ", 19),
    Instrument("finger bass", 33, -2),
    Instrument("vibraphone", 11),
    Instrument("clarinet", 71),
)
OTHER_INSTRUMENTS = (
    Instrument("electric piano", 4),
    Instrument("steel guitar", 25, -1),
    Instrument("oboe", 68),
    Instrument("cello", 42, -1),
    Instrument("french horn", 60, -1),
    Instrument("tenor sax", 66, -1),
    Instrument("drawbar organ", 16),
    Instrument("acoustic bass", 32, -2),
    Instrument("marimba", 12),
    Instrument("harp", 46),
)
"""A second set, for asking whether a vocabulary holds beyond the instruments it was fitted on."""

# (Essen file, or Ryan's Mammoth tune; work number in the file; seconds per quarter note)
_TUNES: dict[Split, tuple[tuple[str, int, float], ...]] = {
    "train": (
        *(("boehme10", number, 0.48 + 0.02 * (number % 9)) for number in range(11, 311, 15)),
        ("7thRegimentReel", 1, 0.56),
        *(("kinder0", number, 0.52 + 0.02 * (number % 7)) for number in range(10, 190, 20)),
    ),
    "test": (
        *(("erk10", number, 0.47 + 0.02 * (number % 10)) for number in range(20, 620, 40)),
        ("42dHighlandRegimentStrathspey", 1, 0.58),
        *(("fink0", number, 0.51 + 0.02 * (number % 8)) for number in range(30, 500, 60)),
    ),
}
_CHORALES: dict[Split, tuple[str, ...]] = {
    "train": (
        *("bwv10.7", "bwv101.7", "bwv102.7", "bwv103.6", "bwv104.6", "bwv108.6", "bwv110.7", "bwv111.6"),
        *("bwv113.8", "bwv114.7", "bwv115.6", "bwv116.6", "bwv117.4", "bwv119.9", "bwv12.7", "bwv120.6"),
    ),
    "test": ("bwv140.7", "bwv144.3", "bwv145.5", "bwv146.8", "bwv148.6", "bwv151.5", "bwv153.1", "bwv154.3"),
}
_CHORALE_PROGRAMS = (0, 19, 48, 24, 4, 73, 11, 16)
# (corpus path, programs of the parts from the top, seconds per quarter note)
_ENSEMBLES: dict[Split, tuple[tuple[str, tuple[int, ...], float], ...]] = {
    "train": (
        ("bach/bwv121.6", (73, 71, 65, 33), 0.60),
        ("bach/bwv122.6", (56, 56, 60, 57), 0.66),
        ("bach/bwv123.6", (40, 40, 41, 42), 0.58),
        ("bach/bwv124.6", (11, 24, 24, 33), 0.52),
        ("monteverdi/madrigal.3.1", (73, 40, 71, 41, 42), 0.34),
        ("mozart/k155/movement1", (40, 40, 41, 42), 0.50),
    ),
    "test": (
        ("bach/bwv155.5", (73, 71, 65, 33), 0.62),
        ("bach/bwv156.6", (40, 40, 41, 42), 0.56),
        ("monteverdi/madrigal.3.10", (56, 40, 71, 41, 42), 0.36),
        ("haydn/opus1no1/movement2", (40, 40, 41, 42), 0.55),
    ),
}

# Sixteen steps to a bar: hat, snare, kick; X is an accent. Tempo in seconds per quarter note.
_PATTERNS: dict[Split, tuple[tuple[str, str, str, float], ...]] = {
    "train": (
        ("X.x.X.x.X.x.X.x.", "....X.......X...", "X.......X.......", 0.60),
        ("x.x.x.x.x.x.x.x.", "....X.......X..x", "X..x....X.x.....", 0.52),
        ("X...X...X...X...", "........X.......", "X.....x.....x...", 0.46),
        ("xxxxxxxxxxxxxxxx", "....X.......X...", "X.....X...X.....", 0.68),
        ("..x...x...x...x.", "....X.......X...", "X...X...X...X...", 0.49),
        ("x.....x.x.....x.", "....x.......X...", "X.......X.......", 0.40),
    ),
    "test": (
        ("x.X.x.X.x.X.x.X.", "....X.......X...", "X.....x.X.......", 0.56),
        ("X.x.X.xxX.x.X.x.", "....X..x....X...", "X.........X.....", 0.64),
        ("X...x...X...x...", "....X.......X...", "X.x.....X...x...", 0.44),
        ("..X...X...X...X.", "............X...", "X...X...X...X...", 0.50),
    ),
}
_DRUM_CHANNEL = 9
_DRUM_PITCHES: dict[DrumKind, int] = {"hat": 42, "snare": 38, "kick": 36}


def _extra(module: str) -> ModuleType:
    """Import a module of the ``bench`` extra, or say how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{module} is not installed; {install_hint('bench')}") from error


@cache
def _corpus_file(path: str) -> Path:
    root = Path(str(_extra("music21").__file__)).parent / "corpus"
    matches = sorted(p for p in (root / path).parent.glob(f"{Path(path).name}.*") if p.suffix in (".mxl", ".abc", ".xml"))
    if not matches:
        raise InputError(f"music21's corpus has no score {path}")
    return matches[0]


@dataclass(frozen=True)
class _BeatNote:
    """A notated note, in quarter notes from the start of its piece."""

    onset: float
    duration: float
    pitch: int
    part: int


def _beat_notes(score: Any, *, length: float) -> tuple[_BeatNote, ...]:
    """Return the notes of a music21 score that start before `length` quarter notes; ties joined (in it too), no graces."""
    notes: list[_BeatNote] = []
    parts = list(score.parts) or [score]
    for index, part in enumerate(parts):
        part.stripTies(inPlace=True)
        for element in part.flatten().notes:
            if element.duration.isGrace or element.offset >= length or not hasattr(element, "pitches"):
                continue
            duration = min(float(element.quarterLength), length - float(element.offset))
            notes.extend(_BeatNote(float(element.offset), duration, p.midi, index) for p in element.pitches)
    kept = {(n.onset, n.pitch, n.part): n for n in notes if n.duration > 0}
    if not kept:
        raise InputError("a score of the corpus has no notes")
    first = min(n.onset for n in kept.values())
    shifted = (dataclasses.replace(n, onset=n.onset - first) for n in kept.values())
    return tuple(sorted(shifted, key=lambda n: (n.onset, n.pitch, n.part)))


@cache
def _tune(file: str, number: int, length: float) -> tuple[_BeatNote, ...]:
    """Parse one tune of an ABC file; only its own text, since the big collections take 10 s to parse whole."""
    folder = "essenFolksong" if re.fullmatch(r"[a-z]+[0-9]+", file) else "ryansMammoth"
    text = _corpus_file(f"{folder}/{file}").read_text(encoding="utf-8", errors="replace")
    works = re.split(r"(?m)^(?=X:)", text)[1:]
    score = _extra("music21").converter.parseData(works[number - 1], format="abc")
    return _beat_notes(score, length=length)


@cache
def _score(path: str, length: float) -> tuple[_BeatNote, ...]:
    # music21 would otherwise read and write a pickle of the score in the temporary directory.
    score = _extra("music21").converter.parseFile(_corpus_file(path), forceSource=True, storePickle=False)
    return _beat_notes(score, length=length)


def _performed(
    notes: Sequence[_BeatNote],
    *,
    quarter_s: float,
    programs: Sequence[int],
    transpose: int,
    rng: np.random.Generator,
) -> tuple[ScoreNote, ...]:
    """Give notated notes seconds, programs and velocities (a light accent on each beat, some unevenness)."""
    performed = []
    for note in notes:
        velocity = 78 + 12 * (note.onset % 1 == 0) + int(rng.integers(-10, 11))
        onset_s, duration_s = LEAD_IN_S + note.onset * quarter_s, note.duration * quarter_s
        program = programs[min(note.part, len(programs) - 1)]
        performed.append(ScoreNote(onset_s, duration_s, note.pitch + transpose, velocity, program))
    return tuple(performed)


def render_notes(
    notes: Sequence[ScoreNote],
    drum_hits: Sequence[DrumHit] = (),
    *,
    kit: int = 0,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> Float32:
    """Return notes and drums as mono float32, (n,), each group scaled to its own level.

    `kit` is the General MIDI program of the drum channel. Raises `MissingExtraError` without the ``bench`` extra.
    """
    if not notes and not drum_hits:
        raise ValueError("there is nothing to render")
    ends = [n.onset_s + n.duration_s for n in notes] + [h.onset_s + 0.3 for h in drum_hits]
    mix = np.zeros(int(np.ceil((max(ends) + TAIL_S) * sample_rate_hz)), np.float32)
    if notes:
        channels = {program: i for i, program in enumerate(sorted({n.program for n in notes}))}
        if len(channels) > _DRUM_CHANNEL:
            raise ValueError(f"at most {_DRUM_CHANNEL} programs can play together")
        played = [Note(n.onset_s, n.duration_s, n.pitch, n.velocity, channels[n.program]) for n in notes]
        programs = {channel: program for program, channel in channels.items()}
        _add(mix, played, programs, rms=HARMONY_RMS, sample_rate_hz=sample_rate_hz)
    if drum_hits:
        strokes = [Note(h.onset_s, 0.3, _DRUM_PITCHES[h.kind], h.velocity, _DRUM_CHANNEL) for h in drum_hits]
        _add(mix, strokes, {_DRUM_CHANNEL: kit}, rms=DRUMS_RMS, sample_rate_hz=sample_rate_hz)
    return mix


def _add(mix: Float32, notes: Sequence[Note], programs: dict[int, int], *, rms: float, sample_rate_hz: int) -> None:
    stereo = instrument.render_notes(notes, _font(), sample_rate_hz=sample_rate_hz, programs=programs)[: len(mix)]
    mono = (stereo[:, 0] + stereo[:, 1]) * np.float32(0.5)
    level = float(np.sqrt(np.mean(np.square(mono, dtype=np.float64)))) or 1.0
    mix[: len(mono)] += mono * np.float32(rms / level)


@cache
def _font() -> SoundFont:
    return open_soundfont(Path(str(_extra("pretty_midi").__file__)).parent / "TimGM6mb.sf2")


@cache
def _rendering(name: str, notes: tuple[ScoreNote, ...], hits: tuple[DrumHit, ...] = (), *, kit: int = 0) -> Rendering:
    return Rendering(name, render_notes(notes, hits, kit=kit), SAMPLE_RATE_HZ, notes, hits)


def single_lines(
    split: Split,
    *,
    instruments: Sequence[Instrument] = INSTRUMENTS,
    per_instrument: int = 2,
    length_s: float = 10.0,
) -> list[Rendering]:
    """Return folk tunes, each played by one instrument, in keys that cover the circle of fifths."""
    if not 1 <= per_instrument <= len(_TUNES[split]):
        raise ValueError(f"per_instrument must be from 1 to {len(_TUNES[split])}")
    out = []
    for i in range(len(instruments) * per_instrument):
        instrument, (file, number, quarter_s) = instruments[i % len(instruments)], _TUNES[split][i % len(_TUNES[split])]
        notes = _performed(
            _tune(file, number, length_s / quarter_s),
            quarter_s=quarter_s,
            programs=(instrument.program,),
            transpose=12 * instrument.octaves + (7 * i) % 12 - 5,
            rng=np.random.default_rng((i, split == "test")),
        )
        out.append(_rendering(f"{file}/{number} on {instrument.name}", notes))
    return out


def chorales(
    split: Split,
    *,
    limit: int | None = None,
    programs: Sequence[int] = _CHORALE_PROGRAMS,
    length_s: float = 11.0,
    drums: bool = False,
    kit: int = 0,
) -> list[Rendering]:
    """Return Bach chorales in four parts, one program each; with `drums`, every second one has drums over it."""
    out = []
    for i, name in enumerate(_CHORALES[split][:limit]):
        quarter_s = 0.52 + 0.03 * (i % 6)
        notes = _performed(
            _score(f"bach/{name}", length_s / quarter_s),
            quarter_s=quarter_s,
            programs=(programs[i % len(programs)],),
            transpose=(5 * i) % 12 - 6,
            rng=np.random.default_rng((i, split == "test", 1)),
        )
        hits = _pattern_hits(split, i, length_s=length_s) if drums and i % 2 else ()
        out.append(_rendering(f"{name} on program {programs[i % len(programs)]}", notes, hits, kit=kit))
    return out


def ensembles(
    split: Split, *, limit: int | None = None, length_s: float = 11.0, drums: bool = False, kit: int = 0
) -> list[Rendering]:
    """Return polyphony with an instrument to each part; with `drums`, every second one has drums over it."""
    out = []
    for i, (path, programs, quarter_s) in enumerate(_ENSEMBLES[split][:limit]):
        notes = _performed(
            _score(path, length_s / quarter_s),
            quarter_s=quarter_s,
            programs=programs,
            transpose=(7 * i) % 12 - 5,
            rng=np.random.default_rng((i, split == "test", 2)),
        )
        hits = _pattern_hits(split, i, length_s=length_s) if drums and i % 2 else ()
        out.append(_rendering(path, notes, hits, kit=kit))
    return out


def drum_loops(split: Split, *, kit: int = 0, length_s: float = 8.0) -> list[Rendering]:
    """Return drum patterns alone."""
    count = len(_PATTERNS[split])
    loops = (_pattern_hits(split, i, length_s=length_s) for i in range(count))
    return [_rendering(f"{split} pattern {i}, kit {kit}", (), hits, kit=kit) for i, hits in enumerate(loops)]


def drummed(split: Split, *, kit: int = 0, length_s: float = 8.0) -> list[Rendering]:
    """Return the drum patterns over chorales on pianos, organ and guitar."""
    out = []
    for i, plain in enumerate(chorales(split, limit=len(_PATTERNS[split]), programs=(0, 19, 4, 24), length_s=length_s)):
        hits = _pattern_hits(split, i, length_s=length_s)
        out.append(_rendering(f"{plain.name}, {split} pattern {i}, kit {kit}", plain.notes, hits, kit=kit))
    return out


def _pattern_hits(split: Split, index: int, *, length_s: float) -> tuple[DrumHit, ...]:
    *rows, quarter_s = _PATTERNS[split][index % len(_PATTERNS[split])]
    step_s = quarter_s / 4
    rng = np.random.default_rng((index, split == "test", 3))
    kinds: tuple[DrumKind, ...] = ("hat", "snare", "kick")
    hits = []
    for step in range(int(length_s / step_s)):
        for kind, row in zip(kinds, rows, strict=True):
            mark = row[step % 16]
            if mark != ".":
                velocity = (108 if mark == "X" else 82) + int(rng.integers(-12, 13))
                hits.append(DrumHit(LEAD_IN_S + step * step_s, kind, velocity))
    return tuple(hits)


def detuned(rendering: Rendering, *, cents: float) -> Rendering:
    """Return the rendering played faster, as tape is, so that every pitch is `cents` higher."""
    ratio = 2.0 ** (cents / 1200.0)
    rate = rendering.sample_rate_hz
    samples = soxr.resample(rendering.samples, rate * ratio, rate, quality="HQ").astype(np.float32)
    notes = tuple(dataclasses.replace(n, onset_s=n.onset_s / ratio, duration_s=n.duration_s / ratio) for n in rendering.notes)
    hits = tuple(dataclasses.replace(h, onset_s=h.onset_s / ratio) for h in rendering.drum_hits)
    return Rendering(f"{rendering.name} {cents:+.0f} cents", samples, rate, notes, hits)


def with_pink_noise(rendering: Rendering, *, snr_db: float, rng: np.random.Generator) -> Rendering:
    """Return the rendering with pink noise (power as 1/f above 20 Hz) at `snr_db` below its mean power."""
    n = len(rendering.samples)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequencies = np.fft.rfftfreq(n, 1 / rendering.sample_rate_hz)
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 20.0)), n)
    power = float(np.mean(np.square(rendering.samples, dtype=np.float64)))
    pink *= np.sqrt(power / np.mean(pink**2) / 10 ** (snr_db / 10))
    samples = (rendering.samples + pink).astype(np.float32)
    return dataclasses.replace(rendering, name=f"{rendering.name}, noise {snr_db:.0f} dB", samples=samples)
