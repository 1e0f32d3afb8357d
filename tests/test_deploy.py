"""What deploy/ holds fits the commands of today: each command is parsed, each variable and path exists."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import hanse
from hanse.cli import app
from hanse.network.protocol.private_files import PASSPHRASE

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = ("hanse-server.service", "hanse-client.service")
HANSE = "/opt/hanse/bin/hanse"


def check(words: list[str]) -> dict[str, Any]:
    """Parses a command as the command line does, and returns its options."""
    return dict(find_command(words[0]).make_context(f"hanse {words[0]}", words[1:]).params)


def find_command(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    return group.commands[name]


def read_unit(name: str) -> dict[str, list[str]]:
    """Returns the settings of the section Service. A key may be repeated."""

    class Repeated(dict[str, Any]):
        def __setitem__(self, key: str, held: Any) -> None:
            super().__setitem__(key, [*self.get(key, []), *held] if isinstance(held, list) else held)

    parsed = configparser.RawConfigParser(dict_type=Repeated, strict=False)
    parsed.optionxform = str  # type: ignore[method-assign,assignment]
    parsed.read_string((DEPLOY / name).read_text(encoding="utf-8"))
    return {key: str(held).split("\n") for key, held in parsed["Service"].items()}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_a_command_of_today_in_its_own_folder(name: str) -> None:
    unit = read_unit(name)
    (line,) = unit["ExecStart"]
    first, *words = shlex.split(line.replace("%S", "/var/lib"))
    assert first == HANSE
    options = check(words)
    (folder,) = unit["StateDirectory"]
    assert options["home"] == Path("/var/lib") / folder  # the one place that it may write to
    credential = unit["LoadCredential"][0].partition(":")[0]
    passphrase = f"{PASSPHRASE}_FILE=%d/{credential}"
    log = next(option.envvar for option in find_command(words[0]).params if option.name == "log")
    assert unit["Environment"] == [passphrase, f"{log}=json"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_hardened(name: str) -> None:
    unit = read_unit(name)
    due = {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "UMask": "0077",
        "StateDirectoryMode": "0700",
        "Restart": "on-failure",
        "KillSignal": "SIGINT",
        "CapabilityBoundingSet": "",
    }
    assert {key: unit[key] for key in due} == {key: [held] for key, held in due.items()}
    assert int(unit["LimitNOFILE"][0]) >= 4096


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_a_unit(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / name).read_text(encoding="utf-8").replace(HANSE, sys.executable)
    (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [*UNITS, "compose.yaml"])
def test_the_commands_in_comments_can_be_typed(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8").replace("\\\n#", "")
    found = re.findall(r"^#.*?(?:bin/hanse|client-\d) (join .*)$", text, re.MULTILINE)
    assert len(found) == {"hanse-server.service": 0, "hanse-client.service": 1, "compose.yaml": 2}[name]
    for line in found:
        options = check(shlex.split(line))
        assert options["url"].startswith("https://")


def test_the_services_of_the_compose_file_run_commands_of_today() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    made = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert set(made["services"]) == {"server", "client-0", "client-1"}
    settings = hanse.read(DEPLOY / "app.toml")
    assert str(settings.partition) == "iid(num_clients=2)"
    for name, service in made["services"].items():
        options = check([str(word) for word in service["command"]])
        assert options["home"] == Path("home")
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        if name == "server":
            assert options["public"] == "server:8443"  # the name that the clients' comments use
            assert f"http://{options['metrics']}/readyz" in service["healthcheck"]["test"][-1]
        else:
            assert options["data"] == "share"
        for volume in service["volumes"]:
            place = volume.partition(":")[0]
            assert place in made["volumes"] or (DEPLOY / place).exists()
    recipe = DEPLOY.parent / made["x-hanse"]["build"]["dockerfile"]
    assert recipe == DEPLOY / "Containerfile"


def test_the_image_is_made_of_files_that_are_here(tmp_path: Path) -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert {"pyproject.toml", "src"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for needed in re.findall(r'"(README.md|LICENSE|NOTICE)"', pyproject):
        assert needed in copied
    assert re.search(r"^server = \[", pyproject, re.MULTILINE)
    assert re.search(r"^(USER hanse)$", text, re.MULTILINE)
    images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert images == ["python:3.12-slim"]


def test_the_image_can_be_built() -> None:
    tool = next((tool for tool in ("podman", "docker") if shutil.which(tool)), None)
    if tool is None or subprocess.run([tool, "info"], capture_output=True).returncode:
        pytest.skip("no podman, and no docker whose daemon runs, is here")
    command = [tool, "build", "-f", "deploy/Containerfile", "-t", "hanse-test", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_guide_names_all_files_and_repeats_none() -> None:
    guide = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    for path in DEPLOY.iterdir():
        assert f"deploy/{path.name}" in guide, path.name
    assert "ExecStart" not in guide
