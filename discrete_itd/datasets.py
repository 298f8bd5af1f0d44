"""Tables to try; their cards, ``datasets/<name>.md``, have description, source, licence and citation.

>>> load_car().shape
(1728, 7)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

__all__ = ["load_adult", "load_car", "load_mushroom", "path"]

# fmt: off
_ADULT_INTEGERS = ("age", "capital_gain", "capital_loss", "hours_per_week")
_ADULT_LEVELS: Mapping[str, Sequence[str]] = {
    "education": (
        "Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th",
        "HS-grad", "Some-college", "Assoc-voc", "Assoc-acdm",
        "Bachelors", "Masters", "Prof-school", "Doctorate",
    ),
    "income": ("<=50K", ">50K"),
}
# fmt: on
_CAR_LEVELS: Mapping[str, Sequence[str]] = {
    "buying": ("low", "medium", "high", "very high"),
    "maintenance": ("low", "medium", "high", "very high"),
    "doors": ("2", "3", "4", "5 or more"),
    "persons": ("2", "4", "more than 4"),
    "luggage_boot": ("small", "medium", "big"),
    "safety": ("low", "medium", "high"),
    "class": ("unacceptable", "acceptable", "good", "very good"),
}
_MUSHROOM_LEVELS: Mapping[str, Sequence[str]] = {
    "gill_spacing": ("crowded", "close"),
    "gill_size": ("narrow", "broad"),
    "ring_number": ("none", "one", "two"),
}


def load_mushroom() -> pd.DataFrame:
    """Load the mushroom table: 8124 gilled mushrooms described by categories, edible or poisonous.

    DataFrame (8124, 23): the 22 descriptions and, last, ``class``. No missing values. 18 descriptions are nominal, 3
    are ordered (``gill_spacing``, ``gill_size``, ``ring_number``) and ``bruises`` is a bool. ``stalk_root`` was not
    recorded for 2480 rows; they carry the category ``"unknown"``. ``veil_type`` is constant.

    Examples
    --------
    >>> load_mushroom()["class"].value_counts().to_dict()
    {'edible': 4208, 'poisonous': 3916}
    """
    table = _read("mushroom", _MUSHROOM_LEVELS)
    table["bruises"] = table["bruises"] == "yes"
    return table


def load_adult() -> pd.DataFrame:
    """Load the adult table: 32561 persons of the 1994 census, numbers and categories mixed.

    DataFrame (32561, 13): twelve descriptions and, last, ``income`` ("<=50K" < ">50K"). No missing values: where the
    census has no answer (``work_class``, ``occupation``, ``native_country``) the category is ``"unknown"``. ``age``,
    ``capital_gain``, ``capital_loss`` and ``hours_per_week`` are int64, ``education`` is ordered, the others are
    nominal.

    Examples
    --------
    >>> X = load_adult()
    >>> int(X["age"].min()), X["education"].max()
    (17, 'Doctorate')
    """
    return _read("adult", _ADULT_LEVELS, integers=_ADULT_INTEGERS)


def load_car() -> pd.DataFrame:
    """Load the car evaluation table: 1728 cars, six ordered attributes and a verdict.

    DataFrame (1728, 7): the attributes and, last, ``class``, all ordered categories. Every combination of the
    attributes occurs exactly once and the verdict follows from them, so the distribution of the table is known: it is
    uniform over its rows, with an entropy of log 1728 = 7.4547 nats.

    Examples
    --------
    >>> load_car()["safety"].cat.categories.tolist()
    ['low', 'medium', 'high']
    """
    return _read("car", _CAR_LEVELS)


def path(name: str) -> Path:
    """The file of a table, as it is stored: ``tea_orders`` and ``tea_orders_new`` are raw exports of a shop.

    Examples
    --------
    >>> pd.read_csv(path("tea_orders"))["unit price"].iloc[0]
    '£4.90'
    """
    folder = Path(__file__).parent / "data"
    if not folder.is_dir():  # a checkout: the wheel carries the folder `datasets` as `data`
        folder = Path(__file__).parents[1] / "datasets"
    return folder / f"{name}.csv.gz"


def _read(
    name: str, levels: Mapping[str, Sequence[str]], *, integers: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a stored table: categories, ordered where `levels` gives the order, and integers."""
    table = pd.read_csv(
        path(name),
        dtype=defaultdict(lambda: "category", dict.fromkeys(integers, "int64")),
        keep_default_na=False,  # the word "none" is a category of these tables
    )
    for column, order in levels.items():
        table[column] = table[column].cat.set_categories(list(order), ordered=True)
    return table
