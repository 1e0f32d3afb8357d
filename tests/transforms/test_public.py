import hanse.transforms


def test_the_public_names_are_these() -> None:
    assert hanse.transforms.__all__ == [
        "DrawScope",
        "Factors",
        "Layout",
        "Over",
        "Residual",
        "WireSize",
        "cast",
        "clip",
        "deflate",
        "error_feedback",
        "low_rank",
        "none",
        "out_first",
        "out_last",
        "per_block",
        "per_client",
        "per_round",
        "per_tensor",
        "quantize",
        "random_mask",
        "rotate",
        "sign",
        "subsample",
        "top_k",
        "train_a",
        "train_b",
        "train_both",
        "wire_bytes",
    ]
    assert all(hasattr(hanse.transforms, name) for name in hanse.transforms.__all__)
