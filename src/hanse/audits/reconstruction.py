"""Reconstruction: rows that are read off what clients send, beside the guess of a mean row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any, TypeAlias

import numpy as np

from hanse.audits.messages import FirstMessages
from hanse.audits.subject import Section, Subject, Tell
from hanse.core import Array, Examples, HanseError, Part, Tensors, mean, reduce, scale
from hanse.evaluation import as_percent
from hanse.leakage import (
    Inversion,
    NotMeasured,
    Prior,
    find_likeliest_row,
    invert,
    match_rows,
    measure_psnr,
    measure_ssim,
    read_label,
)

__all__ = ["Judge", "audit_reconstruction"]

_Read: TypeAlias = tuple[Sequence[Array], Sequence[Examples], Sequence[int | None]]
"""Rows that were read, the rows that they were read of, and labels that were read; empty: none."""

TITLE = "What is read off a message? Rows of clients"

NUM_VICTIMS = 8
"""The number of clients whose messages are attacked, or all of them."""

LEAST_CONTROL_DB = 10.0
"""The least gain of a positive control."""

SMALLEST_PICTURE = 6
"""The least height and width of rows that are taken for pictures."""

NUM_INVERTED, INVERTED_ROWS, MOST_STEPS = 1, 3, 20
"""An inversion is tried on so many messages, of so many rows each, after at most so many local steps."""

MOST_FELLOWS = 10
"""The most clients in the round that a fellow client watches."""

MOST_INVERTED = 8
"""The most rows in a sum that an inversion is tried on."""

CONTROL = "control: no protection, one row"

SERVER, FELLOW, OUTSIDER, HOLDER = "server", "fellow client", "outsider", "key holder"


def audit_reconstruction(subject: Subject, tell: Tell) -> Section:
    """Reads rows off the first messages of clients, as the server and others see them."""
    attack = _Attack(subject)
    unsorted = {one.name: one for one in attack.attack_parties(tell)}  # attacks may share a control
    found = sorted(unsorted.values(), key=lambda one: not one.party)
    shown = [one for one in found if one.missing is None]
    parties = {one.party for one in found if one.party}
    unseen = parties - {one.party for one in shown}
    if SERVER in unseen:
        raise NotMeasured(next(one.missing or "" for one in found if one.party == SERVER))
    seen = [one for one in shown if one.party]
    about = (
        f"{len(attack.victims)} clients train from the first model and send the result through the chain as "
        "configured; everything public is undone first. The first layer of the model is a row times weights, "
        "so one row stands in its update (Phong et al. 2018), and the label in that of the last (iDLG). "
        "Several rows are searched by descent (Geiping et al. 2020), by an attacker who knows their labels. "
        "A fellow client subtracts its own message from the difference of two models, and knows the "
        "server's rule. The gain is over guessing the mean of the public rows, which gives "
        f"{attack.judge.guess_db(attack.victims):.1f} dB for single rows. One row is the worst case: many "
        "rows hide each other in a mean. Each attack has a control, without any protection; one whose "
        f"control gains less than {LEAST_CONTROL_DB:g} dB measures nothing."
    )
    gains = {} if unseen else {"gain_db": max(one.gain for one in seen)}
    return Section(
        TITLE,
        about,
        ("who reads what", "PSNR", "SSIM", "gain", "labels"),
        [one.to_row() for one in found],
        gains,
        pictures=attack.judge.draw_pictures(seen),
        records=attack.judge.list_records(seen),
        details={one.name: one.to_details() for one in found},
    )


@dataclass(frozen=True)
class Reading:
    """The rows that one party reads.

    Args:
      party: who reads it; empty: it is a control.
      rows, originals: what is read, and what was sent.
      missing: why nothing was measured; None: it was.
    """

    name: str
    party: str
    rows: Sequence[Array] = ()
    originals: Sequence[Array] = ()
    psnr: float = 0.0
    ssim: float | None = None
    gain: float = 0.0
    labels: float | None = None
    missing: str | None = None

    def to_row(self) -> tuple[str, ...]:
        """Returns a row of the table."""
        if self.missing is not None:
            return f"{self.name}: {self.missing}", "not measured", "-", "-", "-"
        ssim = "-" if self.ssim is None else f"{self.ssim:.2f}"
        labels = "-" if self.labels is None else as_percent(self.labels)
        return self.name, f"{self.psnr:.1f} dB", ssim, f"{self.gain:+.1f} dB", labels

    def to_details(self) -> Mapping[str, Any]:
        """Returns the numbers as plain data."""
        if self.missing is not None:
            return {"missing": self.missing}
        return {"psnr": self.psnr, "gain_db": self.gain, "labels": self.labels}


class Judge:
    """Compares what is read with what was sent, and with the mean of public rows.

    Raises: NotMeasured: if there are no public rows.
    """

    def __init__(self, subject: Subject) -> None:
        people = subject.ready.population
        if people.test is None or len(people.test) < 2:
            raise NotMeasured("the guess of a mean row needs public rows, and there are no test rows")
        self.public = people.test
        rows = np.asarray(people.test.x, np.float64).reshape(len(people.test), -1)
        self.guess, self._span = rows.mean(axis=0), float(rows.max() - rows.min()) or 1.0
        self._low, self._high = rows.min(axis=0), rows.max(axis=0)
        shape = people.feature_shape
        side = isqrt(prod(shape))
        if len(shape) == 1 and side * side == shape[0] and subject.ready.encoder is None:
            shape = (side, side)
        is_picture = len(shape) == 2 and min(shape) >= SMALLEST_PICTURE
        self._shape = (shape[0], shape[1]) if is_picture else None

    def flatten(self, own: Examples) -> Array:
        """Returns rows as vectors of numbers, (n, d)."""
        return np.asarray(own.x, np.float64).reshape(len(own), -1)

    def guess_db(self, victims: Sequence[Examples]) -> float:
        """Returns the PSNR of guessing the mean row for each row."""
        rows = np.concatenate([self.flatten(own) for own in victims])
        return self.measure([self.guess] * len(rows), list(rows))

    def measure(self, rows: Sequence[Array], originals: Sequence[Array]) -> float:
        """Returns the mean PSNR over rows."""
        pairs = zip(rows, originals, strict=True)
        return float(np.mean([measure_psnr(self.clip(a), b, self._span) for a, b in pairs]))

    def clip(self, row: Array) -> Array:
        """Returns a row within the bounds of public rows."""
        return np.clip(row, self._low, self._high)

    def judge(
        self,
        name: str,
        party: str,
        rows: Sequence[Array],
        victims: Sequence[Examples],
        labels: Sequence[int | None] = (),
    ) -> Reading:
        """Compares rows that were read, in the order of the victims' rows, with these."""
        clipped = [self.clip(row) for row in rows]
        originals = list(np.concatenate([self.flatten(own) for own in victims]))
        shape, ssim, right = self._shape, None, None
        if shape is not None:
            pairs = zip(clipped, originals, strict=True)
            alike = [measure_ssim(a.reshape(shape), b.reshape(shape), self._span) for a, b in pairs]
            ssim = float(np.mean(alike))
        if labels and all(label is not None for label in labels):
            right = float(np.mean([int(own.y[0]) == y for own, y in zip(victims, labels, strict=True)]))
        psnr = self.measure(clipped, originals)
        gain = psnr - self.guess_db(victims)
        return Reading(name, party, clipped, originals, psnr, ssim, gain, right)

    def draw_pictures(self, seen: Sequence[Reading]) -> Mapping[str, Sequence[Array]]:
        """Returns what each party reads under the originals, as pictures of numbers from 0 to 1."""
        found, last = dict[str, Sequence[Array]](), None
        if self._shape is None:
            return found
        for one in seen:
            rows = one.originals[:NUM_VICTIMS]
            if last is None or not np.array_equal(rows, last):
                note = f"the originals of: {one.name}" if found else "the originals"
                found[note], last = self._draw(rows), rows
            found[one.name] = self._draw(one.rows[:NUM_VICTIMS])
        return found

    def _draw(self, rows: Sequence[Array]) -> Sequence[Array]:
        low, shape = float(self._low.min()), self._shape
        return [np.clip((row.reshape(shape) - low) / self._span, 0, 1) for row in rows]

    def list_records(self, seen: Sequence[Reading]) -> Sequence[tuple[str, Array]]:
        """Lists the first row of each reading, its original first, where rows are no pictures."""
        if self._shape is not None:
            return ()
        found, last = list[tuple[str, Array]](), None
        for one in seen:
            if last is None or not np.array_equal(one.originals[0], last):
                last = one.originals[0]
                found.append(("the original", last))
            found.append((one.name, one.rows[0]))
        return found


