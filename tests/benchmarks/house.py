"""The structure of a checkout in numbers: ``python -m tests.benchmarks.house [checkout]``.

The last lines are the files that 600 rows of the car table go through in a default detector's ``fit``, 50 in its
``score_samples`` and 5 in its ``reasons``; they are of the package that is imported.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import discrete_itd
from discrete_itd import DiffusionOutlierDetector, datasets
from tests.house import House, cycles, depths, foreign_privates, lines, with_two_meanings


def lines_of_rooms(house: House) -> dict[str, int]:
    """Lines of each folder of the package, and of the modules at its top together."""
    out: dict[str, int] = {}
    for module in house.modules.values():
        room = module.path.parent.name
        out[room] = out.get(room, 0) + module.n_lines
    return out


def files_of(call: Callable[[], object]) -> list[str]:
    """The files of the package whose functions a call runs, in order of the first."""
    root, found = os.path.dirname(discrete_itd.__file__), {}

    def seen(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            found.setdefault(os.path.relpath(frame.f_code.co_filename, root))

    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(found)


def ways() -> list[tuple[str, int, list[str]]]:
    """Files on the way of a row through a detector; what is computed once, at the first question, is left out."""
    warnings.simplefilter("ignore")
    rows, detector = datasets.load_car()[:600], DiffusionOutlierDetector(random_state=0)
    found = {"fit": files_of(lambda: detector.fit(rows))}
    for name, n in (("score_samples", 50), ("reasons", 5)):
        getattr(detector, name)(rows[:n])
        found[name] = files_of(lambda name=name, n=n: getattr(detector, name)(rows[:n]))
    return [(f"files that {name} enters", len(files), []) for name, files in found.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[2])
    checkout = parser.parse_args().checkout
    house = House.read(checkout)
    modules = house.modules.values()
    deep = sorted(f"{name} {n}" for name, n in depths(house).items() if n > 1)
    private = [use for m in modules for use in foreign_privates(m)]
    twice = with_two_meanings(house)
    rooms, between = cycles(house.room_arrows()), cycles(house.arrows())
    rows = [
        ("modules at the top", len(house.at_top()), []),
        ("modules", len(house.modules), []),
        ("import arrows between rooms", len(house.room_arrows()), []),
        ("import arrows between modules", len(house.arrows()), []),
        ("import cycles between rooms", len(rooms), [" ".join(group) for group in rooms]),
        ("import cycles between modules", len(between), [" ".join(group) for group in between]),
        ("inheritance deeper than 1 below contracts", len(deep), deep),
        ("uses of others' underscore names", len(private), private),
        ("names of classes with two meanings", len(twice), twice),
        *((f"lines of {room}", n, []) for room, n in sorted(lines_of_rooms(house).items())),
        ("lines of the package", lines(checkout / "discrete_itd"), []),
        ("lines of the tests", lines(checkout / "tests", without="benchmarks"), []),
        ("lines of the benchmarks", lines(checkout / "tests" / "benchmarks"), []),
        *ways(),
    ]
    for what, number, which in rows:
        print(f"{what:<44}{number:>7,}")
        for line in which:
            print(f"    {line}")


if __name__ == "__main__":
    main()
