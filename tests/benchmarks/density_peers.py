"""Reference density models of rows of categories, chosen on validation rows and bounded in time.

Each is fitted by ``fit(train, valid, cardinalities, max_time)``, the rows being codes of shape (N, C) with column j in
0, ..., K_j - 1 and the time in seconds, and scores by ``log_prob(rows)``, shape (N,), nats. What is not a parameter
of the model is chosen on ``valid``; ``note`` says what was, ``n_parameters`` counts the free numbers. A category that
no training row has is still possible. Each is one normalised distribution over all rows: the probabilities of a table
that can be listed add up to one. One that cannot be had raises :class:`Skipped`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor, nn

from tests.benchmarks.baselines import ChowLiuTree, IndependentColumns
from tests.benchmarks.optional_peers import Trees
from tests.benchmarks.peers import Cells

CHUNK = 1 << 22  # one-hot cells held at once

Codes = NDArray[np.int64]
Scores = NDArray[np.float64]
Sizes = Sequence[int]
LogProb = Callable[[Tensor], Tensor]


class Skipped(Exception):  # noqa: N818 - it says what happened to a peer, which need not be an error
    """A peer has no result here, and why: a package is missing, the table is too wide for the time."""


@dataclass
class Peer:
    """What all have in common."""

    n_parameters: int = field(default=0, init=False)
    note: str = field(default="", init=False)

    def fit(self, train: Codes, valid: Codes, cardinalities: Sizes, max_time: float) -> Self:
        raise NotImplementedError

    def log_prob(self, rows: Codes) -> Scores:
        raise NotImplementedError


# -- counts -------------------------------------------------------------------------------------


@dataclass
class Independent(Peer):
    """Column by column, with one pseudo-count for all."""

    alphas: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

    def fit(self, train: Codes, valid: Codes, cardinalities: Sizes, max_time: float) -> Self:
        models = [self._model(alpha).fit(train, cardinalities) for alpha in self.alphas]
        self.model = max(models, key=lambda one: one.log_prob(valid).mean())
        self.note = f"pseudo-count {self.model.alpha:g}"
        self.n_parameters = self._count(cardinalities)
        return self

    def log_prob(self, rows: Codes) -> Scores:
        return self.model.log_prob(rows)

    def _model(self, alpha: float) -> Any:
        return IndependentColumns(alpha)

    def _count(self, cardinalities: Sizes) -> int:
        return sum(cardinalities) - len(cardinalities)


class ChowLiu(Independent):
    """The likeliest tree of pairs."""

    def _model(self, alpha: float) -> Any:
        return ChowLiuTree(alpha)

    def _count(self, cardinalities: Sizes) -> int:
        return sum(one.size - one.size // one.shape[-1] for one in self.model.log_tables_)


@dataclass
class HillClimb(Peer):
    """A Bayesian network: pgmpy's hill climbing by BIC, from the empty graph, one edge at a time until time is out.

    The score is pgmpy's BIC computed by `bincount`, which is many times faster. The conditional tables have a BDeu
    prior: one equivalent sample size for all, spread evenly over the cells of a table, chosen on validation rows.
    """

    max_indegree: int = 5
    samples: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

    def fit(self, train: Codes, valid: Codes, cardinalities: Sizes, max_time: float) -> Self:
        self.sizes = tuple(cardinalities)
        graph, how = self._search(train, time.perf_counter() + max_time)
        nodes = range(len(self.sizes))
        self.families = [(*sorted(graph.predecessors(j)), j) for j in nodes]
        counts = [family_counts(train, family, self.sizes) for family in self.families]
        options = [[_bdeu(one, sample) for one in counts] for sample in self.samples]
        nats = [self._log_prob(valid, tables).mean() for tables in options]
        best = int(np.argmax(nats))
        self.tables = options[best]
        self.n_parameters = sum(one.size - len(one) for one in counts)
        self.note = f"{graph.number_of_edges()} edges, {how}, sample size {self.samples[best]:g}"
        return self

    def log_prob(self, rows: Codes) -> Scores:
        return self._log_prob(rows, self.tables)

    def _log_prob(self, rows: Codes, tables: Sequence[Scores]) -> Scores:
        total = np.zeros(len(rows))
        for family, table in zip(self.families, tables, strict=True):
            total += table.ravel()[_flat(rows, family, self.sizes)]
        return total

    def _search(self, train: Codes, deadline: float) -> tuple[Any, str]:
        """The graph, and how the search ended."""
        discovery = _load("pgmpy.causal_discovery", "pgmpy>=1.1,<1.2")
        how = {"max_indegree": self.max_indegree, "return_type": "dag", "show_progress": False}
        score, graph = timed_bic(train, self.sizes, deadline), None
        names = pd.DataFrame(train[:2])  # the search needs the columns only: the score has the rows
        while True:
            step = discovery.HillClimbSearch(score, start_dag=graph, max_iter=1, **how)
            try:
                after = step.fit(names).causal_graph_
            except TimeoutError:
                if graph is None:
                    raise Skipped(f"no time for all pairs of {train.shape[1]} columns") from None
                return graph, "stopped by time"
            if graph is not None and set(graph.edges) == set(after.edges):
                return graph, "converged"
            graph = after


def timed_bic(train: Codes, sizes: Sizes, deadline: float) -> Any:
    """pgmpy's BIC, by `bincount`; TimeoutError after the deadline."""
    rows, n_rows, kept = np.asfortranarray(train), len(train), {}

    class TimedBIC(_load("pgmpy.structure_score", "pgmpy>=1.1,<1.2").BIC):
        def local_score(self, variable: int, parents: tuple[int, ...]) -> float:
            if time.perf_counter() > deadline:
                raise TimeoutError
            key = variable, frozenset(parents)
            if key not in kept:
                kept[key] = self._local_score(variable, parents)
            return kept[key]

        def _local_score(self, variable: int, parents: tuple[int, ...]) -> float:
            k, n_given = sizes[variable], np.prod([sizes[j] for j in parents], dtype=float)
            penalty = 0.5 * np.log(n_rows) * n_given * (k - 1)
            if parents and penalty > n_rows * np.log(k) + 0.5 * np.log(n_rows) * (k - 1):
                return -np.inf  # worse than no parents, whatever the counts are
            counts = family_counts(rows, (*parents, variable), sizes)
            return _n_log_n(counts) - _n_log_n(counts.sum(1)) - penalty

    return TimedBIC(pd.DataFrame(train[:2]), {j: list(range(k)) for j, k in enumerate(sizes)})


