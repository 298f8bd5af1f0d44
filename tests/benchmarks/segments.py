"""Softmax over ragged columns: scatter over flat segments, last axis, or category-major.

python -m tests.benchmarks.segments
"""

from __future__ import annotations

import time

import torch

from tests.benchmarks.tables import machine, markdown


def main() -> None:
    """Print milliseconds for several shapes."""
    rows = []
    for n_columns, n_categories in ((16, 3), (69, 3), (100, 17), (100, 32), (20, 100), (1000, 3)):
        x = torch.randn(512, n_columns * n_categories)
        column = torch.arange(n_columns).repeat_interleave(n_categories)
        index = column.expand(512, -1)

        def scatter(x=x, column=column, index=index, n=n_columns):
            top = torch.full((512, n), -torch.inf).scatter_reduce_(1, index, x, "amax")
            total = torch.zeros(512, n).scatter_add_(1, index, (x - top[:, column]).exp())
            return x - (top + total.log())[:, column]

        def last(x=x, shape=(512, n_columns, n_categories)):
            return torch.log_softmax(x.view(shape), 2)

        def major(x=x, shape=(512, n_categories, n_columns)):
            return torch.log_softmax(x.view(shape), 1)

        times = [milliseconds(f) for f in (scatter, last, major)]
        rows.append([n_columns, n_categories, *times])
    print(machine())
    print(
        markdown(
            ["columns", "categories", "scatter, ms", "last axis, ms", "category-major, ms"], rows
        )
    )


def milliseconds(f, n: int = 30) -> float:
    """Median time of a call."""
    times = []
    for _ in range(n + 5):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times[5:])[n // 2]


if __name__ == "__main__":
    main()
