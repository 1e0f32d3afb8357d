"""Leaves out the doctests of modules whose engine, an extra, is not installed."""

from importlib.util import find_spec

collect_ignore = [
    f"src/hanse/learners/{name}"
    for engine in ("jax", "torch")
    if find_spec(engine) is None
    for name in (f"{engine}.py", f"{engine}_networks.py")
]
