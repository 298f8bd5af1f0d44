"""Pictures: what is drawn is what the model says, on the axes that were given."""

import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from sklearn.exceptions import NotFittedError

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, plots
from discrete_itd.plots import RowScores, column_entropies, curve_areas, readable, shorten
from discrete_itd.reporting.findings import examine
from discrete_itd.statistics import p_value_band, percent
from tests import reported

pytestmark = pytest.mark.single_precision

PLOTS = {
    "mse_curve": lambda ax: plots.plot_mse_curve(reported.density(), reported.table(50, 9), ax),
    "scores": lambda ax: plots.plot_scores(reported.detector(), reported.table(50, 9), ax),
    "p_values": lambda ax: plots.plot_p_values(reported.detector(), reported.table(50, 9), ax),
    "columns": lambda ax: plots.plot_columns(reported.density(), reported.table(50, 9), ax),
    "information_matrix": lambda ax: plots.plot_information_matrix(
        reported.density(), reported.table(50, 9), ax
    ),
    "graph": lambda ax: plots.plot_graph(reported.density(), reported.table(500, 9), ax),
}


def words(ax):
    """All that is written on a picture."""
    ax.figure.canvas.draw()
    labels = [t.get_text() for t in ax.get_legend().get_texts()] if ax.get_legend() else []
    ticks = [t.get_text() for t in [*ax.get_xticklabels(), *ax.get_yticklabels()]]
    return [*labels, *ticks, ax.get_xlabel(), ax.get_ylabel()]


@pytest.mark.parametrize("n", [3, plots.MOST_NUMBERED + 1, plots.MOST_SHADED + 1])
def test_a_matrix_has_the_columns_that_share_most(n):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.integers(0, 2, (200, n)), columns=[f"c{i}" for i in range(n)])
    frame["c1"] = frame["c0"]
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame.astype(str))
    matrix = plots.information_matrix(model, model.rows(frame.astype(str)))
    assert matrix.loc["c0", "c1"] == pytest.approx(np.log(2), abs=0.05)
    ax = plots.plot_information_matrix(matrix)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[:2] == ["c0", "c1"]
    assert len(names) == min(n, plots.MOST_SHADED)
    assert len(ax.texts) == (6 if n == 3 else 0)
    assert len(ax.figure.axes) == 1 + (n > plots.MOST_NUMBERED)  # numbers, or a scale
    shades = ax.collections[0].get_array()
    assert float(shades[0, 1]) == matrix.loc["c0", "c1"] == shades.max()


@pytest.mark.parametrize("name", PLOTS)
def test_a_picture_is_drawn_on_the_axes_given_or_on_its_own(name):
    given = Figure().subplots()
    assert PLOTS[name](given) is given
    assert given.has_data()
    own = PLOTS[name](None)
    assert isinstance(own, Axes)
    assert own.figure is not given.figure
    assert len(own.figure.axes) == 1
    assert own.get_xlabel()
    own.figure.canvas.draw()


@pytest.mark.parametrize("name", PLOTS)
def test_pyplot_is_never_imported(name, monkeypatch):
    before = dict(matplotlib.rcParams)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # to import it is an error
    PLOTS[name](None)
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_a_picture_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "discrete-itd\[plot\]"'):
        plots.plot_columns(reported.density(), reported.table(50, 9))


@pytest.mark.parametrize("name", ["mse_curve", "columns", "information_matrix"])
def test_a_picture_of_a_density_takes_a_detector(name):
    plot = getattr(plots, f"plot_{name}")
    rows = reported.table(50, 9)
    given, own = plot(reported.detector(), rows), plot(reported.density(), rows)
    assert words(given) == words(own)


@pytest.mark.parametrize("name", PLOTS)
def test_a_picture_of_no_fitted_model_is_refused(name):
    plot = getattr(plots, f"plot_{name}")
    rows = reported.table(1, 9)
    for model in (DiffusionDensity(), DiffusionOutlierDetector()):
        with pytest.raises(NotFittedError):
            plot(model, rows)
    with pytest.raises(
        TypeError, match="fitted DiffusionDensity or DiffusionOutlierDetector, got int"
    ):
        plot(5, rows)


@pytest.mark.parametrize(
    "name", ["mse_curve", "scores", "p_values", "columns", "information_matrix"]
)
def test_a_picture_of_a_model_needs_rows(name):
    with pytest.raises(TypeError, match="figure of a DiffusionOutlierDetector needs rows"):
        getattr(plots, f"plot_{name}")(reported.detector())


def test_a_density_has_no_p_values_to_draw():
    with pytest.raises(
        TypeError, match="p-values need a DiffusionOutlierDetector; a density has none"
    ):
        plots.plot_p_values(reported.density(), reported.table(9, 9))


def test_a_score_that_is_no_surprisal_is_not_called_one():
    detector, rows = reported.default_detector(), reported.table(9, 9)
    assert plots.plot_scores(detector, rows).get_xlabel().startswith("anomaly score, nats")
    assert plots.plot_scores(reported.density(), rows).get_xlabel().startswith("surprisal, nats")


def test_the_areas_are_those_of_the_curve():
    model, rows = reported.density(), reported.table(50, 9)
    inner, outer = curve_areas(model.mse_curve(rows))
    ax = plots.plot_mse_curve(model, rows)
    assert {f"model: area {inner:.2f} nats", f"between them: {outer - inner:.2f} nats"} <= set(
        words(ax)
    )
    # for masses, the area is what a row costs, in both curves
    assert inner == pytest.approx(-model.score(rows), abs=0.3)
    x = np.log(np.linspace(1, 5, 2001))
    flat = pd.DataFrame({"logsnr": x, "mse": 2.0, "mse_independent": 4.0})
    assert curve_areas(flat) == pytest.approx((4.0, 8.0), rel=1e-5)  # 1/2 * mse * (5 - 1)


