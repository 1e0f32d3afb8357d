"""Users' own code in a federation: each party has a copy, and its owner decides what is imported."""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import Federation, federation
from own_code import forget, forget_imports, write
from test_commands import command, done, same_bits, served
from test_leaks import Asks, joining, typed

from hanse.cli import app
from hanse.core import InvalidInput, Learner, MessageError, Work, value
from hanse.core.exchange import pack
from hanse.imports import Import, inspect_import
from hanse.learners import Model
from hanse.network.client import enrolment
from hanse.network.client.approved_imports import Contents, read_contents
from hanse.network.client.audit import AuditLog
from hanse.network.client.code_review import MOST_LINES, describe_code
from hanse.network.client.home import ClientHome
from hanse.network.client.own_imports import write_option
from hanse.network.client.policy import plan_digest
from hanse.network.protocol.errors import Forbidden
from hanse.network.protocol.sealed_plan import read_plan, seal_plan
from hanse.network.protocol.wire import PlanImport
from hanse.network.server.job import RunJob
from hanse.runs import Parties

USERS = Path(__file__).parents[1] / "users"
DOCS = Path(__file__).parents[2] / "docs"
TWO = 'rounds = 2\npartition = {name = "iid", num_clients = 2}\n'

SERVED = """
imports = ["lib/own_fair.py", "lib/own_ternary.py"]
rounds = 2
partition = {name = "iid", num_clients = 2}

[algorithm]
name = "own_q_fed_avg"
q = 0.5
rates = {lr = 0.05, fraction = 1.0}
uplink = ["own_ternary"]
"""

PLAIN = """
rounds = 1
partition = {name = "iid", num_clients = 1}
algorithm = {name = "fed_avg", lr = 0.1, fraction = 1.0}
"""

MARKED = """
from pathlib import Path

import own_helper

from hanse.core import value

Path(__file__).with_suffix(".ran").touch()


@value
class own_marked:
    number: int = 1
"""


TRAINING = """
def train(params, data, key, config):
    params["bias"] += config["step"] * key.rng().normal(size=params["bias"].shape)
    return None, None, {"size": len(data)}
"""

TRAINED = """
imports = ["lib/my_training.py", "lib/terngrad.py"]
rounds = 2
partition = {name = "iid", num_clients = 2}

[algorithm]
name = "fed_avg"
fraction = 1.0
uplink = ["terngrad", "deflate"]
client = {name = "trained_by", function = "my_training:train", config = {step = 0.1}, metrics = ["size"]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.toml").write_text(PLAIN)
    (tmp_path / "data.npz").mkdir()  # whoever opens it as a file fails
    monkeypatch.setattr(enrolment, "CHECK_S", 0.1)
    for place in ("server", "own"):
        copy(tmp_path / place)
    with forget_imports(tmp_path):
        yield tmp_path


def copy(folder: Path, helper: str = "ANSWER = 41\n") -> None:
    """Write a copy of a module, which leaves a mark beside itself when it is imported."""
    folder.mkdir(exist_ok=True)
    (folder / "own_marked.py").write_text(MARKED)
    (folder / "own_helper.py").write_text(helper)


def has_run(folder: Path) -> bool:
    return (folder / "own_marked.ran").exists()


def needed(folder: Path) -> PlanImport:
    """What a plan says of the module in a folder, which nothing imports here."""
    found = inspect_import("own_marked.py", folder)
    return PlanImport(found.name, found.kind, found.digest, found.files)


def served_job(*imports: PlanImport) -> RunJob:
    job = Parties().job(Path("app.toml"), ())
    return replace(job, plan=replace(job.plan, imports=imports))


@pytest.fixture
def here(folder: Path) -> Iterator[Federation]:
    """A server whose run imports the module in the folder "server"."""
    with federation(folder / "f", stay=True) as here:
        here.lead(served_job(needed(folder / "server")))
        yield here
        for run in here.server.led():
            run.mailbox.stop()


def policy(text: str) -> None:
    Path("client").mkdir(exist_ok=True)
    Path("client/policy.toml").write_text(text)


def allow(folder: Path) -> str:
    return f'imports = {{"own_marked.py" = "{needed(folder).digest}"}}'


def said_by(*words: str, code: int) -> str:
    """What a command says, in one line."""
    found, said = typed(*words)
    assert found == code, said
    assert "Traceback" not in said
    return " ".join(said.split())


def join(here: Federation, *words: str, opens: bool = False) -> str:
    """Type the line that the server has printed. The data can't be opened; `opens`: it is tried."""
    said = said_by(*joining(here, "--data", "data.npz", *words), code=2)
    assert not here.server.members.active("client")
    assert ("'data.npz' is a folder" in said) == opens, said
    return said


