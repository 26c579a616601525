"""What a config describes: the sizes of a network of the HuBERT family, checked before anything is built.

HuBERT (Hsu et al. 2021), wav2vec 2.0 (Baevski et al. 2020) and MERT (Li et al. 2023, its CQT branch and deepnorm off) are
one computation: a stack of strided convolutions over samples, a projection, a convolution over positions, transformer
layers. What makes them differ is a few switches of the config, and what is not known here is refused, not guessed: a
wrong guess would give features that look like features.

A config is a stranger's: every size is bounded, so that a table of tensors can be made of it and held against what the
weights file really holds before any memory is asked for.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from musichal.errors import InputError

Architecture = Literal["mert", "hubert", "wav2vec2"]
Shapes = dict[str, tuple[int, ...]]

_ARCHITECTURES: dict[str, Architecture] = {"mert_model": "mert", "hubert": "hubert", "wav2vec2": "wav2vec2"}
# Switches that change the computation into one that is not built here; the value is the only one that is taken.
_MUST_BE = {
    "feature_extractor_cqt": (False, "its CQT branch is on"),
    "deepnorm": (False, "deepnorm is on"),
    "conv_pos_batch_norm": (False, "its position convolution has a batch norm"),
    "add_adapter": (False, "it has an adapter behind its layers"),
    "adapter_attn_dim": (None, "it has adapters in its layers"),
    "hidden_act": ("gelu", "its hidden_act is not gelu"),
    "feat_extract_activation": ("gelu", "its feat_extract_activation is not gelu"),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A network of the HuBERT family; every field shapes its tensors or what they compute.

    `pos_kernel` and `pos_groups` are of the position convolution; `stable` puts the norms of a layer before what they
    feed instead of behind; `conv_norm` is "group" (over time, after the first convolution) or "layer" (after each);
    `masked` says that the checkpoint holds a vector for masked frames, which nothing here uses.
    """

    architecture: Architecture
    dims: int
    layers: int
    heads: int
    inner_dims: int
    conv_dims: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    conv_bias: bool
    conv_norm: str
    projection_norm: bool
    stable: bool
    pos_kernel: int
    pos_groups: int
    norm_epsilon: float
    masked: bool

    @property
    def stride_samples(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(self.conv_strides)

    @property
    def frame_samples(self) -> int:
        """Samples that the convolutions see for one frame: the shortest input."""
        span = 1
        for kernel, stride in zip(reversed(self.conv_kernels), reversed(self.conv_strides), strict=True):
            span = (span - 1) * stride + kernel
        return span

    def digest(self) -> str:
        """Return the SHA-256 over every field, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def shapes(self) -> Shapes:
        """Return the shape of every tensor by its name in the checkpoint, in the order of the computation."""
        shapes: Shapes = {"masked_spec_embed": (self.dims,)} if self.masked else {}
        before = 1
        for number, (width, kernel) in enumerate(zip(self.conv_dims, self.conv_kernels, strict=True)):
            name = f"feature_extractor.conv_layers.{number}"
            shapes[f"{name}.conv.weight"] = (width, before, kernel)
            if self.conv_bias:
                shapes[f"{name}.conv.bias"] = (width,)
            if self.conv_norm == "layer" or number == 0:
                shapes |= _norm(f"{name}.layer_norm", width)
            before = width
        if self.projection_norm:
            shapes |= _norm("feature_projection.layer_norm", before)
        shapes |= _linear("feature_projection.projection", before, self.dims)
        shapes["encoder.pos_conv_embed.conv.bias"] = (self.dims,)
        shapes["encoder.pos_conv_embed.conv.weight_g"] = (1, 1, self.pos_kernel)
        shapes["encoder.pos_conv_embed.conv.weight_v"] = (self.dims, self.dims // self.pos_groups, self.pos_kernel)
        shapes |= _norm("encoder.layer_norm", self.dims)
        for number in range(self.layers):
            name = f"encoder.layers.{number}"
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                shapes |= _linear(f"{name}.attention.{part}", self.dims, self.dims)
            shapes |= _norm(f"{name}.layer_norm", self.dims)
            shapes |= _linear(f"{name}.feed_forward.intermediate_dense", self.dims, self.inner_dims)
            shapes |= _linear(f"{name}.feed_forward.output_dense", self.inner_dims, self.dims)
            shapes |= _norm(f"{name}.final_layer_norm", self.dims)
        return shapes


def parse_layout(config: Mapping[str, Any], where: str) -> Layout:
    """Return the layout that the values of a config.json describe; `where` names the checkpoint in messages.

    Fields that a config leaves out have the defaults of transformers' HubertConfig and Wav2Vec2Config.

    Raises
    ------
    InputError
        If it is another architecture, has a branch switched on that is not built here, or is not sensible.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _ARCHITECTURES:
        raise InputError(f"{where} is not a MERT, HuBERT or wav2vec 2.0 checkpoint: its model_type is {_brief(kind)}")
    for name, (wanted, complaint) in _MUST_BE.items():
        if config.get(name, wanted) != wanted:
            raise InputError(f"{where} cannot be loaded: {complaint} ({name} is {_brief(config[name])})")
    relax = config.get("attention_relax", -1.0)
    if isinstance(relax, bool) or not isinstance(relax, int | float) or not relax <= 0:
        raise InputError(f"{where} cannot be loaded: attention_relax is on ({_brief(relax)})")
    reader = _Reader(config, where)
    dims, heads = reader.whole("hidden_size", 768, 1, 8192), reader.whole("num_attention_heads", 12, 1, 256)
    groups = reader.whole("num_conv_pos_embedding_groups", 16, 1, 8192)
    conv_dims = reader.wholes("conv_dim", (512,) * 7, 1, 8192)
    conv_norm = config.get("feat_extract_norm", "group")
    if conv_norm not in ("group", "layer"):
        raise InputError(f"{where} cannot be loaded: feat_extract_norm is {_brief(conv_norm)}, not 'group' or 'layer'")
    layout = Layout(
        architecture=_ARCHITECTURES[kind],
        dims=dims,
        layers=reader.whole("num_hidden_layers", 12, 1, 128),
        heads=heads,
        inner_dims=reader.whole("intermediate_size", 3072, 1, 32768),
        conv_dims=conv_dims,
        conv_kernels=reader.wholes("conv_kernel", (10, 3, 3, 3, 3, 2, 2), 1, 64),
        conv_strides=reader.wholes("conv_stride", (5, 2, 2, 2, 2, 2, 2), 1, 64),
        conv_bias=reader.flag("conv_bias", False),
        conv_norm=conv_norm,
        # wav2vec 2.0 always has this norm, whatever its config says.
        projection_norm=reader.flag("feat_proj_layer_norm", True) or kind == "wav2vec2",
        stable=reader.flag("do_stable_layer_norm", False),
        pos_kernel=reader.whole("num_conv_pos_embeddings", 128, 1, 4096),
        pos_groups=groups,
        norm_epsilon=reader.number("layer_norm_eps", 1e-5, 1e-12, 1e-2),
        masked=reader.number("mask_time_prob", 0.05, 0, 1) > 0 or reader.number("mask_feature_prob", 0.0, 0, 1) > 0,
    )
    if not len(layout.conv_dims) == len(layout.conv_kernels) == len(layout.conv_strides):
        raise InputError(f"{where} cannot be loaded: conv_dim, conv_kernel and conv_stride differ in length")
    if dims % heads or dims % groups:
        raise InputError(f"{where} cannot be loaded: hidden_size {dims} does not part into {heads} heads and {groups} groups")
    if layout.stride_samples > layout.frame_samples or layout.frame_samples > 1 << 16:
        raise InputError(
            f"{where} cannot be loaded: frames of {layout.frame_samples} samples every {layout.stride_samples} samples"
        )
    return layout


@dataclass(frozen=True)
class _Reader:
    """Values of a config with their defaults and bounds."""

    config: Mapping[str, Any]
    where: str

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        value = self.config.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self._refusal(name, value, f"a whole number from {least} to {most}")
        return value

    def wholes(self, name: str, default: tuple[int, ...], least: int, most: int) -> tuple[int, ...]:
        values = self.config.get(name, default)
        fine = isinstance(values, list | tuple) and 1 <= len(values) <= 16
        if not fine or not all(type(value) is int and least <= value <= most for value in values):
            raise self._refusal(name, values, f"1 to 16 whole numbers from {least} to {most}")
        return tuple(values)

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self.config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self._refusal(name, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.config.get(name, default)
        if not isinstance(value, bool):
            raise self._refusal(name, value, "true or false")
        return value

    def _refusal(self, name: str, value: object, wanted: str) -> InputError:
        return InputError(f"{self.where} cannot be loaded: {name} must be {wanted}, not {_brief(value)}")


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _brief(value: object) -> str:
    """Return a stranger's value as text that fits a message."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
