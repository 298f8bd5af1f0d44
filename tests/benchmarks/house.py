"""The structure of a checkout in numbers: ``python -m tests.benchmarks.house [checkout]``."""

import argparse
from pathlib import Path

from tests.house import House, cycles, depths, foreign_privates, functions, lines

MOST_LINES, MOST_BODY = 400, 60


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[2])
    checkout = parser.parse_args().checkout
    house = House.read(checkout)
    modules = house.modules.values()
    long_files = sorted(f"{m.name} {m.n_lines}" for m in modules if m.n_lines > MOST_LINES)
    bodies = [pair for m in modules for pair in functions(m)]
    long_bodies = sorted(f"{name} {n}" for name, n in bodies if n > MOST_BODY)
    deep = sorted(f"{name} {n}" for name, n in depths(house).items() if n > 1)
    private = [use for m in modules for use in foreign_privates(m)]
    rooms, between = cycles(house.room_arrows()), cycles(house.arrows())
    rows = [
        ("modules at the top", len(house.at_top()), []),
        ("modules", len(house.modules), []),
        ("import arrows between rooms", len(house.room_arrows()), []),
        ("import arrows between modules", len(house.arrows()), []),
        ("import cycles between rooms", len(rooms), [" ".join(group) for group in rooms]),
        ("import cycles between modules", len(between), [" ".join(group) for group in between]),
        (f"files over {MOST_LINES} lines", len(long_files), long_files),
        (f"function bodies over {MOST_BODY} lines", len(long_bodies), long_bodies),
        ("inheritance deeper than 1 below contracts", len(deep), deep),
        ("uses of others' underscore names", len(private), private),
        ("lines of the package", lines(checkout / "discrete_itd"), []),
        ("lines of the tests", lines(checkout / "tests", without="benchmarks"), []),
        ("lines of the benchmarks", lines(checkout / "tests" / "benchmarks"), []),
    ]
    for what, number, which in rows:
        print(f"{what:<44}{number:>7,}")
        for line in which:
            print(f"    {line}")


if __name__ == "__main__":
    main()
