"""A client counts what its own messages reveal, in all runs, and stops at its max_epsilon."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import NUM_CLIENTS, Federation, federation, job

from hanse.algorithms import fed_avg, sgd, uniform
from hanse.core import Close, InvalidInput, PartSpec, Release, Spec, TensorSpec, fixed_mean
from hanse.core import sum as sum_
from hanse.network.client.allowed_plan import allow_plan
from hanse.network.client.audit import AuditLog
from hanse.network.client.home import ClientHome
from hanse.network.client.limits import (
    PRIVACY,
    SHARES,
    UNNOISED,
    Spent,
    find_epsilon,
    measure_release,
)
from hanse.network.client.policy import Policy
from hanse.network.protocol.envelope_words import find_releases
from hanse.network.protocol.errors import Forbidden
from hanse.network.protocol.sealed_plan import SealedPlan, seal_plan
from hanse.network.server.rehearsal import foresee
from hanse.privacy import compute_epsilon as compute_by_accountant
from hanse.privacy import examples, gaussian, local_gaussian, skellam
from hanse.privacy.secure_sums import secure_sum
from hanse.runs.protection import private_training
from hanse.transforms import clip, quantize, rotate

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
SHARED = fed_avg(
    0.5,
    1.0,
    weighting=uniform(),
    uplink=(clip(1.0), rotate(), skellam(2.0, honest=3, denominator=5.0)),
    into=secure_sum(colluders=0.0, bits=32, min_clients=3),
    close=ANY,
)
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
    assert measure_release([Release("tree", 2.0)]) is None
    assert measure_release([Release("gaussian", 0.0)]) is None
    assert measure_release([Release("gaussian", 1e5)]) == 1, "rounded up"


@pytest.mark.parametrize("z", [0.0, -1.0, 1e-200, 1e-6, 1e6, 1e200, float("inf"), float("nan")])
def test_noise_of_a_size_that_nobody_means_is_not_counted(z: float) -> None:
    assert measure_release([Release("local_gaussian", 2.0), Release("local_gaussian", z)]) is None


@pytest.mark.parametrize("z", [1e-200, 1e200])
def test_a_part_with_noise_of_such_a_size_is_refused(z: float) -> None:
    spec = Spec({"w": TensorSpec((3,), "float32")})
    uplink = {"update": PartSpec(spec, (clip(1.0), local_gaussian(z)), sum_())}
    with pytest.raises(
        Forbidden, match=r"sends part 'update' with noise that can't be counted here \(local_gaussian\)"
    ):
        Policy(max_epsilon=8.0).measure_message("work", uplink)
    assert Policy().measure_message("work", uplink) == (0, True, False), "as a part without noise"


@pytest.mark.parametrize("z", [1.1e-6, 0.9e6])
def test_all_sizes_that_are_counted_have_an_epsilon(z: float) -> None:
    units = measure_release([Release("local_gaussian", z)])
    assert units is not None
    assert find_epsilon(1000 * units, DELTA) == pytest.approx(500 / z**2, rel=1e-3, abs=0.01)


def share(z: float, norm: float = 1025.0, norm_1: float = 26_122.0) -> Release:
    return Release("skellam", z, {"norm": norm, "norm_1": norm_1, "honest": 3.0})


@pytest.mark.parametrize("z", [0.3, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("times", [1, 10, 300])
@pytest.mark.parametrize("norms", [(1025.0, 26_122.0), (40.0, 900.0)], ids=["fine", "coarse"])
def test_noise_in_shares_is_counted_by_the_bound_of_the_paper(
    z: float, times: int, norms: tuple[float, float]
) -> None:
    """Never below what the claim of the run says, and with usual steps hardly above."""
    units = measure_release([share(z, *norms)])
    assert units is not None
    found = find_epsilon(times * units, DELTA, in_shares=True)
    claimed = compute_by_accountant({(1.0, z, *norms): times}, DELTA)
    assert claimed * (1 - 1e-9) <= found <= claimed * (1.001 if norms[0] > 1000 else 1.03)
    assert found > find_epsilon(times * units, DELTA), "there is no exact epsilon of it"


def test_noise_in_shares_adds_up_with_other_noise() -> None:
    units = measure_release([share(2.0), Release("gaussian", 2.0)])
    both = {(1.0, 2.0, 1025.0, 26_122.0): 1, (1.0, 2.0): 1}
    assert units is not None
    assert find_epsilon(units, DELTA, in_shares=True) == pytest.approx(
        compute_by_accountant(both, DELTA), rel=1e-3
    )


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
        Forbidden, match=r"local_sgd sends part 'update' without noise .*unnoised = \[\"local_sgd/update\"\]"
    ):
        allow_plan(home, plan_for(OPEN))
    allow_plan(home, plan_for(LOCAL))
    allow_plan(home_with(tmp_path, "max_epsilon = 8.0", 'unnoised = ["update"]'), plan_for(OPEN))


def test_private_examples_are_not_counted_and_their_name_lets_no_raw_update_leave(tmp_path: Path) -> None:
    budget = examples(epsilon=4.0, delta=1e-4)
    client = private_training(sgd(0.5, batch_size=100, epochs=1), budget, rounds=3)
    private = plan_for(fed_avg(client=client, weighting=uniform()))
    home = home_with(tmp_path, "max_epsilon = 8.0")
    with pytest.raises(
        Forbidden,
        match=r"private_sgd sends part 'update' with noise that hides each of its examples.*does not hide",
    ) as no:
        allow_plan(home, private)
    said = re.search(r"unnoised = .*", str(no.value))
    assert said is not None
    home = home_with(tmp_path, "max_epsilon = 8.0", said[0])
    allow_plan(home, private)
    with pytest.raises(Forbidden, match="local_sgd sends part 'update' without noise"):
        allow_plan(home, plan_for(OPEN))
    lines = home.describe_plan(private)
    assert "  each 'update' of private_sgd: without noise that can be counted here" in lines
    assert "epsilon=4.0" in "".join(lines), "the owner sees the budget of its book"


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


@pytest.mark.parametrize("left", [None, "", '{"day": "2026-01-'], ids=["lost", "empty", "cut off"])
def test_a_count_that_was_lost_does_not_begin_at_0(tmp_path: Path, left: str | None) -> None:
    home = home_with(tmp_path, "max_epsilon = 8.0")
    allow_plan(home, plan_for(LOCAL))
    home.audit.write("sent", bytes=10)
    path = tmp_path / "spent.json"
    if left is not None:
        path.write_text(left)
    for _ in range(2):
        with pytest.raises(Forbidden, match=r"nobody knows what 1 earlier messages.*put back a copy") as lost:
            allow_plan(home, plan_for(LOCAL))
        assert lost.value.code == "budget"
        assert "  unknown: what 1 earlier messages revealed, so that all is refused" in home.describe_plan(
            plan_for(LOCAL)
        )
        home.spent.add(download_bytes=1)  # the file is written anew, and still says so
    home_with(tmp_path, "")
    allow_plan(home, plan_for(LOCAL))
    home_with(tmp_path, "max_epsilon = 8.0")
    said = re.search(r"write (\{.*\}) into it", str(lost.value))
    assert said is not None
    path.write_text(said[1])
    allow_plan(home, plan_for(LOCAL))


def test_a_count_is_on_the_disk_after_each_sum_that_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was replaced by one that a loss of power empties would be lost with it."""
    path, synced, fsync = tmp_path / "spent.json", set[int](), os.fsync

    def note(number: int) -> None:
        synced.add(os.fstat(number).st_ino)
        fsync(number)

    monkeypatch.setattr(os, "fsync", note)
    spent = Spent(path)
    spent.add("one", tickets=1, seconds=2.0)
    assert not synced, "nothing is counted yet that must not be lost"
    spent.add("one/message", **{PRIVACY: 10, UNNOISED: 0})
    for amounts in ({}, {"seconds": 2.0}, {"tickets": 1, "upload_bytes": 9}):
        spent.add("two" if "tickets" in amounts else "", **amounts)
        assert path.stat().st_ino in synced
        assert spent.of_all(PRIVACY) == 10


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        (LOCAL, "each 'update' of local_sgd: 1.99 if alone; this client adds the noise"),
        (CENTRAL, "each 'update' of local_sgd: 1.99 if alone; you trust the server to add the noise"),
        (
            SHARED,
            "each 'update' of local_sgd: 2.17 if alone; you trust other clients to add shares of the noise, "
            "and the sum to hide yours",
        ),
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
    assert policy.measure_message("work", {"a": noised, "b": noised}) == (2 * EACH, False, False)
    with pytest.raises(Forbidden, match="work sends part 'metrics' without noise"):
        policy.measure_message("work", {"a": noised, "metrics": PartSpec(spec)})
    named = Policy(max_epsilon=3.0, unnoised=("metrics",))
    assert named.measure_message("work", {"a": noised, "metrics": PartSpec(spec)}) == (EACH, True, False)
    assert Policy().measure_message("work", {"a": noised, "metrics": PartSpec(spec)}) == (EACH, True, False)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("max_epsilon = 0", "write a number above 0, such as 8.0"),
        ('max_epsilon = "8"', "write a number above 0, such as 8.0"),
        ("delta = 1", "write a number above 0 and below 0.01"),
        ("delta = 0.01", "write a number above 0 and below 0.01"),
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


