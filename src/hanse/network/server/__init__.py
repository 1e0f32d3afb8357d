"""The server of a federation: members, tickets, and the runtime that leads a run."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.network.server.api import application
    from hanse.network.server.failed_tickets import FailedTickets
    from hanse.network.server.https import join_line, lead, listen, serving
    from hanse.network.server.job import RunJob
    from hanse.network.server.members import Members
    from hanse.network.server.records import RoundReport, RunEnd, RunStanding
    from hanse.network.server.rehearsal import foresee
    from hanse.network.server.runtime import NetworkSnapshot, Patience
    from hanse.network.server.server import Server
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.network.server.api": ("application",),
            "hanse.network.server.failed_tickets": ("FailedTickets",),
            "hanse.network.server.https": ("join_line", "lead", "listen", "serving"),
            "hanse.network.server.job": ("RunJob",),
            "hanse.network.server.members": ("Members",),
            "hanse.network.server.records": ("RoundReport", "RunEnd", "RunStanding"),
            "hanse.network.server.rehearsal": ("foresee",),
            "hanse.network.server.runtime": ("NetworkSnapshot", "Patience"),
            "hanse.network.server.server": ("Server",),
        },
    )


__all__ = [
    "FailedTickets",
    "Members",
    "NetworkSnapshot",
    "Patience",
    "RoundReport",
    "RunEnd",
    "RunJob",
    "RunStanding",
    "Server",
    "application",
    "foresee",
    "join_line",
    "lead",
    "listen",
    "serving",
]
