"""How close rows that a model draws come to its training rows: copies, nearest records, membership inference.

Measured of these rows, and promised of none: only ``Forest(epsilon=...)`` comes with a promise, (16) of
:mod:`discrete_itd.denoisers.private`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from discrete_itd.channel.noise import row_hashes
from discrete_itd.encoders.rows import Rows, check_any
from discrete_itd.estimators import DiffusionDensity
from discrete_itd.statistics import Interval, auroc_interval, mean_interval, share_interval

MOST_COMPARED = 1000  # drawn, training and new rows each: every two of them are compared


class Closeness(NamedTuple):
    """How close ``n`` drawn rows come to the training rows, beside ``n`` new rows of the same source.

    Attributes
    ----------
    copies, new_copies : Interval
        Share of drawn rows, and of new ones, that equal a training row.
    nearer : Interval
        Share of drawn rows whose nearest record is one of ``n`` training rows and not of ``n`` new rows, ties counted
        half: about one half, unless rows are imitated.
    membership : Interval
        Area under the ROC curve of the model's log-probability for telling training rows from new ones: one half if
        it cannot, 1 if it always can.
    """

    n: int
    copies: Interval
    new_copies: Interval
    nearer: Interval
    membership: Interval

    def lines(self) -> list[tuple[str, str]]:
        """Names and values for a report."""
        nearer, membership = (
            f"{i.value:.3f} ({i.low:.3f} to {i.high:.3f})" for i in (self.nearer, self.membership)
        )
        copies, new = f"{self.copies.value:.1%}", f"{self.new_copies.value:.1%}"
        return [
            (
                "exact copies",
                f"{copies} of {self.n:,} drawn rows equal a training row; {new} of as many new rows do",
            ),
            (
                "nearest record",
                f"a training row, not a new one, for {nearer} of the drawn rows; 0.5 if none is imitated",
            ),
            (
                "membership",
                f"AUROC {membership} of training against new rows by log-probability; 0.5 if none is known",
            ),
        ]


def closeness(model: DiffusionDensity, train: Rows, new: Rows, *, seed: int = 0) -> Closeness:
    """Compare drawn rows with the rows that ``model`` was fitted to and with ``new`` ones.

    At most ``MOST_COMPARED`` rows of each are drawn at random, as many of one as of the other; copies are looked for
    among all training rows. The distance is Euclidean between encoded rows: 1 between two categories of a nominal
    column, twice that of standard deviations in columns of numbers.

    Raises
    ------
    ValueError
        If there are no training rows, or no new ones.
    """
    rng = np.random.default_rng(seed)
    n = min(MOST_COMPARED, len(check_any(train)), len(check_any(new)))
    known, others = (r.take(np.sort(rng.permutation(len(r))[:n])) for r in (train, new))
    drawn = model.rows(model.sample(n, random_state=seed))
    hashes = row_hashes(train.x)
    copies, new_copies = (
        share_interval(int(torch.isin(row_hashes(rows.x), hashes).sum()), n)
        for rows in (drawn, others)
    )
    book = model.denoiser_.codebook
    points = [book.embed(rows.x).double() for rows in (drawn, known, others)]
    exactly = "donot_use_mm_for_euclid_dist"
    to_known, to_new = (torch.cdist(points[0], p, compute_mode=exactly).amin(1) for p in points[1:])
    nearer = (to_known < to_new).double() + (to_known == to_new).double() / 2
    score = np.concatenate([model.score_samples(rows) for rows in (known, others)])
    return Closeness(
        n,
        copies,
        new_copies,
        mean_interval(nearer.cpu().numpy()),
        auroc_interval(score, np.arange(2 * n) < n),
    )
