"""What a drill has measured over time, as a picture: a small PNG."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from drill.load import Series

COLUMNS = 3


def draw(series: Series, path: Path) -> None:
    """Each in a part of its own, from 0, with seconds on the other axis."""
    rows = math.ceil(len(series) / COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(11, 2.2 * rows), layout="constrained", squeeze=False)
    for axes in grid.flat[len(series) :]:
        axes.remove()
    for axes, (what, points) in zip(grid.flat, series.items(), strict=False):
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(what, fontsize=9)
        axes.set_ylim(bottom=0, top=1.3 * max(value for _, value in points) or 1)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    Image.open(path).quantize(32).save(path, optimize=True)
