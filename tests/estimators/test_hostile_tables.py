"""Tables that nobody would send on purpose, through every method: an answer, or an error that names the column.

    python -m pytest -n0 --slow tests/estimators/test_hostile_tables.py
    HOSTILE_TABLES=1000 python -m pytest -n0 --slow tests/estimators/test_hostile_tables.py

A table is one good column and odd ones: nested Arrow, decimals that are no numbers, integers of any size, objects of
several kinds, categories that are no text, times out of range; and odd names, few rows, or an odd form. It is fitted
by a density and a detector, of which all is asked, or given to those of the same columns fitted to good cells.
"""

# ruff: noqa: ARG005 - not every method takes a table

import datetime
import os
import random
import re
import warnings
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch, plots, report
from discrete_itd.encoders import number

pa = pytest.importorskip("pyarrow")
plt = pytest.importorskip("matplotlib.pyplot")
pytestmark = pytest.mark.single_precision
N_SLOW = int(os.environ.get("HOSTILE_TABLES", "20"))


def objects(*values):
    """A column that repeats some objects."""
    return lambda n: pd.Series([values[i % len(values)] for i in range(n)], dtype=object)


def arrow(kind, *values):
    def make(n):
        cells = [values[i % len(values)] for i in range(n)]
        return pd.Series(cells, dtype=pd.ArrowDtype(kind))

    return make


def typed(dtype, *values):
    return lambda n: pd.Series([values[i % len(values)] for i in range(n)], dtype=dtype)


def categories(levels, ordered=False):
    def make(n):
        codes = [i % (len(levels) + 1) - 1 for i in range(n)]
        return pd.Series(pd.Categorical.from_codes(codes, levels, ordered=ordered))

    return make


DAY, DELTA = datetime.date(2024, 1, 1), datetime.timedelta(1)
ODD = {
    "list<int>": arrow(pa.list_(pa.int64()), [1], [2, 3], None),
    "struct": arrow(pa.struct([("x", pa.int64())]), {"x": 1}, {"x": 2}),
    "map": arrow(pa.map_(pa.string(), pa.int64()), [("a", 1)], [("b", 2)]),
    "null arrow": arrow(pa.null(), None),
    "binary": arrow(pa.binary(), b"a", b"b"),
    "decimal arrow": arrow(pa.decimal128(20, 3), Decimal("1.5"), Decimal("2.25"), None),
    "date arrow": arrow(pa.date32(), DAY, DAY + DELTA, None),
    "time arrow": arrow(pa.time64("us"), datetime.time(1), datetime.time(2)),
    "duration arrow": arrow(pa.duration("us"), DELTA, 2 * DELTA, None),
    "stamp arrow": arrow(pa.timestamp("s"), datetime.datetime(2024, 1, 1), None),
    "dictionary arrow": arrow(pa.dictionary(pa.int32(), pa.string()), "a", "b"),
    "half arrow": arrow(pa.float16(), np.float16(1.5), np.float16(2.5)),
    "bool arrow": arrow(pa.bool_(), True, None, False),
    "NaN decimals": objects(Decimal("NaN"), Decimal("1.5"), Decimal(2)),
    "infinite decimals": objects(Decimal("Infinity"), Decimal(1)),
    "long decimals": objects(Decimal("1e400"), Decimal(1)),
    "fractions": objects(Fraction(1, 3), Fraction(2, 3)),
    "huge integers": objects(10**400, 1, 2),
    "wide integers": objects(10**30, 10**30 + 1, -(10**30)),
    "integers and text": objects(1, "1", 1.0, "x"),
    "None and NaN": objects(None, np.nan, pd.NA, pd.NaT),
    "text and None": objects("a", None, "b", np.nan, pd.NA),
    "bytes": objects(b"a", b"b"),
    "bytes and text": objects(b"a", "b"),
    "lists": objects([1], [2]),
    "dicts": objects({"a": 1}, {"b": 2}),
    "tuples": objects((1,), (2, 3)),
    "sets": objects({1}, {2}),
    "frozen sets": objects(frozenset({1}), frozenset({2})),
    "functions": objects(len, max),
    "types": objects(int, str),
    "arrays": objects(np.array([1]), np.array([2])),
    "frames": objects(pd.DataFrame({"a": [1]})),
    "complex": typed(complex, 1j, 2),
    "complex objects": objects(1j, 2.0),
    "truths and numbers": objects(True, 2, False),
    "truths and text": objects(True, "True"),
    "dates": objects(DAY, DAY + DELTA, None),
    "dates and stamps": objects(DAY, datetime.datetime(2024, 1, 1, 5)),
    "dates and text": objects(DAY, "2024-01-01"),
    "late dates": objects(datetime.date(9999, 12, 31), datetime.date(1, 1, 1)),
    "late stamps": typed("datetime64[s]", "0001-01-01", "9999-12-31", "2024-01-01"),
    "latest stamps": typed("datetime64[s]", np.datetime64(2**62, "s"), np.datetime64(0, "s")),
    "zones": objects(pd.Timestamp("2024", tz="UTC"), pd.Timestamp("2024", tz="Asia/Tokyo")),
    "zones and none": objects(pd.Timestamp("2024", tz="UTC"), pd.Timestamp("2024")),
    "times of day": objects(datetime.time(1), datetime.time(2)),
    "durations": typed("timedelta64[s]", 1, 2, 10**11),
    "durations and numbers": objects(DELTA, 1),
    "periods": lambda n: pd.Series(pd.period_range("2020", periods=n, freq="D")),
    "intervals": lambda n: pd.Series(pd.interval_range(0, n, n)),
    "infinite": typed(float, 1.0, np.inf, 2.5),
    "minus infinity": typed("Float64", 1.0, -np.inf, None),
    "largest floats": typed(float, 1.7e308, -1.7e308, 0.0),
    "smallest floats": typed(float, 5e-324, -5e-324, 0.0),
    "minus zero": typed(float, -0.0, 0.0, 1.5),
    "all missing": typed(float, np.nan),
    "all None": objects(None),
    "all NA": typed("Int64", pd.NA),
    "all NaT": typed("datetime64[ns]", pd.NaT),
    "largest integers": typed("uint64", 2**64 - 1, 0, 2**63),
    "smallest integers": typed("int64", -(2**63), 2**63 - 1, 0),
    "long text": objects("x" * 10**5, "y"),
    "control text": objects("\0", "\x1b[31m", "\u202e", "\ud800", ""),
    "markup": objects("<script>alert(1)</script>", "$\\frac$", "| a | `b`", "{{ 7*7 }}"),
    "formulas": objects("=1+1", "@x", "-2"),
    "categories of tuples": categories([(1, 2), (3,)]),
    "categories of types": categories([1, "1", 2.5, None.__class__]),
    "categories of floats": categories([0.5, np.inf, 1.5]),
    "categories of decimals": categories([Decimal(1), Decimal("2.5")], ordered=True),
    "categories of dates": categories([DAY, DAY + DELTA], ordered=True),
    "categories of intervals": lambda n: pd.Series(pd.cut(np.arange(n), 3)),
    "no categories": categories([]),
    "sparse": typed(pd.SparseDtype(float, 0.0), 0.0, 1.0, 2.0),
    "void": lambda n: pd.Series(list(np.zeros(n, dtype=[("a", int)]))),
    "string NA": typed("string", "a", pd.NA, "b"),
    "bool gaps": typed("boolean", True, pd.NA, False),
}
NAMES = ["x", "", " ", "a" * 300, "\0", "a\nb", "<b>", "$x$", "a|`b`", "é", "\ud800", "{}", "%s"]
OTHER_NAMES = [[1, 2.5, None], [0, 1, "x"], [("a", 1), ("a", 2), ("b", 1)], [True, 1, 2], ["a"] * 3]
OTHER_NAMES += [[pd.NaT, "a", "b"], [DAY, DAY + DELTA, DAY + 2 * DELTA], [b"a", b"b", b"c"]]
ROWS = [0, 1, 2, 5, 40]


