"""Local training by a loop of the user's own, with any optimiser, schedule or loader of batches.

    def train(module, data, config, key):
        optimiser = torch.optim.AdamW(module.parameters(), lr=config["lr"])
        ...

    fed_avg(client=trained_by(train, {"lr": 1e-3}))

A function is not sent. What is sent is its name, "my_training:train", which another process finds only among
modules that it has imported for reasons of its own.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import KW_ONLY, field
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, ClassVar

import numpy as np

from hanse.algorithms.client_optimisers import ClientTraining
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

__all__ = ["can_train", "measured_parts", "trained_by"]

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

    `model` is what is trained: for a model on PyTorch the module itself, with the server's parameters and in
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
      config: passed to the function: numbers, strings, booleans, None, and lists and tables of these. Lists
        arrive as tuples.
      metrics: the names of its measurements. Means over the clients, by their weights, are recorded with the
        round under "train_" and the name.
    Raises: InvalidInput: if the function does not take these arguments, or is not among imported modules.
    """

    function: str | Callable[..., Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    metrics: tuple[str, ...] = ()

    _given: ClassVar[Any] = None

    def __post_init__(self) -> None:
        function = self.function
        if isinstance(function, str):
            _split(function)
        else:
            _check_signature(function)
            object.__setattr__(self, "_given", function)
            object.__setattr__(self, "function", _name(function) or f"{NAMELESS}:{_called(function)}")
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
                f"the training function {_called(self.find())} has no name by which a run could be "
                "resumed: it is a lambda, is defined inside something else, or in no file; define it at the "
                "top level of a file, such as my_training.py, or run without a store"
            )

    def find(self) -> Callable[..., Any]:
        """Finds the function. Raises: InvalidInput: if no module that is imported defines it."""
        given: Callable[..., Any] | None = self._given
        return _find(str(self.function)) if given is None else given

    def work(self, num_rounds: int, weighting: Weighting, *, proximal: float = 0.0) -> Work[Any, Examples]:
        function = self.find()
        if proximal:
            raise InvalidInput(
                f"the algorithm adds a proximal term ({proximal:g}) to the clients' objective, which "
                f"{_called(function)} does not see; add it in the function, and use fed_avg()"
            )
        return own_loop(self, weighting)

    def train(
        self, learner: Learner, params: Tensors, data: Examples, memory: Memory, key: Key
    ) -> tuple[Tensors, float | None, dict[str, Array], Memory]:
        """Calls the function for one client.

        Returns: the update; the weight, if the function gave one; its measurements; and what it keeps.
        """
        function = self.find()
        with learner.lend(params, data, key) as lent:
            kept = {name: _give(item, lent) for name, item in memory.items()}
            offers = {"data": lent.data, "config": deepcopy(dict(self.config)), "key": key, "memory": kept}
            takes = _check_signature(function)
            found = function(lent.model, **{name: offers[name] for name in takes})
            trained, weight, metrics = _divide(function, found)
            update = _subtract(function, lent, trained, params)
            return (
                update,
                None if weight is None else _to_weight(function, lent, weight),
                self._measure(function, lent, metrics),
                {name: _keep(item, lent, name) for name, item in kept.items()}
                if "memory" in takes
                else memory,
            )

    def is_repeatable(self, learner: Learner, params: Tensors, data: Examples, key: Key) -> bool:
        """Calls the function twice for one client, and returns whether all bits are equal."""
        one, other = (digest(self.train(learner, params, data, {}, key)) for _ in range(2))
        return one == other

    def _measure(self, function: Any, lent: Lent, metrics: Any) -> dict[str, Array]:
        given = {} if metrics is None else metrics
        if not isinstance(given, Mapping):
            raise InvalidInput(
                f"{_called(function)} returned measurements of type {type(given).__name__}; return a "
                'dictionary of numbers, such as {"loss": 0.5}'
            )
        if set(given) != set(self.metrics):
            raise InvalidInput(
                f"{_called(function)} returned the measurements {sorted(map(str, given))}, and metrics names "
                f"{sorted(self.metrics)}; write trained_by(..., metrics={tuple(map(str, given))!r})"
            )
        return {name: _to_number(function, lent, name, given[name]) for name in self.metrics}


