"""Songs as events in ticks: their melody and a stretch of them, rendered by fluidsynth and written with their truth."""

import hashlib
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from mido import MetaMessage, MidiFile, MidiTrack

from musichal.arrays import Float32

RATE_HZ = 44100
LONGEST_S = 64.0
SHORTEST_S = 36.0
FONTS = {
    "fluid": Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    "timgm6mb": Path("/usr/share/sounds/sf2/TimGM6mb.sf2"),
    "musescore": Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"),
}
DRUMS = 9
STEADY_R16 = 0.85
"""Below this concentration of onsets on its 16ths a tempo map is not the musical beat."""

PartKey = tuple[int, int]
"""Track and channel."""
Excerpt = tuple["Song", float, float, PartKey, Mapping[str, Any]]
"""A song, the ticks between which it is taken, its melody, and what more is known of it."""


@dataclass(frozen=True)
class PlayedNote:
    """A note of a song, in ticks."""

    onset: int
    end: int
    pitch: int
    velocity: int
    part: PartKey


@dataclass
class Song:
    """A song as events in ticks: (tick, track, message), ordered; `tempos` are (tick, microseconds per quarter)."""

    name: str
    events: list[tuple[int, int, Any]]
    ticks_per_quarter: int
    tempos: list[tuple[int, float]]
    meters: list[tuple[int, int, int]]
    notes: list[PlayedNote] = field(default_factory=list)

    def seconds(self, ticks: "np.typing.ArrayLike") -> np.ndarray:
        """Return when these ticks sound."""
        at = np.array([tick for tick, _ in self.tempos], float)
        rate = np.array([tempo for _, tempo in self.tempos]) / 1e6 / self.ticks_per_quarter
        begins = np.concatenate([[0.0], np.cumsum(np.diff(at) * rate[:-1])])
        ticks = np.asarray(ticks, float)
        place = np.searchsorted(at, ticks, side="right") - 1
        return begins[place] + (ticks - at[place]) * rate[place]

    def beats(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the ticks of the beats and of the downbeats, and the beats of the first bar."""
        last = max((note.end for note in self.notes), default=0)
        beats: list[int] = []
        downbeats: list[int] = []
        changes = [*self.meters, (last + 4 * self.ticks_per_quarter, 4, 4)]
        for (tick, numerator, denominator), (until, _, _) in pairwise(changes):
            compound = denominator == 8 and numerator % 3 == 0
            beat = self.ticks_per_quarter * 4 * (3 if compound else 1) / denominator
            per_bar = numerator // 3 if compound else numerator
            count = 0
            while tick + count * beat < until:
                at = round(tick + count * beat)
                beats.append(at)
                if count % per_bar == 0:
                    downbeats.append(at)
                count += 1
        _, numerator, denominator = self.meters[0]
        return np.array(beats), np.array(downbeats), numerator // 3 if denominator == 8 and numerator % 3 == 0 else numerator


def read_song(name: str, data: bytes) -> Song:
    """Read a standard MIDI file."""
    midi = MidiFile(file=io.BytesIO(data), clip=True)
    events = []
    tempos: dict[int, float] = {0: 500000.0}
    meters: dict[int, tuple[int, int]] = {0: (4, 4)}
    for number, track in enumerate(midi.tracks):
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                tempos[tick] = message.tempo
            elif message.type == "time_signature":
                meters[tick] = (message.numerator, message.denominator)
            elif not message.is_meta and message.type != "sysex":
                events.append((tick, number, message))
    events.sort(key=lambda event: event[0])
    song = Song(name, events, midi.ticks_per_beat, sorted(tempos.items()), [(t, *m) for t, m in sorted(meters.items())])
    song.notes = list(pair_notes(events))
    return song


def pair_notes(events: Sequence[tuple[int, int, Any]]) -> Iterator[PlayedNote]:
    """Yield the notes of events, by onset and pitch; one that is struck again ends there, as it does for a synthesiser."""
    sounding: dict[tuple[int, int, int], tuple[int, int]] = {}
    notes = []
    for tick, track, message in events:
        if message.type not in ("note_on", "note_off"):
            continue
        key = (track, message.channel, message.note)
        if key in sounding:
            onset, velocity = sounding.pop(key)
            notes.append(PlayedNote(onset, max(tick, onset + 1), message.note, velocity, (track, message.channel)))
        if message.type == "note_on" and message.velocity:
            sounding[key] = (tick, message.velocity)
    return iter(sorted(notes, key=lambda note: (note.onset, note.pitch)))


def concentration(phases: np.ndarray) -> float:
    """Return the mean resultant length of phases in turns."""
    return float(abs(np.exp(2j * np.pi * phases).mean())) if len(phases) else 0.0


def melody_of(song: Song, begin: float, end: float) -> PartKey | None:
    """Return the most melodic part between two ticks: busy, mostly one note at a time, neither bass nor drums."""
    programs: dict[PartKey, int] = {}
    current = dict.fromkeys(range(16), 0)
    for _, track, message in song.events:
        if message.type == "program_change":
            current[message.channel] = message.program
        elif message.type == "note_on":
            programs.setdefault((track, message.channel), current[message.channel])
    best, best_score = None, 0.0
    seconds = float(song.seconds(end) - song.seconds(begin))
    for part in {note.part for note in song.notes}:
        notes = [note for note in song.notes if note.part == part and begin <= note.onset < end]
        if part[1] == DRUMS or len(notes) < 1.0 * seconds or 32 <= programs.get(part, 0) < 40 or programs.get(part, 0) >= 112:
            continue
        onsets = Counter(note.onset for note in notes)
        alone = np.mean([count == 1 for count in onsets.values()])
        rate = min(len(onsets) / seconds, 4.0)
        pitch = float(np.median([note.pitch for note in notes]))
        filled = len({int((song.seconds(tick) - song.seconds(begin)) / 4) for tick in onsets}) / max(seconds / 4, 1)
        variety = min(len({note.pitch for note in notes}) / 8, 1.0)
        score = float(alone**2 * rate**0.5 * filled**2 * variety * np.clip((pitch - 36) / 24, 0, 1.2))
        if score > best_score:
            best, best_score = part, score
    return best if best_score > 0.25 else None


def excerpt(song: Song) -> tuple[float, float, PartKey] | None:
    """Return begin and end in ticks of the busiest stretch of at most `LONGEST_S` and the melody in it."""
    beats, downbeats, _ = song.beats()
    last = max(note.end for note in song.notes)
    found, most = None, 0.0
    starts = downbeats[:: max(len(downbeats) // 24, 1)]
    for begin in starts:
        end = min(float(np.interp(song.seconds(begin) + LONGEST_S, song.seconds(beats), beats)), last)
        seconds = float(song.seconds(end) - song.seconds(begin))
        if seconds < SHORTEST_S:
            continue
        part = melody_of(song, begin, end)
        if part is None:
            continue
        player = {
            int(song.seconds(n.onset) - song.seconds(begin)) for n in song.notes if n.part == part and begin <= n.onset < end
        }
        band = {
            int(song.seconds(n.onset) - song.seconds(begin)) for n in song.notes if n.part != part and begin <= n.onset < end
        }
        score = (len(player & band)) * min(seconds / LONGEST_S, 1.0)
        if len(player & band) >= 0.6 * seconds and score > most:
            found, most = (float(begin), end, part), score
    return found


def split_of(name: str) -> str:
    """Return "tune" or "report", for ever the same."""
    return "tune" if hashlib.sha256(f"musichal duo {name}".encode()).digest()[0] % 2 == 0 else "report"


def write_part(song: Song, parts: set[PartKey], path: Path) -> None:
    """Write a MIDI file with these parts alone; each keeps its channel's controllers and programs."""
    midi = MidiFile(ticks_per_beat=song.ticks_per_quarter)
    track = MidiTrack()
    midi.tracks.append(track)
    channels = {channel for _, channel in parts}
    merged: list[tuple[int, int, Any]] = [(t, 0, MetaMessage("set_tempo", tempo=round(tempo))) for t, tempo in song.tempos]
    for tick, number, message in song.events:
        is_note = message.type in ("note_on", "note_off", "polytouch")
        if (number, message.channel) in parts if is_note else message.channel in channels:
            merged.append((tick, 1, message))
    merged.sort(key=lambda event: event[:2])
    before = 0
    for tick, _, message in merged:
        track.append(message.copy(time=tick - before))
        before = tick
    track.append(MetaMessage("end_of_track", time=4 * song.ticks_per_quarter))
    midi.save(path)


def render(song: Song, parts: set[PartKey], font: Path) -> Float32:
    """Render parts to mono, whole."""
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "a.mid"), Path(folder, "a.wav")
        write_part(song, parts, midi)
        command = ["nice", "fluidsynth", "-ni", "-q", "-g", "0.5", "-r", str(RATE_HZ), "-F", str(wav), str(font), str(midi)]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own files
        samples, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    return samples.mean(axis=1)


