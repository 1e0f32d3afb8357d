"""What the server reads off one client's message under each protection. Writes leakage.json beside it.

    python benchmarks/leakage/leakage.py

Rows are of digits, the model is softmax regression at its start, the message is a gradient of one row unless
the line says otherwise. A positive control is in the table: the first line, without protection. All figures
are given for rows that were held back, and for those that the attacks were developed on.
"""

import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from hanse.algorithms import uniform
from hanse.algorithms.works import gradient, local_sgd
from hanse.core import Examples, Key, Keys, Steps, fixed_mean
from hanse.data import digits
from hanse.leakage import (
    Inversion,
    Prior,
    ask_client,
    find_likeliest_row,
    invert,
    match_rows,
    measure_psnr,
    measure_ssim,
    observe,
    read_label,
    read_row,
    read_row_of_class,
)
from hanse.learners import softmax
from hanse.privacy import gaussian, local_gaussian
from hanse.privacy.secure_sums import secure_sum
from hanse.transforms import cast, clip, quantize, rotate, top_k

DEVELOPED_ON = tuple(range(40))
"""The rows that the attacks were developed on."""

DATA = digits().load()
LEARNER = softmax().bind((64,), 10)
PARAMS = LEARNER.init(Key.from_seed(0))
PRIOR, MEAN = Prior.fit(DATA.test, 10), DATA.test.x.mean(0)
HELD_BACK = tuple(np.random.default_rng(20261127).choice(np.arange(100, len(DATA.train)), 40, replace=False))
"""Rows that were never looked at: neither here, nor in tests, which use the first hundred."""

CHAINS = {
    "no protection": ((), None),
    "clip(1)": ((clip(1.0),), None),
    "central noise z=1": ((clip(1.0), gaussian(1.0)), fixed_mean(1.0)),
    "cast(bfloat16)": ((cast("bfloat16"),), None),
    "quantize(8)": ((quantize(8),), None),
    "pruning: top_k(.1)": ((top_k(0.1),), None),
    "quantize(2)": ((quantize(2),), None),
    "rotate, quantize(2)": ((rotate(), quantize(2)), None),
    "local noise, std .1 of the norm": ((clip(1.0), local_gaussian(0.05)), None),
    "local noise, std .2 of the norm": ((clip(1.0), local_gaussian(0.1)), None),
    "local noise, std 2 of the norm": ((clip(1.0), local_gaussian(1.0)), None),
    "secure sum": ((clip(1.0),), secure_sum(max_clients=10)),
}


def ask(work, data, uplink=(), into=None, seed=0, part="gradient", learner=LEARNER, params=PARAMS):
    """Returns what the server sees of one client."""
    shared = {"params": params}
    return observe(ask_client(work, learner, data, shared, part, uplink, into, keys=Keys.from_seed(seed)))


def measure(row, x):
    """Returns the PSNR and the SSIM of a reconstruction."""
    row = np.clip(row, 0, 1)
    return measure_psnr(row, x), measure_ssim(row.reshape(8, 8), x.reshape(8, 8))


def describe(name, found, labels, rows):
    """Returns a line of the table: the mean PSNR of each attack; median, SSIM and gain are of the best."""
    guess = float(np.mean([measure_psnr(MEAN, DATA.train.x[i]) for i in rows]))
    means = {how: np.mean(pairs, axis=0) for how, pairs in found.items() if pairs}
    way = max(means, key=lambda how: means[how][0])
    best = means[way]
    return {
        "protection": name,
        "psnr_db": {how: round(float(pair[0]), 1) for how, pair in means.items()},
        "median_db": round(float(np.median([psnr for psnr, _ in found[way]])), 1),
        "ssim": round(float(best[1]), 2),
        "gain_db": round(float(best[0]) - guess, 1),
        "labels": float(np.mean(labels)),
    }


def tabulate(rows):
    """Yields a line for each protection, attacked on these rows."""
    for name, (uplink, into) in CHAINS.items():
        found = {"read off": [], "with the model": [], "with public rows": []}
        labels = []
        for i in rows:
            sight = ask(gradient(uniform()), DATA.train.take(np.array([i])), uplink, into, int(i))
            if not sight.parts:
                break
            seen, x = sight.parts["gradient"].values, DATA.train.x[i]
            known = read_row_of_class(
                seen, PARAMS, read_label(seen["bias"]), is_shortened=bool(name[0] in "cl")
            )
            likely = find_likeliest_row(seen, PARAMS, PRIOR)
            for how, row in zip(found, (read_row(seen), known, likely.x[0]), strict=True):
                found[how].append(measure(row, x))
            labels.append(bool(likely.y[0] == DATA.train.y[i]))
        if not labels:
            yield {"protection": name, "seen": "sums only"}
            continue
        yield describe(name, found, labels, rows)
    yield from tabulate_random_matrices(rows)
    yield tabulate_large_batch(rows)


def tabulate_random_matrices(rows):
    """Yields what a secret random rotation of all rows, which clients share, hides from the server.

    The attacker knows nothing, or some rows as they are and as they are sent: a client's own are enough.
    """
    secret, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(64, 64)))
    for num_known in (0, 32, 64, 128):
        known = DATA.test.x[:num_known].astype(np.float64)
        # the shortest matrix that maps what was sent of the known rows to them
        undo = np.linalg.pinv(known @ secret) @ known if num_known else np.eye(64)
        found, labels = [], []
        for i in rows:
            data = Examples(DATA.train.x[[i]] @ secret, DATA.train.y[[i]])
            seen = ask(gradient(uniform()), data).parts["gradient"].values
            found.append(measure(read_row(seen) @ undo, DATA.train.x[i]))
            labels.append(read_label(seen["bias"]) == DATA.train.y[i])
        name = f"secret random matrix, {num_known or 'no'} rows known"
        yield describe(name, {"read off": found}, labels, rows)


