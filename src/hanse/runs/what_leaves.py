"""Descriptions of what leaves a client: each field of its requests, and an example of each message.

The fields are read from the wire's own messages, so that this list can't forget one. What a run asks for is
read from its plan's envelopes, which each ticket is compared with.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from hanse.config import Experiment
from hanse.core import Array, Key, Memory, RoundAbandoned, player
from hanse.core.exchange import Fork, Message, Payload, Task, choose_measure, drive, pack
from hanse.data import arrays, iid
from hanse.network.protocol import (
    CHUNK_BYTES,
    AuditHead,
    Code,
    Doing,
    Envelopes,
    Failure,
    Forbidden,
    Join,
    Plan,
    Poll,
    Rekey,
    describe_ticket,
    find_at_home,
)
from hanse.privacy import describe_views, noises_examples
from hanse.runs.preparation import prepare_run
from hanse.simulation import InProcess, Simulation
from hanse.version import __version__

__all__ = ["FIELDS", "HEADERS", "REQUESTS", "Example", "describe_requests", "describe_run", "make_examples"]

WIDTH = 80

FIELDS: Mapping[type[Any], tuple[str, Mapping[str, str]]] = {
    Join: ("when it joins", {"name": "the name that you gave with --name; empty by default"}),
    Poll: (
        "when it asks for work",
        {
            "wire": "the version of the protocol",
            "wait_s": "the seconds that the server may hold the request",
            "have": "the numbers of the tickets that it works on, by run",
            "know": "the numbers of the tickets whose outcome it has stored",
            "doing": f"one word of this list: {', '.join(word for word in get_args(Doing) if word)}",
            "expects": "the fingerprint of the certificate that the server announced",
            "audit": "the head of its audit log: see AuditHead",
        },
    ),
    AuditHead: (
        "in a poll, or alone if the server keeps another log",
        {
            "lines": "the number of lines",
            "hash": "the hash of the last one, which tells nothing else of them",
            "begun": "the number of lines before its first one, if you have begun a new log",
        },
    ),
    Failure: (
        "when it can't answer",
        {
            "state": "refused, downloaded or trained: how far it came",
            "code": f"one word of this list: {', '.join(get_args(Code))}. The reason stays in client.log",
        },
    ),
    Rekey: (
        "when you replace its key",
        {"public": "the public half of the new key", "proof": "a signature by the new key"},
    ),
}
"""The fields of each message that a client sends, in words."""

HEADERS: Mapping[str, str] = {
    "User-Agent": f"hanse/{__version__}",
    "Signature, Signature-Input": "the client's id or public key, the time, a random number, a signature",
    "Content-Digest": "the SHA-256 of what is sent",
    "Invitation": "before it has joined: the public half of a key made of the token, and a signature",
    "Range": "the place from which a download that was cut off goes on",
    "Host, Accept, Accept-Encoding, Connection, Content-Type, Content-Length": "as in all of HTTP",
}
"""All header fields that a client sends, in words. To a proxy of yours it also sends what that asks for."""

REQUESTS: Mapping[str, str] = {
    "GET /v1/about": "nothing, to ask for the versions of the server",
    "POST /v1/check?wait_s=": f"with --check, {CHUNK_BYTES >> 20} MiB of zeros, as a test of proxies",
    "POST /v1/check": "nothing, to ask for the plans before it has joined",
    "GET /v1/plans": "nothing, to ask for the plans as a member",
    "POST /v1/join": "Join",
    "POST /v1/work": "Poll",
    "GET /v1/audit": "nothing, to ask for the head of its log that the server keeps",
    "POST /v1/audit": "AuditHead",
    "GET /v1/runs/RUN/objects/SHA256": "nothing, to download a plan or a payload",
    "GET /v1/runs/RUN/tickets/TICKET/task": "nothing, to download tensors for it alone",
    "GET /v1/runs/RUN/tickets/TICKET/message?sha256=&size=": "nothing, to ask how much has arrived",
    "PUT /v1/runs/RUN/tickets/TICKET/message?sha256=&size=&offset=": "a chunk of a Message",
    "POST /v1/runs/RUN/tickets/TICKET/failure": "Failure",
    "POST /v1/key": "Rekey",
    "POST /v1/leave": "nothing, to withdraw consent",
}
"""All requests of a client, with what they send. RUN, TICKET and SHA256 are as the server names them."""


def describe_requests() -> Iterator[str]:
    """Describes all that leaves a client besides the messages of a run, in lines of at most 80 columns."""
    yield from ("What leaves your house", "======================", "")
    yield from _wrap(
        "This client opens connections to one server and accepts none. Your rows stay here. This list is "
        "complete; hanse audit-log shows what has left."
    )
    yield from ("", "Requests, by method and address, with what each sends")
    for address, about in REQUESTS.items():
        yield from _entry(address, about)
    yield from ("", "With each request")
    yield from _wrap("  your address, the time and the size, as for all traffic; and the header fields")
    for name, about in HEADERS.items():
        yield from _entry(name, about)
    for kind, (when, about_fields) in FIELDS.items():
        yield from ("", f"{kind.__name__}: {when}")
        for name in kind.model_fields:
            yield from _entry(name, about_fields.get(name, "see the protocol"))
    yield from ("", "Message: the answer to a ticket, which is all that is computed from your rows")
    yield from _entry("ticket", "its number")
    yield from _entry("parts", "named tensors, and the weight that each counts with; see the example")
    yield from _entry("its bytes", f"in chunks of at most {CHUNK_BYTES >> 20} MiB, with place and SHA-256")


def _entry(name: str, about: str) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{name + ':':<10} {about}", WIDTH, initial_indent="  ", subsequent_indent=" " * 13
    )


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


# -- an example --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A message like those that a run asks for, made from made-up rows.

    Args:
      work: the name of the work.
      message: as it is packed and sent.
      hidden: the parts whose values the server does not see, because a reducer hides them.
      into: what each part goes into.
      num_bytes: of the packed message.
      views: who sees what of each part.
    """

    work: str
    message: Message
    hidden: tuple[str, ...]
    into: Mapping[str, str]
    num_bytes: int
    views: tuple[str, ...] = ()


