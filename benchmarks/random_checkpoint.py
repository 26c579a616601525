"""A randomly initialised checkpoint in the layout of MERT-v1-95M on the hub, for tests, timings and parity.

    python -m benchmarks.random_checkpoint FOLDER [--tiny] [--seed N] [--format bin|safetensors]

The published weights may not be shipped, and no hub can be reached from where this is built; speed, frame counts, loading
and agreement between runtimes do not depend on what the weights have learned. What is *heard* does: tokens of random
weights are noise, and nothing musical is ever claimed from them.

The initialisation is that of the architecture before training: He for convolutions, and matrices of deviation
0.55 / sqrt(inputs), which is the usual 0.02 at 768 inputs and the same gain in a narrow network; norms and biases, which
would begin as ones and zeros, are drawn a little apart from that, else one left out would not show. It was looked at on
music: twice as wide, all frames become one vector by the sixth layer (mean cosine of neighbours 0.99), and a test on those
would pass whatever happens to the input; as it is, neighbours have 0.56 there, and a layer differs from the one before it.
"""

import argparse
import io
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from musichal.arrays import Float32
from musichal.atomic import open_atomically
from musichal.errors import InputError, MusicHalError
from musichal.hearing.encoders.checkpoint import CARD, CONFIG, PREPROCESSOR, WEIGHTS, import_extra, parse_config
from musichal.text import printable, reason

# The config of m-a-p/MERT-v1-95M, field by field.
MERT_CONFIG: dict[str, Any] = {
    "_name_or_path": "m-a-p/MERT-v1-95M",
    "activation_dropout": 0.0,
    "apply_spec_augment": True,
    "architectures": ["MERTModel"],
    "attention_dropout": 0.1,
    "attention_relax": -1.0,
    "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"},
    "bos_token_id": 1,
    "classifier_proj_size": 256,
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "ctc_loss_reduction": "sum",
    "ctc_zero_infinity": False,
    "deepnorm": False,
    "do_stable_layer_norm": False,
    "eos_token_id": 2,
    "feat_extract_activation": "gelu",
    "feat_extract_dropout": 0.0,
    "feat_extract_norm": "group",
    "feat_proj_dropout": 0.1,
    "feat_proj_layer_norm": True,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "final_dropout": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "layerdrop": 0.05,
    "mask_feature_length": 10,
    "mask_feature_min_masks": 0,
    "mask_feature_prob": 0.0,
    "mask_time_length": 10,
    "mask_time_min_masks": 2,
    "mask_time_prob": 0.05,
    "model_type": "mert_model",
    "num_attention_heads": 12,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "num_feat_extract_layers": 7,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "sample_rate": 24000,
    "tokenizer_class": "Wav2Vec2CTCTokenizer",
    "torch_dtype": "float32",
    "transformers_version": "4.24.0",
    "use_weighted_layer_sum": False,
    "vocab_size": 32,
}
TINY_SIZES: dict[str, Any] = {
    "conv_dim": [16] * 7,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_attention_heads": 3,
    "num_conv_pos_embedding_groups": 4,
    "num_conv_pos_embeddings": 16,
    "num_hidden_layers": 2,
}
MERT_PREPROCESSOR: dict[str, Any] = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0,
    "return_attention_mask": True,
    "sampling_rate": 24000,
}
_CARD = "---\nlicense: cc0-1.0\n---\n\nRandom weights in the layout of MERT-v1-95M. They have learned nothing.\n"


