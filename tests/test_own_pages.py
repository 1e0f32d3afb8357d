"""The pages on users' own code, followed by a reader who types what they say."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from own_code import forget_imports
from typer.testing import CliRunner

from hanse.cli import app

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("own-algorithm.md", "own-transform.md", "own-torch-model.md")


def read_blocks(page: str) -> list[tuple[str, str]]:
    """Return the page's blocks of code in order, each with its language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(python|toml|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def type_command(words: list[str]) -> str:
    given = CliRunner().invoke(app, words, prog_name="hanse")
    assert given.exit_code == 0, f"hanse {' '.join(words)}\n{given.output}"
    return given.output


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_follows_the_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save its files, type its commands, and execute its code, in order."""
    if page == "own-torch-model.md" and find_spec("torch") is None:
        pytest.skip("torch is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("HANSE_STORE", raising=False)
    run, names = "", {"__name__": "__main__"}
    with forget_imports(tmp_path):
        for language, code in read_blocks(page):
            named = re.match(r"# file: (\S+)\n", code)
            if named:
                (tmp_path / named[1]).write_text(code, encoding="utf-8")
            elif language == "python":
                exec(compile(code, page, "exec"), names)
            elif language == "sh":
                for line in code.splitlines():
                    program, *words = line.replace("RUN", run).split()
                    if program == "python":
                        script = Path(words[0]).read_text(encoding="utf-8")
                        exec(compile(script, words[0], "exec"), {"__name__": "__main__"})
                    elif program == "hanse" and words[0] != "serve":  # tests/network serves such files
                        said = type_command(words)
                        found = re.search(r"\brun (\w{8,})", said)
                        run = found[1] if words[0] == "run" and found else run
    assert run


def test_each_file_of_the_pages_says_its_name() -> None:
    for page in PAGES:
        files = [re.findall(r"# file: (\S+)", code) for _, code in read_blocks(page)]
        assert any(files), page
