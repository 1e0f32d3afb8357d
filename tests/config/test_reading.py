"""Settings files and --set: the values that they give, and the messages about mistakes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hanse.algorithms import adamw, fed_avg, fed_sgd, scaffold, sgd, uniform
from hanse.config.experiment import Experiment
from hanse.config.reading import read
from hanse.core import InvalidInput, Key, PartyId, Stop, value
from hanse.core import sum as sum_
from hanse.data import csv, iid
from hanse.learners import softmax
from hanse.simulation import Devices, unstable
from hanse.transforms import clip

FULL = """
rounds = 7
seed = 3
evaluate_every = 2
data = "digits"

[partition]
name = "iid"
num_clients = 10

[model]
l2 = 1

[algorithm]
lr = 0.3
weighting = "uniform"
uplink = [{name = "clip", max_norm = 1.0}]

[algorithm.close]
minimum_fraction = 0.1

[stop]
metric = "loss"
target = 0.5

[devices]
name = "unstable"
fraction = 0.1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.toml"


def test_nothing_said_is_the_default() -> None:
    assert read() == Experiment()


def test_a_file_says_everything(file: Path) -> None:
    file.write_text(FULL)
    experiment = read(file)
    assert experiment.partition == iid(10)
    assert experiment.model == softmax(l2=1.0)
    assert experiment.stop == Stop("loss", 0.5)
    assert experiment.devices == unstable(0.1)
    assert (experiment.rounds, experiment.seed, experiment.evaluate_every) == (7, 3, 2)
    algorithm = experiment.algorithm
    assert isinstance(algorithm, fed_avg)
    assert (algorithm.lr, algorithm.epochs) == (0.3, 5)  # what the file leaves out stays the default's
    assert (algorithm.weighting, algorithm.uplink) == (uniform(), (clip(1.0),))
    assert algorithm.close.minimum_fraction == 0.1


def test_settings_read_their_own_writing(file: Path) -> None:
    file.write_text(FULL)
    experiment = read(file, ["algorithm.batch_size=none"])
    assert Experiment.from_settings(experiment.settings()) == experiment


def test_set_goes_over_the_file(file: Path) -> None:
    file.write_text('[algorithm]\nname = "scaffold"\nlr = 0.2\nepochs = 3\n')
    assert read(file).algorithm == scaffold(lr=0.2, epochs=3)
    assert read(file, ["algorithm.lr=0.7"]).algorithm == scaffold(lr=0.7, epochs=3)


@pytest.mark.parametrize(
    "sets",
    [
        ["algorithm=fed_sgd", "algorithm.into=sum"],
        ["algorithm.into=sum", "algorithm.name=fed_sgd"],
        ["algorithm={name='fed_sgd', into={name='sum'}}"],
    ],
)
def test_another_name_drops_the_first_ones_fields(sets: list[str]) -> None:
    assert read(None, sets).algorithm == fed_sgd(into=sum_())


@value
class with_rates(Devices):
    """A value with a mapping."""

    rates: Mapping[str, float]
    others: "Mapping[str, Any] | None" = None

    def __post_init__(self) -> None:
        if self.rates.get("a") == 0:
            raise ValueError("a is 0; write another")

    def duration_s(self, party: PartyId, key: Key) -> float | None:
        return 1.0


@value
class without_duration(Devices):
    """A value that its author has not finished."""


@value
class with_unknown_type(Devices):
    """A value whose types only the type checker knows."""

    rates: "Mapping[str, NotImported]"  # type: ignore[name-defined]  # noqa: F821

    def duration_s(self, party: PartyId, key: Key) -> float | None:
        return 1.0


