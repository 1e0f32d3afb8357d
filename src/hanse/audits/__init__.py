"""Audits: a federation is attacked as it is configured, and its claims are held to what the attacks find."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.audits.page import draw_audit, draw_pictures
    from hanse.audits.recorded import audit_recording
    from hanse.audits.session import AuditResult, ClaimCheck, Seen, perform_audit
    from hanse.audits.subject import Section
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.audits.page": ("draw_audit", "draw_pictures"),
            "hanse.audits.recorded": ("audit_recording",),
            "hanse.audits.session": ("AuditResult", "ClaimCheck", "Seen", "perform_audit"),
            "hanse.audits.subject": ("Section",),
        },
    )


__all__ = [
    "AuditResult",
    "ClaimCheck",
    "Section",
    "Seen",
    "audit_recording",
    "draw_audit",
    "draw_pictures",
    "perform_audit",
]
