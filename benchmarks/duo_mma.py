"""Accompaniments by mma over random charts, with a melody of ours."""

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mido import Message

from benchmarks.duo_songs import DRUMS, LONGEST_S, Excerpt, pair_notes, read_song, say, split_of

GROOVES = (
    ("Swing", 140),
    ("Waltz", 150),
    ("BossaNova", 126),
    ("BasicRock", 112),
    ("Rock128", 74),
    ("SlowBlues", 72),
    ("JazzWaltz", 156),
    ("Samba", 100),
    ("Tango", 118),
    ("ShuffleBoggie", 132),
    ("Ska", 136),
    ("PopBallad", 84),
    ("FolkRock", 104),
    ("Polka", 120),
    ("Salsa", 176),
    ("Trance", 128),
    ("R&B", 92),
    ("Mambo", 168),
    ("CountryWaltz", 120),
    ("Bebop", 190),
    ("Jazz54", 150),
    ("March", 116),
    ("Charleston", 124),
    ("BigBand", 152),
    ("Rhumba", 108),
    ("Gypsyjazz", 180),
)
"""Grooves of mma's library and a tempo for each."""
SWUNG = {"Swing", "SlowBlues", "JazzWaltz", "ShuffleBoggie", "Bebop", "Jazz54", "BigBand", "Charleston", "Rock128"}
THREES, FIVES = {"Waltz", "JazzWaltz", "CountryWaltz"}, {"Jazz54"}
_PROGRESSIONS = (
    "C Am Dm G7",
    "C F C G7",
    "Am F C G",
    "Dm7 G7 CM7 Am7",
    "C7 F7 C7 G7",
    "Am Dm E7 Am",
    "F Bb C7 F",
    "Em C G D",
    "CM7 Em7 Dm7 G7",
    "Gm7 C7 FM7 D7",
)
_ROOTS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11, "Bb": 10}
_MELODY_PROGRAMS = (0, 4, 11, 24, 26, 40, 56, 61, 64, 65, 66, 68, 71, 73)


def chord_tones(chord: str) -> tuple[list[int], list[int]]:
    """Return the pitch classes of a chord, and those of a scale that goes with it."""
    root = _ROOTS[chord[:2]] if chord[:2] in _ROOTS else _ROOTS[chord[0]]
    rest = chord.removeprefix("Bb") if chord.startswith("Bb") else chord[1:]
    minor = rest.startswith("m")
    tones = [0, 3, 7] if minor else [0, 4, 7]
    if rest.endswith("M7"):
        tones.append(11)
    elif rest.endswith("7"):
        tones.append(10)
    scale = [0, 2, 3, 5, 7, 9, 10] if minor else [0, 2, 4, 5, 7, 9, 10 if rest == "7" else 11]
    return [(root + tone) % 12 for tone in tones], [(root + tone) % 12 for tone in scale]


def improvise(
    chords: Sequence[str], per_bar: int, *, swung: bool, random: np.random.Generator
) -> list[tuple[float, float, int, int]]:
    """Return a melody over one chord per bar: (onset, length, pitch, velocity), in beats, with phrases, rests and motifs."""
    late = 2 / 3 if swung else 0.5
    cells = [[0.0], [0.0, late], [late], [0.0, late], [0.0]]
    if not swung:
        cells += [[0.0, 0.25, 0.5, 0.75], [0.0, 0.75], [0.0, 0.5, 0.75]]
    else:
        cells += [[0.0, 1 / 3, 2 / 3]]
    onsets: list[float] = []
    motif: list[float] = []
    for bar in range(len(chords)):
        if bar % 4 == 3 and random.random() < 0.6:
            rhythm = [0.0] if random.random() < 0.5 else [0.0, late]
        elif bar % 2 == 1 and random.random() < 0.5 and motif:
            rhythm = motif
        else:
            rhythm = [
                beat + place
                for beat in range(per_bar)
                if random.random() < 0.85
                for place in cells[random.integers(len(cells))]
            ]
        motif = rhythm
        onsets += [bar * per_bar + place for place in rhythm]
    pitch, notes = int(random.integers(64, 74)), []
    for index, onset in enumerate(onsets):
        tones, scale = chord_tones(chords[int(onset // per_bar)])
        wanted = tones if onset % 1 == 0 else scale
        near = [
            p
            for p in range(max(pitch - 7, 57), min(pitch + 8, 86))
            if p % 12 in wanted and (p != pitch or random.random() < 0.2)
        ]
        if near:
            weights = np.exp(-np.abs(np.array(near) - pitch) / 3)
            pitch = int(random.choice(near, p=weights / weights.sum()))
        following = onsets[index + 1] if index + 1 < len(onsets) else onset + 1
        length = min(following - onset, 1.5) * random.uniform(0.6, 0.98)
        jitter = float(np.clip(random.normal(0, 0.012), -0.03, 0.03))
        velocity = int(np.clip(random.normal(92 if onset % 1 == 0 else 82, 8), 40, 120))
        notes.append((max(onset + jitter, 0.0), length, pitch, velocity))
    return notes


def mma_excerpts() -> Iterator[Excerpt]:
    """Yield accompaniments by mma over random charts, with a melody of ours."""
    for groove, usual_tempo in GROOVES:
        name = "mma_" + "".join(c for c in groove.lower() if c.isalnum())
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
        per_bar = 3 if groove in THREES else 5 if groove in FIVES else 4
        tempo = round(usual_tempo * random.uniform(0.93, 1.07))
        bars = int((LONGEST_S + 4) * tempo / 60 / per_bar) // 4 * 4
        a, b = (_PROGRESSIONS[i].split() for i in random.choice(len(_PROGRESSIONS), 2, replace=False))
        chords = ([*a, *a, *b, *a] * bars)[:bars]
        with tempfile.TemporaryDirectory() as folder:
            chart = Path(folder, "a.mma")
            lines = ["RndSeed 7", f"Tempo {tempo}", f"Groove {groove}", *(f"{i + 1} {chord}" for i, chord in enumerate(chords))]
            chart.write_text("\n".join(lines) + "\n")
            command = ["/usr/bin/mma", "-f", str(Path(folder, "a.mid")), str(chart)]
            subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own files
            if not Path(folder, "a.mid").exists():
                say(f"{name}: mma made nothing")
                continue
            song = read_song(name, Path(folder, "a.mid").read_bytes())
        song.meters = [(0, per_bar, 4)]
        quarter = song.ticks_per_quarter
        used = {channel for _, channel in {note.part for note in song.notes}}
        channel = next((c for c in range(16) if c not in used and c != DRUMS), None)
        if channel is None:
            say(f"{name}: no channel is free")
            continue
        program = int(random.choice(_MELODY_PROGRAMS))
        melody = (999, channel)
        swung = groove in SWUNG
        song.events.append((0, 999, Message("program_change", channel=channel, program=program)))
        for onset, length, pitch, velocity in improvise(chords, per_bar, swung=swung, random=random):
            on, off = round(onset * quarter), max(round((onset + length) * quarter), round(onset * quarter) + 10)
            song.events.append((on, 999, Message("note_on", channel=channel, note=pitch, velocity=velocity)))
            song.events.append((off, 999, Message("note_off", channel=channel, note=pitch)))
        song.events.sort(key=lambda event: event[0])
        song.notes = list(pair_notes(song.events))
        begin = float(quarter * per_bar * 1)
        end = min(begin + LONGEST_S * tempo / 60 * quarter, float(bars * per_bar * quarter))
        more = {"groove": groove, "chords": chords, "player_program": program}
        say(f"{name}: {split_of(name)}, {tempo} BPM")
        yield song, begin, end, melody, more
