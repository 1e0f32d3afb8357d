"""Membership of rows: shadow federations show how confident a model is in rows that it was trained on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from hanse.audits.subject import Section, Subject, Tell, train
from hanse.core import Array, Examples, Key
from hanse.data import FederatedData, from_clients
from hanse.evaluation import as_percent
from hanse.leakage import Membership, NotMeasured, compare_shadows, measure_confidence, measure_membership

__all__ = ["audit_membership"]

TITLE = "Who was trained on? Membership of rows"

CONTROL_ROWS = 4
"""The most rows of each client in the federation of the positive control."""

CONTROL_SHADOWS = 8


def audit_membership(subject: Subject, tell: Tell) -> Section:
    """Attacks the final model of the federation, which anybody may see who is given the model."""
    num_shadows, total = subject.plan.num_shadows, subject.plan.num_shadows + CONTROL_SHADOWS + 2
    people = [subject.ready.population.client(i) for i in range(subject.ready.population.num_clients)]
    if sum(len(own) >= 2 for own in people) == 0:
        raise NotMeasured("each client holds one row, so none can be left out of training; give clients more")
    key = subject.key.fold_in("membership")
    _refuse_others(subject)
    ratio, threshold = _attack(subject, people, num_shadows, key, lambda done: tell(done, total))
    control = _control(subject, people, key.fold_in("control"), lambda d: tell(num_shadows + 1 + d, total))
    rows = [
        _describe("likelihood ratio, shadow models", ratio),
        _describe("threshold on the confidence", threshold),
        _describe("control: few rows, wrong labels, no protection", control),
    ]
    found = {"membership_auc": ratio.auc}
    at_one = ratio.tpr["1%"]
    if at_one is not None:
        found["membership_tpr"] = at_one[0]
    if control.auc_low <= 0.5:
        raise NotMeasured(
            f"the attack finds no members even in a federation of wrong labels without protection (AUC "
            f"{control.auc:.3f}), so that it would not find them here"
        )
    about = (
        "The attacker has the final model and knows all rows; he asks which half of each client's rows it "
        f"was trained on. {num_shadows} shadow federations with the same algorithm and settings, each of "
        "on other halves, show him what to expect (Carlini et al. 2022, online). So the model under attack "
        "has seen half of the rows; one of all rows leaks rather less. The server and the clients see "
        "the models of all rounds, which tell more than the last. Each model is attacked in turn, the others "
        "are its shadows. 0.5 is a coin; the 95% intervals take guesses about one row in several models for "
        "independent."
    )
    details = {"likelihood_ratio": ratio.to_json(), "threshold": threshold.to_json()}
    return Section(
        TITLE,
        about,
        ("attack", "AUC", "95%", "TPR at 1%", "TPR at 0.1%"),
        rows,
        found,
        curve=ratio.curve,
        details={**details, "control": control.to_json()},
    )


def _refuse_others(subject: Subject) -> None:
    """Refuses data whose rows have no single label, before anything is trained. Raises: InvalidInput."""
    first = subject.ready.population.client(0).take(np.array([0]))
    measure_confidence(subject.ready.learner, subject.ready.start(), first)


def _describe(name: str, found: Membership) -> tuple[str, ...]:
    tpr = ["not measured" if share is None else as_percent(share[0]) for share in found.tpr.values()]
    return name, f"{found.auc:.3f}", f"{found.auc_low:.3f}-{found.auc_high:.3f}", *tpr


def _control(
    subject: Subject, people: Sequence[Examples], key: Key, tell: Callable[[int], None]
) -> Membership:
    """Attacks a federation whose few rows have wrong labels, which only memory can fit."""
    few = [own.take(np.arange(min(len(own), CONTROL_ROWS))) for own in people]
    labels = key.rng().permutation(np.concatenate([own.y for own in few]))
    mixed = np.split(labels, np.cumsum([len(own) for own in few])[:-1])
    wrong = [Examples(own.x, y) for own, y in zip(few, mixed, strict=True)]
    bare = replace(subject, asked=subject.bare())
    return _attack(bare, wrong, CONTROL_SHADOWS, key, tell)[0]


def _attack(
    subject: Subject,
    people: Sequence[Examples],
    num_shadows: int,
    key: Key,
    tell: Callable[[int], None],
) -> tuple[Membership, Membership]:
    """Trains models, and attacks each with the others as its shadows.

    Returns: the success of the likelihood ratio, and of a threshold on the confidence.
    """
    owners = np.repeat(np.arange(len(people)), [len(own) for own in people])
    rows = Examples.join(people)
    judged = np.flatnonzero(np.bincount(owners)[owners] >= 2)
    if len(judged) > subject.plan.num_rows:
        judged = np.sort(key.fold_in("rows").rng().choice(judged, subject.plan.num_rows, replace=False))
    target = draw_half(owners, key.fold_in("target"))
    masks, confidences = [target, *_draw_shadows(owners, num_shadows, key)], list[Array]()
    for number, mask in enumerate(masks):
        left = _leave_out(subject, people, owners, mask)
        experiment = subject.on(left, seed=subject.asked.seed + number)
        confidences.append(
            measure_confidence(subject.ready.learner, train(experiment).params, rows.take(judged))
        )
        tell(number + 1)
    is_in, seen = np.stack(masks)[:, judged], np.stack(confidences)
    ratios = [
        compare_shadows(seen[i], np.delete(seen, i, axis=0), np.delete(is_in, i, axis=0))
        for i in range(len(seen))
    ]
    ratio = measure_membership(np.concatenate(ratios), is_in.reshape(-1))
    return ratio, measure_membership(seen.reshape(-1), is_in.reshape(-1))


def _draw_shadows(owners: Array, num_shadows: int, key: Key) -> Iterator[Array]:
    """Yields the rows of each shadow model, in pairs of which one has what the other lacks."""
    is_alone = np.bincount(owners)[owners] < 2
    for pair in range(num_shadows // 2):
        half = draw_half(owners, key.fold_in("shadows", pair))
        yield half
        yield ~half | is_alone


def draw_half(owners: Array, key: Key) -> Array:
    """Draws half of the rows of each owner, (n,); a single row is always drawn.

    >>> int(draw_half(np.array([0, 0, 1]), Key.from_seed(0)).sum())
    2
    """
    rng, is_in = key.rng(), np.zeros(len(owners), bool)
    for rows in np.split(np.arange(len(owners)), np.cumsum(np.bincount(owners))[:-1]):
        size = max(1, len(rows) // 2 + (len(rows) % 2 and int(rng.integers(2))))
        is_in[rng.choice(rows, size, replace=False)] = True
    return is_in


def _leave_out(subject: Subject, people: Sequence[Examples], owners: Array, mask: Array) -> FederatedData:
    """Returns the clients with only those of their rows that a mask names."""
    ends = np.cumsum(np.bincount(owners))[:-1]
    kept = [own.take(np.flatnonzero(at)) for own, at in zip(people, np.split(mask, ends), strict=True)]
    population = subject.ready.population
    return from_clients(kept, num_classes=population.num_classes, names=population.names)