def approve(here: Federation, *words: str, answer: str = "y\n", code: int = 0) -> str:
    from typer.testing import CliRunner

    plan = plan_digest(read_plan(bytes.fromhex(here.server.plans()[-1])))
    asked = ["approve", plan[:16], "--home", "client", *words]
    given = CliRunner().invoke(app, asked, prog_name="hanse", input=answer)
    assert given.exit_code == code, given.output
    return given.output


# -- a whole run -------------------------------------------------------------------------------


def serve_to_two(folder: Path, settings: str, **files: str) -> None:
    """Serves settings that import files in "lib". Each owner has copies, and names them in the policy."""
    for place in ("lib", "hanse-client-0", "hanse-client-1"):
        write(folder / place, **files)
    named = [f'"{name}.py" = "{inspect_import(f"{name}.py", folder / "lib").digest}"' for name in files]
    server, asked = served(folder, settings, 2)
    clients = []
    for number, line in enumerate(asked):
        (folder / f"hanse-client-{number}" / "policy.toml").write_text(f"imports = {{{', '.join(named)}}}\n")
        words = [word.replace("FILE", "share") for word in line[: line.index("--import")]]
        clients.append(command(folder, *words))
    for client in clients:
        assert "over" in done(client)
    with forget_imports(folder):
        same_bits(folder, done(server))


def read_page(page: str) -> dict[str, str]:
    """Returns the module that a page tells a reader to save, by its name."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return dict(re.findall(r"^```python\n# file: (\w+)\.py\n(.*?)^```", text, re.M | re.S))


def test_the_algorithm_of_the_page_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = read_page("own-algorithm.md")
    assert list(files) == ["q_fed_avg"]
    fair = 'imports = ["lib/q_fed_avg.py"]\nalgorithm = {name = "q_fed_avg", q = 0.5, fraction = 1.0}\n'
    serve_to_two(tmp_path, TWO + fair, **files)


def test_a_training_function_and_the_transform_of_the_page_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = read_page("own-transform.md")
    assert list(files) == ["terngrad"]
    serve_to_two(tmp_path, TRAINED, my_training=TRAINING, **files)


def test_own_code_is_served_to_two_clients_in_the_bits_of_the_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One owner writes digests into policy.toml, the other one approves. Each has copies of its own."""
    monkeypatch.chdir(tmp_path)
    ignore = shutil.ignore_patterns("__pycache__")
    for place in ("lib", "hanse-client-0", "mine"):
        shutil.copytree(USERS, tmp_path / place, ignore=ignore)
    names = ("own_fair.py", "own_ternary.py")
    digests = {name: inspect_import(name, tmp_path / "lib").digest for name in names}
    server, asked = served(tmp_path, SERVED, 2)
    assert [word for word in asked[0] if word.startswith("PATH/")] == [f"PATH/{name}" for name in names]
    lines = [[w.replace("FILE", "share").replace("PATH/", "mine/") for w in line] for line in asked]
    plain = lines[0][: lines[0].index("--import")]
    (tmp_path / "hanse-client-0" / "policy.toml").write_text(
        "imports = {" + ", ".join(f'"{name}" = "{d}"' for name, d in digests.items()) + "}\n"
    )
    clients = [command(tmp_path, *plain)]
    refused = done(command(tmp_path, *lines[1]), 2)
    (line,) = re.findall(r"hanse (approve .*)", refused)
    words = line.replace("PATH/", "mine/").split()
    assert "own_norms.py: " in done(command(tmp_path, *words, "--yes"))
    clients.append(command(tmp_path, *lines[1][: lines[1].index("--import")]))
    for client in clients:
        assert "over" in done(client)
    with forget_imports(tmp_path):
        same_bits(tmp_path, done(server))
    for number in (0, 1):
        home = tmp_path / f"hanse-client-{number}"
        log = [line for line in AuditLog(home / "audit.jsonl").lines() if line["what"] == "imports"]
        assert {line["name"]: line["digest"] for line in log} == digests
        assert len(log) == len(digests)
        (plan,) = [path for path in home.glob("runs/*/*") if len(path.name) == 64]
        assert b"own_norms.py" in plan.read_bytes()
        assert b"squared_norm" not in plan.read_bytes()
        assert b"lib/" not in plan.read_bytes()
        assert str(tmp_path).encode() not in plan.read_bytes()
    for number in (0, 1):  # with the code that is named here, and with none
        forget(tmp_path)
        named = [word for name in names for word in ("--import", f"mine/{name}")] if number else []
        asked = ("replay", plan.parent.name, "--home", "hanse-client-1", "--data", "share", "--json", *named)
        code, shown = typed(*asked)
        assert (code, "FairState" in shown or '"fair_step(' in shown) == ((0, True) if number else (1, False))
        assert number or "own_fair" not in sys.modules
    forget(tmp_path)
    (home,) = json.loads(typed("doctor", "--home", "hanse-client-1", "--json")[1])["home"]
    assert (home["import"], home["state"]) == ("own_fair.py, own_ternary.py", "fine")
    assert "own_fair" not in sys.modules


