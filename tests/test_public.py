"""What `import hanse` promises: these names, and next to no time."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hanse

ROOT = Path(hanse.__file__).parents[2]

PUBLIC = {
    # runs
    *(
        "run",
        "rounds",
        "Round",
        "Rounds",
        "resume",
        "perform",
        "load",
        "predict",
        "TensorBoard",
        "read",
        "sweep",
        "Experiment",
        "Result",
        "Stop",
        "Examples",
    ),
    # errors
    *("HanseError", "InvalidInput", "CompositionError", "MessageError", "RoundAbandoned", "Diverged"),
    *("Declined", "NotReady", "ReplayError", "StoreError", "RunDiverged", "Interrupted", "Stalled"),
    # rooms
    *(
        "algorithms",
        "attacks",
        "config",
        "core",
        "data",
        "evaluation",
        "learners",
        "network",
        "preprocessing",
        "privacy",
    ),
    *("release", "report", "robust", "runs", "simulation", "store", "sweeps", "transforms"),
    "__version__",
}


def test_the_public_list_is_this() -> None:
    assert set(hanse.__all__) == PUBLIC
    assert dir(hanse) == sorted(hanse.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(hanse, name) is not None


def test_every_error_of_the_core_is_public() -> None:
    from hanse.core import errors

    ours = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    assert ours <= PUBLIC


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fed_avg'"):
        hanse.fed_avg  # noqa: B018


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project.get("version", hanse.__version__) == hanse.__version__


def test_importing_loads_nothing_else() -> None:
    heavy = ("numpy", "pydantic", "rich", "sqlalchemy", "typer", "hanse.core")
    code = f"import sys, hanse; print(any(name in sys.modules for name in {heavy}))"
    env = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
