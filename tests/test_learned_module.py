"""What a loaded network computes: transformers' own numbers at every layer, whatever the file, the names and the level."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.random_checkpoint import MERT_CONFIG, random_tensors, write_random_checkpoint
from musichal.errors import InputError
from musichal.hearing.encoders.learned.check import frame_counts, known_signal
from musichal.hearing.encoders.learned.checkpoint import Checkpoint, find_checkpoint
from musichal.hearing.encoders.learned.layout import parse_layout
from musichal.hearing.encoders.learned.module import load_module
from musichal.hearing.encoders.learned.preprocess import normalised, prepare
from musichal.hearing.percepts import frame_count

torch = pytest.importorskip("torch", reason="the extra 'mert' is not installed: no torch")
transformers = pytest.importorskip("transformers", reason="the extra 'mert' is not installed: no transformers")

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "conv_dim": [12] * 7,
    "num_conv_pos_embeddings": 15,
    "num_conv_pos_embedding_groups": 4,
}
PREPROCESSOR = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "sampling_rate": 16000}


def found(folder: Path) -> Checkpoint:
    return find_checkpoint(str(folder), cache=folder.parent / "cache")


def run(module, samples) -> np.ndarray:
    return module(torch.from_numpy(np.atleast_2d(samples))).numpy()


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return float((np.sum(first * second, axis=-1) / norms).mean())


def hidden_states(model, samples) -> list[np.ndarray]:
    """Return transformers' own hidden states, the last one as `last_hidden_state` has it."""
    with torch.no_grad():
        output = model(torch.from_numpy(np.atleast_2d(samples)), output_hidden_states=True)
    return [state.numpy() for state in (*output.hidden_states[:-1], output.last_hidden_state)]


def published_hubert(config: dict, weights: Path, **options):
    """Load the checkpoint as the notes on MERT say that it loads: strictly, into HubertModel, by torch alone."""
    values = {k: v for k, v in config.items() if k not in ("model_type", "auto_map", "architectures", "torch_dtype")}
    model = transformers.HubertModel(transformers.HubertConfig(**values, **options)).eval()
    model.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    return model


@pytest.fixture(scope="module")
def guitar(audio_dir: Path) -> np.ndarray:
    """Two windows of a second of real guitar, (2, 24000); the rate does not matter here."""
    samples, rate = soundfile.read(audio_dir / "rock140_guitar.ogg", dtype="float32", start=12 * 44100, frames=48000)
    assert rate == 44100
    return samples.reshape(2, 24000)


