"""A plan as it is sent: what a client decides on can be read before a class of the run is built.

The model may be a value of users' own code, which can be built only once its module is imported, and that is
imported only if the client's owner allows it.
"""

import json
import re
from dataclasses import replace
from typing import Any, TypeVar

from hanse.core import MessageError, value
from hanse.core.exchange import Packed, Stored, digest, pack, unpack
from hanse.network.protocol.envelope import Envelopes
from hanse.network.protocol.wire import PLANS_BYTES, Plan, PlanImport, printable

__all__ = ["SealedPlan", "explain_unreadable", "read_plan", "seal_plan", "unpack_sent"]

T = TypeVar("T")

MOST_CONTAINERS = 250_000
"""The most lists and objects in a header: they take far more memory than their text."""

LATER = ("rounds", "stop", "evaluate_every")
"""Settings with which a run may go on that has begun with others. No client computes by them."""


@value
class SealedPlan:
    """A plan whose model and encoder are packed.

    Args:
      run, settings, imports, envelopes: see `Plan`.
      model: the name of the model's class.
      packed: the rest of the plan.
    """

    run: str
    settings: str
    imports: tuple[PlanImport, ...]
    model: str
    packed: bytes
    envelopes: str = "[]"

    def open(self) -> Plan:
        """Builds the plan. Raises: MessageError: if it can't be read, or its model is of another class."""
        try:
            plan = unpack_sent(self.packed, Plan)
        except MessageError as error:
            raise explain_unreadable("the plan", error) from None
        if type(plan.model).__name__ != self.model:
            raise MessageError(
                f"the plan has the model {type(plan.model).__name__}, not {self.model:.100}, as it says"
            )
        return replace(
            plan, run=self.run, settings=self.settings, imports=self.imports, envelopes=self.envelopes
        )

    def name_computation(self) -> str:
        """Names all by which clients compute: model, encoder, data and modules.

        Not what may be changed between two parts of a run, and what bounds tickets, which are compared.
        """
        said = {name: given for name, given in json.loads(self.settings).items() if name not in LATER}
        modules = tuple((one.name, one.digest) for one in self.imports)
        return digest((json.dumps(said, sort_keys=True), modules, self.model, self.packed))


def seal_plan(plan: Plan) -> SealedPlan:
    """Packs the model and the encoder of a plan."""
    packed = pack(replace(plan, run="", settings="", imports=(), envelopes="[]"))
    model = type(plan.model).__name__
    return SealedPlan(plan.run, plan.settings, plan.imports, model, packed, plan.envelopes)


def unpack_sent(data: Packed, expect: type[T], *, only: tuple[type, ...] | None = None) -> T:
    """Unpacks what a server sent, if all but the values of its tensors is small.

    Args:
      only: the classes that are built; None: all that are known.

    Raises: MessageError.
    """
    view = data.view() if isinstance(data, Stored) else data
    head = bytes(view[8 : 8 + min(PLANS_BYTES, int.from_bytes(view[:8], "little"))])
    if head.count(b"{") + head.count(b"[") > MOST_CONTAINERS:
        raise MessageError(f"a header of more than {MOST_CONTAINERS} lists and objects")
    unpacked: T = unpack(data, expect, only=only, max_head_bytes=PLANS_BYTES)
    return unpacked


def read_plan(data: Packed) -> SealedPlan:
    """Reads a plan that a server sent. No class of the run is built.

    Raises: MessageError: if it is none, or names what can't be a module.
    """
    plan = unpack_sent(data, SealedPlan, only=(SealedPlan, PlanImport))
    kinds: dict[type, tuple[Any, ...]] = {
        str: (plan.run, plan.settings, plan.model, plan.envelopes),
        bytes: (plan.packed,),
    }
    try:
        fine = all(isinstance(one, kind) for kind, held in kinds.items() for one in held)
        fine = fine and plan.run.isalnum() and isinstance(json.loads(plan.settings), dict)
        fine = fine and all(map(_is_readable, plan.imports))
    except (ValueError, TypeError, AttributeError, RecursionError):
        fine = False
    if not fine:
        raise MessageError("the server's plans can't be read")
    Envelopes.read(plan.envelopes)
    return plan


def _is_readable(needed: PlanImport) -> bool:
    """Returns whether an import can be compared with a client's own, and shown to its owner."""
    steps = needed.name.removesuffix(".py").split(".")
    texts = [needed.kind, *needed.files, *needed.files.values()]
    return (
        all(step.isidentifier() for step in steps)
        and re.fullmatch("sha256:[0-9a-f]{64}", needed.digest) is not None
        and all(printable(text) == text for text in texts)
    )


def explain_unreadable(what: str, error: MessageError) -> MessageError:
    """Makes an error of what can't be unpacked, with the cure where a class is not known here."""
    if not str(error).startswith("unknown kind of value"):
        return error
    return MessageError(
        f"{what} uses a class that is not known here ({error}); import its module: the operator names it in "
        "the settings' imports, and this client's owner writes --import FILE.py"
    )
