"""Compare parameters and bytes of many short runs with those of another version of Hanse.

    git worktree add ../hanse-before COMMIT
    python benchmarks/core/bits.py ../hanse-before

Both run in this Python's environment, each with its own `src`. Prints each run whose parameters differ, and
each whose messages differ in size; exits with 1 if any parameters differ.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def cases() -> Mapping[str, Callable[[], dict[str, Any]]]:
    """Return what is run, three rounds unless it says otherwise, on the digits over 100 clients."""
    from hanse import algorithms as a
    from hanse import learners as m
    from hanse import transforms as t

    kept = getattr(t, "error_feedback", None) or t.remember  # as 0.1.0 called it
    convex = m.softmax(l2=0.01)
    tenth = {"fraction": 0.1, "epochs": 1}  # so that runs are the same whatever the defaults are
    return {
        "fed_avg": lambda: {},
        "fed_sgd": lambda: {"algorithm": a.fed_sgd(lr=0.5)},
        "fed_prox": lambda: {"algorithm": a.fed_prox(lr=0.3, **tenth, mu=0.1)},
        "scaffold": lambda: {"algorithm": a.scaffold(lr=0.3, fraction=1.0, epochs=1)},
        "fed_nova": lambda: {"algorithm": a.fed_nova(lr=0.3, **tenth)},
        "fed_dyn": lambda: {"algorithm": a.fed_dyn(lr=0.1, **tenth)},
        "fed_adam": lambda: {"algorithm": a.fed_adam(lr=0.3, **tenth, server_lr=0.03)},
        "fed_yogi": lambda: {"algorithm": a.fed_yogi(lr=0.3, **tenth, server_lr=0.03)},
        "fed_adagrad": lambda: {"algorithm": a.fed_adagrad(lr=0.3, **tenth, server_lr=0.03)},
        "fed_buff": lambda: {"algorithm": a.fed_buff(lr=0.3, epochs=1, concurrency=8, buffer_size=4)},
        "one_shot": lambda: {"algorithm": a.one_shot(), "model": convex, "rounds": 1},
        "giant": lambda: {"algorithm": a.giant(), "model": m.softmax(l2=0.05)},
        "nesterov": lambda: {"algorithm": a.nesterov(lr=0.3, momentum=0.5)},
        "quantize": lambda: {"algorithm": a.fed_avg(lr=0.3, **tenth, uplink=(t.rotate(), t.quantize(2)))},
        "top_k": lambda: {"algorithm": a.fed_avg(lr=0.3, **tenth, uplink=(t.top_k(0.1, residual=kept()),))},
        "mask": lambda: {"algorithm": a.fed_avg(lr=0.3, **tenth, uplink=(t.random_mask(0.3), t.quantize(4)))},
        "low_rank": lambda: {"algorithm": a.fed_avg(lr=0.3, **tenth, uplink=(t.low_rank(2),))},
        "sign": lambda: {"algorithm": a.fed_avg(lr=0.3, **tenth, uplink=(t.sign(),))},
        "downlink": lambda: {"algorithm": a.fed_avg(lr=0.3, **tenth, downlink=(t.rotate(), t.quantize(4)))},
        "jax": lambda: {"model": m.mlp((16,))},
        "torch": lambda: {"model": m.mlp((16,), engine=m.torch_engine())},
    }


def measure() -> dict[str, list[Any]]:
    """Return the digest of the parameters and the bytes up and down of each run."""
    import hanse

    warnings.simplefilter("ignore")
    found = {}
    for name, given in cases().items():
        result = hanse.run(**{"rounds": 3, **given()})
        found[name] = [result.params_sha256, result.bytes_up, result.bytes_down]
    return found


def measured(checkout: Path) -> dict[str, list[Any]]:
    """Measure a checkout in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(
        [sys.executable, __file__, "--measure"], env=environment, text=True, capture_output=True, check=True
    )
    found: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Compare, and say what differs."""
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
        return 0
    before, now = measured(Path(sys.argv[1]).resolve()), measured(ROOT)
    other = [name for name in before if before[name][0] != now[name][0]]
    for name in other:
        print(f"{name}: other parameters")
    for name in before:
        if before[name][1:] != now[name][1:]:
            (up, down), (new_up, new_down) = before[name][1:], now[name][1:]
            print(f"{name}: bytes up {up:,} -> {new_up:,}, down {down:,} -> {new_down:,}")
    print(f"{len(before) - len(other)} of {len(before)} runs end in the same parameters, bit for bit")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
