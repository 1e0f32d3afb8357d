"""The rule of FLTrust: contributions count as far as they point where a trusted one points."""

from typing import ClassVar

import numpy as np

from hanse.core import Total, value
from hanse.robust.rows import MessageRows
from hanse.robust.rule import Rule

__all__ = ["cosine_trust"]


@value
class cosine_trust(Rule):
    """The mean of contributions, scaled to the length of the first one and weighted by their angle to it.

        t_i = max(0, <x_i, x_0> / (|x_i| |x_0|));   total = sum_i t_i (|x_0| / |x_i|) x_i / sum_i t_i

    The first contribution, x_0, is trusted and is not in the mean. If nobody points its way, the total is 0.
    Only `fl_trust`, which knows that the first is the server's own, puts it into a PartSpec.

    Runs at: server. Reveals: every contribution to the server. Names those that do not count as left out.
    References: Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust federated learning via trust bootstrapping",
      NDSS 2021, arXiv 2012.13995, equations (2) to (4).

    >>> from hanse.core import Part, reduce
    >>> rows = [(3.0, 4.0), (6.0, 8.0), (-3.0, -4.0)]
    >>> total = reduce(cosine_trust(), [Part({"w": np.array(x)}) for x in rows])
    >>> total.values, total.left_out
    ({'w': array([3., 4.])}, (2,))
    """

    is_setting: ClassVar[bool] = False

    @property
    def can_name(self) -> bool:
        return True

    def check_number(self, num_parts: int) -> None:
        self.require(num_parts, 2, "trusted examples: one contribution is the server's own")

    def aggregate(self, rows: MessageRows) -> Total:
        rows = rows.bound()
        gram = rows.gram()
        norms = np.sqrt(np.diag(gram))
        products = gram[0] / np.maximum(norms[0], np.finfo(float).tiny)
        scales = np.divide(1.0, norms, out=np.zeros(len(rows)), where=norms > 0)
        trust = np.maximum(products * scales, 0)
        trust[0] = 0.0
        coefficients = trust * scales * norms[0] / (trust.sum() or 1.0)
        return self.total(rows, coefficients, np.flatnonzero(trust[1:] == 0) + 1)
