"""How the note tracker's network was made: random music in, `hearing/note_model.safetensors` out.

Its music is random: lines that wander in random scales or repeat their notes, one to six at a time, over held chords or none,
on most General MIDI programs, struck together or each on its own, in or out of tune by up to 45 cents, with drums, noise, a
room or a tilted spectrum over half of them; drums and noise alone, where the right answer is nothing. No score, and so none
of the benchmark's pieces, is in it. Run ``python -m tools.train_notes OUT.safetensors FONT.sf2 [FONT.sf2 ...]``; it takes some
minutes of one core and 6 GB. Each piece is played by one of the soundfonts: more than one, so that the network learns notes
and not samples.

Both networks (each one for all pitches) are trained with Adam (Kingma & Ba, ICLR 2015) on binary cross-entropy to say whether
a pitch begins at a frame, and whether it sounds. The first sees sound; the second sees what the first said of a pitch, of its
neighbours and of those that share partials with it, on other music, so that it learns the first one's mistakes. Targets leave
out a note's release, where neither answer is wrong.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import fluidsynth
import numpy as np
import soxr
from safetensors.numpy import save_file
from scipy.ndimage import maximum_filter1d
from scipy.signal import fftconvolve

from musichal.arrays import AnyArray, Float32, Float64
from musichal.hearing.note_frames import FRAMES_PER_S, LOWEST_NOTE, N_NOTES, NoteFrames, NoteFrontEnd
from musichal.hearing.notes import (
    AHEAD,
    BEHIND,
    FRESH_LAGS,
    LONG_LAGS,
    SECOND_LOOK,
    SHORT_LAGS,
    NoteModel,
    no_views,
)

RATE_HZ = 24000
PIECES, DRUM_LOOPS, NOISES, PIECE_S = 600, 40, 150, 12.0
HIDDEN, SECOND_HIDDEN = (48, 24), (24, 12)
EPOCHS, BATCH, LEARNING_RATE = 8, 1024, 2e-3
# Effects, bells, tremolos, pads and other programs without one clear pitch and beginning are left out.
_PROGRAMS = (*range(14), *range(16, 31), 32, 33, 34, 35, 36, *range(40, 44), 45, 46, 48, 49, 50, 52, 53)
_PROGRAMS += (*range(56, 62), *range(64, 76), 79, 80, 81, 84, 104, 105, 107)
_BASSES = range(32, 40)
_TONES = 0.08  # the share of pieces that no soundfont plays
_BLOWN = range(56, 80)
_HELD = (16, 17, 18, 19, 20, 21, 40, 41, 42, 44, 48, 49, 50, 52, 60, 61, 71, 80, 81, 89)
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


class Font:
    """A General MIDI soundfont, played by FluidSynth without its reverb and chorus."""

    def __init__(self, path: Path) -> None:
        self._synth = fluidsynth.Synth(gain=0.3, samplerate=float(RATE_HZ))
        self._synth.setting("synth.reverb.active", 0)
        self._synth.setting("synth.chorus.active", 0)
        self._font = self._synth.sfload(str(path))
        if self._font < 0:
            raise SystemExit(f"{path} is no soundfont")

    def play(self, notes: list[PlayedNote]) -> Float64:
        """Return the notes as mono sound with a peak of 1; silence where the font has none of the keys."""
        self._synth.system_reset()
        order = sorted({n.program for n in notes if n.channel != _DRUM_CHANNEL})
        channels = {program: i + (i >= _DRUM_CHANNEL) for i, program in enumerate(order)}
        events = []
        for n in notes:
            channel = n.channel or channels[n.program]
            self._synth.program_select(channel, self._font, 128 if channel == _DRUM_CHANNEL else 0, n.program)
            events.append((round(n.onset_s * RATE_HZ), n.velocity, channel, n.pitch))
            events.append((round((n.onset_s + n.duration_s) * RATE_HZ), 0, channel, n.pitch))
        parts, now = [], 0
        for at, velocity, channel, pitch in sorted(events):
            parts.append(self._synth.get_samples(at - now).reshape(-1, 2))
            self._synth.noteon(channel, pitch, velocity)  # a velocity of 0 ends the note
            now = at
        parts.append(self._synth.get_samples(RATE_HZ // 2).reshape(-1, 2))
        mono = np.concatenate(parts).mean(axis=1)
        return np.asarray(mono / max(1.0, float(np.abs(mono).max())))


class Tones:
    """Sums of steady harmonics, from a sine to an organ's, in place of a soundfont: what no sampled instrument plays."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def play(self, notes: list[PlayedNote]) -> Float64:
        """Return the notes as mono sound with a peak of 1; each program has partials of its own."""
        out = np.zeros(int((max(n.onset_s + n.duration_s for n in notes) + 0.5) * RATE_HZ))
        # Programs share a kind here: all sines, or all few partials, or all many.
        decay, attack_s = self._rng.choice([0.0, 0.3, 0.7, 0.9]), self._rng.uniform(0.004, 0.06)
        for n in notes:
            t = np.arange(int((n.duration_s + 0.06) * RATE_HZ)) / RATE_HZ
            hz = 440 * 2 ** ((n.pitch - 69) / 12)
            strengths = decay ** np.arange(12) * np.random.default_rng(n.program).uniform(0.2, 1, 12)
            heard = [(a, hz * (i + 1)) for i, a in enumerate(strengths) if a > 0 and hz * (i + 1) < 11000]
            wave = sum(a * np.sin(2 * np.pi * partial_hz * t) for a, partial_hz in heard)
            envelope = np.minimum(1, t / attack_s) * np.clip((n.duration_s + 0.06 - t) / 0.06, 0, 1)
            start = round(n.onset_s * RATE_HZ)
            part = (wave * envelope * (n.velocity / 127) ** 2)[: len(out) - start]
            out[start : start + len(part)] += part
        return np.asarray(out / max(1e-6, float(np.abs(out).max())))


