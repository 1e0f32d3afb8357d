"""Commands that plan, perform, resume and show runs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanse.cli.exits import FAILED, exit_truthfully, print_json
from hanse.cli.options import Accept, File, Imports, Json, RunId, Sets, Store, list_infos, locate_store

if TYPE_CHECKING:
    from hanse.core.exchange import Record
    from hanse.runs import Session
    from hanse.store import RunInfo

__all__ = ["ls", "plan", "resume_command", "run_command", "show", "sweep_command"]

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

Trace = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Also write who was busy with what, as JSON for Perfetto or chrome://tracing."
    ),
]

OWN_CODE = ("imports", "accepted_imports")
"""The facts about a run's own code, if it has any."""


def run_command(
    file: File = None, sets: Sets = None, imports: Imports = None, json: Json = False, store: Store = None
) -> None:
    """Train a model; without a file, on handwritten digits over 100 unequal clients."""

    def begin() -> "AbstractContextManager[Session]":
        from hanse.cli.views import note
        from hanse.config import read
        from hanse.runs import start_session

        experiment = read(file, sets or (), imports=imports or (), warn=note)
        return start_session(experiment, store=locate_store(store))

    with exit_truthfully(json):
        _conclude(begin, json)


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
) -> None:
    """Try many settings with several seeds, and compare them. Asked again, perform only the missing runs."""
    with exit_truthfully(json):
        from hanse.cli.sweep_views import sweep_page, sweep_progress
        from hanse.cli.views import note
        from hanse.sweeps import drawing, plan_sweep, read_sweep

        draw = drawing(picture)  # raises now if it can't be drawn
        asked = read_sweep(file, sets or (), imports=imports or (), warn=note)
        plan = plan_sweep(asked, locate_store(store))
        with sweep_progress(plan) as seen:
            result = plan.perform(workers, seen)
        if json:
            print_json(result.to_json())
        else:
            sweep_page(result)
        draw(result)
    if result.failures:
        raise typer.Exit(FAILED)


def resume_command(
    run: RunId,
    imports: Imports = None,
    accept: Accept = False,
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
            _print_result(info.settings["experiment"], info.result, json)
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
            )


def ls(json: Json = False, store: Store = None) -> None:
    """List the runs kept here, newest first."""
    with exit_truthfully(json):
        from hanse.cli.views import note, overview

        infos = list_infos(store)
        if not infos:
            note(f"no runs are kept at {locate_store(store)} yet; begin one with: hanse run")
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

        runs = existing(locate_store(store))
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
            run_page(info, records, sent, claim)
            draw(make_pairs(describe_parallelism(records, measure_parallelism(records))))
            draw(make_pairs(describe_consensus(records)))


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


def _conclude(begin: "Callable[[], AbstractContextManager[Session]]", json: bool) -> None:
    """Performs a run that begins or goes on, and shows how it ended."""
    from hanse.cli.views import note, progress
    from hanse.runs import RunDiverged

    with begin() as session:
        for line in session.notes:
            note(line)
        settings = session.experiment.settings()
        try:
            with progress(session) as watch:
                result = session.perform(watch)
        except RunDiverged as error:
            if not json:
                _print_result(settings, error.result.to_json(), json)
            raise
    _print_result(settings, result.to_json(), json)
    if result.status != "completed":
        raise typer.Exit(FAILED)


def _print_result(settings: Mapping[str, Any], result: Mapping[str, Any], json: bool) -> None:
    if json:
        print_json(result)
        return
    from hanse.cli.views import result_page

    result_page(settings, result)


def _info_as_json(info: "RunInfo") -> dict[str, Any]:
    return {
        "run": info.run,
        "status": info.status,
        "created": info.created.isoformat(),
        "rounds": info.rounds,
        "settings": info.settings["experiment"],
        "environment": info.environment,
        "result": info.result,
    }
