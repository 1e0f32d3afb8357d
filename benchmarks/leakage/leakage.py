"""What the server reads off one client's message under each protection. Writes leakage.json beside it.

    python benchmarks/leakage/leakage.py

Rows are of digits, the model is softmax regression at its start, the message is a gradient of one row unless
the line says otherwise. A positive control is in the table: the first line, without protection.
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
    observe,
    read_label,
    read_row,
    read_row_of_class,
)
from hanse.learners import softmax
from hanse.privacy import gaussian, local_gaussian
from hanse.privacy.secure_sums import secure_sum
from hanse.transforms import cast, clip, quantize, rotate, top_k

ROWS = range(40)
DATA = digits().load()
LEARNER = softmax().bind((64,), 10)
PARAMS = LEARNER.init(Key.from_seed(0))
PRIOR, MEAN = Prior.fit(DATA.test, 10), DATA.test.x.mean(0)

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


def tabulate():
    """Yields a line for each chain."""
    guesses = [measure_psnr(MEAN, DATA.train.x[i]) for i in ROWS]
    for name, (uplink, into) in CHAINS.items():
        found = {"read off": [], "with the model": [], "with public rows": []}
        labels = []
        for i in ROWS:
            sight = ask(gradient(uniform()), DATA.train.take(np.array([i])), uplink, into, i)
            if not sight.parts:
                break
            seen, x = sight.parts["gradient"].values, DATA.train.x[i]
            known = read_row_of_class(
                seen, PARAMS, read_label(seen["bias"]), is_shortened=bool(name[0] in "cl")
            )
            likely = find_likeliest_row(seen, PARAMS, PRIOR)
            for how, row in zip(found, (read_row(seen), known, likely.x[0]), strict=True):
                found[how].append(measure_psnr(np.clip(row, 0, 1), x))
            labels.append(bool(likely.y[0] == DATA.train.y[i]))
        if not labels:
            yield {"protection": name, "seen": "sums only"}
            continue
        means = {how: round(float(np.mean(psnrs)), 1) for how, psnrs in found.items()}
        best = max(means.values())
        gain = round(best - float(np.mean(guesses)), 1)
        yield {"protection": name, "psnr_db": means, "gain_db": gain, "labels": float(np.mean(labels))}


def tabulate_batches():
    """Yields what the mean row of larger batches looks like, and which single rows an inversion finds."""
    for size in (1, 2, 4, 8, 32):
        data = DATA.train.take(np.arange(size))
        seen = ask(gradient(uniform()), data).parts["gradient"].values
        settings = Inversion(prior=1e-4, num_restarts=1)
        found = invert(
            seen, PARAMS, (64,), size, key=Key.from_seed(size), labels=data.y, mean=MEAN, settings=settings
        )
        order = match_rows(found.x, data.x)
        psnrs = [measure_psnr(np.clip(a, 0, 1), b) for a, b in zip(found.x[order], data.x, strict=True)]
        yield {"rows": size, "psnr_db": round(float(np.mean(psnrs)), 1), "best": round(max(psnrs), 1)}


def tabulate_updates():
    """Yields what FedAvg's weights give away after several local steps on one row."""
    for steps in (1, 5, 20):
        psnrs = []
        for i in range(5):
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
                key=Key.from_seed(i),
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


def tabulate_deep_leakage():
    """Yields the errors of DLG on a sigmoid LeNet, with noise on the gradient too."""
    net, params, scores = make_lenet()
    for size, noise in ((1, 0.0), (1, 0.1), (1, 1.0), (8, 0.0)):
        rows = Examples(DATA.train.x[:size].reshape(-1, 8, 8), DATA.train.y[:size])
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
            settings=Inversion(num_restarts=3 if size == 1 else 1, num_iterations=400),
        )
        order = match_rows(found.x, rows.x)
        error = float(np.mean((found.x[order] - rows.x) ** 2))
        spent_s = round(time.process_time() - began_s, 1)
        yield {"images": size, "noise": noise, "mse": float(f"{error:.2g}"), "processor_s": spent_s}


def main():
    """Writes all tables."""
    torch.set_num_threads(1)
    guess = float(np.mean([measure_psnr(MEAN, DATA.train.x[i]) for i in ROWS]))
    made = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}, a busy machine",
        "guess_db": round(guess, 1),
        "one gradient": list(tabulate()),
        "batches": list(tabulate_batches()),
        "updates": list(tabulate_updates()),
        "deep leakage": list(tabulate_deep_leakage()),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
