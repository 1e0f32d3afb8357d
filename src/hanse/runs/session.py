"""Runs from Python, in this process and on this thread, with values in place of a settings file."""

import inspect
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hanse.attacks import Adversary
from hanse.config import Experiment
from hanse.core import Algorithm, Diverged, InvalidInput, PartyId, Stalled, Stop, StoreError, Tensors
from hanse.core.exchange import Commit, Led, Progress, Record, Watch, frozen
from hanse.data import Dataset, FederatedData, Partition
from hanse.evaluation import Baseline, Evaluation
from hanse.learners import Model
from hanse.preprocessing import Preprocessing
from hanse.privacy import BudgetSpent, Privacy
from hanse.runs.interrupts import Interrupts
from hanse.runs.judgement import (
    DEVICE_NOT_REPEATABLE,
    NOT_REPEATABLE,
    UNKNOWN_SUCCESS,
    WITHOUT_EFFECT,
    Finding,
    find_unread,
)
from hanse.runs.kept import check_same_data, experiment_of
from hanse.runs.machine import changes, environment, is_simulated
from hanse.runs.notebooks import is_notebook, show_progress
from hanse.runs.own_code import import_code, record_imports
from hanse.runs.places import default_store, existing, make_store
from hanse.runs.preparation import Prepared, Turnout, compare_run, find_led, prepare_run
from hanse.runs.protection import claim_of
from hanse.runs.result import Interrupted, Result, RunDiverged, RunStalled
from hanse.simulation import Devices, Execution

if TYPE_CHECKING:
    from hanse.store import RunStore

__all__ = [
    "Session",
    "perform",
    "resume",
    "resume_session",
    "run",
    "start_session",
]


_DEFAULT = Experiment()


def run(
    *,
    data: Dataset | FederatedData = _DEFAULT.data,
    partition: Partition | None = None,
    model: Model = _DEFAULT.model,
    algorithm: Algorithm[Any] = _DEFAULT.algorithm,
    rounds: int = _DEFAULT.rounds,
    seed: int = _DEFAULT.seed,
    evaluate_every: int = _DEFAULT.evaluate_every,
    stop: Stop = _DEFAULT.stop,
    devices: Devices = _DEFAULT.devices,
    execution: Execution = _DEFAULT.execution,
    preprocessing: Preprocessing | None = None,
    client_test_fraction: float = 0.0,
    initial: str | Path | None = None,
    baselines: Sequence[Baseline] = (),
    privacy: Privacy | None = None,
    adversary: Adversary | None = None,
    secure: bool = False,
    evaluation: Evaluation = _DEFAULT.evaluation,
    store: str | Path | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    watch: Watch | None = None,
    progress: bool | None = None,
) -> Result:
    """Trains one model over many clients' data.

    >>> result = run(rounds=3)
    >>> result.status, result.rounds, sorted(result.final.metrics)
    ('completed', 3, ['accuracy', 'loss'])

    Args:
      data, partition, model, algorithm, rounds, seed, evaluate_every, stop, devices, execution,
        preprocessing, client_test_fraction, initial, baselines, privacy, adversary, secure,
        evaluation: see `Experiment`. A value may be written as in a settings file:
        `algorithm="fed_avg(lr=0.1)"`.
      store: the file that keeps the run, so that it can be resumed; None: nothing is kept.
      name, tags: what you call the run in its store. No other run there may have the name.
      watch: called with the `Record` of each round; and with the parameters, if it has an argument `params`.
      progress: whether the progress is shown; None: in a notebook only.

    Raises:
      InvalidInput, CompositionError: if an argument can't be used.
      RunDiverged: if training left the finite numbers.
      Interrupted: a KeyboardInterrupt, at Ctrl-C.
    """
    experiment = Experiment(
        data=data,
        partition=partition,
        model=model,
        algorithm=algorithm,
        rounds=rounds,
        seed=seed,
        evaluate_every=evaluate_every,
        stop=stop,
        devices=devices,
        execution=execution,
        preprocessing=preprocessing,
        client_test_fraction=client_test_fraction,
        initial=None if initial is None else str(initial),
        baselines=baselines,  # type: ignore[arg-type]
        privacy=privacy,
        adversary=adversary,
        secure=secure,
        evaluation=evaluation,
    )
    return perform(experiment, store=store, name=name, tags=tags, watch=watch, progress=progress)


def perform(
    experiment: Experiment,
    *,
    store: str | Path | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    watch: Watch | None = None,
    progress: bool | None = None,
) -> Result:
    """Performs an experiment, such as `hanse.read("FILE.toml")`. See `run`."""
    with start_session(experiment, store=store, name=name, tags=tags) as session:
        return session.perform(watch, progress=progress)


