"""Checks of arriving messages: whether they fit the ticket they answer, and how large they may be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hanse.core.chain import Chain
from hanse.core.errors import MessageError
from hanse.core.exchange.party import Message, Payload, Task
from hanse.core.keys import Key
from hanse.core.layout import Packed
from hanse.core.spec import Spec
from hanse.core.tensors import Tensors, sum_squares, windows
from hanse.core.values import unpack
from hanse.core.work import Part

__all__ = ["ValidMessage", "limit_bytes", "limit_norm", "open_parts", "unpack_message", "validate"]

MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""The bytes that a message may take beyond its values: names, shapes and the ticket."""

TENSOR_OVERHEAD_BYTES = 1024
"""The bytes that each of its tensors may take beyond its values and ten times its name."""


@dataclass(frozen=True)
class ValidMessage(Message):
    """A message that was checked, with its parts in the form that reducers take."""


def validate(message: Message, task: Task, payload: Payload) -> ValidMessage:
    """Checks a message against what its ticket asked for. Raises: MessageError: saying what is wrong."""
    if type(message.ticket) is not int or message.ticket != task.ticket:
        raise MessageError(f"a message for ticket {message.ticket} under ticket {task.ticket}")
    parts: Any = message.parts  # nothing has checked the types of its fields
    if not isinstance(parts, Mapping) or parts.keys() != payload.chains.keys():
        raise MessageError(f"it has the parts {parts!s:.200}, but must have {sorted(payload.chains)}")
    checked = {name: _validate_part(name, part, payload, task.key) for name, part in parts.items()}
    return ValidMessage(message.ticket, checked)


def _validate_part(name: str, part: Any, payload: Payload, key: Key) -> Part | None:
    part_spec = payload.uplink[name]
    if part_spec.into.hides != (part is None):
        raise MessageError(
            f"part {name!r} is {'missing' if part is None else 'open'}, which {part_spec.into} does not allow"
        )
    if part is None:
        return None
    if not isinstance(part, Part) or not isinstance(part.values, Mapping):
        raise MessageError(f"part {name!r} is a {type(part).__name__}")
    weight: Any = part.weight
    if type(weight) not in (float, int) or not 0 <= weight <= part_spec.max_weight:
        raise MessageError(f"part {name!r} has weight {weight}; 0 to {part_spec.max_weight:g} is allowed")
    chain = payload.chains[name]
    try:
        chain.out.check(part.values)
        _check_norm(chain, chain.out, part.values)
        if chain.opens is None:
            return part
        seen = chain.open(payload.plans[name], part, key.fold_in(name))
        folded = chain.folded
        folded.check(seen.values)  # what can't be opened must not reach the fold
        _check_norm(chain, folded, seen.values)
    except MessageError as error:
        raise MessageError(f"part {name!r}: {error}") from None
    return seen


def limit_norm(chain: Chain, spec: Spec, num_values: int) -> float | None:
    """Returns the largest norm that rounding may give to values that keep a spec's bound; None: no bound.

    Clipping rounds a factor and each product: at most 2 units u = eps/2, relative to the norm. A stage after
    it that keeps the bound, such as a rotation, adds up in log2(n) steps, twice for values in two of its
    blocks, and scales twice: 2 u (log2(n) + 2). Below the normal range each value is off by up to the
    smallest number, so n of them by sqrt(n) times as much. Both norms are sums in float64 in some order.
    """
    if spec.l2_bound is None:
        return None
    kinds = [np.dtype(tensor.dtype) for tensor in spec.tensors.values()]
    real = [np.finfo(kind) for kind in kinds if kind.kind == "f"]
    eps = max((float(kind.eps) for kind in real), default=0.0)
    tiny = max((float(kind.smallest_subnormal) for kind in real), default=0.0)
    num_stages = max(1, len(chain.stages))
    relative = num_stages * (4 + num_values.bit_length()) * eps + SUM_ERROR
    return spec.l2_bound * (1 + relative) + num_stages * math.sqrt(num_values) * tiny


SUM_ERROR = 1e-9
"""More than the relative error of a sum in float64 of 2^32 squares, a few million of them one by one."""


def _check_norm(chain: Chain, spec: Spec, values: Tensors) -> None:
    """Checks the bound that a spec promises. Raises: MessageError: if the norm is larger."""
    limit = limit_norm(chain, spec, sum(value.size for value in values.values()))
    if limit is None:
        return
    squares = (float(sum_squares(part[None])[0]) for value in values.values() for part in windows(value))
    norm = math.sqrt(math.fsum(squares))
    if not norm <= limit:
        raise MessageError(f"its norm is {norm:.9g}; at most {spec.l2_bound:g} is allowed")


def open_parts(message: Message, task: Task, payload: Payload) -> ValidMessage:
    """Opens the parts of a message that was checked before, as the reducers take them."""
    parts = {
        name: part and payload.chains[name].open(payload.plans[name], part, task.key.fold_in(name))
        for name, part in message.parts.items()
    }
    return ValidMessage(message.ticket, parts)


def overhead_bytes(chains: Mapping[str, Chain]) -> int:
    """Returns the most bytes that a message through these chains may take beyond its values."""
    names = [len(name.encode()) for chain in chains.values() for name in chain.out.tensors]
    return MESSAGE_OVERHEAD_BYTES + 10 * sum(names) + TENSOR_OVERHEAD_BYTES * len(names)


def limit_bytes(chains: Mapping[str, Chain]) -> int | None:
    """Returns the most bytes that a message through these chains may take; None if it sets its dimensions."""
    limit = overhead_bytes(chains)
    for chain in chains.values():
        if chain.out.limit_bytes is None:
            return None
        limit += chain.out.limit_bytes
    return limit


def unpack_message(data: Packed, payload: Payload) -> Message:
    """Unpacks a stranger's message. Raises: MessageError: if it is larger than it may be, or no message."""
    limit = limit_bytes(payload.chains)
    if limit is not None and len(data) > limit:
        raise MessageError(f"a message of {len(data)} bytes; at most {limit} are allowed")
    head = overhead_bytes(payload.chains)
    message: Message = unpack(data, Message, only=(Message, Part), max_head_bytes=head)
    return message
