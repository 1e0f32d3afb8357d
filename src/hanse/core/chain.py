"""Transforms: features with a half at the client and a half at the server, composed as values."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from hanse.core.errors import CompositionError
from hanse.core.keys import ClientKeys, Key, Keys
from hanse.core.spec import Spec
from hanse.core.usage import Release
from hanse.core.values import brief
from hanse.core.work import Memory, Part, Parts, Space, Total

__all__ = ["Chain", "Plan", "Stage", "Transform"]

Plan: TypeAlias = Any
"""A public value, drawn by the server for one dispatch and sent to its cohort."""


def _no_plan(state: Any, key: Key) -> Plan:
    return None


@dataclass(frozen=True)
class Stage:
    """Both halves of one feature, bound to the spec that precedes it. Fields that are None do nothing.

    Args:
      out: what a client emits after this stage.
      init: the server's state before the first round; any value.
      plan: (state, key) -> plan. The public value sent to all clients of one dispatch.
      within: (plan, client_key) -> Space. A space for the work to train in; its coordinates
        are what `encode` receives. Only the first stage of a chain may have one.
      encode: (plan, part, memory, keys) -> (part, memory). At the client; `memory` is the stage's own.
      encode_many: (plan, parts, keys) -> parts. Encodes for several clients, in the bits of `encode`; for
        stages that keep no memory. It leaves the given arrays as they are; None: they run one by one.
      open: (plan, part, client_key) -> part. At the server, per contribution, before the fold.
        None for stages that commute with sums: then the fold works on the encoded values.
      decode: (state, plan, total, secret_key) -> (total, state). At the server, after the fold.
      lossless: whether `encode` can be undone exactly, so that it may follow calibrated noise.
      release: what the total reveals after this stage, if that is noised. Runtimes book it for each total.
      fewest: the fewest clients whose noise must be in a total, if each adds a share of it; the reducer has
        to make sure of that. 0: it does not matter.
      most: the most clients whose messages a total has room for; the reducer has to make sure of that, too.
        0: it does not matter.
    """

    out: Spec
    init: Any = None
    plan: Callable[[Any, Key], Plan] = _no_plan
    within: Callable[[Plan, Key], Space] | None = None
    encode: Callable[[Plan, Part, Memory, Keys], tuple[Part, Memory]] | None = None
    encode_many: Callable[[Plan, Parts, ClientKeys], Parts | None] | None = None
    open: Callable[[Plan, Part, Key], Part] | None = None
    decode: Callable[[Any, Plan, Total, Key], tuple[Total, Any]] | None = None
    lossless: bool = False
    release: Release | None = None
    fewest: int = 0
    most: int = 0


class Transform(ABC):
    """A feature before it is bound: a value such as `clip(1.0)`, named and registered with `@value`."""

    @property
    def effect(self) -> str:
        """The effect on a part, in a few words for the owner of the data, such as "clipped to norm 1"."""
        return f"through {brief(self)}"

    @abstractmethod
    def __call__(self, spec: Spec) -> Stage:
        """Binds to the spec that precedes it. Raises: CompositionError: if it can't work on that."""


