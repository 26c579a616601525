"""Light runtimes and the models converted for them: the same bytes each time, torch's numbers, nothing torn or half-made."""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learned_by_hand import EXTRA
from musichal.errors import InputError, MissingExtraError
from musichal.hearing.encoders.learned import conversion, onnx_runtime, openvino_runtime, runtimes
from musichal.hearing.encoders.learned.checkpoint import Checkpoint, find_checkpoint
from musichal.hearing.encoders.learned.choose import candidates, graphs_of
from musichal.hearing.encoders.learned.conversion import ENTRY, MODEL, GraphKey, convert, entry_exists, find_graph, quantised
from musichal.hearing.encoders.learned.measure import Measured, fastest, frame_cosines, measure
from musichal.hearing.encoders.learned.module import load_module
from musichal.hearing.encoders.learned.onnx_runtime import OnnxRuntime
from musichal.hearing.encoders.learned.rewriting import rewritten
from musichal.hearing.encoders.learned.runtimes import (
    Choice,
    check_choice,
    installed_choices,
    open_runtime,
    package_of,
    runtime_names,
)
from musichal.hearing.percepts import frame_count

torch = pytest.importorskip("torch", reason=EXTRA)
for package in ("transformers", "onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=EXTRA)

CHOICES = installed_choices()
IDS = [str(choice) for choice in CHOICES]
SAMPLES = 14_120
_LEVELS = ((1.0, 0.0), (1e-2, 0.0), (0.0, 0.0), (1.0, 0.5), (30.0, 0.0))
LEAST_COSINE = {"fp32": 0.999999, "int8": 0.99, "bf16": 0.99, "bf16-int8": 0.99}


@pytest.fixture(scope="module")
def checkpoint(tiny_mert: Path) -> Checkpoint:
    return find_checkpoint(str(tiny_mert))


@pytest.fixture(scope="module")
def graph(checkpoint: Checkpoint):
    return graphs_of(checkpoint, layer=1)


def noise(seed: int, samples: int = SAMPLES) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, samples), np.float32)


def test_there_is_something_to_test() -> None:
    assert {Choice("openvino", "fp32"), Choice("onnxruntime", "fp32"), Choice("onnxruntime", "int8")} <= set(CHOICES)


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_a_runtime_gives_torchs_numbers_every_frame_at_any_length(choice, checkpoint, graph) -> None:
    module = load_module(checkpoint, layer=1)
    for samples in (800, SAMPLES, 18_401):
        batch = noise(samples, samples)
        found = open_runtime(graph(choice.graph).path, choice, batch=2, samples=samples).run(batch)
        expected = module(torch.from_numpy(batch)).numpy()
        assert found.shape == expected.shape == (2, frame_count(samples), checkpoint.dims)
        assert found.dtype == np.float32
        assert frame_cosines(found, expected).min() >= LEAST_COSINE[choice.precision]


def wide_product(rng: np.random.Generator):
    """Return a model of one matrix product as wide as those of a true network, its input and its weights."""
    import openvino
    from openvino import opset13 as operations

    weights = rng.standard_normal((256, 384)).astype(np.float32)
    given = operations.parameter([2, 5, 256], np.float32)
    second = operations.matmul(given, operations.constant(np.eye(256, dtype=np.float32)[:, :7]), False, False)
    model = openvino.Model([operations.matmul(given, operations.constant(weights), False, False), second], [given])
    return model, rng.standard_normal((2, 5, 256)).astype(np.float32), weights


