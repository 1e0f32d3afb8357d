"""Models, and the learners that they become when bound to data and an engine.

>>> from hanse.core import Key
>>> from hanse.learners import softmax
>>> learner = softmax(l2=1e-3).bind(feature_shape=(8, 8), num_classes=10)
>>> {name: value.shape for name, value in learner.init(Key.from_seed(0)).items()}
{'weights': (64, 10), 'bias': (10,)}
"""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.learners.engines import Engine, Precision, bfloat16, full, jax_engine, tf32, torch_engine
    from hanse.learners.linear.cox import cox
    from hanse.learners.linear.duals import dual
    from hanse.learners.linear.elastic_net import elastic_net
    from hanse.learners.linear.learner import Linear
    from hanse.learners.linear.models import least_squares, logistic, softmax
    from hanse.learners.linear.svm import hinge_svm, linear_svm
    from hanse.learners.model import Model, batches
    from hanse.learners.networks import Network, char_lstm, cnn, mlp
    from hanse.learners.objective import objective
    from hanse.learners.own import averaged_buffers, jax_model, local_buffers, torch_module
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.learners.engines": (
                "Engine",
                "Precision",
                "bfloat16",
                "full",
                "jax_engine",
                "tf32",
                "torch_engine",
            ),
            "hanse.learners.linear.cox": ("cox",),
            "hanse.learners.linear.duals": ("dual",),
            "hanse.learners.linear.elastic_net": ("elastic_net",),
            "hanse.learners.linear.learner": ("Linear",),
            "hanse.learners.linear.models": ("least_squares", "logistic", "softmax"),
            "hanse.learners.linear.svm": ("hinge_svm", "linear_svm"),
            "hanse.learners.model": ("Model", "batches"),
            "hanse.learners.networks": ("Network", "char_lstm", "cnn", "mlp"),
            "hanse.learners.objective": ("objective",),
            "hanse.learners.own": ("averaged_buffers", "jax_model", "local_buffers", "torch_module"),
        },
        registers={},
    )

__all__ = [
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
