"""Compiled programs of a model on JAX: local descent, gradients, Hessian-vector products, metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from hanse.core import InvalidInput, StepRule, Steps

__all__ = [
    "Params",
    "Program",
    "StepSettings",
    "Traced",
    "apply_prediction",
    "count_vmap_programs",
    "descend",
    "descend_lanes",
    "hessian_vector",
    "jax_key",
    "loss_gradient",
    "measure",
    "pad_size",
    "power_of_two",
    "sum_clipped_gradients",
    "to_device",
]

Traced: TypeAlias = Any
"""An array inside a compiled program."""

Params: TypeAlias = Any
"""Arrays inside a compiled program, by name."""

Slots: TypeAlias = Any
"""The memory of a rule from step to step: a tuple of `Params`."""


@dataclass(frozen=True)
class Program:
    """A model as compiled programs see it. Equal ones share their compiled programs.

    Args:
      scores: from parameters and features.
      train: the same with a key, where training differs.
      losses: (n,) from scores and labels.
      measures: (n,) further metrics from scores and labels.
      predicts: probabilities, or numbers, from scores.
      l2: strength of the regulariser.
      rows_at_once: examples whose gradient is computed together.
    """

    scores: Callable[[Params, Traced], Traced]
    train: Callable[[Params, Traced, Traced], Traced] | None
    losses: Callable[[Traced, Traced], Traced]
    measures: tuple[Callable[[Traced, Traced], Traced], ...]
    predicts: Callable[[Traced], Traced]
    l2: float
    rows_at_once: int

    def pad_rows(self, num_rows: int) -> int:
        """Returns the size to which this many rows are padded, which splits into equal parts."""
        if num_rows <= self.rows_at_once:
            return min(max(8, pad_size(num_rows)), self.rows_at_once)
        return self.rows_at_once * pad_size(-(-num_rows // self.rows_at_once))

    def pad_lanes(self, num_rows: int) -> int:
        """Returns the size to which the rows of several clients' batches are padded: one in each doubling."""
        if num_rows <= self.rows_at_once:
            return min(power_of_two(num_rows), self.rows_at_once)
        num_parts = -(-num_rows // self.rows_at_once)
        return self.rows_at_once << (num_parts - 1).bit_length()

    def mean_loss(self, params: Params, x: Traced, y: Traced, weights: Traced, key: Traced = None) -> Traced:
        """Returns Σ weight loss; in training, with a key."""
        trains = None if key is None else self.train
        scores = self.scores(params, x) if trains is None else trains(params, x, key)
        losses = self.losses(scores, y)
        if losses.shape != weights.shape:
            raise InvalidInput(
                f"the loss of {len(y)} examples has shape {losses.shape}; return one an example, not the mean"
            )
        return jnp.vdot(losses, weights)

    def gradient(self, params: Params, x: Traced, y: Traced, weights: Traced, key: Traced = None) -> Params:
        """Returns the gradient of the mean loss, computed in parts where it would take much memory."""
        grad = jax.grad(self.mean_loss)
        num_parts = -(-len(weights) // self.rows_at_once)
        if num_parts <= 1:
            total = grad(params, x, y, weights, key)
        else:
            rows = jax.tree.map(lambda v: v.reshape(num_parts, -1, *v.shape[1:]), (x, y, weights))

            def add(total: Params, part: tuple[Traced, Any]) -> tuple[Params, None]:
                number, (x, y, weights) = part
                own = None if key is None else jax.random.fold_in(key, number)
                return jax.tree.map(jnp.add, total, grad(params, x, y, weights, own)), None

            zero = jax.tree.map(jnp.zeros_like, params)
            total, _ = lax.scan(add, zero, (jnp.arange(num_parts), rows))
        if not self.l2:
            return dict(total)
        return {name: g + self.l2 * params[name] if g.ndim >= 2 else g for name, g in total.items()}


compiled = partial(jax.jit, static_argnames="program")


@partial(jax.jit)
def to_device(params: Params) -> Params:
    """Puts parameters on the device for several calls, far faster than `device_put`, which is Python."""
    return params


@dataclass(frozen=True)
class StepSettings:
    """The settings of local steps as a compiled program takes them: numbers, but for the kind of the rule.

    Args:
      rule: turns gradients into steps; None: the gradient is the direction.
      numbers: its settings.
      lr: step size of all parameters, or of each by name.
      proximal: pull to the start; None: none.
    """

    rule: type[StepRule] | None
    numbers: tuple[Traced, ...]
    lr: Traced
    proximal: Traced

    @classmethod
    def of(cls, steps: Steps, params: Params) -> "StepSettings":
        """Makes the settings of these steps for these parameters."""
        plain = steps.rule.is_plain
        return cls(
            None if plain else type(steps.rule),
            () if plain else steps.rule.numbers,
            steps.lr_of(params) if steps.lr_scales else steps.lr,
            steps.proximal or None,
        )

    def start(self, params: Params) -> Slots:
        """Returns what the rule remembers before the first step."""
        num_slots = 0 if self.rule is None else self.rule.num_slots
        return tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(num_slots))

    def move(self, number: Traced, params: Params, gradient: Params, slots: Slots) -> tuple[Params, Slots]:
        """Returns the parameters and slots after the step of this number, from 0."""
        rates = self.lr if isinstance(self.lr, dict) else dict.fromkeys(params, self.lr)
        direction = gradient
        if self.rule is not None:
            direction, slots = self.rule.turn_all(
                self.numbers, number + 1, params, gradient, slots, jnp.expm1
            )
        return {name: w - rates[name] * direction[name] for name, w in params.items()}, slots


jax.tree_util.register_dataclass(StepSettings, ["numbers", "lr", "proximal"], ["rule"])


@compiled
def descend(
    program: Program,
    now: Params,
    slots: Slots,
    start: Params,
    batches: tuple[Traced, Traced, Traced],
    first: Traced,
    num_steps: Traced,
    settings: StepSettings,
    offset: Params | None,
    key: Traced,
) -> tuple[Params, Slots]:
    """Runs local descent from `now`, and returns the parameters and slots where it ends.

    Args:
      slots: what the rule remembers; None: it begins here.
      start: where the whole descent started, to which the proximal term pulls.
      batches: features, labels and weights, (S, B, ...); padding weighs nothing. Step s takes s modulo S.
      first: the number of the first step; the steps draw by their numbers.
    """

    def batch(number: Traced) -> tuple[Traced, Traced, Traced]:
        x, y, weights = (lax.dynamic_index_in_dim(v, number % len(v), keepdims=False) for v in batches)
        return x, y, weights

    slots = settings.start(start) if slots is None else slots
    return _descend(program, now, slots, start, batch, first, num_steps, settings, offset, key)


@compiled
def descend_lanes(
    program: Program,
    start: Params,
    x: Traced,
    y: Traced,
    rows: Traced,
    weights: Traced,
    num_batches: Traced,
    num_steps: Traced,
    settings: StepSettings,
    keys: Traced,
) -> Params:
    """Computes the updates of several clients in common steps, with a leading client axis.

    Args:
      x, y: (N, ...) the examples of all clients.
      rows, weights: (m, S, B) the examples of each batch; padding weighs nothing.
      num_batches, num_steps: (m,). Step s takes batch s modulo the number of batches.
    """

    def client(rows: Traced, weights: Traced, num_batches: Traced, num_steps: Traced, key: Traced) -> Params:
        def batch(number: Traced) -> tuple[Traced, Traced, Traced]:
            chosen = rows[number % num_batches]
            return x[chosen], y[chosen], weights[number % num_batches]

        slots = settings.start(start)
        end, _ = _descend(program, start, slots, start, batch, 0, num_steps, settings, None, key)
        return jax.tree.map(jnp.subtract, end, start)

    axes = (0, 0, 0, 0, None if keys is None else 0)
    return jax.vmap(client, axes)(rows, weights, num_batches, num_steps, keys)


def count_vmap_programs() -> int:
    """Counts the programs of `descend_lanes` that were compiled in this process, one for each shape."""
    return int(descend_lanes._cache_size())


def _descend(
    program: Program,
    now: Params,
    slots: Slots,
    start: Params,
    batch: Callable[[Traced], tuple[Traced, Traced, Traced]],
    first: Traced,
    num_steps: Traced,
    settings: StepSettings,
    offset: Params | None,
    key: Traced,
) -> tuple[Params, Slots]:
    def step(number: Traced, carried: tuple[Params, Slots]) -> tuple[Params, Slots]:
        params, slots = carried
        own = None if key is None else jax.random.fold_in(jax_key(key), first + number)
        gradient = program.gradient(params, *batch(number), own)
        if settings.proximal is not None:
            gradient = jax.tree.map(
                lambda g, w, w0: g + settings.proximal * (w - w0), gradient, params, start
            )
        if offset is not None:
            gradient = jax.tree.map(jnp.add, gradient, offset)
        return settings.move(first + number, params, gradient, slots)

    ended: tuple[Params, Slots] = lax.fori_loop(0, num_steps, step, (now, slots))
    return ended


@compiled
def apply_prediction(program: Program, params: Params, x: Traced) -> Traced:
    """Returns probabilities of classes, or numbers."""
    return program.predicts(program.scores(params, x))


@compiled
def loss_gradient(
    program: Program, params: Params, x: Traced, y: Traced, weights: Traced, key: Traced
) -> Params:
    """Returns the gradient of the weighted loss; in training, with a key."""
    return program.gradient(params, x, y, weights, None if key is None else jax_key(key))


ROWS_CLIPPED_AT_ONCE = 16
"""Examples whose gradients are held together: each takes as much memory as the parameters."""


@compiled
def sum_clipped_gradients(
    program: Program, params: Params, x: Traced, y: Traced, weights: Traced, max_norm: Traced, key: Traced
) -> Params:
    """Sums the clipped gradients of single examples; in training, with a key.

    Args:
      weights: 1 for each example, 0 for padding. Their number is a multiple of `ROWS_CLIPPED_AT_ONCE`.
    """

    def clip(number: Traced, x: Traced, y: Traced, weight: Traced) -> Params:
        own = None if key is None else jax.random.fold_in(jax_key(key), number)
        gradient = jax.grad(program.mean_loss)(params, x[None], y[None], jnp.ones(1, weight.dtype), own)
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in gradient.values()))
        known = jnp.isfinite(norm)
        factor = weight * jnp.where(norm > max_norm, max_norm / norm, 1.0)
        return {name: jnp.where(known, factor * g, 0.0) for name, g in gradient.items()}

    def add(total: Params, rows: Any) -> tuple[Params, None]:
        clipped = jax.vmap(clip)(*rows)
        return {name: total[name] + g.sum(axis=0) for name, g in clipped.items()}, None

    rows = (jnp.arange(len(weights)), x, y, weights)
    parts = jax.tree.map(lambda v: v.reshape(-1, ROWS_CLIPPED_AT_ONCE, *v.shape[1:]), rows)
    total, _ = lax.scan(add, {name: jnp.zeros_like(w) for name, w in params.items()}, parts)
    return dict(total)


