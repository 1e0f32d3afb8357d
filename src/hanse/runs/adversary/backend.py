"""The backend of a simulation in which clients lie: it changes what liars compute and send, nothing else."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hanse.attacks import Adversary, Collusion
from hanse.core import (
    CompositionError,
    Declined,
    Key,
    Keys,
    Memory,
    Part,
    PartSpec,
    Reducer,
    Spec,
    Stage,
    Tensors,
    Transform,
    each,
    mean,
    reduce,
)
from hanse.core.exchange import (
    Fork,
    Message,
    Payload,
    Task,
    digest,
    encode,
    explain_decline,
    pack,
    unpack,
)
from hanse.robust import cosine_trust
from hanse.runs.adversary.population import name_liar
from hanse.runs.adversary.tally import LieCount
from hanse.simulation import BLOCK_HEIGHT, Answer, ClientBackend, Folding, Job, MemoryAt, WrappedBackend

__all__ = ["LyingBackend"]


class LyingBackend(WrappedBackend):
    """Computes honest clients as before, and tickets of liars apart, because they agree on what they send.

    What a liar would send is computed by the backend that is wrapped, also in worker processes, from the
    data that it claims to have. In this process it is changed, and encoded as the server expects it. A liar
    controls its device, so its lie passes by all transforms that only a client checks, such as clipping.

    Args:
      inner: computes tickets. Its population has the roles of liars, if data are poisoned.
      adversary: what the liars do.
      liars: their numbers.
      model: the spec of the model. Only parts of messages with these tensors are changed.
      keys: of the run.
      tally: has the number of the round, and takes down what the liars do in it.
      is_poisoned: tells whether a liar's data differ from its own in a round.
    """

    def __init__(
        self,
        inner: ClientBackend,
        adversary: Adversary,
        liars: Sequence[int],
        model: Spec,
        keys: Keys,
        tally: LieCount,
        is_poisoned: Callable[[int, int], bool],
    ) -> None:
        super().__init__(inner)
        self._adversary, self._liars, self._model = adversary, frozenset(liars), model
        self._secret = keys.secret.fold_in("clients")
        self._key = keys.public.fold_in("adversary")
        self._tally, self._is_poisoned = tally, is_poisoned

    def compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        """Computes jobs and yields their answers in order."""
        if not any(self._lies(task, job.payload) for job in jobs for _, task in job.places):
            return self.inner.compute(jobs, memory_at)
        return self._compute(jobs, memory_at)

    def _lies(self, task: Task, payload: Payload) -> bool:
        """Returns whether a ticket is one of a liar, who lies in this round and about this exchange."""
        is_active = any(attack.is_active(self._tally.current) for attack in self._adversary.attacks)
        return is_active and task.party in self._liars and bool(self._find_parts(payload))

    def _find_parts(self, payload: Payload) -> list[str]:
        """Returns the names of the parts that have the shapes of the model, whatever their types.

        A chain may decode to another type than the model began with, and the model then has that type.
        """
        shapes = _find_shapes(self._model)
        return [name for name, part in payload.uplink.items() if _find_shapes(part.spec) == shapes]

    def _compute(self, jobs: Sequence[Job], memory_at: MemoryAt) -> Iterator[Answer]:
        num_asked = sum(isinstance(task.party, int) for job in jobs for _, task in job.places)
        here = self._answer(self._find_own(jobs), memory_at, num_asked)
        pieces = [piece for job in jobs for piece in _divide(job, here.keys())]
        others = iter(self.inner.compute([piece for piece in pieces if not _is_in(piece, here)], memory_at))
        for piece in pieces:
            if _is_in(piece, here):
                yield _make_answer(piece, *here[piece.places[0][1].ticket])
                continue
            left = len(piece.places)
            while left:
                answer = next(others)
                left -= len(answer.job.places)
                yield answer

    def _find_own(self, jobs: Sequence[Job]) -> list[tuple[Task, Payload]]:
        """Returns the tickets that are computed for the liars: theirs, or all that they know.

        A ticket that continues another one waits for it, so its holder can't collude yet, and is honest.
        """
        asked = [(task, job.payload) for job in jobs for _, task in job.places]
        numbers = {task.ticket for task, _ in asked}
        knows_all = self._adversary.knows == "all"
        return [
            (task, payload)
            for task, payload in asked
            if task.after not in numbers
            and (self._lies(task, payload) or (knows_all and isinstance(task.party, int)))
            and self._find_parts(payload)
        ]

    def _answer(
        self, asked: Sequence[tuple[Task, Payload]], memory_at: MemoryAt, num_asked: int
    ) -> dict[int, tuple[Message | Declined, Fork, str]]:
        """Computes these tickets; returns by ticket the message, the fork and where it was computed."""
        befores = {task.ticket: memory_at(task) for task, _ in asked}
        plain = {id(payload): _strip(payload) for _, payload in asked}
        raw = [
            Job([(0, self._disguise(task, payload))], plain[id(payload)], folded=False)
            for task, payload in asked
        ]
        answers = self.inner.compute(raw, lambda task: befores[task.ticket])
        found, groups = dict[int, tuple[Message | Declined, Fork, str]](), list[list[_Honest]]()
        for (task, payload), answer in zip(asked, answers, strict=True):
            if isinstance(answer.result, Declined):
                found[task.ticket] = answer.result, Fork(task.after, {}, ()), answer.by
                continue
            assert isinstance(answer.result, bytes)
            before, message = befores[task.ticket], unpack(answer.result, Message)
            own = answer.forks[0].on(before)
            is_liar = self._lies(task, payload)
            honest = _Honest(task, payload, message.parts, own, before, self._find_secret(task), is_liar)
            group = next((group for group in groups if group[0].payload.uplink == payload.uplink), None)
            if group is None:
                groups.append(group := [])
            group.append(honest)
            found[task.ticket] = message, Fork(task.after, {}, ()), answer.by
        for group in groups:
            for task, message, fork in self._falsify(group, num_asked):
                found[task.ticket] = message, fork, found[task.ticket][2]
        return found

    def _disguise(self, task: Task, payload: Payload) -> Task:
        """Returns the ticket of a liar as one of the role that holds its poisoned data."""
        if not self._lies(task, payload) or not any(a.poisons for a in self._adversary.attacks):
            return task
        return replace(task, party=name_liar(task.party, self._tally.current))

    def _find_secret(self, task: Task) -> Key:
        """Returns the secret key of a ticket, by which its holder encodes."""
        return self._secret.fold_in(task.party, task.ticket)

    def _falsify(self, group: Sequence["_Honest"], num_asked: int) -> Iterator[tuple[Task, Message, Fork]]:
        """Lets the liars among clients that are asked for the same parts agree, and encodes what all send."""
        payload = group[0].payload
        liars = [one for one in group if one.is_liar]
        if len(liars) == 1 and self._adversary.knows == "colluders":
            self._tally.note_alone()
        views = {one.task.ticket: one.view() for one in group}
        sent = {one.task.ticket: dict(views[one.task.ticket][0]) for one in liars}
        kept = {one.task.ticket: dict(views[one.task.ticket][1]) for one in liars}
        for name in self._find_parts(payload) if liars else ():
            known = [one for one in group if not one.is_liar] or liars
            honest = tuple(views[one.task.ticket][0][name].values for one in known)
            weights = tuple(views[one.task.ticket][0][name].weight for one in known)
            own = tuple(sent[one.task.ticket][name] for one in liars)
            weights = weights if _heeds_weights(payload.uplink[name].into) else ()
            parts = self._agree(name, liars, honest, weights, own, num_asked - len(liars), kept)
            for one, part in zip(liars, parts, strict=True):
                sent[one.task.ticket][name] = part
        for one in liars:
            self._tally.note_lie(one.task.ticket)
            self._note_effect(one, views[one.task.ticket][0], sent[one.task.ticket])
        for one in group:
            if one.is_liar:
                yield one.finish(_skip_checks(one.payload), sent[one.task.ticket], kept[one.task.ticket])
            else:
                yield one.finish(one.payload, one.parts, one.own)

    def _note_effect(self, one: "_Honest", honest: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """Takes down whether a liar trained on or sends anything else than if it were honest."""
        if self._tally.lies.has_effect:
            return
        names, liar = self._find_parts(one.payload), one.task.party
        assert isinstance(liar, int)
        differs = any(digest(dict(honest[n].values)) != digest(dict(sent[n].values)) for n in names)
        if differs or self._is_poisoned(liar, self._tally.current):
            self._tally.note_effect()

    def _agree(
        self,
        name: str,
        liars: Sequence["_Honest"],
        honest: tuple[Tensors, ...],
        weights: tuple[float, ...],
        own: tuple[Part, ...],
        num_honest: int,
        kept: Mapping[int, dict[str, Any]],
    ) -> tuple[Part, ...]:
        """Returns the parts that liars send, and notes in their memories what they keep."""
        payload = liars[0].payload
        for i, attack in enumerate(self._adversary.attacks):
            if not attack.is_active(self._tally.current):
                continue
            at = f"adversary/{name}/{i}"
            seen = Collusion(
                part=name,
                round=self._tally.current,
                own=own,
                honest=honest,
                num_honest=num_honest,
                shared=payload.frozen,
                aggregate=_Aggregation(payload, name, honest),
                max_norm=payload.chains[name].out.l2_bound,
                memory=tuple(one.before.get(at, {}) for one in liars),
                key=self._key.fold_in("messages", i, name, liars[0].task.ticket),
                weights=weights,
            )
            own = attack.falsify(seen)
            remembered = attack.remember(seen)
            if remembered:
                for one in liars:
                    kept[one.task.ticket][at] = remembered
        return own


@dataclass(frozen=True)
class _Honest:
    """A ticket with what its holder would send if it did not lie, before any transform."""

    task: Task
    payload: Payload
    parts: Mapping[str, Any]
    own: Memory
    before: Memory
    secret: Key
    is_liar: bool

    def view(self) -> tuple[Mapping[str, Any], Memory]:
        """Returns the parts as the rule compares them, and the memory after the transforms until then."""
        plain = _strip(self.payload, until=_count_own)
        message, kept = encode(self.task, plain, self.parts, self.own, self.before, self.secret)
        return message.parts, kept

    def finish(self, payload: Payload, parts: Mapping[str, Any], own: Memory) -> tuple[Task, Message, Fork]:
        """Encodes parts as the server expects them."""
        message, kept = encode(self.task, payload, parts, own, self.before, self.secret)
        return self.task, message, Fork.between(self.task.after, self.before, kept)


@dataclass(frozen=True)
class _Skipped(Transform):
    """A transform that a liar passes by: it changes nothing, and promises the server what it always did."""

    inner: Transform

    def __call__(self, spec: Spec) -> Stage:
        return replace(self.inner(spec), encode=None, encode_many=None)


def _heeds_weights(rule: Reducer[Any]) -> bool:
    """Returns whether clients count by their weights, which a rule against liars may ignore."""
    return not isinstance(rule, each) and bool(getattr(rule, "heeds_weights", True))


def _find_shapes(spec: Spec) -> dict[str, tuple[int | str, ...]]:
    """Returns the shapes of tensors by their names."""
    return {name: tensor.shape for name, tensor in spec.tensors.items()}


def _find_begin(part: PartSpec) -> int:
    """Counts the transforms inside of which a client trains: none or the first."""
    stages = part.chain().stages
    return int(bool(stages) and stages[0].within is not None)


def _count_own(part: PartSpec) -> int:
    """Counts the first transforms that only the client performs, and the one inside of which it trains."""
    chain, at = part.chain(), _find_begin(part)
    while at < len(chain.stages) and _is_own(
        chain.stages[at], chain.stages[at - 1].out if at else chain.source
    ):
        at += 1
    return at


def _is_own(stage: Stage, before: Spec) -> bool:
    """Returns whether a transform is the client's alone, so that it may leave it out unnoticed."""
    has_server_half = stage.open is not None or stage.decode is not None or stage.within is not None
    return not has_server_half and stage.out.tensors == before.tensors and stage.out.kind == before.kind


