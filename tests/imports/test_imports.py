"""Users' own modules: found, digested, imported, and refused."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from own_code import forget, forget_imports, write

import hanse
from hanse.core import InvalidInput
from hanse.core.exchange import find_classes
from hanse.imports import (
    Import,
    describe_changes,
    find_import,
    find_registered,
    inspect_again,
    inspect_import,
    load_import,
    load_imports,
    load_same,
    module_of,
)

VALUE = "from hanse.core import value\n\n\n@value\nclass {}:\n    q: float = 1.0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with forget_imports(tmp_path):
        yield tmp_path


def refused(name: str, folder: Path, *, load: bool = False) -> str:
    with pytest.raises(InvalidInput) as caught:
        load_imports([name], folder) if load else inspect_import(name, folder)
    return str(caught.value)


# -- digests -----------------------------------------------------------------------------------


def test_a_file_is_digested_with_what_it_imports_from_its_folder(folder: Path) -> None:
    write(
        folder,
        own_one="import json, numpy\nfrom own_two import x\ndef f():\n    import own_dir.own_inner\n",
        own_two="import own_three",
        own_three="import own_one",
        own_unused="",
        own_dir__own_inner="import own_pack.deep",
        own_pack____init__="from . import side",
        own_pack__side="",
        own_pack__deep="",
    )
    (folder / "own_pack" / "table.json").write_text("{}")
    found = inspect_import("own_one.py", folder)
    assert found.kind == "file"
    assert list(found.files) == [
        "own_dir/own_inner.py",
        "own_one.py",
        "own_pack/__init__.py",
        "own_pack/deep.py",
        "own_pack/side.py",
        "own_pack/table.json",
        "own_three.py",
        "own_two.py",
    ]
    assert "own_one" not in sys.modules


def test_relative_imports_are_followed(folder: Path) -> None:
    write(folder, own_r="import own_d.own_a", own_d__own_a="from .own_b import x", own_d__own_b="x = 1")
    assert set(inspect_import("own_r.py", folder).files) == {"own_r.py", "own_d/own_a.py", "own_d/own_b.py"}


def test_a_digest_is_that_of_the_contents_not_of_the_place(folder: Path) -> None:
    for place in ("here", "there"):
        write(folder / place, own_same="import own_help", own_help="x = 1")
    here, there = (inspect_import("own_same.py", folder / place) for place in ("here", "there"))
    assert here == there
    assert here.folder != there.folder
    assert re.fullmatch("sha256:[0-9a-f]{64}", here.digest)
    write(folder / "there", own_help="x = 2")
    assert inspect_import("own_same.py", folder / "there").digest != here.digest


def test_a_renamed_file_is_another(folder: Path) -> None:
    write(folder, own_x="x = 1", own_y="x = 1")
    assert inspect_import("own_x.py", folder).digest != inspect_import("own_y.py", folder).digest


def test_a_package_is_digested_whole(folder: Path) -> None:
    write(folder, own_p____init__="", own_p__part="x = 1", own_p__inner__more="")
    (folder / "own_p" / "weights.bin").write_bytes(b"\0\1")
    before = inspect_import("own_p", folder)
    assert before.kind == "package"
    assert set(before.files) == {
        f"own_p/{n}" for n in ("__init__.py", "part.py", "inner/more.py", "weights.bin")
    }
    for noise in (".hidden", "__pycache__/part.cpython-311.pyc", ".git/config"):
        (folder / "own_p" / noise).parent.mkdir(exist_ok=True)
        (folder / "own_p" / noise).write_text("noise")
    assert inspect_import("own_p", folder) == before
    assert inspect_import("own_p.part", folder).digest == before.digest
    (folder / "own_p" / "weights.bin").write_bytes(b"\0\2")
    assert inspect_import("own_p", folder).digest != before.digest


def test_a_package_with_a_link_to_itself_has_an_end(folder: Path) -> None:
    write(folder, own_loop____init__="")
    (folder / "own_loop" / "again").symlink_to(folder / "own_loop")
    assert set(inspect_import("own_loop", folder).files) == {"own_loop/__init__.py"}


def install(site: Path, record: str, version: str = "1.0", code: str = "x = 1\n") -> None:
    write(site, own_dist____init__=code)
    info = site / "own_dist-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: own-dist\nVersion: {version}\n")
    (info / "RECORD").write_text(record)


def test_a_distribution_is_known_by_version_and_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = folder / "site-packages"
    record = "own_dist/__init__.py,sha256=abc,6\nown_dist-1.0.dist-info/RECORD,,\n"
    install(site, record)
    monkeypatch.syspath_prepend(str(site))
    found = inspect_import("own_dist", folder)
    assert (found.kind, found.files, found.folder) == ("distribution", {}, "")
    install(
        site,
        "own_dist-1.0.dist-info/INSTALLER,sha256=x,4\n../../bin/own,sha256=y,9\n"
        "own_dist/__pycache__/__init__.cpython-311.pyc,,\n" + record,
    )
    assert inspect_import("own_dist", folder) == found
    install(site, record.replace("abc", "abd"))
    other = inspect_import("own_dist", folder)
    assert other.digest != found.digest
    assert describe_changes(found, other) == "another version or build of it is installed"
    install(site, record, version="1.1")
    assert inspect_import("own_dist", folder).digest not in (found.digest, other.digest)


def test_a_module_that_no_record_names_is_digested_by_its_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an editable installation: its RECORD would not change with the code."""
    site = folder / "site-packages"
    install(site, "own_dist-1.0.dist-info/METADATA,sha256=x,4\n")
    monkeypatch.syspath_prepend(str(site))
    assert inspect_import("own_dist", folder).kind == "package"


