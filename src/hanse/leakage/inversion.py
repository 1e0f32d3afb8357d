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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
      num_iterations: the most steps of L-BFGS for each, with at most 5/4 as many gradients.
      good: a match so close ends the search.

    A search takes at most `num_restarts` times `num_iterations` steps, each of `num_steps` local steps.
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
    seen: Callable[[int, int], None] = lambda done, total: None,
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
      seen: is called with the number of restarts that are done, and of all.

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
    compute = scores or recognise_model(params)
    if not any(np.any(tensor) for tensor in sent.values()):
        raise NotMeasured("the message is 0, so it says nothing of the rows")
    middle = None if mean is None else np.asarray(mean, np.float64).reshape(feature_shape)
    match = _Match(torch, compute, params, sent, middle, settings)
    with _compute_alone(torch):
        best = _search_often(match, num_rows, feature_shape, key, labels, num_classes, middle, seen)
    if best is None:
        raise NotMeasured(f"no search of {settings.num_restarts} stayed finite")
    return Recovered(best[0], (best[1] if labels is not None else best[1].argmax(-1)).numpy())


@contextmanager
def _compute_alone(torch: Any) -> Iterator[None]:
    """Computes in one thread: tensors of a search are small, and threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _search_often(
    match: "_Match",
    num_rows: int,
    feature_shape: tuple[int, ...],
    key: Key,
    labels: Array | None,
    num_classes: int | None,
    middle: Array | None,
    seen: Callable[[int, int], None],
) -> tuple[Array, Any] | None:
    """Searches from other random rows each time; returns the best rows and labels, if any are finite."""
    torch, settings = match.torch, match.settings
    best: tuple[float, Any, Any] | None = None
    for restart in range(settings.num_restarts):
        draws = key.fold_in("restart", restart).rng()
        begun = draws.normal(size=(num_rows, *feature_shape)) * (1.0 if middle is None else 0.1)
        x = torch.tensor(begun if middle is None else begun + middle, requires_grad=True)
        if labels is None:
            y = torch.tensor(draws.normal(size=(num_rows, num_classes or 0)), requires_grad=True)
        else:
            y = torch.tensor(np.asarray(labels, np.int64))
        found = match.search(x, y)
        if np.isfinite(found) and (best is None or found < best[0]):
            best = found, x.detach().numpy(), y.detach()
        seen(restart + 1, settings.num_restarts)
        if best is not None and best[0] < settings.good:
            break
    return None if best is None else best[1:]


class _Match:
    """The distance between what a client sent and what guessed rows would send, and its descent.

    Args:
      torch: the module, which is imported only where it is used.
      middle: the mean of public rows.
    """

    def __init__(
        self,
        torch: Any,
        compute: Scores,
        params: Tensors,
        sent: Tensors,
        middle: Array | None,
        settings: Inversion,
    ) -> None:
        self.torch, self._compute, self.settings, self._names = torch, compute, settings, list(params)
        self._start = {
            n: torch.tensor(np.asarray(v, np.float64), requires_grad=True) for n, v in params.items()
        }
        self._goal = [torch.tensor(np.asarray(sent[n], np.float64)) for n in self._names]
        self._size = sum(float((goal * goal).sum()) for goal in self._goal)
        self._middle = None if middle is None else torch.tensor(middle)

    def search(self, x: Any, y: Any) -> float:
        """Descends from a guess, which it changes in place; returns the match that it reaches."""
        searched = [one for one in (x, y) if one.requires_grad]
        descent = self.torch.optim.LBFGS(
            searched,
            max_iter=self.settings.num_iterations,
            history_size=50,
            tolerance_grad=1e-14,
            tolerance_change=1e-18,
            line_search_fn="strong_wolfe",
        )

        def measure_slope() -> Any:
            loss = self.measure(x, y)
            for one, slope in zip(searched, self.torch.autograd.grad(loss, searched), strict=True):
                one.grad = slope
            return loss.detach()

        with threadpool_limits(1):  # the products are small: threads would only wait for each other
            descent.step(measure_slope)
        return float(self.measure(x, y).detach())

    def measure(self, x: Any, y: Any) -> Any:
        """Returns the distance of a guess, and what its prior adds."""
        made, settings = self._send(x, y), self.settings
        if settings.distance == "squares":
            squares = (((a - b) ** 2).sum() for a, b in zip(made, self._goal, strict=True))
            loss = sum(squares) / self._size
        else:
            inner = sum((a * b).sum() for a, b in zip(made, self._goal, strict=True))
            square = sum((a * a).sum() for a in made)
            loss = 1 - inner / (square * self._size + 1e-300) ** 0.5
        if settings.total_variation and x.dim() == 3:
            steps = (x[:, 1:] - x[:, :-1]).abs().mean() + (x[:, :, 1:] - x[:, :, :-1]).abs().mean()
            loss = loss + settings.total_variation * steps
        if settings.prior and self._middle is not None:
            loss = loss + settings.prior * ((x - self._middle) ** 2).mean()
        return loss

    def _send(self, x: Any, y: Any) -> list[Any]:
        """Returns what a client of these rows would send: its gradient, or the update of its local steps."""
        if self.settings.lr is None:
            return list(self._differentiate(self._start, x, y))
        now = dict(self._start)
        for _ in range(self.settings.num_steps):
            slopes = self._differentiate(now, x, y)
            now = {n: now[n] - self.settings.lr * s for n, s in zip(self._names, slopes, strict=True)}
        return [now[n] - self._start[n] for n in self._names]

    def _differentiate(self, p: Mapping[str, Any], x: Any, y: Any) -> tuple[Any, ...]:
        """Returns the gradient of the mean loss; labels are numbers of classes, or scores to search."""
        torch = self.torch
        logs = torch.log_softmax(self._compute(p, x), -1)
        shares = torch.nn.functional.one_hot(y, logs.shape[-1]) if y.dtype == torch.int64 else y.softmax(-1)
        loss = -(shares * logs).sum(-1).mean()
        return tuple(torch.autograd.grad(loss, [p[n] for n in self._names], create_graph=True))
