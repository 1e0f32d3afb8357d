"""Training by a user's own function: what it is given, what it may give back, and where it is found."""

import importlib
import json
import pickle
import sys
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
from support import KEYS, Few, Quadratic, simulate

from hanse.algorithms import (
    by_examples,
    dane,
    fed_adagrad,
    fed_adam,
    fed_avg,
    fed_buff,
    fed_dyn,
    fed_nova,
    fed_prox,
    fed_yogi,
    giant,
    one_shot,
    scaffold,
    trained_by,
    uniform,
)
from hanse.algorithms.own_functions import find_function
from hanse.core import Close, CompositionError, Examples, InvalidInput, Key, MessageError, Shared
from hanse.core.exchange import Record, pack, unpack
from hanse.imports import Import, loading
from hanse.simulation import unstable
from hanse.transforms import low_rank, quantize, random_mask, top_k

START = {"w": np.array([1.0, -1.0, 0.5]), "b": np.array(2.0)}


def shrink(params: Any, data: Any, config: Any, key: Any, memory: Any) -> Any:
    params["w"] *= config["factor"]


SHRINK = trained_by(shrink, {"factor": 0.5})


def work_of(function: Any, config: Any = None, weighting: Any = by_examples(), **options: Any) -> Any:
    return trained_by(function, config or {}, **options).work(0, weighting)


def run(work: Any, memory: Any = None, client: int = 1) -> Any:
    shared = Shared({"params": {name: tensor.copy() for name, tensor in START.items()}})
    return work.run(Quadratic(), shared, Few().client(client), memory or {}, KEYS)


# -- what a function is given ----------------------------------------------------------------------


def test_a_function_is_given_copies_that_it_may_change() -> None:
    def spoil(params: Any, data: Any, config: Any) -> None:
        params["w"][:] = 7.0
        data.x[:] = 0.0
        data.y[:] = 0.0
        config["table"]["deep"] = 2
        assert data.x.flags.writeable
        assert data.x.flags.c_contiguous

    population, given = Few(), {"table": {"deep": 1}}
    before, shared = pack(vars(population.client(0))), Shared({"params": START})
    work = work_of(spoil, given)
    one, _ = work.run(Quadratic(), shared, population.client(0), {}, KEYS)
    other, _ = work.run(Quadratic(), shared, population.client(0), {}, KEYS)
    assert pack(vars(population.client(0))) == before
    assert given == {"table": {"deep": 1}} == work.training.config
    np.testing.assert_array_equal(START["w"], [1.0, -1.0, 0.5])
    for parts in (one, other):
        np.testing.assert_array_equal(parts["update"].values["w"], 7.0 - START["w"])
        np.testing.assert_array_equal(parts["update"].values["b"], 0.0)


def test_arguments_are_given_by_name_and_may_be_left_out() -> None:
    seen = []

    def train(model: Any, key: Key, data: Examples, extra: int = 3) -> None:
        seen.append((sorted(model), len(data), key.rng().integers(2**60), extra))

    run(work_of(train))
    assert seen == [(["b", "w"], 8, KEYS.public.rng().integers(2**60), 3)]


def test_lists_in_the_settings_arrive_as_tuples() -> None:
    seen = []
    run(work_of(lambda model, data, config: seen.append(config), {"milestones": [1, [2.5, "x"]]}))
    assert seen == [{"milestones": (1, (2.5, "x"))}]


# -- what it gives back ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["changed", "returned", "other_dtype"])
def test_parameters_may_be_changed_or_returned(form: str) -> None:
    def train(params: Any, data: Any) -> Any:
        if form == "changed":
            params["w"] += 1.0
            return None
        moved = {"b": params["b"], "w": params["w"] + 1.0}
        return {n: w.astype(np.float32) for n, w in moved.items()} if form == "other_dtype" else moved

    parts, memory = run(work_of(train))
    assert list(parts) == ["update"]
    np.testing.assert_array_equal(parts["update"].values["w"], 1.0)
    assert parts["update"].values["w"].dtype == np.float64
    assert memory == {}


