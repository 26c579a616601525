"""Duos: whether answers are together with a band that the partner does not hear, on material whose truth is known.

The material is made by `benchmarks.duo_material`. For each song a partner learns the first half of the band and answers the
player on the second. Training and hearing are the slow part and do not depend on the partner, so they are kept in a folder,
under a digest of the modules that they run (`hearing`, `memory`, `training`, `audio`) and of the song's truth. Nothing in that
folder is for exchange: it holds pickles.
"""

import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import musichal
from benchmarks.duo_mma import chord_tones
from musichal.audio.midi_recording import played_recording
from musichal.audio.recording import Recording, read_recording
from musichal.audio.score import Score, Track
from musichal.commands.play import direction
from musichal.errors import InputError
from musichal.evaluate.harmony_together import PitchedNotes, PitchTruth
from musichal.evaluate.time_together import BeatMap
from musichal.evaluate.together import Duo, DuoEvaluation, DuoSong, HeardDuo, Progress, evaluation_of, hear_duo, play_duo
from musichal.machine import single_blas_thread
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.partner.settings import PartnerSettings

MATERIAL = Path("/work/data")
STEADY = ("freedoom", "mma")
_HIGHEST_BASS, _BASS, _HIT_S = 45, 33, 0.05
_HEARD_BY = ("hearing", "memory", "training", "audio", "spec.py", "pulse.py", "note.py")


@dataclass(frozen=True)
class Song:
    """A song of the material: whether the player's recording has the drums in it, its pair is learned, or both are MIDI."""

    folder: Path
    with_drums: bool = False
    pairs: bool = False
    midi: bool = False

    @property
    def truth(self) -> dict[str, Any]:
        """Return what is known of it."""
        values: dict[str, Any] = json.loads((self.folder / "truth.json").read_text("utf-8"))
        return values


def songs_of(
    split: str,
    *,
    sets: Sequence[str] = STEADY,
    most: int | None = None,
    material: Path = MATERIAL,
    with_drums: bool = False,
    pairs: bool = False,
    midi: bool = False,
) -> list[Song]:
    """Return songs of a split, the sets in turn, in a fixed order.

    Raises
    ------
    InputError
        If there is no material.
    """
    by_set = []
    for kind in sets:
        folders = sorted(folder.parent for folder in (material / kind).glob("*/truth.json"))
        found = [Song(folder, with_drums, pairs, midi) for folder in folders]
        found = [s for s in found if s.truth["split"] == split and (not with_drums or (s.folder / "drums.wav").exists())]
        # Songs of one kind have like names; a hash takes them in another order, always the same.
        by_set.append(sorted(found, key=lambda s: hashlib.sha256(s.folder.name.encode()).digest()))
    songs = [song for row in _in_turn(by_set) for song in row]
    if not songs:
        raise InputError(f"no {split} songs in {material}: make them with python -m benchmarks.duo_material {material}")
    return songs[:most]


def _in_turn(lists: Sequence[Sequence[Song]]) -> Iterator[list[Song]]:
    for i in range(max(len(items) for items in lists)):
        # Freedoom has more of them, and more that are alike: two of its songs for one of another kind.
        yield [song for items in lists for song in items[i : i + 1]]


def duo_of(song: Song) -> Duo:
    """Return a song as a duo; with the drums in the player's recording, they are no part of the band's truth."""
    truth, folder = song.truth, song.folder
    if song.midi:
        player, band = _played(truth, with_drums=song.with_drums)
    else:
        player, band = read_recording(folder / "player.wav"), read_recording(folder / "band.wav")
    parts = [np.array([note[0] for note in part]) for part in band_parts(truth)]
    hits = np.array([hit[0] for hit in truth["drum_hits"]])
    player_s = np.array(truth["player_onsets_s"])
    if song.with_drums and song.midi:
        player_s = np.sort(np.concatenate([player_s, hits]))
    elif song.with_drums:
        drums = read_recording(folder / "drums.wav")
        player = replace(player, samples=(0.5 * (player.samples + drums.samples)).astype(np.float32))
        player_s = np.sort(np.concatenate([player_s, hits]))
    elif len(hits):
        parts.append(hits)
    beats = np.array(truth["beats_s"])
    return Duo(
        name=truth["name"] + (" with drums" if song.with_drums else ""),
        player=replace(player, name="player"),
        band=Recording("band", band.sample_rate_hz, band.samples, take=band.take),
        beats=BeatMap(beats, "score") if len(beats) > 3 else None,
        parts_s=tuple(parts),
        player_s=player_s if len(player_s) else None,
        push_s=truth.get("push_s"),
        pitches=pitches_of(truth),
    )


