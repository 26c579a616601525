"""The part of a network that one layer's features need, as a torch module: built by transformers, loaded strictly.

Hidden state 0 is what enters the first transformer layer, k is what leaves layer k. Of the layers behind k nothing is
built, so they are neither kept nor run.
"""

from typing import TYPE_CHECKING, Any

from musichal.errors import InputError
from musichal.hearing.encoders.learned.checkpoint import Checkpoint, read_checked_weights
from musichal.hearing.encoders.learned.extras import torch_package, transformers_package
from musichal.hearing.encoders.learned.layout import Layout

if TYPE_CHECKING:
    from torch.nn import Module


def load_module(checkpoint: Checkpoint, *, layer: int) -> "Module":
    """Return a module from prepared samples to the hidden state of one layer.

    Parameters
    ----------
    checkpoint
        What `find_checkpoint` found; its weights file must not have changed since.
    layer
        0 to `checkpoint.layers`. In networks with the norm before each layer ("stable"), the last hidden state is
        behind the final norm and the others are not, as in transformers' `last_hidden_state` and `hidden_states`.

    Returns
    -------
    torch.nn.Module
        Takes (batch, samples) float32 at `checkpoint.sample_rate_hz`, prepared by `preprocess.prepare`; gives
        (batch, frames, dims) float32. It is in eval mode, wants no gradients, its weight norm is folded, and attention
        is plain matrix products (transformers' "eager"), which every runtime can convert.

    Raises
    ------
    InputError
        If the layer does not exist, or the weights cannot be loaded or are not those that were found.
    MissingExtraError
        If torch or transformers is not installed.
    """
    check_layer(checkpoint, layer)
    torch = torch_package("loading a learned encoder")
    transformers_package("loading a learned encoder")
    layout = checkpoint.layout
    weights = read_checked_weights(checkpoint)
    # Without memory or values: the weights are put in place of them, and what has none would be refused.
    with torch.device("meta"):
        model = _transformers_model(layout, layers=layer)
    kept = {name: array for name, array in weights.items() if _is_used(name, layer)}
    state = {
        name: torch.from_numpy(kept[_published(name)]).clone(memory_format=torch.contiguous_format)
        for name in model.state_dict()
    }
    if len(state) != len(kept):
        raise AssertionError("a tensor of the checkpoint has no place in the network")
    model.load_state_dict(state, strict=True, assign=True)
    torch.nn.utils.parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")
    last_norm = layout.stable and layer == layout.layers
    return _cut(model, last_norm=last_norm).eval().requires_grad_(False)


def check_layer(checkpoint: Checkpoint, layer: int) -> None:
    """Raise `InputError` where the checkpoint has no such hidden state."""
    if not 0 <= layer <= checkpoint.layers:
        raise InputError(f"{checkpoint.name} has layers 0 to {checkpoint.layers}, not {layer}")


def _is_used(name: str, layer: int) -> bool:
    parts = name.split(".")
    return parts[:2] != ["encoder", "layers"] or int(parts[2]) < layer


def _published(name: str) -> str:
    """Return the name in a published checkpoint of a parameter of transformers' models."""
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    return name.replace(".parametrizations.weight.original1", ".weight_v")


def _transformers_model(layout: Layout, *, layers: int) -> Any:
    """Return transformers' own model with the first `layers` of its layers; call it on the meta device."""
    import transformers

    values = {
        "hidden_size": layout.dims,
        "num_hidden_layers": layers,
        "num_attention_heads": layout.heads,
        "intermediate_size": layout.inner_dims,
        "conv_dim": layout.conv_dims,
        "conv_kernel": layout.conv_kernels,
        "conv_stride": layout.conv_strides,
        "conv_bias": layout.conv_bias,
        "feat_extract_norm": layout.conv_norm,
        "do_stable_layer_norm": layout.stable,
        "num_conv_pos_embeddings": layout.pos_kernel,
        "num_conv_pos_embedding_groups": layout.pos_groups,
        "layer_norm_eps": layout.norm_epsilon,
        "mask_time_prob": 0.05 if layout.masked else 0.0,
        "mask_feature_prob": 0.0,
        "attn_implementation": "eager",
    }
    if layout.architecture == "wav2vec2":
        return transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**values))
    return transformers.HubertModel(transformers.HubertConfig(feat_proj_layer_norm=layout.projection_norm, **values))


def _cut(model: Any, *, last_norm: bool) -> "Module":
    """Return the parts of a model of transformers as one module without masks, dropout and options."""
    from torch import Tensor, nn

    stable = bool(model.config.do_stable_layer_norm)

    class HiddenState(nn.Module):
        """From samples (batch, samples) to the hidden state (batch, frames, dims) behind the last layer it has."""

        def __init__(self) -> None:
            super().__init__()
            self.convolutions = model.feature_extractor
            self.projection = model.feature_projection
            self.positions = model.encoder.pos_conv_embed
            self.first_norm = nn.Identity() if stable else model.encoder.layer_norm
            self.layers = model.encoder.layers
            self.last_norm = model.encoder.layer_norm if last_norm else nn.Identity()

        def forward(self, samples: Tensor) -> Tensor:
            state = _first(self.projection(self.convolutions(samples).transpose(1, 2)))
            state = self.first_norm(state + self.positions(state))
            for layer in self.layers:
                state = _first(layer(state))
            return self.last_norm(state)

    return HiddenState()


def _first(output: Any) -> Any:
    """Return the hidden state of what a part of transformers gives: some give more beside it."""
    return output[0] if isinstance(output, tuple) else output
