"""Sums of clipped gradients of single examples on PyTorch.

Dense layers tell the norm of an example's gradient without the gradient: for activations a and derivatives d
by the outputs it is the root of |d|² (|a|² + 1), with the 1 for a bias. All other modules are computed by
`torch.func.vmap`, some examples at a time, or one by one where an operation has no such form.

References: Goodfellow, "Efficient per-example gradient computations", arXiv 1510.01799; Li, Tramèr, Liang,
Hashimoto, "Large language models can be strong differentially private learners", ICLR 2022, arXiv 2110.05679
(ghost clipping).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from hanse.core import Array, InvalidInput
from hanse.learners.torch.losses import BatchLoss, Checked, Tensor
from hanse.learners.torch.networks import Perceptron
from hanse.learners.torch.workbench import ROWS_AT_ONCE, Workbench

__all__ = ["check_examples_apart", "clip_and_sum"]

ROWS_CLIPPED_AT_ONCE = 16
"""Examples whose gradients are held together: each takes as much memory as the parameters."""

PLAIN = (
    nn.Linear,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
)
"""Modules that compute each row of a batch by itself, and have no parameters beside those of `nn.Linear`."""


def check_examples_apart(bench: Workbench) -> None:
    """Checks that an example's gradient does not depend on others. Raises: InvalidInput: if it does."""
    for name, module in bench.module.named_modules():
        is_batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if is_batch or getattr(module, "track_running_stats", False):
            raise InvalidInput(
                f"the module's part {name!r} is {type(module).__name__}, which mixes the examples of a "
                "batch, so that no example's own gradient exists; privacy of examples needs GroupNorm, "
                "LayerNorm or no normalisation in its place"
            )
    if bench.buffers:
        raise InvalidInput(
            f"the buffers {', '.join(bench.buffers)} would be sent, and what training writes into them is "
            "not clipped; leave buffers=averaged_buffers() out"
        )


