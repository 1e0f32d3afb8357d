"""Numbers as people read them, in terminals, pages and cards."""

from collections.abc import Mapping
from math import isnan

__all__ = ["as_bytes", "as_cell", "as_number", "as_percent", "as_seconds"]


def as_number(number: float | None, nothing: str = "–") -> str:
    """Formats a number with four digits after the point.

    >>> as_number(0.91234), as_number(1e-5), as_number(None), as_number(float("nan"))
    ('0.9123', '1e-05', '–', 'undefined')

    Args:
      number: a metric, for instance; NaN: the examples do not define it.
      nothing: stands for None.
    """
    if number is None:
        return nothing
    if isnan(number):
        return "undefined"
    return f"{number:.4f}" if 1e-3 <= abs(number) < 1e4 or number == 0 else f"{number:.3g}"


def as_cell(metrics: Mapping[str, float | None], name: str, nothing: str = "") -> str:
    """Formats a metric of a result for a table. None stands for what is undefined.

    >>> as_cell({"auroc": None}, "auroc"), as_cell({}, "auroc", "–")
    ('undefined', '–')

    Args:
      nothing: stands for a metric that was not measured.
    """
    return as_number(metrics[name], "undefined") if name in metrics else nothing


def as_percent(share: float | None) -> str:
    """Formats a share as a percentage; a dash stands for None.

    >>> as_percent(0.5)
    '50.0 %'
    """
    return "–" if share is None else f"{100 * share:.1f} %"


def as_bytes(count: float) -> str:
    """Formats a number of bytes in the unit that suits it.

    >>> as_bytes(2_500_000), as_bytes(999_900), as_bytes(12_345e12)
    ('2.5 MB', '1 MB', '12,345 TB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{1000 * count:,.0f} TB"


def as_seconds(seconds: float) -> str:
    """Formats a duration in the unit that suits it.

    >>> as_seconds(0.25), as_seconds(0.9999), as_seconds(90), as_seconds(3600), as_seconds(90_000)
    ('250 ms', '1 s', '90 s', '60 min', '25 h')
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 36_000:
        return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.3g} h" if seconds < 3_600_000 else f"{seconds / 3600:,.0f} h"
