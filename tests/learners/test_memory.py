import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from hanse.learners.memory import MOST_KEPT_BYTES, SET_BY_HAND, keep_freed_memory


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """What glibc was told."""
    told: dict[int, int] = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=told.__setitem__))
    for name in SET_BY_HAND:
        monkeypatch.delenv(name, raising=False)
    keep_freed_memory.cache_clear()
    return told


def test_glibc_keeps_what_the_next_step_asks_for(asked: dict[int, int]) -> None:
    keep_freed_memory()
    assert asked[-1] == MOST_KEPT_BYTES


def test_what_the_user_set_by_hand_stays(asked: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    keep_freed_memory()
    assert asked == {}


def test_other_allocators_are_left_alone(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
    assert asked == {}
