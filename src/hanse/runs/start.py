"""Initial parameters from a safetensors file, checked against the model."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from hanse.core import InvalidInput, Tensors, nearest

__all__ = ["initial", "read_tensors"]


def read_tensors(path: str) -> dict[str, np.ndarray]:
    """Reads all tensors of a safetensors file. Raises: InvalidInput: if it can't be read."""
    try:
        return dict(load(Path(path).read_bytes()))
    except FileNotFoundError:
        raise InvalidInput(
            f"no file {path!r}; name a safetensors file, as `hanse release` writes it"
        ) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise InvalidInput(f"{path} can't be read as safetensors: {error}") from None


def initial(path: str, params: Tensors) -> Tensors:
    """Reads initial parameters from a file, in the dtypes of the model's own.

    Args:
      path: the file.
      params: the model's own initial parameters, with the names and shapes that are needed.

    Raises: InvalidInput: if a tensor is missing, left over, of another shape or not finite.
    """
    found = read_tensors(path)
    for name in params:
        if name not in found:
            raise InvalidInput(f"initial: {path} has no tensor {name!r}; {nearest(name, found)}")
    extra = sorted(found.keys() - params.keys())
    if extra:
        raise InvalidInput(
            f"initial: {path} holds {extra[0]!r}, which the model ({', '.join(params)}) does not have; "
            "write the model that the file was made with"
        )
    started = {}
    for name, own in params.items():
        if found[name].shape != own.shape:
            raise InvalidInput(
                f"initial: {name!r} has shape {found[name].shape} in {path}, and the model's is {own.shape}; "
                "write the model, and data of the shape, that the file was made with"
            )
        if not np.all(np.isfinite(found[name])):
            raise InvalidInput(f"initial: {name!r} in {path} is not finite; take another file")
        started[name] = found[name].astype(own.dtype)
    return started