# -- importing ---------------------------------------------------------------------------------


def test_imports_register_what_settings_may_name(folder: Path) -> None:
    write(folder / "lib", own_lib=VALUE.format("own_of_lib"))
    write(folder, own_pkg____init__="", own_pkg__values=VALUE.format("own_of_pkg"))
    first, second = load_imports(["lib/own_lib.py", "own_pkg.values"], folder)
    assert first == inspect_import("lib/own_lib.py", folder)
    assert {"own_of_lib", "own_of_pkg"} <= find_classes(object).keys()
    assert (find_registered(first), find_registered(second)) == (("own_of_lib",), ("own_of_pkg",))


def test_importing_again_does_nothing(folder: Path) -> None:
    write(folder, own_once="import builtins\nbuiltins.own_count = getattr(builtins, 'own_count', 0) + 1")
    (first,) = load_imports(["own_once.py"], folder)
    assert load_imports(["own_once.py", "own_once"], folder) == (first,)
    import builtins

    assert builtins.own_count == 1  # type: ignore[attr-defined]
    assert find_registered(first) == ()


def test_a_value_that_another_module_defines_counts_as_registered(folder: Path) -> None:
    write(folder, own_face="import own_elsewhere")
    write(folder / "else", own_elsewhere=VALUE.format("own_far"))
    sys.path.append(str(folder / "else"))
    (found,) = load_imports(["own_face.py"], folder)
    assert set(found.files) == {"own_face.py"}
    assert find_registered(found) == ("own_far",)


def test_a_changed_file_is_not_what_was_imported(folder: Path) -> None:
    write(folder, own_moving="import own_helper", own_helper="x = 1")
    load_imports(["own_moving.py"], folder)
    write(folder, own_helper="x = 22")
    why = refused("own_moving.py", folder, load=True)
    assert why == (
        "imports: 'own_moving.py' is not what this process imported: own_helper.py has changed; "
        "begin a new process"
    )


def test_what_is_installed_comes_before_files_beside_an_import(folder: Path) -> None:
    write(folder, own_last="", own_wave="")
    load_imports(["own_last.py"], folder)
    assert sys.path[-1] == str(folder)


def test_another_process_must_find_the_same_code(folder: Path) -> None:
    write(folder, own_sent=VALUE.format("own_sent_value"))
    sent = inspect_import("own_sent.py", folder)
    load_same([sent])
    assert "own_sent_value" in find_classes(object)
    write(folder, own_sent=VALUE.format("own_sent_value") + "    r: float = 1.0\n")
    load_same([sent])  # this process has the code that was sent
    forget(folder)
    with pytest.raises(InvalidInput, match=r"'own_sent.py' has changed since the run began: own_sent.py has"):
        load_same([sent])
    assert "own_sent" not in sys.modules
    load_same([replace(sent, folder="")])  # a script, which the other process performs, too


