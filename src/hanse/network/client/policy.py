"""A client's policy, which its owner writes in a file of the client home."""

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from shlex import quote
from typing import Any

from hanse.core import InvalidInput, PartSpec, Reducer, Release, nearest
from hanse.core.exchange import digest, find_classes
from hanse.network.client.audit import AuditLog
from hanse.network.client.limits import (
    LOCAL,
    PRIVACY,
    SHARES,
    UNCOUNTED,
    UNNOISED,
    Revealed,
    Spent,
    explain_uncounted,
    find_epsilon,
    has_shares,
    measure_release,
)
from hanse.network.protocol.envelope import CLIENT, TEST, Envelope, Envelopes
from hanse.network.protocol.envelope_words import (
    describe_plan,
    find_at_home,
    find_fewest,
    find_releases,
    to_record,
)
from hanse.network.protocol.errors import Forbidden, RowStays
from hanse.network.protocol.forms import write_form
from hanse.network.protocol.house import change_file
from hanse.network.protocol.sealed_plan import SealedPlan
from hanse.network.protocol.spool import durably
from hanse.network.protocol.wire import printable

__all__ = ["Approvals", "Policy"]


@dataclass(frozen=True)
class Policy:
    """Bounds on what a server may ask of this client. None: no bound.

    Args:
      works: names of the works that may run; None: all that are installed.
      models: names of the models that may be trained.
      max_tickets: that are answered, in all runs of the server together, whatever their names.
      max_upload_bytes: of all messages together, in all runs of the server.
      max_message_bytes: in one message.
      min_examples: a ticket on fewer is never computed, because single ones could be told apart. None: 10,
        if the data can be counted.
      max_ticket_s: seconds of computation for one ticket; then it is stopped.
      max_day_s, max_day_tickets, max_day_upload_bytes, max_day_download_bytes: in a day, all runs together.
      max_day_examples: the sum over a day's tickets of the examples that each was computed on.
      approve_plans: whether each new plan waits until the client's owner approves it.
      reveals: "sums": a part is computed only if its reducer hides single messages from the server;
        "updates": the server may see them.
      min_cohort: the fewest members whose messages enter one total together, as the plan says. Reducers that
        hide have to promise so many themselves.
      max_epsilon: the most that all messages together may reveal, in all runs of the server, counted by this
        client: by the noise that it adds itself, or that the server promises to add. Nothing leaves without.
      delta: of max_epsilon; below 0.01, because with this probability more may be revealed than that.
      unnoised: the parts of messages that may leave without noise that is counted, such as "metrics"; of one
        work alone: "private_sgd/update".
      imports: the digests of the owner's own copies of modules that plans may name, by the name of the
        module, or by the path of its file below the client home.
      isolate: whether tickets are computed without network, keys and a writable disk.
      max_download_bytes: all plans, payloads and tasks that are on the disk at the same time, of all runs.
      share_row: whether the server may see this client's row.
    """

    works: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    max_tickets: int | None = None
    max_upload_bytes: int | None = None
    max_message_bytes: int | None = None
    min_examples: int | None = None
    max_ticket_s: float | None = None
    max_day_s: float | None = None
    max_day_tickets: int | None = None
    max_day_upload_bytes: int | None = None
    max_day_download_bytes: int | None = None
    max_day_examples: int | None = None
    reveals: str | None = None
    min_cohort: int | None = None
    max_epsilon: float | None = None
    delta: float = 1e-5
    unnoised: tuple[str, ...] = ()
    approve_plans: bool = False
    imports: Mapping[str, str] = field(default_factory=dict)
    isolate: bool = False
    max_download_bytes: int = 10_000_000_000
    share_row: bool = False

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
        """Checks the model of a plan, and its envelopes. Raises: Forbidden: if one is not allowed."""
        if self.models is not None and plan.model not in self.models:
            model = printable(plan.model[:100])
            raise Forbidden(f"this client's policy allows the models {', '.join(self.models)}, not {model}")
        if self.reveals == "sums" or self.min_cohort is not None:
            for envelope in Envelopes.read(plan.envelopes):
                if not find_at_home(envelope.work):  # see check_share
                    self._check_envelope(envelope)

    def check_share(self) -> None:
        """Checks that this client's row may leave. Raises: RowStays: if not."""
        if not self.share_row:
            raise RowStays("the row stays here; share_row = true in policy.toml would let the server see it")

    def _check_envelope(self, envelope: Envelope) -> None:
        for name, part in envelope.pattern["uplink"].items():
            if self.reveals == "sums" and not part["hides"] and not envelope.is_phase:
                raise Forbidden(
                    f"this client's policy reveals sums only, and {envelope.work} sends part {name!r} into "
                    f"{write_form(part['into'])}, which shows the server single messages"
                )
        is_of_clients = envelope.role in (CLIENT, TEST)  # another party's answer is no total of clients
        if self.min_cohort is None or not is_of_clients or envelope.is_phase:
            return  # what a phase sends enters no total of its own: check_phase looks at its work
        if (fewest := find_fewest(envelope)) < self.min_cohort:
            hides = any(part["hides"] for part in envelope.pattern["uplink"].values())
            write = f"; write min_clients={self.min_cohort} (in encrypted sums: min_cohort) into its reducer"
            raise Forbidden(
                f"this client's policy wants {self.min_cohort} members in one total, and the plan's "
                f"{envelope.work} may end with {fewest}{write if hides else ''}"
            )

    def check_phase(self, work: Any, envelope: Envelope) -> None:
        """Checks a phase of a protocol: it may show messages if it is of the module of a reducer that hides.

        Raises: Forbidden: if the policy bounds what is revealed, and any work could pass for a phase.
        """
        bounds = {
            "reveals sums only": self.reveals == "sums",
            "has a max_epsilon": self.max_epsilon is not None,
            "has a min_cohort": self.min_cohort is not None,
        }
        only = next((what for what, is_set in bounds.items() if is_set), "")
        if not only or not envelope.is_phase:
            return
        modules = {kind.__module__ for kind in find_classes(Reducer).values() if kind.hides}
        if type(work).__module__ not in modules:
            raise Forbidden(
                f"this client's policy {only}, and {envelope.work} is no phase of a reducer that hides "
                "single messages"
            )

    def check_releases(self, envelopes: Envelopes, spent: Spent) -> None:
        """Checks what the messages of a plan reveal, as far as it is known before a ticket is here.

        Raises: Forbidden: if one would leave without noise, or its first message would pass max_epsilon.
        """
        if self.max_epsilon is None:
            return
        for envelope in envelopes:
            if not envelope.is_phase and not find_at_home(envelope.work):
                found = {name: find_releases(part) for name, part in envelope.pattern["uplink"].items()}
                known = {name: releases for name, releases in found.items() if releases is not None}
                units = self._measure(envelope.work, known)
                self.check_epsilon(spent, units, in_shares=has_shares(known.values()))

    def measure_message(self, work: str, uplink: Mapping[str, PartSpec]) -> Revealed:
        """Measures what the message of a ticket reveals; see `measure_release`.

        Raises: Forbidden: if there is a max_epsilon, and a part would leave without noise that counts.
        """
        found = {name: part_spec.chain().releases for name, part_spec in uplink.items()}
        in_shares = has_shares(found.values())
        if self.max_epsilon is not None:
            return Revealed(self._measure(work, found), not all(found.values()), in_shares)
        each = [measure_release(releases) if releases else None for releases in found.values()]
        return Revealed(sum(units or 0 for units in each), None in each, in_shares)

    def _measure(self, work: str, found: Mapping[str, tuple[Release, ...]]) -> int:
        units = 0
        for name, releases in found.items():
            measured = measure_release(releases)
            if not releases and not {name, f"{work}/{name}"}.isdisjoint(self.unnoised):
                continue
            if not releases or measured is None:
                how = explain_uncounted(work, releases)
                raise Forbidden(
                    f"this client's policy has a max_epsilon, and {work} sends part {name!r} {how}; the run "
                    "can leave that part out or add noise to it (local_gaussian, gaussian), or this client's "
                    "owner can let that part of that work alone leave uncounted, in policy.toml: "
                    f'unnoised = ["{work}/{name}"]'
                )
            units += measured
        return units

    def check_epsilon(self, spent: Spent, units: int, *, in_shares: bool = False) -> None:
        """Checks what all messages and one more reveal. Raises: Forbidden: if it is more than max_epsilon."""
        if self.max_epsilon is None or not units:
            return
        spent.check_known()
        before, had_shares = spent.of_all(PRIVACY), spent.of_all(SHARES) > 0
        then = find_epsilon(before + units, self.delta, in_shares=had_shares or in_shares)
        now = find_epsilon(before, self.delta, in_shares=had_shares)
        if then > self.max_epsilon:
            raise Forbidden(
                f"this client's policy allows max_epsilon = {self.max_epsilon:g} for delta = {self.delta:g}, "
                f"in all runs together: {now:.4g} is spent, and one more message would make it {then:.4g}",
                "budget",
            )

    def describe_releases(self, envelopes: Envelopes, spent: Spent) -> list[str]:
        """Describes in lines what a plan's messages reveal, beside what was revealed before."""
        if self.max_epsilon is None:
            return []
        before = find_epsilon(spent.of_all(PRIVACY), self.delta, in_shares=spent.of_all(SHARES) > 0)
        lines = [
            f"max_epsilon: {before:.2f} of {self.max_epsilon:g} is spent "
            f"(delta {self.delta:g}, in all runs together)"
        ]
        if lost := spent.of_all(UNCOUNTED):
            lines.append(f"  unknown: what {lost:g} earlier messages revealed, so that all is refused")
        if spent.of_all(UNNOISED):
            lines.append(f"  not counted: {spent.of_all(UNNOISED):g} messages with parts without noise")
        for envelope in envelopes:
            for name, part in envelope.pattern["uplink"].items() if not envelope.is_phase else ():
                releases = find_releases(part)
                units = None if not releases else measure_release(releases)
                what = f"  each {name!r} of {envelope.work}"
                if releases is None:
                    lines.append(f"{what}: known once a ticket is here; without noise it is refused")
                elif units is None:
                    lines.append(f"{what}: without noise that can be counted here")
                else:
                    shared, own = has_shares([releases]), all(one.mechanism == LOCAL for one in releases)
                    whom = "this client adds the noise" if own else "you trust the server to add the noise"
                    if shared:
                        whom = "you trust other clients to add shares of the noise, and the sum to hide yours"
                    alone = find_epsilon(units, self.delta, in_shares=shared)
                    lines.append(f"{what}: {alone:.2f} if alone; {whom}")
        return lines

    @property
    def fewest_examples(self) -> int:
        """The fewest examples that a ticket may be computed on."""
        return FEWEST if self.min_examples is None else self.min_examples

    def check_data(self, num_examples: int | None) -> None:
        """Checks the number of examples; None: they can't be counted. Raises: Forbidden: if too few."""
        needed = self.fewest_examples
        is_counted = self.min_examples is not None and needed > 1
        if num_examples is None and (is_counted or self.max_day_examples is not None):
            wants = f"{needed} examples for any training" if is_counted else "examples counted in each day"
            raise Forbidden(
                f"this client's policy wants {wants}, and its data can't be counted: give an object whose "
                "len is the number of rows, or set min_examples to 1 and leave max_day_examples out"
            )
        if num_examples is not None and num_examples < needed:
            raise Forbidden(
                f"this client's policy wants {needed} examples for any training, and it has fewer; its owner "
                "may write a smaller min_examples into policy.toml"
            )

    def check_use(
        self,
        spent: Spent,
        upload_bytes: int = 0,
        download_bytes: int = 0,
        examples: int = 0,
        *,
        tickets: int = 1,
    ) -> None:
        """Checks what all runs have used up, and the next ticket. Raises: Forbidden: if it is too much.

        Args:
          spent: what was used up before.
          upload_bytes, download_bytes, examples: of the next ticket, as far as they are known.
          tickets: 0: no ticket is counted, only what is transferred for it.
        """
        next_ticket = {
            "tickets": tickets,
            "upload_bytes": upload_bytes,
            "download_bytes": download_bytes,
            "examples": examples,
        }
        totals = {"tickets": self.max_tickets, "upload_bytes": self.max_upload_bytes}
        for what, more in next_ticket.items():
            for limit, used, span in (
                (getattr(self, f"max_day_{what}"), spent.of_today, spent.describe_day),
                (totals.get(what), spent.of_all, lambda: "in all runs together"),
            ):
                if limit is not None and used(what) + more > limit:
                    words = what.replace("_bytes", "ed bytes")
                    raise Forbidden(
                        f"this client's policy allows {limit} {words} {span()}, and they are used up",
                        "budget",
                    )

    def check_download(self, size: int, num_bytes: int) -> None:
        """Checks the size of a download beside what all runs have on the disk. Raises: Forbidden."""
        if size + num_bytes > self.max_download_bytes:
            raise Forbidden(
                f"this client's policy allows {self.max_download_bytes} bytes of all runs on its disk "
                f"(max_download_bytes): {num_bytes} are there, and {size} more are to be downloaded",
                "budget",
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

FEWEST = 10
"""The fewest examples of a ticket, unless a policy says another number."""

REVEALS = ("updates", "sums")

_WORDS = {
    str: f"one of {', '.join(REVEALS)}",
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
    "max_epsilon": float,
    "delta": float,
    "unnoised": list,
    "approve_plans": bool,
    "imports": dict,
    "isolate": bool,
    "share_row": bool,
    "reveals": str,
}
_NUMBERS = {
    "max_epsilon": (math.inf, "a number above 0, such as 8.0"),
    "delta": (0.01, "a number above 0 and below 0.01, such as 1e-5"),
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
    wrong = type(given) is not kind or (kind is str and given not in REVEALS)
    if isinstance(given, list):
        wrong = wrong or not all(isinstance(word, str) for word in given)
    if isinstance(given, dict):
        wrong = wrong or not all(isinstance(d, str) and DIGEST.fullmatch(d) for d in given.values())
    words = _WORDS[kind]
    if key in _NUMBERS:
        most, words = _NUMBERS[key]
        wrong = wrong or not 0 < given < most
    if wrong:
        raise InvalidInput(f"{path}: {key} is {given!r}; write {words}")
    return tuple(given) if isinstance(given, list) else given


class Approvals:
    """The plans that the client's owner has approved, in a file; the audit log has each approval before."""

    def __init__(self, path: Path, audit: AuditLog) -> None:
        self._path, self._audit = path, audit

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self._path.read_text())) if self._path.exists() else {}

    def is_approved(self, plan: SealedPlan) -> bool:
        """Returns whether a plan, with all that it asks for, is approved already."""
        return plan_digest(plan) in self._read()

    def describe(self, plan: SealedPlan) -> list[str]:
        """Describes a plan to the client's owner: what leaves, and what is new since the last approval."""
        approved = list(self._read().values())
        return describe_plan(plan, approved[-1] if approved else None)

    def check(self, plan: SealedPlan) -> None:
        """Checks that a plan is approved.

        Raises: Forbidden: if it is not; the error shows what is new in it, and how to approve it.
        """
        if self.is_approved(plan):
            return
        news = "\n".join(self.describe(plan))
        raise Forbidden(
            f"the plan {plan_digest(plan)[:16]} waits for approval at this client: hanse approve "
            f"{plan_digest(plan)[:16]} --home {quote(str(self._path.parent))}\n{news}",
            "approval",
        )

    def approve(self, plan: SealedPlan) -> str:
        """Approves a plan, and returns its digest."""
        with change_file(self._path):
            approved = self._read()
            approved.pop(plan_digest(plan), None)
            approved[plan_digest(plan)] = to_record(plan)
            self._audit.write("approves", plan=plan_digest(plan))
            durably(self._path, json.dumps(approved, indent=1).encode())
        return plan_digest(plan)


def plan_digest(plan: SealedPlan) -> str:
    """Returns the digest by which a plan is approved: of all of it except the run's name.

    The envelopes are a part of it, so an approval covers all that the plan's dispatches may ask.
    """
    return digest(replace(plan, run=""))
