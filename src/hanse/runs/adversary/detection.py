"""Whom a rule has left out, beside who did lie."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hanse.attacks import Adversary
from hanse.core.exchange import Record
from hanse.runs.adversary.tally import Tally

__all__ = ["describe_liars", "judge_left_out"]


def judge_left_out(
    records: Sequence[Record], liars: Sequence[int], num_clients: int, adversary: Adversary, tally: Tally
) -> dict[str, Any]:
    """Counts how often the rule has left out each client, and compares that with who lies.

    Returns: "liars"; "left_out", the number of rounds by client; "precision", the share of liars among those
      left out; and "recall", the share of the liars that were left out, in rounds that counted all clients.
      The last two are None where there is nothing to divide. "alone": in how many rounds one liar was
      asked, and sent its honest message, because its attack needs the messages of several.
    """
    counts = Counter(party for record in records for party in record.usage.left_out)
    whole = [r for r in records if r.round and r.is_closed and r.usage.counted >= num_clients]
    caught = sum(party in liars for record in whole for party in record.usage.left_out)
    num_left_out, asked = sum(counts.values()), len(whole) * len(liars)
    right = sum(count for party, count in counts.items() if party in liars)
    return {
        "liars": list(liars),
        "left_out": {str(party): counts[party] for party in sorted(counts, key=str)},
        "precision": right / num_left_out if num_left_out else None,
        "recall": caught / asked if asked and num_left_out else None,
        "alone": sum(
            any(attack.needs_company and attack.is_active(round) for attack in adversary.attacks)
            for round in tally.alone
        ),
    }


def describe_liars(records: Sequence[Record], found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yields what to say of liars and of who was left out: a heading and a sentence each."""
    counts = Counter(party for record in records for party in record.usage.left_out)
    liars = {str(liar) for liar in (found or {}).get("liars", ())}
    if liars:
        yield "liars", "clients " + ", ".join(sorted(liars, key=int))
    alone = (found or {}).get("alone")
    if alone:
        yield "honest", f"the only liar that was asked sent its honest message in {alone} rounds"
    ordered = sorted(counts.items(), key=lambda one: (-one[1], str(one[0])))
    if ordered:
        said = (f"{party}{' (lies)' if str(party) in liars else ''} in {count}" for party, count in ordered)
        yield "left out", f"by the rule, in rounds: client {', '.join(said)}"
    if found and found["precision"] is not None:
        recall = (
            "" if found["recall"] is None else f"; {100 * found['recall']:.0f}% of the liars were left out"
        )
        yield "caught", f"{100 * found['precision']:.0f}% of those left out lie{recall}"
