"""More rows than memory: peak memory, rows per second and nats of a fit to a stream, beside a fit in memory.

    python -m tests.benchmarks.streamed
    python -m tests.benchmarks.streamed --rows 100000 1000000 --denoisers tree causal
    python -m tests.benchmarks.streamed --large --streamed-only
    python -m tests.benchmarks.streamed --rows 100000 --sample 30000 --denoisers causal --max-steps 300

A folder of Parquet files of 20 columns, ten of text, four of small integers, two of truth values and four continuous
ones: noisy functions of six hidden states, 2 % of the cells missing. Each fit is a process of its own: its peak memory
is the largest resident size, beside that of the imports and of a fit to a hundred rows. Rows per second are of the
whole fit, all passes together. ``--large`` adds ten million rows. The streamed model and the one in memory score the
same new rows: ``behind`` is how many nats per row the streamed one is worse, with the standard error of that.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.tables import machine, markdown

ROWS, LARGE = (100_000, 1_000_000), 10_000_000
FILE_ROWS, SCORED, TINY = 250_000, 20_000, 100
STATES, LEVELS = 6, 8


def table(n: int, seed: int) -> pd.DataFrame:
    """Rows of the model in the docstring."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    state = rng.integers(STATES, size=n)
    columns = {}

    def drawn(j: int, k: int) -> np.ndarray:
        """A column of k values that depend on the state and, for every second one, on the column before."""
        tables = fixed.dirichlet(np.full(k, 0.3), size=(STATES, LEVELS)).cumsum(2)
        above = codes[-1] % LEVELS if codes and j % 2 else np.zeros(n, dtype=int)
        return (rng.random(n)[:, None] > tables[state, above, :-1]).sum(1)

    codes: list[np.ndarray] = []
    for j in range(16):
        codes.append(drawn(j, LEVELS if j < 14 else 2))
    words = np.array([f"value {i}" for i in range(LEVELS)], dtype=object)
    columns |= {f"text {j}": words[codes[j]] for j in range(10)}
    columns |= {f"count {j}": codes[j].astype(float) for j in range(10, 14)}
    columns |= {f"truth {j}": codes[j] == 1 for j in range(14, 16)}
    for j in range(16, 20):
        columns[f"size {j}"] = fixed.normal(size=STATES)[state] * 2 + rng.normal(size=n)
    frame = pd.DataFrame(columns)
    for name in frame.columns[:14]:
        frame.loc[rng.random(n) < 0.02, name] = None
    return frame


def write(folder: Path, n: int) -> None:
    """A folder of Parquet files of n rows, of which no more than one is in memory at a time."""
    for i in range(-(-n // FILE_ROWS)):
        rows = min(FILE_ROWS, n - i * FILE_ROWS)
        table(rows, i + 1).to_parquet(folder / f"{i:04}.parquet", row_group_size=50_000)


def peak_memory() -> int:
    """The largest resident size of this process, in bytes.

    On Linux that of the program itself: ``ru_maxrss`` counts the process from which it was started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fit(folder: str, how: str, denoiser: str, scores: str, max_steps: str, sample: str) -> None:
    """One fit, in this process; prints its seconds and the peak memory of the process, in bytes."""
    from pyarrow.dataset import dataset

    from discrete_itd import DiffusionDensity
    from discrete_itd.reading import frames

    frames.SAMPLE_ROWS, how_long = int(sample), int(max_steps)
    start = time.perf_counter()
    if how == "imports":
        DiffusionDensity(denoiser="tree", random_state=0).fit(table(TINY, 0))
        model = None
    else:
        X = dataset(folder).to_batches() if how == "stream" else pd.read_parquet(folder)
        model = DiffusionDensity(denoiser=denoiser, max_steps=how_long, random_state=0).fit(X)
    seconds = time.perf_counter() - start
    peak = peak_memory()
    if model is not None:
        np.save(scores, model.score_samples(table(SCORED, 10**6)))
    print(json.dumps({"seconds": seconds, "peak": peak}))


def run(
    folder: Path, how: str, denoiser: str, max_steps: int, sample: int
) -> dict[str, float | np.ndarray]:
    """The same in a process of its own, with the scores of new rows."""
    scores = folder.parent / "scores.npy"
    command = [sys.executable, "-m", "tests.benchmarks.streamed", "--fit"]
    arguments = [str(folder), how, denoiser, str(scores), str(max_steps), str(sample)]
    output = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    found = json.loads(output.stdout.splitlines()[-1])
    return found if how == "imports" else {**found, "scores": np.load(scores)}


def lines(n: int, options: argparse.Namespace) -> list[dict[str, object]]:
    """Lines of the table for n rows."""
    out = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "rows"
        folder.mkdir()
        write(folder, n)
        for denoiser in options.denoisers:
            hows = ("stream",) if options.streamed_only else ("stream", "memory")
            fits = {h: run(folder, h, denoiser, options.max_steps, options.sample) for h in hows}
            for how, found in fits.items():
                behind = ""
                if how == "stream" and "memory" in fits:
                    gap = fits["memory"]["scores"] - found["scores"]
                    behind = f"{gap.mean():.4f} ± {gap.std() / math.sqrt(len(gap)):.4f}"
                out.append(
                    {
                        "rows": n,
                        "denoiser": denoiser,
                        "fit": how,
                        "peak MB": round(found["peak"] / 1e6),
                        "seconds": round(found["seconds"], 1),
                        "rows/s": round(n / found["seconds"]),
                        "nats": f"{-np.mean(found['scores']):.4f}",
                        "behind": behind,
                    }
                )
                print(out[-1], file=sys.stderr, flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--denoisers", nargs="+", default=["tree", "bayes_net", "causal"])
    parser.add_argument("--large", action="store_true", help=f"{LARGE} rows, too")
    parser.add_argument("--streamed-only", action="store_true", help="no fit in memory")
    parser.add_argument("--max-steps", type=int, default=6000, help="of a network")
    parser.add_argument("--sample", type=int, default=400_000, help="rows of a stream in memory")
    parser.add_argument("--fit", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        fit(*options.fit)
        return
    base = run(Path(tempfile.gettempdir()) / "none", "imports", "tree", 0, TINY)
    print(f"{machine()}\n\nImports and a fit to {TINY} rows: {base['peak'] / 1e6:.0f} MB\n")
    rows = [*options.rows, *([LARGE] if options.large else [])]
    table_lines = [line for n in rows for line in lines(n, options)]
    print(markdown(list(table_lines[0]), [list(line.values()) for line in table_lines]))


if __name__ == "__main__":
    main()
