"""Differentially private forests: an audit of (16) on small domains, and that nothing else of a fit sees the rows."""

import itertools
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.denoisers import private_forest
from discrete_itd.encoders import TableEncoder
from discrete_itd.models import held_out
from discrete_itd.recipes import Forest
from discrete_itd.storage.values import flatten

pytestmark = pytest.mark.single_precision

TYPES = {
    "a": {"kind": "nominal", "categories": ["x", "y"]},
    "b": {"kind": "ordinal", "categories": range(3)},
    "v": {"kind": "binned", "edges": [0, 1, 4]},
}
WARNS = "ignore:the noise of a private fit follows from random_state"
NEW_ROWS = list(itertools.product(["x", "y", "z", None], [0, 2, None], [-1.0, 0.5, 2.0, None]))


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.integers(2, size=n)
    v = rng.uniform(-1, 5, n) * a
    frame = pd.DataFrame(
        {"a": np.array(["x", "y"], object)[a], "b": a + rng.integers(2, size=n), "v": v}
    )
    frame = frame.astype({"b": float}).mask(rng.random((n, 3)) < 0.05)
    return frame


def neighbour(frame: pd.DataFrame, row: tuple) -> pd.DataFrame:
    at = len(frame) // 2  # later rows move on by one
    more = pd.DataFrame([row], columns=frame.columns).astype(frame.dtypes)
    return pd.concat([frame[:at], more, frame[at:]], ignore_index=True)


class Audit:
    """The counts and the noise of a fit, which is given the same noisy counts whatever the rows are."""

    def __init__(self, monkeypatch, fixed: list[torch.Tensor] | None = None) -> None:
        self.counts, self.rates, self.fixed = [], [], fixed
        real_noisy, real_laplace = private_forest.noisy, private_forest.discrete_laplace

        def laplace(rate, n, random_bytes):
            self.rates.append(rate / private_forest.UNIT)
            return real_laplace(rate, n, random_bytes)

        def noisy(counts, *how):
            self.counts.append(counts)
            made = real_noisy(counts, *how)
            if self.fixed is not None:
                made = made._replace(counts=self.fixed[len(self.counts) - 1])
            return made

        monkeypatch.setattr(private_forest, "discrete_laplace", laplace)
        monkeypatch.setattr(private_forest, "noisy", noisy)


def encoded(frame: pd.DataFrame) -> tuple:
    encoder = TableEncoder.declared(frame.columns, TYPES)
    assert set(encoder.unseen_counts) == {0.5}  # no cell was looked at
    return encoder.codebook(), torch.from_numpy(encoder.transform(frame).x)


def fit(frame: pd.DataFrame, epsilon: float, seed: int = 3) -> private_forest.PrivateFit:
    random_bytes = np.random.default_rng(seed).bytes
    return private_forest.fit_private(*encoded(frame), epsilon, 8, seed, random_bytes)


def privacy_losses(monkeypatch, epsilon: float) -> list[float]:
    """Largest log-likelihood ratio, over all noisy counts, of a table and each of its neighbours.

    An output g has the probability prod exp(-rate abs(g - counts)) times a constant: its ratio is at most exp of the
    sum of rate times abs(counts - others), attained beyond both. The other results of the fit must be equal.
    """
    monkeypatch.setattr(private_forest, "shape", lambda *_: (4, 3))
    frame = table(60)
    with monkeypatch.context() as patch:
        first = Audit(patch)
        outputs = []
        real = private_forest.noisy

        def kept(*args):
            outputs.append(real(*args).counts)
            return real(*args)._replace(counts=outputs[-1])

        patch.setattr(private_forest, "noisy", kept)
        fit(frame, epsilon)
    with monkeypatch.context() as patch:
        first = Audit(patch, outputs)
        expected = fit(frame, epsilon)
    losses = []
    for row in NEW_ROWS:
        with monkeypatch.context() as patch:
            other = Audit(patch, outputs)
            found = fit(neighbour(frame, row), epsilon)
        for own, theirs in zip(expected, found, strict=True):
            if isinstance(own, torch.nn.Module):
                own, theirs = own.state_dict(), theirs.state_dict()
                assert all(torch.equal(own[k], theirs[k]) for k in own)
            else:
                assert own == theirs
        assert first.rates == other.rates
        differences = [
            (m - n).abs().sum().item() for m, n in zip(first.counts, other.counts, strict=True)
        ]
        losses.append(sum(r * d for r, d in zip(first.rates, differences, strict=True)))
    return losses


