"""What is computed is what was approved: for every field of a dispatch a server tries something beyond."""

import json
import threading
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import KEYS, Federation, Threaded, begin, federation, job, population
from learning import learner
from secure import advertise, secure_avg

from hanse.algorithms import evaluation, fed_avg, inverse_time, step_decay, uniform
from hanse.algorithms.works import gradient
from hanse.core import Close, MessageError, PartSpec, Program, Spec, Stop, fields, mean, sgd_rule, stack
from hanse.core import sum as sum_
from hanse.core.exchange import (
    Collect,
    Commit,
    Dispatch,
    Payload,
    Progress,
    Sampled,
    Task,
    limit_bytes,
    pack,
    training,
)
from hanse.core.exchange.downlink import Broadcast
from hanse.learners import mlp
from hanse.network.client.allowed_plan import TicketCheck, check_again
from hanse.network.client.audit import AuditLog
from hanse.network.client.home import ClientHome
from hanse.network.client.policy import Approvals, Policy
from hanse.network.protocol.envelope import Envelopes
from hanse.network.protocol.envelope_words import describe_plan, to_record
from hanse.network.protocol.errors import Forbidden
from hanse.network.protocol.sealed_plan import SealedPlan, read_plan, seal_plan
from hanse.network.protocol.wire import PlanImport, WorkOrder
from hanse.network.server import server as serving
from hanse.network.server.rehearsal import foresee, foresight
from hanse.privacy import encrypted_mean
from hanse.privacy.secure_sums import secure_mean
from hanse.transforms import cast, clip, quantize

APPROVED = fed_avg(lr=0.1, fraction=1.0, batch_size=50, uplink=(clip(1.0), quantize(2)))


def first_dispatch(algorithm: Any) -> Dispatch:
    """Returns the first dispatch of an algorithm, to client 0."""
    program = algorithm.round(begin(algorithm).state, KEYS.public)
    next(program)
    command: Dispatch = program.send(Sampled((0,), 1))
    program.close()
    return command


ASKED = first_dispatch(APPROVED)
SECURE = first_dispatch(secure_avg())


def with_steps(**changes: Any) -> Dispatch:
    work: Any = ASKED.work
    return replace(ASKED, work=replace(work, steps=replace(work.steps, **changes)))


def with_part(command: Dispatch = ASKED, **changes: Any) -> Dispatch:
    return replace(command, uplink={"update": replace(command.uplink["update"], **changes)})


W = {"w": np.zeros(3, np.float32)}
PART = ASKED.uplink["update"]
BEYOND: dict[str, list[tuple[Dispatch, str]]] = {
    "work": [
        (with_steps(lr=1000.0), "the work's steps.lr is 1000.0; the approved plan says 0.1"),
        (with_steps(batch_size=1), "the work's steps.batch_size is 1; the approved plan says 50"),
        (with_steps(epochs=100), "the work's steps.epochs is 100"),
        (with_steps(lr=True), "the work's steps.lr is True"),
        (with_steps(rule=sgd_rule(momentum=0.9)), "the work's steps.rule.momentum is 0.9"),
        (
            replace(ASKED, work=gradient()),
            "the work is gradient; the approved plan asks local_sgd of a client",
        ),
    ],
    "shared": [
        (replace(ASKED, shared={**ASKED.shared, "more": W}), "the broadcast more is {w: [float32, 3]}"),
        (replace(ASKED, shared={"params": W}), "the broadcast params/w is [float32, 3]"),
    ],
    "uplink": [
        (with_part(uplink=(quantize(2),)), "the chain of part 'update' is [quantize(bits=2"),
        (
            with_part(uplink=()),
            "the chain of part 'update' is []; the approved plan says [clip(max_norm=1.0)",
        ),
        (with_part(uplink=(clip(9.0), quantize(2))), "the chain of part 'update' is clip(max_norm=9.0)"),
        (with_part(uplink=(clip(1.0), quantize(8))), "bits"),
        (with_part(into=stack()), "the reducer of part 'update' is stack(); the approved plan says mean()"),
        (with_part(max_weight=1e9), "the largest weight of part 'update' is 1000000000.0"),
        (with_part(spec=PART.spec.like(l2_bound=9.0)), "the spec l2_bound of part 'update' is 9.0"),
        (replace(ASKED, uplink={**ASKED.uplink, "rows": PartSpec(Spec.of(W))}), "part 'rows'"),
        (replace(ASKED, uplink={"rows": PART}), "part 'rows' is {spec"),
    ],
    "downlink": [
        (replace(ASKED, downlink=(cast("float16"),)), "the downlink of params is [cast(dtype=float16)]")
    ],
    "own": [(replace(ASKED, own={0: {"trap": W}}), "the client's own tensors trap is {w: [float32, 3]}")],
}
SEEN = "the approved plan says masked_sum()"
BEYOND_SECURE = [
    (with_part(SECURE, into=sum_()), f"the reducer of part 'update' is sum(); {SEEN}"),
    (with_part(SECURE, into=mean(), uplink=()), "the chain of part 'update' is []"),
]
NOT_SENT = {
    "cohort": "who else is asked; a client of another role is refused by `open_role`",
    "key": "of draws, the server's to choose",
    "version": "for staleness",
    "is_phase": "for the server's own count",
}


