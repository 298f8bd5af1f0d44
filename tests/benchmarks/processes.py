"""One process and two: how a fit scales, what it ends with, and what is lost where one is killed.

    python -m tests.benchmarks.processes
    python -m tests.benchmarks.processes --kills 20

A causal network and one that hears every column are trained for a fixed number of steps on rows of a mixture of eight
products, by one process and by two that ``torchrun`` starts, each with one thread. Strong scaling: the same batch of
``--batch`` rows, so that the same rows are seen. Weak scaling: a batch of as many rows for each process. Held-out nats
are those of the best weights.

With ``--kills``, the command fits with a checkpoint and is killed (SIGKILL) after a random part of the time that it
takes: the only process; or one of two, whichever comes. Then the same command goes on. Counted are models that were
half written, and ends that differ from those of the fit that was left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity
from discrete_itd.cli import main as command
from discrete_itd.recipes import Causal, Network, Recipe
from discrete_itd.training.checkpoint import Checkpoint
from discrete_itd.training.config import TrainingPlan
from discrete_itd.training.distributed import job
from tests.benchmarks.tables import machine, markdown

RECIPES: dict[str, Recipe] = {
    "causal": Causal(base="independent"),
    "network": Network(base="independent"),
}
LEFT = 60.0  # seconds in which a job of which one process was killed must end


def main() -> None:
    """Print the table of one of the two measurements; or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--kind", choices=list(RECIPES), help="be a process that fits this")
    parser.add_argument("--command", nargs=argparse.REMAINDER, help="be a process of the command")
    options = parser.parse_args()
    if options.command is not None:
        Checkpoint.due = True  # pyright: ignore[reportAttributeAccessIssue]
        sys.exit(command(options.command))
    if options.kind is not None:
        measure(options)
        return
    print(machine(), flush=True)
    if options.kills:
        print(kills(options.kills))
        return
    print(scaling(options), flush=True)


# -- scaling --------------------------------------------------------------------------------------


def table(n_rows: int, n_columns: int) -> pd.DataFrame:
    """Rows of a mixture of eight products over columns of four categories."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(4, 0.5), size=(8, n_columns))
    classes, u = rng.integers(8, size=n_rows), rng.random((n_rows, n_columns, 1))
    codes = (u > probs[classes].cumsum(2)[:, :, :3]).sum(2)
    return pd.DataFrame(codes, columns=[f"c{j}" for j in range(n_columns)]).astype("category")


@dataclass(frozen=True)
class Sized(Recipe):
    """A recipe with the batch and the number of steps of the measurement."""

    inner: Recipe
    batch: int
    steps: int
    trains = True

    def fit(self, rows, plan):
        train = plan.train

        def sized(denoiser, rows, training: TrainingPlan | None = None):
            settings = vars(training or plan.training)
            changed = {"batch_size": self.batch, "max_steps": self.steps, "patience": self.steps}
            return train(denoiser, rows, TrainingPlan(**settings | changed))

        plan.train = sized
        return (
            self.inner.train_one(rows.marginals, rows, plan)
            if isinstance(self.inner, Causal)
            else self.inner.fit(rows, plan)
        )


def measure(options: argparse.Namespace) -> None:
    """Fit as one process of a job; process 0 prints what came out."""
    with job() as team:
        frame = table(options.rows, options.columns)
        recipe = Sized(RECIPES[options.kind], options.batch, options.steps)
        start = time.perf_counter()
        settings = {"schedule": "coordinate", "n_evaluations": 2, "random_state": 0}
        model = DiffusionDensity(denoiser=recipe, max_steps=options.steps, **settings).fit(frame)
        took = time.perf_counter() - start
        history = model.history_
        if team.rank == 0:
            nats = -model.score_samples(table(2 * options.rows, options.columns)[options.rows :])
            line = history.iloc[-1]
            found = {
                "seconds": float(line.seconds), "steps": int(line.step), "nats": float(history.valid_nats.min()),
                "stderr": float(line.valid_stderr), "fit": took, "test": float(nats.mean()),
            }  # fmt: skip
            print(json.dumps(found), flush=True)


def scaling(options: argparse.Namespace) -> str:
    """One line for each model and number of processes."""
    lines = []
    for kind in RECIPES:
        for processes, batch in ((1, options.batch), (2, options.batch), (2, 2 * options.batch)):
            found = fitted(kind, processes, options, batch)
            lines.append(
                {
                    "model": kind,
                    "processes": processes,
                    "batch": batch,
                    "rows/s": round(found["steps"] * batch / found["seconds"]),
                    "s to train": round(found["seconds"], 1),
                    "held-out nats": f"{found['nats']:.4f} ± {found['stderr']:.4f}",
                }
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return markdown(list(lines[0]), [list(line.values()) for line in lines])


def fitted(kind: str, processes: int, options: argparse.Namespace, batch: int) -> dict[str, float]:
    """What a job of so many processes printed."""
    sizes = {
        "rows": options.rows,
        "columns": options.columns,
        "steps": options.steps,
        "batch": batch,
    }
    given = [t for name, value in sizes.items() for t in (f"--{name}", str(value))]
    done = subprocess.run(
        [*launcher(processes), "-m", __spec__.name, "--kind", kind, *given],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def launcher(processes: int) -> list[str]:
    """The command that starts so many processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *(torchrun if processes > 1 else [])]


