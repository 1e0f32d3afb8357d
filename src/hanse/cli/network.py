"""The commands that begin a run of real parties: the server's, and each client's."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hanse.cli.exits import BAD_INPUT, ENDS, INTERRUPTED, REVOKED
from hanse.cli.options import Accept, Imports, Tags
from hanse.cli.parties import CLIENT, PARTIES, Copies, EncryptKeys, Home, encrypt_keys, guard_parties
from hanse.cli.serving.logs import Log, begin_logging
from hanse.cli.serving.own_data import OwnData
from hanse.cli.tokens import read_token
from hanse.core import InvalidInput

__all__ = ["join_command", "serve_command"]


def serve_command(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="FILE.toml", show_default=False)] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    imports: Imports = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The address to listen on.")
    ] = "127.0.0.1:8443",
    public: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The address that clients connect to, if it is another."),
    ] = None,
    home: Home = Path(".hanse/server"),
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Used in place of its own certificate.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="The key of that certificate.")] = None,
    shown: Annotated[
        Path | None, typer.Option(metavar="PEM", help="The certificate that a proxy in front shows.")
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(
            min=1, help="Begin once so many clients have joined. Default: as many as the settings name."
        ),
    ] = None,
    silent_s: Annotated[
        float, typer.Option(help="Give up clients of which nothing is heard for so long.")
    ] = 60.0,
    round_s: Annotated[
        float, typer.Option(help="The longest that a round may take, or wait for clients.")
    ] = 3600.0,
    over_select: Annotated[
        float,
        typer.Option(help="Ask so many times the cohort, and count the first to answer. 1: ask no more."),
    ] = 1.3,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin a new run, even if one was interrupted.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with this run, with its own settings; FILE is not read."),
    ] = None,
    accept: Accept = False,
    min_clients: Annotated[
        int | None,
        typer.Option(
            min=1, help="Begin a round once so many clients are present. Default: as many as it wants."
        ),
    ] = None,
    max_weight_ratio: Annotated[
        float,
        typer.Option(
            help="Count no client's weight for more than so many times the median of a round. inf: no bound."
        ),
    ] = 10.0,
    encrypted: EncryptKeys = False,
    tokens_to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the clients' tokens there, one file each, instead of printing them. Default: print "
            "them on a terminal; else write them to the folder invitations of --home.",
        ),
    ] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Go on serving after the run has ended.")] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Show /healthz, /readyz and /metrics there, to all who reach it. Such as 127.0.0.1:9464.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep each answer of a client there as it came, to audit what the server sees. Protect it "
            "like the clients' data.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="A name for a new run, to ask for it later.")
    ] = None,
    tags: Tags = None,
    log: Log = None,
) -> None:
    """Lead a run with real parties, and print the commands for them to type."""
    with guard_parties():
        from hanse.cli.views import note
        from hanse.network.server import Patience
        from hanse.store import check_tags

        begin_logging(log)
        _check_together(name, certificate, key, fresh=fresh, resume=resume)
        if encrypted:
            encrypt_keys(home)
        options = ("clients", "over_select", "min_clients", "max_weight_ratio")
        changes = {
            "patience": Patience(silent_s, round_s, over_select, min_clients, max_weight_ratio),
            **({} if clients is None else {"num_clients": clients}),
            "record": record,
            "name": name,
            "tags": check_tags(tags or ()),
        }

        def perform(fresh: bool, resume: str | None, given: Collection[str]) -> str:
            if resume is None:
                job = replace(PARTIES.job(file, sets or (), imports or (), note), **changes)
            else:
                job = _reopen_job(home, resume, imports or (), accept, changes, given)
            return _lead_shown(
                job,
                home,
                _address(listen),
                _address(public or listen),
                certificate=(certificate, key) if certificate and key else None,
                proxy_certificate=shown,
                fresh=fresh,
                resume=resume,
                stay=stay,
                tokens_to=tokens_to or (None if sys.stdout.isatty() else home / "invitations"),
                metrics=None if metrics is None else _address(metrics),
            )

        given = [name for name in options if is_given(context, name)]
        ended = _perform_or_ask(perform, fresh, resume, given)
        if ended != "completed":
            raise typer.Exit(ENDS[ended])


def _check_together(
    name: str | None, certificate: Path | None, key: Path | None, *, fresh: bool, resume: str | None
) -> None:
    """Checks, before the model is made, the name and the options that stand or fall together."""
    from hanse.store import check_name

    if name is not None:
        check_name(name)
    if (certificate is None) != (key is None):
        raise InvalidInput("give --certificate and --key together, or neither")
    if fresh and resume is not None:
        raise InvalidInput(f"--fresh begins a new run and --resume goes on with {resume}; give one of them")


def _reopen_job(
    home: Path,
    run: str,
    imports: Sequence[str],
    accept: bool,
    changes: Mapping[str, Any],
    given: Collection[str],
) -> Any:
    """Returns the job of a stored run: its own settings, and the options that were given now."""
    from hanse.cli.views import note
    from hanse.store import Runs

    store = home / "runs.db"
    job = replace(PARTIES.job_of(store, run, imports, accept, note), **changes)
    return job.take_options(Runs(store).info(run).settings, given)


def _lead_shown(job: Any, home: Path, address: tuple[str, int], public: tuple[str, int], **about: Any) -> str:
    """Leads a run while a screen shows it; returns how it ended."""
    from hanse.cli.serving.screens import open_screen
    from hanse.network.server import lead

    with open_screen(home) as screen:
        return lead(
            [job],
            home,
            address,
            public,
            say=screen.say,
            report=screen.report,
            watch=screen.watch,
            conclude=screen.conclude,
            **about,
        )


def _perform_or_ask(
    perform: Callable[[bool, str | None, Collection[str]], str],
    fresh: bool,
    resume: str | None,
    given: Collection[str],
) -> str:
    """Performs a run; asks on a terminal what to do if a run of other settings is open."""
    from hanse.network.server.upkeep import OtherRunOpen

    try:
        return perform(fresh, resume, given)
    except OtherRunOpen as other:
        if not sys.stdin.isatty():
            raise
        typer.echo(str(other))
        run = other.run
    answer = ""
    while answer not in ("continue", "new", "stop"):
        answer = typer.prompt("Go on with the open run, or begin another? (continue, new, stop)")
    if answer == "stop":
        raise typer.Exit(BAD_INPUT)
    return perform(answer == "new", run if answer == "continue" else None, ())


def is_given(context: typer.Context, option: str) -> bool:
    """Returns whether an option was typed, and does not have its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise InvalidInput(f"{text!r} is not an address; write HOST:PORT, such as 0.0.0.0:8443")
    if ":" in host and not host.startswith("["):
        raise InvalidInput(f"{text!r} is not an address; write an IPv6 host in brackets: [{host}]:{port}")
    return host.strip("[]"), int(port)


