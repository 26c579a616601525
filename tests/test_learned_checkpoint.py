"""Checkpoints from folders and from a hub: what is read, what is refused and in which words, and that no code runs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.random_checkpoint import MERT_CONFIG, shapes_of, write_random_checkpoint
from hub_by_hand import COMMIT, HubByHand, serve
from learned_by_hand import EXTRA
from musichal.cli import app
from musichal.errors import InputError, MissingExtraError
from musichal.hearing.encoders.checkpoint import MERT, find_checkpoint, parse_config
from musichal.hearing.encoders.conversion import load_module

INSTALL = 'pip install "musichal[mert]"'


@pytest.fixture
def mert(tiny_mert, tmp_path) -> Path:
    """A copy of the tiny checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny_mert, tmp_path / "mert"))


def refused(*arguments: object) -> str:
    """Run `musichal encoder`, which must fail with one line and exit code 2; return the line."""
    result = CliRunner().invoke(app, ["encoder", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("musichal: ")
    return line


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
    for text in ("CC-BY-NC-4.0", "24000", "do_normalize: true"):
        assert text in words


def test_the_published_weights_have_the_tensors_of_the_true_size():
    shapes = shapes_of(MERT_CONFIG)
    assert len(shapes) == 211
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 94_371_712
    assert len(MERT.revision) == 40
    assert MERT.licence == "CC-BY-NC-4.0"


def test_the_digest_moves_with_everything_that_shapes_a_feature(tiny_mert, tmp_path):
    digests = {find_checkpoint(str(tiny_mert)).digest}
    changes = [
        {"seed": 1},
        {"config": {"num_attention_heads": 4}},
        {"config": {"layer_norm_eps": 1e-6}},
        {"preprocessor": {"do_normalize": False}},
        {"config": {"sample_rate": 16000}, "preprocessor": {"sampling_rate": 16000}},
    ]
    for number, changed in enumerate(changes):
        write_random_checkpoint(tmp_path / str(number), tiny=True, safe=True, **changed)
        digests.add(find_checkpoint(str(tmp_path / str(number))).digest)
    assert len(digests) == 1 + len(changes)
    # And not with what does not: words, training settings, where it lies.
    write_random_checkpoint(tmp_path / "same", tiny=True, safe=True, config={"layerdrop": 0.0, "transformers_version": "5"})
    assert find_checkpoint(str(tmp_path / "same")).digest in digests


# --- folders that are not what they should be


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    assert "has no config.json" in refused(tmp_path / "empty")
    assert "is not a folder: name the folder that has config.json" in refused(tmp_path / "file")
    for name in (tmp_path / "missing", "nothing here", "a/b/c", "../x", "~nobody/x", "hf:", "hf:bell\a/x"):
        assert "there is no folder" in refused(name)
    (tmp_path / "empty" / "config.json").write_text(json.dumps(MERT_CONFIG))
    assert "has no preprocessor_config.json" in refused(tmp_path / "empty")
    assert "--layer needs --check or --convert" in refused(tmp_path / "empty", "--layer", "1")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "bert"}, "is not a MERT, HuBERT or wav2vec 2.0 checkpoint: its model_type is 'bert'"),
        ({"model_type": ["mert_model"]}, "its model_type is ['mert_model']"),
        ({"feature_extractor_cqt": True}, "feature_extractor_cqt must be false"),
        ({"deepnorm": True}, "deepnorm must be false"),
        ({"attention_relax": 32.0}, "attention_relax must be off"),
        ({"attention_relax": "no"}, "attention_relax must be off"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm must be false"),
        ({"add_adapter": True}, "add_adapter must be false"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim must be none"),
        ({"hidden_act": "relu"}, "hidden_act must be gelu"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm must be group or layer, got 'batch'"),
        ({"hidden_size": 10**9}, "hidden_size must be a whole number in [1, 8192], got 1000000000"),
        ({"hidden_size": True}, "hidden_size must be"),
        ({"hidden_size": "768"}, "hidden_size must be"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be"),
        ({"conv_dim": [10**9] * 7}, "conv_dim must be"),
        ({"conv_dim": [1] * 100_000}, "conv_dim must be"),
        ({"conv_stride": [5, 2]}, "differ in length"),
        ({"conv_stride": [64] * 7}, "samples apart"),
        ({"num_attention_heads": 5}, "num_attention_heads must be a divisor of hidden_size, 24, got 5"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps must be"),
        ({"conv_bias": 0}, "conv_bias must be false or true"),
        ({"sample_rate": 16000}, "its files differ in the sample rate, 16000 and 24000 Hz"),
        ({"sample_rate": 10**9}, "its sample rate must be in [8000, 96000] Hz"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_loaded(mert, values, words):
    change(mert, "config.json", **values)
    assert words in refused(mert)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "does not ask for plain samples"),
        ({"feature_size": 80}, "does not ask for plain samples"),
        ({"do_normalize": "yes"}, "do_normalize in its preprocessor_config.json must be true or false"),
        ({"sampling_rate": "24k"}, "its sample rate must be"),
    ],
)
def test_a_preprocessor_that_asks_for_something_else(mert, values, words):
    change(mert, "preprocessor_config.json", **values)
    assert words in refused(mert)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"[" * 100_000, b"NaN", b" " * (1 << 20) + b"{}"])
def test_a_small_file_that_is_no_table(mert, content):
    for file in ("preprocessor_config.json", "config.json"):
        (mert / file).write_bytes(content)
        assert any(words in refused(mert) for words in ("is not JSON", "is not a table", "larger than 1 MB"))


def test_no_weights_and_a_normalisation_that_is_left_out(mert):
    path = mert / "preprocessor_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "do_normalize"}))
    checkpoint = find_checkpoint(str(mert))
    assert checkpoint.normalise
    assert checkpoint.normalise_source == "preprocessor_config.json (do_normalize left out, so true)"
    (mert / "model.safetensors").unlink()
    assert "has no weights: needs model.safetensors or pytorch_model.bin" in refused(mert)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=8)
)


