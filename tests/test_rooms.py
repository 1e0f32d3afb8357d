"""Rooms have faces: other rooms, docs, examples and benchmarks import these, and nothing behind them."""

import ast
import doctest
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import hanse

ROOT = Path(hanse.__file__).parents[2]
SOURCES = ROOT / "src" / "hanse"
PACKAGES = {
    ".".join(path.parent.relative_to(SOURCES.parent).parts): path
    for path in sorted(SOURCES.rglob("__init__.py"))
}
NOT_FACES = ("hanse.learners.linear", "hanse.store.migrations", "hanse.network")
"""Packages that other rooms import nothing from."""

LOOK_INSIDE = (
    "benchmarks/leakage/leakage.py",
    "benchmarks/network/chaos.py",
    "benchmarks/network/crowd.py",
    "benchmarks/network/fuzz.py",
    "benchmarks/network/generated.py",
    "benchmarks/network/limits.py",
    "benchmarks/network/long.py",
    "benchmarks/network/speed.py",
    "benchmarks/network/weights.py",
    "benchmarks/parallel/delayed.py",
    "benchmarks/parallel/links.py",
    "benchmarks/privacy/served_schedules.py",
)
"""Benchmarks that time, feed or disturb what a face does not show."""


BELOW = ("hanse.columns", "hanse.lazy", "hanse.pages", "hanse.processes", "hanse.version")
"""Modules below all rooms."""


def listed(package: str) -> list[str]:
    """What a package says in `__all__`."""
    for node in ast.parse(PACKAGES[package].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


FACES = sorted(package for package in PACKAGES if package not in NOT_FACES)
SHOWN = {package: set(listed(package)) for package in FACES}


@pytest.mark.parametrize("package", FACES)
def test_a_face_shows_what_it_says(package: str) -> None:
    engine = package.removeprefix("hanse.learners.")
    if engine in ("jax", "torch") and find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    if package.startswith("hanse.network.") and find_spec("fastapi") is None:
        pytest.skip("fastapi is not installed")
    names = listed(package)
    assert names, package
    assert len(names) == len(set(names))
    face = import_module(package)
    missing = [name for name in names if not hasattr(face, name)]
    assert not missing


@pytest.mark.parametrize(
    "package", [p for p in FACES if "load_from(" in PACKAGES[p].read_text(encoding="utf-8")]
)
def test_a_lazy_face_tells_the_type_checker_the_same(package: str) -> None:
    """And it tells which values its modules register, so that files and messages may name them."""
    tree = ast.parse(PACKAGES[package].read_text(encoding="utf-8"))
    typed: dict[str, set[str]] = {}
    for branch in (node for node in tree.body if isinstance(node, ast.If)):
        for node in branch.body:
            assert isinstance(node, ast.ImportFrom)
            typed.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
    loaded: dict[str, set[str]] = {}
    registered: dict[str, tuple[str, ...]] | None = None
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "load_from":
            registered = {given.arg: ast.literal_eval(given.value) for given in call.keywords}.get(
                "registers"
            )
            loaded = {module: set(names) for module, names in ast.literal_eval(call.args[1]).items()}
    rooms = typed.pop("hanse", set())
    modules = typed.pop(package, set())
    assert typed == loaded
    assert set().union(*loaded.values()) | rooms | modules | {"__version__"} >= set(listed(package))
    if registered is not None:
        for path in PACKAGES[package].parent.glob("*.py"):
            module = f"{package}.{path.stem}"
            values = set(re.findall(r"^@value\nclass (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
            assert values <= loaded.get(module, set()) | set(registered.get(module, ()))


def test_names_of_a_lazy_face_go_before_modules_of_the_same_name() -> None:
    import_module("hanse.algorithms.fed_avg")  # a name of this module
    import_module("hanse.evaluation.metrics.concordance")  # a name of another module
    from hanse.algorithms import fed_avg
    from hanse.evaluation.metrics import concordance

    assert isinstance(fed_avg, type)
    assert isinstance(concordance, type)
    assert "fed_avg" in dir(hanse.algorithms)


def imports(code: str) -> Iterator[tuple[str, list[str]]]:
    """Modules of ours that code imports from, and the names; no names: the module itself."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hanse":
            yield str(node.module), [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names if alias.name.split(".")[0] == "hanse")


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def behind_faces(code: str, room: str = "") -> list[str]:
    """Imports of what lies behind the face of another room."""
    found = []
    for module, names in imports(code):
        if room and room_of(module) == room:
            continue
        if module == "hanse" and all(f"hanse.{name}" in PACKAGES or name in SHOWN["hanse"] for name in names):
            continue
        if module == "hanse.version" or (module in BELOW and room):
            continue
        unseen = [name for name in names if name not in SHOWN.get(module, ())]
        if module not in SHOWN or unseen:
            found.append(f"{module}: {', '.join(unseen)}")
    return found


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCES)))
def test_rooms_import_faces(path: Path) -> None:
    parts = path.relative_to(SOURCES.parent).with_suffix("").parts
    room = ".".join(parts[:2]) if len(parts) > 2 else ""
    if parts == ("hanse", "__init__"):
        room = "hanse"
    assert not behind_faces(path.read_text(encoding="utf-8"), room)


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCES)))
def test_examples_in_docstrings_import_faces(path: Path) -> None:
    said = "".join(e.source for e in doctest.DocTestParser().get_examples(path.read_text(encoding="utf-8")))
    lines = [line for line in said.splitlines() if re.match(r"(from|import) hanse", line)]
    parts = path.relative_to(SOURCES.parent).with_suffix("").parts
    assert not behind_faces("\n".join(lines), ".".join(parts[:2]))


def shown_to_readers() -> Iterator[tuple[str, str]]:
    """Code of docs, examples and benchmarks."""
    for folder in ("examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ".venvs" not in path.parts:
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)):
            yield f"{path.relative_to(ROOT)}-{i}", block


@pytest.mark.parametrize(("name", "code"), [pytest.param(n, c, id=n) for n, c in shown_to_readers()])
def test_docs_examples_and_benchmarks_import_faces(name: str, code: str) -> None:
    if name not in LOOK_INSIDE:
        assert not behind_faces(code)


def test_modules_are_imported_in_no_circle() -> None:
    """Nor in functions, nor for the type checker alone."""
    modules = {
        ".".join(path.relative_to(SOURCES.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in SOURCES.rglob("*.py")
    }
    leads_to: dict[str, set[str]] = {}
    for name, path in modules.items():
        reached = leads_to.setdefault(name, set())
        for module, names in imports(path.read_text(encoding="utf-8")):
            inner = {f"{module}.{n}" for n in names} & modules.keys()
            reached |= (inner or {module}) & modules.keys()
        reached.discard(name)
    while ends := [name for name, reached in leads_to.items() if not reached & leads_to.keys()]:
        for name in ends:
            del leads_to[name]
    assert not leads_to


def test_help_loads_no_engine_and_no_store() -> None:
    heavy = ("numpy", "sqlalchemy", "fastapi", "jax", "torch", "pydantic", "cryptography")
    code = f"import sys, hanse.cli; print([name for name in {heavy} if name in sys.modules])"
    env = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
