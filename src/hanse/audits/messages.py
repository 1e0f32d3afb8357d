"""The messages of clients, and the layer of the model from which rows are read."""

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
    Key,
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
from hanse.core.exchange import Dispatch, Payload, Sample, Sampled
from hanse.leakage import NotMeasured, ask_for_parts, observe, read_row, subtract_own

__all__ = ["Layer", "Messages", "find_layer", "find_part"]


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
        return read_row({"weights": self._turn(gradient), "bias": gradient[self.bias]})

    def measure_share(self, gradient: Tensors) -> float | None:
        """Measures how much of a gradient is one row times numbers: 1 if it is of a single row.

        Returns: the share of the largest singular value in the sum of squares; None: the layer has so few
          outputs that each gradient looks like that of one row.
        """
        weights = self._turn(gradient).reshape(-1, np.size(gradient[self.bias]))
        if weights.shape[1] < 3:  # two residuals of classes are opposite
            return None
        whole = np.vstack([weights, np.reshape(gradient[self.bias], (1, -1))])
        squares = np.linalg.svd(whole, compute_uv=False) ** 2
        return float(squares[0] / squares.sum()) if squares.sum() > 0 else None

    def _turn(self, gradient: Tensors) -> Array:
        weights = np.asarray(gradient[self.weights], np.float64)
        return weights.T if self.turned else weights


def find_part(exchange: Dispatch | Payload, params: Tensors) -> str:
    """Finds the part of a message that has the form of the model. Raises: NotMeasured: if there is none."""
    wanted = Spec.of(params).tensors
    for name, part in exchange.uplink.items():
        if part.spec.tensors == wanted:
            return name
    sent = ", ".join(map(repr, exchange.uplink)) or "nothing"
    raise NotMeasured(f"clients send {sent}, and nothing of the form of the model")


def find_layer(params: Tensors, num_features: int | None) -> Layer:
    """Finds the layer that multiplies rows of so many features, or of any number: the first such layer.

    Raises: NotMeasured: if there is none.
    """
    for name, tensor in params.items():
        bias = name.replace("weights", "bias").replace("weight", "bias")
        if bias == name or bias not in params:
            continue
        size = np.size(params[bias])
        if num_features is None and np.ndim(tensor) == 2:
            return Layer(name, bias, turned=name.endswith("weight"))
        if np.shape(tensor) in ((num_features,), (num_features, size)) and not name.endswith("weight"):
            return Layer(name, bias, turned=False)
        if np.shape(tensor) == (size, num_features):
            return Layer(name, bias, turned=True)
    if any("embedding" in name for name in params):
        raise NotMeasured(
            "the model looks tokens of texts up in an embedding, and these attacks read rows of numbers; "
            "still, whoever sees a message learns which tokens occur in it, from the rows of the embedding "
            "that change"
        )
    raise NotMeasured(
        "no layer of the model multiplies a whole row by weights and adds a bias, and other models are not "
        "attacked by this version"
    )


class Messages:
    """The messages of clients that answer one exchange of a run.

    Args:
      exchange: what clients are asked: the first message of an algorithm, or what was recorded.
      params: the model that they begin from.
      num_features: of a row.
      into: the reducer in place.
      key: of the audit's draws.
      learner: what answers the exchange again; None: nothing does.

    Raises: NotMeasured: if clients send nothing that has the form of the model.
    """

    def __init__(
        self,
        exchange: Dispatch | Payload,
        params: Tensors,
        num_features: int | None,
        into: Reducer[Any],
        key: Key,
        learner: Any = None,
    ) -> None:
        self.into, self.params, self._exchange = into, params, exchange
        self._key, self._learner = key, learner
        self.part = find_part(exchange, params)
        self.sign = 1.0 if self.part == "gradient" else -1.0
        self.layer = find_layer(params, num_features)

    @classmethod
    def of_first_round(cls, subject: Subject) -> "Messages":
        """Makes the messages of a run's first round, by the algorithm's own work, chain and reducer."""
        ready = subject.ready
        settled: Any = ready.experiment.algorithm
        into: Reducer[Any] = getattr(settled, "into", mean())
        if into.hides:  # what a sum hides is asked for beside it: only sums are shown to an attack
            settled = replace(settled, into=mean())
        params = ready.start()
        dispatch = _find_dispatch(settled, params, subject)
        size = prod(ready.population.feature_shape)
        return cls(dispatch, params, size, into, subject.key, ready.learner)

    @property
    def uplink(self) -> tuple[Transform, ...]:
        """The chain that the model's part goes through."""
        return self._exchange.uplink[self.part].uplink

    @cached_property
    def steps(self) -> Steps | None:
        """The steps of local training by plain descent; None: clients send gradients.

        Raises: NotMeasured: if clients train by another rule.
        """
        if self.part == "gradient":
            return None
        work = self._exchange.work
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
        key = self._key.fold_in("reconstruction", i)
        uplink = dict(self._exchange.uplink)
        if bare:
            uplink = {name: replace(part, uplink=(), into=mean()) for name, part in uplink.items()}
        answer = ask_for_parts(
            self._exchange.work,
            self._learner,
            own,
            self._exchange.shared,
            uplink,
            keys=Keys(key.fold_in("public"), key.fold_in("secret")),
        )
        return observe(answer).parts[self.part].values

    def see_as_fellow(self, people: Sequence[Examples], first: int, *, bare: bool = False) -> Tensors:
        """Returns what the first of several clients finds of the others from two consecutive models.

        The server's noise is in the second model. The server's step is taken for a plain one.
        """
        sent = [self.see(own, first + j, bare=bare) for j, own in enumerate(people)]
        given = self._exchange.uplink[self.part]
        into = mean() if bare else given.into
        total = reduce(into, [Part(one, 1.0) for one in sent])
        alone = reduce(into, [Part(sent[0], 1.0)] * len(sent)).values
        stretch = dot(alone, sent[0]) / max(dot(sent[0], sent[0]), 1e-300)
        noised = total if bare else self._add_noise(total)
        after = add(self.params, scale(noised.values, 1 / stretch))
        return subtract_own(self.params, after, sent[0], len(sent))

    def _add_noise(self, total: Total) -> Total:
        chain = self._exchange.uplink[self.part].chain()
        key = self._key.fold_in("reconstruction noise")
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
