"""The audit of a federation: all parts, one after the other, and the claims that they are held to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import hanse.audits.attributes as attributes
import hanse.audits.canaries as canaries
import hanse.audits.costs as costs
import hanse.audits.liars as liars
import hanse.audits.membership as membership
import hanse.audits.reconstruction as reconstruction
import hanse.audits.views as views
from hanse.audits.subject import Section, Subject, Tell
from hanse.config import AuditPlan, Experiment, summary
from hanse.core import HanseError

__all__ = ["AuditResult", "ClaimCheck", "Seen", "check_claims", "perform_audit"]

Seen: TypeAlias = Callable[[str, int, int], None]
"""Called with the part of the audit, the number of its runs that are done, and of all its runs."""

SIMULATED = (
    "The attacks were simulated on the data that the settings name. They show what these attacks find, not "
    "that no other finds more."
)

PARTS: Mapping[str, tuple[str, Callable[[Subject, Tell], Section]]] = {
    "views": (views.TITLE, views.audit_views),
    "reconstruction": (reconstruction.TITLE, reconstruction.audit_reconstruction),
    "membership": (membership.TITLE, membership.audit_membership),
    "attributes": (attributes.TITLE, attributes.audit_attributes),
    "liars": (liars.TITLE, liars.audit_liars),
    "canaries": (canaries.TITLE, canaries.audit_canaries),
    "costs": (costs.TITLE, costs.audit_costs),
}
"""The parts of an audit by name, each with its title."""


@dataclass(frozen=True)
class ClaimCheck:
    """A claim of the table [audit], and whether it holds.

    Args:
      name: such as "max_membership_auc".
      limit: the number that must not be passed.
      measured: the number that was found; None: nothing was measured, and the claim does not hold.
    """

    name: str
    limit: float
    measured: float | None

    @property
    def holds(self) -> bool:
        """Returns whether the claim holds: it was measured, and is within its limit."""
        return self.measured is not None and self.measured <= self.limit

    def __str__(self) -> str:
        if self.measured is None:
            return f"{self.name} = {self.limit:g}: not measured, so it does not hold"
        word = "holds" if self.holds else "does not hold"
        return f"{self.name} = {self.limit:g}: {self.measured:.4g}, it {word}"


@dataclass(frozen=True)
class AuditResult:
    """The findings of an audit, and its claims.

    Args:
      about: the experiment, in a line.
      settings: the experiment, as plain data.
      sections: the findings, by the name of the part.
      claims: the claims that were made.
      data_sha256: the fingerprint of the data that were audited.
      intro: what was attacked, for the page.
    """

    about: str
    settings: Mapping[str, Any]
    sections: Mapping[str, Section]
    claims: tuple[ClaimCheck, ...]
    data_sha256: str
    intro: str = SIMULATED

    @property
    def holds(self) -> bool:
        """Returns whether all claims hold."""
        return all(claim.holds for claim in self.claims)

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as plain data."""
        claims = [
            {"name": c.name, "limit": c.limit, "measured": c.measured, "holds": c.holds} for c in self.claims
        ]
        return {
            "holds": self.holds,
            "claims": claims,
            "sections": {name: section.to_json() for name, section in self.sections.items()},
            "data_sha256": self.data_sha256,
            "settings": dict(self.settings),
        }


def perform_audit(
    experiment: Experiment, plan: AuditPlan = AuditPlan(), seen: Seen | None = None
) -> AuditResult:
    """Attacks a federation as it is configured, in simulation, and measures what the attacks find.

    Args:
      experiment: the federation; liars and baselines of its own are left out.
      plan: what is tried, and the claims.
      seen: is called as parts go on.

    Raises: InvalidInput, CompositionError: if the experiment can't be run at all.
    """
    subject = Subject.prepare(experiment, plan)
    sections: dict[str, Section] = {}
    for name, (title, measure) in PARTS.items():

        def tell(done: int, total: int, name: str = name) -> None:
            if seen is not None:
                seen(name, done, total)

        tell(0, 1)
        try:
            sections[name] = measure(subject, tell)
        except HanseError as error:
            sections[name] = Section(title, missing=str(error))
    settings, data_sha256 = subject.ready.experiment.settings(), subject.ready.population.fingerprint
    return AuditResult(summary(settings), settings, sections, check_claims(plan, sections), data_sha256)


def check_claims(plan: AuditPlan, sections: Mapping[str, Section]) -> tuple[ClaimCheck, ...]:
    """Compares the claims of a plan with what was found."""
    found = {key: number for section in sections.values() for key, number in section.found.items()}
    return tuple(
        ClaimCheck(name, limit, found.get(name.removeprefix("max_"))) for name, limit in plan.claims.items()
    )