# -- refusals before anything is imported, or data are opened -----------------------------------


def test_an_import_that_the_policy_does_not_name_is_refused_with_the_line_to_add(
    folder: Path, here: Federation
) -> None:
    said = join(here, "--import", "own/own_marked.py")
    assert (
        f"needs own_marked.py ({needed(folder / 'own').digest}), which this client's policy does not" in said
    )
    assert "hanse approve" in said
    assert "--home client --import PATH/own_marked.py" in said
    assert not has_run(folder / "own")
    (line,) = re.findall(r"imports = \{.*\}", said)
    policy(line)
    join(here, "--import", "own/own_marked.py", opens=True)
    assert has_run(folder / "own")


def test_the_line_to_add_keeps_what_the_policy_names(folder: Path, here: Federation) -> None:
    policy(f'imports = {{"other.py" = "sha256:{"0" * 64}"}}')
    (line,) = re.findall(r"imports = \{.*\}", join(here))
    policy(line)
    assert set(ClientHome(Path("client")).policy.imports) == {"other.py", "own_marked.py"}


def test_a_client_without_the_module_is_told_where_to_put_it(folder: Path, here: Federation) -> None:
    policy(allow(folder / "own"))
    (folder / "own_marked.py").write_text(MARKED)  # in the current folder, which the owner has not named
    said = join(here)
    assert "there is no 'own_marked.py' in" in said
    assert "name its place: --import PATH/own_marked.py" in said
    assert not has_run(folder)
    copy(folder / "client")
    join(here, opens=True)
    assert has_run(folder / "client")


def test_another_digest_is_refused_and_the_files_are_named(folder: Path, here: Federation) -> None:
    copy(folder / "own", "ANSWER = 42\n")
    policy(allow(folder / "own"))
    said = join(here, "--import", "own/own_marked.py")
    assert "own_helper.py differs. Nothing was imported" in said
    assert "own_marked.py differs" not in said
    (folder / "own" / "own_helper.py").unlink()
    assert "own_helper.py is missing here" in join(here, "--import", "own/own_marked.py")
    assert not has_run(folder / "own")
    assert "own_helper.py is missing here" in " ".join(
        approve(here, "--import", "own/own_marked.py", code=2).split()
    )


def test_a_digest_that_the_policy_does_not_name_is_refused(folder: Path, here: Federation) -> None:
    policy(f'imports = {{"own_marked.py" = "sha256:{"0" * 64}"}}')
    said = join(here, "--import", "own/own_marked.py")
    assert "of which this client's policy names another digest" in said
    assert f'"own_marked.py" = "{needed(folder / "own").digest}"' in said
    assert not has_run(folder / "own")


