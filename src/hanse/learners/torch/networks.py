"""The networks as PyTorch modules, in layouts that a processor runs fast."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hanse.learners.examples import Characters, Numbers
from hanse.learners.networks import Bound, Network, char_lstm, cnn, image_shape, mlp

__all__ = ["Perceptron", "network_module"]


def network_module(bound: Bound) -> nn.Module:
    """Builds the module of a bound network, with parameters of its names and dtype."""
    made = MODULES[type(bound.network)](bound)
    return made.to(getattr(torch, bound.network.dtype))


class Product(torch.autograd.Function):
    """The product a bᵀ in float32 by oneDNN, about twice as fast as `a @ b.T` where MKL avoids AVX-512 (AMD).

    Its gradients are such products too, so that it can be differentiated twice.
    """

    @staticmethod
    def forward(context: Any, a: Any, b: Any) -> Any:
        context.save_for_backward(a, b)
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        a, b = context.saved_tensors
        by_a, by_b = context.needs_input_grad
        return (
            Product.apply(gradient, b.t()) if by_a else None,
            Product.apply(gradient.t().contiguous(), a.t().contiguous()) if by_b else None,
        )


_HAS_PRODUCT = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Dense(nn.Linear):
    """A dense layer by the faster of the two products that PyTorch has."""

    def forward(self, x: Any) -> Any:
        ours = _HAS_PRODUCT and x.device.type == "cpu" and x.dtype == torch.float32
        # `Product` has no form for examples side by side, which `vmap` asks for
        if not ours or torch.is_autocast_enabled("cpu") or torch._C._are_functorch_transforms_active():
            return super().forward(x)
        return Product.apply(x, self.weight) + self.bias


class Scored(nn.Module):
    """A network that ends in a dense layer."""

    def __init__(self, bound: Bound, width: int) -> None:
        super().__init__()
        self.single = isinstance(bound.labels, Numbers)
        self.output = nn.Linear(width, bound.num_outputs)

    def scores(self, hidden: Any) -> Any:
        """Returns one score a class, or one number a row."""
        scores = self.output(hidden)
        return scores.squeeze(-1) if self.single else scores


class Perceptron(Scored):
    """The module of `mlp`."""

    def __init__(self, bound: Bound) -> None:
        assert isinstance(bound.network, mlp)
        widths = (math.prod(bound.features.shape), *bound.network.hidden)
        super().__init__(bound, widths[-1])
        self.depth = len(bound.network.hidden)
        for i in range(self.depth):
            setattr(self, f"hidden{i + 1}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x: Any) -> Any:
        x = x.flatten(1)
        for i in range(self.depth):
            x = torch.relu(getattr(self, f"hidden{i + 1}")(x))
        return self.scores(x)


class Convolutional(Scored):
    """The module of `cnn`. Channels are innermost, with which oneDNN's kernels are fastest."""

    def __init__(self, bound: Bound) -> None:
        network = bound.network
        assert isinstance(network, cnn)
        super().__init__(bound, network.hidden)
        self.shape = image_shape(bound.features.shape)
        height, width, colours = self.shape
        first, second = network.channels
        edge = network.kernel // 2
        self.conv1 = nn.Conv2d(colours, first, network.kernel, padding=edge)
        self.conv2 = nn.Conv2d(first, second, network.kernel, padding=edge)
        self.hidden = Dense((height // 4) * (width // 4) * second, network.hidden)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Any) -> Any:
        x = x.reshape(-1, *self.shape).permute(0, 3, 1, 2)
        for convolution in (self.conv1, self.conv2):
            x = torch.relu(nn.functional.max_pool2d(convolution(x), 2))
        x = torch.relu(self.hidden(x.permute(0, 2, 3, 1).flatten(1)))
        return self.scores(x)


class Recurrent(Scored):
    """The module of `char_lstm`."""

    def __init__(self, bound: Bound) -> None:
        network = bound.network
        assert isinstance(network, char_lstm)
        super().__init__(bound, network.hidden)
        self.everywhere = isinstance(bound.labels, Characters)
        self.embedding = nn.Embedding(network.num_characters, network.embedding)
        self.lstm = nn.LSTM(network.embedding, network.hidden, network.layers, batch_first=True)

    def forward(self, x: Any) -> Any:
        hidden, _ = self.lstm(self.embedding(x))
        return self.scores(hidden if self.everywhere else hidden[:, -1])


MODULES: dict[type[Network], Callable[[Bound], nn.Module]] = {
    mlp: Perceptron,
    cnn: Convolutional,
    char_lstm: Recurrent,
}