def test_the_weight_is_the_functions_or_that_of_the_weighting() -> None:
    assert run(work_of(lambda model, data: None))[0]["update"].weight == 8.0
    assert run(work_of(lambda model, data: (None, None), weighting=uniform()))[0]["update"].weight == 1.0
    assert run(work_of(lambda model, data: (None, 2.5), weighting=uniform()))[0]["update"].weight == 2.5
    assert run(work_of(lambda model, data: (None, np.int64(0))))[0]["update"].weight == 0.0


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"w": np.zeros(3)}, r"returned \['w'\]; the parameters are \['b', 'w'\]"),
        ({"w": np.zeros(4), "b": np.zeros(())}, r"'w' with shape \(4,\).*has \(3,\) and float64"),
        ({"w": np.array(["a", "b", "c"]), "b": np.zeros(())}, "'w' with shape .* and dtype <U1"),
        (3.5, "returned a float; return None"),
        ((None, 1.0, {}, 4), "a tuple of 4"),
        ((None, -1.0), "the weight -1.0; return a number of at least 0"),
        ((None, float("inf")), "the weight inf"),
        ((None, np.ones(2)), "as 'weight'; return one number"),
        ((None, None, 0.5), "measurements of type float"),
        ((None, None, {"loss": 0.5}), r"\['loss'\], and metrics names \[\]; write .*metrics=\('loss',\)"),
    ],
)
def test_what_cannot_be_used_is_refused(found: Any, says: str) -> None:
    def train(model: Any, data: Any) -> Any:
        return found

    with pytest.raises(InvalidInput, match=rf"train\(\) .*{says}"):
        run(work_of(train))


def test_measurements_have_to_be_numbers_under_the_names_that_were_given() -> None:
    def train(model: Any, data: Any) -> Any:
        return None, 2.0, {"loss": np.float32(0.5), "steps": 3}

    parts, _ = run(work_of(train, metrics=("steps", "loss")))
    assert {name: float(v) for name, v in parts["training"].values.items()} == {"steps": 3.0, "loss": 0.5}
    assert parts["training"].weight == 2.0
    with pytest.raises(InvalidInput, match=r"metrics names \['accuracy', 'loss'\]"):
        run(work_of(train, metrics=("accuracy", "loss")))
    with pytest.raises(InvalidInput, match=r"returned \[1, 2\] as 'loss'; return one number"):
        run(work_of(lambda model, data: (None, None, {"loss": [1, 2]}), metrics=("loss",)))
    for wrong in ("loss", ("",), (3,)):
        with pytest.raises(InvalidInput, match="write names"):
            trained_by(train, metrics=wrong)  # type: ignore[arg-type]


def test_measurements_are_recorded_as_means_by_weight() -> None:
    def train(model: Any, data: Any) -> Any:
        return None, len(data) ** 2, {"size": len(data)}

    algorithm = fed_avg(fraction=1.0, client=trained_by(train, metrics=("size",)))
    records = lead(algorithm, 2)
    sizes = np.array([len(part) for part in Few().parts], np.float64)
    mean = float((sizes**3).sum() / (sizes**2).sum())
    assert [record.metrics for record in records] == [{"train_size": pytest.approx(mean, rel=1e-12)}] * 2
    assert [record.is_measured for record in records] == [False, False]


def test_an_abandoned_round_records_no_measurements() -> None:
    def train(model: Any, data: Any) -> Any:
        return None, None, {"size": 1.0}

    client = trained_by(train, metrics=("size",))

    class twice(fed_avg):
        """A second exchange wants everybody."""

        def round(self, state: Any, key: Key) -> Any:
            yield from super().round(state, key)
            demanding = fed_avg(fraction=1.0, close=Close(minimum_fraction=1.0))
            return (yield from demanding.round(state, key.fold_in("again")))

    records = lead(twice(fraction=1.0, client=client), 6, devices=unstable(0.1))
    measured = [bool(record.metrics) for record in records]
    assert measured == [record.abandoned is None for record in records]
    assert True in measured
    assert False in measured


def lead(algorithm: Any, rounds: int, **options: Any) -> list[Record]:
    records: list[Record] = []
    simulate(algorithm, rounds, watch=records.append, **options)
    return records


# -- memory ----------------------------------------------------------------------------------------


