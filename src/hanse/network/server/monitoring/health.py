"""Whether a server is ready: its runs' threads live, and its disk and its stores can be used."""

import os
import sqlite3
import tempfile

from hanse.core import StoreError
from hanse.network.protocol.errors import is_disk_full
from hanse.network.server.server import Server

__all__ = ["check_ready"]

PROBE_BYTES = 4096
"""The bytes that are written to find out whether the disk takes more."""


def check_ready(server: Server) -> tuple[str, str] | None:
    """Returns a code and a sentence that say why a server is not ready; None: it is ready.

    Codes: no-run, run-dead, run-failed, disk-full, disk, store.
    """
    led = server.led()
    if not led:
        return "no-run", "the server has begun no run yet"
    for run in led:
        if run.status == "running" and not run.is_alive:
            return "run-dead", "the thread of a run has ended before the run"
        if run.status == "failed":
            return "run-failed", "a run has failed; hanse events says why"
        if run.disk_full:
            return "disk-full", "a run was interrupted because no space was left"
    return _check_disk(server) or _check_stores(server)


def _check_disk(server: Server) -> tuple[str, str] | None:
    try:
        with tempfile.TemporaryFile(dir=server.home) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        if is_disk_full(error):
            return "disk-full", "no space is left in the server's folder"
        return "disk", f"the server's folder can't be written to: {error.strerror}"
    return None


def _check_stores(server: Server) -> tuple[str, str] | None:
    try:
        server.members.open_invitations()
        server.runs.info(server.led()[0].name)
    except (sqlite3.Error, StoreError):
        return "store", "the register of members or the store of runs can't be read"
    return None
