"""Encoders and wrappers in Flax NNX: what is trained, and how inputs meet.

`MLPEncoder` and `ConvEncoder` end in unit-norm embeddings; `SharedTowers` and
`TripletTowers` embed several inputs with one encoder, `TwoTowers` each with its own;
`IdentityEncoder` takes rows as they are, `Standardized` brings columns to one scale;
`WordVectorEncoder` and `TransformerEncoder` take the token ids of texts,
`IdEncoder` ids of users or items;
`ProxyHead` holds the proxies that a loss learns. `build` makes an encoder of the
description in a run's configuration. Any of them becomes a pure function by
`jaxmetric.training.as_functional`, and so does any other NNX module.
"""

from jaxmetric.models.build import build as build
from jaxmetric.models.encoders import ConvEncoder as ConvEncoder
from jaxmetric.models.encoders import MLPEncoder as MLPEncoder
from jaxmetric.models.frozen import IdentityEncoder as IdentityEncoder
from jaxmetric.models.frozen import Standardized as Standardized
from jaxmetric.models.heads import ProxyHead as ProxyHead
from jaxmetric.models.identifiers import IdEncoder as IdEncoder
from jaxmetric.models.texts import TransformerEncoder as TransformerEncoder
from jaxmetric.models.texts import WordVectorEncoder as WordVectorEncoder
from jaxmetric.models.towers import SharedTowers as SharedTowers
from jaxmetric.models.towers import TripletTowers as TripletTowers
from jaxmetric.models.towers import TwoTowers as TwoTowers

__all__ = [
    "ConvEncoder",
    "IdEncoder",
    "IdentityEncoder",
    "MLPEncoder",
    "ProxyHead",
    "SharedTowers",
    "Standardized",
    "TransformerEncoder",
    "TripletTowers",
    "TwoTowers",
    "WordVectorEncoder",
    "build",
]
