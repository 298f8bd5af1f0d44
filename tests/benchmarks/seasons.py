"""Baselines over time: a drop of one shop on one day, and of all shops on one day, in sales by shop and day.

python -m tests.benchmarks.seasons [--table sales] [--seeds 5] [--denoiser forest] [--shops 12] [--days 540] [--quick]

Each shop has a level (lognormal, of standard deviation 1), weekdays of its own (a common pattern times a lognormal of
0.3), a trend of up to 20 % a year and lognormal noise of 0.12. Methods learn from the first days and judge the last 90,
in which 1 % of the cells fall by 80 %, or, in another table, all shops fall by 80 % on three days. IsolationForest is
used as DQX does (databrickslabs/dqx, issue 1484): all shops pooled, with one-hot shops and sines of weekday and month;
one forest for each value of ``segment_by``; or of turnover less its shop's median (pull request 1489). The robust
z-score is of log-turnover among its shop and weekday. All thresholds are of 1 % false alarms: those of the detectors
from their calibration rows, of the others from the scores of the rows that they learned from.

``--table temperatures`` has hourly normals of Seattle and San Francisco over one year instead (the package
vega_datasets has them), by city and hour, of which 1 % fall by 40 %, or all of three days. The last 90 days are an
autumn, and no other autumn is among the rows to learn from: what false alarms cost without a whole year.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from tests.benchmarks.tables import machine, markdown

RATE, TEST_DAYS = 0.01, 90
Judged = tuple[np.ndarray, np.ndarray]  # scores, higher is more anomalous, and alarms
PART = {"sales": "weekday", "temperatures": "hour"}
FALLS_TO = {"sales": 0.2, "temperatures": 0.6}


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


def temperatures() -> pd.DataFrame | None:
    """Degrees Fahrenheit by city and hour; None if they are not installed."""
    found = find_spec("vega_datasets")
    if found is None or found.origin is None:
        print("skipped temperatures: pip install vega_datasets")
        return None
    cities = {}
    for city in ("seattle", "sf"):
        frame = pd.read_csv(Path(found.origin).parent / "_data" / f"{city}-temps.csv")
        cities[city] = frame.assign(date=pd.to_datetime(frame["date"]))
    frame = pd.concat(cities, names=["shop", None]).reset_index("shop")
    return frame.rename(columns={"temp": "turnover"})[["shop", "date", "turnover"]].sort_values(
        ["date", "shop"], ignore_index=True
    )


def planted(
    new: pd.DataFrame, what: str, to: float, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """New rows of which some fall to a share of their value, and which these are."""
    if what == "one shop":
        odd = np.zeros(len(new), dtype=bool)
        odd[rng.choice(len(new), max(1, len(new) // 100), replace=False)] = True
    else:
        days = rng.choice(new["date"].dt.normalize().unique(), 3, replace=False)
        odd = new["date"].dt.normalize().isin(days).to_numpy()
    return new.assign(turnover=new["turnover"].where(~odd, (to * new["turnover"]).round(2))), odd


# -- methods --------------------------------------------------------------------------------------


def detector(
    train: pd.DataFrame,
    new: pd.DataFrame,
    seed: int,
    *,
    denoiser: str,
    given: list[str] | None = None,
    part: str | None = None,
    dated: bool = False,
    earlier: Callable[[pd.DataFrame], pd.Series] | None = None,
) -> Judged:
    """A detector, with a part of the date in its place unless ``dated``, and a column of ``earlier`` rows."""
    density = DiffusionDensity(denoiser=denoiser)
    own = DiffusionOutlierDetector(density, given=given, false_alarm_rate=RATE, random_state=seed)
    if earlier is not None:
        rows = pd.concat([train, new], ignore_index=True)
        rows["earlier"] = earlier(rows)
        train, new = rows[: len(train)], rows[len(train) :]
    if part is not None:
        train, new = (
            x.assign(**{part: x["date"].dt.day_name() if part == "weekday" else x["date"].dt.hour})
            for x in (train, new)
        )
    drop = [] if dated else ["date"]
    own.fit(train.drop(columns=drop))
    X = new.drop(columns=drop)
    return -own.score_samples(X), own.predict(X) == -1


def mean_of_last(rows: pd.DataFrame, k: int) -> pd.Series:
    """Mean turnover of the last k rows of the shop; rows are in the order of time."""
    group = rows.groupby("shop")["turnover"]
    return group.transform(lambda own: own.shift().rolling(k, min_periods=1).mean())


def ratio_to_last(rows: pd.DataFrame, k: int, part: str) -> pd.Series:
    """Turnover over the median of the last k rows of the same shop and part of time."""
    at = getattr(rows["date"].dt, {"weekday": "day_of_week"}.get(part, part))
    group = rows.groupby(["shop", at])["turnover"]
    median = group.transform(lambda own: own.shift().rolling(k, min_periods=1).median())
    return rows["turnover"] / median.where(median > 0)


def features(frame: pd.DataFrame, shops: list[str]) -> np.ndarray:
    """Turnover, one-hot shops, and sines and cosines of hour, weekday and month."""
    date = frame["date"].dt
    parts = [(date.day_of_week, 7), (date.month, 12), *[(date.hour, 24)] * bool(date.hour.any())]
    angles = [2 * np.pi * part / period for part, period in parts]
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
    keyed = [
        x.assign(weekday=x["date"].dt.day_of_week, hour=x["date"].dt.hour) for x in (train, new)
    ]
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


def robust_z(train: pd.DataFrame, new: pd.DataFrame, _: int, *, part: str) -> Judged:
    """Distance of log-turnover from the median of its shop and weekday, in median absolute deviations."""
    part = {"weekday": "day_of_week"}.get(part, part)
    own, X = (
        pd.DataFrame(
            {
                "y": np.log(x["turnover"] + 0.01),
                "at": x["shop"] + getattr(x["date"].dt, part).astype(str),
            }
        )
        for x in (train, new)
    )
    median = own.groupby("at")["y"].median()
    own["far"] = (own["y"] - own["at"].map(median)).abs()
    mad = own.groupby("at")["far"].median()
    known = (own["far"] / own["at"].map(mad)).to_numpy()
    z = ((X["y"] - X["at"].map(median)).abs() / X["at"].map(mad)).to_numpy()
    return z, z > np.quantile(known, 1 - RATE)


def methods(denoiser: str, part: str) -> dict[str, Callable[..., Judged]]:
    """Every method by its name."""
    own = partial(detector, denoiser=denoiser)
    both = partial(own, given=["shop", part], part=part)
    return {
        "IsolationForest, pooled": isolation,
        "IsolationForest, pooled, less the shop's median": partial(isolation, relative=True),
        "IsolationForest, by shop": partial(segmented, by=["shop"]),
        f"IsolationForest, by shop and {part}": partial(segmented, by=["shop", part]),
        f"robust z-score, by shop and {part}": partial(robust_z, part=part),
        "detector, the table as it is": partial(own, dated=True),
        f"detector, {part} for the date": partial(own, part=part),
        "detector, given shop": partial(own, given=["shop"]),
        f"detector, given shop and {part}": both,
        "the same, mean of 28 rows": partial(both, earlier=partial(mean_of_last, k=28)),
        f"the same, ratio to 8 of the {part}": partial(
            both, earlier=partial(ratio_to_last, k=8, part=part)
        ),
    }


def main(argv: list[str] | None = None) -> None:
    """Print two tables: means and standard errors over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", choices=PART, default="sales")
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
        is_real = args.table == "temperatures"
        frame = temperatures() if is_real else sales(args.shops, args.days, rng)
        if frame is None:
            return
        is_new = frame["date"] >= frame["date"].max().normalize() - pd.Timedelta(days=TEST_DAYS - 1)
        for what in ("one shop", "all shops"):
            new = frame[is_new].reset_index(drop=True)
            new, odd = planted(new, what, FALLS_TO[args.table], rng)
            for name, method in methods(args.denoiser, PART[args.table]).items():
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
        print(
            f"\n{args.table}: a drop of {what} at one time; {args.seeds} seeds; detectors: {args.denoiser}\n"
        )
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