def _line(rng: np.random.Generator, *, program: int, times: Float64, centre: float, scale: AnyArray) -> list[PlayedNote]:
    """Return one voice: a walk around `centre` that mostly keeps to a scale, repeats seldom or mostly, sometimes rests."""
    pitch, last, legato = centre, round(centre), rng.uniform(0.4, 1.02)
    intervals = ((0,), (0, 4, 7), (0, 3, 8), (0, 12), (0, 5, 9, 15))[rng.choice(5, p=[0.8, 0.05, 0.05, 0.05, 0.05])]
    repeats, rests = rng.choice([0.12, 0.5, 0.93], p=[0.5, 0.2, 0.3]), rng.choice([0.02, 0.15])
    if repeats > 0.9 and program in _BLOWN:
        legato = rng.uniform(0.7, 0.99)
    loudness, spread = rng.integers(45, 115), rng.choice([0, 6, 20])
    notes: list[PlayedNote] = []
    for onset, end in pairwise(times):
        if onset >= PIECE_S or rng.random() < rests:
            continue
        pitch += rng.normal(0, 3.5) + (centre - pitch) * 0.15
        key = round(pitch)
        if rng.random() < 0.8:
            key = min(range(key - 2, key + 3), key=lambda k: 3 * min((k - s) % 12 for s in scale) + abs(k - pitch))
        if rng.random() < repeats:
            key = last
        last = key = int(np.clip(key, LOWEST_NOTE, LOWEST_NOTE + N_NOTES - 1))
        duration, velocity = max(0.05, (end - onset) * legato), int(np.clip(loudness + rng.normal(0, spread), 30, 127))
        notes += [
            PlayedNote(onset, duration, k, velocity, program) for i in intervals if (k := key + i) < LOWEST_NOTE + N_NOTES
        ]
    return notes


def _times(rng: np.random.Generator, quarter_s: float) -> Float64:
    steps = rng.choice(quarter_s * np.array([0.25, 0.5, 1.0, 2.0]), 220, p=[0.15, 0.3, 0.4, 0.15])
    if rng.random() < 0.3:
        steps = np.full(220, max(0.07, quarter_s * rng.choice([0.25, 1 / 3, 0.5, 1.0])))
    return np.asarray(0.25 + np.concatenate([[0.0], np.cumsum(steps)]))


