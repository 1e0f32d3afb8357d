"""Times the check of a ticket against its plan, and the dry performance before a run.

python benchmarks/network/envelopes.py
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hanse.algorithms import fed_avg
from hanse.core import Key, PartSpec, Spec
from hanse.core.exchange import Payload, Progress, Task, limit_bytes, training
from hanse.network.client import ClientHome, TicketCheck, check_again
from hanse.network.protocol import Plan, WorkOrder, seal_plan
from hanse.network.server import RunJob, foresee
from hanse.transforms import clip, quantize

KEY = Key.from_seed(0)


def measure_us(call: Callable[[], Any], repeats: int = 300) -> float:
    """Returns the median time of a call, in microseconds."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1e6 * float(np.median(times))


def main() -> None:
    for num_tensors, size, rounds in ((2, 325, 1000), (60, 100_000, 100), (400, 25_000, 100)):
        measure(num_tensors, size, rounds)


def measure(num_tensors: int, size: int, rounds: int) -> None:
    """Measures a model of so many tensors of this size."""
    params = {f"layer{i}.weight": np.zeros(size, np.float32) for i in range(num_tensors)}
    algorithm = fed_avg(lr=0.1, fraction=1.0, batch_size=32, uplink=(clip(1.0), quantize(2)))
    begin = Progress(0, algorithm.init(params, KEY))
    job = RunJob(
        Plan("r", "{}", None, (1,), None),
        lambda: begin,
        lambda progress: training(algorithm, progress, KEY, rounds=rounds),
        None,
        lambda role: None,
        10,
    )
    began = time.process_time()
    envelopes, why = foresee(job)
    dry_s = time.process_time() - began
    assert not why
    work = algorithm.work(0)
    uplink = {"update": PartSpec(Spec.of(params), algorithm.uplink, algorithm.into)}
    payload = Payload(work, {"params": params}, uplink, {"update": (None, None)})
    order = WorkOrder(
        run="r",
        ticket=1,
        task="",
        payload="0" * 64,
        payload_bytes=1,
        plan="0" * 64,
        plan_bytes=1,
        limit_bytes=limit_bytes(payload.chains) or 0,
        work="local_sgd",
    )
    sealed = seal_plan(replace(job.plan, envelopes=envelopes.write()))
    with TemporaryDirectory() as folder:
        home = ClientHome(Path(folder))
        (home.folder / "policy.toml").write_text("max_day_tickets = 100\nmin_examples = 20\n")
        check, task = TicketCheck(envelopes), Task(1, 0, KEY, None)
        new = measure_us(lambda: TicketCheck(envelopes).check(home, order, payload, task))
        known = measure_us(lambda: check.check(home, order, payload, task))
        again = measure_us(lambda: check_again(home, sealed))
        spent = measure_us(lambda: home.spent.add(tickets=1, upload_bytes=10))
    print(
        f"{num_tensors} tensors: a new payload {new:.0f} us, one seen before {known:.0f} us, the policy "
        f"{again:.0f} us, a line of sums {spent:.0f} us; plan +{len(envelopes.write())} bytes; "
        f"{rounds} rounds dry {dry_s:.2f} s"
    )


if __name__ == "__main__":
    main()
