"""The fold: arrived messages become totals, by the fixed tree and the transforms' states at the server."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hanse.core.chain import Chain, Plan
from hanse.core.errors import CompositionError
from hanse.core.exchange.changes import Tracked
from hanse.core.exchange.party import Payload
from hanse.core.exchange.tickets import DispatchRecord
from hanse.core.keys import Key
from hanse.core.program import Collect
from hanse.core.reducers import TreeFold
from hanse.core.work import Part, Total

__all__ = ["Block", "MessageFold", "TransformStates"]


@dataclass(frozen=True)
class Block:
    """Neighbours in a fold whose messages were checked and folded where they were computed.

    They fill a part of one aligned block of 2^j positions: see `TreeFold`.

    Args:
      counted: their tickets, in order.
      folded: by part, the reducer's accumulator of all of them; none if nothing was counted.
      sizes: (ticket, bytes) of each message, refused ones included.
      refused: why messages can't be taken, by ticket.
      carried: by part, the bytes of its tensors in each counted message.
      together: whether several clients were computed at once.
      spent: seconds by what they went to.
    """

    counted: tuple[int, ...]
    folded: Mapping[str, Any]
    sizes: tuple[tuple[int, int], ...]
    refused: Mapping[int, str]
    carried: Mapping[str, tuple[int, ...]]
    together: bool = False
    spent: Mapping[str, float] = field(default_factory=dict)


class MessageFold:
    """Folds the messages that one Collect counts, each part by its own reducer.

    Args:
      command: the Collect; its discount makes old messages count less.
      tickets: those that it waits for, in the order of their positions in the tree.
    """

    def __init__(self, command: Collect, tickets: Sequence[int]) -> None:
        self._command = command
        self._positions = {ticket: position for position, ticket in enumerate(tickets)}
        self._trees: dict[str, TreeFold[Any]] = {}
        self._counted: list[int] = []
        self.tickets: dict[str, list[int]] = {}
        """By part, the tickets whose parts were added, in order."""

    @property
    def counted(self) -> tuple[int, ...]:
        """The tickets that were added."""
        return tuple(self._counted)

    def add(self, ticket: int, parts: Mapping[str, Part | None], dispatch: DispatchRecord) -> None:
        """Adds a message to the right of all earlier ones.

        Args:
          ticket: which the message answers.
          parts: its parts as the reducers take them; None where a reducer hides one.
          dispatch: the record of the ticket's dispatch.
        """
        self._counted.append(ticket)
        discount, factor = self._command.discount, 1.0
        if discount is not None:
            factor = discount.factor(self._command.version - dispatch.version)
        for name, part in parts.items():
            if part is not None:
                if discount is not None:
                    part = replace(part, weight=part.weight * factor)
                self._tree(name, dispatch).lift(self._positions[ticket], part)
                self.tickets.setdefault(name, []).append(ticket)

    def add_block(self, block: Block, dispatch: DispatchRecord) -> None:
        """Adds a block to the right of all earlier messages."""
        self._counted.extend(block.counted)
        for name, accumulator in block.folded.items():
            self._tree(name, dispatch).add(self._positions[block.counted[0]], accumulator)
            self.tickets.setdefault(name, []).extend(block.counted)

    def _tree(self, name: str, dispatch: DispatchRecord) -> TreeFold[Any]:
        if name not in self._trees:
            self._trees[name] = TreeFold(dispatch.payload.uplink[name].into)
        return self._trees[name]

    def explain_count(self) -> str | None:
        """Returns why a reducer can't fold as many messages as were added, or None if all can."""
        try:
            for name, tree in self._trees.items():
                tree.reducer.check_number(len(self.tickets[name]))
        except CompositionError as error:
            return str(error)
        return None

    def totals(self) -> Iterator[tuple[str, Total]]:
        """Yields the total of each part, before the transforms are undone on it."""
        for name, tree in self._trees.items():
            total = tree.result()
            assert total is not None
            yield name, total


class TransformStates:
    """Keeps the server's states of the transforms, from dispatch to dispatch and from round to round.

    The same part through the same transforms goes on from its last state.

    Args:
      secret: draws what the transforms must not tell anybody.
      states: the current ones, by part and transforms.
      begun: what they were when the round began.
    """

    def __init__(
        self, secret: Key, states: Mapping[str, tuple[Any, ...]], begun: Mapping[str, tuple[Any, ...]]
    ) -> None:
        self._secret = secret
        self._states, self._begun = Tracked(states), dict(begun)

    @property
    def states(self) -> Tracked[str, tuple[Any, ...]]:
        """The current states. This is the object's own mapping: copy it to keep it."""
        return self._states

    @property
    def begun(self) -> Mapping[str, tuple[Any, ...]]:
        """The states at the beginning of the round. This is the object's own mapping, too."""
        return self._begun

    def plan(self, chains: Mapping[str, Chain], key: Key) -> dict[str, tuple[Plan, ...]]:
        """Draws the plans of one dispatch, by part."""
        return {
            name: chain.plan(self._state(name, chain), key.fold_in("plan", name))
            for name, chain in chains.items()
        }

    def decode(self, name: str, payload: Payload, total: Total, ticket: int) -> Total:
        """Undoes the transforms on the total of a part, and keeps the states that this leads to.

        Args:
          name: of the part.
          payload: of its dispatch.
          total: of what was folded.
          ticket: the first that was counted. No two folds share it, so they share no secret.
        """
        chain, secret = payload.chains[name], self._secret.fold_in("decode", ticket, name)
        before = self._state(name, chain)
        total, state = chain.decode(before, payload.plans[name], total, secret)
        if any(new is not old for new, old in zip(state, before, strict=True)):
            self._states[_slot(name, chain)] = state
        return total

    def decode_totals(self, fold: MessageFold, dispatches: Sequence[DispatchRecord]) -> dict[str, Total]:
        """Undoes the transforms on all totals of a fold.

        Args:
          fold: of the messages.
          dispatches: the records of their dispatches, oldest first.

        Raises: CompositionError: if a sum spans several dispatches, but has to be decoded by one's plan.
        """
        totals: dict[str, Total] = {}
        for name, total in fold.totals():
            payload, *others = (d.payload for d in dispatches if name in d.payload.chains)
            transform = payload.chains[name].decodes
            if transform is not None and others:
                raise CompositionError(
                    f"{transform} draws its plan for each dispatch and undoes it on the sum, "
                    "but this sum spans several dispatches: let it be drawn per client, or use a "
                    "synchronous algorithm"
                )
            totals[name] = self.decode(name, payload, total, fold.counted[0])
        return totals

    def _state(self, name: str, chain: Chain) -> tuple[Any, ...]:
        slot = _slot(name, chain)
        if slot not in self._states:
            self._states[slot] = chain.init()
        return self._states[slot]

    def begin_round(self, *, abandoned: bool) -> None:
        """Ends a round: what it changed is kept, or taken back if it was abandoned."""
        self._states = Tracked(self._begun if abandoned else self._states)
        self._begun = dict(self._states)


def _slot(part: str, chain: Chain) -> str:
    return f"{part} {chain.transforms}"