@pytest.mark.parametrize(
    "epsilon", [20.0, *(pytest.param(e, marks=pytest.mark.slow) for e in (0.3, 1.0))]
)
def test_likelihood_ratio_of_neighbouring_tables(monkeypatch, epsilon):
    losses = privacy_losses(monkeypatch, epsilon)
    assert max(losses) <= epsilon
    assert (
        min(losses) > 0.99 * epsilon
    )  # no noise in vain: every row, with gaps too, is in all of its counts


def half_the_noise(patch):
    real = private_forest.noisy
    patch.setattr(
        private_forest, "noisy", lambda counts, n, epsilon, b: real(counts, n, 2 * epsilon, b)
    )


def one_tree_too_many(patch):
    real = private_forest.noisy
    patch.setattr(
        private_forest,
        "noisy",
        lambda counts, n, epsilon, b: real(counts, max(3, n - 3), epsilon, b),
    )


def gaps_by_position(patch):
    def hashes(x):
        return torch.arange(len(x)) * 7919

    patch.setattr(private_forest, "row_hashes", hashes)


def true_number_of_rows(patch):
    real = private_forest.fit_private
    patch.setattr(
        private_forest, "fit_private", lambda b, x, *how: real(b, x, *how)._replace(n_rows=len(x))
    )


@pytest.mark.parametrize(
    "broken",
    [
        half_the_noise,
        true_number_of_rows,
        *(pytest.param(b, marks=pytest.mark.slow) for b in (one_tree_too_many, gaps_by_position)),
    ],
)
def test_audit_notices_a_broken_promise(monkeypatch, broken):
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        assert max(privacy_losses(monkeypatch, 20.0)) <= 20.0


def test_noise_has_its_distribution():
    rate = private_forest.UNIT // 3
    drawn = private_forest.discrete_laplace(rate, 50_000, np.random.default_rng(0).bytes)
    alpha, z = math.exp(-rate / private_forest.UNIT), np.arange(-12, 13)
    expected = (1 - alpha) / (1 + alpha) * alpha ** np.abs(z)
    seen = np.array([(drawn == k).sum() for k in z])
    rest = 50_000 - seen.sum()
    p = stats.chisquare([*seen, rest], 50_000 * np.array([*expected, 1 - expected.sum()])).pvalue
    assert p > 1e-4
    made = private_forest.noisy(
        torch.zeros(50_000, dtype=torch.int64), 3, 1.0, np.random.default_rng(0).bytes
    )
    assert float(made.variance) == pytest.approx(float(made.counts.var()), rel=0.03)
    assert float(made.variance) == pytest.approx(2 * 3**2, rel=0.02)  # of Laplace noise


@pytest.mark.parametrize("scale", [5.0, 100.0, 2000.0])
def test_smoothed_counts_are_the_expected_ones(scale):
    rng = np.random.default_rng(0)
    n = 20_000
    true = rng.exponential(np.where(rng.random(n) < 0.8, 3.0, 900.0))
    seen = torch.from_numpy(true + rng.laplace(scale=scale, size=n))
    found = private_forest.expected_counts(seen, torch.full((n,), scale).double(), 3000.0).numpy()
    assert found.min() > 0
    for low, high in ((-np.inf, np.inf), (-np.inf, 0), (0, scale), (scale, 5 * scale)):
        own = (seen.numpy() > low) & (seen.numpy() <= high)  # unbiased given what is seen
        errors = found[own] - true[own]
        tolerance = 0.06 * scale + 4 * (np.std(errors) + scale) / np.sqrt(own.sum())
        assert np.mean(errors) == pytest.approx(0, abs=tolerance)
    assert np.mean((found - true) ** 2) < 0.8 * np.mean((seen.clamp_min(0).numpy() - true) ** 2)


