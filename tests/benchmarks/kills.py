"""Kills of a command that works on a folder, at random moments: python -m tests.benchmarks.kills [--kills 20].

``impute`` of a folder of CSV and Parquet files is killed (SIGKILL) again and again, and begun again each time; after
each kill every file that is there must be whole, that is, equal to that of a run without a kill, byte for byte. At
last the command runs to its end. Printed are the moments, the files that were there, and how many were made again.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.streaming import rows

FILES, ROWS = 12, 20_000


def start(line: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "discrete_itd.cli", *line.split()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def whole(folder: Path) -> dict[str, bytes]:
    """The files of the output by name, without what a kill may leave under a hidden name."""
    if not folder.exists():
        return {}
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith((".", "_")))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def main() -> None:
    """Kill, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="little to do, three kills")
    args = parser.parse_args()
    n_files, n_rows, n_kills = (3, 2000, 3) if args.quick else (FILES, ROWS, args.kills)
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for i in range(n_files):
            frame = rows(n_rows, i)
            if i % 3:
                frame.to_csv(folder / f"in/{i:02}.csv", index=False)
            else:
                frame.to_parquet(folder / f"in/{i:02}.parquet", row_group_size=n_rows // 2)
        rows(2000, 10**9).to_csv(folder / "train.csv", index=False)
        line = f"fit {folder}/train.csv --out {folder}/model --denoiser tree --seed 0"
        assert not start(line).wait()
        line = f"impute {folder}/model {folder}/in --out {folder}"
        began = time.perf_counter()
        out, _ = start(f"{line}/expected").communicate()
        seconds = time.perf_counter() - began
        expected = whole(folder / "expected")
        print(
            f"without a kill: {len(expected)} files in {seconds:.1f} s; {out.decode().splitlines()[-1]}"
        )
        n_whole = n_killed = 0
        for i in range(n_kills):
            moment = moments.uniform(0, 0.6 * seconds)
            child = start(f"{line}/out")
            time.sleep(moment)
            child.send_signal(signal.SIGKILL)
            n_killed += child.wait() == -signal.SIGKILL
            if child.stdout is not None:
                child.stdout.close()
            found = whole(folder / "out")
            wrong = [n for n, content in found.items() if expected.get(n) != content]
            assert not wrong, wrong
            assert len(found) >= n_whole
            n_whole = len(found)
            hidden = sum(
                n.startswith(".") for _, _, names in os.walk(folder / "out") for n in names
            )
            print(
                f"kill {i + 1:2} after {moment:5.1f} s: {n_whole:3} whole files, {hidden} begun",
                flush=True,
            )
        out, _ = start(f"{line}/out").communicate()
        assert whole(folder / "out") == expected
        left = [n for _, _, names in os.walk(folder / "out") for n in names if n.startswith(".")]
        print(
            f"{n_killed} of {n_kills} runs were killed; the last one: {out.decode().splitlines()[0]}"
        )
        print(
            f"all {len(expected)} files equal those without a kill; {len(left)} hidden files are left"
        )


if __name__ == "__main__":
    main()
