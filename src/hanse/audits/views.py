"""Views: what each party sees of what clients send, by the rules of the chain and the reducer."""

from collections.abc import Sequence

from hanse.audits.subject import Section, Subject, Tell
from hanse.core import Examples

__all__ = ["audit_views"]

TITLE = "Who sees what?"

FEW_ROWS = 2
"""Clients of at most so many rows are named."""


def audit_views(subject: Subject, tell: Tell) -> Section:
    """Lists what each party sees in a round. Nothing is attacked for it."""
    split = [view.split(": ", 2) for view in subject.ready.views]
    rows = [tuple(parts) for parts in split if len(parts) == 3]
    tell(1, 1)
    people = subject.ready.population
    clients = [people.client(i) for i in range(people.num_clients)]
    about = (
        "By the settings: the chain that updates go through, and the rule that combines them. "
        f"{describe_exposed(clients, has_classes=people.num_classes is not None)}"
    )
    return Section(TITLE, about, ("part", "who", "sees"), rows)


def describe_exposed(clients: Sequence[Examples], *, has_classes: bool) -> str:
    """Says how many clients are exposed more than others: those of few rows, and those of one class."""
    said, few = list[str](), sum(len(own) <= FEW_ROWS for own in clients)
    if few:
        said.append(
            f"{few} of {len(clients)} clients hold at most {FEW_ROWS} rows; so few hardly hide each other."
        )
    alike = sum(has_classes and own.y.ndim == 1 and len(set(own.y.tolist())) == 1 for own in clients)
    if alike:
        said.append(
            f"{alike} of {len(clients)} clients hold rows of one class: whoever sees such a client's message "
            "knows the class of all its rows."
        )
    return " ".join(said)
