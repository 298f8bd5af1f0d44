"""Small worlds in which everything can be enumerated, shared by the tests of the core."""

import itertools
import math

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule
from discrete_itd.codebook import VERTEX, Codebook, ColumnPoints
from discrete_itd.denoisers import Denoiser, MarginalDenoiser, NeuralDenoiser, SupportDenoiser
from discrete_itd.posterior import CategoricalPosterior
from discrete_itd.training import seeded

LAW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def simplex(n, *, is_open=False):
    return ColumnPoints("simplex", n, is_open)


def line(*levels, is_open=False):
    return ColumnPoints("line", len(levels), is_open, tuple(levels))


BOOKS = {
    "simplex": (simplex(2), simplex(3), simplex(2)),
    "line": (line(-1.0, 0.1, 0.9), line(-0.6, 0.7)),
    "mixed": (line(-0.8, 0.0, 1.0), simplex(2), simplex(2)),
    "open": (simplex(2, is_open=True), line(-0.7, 0.6, is_open=True)),
}


def make_book(name, device):
    return Codebook(BOOKS[name]).to(device)


def rounding(dtype, loose=1.0):
    """What a few dozen operations may lose."""
    return loose * (1e-10 if dtype == torch.float64 else 1e-4)


# -- hypothesis ------------------------------------------------------------------------------------


@st.composite
def column_points(draw, sizes=(1, 2, 3, 4)):
    n = draw(st.sampled_from(sizes))
    is_open = draw(st.booleans())
    if draw(st.booleans()):
        return simplex(n, is_open=is_open)
    gaps = draw(st.lists(st.floats(0.2, 1.0), min_size=n, max_size=n))
    levels = np.cumsum(gaps) - draw(st.floats(0.0, 2.0))
    return line(*levels.tolist(), is_open=is_open)


def tables(sizes=(1, 2, 3, 4), max_columns=4):
    """Lists of column points."""
    return st.lists(column_points(sizes), min_size=1, max_size=max_columns)


seeds = st.integers(0, 2**31 - 1)


# -- enumeration -----------------------------------------------------------------------------------


def all_rows(book):
    """Every row over the slots of a codebook, (R, C)."""
    rows = list(itertools.product(*map(range, book.cardinalities)))
    return torch.tensor(rows, device=book.slot_level.device)


def random_rows(book, n, rng):
    rows = np.stack([rng.integers(k, size=n) for k in book.cardinalities], 1)
    return torch.tensor(rows, device=book.slot_level.device)


def random_state(book, rng, n, *, max_snr=20.0, known=True):
    """Rows and states of them at a random SNR per cell: zero, finite or infinite."""
    rows = random_rows(book, n, rng)
    x = book.embed(rows)
    snr = torch.tensor(rng.uniform(0, max_snr, (n, book.n_columns))).to(x)
    kind = torch.tensor(rng.integers(3 if known else 2, size=snr.shape), device=x.device)
    snr = snr.masked_fill(kind == 0, 0.0).masked_fill(kind == 2, math.inf)
    wide = book.per_coord(snr)
    finite = wide.masked_fill(wide.isinf(), 0.0)
    y = finite * x + finite.sqrt() * torch.tensor(rng.normal(size=x.shape)).to(x)
    return rows, torch.where(wide.isinf(), x, y), snr


def numpy_point(points, k):
    """The point of category k of one column, as the definition has it."""
    if points.kind == "simplex":
        return VERTEX * np.eye(points.n_slots)[k]
    if points.open:
        return np.array([0.0, VERTEX] if k == points.n_levels else [points.levels[k], 0.0])
    return np.array([points.levels[k]])


def numpy_evidence(book, y, snr, j):
    """(2) of one row's column j, by its definition; at infinite SNR 0 for the point itself, else -inf."""
    own = y[book.coord_column.cpu().numpy() == j]
    points = [numpy_point(book.columns[j], k) for k in range(book.columns[j].n_slots)]
    if np.isinf(snr[j]):
        return np.array([0.0 if np.allclose(own, e, atol=1e-6) else -np.inf for e in points])
    return np.array([own @ e - snr[j] * (e @ e) / 2 for e in points])


# -- denoisers -------------------------------------------------------------------------------------


