"""Values as plain data: what can be stored comes back, what no annotation or list of classes admits is refused."""

import copy
import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule
from discrete_itd.recipes import Causal, RowMixture
from discrete_itd.storage.values import AnyFloat, Like, flatten, unflatten

LEVELS = st.sets(st.floats(1e-6, 1e6), min_size=1, max_size=4).map(lambda s: tuple(sorted(s)))


@dataclass(frozen=True)
class Leaf:
    size: int = 1


@dataclass(frozen=True)
class Node:
    name: str
    parts: tuple


@dataclass(frozen=True, eq=False)
class Table:
    cells: Annotated[np.ndarray, Like("float64", "n", "m", gaps=True)]
    kinds: Annotated[np.ndarray, Like("int64", "m")]
    seen: Annotated[np.ndarray, Like("bool", "n")] | None
    weights: torch.Tensor
    pair: tuple[float, AnyFloat]
    how: Literal["quick", "slow"]
    levels: Sequence[int | str]
    leaf: Leaf | Node | None
    took: float = 0.0
    anything: Any = None


def filled():
    return Table(
        cells=np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]]),
        kinds=np.arange(2),
        seen=np.array([True, False, True]),
        weights=torch.ones(2, 2),
        pair=(1, math.inf),
        how="quick",
        levels=[1, "a"],
        leaf=Leaf(3),
        took=2.5,
        anything={"x": [1, (2, 3)], 4: np.arange(3)},
    )


def through_json(value, kind=Any, classes=()):
    data, tensors = flatten(value)
    return unflatten(kind, (json.loads(json.dumps(data)), tensors), classes=classes)


@given(
    st.builds(IsotropicSchedule, LEVELS)
    | st.builds(
        CoordinateSchedule, st.integers(1, 9), st.none() | st.permutations(range(3)).map(tuple)
    )
    | st.just(CoordinateSchedule(2, (1, 0)))
)
def test_schedules_survive_json(schedule):
    assert through_json(schedule) == schedule


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.integers() | st.text(), inner)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_values_come_back_with_their_types(value):
    assert repr(through_json(value)) == repr(value)


def test_nested_objects_and_numpy_numbers_survive_json():
    node = Node("n", (Leaf(np.int64(3)), Node("m", ()), None))
    assert through_json(node, classes=[Leaf, Node]) == Node("n", (Leaf(3), Node("m", ()), None))


