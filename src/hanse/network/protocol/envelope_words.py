"""A plan in plain words, for the owner of a client's data: what is computed, what leaves, what comes down."""

import difflib
import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hanse.core import PartSpec, Reducer, Release, Spec, TensorSpec, Transform, Work, fields, sgd_rule
from hanse.core.exchange import find_class, find_classes
from hanse.network.protocol.envelope import Envelope, name_one
from hanse.network.protocol.forms import WIDE, Form, to_form, write_form
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.wire import printable

__all__ = ["describe_plan", "find_at_home", "find_fewest", "find_releases", "to_record"]

COLUMNS = 80
PLAIN = to_form(sgd_rule())


def describe_plan(plan: SealedPlan, last: Mapping[str, Any] | None = None) -> list[str]:
    """Describes a plan in lines of 80 columns: what it asks for, and what differs from the last approved one.

    Args:
      plan: as the server sent it. No class of the run need be known here.
      last: the record of the plan that was approved last; see `to_record`. None: there is none.
    """
    record = to_record(plan)
    lines = list(_describe_record(record))
    if last is None:
        return [*_wrap("This is the first plan for this client. It asks for the following."), *lines]
    found = list(_find_differences(last, record))
    head = "Since the last approval, this has changed (- before, + now):"
    return [*lines, "", *([head, *found] if found else _wrap("Nothing has changed since the last approval."))]


def to_record(plan: SealedPlan) -> dict[str, Any]:
    """Returns what is kept of an approved plan, as plain data."""
    return {
        "model": plan.model,
        "settings": json.loads(plan.settings),
        "imports": {needed.name: needed.digest for needed in plan.imports},
        "envelopes": json.loads(plan.envelopes),
    }


