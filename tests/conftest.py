"""What holds for all tests."""

import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in the background, where shells have Ctrl-C ignored; tests of Ctrl-C need it heard.
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent
collect_ignore = [
    file for file in HERE.rglob("*.py") if not file.name.startswith("test_") and file.name != "conftest.py"
]
"""Helper modules that tests import by name: collected, they would be imported twice."""

MAY_BE_MISSING = (
    "needs the extra huggingface",
    "may mount no file system",
    "no podman, and no docker whose daemon runs",
    "systemd-analyze is not installed",
)
"""Reasons to skip a test that the continuous check accepts too."""


# How long an example takes depends on what else the machine does: no test fails for it.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Let the garbage collector pass by what is collected, and keep the tests as they are compiled."""
    gc.disable()
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = kept
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return refuse_skip((yield))


def refuse_skip(report):
    """Turn a skip for want of something into a failure where CI is set: there all of it is to be had."""
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        if not any(accepted in reason for accepted in MAY_BE_MISSING):
            report.outcome, report.longrepr = "failed", f"{reason}; the continuous check accepts no such skip"
    return report
