"""The claim: an epsilon in words, with whom it protects, against whom, and what it does not cover."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hanse.core import InvalidInput
from hanse.core.exchange import ReleaseRecord
from hanse.privacy.accounting import Accountant, classify_noise, compose, compute_epsilon
from hanse.privacy.correlated import SEPARATION

__all__ = ["DELTA", "DistributedClaim", "LocalClaim", "PrivacyClaim", "make_claim"]

DELTA = 1e-5
"""The delta of claims about runs whose settings name none."""

RECORDS = "the number of clients in each round and the bytes of each, in the records that the server keeps"
"""The numbers that every run writes down un-noised."""


@dataclass(frozen=True, kw_only=True)
class PrivacyClaim:
    """A promise of a run to each of its clients.

    Args:
      epsilon, delta: the bound; epsilon is None where it can't be computed.
      accountant: the method by which epsilon was computed: "rdp" or "pld".
      totals: the number of noised totals that were released, or are planned.
      rates: the rates of the Poisson samples that amplify it; empty: nothing does.
      separation: the rounds that each client rests for at least, on which it relies; None: on no rest.
      beside: what was released of clients un-noised.
      is_simulated: whether the noise follows from the seed of a simulation; None: it is not known yet.
      unknown: why epsilon can't be computed; None: it was.
    """

    epsilon: float | None
    delta: float
    accountant: Accountant
    totals: int
    rates: tuple[float, ...] = ()
    beside: tuple[str, ...]
    is_simulated: bool | None
    unknown: str | None = None
    separation: int | None = None

    unit = "one client, added or removed"
    adversary = "whoever sees the released models"
    not_against = "the server, which sees single clipped updates and knows who took part"

    def __str__(self) -> str:
        bound = "?" if self.epsilon is None else f"{_round_up(self.epsilon)}"
        words = [
            f"({bound}, {self.delta:g})-differential privacy of {self.unit}, against {self.adversary}",
            f"not against {self.not_against}",
            self.amplification,
            f"beside it un-noised: {', '.join(self.beside)}",
        ]
        if self.unknown is not None:
            words.append(f"epsilon is unknown: {self.unknown}")
        if self.is_simulated is not False:
            how = "simulated:" if self.is_simulated else "if it is simulated,"
            words.append(f"{how} noise and samples follow from the seed, so whoever knows it can remove them")
        return "; ".join(words)

    @property
    def amplification(self) -> str:
        """Describes how sampling lowers epsilon, in words."""
        if self.separation is not None:
            return (
                f"each client takes part at most once in any {self.separation} rounds in a row, which the "
                "run enforces; not amplified by sampling, whoever knows who took part"
            )
        if not self.rates:
            return "not amplified by sampling, because no Poisson sample decided who took part"
        rates = " and ".join(f"{rate:g}" for rate in self.rates)
        return (
            f"amplified by Poisson sampling at rate {rates}, which the server's secret decides, as long as "
            "nobody else learns who took part"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the claim as plain data, with its words."""
        return {
            "claim": str(self),
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant,
            "unit": self.unit,
            "adversary": self.adversary,
            "not_against": self.not_against,
            "totals": self.totals,
            "rates": list(self.rates),
            "separation": self.separation,
            "beside": list(self.beside),
            "is_simulated": self.is_simulated,
        }


@dataclass(frozen=True, kw_only=True)
class DistributedClaim(PrivacyClaim):
    """A promise of a run in which the noise of all totals was added by the clients, in shares.

    Args:
      not_against: see `describe_limits`.
    """

    not_against: str = ""

    unit = "one client, against the same client with an update of zeros"
    adversary = "whoever sees the totals and the models, the server among them if the sum hides the rest"

    @classmethod
    def describe_limits(cls, honest: int) -> str:
        """Says against whom it does not protect."""
        return (
            f"whoever knows the noise of others, if fewer than {honest} of the clients in a total, the "
            "protected one among them, add theirs and keep it to themselves; a server from which the sum "
            "does not hide single messages: in a secure sum without a roster one that is not honest but "
            "curious, or works with more clients than the sum allows, in an encrypted one a server that "
            "works with the key holder or with a client; and that a client took part is known to the server"
        )

    @property
    def amplification(self) -> str:
        """Describes that sampling does not lower epsilon, in words."""
        return "not amplified by sampling, because the server knows who took part"


@dataclass(frozen=True, kw_only=True)
class LocalClaim(PrivacyClaim):
    """A promise of a run whose clients add the noise; its epsilon is that of one that always answers."""

    unit = "the data of one client, replaced by any others"
    adversary = "the server, the other clients and whoever sees the models"
    not_against = "whoever reads the client's own machine; and that a client took part is known to the server"

    @property
    def amplification(self) -> str:
        """Describes that nothing lowers epsilon but rounds without this client, in words."""
        return (
            f"for a client that takes part each time ({self.totals:,} noised messages), less for others; not "
            "amplified by sampling, because the server reads each message"
        )


def make_claim(
    releases: Iterable[ReleaseRecord],
    *,
    delta: float | None = None,
    beside: Iterable[str] = (),
    accountant: Accountant = "pld",
    is_simulated: bool | None = False,
) -> PrivacyClaim | None:
    """Makes the claim about the noised totals of a run; None: there was none, so nothing is promised.

    Args:
      releases: the totals, from the books of the run, or as planned.
      delta: of the settings; None: 1e-5.
      beside: what else was released of clients, un-noised, beside what all runs write down.
      accountant: "pld" for reports, "rdp" while the run goes on.
      is_simulated: whether no real parties took part; None: it is not known yet.
    """
    found = tuple(releases)
    if not found:
        return None
    trust = {classify_noise(one.release) for one in found}
    delta, epsilon, unknown = delta or DELTA, None, None
    if "distributed" in trust:
        accountant = "rdp"  # there are no privacy loss distributions of it
    try:
        epsilon = compute_epsilon(compose(found), delta, accountant)
    except InvalidInput as error:
        unknown = str(error)
    said: dict[str, Any] = {
        "epsilon": epsilon,
        "delta": delta,
        "accountant": accountant,
        "totals": len(found),
        "beside": (*beside, RECORDS),
        "is_simulated": is_simulated,
        "unknown": unknown,
    }
    if trust == {"distributed"}:
        honest = max(int(one.release.parameters["honest"]) for one in found)
        return DistributedClaim(**said, not_against=DistributedClaim.describe_limits(honest))
    if trust == {"local"}:
        return LocalClaim(**said)
    if trust == {"central"}:
        said["rates"] = tuple(sorted({one.sampling for one in found if one.sampling < 1}))
        rests = (one.release.parameters.get(SEPARATION) for one in found)
        said["separation"] = max((int(rest) for rest in rests if rest is not None), default=None)
    return PrivacyClaim(**said)  # of mixed noise it says why epsilon is unknown


def _round_up(epsilon: float) -> str:
    """Formats an epsilon with two decimals, or two digits if it is small, and never makes it smaller."""
    if not math.isfinite(epsilon) or epsilon == 0:
        return f"{epsilon:g}"
    digits = max(2, 1 - math.floor(math.log10(epsilon)))
    return f"{math.ceil(round(epsilon * 10**digits, 6)) / 10**digits:.{digits}f}"
