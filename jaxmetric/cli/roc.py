"""The picture of verification: true accepts over false accepts, at every threshold."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmetric.cli.figures import drawing, save

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#5f6368"

_MOST_POINTS = 4000


def curve(distances: np.ndarray, is_same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true accept rates, ascending, at every distance that occurs.

    Pairs at equal distances are accepted together. Of many points those are kept whose
    rates a picture can tell apart.
    """
    order = np.argsort(distances, kind="stable")
    distances, is_same = distances[order], is_same[order]
    is_threshold = np.append(distances[1:] != distances[:-1], True)
    accepted, mistaken = np.cumsum(is_same), np.cumsum(~is_same)
    far = (mistaken / mistaken[-1])[is_threshold]
    tar = (accepted / accepted[-1])[is_threshold]
    if len(far) > _MOST_POINTS:
        # Half of the points evenly over the decades, half evenly over the rates.
        steps = np.geomspace(1 / mistaken[-1], 1, _MOST_POINTS // 2)
        places = np.searchsorted(far, steps)
        even = np.searchsorted(tar, np.linspace(0, 1, _MOST_POINTS // 2))
        rows = np.unique(np.concatenate([places, even, [len(far) - 1]]))
        rows = rows[rows < len(far)]
        far, tar = far[rows], tar[rows]
    return far, tar


def write_roc(
    path: str | os.PathLike[str],
    distances: np.ndarray,
    is_same: np.ndarray,
    metrics: Mapping[str, Any],
) -> None:
    """Draw the rates of pairs, false accepts on a logarithmic axis.

    Args:
      path: the PNG to write; its folder exists. An older one is replaced.
      distances: [pairs].
      is_same: [pairs] bool; both kinds are there.
      metrics: what `jaxmetric.retrieval.verification` found of them.

    Raises:
      OSError: the file cannot be written.
    """
    far, tar = curve(distances, is_same)
    num_different = int(np.sum(~is_same))
    lowest = min(1 / num_different, 0.1)
    # What no different pair is mistaken for stands at the left edge.
    far = np.concatenate([[lowest / 2], np.maximum(far, lowest / 2), [1.0]])
    tar = np.concatenate([[0.0], tar, [1.0]])
    marks = {
        float(name.removeprefix("tar_at_far_")): value
        for name, value in metrics.items()
        if name.startswith("tar_at_far_")
    }
    with drawing():
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter

        figure = Figure((5.6, 4.6), layout="constrained")
        ax = figure.subplots()
        ax.plot(far, tar, drawstyle="steps-post", color=_BLUE, linewidth=1.8)
        chance = np.geomspace(lowest / 2, 1, 200)
        ax.plot(chance, chance, color=_GREY, linestyle=":", label="by chance")
        for rate, value in marks.items():
            if rate >= lowest / 2:
                label = f"{100 * value:.1f} % at a false-accept rate of {rate:g}"
                style = {"markersize": 6, "linestyle": "none"}
                ax.plot(rate, value, "o", color=_ORANGE, label=label, **style)
        eer = metrics["eer"]
        ax.plot(
            max(eer, lowest / 2),
            1 - eer,
            "s",
            color="black",
            markersize=6,
            linestyle="none",
            label=f"equal error rate {100 * eer:.2f} %",
        )
        ax.set_xscale("log")
        ax.set_xlim(lowest / 2, 1)
        ax.set_ylim(-0.02, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        ax.set_xlabel("different pairs that are accepted", fontsize=9)
        ax.set_ylabel("same pairs that are accepted", fontsize=9)
        title = f"Verification: {int(np.sum(is_same)):,} same and {num_different:,}"
        ax.set_title(f"{title} different pairs", loc="left", fontsize=10)
        ax.tick_params(labelsize=8)
        # Below the axes, where no curve goes.
        figure.legend(loc="outside lower center", frameon=False, fontsize=8)
        ax.grid(color="#e6e6e6", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        save(figure, path)
