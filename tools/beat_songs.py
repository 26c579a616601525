"""Songs of known beats for `tools.train_beat_level`, as MIDI files: accompaniments by mma, syncopated bands, songs of FreeDM.

Accompaniments are of one groove of each file in mma's library, over random charts, at a tempo that is usual for its name, with
a melody; left out are those of the grooves that `benchmarks.duo_mma` reports on. In the syncopated bands, chords come off the
beats that a bass plays on, or both are syncopated, with drums or without. The songs of Debian's freedm are those that share
hardly a run of intervals with one of Freedoom's. Run ``python -m tools.beat_songs FOLDER --freedm freedm.wad``. Nothing that
it makes is shipped: mma and its grooves are under the GPL.
"""

import argparse
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mido import Message, MetaMessage, MidiFile, MidiTrack

from benchmarks.duo_material import freedoom_songs
from benchmarks.duo_mma import GROOVES, chord_tones, improvise
from benchmarks.duo_songs import DRUMS, Song, pair_notes, read_song, split_of, write_part

LIBRARY = Path("/usr/share/mma/lib")
LASTS_S, SYNCOPATED = 48, 60
_PROGRESSIONS = ("C Am Dm G7", "C F C G7", "Am F C G", "Dm7 G7 CM7 Am7", "C7 F7 C7 G7", "Am Dm E7 Am", "F Bb C7 F", "Em C G D")
_TEMPI = (
    ("dnb", 160, 176),
    ("fastjazzwaltz viene fastwaltz", 160, 195),
    ("waltz 34", 95, 165),
    ("fast", 165, 215),
    ("mellow slow ballad bald lullaby hymn ambient nitejazz reggae", 62, 94),
    ("trip hip rnb rb 16 soul funk", 74, 112),
    ("house techno dance rave trance disco", 112, 142),
    ("punk thr twist jive 50srock mambo", 140, 185),
    ("bossa march polka merengue chacha tango foxtrot", 105, 134),
    ("quando samba rhumba beguine bolero calypso son latin afro cuban", 85, 122),
    ("dixie broadway bigband basie jazz swing showtune ragtime", 110, 182),
    ("", 84, 140),
)
"""Parts of names, and the tempi from which the first that fits takes one."""
_NO_SONG = "intro|end|fill|sus|count|metronome|none|68|mide|f[abcd]$"
_SWUNG = "swing|jazz|shuffle|blues|boog|bogg|bigband|basie|dixie|foxtrot"
_KNOWN, _RUN = 0.15, 10


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _with_notes(song: Song, track: int, channel: int, program: int, notes: list[tuple[float, float, int, int]]) -> None:
    """Add notes to a song: onset and length in quarters, pitch, velocity."""
    quarter = song.ticks_per_quarter
    song.events.append((0, track, Message("program_change", channel=channel, program=program)))
    for onset, length, pitch, velocity in notes:
        begin = max(0, round(onset * quarter))
        end = max(begin + 10, round((onset + length) * quarter))
        song.events.append((begin, track, Message("note_on", channel=channel, note=pitch, velocity=velocity)))
        song.events.append((end, track, Message("note_off", channel=channel, note=pitch)))
    song.events.sort(key=lambda event: (event[0], event[2].type != "note_off"))
    song.notes = list(pair_notes(song.events))


def _chart(rng: np.random.Generator, bars: int) -> list[str]:
    a, b = (_PROGRESSIONS[number].split() for number in rng.choice(len(_PROGRESSIONS), 2, replace=False))
    return ([*a, *a, *b, *a] * bars)[:bars]


