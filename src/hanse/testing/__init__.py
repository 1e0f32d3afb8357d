"""For tests of algorithms and works: a runtime whose clients see only bytes, and answer in any order."""

from hanse.testing.concurrent import AsyncRuntime, ClientTasks, ConcurrentSimulation, adrive

__all__ = ["AsyncRuntime", "ClientTasks", "ConcurrentSimulation", "adrive"]