@compiled
def hessian_vector(
    program: Program, params: Params, x: Traced, y: Traced, weights: Traced, vector: Params
) -> Params:
    """Returns the Hessian times a vector, as the gradient of <gradient, vector>: custom rules need no jvp."""

    def along(params: Params) -> Traced:
        gradient = program.gradient(params, x, y, weights)
        return sum(jnp.vdot(gradient[name], vector[name]) for name in gradient)

    return jax.grad(along)(params)


@compiled
def measure(program: Program, params: Params, x: Traced, y: Traced, weights: Traced) -> list[Traced]:
    """Returns the weighted sums of the losses and of the other metrics."""
    scores = program.scores(params, x)
    per_example = [program.losses(scores, y), *(measure(scores, y) for measure in program.measures)]
    return [jnp.vdot(values, weights) for values in per_example]


def jax_key(data: Traced) -> Traced:
    """Makes a key of JAX from two integers."""
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def power_of_two(size: int) -> int:
    """Returns the next power of two, at least 8: a program compiled for a few serves for fewer."""
    return 1 << max(3, (size - 1).bit_length())


def pad_size(size: int) -> int:
    """Rounds a size up to one of a few sizes, four in each doubling.

    >>> [pad_size(size) for size in (1, 7, 9, 16, 17, 600)]
    [1, 7, 10, 16, 20, 640]
    """
    unit = max(1, (1 << (size - 1).bit_length()) // 8)
    return -(-size // unit) * unit
