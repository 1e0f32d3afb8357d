"""Inversion: rows whose gradient, or whose local training, matches what a client sent.

    DLG                    labels are searched too; squared distance           Zhu, Liu, Han 2019
    iDLG                   the label of one example is read off first          Zhao, Mopuri, Bilen 2020
    inverting gradients    cosine distance and total variation                 Geiping et al. 2020
    updates                the client's local steps are part of the descent    Geiping et al. 2020, section 6

All of it is done in float64 with PyTorch, by L-BFGS with a strong Wolfe line search, whatever engine the
client computed with.

References: Zhu, Liu, Han, "Deep leakage from gradients", NeurIPS 2019, arXiv 1906.08935; Zhao, Mopuri, Bilen,
"iDLG", 2020, arXiv 2001.02610; Geiping, Bauermeister, Dröge, Moeller, "Inverting gradients: how easy is it to
break privacy in federated learning?", NeurIPS 2020, arXiv 2003.14053.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from hanse.core import Array, Key, Tensors
from hanse.leakage.closed_forms import NotMeasured, Recovered

__all__ = ["Inversion", "Scores", "invert", "recognise_model"]

Scores: TypeAlias = Callable[[Mapping[str, Any], Any], Any]
"""A differentiable function of PyTorch, from parameters by name and rows to the scores of classes."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """The settings of an inversion.

    Args:
      distance: between what was sent and what a guess would send.
      total_variation: the weight of differences between neighbouring pixels of (height, width) images.
      prior: the weight of the squared distance to the mean of public rows.
      lr, num_steps: of the local descent, with all rows in each step, that led to an update; None and 0: the
        message is a gradient.
      num_restarts: from other random rows; the best match is kept.
      num_iterations: of L-BFGS for each.
      good: a match so close ends the search.
    """

    distance: Literal["squares", "cosine"] = "squares"
    total_variation: float = 0.0
    prior: float = 0.0
    lr: float | None = None
    num_steps: int = 0
    num_restarts: int = 4
    num_iterations: int = 300
    good: float = 1e-12


def recognise_model(params: Tensors) -> Scores:
    """Returns the scores of a linear model or a multi-layer perceptron, known by its parameters' names.

    Raises: NotMeasured: for another model; give `invert` a function of your own for it.
    """
    if "weights" in params:
        return lambda p, x: x.flatten(1) @ p["weights"] + p.get("bias", 0.0)
    depth = sum(name.startswith("hidden") and name.endswith(".weight") for name in params)
    names = [*(f"hidden{i + 1}" for i in range(depth)), "output"]
    if params.keys() != {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}:
        raise NotMeasured(
            f"parameters {sorted(params)} are of no model that can be differentiated here; give scores=, a "
            "function of PyTorch from parameters and rows to scores"
        )

    def compute(p: Mapping[str, Any], x: Any) -> Any:
        hidden = x.flatten(1)
        for name in names[:-1]:
            hidden = (hidden @ p[f"{name}.weight"].T + p[f"{name}.bias"]).relu()
        return hidden @ p["output.weight"].T + p["output.bias"]

    return compute


def invert(
    sent: Tensors,
    params: Tensors,
    feature_shape: tuple[int, ...],
    num_rows: int,
    *,
    key: Key,
    labels: Array | None = None,
    num_classes: int | None = None,
    scores: Scores | None = None,
    mean: Array | None = None,
    settings: Inversion = Inversion(),
) -> Recovered:
    """Searches rows that would have made a client send what it sent.

    Args:
      sent: a gradient of the mean loss, or an update.
      params: that the client began from.
      num_rows: of the client.
      labels: that are known, such as from `read_label`; None: they are searched too.
      num_classes: needed where they are searched.
      scores: of the model; None: see `recognise_model`.
      mean: of public rows, which the prior pulls to and the search begins near.

    Raises: NotMeasured: if PyTorch is missing, the model unknown, or the message of another form.
    """
    try:
        import torch
    except ImportError as error:
        raise NotMeasured("this attack needs PyTorch: pip install 'hanse[torch]'") from error
    if sent.keys() != params.keys() or not sent:
        raise NotMeasured(f"the message has {sorted(sent)}, the model {sorted(params)}; they must be alike")
    if labels is None and num_classes is None:
        raise NotMeasured("neither the labels nor the number of classes are known")
    compute, names = scores or recognise_model(params), list(params)
    start = {n: torch.tensor(np.asarray(v, np.float64), requires_grad=True) for n, v in params.items()}
    goal = [torch.tensor(np.asarray(sent[n], np.float64)) for n in names]
    size = sum(float((g * g).sum()) for g in goal)
    if not size > 0:
        raise NotMeasured("the message is 0, so it says nothing of the rows")
    fixed = None if labels is None else torch.tensor(np.asarray(labels, np.int64))
    middle = None if mean is None else torch.tensor(np.asarray(mean, np.float64).reshape(feature_shape))

    def differentiate(p: Mapping[str, Any], x: Any, y: Any) -> tuple[Any, ...]:
        logs = torch.log_softmax(compute(p, x), -1)
        shares = torch.nn.functional.one_hot(y, logs.shape[-1]) if y.dtype == torch.int64 else y.softmax(-1)
        found: tuple[Any, ...] = torch.autograd.grad(
            -(shares * logs).sum(-1).mean(), [p[n] for n in names], create_graph=True
        )
        return found

    def send(x: Any, y: Any) -> list[Any]:
        if settings.lr is None:
            return list(differentiate(start, x, y))
        now = dict(start)
        for _ in range(settings.num_steps):
            slopes = differentiate(now, x, y)
            now = {n: now[n] - settings.lr * slope for n, slope in zip(names, slopes, strict=True)}
        return [now[n] - start[n] for n in names]

    def measure(x: Any, y: Any) -> Any:
        made = send(x, y)
        if settings.distance == "squares":
            loss = sum(((a - b) ** 2).sum() for a, b in zip(made, goal, strict=True)) / size
        else:
            inner = sum((a * b).sum() for a, b in zip(made, goal, strict=True))
            square = sum((a * a).sum() for a in made)
            loss = 1 - inner / (square * size + 1e-300) ** 0.5
        if settings.total_variation and len(feature_shape) == 2:
            steps = (x[:, 1:] - x[:, :-1]).abs().mean() + (x[:, :, 1:] - x[:, :, :-1]).abs().mean()
            loss = loss + settings.total_variation * steps
        if settings.prior and middle is not None:
            loss = loss + settings.prior * ((x - middle) ** 2).mean()
        return loss

    best: tuple[float, Any, Any] | None = None
    for restart in range(settings.num_restarts):
        draws = key.fold_in("restart", restart).rng()
        begun = draws.normal(size=(num_rows, *feature_shape)) * (1.0 if middle is None else 0.1)
        x = torch.tensor(begun if middle is None else begun + middle.numpy(), requires_grad=True)
        y = fixed
        if y is None:
            y = torch.tensor(draws.normal(size=(num_rows, num_classes or 0)), requires_grad=True)
        searched = [x] if fixed is not None else [x, y]
        search = torch.optim.LBFGS(
            searched,
            max_iter=settings.num_iterations,
            history_size=50,
            tolerance_grad=1e-14,
            tolerance_change=1e-18,
            line_search_fn="strong_wolfe",
        )

        def close(x: Any = x, y: Any = y, search: Any = search) -> Any:
            search.zero_grad()
            loss = measure(x, y)
            slopes = torch.autograd.grad(loss, search.param_groups[0]["params"])
            for one, slope in zip(search.param_groups[0]["params"], slopes, strict=True):
                one.grad = slope
            return loss.detach()

        with threadpool_limits(1):  # the products are small: threads would only wait for each other
            search.step(close)
        match = float(measure(x, y).detach())
        if np.isfinite(match) and (best is None or match < best[0]):
            best = match, x.detach().numpy(), y.detach()
        if best is not None and best[0] < settings.good:
            break
    if best is None:
        raise NotMeasured(f"no search of {settings.num_restarts} stayed finite")
    found = best[2] if fixed is not None else best[2].argmax(-1)
    return Recovered(best[1], found.numpy())