def _strip(payload: Payload, until: Any = _find_begin) -> Payload:
    """Returns a payload with the first transforms of each part only, and without a reducer that hides."""
    num_kept = {name: until(part) for name, part in payload.uplink.items()}
    uplink = {n: replace(p, uplink=p.uplink[: num_kept[n]], into=each()) for n, p in payload.uplink.items()}
    plans = {name: plan[: num_kept[name]] for name, plan in payload.plans.items()}
    return replace(payload, uplink=uplink, plans=plans)


def _skip_checks(payload: Payload) -> Payload:
    """Returns a payload in whose parts the client skips all transforms that are its alone."""
    uplink = dict[str, PartSpec]()
    for name, part in payload.uplink.items():
        chain = part.chain()
        before = (chain.source, *(stage.out for stage in chain.stages))
        transforms = tuple(
            _Skipped(transform) if _is_own(stage, spec) else transform
            for transform, stage, spec in zip(part.uplink, chain.stages, before, strict=False)
        )
        uplink[name] = replace(part, uplink=transforms)
    lied = replace(payload, uplink=uplink)
    if any(part.into.hides for part in uplink.values()):
        vars(lied)["common"] = (
            payload.common
        )  # it compares with others what it was sent, not what it made of it
    return lied


class _Aggregation:
    """The server's rule as liars compute it for parts of their choice, with all transforms on the way to it.

    A rule that hides what it adds up is a mean to them, and so is an algorithm that takes each message by
    itself (`fools_gold`, `zeno`), because what its server makes of them is no rule. For the message of the
    server's own training (`fl_trust`), which they can't know, they take the mean of the honest messages.
    """

    def __init__(self, payload: Payload, part: str, honest: Sequence[Tensors]) -> None:
        self._rule: Reducer[Any] = payload.uplink[part].into
        self._rule = mean() if self._rule.hides or isinstance(self._rule, each) else self._rule
        self._chain = _skip_checks(payload).chains[part]
        self._plans, self._key = payload.plans[part], Key.from_seed(0)
        self._first: list[Part] = []
        if isinstance(self._rule, cosine_trust):
            self._first = [Part(reduce(mean(), [Part(values) for values in honest]).values)]

    def __call__(self, parts: Sequence[Part]) -> Tensors | None:
        parts = [*self._first, *parts]
        try:
            self._rule.check_number(len(parts))
        except CompositionError:
            return None
        if not self._chain.stages:
            return reduce(self._rule, list(parts)).values
        keys = Keys(self._key, self._key)
        sent = [self._chain.encode(self._plans, part, {}, keys)[0] for part in parts]
        opened = [self._chain.open(self._plans, part, self._key) for part in sent]
        total = reduce(self._rule, opened)
        return self._chain.decode(self._chain.init(), self._plans, total, self._key)[0].values


