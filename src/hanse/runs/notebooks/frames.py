"""The rounds of a run as plain rows, and as tables of pandas and Polars, which Hanse does not need itself."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from hanse.core import InvalidInput
from hanse.core.exchange import Record

__all__ = ["import_library", "list_rows", "make_pandas", "make_polars"]

COSTS = ("bytes_up", "bytes_down", "counted", "dropped", "virtual_s")
REST = ("round", *COSTS, "seconds", "abandoned", "execution")


def list_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Lists the rounds as dictionaries of numbers and strings. All have the same keys.

    A metric that was not measured in a round is None there. One that has the name of a cost, such as
    "seconds", is called "metric_seconds".
    """
    records = tuple(records)
    metrics = dict.fromkeys(name for record in records for name in record.metrics)
    keys = {name: f"metric_{name}" if name in REST else name for name in metrics}
    return [
        {
            "round": record.round,
            **{key: _as_float(record.metrics.get(name)) for name, key in keys.items()},
            **{name: getattr(record.usage, name) for name in COSTS},
            "seconds": record.seconds,
            "abandoned": record.abandoned,
            "execution": record.execution,
        }
        for record in records
    ]


def _as_float(metric: float | None) -> float | None:
    return None if metric is None else float(metric)


def make_pandas(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Makes a `pandas.DataFrame` of rows. Raises: InvalidInput: if pandas is not installed."""
    return import_library("pandas", "to_pandas()").DataFrame(list(rows))


def make_polars(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Makes a `polars.DataFrame` of rows. Raises: InvalidInput: if Polars is not installed."""
    return import_library("polars", "to_polars()").DataFrame(list(rows), infer_schema_length=None)


def import_library(name: str, what: str, package: str = "") -> Any:
    """Imports a library that only `what` needs. Raises: InvalidInput: naming the package to install."""
    try:
        return import_module(name)
    except ImportError as error:
        raise InvalidInput(
            f'{what} needs {name}, which can\'t be imported ({error}); run: pip install "{package or name}"'
        ) from None
