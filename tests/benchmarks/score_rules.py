r"""What makes a score of nats by column: rules side by side on the same fits of the default detector.

    python -m tests.benchmarks.score_rules                  # the deciding tables, and the loan applications of seed 7
    python -m tests.benchmarks.score_rules --tables odd     # all sixty tables, to read
    python -m tests.benchmarks.score_rules --tables categorical

With the nats :math:`\ell_j` of a column by the chain rule, :math:`q_j` their quantile in 500 rows drawn from the model
and :math:`b_j` their mean there, rules are sums over columns of

- "nats": :math:`\ell_j`;
- "above mean": :math:`\max(0, \ell_j - b_j)` of a density, :math:`\ell_j` of a mass;
- "hard 0.95": :math:`\max(0, \ell_j - q_j)`;
- "soft 0.75", "soft 0.9", "soft 0.95": :math:`\log(1 + e^{\ell_j - q_j})`; the last is the detector's (12);
- "soft 0.95, T = 2": :math:`2 \log(1 + e^{(\ell_j - q_j) / 2})`;

and "with forest", "with independent": the mean of "soft 0.95" of the chosen model and of another model of the same
rows; "weighted forest": with a weight :math:`e^{-d}` of the forest, d nats behind on held-out rows.

Printed are AUROC and average precision × 100, and differences to "soft 0.95" with standard errors over tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.recipes import Forest, Independent
from tests.benchmarks import data
from tests.benchmarks.messy import cleaned, labels
from tests.benchmarks.odd import EVERY
from tests.benchmarks.tables import machine, markdown, mean_and_error

TYPICAL = 500  # rows drawn from the model
OTHERS: dict[str, Any] = {"forest": Forest(), "independent": Independent()}
CHOSEN = "soft 0.95"


def main() -> None:
    """Print a line per rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", choices=("deciding", "odd", "categorical"), default="deciding")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine(), flush=True)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, rows in tables(options.tables):
        scores = by_rule(rows, options.seed)
        if scores is None:
            print(f"{name}: left out, its model has no closed form")
            continue
        for rule, score in scores.items():
            measured = [f(rows.is_odd, score) for f in (roc_auc_score, average_precision_score)]
            found.setdefault(rule, {})[name] = 100 * np.array(measured)
        print(name, {rule: of[name].round(1).tolist() for rule, of in found.items()}, flush=True)
    if not found:
        print("skipped: no tables (see tests/benchmarks/data.py)")
        return
    values = {rule: np.stack(list(of.values())) for rule, of in found.items()}  # (tables, 2)
    lines = []
    for rule, own in values.items():
        behind = (own - values[CHOSEN]).T
        differences = ["{:+.2f} ± {:.2f}".format(*mean_and_error(d)) for d in behind]
        lines.append([rule, *(f"{m:.2f}" for m in own.mean(0)), *differences])
    print(f"\n{len(values[CHOSEN])} tables\n")
    print(markdown(["rule", "AUROC", "AP", "difference", "difference of AP"], lines))


def tables(which: str) -> Iterator[tuple[str, data.Anomalies]]:
    """The tables, one by one."""
    if which == "categorical":
        for name in data.categorical_names():
            if name != "w7a":  # which takes an hour
                yield name, data.thirds(*data.load_categorical(name), 4)
        return
    for name in data.odd_names()[:: EVERY if which == "deciding" else 1]:
        yield name, data.load_odd(name)
    folder = data.loans(7) if which == "deciding" else None
    if folder is not None:
        history, tomorrow = (cleaned(folder / f"{part}.csv") for part in ("history", "tomorrow"))
        yield "loans", data.Anomalies(history[:10_000], tomorrow, labels(folder) != "")


def by_rule(rows: data.Anomalies, seed: int) -> dict[str, np.ndarray] | None:
    """Scores of the test rows, higher for odder ones; None if the chosen model has no closed form."""
    density = DiffusionOutlierDetector(random_state=seed).fit(rows.train).density_
    if not density.denoiser_.closed_form:
        return None
    nats, drawn, is_density = parts(density, rows.test, seed)
    b = np.where(is_density, drawn.mean(0), 0.0)
    q = {share: np.quantile(drawn, share, axis=0) for share in (0.75, 0.9, 0.95)}
    out = {
        "nats": nats.sum(1),
        "above mean": np.where(is_density, np.maximum(nats - b, 0), nats).sum(1),
        "hard 0.95": np.maximum(nats - q[0.95], 0).sum(1),
        **{f"soft {share}": soft(nats - level) for share, level in q.items()},
        "soft 0.95, T = 2": 2 * soft((nats - q[0.95]) / 2),
    }
    held = rows.train.sample(frac=0.2, random_state=seed)
    for name, recipe in OTHERS.items():
        fitted_to = rows.train.drop(held.index)
        other = DiffusionDensity(denoiser=recipe, random_state=seed).fit(fitted_to)
        nats, drawn, _ = parts(other, rows.test, seed)
        score = soft(nats - np.quantile(drawn, 0.95, axis=0))
        out[f"with {name}"] = out[CHOSEN] + score
        if name == "forest":
            behind = density.score(held) - other.score(held)
            out["weighted forest"] = out[CHOSEN] + np.exp(-max(behind, 0.0)) * score
    return out


def soft(z: np.ndarray) -> np.ndarray:
    """The sum over columns of log(1 + exp z), (N,)."""
    return np.logaddexp(0, z).sum(1)


def parts(density: DiffusionDensity, X: pd.DataFrame, seed: int) -> tuple[np.ndarray, ...]:
    """Nats by internal column of the rows and of drawn ones, 0 where a cell is missing; which columns are densities."""
    both = []
    for frame in (X, density.sample(TYPICAL, random_state=seed, missing="none")):
        rows = density.rows(frame)
        with torch.no_grad():
            factors = [density.denoiser_.log_factors(x).double() for x in rows.unique.split(2048)]
        nats = -torch.cat(factors).cpu().numpy()[rows.inverse] - rows.log_volume
        both.append(np.where(rows.x.isnan().cpu().numpy(), 0.0, nats))
    kinds = np.array([column.kind == "continuous" for column in density.encoder_.schema])
    is_value = np.arange(len(density.encoder_.owner)) < len(kinds)
    return both[0], both[1], kinds[density.encoder_.owner] & is_value


if __name__ == "__main__":
    main()
