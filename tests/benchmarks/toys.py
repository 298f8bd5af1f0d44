r"""Densities in two dimensions whose truth is known: a ring, two moons, eight Gaussians.

    python -m tests.benchmarks.toys --max-time 60
    python -m tests.benchmarks.toys ring --plot toys.png
    python -m tests.benchmarks.toys --quick

Printed are the divergence KL(p || p̂), the mean of log p - log p̂ over test rows drawn from the truth, with its
standard error; the mean of \|log p̂ - log p\| over the same rows; and the mass of p̂ on a grid that holds all of the
truth's, which should be one. Components, bandwidth and the end of training are chosen on validation rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from tests.benchmarks.optional_peers import Flow
from tests.benchmarks.tables import available, estimator, machine, markdown, plus_minus, timed

EXTENT = 4.0  # all of the truths lie in [-4, 4]^2
NAMES = ["x", "y"]


class Toy(NamedTuple):
    """A law in the plane: rows from it, and its log-density."""

    sample: Callable[[int, np.random.Generator], np.ndarray]
    log_density: Callable[[np.ndarray], np.ndarray]


# -- the truths ---------------------------------------------------------------------------------


def ring(radius: float = 2.0, deviation: float = 0.15) -> Toy:
    """An even angle, a Gaussian radius: p(z) = N(r; radius, deviation^2) / (2 pi r)."""

    def sample(n: int, random: np.random.Generator) -> np.ndarray:
        angle, r = random.uniform(0, 2 * np.pi, n), random.normal(radius, deviation, n)
        return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)

    def log_density(z: np.ndarray) -> np.ndarray:
        # A radius below zero is 13 deviations away, and is left out.
        r = np.maximum(np.hypot(*z.T), 1e-12)
        gauss = -0.5 * ((r - radius) / deviation) ** 2
        return gauss - np.log(2 * np.pi * r * deviation * np.sqrt(2 * np.pi))

    return Toy(sample, log_density)


def moons(deviation: float = 0.15, n_points: int = 400) -> Toy:
    """Two half circles of radius 2 with Gaussian noise; the density is a sum over points of the arcs.

    The points are a twentieth of a deviation apart: the midpoint rule of a Gaussian is exact to rounding then.
    """
    centres = np.array([[-1.0, -0.5], [1.0, 0.5]])

    def arc(angle: np.ndarray, moon: np.ndarray) -> np.ndarray:
        turn = np.where(moon == 0, 1.0, -1.0)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return centres[moon] + 2.0 * turn[:, None] * circle

    def sample(n: int, random: np.random.Generator) -> np.ndarray:
        clean = arc(random.uniform(0, np.pi, n), random.integers(0, 2, n))
        return clean + random.normal(0, deviation, (n, 2))

    middle = (np.arange(n_points) + 0.5) * np.pi / n_points
    points = np.concatenate([arc(middle, np.full(n_points, moon)) for moon in (0, 1)])
    return Toy(sample, lambda z: _mixture(z, points, deviation))


def gaussians(radius: float = 2.0, deviation: float = 0.2) -> Toy:
    """Eight equal Gaussians on a circle."""
    angle = np.arange(8) * np.pi / 4
    centres = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def sample(n: int, random: np.random.Generator) -> np.ndarray:
        return centres[random.integers(0, 8, n)] + random.normal(0, deviation, (n, 2))

    return Toy(sample, lambda z: _mixture(z, centres, deviation))


def _mixture(z: np.ndarray, centres: np.ndarray, deviation: float) -> np.ndarray:
    """Log-density of equal isotropic Gaussians around the centres."""
    parts = []
    for part in np.array_split(z, max(1, len(z) // 2000)):
        squared = ((part[:, None] - centres) ** 2).sum(2)
        parts.append(logsumexp(-0.5 * squared / deviation**2, axis=1))
    return np.concatenate(parts) - np.log(2 * np.pi * deviation**2 * len(centres))


TOYS = {"ring": ring, "moons": moons, "gaussians": gaussians}


# -- the comparison -----------------------------------------------------------------------------


def main() -> None:
    """Print one table per toy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("toys", nargs="*", default=list(TOYS))
    parser.add_argument("--rows", type=int, default=10_000, help="training rows")
    parser.add_argument("--max-time", type=float, default=60.0, help="seconds of training")
    parser.add_argument(
        "--n-evaluations", type=int, default=128, help="denoiser calls per row of ours"
    )
    parser.add_argument("--grid", type=int, default=100, help="grid points a side; 0 leaves it out")
    parser.add_argument("--plot", metavar="FILE", help="draw the truth beside ours (matplotlib)")
    parser.add_argument("--quick", action="store_true", help="a few steps of ours, few rows")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.grid = 500, min(options.grid, 40)
    print(machine())
    pictures = {}
    for name in options.toys:
        print(f"\n## {name}, {options.rows} training rows\n", flush=True)
        pictures[name] = compare(TOYS[name](), options)
    if options.plot:
        draw(pictures, options.plot)


