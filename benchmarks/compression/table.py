"""Write results.md from the results in this folder.

python benchmarks/compression/table.py
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SMALL = "6.25%, rotate, 2 bits"


def main() -> None:
    """Write the page."""
    (HERE / "results.md").write_text("\n".join(_page()) + "\n")


def _page() -> Iterator[str]:
    yield "# Accuracy against bytes"
    yield ""
    yield "Made by `python benchmarks/compression/table.py` from the results beside it; the scripts say what"
    yield "was run. MNIST, 100 clients, ten a round, one epoch of batches of 10. Megabytes: all messages up."
    yield ""
    reference, iid, shards = (_read(name) for name in ("accuracy", "family_iid", "family_shards"))
    yield "## Two orders of magnitude"
    yield ""
    yield f'"{SMALL}" beside plain FedAvg, 2NN, to 95% of the test images:'
    yield ""
    yield "| | seed | rounds, plain | rounds | rounds, ratio | MB, plain | MB | times fewer bytes |"
    yield "|---|---|---|---|---|---|---|---|"
    fewest, longest = [], []
    for title, result in (("IID", reference), ("two digits a client", shards)):
        plain, small = result["chains"]["none"], result["chains"][SMALL]
        columns = [one[what] for what in ("rounds_to_0.95", "megabytes_to_0.95") for one in (plain, small)]
        for seed, (before, after, sent, less) in enumerate(zip(*columns, strict=True)):
            fewest.append(sent / less)
            longest.append(after / before)
            yield (
                f"| {title} | {seed} | {before} | {after} | {after / before:.2f} "
                f"| {sent:.1f} | {less:.2f} | {sent / less:.0f} |"
            )
    holds = min(fewest) >= 100 and max(longest) <= 1.2
    yield ""
    yield (
        f'"Two orders of magnitude fewer bytes to 95% than plain FedAvg, with at most 1.2 times the rounds" '
        f"{'holds' if holds else '**does not hold**'}: at least {min(fewest):.0f} times fewer, at most "
        f"{max(longest):.2f} times the rounds."
    )
    for title, result in (("IID", iid), ("Two digits a client", shards)):
        yield from ("", f"## The family: {title}, {result['rounds']} rounds, seed 0", "")
        yield from _family(result)
    for name in ("structured", "structured_full"):
        if (HERE / f"{name}.json").exists():
            yield from ("", *_structured(_read(name)))


def _family(result: dict[str, Any]) -> Iterator[str]:
    plain = result["chains"]["none"]
    yield "| | accuracy at the end | best | MB a round | rounds to 95% | MB to 95% | times fewer |"
    yield "|---|---|---|---|---|---|---|"
    for name, chain in result["chains"].items():
        best = max(map(float, chain["accuracy_by_round"][0].split()))
        (at,), (megabytes,) = chain["rounds_to_0.95"], chain["megabytes_to_0.95"]
        reached = (
            "- | - | -"
            if at is None
            else f"{at} | {megabytes:.2f} | {plain['megabytes_to_0.95'][0] / megabytes:.1f}"
        )
        yield (
            f"| {name} | {chain['accuracy'][0]:.4f} | {best:.4f} "
            f"| {chain['megabytes_up'] / result['rounds']:.3f} | {reached} |"
        )


def _structured(result: dict[str, Any]) -> Iterator[str]:
    runs = result["runs"]
    yield f"## Structured updates of one size, {result['rounds']} rounds"
    yield ""
    yield f"`{result['network']}`, IID. The learning rate is the best of those shown, with seed 0."
    yield ""
    yield "| | message | lr | accuracy by seed | mean | seed 0 at other rates |"
    yield "|---|---|---|---|---|---|"
    for name, size in result["message_bytes"].items():
        mine = [one for one in runs if one["chain"] == name]
        if not mine:
            continue
        lr = max((one for one in mine if one["seed"] == 0), key=lambda one: one["accuracy"][-1:])["lr"]
        ended = [one["accuracy"][-1] for one in mine if one["lr"] == lr and one["accuracy"]]
        others = ", ".join(
            f"{one['lr']:g}: {one['accuracy'][-1] if one['accuracy'] else 'diverged'}"
            for one in sorted(mine, key=lambda one: one["lr"])
            if one["lr"] != lr
        )
        shown = ", ".join(f"{accuracy:.4f}" for accuracy in ended)
        rank = result["uplinks"][name].partition("rank=")[2].partition(",")[0]
        yield (
            f"| {name}{', rank ' + rank if rank else ''} | {size / 1e3:.1f} kB | {lr:g} | {shown} "
            f"| {statistics.fmean(ended):.4f} | {others or '-'} |"
        )


def _read(name: str) -> Any:
    return json.loads((HERE / f"{name}.json").read_text())


if __name__ == "__main__":
    main()
