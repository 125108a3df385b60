"""Options of the commands that use a trained run; see `options`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro import conf


@dataclass(frozen=True)
class EvalOptions:
    """Measure how well a run retrieves: on its held-out classes, or on other data."""

    run: Annotated[conf.Positional[str], conf.arg(metavar="RUN")]
    """Folder of a run."""
    data: Annotated[conf.Positional[str | None], conf.arg(metavar="DATA")] = None
    """Data set to use all classes of. auto: the classes that the run held out."""
    query: str | None = None
    """Data set of the queries, which search in --gallery."""
    gallery: str | None = None
    """Data set that is searched; classes are the same where their names are."""
    groups: str | None = None
    """Array of the .npz files that tells the group of each row, such as its camera:
    rows of one class and one group are not compared. auto: groups, where both --query
    and --gallery have it."""
    rerank: bool = False
    """Whether to re-rank by k-reciprocal neighbours as well."""
    verification: bool = False
    """Whether to tell pairs of one class from others by their distance; of many pairs
    a share is drawn."""
    pairs: str | None = None
    """File of the pairs to tell, lines of ROW<tab>ROW<tab>0 or 1, rows from 0."""
    far: tuple[float, ...] | None = None
    """False-accept rates to tell the true-accept rates at. auto: 0.001 0.01."""
    roc: str | None = None
    """PNG of the curve to write. auto: roc.png in the folder of the run."""
    few_shot: Annotated[str | None, conf.arg(metavar="WAYSxSHOTS")] = None
    """Classify by a few examples a class, such as 5x1; rows of DATA or --query."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about an image that cannot be read."""
    json: bool = False
    """Whether to print one JSON object in place of the table."""


@dataclass(frozen=True)
class EmbedOptions:
    """Embed data with a run: `embeddings` [n, dim] in the order of the rows."""

    run: Annotated[conf.Positional[str], conf.arg(metavar="RUN")]
    """Folder of a run."""
    data: Annotated[conf.Positional[str], conf.arg(metavar="DATA")]
    """Data set, with or without labels; see `train`."""
    output: Annotated[str, conf.arg(aliases=["-o"])]
    """The .npz file to write, with `labels` besides where the data has them."""
    side: Literal["query", "key"] | None = None
    """Of a run of pairs, the side to embed. auto: both, as `query_embeddings` and
    `key_embeddings`."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about an image that cannot be read."""


@dataclass(frozen=True)
class CalibrateOptions:
    """Find the distance up to which two rows are taken for one class.

    Of pairs of different classes no more than a wanted share is as near. It is kept in
    calibration.json of the run, for `search`.
    """

    run: Annotated[conf.Positional[str], conf.arg(metavar="RUN")]
    """Folder of a run."""
    data: Annotated[conf.Positional[str | None], conf.arg(metavar="DATA")] = None
    """Data set to use all classes of. auto: the classes that the run held out."""
    far: float = 1e-3
    """False-accept rate: the share of pairs of different classes that is accepted."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about an image that cannot be read."""
    json: bool = False
    """Whether to print one JSON object in place of the table."""


@dataclass(frozen=True)
class SearchOptions:
    """Find the nearest rows of a gallery, and tell the known from the unknown.

    The embeddings of the gallery are kept, and only those of new rows computed.
    """

    run: Annotated[conf.Positional[str], conf.arg(metavar="RUN")]
    """Folder of a run; see `calibrate` for what is known."""
    query: Annotated[conf.Positional[str], conf.arg(metavar="QUERY")]
    """Data set of the queries, with or without labels."""
    gallery: Annotated[conf.Positional[str], conf.arg(metavar="GALLERY")]
    """Data set that is searched, with or without labels."""
    k: Annotated[int, conf.arg(aliases=["-k"])] = 10
    """Neighbours of each query."""
    side: Literal["query", "key"] | None = None
    """Of a run of pairs, the side that QUERY is; GALLERY is the other. auto: query."""
    picture: str | None = None
    """PNG of some queries with their neighbours to write, of images."""
    index: str | None = None
    """The .npz file that keeps the gallery's embeddings. auto: in the run's folder."""
    backend: Literal["blocks", "faiss"] = "blocks"
    """What searches: blocks of rows on the device, or the library faiss."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about an image that cannot be read."""
    json: bool = False
    """Whether to print one JSON object a query in place of the table."""


@dataclass(frozen=True)
class ReportOptions:
    """Put all that is known of a run on one page, report.html in its folder.

    `train` and `sweep` do so at their end.
    """

    run: Annotated[conf.Positional[str], conf.arg(metavar="RUN")]
    """Folder of a run."""
