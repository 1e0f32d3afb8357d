"""Data that a user's own function returns."""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hanse.core import Examples, InvalidInput, nearest, value
from hanse.data.checks import count_classes
from hanse.data.datasets import Dataset, TrainTest, arrays

__all__ = ["custom"]


@value
class custom(Dataset):
    """Data that a user's own function returns when called without arguments.

    It returns (x, y), of which a fifth is held out for testing; (x, y, test_x, test_y); an `Examples` or a
    `TrainTest`, which stay as they are; or a data set such as `arrays(...)`, which is then loaded.

    >>> custom("sklearn.datasets:load_iris")
    custom(function='sklearn.datasets:load_iris')

    Args:
      function: "package.module:function", or "path/to/file.py:function".
    Raises: InvalidInput: if there is no such function, or what it returns can't be used.
    """

    function: str

    def __post_init__(self) -> None:
        module, colon, name = self.function.rpartition(":")
        if not colon or not module or not name.isidentifier():
            raise InvalidInput(
                f'function is {self.function!r}; write "package.module:function" or "file.py:function"'
            )

    def load(self) -> TrainTest:
        """Calls the function and checks what it returns."""
        return _as_data(self._found()(), self.function)

    def _found(self) -> Callable[[], Any]:
        where, _, name = self.function.rpartition(":")
        module = _from_file(Path(where)) if where.endswith(".py") else _import(where)
        function = getattr(module, name, None)
        if not callable(function):
            known = [n for n, member in vars(module).items() if inspect.isfunction(member)]
            raise InvalidInput(f"{where} has no function {name!r}; {nearest(name, known)}")
        return function  # type: ignore[no-any-return]


def _from_file(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"_custom_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InvalidInput(f"no file {str(path)!r}; name a Python file, from the folder that you work in")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        raise InvalidInput(
            f"no module {error.name!r} is installed; for a file write its path: "
            f'"{name.replace(".", "/")}.py:function"'
        ) from None


def _as_data(given: Any, function: str) -> TrainTest:
    if isinstance(given, Dataset):
        given = given.load()
    if isinstance(given, TrainTest):
        return given
    if isinstance(given, Examples):
        return TrainTest(given, None, count_classes(given.y))
    if isinstance(given, tuple) and len(given) in (2, 4):
        x, y, test_x, test_y = (*given, None, None)[:4]
        return arrays(x, y, test_x=test_x, test_y=test_y).load()
    raise InvalidInput(
        f"{function} returns a {type(given).__name__}; let it return (x, y), (x, y, test_x, test_y), "
        "Examples, TrainTest or a data set"
    )