@pytest.mark.parametrize("algorithm", [LOCAL, SHARED], ids=["own noise", "noise in shares"])
def test_a_client_stops_at_its_budget_over_runs_and_restarts(algorithm: Any, tmp_path: Path) -> None:
    """Two messages fit, in two runs of other names, with a restart between them; others have no budget.

    What the client's owner sees is the epsilon that it counts.
    """
    in_shares = algorithm is SHARED
    uplinks = [envelope.pattern["uplink"] for envelope in foresee(job(algorithm, 1))[0]]
    each = measure_release(next(find_releases(up["update"]) or () for up in uplinks if "update" in up))
    assert each

    def cost(messages: int) -> float:
        return find_epsilon(messages * each, DELTA, in_shares=in_shares)

    fits = (cost(2) + cost(3)) / 2
    with federation(tmp_path, stay=True) as here:
        here.server.presence.hold_s = 0.1
        homes = [here.client_home(number) for number in range(NUM_CLIENTS)]
        (homes[0].folder / "policy.toml").write_text(f"max_epsilon = {fits}")
        here.enter()
        here.end(here.lead(job(algorithm, 1)))
        restart(here)
        here.end(here.lead(job(algorithm, 2)))
        if not in_shares:
            assert [sent(home) for home in homes[:2]] == [2, 3]
        assert [record.abandoned for record in here.records] == [None] * len(here.records)
        for home, messages in zip(homes[:2], (2, 3), strict=True):
            total = json.loads((home.folder / "spent.json").read_text())["total"]
            assert total.get(SHARES, 0) == messages * in_shares
            assert total[PRIVACY] == messages * each, "also where the policy does not ask for it yet"
        again = Spent(homes[0].folder / "spent.json")
        with pytest.raises(Forbidden, match="one more message would make it"):
            homes[0].policy.check_epsilon(again, each, in_shares=in_shares)
        lines = homes[0].describe_plan(plan_for(algorithm))
        assert f"max_epsilon: {cost(2):.2f} of {fits:g} is spent (delta 1e-05, in all runs together)" in lines
    assert any("max_epsilon" in line for line in here.said)