def level(samples: Float32) -> Float32:
    """Return the samples at −20 dBFS RMS of what sounds, without clipping."""
    loud = samples[np.abs(samples) > 1e-3]
    rms = float(np.sqrt(np.mean(loud**2))) if len(loud) else 1.0
    return (samples * min(0.1 / rms, 0.95 / max(float(np.abs(samples).max()), 1e-6))).astype(np.float32)


def note_rows(song: Song, notes: Sequence[PlayedNote], begin_s: float) -> list[list[float]]:
    """Return notes as onset and duration in seconds, pitch and velocity."""
    onsets = song.seconds([note.onset for note in notes]) - begin_s
    ends = song.seconds([note.end for note in notes]) - begin_s
    rows = zip(notes, onsets, ends, strict=True)
    return [[round(float(on), 4), round(float(off - on), 4), note.pitch, note.velocity] for note, on, off in rows]


def write_song(
    folder: Path,
    song: Song,
    begin: float,
    end: float,
    melody: PartKey,
    *,
    kind: str,
    fonts: tuple[str, str],
    more: Mapping[str, Any] | None = None,
    drums_with_player: bool = False,
) -> None:
    """Render and write one song between two ticks."""
    parts = {note.part for note in song.notes}
    drums = {part for part in parts if part[1] == DRUMS}
    begin_s, end_s = float(song.seconds(begin)), float(song.seconds(end))
    cut = slice(round(begin_s * RATE_HZ), round(end_s * RATE_HZ))
    length = cut.stop - cut.start

    def rendered(chosen: set[PartKey], font: str) -> Float32:
        samples = render(song, chosen, FONTS[font])[cut]
        return level(np.pad(samples, (0, length - len(samples))))

    folder.mkdir(parents=True, exist_ok=True)
    inside = [note for note in song.notes if begin <= note.onset < end]
    names = ["player", "band", "mix", *(["drums"] if any(note.part in drums for note in inside) else [])]
    if not all((folder / f"{name}.wav").exists() for name in names):
        player = rendered({melody}, fonts[0])
        band = rendered(parts - {melody}, fonts[1])
        files = {"player": player, "band": band, "mix": (0.5 * (player + band)).astype(np.float32)}
        if "drums" in names:
            files["drums"] = rendered(drums, fonts[1])
        for name, samples in files.items():
            soundfile.write(folder / f"{name}.wav", samples, RATE_HZ, subtype="PCM_16")
    beats, downbeats, per_bar = song.beats()
    beats_s, downbeats_s = song.seconds(beats) - begin_s, song.seconds(downbeats) - begin_s
    beats_s = beats_s[(beats_s > -1e-6) & (beats_s < end_s - begin_s)]
    downbeats_s = downbeats_s[(downbeats_s > -1e-6) & (downbeats_s < end_s - begin_s)]
    hits = note_rows(song, [n for n in inside if n.part in drums], begin_s)
    of_band = [n for n in inside if n.part != melody and n.part not in drums]
    numbers = {part: number for number, part in enumerate(sorted({n.part for n in of_band}))}
    band_notes = note_rows(song, of_band, begin_s)
    player_notes = note_rows(song, [n for n in inside if n.part == melody], begin_s)
    at = np.interp([n.onset for n in inside], beats, np.arange(len(beats)))
    name = folder.name
    truth = {
        "name": name,
        "set": kind,
        "split": split_of(song.name),
        "duration_s": round(end_s - begin_s, 4),
        "tempo_bpm": round(float(60 / np.median(np.diff(beats_s))), 3),
        "beats_per_bar": per_bar,
        "beats_s": np.round(beats_s.clip(0), 4).tolist(),
        "downbeats_s": np.round(downbeats_s.clip(0), 4).tolist(),
        "onset_concentration": {str(k): round(concentration(at * k), 3) for k in (1, 2, 3, 4)},
        "player_notes": player_notes,
        "band_notes": band_notes,
        "band_note_parts": [numbers[n.part] for n in of_band],
        "drum_hits": [[row[0], row[2], row[3]] for row in hits],
        "player_onsets_s": sorted({row[0] for row in player_notes}),
        "band_onsets_s": sorted({row[0] for row in [*band_notes, *hits]}),
        "files": sorted(f"{name}.wav" for name in names),
        "soundfonts": {"player": fonts[0], "band": fonts[1]},
        **(more or {}),
    }
    (folder / "truth.json").write_text(json.dumps(truth))


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


