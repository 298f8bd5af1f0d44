"""Small worlds in which everything can be enumerated, shared by the tests of the core."""

import itertools
import math

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from discrete_itd.channel import (
    CoordinateSchedule,
    IsotropicSchedule,
    Quadrature,
)
from discrete_itd.channel.codebook import VERTEX, Codebook, ColumnPoints
from discrete_itd.channel.posterior import (
    CategoricalPosterior,
    GaussianPosterior,
    Posterior,
)
from discrete_itd.channel.schedules import column_ranks
from discrete_itd.denoisers import (
    BayesNetDenoiser,
    CausalDenoiser,
    Denoiser,
    ForestDenoiser,
    MarginalDenoiser,
    MixtureDenoiser,
    NeuralDenoiser,
    RowMixtureDenoiser,
)
from discrete_itd.likelihood import integral_log_prob, path_log_prob, squared_errors
from discrete_itd.likelihood.sampling import of_column
from discrete_itd.testing import all_rows, random_rows
from discrete_itd.testing import states_of_every_kind as states_of_every_kind
from tests.support import SupportDenoiser

TIMES = 5 if settings().max_examples == 100 else 1  # five times as many repetitions with --slow
LAW = settings(max_examples=5 * TIMES, derandomize=True)
FEW_EXAMPLES = settings(
    LAW, max_examples=14 if TIMES > 1 else 2
)  # of properties over many kinds of denoisers


def simplex(n, *, is_open=False):
    return ColumnPoints("simplex", n, is_open)


def line(*levels, is_open=False):
    return ColumnPoints("line", len(levels), is_open, tuple(levels))


def real():
    return ColumnPoints("real")


BOOKS = {
    "simplex": (simplex(2), simplex(3), simplex(2)),
    "line": (line(-1.0, 0.1, 0.9), line(-0.6, 0.7)),
    "mixed": (line(-0.8, 0.0, 1.0), simplex(2), simplex(2)),
    "open": (simplex(2, is_open=True), line(-0.7, 0.6, is_open=True)),
}

# with continuous columns, in no order of kinds
WIDER_BOOKS = {
    "one real": (line(-0.8, 0.7), real(), simplex(2)),
    "only reals": (real(), real()),
    "all kinds": (
        simplex(3, is_open=True),
        real(),
        simplex(2, is_open=True),
        real(),
        line(-0.6, 0.7),
    ),
    "reals and levels": (real(), simplex(2, is_open=True), real(), line(-0.6, 0.7)),
}
WITH_REALS = ("one real", "only reals", "reals and levels", "all kinds")


def make_book(name, device):
    return Codebook((BOOKS | WIDER_BOOKS)[name]).to(device)


def rounding(dtype, loose=1.0):
    """What a few dozen operations may lose."""
    return loose * (1e-10 if dtype == torch.float64 else 1e-4)


def logistic(loc, scale, *, low, high):
    """The paper's density over logsnr, cut to [low, high] (arXiv:2302.03792)."""
    edges = torch.linspace(low, high, 257, dtype=torch.float64)
    s = torch.sigmoid(((edges[1:] + edges[:-1]) / 2 - loc) / scale)
    return Quadrature(edges, s * (1 - s))


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


wide_tables = st.lists(
    st.one_of(column_points(sizes=(1, 2, 5)), st.just(real())), min_size=1, max_size=6
)
seeds = st.integers(0, 2**31 - 1)


# -- enumeration -----------------------------------------------------------------------------------


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
        return VERTEX * np.eye(points.n_points)[k]
    if points.open:
        return np.array([0.0, VERTEX] if k == points.n_levels else [points.levels[k], 0.0])
    return np.array([points.levels[k]])


def numpy_evidence(book, y, snr, j):
    """(2) of one row's column j, by its definition; at infinite SNR 0 for the point itself, else -inf."""
    own = y[book.coord_column.cpu().numpy() == j]
    points = [numpy_point(book.columns[j], k) for k in range(book.columns[j].n_points)]
    if np.isinf(snr[j]):
        return np.array([0.0 if np.allclose(own, e, atol=1e-6) else -np.inf for e in points])
    return np.array([own @ e - snr[j] * (e @ e) / 2 for e in points])


# -- denoisers -------------------------------------------------------------------------------------