def family_counts(rows: Codes, family: Sizes, sizes: Sizes) -> Scores:
    """How often each category of the last column occurs with each combination of the others, shape (Q, K)."""
    n_cells = int(np.prod([sizes[j] for j in family]))
    counts = np.bincount(_flat(rows, family, sizes), minlength=n_cells)
    return counts.reshape(-1, sizes[family[-1]]).astype(float)


def _flat(rows: Codes, family: Sizes, sizes: Sizes) -> NDArray[np.intp]:
    return np.ravel_multi_index(tuple(rows[:, j] for j in family), [sizes[j] for j in family])


def _n_log_n(counts: Scores) -> float:
    return float((counts * np.log(np.maximum(counts, 1))).sum())


def _bdeu(counts: Scores, sample: float) -> Scores:
    smooth = counts + sample / counts.size
    return np.log(smooth / smooth.sum(1, keepdims=True))


# -- by gradient descent ------------------------------------------------------------------------


class _MaskedLinear(nn.Linear):
    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0], dtype=torch.float32)
        self.register_buffer("mask", mask.float())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class MaskedNetwork(nn.Module):
    """Log-probability of each row, by logits of each column from the one-hot columns before it.

    A hidden unit of degree d depends on columns 0, ..., d, and column j on units of degrees below j.
    """

    def __init__(self, cardinalities: Sizes, width: int, dropout: float) -> None:
        super().__init__()
        sizes = torch.tensor(cardinalities)
        owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)  # (T,)
        degree = torch.arange(width) % max(len(sizes) - 1, 1)  # (H,)
        masks = degree[:, None] >= owner, degree[:, None] >= degree, owner[:, None] > degree
        first, second, last = map(_MaskedLinear, masks)
        between = nn.ReLU(), nn.Dropout(dropout)
        self.layers = nn.Sequential(first, *between, second, *between, last)
        self.n_free = int(sum(mask.sum() + len(mask) for mask in masks))
        self.n_cells = len(owner)
        self.starts, place = sizes.cumsum(0) - sizes, torch.arange(int(sizes.max()))
        cell = self.starts[:, None] + place  # (C, K_max): the logit of each category, or none
        self.cell = torch.where(place < sizes[:, None], cell, self.n_cells)

    def forward(self, codes: Tensor) -> Tensor:
        one_hot = torch.zeros(len(codes), self.n_cells, dtype=torch.float32)
        logits = self.layers(one_hot.scatter_(1, codes + self.starts, 1.0))  # (N, T)
        ragged = nn.functional.pad(logits, (0, 1), value=-torch.inf)[:, self.cell]  # (N, C, K_max)
        return ragged.log_softmax(2).gather(2, codes[..., None]).double().sum((1, 2))


