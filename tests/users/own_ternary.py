"""TernGrad, as a user would write it beside a settings file.

Wen, Xu, Yan, Wu, Wang, Chen, Li, "TernGrad: ternary gradients to reduce communication in distributed deep
learning", NeurIPS 2017, arXiv 1705.07878, equation 3.
"""

from dataclasses import replace

import numpy as np

from hanse.core import (
    CompositionError,
    Key,
    Keys,
    Memory,
    Part,
    Plan,
    Spec,
    Stage,
    TensorSpec,
    Transform,
    value,
)


@value
class own_ternary(Transform):
    """Rounds each entry at random to -s, 0 or s, where s is the largest size of its tensor: unbiased."""

    def __call__(self, spec: Spec) -> Stage:
        if spec.kind != "real":
            raise CompositionError(f"own_ternary() needs real numbers, these are {spec.kind}: put it first")
        signs = {f"{name}/signs": TensorSpec(t.shape, "int8") for name, t in spec.tensors.items()}
        sizes = {f"{name}/size": TensorSpec((), t.dtype) for name, t in spec.tensors.items()}

        def encode(plan: Plan, part: Part, memory: Memory, keys: Keys) -> tuple[Part, Memory]:
            sent = {}
            for name, x in part.values.items():
                size = np.abs(x).max(initial=0.0)
                kept = keys.public.fold_in(name).rng().random(x.shape) * size < np.abs(x)
                sent[f"{name}/signs"] = (np.sign(x) * kept).astype(np.int8)
                sent[f"{name}/size"] = np.asarray(size, x.dtype)
            return replace(part, values=sent), memory

        def open(plan: Plan, part: Part, client_key: Key) -> Part:
            values = {
                name: (part.values[f"{name}/size"] * part.values[f"{name}/signs"]).astype(t.dtype)
                for name, t in spec.tensors.items()
            }
            return replace(part, values=values)

        return Stage(Spec({**signs, **sizes}, kind="coded", summable=False), encode=encode, open=open)
