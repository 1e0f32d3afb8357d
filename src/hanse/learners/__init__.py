"""Models bound to an engine: what turns data into gradients.

>>> from hanse.core.keys import Key
>>> learner = softmax(l2=1e-3).bind(feature_shape=(8, 8), num_classes=10)
>>> {name: value.shape for name, value in learner.init(Key.from_seed(0)).items()}
{'weights': (64, 10), 'bias': (10,)}
"""

from hanse.learners.model import Model, batches
from hanse.learners.numpy import least_squares, logistic, softmax

__all__ = ["Model", "batches", "least_squares", "logistic", "softmax"]
