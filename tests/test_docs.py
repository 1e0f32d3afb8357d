"""The documentation: its examples run, its settings can be read, its reference is that of the code."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from own_code import forget_imports

import hanse

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


OURS = ("quickstart.md", "notebooks.md", "own-data.md", "concepts.md")


@pytest.mark.parametrize("page", [page for page in OURS if blocks(page, "python")])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would type them."""
    codes = blocks(page, "python")
    for code in codes:
        needs = re.match(r"# needs: (\w+)", code)
        if needs and find_spec(needs[1]) is None:
            pytest.skip(f"{needs[1]} is not installed")
    (tmp_path / "example.py").write_text("\n".join(codes), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [page for page in OURS if blocks(page, "toml")])
def test_settings_can_be_read(page: str, tmp_path: Path) -> None:
    for i, code in enumerate(blocks(page, "toml")):
        path = tmp_path / f"{i}.toml"
        path.write_text(code, encoding="utf-8")
        assert hanse.read(path).rounds > 0


def test_a_value_of_ones_own_runs_as_written(tmp_path: Path) -> None:
    """The first file and the first settings of the page on extending."""
    (tmp_path / "mine.py").write_text(blocks("extending.md", "python")[0], encoding="utf-8")
    (tmp_path / "mine.toml").write_text(blocks("extending.md", "toml")[0], encoding="utf-8")
    with forget_imports(tmp_path):
        experiment = hanse.read(tmp_path / "mine.toml", ["rounds=2"])
        assert str(experiment).startswith("fed_avg(uplink=[halve(factor=0.25)])")
        assert hanse.perform(experiment).status == "completed"


CLAIM = re.compile(r"\b([Cc]annot|can't)\b")
TEST = re.compile(r"`(tests/[\w/]+\.py)`")


def test_each_claim_of_the_threat_model_names_a_test() -> None:
    """A point that says that somebody cannot do something names a file of tests."""
    _, _, text = (DOCS / "threat-model.md").read_text(encoding="utf-8").partition("\n## ")
    points = [" ".join(point.split()) for point in re.split(r"\n(?=- |#|\n)", text)]
    claims = [point for point in points if CLAIM.search(point)]
    assert len(claims) > 40
    assert [point[:80] for point in claims if not TEST.search(point)] == []


def test_tests_that_pages_name_exist_and_test_something() -> None:
    root = DOCS.parent
    pages = [*DOCS.glob("*.md"), *root.glob("*.md")]
    named = {name for page in pages for name in TEST.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 30
    found = {name for name in named if (root / name).is_file() and "\ndef test_" in (root / name).read_text()}
    assert named - found == set()


LOOP = "own-training-loop.md"


def test_a_training_loop_of_ones_own_runs_as_written(tmp_path: Path) -> None:
    """The files of the page, under the names in their first lines."""
    codes = {code.split()[1]: code for code in blocks(LOOP, "python")}
    assert list(codes) == ["my_training.py", "simulate.py", "plain.py", "keeps.py"]
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    for name, code in codes.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    (tmp_path / "again.py").write_text(
        codes["simulate.py"].replace("my_training", "keeps").replace(', metrics=("loss",)', ""),
        encoding="utf-8",
    )
    (settings,) = blocks(LOOP, "toml")
    (tmp_path / "own.toml").write_text(settings, encoding="utf-8")
    code = """
import runpy, hanse
simulated = runpy.run_path("simulate.py", run_name="__main__")["result"]
print("simulated")
for name in ("plain.py", "again.py"):
    runpy.run_path(name, run_name="__main__")
print(hanse.perform(hanse.read("own.toml")).params_sha256, simulated.params_sha256)
"""  # one process imports PyTorch for all
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "train_loss" in done.stdout.partition("\nsimulated\n")[0]
    from_settings, from_python = done.stdout.split()[-2:]
    assert from_settings == from_python


def test_the_places_in_a_round_are_there() -> None:
    """Each file that the page names exists, and defines the function that stands behind its name."""
    text = (DOCS / "a-round.md").read_text(encoding="utf-8")
    places = re.findall(r"`(\w[\w/]*\.py)(?:: (\w+))?`", text)
    assert len(places) > 40
    for path, name in places:
        root = DOCS.parent if path.startswith("examples/") else DOCS.parent / "src" / "hanse"
        code = (root / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^ *(async def|def|class) {name}\b", code, re.MULTILINE), (
            f"{path}: {name}"
        )


def test_commands_are_there() -> None:
    from hanse.cli import app

    known = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    known |= {group.name for group in app.registered_groups if group.name}
    for page in (*OURS, LOOP):
        for said in re.findall(r"^hanse (\w+)", "\n".join(blocks(page, "sh")), re.MULTILINE):
            assert said in known, page


def test_an_algorithm_of_ones_own_runs_as_written(tmp_path: Path) -> None:
    """The page's file, and what the page runs with it: the comparison with what is known, too."""
    file, *codes = blocks("own-algorithm.md", "python")
    (tmp_path / "q_fed_avg.py").write_text(file, encoding="utf-8")
    (tmp_path / "page.py").write_text("\n".join(codes), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_value_that_settings_name_is_in_the_reference() -> None:
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    for name in ("inverse_time", "yogi", "standardised", "newton", "torch_engine", "power_law", "uniform"):
        assert page.count(f"\n### {name}\n") == 1, name
    assert "\n## lr, server_lr\n" in page
    assert "\n## server\n" in page


def test_the_reference_is_that_of_the_code() -> None:
    command = "python -m hanse.config.reference docs/reference.md"
    code = "from hanse.config.reference import reference; print(reference(), end='')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (DOCS / "reference.md").read_text(encoding="utf-8"), f"stale; run: {command}"
