"""Stored detectors with and without torch: the start of the command, one row, many rows, and the memory of a worker.

``python -m tests.benchmarks.light [--n-rows 50000] [--recipes tree auto] [--before CHECKOUT]``

A table of categories and numbers without gaps; a detector of each recipe, saved once. CPU-seconds of whole processes,
the median of three: imports, and ``discrete-itd score`` of 100 rows. In one process, by ``discrete_itd.light`` and by
the estimator: milliseconds of one row, CPU-seconds of many, and the greatest difference of their scores. The resident
memory is that of a process that scored 1 000 rows by ``BatchScoring`` with the outputs "score", "p_value" and "alarm".
The command and the worker choose for themselves: ``--before`` adds another checkout, with detectors that it fits.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

RECIPES = ("independent", "tree", "mixture", "forest", "auto")
REPEATS = 3
FIT = """
import sys, pandas as pd
from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
table, folder, *recipes = sys.argv[1:]
for name in recipes:
    density = DiffusionDensity(denoiser=name, max_steps=300, random_state=0)
    DiffusionOutlierDetector(density, random_state=0).fit(pd.read_pickle(table)).save(f"{folder}/{name}", card=False)
"""
IN_PROCESS = """
import json, sys, time, warnings, pandas as pd
path, table, how = sys.argv[1:]
if how == "light":
    from discrete_itd import light
    model = light.load(path)
else:
    from discrete_itd import DiffusionOutlierDetector
    model = DiffusionOutlierDetector.load(path, device="cpu")
rows = pd.read_pickle(table)
one = [rows[i : i + 1] for i in range(300)]
model.score_samples(one[0])
def seconds(call):
    start = time.process_time(); out = call(); return time.process_time() - start, out
each = sorted(seconds(lambda: model.score_samples(row))[0] for row in one)
dicts = [row.iloc[0].to_dict() for row in one]
mapping = sorted(seconds(lambda: model.score_samples(d))[0] for d in dicts) if how == "light" else [float("nan")]
took, scores = seconds(lambda: model.score_samples(rows))
print(json.dumps([1e3 * each[150], 1e3 * mapping[len(mapping) // 2], took, scores.tolist()]))
"""
WORKER = """
import sys, pandas as pd
from discrete_itd.scale.batches import BatchScoring
rows = pd.read_pickle(sys.argv[2])[:1000]
BatchScoring(sys.argv[1], ["score", "p_value", "alarm"], keep=[])(rows)
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def table(n: int) -> pd.DataFrame:
    """Categories that depend on one another, and numbers that depend on them."""
    rng = np.random.default_rng(0)
    hidden = rng.integers(0, 5, n)
    columns = {
        f"c{j}": np.array(list("abcdef"))[(hidden + rng.integers(0, 2, n)) % (j % 4 + 2)]
        for j in range(8)
    }
    numbers = {f"n{j}": np.round(hidden + rng.normal(0, 1, n), 4) for j in range(4)}
    return pd.DataFrame(columns | numbers)


def run(code: list[str], checkout: Path) -> tuple[float, str]:
    """CPU-seconds and output of a process in a checkout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, *code], check=True, capture_output=True, text=True, env=env, cwd=checkout
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, found.stdout


def median_cpu(code: list[str], checkout: Path) -> float:
    return statistics.median(run(code, checkout)[0] for _ in range(REPEATS))


def lines(
    checkout: Path, how: str, n_rows: int, folder: Path, recipes: list[str], *, processes: bool
) -> list[dict]:
    """One line for each recipe."""
    out = []
    for name in recipes:
        model = str(folder / name)
        command = [
            "-m",
            "discrete_itd",
            "score",
            model,
            str(folder / "few.csv"),
            "--out",
            str(folder / "o.csv"),
        ]
        row, mapping, many, scores = json.loads(
            run(["-c", IN_PROCESS, model, str(folder / "t"), how], checkout)[1]
        )
        out.append(
            {
                "recipe": name,
                "by": how,
                "command s": median_cpu(command, checkout) if processes else np.nan,
                "row ms": row,
                "mapping ms": mapping,
                f"{n_rows} rows s": many,
                "worker MB": float(run(["-c", WORKER, model, str(folder / "t")], checkout)[1])
                if processes
                else np.nan,
                "scores": np.array(scores),
            }
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-rows", type=int, default=50_000)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    here, start = Path(__file__).parents[2], time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), table(args.n_rows)
        rows.to_pickle(folder / "t")
        rows[:2000].to_pickle(folder / "fit")
        rows[:100].to_csv(folder / "few.csv", index=False)
        found = []
        for checkout, hows in ((here, ("light", "torch")), (args.before, ("torch",))):
            if checkout is None:
                continue
            checkout = checkout.resolve()
            run(["-c", FIT, str(folder / "fit"), str(folder), *args.recipes], checkout)
            for how in hows:
                own = how == "light" or checkout != here
                found.append(
                    (
                        checkout,
                        how,
                        lines(checkout, how, args.n_rows, folder, args.recipes, processes=own),
                    )
                )
            if checkout == here:
                for one, two in zip(found[0][2], found[1][2], strict=True):
                    one["differ"] = float(np.abs(one["scores"] - two["scores"]).max())
        for code in (
            "pass",
            "import pandas",
            "import discrete_itd.light",
            "import discrete_itd.detection.detector",
        ):
            print(f"python -c {code!r}: {median_cpu(['-c', code], here):.2f} CPU-seconds")
        for checkout, how, table_ in found:
            print(f"\n{'before' if checkout != here else 'now'}, by {how}")
            shown = pd.DataFrame(table_).drop(columns="scores").set_index("recipe")
            print(shown.to_string(float_format=lambda v: f"{v:.3g}"))
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
