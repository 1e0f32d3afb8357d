"""Published data sets for the tests that need real ones. None is part of the project."""

import os
from pathlib import Path

import pytest

__all__ = ["real"]

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def real(name: str) -> str:
    """The path of a file or folder below $HANSE_TEST_DATA, or ../shared/data beside the checkout."""
    path = Path(os.environ.get("HANSE_TEST_DATA", BESIDE)) / name
    if not path.exists():
        pytest.skip(f"{name} is not there: name the folder that holds it in HANSE_TEST_DATA")
    return str(path)
