"""Every epsilon that others have published or that was computed independently, to four digits.

python benchmarks/privacy/oracles.py    writes oracles.json beside this file, and fails at a difference
"""

import json
from pathlib import Path

from hanse.privacy import compute_epsilon, tree

SAMPLED = (  # q, z, times, delta, RDP, PLD
    (0.01, 1.0, 1000, 1e-5, 2.1014, 1.8282),
    (0.1, 1.0, 100, 1e-4, 6.8216, 5.9659),
    (256 / 60000, 1.3, 3510, 1e-5, 0.9538, 0.8638),
    (256 / 60000, 1.1, 14040, 1e-5, 2.5944, 2.3796),
    (256 / 60000, 0.7, 10530, 1e-5, 6.3149, 5.6351),
    (5000 / 763430, 1.0, 5000, 1e-9, 4.1833, 3.8988),
)
ONE = ((1.0, 4.3772), (2.0, 1.9931), (5.0, 0.7255))  # z, PLD of one Gaussian without sampling, delta 1e-5
TREES = ((1600, 7.0, 2.0404), (1000, 6.0, 2.2961), (2048, 4.0, 4.0113))  # rounds, z, RDP, delta 1e-5
TWO_DIGITS = (  # q, z, times, delta, PLD to the digits given
    (100 / 3400, 1.0, 1000, 1 / 3400, 4.72, 2),
    (0.1, 2.0, 100, 1e-4, 1.97, 2),  # against the world
    (1.0, 2.0, 10, 1e-4, 6.6, 1),  # against the server, for a client that took part in 10 rounds
    (1.0, 2.0, 20, 1e-4, 10.2, 1),
)


def main() -> None:
    rows, differ = [], []
    for q, z, times, delta, rdp, pld in SAMPLED:
        spent = {(q, z): times}
        found = round(compute_epsilon(spent, delta), 4), round(compute_epsilon(spent, delta, "pld"), 4)
        rows.append({"q": q, "z": z, "times": times, "delta": delta, "rdp": found[0], "pld": found[1]})
        differ += [rows[-1]] if found != (rdp, pld) else []
    for z, pld in ONE:
        rows.append(one(1.0, z, 1, 1e-5, 4))
        differ += [rows[-1]] if rows[-1]["pld"] != pld else []
    for rounds, z, rdp in TREES:  # each client takes part once: one Gaussian on the sequence
        spent = {(1.0, z / tree(z, rounds).measure_sensitivity(rounds)): 1}
        rows.append({"tree": rounds, "z": z, "delta": 1e-5, "rdp": round(compute_epsilon(spent, 1e-5), 4)})
        differ += [rows[-1]] if rows[-1]["rdp"] != rdp else []
    for q, z, times, delta, pld, digits in TWO_DIGITS:
        rows.append(one(q, z, times, delta, digits))
        differ += [rows[-1]] if rows[-1]["pld"] != pld else []
    Path(__file__).with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    assert not differ, differ
    print(f"{len(rows)} rows agree")


def one(q: float, z: float, times: int, delta: float, digits: int) -> dict[str, float]:
    """Computes a row by privacy loss distributions."""
    pld = round(compute_epsilon({(q, z): times}, delta, "pld"), digits)
    return {"q": q, "z": z, "times": times, "delta": delta, "pld": pld}


if __name__ == "__main__":
    main()
