"""A plan becomes work in one order: policy, approval, imports, classes; only then are data opened."""

from typing import NamedTuple

from hanse.imports import Import
from hanse.network.client.home import ClientHome
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.wire import Plan

__all__ = ["AllowedPlan", "allow_plan"]


class AllowedPlan(NamedTuple):
    """A plan that this client takes part in.

    Args:
      imports: the owner's own copies that were imported for it. Another process that computes for the plan
        imports them by `hanse.imports.load_same` before it unpacks anything.
    """

    plan: Plan
    imports: tuple[Import, ...]


def allow_plan(client_home: ClientHome, sealed: SealedPlan) -> AllowedPlan:
    """Opens a plan, if the client's owner allows it and all that it imports.

    A plan that needs an approval, or imports something, is written to the client home for `hanse approve`.

    Raises: Forbidden: if the policy does not allow it, or it waits for approval, or an import is not allowed,
      differs or fails. MessageError: if it can't be read.
    """
    policy = client_home.policy
    policy.check_plan(sealed)
    if policy.approve_plans or sealed.imports:
        client_home.keep(sealed)
    if policy.approve_plans:
        client_home.approvals.check(sealed)
    imports = client_home.own_imports.load(sealed)
    return AllowedPlan(sealed.open(), imports)
