"""What is sent weighs what was promised, measured in the packed message."""

import math

import numpy as np
import pytest

from hanse.core import Spec
from hanse.transforms import (
    cast,
    deflate,
    low_rank,
    none,
    per_block,
    per_round,
    quantize,
    random_mask,
    rotate,
    sign,
    subsample,
    top_k,
    train_both,
    wire_bytes,
)

PERCEPTRON = {
    "layers.0.weight": (200, 784),
    "layers.0.bias": (200,),
    "layers.1.weight": (200, 200),
    "layers.1.bias": (200,),
    "layers.2.weight": (10, 200),
    "layers.2.bias": (10,),
}
CONVOLUTIONS = {
    "conv1.weight": (32, 1, 5, 5),
    "conv1.bias": (32,),
    "conv2.weight": (64, 32, 5, 5),
    "conv2.bias": (64,),
    "dense1.weight": (512, 3136),
    "dense1.bias": (512,),
    "dense2.weight": (10, 512),
    "dense2.bias": (10,),
}


def spec_of(shapes):
    return Spec.of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


MODELS = {"2nn": spec_of(PERCEPTRON), "cnn": spec_of(CONVOLUTIONS)}
every_model = pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS.keys())


def size(spec):
    return spec.num_bytes // 4


def positions(count, of):
    """Bytes that tell `count` of `of` positions: their entropy, and half a bit each."""
    p = count / of
    return (-of * (p * math.log2(p) + (1 - p) * math.log2(1 - p)) + count / 2) / 8


def factors(spec, rank, both=False):
    """Bytes of the factors of rank `rank`, and of what travels whole."""
    total = 0
    for tensor in spec.tensors.values():
        out, rest = tensor.shape[0], math.prod(tensor.shape[1:])
        factored = rank * (out + rest if both else out)
        total += 4 * min(factored if len(tensor.shape) > 1 else out, out * rest)
    return total


CHAINS = {
    "none": ((), lambda s: s.num_bytes),
    **{f"{bits} bits": ((quantize(bits),), lambda s, b=bits: size(s) * b / 8) for bits in range(1, 9)},
    "2 bits in blocks": ((quantize(2, per_block(512)),), lambda s: size(s) * (2 / 8 + 8 / 512)),
    "rotated 2 bits": ((rotate(), quantize(2)), lambda s: size(s) * 2 / 8),
    "25%": ((subsample(0.25),), lambda s: 0.25 * s.num_bytes),
    "25%, shared": ((subsample(0.25, drawn=per_round()),), lambda s: 0.25 * s.num_bytes),
    "25% in 2 bits": ((subsample(0.25), rotate(), quantize(2)), lambda s: 0.25 * size(s) * 2 / 8),
    "6.25% in 2 bits": ((subsample(0.0625), rotate(), quantize(2)), lambda s: 0.0625 * size(s) * 2 / 8),
    "mask of 25%": ((random_mask(0.25),), lambda s: 0.25 * s.num_bytes),
    "rank 8": ((low_rank(8),), lambda s: factors(s, 8)),
    "both of rank 8": ((low_rank(8, factors=train_both()),), lambda s: factors(s, 8, both=True)),
    "top 1%": ((top_k(0.01),), lambda s: 0.04 * size(s) + positions(0.01 * size(s), size(s))),
    "top 10% in 4 bits": (
        (top_k(0.1, residual=none()), quantize(4)),
        lambda s: 0.1 * size(s) / 2 + positions(0.1 * size(s), size(s)),
    ),
    "signs": ((sign(),), lambda s: size(s) / 8),
    "bfloat16": ((cast("bfloat16"),), lambda s: s.num_bytes / 2),
    "float16": ((cast("float16"),), lambda s: s.num_bytes / 2),
}


@every_model
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_a_message_weighs_what_the_scheme_promises(spec, chain):
    uplink, promised = chain
    measured = wire_bytes(spec, uplink)[-1].message_bytes
    assert 0.98 * promised(spec) - 1 <= measured <= 1.02 * promised(spec) + 1536


def test_a_sixteenth_in_two_bits_is_a_240th_of_the_perceptrons_tensors_and_of_the_cnns_message():
    uplink = (subsample(0.0625), rotate(), quantize(2))
    for name, of in (("2nn", "tensor_bytes"), ("cnn", "message_bytes")):
        spec = MODELS[name]
        assert spec.num_bytes / getattr(wire_bytes(spec, uplink)[-1], of) >= 240
    assert size(MODELS["2nn"]) == 199_210
    assert size(MODELS["cnn"]) == 1_663_370


def test_deflate_nearly_halves_two_rotated_bits():
    spec = MODELS["cnn"]
    _, _, coded, deflated = wire_bytes(spec, (rotate(), quantize(2), deflate()))
    assert 1.6 < coded.message_bytes / deflated.message_bytes < 2


def test_each_stage_is_weighed_and_named():
    uplink = (subsample(0.25), quantize(2))
    sizes = wire_bytes(MODELS["2nn"], uplink)
    assert [sent.after for sent in sizes] == [None, *uplink]
    assert sizes[0].tensor_bytes == MODELS["2nn"].num_bytes
    assert sizes[0].message_bytes > sizes[1].message_bytes > sizes[2].message_bytes
