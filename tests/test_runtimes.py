"""Converted networks and the runtimes that compute them: torch's numbers, the same bytes, chosen by measuring."""

import dataclasses
import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from learned_by_hand import EXTRA
from musichal.errors import InputError, MissingExtraError
from musichal.hearing.encoders import runtimes
from musichal.hearing.encoders.checkpoint import Checkpoint, find_checkpoint
from musichal.hearing.encoders.conversion import GraphKey, compare, convert, find_graph, load_module, quantised
from musichal.hearing.encoders.learned import check_checkpoint, frame_counts, prepare
from musichal.hearing.encoders.runtimes import (
    Choice,
    Measured,
    candidates,
    check_choice,
    fastest,
    frame_cosines,
    installed_choices,
    measure,
    open_runtime,
    package_of,
)
from musichal.hearing.percepts import frame_count

torch = pytest.importorskip("torch", reason=EXTRA)
transformers = pytest.importorskip("transformers", reason=EXTRA)
for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=EXTRA)

CHOICES = installed_choices()
IDS = [str(choice) for choice in CHOICES]
SAMPLES = 14_120
LEAST = {"fp32": 0.999999, "int8": 0.99, "bf16": 0.99, "bf16-int8": 0.99}
SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "conv_dim": [12] * 7,
    "num_conv_pos_embeddings": 15,
    "num_conv_pos_embedding_groups": 4,
}


@pytest.fixture(scope="module")
def checkpoint(tiny_mert: Path) -> Checkpoint:
    return find_checkpoint(str(tiny_mert))


@pytest.fixture(scope="module")
def graph(checkpoint: Checkpoint):
    return lambda kind: convert(checkpoint, layer=1, kind=kind).path


@pytest.fixture(scope="module")
def guitar(rock_guitar: Path) -> np.ndarray:
    """Two windows of a second of real guitar, (2, 24000); the rate does not matter here."""
    return soundfile.read(rock_guitar, dtype="float32", start=12 * 44100, frames=48000)[0].reshape(2, 24000)


def noise(seed: int, samples: int = SAMPLES) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, samples), np.float32)


# --- the network


@pytest.mark.parametrize(
    ("name", "norm", "stable"),
    [
        ("HubertModel", "group", False),
        ("HubertModel", "layer", True),
        ("Wav2Vec2Model", "group", True),
        ("Wav2Vec2Model", "layer", False),
        ("Wav2Vec2ForPreTraining", "group", False),
        ("HubertForCTC", "group", False),
    ],
)
def test_every_layer_is_bit_for_bit_that_of_transformers(name, norm, stable, tmp_path, guitar):
    torch.manual_seed(3)
    config_class = transformers.HubertConfig if name.startswith("Hubert") else transformers.Wav2Vec2Config
    options = {"feat_extract_norm": norm, "do_stable_layer_norm": stable, "conv_bias": norm == "layer"}
    model = getattr(transformers, name)(config_class(**SMALL, **options, attn_implementation="eager")).eval()
    with torch.no_grad():  # as drawn, norms are identities and biases zero: an omission would not show
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "it")
    (tmp_path / "it" / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000}))
    found = find_checkpoint(str(tmp_path / "it"))
    assert (found.sample_rate_hz, found.layers, found.licence) == (16000, 2, "not stated")
    samples = torch.from_numpy(prepare(guitar, normalise=True))
    with torch.no_grad():
        output = model.base_model(samples, output_hidden_states=True)
    for layer, state in enumerate((*output.hidden_states[:-1], output.last_hidden_state)):
        module = load_module(found, layer=layer)
        assert torch.equal(module(samples), state), f"layer {layer}"
        assert len(module.model.encoder.layers) == layer, "later layers are not kept"
    for layer in (-1, 3):
        with pytest.raises(InputError, match="has layers 0 to 2, not"):
            load_module(found, layer=layer)


def test_frame_counts_are_those_of_the_formula_at_every_length(checkpoint):
    assert frame_counts(checkpoint) == {100: 7, 200: 14, 350: 26, 500: 37, 1000: 74}
    module = load_module(checkpoint, layer=0)
    for n in (400, 719, 720, 8399, 8400, 8719, 8720, 24000):
        assert module(torch.zeros(1, n)).shape[1] == frame_count(n)


