"""What the text of a CSV is taken for."""

import pandas as pd
import pytest

from discrete_itd.cli.fitting import as_written, typed_table
from discrete_itd.cli.tables import Dialect


@pytest.fixture
def read(tmp_path):
    """The one column that a CSV with these cells has, the last cell an ``x`` of another column."""

    def read(cells, kind=None):
        path = tmp_path / "t.csv"
        pd.DataFrame({"c": cells, "other": "x"}).to_csv(path, index=False)
        frame = as_written(str(path), Dialect())
        return typed_table(frame, "t.csv", {} if kind is None else {"c": kind}, Dialect())["c"]

    return read


KNOWN = {
    "whole numbers": (["1", "", "3"], "Int64", 1),
    "decimal numbers": (["1.5", "", "3"], "float64", 1),
    "truth": (["TRUE", "", "false"], "boolean", 1),
    "dates": (["2024-02-29", "", "1999-01-01"], "datetime64[us]", 1),
    "times": (["2024-02-29 12:00", "1999-01-01T00:00:00.25"], "datetime64[us]", 0),
    "zoned": (["2024-02-29T12:00Z", "2024-02-29 12:00:00+01:00"], "datetime64[us, UTC]", 0),
    "words": (["NA", "None", ""], "str", 1),
    "no such date": (["2024-02-30", "2024-02-29"], "str", 0),
    "some zones": (["2024-02-29T12:00Z", "2024-02-29T12:00"], "str", 0),
    "other dates": (["29.2.2024", "1.3.2024"], "str", 0),
    "numbers and truth": (["1", "True"], "str", 0),
}


@pytest.mark.parametrize(("cells", "dtype", "n_missing"), KNOWN.values(), ids=KNOWN)
def test_recognised(read, cells, dtype, n_missing):
    values = read(cells)
    major = int(pd.__version__.split(".")[0])
    if major >= 3:  # names of text and units of time differ before
        assert str(values.dtype) == dtype
    else:
        assert values.dtype.kind == pd.Series([], dtype=dtype.replace("str", "object")).dtype.kind
    assert values.isna().sum() == n_missing


WORDS = {
    "numbers": (["1", "NA", "n/a", "2"], [1, None, None, 2]),
    "large integers": (["9007199254740993", "null"], [9007199254740993, None]),
    "truth": (["True", "None", "FALSE"], [True, None, False]),
    "dates": (["2024-02-29", "NaT", ""], [pd.Timestamp("2024-02-29"), None, None]),
}


@pytest.mark.parametrize(("cells", "expected"), WORDS.values(), ids=WORDS)
def test_words_for_missing(read, cells, expected):
    with pytest.warns(
        UserWarning, match=r"^t.csv: column 'c': '.+' \(\d cells?\) taken as missing"
    ):
        values = read(cells)
    assert [None if pd.isna(v) else v for v in values] == expected


def test_said_to_be(read):
    dates = ["2024-02-29", "2024-01-01"]
    assert read(dates, "ordinal").tolist() == dates
    assert read(["01", "NA"], "nominal").tolist() == ["01", "NA"]
    assert read(dates, "continuous").dtype.kind == "M"
