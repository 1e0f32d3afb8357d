"""The package that users install: built, looked into, and installed into a fresh environment."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "deployment.md"


def performed(*words: str | Path, cwd: Path) -> str:
    """Runs a command that sees neither this checkout nor its settings, and returns what it says."""
    env = {
        name: said for name, said in os.environ.items() if not name.startswith(("PYTHON", "HANSE", "PIP_"))
    }
    done = subprocess.run([*map(str, words)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that is built of it, as `python -m build` does."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("dist")
    performed(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    performed(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    return folder


def files_of(folder: Path) -> set[str]:
    """Returns the files of the package, as they are in the checkout."""
    found = (path for path in (folder / "hanse").rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {name.rpartition("/")[2] for name in archive.namelist()} - {*names}
    assert names == files_of(ROOT / "src")
    assert {"hanse/data/digits.npz", "hanse/py.typed"} <= names
    assert {"METADATA", "LICENSE", "NOTICE", "entry_points.txt"} <= about
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        kept = {name.split("/", 1)[1] for name in archive.getnames()}
    assert names <= {name.removeprefix("src/") for name in kept}
    assert not [
        name
        for name in kept
        if name.startswith(("tests", "docs", "benchmarks", ".")) and name != ".gitignore"
    ]


def test_the_wheel_is_installed_from_a_local_index_and_runs(dist: Path, tmp_path: Path) -> None:
    """As the guide says, but for the libraries, which are those of this environment."""
    assert "pip install 'hanse[server]'" in GUIDE.read_text(encoding="utf-8")
    home, python = tmp_path / "venv", tmp_path / "venv" / "bin" / "python"
    performed(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    pip = (sys.executable, "-m", "pip", "--python", python, "--isolated", "--disable-pip-version-check")
    local = ("install", "--quiet", "--no-index", "--find-links", dist, "--no-deps", "--no-compile")
    performed(*pip, *local, "hanse[server]", cwd=tmp_path)
    (own,) = (home / "lib").glob("python3.*/site-packages")
    libraries = str(Path(pytest.__file__).parents[1])
    (own / "libraries.pth").write_text(libraries + "\n")
    assert performed(home / "bin" / "hanse", "--version", cwd=tmp_path).split()[-1] == version("hanse")
    code = (
        "import importlib.metadata as m, hanse, json; print(hanse.__file__); "
        "print(json.dumps(m.requires('hanse'))); print(hanse.run(rounds=1).status)"
    )
    place, needs, status = performed(python, "-c", code, cwd=tmp_path).splitlines()
    assert place.startswith(str(home))
    assert status == "completed"
    asked = [Requirement(said) for said in json.loads(needs)]
    due = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": "server"})]
    assert {"numpy", "fastapi", "httpx"} <= {one.name for one in due}
    for one in due:
        assert one.specifier.contains(version(one.name), prereleases=True), one


def test_the_versions_of_python_are_those_that_the_metadata_names() -> None:
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = [line.rpartition(" ")[2] for line in said["project"]["classifiers"] if "Python :: 3." in line]
    assert named == ["3.11", "3.12", "3.13"]
    assert said["project"]["requires-python"] == ">=" + named[0]
    assert said["tool"]["ruff"]["target-version"] == "py" + named[0].replace(
        ".", ""
    )  # ruff refuses newer syntax
