"""What holds for all tests."""

import os

import pytest

collect_ignore = [
    "secure.py",
    "support.py",
    "contract/cases.py",
    "contract/replay.py",
    "network/federation.py",
]
"""Helper modules that tests import by name: collected, they would be imported twice."""

MAY_BE_MISSING = ("needs the extra huggingface",)
"""Reasons to skip a test that the continuous check accepts too."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where CI is set, a test that skips for want of something fails: there all of it is to be had."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        if not any(accepted in reason for accepted in MAY_BE_MISSING):
            report.outcome, report.longrepr = "failed", f"{reason}; the continuous check accepts no such skip"
    return report