def join_command(
    url: Annotated[str | None, typer.Argument(metavar="https://HOST:PORT", show_default=False)] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="From the operator; good once. Lists of processes show it: better use --token-file, the "
            "variable HANSE_TOKEN, or leave it out and be asked."
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file that holds the token.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="This client's own data, the first time; hanse.toml then keeps the answers. Or none, for a "
            "party without data, such as one that holds a key.",
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its own test examples, to measure models on.")
    ] = None,
    imports: Copies = None,
    home: Home = CLIENT,
    name: Annotated[str, typer.Option(help="The name that the operator sees.")] = "",
    encrypted: EncryptKeys = False,
    isolate: Annotated[
        bool,
        typer.Option("--isolate", help="Compute without network, keys and a writable disk (Linux)."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Show what would leave, try everything, join nothing.")
    ] = False,
    new_key: Annotated[
        bool, typer.Option("--rotate-key", help="Replace this client's key by a new one first.")
    ] = False,
    new_server_key: Annotated[
        bool,
        typer.Option(
            "--new-server-key",
            help="Trust the server's key in the token in place of the kept one; ask the operator before.",
        ),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Ask nothing: take part, and accept what is proposed for hanse.toml."),
    ] = False,
    log: Log = None,
) -> None:
    """Take part with this client's own data. The address is only needed the first time."""
    with guard_parties() as held:
        from threadpoolctl import threadpool_limits

        from hanse.cli.contract import agree, is_attended
        from hanse.network.client import ClientHome, Entrant, Owner, find_isolation, join_in_order

        begin_logging(log)
        if encrypted:
            encrypt_keys(home)
        client_home = ClientHome(home)
        client_home.own_imports.given = imports or ()
        kept = client_home.membership
        ask = url is not None and kept is None
        invitation = read_token(token, token_file, ask, is_member=kept is not None)
        source = OwnData.choose(client_home, data, test, yes=yes, is_trial=check)
        held.enter_context(client_home.claim())
        if isolate or client_home.policy.isolate:  # before anything is joined
            typer.echo(f"tickets are isolated by {find_isolation(home).kind}")
        PARTIES.register()

        entrant = Entrant(url, invitation, name, new_key, new_server_key)
        owner = Owner(source.open, PARTIES.bind, typer.echo, agree if is_attended() and not yes else None)
        try:
            with threadpool_limits(1):  # several threads would add up large products in another order
                if check:
                    return _check(client_home, entrant, owner, with_data=source.is_named)
                sources = join_in_order(client_home, entrant, owner)
                source.remember()
                ended = _work(client_home, sources, isolate)
        except (KeyboardInterrupt, typer.Abort):  # the second at a question
            is_member = client_home.membership is not None
            again = (
                "join again with the same --home" if is_member else "it has not joined; type the line again"
            )
            typer.echo(f"\n{_name_of(client_home)}: stopped; {again}")
            raise typer.Exit(INTERRUPTED) from None
        typer.echo(f"{_name_of(client_home)}: {ended}")
        if ended == "revoked":
            raise typer.Exit(REVOKED)


def _work(client_home: Any, sources: Any, isolate: bool) -> str:
    """Works as a member until the server is done; returns how it ended."""
    from hanse.network.client import Client

    name = _name_of(client_home)

    def say(what: str) -> None:
        typer.echo(f"{name}: {what}")

    return Client(client_home, sources.data, PARTIES.bind, say, sources.test, isolate=isolate).run()


def _name_of(client_home: Any) -> str:
    return str((client_home.membership or {}).get("name", "this client"))


def _check(client_home: Any, entrant: Any, owner: Any, *, with_data: bool) -> None:
    """Shows what would leave, tries everything short of joining, and says what it found."""
    from hanse.network.client import try_joining
    from hanse.network.protocol import CHUNK_BYTES, WAIT_S
    from hanse.runs import describe_requests, describe_run

    def describe(sealed: Any) -> None:
        typer.echo(f"\nRun {sealed.run}. This client computes what follows, and refuses all else.")
        for line in client_home.describe_plan(sealed):
            typer.echo(line)

    def show(plan: Any) -> None:
        for line in describe_run(plan, client_home.policy.fewest_examples):
            typer.echo(line)
        typer.echo()

    for line in describe_requests():
        typer.echo(line)
    typer.echo(
        f"\nsending {CHUNK_BYTES >> 20} MiB, to be answered after {WAIT_S:g} s, as proxies must allow ..."
    )
    try_joining(client_home, entrant, owner, describe, show, with_data)
    typer.echo("nothing was joined; the token is still good")