def test_a_record_leads_to_no_file_that_came_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an archive with a store and the code that its runs name, opened where it was unpacked."""
    write(folder, own_archived=VALUE.format("own_archived_value"))
    monkeypatch.chdir(folder)
    found = inspect_import("own_archived.py", folder)
    assert inspect_again(found) == found
    for name, kind, where in (
        ("own_archived.py", "file", "."),
        ("own_archived.py", "file", ""),
        ("own_archived", "distribution", ""),
    ):
        with pytest.raises(InvalidInput, match=r"is not known|there is no module 'own_archived'"):
            inspect_again(replace(found, name=name, kind=kind, folder=where))  # type: ignore[arg-type]
    assert not found.is_same_code(replace(found, kind="distribution"))


def test_a_script_that_is_performed_is_not_imported_again(folder: Path) -> None:
    """It registers its values as `__main__`, and importing it would perform it once more."""
    code = VALUE.format("own_scripted") + (
        "\nfrom pathlib import Path\nfrom hanse.imports import find_import, find_registered, load_imports\n"
        "(found,) = load_imports(['own_script.py'], Path.cwd())\nprint(find_registered(found))\n"
        "kept = find_import('__main__')\nprint(kept == found, [kept.folder])\n"
    )
    write(folder, own_script=code)
    env = {"PYTHONPATH": str(Path(hanse.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "own_script.py"], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["('own_scripted',)", "True ['']"]


def test_the_import_of_a_loaded_module_is_found(folder: Path) -> None:
    write(folder, own_mod="x = 1", own_pk____init__="", own_pk__sub="x = 1")
    for name in ("own_mod.py", "own_pk.sub"):
        (loaded,) = load_imports([name], folder)
        found = find_import(module_of(name))
        assert found == loaded
        assert found.folder == loaded.folder
    assert find_import("own_missing") is None
    assert find_import("sys") is None
    assert find_import("random") is None


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("own_gone.py", "there is no 'own_gone.py' in {folder}; write where it is now"),
        ("own_gone", "there is no module 'own_gone', neither in {folder} nor among those installed"),
        (
            "own_here.gone",
            "there is no module 'own_here.gone'; own_here at {folder}/own_here.py has no 'gone'",
        ),
        ("own-here.py", "rename it, to 'own_here' for instance"),
        ("1st.py", "rename it, to 'my_1st' for instance"),
        ("own here", 'is neither a module nor a file; write "my_module" or "path/file.py"'),
        ("data/", "is a folder without __init__.py; name a file in it"),
        ("./own_here.txt", "is not a file of Python; its name must end with .py"),
        ("json", "is a module of Python itself; name one of your own"),
        ("hanse.algorithms", "is Hanse's own and needs no import"),
        (
            "random.py",
            "{folder}/random.py has the name of Python's own module 'random'; rename yours, to my_random.py",
        ),
        ("numpy.py", "has the name of another module, "),
        ("own_uses_yaml.py", "{folder}/typer.py has the name of another module, "),
    ],
)
def test_names_are_refused_with_a_cure(folder: Path, name: str, why: str) -> None:
    write(folder, own_here="", random="", numpy="", typer="", own_uses_yaml="import typer")
    for file in ("own-here.py", "1st.py", "own_here.txt"):
        (folder / file).touch()
    (folder / "data").mkdir()
    assert why.format(folder=folder) in refused(name, folder)


def test_a_file_named_like_a_loaded_module_is_refused(folder: Path) -> None:
    write(folder / "a", own_twin="")
    write(folder / "b", own_twin="x = 1")
    load_imports(["a/own_twin.py"], folder)
    assert f"has the name of another module, {folder}/a/own_twin.py" in refused("b/own_twin.py", folder)
    sys.path.remove(str(folder / "a"))
    why = refused("b/own_twin.py", folder)
    assert f"this process has imported {folder}/a/own_twin.py under the name of {folder}/b/own_twin.py" in why


def test_a_file_beside_a_package_of_its_name_is_refused(folder: Path) -> None:
    """Python would take the package."""
    write(folder, own_both="x = 1", own_both____init__="x = 2")
    why = refused("own_both.py", folder, load=True)
    assert f"Python takes {folder}/own_both/__init__.py for {folder}/own_both.py; rename yours" in why
    assert inspect_import("own_both", folder).kind == "package"


def test_what_a_module_prints_does_not_mix_with_results(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, own_loud="print('loud')")
    load_imports(["own_loud.py"], folder)
    assert capsys.readouterr() == ("", "loud\n")


def test_a_program_may_call_its_classes_as_it_likes(folder: Path) -> None:
    """It imports them by itself, so no settings need their names: `plain` was one of ours."""
    write(folder, own_free=VALUE.format("plain"))
    sys.path.append(str(folder))
    importlib.import_module("own_free")
    found = inspect_import("own_free.py", folder)
    load_import(found)
    load_same([found])
    assert find_registered(found) == ("plain",)


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    write(folder / "a", own_pair="")
    write(folder / "b", own_pair="")
    with pytest.raises(InvalidInput, match=r"'a/own_pair.py' and 'b/own_pair.py' have the same name"):
        load_imports(["a/own_pair.py", "b/own_pair.py"], folder)
    assert "own_pair" not in sys.modules


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("x = 1\n1 / 0", "{file}, line 2: ZeroDivisionError: division by zero"),
        ("x = (", "{file}, line 1: not Python: '(' was never closed"),
        (
            "\nimport own_absent",
            "{file}, line 2: ModuleNotFoundError: No module named 'own_absent'; install own_absent",
        ),
        ("import own_inside", "{folder}/own_inside.py, line 3: KeyError: 'k'"),
        (
            "import sys\nsys.exit(3)",
            "{file}, line 2: SystemExit: 3; what a script does belongs below if __name__",
        ),
        (
            VALUE.format("clip"),
            "two classes are called 'clip': hanse.transforms.clip.clip and own_bad.clip; rename yours",
        ),
    ],
)
def test_errors_of_the_users_code_say_where(folder: Path, code: str, why: str) -> None:
    write(folder, own_bad=code, own_inside="def f(t):\n    # an own line\n    return t['k']\n\nf({})")
    import hanse.transforms  # noqa: F401

    said = refused("own_bad.py", folder, load=True)
    assert said.startswith("imports: 'own_bad.py': ")
    assert why.format(file=folder / "own_bad.py", folder=folder) in said
    assert "own_bad" not in sys.modules
    assert str(folder) not in sys.path


def test_two_imports_with_one_value_name_are_refused(folder: Path) -> None:
    write(folder, own_first=VALUE.format("own_shared"), own_second=VALUE.format("own_shared"))
    load_imports(["own_first.py"], folder)
    why = refused("own_second.py", folder, load=True)
    assert f"{folder}/own_second.py, line 4: two classes are called 'own_shared': " in why
    assert "own_first.own_shared and own_second.own_shared; rename yours" in why


EARLY = """
from pathlib import Path
from hanse.core import InvalidInput
from hanse.imports import load_imports
try:
    load_imports(["own_early.py"], Path.cwd())
