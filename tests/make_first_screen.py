"""The picture of README's first screen, ``notebooks/first_screen.png``: ``python tests/make_first_screen.py``.

The three most anomalous of the demo's new orders, their cells as the file has them, the one to blame marked, and the
sentence of ``reasons`` below each.
"""

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from discrete_itd import DiffusionOutlierDetector
from discrete_itd.datasets import path

FILE = Path(__file__).parents[1] / "notebooks" / "first_screen.png"
LEFT, WIDTH, LINE = (
    0.08,
    0.92,
    0.34,
)  # of the cells, in shares of the width; inches of a line of text


def main():
    before, new = (pd.read_csv(path(name)) for name in ("tea_orders", "tea_orders_new"))
    detector = DiffusionOutlierDetector(random_state=0).fit(before)
    rows = new.iloc[detector.score_samples(new).argsort()[:3]]
    reasons = detector.reasons(rows, k=1)
    columns = [c for c in new if c not in ("ordered", "paid by")]
    figure, axes = plt.subplots(figsize=(10.5, 2.7))
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(-8.2, 0.4))
    step = WIDTH / len(columns)
    for j, column in enumerate(columns):
        axes.text(LEFT + (j + 0.1) * step, 0, column, fontsize=9, color="#57606a")
    axes.text(0, 0, "row", fontsize=9, color="#57606a")
    y = -1.0
    for (row, cells), reason in zip(rows.iterrows(), reasons.itertuples(), strict=True):
        axes.text(0, y, str(row), fontsize=10, weight="bold")
        for j, column in enumerate(columns):
            if column == reason.column:
                box = Rectangle((LEFT + j * step, y - 0.35), step, 1.0, color="#ffd8d3", zorder=0)
                axes.add_patch(box)
            text = "" if pd.isna(cells[column]) else str(cells[column])
            axes.text(LEFT + (j + 0.1) * step, y, text, fontsize=10)
        for line in textwrap.wrap(reason.sentence, 142):
            y -= 0.85
            axes.text(LEFT + 0.1 * step, y, line, fontsize=9, color="#b42318")
        y -= 1.4
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    figure.savefig(FILE, dpi=110)


if __name__ == "__main__":
    main()