@dataclass
class Made(Peer):
    """A masked autoregressive network in the natural order, two hidden layers, stopped early.

    Masks keep about half of the weights: with T one-hot cells and H units a layer, T H + H^2 / 2 of them, and H is
    such that they are about `n_free`, by default the weights of three residual blocks of two layers of 256 x 256.
    Each rate of dropout gets an equal share of the time.

    References
    ----------
    Germain et al., "MADE: Masked Autoencoder for Distribution Estimation", 2015, arXiv:1502.03509.
    """

    n_free: int = 6 * 256 * 256
    dropouts: Sequence[float] = (0.1, 0.4)
    seed: int = 0

    def fit(self, train: Codes, valid: Codes, cardinalities: Sizes, max_time: float) -> Self:
        start, best, n_cells = time.perf_counter(), -np.inf, sum(cardinalities)
        width = max(16, round(np.sqrt(n_cells**2 + 2 * self.n_free) - n_cells))
        with torch.random.fork_rng(devices=[]):
            for i, dropout in enumerate(self.dropouts, 1):
                torch.manual_seed(self.seed)
                network = MaskedNetwork(cardinalities, width, dropout)
                deadline = start + max_time * i / len(self.dropouts)
                nats = _descend(network, network, _tensor(train), _tensor(valid), deadline, 3e-3)
                if nats > best:
                    best, self.network, self.n_parameters = nats, network, network.n_free
                    self.note = f"2 layers of {width}, dropout {dropout:g}"
        return self

    def log_prob(self, rows: Codes) -> Scores:
        return _in_parts(self.network, _tensor(rows), max(1, CHUNK // self.network.n_cells))


@dataclass
class Circuit(Peer):
    """A probabilistic circuit of the package SPFlow: a hidden Chow-Liu tree, by gradient, stopped early.

    Each column hangs from a hidden variable of its own, and those form the tree of the columns. The package's leaves
    have as many categories as the largest column; those that a column lacks are ruled out before training. Its start
    is one at which hidden categories are nearly alike, so noise is added. Each size gets an equal share of the time.

    References
    ----------
    Liu, Van den Broeck, "Tractable Regularization of Probabilistic Circuits", 2021, arXiv:2106.02264.
    """

    n_hidden: Sequence[int] = (8, 32)
    seed: int = 0

    def fit(self, train: Codes, valid: Codes, cardinalities: Sizes, max_time: float) -> Self:
        learn = _load("spflow.zoo.hclt.learn", "spflow").learn_hclt_categorical
        start, best, most = time.perf_counter(), -np.inf, max(cardinalities)
        x, x_valid = _tensor(train).float(), _tensor(valid).float()
        with torch.random.fork_rng(devices=[]):
            for i, n_hidden in enumerate(self.n_hidden, 1):
                torch.manual_seed(self.seed)
                circuit = learn(x, num_hidden_cats=n_hidden, num_cats=most).float()
                n_parameters = self._prepare(circuit, cardinalities)
                deadline = start + max_time * i / len(self.n_hidden)
                nats = _descend(circuit, _likelihood(circuit), x, x_valid, deadline, 0.1)
                if nats > best:
                    best, self.circuit, self.n_parameters = nats, circuit, n_parameters
                    self.note = f"{n_hidden} hidden categories"
        return self

    def _prepare(self, circuit: nn.Module, sizes: Sizes) -> int:
        """Noise, and no mass on categories that a column lacks; how many numbers are left, sums to one taken off."""
        n_parameters = 0
        leaves = _load("spflow.modules.leaves", "spflow").Categorical
        for module in circuit.modules():
            if not (own := list(module.parameters(recurse=False))):
                continue
            (logits,) = own
            logits.data += torch.randn_like(logits)
            if isinstance(module, leaves):
                k = sizes[module.scope.query[0]]
                logits.data[..., k:] = -1e4
                n_parameters += logits[..., 1:k].numel()
            else:  # weights of a sum: (columns, in, out, repetitions)
                n_parameters += logits[:, 1:].numel()
        return n_parameters

    def log_prob(self, rows: Codes) -> Scores:
        return _in_parts(_likelihood(self.circuit), _tensor(rows).float(), 1024)


def _likelihood(circuit: Any) -> LogProb:
    return lambda rows: circuit.log_likelihood(rows).flatten()


def _descend(
    module: nn.Module, log_prob: LogProb, x: Tensor, x_valid: Tensor, deadline: float, lr: float
) -> float:
    """Adam until the validation rows gain no more or time is out, but for one step at least.

    It keeps the best weights and returns their mean nats on (at most 5000) validation rows.
    """
    best, since, patience, weights = -np.inf, 0, 20, {}
    optimiser = torch.optim.Adam(module.parameters(), lr)
    slower = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "max", patience=patience // 4)
    while not weights or (since < patience and time.perf_counter() < deadline):
        module.train()
        for index in torch.randperm(len(x)).split(256)[:50]:
            optimiser.zero_grad()
            (-log_prob(x[index]).mean()).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            if time.perf_counter() > deadline:
                break
        module.eval()
        nats = float(_in_parts(log_prob, x_valid[:5000], 1024).mean())
        slower.step(nats)
        since += 1
        if nats > best or not weights:
            best, since = nats, 0
            weights = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(weights)
    return best


def _in_parts(log_prob: LogProb, x: Tensor, step: int) -> Scores:
    with torch.no_grad():
        return torch.cat([log_prob(part).double() for part in x.split(step)]).numpy()


def _tensor(rows: Codes) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))


