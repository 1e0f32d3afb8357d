"""Names of training functions of the user's own, and which functions can train.

A name may come from a stranger. So it is looked for only among the modules that the user of this process has
imported for reasons of their own, and nothing is imported for it.
"""

import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from hanse.core import InvalidInput
from hanse.imports import is_loaded

__all__ = [
    "NotingDict",
    "call_name",
    "can_train",
    "check_signature",
    "find_function",
    "name_function",
    "split_name",
]

INSTALLED_NAMES = {"site-packages", "dist-packages"}
"""The names of folders of installed packages."""

INSTALLED = [
    Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")
]
"""The folders of Python and of installed packages."""

OFFERED = ("data", "config", "key", "memory")
"""The names of the arguments after the first."""


def call_name(function: Any) -> str:
    """Returns the words for a function in messages."""
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def check_signature(function: Any) -> tuple[str, ...]:
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
            f"{call_name(function)} can't train: after the model it takes "
            f"{', '.join(p.name for p in others) or 'nothing'}; write def train(model, data, config, key), "
            "and memory if it keeps something"
        )
    return takes


def can_train(function: Any) -> bool:
    """Returns whether a function takes the arguments that `trained_by` gives."""
    try:
        return bool(check_signature(function))
    except InvalidInput:
        return False


def name_function(function: Any) -> str | None:
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


def split_name(name: str) -> tuple[str, str]:
    """Splits the name of a function into those of its module and of itself. Raises: InvalidInput."""
    module, _, function = name.partition(":")
    steps = [*module.split("."), function]
    if not all(map(str.isidentifier, steps)) or "py" in steps[1:-1]:
        raise InvalidInput(
            f'function is {name!r}; write a module and a function in it, such as "my_training:train"'
        )
    return module, function


def _is_own_file(module: ModuleType) -> bool:
    """Returns whether a module is of a file that is neither Python's nor installed."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.partition(".")[0] in sys.stdlib_module_names:
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in INSTALLED) and not INSTALLED_NAMES & set(
        path.parts
    )


def find_function(name: str) -> Callable[..., Any]:
    """Finds a training function among the modules that are imported. It imports nothing.

    The name may come from a stranger. So it must be that of a function which can train, in a module that the
    settings import, in the user's script, or in another file of the user's own: nothing that is installed.
    """
    module_name, function_name = split_name(name)
    top = module_name.partition(".")[0]
    main = sys.modules.get("__main__")
    module = sys.modules.get(module_name)
    if module is None and main is not None and _name_module(main) == module_name:
        module = main
    if (
        module is None
        or not (is_loaded(module_name) or module is main or _is_own_file(module))
        or top == "hanse"
    ):
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
    check_signature(function)
    return function


class NotingDict(dict[str, Any]):
    """A dictionary that notes which keys are read. Whoever takes it as a whole reads all of them."""

    def __init__(self, held: Mapping[str, Any], read: set[str]) -> None:
        super().__init__(held)
        self._read = read

    def _note_all(self) -> None:
        self._read.update(super().keys())

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._read.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self._read.add(key)
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        return super().setdefault(key, default)

    def __iter__(self) -> Iterator[str]:
        self._note_all()
        return super().__iter__()

    def keys(self) -> Any:
        self._note_all()
        return super().keys()

    def values(self) -> Any:
        self._note_all()
        return super().values()

    def items(self) -> Any:
        self._note_all()
        return super().items()

    def copy(self) -> dict[str, Any]:
        self._note_all()
        return super().copy()

    def __or__(self, other: Any) -> Any:
        self._note_all()
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        self._note_all()
        return other | dict(self)

    def __eq__(self, other: object) -> bool:
        self._note_all()
        return super().__eq__(other)

    __hash__ = None

    def __repr__(self) -> str:
        self._note_all()
        return super().__repr__()
