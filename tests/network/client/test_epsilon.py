"""A client counts what its own messages reveal, in all runs, and stops at its max_epsilon."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import NUM_CLIENTS, Federation, federation, job

from hanse.algorithms import fed_avg, uniform
from hanse.core import Close, InvalidInput, PartSpec, Release, Spec, TensorSpec, fixed_mean
from hanse.core import sum as sum_
from hanse.network.client.allowed_plan import allow_plan
from hanse.network.client.audit import AuditLog
from hanse.network.client.home import ClientHome
from hanse.network.client.limits import (
    PRIVACY,
    UNNOISED,
    Spent,
    find_epsilon,
    measure_release,
)
from hanse.network.client.policy import Policy
from hanse.network.protocol.errors import Forbidden
from hanse.network.protocol.sealed_plan import SealedPlan, seal_plan
from hanse.network.server.rehearsal import foresee
from hanse.privacy import compute_epsilon as compute_by_accountant
from hanse.privacy import gaussian, local_gaussian
from hanse.transforms import clip, quantize

ANY = Close(minimum_fraction=0.0)
LOCAL = fed_avg(
    0.5, 1.0, weighting=uniform(), uplink=(clip(1.0), local_gaussian(2.0), quantize(8)), close=ANY
)
CENTRAL = fed_avg(
    0.5,
    sampling_rate=1.0,
    weighting=uniform(),
    uplink=(clip(1.0), gaussian(2.0)),
    into=fixed_mean(5.0),
    close=ANY,
)
OPEN = fed_avg(0.5, 1.0)
EACH = measure_release([Release("local_gaussian", 2.0)])
DELTA = 1e-5


# -- the arithmetic ------------------------------------------------------------------------------


@pytest.mark.parametrize(("z", "epsilon"), [(1.0, 4.3772), (2.0, 1.9931), (5.0, 0.7255)])
def test_one_gaussian_is_that_of_the_literature(z: float, epsilon: float) -> None:
    units = measure_release([Release("local_gaussian", z)])
    assert units is not None
    assert round(find_epsilon(units, DELTA), 4) == epsilon


def test_messages_compose_as_the_accountant_says_and_not_by_addition() -> None:
    assert EACH is not None
    ten = find_epsilon(10 * EACH, DELTA)
    assert ten == pytest.approx(compute_by_accountant({(1.0, 2.0): 10}, DELTA, "pld"), abs=2e-3)
    assert ten < 0.5 * 10 * find_epsilon(EACH, DELTA)


def test_extremes_stay_finite_and_grow() -> None:
    found = [find_epsilon(10**power, DELTA) for power in range(2, 14)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(5000 + 100 * 4.26, rel=1e-2), "mu²/2 + mu times the quantile of delta"
    assert find_epsilon(0, DELTA) == find_epsilon(1, 0.5) == 0.0


def test_noise_of_an_unknown_kind_is_not_counted_as_none() -> None:
    assert measure_release([Release("skellam", 2.0)]) is None
    assert measure_release([Release("gaussian", 0.0)]) is None
    assert measure_release([Release("gaussian", 1e6)]) == 1, "rounded up"


# -- plans ---------------------------------------------------------------------------------------


def plan_for(algorithm: Any) -> SealedPlan:
    given = job(algorithm, 3)
    return seal_plan(replace(given.plan, run="r", envelopes=foresee(given)[0].write()))


def home_with(folder: Path, *lines: str) -> ClientHome:
    home = ClientHome(folder)
    (folder / "policy.toml").write_text("\n".join(lines))
    return home


def test_a_plan_whose_messages_leave_without_noise_is_refused_when_joining(tmp_path: Path) -> None:
    home = home_with(tmp_path, "max_epsilon = 8.0")
    with pytest.raises(
        Forbidden, match=r"local_sgd sends part 'update' without noise;.*unnoised = \[\"update\"\]"
    ):
        allow_plan(home, plan_for(OPEN))
    allow_plan(home, plan_for(LOCAL))
    allow_plan(home_with(tmp_path, "max_epsilon = 8.0", 'unnoised = ["update"]'), plan_for(OPEN))


def test_a_plan_whose_first_message_would_pass_the_budget_is_refused_when_joining(tmp_path: Path) -> None:
    assert EACH is not None
    home = home_with(tmp_path, "max_epsilon = 1.99")
    with pytest.raises(
        Forbidden,
        match=r"allows max_epsilon = 1\.99 for delta = 1e-05.* one more message would make it 1\.993",
    ) as refused:
        allow_plan(home, plan_for(LOCAL))
    assert refused.value.code == "budget"
    allow_plan(home_with(tmp_path, "max_epsilon = 2.0"), plan_for(LOCAL))
    home.spent.add("another-run/ticket", **{PRIVACY: EACH})
    with pytest.raises(Forbidden, match=r"1\.993 is spent, and one more message would make it 2\.9"):
        allow_plan(home, plan_for(LOCAL))


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        (LOCAL, "each 'update' of local_sgd: 1.99 if alone; this client adds the noise"),
        (CENTRAL, "each 'update' of local_sgd: 1.99 if alone; you trust the server to add the noise"),
        (OPEN, "each 'update' of local_sgd: without noise that can be counted here"),
    ],
)
def test_the_owner_sees_whose_noise_it_is_and_what_is_spent(
    tmp_path: Path, algorithm: Any, words: str
) -> None:
    assert EACH is not None
    home = home_with(tmp_path, "max_epsilon = 8")
    home.spent.add("one", **{PRIVACY: EACH, UNNOISED: 1})
    lines = home.describe_plan(plan_for(algorithm))
    at = lines.index("max_epsilon: 1.99 of 8 is spent (delta 1e-05, in all runs together)")
    assert lines[at + 1] == "  not counted: 1 messages with parts without noise"
    assert f"  {words}" in lines[at:]
    (tmp_path / "policy.toml").write_text("")
    assert not any("max_epsilon" in line for line in home.describe_plan(plan_for(algorithm)))


def test_a_message_is_measured_by_its_own_chains() -> None:
    spec = Spec({"w": TensorSpec((3,), "float32")})
    noised = PartSpec(spec, (clip(1.0), local_gaussian(2.0)), sum_())
    policy = Policy(max_epsilon=3.0)
    assert policy.measure_message("work", {"a": noised, "b": noised}) == (2 * EACH, False)
    with pytest.raises(Forbidden, match="work sends part 'metrics' without noise"):
        policy.measure_message("work", {"a": noised, "metrics": PartSpec(spec)})
    named = Policy(max_epsilon=3.0, unnoised=("metrics",))
    assert named.measure_message("work", {"a": noised, "metrics": PartSpec(spec)}) == (EACH, True)
    assert Policy().measure_message("work", {"a": noised, "metrics": PartSpec(spec)}) == (EACH, True)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("max_epsilon = 0", "write a number above 0, such as 8.0"),
        ('max_epsilon = "8"', "write a number above 0, such as 8.0"),
        ("delta = 1", "write a number above 0 and below 1"),
        ('unnoised = "metrics"', "write a list of names"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, line: str, remedy: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(line)
    with pytest.raises(InvalidInput, match=remedy):
        Policy.read(path)


# -- runs ----------------------------------------------------------------------------------------


def sent(home: ClientHome) -> int:
    return sum(line["what"] == "sent" for line in AuditLog(home.folder / "audit.jsonl").lines())


def restart(here: Federation) -> None:
    for client in here.clients:
        client.stop()
    for thread in here.threads:
        thread.join(60.0)
        assert not thread.is_alive()
    here.enter()


def test_a_client_stops_at_its_budget_over_runs_and_restarts(tmp_path: Path) -> None:
    """Two messages fit, in two runs of other names, with a restart between them; others have no budget."""
    assert EACH is not None
    fits = (find_epsilon(2 * EACH, DELTA) + find_epsilon(3 * EACH, DELTA)) / 2
    with federation(tmp_path, stay=True) as here:
        here.server.presence.hold_s = 0.1
        homes = [here.client_home(number) for number in range(NUM_CLIENTS)]
        (homes[0].folder / "policy.toml").write_text(f"max_epsilon = {fits}")
        here.enter()
        here.end(here.lead(job(LOCAL, 1)))
        restart(here)
        here.end(here.lead(job(LOCAL, 2)))
        assert [sent(home) for home in homes[:2]] == [2, 3]
        for home, messages in zip(homes[:2], (2, 3), strict=True):
            total = json.loads((home.folder / "spent.json").read_text())["total"]
            assert total[PRIVACY] == messages * EACH, "also where the policy does not ask for it yet"
        again = Spent(homes[0].folder / "spent.json")
        with pytest.raises(Forbidden, match="one more message would make it"):
            homes[0].policy.check_epsilon(again, EACH)
    assert any("max_epsilon" in line for line in here.said)
