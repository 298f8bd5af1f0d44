"""Mutation testing: small faults put into modules one at a time, and the share of them that the tests find.

    pip install mutmut
    python tests/mutants.py discrete_itd/channel --tests tests/channel
    python tests/mutants.py discrete_itd/likelihood --tests tests/likelihood --sample 120

mutmut works in a copy of the repository's files, so that a checkout is left alone. With ``--folder`` the copy is kept:
the next run there mutates nothing anew that did not change, and ``--names`` tries single mutants again. Which tests
reach a function is kept as well: a test that was changed to reach one more needs a new folder.

mutmut leaves out functions with a decorator. Those under ``torch.no_grad`` are most of the estimators: in the copy
their decorator is applied after the module is defined, and they are mutated like the others. Properties, overloads and
constants of a module are not mutated.

Every mutant is run by the tests that reach its function, until the first fails. A survivor is either a fault that no
test would find or an *equivalent* mutant, which does what the original does: see ``tests/benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).parents[1]
# mutmut's exit codes; all others mean that a test failed or took too long
SURVIVED, NO_TESTS = 0, 33
NOT_RUN = (None, 34, 35)
SHOW = """
import sys
from mutmut.__main__ import show
for name in sys.argv[1:]:
    show.callback(name)
"""
NO_GRAD = re.compile(r"^@torch\.no_grad\(\)\n(def (\w+))", re.MULTILINE)


def main() -> None:
    """Print the share of mutants that the tests find, its interval, and every survivor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", help="files or folders to mutate")
    parser.add_argument("--tests", nargs="+", required=True, help="test files that concern them")
    parser.add_argument("--sample", type=int, help="so many mutants at random; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--names", nargs="+", help="these mutants only")
    parser.add_argument("--folder", type=Path, help="where the copy is and stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        prepare(folder, modules(options.modules), options.tests)
        # generates mutants and times tests, and stops for there is none of that name
        mutmut(folder, "run", "none", check=False)
        known = sorted(exit_codes(folder))
        names = options.names or known
        if options.sample is not None and options.sample < len(names):
            names = sorted(random.Random(options.seed).sample(names, options.sample))
        if not names:
            raise SystemExit("no mutants: do the tests pass?")
        mutmut(folder, "run", "--max-children", "1", *names)
        codes = exit_codes(folder)
        report(folder, {name: codes[name] for name in names}, len(known))


def modules(given: list[str]) -> list[str]:
    """The Python files among files and folders, from the repository's root."""
    paths = [ROOT / name for name in given]
    files = [f for p in paths for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return [f.relative_to(ROOT).as_posix() for f in files]


def prepare(folder: Path, mutated: list[str], tests: list[str]) -> None:
    """Copy the repository's files, with mutmut's configuration."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for name in mutated:
        source = (folder / name).read_text()
        hoisted = [match[1] for match in NO_GRAD.findall(source)]
        after = "".join(f"\n{name} = torch.no_grad()({name})\n" for name in hoisted)
        (folder / name).write_text(NO_GRAD.sub(r"\1", source) + after)
    settings = {
        "source_paths": ["discrete_itd/"],
        "only_mutate": mutated,
        "also_copy": sorted({name.split("/")[0] for name in names.splitlines()} - {"mutants"}),
        "pytest_add_cli_args_test_selection": tests,
        "pytest_add_cli_args": ["-n0", "-p", "no:cacheprovider"],
        "use_git_change_detection": False,
        "timeout_multiplier": 4.0,
        "timeout_constant": 2.0,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    with open(folder / "pyproject.toml", "a") as file:
        file.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def mutmut(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run a command of mutmut in the copy; its output."""
    # derandomised: a property that draws other examples for every mutant finds what it finds by luck
    environment = {**os.environ, "CI": "1"}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if check and done.returncode:
        raise SystemExit(f"mutmut {arguments[0]}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def exit_codes(folder: Path) -> dict[str, int | None]:
    """Every mutant with the exit code of its tests, None if they were not run."""
    out = {}
    for path in sorted((folder / "mutants").rglob("*.meta")):
        out.update(json.loads(path.read_text())["exit_code_by_key"])
    return out


def report(folder: Path, codes: dict[str, int | None], n_all: int) -> None:
    """Print the share of mutants killed with its interval, and what every survivor changes."""
    survivors = [name for name, code in codes.items() if code in (SURVIVED, NO_TESTS)]
    run = [name for name, code in codes.items() if code not in NOT_RUN]
    shown = subprocess.run(
        [sys.executable, "-c", SHOW, *survivors], cwd=folder, capture_output=True, text=True
    )
    for line in (shown.stdout + shown.stderr).splitlines():
        if re.match(r"# |[-+](?![-+]{2} )", line):
            print(("\n" if line[0] == "#" else "") + line)
    killed = len(run) - len(survivors)
    interval = stats.binomtest(killed, len(run)).proportion_ci(method="wilson")
    print(
        f"\n{killed} of {len(run)} mutants killed, {killed / len(run):.1%}"
        f" (95 % interval {interval.low:.1%} to {interval.high:.1%}); {n_all} mutants in all"
    )


if __name__ == "__main__":
    main()
