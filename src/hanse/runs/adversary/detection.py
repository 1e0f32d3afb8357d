"""The clients that a rule has left out, beside those that lied."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hanse.core.exchange import Record
from hanse.runs.adversary.tally import Lies

__all__ = ["describe_liars", "judge_left_out"]


def judge_left_out(
    records: Sequence[Record], liars: Sequence[int], lies: Lies, can_name: bool
) -> dict[str, Any]:
    """Counts how often the rule has left out each client, and compares that with who lied.

    Only rounds in which the server took lies are judged.

    Args:
      can_name: whether the rule may leave clients out by name.

    Returns: "liars"; "left_out", the number of rounds by client; "refused", the number of rounds by liar in
      which the server did not take its lie; "precision", the share of those who lied among those left out;
      "recall", the share of lies that were left out, of those that the server took. The last two are None
      where there is nothing to divide, and recall also where the rule names nobody. "alone": in how many
      rounds one liar was asked, and sent its honest message, because its attack needs several messages.
    """
    counts = Counter(party for record in records for party in record.usage.left_out)
    return {
        "liars": list(liars),
        "left_out": {str(party): counts[party] for party in sorted(counts, key=str)},
        "refused": {str(liar): count for liar in liars if (count := lies.refusals.get(liar, 0))},
        "precision": lies.num_right / lies.num_left_out if lies.num_left_out else None,
        "recall": lies.num_right / lies.num_lies if lies.num_lies and (can_name or counts) else None,
        "alone": lies.num_alone,
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
    refused = (found or {}).get("refused")
    if refused:
        who = ", ".join(f"{liar} in {count}" for liar, count in refused.items())
        yield "refused", f"lies by the server, in rounds: client {who}"
    if found and found["precision"] is None and found["recall"] is not None:
        yield "caught", "none of the lies was left out by the rule"
    if found and found["precision"] is not None:
        recall = (
            "" if found["recall"] is None else f"; {100 * found['recall']:.0f}% of the lies were left out"
        )
        yield "caught", f"{100 * found['precision']:.0f}% of those left out lie{recall}"
