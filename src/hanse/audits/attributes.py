"""A sensitive column: what the model tells of it, beside what anybody infers without the model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hanse.audits.subject import Section, Subject, Tell, train
from hanse.core import Array, Examples, Key, Tensors, nearest
from hanse.data import from_clients
from hanse.evaluation import as_percent
from hanse.leakage import AttributeInference, NotMeasured, impute, infer_attribute
from hanse.runs import load_population

__all__ = ["audit_attributes"]

TITLE = "What else is in a row? A sensitive column"

NO_CLASSES = "a column is inferred from the classes that a model predicts, and it has none"

MOST_VALUES = 20
"""The most values of a column of texts, or of few numbers; of more numbers, halves are guessed."""

FEWEST_ROWS = 20

CONTROL_ROUNDS = 30
"""The fewest rounds of the positive control."""

LEAST_CONTROL_GAIN = 0.05
"""The least gain of the positive control."""


def audit_attributes(subject: Subject, tell: Tell) -> Section:
    """Infers the sensitive column of rows that the model was trained on, and of others."""
    column = subject.plan.sensitive
    if column is None:
        raise NotMeasured("no column is named; write sensitive = ... in the table [audit]")
    raw = load_population(subject.asked)
    if raw.test is None or len(raw.test) < 2 * FEWEST_ROWS:
        raise NotMeasured(
            f"the attacker learns from public rows, and there are fewer than {2 * FEWEST_ROWS} test rows"
        )
    members = [raw.client(i) for i in range(raw.num_clients)]
    inside = Examples.join(members)
    key = subject.key.fold_in("attributes")
    inside = _sample(inside, subject.plan.num_rows, key.fold_in("members"))
    order = key.fold_in("public").rng().permutation(len(raw.test))
    public, outside = (raw.test.take(np.sort(part)) for part in np.array_split(order, 2))
    attack = _Attack(subject, column, public)
    proof = attack.control(members)
    tell(1, 3)
    if proof.gain < max(LEAST_CONTROL_GAIN, 1.5 / proof.rows**0.5):  # three standard errors of a share
        raise NotMeasured(
            f"even of a model that learns the column as its label, the attack infers only "
            f"{as_percent(proof.with_model)} (without it {as_percent(proof.imputed)}), so that it would not "
            "find what this model tells"
        )
    params = subject.result.params
    found = {"rows trained on": attack.run(inside, params)}
    tell(2, 3)
    others = _sample(outside, subject.plan.num_rows, key.fold_in("others"))
    found["other rows"] = attack.run(others, params)
    found["control: a model of the column itself, no protection"] = proof
    tell(3, 3)
    rows = [
        (name, as_percent(f.majority), as_percent(f.imputed), as_percent(f.with_model), f"{f.rows:,}")
        for name, f in found.items()
    ]
    about = (
        f"The attacker knows all columns of a row but {column!r}, its label, the last model, and half of the "
        f"test rows. He guesses one of {attack.num_values} values{attack.note}. Without it, he learns "
        "the column from the others and the label by multinomial regression. Only what the model adds counts "
        "as a gain; a gain on other rows, too, is knowledge about people at large, not about these rows. "
        "The control is a federation without protection, whose labels are the column: there it is told."
    )
    heads = ("rows", "most frequent", "without model", "with model", "number")
    gain = found["rows trained on"].gain
    return Section(TITLE, about, heads, rows, {"attribute_gain": gain}, details={"gain": gain})


def _sample(rows: Examples, most: int, key: Key) -> Examples:
    if len(rows) <= most:
        return rows
    return rows.take(np.sort(key.rng().choice(len(rows), most, replace=False)))


class _Attack:
    """The knowledge that the attacker has prepared from public rows."""

    def __init__(self, subject: Subject, column: str | int, public: Examples) -> None:
        self._subject, self._public = subject, public
        self._column = _find_column(public.x, column)
        values, self.note = _list_values(self._read(public.x))
        self._values = values
        self.num_values = len(values)

    def control(self, members: Sequence[Examples]) -> AttributeInference:
        """Attacks a model without protection whose labels are the column, which public rows do not tell."""
        subject = self._subject
        k, ready = subject.ready.population.num_classes or 0, subject.ready
        if not k:
            raise NotMeasured(NO_CLASSES)
        labels = [self._number(own.x) % k for own in members]
        clients = [Examples(ready.population.client(i).x, y) for i, y in enumerate(labels)]
        bare = replace(subject, asked=subject.bare())
        data = from_clients(clients, num_classes=k, names=ready.population.names)
        rows = Examples(np.concatenate([own.x for own in members]), np.concatenate(labels))
        rows = _sample(rows, subject.plan.num_rows, subject.key.fold_in("attributes", "control"))
        return self.run(rows, train(bare.on(data, rounds=max(subject.asked.rounds, CONTROL_ROUNDS))).params)

    def run(self, rows: Examples, params: Tensors) -> AttributeInference:
        """Guesses the column of rows by a model."""
        subject, truth, known = self._subject, self._number(rows.x), self._number(self._public.x)
        candidates, public = self._substitute(rows.x), self._substitute(self._public.x)
        fixed = ~(
            np.stack([x.reshape(len(x), -1) != public[0].reshape(len(x), -1) for x in public]).any((0, 1))
        )
        others, wanted = (found[0].reshape(len(found[0]), -1)[:, fixed] for found in (public, candidates))
        if not fixed.any():
            raise NotMeasured("there is no other column to infer it from")
        k = subject.ready.population.num_classes or 0
        if not k:
            raise NotMeasured(NO_CLASSES)
        one_hot = np.eye(k)
        prior = impute(others, known, wanted, self.num_values)
        imputed = impute(
            np.hstack([others, one_hot[self._public.y.astype(int)]]),
            known,
            np.hstack([wanted, one_hot[rows.y.astype(int)]]),
            self.num_values,
        )
        majority = int(np.bincount(known, minlength=self.num_values).argmax())
        return infer_attribute(
            subject.ready.learner, params, candidates, rows.y, truth, prior, imputed, majority
        )

    def _read(self, x: Array) -> Array:
        return np.asarray(x[self._column] if x.dtype.names else x.reshape(len(x), -1)[:, self._column])

    def _number(self, x: Array) -> Array:
        """Returns the number of each row's value; of numbers, of the nearest."""
        column = self._read(x)
        if column.dtype.kind in "fiub":
            return np.asarray(np.abs(column[:, None] - np.array(self._values, float)).argmin(axis=1))
        place = {value: i for i, value in enumerate(self._values)}
        return np.array([place.get(value, 0) for value in column.tolist()])

    def _substitute(self, x: Array) -> list[Array]:
        """Returns the rows with each value in turn, as the model takes them."""
        encoder, found = self._subject.ready.encoder, list[Array]()
        for value in self._values:
            changed = np.array(x)
            if x.dtype.names:
                changed[self._column] = value
            else:
                changed.reshape(len(x), -1)[:, self._column] = value
            encoded: Any = changed
            if encoder is not None:
                encoded = encoder(Examples(changed, np.zeros(len(x), int))).x
            found.append(encoded)
        return found


def _find_column(x: Array, column: str | int) -> Any:
    if x.dtype.names:
        if column in x.dtype.names:
            return column
        raise NotMeasured(f"no column {column!r}; {nearest(str(column), x.dtype.names)}")
    size = x.reshape(len(x), -1).shape[1]
    if isinstance(column, int) and 0 <= column < size:
        return column
    raise NotMeasured(f"sensitive is {column!r}, and rows have no names; write a number from 0 to {size - 1}")


def _list_values(column: Array) -> tuple[list[Any], str]:
    """Lists the values to guess, and says in words if they stand for more."""
    found = np.unique(column[~np.isnan(column)] if column.dtype.kind == "f" else column)
    if len(found) < 2:
        raise NotMeasured("the sensitive column has one value in the public rows")
    if len(found) <= MOST_VALUES:
        return found.tolist(), ""
    if column.dtype.kind not in "fiu":
        raise NotMeasured(f"the sensitive column has {len(found)} values; name one of at most {MOST_VALUES}")
    low, high = np.nanpercentile(column, [25, 75]).tolist()
    if low == high:
        raise NotMeasured("half of the numbers in the sensitive column are the same")
    return [low, high], f", near {low:g} or near {high:g}"
