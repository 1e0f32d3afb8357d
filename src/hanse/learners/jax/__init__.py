"""The engine JAX. Imported when a model asks for it."""

from hanse.learners.jax.learner import JaxLearner, bind_network, bind_own

__all__ = [
    "JaxLearner",
    "bind_network",
    "bind_own",
]
