"""Monitoring of a server: health pages and metrics, on an address of their own."""

from hanse.network.server.monitoring.health import check_ready
from hanse.network.server.monitoring.listener import monitor
from hanse.network.server.monitoring.metrics import Meter, Metered

__all__ = ["Meter", "Metered", "check_ready", "monitor"]
