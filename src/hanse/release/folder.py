"""The folder of a released model: the names of its files, and how they are written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput
from hanse.core.exchange import pack
from hanse.preprocessing import Encoder

__all__ = ["ABOUT", "CARD", "ENCODER", "MODEL", "write_release"]

MODEL, ENCODER, ABOUT, CARD = "model.safetensors", "encoder.safetensors", "model.json", "README.md"


def write_release(
    folder: Path, tensors: bytes, encoder: Encoder | None, about: Mapping[str, Any], card: str
) -> None:
    """Writes the files of a release, in place of those of an earlier one."""
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(tensors)
    if encoder is not None:
        (folder / ENCODER).write_bytes(pack(encoder))
    else:
        (folder / ENCODER).unlink(missing_ok=True)  # that of an earlier release
    (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")


def _check_folder(folder: Path) -> None:
    """Checks that no file of somebody else would be replaced. Raises: InvalidInput."""
    about = folder / ABOUT
    is_ours = about.exists() and '"params_sha256"' in about.read_text(encoding="utf-8", errors="replace")
    taken = [name for name in (MODEL, ENCODER, ABOUT, CARD) if (folder / name).exists()]
    if taken and not is_ours:
        raise InvalidInput(
            f"{folder} holds {', '.join(taken)}, which hanse release did not write; name another folder"
        )