@value
class own_loop(Work[Learner, Examples]):
    """Trains from the broadcast "params" by a function of the user's own; emits "update".

    It emits "training", too, if the function's measurements are recorded.
    """

    training: trained_by
    weighting: Weighting

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
        weight = self.weighting.of(len(data)) if weight is None else weight
        parts = {"update": Part(update, weight)}
        if metrics:
            parts[TRAINING] = Part(metrics, weight)
        return parts, memory if kept is before else {**memory, MEMORY: kept}


def measured_parts(training: ClientTraining) -> dict[str, PartSpec]:
    """Returns the part in which clients send what they measured while they trained, if they do."""
    names: tuple[str, ...] = getattr(training, "metrics", ())
    if not names:
        return {}
    return {TRAINING: PartSpec(Spec({name: TensorSpec((), "float64") for name in names}))}


# -- what the function takes and gives ------------------------------------------------------------

OFFERED = ("data", "config", "key", "memory")
"""The names of the arguments after the first."""


def _called(function: Any) -> str:
    """Returns the words for a function in messages."""
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def _check_signature(function: Any) -> tuple[str, ...]:
    """Returns the names of the arguments that a training function takes after its first."""
    if not callable(function):
        raise InvalidInput(
            f'function is {function!r}; write a function, or the name of one: "my_training:train"'
        )
    shape = inspect.Parameter
    try:
        first, *others = inspect.signature(function).parameters.values()
    except ValueError:
        first, others = shape("unknown", shape.KEYWORD_ONLY), []
    takes = tuple(p.name for p in others if p.name in OFFERED and p.kind is not shape.POSITIONAL_ONLY)
    unknown = [p.name for p in others if p.name not in takes and p.default is p.empty]
    if (
        first.kind not in (shape.POSITIONAL_ONLY, shape.POSITIONAL_OR_KEYWORD)
        or unknown
        or "data" not in takes
    ):
        raise InvalidInput(
            f"{_called(function)} can't train: after the model it takes "
            f"{', '.join(p.name for p in others) or 'nothing'}; write def train(model, data, config, key), "
            "and memory if it keeps something"
        )
    return takes


def can_train(function: Any) -> bool:
    """Returns whether a function takes the arguments that `trained_by` gives."""
    try:
        return bool(_check_signature(function))
    except InvalidInput:
        return False


def _divide(function: Any, found: Any) -> tuple[Any, Any, Any]:
    """Divides what a function returned into parameters, weight and measurements."""
    if not isinstance(found, tuple):
        return found, None, None
    if not 1 <= len(found) <= 3:
        raise InvalidInput(
            f"{_called(function)} returned a tuple of {len(found)}; return parameters, "
            "(parameters, weight) or (parameters, weight, measurements)"
        )
    trained, weight, metrics = (*found, None, None)[:3]
    return trained, weight, metrics


