"""Isolation of the processes that compute tickets."""

from hanse.network.client.isolation.launch import Isolation, describe_isolation, find_isolation

__all__ = ["Isolation", "describe_isolation", "find_isolation"]
