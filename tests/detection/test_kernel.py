"""Laws of the kernel density: it is normalised, agrees with a slow sum, and its shares add up."""

import itertools
import math

import numpy as np
import pytest
import torch

from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.detection.kernel import STRAY, KernelDensity, Widths

COLUMNS = [
    ColumnPoints("simplex", 3, open=True),
    ColumnPoints("line", 4, levels=(-1.0, 0.0, 0.5, 2.0)),
    ColumnPoints("real"),
    ColumnPoints("simplex", 2),
    ColumnPoints("code", 5),
]
NAN = math.nan


def rows(n=40, seed=0, gaps=0.2):
    random = np.random.default_rng(seed)
    x = np.column_stack(
        [
            random.integers(0, 3, n),
            random.integers(0, 4, n),
            random.normal(0, 0.5, n),
            random.integers(0, 2, n),
            random.integers(0, 5, n),
        ]
    ).astype(float)
    x[random.random(x.shape) < gaps] = NAN
    return torch.from_numpy(x)


def density(x, widths=None, columns=COLUMNS):
    base = MarginalDenoiser.fit(Codebook(columns), x)
    return KernelDensity(base, x, widths or Widths(0.3, 0.4, 0.3))


def marginals(model):
    """Log-probabilities of the levels of each column of categories; a function for the continuous one."""
    book = model.base.codebook
    nothing = model.base(torch.zeros(1, book.n_coords), torch.zeros(1, book.n_columns))
    return [
        (lambda v: float(nothing.gaussian.log_prob(torch.tensor([[v]])))) if c.kind == "real"
        else nothing.column(j)[0].tolist()
        for j, c in enumerate(book.columns)
    ]  # fmt: skip


def naive_kernel(points, alone, value, centre, widths):
    if points.kind == "real":
        if math.isnan(centre):
            return math.exp(alone(value))
        z = (value - centre) / widths.real
        return math.exp(-(z**2) / 2) / widths.real / math.sqrt(2 * math.pi)
    pi = [math.exp(v) for v in alone]
    if math.isnan(centre):
        return pi[int(value)]
    value, centre = int(value), int(centre)
    if points.kind != "line":
        return (1 - widths.other) * (value == centre) + widths.other * pi[value]
    at = np.array(points.levels)
    p = np.array(pi[: len(at)]) / sum(pi[: len(at)])
    sd = math.sqrt(p @ (at - p @ at) ** 2)
    near = np.exp(-(((at - at[centre]) / (2 * sd * widths.line)) ** 2) / 2)
    return (1 - STRAY) * near[value] / near.sum() + STRAY * pi[value]


def naive_nats(model, x):
    """The sum over centres of the product over columns."""
    alone, columns = marginals(model), model.base.codebook.columns
    out = []
    for row in x.tolist():
        total = 0.0
        for centre in model.centres.tolist():
            product = 1.0
            for j, value in enumerate(row):
                if not math.isnan(value):
                    product *= naive_kernel(columns[j], alone[j], value, centre[j], model.widths)
            total += product / len(model.centres)
        out.append(-math.log(total))
    return np.array(out)


def test_it_is_the_slow_sum():
    model = density(rows())
    x = rows(30, seed=1)
    x[0, 0] = 3.0  # never seen
    assert np.allclose(model.nats(x).sum(1).numpy(), naive_nats(model, x))


def test_its_mass_is_one():
    columns = [COLUMNS[i] for i in (0, 1, 3, 4)]
    model = density(rows()[:, [0, 1, 3, 4]], columns=columns)
    x = torch.tensor(list(itertools.product(range(4), range(4), range(2), range(5))), dtype=float)
    assert model.nats(x).sum(1).neg().exp().sum().item() == pytest.approx(1.0)


def test_its_density_integrates_to_one():
    model = density(rows()[:, 2:3], columns=[ColumnPoints("real")])
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    mass = model.nats(grid[:, None]).sum(1).neg().exp().sum() * (grid[1] - grid[0])
    assert mass.item() == pytest.approx(1.0, abs=1e-3)


def test_missing_cells_are_left_out_and_have_no_nats():
    model = density(rows())
    x = rows(20, seed=2, gaps=0.5)
    nats = model.nats(x)
    assert (nats[x.isnan()] == 0).all()
    assert (model.nats(torch.full((1, 5), NAN, dtype=torch.float64)) == 0).all()


