"""How the beat network was made: rendered songs of known beats in, `hearing/beat_model.safetensors` out.

Its material is the songs to *tune* on that `benchmarks.duo_material` makes, of all its sets: of each the first minute of
the player's recording, of the band's and of both together. Some of the songs have no beat; there the right answer is nothing.
The front end hears each recording once, with the embedded encoder, and what it heard is taken at five tempi: as it is, and
with its times stretched. No song to report on is read.

The songs `HELD_OUT`, and their variants, are not trained on either; the loss on them, at their own tempo, is printed to see
how training goes, and chooses nothing. Run ``python -m tools.train_beats OUT.safetensors --material /work/data``. It needs
PyTorch, which nothing else in hearing beats does, 2 GB and some twenty minutes of one core, most of them for hearing. The
packaged weights come from an experiment form of this script, which trained for a given time instead of a number of steps, on 92
recordings of 33 of the songs: this script does not give them bit for bit.

The network (`musichal.hearing.beat_evidence`) is trained with Adam (Kingma & Ba, ICLR 2015) on binary cross-entropy to say, two
steps late, where a beat, half a beat and a bar's first beat are. Targets are soft over a step either way. In part of the
excerpts the percussive rises are missing or weak, as with other encoders, the harmonic part is weak, or onsets are missed.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from musichal.arrays import Float32, Float64
from musichal.audio.recording import read_recording
from musichal.hearing.beat_evidence import DELAY_S, N_KINDS, ONSET, PERCUSSIVE, STEP_S, BeatEvidence
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor
from musichal.spec import PerceptionSpec

_HELD_OUT_FREEDOOM = ("fd1_e1m3", "fd1_e2m3", "fd1_e3m6", "fd2_doom", "fd2_theda2")
HELD_OUT = (*_HELD_OUT_FREEDOOM, "mma_samba", "mma_jazzwaltz", "mma_rock128", "ch_bwv108_6", "free_rubato3")
STRETCHES = (1.0, 0.8, 0.89, 1.12, 1.25)
HEARD_S = 60
HIDDEN = 40
STEPS, BATCH, LEARNING_RATE = 500, 32, 4e-3
EXCERPT, UNASKED = 900, 100  # steps of an excerpt, and those at its beginning where the network does not know enough yet
_HARMONIC = (ONSET - 6, ONSET - 3)  # its rise and its level


@dataclass(frozen=True)
class Example:
    """Evidence (n, N_KINDS) with its targets (n, 3); how often it is taken; whether it is only to look at."""

    evidence: Float32
    wanted: Float32
    weight: float
    held_out: bool


def targets(beats_s: Float64, downbeats_s: Float64, n_steps: int) -> Float32:
    """Return (n_steps, 3): a beat, half a beat, a bar's first beat, each as late as the network answers."""
    wanted = np.zeros((n_steps, 3), dtype=np.float32)
    for kind, times in enumerate((beats_s, (beats_s[1:] + beats_s[:-1]) / 2, downbeats_s)):
        steps = np.floor(times / STEP_S).astype(int) + round(DELAY_S / STEP_S)
        for offset, value in ((0, 1.0), (-1, 0.5), (1, 0.5)):
            at = steps + offset
            at = at[(at >= 0) & (at < n_steps)]
            wanted[at, kind] = np.maximum(wanted[at, kind], value)
    return wanted


def examples(material: Path) -> Iterator[Example]:
    """Hear the songs to tune on, and yield each recording at each tempo."""
    spec = PerceptionSpec()
    for file in sorted(material.glob("*/*/truth.json")):
        truth, song = json.loads(file.read_text("utf-8")), file.parent.name
        if truth["split"] != "tune":
            continue
        free = truth["set"] == "free"
        for part in ("band", "mix", "player"):
            recording = read_recording(file.parent / f"{part}.wav")
            samples = recording.samples[: HEARD_S * recording.sample_rate_hz]
            extractor = FeatureExtractor(spec, create_encoder(spec))
            segments = list(extractor.stream(samples, source_rate_hz=recording.sample_rate_hz))
            for stretch in STRETCHES:
                rate_hz = round(spec.sample_rate_hz / stretch)
                factor = spec.sample_rate_hz / rate_hz
                hearing = BeatEvidence()
                evidence = np.concatenate([hearing.hear(segment, sample_rate_hz=rate_hz) for segment in segments])
                beats, downbeats = (np.array(truth.get(key) or []) * factor for key in ("beats_s", "downbeats_s"))
                weight = (2.0 if free or part == "player" else 1.0) * (1.5 if stretch == 1 else 1.0)
                held_out = song.removesuffix("_push") in HELD_OUT
                if stretch == 1 or not held_out:
                    yield Example(evidence, targets(beats, downbeats, len(evidence)), weight, held_out)
        print(f"heard {file.parent.parent.name}/{song}", flush=True)


