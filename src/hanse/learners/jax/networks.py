"""The networks as pure functions of JAX, in forms that a processor runs fast inside a loop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from hanse.learners.examples import Characters, Numbers
from hanse.learners.networks import Bound, Network, char_lstm, cnn, image_shape, mlp

__all__ = ["network_scores"]

Traced: TypeAlias = Any
Params: TypeAlias = Any


@dataclass(frozen=True)
class Scores:
    """A bound network as a function. The compiler treats equal ones as one function."""

    bound: Bound

    def __call__(self, params: Params, x: Traced) -> Traced:
        scores = FORWARD[type(self.bound.network)](self.bound, params, x)
        return scores[..., 0] if isinstance(self.bound.labels, Numbers) else scores


def network_scores(bound: Bound) -> Scores:
    """Returns the function from parameters and features to scores."""
    return Scores(bound)


def _dense(params: Params, name: str, x: Traced) -> Traced:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _mlp(bound: Bound, params: Params, x: Traced) -> Traced:
    assert isinstance(bound.network, mlp)
    hidden = x.reshape(len(x), -1)
    for i in range(1, len(bound.network.hidden) + 1):
        hidden = jax.nn.relu(_dense(params, f"hidden{i}", hidden))
    return _dense(params, "output", hidden)


def _cnn(bound: Bound, params: Params, x: Traced) -> Traced:
    hidden = x.reshape(len(x), *image_shape(bound.features.shape))
    for name in ("conv1", "conv2"):
        convolved = _convolve(hidden, params[f"{name}.weight"]) + params[f"{name}.bias"]
        hidden = jax.nn.relu(_pool(convolved))
    hidden = jax.nn.relu(_dense(params, "hidden", hidden.reshape(len(x), -1)))
    return _dense(params, "output", hidden)


def _convolve(images: Traced, kernels: Traced) -> Traced:
    """Convolves (n, height, width, in) images with (out, in, k, k) kernels, as one product of all patches.

    XLA's own convolution is slow in a loop on a processor. On a GPU, where each client has kernels of its
    own, it would be one by groups, for each shape of which the compiler searches for an algorithm.
    """
    num_images, height, width, num_inputs = images.shape
    num_outputs, _, k, _ = kernels.shape
    edge = k // 2
    framed = jnp.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    shifted = [framed[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
    patches = jnp.stack(shifted, 3).reshape(-1, k * k * num_inputs)
    product = patches @ kernels.transpose(2, 3, 1, 0).reshape(-1, num_outputs)
    return product.reshape(num_images, height, width, num_outputs)


def _pool(images: Traced) -> Traced:
    """Takes the maximum of each 2 x 2 pixels; leaves out an odd last row or column."""
    num_images, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(num_images, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _char_lstm(bound: Bound, params: Params, x: Traced) -> Traced:
    assert isinstance(bound.network, char_lstm)
    hidden = params["embedding.weight"][x].transpose(1, 0, 2)  # (length, n, embedding)
    for i in range(bound.network.layers):
        bias = params[f"lstm.bias_ih_l{i}"] + params[f"lstm.bias_hh_l{i}"]
        inputs = hidden @ params[f"lstm.weight_ih_l{i}"].T + bias
        hidden = _recurrent(inputs, params[f"lstm.weight_hh_l{i}"])
    if isinstance(bound.labels, Characters):
        return _dense(params, "output", hidden).transpose(1, 0, 2)
    return _dense(params, "output", hidden[-1])


@jax.custom_vjp
def _recurrent(inputs: Traced, weights: Traced) -> Traced:
    """Runs the LSTM's loop over (length, n, 4 hidden) inputs with (4 hidden, hidden) recurrent weights.

    Its gradient by the weights is one product over all positions, not a sum of products for each
    position, which makes local training about twice as fast.
    """
    return _recurrent_forward(inputs, weights)[0]


def _recurrent_forward(inputs: Traced, weights: Traced) -> tuple[Traced, tuple[Traced, ...]]:
    transposed = weights.T

    def step(carry: tuple[Traced, Traced], given: Traced) -> tuple[tuple[Traced, Traced], tuple[Traced, ...]]:
        hidden, cell = carry
        gates = jnp.split(given + hidden @ transposed, 4, -1)  # PyTorch's order
        enter, forget, output = (jax.nn.sigmoid(gates[i]) for i in (0, 1, 3))
        new = jnp.tanh(gates[2])
        after = forget * cell + enter * new
        shown = jnp.tanh(after)
        hidden = output * shown
        return (hidden, after), (hidden, cell, enter, forget, new, output, shown)

    zero = jnp.zeros((inputs.shape[1], weights.shape[1]), inputs.dtype)
    _, kept = lax.scan(step, (zero, zero), inputs)
    return kept[0], (*kept, weights)


def _recurrent_backward(kept: tuple[Traced, ...], gradients: Traced) -> tuple[Traced, Traced]:
    hiddens, *values, weights = kept

    def step(carry: tuple[Traced, Traced], given: tuple[Traced, ...]) -> tuple[tuple[Traced, Traced], Traced]:
        by_hidden, by_cell = carry
        gradient, cell, enter, forget, new, output, shown = given
        by_hidden = by_hidden + gradient
        by_cell = by_cell + by_hidden * output * (1 - shown**2)
        by_gates = jnp.concatenate(
            [
                by_cell * new * enter * (1 - enter),
                by_cell * cell * forget * (1 - forget),
                by_cell * enter * (1 - new**2),
                by_hidden * shown * output * (1 - output),
            ],
            -1,
        )
        return (by_gates @ weights, by_cell * forget), by_gates

    zero = jnp.zeros(hiddens.shape[1:], hiddens.dtype)
    _, by_gates = lax.scan(step, (zero, zero), (gradients, *values), reverse=True)
    before = jnp.concatenate([zero[None], hiddens[:-1]])
    return by_gates, jnp.einsum("tng,tnh->gh", by_gates, before)


_recurrent.defvjp(_recurrent_forward, _recurrent_backward)


FORWARD: dict[type[Network], Callable[[Bound, Params, Traced], Traced]] = {
    mlp: _mlp,
    cnn: _cnn,
    char_lstm: _char_lstm,
}
