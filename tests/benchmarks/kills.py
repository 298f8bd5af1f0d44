"""Kills of a command that works on a folder, at random moments: python -m tests.benchmarks.kills [--kills 20].

``impute`` of a folder of CSV and Parquet files is killed (SIGKILL) again and again, and begun again each time, in a new
folder where the last one is complete. After each kill every file that is there must be whole, that is, equal to that
of a run without a kill, byte for byte, and none may be gone. At last each folder is completed and must be equal as a
whole. Processes are forked, so that the kills meet the work and not the start of Python.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import torch

from discrete_itd.cli import main as command
from tests.benchmarks.streaming import rows

FILES, ROWS = 12, 4000


def start(line: str, log: Path) -> int:
    """The command in a process of its own, which is told by its id; what it says is in a file."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        with (
            open(log, "w") as said,
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            code = command(line.split())
    finally:
        os._exit(code)


def whole(folder: Path) -> dict[str, bytes]:
    """The files of the output by name, without what a kill may leave under a hidden name."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith((".", "_")))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def finish(line: str, log: Path) -> str:
    """Run the command to its end; its first line."""
    _, status = os.waitpid(start(line, log), 0)
    lines = log.read_text().splitlines()
    assert os.waitstatus_to_exitcode(status) == 0, lines
    return next(text for text in lines if "files" in text)


def make_tables(folder: Path, n_files: int, n_rows: int) -> None:
    """Tables of two formats, and some rows to fit a model to."""
    (folder / "in").mkdir()
    for i in range(n_files):
        frame = rows(n_rows, i)
        if i % 3:
            frame.to_csv(folder / f"in/{i:02}.csv", index=False)
        else:
            frame.to_parquet(folder / f"in/{i:02}.parquet", row_group_size=n_rows // 2)
    rows(2000, 10**9).to_csv(folder / "train.csv", index=False)


def main() -> None:
    """Kill, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="little to do, three kills")
    args = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    n_files, n_rows, n_kills = (3, 500, 3) if args.quick else (FILES, ROWS, args.kills)
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name), Path(name, "log")
        make_tables(folder, n_files, n_rows)
        line = f"fit {folder}/train.csv --out {folder}/model --denoiser tree --seed 0"
        os.waitpid(start(line, log), 0)
        line = f"impute {folder}/model {folder}/in --out {folder}"
        began = time.perf_counter()
        said = finish(f"{line}/expected", log)
        seconds = time.perf_counter() - began
        expected = whole(folder / "expected")
        print(f"without a kill: {said.removeprefix(name)}, in {seconds:.1f} s")
        outs = [folder / "out0"]
        n_whole = n_killed = 0
        while n_killed < n_kills:
            outs[-1].mkdir(exist_ok=True)
            child = start(f"{line}/{outs[-1].name}", log)
            moment = moments.uniform(0, 0.5 * seconds)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            n_killed += killed
            seconds *= 1 if killed else 0.8  # other programs have ended, and all is faster
            found = whole(outs[-1])
            wrong = [file for file, content in found.items() if expected.get(file) != content]
            assert not wrong, wrong
            assert len(found) >= n_whole, "files are gone"
            begun = sum(f.startswith(".") for _, _, files in os.walk(outs[-1]) for f in files)
            when = f"kill {n_killed:2} after {moment:5.2f} s" if killed else "ended before a kill"
            print(f"{when}: {outs[-1].name}, {len(found):2} whole files, {begun} begun", flush=True)
            n_whole = len(found)
            if n_whole == len(expected):
                outs.append(folder / f"out{len(outs)}")
                n_whole = 0
        for out in outs:
            said = finish(f"{line}/{out.name}", log)
            assert whole(out) == expected
            left = [f for _, _, files in os.walk(out) for f in files if f.startswith(".")]
            print(
                f"completed {said.removeprefix(name)}; all files equal; {len(left)} hidden ones left"
            )
        print(f"{n_killed} kills, and nothing was lost or half written")


if __name__ == "__main__":
    main()
