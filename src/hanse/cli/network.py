"""The commands of real parties, to be hung into `hanse`.

    serve, join, check           begin
    status, clients, events      look        (operator, observer)
    invite, revoke, stop, drain, rotate-certificate  steer  (operator)
    leave, approve, audit-log    at a client

What turns settings into a run and files into data comes from above, as a `Bridge`.
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
    """What these commands ask of the rest of Hanse."""

    def register(self) -> None:
        """Makes known what plans are made of, so that they can be read."""

    def job(self, file: Path | None, sets: Sequence[str]) -> Any:
        """The `Job` that settings describe. Raises: InvalidInput."""

    def data(self, what: str, number: int, test: str | None = None) -> Callable[[Any], Any]:
        """Opens a client's own data; from a plan, the examples in its shape. Raises: InvalidInput."""

    def test(self, what: str, number: int, test: str | None = None) -> Callable[[Any], Any]:
        """Likewise the examples that it measures models on: a file of them, or held out of its data."""

    def bind(self, plan: Any) -> Any:
        """The learner of a plan. Raises: InvalidInput."""


Guard = Callable[[], AbstractContextManager[None]]

Home = Annotated[Path, typer.Option(metavar="FOLDER", help="Where all is kept.")]
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
    """Hangs the commands into an app.

    Args:
      guard: around each command; turns errors into exit codes.
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
        listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8443",
        public: Annotated[
            str | None, typer.Option(metavar="HOST:PORT", help="What clients connect to, if another.")
        ] = None,
        home: Home = Path(".hanse/server"),
        certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="In place of its own.")] = None,
        key: Annotated[Path | None, typer.Option(metavar="PEM", help="Of that certificate.")] = None,
        shown: Annotated[
            Path | None, typer.Option(metavar="PEM", help="The certificate that a proxy in front shows.")
        ] = None,
        clients: Annotated[
            int | None,
            typer.Option(min=1, help="Begin once so many have joined; as many as in the settings."),
        ] = None,
        silent_s: Annotated[float, typer.Option(help="Give up clients that are silent for so long.")] = 60.0,
        round_s: Annotated[
            float, typer.Option(help="The longest that a round may take, or wait for clients.")
        ] = 3600.0,
        over_select: Annotated[
            float,
            typer.Option(help="Ask so many times the cohort, count the first to answer; 1: no more."),
        ] = 1.3,
        fresh: Annotated[
            bool, typer.Option("--fresh", help="Begin a new run, whatever was interrupted.")
        ] = False,
        min_clients: Annotated[
            int | None,
            typer.Option(min=1, help="Begin a round once so many are present; as many as it wants."),
        ] = None,
        stay: Annotated[bool, typer.Option("--stay", help="Go on serving when the run has ended.")] = False,
    ) -> None:
        """Lead a run with real parties; prints what they are to type."""
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
        raise InvalidInput(f"{text!r} is no address; write HOST:PORT, such as 0.0.0.0:8443")
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
        name: Annotated[str, typer.Option(help="What the operator sees.")] = "",
        check: Annotated[bool, typer.Option("--check", help="Try everything, join nothing.")] = False,
        new_key: Annotated[
            bool, typer.Option("--rotate-key", help="First put a new key in the place of this client's.")
        ] = False,
    ) -> None:
        """Take part with one's own data; without address, where one has joined before."""
        with guard():
            from threadpoolctl import threadpool_limits

            from hanse.network.client import (
                NEXT_KEY,
                Client,
                ClientHome,
                examine,
                fetch_plans,
                patiently,
                rotate_key,
            )
            from hanse.network.client import join as enter
            from hanse.network.protocol import Token

            client_home, kept = ClientHome(home), dict[str, Any]()
            if check:
                _check(client_home, bridge, url, token, data, test)
                return
            if data is None:
                raise InvalidInput("--data is due: a file of this client's own examples")
            bridge.register()
            given = None if token is None else Token.parse(token)
            if client_home.membership is None:
                if url is None or given is None:
                    raise InvalidInput("write hanse join https://HOST:PORT --token ... --data ...")
                plans, number = fetch_plans(client_home, url, given)
            else:
                if url is not None and given is not None:
                    enter(client_home, url, given, name)  # which names a new certificate, if anything
                if new_key or (home / NEXT_KEY).exists():  # which may have been cut
                    rotate_key(client_home)
                    typer.echo(f"its key is {client_home.identity.public[:16]}... now")
                plans, number = patiently(lambda: fetch_plans(client_home), _pause, typer.echo)
            opened = _keep_last(bridge.data(data, number, test))
            tested = _keep_last(bridge.test(data, number, test))
            try:
                with threadpool_limits(1):  # or a large product has other bits than in the simulation
                    for plan in plans:
                        found = examine(
                            client_home, plan, opened, bridge.bind, None if test is None else tested
                        )
                        typer.echo(f"run {plan.run}: {_describe_counts(found)} suit it")
                    if client_home.membership is None and url is not None and given is not None:
                        enter(client_home, url, given, name)
                    kept = client_home.membership or {}

                    def say(what: str) -> None:
                        typer.echo(f"{kept['name']}: {what}")

                    ended = Client(client_home, opened, bridge.bind, say, tested).run()
            except KeyboardInterrupt:
                ended = "stopped; join again with the same --home"
            typer.echo(f"{kept.get('name', 'this client')}: {ended}")


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
            tested = None if test is None else bridge.test(data, number, test)
            found = examine(client_home, plan, bridge.data(data, number, test), bridge.bind, tested)
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
        """Show how the runs of a server stand."""
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
        """List who has joined a server."""
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
        """Show what happened at a server: who joined, failed, was refused, and why."""
        with guard(), _link(home) as link:
            for e in link.plain("GET", "/v1/events", params={"limit": limit}):
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e["at"]))
                typer.echo(f"{when} {e['who']}: {e['what']}".replace("\n", "\n    "))

    @app.command()
    def invite(
        home: Operator = OPERATOR,
        role: Annotated[str, typer.Option(help="client, observer or operator.")] = "client",
        name: Annotated[str, typer.Option(help="What the new one is called.")] = "",
    ) -> None:
        """Invite one more; prints what he is to type."""
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
            Path | None, typer.Option(metavar="PEM", help="What a proxy in front will show.")
        ] = None,
        switch: Annotated[bool, typer.Option("--switch", help="Show what was announced.")] = False,
        anyway: Annotated[bool, typer.Option("--anyway", help="Though clients don't know of it.")] = False,
    ) -> None:
        """Announce another certificate to all clients; once they know of it, show it."""
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
        """Stop a run where it is; serving it again goes on with it."""
        with guard(), _link(home) as link:
            link.plain("POST", f"/v1/runs/{run}/stop")

    @app.command()
    def drain(run: str, home: Operator = OPERATOR) -> None:
        """Stop a run after the round that it is in."""
        with guard(), _link(home) as link:
            link.plain("POST", f"/v1/runs/{run}/drain")


# -- at a client -----------------------------------------------------------------------------------


def _add_client_home(app: typer.Typer, bridge: Bridge, guard: Guard) -> None:
    @app.command()
    def leave(home: Home = CLIENT) -> None:
        """Withdraw consent: the server is told, and this client is not asked again."""
        with guard():
            from hanse.network.client import ClientHome
            from hanse.network.client import leave as part

            part(ClientHome(home))
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
        """Read, and verify, what left this house."""
        with guard():
            from hanse.network.client import AuditLog

            last = ""
            for line in AuditLog(home / "audit.jsonl").lines():
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["at"]))
                about = {k: v for k, v in line.items() if k not in ("n", "at", "what", "before", "hash")}
                typer.echo(f"{line['n']:6} {when} {line['what']}: {json.dumps(about)}")
                last = line["hash"]
            typer.echo(f"whole; the last line's hash is {last or 'none'}")