def test_entries_of_a_mapping_can_be_written_and_set(file: Path) -> None:
    file.write_text('[devices]\nname = "with_rates"\n[devices.rates]\na = 1\n"b.c" = 2.0\n')
    assert read(file).devices == with_rates({"a": 1.0, "b.c": 2.0})
    sets = ["devices.rates.'b.c'=3", "devices.rates.d=4", "devices.others={x = [1]}"]
    assert read(file, sets).devices == with_rates({"a": 1.0, "b.c": 3.0, "d": 4.0}, {"x": (1,)})
    whole = read(file, ["devices={name='with_rates', rates={a=1}}", "devices.rates.e=5"]).devices
    assert whole == with_rates({"a": 1.0, "e": 5.0})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{name='with_rates', rates={a=0}}", "--set devices: a is 0; write another"),
        (
            "{name='with_rates', rates={'x.y'='z'}}",
            '--set devices.rates."x.y" is the string "z"; write a number',
        ),
        ("without_duration", "--set devices: without_duration can't be used yet, because it does not define"),
        (
            "{name='with_unknown_type', rates={}}",
            "--set devices: the types of with_unknown_type's fields can't be read: name 'NotImported' is not",
        ),
        (
            "zzz",
            '--set devices.name is "zzz", which names no devices; known: ',
        ),
    ],
)
def test_faults_of_own_values_are_explained(said: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(None, [f"devices={said}"])
    assert str(caught.value).startswith(message)
    cure = 'if it is your own, name its module: imports = ["FILE.py"], or --import FILE.py'
    assert (cure in str(caught.value)) == (said == "zzz")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("round=3", "--set round is unknown; did you mean rounds?"),
        ("lr=0.3", "--set lr is unknown; did you mean algorithm.lr?"),
        ("algoritm.lr=0.3", "--set algoritm is unknown; did you mean algorithm?"),
        ("algorithm.lrr=0.3", "--set algorithm.lrr is unknown; did you mean algorithm.lr?"),
        ("algorithm.l2=0.3", "--set algorithm.l2 is unknown; did you mean model.l2?"),
        (
            "algorithm.close.gaol=3",
            "--set algorithm.close.gaol is unknown; did you mean algorithm.close.goal?",
        ),
        ("algorithm.lr=fast", '--set algorithm.lr is the string "fast"; write a number, such as 0.1'),
        ("algorithm.lr=-1", "--set algorithm: lr is -1.0; write a step size above 0"),
        (
            "algorithm=fedavg",
            "--set algorithm.name is \"fedavg\", which names no algorithm; did you mean 'fed_avg'?",
        ),
        ("model=softmx", "--set model.name is \"softmx\", which names no model; did you mean 'softmax'?"),
        (
            "partition=dirichlt",
            "--set partition.name is \"dirichlt\", which names no partition; did you mean 'dirichlet'?",
        ),
        (
            "partition=iid",
            "--set partition.num_clients is missing; iid needs num_clients, such as num_clients = 1",
        ),
        ("rounds=2.5", "--set rounds is 2.5; write a whole number, such as 2"),
        ("rounds=0", "rounds is 0; write at least 1"),
        ("rounds.x=1", "--set rounds is a table; write a whole number, such as 10"),
        ("rounds", "--set 'rounds' is not an assignment; write key=value, such as algorithm.lr=0.3"),
        ("=3", "--set '=3' is not an assignment; write key=value, such as algorithm.lr=0.3"),
        ("algorithm.uplink=[{name='clip'", "--set algorithm.uplink: [{name='clip' is not TOML: "),
        ("data=arrays", "--set data: arrays can't be written in settings; give it in Python"),
    ],
)
def test_a_wrong_assignment_is_named(assignment: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(None, [assignment])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounds = 3\nseed = \n", ", line 2, column 8: not TOML: invalid value"),
        ("[algorithm", ", at its end: not TOML: "),
        ("[algorithm]\nlrr = 1\n", ": algorithm.lrr is unknown; did you mean algorithm.lr?"),
        ("[algorithm]\nlr = true\n", ": algorithm.lr is true; write a number, such as 0.1"),
        ("rounds = 0\n", ": rounds is 0; write at least 1"),
        ("when = 2026-01-01\n", ": when is unknown; the top level takes rounds, seed, "),
    ],
)
def test_a_wrong_file_is_named(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}{message}")


