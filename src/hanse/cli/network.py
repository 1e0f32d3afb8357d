"""The commands that begin a run of real parties: the server's, and each client's."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hanse.cli.exits import BAD_INPUT, FAILED, INTERRUPTED
from hanse.cli.options import Accept, Imports
from hanse.cli.parties import CLIENT, PARTIES, Copies, Home, guard_parties
from hanse.core import InvalidInput

__all__ = ["join_command", "serve_command"]


def serve_command(
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
    stay: Annotated[bool, typer.Option("--stay", help="Go on serving after the run has ended.")] = False,
) -> None:
    """Lead a run with real parties, and print the commands for them to type."""
    with guard_parties():
        from dataclasses import replace

        from hanse.cli.views import note
        from hanse.network.server import Patience, lead
        from hanse.network.server.upkeep import OtherRunOpen

        if (certificate is None) != (key is None):
            raise InvalidInput("give --certificate and --key together, or neither")
        if fresh and resume is not None:
            raise InvalidInput(
                f"--fresh begins a new run and --resume goes on with {resume}; give one of them"
            )

        def perform(fresh: bool, resume: str | None) -> str:
            if resume is None:
                job = PARTIES.job(file, sets or (), imports or (), note)
            else:
                job = PARTIES.job_of(home / "runs.db", resume, imports or (), accept, note)
            job = replace(
                job,
                patience=Patience(silent_s, round_s, over_select, min_clients, max_weight_ratio),
                num_clients=clients or job.num_clients,
            )
            return lead(
                [job],
                home,
                _address(listen),
                _address(public or listen),
                certificate=(certificate, key) if certificate and key else None,
                proxy_certificate=shown,
                fresh=fresh,
                resume=resume,
                stay=stay,
                say=typer.echo,
            )

        try:
            ended = perform(fresh, resume)
        except OtherRunOpen as other:
            if not sys.stdin.isatty():
                raise
            typer.echo(str(other))
            answer = ""
            while answer not in ("continue", "new", "stop"):
                answer = typer.prompt("Go on with the open run, or begin another? (continue, new, stop)")
            if answer == "stop":
                raise typer.Exit(BAD_INPUT) from None
            ended = perform(answer == "new", other.run if answer == "continue" else None)
        if ended != "completed":
            raise typer.Exit(INTERRUPTED if ended == "interrupted" else FAILED)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise InvalidInput(f"{text!r} is not an address; write HOST:PORT, such as 0.0.0.0:8443")
    if ":" in host and not host.startswith("["):
        raise InvalidInput(f"{text!r} is not an address; write an IPv6 host in brackets: [{host}]:{port}")
    return host.strip("[]"), int(port)


def join_command(
    url: Annotated[str | None, typer.Argument(metavar="https://HOST:PORT", show_default=False)] = None,
    token: Annotated[str | None, typer.Option(help="From the operator; good once.")] = None,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="This client's own data.")] = None,
    test: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its own test examples, to measure models on.")
    ] = None,
    imports: Copies = None,
    home: Home = CLIENT,
    name: Annotated[str, typer.Option(help="The name that the operator sees.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Try everything, join nothing.")] = False,
    new_key: Annotated[
        bool, typer.Option("--rotate-key", help="Replace this client's key by a new one first.")
    ] = False,
) -> None:
    """Take part with this client's own data. The address is only needed the first time."""
    with guard_parties():
        from threadpoolctl import threadpool_limits

        from hanse.cli.views import note
        from hanse.network.client import ClientHome
        from hanse.network.client import join as enter
        from hanse.network.protocol import Token

        client_home = ClientHome(home)
        client_home.own_imports.given = imports or ()
        if check:
            _check(client_home, url, token, data, test)
            return
        if data is None:
            raise InvalidInput("--data is missing; name a file of this client's own examples")
        PARTIES.register()
        invitation = None if token is None else Token.parse(token)
        plans, number = _find_plans(client_home, url, invitation, name, new_key)
        examples = _keep_last(PARTIES.data(data, number, test, note))
        tests = _keep_last(PARTIES.test(data, number, test))
        try:
            with threadpool_limits(1):  # several threads would add up large products in another order
                _examine(client_home, plans, examples, None if test is None else tests)
                if client_home.membership is None and url is not None and invitation is not None:
                    enter(client_home, url, invitation, name)
                ended = _work(client_home, examples, tests)
        except KeyboardInterrupt:
            typer.echo(f"{_name_of(client_home)}: stopped; join again with the same --home")
            raise typer.Exit(INTERRUPTED) from None
        typer.echo(f"{_name_of(client_home)}: {ended}")
        if ended == "revoked":
            raise typer.Exit(FAILED)


