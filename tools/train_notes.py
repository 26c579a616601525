"""How the note tracker's network was made: random music in, `hearing/note_model.safetensors` out.

Its music is random: lines that wander in random scales, one to five at a time, on most General MIDI programs, struck
together or each on its own, in or out of tune by up to 45 cents, with drums, noise, a room or a tilted spectrum over half
of them; drums and noise alone, where the right answer is nothing. No score, and so none of the benchmark's pieces, is in
it. Run ``python -m tools.train_notes OUT.safetensors --seed 0``; it takes some minutes of one core and 4 GB.
The packaged weights are the best of four trainings, by an earlier revision: this script does not give them bit for bit.

The network (one for all pitches) is trained with Adam (Kingma & Ba, ICLR 2015) on binary cross-entropy to say whether a
pitch begins at a frame, and whether it sounds. Targets leave out a note's release, where neither answer is wrong.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import soxr
from safetensors.numpy import save_file
from scipy.signal import fftconvolve

from musichal.arrays import AnyArray, Float32, Float64
from musichal.audio.instrument import render_notes
from musichal.audio.soundfont import SoundFont, open_soundfont
from musichal.hearing.note_frames import FRAMES_PER_S, LOWEST_NOTE, N_NOTES, NoteFrames, NoteFrontEnd
from musichal.hearing.notes import LONG_LAGS, SHORT_LAGS

RATE_HZ = 24000
PIECES, DRUM_LOOPS, NOISES, PIECE_S = 220, 20, 212, 13.0
HIDDEN = (48, 24)
EPOCHS, BATCH, LEARNING_RATE = 8, 1024, 2e-3
# Effects, bells, tremolos, pads and other programs without one clear pitch and beginning are left out.
_PROGRAMS = (*range(14), *range(16, 31), 32, 33, 34, 35, 36, *range(40, 44), 45, 46, 48, 49, 50, 52, 53)
_PROGRAMS += (*range(56, 62), *range(64, 76), 79, 80, 81, 84, 104, 105, 107)
_BASSES = range(32, 40)
_DRUMS = (35, 36, 37, 38, 39, 40, 41, 42, 43, 45, 46, 48, 49, 50, 51)
_KITS = (0, 8, 16, 25, 32, 40)
_DRUM_CHANNEL = 9


@dataclass(frozen=True)
class PlayedNote:
    """A note with the General MIDI program, or drum kit, that plays it; a drum if it is on the drums' channel."""

    onset_s: float
    duration_s: float
    pitch: int
    velocity: int
    program: int
    channel: int = 0


@cache
def _font() -> SoundFont:
    return open_soundfont(Path(str(import_module("pretty_midi").__file__)).parent / "TimGM6mb.sf2")


def _mono(notes: list[PlayedNote]) -> Float64:
    """Play the notes, each program on a channel of its own, to a peak of 1."""
    if notes[0].channel != _DRUM_CHANNEL:
        order = sorted({n.program for n in notes})
        notes = [replace(n, channel=order.index(n.program)) for n in notes]
    programs = {n.channel: n.program for n in notes}
    stereo = render_notes(notes, _font(), sample_rate_hz=RATE_HZ, programs=programs).astype(np.float64)
    mono = stereo.mean(axis=1)
    return np.asarray(mono / max(1e-6, float(np.abs(mono).max())))