def test_memory_lasts_and_keeps_its_types() -> None:
    def train(model: Any, data: Any, memory: Any) -> None:
        if memory:
            assert memory["mixed"] == [1, (2.0, None), {"name": "x", 3: b"y"}]
            assert type(memory["mixed"]) is list
            memory["array"][0] += 1.0
        else:
            memory |= {"mixed": [1, (2.0, None), {"name": "x", 3: b"y"}], "array": np.zeros(2)}

    _, first = run(work_of(train))
    stored = unpack(pack(dict(first)))
    _, second = run(work_of(train), stored)
    np.testing.assert_array_equal(first["own_training"]["array"], [0.0, 0.0])
    np.testing.assert_array_equal(second["own_training"]["array"], [1.0, 0.0])


def test_other_memory_of_the_client_stays() -> None:
    def train(model: Any, data: Any, memory: Any) -> None:
        memory["n"] = memory.get("n", 0) + 1

    _, kept = run(work_of(train), {"stages/update": (1,), "own_training": {"n": 4}})
    assert kept == {"stages/update": (1,), "own_training": {"n": 5}}
    before = {"own_training": {"n": 4}}
    assert run(work_of(lambda model, data: None), before)[1] is before


def test_what_cannot_be_kept_is_refused() -> None:
    def train(model: Any, data: Any, memory: Any) -> None:
        memory["optimiser"] = {"state": [object()]}

    with pytest.raises(InvalidInput, match=r"memory\['optimiser/state/0'\] is a object.*state_dict"):
        run(work_of(train))


# -- compositions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [fed_avg, fed_adam, fed_yogi, fed_adagrad, fed_buff])
@pytest.mark.parametrize("uplink", [(), (quantize(8),), (top_k(0.5),)])
def test_algorithms_that_need_updates_alone_take_it(algorithm: Any, uplink: Any) -> None:
    few = {"concurrency": 4, "buffer_size": 2} if algorithm is fed_buff else {"fraction": 1.0}
    mine = algorithm(client=trained_by(shrink, {"factor": 0.5}), uplink=uplink, **few)
    assert len(lead(mine, 2)) == 2


@pytest.mark.parametrize("algorithm", [scaffold, fed_nova, fed_dyn])
def test_algorithms_that_count_steps_refuse_it(algorithm: Any) -> None:
    says = rf"{algorithm.__name__}\(\) counts its clients' gradient steps.*trained_by\(\).*fed_avg\(\)"
    with pytest.raises(InvalidInput, match=says):
        algorithm(client=SHRINK)


@pytest.mark.parametrize("algorithm", [dane, one_shot])
def test_algorithms_with_a_solver_refuse_it(algorithm: Any) -> None:
    says = rf"type trained_by, and {algorithm.__name__}\(\) needs .* write newton\(\)"
    with pytest.raises(InvalidInput, match=says):
        algorithm(solver=SHRINK)


def test_giant_has_no_training_of_clients() -> None:
    with pytest.raises(TypeError, match="client"):
        giant(client=SHRINK)  # type: ignore[call-arg]


def test_a_proximal_term_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"proximal term \(0.01\).*shrink\(\) does not see.*fed_avg\(\)"):
        fed_prox(client=SHRINK)
    fed_prox(client=SHRINK, mu=0.0)


def test_settings_of_steps_beside_it_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"fed_avg\(\) has epochs=3 and client=trained_by"):
        fed_avg(client=SHRINK, epochs=3)


@pytest.mark.parametrize("transform", [low_rank(1), random_mask(0.5)])
def test_restricted_spaces_are_refused(transform: Any) -> None:
    with pytest.raises(CompositionError, match="does not train 'update' inside a restricted space"):
        lead(fed_avg(client=SHRINK, uplink=(transform,)), 1)


# -- names -----------------------------------------------------------------------------------------


def test_it_is_packed_by_name_and_found_again() -> None:
    assert SHRINK.function == f"{__name__}:shrink"
    again = unpack(pack(SHRINK))
    assert again == SHRINK
    assert again.find() is shrink
    work = unpack(pack(SHRINK.work(0, uniform())))
    np.testing.assert_array_equal(run(work)[0]["update"].values["w"], -START["w"] / 2)