@pytest.mark.skipif(Choice("openvino", "int8") not in CHOICES, reason="this processor has no OpenVINO in int8")
def test_products_in_8_bits_are_near_and_a_frame_has_no_part_in_anothers() -> None:
    """Weights and what they are multiplied with are both rounded: twice 1/127 of the largest value, added up at random."""
    import openvino

    rng = np.random.default_rng(0)
    model, frames, weights = wide_product(rng)
    assert openvino_runtime.quantise(model) == 2
    constants = [o for o in model.get_ops() if o.get_type_name() == "Constant" and o.get_element_type() == openvino.Type.i8]
    assert sorted(tuple(c.shape) for c in constants) == [(7, 256), (384, 256)]
    settings_of_ours = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 128, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", settings_of_ours).create_infer_request()
    first = np.array(request.infer([frames])[0])
    exact = frames @ weights
    error = np.sqrt(np.mean((first - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 0.02, "rounded, and no further than that"
    louder = frames.copy()
    louder[1] *= 1000
    assert np.array(request.infer([louder])[0])[0].tobytes() == first[0].tobytes()


def test_products_are_in_8_bits_and_convolutions_are_not(graph) -> None:
    """Rounded to 8 bits as a product, the first convolution took the least cosine of a frame of true size to 0.93."""
    import onnx

    products = [n for n in onnx.load(graph("fp32").path).graph.node if n.op_type == "MatMul"]
    whole = [n for n in onnx.load(graph("int8").path).graph.node if n.op_type in ("MatMul", "MatMulInteger")]
    first = [n for n in products if any(i.startswith(conversion.CONVOLUTIONS) for i in n.input)]
    assert len(first) == 1
    assert len(whole) == len(products)
    kept = {n.name for n in whole if n.op_type == "MatMul"}
    # What is not in 8 bits has no weights (attention's own products), or is the first convolution.
    assert first[0].name in kept
    assert len(kept) == 1 + 2


def test_what_is_exported_is_the_same_computation(checkpoint) -> None:
    module = load_module(checkpoint, layer=1)
    batches = [torch.from_numpy(noise(1) * np.float32(gain) + np.float32(offset)) for gain, offset in _LEVELS]
    expected = [module(batch) for batch in batches]
    before = type(module.convolutions.conv_layers[0])
    again = rewritten(module)
    assert type(again.convolutions.conv_layers[0]) is not before
    for batch, features in zip(batches, expected, strict=True):
        torch.testing.assert_close(again(batch), features, atol=1e-4 * float(features.abs().max()), rtol=0)


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_the_same_batch_gives_the_same_bytes_whatever_came_before(choice, graph) -> None:
    runtime = open_runtime(graph(choice.graph).path, choice, batch=2, samples=SAMPLES)
    other = open_runtime(graph(choice.graph).path, choice, batch=2, samples=SAMPLES)

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 2**32), st.sampled_from([0.0, 1e-4, 1.0, 30.0]))
    def asked(seed: int, gain: float) -> None:
        batch = noise(seed)
        first = runtime.run(batch)
        kept = first.copy()
        runtime.run(noise(seed + 1) * np.float32(gain))
        assert runtime.run(batch).tobytes() == first.tobytes() == other.run(batch).tobytes()
        assert first.tobytes() == kept.tobytes(), "a later call wrote over an earlier answer"

    asked()


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_threads_that_share_a_runtime_get_their_own_answers(choice, graph) -> None:
    runtime = open_runtime(graph(choice.graph).path, choice, batch=2, samples=SAMPLES)
    batches = [noise(seed) for seed in range(24)]
    expected = [runtime.run(batch).tobytes() for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        assert [found.tobytes() for found in threads.map(runtime.run, batches)] == expected


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_a_batch_of_another_shape_is_an_error(choice, graph) -> None:
    runtime = open_runtime(graph(choice.graph).path, choice, batch=2, samples=SAMPLES)
    for batch in (noise(0, SAMPLES + 1), noise(0)[:1]):
        with pytest.raises(ValueError, match="opened for"):
            runtime.run(batch)
    assert (runtime.name, runtime.precision) == (choice.runtime, choice.precision)


def test_what_this_machine_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown runtime 'tensorrt'; known: openvino, onnxruntime"):
        check_choice(Choice("tensorrt", "fp32"))
    with pytest.raises(InputError, match="onnxruntime has no precision 'bf16'; it has: fp32, int8"):
        check_choice(Choice("onnxruntime", "bf16"))
    for name in set(runtime_names()) - {c.runtime for c in CHOICES}:
        with pytest.raises(InputError, match=f"installed here cannot compute by {name}: it needs (an NVIDIA card|macOS)"):
            check_choice(Choice(name, "fp32"))
    monkeypatch.setattr(openvino_runtime, "precisions_here", lambda: ("fp32", "int8"))
    with pytest.raises(InputError, match="this processor cannot compute in bf16"):
        check_choice(Choice("openvino", "bf16"))
    for precision in ("bf16", "bf16-int8"):
        assert Choice("openvino", precision) not in installed_choices()
        with pytest.raises(InputError, match=f"computes in {precision} on this machine"):
            candidates("auto", precision)
    assert candidates("auto", "int8") == (Choice("openvino", "int8"), Choice("onnxruntime", "int8"))
    assert candidates("onnxruntime", "auto") == (Choice("onnxruntime", "fp32"), Choice("onnxruntime", "int8"))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_card_that_cannot_be_used_is_one_line_and_nothing_else(graph, monkeypatch, capfd) -> None:
    """Never with this processor instead, unasked. What ONNX Runtime itself has to say would fill a page."""
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    for name, words in (("onnxruntime-cuda", 'it found no .*`pip install "onnxruntime-gpu'), ("onnxruntime-coreml", "CoreML")):
        if any(choice.runtime == name for choice in installed_choices(on_cpu_only=False)):
            continue  # this machine may have it
        with pytest.raises(InputError, match=f"^{name} cannot be used on this machine: .*{words}"):
            OnnxRuntime(graph("fp32").path, name=name, precision="fp32", batch=2, samples=SAMPLES)
    assert capfd.readouterr() == ("", "")
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"
    with pytest.raises(InputError, match=r"ONNX Runtime cannot read the converted model: [^\n]+$"):
        OnnxRuntime(Path(__file__), name="onnxruntime", precision="fp32", batch=2, samples=SAMPLES)


def test_a_runtime_is_known_by_the_package_that_brought_it(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(runtimes, "installed", lambda name: versions.get(name, "unknown"))
    assert package_of("onnxruntime-cuda") == "onnxruntime-gpu"
    assert package_of("openvino") == "openvino"  # where neither is: the one that is asked for
    versions["onnxruntime"] = "1.31.1"
    assert package_of("onnxruntime-coreml") == "onnxruntime"


def test_of_what_a_card_complains_about_the_reason_is_said() -> None:
    """As ONNX Runtime 1.31 with CUDA raises it where the driver is a wrong one, shortened."""
    places = (
        "/onnxruntime_src/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW> CudaCall(ERRTYPE) [with THRW = true]"
    )
    why = "CUDA failure 36: API call is not supported in the installed CUDA driver"
    said = f"{places} {why} ; GPU=-1 ; hostname=vm ; line=355 ; expr=cudaSetDevice(info_.device_id); \n\n"
    assert onnx_runtime._reason(RuntimeError(said)) == why
    assert onnx_runtime._reason(RuntimeError("one\ntwo")) == "one"
    assert onnx_runtime._reason(RuntimeError()) == "RuntimeError"


def test_a_missing_runtime_is_said_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'openvino is not installed; .*pip install "musichal\[openvino\]"'):
        check_choice(Choice("openvino", "fp32"))
    assert installed_choices() == ()
    with pytest.raises(MissingExtraError, match=r'pip install "musichal\[mert\]"'):
        candidates("auto", "auto")


def test_the_quickest_of_the_faithful_is_taken() -> None:
    def row(name: str, ms: float, cosine: float) -> Measured:
        return Measured(Choice(name, "fp32"), ms, cosine, cosine)

    rows = [row("a", 30.0, 1.0), row("b", 20.0, 0.9991), row("c", 10.0, 0.9989)]
    assert fastest(rows) == Choice("b", "fp32")
    with pytest.raises(InputError, match=r"cosine of 0\.999 .*c fp32: 0\.9989"):
        fastest(rows[2:])


def test_measuring_takes_turns_and_compares_with_fp32(graph) -> None:
    ticks = iter(range(10_000))
    batches = [noise(1), noise(2)]
    measured = measure(CHOICES, batches, graph=graph, clock=lambda: float(next(ticks)), rounds=3)
    assert [m.choice for m in measured] == list(CHOICES)
    assert {m.median_ms for m in measured} == {1000.0}, "each call is timed by itself, by the clock that was given"
    assert measured[0].least_cosine == pytest.approx(1.0, abs=1e-12)
    assert all(LEAST_COSINE[m.choice.precision] <= m.least_cosine <= m.mean_cosine <= 1 + 1e-12 for m in measured)


def test_a_converted_model_is_found_again_and_not_made_twice(checkpoint, graph, learned_cache) -> None:
    made = graph("fp32")
    key = GraphKey(checkpoint.digest, 1, "fp32")
    assert find_graph(key) == made
    assert made.path.is_relative_to(learned_cache)
    assert (made.weights, made.licence, made.dims) == (checkpoint.name, checkpoint.licence, checkpoint.dims)
    stamp = made.path.stat().st_mtime_ns
    assert convert(checkpoint, layer=1, kind="fp32").path.stat().st_mtime_ns == stamp
    assert find_graph(dataclasses.replace(key, layer=0)) is None
    assert find_graph(dataclasses.replace(key, checkpoint="0" * 64)) is None


@pytest.fixture
def copied_cache(learned_cache, graph, tmp_path, monkeypatch) -> Path:
    """A cache of one's own to damage, with the converted model in it."""
    graph("fp32"), graph("int8")
    shutil.copytree(learned_cache, tmp_path / "cache")
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _truncate(entry: Path) -> None:
    data = (entry / MODEL).read_bytes()
    (entry / MODEL).write_bytes(data[: len(data) // 2])


def _flip(entry: Path) -> None:
    data = bytearray((entry / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (entry / MODEL).write_bytes(data)


def _other_key(entry: Path) -> None:
    values = json.loads((entry / ENTRY).read_text())
    values["key"]["layer"] = 2
    (entry / ENTRY).write_text(json.dumps(values))


DAMAGES = {
    "cut short": _truncate,
    "one bit": _flip,
    "of another layer": _other_key,
    "no entry": lambda entry: (entry / ENTRY).unlink(),
    "no model": lambda entry: (entry / MODEL).unlink(),
    "not JSON": lambda entry: (entry / ENTRY).write_text('{"key": '),
    "no table": lambda entry: (entry / ENTRY).write_text("[]"),
    "control characters": lambda entry: (entry / ENTRY).write_text((entry / ENTRY).read_text().replace("tiny", "ti\\u001b")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_counts_as_absent_and_is_made_again(damage, copied_cache, checkpoint) -> None:
    """The 8-bit model stands for both kinds: it is made again in a second."""
    exact, key = GraphKey(checkpoint.digest, 1, "fp32"), GraphKey(checkpoint.digest, 1, "int8")
    whole = find_graph(key)
    assert whole is not None
    damage(whole.path.parent)
    assert find_graph(key) is None
    assert entry_exists(key)
    source = find_graph(exact)
    assert source is not None
    assert quantised(exact, source).sha256 == whole.sha256, "and the same model gives the same bytes"
    assert not list((copied_cache / "converted").glob(".*")), "nothing is left over"


def test_what_is_not_torchs_computation_is_not_kept(checkpoint) -> None:
    good = noise(3).reshape(2, -1, 8)
    conversion._compare(good, good * np.float32(1 + 1e-6), "tiny")
    with pytest.raises(InputError, match=r"off by .* it is not kept"):
        conversion._compare(good, good + np.float32(0.01), "tiny")
    with pytest.raises(InputError, match="it is not kept"):
        conversion._compare(good * np.float32(np.nan), good, "tiny")
    with pytest.raises(InputError, match="it is not kept"):
        conversion._compare(good[:, 1:], good, "tiny")


def test_a_conversion_that_fails_leaves_nothing(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path))
    changed = dataclasses.replace(checkpoint, digest="0" * 64)
    with pytest.raises(InputError, match="changed while they were converted"):
        convert(changed, layer=1, kind="fp32")
    assert not list((tmp_path / "converted").iterdir())


def test_a_conversion_that_is_killed_leaves_nothing_that_is_used(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path))
    script = (
        "import sys; from musichal.hearing.encoders.learned.checkpoint import find_checkpoint;"
        "from musichal.hearing.encoders.learned.conversion import convert;"
        "convert(find_checkpoint(sys.argv[1]), layer=1, kind='fp32')"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(checkpoint.folder)], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("converted/.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp_path.glob("converted/.*.partial"))
    os.killpg(process.pid, signal.SIGKILL)  # and what it started
    process.wait()
    assert find_graph(GraphKey(checkpoint.digest, 1, "fp32")) is None
    assert not entry_exists(GraphKey(checkpoint.digest, 1, "fp32"))


def test_a_cache_that_cannot_be_written_is_said(checkpoint, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot keep a converted model in .*not a folder"):
        convert(checkpoint, layer=1, kind="fp32")
