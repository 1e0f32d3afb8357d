"""Local training by a loop of the user's own, with any optimiser, schedule or loader of batches.

    def train(module, data, config, key):
        optimiser = torch.optim.AdamW(module.parameters(), lr=config["lr"])
        ...

    fed_avg(client=trained_by(train, {"lr": 1e-3}))

A function is not sent. What is sent is its name, "my_training:train", which another process finds only among
modules that it has imported for reasons of its own.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import KW_ONLY, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from hanse.algorithms.client_optimisers import ClientTraining
from hanse.algorithms.own_functions import (
    NotingDict,
    call_name,
    check_signature,
    find_function,
    name_function,
    split_name,
)
from hanse.algorithms.own_memory import give, keep
from hanse.algorithms.works import Weighting
from hanse.core import (
    Array,
    Contribution,
    Examples,
    InvalidInput,
    Key,
    Keys,
    Learner,
    Lent,
    Memory,
    MessageError,
    Part,
    PartSpec,
    Shared,
    Spec,
    Tensors,
    TensorSpec,
    Work,
    value,
)
from hanse.core.exchange import TRAINING, digest

__all__ = ["make_training_parts", "refuse_weights", "trained_by"]

NAMELESS = "<nameless>"
"""The module, as it were, of functions that no other process finds."""

MEMORY = "own_training"
"""The name under which a client's memory holds what the function keeps."""