def test_the_strange_cell_has_the_largest_share():
    x = torch.tensor([[0.0, 0.1], [1.0, -0.1]] * 20, dtype=torch.float64)
    columns = [ColumnPoints("simplex", 2), ColumnPoints("real")]
    model = density(x, columns=columns)
    (shares,) = model.nats(torch.tensor([[0.0, 3.0]], dtype=torch.float64))
    assert shares[1] > 10 * shares[0]


def test_cells_add_up_to_the_log_probability():
    model = density(rows())
    x = rows(30, seed=1)
    x[:5, 2] = 40.0  # far from all centres
    x[5, 2] = -1e6
    assert torch.allclose(model.nats(x).sum(1), -model.log_prob(x))


def test_a_far_number_finds_no_fault_with_the_others():
    """The centre nearest to it may differ elsewhere, but that is no reason to doubt the other cells."""
    random = np.random.default_rng(0)
    side = random.integers(0, 2, 200)
    x = torch.from_numpy(np.column_stack([side, 2.0 * side + random.normal(0, 0.3, 200)]))
    columns = [ColumnPoints("simplex", 2), ColumnPoints("real")]
    model = density(x, columns=columns)
    far, near = model.nats(torch.tensor([[0.0, 50.0], [0.0, 0.0]], dtype=torch.float64))
    assert far[0] < near[0] + 0.5
    assert far[1] > 100


def test_a_far_number_bears_no_more_than_its_part_of_the_scarcity():
    """Without it, the few centres around the other cells are the fault of these alone; log n nats at most."""
    model, x = density(rows()), rows(30, seed=1, gaps=0.0)
    x[:, 2] = NAN
    alone = model.nats(x).sum(1)
    x[:, 2] = 40.0  # far from all centres
    taken = alone - model.nats(x)[:, [0, 1, 3, 4]].sum(1)
    assert (taken > -1e-9).all()
    assert (taken < math.log(len(model.centres)) / x.shape[1] + 1e-9).all()


def test_batches_change_nothing(monkeypatch):
    model, x = density(rows()), rows(30, seed=1)
    whole = model.nats(x)
    monkeypatch.setattr("discrete_itd.detection.kernel.BATCH_PAIRS", 80)
    assert torch.allclose(model.nats(x), whole)


def test_leaving_a_centre_out_is_having_one_fewer():
    x = rows(12)
    model = density(x)
    each = -model._log_prob_of_centres(12)
    for i in range(12):
        others = torch.cat([x[:i], x[i + 1 :]])
        fewer = KernelDensity(model.base, others, model.widths)
        assert fewer.nats(x[i : i + 1]).sum().item() == pytest.approx(each[i].item())


def test_widths_follow_the_data():
    random = np.random.default_rng(0)

    def fitted(sd):
        middle = random.choice([-0.6, 0.0, 0.6], 600)
        x = torch.from_numpy((middle + sd * random.normal(size=600))[:, None])
        base = MarginalDenoiser.fit(Codebook([ColumnPoints("real")]), x)
        return KernelDensity.fit(base, x, torch.Generator().manual_seed(0)).widths.real

    assert fitted(0.02) < fitted(0.3)


def test_two_rows_are_enough():
    x = rows(2, gaps=0)
    base = MarginalDenoiser.fit(Codebook(COLUMNS), x)
    model = KernelDensity.fit(base, x, torch.Generator().manual_seed(0))
    assert model.nats(x).isfinite().all()


def test_strange_rows_are_seen_among_many(monkeypatch):
    """Also those among them that are like one another, and also where not all rows are centres."""
    random = np.random.default_rng(0)
    x = torch.from_numpy(np.concatenate([random.normal(0, 0.5, 500), random.normal(4, 0.1, 25)]))
    base = MarginalDenoiser.fit(Codebook([ColumnPoints("real")]), x[:, None])
    for most in (5000, 200):
        monkeypatch.setattr("discrete_itd.detection.kernel.MOST_CENTRES", most)
        generator = torch.Generator().manual_seed(0)
        strange = KernelDensity.outlyingness(base, x[:, None], generator)
        assert strange.shape == (525,)
        assert (strange.argsort()[-25:] >= 500).float().mean() > 0.9
