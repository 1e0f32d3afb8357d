"""Released models, and their predictions."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.release.bundle import open_release, predictions, release
    from hanse.release.output import check_output, write_predictions
    from hanse.release.shortcuts import predict, release_run
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.release.bundle": ("open_release", "predictions", "release"),
            "hanse.release.output": ("check_output", "write_predictions"),
            "hanse.release.shortcuts": ("predict", "release_run"),
        },
    )


__all__ = [
    "check_output",
    "open_release",
    "predict",
    "predictions",
    "release",
    "release_run",
    "write_predictions",
]
