"""Probabilities add up to one: of every recipe, whatever a column of numbers looks like, in float32."""

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.channel.rounded_numbers import NumberLines
from discrete_itd.recipes import Mixture

pytestmark = pytest.mark.single_precision

N = 250
CHEAP = ("independent", "bayes_net", "mixture", "forest")
TRAINED = ("causal", Mixture(64, n_points=64, max_steps=40), "auto")


def shapes():
    """Columns of numbers that are hard on a density, by name."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=N)
    return {
        "counts": rng.negative_binomial(0.5, 0.005, N),
        "ties": np.where(rng.random(N) < 0.4, 0.0, rng.gamma(2.0, size=N)),
        "heavy tails": rng.pareto(0.7, N) + 1,
        "heavier tails": np.exp(6 * rng.standard_cauchy(N).clip(-30, 30)),
        "two scales": np.where(normal < 0, normal * 1e-3, 1e3 + 50 * normal),
        "nearly constant": np.where(rng.random(N) < 0.98, 5.0, 5 + 1e-3 * normal),
        "constant": np.full(N, 7.25),
        "lattice": np.round(20 * normal) * 0.05,
        "tiny": 1e-12 * normal,
        "huge": 1e12 * normal,
        "offset": 1e9 + np.round(normal, 3),
    }


SHAPES = shapes()
HARD = ("counts", "heavy tails", "two scales")  # of those that take time, these
CASES = [(r, s) for r in CHEAP for s in SHAPES] + [
    pytest.param(r, s, marks=[pytest.mark.slow] * (r == "auto")) for r in TRAINED for s in HARD
]


def integral(density, points, most=20_000):
    """Of a function of a vector between sorted points, by Simpson's rule; parts where it errs are halved."""
    a, b = points[:-1], points[1:]
    f_a, f_b, f_m = density(a), density(b), density((a + b) / 2)
    total, left = 0.0, most - 3 * len(a)
    while True:
        m = (a + b) / 2
        f_l, f_r = density((a + m) / 2), density((m + b) / 2)
        once = (b - a) * (f_a + 4 * f_m + f_b) / 6
        twice = (b - a) * (f_a + 4 * f_l + 2 * f_m + 4 * f_r + f_b) / 12
        wrong, left = abs(twice - once) > 1e-5, left - 2 * len(a)
        if 4 * wrong.sum() > left:
            wrong[:] = False
        total += twice[~wrong].sum()
        if not wrong.any():
            return total
        a, m, b, f_a, f_l, f_m, f_r, f_b = (t[wrong] for t in (a, m, b, f_a, f_l, f_m, f_r, f_b))
        a, b = np.append(a, m), np.append(m, b)
        f_a, f_m, f_b = np.append(f_a, f_m), np.append(f_l, f_r), np.append(f_m, f_b)


def points_of(denoiser, z):
    """Encoded numbers between which the density of the first column is smooth: cells, ends of boxes, a grid."""
    members = [denoiser, *getattr(denoiser, "members", ())]
    ends = [
        d.splits.threshold[d.splits.column == 0].numpy() for d in members if hasattr(d, "splits")
    ]
    ends = np.concatenate([z, *ends]).astype(np.float32)
    grid = [np.linspace(z.min() - far, z.max() + far, 200) for far in (0.1, 14.0)]
    return np.unique(np.concatenate([ends, np.nextafter(ends, np.float32(np.inf)), *grid]))


FARTHEST = 14.0  # of encoded numbers that count
MOST = 1_500  # numbers of a lattice on each side of the median that are added up one by one