def _describe_record(record: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrap(f"The model: {record['model']}")
    for name, digest in record["imports"].items():
        yield from _wrap(f"Code of your own copy: {name} ({digest[:23]}...)")
    for envelope in map(_to_envelope, record["envelopes"]):
        yield from _describe_envelope(envelope)
    if not record["envelopes"]:
        yield from _wrap("It asks nothing of you: whatever the server sends is refused.")


def _to_envelope(said: Mapping[str, Any]) -> Envelope:
    return Envelope(**said)


def _describe_envelope(envelope: Envelope) -> Iterator[str]:
    pattern = envelope.pattern
    phase = ", a phase of a protocol" if envelope.is_phase else ""
    yield ""
    yield from _wrap(f"{envelope.work}, asked of {name_one(envelope.role)}{phase}")
    settings = [
        line for name, held in pattern["work"].items() if name != "$" for line in _list_settings(name, held)
    ]
    if settings:
        yield from _wrap(f"computes: with {', '.join(settings)}", 2)
    step = _describe_phase(envelope)
    if step:
        yield from _wrap(f"does: {step}", 2)
    if find_at_home(envelope.work):
        yield from _wrap("stays: you read the result; it never leaves without share_row = true", 2)
    for name, part in pattern["uplink"].items():
        what = f"your {name} ({_count(part['spec']['tensors'])})"
        if step:
            yield from _wrap(f"leaves: {what}, a step of the protocol that hides single updates", 2)
            continue
        effects = [_find_words(t, Transform, "effect") for t in _list(part["uplink"])]
        where = f"enters {_find_words(part['into'], Reducer, 'disclosure')}"
        yield from _wrap(f"leaves: {', '.join([what, *effects, where])}", 2)
    if envelope.fewest:
        members = "one member" if envelope.fewest == 1 else f"{envelope.fewest} members"
        yield from _wrap(f"counted: the messages of at least {members} together", 2)
    for name, tensors in pattern["shared"].items():
        changes = pattern["downlink"].get(name)
        how = f", as changes ({', '.join(map(write_form, changes))})" if changes else ""
        yield from _wrap(f"comes down: {name} ({_count(tensors)}){how}", 2)
    for name, tensors in pattern["own"].items():
        yield from _wrap(f"comes down to you alone: {name} ({_count(tensors)})", 2)


def _describe_phase(envelope: Envelope) -> str:
    """Describes a phase by its own first sentence; empty: it is none that a reducer known here performs.

    That it is a phase is the server's word alone. So it must come with a reducer that hides single messages.
    """
    work = find_class(envelope.work, Work) if envelope.is_phase else None
    modules = {kind.__module__ for kind in find_classes(Reducer).values() if kind.hides}
    if work is None or work.__module__ not in modules:
        return ""
    return " ".join((work.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")


def _list(form: Form) -> list[Form]:
    return form if isinstance(form, list) else [form]


def _list_settings(name: str, held: Form) -> Iterator[str]:
    """Lists the settings of a work, in words where they are known and not left at what does nothing."""
    if isinstance(held, dict) and held.get("$") == "Steps":
        yield f"learning rate {write_form(held['lr'])}"
        once = held["num_steps"] is None
        yield f"{write_form(held['epochs'])} epochs" if once else f"{write_form(held['num_steps'])} steps"
        yield "full batches" if held["batch_size"] is None else f"batches of {write_form(held['batch_size'])}"
        if held["proximal"] != 0:
            yield f"proximal {write_form(held['proximal'])}"
        if held["rule"] != PLAIN:
            yield write_form(held["rule"])
        if held["lr_scales"]:
            yield f"lr_scales {write_form(held['lr_scales'])}"
    elif isinstance(held, dict) and "$" in held and held.keys() == {"$"}:
        yield f"{name} {held['$']}"
    else:
        yield f"{name} {write_form(held)}"


def _count(tensors: Form) -> str:
    """Counts the numbers of tensors, such as "650 numbers"; names them if each is one number."""
    if isinstance(tensors, dict) and 0 < len(tensors) <= 9 and all(map(_is_number, tensors.values())):
        return ", ".join(tensors)
    sizes = []
    for held in tensors.values() if isinstance(tensors, dict) and WIDE not in tensors else [None]:
        dims = held[1:] if isinstance(held, list) else [None]
        if not all(type(dim) is int for dim in dims):
            return "as many numbers as there are"
        sizes.append(math.prod(dims))
    return "1 number" if sum(sizes) == 1 else f"{sum(sizes):,} numbers"


def _is_number(tensor: Form) -> bool:
    return isinstance(tensor, list) and len(tensor) == 1


def _find_words(form: Form, kind: type, words: str) -> str:
    """Returns what a transform or reducer says of itself, or how it is written if it is not known here."""
    try:
        held = _build(form)
        if isinstance(held, kind):
            return str(getattr(held, words))
    except Exception:  # a stranger's fields may be of any type, and a class of users may do anything
        return write_form(form)
    return f"{write_form(form)}, a {kind.__name__.lower()} of code that is not imported yet"


def find_releases(part: Form) -> tuple[Release, ...] | None:
    """Finds the noise of a part from its form. None: it is not known before a ticket is here.

    >>> from hanse.core import Spec
    >>> form = {f.name: to_form(getattr(PartSpec(Spec({})), f.name)) for f in fields(PartSpec)}
    >>> find_releases(form), find_releases({**form, "max_weight": {"~": "any", "of": "number"}})
    ((), None)
    """
    try:
        said = part["spec"]
        tensors = {name: TensorSpec(tuple(shape), dtype) for name, (dtype, *shape) in said["tensors"].items()}
        others = {f.name: said[f.name] for f in fields(Spec) if f.name != "tensors"}
        weight = part["max_weight"]
        if type(weight) not in (int, float) or any(isinstance(held, dict) for held in others.values()):
            return None
        uplink, into = _build(part["uplink"]), _build(part["into"])
        return PartSpec(Spec(tensors, **others), uplink, into, weight).chain().releases
    except Exception:  # a pattern, or a class that is not imported here
        return None


def find_at_home(work: str) -> str:
    """Finds the name in memory by which a work gives its result to the owner; empty: it gives none.

    The owner reads the result at home, and the policy decides whether its message leaves (`share_row`).
    """
    return str(getattr(find_classes(Work).get(work), "at_home", ""))


def find_fewest(envelope: Envelope) -> int:
    """Finds the fewest members whose messages enter one total, as far as the form of a dispatch says.

    Reducers that hide say it themselves, since clients are lost in the course of their protocols.
    """
    fewest = list[int]()
    for part in envelope.pattern["uplink"].values():
        try:
            into = _build(part["into"])
            fewest.append(into.fewest if into.hides else envelope.fewest)
        except Exception:  # a pattern, or a class that is not imported here
            fewest.append(0 if part["hides"] else envelope.fewest)
    return min(fewest, default=envelope.fewest)


def _build(form: Form) -> Any:
    """Builds a value from its form; a class that is not known here, and a pattern, remain plain data."""
    if isinstance(form, list):
        return tuple(map(_build, form))
    if not isinstance(form, dict) or "$" not in form:
        return form
    cls = find_class(form["$"])
    return form if cls is None else cls(**{name: _build(item) for name, item in form.items() if name != "$"})


def _wrap(text: str, indent: int = 0) -> list[str]:
    space = " " * indent
    return textwrap.wrap(
        printable(text), COLUMNS, initial_indent=space, subsequent_indent=f"{space}  ", break_on_hyphens=False
    ) or [""]


def _find_differences(last: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """Lists what differs between two records: settings by their names, then what they lead to in words."""
    if "envelopes" not in last:  # an earlier version kept the settings alone
        last = {"model": record["model"], "settings": last, "imports": {}, "envelopes": []}
    old, new = _flatten_settings(last["settings"]), _flatten_settings(record["settings"])
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield from _mark("-", [f"{name} = {old[name]}"] if name in old else [])
            yield from _mark("+", [f"{name} = {new[name]}"] if name in new else [])
    for name in sorted({*last["imports"], *record["imports"]}):
        yield from _compare(f"import {name}", last["imports"].get(name), record["imports"].get(name))
    yield from _compare("model", last["model"], record["model"])
    before, after = _list_facts(last), _list_facts(record)
    for work in sorted(before.keys() - after.keys()):
        yield f"- {work}"
    for work in sorted(after.keys() - before.keys()):
        yield f"+ {work}, as above"
    for work in sorted(before.keys() & after.keys()):
        for line in difflib.ndiff(before[work], after[work]):
            if line[0] in "-+":
                yield from _mark(line[0], [f"{work}: {line[2:]}"])


def _compare(name: str, old: str | None, new: str | None) -> Iterator[str]:
    if old != new:
        yield from _mark("-", [] if old is None else [f"{name} {old}"])
        yield from _mark("+", [] if new is None else [f"{name} {new}"])


def _mark(sign: str, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        first, *rest = textwrap.wrap(printable(line), COLUMNS - 2, subsequent_indent="  ") or [""]
        yield f"{sign} {first}"
        yield from (f"{sign} {more}" for more in rest)


def _list_facts(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Lists all that the envelopes of each work cover, one fact a line."""
    facts: dict[str, list[str]] = {}
    for said in record["envelopes"]:
        pattern = {name: held for name, held in said["pattern"].items() if name != "plans"}
        work, role = pattern["work"]["$"], pattern.pop("role")
        name = f"{work}, asked of {name_one(role)}"
        lines = facts.setdefault(name, [])
        lines += [f"{path} = {held}" for path, held in _flatten_settings(pattern).items()]
        lines.append(f"counts at least {said['fewest']}")
    return facts


def _flatten_settings(tree: Any, path: str = "") -> dict[str, str]:
    """Names each leaf of nested settings by its path; a list, a transform or a reducer is a leaf."""
    if not isinstance(tree, dict) or not tree or WIDE in tree:
        return {path: write_form(tree)}
    inner = {name: item for name, item in tree.items() if name != "$"}
    is_leaf = "$" in tree and not (path == "work" or path.startswith("work.") or path.endswith(".spec"))
    if is_leaf or not inner:
        return {path: write_form(tree)}
    found: dict[str, str] = {}
    for name, item in inner.items():
        found |= _flatten_settings(item, f"{path}.{name}" if path else name)
    return found
