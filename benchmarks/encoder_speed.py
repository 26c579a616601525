"""Speed of a learned encoder and how far its runtimes agree, beside transformers' own computation in the same run.

Conventions
-----------
Everything is heard in real recordings, one thread, a segment of 350 ms and both sources at a time, by the wall clock; runtimes
take turns on the same segment, so that what else runs slows all alike. *From samples to tokens* is resampling, separation,
network and vocabulary. The peers are torch on one thread in inference mode, on the same batches with the same context:

- *transformers eager, same layer*: transformers' own HubertModel from its own loader, the layers behind the one that is
  taken cut off;
- *folded*: the same with its weight norm computed once instead of in each call, which is how MusicHal loads it;
- *all layers*: what a user of MERT, and the seeds of this project, ran: all layers, all hidden states kept, one of them taken.

Peak FLOP/s is the quickest of large matrix products on one thread; the network's FLOPs are counted from its layout, two for
each multiplication.

Without weights of one's own (`--weights`), weights are random, of MERT's true size. Times and memory are those of the real
ones, for they do not depend on values. How far runtimes agree does, a little; what a shift of the grid leaves unchanged is
musical and says nothing about the real ones.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.figure import Figure
from benchmarks.hearing_speed import MODULE as TRAINING
from benchmarks.hearing_speed import measure_hearing
from benchmarks.process import in_own_process, peak_memory_mb
from benchmarks.random_checkpoint import write_random_checkpoint
from musichal.arrays import Float32, Int16, Int64
from musichal.audio.recording import Recording, read_recording
from musichal.errors import MissingExtraError, install_hint
from musichal.evaluate.verify import nearest_agreement
from musichal.hearing.encoders.checkpoint import Checkpoint, find_checkpoint
from musichal.hearing.encoders.conversion import Graph, convert, load_module
from musichal.hearing.encoders.learned import (
    EncoderRequest,
    LearnedEncoder,
    choose_runtime,
    first_seen_sample,
    graph_of,
    network_input,
    unmeasured_spec,
    with_choice,
)
from musichal.hearing.encoders.runtimes import Choice, frame_cosines, installed_choices, open_runtime
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.listener import FeatureExtractor, resolve_spec
from musichal.hearing.percepts import SOURCES, Stems, Window, frame_count
from musichal.hearing.separation import separate
from musichal.hearing.vocabulary import Vocabulary, fit_vocabulary, nearest
from musichal.live.engine import perform
from musichal.machine import cache_folder
from musichal.memory.partner_file import load_partner
from musichal.partner.settings import PartnerSettings
from musichal.spec import PerceptionSpec, VocabularySpec

_MODULE = "benchmarks.encoder_speed"
_WARM_UP_SEGMENTS = 4
_MOST_S = 34.0
_CONTEXTS_MS = (0, 175, 350, 700)
_SHIFTS_FRAMES = (5, 10, 16)
_SHIFTED_S = 12.0
_IMPORTS = 7
_SAMPLES_TO_TOKENS_MS, _LEAST_RATIO = 50.0, 4.0
_PEERS = {
    "eager": "transformers eager, same layer",
    "folded": "transformers eager, same layer, folded",
    "all layers": "transformers eager, all layers",
}


def measure_encoder(recordings: Sequence[Path], weights: Path | None = None) -> list[Figure]:
    """Measure MERT, with random weights of its true size or those in a folder.

    Raises
    ------
    MusicHalError
        If the extra is not installed, the weights cannot be loaded, or a recording cannot be heard.
    """
    if not installed_choices():
        raise MissingExtraError(f"no runtime is installed that a learned encoder could use; {install_hint('mert')}")
    checkpoint = find_checkpoint(str(weights or random_weights()))
    spec, chosen = _prepared(checkpoint, recordings[0])
    recording, text = str(recordings[0]), spec.canonical_json()
    speed = in_own_process(_MODULE, "speed", recording=recording, weights=str(checkpoint.folder), spec=text)
    figures = _speed_figures(speed, chosen)
    figures += _agreement_figures(in_own_process(_MODULE, "agreement", recording=recording, spec=text))
    figures += _context_figures(in_own_process(_MODULE, "context", recording=recording, spec=text))
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        figures += measure_hearing(recordings, spec, training_goal=8, p99_goal_ms=_SAMPLES_TO_TOKENS_MS, keep=kept)
        figures.append(_training_alone(recordings[0], text, kept))
        played = in_own_process(_MODULE, "play", one_thread=False, recording=recording, partner=str(kept / "0.hal"))
    figures.append(Figure("play: peak memory", played["peak_mb"], "MB", 900))
    figures.append(Figure("play: torch or transformers imported", played["torch"], "packages", 0))
    figures.append(Figure("import of musichal", _import_s("musichal"), "s", 0.5))
    figures.append(Figure("import of musichal.cli", _import_s("musichal.cli"), "s", 0.5))
    return figures


def _training_alone(recording: Path, spec: str, folder: Path) -> Figure:
    """Return the speed of training in one process, on a recording's beginning: the same sound would take twice as long."""
    heard = _beginning(recording)
    beginning = folder / "beginning.wav"
    soundfile.write(beginning, heard.samples, heard.sample_rate_hz, subtype="PCM_24")
    settings = {"recording": str(beginning), "partner": str(folder / "alone.hal"), "spec": spec}
    trained = in_own_process(TRAINING, "train", one_thread=False, processes=1, **settings)
    return Figure(f"training in one process ({trained['duration_s']:.0f} s)", trained["speed"], "× real time")