def excerpt(example: Example, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """Return a part of an example, `EXCERPT` steps long, with some of its evidence spoiled."""
    first = int(rng.integers(0, max(1, len(example.evidence) - EXCERPT + 1)))
    evidence, wanted = example.evidence[first : first + EXCERPT].copy(), example.wanted[first : first + EXCERPT]
    missing = ((0, EXCERPT - len(evidence)), (0, 0))
    evidence, wanted = np.pad(evidence, missing), np.pad(wanted, missing)
    percussive = rng.random()
    if percussive < 0.25:
        evidence[:, PERCUSSIVE] = 0
    elif percussive < 0.4:
        evidence[:, PERCUSSIVE] *= rng.uniform(0.5, 1.0)
    if rng.random() < 0.2:
        evidence[:, _HARMONIC] *= rng.uniform(0.3, 1.0)
    if rng.random() < 0.3:
        evidence[:, ONSET] *= rng.random(EXCERPT) < 0.9
    return evidence, wanted


def fit(of: list[Example], *, seed: int, steps: int = STEPS) -> dict[str, Float32]:
    """Return the network's weights."""
    torch: Any = import_module("torch")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    trained, held_out = [e for e in of if not e.held_out], [e for e in of if e.held_out]
    share = np.array([e.weight for e in trained])
    share /= share.sum()
    recurrent, output = torch.nn.GRU(N_KINDS, HIDDEN, batch_first=True), torch.nn.Linear(HIDDEN, 3)
    params = [*recurrent.parameters(), *output.parameters()]
    optimiser = torch.optim.Adam(params, lr=LEARNING_RATE)
    loss_of = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0, 3.0, 4.0]), reduction="none")
    importance = torch.tensor([1.0, 0.5, 0.5])

    def losses(evidence: Float32, wanted: Float32) -> Any:
        return loss_of(output(recurrent(torch.from_numpy(evidence))[0]), torch.from_numpy(wanted))[:, UNASKED:]

    for step in range(steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / steps)) + 2e-5
        chosen = [excerpt(trained[i], rng) for i in rng.choice(len(trained), BATCH, p=share)]
        evidence, wanted = (np.stack(parts) for parts in zip(*chosen, strict=True))
        loss = (losses(evidence, wanted) * importance).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        if (step + 1) % 40 == 0:
            with torch.no_grad():
                beats = [float(losses(e.evidence[None], e.wanted[None])[..., 0].mean()) for e in held_out]
            of_held_out = f", held out {np.mean(beats):.4f}" if beats else ""
            print(f"step {step + 1}: loss {loss.item():.4f}{of_held_out}", flush=True)
    found = {
        "input": recurrent.weight_ih_l0,
        "recurrent": recurrent.weight_hh_l0,
        "input_bias": recurrent.bias_ih_l0,
        "recurrent_bias": recurrent.bias_hh_l0,
        "output": output.weight,
        "output_bias": output.bias,
    }
    return {name: np.ascontiguousarray(value.detach().numpy().T, dtype=np.float32) for name, value in found.items()}


def main(path: Path, *, material: Path, seed: int = 0, steps: int = STEPS) -> None:
    """Make the model from the songs in `material` and write it to `path`."""
    save_file(fit(list(examples(material)), seed=seed, steps=steps), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.train_beats", description="Train the beat network.")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument("--material", type=Path, required=True, help="what benchmarks.duo_material made")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another training (default: 0)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"how long to train (default: {STEPS})")
    arguments = parser.parse_args()
    main(arguments.output, material=arguments.material, seed=arguments.seed, steps=arguments.steps)