def accompaniments(rng: np.random.Generator) -> Iterator[Song]:
    """Yield what mma plays."""
    reported = tuple(name for name in (_plain(groove) for groove, _ in GROOVES) if split_of(f"mma_{name}") == "report")
    for path in sorted(LIBRARY.rglob("*.mma")):
        text, name = path.read_text(errors="replace"), _plain(path.stem)
        times = set(re.findall(r"^\s*Time\s+(\d+)", text, re.IGNORECASE | re.MULTILINE)) or {"4"}
        found = re.findall(r"^\s*DefGroove\s+(\S+)", text, re.IGNORECASE | re.MULTILINE)
        grooves = [g for g in found if not re.search(_NO_SONG, g, re.IGNORECASE) and not _plain(g).startswith(reported)]
        if not grooves or times not in ({"3"}, {"4"}) or re.search(_NO_SONG, name) or name.startswith(reported):
            continue
        groove, per_bar = grooves[int(rng.integers(len(grooves))) if rng.random() < 0.5 else 0], int(times.pop())
        low, high = next((low, high) for names, low, high in _TEMPI if any(n in name for n in names.split(" ")))
        tempo = rng.uniform(low, high)
        chords = _chart(rng, int(LASTS_S * tempo / 60 / per_bar) // 4 * 4 + 4)
        lines = [f"Tempo {tempo:.2f}", f"Groove {path.parent.name}/{path.stem}:{groove}"]
        lines += [f"{number} {chord}" for number, chord in enumerate(chords, 1)]
        with tempfile.TemporaryDirectory() as folder:
            chart, midi = Path(folder, "a.mma"), Path(folder, "a.mid")
            chart.write_text("\n".join(lines) + "\n")
            subprocess.run(["/usr/bin/mma", "-f", str(midi), str(chart)], capture_output=True, check=False)
            if not midi.exists():
                continue
            song = read_song(f"mma_{path.parent.name}_{name}", midi.read_bytes())
        song.meters = [(0, per_bar, 4)]
        free = sorted(set(range(16)) - {DRUMS} - {note.part[1] for note in song.notes})
        if free:
            melody = improvise(chords, per_bar, swung=bool(re.search(_SWUNG, name)), random=rng)
            _with_notes(song, 999, free[0], int(rng.choice([0, 11, 24, 40, 56, 65, 73])), melody)
        yield song


def syncopated(rng: np.random.Generator, count: int) -> Iterator[Song]:
    """Yield bands whose bass and chords take turns."""
    rhythms: tuple[tuple[list[float], list[float], tuple[int, int]], ...] = (
        ([0, 1, 2, 3], [0.5, 1.5, 2.5, 3.5], (66, 125)),
        ([0, 0.5, 2, 2.5, 3], [1, 3], (64, 95)),
        ([0, 1, 2, 3], [0.5, 1.5, 2.5, 3.5], (110, 170)),
        ([0, 1, 2, 3], [0, 1.5], (100, 200)),
        ([0, 1.5, 3], [0, 1, 1.5, 2.5, 3.5], (80, 125)),
        ([0, 1.5, 2, 3.5], [0, 1.5, 3.5], (70, 140)),
    )
    for number in range(count):
        bass, stabs, tempi = rhythms[number % len(rhythms)]
        tempo, drums = rng.uniform(*tempi), number // len(rhythms) % 5 < 3
        song = Song(f"syncopated_{number}", [], 480, [(0, 6e7 / tempo)], [(0, 4, 4)])
        chords = _chart(rng, int(LASTS_S * tempo / 60 / 4) + 2)
        lines: list[list[tuple[float, float, int, int]]] = [[], [], []]
        hats = ([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5], [0, 1, 2, 3], [0.5, 1.5, 2.5, 3.5], [])[int(rng.integers(4))]
        struck = {36: ([0, 2], [0, 1, 2, 3], [2])[int(rng.integers(3))], 38: [1, 3], 42: hats}
        for bar, chord in enumerate(chords):
            tones, _ = chord_tones(chord)
            lines[0] += [(4 * bar + at, 0.45, 36 + (tones[2 * (k % 2)] - 4) % 12, 92) for k, at in enumerate(bass)]
            lines[1] += [(4 * bar + at, 0.35, 55 + (tone - 7) % 12, 74) for at in stabs for tone in tones]
            lines[2] += [(4 * bar + at, 0.1, key, 95 - 25 * (key == 42)) for key, places in struck.items() for at in places]
        programs = (int(rng.choice([32, 33, 34, 38])), int(rng.choice([0, 4, 16, 24, 27, 61])), 0)
        for channel, line, program in zip((0, 1, DRUMS), lines, programs, strict=True):
            if channel != DRUMS or drums:
                played = [(at + rng.normal(0, 0.007) * tempo / 60, length, p, v) for at, length, p, v in line]
                _with_notes(song, channel, channel, program, played)
        if number % 4 < 2:
            _with_notes(song, 2, 2, int(rng.choice([0, 11, 40, 56, 65, 73])), improvise(chords, 4, swung=False, random=rng))
        yield song


def _runs(song: Song) -> set[tuple[int, ...]]:
    """Return runs of intervals in the parts of a song, but those of hardly any."""
    runs = set()
    for part in {note.part for note in song.notes if note.part[1] != DRUMS}:
        steps = np.diff([note.pitch for note in song.notes if note.part == part]).tolist()
        runs |= {tuple(steps[at : at + _RUN]) for at in range(len(steps) - _RUN) if len(set(steps[at : at + _RUN])) > 3}
    return runs


def freedm_songs(wad: Path) -> Iterator[Song]:
    """Yield the songs in FreeDM's archive that Freedoom hasn't got."""
    known: set[tuple[int, ...]] = set().union(*(_runs(read_song(name, data)) for name, data in freedoom_songs()))
    data = wad.read_bytes()
    count, directory = struct.unpack("<ii", data[4:12])
    for at, size, raw in struct.iter_unpack("<ii8s", data[directory : directory + 16 * count]):
        lump = data[at : at + size]
        if raw.startswith(b"D_") and lump.startswith(b"MThd"):
            song = read_song("freedm_" + raw.rstrip(b"\0").decode().removeprefix("D_").lower(), lump)
            runs = _runs(song)
            if runs and len(runs & known) / len(runs) <= _KNOWN:
                yield song


def main(out: Path, freedm: Path | None) -> None:
    """Write all of them into a folder."""
    rng = np.random.default_rng(0)
    out.mkdir(parents=True, exist_ok=True)
    for songs in (accompaniments(rng), syncopated(rng, SYNCOPATED), freedm_songs(freedm) if freedm else ()):
        for song in songs:
            path = out / f"{song.name}.mid"
            write_part(song, {note.part for note in song.notes}, path)
            midi, bars, before = MidiFile(path), MidiTrack(), 0
            for tick, numerator, denominator in song.meters:
                bars.append(MetaMessage("time_signature", numerator=numerator, denominator=denominator, time=tick - before))
                before = tick
            midi.tracks.append(bars)
            midi.save(path)
            print(song.name, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.beat_songs", description="Make songs of known beats.")
    parser.add_argument("output", type=Path, help="the folder to write MIDI files to")
    parser.add_argument("--freedm", type=Path, help="freedm.wad, of Debian's freedm")
    arguments = parser.parse_args()
    main(arguments.output, arguments.freedm)
