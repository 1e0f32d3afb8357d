"""The heads of the members' audit logs, so that a log that was rewritten or cut shows."""

import contextlib
import sqlite3
import time

from hanse.network.protocol.wire import AuditHead, KeptHead
from hanse.network.server.members import Member, Members

__all__ = ["AuditHeads"]

WRITE_S = 5.0
"""The newest heads are written to the register at most so often, because each poll may bring one."""


class AuditHeads:
    """Keeps the newest head of each member's audit log. The register may lag behind by some seconds.

    Args:
      members: the register.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._kept = members.read_audit_heads()
        self._new: dict[str, KeptHead] = {}
        self._written_s = time.monotonic()

    def find(self, member: Member) -> KeptHead:
        """Returns the head that is kept for a member."""
        return self._kept.get(member.id, KeptHead())

    def keep(self, member: Member, shown: AuditHead) -> KeptHead | None:
        """Keeps a head that goes on from the last one; else returns the last one, and blames the member."""
        kept = self.find(member)
        if shown.lines < kept.lines or (shown.lines == kept.lines and shown.hash != kept.hash):
            how = "ends earlier" if shown.lines < kept.lines else "has another line there"
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(kept.at))
            self._members.note(
                member.name,
                f"shows another audit log: the server keeps line {kept.lines} of {at}, and this log {how}. "
                "It was cut or rewritten, restored from an older copy, or is used in two places",
                code="audit log",
                source=member.id,
            )
            return kept
        if shown.lines > kept.lines:
            if shown.begun != kept.begun:
                what = f"has begun a new audit log with line {shown.begun + 1}; the server kept line "
                what += f"{kept.lines} of the last one"
                self._members.note(member.name, what, code="new audit log", source=member.id)
            head = KeptHead(lines=shown.lines, hash=shown.hash, begun=shown.begun, at=time.time())
            self._kept[member.id] = self._new[member.id] = head
            if time.monotonic() - self._written_s >= WRITE_S:
                self.write()
        return None

    def write(self) -> None:
        """Writes new heads to the register."""
        self._written_s = time.monotonic()
        with contextlib.suppress(sqlite3.OperationalError):  # serving goes on with a full disk
            self._members.write_audit_heads(self._new)
            self._new.clear()