@pytest.mark.parametrize(("factor", "is_private"), [(1, True), (2, False)])
def test_sampled_outputs_of_neighbours(factor, is_private):
    # marginal counts of two columns with and without one row: the most telling event of both
    n, epsilon, rng = 40_000, 1.0, np.random.default_rng(1)
    without, row = torch.tensor([5, 3, 4, 4]), torch.tensor([1, 0, 0, 1])
    scores = []
    for counts in (without + row, without):
        drawn = private_forest.noisy(counts.expand(n, 4), 2, factor * epsilon, rng.bytes).counts
        scores.append(((drawn - without).abs() - (drawn - without - row).abs()).sum(1).numpy())
    for t in (0, 1, 2):
        with_row, without_row = ((s >= t).sum() for s in scores)
        low = stats.binomtest(int(with_row), n).proportion_ci(0.9999).low
        high = stats.binomtest(int(without_row), n).proportion_ci(0.9999).high
        if t == 2:
            assert (low <= math.exp(epsilon) * high) == is_private


@pytest.mark.filterwarnings(WARNS)
def test_a_file_is_a_function_of_the_noisy_counts(monkeypatch):
    """All that a fit leaves, but times, is equal for two tables that have nothing but their noisy counts in common."""
    files = []
    outputs = []
    for frame in (table(200), table(140, 1)):
        with monkeypatch.context() as patch:
            audit = Audit(patch, outputs or None)
            if not outputs:
                real = private_forest.noisy

                def kept(*args, real=real):
                    made = real(*args)
                    outputs.append(made.counts)
                    return made

                patch.setattr(private_forest, "noisy", kept)
            model = DiffusionDensity(
                column_types=TYPES, denoiser=Forest(4, epsilon=2.0), random_state=0
            ).fit(frame)
            assert len(audit.counts) == 2
        state, tensors = flatten(model)
        files.append(str((untimed(state), {k: t.tolist() for k, t in tensors.items()})))
    assert files[0] == files[1]


def untimed(state):
    if isinstance(state, dict):
        return {k: untimed(v) for k, v in state.items() if "seconds" not in k}
    return [untimed(v) for v in state] if isinstance(state, list) else state


def test_noise_is_new_in_every_fit_unless_there_is_a_seed():
    frame = table(300)

    def scores(**how):
        model = DiffusionDensity(column_types=TYPES, denoiser=Forest(epsilon=1.0), **how).fit(frame)
        return model.score_samples(frame[:20])

    assert not np.array_equal(scores(), scores())
    with pytest.warns(UserWarning, match="random_state: the model is private only"):
        first = scores(random_state=0)
    with pytest.warns(UserWarning, match="random_state"):
        assert np.array_equal(first, scores(random_state=0))


@pytest.mark.filterwarnings(WARNS)
def test_noise_is_the_systems_unless_there_is_a_seed(monkeypatch):
    """A seed of its own, which the model keeps, would give the noise away."""
    real, given = held_out.fit_private, []

    def kept(*arguments):
        given.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(held_out, "fit_private", kept)
    for seed in (None, 0):
        DiffusionDensity(column_types=TYPES, denoiser=Forest(epsilon=1.0), random_state=seed).fit(
            table(50)
        )
    assert given[0] is os.urandom
    assert given[1] is not os.urandom


def test_shrinking_takes_the_noise_off():
    """Estimates of a spread s with noise of variance e have the weight s² / (s² + e): none if they are all noise."""
    rng, sizes = np.random.default_rng(0), torch.tensor([1.0, 50.0]).double().repeat(5000)
    for spread, noise in ((0.0, 1.0), (0.5, 1.0), (2.0, 0.3)):
        true = torch.from_numpy(rng.normal(0, 1, 10_000)) * spread * sizes
        error = noise * sizes.square()
        seen = true + torch.from_numpy(rng.normal(0, 1, 10_000)) * error.sqrt()
        weights = private_forest.shrunk(seen.square(), error, sizes)
        expected = spread**2 / (spread**2 + noise)
        assert float((weights - expected).abs().max()) < 0.05


@pytest.mark.filterwarnings(WARNS)
def test_much_epsilon_is_no_noise():
    frame, new = table(3000), table(1000, 7)
    whole = {**TYPES, "v": {"kind": "binned", "edges": [-1, 0, 1, 4, 5]}}
    how = {"column_types": whole, "random_state": 0}
    nats = {
        e: -DiffusionDensity(denoiser=Forest(epsilon=e), **how).fit(frame).score(new)
        for e in (0.05, 100.0)
    }
    forest, alone = (
        -DiffusionDensity(denoiser=d, **how).fit(frame).score(new)
        for d in ("forest", "independent")
    )
    assert nats[100.0] < forest + 0.1
    assert nats[100.0] < nats[0.05] < alone + 0.5


