"""Conditional distributions under the score: the score, normalised over the values of one cell by brute force."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.channel.posterior import GaussianPosterior
from discrete_itd.denoisers import KernelDenoiser, MarginalDenoiser
from discrete_itd.denoisers.kernel_products import Widths
from discrete_itd.detection.assessment import (
    assess,
    most_doubtful,
    pairwise_changes,
)
from discrete_itd.detection.classes import (
    NUMBERS_KEPT,
    ClassConditionals,
    Grids,
    KernelClasses,
    MixtureClasses,
    classes_of,
    relative,
)
from discrete_itd.detection.conditionals import Conditionals
from discrete_itd.detection.distributions import log_density_on
from discrete_itd.detection.scoring import Scorer
from discrete_itd.recipes import Mixture

N = 240


def nominal(seed=0):
    random = np.random.default_rng(seed)
    a = random.choice(list("xyz"), N)
    b = np.where(random.random(N) < 0.8, a, random.choice(list("xyz"), N))
    return pd.DataFrame({"a": a, "b": b, "c": random.choice(list("uv"), N)})


def ordinal(seed=0):
    """With missing cells."""
    random = np.random.default_rng(seed)
    frame = nominal(seed).assign(level=random.integers(0, 6, N))
    frame.loc[::9, "b"] = None
    return frame


def mixed(seed=0):
    random = np.random.default_rng(seed)
    frame = nominal(seed)
    size = np.exp(random.normal(0, 0.4, N)) + 2.0 * (frame["a"] == "x")
    return frame.assign(size=size).drop(columns="c")


TABLES = {"nominal": nominal, "ordinal": ordinal, "mixed": mixed}
EXACT = {"nominal": "tree", "ordinal": "tree", "mixed": "independent"}


def fit(kind, score_by):
    density = DiffusionDensity(denoiser=EXACT[kind], n_evaluations=8, random_state=0)
    detector = DiffusionOutlierDetector(
        density, score_by=score_by, false_alarm_rate=0.1, random_state=0
    )
    return detector.fit(TABLES[kind]())


@pytest.fixture(scope="module")
def detectors():
    return {
        (kind, score_by): fit(kind, score_by)
        for kind in TABLES
        for score_by in ("pooled", "log_prob")
    }


def brute_force(detector, row, column, values):
    """exp(score) of one row with each value of a cell, over their sum."""
    rows = pd.concat([row] * len(values), ignore_index=True).assign(**{column: values})
    score = detector.score_samples(rows)
    return np.exp(score - np.logaddexp.reduce(score))


@pytest.mark.parametrize("score_by", ["pooled", "log_prob"])
@pytest.mark.parametrize("kind", ["nominal", "ordinal"])
def test_properties_expected_is_the_normalised_score(kind, score_by, detectors):
    detector, table = detectors[kind, score_by], TABLES[kind](1)
    for i in (0, 3, 9):  # the last with a missing cell
        row = table[i : i + 1]
        for column in table:
            values = np.unique(TABLES[kind]()[column].dropna())
            p = pd.Series(brute_force(detector, row, column, values), index=values)
            found = detector.expected(row, [column], k=None, n_values=len(values))
            own = found.set_index("expected")["probability"]
            assert set(own.index) == set(values)
            np.testing.assert_allclose(own[values], p[values], atol=1e-4)


def test_properties_the_pooled_score_differs_from_the_log_probability(detectors):
    """So the test above can tell them apart."""
    table = nominal(1)[:20]
    pooled, plain = (
        detectors["nominal", s].expected(table, ["b"], k=None, n_values=1)["probability"]
        for s in ("pooled", "log_prob")
    )
    assert np.abs(pooled - plain).max() > 0.05


@pytest.mark.parametrize("score_by", ["pooled", "log_prob"])
def test_properties_continuous_columns_against_a_fine_grid(score_by, detectors):
    detector, table = detectors["mixed", score_by], mixed(1)
    grid = np.exp(np.linspace(-4, 4, 6001))
    for i in (0, 1, 2):
        row = table[i : i + 1]
        mass = brute_force(detector, row, "size", grid) * grid
        cdf = np.cumsum(mass) / mass.sum()
        found = detector.expected(row, ["size"], k=None).iloc[0]
        told = [found["low"], found["expected"], found["high"]]
        np.testing.assert_allclose(np.interp(told, grid, cdf), [0.1, 0.5, 0.9], atol=0.01)
        for value in np.unique(table["a"]):  # and a category beside a number
            p = brute_force(detector, row, "a", np.unique(table["a"]))
            names = detector.expected(row, ["a"], k=None).set_index("expected")["probability"]
            assert names[value] == pytest.approx(p["xyz".index(value)], abs=1e-4)


def test_a_density_whose_training_rows_are_unknown_is_capped_and_smoothed(detectors):
    """A frozen density has no kernel; its score is still what is normalised."""
    frozen = FrozenEstimator(detectors["mixed", "log_prob"].density_)
    detector = DiffusionOutlierDetector(frozen, false_alarm_rate=0.1).fit(mixed(2))
    row, grid = mixed(1)[:1], np.exp(np.linspace(-4, 4, 6001))
    mass = brute_force(detector, row, "size", grid) * grid
    found = detector.expected(row, ["size"], k=None).iloc[0]
    told = [found["low"], found["expected"], found["high"]]
    cdf = np.cumsum(mass) / mass.sum()
    np.testing.assert_allclose(np.interp(told, grid, cdf), [0.1, 0.5, 0.9], atol=0.01)


def test_properties_pairs_are_changes_of_the_conditional_of_the_score(detectors):
    """Of a row of which two cells are known: the score normalised over one of them, with and without the other."""
    detector, row = detectors["ordinal", "pooled"], ordinal(1)[3:4].astype(object)
    pairs = detector.pairwise(row)
    for j, i in (("a", "b"), ("level", "a"), ("b", "level")):
        values = np.unique(ordinal()[j].dropna())
        at = list(values).index(row[j].iloc[0])
        alone = row.copy()
        alone.loc[:, [c for c in row if c != j]] = None
        both = alone.assign(**{i: row[i]})
        given, nothing = (brute_force(detector, r, j, values)[at] for r in (both, alone))
        change = pairs.xs(j, level="column")[i].iloc[0]
        assert change == pytest.approx(np.log(nothing / given), abs=2e-3)


@pytest.mark.parametrize("rows_at_once", [1, 7, 10_000])
def test_questions_asked_together_have_the_answers_of_each(detectors, monkeypatch, rows_at_once):
    detector = detectors["mixed", "pooled"]
    x = detector.rows(TABLES["mixed"]()).x[:3]
    scorer = detector._scorer
    work = rows_at_once * scorer.conditional.codebook.work
    monkeypatch.setattr("discrete_itd.detection.conditionals.BATCH_WORK", work)
    questions = []
    for j in range(x.shape[1]):
        questions.append(x.index_fill(1, torch.tensor([j]), float("nan")))
    for known, found in zip(questions, Conditionals.of_each(scorer, questions), strict=True):
        alone = Conditionals(scorer, known)
        torch.testing.assert_close(found.log_prob(x), alone.log_prob(x), atol=1e-5, rtol=1e-5)


def gaps(seed=0):
    """With missing cells whose being missing has a probability, and numbers among them."""
    frame = mixed(seed)
    frame.loc[::7, "size"] = None
    return frame.assign(b=frame["b"].mask(np.arange(N) % 9 == 0))


@pytest.fixture(scope="module")
def several(detectors):
    """Detectors of every kind of column, with and without gaps as a category."""
    density = DiffusionDensity(
        denoiser=Mixture(6), missing="category", n_evaluations=8, random_state=0
    )
    with_gaps = DiffusionOutlierDetector(density, false_alarm_rate=0.1, random_state=0).fit(gaps())
    return [(with_gaps, gaps()), *((d, TABLES[kind]()) for (kind, _), d in detectors.items())]


def test_properties_some_cells_are_judged_as_all_are(several):
    for detector, table in several:
        scorer, x = detector._scorer, detector.rows(table).x[:20]
        whole = assess(scorer, x, 1)
        odds, cells, found = most_doubtful(scorer, x, 2)
        np.testing.assert_allclose(odds, whole.error_log_odds, atol=2e-5)
        np.testing.assert_array_equal(cells, np.argsort(-odds, axis=1, kind="stable")[:, :2])
        for of_some, *of_all in zip(found, *whole.expected, strict=True):
            for (i, k), j in np.ndenumerate(cells):
                own, all_ = of_some[i, k], of_all[j][i, 0]
                assert own == all_ or own == pytest.approx(all_, rel=1e-4, nan_ok=True)
        pairs = np.concatenate(list(pairwise_changes(scorer, x)))
        some = np.concatenate(list(pairwise_changes(scorer, x, cells)))
        at = np.arange(20)[:, None], cells
        np.testing.assert_allclose(some[at], pairs[at], atol=2e-5)
        some[at] = 0.0
        assert not some.any()


def test_densities_on_a_grid_are_those_at_its_points(monkeypatch):
    monkeypatch.setattr("discrete_itd.detection.distributions.CHUNK", 500)
    generator = torch.Generator().manual_seed(0)
    weights, means, log_sd = torch.randn(3, 4, 1, 30, generator=generator).double()
    q = GaussianPosterior(weights, means, (2 * log_sd - 4).exp())
    grid = torch.linspace(-3, 3, 50).double()
    naive = torch.stack([q.log_prob(z.expand(4, 1))[:, 0] for z in grid], 1)
    torch.testing.assert_close(log_density_on(q, grid), naive, atol=1e-5, rtol=1e-5)


# -- the kernel density ---------------------------------------------------------------------------


def kernel_density(table, widths, **settings):
    density = DiffusionDensity(
        denoiser="independent", n_evaluations=2, random_state=0, **settings
    ).fit(table)
    rows = density.rows(table)
    base = density.model_.marginals
    assert isinstance(base, MarginalDenoiser)
    return density, KernelDenoiser(base, rows.x[:50], widths), rows


@pytest.mark.parametrize("kind", ["ordinal", "mixed"])
@pytest.mark.parametrize("of_rows", [True, False])
@pytest.mark.parametrize("kept", [True, False])
def test_properties_conditionals_of_classes_are_ratios_of_masses(kind, of_rows, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr("discrete_itd.detection.classes.NUMBERS_KEPT", 0)
        monkeypatch.setattr("discrete_itd.detection.classes.NUMBERS_AT_ONCE", 100)
    density, kernel, rows = kernel_density(TABLES[kind](), Widths(0.1, 0.2, 0.3))
    if not of_rows:
        density = DiffusionDensity(denoiser=Mixture(8), random_state=0).fit(TABLES[kind]())
        rows, kernel = density.rows(TABLES[kind]()), density.denoiser_
    classes = classes_of(kernel)
    assert isinstance(classes, KernelClasses if of_rows else MixtureClasses)
    x = rows.x[60:64].clone()
    for j, points in enumerate(density.denoiser_.codebook.columns):
        known = x.clone()
        known[:, j] = float("nan")
        found = ClassConditionals(classes, known)
        below = kernel.log_prob(known)
        if points.kind == "real":
            grid = torch.linspace(-2, 2, 9).double()
            log_p = found.log_density(j, grid)
            at = torch.stack(
                [found.log_density_at(j, grid[[k]], torch.tensor([0])) for k in range(9)]
            )
            torch.testing.assert_close(at[:, 0], log_p[0])
        else:
            grid = torch.arange(points.n_points).double()
            own = torch.nonzero(density.denoiser_.codebook.finite == j).item()
            layout = density.denoiser_.codebook.levels
            where = torch.nonzero(layout.level_column == own).flatten()
            log_p = found.logits[:, where[layout.level_code[where].argsort()]]
        for k, value in enumerate(grid):
            ratio = kernel.log_prob(known.index_fill(1, torch.tensor([j]), value.item())) - below
            torch.testing.assert_close(log_p[:, k], ratio.double(), atol=5e-5, rtol=1e-5)


def test_densities_of_classes_are_no_subnormal_numbers():
    """Those take many times as long; a density that is so small stands for less."""
    log = -(torch.arange(40, dtype=torch.float64) ** 2).outer(torch.arange(3.0).double())
    density, top = relative(log.clone())
    assert density.min() >= torch.finfo(torch.float64).tiny
    back = density.T.log() + top[:, None]
    torch.testing.assert_close(back, torch.maximum(log, torch.tensor(math.log(1e-300)).double()))


def test_grids_are_kept_as_far_as_they_fit(monkeypatch):
    monkeypatch.setattr("discrete_itd.detection.classes.NUMBERS_KEPT", 30)

    class Three:
        def log_densities(self, j, z, some=None):
            return torch.zeros(len(z), 3).double()

    grids = Grids()
    for j, n_points in enumerate((6, 5, 4)):
        found = grids.of(Three(), j, torch.linspace(-1, 1, n_points).double(), 3)
        assert (found is None) == (j == 1)
    assert sum(density.numel() for _, density, _ in grids.kept.values()) == 30


def test_another_thread_may_keep_a_grid_while_one_is_looked_up():
    grids, z = Grids(), torch.linspace(-1, 1, 5).double()

    class Meanwhile:
        def numel(self):
            grids.kept[9] = z, z, z
            return NUMBERS_KEPT

    grids.kept |= {0: (z, Meanwhile(), z), 1: (z, z, z)}
    assert grids.of(None, 2, z, 3) is None


def test_conditionals_of_high_cardinality_columns():
    random = np.random.default_rng(0)
    shop = np.concatenate([np.arange(1100), random.integers(0, 5, 300)])
    table = pd.DataFrame({"shop": [f"s{k}" for k in shop], "big": shop > 9})
    density, kernel, rows = kernel_density(
        table, Widths(), column_types={"shop": {"kind": "nominal", "min_count": 1}}
    )
    assert density.encoder_.schema[0].points.kind == "code"
    known = rows.x[[3, 1390]].clone()
    known[:, 0] = float("nan")
    log_p = ClassConditionals(KernelClasses(kernel), known).column(0)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2).double(), atol=1e-5, rtol=0)
    ratio = kernel.log_prob(known.index_fill(1, torch.tensor([0]), 2.0)) - kernel.log_prob(known)
    torch.testing.assert_close(log_p[:, 2], ratio.double(), atol=5e-5, rtol=1e-5)
    pooled = Scorer(density, 0.5, 0.0, np.full(2, -np.inf), kernel)
    cells = Conditionals(pooled, known)
    levels = cells.levels(0)
    torch.testing.assert_close(levels.exp().sum(1), torch.ones(2).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        cells.log_prob(rows.x[[3, 1390]])[:, 0], levels[[0, 1], rows.x[[3, 1390], 0].long()]
    )
