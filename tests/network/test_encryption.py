"""Encrypted sums over the network: a key holder beside the server, which gets no keys."""

from pathlib import Path
from typing import Any

import pytest
from federation import KEYS, Federation, begin, bound, federation, job, population, program
from learning import SOFTMAX, learner
from starlette.types import ASGIApp
from test_leaks import Overhearing

from hanse.algorithms import fed_avg, uniform
from hanse.core import InvalidInput, Reducer
from hanse.core.exchange import InMemory, PartyMemory, digest, drive
from hanse.network.client import ClientHome, Entrant, Owner, Sources, enrolment, join_in_order, try_joining
from hanse.network.client.memory_parts import read_parts
from hanse.network.protocol.tokens import Token
from hanse.network.server import https as serving
from hanse.privacy import KEY_HOLDER, encrypted_mean
from hanse.privacy.encryption import reducers
from hanse.privacy.encryption.reducers import make_keys
from hanse.privacy.secure_sums import secure_mean
from hanse.simulation import InProcess, Simulation
from hanse.transforms import clip

NUM_HOUSES, ROUNDS = 3, 2
SECRET = "c0ffee" * 10 + "beef"
INTO = encrypted_mean(NUM_HOUSES)


def make(into: Reducer[Any]) -> Any:
    return fed_avg(lr=0.5, fraction=1.0, batch_size=50, weighting=uniform(), uplink=(clip(1.0),), into=into)


def simulate(into: Reducer[Any]) -> str:
    store = InMemory()
    backend = InProcess(bound(SOFTMAX), population(), KEYS)
    memory = PartyMemory(store.memory)
    runtime = Simulation(backend, NUM_HOUSES, KEYS, memory=memory, parties=into.parties)
    algorithm = make(into)
    return digest(dict(drive(program(algorithm, ROUNDS, begin(algorithm)), runtime, store).state.params))


@pytest.fixture
def overheard(monkeypatch: pytest.MonkeyPatch) -> list[Overhearing]:
    here, application = list[Overhearing](), serving.application

    def overhearing(*given: Any) -> ASGIApp:
        here.append(Overhearing(application(*given)))
        return here[-1]

    monkeypatch.setattr(serving, "application", overhearing)
    return here


def enter(
    here: Federation, *, without: tuple[int | str, ...] = (), other: tuple[int | str, ...] = ()
) -> None:
    """Lets houses and key holder join; some of them without the secret of the houses, or with another."""
    for party in (*range(NUM_HOUSES), KEY_HOLDER):
        home = here.client_home(party)
        if party not in without:
            (home.folder / "houses.key").write_text(("0" * 64 if party in other else SECRET) + "\n")
        if party == KEY_HOLDER:
            here.enter_one(party, refuse_data, refuse_data)
        else:
            data = population().client(int(party))
            here.enter_one(party, lambda plan, data=data: data, learner)


def refuse_data(plan: Any) -> Any:
    raise AssertionError("a party that holds a key alone opened data, or made a model")


def lead(here: Federation, into: Reducer[Any]) -> str:
    return here.lead(job(make(into), ROUNDS, num_clients=NUM_HOUSES, parties=into.parties))


def test_a_key_holder_decrypts_in_the_bits_of_the_simulation_and_the_server_never_has_a_key(
    tmp_path: Path, overheard: list[Overhearing]
) -> None:
    into = encrypted_mean(NUM_HOUSES)
    expected = simulate(into)
    assert expected == simulate(secure_mean(bits=32, max_weight=1.0, max_clients=into.max_cohort))
    with federation(tmp_path, stay=True) as here:
        run = lead(here, into)
        enter(here)
        assert here.end(run)["params_sha256"] == expected
        held = read_parts(here.client_home(KEY_HOLDER).folder / "runs" / run / "memory")[0]
        public, secret, answered, unused = held["!!encryption/keys"]
    assert answered
    assert unused == b""
    seen = b"\n".join(
        [
            *overheard[0].heard,
            *(path.read_bytes() for path in (tmp_path / "server").rglob("*") if path.is_file()),
        ]
    )
    at = next(i for i in range(0, len(secret), 64) if secret[i : i + 64] not in public)
    assert len(secret) > len(public) + 100_000
    for piece in (secret[at : at + 64], secret[-64:], bytes.fromhex(SECRET), SECRET.encode()):
        assert piece not in seen
    assert public[2000:2064] in seen  # the search finds what is there