def test_normalisation_is_that_of_transformers_and_takes_level_and_offset_off(guitar):
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=24000, do_normalize=True)
    theirs = extractor(list(guitar), sampling_rate=24000, return_tensors="np").input_values
    np.testing.assert_allclose(prepare(guitar, normalise=True), theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(prepare(guitar, normalise=False), guitar)
    np.testing.assert_allclose(prepare(guitar * np.float32(0.1) + np.float32(0.05), normalise=True), theirs, atol=2e-3)
    assert not prepare(np.full((2, 50), 0.05, np.float32), normalise=True).any(), "a constant gives zeros, exactly"


def test_weights_that_change_after_they_were_found_are_refused(checkpoint):
    with pytest.raises(InputError, match="has changed since it was read first"):
        load_module(dataclasses.replace(checkpoint, weights_sha256="0" * 64), layer=1)


def test_the_check_passes_names_every_runtime_and_gives_the_same_features_each_time(checkpoint):
    first, again = check_checkpoint(checkpoint, layer=1), check_checkpoint(checkpoint, layer=1)
    assert first == again
    assert first.passed
    assert first.features.shape == (74, 24)
    found = {f.name: f.passed for f in first.findings}
    assert found | {"weights": None, "frame counts": True, "hears": True, "quiet input": True} == found
    assert all(found[str(choice)] or choice.precision != "fp32" for choice in CHOICES)


def test_the_check_fails_where_the_network_hears_nothing(checkpoint, monkeypatch):
    """All weights of the first convolution zero: features are the same, whatever sounds."""
    from musichal.hearing.encoders import learned as check

    def deaf(checkpoint: Checkpoint, *, layer: int):
        module = load_module(checkpoint, layer=layer)
        module.model.feature_extractor.conv_layers[0].conv.weight.zero_()
        return module

    monkeypatch.setattr(check, "load_module", deaf)
    assert {f.name for f in check_checkpoint(checkpoint, layer=1).findings if f.passed is False} == {"hears"}


# --- the converted model


def test_a_converted_model_is_found_again_and_made_again_where_it_is_damaged(checkpoint, graph, learned_cache):
    made, key = find_graph(GraphKey(checkpoint.digest, 1, "fp32")), GraphKey(checkpoint.digest, 1, "int8")
    assert graph("fp32").is_relative_to(learned_cache)
    made = find_graph(GraphKey(checkpoint.digest, 1, "fp32"))
    assert made is not None
    assert (made.weights, made.licence, made.dims) == (checkpoint.name, checkpoint.licence, checkpoint.dims)
    whole = quantised(key, made)
    entry = key.path.with_suffix(".json")
    damages = (
        lambda: key.path.write_bytes(key.path.read_bytes()[:-1]),
        key.path.unlink,
        entry.unlink,
        lambda: entry.write_text('{"key": '),
        lambda: entry.write_text("[]"),
        lambda: entry.write_text(entry.read_text().replace('"layer": 1', '"layer": 2')),
        lambda: entry.write_text(entry.read_text().replace("tiny", "ti\\u001b")),
    )
    for damage in damages:
        damage()
        assert find_graph(key) is None
        assert quantised(key, made).sha256 == whole.sha256, "the same model gives the same bytes"
    assert not list(key.path.parent.glob(".*")), "nothing is left over"


def test_a_conversion_that_fails_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="changed while they were converted"):
        convert(dataclasses.replace(checkpoint, weights_sha256="0" * 64), layer=1, kind="fp32")
    assert not list((tmp_path / "converted").iterdir())
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot keep a converted model in .*not a folder"):
        convert(checkpoint, layer=1, kind="fp32")


def test_what_is_not_torchs_computation_is_not_kept():
    good = noise(3).reshape(2, -1, 8)
    compare(good, good * np.float32(1 + 1e-6), "tiny")
    for bad in (good + np.float32(0.01), good * np.float32(np.nan), good[:, 1:]):
        with pytest.raises(InputError, match="it is not kept"):
            compare(bad, good, "tiny")


def test_products_are_in_8_bits_and_convolutions_are_not(graph):
    import onnx

    def kinds(kind: str) -> list[str]:
        return [node.op_type for node in onnx.load(graph(kind)).graph.node]

    assert "MatMulInteger" in kinds("int8")
    assert kinds("int8").count("Conv") == kinds("fp32").count("Conv") >= 8


