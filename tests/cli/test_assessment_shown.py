"""The terminal shows the final model's metrics beside a constant predictor's, and the confusion matrix."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from hanse.cli.consoles import print_assessment, print_confusion

ONE: dict[str, Any] = {"value": 0.8728, "constant": 0.5, "error": 0.0, "higher_is_better": True}
TOLD: dict[str, Any] = {
    "on": "their own test examples", "num_examples": 1234, "computed": "from sums over parties",
    "metrics": {
        "auroc": {**ONE, "error": 0.0002, "low": 0.81234, "high": 0.9},
        "sensitivity(threshold=0.3, positive=1)": {**ONE, "value": None, "low": None, "high": None},
        "mae": {**ONE, "constant": None, "higher_is_better": False, "low": 0.1, "high": 0.2},
    },
    "intervals": {"level": 0.95},
    "confusion_matrix": [[float(123 * (i == j)) for j in range(10)] for i in range(10)],
}  # fmt: skip


def printed(result: dict[str, Any], width: int) -> list[str]:
    out = Console(width=width, record=True, highlight=False, file=StringIO())
    print_assessment(out, result)
    print_confusion(out, result)
    return [line.rstrip() for line in out.export_text().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_metrics_stand_beside_a_constant_predictor_in_any_window(width: int) -> None:
    lines = printed({"assessment": TOLD}, width)
    assert all(len(line) <= width for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "The final model on the clients' own test examples, 1,234 examples, computed from sums" in text
    assert any(line.split()[:5] == ["auroc", "0.8728", "±", "0.0002", "0.5000"] for line in lines)
    assert any("undefined" in line and "0.5000" in line for line in lines)
    assert any(line.split()[:3] == ["mae", "0.8728", "–"] for line in lines)
    assert ("0.8123 to 0.9000" in text) != ("no room for 95% over parties" in text)
    assert ("0.8123 to 0.9000" in text) == (width > 60)
    assert ["true", "class", *map(str, range(10))] in [line.split() for line in lines]
    assert ["4", *["0"] * 4, "123", *["0"] * 5] in [line.split() for line in lines]


def test_classes_have_their_names_and_many_are_left_to_the_page() -> None:
    two = {"confusion_matrix": [[5.0, 1.5], [0.0, 2000.0]], "metrics": {}}
    lines = printed({"assessment": two, "data": {"classes": ["no", "[b]yes"]}}, 80)
    assert lines[0].split() == ["true", "class", "no", "[b]yes"]
    assert [line.split() for line in lines[1:3]] == [["no", "5", "1.5"], ["[b]yes", "0", "2,000"]]
    many = {"confusion_matrix": [[1.0] * 11] * 11, "metrics": {}}
    for nothing in ({}, {"assessment": None}, {"assessment": many}):
        assert printed(nothing, 80) == []
