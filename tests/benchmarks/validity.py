"""Do p-values keep their promise on real tables: false alarms, power, false discoveries.

    python -m tests.benchmarks.validity                            # mushroom (edible), adult, car
    python -m tests.benchmarks.validity car --max-time 30 --repeats 1000
    python -m tests.benchmarks.validity car --quick

A density is fitted once on 60 % of a table's rows. All other rows are scored once: two thirds of them are the pool,
of which, 200 times over, a random half calibrates and the other half is tested; the others become anomalies, in which
1, 2 or 4 cells hold what another of those rows has there. The p-values are those of
:mod:`discrete_itd.detection.conformal`.

False alarms. Over calibration and test rows together, the chance of p <= alpha is k / (n + 1), where
k = floor(alpha (n + 1)), for n calibration rows whose scores all differ, and less if some are tied: "mean rate", with
its standard error over the repetitions, is to agree with "promised". Given one calibration set, the rate follows
Beta(k, n + 1 - k), and the number of alarms among m test rows its beta-binomial distribution, whatever the model:
"5-95 %" are quantiles over the repetitions and, promised, of that distribution; "above" counts the repetitions above
its 95 % quantile. (A binomial interval around alpha forgets that the test rows share a calibration set and would be too
narrow.) "By training scores" is the mean rate of the threshold that needs no calibration: the alpha-quantile of the
training rows' own scores.

Discoveries. Batches of test rows, of which a share are anomalies of 4 cells, go through Benjamini and Hochberg's
procedure at 10 %. Conformal p-values of one calibration set keep the false discovery rate below 10 % times the share
of ordinary rows (Bates et al., Annals of Statistics 2023, arXiv:2104.08279).

Scores are kept in ``.cache/validity``, so that the repetitions can be run again at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import betabinom
from sklearn.metrics import roc_auc_score

from discrete_itd.datasets import load_adult, load_car, load_mushroom
from discrete_itd.detection.conformal import discoveries, p_values
from tests.benchmarks.tables import estimator, keep, kept, machine, markdown, mean_and_error

ALPHAS = (0.01, 0.05, 0.1)
CELLS = (1, 2, 4)
SHARES = (0.05, 0.1)
FDR = 0.1
BATCH = 500


def main() -> None:
    """Print two tables per data table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", default=["mushroom", "adult", "car"])
    parser.add_argument("--max-time", type=float, default=60.0, help="seconds of training")
    parser.add_argument("--n-evaluations", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--fresh", action="store_true", help="forget the scores of earlier runs")
    parser.add_argument("--quick", action="store_true", help="a few steps, few rows")
    options = parser.parse_args()
    print(machine())
    for name in options.tables:
        scores = _scores(name, options)
        few = options.repeats if not options.quick else 20
        pool, train = scores["pool"], scores["train"]
        print(
            f"\n{name}: {len(pool) // 2} calibration rows, {len(pool) - len(pool) // 2} test rows"
        )
        auroc = [_auroc(pool, scores[f"odd-{cells}"]) for cells in CELLS]
        words = ", ".join(f"{c}: {a:.1f}" for c, a in zip(CELLS, auroc, strict=True))
        print(f"\nFalse alarms and power. AUROC × 100 of anomalies, by exchanged cells: {words}\n")
        odd = [scores[f"odd-{cells}"] for cells in CELLS]
        print(_alarms(pool, train, odd, few))
        print(f"\nDiscoveries at {FDR:.0%}\n")
        print(_discoveries(pool, odd[-1], few))


# -- rows and scores ----------------------------------------------------------------------------


def table(name: str) -> pd.DataFrame:
    """A table of this package: the edible mushrooms, adult or car."""
    if name == "mushroom":
        X, y = load_mushroom(return_X_y=True)
        return X[y == "edible"].reset_index(drop=True)
    loaders = {"adult": load_adult, "car": load_car}
    if name not in loaders:
        raise ValueError(f"table must be 'mushroom', 'adult' or 'car', got {name!r}")
    return loaders[name]()


def exchanged(frame: pd.DataFrame, n_cells: int, seed: int) -> pd.DataFrame:
    """Every row with ``n_cells`` of its cells replaced by what another row of the frame has there, and differs."""
    random = np.random.default_rng(seed)
    codes = np.stack([pd.factorize(frame[column])[0] for column in frame], axis=1)
    changeable = np.flatnonzero((codes != codes[0]).any(0))
    source = np.tile(np.arange(len(frame)), (codes.shape[1], 1)).T  # which row a cell comes from
    for i in range(len(frame)):
        for j in random.permutation(changeable)[:n_cells]:
            others = np.flatnonzero(codes[:, j] != codes[i, j])
            source[i, j] = random.choice(others)
    columns = {name: frame[name].array.take(source[:, j]) for j, name in enumerate(frame)}
    return pd.DataFrame(columns, index=frame.index)


def _scores(name: str, options: argparse.Namespace) -> dict[str, NDArray[np.float64]]:
    """Log-probabilities of the pool, of training rows and of anomalies, from the cache if they are there."""
    effort = "quick" if options.quick else f"{options.max_time:g}s-{options.n_evaluations}"
    file = f"validity/{name}-{effort}"
    wanted = ["pool", "train", *(f"odd-{cells}" for cells in CELLS)]
    known = {} if options.fresh or options.quick else kept(file)
    if not set(wanted) <= set(known):
        rows = table(name).sample(frac=1.0, random_state=0, ignore_index=True)
        rows = rows[:400] if options.quick else rows
        n_train = round(0.6 * len(rows))
        cut = n_train + 2 * (len(rows) - n_train) // 3
        train, pool, hosts = rows[:n_train], rows[n_train:cut], rows[cut:]
        asked = {"pool": pool, "train": train[:5000]}
        asked |= {f"odd-{cells}": exchanged(hosts, cells, seed=cells) for cells in CELLS}
        model = estimator(options.max_time, quick=options.quick)
        if not options.quick:
            model.set_params(n_evaluations=options.n_evaluations)
        model.fit(train)
        for key, part in asked.items():
            known[key] = model.score_samples(part).tolist()
            keep(file, key, known[key])
    return {key: np.array(known[key]) for key in wanted}


def _auroc(pool: NDArray, odd: NDArray) -> float:
    truth = np.repeat([0, 1], [len(pool), len(odd)])
    return 100 * float(roc_auc_score(truth, -np.concatenate([pool, odd])))


# -- repetitions --------------------------------------------------------------------------------


def _alarms(pool: NDArray, train: NDArray, odd: Sequence[NDArray], repeats: int) -> str:
    """Rates of false alarms, and power."""
    n = len(pool) // 2
    m = len(pool) - n
    random = np.random.default_rng(0)
    rates = np.empty((repeats, len(ALPHAS)))
    bare = np.empty((repeats, len(ALPHAS)))
    power = np.empty((repeats, len(ALPHAS), len(odd)))
    for i in range(repeats):
        mixed = random.permutation(pool)
        calibration, test = mixed[:n], mixed[n:]
        p, p_odd = p_values(calibration, test), [p_values(calibration, one) for one in odd]
        for j, alpha in enumerate(ALPHAS):
            rates[i, j] = (p <= alpha).mean()
            bare[i, j] = (test <= np.quantile(train, alpha)).mean()
            power[i, j] = [(one <= alpha).mean() for one in p_odd]
    rows = []
    for j, alpha in enumerate(ALPHAS):
        k = int(np.floor(alpha * (n + 1) + 1e-9))
        exact = betabinom(m, k, n + 1 - k) if k else None
        low, high = (exact.ppf([0.05, 0.95]) / m) if exact else (0.0, 0.0)
        seen = np.quantile(rates[:, j], [0.05, 0.95])
        rows.append(
            [
                f"{alpha:.0%}",
                _percent(k / (n + 1)),
                "{} ± {}".format(*map(_percent, mean_and_error(rates[:, j]))),
                f"{_percent(low)} to {_percent(high)}",
                f"{_percent(seen[0])} to {_percent(seen[1])}",
                f"{(rates[:, j] > high + 1e-9).mean():.1%}",
                _percent(bare[:, j].mean()),
                *(f"{v:.1%}" for v in power[:, j].mean(0)),
            ]
        )
    header = ["alpha", "promised", "mean rate", "5-95 %, promised", "5-95 %", "above"]
    header += ["by training scores", *(f"power, {c} cells" for c in CELLS)]
    return markdown(header, rows)


def _discoveries(pool: NDArray, odd: NDArray, repeats: int) -> str:
    """False discovery rates and power of Benjamini and Hochberg's procedure."""
    n = len(pool) // 2
    size = min(BATCH, len(pool) - n)
    random = np.random.default_rng(1)
    rows = []
    for share in SHARES:
        n_odd = min(max(1, round(share * size)), len(odd))
        false, found, none = np.zeros(repeats), np.zeros(repeats), 0
        for i in range(repeats):
            mixed = random.permutation(pool)
            batch = np.concatenate(
                [mixed[n : n + size - n_odd], random.choice(odd, n_odd, replace=False)]
            )
            taken = discoveries(p_values(mixed[:n], batch), FDR)
            n_false = taken[:-n_odd].sum()
            false[i] = n_false / max(1, taken.sum())
            found[i] = taken[-n_odd:].mean()
            none += not taken.any()
        rates = ("{:.1%} ± {:.1%}".format(*mean_and_error(part)) for part in (false, found))
        promise = _percent(FDR * (1 - n_odd / size))
        rows.append([f"{n_odd} of {size}", promise, *rates, f"{none / repeats:.1%}"])
    header = ["anomalies", "promised, at most", "false discovery rate", "power", "no discovery"]
    return markdown(header, rows)


def _percent(value: float) -> str:
    return f"{value:.2%}"


if __name__ == "__main__":
    main()
