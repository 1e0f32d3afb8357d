"""Commands that write pages about runs."""

from pathlib import Path

from hanse.cli.exits import exit_truthfully
from hanse.cli.options import Images, Imports, Names, RunId, Store, To, list_infos, locate_store

__all__ = ["compare", "demo", "report"]


def report(
    run: RunId, to: To = None, imports: Imports = None, images: Images = True, store: Store = None
) -> None:
    """Write a page about a run to show to others: one HTML file, and its charts as images."""
    with exit_truthfully(False):
        from hanse.cli.views import note
        from hanse.report import write_report
        from hanse.runs import existing, import_unchanged

        info = existing(locate_store(store), to_read=True).info(run)
        import_unchanged(info, imports or (), note)
        print(write_report(info.run, to, store=locate_store(store), images=images))


def compare(
    runs: Names,
    to: To = None,
    imports: Imports = None,
    images: Images = True,
    store: Store = None,
) -> None:
    """Write a page that shows several runs in the same charts."""
    with exit_truthfully(False):
        from hanse.cli.views import note
        from hanse.report import write_comparison
        from hanse.runs import existing, import_unchanged

        kept = existing(locate_store(store), to_read=True)
        infos = [kept.info(run) for run in runs]
        for info in infos:
            import_unchanged(info, imports or (), note)
        found = [info.run for info in infos]
        print(write_comparison(found, to, store=locate_store(store), images=images))


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
