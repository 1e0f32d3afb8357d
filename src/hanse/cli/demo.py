"""The demonstration: a run beside its baselines, and the two graphs of every introduction."""

from collections.abc import Callable
from pathlib import Path

from hanse.algorithms import fed_avg, fed_sgd
from hanse.config import Experiment
from hanse.data import dirichlet
from hanse.evaluation import centralised, on_site
from hanse.report import compare_page, load_run, load_runs, report_page, write
from hanse.runs import Result, perform
from hanse.store import Runs

__all__ = ["ABOUT", "classics", "demonstrate"]

ABOUT = (
    "Full batches and the same step size. Parallel gradient descent exchanges after every step; FedAvg "
    "takes ten local steps first. Per round FedAvg is far ahead; per epoch of computation it is behind, "
    "because clients that differ drift apart between exchanges. Federated averaging saves communication "
    "and spends computation."
)

STEP, LOCAL_STEPS = 0.5, 10


def classics(rounds: int = 200) -> tuple[Experiment, Experiment]:
    """Makes parallel gradient descent, and FedAvg with ten times its local steps and a fifth the rounds."""
    people = dirichlet(20, 0.5)
    descent = Experiment(partition=people, algorithm=fed_sgd(lr=STEP), rounds=rounds)
    averaging = fed_avg(lr=STEP, fraction=1.0, epochs=LOCAL_STEPS, batch_size=None)
    return descent, Experiment(partition=people, algorithm=averaging, rounds=rounds // 5)


def demonstrate(
    store: str | Path, folder: Path, say: Callable[[str], None], *, images: bool = True
) -> tuple[Result, Path, Path]:
    """Performs the demonstration.

    Args:
      store: the place where the runs are kept.
      folder: the folder of the pages.
      say: is called with a sentence about each step.
      images: whether the charts are also written as images.

    Returns: the first run's result, its page, and the page that compares.
    """
    say("training on handwritten digits over 100 unlike clients, and training the baselines")
    first = perform(Experiment(client_test_fraction=0.2, baselines=(centralised(), on_site())), store=store)
    say("training FedAvg and parallel gradient descent with full batches")
    pair = [perform(experiment, store=store) for experiment in classics()]
    say("drawing the charts")
    runs = Runs(store)
    own = write(folder / "report", *report_page(load_run(runs, str(first.run))), images=images)
    both = load_runs(runs, [str(result.run) for result in pair])
    compared = write(folder / "compare", *compare_page(both, ABOUT), images=images)
    return first, own, compared
