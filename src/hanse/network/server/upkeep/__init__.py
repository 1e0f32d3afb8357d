"""What a server needs between its runs: the choice of open runs, backups, and the removal of what it keeps."""

from hanse.network.server.upkeep.open_runs import OtherRunOpen, choose_runs

__all__ = ["OtherRunOpen", "choose_runs"]
