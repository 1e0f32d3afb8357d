"""Parts of `hanse serve` and `hanse join`: a live table, lines, logs, and a client's own data."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.cli.serving.logs import Log, begin_logging
    from hanse.cli.serving.own_data import OwnData
    from hanse.cli.serving.screens import LineScreen, Screen, TableScreen, open_screen
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.cli.serving.logs": ("Log", "begin_logging"),
            "hanse.cli.serving.own_data": ("OwnData",),
            "hanse.cli.serving.screens": ("LineScreen", "Screen", "TableScreen", "open_screen"),
        },
    )

__all__ = ["LineScreen", "Log", "OwnData", "Screen", "TableScreen", "begin_logging", "open_screen"]
