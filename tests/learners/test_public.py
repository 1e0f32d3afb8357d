import hanse.learners


def test_the_public_names_are_these() -> None:
    assert hanse.learners.__all__ == ["Model", "batches", "least_squares", "logistic", "softmax"]
    assert all(hasattr(hanse.learners, name) for name in hanse.learners.__all__)
