"""The ledger of bytes by client and stage adds up, and agrees with the encoded messages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hanse
from hanse.algorithms import fed_avg, fed_buff
from hanse.core.exchange import Flow, Message, pack, unpack
from hanse.core.values import brief
from hanse.runs.ledger import as_json, describe_traffic, flows_of, ledger_table, traffic
from hanse.runs.session import perform
from hanse.simulation import InProcess, heavy_tailed, unstable
from hanse.simulation.blocks import Folding
from hanse.store import Runs
from hanse.transforms import deflate, low_rank, per_block, quantize, rotate

UPLINK = (rotate(), quantize(2, per_block(64)), deflate())


@pytest.mark.parametrize(
    "algorithm",
    [
        fed_avg(lr=0.5, uplink=UPLINK),
        fed_avg(lr=0.5, uplink=(low_rank(1), quantize(4))),
        fed_buff(lr=0.5, concurrency=6, buffer_size=3, uplink=(quantize(4),)),
    ],
)
def test_stages_and_clients_add_up_to_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: Any
) -> None:
    sent: list[bytes] = []

    def listen(backend: InProcess, jobs: Any, memory_at: Any) -> Any:
        for answer in compute(backend, jobs, memory_at):
            if not answer.job.folded and isinstance(answer.job.places[0][1].party, int):
                sent.append(answer.result)
            yield answer

    def listen_in_blocks(folding: Folding, position: int, task: Any, message: Message) -> None:
        if isinstance(task.party, int):
            sent.append(pack(message))
        add(folding, position, task, message)

    compute, add = InProcess.compute, Folding.add
    monkeypatch.setattr(InProcess, "compute", listen)
    monkeypatch.setattr(Folding, "add", listen_in_blocks)
    devices = unstable(0.2, heavy_tailed())
    experiment = hanse.Experiment(algorithm=algorithm, rounds=4, devices=devices)
    result = perform(experiment, store=tmp_path / "store.db")
    tensors = [unpack(data, Message).parts["update"].values.values() for data in sent]
    flows = {(flow.direction, flow.name): flow for flow in result.flows}
    up, down = flows["up", "update"], flows["down", "params"]
    assert up.stages == tuple(map(brief, algorithm.uplink))
    assert up.messages == len(sent)
    assert up.num_bytes[0] == 4 * 650 * len(sent)
    assert up.num_bytes[-1] == sum(array.nbytes for arrays in tensors for array in arrays)
    assert result.bytes_up == sum(map(len, sent))
    assert down.num_bytes == (4 * 650 * down.messages,)
    rows = Runs(tmp_path / "store.db").traffic(result.run or "")
    assert sum(row[1] for row in rows) == result.bytes_up
    assert sum(row[2] for row in rows) == result.bytes_down
    assert all(record.usage.clients == {} for record in result.records)


def test_flows_are_the_same_when_they_come_back(tmp_path: Path) -> None:
    result = hanse.run(algorithm=fed_avg(lr=0.5, uplink=UPLINK), rounds=3, store=tmp_path / "store.db")
    runs = Runs(tmp_path / "store.db")
    assert flows_of(record.usage for record in runs.records(result.run or "")) == result.flows
    assert runs.info(result.run or "").result["flows"] == as_json(result.flows)


def test_the_table_says_raw_each_stage_and_sent() -> None:
    flows = (
        Flow("up", "update", ("rotate()", "deflate()"), 4, (4000, None, 250)),
        Flow("down", "params", (), 4, (4000,)),
    )
    _, rows = ledger_table(flows, 400, 5000)
    assert rows == [
        ["up update", "4", "raw", "4 kB", ""],
        ["", "", "rotate()", "–", ""],
        ["", "", "deflate()", "250 B", "1/16"],
        ["up, all", "", "names, headers, tasks", "150 B", ""],
        ["up, all", "", "sent", "400 B", "1/10"],
        ["down params", "4", "raw", "4 kB", ""],
        ["down, all", "", "names, headers, tasks", "1 kB", ""],
        ["down, all", "", "sent", "5 kB", "125 %"],
    ]


def test_who_sent_most_is_said(tmp_path: Path) -> None:
    result = hanse.run(rounds=2, store=tmp_path / "store.db")
    runs = Runs(tmp_path / "store.db")
    found = traffic(runs, result.run or "")
    assert found is not None
    ups = [row["up"] for row in found["each"]]
    assert found["up"]["most"] == max(ups)
    assert found["up"]["mean"] == pytest.approx(np.mean(ups))
    assert describe_traffic(found).startswith(f"{len(ups)} took part; up ")
    assert traffic(runs, runs.begin({}, {})) is None
