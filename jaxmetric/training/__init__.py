"""Training: encoders as pure functions, the step, the state, runs on disk.

Everything is functional. An encoder is `embed_fn(params, model_state, inputs, *, key,
train) -> (embeddings, model_state)`; `as_functional` makes one of any Flax NNX module.
`make_train_step` joins it with a loss and an Optax optimiser to a pure
`step(state, batch) -> (state, metrics)`, which the caller compiles, donates, scans or
maps as it likes. Checkpoints are Orbax files with a manifest; `load_run` gives a
trained run back.
"""

from jaxmetric.training.checkpoints import latest_checkpoint as latest_checkpoint
from jaxmetric.training.checkpoints import restore_checkpoint as restore_checkpoint
from jaxmetric.training.checkpoints import save_checkpoint as save_checkpoint
from jaxmetric.training.chunks import ValueAndGrad as ValueAndGrad
from jaxmetric.training.chunks import embed_by_chunks as embed_by_chunks
from jaxmetric.training.chunks import grad_cache as grad_cache
from jaxmetric.training.errors import CheckpointError as CheckpointError
from jaxmetric.training.errors import CheckpointWarning as CheckpointWarning
from jaxmetric.training.functional import EmbedFn as EmbedFn
from jaxmetric.training.functional import as_functional as as_functional
from jaxmetric.training.lock import RunLock as RunLock
from jaxmetric.training.memory_bank import MemoryBank as MemoryBank
from jaxmetric.training.memory_bank import momentum_update as momentum_update
from jaxmetric.training.population import PopulationLossFn as PopulationLossFn
from jaxmetric.training.population import PopulationStep as PopulationStep
from jaxmetric.training.population import population as population
from jaxmetric.training.population import stack_states as stack_states
from jaxmetric.training.population import take_state as take_state
from jaxmetric.training.runs import accept_raw_inputs as accept_raw_inputs
from jaxmetric.training.runs import build_encoder as build_encoder
from jaxmetric.training.runs import load_run as load_run
from jaxmetric.training.state import TrainState as TrainState
from jaxmetric.training.step import LossFn as LossFn
from jaxmetric.training.step import TrainStep as TrainStep
from jaxmetric.training.step import make_train_step as make_train_step
from jaxmetric.training.tensorboard import TensorBoardWriter as TensorBoardWriter
from jaxmetric.training.weights_and_biases import WandbWriter as WandbWriter
from jaxmetric.training.writers import MetricsWriter as MetricsWriter

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "EmbedFn",
    "LossFn",
    "MemoryBank",
    "MetricsWriter",
    "PopulationLossFn",
    "PopulationStep",
    "RunLock",
    "TensorBoardWriter",
    "TrainState",
    "TrainStep",
    "ValueAndGrad",
    "WandbWriter",
    "accept_raw_inputs",
    "as_functional",
    "build_encoder",
    "embed_by_chunks",
    "grad_cache",
    "latest_checkpoint",
    "load_run",
    "make_train_step",
    "momentum_update",
    "population",
    "restore_checkpoint",
    "save_checkpoint",
    "stack_states",
    "take_state",
]
