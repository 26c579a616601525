"""Duos with a known truth: a player's and a band's recording of one song, with its beats, notes and drum hits.

Run as `python -m benchmarks.duo_material FOLDER [SET ...]` on a Debian machine with the packages freedoom, mma, fluidsynth,
fluid-soundfont-gm, timgm6mb-soundfont and musescore-general-soundfont-small. Nothing that it makes is shipped: mma and its
grooves are under the GPL.

Conventions
-----------
Each song is a folder `<set>/<name>` with `player.wav` (a melody), `band.wav` (all the rest), `drums.wav` (where there are
some), `mix.wav` and `truth.json`; times count from the first sample of each. Everything is seeded by the song's name. A song
is "tune" or "report" by a hash of its name, and its variants go with it.
"""

import hashlib
import json
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from mido import Message

from benchmarks.duo_free import make_free
from benchmarks.duo_mma import mma_excerpts
from benchmarks.duo_songs import (
    LONGEST_S,
    STEADY_R16,
    Excerpt,
    Song,
    concentration,
    excerpt,
    fonts_of,
    make_key_push,
    make_push,
    pair_notes,
    read_song,
    say,
    split_of,
    write_song,
)


def freedoom_songs() -> Iterator[tuple[str, bytes]]:
    """Yield each standard MIDI file in Freedoom's archives once."""
    seen = set()
    for wad in ("freedoom1", "freedoom2"):
        data = Path(f"/usr/share/games/doom/{wad}.wad").read_bytes()
        count, directory = struct.unpack("<ii", data[4:12])
        for index in range(count):
            at, size, raw = struct.unpack("<ii8s", data[directory + 16 * index : directory + 16 * index + 16])
            lump = data[at : at + size]
            digest = hashlib.sha256(lump).digest()
            if raw.startswith(b"D_") and lump.startswith(b"MThd") and digest not in seen:
                seen.add(digest)
                yield f"fd{wad[-1]}_" + raw.rstrip(b"\0").decode().removeprefix("D_").lower(), lump


def freedoom_excerpts(most: int = 34) -> Iterator[Excerpt]:
    """Yield the songs of Freedoom whose tempo map is their beat."""
    made = 0
    for name, data in freedoom_songs():
        if made >= most:
            return
        song = read_song(name, data)
        found = excerpt(song)
        if found is None:
            say(f"{name}: no excerpt with a melody")
            continue
        begin, end, melody = found
        ticks = np.array([note.onset for note in song.notes if begin <= note.onset < end])
        steady = concentration(ticks / song.ticks_per_quarter * 4)
        if steady < STEADY_R16:
            say(f"{name}: R16 {steady:.2f}, the tempo map is not the beat")
            continue
        made += 1
        say(f"{name}: R16 {steady:.2f}, {split_of(name)}")
        yield song, begin, end, melody, {}


def make_freedoom(out: Path) -> None:
    """Write the songs of Freedoom, and some with a change of tempo."""
    pushes = Counter[str]()
    for song, begin, end, melody, _ in freedoom_excerpts():
        write_song(out / "freedoom" / song.name, song, begin, end, melody, kind="freedoom", fonts=fonts_of(song.name))
        split = split_of(song.name)
        pushes[split] += 1
        if pushes[split] % 2 == 0 and pushes[split] <= 8:
            make_push(out, song, begin, end, melody)


def make_mma(out: Path) -> None:
    """Write accompaniments by mma over random charts, with a melody of ours."""
    for song, begin, end, melody, more in mma_excerpts():
        write_song(out / "mma" / song.name, song, begin, end, melody, kind="mma", fonts=fonts_of(song.name), more=more)


def make_key_pushes(out: Path) -> None:
    """Write every third song of either kind and split with a key that jumps by a tritone, and back."""
    for excerpts in (freedoom_excerpts(), mma_excerpts()):
        counts = Counter[str]()
        for song, begin, end, melody, more in excerpts:
            counts[split_of(song.name)] += 1
            if counts[split_of(song.name)] % 3 == 1:
                make_key_push(out, song, begin, end, melody, more)


