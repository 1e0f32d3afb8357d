"""A server of our own tries each field of what it sends: nothing leaves but what was approved."""

import contextlib
import hashlib
import json
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import Threaded, population
from learning import learner
from played import Heard, HostileServer
from pydantic import ValidationError
from test_envelope import HOSTILE, ORDER, PAYLOAD, PLAN, TASK

from hanse.core import fields
from hanse.core.exchange import pack
from hanse.network.client.home import ClientHome
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.wire import (
    PLANS_BYTES,
    Decision,
    Joined,
    News,
    PlanImport,
    Receipt,
    Received,
    WorkOrder,
)


class Asker:
    """A server that asks for one ticket after the other, and hears how each is answered."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, bytes] = {}
        self.news, self.ends = queue.Queue[dict[str, Any]](), queue.Queue[str]()
        self.server, self.number = HostileServer(folder, self.answer), 0

    def put(self, obj: Any) -> tuple[str, int]:
        data = pack(obj)
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        return sha256, len(data)

    def answer(self, heard: Heard) -> Iterable[bytes]:
        *_, before, last = heard.path.partition("?")[0].split("/")
        if before == "objects" or last == "task":
            data = self.objects.get(last) or self.objects["own"]
            return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data]
        said: dict[str, Any] = {}
        if last == "message":
            self.ends.put("sent")
            said = {"offset": 0, "durable": True}
        elif last == "failure":
            self.ends.put(json.loads(heard.body)["code"])
        elif last == "work" and json.loads(heard.body)["wait_s"] > 0:
            said = self.news.get(timeout=60.0)
        return self.server.sign(heard, json.dumps(said).encode())

    def ask(
        self,
        run: str,
        said: Mapping[str, Any] = {},
        *,
        payload: Any = PAYLOAD,
        task: Any = TASK,
        plan: Any = PLAN,
    ) -> str:
        """Asks for a ticket; returns the code of the refusal, or "sent".

        Args:
          said: other fields of the order.
        """
        self.number += 1
        (plan, plan_bytes), (payload, payload_bytes) = self.put(replace(plan, run=run)), self.put(payload)
        self.objects["0" * 64] = bytes(payload_bytes)
        order = {**ORDER.model_dump(), "run": run, "ticket": self.number, "plan": plan, "payload": payload}
        order |= {"plan_bytes": plan_bytes, "payload_bytes": payload_bytes}
        order["task"] = pack(replace(task, ticket=self.number)).hex()
        self.news.put({"work": [{**order, **said}]})
        return self.ends.get(timeout=60.0)


@contextlib.contextmanager
def at_work(asker: Asker, home: ClientHome) -> Iterator[None]:
    """A client that works for a server."""
    mine = population().client(0)
    client = Threaded(ClientHome(home.folder), lambda plan: mine, learner)
    thread = threading.Thread(target=client.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        asker.news.put({"over": True})
        thread.join(60.0)


HUGE = 2**52
ORDERED: dict[str, tuple[str, dict[str, Any]]] = {
    "ticket": ("message", {"ticket": 10**6}),
    "task": ("message", {"task": pack(PAYLOAD).hex()}),
    "own": ("policy", {"own": True}),
    "own_bytes": ("budget", {"own": True, "own_bytes": HUGE}),
    "payload": ("message", {"payload": "0" * 64}),
    "payload_bytes": ("budget", {"payload_bytes": HUGE}),
    "limit_bytes": ("policy", {"limit_bytes": ORDER.limit_bytes + 1}),
    "work": ("policy", {"work": "evaluate"}),
}
"""The codes of refusals of orders with another field."""

UNREADABLE = {
    "run": "../r",
    "ticket": -1,
    "task": "0" * 65538,
    "own": "../0",
    "own_bytes": -1,
    "payload": "../0",
    "payload_bytes": -1,
    "plan": "0" * 63 + "/",
    "plan_bytes": PLANS_BYTES + 1,
    "limit_bytes": "many",
    "work": 3,
}
"""Fields with which no order can be read."""

PLANNED: dict[str, Any] = {
    "settings": '{"rounds": 99}',
    "imports": (PlanImport("mine.py", "file", f"sha256:{'0' * 64}", {}),),
    "model": "linear",
    "packed": pack(0),
    "envelopes": "[]",
}
"""The fields of a plan that an approval covers: all but the run's name."""


def test_each_field_of_an_order_and_of_a_plan_is_tried() -> None:
    assert {*ORDERED, "run", "plan", "plan_bytes"} == UNREADABLE.keys() == WorkOrder.model_fields.keys()
    assert {f.name for f in fields(SealedPlan)} == {*PLANNED, "run"}


