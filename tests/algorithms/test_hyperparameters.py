"""Hyper-parameters out of range are refused when an algorithm is made, with what to write instead."""

from typing import Any

import pytest

import hanse.algorithms
from hanse.algorithms import (
    adagrad,
    adam,
    adamw,
    async_sgd,
    choco_sgd,
    cocoa,
    dane,
    decentralised_sgd,
    dga,
    fed_adagrad,
    fed_adam,
    fed_async,
    fed_avg,
    fed_buff,
    fed_dyn,
    fed_nova,
    fed_prox,
    fed_sgd,
    fed_yogi,
    fl_trust,
    fools_gold,
    giant,
    gossip,
    gradient_tracking,
    hinge_staleness,
    local_steps,
    map_reduce,
    momentum,
    nesterov,
    newton,
    one_shot,
    polynomial_staleness,
    scaffold,
    sgd,
    yogi,
    zeno,
)
from hanse.core import Algorithm, InvalidInput, fields
from hanse.core.exchange import find_classes

NAN, INF = float("nan"), float("inf")
Wrong = tuple[dict[str, Any], str]

LR: list[Wrong] = [
    ({"lr": 0.0}, r"^lr is 0\.0; write a step size above 0, or a schedule"),
    ({"lr": -0.1}, r"^lr is -0\.1; write a step size above 0"),
    ({"lr": NAN}, "^lr is nan; write a step size above 0"),
    ({"lr": INF}, "^lr is inf; write a step size above 0"),
]
SAMPLING: list[Wrong] = [
    ({"sampling_rate": 0.0}, "^sampling_rate is 0.0; write a probability above 0 and at most 1"),
    ({"sampling_rate": 1.5}, "^sampling_rate is 1.5; write a probability"),
    ({"sampling_rate": 0.5, "fraction": 0.5}, "^fraction is 0.5 and sampling_rate is 0.5; write one"),
]
SERVER_LR: list[Wrong] = [
    ({"server_lr": 0.0}, r"^server_lr is 0\.0; write a step size above 0, or a schedule"),
    ({"server_lr": NAN}, "^server_lr is nan"),
]
FRACTION: list[Wrong] = [
    ({"fraction": 0.0}, r"^fraction is 0\.0; write a share of the clients above 0 and at most 1"),
    ({"fraction": 1.01}, r"^fraction is 1\.01"),
    ({"fraction": NAN}, "^fraction is nan"),
]
STEPS: list[Wrong] = [
    ({"epochs": 0}, "^epochs is 0; write at least 1"),
    ({"batch_size": 0}, "^batch_size is 0; write at least 1, or leave it out for full batches"),
]
LOCAL = [*LR, *FRACTION, *STEPS]
BETA1: list[Wrong] = [({"beta1": 1.0}, r"^beta1 is 1\.0; write a number of at least 0 and below 1")]
BETA2: list[Wrong] = [({"beta2": -0.1}, r"^beta2 is -0\.1; write a number of at least 0 and below 1")]
TAU: list[Wrong] = [({"tau": 0.0}, r"^tau is 0\.0; write a number above 0")]
MU: list[Wrong] = [
    ({"mu": -1.0}, r"^mu is -1\.0; write a number of at least 0"),
    ({"mu": INF}, "^mu is inf; write a number of at least 0"),
]
EPS: list[Wrong] = [({"eps": 0.0}, r"^eps is 0\.0; write a number above 0")]
DECAY: list[Wrong] = [({"weight_decay": -1.0}, r"^weight_decay is -1\.0; write a number of at least 0")]
MOMENTUM: list[Wrong] = [
    ({"momentum": 1.0}, r"^momentum is 1\.0; write a number of at least 0 and below 1"),
]
CLIENT: list[Wrong] = [
    *LR,
    *(({"lr": 0.1, **settings}, message) for settings, message in STEPS),
    ({"lr": 0.1, "num_steps": 0}, "^num_steps is 0; write at least 1"),
    ({"lr": 0.1, "num_steps": 3, "epochs": 2}, "^epochs is 2 and num_steps is 3; write one of them"),
    ({"lr": 0.1, "proximal": -1.0}, r"^proximal is -1\.0; write a number of at least 0"),
    ({"lr": 0.1, "lr_scales": {"hidden1": -1.0}}, r"^lr_scales\['hidden1'\] is -1\.0"),
]
TOLERANCE: list[Wrong] = [({"tolerance": 0.0}, r"^tolerance is 0\.0; write a number above 0")]

BATCH: list[Wrong] = [({"batch_size": 0}, "^batch_size is 0; write at least 1")]
CONCURRENCY: list[Wrong] = [({"concurrency": 0}, "^concurrency is 0; write at least 1")]
PEERS: list[Wrong] = [
    *LR,
    ({"batch_size": 0}, "^batch_size is 0; write at least 1"),
    ({"link_failure": 1.0}, r"^link_failure is 1\.0; write a number of at least 0 and below 1"),
]

