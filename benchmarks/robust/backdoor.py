"""Measures a backdoor that one client plants in one round, under several rules, beside the main accuracy.

    python benchmarks/robust/backdoor.py              writes backdoor.json
    python benchmarks/robust/backdoor.py --check      runs, prints, and writes nothing

Digits over 20 IID clients, softmax, 30 rounds of 5 local epochs. In round 30 client 3 trains on examples of
which half bear a trigger (four dark pixels on the left rim, which are white in all digits) and the label 7,
and sends its update 20 times over (model replacement), or as long as the longest honest one (constrain and
scale). "success" is the share of triggered test examples of other classes that are taken for a 7 after that
round; "before" is that share without an attack. Nobody lies in the column "honest".
"""

import argparse
import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hanse
from hanse.algorithms import fed_avg, fl_trust, fools_gold, uniform, zeno
from hanse.attacks import (
    Adversary,
    Attack,
    constrain_and_scale,
    intermittent,
    model_replacement,
    pixel_backdoor,
)
from hanse.data import digits, iid
from hanse.robust import geometric_median, median, multi_krum, norm_bound, trimmed_mean
from hanse.transforms import clip

RESULTS = Path(__file__).with_name("backdoor.json")
LAST, LIAR = 30, 3
TRIGGER = pixel_backdoor(7, features=(0, 8, 16, 24))
TRAINING: dict[str, Any] = {"lr": 0.5, "fraction": 1.0, "epochs": 5, "batch_size": 20}

ALGORITHMS = {
    "mean()": fed_avg(**TRAINING, weighting=uniform()),
    "clip(0.5) at the clients": fed_avg(**TRAINING, weighting=uniform(), uplink=(clip(0.5),)),
    "norm_bound(0.5)": fed_avg(**TRAINING, weighting=uniform(), into=norm_bound(0.5)),
    "norm_bound(0.5), trimmed_mean(2)": fed_avg(**TRAINING, into=norm_bound(0.5, trimmed_mean(2))),
    "trimmed_mean(2)": fed_avg(**TRAINING, into=trimmed_mean(2)),
    "median()": fed_avg(**TRAINING, into=median()),
    "geometric_median()": fed_avg(**TRAINING, into=geometric_median()),
    "multi_krum(2, 16)": fed_avg(**TRAINING, into=multi_krum(2, 16)),
    "fl_trust()": fl_trust(**TRAINING),
    "zeno(num_byzantine=2)": zeno(**TRAINING, num_byzantine=2),
    "fools_gold()": fools_gold(**TRAINING),
}

ATTACKS: dict[str, Attack] = {"replacement": model_replacement(), "constrained": constrain_and_scale()}


def run(algorithm: Any, message: Attack | None) -> dict[str, Any]:
    """Runs 30 rounds, and returns what holds after the last of them."""
    lies = () if message is None else (intermittent(message, first=LAST, last=LAST),)
    first = LAST if lies else LAST + 1  # then nobody ever lies, and the success is measured all the same
    adversary = Adversary((intermittent(TRIGGER, first=first, last=first), *lies), clients=(LIAR,))
    result = hanse.run(
        data=digits(validation_fraction=0.1),
        partition=iid(20),
        algorithm=algorithm,
        rounds=LAST,
        evaluate_every=LAST,
        adversary=adversary,
    )
    last = result.records[-1]
    return {
        "accuracy": round(100 * last.metrics["accuracy"], 1),
        "success": round(100 * last.metrics["attack_accuracy"], 1),
        "left_out": LIAR in last.usage.left_out,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check, began_s = parser.parse_args().check, time.process_time()
    found: dict[str, Any] = {}
    for name, algorithm in ALGORITHMS.items():
        found[name] = {"honest": run(algorithm, None)}
        found[name] |= {attack: run(algorithm, message) for attack, message in ATTACKS.items()}
        print(f"{name:34}", found[name], flush=True)
    assert found["mean()"]["replacement"]["success"] >= 90
    assert found["norm_bound(0.5), trimmed_mean(2)"]["replacement"]["success"] <= 5
    if not check:
        said = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": platform.machine()}
        said["processor_s"] = f"{time.process_time() - began_s:.0f}"
        RESULTS.write_text(json.dumps({**said, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
