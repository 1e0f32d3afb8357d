"""Users' own algorithms and transforms, named in settings files, through every command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import PIPE, python
from own_code import forget, forget_imports
from typer.testing import CliRunner

import hanse
from hanse.cli.commands import app
from hanse.core.exchange import Record
from hanse.imports import inspect_import
from hanse.store import Runs

Hanse = Callable[..., Any]

USERS = Path(__file__).parents[1] / "users"

SETTINGS = """
imports = ["lib/own_fair.py", "lib/own_ternary.py"]
rounds = 3
partition = {name = "iid", num_clients = 6}

[algorithm]
name = "own_q_fed_avg"
q = 0.5
rates = {lr = 0.05, fraction = 0.5}
uplink = ["own_ternary"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder: settings, and code below it."""
    monkeypatch.setenv("HANSE_STORE", str(tmp_path / "store.db"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(USERS, tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mine.toml").write_text(SETTINGS, encoding="utf-8")
    with forget_imports(tmp_path):
        yield tmp_path


@pytest.fixture
def cli(folder: Path) -> Hanse:
    """Run a command as a new process would, which knows nothing of what others have imported."""

    def perform(*arguments: str, code: int = 0) -> Any:
        forget(folder)
        done = CliRunner().invoke(app, arguments, prog_name="hanse")
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done

    return perform


def only_object(done: Any) -> dict[str, Any]:
    return dict(json.loads(done.stdout))


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def from_python(folder: Path, rounds: int = 3, **options: Any) -> hanse.Result:
    """Run the same experiment, written in Python."""
    sys.path.append(str(folder / "lib"))
    from own_fair import own_q_fed_avg  # type: ignore[import-not-found]
    from own_ternary import own_ternary  # type: ignore[import-not-found]

    algorithm = own_q_fed_avg(q=0.5, rates={"lr": 0.05, "fraction": 0.5}, uplink=(own_ternary(),))
    return hanse.run(algorithm=algorithm, partition=hanse.data.iid(6), rounds=rounds, **options)


def interrupt_after(round: int) -> Callable[[Record], None]:
    def watch(record: Record) -> None:
        if record.round == round:
            raise KeyboardInterrupt

    return watch


def begin(folder: Path, until: int = 1) -> str:
    """Begin a run of the settings that is interrupted."""
    forget(folder)
    with pytest.raises(hanse.Interrupted) as caught:
        hanse.perform(hanse.read("mine.toml"), store="store.db", watch=interrupt_after(until))
    return str(caught.value.result.run)


# -- each command ------------------------------------------------------------------------------


def test_run_names_an_own_algorithm_with_the_bits_of_python(cli: Hanse, folder: Path) -> None:
    result = only_object(cli("run", "mine.toml", "--json"))
    assert result["status"] == "completed"
    forget(folder)
    assert result["params_sha256"] == from_python(folder).params_sha256
    plain = only_object(cli("run", "mine.toml", "--json", "--set", "algorithm.uplink=[]"))
    assert plain["params_sha256"] != result["params_sha256"]
    assert plain["bytes_up"] > 1.9 * result["bytes_up"]


def test_run_takes_the_module_as_an_option(cli: Hanse, folder: Path) -> None:
    named = only_object(cli("run", "mine.toml", "--json"))["params_sha256"]
    edit(folder / "mine.toml", 'imports = ["lib/own_fair.py", "lib/own_ternary.py"]', "")
    why = cli("run", "mine.toml", code=2).stderr
    assert '"own_q_fed_avg", which names no algorithm' in why.replace("\n", " ")
    assert 'imports = ["FILE.py"], or --import FILE.py' in why
    options = ("--import", "lib/own_fair.py", "--import", "lib/own_ternary.py")
    assert only_object(cli("run", "mine.toml", "--json", *options))["params_sha256"] == named


def test_settings_are_found_from_any_folder(
    cli: Hanse, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert only_object(cli("run", "../mine.toml", "--json"))["status"] == "completed"


def test_worker_processes_have_the_imports(cli: Hanse) -> None:
    one, two = (
        only_object(
            cli("run", "mine.toml", "--json", "--set", f'execution={{name="sequential", num_workers={n}}}')
        )
        for n in (1, 2)
    )
    assert two["executions"] != one["executions"]
    assert two["params_sha256"] == one["params_sha256"]


def test_plan_shows_what_an_own_transform_sends(cli: Hanse) -> None:
    plan = only_object(cli("plan", "mine.toml", "--json"))
    assert "own_ternary()" in json.dumps(plan)
    assert "own_q_fed_avg(q=0.5, rates={'lr': 0.05, 'fraction': 0.5}" in " ".join(
        cli("plan", "mine.toml").stdout.split()
    )


def test_data_describe_takes_own_code(cli: Hanse) -> None:
    assert only_object(cli("data", "describe", "mine.toml", "--json"))["num_clients"] == 6


def test_sweep_varies_entries_of_a_mapping(cli: Hanse, folder: Path) -> None:
    """In processes of their own and in this one; asked again, it performs none until the code has changed."""
    (folder / "sweep.toml").write_text(SETTINGS + '\n[sweep.over]\n"algorithm.rates.lr" = [0.05, 0.1]\n')
    result = only_object(cli("sweep", "sweep.toml", "--json", "--workers", "2"))
    assert result["num_completed"] == 2
    swept = {info.settings["sweep"]["algorithm.rates.lr"]: info for info in Runs("store.db").infos()}
    by_hand = only_object(cli("run", "mine.toml", "--json", "--set", "algorithm.rates.lr=0.1"))
    assert swept[0.1].result is not None
    assert swept[0.1].result["params_sha256"] == by_hand["params_sha256"]
    assert swept[0.05].settings["imports"] == Runs("store.db").info(by_hand["run"]).settings["imports"]
    assert only_object(cli("sweep", "sweep.toml", "--json", "--workers", "1"))["num_completed"] == 2
    assert len(Runs("store.db").infos()) == 3
    edit(folder / "lib" / "own_norms.py", "float(dot", "1.5 * float(dot")
    again = only_object(cli("sweep", "sweep.toml", "--json", "--workers", "1"))
    assert len(Runs("store.db").infos()) == 5
    (note,) = [note for note in again["notes"] if "other code" in note]
    assert "2 of the runs that are kept were made with other code, and are performed again" in note
    assert "own_norms.py has changed" in note


def test_show_and_report_work_with_and_without_the_code(cli: Hanse, folder: Path) -> None:
    run = only_object(cli("run", "mine.toml", "--json"))["run"]
    digest = inspect_import("lib/own_fair.py", folder).digest
    shown = cli("show", run)
    assert "own_q_fed_avg(q=0.5, rates=" in shown.stdout
    assert f"lib/own_fair.py, file, {digest}" in shown.stdout.replace("\n", "")
    assert shown.stderr == ""
    (imported, other) = only_object(cli("show", run, "--json"))["imports"]
    assert (imported["name"], imported["digest"]) == ("lib/own_fair.py", digest)
    assert set(imported["files"]) == {"own_fair.py", "own_norms.py"}
    assert other["name"] == "lib/own_ternary.py"
    assert "own_q_fed_avg" in cli("ls").stdout
    cli("report", run, "--to", "page", "--no-images")
    assert "own_q_fed_avg" in (folder / "page" / "index.html").read_text()

    (folder / "lib").rename(folder / "moved")
    shown = cli("show", run)
    assert "completed" in shown.stdout
    said = " ".join(shown.stderr.split())
    assert "lib/own_fair.py, which can't be imported" in said
    assert "--import PATH/own_fair.py" in said
    assert "own_fair" in cli("report", run, "--to", "page", "--no-images").stderr
    assert cli("ls").stderr == ""
    moved = ("--import", "moved/own_fair.py", "--import", "moved/own_ternary.py")
    assert cli("show", run, *moved).stderr == ""
    assert "no 'gone.py'" in " ".join(cli("show", run, "--import", "gone.py", code=2).stderr.split())


def test_compare_imports_the_code_of_each_run(cli: Hanse) -> None:
    runs = [only_object(cli("run", "mine.toml", "--json", "--set", f"seed={s}"))["run"] for s in (1, 2)]
    assert cli("compare", *runs, "--to", "page", "--no-images").stderr == ""


def test_replay_does_the_work_of_own_code_again(cli: Hanse, folder: Path) -> None:
    run = only_object(cli("run", "mine.toml", "--json"))["run"]
    asked = ("replay", run, "--round", "2", "--client", "0")
    done = next(
        done
        for client in range(6)
        if (done := CliRunner().invoke(app, [*asked[:-1], str(client), "--json"])).exit_code == 0
    )
    assert only_object(done)["remark"] == "the round came out as it is recorded: the same metrics and bytes"
    assert only_object(done)["replayed"][0]["work"].startswith("fair_step(")


def test_doctor_shows_what_a_module_registers(cli: Hanse, folder: Path) -> None:
    (found,) = only_object(cli("doctor", "--import", "lib/own_fair.py", "--json"))["imports"]
    assert found["registers"] == ["FairState", "fair_step", "own_q_fed_avg"]
    assert found["digest"] == inspect_import("lib/own_fair.py", folder).digest
    shown = cli("doctor", "--import", "lib/own_fair.py").stdout
    assert found["digest"] in shown.replace("\n", "")
    assert "own_norms.py" in shown


def test_a_process_of_its_own_runs_own_code(folder: Path) -> None:
    """The real command, with the interpreter's warnings as errors."""
    env = {**os.environ, "PYTHONPATH": str(Path(hanse.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-m", "hanse", "run", "mine.toml", "--json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["params_sha256"] == from_python(folder).params_sha256


# -- changed code ------------------------------------------------------------------------------


def test_resume_goes_on_with_the_same_code(cli: Hanse, folder: Path) -> None:
    whole = only_object(cli("run", "mine.toml", "--json"))["params_sha256"]
    run = begin(folder)
    assert only_object(cli("resume", run, "--json"))["params_sha256"] == whole
    assert "accepted_imports" not in only_object(cli("show", run, "--json"))


def test_resume_refuses_changed_code_unless_it_is_accepted(cli: Hanse, folder: Path) -> None:
    run = begin(folder)
    edit(folder / "lib" / "own_norms.py", "float(dot", "1.5 * float(dot")
    refused = " ".join(cli("resume", run, code=2).stderr.split())
    assert f"run {run} began with other code: own_norms.py has changed. Put back the code" in refused
    assert "--accept-changed-imports" in refused
    assert "own_fair" not in sys.modules
    assert Runs("store.db").info(run).rounds == 1
    result = only_object(cli("resume", run, "--json", "--accept-changed-imports"))
    assert result["status"] == "completed"
    info = Runs("store.db").info(run)
    (entry,) = info.settings["accepted_imports"]
    (change,) = entry["changes"]
    now = inspect_import("lib/own_fair.py", folder).digest
    assert (entry["command"], entry["round"]) == ("resume", 1)
    assert (change["name"], change["now"], change["what"]) == (
        "lib/own_fair.py",
        now,
        "own_norms.py has changed",
    )
    assert info.settings["imports"][0]["digest"] == now != change["before"]
    shown = " ".join(cli("show", run).stdout.split())
    assert "accepted own_norms.py has changed (sha256:" in shown
    assert "by resume after round 1" in shown


def test_accepted_code_need_not_be_accepted_again(cli: Hanse, folder: Path) -> None:
    run = begin(folder)
    edit(folder / "lib" / "own_norms.py", "float(dot", "1.5 * float(dot")
    forget(folder)
    with hanse.runs.resume_session(run, store="store.db", accept_changed_imports=True):
        pass
    assert only_object(cli("resume", run, "--json"))["status"] == "completed"


def test_a_moved_module_is_resumed_where_it_is_now(cli: Hanse, folder: Path) -> None:
    whole = only_object(cli("run", "mine.toml", "--json"))["params_sha256"]
    run = begin(folder)
    (folder / "lib").rename(folder / "moved")
    refused = " ".join(cli("resume", run, code=2).stderr.split())
    assert "lib/own_fair.py, which can't be imported" in refused
    assert "--import PATH/own_fair.py" in refused
    moved = ("--import", "moved/own_fair.py", "--import", "moved/own_ternary.py")
    assert only_object(cli("resume", run, "--json", *moved))["params_sha256"] == whole
    assert cli("show", run).stderr == ""  # the run knows the new place


def test_replay_refuses_changed_code_unless_it_is_accepted(cli: Hanse, folder: Path) -> None:
    run = only_object(cli("run", "mine.toml", "--json", "--set", "algorithm.rates.fraction=1.0"))["run"]
    edit(folder / "lib" / "own_ternary.py", "np.sign(x) * kept", "np.sign(x) * ~kept")
    asked = ("replay", run, "--round", "1", "--client", "0", "--json")
    assert "own_ternary.py has changed" in " ".join(cli(*asked, code=2).stderr.split())
    assert "accepted_imports" not in Runs("store.db").info(run).settings
    assert "NOT come out" in only_object(cli(*asked, "--accept-changed-imports"))["remark"]
    settings = Runs("store.db").info(run).settings
    assert [entry["command"] for entry in settings["accepted_imports"]] == ["replay"]
    cli(*asked, code=2)  # the run itself was performed with the code that it began with


def test_a_sweep_stops_where_the_code_changes_under_it(cli: Hanse, folder: Path) -> None:
    asked = hanse.sweeps.read_sweep("mine.toml", ["sweep.seeds=[1]", "sweep.over.rounds=[2]"])
    plan = hanse.sweeps.plan_sweep(asked, "store.db")
    edit(folder / "lib" / "own_norms.py", "float(dot", "1.5 * float(dot")
    with pytest.raises(hanse.InvalidInput, match="is not what this process imported"):
        hanse.read("mine.toml")
    result = plan.perform(1)
    (failed,) = result.failures
    assert "'lib/own_fair.py' has changed since the run began: own_norms.py has changed" in str(failed.reason)


def test_a_run_whose_code_was_not_recorded_says_how_to_name_it(cli: Hanse, folder: Path) -> None:
    """As for classes that were typed into a notebook."""
    run = begin(folder)
    runs = Runs("store.db")
    runs.amend(run, lambda settings: {k: v for k, v in settings.items() if k != "imports"})
    assert cli("show", run).stderr == ""
    for command in (("resume", run), ("release", run, "--to", "out")):
        assert "--import FILE.py" in " ".join(cli(*command, code=2).stderr.split()), command
    options = ("--import", "lib/own_fair.py", "--import", "lib/own_ternary.py")
    assert only_object(cli("resume", run, "--json", *options))["status"] == "completed"


def test_show_says_that_code_has_changed(cli: Hanse, folder: Path) -> None:
    run = only_object(cli("run", "mine.toml", "--json"))["run"]
    edit(folder / "lib" / "own_norms.py", "float(dot", "1 / 0 + float(dot")
    shown = cli("show", run)
    assert "began with other code: own_norms.py has changed" in " ".join(shown.stderr.split())
    assert "own_fair" not in sys.modules


# -- releases ----------------------------------------------------------------------------------

MODEL = """
from hanse.core import Learner, value
from hanse.learners import Model, softmax


@value
class own_model(Model):
    l2: float = 0.0

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        return softmax(l2=self.l2).bind(feature_shape, num_classes)
"""


def test_a_release_names_the_code_that_its_model_needs(cli: Hanse, folder: Path) -> None:
    (folder / "lib" / "own_model.py").write_text(MODEL)
    edit(folder / "mine.toml", '"lib/own_fair.py"', '"lib/own_fair.py", "lib/own_model.py"')
    run = only_object(cli("run", "mine.toml", "--json", "--set", 'model={name="own_model", l2=0.01}'))["run"]
    cli("release", run, "--to", "out")
    about = json.loads((folder / "out" / "model.json").read_text())
    digest = inspect_import("lib/own_model.py", folder).digest
    assert [(need["name"], need["digest"]) for need in about["imports"]] == [("own_model.py", digest)]
    assert str(folder) not in (folder / "out" / "model.json").read_text()
    assert not list((folder / "out").rglob("*.py"))
    assert "hanse predict . DATA.csv --import own_model.py" in (folder / "out" / "README.md").read_text()

    data = hanse.data.digits().load().test
    assert data is not None
    np.savez(folder / "rows.npz", x=data.x[:20], y=data.y[:20])
    refused = " ".join(cli("predict", "out", "rows.npz", code=2).stderr.split())
    assert f"needs own_model.py ({digest}), which a release does not contain" in refused
    assert "if you have it and trust it, write --import own_model.py" in refused
    assert "own_model" not in sys.modules
    found = cli("predict", "out", "rows.npz", "--import", "lib/own_model.py")
    assert found.stdout.startswith("row,prediction,probability,probability_0,")
    assert len(found.stdout.splitlines()) == 21

    edit(folder / "lib" / "own_model.py", "l2=self.l2", "l2=2 * self.l2")
    asked = ("predict", "out", "rows.npz", "--import", "lib/own_model.py")
    refused = " ".join(cli(*asked, code=2).stderr.split())
    assert "was made with other code than lib/own_model.py: own_model.py has changed" in refused
    assert "own_model" not in sys.modules
    assert cli(*asked, "--accept-changed-imports").stdout == found.stdout


def test_a_release_of_our_model_needs_no_code(cli: Hanse, folder: Path) -> None:
    """It was trained by an algorithm of the user's own, which predictions do without."""
    run = only_object(cli("run", "mine.toml", "--json"))["run"]
    cli("release", run, "--to", "out")
    assert json.loads((folder / "out" / "model.json").read_text())["imports"] == []
    shutil.rmtree(folder / "lib")
    np.savez(folder / "rows.npz", x=np.zeros((2, 8, 8)))
    assert len(cli("predict", "out", "rows.npz").stdout.splitlines()) == 3


def test_release_needs_the_code_of_the_run(cli: Hanse, folder: Path) -> None:
    run = only_object(cli("run", "mine.toml", "--json"))["run"]
    edit(folder / "lib" / "own_norms.py", "float(dot", "1.5 * float(dot")
    assert "own_norms.py has changed" in " ".join(cli("release", run, "--to", "out", code=2).stderr.split())
    cli("release", run, "--to", "out", "--accept-changed-imports")
    assert "accepted by `hanse release` after round 3: own_norms.py has changed." in (
        folder / "out" / "README.md"
    ).read_text(encoding="utf-8")
    accepted = Runs("store.db").info(run).settings["accepted_imports"]
    assert [entry["command"] for entry in accepted] == ["release"]


# -- from Python -------------------------------------------------------------------------------


def test_a_run_from_python_records_its_modules(cli: Hanse, folder: Path) -> None:
    with pytest.raises(hanse.Interrupted) as caught:
        from_python(folder, store="store.db", watch=interrupt_after(1))
    run = str(caught.value.result.run)
    kept = Runs("store.db").info(run).settings
    assert "imports" not in kept["experiment"]
    assert [found["name"] for found in kept["imports"]] == ["own_fair.py", "own_ternary.py"]
    whole = only_object(cli("run", "mine.toml", "--json"))["params_sha256"]
    assert only_object(cli("resume", run, "--json"))["params_sha256"] == whole


SCRIPT = """
import sys
import hanse
sys.path.append("lib")
from own_fair import own_q_fed_avg

from hanse.core import value

@value
class own_scripted(own_q_fed_avg):
    pass

def watch(record):
    if record.round == (1 if len(sys.argv) == 1 else 2):
        raise KeyboardInterrupt

if __name__ == "__main__" and len(sys.argv) > 1:
    try:
        hanse.resume(sys.argv[1], store="store.db", watch=watch)
    except hanse.Interrupted as stop:
        print(stop.result.rounds)
elif __name__ == "__main__":
    try:
        about = {"partition": hanse.data.iid(6), "rounds": 3, "store": "store.db"}
        hanse.run(algorithm=own_scripted(), watch=watch, **about)
    except hanse.Interrupted as stop:
        print(stop.result.run)
"""


def test_a_run_of_a_script_is_shown_and_resumed_with_it(cli: Hanse, folder: Path) -> None:
    (folder / "train.py").write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(Path(hanse.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    run = done.stdout.strip()
    said = " ".join(cli("show", run).stderr.split())
    assert f"run {run} was begun by the script train.py, whose classes it uses" in said
    assert "train" not in sys.modules
    assert cli("show", run, "--import", "train.py", "--import", "lib/own_fair.py").stderr == ""
    assert "--import PATH/train.py" in " ".join(cli("resume", run, code=2).stderr.split())
    options: dict[str, Any] = {"cwd": folder, "env": env, "stdout": PIPE, "stderr": PIPE}
    assert python("train.py", run, **options).communicate(60)[0].strip() == "2"
    result = only_object(cli("resume", run, "--json", "--import", "train.py"))
    assert result["status"] == "completed"
    edit(folder / "train.py", "    pass", "    pass  # changed")
    _, said = python("train.py", run, **options).communicate(60)
    assert "train.py has changed. Put back the code that it began with" in said
    assert "accept_changed_imports=True" in said


# -- settings ----------------------------------------------------------------------------------


def test_a_module_that_registers_nothing_is_noted(cli: Hanse, folder: Path) -> None:
    done = cli("run", "--set", "rounds=1", "--import", "lib/own_norms.py")
    assert "own_norms.py marks no class with @hanse.core.value" in " ".join(done.stderr.split())
    with pytest.warns(UserWarning, match=r"own_norms\.py marks no class"):
        hanse.read(None, imports=["lib/own_norms.py"])


def test_set_replaces_the_imports_of_a_file(cli: Hanse, folder: Path) -> None:
    edit(folder / "mine.toml", "lib/own_fair.py", "lib/gone.py")
    sets = ("--set", 'imports=["lib/own_fair.py", "lib/own_ternary.py"]', "--set", "rounds=1")
    assert only_object(cli("run", "mine.toml", "--json", *sets))["status"] == "completed"
    why = cli("run", "mine.toml", "--set", 'imports=["lib/none.py"]', code=2).stderr
    assert "--set imports: there is no 'lib/none.py'" in " ".join(why.split())


def test_imports_are_not_swept(cli: Hanse) -> None:
    why = cli("sweep", "mine.toml", "--set", 'sweep.over.imports=[["a.py"]]', code=2).stderr
    assert "sweep.over.imports: all runs have the same code; write imports at the top level" in " ".join(
        why.split()
    )


def test_settings_from_elsewhere_import_nothing(folder: Path) -> None:
    """As those of a plan that a server sent, or of a store."""
    settings = hanse.Experiment().settings() | {"imports": ["lib/own_fair.py"]}
    assert hanse.Experiment.from_settings(settings).imports == ()
    assert "own_fair" not in sys.modules
    with pytest.raises(hanse.InvalidInput, match="in Python, import your modules yourself"):
        hanse.Experiment(imports=("lib/own_fair.py",))  # type: ignore[arg-type]


def test_a_served_run_records_its_code(folder: Path) -> None:
    from hanse.runs import Parties

    job = Parties().job(folder / "mine.toml", ["rounds=1"])
    assert [found["name"] for found in job.settings["imports"]] == [  # type: ignore[index]
        "lib/own_fair.py",
        "lib/own_ternary.py",
    ]
    other = Parties().job(
        folder / "mine.toml", ["imports=[]", "algorithm=fed_avg"], ["lib/own_norms.py"], [].append
    )
    assert [found["name"] for found in other.settings["imports"]] == ["lib/own_norms.py"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('imports = ["lib/gone.py"]', "mine.toml: imports: there is no 'lib/gone.py' in "),
        ('imports = "lib/own_fair.py"', 'mine.toml: imports is the string "lib/own_fair.py"; write a list'),
        ('imports = ["lib/random.py"]', "has the name of Python's own module 'random'; rename yours"),
        ('imports = ["lib/own_broken.py"]', "lib/own_broken.py, line 3: ZeroDivisionError: division by zero"),
        (
            'imports = ["lib/own_clip.py"]',
            "two classes are called 'clip': hanse.transforms.clip.clip and own_clip.clip",
        ),
    ],
)
def test_unusable_imports_are_refused_with_a_cure(cli: Hanse, folder: Path, said: str, why: str) -> None:
    (folder / "lib" / "random.py").touch()
    (folder / "lib" / "own_broken.py").write_text("\n\n1 / 0\n")
    (folder / "lib" / "own_clip.py").write_text("from hanse.core import value\n@value\nclass clip: pass\n")
    (folder / "mine.toml").write_text(said)
    for command in ("run", "plan", "sweep"):
        extra = ("--set", "sweep.over.rounds=[1, 2]") if command == "sweep" else ()
        assert why in " ".join(cli(command, "mine.toml", *extra, code=2).stderr.split())


def test_stored_settings_as_toml_give_the_run_again(cli: Hanse, folder: Path) -> None:
    first = only_object(cli("run", "mine.toml", "--json"))
    settings = Runs("store.db").info(first["run"]).settings["experiment"]
    (folder / "again.toml").write_text(hanse.config.as_toml(settings))
    assert only_object(cli("run", "again.toml", "--json"))["params_sha256"] == first["params_sha256"]
