"""The tap: what each party sees of one client, with everything undone that its public plan undoes.

All attacks read what they attack from here, in a simulation and in the recording of a real run. So an attack
never sees more than its party does, and never less: seeds, plans and scales are public, so rotations are
turned back and quantised numbers are read as the server reads them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hanse.core import (
    Chain,
    InvalidInput,
    Key,
    Keys,
    Memory,
    MessageError,
    Part,
    PartSpec,
    Reducer,
    Spec,
    Tensors,
    Total,
    Transform,
    Work,
    mean,
    scale,
    subtract,
)
from hanse.core.exchange import Message, Payload, Task, compute, pack, unpack

__all__ = [
    "Observer",
    "Overheard",
    "Sight",
    "ask_client",
    "ask_for_parts",
    "observe",
    "read_recorded_plan",
    "read_recording",
    "subtract_own",
]

Observer: TypeAlias = Literal["server", "key holder", "fellow client", "outsider"]
"""A party that watches: an outsider sees encrypted traffic alone."""


PLAN = "run.plan"
"""The file of a recording that holds the plan of the run."""


@dataclass(frozen=True)
class Overheard:
    """The answer of a client, as it was sent, and what it answers.

    Args:
      payload: what the cohort was sent.
      task: what the client was sent for itself alone.
      message: what it sent.
      round: of the run.
    """

    payload: Payload
    task: Task
    message: Message
    round: int = 0


@dataclass(frozen=True)
class Sight:
    """Everything that one party sees of one client in one exchange.

    Args:
      observer: who sees it.
      shared: what was broadcast, by name; empty for an outsider.
      parts: what the client sent, with its chain undone as far as it can be. No noise is added that the
        server adds after it has seen a part.
      sums: the parts that are seen in sums alone, and the fewest clients in such a sum; 0: no number is sure.
      num_bytes: of the client's message, which everybody sees on the line.
    """

    observer: Observer
    shared: Mapping[str, Tensors]
    parts: Mapping[str, Part]
    sums: Mapping[str, int]
    num_bytes: int
    round: int = 0

    def describe(self) -> str:
        """Says in words what is seen."""
        seen = [f"{name}: its own message" for name in self.parts]
        seen += [f"{name}: only a sum of {n or 'several'} clients or more" for name, n in self.sums.items()]
        seen = seen or [
            f"{self.num_bytes} encrypted bytes" if self.observer == "outsider" else "models alone"
        ]
        return f"the {self.observer} sees {'; '.join(seen)}"


def observe(answer: Overheard, observer: Observer = "server") -> Sight:
    """Returns what a party sees of an answer.

    Raises: InvalidInput: if there is no such party.
    """
    payload, size = answer.payload, len(pack(answer.message))
    if observer == "outsider":
        return Sight(observer, {}, {}, {}, size, answer.round)
    shared = dict(payload.shared)
    if observer == "fellow client":
        return Sight(observer, shared, {}, {}, size, answer.round)
    hidden = {name: spec.into.fewest for name, spec in payload.uplink.items() if spec.into.hides}
    if observer == "key holder":
        held = {name: n for name, n in hidden.items() if payload.uplink[name].into.parties}
        if not held:
            raise InvalidInput("nothing here is encrypted for a key holder; observe the server instead")
        return Sight(observer, shared, {}, held, size, answer.round)
    if observer != "server":
        raise InvalidInput(
            f"there is no party {observer!r}; write 'server', 'key holder', 'fellow client' or 'outsider'"
        )
    parts = {
        name: _undo(payload.chains[name], payload.plans[name], part, answer.task.key.fold_in(name))
        for name, part in answer.message.parts.items()
        if part is not None
    }
    return Sight(observer, shared, parts, hidden, size, answer.round)


def _undo(chain: Chain, plans: Any, part: Part, key: Key) -> Part:
    """Undoes a chain on one part: opens it, and decodes it as a total of one, without the server's noise."""
    opened = chain.open(plans, part, key)
    total = Total(opened.values, opened.weight, 1)
    for i in reversed(range(len(chain.stages))):
        stage = chain.stages[i]
        if stage.decode is not None and stage.release is None:
            total, _ = stage.decode(stage.init, plans[i], total, key.fold_in("nobody's secret", i))
    return Part(total.values, opened.weight)


