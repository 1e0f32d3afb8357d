"""Liars in whole runs: what they change, and that nothing else changes."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from secure import fixed_point, shared_sum
from typer.testing import CliRunner

import hanse
from hanse.algorithms import fed_avg, fl_trust, scaffold, sgd, uniform, zeno
from hanse.attacks import (
    Adversary,
    Attack,
    Collusion,
    alie,
    intermittent,
    label_flip,
    mimic,
    min_max,
    scaled_mean,
    semantic_backdoor,
    sign_flip,
    zero_update,
)
from hanse.cli import app
from hanse.core import Examples, InvalidInput, Key, Part, value
from hanse.core.exchange import InMemory, digest, drive
from hanse.data import digits, iid
from hanse.robust import krum, multi_krum, recentre, trimmed_mean, worker_momentum
from hanse.runs import Result, describe_liars, prepare_run
from hanse.simulation import batched, sequential
from hanse.store import Runs
from hanse.transforms import clip, quantize, random_mask, top_k


@value
class truth(Attack):
    """Does all that a liar does, and changes nothing."""

    def poison(self, data: Examples, num_classes: int | None, key: Key) -> Examples:
        return data

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        return seen.own


def train(algorithm: Any = None, attack: Any = None, *, execution: Any = None, **more: Any) -> Result:
    knows, fraction = more.pop("knows", "colluders"), more.pop("fraction", 0.3)
    return hanse.run(
        data=digits(),
        partition=iid(10),
        algorithm=algorithm or fed_avg(0.5, 1.0, epochs=1, batch_size=None, weighting=uniform()),
        adversary=None if attack is None else Adversary(attack, fraction, knows=knows),
        execution=execution or sequential(),
        **{"rounds": 3, "evaluate_every": 3, **more},
    )


SEEN: list[Collusion] = []


@value
class listen_in(Attack):
    """Tells the truth, and keeps what it knew."""

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        SEEN.append(seen)
        return seen.own


def test_liars_take_the_mean_of_honest_messages_for_what_the_server_trusts() -> None:
    SEEN.clear()
    train(fl_trust(lr=0.5, fraction=1.0, epochs=1, trusted="server"), listen_in(), knows="all", rounds=1)
    (seen,) = SEEN
    mean = seen.rows.mean(axis=0)
    backwards, tilted = (Part(seen.restore(row)) for row in (-mean, mean + np.roll(mean, 1)))
    assert seen.aggregate([]) is None
    total = seen.aggregate([backwards, tilted])
    assert total is not None
    scaled = (mean + np.roll(mean, 1)) * np.linalg.norm(mean) / np.linalg.norm(mean + np.roll(mean, 1))
    np.testing.assert_allclose(seen.flatten(total), scaled, atol=1e-5)


CHAINS = {
    "plain": fed_avg(0.5, 0.7, epochs=1),
    "memory": fed_avg(0.5, 1.0, epochs=1, uplink=(worker_momentum(0.9), recentre()), into=trimmed_mean(3)),
    "wire": fed_avg(0.5, 1.0, epochs=1, uplink=(clip(0.1), quantize(4))),
    "sparse": fed_avg(0.5, 1.0, epochs=1, uplink=(top_k(0.1),)),
    "inside": fed_avg(0.5, 1.0, epochs=1, uplink=(random_mask(0.3),)),
    "two parts": scaffold(0.5, 1.0, epochs=1),
}


@pytest.mark.parametrize("knows", ["colluders", "all"])
@pytest.mark.parametrize("name", CHAINS)
def test_liars_that_tell_the_truth_change_no_bit(name: str, knows: Any) -> None:
    if name in ("wire", "two parts") and knows == "all":
        return  # one more of each path is enough
    honest = train(CHAINS[name])
    lying = train(CHAINS[name], truth(), knows=knows)
    assert digest(dict(honest.params)) == digest(dict(lying.params))


@pytest.mark.parametrize("knows", ["colluders", "all"])
def test_the_bits_depend_neither_on_processes_nor_on_batches(knows: Any) -> None:
    attack = (label_flip(), alie("optimised"))
    algorithm = fed_avg(0.5, 1.0, epochs=1, into=trimmed_mean(3), uplink=(worker_momentum(0.9),))
    found = {
        digest(dict(train(algorithm, attack, knows=knows, execution=execution).params))
        for execution in (sequential(), batched(), sequential(2))
    }
    assert len(found) == 1


def test_scaled_means_slow_a_mean_down_exactly() -> None:
    """With all clients, one full step and -3 mu of 3 in 10 liars, the mean makes (7 - 9)/10 of a step."""
    honest = train(rounds=1, evaluate_every=0, attack=zero_update(), knows="all")
    lying = train(rounds=1, evaluate_every=0, attack=scaled_mean(-3.0), knows="all")
    start = train(rounds=1, evaluate_every=0, algorithm=fed_avg(1e-30, 1.0, epochs=1)).params
    for name, begin in start.items():
        np.testing.assert_allclose(
            lying.params[name] - begin, (honest.params[name] - begin) * -2 / 7, atol=1e-6
        )


def test_attacks_harm_a_mean_and_rules_hold() -> None:
    def reach(attack: Any, into: Any = None) -> float:
        algorithm = fed_avg(
            1.0, 1.0, epochs=1, batch_size=None, weighting=uniform(), **({"into": into} if into else {})
        )
        return train(algorithm, attack, rounds=10, evaluate_every=10, knows="all").final.metrics["accuracy"]  # type: ignore[union-attr]

    assert reach(None) > 0.85
    assert reach(scaled_mean(-3.0)) < 0.3
    assert reach(scaled_mean(-3.0), krum(3)) > 0.7
    assert reach(mimic(), trimmed_mean(3)) > 0.8


def test_only_active_rounds_differ() -> None:
    never = train(None, intermittent(sign_flip(), first=9))
    late = train(None, intermittent(sign_flip(), first=3))
    honest = train()
    assert [found.code for found in never.findings] == ["attack_without_effect"]
    assert not late.findings
    assert digest(dict(never.params)) == digest(dict(honest.params)) != digest(dict(late.params))
    poisoned = train(None, intermittent(label_flip(), first=3))
    assert digest(dict(poisoned.params)) != digest(dict(honest.params))
    assert not poisoned.findings
    short, short_honest = train(None, intermittent(label_flip(), first=3), rounds=2), train(rounds=2)
    assert digest(dict(short.params)) == digest(dict(short_honest.params))


def test_liars_lie_on_when_a_chain_changes_the_type_of_the_model() -> None:
    """Sums of whole numbers decode to float64, so that the second round's messages have another type."""
    algorithm = fed_avg(
        0.5, 1.0, 0.1, epochs=1, weighting=uniform(), uplink=(fixed_point(),), into=shared_sum()
    )
    honest, lying = (
        train(algorithm, attack, rounds=2) for attack in (None, intermittent(sign_flip(), first=2))
    )
    assert {str(values.dtype) for values in honest.params.values()} == {"float64"}
    assert digest(dict(lying.params)) != digest(dict(honest.params))


