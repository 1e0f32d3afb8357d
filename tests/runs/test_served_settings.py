"""Settings that a server would leave out are refused, with what to write instead."""

from pathlib import Path

import pytest

from hanse.core import InvalidInput
from hanse.runs import Parties

pytest.importorskip("fastapi")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "devices=hospital_wan",
            r"devices is hospital_wan.*: the clock of a simulation.*--set devices=ideal here",
        ),
        ("execution=sequential", r"execution is sequential: how a simulation.*--set execution=auto here"),
        ("execution.num_workers=2", r"execution is auto\(num_workers=2\)"),
    ],
)
def test_what_a_server_ignores_is_refused(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Parties().job(None, [setting])


def test_the_remedy_keeps_the_file(tmp_path: Path) -> None:
    file = tmp_path / "both.toml"
    file.write_text('rounds = 2\ndevices = "hospital_wan"\nexecution = "sequential"\n')
    job = Parties().job(file, ["devices=ideal", "execution=auto"])
    assert job.plan.settings == Parties().job(None, ["rounds=2"]).plan.settings


def test_baselines_are_not_forgotten_in_silence() -> None:
    said: list[str] = []
    Parties().job(None, ['baselines=["centralised"]'], warn=said.append)
    assert any("is not trained: " in line for line in said)
