"""Baselines over time: a drop of one shop on one day, and of all shops on one day, in sales by shop and day.

python -m tests.benchmarks.seasons [--seeds 5] [--denoiser forest] [--shops 12] [--days 540] [--quick]

Each shop has a level (lognormal, of standard deviation 1), weekdays of its own (a common pattern times a lognormal of
0.3), a trend of up to 20 % a year and lognormal noise of 0.12. Methods learn from the first days and judge the last 90,
in which 1 % of the cells fall by 80 %, or, in another table, all shops fall by 80 % on three days. IsolationForest is
used as DQX does (databrickslabs/dqx, issue 1484): all shops pooled, with one-hot shops and sines of weekday and month;
one forest for each value of ``segment_by``; or of turnover less its shop's median (pull request 1489). The robust
z-score is of log-turnover among its shop and weekday. All thresholds are of 1 % false alarms: those of the detectors
from their calibration rows, of the others from the scores of the rows that they learned from.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.encoders import GroupLags
from tests.benchmarks.tables import machine, markdown

RATE, TEST_DAYS = 0.01, 90
Judged = tuple[np.ndarray, np.ndarray]  # scores, higher is more anomalous, and alarms
BOTH = ["shop", "date.weekday"]


def sales(n_shops: int, n_days: int, rng: np.random.Generator) -> pd.DataFrame:
    """Turnover without anomalies, by shop and day."""
    days = pd.date_range("2023-01-02", periods=n_days + TEST_DAYS)
    week = np.array([0.9, 0.8, 0.9, 1.0, 1.4, 1.8, 0.3]) * rng.lognormal(0, 0.3, (n_shops, 7))
    trend = 1 + rng.uniform(-0.2, 0.2, (n_shops, 1)) * np.arange(len(days)) / 365
    level = rng.lognormal(6, 1, (n_shops, 1)) * week[:, days.day_of_week] * trend
    turnover = level * rng.lognormal(0, 0.12, level.shape)
    shops = [f"shop {i:02}" for i in range(n_shops)]
    frame = pd.DataFrame({"shop": np.repeat(shops, len(days)), "date": np.tile(days, n_shops)})
    return frame.assign(turnover=turnover.ravel().round(2)).sort_values(
        ["date", "shop"], ignore_index=True
    )


def planted(
    new: pd.DataFrame, what: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """New rows with drops by 80 %, and which these are."""
    if what == "one shop":
        odd = np.zeros(len(new), dtype=bool)
        odd[rng.choice(len(new), max(1, len(new) // 100), replace=False)] = True
    else:
        days = rng.choice(new["date"].unique(), 3, replace=False)
        odd = new["date"].isin(days).to_numpy()
    return new.assign(turnover=new["turnover"].where(~odd, (0.2 * new["turnover"]).round(2))), odd


# -- methods --------------------------------------------------------------------------------------


def detector(
    train: pd.DataFrame,
    new: pd.DataFrame,
    seed: int,
    *,
    denoiser: str,
    given: list[str] | None = None,
    parts: bool = False,
    drop: tuple[str, ...] = (),
    lags: GroupLags | None = None,
) -> Judged:
    """A detector, with earlier rows of the shop by ``lags``."""
    density = DiffusionDensity(
        denoiser=denoiser, column_types={"date.weekday": None} if parts else None
    )
    own = DiffusionOutlierDetector(density, given=given, false_alarm_rate=RATE, random_state=seed)
    model = own if lags is None else make_pipeline(lags, own)
    model.fit(train.drop(columns=[*drop]))
    X = new.drop(columns=[*drop])
    return -model.score_samples(X), model.predict(X) == -1


def features(frame: pd.DataFrame, shops: list[str]) -> np.ndarray:
    """Turnover, one-hot shops, and sines and cosines of weekday and month."""
    angles = [
        2 * np.pi * part / period
        for part, period in ((frame["date"].dt.day_of_week, 7), (frame["date"].dt.month, 12))
    ]
    waves = [f(angle) for angle in angles for f in (np.sin, np.cos)]
    return np.column_stack([frame["turnover"], *waves, *(frame["shop"] == shop for shop in shops)])


def isolation(
    train: pd.DataFrame, new: pd.DataFrame, seed: int, *, relative: bool = False
) -> Judged:
    """One IsolationForest of all shops, of turnover or of turnover less the median of its shop."""
    shops = sorted(train["shop"].unique())
    if relative:
        median = train.groupby("shop")["turnover"].median()
        train, new = (
            x.assign(turnover=x["turnover"] - x["shop"].map(median)) for x in (train, new)
        )
    model = IsolationForest(contamination=RATE, random_state=seed)
    model.fit(features(train, shops))
    X = features(new, shops)
    return -model.score_samples(X), model.predict(X) == -1


def segmented(train: pd.DataFrame, new: pd.DataFrame, seed: int, *, by: list[str]) -> Judged:
    """An IsolationForest for each segment; scores are percentiles of those of its training rows."""
    scores, alarms = np.zeros(len(new)), np.zeros(len(new), dtype=bool)
    keyed = [x.assign(weekday=x["date"].dt.day_of_week) for x in (train, new)]
    segments = dict(iter(keyed[0].groupby(by)))
    for key, rows in keyed[1].groupby(by):
        own = segments[key]
        shops = [] if "shop" in by else sorted(train["shop"].unique())
        model = IsolationForest(contamination=RATE, random_state=seed)
        model.fit(features(own, shops))
        X, place = features(rows, shops), new.index.get_indexer(rows.index)
        known, found = np.sort(-model.score_samples(features(own, shops))), -model.score_samples(X)
        # percentiles tie beyond the training scores: there the score decides
        scores[place] = np.searchsorted(known, found) / len(known) + 1e-3 * found
        alarms[place] = model.predict(X) == -1
    return scores, alarms


def robust_z(train: pd.DataFrame, new: pd.DataFrame, _: int) -> Judged:
    """Distance of log-turnover from the median of its shop and weekday, in median absolute deviations."""
    own, X = (
        pd.DataFrame({"y": np.log(x["turnover"] + 0.01), "at": x["shop"] + x["date"].dt.day_name()})
        for x in (train, new)
    )
    median = own.groupby("at")["y"].median()
    own["far"] = (own["y"] - own["at"].map(median)).abs()
    mad = own.groupby("at")["far"].median()
    known = (own["far"] / own["at"].map(mad)).to_numpy()
    z = ((X["y"] - X["at"].map(median)).abs() / X["at"].map(mad)).to_numpy()
    return z, z > np.quantile(known, 1 - RATE)


def methods(denoiser: str) -> dict[str, Callable[..., Judged]]:
    """Every method by its name."""
    own = partial(detector, denoiser=denoiser)
    lags = partial(GroupLags, "turnover", time="date", lags=())
    return {
        "IsolationForest, pooled": isolation,
        "IsolationForest, pooled, less the shop's median": partial(isolation, relative=True),
        "IsolationForest, by shop": partial(segmented, by=["shop"]),
        "IsolationForest, by shop and weekday": partial(segmented, by=["shop", "weekday"]),
        "robust z-score, by shop and weekday": robust_z,
        "detector, the table as it is": own,
        "detector, weekday for the date": partial(own, parts=True),
        "detector, given shop": partial(own, given=["shop"], drop=("date",)),
        "detector, given shop and weekday": partial(own, given=BOTH),
        "the same, mean of 28 rows": partial(own, given=BOTH, lags=lags(by="shop", means=(28,))),
        "the same, ratio to 8 on the weekday": partial(
            own, given=BOTH, lags=lags(by=BOTH, ratios=(8,))
        ),
    }


def main(argv: list[str] | None = None) -> None:
    """Print two tables: means and standard errors over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--denoiser", default="forest")
    parser.add_argument("--shops", type=int, default=12)
    parser.add_argument("--days", type=int, default=540)
    parser.add_argument("--only", help="methods whose name holds this")
    parser.add_argument("--quick", action="store_true", help="two seeds, three shops")
    args = parser.parse_args(argv)
    if args.quick:
        args.seeds, args.shops, args.days = 2, 3, 200
    warnings.filterwarnings("ignore", ".*")
    lines = []
    for seed in range(2, 2 + args.seeds):  # on 0 and 1 the last method was chosen
        rng = np.random.default_rng(seed)
        frame = sales(args.shops, args.days, rng)
        is_new = frame["date"] >= frame["date"].min() + pd.Timedelta(days=args.days)
        for what in ("one shop", "all shops"):
            new, odd = planted(frame[is_new].reset_index(drop=True), what, rng)
            for name, method in methods(args.denoiser).items():
                if args.only and args.only not in name:
                    continue
                start = time.process_time()
                scores, alarms = method(frame[~is_new], new, seed)
                seconds = time.process_time() - start
                lines.append({
                    "drop": what, "method": name,
                    "AUROC": 100 * roc_auc_score(odd, scores),
                    "AP": 100 * average_precision_score(odd, scores),
                    "found": 100 * alarms[odd].mean(), "false": 100 * alarms[~odd].mean(),
                    "seconds": seconds,
                })  # fmt: skip
    found = pd.DataFrame(lines).groupby(["drop", "method"], sort=False)
    mean, error = found.mean(), found.std() / np.sqrt(args.seeds)
    print(machine())
    for what in ("one shop", "all shops"):
        print(f"\n-80 % of {what} on one day; {args.seeds} seeds; detectors: {args.denoiser}\n")
        rows = [
            [
                name,
                *(
                    f"{m:.1f} ± {e:.1f}"
                    for m, e in zip(line[:-1], error.loc[what, name][:-1], strict=True)
                ),
                f"{line['seconds']:.1f}",
            ]
            for name, line in mean.loc[what].iterrows()
        ]
        head = [
            "",
            "AUROC, %",
            "average precision, %",
            "found, %",
            "false alarms, %",
            "CPU-seconds",
        ]
        print(markdown(head, rows))


if __name__ == "__main__":
    main()
