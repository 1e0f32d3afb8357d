"""Bytes down and accuracy with compressed downloads, for several numbers of clients per round.

python benchmarks/compression/downlink.py        # about two minutes; writes downlink.json
"""

import json
from pathlib import Path
from typing import Any

import hanse
from hanse.algorithms import fed_avg
from hanse.data import iid
from hanse.learners import mlp
from hanse.transforms import deflate, quantize, rotate, top_k

CHAINS: dict[str, Any] = {
    "none": (),
    "rotate, 2 bits": (rotate(), quantize(2)),
    "top 2%, 4 bits, deflate": (top_k(0.02), quantize(4), deflate()),
}
ROUNDS, SEEDS = 100, (0, 1)


def main() -> None:
    """Measure digits over 50 IID clients with a perceptron of 38,410 parameters."""
    rows = []
    for fraction in (1.0, 0.3, 0.1):
        for name, downlink in CHAINS.items():
            results = [
                hanse.run(
                    algorithm=fed_avg(lr=0.1, fraction=fraction, epochs=2, downlink=downlink),
                    partition=iid(50),
                    model=mlp((512,)),
                    rounds=ROUNDS,
                    seed=seed,
                    evaluate_every=ROUNDS,
                )
                for seed in SEEDS
            ]
            finals = [result.final.metrics["accuracy"] for result in results if result.final is not None]
            row = {
                "fraction": fraction,
                "downlink": name,
                "accuracy": round(sum(finals) / len(finals), 4),
                "bytes_down": sum(result.bytes_down for result in results) // len(results),
            }
            print(row, flush=True)
            rows.append(row)
    said = {"rounds": ROUNDS, "seeds": list(SEEDS), "rows": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