def test_a_lie_over_the_bound_is_refused_and_the_round_goes_on() -> None:
    result = train(fed_avg(0.5, 1.0, epochs=1, uplink=(clip(0.1),)), scaled_mean(-300.0))
    assert [record.usage.dropped for record in result.records[1:]] == [3, 3, 3]
    assert result.final is not None
    assert result.final.metrics["accuracy"] > 0.3
    assert result.adversary is not None
    assert result.adversary["refused"] == {str(liar): 3 for liar in result.adversary["liars"]}
    said = dict(describe_liars(result.records, result.adversary))["refused"]
    assert f"client {result.adversary['liars'][0]} in 3" in said


def test_a_resumed_run_goes_on_in_the_same_round(tmp_path: Path) -> None:
    attack = intermittent(scaled_mean(-2.0), every=2)
    whole = train(None, attack, rounds=4)
    store = tmp_path / "store.db"

    def stop(record: Any) -> None:
        if record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(hanse.Interrupted) as cut:
        train(None, attack, rounds=4, store=store, watch=stop)
    resumed = hanse.resume(str(cut.value.result.run), store=store)
    assert digest(dict(resumed.params)) == digest(dict(whole.params))


KILLED = """
import os, signal
from pathlib import Path
import hanse
from hanse.store import Runs

def kill(record):
    if record.round == 4:
        os.kill(os.getpid(), signal.SIGKILL)

hanse.perform(hanse.read("liars.toml"), store="store.db", watch=kill)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that kills at once")
def test_a_killed_run_remembers_who_lied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the clients are asked, liars lie in every second round, and the server refuses some lies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(hanse.__file__).parents[1]))
    Path("liars.toml").write_text(
        """
        rounds = 6
        evaluate_every = 3
        partition = {name = "iid", num_clients = 10}
        [algorithm]
        name = "fed_avg"
        fraction = 0.5
        into = {name = "multi_krum", num_byzantine = 1, num_selected = 3}
        [adversary]
        fraction = 0.3
        attack = {name = "intermittent", every = 2, attack = {name = "scaled_mean", factor = -2}}
        """
    )
    whole = hanse.perform(hanse.read("liars.toml"))
    killed = subprocess.run([sys.executable, "-c", KILLED], env=os.environ, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    (info,) = Runs("store.db").infos()
    resumed = hanse.resume(info.run, store="store.db")
    assert len(resumed.records) == len(whole.records)
    assert resumed.adversary == whole.adversary
    assert whole.adversary is not None
    assert 0 < whole.adversary["recall"] <= 1
    assert 0 < whole.adversary["precision"] < 1
    assert resumed.findings == whole.findings == ()


class _Cut(InMemory):
    """A store of a process that ends after some writes."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0

    def append(self, entry: Any) -> None:
        super().append(entry)
        self._count()

    def save(self, *given: Any) -> None:
        super().save(*given)
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_wherever_a_run_is_cut_it_knows_the_lies_before() -> None:
    """One of two liars is over the bound of the server, and sometimes a liar is alone."""
    experiment = hanse.Experiment(
        data=digits(),
        partition=iid(10),
        algorithm=fed_avg(0.5, 0.5, epochs=1, uplink=(clip(1.0),), into=multi_krum(1, 3)),
        adversary=Adversary(_some_too_long(), 0.3),
        rounds=4,
        evaluate_every=2,
    )

    def lead(store: InMemory) -> Any:
        ready = prepare_run(experiment)
        saved = store.checkpoint()
        progress = ready.begin() if saved is None else saved.state
        with closing(ready.backend(4)) as backend:
            drive(ready.program(progress), ready.watch_lies(ready.runtime(backend, store)), store)
        assert ready.tally is not None
        return ready.tally.lies

    whole = lead(_Cut())
    assert whole.num_lies > 0
    assert whole.refusals
    assert 0 < whole.num_alone < 4
    for cut in range(1, 30):
        store = _Cut()
        store.left = cut
        try:
            lead(store)
        except KeyboardInterrupt:
            assert lead(store) == whole, cut
        else:
            break
    assert 12 < cut < 29


