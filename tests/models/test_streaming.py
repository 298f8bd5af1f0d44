"""Fits to streams: of more rows than are kept in memory, to a uniform sample."""

import tracemalloc
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fits import chain, mixed

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.reading import frames

N, KEPT = 3000, 600
SAMPLED = "ignore:a uniform sample of"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(frames, "SAMPLE_ROWS", KEPT)


def stream(rows, size=500):
    return [rows.iloc[i : i + size] for i in range(0, len(rows), size)]


def test_property_a_short_stream_is_the_table():
    """The model of a stream that fits in memory is that of the table, to the last bit; it may be a generator."""
    new, table = mixed(seed=1), mixed()
    batches = pa.Table.from_pandas(table).to_batches(50)
    for kind, forms in (
        (
            DiffusionDensity,
            [table, stream(table, 33), iter(stream(table, 70)), iter(batches)],
        ),
        (
            partial(DiffusionOutlierDetector, false_alarm_rate=0.2),
            [table, stream(table, 33), batches],
        ),
    ):
        models = [kind(denoiser="tree", random_state=0).fit(X) for X in forms]
        for other in models[1:]:
            np.testing.assert_array_equal(other.score_samples(new), models[0].score_samples(new))


@pytest.mark.parametrize("denoiser", ["tree", "forest"])
def test_property_a_long_stream_is_its_sample(denoiser):
    rows = chain(N)
    with pytest.warns(UserWarning, match="a uniform sample of 600 of 3,000 rows is fitted to"):
        model = DiffusionDensity(denoiser=denoiser, random_state=0).fit(stream(rows))
    assert model.encoder_.schema[0].n_rows == KEPT
    seed = np.random.RandomState(0).randint(2**31 - 1)
    with pytest.warns(UserWarning, match="600"):
        sample = frames.in_memory(stream(rows, 70), seed)
    same = DiffusionDensity(denoiser=denoiser, random_state=0).fit(sample)
    np.testing.assert_array_equal(model.score_samples(rows), same.score_samples(rows))


@pytest.mark.filterwarnings(SAMPLED)
def test_memory_does_not_grow_with_the_rows():
    """What a fit to four times as many rows holds at once, at its peak."""

    class Lazy:
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            for i in range(self.n):
                rng = np.random.default_rng(i)
                yield pd.DataFrame({"a": rng.integers(0, 3, 500), "x": rng.normal(size=500)})

    def peak(n):
        tracemalloc.start()
        DiffusionDensity(denoiser="independent", random_state=0).fit(Lazy(n))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(4)  # what is imported at first
    assert peak(32) < 1.5 * peak(8)


@pytest.mark.filterwarnings(SAMPLED)
def test_text_may_be_missing_in_all_of_a_part():
    rows = chain(N)
    parts = [rows[:1500], rows[1500:].assign(a=None)]
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(parts)
    assert 0.4 * KEPT < model.encoder_.schema[0].n_missing < 0.6 * KEPT
    assert np.isfinite(model.score_samples(rows)).all()
