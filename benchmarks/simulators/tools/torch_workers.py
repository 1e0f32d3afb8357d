"""The best bare technique for convolutions and recurrent networks: a PyTorch process of one thread a core.

Channels innermost, parameters in shared memory, no framework.
"""

import os
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.multiprocessing as processes
from torch_models import Convolutional, loss, started
from turns import Turns
from workloads import Workload, norm


class ChannelsLast(Convolutional):
    """Set strides with the channel innermost; if there is only one channel, PyTorch can't see this."""

    def forward(self, x: Any) -> Any:
        images = x.view(-1, 28, 28, 1).permute(0, 3, 1, 2)
        x = torch.nn.functional.max_pool2d(torch.relu(self.conv1(images)), 2)
        x = torch.nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.output(torch.relu(self.hidden(x.flatten(1))))


def train(
    workload: Workload, share: int, params: Any, totals: Any, pipe: Connection, num_shares: int
) -> None:
    """Train every `num_shares`-th client of each requested round, and add up their parameters."""
    torch.set_num_threads(1)
    module = started(workload)
    if workload.model == "cnn":
        last = ChannelsLast()
        last.load_state_dict(module.state_dict())
        module = last.to(memory_format=torch.channels_last)
    weights = list(module.parameters())
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        totals[share].zero_()
        for place in range(share, workload.cohort, num_shares):
            x, y = map(torch.from_numpy, workload.batches(number, place))
            with torch.no_grad():
                for weight, part in zip(weights, params.split([w.numel() for w in weights]), strict=True):
                    weight.copy_(part.view(weight.shape))
            optimiser = torch.optim.SGD(weights, lr=workload.lr)
            for i in range(0, workload.examples, workload.batch):
                optimiser.zero_grad()
                loss(module, x[i : i + workload.batch], y[i : i + workload.batch]).backward()
                optimiser.step()
            with torch.no_grad():
                totals[share] += torch.cat([w.reshape(-1) for w in weights])
        pipe.send("done")


def main() -> None:
    torch.set_num_threads(1)
    turns = Turns()
    workload = turns.workload
    workload.data, workload.rounds, workload.orders  # noqa: B018  (read before the processes are forked)
    params = torch.cat([w.detach().reshape(-1) for w in started(workload).parameters()]).share_memory_()
    num_shares = os.cpu_count() or 1
    totals = torch.zeros(num_shares, len(params)).share_memory_()
    context, pipes = processes.get_context("fork"), []
    for share in range(num_shares):
        pipe, theirs = context.Pipe()
        arguments = (workload, share, params, totals, theirs, num_shares)
        context.Process(target=train, args=arguments, daemon=True).start()
        pipes.append(pipe)
    for pipe in pipes:
        pipe.recv()
    for number in range(turns.num_rounds):
        for pipe in pipes:
            pipe.send(number)
        for pipe in pipes:
            pipe.recv()
        params.copy_(totals.sum(0) / workload.cohort)
        turns.done(lambda: norm([params.numpy()]))
    for pipe in pipes:
        pipe.send(None)


if __name__ == "__main__":
    main()
