"""Algorithms: one paper a file, each a program that every runtime performs."""

from typing import TYPE_CHECKING

from hanse.lazy import load_from

if TYPE_CHECKING:
    from hanse.algorithms.async_sgd import async_sgd
    from hanse.algorithms.choco_sgd import choco_sgd
    from hanse.algorithms.client_optimisers import ClientOptimiser, ClientTraining, adam, adamw, sgd
    from hanse.algorithms.cocoa import DualLearner, adding, averaging, cocoa
    from hanse.algorithms.dane import dane
    from hanse.algorithms.decentralised_sgd import decentralised_sgd
    from hanse.algorithms.dga import dga
    from hanse.algorithms.fed_async import fed_async
    from hanse.algorithms.fed_avg import fed_avg
    from hanse.algorithms.fed_buff import Rest, apply_rest, drop_rest, fed_buff
    from hanse.algorithms.fed_dyn import fed_dyn
    from hanse.algorithms.fed_nova import fed_nova
    from hanse.algorithms.fed_opt import fed_adagrad, fed_adam, fed_yogi
    from hanse.algorithms.fed_prox import fed_prox
    from hanse.algorithms.fed_sgd import fed_sgd
    from hanse.algorithms.fl_trust import fl_trust
    from hanse.algorithms.fools_gold import fools_gold
    from hanse.algorithms.giant import giant
    from hanse.algorithms.gossip import gossip
    from hanse.algorithms.gradient_tracking import gradient_tracking
    from hanse.algorithms.graphs import (
        Graph,
        complete,
        exponential,
        graph_file,
        metropolis_weights,
        random_graph,
        ring,
        second_eigenvalue,
        spectral_gap,
        star,
        torus,
    )
    from hanse.algorithms.local import settle_fraction
    from hanse.algorithms.map_reduce import map_reduce
    from hanse.algorithms.nesterov import nesterov
    from hanse.algorithms.objectives import OBJECTIVE, objective_evaluation
    from hanse.algorithms.one_shot import one_shot
    from hanse.algorithms.optimisers import ServerOptimiser, adagrad, momentum, yogi
    from hanse.algorithms.own_functions import can_train
    from hanse.algorithms.own_training import trained_by
    from hanse.algorithms.peers import PeerTraining
    from hanse.algorithms.scaffold import scaffold
    from hanse.algorithms.schedules import (
        Schedule,
        constant,
        exponential_decay,
        inverse_time,
        rate,
        step_decay,
    )
    from hanse.algorithms.solvers import Solver, Subproblem, conjugate_gradients, local_steps, newton
    from hanse.algorithms.staleness import Staleness, any_staleness, hinge_staleness, polynomial_staleness
    from hanse.algorithms.works import Weighting, by_examples, evaluation, local_sgd, uniform
    from hanse.algorithms.zeno import zeno
