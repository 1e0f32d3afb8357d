import hanse.learners


def test_the_public_names_are_these() -> None:
    assert hanse.learners.__all__ == [
        "Engine",
        "Linear",
        "Model",
        "Network",
        "Precision",
        "averaged_buffers",
        "batches",
        "bfloat16",
        "char_lstm",
        "cnn",
        "cox",
        "dual",
        "elastic_net",
        "full",
        "hinge_svm",
        "jax_engine",
        "jax_model",
        "least_squares",
        "linear_svm",
        "local_buffers",
        "logistic",
        "mlp",
        "objective",
        "softmax",
        "tf32",
        "torch_engine",
        "torch_module",
    ]
    assert all(hasattr(hanse.learners, name) for name in hanse.learners.__all__)