def _subtract(function: Any, lent: Lent, trained: Any, params: Tensors) -> dict[str, Array]:
    """Returns the update from `params` to the parameters that were trained."""
    found = lent.read(trained)
    if not isinstance(found, Mapping):
        raise InvalidInput(
            f"{_called(function)} returned a {type(found).__name__}; return None for the model that it was "
            "given, parameters by name, or a tuple that begins with them"
        )
    if found.keys() != params.keys():
        raise InvalidInput(
            f"{_called(function)} returned {sorted(map(str, found))}; the parameters are {sorted(params)}"
        )
    update = {}
    for name, start in params.items():
        array = _to_array(lent, found[name])
        if array.shape != start.shape or array.dtype.kind not in "fiu":
            raise InvalidInput(
                f"{_called(function)} returned {name!r} with shape {array.shape} and dtype {array.dtype}; "
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
        raise InvalidInput(f"{_called(function)} returned {given!r} as {name!r}; return one number")
    return array.astype(np.float64)


def _to_weight(function: Any, lent: Lent, given: Any) -> float:
    weight = float(_to_number(function, lent, "weight", given))
    if not 0 <= weight < np.inf:
        raise InvalidInput(
            f"{_called(function)} returned the weight {weight}; return a number of at least 0, or None"
        )
    return weight


# -- memory -------------------------------------------------------------------------------------


@value
class kept_tensor:
    """A tensor of the engine in a client's memory."""

    values: Array


@value
class kept_list:
    """A list in a client's memory."""

    items: tuple[Any, ...]


def _keep(obj: Any, lent: Lent, path: str) -> Any:
    """Converts what a function leaves in its memory to values. See `_give`."""
    if obj is None or type(obj) in (bool, int, float, str, bytes):
        return obj
    if isinstance(obj, np.ndarray | np.generic):
        return np.array(obj)
    if isinstance(obj, list | tuple):
        items = tuple(_keep(item, lent, f"{path}/{i}") for i, item in enumerate(obj))
        return kept_list(items) if isinstance(obj, list) else items
    if isinstance(obj, Mapping):
        return {key: _keep(item, lent, f"{path}/{key}") for key, item in obj.items()}
    array = lent.to_array(obj)
    if array is None:
        raise InvalidInput(
            f"memory[{path!r}] is a {type(obj).__name__}, which can't be kept; keep numbers, strings, "
            "arrays, and lists and dictionaries of these, such as optimiser.state_dict()"
        )
    return kept_tensor(array)


def _give(obj: Any, lent: Lent) -> Any:
    """Converts values of a memory to what the function had left there, in copies that it may change."""
    if isinstance(obj, kept_tensor):
        return lent.to_tensor(np.array(obj.values))
    if isinstance(obj, kept_list):
        return [_give(item, lent) for item in obj.items]
    if isinstance(obj, tuple):
        return tuple(_give(item, lent) for item in obj)
    if isinstance(obj, Mapping):
        return {key: _give(item, lent) for key, item in obj.items()}
    return np.array(obj) if isinstance(obj, np.ndarray) else obj


def _to_plain(obj: Any, path: str) -> Any:
    """Copies plain data, with tuples for lists. Raises: InvalidInput: if it is something else."""
    if obj is None or type(obj) in (bool, int, float, str):
        return obj
    if isinstance(obj, list | tuple):
        return tuple(_to_plain(item, f"{path}[{i}]") for i, item in enumerate(obj))
    if isinstance(obj, Mapping) and all(isinstance(key, str) for key in obj):
        return {key: _to_plain(item, f"{path}.{key}") for key, item in obj.items()}
    raise InvalidInput(
        f"{path} is {obj!r}; write numbers, strings, booleans, None, and lists and tables of these"
    )


# -- names --------------------------------------------------------------------------------------


def _name(function: Any) -> str | None:
    """Returns the name under which another process finds a function; None: there is none."""
    if not isinstance(function, FunctionType):
        return None
    name, module = function.__qualname__, sys.modules.get(function.__module__)
    if module is None or vars(module).get(name) is not function:
        return None
    where = _name_module(module)
    return None if where is None else f"{where}:{name}"


def _name_module(module: ModuleType) -> str | None:
    """Returns a module's name; of a script, the one by which others import it."""
    if module.__name__ not in ("__main__", "__mp_main__"):
        return module.__name__
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).stem


def _split(name: str) -> tuple[str, str]:
    module, _, function = name.partition(":")
    steps = [*module.split("."), function]
    if not all(map(str.isidentifier, steps)) or "py" in steps[1:-1]:
        raise InvalidInput(
            f'function is {name!r}; write a module and a function in it, such as "my_training:train"'
        )
    return module, function


def _find(name: str) -> Callable[..., Any]:
    """Finds a training function among the modules that are imported. It imports nothing.

    The name may come from a stranger, so it must be that of a function which can train, in a module that is
    neither Python's nor Hanse's.
    """
    module_name, function_name = _split(name)
    top = module_name.partition(".")[0]
    main = sys.modules.get("__main__")
    module = sys.modules.get(module_name)
    if module is None and main is not None and _name_module(main) == module_name:
        module = main
    if module is None or top == "hanse" or top in sys.stdlib_module_names:
        file = f"{module_name}.py" if "." not in module_name else module_name
        raise InvalidInput(
            f"the training function {name!r} is in no module that was imported here; name its module: "
            f'imports = ["{file}"] in the settings, or --import {file}'
        )
    function = vars(module).get(function_name)
    if not isinstance(function, FunctionType) or function.__module__ != module.__name__:
        raise InvalidInput(
            f"the module {module_name!r} defines no function {function_name!r}; name one that it defines, "
            f'such as "{module_name}:train"'
        )
    _check_signature(function)
    return function
