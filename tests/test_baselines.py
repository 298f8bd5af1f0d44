"""The reference models of the benchmarks are checked too: a wrong yardstick proves nothing."""

import itertools

import numpy as np
import pytest
from benchmarks.baselines import ChowLiuTree, IndependentColumns
from benchmarks.data import has_density, load_density

CARDINALITIES = [2, 3, 1, 4]
MODELS = [IndependentColumns, ChowLiuTree]


def all_rows(cardinalities):
    return np.array(list(itertools.product(*map(range, cardinalities))))


def reaches_root(parents, node):
    for _ in parents:
        if node > 0:
            node = parents[node]
    return node == 0


def tree_sample(rng, n_rows):
    """Rows of a known tree 2 <- 0 -> 1 -> 3, and a function for their true log-probability."""
    root = rng.dirichlet([5, 5])
    tables = {
        (0, 1): rng.dirichlet([0.5] * 3, size=2),
        (0, 2): rng.dirichlet([0.5] * 2, size=2),
        (1, 3): rng.dirichlet([0.5] * 4, size=3),
    }
    codes = np.zeros((n_rows, 4), dtype=int)
    codes[:, 0] = rng.random(n_rows) >= root[0]
    for (parent, child), table in tables.items():
        cumulative = table.cumsum(axis=1)[codes[:, parent], :-1]
        codes[:, child] = (rng.random((n_rows, 1)) >= cumulative).sum(axis=1)

    def log_prob(rows):
        total = np.log(root)[rows[:, 0]]
        for (parent, child), table in tables.items():
            total = total + np.log(table)[rows[:, parent], rows[:, child]]
        return total

    return codes, [2, 3, 2, 4], log_prob


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_mass_sums_to_one(model, alpha):
    rng = np.random.default_rng(0)
    codes = np.column_stack([rng.integers(0, k, size=30) for k in CARDINALITIES])
    fitted = model(alpha).fit(codes, CARDINALITIES)
    assert np.exp(fitted.log_prob(all_rows(CARDINALITIES))).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_unseen_categories_are_possible(model):
    fitted = model().fit([[0, 0], [1, 0]], [2, 3])
    assert np.isfinite(fitted.log_prob([[0, 2], [1, 1]])).all()


def test_tree_finds_a_known_tree():
    codes, cardinalities, true_log_prob = tree_sample(np.random.default_rng(1), 50_000)
    fitted = ChowLiuTree().fit(codes, cardinalities)
    assert fitted.parents_.tolist() == [-1, 0, 0, 1]
    rows = all_rows(cardinalities)
    truth = np.exp(true_log_prob(rows))
    assert np.abs(np.exp(fitted.log_prob(rows)) - truth).sum() < 0.02  # total variation, twice
    # Twice the gap in log-likelihood is chi-squared with the number of parameters, 1+4+2+9.
    gap = fitted.log_prob(codes).sum() - true_log_prob(codes).sum()
    assert abs(gap) < 25


def test_tree_is_the_best_of_all_trees():
    rng = np.random.default_rng(2)
    hidden = rng.integers(0, 3, size=400)
    codes = np.column_stack([(hidden + (rng.random(400) < p)) % 3 for p in (0.1, 0.2, 0.3, 0.5)])
    best = ChowLiuTree(alpha=0.0).fit(codes, [3] * 4).log_prob(codes).sum()

    def naive(parents):
        total = 0.0
        for row in codes:
            for j, parent in enumerate(parents):
                same = codes if parent < 0 else codes[codes[:, parent] == row[parent]]
                total += np.log((same[:, j] == row[j]).mean())
        return total

    # Every labelled tree on four nodes rooted in 0: each node points to another, without cycles.
    scores = []
    for choice in itertools.product(range(4), repeat=3):
        parents = [-1, *choice]
        if all(reaches_root(parents, j) for j in range(4)):
            scores.append(naive(parents))
    assert len(scores) == 16
    assert best == pytest.approx(max(scores), rel=1e-12)


def test_independent_columns_against_counting():
    codes = np.array([[0, 2], [1, 2], [1, 0]])
    fitted = IndependentColumns(alpha=0.5).fit(codes, [2, 3])
    expected = np.log([2.5 / 4 * 1.5 / 4.5, 1.5 / 4 * 0.5 / 4.5])
    np.testing.assert_allclose(fitted.log_prob([[1, 0], [0, 1]]), expected, rtol=1e-14)


def test_tree_of_one_column_is_that_column():
    codes = np.array([[0], [2], [2]])
    rows = all_rows([3])
    np.testing.assert_allclose(
        ChowLiuTree().fit(codes, [3]).log_prob(rows),
        IndependentColumns().fit(codes, [3]).log_prob(rows),
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0, 3]], "column 1: codes must lie in 0, ..., 2"),
        ([[-1, 0]], "column 0"),
        ([[0.5, 0.0]], "integers"),
        ([[0]], r"shape \(N, 2\)"),
    ],
)
def test_wrong_codes_are_refused(model, codes, message):
    with pytest.raises(ValueError, match=message):
        model().fit(codes, [2, 3])
    with pytest.raises(ValueError, match=message):
        model().fit([[0, 0]], [2, 3]).log_prob(codes)


def test_missing_benchmark_table(monkeypatch, tmp_path):
    monkeypatch.setenv("DISCRETE_ITD_SHARED", str(tmp_path))
    assert not has_density("nltcs")
    with pytest.raises(FileNotFoundError, match="set DISCRETE_ITD_SHARED"):
        load_density("nltcs")


@pytest.mark.skipif(not has_density("nltcs"), reason="the benchmark tables are not here")
def test_published_figures_on_nltcs():
    train, _, test = load_density("nltcs")
    cardinalities = [2] * train.shape[1]
    independent = IndependentColumns().fit(train, cardinalities).log_prob(test).mean()
    tree = ChowLiuTree().fit(train, cardinalities).log_prob(test).mean()
    assert independent == pytest.approx(-9.23, abs=0.01)
    assert tree == pytest.approx(-6.76, abs=0.01)