def table(seed):
    """An odd table, what is odd about it, and the same columns with good cells."""
    rng = random.Random(seed)
    n = rng.choice(ROWS) if seed % 4 == 0 else 40
    kinds = [list(ODD)[seed % len(ODD)], *rng.sample(list(ODD), rng.randrange(2))]
    names = ["good", *rng.sample(NAMES, len(kinds))] if seed % 3 else ["good", *kinds]
    good = pd.Series(["p", "q", "p", "r"] * 10)[:n]
    frame = pd.concat([good, *(ODD[kind](n) for kind in kinds)], axis=1)
    # nothing of pandas: a column of dicts would become a frame
    frame.columns = pd.Index(names, dtype=object)
    if seed % 7 == 0:
        cells = [frame.iloc[:, 0], frame.iloc[:, 1], frame.iloc[:, 1]]
        frame = pd.concat(cells, axis=1)
        names = rng.choice(OTHER_NAMES)
        frame.columns = rng.choice(
            [list, pd.Index, lambda x: pd.Index(x, dtype=object, tupleize_cols=False)]
        )(names)
    fine = pd.DataFrame({i: list("uvwu") * 10 for i in range(frame.shape[1])})
    fine.columns = frame.columns
    return frame, f"{seed}: {n} rows of {kinds} as {names!r:.99}", fine


