"""The first messages of clients, and the layer of the model from which rows are read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from hanse.algorithms import local_sgd
from hanse.audits.subject import Subject
from hanse.core import (
    Array,
    Examples,
    Keys,
    Part,
    Reducer,
    Spec,
    Steps,
    Tensors,
    Total,
    Transform,
    add,
    dot,
    mean,
    reduce,
    scale,
)
from hanse.core.exchange import Dispatch, Sample, Sampled
from hanse.leakage import NotMeasured, ask_for_parts, observe, read_row, subtract_own

__all__ = ["FirstMessages", "Layer", "find_layer"]


@dataclass(frozen=True)
class Layer:
    """The first layer of a model, which multiplies a row by weights.

    Args:
      weights, bias: the names of its tensors.
      turned: whether the weights are (outputs, features).
    """

    weights: str
    bias: str
    turned: bool

    def read(self, gradient: Tensors) -> Array:
        """Reads a row off a gradient."""
        weights = np.asarray(gradient[self.weights], np.float64)
        return read_row({"weights": weights.T if self.turned else weights, "bias": gradient[self.bias]})


def find_layer(params: Tensors, num_features: int) -> Layer:
    """Finds the layer that multiplies rows of so many features. Raises: NotMeasured: if there is none."""
    for name, tensor in params.items():
        bias = name.replace("weights", "bias").replace("weight", "bias")
        if bias == name or bias not in params:
            continue
        size = np.size(params[bias])
        if np.shape(tensor) in ((num_features,), (num_features, size)) and not name.endswith("weight"):
            return Layer(name, bias, turned=False)
        if np.shape(tensor) == (size, num_features):
            return Layer(name, bias, turned=True)
    raise NotMeasured(
        "no layer of the model multiplies a whole row by weights and adds a bias, and other models are not "
        "attacked by this version"
    )


class FirstMessages:
    """The messages of clients in the first round, made by the algorithm's own work, chain and reducer.

    Raises: NotMeasured: if clients send nothing that has the form of the model.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        settled: Any = subject.ready.experiment.algorithm
        self.into: Reducer[Any] = getattr(settled, "into", mean())
        if self.into.hides:  # what a sum hides is asked for beside it: only sums are shown to an attack
            settled = replace(settled, into=mean())
        self.params = subject.ready.start()
        self._dispatch = _find_dispatch(settled, self.params, subject)
        spec = Spec.of(self.params)
        names = [n for n, part in self._dispatch.uplink.items() if part.spec.tensors == spec.tensors]
        if not names:
            raise NotMeasured(f"clients of {type(settled).__name__}() send nothing of the form of the model")
        self._part = names[0]
        self.sign = 1.0 if self._part == "gradient" else -1.0
        self.layer = find_layer(self.params, prod(subject.ready.population.feature_shape))

    @property
    def uplink(self) -> tuple[Transform, ...]:
        """The chain that the model's part goes through."""
        return self._dispatch.uplink[self._part].uplink

    @cached_property
    def steps(self) -> Steps | None:
        """The steps of local training by plain descent; None: clients send gradients.

        Raises: NotMeasured: if clients train by another rule.
        """
        if self._part == "gradient":
            return None
        work = self._dispatch.work
        steps = getattr(work, "steps", None) if isinstance(work, local_sgd) else None
        if not isinstance(steps, Steps) or steps != Steps(
            steps.lr, steps.epochs, steps.batch_size, num_steps=steps.num_steps
        ):
            raise NotMeasured("an inversion repeats plain local descent, and clients train by another rule")
        return steps

    def see(self, own: Examples, i: int, *, bare: bool = False) -> Tensors:
        """Returns the part of a client's message that has the form of the model, as a server opens it.

        Args:
          i: numbers the client, for its keys.
          bare: whether the chain and the reducer are left out.
        """
        key = self._subject.key.fold_in("reconstruction", i)
        uplink = dict(self._dispatch.uplink)
        if bare:
            uplink = {name: replace(part, uplink=(), into=mean()) for name, part in uplink.items()}
        answer = ask_for_parts(
            self._dispatch.work,
            self._subject.ready.learner,
            own,
            self._dispatch.shared,
            uplink,
            keys=Keys(key.fold_in("public"), key.fold_in("secret")),
        )
        return observe(answer).parts[self._part].values

    def see_as_fellow(self, people: Sequence[Examples], first: int, *, bare: bool = False) -> Tensors:
        """Returns what the first of several clients finds of the others from two consecutive models.

        The server's noise is in the second model. The server's step is taken for a plain one.
        """
        sent = [self.see(own, first + j, bare=bare) for j, own in enumerate(people)]
        given = self._dispatch.uplink[self._part]
        into = mean() if bare else given.into
        total = reduce(into, [Part(one, 1.0) for one in sent])
        alone = reduce(into, [Part(sent[0], 1.0)] * len(sent)).values
        stretch = dot(alone, sent[0]) / max(dot(sent[0], sent[0]), 1e-300)
        noised = total if bare else self._add_noise(total)
        after = add(self.params, scale(noised.values, 1 / stretch))
        return subtract_own(self.params, after, sent[0], len(sent))

    def _add_noise(self, total: Total) -> Total:
        chain = self._dispatch.uplink[self._part].chain()
        key = self._subject.key.fold_in("reconstruction noise")
        plans = chain.plan(chain.init(), key)
        for i in reversed(range(len(chain.stages))):
            stage = chain.stages[i]
            if stage.decode is not None and stage.release is not None:
                total, _ = stage.decode(stage.init, plans[i], total, key.fold_in(i))
        return total


def _find_dispatch(algorithm: Any, params: Tensors, subject: Subject) -> Dispatch:
    """Returns the first message to a cohort, in a program that asks the first clients."""
    if not (hasattr(algorithm, "init") and hasattr(algorithm, "round")):
        raise NotMeasured(f"{type(algorithm).__name__}() has no rounds of a server and clients to attack")
    key, num_clients = subject.key.fold_in("dispatch"), subject.ready.population.num_clients
    program = algorithm.round(algorithm.init(params, key), key)
    command = next(program)
    if isinstance(command, Sample):
        command = program.send(Sampled((0,), num_clients))
    program.close()
    if not isinstance(command, Dispatch):
        raise NotMeasured(f"the first round of {type(algorithm).__name__}() asks clients for nothing")
    return command
