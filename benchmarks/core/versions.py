"""Hanse on each version of Python that it names: installed from the checkout, compiled, and run.

    python benchmarks/core/versions.py [3.12 ...]            # make versions: all

It looks for the interpreters on the path and in ~/.pyenv, installs the core of Hanse into a fresh
environment of each, compiles all of its modules with warnings as errors, trains on the digits and on a table,
and prints the hashes of the parameters. An interpreter that is not here is named and skipped; the exit status
is 1 if one fails.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

CODE = """
import sys, numpy, hanse
from hanse.data import csv, iid
open("t.csv", "w").write("a;b;day;y\\n" + "".join(
    f"{i % 9},5;{'<5' if i % 7 == 0 else i};0{i % 9 + 1}.02.2024;{'ja' if i % 9 > 4 else 'nein'}\\n"
    for i in range(99)
))
data = csv("t.csv", label="y", decimal=",", censored="half", dates={"day": "%d.%m.%Y"})
table = hanse.run(data=data, partition=iid(3), rounds=3)
digits = hanse.run(rounds=5)
assert table.status == digits.status == "completed"
print(sys.version.split()[0], "numpy", numpy.__version__, digits.params_sha256[:16], table.params_sha256[:16])
"""


def find_python(version: str) -> str | None:
    """Finds the interpreter of a version."""
    found = shutil.which(f"python{version}")
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}*/bin/python"))
    for candidate in (*([found] if found else []), *map(str, kept)):
        said = subprocess.run(
            [candidate, "-c", "import sys, venv, ensurepip; print(sys.version)"], capture_output=True
        )
        if said.returncode == 0 and said.stdout.decode().startswith(version + "."):
            return candidate
    return None


def try_version(python: str, folder: Path) -> str:
    """Installs Hanse for an interpreter, and returns what a run says."""
    own = folder / "venv" / "bin" / "python"

    def perform(*words: str) -> str:
        done = subprocess.run([str(own), *words], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(
                f"{python}: {' '.join(words)[:80]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done.stdout.strip()

    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
    perform("-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT))
    (package,) = (folder / "venv" / "lib").glob("python3.*/site-packages/hanse")
    perform("-W", "error", "-m", "compileall", "-q", "-f", str(package))
    return perform("-W", "error", "-c", CODE)


def main() -> int:
    """Tries each version that the classifiers name."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    versions = [found[1] for line in said if (found := re.search(r"Python :: (3\.\d+)$", line))]
    failed = False
    for version in sys.argv[1:] or versions:
        python = find_python(version)
        if python is None:
            print(f"{version}: skipped, no such interpreter is here", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"{version}: {try_version(python, Path(folder))}", flush=True)
            except SystemExit as error:
                failed = True
                print(f"{version}: FAILED, {error}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