def tabulate_large_batch(rows, size=32):
    """Returns what is found of all rows of one batch, by descent, with known labels."""
    at = np.array(rows[:size])
    data = DATA.train.take(at)
    seen = ask(gradient(uniform()), data).parts["gradient"].values
    found = search(seen, data, size)
    pairs = [measure(a, b) for a, b in zip(found, data.x, strict=True)]
    alone = [measure(read_row(seen), x) for x in data.x]
    line = describe(f"large batch: {size} rows", {"read off": alone, "by descent": pairs}, [1.0], at)
    return {**line, "labels": None, "best": round(max(psnr for psnr, _ in pairs), 1)}


def search(seen, data, size):
    """Returns the rows that descent finds in a gradient, in the order of the originals."""
    settings = Inversion(prior=1e-4, num_restarts=1)
    found = invert(
        seen, PARAMS, (64,), size, key=Key.from_seed(size), labels=data.y, mean=MEAN, settings=settings
    )
    return found.x[match_rows(found.x, data.x)]


def tabulate_batches(rows):
    """Yields what the mean row of larger batches looks like, and which single rows an inversion finds."""
    for size in (1, 2, 4, 8, 32):
        data = DATA.train.take(np.array(rows[:size]))
        seen = ask(gradient(uniform()), data).parts["gradient"].values
        psnrs = [measure(a, b)[0] for a, b in zip(search(seen, data, size), data.x, strict=True)]
        yield {"rows": size, "psnr_db": round(float(np.mean(psnrs)), 1), "best": round(max(psnrs), 1)}


def tabulate_updates(rows):
    """Yields what FedAvg's weights give away after several local steps on one row."""
    for steps in (1, 5, 20):
        psnrs = []
        for i in rows[:5]:
            data = DATA.train.take(np.array([i]))
            work = local_sgd(Steps(lr=0.1, num_steps=steps), uniform())
            seen = ask(work, data, part="update").parts["update"].values
            settings = Inversion(lr=0.1, num_steps=steps, num_restarts=1)
            label = read_label(-seen["bias"])
            found = invert(
                seen,
                PARAMS,
                (64,),
                1,
                key=Key.from_seed(int(i)),
                labels=np.array([label]),
                mean=MEAN,
                settings=settings,
            )
            psnrs.append(measure_psnr(found.x[0], data.x[0]))
        yield {"local steps": steps, "psnr_db": round(float(np.mean(psnrs)), 1)}


def make_lenet():
    """Returns the small sigmoid LeNet of the paper for 8 x 8 images, and its scores by its parameters."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 12, 5, padding=2, stride=2),
        torch.nn.Sigmoid(),
        torch.nn.Conv2d(12, 12, 5, padding=2, stride=1),
        torch.nn.Sigmoid(),
        torch.nn.Flatten(),
        torch.nn.Linear(192, 10),
    ).double()
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.5, 0.5)
    params = {name: p.detach().numpy() for name, p in net.named_parameters()}

    def scores(p, x):
        return torch.func.functional_call(net, dict(p), (x.reshape(-1, 1, 8, 8),))

    return net, params, scores


def tabulate_deep_leakage(rows_at):
    """Yields the errors of DLG on a sigmoid LeNet, with noise on the gradient too."""
    net, params, scores = make_lenet()
    for size, noise in ((1, 0.0), (1, 0.1), (1, 1.0), (8, 0.0)):
        at = np.array(rows_at[:size])
        rows = Examples(DATA.train.x[at].reshape(-1, 8, 8), DATA.train.y[at])
        loss = torch.nn.functional.cross_entropy(
            scores(dict(net.named_parameters()), torch.tensor(rows.x).double()), torch.tensor(rows.y)
        )
        slopes = torch.autograd.grad(loss, list(net.parameters()))
        sent = {name: s.numpy() for name, s in zip(params, slopes, strict=True)}
        norm = np.sqrt(sum((s**2).sum() for s in sent.values()))
        draws, total = np.random.default_rng(0), sum(s.size for s in sent.values())
        sent = {n: s + noise * norm / np.sqrt(total) * draws.normal(size=s.shape) for n, s in sent.items()}
        began_s = time.process_time()
        labels = rows.y if size > 1 else np.array([read_label(sent["5.bias"])])
        found = invert(
            sent,
            params,
            (8, 8),
            size,
            key=Key.from_seed(0),
            labels=labels,
            scores=scores,
            settings=Inversion(num_restarts=3 if size == 1 else 8, num_iterations=400),
        )
        order = match_rows(found.x, rows.x)
        error = float(np.mean((found.x[order] - rows.x) ** 2))
        spent_s = round(time.process_time() - began_s, 1)
        yield {"images": size, "noise": noise, "mse": float(f"{error:.2g}"), "processor_s": spent_s}


def main():
    """Writes all tables."""
    torch.set_num_threads(1)
    began_s = time.process_time()
    made = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}, a busy machine",
    }
    for name, rows in (("held back", HELD_BACK), ("developed on", DEVELOPED_ON)):
        made[name] = {
            "guess_db": round(float(np.mean([measure_psnr(MEAN, DATA.train.x[i]) for i in rows])), 1),
            "one gradient": list(tabulate(rows)),
            "batches": list(tabulate_batches(rows)),
            "updates": list(tabulate_updates(rows)),
            "deep leakage": list(tabulate_deep_leakage(rows)),
        }
    made["processor_s"] = round(time.process_time() - began_s)
    Path(__file__).with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
