"""Laws of columns of categories: codes, pools that keep their mass, the unseen, levels on the line, damaged files."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from discrete_itd.channel import Codebook
from discrete_itd.denoisers import MarginalDenoiser
from discrete_itd.encoders import Categories, TableEncoder, categories
from discrete_itd.encoders.categories import FINEST_GAP, MOST_LEVELS, fit_categories, line_levels
from discrete_itd.reading.frames import read_cells
from discrete_itd.storage.values import flatten, unflatten


def encoder_of(words, spec=None, **options):
    return TableEncoder.fit(pd.DataFrame({"w": words}), {"w": spec}, **options)


def pooled_below(fewest, values, most=4, **options):
    """An encoder that pools the categories that occur fewer times, if there are more than ``most``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(categories, "MOST_LEVELS", most)
        patch.setattr(categories, "POOLED_BELOW", fewest)
        return encoder_of(values, **options)


@given(
    st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60),
    st.integers(1, 8),
    st.sampled_from(["smooth", "error"]),
)
def test_the_pool_shares_its_mass(words, min_count, unseen):
    encoder = pooled_below(min_count, words, 6, handle_unknown=unseen)
    codec = encoder.schema[0].codec
    distinct, most = sorted(set(words)), 6 - codec.open
    often = sorted(
        (w for w in distinct if words.count(w) >= min_count), key=lambda w: -words.count(w)
    )
    rare = {*distinct} - {*often[: most - 1]} if len(distinct) > most else set()
    pooled = {codec.categories[k] for k in codec.pooled}
    assert pooled == (rare if len(rare) > 1 else set())
    assert codec.points.n_levels == len(distinct) - max(0, len(pooled) - 1)
    masses = np.random.default_rng(0).dirichlet(np.ones(codec.n_levels + codec.open))
    x, log_volume = encoder.transform(pd.DataFrame({"w": distinct}))
    total = (masses[x[:, 0].astype(int)] * np.exp(log_volume[:, 0])).sum()
    assert total == pytest.approx(1 - (masses[-1] if codec.open else 0))
    back = encoder.inverse_transform(x)["w"]
    for word, other in zip(distinct, back, strict=True):
        assert other == word if word not in pooled else other in pooled


def test_members_of_a_pool_come_back_at_random_or_the_most_frequent():
    encoder = pooled_below(5, ["a"] * 20 + ["b"] * 2 + ["c"] * 3 + ["d"])
    codec = encoder.schema[0].codec
    assert codec.pooled == (2, 1, 3)
    x, log_volume = encoder.transform(pd.DataFrame({"w": ["a", "b", "c", "d", "e", None]}))
    np.testing.assert_array_equal(x[:, 0], [0, 1, 1, 1, 2, np.nan])
    share = np.array([2.5, 3.5, 1.5]) / 7.5
    np.testing.assert_allclose(log_volume[:, 0], [0, *np.log(share), 0, 0])
    values, levels, shares = codec.values()
    assert list(values) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(x[:4, 0], levels)
    np.testing.assert_allclose(np.exp(log_volume[:4, 0]), shares)
    pool = np.ones((3000, 1))
    assert set(encoder.inverse_transform(pool)["w"]) == {"c"}
    drawn = encoder.inverse_transform(pool, rng=np.random.default_rng(0))["w"].value_counts()
    np.testing.assert_allclose(drawn[["b", "c", "d"]] / 3000, share, atol=0.04)


@pytest.mark.parametrize("how", [{}, {"missing": "category"}])
def test_categories_that_are_listed_but_did_not_occur_are_unseen_as_of_text(how):
    """A part of a table is encoded alike, whether its dtype lists the categories of the whole or is text."""
    cells = pd.Series([*"aabbbdd", "f", None], name="w")
    listed = cells.astype(pd.CategoricalDtype(list("zabcdef")))
    frames = [pd.DataFrame({"w": own}) for own in (cells, listed)]
    text, encoder = (TableEncoder.fit(frame, **how) for frame in frames)
    new = pd.DataFrame({"w": [*"zabcdefq", None]})
    np.testing.assert_array_equal(text.transform(new), encoder.transform(new))
    assert text.points == encoder.points
    assert text.unseen_counts == encoder.unseen_counts
    x = encoder.transform(new).x
    back = encoder.inverse_transform(x)["w"]
    assert back.dtype == listed.dtype
    assert back.isna().tolist() == [v not in {*"abdf"} for v in new["w"]]
    closed = TableEncoder.fit(frames[1], handle_unknown="error", **how)
    assert closed.inverse_transform(closed.transform(new[:7]).x)["w"].tolist() == list("zabcdef")


