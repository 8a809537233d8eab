"""The figures as pictures: small PNGs beside the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from bench.results import Labels, Results, Workload


def draw(results: Results, file: Path) -> list[Path]:
    """One picture for each of these workloads that was measured, named after the results file; their paths."""
    pictures: dict[str, Callable[[Workload], Any]] = {"pool": _pool, "http": _http, "overload": _overload}
    drawn = []
    for name, picture in pictures.items():
        if name in results.workloads:
            figure = picture(results.workloads[name])
            path = file.with_name(f"{file.stem}-{name}.png")
            figure.savefig(path, dpi=80)
            plt.close(figure)
            Image.open(path).quantize(32).save(path, optimize=True)  # a third of the size
            drawn.append(path)
    return drawn


def _lines(axes: Any, workload: Workload, common: Labels, x: str, y: str) -> None:
    """A line for each side."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in workload.select(**common):
        value = row.median(y)
        if value is not None:
            lines.setdefault(str(row.labels["side"]), []).append((float(row.labels[x]), value))
    for side, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=side)
    axes.set_xlabel(x)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _pool(pool: Workload) -> Any:
    figure, grid = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for row, operation in enumerate(("find_one", "insert_one")):
        for column, (y, title) in enumerate((("rate", "per second"), ("p99", "p99, ms"))):
            axes = grid[row][column]
            _lines(axes, pool, {"driver": "pymongo", "operation": operation}, "callers", y)
            axes.set(xscale="log", yscale="log", title=f"{operation}: {title} (PyMongo)")
    return figure


def _http(http: Workload) -> Any:
    figure, grid = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    cells = [("read", "rate"), ("list", "rate"), ("create", "rate"), ("read", "p99"), ("mix", "rate"), ("bulk", "rate")]
    for axes, (kind, y) in zip(grid.flat, cells, strict=True):
        _lines(axes, http, {"way": "nginx", "kind": kind}, "connections", y)
        axes.set(xscale="log", title=f"{kind}: {'requests per second' if y == 'rate' else 'p99, ms'} (nginx)")
        axes.set_ylim(bottom=0)
    return figure


def _overload(overload: Workload) -> Any:
    figure, grid = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for row, route in enumerate(("list", "read")):
        for column, (y, title) in enumerate((("goodput", "goodput per second"), ("p99", "p99 of what was served, ms"))):
            axes = grid[row][column]
            _lines(axes, overload, {"route": route}, "load", y)
            axes.set(title=f"{route}: {title}", xlabel="offered load, as a multiple of the capacity")
            if y == "p99":
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
    return figure
