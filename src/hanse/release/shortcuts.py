"""The commands `hanse release` and `hanse predict`, as one call each."""

from collections.abc import Sequence
from pathlib import Path

from hanse.release.bundle import Predictions, open_release, predictions, release
from hanse.runs import default_store, existing

__all__ = ["predict", "release_run"]


def release_run(
    run: str,
    to: str | Path,
    *,
    store: str | Path | None = None,
    imports: Sequence[str] = (),
    accept_changed_imports: bool = False,
    audit: Path | None = None,
) -> Path:
    """Writes the model of a run that is kept, with a card that describes it, and returns the folder.

    Args:
      run: its name, its id or the beginning of that, or "last".
      to: the folder to write to.
      store: the file that keeps the run; None: where the command line keeps runs.
      imports, accept_changed_imports, audit: see `release`.

    Raises: StoreError: if there is no such run, or it has no model yet.
    """
    runs = existing(default_store() if store is None else store)
    return release(
        runs, run, Path(to), imports=imports, accept_changed_imports=accept_changed_imports, audit=audit
    )


def predict(
    model: str | Path,
    data: str | Path,
    *,
    ids: str | None = None,
    like: str | None = None,
    imports: Sequence[str] = (),
    accept_changed_imports: bool = False,
) -> Predictions:
    """Predicts the rows of a file with a released model, and measures it if the file has labels.

    Args:
      model: a folder that `release` wrote.
      data: a file like the training data, or a .toml file that says how it is read.
      ids, like: see `predictions`.
      imports, accept_changed_imports: see `open_release`.

    Raises: InvalidInput: if the folder holds no model, or the file does not suit it.
    """
    opened = open_release(Path(model), imports=imports, accept_changed_imports=accept_changed_imports)
    return predictions(opened, str(data), ids=ids, like=like)
