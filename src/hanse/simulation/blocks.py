"""Blocks: neighbours in a fold, folded in one place without messages, to the same bits and bytes.

A block is an aligned run of 2^j positions of the fold's tree. The messages that its clients would send are
checked and opened as on the server, then lifted and merged along the same tree, so that it makes no
difference which blocks there are, or where each of them is computed.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from hanse.core import (
    Array,
    Chain,
    ClientKeys,
    MessageError,
    Part,
    Parts,
    Reducer,
    Spec,
    l2_norms,
    num_bytes,
)
from hanse.core.exchange import (
    Block,
    Message,
    Payload,
    Task,
    TreeFold,
    add_padding,
    all_finite,
    limit_bytes,
    limit_norm,
    measure_layout,
    measure_packed_bytes,
    to_sendable,
    validate,
)

__all__ = ["Folding", "Place", "Timer", "Together", "cut_blocks"]

Place: TypeAlias = tuple[int, Task]
"""A position in the fold, and the task at it."""


def cut_blocks(places: Sequence[Place], begins: int, heights: Callable[[int], int]) -> Iterator[list[Place]]:
    """Splits places, in order of position, into blocks: all places of a subtree of the fold's tree each.

    Args:
      begins: the position before which all places are computed elsewhere: no subtree reaches back there.
      heights: gives the greatest height of the block that begins with the place at an index.
    """
    at = 0
    while at < len(places):
        position, height = places[at][0], heights(at)
        while position >> height << height < begins:
            height -= 1
        begins = (position >> height) + 1 << height
        first = at
        while at < len(places) and places[at][0] < begins:
            at += 1
        yield list(places[first:at])


class Timer:
    """A timer that books the time since its last call under the name of what it was spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._since = time.perf_counter()

    def book(self, what: str) -> None:
        """Books the seconds since the last call."""
        now = time.perf_counter()
        self.spent[what] = self.spent.get(what, 0.0) + now - self._since
        self._since = now


class Folding:
    """A block under construction.

    Args:
      payload: the data that all its clients received.
    """

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._limit = limit_bytes(payload.chains)
        self._folds: dict[str, TreeFold[Any]] = {}
        self._counted: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._refused: dict[int, str] = {}
        self._carried: dict[str, list[int]] = {}
        self._headers: dict[Any, tuple[int, int]] = {}

    def add(self, position: int, task: Task, message: Message) -> None:
        """Adds the message that one client would send."""
        sent = _as_sent(message)
        try:
            taken = validate(sent, task, self._payload)
        except MessageError as error:
            size = measure_packed_bytes(sent)
            too_long = self._limit is not None and size > self._limit
            why = f"a message of {size} bytes; at most {self._limit} are allowed" if too_long else str(error)
            self._refused[task.ticket] = why
            self._sizes.append((task.ticket, size))
            return
        self._sizes.append((task.ticket, self._size(sent)))
        self._counted.append(task.ticket)
        for name, part in sent.parts.items():
            if part is not None:
                self._carried.setdefault(name, []).append(num_bytes(part.values))
        for name, part in taken.parts.items():
            if part is not None:
                self._fold(name).add(position, self._fold(name).reducer.lift(part))

    def refuse(self, task: Task, why: str) -> None:
        """Adds the ticket of a client that sends no message."""
        self._refused[task.ticket] = why

    def _fold(self, name: str) -> TreeFold[Any]:
        if name not in self._folds:
            self._folds[name] = TreeFold(self._payload.uplink[name].into)
        return self._folds[name]

    def _size(self, message: Message) -> int:
        """Returns the packed bytes of a valid message. Messages of one layout differ in few characters."""
        if self._limit is None:
            return measure_packed_bytes(message)
        varying = f"{message.ticket}" + "".join(
            f"{p.weight!r}" for p in message.parts.values() if p is not None
        )
        layout = tuple(
            (name, part and tuple((n, value.shape) for n, value in part.values.items()))
            for name, part in message.parts.items()
        )  # lossless coding gives its length as a shape
        if layout not in self._headers:
            header, tensors = measure_layout(message)
            self._headers[layout] = header - len(varying), tensors
        header, tensors = self._headers[layout]
        return add_padding(header + len(varying), tensors)

    def block(self) -> Block:
        """Returns the block of all messages that were added."""
        folded = {name: fold.accumulator() for name, fold in self._folds.items()}
        carried = {name: tuple(sizes) for name, sizes in self._carried.items()}
        return Block(tuple(self._counted), folded, tuple(self._sizes), self._refused, carried)


