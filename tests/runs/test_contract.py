"""A client's contract says what runs may use; a plan that wants more is refused before a file is opened."""

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hanse.config import Experiment
from hanse.core import InvalidInput
from hanse.data import csv, iid, npz
from hanse.learners import least_squares, softmax
from hanse.network.protocol import Forbidden, Plan
from hanse.runs.contract import CONTRACT, Contract
from hanse.runs.deployment import Parties, plan_of
from hanse.runs.preparation import prepare_run
from hanse.runs.proposal import propose

HEAD = "age,crp,job,ill,name"


def row(i: int) -> str:
    return f"{30 + i // 2},{i}.25,{'cook' if i % 2 else 'nurse'},{'yes' if i % 3 else 'no'},Person {i}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.csv").write_text("\n".join([HEAD, *map(row, range(60)), ""]))
    (tmp_path / "home").mkdir()
    return tmp_path


def plan(path: str = "own.csv", **said: Any) -> Plan:
    """A plan as a server makes it from a table of its own."""
    given: dict[str, Any] = {"label": "ill", "drop": ("name",), "test_fraction": 0.0, **said}
    model = softmax() if given["label"] else least_squares()
    data = csv(path, **given)
    return plan_of(prepare_run(Experiment(data=data, partition=iid(1), model=model, evaluate_every=0)))


WRITTEN = """
min_rows = 20
[data]
name = "csv"
path = "../own.csv"
label = "ill"
classes = ["no", "yes"]
numeric = ["age", "crp"]
categorical = ["job"]
"""


def contract(text: str = WRITTEN) -> Contract:
    Path("home", CONTRACT).write_text(text)
    found = Contract.at(Path("home"))
    assert found is not None
    return found


def opened(found: Contract, given: Plan) -> Any:
    return Parties().contract_data(found, 0, lambda line: None)(given)


def test_a_plan_that_suits_is_read_as_without_a_contract(folder: Path) -> None:
    """A path starts at the contract's folder, whatever the current one is."""
    given = plan()
    alone = Parties().data("own.csv", 0)(given)
    own = opened(contract(), given)
    assert np.array_equal(own.x, alone.x)
    assert np.array_equal(own.y, alone.y)


Change = Callable[[str], str]
REFUSED: dict[str, tuple[dict[str, Any], Change, tuple[str, ...]]] = {
    "a column that is not allowed": (
        {},
        lambda text: text.replace('"age", ', ""),
        ("the column 'age' (numbers)", 'To allow it: numeric = ["crp", "age"]'),
    ),
    "a column of another kind": (
        {},
        lambda text: text.replace('"age", "crp"', '"age"').replace('"job"', '"job", "crp"'),
        ("reads 'crp' as numbers; they are categories here", 'categorical = ["job"]'),
    ),
    "another label": (
        {"label": "job"},
        lambda text: text,
        ("predicts 'job' (label); 'ill' may be predicted here", 'To allow it: label = "job"'),
    ),
    "a number in place of a class": (
        {"label": None, "target": "crp"},
        lambda text: text,
        ("predicts 'crp' (target)", 'To allow it: target = "crp"'),
    ),
    "other classes": (
        {},
        lambda text: text.replace('["no", "yes"]', '["no", "yes", "perhaps"]'),
        (
            "classes of 'ill' are 'no', 'yes'; they are",
            'To allow it: classes = ["no", "yes"], if no row here is \'perhaps\'; or let',
        ),
    ),
    "arrays": (
        {},
        lambda text: '[data]\nname = "npz"\npath = "../own.csv"',
        ("uses a table of columns; the data here are arrays", 'write name = "csv"'),
    ),
}


@pytest.mark.parametrize(("said", "change", "due"), REFUSED.values(), ids=REFUSED)
def test_a_difference_is_named_and_no_file_is_opened(
    said: dict[str, Any], change: Change, due: tuple[str, ...], folder: Path
) -> None:
    given = plan(**said)
    (folder / "own.csv").unlink()
    (folder / "own.csv").mkdir()  # whoever opens it fails in another way
    with pytest.raises(Forbidden) as refused:
        opened(contract(change(WRITTEN)), given)
    assert refused.value.code == "policy"
    assert all(words in str(refused.value) for words in due), refused.value
    with pytest.raises(InvalidInput, match="is a folder"):
        opened(contract(), plan_again(given)) if not said else opened(contract(), SUITS(folder))


def plan_again(given: Plan) -> Plan:
    return given


def SUITS(folder: Path) -> Plan:
    """The plan that suits, of a table of the server's."""
    (folder / "theirs.csv").write_text("\n".join([HEAD, *map(row, range(60)), ""]))
    return plan("theirs.csv")


