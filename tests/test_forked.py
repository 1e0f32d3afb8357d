"""A forked process is one of its own, like one in which the interpreter starts."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forked import DEVNULL, PIPE, STDOUT, Forked, python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks only on Linux")

SHOWS = """
import os, random, sys, warnings
print(os.getcwd(), os.environ["HERE"], "THERE" in os.environ, sys.argv[1:])
print(sys.path[0], "BESIDE" in sys.path[1])
print(oct(os.umask(0)), sys.stdin.read(), os.isatty(0), len(os.listdir("/proc/self/fd")), sys.stdout.encoding)
print(__name__, vars(sys.modules["__main__"]) is globals(), sys.flags.dev_mode)
warnings.warn("heard")
"""


def started(*program: str, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *program], text=True, **options)


@pytest.mark.parametrize("warn", [{}, {"PYTHONWARNINGS": "error"}])
def test_it_finds_what_a_new_interpreter_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warn: dict[str, str]
) -> None:
    monkeypatch.setenv("THERE", "not passed on")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    env = {**os.environ, "HERE": "here", "PYTHONPATH": str(tmp_path / "BESIDE"), **warn}
    del env["THERE"]
    (tmp_path / "shows.py").write_text(SHOWS)
    said = []
    for start in (python, started):
        for program in (("-m", "shows", "a", "-u"), ("-u", str(tmp_path / "shows.py")), ("-c", SHOWS)):
            with (tmp_path / "shows.py").open() as text:
                options = {"stdin": text, "stdout": PIPE, "stderr": PIPE, "umask": 0o27}
                process = start(*program, cwd=tmp_path, env=env, **options)
            shown, error = process.communicate(timeout=60)
            error = re.sub(r'  File ".*(runpy|forge).*\n(    .*\n)*', "", error)
            said.append((process.returncode, shown, error))
    assert said[:3] == said[3:]
    assert said[0][0] == len(warn)


def test_both_streams_in_one_pipe() -> None:
    code = "import sys; print('a', flush=True); print('b', file=sys.stderr)"
    assert python("-c", code, stdout=PIPE, stderr=STDOUT).communicate(60) == ("a\nb\n", None)


def test_each_stream_is_of_its_own() -> None:
    code = "import sys; sys.stdout.write(input()); sys.stdout.flush(); sys.stderr.write('b'); sys.exit(7)"
    with python("-c", code, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        process.stdin.write("a\n")
        process.stdin.close()
        assert (process.stdout.read(), process.stderr.read()) == ("a", "b")
        assert process.wait(60) == process.poll() == 7


def test_unbuffered_and_buffered_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    code = "import os; print('first'); os.write(1, b'second\\n')"
    said = [python(*flags, "-c", code, stdout=PIPE).communicate(60)[0] for flags in (["-u"], [])]
    assert said == ["first\nsecond\n", "second\nfirst\n"]


def test_a_signal_reaches_it_and_no_other() -> None:
    code = "import os, sys, time\nprint(os.getpid(), flush=True)\ntime.sleep(200)"
    processes: Any = [python("-c", code, stdout=PIPE, stderr=DEVNULL) for _ in range(2)]
    assert [int(process.stdout.readline()) for process in processes] == [each.pid for each in processes]
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(0.01)
    assert processes[0].poll() is None
    for process, number in zip(processes, (signal.SIGINT, signal.SIGKILL), strict=True):
        process.send_signal(number)
        process.communicate(60)
    assert [process.returncode for process in processes] == [-signal.SIGINT, -signal.SIGKILL]
    with pytest.raises(ProcessLookupError):
        os.kill(processes[1].pid, 0)


def test_a_session_of_its_own() -> None:
    code = "import os; print(os.getsid(0) == os.getpid())"
    for own in (False, True):
        process = python("-c", code, stdout=PIPE, start_new_session=own)
        assert process.communicate(60)[0] == f"{own}\n"


def test_nothing_is_left_to_the_next_one() -> None:
    ends = "import os, random, hanse; os.environ['LEFT'] = '1'; hanse.left = 1; os.chdir('/'); os.umask(0)"
    finds = "import os, hanse; print('LEFT' in os.environ, hasattr(hanse, 'left'), os.getcwd())"
    assert python("-c", ends).wait(60) == 0
    assert python("-c", finds, stdout=PIPE).communicate(60)[0] == f"False False {os.getcwd()}\n"
    draws = [python("-c", "import random; print(random.random())", stdout=PIPE) for _ in range(2)]
    first, second = (process.communicate(60)[0] for process in draws)
    assert first != second


def test_it_has_one_thread_and_has_imported_the_commands() -> None:
    code = "import os, sys; print(len(os.listdir('/proc/self/task')), 'hanse.cli.commands' in sys.modules)"
    process = python("-c", code, stdout=PIPE)
    assert isinstance(process, Forked)
    assert process.communicate(60)[0] == "1 True\n"
