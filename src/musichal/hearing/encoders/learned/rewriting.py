"""The same computation in an order that light runtimes are quicker at: what is exported instead of transformers' own module.

The first convolution of group-norm networks has one channel in and hundreds out, each brought to zero mean and unit
variance over time. As a matrix product of frames of samples, whose sums over time fold mean and variance into one gain and
one offset for each channel, it goes over its large output twice less than convolution, norm and affine map one by one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module


def rewritten(module: "Module") -> "Module":
    """Return a module of `load_module` for export; it computes the same up to rounding, and shares and changes its parts."""
    parts: Any = module
    first = parts.convolutions.conv_layers[0]
    norm = getattr(first, "layer_norm", None)
    if norm is not None and getattr(norm, "num_groups", None) == first.conv.out_channels and first.conv.in_channels == 1:
        parts.convolutions.conv_layers[0] = _first_convolution(first)
    return module


def _first_convolution(layer: Any) -> "Module":
    import torch
    from torch import Tensor, nn

    width = layer.conv.kernel_size[0]

    class FirstConvolution(nn.Module):
        """Convolution, norm over time and activation of (batch, 1, samples); gives (batch, channels, frames)."""

        def __init__(self) -> None:
            super().__init__()
            self.frames = nn.Conv1d(1, width, width, stride=layer.conv.stride[0], bias=False)
            self.frames.weight = nn.Parameter(torch.eye(width)[:, None], requires_grad=False)
            # A bias would be taken off again by the norm.
            self.weight = nn.Parameter(layer.conv.weight[:, 0].t().contiguous(), requires_grad=False)
            self.gain, self.offset, self.epsilon = layer.layer_norm.weight, layer.layer_norm.bias, layer.layer_norm.eps
            self.activation = layer.activation

        def forward(self, samples: Tensor) -> Tensor:
            # The norm takes DC off anyway; without it, the variance below is a difference of nothing large.
            centred = samples - samples.mean(2, keepdim=True)
            sums = self.frames(centred).transpose(1, 2) @ self.weight
            mean = sums.mean(1, keepdim=True)
            variance = (sums * sums).mean(1, keepdim=True) - mean * mean
            gain = self.gain / torch.sqrt(variance + self.epsilon)
            return self.activation(sums * gain + (self.offset - mean * gain)).transpose(1, 2)

    return FirstConvolution().eval()
