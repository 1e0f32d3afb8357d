"""The server's sockets: the connections that it accepts, their deadlines, and the rates of requests."""

from hanse.network.server.sockets.connections import (
    Connections,
    OpenConnection,
    count_allowed,
    raise_open_files,
)
from hanse.network.server.sockets.rates import RATES, Rate, Rates
from hanse.network.server.sockets.web import Prompt, Web, bracket, listen

__all__ = [
    "RATES",
    "Connections",
    "OpenConnection",
    "Prompt",
    "Rate",
    "Rates",
    "Web",
    "bracket",
    "count_allowed",
    "listen",
    "raise_open_files",
]
