"""Data: images and feature rows from files, splits by class, batches of P x K.

`load` turns the scikit-learn digits, a folder of class folders, or an ``.npz`` file
into a `Dataset`; everything that is wrong with a file is one `DataError` of one line.
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
from jaxmetric.data.loading import load as load
from jaxmetric.data.npz import load_npz as load_npz
from jaxmetric.data.samplers import ClassSampler as ClassSampler
from jaxmetric.data.splits import hold_out_classes as hold_out_classes
from jaxmetric.data.triplets import random_triplets as random_triplets

__all__ = [
    "ClassSampler",
    "DataError",
    "Dataset",
    "augment",
    "default_image_size",
    "hold_out_classes",
    "load",
    "load_digits",
    "load_folder",
    "load_npz",
    "random_triplets",
    "resize_images",
    "to_float",
]
