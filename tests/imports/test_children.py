"""The modules that child processes find."""

import os
import subprocess
import sys
from pathlib import Path

from own_code import write

import hanse


def test_a_child_process_searches_the_current_folder_only_where_its_parent_does(tmp_path: Path) -> None:
    write(tmp_path, threadpoolctl="open('executed', 'w')", pickle="open('executed', 'w')")
    code = (
        "from hanse.processes import ChildProcess; child = ChildProcess('own_child'); "
        "print(child.receive_bytes().decode()); child.close()"
    )
    write(
        tmp_path / "lib",
        own_child="import sys, threadpoolctl\ndef serve(pipe):\n    "
        + ("pipe.send_bytes(str([sys.path[0], sys.path[-1]]).encode())\n    pipe.recv()\n"),
    )
    paths = os.pathsep.join([str(Path(hanse.__file__).parents[1]), str(tmp_path / "lib")])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stdout.replace(str(tmp_path / "lib"), "")
    assert not (tmp_path / "executed").exists()
