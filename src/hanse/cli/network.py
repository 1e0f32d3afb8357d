"""The commands of real parties, which `hanse` adds to its own.

    serve, join                                          begin
    status, clients, events                              look   (operator, observer)
    invite, revoke, stop, drain, rotate-certificate      steer  (operator)
    leave, approve, audit-log                            at a client

A `Bridge` turns settings into runs and files into data.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from hanse.core import HanseError, InvalidInput

__all__ = ["Bridge", "add_commands"]


class Bridge(Protocol):
    """The functions that these commands need from the rest of Hanse."""

    def register(self) -> None:
        """Import the classes that plans are made of, so that plans can be read."""

    def job(self, file: Path | None, sets: Sequence[str]) -> Any:
        """Return the `RunJob` that settings describe. Raises: InvalidInput."""

    def data(self, what: str, number: int, test: str | None = None) -> Callable[[Any], Any]:
        """Open a client's own data: return a function from a plan to the examples. Raises: InvalidInput."""

    def test(self, what: str, number: int, test: str | None = None) -> Callable[[Any], Any]:
        """Open the examples that a client measures models on: a file of them, or held out of its data."""

    def bind(self, plan: Any) -> Any:
        """Make the learner of a plan. Raises: InvalidInput."""


Guard = Callable[[], AbstractContextManager[None]]

Home = Annotated[Path, typer.Option(metavar="FOLDER", help="The folder where everything is kept.")]
Operator = Annotated[Path, typer.Option("--home", metavar="FOLDER", help="The operator's folder.")]
OPERATOR = Path(".hanse/server/operator")
CLIENT = Path(".hanse/client")


@contextmanager
def _plainly() -> Iterator[None]:
    try:
        yield
    except HanseError as error:
        if os.environ.get("HANSE_DEBUG", "0") != "0":
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, InvalidInput) else 1) from None


def add_commands(app: typer.Typer, bridge: Bridge, guard: Guard = _plainly) -> None:
    """Add the commands to an app.

    Args:
      guard: is entered around each command, and turns errors into exit codes.
    """
    _add_serve(app, bridge, guard)
    _add_join(app, bridge, guard)
    _add_operator(app, guard)
    _add_client_home(app, bridge, guard)


# -- serve -----------------------------------------------------------------------------------------


def _add_serve(app: typer.Typer, bridge: Bridge, guard: Guard) -> None:
    @app.command()
    def serve(
        file: Annotated[Path | None, typer.Argument(metavar="FILE.toml", show_default=False)] = None,
        sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
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
        min_clients: Annotated[
            int | None,
            typer.Option(
                min=1, help="Begin a round once so many clients are present. Default: as many as it wants."
            ),
        ] = None,
        stay: Annotated[bool, typer.Option("--stay", help="Go on serving after the run has ended.")] = False,
    ) -> None:
        """Lead a run with real parties, and print the commands for them to type."""
        with guard():
            from dataclasses import replace

            from hanse.network.server import Patience, lead

            if (certificate is None) != (key is None):
                raise InvalidInput("give --certificate and --key together, or neither")
            job = bridge.job(file, sets or ())
            job = replace(
                job,
                patience=Patience(silent_s, round_s, over_select, min_clients),
                num_clients=clients or job.num_clients,
            )
            ended = lead(
                [job],
                home,
                _address(listen),
                _address(public or listen),
                certificate=(certificate, key) if certificate and key else None,
                rotation=shown,
                fresh=fresh,
                stay=stay,
                say=typer.echo,
            )
            if ended not in ("completed",):
                raise typer.Exit(130 if ended == "interrupted" else 1)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise InvalidInput(f"{text!r} is not an address; write HOST:PORT, such as 0.0.0.0:8443")
    return host.strip("[]"), int(port)


# -- join ------------------------------------------------------------------------------------------


def _add_join(app: typer.Typer, bridge: Bridge, guard: Guard) -> None:
    @app.command()
    def join(
        url: Annotated[str | None, typer.Argument(metavar="https://HOST:PORT", show_default=False)] = None,
        token: Annotated[str | None, typer.Option(help="From the operator; good once.")] = None,
        data: Annotated[str | None, typer.Option(metavar="FILE", help="This client's own data.")] = None,
        test: Annotated[
            str | None, typer.Option(metavar="FILE", help="Its own test examples, to measure models on.")
        ] = None,
        home: Home = CLIENT,
        name: Annotated[str, typer.Option(help="The name that the operator sees.")] = "",
        check: Annotated[bool, typer.Option("--check", help="Try everything, join nothing.")] = False,
        new_key: Annotated[
            bool, typer.Option("--rotate-key", help="Replace this client's key by a new one first.")
        ] = False,
    ) -> None:
        """Take part with this client's own data. The address is only needed the first time."""
        with guard():
            from threadpoolctl import threadpool_limits

            from hanse.network.client import ClientHome
            from hanse.network.client import join as enter
            from hanse.network.protocol import Token

            client_home = ClientHome(home)
            if check:
                _check(client_home, bridge, url, token, data, test)
                return
            if data is None:
                raise InvalidInput("--data is missing; name a file of this client's own examples")
            bridge.register()
            invitation = None if token is None else Token.parse(token)
            plans, number = _find_plans(client_home, url, invitation, name, new_key)
            examples = _keep_last(bridge.data(data, number, test))
            tests = _keep_last(bridge.test(data, number, test))
            try:
                with threadpool_limits(1):  # several threads would add up large products in another order
                    _examine(client_home, bridge, plans, examples, None if test is None else tests)
                    if client_home.membership is None and url is not None and invitation is not None:
                        enter(client_home, url, invitation, name)
                    ended = _work(client_home, bridge, examples, tests)
            except KeyboardInterrupt:
                ended = "stopped; join again with the same --home"
            typer.echo(f"{_name_of(client_home)}: {ended}")


