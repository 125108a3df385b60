"""The default encoder for images once more in PyTorch, with the same parameters."""

# PyTorch is an extra: without it nothing here is imported.
# pyright: reportMissingImports=false

from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

# As in `jaxmetric.models.encoders`.
_BLANK_VARIANCE = 1e-4


class TorchConvEncoder(nn.Module):
    """`jaxmetric.models.ConvEncoder`, layer by layer, for [n, c, h, w] images.

    Args:
      params: the parameters of ours, as `jaxmetric.training.as_functional` gives them.
      input_shape: (height, width, channels).
      is_channels_last: lay the channels of an image together in memory.
    """

    def __init__(self, params: Any, input_shape: tuple[int, ...], is_channels_last):
        super().__init__()
        height, width, _ = input_shape
        self.convs, self.pads = nn.ModuleList(), []
        convs = params["convs"]
        for k in sorted(convs, key=int):
            kernel = _tensor(convs[k]["kernel"]).permute(3, 2, 0, 1)
            pads = [_same(width), _same(height)]
            # The same on both sides is left to the convolution.
            is_even = all(low == high for low, high in pads)
            padding = (pads[1][0], pads[0][0]) if is_even else 0
            conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, 2, padding=padding)
            with torch.no_grad():
                conv.weight.copy_(kernel)
                conv.bias.copy_(_tensor(convs[k]["bias"]))
            self.convs.append(conv)
            self.pads.append(None if is_even else (*pads[0], *pads[1]))
            height, width = -(-height // 2), -(-width // 2)
        kernel = _tensor(params["head"]["kernel"])
        # Ours flattens [h, w, c], PyTorch [c, h, w].
        kernel = kernel.reshape(height, width, -1, kernel.shape[-1])
        kernel = kernel.permute(3, 2, 0, 1).reshape(kernel.shape[-1], -1)
        self.head = nn.Linear(kernel.shape[1], kernel.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(kernel)
            self.head.bias.copy_(_tensor(params["head"]["bias"]))
        self.is_channels_last = is_channels_last
        if is_channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return [n, dim] unit rows of [n, h, w, c] uint8 images."""
        x = images.permute(0, 3, 1, 2).float() / 255
        if self.is_channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        else:
            x = x.contiguous()
        x = x - x.mean((1, 2, 3), keepdim=True)
        variance = (x * x).mean((1, 2, 3), keepdim=True)
        x = x * torch.rsqrt(variance + _BLANK_VARIANCE)
        for conv, pad in zip(self.convs, self.pads, strict=True):
            x = x if pad is None else functional.pad(x, pad)
            x = functional.relu(conv(x))
        x = self.head(x.contiguous().flatten(1))
        return functional.normalize(x, dim=1)


def _same(size: int) -> tuple[int, int]:
    """Return the padding before and after of 3 pixels at stride 2, "SAME" in JAX."""
    total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
    return total // 2, total - total // 2


def _tensor(values: jax.Array) -> torch.Tensor:
    """Return a copy of a JAX array."""
    return torch.from_numpy(np.array(values))