def _line(rng: np.random.Generator, *, program: int, times: Float64, centre: float, scale: AnyArray) -> list[PlayedNote]:
    """Return one voice: a walk around `centre` that mostly keeps to a scale, sometimes repeats, sometimes rests."""
    pitch, last, legato = centre, round(centre), rng.uniform(0.4, 1.02)
    intervals = (0, 4, 7) if rng.random() < 0.12 else (0,)
    notes: list[PlayedNote] = []
    for onset, end in pairwise(times):
        if onset >= PIECE_S or rng.random() < 0.12:
            continue
        pitch += rng.normal(0, 3.5) + (centre - pitch) * 0.15
        key = round(pitch)
        if rng.random() < 0.8:
            key = min(range(key - 2, key + 3), key=lambda k: 3 * min((k - s) % 12 for s in scale) + abs(k - pitch))
        if rng.random() < 0.18:
            key = last
        last = key = int(np.clip(key, LOWEST_NOTE, LOWEST_NOTE + N_NOTES - 1))
        duration, velocity = max(0.05, (end - onset) * legato), int(rng.integers(45, 120))
        notes += [
            PlayedNote(onset, duration, k, velocity, program) for i in intervals if (k := key + i) < LOWEST_NOTE + N_NOTES
        ]
    return notes


def _times(rng: np.random.Generator, quarter_s: float) -> Float64:
    steps = rng.choice(quarter_s * np.array([0.25, 0.5, 1.0, 2.0]), 220, p=[0.15, 0.3, 0.4, 0.15])
    return np.asarray(0.25 + np.concatenate([[0.0], np.cumsum(steps)]))


def random_music(rng: np.random.Generator) -> list[PlayedNote]:
    """Return a piece of one to five random voices, at least one note long."""
    voices = 1 if rng.random() < 0.35 else int(rng.integers(2, 6))
    shared_program, shared_times = int(rng.choice(_PROGRAMS)), rng.random() < 0.6
    same_program, quarter_s = rng.random() < 0.5, rng.uniform(0.25, 0.7)
    times = _times(rng, quarter_s)
    scale = np.array([0, 2, 4, 5, 7, 9, 11]) + int(rng.integers(12))
    notes: list[PlayedNote] = []
    for _ in range(voices):
        program = shared_program if same_program else int(rng.choice(_PROGRAMS))
        centre = rng.uniform(30, 50) if program in _BASSES else rng.uniform(37, 88)
        own = times if shared_times else _times(rng, quarter_s)
        notes += _line(rng, program=program, times=own, centre=centre, scale=scale)
    return notes or [PlayedNote(0.25, 0.5, 60, 90, 0)]


def random_drums(rng: np.random.Generator, *, density: float) -> list[PlayedNote]:
    """Return strokes on a grid, each drum of the kit at each step with the probability `density`."""
    kit, step_s = int(rng.choice(_KITS)), rng.uniform(0.1, 0.3)
    steps = np.arange(0.25, PIECE_S, step_s)
    struck = rng.random((len(steps), len(_DRUMS))) < density
    strokes = [(float(steps[i]), _DRUMS[j]) for i, j in zip(*np.nonzero(struck), strict=True)] or [(0.25, 38)]
    return [PlayedNote(onset, 0.2, drum, int(rng.integers(50, 120)), kit, _DRUM_CHANNEL) for onset, drum in strokes]


def _spoil(samples: Float64, rng: np.random.Generator) -> Float64:
    """Tilt the spectrum, add a room or noise, each in part of the pieces."""
    if rng.random() < 0.5:
        samples = np.append(samples[0], samples[1:] - rng.uniform(-0.5, 0.6) * samples[:-1])
    if rng.random() < 0.35:
        n = int(rng.uniform(0.1, 0.6) * RATE_HZ)
        room = rng.normal(size=n) * np.exp(-6 * np.arange(n) / n)
        room *= rng.uniform(0.1, 0.5) / np.sqrt(np.sum(room**2))
        room[0] += 1
        samples = fftconvolve(samples, room)[: len(samples)]
    samples = samples / np.abs(samples).max()
    if rng.random() < 0.5:
        samples = samples + rng.normal(size=len(samples)) * 10 ** (rng.uniform(-75, -30) / 20)
    return np.asarray(samples)