class Stranger(Denoiser):
    """A random function of the state that neither knows Bayes' rule nor believes known cells."""

    def __init__(self, book, seed):
        super().__init__(book)
        rng, width, n_real = np.random.default_rng(seed), 8, len(book.reals)
        shapes = {
            "a": (book.n_coords, width),
            "b": (book.n_columns, width),
            "c": (width, book.levels.n_points),
            "d": (width, n_real * 6),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.tensor(rng.normal(size=shape)).to(book.known_snr))

    def forward(self, y, snr):
        book = self.codebook
        known = torch.isinf(snr)
        r = torch.where(known, 1.0, snr / (1 + snr))
        scale = torch.where(known, 1.0, 1 / (1 + snr))
        h = torch.tanh(y * book.per_coord(scale) @ self.a + r @ self.b)
        categorical = CategoricalPosterior(book.levels, h @ self.c)
        gaussian = None
        if len(book.reals):
            weight, mean, var = (h @ self.d).unflatten(1, (3, len(book.reals), 2)).unbind(1)
            gaussian = GaussianPosterior(weight, mean / 4, 0.1 + 0.4 * torch.sigmoid(var))
        return Posterior(book, categorical, gaussian)


def column_distribution(denoiser, x, column, **how):
    """Log-probabilities (N, K) of the levels of a column given the other cells of rows (N, C)."""
    return of_column(denoiser, x, column, lambda q: q.column(column), **how)


def random_marginals(book, rng):
    """Independent columns; the last component of a continuous one is wide."""
    like, n_real = book.known_snr, len(book.reals)
    probs = torch.tensor(np.maximum(rng.gamma(2.0, size=book.levels.n_points), 0.01)).to(like)
    mixture = np.stack(
        [
            np.log(np.tile([0.6, 0.35, 0.05], (n_real, 1))),
            rng.normal(0, 0.5, (n_real, 3)) * [1, 1, 0],
            rng.uniform(0.3, 0.6, (n_real, 3)) ** 2 * [1, 1, 0] + [0, 0, 4.0],
        ]
    )
    return MarginalDenoiser(book, probs, torch.tensor(mixture).to(like))


def broad_marginals(book):
    """Independent columns that cover whatever any denoiser here believes."""
    like, n_real = book.known_snr, len(book.reals)
    mixture = torch.tensor([[0.3, 0.7], [0.0, 0.0], [0.7, 4.0]]).to(like)[:, None]
    mixture = mixture.expand(3, n_real, 2).clone()
    mixture[0].log_()
    return MarginalDenoiser(book, like.new_ones(book.levels.n_points), mixture)


def random_oracle(book, rng, *, share=1.0):
    """A probability table over a random share of all rows."""
    rows = all_rows(book)
    keep = torch.tensor(rng.permutation(len(rows))[: max(1, round(share * len(rows)))])
    probs = np.maximum(rng.dirichlet([0.7] * len(keep)), 0.01)
    return SupportDenoiser(book, rows[keep.to(rows.device)], torch.tensor(probs).to(book.known_snr))


def random_mixture(book, rng, *, n_classes=3):
    """A mixture of products whose classes lie well apart: the oracle of tables with continuous columns."""
    like, n_real = book.known_snr, len(book.reals)
    tensors = (
        rng.dirichlet([4.0] * n_classes),
        np.maximum(rng.gamma(0.5, size=(n_classes, book.levels.n_points)), 0.02),
        rng.normal(0, 0.6, (n_classes, n_real)),
        rng.uniform(0.2, 0.4, (n_classes, n_real)) ** 2,
    )
    return MixtureDenoiser(book, *(torch.tensor(t).to(like) for t in tensors))


def random_correlated(book, rng, *, n_classes=3):
    """As :func:`random_mixture`, with numbers that depend on one another in every class."""
    of = random_mixture(book, rng, n_classes=n_classes)
    n = len(book.reals)
    lower = torch.tensor(np.tril(rng.normal(0, 0.7, (n_classes, n, n)), -1) + np.eye(n))
    chol = of.var.sqrt()[:, :, None] * lower.to(of.var)
    weights, probs = of.log_weights.exp(), of.log_probs.exp()
    return MixtureDenoiser(book, weights, probs, of.means, chol=chol)


def tree_tables(book, rng, n_trees):
    """Parents, tables and weights of random trees, here and there of two roots: numpy."""
    c, k = book.levels.n_columns, book.levels.widest
    parents = np.full((n_trees, c), -1)
    for z in range(n_trees):
        order = rng.permutation(c)
        for i in range(1, c):
            parents[z, order[i]] = order[rng.integers(i)] if rng.random() < 0.9 else -1
    tables = np.maximum(rng.gamma(0.7, size=(n_trees, c, k, k)), 0.03)
    return parents, tables, rng.dirichlet([4.0] * n_trees)