class Stranger(Denoiser):
    """A random function of the state that neither knows Bayes' rule nor believes known cells."""

    def __init__(self, book, seed):
        super().__init__(book)
        rng = np.random.default_rng(seed)
        for name, shape in {
            "a": (book.n_coords, 8),
            "b": (book.n_columns, 8),
            "c": (8, book.n_slots),
        }.items():
            self.register_buffer(name, torch.tensor(rng.normal(size=shape)).to(book.slot_value))

    def forward(self, y, snr):
        known = torch.isinf(snr)
        r = torch.where(known, 1.0, snr / (1 + snr))
        scale = torch.where(known, 1.0, 1 / (1 + snr))
        h = torch.tanh(y * self.codebook.per_coord(scale) @ self.a + r @ self.b)
        return CategoricalPosterior(self.codebook, h @ self.c)


def random_marginals(book, rng):
    probs = np.concatenate([rng.dirichlet([2.0] * k) for k in book.cardinalities])
    by_slot = np.zeros(book.n_slots)
    codes = np.concatenate([np.arange(k) for k in book.cardinalities])
    columns = np.repeat(np.arange(book.n_columns), book.cardinalities)
    stride, offset = book._stride.cpu().numpy(), book._offset.cpu().numpy()
    by_slot[offset[columns] + codes * stride[columns]] = np.maximum(probs, 1e-3)
    return MarginalDenoiser(book, torch.tensor(by_slot, device=book.slot_level.device))


def random_oracle(book, rng, *, share=1.0):
    """A probability table over a random share of all rows."""
    rows = all_rows(book)
    keep = torch.tensor(rng.permutation(len(rows))[: max(1, round(share * len(rows)))])
    probs = np.maximum(rng.dirichlet([0.7] * len(keep)), 0.01)
    return SupportDenoiser(
        book, rows[keep.to(rows.device)], torch.tensor(probs).to(book.slot_value)
    )


def random_network(book, seed, *, strength=0.6):
    """A network of random weights in every layer; strength 0 is the untrained one."""
    device = book.slot_level.device
    base = random_marginals(book, np.random.default_rng(seed))
    with seeded(seed, device):
        net = NeuralDenoiser(base, width=16, depth=1).to(device)
        for p in net.network.leave[-1].parameters():
            torch.nn.init.normal_(p, std=strength)
    return net.eval().requires_grad_(False)


def make_denoiser(kind, book, seed=0):
    if kind == "network":
        return random_network(book, seed)
    if kind == "stranger":
        return Stranger(book, seed)
    return random_oracle(book, np.random.default_rng(seed))


# -- schedules -------------------------------------------------------------------------------------


class HybridSchedule:
    """The first columns become known at once, the others climb together."""

    noisy = True
    complete = False

    def __init__(self, n_known, levels):
        self.n_known, self.levels, self.n_steps = n_known, levels, len(levels)

    def snr(self, step, rank):
        level = self.levels[step - 1] if step else 0.0
        snr = torch.full(rank.shape, level, dtype=torch.get_default_dtype(), device=rank.device)
        return snr.masked_fill((rank < self.n_known) & (step > 0), math.inf)


class FixedOrder:
    """Autoregression from left to right, whatever the rank."""

    noisy = False
    complete = True

    def __init__(self, n_columns):
        self.n_steps = n_columns

    def snr(self, step, rank):
        known = torch.arange(rank.shape[1], device=rank.device) < step
        return torch.zeros(rank.shape, device=rank.device).masked_fill(known, math.inf)


SCHEDULES = {
    "isotropic": lambda _: IsotropicSchedule((0.4, 1.2, 2.5)),
    "coordinate": CoordinateSchedule,
    "block": lambda c: CoordinateSchedule(c, max(1, c - 1)),
    "hybrid": lambda _: HybridSchedule(1, (0.6, 1.8)),
    "fixed order": FixedOrder,
}

# a stranger ignores the evidence, so its weights have heavy tails: show it little
MILD = {
    "isotropic": lambda _: IsotropicSchedule((0.1, 0.3, 0.6)),
    "hybrid": lambda _: HybridSchedule(1, (0.2, 0.5)),
}


def make_schedule(name, n_columns, kind="network"):
    return ((MILD.get(name) if kind == "stranger" else None) or SCHEDULES[name])(n_columns)
