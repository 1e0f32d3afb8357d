"""Reconstruction: rows that are read off what clients send, beside the guess of a mean row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import numpy as np

from hanse.audits.subject import Section, Subject, Tell
from hanse.core import Array, Examples, Keys, Reducer, Tensors, Transform, add, mean, scale
from hanse.evaluation import as_percent
from hanse.leakage import (
    NotMeasured,
    Prior,
    ask_client,
    find_likeliest_row,
    measure_psnr,
    measure_ssim,
    observe,
    read_label,
    read_row,
)

__all__ = ["audit_reconstruction"]

TITLE = "What is read off a message? Rows of clients"

NUM_VICTIMS = 8
"""The number of clients whose messages are attacked, or all of them."""

LEAST_CONTROL_DB = 10.0
"""The least gain of the positive control."""

SMALLEST_PICTURE = 6
"""The least height and width of rows that are taken for pictures."""


def audit_reconstruction(subject: Subject, tell: Tell) -> Section:
    """Reads rows off the first messages of clients, as the server and others see them."""
    settled: Any = subject.ready.experiment.algorithm
    if not (hasattr(settled, "work") and hasattr(settled, "uplink")):
        raise NotMeasured(f"what clients of {type(settled).__name__}() send is not attacked by this version")
    attack = _Attack(subject, settled)
    control = attack.read_each((), mean(), "control: no protection, one row")
    if control.gain < LEAST_CONTROL_DB:
        raise NotMeasured(
            f"without any protection the attack gains only {control.gain:.1f} dB, so that it would not find "
            "what another attack finds"
        )
    found = [*attack.attack_parties(), control]
    tell(1, 1)
    seen = found[:-1]
    about = (
        f"{len(attack.victims)} clients train on one row each, from the first model, and send the result "
        "through the chain as configured; everything public is undone first. The first layer of the model is "
        "a row times weights, so the row stands in its update (Phong et al. 2018), and the label in that of "
        "the last (iDLG). The gain is over guessing the mean of the public rows, which gives "
        f"{attack.guess_db:.1f} dB. One row is the worst case: many rows hide each other in a mean. Fellow "
        "clients, who see models alone, and key holders are not attacked here."
    )
    return Section(
        TITLE,
        about,
        ("who reads what", "PSNR", "SSIM", "gain", "labels"),
        [one.to_row() for one in found],
        {"gain_db": max(one.gain for one in seen)},
        pictures=attack.draw_pictures(seen),
        records=attack.list_records(seen),
        details={one.name: {"psnr": one.psnr, "gain_db": one.gain, "labels": one.labels} for one in found},
    )


@dataclass(frozen=True)
class _Reading:
    """What one party reads."""

    name: str
    rows: Sequence[Array]
    psnr: float
    ssim: float | None
    gain: float
    labels: float | None

    def to_row(self) -> tuple[str, ...]:
        ssim = "-" if self.ssim is None else f"{self.ssim:.2f}"
        labels = "-" if self.labels is None else as_percent(self.labels)
        return self.name, f"{self.psnr:.1f} dB", ssim, f"{self.gain:+.1f} dB", labels


@dataclass(frozen=True)
class Layer:
    """The first layer of a model, which multiplies a row by weights.

    Args:
      weights, bias: the names of its tensors.
      turned: whether the weights are (outputs, features).
    """

    weights: str
    bias: str
    turned: bool

    def read(self, gradient: Tensors) -> Array:
        """Reads a row off a gradient."""
        weights = np.asarray(gradient[self.weights], np.float64)
        return read_row({"weights": weights.T if self.turned else weights, "bias": gradient[self.bias]})


def find_layer(params: Tensors, num_features: int) -> Layer:
    """Finds the layer that multiplies rows of so many features. Raises: NotMeasured: if there is none."""
    for name, tensor in params.items():
        bias = name.replace("weights", "bias").replace("weight", "bias")
        if bias == name or bias not in params:
            continue
        size = np.size(params[bias])
        if np.shape(tensor) in ((num_features,), (num_features, size)) and not name.endswith("weight"):
            return Layer(name, bias, turned=False)
        if np.shape(tensor) == (size, num_features):
            return Layer(name, bias, turned=True)
    raise NotMeasured(
        "no layer of the model multiplies a whole row by weights and adds a bias, and other models are not "
        "attacked by this version"
    )


class _Attack:
    """The clients that are attacked, and what the attacker knows."""

    def __init__(self, subject: Subject, settled: Any) -> None:
        people = subject.ready.population
        self._subject, self._settled = subject, settled
        count = min(NUM_VICTIMS, people.num_clients)
        self.victims = [people.client(i).take(np.array([0])) for i in range(count)]
        self._params = subject.ready.start()
        self._layer = find_layer(self._params, prod(people.feature_shape))
        if people.test is None or len(people.test) < 2:
            raise NotMeasured("the guess of a mean row needs public rows, and there are no test rows")
        self._public = people.test
        rows = np.asarray(people.test.x, np.float64).reshape(len(people.test), -1)
        self._guess, self._span = rows.mean(axis=0), float(rows.max() - rows.min()) or 1.0
        self._low, self._high = rows.min(axis=0), rows.max(axis=0)
        self._originals = [np.asarray(own.x, np.float64).reshape(-1) for own in self.victims]
        self.guess_db = self._measure([self._guess] * count)

    @property
    def _shape(self) -> tuple[int, int] | None:
        """The height and width of rows that are pictures; None: they are none."""
        shape = self._subject.ready.population.feature_shape
        side = isqrt(prod(shape))
        if len(shape) == 1 and side * side == shape[0] and self._subject.ready.encoder is None:
            shape = (side, side)
        return (shape[0], shape[1]) if len(shape) == 2 and min(shape) >= SMALLEST_PICTURE else None

    def attack_parties(self) -> Iterator[_Reading]:
        """Yields what each party reads."""
        uplink, into = self._settled.uplink, self._settled.into
        if into.hides:
            num = max(2, into.fewest or 2)
            yield self.read_sum(num, uplink, f"server: a sum of {num} clients, one row each")
        else:
            yield self.read_each(uplink, into, "server: a client's message, one row")
            with_prior = self.read_with_prior(uplink, into)
            if with_prior is not None:
                yield with_prior
        yield self.read_nothing("outsider: encrypted traffic")

    def read_each(self, uplink: tuple[Transform, ...], into: Reducer[Any], name: str) -> _Reading:
        """Reads each victim's row off its own message."""
        sent = [self._see(own, uplink, into, i) for i, own in enumerate(self.victims)]
        return self._judge(name, [self._layer.read(one) for one in sent], [self._label(one) for one in sent])

    def read_with_prior(self, uplink: tuple[Transform, ...], into: Reducer[Any]) -> _Reading | None:
        """Reads rows with a Gaussian model of public rows; None: the model is no softmax regression."""
        classes = self._subject.ready.population.num_classes
        if classes is None or set(self._params) != {"weights", "bias"} or self._params["weights"].ndim != 2:
            return None
        prior = Prior.fit(self._public, classes)
        sent = [self._see(own, uplink, into, i) for i, own in enumerate(self.victims)]
        found = [find_likeliest_row(one, self._params, prior) for one in sent]
        labels = [None if one.y is None else int(one.y[0]) for one in found]
        return self._judge("server: the same, with a prior", [one.x.reshape(-1) for one in found], labels)

    def read_sum(self, num: int, uplink: tuple[Transform, ...], name: str) -> _Reading:
        """Reads one row off the sum of several clients' messages, for each victim among others."""
        people, rows = self._subject.ready.population, list[Array]()
        for i in range(len(self.victims)):
            total: Tensors | None = None
            for j in range(min(num, people.num_clients)):
                own = people.client((i + j) % people.num_clients).take(np.array([0]))
                sent = self._see(own, uplink, mean(), j)
                total = sent if total is None else add(total, sent)
            assert total is not None
            rows.append(self._layer.read(total))
        return self._judge(name, rows, [None] * len(rows))

    def read_nothing(self, name: str) -> _Reading:
        """Guesses the mean row, where nothing is seen."""
        return self._judge(name, [self._guess] * len(self.victims), [None] * len(self.victims))

    def _see(self, own: Examples, uplink: tuple[Transform, ...], into: Reducer[Any], i: int) -> Tensors:
        """Returns the gradient that the server sees in one client's message."""
        key = self._subject.key.fold_in("reconstruction", i)
        keys = Keys(key.fold_in("public"), key.fold_in("secret"))
        answer = ask_client(
            self._settled.work(0),
            self._subject.ready.learner,
            own,
            {"params": self._params},
            "update",
            uplink,
            into,
            keys=keys,
        )
        return scale(observe(answer).parts["update"].values, -1.0)

    def _label(self, gradient: Tensors) -> int | None:
        classes = self._subject.ready.population.num_classes
        last = [name for name, tensor in gradient.items() if np.shape(tensor) == (classes,)]
        return read_label(np.asarray(gradient[last[-1]])) if last else None

    def _judge(self, name: str, rows: Sequence[Array], labels: Sequence[int | None]) -> _Reading:
        clipped = [np.clip(row, self._low, self._high) for row in rows]
        shape, ssim = self._shape, None
        if shape is not None:
            pairs = zip(clipped, self._originals, strict=True)
            alike = [measure_ssim(a.reshape(shape), b.reshape(shape), self._span) for a, b in pairs]
            ssim = float(np.mean(alike))
        right = None
        if all(label is not None for label in labels):
            right = float(np.mean([int(own.y[0]) == y for own, y in zip(self.victims, labels, strict=True)]))
        psnr = self._measure(clipped)
        return _Reading(name, clipped, psnr, ssim, psnr - self.guess_db, right)

    def _measure(self, rows: Sequence[Array]) -> float:
        pairs = zip(rows, self._originals, strict=True)
        return float(np.mean([measure_psnr(a, b, self._span) for a, b in pairs]))

    def draw_pictures(self, seen: Sequence[_Reading]) -> Mapping[str, Sequence[Array]]:
        """Returns the originals and what each party reads, as pictures of numbers from 0 to 1, by caption."""
        if self._shape is None:
            return {}
        rows = {"the originals": self._originals, **{one.name: one.rows for one in seen}}
        low, shape = float(self._low.min()), self._shape
        return {
            name: [np.clip((row.reshape(shape) - low) / self._span, 0, 1) for row in found]
            for name, found in rows.items()
        }

    def list_records(self, seen: Sequence[_Reading]) -> Sequence[tuple[str, Array]]:
        """Lists the rows of the first victim, the original first, where they are no pictures."""
        if self._shape is not None:
            return ()
        return (("the original", self._originals[0]), *((one.name, one.rows[0]) for one in seen))
