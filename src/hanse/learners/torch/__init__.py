"""The engine torch. Imported when a model asks for it."""

from hanse.learners.torch.binding import bind_network, bind_own
from hanse.learners.torch.learner import TorchLearner
from hanse.learners.torch.precision import units_for_bfloat16

__all__ = [
    "TorchLearner",
    "bind_network",
    "bind_own",
    "units_for_bfloat16",
]