def environment() -> dict[str, str]:
    """One thread for each process."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


# -- kills ----------------------------------------------------------------------------------------


def kills(times: int) -> str:
    """One line for one process and for two."""
    lines, rng = [], random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.csv"
        table(3000, 12).to_csv(rows, index=False)
        for processes in (1, 2):
            whole = Path(folder) / f"whole{processes}.itd"
            start = time.perf_counter()
            finish(fit(processes, rows, whole))
            took = time.perf_counter() - start
            found = [
                killed(processes, rows, Path(folder) / f"{processes}-{i}.itd", rng, took)
                for i in range(times)
            ]
            right = sum(digest(file) == digest(whole) for file, *_ in found)
            lines.append(
                {
                    "processes": processes,
                    "kills": sum(was for _, was, *_ in found),
                    "half written": sum(half for *_, half, _ in found),
                    "ends as if left alone": f"{right} of {times}",
                    "s until the job ended, at most": round(max(s for *_, s in found), 1),
                    "s of the fit": round(took, 1),
                }
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return markdown(list(lines[0]), [list(line.values()) for line in lines])


def fit(processes: int, rows: Path, out: Path) -> subprocess.Popen[str]:
    """Start the command."""
    asked = (
        f"fit {rows} --out {out} --checkpoint {out}.run --denoiser causal --max-steps 300 --seed 0"
    )
    return subprocess.Popen(
        [*launcher(processes), "-m", __spec__.name, "--command", *asked.split()],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a command that must succeed."""
    said = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(said)


def killed(
    processes: int, rows: Path, out: Path, rng: random.Random, took: float
) -> tuple[Path, bool, bool, float]:
    """Fit, kill, go on: the model, whether it was killed, whether something was half written, seconds to the end."""
    process = fit(processes, rows, out)
    time.sleep(rng.uniform(0.1, 1.0) * took)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    victim = process.pid if processes == 1 else int(rng.choice(children or [str(process.pid)]))
    was = process.poll() is None
    if was:
        os.kill(victim, signal.SIGKILL)
    start = time.perf_counter()
    process.communicate(timeout=LEFT)
    ended = time.perf_counter() - start
    half = out.exists() and not loads(out)
    if process.returncode or half:
        finish(fit(processes, rows, out))
    return out, was, half, ended


def loads(file: Path) -> bool:
    """Whether a model file is whole."""
    try:
        DiffusionDensity.load(file)
    except (ValueError, OSError):
        return False
    return True


def digest(file: Path) -> str:
    """What a model says of some rows, to the last bit."""
    scores = DiffusionDensity.load(file).score_samples(table(200, 12))
    return hashlib.sha256(scores.tobytes()).hexdigest()


if __name__ == "__main__":
    main()
