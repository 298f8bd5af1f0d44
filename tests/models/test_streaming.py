"""Fits to more rows than are kept in memory: the rows that are read, and the models that come of them."""

import time
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from fits import chain, mixed
from pyarrow import parquet as pq

from discrete_itd import DiffusionDensity
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.denoisers.bayes_net import BayesNetDenoiser
from discrete_itd.encoders import streams
from discrete_itd.encoders.streams import position_hashes
from discrete_itd.models import training_tables
from discrete_itd.recipes import Causal, Mixture, Tree

N, SEED, CPU = 3000, 5, torch.device("cpu")
SCHEMA = {"columns": None, "handle_unknown": "smooth", "missing": "marginalise", "leave_out": True}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Of a stream 600 rows are kept, and batches are drawn from about 200 rows."""
    monkeypatch.setattr(training_tables, "SAMPLE_ROWS", 600)
    monkeypatch.setattr(training_tables, "BUFFER_CELLS", 1000)
    monkeypatch.setattr(training_tables, "FEWEST_BUFFERED", 2)


def frame():
    """With indicators of one column, which are merged, and rows without a cell that is not missing."""
    rows = mixed(N)[["a", "size"]]
    group = pd.get_dummies(chain(N, seed=3)["a"], prefix="is").astype(int)
    out = pd.concat([rows, group.astype(float)], axis=1)
    out.iloc[::100] = np.nan
    return out


def stream(rows, size=500):
    return [rows.iloc[i : i + size] for i in range(0, len(rows), size)]


def read(rows, share=0.1, of=None):
    table = training_tables.read_table(
        of or stream(rows), DiffusionDensity(), SCHEMA, sample_weight=None, seed=SEED
    ).table
    assert isinstance(table, training_tables.StreamedTable)
    return table, table.training_rows(share, SEED, CPU)


def naive(table, rows, n_held):
    """Encoded training rows and held-out rows, by hashes of all positions at once."""
    order = np.argsort(position_hashes(np.arange(len(rows)), SEED))
    held, rest = order[:n_held], np.sort(order[n_held:])
    parts = (torch.from_numpy(table.encoder.transform(rows.iloc[i]).x) for i in (held, rest))
    return [x[~x.isnan().all(1)] for x in parts]


def ordered(x):
    """Rows in an order of their own, to compare sets of them."""
    cells = x.nan_to_num(-99.0).numpy()
    return cells[np.lexsort(cells.T)]


def test_a_short_stream_is_the_table(tmp_path):
    """The model of a stream that fits in memory is that of the table, to the last bit."""
    rows = mixed()
    rows.to_parquet(tmp_path / "rows.parquet", row_group_size=50)
    new = mixed(seed=1)
    table = pd.read_parquet(tmp_path / "rows.parquet")
    scores = [
        DiffusionDensity(denoiser="tree", random_state=0).fit(X).score_samples(new)
        for X in (table, stream(table, 33), tmp_path, str(tmp_path / "rows.parquet"))
    ]
    for other in scores[1:]:
        np.testing.assert_array_equal(other, scores[0])


def test_where_time_is_short_a_stream_is_read_once(monkeypatch):
    """The model is that of the sample, and the fit says so; counting takes no time from training."""
    rows, real = frame(), time.perf_counter
    passed, passes = [0.0], []
    parts = streams.RemainingStream.parts

    def slow(self, *args):
        passes.append(1)
        return parts(self, *args)

    def surveyed(*args):
        passed[0] += 2.0
        return survey(*args)

    survey = training_tables.survey
    monkeypatch.setattr(training_tables, "survey", surveyed)
    monkeypatch.setattr(streams.RemainingStream, "parts", slow)
    monkeypatch.setattr("time.perf_counter", lambda: real() + passed[0])
    text = r"max_time=20 ended the reading of the stream after one pass \(\d+ of 3,000 rows"
    with pytest.warns(UserWarning, match=text):
        model = DiffusionDensity(denoiser="tree", max_time=20, random_state=0).fit(stream(rows))
    assert model.model_.stopped == "max_time"
    assert not passes
    DiffusionDensity(denoiser="tree", max_time=60, random_state=0).fit(stream(rows))
    assert passes


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_property_rows_are_held_out_by_their_positions(share):
    """Held-out rows are never read again; the sample is of the others, and all of them are counted."""
    rows = frame()
    table, training = read(rows, share)
    n_held = min(round(share * N), 200)
    x_valid, x = naive(table, rows, n_held)
    np.testing.assert_array_equal(training.x_valid, x_valid)
    read_again = torch.cat(list(training.source.chunks()))
    np.testing.assert_array_equal(read_again, x)
    assert training.n_rows == len(x)
    sample = {tuple(row) for row in ordered(training.x)}
    assert sample <= {tuple(row) for row in ordered(x)}
    assert 600 - n_held - 10 <= len(training.x) <= 600 - n_held


def test_property_counts_are_those_of_all_rows():
    rows = frame()
    table, training = read(rows)
    _, x = naive(table, rows, 200)
    unseen = table.encoder.unseen_counts
    exact = MarginalDenoiser.fit(training.codebook, x, unseen_counts=unseen)
    torch.testing.assert_close(training.marginals.log_probs, exact.log_probs)
    torch.testing.assert_close(training.marginals.mixture[0, :, -1], exact.mixture[0, :, -1])


def test_tables_of_a_bayesian_network_are_counted_in_all_rows():
    rows = chain(N)
    table, training = read(rows)
    _, x = naive(table, rows, 200)
    sampled, whole = (
        BayesNetDenoiser.fit(training.marginals, training.x, parts=parts)
        for parts in (training.source.chunks(), [x])
    )
    assert sampled.parents == whole.parents
    for a, b in zip(sampled.log_tables, whole.log_tables, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [7, 64, 5000])
def test_property_an_epoch_is_every_row_once(size):
    rows = pd.DataFrame({"row": np.arange(N), "a": ["x", "y"] * (N // 2)})
    _, training = read(rows.assign(row=np.arange(N) + 0.5))
    every = torch.cat(list(training.source.chunks()))
    size = min(size, len(every))
    batches = training.source.batches(size, torch.Generator().manual_seed(0), 10**6)
    epochs = [torch.cat([next(batches) for _ in range(len(every) // size)]) for _ in range(2)]
    for epoch in epochs:
        assert {tuple(r) for r in epoch.tolist()} <= {tuple(r) for r in every.tolist()}
        assert len({tuple(r) for r in epoch.tolist()}) == len(epoch) == len(every) // size * size
    assert not torch.equal(*epochs)
    moved = (every[: len(epochs[0]), 0] != epochs[0][:, 0]).double().mean()
    assert moved > 0.9


def test_a_short_training_reads_all_of_the_table():
    """Where batches are fewer than an epoch, they are of rows from its beginning to its end."""
    _, training = read(pd.DataFrame({"row": np.arange(N) + 0.5}))
    batches = training.source.batches(8, torch.Generator().manual_seed(0), 40)
    seen = torch.cat([next(batches) for _ in range(40)])[:, 0]
    every = torch.cat(list(training.source.chunks()))[:, 0]
    quarter = torch.bucketize(seen, every.quantile(torch.tensor([0.25, 0.5, 0.75]).double()))
    counts = torch.bincount(quarter, minlength=4)
    assert len(seen.unique()) == len(seen)
    assert counts.min() > 0.5 * counts.max()


@pytest.mark.parametrize(
    ("denoiser", "most"),
    [
        ("independent", 0.01),
        (Tree(), 0.01),
        pytest.param("bayes_net", 0.01, marks=pytest.mark.slow),
        pytest.param(Mixture(4, n_points=64, max_steps=40), 0.05, marks=pytest.mark.slow),
        pytest.param(Causal(width=16, depth=1, base="tree"), 0.05, marks=pytest.mark.slow),
    ],
)
def test_a_streamed_fit_is_about_as_good(denoiser, most):
    rows, new = chain(N), chain(1000, seed=1)
    fits = [
        DiffusionDensity(denoiser=denoiser, max_steps=40, random_state=0).fit(X)
        for X in (rows, stream(rows))
    ]
    assert fits[0].encoder_.schema == fits[1].encoder_.schema
    memory, streamed = (model.score_samples(new) for model in fits)
    gap = memory - streamed
    assert gap.mean() < most + 3 * gap.std() / np.sqrt(len(gap))


def test_a_stream_that_changes_is_refused():
    class Shrinking:
        n = 12

        def __iter__(self):
            self.n -= 1
            return iter(stream(chain(N), 250)[: self.n])

    with pytest.raises(ValueError, match="it must give the same rows"):
        DiffusionDensity(denoiser="tree").fit(Shrinking())


def test_weights_are_of_tables_in_memory():
    with pytest.raises(ValueError, match="sample_weight needs a table in memory"):
        DiffusionDensity().fit(stream(chain(N)), sample_weight=np.ones(N))


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
        model = DiffusionDensity(denoiser="independent", random_state=0).fit(Lazy(n))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert model.encoder_.schema[0].n_rows == 500 * n
        return found

    peak(4)  # what is imported at first
    assert peak(32) < 1.5 * peak(8)


def test_text_may_be_missing_in_all_of_a_file(tmp_path):
    rows = chain(N)
    schema = pa.Table.from_pandas(rows).schema
    for i, part in enumerate((rows[:1500], rows[1500:].assign(a=None))):
        pq.write_table(pa.Table.from_pandas(part, schema=schema), tmp_path / f"{i}.parquet")
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(tmp_path)
    assert model.encoder_.schema[0].n_missing == N - 1500
    assert np.isfinite(model.score_samples(rows)).all()
