"""Data: images and feature rows from files, splits by class, batches of P x K.

`load` turns the scikit-learn digits, a folder of class folders, or an ``.npz`` file
into a `Dataset`; everything that is wrong with a file is one `DataError` of one line.
`load_texts` reads tab-separated texts, a `Vocabulary` turns them into token ids.
`load_pairs` gives two arrays whose rows belong together as a `PairedDataset`.
`hold_out_classes` sets whole classes aside, `ClassSampler` and `random_triplets` say
which rows are trained on, and `to_float` and `augment` run inside the compiled step.

No function here unpacks an archive to disk, downloads anything, or reads a pickle.
"""

from jaxmetric.data.augmentation import augment as augment
from jaxmetric.data.datasets import Dataset as Dataset
from jaxmetric.data.digits import load_digits as load_digits
from jaxmetric.data.errors import DataError as DataError
from jaxmetric.data.folders import load_folder as load_folder
from jaxmetric.data.images import default_image_size as default_image_size
from jaxmetric.data.images import resize_images as resize_images
from jaxmetric.data.images import to_float as to_float
from jaxmetric.data.interactions import (
    hold_out_interactions as hold_out_interactions,
)
from jaxmetric.data.loading import load as load
from jaxmetric.data.npz import load_npz as load_npz
from jaxmetric.data.pair_sampler import PairSampler as PairSampler
from jaxmetric.data.paired import PairedDataset as PairedDataset
from jaxmetric.data.paired import load_pairs as load_pairs
from jaxmetric.data.samplers import ClassSampler as ClassSampler
from jaxmetric.data.splits import hold_out_classes as hold_out_classes
from jaxmetric.data.splits import hold_out_rows as hold_out_rows
from jaxmetric.data.texts import LabelledTexts as LabelledTexts
from jaxmetric.data.texts import ScoredTexts as ScoredTexts
from jaxmetric.data.texts import load_texts as load_texts
from jaxmetric.data.triplets import random_triplets as random_triplets
from jaxmetric.data.triplets import score_triplets as score_triplets
from jaxmetric.data.vocabulary import Vocabulary as Vocabulary
from jaxmetric.data.vocabulary import inverse_frequencies as inverse_frequencies
from jaxmetric.data.vocabulary import load_vocabulary as load_vocabulary
from jaxmetric.data.vocabulary import subword_vocabulary as subword_vocabulary
from jaxmetric.data.vocabulary import word_vocabulary as word_vocabulary
from jaxmetric.data.word_vectors import WordVectors as WordVectors
from jaxmetric.data.word_vectors import load_word_vectors as load_word_vectors
from jaxmetric.data.word_vectors import vector_table as vector_table

__all__ = [
    "ClassSampler",
    "DataError",
    "Dataset",
    "LabelledTexts",
    "PairSampler",
    "PairedDataset",
    "ScoredTexts",
    "Vocabulary",
    "WordVectors",
    "augment",
    "default_image_size",
    "hold_out_classes",
    "hold_out_interactions",
    "hold_out_rows",
    "inverse_frequencies",
    "load",
    "load_digits",
    "load_folder",
    "load_npz",
    "load_pairs",
    "load_texts",
    "load_vocabulary",
    "load_word_vectors",
    "random_triplets",
    "resize_images",
    "score_triplets",
    "subword_vocabulary",
    "to_float",
    "vector_table",
    "word_vocabulary",
]
