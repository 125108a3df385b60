"""The options of the commands: one definition for arguments, help and YAML files.

A section is a dataclass; its fields are options under their own names, so that
`optimization.learning_rate` in a file is `--learning-rate` on the command line. None
stands for "auto": a value that the data or the loss decides (`defaults`).
"""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro import conf

from jaxmetric.cli.losses import hyper_parameters, loss_names


@dataclass(frozen=True)
class DataOptions:
    """Data: what is trained on, and what is held out."""

    data: Annotated[conf.Positional[str], conf.arg(metavar="DATA")] = "digits"
    """digits, a folder of class folders of images, an .npz file, or texts in a .tsv
    file."""
    image_size: int | None = None
    """Side of the images in pixels. auto: as they are up to 40 pixels, else 28."""
    eval_fraction: float = 0.2
    """Share of the classes (of pairs, of the rows) that are held out for evaluation."""
    split_seed: int = 0
    """Which classes these are."""
    held_out: tuple[str, ...] | None = None
    """Names of the classes to hold out, in place of a share."""
    eval_data: str | None = None
    """Another data set to evaluate on; no class is held out then."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do about an image that cannot be read."""


@dataclass(frozen=True)
class PairsOptions:
    """Pairs: two arrays of an .npz file whose rows belong together.

    Each side has an encoder of its own, and a share of the rows is held out.
    """

    query: str | None = None
    """Array of the rows that search."""
    key: str | None = None
    """Array of the rows that are found, one for each row of the other."""
    labels: str | None = None
    """Array with the category of each pair. auto: labels, where there is one."""
    towers: Literal["separate", "shared"] | None = None
    """Whether one encoder serves for both sides. auto: separate."""
    freeze: Literal["query", "key"] | None = None
    """Side whose rows are taken for embeddings as they are; the other learns to meet
    them."""
    standardize: bool | None = None
    """Whether columns of features are brought to one scale, that of the training
    rows. auto: true, where they are not frozen."""
    duplicates: float | None = None
    """Cosine similarity of two keys from which on they are no negatives of each
    other's queries. auto: none are."""
    batch_size: int | None = None
    """Pairs in a batch."""
    hold_out: Literal["random", "last"] | None = None
    """Of users and items, two arrays of integer ids, which items of each user are held
    out. auto: random."""
    correction: bool | None = None
    """Whether negatives are corrected for how often an item occurs (info_nce). auto:
    true for users and items."""


@dataclass(frozen=True)
class TextOptions:
    """Text: scored pairs or labelled texts of a .tsv file.

    Lines are SCORE<tab>TEXT<tab>TEXT or LABEL<tab>TEXT, with or without a header.
    """

    word_vectors: str | None = None
    """The .npz file of words and vectors to start from. auto: pieces of words are
    learned from the texts."""
    vocabulary_size: int | None = None
    """Greatest number of pieces of words, without --word-vectors. auto: 4096."""
    max_length: int | None = None
    """Tokens of a text; longer ones are cut. auto: the longest, up to 64."""
    above: float | None = None
    """Of scored pairs, the score from which two texts mean the same, to losses that
    take no scores. auto: four fifths of the way from the least to the greatest."""
    below: float | None = None
    """The score up to which two texts are told apart (triplet_margin). auto: two
    fifths."""


@dataclass(frozen=True)
class ModelOptions:
    """Model: the encoder, which ends in rows of length 1."""

    kind: Annotated[
        Literal["conv", "mlp", "words", "transformer", "towers"] | None,
        conf.arg(name="model"),
    ] = None
    """Convolutions or a multilayer perceptron; of texts, a weighted mean of words or a
    small transformer. auto: conv for images, words for texts. Of pairs, of both sides;
    towers: each side as a configuration describes it."""
    dim: int | None = None
    """Width of the embeddings."""
    widths: tuple[int, ...] | None = None
    """Channels of the convolutions, first to last (conv)."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers (mlp)."""
    width: int | None = None
    """Width of the vectors of tokens. auto: of words 200 more than the given vectors,
    or 250; of a transformer 128."""
    depth: int | None = None
    """Number of blocks (transformer)."""
    heads: int | None = None
    """Heads of the attention (transformer)."""
    dropout: float | None = None
    """Share of hidden numbers left out in training (mlp, transformer)."""
    trainable: bool | None = None
    """Whether the vectors of words are trained too (words). auto: true."""
    num_tokens: conf.Suppress[int | None] = None
    input_shape: conf.Suppress[tuple[int, ...] | None] = None
    shared: conf.Suppress[bool | None] = None
    frozen: conf.Suppress[Literal["query", "key"] | None] = None
    query: conf.Suppress[dict[str, Any] | None] = None
    key: conf.Suppress[dict[str, Any] | None] = None


def _loss_options() -> type:
    """Return the section of the loss: its name and every hyper-parameter of any."""
    name = (
        "name",
        Annotated[
            str | None, conf.arg(name="loss", help=f"{', '.join(loss_names())}.")
        ],
        field(default=None),
    )
    hyper = [
        (key, Annotated[kind, conf.arg(help=f"{use}.")], field(default=None))
        for key, (kind, use) in hyper_parameters().items()
    ]
    options = dataclasses.make_dataclass("LossOptions", [name, *hyper], frozen=True)
    options.__doc__ = "Loss: what is minimised; auto is the loss's own default."
    return options


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class LossOptions:
        """What is known of the section without the losses."""

        name: str | None = None

