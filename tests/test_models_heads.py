"""Proxies start as unit rows and are trained as parameters of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxmetric.models import ProxyHead
from jaxmetric.training import TrainState, make_train_step


@pytest.mark.parametrize(("num_centers", "shape"), [(None, (5, 3)), (4, (5, 4, 3))])
def test_proxies_are_unit_rows_of_the_shape_that_losses_take(num_centers, shape):
    head = ProxyHead(5, 3, num_centers=num_centers, rngs=nnx.Rngs(0))
    assert isinstance(head.proxies, nnx.Param)
    assert head().shape == shape
    np.testing.assert_allclose(jnp.linalg.norm(head(), axis=-1), 1.0, rtol=1e-6)
    assert not np.array_equal(head(), ProxyHead(5, 3, rngs=nnx.Rngs(1))())


def test_proxies_train_beside_the_encoder():
    labels = jnp.arange(12) % 3
    inputs = jax.nn.one_hot(labels, 3) + 0.1 * jax.random.normal(
        jax.random.key(0), (12, 3)
    )

    def embed_fn(params, model_state, inputs, *, key, train):
        return inputs @ params["w"], model_state

    def loss_fn(loss_params, embeddings, labels):
        logits = jax.nn.log_softmax(embeddings @ loss_params["proxies"].T)
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))

    head, optimizer = ProxyHead(3, 2, rngs=nnx.Rngs(0)), optax.adam(0.1)
    state = TrainState.create(
        {"w": 0.1 * jnp.ones((3, 2))},
        {},
        optimizer,
        key=jax.random.key(0),
        loss_params={"proxies": head()},
    )
    step = jax.jit(make_train_step(embed_fn, loss_fn, optimizer))
    losses = []
    for _ in range(100):
        state, metrics = step(state, (inputs, labels))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.1 * losses[0]
    assert not np.array_equal(state.loss_params["proxies"], head())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, 3, None), "num_classes"), ((3, 0, None), "dim"), ((3, 3, 0), "num_centers")],
)
def test_sizes_below_one_are_refused(arguments, name):
    num_classes, dim, num_centers = arguments
    with pytest.raises(ValueError, match=name) as e:
        ProxyHead(num_classes, dim, num_centers=num_centers, rngs=nnx.Rngs(0))
    assert str(e.value) == f"ProxyHead: `{name}` must be >= 1, got 0. Use at least 1."
