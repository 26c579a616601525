"""How the drum tracker's network was made: rendered drums in, `hearing/drum_model.safetensors` out.

Scenes of 16 s (`tools.drum_scenes`) play grooves, random strokes and drum tracks of the songs to *tune* on that
`benchmarks.duo_material` makes. Kits are those of three soundfonts (Debian's fluid-soundfont-gm, timgm6mb-soundfont,
musescore-general-soundfont-small), most of Hydrogen's (Debian's hydrogen-data and hydrogen-drumkits), the embedded
instrument's, and random ones. In half of the scenes a band plays with them: the same songs without their drums, their
melodies, or random music. A quarter have no drums at all. Rooms, tilted spectra, clipping and noise spoil some; levels are
random. In part of the scenes each drum is another kit's, or the open hat is half open. Shakers and hand drums are not asked
about.

No song to report on is read. `REPORTED` kits are left to the benchmark, as AVL Drumkits are; `TUNED` kits choose the
thresholds. Run ``python -m tools.train_drums OUT.safetensors --material /work/data --kits /usr/share/hydrogen/data/drumkits``.
It needs pyfluidsynth, PyTorch and the packages above, 4 GB and half an hour of two cores. The packaged weights were trained in
several goes by earlier revisions, and are the average of those before and after (Wortsman et al., Model soups, ICML 2022):
this script does not give them bit for bit. Their thresholds have the best F-measure, in steps of 0.1 and each group counted
alike but the second twice, on the songs to tune on: drums alone, their tracks played unchanged by the kits of `TUNED` and the
other two of Millo's, and bands; the closed hat's stayed as it was, at 1.0 (1.2 was best), so that soft hats under a kick are
heard. The network is trained with AdamW on binary cross-entropy; targets are soft over two frames either way.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from safetensors.numpy import save_file

from musichal.arrays import AnyArray, Float32, Float64
from musichal.hearing.drums import AHEAD, BEHIND, FRAMES_PER_S, LAGS, DrumFrontEnd, DrumModel, relative_levels, struck
from musichal.note import DRUMS
from tools.drum_scenes import (
    CLASS_OF_KEY,
    FONTS,
    HALF_OPEN,
    RATE_HZ,
    Kit,
    Stroke,
    embedded_kit,
    font_kits,
    groove,
    hydrogen_kit,
    keyed,
    mixed_kit,
    played,
    random_hits,
    random_kit,
)  # fmt: skip
from tools.train_notes import Font, _noise, _spoil, random_music

SCENES, SCENE_S, EPOCHS, BATCH, HIDDEN = 1400, 16.0, 6, 1024, (112, 48)
REPORTED = ("GMRockKit", "The Black Pearl 1.0")
"""Hydrogen's kits that share their samples with the benchmark's: never heard in training."""
TUNED = ("ColomboAcousticDrumkit", "Millo_MultiLayered2", "musescore:25")
_UNASKED = {
    **dict.fromkeys((54, 69, 70, 82), (2, 3)), **dict.fromkeys((60, 61, 62, 63, 64), (4, 1)), 56: (5,), 80: (5, 2), 81: (5, 2),
    75: (1,), 76: (1,),
}  # fmt: skip
_STRUCK_PROGRAMS = (
    0,
    0,
    1,
    2,
    3,
    4,
    6,
    8,
    11,
    12,
    13,
    24,
    25,
    26,
    27,
    28,
    34,
    36,
    37,
    45,
    46,
    105,
    107,
    108,
    112,
    113,
    114,
    115,
)
_MARGIN = 5  # of `struck`


@dataclass(frozen=True)
class Material:
    """What scenes are made of: kits, drum tracks, and sound without drums, each (n,) at `RATE_HZ`."""

    kits: dict[str, Kit]
    tracks: list[list[Stroke]]
    bands: list[Float32]
    fonts: tuple[Path, ...] = tuple(FONTS.values())


def material(songs: Path, kits: Path) -> Material:
    """Return the kits of fonts and folders, and what the songs to tune on have."""
    found: dict[str, Kit] = {"embedded": embedded_kit()}
    for name, path in FONTS.items():
        found |= font_kits(name, path)
    found |= {xml.parent.name: hydrogen_kit(xml.parent) for xml in sorted(kits.glob("*/drumkit.xml"))}
    tracks, bands = [], []
    for path in sorted(songs.glob("*/*/truth.json")):
        truth = json.loads(path.read_text("utf-8"))
        if truth["split"] != "tune" or truth["set"] in ("tempo_push", "stems"):
            continue
        sounds = {name: _read(path.parent / f"{name}.wav") for name in ("player", "band", "drums")}
        strokes = [(float(t), int(key), int(velocity)) for t, key, velocity in truth.get("drum_hits") or ()]
        tracks += [strokes] if len(strokes) > 40 else []
        bands += [sounds["player"]] * 2 + [_without(sounds["band"], sounds["drums"])]
    used = {name: kit for name, kit in found.items() if len(kit) >= 4 and name not in REPORTED}
    return Material(used, tracks, [band for band in bands if len(band)])


def _read(path: Path) -> Float32:
    if not path.exists():
        return np.zeros(0, np.float32)
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ).astype(np.float32)


def _without(band: Float32, drums: Float32) -> Float32:
    """Return a band less its drums, whose level in it is found by least squares where they are brightest."""
    n = min(len(band), len(drums))
    if not n:
        return band
    bright, own = np.diff(band[:n], 2), np.diff(drums[:n], 2)
    return band[:n] - np.float32(bright @ own / (own @ own)) * drums[:n]


def scenes(of: Material, rng: np.random.Generator, count: int) -> Iterator[tuple[Float32, list[Stroke]]]:
    """Yield samples and their strokes."""
    names = [name for name in of.kits if name not in TUNED]
    for _ in range(count):
        samples, strokes = np.zeros(round(SCENE_S * RATE_HZ)), []
        drummed = rng.random() < 0.72
        if drummed:
            several = range(4 if rng.random() < 0.4 else 1)
            kits = [random_kit(rng) if rng.random() < 0.15 else of.kits[names[rng.integers(len(names))]] for _ in several]
            kit = dict(mixed_kit(kits, rng))
            half_open = [of.kits[name][HALF_OPEN] for name in names if HALF_OPEN in of.kits[name]]
            if half_open and rng.random() < 0.15:
                kit[46] = half_open[rng.integers(len(half_open))]
            strokes = _strokes(of, kit, rng)
            samples = played(strokes, kit, SCENE_S, rng).astype(np.float64)
        if not drummed or rng.random() < 0.6:
            band, level = _band(of, rng), np.sqrt(np.mean(samples**2))
            band = np.pad(band, (0, max(0, len(samples) - len(band))))[: len(samples)]
            gain = level / (np.sqrt(np.mean(band**2)) + 1e-9) * 10 ** (rng.uniform(-14, 8) / 20) if level else 1.0
            samples = samples + gain * band
        if np.abs(samples).max() > 1e-6:
            spoiled = _spoil(samples, rng)
            if rng.random() < 0.2:
                spoiled = np.tanh(spoiled * rng.uniform(1, 4))
            yield (spoiled * 10 ** (rng.uniform(-30, -0.5) / 20) / np.abs(spoiled).max()).astype(np.float32), strokes


def _strokes(of: Material, kit: Kit, rng: np.random.Generator) -> list[Stroke]:
    kind = rng.random()
    if kind < 0.72:
        hits = groove(rng, SCENE_S) if kind < 0.5 else random_hits(rng, SCENE_S)
        return [stroke for stroke in keyed(hits, kit, rng) if 0 <= stroke[0] < SCENE_S]
    track, pace = of.tracks[rng.integers(len(of.tracks))], rng.uniform(0.85, 1.2)
    first_s = rng.uniform(0, max(1.0, track[-1][0] * pace - SCENE_S))
    moved = [(t * pace - first_s, key, velocity) for t, key, velocity in track]
    return [stroke for stroke in moved if 0 <= stroke[0] < SCENE_S and stroke[1] in kit]


def _band(of: Material, rng: np.random.Generator) -> Float64:
    """Return sound without drums: a song's, random music, music on struck and plucked instruments, or swelling noise."""
    n, kind = round(SCENE_S * RATE_HZ), rng.random()
    if kind < 0.78:
        whole = of.bands[rng.integers(len(of.bands))]
        first = int(rng.integers(max(1, len(whole) - n)))
        part = whole[first : first + n].astype(np.float64)
        return soxr.resample(part, RATE_HZ * 2 ** (rng.uniform(-4, 4) / 12), RATE_HZ) if rng.random() < 0.5 else part
    if kind < 0.97:
        notes = random_music(rng)
        if rng.random() < 0.5:
            two = rng.choice(_STRUCK_PROGRAMS, 2)
            notes = [replace(note, program=int(rng.choice(two))) for note in notes]
        return _font(of.fonts[rng.integers(len(of.fonts))]).play(notes)
    swell = np.interp(np.arange(n), np.linspace(0, n, 9), rng.uniform(0, 1, 9))
    return np.tile(_noise(rng).astype(np.float64), 4)[:n] * swell


