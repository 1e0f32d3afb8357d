"""What leaves a client: each field of its requests, and an example of each message that a run asks for.

The fields are read from the wire's own messages, so that this list can't forget one.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from hanse.config import Experiment
from hanse.core import Array, Key, Memory, RoundAbandoned
from hanse.core.exchange import Fork, Message, Payload, Task, choose_measure, drive, pack
from hanse.data import arrays, iid
from hanse.network.protocol import CHUNK_BYTES, Code, Doing, Failure, Join, Plan, Poll, Rekey
from hanse.runs.preparation import prepare_run
from hanse.simulation import InProcess, Simulation
from hanse.version import __version__

__all__ = ["FIELDS", "Example", "describe_requests", "describe_run", "make_examples"]

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

HEADERS = {
    "your address, the time and the size of each request": "as for all traffic",
    "User-Agent": f"hanse/{__version__}",
    "Signature, Signature-Input": "the client's id or public key, the time, a random number, a signature",
    "Content-Digest": "the SHA-256 of what is sent",
}


def describe_requests() -> Iterator[str]:
    """Describes all that leaves a client besides the messages of a run, in lines of at most 80 columns."""
    yield from ("What leaves your house", "======================", "")
    yield from _wrap(
        "This client opens connections to one server and accepts none. Your rows stay here. This list is "
        "complete; hanse audit-log shows what has left."
    )
    yield from ("", "With each request")
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
    """

    work: str
    message: Message
    hidden: tuple[str, ...]
    into: Mapping[str, str]
    num_bytes: int


class _Recording(InProcess):
    """Computes tickets, and keeps the first message of each work."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given, together=False)
        self.examples: dict[str, Example] = {}

    def compute_ticket(
        self, before: Memory, task: Task, payload: Payload, timer: Any = None
    ) -> tuple[Message, Fork]:
        message, fork = super().compute_ticket(before, task, payload, timer)
        if isinstance(task.party, int):
            into = {name: str(part.into) for name, part in payload.uplink.items()}
            hidden = tuple(name for name, part in payload.uplink.items() if part.into.hides)
            work = type(payload.work).__name__
            self.examples.setdefault(work, Example(work, message, hidden, into, len(pack(message))))
        return message, fork


NUM_CLIENTS, NUM_ROWS = 8, 8
"""The made-up clients, and the rows that each of them has."""


def make_examples(plan: Plan) -> tuple[Example, ...]:
    """Performs a round of a plan with made-up rows; returns the first message of each work.

    Building from a plan's settings imports nothing, and no data are opened.
    """
    said = json.loads(plan.settings)
    measured = int(bool(said.get("evaluate_every")))
    announced = Experiment.from_settings({"algorithm": said["algorithm"], "evaluate_every": measured})
    ready = prepare_run(
        replace(announced, data=_make_up(plan, said["data"]), partition=iid(NUM_CLIENTS), model=plan.model)
    )
    backend = _Recording(ready.learner, ready.population, ready.keys)
    runtime = Simulation(backend, NUM_CLIENTS, ready.keys)
    state = ready.begin().state
    with suppress(RoundAbandoned):
        state = drive(ready.experiment.algorithm.round(state, ready.keys.public.fold_in("round", 1)), runtime)
    evaluate = ready.evaluate()
    if evaluate is not None:
        measure = choose_measure(ready.experiment.algorithm, evaluate)
        with suppress(RoundAbandoned):
            drive(measure(state, ready.keys.public.fold_in("evaluate", 0)), runtime)
    return tuple(backend.examples.values())


def _make_up(plan: Plan, said: Mapping[str, Any]) -> arrays:
    """Makes up examples of the form that a plan wants."""
    draws, count = Key.from_seed(0).rng(), NUM_CLIENTS * NUM_ROWS
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
    """
    try:
        examples = make_examples(plan)
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
    yield ""
    hidden = [not set(example.into) - set(example.hidden) for example in examples]
    sees = (
        "In this run the server sees sums over clients, and no single update."
        if hidden and all(hidden)
        else "In this run the server sees each single update of yours."
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
