"""What is imported are the bytes that were digested, and no compiled file in their place."""

import importlib
import importlib.util
import marshal
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from own_code import forget_imports, write

from hanse.core import InvalidInput
from hanse.imports import inspect_again, inspect_import, load_import, load_imports

ABI = EXTENSION_SUFFIXES[-2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with forget_imports(tmp_path):
        yield tmp_path


def plant(source: Path, code: str) -> None:
    """Put other code into the cache of a file, of the kind that Python never compares with the file."""
    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir(exist_ok=True)
    compiled = marshal.dumps(compile(code, str(source), "exec"))
    cached.write_bytes(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + compiled)


def test_cached_code_is_not_executed(folder: Path) -> None:
    write(folder, own_c="import own_c2\nWHO = 'source'", own_c2="WHO = 'source'")
    write(folder, own_cp____init__="from . import late\nWHO = 'source'", own_cp__late="WHO = 'source'")
    files = [folder / f for f in ("own_c.py", "own_c2.py", "own_cp/__init__.py", "own_cp/late.py")]
    for path in files:
        plant(path, "WHO = 'cache'")
    load_imports(["own_c.py", "own_cp"], folder)
    for name in ("own_c", "own_c2", "own_cp", "own_cp.late"):
        assert sys.modules[name].WHO == "source", name


def test_a_file_that_changes_after_its_digest_is_not_executed(folder: Path) -> None:
    write(folder, own_t="import own_t2", own_t2="x = 1")
    found = inspect_import("own_t.py", folder)
    write(folder, own_t2="x = 2")
    with pytest.raises(InvalidInput, match=r"own_t2\.py has changed since it was inspected"):
        load_import(found)
    assert "own_t2" not in sys.modules
    load_imports(["own_t.py"], folder)


def test_a_module_that_is_imported_later_is_checked(folder: Path) -> None:
    write(folder, own_l="def f():\n    import own_l2", own_l2="x = 1")
    write(folder, own_lp____init__="")
    load_imports(["own_l.py", "own_lp"], folder)
    write(folder, own_l2="x = 2", own_lp__new="x = 1")
    with pytest.raises(ImportError, match="has changed since"):
        sys.modules["own_l"].f()
    with pytest.raises(ImportError, match="was not there when own_lp was inspected"):
        importlib.import_module("own_lp.new")


def test_an_extension_that_comes_after_the_digest_is_not_executed(folder: Path) -> None:
    write(folder, own_e="import own_e2", own_e2="x = 1")
    found = inspect_import("own_e.py", folder)
    (folder / f"own_e2{ABI}").write_bytes(b"no library")
    with pytest.raises(InvalidInput, match=r"Python takes .*own_e2.* for .*own_e2\.py; rename yours"):
        load_import(found)


@pytest.mark.parametrize(
    ("name", "file", "cure"),
    [
        ("own_s.py", "own_s.pyc", "delete it"),
        ("own_s.py", "own_s2.pyc", "delete it"),
        ("own_s.py", "own_absent.pyc", "delete it"),
        ("own_s.py", "own_s2/__init__.pyc", "delete it"),
        ("own_s.py", "own_dir/own_in.pyc", "delete it"),
        ("own_sp", "own_sp/sub.pyc", "delete it"),
        ("own_sp", "own_sp/inner/sub.pyc", "delete it"),
        ("own_sp", "own_s2.pyc", "delete it"),
        *(("own_s.py", f"own_s2{suffix}", "put it into a package") for suffix in EXTENSION_SUFFIXES),
        ("own_s.py", f"own_s{ABI}", "put it into a package"),
        ("own_s.py", f"own_absent{ABI}", "put it into a package"),
    ],
)
def test_compiled_files_that_python_might_take_are_refused(
    folder: Path, name: str, file: str, cure: str
) -> None:
    write(
        folder, own_s="import own_s2, own_absent\nfrom own_dir import own_in", own_s2="", own_dir__own_in=""
    )
    write(folder, own_sp____init__="import own_s2")
    inspect_import(name, folder)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"")
    with pytest.raises(InvalidInput, match=f"is compiled, and Python might import it .*{cure}") as caught:
        inspect_import(name, folder)
    assert str(folder / file) in str(caught.value)


def test_a_compiled_module_has_no_digest_as_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"own_built{ABI}").write_bytes(b"")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(InvalidInput, match="is compiled, and only source can be read"):
        inspect_import("own_built", folder)


def test_extensions_of_a_package_are_in_its_digest(folder: Path) -> None:
    write(folder, own_x____init__="from own_x import fast", own_x__fast="")
    (folder / "own_x" / f"fast{ABI}").write_bytes(b"no library")
    assert f"own_x/fast{ABI}" in inspect_import("own_x", folder).files


def test_what_a_package_imports_from_beside_it_is_in_its_digest(folder: Path) -> None:
    write(folder, own_k____init__="", own_k__part="import own_beside\nfrom . import other", own_k__other="")
    write(folder, own_beside="import own_far.deep", own_far____init__="", own_far__deep="", own_unused="")
    found = inspect_import("own_k.part", folder)
    assert set(found.files) == {
        *("own_k/__init__.py", "own_k/part.py", "own_k/other.py"),
        *("own_beside.py", "own_far/__init__.py", "own_far/deep.py"),
    }
    assert inspect_again(found) == found
    plant(folder / "own_beside.py", "1 / 0")
    load_import(found)


def test_a_relative_import_from_outside_the_folder_is_left_to_python(folder: Path) -> None:
    write(folder, own_above="", inner__own_rel="from .. import own_above")
    assert set(inspect_import("own_rel.py", folder / "inner").files) == {"own_rel.py"}


def test_a_shared_file_that_changes_between_two_imports_is_refused(folder: Path) -> None:
    write(folder, own_m="import own_shared", own_n="import own_shared", own_shared="x = 1")
    load_imports(["own_m.py"], folder)
    write(folder, own_shared="x = 2")
    with pytest.raises(InvalidInput, match=r"'own_n.py': own_shared.py has changed since this process"):
        load_imports(["own_n.py"], folder)
    assert "own_n" not in sys.modules
    write(folder, own_shared="x = 1")
    load_imports(["own_n.py"], folder)


def test_a_file_that_is_mended_after_it_failed_is_imported(folder: Path) -> None:
    write(folder, own_w="1 / 0")
    for code in ("x = (", "x = 1"):
        with pytest.raises(InvalidInput):
            load_imports(["own_w.py"], folder)
        write(folder, own_w=code)
    load_imports(["own_w.py"], folder)
