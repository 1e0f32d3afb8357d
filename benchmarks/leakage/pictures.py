"""The pictures of docs/leakage.md: rows that were held back, and what is read of them. Writes docs/pictures.

python benchmarks/leakage/pictures.py
"""

from pathlib import Path

import numpy as np
import torch
from leakage import CHAINS, DATA, HELD_BACK, MEAN, PARAMS, PRIOR, ask, gradient, make_lenet, measure

from hanse.algorithms import uniform
from hanse.audits import draw_pictures
from hanse.core import Examples, Key
from hanse.leakage import Inversion, find_likeliest_row, invert, read_label, read_row
from hanse.learners import least_squares

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
ROWS = HELD_BACK[:7]
ORIGINALS = [DATA.train.x[i] for i in ROWS]


def score(rows):
    """Returns the mean PSNR."""
    return float(np.mean([measure(row, x)[0] for row, x in zip(rows, ORIGINALS, strict=True)]))


def caption(name, rows):
    """Returns a caption with the mean PSNR."""
    return f"{name}: {score(rows):.0f} dB"


def shape(rows):
    """Returns rows as pictures."""
    return [np.clip(np.reshape(row, (8, 8)), 0, 1) for row in rows]


def draw_least_squares():
    """Draws rows that were read off gradients of least squares."""
    learner = least_squares(dtype="float64").bind((64,), None)
    zero = {"weights": np.zeros(64), "bias": np.array(0.0)}
    sent = [learner.gradient(zero, Examples(DATA.train.x[[i]], DATA.train.y[[i]] + 1.0)) for i in ROWS]
    rows = [read_row(one) for one in sent]
    return {
        "rows of seven clients": shape(ORIGINALS),
        caption("read off their gradients of least squares", rows): shape(rows),
    }


def draw_deep_leakage():
    """Draws what DLG finds in gradients of a convolutional network, with noise too."""
    net, params, scores = make_lenet()
    found = {"rows": shape(ORIGINALS)}
    for name, noise in (("DLG", 0.0), ("DLG, noise of 10% of the norm", 0.1), ("noise of 100%", 1.0)):
        rows = []
        for i in ROWS:
            x = torch.tensor(DATA.train.x[[i]].reshape(-1, 8, 8)).double()
            y = torch.tensor(DATA.train.y[[i]])
            loss = torch.nn.functional.cross_entropy(scores(dict(net.named_parameters()), x), y)
            slopes = torch.autograd.grad(loss, list(net.parameters()))
            sent = {n: s.numpy() for n, s in zip(params, slopes, strict=True)}
            norm, total = (
                np.sqrt(sum((s**2).sum() for s in sent.values())),
                sum(s.size for s in sent.values()),
            )
            draws = np.random.default_rng(int(i))
            sent = {n: s + noise * norm / total**0.5 * draws.normal(size=s.shape) for n, s in sent.items()}
            labels = np.array([read_label(sent["5.bias"])])
            settings = Inversion(num_restarts=3, num_iterations=300)
            row = invert(
                sent, params, (8, 8), 1, key=Key.from_seed(0), labels=labels, scores=scores, settings=settings
            ).x[0]
            rows.append(row.ravel())
        found[caption(name, rows)] = shape(rows)
    return found


def draw_protections():
    """Draws what is read with public rows through chains that seem to help, and that help."""
    found = {"rows": shape(ORIGINALS)}
    for name, said in (
        ("cast(bfloat16)", "rounded to bfloat16"),
        ("pruning: top_k(.1)", "a tenth of the numbers"),
        ("quantize(2)", "rounded to 2 bits"),
        ("local noise, std .1 of the norm", "noise of .1 of the norm"),
        ("local noise, std 2 of the norm", "noise of 2 times the norm"),
    ):
        uplink, into = CHAINS[name]
        read, likely = [], []
        for i in ROWS:
            data = DATA.train.take(np.array([i]))
            seen = ask(gradient(uniform()), data, uplink, into, int(i)).parts["gradient"].values
            read.append(read_row(seen))
            likely.append(find_likeliest_row(seen, PARAMS, PRIOR).x[0])
        rows = max(read, likely, key=score)
        found[caption(said, rows)] = shape(rows)
    found[caption("without any message: the mean of public rows", [MEAN] * len(ROWS))] = shape(
        [MEAN] * len(ROWS)
    )
    return found


def draw_sums():
    """Draws what is read off the sums of several clients' messages, of one row each."""
    found = {"rows, each of a client among the others of its sum": shape(ORIGINALS)}
    for num in (1, 2, 10):
        rows = []
        for k, i in enumerate(ROWS):
            others = HELD_BACK[10 + k : 10 + k + num - 1]
            data = DATA.train.take(np.array([i, *others]))
            rows.append(read_row(ask(gradient(uniform()), data).parts["gradient"].values))
        name = "its own message" if num == 1 else f"a sum of {num} clients"
        found[caption(name, rows)] = shape(rows)
    return found


def main():
    """Writes all pictures."""
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for name, draw in (
        ("least-squares", draw_least_squares),
        ("deep-leakage", draw_deep_leakage),
        ("protections", draw_protections),
        ("sums", draw_sums),
    ):
        (FOLDER / f"leakage-{name}.svg").write_text(draw_pictures(draw()), encoding="utf-8")


if __name__ == "__main__":
    main()