class _Recording(InProcess):
    """Computes tickets, and keeps the first message of each work, if the plan lets the work be asked.

    Args:
      envelopes: of the plan.
      given: see `InProcess`.
    """

    def __init__(self, envelopes: Envelopes, *given: Any) -> None:
        super().__init__(*given, together=False)
        self._envelopes = envelopes
        self._asked = {envelope.work for envelope in envelopes}
        self._phases = {envelope.work for envelope in envelopes if envelope.is_phase}
        self.is_measuring = False
        self.examples: dict[str, Example] = {}

    def compute_ticket(
        self, before: Memory, task: Task, payload: Payload, timer: Any = None
    ) -> tuple[Message, Fork]:
        message, fork = super().compute_ticket(before, task, payload, timer)
        name = type(payload.work).__name__
        is_asked = name in self._asked or not self.is_measuring  # a server may measure by itself
        if player(task.party) is not None and is_asked and name not in self.examples:
            if beyond := self._envelopes.find_beyond(describe_ticket(payload, task)):
                raise Contradiction(beyond)
            into = {name: str(part.into) for name, part in payload.uplink.items()}
            hidden = tuple(name for name, part in payload.uplink.items() if part.into.hides)
            seen = tuple(
                f"{part}: {view}"
                for part, part_spec in payload.uplink.items()
                for view in describe_views(part_spec, noises_examples=noises_examples(payload.work, part))
                if name not in self._phases  # their parts are no updates
            )
            self.examples[name] = Example(name, message, hidden, into, len(pack(message)), seen)
        return message, fork


class Contradiction(Forbidden):
    """The settings of a plan ask for something that the plan does not let its server ask for."""

    def __init__(self, beyond: str) -> None:
        super().__init__(
            f"the plan contradicts itself. In a round as its settings describe it, {beyond}. This client "
            "would refuse that. Do not take part before the operator has explained it"
        )


NUM_CLIENTS, NUM_ROWS = 8, 8
"""The made-up clients, and the rows that each of them has."""


