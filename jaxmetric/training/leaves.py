"""A pytree as named arrays, and back: what a checkpoint stores of a state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_MAX_LISTED = 5


class Leaf(NamedTuple):
    """What is known of a leaf without its numbers.

    Attributes:
      path: its place in the tree, "params/dense/kernel".
      shape: its shape; that of the keys, not of their data, for PRNG keys.
      dtype: the dtype's name; "key" and the implementation for PRNG keys.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str


_KEY = "key:"


def flatten(tree: Any) -> tuple[list[Leaf], list[np.ndarray]]:
    """Return what is known of all leaves, and their numbers on the host.

    Raises:
      TypeError: a leaf is not numbers, bools or PRNG keys.
    """
    leaves, arrays = [], []
    for path, value in _named(tree).items():
        if _is_key(value):
            implementation = str(jax.random.key_impl(value))
            leaves.append(Leaf(path, value.shape, _KEY + implementation))
            arrays.append(np.asarray(jax.random.key_data(value)))
            continue
        array = np.asarray(value)
        if array.dtype.kind in "OSUMm" or array.dtype.names is not None:
            raise TypeError(
                f"save_checkpoint: `tree` must hold arrays of numbers, got "
                f"{type(value).__name__} at {path}. Put it into `metadata`."
            )
        leaves.append(Leaf(path, array.shape, array.dtype.name))
        arrays.append(array)
    return leaves, arrays


def differences(like: Any, stored: list[Leaf], *, subset: bool) -> str | None:
    """Return how the stored leaves differ from those of a tree, None if they do not.

    With `subset`, stored leaves that the tree lacks are no difference.
    """
    expected = {path: _describe(path, value) for path, value in _named(like).items()}
    found = {leaf.path: leaf for leaf in stored}
    texts = []
    for path in sorted(expected.keys() | found.keys()):
        want, have = expected.get(path), found.get(path)
        if want is None:
            if not subset:
                texts.append(f"{path} is only in the checkpoint")
        elif have is None:
            texts.append(f"{path} is not in the checkpoint")
        elif have != want:
            texts.append(
                f"{path} is {have.dtype}{list(have.shape)}, "
                f"expected {want.dtype}{list(want.shape)}"
            )
    if not texts:
        return None
    more = len(texts) - _MAX_LISTED
    listed = "; ".join(texts[:_MAX_LISTED])
    count = "1 leaf differs" if len(texts) == 1 else f"{len(texts)} leaves differ"
    return f"{count}: {listed}" + (f"; and {more} more" if more > 0 else "")


def rebuild(like: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return the tree `like` with the numbers that `arrays` has for its paths.

    A leaf becomes what it is in `like`: a NumPy array, a Python number, or an array on
    the devices of the one it replaces.
    """
    leaves, structure = jax.tree.flatten(like)
    paths = list(_named(like))
    return structure.unflatten(
        _place(leaf, arrays[path]) for leaf, path in zip(leaves, paths, strict=True)
    )


def _named(tree: Any) -> dict[str, Any]:
    """Return the leaves by path, in the order of the tree."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in pairs
    }
    if len(named) != len(pairs):
        raise ValueError(
            "save_checkpoint: `tree` must give every leaf its own path, got two of one "
            "path. Use no '/' in the keys of dictionaries."
        )
    return named


def _is_key(value: Any) -> bool:
    """Return whether a leaf is an array of typed PRNG keys."""
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _describe(path: str, value: Any) -> Leaf:
    """Return what is known of one leaf, abstract or not."""
    if _is_key(value):
        # Only a concrete key tells its implementation, so an abstract one is made.
        concrete = isinstance(value, jax.Array)
        key = value if concrete else jnp.empty((), value.dtype)
        implementation = str(jax.random.key_impl(key))
        return Leaf(path, tuple(value.shape), _KEY + implementation)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return Leaf(path, tuple(value.shape), np.dtype(value.dtype).name)
    array = np.asarray(value)
    return Leaf(path, array.shape, array.dtype.name)


def _place(like: Any, array: np.ndarray) -> Any:
    """Return the numbers as the kind of leaf that `like` is."""
    if _is_key(like):
        implementation = _describe("", like).dtype.removeprefix(_KEY)
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=implementation)
        return _move(key, like)
    if isinstance(like, np.ndarray):
        return array
    if isinstance(like, np.generic):
        return array[()]
    if not hasattr(like, "shape"):
        return type(like)(array.item())
    return _move(jnp.array(array, dtype=array.dtype), like)


def _move(array: jax.Array, like: Any) -> jax.Array:
    """Return an array on the devices of `like`, where that is bound to any."""
    if isinstance(like, jax.Array) and like.committed:
        return jax.device_put(array, like.sharding)
    return array
