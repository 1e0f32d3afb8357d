"""The command line.

Exit codes: 0 completed, also by target or patience; 1 incomplete, failed or diverged; 2 what was given
can't be used; 130 interrupted. What a command needs is imported when it runs, so that help comes at once.
"""

import json as json_
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hanse.cli.network import Bridge, add_commands
from hanse.version import __version__

if TYPE_CHECKING:
    from hanse.runs import Session
    from hanse.store import RunInfo

__all__ = ["main"]

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="Trains one model over data that many parties keep to themselves.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE.toml", help="Settings; what it leaves out has a default.", show_default=False
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One setting, such as algorithm.lr=0.3; may be repeated."
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Its id, or the beginning of it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object in place of tables.")]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Processes, of one thread each; one for each processor if not said."
    ),
]
Picture = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Draw it, too: a .png, .svg or .html file.")
]
Store = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Where runs are kept, if not in $HANSE_STORE or .hanse/store.db."),
]


def main() -> None:
    """Runs the command that the arguments name."""
    app()


class _Parties:
    """What settings and files are to real parties: loaded when the first command asks for it."""

    def __getattr__(self, name: str) -> Any:
        from hanse.runs import Parties

        return getattr(Parties(), name)


@contextmanager
def _with_real_parties() -> Iterator[None]:
    from hanse.core import InvalidInput

    with _truthful(False):
        try:
            yield
        except ModuleNotFoundError as missing:
            raise InvalidInput(
                f'real parties need {missing.name}, which is not installed: pip install "hanse[server]"'
            ) from missing


def _print_version(asked: bool) -> None:
    if asked:
        print(f"hanse {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
]


@app.callback()
def _hanse(version: Version = False) -> None:
    pass


@app.command("run")
def run_command(file: File = None, sets: Sets = None, json: Json = False, store: Store = None) -> None:
    """Train; with no file, on handwritten digits over 100 unequal clients."""

    def begin() -> "AbstractContextManager[Session]":
        from hanse.config import read
        from hanse.runs import start_session

        return start_session(read(file, sets or ()), store=_where(store))

    with _truthful(json):
        _conclude(begin, json)


Rate = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="Of each client's link, such as 10Mbit or 2MB a second."),
]
Latency = Annotated[
    str | None, typer.Option(metavar="TIME", help="That each way takes beside, such as 50ms.")
]


@app.command()
def plan(
    file: File = None,
    sets: Sets = None,
    up: Rate = None,
    down: Rate = None,
    latency: Latency = None,
    json: Json = False,
) -> None:
    """Say what a run will send, before it is begun: bytes by stage, and seconds on a link."""
    with _truthful(json):
        from hanse.cli.views import plan_page
        from hanse.config import read
        from hanse.runs import LinkModel, plan_messages, prepare_run

        link = LinkModel.read(up, down, latency)
        experiment = read(file, sets or ())
        found = plan_messages(prepare_run(experiment), link)
        if json:
            _print_json(found.to_json())
        else:
            plan_page(experiment.settings(), found)


@app.command("sweep")
def sweep_command(
    file: File = None,
    sets: Sets = None,
    json: Json = False,
    store: Store = None,
    workers: Workers = None,
    picture: Picture = None,
) -> None:
    """Try many settings over several seeds, and compare them; asked again, do only what is missing."""
    with _truthful(json):
        from hanse.cli.sweep_views import sweep_page, sweep_progress
        from hanse.sweeps import drawing, plan_sweep, read_sweep

        draw = drawing(picture)  # so that it is known now whether that can be done
        plan = plan_sweep(read_sweep(file, sets or ()), _where(store))
        with sweep_progress(plan) as seen:
            result = plan.perform(workers, seen)
        if json:
            _print_json(result.to_json())
        else:
            sweep_page(result)
        draw(result)
    if result.failures:
        raise typer.Exit(FAILED)


@app.command("resume")
def resume_command(run: RunId, json: Json = False, store: Store = None) -> None:
    """Go on where a run stopped."""
    with _truthful(json):
        from hanse.cli.views import note
        from hanse.runs import ENDED, existing, resume_session

        info = existing(_where(store)).info(run)
        if info.status in ENDED and info.result is not None:
            note(f"run {info.run} is {info.status}: it came to its end already")
            _print_result(info.settings["experiment"], info.result, json)
            if info.status != "completed":
                raise typer.Exit(FAILED)
        else:
            _conclude(lambda: resume_session(info.run, store=_where(store), warn=note), json)