def test_an_object_with_arrays_survives_json():
    table, again = filled(), through_json(filled(), Table)
    for name in ("cells", "kinds", "seen"):
        a, b = getattr(table, name), getattr(again, name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert torch.equal(again.weights, table.weights)
    assert (again.pair, again.how, again.levels) == ((1.0, math.inf), "quick", [1, "a"])
    assert (again.leaf, again.took) == (Leaf(3), 2.5)
    np.testing.assert_array_equal(again.anything.pop(4), np.arange(3))
    assert again.anything == {"x": [1, (2, 3)]}


WRONG = {
    "cells": [1, None, {"class": "tensor"}],
    "seen": [1, []],
    "pair": [[1.0], [math.nan, 1.0], [1.0, 2.0, 3.0], [1.0, True], ["1", 1.0], 1.0, None, [10**400, 1]],
    "how": ["other", 1, None],
    "levels": [1, [1.5], [True], [None], {"class": "mapping", "items": []}],
    "leaf": [1, {}, {"class": "Leaf"}, {"class": "Leaf", "size": "1"}, {"class": "Leaf", "size": 1, "x": 1},
             {"class": "Table"}, {"class": "Other"}, {"class": ["Leaf"]}, {"class": "CoordinateSchedule", "n_steps": 1,
             "order": None}],
    "took": [None, "1", math.nan],
    "other": [1],
}  # fmt: skip


def test_what_an_annotation_does_not_admit_is_refused_by_name():
    for name, value in [(name, value) for name, values in WRONG.items() for value in values]:
        data, tensors = flatten(filled())
        with pytest.raises(ValueError, match=f"^{name}"):
            unflatten(Table, ({**data, name: value}, tensors))
        del data[name if name in data else "how"]
        with pytest.raises(ValueError, match="is missing"):
            unflatten(Table, (data, tensors))


def test_an_array_unlike_its_annotation_is_refused_by_name():
    for name, array in [
        ("cells", torch.zeros(3, 3, dtype=torch.float64)),
        ("cells", torch.zeros(3, dtype=torch.float64)),
        ("cells", torch.zeros(3, 2, dtype=torch.float32)),
        ("cells", torch.full((3, 2), math.inf, dtype=torch.float64)),
        ("kinds", torch.zeros(2, dtype=torch.float32)),
        ("seen", torch.zeros(4, dtype=torch.uint8)),
        ("seen", None),
    ]:
        data, tensors = flatten(filled())
        tensors = {k: v for k, v in tensors.items() if k != name} | (
            {} if array is None else {name: array}
        )
        with pytest.raises(ValueError, match=f"{name}|kinds"):
            unflatten(Table, (data, tensors))


def test_a_tensor_that_no_field_names_is_refused():
    data, tensors = flatten(filled())
    with pytest.raises(ValueError, match="extra is an unknown tensor"):
        unflatten(Table, (data, {**tensors, "extra": torch.zeros(1)}))


def test_only_listed_classes_are_made():
    with pytest.raises(ValueError, match=r"needs the class 'Leaf', .* trusted="):
        through_json(Leaf())
    with pytest.raises(ValueError, match=r"needs the class 'os\.system'"):
        unflatten(Any, ({"class": "os.system", "command": "true"}, {}))
    with pytest.raises(TypeError, match="must hold classes"):
        unflatten(Any, flatten(Leaf()), classes=[Leaf()])


class Hidden:
    def __init__(self, size):
        self._size = size


def test_a_number_that_would_not_be_read_is_not_written():
    with pytest.raises(ValueError, match=r"members\.0\.width is 4\.0, of the wrong type"):
        flatten(RowMixture((Causal(width=4.0),)))


@dataclass(frozen=True)
class Elsewhere:
    size: "Unknown" = None  # noqa: F821 - a name that is imported for type checkers only


def test_annotations_of_others_need_not_be_true():
    assert through_json((Leaf("text"), Elsewhere(3)), classes=[Leaf, Elsewhere]) == (
        Leaf("text"),
        Elsewhere(3),
    )


def test_arrays_whose_names_would_be_one_are_refused():
    with pytest.raises(TypeError, match=r"two arrays cannot be saved by the name a\.b"):
        flatten({"a": {"b": np.ones(1)}, "a.b": np.ones(1)})


@pytest.mark.parametrize("value", [object(), Leaf, print, {1, 2}, Hidden(1)])
def test_what_cannot_be_stored_is_refused_by_name(value):
    with pytest.raises(TypeError, match=f"of type {type(value).__name__} cannot be saved"):
        flatten([value])


def test_arguments_that_a_class_does_not_take_are_a_value_error():
    for data in [
        {"class": "Leaf", "colour": 1},
        {"class": "Node", "name": "n"},
        {"class": "CoordinateSchedule"},
        {"class": "CoordinateSchedule", "n_steps": "two", "order": None},
        {"class": "IsotropicSchedule", "levels": 5},
        {"class": "IsotropicSchedule", "levels": ["a", None]},
        {"class": "items"},
        {"class": "items", "items": [[{"class": "list", "items": []}, 1]]},
        {"class": ["Leaf"]},
    ]:
        with pytest.raises(ValueError):  # noqa: PT011
            unflatten(Any, (copy.deepcopy(data), {}), classes=[Leaf, Node])


def test_copies_of_a_fitted_estimator_ask_for_the_same_metadata():
    with config_context(enable_metadata_routing=True):
        model = DiffusionDensity(denoiser="independent", random_state=0)
        model.set_fit_request(groups=True).fit(pd.DataFrame({"a": ["x", "y"] * 20}))
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert again.get_metadata_routing().fit.requests["groups"] is True
