"""FedProx: federated averaging whose clients are held near the server's model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated optimization in heterogeneous networks", MLSys 2020,
arXiv 1812.06127, Algorithm 2.
"""

from typing import Any

from hanse.algorithms.fed_avg import fed_avg
from hanse.core import Examples, Work, check_not_negative, value

__all__ = ["fed_prox"]


@value
class fed_prox(fed_avg):
    """Each client approximately minimises its objective plus a term that holds it near the server's model.

        w_k ~ argmin F_k(v) + (mu/2) |v - w|²;   w <- sum_k n_k w_k / sum_k n_k

    Converges to a point near the optimum of the weighted objective, nearer for a larger mu, which also
    makes it slower. With exact local solutions it stops where sum_k n_k (prox_k(w) - w) = 0. It is
    `fed_avg(client=sgd(lr, proximal=mu))`; with mu = 0 it is plain `fed_avg`. With one epoch and full batches
    the term has no effect.

    Args:
      lr: the clients' step size: a number or a schedule.
      fraction: of the clients in each round; at least one. None: as in `fed_avg`.
      epochs: local passes over the data; they set how well the local problem is solved.
      batch_size: examples a local step; None: all of a client's.
      weighting: `by_examples()` or `uniform()`.
      close: when a round closes.
      client: the clients' training, in place of lr, epochs and batch_size: `sgd()` with momentum and weight
        decay, `adam()`, `adamw()`, ...
      server_lr: step size on the mean update: a number or a schedule; 1 is the paper's.
      server: how the server uses the mean update, as in `fed_avg`.
      mu: strength of the term.
      uplink: transforms of the updates, first to last.
      into: the reducer.
      downlink: transforms of the broadcast; clients receive the difference to what they hold.
      sampling_rate: the probability of each client in each round, in place of `fraction`, as in `fed_avg`.
      separation: the least number of rounds between two of one client, as in `fed_avg`.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        check_not_negative("mu", self.mu)
        super().__post_init__()

    def work(self, num_rounds: int) -> Work[Any, Examples]:
        return self.training.work(num_rounds, self.weighting, proximal=self.mu)
