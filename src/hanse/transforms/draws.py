"""Random draws: who makes them, and where the server undoes them, in the total or in each contribution."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from hanse.core import (
    Array,
    ClientKeys,
    Key,
    Keys,
    Memory,
    Part,
    Parts,
    Plan,
    Space,
    Spec,
    Stage,
    Tensors,
    TensorSpec,
    Total,
    fields,
    value,
)

__all__ = ["DrawScope", "Redrawn", "drawn_stage", "per_client", "per_round"]


class DrawScope(ABC):
    """The choice of who makes a random draw, each client or all of a dispatch together."""

    shared: ClassVar[bool]
    """True if all clients of a dispatch draw alike."""

    @abstractmethod
    def plan(self, state: Any, key: Key) -> Plan:
        """Returns the plan, which is sent to the clients."""

    @abstractmethod
    def key(self, plan: Plan, client_key: Key) -> Key:
        """Returns the key from which one client draws."""


@value
class per_client(DrawScope):
    """Each client makes a draw of its own, anew for each ticket; nothing is sent for it.

    The errors of different clients are independent, so the mean over many has a small one. The server undoes
    each contribution before the fold, so it must see each.
    """

    shared = False

    def plan(self, state: Any, key: Key) -> Plan:
        return None

    def key(self, plan: Plan, client_key: Key) -> Key:
        return client_key


@value
class per_round(DrawScope):
    """All clients of a dispatch share one draw, whose key is sent to them.

    The same position means the same at each client, so a linear transform commutes with sums: the fold,
    and a secure sum too, works on the encoded values, and the server undoes the total.
    """

    shared = True

    def plan(self, state: Any, key: Key) -> Plan:
        return key

    def key(self, plan: Plan, client_key: Key) -> Key:
        shared: Key = plan
        return shared


@value
class Redrawn(Spec):
    """A spec whose positions mean something else in the next round: nothing may be remembered by position."""

    @classmethod
    def after(cls, spec: Spec, **changes: Any) -> "Redrawn":
        """Makes a spec redrawn, with some fields changed."""
        return cls(**{**{f.name: getattr(spec, f.name) for f in fields(Spec)}, **changes})


def drawn_stage(
    drawn: DrawScope,
    before: Spec,
    out: Mapping[str, TensorSpec],
    undo: Callable[[Key, Tensors], Tensors],
    *,
    linear: bool = True,
    within: Callable[[Key], Space] | None = None,
    encode: Callable[[Key, Tensors], Tensors] | None = None,
    encode_many: Callable[[Key, Tensors], Tensors] | None = None,
    l2_bound: float | None = None,
) -> Stage:
    """Makes a stage whose two halves share a draw from a key.

    Args:
      drawn: who makes the draw.
      before: the spec that precedes the stage.
      out: the tensors that it emits.
      undo: the server's half, from the key and the encoded values.
      linear: whether `undo` is linear; then, drawn per round, it is applied once, to the total.
      within, encode: the client's half, from the key.
      encode_many: encodes for several clients, whose tensors have a leading axis, if all draw alike.
      l2_bound: of the tensors that it emits.
    """
    of_total = drawn.shared and before.summable and linear

    def train_within(plan: Plan, client_key: Key) -> Space:
        assert within is not None
        return within(drawn.key(plan, client_key))

    def do_encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
        assert encode is not None
        return replace(part, values=encode(drawn.key(plan, keys.public), part.values)), memory

    def do_encode_many(plan: Plan, parts: Parts, keys: ClientKeys) -> Parts:
        assert encode_many is not None
        return replace(parts, values=encode_many(plan, parts.values))

    def open(plan: Plan, part: Part, client_key: Key) -> Part:
        return replace(part, values=undo(drawn.key(plan, client_key), part.values))

    def decode(state: Any, plan: Plan, total: Total, secret_key: Key) -> tuple[Total, Any]:
        return replace(total, values=_each(out, total.values, lambda item: undo(plan, item))), state

    return Stage(
        Redrawn.after(before, tensors=dict(out), summable=of_total, l2_bound=l2_bound),
        plan=drawn.plan,
        within=within and train_within,
        encode=encode and do_encode,
        encode_many=do_encode_many if encode_many and drawn.shared else None,
        open=None if of_total else open,
        decode=decode if of_total else None,
    )


def _each(out: Mapping[str, TensorSpec], values: Tensors, undo: Callable[[Tensors], Tensors]) -> Tensors:
    """Undoes a total, or each of the contributions that were stacked into one."""
    ours = {name: values[name] for name in out}
    others: dict[str, Array] = {name: v for name, v in values.items() if name not in out}
    stacked = all(ours[name].ndim == len(spec.shape) + 1 for name, spec in out.items())
    if not stacked or not ours:
        return {**undo(ours), **others}
    items = [undo(dict(zip(ours, item, strict=True))) for item in zip(*ours.values(), strict=True)]
    return {**{name: np.stack([item[name] for item in items]) for name in items[0]}, **others}