def make_chorales(out: Path) -> None:
    """Write pairs of chorales, one after the other, with one voice as the player."""
    from music21 import corpus

    pairs = (
        ("bwv10.7", "bwv101.7"),
        ("bwv102.7", "bwv104.6"),
        ("bwv108.6", "bwv110.7"),
        ("bwv111.6", "bwv113.8"),
        ("bwv114.7", "bwv115.6"),
        ("bwv116.6", "bwv117.4"),
        ("bwv12.7", "bwv120.6"),
        ("bwv140.7", "bwv144.3"),
        ("bwv145.5", "bwv146.8"),
    )
    programs = ((73, 48), (40, 48), (68, 19), (0, 0), (24, 24), (64, 61), (11, 4), (71, 48), (56, 61))
    for number, pair in enumerate(pairs):
        name = "ch_" + pair[0].replace(".", "_")
        tempo = 76 + 4 * number
        song = Song(name, [], 480, [(0, 6e7 / tempo)], [(0, 4, 4)])
        at = 0
        for piece in pair:
            parts = corpus.parse(f"bach/{piece}").parts
            if len(parts) != 4:
                say(f"{name}: {piece} has {len(parts)} voices")
            length = 0
            for voice, part in enumerate(list(parts)[-4:]):
                flat = part.flatten().notes
                song.events.append((at, voice, Message("program_change", channel=voice, program=programs[number][voice != 0])))
                for note in flat:
                    on, off = (
                        at + round(Fraction(note.offset) * 480),
                        at + round(Fraction(note.offset + note.quarterLength) * 480),
                    )
                    length = max(length, off - at)
                    if off - on > 10:
                        song.events.append(
                            (on, voice, Message("note_on", channel=voice, note=int(note.pitches[-1].midi), velocity=84))
                        )
                        song.events.append(
                            (off - 8, voice, Message("note_off", channel=voice, note=int(note.pitches[-1].midi)))
                        )
            at += -(-length // 1920) * 1920
        song.events.sort(key=lambda event: (event[0], event[2].type != "note_off"))
        song.notes = list(pair_notes(song.events))
        end = min(float(at), LONGEST_S * tempo / 60 * 480)
        write_song(
            out / "chorale" / name, song, 0.0, end, (0, 0), kind="chorale", fonts=fonts_of(name), more={"chorales": pair}
        )
        say(f"{name}: {split_of(name)}")


def make_stems(out: Path, audio: Path = Path("/work/shared/audio")) -> None:
    """Copy the stems: guitar against drums and bass."""
    for name in ("rock140", "ballad95"):
        truth = json.loads((audio / f"{name}.json").read_text())
        folder = out / "stems" / name
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in (("guitar", "player"), ("backing", "band"), ("mix", "mix")):
            samples, rate = soundfile.read(audio / f"{name}_{source}.ogg", dtype="float32", always_2d=True)
            soundfile.write(folder / f"{target}.wav", samples.mean(axis=1), rate, subtype="PCM_16")
        row = {
            "name": name,
            "set": "stems",
            "split": "tune" if name == "rock140" else "report",
            "duration_s": len(samples) / rate,
            "tempo_bpm": truth["bpm"],
            "beats_per_bar": 4,
            "beats_s": [round(b + 0.06, 4) for b in truth["beats"]],
            "downbeats_s": [],
            "player_notes": [],
            "band_notes": [],
            "drum_hits": [],
            "player_onsets_s": [],
            "band_onsets_s": [],
            "files": ["band.wav", "mix.wav", "player.wav"],
            "soundfonts": {},
        }
        (folder / "truth.json").write_text(json.dumps(row))


def main() -> None:
    """Make everything, or the sets named."""
    out = Path(sys.argv[1])
    makers = {
        "freedoom": make_freedoom,
        "mma": make_mma,
        "key_push": make_key_pushes,
        "chorale": make_chorales,
        "stems": make_stems,
        "free": make_free,
    }
    for kind in sys.argv[2:] or makers:
        makers[kind](out)


if __name__ == "__main__":
    main()
