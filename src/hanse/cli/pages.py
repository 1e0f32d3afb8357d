"""Commands that write pages about runs."""

from pathlib import Path
from typing import Annotated

import typer

from hanse.cli.exits import exit_truthfully
from hanse.cli.options import Images, Imports, RunId, Store, To, list_infos, locate_store

__all__ = ["compare", "demo", "report"]


def report(
    run: RunId, to: To = None, imports: Imports = None, images: Images = True, store: Store = None
) -> None:
    """Write a page about a run to show to others: one HTML file, and its charts as images."""
    with exit_truthfully(False):
        from hanse.cli.views import note
        from hanse.report import load_run, report_page, write
        from hanse.runs import existing, import_unchanged

        runs = existing(locate_store(store))
        import_unchanged(runs.info(run), imports or (), note)
        run_data = load_run(runs, run)
        folder = to or Path(f"report-{run_data.run}")
        folder.mkdir(parents=True, exist_ok=True)  # fails before the charts are drawn, which takes seconds
        print(write(folder, *report_page(run_data), images=images))


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two or more runs.")],
    to: To = None,
    imports: Imports = None,
    images: Images = True,
    store: Store = None,
) -> None:
    """Write a page that shows several runs in the same charts."""
    with exit_truthfully(False):
        from hanse.cli.views import note
        from hanse.report import compare_page, load_runs, write
        from hanse.runs import existing, import_unchanged

        kept = existing(locate_store(store))
        for run in runs:
            import_unchanged(kept.info(run), imports or (), note)
        found = load_runs(kept, runs)
        folder = to or Path("compare-" + "-".join(run_data.run[:6] for run_data in found[:4]))
        folder.mkdir(parents=True, exist_ok=True)
        print(write(folder, *compare_page(found), images=images))


def demo(to: To = None, images: Images = True, store: Store = None) -> None:
    """Train on handwritten digits, and write two pages that compare federated runs with others."""
    with exit_truthfully(False):
        from hanse.cli.demo import demonstrate
        from hanse.cli.views import result_page, say

        first, *pages = demonstrate(locate_store(store), to or Path("demo"), say, images=images)
        kept = list_infos(store)
        settings = next(info.settings["experiment"] for info in kept if info.run == first.run)
        result_page(settings, first.to_json())
        print("\nOpen in a browser:", *pages, sep="\n  ")
