"""Reconstruction: rows that are read off what clients send, beside the guess of a mean row."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hanse.audits.judging import (
    FELLOW,
    HOLDER,
    LEAST_CONTROL_DB,
    MOST_INVERTED,
    NUM_VICTIMS,
    OUTSIDER,
    SERVER,
    Judge,
    Read,
    Reading,
    conclude,
    read_last_label,
    search_rows,
)
from hanse.audits.messages import Messages
from hanse.audits.subject import Section, Subject, Tell
from hanse.core import Array, Examples, Part, Tensors, mean, reduce, scale
from hanse.leakage import NotMeasured, Prior, find_likeliest_row

__all__ = ["audit_reconstruction"]

TITLE = "What is read off a message? Rows of clients"

NUM_INVERTED, INVERTED_ROWS = 1, 3
"""An inversion is tried on so many messages, of so many rows each."""

MOST_FELLOWS = 10
"""The most clients in the round that a fellow client watches."""

CONTROL = "control: no protection, one row"


def audit_reconstruction(subject: Subject, tell: Tell) -> Section:
    """Reads rows off the first messages of clients, as the server and others see them."""
    attack = _Attack(subject, tell)
    found = list({one.name: one for one in attack.attack_parties()}.values())  # some share a control
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
    return conclude(TITLE, about, found, attack.judge)


def _average(sent: Sequence[Tensors]) -> Tensors:
    """Returns the mean of clients' messages, without the noise of the server."""
    return reduce(mean(), [Part(one) for one in sent]).values


