"""Draws the pictures of docs/leakage.md: originals above, what the server reads off below; needs matplotlib.

python benchmarks/leakage/pictures.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from leakage import CHAINS, DATA, PARAMS, PRIOR, ask
from matplotlib import pyplot as plt

from hanse.algorithms import uniform
from hanse.algorithms.works import gradient
from hanse.leakage import find_likeliest_row

SHOWN = range(8)


def draw(folder):
    """Writes one picture for each protection that shows single messages."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (uplink, into)) in enumerate(CHAINS.items()):
        figure, axes = plt.subplots(2, len(SHOWN), figsize=(8, 2.2))
        for i in SHOWN:
            sight = ask(gradient(uniform()), DATA.train.take(np.array([i])), uplink, into, i)
            images = [DATA.train.x[i]]
            if sight.parts:
                images.append(find_likeliest_row(sight.parts["gradient"].values, PARAMS, PRIOR).x[0])
            for axis, image in zip(axes[:, i], images, strict=False):
                axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            for axis in axes[:, i]:
                axis.axis("off")
        figure.suptitle(name)
        figure.savefig(folder / f"{number:02}.png", dpi=100)
        plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
