"""Broadcasts as differences to the version that each reader holds.

The server compresses what has changed since the version that up-to-date readers hold, and keeps the new
version as they will have it. What compression left out is still part of the next difference, so nothing is
lost: only x_t - r_t is ever outstanding. Readers that missed a few versions receive the differences in
between; readers that missed more, or hold none, receive the whole.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

from hanse.core.chain import Chain, Plan, Transform
from hanse.core.errors import CompositionError, MessageError
from hanse.core.exchange.changes import Tracked
from hanse.core.keys import Key, Keys
from hanse.core.spec import Spec
from hanse.core.tensors import Tensors, add_scaled, dot, frozen, num_bytes, subtract
from hanse.core.values import digest, measure_packed_bytes, value
from hanse.core.work import Memory, Part, PartyId, Total

__all__ = [
    "HELD",
    "Broadcast",
    "Change",
    "Editions",
    "Held",
    "Reference",
    "VersionTable",
    "advance",
    "bind_chain",
    "read_broadcasts",
]

HELD = "held/"
"""Prefix of names in memory that hold versions of broadcasts; works need not know them."""

MAX_DROPS = 2
"""A reader that was not counted this often in a row may have lost its memory: it receives the whole again."""


@value
class Change:
    """The change from one version to the next: `step` times what the transforms decode.

    Args:
      plans, key: for the transforms' draws.
      step: the factor that leaves out the least, so that compression never makes a difference grow.
      values: the encoded tensors.
    """

    plans: tuple[Plan, ...]
    key: Key
    step: float
    values: Tensors


@value
class Broadcast:
    """Tensors as they are sent to a reader: whole, or as changes to the version that it holds.

    Args:
      transforms: the transforms that the changes went through.
      sha256: the SHA-256 of the version that they lead to.
      since: the SHA-256 of the version that the changes start from; None if the whole is sent.
      changes: first to last; empty if nothing has changed.
    """

    transforms: tuple[Transform, ...]
    sha256: str
    since: str | None = None
    changes: tuple[Change, ...] = ()
    whole: Tensors | None = None

    @property
    def num_bytes(self) -> int:
        """The bytes of its tensors alone."""
        return sum(num_bytes(change.values) for change in self.changes) + num_bytes(self.whole or {})


@value
class Held:
    """A version that a reader holds."""

    sha256: str
    tensors: Tensors

    @cached_property
    def content(self) -> str:
        """The digest of the tensors themselves, whatever the server has called them."""
        return digest(dict(self.tensors))


@value
class Reference:
    """The server's record of the versions of one name.

    Args:
      source: SHA-256 of the exact tensors that the latest version stands for.
      tensors: the latest version, as its readers have it.
      version: the number of the latest version.
      names: the SHA-256 of each version that a change starts from, oldest first, and of the latest.
      changes: the changes between these, with their packed `sizes` in bytes. Their sum is below the whole's.
      holders: by reader, the version that it holds and how often it was not counted since.
    """

    source: str
    tensors: Tensors
    version: int
    names: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    sizes: tuple[int, ...] = ()
    holders: Mapping[PartyId, tuple[int, int]] = field(default_factory=dict)

    def for_holder(self, transforms: tuple[Transform, ...], version: int | None) -> Broadcast:
        """Builds the broadcast for a reader of this version, or of none: the changes if they are kept."""
        behind = len(self.changes) + 1 if version is None else self.version - version
        if not 0 <= behind <= len(self.changes):
            return Broadcast(transforms, self.names[-1], whole=self.tensors)
        first = len(self.changes) - behind
        return Broadcast(transforms, self.names[-1], self.names[first], self.changes[first:])

    def settle(self, held: Mapping[PartyId, int], missed: Sequence[PartyId]) -> "Reference":
        """Books a round: counted readers hold what they were sent, others may have lost what they held."""
        oldest = self.version - len(self.changes)
        holders = dict(self.holders)
        for party in missed:
            if party in holders:
                version, drops = holders[party]
                holders[party] = version, drops + 1
        holders.update((party, (version, 0)) for party, version in held.items())
        kept = {p: (v, drops) for p, (v, drops) in holders.items() if v >= oldest and drops < MAX_DROPS}
        return replace(self, holders=kept)


def bind_chain(tensors: Tensors, transforms: Sequence[Transform]) -> Chain:
    """Binds the transforms of a broadcast. Raises: CompositionError: if they can't work on it."""
    other = next((name for name, v in tensors.items() if v.dtype.kind != "f"), None)
    if other is not None:
        raise CompositionError(
            f"a downlink sends differences of real numbers, but {other!r} is {tensors[other].dtype}: "
            "broadcast it whole, with downlink=()"
        )
    chain = Chain.bind(Spec.of(tensors), transforms)
    if chain.stages and chain.stages[0].within is not None:
        raise CompositionError(
            f"{chain.transforms[0]} is a space to train in, and a downlink trains nothing: use a sketch "
            "(rotate, quantize, top_k, subsample)"
        )
    return chain


