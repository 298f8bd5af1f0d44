"""The tables of the benchmarks: binary ones with fixed splits, and ones with anomalies.

They are not part of the repository. The environment variable ``DISCRETE_ITD_SHARED`` names the
folder that holds ``data/density/<name>.npz``, ``data/anomaly/<name>.csv.xz`` (categories),
``data/anomaly_numeric/<name>.npz``, ``data/anomaly_odd/<name>.npz``, ``messy/make.py``, ``messy/orders.py`` and
``messy/fleet.py``; without it, the folder ``shared`` beside the repository is tried. ``DISCRETE_ITD_BINARY`` names a
folder with github.com/UCLA-StarAI/Density-Estimation-Datasets, whose other binary tables are read from its text.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import loadmat
from sklearn.model_selection import train_test_split

from discrete_itd.datasets import load_mushroom

FEW_ROWS = 1000  # below which the script of DTE draws a table anew
MAX_ROWS = 12_000  # of a numeric table with anomalies
# of OFA-TAD's tables, those that it learns from, and two that it leaves out
NO_TARGETS = ["vertebral", "annthyroid", "comm.and.crime", "Cardiotocography", "wine", "imgseg"]
NO_TARGETS += ["satellite", "http", "landsat"]


class Density(NamedTuple):
    """One benchmark table: three splits of 0/1 codes, each uint8 of shape (N, C)."""

    train: NDArray[np.uint8]
    valid: NDArray[np.uint8]
    test: NDArray[np.uint8]


def shared_folder(folder: str) -> Path:
    """Return where the files of one kind are expected; the folder may be absent."""
    return _shared() / "data" / folder


def _shared() -> Path:
    return Path(os.environ.get("DISCRETE_ITD_SHARED", Path(__file__).parents[3] / "shared"))


def density_path(name: str) -> Path:
    """Return where the table `name` is expected; it may be absent."""
    return shared_folder("density") / f"{name}.npz"


def has_density(name: str) -> bool:
    """Return whether the table `name` is there, to skip a test that needs it."""
    return density_path(name).is_file() or _text_of(name, "train").is_file()


def _text_of(name: str, split: str) -> Path:
    """Where a split lies as text in Density-Estimation-Datasets, if that is unpacked."""
    folder = Path(os.environ.get("DISCRETE_ITD_BINARY", "nowhere"))
    return folder / "datasets" / name / f"{name}.{split}.data"


def load_density(name: str) -> Density:
    """Load a benchmark table.

    Parameters
    ----------
    name : str
        For example "nltcs", "plants", "accidents", "baudio", "bnetflix", "jester", "mushrooms".

    Returns
    -------
    table : Density
        The splits `train`, `valid` and `test`.

    Raises
    ------
    FileNotFoundError
        If the file is absent; the message says where it was looked for.
    """
    path = density_path(name)
    if _text_of(name, "train").is_file():
        texts = [_text_of(name, split) for split in ("train", "valid", "test")]
        return Density(*(np.loadtxt(t, dtype=np.uint8, delimiter=",", ndmin=2) for t in texts))
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: set DISCRETE_ITD_SHARED to the folder above data/")
    with np.load(path) as archive:
        n_columns = int(archive["n_columns"])
        train, valid, test = (
            np.unpackbits(archive[split], axis=1)[:, :n_columns]
            for split in ("train", "valid", "test")
        )
    return Density(train, valid, test)


def numeric_names(folder: Path | None = None) -> list[str]:
    """Return the numeric tables with anomalies that are there, smallest file first; of OFA-TAD's, its targets."""
    there = folder or shared_folder("anomaly_numeric")
    files = [*there.glob("*.npz"), *there.glob("*.mat")]
    ordered = [file.stem for file in sorted(files, key=lambda file: file.stat().st_size)]
    return [name for name in ordered if not (folder and name in NO_TARGETS)]


