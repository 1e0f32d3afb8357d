"""Isolation of the processes that compute tickets: no network, no keys, nothing to write, and limits."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from hanse.core import InvalidInput
from hanse.imports import Import
from hanse.network.client.home import CONTRACT

__all__ = ["Isolation", "describe_isolation", "find_isolation"]

SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix/store", "/gnu/store"),
    *(f"/etc/{name}" for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime")),
    *("/sys/devices/system", "/sys/bus/pci", "/sys/devices/virtual"),
)
"""The files of the operating system that libraries need."""

SCRIPT = Path(__file__).resolve().with_name("confine.py")

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
GPUS = ("/dev/nvidia*", "/dev/dri", "/dev/kfd")

VARIABLES = (
    *("PATH", "LANG", "LC_", "TZ", "LD_LIBRARY_PATH", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "VECLIB_"),
    *("XLA_", "JAX_", "TORCH_", "PYTORCH_", "CUDA_", "CUBLAS_", "NVIDIA_"),
)
"""The beginnings of the names of environment variables that an isolated process gets."""

SCRATCH_BYTES = 256 << 20
"""The size of the scratch folder, which is in memory and gone with the process."""

NUM_FILES, NUM_PROCESSES = 1024, 512
PROBE_S = 20.0


def _memory_bytes() -> int:
    """Returns three quarters of the memory of this machine, or of this group of processes if that is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        whole = min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return whole * 3 // 4