@value
class trained_by(ClientTraining):
    """Local training by a function of the user's own.

        def train(model, data, config, key):
            ...
            return parameters, weight, metrics

    `model` is what is trained: for a model on PyTorch a fresh module, with the server's parameters and in
    training mode; for others a dictionary of named arrays. The function may change it, or return new
    parameters: a dictionary of them, or a module. `data` has copies of the client's examples, `data.x` and
    `data.y`, and `key` gives draws: `key.rng()`. PyTorch's generator is seeded from it, and computes in one
    thread; those of NumPy and Python are not. Each argument but the first can be left out, except `data`.
    An argument `memory` is a dictionary that the client keeps from round to round and never sends.

    The function returns parameters (None: those of `model`), or a tuple with the client's weight in addition
    (None: by the algorithm's weighting), and with measurements, a dictionary of numbers.

    >>> def train(params, data):
    ...     params["w"] -= 0.1 * data.x.T @ (data.x @ params["w"] - data.y)
    >>> trained_by(train).config
    {}

    It works with every algorithm that needs nothing of clients but their updates: `fed_avg`, `fed_adam`,
    `fed_yogi`, `fed_adagrad`, `fed_buff`; and with every uplink, but for those that train inside a restricted
    space.

    Args:
      function: the function, or its name as settings write it: "my_module:train". One without a name, such as
        a lambda or one inside another function, can't be stored or served.
      config: passed to the function: numbers, strings, booleans, and lists and tables of these. Lists arrive
        as tuples. No key is "name", by which settings tell their own tables.
      metrics: the names of its measurements. Means over the clients, by their weights, are recorded with the
        round under "train_" and the name.
    Raises: InvalidInput: if the function does not take these arguments, or is not among imported modules.
    """

    function: str | Callable[..., Any]
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    _: KW_ONLY
    metrics: tuple[str, ...] = ()

    _given: ClassVar[Any] = None

    def __post_init__(self) -> None:
        function = self.function
        if isinstance(function, str):
            split_name(function)
        else:
            check_signature(function)
            object.__setattr__(self, "_given", function)
            object.__setattr__(
                self, "function", name_function(function) or f"{NAMELESS}:{call_name(function)}"
            )
        object.__setattr__(self, "config", _to_plain(self.config, "config"))
        names: Any = self.metrics
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise InvalidInput(f'metrics is {names!r}; write names, such as metrics=("loss",)')
        object.__setattr__(self, "metrics", tuple(names))

    def __reduce__(self) -> tuple[Any, ...]:
        function: Any = self.function
        with suppress(InvalidInput):
            function = self.find()
        return partial(trained_by, metrics=self.metrics), (function, self.config)

    def check_named(self) -> None:
        """Checks that another process can find the function. Raises: InvalidInput: if it can't."""
        if str(self.function).startswith(NAMELESS):
            raise InvalidInput(
                f"the training function {call_name(self.find())} has no name by which a run could be "
                "resumed: it is a lambda, is defined inside something else, or in no file; define it at the "
                "top level of a file, such as my_training.py, or run without a store"
            )

    def find(self) -> Callable[..., Any]:
        """Finds the function. Raises: InvalidInput: if no module that is imported defines it."""
        given: Callable[..., Any] | None = self._given
        return find_function(str(self.function)) if given is None else given

    def work(self, num_rounds: int, weighting: Weighting, *, proximal: float = 0.0) -> Work[Any, Examples]:
        function = self.find()
        if proximal:
            raise InvalidInput(
                f"the algorithm adds a proximal term ({proximal:g}) to the clients' objective, which "
                f"{call_name(function)} does not see; add it in the function, and use fed_avg()"
            )
        return own_loop(self, weighting)

    def train(
        self,
        learner: Learner,
        params: Tensors,
        data: Examples,
        memory: Memory,
        key: Key,
        read: set[str] | None = None,
    ) -> tuple[Tensors, float | None, dict[str, Array], Memory]:
        """Calls the function for one client.

        Args:
          read: is told which keys of the config the function reads.

        Returns: the update; the weight, if the function gave one; its measurements; and what it keeps.
        """
        function = self.find()
        with learner.lend(params, data, key) as lent:
            kept = {name: give(item, lent) for name, item in memory.items()}
            config: dict[str, Any] = deepcopy(dict(self.config))
            config = config if read is None else NotingDict(config, read)
            offers = {"data": lent.data, "config": config, "key": key, "memory": kept}
            takes = check_signature(function)
            found = function(lent.model, **{name: offers[name] for name in takes})
            trained, weight, metrics = _divide(function, found)
            update = _subtract(function, lent, trained, params)
            return (
                update,
                None if weight is None else _to_weight(function, lent, weight),
                self._measure(function, lent, metrics),
                {name: keep(item, lent, name) for name, item in kept.items()}
                if "memory" in takes
                else memory,
            )

    def try_out(
        self, learner: Learner, params: Tensors, data: Examples, key: Key
    ) -> tuple[bool, tuple[str, ...]]:
        """Calls the function twice for one client.

        Returns: whether all bits are equal; and the keys of the config that it did not read.
        """
        read: set[str] = set()
        one, other = (digest(self.train(learner, params, data, {}, key, read)) for _ in range(2))
        return one == other, tuple(key for key in self.config if key not in read)

    def _measure(self, function: Any, lent: Lent, metrics: Any) -> dict[str, Array]:
        given = {} if metrics is None else metrics
        if not isinstance(given, Mapping):
            raise InvalidInput(
                f"{call_name(function)} returned measurements of type {type(given).__name__}; return a "
                'dictionary of numbers, such as {"loss": 0.5}'
            )
        if set(given) != set(self.metrics):
            raise InvalidInput(
                f"{call_name(function)} returned the measurements {sorted(map(str, given))}, and metrics "
                f"names {sorted(self.metrics)}; write trained_by(..., metrics={tuple(map(str, given))!r})"
            )
        return {name: _to_number(function, lent, name, given[name]) for name in self.metrics}