@app.command()
def replay(
    run: RunId,
    round: Annotated[int, typer.Option(metavar="R", help="Which round; not for a client's house.")] = 0,
    client: Annotated[
        str, typer.Option(metavar="C", help='Its number, or a role such as "server".', show_default=False)
    ] = "",
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Examples, in place of the client's own.")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of a client or server, if the parties were real."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--pdb", help="Stop in the debugger: where the work begins, and at an exception.")
    ] = False,
    json: Json = False,
    store: Store = None,
) -> None:
    """Do one client's work of a round again, and show what it emits."""
    with _truthful(json):
        from bdb import BdbQuit

        from hanse.cli.views import case_page, note, replay_page
        from hanse.runs import Case, Replayed, debug_errors, existing, in_simulation
        from hanse.runs import replay_ticket as again

        done: list[Replayed] = []

        def act(case: Case) -> Replayed:
            if not json:
                case_page(case)
            try:
                with debug_errors(debug):
                    done.append(again(case, debug=debug))
            except BdbQuit:
                raise typer.Exit from None
            except Exception:
                if not json:  # where it happened is what one wants to see, whatever kind of error it is
                    traceback.print_exc()
                    raise typer.Exit(FAILED) from None
                raise
            if not json:
                replay_page(done[-1])
            return done[-1]

        if home is not None:
            for case in _cases(home, run, round, client, data):
                act(case)
            remark = ""
        else:
            who = int(client) if client.isdecimal() else _said(client, "--client C is due: whose work?")
            _, remark = in_simulation(existing(_where(store)), run, round, who, act, file=data)
        if json:
            _print_json({"replayed": [one.to_json() for one in done], "remark": remark})
        elif remark:
            note(remark)


def _said(given: str, otherwise: str) -> str:
    from hanse.core import InvalidInput

    if not given:
        raise InvalidInput(otherwise)
    return given


def _cases(home: Path, run: str, round: int, client: str, data: str | None) -> Any:
    """The tickets of real parties."""
    from hanse.core import InvalidInput
    from hanse.runs import in_client_home, in_server_home

    def open_(plan: Any, number: int) -> Any:
        return parties.data(_said(data or "", "--data FILE is due: the examples to compute on"), number)(plan)

    parties = _Parties()
    parties.register()
    bind = parties.bind
    if (home / "runs.db").exists():
        if not client.isdecimal() or round < 0:
            raise InvalidInput("in a server's house, --round R and --client C (a number) are due")
        return in_server_home(home, run, round, int(client), open_, bind)
    if not (home / "membership.json").exists():
        raise InvalidInput(
            f"{home} is neither a client's nor a server's folder; see --home of join and serve"
        )
    return in_client_home(home, run, open_, bind)


@app.command()
def ls(json: Json = False, store: Store = None) -> None:
    """List the runs kept here, newest first."""
    with _truthful(json):
        from hanse.cli.views import note, overview

        infos = _infos(store)
        if not infos:
            note(f"no runs are kept at {_where(store)} yet; begin one with: hanse run")
        if json:
            _print_json({"runs": [_info_as_json(info) for info in infos]})
        elif infos:
            overview(infos)


@app.command()
def show(run: RunId, json: Json = False, store: Store = None) -> None:
    """Show one run: settings, rounds, cost, and where it was performed."""
    with _truthful(json):
        from hanse.cli.views import run_page
        from hanse.runs import existing, traffic

        runs = existing(_where(store))
        info, records, sent = runs.info(run), runs.records(run), traffic(runs, run)
        if json:
            from hanse.runs import record_as_json

            rounds = [record_as_json(record) for record in records]
            _print_json({**_info_as_json(info), "records": rounds, "traffic": sent})
        else:
            run_page(info, records, sent)


# -- pages -------------------------------------------------------------------------------------

To = Annotated[
    Path | None, typer.Option("--to", metavar="FOLDER", help="Where the page is written.", show_default=False)
]
Images = Annotated[bool, typer.Option(help="Write the charts as PNG images, too.")]


@app.command()
def report(run: RunId, to: To = None, images: Images = True, store: Store = None) -> None:
    """Write a page about a run that you can show: one HTML file, and its charts as images."""
    with _truthful(False):
        from hanse.report import load_run, report_page, write
        from hanse.runs import existing

        run_data = load_run(existing(_where(store)), run)
        print(write(to or Path(f"report-{run_data.run}"), *report_page(run_data), images=images))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two runs or more.")],
    to: To = None,
    images: Images = True,
    store: Store = None,
) -> None:
    """Write a page with several runs in the same charts."""
    with _truthful(False):
        from hanse.report import compare_page, load_runs, write
        from hanse.runs import existing

        found = load_runs(existing(_where(store)), runs)
        folder = to or Path("compare-" + "-".join(run_data.run[:6] for run_data in found[:4]))
        print(write(folder, *compare_page(found), images=images))


@app.command("release")
def release_command(
    run: RunId,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the model is written.")],
    store: Store = None,
) -> None:
    """Write a run's model as safetensors, with a card that says what it is."""
    with _truthful(False):
        from hanse.release import release as release_
        from hanse.runs import existing

        print(release_(existing(_where(store)), run, to))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that `hanse release` wrote.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file like the training data.")],
) -> None:
    """Say what a released model makes of a file's rows, as CSV; and how right it is, if labels are there."""
    with _truthful(False):
        from hanse.cli.views import say
        from hanse.release import open_release, predictions

        found = predictions(open_release(model), data)
        print(found.as_csv(), end="")
        if found.metrics is not None:
            say(str(found))