else:
    __getattr__ = load_from(
        __name__,
        {
            "hanse.algorithms.async_sgd": ("async_sgd",),
            "hanse.algorithms.choco_sgd": ("choco_sgd",),
            "hanse.algorithms.client_optimisers": (
                "ClientOptimiser",
                "ClientTraining",
                "adam",
                "adamw",
                "sgd",
            ),
            "hanse.algorithms.cocoa": ("DualLearner", "adding", "averaging", "cocoa"),
            "hanse.algorithms.dane": ("dane",),
            "hanse.algorithms.decentralised_sgd": ("decentralised_sgd",),
            "hanse.algorithms.dga": ("dga",),
            "hanse.algorithms.fed_async": ("fed_async",),
            "hanse.algorithms.fed_avg": ("fed_avg",),
            "hanse.algorithms.fed_buff": ("Rest", "apply_rest", "drop_rest", "fed_buff"),
            "hanse.algorithms.fed_dyn": ("fed_dyn",),
            "hanse.algorithms.fed_nova": ("fed_nova",),
            "hanse.algorithms.fed_opt": ("fed_adagrad", "fed_adam", "fed_yogi"),
            "hanse.algorithms.fed_prox": ("fed_prox",),
            "hanse.algorithms.fed_sgd": ("fed_sgd",),
            "hanse.algorithms.fl_trust": ("fl_trust",),
            "hanse.algorithms.fools_gold": ("fools_gold",),
            "hanse.algorithms.giant": ("giant",),
            "hanse.algorithms.gossip": ("gossip",),
            "hanse.algorithms.gradient_tracking": ("gradient_tracking",),
            "hanse.algorithms.graphs": (
                "Graph",
                "complete",
                "exponential",
                "graph_file",
                "metropolis_weights",
                "random_graph",
                "ring",
                "second_eigenvalue",
                "spectral_gap",
                "star",
                "torus",
            ),
            "hanse.algorithms.local": ("settle_fraction",),
            "hanse.algorithms.map_reduce": ("map_reduce",),
            "hanse.algorithms.nesterov": ("nesterov",),
            "hanse.algorithms.objectives": ("OBJECTIVE", "objective_evaluation"),
            "hanse.algorithms.one_shot": ("one_shot",),
            "hanse.algorithms.optimisers": ("ServerOptimiser", "adagrad", "momentum", "yogi"),
            "hanse.algorithms.own_functions": ("can_train",),
            "hanse.algorithms.own_training": ("trained_by",),
            "hanse.algorithms.peers": ("PeerTraining",),
            "hanse.algorithms.scaffold": ("scaffold",),
            "hanse.algorithms.schedules": (
                "Schedule",
                "constant",
                "exponential_decay",
                "inverse_time",
                "rate",
                "step_decay",
            ),
            "hanse.algorithms.solvers": (
                "Solver",
                "Subproblem",
                "conjugate_gradients",
                "local_steps",
                "newton",
            ),
            "hanse.algorithms.staleness": (
                "Staleness",
                "any_staleness",
                "hinge_staleness",
                "polynomial_staleness",
            ),
            "hanse.algorithms.works": ("Weighting", "by_examples", "evaluation", "local_sgd", "uniform"),
            "hanse.algorithms.zeno": ("zeno",),
        },
        registers={
            "hanse.algorithms.choco_sgd": ("ChocoState",),
            "hanse.algorithms.cocoa": ("count_examples", "dual_ascent", "PrimalDual"),
            "hanse.algorithms.dane": ("tilted_minimum",),
            "hanse.algorithms.dga": ("delayed_gradient", "Delayed"),
            "hanse.algorithms.fed_buff": ("Buffered",),
            "hanse.algorithms.fed_dyn": ("Regularised", "dynamic_sgd"),
            "hanse.algorithms.fed_nova": ("normalised_sgd",),
            "hanse.algorithms.fools_gold": ("SimilarityState",),
            "hanse.algorithms.giant": ("newton_direction", "objectives_along"),
            "hanse.algorithms.gossip": ("Peer", "step_and_show", "look"),
            "hanse.algorithms.gradient_tracking": ("TrackingState",),
            "hanse.algorithms.nesterov": ("Accelerated",),
            "hanse.algorithms.objectives": ("local_objective",),
            "hanse.algorithms.one_shot": ("local_minimum",),
            "hanse.algorithms.optimisers": ("OptimiserState",),
            "hanse.algorithms.own_memory": ("kept_tensor", "kept_list"),
            "hanse.algorithms.own_training": ("own_loop",),
            "hanse.algorithms.peers": ("PeerState", "peer_gradient"),
            "hanse.algorithms.scaffold": ("Controlled", "controlled_sgd"),
            "hanse.algorithms.staleness": ("Versions",),
            "hanse.algorithms.works": ("gradient", "batch_gradient", "evaluate"),
            "hanse.algorithms.zeno": ("try_updates",),
        },
    )

__all__ = [
    "OBJECTIVE",
    "ClientOptimiser",
    "ClientTraining",
    "DualLearner",
    "Graph",
    "PeerTraining",
    "Rest",
    "Schedule",
    "ServerOptimiser",
    "Solver",
    "Staleness",
    "Subproblem",
    "Weighting",
    "adagrad",
    "adam",
    "adamw",
    "adding",
    "any_staleness",
    "apply_rest",
    "async_sgd",
    "averaging",
    "by_examples",
    "can_train",
    "choco_sgd",
    "cocoa",
    "complete",
    "conjugate_gradients",
    "constant",
    "dane",
    "decentralised_sgd",
    "dga",
    "drop_rest",
    "evaluation",
    "exponential",
    "exponential_decay",
    "fed_adagrad",
    "fed_adam",
    "fed_async",
    "fed_avg",
    "fed_buff",
    "fed_dyn",
    "fed_nova",
    "fed_prox",
    "fed_sgd",
    "fed_yogi",
    "fl_trust",
    "fools_gold",
    "giant",
    "gossip",
    "gradient_tracking",
    "graph_file",
    "hinge_staleness",
    "inverse_time",
    "local_sgd",
    "local_steps",
    "map_reduce",
    "metropolis_weights",
    "momentum",
    "nesterov",
    "newton",
    "objective_evaluation",
    "one_shot",
    "polynomial_staleness",
    "random_graph",
    "rate",
    "ring",
    "scaffold",
    "second_eigenvalue",
    "settle_fraction",
    "sgd",
    "spectral_gap",
    "star",
    "step_decay",
    "torus",
    "trained_by",
    "uniform",
    "yogi",
    "zeno",
]
