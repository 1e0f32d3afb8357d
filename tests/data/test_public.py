import hanse.data


def test_the_public_names_are_these() -> None:
    assert hanse.data.__all__ == [
        "Assignment",
        "Dataset",
        "FederatedData",
        "Partition",
        "RowWise",
        "Sizes",
        "Source",
        "TrainTest",
        "arrays",
        "by_key",
        "csv",
        "digits",
        "dirichlet",
        "feature_noise",
        "feature_shards",
        "from_clients",
        "generated",
        "iid",
        "labels_per_client",
        "log_normal",
        "own_test",
        "partitioned",
        "power_law",
        "quantity",
        "regions",
        "shards",
    ]
    assert all(hasattr(hanse.data, name) for name in hanse.data.__all__)