def test_keys_of_one_run_are_good_in_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that shows one key pair in many runs would have one client count as many."""
    made, gather = list[Any](), reducers.gather

    def gather_again(work: Any, *given: Any, **more: Any) -> Any:
        if not made or not isinstance(work, make_keys):
            got = yield from gather(work, *given, **more)
            if isinstance(work, make_keys):
                public = got.by_party("keys")[KEY_HOLDER].values["public"]
                length = int.from_bytes(public[:4].tobytes(), "little")
                made.extend([got] if 0 < length < public.size else [])  # it is made up in a rehearsal
            return got
        return made[0]

    monkeypatch.setattr(reducers, "gather", gather_again)
    with federation(tmp_path, stay=True) as here:
        enter(here)
        first = here.lead(job(make(INTO), 1, num_clients=NUM_HOUSES, parties=INTO.parties))
        here.end(first)
        assert made
        second = lead(here, INTO)
        here.wait_until(lambda: any(record.abandoned for record in here.records), "no round was lost")
        here.server.run(second).mailbox.stop()
    for house in range(NUM_HOUSES):
        assert "not vouched for" in (tmp_path / f"client-{house}" / "client.log").read_text()


def test_who_joins_hears_at_once_that_the_secret_of_the_houses_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "CHECK_S", 0.0)
    with federation(tmp_path, stay=True) as here:
        run = lead(here, INTO)
        home, said = ClientHome(tmp_path / "own"), list[str]()
        secret, _ = here.server.members.invite(number=0)
        asked = Entrant(here.url, Token(here.server.fingerprint, secret, here.server.identity.public))
        owner = Owner(lambda plans, number: Sources(refuse_data, None), learner, said.append)

        def check() -> None:
            try_joining(home, asked, owner, lambda plan: None, lambda plan: None, with_data=False)

        with pytest.raises(InvalidInput, match=r"encrypt_pending.* not through the server.*houses\.key"):
            check()
        with pytest.raises(InvalidInput, match=r"put it at .*houses\.key"):
            join_in_order(home, asked, owner)
        assert home.membership is None
        path = home.folder / "houses.key"
        path.touch(0o600)
        path.write_text(SECRET[:-1])
        with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
            check()
        path.write_text(SECRET + "\n")
        path.chmod(0o640)
        with pytest.raises(InvalidInput, match=r"others can read .*houses\.key.*: chmod 600"):
            check()
        path.chmod(0o600)
        check()
        assert "the secret of the houses: it is here" in said
        path.chmod(0o644)
        with home.claim():
            assert path.stat().st_mode & 0o777 == 0o600
        here.server.run(run).mailbox.stop()


@pytest.mark.parametrize(
    ("without", "other", "why"),
    [
        ((KEY_HOLDER,), (), "need the secret that the houses share"),
        ((1,), (), "need the secret that the houses share"),
        ((), (1,), "not vouched for by the party that holds the secret one"),
    ],
    ids=["key holder without", "house without", "house with another"],
)
def test_without_the_secret_of_the_houses_nothing_is_decrypted(
    without: tuple[int | str, ...], other: tuple[int | str, ...], why: str, tmp_path: Path
) -> None:
    with federation(tmp_path, stay=True) as here:
        run = lead(here, encrypted_mean(NUM_HOUSES))
        enter(here, without=without, other=other)
        here.wait_until(
            lambda: any(record.abandoned for record in here.records),
            "no round was lost",
        )
        here.server.run(run).mailbox.stop()
    party = (*without, *other)[0]
    assert why in (tmp_path / f"client-{party}" / "client.log").read_text()
