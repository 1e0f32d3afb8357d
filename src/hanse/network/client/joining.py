"""Joining, in the one order in which no data are opened, and nothing is promised, too early."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from hanse.core import InvalidInput, Work
from hanse.core.exchange import find_class
from hanse.network.client.allowed_plan import allow_plan
from hanse.network.client.enrolment import check, check_address, examine, fetch_plans, join, rotate_key
from hanse.network.client.gate import check_versions
from hanse.network.client.home import HOUSES_KEY, NEXT_KEY, ClientHome
from hanse.network.client.transport import patiently
from hanse.network.protocol.envelope import Envelopes
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.tokens import Token
from hanse.network.protocol.wire import Join, Plan

__all__ = ["Entrant", "Owner", "Sources", "join_in_order", "try_joining"]


class Sources(NamedTuple):
    """The functions that give a client's own examples for a plan.

    Args:
      data: to train on.
      test: to test on; None: there are none.
      examined: whether test examples are examined before the client joins.
    """

    data: Callable[[Plan], Any]
    test: Callable[[Plan], Any] | None
    examined: bool = False


@dataclass(frozen=True)
class Owner:
    """The answers of a client's owner while the client joins.

    Args:
      open_data: opens the data, given the plans that were allowed and this client's number.
      bind: makes the learner of a plan.
      say: is called with a line for the owner.
      agree: answers whether to take part in a plan, given lines about it; None: nobody is there to answer, so
        only the policy decides.
    """

    open_data: Callable[[Sequence[Plan], int], Sources]
    bind: Callable[[Plan], Any]
    say: Callable[[str], None]
    agree: Callable[[Sequence[str]], bool] | None = None


@dataclass(frozen=True)
class Entrant:
    """The invitation of a client that joins; a member that returns needs none.

    Args:
      url, token: the server's address and the invitation.
      name: by which the operator will know the client.
      new_key: whether a member replaces its key first.
      new_server_key: whether a member trusts the server's key in the token in place of the one it has kept.

    Raises: InvalidInput: if the server would not take the name.
    """

    url: str | None = None
    token: Token | None = None
    name: str = ""
    new_key: bool = False
    new_server_key: bool = False

    def __post_init__(self) -> None:
        try:
            Join(name=self.name)
        except ValidationError:
            raise InvalidInput(
                f"--name {self.name!r:.120} can't be shown as one line; write at most 100 characters, "
                "none of which controls the terminal"
            ) from None


def join_in_order(client_home: ClientHome, entrant: Entrant, owner: Owner) -> Sources:
    """Joins a federation, or returns to it.

    1. The invitation is proven, and plans come.
    2. Each plan passes the policy and its owner's approval; what it imports is approved.
    3. The data are opened, and found to suit their contract and the plan.
    4. The client enrols.

    A client that ends at one step has not taken the next: a plan that is not approved opens no data, and who
    can't take part is no member.

    Raises: Forbidden, Refused, Unreachable, InvalidInput.
    """
    for line in client_home.list_rows():
        owner.say(line)
    plans, number = _receive_plans(client_home, entrant, owner.say)
    allowed = [allow_plan(client_home, plan, owner.agree).plan for plan in plans]
    _check_houses(client_home, plans)
    sources = owner.open_data(allowed, number)
    for plan in plans:
        test = sources.test if sources.examined else None
        found = examine(client_home, plan, sources.data, owner.bind, test)
        owner.say(f"run {plan.run}: {describe_counts(found)} suit it")
    if client_home.membership is None and entrant.url is not None and entrant.token is not None:
        join(client_home, entrant.url, entrant.token, entrant.name)
    return sources


def try_joining(
    client_home: ClientHome,
    entrant: Entrant,
    owner: Owner,
    describe: Callable[[SealedPlan], None],
    show: Callable[[Plan], None],
    with_data: bool,
) -> None:
    """Tries all steps but the last, and asks nothing; see `join_in_order`.

    Args:
      describe: is called with each plan, before the policy is asked and before anything is imported.
      show: is called with each plan that is allowed, once its imports are there.
      with_data: whether data are opened.

    Raises: Forbidden, Refused, Unreachable, InvalidInput.
    """
    if entrant.url is None or entrant.token is None:
        raise InvalidInput("to check, write hanse join https://HOST:PORT --token-file FILE --check")
    plans, number = check(client_home, entrant.url, entrant.token)
    owner.say("network, certificate, versions, invitation: fine")
    for sealed in plans:
        describe(sealed)
    allowed = [allow_plan(client_home, sealed).plan for sealed in plans]
    if _check_houses(client_home, plans):
        owner.say("the secret of the houses: it is here")
    for plan in allowed:
        show(plan)
    if not with_data:
        for plan in allowed:
            owner.bind(plan)
            owner.say(f"run {plan.run}: {type(plan.model).__name__} can be trained here")
        return
    sources = owner.open_data(allowed, number)
    for sealed, plan in zip(plans, allowed, strict=True):
        test = sources.test if sources.examined else None
        found = examine(client_home, sealed, sources.data, owner.bind, test)
        owner.say(f"run {plan.run}: {describe_counts(found)} suit {type(plan.model).__name__}")


def _check_houses(client_home: ClientHome, plans: Sequence[SealedPlan]) -> bool:
    """Checks that the secret of the houses is here if a work of a plan reads it; returns whether one does.

    Raises: InvalidInput: if it is missing or damaged.
    """
    works = {envelope.work for plan in plans for envelope in Envelopes.read(plan.envelopes)}
    reading = sorted(name for name in works if (work := find_class(name, Work)) and work.needs_houses)
    if reading and client_home.houses is None:
        raise InvalidInput(
            f"the plan has {', '.join(reading)}, for which the houses share a secret that the server does "
            f"not know: get the file from the house that made it, not through the server, and put it at "
            f"{client_home.folder / HOUSES_KEY}"
        )
    return bool(reading)


def _receive_plans(
    client_home: ClientHome, entrant: Entrant, say: Callable[[str], None]
) -> tuple[list[SealedPlan], int]:
    """Returns the plans of the server's runs, and this client's number; replaces a member's key first."""
    if client_home.membership is None:
        if entrant.url is None or entrant.token is None:
            raise InvalidInput("write hanse join https://HOST:PORT --token-file FILE --data FILE")
        return fetch_plans(client_home, entrant.url, entrant.token)
    check_versions(client_home)
    if entrant.url is not None and entrant.token is not None:  # the token may name a new certificate
        trusted = entrant.new_server_key
        join(client_home, entrant.url, entrant.token, entrant.name, new_server_key=trusted)
    elif entrant.url is not None:
        check_address(client_home, entrant.url)
    if entrant.new_key or (client_home.folder / NEXT_KEY).exists():  # an earlier one may have been cut off
        rotate_key(client_home)
        say(f"its key is {client_home.identity.public[:16]}... now")
    return patiently(lambda: fetch_plans(client_home), _pause, say)


def _pause(wait_s: float) -> bool:
    time.sleep(wait_s)
    return False


def describe_counts(found: Mapping[str, int]) -> str:
    """Describes how many examples were found."""
    return " and ".join(f"{count} {what}" for what, count in found.items()) or "no data"
