"""Leaves out the doctests of modules whose engine, an extra, is not installed."""

from importlib.util import find_spec

collect_ignore_glob = [
    f"src/hanse/learners/{engine}/*.py" for engine in ("jax", "torch") if find_spec(engine) is None
]