except InvalidInput as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "other"), [("SweepRunNot", None), ("Plan", "hanse.network.protocol"), ("plain", "former name")]
)
def test_names_of_ours_are_refused_before_their_modules_are_loaded(
    folder: Path, name: str, other: str | None
) -> None:
    """Else such a run could not be shown or resumed, where these modules are needed."""
    write(folder, own_early=VALUE.format(name))
    env = {"PYTHONPATH": str(Path(hanse.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", EARLY], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    if other is None:
        assert done.stdout == ""
    else:
        assert f"two classes are called {name!r}: " in done.stdout
        assert other in done.stdout
        assert f"and own_early.{name}; rename yours" in done.stdout


def test_changes_are_described() -> None:
    before = Import("own.py", "file", "sha256:1", {"own.py": "1", "gone.py": "2", "same.py": "3"})
    now = Import("own.py", "file", "sha256:2", {"own.py": "4", "new.py": "5", "same.py": "3"})
    assert describe_changes(before, now) == "gone.py is gone, new.py is new, own.py has changed"
    package = Import("own", "package", "sha256:2", {})
    assert describe_changes(before, package) == "it was a file and is a package"


def test_an_import_survives_json(folder: Path) -> None:
    write(folder, own_json="x = 1")
    found = inspect_import("own_json.py", folder)
    again = Import.from_json(found.to_json())
    assert again == found
    assert again.folder == found.folder == str(folder)


def test_a_process_may_forget(folder: Path) -> None:
    write(folder, own_forgotten=VALUE.format("own_forgotten_value"))
    load_imports(["own_forgotten.py"], folder)
    forget(folder)
    assert "own_forgotten_value" not in find_classes(object)
    assert os.fspath(folder) not in sys.path
