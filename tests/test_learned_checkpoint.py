"""Checkpoints from folders and from a hub: what is read, what is refused and in which words, that nothing of theirs runs."""

import copy
import dataclasses
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.random_checkpoint import MERT_CONFIG, write_random_checkpoint
from hub_by_hand import COMMIT, HubByHand, serve
from musichal.cli import app
from musichal.errors import InputError, MissingExtraError
from musichal.hearing.encoders.learned import check, known
from musichal.hearing.encoders.learned.checkpoint import find_checkpoint
from musichal.hearing.encoders.learned.known import MERT
from musichal.hearing.encoders.learned.layout import parse_layout
from musichal.hearing.encoders.learned.module import load_module
from musichal.hearing.encoders.learned.runtimes import installed_choices
from musichal.hearing.encoders.learned.weights import read_weights

INSTALL = 'pip install "musichal[mert]"'


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path / "musichal-cache"))


@pytest.fixture
def mert(tiny_mert, tmp_path) -> Path:
    """A copy of the tiny checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny_mert, tmp_path / "mert"))


@pytest.fixture
def mert_bin(tmp_path) -> Path:
    pytest.importorskip("torch", reason="the extra 'mert' is not installed: no torch")
    write_random_checkpoint(tmp_path / "mert-bin", tiny=True)
    return tmp_path / "mert-bin"


def refused(*arguments: object) -> str:
    """Run `musichal encoder`, which must fail with one line and exit code 2; return the line."""
    result = CliRunner().invoke(app, ["encoder", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("musichal: ")
    return lines[0]


def change(folder: Path, file: str, **values: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_is_described_in_words_and_for_programs_without_torch(mert, monkeypatch):
    for package in ("torch", "transformers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)
    (mert / "README.md").write_text('---\nlanguage: en\nlicense: "cc-by-nc-4.0"\n---\n# A model\nlicense: mit\n')
    result = CliRunner().invoke(app, ["encoder", str(mert), "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["frame_counts"] == {"100 ms": 7, "200 ms": 14, "350 ms": 26, "500 ms": 37, "1000 ms": 74}
    known = {"name": "mert", "revision": "", "architecture": "mert", "layers": 2, "default_layer": 1, "dims": 24}
    known |= {"sample_rate_hz": 24000, "frame_samples": 400, "stride_samples": 320, "normalise": True}
    known |= {"normalise_source": "preprocessor_config.json (do_normalize: true)", "licence": "CC-BY-NC-4.0"}
    assert {name: said[name] for name in known} == known
    words = CliRunner().invoke(app, ["encoder", str(mert)]).stdout
    for text in ("CC-BY-NC-4.0", "24000 Hz", "do_normalize: true", "350 ms: 26"):
        assert text in words


def test_the_true_layout_takes_layer_6():
    assert parse_layout(MERT_CONFIG, "MERT").layers // 2 == 6
    assert len(MERT.revision) == 40
    assert MERT.licence == "CC-BY-NC-4.0"


def checked(folder: Path, *options: object) -> dict:
    result = CliRunner().invoke(app, ["encoder", str(folder), "--check", "--json", *map(str, options)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_check_passes_and_gives_the_same_features_each_time(mert, monkeypatch):
    pytest.importorskip("transformers", reason="the extra 'mert' is not installed: no transformers")
    monkeypatch.setattr(check, "installed_choices", tuple)  # the runtimes have their own test, below
    first, again = checked(mert, "--layer", 2), checked(mert, "--layer", 2)
    assert first == again
    assert first["passed"] is True
    assert first["features"]["shape"] == [74, 24]
    wanted = {"weights": None, "frame counts": True, "same as transformers": True, "hears": True, "quiet input": True}
    assert {f["name"]: f["passed"] for f in first["findings"]} == wanted
    words = CliRunner().invoke(app, ["encoder", str(mert), "--check"])
    assert words.exit_code == 0
    assert "same as transformers" in words.stdout


def test_check_holds_every_runtime_here_against_torch(mert):
    for package in ("transformers", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"the extra 'mert' is not installed: no {package}")
    found = {f["name"]: f for f in checked(mert)["findings"]}
    runtimes = [str(choice) for choice in installed_choices()]
    assert runtimes
    for name in runtimes:
        assert found[name]["passed"] is True or not name.endswith("fp32")
        assert re.fullmatch(r"least cosine of a frame to torch \d\.\d+; SHA-256 [0-9a-f]{64}", found[name]["found"])


def test_check_fails_where_the_network_hears_nothing(mert):
    """All weights of the first convolution zero: features are the same, whatever sounds."""
    pytest.importorskip("transformers", reason="the extra 'mert' is not installed: no transformers")
    tensors = safetensors.numpy.load_file(mert / "model.safetensors")
    tensors["feature_extractor.conv_layers.0.conv.weight"][:] = 0
    safetensors.numpy.save_file(tensors, mert / "model.safetensors", {"format": "pt"})
    result = CliRunner().invoke(app, ["encoder", str(mert), "--check"])
    assert result.exit_code == 1
    assert "does not do here what it should: hears" in result.stderr


# --- folders that are not what they should be -------------------------------------------------------------------------


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    assert "has no config.json" in refused(tmp_path / "empty")
    assert "is not a folder: name the folder that has config.json" in refused(tmp_path / "file")
    for name in (tmp_path / "missing", "nothing here", "a/b/c", "../x", "~nobody/x", "hf:", "hf:bell\a/x"):
        assert "there is no folder" in refused(name)
    (tmp_path / "empty" / "config.json").write_text(json.dumps(MERT_CONFIG))
    assert "has no preprocessor_config.json" in refused(tmp_path / "empty")
    assert "--layer says which layer --check looks at" in refused(tmp_path / "empty", "--layer", "1")


CONFIGS = [
    ({"model_type": "bert"}, "is not a MERT, HuBERT or wav2vec 2.0 checkpoint: its model_type is 'bert'"),
    ({"model_type": None}, "its model_type is None"),
    ({"model_type": ["mert_model"]}, "its model_type is ['mert_model']"),
    ({"feature_extractor_cqt": True}, "its CQT branch is on"),
    ({"deepnorm": True}, "deepnorm is on"),
    ({"attention_relax": 32.0}, "attention_relax is on (32.0)"),
    ({"attention_relax": "no"}, "attention_relax is on"),
    ({"conv_pos_batch_norm": True}, "its position convolution has a batch norm"),
    ({"add_adapter": True}, "it has an adapter"),
    ({"adapter_attn_dim": 16}, "it has adapters in its layers"),
    ({"hidden_act": "relu"}, "its hidden_act is not gelu"),
    ({"feat_extract_norm": "batch"}, "feat_extract_norm is 'batch'"),
    ({"hidden_size": 10**9}, "hidden_size must be a whole number from 1 to 8192, not 1000000000"),
    ({"hidden_size": 10**4000}, "hidden_size must be"),
    ({"hidden_size": True}, "hidden_size must be"),
    ({"hidden_size": "768"}, "hidden_size must be"),
    ({"num_hidden_layers": 10**6}, "num_hidden_layers must be"),
    ({"num_hidden_layers": 0}, "num_hidden_layers must be"),
    ({"intermediate_size": -1}, "intermediate_size must be"),
    ({"conv_dim": [10**9] * 7}, "conv_dim must be"),
    ({"conv_dim": [1] * 100_000}, "conv_dim must be"),
    ({"conv_dim": {}}, "conv_dim must be"),
    ({"conv_stride": [5, 2]}, "differ in length"),
    ({"conv_stride": [64] * 7}, "cannot be loaded: frames of"),
    ({"num_attention_heads": 5}, "does not part into 5 heads"),
    ({"layer_norm_eps": float("nan")}, "layer_norm_eps must be"),
    ({"conv_bias": 0}, "conv_bias must be true or false"),
    ({"sample_rate": 16000}, "its files differ in the sample rate, 16000 in config.json and 24000 in preprocessor_config.json"),
    ({"sample_rate": 10**9}, "its sample rate must be from 8000 to 96000 Hz"),
    ({"hidden_size": 8192, "num_hidden_layers": 128, "num_attention_heads": 8}, "is cut short, or of another network"),
    ({"num_hidden_layers": 3}, "is cut short, or of another network|lacks encoder.layers.2"),
    ({"num_hidden_layers": 1}, "has encoder.layers.1.attention.k_proj.bias and 15 more besides"),
]


@pytest.mark.parametrize(("values", "words"), CONFIGS, ids=[str(values)[:40] for values, _ in CONFIGS])
def test_a_config_that_cannot_be_loaded(mert, values, words):
    path = mert / "config.json"
    changed = {**json.loads(path.read_text()), **values}
    sys.set_int_max_str_digits(0)
    path.write_text(json.dumps(changed))
    tracemalloc.start()
    try:
        line = refused(mert)
        assert tracemalloc.get_traced_memory()[1] < 16e6  # no memory for what is only claimed
    finally:
        tracemalloc.stop()
        sys.set_int_max_str_digits(4300)
    assert any(word in line for word in words.split("|")), line


PREPROCESSORS = [
    ({"feature_extractor_type": "WhisperFeatureExtractor"}, "it does not take plain samples"),
    ({"feature_size": 80}, "asks for Wav2Vec2FeatureExtractor of size 80"),
    ({"do_normalize": "yes"}, "do_normalize in its preprocessor_config.json must be true or false"),
    ({"sampling_rate": 44100}, "its files differ in the sample rate, 24000 in config.json and 44100"),
    ({"sampling_rate": "24k"}, "its sample rate must be"),
]


@pytest.mark.parametrize(("values", "words"), PREPROCESSORS)
def test_a_preprocessor_that_asks_for_something_else(mert, values, words):
    change(mert, "preprocessor_config.json", **values)
    assert words in refused(mert)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"[" * 100_000, b"NaN"])
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_a_small_file_that_is_no_table(mert, file, content):
    (mert / file).write_bytes(content)
    assert "is not JSON" in (line := refused(mert)) or "is not a table" in line


def test_a_config_that_is_too_large(mert):
    (mert / "config.json").write_bytes(b" " * (1 << 20) + b"{}")
    assert "larger than 1 MB" in refused(mert)


def test_no_weights_and_weights_in_parts(mert):
    (mert / "model.safetensors").unlink()
    assert "has no weights, none of model.safetensors and pytorch_model.bin" in refused(mert)
    (mert / "pytorch_model.bin.index.json").write_text("{}")
    assert "weights in parts (pytorch_model.bin.index.json) are not read" in refused(mert)


def test_a_normalisation_that_is_left_out_is_the_default_and_recorded(mert):
    path = mert / "preprocessor_config.json"
    values = json.loads(path.read_text())
    del values["do_normalize"]
    path.write_text(json.dumps(values))
    checkpoint = find_checkpoint(str(mert))
    assert checkpoint.normalise
    assert checkpoint.normalise_source == "preprocessor_config.json (do_normalize left out, so true)"


# --- weights that are damaged or of something else --------------------------------------------------------------------


def of_nan(tensors: dict) -> None:
    tensors["encoder.layers.1.attention.q_proj.weight"][3, 4] = np.nan


def of_infinity(tensors: dict) -> None:
    tensors["encoder.layer_norm.bias"][0] = np.inf


def lacking(tensors: dict) -> None:
    del tensors["feature_projection.projection.bias"]


def with_one_more(tensors: dict) -> None:
    tensors["encoder.layers.0.extra.weight"] = np.zeros(3, np.float32)


def with_a_head(tensors: dict) -> None:
    tensors["lm_head.weight"] = np.zeros((3, 24), np.float32)


def of_another_shape(tensors: dict) -> None:
    tensors["encoder.layer_norm.weight"] = np.ones(25, np.float32)


def of_whole_numbers(tensors: dict) -> None:
    tensors["encoder.layer_norm.weight"] = np.ones(24, np.int64)


def named_twice(tensors: dict) -> None:
    name = "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    tensors[name] = tensors["encoder.pos_conv_embed.conv.weight_g"]


DAMAGES: list[tuple[Callable[[dict], None], str]] = [
    (of_nan, "has values that are not finite"),
    (of_infinity, "encoder.layer_norm.bias has values that are not finite"),
    (lacking, "it lacks feature_projection.projection.bias"),
    (with_one_more, "it has encoder.layers.0.extra.weight besides"),
    (with_a_head, "it has lm_head.weight besides"),
    (of_another_shape, "encoder.layer_norm.weight is "),
    (of_whole_numbers, "encoder.layer_norm.weight is "),
    (named_twice, "it has encoder.pos_conv_embed.conv."),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_tensors_in_safetensors(mert, damage, words):
    tensors = safetensors.numpy.load_file(mert / "model.safetensors")
    damage(tensors)
    safetensors.numpy.save_file(tensors, mert / "model.safetensors")
    line = refused(mert)
    assert words.removesuffix("weight is ") in line
    assert not (mert.parent / "musichal-cache").exists()  # what was refused is not remembered


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_tensors_in_a_bin(mert_bin, damage, words):
    import torch

    tensors = {n: t.numpy() for n, t in torch.load(mert_bin / "pytorch_model.bin", weights_only=True, mmap=False).items()}
    damage(tensors)
    torch.save({n: torch.from_numpy(a) for n, a in tensors.items()}, mert_bin / "pytorch_model.bin")
    line = refused(mert_bin)
    assert words in line
    assert not (mert_bin.parent / "musichal-cache").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.95, 0.9999])
def test_weights_that_are_cut_short(mert, mert_bin, share):
    for folder, file in ((mert, "model.safetensors"), (mert_bin, "pytorch_model.bin")):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(share * len(content))])
        assert "cut short" in refused(folder)


def test_half_precision_is_read_and_bfloat16_is_named(mert, mert_bin):
    import torch

    tensors = safetensors.numpy.load_file(mert / "model.safetensors")
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    safetensors.numpy.save_file(half, mert / "model.safetensors")
    of_half = find_checkpoint(str(mert)).digest
    # Digests are of values: the same numbers in float32 are the same checkpoint.
    safetensors.numpy.save_file({n: a.astype(np.float32) for n, a in half.items()}, mert / "model.safetensors")
    assert find_checkpoint(str(mert)).digest == of_half
    torch.save({n: torch.from_numpy(a) for n, a in half.items()}, mert_bin / "pytorch_model.bin")
    assert find_checkpoint(str(mert_bin)).digest == of_half
    from safetensors.torch import save_file

    save_file({n: torch.from_numpy(a).to(torch.bfloat16) for n, a in tensors.items()}, mert / "model.safetensors")
    assert "is BF16, not F16, F32 or F64" in refused(mert)


# --- files that would run something -----------------------------------------------------------------------------------


class Bomb:
    """What a pickle can do: call any function with any arguments, while it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def archived(path: Path, table: bytes) -> None:
    """Write a file as torch.save does, around a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", table)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(200_000))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("wrap", [lambda bomb: bomb, lambda bomb: {"weight": bomb}, lambda bomb: [1, (bomb,)]])
def test_a_pickle_that_carries_code_is_refused_and_nothing_ran(mert_bin, tmp_path, protocol, wrap):
    mark = tmp_path / "it-ran"
    table = pickle.dumps(wrap(Bomb(mark)), protocol)
    pickle.loads(table)  # noqa: S301 - the proof that it would run
    assert mark.is_dir()
    mark.rmdir()
    archived(mert_bin / "pytorch_model.bin", table)
    line = refused(mert_bin)
    assert "is refused: it carries code" in line
    assert "nothing of it was run" in line
    assert not mark.exists()
    # As a bare pickle, which older torch wrote, it is not even looked at.
    (mert_bin / "pytorch_model.bin").write_bytes(table + bytes(200_000))
    assert "before torch 1.6" in refused(mert_bin)
    assert not mark.exists()


def test_code_that_torch_itself_would_save(mert_bin, tmp_path):
    import torch

    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(100_000), "bomb": Bomb(tmp_path / "it-ran")}, stream)
    (mert_bin / "pytorch_model.bin").write_bytes(stream.getvalue())
    assert "it carries code (posix.mkdir)" in refused(mert_bin).replace("nt.mkdir", "posix.mkdir")
    assert not (tmp_path / "it-ran").exists()


def as_of_2023(path: Path) -> None:
    """Rewrite a file of torch.save as torch 1 wrote it, by which MERT was published: fewer records, nothing aligned."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename.partition("/")[2]: archive.read(entry) for entry in archive.infolist()}
    assert {"byteorder", ".format_version"} <= records.keys()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            if name in ("data.pkl", "version") or name.startswith("data/"):
                archive.writestr(f"archive/{name}", content)


