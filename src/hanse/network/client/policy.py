"""A client's policy, which its owner writes in a file of the client home."""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field, fields, replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput, nearest
from hanse.core.exchange import digest
from hanse.network.protocol.errors import Forbidden
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.wire import printable

__all__ = ["Approvals", "Policy", "count_rows"]


@dataclass(frozen=True)
class Policy:
    """Bounds on what a server may ask of this client. None: no bound.

    Args:
      works: names of the works that may run; None: all that are installed.
      models: names of the models that may be trained.
      max_tickets: in one run.
      max_upload_bytes: in one run, all messages together.
      max_message_bytes: in one message.
      min_examples: fewer are never trained on, because single ones could be told apart.
      max_ticket_s: seconds of computation for one ticket; then it is stopped.
      max_day_s: seconds of computation in a day, all runs together.
      approve_plans: whether each new plan waits until the client's owner approves it.
      imports: the digests of the owner's own copies of modules that plans may name, by the name of the
        module, or by the path of its file below the client home.
    """

    works: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    max_tickets: int | None = None
    max_upload_bytes: int | None = None
    max_message_bytes: int | None = None
    min_examples: int = 1
    max_ticket_s: float | None = None
    max_day_s: float | None = None
    approve_plans: bool = False
    imports: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Policy":
        """Reads a policy from a TOML file; without one, returns the defaults. Raises: InvalidInput."""
        if not path.exists():
            return cls()
        try:
            said: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path} is not TOML: {error}") from None
        return cls(**{key: _check_setting(path, key, given) for key, given in said.items()})

    def check_work(self, work: str, sends_bytes: int) -> None:
        """Checks a work and the size of its message. Raises: Forbidden: if it may not run."""
        if self.works is not None and work not in self.works:
            raise Forbidden(f"this client's policy allows the works {', '.join(self.works)}, not {work}")
        if self.max_message_bytes is not None and sends_bytes > self.max_message_bytes:
            raise Forbidden(
                f"this client's policy allows messages of {self.max_message_bytes} bytes, not {sends_bytes}"
            )

    def check_plan(self, plan: SealedPlan) -> None:
        """Checks the model of a plan. Raises: Forbidden: if it may not be trained."""
        if self.models is not None and plan.model not in self.models:
            model = printable(plan.model[:100])
            raise Forbidden(f"this client's policy allows the models {', '.join(self.models)}, not {model}")

    def check_data(self, num_examples: int | None) -> None:
        """Checks the number of examples; None: they can't be counted. Raises: Forbidden: if too few."""
        if num_examples is None and self.min_examples > 1:
            raise Forbidden(
                f"this client's policy wants {self.min_examples} examples for any training, and its data "
                "can't be counted: give an object whose len is the number of rows, or set min_examples to 1"
            )
        if num_examples is not None and num_examples < self.min_examples:
            raise Forbidden(
                f"this client's policy wants {self.min_examples} examples for any training, and it has fewer"
            )

    def check_use(self, num_tickets: int, num_bytes: int) -> None:
        """Checks a run's tickets and bytes, the next ticket included. Raises: Forbidden: if too many."""
        if self.max_tickets is not None and num_tickets > self.max_tickets:
            raise Forbidden(
                f"this client's policy allows {self.max_tickets} tickets a run, and they are used up",
                "budget",
            )
        if self.max_upload_bytes is not None and num_bytes > self.max_upload_bytes:
            raise Forbidden(
                f"this client's policy allows {self.max_upload_bytes} bytes a run to leave it", "budget"
            )

    def limit_s(self, used_today_s: float) -> float | None:
        """Returns the seconds allowed for the next ticket; None: any. Raises: Forbidden: if none is left."""
        left = math.inf if self.max_day_s is None else self.max_day_s - used_today_s
        if left <= 0:
            raise Forbidden(
                f"this client's policy allows {self.max_day_s:g} s of computation a day: they are used up",
                "time",
            )
        limit = min(left, math.inf if self.max_ticket_s is None else self.max_ticket_s)
        return limit if math.isfinite(limit) else None


