"""Properties of the watch: p-values of a naive reference, the same bits in any batches, few false alarms, power."""

import functools
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import logsumexp

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch
from discrete_itd.detection import watch
from discrete_itd.detection.watch import Martingales, Ranks, bets, reserve
from discrete_itd.storage.files import read_state, write_state

pytestmark = pytest.mark.single_precision

VALUES = {
    "continuous": lambda random, size: random.normal(size=size),
    "ties": lambda random, size: random.poisson(1.0, size).astype(float),
    "duplicates": lambda random, size: random.choice([-3.0, 0.0, 0.5], size, p=[0.05, 0.15, 0.8]),
}


def table(n, seed):
    """Two dependent columns and a free one, whose values differ in frequency."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 4, n)
    twin = np.where(random.random(n) < 0.9, kind, random.integers(0, 4, n))
    free = random.choice(list("uvwx"), n, p=[0.4, 0.3, 0.2, 0.1])
    return pd.DataFrame({"kind": kind, "twin": twin, "free": free}).astype(str)


@functools.cache
def detector(rows_seed=0):
    density = DiffusionDensity(denoiser="tree", random_state=0)
    made = DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=0)
    return made.fit(table(1000, rows_seed))


def bits(tables):
    return pd.concat(tables).reset_index(drop=True)


# -- p-values -------------------------------------------------------------------------------------


def naive(seen, new, uniform):
    """Eq. (14) with bins of one place, value by value."""
    seen, p = list(seen), []
    for value, u in zip(new, uniform, strict=True):
        seen.append(value)
        p.append((sum(s < value for s in seen) + u) / len(seen))
    return np.array(p)


def drawn(kind, random, size):
    """Values of a kind, with the numbers that break their ties as imaginary parts."""
    return VALUES[kind](random, size) + 1j * random.random(size)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("pending", [1, 7, 256])
def test_p_values_are_those_of_the_definition(monkeypatch, kind, pending):
    """Exactly where all values are kept; else they are in the same bin."""
    random = np.random.default_rng(0)
    seen, new = (drawn(kind, random, (n, 3)) for n in (20, 600))
    uniform = 1 - random.random(new.shape)
    wanted = np.column_stack(
        [naive(*(part[:, j] for part in (seen, new, uniform))) for j in range(3)]
    )
    monkeypatch.setattr(watch, "PENDING", pending)
    for fineness in (1000, 8):
        monkeypatch.setattr(watch, "FINENESS", fineness)
        ranks, cuts = Ranks(seen), [0, 0, 1, 30, 43, 600]
        parts = [ranks.p_values(new[a:b], uniform[a:b]) for a, b in itertools.pairwise(cuts)]
        p = np.concatenate(parts)
        assert len(ranks) == 620
        if fineness == 1000:
            np.testing.assert_array_equal(p, wanted)
        else:
            assert max(map(len, ranks.edges)) < 150
            far = np.minimum(wanted, 1 - wanted) * np.arange(21, 621)[:, None] < 2 * fineness - 1
            np.testing.assert_array_equal(p[far], wanted[far])  # of the most extreme
            assert 0 < np.abs(p - wanted).max() < 0.2


@pytest.mark.parametrize("fineness", [1, 32])
@pytest.mark.parametrize("kind", VALUES)
def test_p_values_are_uniform_and_independent(monkeypatch, kind, fineness):
    """With a single calibration row, where p-values against that row alone would be far from it; in wide bins, too."""
    monkeypatch.setattr(watch, "FINENESS", fineness)
    monkeypatch.setattr(watch, "PENDING", 2)
    random = np.random.default_rng(1)
    values = drawn(kind, random, (9, 600))
    p = Ranks(values[:1]).p_values(values[1:], 1 - random.random((8, 600)))
    assert min(stats.kstest(one, "uniform").pvalue for one in p) > 1e-3
    for rows in (p[:3], p[-3:], p[::3]):
        cells = np.unique((rows * 2).astype(int).clip(max=1), axis=1, return_counts=True)[1]
        assert len(cells) == 8
        assert stats.chisquare(cells).pvalue > 1e-3


def test_memory_grows_with_the_logarithm_of_the_rows():
    random, sizes = np.random.default_rng(0), []
    ranks = Ranks(drawn("continuous", random, (1000, 1)))
    for _ in range(2):
        new = drawn("continuous", random, (20_000, 1))
        ranks.p_values(new, 1 - random.random(new.shape))
        sizes.append(len(ranks.edges[0]))
    bound = 4 * watch.FINENESS * (1 + math.log(len(ranks) / 4 / watch.FINENESS))
    assert max(sizes) < bound < 600


# -- martingales ----------------------------------------------------------------------------------


def test_bets_are_densities():
    p = (np.arange(400_000) + 0.5) / 400_000
    np.testing.assert_allclose(bets(p).mean(0), 1.0, atol=0.03)
    assert (bets(np.array([0.0, 1.0, 1e-300])) >= 0).all()
    assert np.isfinite(bets(np.array([0.0, 1.0]))).all()
    np.testing.assert_allclose(np.sort(bets(p[:9])), np.sort(bets(1 - p[:9])))  # either side


def test_a_martingale_is_a_mixture_over_bets_and_starts():
    """Also where it outgrows a float, and comes back."""
    random = np.random.default_rng(0)
    p = np.concatenate(
        [random.random(50), random.random(150) * 1e-14, 0.4 + 0.2 * random.random(900)]
    )
    logs = Martingales.start(2).update(np.stack([p, 1 - p], axis=1))
    gains = np.log(bets(p))
    active, wanted = np.full(gains.shape[1], -np.inf), []
    for t, gain in enumerate(gains):
        stake = math.log((reserve(t) - reserve(t + 1)) / len(gain))
        active = np.logaddexp(active, stake) + gain
        wanted.append(np.logaddexp(logsumexp(active), math.log(reserve(t + 1))))
    np.testing.assert_allclose(logs[:, 0], np.array(wanted) / math.log(10), rtol=1e-9, atol=1e-9)
    assert logs.max() > 400
    assert logs[-1].min() < logs.max() - 100
    np.testing.assert_allclose(logs[:, 1], logs[:, 0], rtol=1e-2)  # 1 - p is rounded


def test_a_quiet_time_costs_little():
    """The reserve never falls fast: a martingale that always bets would have lost all."""
    assert reserve(0) == 1.0
    assert reserve(10**9) > 0.02
    logs = Martingales.start(1).update(np.random.default_rng(0).random((10_000, 1)))
    assert logs.min() > -1.5


@pytest.mark.parametrize("kind", VALUES)
def test_false_alarms_are_rare(monkeypatch, kind):
    """Of 200 streams of exchangeable rows, at most a share alpha ever raises an alarm, however few values are kept."""
    monkeypatch.setattr(watch, "FINENESS", 2)
    monkeypatch.setattr(watch, "PENDING", 64)
    random, n = np.random.default_rng(0), 200
    values = drawn(kind, random, (420, n))
    p = Ranks(values[:20]).p_values(values[20:], 1 - random.random((400, n)))
    highest = Martingales.start(n).update(p).max(0)
    for alpha in (0.01, 0.05, 0.3):
        n_alarms = int((highest >= -math.log10(alpha)).sum())
        assert n_alarms <= stats.binom.ppf(1 - 1e-4, n, alpha)
    assert (highest >= 0.1).any()  # bets are made


# -- the watch ------------------------------------------------------------------------------------


def test_batches_and_stops_make_no_difference(tmp_path):
    rows = pd.concat([table(300, 5), table(300, 6).assign(free="x")], ignore_index=True)
    whole = DriftWatch(detector(), random_state=3)
    wanted = whole.update(rows)
    assert wanted["row"].tolist() == list(range(1, 601))
    single = DriftWatch(detector(), random_state=3)
    singly = [single.update(rows[i : i + 1]) for i in range(40)]
    pd.testing.assert_frame_equal(bits(singly), wanted[:40], check_exact=True)
    watch, parts, cuts = DriftWatch(detector(), random_state=3), [], [0, 3, 3, 400, 401, 600]
    for a, b in itertools.pairwise(cuts):
        parts.append(watch.update(rows[a:b]))
        watch.save(tmp_path / "w")
        watch = DriftWatch.load(tmp_path / "w", detector())
    pd.testing.assert_frame_equal(bits(parts), wanted, check_exact=True)
    pd.testing.assert_frame_equal(watch.to_frame(), whole.to_frame(), check_exact=True)
    assert (watch.alarms_, str(watch)) == (whole.alarms_, str(whole))
    assert watch.alarm_ is not None
    other = DriftWatch(detector(), random_state=4).update(rows)
    assert (other["p_value"] != wanted["p_value"]).any()  # ties are broken by the seed


def test_p_values_are_of_scores_and_nats():
    watch, new = DriftWatch(detector()), table(30, 7)
    found, nats = watch.update(new), detector().explain(new)
    seen = detector().explain()
    for name in (None, *new):
        column = "p_value" if name is None else f"p_value_{name}"
        values = [-(t.sum(axis=1) if name is None else t[name]).round(4) for t in (seen, nats)]
        every = np.concatenate(values)
        for i, p in enumerate(found[column]):
            known = every[: len(seen) + i]
            low, high = ((known < values[1][i]).sum(), (known <= values[1][i]).sum() + 1)
            assert low / len(known) - 0.05 < p < high / len(known) + 0.05


@pytest.mark.parametrize("value", ["x", "u"])
def test_a_change_is_found_and_named(value):
    """In either direction: the rarest value of a column, which is improbable, or its most frequent one."""
    watch = DriftWatch(detector())
    quiet = watch.update(table(1000, 8))
    assert not quiet["alarm"].any()
    assert watch.alarm_ is None
    found = watch.update(table(300, 9).assign(free=value).set_axis(range(500, 800)))
    assert found.index[0] == 500
    assert [a.column for a in watch.alarms_ if a.column is not None] == ["free"]
    first = found["row"][found["alarm_free"]].iloc[0]
    assert 1000 < first < 1100
    assert found["alarm"].idxmax() == watch.alarm_.row - 501
    lines = watch.to_frame().set_index("column")
    assert lines.loc["free", "alarm_row"] == first
    assert lines["alarm_row"].isna().sum() == len(lines) - len(watch.alarms_)
    crossed = found["log10_martingale_free"] >= lines.loc["free", "threshold"]
    assert found["row"][crossed].iloc[0] == first
    assert f"ALARM at level 0.01, first in row {watch.alarm_.row}: columns 'free'" in str(watch)


def simulated(random, n_strata, sizes, *, shift=0.0):
    """p-values of one stream of rows sorted by stratum, whose scores differ by stratum, 20 calibration rows in each."""
    p = []
    for k in range(n_strata):
        values = k * 3.0 + random.normal(size=(20 + sizes, 1)) * (k + 1)
        values[20 + sizes // 2 :] -= shift * (k == n_strata - 1) * (k + 1)
        keys = values + 1j * random.random(values.shape)
        p.append(Ranks(keys[:20]).p_values(keys[20:], 1 - random.random((sizes, 1))))
    return np.concatenate(p)


def test_property_ranks_within_strata_bet_on_no_order_of_strata():
    """Of 400 streams that are exchangeable within strata and sorted by stratum, 5 % at most ever reach 20."""
    random, n = np.random.default_rng(0), 400
    p = np.concatenate([simulated(random, 4, 100) for _ in range(n)], axis=1)
    highest = Martingales.start(n).update(p).max(0)
    assert (highest >= math.log10(20)).sum() <= stats.binom.ppf(1 - 1e-4, n, 0.05)
    shifted = np.concatenate([simulated(random, 4, 100, shift=2.0) for _ in range(20)], axis=1)
    assert (Martingales.start(20).update(shifted).max(0) >= math.log10(20)).mean() > 0.9


@functools.cache
def stratified():
    density = DiffusionDensity(denoiser="tree", random_state=0)
    made = DiffusionOutlierDetector(density, false_alarm_rate=0.05, given="free", random_state=0)
    return made.fit(stratified_table(1600, 0))


def stratified_table(n, seed):
    """Strata in which the first column is predictable to different degrees."""
    rows = table(n, seed)
    noise = rows["free"].map({"u": 0.0, "v": 0.2, "w": 0.5, "x": 1.0}).to_numpy()
    kinds = np.random.default_rng(seed).choice(list("0123"), n)
    return rows.assign(kind=np.where(np.random.default_rng(seed + 1).random(n) < noise, kinds, "0"))


def test_rows_sorted_by_stratum_raise_no_alarm_and_a_change_in_a_stratum_does(tmp_path):
    watch = DriftWatch(stratified(), level=0.05)
    rows = stratified_table(1200, 1).sort_values("free", kind="stable")
    table = watch.update(rows[:-300])
    assert watch.alarm_ is None
    assert watch.to_frame()["column"].tolist() == [None, "kind", "twin"]
    assert "p_value_free" not in table
    watch.save(tmp_path / "w")
    watch = DriftWatch.load(tmp_path / "w", stratified())
    parts = [watch.update(rows[a : a + 100]) for a in (900, 1000, 1100)]
    assert watch.alarm_ is None
    whole = DriftWatch(stratified(), level=0.05)
    pd.testing.assert_frame_equal(pd.concat([table, *parts]), whole.update(rows), check_exact=True)
    changed = stratified_table(2000, 2)
    changed = changed[changed["free"] == "u"]
    new = changed.assign(free="new", kind="3")[:50]  # compared with one another alone
    with pytest.warns(UserWarning, match="column 'free': no value was seen"):
        watch.update(new)
    assert watch.alarm_ is None
    watch.update(changed.assign(kind="3")[:60])
    assert "kind" in [a.column for a in watch.alarms_]


def test_the_level_is_divided():
    """So that the chances of all martingales to reach their thresholds add up to it."""
    threshold = DriftWatch(detector(), level=0.05).to_frame()["threshold"]
    assert (10.0**-threshold).sum() == pytest.approx(0.05)
    assert 10.0 ** -threshold[0] == pytest.approx(0.025)


def test_no_rows_are_no_matter():
    for made in (stratified(), detector()):
        watch = DriftWatch(made)
        full = watch.update(table(20, 1))
        empty = watch.update(table(20, 1)[:0])
        assert list(empty) == list(full)
        assert (len(empty), watch.n_rows_) == (0, 20)
    with pytest.raises(ValueError, match=r"column 'free'"):
        watch.update(table(5, 1)[["kind", "twin"]][:0])
    assert "log10_martingale" in watch.update(detector().density_.rows(table(5, 1)).take([]))


def test_rows_that_cannot_be_read_are_not_watched():
    watch = DriftWatch(detector())
    for wrong in (table(5, 1).drop(columns="twin"), table(5, 1).rename(columns={"twin": "win"})):
        with pytest.raises(ValueError, match=r"column 'twin'"):
            watch.update(wrong)
    assert watch.n_rows_ == 0
    again = watch.update(table(5, 1))
    pd.testing.assert_frame_equal(again, DriftWatch(detector()).update(table(5, 1)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"detector": "it"}, TypeError, "DiffusionOutlierDetector, got str"),
        ({"detector": DiffusionOutlierDetector()}, ValueError, "not fitted"),
        ({"level": 0.0}, ValueError, "level must be positive"),
        ({"level": 2}, ValueError, "level must be between 0 and 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        DriftWatch(**{"detector": detector(), **arguments})


def test_states_of_others_are_refused(tmp_path):
    path = tmp_path / "w"
    watch = DriftWatch(detector())
    watch.update(table(10, 1))
    watch.save(path)
    with pytest.raises(ValueError, match=r"w: the watch is of another detector"):
        DriftWatch.load(path, detector(rows_seed=1))
    with pytest.raises(ValueError, match="holds the state of a watch, not a model"):
        DiffusionOutlierDetector.load(path)
    detector().save(tmp_path / "d", card=False)
    with pytest.raises(ValueError, match="holds a model, not the state of a watch"):
        DriftWatch.load(tmp_path / "d", detector())
    same = DiffusionOutlierDetector.load(tmp_path / "d")
    assert DriftWatch.load(path, same).n_rows_ == 10
    header, tensors = read_state(path, kind="watch")
    edges, widths = (f"strata.0.columns.0.{part}" for part in ("edges", "widths"))
    wrong = [
        ({**header, "n_rows": 11}, tensors, "widths .* n_rows"),
        (header, {**tensors, widths: tensors[widths] * 0 - 1}, "widths"),
        (header, {**tensors, widths: tensors[widths] + 1}, "numbers of values"),
        (header, {**tensors, edges: tensors[edges].flip(0)}, "edges"),
        ({**header, "n_rows": -11}, tensors, "n_rows"),
        ({**header, "level": 1.5}, tensors, "level"),
        ({**header, "seed": "0"}, tensors, "seed"),
        (header, {**tensors, "first": -1 - tensors["first"]}, "first"),
        (header, {k: v for k, v in tensors.items() if k != "first"}, "first"),
        (header, {**tensors, "now": tensors["now"].bfloat16()}, "damaged .*BFloat16"),
    ]
    for *state, name in wrong:
        write_state(path, (state[0], state[1]), kind="watch")
        with pytest.raises(ValueError, match=rf"w: .*{name}"):
            DriftWatch.load(path, detector())
