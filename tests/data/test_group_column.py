"""Rows of one group, such as a patient, are held out together, or not at all."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as arrow

from hanse.core import Examples, InvalidInput, Key
from hanse.data import Dataset, TrainTest, by_key, csv, iid, npz, parquet, partition_data
from hanse.data.datasets import hold_out
from hanse.runs import Parties

RNG = np.random.default_rng(0)
PATIENT = RNG.integers(0, 25, 200)
COLUMNS: Mapping[str, Any] = {
    "number": np.arange(200.0) / 2,
    "site": np.array(["north", "south"])[PATIENT % 2],
    "patient": PATIENT,
    "ill": np.arange(200) % 2,
}
OF_NUMBER = dict(zip(COLUMNS["number"].tolist(), PATIENT.tolist(), strict=True))


def write(name: str, rows: Any) -> None:
    columns = {column: values[rows] for column, values in COLUMNS.items()}
    cells = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    Path(f"{name}.csv").write_text("\n".join([",".join(columns), *cells]))
    arrow.write_table(pyarrow.table(columns), f"{name}.parquet")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("all", slice(None))
    np.savez("all.npz", x=COLUMNS["number"][:, None], y=COLUMNS["ill"], patient=PATIENT)


def patients(part: Examples | None) -> set[int]:
    assert part is not None
    numbers = part.x["number"] if part.x.dtype.names else part.x[:, 0]
    return {OF_NUMBER[number] for number in numbers.tolist()}


SHARES = {"group": "patient", "test_fraction": 0.2, "validation_fraction": 0.1}


@pytest.mark.parametrize(
    "data",
    [
        csv("all.csv", label="ill", drop=("site",), **SHARES),  # type: ignore[arg-type]
        parquet("all.parquet", label="ill", drop=("site",), **SHARES),  # type: ignore[arg-type]
        npz("all.npz", **SHARES),  # type: ignore[arg-type]
    ],
    ids=["csv", "parquet", "npz"],
)
def test_no_patient_stands_on_two_sides(data: Dataset) -> None:
    found = data.load()
    sides = [patients(part) for part in (found.train, found.test, found.validation)]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 25
    assert found.test is not None
    assert found.validation is not None
    assert abs(len(found.test) - 40) <= 4
    assert abs(len(found.validation) - 20) <= 4
    assert len(found.train) + len(found.test) + len(found.validation) == 200
    assert found.train.x.dtype.names in (None, ("number",))
    again = data.load()
    np.testing.assert_array_equal(found.test.x, (again.test or found.train).x)
    assert found.groups is not None
    assert {int(word) for word in found.groups.tolist()} == sides[0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=4, max_size=60),
    st.floats(0.05, 0.6),
    st.sampled_from([0.0, 0.2]),
)
def test_groups_of_any_sizes_are_divided(groups: list[int], fraction: float, validation: float) -> None:
    n, kinds = len(groups), len(set(groups))
    data = TrainTest(Examples(np.arange(n)[:, None], np.zeros(n)), groups=np.array(groups).astype(str))
    asked = [share for share in (fraction, validation) if round(share * n)]
    if not asked:
        return
    if kinds <= len(asked):
        with pytest.raises(InvalidInput, match=f"the rows belong to {kinds} group"):
            hold_out(data, fraction, "x", validation)
        return
    found = hold_out(data, fraction, "x", validation)
    parts = [part for part in (found.train, found.test, found.validation) if part is not None]
    assert len(parts) == 1 + len(asked)
    sides = [{groups[row] for row in part.x[:, 0]} for part in parts]
    assert sum(map(len, sides)) == len(set().union(*sides)) == kinds
    assert sorted(row for part in parts for row in part.x[:, 0]) == list(range(n))


def test_clients_hold_out_whole_patients_the_same_at_all() -> None:
    data = npz("all.npz", group="patient", test_fraction=0.0).load()
    people = partition_data(data, iid(4), Key.from_seed(0), client_test_fraction=0.3)
    trained = set[int]().union(*(patients(people.client(n)) for n in range(4)))
    tested = [patients(people.role(f"test/{n}")) for n in people.find_test_clients()]
    assert len(tested) == 4
    assert trained.isdisjoint(set().union(*tested)), "a patient's rows are at several clients"
    sizes = people.sizes() + people.test_sizes()
    assert sizes.sum() == 200
    assert 20 < people.test_sizes().sum() < 100
    for n in range(4):
        own = len(people.client(n)), len(people.role(f"test/{n}"))
        assert own == (people.sizes()[n], people.test_sizes()[n])
        assert len(people.labels(n)) == own[0]
    other = partition_data(replace(data, groups=None), iid(4), Key.from_seed(0), client_test_fraction=0.3)
    assert people.fingerprint != other.fingerprint


def test_a_client_of_one_patient_trains_and_nobody_tests_on_that_patient() -> None:
    everybody = partition_data(alone(), by_key(), Key.from_seed(0))
    num_tested = 0
    for seed in range(30):
        people = everybody.holding_out(0.5, Key.from_seed(seed))
        num_tested += len(people.find_test_clients())
        assert len(people.client(1)) == 10, "its only patient is never held out"
        for n in people.find_test_clients():
            assert 3 not in people.role(f"test/{n}").x[:, 0]
    assert num_tested >= 29


def alone() -> TrainTest:
    """Ten patients at one client; the other client has only one of them."""
    group = np.repeat(np.arange(10), 10)
    group = np.concatenate([group, np.full(10, 3)])
    keys = np.array(["many"] * 100 + ["one"] * 10)
    return TrainTest(Examples(group[:, None] * 1.0, np.zeros(110)), keys=keys, groups=group.astype(str))


def test_too_few_groups_are_refused() -> None:
    np.savez("one.npz", x=np.eye(9), y=np.arange(9) % 2, patient=np.full(9, "p"))
    with pytest.raises(
        InvalidInput, match=r"belong to 1 group \(p\), .* give 2 groups or more, .* leave group out"
    ):
        npz("one.npz", group="patient").load()
    data = npz("one.npz", group="patient", test_fraction=0.0).load()
    with pytest.raises(
        InvalidInput, match=r"client_test_fraction is 0.2, and the clients have too few groups"
    ):
        partition_data(data, iid(2), Key.from_seed(0), client_test_fraction=0.2)


def test_a_patient_in_two_files_is_refused() -> None:
    write("train", PATIENT != 7)
    write("rest", PATIENT == 7)
    rest = {"drop": ("site",), "label": "ill", "group": "patient"}
    assert patients(csv("train.csv", test="rest.csv", **rest).load().test) == {7}  # type: ignore[arg-type]
    number = int((PATIENT == 7).sum())
    for side in ("test", "validation"):
        with pytest.raises(
            InvalidInput, match=rf"rest.csv, line 2: column 'patient' is '7', .* in {number} rows"
        ):
            csv("all.csv", **{side: "rest.csv"}, **rest).load()  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"rest.csv, line 2: column 'patient' is '7'"):
        csv("train.csv", test="rest.csv", validation="rest.csv", **rest).load()  # type: ignore[arg-type]
    Path("bare.csv").write_text("number,site,ill\n1,north,0\n")
    with pytest.raises(InvalidInput, match=r"bare.csv has no column 'patient' for group"):
        csv("train.csv", test="bare.csv", **rest).load()  # type: ignore[arg-type]
    np.savez(
        "two.npz",
        x=np.eye(4),
        y=[0, 1, 0, 1],
        who=list("abcd"),
        test_x=np.eye(4),
        test_y=[0] * 4,
        test_who=list("xbyy"),
    )
    with pytest.raises(InvalidInput, match=r"array 'test_who', row 1 is 'b'"):
        npz("two.npz", group="who").load()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"group": "pacient"}, "no column 'pacient' for group; did you mean 'patient'"),
        ({"group": "site", "key": "site"}, "column 'site' is given two roles"),
        ({"group": "ill"}, "column 'ill' is given two roles"),
    ],
)
def test_a_group_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        csv("all.csv", label="ill", **given).load()


def test_a_client_divides_its_own_file_as_the_simulation_does() -> None:
    Path("app.toml").write_text(SETTINGS)
    job = Parties().job(Path("app.toml"), ())
    for number in range(2):
        name = ("north", "south")[number]
        write(name, COLUMNS["site"] == name)
        train = Parties().data(f"{name}.csv", number)(job.plan)
        test = Parties().test(f"{name}.csv", number)(job.plan)
        theirs = job.role(f"test/{number}")
        assert len(theirs) > 0
        np.testing.assert_array_equal(test.x, theirs.x)
        np.testing.assert_array_equal(test.y, theirs.y)
        assert len(train) + len(test) == (COLUMNS["site"] == name).sum()
    assert json.loads(job.plan.settings)["data"]["group"] == "patient"


SETTINGS = """
client_test_fraction = 0.3
data = { name = "csv", path = "all.csv", label = "ill", key = "site", group = "patient", test_fraction = 0.0 }
partition = "by_key"
model = "logistic"
algorithm = { name = "fed_avg", fraction = 1.0 }
"""
