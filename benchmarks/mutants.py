"""Measures how many faults in a room its tests notice: `make mutants ROOM=transforms`.

mutmut changes one line of a function at a time (a mutant) and runs the tests that reach that function. This
script has it do so for a random sample of a room's mutants, in a copy of the repository under build/mutants,
and prints those that no test noticed. A run takes minutes to an hour, so it is no part of `make test`.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CONTRACT = ("tests/contract/test_algorithms.py", "tests/contract/test_gossip.py")

TESTS: dict[str, Sequence[str]] = {
    "algorithms": ("tests/algorithms", *CONTRACT),
    "core": ("tests/core", *CONTRACT),
    "network": (
        "tests/network/client",
        "tests/network/protocol",
        "tests/network/server",
        "tests/network/test_hostile.py",
        "tests/network/test_rounds.py",
        "tests/network/test_same_bits.py",
    ),
    "simulation": ("tests/simulation", "tests/contract"),
    "transforms": ("tests/transforms", *CONTRACT),
}
"""The tests that must notice a fault in a room, where these are not only its own."""

SLOW = "tests/contract/test_algorithms.py::test_every_cut_replays_under_another_hash_seed"
"""It takes longer than the other tests of the contract, and notices little that they do not."""

SURVIVED, UNREACHED, TIMED_OUT = 0, (5, 33), (24, 36, 152, 255, -24)
"""Exit codes of mutmut. 5 and 33: no test calls the function."""

SPINNER = re.compile("[\u2800-\u28ff] ")
"""How lines begin that only show that mutmut is at work."""

SETTINGS = """

[tool.mutmut]
source_paths = ["src/hanse/{room}"]
also_copy = ["src", "conftest.py", "examples"]
pytest_add_cli_args = ["-x", "-p", "no:cacheprovider", "--timeout=600", "--deselect={slow}"]
pytest_add_cli_args_test_selection = {tests}
timeout_multiplier = 4.0
timeout_constant = 20.0
"""


def copy_repository(folder: Path, room: str, tests: Sequence[str]) -> None:
    """Copies what git tracks or would track, and adds mutmut's settings."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "mutants" / "src").mkdir(parents=True)  # Python remembers which folders of its path are missing
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(SETTINGS.format(room=room, tests=json.dumps(list(tests)), slow=SLOW))


def call_mutmut(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Calls mutmut, so that processes which tests start import the mutants, too."""
    env = {**os.environ, "PYTHONPATH": str(folder / "mutants" / "src")}
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def read_exit_codes(folder: Path) -> dict[str, int | None]:
    """Reads what became of each mutant, by name; None: it was not tried."""
    codes: dict[str, int | None] = {}
    for path in sorted((folder / "mutants" / "src").rglob("*.meta")):
        codes.update(json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"])
    return codes


def describe(code: int | None) -> str:
    """Says what became of a mutant."""
    if code is None:
        return "not tried"
    if code == SURVIVED:
        return "survived"
    if code in UNREACHED:
        return "reached by no test"
    return "out of time" if code in TIMED_OUT else "noticed"


def show_change(folder: Path, mutant: str) -> str:
    """Returns the file and the changed lines of a mutant."""
    lines = call_mutmut(folder, "show", mutant).stdout.splitlines()
    names = [line.removeprefix("--- ") for line in lines if line.startswith("--- ")]
    changes = [line for line in lines if line[:1] in "+-" and not line.startswith(("---", "+++"))]
    return "\n    ".join([*names, *changes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("room", help="a folder of src/hanse, such as transforms")
    parser.add_argument("--sample", type=int, default=20, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--tests", nargs="+", help="the tests, if not those of the room")
    given = parser.parse_args()
    tests = given.tests or TESTS.get(given.room, (f"tests/{given.room}",))
    folder = ROOT / "build" / "mutants" / given.room
    copy_repository(folder, given.room, tests)

    made = call_mutmut(folder, "run", "no.such.mutant")  # makes all, and notes which tests reach what
    names = sorted(read_exit_codes(folder))
    if not names or not (folder / "mutants" / "mutmut-stats.json").exists():
        said = [line for line in made.stdout.splitlines() if not SPINNER.match(line)]
        sys.exit("\n".join([f"no mutants of {given.room}:", *said[-40:], made.stderr[-3000:]]))
    drawn = random.Random(given.seed).sample(names, min(given.sample, len(names)))
    call_mutmut(folder, "run", "--max-children", "1", *drawn)
    codes = read_exit_codes(folder)
    found = {name: codes[name] for name in drawn}
    left = [name for name, code in found.items() if code in (None, SURVIVED, *UNREACHED, *TIMED_OUT)]
    for name in left:
        print(f"{describe(found[name])}: {name}\n    {show_change(folder, name)}\n")
    counted = Counter(map(describe, found.values()))
    counts = ", ".join(f"{count} {what}" for what, count in counted.most_common())
    print(f"{given.room}: {len(drawn)} of {len(names)} mutants (seed {given.seed}): {counts}")


if __name__ == "__main__":
    main()
