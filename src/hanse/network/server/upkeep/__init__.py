"""The upkeep of a server: the choice of open runs, backups, and the removal of what it keeps of members."""

from hanse.network.server.upkeep.at_rest import AtRest, find_server_at_rest
from hanse.network.server.upkeep.backup import back_up, note_restoration, restore_backup
from hanse.network.server.upkeep.forgetting import forget_member
from hanse.network.server.upkeep.open_runs import (
    OtherRunOpen,
    choose_runs,
    close_run,
    find_ended_run,
    open_run,
)

__all__ = [
    "AtRest",
    "OtherRunOpen",
    "back_up",
    "choose_runs",
    "close_run",
    "find_ended_run",
    "find_server_at_rest",
    "forget_member",
    "note_restoration",
    "open_run",
    "restore_backup",
]