def test_approval_of_the_plan_comes_before_imports(folder: Path, here: Federation) -> None:
    policy("approve_plans = true\n" + allow(folder / "own"))
    said = join(here, "--import", "own/own_marked.py")
    assert "waits for approval" in said
    assert f"Code of your own copy: own_marked.py ({needed(folder / 'own').digest[:23]}...)" in said
    assert not has_run(folder / "own")
    approve(here, "--import", "own/own_marked.py")
    assert not has_run(folder / "own")
    join(here, opens=True)  # at the place that was approved
    assert has_run(folder / "own")


def test_the_models_of_a_policy_come_before_imports(folder: Path, here: Federation) -> None:
    policy('models = ["logistic"]\n' + allow(folder / "own"))
    assert "allows the models logistic, not softmax" in join(here, "--import", "own/own_marked.py")
    assert not has_run(folder / "own")


def test_a_check_without_data_imports_only_what_is_allowed(folder: Path, here: Federation) -> None:
    asked = (*joining(here, "--check", "--import", "own/own_marked.py"),)
    assert "which this client's policy does not name" in said_by(*asked, code=2)
    policy(allow(folder / "own"))
    assert "softmax can be trained here" in said_by(*asked, code=0)


def test_a_member_declines_a_run_whose_imports_its_owner_does_not_allow(
    folder: Path, here: Federation
) -> None:
    here.enter_one(0, lambda plan: pytest.fail("data were opened"), Parties().bind)
    here.wait_for("(imports)", "the client did not decline")
    assert re.search(r"client 0: ticket 1 of \w+ declined: .* import is missing, differs,", here.events())
    assert any("which this client's policy does not name" in line for line in here.said)
    assert not has_run(folder / "own")


def test_a_module_that_raises_is_named_without_a_traceback(folder: Path, here: Federation) -> None:
    for place in ("server", "own"):
        copy(folder / place, "\nANSWER = 1 / 0\n")
    here.lead(served_job(needed(folder / "server")))
    here.server.led()[0].mailbox.stop()
    home = ClientHome(folder / "client")
    plan = read_plan(bytes.fromhex(here.server.plans()[-1]))
    home.own_imports.given = ["own/own_marked.py"]
    policy(allow(folder / "own"))
    with pytest.raises(Forbidden, match=r"own_helper\.py, line 2: ZeroDivisionError") as caught:
        home.own_imports.load(plan)
    assert caught.value.code == "imports"
    del here.server._led[here.server.led()[0].name]
    assert "own_helper.py, line 2: ZeroDivisionError" in join(here, "--import", "own/own_marked.py")


# -- approvals ---------------------------------------------------------------------------------


def change(here: Federation, folder: Path, helper: str) -> None:
    """Serve changed code, of which the client has a copy, in place of the first run."""
    for place in ("server", "own"):
        copy(folder / place, helper)
    (first,) = here.server.led()
    here.lead(served_job(needed(folder / "server")))
    first.mailbox.stop()
    del here.server._led[first.name]


def test_code_is_shown_before_it_is_approved(folder: Path, here: Federation) -> None:
    join(here)  # which keeps the plan for `approve`
    shown = approve(here, "--import", "own/own_marked.py", answer="n\n", code=1)
    found = inspect_import("own_marked.py", folder / "own")
    assert found.digest in shown.replace("\n   >", "")
    for path, sha256 in found.files.items():
        size = (folder / "own" / path).stat().st_size
        assert f"  {path}: {size} bytes, sha256 {sha256}" in shown.replace("\n   >", "")
        assert f"less {folder / 'own' / path}" in shown
    assert "nothing was approved" in shown
    join(here)
    assert "nothing was approved" in approve(here, "--import", "own/own_marked.py", answer="", code=1)
    assert "approved" in approve(here, "--import", "own/own_marked.py")
    assert not has_run(folder / "own")
    join(here, opens=True)
    assert has_run(folder / "own")


