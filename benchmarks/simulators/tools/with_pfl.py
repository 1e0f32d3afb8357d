"""pfl 0.6: its simulation in one process, federated averaging of a PyTorch model, nothing measured.

python with_pfl.py WORKLOAD NUM_ROUNDS NUM_THREADS
"""

import os

os.environ["OMP_NUM_THREADS"] = str(os.cpu_count())
os.environ.setdefault("PFL_PYTORCH_DEVICE", "cpu")

from itertools import count
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch_models import loss, norm_of, started
from turns import Turns


class Timed(TrainingProcessCallback):  # type: ignore[misc]
    """Take turns at the end of each round."""

    def __init__(self, turns: Turns, module: Any) -> None:
        self._turns, self._module = turns, module

    def after_central_iteration(self, *_: Any, **__: Any) -> Any:
        self._turns.done(lambda: norm_of(self._module))
        return False, Metrics()


def main() -> None:
    turns = Turns()
    torch.set_num_threads(int(turns.choices[0]))
    workload = turns.workload
    module = started(workload)

    def own_loss(x: Any, y: Any, eval: bool = False) -> Any:
        return loss(module, x, y)

    def metrics(x: Any, y: Any, eval: bool = False) -> Any:
        return {"loss": Weighted(float(loss(module, x, y)) * len(y), len(y))}

    module.loss, module.metrics = own_loss, metrics

    def dataset(place: int) -> Any:
        examples = workload.batches(place // workload.cohort, place % workload.cohort)
        return Dataset(raw_data=[torch.from_numpy(v) for v in examples], user_id=str(place))

    places = count()
    data = FederatedDataset(dataset, lambda: next(places))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=turns.num_rounds,
            evaluation_frequency=10**9,
            train_cohort_size=workload.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0)),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=workload.lr, local_batch_size=workload.batch
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=workload.batch),
        callbacks=[Timed(turns, module)],
    )


if __name__ == "__main__":
    main()
