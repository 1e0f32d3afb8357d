"""Checks of arriving messages: whether they fit the ticket they answer, and how large they may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hanse.core.chain import Chain
from hanse.core.errors import MessageError
from hanse.core.exchange.party import Message, Payload, Task
from hanse.core.keys import Key
from hanse.core.layout import Packed
from hanse.core.values import unpack
from hanse.core.work import Part

__all__ = ["ValidMessage", "decode_each", "limit_bytes", "unpack_message", "validate"]

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
        if chain.opens is None:
            return part
        seen = chain.open(payload.plans[name], part, key.fold_in(name))
        chain.folded.check(seen.values)  # what can't be opened must not reach the fold
    except MessageError as error:
        raise MessageError(f"part {name!r}: {error}") from None
    return seen


def decode_each(message: Message, task: Task, payload: Payload) -> ValidMessage:
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