def write_random_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    tiny: bool = False,
    safe: bool = False,
    config: Mapping[str, Any] | None = None,
    preprocessor: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json, preprocessor_config.json, README.md and weights into a folder, which is made if need be.

    Parameters
    ----------
    folder
        Files of these names are replaced; weights of the other format are not touched.
    seed
        Equal seeds give equal tensors, in both formats.
    tiny
        Two narrow layers behind the same convolutions, instead of the true size.
    safe
        Write model.safetensors instead of pytorch_model.bin, which needs torch.
    config, preprocessor
        Fields that differ from those of MERT-v1-95M.

    Raises
    ------
    InputError
        If the config is not one that can be loaded, or the folder cannot be written.
    MissingExtraError
        If torch is needed and not installed.
    """
    values = {**MERT_CONFIG, **(TINY_SIZES if tiny else {}), **(config or {})}
    tensors = random_tensors(shapes_of(values), np.random.default_rng(seed))
    content = safetensors.numpy.save(tensors, {"format": "pt"}) if safe else _torch_file(tensors)
    files = {
        CARD: _CARD.encode(),
        PREPROCESSOR: _json({**MERT_PREPROCESSOR, **(preprocessor or {})}),
        WEIGHTS[0] if safe else WEIGHTS[1]: content,
        CONFIG: _json(values),  # last: a folder without it is not taken for a checkpoint
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {printable(folder)}: {reason(error)}") from error
    for name, data in files.items():
        with open_atomically(folder / name) as stream:
            stream.write(data)


def shapes_of(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a config's network, by its published name, in the order of the computation."""
    config = parse_config(values, "the random checkpoint")
    dims, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"masked_spec_embed": (dims,)}

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    before = 1
    for number, (width, kernel) in enumerate(zip(config["conv_dim"], config["conv_kernel"], strict=True)):
        name = f"feature_extractor.conv_layers.{number}"
        shapes[f"{name}.conv.weight"] = (width, before, kernel)
        if config["conv_bias"]:
            shapes[f"{name}.conv.bias"] = (width,)
        if config["feat_extract_norm"] == "layer" or number == 0:
            norm(f"{name}.layer_norm", width)
        before = width
    if config["feat_proj_layer_norm"]:
        norm("feature_projection.layer_norm", before)
    linear("feature_projection.projection", before, dims)
    kernel, groups = config["num_conv_pos_embeddings"], config["num_conv_pos_embedding_groups"]
    shapes["encoder.pos_conv_embed.conv.bias"] = (dims,)
    shapes["encoder.pos_conv_embed.conv.weight_g"] = (1, 1, kernel)
    shapes["encoder.pos_conv_embed.conv.weight_v"] = (dims, dims // groups, kernel)
    norm("encoder.layer_norm", dims)
    for number in range(config["num_hidden_layers"]):
        name = f"encoder.layers.{number}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear(f"{name}.attention.{part}", dims, dims)
        norm(f"{name}.layer_norm", dims)
        linear(f"{name}.feed_forward.intermediate_dense", dims, inner)
        linear(f"{name}.feed_forward.output_dense", inner, dims)
        norm(f"{name}.final_layer_norm", dims)
    return shapes


def random_tensors(shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, Float32]:
    """Return a random tensor for each name and shape of a layout, float32, drawn in the order given."""
    tensors: dict[str, Float32] = {}
    for name, shape in shapes.items():
        if name.endswith("bias") or "norm." in name:
            drawn = rng.standard_normal(shape, np.float32) * np.float32(0.05)
            tensors[name] = drawn + np.float32(0 if name.endswith("bias") else 1)
        elif name.endswith("weight_g"):
            continue  # the length of what weight_v points along: below
        elif name == "masked_spec_embed":
            tensors[name] = rng.random(shape, np.float32)
        else:
            tensors[name] = rng.standard_normal(shape, np.float32) * np.float32(_deviation(name, shape))
    for name, shape in shapes.items():
        if name.endswith("weight_g"):
            direction = tensors[name.removesuffix("g") + "v"]
            tensors[name] = np.sqrt(np.einsum("oik,oik->k", direction, direction)).astype(np.float32).reshape(shape)
    return {name: tensors[name] for name in shapes}


def _deviation(name: str, shape: tuple[int, ...]) -> float:
    if "conv_layers" in name:
        return math.sqrt(2 / math.prod(shape[1:]))
    if name.endswith("weight_v"):
        return 2 * math.sqrt(1 / (shape[2] * shape[0]))
    return 0.55 / math.sqrt(shape[1])


def _torch_file(tensors: Mapping[str, Float32]) -> bytes:
    torch = import_extra("torch", "writing pytorch_model.bin")
    stream = io.BytesIO()
    torch.save(OrderedDict((name, torch.from_numpy(array)) for name, array in tensors.items()), stream)
    return stream.getvalue()


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=2, sort_keys=True).encode()


def main() -> int:
    """Write a checkpoint as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_checkpoint", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write it")
    parser.add_argument("--tiny", action="store_true", help="two narrow layers instead of the true size (378 MB)")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal weights")
    parser.add_argument("--format", choices=("bin", "safetensors"), default="bin", help="of the weights file")
    arguments = parser.parse_args()
    try:
        write_random_checkpoint(
            arguments.folder, seed=arguments.seed, tiny=arguments.tiny, safe=arguments.format == "safetensors"
        )
    except MusicHalError as error:
        sys.stderr.write(f"musichal: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