@dataclass(frozen=True)
class Isolation:
    """A way to isolate a process.

    Args:
      home: the client home, which is hidden.
      bwrap: the path of bubblewrap; empty: namespaces are made without it.
      memory_bytes: the address space that a process may use. Where there is a GPU, whose drivers reserve far
        more than they use, the limit holds for the memory that it may write to.
    """

    home: Path
    bwrap: str = ""
    memory_bytes: int = field(default_factory=_memory_bytes)

    @property
    def kind(self) -> str:
        """The name of this way, for people."""
        return "bubblewrap" if self.bwrap else "namespaces of the kernel"

    def wrap(self, command: Sequence[str], run: str = "", imports: Iterable[Import] = ()) -> list[str]:
        """Returns the command that runs another one in isolation.

        Args:
          run: the name of the run whose folder is shown, since payloads there are mapped; empty: none.
          imports: modules whose files are shown.
        """
        home = self.home.resolve()
        own = [Path(i.folder, Path(p).parts[0]).resolve() for i in imports if i.folder for p in i.files]
        kept = sorted({str(path) for path in own if path.is_relative_to(home)})  # copies in the home itself
        gpus = sorted(str(path) for one in GPUS for path in Path("/dev").glob(one.removeprefix("/dev/")))
        memory = {"DATA" if gpus else "AS": self.memory_bytes}
        spec = {
            "namespaces": not self.bwrap,
            "readable": (readable := _list_readable(own)),
            "masked": _list_data_files(home, readable),
            "hidden": [str(home)],
            "shown": [*([str(home / "runs" / run)] if run else []), *kept],
            "devices": [*DEVICES, *gpus],
            "scratch_bytes": SCRATCH_BYTES,
            "limits": {
                **memory,
                "NPROC": NUM_PROCESSES,
                "NOFILE": NUM_FILES,
                "FSIZE": SCRATCH_BYTES,
                "CORE": 0,
            },
        }
        inner = [sys.executable, "-I", "-S", str(SCRIPT), json.dumps(spec), *command]
        return inner if not self.bwrap else [*self._bubble(spec), *inner]

    def _bubble(self, spec: Mapping[str, object]) -> list[str]:
        """Returns the call of bubblewrap that shows the files of a spec."""

        def paths(name: str) -> list[str]:
            return [str(path) for path in spec[name]]  # type: ignore[attr-defined]

        words = [self.bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        words += ["--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"]
        words += [word for path in paths("readable") for word in ("--ro-bind-try", path, path)]
        hidden = [path for path in paths("hidden") if os.path.isdir(path)]
        words += [word for path in hidden for word in ("--tmpfs", path)]
        words += [word for path in paths("shown") for word in ("--ro-bind-try", path, path)]
        words += [word for path in paths("masked") for word in ("--ro-bind", "/dev/null", path)]
        gpus = [path for path in paths("devices") if path not in DEVICES]
        words += [word for path in gpus for word in ("--dev-bind-try", path, path)]
        words += [word for path in hidden for word in ("--remount-ro", path)]
        return [*words, "--remount-ro", "/", "--chdir", "/tmp", "--"]

    def environment(self) -> dict[str, str]:
        """Returns the variables that an isolated process gets: none that could hold a secret."""
        kept = {name: text for name, text in os.environ.items() if name.startswith(VARIABLES)}
        return {**kept, "HOME": "/tmp", "TMPDIR": "/tmp"}


PYTHON = ("bin", "lib", "lib64", "include", "share", "pyvenv.cfg")
"""The parts of a folder where Python or a virtual environment is installed. Other files may be beside."""


def _list_readable(own: Iterable[Path]) -> list[str]:
    """Lists what a process may read: the system, Python with its packages, and the owner's modules.

    Of other folders of `sys.path`, such as the current one, these are the modules that this process has
    imported: the learner's own, and no file beside them.

    Args:
      own: the files and folders of the owner's modules that a plan names.
    """
    python = [Path(prefix, name) for prefix in (sys.prefix, sys.base_prefix) for name in PYTHON]
    python += [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    python += [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]
    python += [Path(sys.executable)]
    found = [*map(Path, SYSTEM), *python, *(path.resolve() for path in python), SCRIPT]
    shown = {path for path in (*found, *_list_modules(), *own) if path.exists()}
    return sorted(str(path) for path in shown if shown.isdisjoint(path.parents))


def _list_modules() -> list[Path]:
    """Lists the files of imported modules, and the folders of packages, at the top of where they are."""
    found = set[Path]()
    for name, module in list(sys.modules.items()):
        above, _, _ = name.rpartition(".")
        file, package = _find_file(module), _find_file(sys.modules.get(above))
        if file is not None and name != "__main__" and package is None:
            found.add(file.parent if file.stem == "__init__" else file)
    return sorted(found)


def _find_file(module: object) -> Path | None:
    """Returns the file of a module; None: it has none, as one of the interpreter's own."""
    file = getattr(module, "__dict__", {}).get("__file__")
    return Path(file).resolve() if isinstance(file, str) else None


def _list_data_files(home: Path, readable: Iterable[str]) -> list[str]:
    """Lists the files of the owner's data contract that are among what may be read."""
    contract = home / CONTRACT
    if not contract.exists():
        return []
    try:
        said = tomllib.loads(contract.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{contract} is not TOML: {error}") from None
    data = said.get("data")
    named = [data.get("path") if isinstance(data, dict) else data, said.get("test")]
    files = [(home / path).resolve() for path in named if isinstance(path, str)]
    shown = [Path(path) for path in readable]
    files = [path for path in files if path.is_file() and not path.is_relative_to(home)]  # which is hidden
    return [str(path) for path in files if any(path.is_relative_to(one) for one in shown)]


def find_isolation(home: Path) -> Isolation:
    """Finds the best way to isolate that works on this machine.

    Raises: InvalidInput: if none works; the error says what is missing and how to install it.
    """
    why = list[str]()
    for isolation, reason in _try_all(home):
        if isolation is not None:
            return isolation
        why.append(reason)
    raise InvalidInput(
        f"tickets can't be isolated on this machine: {'; '.join(why)}. Install bubblewrap (apt install "
        "bubblewrap, or dnf install bubblewrap) and allow user namespaces (sysctl -w "
        "kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000, and on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0), or work without --isolate and isolate"
    )


def describe_isolation() -> str:
    """Describes in a few words how tickets can be isolated here."""
    try:
        return f"by {find_isolation(Path('/nonexistent')).kind} (hanse join --isolate)"
    except InvalidInput as error:
        return str(error)


def _try_all(home: Path) -> Iterable[tuple[Isolation | None, str]]:
    """Yields each way that works, or the reason why it does not."""
    if sys.platform != "linux":
        yield None, f"it needs Linux, and this is {sys.platform}"
        return
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        yield None, "bubblewrap (bwrap) is not installed"
    for way in ([Isolation(home, bwrap)] if bwrap else []) + [Isolation(home)]:
        reason = _try(way)
        yield (None, f"{way.kind}: {reason}") if reason else (way, "")


@lru_cache(maxsize=8)
def _try(way: Isolation) -> str:
    """Tries a way with a Python that does nothing, and returns why it fails; empty: it works."""
    command = way.wrap([sys.executable, "-I", "-S", "-c", ""])
    try:
        done = subprocess.run(command, env=way.environment(), capture_output=True, text=True, timeout=PROBE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"