def _piece(rng: np.random.Generator) -> tuple[Float32, Float64]:
    """Return samples and their truth, rows of (onset in s, duration in s, pitch)."""
    notes = random_music(rng)
    samples = _mono(notes)
    if rng.random() < 0.5:
        drums = _mono(random_drums(rng, density=0.06)) * rng.uniform(0.2, 1.2)
        n = min(len(samples), len(drums))
        samples[:n] += drums[:n]
    truth = np.array([(n.onset_s, n.duration_s, n.pitch) for n in notes])
    if rng.random() < 0.5:
        ratio = 2 ** (rng.uniform(-45, 45) / 1200)
        samples = soxr.resample(samples, RATE_HZ * ratio, RATE_HZ, quality="HQ")
        truth = truth / (ratio, ratio, 1)
    samples = _spoil(samples, rng)
    level = 10 ** (rng.uniform(-26, -1) / 20)
    return (samples * level / np.abs(samples).max()).astype(np.float32), truth


def _noise(rng: np.random.Generator) -> Float32:
    """Return white to red noise with an offset."""
    spectrum = np.fft.rfft(rng.normal(size=6 * RATE_HZ))
    spectrum /= np.maximum(np.arange(len(spectrum)), 200) ** rng.choice([0.0, rng.uniform(0.2, 1.0)])
    samples = np.fft.irfft(spectrum)
    return (samples / samples.std() * 10 ** (rng.uniform(-60, -6) / 20) + rng.uniform(-0.1, 0.1)).astype(np.float32)


def _recordings(rng: np.random.Generator) -> Iterator[tuple[Float32, Float64]]:
    nothing = np.zeros((0, 3))
    for _ in range(PIECES):
        yield _piece(rng)
    for _ in range(DRUM_LOOPS):
        drums = _spoil(_mono(random_drums(rng, density=0.08)), rng)
        yield (drums * 10 ** (rng.uniform(-20, -1) / 20) / np.abs(drums).max()).astype(np.float32), nothing
    for _ in range(NOISES):
        yield _noise(rng), nothing


def targets(truth: Float64, n_frames: int) -> Float32:
    """Return (n_frames, N_NOTES, 3): begins here (soft over two frames), sounds here, not to be asked about."""
    out = np.zeros((n_frames, N_NOTES, 3), dtype=np.float32)
    frames = np.arange(n_frames)
    for onset_s, duration_s, pitch in truth:
        column = out[:, int(pitch) - LOWEST_NOTE]
        start, end = onset_s * FRAMES_PER_S, (onset_s + duration_s) * FRAMES_PER_S
        column[:, 0] = np.maximum(column[:, 0], np.clip(1.6 - 0.6 * np.abs(frames - start), 0, 1))
        column[(frames >= start) & (frames <= end - 1), 1] = 1
        column[(frames >= start - 3) & (frames <= end + 30), 2] = 1
    out[..., 2] *= out[..., 1] == 0
    return out


def _asked(truth: Float64, target: Float32, rng: np.random.Generator) -> tuple[AnyArray, AnyArray]:
    """Choose what to learn from: every beginning, what a harmonic could be taken for, and a little of the rest."""
    n_frames = target.shape[0]
    chosen = (rng.random(target.shape[:2]) < 0.006) | (target[..., 0] > 0)
    chosen |= (target[..., 1] > 0) & (rng.random(target.shape[:2]) < 0.12)
    for onset_s, duration_s, pitch in truth:
        start, length = int(onset_s * FRAMES_PER_S), int(duration_s * FRAMES_PER_S)
        for interval in (0, 0, 12, 12, -12, -12, 19, 19, -19, 24, 24, -24, 7, -7, 1, -1, 28, 28, -28, 31, 34, 36, 5, -5, 2, -2):
            note = int(pitch) - LOWEST_NOTE + interval
            if 0 <= note < N_NOTES:
                at = np.append(start + rng.integers(-8, 12, 3), start + rng.integers(0, length + 22, 1))
                chosen[np.clip(at, 0, n_frames - 1), note] = True
    frames, notes = np.nonzero(chosen)
    return frames, notes


