"""Bands with drums whose notes are known: excerpts of the duos' material, heard by MusicHal and by basic-pitch.

A piece is 16 s of a song's mix, player and band and drums together, from its 20th second; its notes are all but the drums'.
The songs come from three soundfonts; the network was trained with two of them.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import soundfile
import soxr

from benchmarks.duo_quality import songs_of
from benchmarks.scores import SAMPLE_RATE_HZ, Rendering, ScoreNote
from musichal.note import HeardNote

START_S, LENGTH_S = 20.0, 16.0
UNTRAINED_FONT = "musescore"


def band_pieces(split: str, *, most: int = 16, font: str | None = None) -> list[Rendering]:
    """Return excerpts of songs with drums; of those alone that `font` plays throughout, if one is named."""
    pieces = []
    for song in songs_of(split):
        truth = json.loads((song.folder / "truth.json").read_text(encoding="utf-8"))
        if not truth.get("drum_hits") or (font and set(truth["soundfonts"].values()) != {font}):
            continue
        start_s = min(START_S, truth["duration_s"] - LENGTH_S)
        samples, rate = soundfile.read(song.folder / "mix.wav", dtype="float32")
        cut = samples[int(start_s * rate) : int((start_s + LENGTH_S) * rate)]
        notes = sorted(
            (onset_s - start_s, duration_s, int(pitch), velocity)
            for onset_s, duration_s, pitch, velocity in truth["player_notes"] + truth["band_notes"]
            if start_s <= onset_s < start_s + LENGTH_S - 0.3
        )
        heard = soxr.resample(cut, rate, SAMPLE_RATE_HZ).astype("float32")
        pieces.append(Rendering(song.folder.name, heard, SAMPLE_RATE_HZ, tuple(ScoreNote(*note) for note in notes), ()))
    return pieces[:most]


def peer_notes(pieces: Sequence[Rendering]) -> list[list[HeardNote]] | None:
    """Return what basic-pitch hears with its defaults, piece by piece; None where it is not installed."""
    sys.modules.setdefault("resampy", ModuleType("resampy"))  # imported, and not used, by the file that is needed
    try:
        inference = import_module("basic_pitch.inference")
    except ImportError:
        return None
    model = inference.Model(import_module("basic_pitch").ICASSP_2022_MODEL_PATH)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piece.wav"
        for piece in pieces:
            soundfile.write(path, piece.samples, piece.sample_rate_hz)
            events = inference.predict(path, model)[2]
            found.append([HeardNote(float(start), float(end - start), int(pitch), 64) for start, end, pitch, *_ in events])
    return found
