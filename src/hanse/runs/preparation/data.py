"""The data of an experiment: loaded, divided among clients, and encoded as numbers."""

from typing import cast

from hanse.config import Experiment
from hanse.core import (
    Key,
    Keys,
    Learner,
)
from hanse.core.exchange import (
    drive,
)
from hanse.data import FederatedData, partition_data
from hanse.preprocessing import Encoder, Schema, tabular
from hanse.runs.protection import guard_hidden
from hanse.simulation import InProcess, Simulation

__all__ = ["client_tests", "encode_features", "load_population"]


def load_population(experiment: Experiment) -> FederatedData:
    """Loads the data of all clients, before any preprocessing.

    Raises: InvalidInput: if data and partition don't fit each other.
    """
    keys = Keys.from_seed(experiment.seed)
    if isinstance(experiment.data, FederatedData):
        population = experiment.data
    else:
        assert experiment.partition is not None
        population = partition_data(
            experiment.data.load(), experiment.partition, keys.public.fold_in("partition")
        )
    if experiment.client_test_fraction:
        population = population.holding_out(experiment.client_test_fraction, client_tests(experiment.seed))
    return population


def client_tests(seed: int) -> Key:
    """Returns the key by which clients hold out test examples."""
    return Keys.from_seed(seed).public.fold_in("client tests")


def encode_features(
    experiment: Experiment, population: FederatedData, keys: Keys
) -> tuple[FederatedData, Encoder | None]:
    """Encodes the features of the data as numbers; returns the data and the encoder."""
    preprocessing = experiment.preprocessing or (tabular() if population.columns else None)
    if preprocessing is None:
        return population, None
    key = keys.public.fold_in("preprocessing")
    backend = InProcess(cast(Learner, None), population, keys)
    runtime = Simulation(backend, population.num_clients, keys, experiment.devices)
    program = preprocessing.program(Schema.of(population.client(0).x), key)
    encoder = drive(guard_hidden(program) if experiment.secure else program, runtime)
    return population.map(encoder), encoder