def resume(
    run: str,
    *,
    store: str | Path | None = None,
    data: Dataset | FederatedData | None = None,
    accept_changed_imports: bool = False,
    watch: Watch | None = None,
    progress: bool | None = None,
) -> Result:
    """Goes on where a run stopped, and comes to the same bits as an undisturbed run.

    Args:
      run: its name, its id or the beginning of that, or "last".
      store: the file that keeps it; None: where the command line keeps runs.
      data: must be given again if they were given as arrays or as own clients. They must be the same, which
        is checked.
      accept_changed_imports: whether the run may go on with other code than it began with. It is recorded.
      watch: called with the `Record` of each further round, as in `run`.
      progress: as in `run`.

    Raises: StoreError: if there is no such run, or another process performs it; also the errors of `run`.
    """
    with resume_session(
        run,
        store=default_store() if store is None else store,
        data=data,
        accept_changed_imports=accept_changed_imports,
    ) as session:
        return session.perform(watch, progress=progress)


class Session:
    """A run that is about to be begun or resumed here.

    Args:
      ready: its experiment, prepared.
      kept: the store of the run; None: it is not kept.
      records: the rounds done before.
      counted: the parties that were counted in these.
      about: how its result tells of it, such as its name and its store.
    """

    def __init__(
        self,
        ready: Prepared,
        kept: "RunStore | None",
        records: tuple[Record, ...] = (),
        counted: Iterable[PartyId] = (),
        **about: Any,
    ) -> None:
        self.experiment, self._about = ready.experiment, about
        self.run = None if kept is None else kept.run
        self._ready, self._kept, self._records = ready, kept, list(records)
        if ready.spending is not None:
            ready.spending.recall(records)
        self._findings: tuple[Finding, ...] = ()
        self._turnout = Turnout(set(counted))
        saved = None if kept is None else kept.checkpoint()
        self._progress: Progress[Any] = ready.begin() if saved is None else saved.state

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the owner of the data, such as how many rows were left out."""
        return self._ready.population.notes

    @property
    def records(self) -> tuple[Record, ...]:
        """The rounds done so far."""
        return tuple(self._records)

    @property
    def params(self) -> Tensors:
        """The model after the last round that is done. It can't be written to."""
        return frozen(self._progress.state.params)

    def perform(
        self, watch: Watch | None = None, *, alone: bool = True, progress: bool | None = False
    ) -> Result:
        """Leads the run to its end, and writes down how it ended. See `hanse.run`.

        Args:
          progress: whether the progress is shown; None: in a notebook only.
          alone: whether no other run is performed beside it; otherwise it starts no worker processes.
        """
        interrupts, takes_params = Interrupts(), watch is not None and _takes_params(watch)
        is_shown = is_notebook() if progress is None else progress
        shown = show_progress(self.run, self.experiment.rounds) if is_shown else nullcontext(_show_nothing)
        with interrupts, self.conclude(), shown as show:
            with closing(self.lead(interrupts, alone=alone)) as rounds:
                for record in rounds:
                    show(record)
                    if watch is not None:
                        watch(record, **({"params": self.params} if takes_params else {}))
            return self.complete(interrupts)

    @contextmanager
    def conclude(self) -> Iterator[None]:
        """Writes down how the run ended if an error ends it, and raises that with the result."""
        # a run that diverges is stopped, with an error
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                yield
            except Diverged as error:
                raise RunDiverged(str(error), self.end("diverged", str(error))) from None
            except BudgetSpent as error:
                raise RunStalled(str(error), self.end("stopped", str(error))) from None
            except Stalled as error:
                raise RunStalled(str(error), self.end("interrupted", str(error))) from None
            except KeyboardInterrupt:
                raise Interrupted(self.end("interrupted", "Ctrl-C")) from None
            except Exception as error:
                with suppress(StoreError):  # the store may be the cause
                    self.end("failed", str(error))
                raise

    def _try_training(self, interrupts: Interrupts) -> None:
        """Tries whether training repeats itself and reads its config; the result says if it does not."""
        if not self._ready.learner.is_repeatable:
            self._findings = (DEVICE_NOT_REPEATABLE,)
        if self._progress.round < self.experiment.rounds and self._progress.stopped is None:
            with interrupts.allow():
                repeats, unread = self._ready.try_training()
            own = self._ready.own_training
            if own is not None and unread:
                self._findings = (*self._findings, find_unread(str(own.function), unread, own.config))
            if not repeats:
                self._findings = (*self._findings, NOT_REPEATABLE)

    def lead(self, interrupts: Interrupts, *, alone: bool = True) -> Generator[Record, None, None]:
        """Leads the program round by round, as `drive` does. Ctrl-C waits while something is written."""

        def remember(record: Record) -> None:
            assert isinstance(led.command, Commit)
            self._progress = led.command.state
            usage = replace(record.usage, clients={})
            if self._records and usage.flows == self._records[-1].usage.flows:
                usage = replace(usage, flows=self._records[-1].usage.flows)  # one object for many rounds
            self._records.append(replace(record, usage=usage))

        self._try_training(interrupts)
        left = max(0, self.experiment.rounds - self._progress.round)
        with closing(self._ready.backend(left, alone=alone)) as backend:
            runtime = self._ready.watch_lies(self._ready.runtime(backend, self._kept))
            led = Led(self._turnout.watch(self._ready.program(self._progress)), runtime, self._kept, remember)
            while not led.done:
                num_done = len(self._records)
                if not led.replay():
                    with interrupts.allow():
                        event = runtime.perform(led.command)
                    led.answer(event)
                if len(self._records) > num_done:
                    left_s = time.perf_counter()
                    yield self._records[-1]
                    led.skip(time.perf_counter() - left_s)

    def complete(self, interrupts: Interrupts) -> Result:
        """Ends a run that was led to its last round."""
        return self.end("completed", **self._compare(interrupts))

    def _compare(self, interrupts: Interrupts) -> dict[str, Any]:
        def between() -> None:
            with interrupts.allow():
                pass

        return compare_run(self._ready, self._progress.state.params, self._records, self._turnout, between)

    def outcome(self, status: str, reason: str | None = None, **found: Any) -> Result:
        """Makes the result of the run at its present progress."""
        higher, remedy = self._ready.higher_is_better, self.experiment.algorithm.remedy
        result = Result.of(
            self.run,
            status,
            self._progress,
            self._records,
            reason,
            higher=higher,
            remedy=remedy,
            on_test=self._ready.chooses_on_test,
            led=find_led(self.experiment.algorithm),
        )
        claim = claim_of(
            self._records,
            self.experiment.privacy,
            self._ready.disclosure,
            is_simulated=True,
            clients=self._ready.noised_steps,
        )
        said = None if claim is None else claim.to_json()
        if self._ready.liars:
            found["adversary"] = self._ready.judge_liars(self._records)
        unknown = (UNKNOWN_SUCCESS,) if self._ready.lacks_success else ()
        idle = (WITHOUT_EFFECT,) if self._ready.is_attack_idle else ()
        findings = (*result.findings, *self._findings, *idle, *unknown)
        with suppress(InvalidInput):  # a value that only a program can give
            found["settings"] = self.experiment.settings()
        return replace(result, findings=findings, privacy=said, **self._about, **found)

    def end(self, status: str, reason: str | None = None, **found: Any) -> Result:
        """Writes down how the run ended, and returns its result."""
        result = self.outcome(status, reason, **found)
        if self._kept is not None:
            self._kept.finish(result.status, result.to_json())
        return result