def test_a_plan_supplies_neither_path_nor_reader_nor_encoder(folder: Path) -> None:
    import json

    given, settings = plan(), json.loads(plan().settings)
    hostile = {
        **settings["data"],
        "path": "/etc/passwd",
        "delimiter": ":",
        "encoding": "utf-16",
        "missing": ["no"],
    }
    twisted = replace(given, settings=json.dumps({**settings, "data": hostile}))
    assert np.array_equal(opened(contract(), twisted).x, opened(contract(), given).x)
    with pytest.raises(Forbidden, match="encodes columns by softmax"):
        opened(contract(), replace(given, encoder=softmax()))


def test_groups_have_to_be_named_where_rows_are_held_out_by_them(folder: Path) -> None:
    import json

    def grouped(fraction: float) -> Plan:
        given = plan()
        said = json.loads(given.settings)
        said = {**said, "data": {**said["data"], "group": "name"}, "client_test_fraction": fraction}
        return replace(given, settings=json.dumps(said))

    assert len(opened(contract(), grouped(0.0))) == 60
    with pytest.raises(Forbidden, match="holds out rows by the group 'name'; no group is named here"):
        opened(contract(), grouped(0.5))
    own = contract(WRITTEN.replace("label", 'group = "name"\nlabel', 1))
    train = opened(own, grouped(0.5))
    tests = Parties().contract_tests(own, 0)(grouped(0.5))
    assert 0 < len(train) < 60
    assert len(train) + len(tests) == 60


def test_the_owner_chooses_rows_tests_and_their_number(folder: Path) -> None:
    given = plan()
    where = 'where = [{column = "age", at_least = 40, at_most = 79}, {column = "job", among = ["cook"]}]\n'
    own = contract(where + WRITTEN)
    assert len(opened(own, given)) == 20  # of 40 rows, every second
    hidden = contract('where = [{column = "name", not_among = ["Person 3"]}]\n' + WRITTEN)
    assert len(opened(hidden, given)) == 59  # a column that the run does not see chooses rows, too
    with pytest.raises(InvalidInput, match=r"has 20 rows to use, and .* wants 21.*write min_rows = 20"):
        opened(contract(where + WRITTEN.replace("20", "21")), given)
    with pytest.raises(InvalidInput, match="none of its 60 rows passes"):
        opened(contract(where.replace("40", "99") + WRITTEN), given)
    with pytest.raises(InvalidInput, match="no column 'agee' for where; did you mean 'age'"):
        opened(contract(where.replace('"age"', '"agee"') + WRITTEN), given)
    held = contract("client_test_fraction = 0.25\n" + WRITTEN)
    assert (len(opened(held, given)), len(Parties().contract_tests(held, 0)(given))) == (45, 15)
    (folder / "test.csv").write_text("\n".join([HEAD, *map(row, range(7)), ""]))
    apart = contract('test = "../test.csv"\n' + WRITTEN)
    assert (len(opened(apart, given)), len(Parties().contract_tests(apart, 0)(given))) == (60, 7)


def test_days_choose_rows(folder: Path) -> None:
    days = [f"2024-01-{1 + i % 30:02d} 10:00" for i in range(60)]
    rows = [f"{row(i)},{day}" for i, day in enumerate(days)]
    (folder / "dated.csv").write_text("\n".join([f"{HEAD},seen", *rows, ""]))
    text = 'where = [{column = "seen", at_least = 2024-01-10, at_most = 2024-01-12}]\n' + WRITTEN
    found = contract(text.replace("own.csv", "dated.csv").replace("20\n", "1\n"))
    assert len(opened(found, plan())) == 6
    with pytest.raises(InvalidInput, match="column 'job' is 'nurse' in row 1"):
        opened(contract(text.replace('"seen"', '"job"')), plan())


WRONG = {
    "no table [data]": ("min_rows = 3", "has no table"),
    "not TOML": ("min_rows = 3\n[data\n", "line 2, column 6: not TOML"),
    "an unknown setting": ("min_row = 3\n" + WRITTEN.split("\n", 2)[2], "min_row is unknown; did you mean"),
    "a setting for others": (WRITTEN + "test_fraction = 0.3", "write client_test_fraction at the top"),
    "an unknown reader": (WRITTEN.replace('"csv"', '"digits"').replace("label", "#"), "data"),
    "no columns": (WRITTEN.replace("numeric", "#").replace("categorical", "#"), "allows no columns"),
    "no label": (WRITTEN.replace("label", "#").replace("classes", "#"), "names nothing to predict"),
    "two roles": (WRITTEN.replace('["job"]', '["job", "ill"]'), "'ill'"),
    "min_rows": (WRITTEN.replace("20", "0"), "min_rows is 0; write a whole number"),
    "where": ("where = 3\n" + WRITTEN, "write a list of conditions"),
    "a comparison": (
        'where = [{column = "age", above = 3}]\n' + WRITTEN,
        "above is unknown; did you mean|above",
    ),
    "a number and words": (
        'where = [{column = "job", at_least = 3}]\n' + WRITTEN,
        "holds categories; write among",
    ),
    "no comparison": ('where = [{column = "job"}]\n' + WRITTEN, "write a column and a comparison"),
    "two tests": ('test = "a"\nclient_test_fraction = 0.1\n' + WRITTEN, "two ways to test"),
}


