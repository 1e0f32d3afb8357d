"""The audit of a recorded run: real messages are attacked afterwards, from what the server has kept."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hanse.audits.judging import (
    FELLOW,
    MOST_INVERTED,
    SERVER,
    Judge,
    Read,
    conclude,
    find_picture_shape,
    read_last_label,
    search_rows,
)
from hanse.audits.messages import Messages, find_part
from hanse.audits.session import AuditResult, check_claims
from hanse.audits.subject import Section, Tell
from hanse.config import AuditPlan, summary
from hanse.core import Array, Examples, HanseError, InvalidInput, Key, Tensors, dot, scale, subtract
from hanse.core.exchange import digest
from hanse.evaluation import as_percent
from hanse.leakage import NotMeasured, Overheard, observe, read_recorded_plan, read_recording, subtract_own
from hanse.runs import Parties, read_examples

__all__ = ["audit_recording"]

VIEWS = "Who saw what?"
STRUCTURE = "What do the messages tell by themselves?"
ROWS = "What is read of one party? Its rows beside the originals"

ONE_ROW = 0.999
"""A message is of one row, or of rows of one label, if so much of it is in one direction."""

MOST_SHOWN, MOST_TRIED = 24, 50
"""The most messages that are listed, and the most messages of one party that are attacked."""

LEAST_LIKE = 0.999
"""The least part of the difference of two models that the mean of the messages explains."""


def audit_recording(
    folder: str | Path,
    plan: AuditPlan = AuditPlan(),
    *,
    data: str | None = None,
    party: int | None = None,
    tell: Tell = lambda done, total: None,
) -> AuditResult:
    """Attacks the messages of a real run, which `hanse serve --record FOLDER` has kept.

    A recording holds no originals, so that it alone shows how many rows stand in a message, their labels, and
    what is read of them. With the file of one party, the gain over a guess is measured, too.

    Args:
      plan: the claims; only `max_gain_db` can be measured here, and only with originals.
      data: the file of one party, as it was given to `hanse join --data`.
      party: the number of that party in the run.

    Raises: InvalidInput: if there is no recording, or the file does not suit the run.
    """
    if (data is None) != (party is None):
        raise InvalidInput(
            "the file of a party and its number belong together; write --data FILE --party NUMBER, or neither"
        )
    recorded = _Recorded(folder)
    own = None if data is None else recorded.read_originals(data)
    sections = {"views": _list_views(recorded), "structure": _try(STRUCTURE, lambda: _describe(recorded))}
    tell(1, 3)
    sections["reconstruction"] = _try(ROWS, lambda: _attack_party(recorded, own, party, plan))
    tell(3, 3)
    settings: Mapping[str, Any] = json.loads(recorded.plan.settings) if recorded.plan else {}
    about = summary(settings) if "algorithm" in settings and "data" in settings else "settings not recorded"
    sha256 = "none were given" if own is None else digest({"x": own.x, "y": own.y})
    rounds = sorted({answer.round for answer in recorded.answers})
    intro = (
        f"These are messages of real clients: {len(recorded.answers)} answers of rounds {rounds[0]} to "
        f"{rounds[-1]}, recorded by their server. What was recorded can be read by everybody who has the "
        "folder. These attacks find what they find; others may find more."
    )
    return AuditResult(about, settings, sections, check_claims(plan, sections), sha256, intro)


def _try(title: str, measure: Any) -> Section:
    try:
        found: Section = measure()
    except HanseError as error:
        return Section(title, missing=str(error))
    return found


class _Recorded:
    """The answers of a run to those exchanges that ask for something of the form of the model."""

    def __init__(self, folder: str | Path) -> None:
        self.answers = read_recording(folder)
        self.plan = read_recorded_plan(folder)
        self.why, self.trained = "the run asked for nothing of the form of a model", list[Overheard]()
        for answer in self.answers:
            try:
                params = answer.payload.shared.get("params")
                if params is None:
                    raise NotMeasured("the model was not sent whole, but as a change of an older one")
                find_part(answer.payload, params)
                self.trained.append(answer)
            except NotMeasured as error:
                self.why = str(error)

    @cached_property
    def messages(self) -> "tuple[_Seen, ...]":
        """The messages that ask for training, opened as the server opens them."""
        if not self.trained:
            raise NotMeasured(self.why)
        return tuple(_Seen(answer, self) for answer in self.trained)

    def bind(self) -> Any:
        """Binds the model of the run. Raises: NotMeasured: if the recording names none."""
        if self.plan is None:
            raise NotMeasured(
                "the recording holds no plan of the run, so its model can't be made; record again"
            )
        return self.plan.model.bind(tuple(self.plan.feature_shape), self.plan.num_classes)

    def read_originals(self, path: str) -> Examples:
        """Reads the file of a party. Raises: InvalidInput: if it does not suit the run."""
        if self.plan is None:
            raise InvalidInput(
                "the recording is older and names no model; a party's file can't be read for it"
            )
        return read_examples(path, Parties().wanted(self.plan))

    @property
    def num_features(self) -> int | None:
        """The number of features of a row, if the recording tells it."""
        return None if self.plan is None else int(np.prod(self.plan.feature_shape))

    @property
    def num_classes(self) -> int | None:
        """The number of classes, if the recording tells it."""
        return None if self.plan is None else self.plan.num_classes

    @property
    def picture_shape(self) -> tuple[int, int] | None:
        """The height and width of rows that are pictures."""
        if self.plan is None:
            return None
        return find_picture_shape(tuple(self.plan.feature_shape), is_encoded=self.plan.encoder is not None)

    def find_next_model(self, seen: "_Seen") -> Tensors:
        """Finds the model after a round. Raises: NotMeasured: if it was not sent."""
        later = [other for other in self.messages if other.answer.round > seen.answer.round]
        if not later:
            raise NotMeasured("no later model was recorded")
        return later[0].messages.params


@dataclass(frozen=True)
class _Seen:
    """A recorded message, and what it answers."""

    answer: Overheard
    recorded: _Recorded

    @cached_property
    def messages(self) -> Messages:
        """The exchange that it answers, which may be asked again."""
        payload, recorded = self.answer.payload, self.recorded
        params = payload.shared["params"]
        into = payload.uplink[find_part(payload, params)].into
        learner = None if recorded.plan is None else recorded.bind()
        key = Key.from_seed(0).fold_in("recorded")
        return Messages(payload, params, recorded.num_features, into, key, learner)

    @property
    def sent(self) -> Tensors | None:
        """The message as the server reads it, of the sign of a gradient; None: only sums are seen."""
        part = observe(self.answer).parts.get(self.messages.part)
        return None if part is None else scale(part.values, self.messages.sign)

    @property
    def weight(self) -> float | None:
        """The weight that the client has said."""
        part = observe(self.answer).parts.get(self.messages.part)
        return None if part is None else part.weight


def _list_views(recorded: _Recorded) -> Section:
    """Lists what each party saw of one answer of each kind."""
    rows = dict[tuple[str, ...], None]()
    for answer in recorded.answers:
        for observer in ("server", "key holder", "fellow client", "outsider"):
            try:
                said = observe(answer, observer).describe()
            except InvalidInput:
                continue  # there is no key holder
            who, what = said.removeprefix("the ").split(" sees ", 1)
            name = type(answer.payload.work).__name__
            known = [cells for cells in rows if cells[:2] == (name, who)]
            if not known:
                rows[name, who, what] = None
    about = (
        "By the messages themselves: for each kind of work that clients did, what a party saw of a client."
    )
    return Section(VIEWS, about, ("work", "who", "sees"), [tuple(cells) for cells in rows])


def _describe(recorded: _Recorded) -> Section:
    """Says of each message how much of it is one row, and which label it has then."""
    rows, records, pictures = list[tuple[str, ...]](), list[tuple[str, Array]](), list[Array]()
    singles = total = 0
    shape = recorded.picture_shape
    for seen in recorded.messages:
        sent = seen.sent
        if sent is None:
            continue
        total += 1
        share = seen.messages.layer.measure_share(sent)
        is_single = share is not None and share >= ONE_ROW
        singles += is_single
        label = read_last_label(sent, recorded.num_classes) if is_single else None
        if len(rows) < MOST_SHOWN:
            weight = "-" if seen.weight is None else f"{seen.weight:g}"
            name = f"round {seen.answer.round}, party {seen.answer.task.party}"
            told = "can't tell" if share is None else "one row, or one label" if is_single else "several rows"
            portion = "-" if share is None else as_percent(share)
            rows.append((name, weight, portion, told, "-" if label is None else _name(recorded, label)))
            row = seen.messages.layer.read(sent)
            if shape is None:
                records.append((name, row))
            else:
                low, high = float(row.min()), float(row.max())
                pictures.append((row.reshape(shape) - low) / ((high - low) or 1.0))
    if not total:
        fewest = recorded.messages[0].messages.into.fewest
        raise NotMeasured(
            f"the server saw no message of a single client: they entered sums of {fewest or 'several'} "
            "clients or more, and a recording holds no sums"
        )
    about = (
        f"{total} messages are opened as the server opens them; {singles} of them are one row times numbers. "
        "Such a message is of a single row, which is then read exactly, with its label, or of several rows "
        "of one label, of which a mean is read. The share says how much of the first layer's part is one row "
        "times numbers. "
        "Whether what is read is true can't be judged from a recording: it holds no originals. Name the file "
        "of a party (--data FILE --party NUMBER) to measure gains. "
        f"{f'The first {MOST_SHOWN} are listed. ' if total > MOST_SHOWN else ''}The weight is what the "
        "client said; it is often the number of its rows."
    )
    heads = ("message", "weight", "share of one row", "shows", "label")
    return Section(
        STRUCTURE,
        about,
        heads,
        rows,
        pictures={"read off each message, from its least number (white) to its largest": pictures}
        if pictures
        else {},
        records=records,
        details={"messages": total, "one_direction": singles},
        is_private=True,
    )


def _name(recorded: _Recorded, label: int) -> str:
    classes = () if recorded.plan is None else recorded.plan.classes
    return str(classes[label]) if classes else str(label)


def _attack_party(recorded: _Recorded, own: Examples | None, party: int | None, plan: AuditPlan) -> Section:
    """Compares what is read of one party with its originals."""
    if own is None:
        raise NotMeasured(
            "a recording holds no originals to compare with; write --data FILE --party NUMBER for the file "
            "and the number of one party"
        )
    tried = [seen for seen in recorded.messages if seen.answer.task.party == party][:MOST_TRIED]
    if not tried:
        raise InvalidInput(
            f"party {party} has sent nothing that was recorded; these have: "
            f"{sorted({str(seen.answer.task.party) for seen in recorded.messages})}"
        )
    attack = _Attack(recorded, own, tried, plan)
    found = list({one.name: one for one in attack.attack_parties()}.values())
    about = (
        f"{len(tried)} messages of party {party} are read, and each reading is compared with the row of the "
        f"party's file that is nearest to it; the best one counts. The file holds {len(own):,} rows. The "
        "gain is over guessing their mean, a better guess than that of public rows. Each attack has a "
        "control: the same client asked again, without any protection, with one row of its own. Rows are "
        "shown with --show-rows only."
    )
    return conclude(ROWS, about, found, attack.judge, is_private=True)


class _Attack:
    """The messages of one party, and its originals."""

    def __init__(self, recorded: _Recorded, own: Examples, tried: Sequence[_Seen], plan: AuditPlan) -> None:
        self._recorded, self._own, self._tried, self._plan = recorded, own, tried, plan
        is_encoded = recorded.plan is not None and recorded.plan.encoder is not None
        self.judge = Judge(own, own.x.shape[1:], is_encoded=is_encoded)
        self._flat = self.judge.flatten(own)

    def attack_parties(self) -> Any:
        """Yields what each party reads of the one, and each attack's control."""
        control = "control: one row of the party, no protection"
        if self._tried[0].sent is None:
            yield from self.judge.try_attack(
                SERVER, "server: a sum, from two models", self._read_sums, control
            )
        else:
            yield from self.judge.try_attack(SERVER, "server: the party's messages", self._read_each, control)
            name = f"server: the first message by descent, {len(self._own)} rows"
            control_of_many = f"control: no protection, {len(self._own)} rows"
            if len(self._own) > 1:
                yield from self.judge.try_attack(SERVER, name, self._invert, control_of_many)
        yield from self.judge.try_attack(
            FELLOW, "fellow client: two models, less its own message", self._read_as_fellow, control
        )

    def _ask_one(self) -> Read:
        """Asks the party again, with its first row, without any protection."""
        one, first = self._own.take(np.array([0])), self._tried[0].messages
        return [first.layer.read(first.see(one, 0, bare=True))], [one], ()

    def _choose_best(self, rows: Sequence[Array], labels: Sequence[int | None] = ()) -> Read:
        """Chooses the row that is most like an original, by what it gains."""
        if not rows:
            raise NotMeasured("no message could be read")
        nearest = [int(((self._flat - self.judge.clip(row)) ** 2).sum(axis=1).argmin()) for row in rows]
        gains = [
            self.judge.judge("", "", [row], [self._own.take(np.array([i]))]).gain
            for row, i in zip(rows, nearest, strict=True)
        ]
        best = int(np.argmax(gains))
        label = [labels[best]] if labels else []
        return [rows[best]], [self._own.take(np.array([nearest[best]]))], label

    def _read_each(self, bare: bool) -> Read:
        """Reads a row off each message of the party."""
        if bare:
            return self._ask_one()
        rows, labels = list[Array](), list[int | None]()
        for seen in self._tried:
            sent = seen.sent
            if sent is not None:
                rows.append(seen.messages.layer.read(sent))
                labels.append(read_last_label(sent, self._recorded.num_classes))
        return self._choose_best(rows, labels)

    def _invert(self, bare: bool) -> Read:
        """Searches all rows of the party in its first message."""
        first, own = self._tried[0], self._own
        if len(own) > MOST_INVERTED:
            raise NotMeasured(
                f"an inversion of {len(own)} rows takes too long; at most {MOST_INVERTED} are tried"
            )
        sent = first.messages.see(own, 0, bare=True) if bare else first.sent
        if sent is None:
            raise NotMeasured("only sums are seen")
        if not bare:
            sent = scale(sent, first.messages.sign)  # as it was sent
        key = Key.from_seed(0).fold_in("inversion")
        return search_rows(first.messages, sent, own, self.judge, self._plan, key), [own], ()

    def _read_sums(self, bare: bool) -> Read:
        """Reads a row off the difference of two models, which is a multiple of the sum."""
        if bare:
            return self._ask_one()
        rows = list[Array]()
        for seen in self._tried[:-1]:
            before, after = seen.messages.params, self._recorded.find_next_model(seen)
            rows.append(seen.messages.layer.read(subtract(after, before)))
        return self._choose_best(rows)

    def _read_as_fellow(self, bare: bool) -> Read:
        """Reads what each other client finds of the rest, from two models less its own message."""
        if bare:
            return self._ask_one()
        by_round = defaultdict[int, list[_Seen]](list)
        for seen in self._recorded.messages:
            by_round[seen.answer.round].append(seen)
        rows = list[Array]()
        for victim in self._tried[:-1]:
            all_sent = {seen.answer.task.party: seen.sent for seen in by_round[victim.answer.round]}
            for fellow, own in all_sent.items():
                if fellow != victim.answer.task.party:
                    rows.append(self._subtract(victim, own, [one for one in all_sent.values() if one]))
        if not rows:
            raise NotMeasured("no round of the party has a fellow client and a later model")
        return self._choose_best(rows)

    def _subtract(self, victim: _Seen, own: Tensors | None, sent: Sequence[Tensors]) -> Array:
        if own is None:
            raise NotMeasured("a recording holds no message of a fellow client, only that it entered a sum")
        before, after = victim.messages.params, self._recorded.find_next_model(victim)
        step, zero = subtract(after, before), scale(own, 0.0)
        middle = zero
        for one in sent:
            middle = subtract(middle, scale(one, -1 / len(sent)))
        stretch = dot(step, middle) / max(dot(middle, middle), 1e-300)
        explained = stretch * dot(step, middle) / max(dot(step, step), 1e-300)
        if explained < LEAST_LIKE:
            raise NotMeasured(
                "the server's step is no multiple of the plain mean of the messages, so that a fellow client "
                "would have to know its rule"
            )
        mixture = subtract_own(zero, scale(step, 1 / stretch), own, len(sent))
        return victim.messages.layer.read(mixture)
