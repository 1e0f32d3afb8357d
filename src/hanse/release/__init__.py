"""Released models, and their predictions."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.release.bundle import open_release, predictions, release
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.release.bundle": ("open_release", "predictions", "release"),
        },
    )


__all__ = [
    "open_release",
    "predictions",
    "release",
]