def clip_and_sum(
    bench: Workbench, loss: BatchLoss, x: Array, y: Array, max_norm: float, ready: bool
) -> list[Tensor]:
    """Returns the sums of clipped gradients, in the order of the trained parameters.

    Args:
      bench: loaded, in the mode in which it is to compute.
      ready: whether module and loss are Hanse's own.
    """
    layers = _find_dense(bench, loss, ready)
    totals = [torch.zeros_like(w) for w in bench.trained.values()]
    if layers is not None:
        for start in range(0, len(y), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            if not _add_by_norms(bench, loss, layers, x[rows], y[rows], max_norm, totals):
                break
        else:
            return totals
    totals = [total.zero_() for total in totals]
    for gradients in _gradients(bench, loss, x, y):
        flat = [g.flatten(1) for g in gradients]
        norms = torch.stack([g.square().sum(1) for g in flat]).sum(0).sqrt()
        factors = _shrink(norms, max_norm)
        for total, gradient in zip(totals, flat, strict=True):
            known = torch.where(norms.isfinite()[:, None], gradient, 0.0)
            total += (factors @ known).reshape(total.shape)
    return totals


def _shrink(norms: Tensor, max_norm: float) -> Tensor:
    """Returns the factors that bring norms to `max_norm` at most; 0 for those that are not finite."""
    factors = torch.where(norms > max_norm, max_norm / norms, torch.ones_like(norms))
    return torch.where(norms.isfinite(), factors, torch.zeros_like(norms))


def _find_dense(bench: Workbench, loss: BatchLoss, ready: bool) -> list[nn.Linear] | None:
    """Finds the layers of a module that consists of dense layers; None: it has other parts."""
    module = bench.module
    if not (ready or isinstance(loss.mean, Checked)):
        return None  # a user's own loss may not be a mean over examples
    if type(module) is not Perceptron and not _is_plain(module):
        return None
    layers = [part for part in module.modules() if type(part) is nn.Linear]
    held = [id(w) for layer in layers for w in layer.parameters()]
    trained = {id(w) for w in bench.trained.values()}
    return layers if len(held) == len(set(held)) and set(held) == trained else None


def _is_plain(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if type(module) is nn.Sequential:
        parts = list(module)
        return len({id(part) for part in parts}) == len(parts) and all(map(_is_plain, parts))
    if type(module) is nn.Flatten and module.start_dim != 1:
        return False
    # in place, it would change the outputs by which the derivatives are taken
    return type(module) in PLAIN and not getattr(module, "inplace", False)


def _add_by_norms(
    bench: Workbench,
    loss: BatchLoss,
    layers: list[nn.Linear],
    x: Array,
    y: Array,
    max_norm: float,
    totals: list[Tensor],
) -> bool:
    """Adds gradients clipped by norms of activations and derivatives; returns whether that was possible."""
    seen: dict[nn.Linear, tuple[Tensor, Tensor]] = {}
    calls = list[nn.Linear]()

    def note(layer: nn.Linear, given: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(layer)
        seen[layer] = given[0].detach(), output

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(note).remove)
        outputs = bench.module(bench.tensor(x))
        mean = loss.mean(outputs, bench.tensor(y))
    if not len(calls) == len(seen) == len(layers) or any(given.ndim != 2 for given, _ in seen.values()):
        return False
    derivatives = torch.autograd.grad(mean * len(y), [seen[layer][1] for layer in layers])
    with torch.no_grad():
        squares = torch.zeros(len(y), dtype=mean.dtype, device=mean.device)
        for layer, by_outputs in zip(layers, derivatives, strict=True):
            more = 0.0 if layer.bias is None else 1.0
            squares += by_outputs.square().sum(1) * (seen[layer][0].square().sum(1) + more)
        norms = squares.sqrt()
        factors = _shrink(norms, max_norm)[:, None]
        places = {id(w): total for w, total in zip(bench.trained.values(), totals, strict=True)}
        for layer, by_outputs in zip(layers, derivatives, strict=True):
            known = norms.isfinite()[:, None]
            clipped = torch.where(known, by_outputs, 0.0) * factors
            given = torch.where(known, seen[layer][0], 0.0)
            places[id(layer.weight)].addmm_(clipped.t(), given)
            if layer.bias is not None:
                places[id(layer.bias)] += clipped.sum(0)
    return True


def _gradients(bench: Workbench, loss: BatchLoss, x: Array, y: Array) -> Iterator[list[Tensor]]:
    """Yields the gradients of some examples at a time, with a leading axis of examples."""
    names = list(bench.trained)
    trained = {name: w.detach() for name, w in bench.trained.items()}
    others = {
        name: t.detach()
        for name, t in (*bench.module.named_parameters(), *bench.module.named_buffers())
        if name not in trained
    }

    def compute(weights: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        fresh = {name: t.clone() for name, t in others.items()}  # an example leaves nothing to the next
        return loss.mean(functional_call(bench.module, {**weights, **fresh}, (row[None],)), label[None])

    together = vmap(grad(compute), in_dims=(None, 0, 0), randomness="different")
    is_vmapped = True
    for start in range(0, len(y), ROWS_CLIPPED_AT_ONCE):
        rows = slice(start, start + ROWS_CLIPPED_AT_ONCE)
        some, labels = bench.tensor(x[rows]), bench.tensor(y[rows])
        if is_vmapped:
            try:
                with _refuse_fallbacks():
                    found = together(trained, some, labels)
            except (RuntimeError, NotImplementedError):
                is_vmapped = False
            else:
                yield [found[name] for name in names]
                continue
        alone = [
            _compute_alone(compute, trained, row, label) for row, label in zip(some, labels, strict=True)
        ]
        yield [torch.stack(parts) for parts in zip(*alone, strict=True)]


@contextmanager
def _refuse_fallbacks() -> Iterator[None]:
    """Lets vmap raise where it would compute one by one by itself, more slowly, with a warning at first."""
    before = torch._C._functorch._is_vmap_fallback_enabled()
    torch._C._functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        torch._C._functorch._set_vmap_fallback_enabled(before)


def _compute_alone(compute: Any, trained: dict[str, Tensor], row: Tensor, label: Tensor) -> list[Tensor]:
    weights = {name: w.clone().requires_grad_() for name, w in trained.items()}
    found = torch.autograd.grad(
        compute(weights, row, label), tuple(weights.values()), allow_unused=True, materialize_grads=True
    )
    return list(found)