def _held_chords(rng: np.random.Generator, scale: AnyArray) -> list[PlayedNote]:
    """Return chords of one to four notes that sound for one to five seconds each."""
    program, onset, notes = int(rng.choice(_HELD)), rng.uniform(0.2, 0.6), []
    while onset < PIECE_S - 1:
        duration = rng.uniform(1.0, 5.0)
        keys = {int(rng.choice(scale)) + 12 * int(rng.integers(3, 6)) for _ in range(rng.integers(1, 5))}
        notes += [PlayedNote(onset, duration * 0.97, key, int(rng.integers(50, 100)), program) for key in sorted(keys)]
        onset += duration
    return notes


def random_music(rng: np.random.Generator) -> list[PlayedNote]:
    """Return a piece of one to eight random voices, at least one note long."""
    voices = 1 if rng.random() < 0.25 else int(rng.integers(2, 9))
    shared_program, shared_times = int(rng.choice(_PROGRAMS)), rng.random() < 0.5
    same_program, quarter_s = rng.random() < 0.4, rng.uniform(0.25, 0.7)
    times = _times(rng, quarter_s)
    scale = np.array([0, 2, 4, 5, 7, 9, 11]) + int(rng.integers(12))
    notes = _held_chords(rng, scale) if rng.random() < 0.15 else []
    for voice in range(voices):
        program = shared_program if same_program else int(rng.choice(_PROGRAMS))
        if voice == 0 and voices > 2 and rng.random() < 0.6:
            program = int(rng.choice(_BASSES[:5]))
        low = program in _BASSES or rng.random() < 0.08
        centre = rng.uniform(25, 50) if low else rng.uniform(37, 88)
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


def _piece(rng: np.random.Generator, fonts: Sequence[Font]) -> tuple[Float32, Float64]:
    """Return samples and their truth, rows of (onset in s, duration in s, pitch)."""
    samples: Float64 = np.zeros(0)
    while not samples.any():
        notes = random_music(rng)
        instrument = Tones(rng) if rng.random() < _TONES else fonts[rng.integers(len(fonts))]
        samples = instrument.play(notes)
    if rng.random() < (0.7 if len(notes) > 150 else 0.4):
        drums = fonts[rng.integers(len(fonts))].play(random_drums(rng, density=0.06)) * rng.uniform(0.2, 1.2)
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


def _recordings(rng: np.random.Generator, fonts: Sequence[Font]) -> Iterator[tuple[Float32, Float64]]:
    nothing = np.zeros((0, 3))
    for _ in range(PIECES):
        yield _piece(rng, fonts)
    for _ in range(DRUM_LOOPS):
        drums = _spoil(fonts[rng.integers(len(fonts))].play(random_drums(rng, density=0.08)), rng)
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


def _asked(truth: Float64, target: Float32, burst: Float32, rng: np.random.Generator) -> tuple[AnyArray, AnyArray]:
    """Choose what to learn from: beginnings, what a harmonic or a stroke could be taken for, and a little of the rest."""
    n_frames = target.shape[0]
    chosen = (rng.random(target.shape[:2]) < 0.006) | (target[..., 0] > 0)
    sounds = target[..., 1] > 0
    chosen |= sounds & (rng.random(target.shape[:2]) < 0.06)
    struck = maximum_filter1d(burst, 5) > np.quantile(burst, 0.8)
    chosen |= sounds & struck[:, None] & (rng.random(target.shape[:2]) < 0.12)
    for onset_s, duration_s, pitch in truth:
        start, length = int(onset_s * FRAMES_PER_S), int(duration_s * FRAMES_PER_S)
        for interval in (0, 0, 12, 12, -12, -12, 19, 19, -19, 24, 24, -24, 7, -7, 1, -1, 28, 28, -28, 31, 34, 36, 5, -5, 2, -2):
            note = int(pitch) - LOWEST_NOTE + interval
            if 0 <= note < N_NOTES:
                at = np.append(start + rng.integers(-8, 12, 1), start + rng.integers(0, length + 22, 1))
                chosen[np.clip(at, 0, n_frames - 1), note] = True
    frames, notes = np.nonzero(chosen)
    return frames, notes


def _rows(views: NoteFrames, frame: AnyArray, note: AnyArray) -> AnyArray:
    n = len(views.loudness)
    parts = [views.long[np.clip(frame + lag, 0, n - 1), note] for lag in LONG_LAGS]
    parts += [views.short[np.clip(frame + lag, 0, n - 1), note] for lag in SHORT_LAGS]
    parts += [views.fresh[np.clip(frame + lag, 0, n - 1), note] for lag in FRESH_LAGS]
    parts += [views.burst[np.clip(frame + lag, 0, n - 1)] for lag in FRESH_LAGS]
    parts.append(np.stack([views.loudness[frame], (note / N_NOTES)], axis=1))
    return np.concatenate(parts, axis=1).astype(np.float16)


