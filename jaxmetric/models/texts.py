"""Encoders of texts, which come as rows of token ids with 0 for padding."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers

from jaxmetric import _checks, distances


class FrozenTable(nnx.Variable):
    """Vectors that are not trained: part of the state of a model, not a parameter."""


class WordVectorEncoder(nnx.Module):
    """Embed a text by the weighted mean of the vectors of its words.

    x = l2(P (b + sum_i a_i v_i / sum_i a_i)),   a_i = exp(weights[token i])

    over the tokens that are no padding. What is learned: how much each word counts
    (start from its rarity: `jaxmetric.data.inverse_frequencies`), the shift `b` that
    takes out what all texts have in common, the vectors themselves if `trainable`
    (start from public ones: `jaxmetric.data.vector_table`), and the projection `P`, if
    there is one. Assign to `vectors` and `weights` to start from something.

    Args:
      length: tokens of a text.
      num_tokens: of the vocabulary.
      width: of the vectors.
      dim: width of the embeddings; None, or that of the vectors, is without projection.
      trainable: whether the vectors are learned too.
      rngs: its stream `params` draws the initial parameters.

    Attributes:
      vectors: [num_tokens, width], initially random of length about 1.
      weights: [num_tokens] logarithms of weights, initially 0: all words alike.

    Raises:
      ValueError: a size is not a positive int.

    Memory: O(num_tokens x width + batch x length x width).

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> encoder = WordVectorEncoder(4, num_tokens=9, width=3, rngs=nnx.Rngs(0))
      >>> embeddings = encoder(jnp.array([[5, 2, 0, 0], [2, 5, 0, 0]], jnp.int32))
      >>> print(embeddings.shape, f"{embeddings[0] @ embeddings[1]:.3f}")
      (2, 3) 1.000

    Source: Arora, Liang, Ma. A Simple but Tough-to-Beat Baseline for Sentence
    Embeddings. ICLR 2017; weights and common part learned here.
    """

    def __init__(
        self,
        length: int,
        *,
        num_tokens: int,
        width: int = 250,
        dim: int | None = None,
        trainable: bool = True,
        rngs: nnx.Rngs,
    ):
        function = "WordVectorEncoder"
        sizes = {"length": length, "num_tokens": num_tokens, "width": width}
        sizes["dim"] = width if dim is None else dim
        for name, size in sizes.items():
            _checks.positive_int(function, name, size)
        rows = jax.random.normal(rngs.params(), (num_tokens, width)) / width**0.5
        self.vectors = nnx.Param(rows) if trainable else FrozenTable(rows)
        self.weights = nnx.Param(jnp.zeros(num_tokens))
        self.shift = nnx.Param(jnp.zeros(width))
        head = None
        if dim is not None and dim != width:
            init = initializers.orthogonal()
            head = nnx.Linear(width, dim, use_bias=False, kernel_init=init, rngs=rngs)
        self.head = head

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, dim] unit rows of [batch, length] integer token ids.

        The length may be any.

        Raises:
          TypeError: `x` is not integer.
        """
        x = _tokens("WordVectorEncoder", x)
        weights = jnp.where(x > 0, jnp.exp(self.weights[...][x]), 0)
        vectors = jnp.einsum("bl,bld->bd", weights, self.vectors[...][x])
        mean = vectors / _at_least_tiny(weights.sum(1))[:, None]
        # A text without any token has nothing but the shift, which is the same for all.
        mean = mean + self.shift[...][None, :]
        return distances.l2_normalize(mean if self.head is None else self.head(mean))