@value
class _some_too_long(Attack):
    """Sends a lie that is too long for the server in the second round, and a shorter one in others."""

    @property
    def needs_company(self) -> bool:
        return True

    def falsify(self, seen: Collusion) -> tuple[Part, ...]:
        return seen.send(seen.rows.mean(axis=0) * (-1e6 if seen.round == 2 else -0.5))


def test_the_end_of_a_run_says_who_lied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--set", "rounds=1", "--set", "evaluate_every=1"]
    lying = ["--set", 'adversary={attack="sign_flip", clients=[3, 10]}']
    assert "clients 3, 10" in CliRunner().invoke(app, [*words, *lying]).output
    assert "liars" not in CliRunner().invoke(app, words).output
    assert "some clients lie" in CliRunner().invoke(app, ["plan", *lying]).output
    assert "some clients lie" not in CliRunner().invoke(app, ["plan"]).output


def test_who_was_left_out_is_judged_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    store = tmp_path / "store.db"
    algorithm = fed_avg(0.5, 1.0, epochs=1, into=multi_krum(3, 7))
    result = train(algorithm, scaled_mean(-30.0), knows="all", store=store)
    found = result.adversary
    assert found is not None
    assert len(found["liars"]) == 3
    assert found["left_out"] == {str(liar): 3 for liar in found["liars"]}
    assert found["precision"] == found["recall"] == 1
    shown = CliRunner().invoke(app, ["show", str(result.run), "--store", str(store)]).output
    assert f"client {found['liars'][0]} (lies) in 3, " in shown
    assert "100% of those left out lie" in shown
    said = json.loads(CliRunner().invoke(app, ["ls", "--json", "--store", str(store)]).output)
    assert said["runs"]
    missed = train(fed_avg(0.5, 1.0, epochs=1, into=krum(3)), zero_update(), knows="all").adversary
    assert missed is not None
    assert missed["precision"] < 0.5
    assert train().adversary is None