@lru_cache(maxsize=8)
def _font(path: Path) -> Font:
    return Font(path)


def levels_of(samples: Float32) -> Float32:
    """Return what the network sees of a whole recording, (n, bands)."""
    front_end = DrumFrontEnd(RATE_HZ)
    power, reference = (np.concatenate(pair) for pair in zip(front_end.push(samples), front_end.flush(), strict=True))
    return relative_levels(power, reference)


def targets(strokes: Sequence[Stroke], n: int) -> tuple[Float32, Float32, AnyArray]:
    """Return what is struck, soft over two frames, and what is asked about, (n, drums), and which frames are near a stroke."""
    wanted, asked = np.zeros((n, len(DRUMS)), np.float32), np.ones((n, len(DRUMS)), np.float32)
    frames, near = np.arange(n), np.zeros(n, dtype=bool)
    for time_s, key, _ in strokes:
        place = time_s * FRAMES_PER_S
        around = slice(max(0, int(place) - 8), min(n, int(place) + 16))
        near[around] = True
        if key in CLASS_OF_KEY:
            column = wanted[:, CLASS_OF_KEY[key]]
            column[around] = np.maximum(column[around], np.clip(1.6 - 0.6 * np.abs(frames[around] - place), 0, 1))
        for drum in _UNASKED.get(key, ()):
            asked[max(0, int(place) - 2) : int(place) + 4, drum] = 0
    return wanted, np.maximum(asked, wanted > 0), near


