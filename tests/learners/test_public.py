import hanse.learners


def test_the_public_names_are_these() -> None:
    assert hanse.learners.__all__ == [
        "Model",
        "batches",
        "cox",
        "dual",
        "elastic_net",
        "hinge_svm",
        "least_squares",
        "linear_svm",
        "logistic",
        "objective",
        "softmax",
    ]
    assert all(hasattr(hanse.learners, name) for name in hanse.learners.__all__)