def compare(toy: Toy, options: argparse.Namespace) -> list[np.ndarray]:
    """Print one table; return the log-densities of the truth and of ours on the plotting grid."""
    random = np.random.default_rng(0)
    train = toy.sample(options.rows, random)
    valid, test = (toy.sample(min(options.rows, 2000), random) for _ in range(2))
    truth = toy.log_density(test)
    grid, area = _grid(options.grid or 100)
    rows, picture = [], [toy.log_density(grid)]
    for label, fit in methods(train, valid, options):
        log_density, fit_seconds = timed(fit)
        log_prob, score_seconds = timed(log_density, test)
        mass = np.nan
        if options.grid or (options.plot and "auto" in label):
            on_grid = log_density(grid)
            mass = float(np.exp(on_grid).sum() * area)
            if "auto" in label:
                picture.append(on_grid)
        excess = truth - log_prob
        row = [label, plus_minus(excess), plus_minus(np.abs(excess)), mass]
        rows.append([*row, f"{fit_seconds:.0f}", f"{score_seconds:.1f}"])
    mass = float(np.exp(picture[0]).sum() * area)
    rows.append(["the truth", f"entropy {plus_minus(-truth)}", "0", mass, "", ""])
    header = ["method", "KL, nats", "mean abs. error, nats", "mass on the grid"]
    print(markdown([*header, "s to fit", "s to score"], rows), flush=True)
    return picture


def methods(
    train: np.ndarray, valid: np.ndarray, options: argparse.Namespace
) -> Iterable[tuple[str, Callable[[], Callable[[np.ndarray], np.ndarray]]]]:
    """Labels and functions that fit and return a log-density."""

    def ours(path: str) -> Callable[[np.ndarray], np.ndarray]:
        model = estimator(
            options.max_time, quick=options.quick, column_types="continuous", schedule=path
        )
        if not options.quick:
            model.set_params(n_evaluations=options.n_evaluations)
        model.fit(pd.DataFrame(train, columns=NAMES))
        return lambda z: model.score_samples(pd.DataFrame(z, columns=NAMES))

    def best(models: Iterable[Any]) -> Callable[[np.ndarray], np.ndarray]:
        return max(
            (model.fit(train) for model in models), key=lambda m: m.score_samples(valid).mean()
        ).score_samples

    for path in ("auto", "coordinate", "isotropic"):
        yield f"discrete_itd, {path}", lambda path=path: ours(path)
    sizes = (8, 16, 32, 64)
    yield (
        "Gaussian mixture",
        lambda: best(GaussianMixture(k, random_state=0, max_iter=500) for k in sizes),
    )
    widths = (0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3)
    yield "kernel density", lambda: best(KernelDensity(bandwidth=h) for h in widths)
    if available("zuko"):
        flow = Flow(max_time=5.0 if options.quick else options.max_time)
        yield "neural spline flow (zuko)", lambda: flow.fit(train, valid).log_prob


def _grid(n: int) -> tuple[np.ndarray, float]:
    """Midpoints of n x n cells, (n * n, 2), row by row from below, and the area of a cell."""
    side = (np.arange(n) + 0.5) * 2 * EXTENT / n - EXTENT
    return np.stack(np.meshgrid(side, side), axis=2).reshape(-1, 2), (2 * EXTENT / n) ** 2


def draw(pictures: dict[str, list[np.ndarray]], file: str) -> None:
    """The truth above, ours below, one column per toy, in the same colours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(pictures), 6.4), layout="constrained")
    axes = figure.subplots(2, len(pictures), squeeze=False)
    for column, (name, both) in enumerate(pictures.items()):
        for row, (who, log_density) in enumerate(zip(("truth", "ours"), both, strict=True)):
            n = round(len(log_density) ** 0.5)
            axes[row, column].imshow(
                np.exp(log_density).reshape(n, n),
                origin="lower",
                extent=(-EXTENT, EXTENT) * 2,
                vmin=0,
                vmax=np.exp(both[0]).max(),
            )
            axes[row, column].set(title=f"{name}: {who}", xticks=[], yticks=[])
    figure.savefig(file, dpi=120)
    print(f"\ndrawn: {file}")


if __name__ == "__main__":
    main()
