"""Nothing in a model's file is a row that it was fitted to, or an average that equals one."""

import numpy as np
import pandas as pd
import pytest
import torch
from records import as_numbers, cells_in, rows_in, texts_in

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.denoisers.marginal import fit_mixtures
from discrete_itd.reading.frames import time_grid
from discrete_itd.recipes import Causal, Forest, Mixture, Network, RowMixture
from discrete_itd.storage import files

QUICK = ["independent", "tree", Mixture(16, n_points=64, max_steps=10), Forest(4), "bayes_net"]
SLOW = [
    Mixture(max_steps=100),
    Forest(),
    Network(width=32),
    Causal(),
    RowMixture((Forest(8), Mixture(16, n_points=64, max_steps=40), Causal())),
    "auto",
    "best",
]


def people(n, *, only_numbers=False):
    """Numbers of many digits, some far from all others, some repeated; dates, categories, a one-hot group, gaps."""
    rng = np.random.default_rng(0)
    kind = rng.choice(list("abcd"), n, p=[0.5, 0.3, 0.15, 0.05])
    amount = np.exp(rng.normal(8, 1, n) + (kind == "b"))
    rate = rng.normal(3, 1, n) + np.log(amount) / 3
    frame = pd.DataFrame(
        {"amount": amount, "rate": rate, "debt": rng.standard_t(3, n) * 1e3 + amount}
    )
    far = rng.choice(n, max(3, n // 1000), replace=False)
    frame.loc[far, "amount"] *= rng.uniform(20, 200, len(far))
    frame.loc[far, "rate"] += rng.uniform(20, 60, len(far))
    frame["account"] = rng.integers(10**9, 10**10, n)
    often, gain = rng.choice(60, n) / 8, np.exp(rng.normal(8, 1, n))
    frame["gain"] = np.select([rng.random(n) < 0.6, rng.random(n) < 0.7], [0.0, often], gain)
    if only_numbers:
        return frame
    seconds = rng.integers(10**8, 4 * 10**8, n)
    frame["opened"] = pd.Timestamp("2012-01-01") + pd.to_timedelta(seconds, unit="s")
    frame["born"] = pd.Timestamp("1950-01-01") + pd.to_timedelta(
        rng.integers(0, 18_000, n), unit="D"
    )
    frame["kind"], frame["place"] = kind, [f"p{min(i, 3000)}" for i in rng.zipf(1.3, n)]
    for i in range(4):
        frame[f"is_{i}"] = (rng.integers(0, 5, n) == i).astype(int)
    frame.loc[rng.random(n) < 0.05, "debt"] = np.nan
    return frame


def assert_none(model, frame, tmp_path):
    """No row, and no number of one row alone; but a column whose numbers repeat has a list of them, like categories."""
    density = getattr(model, "density_", model)
    listed = {v for c in density.encoder_.schema for v in getattr(c.codec, "seen", ())}
    model.save(path := tmp_path / "m.safetensors")
    for name, rows in as_numbers(density, frame).items():
        assert rows_in(path, rows) == [], name
        for column in rows.T:
            assert not {cell for _, cell in cells_in(path, column)} - listed, name
    assert not texts_in(path, frame.drop(columns="gain"))


@pytest.mark.parametrize("only_numbers", [False, True])
@pytest.mark.parametrize("denoiser", QUICK, ids=str)
def test_a_file_holds_no_row(denoiser, only_numbers, tmp_path):
    frame = people(400, only_numbers=only_numbers)
    model = DiffusionDensity(denoiser=denoiser, random_state=0).fit(frame)
    assert_none(model, frame, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:max_time")
@pytest.mark.parametrize("only_numbers", [False, True])
@pytest.mark.parametrize("denoiser", QUICK + SLOW, ids=str)
def test_no_file_of_twenty_thousand_rows_holds_one(denoiser, only_numbers, tmp_path):
    frame = people(20_000, only_numbers=only_numbers)
    density = DiffusionDensity(denoiser=denoiser, max_time=5, random_state=0)
    assert_none(density.fit(frame), frame, tmp_path)


@pytest.mark.parametrize("share", [pytest.param("auto", marks=pytest.mark.slow), 0.1])
def test_a_detector_holds_no_row(share, tmp_path):
    """Nor do the trees of few rows that a share of anomalies adds to its score."""
    frame = people(400)
    density = DiffusionDensity(denoiser=Forest(4), random_state=0)
    model = DiffusionOutlierDetector(density, contamination=share, random_state=0)
    assert_none(model.fit(frame), frame, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", ["row", "column", "inside", "across", "header"])
def test_a_row_that_is_there_is_found(way, dtype, tmp_path):
    rng = np.random.default_rng(0)
    rows, tensor, header = rng.normal(size=(500, 3)), torch.randn(4, 5, 4).to(dtype), {}
    row = torch.tensor(rows[7]).to(dtype)
    if way == "row":
        tensor[2, 1, :3] = row
    elif way == "column":
        tensor[1:, 0, 2] = row
    elif way == "inside":
        tensor[3, 1:4, 0] = row
    elif way == "across":
        tensor.view(-1)[39:42] = row
    else:
        header = {"a": [{"b": rows[7].tolist()}]}
    files.write_state(path := tmp_path / "m", (header, {"t": tensor}))
    (tmp_path / "m.md").touch()
    assert {k for _, k in rows_in(path, rows)} == {7}
    single = {v for _, v in cells_in(path, rows[:, 1])}
    assert single == ({rows[7, 1]} if way == "header" or dtype == torch.float64 else set())
    if way == "header":
        assert texts_in(path, pd.DataFrame({"x": rows[:, 1]})) == [f"x: {rows[7, 1]}"]


@pytest.mark.parametrize("n", [100, 1000])
def test_a_component_is_no_single_row(n):
    """No mean lies further out than that of five rows does."""
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0] = 100.0
    assert float(fit_mixtures(x)[1].max()) <= float(x.flatten().topk(5).values.mean())
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(n, 3)))
    frame[1] += 2 * frame[0]
    frame.loc[3], frame[3] = 50.0, np.random.default_rng(1).permutation(np.arange(n) % 4)
    density = DiffusionDensity(denoiser=Mixture(16, n_points=64, max_steps=40), random_state=0).fit(
        frame
    )
    z, means = density.rows(frame).x[:, :3], density.denoiser_.means
    assert bool((means.amax(0) <= z.topk(5, 0).values.mean(0)).all())


def test_the_origin_of_times_is_not_the_earliest_one():
    for unit, step in (("D", 86_400), ("s", 1), ("ms", 1)):
        start = (np.datetime64("1987-06-05", unit) + np.arange(9)).astype("datetime64[ms]")
        origins = {time_grid(start[i:])[0] for i in range(5)}
        assert len(origins) == 1
        assert start[0].astype(int) // 1000 - origins.pop() > step
