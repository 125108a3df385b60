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
