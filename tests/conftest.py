"""Helper modules that tests import by name are not collected, or they would be imported twice."""

collect_ignore = [
    "secure.py",
    "support.py",
    "contract/cases.py",
    "contract/replay.py",
    "network/federation.py",
]