class Together:
    """Encodes and folds blocks of contributions at once, to the same bits as one by one.

    Args:
      payload: the data that all clients received.
    """

    def __init__(self, payload: Payload) -> None:
        self.payload = payload
        self._header: tuple[int, int] | None = None
        self.has_stages = any(chain.stages for chain in payload.chains.values())
        self.possible = limit_bytes(payload.chains) is not None and all(
            chain.can_encode_many and _can_fold(payload.uplink[name].into, self.has_stages)
            for name, chain in payload.chains.items()
        )

    def block(
        self, places: Sequence[Place], parts: Mapping[str, Parts], keys: ClientKeys, timer: Timer
    ) -> Block | None:
        """Folds a block; None: fold it one by one. Consumes the parts where there are no stages.

        Args:
          keys: those of the clients.
        """
        first, count = places[0][0], len(places)
        if first % (1 << (count - 1).bit_length()) or places[-1][0] - first != count - 1:
            return None  # they do not fill the beginning of a block
        sent, taken = dict[str, Parts](), dict[str, Parts]()
        for name, several in parts.items():
            chain = self.payload.chains[name]
            encoded: Parts | None = several
            if chain.stages:
                encoded = chain.encode_many(self.payload.plans[name], several, keys.fold_in(name))
            if encoded is None or not self._fits(name, encoded, count):
                return None
            opened = encoded if chain.opens is None else self._open(name, encoded, places)
            if opened is None or (self.has_stages and not all_finite(opened.values)):
                return None
            sent[name], taken[name] = encoded, opened
        if self.has_stages:
            timer.book("encode")
        sizes = self._sizes(places, sent)
        carried = {name: (num_bytes(several.values) // count,) * count for name, several in sent.items()}
        if self.has_stages:  # the parts are computed with again if these can't be folded
            taken = {name: replace(several, values=_copy(several)) for name, several in taken.items()}
        folded = {name: self.payload.uplink[name].into.lift_many(several) for name, several in taken.items()}
        for accumulator in folded.values():  # a finite sum has only finite terms
            if accumulator is None or not all_finite(accumulator.values):
                return None
        timer.book("fold")
        return Block(tuple(task.ticket for _, task in places), folded, sizes, {}, carried, together=True)

    def _open(self, name: str, sent: Parts, places: Sequence[Place]) -> Parts | None:
        """Opens each contribution as the server does; None: one of them can't be taken."""
        chain, plans = self.payload.chains[name], self.payload.plans[name]
        rows = list[Part]()
        for i, (_, task) in enumerate(places):
            row = Part({n: v[i] for n, v in sent.values.items()}, float(sent.weights[i]))
            try:
                rows.append(chain.open(plans, row, task.key.fold_in(name)))
            except MessageError:
                return None
        stacked = {n: np.stack([row.values[n] for row in rows]) for n in rows[0].values}
        opened = Parts(stacked, np.array([row.weight for row in rows]))
        return opened if _is_of(chain, chain.folded, opened) else None

    def _fits(self, name: str, several: Parts, count: int) -> bool:
        weights = several.weights
        if not 0 <= weights.min() <= weights.max() <= self.payload.uplink[name].max_weight:
            return False
        if any(len(v) != count or not v.flags.c_contiguous for v in several.values.values()):
            return False
        chain = self.payload.chains[name]
        return _is_of(chain, chain.out, several)

    def _sizes(self, places: Sequence[Place], parts: Mapping[str, Parts]) -> tuple[tuple[int, int], ...]:
        """Returns each message's bytes, had it been packed: the digits of tickets and weights differ."""
        if self._header is None:
            rows = {
                name: Part({n: v[0] for n, v in several.values.items()}, 0.0)
                for name, several in parts.items()
            }
            header, tensors = measure_layout(Message(0, rows))
            self._header = header - len("0") - len(parts) * len("0.0"), tensors
        header, tensors = self._header
        spelt = [header] * len(places)
        for several in parts.values():
            spelt = [n + len(repr(w)) for n, w in zip(spelt, several.weights.tolist(), strict=True)]
        return tuple(
            (task.ticket, add_padding(n + len(str(task.ticket)), tensors))
            for (_, task), n in zip(places, spelt, strict=True)
        )


def _can_fold(reducer: Reducer[Any], has_stages: bool) -> bool:
    """Returns whether a reducer sees contributions, and can lift many of them where that saves computing."""
    can_lift_many = type(reducer).lift_many is not Reducer.lift_many
    return not reducer.hides and (can_lift_many or not has_stages)


def _copy(parts: Parts) -> dict[str, Array]:
    return {name: values.copy() for name, values in parts.values.items()}


def _is_of(chain: Chain, spec: Spec, parts: Parts) -> bool:
    """Returns whether the parts have the shapes of a spec, and keep its bound."""
    first = {name: values[0] for name, values in parts.values.items()}
    try:
        spec.check(first)
    except MessageError:
        return False
    limit = limit_norm(chain, spec, sum(value.size for value in first.values()))
    return limit is None or bool((l2_norms(parts.values) <= limit).all())


def _as_sent(message: Message) -> Message:
    """Returns a message as it would arrive: arrays in C order, in the machine's order of bytes."""
    return replace(message, parts={name: part and _freeze_part(part) for name, part in message.parts.items()})


def _freeze_part(part: Part) -> Part:
    if type(part) is not Part or not isinstance(part.values, Mapping):
        return part
    return Part({name: _read_only(value, name) for name, value in part.values.items()}, part.weight)


def _read_only(value: Any, name: str) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        return value
    view = to_sendable(value, name).view()
    view.flags.writeable = False
    return view