def advance(
    reference: Reference | None, tensors: Tensors, transforms: Sequence[Transform], key: Key
) -> Reference:
    """Advances the reference to these tensors. The same tensors make no new version."""
    chain, source = bind_chain(tensors, transforms), digest(dict(tensors))
    if reference is None or Spec.of(reference.tensors) != Spec.of(tensors):
        version = 0 if reference is None else reference.version + 1
        return Reference(source, dict(tensors), version, (source,))
    if reference.source == source:
        return reference
    change = _change(chain, subtract(tensors, reference.tensors), key)
    latest = _apply_change(reference.tensors, change, chain)
    names = (*reference.names, digest(latest))
    changes = (*reference.changes, change)
    sizes = (*reference.sizes, measure_packed_bytes(change))
    whole = measure_packed_bytes(latest)
    while sum(sizes) >= whole:
        names, changes, sizes = names[1:], changes[1:], sizes[1:]
    return Reference(source, latest, reference.version + 1, names, changes, sizes, reference.holders)


def _change(chain: Chain, difference: Tensors, key: Key) -> Change:
    plans = chain.plan(chain.init(), key.fold_in("plan"))
    keys = Keys(key.fold_in("draw"), key.fold_in("unsent"))
    # No stage is given a memory: what it leaves out is in the next difference anyway.
    part, _ = chain.encode(plans, Part(difference), {}, keys)
    change = Change(plans, keys.public, 1.0, part.values)
    restored = _restore(chain, change)
    size = dot(restored, restored)
    return replace(change, step=float(dot(difference, restored) / size) if size > 0 else 0.0)


def _restore(chain: Chain, change: Change) -> Tensors:
    chain.out.check(change.values)
    part = chain.open(change.plans, Part(change.values), change.key)
    total = Total(part.values, 1.0, 1)
    return chain.decode(chain.init(), change.plans, total, change.key.fold_in("unsent"))[0].values


def _apply_change(tensors: Tensors, change: Change, chain: Chain) -> dict[str, Any]:
    return add_scaled(tensors, change.step, _restore(chain, change))


# -- at the server -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Editions:
    """The broadcasts of one dispatch, one edition for each set of versions that its readers held.

    Args:
      broadcasts: of each edition, by name.
      holds: the versions that all readers hold afterwards, by slot.
      by_party: the index of each reader's edition.
    """

    broadcasts: tuple[Mapping[str, Broadcast], ...] = ()
    holds: Mapping[str, int] = field(default_factory=dict)
    by_party: Mapping[PartyId, int] = field(default_factory=dict)


