"""The odd rows of a table in hand: no row is judged by a model that saw it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, find_outliers
from discrete_itd.detection.out_of_fold import in_order, out_of_fold
from discrete_itd.detection.reasons import NO_CELL
from discrete_itd.encoders import TableEncoder
from discrete_itd.recipes import Forest
from tests.laws import TIMES

pytestmark = pytest.mark.single_precision
ODD = 17


def detector(**settings):
    return DiffusionOutlierDetector(denoiser=Forest(n_trees=4), random_state=0, **settings)


@pytest.fixture(scope="module")
def clean():
    rng = np.random.default_rng(0)
    town = rng.choice(["Bonn", "Ulm", "Hof"], 150)
    size = np.select([town == "Bonn", town == "Ulm"], [20.0, 50.0], 80.0) + rng.normal(size=150)
    return pd.DataFrame({"town": town, "size": size.round(1), "code": pd.Series(town).str[0]})


@pytest.fixture(scope="module")
def table(clean):
    """With one row that is nonsense."""
    changed = clean.copy()
    changed.loc[ODD] = ["Hof", 20.5, "U"]
    return changed


@pytest.fixture(scope="module")
def folds(table):
    return out_of_fold(detector(), table)


@pytest.fixture(scope="module")
def ranked(table):
    """All rows, with one label twice."""
    named = table.set_axis([f"house {i % 149}" for i in range(150)])
    return find_outliers(named, detector(), n_rows=None, k=1)


def test_property_every_row_is_scored_once_by_the_detector_of_the_others(folds, table, ranked):
    np.testing.assert_array_equal(np.sort(np.concatenate([f.at for f in folds])), table.index)
    for fold in folds:
        rest = table.drop(index=fold.at)
        alone = clone(fold.detector).fit(rest).score_samples(table.iloc[fold.at])
        np.testing.assert_array_equal(fold.scores, alone)
    every = np.sort(np.concatenate([fold.scores for fold in folds]))
    np.testing.assert_array_equal(ranked["score"], every)


@pytest.mark.filterwarnings("ignore:left out", "ignore:.* unreadable", "ignore:column 'code'")
def test_the_table_decides_on_kinds_whatever_the_division():
    """Columns on the border between two kinds: some of the rows alone would be taken for others."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "amount": [*map(str, rng.normal(100, 10, 398).round(2)), "#REF!", "12;x"],
        "count": [*np.repeat(range(180), 2), *range(180, 220)],
        "price": [*np.repeat(rng.integers(1, 9000, 194) / 100, 2), *rng.integers(1, 9000, 12) / 100],
        "name": [f"n{i % 360}" for i in range(400)],
        "code": [*rng.normal(50, 9, 394).round(1), *[9999.0] * 6],
        "kind": ["a", "b"] * 200,
    })  # fmt: skip
    table.loc[7, "amount"] = "99999999.00"
    whole = TableEncoder.fit(table, leave_out=True)

    def decided(encoder):
        columns = [(c.name, c.kind, c.notation, c.codes) for c in encoder.schema]
        return columns, encoder.left_out

    assert decided(whole)[0][0][1] == "continuous"
    for seed in range(TIMES):
        one = DiffusionOutlierDetector(
            denoiser="independent", false_alarm_rate=0.05, random_state=seed
        )
        own = [fold.detector for fold in out_of_fold(one, table)]
        for each in (*own, clone(one).fit(table)):
            assert decided(each.density_.encoder_) == decided(whole)
        assert find_outliers(table, one, n_rows=6)["row"].tolist().count(7)


def test_the_odd_row_is_first_with_its_cells_and_its_label(table, ranked):
    assert ranked["row"].iloc[0] == f"house {ODD}"
    assert ranked["column"].iloc[0] in {"town", "code", "size"}
    assert ranked["score"].is_monotonic_increasing
    assert sorted(ranked["row"]) == sorted(f"house {i % 149}" for i in range(150))
    without = ranked[ranked["column"].isna()]
    assert len(without) > 100
    assert (without["sentence"] == NO_CELL).all()
    few = find_outliers(table.to_numpy(), detector(), n_rows=3)  # an array has the same rows
    assert few["row"].unique()[0] == ODD
    assert few["score"].unique().tolist() == ranked["score"][:3].tolist()


def test_groups_are_left_out_together(table):
    """Copies of an odd row are odd, where none is in the fit for another."""
    copied = pd.concat([table, *[table.loc[[ODD]]] * 4], ignore_index=True)
    record = np.append(np.arange(150), [ODD] * 4)
    together, apart = (out_of_fold(detector(), copied, groups) for groups in (record, None))
    assert sum(np.isin(record[f.at], ODD).any() for f in together) == 1
    scores = [in_order(folds, [f.scores for f in folds]) for folds in (together, apart)]
    copies = record == ODD
    assert scores[0][copies].max() < scores[1][copies].min() - 1


@pytest.mark.slow
def test_the_seed_decides(table):
    how = {"detector": DiffusionOutlierDetector(denoiser=Forest(n_trees=8)), "n_rows": 5}
    one, again, other = (find_outliers(table, **how, random_state=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert not one["score"].equals(other["score"])
    assert how["detector"].random_state is None


def test_an_unreadable_cell_comes_first_and_polars_stays_polars(table):
    polars = pytest.importorskip("polars")
    text = table.astype({"size": str})
    text.loc[3, "size"] = "#REF!"
    with pytest.warns(UserWarning, match="#REF!"):
        found = find_outliers(polars.from_pandas(text), detector(), n_rows=2)
    assert isinstance(found, polars.DataFrame)
    assert found["row"].unique(maintain_order=True).to_list() == [3, ODD]
    assert "unreadable" in found["sentence"][0]


def test_the_time_of_the_density_bounds_all_folds(table):
    density = DiffusionDensity(max_time=0.01, random_state=0)
    with pytest.warns(UserWarning, match="max_time"):
        found = find_outliers(table, DiffusionOutlierDetector(density), n_rows=None, k=1)
    assert found["score"].notna().all()


def test_labels_of_a_fit_are_of_rows_that_were_left_out(table):
    model = detector(contamination=0.1)
    labels = model.fit_predict(table)
    assert 13 <= (labels == -1).sum() <= 15  # rows with the score of the threshold are inliers
    assert labels[ODD] == -1
    again = detector(contamination=0.1).fit(table)
    np.testing.assert_array_equal(model.score_samples(table), again.score_samples(table))


def test_what_cannot_be_left_out_is_refused(table):
    density = DiffusionDensity(denoiser="tree").fit(table)
    with pytest.raises(TypeError, match="must not be frozen"):
        find_outliers(table, DiffusionOutlierDetector(FrozenEstimator(density)))
    with pytest.raises(ValueError, match="three rows"):
        find_outliers(table[:2], detector())
    with pytest.raises(ValueError, match="three groups"):
        find_outliers(table, detector(), groups=np.arange(150) % 2)
    for name in ("n_rows", "k"):
        with pytest.raises(ValueError, match=name):
            find_outliers(table, detector(), **{name: 0})
