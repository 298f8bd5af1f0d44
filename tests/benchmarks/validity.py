"""Do p-values keep their promise on real tables: false alarms, power, false discoveries.

    python -m tests.benchmarks.validity           # mushroom (edible), adult, car, mammography, pendigits
    python -m tests.benchmarks.validity car --repeats 1000
    python -m tests.benchmarks.validity car --quick

A default detector is fitted once on 60 % of a table's inliers, and its scores of all other rows are taken once: two
thirds of them are the pool, of which, 200 times over, a random half calibrates and the other half is tested; the others
become anomalies, in which 1, 2 or 4 cells hold what another of those rows has there. A numeric table has anomalies of
its own, and all rows that were not fitted are the pool. The p-values are those of
:mod:`discrete_itd.detection.thresholds`.

False alarms. Over calibration and test rows together, the chance of p <= alpha is k / (n + 1), where
k = floor(alpha (n + 1)), for n calibration rows whose scores all differ, and less if some are tied. The number of
alarms among m test rows of a random division follows the beta-binomial distribution of m, k and n + 1 - k, whatever
the model: "5-95 %" are quantiles over the divisions and, promised, of that law, and "above" is the share of divisions
above its 95 % quantile. (A binomial interval around alpha forgets that the test rows share a calibration set and would
be too narrow.) Where scores are tied, alarms are at most as many: break the ties at random, and those of the law
include them. In brackets is where a number should lie in 99 % of runs: the mean by the law's standard error, the number
of divisions above by its binomial distribution; with ties, the upper bound only. "By fitted rows" is the mean rate of
the threshold that needs no calibration: the alpha-quantile of the scores of rows given to ``fit``.

Ties and copies. "Rounded" scores have about six values. "Copied": each row of the pool is there 1 to 5 times, and
copies may fall on both sides, which a random division of rows allows: ranks are exchangeable, and the law bounds the
alarms as above. If records are divided instead, all copies of one on one side, rows are not exchangeable any more, but
records are: the mean rate is kept if one copy of each record calibrates, as with ``groups``, and how often a record
is copied has nothing to do with its score (copies are drawn anew for each division); not if all do, at small alpha. And
rates spread wider than by the law, for copies raise their alarms together.

Discoveries. Batches of test rows, of which a share are anomalies (of 4 cells), go through Benjamini and Hochberg's
procedure at 5 % and 10 %. Conformal p-values of one calibration set keep the false discovery rate below that times the
share of inliers (Bates et al., Annals of Statistics 2023, arXiv:2104.08279), here up to 2.58 standard errors of its
mean.

Scores are kept in ``.cache/validity``, so that the repetitions can be run again at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import betabinom, binom
from sklearn.metrics import roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.datasets import load_adult, load_car, load_mushroom
from discrete_itd.detection.thresholds import discoveries, p_values
from tests.benchmarks.data import load_numeric, numeric_names
from tests.benchmarks.tables import keep, kept, machine, markdown, mean_and_error, timed

ALPHAS = (0.001, 0.01, 0.05, 0.1)
CELLS = (1, 2, 4)
SHARES = (0.05, 0.1)
FDRS = (0.05, 0.1)
BATCH = 500
COPIES = 5  # of a row, at most
ERRORS = 2.576  # standard errors, and
OUTSIDE = 0.005  # the chance beyond a limit: both of 99 %
LOADERS = {"adult": load_adult, "car": load_car}
TABLES = ("mushroom", *LOADERS, "mammography", "pendigits")

Scores = NDArray[np.float64]


@dataclass
class Verdicts:
    """How many numbers lie where the promise says."""

    found: dict[str, list[bool]] = field(default_factory=dict)

    def __call__(self, kind: str, value: float, low: float, high: float) -> str:
        """Note whether a number is within its limits; a word for the table."""
        within = low - 1e-9 <= value <= high + 1e-9
        self.found.setdefault(kind, []).append(within)
        return "" if within else " **outside**"

    def __str__(self) -> str:
        every = [one for kind in self.found.values() for one in kind]
        parts = ", ".join(f"{kind} {sum(v)} of {len(v)}" for kind, v in self.found.items())
        return f"{sum(every)} of {len(every)} rates within their intervals ({parts})"


@dataclass(frozen=True)
class Scored:
    """Scores of one table: of the pool, of rows given to ``fit``, and of each kind of anomalies."""

    pool: Scores
    fitted: Scores
    odd: Mapping[str, Scores]

    def variants(self) -> Iterator[tuple[str, Scored]]:
        """The scores as they are, rounded, and of a pool of copied rows."""
        yield "as they are", self
        step = float(np.subtract(*np.quantile(self.pool, [0.95, 0.05]))) / 5
        rounded = {kind: np.round(one / step) * step for kind, one in self.odd.items()}
        pool, fitted = (np.round(one / step) * step for one in (self.pool, self.fitted))
        yield "rounded", Scored(pool, fitted, rounded)
        times = copies(len(self.pool), np.random.default_rng(2))
        yield "copied", Scored(np.repeat(self.pool, times), self.fitted, self.odd)


def copies(n: int, random: np.random.Generator) -> NDArray[np.int64]:
    """How often each of n rows is there."""
    return random.integers(1, COPIES + 1, n)


def main() -> None:
    """Print three tables per data table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", default=TABLES)
    parser.add_argument("--max-steps", type=int, help="of training; by default the model's own")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--fresh", action="store_true", help="forget the scores of earlier runs")
    parser.add_argument("--quick", action="store_true", help="an exact model, few rows")
    options = parser.parse_args()
    print(machine())
    verdicts, repeats = Verdicts(), 20 if options.quick else options.repeats
    for name in options.tables:
        if name not in TABLES[:3] and name not in numeric_names():
            print(f"\nskipped {name}: its file is not here (see tests/benchmarks/data.py)")
            continue
        scored = _scores(name, options)
        n, m = _sizes(len(scored.pool))
        values = len(np.unique(scored.pool))
        print(f"\n**{name}**: {n} calibration rows, {m} test rows, {values} different scores")
        auroc = ", ".join(f"{k}: {_auroc(scored.pool, one):.1f}" for k, one in scored.odd.items())
        print(f"\nFalse alarms and power. AUROC × 100 of anomalies, {auroc}\n")
        print(_alarms(scored, repeats, verdicts))
        print(f"\nFalse alarms of rows with 1 to {COPIES} copies, divided by record\n")
        print(_by_record(scored.pool, repeats, verdicts))
        print("\nDiscoveries\n")
        print(_discoveries(scored, repeats, verdicts), flush=True)
    print(f"\n{verdicts}")


