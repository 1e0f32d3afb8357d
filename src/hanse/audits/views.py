"""Views: what each party sees of what clients send, by the rules of the chain and the reducer."""

from hanse.audits.subject import Section, Subject, Tell

__all__ = ["audit_views"]

TITLE = "Who sees what?"


def audit_views(subject: Subject, tell: Tell) -> Section:
    """Lists what each party sees in a round. Nothing is attacked for it."""
    split = [view.split(": ", 2) for view in subject.ready.views]
    rows = [tuple(parts) for parts in split if len(parts) == 3]
    tell(1, 1)
    about = "By the settings: the chain that updates go through, and the rule that combines them."
    return Section(TITLE, about, ("part", "who", "sees"), rows)