class _Attack:
    """The clients that are attacked, and what the attacker knows."""

    def __init__(self, subject: Subject, tell: Tell) -> None:
        self._subject, self._people = subject, subject.ready.population
        self._tell, self._done = tell, 0
        self._messages = Messages.of_first_round(subject)
        shape = self._people.feature_shape
        self.judge = Judge(self._people.test, shape, is_encoded=subject.ready.encoder is not None)
        count = min(NUM_VICTIMS, self._people.num_clients)
        self.victims = [self._take(i) for i in range(count)]

    def _take(self, i: int, num: int = 1) -> Examples:
        own = self._people.client(i % self._people.num_clients)
        return own.take(np.arange(min(num, len(own))))

    def _step(self) -> None:
        """Tells that one attack, or one search of an inversion or of its control, is done."""
        self._done += 1
        self._tell(self._done, 4 + 2 * NUM_INVERTED * self._subject.plan.num_restarts)

    def attack_parties(self) -> Iterator[Reading]:
        """Yields what each party reads, and each attack's control."""
        into, num = self._messages.into, max(2, self._messages.into.fewest)
        attack = self.judge.try_attack
        if into.hides:
            said = f"{num} clients, one row each"
            yield from attack(SERVER, f"server: a sum of {said}", self._read_sums, CONTROL)
            if into.parties:
                name = f"key holder: a sum of {said}, which it decrypts"
                yield from attack(HOLDER, name, self._read_sums, CONTROL)
        else:
            yield from attack(SERVER, "server: a client's message, one row", self._read_each, CONTROL)
            self._step()
            if self._has_prior():
                name = "server: the same, with a prior"
                yield from attack(SERVER, name, self._read_with_prior, f"{CONTROL}, with a prior")
        self._step()
        size = min(INVERTED_ROWS, *(len(self._people.client(i)) for i in range(NUM_INVERTED)))
        if into.hides:
            name = f"server: the same sum, by descent, {num} rows"
            yield from attack(SERVER, name, self._invert_sums, f"control: no protection, {num} rows")
        elif size > 1:
            name = f"server: a client's message, {size} rows, by descent"
            yield from attack(SERVER, name, self._invert_each, f"control: no protection, {size} rows")
        self._step()
        name = f"fellow client: two models of {self._count_fellows()} clients, one row each"
        control = "control: two models of 2 clients, no protection"
        yield from attack(FELLOW, name, self._read_as_fellow, control)
        self._step()
        guesses = [self.judge.guess] * len(self.victims)
        yield self.judge.judge("outsider: encrypted traffic", OUTSIDER, guesses, self.victims)

    def _read_each(self, bare: bool) -> Read:
        """Reads each victim's row off its own message."""
        sent = self._see_each(bare)
        rows = [self._messages.layer.read(one) for one in sent]
        return rows, self.victims, [read_last_label(one, self._people.num_classes) for one in sent]

    def _see_each(self, bare: bool) -> Sequence[Tensors]:
        messages = self._messages
        return [scale(messages.see(own, i, bare=bare), messages.sign) for i, own in enumerate(self.victims)]

    def _has_prior(self) -> bool:
        """Returns whether the model is softmax regression, which the attack with a prior is for."""
        params = self._messages.params
        is_linear = params.keys() == {"weights", "bias"} and np.ndim(params["weights"]) == 2
        return self._people.num_classes is not None and is_linear

    def _read_with_prior(self, bare: bool) -> Read:
        """Reads rows with a Gaussian model of public rows."""
        prior = Prior.fit(self.judge.public, self._people.num_classes or 0)
        found = [find_likeliest_row(one, self._messages.params, prior) for one in self._see_each(bare)]
        labels = [None if one.y is None else int(one.y[0]) for one in found]
        return [one.x.reshape(-1) for one in found], self.victims, labels

    def _read_sums(self, bare: bool) -> Read:
        """Reads one row off a sum of several clients' messages, for each victim among others."""
        if bare:
            return self._read_each(True)
        num = max(2, self._messages.into.fewest)
        sent = [self._messages.see(self._take(i), i) for i in range(len(self.victims) + num - 1)]
        rows = [self._messages.layer.read(_average(sent[i : i + num])) for i in range(len(self.victims))]
        return rows, self.victims, ()

    def _invert_sums(self, bare: bool) -> Read:
        """Searches the rows in a sum of several clients, of one row each; for the control, of one client."""
        num = max(2, self._messages.into.fewest)
        if num > MOST_INVERTED:
            raise NotMeasured(f"an inversion of {num} rows takes too long; at most {MOST_INVERTED} are tried")
        people = [self._take(i) for i in range(num)]
        whole = Examples.join(people)
        if bare:
            sent = self._messages.see(whole, 0, bare=True)
        else:
            sent = _average([self._messages.see(own, i) for i, own in enumerate(people)])
        return self._invert(sent, whole), [whole], ()

    def _invert_each(self, bare: bool) -> Read:
        """Searches all rows of a client, for a few clients of few rows."""
        people = [self._take(i, INVERTED_ROWS) for i in range(min(NUM_INVERTED, self._people.num_clients))]
        rows = list[Array]()
        for i, own in enumerate(people):
            rows += self._invert(self._messages.see(own, i, bare=bare), own)
        return rows, people, ()

    def _invert(self, sent: Tensors, own: Examples) -> Sequence[Array]:
        """Searches the rows of a message, and returns them in the order of the originals."""
        key = self._subject.key.fold_in("inversion")
        return search_rows(
            self._messages, sent, own, self.judge, self._subject.plan, key, lambda *_: self._step()
        )

    def _count_fellows(self) -> int:
        """Returns the number of clients of a round, itself included, that a fellow client watches."""
        own: Any = self._subject.ready.experiment.algorithm
        share = getattr(own, "fraction", None) or getattr(own, "sampling_rate", None) or 1.0
        return min(MOST_FELLOWS, max(2, round(share * self._people.num_clients)))

    def _read_as_fellow(self, bare: bool) -> Read:
        """Reads one row off the mean of the others, for each victim among others."""
        num, rows = 2 if bare else self._count_fellows(), list[Array]()
        for i in range(len(self.victims)):
            people = [self._take(i + num - 1 - j) for j in range(num)]  # the victim is the last
            rows.append(self._messages.layer.read(self._messages.see_as_fellow(people, i, bare=bare)))
        return rows, self.victims, ()
