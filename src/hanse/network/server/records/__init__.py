"""The records of a server beside its runs' stores: events for the operator, and outcomes of tickets."""

from hanse.network.server.records.attendance import Attendance, AttendanceBook
from hanse.network.server.records.counts import ChangeCount
from hanse.network.server.records.events import MAX_EVENTS, MAX_OF_ONE, Events
from hanse.network.server.records.names import check_party, find_name
from hanse.network.server.records.outcomes import MAX_TOLD, Outcome, Outcomes, check_outcomes
from hanse.network.server.records.recording import Recording
from hanse.network.server.records.register import open_register
from hanse.network.server.records.rounds import (
    NAMED,
    RoundReport,
    RunEnd,
    RunStanding,
    describe_party,
    order_parties,
)

__all__ = [
    "MAX_EVENTS",
    "MAX_OF_ONE",
    "MAX_TOLD",
    "NAMED",
    "Attendance",
    "AttendanceBook",
    "ChangeCount",
    "Events",
    "Outcome",
    "Outcomes",
    "Recording",
    "RoundReport",
    "RunEnd",
    "RunStanding",
    "check_outcomes",
    "check_party",
    "describe_party",
    "find_name",
    "open_register",
    "order_parties",
]
