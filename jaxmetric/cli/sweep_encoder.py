"""The encoder of a run in the form that trains fastest beside others like it.

With a kernel for each model XLA makes one grouped convolution, which on a CPU takes up
to a hundred times as long as the convolutions one by one, and a convolution in a loop
does too. So convolutions are products of kernels and patches here. The examples stand
on the last axis, where the gradients of the products read memory in its order; the
patches of the first layer are cut out once for all that are computed together.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import jaxmetric as jm
from jaxmetric.training import EmbedFn

# Of the convolutions of `ConvEncoder`.
_SIDE, _STRIDE = 3, 2
# As there: below this variance an image is blank.
_BLANK_VARIANCE = 1e-4


def side_by_side(model: Mapping[str, Any], embed_fn: EmbedFn) -> EmbedFn:
    """Return an embed_fn of the same parameters and, to rounding, the same results.

    Args:
      model: the section `model` of a configuration.
      embed_fn: its encoder, see `jaxmetric.training.build_encoder`. Multilayer
        perceptrons are returned as they are.

    Memory: nine times the input of each convolution, for the gradient.
    """
    if model["kind"] != "conv":
        return embed_fn

    def embed_patches(
        params: Any,
        model_state: Any,
        inputs: Any,
        *,
        key: jax.Array | None,
        train: bool,
    ) -> tuple[Any, Any]:
        del key, train  # Nothing is random, and both compute the same.
        head = params["head"]
        x = _standardize(jm.data.to_float(inputs)).astype(head["kernel"].dtype)
        x = jnp.moveaxis(x, 0, -1)
        # Images of up to 4 pixels a side have no convolution.
        for _, layer in sorted(params.get("convs", {}).items()):
            x = jax.nn.relu(_convolve(x, layer["kernel"], layer["bias"]))
        x = x.reshape(-1, x.shape[-1])
        rows = jnp.einsum("io,ib->ob", head["kernel"], x) + head["bias"][:, None]
        return jm.l2_normalize(rows.T), model_state

    return embed_patches


def _convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Return [h', w', out, batch] for [h, w, channels, batch], padded as "SAME"."""
    height, width, channels, batch = x.shape
    (tall, above), (wide, left) = _places(height), _places(width)
    x = jnp.pad(x, (above, left, (0, 0), (0, 0)))
    patches = jnp.stack(
        [
            x[
                i : i + _STRIDE * tall - 1 : _STRIDE,
                j : j + _STRIDE * wide - 1 : _STRIDE,
            ]
            for i in range(_SIDE)
            for j in range(_SIDE)
        ]
    )
    # [9, h', w', channels, batch] to one row for each number of the kernel.
    rows = patches.transpose(0, 3, 1, 2, 4).reshape(_SIDE * _SIDE * channels, -1)
    kernel = kernel.reshape(rows.shape[0], -1)
    out = jnp.einsum("ko,kr->or", kernel, rows) + bias[:, None]
    return out.reshape(-1, tall, wide, batch).transpose(1, 2, 0, 3)


def _places(size: int) -> tuple[int, tuple[int, int]]:
    """Return how many patches a side has, and its padding before and after."""
    count = -(-size // _STRIDE)
    padding = max((count - 1) * _STRIDE + _SIDE - size, 0)
    return count, (padding // 2, padding - padding // 2)


def _standardize(images: jax.Array) -> jax.Array:
    """Return images of mean 0 and variance 1; a blank one becomes zeros."""
    axes = (1, 2, 3)
    images = images - images.mean(axes, keepdims=True)
    variance = jnp.mean(images * images, axes, keepdims=True)
    return images * jax.lax.rsqrt(variance + _BLANK_VARIANCE)
