"""The pages in a real browser: their controls, small and large windows, by day and by night, and in print."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, open_page

import hanse
from hanse.algorithms import fed_avg, fed_sgd
from hanse.audits import AuditResult, Section, draw_audit
from hanse.data import dirichlet
from hanse.evaluation import centralised, on_site
from hanse.report import compare_page, load_run, load_runs, report_page
from hanse.store import Runs
from hanse.sweeps import SweepResult, drawing
from hanse.sweeps.result import SweepRun

pytest.importorskip("altair")

COLLISIONS = """[...document.querySelectorAll(".chart .role-axis-label")].flatMap(group => {
  const boxes = [...group.querySelectorAll("text")].filter(t => t.textContent && t.style.opacity !== "0"
    && t.getAttribute("opacity") !== "0").map(t => t.getBoundingClientRect());
  return boxes.filter((a, i) => boxes.some((b, j) => j > i && a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 1 && b.top < a.bottom - 1)).map(() => group.parentElement.ariaLabel);
})"""
"""The axes whose labels overlap."""

OUTSIDE = """[...document.querySelectorAll(".card")].filter(card => [...card.querySelectorAll("svg")]
  .some(svg => svg.getBoundingClientRect().right > card.getBoundingClientRect().right)).length"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    store = folder / "store.db"
    people = dirichlet(12, 0.5)
    found = hanse.run(
        rounds=3,
        partition=people,
        client_test_fraction=0.2,
        baselines=(centralised(), on_site()),
        store=store,
    )
    runs = Runs(store)
    (folder / "report.html").write_text(report_page(load_run(runs, str(found.run)))[0], encoding="utf-8")
    algorithms = [fed_avg(lr=0.1, epochs=epochs) for epochs in (1, 2, 3, 3)] + [fed_sgd(lr=0.3)]
    done = [hanse.run(rounds=3, partition=people, algorithm=one, store=store) for one in algorithms]
    five = load_runs(runs, [str(one.run) for one in done])
    (folder / "compare.html").write_text(compare_page(five)[0], encoding="utf-8")
    members = [
        SweepRun({"algorithm.epochs": 1 + n // 2}, n % 2, str(one.run), "completed", None, one.to_json())
        for n, one in enumerate(done)
    ]
    drawing(folder / "sweep.html")(SweepResult.of(members, hanse.Stop(), str(store)))
    ruled = [
        SweepRun(
            {"algorithm.into": rule, "adversary.attack": attack}, 0, str(done[0].run), "completed", None,
            {**done[0].to_json(), "final": {"accuracy": accuracy}, "best": {"accuracy": accuracy}},
        )
        for rule, attack, accuracy in (
            ("mean", "none", 0.9), ("mean", "scaled_mean", 0.1), ("median", "none", 0.8),
            ("median", "scaled_mean", 0.7),
        )
    ]  # fmt: skip
    drawing(folder / "choices.html")(SweepResult.of(ruled, hanse.Stop(), str(store)))
    section = Section(
        "Membership", "about", ("attack", "area under the curve"), (("a threshold of the loss", "0.61"),),
        curve=((0.0, 0.0), (0.1, 0.3), (1.0, 1.0)),
    )  # fmt: skip
    audited = AuditResult("fed_avg", found_settings(runs), {"membership": section}, (), "ab" * 32)
    (folder / "audit.html").write_text(draw_audit(audited), encoding="utf-8")
    return folder


def found_settings(runs: Runs) -> dict[str, object]:
    return dict(runs.infos()[0].settings["experiment"])


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    with open_page(folder / "report.html") as page:
        yield page


@pytest.mark.parametrize("name", ["report", "compare", "sweep", "choices", "audit"])
def test_nothing_sticks_out_collides_or_is_fetched(page: Page, folder: Path, name: str) -> None:
    page.said.clear()
    page.asked.clear()
    page.visit(folder / f"{name}.html")
    colours = set()
    for width in (1280, 390):
        for dark in (False, True):
            page.show(width=width, dark=dark)
            assert page.evaluate("[innerWidth, document.scrollingElement.scrollWidth]") == [width, width]
            assert page.find_overflow() == []
            assert page.evaluate(OUTSIDE) == 0
            assert page.evaluate(COLLISIONS) == []
            ink, ground = page.evaluate(
                "['color', 'backgroundColor'].map(what => getComputedStyle(document.body)[what])"
            )
            assert (lightness(ink) > lightness(ground)) == dark
            colours.add((ink, ground))
    assert len(colours) == 2
    page.show(width=1280, dark=True, media="print")
    assert lightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 255
    assert lightness(page.evaluate("getComputedStyle(document.body).color")) < 60
    assert page.said == []
    assert page.asked == [(folder / f"{name}.html").as_uri()]


def lightness(colour: str) -> float:
    """Return the mean of red, green and blue in `rgb(1, 2, 3)`."""
    return sum(map(float, colour[4:-1].split(","))) / 3


CURVES = """[...document.querySelectorAll("#accuracy-per-round .mark-line path")]
  .map(path => getComputedStyle(path).opacity)"""


def test_a_key_hides_and_shows_its_curve_in_all_charts(page: Page, folder: Path) -> None:
    page.visit(folder / "compare.html")
    page.show(width=1280)
    assert page.evaluate(CURVES) == ["1"] * 5
    count = "document.querySelectorAll('.keys button[aria-pressed=false]').length"
    page.click(".keys button", 1)
    page.wait_until(f"{CURVES}[1] === '0'")
    assert page.evaluate(CURVES) == ["1", "0", "1", "1", "1"]
    assert page.evaluate(count) == 2  # its keys in both sections
    other = CURVES.replace("accuracy-per-round", "accuracy-against-bytes-up")
    page.wait_until(f"{other}[1] === '0'")
    page.click(".keys button", 1)
    page.wait_until(f"{CURVES}[1] === '1'")
    assert page.evaluate(count) == 0


def test_a_key_of_a_sweep_hides_its_curve_and_leaves_the_ranking(page: Page, folder: Path) -> None:
    page.visit(folder / "sweep.html")
    page.show(width=390)
    curves = CURVES.replace("accuracy-per-round", "curves")
    before = page.evaluate(curves)
    assert set(before) == {"1"}
    page.click(".keys button", 1)
    page.wait_until(f"{curves}.includes('0')")
    assert page.evaluate("document.querySelectorAll('.keys button')[1].ariaPressed") == "false"
    assert page.evaluate("document.querySelectorAll('#settings .mark-symbol path').length") == 3
    page.click(".keys button", 1)
    page.wait_until(f"!{curves}.includes('0')")


def test_choices_can_be_read_by_day_and_by_night_and_the_best_are_marked(page: Page, folder: Path) -> None:
    page.visit(folder / "choices.html")
    best = page.evaluate("[...document.querySelectorAll('.heat td.best')].map(e => e.innerText)")
    assert best == ["0.700", "0.900"]
    cells = """[...document.querySelectorAll('.heat tbody tr')].map(row => [...row.cells].slice(1).map(
      e => [e.innerText, getComputedStyle(e).backgroundColor.split(/[ /)]+/).at(-2)]))"""
    for dark in (False, True):
        page.show(width=1280, dark=dark)
        strength = {text: float(part) for row in page.evaluate(cells) for text, part in row}
        assert strength["0.700"] > strength["0.100"]
        assert max(strength.values()) <= 0.5  # so that the ink of the page is seen on all of them
        assert page.evaluate(
            "[...document.querySelectorAll('.heat td')].every("
            "e => getComputedStyle(e).color === getComputedStyle(document.body).color)"
        )


def test_the_settings_open_and_close(page: Page, folder: Path) -> None:
    page.visit(folder / "compare.html")
    heights = "document.querySelector('details pre').getBoundingClientRect().height"
    assert page.evaluate("document.querySelector('details').open") is False
    page.click("details summary")
    page.wait_until("document.querySelector('details').open")
    assert page.evaluate(heights) > 100
    page.click("details summary")
    page.wait_until("!document.querySelector('details').open")


def test_a_curve_says_its_numbers_under_the_mouse(page: Page, folder: Path) -> None:
    page.visit(folder / "report.html")
    page.show(width=1280)
    page.click("#accuracy-per-round .mark-symbol path", 2)
    page.wait_until("document.querySelector('#vg-tooltip-element.visible') !== null")
    shown = page.evaluate("document.querySelector('#vg-tooltip-element').innerText")
    assert "federated" in shown
    assert "%" in shown
