"""A plan becomes work in one order: policy, approval, imports, classes; only then are data opened.

Each ticket is held against the plan's envelopes before anything is computed for it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from hanse.core import MessageError
from hanse.core.exchange import Payload, Task, limit_bytes
from hanse.imports import Import, module_of
from hanse.network.client.home import ClientHome
from hanse.network.client.policy import plan_digest
from hanse.network.protocol.envelope import Envelope, Envelopes, describe_task, describe_ticket
from hanse.network.protocol.envelope_words import find_at_home
from hanse.network.protocol.errors import Forbidden
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.wire import Plan, WorkOrder

__all__ = ["AllowedPlan", "TicketCheck", "allow_plan", "check_again", "note_refusal"]


class AllowedPlan(NamedTuple):
    """A plan that this client takes part in.

    Args:
      imports: the owner's own copies that were imported for it. Another process that computes for the plan
        imports them by `hanse.imports.load_same` before it unpacks anything.
    """

    plan: Plan
    imports: tuple[Import, ...]


@contextmanager
def note_refusal(client_home: ClientHome, sealed: SealedPlan) -> Iterator[None]:
    """Notes in the audit log that a plan is here, if it is new, and that it is refused, if it is."""
    client_home.note_plan(sealed)
    try:
        yield
    except Forbidden as forbidden:
        plan = {"run": sealed.run, "plan": plan_digest(sealed)}
        client_home.audit.write("refuses", sync=False, **plan, code=forbidden.code)
        raise


def allow_plan(
    client_home: ClientHome, sealed: SealedPlan, agree: Callable[[Sequence[str]], bool] | None = None
) -> AllowedPlan:
    """Opens a plan, if the client's owner allows it and all that it imports.

    A plan that needs an approval, or imports something, is written to the client home for `hanse approve`.

    Args:
      agree: asks the owner about a plan that is not approved; None: nobody is there to answer.

    Raises: Forbidden: if the policy does not allow it, or it waits for approval, or an import is not allowed,
      differs or fails. MessageError: if it can't be read.
    """
    with note_refusal(client_home, sealed):
        policy, approvals = client_home.policy, client_home.approvals
        policy.check_plan(sealed)
        if agree is not None and not approvals.is_approved(sealed):
            if not agree(client_home.describe_plan(sealed)):
                raise Forbidden("you do not take part; no data were opened", "approval")
            approvals.approve(sealed)
        if policy.approve_plans or sealed.imports:
            client_home.keep(sealed)
        if policy.approve_plans:
            approvals.check(sealed)
        imports = client_home.own_imports.load(sealed)
        policy.check_releases(Envelopes.read(sealed.envelopes), client_home.spent)
    return AllowedPlan(sealed.open(), imports)


def check_again(client_home: ClientHome, sealed: SealedPlan) -> None:
    """Checks an open plan against the policy as it is now. Raises: Forbidden."""
    policy = client_home.policy
    policy.check_plan(sealed)
    if policy.approve_plans:
        client_home.approvals.check(sealed)
    for needed in sealed.imports:
        if needed.digest not in client_home.own_imports.list_allowed(module_of(needed.name)):
            why = f"this client's policy does not allow {needed.name} ({needed.digest}) any more"
            raise Forbidden(why, "imports")


MOST_CHECKED = 64
"""The most payloads and forms of tasks whose check is remembered."""


class TicketCheck:
    """Compares the tickets of a run with its plan.

    Args:
      envelopes: of the plan.
    """

    def __init__(self, envelopes: Envelopes) -> None:
        self._envelopes = envelopes
        self._checked: dict[tuple[str, str], tuple[Envelope, int | None]] = {}

    @property
    def asks_row(self) -> bool:
        """Returns whether the plan asks for a result that is the owner's own."""
        return any(find_at_home(envelope.work) for envelope in self._envelopes)

    def check(self, client_home: ClientHome, work: WorkOrder, payload: Payload, task: Task) -> Envelope:
        """Checks that a ticket asks nothing beyond the plan, and returns the envelope that admits it.

        Raises: Forbidden: if it does; the error names the field. MessageError: if it can't be read.
        """
        name = type(payload.work).__name__
        if work.work != name:
            raise Forbidden(f"the work is {name}; its order says {work.work}")
        if task.own and not work.own:
            raise Forbidden("its task holds tensors for this client alone, which its order does not say")
        try:
            key = work.payload, json.dumps(describe_task(task), sort_keys=True)
        except Exception as error:  # a stranger's fields may be of any type
            raise MessageError(f"a task that can't be read: {error!r:.300}") from error
        checked = self._checked.get(key)
        if checked is None:
            checked = self._find_envelope(payload, task), limit_bytes(payload.chains)
            if len(self._checked) == MOST_CHECKED:
                self._checked.clear()
            self._checked[key] = checked
        envelope, limit = checked
        if limit is not None and work.limit_bytes != limit:
            raise Forbidden(
                f"its message may take {work.limit_bytes} bytes, says its order; the approved plan says "
                f"{limit}"
            )
        client_home.policy.check_phase(payload.work, envelope)
        return envelope

    def _find_envelope(self, payload: Payload, task: Task) -> Envelope:
        try:
            form = describe_ticket(payload, task)
        except Exception as error:
            raise MessageError(f"a payload that can't be read: {error!r:.300}") from error
        found = self._envelopes.find_envelope(form)
        if found is None:
            raise Forbidden(self._envelopes.find_beyond(form))
        return found