@app.command()
def init(
    data: Annotated[str, typer.Argument(metavar="DATAFILE", help="CSV, .npz, .parquet or .libsvm.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE.toml", help="What to write; by default beside you.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="What is to be predicted.")] = None,
    key: Annotated[str | None, typer.Option(metavar="COLUMN", help="Whose each row is.")] = None,
) -> None:
    """Write a first settings file for your data, with a comment on each guess."""
    with _truthful(False):
        from hanse.cli.views import say
        from hanse.config import guess, starting_file
        from hanse.core import InvalidInput

        path = to or Path(Path(data).name.partition(".")[0] + ".toml")
        if path.exists():
            raise InvalidInput(f"{path} exists already; remove it, or write --to ANOTHER.toml")
        path.write_text(starting_file(guess(data, label=label, key=key)), encoding="utf-8")
        print(path)
        say(f"read it, then: hanse data describe {path}, and: hanse run {path}")


@app.command()
def doctor(json: Json = False, store: Store = None) -> None:
    """Say what is installed, what is missing, and what it would take."""
    with _truthful(json):
        from dataclasses import asdict

        from hanse.cli.doctor import extras, facts
        from hanse.cli.views import doctor_page

        found, about = extras(), dict(facts(_where(store)))
        if json:
            _print_json({**about, "extras": [{**asdict(extra), "remedy": extra.remedy} for extra in found]})
        else:
            doctor_page(about, found)


data_ = typer.Typer(help="Look at data before training.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_, name="data")
add_commands(app, cast(Bridge, _Parties()), _with_real_parties)


@data_.command("describe")
def describe_data(file: File = None, sets: Sets = None, json: Json = False) -> None:
    """Show who has what: the clients' sizes and labels."""
    with _truthful(json):
        from hanse.cli.views import draw, note
        from hanse.config import read
        from hanse.data import describe
        from hanse.evaluation import of_one_class
        from hanse.runs import load_population

        people = load_population(read(file, sets or ()))
        found = describe(people)
        if json:
            _print_json({**found.summary(), "clients": list(found.rows())})
        else:
            draw(found)
        alone = of_one_class(people)
        if alone:
            some = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            note(
                f"{len(alone)} of {people.num_clients} clients hold one class only: {some}; alone they learn "
                "nothing"
            )


@app.command()
def demo(to: To = None, images: Images = True, store: Store = None) -> None:
    """Train on handwritten digits, and draw what federation buys: two pages."""
    with _truthful(False):
        from hanse.cli.demo import demonstrate
        from hanse.cli.views import result_page, say

        first, *pages = demonstrate(_where(store), to or Path("demo"), say, images=images)
        kept = _infos(store)
        settings = next(info.settings["experiment"] for info in kept if info.run == first.run)
        result_page(settings, first.to_json())
        print("\nOpen in a browser:", *pages, sep="\n  ")


# -- runs --------------------------------------------------------------------------------------


def _where(store: str | None) -> str | Path:
    from hanse.runs import default_store

    return default_store() if store is None else store


def _infos(store: str | None) -> "tuple[RunInfo, ...]":
    from hanse.runs import existing, is_kept

    return existing(_where(store)).infos() if is_kept(_where(store)) else ()


def _conclude(begin: "Callable[[], AbstractContextManager[Session]]", json: bool) -> None:
    """Performs a run, begun now or before, and shows how it ended."""
    from hanse.cli.views import progress
    from hanse.runs import RunDiverged

    with begin() as session:
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


# -- what is said ------------------------------------------------------------------------------


@contextmanager
def _truthful(json: bool) -> Iterator[None]:
    """Ends the process with the exit code that is due. Says why; a traceback is only for our own faults."""
    from hanse.core import HanseError

    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as stop:
        _say_why(str(stop) or "interrupted before anything was begun", json, stop, "interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except HanseError as error:
        if os.environ.get("HANSE_DEBUG", "0") != "0":
            raise
        _say_why(str(error), json, error, "failed")
        raise typer.Exit(_exit_code(error)) from None
    except Exception as error:
        if json and not isinstance(error, BrokenPipeError):
            _print_json(_nothing("failed", f"{type(error).__name__}: {error}"))
        raise


def _say_why(why: str, json: bool, error: BaseException, status: str) -> None:
    from hanse.cli.views import complain, say

    result = getattr(error, "result", None)
    if json:
        _print_json(_nothing(status, why) if result is None else result.to_json())
    if status == "interrupted":
        say(why)
    else:
        complain(why, getattr(error, "__notes__", ()))


def _exit_code(error: "BaseException") -> int:
    from hanse.core import CompositionError, InvalidInput, StoreError

    return BAD_INPUT if isinstance(error, InvalidInput | CompositionError | StoreError) else FAILED


def _nothing(status: str, reason: str) -> dict[str, Any]:
    return {"run": None, "status": status, "reason": reason}


def _print_result(settings: Mapping[str, Any], result: Mapping[str, Any], json: bool) -> None:
    if json:
        _print_json(result)
        return
    from hanse.cli.views import result_page

    result_page(settings, result)


def _print_json(tree: Mapping[str, Any]) -> None:
    print(json_.dumps(tree, allow_nan=False, ensure_ascii=False))


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
