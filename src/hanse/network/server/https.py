"""Serves a server's HTTP interface on a port, and leads runs from beginning to end."""

import gc
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import uvicorn
from threadpoolctl import threadpool_limits

from hanse.core import HanseError, PartyId
from hanse.network.client.home import ClientHome
from hanse.network.client.own_imports import write_option
from hanse.network.protocol import certificates
from hanse.network.protocol.house import claim_home
from hanse.network.protocol.wire import PlanImport
from hanse.network.server.api import application
from hanse.network.server.job import RunJob
from hanse.network.server.members import Taken
from hanse.network.server.records import RoundReport, RunEnd, RunStanding
from hanse.network.server.server import Server
from hanse.network.server.sockets import (
    Connections,
    Prompt,
    Web,
    bracket,
    count_allowed,
    listen,
    raise_open_files,
)
from hanse.network.server.upkeep import choose_runs, close_run, find_ended_run, note_restoration, open_run

if TYPE_CHECKING:
    from hanse.network.server.monitoring import Meter

__all__ = ["join_line", "lead", "listen", "serving"]

LOOK_S = 0.2
"""The seconds after which whoever watches runs is called again."""

FULL_COLLECTION = 1000
"""Collections of younger objects between two full ones, while serving. Python's own default is 10."""


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Makes full garbage collections rare while this is entered.

    5,000 clients that wait are a million objects, all of them new every 25 s: Python would search them
    every few seconds, for a second each, and find nothing, since requests leave no cycles behind.
    """
    youngest, younger, full = gc.get_threshold()
    gc.set_threshold(youngest, younger, FULL_COLLECTION)
    try:
        yield
    finally:
        gc.set_threshold(youngest, younger, full)


def _open_web(server: Server, meter: "Meter | None", certificate: Path, key: Path) -> Web:
    config = uvicorn.Config(
        application(server, meter),
        http=Prompt,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # it warns of each request that is no HTTP, and so anybody could fill a log
        access_log=False,
        server_header=False,
        proxy_headers=False,  # addresses are counted where they are accepted
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ciphers="ECDHE+AESGCM:ECDHE+CHACHA20",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    most = count_allowed(raise_open_files())
    return Web(config, Connections(most, server.note_crowd))


@contextmanager
def serving(
    server: Server,
    bound: socket.socket,
    host: str,
    certificate: tuple[Path, Path] | None = None,
    meter: "Meter | None" = None,
) -> Iterator[str]:
    """Serves in a thread while this is entered, and yields the URL.

    Args:
      host: the name by which clients know the server.
      certificate: a certificate and its key; None: the server's own, which is made if it does not exist.
      meter: observes requests.
    """
    web = _open_web(server, meter, *(certificate or certificates.make(server.home, (host,))))
    server.connections = web.connections
    server.rotation.reload = lambda pem, key: web.config.ssl.load_cert_chain(pem, key)  # type: ignore[union-attr]
    thread = threading.Thread(target=web.run, kwargs={"sockets": [bound]}, name="https", daemon=True)
    thread.start()
    try:
        with _seldom_collecting():
            yield f"https://{bracket(host)}:{bound.getsockname()[1]}"
    finally:
        server.stop()
        web.should_exit = True
        server.presence.hang_up()
        thread.join(10.0)
        bound.close()
        server.audit_heads.write()
        server.members.close()


def join_line(url: str, token: str | Path, party: PartyId | None, imports: Sequence[PlanImport] = ()) -> str:
    """Returns the command that an invited client types.

    Args:
      token: or the file that holds it.
      imports: the modules that the client needs.
    """
    home = "" if party is None else f" --home hanse-client-{party}"
    given = f"--token-file {quote(str(token))}" if isinstance(token, Path) else f"--token {token}"
    return f"hanse join {url} {given}{home} --data FILE{''.join(map(write_option, imports))}"


def lead(
    jobs: Sequence[RunJob],
    home: Path,
    address: tuple[str, int],
    public: tuple[str, int],
    *,
    certificate: tuple[Path, Path] | None = None,
    proxy_certificate: Path | None = None,
    fresh: bool = False,
    resume: str | None = None,
    stay: bool = False,
    tokens_to: Path | None = None,
    say: Callable[[str], None] = print,
    report: Callable[[RoundReport], None] | None = None,
    watch: Callable[[Callable[[], list[RunStanding]]], None] | None = None,
    conclude: Callable[[RunEnd], None] | None = None,
    metrics: tuple[str, int] | None = None,
) -> str:
    """Leads runs with real parties until they have ended, and returns the status of the last one.

    An interrupted run of the same settings is resumed.

    Args:
      jobs: the runs.
      home: the folder where everything is kept; the operator's own key is in its folder "operator".
      address: to listen on; public: that clients connect to.
      certificate: a certificate and its key, as PEM files; None: the server's own.
      proxy_certificate: the certificate that clients see, if a proxy is in front of the server.
      fresh, resume: see `choose_runs`.
      stay: whether to go on serving when all runs have ended.
      tokens_to: a folder for the clients' tokens, each in a file; None: the lines for the operator hold them.
      say: called with lines for the operator.
      report: called in a run's thread with the report of each round; None: `say` hears of missed clients.
      watch: called a few times a second with a function that says how far the runs are.
      conclude: called at the end for each run; None: `say` hears of it.
      metrics: the address for health and metrics; None: none are shown.

    Raises:
      InvalidInput: if the address is taken, or another process serves this home.
      OtherRunOpen: if an interrupted run has other settings.
      StoreError: if the store is older than it was.
      HanseError: if a run could not go on, because too few clients came or no space is left on the disk.
    """
    with ExitStack() as stack:
        stack.enter_context(claim_home(home))
        bound = listen(*address)
        stack.callback(bound.close)
        shown = None if metrics is None else listen(*metrics)
        if shown is not None:
            stack.callback(shown.close)
        # only now, since a server that can't listen changes no run
        chosen = choose_runs(home, jobs, fresh=fresh, resume=resume)
        own = certificate or certificates.make(home, (public[0],))
        pem = (proxy_certificate or own[0]).read_text()
        server = Server(home, certificates.fingerprint(pem), stay=stay, say=say)
        url = f"https://{bracket(public[0])}:{public[1] or bound.getsockname()[1]}"
        server.report = report or server.report
        meter = None
        if shown is not None:
            from hanse.network.server.monitoring import Meter, monitor

            meter = Meter(server)
            server.observe_round = meter.observe_round
            stack.enter_context(monitor(server, shown, meter))
        stack.enter_context(threadpool_limits(1))
        stack.enter_context(serving(server, bound, public[0], own, meter))
        server.check_store([run for run in chosen if run is not None], fresh=fresh)
        _appoint(server, url, pem)
        note_restoration(home, server.members, say)
        server.rotation.switched = lambda pem: _appoint(server, url, pem)
        names = [server.lead(job, run) for job, run in zip(jobs, chosen, strict=True)]
        for name, job, run in zip(names, jobs, chosen, strict=True):
            say(f"run {name} is served at {url}")
            open_run(server.runs, name)
            if run is None and (before := find_ended_run(server.runs, job)) is not None:
                say(f"run {before} of the same settings is completed; run {name} is another one")
        num_clients = max(job.num_clients for job in jobs)
        _warn_of_files(server, num_clients, say)
        needed = {one.name: one for job in jobs for one in job.plan.imports}
        for one in needed.values():
            say(
                f"each client needs a copy of its own of {_name_files(one)}; its owner is asked to approve it"
            )
        is_new = not all(server.runs.records(name) for name in names)  # then it waits for all to join
        server.invitations.copies = tokens_to
        houses = max((job.houses for job in jobs), key=len)
        _invite(server, url, num_clients, say, tuple(needed.values()), houses, replace_departed=is_new)
        named = dict.fromkeys(party for job in jobs for party in job.parties)
        _invite_parties(server, url, tuple(named), say, tuple(needed.values()))
        try:
            while not server.done.wait(LOOK_S):
                if watch is not None:
                    watch(lambda: [led.standing for led in server.led()])
        except KeyboardInterrupt:
            say("stopping; serve the same settings again to go on")
        stalled = [led for name in names if (led := server.run(name)).status == "interrupted"]
        server.stop()
        for name in names:
            led = server.run(name)
            close_run(server.runs, name)
            if conclude is not None:
                conclude(led.end)
                continue
            say(f"run {name}: {led.status} {json.dumps(led.result) if led.result else led.reason}".rstrip())
            for found in led.result.get("findings", ()):
                say(f"run {name}: {found['text']}; {found['cure']}")
        if server.full:
            raise HanseError(
                f"no space is left at {home}: free some, and serve the same settings again. Nothing that was "
                "acknowledged is lost, and the clients wait until then"
            )
        if stalled:
            whys = "; ".join(f"run {led.name} was interrupted: {led.reason}" for led in stalled)
            raise HanseError(f"{whys}. Nothing is lost: serve the same settings again to go on")
        return server.run(names[-1]).status


def _warn_of_files(server: Server, num_clients: int, say: Callable[[str], None]) -> None:
    """Says it if the system lets this process open too few files for the connections of all clients."""
    assert server.connections is not None
    most, needed = server.connections.most, 2 * num_clients  # one to wait on, one for up- and downloads
    if needed > most:
        say(
            f"the system's limit of open files leaves {most} connections, and {num_clients} clients may need "
            f"{needed}; raise it: ulimit -n {4 * needed}, or LimitNOFILE={4 * needed} in a systemd unit"
        )


def _appoint(server: Server, url: str, pem: str) -> None:
    """Makes the operator a member, with a client home of its own."""
    client_home = ClientHome(server.home / "operator")
    server.members.appoint("operator", "operator", client_home.identity.public)
    about = {"id": "operator", "role": "operator", "number": None, "name": "operator"}
    client_home.enter({"url": url, "certificate": pem, "server_key": server.identity.public, **about})


def _name_files(needed: PlanImport) -> str:
    others = [path for path in needed.files if path != needed.name]
    also = f" with {', '.join(others)}" if needed.kind == "file" and others else ""
    return f"{needed.name}{also}"


def _invite(
    server: Server,
    url: str,
    num_clients: int,
    say: Callable[[str], None],
    imports: Sequence[PlanImport] = (),
    houses: Sequence[str] = (),
    *,
    replace_departed: bool = False,
) -> None:
    """Says the join line of each client that is missing.

    Args:
      houses: what results call the clients, by number, so that each gets the line of its own.
      replace_departed: whether others are invited under the numbers of those who left or were revoked.
    """
    here, _ = server.members.clients()
    taken = here if replace_departed else {member.number for member in server.members.all()}
    server.invitations.forget(number for number in taken - here if number is not None)
    missing = [number for number in range(num_clients) if number not in taken]
    if missing:
        these = "each of these lines is good for one more"
        if houses:
            these = "each of these lines is for the party named above it: results call who joins by it so"
        say(f"{len(here)} of {num_clients} clients have joined; {these}:")
    for number in missing:
        with suppress(Taken):  # the server listens already: one may join meanwhile with an earlier token
            line = join_line(url, _find_token(server, number), number, imports)
            say(f"  {houses[number]}:\n  {line}" if number < len(houses) else f"  {line}")


def _find_token(server: Server, party: PartyId) -> str | Path:
    """Returns the token of a party, or the file in which its operator finds it."""
    token = server.invitations.find(server.fingerprint, server.identity.public, party)
    return str(token) if server.invitations.copies is None else server.invitations.copy(party)


def _invite_parties(
    server: Server,
    url: str,
    parties: Sequence[str],
    say: Callable[[str], None],
    imports: Sequence[PlanImport] = (),
) -> None:
    """Says the join line of each named party that no member plays now."""
    missing = [party for party in parties if party not in server.members.parties()]
    if missing:
        num_here = len(parties) - len(missing)
        say(f"{num_here} of {len(parties)} named parties have joined; these lines are for the others:")
    for party in missing:
        with suppress(Taken):
            say(f"  {party}: {join_line(url, _find_token(server, party), party, imports)}")
