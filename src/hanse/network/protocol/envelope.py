"""Envelopes: what a run may ask of its members, apart from the values of tensors.

The *form* of a dispatch is plain data: its work with all settings, the specs of what is broadcast, its
channels with their transforms, reducers and caps, and who is asked. An *envelope* is a pattern of forms. A
plan carries the envelopes of all dispatches of its run, and a client computes nothing whose form none of them
admits.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hanse.core import MessageError, PartSpec, PartyId, Plan, fields
from hanse.core.exchange import Dispatch, Payload, Task, digest, find_test_client
from hanse.network.protocol.forms import (
    MISSING,
    WIDE,
    Excess,
    Form,
    check_pattern,
    describe_tensor,
    find_excess,
    loosen,
    to_form,
    write_form,
)

__all__ = [
    "CLIENT",
    "TEST",
    "Envelope",
    "Envelopes",
    "describe_dispatch",
    "describe_task",
    "describe_ticket",
    "name_one",
    "name_role",
]

OF_FORM = ("role", "work", "uplink", "shared", "downlink", "own", "plans")
"""The names of what the form of a ticket says, in the order in which they are compared."""

CHANGES: Form = {"$": "changes"}
"""The form of a broadcast that is sent as changes to the version that its reader holds."""

CLIENT, TEST = "client", "test"


def name_role(party: PartyId) -> str:
    """Names the role of a party in an envelope.

    >>> name_role(3), name_role("test/3"), name_role("laboratory")
    ('client', 'test', 'laboratory')
    """
    if isinstance(party, int):
        return CLIENT
    return party if find_test_client(party) is None else TEST


def name_one(role: str) -> str:
    """Names one member that plays a role: "a client", "a client's own test examples", "laboratory"."""
    return {CLIENT: "a client", TEST: "a client's own test examples"}.get(role, role)


# -- forms of dispatches -----------------------------------------------------------------------


def _describe_tensors(tensors: Mapping[str, Any]) -> Form:
    return {name: describe_tensor(tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}


def _describe_shared(shared: Mapping[str, Any]) -> Form:
    return {name: _describe_tensors(tensors) for name, tensors in shared.items()}


def _describe_part(part_spec: PartSpec) -> Form:
    form = {f.name: to_form(getattr(part_spec, f.name)) for f in fields(PartSpec)}
    return {**form, "hides": bool(part_spec.into.hides)}


def describe_task(task: Task) -> Form:
    """Describes the fields of a ticket's form that its task says, not its payload."""
    return {"role": name_role(task.party), "own": _describe_shared(task.own)}


def describe_ticket(payload: Payload, task: Task) -> Form:
    """Describes what a ticket asks of its holder. Every field of a payload and a task is in it, or refused.

    The number of a ticket, its key and the ticket that it goes on from are the server's to choose.
    """
    broadcasts = payload.broadcasts
    whole = {
        name: CHANGES if b.whole is None else _describe_tensors(b.whole) for name, b in broadcasts.items()
    }
    return {
        **describe_task(task),
        "work": to_form(payload.work),
        "shared": {**_describe_shared(payload.shared), **whole},
        "downlink": {name: to_form(b.transforms) for name, b in broadcasts.items()},
        "uplink": {name: _describe_part(part_spec) for name, part_spec in payload.uplink.items()},
        "plans": {name: to_form(plans) for name, plans in payload.plans.items()},
    }


def describe_dispatch(command: Dispatch, party: PartyId, plans: Mapping[str, tuple[Plan, ...]]) -> Form:
    """Describes, before it is sent, what a dispatch asks of a party: the form of its tickets.

    Args:
      plans: public plans of its parts, such as the server may draw.
    """
    downlink = to_form(command.downlink)
    return {
        "role": name_role(party),
        "work": to_form(command.work),
        "shared": _describe_shared(command.shared),
        "downlink": dict.fromkeys(command.shared, downlink) if command.downlink else {},
        "uplink": {name: _describe_part(part_spec) for name, part_spec in command.uplink.items()},
        "plans": {name: loosen(to_form(drawn)) for name, drawn in plans.items()},
        "own": _describe_shared(command.own.get(party, {})),
    }