def test_a_bin_of_2023_is_read(mert_bin):
    """In the three forms that a table of tensors had then: plain, with the versions of modules beside it, of parameters."""
    import torch

    path = mert_bin / "pytorch_model.bin"
    before = find_checkpoint(str(mert_bin)).digest
    tensors = torch.load(path, weights_only=True, mmap=False)
    with_versions = OrderedDict(tensors)
    with_versions._metadata = torch.nn.Linear(2, 2).state_dict()._metadata
    for table in (tensors, with_versions, {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}):
        torch.save(table, path)
        as_of_2023(path)
        assert find_checkpoint(str(mert_bin)).digest == before


def test_a_whole_saved_model_is_code_too(mert_bin):
    import torch

    stream = io.BytesIO()
    torch.save(torch.nn.Linear(300, 300), stream)
    (mert_bin / "pytorch_model.bin").write_bytes(stream.getvalue())
    assert "it carries code (torch.nn.modules.linear.Linear)" in refused(mert_bin)


def test_other_zips_and_old_formats(mert_bin):
    import torch

    path = mert_bin / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True, mmap=False)
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert "before torch 1.6" in refused(mert_bin)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2), zipfile.ZIP_DEFLATED)
        archive.writestr("archive/data/0", bytes(200_000))
    assert "it is compressed" in refused(mert_bin)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("filler", bytes(200_000))
    assert "it is not what torch.save writes" in refused(mert_bin)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("b/data.pkl", bytes(200_000))
    assert "it is not what torch.save writes" in refused(mert_bin)
    archived(path, b"\x80\x02not a pickle")
    assert "its table of tensors cannot be read" in refused(mert_bin)
    torch.save(torch.zeros(100_000), path)
    assert "it is not a table of named tensors" in refused(mert_bin)