def _divide(job: Job, apart: Collection[int]) -> list[Job]:
    """Divides a job: a piece for each ticket that is computed apart, and aligned blocks of the others."""
    if not job.folded:
        return [job]
    places, held = job.places, {position for position, task in job.places if task.ticket in apart}
    pieces, at, begins = list[Job](), 0, job.begins
    while at < len(places):
        position, height = places[at][0], 0
        while position not in held and height < BLOCK_HEIGHT:
            first = position >> (height + 1) << (height + 1)
            if first < begins or held.intersection(range(first, first + (2 << height))):
                break
            height += 1
        first = position >> height << height
        end = at + 1
        while end < len(places) and places[end][0] < first + (1 << height):
            end += 1
        pieces.append(replace(job, places=places[at:end], begins=first))
        at, begins = end, first + (1 << height)
    return pieces


def _is_in(piece: Job, apart: Collection[int]) -> bool:
    """Returns whether a piece is the ticket of one that is computed apart."""
    return len(piece.places) == 1 and piece.places[0][1].ticket in apart


def _make_answer(piece: Job, result: Message | Declined, fork: Fork, by: str) -> Answer:
    """Returns the answer to a piece of one ticket."""
    ((position, task),) = piece.places
    if not piece.folded:
        sent = result if isinstance(result, Declined) else pack(result)
        return Answer(piece, sent, () if isinstance(result, Declined) else (fork,), by)
    folding = Folding(piece.payload)
    if isinstance(result, Declined):
        folding.refuse(task, explain_decline(result))
    else:
        folding.add(position, task, result)
    return Answer(piece, folding.block(), (fork,), by)
