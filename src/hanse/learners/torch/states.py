"""State that a module keeps outside of its parameters and buffers, so that clients would inherit it."""

import hashlib
import io
import pickle
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hanse.core import InvalidInput
from hanse.learners.torch.losses import Tensor

__all__ = ["check_repeats"]

OWN = frozenset(vars(nn.Module()))
"""The attributes that every module has: parameters, buffers, parts, hooks, and the mode."""


def check_repeats(module: nn.Module, loss: Any, compute: Callable[[], Sequence[Tensor]]) -> None:
    """Computes gradients twice from one start, and checks that the second time is as the first.

    Otherwise a client's training would depend on which clients the same process computed before it, and so on
    the order of clients and on the number of processes.

    Args:
      module: the user's own.
      loss: the user's own, or None.
      compute: loads the start, seeds PyTorch's generator, and returns the gradients of some batches.

    Raises: InvalidInput: naming the attribute that changes, if it is one.
    """
    parts = {"": module, **({"(loss) ": loss} if isinstance(loss, nn.Module) else {})}
    first = [digest_tensor(gradient) for gradient in compute()]
    before = _digest_attributes(parts)
    second = [digest_tensor(gradient) for gradient in compute()]
    after = _digest_attributes(parts)
    changed = next((name for name in after if before.get(name) != after[name]), None)
    if changed is not None:
        raise InvalidInput(
            f"the module changes {changed} whenever it computes, so that a client would begin with what "
            "others left there, and the result would depend on their order and on the number of processes. "
            "Keep it in a buffer, which begins anew at each client: self.register_buffer(...), with integers "
            "or persistent=False; or leave it out"
        )
    if first != second and next(iter(module.parameters())).device.type == "cpu":
        raise InvalidInput(
            "the module, or its loss, computed twice from one start, gave two different gradients, so that "
            "the result would depend on the order of clients and on the number of processes. Draw from "
            "PyTorch's own generator (torch.rand and the like), which is seeded for each client, and keep no "
            "state in global variables"
        )


def digest_tensor(tensor: Tensor) -> bytes:
    """Returns a digest of a tensor's values."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        return repr((tensor.dtype, tensor.shape)).encode()
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(values.data).digest()


def _digest_attributes(parts: Mapping[str, nn.Module]) -> dict[str, bytes]:
    """Digests the attributes that users' classes keep, and frozen parameters, by name."""
    found = dict[str, bytes]()
    for prefix, module in parts.items():
        known = {id(t): name for name, t in (*module.named_parameters(), *module.named_buffers())}
        for path, part in module.named_modules():
            where = f"{prefix}{path}." if path else prefix
            for name, attribute in _list_attributes(part):
                found[f"{where}{name}"] = _digest(attribute, known)
        for name, weight in module.named_parameters():
            if not weight.requires_grad:
                found[f"{prefix}{name} (a frozen parameter)"] = digest_tensor(weight)
    return found


def _list_attributes(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields the attributes of a part and of its classes, where these are not PyTorch's own."""
    classes = [
        cls for cls in type(part).__mro__ if cls.__module__.partition(".")[0] != "torch" and cls is not object
    ]
    if not classes:
        return
    yield from ((name, item) for name, item in vars(part).items() if name not in OWN)
    for cls in classes:
        for name, item in vars(cls).items():
            if not name.startswith("__") and not callable(item) and not hasattr(item, "__get__"):
                yield f"{cls.__name__}.{name}", item


def _digest(attribute: Any, known: Mapping[int, str]) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _Values(file, known).dump(attribute)
        except Exception:  # whatever the user's own classes raise
            return b""
    return hashlib.sha256(file.getbuffer()).digest()


class _Values(pickle.Pickler):
    """Writes down the values that an object holds. They are never read again, so anything has a form."""

    def __init__(self, file: io.BytesIO, known: Mapping[int, str]) -> None:
        super().__init__(file, 4)
        self._known = known

    def persistent_id(self, obj: Any) -> Any:
        """Names parameters and buffers, which each use loads anew, and digests other tensors."""
        if not isinstance(obj, torch.Tensor):
            return None
        return self._known.get(id(obj)) or digest_tensor(obj)

    def reducer_override(self, obj: Any) -> Any:
        """Writes functions as their names and what they enclose, and what has no form as its class."""
        if obj is str:
            return NotImplemented
        if isinstance(obj, types.FunctionType):
            return str, (obj.__qualname__,), [cell.cell_contents for cell in obj.__closure__ or ()]
        if isinstance(obj, torch.Generator):
            return str, ("generator",), obj.get_state()
        if isinstance(obj, type | types.ModuleType | types.BuiltinFunctionType):
            return str, (str(obj),)
        try:
            found = obj.__reduce_ex__(4)
        except Exception:  # whatever the user's own classes raise
            return str, (str(type(obj)),)
        return (str, (found,)) if isinstance(found, str) else found
