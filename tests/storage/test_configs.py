"""Objects as plain data: whatever describes itself comes back, and nothing that is not listed is made."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discrete_itd.channel import CoordinateSchedule, IsotropicSchedule
from discrete_itd.storage.configs import classes_of, from_config, to_config

SCHEDULES = (CoordinateSchedule, IsotropicSchedule)
LEVELS = st.sets(st.floats(1e-6, 1e6), min_size=1, max_size=4).map(lambda s: tuple(sorted(s)))


@dataclass(frozen=True)
class Leaf:
    size: int = 1

    def config(self):
        return dict(vars(self))


@dataclass(frozen=True)
class Node:
    name: str
    parts: tuple

    def config(self):
        return dict(vars(self))

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "parts": tuple(config["parts"])})


def through_json(value, classes):
    return from_config(json.loads(json.dumps(to_config(value))), classes)


@given(
    st.builds(IsotropicSchedule, LEVELS)
    | st.builds(
        CoordinateSchedule, st.integers(1, 9), st.none() | st.permutations(range(3)).map(tuple)
    )
    | st.just(CoordinateSchedule(2, ((0, 1), (1, 0))))
)
def test_schedules_survive_json(schedule):
    assert through_json(schedule, SCHEDULES) == schedule


def test_nested_objects_and_numpy_numbers_survive_json():
    node = Node("n", (Leaf(np.int64(3)), Node("m", ()), None))
    assert through_json(node, [Leaf, Node]) == Node("n", (Leaf(3), Node("m", ()), None))
    assert set(classes_of({"a": [node]})) == {Leaf, Node}


def test_names_of_columns_may_be_numbers():
    value = {np.int64(0): "nominal", "b": {"kind": "binned", "edges": np.array([0.0, 1.0])}}
    assert through_json(value, []) == {
        0: "nominal",
        "b": {"kind": "binned", "edges": [0.0, 1.0]},
    }


def test_only_listed_classes_are_made():
    with pytest.raises(ValueError, match=r"needs the class 'Leaf', .* trusted="):
        from_config(to_config(Leaf()), SCHEDULES)
    with pytest.raises(ValueError, match=r"needs the class 'os\.system'"):
        from_config({"class": "os.system", "command": "true"}, SCHEDULES)
    with pytest.raises(TypeError, match="must hold classes"):
        from_config(to_config(Leaf()), [Leaf()])


@pytest.mark.parametrize("value", [object(), Leaf, print, {1, 2}])
def test_what_does_not_describe_itself_is_refused_by_name(value):
    with pytest.raises(TypeError, match=f"of type {type(value).__name__} cannot be saved"):
        to_config([value])


@pytest.mark.parametrize(
    "data",
    [
        {"class": "Leaf", "colour": 1},
        {"class": "Node", "name": "n"},
        {"class": "CoordinateSchedule"},
        {"class": "CoordinateSchedule", "n_steps": "two"},
        {"class": "IsotropicSchedule", "levels": 5},
        {"class": "IsotropicSchedule", "levels": ["a", None]},
        {"class": "mapping"},
        {"class": "mapping", "items": [[[], 1]]},
        {"class": ["Leaf"]},
    ],
    ids=range(9),
)
def test_arguments_that_a_class_does_not_take_are_a_value_error(data):
    with pytest.raises(ValueError):  # noqa: PT011
        from_config(data, [Leaf, Node, *SCHEDULES])
