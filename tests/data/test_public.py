import hanse.data


def test_the_public_names_are_these() -> None:
    assert hanse.data.__all__ == [
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
    assert all(hasattr(hanse.data, name) for name in hanse.data.__all__)
