"""A party that dies just before or just after any lasting step ends, once restarted, in the same bits."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from federation import (
    NUM_CLIENTS,
    Ended,
    Federation,
    Threaded,
    federation,
    job,
    learner,
    population,
    read_memory,
    simulate,
)
from fragile import Crash, Fate, FragileHome, name_client_file, watch_files
from secure import asks_twice, secure_avg, shared_sum
from test_kill import free_port

from hanse.algorithms import fed_avg, scaffold
from hanse.core.exchange import digest
from hanse.network.client import memory_parts
from hanse.network.client.client import Client
from hanse.network.client.enrolment import join
from hanse.network.client.home import ClientHome
from hanse.network.client.poller import Poller
from hanse.network.protocol.certificates import fingerprint, make
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import News
from hanse.network.server.https import listen, serving
from hanse.network.server.job import RunJob
from hanse.network.server.server import Server
from hanse.privacy.secure_sums import secure_mean
from hanse.store import Runs, RunStore
from hanse.transforms import clip

SCAFFOLD = scaffold(lr=0.3, fraction=1.0, batch_size=50)
SECURE = fed_avg(lr=0.5, fraction=1.0, batch_size=50, uplink=(clip(1.0),), into=secure_mean())
ROUNDS = 3
VICTIM = 0
SENDS = ("keep", "write", "sends", "upload", "sent")
"""The steps of a client that has computed a ticket, in order: it keeps the fork of its memory first."""

ENDS = ("forget", "commit")
"""The steps once the message is at the server, and once the client knows that it was counted."""

PARTS = ("part", "sweep")
"""What it does to parts of its memory, before and after it writes the index that names them."""

BEFORE_ONLY = ("verdict", "acknowledge")
"""What it has read of an answer, and what it then tells the server; nothing is done between these two."""

COMPUTED_IN_A_CHILD = ("keep", "upload", "commit")
"""The steps around which the victim computes in a child process, as clients do; else in its own thread."""

SERVER_STEPS = ("append Dispatched", "receive", "append Collected", "save")


@pytest.fixture(scope="module")
def due() -> Ended:
    return simulate(SCAFFOLD, ROUNDS)


class Hasty(Poller):
    """Asks the server to answer soon, since a dead client ends only when its poll does."""

    def poll(self, wait_s: float = 0.1) -> News:
        return super().poll(min(wait_s, 0.1))


class InChild(Client):
    poller = Hasty


class InOwnThread(Threaded):
    poller = Hasty


class Victims:
    """A federation of which one client is started again whenever it dies."""

    def __init__(self, here: Federation, fate: Fate) -> None:
        self.here, self.fate = here, fate
        self.num_crashes, self.next_points = 0, list[tuple[str, int, str]]()
        self.kind: type[Client] = InChild
        """In what the victim computes once it is started again."""
        here.client_home(VICTIM)
        here.enter([number for number in range(NUM_CLIENTS) if number != VICTIM])
        here.threads.append(threading.Thread(target=self._live, daemon=True))
        here.threads[-1].start()

    def _live(self) -> None:
        people = population()
        while True:
            home = FragileHome(self.here.folder / f"client-{VICTIM}", self.fate)
            client = self.kind(home, lambda plan: people.client(VICTIM), learner, self.here.said.append)
            self.here.clients.append(client)
            try:
                client.run()
                return
            except Crash:
                self.num_crashes += 1
                self.fate.revive()
                if self.next_points:
                    self.fate.die(*self.next_points.pop(0))


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    """One federation performs all runs, so that each of them takes a moment."""
    folder, fate = tmp_path_factory.mktemp("federation"), Fate()
    with pytest.MonkeyPatch.context() as patch, federation(folder, stay=True) as here:
        patch.setattr(memory_parts, "PART_BYTES", 0)
        watch_files(patch, folder / f"client-{VICTIM}", fate, name_client_file)
        yield Victims(here, fate)


@pytest.mark.parametrize("step", [*SENDS, *ENDS, *PARTS, *BEFORE_ONLY])
def test_a_client_that_dies_at_a_step_ends_in_the_same_bits(step: str, victims: Victims, due: Ended) -> None:
    """It dies just before the second such step, and once it is started again just after it has done it."""
    crashes = victims.num_crashes
    victims.kind = InChild if step in COMPUTED_IN_A_CHILD else InOwnThread
    victims.fate.die(step, 2, "before")
    victims.next_points = [] if step in BEFORE_ONLY else [(step, 1, "after")]
    run = victims.here.lead(job(SCAFFOLD, ROUNDS))
    assert victims.here.ended(run) == due
    assert victims.next_points == []
    assert victims.num_crashes == crashes + (1 if step in BEFORE_ONLY else 2)


def test_a_fork_is_on_the_disk_before_its_message_exists(victims: Victims, due: Ended) -> None:
    """A client that finds its message sends it, and does not compute its memory again."""
    victims.fate.revive()
    assert victims.here.ended(victims.here.lead(job(SCAFFOLD, ROUNDS))) == due
    seen = victims.fate.history
    assert [step for step in seen if step in SENDS] == [*SENDS] * ROUNDS
    assert [step for step in seen if step in ("upload", "commit")] == ["upload", "commit"] * ROUNDS


@pytest.mark.parametrize(("step", "when"), [("keep", "after"), ("upload", "after")])
def test_a_client_that_dies_keeps_its_promise(step: str, when: str, victims: Victims) -> None:
    """It answered the first question, whose ticket was dropped, and declines the second one."""
    crashes = victims.num_crashes
    victims.fate.revive()
    victims.fate.die(step, 2, when)
    run = victims.here.lead(job(asks_twice(), 1))
    assert (
        victims.here.ended(run, status="incomplete").params_sha256 == simulate(asks_twice(), 1).params_sha256
    )
    assert victims.num_crashes == crashes + 1


class MortalServer:
    """A server that is started again whenever it dies, as it does at each of these points in turn."""

    def __init__(self, folder: Path, fate: Fate, points: list[tuple[str, int, str]]) -> None:
        self.folder, self.fate, self.points, self.num_crashes = folder, fate, points, 0
        self.port = free_port()
        with self._serving() as server:
            self.url = f"https://127.0.0.1:{self.port}"
            for number in range(NUM_CLIENTS):
                secret, _ = server.members.invite(number=number)
                token = Token(server.fingerprint, secret, server.identity.public)
                join(ClientHome(folder / f"client-{number}"), self.url, token)

    @contextmanager
    def _serving(self) -> Iterator[Server]:
        certificate, _ = make(self.folder / "server", ("127.0.0.1",))
        server = Server(self.folder / "server", fingerprint(certificate.read_text()))
        with serving(server, listen("127.0.0.1", self.port), "127.0.0.1"):
            yield server

    def perform(self, given: RunJob, run: str | None = None) -> str:
        """Performs a run to its end, however often the server dies; returns its name."""
        while True:
            self.fate.revive()
            if self.num_crashes < len(self.points):
                self.fate.die(*self.points[self.num_crashes])
            with self._serving() as server, suppress(Crash):  # of what it found when it began
                run = server.lead(given, run)
                while not server.done.wait(0.005) and not self.fate.dead.is_set():
                    server.run(run).mailbox.notify()  # a run looks only once a second who is back
                if not self.fate.dead.is_set():
                    assert server.run(run).status == "completed", server.members.events(20)
                    return run
            self.num_crashes += 1


def name_server_file(path: Path, target: Path) -> str:
    return "receive" if target.suffix == ".message" and path != target else "else"


@pytest.fixture
def remains() -> Iterator[None]:
    """Clears away what dead servers leave, connections of clients that go on, before a later test does."""
    yield
    gc.collect()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
)
@pytest.mark.usefixtures("remains")
@pytest.mark.parametrize("step", SERVER_STEPS)
def test_a_server_that_dies_at_a_step_ends_in_the_same_bits(
    step: str, due: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies just before the second such step, and once it is started again just after the second."""
    ended = perform_mortally(
        job(SCAFFOLD, ROUNDS), [(step, 2, "before"), (step, 2, "after")], tmp_path, monkeypatch
    )
    assert ended == due


