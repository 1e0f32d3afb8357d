"""Experiments as values and as settings files."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.config.audit_plan import AuditPlan, take_audit
    from hanse.config.experiment import IMPORTS, IN_PYTHON, Experiment, find_metric, summary
    from hanse.config.first_file import starting_file
    from hanse.config.guesses import SETTLE, guess_reader, is_unsettled, list_doubts
    from hanse.config.own_modules import Warn, import_modules, warn_user
    from hanse.config.plain_data import Whole, format_plain, join_path, leaves, merge, split_path, to_plain
    from hanse.config.reading import (
        override,
        parse,
        parse_assignments,
        place_files,
        read,
        read_audit,
        written_where,
    )
    from hanse.config.roles import find_group, find_label, has_label_name, list_labels, seems_to_identify
    from hanse.config.scaffold import guess, guess_parties
    from hanse.config.settings import UnknownSetting, WrongSetting, build
    from hanse.config.writing import as_toml, inline
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.config.audit_plan": ("AuditPlan", "take_audit"),
            "hanse.config.experiment": ("IMPORTS", "IN_PYTHON", "Experiment", "find_metric", "summary"),
            "hanse.config.first_file": ("starting_file",),
            "hanse.config.guesses": ("SETTLE", "guess_reader", "is_unsettled", "list_doubts"),
            "hanse.config.own_modules": ("Warn", "import_modules", "warn_user"),
            "hanse.config.plain_data": (
                "Whole",
                "format_plain",
                "join_path",
                "leaves",
                "merge",
                "split_path",
                "to_plain",
            ),
            "hanse.config.reading": (
                "override",
                "parse",
                "parse_assignments",
                "place_files",
                "read",
                "read_audit",
                "written_where",
            ),
            "hanse.config.roles": (
                "find_group",
                "find_label",
                "has_label_name",
                "list_labels",
                "seems_to_identify",
            ),
            "hanse.config.scaffold": ("guess", "guess_parties"),
            "hanse.config.settings": ("UnknownSetting", "WrongSetting", "build"),
            "hanse.config.writing": ("as_toml", "inline"),
        },
    )


__all__ = [
    "IMPORTS",
    "IN_PYTHON",
    "SETTLE",
    "AuditPlan",
    "Experiment",
    "UnknownSetting",
    "Warn",
    "Whole",
    "WrongSetting",
    "as_toml",
    "build",
    "find_group",
    "find_label",
    "find_metric",
    "format_plain",
    "guess",
    "guess_parties",
    "guess_reader",
    "has_label_name",
    "import_modules",
    "inline",
    "is_unsettled",
    "join_path",
    "leaves",
    "list_doubts",
    "list_labels",
    "merge",
    "override",
    "parse",
    "parse_assignments",
    "place_files",
    "read",
    "read_audit",
    "seems_to_identify",
    "split_path",
    "starting_file",
    "summary",
    "take_audit",
    "to_plain",
    "warn_user",
    "written_where",
]
