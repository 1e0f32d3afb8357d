"""An audit by canaries: what somebody who guesses from what was released proves about epsilon.

Canaries are clients of whom each is in or out by the toss of a coin. Whoever sees the released models guesses
of some of them which it was. Differential privacy bounds how many guesses are right, so that many right ones
prove that epsilon is larger. Few right ones prove nothing: an audit finds mistakes, never their absence.

References: Steinke, Nasr, Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023, arXiv
2305.08846, Theorem 5.2 and Appendix D.
"""

import math
from dataclasses import dataclass

import numpy as np

from hanse.core import Array, InvalidInput
from hanse.privacy.claim import DELTA

__all__ = ["FEWEST_CANARIES", "CanaryAudit", "audit_guesses", "bound_epsilon"]

FEWEST_CANARIES = 50
"""Fewer canaries can't tell a good epsilon from a bad one: 20 never show more than 1.82."""


def bound_epsilon(
    correct: int, guesses: int, canaries: int, *, delta: float = DELTA, confidence: float = 0.95
) -> float:
    """Computes a lower bound on epsilon from the number of right guesses; 0: they prove nothing.

    All right, and as many guesses as canaries, give the most that so many canaries can show:

    >>> [round(bound_epsilon(m, m, m), 2) for m in (20, 50, 100)]
    [1.82, 2.78, 3.49]

    Args:
      correct, guesses, canaries: the right guesses, all guesses, and all canaries, guessed at or not.
      delta: of the claim.
      confidence: the probability with which the bound holds, whatever the true epsilon is.

    Raises: InvalidInput: if the numbers don't fit each other.
    """
    if not 0 <= correct <= guesses <= canaries or not guesses:
        raise InvalidInput(
            f"{correct} right guesses of {guesses} about {canaries} canaries; write numbers that do not "
            "grow, and at least one guess"
        )
    if not 0 < confidence < 1 or not 0 <= delta < 1:
        raise InvalidInput(
            f"confidence is {confidence} and delta {delta}; write numbers from 0 to 1, such as 0.95 and 1e-5"
        )
    error = 1 - confidence
    if _find_chance(0.0, correct, guesses, canaries, delta) > error:
        return 0.0
    low, high = 0.0, 1.0
    while _find_chance(high, correct, guesses, canaries, delta) <= error:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        fits = _find_chance(middle, correct, guesses, canaries, delta) > error
        low, high = (low, middle) if fits else (middle, high)
    return low


def _find_chance(epsilon: float, correct: int, guesses: int, canaries: int, delta: float) -> float:
    """Bounds the probability of so many right guesses, if epsilon were true."""
    right = 1 / (1 + math.exp(-epsilon))
    if right == 1:
        return 1.0
    counts = np.arange(guesses + 1)
    logs = np.array([math.lgamma(k + 1) for k in counts])
    ways = logs[-1] - logs - logs[::-1]
    chances = np.exp(ways + counts * math.log(right) + counts[::-1] * math.log1p(-right))
    more = float(chances[correct:].sum())
    fewer = np.cumsum(chances[:correct][::-1]) / np.arange(1, correct + 1)
    return more + 2 * canaries * delta * float(fewer.max(initial=0.0))


@dataclass(frozen=True)
class CanaryAudit:
    """The outcome of an audit.

    Args:
      correct, guesses, canaries, delta, confidence: see `bound_epsilon`.
    """

    correct: int
    guesses: int
    canaries: int
    delta: float = DELTA
    confidence: float = 0.95

    @property
    def bound(self) -> float | None:
        """The least that epsilon is; None: there are too few canaries to tell."""
        return self._bound(self.correct, self.guesses) if self.canaries >= FEWEST_CANARIES else None

    @property
    def cap(self) -> float:
        """The most that so many canaries can show, if a guess is made about each and all are right."""
        return self._bound(self.canaries, self.canaries)

    def _bound(self, correct: int, guesses: int) -> float:
        return bound_epsilon(correct, guesses, self.canaries, delta=self.delta, confidence=self.confidence)

    def refutes(self, epsilon: float) -> bool:
        """Returns whether the guesses prove a claimed epsilon wrong."""
        return self.bound is not None and self.bound > epsilon

    def __str__(self) -> str:
        cap = f"{self.canaries:,} canaries can show at most {self.cap:.2f}"
        if self.bound is None:
            return f"can't tell: {cap}; insert at least {FEWEST_CANARIES}, better 1,000"
        return (
            f"epsilon is at least {self.bound:.2f} for delta {self.delta:g}, with {self.confidence:.0%} "
            f"confidence: {self.correct:,} of {self.guesses:,} guesses are right; {cap}"
        )


def audit_guesses(
    scores: Array, is_in: Array, num_guesses: int, *, delta: float = DELTA, confidence: float = 0.95
) -> CanaryAudit:
    """Guesses that the canaries with the highest scores are in and those with the lowest are out.

    >>> coins = np.arange(1000) % 2 == 0
    >>> found = audit_guesses(coins * 1.0, coins, 200)
    >>> found.correct, round(found.bound, 2), found.refutes(2.58)
    (200, 4.17, True)

    Args:
      scores: of each canary; higher: what was released looks more as if it were in.
      is_in: the coins, which the scores must not know.
      num_guesses: the number of guesses, chosen before the scores are known: half of them "in", half "out".
    """
    scores, is_in = np.asarray(scores, np.float64), np.asarray(is_in, bool)
    half = num_guesses // 2
    if scores.shape != is_in.shape or scores.ndim != 1 or not 0 < 2 * half == num_guesses <= len(scores):
        raise InvalidInput(
            f"{num_guesses} guesses from {scores.shape} scores and {is_in.shape} coins; write an even number "
            "of guesses, at most one for each canary"
        )
    order = np.argsort(scores, kind="stable")
    correct = int((~is_in[order[:half]]).sum() + is_in[order[len(order) - half :]].sum())
    return CanaryAudit(correct, num_guesses, len(scores), delta, confidence)