@pytest.mark.parametrize(("text", "due"), WRONG.values(), ids=WRONG)
def test_a_wrong_contract_is_refused_with_the_cure(text: str, due: str, folder: Path) -> None:
    with pytest.raises(InvalidInput, match=due) as refused:
        contract(text)
    assert CONTRACT in str(refused.value)


def test_another_file_is_never_taken_silently(folder: Path) -> None:
    own = contract()
    own.check_source("own.csv", None)
    own.check_source(str(folder / "home" / ".." / "own.csv"), None)
    with pytest.raises(InvalidInput, match=r"--data names other.csv, but .*hanse.toml names .*own.csv. Edit"):
        own.check_source("other.csv", None)
    with pytest.raises(InvalidInput, match="--data names share"):
        own.check_source("share", None)
    with pytest.raises(InvalidInput, match=r"--test names t\.csv, but .* names no test file"):
        own.check_source(None, "t.csv")
    (folder / "own.toml").write_text('data = {name = "csv", path = "own.csv", decimal = ","}')
    with pytest.raises(InvalidInput, match=r'own\.toml says decimal = ","'):
        own.check_source("own.toml", None)


def test_a_proposal_allows_what_a_run_wants_and_no_name(folder: Path) -> None:
    parties, file = Parties(), Path("home", CONTRACT)
    found = propose("own.csv", file, parties.wanted(plan(drop=("name", "crp"))))
    own: Any = found.contract.reader
    assert (own.label, own.classes, own.numeric, own.categorical) == (
        "ill",
        ("no", "yes"),
        ("age",),
        ("job",),
    )
    assert (found.num_rows, found.contract.min_rows, found.unsure) == (60, 30, ())
    free: Any = propose("own.csv", file).contract.reader
    assert (free.numeric, free.categorical) == (("age", "crp"), ("job",))
    assert any("nothing says that 'ill'" in line for line in propose("own.csv", file).unsure)
    assert propose("own.csv", file, label="ill").unsure == ()
    named = propose("own.csv", file, parties.wanted(plan(drop=(), categorical=("name",))))
    assert any("'name' seems to identify" in line for line in named.notes)
    with pytest.raises(Forbidden, match=r"uses the column 'name' \(categories\)"):
        named.contract.check(parties.wanted(plan(drop=(), categorical=("name",))))


def test_what_is_written_is_read_again(folder: Path) -> None:
    where = 'where = [{column = "age", at_least = 40.5}, {column = "name", among = ["a", "b"]}]\n'
    own = contract('test = "../test.csv"\n' + where + WRITTEN.replace("20", "7"))
    path = folder / "home" / "copy.toml"
    replace(own, file=path).write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert replace(Contract.read(path), file=own.file) == own
    assert all(len(line) <= 80 or "=" in line for line in path.read_text().splitlines())
    with pytest.raises(FileExistsError):
        replace(own, file=path).write()


def test_arrays_have_a_contract_too(folder: Path) -> None:
    draws = np.random.default_rng(0)
    x, y, age = draws.normal(size=(40, 3)), np.arange(40) % 3, np.arange(40.0)
    np.savez("own.npz", scans=x, kinds=y, age=age)
    np.savez("theirs.npz", x=x, y=y)
    data = npz("theirs.npz", test_fraction=0.0)
    given = plan_of(prepare_run(Experiment(data=data, partition=iid(1), model=softmax(), evaluate_every=0)))
    label = propose("own.npz", Path("home", CONTRACT), Parties().wanted(given), "kinds")
    own: Any = label.contract.reader
    assert (own.x, own.y, own.num_classes) == ("scans", "kinds", 3)
    chosen = replace(
        label.contract, where=contract('where = [{column = "age", at_least = 10}]' + WRITTEN).where
    )
    assert np.array_equal(opened(chosen, given).y, y[10:])
    four = replace(chosen, reader=replace(own, num_classes=4))
    with pytest.raises(Forbidden, match="the run learns 3 classes; the labels here are 4 classes"):
        opened(four, given)
    with pytest.raises(Forbidden, match="uses arrays; the data here are a table of columns"):
        opened(contract(), given)