def test_changed_code_is_shown_as_a_diff(folder: Path, here: Federation) -> None:
    join(here)
    approve(here, "--import", "own/own_marked.py")
    change(here, folder, "ANSWER = 42  # \x1b[2J, " + "wide " * 30 + "END\n")
    said = join(here)
    assert "of which this client's policy names another digest" in said
    shown = approve(here, answer="n\n", code=1)
    lines = shown.splitlines()
    assert "--- own_helper.py" in lines
    assert "-ANSWER = 41" in lines
    assert "+ANSWER = 42  # \\x1b[2J, wide" in shown
    assert max(map(len, lines)) <= 80
    assert "wide END" in shown.replace("\n   >", "")  # folded, and not cut off
    assert "+++ own_marked.py" not in lines
    join(here)
    assert not has_run(folder / "own")
    approve(here)
    join(here, opens=True)
    assert has_run(folder / "own")
    assert "it is as you have approved it before" in approve(here)


def test_a_long_diff_is_cut_with_a_count(folder: Path, here: Federation) -> None:
    join(here)
    approve(here, "--import", "own/own_marked.py")
    change(here, folder, "".join(f"LINE_{i} = {i}\n" for i in range(MOST_LINES)))
    join(here)
    lines = approve(here).splitlines()
    at = next(i for i, line in enumerate(lines) if "more lines are not shown" in line)
    head = 4  # its names, its place, and the line that was removed
    assert lines[at] == f"{head + 1} more lines are not shown; read them all:"  # with the last empty line
    assert lines[at - 1] == f"+LINE_{MOST_LINES - head - 1} = {MOST_LINES - head - 1}"
    _, _, old, new = lines[at + 1].split()
    assert Path(old).read_text() == "ANSWER = 41\n"
    assert Path(new) == folder / "own" / "own_helper.py"
    assert len(lines[at:]) < 6


def test_a_copy_that_changes_after_its_approval_is_refused_at_the_next_start(
    folder: Path, here: Federation
) -> None:
    join(here)
    approve(here, "--import", "own/own_marked.py")
    copy(folder / "own", "ANSWER = 42\n")
    said = join(here)
    assert "own_helper.py differs" in said
    (kept,) = re.findall(r"the files that you approved are in (\S+);", said)
    assert not has_run(folder / "own")
    shutil.copy(Path(kept, "own_helper.py"), folder / "own")
    join(here, opens=True)


def test_code_is_not_imported_again_while_a_client_runs(folder: Path) -> None:
    home = ClientHome(folder / "client")
    home.own_imports.given = ["own/own_marked.py"]
    plan = seal_plan(served_job(needed(folder / "own")).plan)
    policy(allow(folder / "own"))
    home.own_imports.load(plan)
    (folder / "own" / "own_marked.ran").unlink()
    home.own_imports.load(replace(plan, run="another"))
    assert not has_run(folder / "own")
    noted = [line for line in home.audit.lines() if line["what"] == "imports"]
    assert [line["run"] for line in noted] == [plan.run, "another"]
    copy(folder / "own", "ANSWER = 42\n")
    policy(allow(folder / "own"))
    other = replace(plan, imports=(needed(folder / "own"),))
    with pytest.raises(Forbidden, match=r"is not what this process imported.*begin a new process"):
        home.own_imports.load(other)


def test_the_copy_that_a_plan_asks_for_is_found_among_others(folder: Path) -> None:
    home = ClientHome(folder / "client")
    asked = needed(folder / "own")
    copy(folder / "server", "ANSWER = 42\n")
    home.own_imports.given = ["server/own_marked.py", "own/own_marked.py"]
    assert home.own_imports.find_same(asked).folder == str(folder / "own")
    home.own_imports.given = ["server/own_marked.py"]
    with pytest.raises(Forbidden, match=r"own_helper\.py differs"):
        home.own_imports.find_same(asked)


def test_a_diff_shows_files_that_are_new_or_gone_or_no_text(folder: Path) -> None:
    def contents(**files: bytes) -> Contents:
        named = {f"own_package/{name}": data for name, data in files.items()}
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in named.items()}
        return Contents(Import("own_package", "package", "sha256:1", sums, str(folder)), named)

    before = contents(gone=b"x = 1\n", table=b"\xff\x00", kept=b"same\n", ends=b"y = 1\n")
    now = contents(new=b"z = 1", table=b"\xff\x00\x01", kept=b"same\n", ends=b"y = 1\r\n")
    lines = [*describe_code(now, before, folder / "copy")][1:]
    assert [line for line in lines if (line[0] in "+-" and len(line) > 1) or "no text" in line] == [
        *("--- own_package/ends", "+++ own_package/ends", "-y = 1", "+y = 1\\r"),
        *("--- own_package/gone", "+++ (no such file)", "-x = 1"),
        *("--- (no such file)", "+++ own_package/new", "+z = 1"),
        *("--- own_package/table", "+++ own_package/table"),
        "  it is no text: 2 bytes before, 3 now",
    ]


