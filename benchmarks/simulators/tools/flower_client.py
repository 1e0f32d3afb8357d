"""Flower's client, in a module of its own, so that Ray's actors can import it."""

import os
from functools import cache
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch_models import loss, started
from workloads import WORKLOADS

WORKLOAD = WORKLOADS[os.environ["HANSE_BENCHMARK_WORKLOAD"]]
app = ClientApp()


@cache
def module() -> Any:
    """Make the model, once in each actor."""
    torch.set_num_threads(1)
    return started(WORKLOAD)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Play the client at the given place of the given round."""
    config = message.content["config"]
    x, y = map(torch.from_numpy, WORKLOAD.batches(config["round"], config["place"]))
    module().load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimiser = torch.optim.SGD(module().parameters(), lr=WORKLOAD.lr)
    for i in range(0, WORKLOAD.examples, WORKLOAD.batch):
        optimiser.zero_grad()
        loss(module(), x[i : i + WORKLOAD.batch], y[i : i + WORKLOAD.batch]).backward()
        optimiser.step()
    arrays, metrics = ArrayRecord(module().state_dict()), MetricRecord({"num-examples": WORKLOAD.examples})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