def test_of_densities_only_the_area_between_is_told():
    model, frame = reported.mixed_density()
    ax = plots.plot_mse_curve(model, frame[:10])
    assert not any("area" in w for w in words(ax))


def test_the_alarms_of_the_picture_are_those_of_the_detector():
    detector, rows = reported.detector(), pd.concat([reported.table(50, 9), reported.odd()])
    n = int((detector.predict(rows) == -1).sum())
    assert 0 < n < 54
    ax = plots.plot_scores(detector, rows)
    assert f"alarm: {n} of 54 rows ({percent(n / 54)})" in words(ax)
    assert f"threshold {-detector.offset_:.2f} nats" in words(ax)
    heights = [sum(bar.get_height() for bar in container) for container in ax.containers]
    assert heights == [54, n]


def test_scores_without_a_threshold_or_all_alike_are_drawn():
    ax = plots.plot_scores(reported.density(), reported.table(50, 9))
    assert ax.get_legend() is None
    for threshold in (1.0, np.inf):
        ax = plots.plot_scores(RowScores(np.full(3, 2.0), threshold=threshold))
        assert any("threshold" in w for w in words(ax)) == (threshold == 1.0)


def test_a_dollar_sign_begins_no_formula():
    name = "$\\frac{$"
    columns = pd.DataFrame(
        {"column": [name], "is_mass": True, "nats": 1.0, "nats_given_others": 0.5}
    )
    assert name in words(plots.plot_columns(columns))  # drawn, which a formula like that cannot be


@pytest.mark.parametrize("n", [3, plots.MOST_BARS, plots.MOST_BARS + 1])
def test_many_columns_end_in_one_bar_that_keeps_the_sum(n):
    nats = np.random.default_rng(0).random(n)
    columns = pd.DataFrame({"column": [f"c{i}" for i in range(n)], "is_mass": True})
    columns = columns.assign(nats=nats, nats_given_others=nats / 4)
    ax = plots.plot_columns(columns)
    assert len(ax.containers[0]) == min(n, plots.MOST_BARS)
    explained, own = (sum(bar.get_width() for bar in c) for c in ax.containers)
    assert (explained, own) == pytest.approx((0.75 * nats.sum(), 0.25 * nats.sum()))


def test_figures_of_findings_are_those_of_the_model():
    detector, rows = reported.detector(), reported.table(50, 9)
    found = examine(detector, rows, n_most_anomalous=0)
    p_values = plots.PValues(found.alarms.p_values, len(found.alarms.reference))
    for plot, numbers in (
        (plots.plot_scores, found.scores),
        (plots.plot_p_values, p_values),
        (plots.plot_columns, found.columns),
    ):
        assert words(plot(numbers)) == words(plot(detector, rows))


def test_columns_split_their_entropy():
    model, rows = reported.density(), reported.table(200, 9)
    columns = column_entropies(model, model.rows(rows)).set_index("column")
    told = columns["nats"] - columns["nats_given_others"]
    assert told["<b>twin</b>"] > 0.3  # its twin tells much
    assert abs(told["free"]) < 0.1  # and nobody tells anything of this one
    # a continuous column has no entropy to split
    ax = plots.plot_columns(*reported.mixed_density())
    own = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.containers[1], strict=True))
    assert own["size (density)"].get_width() == 0


def test_the_band_holds_so_many_tables_as_it_says():
    """Against simulation: ranks of ordinary rows among ordinary rows."""
    n, m, random = 60, 99, np.random.default_rng(0)
    level = np.array([0.05, 0.2, 0.5])
    shares = []
    for _ in range(1200):
        calibration = np.sort(random.random(m))
        p = (1 + np.searchsorted(calibration, random.random(n))) / (m + 1)
        shares.append((p[:, None] <= level + 1e-9).mean(0))
    low, high = p_value_band(level, n, m)
    inside = ((low <= np.array(shares)) & (np.array(shares) <= high)).mean(0)
    assert (inside >= 0.94).all()
    assert (inside <= 0.99).all()
    # with endless calibration rows it is binomial, at the ends it is certain
    binomial = stats.binom.ppf([[0.025], [0.975]], n, level) / n
    assert np.array(p_value_band(level, n, 10**7)) == pytest.approx(binomial)
    ends = p_value_band(np.array([0.0, 1.0]), n, m)
    assert np.array(ends).tolist() == [[0, 1], [0, 1]]


def test_the_curve_of_p_values_is_their_distribution():
    detector, rows = reported.detector(), reported.table(50, 9)
    p = np.sort(detector.p_values(rows))
    line = plots.plot_p_values(detector, rows).lines[1]
    assert line.get_xdata() == pytest.approx(np.r_[0, p, 1])
    assert line.get_ydata()[-2] == 1


def test_names_are_shortened_and_made_readable():
    assert shorten("a\n b\t c") == "a b c"
    assert shorten("x" * 100) == "x" * 26 + "…"
    assert readable("é ж 中 👩‍👩‍👧 \xa0ok") == "é ж 中 👩‍👩‍👧 \xa0ok"
    for bad in ("\x00", "\x1b", "\ud800", "\ufffe", "\u202e"):
        assert readable(f"a{bad}b") == "a\N{REPLACEMENT CHARACTER}b"
