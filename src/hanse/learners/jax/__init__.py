"""The engine JAX. Imported when a model asks for it."""

from hanse.learners.jax.learner import JaxLearner, bind_network, bind_own
from hanse.learners.jax.programs import count_vmap_programs
from hanse.learners.jax.setup import on_processor

__all__ = [
    "JaxLearner",
    "bind_network",
    "bind_own",
    "count_vmap_programs",
    "on_processor",
]
