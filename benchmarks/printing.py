"""Results as the rows of a table, for the terminal."""

from collections.abc import Callable

from benchmarks.results import Result

Column = tuple[str, int, Callable[[Result], str]]


def header() -> str:
    """Return the names of the columns."""
    return "  ".join(
        name.ljust(width) if k == 0 else name.rjust(width)
        for k, (name, width, _) in enumerate(_COLUMNS)
    )


def row(result: Result) -> str:
    """Return a result in the columns of the header, and what is particular to it."""
    cells = [
        text(result).ljust(width) if k == 0 else text(result).rjust(width)
        for k, (_, width, text) in enumerate(_COLUMNS)
    ]
    lines = ["  ".join(cells).rstrip()]
    if result.status != "ok":
        lines.append(f"    {result.status}")
    lines += [f"    {key}: {_value(value)}" for key, value in result.extra.items()]
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Return a duration with three digits and a unit."""
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if value * factor < 1000:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"


def size(value: float) -> str:
    """Return a number of bytes with three digits and a unit."""
    for power, unit in ((0, "B"), (1, "KiB"), (2, "MiB")):
        if abs(value) < 1000 * 1024**power:
            return f"{value / 1024**power:.3g} {unit}"
    return f"{value / 1024**3:.3g} GiB"


def ranged(spread: dict[str, float] | None, digits: int = 3) -> str:
    """Return a median with its least and greatest."""
    if spread is None:
        return "-"
    low, high = spread["min"], spread["max"]
    return f"{spread['median']:.{digits}g} ({low:.{digits}g}..{high:.{digits}g})"


def _value(value: object) -> str:
    """Return something particular to a topic."""
    if isinstance(value, dict) and {"median", "min", "max"} <= value.keys():
        return ranged(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _timing(timing: dict[str, float] | None) -> str:
    """Return the median."""
    return "-" if timing is None else seconds(timing["median"])


def _spread(result: Result) -> str:
    """Return the range of the longer measurement."""
    timing = result.gradient or result.forward
    if timing is None:
        return "-"
    return f"{seconds(timing['min'])}..{seconds(timing['max'])}"


def _cpu(result: Result) -> str:
    """Return processor seconds of the longer measurement."""
    timing = result.gradient or result.forward
    return "-" if timing is None else seconds(timing["cpu"])


def _ratio(result: Result) -> str:
    """Return how many yardsticks it takes."""
    ratio = result.gradient_ratio or result.forward_ratio
    return ranged(ratio)


def _error(value: float | None) -> str:
    """Return an error, or a dash."""
    return "-" if value is None else f"{value:.0e}"


def _gradient_error(result: Result) -> str:
    """Return the error of the gradient, and how many rows took another way."""
    others = f" +{result.rows_other}" if result.rows_other else ""
    return _error(result.error_gradient) + others


def _optional(name: str, missing: str = "-") -> Callable[[Result], str]:
    """Return a column of a field that may be None."""

    def text(result: Result) -> str:
        value = getattr(result, name)
        return missing if value is None else f"{value:.3g}"

    return text


_COLUMNS: tuple[Column, ...] = (
    ("function", 28, lambda r: r.function),
    ("workload", 11, lambda r: r.workload),
    ("block", 5, lambda r: "auto" if r.block_size is None else str(r.block_size)),
    ("B", 6, lambda r: str(r.batch)),
    ("D", 4, lambda r: str(r.dim)),
    ("K", 5, lambda r: "-" if r.m_per_class is None else str(r.m_per_class)),
    ("margins", 7, _optional("num_margins")),
    ("forward", 8, lambda r: _timing(r.forward)),
    ("fwd+grad", 8, lambda r: _timing(r.gradient)),
    ("min..max", 18, _spread),
    ("cpu", 8, _cpu),
    ("x matmul", 20, _ratio),
    ("compile", 8, lambda r: _optional("compile_seconds")(r)),
    ("temp", 9, lambda r: "-" if r.temp_bytes is None else size(r.temp_bytes)),
    ("GFLOP", 8, _optional("gflop")),
    ("err", 6, lambda r: _error(r.error_value)),
    ("err grad", 10, _gradient_error),
)