class VersionTable:
    """Keeps the versions of everything that is broadcast as differences, and who holds which.

    A slot is one name through the same transforms.

    Args:
      references: the versions of each slot.
    """

    def __init__(self, references: Mapping[str, Reference]) -> None:
        self._references = Tracked(references)

    @property
    def references(self) -> Tracked[str, Reference]:
        """The versions of each slot. This is the table's own mapping: copy it to keep it."""
        return self._references

    def build_editions(
        self,
        tensors: Mapping[str, Tensors],
        transforms: tuple[Transform, ...],
        key: Key,
        cohort: Sequence[PartyId],
        pending: Callable[[PartyId, str], int | None],
    ) -> Editions:
        """Groups readers by the versions that they hold, and builds the broadcasts of each group.

        Args:
          tensors: what is broadcast, by name.
          transforms: the differences go through them.
          key: of the transforms' draws.
          cohort: the readers.
          pending: the version that a party's open tickets lead to in a slot, or None.
        """
        slots = {name: f"{name} {transforms}" for name in tensors}
        for name, slot in slots.items():
            known = self._references.get(slot)
            latest = advance(known, tensors[name], transforms, key.fold_in("downlink", name))
            if latest is not known:
                self._references[slot] = latest
        index: dict[tuple[int | None, ...], int] = {}
        broadcasts: list[Mapping[str, Broadcast]] = []
        by_party: dict[PartyId, int] = {}
        for party in cohort:
            held = tuple(self._find_held(party, slot, pending(party, slot)) for slot in slots.values())
            if held not in index:
                index[held] = len(broadcasts)
                broadcasts.append(
                    {
                        name: self._references[slot].for_holder(transforms, version)
                        for (name, slot), version in zip(slots.items(), held, strict=True)
                    }
                )
            by_party[party] = index[held]
        holds = {slot: self._references[slot].version for slot in slots.values()}
        return Editions(tuple(broadcasts), holds, by_party)

    def _find_held(self, party: PartyId, slot: str, pending: int | None) -> int | None:
        """Returns the version that a party's next ticket begins with; None if no changes lead on from it."""
        reference = self._references[slot]
        version = reference.holders.get(party, (None, 0))[0] if pending is None else pending
        useful = version is not None and version >= reference.version - len(reference.changes)
        return version if useful else None

    def settle(self, readers: Iterable[tuple[PartyId, Mapping[str, int], bool]]) -> None:
        """Books who holds what after a round.

        Args:
          readers: of each closed ticket its party, the versions that it led to, and whether it was counted.
        """
        held: dict[str, dict[PartyId, int]] = {}
        missed: dict[str, list[PartyId]] = {}
        for party, holds, was_counted in readers:
            for slot, version in holds.items():
                if was_counted:
                    held.setdefault(slot, {})[party] = version
                else:
                    missed.setdefault(slot, []).append(party)
        for slot in held.keys() | missed.keys():
            reference = self._references[slot]
            self._references[slot] = reference.settle(held.get(slot, {}), missed.get(slot, ()))
        self._references.take_edits()  # what changes from now on is the new round's


# -- at the reader -----------------------------------------------------------------------------

_KNOWN: "WeakValueDictionary[str, Held]" = WeakValueDictionary()
"""Versions in this process. Readers that one machine plays share them."""


def read_broadcasts(broadcasts: Mapping[str, Broadcast], memory: Memory) -> dict[str, Held]:
    """Decodes broadcasts, by name. Raises: MessageError: if changes start from a version not held here."""
    return {name: _read(name, sent, memory.get(HELD + name)) for name, sent in broadcasts.items()}


def _read(name: str, sent: Broadcast, held: Held | None) -> Held:
    if sent.whole is not None:
        return _KNOWN.setdefault(sent.sha256, Held(sent.sha256, frozen(sent.whole)))
    if held is None or held.sha256 != sent.since:
        has = "holds none" if held is None else f"holds {held.sha256[:12]}..."
        raise MessageError(
            f"{name!r} was sent as changes of version {str(sent.since)[:12]}..., but this client {has}; the "
            "server sends it whole after a while"
        )
    if not sent.changes:
        return held
    known = _KNOWN.get(sent.sha256)
    if known is not None:
        return known
    chain, tensors = bind_chain(held.tensors, sent.transforms), held.tensors
    for change in sent.changes:
        tensors = _apply_change(tensors, change, chain)
    if digest(dict(tensors)) != sent.sha256:
        raise MessageError(
            f"the changes of {name!r} lead to other bits than at the server: is this another kind of "
            "processor, or another version of NumPy? Broadcast whole, with downlink=()"
        )
    return _KNOWN.setdefault(sent.sha256, Held(sent.sha256, frozen(tensors)))
