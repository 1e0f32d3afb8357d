"""Algorithms: one paper a file, each a program that every runtime performs."""

from hanse.algorithms.fed_avg import fed_avg
from hanse.algorithms.fed_buff import fed_buff
from hanse.algorithms.fed_sgd import fed_sgd
from hanse.algorithms.giant import giant
from hanse.algorithms.gossip import gossip
from hanse.algorithms.scaffold import scaffold
from hanse.algorithms.works import Weighting, by_examples, evaluation, uniform

__all__ = [
    "Weighting",
    "by_examples",
    "evaluation",
    "fed_avg",
    "fed_buff",
    "fed_sgd",
    "giant",
    "gossip",
    "scaffold",
    "uniform",
]
