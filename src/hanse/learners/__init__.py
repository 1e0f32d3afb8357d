"""Models bound to an engine: what turns data into gradients.

>>> from hanse.core.keys import Key
>>> learner = softmax(l2=1e-3).bind(feature_shape=(8, 8), num_classes=10)
>>> {name: value.shape for name, value in learner.init(Key.from_seed(0)).items()}
{'weights': (64, 10), 'bias': (10,)}
"""

from hanse.learners.cox import cox
from hanse.learners.duals import dual
from hanse.learners.elastic_net import elastic_net
from hanse.learners.model import Model, batches
from hanse.learners.numpy import least_squares, logistic, softmax
from hanse.learners.objective import objective
from hanse.learners.svm import hinge_svm, linear_svm

__all__ = [
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