def fonts_of(name: str) -> tuple[str, str]:
    """Return the fonts of player and band: often two different ones."""
    digest = hashlib.sha256(f"font {name}".encode()).digest()
    names = sorted(FONTS)
    return names[digest[0] % 3], names[digest[1] % 3]


def pushed(song: Song, begin: float, end: float, factor: float) -> tuple[Song, float, float]:
    """Return the song with a tempo `factor` times as fast from three quarters of the excerpt on, and where that is."""
    beats, _, _ = song.beats()
    at = float(beats[np.searchsorted(beats, begin + 0.72 * (end - begin))])
    tempos = [(tick, tempo) for tick, tempo in song.tempos if tick < at]
    tempos.append((int(at), tempos[-1][1] / factor))
    tempos += [(tick, tempo / factor) for tick, tempo in song.tempos if tick > at]
    return Song(song.name, song.events, song.ticks_per_quarter, tempos, song.meters, song.notes), at, factor


def key_pushed(song: Song, begin: float, end: float, *, semitones: int) -> tuple[Song, float, float]:
    """Return the song with all but drums moved for a stretch of whole bars, and where that begins and ends.

    The stretch is the middle third of the second half, which is the one that is answered.
    """
    _, downbeats, _ = song.beats()
    first, last = (float(downbeats[np.searchsorted(downbeats, begin + part * (end - begin))]) for part in (4 / 6, 5 / 6))
    struck: dict[tuple[int, int, int], list[int]] = {}
    events = []
    for tick, track, old in song.events:
        message = old
        if message.type in ("note_on", "note_off") and message.channel != DRUMS:
            key = (track, message.channel, message.note)
            if message.type == "note_on" and message.velocity:
                struck.setdefault(key, []).append(moved := message.note + semitones * (first <= tick < last))
            else:  # a note ends at the pitch that it began with
                moved = struck[key].pop(0) if struck.get(key) else message.note
            message = old.copy(note=moved)
        events.append((tick, track, message))
    other = replace(song, events=events, notes=list(pair_notes(events)))
    return other, first, last