def test_the_last_approval_of_each_module_is_kept(folder: Path) -> None:
    kept = ClientHome(folder / "client").own_imports.approved
    write(folder / "mine", own_other="X = 1\n")
    for place, name in (("own", "own_marked.py"), ("mine", "own_other.py")):
        kept.approve(read_contents(inspect_import(name, folder / place)))
    copy(folder / "own", "ANSWER = 42\n")
    now = inspect_import("own_marked.py", folder / "own")
    kept.approve(read_contents(now))
    assert {found.name for found in kept.list_all()} == {"own_marked.py", "own_other.py"}
    assert kept.find("own_marked") == now
    copied = kept.read_copy("own_marked")
    assert copied is not None
    assert copied.files["own_helper.py"] == b"ANSWER = 42\n"
    (kept.locate_copy(now) / "own_helper.py").write_text("ANSWER = 43\n")
    assert kept.read_copy("own_marked") is None  # no difference from what nobody approved is shown


def test_files_that_change_while_they_are_shown_are_not_approved(folder: Path) -> None:
    found = inspect_import("own_marked.py", folder / "own")
    copy(folder / "own", "ANSWER = 42\n")
    with pytest.raises(InvalidInput, match=r"own_helper\.py has changed in the meantime"):
        read_contents(found)


def test_a_place_that_is_typed_is_not_replaced_by_another(folder: Path, here: Federation) -> None:
    join(here)
    approve(here, "--import", "own/own_marked.py")
    assert "there is no 'gone/own_marked.py'" in join(here, "--import", "gone/own_marked.py")


def test_a_package_is_named_by_its_folder(folder: Path) -> None:
    write(folder / "mine", own_package____init__="", own_package__parts="X = 1\n")
    home = ClientHome(folder / "client")
    for name, option in (
        ("own_package", " --import PATH/own_package"),
        ("own_package.parts", " --import own_package.parts"),
    ):
        found = inspect_import(name, folder / "mine")
        asked = PlanImport(name, found.kind, found.digest, found.files)
        assert write_option(asked) == option
        home.own_imports.given = [option.split()[-1].replace("PATH", "mine")]
        if "PATH" in option:
            assert home.own_imports.find_same(asked) == replace(found, name="mine/own_package")
    assert write_option(PlanImport("own_installed", "distribution", "", {})) == " --import own_installed"


# -- what is sent ------------------------------------------------------------------------------


@value
class strange_model(Model):
    """A model that no client knows."""

    def bind(self, feature_shape: tuple[int, ...], num_classes: int | None) -> Learner:
        raise NotImplementedError


def strangers(here: Federation, *words: str) -> Any:
    """A client in a process of its own, which knows no class of this file."""
    return command(Path.cwd(), *joining(here, "--data", "share", *words))


def test_a_model_whose_module_the_plan_does_not_name_is_a_clear_error(folder: Path) -> None:
    with federation(folder / "f", stay=True) as here:
        job = served_job()
        here.lead(replace(job, plan=replace(job.plan, model=strange_model())))
        said = " ".join(done(strangers(here), 1).split())
        here.server.led()[0].mailbox.stop()
    assert "the plan uses a class that is not known here (unknown kind of value 'strange_model'" in said
    assert "import its module" in said
    assert "Traceback" not in said
    assert not here.server.members.active("client")


def test_a_work_whose_module_the_plan_does_not_name_is_a_clear_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("test_leaks.category_counts", lambda schema: strange_work())
    with federation(folder / "f", stay=True) as here:
        here.lead(replace(served_job(), program=Asks(())))
        process = strangers(here)
        try:
            assert here.wait_for("(message)", "the client did not fail", 60.0)
        finally:
            here.server.led()[0].mailbox.stop()
            process.kill()
        said, _ = process.communicate()
    assert "uses a class that is not known here (unknown kind of value 'strange_work'" in said
    assert "Traceback" not in said


