"""Levels or points of a line: what known laws are taken for, and the comparison beside a slow one."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from discrete_itd.encoders import TableEncoder
from discrete_itd.encoders.levels_or_numbers import (
    LEAST_GAIN,
    STRENGTHS,
    WIDE,
    WIDTHS,
    gain_of_numbers,
)
from discrete_itd.encoders.numeric import fit_continuous

PRICES = [0.99, 1.49, 1.99, 2.49, 2.99, 3.99, 4.99, 5.99, 7.99, 9.99, 12.99, 14.99, 19.99]
PRICES += [24.99, 29.99, 39.99, 49.99, 59.99, 79.99, 99.99, 129.0, 149.0, 199.0, 249.0]
MEANS = np.array([3, 8, 15, 30, 50])


def clipped_normal(group, rng, deviation, low, high):
    return rng.normal(20 + 10 * group, deviation).round().clip(low, high).astype(int)


LAWS = {  # numbers of n rows whose categories are ``group`` (n,), and their kind
    "Poisson counts": (lambda group, rng: rng.poisson(MEANS[group]), "continuous"),
    "negative binomial counts": (
        lambda group, rng: rng.negative_binomial(2, 2 / (2 + MEANS[group])),
        "continuous",
    ),
    "ages": (lambda group, rng: clipped_normal(group, rng, 10, 18, 90), "continuous"),
    "codes": (
        lambda group, rng: rng.integers(1e5, 1e6, 80)[(40 * rng.beta(1, 2 + group)).astype(int)],
        "ordinal",
    ),
    "prices": (lambda group, rng: rng.choice(PRICES, len(group)), "ordinal"),
    "days": (lambda group, rng: rng.integers(1, 32, len(group)), "ordinal"),
    "months": (lambda group, rng: rng.integers(1, 13, len(group)), "ordinal"),
    "hours": (lambda group, rng: rng.integers(0, 24, len(group)), "ordinal"),
    "ratings": (lambda group, rng: clipped_normal(group, rng, 20, 1, 10), "ordinal"),
    "dice": (lambda group, rng: rng.integers(1, 7, (len(group), 3)).sum(1), "ordinal"),
}


def drawn(name, n=500, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 5, n)
    return pd.DataFrame({"group": np.array([*"abcde"])[group], "x": LAWS[name][0](group, rng)})


@pytest.mark.parametrize("name", LAWS)
def test_a_column_is_what_predicts_it_whatever_its_unit_and_the_order_of_rows(name):
    table = drawn(name)
    for other in (table, table.sample(frac=1, random_state=1), table.assign(x=table["x"] * 4)):
        assert TableEncoder.fit(other[["x", "group"]]).schema[0].kind == LAWS[name][1]


def test_frequencies_of_many_rows_are_as_good_as_a_density():
    assert TableEncoder.fit(drawn("ages", 20_000)).schema[1].kind == "ordinal"


@pytest.mark.parametrize(("name", "given"), [("Poisson counts", True), ("prices", False)])
def test_the_gain_is_that_of_predicting_each_row_by_the_others(name, given):
    table, whole = drawn(name, 60), name != "prices"
    values, groups = table["x"].to_numpy(float), table["group"].map(ord).to_numpy() - ord("a")
    numbers, codes = np.unique(values, return_inverse=True)
    codec, n = fit_continuous(values, whole), len(values)
    z = codec.scaled(values)
    cells = codec.lines.cells(torch.from_numpy(z)[:, None])
    low, high = ((cells.middle + side * cells.width / 2).numpy() for side in (-1, 1))
    ends = np.quantile(z, [0.25, 0.75], method="nearest")

    def kernel(h):
        narrow, wide = (norm.cdf((high - z) / s) - norm.cdf((low - z) / s) for s in (h, 1.0))
        return (1 - WIDE) * narrow + WIDE * wide

    def nats(weights, alone):
        """Least nats of all rows, by what each row (N, N) gives to another one, or without groups (N,)."""
        found = [-np.log(alone).sum()]
        for strength in STRENGTHS if given else ():
            total = 0.0
            for i in range(n):
                others = [j for j in range(n) if j != i and groups[j] == groups[i]]
                share = weights[i, others].sum() + strength * alone[i]
                total -= np.log(share / (len(others) + strength))
            found.append(total)
        return min(found)

    is_same = values[:, None] == values
    n_same, off = is_same.sum(1), ~np.eye(n, dtype=bool)
    n_single = max(0.5, (n_same == 1).sum())
    n_places = (numbers[-1] - numbers[0]) / codec.step + 1
    new = max(0.5, n_single - 1)
    levels = np.where(
        n_same > 1, (n_same - 1) / (n - 1 + n_single), new / (n - 1 + new) / (2 * n_places)
    )
    factor = np.where((n_same == 1) & bool(codec.seen), codec.p_new or 1.0, 1.0)
    lines = []
    for h in WIDTHS * (ends[1] - ends[0]) / 1.349:
        weights = factor[:, None] * kernel(h)
        lines.append(nats(weights, (weights * off).sum(1) / (n - 1)))
    gain = gain_of_numbers(numbers, codes, groups if given else None, whole=whole)
    assert gain == pytest.approx((nats(is_same.astype(float), levels) - min(lines)) / n, abs=1e-9)
    assert (gain > LEAST_GAIN) == whole


def test_one_number_far_away_changes_little():
    rng = np.random.default_rng(0)
    values = rng.poisson(30, 500) * 1.5
    gains = []
    for far in (45.0, 1.5e6):
        numbers, codes = np.unique([*values, far], return_inverse=True)
        gains.append(gain_of_numbers(numbers, codes, None, whole=False))
    assert gains[1] == pytest.approx(gains[0], abs=0.1)
