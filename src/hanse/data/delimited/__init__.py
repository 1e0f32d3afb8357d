"""Text files of rows and columns, such as CSV."""

from hanse.data.delimited.days import find_date_in_numbers, find_formats, part_dates
from hanse.data.delimited.limits import find_limit
from hanse.data.delimited.reader import csv, read_names, read_words

__all__ = [
    "csv",
    "find_date_in_numbers",
    "find_formats",
    "find_limit",
    "part_dates",
    "read_names",
    "read_words",
]
