"""The workloads' models as plain functions of JAX, in PyTorch's layouts."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from workloads import Workload


def dense(params: Any, name: str, x: Any) -> Any:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def perceptron(params: Any, x: Any) -> Any:
    x = jax.nn.relu(dense(params, "hidden1", x))
    return dense(params, "output", jax.nn.relu(dense(params, "hidden2", x)))


def softmax(params: Any, x: Any) -> Any:
    return dense(params, "output", x)


def convolutional(params: Any, x: Any) -> Any:
    x = x.reshape(-1, 28, 28, 1)
    for name in ("conv1", "conv2"):
        order = ("NHWC", "OIHW", "NHWC")
        x = lax.conv_general_dilated(x, params[f"{name}.weight"], (1, 1), "SAME", dimension_numbers=order)
        x = jax.nn.relu(x + params[f"{name}.bias"])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return dense(params, "output", jax.nn.relu(dense(params, "hidden", x.reshape(len(x), -1))))


def recurrent(params: Any, x: Any) -> Any:
    x = params["embedding.weight"][x].transpose(1, 0, 2)  # (length, batch, width)
    for layer in ("l0", "l1"):
        recur = params[f"lstm.weight_hh_{layer}"].T
        bias = params[f"lstm.bias_ih_{layer}"] + params[f"lstm.bias_hh_{layer}"]

        def cell(carry: Any, given: Any, recur: Any = recur) -> Any:
            hidden, memory = carry
            enter, forget, new, output = jnp.split(given + hidden @ recur, 4, -1)
            memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(new)
            hidden = jax.nn.sigmoid(output) * jnp.tanh(memory)
            return (hidden, memory), hidden

        inputs = x @ params[f"lstm.weight_ih_{layer}"].T + bias
        zero = jnp.zeros((x.shape[1], recur.shape[0]))
        _, x = lax.scan(cell, (zero, zero), inputs)
    return dense(params, "output", x).transpose(1, 0, 2)


SCORES = {"mlp": perceptron, "softmax": softmax, "cnn": convolutional, "lstm": recurrent}


def loss(workload: Workload, params: Any, x: Any, y: Any) -> Any:
    """Return the mean cross-entropy of a batch, also over the characters of texts."""
    logs = jax.nn.log_softmax(SCORES[workload.model](params, x))
    return -jnp.take_along_axis(logs, y[..., None], -1).mean()
