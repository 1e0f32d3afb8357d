"""Federated data: data sets, partitions of them, and the clients that hold the parts.

>>> from hanse.core import Key
>>> from hanse.data import digits, dirichlet, partition_data
>>> data = partition_data(digits().load(), dirichlet(10, 0.5), Key.from_seed(1))
>>> data.num_clients, data.num_examples, data.client(0).x.shape[1:]
(10, 1438, (64,))
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.data.checks import check_examples
    from hanse.data.custom import custom
    from hanse.data.datasets import Dataset, TrainTest, arrays, digits
    from hanse.data.delimited import (
        csv,
        find_date_in_numbers,
        find_formats,
        find_limit,
        part_dates,
        read_names,
        read_words,
    )
    from hanse.data.description import Description, describe
    from hanse.data.files import NeedsSetting, ShowsCell, UnreadableRows, extra, read_bytes, tell_encoding
    from hanse.data.groups import by_key, regions
    from hanse.data.idx import idx, mnist
    from hanse.data.labels import class_names, classes_of, find_gaps, to_categories
    from hanse.data.libraries import hugging_face, scikit_learn
    from hanse.data.libsvm import libsvm
    from hanse.data.npz import npz
    from hanse.data.parquet import parquet
    from hanse.data.partitions import Assignment, Partition, dirichlet, iid, shards
    from hanse.data.party_files import party_files
    from hanse.data.population import (
        VALIDATION,
        FederatedData,
        from_clients,
        generate,
        own_test,
        partition_data,
    )
    from hanse.data.skews import (
        Sizes,
        feature_noise,
        feature_shards,
        labels_per_client,
        log_normal,
        power_law,
        quantity,
    )
    from hanse.data.sources import RowWise, Source, draw_groups, held_out
    from hanse.data.tables import IDENTIFIES, Rows, Tabular, as_table, assemble, is_numbering, names_places
    from hanse.data.text import text
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.data.checks": ("check_examples",),
            "hanse.data.custom": ("custom",),
            "hanse.data.datasets": (
                "Dataset",
                "TrainTest",
                "arrays",
                "digits",
            ),
            "hanse.data.delimited": (
                "csv",
                "find_date_in_numbers",
                "find_formats",
                "find_limit",
                "part_dates",
                "read_names",
                "read_words",
            ),
            "hanse.data.description": (
                "Description",
                "describe",
            ),
            "hanse.data.files": (
                "NeedsSetting",
                "ShowsCell",
                "UnreadableRows",
                "extra",
                "read_bytes",
                "tell_encoding",
            ),
            "hanse.data.groups": (
                "by_key",
                "regions",
            ),
            "hanse.data.idx": (
                "idx",
                "mnist",
            ),
            "hanse.data.labels": (
                "class_names",
                "classes_of",
                "find_gaps",
                "to_categories",
            ),
            "hanse.data.libraries": (
                "hugging_face",
                "scikit_learn",
            ),
            "hanse.data.libsvm": ("libsvm",),
            "hanse.data.npz": ("npz",),
            "hanse.data.parquet": ("parquet",),
            "hanse.data.partitions": (
                "Assignment",
                "Partition",
                "dirichlet",
                "iid",
                "shards",
            ),
            "hanse.data.party_files": ("party_files",),
            "hanse.data.population": (
                "VALIDATION",
                "FederatedData",
                "from_clients",
                "generate",
                "own_test",
                "partition_data",
            ),
            "hanse.data.skews": (
                "Sizes",
                "feature_noise",
                "feature_shards",
                "labels_per_client",
                "log_normal",
                "power_law",
                "quantity",
            ),
            "hanse.data.sources": (
                "RowWise",
                "Source",
                "draw_groups",
                "held_out",
            ),
            "hanse.data.tables": (
                "IDENTIFIES",
                "Rows",
                "Tabular",
                "as_table",
                "assemble",
                "is_numbering",
                "names_places",
            ),
            "hanse.data.text": ("text",),
        },
        registers={},
    )

__all__ = [
    "IDENTIFIES",
    "VALIDATION",
    "Assignment",
    "Dataset",
    "Description",
    "FederatedData",
    "NeedsSetting",
    "Partition",
    "RowWise",
    "Rows",
    "ShowsCell",
    "Sizes",
    "Source",
    "Tabular",
    "TrainTest",
    "UnreadableRows",
    "arrays",
    "as_table",
    "assemble",
    "by_key",
    "check_examples",
    "class_names",
    "classes_of",
    "csv",
    "custom",
    "describe",
    "digits",
    "dirichlet",
    "draw_groups",
    "extra",
    "feature_noise",
    "feature_shards",
    "find_date_in_numbers",
    "find_formats",
    "find_gaps",
    "find_limit",
    "from_clients",
    "generate",
    "held_out",
    "hugging_face",
    "idx",
    "iid",
    "is_numbering",
    "labels_per_client",
    "libsvm",
    "log_normal",
    "mnist",
    "names_places",
    "npz",
    "own_test",
    "parquet",
    "part_dates",
    "partition_data",
    "party_files",
    "power_law",
    "quantity",
    "read_bytes",
    "read_names",
    "read_words",
    "regions",
    "scikit_learn",
    "shards",
    "tell_encoding",
    "text",
    "to_categories",
]
