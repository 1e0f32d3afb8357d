"""Text files of rows and columns, such as CSV."""

from hanse.data.delimited.cells import DELIMITERS
from hanse.data.delimited.reader import csv

__all__ = ["DELIMITERS", "csv"]
