"""The workloads' models as anyone would write them in PyTorch."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from workloads import VOCABULARY, Workload, norm


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden1, self.hidden2, self.output = nn.Linear(784, 200), nn.Linear(200, 200), nn.Linear(200, 10)

    def forward(self, x: Any) -> Any:
        return self.output(torch.relu(self.hidden2(torch.relu(self.hidden1(x)))))


class Softmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(784, 10)

    def forward(self, x: Any) -> Any:
        return self.output(x)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 64, 5, padding=2)
        self.hidden, self.output = nn.Linear(3136, 512), nn.Linear(512, 10)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool2d(torch.relu(self.conv1(x.view(-1, 1, 28, 28))), 2)
        x = functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.output(torch.relu(self.hidden(x.flatten(1))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(VOCABULARY, 8), nn.LSTM(8, 256, 2, batch_first=True)
        self.output = nn.Linear(256, VOCABULARY)

    def forward(self, x: Any) -> Any:
        return self.output(self.lstm(self.embedding(x))[0])


MODULES: dict[str, type[nn.Module]] = {
    "mlp": Perceptron,
    "softmax": Softmax,
    "cnn": Convolutional,
    "lstm": Recurrent,
}


def started(workload: Workload) -> nn.Module:
    """Return the workload's module with its initial parameters."""
    module = MODULES[workload.model]()
    start = {name: torch.tensor(value) for name, value in workload.start.items()}
    if (
        workload.model == "cnn"
    ):  # Hanse flattens (height, width, channels), this module (channels, height, width)
        start["hidden.weight"] = (
            start["hidden.weight"].view(512, 7, 7, 64).permute(0, 3, 1, 2).reshape(512, -1)
        )
    module.load_state_dict(start)
    return module


def loss(module: nn.Module, x: Any, y: Any) -> Any:
    """Return the mean cross-entropy of a batch, also over the characters of texts."""
    scores = module(x)
    return functional.cross_entropy(scores.view(-1, scores.shape[-1]), y.reshape(-1))


def norm_of(module: nn.Module) -> float:
    """Return the 2-norm of all parameters."""
    return norm(p.detach().numpy() for p in module.parameters())