def test_it_is_pickled_with_its_function_for_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(unpack(pack(SHRINK)))
    assert b"shrink" in pickled
    assert pickle.loads(pickled) == SHRINK
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(trained_by(lambda model, data: None))


@pytest.mark.parametrize("function", [lambda model, data: None, partial(shrink, config={"factor": 1.0})])
def test_what_has_no_name_is_used_but_not_stored(function: Any) -> None:
    mine = trained_by(function, {"factor": 1.0})
    lead(fed_avg(client=mine), 1)
    with pytest.raises(InvalidInput, match=r"has no name by which a run could be resumed.*my_training.py"):
        mine.check_named()
    with pytest.raises(MessageError, match="write a module and a function in it"):
        unpack(pack(mine))
    SHRINK.check_named()


def test_a_name_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may come from a stranger: it finds functions that can train, in modules that are here, alone."""
    monkeypatch.setitem(sys.modules, "this", None)
    monkeypatch.delitem(sys.modules, "this")
    for name in ("this:train", "my_training:train", "pkg.mod:train"):
        with pytest.raises(InvalidInput, match=r"no module that was imported here.*--import"):
            fed_avg(client=trained_by(name))
    assert "this" not in sys.modules


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(contents)
    return made


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:exec",
        "subprocess:call",
        "pty:_writen",
        "hanse.core.learner:copy_examples",
        f"{__name__}:trained_by",
        f"{__name__}:SHRINK",
        f"{__name__}:absent",
        f"{__name__}:module",
    ],
)
def test_a_name_of_something_else_is_refused(name: str) -> None:
    import pty  # noqa: F401
    import subprocess  # noqa: F401

    with pytest.raises(InvalidInput, match=r"--import|defines no function|can't train"):
        fed_avg(client=trained_by(name))


def test_a_lazy_module_is_not_asked_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        raise AssertionError("it would be imported")

    monkeypatch.setitem(
        sys.modules, "lazy_one", module("lazy_one", __getattr__=load, __file__="/mine/lazy_one.py")
    )
    with pytest.raises(InvalidInput, match="'lazy_one' defines no function 'train'"):
        trained_by("lazy_one:train").find()


@pytest.mark.parametrize("name", ["train", "my_training.py:train", ":train", "m:f.g", "m:", "a b:c"])
def test_a_wrong_form_of_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match='such as "my_training:train"'):
        trained_by(name)


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda model: None,
        lambda model, config, key: None,
        lambda model, data, lr: None,
        lambda *everything: None,
        3,
        dict,
    ],
)
def test_a_function_that_cannot_train_is_refused(function: Any) -> None:
    with pytest.raises(InvalidInput, match=r"can't train|write a function"):
        trained_by(function)


def test_the_function_of_a_script_is_named_as_others_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(model: Any, data: Any) -> None:
        pass

    train.__module__, train.__qualname__ = "__main__", "train"
    script = module("__main__", train=train, __file__="/somewhere/my_script.py", __spec__=None)
    monkeypatch.setitem(sys.modules, "__main__", script)
    mine = trained_by(train)
    assert mine.function == "my_script:train"
    assert unpack(pack(mine)).find() is train
    del script.__file__  # as in a notebook
    with pytest.raises(InvalidInput, match="has no name"):
        trained_by(train).check_named()


def test_config_is_plain_data() -> None:
    with pytest.raises(InvalidInput, match=r"config\.a\[1\] is .*write numbers"):
        trained_by(shrink, {"a": [1, object()]})
    assert trained_by(shrink, {"a": [1]}) == trained_by(f"{__name__}:shrink", {"a": (1,)})


@pytest.mark.parametrize("config", [{"clip": None}, {"a": [{"b": None}]}])
def test_a_config_has_no_none(config: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^config\..* is None.*leave it out"):
        trained_by(shrink, config)


@pytest.mark.parametrize("config", [{"name": "x"}, {"a": [{"name": 1}]}])
def test_a_config_has_no_key_of_settings(config: Any) -> None:
    with pytest.raises(InvalidInput, match=r'^config.* has the key "name".*another name'):
        trained_by(shrink, config)


def test_it_is_hashed() -> None:
    assert hash(fed_avg(client=SHRINK)) == hash(fed_avg(client=trained_by(shrink, {"factor": 0.5})))


def test_fed_buff_refuses_a_weight() -> None:
    """It divides by the number of clients, so a weight would multiply the step."""

    def weighs(params: Any, data: Any) -> Any:
        return None, len(data)

    few = {"concurrency": 4, "buffer_size": 2}
    with pytest.raises(InvalidInput, match=r"weighs\(\) returned the weight \d+.*return None as the weight"):
        lead(fed_buff(client=trained_by(weighs), **few), 2)
    lead(fed_avg(client=trained_by(weighs)), 1)


def test_a_function_of_an_installed_module_is_refused_unless_it_was_imported_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_one.py").write_text("def train(model, data):\n    pass\n")
    (tmp_path / "own_one.py").write_text(
        "from installed_one import train as other\n\n\ndef train(model, data):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(tmp_path))
    own = importlib.import_module("own_one")
    try:
        assert trained_by("own_one:train").find() is own.train
        with pytest.raises(InvalidInput, match="no module that was imported here"):
            trained_by("installed_one:train").find()
        with pytest.raises(InvalidInput, match="defines no function 'other'"):
            trained_by("own_one:other").find()
        assert trained_by(own.other).find() is own.other
        named = Import("installed_one", "distribution", "sha256:1", {})
        monkeypatch.setitem(loading._LOADED, "installed_one", (named, frozenset()))
        assert trained_by("installed_one:train").find() is own.other
    finally:
        del sys.modules["installed_one"], sys.modules["own_one"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # some objects warn
def test_no_function_of_numpy_is_found() -> None:
    found = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("numpy", "scipy", "torch", "pytest", "_pytest"):
            for function in [f for f, obj in vars(module).items() if isinstance(obj, FunctionType)]:
                with suppress(InvalidInput):
                    found.append(find_function(f"{name}:{function}"))
    assert found == []


def test_repetition_is_noticed() -> None:
    count = iter(range(100))

    def wanders(params: Any, data: Any) -> None:
        params["w"] += next(count)

    def forgets(params: Any, data: Any) -> Any:
        return None, None, {"n": next(count)}

    def hoards(params: Any, data: Any, memory: Any) -> None:
        memory["n"] = next(count)

    def draws(params: Any, data: Any, key: Key) -> None:
        params["w"] += key.rng().normal()

    given = Quadratic(), START, Few().client(0), KEYS.public
    assert trained_by(draws).try_out(*given) == (True, ())
    assert trained_by(wanders).try_out(*given) == (False, ())
    assert not trained_by(forgets, metrics=("n",)).try_out(*given)[0]
    assert not trained_by(hoards).try_out(*given)[0]


CONFIG = {"lr": 0.5, "epochs": 2}


def takes_named(lr: float, epochs: int) -> float:
    return lr * epochs


@pytest.mark.parametrize(
    ("reads", "unread"),
    [
        (lambda config: config["lr"], ("epochs",)),
        (lambda config: config.get("lr", 1) if "epochs" in config else 0, ()),
        (lambda config: config.pop("epochs", None), ("lr",)),
        (lambda config: takes_named(**config), ()),
        (lambda config: {**config}, ()),
        (lambda config: dict(config), ()),
        (lambda config: {"momentum": 0.9} | config, ()),
        (lambda config: json.dumps(config), ()),
        (lambda config: deepcopy(config), ()),
        (lambda config: list(config.values()), ()),
        (lambda config: len(config), ("lr", "epochs")),
    ],
)
def test_keys_of_the_config_that_are_never_read_are_noticed(reads: Any, unread: tuple[str, ...]) -> None:
    def train(params: Any, data: Any, config: Any) -> None:
        reads(config)

    given = Quadratic(), START, Few().client(0), KEYS.public
    assert trained_by(train, CONFIG).try_out(*given) == (True, unread)


def test_a_function_without_a_config_reads_none_of_it() -> None:
    def train(params: Any, data: Any) -> None:
        pass

    given = Quadratic(), START, Few().client(0), KEYS.public
    assert trained_by(train, CONFIG).try_out(*given) == (True, ("lr", "epochs"))
