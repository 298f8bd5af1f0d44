"""Kills at random moments, and what is left: python -m tests.benchmarks.kills [JOB ...] [--kills 20].

Each job runs in a process of its own that is killed (SIGKILL) at a random moment of its work, 20 times. Processes are
forked, so that kills meet the work and not the start of Python.

folder   ``impute`` of a folder of CSV and Parquet files, begun again after each kill, in a new folder where the last
         one is complete. Every file that is there must be that of a run without a kill, and none may be gone. At last
         each folder is completed and must be equal as a whole.
fit      ``fit`` of a detector. There is no model, or one of the same weights, calibration and scores, to the last
         bit, as that of a fit without a kill.
score    ``score`` of a table to a CSV, a packed CSV or a Parquet file, where none or another one is. After each kill
         the file is what it was, or the whole new one; the next run must end in that, byte for byte.
save     Two detectors saved over each other without an end. After each kill the file is one of them, byte for byte, and
         beside it is its own card, or none: never that of the other.

What a kill may leave is a hidden file beside the one that was being written, which a run a day later removes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

import torch

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.cli import main as command
from discrete_itd.storage.files import read_state
from tests.benchmarks.streaming import rows
from tests.benchmarks.tables import machine

FILES, ROWS = 12, 4000
ENDINGS = (".csv", ".parquet", ".csv.gz")
NARROW = [*(f"text{j}" for j in range(8)), *(f"count{j}" for j in range(4))]


@dataclass
class Killer:
    """Runs calls in processes of their own, and kills some of them."""

    folder: Path  # of all files
    n_kills: int
    size: float  # of the work, usually 1
    n_killed: int = 0
    n_ended: int = 0
    moments: random.Random = field(default_factory=lambda: random.Random(0))
    seconds: float = 0.0  # of the work

    @property
    def goes_on(self) -> bool:
        """Whether there are kills left."""
        return self.n_killed < self.n_kills

    def start(self, call: Callable[[], int | None]) -> int:
        """Begin a call; the id of its process. What it says is in a file."""
        child = os.fork()
        if child:
            return child
        code, log = 99, self.folder / "log"
        try:
            with open(log, "w") as said, redirect_stdout(said), redirect_stderr(said):
                code = call() or 0
        finally:
            os._exit(code)

    def finish(self, line: str) -> float:
        """Run a command to its end; seconds."""
        began = time.perf_counter()
        _, status = os.waitpid(self.start(job(line)), 0)
        assert os.waitstatus_to_exitcode(status) == 0, (self.folder / "log").read_text()
        return time.perf_counter() - began

    def strike(self, call: Callable[[], int | None], share: float = 1.0) -> str:
        """Begin a call and kill it after a random part of a share of its seconds; what happened."""
        child, moment = self.start(call), self.moments.uniform(0, share * self.seconds)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == -signal.SIGKILL:
            self.n_killed += 1
            return f"kill {self.n_killed:2} after {moment:5.2f} s"
        assert code == 0, (self.folder / "log").read_text()
        self.n_ended += 1
        self.seconds *= 0.8  # other programs have ended, and all is faster
        return "ended before a kill"


def job(line: str) -> Callable[[], int]:
    """The call of a command."""
    return partial(command, line.split())


def hidden(folder: Path) -> int:
    """Number of hidden files that kills have left."""
    return sum(f.startswith(".") for _, _, files in os.walk(folder) for f in files)


# -- a folder -------------------------------------------------------------------------------------


def whole(folder: Path) -> dict[str, bytes]:
    """The files of the output by name, without what a kill may leave under a hidden name."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith((".", "_")))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def make_tables(folder: Path, n_files: int, n_rows: int) -> None:
    """Tables of two formats."""
    folder.mkdir()
    for i in range(n_files):
        frame = rows(n_rows, i)
        if i % 3:
            frame.to_csv(folder / f"{i:02}.csv", index=False)
        else:
            frame.to_parquet(folder / f"{i:02}.parquet", row_group_size=n_rows // 2)


def kill_folder(killer: Killer) -> str:
    """Kill ``impute``."""
    folder = killer.folder
    make_tables(folder / "in", max(3, round(killer.size * FILES)), round(killer.size * ROWS))
    killer.finish(f"fit {folder}/train.csv --out {folder}/model --denoiser tree --seed 0")
    line = f"impute {folder}/model {folder}/in --out {folder}"
    killer.seconds = killer.finish(f"{line}/expected")
    expected = whole(folder / "expected")
    outs, n_whole = [folder / "out0"], 0
    while killer.goes_on:
        outs[-1].mkdir(exist_ok=True)
        happened = killer.strike(job(f"{line}/{outs[-1].name}"), share=0.5)
        found = whole(outs[-1])
        wrong = [file for file, content in found.items() if expected.get(file) != content]
        assert not wrong, wrong
        assert len(found) >= n_whole, "files are gone"
        print(f"{happened}: {outs[-1].name}, {len(found):2} whole files, {hidden(outs[-1])} begun")
        n_whole = len(found)
        if n_whole == len(expected):
            outs.append(folder / f"out{len(outs)}")
            n_whole = 0
    for out in outs:
        killer.finish(f"{line}/{out.name}")
        assert whole(out) == expected
    assert not sum(map(hidden, outs)), "something is left"
    return (
        f"{len(outs)} folders of {len(expected)} files completed, all equal; no hidden files left"
    )


# -- a fit ----------------------------------------------------------------------------------------


def bits(file: Path) -> str:
    """What a detector has learned, and what it says of some rows, to the last bit."""
    _, tensors = read_state(file)
    parts = [tensors[name].numpy().tobytes() for name in sorted(tensors)]
    scores = DiffusionOutlierDetector.load(file).score_samples(rows(200, 7)[NARROW])
    return hashlib.sha256(b"".join([*parts, scores.tobytes()])).hexdigest()


def kill_fit(killer: Killer) -> str:
    """Kill ``fit``."""
    folder, steps = killer.folder, round(600 * killer.size)
    rows(2000, 10**9)[NARROW].to_csv(folder / "narrow.csv", index=False)
    line = f"fit {folder}/narrow.csv --denoiser causal --max-steps {steps} --seed 0 --detector"
    killer.seconds = killer.finish(f"{line} --out {folder}/expected")
    expected, n_models = bits(folder / "expected"), 0
    while killer.goes_on:
        model = folder / f"fit{n_models}"
        happened = killer.strike(job(f"{line} --out {model}"))
        print(f"{happened}: {model.name}, {'a' if model.exists() else 'no'} model")
        if model.exists():
            assert bits(model) == expected
            n_models += 1
    killer.finish(f"{line} --out {folder}/fit{n_models}")
    assert bits(folder / f"fit{n_models}") == expected
    assert not hidden(folder), "something is left"
    return f"{n_models + 1} models, of equal bits"


# -- a score --------------------------------------------------------------------------------------


def kill_score(killer: Killer) -> str:
    """Kill ``score``."""
    folder, model = killer.folder, killer.folder / "detector"
    killer.finish(f"fit {folder}/train.csv --out {model} --denoiser tree --seed 0 --detector")
    rows(round(20_000 * killer.size), 1).to_csv(folder / "table.csv", index=False)
    line = f"score {model} {folder}/table.csv --reasons 1 --out {folder}"
    expected = {}
    for ending in ENDINGS:
        killer.seconds = killer.finish(f"{line}/expected{ending}")
        expected[ending] = (folder / f"expected{ending}").read_bytes()
    n_old = n_new = 0
    for ending, old in cycle((e, old) for e in ENDINGS for old in (None, b"another")):
        if not killer.goes_on:
            break
        out = folder / f"scores{ending}"
        out.unlink(missing_ok=True)
        if old is not None:
            out.write_bytes(old)
        happened = killer.strike(job(f"{line}/{out.name}"))
        found = out.read_bytes() if out.exists() else None
        assert found in (old, expected[ending]), "half written"
        n_old, n_new = n_old + (found == old), n_new + (found != old)
        print(f"{happened}: {out.name} {'as before' if found == old else 'whole'}")
        killer.finish(f"{line}/{out.name}")
        assert out.read_bytes() == expected[ending]
    counts = f"{n_old} times the file as before, {n_new} times the new one"
    assert not hidden(folder), "something is left"
    return f"{counts}; each rerun gave the same bytes; no hidden files left"


# -- a model --------------------------------------------------------------------------------------


def kill_save(killer: Killer) -> str:
    """Kill ``save`` over another model."""
    folder = killer.folder / "models"
    folder.mkdir()
    file, card = folder / "m", folder / "m.md"
    models = [
        DiffusionOutlierDetector(denoiser="tree", random_state=seed).fit(rows(3000, seed))
        for seed in (0, 1)
    ]
    killer.seconds = 0.5
    expected = {}  # the bytes of the file, and the card
    for model in models:
        model.save(file)
        expected[file.read_bytes()] = card.read_text()

    def save() -> None:
        for model in cycle(models):
            model.save(file)

    found, n_bare = Counter(), 0
    while killer.goes_on:
        happened = killer.strike(save)
        DiffusionOutlierDetector.load(file)  # which compares the content with its digest
        text = expected[file.read_bytes()]
        assert not card.exists() or card.read_text() == text, "the card of another model"
        found[text] += 1
        n_bare += not card.exists()
        print(
            f"{happened}: whole, {'its' if card.exists() else 'no'} card, {hidden(folder)} hidden"
        )
        assert hidden(folder) <= 2, "what earlier kills have left is still there"
    models[0].save(file)
    assert sorted(os.listdir(folder)) == ["m", "m.md"], "something is left"
    return (
        f"whole each time, {' and '.join(map(str, found.values()))} times each model, {n_bare} times without a card,"
        " never beside that of the other; no hidden files left"
    )


JOBS = {"folder": kill_folder, "fit": kill_fit, "score": kill_score, "save": kill_save}


def main() -> None:
    """Kill, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", default=list(JOBS), metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="little to do, three kills")
    args = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    print(machine())
    for name in args.jobs:
        with tempfile.TemporaryDirectory() as folder:
            size = 0.1 if args.quick else 1.0
            killer = Killer(Path(folder), 3 if args.quick else args.kills, size)
            rows(2000, 10**9).to_csv(killer.folder / "train.csv", index=False)
            found = JOBS[name](killer)
            ended = f", {killer.n_ended} more runs ended before theirs"
            print(f"{name}: {killer.n_killed} kills{ended}; {found}", flush=True)
    print("nothing was lost or half written")


if __name__ == "__main__":
    main()
