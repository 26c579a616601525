"""A player's recording and that of the others, from two files or from one that holds both.

One file is a recording of several channels or a multitrack MIDI file, which is rendered; the player is then the name of a
channel or a track.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from musichal.arrays import Float64
from musichal.audio.instrument import Instrument, find_instrument
from musichal.audio.midi_recording import take_of
from musichal.audio.recording import Recording, ingest, read_recording
from musichal.audio.recording_files import is_midi
from musichal.audio.score import Score, Track, read_score, render_tracks
from musichal.errors import InputError
from musichal.text import PathLike, printable

RATE_HZ = 44_100
"""Of what is rendered."""
_SIDES = {"left": 1, "right": 2}


def read_pair(player: PathLike, others: PathLike) -> tuple[Recording, Recording]:
    """Return the recordings of a player and of the others.

    `player` is a file, or "left", "right" or the number of a channel of `others`, or the name or number of a track of it if it
    is a MIDI file. Raises `InputError` where a file, a channel or a track cannot be used.
    """
    file = Path(others)
    if is_midi(file) and not _is_file(player):
        score = read_score(file)
        chosen = score.track(os.fspath(player))
        sides = render_pair(score, next(n for n, track in enumerate(score.tracks) if track is chosen))
        tracks = (chosen,), tuple(track for track in score.tracks if track is not chosen)
        one, other = (replace(side, take=take_of(replace(score, tracks=own))) for side, own in zip(sides, tracks, strict=True))
        return one, other
    if not _is_file(player) and _channel(player) is not None:
        return _channels(player, file)
    if Path(player).exists() and Path(player).resolve() == file.resolve():
        raise InputError(f"{printable(player)} is given as the player and as the others")
    return read_recording(player), read_recording(others)


def render_pair(score: Score, number: int, *, instrument: Instrument | None = None) -> tuple[Recording, Recording]:
    """Return a track of a score, by its place, and all others, rendered; raises `InputError` where there is no other."""
    rest = [track for n, track in enumerate(score.tracks) if n != number]
    if not rest:
        raise InputError(f"{score.name} has a single track; a player's and another are needed")
    font = instrument or find_instrument()

    def recording(name: str, tracks: Sequence[Track]) -> Recording:
        sound = render_tracks(tracks, font, sample_rate_hz=RATE_HZ, duration_s=score.duration_s)
        return Recording(name, RATE_HZ, ingest(sound))

    track = score.tracks[number]
    return recording(f"{score.name} ({printable(track.name)})", [track]), recording(f"{score.name} (the others)", rest)


def _is_file(player: PathLike) -> bool:
    return Path(player).is_file()


def _channel(player: PathLike) -> int | None:
    """Return which channel a player names, counted from 1."""
    name = os.fspath(player).strip().casefold()
    return _SIDES.get(name, int(name) if name.isdecimal() else None)


def _channels(player: PathLike, file: Path) -> tuple[Recording, Recording]:
    """Return one channel of a recording, and the rest of them."""
    number = _channel(player)

    def checked(block: Float64) -> int:
        channels = block.shape[1]
        if number is None or channels < 2 or not 1 <= number <= channels:
            has = "a single channel" if channels == 1 else f"channels 1 to {channels}"
            raise InputError(f"{printable(file.name)} has {has}, and no player in channel {printable(player)}")
        return number - 1

    one = read_recording(file, channels=lambda block: block[:, [checked(block)]])
    rest = read_recording(file, channels=lambda block: np.delete(block, checked(block), axis=1))
    return replace(one, name=f"{one.name} (channel {number})"), replace(rest, name=f"{rest.name} (the others)", warnings=())