def random_trees(book, rng, *, n_trees=1, rest=None):
    """A random tree, or a mixture of them, beside which other columns are independent."""
    parents, padded, weights = tree_tables(book, rng, n_trees)
    if rest is None and len(book.finite) < book.n_columns:
        rest = random_marginals(book, rng)
    trees = [tree_of(book, *own, rest) for own in zip(parents, padded, strict=True)]
    return trees[0] if n_trees == 1 else RowMixtureDenoiser(book, trees, weights)


def tree_of(book, parents, padded, rest=None):
    """The tree of parents (C,), -1 for a root, and tables (C, K, K), of which a root's first row counts."""
    sizes, padded, tables = book.levels.cardinalities, torch.as_tensor(padded).to(book.device), []
    for j, up in enumerate(parents):
        own = padded[j, : sizes[up] if up >= 0 else 1, : sizes[j]]
        tables.append(own if up >= 0 else own[0])
    return BayesNetDenoiser(book, [(int(p),) if p >= 0 else () for p in parents], tables, rest)


def bayes_net_tables(book, rng, *, most_parents=3):
    """Parents and tables of a random acyclic graph: lists of tuples and of numpy arrays."""
    sizes = book.levels.cardinalities
    parents, order = [()] * len(sizes), rng.permutation(len(sizes))
    for i, j in enumerate(order.tolist()):
        n = int(rng.integers(min(i, most_parents) + 1))
        parents[j] = tuple(rng.permutation(order[:i])[:n].tolist())
    shapes = [[sizes[i] for i in (*above, j)] for j, above in enumerate(parents)]
    return parents, [np.maximum(rng.gamma(0.7, size=shape), 0.03) for shape in shapes]


def random_bayes_net(book, rng, *, most_parents=3):
    """A random Bayesian network, beside which other columns are independent."""
    parents, tables = bayes_net_tables(book, rng, most_parents=most_parents)
    rest = random_marginals(book, rng) if len(book.finite) < book.n_columns else None
    tables = [torch.tensor(t).to(book.known_snr) for t in tables]
    return BayesNetDenoiser(book, parents, tables, rest)


def random_splits(book, rng, *, n_trees=3, depth=3):
    """Columns and thresholds (M,), ranks (n_trees, T) and boxes (L, C, 2) of random trees: numpy."""
    levels, own = book.levels, [*book.finite.tolist(), *book.reals.tolist()]
    rank = np.zeros((n_trees, levels.n_points))
    for t in range(n_trees):
        for j in range(levels.n_columns):
            rank[t, levels.own(j)] = rng.permutation(levels.cardinalities[j])
    whole = np.tile([-np.inf, np.inf], (book.n_columns, 1))
    column, threshold, boxes, row = [], [], [], [(t, whole) for t in range(n_trees)]
    for d in range(depth + 1):
        below = []
        for t, box in row:
            splits = []
            for j in own if d < depth and rng.random() < 0.9 else ():
                if j not in book.place:
                    cut = torch.tensor([rng.normal(0, 0.5)], dtype=torch.float64)
                    at = torch.nonzero(book.reals.cpu() == j).flatten()
                    splits.append((j, float(book.lines.edges(cut, at))))
                    continue
                ranks = np.sort(rank[t, levels.own(book.place[j])])
                splits += [(j, r + 0.5) for r in ranks[:-1]]
            splits = [(j, s) for j, s in splits if box[j][0] < s < box[j][1]]
            if not splits:
                column.append(-1), threshold.append(0.0), boxes.append((t, box))
                continue
            j, s = splits[rng.integers(len(splits))]
            column.append(j), threshold.append(s)
            for side in (1, 0):  # of the box, the end that moves
                part = box.copy()
                part[j, side] = s
                below.append((t, part))
        row = below
    return np.array(column), np.array(threshold), rank, boxes