def outcome(work: Callable[[], Any]) -> tuple[str, Any]:
    """Return the words of a refusal, or "" and what came out."""
    try:
        return "", work()
    except InputError as error:
        return str(error) or "a refusal without words\n", None


def damaged(content: bytes, places: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, value in places:
        changed[place % len(content)] = value
    return bytes(changed)


# Where the table of tensors is: at the head of safetensors, at the head and the tail of a zip.
PLACES = st.lists(st.tuples(st.integers(-6000, 8000), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_no_damage_gives_anything_but_a_refusal(tmp_path, file):
    """Bytes of the tables changed: the file is refused in our words, or it still holds every tensor in its shape."""
    if file.endswith(".bin"):
        pytest.importorskip("torch", reason="the extra 'mert' is not installed: no torch")
    write_random_checkpoint(tmp_path / "whole", tiny=True, safe=file.endswith(".safetensors"))
    layout = parse_layout(json.loads((tmp_path / "whole" / "config.json").read_text()), "tiny")
    content, refusals = (tmp_path / "whole" / file).read_bytes(), []

    @given(places=PLACES)
    def any_damage(places: list[tuple[int, int]]) -> None:
        path = tmp_path / file
        path.write_bytes(damaged(content, places))
        refusal, tensors = outcome(lambda: read_weights(path, layout))
        assert "\n" not in refusal
        assert refusal or {name: array.shape for name, array in tensors.items()} == layout.shapes()
        refusals.append(refusal)

    any_damage()
    assert any(refusals)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=8)
)


@given(st.dictionaries(st.sampled_from(sorted(MERT_CONFIG)), JSON, max_size=4))
def test_any_config_is_a_bounded_layout_or_a_refusal(values):
    refusal, layout = outcome(lambda: parse_layout({**copy.deepcopy(MERT_CONFIG), **values}, "it"))
    assert "\n" not in refusal
    assert len(refusal) < 300
    assert refusal or len(layout.shapes()) < 3000
    assert refusal or 1 <= layout.stride_samples <= layout.frame_samples


# --- what is remembered, and packages that are not there ----------------------------------------------------------------


def test_a_bin_is_described_without_torch_once_its_digest_is_remembered(mert_bin, tmp_path, monkeypatch):
    first = find_checkpoint(str(mert_bin))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert find_checkpoint(str(mert_bin)) == first
    with pytest.raises(MissingExtraError) as raised:
        find_checkpoint(str(mert_bin), cache=tmp_path / "other")
    assert INSTALL in str(raised.value)
    assert "torch" in str(raised.value)


def test_a_damaged_or_missing_cache_costs_time_and_nothing_else(mert, tmp_path, monkeypatch):
    first = find_checkpoint(str(mert))
    (note,) = (tmp_path / "musichal-cache" / "digests").iterdir()
    note.write_text("not a digest")
    assert find_checkpoint(str(mert)) == first
    assert len(note.read_text()) == 64
    monkeypatch.setenv("MUSICHAL_CACHE", str(mert / "config.json"))  # a file: nothing can be kept there
    assert find_checkpoint(str(mert)) == first


def test_missing_packages_are_named_with_the_command_that_installs_them(mert, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert INSTALL in refused("someone/something")
    for package, other in (("transformers", "torch"), ("torch", "transformers")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, other, ModuleType(other))
        line = refused(mert, "--check")
        assert INSTALL in line
        assert f"needs {package}" in line


# --- the hub ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tiny_mert, monkeypatch):
    """A hub of our own, and the client's settings, which it reads from the environment when imported."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra 'mert' is not installed: no huggingface_hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    files = {path.name: path.read_bytes() for path in tiny_mert.iterdir()}
    files |= {"modeling_MERT.py": b"raise SystemExit", "configuration_MERT.py": b"raise SystemExit", "optimizer.pt": b"0"}
    with serve(HubByHand("someone/tiny", files)) as by_hand:
        monkeypatch.setattr(constants, "ENDPOINT", by_hand.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", by_hand.url + "/{repo_id}/resolve/{revision}/{filename}")
        yield by_hand


def test_only_the_files_that_are_read_are_fetched_and_the_licence_comes_first(hub, tmp_path):
    said: list[tuple[str, list[str]]] = []
    checkpoint = find_checkpoint("hf:someone/tiny", cache=tmp_path / "c", say=lambda text: said.append((text, hub.fetched())))
    assert sorted(hub.fetched()) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    ((text, before),) = said
    assert "someone/tiny: the licence of these weights is CC0-1.0" in text
    assert "model.safetensors" not in before
    assert (checkpoint.name, checkpoint.revision, checkpoint.licence) == ("someone/tiny", COMMIT, "CC0-1.0")
    assert checkpoint.weights_path.is_relative_to(tmp_path / "c")
    # Again: by its commit nothing is asked, by its branch only whether that has moved; and offline neither.
    hub.asked.clear()
    again = {"cache": tmp_path / "c", "say": pytest.fail}
    assert find_checkpoint("someone/tiny", revision=COMMIT, **again) == checkpoint
    assert find_checkpoint("someone/tiny", offline=True, **again) == checkpoint
    assert hub.asked == []
    assert find_checkpoint("someone/tiny", **again) == checkpoint
    assert hub.fetched() == []


def test_a_download_that_breaks_off_is_resumed(hub, tmp_path):
    hub.break_off, hub.break_above = 2, 10_000
    attempts = (outcome(lambda: find_checkpoint("someone/tiny", cache=tmp_path / "c")) for _ in range(3))
    checkpoint = next(found for refusal, found in attempts if not refusal)  # newer clients try again by themselves
    ranges = [wanted for method, path, wanted in hub.asked if method == "GET" and path.endswith("model.safetensors")]
    assert len(ranges) == 3
    assert ranges[0] == ""
    assert all(wanted.startswith("bytes=") for wanted in ranges[1:])
    assert checkpoint.weights_path.read_bytes() == hub.files["model.safetensors"]


def test_what_cannot_be_loaded_is_refused_before_its_weights_are_downloaded(hub, tmp_path):
    hub.files["config.json"] = json.dumps({**MERT_CONFIG, "feature_extractor_cqt": True}).encode()
    with pytest.raises(InputError, match="CQT branch is on"):
        find_checkpoint("someone/tiny", cache=tmp_path / "c")
    assert "model.safetensors" not in hub.fetched()


@pytest.mark.parametrize("lost", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_repository_in_another_layout(hub, tmp_path, lost):
    del hub.files[lost]
    with pytest.raises(InputError, match=f"on the hub has no.*{lost}"):
        find_checkpoint("someone/tiny", cache=tmp_path / "c")
    assert hub.fetched() == []


def test_what_the_hub_may_answer(hub, tmp_path):
    def answer(name: str = "someone/tiny", **options) -> str:
        with pytest.raises(InputError) as raised:
            find_checkpoint(name, cache=tmp_path / "c", **options)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert answer("someone/else") == "there is no someone/else on the hub, and no folder of that name here"
    assert answer(revision="gone") == "someone/tiny on the hub has no revision gone"
    for status, code, words in (
        (401, "GatedRepo", "wants its terms accepted"),
        (403, "", "the hub refused someone/tiny: status 403"),
        (500, "", "the hub cannot be reached"),
    ):
        hub.status, hub.error_code = status, code
        assert words in answer()
    assert not (tmp_path / "c" / "digests").exists()


def test_the_cache_stands_in_where_the_hub_is_down(hub, tmp_path):
    checkpoint = find_checkpoint("someone/tiny", cache=tmp_path / "c")
    hub.status = 503
    said: list[str] = []
    assert find_checkpoint("someone/tiny", cache=tmp_path / "c", say=said.append) == checkpoint
    assert f"going on with what the cache has, {COMMIT[:12]}" in said[0]


def test_known_weights_that_are_not_what_was_published_are_refused(hub, tmp_path):
    hub.name = MERT.name
    assert hub.commit == MERT.revision
    said: list[str] = []
    with pytest.raises(InputError) as raised:
        find_checkpoint(MERT.name, cache=tmp_path / "c", say=said.append)
    assert "is not what m-a-p/MERT-v1-95M published" in str(raised.value)
    assert MERT.weights_sha256 in str(raised.value)
    assert said == ["m-a-p/MERT-v1-95M: the licence of these weights is CC-BY-NC-4.0. Downloading them once (378 MB)"]
    # The revision is the known one without being named.
    assert any(MERT.revision in path for _, path, _ in hub.asked)


def test_what_was_published_is_taken_from_a_hub_that_has_it_as_a_bin_alone(hub, mert_bin, tmp_path, monkeypatch):
    """The published repository has no safetensors; its name is enough, in any case of letters, and then the network is not."""
    content = (mert_bin / "pytorch_model.bin").read_bytes()
    mine = dataclasses.replace(MERT, weights_bytes=len(content), weights_sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(known, "_KNOWN", (mine,))
    hub.name = MERT.name
    hub.files["pytorch_model.bin"] = content
    del hub.files["model.safetensors"]
    checkpoint = find_checkpoint("M-A-P/mert-v1-95m", cache=tmp_path / "c")
    assert (checkpoint.name, checkpoint.revision, checkpoint.licence) == (MERT.name, MERT.revision, "CC-BY-NC-4.0")
    assert checkpoint.digest == find_checkpoint(str(mert_bin)).digest
    assert sorted(hub.fetched()) == ["README.md", "config.json", "preprocessor_config.json", "pytorch_model.bin"]
    hub.status = 503
    assert find_checkpoint(MERT.name, offline=True, cache=tmp_path / "c") == checkpoint
    # As training and --check go on, from the links of the hub's cache; transformers' own loader does not fetch anything.
    hub.asked.clear()
    ours, theirs = load_module(checkpoint, layer=2), check.transformers_model(checkpoint)
    assert len(ours.layers) == len(theirs.encoder.layers) == 2
    assert check._weights_finding(checkpoint).found == "those of m-a-p/MERT-v1-95M"
    assert hub.asked == []


def test_a_cache_that_cannot_be_written(hub, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "hub").write_bytes(b"a file where a folder should be")
    with pytest.raises(InputError, match="in the hub's cache: "):
        find_checkpoint("someone/tiny", cache=tmp_path / "c")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "is not in the cache of this machine, and the network is switched off"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}, "the hub cannot be reached"),
    ],
)
def test_no_network_and_no_cache_is_one_line(environment, words, tmp_path):
    """As a user meets it: by the environment, in a process of its own."""
    pytest.importorskip("huggingface_hub", reason="the extra 'mert' is not installed: no huggingface_hub")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), **environment}
    command = [sys.executable, "-m", "musichal", "encoder", "m-a-p/MERT-v1-95M"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("musichal: ")
    assert words in line
    assert "name a folder that has its files" in line
    assert not list((tmp_path / "musichal-cache").rglob("*"))