def make_key_push(
    out: Path, song: Song, begin: float, end: float, melody: PartKey, more: Mapping[str, Any] | None = None
) -> None:  # fmt: skip
    """Write the variant of a song whose key jumps by a tritone, and back."""
    high = max(note.pitch for note in song.notes if note.part[1] != DRUMS) > 121
    other, first, last = key_pushed(song, begin, end, semitones=-6 if high else 6)
    jumps_s = [round(float(other.seconds(at) - other.seconds(begin)), 4) for at in (first, last)]
    write_song(
        out / "key_push" / f"{song.name}_key",
        other,
        begin,
        end,
        melody,
        kind="key_push",
        fonts=fonts_of(song.name),
        more={**(more or {}), "base": song.name, "key_push_s": jumps_s},
    )


def make_push(out: Path, song: Song, begin: float, end: float, melody: PartKey) -> None:
    """Write the variant of a song whose tempo changes."""
    faster = hashlib.sha256(song.name.encode()).digest()[3] % 2
    other, at, factor = pushed(song, begin, end, 1.08 if faster else 1 / 1.08)
    more = {"base": song.name, "push_s": round(float(other.seconds(at) - other.seconds(begin)), 4), "push_factor": factor}
    write_song(
        out / "tempo_push" / f"{song.name}_push",
        other,
        begin,
        end,
        melody,
        kind="tempo_push",
        fonts=fonts_of(song.name),
        more=more,
    )