def strange_work() -> Any:
    @value(name="strange_work")
    class work(Work[Any, Any]):
        """A work that no client knows."""

        def run(self, learner: Any, shared: Any, data: Any, memory: Any, keys: Any) -> Any:
            return {}, memory

    return work()


def test_a_sealed_plan_does_not_lie_about_its_model(folder: Path) -> None:
    plan = seal_plan(served_job().plan)
    assert (plan.model, plan.open()) == ("softmax", served_job().plan)
    with pytest.raises(MessageError, match="has the model softmax, not logistic"):
        replace(plan, model="logistic").open()


HOSTILE: dict[str, Callable[[PlanImport], Any]] = {
    "a path": lambda one: replace(one, name="../own_marked.py"),
    "an absolute path": lambda one: replace(one, name="/etc/own_marked.py"),
    "a word that steers a terminal": lambda one: replace(one, files={"own\x1b[2J.py": "1"}),
    "another digest": lambda one: replace(one, digest="md5:1"),
    "no name": lambda one: replace(one, name=""),
    "no import": lambda one: ("own_marked.py",),
    "a number": lambda one: replace(one, digest=7),
}


@pytest.mark.parametrize("twist", HOSTILE.values(), ids=HOSTILE)
def test_a_plan_names_modules_and_nothing_else(twist: Callable[[PlanImport], Any], folder: Path) -> None:
    job = served_job(needed(folder / "server"))
    plan = replace(seal_plan(job.plan), run="a")
    assert read_plan(pack(plan)) == plan
    with pytest.raises(MessageError, match="plans can't be read"):
        read_plan(pack(replace(plan, imports=(twist(plan.imports[0]),))))


def test_a_plan_builds_no_class_before_it_is_allowed(folder: Path) -> None:
    plan = replace(seal_plan(served_job().plan), run="a")
    with pytest.raises(MessageError, match="strange_model, which is not allowed here"):
        read_plan(pack(replace(plan, settings=strange_model())))


def test_modules_that_only_the_server_needs_are_not_asked_of_clients(folder: Path) -> None:
    code = (
        "from hanse.core import value\nfrom hanse.data import digits\n\n\n@value\nclass own_digits(digits):\n"
    )
    (folder / "own_data.py").write_text(f"{code}    pass\n")
    (folder / "app.toml").write_text(
        PLAIN + 'imports = ["own_data.py", "server/own_marked.py"]\ndata = {name = "own_digits"}\n'
    )
    plan = Parties().job(folder / "app.toml", ()).plan
    assert [one.name for one in plan.imports] == ["own_marked.py"]
    assert json.loads(plan.settings)["imports"] == ["own_marked.py"]
    assert "server/" not in plan.settings


# -- doctor ------------------------------------------------------------------------------------


def test_doctor_checks_the_folders_of_server_and_client(folder: Path, here: Federation) -> None:
    def states(home: str) -> list[str]:
        code, said = typed("doctor", "--home", home, "--json")
        assert code == 0, said
        return [found["state"] for found in json.loads(said)["home"]]

    join(here)
    assert "which this client's policy does not name" in states("client")[0]
    approve(here, "--import", "own/own_marked.py")
    assert states("client") == ["fine"]
    copy(folder / "own", "ANSWER = 42\n")
    assert "own_helper.py differs" in states("client")[0]
    found = inspect_import("own_marked.py", folder / "server")
    for run in here.server.led():
        here.server.runs.amend(run.name, lambda said: {**said, "imports": [found.to_json()]})
    assert states("f/server") == ["fine"]
    copy(folder / "server", "ANSWER = 42\n")
    assert states("f/server") == ["own_helper.py has changed"]
    assert "own_helper.py has changed" in said_by("doctor", "--home", "f/server", code=0)
    ClientHome(folder / "f" / "other")
    assert "no run here that can go on imports code of users" in said_by(
        "doctor", "--home", "f/other", code=0
    )
    assert "neither a client nor a server" in said_by("doctor", "--home", "own", code=2)
    assert not has_run(folder / "own")
    assert not has_run(folder / "server")