@given(st.dictionaries(st.sampled_from(sorted(MERT_CONFIG)), JSON, max_size=4))
def test_any_config_is_bounded_or_a_refusal(values):
    refusal, config = "", {"hidden_size": 1}
    try:
        config = parse_config({**MERT_CONFIG, **values}, "it")
    except InputError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) < 300
    assert config["hidden_size"] <= 8192


# --- weights that are damaged, of something else, or run something


def with_tensors(change):
    def damage(folder: Path) -> None:
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        change(tensors)
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")

    return damage


def cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (with_tensors(lambda t: t["encoder.layer_norm.bias"].__setitem__(0, np.inf)), "encoder.layer_norm.bias has values"),
        (with_tensors(lambda t: t.pop("feature_projection.projection.bias")), "lacks feature_projection.projection.bias"),
        (with_tensors(lambda t: t.update({"encoder.layers.0.x": np.ones(3, np.float32)})), "has also encoder.layers.0.x"),
        (with_tensors(lambda t: t.update({"lm_head.weight": np.ones(3, np.float32)})), "has also lm_head.weight"),
        (with_tensors(lambda t: t.update({"encoder.layer_norm.weight": np.ones(25, np.float32)})), "encoder.layer_norm.weight"),
        (with_tensors(lambda t: t.update({"encoder.layer_norm.weight": np.ones(24, np.int64)})), "floating-point tensors"),
        (cut_short, "is damaged, cut short"),
        (lambda folder: change(folder, "config.json", num_hidden_layers=3), "lacks encoder.layers.2."),
        (lambda folder: change(folder, "config.json", num_hidden_layers=1), "has also encoder.layers.1."),
        (lambda folder: change(folder, "config.json", hidden_size=8184, intermediate_size=32768), "does not fit its config"),
    ],
    ids=["inf", "lacking", "extra", "head", "shape", "integers", "cut", "more layers", "fewer layers", "huge"],
)
def test_weights_are_loaded_strictly(mert, damage, words):
    pytest.importorskip("torch", reason=EXTRA)
    damage(mert)
    line = refused(mert, "--check", "--layer", 1)
    assert words in line


