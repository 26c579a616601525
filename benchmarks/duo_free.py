"""Playing without a pulse: rubato, drones, noise, and noise in syllables."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from mido import Message

from benchmarks.duo_songs import FONTS, RATE_HZ, Song, fonts_of, level, note_rows, pair_notes, render
from musichal.arrays import Float32


def _free_song(name: str, random: np.random.Generator, program: int) -> Song:
    """Return rubato: chords and lines whose pace wanders by a factor of three, with rests, no two gaps alike."""
    song = Song(name, [(0, 0, Message("program_change", channel=0, program=program))], 1000, [(0, 1e6)], [(0, 4, 4)])
    at, pace, pitch = 300.0, 0.0, 62
    while at < 60000:
        pace = 0.8 * pace + random.normal(0, 0.35)
        gap = 380 * np.exp(pace) * random.lognormal(0, 0.45)
        if random.random() < 0.05:
            gap += random.uniform(600, 2500)
        size = 1 + int(random.random() < 0.25) * int(random.integers(1, 4))
        for k in range(size):
            pitch = int(np.clip(pitch + random.integers(-5, 6), 45, 84))
            start = round(at + k * random.uniform(0, 35))
            end = round(start + min(gap, 1500) * random.uniform(0.7, 1.4))
            song.events.append((start, 0, Message("note_on", channel=0, note=pitch, velocity=int(random.integers(45, 105)))))
            song.events.append((end, 0, Message("note_off", channel=0, note=pitch)))
        at += gap
    song.events.sort(key=lambda event: event[0])
    song.notes = list(pair_notes(song.events))
    return song


def _band_passed(random: np.random.Generator, seconds: float) -> Float32:
    from scipy.signal import butter, sosfilt

    noise = random.normal(size=round(seconds * RATE_HZ))
    low = random.uniform(150, 400)
    return sosfilt(butter(2, [low, low * random.uniform(4, 12)], "band", fs=RATE_HZ, output="sos"), noise).astype(np.float32)


def _speech(random: np.random.Generator, seconds: float) -> Float32:
    """Return noise and buzz in syllables of irregular length with pauses."""
    total = round(seconds * RATE_HZ)
    out = np.zeros(total, np.float32)
    at = 0.0
    while at < seconds - 0.5:
        length = random.uniform(0.08, 0.32)
        count = round(length * RATE_HZ)
        time = np.arange(count) / RATE_HZ
        base = random.uniform(95, 190) * np.exp(random.normal(0, 0.05) * time / length)
        buzz = sum(np.sin(2 * np.pi * k * base * time) / k for k in range(1, 25))
        sound = np.where(random.random() < 0.25, 0.0, buzz) + 0.4 * _band_passed(random, length + 0.01)[:count]
        start = round(at * RATE_HZ)
        out[start : start + count] += (sound * np.hanning(count))[: total - start].astype(np.float32)
        at += length * random.uniform(0.8, 1.1) + (
            random.uniform(0.2, 1.2) if random.random() < 0.18 else random.exponential(0.03)
        )
    return out


def _drone(random: np.random.Generator, seconds: float) -> Float32:
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    out = np.zeros(len(time))
    for _ in range(6):
        partial = random.choice([55, 82.4, 110, 164.8, 220, 329.6]) * random.uniform(0.997, 1.003)
        knots = np.arange(0, seconds + 6, 5.0) + random.uniform(-1.5, 1.5, len(np.arange(0, seconds + 6, 5.0)))
        out += np.interp(time, np.sort(knots), random.uniform(0.1, 1, len(knots))) * np.sin(2 * np.pi * partial * time)
    return out.astype(np.float32)


def make_free(out: Path) -> None:
    """Write playing without a pulse; `band.wav` is another take of the same kind."""
    for name, program in (
        ("free_rubato1", 0),
        ("free_rubato2", 0),
        ("free_rubato3", 24),
        ("free_rubato4", 11),
        ("free_rubato5", 68),
    ):
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
        takes = [_free_song(name, random, program) for _ in range(2)]
        sounds = [render(take, {(0, 0)}, FONTS[font])[: 60 * RATE_HZ] for take, font in zip(takes, fonts_of(name), strict=True)]
        _write_free(out / "free" / name, sounds, [note_rows(take, take.notes, 0.0) for take in takes])
    for name, maker in (
        ("free_drone1", _drone),
        ("free_drone2", _drone),
        ("free_noise1", _band_passed),
        ("free_noise2", _band_passed),
        ("free_speech1", _speech),
        ("free_speech2", _speech),
    ):
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
        _write_free(out / "free" / name, [maker(random, 60.0), maker(random, 60.0)], [[], []])


def _write_free(folder: Path, sounds: Sequence[Float32], notes: Sequence[list[list[float]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    player, band = (level(sound) for sound in sounds)
    count = min(len(player), len(band))
    for name, samples in (("player", player[:count]), ("band", band[:count]), ("mix", 0.5 * (player[:count] + band[:count]))):
        soundfile.write(folder / f"{name}.wav", samples, RATE_HZ, subtype="PCM_16")
    row: dict[str, Any] = {
        "name": folder.name,
        "set": "free",
        "split": "tune" if folder.name[-1] in "135" else "report",
        "duration_s": count / RATE_HZ,
        "tempo_bpm": None,
        "beats_per_bar": None,
        "beats_s": [],
        "downbeats_s": [],
        "player_notes": notes[0],
        "band_notes": notes[1],
        "drum_hits": [],
        "player_onsets_s": sorted({n[0] for n in notes[0]}),
        "band_onsets_s": sorted({n[0] for n in notes[1]}),
        "files": ["band.wav", "mix.wav", "player.wav"],
        "soundfonts": {},
    }
    (folder / "truth.json").write_text(json.dumps(row))