def random_forest(book, rng, **arguments):
    """Random trees of splits, in whose leaves the columns are independent, within their boxes.

    Numbers at which a column's line is opened have some mass besides.
    """
    like, levels, n_reals = book.known_snr, book.levels, len(book.reals)
    column, threshold, rank, boxes = random_splits(book, rng, **arguments)
    probs = np.maximum(rng.gamma(0.7, size=(len(boxes), levels.n_points)), 0.02)
    for p, (t, box) in zip(probs, boxes, strict=True):
        for k, i in enumerate(levels.level_column.tolist()):
            low, high = box[book.finite[i]]
            p[k] *= low < rank[t, k] <= high
    parts = column, threshold, rank, rng.uniform(0.2, 1.0, len(column)), probs
    numbers = (
        rng.normal(0, 0.6, (len(boxes), n_reals)),
        rng.uniform(0.2, 0.5, (len(boxes), n_reals)) ** 2,
    )
    opened, *ends = (t.cpu().numpy() for t in book.lines.opened_ends(like))
    own = np.array([box for _, box in boxes])[:, book.reals.cpu().numpy()[opened]]
    inside = (own[:, :, 0] < np.mean(ends, 0)) & (np.mean(ends, 0) < own[:, :, 1])
    shared = rng.uniform(0, 0.3, inside.shape) * inside
    parts = [torch.tensor(part, device=book.device) for part in (*parts, *numbers, shared)]
    *parts, shared = [p.to(like) if p.is_floating_point() else p for p in parts]
    return ForestDenoiser(book, *parts, wide=0.05, shared=shared)


def random_exact_mixture(book, rng, *, nested=False):
    """A mixture of rows whose members are exact; they have nothing in common."""
    rest = random_marginals(book, rng) if len(book.reals) else None
    members = [
        random_trees(book, rng, rest=rest),
        random_mixture(book, rng, n_classes=2),
        random_marginals(book, rng),
    ]
    if len(book.finite) == book.n_columns:
        members += [random_bayes_net(book, rng), random_oracle(book, rng)]
    if nested:
        forest = random_forest(book, rng)
        members[:2] = [RowMixtureDenoiser(book, [forest, members[1]], [0.3, 0.7])]
    made = RowMixtureDenoiser(book, members, rng.dirichlet([4.0] * len(members)) + 0.01)
    assert made.exact
    return made


def last_weights(network):
    """What a network ends with, and leaves at zero until it is trained."""
    return network.leave[-1].weight, network.leave[-1].bias


def random_network(book, seed, *, strength=0.6):
    """A network of random weights in every layer; strength 0 is the untrained one."""
    base = random_marginals(book, np.random.default_rng(seed))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = seeded_generator(seed, "cpu")
        net = NeuralDenoiser(base, width=16, depth=1, generator=generator).to(book.device)
        for p in last_weights(net.network):
            torch.nn.init.normal_(p, std=strength)
    return net.eval().requires_grad_(False)


def random_causal(book, seed, *, base="marginals", strength=0.6):
    """A masked network of random weights in every layer, of a random order; strength 0 is the untrained one."""
    rng = np.random.default_rng(seed)
    under = make_denoiser(base, book, seed)
    order = book.in_order(rng.permutation(book.n_columns).tolist())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"width": 16, "depth": 1, "generator": seeded_generator(seed, "cpu")}
        sizes["maps_levels"] = bool(seed % 2)
        net = CausalDenoiser(under, order, **sizes).to(book.device)
        for layer in filter(None, (net.network.leave, net.network.skip)):
            torch.nn.init.normal_(layer.weight, std=strength)
            torch.nn.init.normal_(layer.bias, std=strength)
    return net.to(book.dtype).eval().requires_grad_(False)


def make_denoiser(kind, book, seed=0):
    if kind == "network":
        return random_network(book, seed)
    if kind.startswith("causal"):
        return random_causal(book, seed, base=kind.removeprefix("causal on "))
    if kind == "stranger":
        return Stranger(book, seed)
    if kind == "marginals":
        return random_marginals(book, np.random.default_rng(seed))
    if kind == "mixture":
        return random_mixture(book, np.random.default_rng(seed))
    if kind == "correlated":
        return random_correlated(book, np.random.default_rng(seed))
    if kind in ("tree", "trees"):
        return random_trees(book, np.random.default_rng(seed), n_trees=1 if kind == "tree" else 3)
    if kind == "bayes_net":
        return random_bayes_net(book, np.random.default_rng(seed))
    if kind == "forest":
        return random_forest(book, np.random.default_rng(seed))
    if kind in ("exact mixture", "nested"):
        return random_exact_mixture(book, np.random.default_rng(seed), nested=kind == "nested")
    return random_oracle(book, np.random.default_rng(seed))


