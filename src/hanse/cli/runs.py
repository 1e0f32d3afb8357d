"""Commands that plan, perform, resume and show runs."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanse.cli.exits import FAILED, exit_truthfully, print_json
from hanse.cli.options import (
    Accept,
    File,
    Imports,
    Json,
    Names,
    RunId,
    Sets,
    Store,
    Tags,
    TensorBoardFolder,
    list_infos,
    locate_store,
    name_option,
)

if TYPE_CHECKING:
    from hanse.core.exchange import Record, Watch
    from hanse.runs import Session
    from hanse.store import RunInfo

__all__ = ["ls", "plan", "remove", "resume_command", "run_command", "show", "sweep_command"]

Rate = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="The rate of each client's link, such as 10Mbit or 2MB a second."),
]
Latency = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="The time that each message takes in addition, such as 50ms."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="The number of processes, of one thread each; by default one for each processor.",
    ),
]
Picture = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Also draw the comparison, to a .png, .svg or .html file.")
]

Spreadsheet = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Also write one row for each run, as CSV.")
]
Trace = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Also write who was busy with what, as JSON for Perfetto or chrome://tracing."
    ),
]

OWN_CODE = ("imports", "accepted_imports")
"""The facts about a run's own code, if it has any."""


def run_command(
    file: File = None,
    sets: Sets = None,
    imports: Imports = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", help="The number of rounds; the same as --set rounds=N.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="The seed of all draws; the same as --set seed=N.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="A name for the run, to ask for it later.")
    ] = None,
    tags: Tags = None,
    tensorboard: TensorBoardFolder = None,
    json: Json = False,
    store: Store = None,
) -> None:
    """Train a model; without a file, on handwritten digits over 100 unequal clients."""

    def begin() -> "AbstractContextManager[Session]":
        from hanse.cli.views import note
        from hanse.config import read
        from hanse.runs import start_session

        numbers = [f"{key}={n}" for key, n in (("rounds", rounds), ("seed", seed)) if n is not None]
        _check_once(sets or (), numbers)
        experiment = read(file, [*(sets or ()), *numbers], imports=imports or (), warn=note)
        return start_session(experiment, store=locate_store(store), name=name, tags=tags or ())

    with exit_truthfully(json):
        _conclude(begin, json, store, tensorboard)


def _check_once(sets: Sequence[str], numbers: Sequence[str]) -> None:
    """Checks that no number has an option of its own and is set by --set, too. Raises: InvalidInput."""
    from hanse.core import InvalidInput

    given = {text.partition("=")[0].strip() for text in sets}
    for key in (text.partition("=")[0] for text in numbers):
        if key in given:
            raise InvalidInput(f"--{key} and --set {key}=... are both given; write one of them")


def plan(
    file: File = None,
    sets: Sets = None,
    imports: Imports = None,
    up: Rate = None,
    down: Rate = None,
    latency: Latency = None,
    json: Json = False,
) -> None:
    """Show what a run will send before it begins: bytes by stage, and seconds on a link."""
    with exit_truthfully(json):
        from hanse.cli.consoles import make_pairs
        from hanse.cli.views import draw, note, plan_page
        from hanse.config import read
        from hanse.runs import LinkModel, describe_planned_time, plan_messages, prepare_run

        link = LinkModel.read(up, down, latency)
        experiment = read(file, sets or (), imports=imports or (), warn=note)
        ready = prepare_run(experiment)
        found = plan_messages(ready, link)
        if json:
            print_json(found.to_json())
        else:
            plan_page(ready.experiment.settings(), found)
            draw(make_pairs(describe_planned_time(found.virtual_s, found.s_per_example)))


def sweep_command(
    file: File = None,
    sets: Sets = None,
    imports: Imports = None,
    json: Json = False,
    store: Store = None,
    workers: Workers = None,
    picture: Picture = None,
    spreadsheet: Spreadsheet = None,
) -> None:
    """Try many settings with several seeds, and compare them. Asked again, perform only the missing runs."""
    with exit_truthfully(json):
        from hanse.cli.sweep_views import sweep_page, sweep_progress
        from hanse.cli.views import note
        from hanse.sweeps import csv_writer, drawing, plan_sweep, read_sweep

        draw, write = drawing(picture), csv_writer(spreadsheet)  # raise now if there can't be files
        asked = read_sweep(file, sets or (), imports=imports or (), warn=note)
        plan = plan_sweep(asked, locate_store(store))
        with sweep_progress(plan) as seen:
            result = plan.perform(workers, seen)
        if json:
            print_json(result.to_json())
        else:
            sweep_page(result)
        write(result)
        draw(result)
    if result.failures:
        raise typer.Exit(FAILED)


def resume_command(
    run: RunId,
    imports: Imports = None,
    accept: Accept = False,
    tensorboard: TensorBoardFolder = None,
    json: Json = False,
    store: Store = None,
) -> None:
    """Go on where a run stopped."""
    with exit_truthfully(json):
        from hanse.cli.views import note
        from hanse.runs import ENDED, existing, resume_session

        info = existing(locate_store(store)).info(run)
        if info.status in ENDED and info.result is not None:
            note(f"run {info.run} is {info.status}: it has come to its end already")
            _print_result(info.settings["experiment"], info.result, json, store)
            if info.status != "completed":
                raise typer.Exit(FAILED)
        else:
            _conclude(
                lambda: resume_session(
                    info.run,
                    store=locate_store(store),
                    imports=imports or (),
                    accept_changed_imports=accept,
                    warn=note,
                ),
                json,
                store,
                tensorboard,
            )