def load_numeric(
    name: str, folder: Path | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Load a numeric table with anomalies: X, shape (N, C), and which rows are anomalies, shape (N,)."""
    folder = folder or shared_folder("anomaly_numeric")
    matrix = folder / f"{name}.mat"
    archive = loadmat(matrix) if matrix.is_file() else np.load(folder / f"{name}.npz")
    return archive["X"].astype(np.float64), archive["y"].ravel() == 1


class Anomalies(NamedTuple):
    """Normal rows to train on; rows to test on, and which of those are anomalies."""

    train: Any  # frame, shape (N, C), or array of numbers
    test: Any
    is_odd: NDArray[np.bool_]


def halves(X: NDArray[np.float64], odd: NDArray[np.bool_], seed: int) -> Anomalies:
    """Train on a random half of the normal rows, test on the other and all anomalies, of at most ``MAX_ROWS`` rows."""
    return _halved(X, odd, np.random.default_rng(seed).permutation(len(X))[:MAX_ROWS])


def first_half(
    X: NDArray[np.float64], odd: NDArray[np.bool_], seed: int, *, few_anew: bool = True
) -> Anomalies:
    """Train on the first half of the normal rows in file order, test on the other and all anomalies.

    Of a table of more than ``MAX_ROWS`` rows, so many random ones are taken, in file order. One of less than
    ``FEW_ROWS`` is first drawn anew, with replacement, to so many (DTE's protocol; copies of a row may lie in both
    parts), unless ``few_anew`` is False (OFA-TAD's).
    """
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(X))[:MAX_ROWS])
    if few_anew and len(X) < FEW_ROWS:
        rows = random.integers(len(X), size=FEW_ROWS)
    return _halved(X, odd, rows)


def _halved(X: NDArray[np.float64], odd: NDArray[np.bool_], rows: NDArray[np.intp]) -> Anomalies:
    """Train on the first half of the normal ones of ``rows``, test on the other and all anomalies among them."""
    normal, anomalies = rows[~odd[rows]], rows[odd[rows]]
    half = len(normal) // 2
    test = np.concatenate([normal[half:], anomalies])
    return Anomalies(X[normal[:half]], X[test], odd[test])


def categorical_names() -> list[str]:
    """Return the categorical tables with anomalies that are there, smallest file first."""
    files = shared_folder("anomaly").glob("*.csv.xz")
    ordered = sorted(files, key=lambda file: file.stat().st_size)
    return [file.name.removesuffix(".csv.xz") for file in ordered]


def load_categorical(name: str) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Load a categorical table with anomalies: a frame of strings, (N, C), and which rows are anomalies, (N,).

    "mushroom" comes with this package: the poisonous among the edible.
    """
    if name == "mushroom":
        X = load_mushroom()
        y = X.pop("class")
        return X.astype(str), (y == "poisonous").to_numpy()
    frame = pd.read_csv(
        shared_folder("anomaly") / f"{name}.csv.xz", dtype=str, keep_default_na=False
    )
    odd = frame.pop("anomaly") == "1"
    return frame, odd.to_numpy()


def thirds(frame: pd.DataFrame, odd: NDArray[np.bool_], seed: int) -> Anomalies:
    """Test on 30 % of the rows, stratified, and train on the normal ones of the others (MaskDiff-AD's protocol)."""
    rows = np.arange(len(frame))
    train, test = train_test_split(rows, test_size=0.3, random_state=seed, stratify=odd)
    train = train[~odd[train]]
    parts = (frame.iloc[part].reset_index(drop=True) for part in (train, test))
    return Anomalies(*parts, odd[test])


def names_of(folder: Path) -> list[str]:
    """Return the names of the tables in a folder of archives, in their order."""
    return sorted(file.stem for file in folder.glob("*.npz"))


def odd_names(folder: Path | None = None) -> list[str]:
    """Return the tables of OddBench that are there, by name; of another folder, those that may be read."""
    names = names_of(folder or shared_folder("anomaly_odd"))
    listed = shared_folder("odd_open.txt")
    if folder is None or not listed.is_file():
        return names
    open_to_all = {Path(line).stem for line in listed.read_text().split()}
    return [name for name in names if name in open_to_all]


def load_odd(name: str, folder: Path | None = None) -> Anomalies:
    """Load a table of OddBench, divided as published; a column of whole numbers has an integer dtype, as in a CSV."""
    with np.load((folder or shared_folder("anomaly_odd")) / f"{name}.npz") as archive:
        names = [str(n) for n in archive["feature_names"]]
        parts = [archive[part].astype(np.float64) for part in ("train", "test")]
        is_odd = archive["test_labels"] == 1
    frames = [pd.DataFrame(part, columns=pd.Index(names)) for part in parts]
    for column in names:
        if all((frame[column] == frame[column].round()).all() for frame in frames):
            frames = [frame.astype({column: np.int64}) for frame in frames]
    return Anomalies(*frames, is_odd)


def load_loans() -> Anomalies | None:
    """Load the table of loan applications, cleaned; None, with a line saying so, if its script is not there.

    27 843 and 3 094 rows of 22 columns: categories, numbers, dates and gaps. Postcodes determine branches; an
    instalment follows from amount, rate and months. About one row in a hundred of either part is an anomaly, as which
    only those of the second are told.
    """
    from tests.benchmarks.messy import cleaned, labels

    folder = loans(7, 30_000)
    if folder is None:
        return None
    history, tomorrow = (cleaned(folder / f"{part}.csv") for part in ("history", "tomorrow"))
    return Anomalies(history, tomorrow, labels(folder) != "")


def loans(seed: int, n_rows: int = 48_500) -> Path | None:
    """Write the files of loan applications to ``.cache``; None, with a line, if ``messy/make.py`` is not there."""
    return _written("loans", "make.py", seed, n_rows)


def orders(seed: int, n_rows: int = 20_000, split: str = "random") -> Path | None:
    """Write the files of a shop's orders to ``.cache``; None, with a line, if ``messy/orders.py`` is not there."""
    return _written(
        "orders" if split == "random" else f"orders-{split}",
        "orders.py",
        seed,
        n_rows,
        "--split",
        split,
    )


def fleet(seed: int) -> Path | None:
    """Write a fleet's ``fleet_train.csv``, ``fleet_new.csv`` and ``fleet_labels.csv``, as :func:`orders` does."""
    return _written("fleet", "fleet.py", seed, None)


def _written(name: str, script: str, seed: int, n_rows: int | None, *options: str) -> Path | None:
    """The folder of the files that a script writes for a seed, of so many rows if it takes their number."""
    path = _shared() / "messy" / script
    folder = (
        Path(__file__).parent / ".cache" / "-".join(map(str, filter(None, (name, seed, n_rows))))
    )
    if not path.is_file():
        print(f"skipped {name}: no {path}")
        return None
    if not [*folder.glob("*_labels.csv")]:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(path), str(folder), "--seed", str(seed), *options]
        command += [] if n_rows is None else ["--rows", str(n_rows)]
        subprocess.run(
            command, cwd=Path(__file__).parents[2], check=True, stdout=subprocess.DEVNULL
        )
    return folder