BAD = {
    "a column is missing": (
        "age,crp,ill\n1,2,yes\n3,4,no\n",
        "no column 'job'; the run wants ill, age, crp, job",
    ),
    "two columns have one name": ("age,age,job,ill\n1,2,cook,yes\n", "two columns are called 'age'"),
    "it is empty": ("", "is empty; give a line of column names"),
    "it has no rows": (HEAD + "\n", "holds column names and no rows"),
    "a label that the run does not know": (
        HEAD + "\n1,2,cook,maybe,x\n",
        "bad.csv, line 2: column 'ill' holds no class of the run",
    ),
}


@pytest.mark.parametrize(("content", "due"), BAD.values(), ids=BAD)
def test_a_file_that_can_not_be_used_is_named(content: str, due: str, folder: Path) -> None:
    wanted = Parties().wanted(plan())
    (folder / "bad.csv").write_text(content)
    with pytest.raises(InvalidInput, match=due):
        propose("bad.csv", Path("home", CONTRACT), wanted)
    assert not (folder / "home" / CONTRACT).exists()


def test_two_columns_of_one_name_in_parquet(folder: Path) -> None:
    arrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table([[1, 2], [3, 4], ["yes", "no"]], names=["age", "age", "ill"])
    files.write_table(table, folder / "twice.parquet")
    with pytest.raises(InvalidInput, match="two columns are called 'age'"):
        propose("twice.parquet", Path("home", CONTRACT), label="ill")


def test_a_label_of_one_class_is_said(folder: Path) -> None:
    """Where a run knows more classes it is a note; without a run nothing could be learned."""
    (folder / "one.csv").write_text("\n".join([HEAD, *(row(3 * i) for i in range(20)), ""]))
    file = Path("home", CONTRACT)
    found = propose("one.csv", file, Parties().wanted(plan()))
    own: Any = found.contract.reader
    assert (own.classes, found.unsure) == (("no", "yes"), ())
    assert any("one class only, 'no'" in line for line in found.notes)
    assert any("nothing can be learned" in line for line in propose("one.csv", file, label="ill").unsure)


def test_the_classes_are_to_be_agreed_on_and_others_are_refused(folder: Path) -> None:
    """A file's own classes are a guess at those of all; the place to write them is named."""
    (folder / "own.csv").write_text("\n".join([HEAD, *(row(i) for i in range(60)), "9,9,cook,maybe,z", ""]))
    found = propose("own.csv", Path("home", CONTRACT), label="ill")
    assert any(
        "'maybe', 'no', 'yes' are this file's: agree on them" in line and f"classes in {Path('home')}" in line
        for line in found.notes
    )
    found.contract.write()
    assert "its values at all parties: agree on them" in Path("home", CONTRACT).read_text()
    written = Contract.at(Path("home"))
    assert written is not None
    (folder / "theirs.csv").write_text("\n".join([HEAD, *(row(i) for i in range(60)), ""]))
    with pytest.raises(
        Forbidden, match=r"if no row here is 'maybe'; or let the coordinator add it"
    ) as refused:
        opened(written, plan("theirs.csv"))
    assert 'classes = ["no", "yes"]' in str(refused.value)
    reader = replace(written.reader, classes=("no", "yes"))
    with pytest.raises(
        InvalidInput, match=r"line 62: column 'ill' holds no class .*; the classes are 'no', 'yes'"
    ):
        opened(replace(written, reader=reader), plan("theirs.csv"))


def test_numbers_of_patients_never_become_features(folder: Path) -> None:
    for write, group in ((lambda i: f"{i:06}", None), (lambda i: f"{i // 2:06}", "patient_no")):
        lines = [f"{write(i)},{i % 7},{'ny'[i % 2]}" for i in range(120)]
        (folder / "own.csv").write_text("\n".join(["patient_no,age,ill", *lines, ""]))
        found = propose("own.csv", Path("home", CONTRACT), label="ill")
        own: Any = found.contract.reader
        assert (own.group, own.numeric, own.categorical) == (group, ("age",), ())
        assert any("'patient_no' seems to" in line for line in found.notes)


def test_another_encoding_and_decimal_comma_are_found(folder: Path) -> None:
    text = "\n".join(
        [HEAD.replace(",", ";"), *(row(i).replace(",", ";").replace(".", ",") for i in range(60))]
    )
    (folder / "latin.csv").write_bytes(text.replace("cook", "köch").encode("latin-1"))
    found = propose("latin.csv", Path("home", CONTRACT), label="ill")
    own: Any = found.contract.reader
    assert (own.encoding, own.decimal, found.num_rows) == ("cp1252", ",", 60)
    found.contract.write()
    (folder / "utf.csv").write_text(text.replace("cook", "köch").replace(",", ".").replace(";", ","))
    given = plan("utf.csv")
    found_again = Contract.at(Path("home"))
    assert found_again is not None
    assert np.array_equal(opened(found_again, given).x, Parties().data("utf.csv", 0)(given).x)
