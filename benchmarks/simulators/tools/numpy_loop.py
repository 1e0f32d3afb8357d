"""The best bare technique for linear models: a loop over clients in NumPy, the gradient written by hand."""

import numpy as np
from threadpoolctl import threadpool_limits
from turns import Turns
from workloads import norm


def main() -> None:
    threadpool_limits(1)
    turns = Turns()
    workload = turns.workload
    lr, batch = np.float32(workload.lr), workload.batch
    weights, bias = workload.start["output.weight"].T.copy(), workload.start["output.bias"]
    each = np.arange(batch)
    for number in range(turns.num_rounds):
        all_weights, all_bias = np.zeros_like(weights), np.zeros_like(bias)
        for place in range(workload.cohort):
            x, y = workload.batches(number, place)
            w, b = weights.copy(), bias.copy()
            for i in range(0, workload.examples, batch):
                scores = x[i : i + batch] @ w
                scores += b
                scores -= scores.max(1, keepdims=True)
                np.exp(scores, out=scores)
                scores /= scores.sum(1, keepdims=True)
                scores[each, y[i : i + batch]] -= 1
                scores *= lr / batch
                w -= x[i : i + batch].T @ scores
                b -= scores.sum(0)
            all_weights += w
            all_bias += b
        weights, bias = all_weights / np.float32(workload.cohort), all_bias / np.float32(workload.cohort)
        turns.done(lambda: norm([weights, bias]))  # noqa: B023  (it is called at once)


if __name__ == "__main__":
    main()