def test_each_field_of_a_dispatch_is_tried_or_is_not_sent() -> None:
    assert {f.name for f in fields(Dispatch)} == {*BEYOND, *NOT_SENT}
    assert not BEYOND.keys() & NOT_SENT.keys()


def demand(commands: Sequence[Dispatch], progress: Progress[Any]) -> Program[Progress[Any]]:
    """Asks client 0 for one thing after the other."""
    for i, command in enumerate(commands):
        sent: Any = yield replace(command, key=command.key.fold_in(i))
        yield Collect(sent.tickets, Close(minimum_fraction=0.0), dispatch=sent.dispatch)
    progress = replace(progress, round=1)
    yield Commit(1, progress, {})
    return progress


def enter(here: Federation, number: int) -> None:
    data = population().client(number)
    client = Threaded(here.client_home(number), lambda plan: data, learner, here.said.append)
    here.clients.append(client)
    here.threads.append(threading.Thread(target=client.run, daemon=True))
    here.threads[-1].start()


def read_refused(home: Path) -> dict[str, str]:
    """Returns what the log of a client says of each ticket that it refused.

    An order may come twice: two polls that are under way are answered with it, and the later answer is read
    after the ticket was refused. Then the ticket is refused once more, and the server keeps the first word.
    """
    lines = (home / "client.log").read_text().splitlines()
    found = dict[str, str]()
    for ticket, _, why in (line.partition(" failed: ") for line in lines if " failed: " in line):
        found.setdefault(ticket.rpartition(" ticket ")[2], why)
    return found


def read_audit(home: Path) -> Counter[str]:
    return Counter(line.get("code", line["what"]) for line in ClientHome(home).audit.lines())


