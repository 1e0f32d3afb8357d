"""A virtual environment for each peer, since their requirements do not agree; made when first needed."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VENVS = HERE / ".venvs"

NUMPY, TORCH, JAX = "numpy==2.4.6", "torch==2.13.0", "jax==0.10.2"

REQUIREMENTS_OF_FLOWER = """
from importlib.metadata import requires
for line in requires("flwr"):
    if "extra ==" not in line and not line.startswith("certifi"):
        print(line)
"""


class NotInstalled(Exception):
    """An environment can't be made; the message says why."""


@dataclass(frozen=True)
class Environment:
    """Packages of one version, for one or several tools.

    Args:
      name: of its folder.
      packages: the arguments of pip.
      rest: further packages, known once `alone` is installed.
      alone: a package that comes without its requirements.
    """

    name: str
    packages: tuple[str, ...]
    alone: str | None = None
    rest: str | None = None

    @property
    def python(self) -> Path:
        return VENVS / self.name / "bin" / "python"

    @property
    def _made(self) -> Path:
        return VENVS / self.name / "made"

    def make(self, say: Callable[[str], None]) -> None:
        """Make it, unless it exists. Raises: NotInstalled: with the end of pip's output."""
        asked = "\n".join([*self.packages, self.alone or "", self.rest or ""])
        if self._made.exists() and self._made.read_text() == asked:
            return
        say(f"making the environment {self.name} in {VENVS}")
        shutil.rmtree(VENVS / self.name, ignore_errors=True)
        _done([sys.executable, "-m", "venv", str(VENVS / self.name)])
        more: list[str] = []
        if self.alone is not None and self.rest is not None:
            self._install("--no-deps", self.alone)
            more = _done([str(self.python), "-c", self.rest]).split("\n")
        self._install(*self.packages, *filter(None, more))
        self._made.write_text(asked)

    def _install(self, *what: str) -> None:
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _done([*pip, *what])


def _done(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise NotInstalled("\n".join((ended.stderr or ended.stdout).strip().splitlines()[-3:]))
    return ended.stdout


OURS = Environment("ours", ("-e", str(ROOT), NUMPY, TORCH, JAX, "jaxlib==0.10.2"))
FLOWER = Environment(
    "flower",
    ("ray==2.55.1", TORCH, NUMPY, "certifi"),
    alone="flwr==1.42.0",
    rest=REQUIREMENTS_OF_FLOWER,  # all but its pin of certifi, which may be newer than the available one
)
PFL = Environment("pfl", ("pfl==0.6.0", TORCH, NUMPY))
FEDJAX = Environment("fedjax", ("fedjax==0.0.17", JAX, "jaxlib==0.10.2", NUMPY))
