"""A comparison of how peers came to agree in a run with what their graph promises."""

import math
from collections.abc import Sequence

from hanse.core.exchange import Record
from hanse.evaluation.formats import as_bytes

__all__ = ["describe_consensus"]


def describe_consensus(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Returns pairs of a heading and words about the peers of a run; none: a server led it."""
    reported = [record.metrics for record in records if "second_eigenvalue" in record.metrics]
    if not reported:
        return []
    second = reported[-1]["second_eigenvalue"]
    decays = [row["consensus_decay"] for row in reported if "consensus_decay" in row]
    said = [("graph of peers", f"second eigenvalue {second:.4f}, spectral gap {1 - second:.4f}")]
    if decays:
        mean = math.exp(math.fsum(math.log(max(decay, 1e-300)) for decay in decays) / len(decays))
        said.append(
            (
                "measured decay of a mixing",
                f"{mean:.4f} on average, {max(decays):.4f} at worst (at most {second:.4f} while all links "
                "work)",
            )
        )
    sent = sum(row["link_bytes"] for row in reported)
    return [
        *said,
        ("distance of peers from their mean", f"{reported[-1]['consensus_distance']:.4g} at the end"),
        ("sent between peers", f"{as_bytes(sent)}, {as_bytes(sent / len(reported))} a round"),
    ]