@pytest.mark.parametrize("field", UNREADABLE)
def test_an_order_that_is_none_is_not_read(field: str) -> None:
    News.model_validate({"work": [ORDER.model_dump()]})
    with pytest.raises(ValidationError, match=field):
        News.model_validate({"work": [{**ORDER.model_dump(), field: UNREADABLE[field]}]})


WRONG: list[tuple[Any, dict[str, Any]]] = [
    (
        News(),
        {"work": [3], "decisions": {}, "over": "perhaps", "again_s": float("nan"), "certificate": 7}
        | {"ended": {"r": 3}, "audit": {"at": 1e300}},
    ),
    (
        Decision(run="r", ticket=1, counted=True),
        {"run": "../r", "ticket": -1, "counted": "perhaps", "why": 3, "party": 1.5},
    ),
    (
        Receipt(what="left", id="c0", time=0.0),
        {"what": "joined", "id": 'c0"', "key": "../0", "time": float("inf")},
    ),
    (Received(offset=0, durable=True), {"offset": -1, "durable": "perhaps"}),
    (
        Joined(id="c0", role="client", number=0, name=""),
        {"id": "c0\nc1", "role": "owner", "number": -1, "name": 3, "party": ["x"]},
    ),
]
"""Answers, and for each field what it can't be."""


@pytest.mark.parametrize(("answer", "wrong"), WRONG, ids=[type(answer).__name__ for answer, _ in WRONG])
def test_no_field_of_an_answer_is_read_that_is_none(answer: Any, wrong: dict[str, Any]) -> None:
    kind, said = type(answer), answer.model_dump()
    assert kind.model_validate(said) == answer
    assert wrong.keys() == kind.model_fields.keys()
    for field, given in wrong.items():
        with pytest.raises(ValidationError, match=field):
            kind.model_validate({**said, field: given})


def test_the_words_of_an_answer_steer_no_terminal() -> None:
    steers = "\x1b[2J"
    joined = Joined(id="c0", role="client", number=0, name=steers, party=steers)
    news = News(ended={steers: steers}, decisions=[Decision(run="r", ticket=1, counted=False, why=steers)])
    for said in (joined.name, joined.party, *news.ended, *news.ended.values(), news.decisions[0].why):
        assert said == "\\x1b[2J"


def test_nothing_beyond_an_approval_leaves_at_any_time(tmp_path: Path) -> None:
    asker, home = Asker(tmp_path), ClientHome(tmp_path / "client")
    with asker.server:
        try_all(asker, home)


def try_all(asker: Asker, home: ClientHome) -> None:
    server = asker.server
    home.enter(
        {"url": server.url, "certificate": server.pem, "server_key": server.identity.public}
        | {"id": "c0", "number": 0}
    )
    (home.folder / "policy.toml").write_text("approve_plans = true")
    codes, tried = list[str](), list[str]()
    with at_work(asker, home):
        codes.append(asker.ask("r"))
        assert codes == ["approval"]
        home.approvals.approve(PLAN)
    for when, run in (("after approval", "r"), ("after a restart", "r"), ("under another name", "s")):
        with at_work(asker, home):
            codes.append(asker.ask(run))
            assert codes[-1] == "sent", when
            for field, given in HOSTILE.items():
                kind = field.partition(".")[0].lower()
                if kind != "workorder":
                    codes.append(asker.ask(run, **{kind: given}))
                    expected = "message" if field == "Task.party" else "policy"
                    assert codes[-1] == expected, (when, field)
            for field, (code, said) in ORDERED.items():
                if said.get("own"):
                    own = pack(replace(HOSTILE["Task.own"], ticket=asker.number + 1))
                    asker.objects["own"] = own
                    named = {"own": hashlib.sha256(own).hexdigest(), "own_bytes": len(own), "task": ""}
                    said = {**named, **{name: held for name, held in said.items() if name != "own"}}
                codes.append(asker.ask(run, said))
                assert codes[-1] == code, (when, field)
            tried.append(when)
    with at_work(asker, home):
        for number, (field, given) in enumerate(PLANNED.items()):
            codes.append(asker.ask(f"t{number}", plan=replace(PLAN, **{field: given})))
            assert codes[-1] == "approval", field
    lines = list(home.audit.lines())
    assert len([line for line in lines if line["what"] == "sends"]) == len(tried) == 3
    assert [line["code"] for line in lines if line["what"] == "fails"] == [c for c in codes if c != "sent"]