@pytest.mark.parametrize(
    ("algorithm", "tried"),
    [(APPROVED, [item for items in BEYOND.values() for item in items]), (secure_avg(), BEYOND_SECURE)],
    ids=["clipped", "secure"],
)
def test_nothing_beyond_the_plan_is_computed_and_each_field_is_named(
    algorithm: Any, tried: list[tuple[Dispatch, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved, _ = foresee(job(algorithm, 3, num_clients=1))
    monkeypatch.setattr(serving, "foresee", lambda hostile: (approved, ""))
    commands = [command for command, _ in tried]
    hostile = replace(job(algorithm, 1, num_clients=1), program=lambda progress: demand(commands, progress))
    with federation(tmp_path) as here:
        run = here.lead(hostile)
        enter(here, 0)
        here.end(run, status="incomplete")
        assert "not counted: declined: its policy does not allow this (policy)" in here.events()
    home = tmp_path / "client-0"
    codes = {line["ticket"]: line["code"] for line in ClientHome(home).audit.lines() if "code" in line}
    assert list(codes.values()) == ["policy"] * len(tried)
    assert not read_audit(home).keys() & {"sends", "sent"}
    for (_, why), said in zip(tried, read_refused(home).values(), strict=True):
        assert why in said
    assert ClientHome(home).spent.of_all("tickets") == 0


# -- the fields of what is sent ------------------------------------------------------------------

PLAN = seal_plan(replace(job(APPROVED, 3).plan, envelopes=foresee(job(APPROVED, 3))[0].write()))
PAYLOAD = Payload(ASKED.work, ASKED.shared, ASKED.uplink, {"update": (None, None)})
TASK = Task(7, 0, KEYS.public, None)
ORDER = WorkOrder(
    run="r",
    ticket=7,
    task="",
    payload="0" * 64,
    payload_bytes=1,
    plan="0" * 64,
    plan_bytes=1,
    limit_bytes=limit_bytes(PAYLOAD.chains) or 0,
    work="local_sgd",
)
CHANGED = Broadcast((quantize(8),), "0" * 64, "1" * 64)
HOSTILE: dict[str, Any] = {
    "Payload.work": replace(PAYLOAD, work=with_steps(lr=1.0).work),
    "Payload.shared": replace(PAYLOAD, shared={}),
    "Payload.uplink": replace(PAYLOAD, uplink={}),
    "Payload.plans": replace(PAYLOAD, plans={"update": (None, 3.0)}),
    "Payload.broadcasts": replace(PAYLOAD, shared={}, broadcasts={"params": CHANGED}),
    "Task.party": replace(TASK, party="laboratory"),
    "Task.own": replace(TASK, own={"trap": W}),
    "WorkOrder.limit_bytes": ORDER.model_copy(update={"limit_bytes": ORDER.limit_bytes + 1}),
    "WorkOrder.work": ORDER.model_copy(update={"work": "evaluate"}),
}
CHOSEN = {"Task.ticket", "Task.key", "Task.after"}
"""Fields that are the server's to choose: no more is computed, and no more leaves, for any of them."""
ELSEWHERE = {f"WorkOrder.{name}" for name in WorkOrder.model_fields} - HOSTILE.keys()
"""Names, digests and sizes of what is fetched: see `test_hostile.py` and `test_imports.py`."""


def test_each_field_of_a_ticket_is_tried_or_is_the_servers_to_choose() -> None:
    sent = {f"{kind.__name__}.{f.name}" for kind in (Payload, Task) for f in fields(kind)}
    assert (
        sent | ELSEWHERE == HOSTILE.keys() - {"WorkOrder.limit_bytes", "WorkOrder.work"} | CHOSEN | ELSEWHERE
    )
    TicketCheck(Envelopes.read(PLAN.envelopes)).check(Home(), ORDER, PAYLOAD, TASK)


class Home(ClientHome):
    """A home that needs no folder."""

    def __init__(self) -> None:
        pass

    policy = Policy()  # type: ignore[assignment]


@pytest.mark.parametrize("field", HOSTILE)
def test_a_ticket_with_another_field_is_refused(field: str) -> None:
    given = {"Payload": PAYLOAD, "Task": TASK, "WorkOrder": ORDER}
    given[field.split(".")[0]] = HOSTILE[field]
    check = TicketCheck(Envelopes.read(PLAN.envelopes))
    for _ in range(2):  # a refusal is not remembered as a check
        with pytest.raises(Forbidden) as refused:
            check.check(Home(), given["WorkOrder"], given["Payload"], given["Task"])  # type: ignore[arg-type]
        assert refused.value.code == "policy"


def test_what_was_checked_says_nothing_of_other_tasks_and_orders_of_its_payload() -> None:
    check = TicketCheck(Envelopes.read(PLAN.envelopes))
    check.check(Home(), ORDER, PAYLOAD, TASK)
    trap = replace(TASK, own={"params": W})
    with pytest.raises(Forbidden, match="tensors for this client alone, which its order does not say"):
        check.check(Home(), ORDER.model_copy(update={"task": pack(trap).hex()}), PAYLOAD, trap)
    for own in ("1" * 64, "2" * 64):
        with pytest.raises(Forbidden, match="own tensors params"):
            check.check(Home(), ORDER.model_copy(update={"own": own}), PAYLOAD, trap)
    with pytest.raises(Forbidden, match="may take 1 bytes, says its order"):
        check.check(Home(), ORDER.model_copy(update={"limit_bytes": 1}), PAYLOAD, TASK)
    with pytest.raises(Forbidden, match="asks nothing of laboratory"):
        check.check(Home(), ORDER, PAYLOAD, replace(TASK, party="laboratory"))
    check.check(Home(), ORDER, PAYLOAD, replace(TASK, ticket=8))


def test_what_is_no_payload_is_refused_too() -> None:
    check = TicketCheck(Envelopes.read(PLAN.envelopes))
    for wrong in ({"shared": 3}, {"uplink": {"update": "mean"}}, {"broadcasts": {"params": 1}}):
        with pytest.raises(MessageError, match="a payload that can't be read"):
            check.check(Home(), ORDER, replace(PAYLOAD, **wrong), TASK)  # type: ignore[arg-type]


def test_a_rate_may_be_what_the_schedule_says_and_no_more() -> None:
    decaying = replace(APPROVED, lr=inverse_time(0.1, half_life=2))
    (envelope,) = (e for e in foresee(job(decaying, 5))[0] if e.role == "client")
    assert envelope.pattern["work"]["steps"]["lr"] == {"~": "range", "from": 0.1 / 3, "to": 0.1}


def test_a_long_run_is_performed_dry_in_parts_and_what_varies_in_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rate changes long after the rounds that are performed, and shortly before the last one."""
    monkeypatch.setattr(foresight, "MOST_ROUNDS", 8)
    rates = []
    for every in (100, 95):
        late = replace(APPROVED, lr=step_decay(0.1, every=every, factor=0.5))
        (envelope,) = (e for e in foresee(job(late, 100))[0] if e.role == "client")
        rates.append(envelope.pattern["work"]["steps"]["lr"])
    assert rates == [0.1, {"~": "any", "of": "number"}]
    decaying = replace(APPROVED, lr=inverse_time(0.1, half_life=2))
    (envelope,) = (e for e in foresee(job(decaying, 8))[0] if e.role == "client")
    assert envelope.pattern["work"]["steps"]["lr"] == {"~": "range", "from": 0.1 / 4.5, "to": 0.1}


def test_a_dry_performance_needs_hardly_more_memory_than_a_round() -> None:
    """A round holds the model, a message, its share of the sum, the sum and the next model."""
    large = job(fed_avg(lr=0.1), 3, model=mlp(hidden=(10_000,)))
    model_bytes = sum(value.nbytes for value in large.begin().state.params.values())
    foresee(job(fed_avg(lr=0.1), 3))  # what is made once
    tracemalloc.start()
    try:
        foresee(large)
        assert tracemalloc.get_traced_memory()[1] < 5.5 * model_bytes
    finally:
        tracemalloc.stop()


def test_a_run_that_would_stop_early_is_foreseen_to_its_last_round() -> None:
    algorithm = replace(APPROVED, lr=step_decay(0.1, every=4, factor=0.1))

    def program(progress: Progress[Any]) -> Any:
        measure, stop = evaluation(learner(), tuple(range(5))), Stop("loss", patience=1)
        return training(algorithm, progress, KEYS.public, rounds=9, evaluate=measure, stop=stop)

    found, why = foresee(replace(job(algorithm, 9), program=program))
    assert why == ""
    rates = [e.pattern["work"]["steps"]["lr"] for e in found if e.work == "local_sgd"]
    assert rates == [{"~": "range", "from": pytest.approx(0.001), "to": 0.1}]


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", '[{"pattern": {}}]', '[{"pattern": {"work": {"$": 1}}, "fewest": 0, "is_phase": false}]'],
)
def test_envelopes_of_unknown_form_are_refused(text: str) -> None:
    with pytest.raises(MessageError, match="envelopes can't be read"):
        Envelopes.read(text)
    with pytest.raises(MessageError):
        read_plan(pack(replace(PLAN, envelopes=text)))


# -- what the owner allows -----------------------------------------------------------------------


def plan_for(algorithm: Any, **options: Any) -> SealedPlan:
    given = job(algorithm, 3, **options)
    return seal_plan(replace(given.plan, run="r", envelopes=foresee(given)[0].write()))


def test_a_policy_may_reveal_sums_alone_and_wants_a_cohort() -> None:
    secure, clear = plan_for(secure_avg()), PLAN
    Policy(reveals="updates", min_cohort=3).check_plan(clear)
    with pytest.raises(
        Forbidden, match=r"reveals sums only, and local_sgd sends part 'update' into mean\(\)"
    ):
        Policy(reveals="sums").check_plan(clear)
    with pytest.raises(Forbidden, match=r"wants 4 members in one total, and the plan's .* may end with 3"):
        Policy(min_cohort=4).check_plan(clear)
    policy = Policy(reveals="sums")
    phases = {e.work: e for e in Envelopes.read(secure.envelopes) if e.is_phase}
    assert set(phases) == {"advertise", "send_masked", "take_back"}
    policy.check_phase(advertise(), phases["advertise"])
    with pytest.raises(Forbidden, match="is no phase of a reducer that hides"):
        policy.check_phase(ASKED.work, replace(phases["advertise"]))
    Policy().check_phase(ASKED.work, phases["advertise"])


@pytest.mark.parametrize(
    ("into", "fewest"),
    [
        (secure_mean(colluders=0.0, min_clients=4), 4),
        (secure_mean(colluders=0.0), 0),
        (encrypted_mean(4), 4),
    ],
    ids=["secure", "secure by default", "encrypted"],
)
def test_a_policy_that_wants_a_cohort_counts_on_what_hidden_sums_promise(into: Any, fewest: int) -> None:
    """Clients are lost in the course of a protocol: the number of those that begin it says little."""
    plan = plan_for(fed_avg(lr=0.1, fraction=1.0, uplink=(clip(1.0),), into=into, weighting=uniform()))
    if fewest:
        Policy(min_cohort=fewest).check_plan(plan)
    refused = rf"wants {fewest + 1} members .* may end with {fewest}; write min_clients={fewest + 1}"
    with pytest.raises(Forbidden, match=refused):
        Policy(min_cohort=fewest + 1).check_plan(plan)


def test_a_plan_that_calls_single_messages_hidden_or_a_phase_passes_no_policy() -> None:
    policy = Policy(min_cohort=4)
    local = next(e for e in Envelopes.read(PLAN.envelopes) if e.work == "local_sgd")
    parts = {name: {**part, "hides": True} for name, part in local.pattern["uplink"].items()}
    said = replace(local, pattern={**local.pattern, "uplink": parts})
    with pytest.raises(Forbidden, match="may end with 3"):
        policy.check_plan(replace(PLAN, envelopes=Envelopes((said,)).write()))
    unknown = {name: {**part, "into": {"$": "no_such_sum", "fewest": 9}} for name, part in parts.items()}
    said = replace(local, pattern={**local.pattern, "uplink": unknown}, fewest=9)
    with pytest.raises(Forbidden, match="may end with 0"):
        policy.check_plan(replace(PLAN, envelopes=Envelopes((said,)).write()))
    phase = replace(local, is_phase=True)
    policy.check_plan(replace(PLAN, envelopes=Envelopes((phase,)).write()))
    with pytest.raises(Forbidden, match="has a min_cohort, and local_sgd is no phase"):
        policy.check_phase(ASKED.work, phase)


def test_a_changed_policy_holds_for_open_plans(tmp_path: Path) -> None:
    home = ClientHome(tmp_path)
    check_again(home, PLAN)
    (tmp_path / "policy.toml").write_text("approve_plans = true")
    with pytest.raises(Forbidden, match="waits for approval"):
        check_again(home, PLAN)
    home.approvals.approve(PLAN)
    check_again(home, PLAN)
    needing = replace(PLAN, imports=(PlanImport("mine.py", "file", f"sha256:{'0' * 64}", {}),))
    with pytest.raises(Forbidden, match="waits for approval") as waits:
        check_again(home, needing)
    assert "+ import mine.py" in str(waits.value)
    home.approvals.approve(needing)
    with pytest.raises(Forbidden, match=r"does not allow mine\.py"):
        check_again(home, needing)
    (tmp_path / "policy.toml").write_text('models = ["linear"]')
    with pytest.raises(Forbidden, match="allows the models linear"):
        check_again(home, PLAN)


def test_five_names_have_one_budget(tmp_path: Path) -> None:
    with federation(tmp_path, stay=True) as here:
        home = here.client_home(0)
        (home.folder / "policy.toml").write_text("max_day_tickets = 2")
        enter(here, 0)
        for name in range(5):
            run = here.lead(replace(job(evaluated_nowhere(), 1, num_clients=1), program=one_round))
            here.end(run, status="completed" if name < 2 else "incomplete")
    assert read_audit(home.folder)["budget"] == 3
    assert read_audit(home.folder)["sent"] == 2
    assert home.spent.of_today("tickets") == 2
    assert home.spent.of_today("examples") == 2 * len(population().client(0))
    assert home.spent.of_today("download_bytes") > 0


def evaluated_nowhere() -> Any:
    return replace(APPROVED, close=Close(minimum_fraction=0.1))


def one_round(progress: Progress[Any]) -> Any:
    return training(evaluated_nowhere(), progress, KEYS.public, rounds=1)


# -- in words ------------------------------------------------------------------------------------


def test_an_owner_reads_what_leaves_and_what_has_changed() -> None:
    text = "\n".join(describe_plan(PLAN))
    assert (
        "  leaves: your update (650 numbers), clipped to norm 1, in 2 bits a number,\n"
        "    enters a mean that shows single updates to the server\n"
    ) in text
    assert "learning rate 0.1, 5 epochs, batches of 50" in text
    changed = plan_for(replace(APPROVED, lr=1000.0, uplink=()))
    lines = describe_plan(changed, to_record(PLAN))
    for line in (
        "- local_sgd, asked of a client: work.steps.lr = 0.1",
        "+ local_sgd, asked of a client: work.steps.lr = 1000.0",
        "+ local_sgd, asked of a client: uplink.update.uplink = []",
    ):
        assert line in lines
    assert describe_plan(PLAN, to_record(PLAN))[-1] == "Nothing has changed since the last approval."
    assert max(map(len, [*text.splitlines(), *lines])) <= 80


def test_an_owner_reads_what_each_step_of_a_protocol_is() -> None:
    into = encrypted_mean(3)
    algorithm = fed_avg(lr=0.1, weighting=uniform(), uplink=(clip(1.0),), into=into)
    text = "\n".join(describe_plan(plan_for(algorithm, parties=into.parties)))
    blocks = [" ".join(block.split()) for block in text.split("\n\n") if "a phase of a protocol" in block]
    steps = {block.partition(",")[0]: block for block in blocks}
    assert steps.keys() == {"make_keys", "encrypt_pending", "decrypt_sum"}
    assert "does: The key holder makes a new key pair and keeps the secret half" in steps["make_keys"]
    assert "does: Each client encrypts what it holds back, once for each" in steps["encrypt_pending"]
    assert "a step of the protocol that hides single updates" in steps["encrypt_pending"]
    assert not any("shows single updates" in step for step in steps.values())
    said = json.loads(PLAN.envelopes)
    for one in said:
        one["is_phase"] = True  # the server calls its training so
    assert "shows single updates to the server" in " ".join(
        "\n".join(describe_plan(replace(PLAN, envelopes=json.dumps(said)))).split()
    )


def test_words_of_a_stranger_are_safe_to_print_and_unknown_code_is_named() -> None:
    said = json.loads(PLAN.envelopes)
    for one in said:
        for part in one["pattern"]["uplink"].values():
            part["uplink"] = [{"$": "sneak\x1b[2J", "strength": 2}]
    text = "\n".join(describe_plan(replace(PLAN, envelopes=json.dumps(said))))
    assert "\x1b" not in text
    assert "sneak\\x1b[2J(strength=2), a transform of code that is not imported yet" in " ".join(text.split())


def test_an_approval_covers_the_envelopes(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path / "approved.json", AuditLog(tmp_path / "audit.jsonl"))
    approvals.approve(PLAN)
    assert approvals.is_approved(replace(PLAN, run="other"))
    assert not approvals.is_approved(replace(PLAN, envelopes="[]"))