def cases(kinds, names=None):
    """Pairs of a codebook's name and a kind of denoiser that is defined for it."""
    books = BOOKS | WIDER_BOOKS

    def defined(name, kind):
        if kind == "correlated" and not any(c.kind == "real" for c in books[name]):
            return False
        return kind != "oracle" or not any(c.kind == "real" for c in books[name])

    pairs = itertools.product(names or sorted(books), kinds)
    return [pair for pair in pairs if defined(*pair)]


def squared(names, kinds, others, keep=lambda _name, _kind: True):
    """Triples in which every value meets every value of the other two lists: a Latin square, not the whole cube.

    Pairs of a codebook's name and a kind that do not go together are left out by ``keep``.
    """
    lists = [list(names), list(kinds), list(others)]
    long, middle, short = sorted(range(3), key=lambda i: -len(lists[i]))
    found = []
    for i, a in enumerate(lists[long]):
        for j, b in enumerate(lists[middle]):
            triple = {long: a, middle: b, short: lists[short][(i + j) % len(lists[short])]}
            found.append((triple[0], triple[1], triple[2]))
    return [(name, kind, other) for name, kind, other in found if keep(name, kind)]


def squared_cases(kinds, others, names=None):
    """As :func:`squared`, of the pairs that :func:`cases` has."""
    pairs = set(cases(kinds, names))
    books = names or sorted(BOOKS | WIDER_BOOKS)
    return squared(books, kinds, others, lambda name, kind: (name, kind) in pairs)


def empty_state(book, n=1):
    """The state of which nothing is known: ``y`` (n, D) and ``snr`` (n, C)."""
    return book.known_snr.new_zeros(n, book.n_coords), book.known_snr.new_zeros(n, book.n_columns)


def draws(denoiser, n, generator, *, allow_unseen=True):
    """Rows from what a denoiser believes when it knows nothing; exact for independent columns."""
    q = denoiser(*empty_state(denoiser.codebook)).expand(n)
    return q.sample(generator, allow_unseen=allow_unseen)


def seeded_generator(seed, device):
    return torch.Generator(device).manual_seed(seed)


def paths_of(denoiser, rows, schedule, seed=0, **options):
    """The path estimate of rows with the noise of a seed."""
    generator = seeded_generator(seed, rows.device)
    return path_log_prob(denoiser, rows, schedule, generator=generator, **options)


def integral_of(denoiser, rows, quadrature, seed=0, **options):
    """The integral over SNR of rows with the noise of a seed."""
    generator = seeded_generator(seed, rows.device)
    return integral_log_prob(denoiser, rows, quadrature, generator=generator, **options)


def mixture_draws(oracle, n, rng):
    """Rows of a mixture of products: a hidden class, and given it every column on its own."""
    book, levels = oracle.codebook, oracle.codebook.levels
    weights, probs, mean, var = (
        t.double().cpu().numpy()
        for t in (oracle.log_weights.exp(), oracle.log_probs.exp(), oracle.means, oracle.var)
    )
    z = rng.choice(len(weights), size=n, p=weights / weights.sum())
    rows = np.zeros((n, book.n_columns))
    column, level = levels.level_column.cpu().numpy(), levels.level_code.cpu().numpy()
    for i, j in enumerate(book.finite.tolist()):
        mine = np.flatnonzero(column == i)
        cdf = probs[z][:, mine[level[mine].argsort()]].cumsum(1)
        rows[:, j] = (rng.random((n, 1)) * cdf[:, -1:] >= cdf).sum(1)
    rows[:, book.reals.cpu().numpy()] = rng.normal(mean[z], np.sqrt(var[z]))
    return torch.tensor(rows, device=book.device)


# -- paths, slowly ---------------------------------------------------------------------------------


def ranks_of(noise, x, schedule=None, given=None):
    """Ranks of the columns on the paths of rows, a coordinate schedule's unless another is given."""
    known = torch.zeros_like(x, dtype=torch.bool) if given is None else given & ~x.isnan()
    schedule = schedule or CoordinateSchedule(x.shape[1])
    free = ~known & ~x.isnan()
    return column_ranks(schedule, noise.uniform(0, x.shape[1]), free, known)


