"""The site of the documentation: its index, its pages on Python, and how it looks in a browser."""

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from browser import open_page
from mkdocs.commands.build import build
from mkdocs.config import load_config

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.name for path in DOCS.glob("*.md")} - {"index.md"}


def test_the_index_names_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == PAGES | {"python.md"}


def test_the_navigation_names_every_page() -> None:
    text = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE)) == sorted(PAGES | {"index.md"})


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = spec_from_file_location("python_page", DOCS / "python_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_on_python_lists_the_rooms_and_what_the_package_shows(hook: ModuleType) -> None:
    page = hook.write_index()
    for room in ("algorithms", "data", "transforms", "sweeps", "report"):
        assert f"](python/{room}.md)" in page
    assert "\n### run\n" in page
    assert "\n### Experiment\n" in page


def test_each_public_name_of_a_room_has_its_signature_and_docstring(hook: ModuleType) -> None:
    import hanse.algorithms

    page = hook.write_room("algorithms")
    assert re.findall(r"^### (\w+)$", page, re.MULTILINE) == sorted(hanse.algorithms.__all__, key=str.lower)
    block = page.partition("\n### inverse_time\n")[2].partition("\n### ")[0]
    assert "```python\ninverse_time(lr: float, half_life: float = 1.0)\n```" in block
    assert "- `half_life`: the number of rounds after which it is half." in block
    assert "```pycon\n>>> any_staleness().weigh(7)\n1.0\n```" in page
    assert "weight_decay: float = 0.01" in page  # names lose their modules, numbers nothing


def test_no_cell_of_the_reference_is_blank() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 500
    blank = [row for row in rows if any(not cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1])]
    assert not blank


def test_pictures_of_benchmarks_are_in_the_site(hook: ModuleType) -> None:
    pictures = hook.find_pictures(DOCS)
    assert set(pictures) == {"benchmarks/parallel/four_ways.png", "benchmarks/privacy/digits.svg"}
    assert all(path.is_file() for path in pictures.values())
    shown = hook.on_page_markdown("![a](../benchmarks/b.png) [c](../benchmarks/d.md)", page=None)
    assert shown == "![a](benchmarks/b.png) [c](../benchmarks/d.md)"
    texts = [path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")]
    outside = [link for text in texts for link in re.findall(r"\]\((\.\./[^)]+)\)", text)]
    assert sorted(outside) == sorted(f"../{name}" for name in pictures)


def test_the_site_in_a_browser(tmp_path: Path, hook: ModuleType) -> None:
    """A site of two pages with the settings of the whole: dark, on a phone, highlighted, and searched."""
    docs = tmp_path / "docs"
    docs.mkdir()
    lines = (DOCS / "reference.md").read_text(encoding="utf-8").splitlines()[:330]
    (docs / "reference.md").write_text("\n".join(lines), encoding="utf-8")
    text = (DOCS / "learning-rates.md").read_text(encoding="utf-8")
    (docs / "index.md").write_text(re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text), encoding="utf-8")
    (docs / "style.css").write_text((DOCS / "style.css").read_text(encoding="utf-8"), encoding="utf-8")
    config = load_config(str(DOCS.parent / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(tmp_path / "site"),
                         hooks=[], nav=None, strict=False)  # fmt: skip
    build(config)
    hook.on_post_build(config=config)
    found = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("inverse_time" in one["text"] for one in found["docs"])
    with open_page(tmp_path / "site" / "index.html") as page:
        for name in ("index.html", "reference.html"):
            page.visit(tmp_path / "site" / name)
            for width in (1280, 390):
                page.show(width=width)
                assert page.evaluate("document.scrollingElement.scrollWidth") == width
                assert page.find_overflow() == [] or width == 390  # there, tables scroll in themselves
            page.show(width=1280, dark=True)
            page.visit(tmp_path / "site" / name)
            assert page.evaluate("document.documentElement.getAttribute('data-bs-theme')") == "dark"
            page.show(width=1280)
        colours = "[...document.querySelectorAll('.codehilite span')].map(e => getComputedStyle(e).color)"
        page.visit(tmp_path / "site" / "index.html")
        assert len(set(page.evaluate(colours))) >= 4
        clipped = "[...document.querySelectorAll('td')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        page.visit(tmp_path / "site" / "reference.html")
        page.show(width=390)
        assert page.evaluate(clipped) == 0
        assert not [address for address in page.asked if not address.startswith(("file:", "data:", "blob:"))]
        page.evaluate("document.querySelector('#mkdocs-search-query').value = 'inverse_time'")
        look = "document.querySelector('#mkdocs-search-query').dispatchEvent(new Event('keyup'))"
        results = "document.querySelectorAll('#mkdocs-search-results article a')"
        page.wait_until(f"{look} && {results}.length > 0")
        found = page.evaluate(f"[...{results}].map(one => one.href)")
        assert (tmp_path / "site" / "index.html").as_uri() in {address.partition("#")[0] for address in found}
        assert not [said for said in page.said if "'level': 'info'" not in said]
