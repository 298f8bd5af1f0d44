"""Tables, terminals and calls of the command line that tests of several folders share."""

import io
import itertools
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import discrete_itd
from discrete_itd.cli import main


def levels(n, seed=0):
    """A column of every kind, all of which follow one level of three."""
    random = np.random.default_rng(seed)
    level = random.integers(0, 3, n)
    return pd.DataFrame(
        {
            "word": np.array(["red", "green", "blue"])[level],
            "kind": pd.Categorical.from_codes(level // 2, ["u", "v"]),
            "whole": level + random.integers(0, 2, n),
            "size": random.normal(level, 0.3),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(9 * level + random.random(n), "D"),
            "truth": level == 1,
        }
    )


def mixed_table(n=300, seed=0):
    """Text, a number that follows it, a level and a truth value; a tenth of all cells missing."""
    rng = np.random.default_rng(seed)
    k = rng.integers(3, size=n)
    frame = pd.DataFrame(
        {
            "word": np.array(["low", "mid", "top"])[k],
            "size": rng.normal(2.0 * k, 0.5),
            "level": pd.array(rng.integers(0, 3, n), dtype="Int64"),
            "flag": pd.array(rng.random(n) < 0.2 + 0.3 * k, dtype="boolean"),
        },
        index=[f"row {i}" for i in range(n)],
    )
    return frame.mask(rng.random(frame.shape) < 0.1)


def tiny():
    """Rows of every value of three columns of categories."""
    values = itertools.product(["x", "y", "z"], [0, 1], [False, True])
    return pd.DataFrame(list(values), columns=["a", "b", "c"])


def gappy(n, seed=0):
    """Rows of tiny(), dependent, with gaps in b and c, where a says so more or less."""
    rng = np.random.default_rng(seed)
    rows = tiny().sample(n, replace=True, weights=rng.random(12) ** 2, random_state=seed)
    gap = rng.random((n, 2)) < np.where(rows["a"] == "x", 0.4, 0.1)[:, None]
    rows = rows.reset_index(drop=True).astype({"c": "boolean"})
    return rows.assign(b=rows["b"].mask(gap[:, 0]), c=rows["c"].mask(gap[:, 1]))


@contextmanager
def float64():
    """Sums that are exact in theory are then exact to rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Terminal(io.StringIO):
    """An output that people see."""

    def isatty(self):
        return True


def run(line, capsys=None, code=0):
    """The command ends with this code; what it wrote since the last look, where ``capsys`` is given."""
    assert main(line.split()) == code
    return capsys and capsys.readouterr()


def of_guide(page, word):
    """The code on a page of the guide with a word in it."""
    text = (Path(discrete_itd.__file__).parent / "guide" / f"{page}.md").read_text()
    (code,) = [c for c in re.findall(r"^```py(?:thon)?\n(.*?)^```", text, re.M | re.S) if word in c]
    return code


def recipe(page, name):
    """A function that a page of the guide defines."""
    told = {"__name__": "__main__"}
    exec(of_guide(page, f"def {name}"), told)
    return told[name]


def snapshot(folder):
    """The files in a folder, and what is in them."""
    return {path.name: path.is_file() and path.read_bytes() for path in folder.iterdir()}


def refused(line, words, folder, capsys):
    """The command is refused on one line with some words, and changes no file of the folder."""
    before = snapshot(folder)
    out, err = run(line, capsys, 2)
    assert (out, err[:21], err.count("\n")) == ("", "discrete-itd: error: ", 1)
    assert words in err
    assert snapshot(folder) == before
