r"""What makes a score of nats by column and model: rules side by side on the same fits of the default detector.

    python -m tests.benchmarks.score_rules                  # the deciding tables
    python -m tests.benchmarks.score_rules --tables odd     # thirty others, to read
    python -m tests.benchmarks.score_rules --tables categorical --names chess solar

Deciding are every second table of OddBench by name from the first, six categorical and eleven numeric ones, and loan
applications and orders of seed 7. With the nats :math:`\ell_{mj}` of column j by the chain rule under a model m, the
chosen one or a forest, a mixture or a causal network that it was compared with, their least :math:`a_{mj}` and a
quantile :math:`q_{mj}` in 500 rows that m draws, rules are sums over columns of

- "nats": :math:`\ell_{mj} - a_{mj}` of the chosen model;
- "chosen": (12) of it, :math:`s_{mj} = \log(1 + e^{\ell_{mj} - q_{mj}}) - \log(1 + e^{a_{mj} - q_{mj}})`, q at the
  level max(0.95, 1 - 1/C) of C columns;
- "mean", "largest", "root mean square": of the s of all models;
- "by nats": the mean with weights :math:`e^{-L_m}`, L the nats of held-out rows: the detector's;
- "nats by nats": that of :math:`\ell_{mj} - a_{mj}`;

and the same with "0.95" and "1 - 1/C" in place of the level. Printed are AUROC and average precision × 100, and
differences to "chosen 0.95" with standard errors over tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.detection.score import LEVEL, TYPICAL_ROWS, Scorer, terms
from discrete_itd.estimators import drawn_rows
from discrete_itd.models import comparison
from tests.benchmarks import data
from tests.benchmarks.messy import TABLES
from tests.benchmarks.tables import machine, markdown, mean_and_error

BEFORE = "chosen 0.95"
CATEGORICAL = ["aid362", "apas", "chess", "cmc", "solar", "u2r"]
NUMERIC = ["glass", "WBC", "Pima", "Ionosphere", "yeast", "vowels", "cardio", "thyroid", "fault"]
NUMERIC += ["Wilt", "annthyroid"]
HISTORY = {"loans": 10_000, "orders": 8_000}  # rows to train on


def main() -> None:
    """Print a line per rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("deciding", "odd", "categorical", "numeric")
    parser.add_argument("--tables", choices=kinds, default="deciding")
    parser.add_argument("--names", nargs="+", help="of some of these tables")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    comparison.LEAST_SHARE = 0.0  # models far behind are compared, too
    print(machine(), flush=True)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, load in tables(options.tables).items():
        if options.names and name not in options.names:
            continue
        rows = load()
        for rule, score in by_rule(rows, options.seed).items():
            measured = [f(rows.is_odd, score) for f in (roc_auc_score, average_precision_score)]
            found.setdefault(rule, {})[name] = 100 * np.array(measured)
        print(name, {rule: of[name].round(1).tolist() for rule, of in found.items()}, flush=True)
    if not found:
        print("skipped: no tables (see tests/benchmarks/data.py)")
        return
    values = {rule: np.stack(list(of.values())) for rule, of in found.items()}  # (tables, 2)
    lines = []
    for rule, own in values.items():
        behind = (own - values[BEFORE]).T
        differences = ["{:+.2f} ± {:.2f}".format(*mean_and_error(d)) for d in behind]
        lines.append([rule, *(f"{m:.2f}" for m in own.mean(0)), *differences])
    print(f"\n{len(values[BEFORE])} tables\n")
    print(markdown(["rule", "AUROC", "AP", "difference", "difference of AP"], lines))


def tables(which: str) -> dict[str, Callable[[], data.Anomalies]]:
    """Functions that read the tables, by name."""
    decides, out = which == "deciding", {}
    if decides or which == "odd":
        names = data.odd_names()[0 if decides else 1 :: 2]
        out |= {name: partial(data.load_odd, name) for name in names}
    if decides or which == "categorical":
        out |= {name: partial(categorical, name) for name in CATEGORICAL}
    if decides or which == "numeric":
        out |= {name: partial(numeric, name) for name in NUMERIC}
    if decides:
        made = {name: (TABLES[name].made(7), n_rows) for name, n_rows in HISTORY.items()}
        out |= {name: partial(messy, name, *of) for name, of in made.items() if of[0] is not None}
    return out


def categorical(name: str) -> data.Anomalies:
    return data.thirds(*data.load_categorical(name), 4)


def numeric(name: str) -> data.Anomalies:
    return data.halves(*data.load_numeric(name), 4)


def messy(name: str, folder: Path, n_rows: int) -> data.Anomalies:
    """Loan applications or orders: some rows of history to train on, those of tomorrow to test on."""
    files = TABLES[name]
    history, tomorrow = (files.cleaned(folder / f"{part}.csv") for part in ("history", "tomorrow"))
    is_odd = (files.labels(folder)["kind"] != "").to_numpy()
    return data.Anomalies(history[:n_rows], tomorrow, is_odd)


def by_rule(rows: data.Anomalies, seed: int) -> dict[str, np.ndarray]:
    """Scores of the test rows by each rule, higher for more anomalous ones."""
    density = DiffusionOutlierDetector(random_state=seed).fit(rows.train).density_
    scorer, test = Scorer(density), density.rows(rows.test)
    weights = np.array([share for share, _ in scorer.models])
    nats, drawn = [], []
    for _, model in scorer.models:
        own = density.rows(drawn_rows(density, model, TYPICAL_ROWS, seed))
        nats.append(scorer._nats(test, model)[0])
        drawn.append(scorer._nats(own, model)[0])
    n_columns = (~np.isnan(drawn[0])).any(0).sum()
    plain = np.stack([of - cut(own, 0.0)[0] for of, own in zip(nats, drawn, strict=True)])
    plain = np.nan_to_num(plain.clip(min=0))
    out = {"nats": plain[0].sum(1), "nats by nats": np.tensordot(weights, plain.sum(2), 1)}
    one_cell = 1 - 1 / max(1, n_columns)
    levels = {"": max(LEVEL, one_cell), " 0.95": 0.95, " 1 - 1/C": one_cell}
    for suffix, level in levels.items():
        each = [terms(of, cut(own, level)) for of, own in zip(nats, drawn, strict=True)]
        s = np.nan_to_num(np.stack(each))
        out |= {
            f"chosen{suffix}": s[0].sum(1),
            f"mean{suffix}": s.mean(0).sum(1),
            f"largest{suffix}": s.max(0).sum(1),
            f"root mean square{suffix}": np.sqrt((s**2).mean(0)).sum(1),
            f"by nats{suffix}": np.tensordot(weights, s.sum(2), 1),
        }
    return out


def cut(drawn: np.ndarray, level: float) -> np.ndarray:
    """The least nats and their quantile of each column (2, C'), of drawn rows; 0 where there are none."""
    found = [column[~np.isnan(column)] for column in drawn.T]
    return np.array([np.quantile(n, [0, level]) if len(n) else (0.0, 0.0) for n in found]).T


if __name__ == "__main__":
    main()
