"""Liars in a simulation: their data, and their messages at the simulation's door."""

from hanse.runs.adversary.backend import LyingBackend, Rounds
from hanse.runs.adversary.population import MARKED, PoisonedPopulation

__all__ = ["MARKED", "LyingBackend", "PoisonedPopulation", "Rounds"]
