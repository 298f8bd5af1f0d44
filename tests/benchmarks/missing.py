"""Nats per observed cell when cells are missing, above the exact marginal of the truth.

    python -m tests.benchmarks.missing --max-time 90
    python -m tests.benchmarks.missing --fractions 0 0.3 --quick

Rows are drawn from a Bayesian network (ALARM by default), and the given share of all cells, in training and in test
rows alike, is hidden completely at random. The truth of a test row is log P(observed cells), the other variables summed
out by variable elimination. Every model is asked for the same: ours and its peers sum the missing cells out as well.

- independent columns, from the counts of the observed cells;
- a Chow-Liu tree, from the counts of the pairs observed together, marginalised exactly;
- ours, fitted with the missing cells marginalised;
- ours, fitted on rows whose missing cells were filled with the column's mode, test cells marginalised.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from discrete_itd.datasets import BayesianNetwork, load_bayesian_network
from tests.benchmarks.baselines import _spanning_tree
from tests.benchmarks.tables import estimator, machine, markdown, mean_and_error, timed


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="alarm")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.0, 0.1, 0.3, 0.5])
    parser.add_argument("--rows", type=int, default=20_000, help="training rows")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--max-time", type=float, default=90.0, help="seconds of training, per fit")
    parser.add_argument("--n-evaluations", type=int, default=128)
    parser.add_argument("--quick", action="store_true", help="a few steps of ours, few rows")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.test_rows = 1000, 100
    try:
        network = load_bayesian_network(options.network)
    except ImportError as error:
        print(f"skipped: {error}")
        return
    print(machine())
    train = network.sample(options.rows, random_state=0)
    test = network.sample(options.test_rows, random_state=1)
    print(f"\n{options.network}: {options.rows} training rows, {options.test_rows} test rows\n")
    header = ["missing", "method", "excess nats per observed cell", "nats per row", "s.e."]
    header += ["s to fit", "s to score"]
    print("\n".join(markdown(header, [[""] * len(header)]).splitlines()[:2]), flush=True)
    for fraction in options.fractions:
        for row in _compare(network, train, test, fraction, options):
            print(markdown(header, [row]).splitlines()[2], flush=True)


def _compare(
    network: BayesianNetwork,
    train: pd.DataFrame,
    test: pd.DataFrame,
    fraction: float,
    options: argparse.Namespace,
):
    """The rows of the table for one share of missing cells."""
    train, test = hide(train, fraction, seed=2), hide(test, fraction, seed=3)
    seen = test.notna().to_numpy().sum()
    truth, seconds = timed(marginal_log_prob, network, test)
    yield [f"{fraction:.0%}", "the truth", "0", *mean_and_error(-truth), "", f"{seconds:.1f}"]

    states = {name: list(network.states[name]) for name in train.columns}
    for label, fit in (
        ("independent columns", functools.partial(observed_tree, edges=False)),
        ("Chow-Liu tree", observed_tree),
    ):
        model, fitting = timed(fit, train, states)
        log_prob, scoring = timed(marginal_log_prob, model, test)
        yield _row(fraction, label, truth, log_prob, seen, fitting, scoring)

    filled = train.fillna(train.mode().iloc[0])
    fits = {"discrete_itd, marginalised": train}
    if fraction > 0:
        fits["discrete_itd, fitted on modes"] = filled
    for label, rows in fits.items():
        model = estimator(options.max_time, quick=options.quick)
        if not options.quick:
            model.set_params(n_evaluations=options.n_evaluations)
        _, fitting = timed(model.fit, rows)
        log_prob, scoring = timed(model.score_samples, test)
        yield _row(fraction, label, truth, log_prob, seen, fitting, scoring)


def _row(
    fraction: float,
    label: str,
    truth: np.ndarray,
    log_prob: np.ndarray,
    seen: int,
    fitting: float,
    scoring: float,
) -> list[object]:
    mean, error = mean_and_error(truth - log_prob)
    per_cell = len(truth) / seen
    excess = f"{per_cell * mean:.4f} ± {per_cell * error:.4f}"
    times = f"{fitting:.0f}", f"{scoring:.1f}"
    return [f"{fraction:.0%}", label, excess, *mean_and_error(-log_prob), *times]


def hide(frame: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """The frame with that share of its cells missing, completely at random; no row loses all."""
    random = np.random.default_rng(seed)
    score = random.random(frame.shape)
    missing = score < fraction
    missing[np.arange(len(frame)), score.argmax(1)] = False
    return frame.mask(missing)


# -- the truth, and trees -----------------------------------------------------------------------


def marginal_log_prob(network: BayesianNetwork, frame: pd.DataFrame) -> np.ndarray:
    """log P(observed cells) of each row, shape (N,), nats, by variable elimination.

    A missing cell enters as a row of ones over its states, an observed one as a one-hot row, so that all rows share one
    order of elimination: the variable that makes the smallest table goes next. Every factor is an array whose first
    axis is the row (of length one where the factor does not depend on it).
    """
    number = {name: i for i, name in enumerate(network.variables)}
    factors: list[tuple[tuple[int, ...], np.ndarray]] = []
    for name, i in number.items():
        states = list(network.states[name])
        codes = pd.Categorical(frame[name], categories=states).codes
        evidence = np.eye(len(states))[codes]
        evidence[codes < 0] = 1.0
        factors.append(((i,), evidence))
        family = tuple(number[parent] for parent in network.parents[name])
        factors.append(((*family, i), network.cpts[name][None]))
    sizes = [len(network.states[name]) for name in network.variables]
    log_scale = np.zeros(len(frame))
    left = set(number.values())
    while left:
        joined = {
            i: tuple(sorted({j for scope, _ in factors if i in scope for j in scope})) for i in left
        }
        cost = {i: (np.prod([sizes[j] for j in scope]), i) for i, scope in joined.items()}
        one = min(left, key=cost.__getitem__)
        left.remove(one)
        scope, table = joined[one], np.ones((1,) * (len(joined[one]) + 1))
        for factor in [f for f in factors if one in f[0]]:
            table = table * _aligned(*factor, scope)
        factors = [f for f in factors if one not in f[0]]
        table = table.sum(1 + scope.index(one))
        # Scaled to a largest entry of one: a product of many small numbers does not vanish.
        top = table.reshape(len(table), -1).max(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_scale = log_scale + np.log(top)
            table = np.nan_to_num(table / top.reshape(-1, *(1,) * (table.ndim - 1)))
        factors.append((tuple(j for j in scope if j != one), table))
    return log_scale


def _aligned(scope: Sequence[int], table: np.ndarray, target: Sequence[int]) -> np.ndarray:
    """The table with its axes (after that of the rows) in the order of `target`, new ones of length one."""
    order = sorted(range(len(scope)), key=lambda axis: target.index(scope[axis]))
    table = table.transpose(0, *(axis + 1 for axis in order))
    shape = dict(zip((scope[axis] for axis in order), table.shape[1:], strict=True))
    return table.reshape(len(table), *(shape.get(i, 1) for i in target))


def observed_tree(
    frame: pd.DataFrame,
    states: dict[str, list[str]],
    *,
    edges: bool = True,
    alpha: float = 0.5,
) -> BayesianNetwork:
    """The Chow-Liu tree of a table with missing cells, or, without edges, its independent columns.

    Counts of a pair are over the rows that have both cells, which is consistent where cells are missing at random.
    """
    names = list(frame.columns)
    hot = []
    for name in names:
        codes = pd.Categorical(frame[name], categories=states[name]).codes
        one = np.eye(len(states[name]))[codes]
        one[codes < 0] = 0.0
        hot.append(one)
    parents = np.full(len(names), -1)
    if edges:
        weights = np.zeros((len(names), len(names)))
        for i in range(len(names)):
            for j in range(i):
                weights[i, j] = weights[j, i] = _information(hot[i].T @ hot[j])
        parents = _spanning_tree(weights)
    cpts, given = {}, {}
    for j, name in enumerate(names):
        counts = alpha + (hot[j].sum(0) if parents[j] < 0 else hot[parents[j]].T @ hot[j])
        cpts[name] = counts / counts.sum(-1, keepdims=True)
        given[name] = [] if parents[j] < 0 else [names[parents[j]]]
    return BayesianNetwork(states, cpts, given)


def _information(counts: np.ndarray) -> float:
    """Mutual information of a table of counts, nats."""
    joint = counts / max(counts.sum(), 1.0)
    product = np.outer(joint.sum(1), joint.sum(0))
    ratio = np.divide(joint, product, out=np.ones_like(joint), where=joint > 0)
    return float((joint * np.log(ratio)).sum())


if __name__ == "__main__":
    main()