def perform_mortally(
    given: RunJob, points: list[tuple[str, int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Ended:
    """Performs a run whose server dies at each of these points."""
    fate = Fate()
    watch_files(monkeypatch, tmp_path / "server" / "runs", fate, name_server_file)
    append, save = RunStore.append, RunStore.save
    monkeypatch.setattr(
        RunStore,
        "append",
        lambda store, entry: fate.meet(f"append {type(entry.event).__name__}", lambda: append(store, entry)),
    )
    monkeypatch.setattr(RunStore, "save", lambda *given: fate.meet("save", lambda: save(*given)))
    here = MortalServer(tmp_path, fate, points)
    people, ends, threads = population(), list[str](), list[threading.Thread]()
    for number in range(NUM_CLIENTS):
        mine = people.client(number)
        kind = Client if number == VICTIM else Threaded  # one computes in a child process
        client = kind(ClientHome(tmp_path / f"client-{number}"), lambda plan, mine=mine: mine, learner)
        threads.append(threading.Thread(target=lambda client=client: ends.append(client.run()), daemon=True))
        threads[-1].start()
    run = here.perform(given)
    for thread in threads:
        thread.join(60.0)
    assert ends == ["over"] * NUM_CLIENTS
    assert here.num_crashes == len(points)
    (info,) = Runs(tmp_path / "server" / "runs.db").infos()
    kept = [read_memory(tmp_path / f"client-{number}", run) for number in range(NUM_CLIENTS)]
    assert [forks for _, forks in kept] == [{}] * NUM_CLIENTS
    assert info.result is not None
    return Ended(info.result["params_sha256"], tuple(digest(committed) for committed, _ in kept))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
)
@pytest.mark.usefixtures("remains")
def test_a_server_that_dies_with_private_messages_in_flight_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third dispatch of a round writes to each client alone."""
    algorithm = secure_avg(lr=0.5, into=shared_sum())
    step = "append Dispatched"
    ended = perform_mortally(
        job(algorithm, 1), [(step, 3, "before"), (step, 1, "after")], tmp_path, monkeypatch
    )
    assert ended == simulate(algorithm, 1)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
)
@pytest.mark.usefixtures("remains")
def test_a_server_that_dies_between_any_two_phases_of_a_secure_sum_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each phase ends with an event in the journal; a server that is started again goes on from the last."""
    points = [("append Collected", 2, "after"), *[("append Collected", 1, "after")] * 3]
    ended = perform_mortally(job(SECURE, 1), points, tmp_path, monkeypatch)
    assert ended == simulate(SECURE, 1)


def test_a_client_that_dies_in_each_phase_of_a_secure_sum_ends_in_the_same_bits(victims: Victims) -> None:
    crashes = victims.num_crashes
    victims.fate.revive()
    victims.fate.die("keep", 2, "after")
    victims.next_points = [("upload", 2, "before"), ("keep", 2, "after"), ("upload", 1, "before")]
    run = victims.here.lead(job(SECURE, 1))
    assert victims.here.ended(run) == simulate(SECURE, 1)
    assert victims.num_crashes == crashes + 4