def make_examples(plan: Plan) -> tuple[Example, ...]:
    """Performs a round of a plan with made-up rows; returns the first message of each work that it asks for.

    Building from a plan's settings imports nothing, and no data are opened.

    Raises: Contradiction: if the plan's envelopes do not admit what its settings ask for.
    """
    said = json.loads(plan.settings)
    measured = int(bool(said.get("evaluate_every")))
    named = {"evaluation": said["evaluation"]} if "evaluation" in said else {}
    tests = any(envelope.role == TEST for envelope in Envelopes.read(plan.envelopes))
    held_out = {"client_test_fraction": 0.5} if tests else {}
    announced = Experiment.from_settings(
        {"algorithm": said["algorithm"], "evaluate_every": measured, **named, **held_out}
    )
    ready = prepare_run(
        replace(
            announced,
            data=_make_up(plan, said["data"], 2 * NUM_ROWS if tests else NUM_ROWS),
            partition=iid(NUM_CLIENTS),
            model=plan.model,
        )
    )
    backend = _Recording(Envelopes.read(plan.envelopes), ready.learner, ready.population, ready.keys)
    runtime = Simulation(backend, NUM_CLIENTS, ready.keys, parties=ready.parties)
    state = ready.begin().state
    with suppress(RoundAbandoned):
        state = drive(ready.experiment.algorithm.round(state, ready.keys.public.fold_in("round", 1)), runtime)
    evaluate = ready.evaluate()
    backend.is_measuring = True
    if evaluate is not None:
        measure = choose_measure(ready.experiment.algorithm, evaluate)
        with suppress(RoundAbandoned):
            drive(measure(state, ready.keys.public.fold_in("evaluate", 0)), runtime)
    return tuple(backend.examples.values())


TEST = "test"
"""The role of a client's own test examples, in envelopes."""


def _make_up(plan: Plan, said: Mapping[str, Any], num_rows: int) -> arrays:
    """Makes up examples of the form that a plan wants, so many for each client."""
    draws, count = Key.from_seed(0).rng(), NUM_CLIENTS * num_rows
    x = draws.normal(size=(count, *plan.feature_shape)).astype(np.float32)
    if plan.num_classes is not None:
        return arrays(x, np.arange(count) % plan.num_classes, num_classes=plan.num_classes, test_fraction=0.0)
    target = said.get("target")
    shape = (count, len(target)) if isinstance(target, list) else (count,)
    return arrays(x, draws.normal(size=shape), test_fraction=0.0)


def describe_run(plan: Plan, min_examples: int) -> Iterator[str]:
    """Describes the messages that a run asks for, in lines of at most 80 columns.

    Args:
      min_examples: of this client's policy.

    Raises: Contradiction: if the plan's envelopes do not admit what its settings ask for.
    """
    try:
        examples = make_examples(plan)
    except Contradiction:
        raise
    except Exception as error:  # of a model or an algorithm that needs more than made-up rows
        examples = ()
        yield from _wrap(f"No example could be made: {' '.join(str(error).split()):.300}")
    for example in examples:
        yield from (
            "",
            f"For example, a message of the work {example.work}, from {NUM_ROWS} made-up rows:",
            "",
        )
        yield _row("part", "tensor", "type and shape", "bytes", "first values")
        for name, part in example.message.parts.items():
            if part is None:
                yield _row(name, "", "stays here until it is hidden", "", "")
                continue
            for tensor, values in part.values.items():
                kind = f"{values.dtype} {tuple(values.shape)}"
                yield _row(name, tensor, kind, str(values.nbytes), _first(np.asarray(values)))
            yield _row(name, "(weight)", "number", "", f"{part.weight:g}")
        yield f"  {example.num_bytes} bytes in all, with the names above and nothing else."
        for name, into in example.into.items():
            sees = "hides it in a sum" if name in example.hidden else "shows the server this client's own"
            yield from _entry(name, f"goes into {into}, which {sees}")
        for view in example.views:
            yield from _entry(*view.split(": ", 1))
    yield ""
    asked = [
        envelope
        for envelope in Envelopes.read(plan.envelopes)
        if not envelope.is_phase and not find_at_home(envelope.work)
    ]
    shown = [part for envelope in asked for part in envelope.pattern["uplink"].values() if not part["hides"]]
    sees = (
        "In this run the server sees each single update of yours."
        if shown or not asked
        else "In this run the server sees sums over clients, and no single update."
    )
    yield from _wrap(
        "An update that was computed on few rows can be those rows: for a linear model, the update of one "
        f"row is that row times a number. {sees} Your policy has min_examples = {min_examples}: with fewer "
        "examples nothing is computed here. A larger number makes a single row harder to find in an update; "
        "it is no proof that none can be found."
    )


def _row(*cells: str) -> str:
    part, tensor, kind, size, values = cells
    return f"  {part:<12.12} {tensor:<14.14} {kind:<21.21} {size:>8.8} {values:<18.18}".rstrip()


def _first(values: Array) -> str:
    flat = values.ravel()[:3].tolist()
    return ", ".join(f"{one:.3g}" if isinstance(one, float) else str(one) for one in flat)