# -- rows and scores ----------------------------------------------------------------------------


def table(name: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Inliers and anomalies of a table: the edible mushrooms, adult or car, which have none, or one of ADBench."""
    if name == "mushroom":
        X = load_mushroom()
        y = X.pop("class")
        return X[y == "edible"].reset_index(drop=True), None
    if name in LOADERS:
        return LOADERS[name](), None
    X, odd = load_numeric(name)
    frame = pd.DataFrame(X).rename(columns=str)
    return frame[~odd].reset_index(drop=True), frame[odd].reset_index(drop=True)


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


def _scores(name: str, options: argparse.Namespace) -> Scored:
    """Scores by the default detector, from the cache if they are there."""
    effort = "quick" if options.quick else f"detector-{options.max_steps or 'default'}"
    file = f"validity/{name}-{effort}"
    known = {} if options.fresh or options.quick else kept(file)
    if "odd" not in known:
        rows, anomalies = table(name)
        rows = rows.sample(frac=1.0, random_state=0, ignore_index=True)
        rows = rows[:900] if options.quick else rows
        n_fit = round(0.6 * len(rows))
        cut = n_fit + 2 * (len(rows) - n_fit) // 3 if anomalies is None else len(rows)
        if anomalies is None:
            odd = {f"{cells} cells": exchanged(rows[cut:], cells, seed=cells) for cells in CELLS}
        else:
            odd = {"real": anomalies}
        detector = DiffusionOutlierDetector(random_state=0)
        if options.quick:
            detector.set_params(denoiser="tree")
        elif options.max_steps:
            detector.set_params(density=DiffusionDensity(max_steps=options.max_steps))
        _, seconds = timed(detector.fit, rows[:n_fit])
        known["fitted"] = detector.score_samples(rows[: min(n_fit, 5000)]).tolist()
        known["pool"] = detector.score_samples(rows[n_fit:cut]).tolist()
        known["odd"] = {kind: detector.score_samples(X).tolist() for kind, X in odd.items()}
        for key in ("fitted", "pool", "odd"):
            keep(file, key, known[key])
        print(f"\n{name}: fitted to {n_fit} rows in {seconds:.0f} s", flush=True)
    odd = {kind: np.array(one) for kind, one in known["odd"].items()}
    return Scored(np.array(known["pool"]), np.array(known["fitted"]), odd)


def _auroc(pool: Scores, odd: Scores) -> float:
    truth = np.repeat([0, 1], [len(pool), len(odd)])
    return 100 * float(roc_auc_score(truth, -np.concatenate([pool, odd])))


# -- repetitions --------------------------------------------------------------------------------


def _sizes(n_pool: int) -> tuple[int, int]:
    """Numbers of calibration and of test rows."""
    return n_pool // 2, n_pool - n_pool // 2


def _law(n: int, m: int, alpha: float):
    """The distribution of the number of alarms among m test rows; None if there can be none."""
    k = int(np.floor(alpha * (n + 1) + 1e-9))
    return betabinom(m, k, n + 1 - k) if k else None


def _alarms(scored: Scored, repeats: int, verdicts: Verdicts) -> str:
    """Rates of false alarms, and power."""
    rows = []
    for variant, one in scored.variants():
        n, m = _sizes(len(one.pool))
        random = np.random.default_rng(0)
        counts = np.empty((repeats, len(ALPHAS)))
        bare = np.empty((repeats, len(ALPHAS)))
        power = np.empty((repeats, len(ALPHAS), len(one.odd)))
        for i in range(repeats):
            mixed = random.permutation(one.pool)
            calibration, test = mixed[:n], mixed[n:]
            p = p_values(calibration, test)
            p_odd = [p_values(calibration, odd) for odd in one.odd.values()]
            for j, alpha in enumerate(ALPHAS):
                counts[i, j] = (p <= alpha).sum()
                bare[i, j] = (test <= np.quantile(one.fitted, alpha)).mean()
                power[i, j] = [(odd <= alpha).mean() for odd in p_odd]
        tied = len(np.unique(one.pool)) < len(one.pool)
        for j, alpha in enumerate(ALPHAS):
            cells = _compared(counts[:, j], _law(n, m, alpha), m, tied, verdicts)
            rest = (_percent(bare[:, j].mean()), *(f"{v:.1%}" for v in power[:, j].mean(0)))
            rows.append([variant, f"{alpha:.1%}", *cells, *rest])
    header = ["scores", "alpha", "promised", "mean rate", "5-95 %, promised", "5-95 %", "above"]
    header += ["by fitted rows", *(f"power, {kind}" for kind in scored.odd)]
    return markdown(header, rows)


def _compared(counts: Scores, law, m: int, tied: bool, verdicts: Verdicts) -> list[str]:
    """Cells of a table: the numbers of alarms in the divisions beside their law."""
    if law is None:
        assert not counts.any()
        return ["0%", "0%", "–", "–", "–"]
    repeats = len(counts)
    promised, error = law.mean() / m, law.std() / m / np.sqrt(repeats)
    low, high = -np.inf if tied else promised - ERRORS * error, promised + ERRORS * error
    mean = counts.mean() / m
    word = verdicts("means", mean, low, high)
    limits = f"at most {_percent(high)}" if tied else f"{_percent(low)} to {_percent(high)}"
    quantiles = law.ppf([0.05, 0.95])
    chance = law.sf(quantiles[1])
    n_above = int((counts > quantiles[1]).sum())
    fewest, most = binom.ppf([OUTSIDE, 1 - OUTSIDE], repeats, chance)
    fewest = 0 if tied else fewest
    word_above = verdicts("divisions above", n_above, fewest, most)
    seen = np.quantile(counts, [0.05, 0.95])
    return [
        _percent(promised),
        f"{_percent(mean)} ({limits}){word}",
        " to ".join(_percent(q / m) for q in quantiles),
        " to ".join(_percent(q / m) for q in seen),
        f"{n_above} of {repeats} ({fewest:.0f} to {most:.0f}){word_above}",
    ]


def _by_record(pool: Scores, repeats: int, verdicts: Verdicts) -> str:
    """Rates of false alarms among rows, where all copies of a record are on one side."""
    n, random = _sizes(len(pool))[0], np.random.default_rng(3)
    every = "all calibrate", "one calibrates"
    promised, rates, above = (np.zeros((len(ALPHAS), 2, repeats)) for _ in range(3))
    for i in range(repeats):
        mixed, times = random.permutation(len(pool)), copies(len(pool), random)
        records, tested = mixed[:n], mixed[n:]
        test = np.repeat(pool[tested], times[tested])
        for c, calibration in enumerate((np.repeat(pool[records], times[records]), pool[records])):
            p = p_values(calibration, test)
            for j, alpha in enumerate(ALPHAS):
                law = _law(len(calibration), len(test), alpha)
                rates[j, c, i] = (p <= alpha).mean()
                if law is not None:
                    promised[j, c, i] = law.mean() / len(test)
                    above[j, c, i] = (p <= alpha).sum() > law.ppf(0.95)
    rows = []
    for j, alpha in enumerate(ALPHAS):
        row = [f"{alpha:.1%}"]
        for c, what in enumerate(every):
            promise = promised[j, c].mean()
            mean, error = mean_and_error(rates[j, c])
            if promise and what == "one calibrates":
                word = verdicts("means by record", mean, -np.inf, promise + ERRORS * error)
            else:
                word = ""
            row += [_percent(promise), f"{_percent(mean)} ± {_percent(error)}{word}"]
            row += [f"{above[j, c].mean():.1%}"]
        rows.append(row)
    header = [f"{what}: {of}" for what in every for of in ("promised", "mean rate", "above")]
    return markdown(["alpha", *header], rows)


def _discoveries(scored: Scored, repeats: int, verdicts: Verdicts) -> str:
    """False discovery rates and power of Benjamini and Hochberg's procedure."""
    rows = []
    for fdr in FDRS:
        for share in SHARES:
            size = min(BATCH, _sizes(len(scored.pool))[1])
            n_odd = min(max(1, round(share * size)), len(list(scored.odd.values())[-1]))
            promise = fdr * (1 - n_odd / size)
            row = [f"{fdr:.0%}", f"{n_odd} of {size}", _percent(promise)]
            for _, one in scored.variants():
                false, found = _batches(one, fdr, size, n_odd, repeats)
                mean, error = mean_and_error(false)
                word = verdicts("false discoveries", mean, 0, promise + ERRORS * error)
                row += [f"{mean:.1%} ± {error:.1%}{word}", f"{found.mean():.1%}"]
            rows.append(row)
    header = ["level", "anomalies", "promised, at most"]
    for variant, _ in scored.variants():
        header += [f"{variant}: false discovery rate", "power"]
    return markdown(header, rows)


def _batches(
    scored: Scored, fdr: float, size: int, n_odd: int, repeats: int
) -> tuple[Scores, Scores]:
    """Of each batch the share of inliers among the discoveries, and that of the anomalies that are found."""
    n, odd = _sizes(len(scored.pool))[0], list(scored.odd.values())[-1]
    random = np.random.default_rng(1)
    false, found = np.zeros(repeats), np.zeros(repeats)
    for i in range(repeats):
        mixed = random.permutation(scored.pool)
        batch = [mixed[n : n + size - n_odd], random.choice(odd, n_odd, replace=False)]
        taken = discoveries(p_values(mixed[:n], np.concatenate(batch)), fdr)
        false[i] = taken[:-n_odd].sum() / max(1, taken.sum())
        found[i] = taken[-n_odd:].mean()
    return false, found


def _percent(value: float) -> str:
    return f"{value:.2%}"


if __name__ == "__main__":
    main()