@value
class own_loop(Work[Learner, Examples]):
    """Trains from the broadcast "params" by a function of the user's own; emits "update".

    It emits "training", too, if the function's measurements are recorded.

    Args:
      can_weigh: whether the function may return a weight in place of the weighting's.
    """

    training: trained_by
    weighting: Weighting
    can_weigh: bool = True

    def run(
        self, learner: Learner, shared: Shared, data: Examples, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        try:
            self.training.find()
        except InvalidInput as error:  # like a class that is unknown here
            raise MessageError(str(error)) from error
        before = memory.get(MEMORY, {})
        update, weight, metrics, kept = self.training.train(
            learner, shared["params"], data, before, keys.public
        )
        if weight is not None and not self.can_weigh:
            raise InvalidInput(
                f"{call_name(self.training.find())} returned the weight {weight:g}, and the "
                "algorithm weighs its clients by itself; return None as the weight"
            )
        weight = self.weighting.of(len(data)) if weight is None else weight
        parts = {"update": Part(update, weight)}
        if metrics:
            parts[TRAINING] = Part(metrics, weight)
        return parts, memory if kept is before else {**memory, MEMORY: kept}


def refuse_weights(work: Work[Any, Any]) -> Work[Any, Any]:
    """Returns a work whose training function, if it has one, may not return a weight of its own."""
    return replace(work, can_weigh=False) if isinstance(work, own_loop) else work


def make_training_parts(training: ClientTraining) -> dict[str, PartSpec]:
    """Returns the part in which clients send what they measured while they trained, if they do."""
    names: tuple[str, ...] = getattr(training, "metrics", ())
    if not names:
        return {}
    return {TRAINING: PartSpec(Spec({name: TensorSpec((), "float64") for name in names}))}


# -- what the function gives ----------------------------------------------------------------------


def _divide(function: Any, found: Any) -> tuple[Any, Any, Any]:
    """Divides what a function returned into parameters, weight and measurements."""
    if not isinstance(found, tuple):
        return found, None, None
    if not 1 <= len(found) <= 3:
        raise InvalidInput(
            f"{call_name(function)} returned a tuple of {len(found)}; return parameters, "
            "(parameters, weight) or (parameters, weight, measurements)"
        )
    trained, weight, metrics = (*found, None, None)[:3]
    return trained, weight, metrics


def _subtract(function: Any, lent: Lent, trained: Any, params: Tensors) -> dict[str, Array]:
    """Returns the update from `params` to the parameters that were trained."""
    found = lent.read(trained)
    if not isinstance(found, Mapping):
        raise InvalidInput(
            f"{call_name(function)} returned a {type(found).__name__}; return None for the model that it was "
            "given, parameters by name, or a tuple that begins with them"
        )
    if found.keys() != params.keys():
        raise InvalidInput(
            f"{call_name(function)} returned {sorted(map(str, found))}; the parameters are {sorted(params)}"
        )
    update = {}
    for name, start in params.items():
        array = _to_array(lent, found[name])
        if array.shape != start.shape or array.dtype.kind not in "fiu":
            raise InvalidInput(
                f"{call_name(function)} returned {name!r} with shape {array.shape} and dtype {array.dtype}; "
                f"the parameter has {start.shape} and {start.dtype}"
            )
        update[name] = np.asarray(array.astype(start.dtype, copy=False) - start)
    return update


def _to_array(lent: Lent, obj: Any) -> Array:
    array = lent.to_array(obj)
    return np.asarray(obj) if array is None else array


def _to_number(function: Any, lent: Lent, name: str, given: Any) -> Array:
    array = _to_array(lent, given)
    if array.ndim != 0 or array.dtype.kind not in "fiub":
        raise InvalidInput(f"{call_name(function)} returned {given!r} as {name!r}; return one number")
    return array.astype(np.float64)


def _to_weight(function: Any, lent: Lent, given: Any) -> float:
    weight = float(_to_number(function, lent, "weight", given))
    if not 0 <= weight < np.inf:
        raise InvalidInput(
            f"{call_name(function)} returned the weight {weight}; return a number of at least 0, or None"
        )
    return weight


def _to_plain(obj: Any, path: str) -> Any:
    """Copies plain data, with tuples for lists. Raises: InvalidInput: if settings can't say it."""
    if obj is None:
        raise InvalidInput(
            f"{path} is None, which settings can't say; leave it out, and read it by config.get(...)"
        )
    if type(obj) in (bool, int, float, str):
        return obj
    if isinstance(obj, list | tuple):
        return tuple(_to_plain(item, f"{path}[{i}]") for i, item in enumerate(obj))
    if isinstance(obj, Mapping) and all(isinstance(key, str) for key in obj):
        if "name" in obj:
            raise InvalidInput(
                f'{path} has the key "name", by which settings tell their own tables; give it another name'
            )
        return {key: _to_plain(item, f"{path}.{key}") for key, item in obj.items()}
    raise InvalidInput(f"{path} is {obj!r}; write numbers, strings, booleans, and lists and tables of these")