def _find_plans(
    client_home: Any, url: str | None, invitation: Any | None, name: str, new_key: bool
) -> tuple[list[Any], int]:
    """Returns the plans of the server's runs, and this client's number; replaces a member's key first."""
    from hanse.network.client import NEXT_KEY, fetch_plans, join, patiently, rotate_key

    if client_home.membership is None:
        if url is None or invitation is None:
            raise InvalidInput("write hanse join https://HOST:PORT --token ... --data ...")
        return fetch_plans(client_home, url, invitation)
    if url is not None and invitation is not None:
        join(client_home, url, invitation, name)  # the token may name a new certificate
    if new_key or (client_home.folder / NEXT_KEY).exists():  # an earlier replacement may have been cut off
        rotate_key(client_home)
        typer.echo(f"its key is {client_home.identity.public[:16]}... now")
    return patiently(lambda: fetch_plans(client_home), _pause, typer.echo)


def _examine(
    client_home: Any,
    plans: Sequence[Any],
    examples: Callable[[Any], Any],
    tests: Callable[[Any], Any] | None,
) -> None:
    """Checks that the client's data suit each plan, and says how many examples it has."""
    from hanse.network.client import examine

    for plan in plans:
        found = examine(client_home, plan, examples, PARTIES.bind, tests)
        typer.echo(f"run {plan.run}: {_describe_counts(found)} suit it")


def _work(client_home: Any, examples: Callable[[Any], Any], tests: Callable[[Any], Any]) -> str:
    """Works as a member until the server is done; returns how it ended."""
    from hanse.network.client import Client

    name = _name_of(client_home)
    return Client(
        client_home, examples, PARTIES.bind, lambda what: typer.echo(f"{name}: {what}"), tests
    ).run()


def _name_of(client_home: Any) -> str:
    return str((client_home.membership or {}).get("name", "this client"))


def _pause(wait_s: float) -> bool:
    time.sleep(wait_s)
    return False


def _describe_counts(found: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {what}" for what, count in found.items())


def _keep_last(source: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Keeps the data that a source made for the last plan: joining and the first ticket both ask for them."""
    from hanse.network.client import plan_digest
    from hanse.network.protocol import seal_plan

    last: dict[str, Any] = {}

    def open_data(plan: Any) -> Any:
        digest = plan_digest(seal_plan(plan))
        if digest not in last:
            last.clear()
            last[digest] = source(plan)
        return last[digest]

    return open_data


def _check(client_home: Any, url: str | None, token: str | None, data: str | None, test: str | None) -> None:
    """Tries everything short of joining, and says what it found."""
    from hanse.cli.views import note
    from hanse.network.client import allow_plan, check, examine
    from hanse.network.protocol import CHUNK_BYTES, WAIT_S, Token

    if url is None or token is None:
        raise InvalidInput("to check, write hanse join https://HOST:PORT --token ... --data ... --check")
    PARTIES.register()
    typer.echo(
        f"sending {CHUNK_BYTES >> 20} MiB, to be answered after {WAIT_S:g} s, as proxies must allow ..."
    )
    plans, number = check(client_home, url, Token.parse(token))
    typer.echo("network, certificate, versions, invitation: fine")
    for plan in plans:
        if data is None:
            PARTIES.bind(allow_plan(client_home, plan).plan)
            typer.echo(f"run {plan.run}: {plan.model} can be trained here")
        else:
            tests = None if test is None else PARTIES.test(data, number, test)
            found = examine(client_home, plan, PARTIES.data(data, number, test, note), PARTIES.bind, tests)
            typer.echo(f"run {plan.run}: {_describe_counts(found)} suit {plan.model}")
    typer.echo("nothing was joined; the token is still good")
