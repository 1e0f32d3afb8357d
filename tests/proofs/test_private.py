"""What protocols between clients need: private messages, promises, and sums that say who is in them."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from secure import (
    HALF,
    REFUSED,
    asks_twice,
    fixed_point,
    keep_secret,
    masked_sum,
    secure_avg,
    shared_sum,
    unmask,
)
from support import KEYS, Few, Fragile, Quadratic, simulate, simulation

from hanse.algorithms import fed_avg, fed_buff, fed_sgd, uniform
from hanse.algorithms.scaffold import Controlled, controlled_sgd
from hanse.config import read
from hanse.core import (
    Algorithm,
    Close,
    CompositionError,
    Contribution,
    Declined,
    Discount,
    InvalidInput,
    Key,
    Keys,
    Memory,
    Part,
    Parts,
    PartSpec,
    PartyId,
    Program,
    Reducer,
    RoundAbandoned,
    Shared,
    Spec,
    Steps,
    Tensors,
    TensorSpec,
    Total,
    Unveiled,
    Work,
    add_scaled,
    ask_each,
    collect,
    dispatch,
    each,
    gather,
    mean,
    sample,
    scale,
    value,
    zeros_like,
)
from hanse.core import sum as sum_
from hanse.core.exchange import Collect, Commit, Coordinator, Dispatch, Usage, drive
from hanse.runs import prepare_run
from hanse.simulation import InProcess, Simulation, WorkerPool, ideal, unstable
from hanse.testing import ClientTasks, ConcurrentSimulation, adrive
from hanse.transforms import per_round, random_mask

KEY = KEYS.public
EVERYBODY = Close(minimum_fraction=1.0)
VECTOR = Spec({"x": TensorSpec(("n",), "float64")})


@value
class read_mail(Work[Any, Any]):
    """Emits what it was sent alone, times what all were sent; `many` may not be asked."""

    factor: float = 1.0

    def run(
        self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys
    ) -> tuple[Contribution, Memory]:
        (name,) = shared["mail"]
        scaled = self.factor * float(shared["all"]["factor"]) if "all" in shared.tensors else self.factor
        return {"read": Part({"x": scaled * shared["mail"][name]})}, memory

    def many(self, *given: Any) -> Mapping[str, Parts] | None:
        raise AssertionError("clients that are sent tensors of their own are computed one by one")


def mail(num_parties: int = 6) -> dict[PartyId, dict[str, Tensors]]:
    """A letter for each party, none as long as another."""
    return {k: {"mail": {f"for {k}": np.arange(k + 1.0) + 10 * k}} for k in range(num_parties)}


def write_all(letters: Any, into: Reducer[Any] = each(), spec: Spec = VECTOR) -> Program[Any]:
    everybody = {"all": {"factor": np.array(2.0)}}
    read = PartSpec(spec, into=into)
    return (yield from gather(read_mail(), tuple(letters), everybody, KEY, own=letters, read=read))


def make() -> InProcess:
    """A backend that computes clients together where it can."""
    return InProcess(Quadratic(), Few(), KEYS, together=True)


def by_tasks(program: Program[Any]) -> Any:
    """The result of a program, by message passing."""

    async def run() -> Any:
        async with ClientTasks(Quadratic(), Few(), KEYS) as clients:
            return await adrive(program, ConcurrentSimulation(clients, Few().num_clients, KEYS))

    return asyncio.run(run())


# Private messages.


def test_each_member_reads_its_own_message_and_nobody_elses() -> None:
    with_workers = WorkerPool(make, 2)
    try:
        runs = {
            "one by one": drive(write_all(mail()), simulation()),
            "together": drive(write_all(mail()), Simulation(make(), 6, KEYS)),
            "workers": drive(write_all(mail()), Simulation(with_workers, 6, KEYS)),
            "messages": by_tasks(write_all(mail())),
        }
    finally:
        with_workers.close()
    for how, got in runs.items():
        assert got.parties == tuple(range(6)), how
        for k, part in got.by_party("read").items():
            np.testing.assert_array_equal(part.values["x"], 2 * (np.arange(k + 1.0) + 10 * k), err_msg=how)


def usage_of(program: Program[Any], runtime: Any = None) -> Usage:
    runtime = runtime or simulation()
    drive(program, runtime)
    usage: Usage = runtime.perform(Commit(1, None, {})).usage
    return usage


def test_private_messages_are_metered_and_their_flows_are_booked() -> None:
    letters = mail()
    empty = {k: {"mail": {name: v[:0] for name, v in own["mail"].items()}} for k, own in letters.items()}
    usage = usage_of(write_all(letters))
    num_values = sum(k + 1 for k in range(6))
    # A longer tensor costs its values, and digits of its shape and its end.
    assert 0 <= usage.bytes_down - usage_of(write_all(empty)).bytes_down - 8 * num_values <= 6 * 16
    (flow,) = [flow for flow in usage.flows if flow.name == "mail"]
    assert (flow.direction, flow.messages, flow.num_bytes) == ("down", 6, (8 * num_values,))
    assert usage.clients[5][1] - usage.clients[0][1] >= 8 * 5


def test_a_server_may_write_to_itself_for_nothing() -> None:
    def program() -> Program[Any]:
        own = {"server": {"mail": {"a": np.ones(3)}}}
        return (
            yield from gather(read_mail(), ("server",), {}, KEY, own=own, read=PartSpec(VECTOR, into=each()))
        )

    runtime = simulation()
    assert drive(program(), runtime).by_party("read")["server"].values["x"].tolist() == [1, 1, 1]
    assert runtime.perform(Commit(1, None, {})).usage.bytes_down == 0


def test_private_messages_that_nobody_could_read_are_refused() -> None:
    work, tensors = read_mail(), {"w": np.ones(1)}
    with pytest.raises(InvalidInput, match="own tensors for 7, who is not in the cohort"):
        Dispatch(work, (1, 2), {}, {}, KEY, own={7: {"mail": tensors}})
    with pytest.raises(InvalidInput, match="'mail' is sent to everybody and to 2 alone"):
        Dispatch(work, (1, 2), {"mail": tensors}, {}, KEY, own={2: {"mail": tensors}})


def test_the_coordinator_forgets_private_messages_once_they_are_answered() -> None:
    runtime = simulation()
    drive(write_all(mail()), runtime)
    assert runtime.coordinator.snapshot().dispatches == {}

    def leave_one() -> Program[Any]:
        read = PartSpec(VECTOR, into=each())
        asked = yield from dispatch(
            read_mail(), (0, 1), {}, KEY, own={k: mail()[k] for k in (0, 1)}, read=read
        )
        return (yield from collect(asked.tickets[:1]))

    runtime = simulation()
    drive(leave_one(), runtime)
    assert runtime.coordinator.task(1).own.keys() == {"mail"}


# Answers by party.


def ask(asked: Any, **options: Any) -> Any:
    options = {"read": PartSpec(VECTOR, into=each()), **options}
    return ask_each(asked, KEY, **options)


def test_ask_each_gives_each_party_its_own_work_in_one_round_trip() -> None:
    order = [3, 0, 5, 1]
    asked = {k: (read_mail(1.0 + k % 2), mail()[k]) for k in order}
    runtime = simulation()
    log: list[Any] = []
    perform = runtime.perform
    runtime.perform = lambda command: log.append(command) or perform(command)  # type: ignore[method-assign,func-returns-value]
    answers = drive(ask(asked), runtime)
    assert [type(command) for command in log] == [Dispatch, Dispatch, Collect]
    assert list(answers) == order
    for k, answer in answers.items():
        np.testing.assert_array_equal(answer["read"].values["x"], (1 + k % 2) * (np.arange(k + 1.0) + 10 * k))
    again = by_tasks(ask(asked))
    assert [answer["read"].values["x"].tolist() for answer in again.values()] == [
        answer["read"].values["x"].tolist() for answer in answers.values()
    ]


def test_each_party_may_emit_parts_of_its_own() -> None:
    @value(name="names_its_part")
    class names_its_part(Work[Any, Any]):
        part: str

        def run(self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys) -> Any:
            return {self.part: Part({self.part: shared["own"]["x"]}, 3.0)}, memory

    def spec(name: str, dtype: str) -> PartSpec:
        return PartSpec(Spec({name: TensorSpec((1,), dtype)}), into=each())

    kinds: dict[PartyId, tuple[str, str]] = {0: ("a", "int64"), 2: ("b", "float64"), 4: ("a", "float32")}
    asked = {
        k: (names_its_part(part), {"own": {"x": np.full(1, k, dtype)}}) for k, (part, dtype) in kinds.items()
    }
    uplink: dict[str, Any] = {
        part: {k: spec(part, dtype) for k, (its, dtype) in kinds.items() if its == part} for part in "ab"
    }
    answers = drive(ask_each(asked, KEY, **uplink), simulation())
    for k, (part, dtype) in kinds.items():
        (one,) = answers[k].items()
        assert (one[0], one[1].values[part].tolist(), one[1].weight) == (part, [k], 3.0)
        assert one[1].values[part].dtype == dtype


def test_who_does_not_answer_is_missing_or_the_round_is_abandoned() -> None:
    asked = {k: (read_mail(), letter) for k, letter in mail().items()}
    devices = unstable(0.3)
    answers = drive(ask(asked), simulation(devices=devices))
    assert 3 <= len(answers) < 6
    for k, answer in answers.items():
        np.testing.assert_array_equal(answer["read"].values["x"], np.arange(k + 1.0) + 10 * k)  # type: ignore[operator]
    with pytest.raises(RoundAbandoned, match="6 are needed"):
        drive(ask(asked, close=EVERYBODY), simulation(devices=devices))


class Many(Few):
    """Two hundred parties, which make several blocks of a fold."""

    num_clients = 200

    def client(self, number: int) -> Any:
        return self.parts[number % len(self.parts)]


def test_blocks_of_answers_compose_and_two_hundred_parties_are_one_dispatch() -> None:
    asked = {k: (read_mail(), {"mail": {"a": np.full(k % 3, float(k))}}) for k in reversed(range(200))}
    ended = []
    for in_blocks in (True, False):
        runtime = Simulation(InProcess(Quadratic(), Many(), KEYS), 200, KEYS, in_blocks=in_blocks)
        answers = drive(ask(asked), runtime)
        ended.append([(k, answer["read"].values["x"].tolist()) for k, answer in answers.items()])
        assert len({ticket.dispatch for ticket in runtime.coordinator.snapshot().closed.values()}) == 1
    assert ended[0] == ended[1] == [(k, [float(k)] * (k % 3)) for k in reversed(range(200))]


def test_two_specs_in_one_collect_are_refused_before_anybody_computes() -> None:
    def program(first: PartSpec, second: PartSpec) -> Program[Any]:
        own = {k: {"mail": {"a": np.ones(k)}} for k in (1, 2)}
        tickets: tuple[int, ...] = ()
        for k, part_spec in ((1, first), (2, second)):
            asked = yield from dispatch(read_mail(), (k,), {}, KEY, own={k: own[k]}, read=part_spec)
            tickets += asked.tickets
        return (yield from collect(tickets))

    one, two = (Spec({"x": TensorSpec((n,), "float64")}) for n in (1, 2))
    with pytest.raises(CompositionError, match=r"'read' has two specs in one collect.*write into=each\(\)"):
        drive(program(PartSpec(one), PartSpec(two)), simulation())
    with pytest.raises(CompositionError, match=r"goes into mean\(\) and into sum\(\) in one collect"):
        drive(program(PartSpec(one), PartSpec(one, into=sum_())), simulation())
    got = drive(program(PartSpec(one, into=each()), PartSpec(two, into=each())), simulation())
    assert [len(part.values["x"]) for part in got.by_party("read").values()] == [1, 2]


def test_answers_by_party_are_for_who_writes_a_program_and_no_setting() -> None:
    with pytest.raises(InvalidInput, match=r'algorithm\.into\.name is "each", which is no setting'):
        read(None, ["algorithm.name=fed_sgd", "algorithm.into=each"])
    experiment = read(None, ["algorithm.name=fed_sgd"])
    with pytest.raises(InvalidInput, match=r"algorithm.into is each\(\), which is no setting"):
        prepare_run(replace(experiment, algorithm=fed_sgd(into=each())))
    with pytest.raises(CompositionError, match=r"'read' goes into mean\(\): write into=each\(\)"):
        drive(ask({1: (read_mail(), mail()[1])}, read=PartSpec(VECTOR)), simulation())
    with pytest.raises(CompositionError, match=r"random_mask\(.*\) is undone on a sum, and each\(\) adds"):
        PartSpec(Spec.of({"w": np.ones(3)}), (random_mask(0.5, drawn=per_round()),), each()).chain()


# Promises.


def test_a_second_question_is_declined_after_the_first_ones_ticket_was_dropped() -> None:
    params = Quadratic().init(KEYS.public)
    backend = WorkerPool(make, 2)
    try:
        ended = {
            "one process": simulate(asks_twice(), 2).params,
            "workers": drive(
                asks_twice().round(asks_twice().init(params, KEY), KEY), Simulation(backend, 6, KEYS)
            ).params,
            "messages": by_tasks(asks_twice().round(asks_twice().init(params, KEY), KEY)).params,
        }
    finally:
        backend.close()
    # None of 6 answers the second question, and all answer the first one again.
    assert ended["one process"]["b"] == 2 * 6 / 64
    assert ended["workers"]["b"] == ended["messages"]["b"] == 6 / 64


def unmask_again(round: int, first: bool, close: Close = Close(), half: PartSpec = HALF) -> Program[Any]:
    shared = {"alive": {"first": np.array(first)}}
    asked = yield from dispatch(unmask(round), tuple(range(6)), shared, KEY, half=half)
    return (yield from collect(asked.tickets, close=close))


def test_promises_last_until_a_ticket_of_their_client_is_counted() -> None:
    """They survive an abandoned round, and the memory of a party that the runtime has let go."""
    store = Fragile()
    ready = PartSpec(Spec({}), into=each())
    names: list[list[str]] = []

    def program() -> Program[None]:
        yield from gather(keep_secret(), tuple(range(6)), {}, KEY, ready=ready)
        yield from unmask_again(1, True, half=REFUSED)
        yield Commit(1, None, {}, "nobody answered")
        names.append(sorted(store.memory(0)))
        yield from gather(keep_secret(), tuple(range(6)), {}, KEY.fold_in(1), ready=ready)
        got = yield from unmask_again(1, False)
        assert {drop.reason for drop in got.dropped} == {
            "declined: it was asked something else under 'unmask/1' before"
        }
        assert [drop.party for drop in got.dropped] == list(range(6))
        got = yield from unmask_again(2, False)
        assert got.parties == tuple(range(6))
        yield Commit(2, None, {})
        names.append(sorted(store.memory(0)))

    drive(program(), simulation(store), store)
    assert names == [["!unmask/1"], []]


def test_a_client_keeps_its_promises_while_a_fork_is_left_from_which_they_could_be_broken() -> None:
    """A server that says of another ticket that it is counted does not make the client forget."""
    from hanse.core.exchange import Fork, Forks

    forks = Forks()
    forks.keep(1, Fork(None, {"~secret": b"s"}, ()))
    forks.keep(2, Fork(1, {"!asked": b"first", "lasting": 1}, ()))
    forks.settle([], [2])
    assert forks.at(1) == {"!asked": b"first", "~secret": b"s"}, "the fork is dropped, and not the promise"
    forks.keep(3, Fork(1, {}, ("!asked",)))
    assert forks.at(3)["!asked"] == b"first", "no work takes a promise back"
    forks.settle([3], [])
    assert forks.at(1)["!asked"] == b"first", "the secret is still here"
    assert forks.settle([1], [])
    assert forks.committed == {}


# Sums that say who is in them.


@value
class secure_scaffold(Algorithm[Controlled]):
    """SCAFFOLD, in which clients count alike, and all parts are hidden."""

    lr: float = 0.1
    epochs: int = 5

    def init(self, params: Tensors, key: Key) -> Controlled:
        return Controlled(params, zeros_like(params))

    def round(self, state: Controlled, key: Key) -> Program[Controlled]:
        cohort = (yield from sample(key, fraction=1.0)).cohort
        hidden = PartSpec(Spec.of(state.params), (fixed_point(40),), masked_sum())
        seen = replace(hidden, spec=Spec({"weight": TensorSpec((), "float64")}))
        got = yield from gather(
            controlled_sgd(Steps(self.lr, self.epochs), uniform()),
            cohort,
            {"params": state.params, "control": state.control},
            key,
            update=hidden,
            control=hidden,
            seen=seen,
        )
        total = state.seen + float(got["seen"].values["weight"])
        control = add_scaled(scale(state.control, state.seen / total), 1 / total, got["control"].values)
        update = got["update"]
        return Controlled(add_scaled(state.params, 1 / update.count, update.values), control, total)


def uniform_optimum() -> np.ndarray:
    """The optimum of the objective in which all clients count alike, b last."""
    hessian, slope = np.zeros((4, 4)), np.zeros(4)
    for data in Few().parts:
        x = np.column_stack([data.x, np.ones(len(data))])
        hessian += x.T @ x / len(data)
        slope += x.T @ data.y / len(data)
    return np.linalg.solve(hessian, slope)


def distance_to_optimum(rounds: int, watch: Any = None) -> float:
    params = simulate(secure_scaffold(), rounds, unstable(0.05), watch=watch).params
    return float(np.abs(np.append(params["w"], params["b"]) - uniform_optimum()).max())


def test_scaffold_reaches_its_fixed_point_with_silent_clients_in_a_secure_sum() -> None:
    records: list[Any] = []
    assert distance_to_optimum(75, records.append) < 1e-9
    assert sum(r.usage.counted < 6 and r.abandoned is None for r in records) > 30, "clients fell silent"
    assert all(r.usage.counted + r.usage.dropped == 6 for r in records if r.abandoned is None)


def test_it_does_not_if_clients_commit_that_fell_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coordinator, "_drop_silent_tickets", lambda *given: ())
    assert distance_to_optimum(40) > 1e-4


@value
class sum_without(Reducer[Any]):
    """Says that a party is missing in its totals. Nothing is summed."""

    missing: tuple[int, ...] = ()
    num_phases: int = 0
    hides = True

    def accepts(self, spec: Spec) -> None:
        """Accepts any spec."""

    def lift(self, part: Part) -> Any:
        raise AssertionError("a hidden part reached the server")

    merge = result = lift

    def protocol(self, parts: Mapping[str, Spec], parties: tuple[PartyId, ...], key: Key) -> Program[Any]:
        for phase in range(self.num_phases):
            read = PartSpec(VECTOR, into=each())
            own = {k: {"mail": {"a": np.ones(1)}} for k in parties}
            yield from gather(read_mail(), parties, {}, key.fold_in(phase), own=own, read=read)
        inside = tuple(party for party in parties if party not in self.missing)
        return Unveiled({part: Total({"x": np.ones(1)}, 1.0, len(inside)) for part in parts}, inside)


@value
class remembers(Work[Any, Any]):
    """Emits two parts, and remembers how often it was counted."""

    def run(self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys) -> Any:
        part = Part({"x": np.ones(1)})
        return {"a": part, "b": part}, {**memory, "times": memory.get("times", 0) + 1}


ONE = Spec({"x": TensorSpec((1,), "float64")})


def hide(first: Reducer[Any], second: Reducer[Any], close: Close = Close()) -> Program[Any]:
    a, b = PartSpec(ONE, into=first), PartSpec(ONE, into=second)
    return (yield from gather(remembers(), tuple(range(6)), {}, KEY, close=close, a=a, b=b))


def test_only_who_is_in_a_hidden_total_is_counted_and_commits() -> None:
    runtime = simulation()
    got = drive(hide(*[sum_without((1, 4), num_phases=3)] * 2), runtime)
    assert got.parties == (0, 2, 3, 5)
    assert got.counted == (0, 2, 3, 5)
    reasons = {drop.ticket: (drop.party, drop.reason) for drop in got.dropped}
    assert reasons.pop(1) == (1, "it was not in the protocol's last phase")
    assert reasons.pop(4) == (4, "it was not in the protocol's last phase")
    assert {reason.split(",")[0] for _, reason in reasons.values()} >= {"it was built on ticket 1"}
    assert {party for party, _ in reasons.values()} == {1, 4}, "phases that were built on them"
    committed = runtime.perform(Commit(1, None, {}))
    assert {party: dict(memory) for party, memory in committed.memories.items()} == {
        party: {"times": 1} for party in (0, 2, 3, 5)
    }
    assert (committed.usage.counted, committed.usage.dropped) == (4, 2), "clients, not phases"


def test_parts_whose_totals_are_of_other_clients_abandon_the_round() -> None:
    with pytest.raises(RoundAbandoned, match=r"a and b were summed by different protocols.*equal reducers"):
        drive(hide(sum_without((1,)), sum_without((2,))), simulation())
    drive(hide(sum_without((1,)), sum_without((1,), num_phases=1)), simulation())
    with pytest.raises(
        RoundAbandoned, match=r"'b' is open and counts all 6 clients, but only 5.*hide it too"
    ):
        drive(hide(sum_without((1,)), mean()), simulation())
    assert drive(hide(sum_without(), mean()), simulation()).parties == tuple(range(6))


def test_too_few_in_a_hidden_total_abandon_the_round() -> None:
    left = sum_without((0, 1, 2, 3))
    with pytest.raises(RoundAbandoned, match="2 of 6 clients were left at the end of the protocol, 3 are"):
        drive(hide(left, left), simulation())
    assert drive(hide(left, left, Close(minimum_fraction=0.3)), simulation()).parties == (4, 5)
    nobody = sum_without(tuple(range(6)))
    with pytest.raises(RoundAbandoned, match="0 of 6"):
        drive(hide(nobody, nobody, Close(minimum_fraction=0.0)), simulation())


@value
class zero_without(sum_without):
    """Has a total of nobody, unlike the one that its protocol ends with."""

    def zero(self, spec: Spec) -> Total:
        return Total({"x": np.zeros(1)}, 0.0, 0)


def test_if_nobody_is_left_in_a_protocol_the_totals_are_those_of_nobody() -> None:
    runtime, nobody = simulation(), zero_without(tuple(range(6)))
    got = drive(hide(nobody, nobody, Close(minimum_fraction=0.0)), runtime)
    assert (got.counted, got.parties, len(got.dropped)) == ((), (), 6)
    assert [(total.values["x"][0], total.count) for total in got.totals.values()] == [(0.0, 0)] * 2
    committed = runtime.perform(Commit(1, None, {}))
    assert (committed.usage.counted, committed.usage.dropped, committed.memories) == (0, 6, {})
    for reducers in ([nobody, sum_without(tuple(range(6)))], [nobody, mean()]):
        with pytest.raises(RoundAbandoned, match=r"0 of 6|'b' is open and counts all 6 clients"):
            drive(hide(*reducers, Close(minimum_fraction=0.0)), simulation())
    with pytest.raises(RoundAbandoned, match="0 of 6"):
        drive(hide(nobody, nobody, Close(minimum_fraction=0.1)), simulation())


class OverSelecting(Simulation):
    """Counts the first four of six, and takes the minimum from these four."""

    def perform(self, command: Any) -> Any:
        if isinstance(command, Collect) and command.tickets is not None and len(command.tickets) == 6:
            fewer = command.close.minimum_fraction * 4 / 6
            close = replace(command.close, goal=4, minimum_fraction=fewer)
            command = replace(command, close=close)
        return super().perform(command)


def test_the_survivors_of_an_over_selected_cohort_are_compared_with_the_wanted_clients() -> None:
    def left_by(missing: tuple[int, ...]) -> Any:
        reducer, runtime = sum_without(missing), OverSelecting(make(), 6, KEYS)
        return drive(hide(reducer, reducer, Close(minimum_fraction=0.75)), runtime)

    assert left_by((0,)).parties == (1, 2, 3)
    with pytest.raises(RoundAbandoned, match="2 of 4 clients were left at the end of the protocol, 3 are"):
        left_by((0, 1))


@value
class sum_nothing(sum_without):
    """Its only phase goes to a client that declines."""

    def protocol(self, parts: Mapping[str, Spec], parties: tuple[PartyId, ...], key: Key) -> Program[Any]:
        yield from gather(decline(), parties[:1], {}, key, read=PartSpec(VECTOR, into=each()))


@value
class decline(Work[Any, Any]):
    def run(self, learner: Any, shared: Shared, data: Any, memory: Memory, keys: Keys) -> Any:
        raise Declined("not now")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (sum_without(tuple(range(6))), sum_without(tuple(range(6)))),
        (sum_without((1,)), sum_without((2,))),
        (sum_without((1,)), mean()),
        (sum_nothing(), sum_nothing()),
    ],
    ids=["too few are left", "two protocols differ", "an open part", "a phase"],
)
def test_a_protocol_that_waits_for_its_parties_and_fails_is_attempted_again(first: Any, second: Any) -> None:
    for close, waits in [(Close(wait_s=9.0), True), (Close(), False)]:
        with pytest.raises(RoundAbandoned) as lost:
            drive(hide(first, second, close), simulation())
        assert lost.value.waits == waits


def test_the_phases_of_a_protocol_wait_as_long_as_its_exchange() -> None:
    def perform(close: Close) -> Any:
        hidden = PartSpec(ONE, (fixed_point(),), masked_sum())
        program = gather(remembers(), tuple(range(6)), {}, KEY, close=close, a=hidden, b=hidden)
        return drive(program, simulation(devices=unstable(0.3)))

    got = perform(Close(minimum_fraction=1.0, wait_s=9.0))
    assert (got.parties, got.dropped) == (tuple(range(6)), ())
    np.testing.assert_allclose(got["a"].values["x"], 6.0)
    assert len(perform(Close(minimum_fraction=0.1)).parties) < 6, "the devices do drop out"

    asked: list[Any] = []

    class Watched(Simulation):
        def perform(self, command: Any) -> Any:
            if isinstance(command, Collect):
                asked.append(command.close.wait_s)
            return super().perform(command)

    protocol = sum_without(num_phases=2)
    for close in (Close(wait_s=9.0), Close()):
        drive(hide(protocol, protocol, close), Watched(make(), 6, KEYS))
    assert asked == [9.0] * 3 + [None] * 3


def test_a_protocol_that_forgets_to_say_who_is_in_its_totals_is_refused() -> None:
    @value(name="forgetful_sum")
    class forgetful_sum(sum_without):
        def protocol(self, parts: Mapping[str, Spec], parties: Any, key: Key) -> Program[Any]:
            yield from sample(key, count=1)
            return Total({"x": np.ones(1)}, 1.0, 1)

    with pytest.raises(CompositionError, match=r"must return Unveiled\(totals, parties\)"):
        drive(hide(forgetful_sum(), forgetful_sum()), simulation())


# Sums of shares are those of masks.


def test_a_sum_by_private_messages_is_the_sum_by_masks() -> None:
    by_shares = simulate(secure_avg(into=shared_sum()), 5, ideal()).params
    by_masks = simulate(secure_avg(), 5, ideal()).params
    np.testing.assert_array_equal(by_shares["w"], by_masks["w"])
    np.testing.assert_allclose(by_shares["w"], simulate(plain_avg(), 5).params["w"], atol=1e-3)


def plain_avg() -> Any:
    return fed_avg(lr=0.02, fraction=1.0, epochs=2, batch_size=None, weighting=uniform())


# Compositions that can't be are refused when a run is prepared.


@pytest.mark.parametrize("discount", [True, False])
def test_what_is_hidden_needs_rounds_that_close(discount: bool) -> None:
    def program() -> Program[Any]:
        part = PartSpec(ONE, into=sum_without())
        asked = yield from dispatch(remembers(), (0, 1), {}, KEY, a=part, b=part)
        if discount:
            return (yield from collect(asked.tickets, discount=Discount()))
        return (yield from collect())

    why = "discounts stale contributions" if discount else "names no tickets"
    with pytest.raises(CompositionError, match=f"hides part 'a'.* that {why}: use an algorithm whose rounds"):
        drive(program(), simulation())


def test_asynchronous_algorithms_refuse_reducers_that_hide_when_they_are_prepared() -> None:
    experiment = read(None, ["algorithm.name=fed_buff"])
    hidden = fed_buff(concurrency=4, buffer_size=2, into=sum_without())
    with pytest.raises(CompositionError, match=r"hides part 'update'.*names no tickets"):
        prepare_run(replace(experiment, algorithm=hidden))
    prepare_run(replace(experiment, algorithm=replace(hidden, into=mean())))
