"""The words in which algorithms, transforms, reducers and learners are written.

What performs programs, runtimes and stores, finds what else it needs in `hanse.core.exchange`. Names are
loaded when they are first used.
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.core import former
    from hanse.core.algorithm import Algorithm, Stop
    from hanse.core.chain import Chain, Plan, Stage, Transform
    from hanse.core.checks import (
        check_below_one,
        check_count,
        check_fraction,
        check_not_negative,
        check_positive,
    )
    from hanse.core.errors import (
        CompositionError,
        Diverged,
        HanseError,
        InvalidInput,
        MessageError,
        RoundAbandoned,
        StoreError,
        nearest,
    )
    from hanse.core.keys import Key, Keys
    from hanse.core.learner import Examples, Learner, Population, Steps
    from hanse.core.program import Close, Discount, PartSpec, Program, collect, dispatch, gather, sample
    from hanse.core.reducers import Reducer, mean, reduce, stack, sum
    from hanse.core.spec import Kind, Spec, TensorSpec
    from hanse.core.tensors import (
        Array,
        Tensors,
        add,
        add_scaled,
        divide,
        dot,
        l2_norm,
        negate,
        num_bytes,
        scale,
        subtract,
        tree_map,
        zeros_like,
    )
    from hanse.core.values import Plain, fields, value
    from hanse.core.work import (
        Contribution,
        Memory,
        Part,
        Parts,
        PartyId,
        Shared,
        Space,
        Total,
        Work,
        own_test,
        player,
    )
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.core.algorithm": ("Algorithm", "Stop"),
            "hanse.core.chain": ("Chain", "Plan", "Stage", "Transform"),
            "hanse.core.checks": (
                "check_below_one",
                "check_count",
                "check_fraction",
                "check_not_negative",
                "check_positive",
            ),
            "hanse.core.errors": (
                "CompositionError",
                "Diverged",
                "HanseError",
                "InvalidInput",
                "MessageError",
                "RoundAbandoned",
                "StoreError",
                "nearest",
            ),
            "hanse.core.keys": ("Key", "Keys"),
            "hanse.core.learner": ("Examples", "Learner", "Population", "Steps"),
            "hanse.core.program": (
                "Close",
                "Discount",
                "PartSpec",
                "Program",
                "collect",
                "dispatch",
                "gather",
                "sample",
            ),
            "hanse.core.reducers": ("Reducer", "mean", "reduce", "stack", "sum"),
            "hanse.core.spec": ("Kind", "Spec", "TensorSpec"),
            "hanse.core.tensors": (
                "Array",
                "Tensors",
                "add",
                "add_scaled",
                "divide",
                "dot",
                "l2_norm",
                "negate",
                "num_bytes",
                "scale",
                "subtract",
                "tree_map",
                "zeros_like",
            ),
            "hanse.core.values": ("Plain", "fields", "value"),
            "hanse.core.work": (
                "Contribution",
                "Memory",
                "Part",
                "Parts",
                "PartyId",
                "Shared",
                "Space",
                "Total",
                "Work",
                "own_test",
                "player",
            ),
        },
    )


__all__ = [
    "Algorithm",
    "Array",
    "Chain",
    "Close",
    "CompositionError",
    "Contribution",
    "Discount",
    "Diverged",
    "Examples",
    "HanseError",
    "InvalidInput",
    "Key",
    "Keys",
    "Kind",
    "Learner",
    "Memory",
    "MessageError",
    "Part",
    "PartSpec",
    "Parts",
    "PartyId",
    "Plain",
    "Plan",
    "Population",
    "Program",
    "Reducer",
    "RoundAbandoned",
    "Shared",
    "Space",
    "Spec",
    "Stage",
    "Steps",
    "Stop",
    "StoreError",
    "TensorSpec",
    "Tensors",
    "Total",
    "Transform",
    "Work",
    "add",
    "add_scaled",
    "check_below_one",
    "check_count",
    "check_fraction",
    "check_not_negative",
    "check_positive",
    "collect",
    "dispatch",
    "divide",
    "dot",
    "fields",
    "former",
    "gather",
    "l2_norm",
    "mean",
    "nearest",
    "negate",
    "num_bytes",
    "own_test",
    "player",
    "reduce",
    "sample",
    "scale",
    "stack",
    "subtract",
    "sum",
    "tree_map",
    "value",
    "zeros_like",
]
