"""Chosen faults, one at a time: does a folder find those in it by its own tests within a CPU-minute?

    python -m tests.benchmarks.faults
    python -m tests.benchmarks.faults likelihood channel --seconds 30

Each is a wrong sign, axis, factor or Jacobian in one line. Those of mutmut (``tests/mutants.py``) are many and small;
these are chosen where an answer would be wrong and nothing else. The tests of the folder of the same name run in a copy
of the repository, first the file named after the module, then those that mention it most, until one fails. A fault
whose line is there no more is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.tables import machine
from tests.mutants import ROOT


class Fault(NamedTuple):
    """A line of a module in ``discrete_itd``, and a wrong one."""

    module: str
    line: str
    wrong: str


FAULTS = [
    Fault("likelihood/integral.py", "log_b = log_b - baseline", "log_b = log_b + baseline"),
    Fault("likelihood/integral.py", "(0.5 * weight * error)", "(0.25 * weight * error)"),
    Fault("likelihood/integral.py", "tail.var(1) / n_tail", "tail.var(1) / n_points"),
    Fault("likelihood/path.py", "chance + bias / float(gauss)", "chance - bias / float(gauss)"),
    Fault("likelihood/conditional.py", "log_w.logsumexp(1) - log_met", "log_w.logsumexp(1) + log_met"),
    Fault("likelihood/conditional.py", "(log_joint - own.log_width())", "(log_joint + own.log_width())"),
    Fault("channel/rounded_numbers.py", "+ bent - spread.log()", "+ bent + spread.log()"),
    Fault("channel/rounded_numbers.py", "(low + high) / 2)", "(low + high))"),
    Fault("channel/codebook.py", "finite.sqrt() * xi", "finite * xi"),
    Fault("denoisers/gaussian.py", "log_det = factor", "log_det = -factor"),
    Fault("denoisers/forest.py", "rows = splits.sums(self.rows) + pseudo_count", "rows = splits.sums(self.rows)"),
    Fault("denoisers/marginal.py", "log_mass + self.log_evidence_of_reals", "log_mass - self.log_evidence_of_reals"),
    Fault("encoders/numeric.py", "log_slope.mean(1, keepdim=True)", "0 * log_slope.mean(1, keepdim=True)"),
    Fault("encoders/gaps.py", "axis=1) - (size - 1)", "axis=1) + (size - 1)"),
    Fault("encoders/categories.py", "self._numbers[0] - self._step / 2", "self._numbers[0] + self._step / 2"),
    Fault("training/objectives.py", "nats = 0.5 * self.weight", "nats = self.weight"),
    Fault("training/objectives.py", "(n_cells + 1) / n_unknown", "n_cells / n_unknown"),
    Fault("models/information.py", "nats - alone[:, :, None] - alone", "nats - alone[:, :, None] + alone"),
    Fault("models/information.py", "/ (n - 1) / n).sqrt()", "/ (n - 1)).sqrt()"),
    Fault("models/comparison.py", "c.nats for c in single], 1)", "c.nats.sort().values for c in single], 1)"),
    Fault("detection/score.py", "softplus(least - q)", "softplus(q - least)"),
    Fault("detection/score.py", "self.weight * (tree_nats - nats)", "self.weight * (tree_nats + nats)"),
    Fault("detection/drift.py", 'table["nats"] - table["inlier_nats"]', 'table["inlier_nats"] - table["nats"]'),
    Fault("storage/card.py", "1 / (n + 1):.3g", "1 / n:.3g"),
    Fault("images/conventions.py", "(z - output) / snr.sqrt()", "(z + output) / snr.sqrt()"),
    Fault("images/layout.py", "torch.exp(-0.5 *", "torch.exp(-1.0 *"),
    Fault("images/ensemble.py", "weights(snr).log()[:, :, None]", "weights(snr)[:, :, None]"),
    Fault("reporting/fidelity.py", "- rankdata(score[is_kind])", "+ rankdata(score[is_kind])"),
    Fault("reporting/findings.py", "levels[:, None]).mean(1)", "levels[:, None]).mean(0)"),
]  # fmt: skip


def main() -> None:
    """Print each fault and whether it was found, and how many were."""
    folders = sorted({fault.module.split("/")[0] for fault in FAULTS})
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", default=folders)
    parser.add_argument("--seconds", type=int, default=60, help="of CPU time a fault")
    options = parser.parse_args()
    print(machine())
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for part in ("discrete_itd", "tests"):
            ignored = shutil.ignore_patterns("__pycache__", "docs")
            shutil.copytree(ROOT / part, copy / part, ignore=ignored)
        for file in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / file, copy)
        for fault in FAULTS:
            if fault.module.split("/")[0] in options.folders:
                outcomes.append(finding_test(fault, copy, options.seconds))
                print(f"{fault.module}: {fault.wrong}: {outcomes[-1] or 'NOT FOUND'}", flush=True)
    print(f"{sum(map(bool, outcomes))} of {len(outcomes)} found")


def finding_test(fault: Fault, copy: Path, seconds: int) -> str:
    """The test of the folder that fails within so many CPU-seconds; empty if none does."""
    file, folder = copy / "discrete_itd" / fault.module, Path("tests") / fault.module.split("/")[0]
    text = file.read_text()
    if text.count(fault.line) != 1:
        raise ValueError(f"{fault.module} has {text.count(fault.line)} times {fault.line!r}")
    name = Path(fault.module).stem
    tests = copy.glob(f"{folder}/test_*.py")
    tests = sorted(tests, key=lambda p: (name not in p.stem, -p.read_text().count(name), p))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider"]
    limit = partial(resource.setrlimit, resource.RLIMIT_CPU, (seconds, seconds))
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    file.write_text(text.replace(fault.line, fault.wrong))
    try:
        done = subprocess.run(
            [*command, *map(str, tests)],
            cwd=copy,
            env=environment,
            preexec_fn=limit,
            capture_output=True,
            text=True,
        )
    finally:
        file.write_text(text)
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    # none, too, where the time was over or a file cannot be imported
    return failed[0] if failed else ""


if __name__ == "__main__":
    main()