def examples(rng: np.random.Generator, fonts: Sequence[Font]) -> tuple[AnyArray, Float32]:
    """Return views (n, inputs) as float16 and targets (n, 3) of the whole training music."""
    inputs, wanted = [], []
    for samples, truth in _recordings(rng, fonts):
        views = _views(samples)
        target = targets(truth, len(views.loudness))
        frame, note = _asked(truth, target, views.burst[:, 0], rng)
        inputs.append(_rows(views, frame, note))
        wanted.append(target[frame, note])
    return np.concatenate(inputs), np.concatenate(wanted)


def _views(samples: Float32) -> NoteFrames:
    front_end = NoteFrontEnd(RATE_HZ)
    first, rest = front_end.push(samples), front_end.flush()
    return NoteFrames(*(np.concatenate(pair) for pair in zip(first, rest, strict=True)))


def second_examples(model: NoteModel, rng: np.random.Generator, fonts: Sequence[Font]) -> tuple[AnyArray, Float32]:
    """Return the second network's inputs as float16 and targets, mostly where the first one was not sure.

    What is chosen depends on its answers and not on the truth: else a doubtful answer would be right too often.
    """
    inputs, wanted = [], []
    for samples, truth in _recordings(rng, fonts):
        views = _views(samples)
        known = NoteFrames(*(np.concatenate(part) for part in zip(no_views(BEHIND), views, no_views(AHEAD), strict=True)))
        hidden, answers = model.first_look(known)
        target = targets(truth, len(answers))[SECOND_LOOK:-SECOND_LOOK]
        begins, sounds = (answers[SECOND_LOOK:-SECOND_LOOK, i] for i in range(2))
        chance = rng.random(begins.shape)
        chosen = (chance < 0.02) | (begins > -3) & (chance < 0.7) | (sounds > -2) & (chance < 0.3)
        frame, note = np.nonzero(chosen)
        inputs.append(model.second_inputs(hidden, answers)[frame, :, note].astype(np.float16))
        wanted.append(target[frame, note])
    return np.concatenate(inputs), np.concatenate(wanted)


def fit(inputs: AnyArray, wanted: Float32, rng: np.random.Generator, *, hidden: tuple[int, int] = HIDDEN) -> list[Float32]:
    """Return a network's weights and biases, with the standardisation of its inputs folded into the first layer."""
    probe = inputs[::20].astype(np.float32)
    mean, spread = probe.mean(axis=0), probe.std(axis=0) + 0.05
    sizes = (inputs.shape[1], *hidden, 2)
    weights = [rng.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32) for a, b in pairwise(sizes)]
    params = weights + [np.zeros(b, dtype=np.float32) for b in sizes[1:]]
    first, second = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    total, step = EPOCHS * (len(inputs) // BATCH), 0
    for _ in range(EPOCHS):
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
    folded = [w0 / spread[:, None], w1, w2, b0 - (mean / spread) @ w0, b1, b2]
    return [np.ascontiguousarray(value, dtype=np.float32) for value in folded]


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


def main(path: Path, fonts: Sequence[Path], *, seed: int = 0) -> None:
    """Make the model from random music of `seed`, played by `fonts`, and write it to `path`."""
    rng = np.random.default_rng(seed)
    played = [Font(font) for font in fonts]
    weights = dict(zip(("w0", "w1", "w2", "b0", "b1", "b2"), fit(*examples(rng, played), rng), strict=True))
    second = fit(*second_examples(NoteModel(weights), rng, played), rng, hidden=SECOND_HIDDEN)
    save_file(weights | dict(zip(("v0", "v1", "v2", "c0", "c1", "c2"), second, strict=True)), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.train_notes", description="Train the note tracker's network.")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument("fonts", type=Path, nargs="+", help="General MIDI soundfonts that play the music")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another training (default: 0)")
    arguments = parser.parse_args()
    main(arguments.output, arguments.fonts, seed=arguments.seed)
