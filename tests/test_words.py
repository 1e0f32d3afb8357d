"""Count names and sentences of the sources that break the rules of style, and allow few of them."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import hanse

SOURCES = Path(hanse.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCES.rglob("*.py"))}

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
PARTICIPLE = re.compile(r"\w{2,}ed")
NO_PARTICIPLES = frozenset(
    ("need", "feed", "seed", "speed", "embed", "shared", "bred", "red", "led", "exceed", "proceed", "succeed")
)
PREDICATES = ("is", "has", "was", "test")
"""First words that may go before a participle: `is_signed`."""

FRAGMENT = re.compile(r"(Those|What|Who|Whose|Whom|Of|The same|And|How|Where|Whether it|From where)\b")
"""First words of docstrings that do not stand alone."""

MOST_PARTICIPLES, MOST_FRAGMENTS = 0.01, 0.005
MOST_FILES, MOST_LINES, MOST_SHARED_NAMES = 22, 450, 5

FAMILIES = ("algorithms", "transforms")
"""Folders with one paper a file, which grow as papers are added."""

LONG = {
    "network/server/runtime.py": "one class that performs each command of a program with real clients",
}
"""Longer files, and why each is not divided."""


def place(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if isinstance(node, (*FUNCTION, ast.ClassDef)) else ""
    return f"{path.relative_to(SOURCES)}{line}"


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTION) and not node.name.startswith("__"):
                yield place(path, node), node


def is_participle(name: str) -> bool:
    """Return whether a function is named by what was done rather than by what it does."""
    words = name.strip("_").split("_")
    ends = {words[0], words[-1]} - NO_PARTICIPLES
    return words[0] not in PREDICATES and any(map(PARTICIPLE.fullmatch, ends))


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


@pytest.mark.parametrize(
    ("name", "participle"),
    [
        ("sorted_by", True),
        ("_rows_checked", True),
        ("aligned", True),
        ("is_checked", False),
        ("from_seed", False),
        ("check_fixed_rows", False),
        ("ed", False),
    ],
)
def test_participles_are_distinguished_from_verbs(name: str, participle: bool) -> None:
    assert is_participle(name) == participle


def test_functions_are_named_by_verbs() -> None:
    found = list(functions())
    wrong = [
        f"{where} {node.name}" for where, node in found if is_participle(node.name) and not is_property(node)
    ]
    assert len(wrong) <= MOST_PARTICIPLES * len(found), "\n".join(wrong)


def test_docstrings_begin_with_a_sentence() -> None:
    said = [
        (place(path, node), text)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (*FUNCTION, ast.ClassDef, ast.Module)) and (text := ast.get_docstring(node))
    ]
    wrong = [f"{where} {text.splitlines()[0]}" for where, text in said if FRAGMENT.match(text)]
    assert len(wrong) <= MOST_FRAGMENTS * len(said), "\n".join(wrong)


def test_no_folder_is_crowded() -> None:
    folders: dict[Path, int] = defaultdict(int)
    for path in TREES:
        folders[path.parent] += path.name != "__init__.py"
    crowded = {
        place(folder): number
        for folder, number in folders.items()
        if number > MOST_FILES and folder.name not in FAMILIES
    }
    assert not crowded, "divide it by concern"


def test_a_public_name_is_that_of_one_thing() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                homes[node.name].add(place(path))
    shared = [f"{name}: {', '.join(sorted(where))}" for name, where in homes.items() if len(where) > 1]
    assert len(shared) <= MOST_SHARED_NAMES, "\n".join(shared)


def test_files_are_short_or_say_why_not() -> None:
    lines = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in TREES}
    long = {where for where, number in lines.items() if number > MOST_LINES}
    assert sorted(long - LONG.keys()) == [], f"over {MOST_LINES} lines: divide them, or say in LONG why not"
    assert sorted(LONG.keys() - long) == [], "short by now: remove them from LONG"
