"""The contract battery: blocks, compilations, memory, and what the programs hold."""

import ast
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import full_case, random_cases
from degenerate import NUM_CLASSES, ROWS
from subjects import SUBJECTS, each_kind, each_loss, first_order, run
from tolerances import SAME

import jaxmetric as jm


@each_kind
@pytest.mark.parametrize(
    "block_size",
    [
        3,
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(9, marks=pytest.mark.slow),
    ],
)
def test_blocks_give_what_one_block_gives(subject, block_size):
    if "block_size" not in subject.parameters:
        return
    cases = [case for case, _ in random_cases(subject, 64)]
    dense = run(subject, cases, "float64")
    by_blocks = run(subject, cases, "float64", block_size=block_size)
    for case, one, two in zip(cases, dense, by_blocks, strict=True):
        scale = max(1.0, subject.oracle.logit_scale(case["hyper"])) ** 2
        for want, got in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            largest = max(1.0, np.max(np.abs(want), initial=0))
            atol = SAME["float64"] * largest * scale
            np.testing.assert_allclose(got, want, rtol=0, atol=atol)


@each_loss
@pytest.mark.slow
def test_references_by_blocks_give_what_one_block_gives(subject):
    if "block_size" not in subject.parameters or not subject.has_references:
        return
    cases = [case for case, _ in random_cases(subject, 64, mode="ref")]
    dense = run(subject, cases, "float64", body=first_order)
    by_blocks = run(subject, cases, "float64", body=first_order, block_size=5)
    for one, two in zip(dense, by_blocks, strict=True):
        for want, got in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            largest = max(1.0, np.max(np.abs(want), initial=0))
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * largest)


@each_kind
def test_a_second_call_does_not_compile(subject):
    events = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    case = full_case(subject)
    arrays = {k: jnp.asarray(v) for k, v in case.items() if k != "hyper"}
    arrays.pop("weights", None)
    hyper = {k: v for k, v in case["hyper"].items() if np.ndim(v) == 0}
    compiled = jax.jit(lambda x, hyper: subject({**arrays, "embeddings": x}, **hyper))
    x = arrays["embeddings"]
    compiled(x, {k: jnp.asarray(v) for k, v in hyper.items()}).block_until_ready()
    others = [x + n for n in (1, 2)]
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for other in others:
            compiled(other, {k: jnp.asarray(v) for k, v in hyper.items()})
        assert not events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def programs(subject) -> list:
    """Return every equation of a loss's gradient program, inner programs included."""
    case = full_case(subject)
    arrays = {k: jnp.asarray(v) for k, v in case.items() if k != "hyper"}
    proxies = subject.oracle.proxies_shape(NUM_CLASSES, 64)
    wide = {"embeddings": (ROWS, 64), "ref_embeddings": (ROWS, 64)}
    wide["proxies"] = proxies
    for name in set(arrays) & set(wide):
        arrays[name] = jnp.ones(wide[name])

    def loss(x):
        return subject({**arrays, "embeddings": x})

    found = []

    def walk(jaxpr) -> None:
        for equation in jaxpr.eqns:
            found.append(equation)
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
            ):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(jax.make_jaxpr(jax.value_and_grad(loss))(arrays["embeddings"]).jaxpr)
    return found


@each_loss
def test_every_matrix_product_asks_for_the_highest_precision(subject):
    products = [e for e in programs(subject) if e.primitive.name == "dot_general"]
    highest = (jax.lax.Precision.HIGHEST,) * 2
    for product in products:
        assert product.params["precision"] == highest
    # Losses over a matrix of rows have one; else this test would show nothing.
    if "block_size" in subject.parameters:
        assert products


@each_loss
def test_no_large_number_stands_for_infinity(subject):
    """A finite sentinel such as 1e9 is smaller than some distance."""
    for equation in programs(subject):
        for operand in equation.invars:
            value = getattr(operand, "val", None)
            if isinstance(value, float | np.floating):
                assert abs(value) < 1e6 or not np.isfinite(value), equation


@pytest.mark.parametrize(
    "path",
    sorted(pathlib.Path(jm.losses.__file__).parent.glob("*.py")),
    ids=lambda path: path.name,
)
def test_loss_code_has_no_function_with_half_a_gradient_at_a_kink(path):
    """`maximum(v, 0)` has gradient 1/2 at 0 and `abs` has 1: rule 4 wants 0."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, module = node.func.attr, node.func.value
            is_ours = isinstance(module, ast.Name) and module.id in ("jnp", "lax")
            constants = [a.value for a in node.args if isinstance(a, ast.Constant)]
            has_zero = 0 in constants
            refused = name in ("clip", "clamp", "abs", "absolute", "fabs")
            refused |= name in ("maximum", "minimum", "max", "min") and has_zero
            assert not (is_ours and refused), f"{path.name}:{node.lineno} {name}"


_MEMORY = """
import jax, jax.numpy as jnp, sys
sys.path.insert(0, {tests!r})
from subjects import Subject
subject = Subject({name!r})
sizes = {sizes}
case = lambda n: {{
    "embeddings": jax.ShapeDtypeStruct((n, 32), jnp.float32),
    "labels": jax.ShapeDtypeStruct((n,), jnp.int32),
    "proxies": jax.ShapeDtypeStruct(
        subject.oracle.proxies_shape(100, 32), jnp.float32
    ),
}}
keys = ["embeddings", "labels"] + ["proxies"] * ("proxies" in subject.parameters)
for n in sizes:
    def loss(x, rest):
        return subject({{"embeddings": x, **rest}}, **{options})
    arrays = {{k: case(n)[k] for k in keys}}
    x = arrays.pop("embeddings")
    compiled = jax.jit(jax.value_and_grad(loss)).lower(x, arrays).compile()
    print(compiled.memory_analysis().temp_size_in_bytes)
"""


def _temporaries(name: str, sizes: list[int], **options) -> np.ndarray:
    """Return the temporary bytes of value and gradient, in a process without fusion."""
    tests = str(pathlib.Path(__file__).parent)
    code = _MEMORY.format(tests=tests, name=name, sizes=sizes, options=options)
    flag = "--xla_cpu_experimental_ynn_fusion_type="
    environment = {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "nknown flag" in done.stderr:
        pytest.skip("this jaxlib does not know the CPU fusion flag")
    assert done.returncode == 0, done.stderr[-2000:]
    return np.array([int(line) for line in done.stdout.split()], float)


@pytest.mark.slow
@pytest.mark.fusion
@pytest.mark.parametrize(
    "subject",
    [s for s in SUBJECTS if "block_size" in s.parameters],
    ids=lambda subject: subject.name,
)
def test_memory_grows_with_the_block_times_the_batch(subject):
    sizes = [512, 1024, 2048, 4096]
    dense = _temporaries(subject.name, sizes, block_size=4096)
    by_blocks = _temporaries(subject.name, sizes, block_size=64)
    slope = np.polyfit(np.log(sizes), np.log(dense), 1)[0]
    assert slope <= 2.1
    slope = np.polyfit(np.log(sizes), np.log(by_blocks), 1)[0]
    assert slope <= 1.2
    assert by_blocks[-1] < 1e9