def _find_plans(
    client_home: Any, url: str | None, invitation: Any | None, name: str, new_key: bool
) -> tuple[list[Any], int]:
    """Return the plans of the server's runs, and this client's number; a member's key is replaced first."""
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
    bridge: Bridge,
    plans: Sequence[Any],
    examples: Callable[[Any], Any],
    tests: Callable[[Any], Any] | None,
) -> None:
    """Check that the client's data suit each plan, and say how many examples it has."""
    from hanse.network.client import examine

    for plan in plans:
        found = examine(client_home, plan, examples, bridge.bind, tests)
        typer.echo(f"run {plan.run}: {_describe_counts(found)} suit it")


def _work(
    client_home: Any, bridge: Bridge, examples: Callable[[Any], Any], tests: Callable[[Any], Any]
) -> str:
    """Work as a member until the server is done; return how it ended."""
    from hanse.network.client import Client

    name = _name_of(client_home)
    return Client(client_home, examples, bridge.bind, lambda what: typer.echo(f"{name}: {what}"), tests).run()


def _name_of(client_home: Any) -> str:
    return str((client_home.membership or {}).get("name", "this client"))


def _pause(wait_s: float) -> bool:
    time.sleep(wait_s)
    return False


def _describe_counts(found: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {what}" for what, count in found.items())


def _keep_last(source: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Keep what a source made of the last plan: it is asked for when joining, and with the first ticket."""
    from hanse.network.client import plan_digest

    last: dict[str, Any] = {}

    def open_data(plan: Any) -> Any:
        digest = plan_digest(plan)
        if digest not in last:
            last.clear()
            last[digest] = source(plan)
        return last[digest]

    return open_data


def _check(
    client_home: Any, bridge: Bridge, url: str | None, token: str | None, data: str | None, test: str | None
) -> None:
    """Try everything short of joining, and say what was found."""
    from hanse.network.client import check, examine
    from hanse.network.protocol import CHUNK_BYTES, WAIT_S, Token

    if url is None or token is None:
        raise InvalidInput("to check, write hanse join https://HOST:PORT --token ... --data ... --check")
    bridge.register()
    typer.echo(
        f"sending {CHUNK_BYTES >> 20} MiB, to be answered after {WAIT_S:g} s, as proxies must allow ..."
    )
    plans, number = check(client_home, url, Token.parse(token))
    typer.echo("network, certificate, versions, invitation: fine")
    for plan in plans:
        if data is None:
            client_home.policy.check_plan(plan)
            bridge.bind(plan)
            typer.echo(f"run {plan.run}: {type(plan.model).__name__} can be trained here")
        else:
            tests = None if test is None else bridge.test(data, number, test)
            found = examine(client_home, plan, bridge.data(data, number, test), bridge.bind, tests)
            typer.echo(f"run {plan.run}: {_describe_counts(found)} suit {type(plan.model).__name__}")
    typer.echo("nothing was joined; the token is still good")


# -- the operator ----------------------------------------------------------------------------------


def _number(value: float | None) -> str:
    return "is not finite" if value is None else f"{value:.4g}"  # JSON has no word for infinity


@contextmanager
def _link(home: Path) -> Iterator[Any]:
    from hanse.network.client import ClientHome

    link = ClientHome(home).link()
    try:
        yield link
    finally:
        link.close()


def _add_operator(app: typer.Typer, guard: Guard) -> None:
    @app.command()
    def status(home: Operator = OPERATOR, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
        """Show the state of the runs of a server."""
        with guard(), _link(home) as link:
            found = link.plain("GET", "/v1/status")
            if as_json:
                typer.echo(json.dumps(found))
                return
            typer.echo(f"{found['clients']} clients, {found['open_invitations']} open invitations")
            for run in found["runs"]:
                metrics = ", ".join(f"{name} {_number(value)}" for name, value in run["metrics"].items())
                typer.echo(
                    f"run {run['run']}: {run['status']}, round {run['round']}, {run['doing']}; {metrics}"
                )

    @app.command()
    def clients(home: Operator = OPERATOR, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
        """List the members of a server."""
        with guard(), _link(home) as link:
            found = link.plain("GET", "/v1/clients")
            if as_json:
                typer.echo(json.dumps(found))
                return
            for m in found:
                heard = "never heard" if m["silent_s"] is None else f"heard {m['silent_s']:.0f} s ago"
                typer.echo(f"{m['id']:12} {m['role']:9} {m['state']:8} {m['name']:24} {heard}  {m['doing']}")

    @app.command()
    def events(home: Operator = OPERATOR, limit: Annotated[int, typer.Option(min=1)] = 100) -> None:
        """Show the events of a server: who joined, failed or was refused, and why."""
        with guard(), _link(home) as link:
            for e in link.plain("GET", "/v1/events", params={"limit": limit}):
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e["at"]))
                typer.echo(f"{when} {e['who']}: {e['what']}".replace("\n", "\n    "))

    @app.command()
    def invite(
        home: Operator = OPERATOR,
        role: Annotated[str, typer.Option(help="client, observer or operator.")] = "client",
        name: Annotated[str, typer.Option(help="The name of the new member.")] = "",
    ) -> None:
        """Invite one more member, and print the command for it to type."""
        with guard(), _link(home) as link:
            from hanse.network.protocol import Invitation, Invited
            from hanse.network.server import join_line

            asked = Invitation.model_validate({"role": role, "name": name})
            invited = link.ask("POST", "/v1/invitations", Invited, asked)
            typer.echo(join_line(link.url, invited.token, invited.number))

    @app.command()
    def revoke(client: str, home: Operator = OPERATOR) -> None:
        """End a membership at once, by id, number or name."""
        with guard(), _link(home) as link:
            from urllib.parse import quote

            said = link.plain("POST", f"/v1/clients/{quote(client, safe='')}/revoke")
            typer.echo(f"{said['revoked']} is revoked")

    @app.command("rotate-certificate")
    def rotate_certificate(
        home: Operator = OPERATOR,
        certificate: Annotated[
            Path | None, typer.Option(metavar="PEM", help="The certificate that a proxy in front will show.")
        ] = None,
        switch: Annotated[bool, typer.Option("--switch", help="Show the announced one.")] = False,
        anyway: Annotated[
            bool, typer.Option("--anyway", help="Even if some clients don't know of it.")
        ] = False,
    ) -> None:
        """Announce another certificate to all clients, or show it once they know of it."""
        with guard(), _link(home) as link:
            from hanse.network.protocol import Rotated, Rotation

            pem = "" if certificate is None else certificate.read_text(encoding="ascii")
            asked = Rotation(certificate=pem, switch=switch, anyway=anyway)
            done = link.ask("POST", "/v1/certificate", Rotated, asked)
            total = len(done.know) + len(done.missing)
            typer.echo(
                f"certificate {done.fingerprint[:16]}... is {'in place' if done.switched else 'announced'}; "
                f"{len(done.know)} of {total} clients know of it"
            )
            if done.missing and not done.switched:
                typer.echo(f"not yet: {', '.join(done.missing)}")
            if not done.switched:
                typer.echo("when all know: hanse rotate-certificate --switch")

    @app.command()
    def stop(run: str, home: Operator = OPERATOR) -> None:
        """Stop a run where it is. Serving it again goes on with it."""
        with guard(), _link(home) as link:
            link.plain("POST", f"/v1/runs/{run}/stop")

    @app.command()
    def drain(run: str, home: Operator = OPERATOR) -> None:
        """Stop a run after its current round."""
        with guard(), _link(home) as link:
            link.plain("POST", f"/v1/runs/{run}/drain")


# -- at a client -----------------------------------------------------------------------------------


def _add_client_home(app: typer.Typer, bridge: Bridge, guard: Guard) -> None:
    @app.command()
    def leave(home: Home = CLIENT) -> None:
        """Withdraw consent: tell the server, and take no more work from it."""
        with guard():
            from hanse.network.client import ClientHome
            from hanse.network.client import leave as withdraw

            withdraw(ClientHome(home))
            typer.echo("left; it is recorded on both sides")

    @app.command()
    def approve(plan: str, home: Home = CLIENT) -> None:
        """Approve a plan, by the beginning of its digest."""
        with guard():
            from hanse.network.client import ClientHome, plan_digest, waiting_plans

            bridge.register()
            client_home = ClientHome(home)
            found = [p for p in waiting_plans(client_home) if plan_digest(p).startswith(plan)]
            if len({plan_digest(p) for p in found}) != 1:
                raise InvalidInput(f"{len(found)} plans begin with {plan!r}; write all of the digest")
            typer.echo(f"approved {client_home.approvals.approve(found[0])}")

    @app.command("audit-log")
    def audit_log(home: Home = CLIENT) -> None:
        """Show and verify the record of what this client has sent."""
        with guard():
            from hanse.network.client import AuditLog

            last = ""
            for line in AuditLog(home / "audit.jsonl").lines():
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["at"]))
                about = {k: v for k, v in line.items() if k not in ("n", "at", "what", "before", "hash")}
                typer.echo(f"{line['n']:6} {when} {line['what']}: {json.dumps(about)}")
                last = line["hash"]
            typer.echo(f"complete; the last line's hash is {last or 'none'}")