def ls(
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Only runs with this tag. With several, they need all."),
    ] = None,
    json: Json = False,
    store: Store = None,
) -> None:
    """List the runs kept here, newest first."""
    with exit_truthfully(json):
        from hanse.cli.views import note, overview

        kept = list_infos(store)
        infos = [info for info in kept if set(tags or ()) <= set(info.tags)]
        if not kept:
            note(
                f"no runs are kept at {locate_store(store)} yet; begin one with: "
                f"hanse run{name_option(store)}"
            )
        elif not infos:
            known = ", ".join(sorted({tag for info in kept for tag in info.tags})) or "no run has one"
            note(f"none of {len(kept)} runs has the tag {' and '.join(tags or ())}; tags here: {known}")
        if json:
            print_json({"runs": [_info_as_json(info) for info in infos]})
        elif infos:
            overview(infos)


def show(
    run: RunId, imports: Imports = None, json: Json = False, store: Store = None, trace: Trace = None
) -> None:
    """Show one run: its settings, rounds and costs, and the machine that performed it."""
    with exit_truthfully(json):
        from hanse.cli.consoles import make_pairs
        from hanse.cli.views import draw, note, run_page
        from hanse.evaluation import describe_consensus
        from hanse.runs import (
            describe_claim,
            describe_parallelism,
            existing,
            import_unchanged,
            measure_parallelism,
            traffic,
        )

        runs = existing(locate_store(store), to_read=True)
        info, records, sent = runs.info(run), runs.records(run), traffic(runs, run)
        import_unchanged(info, imports or (), note)
        claim = describe_claim(runs, info, records)
        if trace is not None:
            _write_trace(trace, records)
        if json:
            from hanse.runs import record_as_json

            rounds = [record_as_json(record) for record in records]
            own = {name: info.settings[name] for name in OWN_CODE if name in info.settings}
            print_json({**_info_as_json(info), **own, "records": rounds, "traffic": sent, "privacy": claim})
        else:
            run_page(info, records, sent, claim, name_option(store))
            draw(make_pairs(describe_parallelism(records, measure_parallelism(records))))
            draw(make_pairs(describe_consensus(records)))


def remove(
    runs: Names,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    json: Json = False,
    store: Store = None,
) -> None:
    """Remove runs with all that is kept of them, and free their space."""
    with exit_truthfully(json):
        from hanse.cli.views import overview, say
        from hanse.core import InvalidInput
        from hanse.evaluation import as_bytes
        from hanse.runs import existing, remove_runs

        place = locate_store(store)
        kept = existing(place)
        found = list({info.run: info for info in map(kept.info, runs)}.values())
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidInput(
                    f"this would remove {', '.join(info.run for info in found)} for ever, and nobody can be "
                    "asked here; write --yes"
                )
            overview(found)
            if not typer.confirm("Remove them for ever, with their models?"):
                say("nothing was removed")
                raise typer.Exit
        removed, num_bytes = remove_runs([info.run for info in found], place)
        if json:
            print_json({"removed": list(removed), "bytes": num_bytes})
        else:
            print(f"removed {', '.join(removed)}; the store is smaller by {as_bytes(num_bytes)}")


def _write_trace(path: Path, records: "Sequence[Record]") -> None:
    from json import dumps

    from hanse.core import InvalidInput
    from hanse.runs import as_chrome_trace

    if not any(record.usage.times for record in records):
        raise InvalidInput(
            "this run has no timeline, because its devices have no links; write devices with links, such as "
            '--set devices=hospital_wan, or devices = {name = "timed", ...}'
        )
    path.write_text(dumps(as_chrome_trace(records)), encoding="utf-8")


@contextmanager
def _write_events(folder: Path | None, watch: "Watch") -> "Iterator[Watch]":
    """Lets a watch also write for TensorBoard, if there is a folder for it."""
    if folder is None:
        yield watch
        return
    from hanse.runs import TensorBoard

    with TensorBoard(folder) as board:

        def both(record: "Record") -> None:
            watch(record)
            board(record)

        yield both


def _conclude(
    begin: "Callable[[], AbstractContextManager[Session]]",
    json: bool,
    store: str | None,
    tensorboard: Path | None,
) -> None:
    """Performs a run that begins or goes on, and shows how it ended."""
    from hanse.cli.views import note, progress
    from hanse.runs import RunDiverged

    with begin() as session:
        gc.freeze()  # what is loaded by now stays, so that no collection in the rounds goes through it
        for line in session.notes:
            note(line)
        settings = session.experiment.settings()
        try:
            with progress(session) as shown, _write_events(tensorboard, shown) as watch:
                result = session.perform(watch)
        except RunDiverged as error:
            if not json:
                _print_result(settings, error.result.to_json(), json, store)
            raise
    _print_result(settings, result.to_json(), json, store)
    if result.status != "completed":
        raise typer.Exit(FAILED)


def _print_result(
    settings: Mapping[str, Any], result: Mapping[str, Any], json: bool, store: str | None
) -> None:
    if json:
        print_json(result)
        return
    from hanse.cli.views import result_page

    result_page(settings, result, store=name_option(store))


def _info_as_json(info: "RunInfo") -> dict[str, Any]:
    return {
        "run": info.run,
        "name": info.name,
        "tags": list(info.tags),
        "status": info.status,
        "created": info.created.isoformat(),
        "rounds": info.rounds,
        "settings": info.settings["experiment"],
        "environment": info.environment,
        "result": info.result,
    }