class TransformerEncoder(nnx.Module):
    """Embed a text with a small transformer.

    Vectors of the tokens and of their positions, both learned; blocks of attention and
    of a perceptron, each behind a layer normalisation and added to what went in; the
    mean over the tokens that are no padding; one linear layer, unit rows. Padding is
    neither attended to nor counted.

    Args:
      length: greatest number of tokens of a text.
      num_tokens: of the vocabulary.
      width: of the vectors of tokens, and of every block.
      depth: number of blocks.
      heads: of the attention; `width` is a multiple of it.
      dropout: share of numbers left out in training, behind the vectors and the blocks.
      dim: width of the embeddings.
      rngs: its stream `params` draws the initial parameters, `dropout` what is left
        out.

    Attributes:
      vectors: [num_tokens, width] vectors of the tokens.

    Raises:
      ValueError: a size is not a positive int, or `width` no multiple of `heads`.

    Memory: O(num_tokens x width + batch x length x (length heads + depth width)) for
      the gradient.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> encoder = TransformerEncoder(
      ...     4, num_tokens=9, width=8, depth=1, heads=2, dim=3, rngs=nnx.Rngs(0))
      >>> print(encoder(jnp.array([[5, 2, 0, 0]], jnp.int32)).shape)
      (1, 3)

    Source: Vaswani et al. Attention Is All You Need. NeurIPS 2017. arXiv:1706.03762;
    the order of normalisation: Xiong et al. ICML 2020. arXiv:2002.04745.
    """

    def __init__(
        self,
        length: int,
        *,
        num_tokens: int,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        dim: int = 64,
        rngs: nnx.Rngs,
    ):
        function = "TransformerEncoder"
        sizes = {"length": length, "num_tokens": num_tokens, "width": width}
        sizes |= {"depth": depth, "heads": heads, "dim": dim}
        for name, size in sizes.items():
            _checks.positive_int(function, name, size)
        if width % heads:
            must, remedy = f"be a multiple of the {heads} heads", "Use heads=4."
            raise ValueError(_checks.text(function, "width", must, f"{width}", remedy))
        rows = jax.random.normal(rngs.params(), (num_tokens, width)) / width**0.5
        self.vectors = nnx.Param(rows)
        places = jax.random.normal(rngs.params(), (length, width)) * 0.02
        self.positions = nnx.Param(places)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.blocks = nnx.List(
            _Block(width, heads, dropout, rngs) for _ in range(depth)
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, dim] unit rows of [batch, length] integer token ids.

        Raises:
          ValueError: more tokens than there are positions. TypeError: `x` is not
            integer.
        """
        x = _tokens("TransformerEncoder", x)
        places = self.positions[...]
        if x.shape[1] > len(places):
            must = f"have at most {len(places)} tokens a row"
            remedy = "Cut the texts, or make an encoder for theirs."
            raise ValueError(
                _checks.text("TransformerEncoder", "x", must, f"{x.shape[1]}", remedy)
            )
        is_token = x > 0
        # The vectors have length 1 and the places 0.02 a number: of like size.
        rows = self.vectors[...][x] + places[None, : x.shape[1]]
        rows = self.dropout(rows)
        for block in self.blocks:
            rows = block(rows, is_token)
        rows = jnp.where(is_token[:, :, None], self.norm(rows), 0)
        counts = jnp.maximum(is_token.sum(1), 1).astype(rows.dtype)
        return distances.l2_normalize(self.head(rows.sum(1) / counts[:, None]))


class _Block(nnx.Module):
    """Attention and a perceptron, [batch, length, width] to the same."""

    def __init__(self, width: int, heads: int, dropout: float, rngs: nnx.Rngs):
        self.heads = heads
        self.norms = nnx.List(nnx.LayerNorm(width, rngs=rngs) for _ in range(2))
        self.inputs = nnx.Linear(width, 3 * width, rngs=rngs)
        self.outputs = nnx.Linear(width, width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x: jax.Array, is_token: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        q, k, v = jnp.moveaxis(self.inputs(self.norms[0](x)).reshape(shape), 2, 0)
        mask = is_token[:, None, None, :]
        found = jax.nn.dot_product_attention(q, k, v, mask=mask)
        x = x + self.dropout(self.outputs(found.reshape(batch, length, width)))
        hidden = jax.nn.gelu(self.up(self.norms[1](x)))
        return x + self.dropout(self.down(hidden))


def _tokens(function: str, x: jax.Array) -> jax.Array:
    """Require [batch, length] integer token ids."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        remedy = "Use Vocabulary.encode(texts)."
        raise TypeError(_checks.text(function, "x", "be integer", str(x.dtype), remedy))
    if x.ndim != 2:
        must, remedy = "have shape (batch, length)", "Use Vocabulary.encode(texts)."
        raise ValueError(_checks.text(function, "x", must, str(x.shape), remedy))
    return x


def _at_least_tiny(total: jax.Array) -> jax.Array:
    """Return a sum of weights to divide by; that of no token is 1."""
    return jnp.where(total > 0, total, 1)