def ask_client(
    work: Work[Any, Any],
    learner: Any,
    data: Any,
    shared: Mapping[str, Tensors],
    part: str,
    uplink: tuple[Transform, ...] = (),
    into: Reducer[Any] | None = None,
    *,
    keys: Keys,
    spec: Spec | None = None,
    memory: Memory | None = None,
) -> Overheard:
    """Lets one client answer as it would in a run: it works, and encodes its part by its own secret key.

    Args:
      part: the name of the part that the work emits.
      spec: of that part; None: that of the "params" in `shared`.
      keys: the public one draws plans, the secret one the client's noise.
    """
    given = PartSpec(spec or Spec.of(shared["params"]), uplink, mean() if into is None else into)
    return ask_for_parts(work, learner, data, shared, {part: given}, keys=keys, memory=memory)


def ask_for_parts(
    work: Work[Any, Any],
    learner: Any,
    data: Any,
    shared: Mapping[str, Tensors],
    uplink: Mapping[str, PartSpec],
    *,
    keys: Keys,
    memory: Memory | None = None,
) -> Overheard:
    """Lets one client answer with all parts that its work emits, see `ask_client`."""
    chains = {name: given.chain() for name, given in uplink.items()}
    plans = {n: chain.plan(chain.init(), keys.public.fold_in("plans", n)) for n, chain in chains.items()}
    payload = Payload(work, shared, uplink, plans)
    task = Task(0, 0, keys.public.fold_in("client", 0), None)
    message, _ = compute(task, payload, learner, data, memory or {}, keys.secret.fold_in("client", 0))
    return Overheard(payload, task, message)


def read_recording(folder: str | Path) -> tuple[Overheard, ...]:
    """Reads the answers that `hanse serve --record FOLDER` has kept of a run, in the order of their tickets.

    Raises: InvalidInput: if there are none, or a file is damaged.
    """
    return tuple(_read(Path(folder)))


def read_recorded_plan(folder: str | Path) -> Any:
    """Reads the plan of a recorded run: its model and the form of rows; None: an older recording has none.

    Raises: InvalidInput: if it is damaged, or names a class that is not known here.
    """
    path = Path(folder) / PLAN
    if not path.exists():
        return None
    try:
        return unpack(path.read_bytes())
    except (MessageError, OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} can't be read: {error}; import your own modules, or record again"
        ) from error


def _read(folder: Path) -> Iterator[Overheard]:
    paths = sorted(folder.glob("*.answer"), key=lambda path: int(path.stem.split("-")[1]))
    if not paths:
        raise InvalidInput(f"{folder} holds no recorded answers; serve with --record {folder}")
    payloads = dict[str, Payload]()
    for path in paths:
        try:
            task, sha256, message = unpack(path.read_bytes())
            if sha256 not in payloads:
                payloads[sha256] = unpack((folder / f"{sha256}.payload").read_bytes(), Payload)
        except (MessageError, OSError, ValueError) as error:
            raise InvalidInput(f"{path} can't be read: {error}; record the run again") from error
        yield Overheard(payloads[sha256], task, message, int(path.stem.split("-")[0]))


def subtract_own(before: Tensors, after: Tensors, own: Tensors, num_clients: int) -> Tensors:
    """Returns the mean update of the others, which a fellow client finds from two consecutive models.

    The server's step must be the plain mean of equal weights. With two clients it is the other's own update.

    >>> import numpy as np
    >>> found = subtract_own({"w": np.zeros(1)}, {"w": np.full(1, 2.0)}, {"w": np.ones(1)}, 2)
    >>> found["w"]
    array([3.])
    """
    if num_clients < 2:
        raise InvalidInput(f"num_clients is {num_clients}; a fellow client needs at least one other: write 2")
    total = scale(subtract(after, before), num_clients)
    return scale(subtract(total, own), 1 / (num_clients - 1))