# --- runtimes


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_a_runtime_gives_torchs_numbers_and_the_same_bytes_in_every_thread(choice, checkpoint, graph):
    module = load_module(checkpoint, layer=1)
    for samples in (800, 18_401, SAMPLES):
        runtime = open_runtime(graph(choice.graph), choice, batch=2, samples=samples)
        batch = noise(samples, samples)
        found, expected = runtime.run(batch), module(torch.from_numpy(batch)).numpy()
        assert found.shape == expected.shape == (2, frame_count(samples), checkpoint.dims)
        assert frame_cosines(found, expected).min() >= LEAST[choice.precision]
    batches = [noise(seed) * np.float32(gain) for seed, gain in enumerate((1, 0, 1e-4, 30, 1, 1))]
    alone = [runtime.run(batch).tobytes() for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        assert [found.tobytes() for found in threads.map(runtime.run, batches)] == alone
    other = open_runtime(graph(choice.graph), choice, batch=2, samples=SAMPLES)
    assert [other.run(batch).tobytes() for batch in reversed(batches)] == alone[::-1]
    with pytest.raises(ValueError, match="batch must have shape"):
        runtime.run(noise(0)[:1])


@pytest.mark.skipif(Choice("openvino", "int8") not in CHOICES, reason="this processor has no OpenVINO in int8")
def test_openvino_in_8_bits_is_near_and_frames_are_rounded_apart():
    """Weights and what they are multiplied with are both rounded: twice 1/127 of the largest value, added up at random."""
    import openvino
    from openvino import opset13 as operations

    rng = np.random.default_rng(0)
    weights, frames = rng.standard_normal((256, 384)).astype(np.float32), rng.standard_normal((2, 5, 256)).astype(np.float32)
    given = operations.parameter([2, 5, 256], np.float32)
    model = openvino.Model([operations.matmul(given, operations.constant(weights), False, False)], [given])
    assert runtimes.quantise(model) == 1
    settings = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 128, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    first, exact = np.array(request.infer([frames])[0]), frames @ weights
    assert 1e-4 < np.sqrt(np.mean((first - exact) ** 2) / np.mean(exact**2)) < 0.02, "rounded, and no further than that"
    frames[1] *= 1000
    assert np.array(request.infer([frames])[0])[0].tobytes() == first[0].tobytes()


def test_what_this_machine_cannot_do_is_said(monkeypatch, capfd):
    for choice, words in (
        (Choice("tensorrt", "fp32"), "unknown runtime 'tensorrt'. Valid runtimes: openvino, onnxruntime"),
        (Choice("onnxruntime", "bf16"), "onnxruntime has no precision 'bf16'. Valid precisions: fp32, int8"),
    ):
        with pytest.raises(InputError, match=words):
            check_choice(choice)
    if Choice("onnxruntime-cuda", "fp32") not in installed_choices(on_cpu_only=False):
        with pytest.raises(InputError, match="cannot compute by onnxruntime-cuda: it needs an NVIDIA card"):
            check_choice(Choice("onnxruntime-cuda", "fp32"))
    here = {"openvino": ("fp32", "int8"), "onnxruntime": ("fp32", "int8")}
    monkeypatch.setattr(runtimes, "_precisions_here", lambda runtime: here.get(runtime, ()))
    with pytest.raises(InputError, match="this processor cannot compute in bf16"):
        check_choice(Choice("openvino", "bf16"))
    with pytest.raises(InputError, match="no installed runtime computes in bf16 on this machine"):
        candidates("auto", "bf16")
    assert candidates("auto", "int8") == (Choice("openvino", "int8"), Choice("onnxruntime", "int8"))
    assert candidates("onnxruntime", "auto") == (Choice("onnxruntime", "fp32"), Choice("onnxruntime", "int8"))
    with pytest.raises(InputError, match=r"ONNX Runtime cannot read the converted model: [^\n]+$"):
        open_runtime(Path(__file__), Choice("onnxruntime", "fp32"), batch=2, samples=SAMPLES)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"openvino is not installed; .*openvino"):
        check_choice(Choice("openvino", "fp32"))
    with pytest.raises(MissingExtraError, match="mert"):
        candidates("auto", "auto")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_card_that_cannot_be_used_is_one_line(graph, monkeypatch, capfd):
    """Never with the processor instead, unasked. What ONNX Runtime itself has to say would fill a page."""
    if Choice("onnxruntime-cuda", "fp32") in installed_choices(on_cpu_only=False):
        pytest.skip("this machine has a card")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with pytest.raises(InputError, match=r"^onnxruntime-cuda cannot be used on this machine: "):
        runtimes.OnnxRuntime(graph("fp32"), (2, SAMPLES), cuda=True)
    assert capfd.readouterr() == ("", "")
    versions = {"onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(runtimes, "installed", lambda name: versions.get(name, "unknown"))
    assert package_of("onnxruntime-cuda") == "onnxruntime-gpu"
    assert package_of("openvino") == "openvino"
    said = "/onnxruntime_src/cuda_call.cc:154 CUDA failure 36: API call is not supported ; GPU=-1 ; hostname=vm"
    assert runtimes._first_line(RuntimeError(said)).strip() == "CUDA failure 36: API call is not supported"


def test_the_fastest_of_the_faithful_is_chosen_and_runtimes_take_turns(graph):
    rows = [Measured(Choice(name, "fp32"), ms, c, c) for name, ms, c in (("a", 30, 1.0), ("b", 20, 0.9991), ("c", 10, 0.9989))]
    assert fastest(rows) == Choice("b", "fp32")
    with pytest.raises(InputError, match=r"cosine of 0\.999 .*c fp32: 0\.9989"):
        fastest(rows[2:])
    ticks = iter(range(10_000))
    measured = measure(CHOICES, [noise(1), noise(2)], graph=graph, clock=lambda: float(next(ticks)), rounds=3)
    assert [m.choice for m in measured] == list(CHOICES)
    assert {m.median_ms for m in measured} == {1000.0}, "each call is timed by itself"
    assert all(LEAST[m.choice.precision] <= m.least_cosine <= m.mean_cosine <= 1 + 1e-12 for m in measured)