class Bomb:
    """What a pickle can do: call any function with any arguments, while it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def test_a_bin_gives_the_same_network_and_its_code_is_not_run(tiny_mert, tmp_path):
    torch = pytest.importorskip("torch", reason=EXTRA)
    folder, mark = tmp_path / "bin", tmp_path / "it-ran"
    write_random_checkpoint(folder, tiny=True)
    samples = torch.randn(1, 2400)
    safe, pickled = (load_module(find_checkpoint(str(f)), layer=1)(samples) for f in (tiny_mert, folder))
    assert torch.equal(safe, pickled)
    for content in ({"weight": torch.zeros(100), "bomb": Bomb(mark)}, Bomb(mark), torch.nn.Linear(3, 3), torch.zeros(9)):
        torch.save(content, folder / "pytorch_model.bin")
        line = refused(folder, "--check")
        assert "carries code" in line or "is not a table of named" in line
        assert not mark.exists()


def test_missing_packages_are_named_with_the_command_that_installs_them(mert, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert INSTALL in refused("someone/something")
    monkeypatch.setitem(sys.modules, "torch", None)
    line = refused(mert, "--check")
    assert INSTALL in line
    assert "needs torch" in line
    with pytest.raises(MissingExtraError):
        load_module(find_checkpoint(str(mert)), layer=1)


# --- the hub


@pytest.fixture
def hub(tiny_mert, monkeypatch):
    """A hub of our own, and the client's settings, which it reads from the environment when imported."""
    constants = pytest.importorskip("huggingface_hub.constants", reason=EXTRA)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    files = {path.name: path.read_bytes() for path in tiny_mert.iterdir()}
    files |= {"modeling_MERT.py": b"raise SystemExit", "optimizer.pt": b"0"}
    with serve(HubByHand("someone/tiny", files)) as by_hand:
        monkeypatch.setattr(constants, "ENDPOINT", by_hand.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", by_hand.url + "/{repo_id}/resolve/{revision}/{filename}")
        yield by_hand


def test_only_the_files_that_are_read_are_fetched_and_the_licence_comes_first(hub, tmp_path):
    said: list[tuple[str, list[str]]] = []
    where = {"hub_cache": tmp_path / "c"}
    checkpoint = find_checkpoint("hf:someone/tiny", say=lambda text: said.append((text, hub.fetched())), **where)
    assert sorted(hub.fetched()) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    ((text, before),) = said
    assert "someone/tiny: the licence of these weights is CC0-1.0" in text
    assert "model.safetensors" not in before
    assert (checkpoint.name, checkpoint.revision, checkpoint.licence) == ("someone/tiny", COMMIT, "CC0-1.0")
    # Again: by its commit nothing is asked, nor offline; and where the hub is down, its cache stands in.
    hub.asked.clear()
    assert find_checkpoint("someone/tiny", revision=COMMIT, say=pytest.fail, **where) == checkpoint
    assert find_checkpoint("someone/tiny", offline=True, say=pytest.fail, **where) == checkpoint
    assert hub.asked == []
    hub.status = 503
    assert find_checkpoint("someone/tiny", say=pytest.fail, **where) == checkpoint


def test_what_cannot_be_loaded_is_refused_before_its_weights_are_downloaded(hub, tmp_path):
    hub.files["config.json"] = json.dumps({**MERT_CONFIG, "feature_extractor_cqt": True}).encode()
    with pytest.raises(InputError, match="feature_extractor_cqt must be false"):
        find_checkpoint("someone/tiny", hub_cache=tmp_path / "c")
    assert "model.safetensors" not in hub.fetched()


def test_what_the_hub_may_answer(hub, tmp_path):
    def answer(name: str = "someone/tiny", **options) -> str:
        with pytest.raises(InputError) as raised:
            find_checkpoint(name, hub_cache=tmp_path / "c", **options)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert answer("someone/else") == "there is no someone/else on the hub, and no folder of that name here"
    assert answer(revision="gone") == "someone/tiny on the hub has no revision gone"
    assert "is not in the cache of this machine" in answer(offline=True)
    for status, code, words in (
        (401, "GatedRepo", "wants its terms accepted"),
        (500, "", "the hub cannot be reached"),
    ):
        hub.status, hub.error_code = status, code
        assert words in answer()
    hub.status, content = 200, dict(hub.files)
    for lost, words in (("config.json", "has no config.json"), ("model.safetensors", "has none of model.safetensors")):
        hub.files = {name: data for name, data in content.items() if name != lost}
        assert words in answer()
    (tmp_path / "file").write_bytes(b"a file where a folder should be")
    with pytest.raises(InputError, match="in the hub's cache: "):
        find_checkpoint("someone/tiny", hub_cache=tmp_path / "file")


def test_published_weights_are_known_by_name_and_held_against_their_digest(hub, tmp_path, monkeypatch):
    hub.name = MERT.name
    with pytest.raises(InputError, match=f"is not what {MERT.name} published: .*{MERT.sha256}"):
        find_checkpoint(MERT.name, hub_cache=tmp_path / "c")
    assert any(MERT.revision in path for _, path, _ in hub.asked), "the revision is the known one without being named"
    sha256 = hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    monkeypatch.setattr(MERT, "sha256", sha256)
    checkpoint = find_checkpoint("M-A-P/mert-v1-95m", hub_cache=tmp_path / "c")
    assert (checkpoint.name, checkpoint.revision, checkpoint.licence) == (MERT.name, MERT.revision, "CC-BY-NC-4.0")


def test_no_network_and_no_cache_is_one_line(tmp_path):
    """As a user meets it: by the environment, in a process of its own."""
    pytest.importorskip("huggingface_hub", reason=EXTRA)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "musichal", "encoder", "m-a-p/MERT-v1-95M"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "is not in the cache of this machine" in line
    assert "name a folder that has its files" in line
