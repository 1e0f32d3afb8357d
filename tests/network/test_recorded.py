"""A real run over TLS with three clients is audited afterwards, from what its server has kept."""

from pathlib import Path

import numpy as np
import pytest
from federation import federation, job
from learning import learner

from hanse.algorithms import fed_sgd
from hanse.core import InvalidInput
from hanse.data import digits
from hanse.leakage import observe, read_recording, read_row
from hanse.transforms import quantize, rotate


def test_the_server_reads_single_rows_off_its_recording(tmp_path: Path) -> None:
    held, record = digits().load().train, tmp_path / "record"
    rows = [held.take(np.array([i])) for i in range(3)]
    with federation(tmp_path) as here:
        run = here.lead(
            job(
                fed_sgd(lr=0.5, fraction=1.0, uplink=(rotate(), quantize(8))), 2, num_clients=3, record=record
            )
        )
        for number, row in enumerate(rows):
            (here.client_home(number).folder / "policy.toml").write_text("min_examples = 1\n")
            here.enter_one(number, lambda plan, row=row: row, learner)
        here.end(run)
    answers = read_recording(record)
    assert sorted((a.round, a.task.party) for a in answers if "gradient" in a.payload.uplink) == [
        (round, party) for round in (1, 2) for party in (0, 1, 2)
    ]
    for answer in answers[:3]:
        sight = observe(answer)
        found = read_row(sight.parts["gradient"].values)
        assert np.abs(found - rows[answer.task.party].x[0]).max() < 0.02
        outside = observe(answer, "outsider")
        assert outside.parts == outside.shared == {}
        assert outside.num_bytes > 650
        assert not observe(answer, "fellow client").parts
    next(record.glob("*.answer")).write_bytes(b"damaged")
    with pytest.raises(InvalidInput, match="can't be read"):
        read_recording(record)
    assert oct(record.stat().st_mode)[-3:] == "700"


def test_a_folder_without_a_recording_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="serve with --record"):
        read_recording(tmp_path)
