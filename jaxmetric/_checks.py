"""Checks of arguments and their texts: static facts, at trace time, in one place.

Each check names the function that the user called and the argument that does not
fit, says what it must be and what it is, and ends with something to type.
"""

import difflib
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike


def text(function: str, argument: str, must: str, got: str, remedy: str) -> str:
    """Return an error text in the one form that all of them have."""
    return f"{function}: `{argument}` must {must}, got {got}. {remedy}"


def choice(
    function: str, argument: str, value: object, allowed: Sequence[str], *, usual: str
) -> None:
    """Require one of the allowed names."""
    if isinstance(value, str) and value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.7)
    names = ", ".join(repr(name) for name in allowed)
    remedy = f"Use {(near[0] if near else usual)!r}."
    raise ValueError(
        text(function, argument, f"be one of {names}", repr(value), remedy)
    )


def embeddings(function: str, argument: str, x: ArrayLike) -> jax.Array:
    """Return [rows, dim] floating point embeddings as an array."""
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):  # pyright: ignore (has a dtype)
        remedy = f"Use {argument}.astype(jnp.float32)."
        must, got = "be floating point", str(x.dtype)  # pyright: ignore
        raise TypeError(text(function, argument, must, got, remedy))
    x = jnp.asarray(x)
    if x.ndim != 2:
        remedy = (
            "Use jax.vmap for more axes."
            if x.ndim > 2
            else f"Use {argument}[:, None] for rows of one number."
        )
        must = "have shape (rows, dim)"
        raise ValueError(text(function, argument, must, str(x.shape), remedy))
    if 0 in x.shape:
        must = "have at least one row and one column"
        remedy = "Leave the call out when there is nothing to compare."
        raise ValueError(text(function, argument, must, f"shape {x.shape}", remedy))
    return x


def not_explicit(function: str, argument: str, x: jax.Array) -> None:
    """Refuse rows whose type says that they are spread over devices.

    JAX then wants to be told how each result is spread, which differs from loss to loss
    and with the number of blocks; inside of a mapped region nothing is left to tell.
    """
    if any(axes is not None for axes in jax.typeof(x).sharding.spec):
        must = "not be sharded over Explicit axes of a mesh"
        remedy = (
            "Use jm.sharding.data_parallel(loss, mesh=mesh), or a mesh of Auto axes."
        )
        raise ValueError(text(function, argument, must, str(jax.typeof(x)), remedy))


def centers(function: str, argument: str, x: ArrayLike) -> jax.Array:
    """Return [classes, centers, dim] floating point proxies as an array."""
    shape = np.shape(x)
    if len(shape) != 3:
        must = "have shape (classes, centers, dim)"
        remedy = f"Use {argument}[:, None, :] for one center a class."
        if len(shape) != 2:
            remedy = "Use jax.vmap for more axes."
        raise ValueError(text(function, argument, must, str(shape), remedy))
    rows = x if hasattr(x, "dtype") else np.asarray(x)
    rows = rows.reshape(shape[0] * shape[1], shape[2])  # pyright: ignore (an array)
    return embeddings(function, argument, rows).reshape(shape)


def same_width(
    function: str,
    argument: str,
    x: jax.Array,
    y: jax.Array,
    *,
    of: str = "embeddings",
    remedy: str = "Embed both sides to the same width.",
) -> None:
    """Require as many columns as the array named `of` has."""
    if x.shape[-1] != y.shape[-1]:
        must = f"have {y.shape[-1]} columns like `{of}`"
        raise ValueError(text(function, argument, must, f"shape {x.shape}", remedy))


