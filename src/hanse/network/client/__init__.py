"""A client of a federation: its requests to the server, its own policy, limits and audit log."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.network.client.allowed_plan import TicketCheck, allow_plan, check_again
    from hanse.network.client.approved_imports import read_contents
    from hanse.network.client.audit import AuditLog
    from hanse.network.client.client import Client
    from hanse.network.client.code_review import describe_code
    from hanse.network.client.enrolment import (
        check,
        examine,
        fetch_plans,
        join,
        leave,
        rotate_key,
        waiting_plans,
    )
    from hanse.network.client.gate import ask_kept_head
    from hanse.network.client.home import NEXT_KEY, ClientHome
    from hanse.network.client.isolation import describe_isolation, find_isolation
    from hanse.network.client.joining import Entrant, Owner, Sources, join_in_order, try_joining
    from hanse.network.client.memory_parts import read_parts
    from hanse.network.client.own_imports import write_option
    from hanse.network.client.policy import plan_digest
    from hanse.network.client.transport import patiently
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.network.client.allowed_plan": ("TicketCheck", "allow_plan", "check_again"),
            "hanse.network.client.approved_imports": ("read_contents",),
            "hanse.network.client.audit": ("AuditLog",),
            "hanse.network.client.client": ("Client",),
            "hanse.network.client.code_review": ("describe_code",),
            "hanse.network.client.enrolment": (
                "check",
                "examine",
                "fetch_plans",
                "join",
                "leave",
                "rotate_key",
                "waiting_plans",
            ),
            "hanse.network.client.gate": ("ask_kept_head",),
            "hanse.network.client.home": ("ClientHome", "NEXT_KEY"),
            "hanse.network.client.isolation": ("describe_isolation", "find_isolation"),
            "hanse.network.client.joining": (
                "Entrant",
                "Owner",
                "Sources",
                "join_in_order",
                "try_joining",
            ),
            "hanse.network.client.memory_parts": ("read_parts",),
            "hanse.network.client.own_imports": ("write_option",),
            "hanse.network.client.policy": ("plan_digest",),
            "hanse.network.client.transport": ("patiently",),
        },
    )


__all__ = [
    "NEXT_KEY",
    "AuditLog",
    "Client",
    "ClientHome",
    "Entrant",
    "Owner",
    "Sources",
    "TicketCheck",
    "allow_plan",
    "ask_kept_head",
    "check",
    "check_again",
    "describe_code",
    "describe_isolation",
    "examine",
    "fetch_plans",
    "find_isolation",
    "join",
    "join_in_order",
    "leave",
    "patiently",
    "plan_digest",
    "read_contents",
    "read_parts",
    "rotate_key",
    "try_joining",
    "waiting_plans",
    "write_option",
]
