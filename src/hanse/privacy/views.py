"""Views: what each party sees of a part of clients' messages, in words, from its chain and its reducer."""

from collections.abc import Iterator
from typing import NamedTuple

from hanse.core import PartSpec

__all__ = ["View", "describe_views"]


class View(NamedTuple):
    """The view of one party, or of all parties of a kind, of a part."""

    who: str
    sees: str

    def __str__(self) -> str:
        return f"{self.who}: {self.sees}"


def describe_views(part_spec: PartSpec, *, noises_examples: bool = False) -> tuple[View, ...]:
    """Describes who sees what of a part.

    Args:
      noises_examples: whether the part was noised at its client, for each example, before its chain; see
        `noises_examples`.

    Raises: CompositionError: if its chain and reducer do not fit.

    >>> from hanse.core import Spec, mean
    >>> for view in describe_views(PartSpec(Spec({}), (), mean())):
    ...     print(view)
    the server: each client's own message
    fellow clients: only what is sent to them, such as models that are made of the total
    the world: what is published, such as models; no noise limits what these tell of a client
    """
    return tuple(_describe(part_spec, noises_examples))


def _describe(part_spec: PartSpec, noises_examples: bool) -> Iterator[View]:
    chain, into = part_spec.chain(), part_spec.into
    shares = max((stage.fewest for stage in chain.stages), default=0)
    is_central = bool(chain.calibrated) and not shares
    is_local = bool(chain.releases) and not chain.calibrated
    if into.hides:
        many = f"of at least {into.fewest} clients" if into.fewest else "of the clients that answer"
        noise = f" with the noise of {shares} or more in it" if shares else ""
        total = f"the total {many}{noise}, and no single message"
        if into.condition:
            total += f", {into.condition}"
        if is_central:
            total += "; it adds noise to the total only after it has seen it"
    else:
        total = "each client's own message" + (", which its client has noised" if is_local else "")
        total += ", which its client has noised to hide each example" if noises_examples else ""
        if is_central:
            total += "; it adds noise to the total"
    yield View("the server", total)
    for name in into.parties:
        yield View(name, "the same total, which it decrypts; together with the server, single messages")
    yield View("fellow clients", "only what is sent to them, such as models that are made of the total")
    told = "noise limits what these tell of a client"
    if not chain.releases:
        told = f"no {told}" + (", but noise at each client what they tell of an example" * noises_examples)
    yield View("the world", f"what is published, such as models; {told}")
    if into.hides:
        bounds = ", not even that it is clipped" if any(s.out.l2_bound for s in chain.stages) else ""
        yield View(
            "nobody", f"can check what a client puts into the total{bounds}: a liar can move it at will"
        )