@given(
    st.lists(st.integers(1, 90), min_size=30, max_size=60, unique=True),
    st.booleans(),
    st.integers(0, 2**31 - 1),
)
def test_more_levels_than_any_column_has_are_pooled_by_smoothed_frequencies(counts, is_open, seed):
    """All values, pooled and unseen ones too, add up to one; what they are called changes nothing."""
    counts, rng = np.array(counts), np.random.default_rng(seed)
    names = [f"w{k}" for k in range(len(counts))]
    how = {"is_open": is_open, "equally_spaced": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(categories, "MOST_LEVELS", 20)
        codecs = [
            fit_categories("nominal", [names[i] for i in order], counts[order], **how)
            for order in (np.arange(len(counts)), rng.permutation(len(counts)))
        ]
    nats = []
    for codec in codecs:
        assert codec.points.n_points <= 20
        book = Codebook([codec.points])
        values = pd.Series([*names, *["new"] * is_open], dtype=object)
        level, log_share = codec.encode("w", read_cells(values))
        x = torch.tensor(level)[:, None]
        model = MarginalDenoiser.fit(book, x, unseen_counts=[codec.unseen_count])
        nats.append(model.log_prob(x).double().numpy() + log_share)
        assert np.exp(nats[-1]).sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(*nats, atol=1e-5)
    codec, (_, log_share) = codecs[0], codecs[0].encode("w", read_cells(pd.Series(names)))
    pool = list(codec.pooled)
    share = (counts[pool] + 0.5) / (counts[pool] + 0.5).sum()
    np.testing.assert_allclose(np.exp(log_share[pool]), share)
    assert counts[pool].max() < np.delete(counts, pool).min()
    level = np.full(20_000, float(len(counts) - len(pool)))
    drawn = np.bincount(codec.decode(level, rng), minlength=len(counts))[pool]
    assert stats.chisquare(drawn, 20_000 * share).pvalue > 1e-4


def test_categories_that_occur_alike_do_not_all_lose_their_level(monkeypatch):
    monkeypatch.setattr(categories, "MOST_LEVELS", 20)
    codec = encoder_of([f"w{i:02}" for i in range(30)] * 7).schema[0].codec
    assert codec.pooled == (*range(18, 30),)
    assert codec.points.n_points == 20


@pytest.mark.filterwarnings("ignore:column 'w'.* identifiers:UserWarning")
def test_more_categories_than_levels_pool_the_rare_and_expect_the_new(monkeypatch):
    few = encoder_of([f"w{i}" for i in range(MOST_LEVELS - 1)]).schema[0].codec
    assert few.pooled == ()
    assert few.unseen_count == MOST_LEVELS - 1
    monkeypatch.setattr(categories, "MOST_LEVELS", 1000)
    assert encoder_of([0, 1, 1, 2, 2] * 2).schema[0].codec.unseen_count == 0.5
    assert few.points.kind == "simplex"
    words = [f"w{i}" for i in range(980) for _ in range(2)] + [f"s{i}" for i in range(30)]
    codec = encoder_of(words).schema[0].codec
    assert len(codec.pooled) == 30
    assert codec.unseen_count == 30.0
    assert (codec.points.kind, codec.points.n_levels) == ("simplex", 981)
    identifiers = encoder_of([f"w{i}" for i in range(2000)]).schema[0]
    assert (identifiers.points.kind, identifiers.points.n_levels) == ("simplex", 1)
    assert identifiers.codec.unseen_count == 2000.0


@pytest.mark.parametrize(
    ("step", "places"), [(1, [0, 5, 10, 30, 60]), (0.01, [-3, 4, 5]), (1, [7, 8])]
)
def test_numbers_never_seen_share_the_mass_of_their_level(step, places):
    codec = fit_categories(
        "ordinal", [k * step for k in places], np.full(len(places), 9), is_open=True,
        equally_spaced=False,
    )  # fmt: skip
    lattice = np.setdiff1d(np.arange(-9999, 9999), places) * step
    level, log_share = codec.encode("a", read_cells(pd.Series(lattice)))
    assert (level == len(places)).all()
    assert np.exp(log_share).sum() == pytest.approx(1, abs=1e-4)


def test_unseen_counts_by_internal_column():
    frame = pd.DataFrame({"w": [None, *(f"w{i}" for i in range(1001))], "n": 1.0, "f": 0.25})
    options = {"w": {"kind": "nominal", "missing": "category"}, "f": "continuous"}
    assert TableEncoder.fit(frame, options).unseen_counts[:3] == [1001.0, 0.5, 0.5]


def test_declared_categories_promise_no_others():
    frame = pd.DataFrame({"w": list("abbccdde")})
    listed = {"kind": "nominal", "categories": list("abcde")}
    assert TableEncoder.fit(frame).schema[0].codec.unseen_count == 2.0
    assert TableEncoder.fit(frame, {"w": listed}).schema[0].codec.unseen_count == 0.5


def test_order_of_categories():
    unused = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    frame = pd.DataFrame(
        {
            "s": ["b", "a", "c"],
            "n": [9, -1, 4],
            "m": np.array(["x", 2, "0.5b"], dtype=object),
            "o": pd.Series(["mid", "low", "mid"], dtype=unused),
        }
    )
    s, n, m, o = TableEncoder.fit(frame).schema
    assert s.categories == ("a", "b", "c")
    assert n.categories == (-1, 4, 9)
    assert m.categories == (2, "0.5b", "x")
    assert o.categories == ("low", "mid", "high")
    assert np.allclose(np.diff(n.codec.levels, 2), 0.0)  # at their own distances
    assert len(o.codec.levels) == 3
    uneven = fit_categories("ordinal", (1, 2, 4), np.ones(3), is_open=True, equally_spaced=True)
    assert np.allclose(np.diff(uneven.levels, 2), 0.0)


@given(
    st.lists(st.floats(-1e308, 1e308) | st.integers(-9, 9), min_size=1, max_size=9, unique=True),
    st.data(),
)
def test_properties_levels_are_centred_increasing_and_of_no_unit(positions, data):
    positions = np.array(sorted(positions), dtype=float)
    n = len(positions)
    counts = np.array(data.draw(st.lists(st.integers(0, 10**6), min_size=n, max_size=n)))
    levels = np.array(line_levels(positions, counts))
    weights = (counts + 0.5) / (counts + 0.5).sum()
    np.testing.assert_allclose(weights @ levels, 0.0, atol=1e-9 * np.abs(levels).max())
    if n > 1:
        gaps, spread = np.diff(levels), np.sqrt(weights @ levels**2)
        assert (gaps > 0).all()
        assert gaps.min() <= 1 + 1e-9
        assert spread <= 0.5 + 1e-9
        assert gaps.min() >= 1 - 1e-9 or spread == pytest.approx(0.5)
        steps = np.cumsum(data.draw(st.lists(st.integers(1, 5), min_size=n, max_size=n)))
        moved = line_levels(steps * 0.37 - 12.0, counts)
        np.testing.assert_allclose(moved, line_levels(steps.astype(float), counts), atol=1e-9)


def test_uneven_numbers_are_spaced_by_rank():
    uneven = line_levels(np.array([0.0, 1e-9, 1.0]), np.ones(3))
    assert uneven == line_levels(np.arange(3.0), np.ones(3))
    assert min(np.diff(uneven)) > FINEST_GAP
    one_float = line_levels(np.array([2**53, 2**53 + 1, 2**53 + 2], dtype=float), np.ones(3))
    assert one_float == line_levels(np.arange(3.0), np.ones(3))


WRONG = {
    "kind": {"kind": "text"},
    "open": {"open": 1},
    "odd categories": {"categories": ("x", None)},
    "repeated categories": {"categories": ("x", "x")},
    "levels of nominal": {"levels": (0.0, 1.0)},
    "levels that are text": {"levels": ("a", "b")},
    "levels missing": {"kind": "ordinal"},
    "levels that are infinite": {"kind": "ordinal", "levels": (0.0, math.inf)},
    "pool of one": {"pooled": (0,), "pooled_counts": (1,)},
    "pool outside": {"pooled": (0, 2), "pooled_counts": (1, 1)},
    "pool repeats": {"pooled": (1, 1), "pooled_counts": (1, 1)},
    "pool of halves": {"pooled": (0.0, 1.0), "pooled_counts": (1, 1)},
    "pool without counts": {"pooled": (0, 1)},
    "pool of negative counts": {"pooled": (0, 1), "pooled_counts": (1, -1)},
    "pool of ordinal": {"kind": "ordinal", "levels": (0.0, 1.0), "pooled": (0, 1)},
    "nothing expected": {"unseen_count": 0.0},
    "unused of a closed column": {"open": False, "unused": (0,)},
    "unused twice": {"unused": (1, 1)},
}


def test_impossible_parameters_are_refused():
    """In a file, types too."""
    for change in WRONG.values():
        data, _ = flatten(Categories("nominal", ("x", "y"), open=True))
        change = {k: list(v) if isinstance(v, tuple) else v for k, v in change.items()}
        with pytest.raises(ValueError, match="Categories|" + "|".join(change)):
            unflatten(Categories, (data | change, {}))


@pytest.mark.parametrize(
    "categories", [(0, 1), (0.0, 1.0), ("0", "1"), ("False", "True"), (False, True), (1, "x")]
)
def test_property_the_level_of_a_value_does_not_depend_on_its_neighbours(categories):
    """Python has True == 1 == 1.0: each is looked up as it is, whatever else is in the column."""
    codec = Categories("nominal", categories, open=True)
    cells = [1, True, "1", 1.0, "True", "1.0", 0, False, "x", 2, 0.1 + 0.2]
    together = codec.encode("c", read_cells(pd.Series(cells, dtype=object)))[0]
    alone = [codec.encode("c", read_cells(pd.Series([v], dtype=object)))[0][0] for v in cells]
    turned = codec.encode("c", read_cells(pd.Series(cells[::-1], dtype=object)))[0][::-1]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(turned, alone)