@dataclass(frozen=True)
class Chain:
    """Transforms bound one after the other. Clients encode first to last, the server undoes last to first.

    The server opens single contributions down to the first stage that does not commute with sums,
    folds, and decodes the total through the stages before it.
    """

    source: Spec
    transforms: tuple[Transform, ...]
    stages: tuple[Stage, ...] = field(repr=False)

    @classmethod
    def bind(
        cls, source: Spec, transforms: Sequence[Transform], fewest: int | None = None, most: int = 0
    ) -> "Chain":
        """Binds each transform to what the ones before it emit.

        Args:
          fewest: the fewest clients in a total, as far as the reducer makes sure of it. None: nobody asks.
          most: the most clients in a total, if fewest is given. 0: the reducer bounds them by no number.

        Raises: CompositionError: if one of them can't be used in its place.
        """
        stages: list[Stage] = []
        spec = source
        for i, transform in enumerate(transforms):
            stage = transform(spec)
            if fewest is not None and stage.fewest > fewest:
                raise CompositionError(
                    f"{transform} counts on the noise of {stage.fewest} clients in each total, and the "
                    f"reducer makes sure of {fewest} only: write one that hides single messages and lets no "
                    f"total have fewer, such as into=encrypted_sum({stage.fewest})"
                )
            if fewest is not None and stage.most and not 0 < most <= stage.most:
                raise CompositionError(
                    f"{transform} has room for totals of {stage.most} clients, and the reducer allows "
                    f"{most or 'any number'}: write max_clients={most or '...'} in the former, or a smaller "
                    "bound in the reducer, such as secure_sum(max_clients=...), encrypted_sum(max_cohort=...)"
                )
            if stage.within is not None and i > 0:
                raise CompositionError(
                    f"{transform} is a space that the client trains in, so it must come first; "
                    f"here it follows {transforms[i - 1]}: move it to the front"
                )
            if spec.sealed and stage.encode is not None and not stage.lossless:
                raise CompositionError(
                    f"{transform} would change values whose noise was calibrated before it; "
                    "move it before the noise"
                )
            opener = next((t for t, s in zip(transforms, stages, strict=False) if s.open is not None), None)
            if opener is not None and stage.decode is not None and stage.open is None:
                raise CompositionError(
                    f"{transform} is undone on the sum, but it follows {opener}, which is undone on each "
                    f"contribution before: move it in front of {opener}, or let it be drawn per client"
                )
            sealed = spec.sealed or stage.out.sealed  # once calibrated, whatever the stage says
            if (stage.out.sealed, stage.out.moves) != (sealed, spec.moves):
                stage = replace(stage, out=stage.out.like(sealed=sealed, moves=spec.moves))
            stages.append(stage)
            spec = stage.out
        return cls(source, tuple(transforms), tuple(stages))

    @property
    def out(self) -> Spec:
        """The spec of the values that are sent."""
        return self.stages[-1].out if self.stages else self.source

    @cached_property
    def descriptions(self) -> tuple[str, ...]:
        """The transforms as a user would write them."""
        return tuple(map(brief, self.transforms))

    @cached_property
    def bytes_before(self) -> tuple[int | None, ...]:
        """The bytes of the values before each stage; None where they depend on the data."""
        return tuple(spec.num_bytes for spec in (self.source, *(s.out for s in self.stages)))[:-1]

    @property
    def folded(self) -> Spec:
        """The spec of the values that the reducer receives."""
        first = self._first_opened
        if first is None:
            return self.out
        spec = self.stages[first - 1].out if first else self.source
        # Decoding after a lossy stage may return a vector of larger norm, so the bound is lost.
        exact = all(stage.encode is None or stage.lossless for stage in self.stages[first:])
        return spec if exact else spec.like(l2_bound=None)

    @property
    def _first_opened(self) -> int | None:
        return next((i for i, stage in enumerate(self.stages) if stage.open is not None), None)

    @property
    def opens(self) -> Transform | None:
        """The first transform that needs single contributions opened, if any."""
        return None if self._first_opened is None else self.transforms[self._first_opened]

    @property
    def decodes(self) -> Transform | None:
        """The first transform that undoes its plan on the total, if any."""
        return self._find_first(lambda stage: stage.decode is not None)

    @property
    def releases(self) -> tuple[Release, ...]:
        """The disclosures of its stages to the reader of a total, first to last."""
        return tuple(stage.release for stage in self.stages if stage.release is not None)

    @property
    def calibrated(self) -> Transform | None:
        """The first transform that adds noise to the total, for what one client can move it, if any."""
        return self._find_first(lambda stage: stage.release is not None and stage.decode is not None)

    def _find_first(self, accepts: Callable[[Stage], bool]) -> Transform | None:
        """Returns the first transform whose stage is accepted, if any."""
        pairs = zip(self.transforms, self.stages, strict=True)
        return next((transform for transform, stage in pairs if accepts(stage)), None)

    def init(self) -> tuple[Any, ...]:
        """Returns the server's states before the first round."""
        return tuple(stage.init for stage in self.stages)

    def plan(self, states: Sequence[Any], key: Key) -> tuple[Plan, ...]:
        """Draws the public plans of one dispatch."""
        return tuple(
            s.plan(state, key.fold_in(i))
            for i, (s, state) in enumerate(zip(self.stages, states, strict=True))
        )

    def space(self, plans: Sequence[Plan], client_key: Key) -> Space | None:
        """Returns the space that the client trains in."""
        if not self.stages or self.stages[0].within is None:
            return None
        return self.stages[0].within(plans[0], client_key.fold_in(0))

    def encode(self, plans: Sequence[Plan], part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
        """Runs the client's half. `memory` is the chain's own: each stage sees and keeps its own entry."""
        kept = dict(memory)
        for i, (stage, plan) in enumerate(zip(self.stages, plans, strict=True)):
            if stage.encode is not None:
                part, own = stage.encode(plan, part, kept.get(str(i), {}), keys.fold_in(i))
                kept.pop(str(i), None)
                if own:
                    kept[str(i)] = own
        return part, kept

    @property
    def can_encode_many(self) -> bool:
        """Returns whether `encode_many` may succeed: no stage keeps memory, or works client by client."""
        return all(stage.encode is None or stage.encode_many is not None for stage in self.stages)

    def encode_many(self, plans: Sequence[Plan], parts: Parts, keys: ClientKeys) -> Parts | None:
        """Runs the client's half for several clients at once. None: it has to run one by one."""
        for i, (stage, plan) in enumerate(zip(self.stages, plans, strict=True)):
            if stage.encode is not None:
                if stage.encode_many is None:
                    return None
                encoded = stage.encode_many(plan, parts, keys.fold_in(i))
                if encoded is None:
                    return None
                parts = encoded
        return parts

    def open(self, plans: Sequence[Plan], part: Part, client_key: Key) -> Part:
        """Runs the server's half for one contribution, before the fold."""
        for i in reversed(range(len(self.stages))):
            opened = self.stages[i].open
            if opened is not None:
                part = opened(plans[i], part, client_key.fold_in(i))
        return part

    def decode(
        self, states: Sequence[Any], plans: Sequence[Plan], total: Total, secret_key: Key
    ) -> tuple[Total, tuple[Any, ...]]:
        """Runs the server's half for the total, after the fold."""
        after = list(states)
        for i in reversed(range(len(self.stages))):
            decoded = self.stages[i].decode
            if decoded is not None:
                total, after[i] = decoded(after[i], plans[i], total, secret_key.fold_in(i))
        return total, tuple(after)
