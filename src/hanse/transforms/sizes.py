"""Measured sizes of a model's messages after each transform of a chain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hanse.core import Array, Chain, Key, Keys, Part, Spec, Transform, num_bytes
from hanse.core.exchange import Message, pack
from hanse.transforms.numbers import fix_shapes

__all__ = ["WireSize", "wire_bytes"]


@dataclass(frozen=True)
class WireSize:
    """The size of one client's part after some transforms.

    Args:
      after: the last of them; None: before the first.
      tensor_bytes: of its tensors alone.
      message_bytes: of the packed message that carries it, names and all.
    """

    after: Transform | None
    tensor_bytes: int
    message_bytes: int


def wire_bytes(
    spec: Spec, uplink: Sequence[Transform], key: Key = Key.from_seed(0), part: str = "update"
) -> tuple[WireSize, ...]:
    """Sends normal random values through a chain and weighs the message: at first, and after each transform.

    These are the bytes that a runtime counts as sent up, not a formula. A message whose length depends on its
    values, as after `deflate`, may differ a little.

    Raises: CompositionError: if the transforms can't be chained, or a shape is bound only by the message.

    >>> from hanse.transforms import quantize
    >>> sizes = wire_bytes(Spec.of({"w": np.zeros((200, 784), np.float32)}), (quantize(2),))
    >>> [size.tensor_bytes for size in sizes]
    [627200, 39208]
    """
    keys = Keys(key.fold_in("client"), key.fold_in("client's secret"))
    sizes = []
    for length in range(len(uplink) + 1):
        chain = Chain.bind(spec, uplink[:length])
        plans = chain.plan(chain.init(), key)
        trained = bool(chain.stages) and chain.stages[0].within is not None
        begins = chain.stages[0].out if trained else spec
        sent, _ = chain.encode(plans, Part(_random(begins, key)), {}, keys)
        message = pack(Message(0, {part: sent}))
        sizes.append(WireSize(uplink[length - 1] if length else None, num_bytes(sent.values), len(message)))
    return tuple(sizes)


def _random(spec: Spec, key: Key) -> dict[str, Array]:
    return {
        name: np.asarray(key.fold_in("values", name).rng().normal(size=tensor.shape), tensor.dtype)
        for name, tensor in fix_shapes("wire_bytes", spec.tensors).items()
    }