def total(log_prob, codec, points):
    """Of masses of the numbers on the lattice; far out, and without a lattice, of masses over widths by quadrature.

    Numbers of many rows, at which the line is opened, are numbers of a lattice.
    """
    lines = NumberLines([codec.line])

    def masses(z):
        return np.exp(log_prob(z))

    def density(z):
        return masses(z) / lines.cells(torch.from_numpy(z)[:, None]).width[:, 0].numpy()

    if codec.origin is None:
        z = codec.scaled(np.array([number for number, _ in codec.opened]))
        middle, width = (t[:, 0].numpy() for t in lines.cells(torch.from_numpy(z)[:, None]))
        ends = np.stack([middle - width / 2, middle + width / 2], 1).flatten()
        ends = np.concatenate([points[:1], ends, points[-1:]]).reshape(-1, 2)
        parts = [np.append(points[(a < points) & (points < b)], [a, b]) for a, b in ends]
        opened = masses(z).sum() if len(z) else 0.0
        return opened + sum(integral(density, np.unique(part)) for part in parts)
    low, middle, high = codec.decode(np.array([-FARTHEST, 0.0, FARTHEST]))
    ends = np.clip([low, high], middle - MOST * codec.step, middle + MOST * codec.step)
    first, last = np.rint((ends - codec.origin) / codec.step)
    z = codec.scaled(codec.origin + codec.step * np.arange(first, last + 1))
    cells = lines.cells(torch.from_numpy(z[[0, -1]])[:, None])
    left, right = (cells.middle + torch.tensor([[-0.5], [0.5]]) * cells.width)[:, 0].tolist()
    beyond = [np.linspace(-FARTHEST, left, 200), np.linspace(right, FARTHEST, 200)]
    return masses(z).sum() + sum(integral(density, part) for part in beyond if part[0] < part[-1])


@pytest.mark.parametrize(("recipe", "shape"), CASES, ids=lambda case: getattr(case, "name", case))
def test_property_probabilities_add_up_to_one(recipe, shape):
    """Of the number alone, and of the number and a category, added up over the categories; and none is above one."""
    values, rng = SHAPES[shape], np.random.default_rng(1)
    side = np.where(values > np.median(values), "high", "low")
    frame = pd.DataFrame({"number": values, "side": np.where(rng.random(N) < 0.3, "none", side)})
    types = {"number": "continuous"}
    model = DiffusionDensity(denoiser=recipe, column_types=types, max_steps=3, random_state=0).fit(
        frame
    )
    denoiser = model.denoiser_
    points = points_of(denoiser, model.rows(frame).cells[:, 0])

    def log_prob(level):
        def at(z):
            x = torch.full((len(z), 2), float(level), dtype=torch.float64)
            x[:, 0] = torch.from_numpy(z)
            out = denoiser.log_prob(x).double().numpy()
            assert out.max() < 1e-3
            return out

        return at

    codec = model.encoder_.schema[0].codec
    n_levels = denoiser.codebook.columns[1].n_points
    each = [total(log_prob(k), codec, points) for k in range(n_levels)]
    # without a lattice, boxes of leaves cut cells, and what is cut off is lost
    least = 1 - (2e-3 if codec.origin is not None else 1e-2)
    for found in (total(log_prob(np.nan), codec, points), sum(each)):
        assert least < found < 1 + 2e-3


def ordinal_numbers():
    """Columns of few different numbers, by name, and the unit of their last digit."""
    rng = np.random.default_rng(0)
    return {
        "counts": (rng.poisson(6.0, N), 1),
        "years": (1990 + 3 * rng.integers(0, 12, N), 1),
        "minutes": (rng.choice([0, 5, 10, 15, 30, 45, 60, 90], N), 1),
        "gaps": (rng.choice([-3, 2, 11, 12, 40], N), 1),
        "one": (np.full(N, 7), 1),
        "prices": (rng.choice([4.5, 9.99, 12.25], N), 0.01),
    }


LEVELS = ordinal_numbers()


@pytest.mark.parametrize("recipe", CHEAP)
@pytest.mark.parametrize("shape", LEVELS)
def test_masses_of_ordinal_numbers_add_up_to_one(recipe, shape):
    """Over the numbers with as many digits, new ones among them, and a category; far ones have less than near ones."""
    values, unit = LEVELS[shape]
    side = np.random.default_rng(1).choice(["x", "y"], N)
    model = DiffusionDensity(
        denoiser=recipe, column_types={"number": "ordinal"}, max_steps=3, random_state=0
    ).fit(pd.DataFrame({"number": values, "side": side}))
    first, last = (round(end / unit) for end in (values.min(), values.max()))
    far = 10 * max(last - first, 1)
    places = np.arange(first - far, last + far + 1)
    numbers = np.round(places * unit, 2) if unit < 1 else places
    rows = pd.DataFrame(
        {"number": np.tile(numbers, 3), "side": np.repeat(["x", "y", "new"], len(numbers))}
    )
    mass = np.exp(model.score_samples(rows)).reshape(3, -1).sum(0)
    assert 0.999 < mass.sum() <= 1 + 1e-6
    assert (np.diff(mass[places > last]) < 0).all()
    assert (np.diff(mass[places < first]) > 0).all()
