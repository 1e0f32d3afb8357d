"""Judging: what is read off messages is compared with the originals, and with the guess of a mean row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any, TypeAlias

import numpy as np

from hanse.audits.messages import Messages
from hanse.audits.subject import Section, Tell
from hanse.config import AuditPlan
from hanse.core import Array, Examples, HanseError, Key, Tensors
from hanse.evaluation import as_percent
from hanse.leakage import (
    Inversion,
    NotMeasured,
    invert,
    match_rows,
    measure_psnr,
    measure_ssim,
    read_label,
)

__all__ = [
    "FELLOW",
    "HOLDER",
    "LEAST_CONTROL_DB",
    "MOST_INVERTED",
    "NUM_VICTIMS",
    "OUTSIDER",
    "SERVER",
    "Judge",
    "Read",
    "Reading",
    "conclude",
    "find_picture_shape",
    "read_last_label",
    "search_rows",
]

Read: TypeAlias = tuple[Sequence[Array], Sequence[Examples], Sequence[int | None]]
"""Rows that were read, the rows that they were read of, and labels that were read; empty: none."""

NUM_VICTIMS = 8
"""The number of clients whose messages are attacked, or all of them."""

LEAST_CONTROL_DB = 10.0
"""The least gain of a positive control."""

SMALLEST_PICTURE = 6
"""The least height and width of rows that are taken for pictures."""

MOST_STEPS, MOST_INVERTED = 20, 8
"""An inversion repeats at most so many local steps, and searches at most so many rows."""

SERVER, FELLOW, OUTSIDER, HOLDER = "server", "fellow client", "outsider", "key holder"


def conclude(title: str, about: str, found: Sequence["Reading"], judge: "Judge", **more: Any) -> Section:
    """Makes the section of what parties have read, with the best gain, if each of them was measured.

    Raises: NotMeasured: if no attack by the server was.
    """
    found = sorted(found, key=lambda one: not one.party)
    shown = [one for one in found if one.missing is None]
    unseen = {one.party for one in found if one.party} - {one.party for one in shown}
    if SERVER in unseen:
        raise NotMeasured(next(one.missing or "" for one in found if one.party == SERVER))
    seen = [one for one in shown if one.party]
    return Section(
        title,
        about,
        ("who reads what", "PSNR", "SSIM", "gain", "labels"),
        [one.to_row() for one in found],
        {} if unseen else {"gain_db": max(one.gain for one in seen)},
        pictures=judge.draw_pictures(seen),
        records=judge.list_records(seen),
        details={one.name: one.to_details() for one in found},
        **more,
    )


def read_last_label(gradient: Tensors, num_classes: int | None) -> int | None:
    """Finds the label of one example in a gradient of the last layer; None: it has no classes."""
    last = [name for name, tensor in gradient.items() if np.shape(tensor) == (num_classes,)]
    return read_label(np.asarray(gradient[last[-1]])) if last else None


def search_rows(
    messages: Messages,
    sent: Tensors,
    own: Examples,
    judge: "Judge",
    plan: AuditPlan,
    key: Key,
    tell: Tell = lambda done, total: None,
) -> Sequence[Array]:
    """Searches the rows of a message by descent, and returns them in the order of the originals.

    Args:
      own: the originals, of which the attacker knows the labels and the number.
      plan: bounds the steps and restarts.

    Raises: NotMeasured: if clients train in a way that is not repeated, or there are no classes.
    """
    if own.y.dtype.kind not in "iu" or own.y.ndim > 1:
        raise NotMeasured("an inversion is tried for models of classes only")
    steps, num_steps = messages.steps, 0
    if steps is not None:
        if steps.batch_size is not None and steps.batch_size < len(own):
            raise NotMeasured(
                f"the batch size is {steps.batch_size}, and an inversion repeats steps on {len(own)} rows"
            )
        num_steps = steps.num_steps or steps.epochs
        if num_steps > MOST_STEPS:
            raise NotMeasured(f"clients take {num_steps} steps; at most {MOST_STEPS} are repeated")
    settings = Inversion(
        distance="cosine",  # clipping shortens a message
        lr=None if steps is None else steps.lr,
        num_steps=num_steps,
        num_restarts=plan.num_restarts,
        num_iterations=plan.num_iterations,
    )
    guess, shape = judge.guess, own.x.shape[1:]
    found = invert(
        sent,
        messages.params,
        shape,
        len(own),
        key=key,
        labels=own.y,
        mean=guess,
        settings=settings,
        seen=tell,
    )
    rows = found.x.reshape(len(own), -1)
    return list(rows[match_rows(np.stack([judge.clip(x) for x in rows]), judge.flatten(own))])


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


def find_picture_shape(shape: tuple[int, ...], *, is_encoded: bool) -> tuple[int, int] | None:
    """Returns the height and width of rows that are taken for pictures; None: they are rows of a table.

    >>> find_picture_shape((64,), is_encoded=False), find_picture_shape((12,), is_encoded=False)
    ((8, 8), None)
    """
    side = isqrt(prod(shape))
    if len(shape) == 1 and side * side == shape[0] and not is_encoded:
        shape = (side, side)
    return (shape[0], shape[1]) if len(shape) == 2 and min(shape) >= SMALLEST_PICTURE else None


class Judge:
    """Compares what is read with what was sent, and with the mean of public rows.

    Args:
      public: rows that everybody knows.
      feature_shape: of a row.
      is_encoded: whether rows are columns of a table, encoded as numbers.

    Raises: NotMeasured: if there are too few public rows.
    """

    def __init__(self, public: Examples | None, feature_shape: tuple[int, ...], *, is_encoded: bool) -> None:
        if public is None or len(public) < 2:
            raise NotMeasured(
                f"the guess of a mean row needs at least 2 public rows, and there are "
                f"{0 if public is None else len(public)}"
            )
        if not np.issubdtype(public.x.dtype, np.number):
            raise NotMeasured(f"rows are {public.x.dtype}; only rows of numbers are compared")
        self.public = public
        rows = np.asarray(public.x, np.float64).reshape(len(public), -1)
        self.guess, self._span = rows.mean(axis=0), float(rows.max() - rows.min()) or 1.0
        self._low, self._high = rows.min(axis=0), rows.max(axis=0)
        self._shape = find_picture_shape(feature_shape, is_encoded=is_encoded)

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

    def try_attack(
        self, party: str, name: str, read: Callable[[bool], Read], control: str
    ) -> Iterator[Reading]:
        """Yields what an attack reads, and its control; what it reads is missing if the control fails."""
        try:
            proof = self.judge(control, "", *read(True))
            if proof.gain < LEAST_CONTROL_DB:
                raise NotMeasured(
                    f"without any protection the attack gains only {proof.gain:.1f} dB, so that it would not "
                    "find what another attack finds"
                )
            yield self.judge(name, party, *read(False))
            yield proof
        except HanseError as error:
            yield Reading(name, party, missing=str(error))