def random_weights() -> Path:
    """Return the folder of random weights of MERT's true size in MusicHal's cache, written where they are not there yet."""
    folder = cache_folder() / "bench" / "mert-random"
    if not (folder / "config.json").exists():
        write_random_checkpoint(folder, safe=True)
    return folder


def network_flops(config: Mapping[str, Any], *, samples: int, layer: int, batch: int) -> float:
    """Return the FLOPs of a batch (batch, samples) up to a hidden state: two for each multiplication."""
    total, length, before = 0.0, samples, 1
    for width, kernel, stride in zip(config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True):
        length = (length - kernel) // stride + 1
        total += length * width * before * kernel
        before = width
    dims, inner_dims = config["hidden_size"], config["intermediate_size"]
    total += length * before * dims
    total += length * dims * (dims // config["num_conv_pos_embedding_groups"]) * config["num_conv_pos_embeddings"]
    per_layer = length * (4 * dims * dims + 2 * dims * inner_dims) + 2 * length * length * dims
    return 2.0 * batch * (total + layer * per_layer)


def _prepared(checkpoint: Checkpoint, recording: Path) -> tuple[PerceptionSpec, Choice]:
    """Return the default spec of a checkpoint with the runtime that is the quickest here; every model is converted."""
    spec = unmeasured_spec(EncoderRequest(name="mert", source=str(checkpoint.folder)), checkpoint)

    def graph(kind: str) -> Graph:
        return convert(checkpoint, layer=spec.encoder.layer, kind=kind)

    for choice in installed_choices():
        graph(choice.graph)
    spec, _ = choose_runtime(spec, _windows(spec, _beginning(recording)), graph=graph)
    return resolve_spec(spec), Choice(spec.encoder.runtime, spec.encoder.precision)


def _beginning(path: str | Path, most_s: float = _MOST_S) -> Recording:
    recording = read_recording(path)
    return replace(recording, samples=recording.samples[: round(most_s * recording.sample_rate_hz)])


def _windows(spec: PerceptionSpec, recording: Recording) -> list[Window]:
    front_end = FrontEnd(spec, source_rate_hz=recording.sample_rate_hz)
    return [window for result in front_end.stream(recording.samples) for window in result.windows]


# Speed: runtimes and peers take turns on each segment.


def _speed(recording: str, weights: str, spec: str) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    base = PerceptionSpec.from_dict(json.loads(spec))
    checkpoint = find_checkpoint(weights)
    heard = _beginning(recording)
    networks: dict[str, Callable[[Stems], Float32]] = {
        str(choice): _runtime_network(with_choice(base, choice), choice) for choice in installed_choices()
    }
    networks |= _peers(base, checkpoint)
    vocabularies = _vocabularies(base, _windows(base, heard)[:20], networks[str(_choice(base))])
    # A machine's speed changes within minutes: what it can do at most is asked on both sides of what is compared with it.
    before = _peaks()
    times_ms = _turns(base, heard, networks, vocabularies)
    after = _peaks()
    out: dict[str, float] = {f"peak {name}": max(value, after[name]) for name, value in before.items()}
    for name in networks:
        whole = np.array(times_ms[name]["whole"])
        out[f"{name}: median"] = float(np.median(whole))
        out[f"{name}: p99"] = float(np.percentile(whole, 99))
        out[f"{name}: network"] = float(np.median(times_ms[name]["network"]))
    mine = times_ms[str(_choice(base))]
    out |= {part: float(np.median(mine[part])) for part in ("resampling", "separation", "vocabulary")}
    out["librosa"] = _librosa_ms(base, _windows(base, heard)[4:16])
    samples = base.window_samples - first_seen_sample(base)
    out["flops"] = network_flops(checkpoint.config, samples=samples, layer=base.encoder.layer, batch=len(SOURCES))
    return out


def _choice(spec: PerceptionSpec) -> Choice:
    return Choice(spec.encoder.runtime, spec.encoder.precision)


def _runtime_network(spec: PerceptionSpec, choice: Choice) -> Callable[[Stems], Float32]:
    samples = spec.window_samples - first_seen_sample(spec)
    runtime = open_runtime(graph_of(spec.encoder, choice.graph).path, choice, batch=len(SOURCES), samples=samples)
    return lambda stems: _segment(spec, runtime.run(network_input(stems, spec)))


def _peers(spec: PerceptionSpec, checkpoint: Checkpoint) -> dict[str, Callable[[Stems], Float32]]:
    """Return what runtimes are held against, by name."""
    layer = spec.encoder.layer
    cut = transformers_model(checkpoint)
    cut.encoder.layers = cut.encoder.layers[:layer]
    module, whole = load_module(checkpoint, layer=layer), transformers_model(checkpoint)
    computed: dict[str, Callable[[Any], Any]] = {
        "eager": lambda samples: cut(samples).last_hidden_state,
        "folded": module,
        "all layers": lambda samples: whole(samples, output_hidden_states=True).hidden_states[layer],
    }
    return {name: _torch_network(spec, compute) for name, compute in computed.items()}


def transformers_model(checkpoint: Checkpoint) -> Any:
    """Return transformers' own model of a MERT or HuBERT checkpoint, by its own loader: eager attention, float32."""
    import torch
    import transformers

    config = transformers.HubertConfig(**checkpoint.config)
    return transformers.HubertModel.from_pretrained(
        checkpoint.folder, config=config, local_files_only=True, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def _torch_network(spec: PerceptionSpec, compute: Callable[[Any], Any]) -> Callable[[Stems], Float32]:
    import torch

    def run(stems: Stems) -> Float32:
        with torch.inference_mode():
            return _segment(spec, compute(torch.from_numpy(network_input(stems, spec))).numpy())

    return run


def _segment(spec: PerceptionSpec, features: Float32) -> Float32:
    encoder = spec.encoder
    first = spec.context_samples // encoder.stride_samples
    n = frame_count(spec.segment_samples, frame_samples=encoder.frame_samples, stride_samples=encoder.stride_samples)
    return features[:, first : first + n]


def _vocabularies(spec: PerceptionSpec, windows: Sequence[Window], network: Callable[[Stems], Float32]) -> list[Vocabulary]:
    features = np.concatenate([network(separate(w.samples, spec.separation)) for w in windows], axis=1)
    settings = VocabularySpec(normalisation=LearnedEncoder.normalisation)
    return [fit_vocabulary(rows, settings, source=source) for rows, source in zip(features, SOURCES, strict=True)]


def _tokens(vocabularies: Sequence[Vocabulary], features: Float32) -> Int16:
    return np.stack([nearest(v.distances(v.normalise(rows))) for v, rows in zip(vocabularies, features, strict=True)])


def _turns(
    spec: PerceptionSpec,
    heard: Recording,
    networks: dict[str, Callable[[Stems], Float32]],
    vocabularies: Sequence[Vocabulary],
) -> dict[str, dict[str, list[float]]]:
    """Let each network hear each segment, one after the other; return milliseconds by network and part."""
    intakes = {name: FrontEnd(spec, source_rate_hz=heard.sample_rate_hz) for name in networks}
    parts = ("resampling", "separation", "network", "vocabulary", "whole")
    times: dict[str, dict[str, list[float]]] = {name: {part: [] for part in parts} for name in networks}
    block = round(spec.hop_samples * heard.sample_rate_hz / spec.sample_rate_hz)
    segments = 0
    for first in range(0, heard.samples.shape[0], block):
        part = heard.samples[first : first + block]
        for name, network in networks.items():
            stamps = [time.perf_counter()]
            windows = intakes[name].push(part).windows
            stamps.append(time.perf_counter())
            if len(windows) != 1:  # a block may complete none, or two
                continue
            stems = separate(windows[0].samples, spec.separation)
            stamps.append(time.perf_counter())
            features = network(stems)
            stamps.append(time.perf_counter())
            _tokens(vocabularies, features)
            stamps.append(time.perf_counter())
            if segments >= _WARM_UP_SEGMENTS:
                for what, took_s in zip(parts, [*np.diff(stamps), stamps[-1] - stamps[0]], strict=True):
                    times[name][what].append(1000 * float(took_s))
        segments += 1
    return times


def _librosa_ms(spec: PerceptionSpec, windows: Sequence[Window]) -> float:
    import librosa

    separation = spec.separation
    kernels = (separation.kernel_time_frames, separation.kernel_frequency_bins)

    def separated(samples: Float32) -> None:
        spectrum = librosa.stft(samples, n_fft=separation.n_fft, hop_length=separation.hop_samples)
        for stem in librosa.decompose.hpss(spectrum, kernel_size=kernels, power=separation.power):
            librosa.istft(stem, hop_length=separation.hop_samples, length=len(samples))

    separated(windows[0].samples)
    took = []
    for window in windows:
        started_s = time.perf_counter()
        separated(window.samples)
        took.append(time.perf_counter() - started_s)
    return 1000 * float(np.median(took))


def _peaks() -> dict[str, float]:
    """Return the FLOP/s of large matrix products on one thread, the best of several sizes and libraries, by precision."""
    import torch

    rng = np.random.default_rng(0)
    best = {"fp32": 0.0, "bf16": 0.0}
    for size in (1024, 2048):
        ours = rng.standard_normal((size, size), np.float32)
        theirs = torch.from_numpy(ours)
        products: tuple[tuple[str, Any], ...] = (("fp32", ours), ("fp32", theirs), ("bf16", theirs.bfloat16()))
        for name, matrix in products:
            for _ in range(30):
                started_s = time.perf_counter()
                matrix @ matrix
                best[name] = max(best[name], 2 * size**3 / (time.perf_counter() - started_s))
    return best


def _speed_figures(values: dict[str, float], chosen: Choice) -> list[Figure]:
    figures = []
    eager = _PEERS["eager"]
    for name in [str(choice) for choice in installed_choices()]:
        mine = name == str(chosen)
        what = f"from samples to tokens, {name}{' (chosen here)' if mine else ''}"
        p99_goal = _SAMPLES_TO_TOKENS_MS if mine else None
        ratio_goal = _LEAST_RATIO if mine else None
        network = values[f"{name}: network"]
        ratio = values["eager: network"] / network
        whole_ratio = values["eager: median"] / values[f"{name}: median"]
        figures += [
            Figure(f"{what}: median", values[f"{name}: median"], "ms", peer=eager, peer_value=values["eager: median"]),
            Figure(f"{what}: p99", values[f"{name}: p99"], "ms", p99_goal, peer=eager, peer_value=values["eager: p99"]),
            Figure(f"{what}: times as fast as with {eager}", whole_ratio, "×"),
            Figure(
                f"network, {name}: median", values[f"{name}: network"], "ms", peer=eager, peer_value=values["eager: network"]
            ),
            Figure(f"network, {name}: times as fast as {eager}", ratio, "×", ratio_goal, at_least=True),
        ]
        precision = name.split()[-1].removesuffix("-int8")
        if f"peak {precision}" in values:
            share = values["flops"] / (network / 1000) / values[f"peak {precision}"]
            figures.append(Figure(f"network, {name}: share of the peak in {precision}", share, ""))
    for peer in ("folded", "all layers"):
        took, ratio = values[f"{peer}: network"], values[f"{peer}: network"] / values[f"{chosen}: network"]
        figures.append(Figure(f"network, {chosen}: times as fast as {_PEERS[peer]} ({took:.0f} ms)", ratio, "×"))
    figures += [
        Figure("network: work for a window", values["flops"] / 1e9, "GFLOP"),
        Figure("peak in fp32, one thread", values["peak fp32"] / 1e9, "GFLOP/s"),
        Figure("peak in bf16, one thread", values["peak bf16"] / 1e9, "GFLOP/s"),
        Figure("resampling, filter and onsets of a segment", values["resampling"], "ms"),
        Figure("separation of a window", values["separation"], "ms", 5, peer="librosa decompose", peer_value=values["librosa"]),
        Figure("vocabulary, 52 frames", values["vocabulary"], "ms", 0.5),
    ]
    return figures


# Agreement: the same windows through every runtime, tokens by one vocabulary.


def _agreement(recording: str, spec: str) -> dict[str, float]:
    base = PerceptionSpec.from_dict(json.loads(spec))
    windows = _windows(base, _beginning(recording))
    choices = installed_choices()
    stems = [separate(window.samples, base.separation) for window in windows]
    features = {}
    for choice in choices:
        network = _runtime_network(with_choice(base, choice), choice)
        features[choice] = np.concatenate([network(s) for s in stems], axis=1)
    exact = features[choices[0]]
    settings = VocabularySpec(normalisation=LearnedEncoder.normalisation)
    vocabularies = [fit_vocabulary(rows, settings, source=source) for rows, source in zip(exact, SOURCES, strict=True)]
    tokens = {choice: _tokens(vocabularies, features[choice]) for choice in choices}
    out = {"frames": float(exact.shape[1])}
    for one, other in combinations(choices, 2):
        for source, name in enumerate(SOURCES):
            out[f"{one} / {other}, {name}"] = float((tokens[one][source] == tokens[other][source]).mean())
    for choice in choices[1:]:
        out[f"cosine {choice}"] = float(frame_cosines(features[choice], exact).min())
    return out


def _agreement_figures(values: dict[str, float]) -> list[Figure]:
    frames = round(values.pop("frames"))
    figures = []
    for name, value in values.items():
        if name.startswith("cosine "):
            figures.append(Figure(f"least cosine of a frame to openvino fp32, {name.removeprefix('cosine ')}", value, ""))
        else:
            figures.append(Figure(f"equal tokens of {frames}, {name}", value, ""))
    return figures


# Context: what it costs, and how many tokens stay when the grid falls elsewhere.


def _context(recording: str, spec: str) -> dict[str, float]:
    base = PerceptionSpec.from_dict(json.loads(spec))
    heard = _beginning(recording, _SHIFTED_S)
    rate = heard.sample_rate_hz
    out = {}
    for context_ms in _CONTEXTS_MS:
        context = replace(base, context_samples=round(context_ms * base.sample_rate_hz / 1000))
        first = _heard_frames(context, heard)
        settings = VocabularySpec(normalisation=LearnedEncoder.normalisation)
        vocabularies = [fit_vocabulary(f, settings, source=s) for f, s in zip(first[1], SOURCES, strict=True)]
        tokens = _tokens(vocabularies, np.stack(first[1]))
        shares: list[list[float]] = [[] for _ in SOURCES]
        for frames in _SHIFTS_FRAMES:
            dropped = round(frames * base.encoder.stride_samples * rate / base.sample_rate_hz)
            shifted = _heard_frames(context, replace(heard, samples=heard.samples[dropped:]))
            others = _tokens(vocabularies, np.stack(shifted[1]))
            asked = first[0] >= dropped / rate * base.sample_rate_hz + max(_CONTEXTS_MS) * base.sample_rate_hz / 1000
            agreement = nearest_agreement(
                (first[0][asked], shifted[0]),
                (tokens[:, asked], others),
                tolerance_samples=base.encoder.stride_samples / 2,
                offset_samples=dropped / rate * base.sample_rate_hz,
            )
            for source, (equal, pairs) in enumerate(agreement):
                shares[source].append(equal / pairs)
        for source, name in enumerate(SOURCES):
            out[f"{context_ms} {name}"] = float(np.mean(shares[source]))
    times = _context_times(base, heard)
    return out | {f"{context_ms} ms": value for context_ms, value in times.items()}


def _heard_frames(spec: PerceptionSpec, heard: Recording) -> tuple[Int64, list[Float32]]:
    """Return the centres of the frames of a recording, and their features, one array per source."""
    extractor = FeatureExtractor(spec, LearnedEncoder(spec))
    segments = list(extractor.stream(heard.samples, source_rate_hz=heard.sample_rate_hz))
    features = [np.concatenate([h.features[source] for h in segments]) for source in range(len(SOURCES))]
    return np.concatenate([h.frame_samples for h in segments]), features


def _context_times(base: PerceptionSpec, heard: Recording) -> dict[int, float]:
    """Return the median time of separation and network for each context, which take turns."""
    runs = {}
    for context_ms in _CONTEXTS_MS:
        spec = replace(base, context_samples=round(context_ms * base.sample_rate_hz / 1000))
        runs[context_ms] = (spec, _runtime_network(spec, _choice(spec)), _windows(spec, heard))
    times: dict[int, list[float]] = {context_ms: [] for context_ms in runs}
    for number in range(min(len(windows) for _, _, windows in runs.values())):
        for context_ms, (spec, network, windows) in runs.items():
            started_s = time.perf_counter()
            network(separate(windows[number].samples, spec.separation))
            if number >= _WARM_UP_SEGMENTS:
                times[context_ms].append(1000 * (time.perf_counter() - started_s))
    return {context_ms: float(np.median(took)) for context_ms, took in times.items()}


def _context_figures(values: dict[str, float]) -> list[Figure]:
    figures = []
    for context_ms in _CONTEXTS_MS:
        figures.append(Figure(f"context {context_ms} ms: separation and network, median", values[f"{context_ms} ms"], "ms"))
        for source in SOURCES:
            share = values[f"{context_ms} {source}"]
            figures.append(Figure(f"context {context_ms} ms: {source} tokens that stay when the grid moves", share, ""))
    return figures


# Playing and importing.


def _play(recording: str, partner: str) -> dict[str, float]:
    heard = _beginning(recording)
    model = load_partner(partner)
    perform(model, heard.samples, sample_rate_hz=heard.sample_rate_hz, settings=PartnerSettings(), seed=0)
    return {"peak_mb": peak_memory_mb(), "torch": float(sum(name in sys.modules for name in ("torch", "transformers")))}


def _import_s(module: str) -> float:
    code = f"import time; started = time.perf_counter(); import {module}; print(time.perf_counter() - started)"
    took = []
    for _ in range(_IMPORTS):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own
        took.append(float(done.stdout))
    return float(np.median(took))


if __name__ == "__main__":
    _settings = json.loads(sys.argv[1])
    _jobs: dict[str, Callable[..., dict[str, float]]] = {
        "speed": _speed,
        "agreement": _agreement,
        "context": _context,
        "play": _play,
    }
    sys.stdout.write(json.dumps(_jobs[_settings.pop("job")](**_settings)) + "\n")