def _average(sent: Sequence[Tensors]) -> Tensors:
    """Returns the mean of clients' messages, without the noise of the server."""
    return reduce(mean(), [Part(one) for one in sent]).values


class _Attack:
    """The clients that are attacked, and what the attacker knows."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._messages = subject, FirstMessages(subject)
        self.judge = Judge(subject)
        self._people = subject.ready.population
        count = min(NUM_VICTIMS, self._people.num_clients)
        self.victims = [self._take(i) for i in range(count)]

    def _take(self, i: int, num: int = 1) -> Examples:
        own = self._people.client(i % self._people.num_clients)
        return own.take(np.arange(min(num, len(own))))

    def attack_parties(self, tell: Tell) -> Iterator[Reading]:
        """Yields what each party reads, and each attack's control."""
        messages, total = self._messages, 4
        into, num = messages.into, max(2, messages.into.fewest)
        if into.hides:
            said = f"{num} clients, one row each"
            yield from self._try(SERVER, f"server: a sum of {said}", self._read_sums, CONTROL)
            if into.parties:
                name = f"key holder: a sum of {said}, which it decrypts"
                yield from self._try(HOLDER, name, self._read_sums, CONTROL)
        else:
            yield from self._try(SERVER, "server: a client's message, one row", self._read_each, CONTROL)
            tell(1, total)
            if self._has_prior():
                name = "server: the same, with a prior"
                yield from self._try(SERVER, name, self._read_with_prior, f"{CONTROL}, with a prior")
        tell(2, total)
        size = min(INVERTED_ROWS, *(len(self._people.client(i)) for i in range(NUM_INVERTED)))
        if into.hides:
            name = f"server: the same sum, by descent, {num} rows"
            yield from self._try(SERVER, name, self._invert_sums, f"control: no protection, {num} rows")
        elif size > 1:
            name = f"server: a client's message, {size} rows, by descent"
            yield from self._try(SERVER, name, self._invert_each, f"control: no protection, {size} rows")
        tell(3, total)
        name = f"fellow client: two models of {self._count_fellows()} clients, one row each"
        control = "control: two models of 2 clients, no protection"
        yield from self._try(FELLOW, name, self._read_as_fellow, control)
        tell(4, total)
        guesses = [self.judge.guess] * len(self.victims)
        yield self.judge.judge("outsider: encrypted traffic", OUTSIDER, guesses, self.victims)

    def _try(self, party: str, name: str, read: Callable[[bool], _Read], control: str) -> Iterator[Reading]:
        """Yields an attack's control and what the attack reads, which is missing if the control fails."""
        try:
            proof = self.judge.judge(control, "", *read(True))
            if proof.gain < LEAST_CONTROL_DB:
                raise NotMeasured(
                    f"without any protection the attack gains only {proof.gain:.1f} dB, so that it would not "
                    "find what another attack finds"
                )
            yield self.judge.judge(name, party, *read(False))
            yield proof
        except HanseError as error:
            yield Reading(name, party, missing=str(error))

    def _read_each(self, bare: bool) -> _Read:
        """Reads each victim's row off its own message."""
        sent = self._see_each(bare)
        rows = [self._messages.layer.read(one) for one in sent]
        return rows, self.victims, [self._label(one) for one in sent]

    def _see_each(self, bare: bool) -> Sequence[Tensors]:
        messages = self._messages
        return [scale(messages.see(own, i, bare=bare), messages.sign) for i, own in enumerate(self.victims)]

    def _label(self, gradient: Tensors) -> int | None:
        classes = self._people.num_classes
        last = [name for name, tensor in gradient.items() if np.shape(tensor) == (classes,)]
        return read_label(np.asarray(gradient[last[-1]])) if last else None

    def _has_prior(self) -> bool:
        """Returns whether the model is softmax regression, which the attack with a prior is for."""
        params = self._messages.params
        is_linear = params.keys() == {"weights", "bias"} and np.ndim(params["weights"]) == 2
        return self._people.num_classes is not None and is_linear

    def _read_with_prior(self, bare: bool) -> _Read:
        """Reads rows with a Gaussian model of public rows."""
        prior = Prior.fit(self.judge.public, self._people.num_classes or 0)
        found = [find_likeliest_row(one, self._messages.params, prior) for one in self._see_each(bare)]
        labels = [None if one.y is None else int(one.y[0]) for one in found]
        return [one.x.reshape(-1) for one in found], self.victims, labels

    def _read_sums(self, bare: bool) -> _Read:
        """Reads one row off a sum of several clients' messages, for each victim among others."""
        if bare:
            return self._read_each(True)
        num = max(2, self._messages.into.fewest)
        sent = [self._messages.see(self._take(i), i) for i in range(len(self.victims) + num - 1)]
        rows = [self._messages.layer.read(_average(sent[i : i + num])) for i in range(len(self.victims))]
        return rows, self.victims, ()

    def _invert_sums(self, bare: bool) -> _Read:
        """Searches the rows in a sum of several clients, of one row each; for the control, of one client."""
        num = max(2, self._messages.into.fewest)
        if num > MOST_INVERTED:
            raise NotMeasured(f"an inversion of {num} rows takes too long; at most {MOST_INVERTED} are tried")
        people = [self._take(i) for i in range(num)]
        whole = Examples(np.concatenate([own.x for own in people]), np.concatenate([own.y for own in people]))
        if bare:
            sent = self._messages.see(whole, 0, bare=True)
        else:
            sent = _average([self._messages.see(own, i) for i, own in enumerate(people)])
        return self._invert(sent, whole), [whole], ()

    def _invert_each(self, bare: bool) -> _Read:
        """Searches all rows of a client, for a few clients of few rows."""
        people = [self._take(i, INVERTED_ROWS) for i in range(min(NUM_INVERTED, self._people.num_clients))]
        rows = list[Array]()
        for i, own in enumerate(people):
            rows += self._invert(self._messages.see(own, i, bare=bare), own)
        return rows, people, ()

    def _invert(self, sent: Tensors, own: Examples) -> Sequence[Array]:
        """Searches the rows of a message, and returns them in the order of the originals."""
        steps, num_steps = self._messages.steps, 0
        if steps is not None:
            if steps.batch_size is not None and steps.batch_size < len(own):
                raise NotMeasured(
                    f"the batch size is {steps.batch_size}, and an inversion repeats steps on {len(own)} rows"
                )
            num_steps = steps.num_steps or steps.epochs
            if num_steps > MOST_STEPS:
                raise NotMeasured(f"clients take {num_steps} steps; at most {MOST_STEPS} are repeated")
        if self._people.num_classes is None:
            raise NotMeasured("an inversion is tried for models of classes only")
        settings = Inversion(
            distance="cosine",  # clipping shortens a message
            lr=None if steps is None else steps.lr,
            num_steps=num_steps,
            num_restarts=1,
            num_iterations=100,
        )
        found = invert(
            sent,
            self._messages.params,
            self._people.feature_shape,
            len(own),
            key=self._subject.key.fold_in("inversion"),
            labels=own.y,
            mean=self.judge.guess,
            settings=settings,
        )
        rows = found.x.reshape(len(own), -1)
        return list(rows[match_rows(np.stack([self.judge.clip(x) for x in rows]), self.judge.flatten(own))])

    def _count_fellows(self) -> int:
        """Returns the number of clients of a round, itself included, that a fellow client watches."""
        own: Any = self._subject.ready.experiment.algorithm
        share = getattr(own, "fraction", None) or getattr(own, "sampling_rate", None) or 1.0
        return min(MOST_FELLOWS, max(2, round(share * self._people.num_clients)))

    def _read_as_fellow(self, bare: bool) -> _Read:
        """Reads one row off the mean of the others, for each victim among others."""
        num, rows = 2 if bare else self._count_fellows(), list[Array]()
        for i in range(len(self.victims)):
            people = [self._take(i + num - 1 - j) for j in range(num)]  # the victim is the last
            rows.append(self._messages.layer.read(self._messages.see_as_fellow(people, i, bare=bare)))
        return rows, self.victims, ()
