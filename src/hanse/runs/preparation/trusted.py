"""Examples that the server trusts, for algorithms in which it judges the clients by them."""

from typing import Any

from hanse.core import Algorithm, InvalidInput, nearest
from hanse.data import VALIDATION, FederatedData

__all__ = ["check_server_data", "is_led_by_test"]

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


def is_led_by_test(algorithm: Algorithm[Any]) -> bool:
    """Returns whether the algorithm computes with the test examples, as those that its server trusts."""
    return getattr(algorithm, "trusted", None) == TEST