# -- trees --------------------------------------------------------------------------------------


class _SharedOrders(Trees):
    """The boosted trees with the same random orders for all rows: a mixture of a few distributions, hence one."""

    def log_prob(self, rows: Cells) -> Scores:
        random, codes = np.random.default_rng(self.seed), rows.codes
        scores = np.zeros((self.n_orders, len(codes)))
        for score in scores:
            seen = np.full(codes.shape, np.nan, np.float32)
            for j in random.permutation(codes.shape[1]):
                score += self._category(j, seen, codes[:, j], rows.cardinalities[j])
                seen[:, j] = codes[:, j]
        return logsumexp(scores, axis=0) - np.log(self.n_orders)


@dataclass
class UnmaskingTrees(Peer):
    """UnmaskingTrees (package utrees), on more rows again for as long as time and memory last.

    It makes N C rows of C columns for every duplicate and fits C classifiers to them, so a wide table gets few rows.
    The time that is left is taken to buy rows in proportion, which is cautious. The share of each conditional that
    is spread evenly over the categories is chosen last, on validation rows as well.
    """

    first_rows: int = 10
    duplicates: int = 5
    odds: Sequence[float] = (1e-3, 1e-2, 0.03, 0.1, 0.3)
    max_cells: int = 50_000_000  # of the rows that it makes
    seed: int = 0

    def fit(self, train: Codes, valid: Codes, cardinalities: Sizes, max_time: float) -> Self:
        _load("utrees", "utrees")
        self.sizes, best, begin = tuple(cardinalities), -np.inf, time.perf_counter()
        most = min(len(train), 1 + self.max_cells // (self.duplicates * train.shape[1] ** 2))
        held, n_rows = self._cells(valid[:1000]), min(self.first_rows, most)
        while True:
            start = time.perf_counter()
            model = _SharedOrders(n_rows=n_rows, duplicates=self.duplicates, seed=self.seed)
            nats = model.fit(self._cells(train)).log_prob(held).mean()
            if nats > best:
                best, self.model = nats, model
            now = time.perf_counter()
            left = begin + max_time - now
            if left < 0 and n_rows == self.first_rows:
                raise Skipped(f"no time for {n_rows} rows of {train.shape[1]} columns")
            following = min(most, int(n_rows * 0.8 * left / (now - start)))
            if following < 1.5 * n_rows:
                break
            n_rows = following
        self.model.ODD = max(self.odds, key=lambda odd: self._with(odd).log_prob(held).mean())
        self.note = f"{self.model.n_rows} rows, {self.model.ODD:g} spread evenly"
        trees = [one.get_booster() for one in self.model.model.trees_ if one is not None]
        self.n_parameters = sum(text.count("leaf=") for one in trees for text in one.get_dump())
        return self

    def log_prob(self, rows: Codes) -> Scores:
        parts = np.array_split(rows, 1 + len(rows) * rows.shape[1] // CHUNK)
        return np.concatenate([self.model.log_prob(self._cells(part)) for part in parts])

    def _with(self, odd: float) -> _SharedOrders:
        self.model.ODD = odd
        return self.model

    def _cells(self, rows: Codes) -> Cells:
        return Cells(np.empty((len(rows), 0)), rows.astype(np.intp), np.empty(0), self.sizes)


def _load(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Skipped(f'pip install "{package}"') from None


PEERS: dict[str, type[Peer]] = {
    "independent": Independent,
    "Chow-Liu tree": ChowLiu,
    "masked network": Made,
    "hill climbing": HillClimb,
    "hidden Chow-Liu tree": Circuit,
    "UnmaskingTrees": UnmaskingTrees,
}
