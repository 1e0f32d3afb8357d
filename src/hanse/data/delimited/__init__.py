"""Text files of rows and columns, such as CSV."""

from hanse.data.delimited.cells import DELIMITERS
from hanse.data.delimited.days import find_formats
from hanse.data.delimited.limits import find_limit
from hanse.data.delimited.reader import csv

__all__ = ["DELIMITERS", "csv", "find_formats", "find_limit"]
