"""A PyTorch module as the learner computes with it: loaded with parameters, read, lent."""

import io
import pickle
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from hanse.core import Array, InvalidInput, Tensors
from hanse.learners.torch.losses import Tensor

__all__ = ["ROWS_AT_ONCE", "Workbench", "to_array"]

ROWS_AT_ONCE = 500
"""Number of examples that are evaluated, or whose gradient is computed, together."""


class Workbench:
    """A module and its tensors that are sent: trained parameters, and buffers on request.

    Args:
      module: overwritten by each use.
      sends_buffers: whether buffers are sent.
    """

    def __init__(self, module: nn.Module, sends_buffers: bool) -> None:
        self.module, self._sends_buffers = module, sends_buffers
        _check_made(module)
        self.trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not self.trained:
            raise InvalidInput("the module has no parameter that requires a gradient; nothing can be trained")
        names = set(module.state_dict())
        buffers = {name: b for name, b in module.named_buffers() if b.is_floating_point() and name in names}
        buffers = buffers if sends_buffers else {}
        self.buffers = {name: b for name, b in buffers.items() if torch.isfinite(b).all()}
        self._infinite = {name: b for name, b in buffers.items() if name not in self.buffers}
        self.norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        self.needs_several = any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) and not m.track_running_stats for m in self.norms
        )
        self._own_norms = [] if sends_buffers else [m for m in self.norms if m.track_running_stats]
        self._untouched = {name: b.clone() for name, b in module.named_buffers()}
        self.dtype = _dtype(self.trained)
        self.device: torch.device = next(iter(self.trained.values())).device
        self._trains = False  # whether the whole module is in training mode: asking it visits every part

    @property
    def to_device(self) -> dict[str, Tensor]:
        """All tensors that are sent, by name."""
        return {**self.trained, **self.buffers}

    @property
    def embeds(self) -> bool:
        """True if the module may look up integers in an embedding."""
        return any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in self.module.modules())

    def load(self, params: Tensors) -> None:
        """Loads parameters; buffers that are not sent start as they were made."""
        loaded = self.to_device
        if params.keys() != loaded.keys():
            missing, extra = sorted(loaded.keys() - params.keys()), sorted(params.keys() - loaded.keys())
            raise InvalidInput(f"parameters of another model: missing {missing}, unknown {extra}")
        with torch.no_grad():
            for name, tensor in self.module.named_buffers():
                if name not in self.buffers:
                    tensor.copy_(self._untouched[name])
            for name, tensor in loaded.items():
                tensor.copy_(self.tensor(np.asarray(params[name], self.dtype)))

    def tensor(self, array: Array) -> Tensor:
        """Puts an array on the module's device; the tensor may share its memory."""
        shared = torch.from_numpy(array if array.flags.writeable else array.copy())
        return shared if self.device.type == "cpu" else shared.to(self.device)

    def read(self, order: Sequence[str]) -> dict[str, Array]:
        """Returns copies of the tensors that are sent."""
        taken = self.to_device
        return {name: to_array(taken[name]) for name in order}

    def lend(self) -> nn.Module:
        """Returns the module in training mode, for a loop of the user's own."""
        return self.module.train()

    @cached_property
    def can_copy(self) -> bool:
        """True if a copy shares nothing with the module. A lambda in it, for one, might still refer to it."""
        try:
            _Whole(io.BytesIO()).dump(self.module)
            deepcopy(self.module)
        except Exception:  # whatever the user's own classes raise
            return False
        return True

    def copy(self) -> "Workbench":
        """Copies the module, if `can_copy`."""
        return Workbench(deepcopy(self.module), self._sends_buffers)

    def read_lent(self, found: Any) -> Any:
        """Returns the tensors that are sent, by name, of what a user's own loop has trained."""
        module = self.module if found is None else found
        if not isinstance(module, nn.Module):
            return found
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        missing = next((name for name in self.to_device if name not in tensors), None)
        if missing is not None:
            raise InvalidInput(
                f"the training function returned a module without {missing!r}; return one like the module "
                "that it was given (of an AveragedModel, its .module)"
            )
        return {name: tensors[name] for name in self.to_device}

    def check_infinite(self) -> None:
        """Checks that buffers with infinite values, which are not sent, are as they were made.

        Raises: InvalidInput: if training changed one.
        """
        for name, buffer in self._infinite.items():
            made = self._untouched[name]
            if not ((buffer == made) | (buffer.isnan() & made.isnan())).all():
                raise InvalidInput(
                    f"training changes the buffer {name!r}, which began with values that are not finite, so "
                    "that it can't be averaged; begin it with finite numbers, or keep it at the client: "
                    "register_buffer(..., persistent=False)"
                )

    def load_frozen(self, frozen: Mapping[str, Tensor]) -> None:
        """Loads parameters that are not trained from another bench, in case a factory draws them itself."""
        with torch.no_grad():
            for name, weight in self.frozen.items():
                weight.copy_(frozen[name])

    def check_frozen(self, before: Mapping[str, Tensor]) -> None:
        """Checks that a loan left frozen parameters as they were. Raises: InvalidInput: if one changed."""
        for name, weight in self.module.named_parameters():
            was = before.get(name)
            if was is None or (was.dtype, was.shape) != (weight.dtype, weight.shape):
                continue
            if not torch.equal(was, weight.detach()):
                raise InvalidInput(
                    f"the training function changed {name!r}, which is frozen and so is not sent: let it "
                    "require gradients where the module is made, or leave it as it is"
                )

    @property
    def frozen(self) -> dict[str, Tensor]:
        """The parameters that are not trained, by name."""
        return {name: p.detach() for name, p in self.module.named_parameters() if name not in self.trained}

    def train(self, num_rows: int) -> None:
        """Prepares for a batch. One row has no statistics, so the running ones normalise it."""
        if not self._trains:
            self.module.train()
        self._trains = num_rows > 1 or not self.norms
        if not self._trains:
            for norm in self.norms:
                norm.eval()

    def evaluate(self, x: Array) -> None:
        """Prepares to measure examples. Statistics that are not sent are taken from these examples.

        One example has none; it is normalised by those that the module was made with, as in training.
        """
        self.module.eval()
        self._trains = False
        if not self._own_norms or len(x) == 1:
            return
        momenta = [norm.momentum for norm in self._own_norms]
        for norm in self._own_norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all batches
            norm.train()
        with torch.no_grad():
            for rows in np.array_split(x, -(-len(x) // ROWS_AT_ONCE)):
                self.module(self.tensor(rows))
        for norm, momentum in zip(self._own_norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


class _Whole(pickle.Pickler):
    """Goes through all that a module holds but the values of its tensors.

    It fails at functions that have no name, which a copy of the module would share.
    """

    def persistent_id(self, obj: Any) -> str | None:
        """Skips tensors."""
        return "tensor" if isinstance(obj, torch.Tensor) else None


def _check_made(module: nn.Module) -> None:
    tensors = (*module.named_parameters(), *module.named_buffers())
    unmade = next((name for name, t in tensors if nn.parameter.is_lazy(t)), None)
    if unmade is not None:
        raise InvalidInput(
            f"the module does not know the shape of {unmade!r} yet; let the factory call it once on a row of "
            "features, or name the shape"
        )


def _dtype(trained: Mapping[str, Tensor]) -> str:
    dtypes = {str(p.dtype).removeprefix("torch.") for p in trained.values()}
    if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
        raise InvalidInput(
            f"parameters of dtype {' and '.join(sorted(dtypes))}; return module.float() or module.double() "
            "from the factory"
        )
    return dtypes.pop()


def to_array(tensor: Tensor) -> Array:
    """Copies a tensor to an array, as float32 where NumPy has no such numbers (bfloat16)."""
    found = tensor.detach().cpu()
    if found.is_floating_point() and found.dtype not in (torch.float16, torch.float32, torch.float64):
        found = found.float()
    return np.array(found.numpy(), order="C")
