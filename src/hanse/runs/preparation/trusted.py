"""Examples that the server trusts, for algorithms in which it judges the clients by them."""

from typing import Any

from hanse.core import Algorithm, InvalidInput, nearest
from hanse.data import VALIDATION, FederatedData
from hanse.runs.judgement import LED_BY_TEST, LED_BY_VALIDATION, Finding

__all__ = ["check_server_data", "find_led", "is_led_by_validation"]

TEST = "server"
"""The role that holds the test set."""


def check_server_data(algorithm: Algorithm[Any], population: FederatedData) -> None:
    """Checks that there are examples for the server, if the algorithm needs some that it trusts.

    Raises: InvalidInput: if there are none.
    """
    role = getattr(algorithm, "trusted", None)
    if role is None:
        return
    held = {VALIDATION: population.validation, TEST: population.test}
    if role not in held:
        raise InvalidInput(f"algorithm.trusted is {role!r}; {nearest(role, list(held))}")
    if held[role] is None:
        raise InvalidInput(
            f"{type(algorithm).__name__} judges clients by examples of the server, and {role!r} holds none: "
            'hold some out, data.validation_fraction = 0.1, or write trusted = "server" to take '
            "the test set"
        )


def is_led_by_validation(algorithm: Algorithm[Any]) -> bool:
    """Returns whether the algorithm computes with the validation examples, which its server then trusts."""
    return getattr(algorithm, "trusted", None) == VALIDATION


def find_led(algorithm: Algorithm[Any]) -> tuple[Finding, ...]:
    """Returns the finding that the algorithm computes with examples on which the model is measured, if so."""
    if is_led_by_validation(algorithm):
        return (LED_BY_VALIDATION,)
    return (LED_BY_TEST,) if getattr(algorithm, "trusted", None) == TEST else ()
