"""A kind of column is one class: one that the package does not know goes through every question."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.channel.codebook import ColumnPoints
from discrete_itd.encoders import KINDS, Categories, Codec, Column, TableEncoder
from discrete_itd.encoders.inference import ColumnSpec, Observed, infer_column
from tests.examples import float64

WIDTH = 0.5


@dataclass(frozen=True)
class Bands(Codec):
    """Numbers in bands of one width, within which the density is even: levels, but of numbers."""

    start: float
    n_bands: int

    of_numbers: ClassVar[bool] = True
    is_ordered: ClassVar[bool] = True
    kind: ClassVar[str] = "bands"
    categories: ClassVar[tuple[()]] = ()
    open: ClassVar[bool] = False
    whole: ClassVar[bool] = False

    @classmethod
    def fit(cls, values, *_, **_how):
        start = math.floor(values.min())
        return cls(start, math.ceil((values.max() - start) / WIDTH) + 1)

    @property
    def n_levels(self):
        return self.n_bands

    @property
    def points(self):
        return ColumnPoints(
            "line", self.n_levels, levels=tuple(np.linspace(-1, 1, self.n_levels).tolist())
        )

    def is_outside(self, x):
        return x < 0

    def encode(self, values):
        return np.floor((values - self.start) / WIDTH), np.full(len(values), -math.log(WIDTH))

    def decode(self, x, rng=None):
        return self.start + WIDTH * (x + (0.5 if rng is None else rng.random(len(x))))

    def values(self):
        levels = np.arange(self.n_levels)
        breaks = self.start + WIDTH * np.arange(self.n_levels + 1)
        return pd.IntervalIndex.from_breaks(breaks, closed="left"), levels, np.ones(len(levels))


def table(n=300):
    rng = np.random.default_rng(0)
    k = rng.integers(0, 3, n)
    frame = pd.DataFrame({"k": np.array(list("xyz"))[k], "x": rng.normal(2.0 * k, 0.7).clip(-2, 6)})
    return frame.assign(y=k + rng.integers(0, 2, n), x=frame["x"].mask(np.arange(n) % 9 == 0))


def test_a_foreign_kind_goes_through_every_question(monkeypatch, tmp_path):
    """Its log-densities are those of the same bands as ordered categories, per unit; answers are numbers."""
    monkeypatch.setitem(KINDS, "bands", Bands)
    frame = table()
    how = {
        "denoiser": "tree",
        "handle_unknown": "error",
        "missing": "marginalise",
        "random_state": 0,
    }
    with float64():
        model = DiffusionDensity(column_types={"x": "bands"}, **how).fit(frame)
        intervals, level, _ = model.encoder_.schema[1].values()
        bands = pd.cut(
            frame["x"], [i.left for i in intervals] + [np.inf], right=False, labels=level
        )
        coarse = DiffusionDensity(**how).fit(frame.assign(x=bands))
        nats = coarse.score_samples(frame.assign(x=bands))
        expected = nats - np.where(frame["x"].isna(), 0.0, math.log(WIDTH))
        np.testing.assert_allclose(model.score_samples(frame), expected, atol=1e-9)
        np.testing.assert_allclose(model.explain(frame).sum(axis=1), -expected, atol=1e-9)
        rows = frame[:20]
        proba = model.predict_proba(rows, "x")
        np.testing.assert_allclose(proba, coarse.predict_proba(rows.assign(x=bands[:20]), "x"))
        inside = [proba.columns.get_loc(v) for v in model.impute(rows)["x"]]
        assert len(inside) == len(rows)
        median = model.predict_quantiles(rows, "x", 0.5)[0.5]
        below = proba.to_numpy().cumsum(1)[
            np.arange(20), [proba.columns.get_loc(v) for v in median]
        ]
        assert (below >= 0.5).all()
        drawn = model.sample(400, random_state=0)["x"]
        assert abs(drawn.mean() - frame["x"].mean()) < 4 * frame["x"].std() / 20
        assert drawn.nunique() > 300  # drawn within the bands, too
        model.save(tmp_path / "m")
        again = DiffusionDensity.load(tmp_path / "m", trusted=[Bands])
        np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
    assert "1 nominal, 1 bands, 1 ordinal" in model.model_card()
    detector = DiffusionOutlierDetector(FrozenEstimator(model), random_state=0).fit(frame)
    assert len(detector.reasons(rows.assign(x=5.9)))
    assert 0 <= detector.drift(rows).p_value <= 1


def test_every_kind_says_all_of_itself():
    frame = table(60)
    frame["t"] = pd.date_range("2024-01-01", periods=60, freq="31h")
    frame["c"] = [f"{row % 7}-{row}" for row in range(60)]
    for kind in KINDS:
        spec = {"nominal": "k", "clock": "t", "code": "c"}.get(kind, "x")
        codec = TableEncoder.fit(frame[[spec]], {spec: kind}).schema[0].codec
        assert isinstance(codec, KINDS[kind])
        assert codec.kind == kind
        assert codec.of_numbers is not bool(codec.categories)
        assert codec.has_levels == (codec.points.kind != "real")
        assert codec.is_ordered == (codec.points.kind != "simplex")
        assert codec.with_absent().kind == kind


def test_an_unknown_kind_is_an_error_that_names_it():
    frame = table(30)
    with pytest.raises(ValueError, match=r"column 'x': kind must be one of .*got 'cyclic'"):
        DiffusionDensity(column_types={"x": "cyclic"}).fit(frame)
    how = {"is_open": True, "missing": "marginalise", "from_array": False}
    with pytest.raises(ValueError, match="column 'x': unknown kind 'cyclic'"):
        infer_column(Observed("x", frame["x"]), ColumnSpec(kind="cyclic"), **how)
    with pytest.raises(ValueError, match="nominal or ordinal, got the kind 'cyclic'"):
        Categories("cyclic", ("a", "b"), open=True)
    with pytest.raises(ValueError, match="kind must be simplex, line or real, got 'cyclic'"):
        ColumnPoints("cyclic", 2)
    with pytest.raises(TypeError, match="column 'x': 'cyclic' is no kind of column"):
        Column("x", np.dtype(float), "cyclic", 2, 0)