def integers(
    function: str, argument: str, values: ArrayLike, like: jax.Array, of: str
) -> jax.Array:
    """Return [rows] integers (labels, ids) that match the rows of the array `of`."""
    array = _integer_array(function, argument, values)
    rows = like.shape[0]
    if array.shape != (rows,):
        if array.shape == (rows, 1):
            remedy = f"Use {argument}[:, 0]."
        elif array.ndim == 2 and array.shape[0] == rows:
            remedy = f"Use {argument}.argmax(-1)."
        else:
            remedy = "Give one integer a row."
        must = f"have shape ({rows},) to match `{of}` of shape {like.shape}"
        raise ValueError(text(function, argument, must, str(array.shape), remedy))
    return _on_device(function, argument, array)


def alike(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return two arrays of integers in the wider of their dtypes."""
    wider = jnp.int32 if max(a.dtype.itemsize, b.dtype.itemsize) <= 4 else jnp.int64
    return (a, b) if a.dtype == b.dtype else (a.astype(wider), b.astype(wider))


def label_rows(function: str, argument: str, values: ArrayLike) -> jax.Array:
    """Return [rows] integer labels that nothing else has to match."""
    array = _integer_array(function, argument, values)
    if array.ndim != 1 or array.size == 0:
        must, remedy = "have shape (rows,) with at least one row", "Give one a row."
        raise ValueError(text(function, argument, must, str(array.shape), remedy))
    return _on_device(function, argument, array)


def _integer_array(
    function: str, argument: str, values: ArrayLike
) -> jax.Array | np.ndarray:
    """Return labels as they came, or as a host array; refuse what is no integer."""
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        # A `Relation`, where the function knows nothing of it.
        got, remedy = f"a {type(values).__name__}", "Encode classes as integers."
        raise TypeError(text(function, argument, "be integer or bool", got, remedy))
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.dtype.kind in "OUSTMm":
        remedy = f"Use np.unique({argument}, return_inverse=True)[1]."
        got = "strings" if array.dtype.kind in "UST" else str(array.dtype)
        raise TypeError(text(function, argument, "be integer or bool", got, remedy))
    if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.integer):
        remedy, got = "Encode classes as integers.", str(array.dtype)
        raise TypeError(text(function, argument, "be integer or bool", got, remedy))
    return array


def _on_device(
    function: str, argument: str, array: jax.Array | np.ndarray
) -> jax.Array:
    """Return integers as a JAX array; host values are range-checked before.

    JAX would cut a host label beyond int32 without a word, and merge two classes.
    """
    if array.dtype == bool:
        return jnp.asarray(array).astype(jnp.int32)
    if isinstance(array, jax.Array):
        return array
    limits = np.iinfo(np.int32)
    for extreme in (int(array.max()), int(array.min())):
        if not limits.min <= extreme <= limits.max:
            remedy = f"Use np.unique({argument}, return_inverse=True)[1]."
            got = f"{extreme} (outside int32)"
            raise ValueError(text(function, argument, "fit int32", got, remedy))
    return jnp.asarray(array.astype(np.int32))


def positive_int(
    function: str,
    argument: str,
    value: object,
    remedy: str = "Shapes must be known when tracing.",
) -> None:
    """Require a positive Python int, which becomes part of a shape or a program."""
    is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (is_int and value > 0):  # pyright: ignore (an int by now)
        must = "be a positive int"
        raise ValueError(text(function, argument, must, repr(value), remedy))


def classes(
    function: str,
    values: ArrayLike,
    labels: jax.Array,
    num_classes: int,
    *,
    of: str = "proxies",
) -> jax.Array:
    """Return which labels lie in 0..num_classes-1; refuse host labels outside.

    Labels that are already on a device cannot be looked at: the caller makes the loss
    NaN where this is False.
    """
    if not isinstance(values, jax.Array):
        for extreme in (int(np.max(values)), int(np.min(values))):
            if not 0 <= extreme < num_classes:
                must = f"lie in 0..{num_classes - 1} to name a row of `{of}`"
                remedy = "Use np.unique(labels, return_inverse=True)[1]."
                raise ValueError(text(function, "labels", must, str(extreme), remedy))
    return (labels >= 0) & (labels < num_classes)


def mask(
    function: str, argument: str, values: ArrayLike | None, like: jax.Array, of: str
) -> jax.Array:
    """Return a [rows] bool mask that matches the rows of `of`; all True for None."""
    if values is None:
        return jnp.ones(like.shape[0], bool)
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.dtype != bool:
        remedy = f"Use {argument} > 0 if nonzero means that the row exists."
        raise TypeError(text(function, argument, "be bool", str(array.dtype), remedy))
    if array.shape != like.shape[:1]:
        must = f"have shape {like.shape[:1]} to match `{of}` of shape {like.shape}"
        remedy = "Give one bool a row."
        raise ValueError(text(function, argument, must, str(array.shape), remedy))
    return jnp.asarray(array)


def weights(
    function: str,
    values: ArrayLike,
    rows: int,
    dtype: jnp.dtype,
    argument: str = "weights",
    remedy: str = "Give one non-negative number a row.",
) -> jax.Array:
    """Return [rows] real weights in the given dtype."""
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if array.dtype.kind in "OUSTc":
        got = str(array.dtype)
        raise TypeError(text(function, argument, "be real numbers", got, remedy))
    if array.shape != (rows,):
        must, got = f"have shape ({rows},)", str(array.shape)
        raise ValueError(text(function, argument, must, got, remedy))
    return lax.convert_element_type(jnp.asarray(array), dtype)


def number(
    function: str,
    argument: str,
    value: ArrayLike,
    dtype: jnp.dtype,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    rows: int | None = None,
    remedy: str = "Give a finite number.",
) -> jax.Array:
    """Return a hyper-parameter as a scalar of the given dtype, or [rows] if allowed.

    Python numbers are checked; arrays, which may be traced, are taken as they are.
    """
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):  # pyright: ignore (a number)
            must = "be a finite number"
            raise ValueError(text(function, argument, must, repr(value), remedy))
        if above is not None and not value > above:  # pyright: ignore (a number)
            must = f"be > {above:g}"
            raise ValueError(text(function, argument, must, repr(value), remedy))
        if at_least is not None and not value >= at_least:  # pyright: ignore (same)
            must = f"be >= {at_least:g}"
            raise ValueError(text(function, argument, must, repr(value), remedy))
        if below is not None and not value < below:  # pyright: ignore (a number)
            must = f"be < {below:g}"
            raise ValueError(text(function, argument, must, repr(value), remedy))
    array = jnp.asarray(value)
    if array.dtype == bool or jnp.issubdtype(array.dtype, jnp.complexfloating):
        got = str(array.dtype)
        raise TypeError(text(function, argument, "be a real number", got, remedy))
    allowed = ((),) if rows is None else ((), (rows,))
    if array.shape not in allowed:
        must = "be a scalar" if rows is None else f"have shape () or ({rows},)"
        got = f"shape {array.shape}"
        remedy = "Use jax.vmap to sweep over values."
        raise ValueError(text(function, argument, must, got, remedy))
    return lax.convert_element_type(array, dtype)


def block_size(function: str, value: object) -> None:
    """Require a positive int or None."""
    is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if value is not None and not (is_int and value > 0):  # pyright: ignore (an int)
        must = "be a positive int or None"
        remedy = "Use None to let the library choose."
        raise ValueError(text(function, "block_size", must, repr(value), remedy))


def precision(function: str, value: object) -> lax.Precision | lax.DotAlgorithmPreset:
    """Return a precision that `lax.dot_general` takes; refuse the legacy strings."""
    names = {"default": lax.Precision.DEFAULT, "high": lax.Precision.HIGH}
    names["highest"] = lax.Precision.HIGHEST
    if isinstance(value, lax.Precision | lax.DotAlgorithmPreset):
        return value
    if isinstance(value, str) and value.lower() in names:
        return names[value.lower()]
    must = "be 'default', 'high', 'highest' or a lax.DotAlgorithmPreset"
    raise ValueError(text(function, "precision", must, repr(value), "Use 'highest'."))