TABLE: dict[type, list[Wrong]] = {
    async_sgd: [*LR, *BATCH, *CONCURRENCY],
    choco_sgd: [
        *PEERS,
        ({"gamma": 0.0}, r"^gamma is 0\.0; write a number above 0 and at most 1"),
        ({"gamma": 1.5}, r"^gamma is 1\.5"),
        ({"gamma": NAN}, "^gamma is nan"),
    ],
    cocoa: [*FRACTION, ({"epochs": 0}, "^epochs is 0; write at least 1")],
    dane: [*FRACTION, *MU, ({"eta": 0.0}, r"^eta is 0\.0; write a number above 0")],
    dga: [
        *LR,
        *BATCH,
        ({"delay": -1}, "^delay is -1; write a number of steps, at least 0"),
        ({"num_steps": 0}, "^num_steps is 0; write at least 1"),
    ],
    decentralised_sgd: PEERS,
    fed_adagrad: [*LOCAL, *SAMPLING, *SERVER_LR, *BETA1, *TAU],
    fed_adam: [*LOCAL, *SAMPLING, *SERVER_LR, *BETA1, *BETA2, *TAU],
    fed_async: [
        *LR,
        *STEPS,
        *MU,
        *CONCURRENCY,
        ({"alpha": 0.0}, r"^alpha is 0\.0; write a weight above 0 and at most 1"),
        ({"alpha": 1.5}, r"^alpha is 1\.5"),
        ({"alpha": NAN}, "^alpha is nan"),
    ],
    fed_avg: [*LOCAL, *SAMPLING, *SERVER_LR],
    fed_buff: [
        *LR,
        *SERVER_LR,
        *STEPS,
        ({"buffer_size": 0}, "^buffer_size is 0 with concurrency 20; write at least 1"),
        ({"buffer_size": 30}, "^buffer_size is 30 with concurrency 20"),
    ],
    fed_dyn: [
        *LOCAL,
        ({"alpha": 0.0}, r"^alpha is 0\.0; write a number above 0"),
        ({"alpha": NAN}, "^alpha is nan"),
        *SERVER_LR,
    ],
    fed_nova: [*LOCAL, *SERVER_LR, *MU],
    fed_prox: [*LOCAL, *SAMPLING, *SERVER_LR, *MU],
    fed_sgd: [*LR, *FRACTION],
    fed_yogi: [*LOCAL, *SAMPLING, *SERVER_LR, *BETA1, *BETA2, *TAU],
    giant: [
        *FRACTION,
        *TOLERANCE,
        ({"num_iterations": 0}, "^num_iterations is 0; write at least 1"),
        ({"steps": ()}, r"^steps is \(\); write step sizes above 0, largest first"),
        ({"steps": (1.0, 0.0)}, r"^steps is \(1\.0, 0\.0\)"),
        ({"armijo": 1.0}, r"^armijo is 1\.0; write a number of at least 0 and below 1"),
    ],
    map_reduce: LR,
    gradient_tracking: PEERS,
    nesterov: [
        *LR,
        *FRACTION,
        *MOMENTUM,
    ],
    one_shot: FRACTION,
    scaffold: [*LOCAL, *SERVER_LR],
}
PARTS: dict[type, list[Wrong]] = {
    adagrad: [*BETA1, *TAU],
    adam: [*CLIENT, *BETA1, *BETA2, *EPS, *DECAY],
    adamw: [*CLIENT, *BETA1, *BETA2, *EPS, *DECAY],
    sgd: [
        *CLIENT,
        *MOMENTUM,
        *DECAY,
        ({"nesterov": True}, "^nesterov is true and momentum is 0; write a momentum"),
    ],
    hinge_staleness: [
        ({"slope": -1.0}, r"^slope is -1\.0; write a number of at least 0"),
        ({"free": -1}, "^free is -1; write a number of server steps, at least 0"),
    ],
    local_steps: [*LR, *STEPS],
    momentum: [({"beta": 1.0}, r"^beta is 1\.0; write a number of at least 0 and below 1")],
    newton: [
        *TOLERANCE,
        ({"num_iterations": 0}, "^num_iterations is 0; write at least 1"),
        ({"num_products": 0}, "^num_products is 0; write at least 1"),
    ],
    polynomial_staleness: [({"exponent": -0.5}, r"^exponent is -0\.5; write a number of at least 0")],
    yogi: [*BETA1, *BETA2, *TAU],
}
ROWS = [
    pytest.param(make, settings, message, id=f"{make.__name__}({settings})")
    for make, rows in (TABLE | PARTS).items()
    for settings, message in rows
]


@pytest.mark.parametrize(("make", "settings", "message"), ROWS)
def test_out_of_range(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make(**settings)


def test_gossip_checks_its_weights_and_step() -> None:
    with pytest.raises(InvalidInput, match=r"the weights of peer 0 are \(\(1, 1\.0\),\); name it"):
        gossip(0, ((1, 1.0),))
    with pytest.raises(InvalidInput, match=r"^lr is 0\.0; write a step size above 0, or a schedule"):
        gossip(0, ((0, 1.0),), 0.0)


def test_the_table_covers_all_algorithms_and_their_numbers() -> None:
    ours = {c for c in find_classes(Algorithm).values() if c.__module__.startswith("hanse.algorithms.")}
    assert ours - TABLE.keys() == {gossip, fl_trust, fools_gold, zeno}  # see tests/robust for these three
    for algorithm, rows in TABLE.items():
        checked = {name for settings, _ in rows for name in settings}
        values = {
            "weighting",
            "uplink",
            "compression",
            "into",
            "close",
            "downlink",
            "client",
            "server",
            "solver",
            "combine",
            "discount",
            "graph",
            "concurrency",
            "separation",
            "rest",
            "staleness",
        }
        assert {f.name for f in fields(algorithm)} - checked <= values, algorithm


def test_every_algorithm_says_where_it_converges() -> None:
    for algorithm in (*TABLE, gossip):
        said = " ".join((algorithm.__doc__ or "").split())
        assert any(
            word in said
            for word in (
                "Converges to",
                "Converges, ",
                "converges to",
                "it does so to",
                "Ends near",
                "end near",
            )
        ), algorithm
        assert "optimum" in said, algorithm


def test_the_public_names() -> None:
    assert all(hasattr(hanse.algorithms, name) for name in hanse.algorithms.__all__)
    assert {make.__name__ for make in (*TABLE, *PARTS, gossip)} <= set(hanse.algorithms.__all__)