def test_who_said_it_is_said(file: Path) -> None:
    file.write_text('[algorithm]\nname = "fed_sgd"\n')
    with pytest.raises(InvalidInput, match=r"^--set algorithm\.epochs is unknown; fed_sgd takes"):
        read(file, ["algorithm.epochs=3"])
    file.write_text("[algorithm]\nepochs = 1.5\n")
    with pytest.raises(InvalidInput, match=r"run\.toml: algorithm\.epochs is 1\.5"):
        read(file, ["algorithm.lr=0.3"])


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no file '.*run\.toml'; there is no TOML file in"):
        read(file)
    file.with_name("runs.toml").touch()
    with pytest.raises(InvalidInput, match=r"did you mean 'runs\.toml'\?"):
        read(file)
    with pytest.raises(InvalidInput, match=r"there is no folder .* either"):
        read(file.parent / "nowhere" / "run.toml")


def test_a_file_that_is_no_text(file: Path) -> None:
    with pytest.raises(InvalidInput, match="can't be read: Is a directory"):
        read(file.parent)
    file.write_bytes(b"rounds = 3 \xff")
    with pytest.raises(InvalidInput, match="is not UTF-8 text, at byte 11"):
        read(file)


def test_a_client_takes_the_place_of_the_default_steps(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text('algorithm = {client = {name = "sgd", lr = 0.2, momentum = 0.9}}')
    assert read(path).algorithm == fed_avg(client=sgd(0.2, momentum=0.9))
    assert read(path, ["algorithm.client.lr=0.3"]).algorithm == fed_avg(client=sgd(0.3, momentum=0.9))
    sets = [
        "algorithm.client.name=adamw",
        "algorithm.client.lr=0.01",
        "algorithm.client.lr_scales={bias=0.5}",
    ]
    named = read(path, sets).algorithm
    assert named == fed_avg(client=adamw(0.01, lr_scales={"bias": 0.5}))


def test_a_value_with_its_name_replaces_what_was_there(tmp_path: Path) -> None:
    """So a file gives the values that the same words give in Python, whatever the defaults are."""
    path = tmp_path / "named.toml"
    for said, meant in (
        ('{name = "fed_avg"}', fed_avg()),
        ('"fed_avg"', fed_avg()),
        ('{name = "fed_avg", lr = 0.3}', fed_avg(lr=0.3)),
        ('{name = "fed_avg", client = {name = "sgd", lr = 0.2}}', fed_avg(client=sgd(0.2))),
    ):
        path.write_text(f"algorithm = {said}")
        assert read(path).algorithm == meant
        assert read(None, [f"algorithm={said}"]).algorithm == meant
    path.write_text('[data]\nname = "csv"\npath = "a.csv"\nlabel = "y"\nkey = "site"\ndelimiter = ";"')
    partition = "partition={name='iid', num_clients=2}"
    replaced = read(path, [partition, "data={name='csv', path='b.csv', target='z'}", "data.decimal=','"])
    assert replaced.data == csv("b.csv", target="z", decimal=",")
    changed = read(path, [partition, "data.name=csv", "data.path=b.csv"])
    assert changed.data == csv("b.csv", label="y", key="site", delimiter=";")
    with pytest.raises(InvalidInput, match=r"^--set data\.name is missing"):
        read(path, [partition, "data={path='b.csv'}"])


def test_none_takes_a_value_away(file: Path) -> None:
    file.write_text('[algorithm]\nname = "fed_avg"\nclient = {name = "adam", lr = 0.01}\n')
    assert read(file, ["algorithm.client=none"]).algorithm == fed_avg()
    file.write_text('[algorithm]\nname = "fed_avg"\nclient = "none"\n')
    assert read(file).algorithm == fed_avg()
    assert read(file, ["algorithm.client={name='sgd', lr=0.2}"]).algorithm == fed_avg(client=sgd(0.2))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "marked.toml"
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    path.write_bytes(f"{mark}rounds = 7  # für\r\nseed = 3\r\n".encode(encoding))
    assert (read(path).rounds, read(path).seed) == (7, 3)
    path.write_bytes("rounds = 7".encode("utf-16")[:-1])
    with pytest.raises(InvalidInput, match="is not UTF-16-LE text, at byte"):
        read(path)