@pytest.mark.filterwarnings(WARNS)
def test_a_card_says_of_what_its_numbers_are(tmp_path):
    density = DiffusionDensity(column_types=TYPES, denoiser=Forest(epsilon=5.0)).fit(table(2000))
    density.save(tmp_path / "model")
    again = DiffusionDensity.load(tmp_path / "model")
    assert again.model_.epsilon == 5.0
    card = again.model_card()
    assert "epsilon 5 for one row" in card
    assert "per drawn row" in card
    assert "the fit:" not in card
    drawn = again.sample(500, missing="none", random_state=0)
    assert drawn["a"].isin(["x", "y"]).all()
    assert drawn["b"].dtype == int


@pytest.mark.filterwarnings(WARNS)
def test_a_detector_keeps_scores_of_rows_and_refuses():
    density = DiffusionDensity(column_types=TYPES, denoiser=Forest(epsilon=5.0))
    with pytest.raises(ValueError, match="which epsilon forbids: fit DiffusionDensity alone"):
        DiffusionOutlierDetector(density).fit(table(50))
    public = table(500, 1)
    detector = DiffusionOutlierDetector(FrozenEstimator(density.fit(table(500)))).fit(public)
    assert detector.threshold_.n_calibration == len(public)


def refused(match: str, frame=None, error=ValueError, **how):
    settings = {"column_types": TYPES, "denoiser": Forest(epsilon=1.0), **how}
    fit = settings.pop("fit", {})
    with pytest.raises(error, match=match):
        DiffusionDensity(**settings).fit(table(50) if frame is None else frame, **fit)


def test_what_is_learned_from_rows_is_refused_by_name():
    for spec in (None, "nominal", "continuous"):
        refused(
            r"column 'v': its domain would be learned from the rows",
            column_types={**TYPES, "v": spec},
        )
    many = {"kind": "nominal", "categories": range(1000)}
    refused("column 'b': 1000 categories", column_types={**TYPES, "b": many})
    refused("of single rows: no groups", fit={"groups": np.arange(50)})
    refused("X is a stream", iter_of(table(50)))
    refused("what is fitted beside it is not private", denoiser=[Forest(epsilon=1.0), "tree"])
    refused("min_leaf and epsilon", denoiser=Forest(min_leaf=5, epsilon=1.0))
    refused("epsilon must be positive", denoiser=Forest(epsilon=0.0))
    refused("epsilon must be", denoiser=Forest(epsilon=math.inf))
    refused("epsilon=1e-06 is too small", denoiser=Forest(epsilon=1e-6))
    with pytest.raises(AttributeError, match="partial_fit"):
        DiffusionDensity(denoiser=Forest(epsilon=1.0)).partial_fit(table(50))


def iter_of(frame):
    class Frames:
        def __iter__(self):
            return iter([frame])

    return Frames()


def test_epsilon_without_bound_is_no_noise():
    frame = table(50)
    model = DiffusionDensity(column_types=TYPES, denoiser=Forest(epsilon=1e18)).fit(frame)
    assert [c.n_rows for c in model.encoder_.schema] == [50] * 3
    assert [c.n_missing for c in model.encoder_.schema] == frame.isna().sum().tolist()


@pytest.mark.filterwarnings(WARNS)
def test_gaps_can_be_values():
    frame = table(2000)
    frame.loc[frame["a"] == "y", "b"] = np.nan
    types = {**TYPES, "b": {**TYPES["b"], "missing": "category"}}
    model = DiffusionDensity(column_types=types, denoiser=Forest(epsilon=20.0), random_state=0).fit(
        frame
    )
    drawn = model.sample(1000, random_state=0)
    assert drawn.loc[drawn["a"] == "y", "b"].isna().mean() > 0.8
    assert drawn.loc[drawn["a"] == "x", "b"].isna().mean() < 0.3


@pytest.mark.filterwarnings(WARNS)
def test_integer_edges_declare_whole_numbers():
    frame = pd.DataFrame({"v": np.arange(200) % 5})
    for edges, whole in (([0, 2, 5], True), ([0.0, 2, 5], False)):
        types = {"v": {"kind": "binned", "edges": edges}}
        model = DiffusionDensity(denoiser=Forest(epsilon=1.0), column_types=types, random_state=0)
        drawn = model.fit(frame).sample(100, random_state=0)["v"].dropna()
        assert (drawn % 1 == 0).all() == whole