DIGEST = re.compile("sha256:[0-9a-f]{64}")

_WORDS = {
    int: "a whole number",
    float: "seconds, such as 60",
    bool: "true or false",
    list: 'a list of names, such as ["local_sgd"]',
    dict: 'a table of digests, such as {"my_module.py" = "sha256:..."}, as hanse approve shows them',
}
_KINDS: dict[str, type] = {
    "works": list,
    "models": list,
    "max_ticket_s": float,
    "max_day_s": float,
    "approve_plans": bool,
    "imports": dict,
}


def _check_setting(path: Path, key: str, given: Any) -> Any:
    known = {f.name: _KINDS.get(f.name, int) for f in fields(Policy)}
    if key == "send_traces":
        raise InvalidInput(
            f"{path}: send_traces is no setting any more; remove it. The texts of errors are never sent: "
            "they are in client.log, beside this file"
        )
    if key not in known:
        raise InvalidInput(f"{path}: {key} is not a setting of a policy; {nearest(key, known)}")
    kind = known[key]
    if kind is float and type(given) is int:
        given = float(given)
    wrong = type(given) is not kind
    if isinstance(given, list):
        wrong = wrong or not all(isinstance(word, str) for word in given)
    if isinstance(given, dict):
        wrong = wrong or not all(isinstance(d, str) and DIGEST.fullmatch(d) for d in given.values())
    if wrong:
        raise InvalidInput(f"{path}: {key} is {given!r}; write {_WORDS[kind]}")
    return tuple(given) if isinstance(given, list) else given


def count_rows(data: Any) -> int | None:
    """Counts the examples in a client's own data by their length; None: they can't be counted so.

    The length of a mapping or tuple would count columns.

    >>> count_rows(["a text", "another"]), count_rows({"age": [61, 62]}), count_rows(())
    (2, None, 0)
    """
    if not isinstance(data, Sized):
        return None
    return None if isinstance(data, Mapping | tuple) and len(data) else len(data)


class Approvals:
    """The plans that the client's owner has approved, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self._path.read_text())) if self._path.exists() else {}

    def check(self, plan: SealedPlan) -> None:
        """Checks that a plan is approved.

        Raises: Forbidden: if it is not; the error shows what is new in it, and how to approve it.
        """
        approved = self._read()
        if plan_digest(plan) in approved:
            return
        last = list(approved.values())[-1] if approved else None
        news = "\n".join(_difference(last, _describe(plan)))
        raise Forbidden(
            f"the plan {plan_digest(plan)[:16]} waits for approval at this client: hanse approve "
            f"{plan_digest(plan)[:16]}\n{news}",
            "approval",
        )

    def approve(self, plan: SealedPlan) -> str:
        """Approves a plan, and returns its digest."""
        approved = self._read()
        approved.pop(plan_digest(plan), None)
        approved[plan_digest(plan)] = _describe(plan)
        self._path.write_text(json.dumps(approved, indent=1))
        return plan_digest(plan)


def plan_digest(plan: SealedPlan) -> str:
    """Returns the digest by which a plan is approved: of all of it except the run's name."""
    return digest(replace(plan, run=""))


def _describe(plan: SealedPlan) -> dict[str, Any]:
    """Describes a plan to the client's owner: its settings, with the digests of its imports."""
    said: dict[str, Any] = json.loads(plan.settings)
    return {**said, "imports": {i.name: i.digest for i in plan.imports}} if plan.imports else said


def _difference(before: Any, after: Any) -> Iterable[str]:
    old = json.dumps(before, indent=1, sort_keys=True).splitlines() if before else []
    new = json.dumps(after, indent=1, sort_keys=True).splitlines()
    return unified_diff(old, new, "approved last", "asked for now", lineterm="", n=1)