DENSITY = {
    "score_samples": lambda m, X, _: m.score_samples(X),
    "log_prob": lambda m, X, _: m.log_prob(X).log_prob,
    "score": lambda m, X, _: np.array([m.score(X) if len(X) else 0.0]),
    "given": lambda m, X, _: m.log_prob(X, given=list(X)[:1]).log_prob,
    "explain": lambda m, X, _: m.explain(X).fillna(0.0).to_numpy(),  # NaN: missing
    "impute": lambda m, X, _: m.impute(X) is None,
    "impute draws": lambda m, X, _: m.impute(X, method="sample", random_state=0) is None,
    "sample": lambda m, X, _: m.score_samples(m.sample(3, random_state=0)),
    "sample given": lambda m, X, _: m.sample(2, random_state=0, given=X.iloc[:2, :1]) is None,
    "sample gaps": lambda m, X, _: m.sample(3, random_state=0) is None,
    "predict_proba": lambda m, X, _: m.predict_proba(X, X.columns[-1]).to_numpy(),
    "mse_curve": lambda m, X, _: m.mse_curve(X, n_points=5) is None,
    "partial_fit": lambda m, X, _: type(m)(**m.get_params()).partial_fit(X) is None,
    "card": lambda m, X, folder: (m.model_card(), m.save(folder / "m")) is None,
    "load": lambda m, X, folder: (m.save(folder / "m"), type(m).load(folder / "m"))[1].score_samples(X),
    "report": lambda m, X, folder: report(m, X, out=folder / "r.html") is None,
    "plot_columns": lambda m, X, _: plots.plot_columns(m, X) is None,
    "plot_scores": lambda m, X, _: plots.plot_scores(m, X) is None,
    "plot_mse_curve": lambda m, X, _: plots.plot_mse_curve(m, X) is None,
}  # fmt: skip
OF_BOTH = (
    "score_samples",
    "explain",
    "card",
    "load",
    "report",
    "plot_columns",
    "plot_scores",
)
DETECTOR = {name: DENSITY[name] for name in OF_BOTH} | {
    "p_values": lambda m, X, _: m.p_values(X),
    "predict": lambda m, X, _: m.predict(X),
    "decision": lambda m, X, _: m.decision_function(X),
    "discoveries": lambda m, X, _: m.discoveries(X),
    "reasons": lambda m, X, _: m.reasons(X, k=2) is None,
    "expected": lambda m, X, _: m.expected(X) is None,
    "drift": lambda m, X, _: m.drift(X) is None,
    "watch": lambda m, X, _: DriftWatch(m, random_state=0).update(X) is None,
    "plot_p_values": lambda m, X, _: plots.plot_p_values(m, X) is None,
}  # fmt: skip
ALLOWED = (
    ValueError,
    TypeError,
    NotFittedError,
)  # of scikit-learn is both ValueError and AttributeError
OF_TABLES = r"\brows?\b|\bsample\(s\)|\bFeature names|every column|column names|from the left"


def asked(what, names, call):
    """What a call ends in: an array without NaN, or an error that names the column, or says that rows are too few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            out = call()
        except ALLOWED as error:
            is_told = any(repr(name) in str(error) for name in names)
            assert is_told or re.search(OF_TABLES, str(error)), f"{what}: {error!r}"  # noqa: PT017
            return False
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        finally:
            plt.close("all")
    if isinstance(out, np.ndarray):
        assert not pd.isna(out).any(), f"{what}: {out}"
    return True


def all_is_answered(seed, folder, n_methods=None):
    frame, what, fine = table(seed)
    for fitted_to in (frame, fine)[:n_methods]:
        density = DiffusionDensity(denoiser="tree", random_state=0)
        detector = DiffusionOutlierDetector(density, random_state=0)
        for model, methods in ((density, DENSITY), (detector, DETECTOR)):
            name = f"{what}: {type(model).__name__}"
            if asked(f"{name}.fit", list(frame), partial(model.fit, fitted_to)):
                for method in list(methods)[:n_methods]:
                    call = partial(methods[method], model, frame, folder)
                    asked(f"{name}.{method}", list(frame), call)


@pytest.mark.parametrize("seed", [0, 3, 13, 26])
def test_a_few_hostile_tables(seed, tmp_path):
    """Arrow's lists, structs and nothings, decimals that are no numbers, names that are no text."""
    all_is_answered(seed, tmp_path, n_methods=5)


@pytest.mark.parametrize("names", [[1, 2.5, None], [pd.NaT, 1, 2]])
def test_columns_without_a_name(names):
    frame = pd.DataFrame({0: ["p", "q"] * 9, 1: range(18), 2: list("ab") * 9}).set_axis(
        names, axis=1
    )
    for model in (DiffusionDensity(), DiffusionOutlierDetector()):
        with pytest.raises((ValueError, TypeError), match=r"^column .*name|column names"):
            model.fit(frame)


def test_no_rows_and_no_floats_are_drawn_and_written():
    frame = pd.DataFrame({"a": ["p", "q"] * 9, "b": ["u", "v", "v"] * 6})
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    for plot in (plots.plot_columns, plots.plot_scores):
        with pytest.raises(ValueError, match="no rows to plot"):
            plot(model, frame[:0])
    assert number(-(10**400)) == "-1e+400"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_hostile_tables(tmp_path):
    failed = []
    for seed in range(N_SLOW):
        try:
            all_is_answered(seed, tmp_path)
        except AssertionError as error:
            failed.append(f"{error}")
    assert not failed, "\n".join(failed)
