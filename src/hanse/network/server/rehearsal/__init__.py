"""A dry performance of a run, before it begins: it finds all that the run will ask of its members."""

from hanse.network.server.rehearsal.foresight import foresee

__all__ = ["foresee"]
