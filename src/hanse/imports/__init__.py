"""Users' own code: modules that settings name, found and digested without being executed, then imported.

A name is that of a module, "my_module", or the path of a file or package, "path/file.py". Its digest covers

  a file            the file, and the modules of its folder that it imports, and that these import
  a package         all its files, and the modules beside it that these import
  a distribution    its version, and its RECORD without the entries that installers write

Hidden files and `__pycache__` do not count, and what is imported are the bytes that were digested.
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.imports.finding import find_import, inspect_again, inspect_import
    from hanse.imports.found import Import, Kind, describe_changes, module_of
    from hanse.imports.loading import (
        find_registered,
        is_from,
        is_loaded,
        list_functions,
        load_import,
        load_imports,
        load_same,
    )
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.imports.finding": ("find_import", "inspect_again", "inspect_import"),
            "hanse.imports.found": ("Import", "Kind", "describe_changes", "module_of"),
            "hanse.imports.loading": (
                "find_registered",
                "is_from",
                "is_loaded",
                "list_functions",
                "load_import",
                "load_imports",
                "load_same",
            ),
        },
    )

__all__ = [
    "Import",
    "Kind",
    "describe_changes",
    "find_import",
    "find_registered",
    "inspect_again",
    "inspect_import",
    "is_from",
    "is_loaded",
    "list_functions",
    "load_import",
    "load_imports",
    "load_same",
    "module_of",
]
