"""Federated data: data sets, ways to share them out, and who holds what.

>>> from hanse.core.keys import Key
>>> data = partitioned(digits().load(), dirichlet(10, 0.5), Key.from_seed(1))
>>> data.num_clients, data.num_examples, data.client(0).x.shape[1:]
(10, 1438, (64,))
"""

from hanse.data.datasets import Dataset, TrainTest, arrays, digits
from hanse.data.partitions import Assignment, Partition, dirichlet, iid, shards
from hanse.data.population import FederatedData, Source, from_clients, generated, partitioned

__all__ = [
    "Assignment",
    "Dataset",
    "FederatedData",
    "Partition",
    "Source",
    "TrainTest",
    "arrays",
    "digits",
    "dirichlet",
    "from_clients",
    "generated",
    "iid",
    "partitioned",
    "shards",
]