def naive_autoregression(denoiser, row, rank, start=()):
    """log W of one row, (C,): its observed columns become known one by one, by rank."""
    book = denoiser.codebook
    x = book.embed(row[None])
    y, snr = empty_state(book)
    total = torch.zeros(book.n_columns, dtype=torch.float64)
    order = [j for j in rank.argsort().tolist() if not math.isnan(row[j])]
    for j in order:
        if j not in start:
            total[j] = denoiser(y, snr).log_prob(row[None])[0, j].item()
        mine = book.coord_column == j
        y[:, mine], snr[:, j] = x[:, mine], math.inf
    return total


def total_mass(estimate):
    """Σ_x P(x) and its standard error."""
    p = estimate.log_prob.exp()
    return p.sum().item(), (p * estimate.stderr).square().sum().sqrt().item()


def repeated(score, n=10):
    """P(x) of rows, the mean over independent estimates, and the standard error of that mean: numpy, (N,) each."""
    p = np.stack([score(seed).log_prob.exp().cpu().numpy() for seed in range(n)])
    return p.mean(0), p.std(0, ddof=1) / math.sqrt(n)


def repeated_mass(score, n=10):
    """Σ_x P(x), the mean over independent estimates, and the standard error of that mean."""
    masses = np.array([score(seed).log_prob.exp().sum().item() for seed in range(n)])
    return masses.mean(), masses.std(ddof=1) / math.sqrt(n)


# -- schedules -------------------------------------------------------------------------------------


class PartlyKnownSchedule:
    """The first columns become known at once, the others climb together."""

    noisy = True
    complete = False

    def __init__(self, n_known, levels):
        self.n_known, self.levels, self.n_steps = n_known, levels, len(levels)

    order = None

    def snr(self, step, rank, n_free):
        level = self.levels[step - 1] if step else 0.0
        snr = torch.full(rank.shape, level, dtype=torch.get_default_dtype(), device=rank.device)
        return snr.masked_fill((rank < self.n_known) & (step > 0), math.inf)


def fixed_order(n_columns):
    """Autoregression from left to right, whatever the rank."""
    return CoordinateSchedule(n_columns, tuple(range(n_columns)))


SCHEDULES = {
    "isotropic": lambda _: IsotropicSchedule((0.4, 1.2, 2.5)),
    "coordinate": CoordinateSchedule,
    "block": lambda c: CoordinateSchedule(max(1, c - 1)),
    "partly known": lambda _: PartlyKnownSchedule(1, (0.6, 1.8)),
    "fixed order": fixed_order,
}

# a stranger ignores the evidence, so its weights have heavy tails: show it little
MILD = {
    "isotropic": lambda _: IsotropicSchedule((0.1, 0.3, 0.6)),
    "partly known": lambda _: PartlyKnownSchedule(1, (0.2, 0.5)),
}


def make_schedule(name, n_columns, kind="network"):
    return ((MILD.get(name) if kind == "stranger" else None) or SCHEDULES[name])(n_columns)


def mse_curve(denoiser, x, snr, **options):
    """Mean squared error over rows at each SNR, and its standard error."""
    errors = squared_errors([denoiser], x, snr, **options)[0]
    return errors.mean(1), errors.std(1) / math.sqrt(len(x))


def whole(book):
    """All rows as tuples of codes."""
    return [tuple(int(k) for k in row) for row in all_rows(book).tolist()]


def draw_rows(denoiser, n, rng, *, missing=0.0):
    """Rows of a distribution over few enough to list."""
    rows = all_rows(denoiser.codebook)
    p = denoiser.log_prob(rows).double().exp().cpu().numpy()
    x = rows[torch.tensor(rng.choice(len(rows), size=n, p=p / p.sum()), device=rows.device)]
    return x.masked_fill(torch.tensor(rng.random(x.shape) < missing, device=x.device), math.nan)


def known_but(book, rows, j):
    """The state that knows all cells of rows but those of columns ``j``."""
    free = torch.zeros(rows.shape, dtype=torch.bool, device=rows.device)
    free[:, j] = True
    y = book.embed(rows).masked_fill(book.per_coord(free), 0.0)
    return y, torch.where(free, 0.0, math.inf).to(y)


def correlated_rows(n, seed, device):
    """Two columns that agree nine times in ten, and one that follows their sum."""
    rng = np.random.default_rng(seed)
    a = rng.integers(3, size=n)
    b = np.where(rng.random(n) < 0.9, a, rng.integers(3, size=n))
    c = np.where(rng.random(n) < 0.9, (a + b) % 2, rng.integers(2, size=n))
    return torch.tensor(np.stack([a, b, c], 1), device=device).double()
