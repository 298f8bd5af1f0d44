"""Every command on Parquet with gaps, dates, categories, truth values, and whole numbers beside nulls."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.cli import reporting
from discrete_itd.cli.options import COMMANDS
from discrete_itd.detection.outliers import find_outliers
from discrete_itd.reporting import page
from tests.examples import run

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

pytestmark = [pytest.mark.single_precision, pytest.mark.filterwarnings("ignore:.*every cell")]
N_ROWS = 120
# what each command makes of the table t, by the model m or the detector d, and the files that are tables
CALLS = {
    "fit": ("fit t.parquet --out new --denoiser tree --seed 0", []),
    "score": ("score d t.parquet --out s.parquet --explain --reasons --keep {names}", ["s"]),
    "impute": ("impute m t.parquet --out i.parquet", ["i"]),
    "sample": ("sample m -n 120 --out n.parquet --seed 0", ["n"]),
    "report": ("report d t.parquet --out r.html --keep {names}", []),
    "check": (
        "check t.parquet --out e.parquet --repair c.parquet --review o.parquet --rows --report e.html",
        ["e", "c", "o"],
    ),
    "watch": ("watch d t.parquet --state w --out w.parquet --keep {names}", ["w"]),
    "drift": ("drift d t.parquet --reference t.parquet --out f.parquet", ["f"]),
    "rules": ("rules t.parquet --out u.parquet", ["u"]),
    "describe": ("describe d", []),
}


def table():
    """Columns that follow one of three levels, each with gaps and a wrong cell, and one of nothing else."""
    random = np.random.default_rng(0)
    level = random.integers(0, 3, N_ROWS)
    days = [timedelta(days=9 * int(k)) for k in level]
    first = datetime(2024, 1, 1, 12, tzinfo=UTC)
    cells = {
        "town": (np.array(["Bonn", "Köln", "Ulm"])[level].tolist(), pa.string()),
        "code": ((53113 + 11 * level).tolist(), pa.int32()),
        "count": ((10 * level + random.integers(0, 2, N_ROWS)).tolist(), pa.uint8()),
        "size": (random.normal(level, 0.1).round(2).tolist(), pa.float32()),
        "day": ([date(2024, 1, 1) + step for step in days], pa.date32()),
        "time": ([first + step for step in days], pa.timestamp("ms", tz="Europe/Berlin")),
        "span": (days, pa.duration("s")),
        "money": ([Decimal(int(k)) + Decimal("0.95") for k in level], pa.decimal128(9, 2)),
        "truth": ((level == 1).tolist(), pa.bool_()),
        "kind": (np.array(["a", "b", "c"])[level].tolist(), pa.string()),
    }
    columns = {}
    for name, (values, kind) in cells.items():
        row = random.integers(N_ROWS)
        values[row] = next(value for value in values if value != values[row])
        kept = [None if random.random() < 0.05 else value for value in values]
        columns[name] = pa.array(kept, kind)
    columns["kind"] = columns["kind"].dictionary_encode()
    return pa.table({**columns, "none": pa.nulls(N_ROWS)})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    place = tmp_path_factory.mktemp("parquet")
    parquet.write_table(table(), place / "t.parquet")
    for out, options in (("m", ""), ("d", " --detector --false-alarm-rate 0.1")):
        run(f"fit {place / 't.parquet'} --out {place / out} --denoiser tree --seed 0{options}")
    return place


def test_every_command_is_tried():
    assert {*CALLS, "demo"} == {*COMMANDS}


@pytest.mark.parametrize("command", CALLS)
def test_every_command_takes_and_writes_parquet(command, fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    detector = DiffusionOutlierDetector(denoiser="tree", false_alarm_rate=0.1)
    monkeypatch.setattr(reporting, "find_outliers", partial(find_outliers, detector=detector))
    monkeypatch.setattr(page, "_drawings", lambda _: {})
    line, tables = CALLS[command]
    given = parquet.read_table("t.parquet")
    run(line.format(names=" ".join(given.column_names)))
    for name in tables:
        written = parquet.read_table(f"{name}.parquet")
        is_of_rows = name not in ("e", "o", "f", "u")
        assert len(written) == N_ROWS or not is_of_rows
        if name in ("s", "w"):  # columns that are kept are as they were
            assert written.select(given.column_names[:-1]) == given.select(given.column_names[:-1])


def objects(path):
    """The rows of a file as Python's objects."""
    return parquet.read_table(path).to_pandas(types_mapper=pd.ArrowDtype).astype(object)


def test_filled_and_repaired_cells_have_the_types_of_the_table(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    run("impute m t.parquet --out i.parquet")
    run("check t.parquet --out e.parquet --repair c.parquet")
    given, types = objects("t.parquet").drop(columns="none"), parquet.read_schema("t.parquet").types
    for path in ("i.parquet", "c.parquet"):
        pairs = zip(types, parquet.read_schema(path).types, strict=True)
        assert all(new in (old, pa.int64()) for old, new in pairs if old != pa.null())
    filled, repaired = objects("i.parquet")[given.columns], objects("c.parquet")
    assert filled.notna().all(axis=None)
    assert (filled == given).where(given.notna(), True).all(axis=None)
    errors = pd.read_parquet("e.parquet")
    changed = set()
    for line in errors.itertuples():
        before, after = (table.loc[line.row, line.column] for table in (given, repaired))
        if after is not before and str(after) != str(before):
            assert str(after) == line.expected
            changed.add(line.column)
    assert changed >= {"town", "code", "day", "time", "span", "money", "truth", "kind"}
