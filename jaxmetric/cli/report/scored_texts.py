"""The report of a run of scored pairs of texts."""

import numpy as np

from jaxmetric import retrieval
from jaxmetric.cli.paired.correlation_metrics import correlations, ranks
from jaxmetric.cli.report import page, sections
from jaxmetric.cli.report.escape import escape
from jaxmetric.cli.report.projection import project
from jaxmetric.data import ScoredTexts

_NAMES = {"spearman": "Spearman", "pearson": "Pearson"}
_WORST, _BANDS, _DRAWS = 12, 5, 300

Part = tuple[str, str, str]


def parts_of(texts: ScoredTexts, first: np.ndarray, second: np.ndarray) -> list[Part]:
    """Return the sections, (key, title, HTML).

    Args:
      texts: the pairs that are held out.
      first, second: [n, dim] unit rows, their embeddings.
    """
    cosines = np.sum(first * second, axis=1)
    return [
        ("metrics", "Metrics", _metrics(cosines, texts.scores)),
        ("projection", "Held-out texts", _projection(texts, first, second)),
        ("gallery", "Worst pairs", _worst(texts, cosines)),
    ]


def _metrics(cosines: np.ndarray, scores: np.ndarray) -> str:
    """Return the correlations and where 95 % of their resamples lie."""
    rng, n = np.random.default_rng(0), len(scores)
    drawn = [
        correlations(cosines[rows], scores[rows])
        for rows in rng.integers(n, size=(_DRAWS, n))
    ]
    lines = []
    for key, value in correlations(cosines, scores).items():
        if key in _NAMES:
            low, high = np.quantile([found[key] for found in drawn], [0.025, 0.975])
            lines.append(
                f"<tr><th scope='row'>{_NAMES[key]}</th><td class='number'>{value:.4f}"
                f"</td><td class='number'>{low:.4f} to {high:.4f}</td></tr>"
            )
    return (
        "<div class='wide'><table><thead><tr><th>correlation</th><th class='number'>"
        "value</th><th class='number'>95 % interval</th></tr></thead><tbody>"
        f"{''.join(lines)}</tbody></table></div>"
        + sections.quiet(
            f"Of the cosines of {n:,} pairs with their scores: Spearman's of their "
            "order, Pearson's of their values. The intervals tell how they would vary "
            "over other pairs (bootstrap)."
        )
    )


def _projection(texts: ScoredTexts, first: np.ndarray, second: np.ndarray) -> str:
    """Return the texts of all pairs as points, coloured by the score of their pair."""
    low, high = float(texts.scores.min()), float(texts.scores.max())
    edges = np.linspace(low, high, _BANDS + 1)
    names = [f"{a:.3g} to {b:.3g}" for a, b in zip(edges, edges[1:], strict=False)]
    band = np.clip(np.searchsorted(edges, texts.scores, "right") - 1, 0, _BANDS - 1)
    n = len(texts)
    nearest = np.concatenate(
        [
            np.asarray(retrieval.nearest_neighbors(x, y, k=1).indices)[:, 0]
            for x, y in ((first, second), (second, first))
        ]
    )
    found = project(
        np.concatenate([first, second]),
        np.tile(band, 2).astype(np.int32),
        nearest == np.tile(np.arange(n), 2),
    )
    every = texts.first + texts.second
    return page.draw_projection(
        found,
        names,
        f"{len(found.rows):,} texts of held-out pairs",
        nearest=("its partner", "another text"),
        ring="a text for which the nearest one of the other side is not its partner",
        rows=[sections.beginning(every[row]) for row in found.rows.tolist()],
        colour="score of the pair",
    )


def _worst(texts: ScoredTexts, cosines: np.ndarray) -> str:
    """Return the pairs whose place by the cosine is farthest from that by the score."""
    n = len(texts)
    places = [ranks(values) / max(n - 1, 1) for values in (cosines, texts.scores)]
    lines = []
    for row in np.argsort(-np.abs(places[0] - places[1]), kind="stable")[:_WORST]:
        cells = (
            f"<td class='number'>{texts.scores[row]:.3g}</td>"
            f"<td class='number'>{cosines[row]:.2f}</td>"
        )
        both = (
            escape(sections.beginning(side[row]))
            for side in (texts.first, texts.second)
        )
        lines.append(f"<tr>{cells}<td>{'<br>'.join(both)}</td></tr>")
    return (
        sections.quiet(
            "The held-out pairs whose place by the cosine is farthest from their place "
            "by the score, the worst first."
        )
        + "<div class='wide'><table><thead><tr><th class='number'>score</th>"
        "<th class='number'>cosine</th><th>texts</th></tr></thead><tbody>"
        f"{''.join(lines)}</tbody></table></div>"
    )
