"""From a file of data to a first run: guesses, the file that is written, and messages about mistakes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_data import real
from typer.testing import CliRunner

import hanse
from hanse.cli import app
from hanse.cli.doctor import extras
from hanse.core import InvalidInput
from hanse.data import by_key, csv, dirichlet, iid, npz


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HANSE_STORE", "runs.db")


def cli(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def rows_of(*head: str, num: int = 60) -> str:
    lines = [
        f"p{i},{20 + i % 50},{'cook' if i % 2 else 'clerk'},h{i % 3},{'yes' if i % 50 > 24 else 'no'}"
        for i in range(num)
    ]
    return "\n".join([",".join(head), *lines]) + "\n"


def test_a_table_with_a_hospital_column_runs_as_it_is() -> None:
    Path("stays.csv").write_text(rows_of("patient_id", "age", "job", "hospital", "died", num=120))
    done = cli("init", "stays.csv")
    assert (done.exit_code, done.stdout) == (0, "stays.toml\n"), done.stderr
    experiment = hanse.read("stays.toml")
    classes = ("no", "yes")
    data = csv("stays.csv", label="died", key="hospital", drop=("patient_id",), classes=classes)
    assert experiment.data == data
    assert experiment.partition == by_key()
    run = cli("run", "stays.toml", "--set", "rounds=2", "--json")
    result = json.loads(run.stdout)
    assert result["status"] == "completed", run.stderr
    assert result["data"]["names"] == ["h0", "h1", "h2"]
    assert [row["name"] for row in result["baselines"]] == ["centralised", "on_site"]
    assert result["clients"]["on"] == "their own test examples"


def test_told_columns_are_taken() -> None:
    Path("stays.csv").write_text(rows_of("patient_id", "age", "job", "hospital", "died"))
    assert cli("init", "stays.csv", "--label", "job", "--key", "died", "--to", "other.toml").exit_code == 0
    roles = {"label": "job", "key": "died", "drop": ("patient_id",)}
    assert hanse.read("other.toml").data == csv("stays.csv", **roles, classes=("clerk", "cook"))


def test_a_table_without_names_or_parties() -> None:
    Path("plain.data").write_text("\n".join(f"{i},{i % 7},{'ab'[i % 2]}" for i in range(50)) + "\n")
    assert cli("init", "plain.data").exit_code == 0
    experiment = hanse.read("plain.toml")
    assert isinstance(experiment.data, csv)
    assert (experiment.data.columns, experiment.data.label) == (("c1", "c2", "c3"), "c3")
    assert experiment.partition == dirichlet(10, 0.5)
    assert experiment.client_test_fraction == 0.2


def test_a_number_to_predict() -> None:
    lines = [f"{i % 9},{i % 4},{3 * (i % 9) - i % 4 + i / 1000}" for i in range(100)]
    Path("houses.csv").write_text("\n".join(["rooms,floor,price", *lines]) + "\n")
    cli("init", "houses.csv")
    experiment = hanse.read("houses.toml")
    assert isinstance(experiment.data, csv)
    assert (experiment.data.target, experiment.partition) == ("price", iid(10))
    first, *_, last = hanse.perform(experiment).records
    assert last.metrics["loss"] < first.metrics["loss"] / 2


def test_arrays() -> None:
    rng = np.random.default_rng(0)
    np.savez("scans.npz", images=rng.random((90, 4, 4)), labels=np.arange(90) % 3, hospital=np.arange(90) % 5)
    assert cli("init", "scans.npz").exit_code == 0
    experiment = hanse.read("scans.toml")
    assert experiment.data == npz("scans.npz", x="images", y="labels", key="hospital")
    assert hanse.perform(hanse.read("scans.toml", ["rounds=1"])).status == "completed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stays.csv", "--label", "dead"], "has no column 'dead' for --label; it has"),
        (["stays.txtx"], "the format of such a file is unknown; give one that ends in .csv"),
        (["nothing.csv"], "no file 'nothing.csv'"),
        (["empty.csv"], "empty.csv is empty"),
        (["stays.csv", "--to", "stays.csv"], "stays.csv exists already"),
    ],
)
def test_what_can_not_be_read_is_explained(arguments: list[str], message: str) -> None:
    Path("stays.csv").write_text(rows_of("patient_id", "age", "job", "hospital", "died"))
    Path("empty.csv").write_text("")
    done = cli("init", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert list(Path().glob("*.toml")) == []


# -- descriptions, and the doctor ----------------------------------------------------------------


def test_describe_shows_who_has_what() -> None:
    done = cli("data", "describe", "--set", "partition={name='shards', num_clients=5}")
    assert done.exit_code == 0
    assert "5 clients" in done.stdout
    told = json.loads(cli("data", "describe", "--json").stdout)
    assert (told["num_clients"], len(told["clients"])) == (100, 100)


def test_describe_notes_clients_of_one_class() -> None:
    done = cli(
        "data", "describe", "--set", "partition={name='labels_per_client', num_clients=10, num_labels=1}"
    )
    assert done.exit_code == 0, done.stderr
    said = done.stderr.replace("\n", " ")
    assert "10 of 10 clients hold one class only, and so learn nothing alone: client 0, " in said


def test_the_doctor_says_what_is_missing() -> None:
    done = cli("doctor")
    assert done.exit_code == 0
    assert "which the first run makes" in done.stdout
    for extra in extras():
        assert extra.name in done.stdout
        assert bool(extra.missing) == bool(extra.remedy)
    told = json.loads(cli("doctor", "--json").stdout)
    names = {extra["name"] for extra in told["extras"]}
    assert {"report", "jax", "torch", "server"} <= names
    assert not {"dev", "mutants", "all"} & names


# -- a newcomer's walk -------------------------------------------------------------------------


def test_adult_split_by_occupation_from_csv_to_model() -> None:
    import gzip

    source = real("adult/adult.data.gz")
    head = "age,workclass,fnlwgt,education,education_num,marital,occupation,relationship,race,sex,gain,loss,hours,country,income\n"  # noqa: E501
    with gzip.open(source, "rt") as text:
        Path("adult.csv").write_text(head + "".join(text.readlines()[:4000]))
    assert cli("init", "adult.csv", "--key", "occupation").exit_code == 0
    run = cli("run", "adult.toml", "--set", "rounds=10", "--json")
    result = json.loads(run.stdout)
    assert result["status"] == "completed", run.stderr
    assert result["final"]["accuracy"] > 0.78
    assert "Sales" in result["data"]["names"]
    assert cli("release", result["run"], "--to", "out").exit_code == 0
    assert cli("predict", "out", "adult.csv").stdout.count("\n") > 3900


# -- files as spreadsheets save them --------------------------------------------------------------


def messy(
    name: str, *, delimiter: str = ",", encoding: str = "utf-8", decimal: str = ".", crp: str = ""
) -> csv:
    """Writes a table with case numbers and postcodes, lets init guess its settings, and returns them."""
    lines = [["Fall-Nr", "PLZ", "CRP", "Kosten", "Stadt", "died"]]
    for i in range(80):
        value = crp if crp and i in (3, 9) else f"{i % 50 + 0.5}".replace(".", decimal)
        cost = f"{1000 + 37 * i:,}" if crp == "" else str(1000 + 37 * i)
        lines.append(
            [
                str(500 + i),
                str(20095 + i % 7),
                value,
                cost,
                ("Köln", "Bonn")[i % 2],
                "ja" if i % 50 > 24 else "nein",
            ]
        )
    quoted = [[f'"{cell}"' if delimiter in cell else cell for cell in cells] for cells in lines]
    text = "\n".join(delimiter.join(cells) for cells in quoted) + "\n"
    Path(name).write_bytes(text.encode(encoding))
    done = cli("init", name)
    assert done.exit_code == 0, done.stderr
    data = hanse.read(Path(name).with_suffix(".toml")).data
    assert isinstance(data, csv)
    return data


def test_case_numbers_are_left_out_and_postcodes_are_categories() -> None:
    data = messy("plain.csv", crp="7")
    assert (data.drop, data.categorical, data.label) == (("Fall-Nr",), ("PLZ",), "died")
    assert data.load().train.x["PLZ"][0].isdigit()
    with pytest.raises(
        InvalidInput, match=r"'Fall-Nr' holds another .* write drop = \[\"Fall-Nr\"\], or numeric"
    ):
        csv("plain.csv", label="died", categorical=("PLZ",)).load()
    with pytest.raises(InvalidInput, match=r"numbers of places, such as 20095, .* categorical = \[\"PLZ\"\]"):
        csv("plain.csv", label="died", drop=("Fall-Nr",)).load()
    kept = csv("plain.csv", label="died", numeric=("Fall-Nr", "PLZ"), test_fraction=0).load()
    assert kept.train.x["Fall-Nr"].tolist() == list(range(500, 580))


def test_numbers_in_each_row_are_noted_where_no_name_tells_what_they_are() -> None:
    Path("rows.csv").write_text("time,x,y\n" + "".join(f"{i},{i % 9},{i % 2}\n" for i in range(60)))
    data = csv("rows.csv", label="y").load()
    assert data.train.x.dtype.names == ("time", "x")
    assert [note.partition(",")[0] for note in data.notes] == [
        "rows.csv: column 'time' holds another whole number in each row"
    ]
    done = cli("data", "describe", "--set", "data={name='csv', path='rows.csv', label='y'}",
               "--set", "partition={name='iid', num_clients=2}")  # fmt: skip
    assert 'write drop = ["time"]' in done.stderr.replace("\n", " ")


def test_init_reads_what_spreadsheets_save() -> None:
    data = messy("german.csv", delimiter=";", encoding="cp1252", decimal=",", crp="<5")
    assert (data.encoding, data.decimal) == ("cp1252", ",")
    assert data.censored == "limit"
    table = data.load().train.x
    assert table.dtype["CRP"] == table.dtype["Kosten"] == np.float64
    assert set(table["Stadt"]) == {"Köln", "Bonn"}
    assert "SETTLE THIS" in Path("german.toml").read_text(encoding="utf-8")
    data = messy("english.csv", encoding="utf-16", delimiter="\t")
    assert (data.encoding, data.thousands) == ("utf-16", ",")
    whole = [data.load().train.x["Kosten"], data.load().test.x["Kosten"]]  # type: ignore[union-attr]
    assert sorted(np.concatenate(whole)) == [1000 + 37 * i for i in range(80)]