else:
    LossOptions = _loss_options()


@dataclass(frozen=True)
class OptimizationOptions:
    """Optimisation: batches of P classes with K examples, and the steps on them."""

    steps: int | None = None
    """Training steps with the loss."""
    epochs: int | None = None
    """Training steps in epochs, in place of --steps."""
    warmup_epochs: int | None = None
    """Epochs of softmax training before the loss; its head is dropped then. auto: 0,
    but 12 before batch_hard on images."""
    batch_classes: int | None = None
    """P, classes in a batch."""
    m_per_class: int | None = None
    """K, examples of each class in a batch."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """adamw has a weight decay of 1e-4, sgd a momentum of 0.9."""
    learning_rate: float | None = None
    """Greatest step size."""
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    """How the learning rate goes down to 0, or does not."""


@dataclass(frozen=True)
class AugmentOptions:
    """Augmentation: random changes of every image, made on the device."""

    enabled: Annotated[bool, conf.arg(name="augment")] = True
    """Whether to change images at all."""
    shift: Annotated[float | None, conf.arg(name="augment-shift")] = None
    """Greatest shift as a share of the side."""
    rotation: Annotated[float | None, conf.arg(name="augment-rotation")] = None
    """Greatest turn in degrees."""
    scale: Annotated[float | None, conf.arg(name="augment-scale")] = None
    """Greatest relative change of size."""


@dataclass(frozen=True)
class RunOptions:
    """Run: repetition, logging and the folder."""

    seed: int = 0
    """Of the parameters, the batches and the augmentation."""
    eval_every: int | None = None
    """Steps between two evaluations. auto: ten in a run."""
    save_every: int | None = None
    """Steps between two checkpoints. auto: at every evaluation."""
    log_every: int | None = None
    """Steps between two lines of metrics.jsonl. auto: at most 1,000 lines."""
    log: tuple[Literal["tensorboard", "wandb"], ...] | None = None
    """Where the metrics go besides: to the folder tensorboard of the run, or to Weights
    & Biases."""


@dataclass(frozen=True)
class TrainOptions:
    """Train an embedding, and show how well it retrieves classes it has never seen.

    Without arguments: on handwritten digits, in under a minute.
    """

    data: DataOptions = field(default_factory=DataOptions)
    pairs: PairsOptions = field(default_factory=PairsOptions)
    text: TextOptions = field(default_factory=TextOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    optimization: OptimizationOptions = field(default_factory=OptimizationOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    run: RunOptions = field(default_factory=RunOptions)
    out: str | None = None
    """Folder of the run, which must not exist. auto: runs/DATA-N, the next free N."""
    resume: str | None = None
    """Folder of a run to go on with, under the options that it has."""
    config: str | None = None
    """YAML file of options, such as the config.yaml of a run. Arguments go before."""
    plain: bool = False
    """Whether to print plain lines on a terminal too."""
    devices: int | None = None
    """Devices of this host that share each batch; a CPU is made so many. auto: 1, but
    all with --distributed."""
    distributed: bool = False
    """Whether this is one of several processes that share each batch. They meet as the
    scheduler says (Slurm, Open MPI, Kubernetes, Cloud TPU), or JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID."""


# What is not part of what a run is, and so neither in its configuration nor compared.
NOT_SETTINGS = ("out", "resume", "config", "plain", "devices", "distributed")


@dataclass(frozen=True)
class GridOptions:
    """Grid: what the models differ in; every combination is a model.

    Values are numbers between commas, or START:STOP:COUNT, both ends included.
    """

    margins: str | None = None
    """Margins of the loss. auto: 0.05:1.0:16, if nothing of the loss is varied."""
    temperatures: str | None = None
    """Temperatures of the loss."""
    vary: Annotated[tuple[str, ...] | None, conf.arg(metavar="NAME=VALUES ...")] = None
    """Any other numbers of the loss, as in scale=16,32,64 or gamma=32:128:4."""
    learning_rates: str | None = None
    """Greatest step sizes."""
    seeds: str = "0"
    """Of the parameters, the batches and the augmentation."""
    together: int | None = None
    """Models that each device (each core of a CPU) computes at once; all others take
    turns within the program, which bounds the memory. auto: 1 on a CPU, else 64."""


@dataclass(frozen=True)
class SweepOptions:
    """Train many models at once, and compare how well they retrieve unseen classes.

    Data, split, defaults and words are those of `train`. Without arguments: 16 margins
    on handwritten digits.
    """

    data: DataOptions = field(default_factory=DataOptions)
    grid: GridOptions = field(default_factory=GridOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    optimization: OptimizationOptions = field(default_factory=OptimizationOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    log: tuple[Literal["tensorboard", "wandb"], ...] | None = None
    """Where the metrics of the best model go besides; see `train`."""
    out: str | None = None
    """Folder of the sweep, which must not exist. auto: runs/DATA-sweep-N, the next
    free N."""
    plain: bool = False
    """Whether to print plain lines on a terminal too."""


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
