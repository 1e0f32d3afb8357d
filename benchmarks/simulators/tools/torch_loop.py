"""The plain loop in PyTorch, in one thread: what anyone would write first."""

from typing import Any

import torch
from torch_models import loss, norm_of, started
from turns import Turns


def main() -> None:
    torch.set_num_threads(1)
    turns = Turns()
    workload = turns.workload
    module = started(workload)
    params = {name: value.clone() for name, value in module.state_dict().items()}
    for number in range(turns.num_rounds):
        total: dict[str, Any] = {name: torch.zeros_like(value) for name, value in params.items()}
        for place in range(workload.cohort):
            x, y = map(torch.from_numpy, workload.batches(number, place))
            module.load_state_dict(params)
            optimiser = torch.optim.SGD(module.parameters(), lr=workload.lr)
            for i in range(0, workload.examples, workload.batch):
                optimiser.zero_grad()
                loss(module, x[i : i + workload.batch], y[i : i + workload.batch]).backward()
                optimiser.step()
            for name, value in module.state_dict().items():
                total[name] += value
        params = {name: value / workload.cohort for name, value in total.items()}
        module.load_state_dict(params)
        turns.done(lambda: norm_of(module))


if __name__ == "__main__":
    main()
