"""Finishes every cut run in a folder, in a process of its own, and prints the digests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from cases import CASES
from support import Fragile, simulate

from hanse.core.exchange import digest


def main(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        case = CASES[file.name.split(".")[0]]
        store = Fragile.load(file.read_bytes())
        print(file.name, digest(simulate(case.algorithm, case.rounds, case.devices, store)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