def _played(truth: Mapping[str, Any], *, with_drums: bool) -> tuple[Recording, Recording]:
    """Return the player and the band as MIDI files of their notes would be."""

    def track(name: str, rows: Sequence[Sequence[float]]) -> Track:
        notes = tuple(Note(on, max(long, 0.005), int(pitch), int(velocity)) for on, long, pitch, velocity in rows)
        low = float(np.median([note.pitch for note in notes])) < _HIGHEST_BASS if notes else False
        return Track(name, 0, _BASS if low else 0, notes)

    parts = band_parts(truth)
    struck = tuple(Note(on, _HIT_S, key, velocity, PERCUSSION_CHANNEL) for on, key, velocity in truth["drum_hits"])
    drums = [Track("drums", PERCUSSION_CHANNEL, 0, struck)] if struck else []
    player = [track("player", truth["player_notes"])]
    band = [track(f"part {number}", part) for number, part in enumerate(parts)]
    score = Score(truth["name"], (*player, *band, *drums), np.array(truth["beats_s"]), np.array(truth["downbeats_s"]))
    sides = ([*player, *drums], band) if with_drums else (player, [*band, *drums])
    one, other = (played_recording(score, side, duration_s=truth["duration_s"]) for side in sides)
    return one, other


def band_parts(truth: Mapping[str, Any]) -> list[list[Sequence[float]]]:
    """Return the notes of each part of the band; all as one part where parts are not known."""
    notes, numbers = truth["band_notes"], truth.get("band_note_parts") or [0] * len(truth["band_notes"])
    return [[note for note, number in zip(notes, numbers, strict=True) if number == part] for part in sorted(set(numbers))]


def pitches_of(truth: Mapping[str, Any]) -> PitchTruth | None:
    """Return the pitches of a song's parts and the tones of its chart's chords; None where no note is known."""
    if not truth["band_notes"]:
        return None

    def notes(rows: Sequence[Sequence[float]]) -> PitchedNotes:
        onsets_s, lengths_s, pitches = (np.array([row[field] for row in rows], dtype=np.float64) for field in range(3))
        return PitchedNotes(onsets_s, onsets_s + lengths_s, pitches.astype(np.int64))

    parts = band_parts(truth)
    chords = None
    if "chords" in truth:  # one for each bar; the song begins with the second bar of the chart
        bars = [*truth["downbeats_s"], truth["duration_s"]]
        begins_s, ends_s = truth.get("key_push_s", (np.inf, np.inf))
        chords = notes(
            [
                (start_s, end_s - start_s, tone + 6 * (begins_s <= start_s + 0.01 < ends_s))
                for start_s, end_s, chord in zip(bars, bars[1:], truth["chords"][1:], strict=False)
                for tone in chord_tones(chord)[0]
            ]
        )
    jumps_s = tuple(truth.get("key_push_s", ()))
    return PitchTruth(tuple(map(notes, parts)), notes(truth["player_notes"]), "score", chords=chords, jumps_s=jumps_s)


def hearing_digest() -> str:
    """Return a digest of the code that trains and hears."""
    package = Path(musichal.__file__).parent
    files = [
        file for name in _HEARD_BY for file in ([package / name] if name.endswith(".py") else (package / name).rglob("*.py"))
    ]
    found = hashlib.sha256(" ".join(field.name for field in fields(HeardDuo)).encode())
    for file in sorted(files):
        found.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return found.hexdigest()[:16]


def heard_song(song: Song, cache: Path | None) -> HeardDuo:
    """Return a song, trained and heard, from the cache where it is there."""
    file = None
    if cache is not None:
        content = (song.folder / "truth.json").read_bytes() + str((song.with_drums, song.pairs)).encode()
        content += b"midi" * song.midi
        key = hashlib.sha256(hearing_digest().encode() + content).hexdigest()[:16]
        file = cache / f"{song.folder.name}{'-drums' if song.with_drums else ''}{'-midi' if song.midi else ''}-{key}.pickle"
        if file.exists():
            heard: HeardDuo = pickle.loads(file.read_bytes())  # noqa: S301 - our own, from this machine
            return heard
    with single_blas_thread():
        heard = hear_duo(duo_of(song), pairs=song.pairs)
    if file is not None and cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        memory = heard.model.memory
        for each in (memory, *([] if memory.players is None else [memory.players.memory])):
            each._derived.clear()  # what the partner made of it is not of the code that the digest is of
        file.write_bytes(pickle.dumps(heard))
    return heard


def play_songs(
    songs: Sequence[Song],
    modes: Sequence[str],
    *,
    cache: Path | None,
    settings: PartnerSettings | None = None,
    anchors: bool = True,
    times: int = 1,
    progress: Progress,
) -> DuoEvaluation:
    """Return how each mode does in songs, beside the anchors; each song is played so many `times`, with a seed each."""
    heard = []
    for number, song in enumerate(songs):
        progress(f"Training and hearing {song.folder.name}", number / len(songs))
        heard.append(heard_song(song, cache))
    directions = {mode: direction(mode, None, None) for mode in modes}
    played: list[DuoSong] = []
    with single_blas_thread():
        for number, item in enumerate(heard):
            elsewhere = heard[(number + 1) % len(heard)] if len(heard) > 1 else None
            progress(f"Answering {item.name}", number / len(heard))
            for seed in range(times):
                played.append(play_duo(item, directions, settings=settings, seed=seed, elsewhere=elsewhere, anchors=anchors))
    return evaluation_of(played)