def _show_nothing(record: Record) -> None:
    pass


def _takes_params(watch: Watch) -> bool:
    try:
        return "params" in inspect.signature(watch).parameters
    except ValueError:  # it is built in
        return False


@contextmanager
def start_session(
    experiment: Experiment, *, store: str | Path | None, name: str | None = None, tags: Sequence[str] = ()
) -> Iterator[Session]:
    """Begins a new run; nothing of it is kept if its settings can't be used."""
    if store is None and (name is not None or tags):
        raise InvalidInput(
            'name and tags are kept with a run, and this one is not kept; give it a store: store="runs.db"'
        )
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        ready = prepare_run(experiment)
        if store is None:
            yield Session(ready, None)
            return
        with ThreadPoolExecutor(1) as beside:
            beside.submit(getattr, ready.population, "fingerprint")  # which caches it
            runs = make_store(store)
        if ready.own_training is not None:
            ready.own_training.check_named()
        settings = {
            "experiment": ready.experiment.settings(),
            "data_sha256": ready.population.fingerprint,
            **record_imports(ready.imports),
        }
        kept = stack.enter_context(runs.open(runs.begin(settings, environment(), name=name, tags=tags)))
        yield Session(ready, kept, store=store, name=name, tags=tuple(dict.fromkeys(tags)))


@contextmanager
def resume_session(
    run: str,
    *,
    store: str | Path,
    data: Dataset | FederatedData | None = None,
    imports: Sequence[str] = (),
    accept_changed_imports: bool = False,
    warn: Callable[[str], None] = lambda message: warnings.warn(message, stacklevel=5),
) -> Iterator[Session]:
    """Opens a run that was begun before. For `imports` see `hanse.runs.own_code.import_code`."""
    runs = existing(store)
    info = runs.info(run)
    code = import_code(info, imports, accept_changes=accept_changed_imports)
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        kept = stack.enter_context(runs.open(info.run))
        if not is_simulated(kept.checkpoint()):
            raise InvalidInput(
                f"run {info.run} is a run of real parties; go on with it at its server: hanse serve, with "
                "the same settings and --home"
            )
        ready = prepare_run(experiment_of(info, data, code.named_by(info)))
        check_same_data(info, ready.population.fingerprint)
        code.record(runs, info, "resume", replaces=True)
        differ = changes(info.environment, environment())
        if differ:
            warn(f"the last bits may differ from an undisturbed run's: {'; '.join(differ)}")
        told = {"store": store, "name": info.name, "tags": info.tags}
        sent = runs.traffic(info.run)  # who measured the model, too, if there is no test set
        counted = [party for party, up, _ in sent if up]
        yield Session(ready, kept, runs.records(info.run), counted, **told)