def test_a_lone_liar_that_needs_others_is_refused_or_counted() -> None:
    with pytest.raises(InvalidInput, match=r'a lone liar that knows only its own .* write knows = "all"'):
        train(None, intermittent(min_max(), first=2), fraction=0.1)
    assert train(None, alie(5.0), fraction=0.1, knows="all").adversary["alone"] == 0  # type: ignore[index]
    two, few = Adversary(alie(5.0), clients=(0, 1)), fed_avg(0.5, 0.1, epochs=1)
    found = hanse.run(data=digits(), partition=iid(10), algorithm=few, adversary=two, rounds=8)
    assert found.adversary is not None
    assert 0 < found.adversary["alone"] < 8
    honest = hanse.run(data=digits(), partition=iid(10), algorithm=few, rounds=8)
    assert digest(dict(honest.params)) == digest(dict(found.params))
    said = dict(describe_liars(found.records, found.adversary))
    assert f"in {found.adversary['alone']} rounds" in said["honest"]


def test_only_lies_are_judged_that_the_server_took() -> None:
    """Honest rounds of liars and liars that were not asked tell nothing of a rule."""
    sometimes = intermittent(scaled_mean(-30.0), first=3)
    rule = fed_avg(0.5, 1.0, epochs=1, into=multi_krum(3, 7))
    found = train(rule, sometimes).adversary
    assert found is not None
    assert found["precision"] == found["recall"] == 1
    assert sum(found["left_out"].values()) == 9  # in three rounds
    part = fed_avg(0.5, 0.7, epochs=1, into=multi_krum(2, 4))
    result = train(part, scaled_mean(-30.0), fraction=0.2, rounds=4)
    assert result.adversary is not None
    assert result.adversary["recall"] == 1
    blind = train(zeno(lr=0.5, fraction=1.0, epochs=1, rho=0.0, trusted="server"), zero_update(), rounds=1)
    assert blind.adversary is not None
    assert (blind.adversary["recall"], blind.adversary["precision"]) == (0, None)
    assert "none of the lies" in dict(describe_liars(blind.records, blind.adversary))["caught"]
    deaf = train(fed_avg(0.5, 1.0, epochs=1, into=trimmed_mean(3)), zero_update(), rounds=1).adversary
    assert deaf is not None
    assert deaf["recall"] is None


def test_settings(tmp_path: Path) -> None:
    file = tmp_path / "liars.toml"
    file.write_text(
        'rounds = 2\npartition = {name = "iid", num_clients = 10}\n[adversary]\nfraction = 0.3\n'
        'attack = {name = "intermittent", every = 2, attack = {name = "alie", z = "optimised"}}\n'
    )
    experiment = hanse.read(file)
    assert experiment.adversary == Adversary(intermittent(alie("optimised"), every=2), 0.3)
    assert type(experiment).from_settings(experiment.settings()) == experiment
    several = hanse.read(file, sets=['adversary.attack=["label_flip", {name="scaled_mean", factor=-2}]'])
    assert several.adversary is not None
    assert several.adversary.attacks == (label_flip(), scaled_mean(-2.0))
    assert "adversary" not in hanse.Experiment().settings()
    served = CliRunner().invoke(app, ["serve", str(file), "--home", str(tmp_path)])
    assert served.exit_code != 0
    assert "a server can't make real ones do so" in " ".join(served.output.split())


@pytest.mark.parametrize(
    ("said", "adversary"),
    [
        ("from 0 to 9", Adversary(sign_flip(), clients=(10,))),
        ("these have no names; write numbers from 0 to 9", Adversary(sign_flip(), clients=("bob",))),
        ("changes no example of the 2 liars", Adversary(semantic_backdoor(1, 20, above=9e9), clients=(0, 1))),
        ("target is 10", Adversary(semantic_backdoor(10, 20, above=0.5), clients=(1,))),
        ("leave an honest one", Adversary(sign_flip(), clients=tuple(range(10)))),
    ],
)
def test_impossible_liars(said: str, adversary: Adversary) -> None:
    with pytest.raises(InvalidInput, match=said):
        hanse.run(data=digits(), partition=iid(10), adversary=adversary, rounds=1)


def test_sgd_of_own_steps_is_attacked_as_well() -> None:
    algorithm = fed_avg(fraction=1.0, client=sgd(0.5, batch_size=50, num_steps=1))
    assert digest(dict(train(algorithm, sign_flip()).params)) != digest(dict(train(algorithm).params))
