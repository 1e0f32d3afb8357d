"""Plain data are checked against the fields of classes."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

import pytest

from hanse.algorithms import Schedule, ServerOptimiser
from hanse.config.experiment import Experiment
from hanse.config.settings import UnknownSetting, WrongSetting, build
from hanse.core import Algorithm, Array, Stop, Transform, former
from hanse.core.values import Plain
from hanse.data import Dataset
from hanse.simulation import Devices
from hanse.transforms import clip


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        (float, 1, 1.0),
        (int | None, "none", None),
        (int | None, None, None),
        (str, "none", "none"),
        (tuple[float, ...], [1, 0.5], (1.0, 0.5)),
        (tuple[tuple[int, float], ...], [[0, 0.5], [1, 0.5]], ((0, 0.5), (1, 0.5))),
        (Literal["a", "b"], "a", "a"),
        (bool, True, True),
        (int | str, "server", "server"),
        (Stop, {"patience": 3}, Stop(patience=3)),
        (Mapping[str, float], {"a": 1, "b.c": 0.5}, {"a": 1.0, "b.c": 0.5}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[str, int], {}, {}),
        (Mapping[str, Transform], {"a": {"name": "clip", "max_norm": 1}}, {"a": clip(1.0)}),
        (Mapping[str, Mapping[str, int]], {"a": {"b": 1}}, {"a": {"b": 1}}),
        (Mapping[str, float] | None, "none", None),
        (Mapping[str, int | None], {"a": "none"}, {"a": None}),
        (dict, {"a": [1, [True]]}, {"a": (1, (True,))}),
        (Mapping[str, Any], {"a": {"b": "none"}, "c": 0.5}, {"a": {"b": "none"}, "c": 0.5}),
        (tuple[Transform, ...], [{"name": "clip", "max_norm": 1}], (clip(1.0),)),
    ],
)
def test_what_fits_is_taken(annotation: Any, given: Plain, value: Any) -> None:
    built = build(annotation, given, "x")
    assert built == value
    assert type(built) is type(value)


@pytest.mark.parametrize(
    ("annotation", "given", "message"),
    [
        (int, True, "x is true; write a whole number, such as 10"),
        (int, 2.0, "x is 2.0; write a whole number, such as 2"),
        (float, False, "x is false; write a number, such as 0.1"),
        (float, ".3", 'x is the string ".3"; write a number, such as 0.3'),
        (float, float("nan"), "x is nan; write a finite number"),
        (float, 10**400, "x is inf; write a finite number"),
        (bool, 1, "x is 1; write true or false"),
        (str, 1, 'x is 1; write a string, in quotes: "..."'),
        (int | None, "all", 'x is the string "all"; write a whole number, such as 10, or "none"'),
        (tuple[float, ...], "1.0", 'x is the string "1.0"; write a list: [...]'),
        (tuple[float, ...], [1, "a"], 'x[1] is the string "a"; write a number, such as 0.1'),
        (tuple[int, float], [1], "x has 1 entries; write 2"),
        (float | Literal["best", "all"], "bets", "x is the string \"bets\"; did you mean 'best'?"),
        (float | Literal["best", "all"], ".3", 'x is the string ".3"; write a number, such as 0.3'),
        (Literal["mean", "sum"], "som", "x is the string \"som\"; did you mean 'sum'?"),
        (Devices, {"median_s": 1}, "x.name is missing; write one of data_centre, "),
        (Devices, "idael", "x.name is \"idael\", which names no devices; did you mean 'ideal'?"),
        (Mapping[str, float], {"a": "b"}, 'x.a is the string "b"; write a number, such as 0.1'),
        (Mapping[str, float], {"a.b": True}, 'x."a.b" is true; write a number, such as 0.1'),
        (dict[str, int], 3, "x is 3; write a table: {key = ...}"),
        (dict[str, int], {"name": 3}, 'x has a key "name", which is kept for the name of a value'),
        (Mapping[str, Any], {"a": {"name": 3}}, 'x.a has a key "name"'),
        (Mapping[str, Any], {"a": [float("inf")]}, "x.a[0] is inf; write a finite number"),
        (Mapping[str, Any], {"a": date(2026, 1, 1)}, "x.a is 2026-01-01; write a bool, a number, a string"),
        (dict[int, int], {"1": 3}, "x can't be written in settings"),
        (Stop, 3, 'x is 3; write a name, such as "Stop", or {name = "Stop"}'),
        (Stop, {"patience": 0}, "x: patience is 0; write at least 1 evaluation"),
        (Transform, {"name": "clip"}, "x.max_norm is missing; clip needs max_norm, such as max_norm = 0.1"),
        (
            float | Schedule,
            {"name": "inverse_time"},
            "x.lr is missing; inverse_time needs lr, such as",
        ),
        (float | Schedule, "fast", 'x is the string "fast"; write a number, such as 0.1'),
        (ServerOptimiser, "sdg", "x.name is \"sdg\", which names no server optimiser; did you mean 'sgd'?"),
        (Dataset, "arrays", "x: arrays can't be written in settings; give it in Python, with hanse.run(...)"),
        (Array, [1], "x can't be written in settings; give it in Python, with hanse.run(...)"),
    ],
)
def test_what_does_not_fit_is_refused(annotation: Any, given: Plain, message: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        build(annotation, given, "x")
    assert str(caught.value).startswith(message)


def test_none_is_offered_for_another_type_and_not_for_a_wrong_value() -> None:
    for given, ending in (
        (3, '{name = "Stop"}, or "none"'),
        ({"patience": 0}, "write at least 1 evaluation"),
    ):
        with pytest.raises(WrongSetting) as caught:
            build(Stop | None, given, "x")
        assert str(caught.value).endswith(ending)


def test_an_unknown_key_is_looked_for_here_then_elsewhere() -> None:
    everything = ["model.l2", "rounds"]

    def said(key: str) -> str:
        with pytest.raises(UnknownSetting) as caught:
            build(Algorithm[Any], {"name": "giant", key: 1}, "algorithm")
        return caught.value.among(everything)

    assert said("armijoo") == "algorithm.armijoo is unknown; did you mean algorithm.armijo?"
    assert said("l2") == "algorithm.l2 is unknown; did you mean model.l2?"
    assert said("zzz").startswith("algorithm.zzz is unknown; giant takes ")


def test_what_was_renamed_is_called_by_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former, "CLASSES", {"old_giant": "giant"})
    monkeypatch.setattr(former, "FIELDS", {"giant": {"line_search": "armijo"}})
    monkeypatch.setattr(former, "SETTINGS", {"turns": "rounds"})

    def said(settings: dict[str, Plain]) -> str:
        with pytest.raises(WrongSetting) as caught:
            Experiment.from_settings(settings)
        return caught.value.among(["model.l2", "rounds"])

    assert said({"turns": 3}) == "turns is called rounds now; write that"
    given = {"name": "giant", "line_search": True}
    assert said({"algorithm": given}) == "algorithm.line_search is called armijo now; write that"
    assert said({"algorithm": "old_giant"}) == (
        'algorithm.name is "old_giant", which is called "giant" now; write that'
    )
