"""Rules against liars in a served federation: the bits of the simulation, and a liar who gets nowhere."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import FED_AVG, KEYS, NUM_CLIENTS, begin, federation, job, simulated
from test_hostile import LIAR, Liar, LyingBackend, changed

from hanse.algorithms import fl_trust, fools_gold, zeno
from hanse.core import mean
from hanse.network.server.rehearsal import foresee
from hanse.network.server.rehearsal.dry_runtime import DryRuntime, fill_calmly
from hanse.robust import centred_clipping, krum, multi_krum, recentre, trimmed_mean, worker_momentum

TRIMMED = replace(FED_AVG, into=trimmed_mean(1))
CASES: dict[str, Any] = {
    "trimmed_mean": TRIMMED,
    "history": replace(FED_AVG, into=centred_clipping(1.0, 2), uplink=(worker_momentum(0.5), recentre())),
    "fl_trust": fl_trust(lr=0.5, fraction=1.0, batch_size=50, trusted="server"),
    "zeno": zeno(lr=0.5, fraction=1.0, batch_size=50, num_byzantine=1, trusted="server"),
    "fools_gold": fools_gold(lr=0.5, fraction=1.0, batch_size=50),
}


@pytest.mark.parametrize("algorithm", CASES.values(), ids=CASES.keys())
def test_a_rule_ends_in_the_bits_of_the_simulation(algorithm: Any, tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(algorithm, 2))
        here.enter()
        assert here.end(run)["params_sha256"] == simulated(algorithm, 2)


def serve_with_liar(folder: Path, algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serves two rounds in which one client sends six times the opposite."""
    opposite: Callable[[bytes], bytes] = changed(
        lambda values, part: replace(part, values={n: np.float32(-6) * v for n, v in values.items()})
    )
    monkeypatch.setattr(LyingBackend, "lies", repeat(opposite))
    with federation(folder) as here:
        run = here.lead(job(algorithm, 2))
        here.enter([n for n in range(NUM_CLIENTS) if n != LIAR])
        here.enter([LIAR], kind=Liar)
        here.end(run)
        return here.records


def test_a_liar_gets_nowhere_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy = {}
    for name, into in {"mean": mean(), "trimmed": trimmed_mean(1), "multi_krum": multi_krum(1, 3)}.items():
        records = serve_with_liar(tmp_path / name, replace(FED_AVG, into=into), monkeypatch)
        accuracy[name] = records[-1].metrics["accuracy"]
        left_out = [record.usage.left_out for record in records[1:]]
        if name == "multi_krum":
            assert [len(names) for names in left_out] == [2, 2]
            assert all(LIAR in names for names in left_out)
        else:
            assert left_out == [(), ()]
    assert accuracy["mean"] < 0.3
    assert min(accuracy["trimmed"], accuracy["multi_krum"]) > 0.8


def test_a_rule_that_needs_more_clients_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    with federation(tmp_path) as here:
        run = here.lead(job(replace(FED_AVG, into=krum(2)), 1))
        here.enter()
        here.end(run, status="failed")
        assert "krum(num_byzantine=2) needs at least 7 contributions, and there are 5" in here.events()


def test_a_rehearsal_lets_as_many_answer_as_a_rule_needs() -> None:
    for into, counted in {krum(1): 5, trimmed_mean(1): 4, mean(): 4}.items():
        dry = DryRuntime(8, lambda party: True, fill_calmly, missing=8)
        program = replace(FED_AVG, into=into).round(begin(FED_AVG).state, KEYS.public)
        event, events = None, []
        with suppress(StopIteration):
            while True:
                event = dry.perform(program.send(event))  # type: ignore[arg-type]
                events.append(event)
        assert len(events[-1].counted) == counted  # type: ignore[attr-defined]
    envelopes, why = foresee(job(replace(FED_AVG, into=krum(1)), 2))
    assert why == ""
    assert envelopes.all