def _rows(views: NoteFrames, frame: AnyArray, note: AnyArray) -> AnyArray:
    n = len(views.loudness)
    parts = [views.long[np.clip(frame + lag, 0, n - 1), note] for lag in LONG_LAGS]
    parts += [views.short[np.clip(frame + lag, 0, n - 1), note] for lag in SHORT_LAGS]
    parts.append(np.stack([views.loudness[frame], (note / N_NOTES)], axis=1))
    return np.concatenate(parts, axis=1).astype(np.float16)


def examples(rng: np.random.Generator) -> tuple[AnyArray, Float32]:
    """Return views (n, inputs) as float16 and targets (n, 3) of the whole training music."""
    inputs, wanted = [], []
    for samples, truth in _recordings(rng):
        front_end = NoteFrontEnd(RATE_HZ)
        first, rest = front_end.push(samples), front_end.flush()
        views = NoteFrames(*(np.concatenate(pair) for pair in zip(first, rest, strict=True)))
        target = targets(truth, len(views.loudness))
        frame, note = _asked(truth, target, rng)
        inputs.append(_rows(views, frame, note))
        wanted.append(target[frame, note])
    return np.concatenate(inputs), np.concatenate(wanted)


def fit(inputs: AnyArray, wanted: Float32, rng: np.random.Generator, *, epochs: int = EPOCHS) -> dict[str, Float32]:
    """Return the network's weights, with the standardisation of its inputs folded into the first layer."""
    probe = inputs[::20].astype(np.float32)
    mean, spread = probe.mean(axis=0), probe.std(axis=0) + 0.05
    sizes = (inputs.shape[1], *HIDDEN, 2)
    weights = [rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32) for a, b in pairwise(sizes)]
    params = weights + [np.zeros(b, dtype=np.float32) for b in sizes[1:]]
    first, second = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    total, step = epochs * (len(inputs) // BATCH), 0
    for _ in range(epochs):
        order = rng.permutation(len(inputs))
        for begin in range(0, len(inputs) - BATCH + 1, BATCH):
            batch = np.sort(order[begin : begin + BATCH])
            x = (inputs[batch].astype(np.float32) - mean) / spread
            gradients = _gradients(params, x, wanted[batch])
            step += 1
            rate = LEARNING_RATE * min(1, step / 300) * 0.5 * (1 + np.cos(np.pi * step / total))
            for i, gradient in enumerate(gradients):
                first[i] += 0.1 * (gradient - first[i])
                second[i] += 0.001 * (gradient**2 - second[i])
                move = first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
                decay = 1e-3 * params[i] if i < len(weights) else 0.0
                params[i] = (params[i] - rate * (move + decay)).astype(np.float32)
    w0, w1, w2, b0, b1, b2 = params
    folded = {"w0": w0 / spread[:, None], "b0": b0 - (mean / spread) @ w0, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in folded.items()}


def _gradients(params: list[Float32], x: Float32, wanted: Float32) -> list[Float32]:
    w0, w1, w2, b0, b1, b2 = params
    hidden0 = np.maximum(x @ w0 + b0, 0)
    hidden1 = np.maximum(hidden0 @ w1 + b1, 0)
    error = 1 / (1 + np.exp(-(hidden1 @ w2 + b2))) - wanted[:, :2]
    error[:, 1] *= 0.5 * (1 - wanted[:, 2])
    error /= len(x)
    error1 = (error @ w2.T) * (hidden1 > 0)
    error0 = (error1 @ w1.T) * (hidden0 > 0)
    return [x.T @ error0, hidden0.T @ error1, hidden1.T @ error, error0.sum(0), error1.sum(0), error.sum(0)]


def main(path: Path, *, seed: int = 0) -> None:
    """Make the model from random music of `seed` and write it to `path`."""
    rng = np.random.default_rng(seed)
    inputs, wanted = examples(rng)
    save_file(fit(inputs, wanted, rng), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.train_notes", description="Train the note tracker's network.")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another training (default: 0)")
    arguments = parser.parse_args()
    main(arguments.output, seed=arguments.seed)