# -- envelopes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Envelope:
    """The bounds of what one dispatch of a run may ask of the members that play a role.

    Args:
      pattern: of the forms of its tickets.
      fewest: the fewest members whose messages enter its totals, as far as the program says; 0: unknown.
      is_phase: whether it is a phase of a reducer's protocol.
    """

    pattern: Form
    fewest: int = 0
    is_phase: bool = False

    @property
    def role(self) -> str:
        """The role of the members that are asked."""
        return str(self.pattern["role"])

    @property
    def work(self) -> str:
        """The name of the work."""
        return str(self.pattern["work"]["$"])

    def admits(self, form: Form) -> bool:
        """Returns whether a ticket of this form is within the envelope."""
        return self.find_excess(form) is None

    def find_excess(self, form: Form) -> Excess | None:
        """Returns the first field of a ticket that is not as the envelope says."""
        # Which tensors changes lead to is known once they are applied to what the client holds.
        sent, shared = form["shared"], self.pattern["shared"]
        changed = {name for name in form["downlink"] if sent.get(name) == CHANGES and name in shared}
        held = {name: tensors for name, tensors in sent.items() if name not in changed}
        known = {name: tensors for name, tensors in shared.items() if name not in changed}
        for name in OF_FORM:
            pattern, given = (known, held) if name == "shared" else (self.pattern[name], form[name])
            found = find_excess(pattern, given, (name,))
            if found is not None:
                return self._widen(found, form)
        return None

    def _widen(self, excess: Excess, form: Form) -> Excess:
        """Returns the whole transform in place of one of its settings."""
        path = excess.path[:4]
        if len(excess.path) <= 4 or path[::2] != ("uplink", "uplink"):
            return excess
        _, part, _, number = path
        of_part = form["uplink"][part]["uplink"], self.pattern["uplink"][part]["uplink"]
        given, allowed = (chain[int(number)] for chain in of_part)
        return Excess(path, given, allowed)

    def to_plain(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {"pattern": self.pattern, "fewest": self.fewest, "is_phase": self.is_phase}


@dataclass(frozen=True)
class Envelopes:
    """The envelopes of all dispatches of a run.

    >>> Envelopes.read("[]").find_beyond({"role": "client", "work": {"$": "local_sgd"}})
    'the approved plan asks nothing of a client'
    """

    all: tuple[Envelope, ...]

    @classmethod
    def read(cls, text: str) -> "Envelopes":
        """Reads what `write` wrote, from a stranger. Raises: MessageError: if it can't be read."""
        try:
            found = tuple(Envelope(**said) for said in json.loads(text))
            for envelope in found:
                _check(envelope)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise MessageError(f"the plan's envelopes can't be read: {error!r:.200}") from None
        return cls(found)

    def write(self) -> str:
        """Writes them as JSON."""
        return json.dumps([e.to_plain() for e in self.all], sort_keys=True, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all envelopes, in hexadecimal."""
        return digest(self.write())

    def __iter__(self) -> Iterator[Envelope]:
        return iter(self.all)

    def find_envelope(self, form: Form) -> Envelope | None:
        """Returns an envelope that admits a ticket of this form; None: there is none."""
        return next((envelope for envelope in self._suited(form) if envelope.admits(form)), None)

    def find_beyond(self, form: Form) -> str:
        """Says which field of a ticket goes beyond the plan; empty: an envelope admits it."""
        suited = self._suited(form)
        if not suited:
            role, work = name_one(form["role"]), form["work"]["$"]
            asked = sorted({e.work for e in self.all if e.role == form["role"]})
            if not asked:
                return f"the approved plan asks nothing of {role}"
            return f"the work is {work}; the approved plan asks {', '.join(asked)} of {role}"
        excesses = [envelope.find_excess(form) for envelope in suited]
        if None in excesses:
            return ""
        nearest = max((e for e in excesses if e is not None), key=lambda e: len(e.path))
        return describe_excess(nearest)

    def _suited(self, form: Form) -> list[Envelope]:
        of_work = [e for e in self.all if (e.role, e.work) == (form["role"], form["work"]["$"])]
        same_parts = [e for e in of_work if e.pattern["uplink"].keys() == form["uplink"].keys()]
        return same_parts or of_work


def _check(envelope: Envelope) -> None:
    """Raises ValueError if an envelope is not as it should be."""
    pattern, numbers = envelope.pattern, (type(envelope.fewest), type(envelope.is_phase))
    if numbers != (int, bool) or set(pattern) != set(OF_FORM):
        raise ValueError("an envelope of unknown form")
    for name in ("work", *OF_FORM[2:]):
        if not isinstance(pattern[name], dict) or WIDE in pattern[name]:
            raise ValueError(f"{name} is {pattern[name]!r:.100}")
    if type(pattern["role"]) is not str or type(pattern["work"]["$"]) is not str:
        raise ValueError("a role or work without a name")
    for part in pattern["uplink"].values():
        if part.keys() != {*(f.name for f in fields(PartSpec)), "hides"} or type(part["hides"]) is not bool:
            raise ValueError("a part of unknown form")
    check_pattern(pattern)


def describe_excess(excess: Excess) -> str:
    """Describes a field that goes beyond the approved plan, for the owner of the data."""
    (first, *rest), where = excess.path, ""
    if first == "work":
        where = f"the work's {'.'.join(rest)}" if rest else "the work"
    elif first == "uplink" and rest:
        named = {"uplink": "the chain", "into": "the reducer", "max_weight": "the largest weight"}
        part, *names = rest
        where = f"part {part!r}"
        if names:
            what = named.get(names[0], f"the {names[0]}")
            inside = ".".join(names[1:]) if names[0] != "uplink" else ""
            where = f"{what}{inside and ' '}{inside} of {where}"
    elif first == "shared" and rest:
        where = f"the broadcast {'/'.join(rest)}"
    elif first == "own" and rest:
        where = f"the client's own tensors {'/'.join(rest)}"
    elif first == "downlink":
        where = f"the downlink of {'/'.join(rest)}"
    else:
        where = f"the {' '.join(excess.path)}"
    given = "missing" if excess.given == MISSING else write_form(excess.given)
    allowed = "does not have it" if excess.allowed == MISSING else f"says {write_form(excess.allowed)}"
    return f"{where} is {given:.200}; the approved plan {allowed:.300}"
