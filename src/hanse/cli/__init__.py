"""The command line."""

from hanse.cli.commands import app, main

__all__ = [
    "app",
    "main",
]
