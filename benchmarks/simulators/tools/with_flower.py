"""Flower 1.42: its simulation on Ray, one actor a core, federated averaging, nothing measured."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(
    FLWR_TELEMETRY_ENABLED="0",
    RAY_DISABLE_MEMORY_MONITOR="1",
    RAY_USAGE_STATS_ENABLED="0",
    PYTHONPATH=f"{Path(__file__).parent}:{Path(__file__).parents[1]}",  # for Ray's actors
    HANSE_BENCHMARK_WORKLOAD=sys.argv[1],
)

import flower_client
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch_models import started
from turns import Turns
from workloads import norm

TURNS = Turns()
WORKLOAD = TURNS.workload
server = ServerApp()


class Timed(FedAvg):  # type: ignore[misc]
    """Tell each client its place, and take turns at the end of each round."""

    def configure_train(self, server_round: int, *given: Any) -> Any:
        messages = list(super().configure_train(server_round, *given))
        for place, message in enumerate(messages):
            config = ConfigRecord({"round": server_round - 1, "place": place})
            message.content = message.content.copy()
            message.content["config"] = config
        return messages

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        replies = list(replies)
        wrong = [reply.error for reply in replies if reply.has_error()]
        if wrong or len(replies) != WORKLOAD.cohort:
            raise RuntimeError(f"{len(replies)} of {WORKLOAD.cohort} clients answered; errors: {wrong[:1]}")
        arrays, metrics = super().aggregate_train(server_round, replies)
        TURNS.done(lambda: norm(v.numpy() for v in arrays.to_torch_state_dict().values()))
        return arrays, metrics


@server.main()
def main(grid: Grid, context: Context) -> None:
    strategy = Timed(
        fraction_train=WORKLOAD.cohort / WORKLOAD.clients,
        fraction_evaluate=0.0,
        min_train_nodes=WORKLOAD.cohort,
        min_available_nodes=WORKLOAD.clients,
    )
    start = ArrayRecord(started(WORKLOAD).state_dict())
    strategy.start(grid=grid, initial_arrays=start, num_rounds=TURNS.num_rounds)


if __name__ == "__main__":
    run_simulation(
        server_app=server,
        client_app=flower_client.app,
        num_supernodes=WORKLOAD.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                "num_cpus": os.cpu_count(),
                "include_dashboard": False,
                "object_store_memory": 1 << 30,
            },
        },
    )