def examples(of: Material, rng: np.random.Generator, count: int) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return inputs (n, lags · bands) as float16, what they want and what is asked: all near strokes, a third of the rest."""
    rows: list[tuple[AnyArray, ...]] = []
    for samples, strokes in scenes(of, rng, count):
        levels = levels_of(samples)
        wanted, asked, near = targets(strokes, len(levels))
        chosen = np.flatnonzero(near | (rng.random(len(levels)) < 0.3))
        seen = [levels[np.clip(chosen + lag, 0, len(levels) - 1)] for lag in LAGS]
        rows.append((np.concatenate(seen, axis=1).astype(np.float16), wanted[chosen], asked[chosen]))
    inputs, wanted, asked = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return inputs, wanted, asked


def fit(inputs: AnyArray, wanted: AnyArray, asked: AnyArray, *, seed: int) -> dict[str, Float32]:
    """Return the network's weights, with the standardisation of its inputs folded into the first layer."""
    torch: Any = import_module("torch")
    torch.manual_seed(seed)
    x, y, mask = (torch.from_numpy(array) for array in (inputs, wanted, asked))
    probe = inputs[::17].astype(np.float32)
    mean, spread = torch.from_numpy(probe.mean(axis=0)), torch.from_numpy(probe.std(axis=0) + np.float32(0.05))
    sizes = (inputs.shape[1], *HIDDEN, len(DRUMS))
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    relu = torch.nn.ReLU()
    net = torch.nn.Sequential(torch.nn.Dropout(0.05), layers[0], relu, layers[1], relu, layers[2])
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = EPOCHS * (len(x) // BATCH)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2.5e-3, total_steps=steps, pct_start=0.1)
    loss_of = torch.nn.BCEWithLogitsLoss(reduction="none")
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for first in range(0, len(x) - BATCH + 1, BATCH):
            batch = order[first : first + BATCH]
            loss = (loss_of(net((x[batch].float() - mean) / spread), y[batch]) * mask[batch]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pace.step()
    weights = {f"w{i}": layer.weight.detach().numpy().T for i, layer in enumerate(layers)}
    biases = {f"b{i}": layer.bias.detach().numpy() for i, layer in enumerate(layers)}
    biases["b0"] = biases["b0"] - (mean / spread).numpy() @ weights["w0"]
    weights["w0"] = weights["w0"] / spread.numpy()[:, None]
    thresholds = {"thresholds": np.full(len(DRUMS), 1.0, np.float32)}
    return {name: np.ascontiguousarray(v, dtype=np.float32) for name, v in (weights | biases | thresholds).items()}


def thresholds(of: Material, weights: dict[str, Float32], rng: np.random.Generator) -> Float32:
    """Return for each drum the threshold, from 0.5 up, with the best F-measure where unheard kits and tune songs play."""
    model, grid = DrumModel(weights), np.arange(0.5, 2.9, 0.15)
    counts = np.zeros((len(grid), len(DRUMS), 3))  # found, heard, due
    tuned = replace(of, kits={name: of.kits[name] for name in TUNED})
    for samples, strokes in scenes(replace(tuned, kits={f"other {name}": kit for name, kit in tuned.kits.items()}), rng, 80):
        levels = np.pad(levels_of(samples), ((BEHIND, AHEAD), (0, 0)))
        probability = model.evaluate(levels)
        mass, places = struck(np.pad(probability, ((_MARGIN, _MARGIN), (0, 0))), len(probability))
        for drum in range(len(DRUMS)):
            due = np.array([t for t, key, _ in strokes if CLASS_OF_KEY.get(key) == drum])
            for row, least in enumerate(grid):
                at = np.flatnonzero(mass[:, drum] > least)
                heard = (at + places[at, drum]) / FRAMES_PER_S
                near = np.abs(heard[:, None] - due[None, :]) < 0.05 if len(due) else np.zeros((len(heard), 0))
                counts[row, drum] += near.any(axis=0).sum(), len(heard), len(due)
    scores = 2 * counts[..., 0] / np.maximum(1, counts[..., 1] + counts[..., 2])
    return grid[scores.argmax(axis=0)].astype(np.float32)


def main(path: Path, *, songs: Path, kits: Path, seed: int = 0) -> None:
    """Make the model from scenes of `seed` and write it to `path`."""
    rng = np.random.default_rng(seed)
    of = material(songs, kits)
    weights = fit(*examples(of, rng, SCENES), seed=seed)
    save_file(weights | {"thresholds": thresholds(of, weights, rng)}, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.train_drums", description="Train the drum tracker's network.")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument("--material", type=Path, required=True, help="what benchmarks.duo_material made")
    parser.add_argument("--kits", type=Path, required=True, help="a folder of Hydrogen's kits")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another training (default: 0)")
    arguments = parser.parse_args()
    main(arguments.output, songs=arguments.material, kits=arguments.kits, seed=arguments.seed)