@pytest.fixture(scope="module")
def mert_bin(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bin") / "mert"
    write_random_checkpoint(folder, tiny=True, config={"num_hidden_layers": 3})
    return folder


def test_every_layer_is_bit_for_bit_that_of_hubert_model(mert_bin, guitar):
    checkpoint = found(mert_bin)
    assert (checkpoint.architecture, checkpoint.layers, checkpoint.default_layer) == ("mert", 3, 1)
    config = json.loads((mert_bin / "config.json").read_text())
    model = published_hubert(config, mert_bin / "pytorch_model.bin", attn_implementation="eager")
    samples = prepare(guitar, normalise=checkpoint.normalise)
    states = hidden_states(model, samples)
    assert len(states) == 4
    for layer, state in enumerate(states):
        heard = run(load_module(checkpoint, layer=layer), samples)
        assert heard.dtype == np.float32
        assert heard.shape == (2, 74, 24)
        np.testing.assert_array_equal(heard, state, err_msg=f"layer {layer}")
        assert layer == 0 or np.abs(heard - states[layer - 1]).max() > 0.1  # the layers are not alike


def test_another_attention_of_transformers_differs_by_rounding_alone(mert_bin, guitar):
    config = json.loads((mert_bin / "config.json").read_text())
    model = published_hubert(config, mert_bin / "pytorch_model.bin", attn_implementation="sdpa")
    samples = prepare(guitar, normalise=True)
    heard = run(load_module(found(mert_bin), layer=3), samples)
    np.testing.assert_allclose(heard, hidden_states(model, samples)[3], rtol=1e-4, atol=1e-5)


def test_later_layers_are_not_there_and_the_weight_norm_is_folded(mert_bin):
    checkpoint = found(mert_bin)
    sizes = []
    for layer in range(4):
        module = load_module(checkpoint, layer=layer)
        names = [name for name, _ in module.named_parameters()]
        assert {int(name.split(".")[1]) for name in names if name.startswith("layers.")} == set(range(layer))
        assert not any("original" in name or name.endswith(("_g", "_v")) for name in names)
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        sizes.append(sum(p.numel() for p in module.parameters()))
    grown = np.diff(sizes)
    assert len(set(grown)) == 1
    assert grown[0] > 0


def test_files_of_both_formats_and_both_ways_to_name_weights_are_the_same_checkpoint(mert_bin, tmp_path, guitar):
    safe = tmp_path / "safe"
    write_random_checkpoint(safe, tiny=True, safe=True, config={"num_hidden_layers": 3})
    renamed = tmp_path / "renamed"
    shutil.copytree(safe, renamed)
    tensors = safetensors.numpy.load_file(safe / "model.safetensors")
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        tensor = tensors.pop(f"encoder.pos_conv_embed.conv.{old}")
        tensors[f"encoder.pos_conv_embed.conv.parametrizations.weight.{new}"] = tensor
    safetensors.numpy.save_file(tensors, renamed / "model.safetensors")
    checkpoints = [found(folder) for folder in (mert_bin, safe, renamed)]
    assert len({c.weights_sha256 for c in checkpoints}) == 3
    assert len({c.digest for c in checkpoints}) == 1
    first, *others = [run(load_module(c, layer=2), guitar) for c in checkpoints]
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_the_digest_moves_with_everything_that_shapes_a_feature(tiny_mert, tmp_path):
    digests = {found(tiny_mert).digest}
    changes = [
        {"seed": 1},
        {"config": {"num_attention_heads": 4}},
        {"config": {"layer_norm_eps": 1e-6}},
        {"preprocessor": {"do_normalize": False}},
        {"config": {"sample_rate": 16000}, "preprocessor": {"sampling_rate": 16000}},
    ]
    for number, change in enumerate(changes):
        write_random_checkpoint(tmp_path / str(number), tiny=True, safe=True, **change)
        digests.add(found(tmp_path / str(number)).digest)
    assert len(digests) == 1 + len(changes)
    # And not with what does not: words, training settings, where it lies.
    write_random_checkpoint(tmp_path / "same", tiny=True, safe=True, config={"layerdrop": 0.0, "transformers_version": "5"})
    assert found(tmp_path / "same").digest in digests


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("stable", [False, True])
def test_other_networks_of_the_family(kind, norm, stable, tmp_path, guitar):
    torch.manual_seed(3)
    config_class = {"hubert": transformers.HubertConfig, "wav2vec2": transformers.Wav2Vec2Config}[kind]
    model_class = {"hubert": transformers.HubertModel, "wav2vec2": transformers.Wav2Vec2Model}[kind]
    options = {"feat_extract_norm": norm, "do_stable_layer_norm": stable, "conv_bias": norm == "layer"}
    model = model_class(config_class(**SMALL, **options, attn_implementation="eager")).eval()
    with torch.no_grad():  # as drawn, norms are identities and biases zero: an omission would not show
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / kind)
    (tmp_path / kind / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    checkpoint = found(tmp_path / kind)
    assert (checkpoint.architecture, checkpoint.sample_rate_hz, checkpoint.licence) == (kind, 16000, "not stated")
    samples = prepare(guitar, normalise=True)
    for layer, state in enumerate(hidden_states(model, samples)):
        np.testing.assert_array_equal(run(load_module(checkpoint, layer=layer), samples), state, err_msg=f"layer {layer}")


@pytest.mark.parametrize(
    "name", ["Wav2Vec2ForCTC", "Wav2Vec2ForPreTraining", "HubertForCTC", "HubertForSequenceClassification"]
)
def test_a_model_with_a_head_is_loaded_without_it(name, tmp_path, guitar):
    torch.manual_seed(4)
    config_class = transformers.HubertConfig if name.startswith("Hubert") else transformers.Wav2Vec2Config
    model = getattr(transformers, name)(config_class(**SMALL, attn_implementation="eager")).eval()
    model.save_pretrained(tmp_path / "headed")
    (tmp_path / "headed" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    state = hidden_states(model.base_model, guitar)[2]
    np.testing.assert_array_equal(run(load_module(found(tmp_path / "headed"), layer=2), guitar), state)


def test_frame_counts_are_those_of_the_formula_at_every_length(tiny_mert):
    checkpoint = found(tiny_mert)
    assert frame_counts(checkpoint) == {100: 7, 200: 14, 350: 26, 500: 37, 1000: 74}
    module = load_module(checkpoint, layer=0)
    for n in (400, 719, 720, 2400, 4800, 8399, 8400, 8719, 8720, 12000, 24000):
        assert run(module, known_signal(24000)[:n]).shape[1] == frame_count(n)


def test_normalisation_is_that_of_transformers(guitar):
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=24000, do_normalize=True)
    theirs = extractor(list(guitar), sampling_rate=24000, return_tensors="np").input_values
    np.testing.assert_allclose(normalised(guitar), theirs, rtol=1e-5, atol=1e-5)
    plain = transformers.Wav2Vec2FeatureExtractor(sampling_rate=24000, do_normalize=False)
    theirs = plain(list(guitar), sampling_rate=24000, return_tensors="np").input_values
    np.testing.assert_array_equal(prepare(guitar, normalise=False), theirs)


@given(
    samples=arrays(np.float32, (2, 50), elements=st.floats(-1, 1, width=32)),
    offset=st.floats(-1, 1, width=32),
)
def test_normalised_windows_are_finite_centred_and_each_its_own(samples, offset):
    result = normalised(samples)
    assert np.isfinite(result).all()
    assert np.abs(result.mean(axis=1, dtype=np.float64)).max() < 1e-6
    assert (result.var(axis=1, dtype=np.float64) < 1.0001).all()
    np.testing.assert_array_equal(result[1], normalised(samples[1]))
    assert not normalised(np.full((2, 50), offset, np.float32)).any()  # a constant, exactly


def test_level_silence_and_offset_with_normalisation(tiny_mert, guitar):
    checkpoint = found(tiny_mert)
    assert checkpoint.normalise
    module = load_module(checkpoint, layer=2)
    window = guitar[0, :8400]
    heard = run(module, normalised(window))
    for gain_db in (-40, -20, 6):
        assert cosine(run(module, normalised(window * np.float32(10 ** (gain_db / 20)))), heard) > 0.999, gain_db
    assert cosine(run(module, normalised(window + np.float32(0.05))), heard) > 0.9999
    silence = run(module, normalised(np.zeros(8400, np.float32)))
    assert np.isfinite(silence).all()
    np.testing.assert_array_equal(silence, run(module, normalised(np.full(8400, 0.05, np.float32))))
    assert cosine(silence, heard) < 0.9  # silence has features of its own, the gate is what keeps them from being tokens


def test_level_silence_and_offset_without_normalisation(tmp_path, guitar):
    """A plain level change moves features, because the first norm adds a constant to the variance: 40 dB are too much."""
    write_random_checkpoint(tmp_path / "plain", tiny=True, safe=True, preprocessor={"do_normalize": False})
    checkpoint = found(tmp_path / "plain")
    assert not checkpoint.normalise
    assert checkpoint.normalise_source == "preprocessor_config.json (do_normalize: false)"
    module = load_module(checkpoint, layer=2)
    window = guitar[0, :8400]
    heard = run(module, window)
    quiet = cosine(run(module, window * np.float32(0.01)), heard)
    assert quiet < 0.9
    assert cosine(run(module, window * np.float32(0.5)), heard) > 0.999
    assert cosine(run(module, window + np.float32(0.05)), heard) > 0.99
    silence = run(module, np.zeros(8400, np.float32))
    assert np.isfinite(silence).all()


def test_a_batch_gives_each_window_its_own_features(tiny_mert, guitar):
    module = load_module(found(tiny_mert), layer=2)
    both = run(module, guitar)
    for row in range(2):
        np.testing.assert_allclose(both[row], run(module, guitar[row])[0], rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_not_there_is_refused(tiny_mert):
    for layer in (-1, 3):
        with pytest.raises(InputError, match=r"has layers 0 to 2, not"):
            load_module(found(tiny_mert), layer=layer)


def test_weights_that_change_after_they_were_found_are_refused(tmp_path):
    write_random_checkpoint(tmp_path / "mert", tiny=True, safe=True)
    checkpoint = found(tmp_path / "mert")
    write_random_checkpoint(tmp_path / "mert", tiny=True, safe=True, seed=1)
    with pytest.raises(InputError, match="changed since it was looked at"):
        load_module(checkpoint, layer=1)


def test_the_layout_of_the_true_size_is_that_of_the_published_weights():
    shapes = parse_layout(MERT_CONFIG, "MERT").shapes()
    assert len(shapes) == 211
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 94_371_712
    with torch.device("meta"):
        model = transformers.HubertModel(transformers.HubertConfig(conv_bias=False, feat_extract_norm="group"))
    theirs = {
        name.replace("parametrizations.weight.original0", "weight_g"): value for name, value in model.state_dict().items()
    }
    theirs = {name.replace("parametrizations.weight.original1", "weight_v"): value for name, value in theirs.items()}
    assert {name: tuple(value.shape) for name, value in theirs.items()} == shapes


def test_random_weights_repeat_and_do_not_collapse(tiny_mert, guitar):
    shapes = parse_layout(json.loads((tiny_mert / "config.json").read_text()), "tiny").shapes()
    first, again, other = (random_tensors(shapes, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(first[name], again[name]) for name in shapes)
    assert not np.array_equal(
        first["encoder.layers.0.attention.k_proj.weight"], other["encoder.layers.0.attention.k_proj.weight"]
    )
    heard = run(load_module(found(tiny_mert), layer=2), normalised(guitar))
    assert cosine(heard[:, 1:], heard[:, :-1]) < 0.8
    assert cosine(heard[0], heard[1]) < 0.8
