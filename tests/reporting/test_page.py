"""The report: one page with the right numbers, inert and complete."""

import base64
import dataclasses
import datetime
import itertools
import re
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.detection.thresholds import Threshold
from discrete_itd.plots import new_axes
from discrete_itd.recipes import Causal
from discrete_itd.reporting import page
from discrete_itd.reporting.findings import Verdict, examine, share_interval
from discrete_itd.reporting.page import breakable, picture
from discrete_itd.statistics import percent
from tests import reported

pytestmark = pytest.mark.single_precision

DAY = datetime.date(2024, 3, 1)


class Reader(HTMLParser):
    """Elements with their attributes, and the text of the page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], []
        self.feed(text)
        self.words = " ".join("".join(self.text).split())

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("b", "span", "small", "wbr", "time"):
            self.text.append(" ")

    def handle_data(self, data):
        self.text.append(data)

    def values(self, key):
        return [a[key] for _, a in self.elements if key in a]


@pytest.fixture
def without_figures(monkeypatch):
    """Pages without figures, which take most of the time."""
    monkeypatch.setattr(page, "_drawings", lambda _: {})


def rows():
    return pd.concat([reported.table(60, 9), reported.odd()], ignore_index=True)


@pytest.fixture(scope="module")
def found():
    ordinary = reported.table(120, 8)
    return examine(
        reported.detector(), rows(), inliers=ordinary, target_nats=4.5, target_false_alarms=0.01
    )


@pytest.fixture(scope="module")
def text(found):
    return page.render(found, title=f"Rows & {reported.EVIL}", date=DAY)


@pytest.fixture(scope="module")
def read(text):
    return Reader(text)


# -- what it says -----------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_findings(found, read):
    detector = reported.detector()
    surprisal = -detector.density_.log_prob(reported.table(120, 8)).log_prob
    said = [
        f"Median surprisal of an inlier {np.median(surprisal):.2f} nats per row, mean {surprisal.mean():.2f} nats",
        f"Highest anomaly score {-detector.score_samples(rows()).min():.2f} nats",
        f"Alarms {(detector.predict(rows()) == -1).sum()} of 64,",
        f"the threshold of {-detector.offset_:.2f} nats",
        f"95 % interval {found.nats.low:.2f} to {found.nats.high:.2f}",
        "64 rows, 1 March 2024",
        page.longer_training(found),
        f"64 inliers would raise about {found.n_expected.mean:.0f} (",
        *(f"{name} ({n})" for name, n in page.blamed(found, "column")[:5]),
    ]
    for words in said:
        assert words in read.words
    for name, value in found.facts.items():
        assert f"{name} {value}" in read.words
    for sentence in found.limits:  # names in spans of code are elements
        assert re.sub(r"[`\s]", "", sentence) in re.sub(r"\s", "", read.words)
    for line in found.most_anomalous.to_dict("records"):
        assert f"{line['row']} {line['nats']:.1f} {line['p_value']:.2g}" in read.words
    columns = found.columns.set_index("column")
    for name, kind in (("free", "nominal"), ("<b>twin</b>", "ordinal")):
        alone, given = columns.loc[name, ["nats", "nats_given_others"]]
        assert f"{name} {kind} {alone:.2f} {given:.2f} {alone - given:.2f}" in read.words
    share = (found.alarms.p_values <= 0.1).mean()
    assert f"10 % {percent(share)} " in read.words


def test_reasons_are_told(found, read):
    assert any(
        "<b>twin</b> = 3 is " in text for row in found.most_anomalous["reasons"] for text in row
    )
    assert found.most_anomalous["reasons"][0][0] in read.words


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("nats", "alarms", "word"),
    [
        (None, None, "In short"),
        (0, 0.5, "Fail"),
        (99, 0.5, "Pass"),
        (99, "measured", "Undecided"),
    ],
)
def test_the_decision_comes_first_and_in_words(found, nats, alarms, word):
    alarms = found.alarms.rate.value if alarms == "measured" else alarms
    given = [("nats", found.nats, nats), ("false alarms", found.alarms.rate, alarms)]
    verdicts = tuple(Verdict(*v) for v in given if v[2] is not None)
    read = Reader(page.render(dataclasses.replace(found, verdicts=verdicts)))
    head = read.words.partition(" Training ")[0]
    assert word in head
    for own in verdicts:
        assert f"{page.VERDICTS[own.passed]}: {page.judgement(own, found)}." in head
    assert ("No target was set" in head) == (not verdicts)
    section = next(a for _, a in read.elements if a.get("id") == "decision")
    assert section["class"] == (word.lower() if verdicts else "none")


def test_too_few_rows_are_called_undecided(found):
    verdict = Verdict("false alarms", share_interval(0, 5), 0.05)
    assert verdict.passed is None
    line = page.judgement(verdict, found)
    assert line.endswith("the target is at most 5 %; more rows are needed to decide")


@pytest.mark.usefixtures("without_figures")
def test_a_density_has_a_report_that_says_what_it_lacks():
    model, frame = reported.mixed_density()
    text = page.report(model, frame[:20], n_most_anomalous=2)
    read = Reader(text)
    assert read.words.count("The model is a density without a threshold") == 1
    assert "of a density, which can be negative" in read.words
    assert "p\N{NON-BREAKING HYPHEN}value" not in read.words


def test_the_smallest_table_has_a_report():
    read = Reader(page.report(reported.density(), reported.table(1, 9), n_most_anomalous=0))
    assert "1 row," in read.words
    assert "No rows were requested." in read.words


@pytest.mark.usefixtures("without_figures")
def test_rows_are_called_inliers_only_if_they_were_given_as_such():
    rows, targets = reported.table(30, 9), {"target_nats": 4.0, "target_false_alarms": 0.5}
    given, own = (
        Reader(page.report(reported.detector(), rows, inliers=inliers, **targets)).words
        for inliers in (rows, None)
    )
    for template in (
        "Median surprisal of {a}",
        ": the mean surprisal of {a} is ",
        " of 30 {all} raise",
        "The surprisal of {a} is an estimate",
        "Nats per cell, the mean over {many}",
    ):
        inlier = template.format(a="an inlier", all="inliers", many="inliers")
        other = "row of this table"
        any_row = template.format(
            a=f"a {other}", all="rows of this table", many="rows of this table"
        )
        assert inlier in given
        assert inlier not in own
        assert any_row in own
        assert any_row not in given


@pytest.mark.usefixtures("without_figures")
def test_where_all_cells_are_missing_there_is_nothing_to_score():
    for model in (reported.density(), reported.detector()):
        read = Reader(page.report(model, reported.nothing(), target_nats=9.0))
        assert "Median surprisal of a row of this table None all cells are missing" in read.words
        assert "Undecided: all cells are missing, so there is nothing to score, the" in read.words
        assert "the target is at most 9 nats; more cells are needed to decide." in read.words
        assert read.words.count("All cells are missing, so there is nothing to score.") == 1
        assert not re.search(
            r"-?0\.00 nats like|Highest (surprisal|anomaly score)|at most -?0\.00|\binf\b|\bnan\b",
            read.words,
        )


def test_a_score_is_not_taken_for_surprisal(found):
    other, density = found, examine(reported.density(), reported.table(30, 9))
    assert (other.alarms.is_surprisal, density.alarms.is_surprisal) == (False, True)
    top = f"{other.surprisal.max():.2f} nats median {np.median(other.surprisal):.2f}"
    pages = {True: page.render(density), False: page.render(other)}
    words = {is_surprisal: Reader(text).words for is_surprisal, text in pages.items()}
    for line in (
        f"Highest anomaly score {top}; minus the detector's score, which is not on the scale of the surprisal",
        "Half of the rows have an anomaly score of at most",
        "The anomaly score is minus the score by which the detector ranks rows",
        "; the anomaly score has another error.",
        "A row with an anomaly score above the threshold raises an alarm",
        "but one nat more is not 2.7 times less likely",
        "rows with the highest anomaly score",
        "row anomaly score, nats p",
    ):
        assert line in words[False]
        assert line not in words[True]
    assert "A row with a surprisal above" in words[True]
    assert "A row with a surprisal above" not in words[False]
    assert "Histogram of the anomaly score of" in pages[False]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.filterwarnings("ignore:outside the range or the categories")
def test_a_pass_on_inliers_is_not_one_of_a_table_of_alarms():
    detector, inliers = reported.detector(), reported.table(300, 8)
    targets = {"inliers": inliers, "target_nats": 99, "target_false_alarms": 0.5}
    odd = pd.concat([reported.odd()] * 30, ignore_index=True)
    odd.loc[0, "free"] = "u"
    bad, good = (examine(detector, rows, **targets) for rows in (odd, reported.table(90, 9)))
    assert (bad.passed, bad.n_alarms, bad.has_many_alarms) == (True, 120, True)
    assert (good.passed, good.has_many_alarms) == (True, False)
    for found, state in ((bad, "undecided"), (good, "pass")):
        read = Reader(page.render(found))
        section = next(a for _, a in read.elements if a.get("id") == "decision")
        assert section["class"] == state
        assert ("120 of 120 rows of this table raise an alarm" in read.words) == (found is bad)
        assert ("the data have changed: see the columns in detector.drift(X)" in read.words) == (
            found is bad
        )
        assert read.words.count(" Next: ") >= 4
    assert not examine(
        detector, odd, target_nats=99
    ).has_many_alarms  # they are measured themselves


@pytest.mark.usefixtures("without_figures")
def test_a_model_in_closed_form_is_not_asked_for_steps():
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(reported.table(300, 0))
    words = Reader(page.render(examine(model, reported.table(60, 1)))).words
    assert "How the model was fitted Training: none, in closed form." in words
    assert "rows are scored in closed form, without error" in words
    for absent in ("0 steps", "Was training long enough", "network evaluations", "validations"):
        assert absent not in words


@pytest.mark.usefixtures("without_figures")
def test_a_threshold_of_fitted_rows_claims_no_rate():
    found = examine(reported.default_detector(calibration_fraction=0), reported.table(30, 9))
    words = Reader(page.render(found)).words
    assert "set on rows used in the fit" in words
    assert "There are no p-values because" in words
    assert "The threshold is set on training rows" in words
    assert not re.search(r"nan|\b0 calibration rows", words)


@pytest.mark.usefixtures("without_figures")
def test_a_threshold_that_raises_no_alarm_says_so_in_words(found):
    never = Threshold(-np.inf, 0.0, 0.0, 0.0, 200, cost=(1.0, 0.5, 2.0))
    alarms = dataclasses.replace(found.alarms, threshold=never)
    words = Reader(page.render(dataclasses.replace(found, alarms=alarms))).words
    assert "are above the threshold: none is worth its check; cost per row" in words
    assert "Alarms 0 of 64, 0 %" in words
    assert "The threshold minimises the cost" in words
    assert not re.search(r"\binf\b", words)


@pytest.mark.usefixtures("without_figures")
def test_calibration_rows_with_anomalies_are_not_called_inliers():
    found = examine(reported.default_detector(contamination=0.1), reported.table(30, 9))
    words = Reader(page.render(found)).words
    assert f"nats: {found.alarms.threshold.meaning}." in words
    assert "of the calibration rows, anomalies among them" in words
    assert "The calibration rows contain anomalies." in words
    assert "set on rows that contain anomalies" in words
    assert (
        "The share of calibration rows, which contain anomalies, that are at least as anomalous"
        in words
    )
    assert "% of inliers" not in words


@pytest.mark.usefixtures("without_figures")
def test_one_row_is_one_and_two_are_two(found):
    alarms = dataclasses.replace(found.alarms, p_values=found.alarms.p_values[:1])
    one = dataclasses.replace(
        found, stderr=found.stderr[:1], alarms=alarms, most_anomalous=found.most_anomalous[:1]
    )
    words = Reader(page.render(one)).words
    assert "If the 1 row examined here is an inlier, with probability t it has" in words
    assert "The row with the highest anomaly score" in words
    many = Reader(page.render(dataclasses.replace(found, surprisal=np.array([0.0, 99.0])))).words
    assert "If the 120 rows examined here are inliers, about a share t of them has" in many
    assert "1 row of 2 is above the threshold" in many
    verdict = Verdict("false alarms", share_interval(1, 120), 0.5)
    assert page.judgement(verdict, found).startswith("1 of 120 inliers raises an alarm")


@pytest.mark.usefixtures("without_figures")
def test_no_title_is_the_general_one(found):
    assert "<h1>How surprising are these rows?</h1>" in page.render(found, title=" \n")


def test_small_shares_are_told_from_none():
    for number, words in [
        (0.0, "0 %"), (1e-6, "<0.01 %"), (0.00123, "0.123 %"), (0.01, "1 %"), (0.1234, "12.3 %"), (1.0, "100 %"),
    ]:  # fmt: skip
        assert percent(number) == words


# -- what it is -------------------------------------------------------------------------------------


def test_nothing_the_user_wrote_is_more_than_text(text, read):
    names = [n for n, _ in read.elements]
    assert "script" not in names
    assert names.count("b") == 4
    assert reported.EVIL not in text
    assert f"Rows & {reported.EVIL}" in read.words
    assert "<b>twin</b> ordinal" in read.words
    assert not [a for _, a in read.elements for k in a if k.startswith("on")]


def test_nothing_is_loaded(text, read):
    text = re.sub(r'src="data:image/svg\+xml;base64,[^"]*"', "", text)
    assert not re.search(r"https?:|//\w", text)
    assert not re.search(r"@import|@font-face|<(iframe|object|embed|base|form|image)\b", text)
    for value in [*read.values("href"), *read.values("src")]:
        assert value.startswith(("#", "data:image/svg+xml;base64,")) or value == "data:,"
    policy = [a["content"] for _, a in read.elements if a.get("http-equiv")]
    assert [p.partition(";")[0] for p in policy] == ["default-src 'none'"]


def test_ids_are_unique_and_what_points_to_them_arrives(read):
    ids = read.values("id")
    assert max(Counter(ids).values()) == 1
    pointed = [
        *read.values("aria-labelledby"),
        *(v[1:] for v in read.values("href") if v[0] == "#"),
    ]
    assert set(pointed) <= set(ids)


def test_headings_tables_and_pictures_are_described(read):
    levels = [int(n[1]) for n, _ in read.elements if re.fullmatch(r"h\d", n)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    pictures = [a for n, a in read.elements if n == "img"]
    assert len(pictures) == 5
    assert all(a["alt"] for a in pictures)
    assert all(a.get("scope") in ("row", "col") for n, a in read.elements if n == "th")
    names = Counter(n for n, _ in read.elements)
    assert names["table"] == names["caption"] == names["thead"] == 3
    assert ("html", {"lang": "en"}) in read.elements


def test_the_page_depends_on_nothing_but_the_findings(found, text, monkeypatch):
    before = dict(matplotlib.rcParams)
    assert page.render(found, title=f"Rows & {reported.EVIL}", date=DAY) == text
    assert dict(matplotlib.rcParams) == before
    monkeypatch.setattr(page, "_drawings", lambda _: {})
    assert f'datetime="{datetime.date.today()}"' in page.render(found)


@pytest.mark.usefixtures("without_figures")
def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    assert page.report(reported.density(), reported.table(9, 9), out=path) == path
    assert path.read_text("utf-8").endswith("</html>\n")
    path.write_text("before")

    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(page, "render", broken)
    with pytest.raises(RuntimeError, match="broken"):
        page.report(reported.density(), reported.table(9, 9), out=path)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert path.read_text() == "before"
    monkeypatch.setattr(page, "render", lambda *_, **__: "\ud800")  # what no file can hold
    with pytest.raises(UnicodeEncodeError):
        page.report(reported.density(), reported.table(9, 9), out=path)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert path.read_text() == "before"


@pytest.mark.parametrize("out", ["folder", "no/r.html"])
def test_where_no_file_can_be_is_told_before_the_work(tmp_path, monkeypatch, out):
    (tmp_path / "folder").mkdir()

    def work(*_, **__):
        raise AssertionError("worked")

    monkeypatch.setattr(page, "examine", work)
    with pytest.raises(OSError, match=r"not a regular file|no such folder"):
        page.report(reported.density(), reported.table(9, 9), out=tmp_path / out)
    (tmp_path / "r.html").write_text("before")
    with pytest.raises(AssertionError, match="worked"):
        page.report(reported.density(), reported.table(9, 9), out=tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "r.html"]


@pytest.mark.usefixtures("without_figures")
def test_values_of_any_script_and_of_none_are_written(tmp_path):
    frame = reported.table(9, 9)
    frame.loc[0, "kind"] = "中文 \x00 \u202e ‱ &amp;"
    frame.index = [f"row {i} \x1b" for i in range(9)]
    page.report(reported.density(), frame, out=tmp_path / "r.html")
    read = Reader((tmp_path / "r.html").read_text("utf-8"))
    assert r"'中文 \x00 \u202e ‱ &amp;'" in read.words


# -- markup -----------------------------------------------------------------------------------------


def test_long_names_can_break():
    assert breakable("a_b<_c") == "a_<wbr>b&lt;_<wbr>c"
    assert Reader(breakable("_a__b|c_")).words == "_a__b|c_"


def test_pictures_keep_their_words_and_hold_nothing_else():
    ax = new_axes()
    ax.plot([0, 1])
    ax.set_title('id="x" url(#y) <s>')
    kind, _, content = picture(ax).partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert 'id="x" url(#y) <s>' in Reader(base64.b64decode(content).decode()).words
    assert picture(ax) == f"{kind},{content}"


# -- which row it is, and why -----------------------------------------------------------------------


def with_keys():
    frame = rows()
    return frame.assign(id=[f"K-{i:03}" for i in range(len(frame))])


@pytest.mark.usefixtures("without_figures")
def test_columns_to_keep_say_which_row_it_is():
    detector, frame = reported.detector(), with_keys()
    found = examine(detector, frame, keep=["id", "free"])
    first = found.most_anomalous.iloc[0]
    own = frame.loc[first["row"]]
    assert first["cells"][:2] == (("id", own["id"], False), ("free", own["free"], True))
    assert [name for name, _, _ in first["cells"]] == ["id", "free", "kind", "<b>twin</b>"]
    read = Reader(page.render(found))
    assert f"id {own['id']} free ?" in read.words
    assert sum(name == "mark" for name, _ in read.elements) >= 4


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(("keep", "error"), [(["no"], ValueError), ("id", TypeError)])
def test_only_columns_of_the_table_are_kept(keep, error):
    with pytest.raises(error, match="keep"):
        examine(reported.detector(), rows(), keep=keep)


def test_anomalies_come_first_and_training_last(read):
    places = [a["id"] for name, a in read.elements if name == "section"]
    assert places[:2] == ["decision", "anomalies"]
    assert places[-1] == "training"


@pytest.mark.usefixtures("without_figures")
def test_pairs_of_columns_are_shown_where_that_is_cheap(monkeypatch):
    model, rows = reported.density(), reported.table(50, 9)
    shown = Reader(page.report(model, rows, n_most_anomalous=0))
    assert "Most is shared by kind and <b>twin</b>" in shown.words
    monkeypatch.setattr("discrete_itd.reporting.findings.MOST_WORK", 1)
    hidden = Reader(page.report(model, rows, n_most_anomalous=0))
    for read, there in ((shown, True), (hidden, False)):
        for section in ("information", "graph"):
            assert (f"#{section}" in read.values("href")) is there
            assert any(a.get("id") == section for _, a in read.elements) is there


# -- what is true of the model ----------------------------------------------------------------------


STEPS = np.arange(1, 41) * 50


def curve_of(nats, steps=STEPS):
    """The history of a training with these held-out nats after the steps."""
    return pd.DataFrame({"step": [0, *steps], "valid_nats": [99.0, *nats], "seconds": 1.0})


@pytest.mark.parametrize("exponent", [0.1, 0.7, 2.0])
def test_property_twice_the_steps_gain_less_than_the_second_half_did(found, exponent):
    """Along power laws; what is said is the bound, or that there is none."""
    after = dataclasses.replace(found, history=curve_of(8 + (STEPS / 2000) ** -exponent))
    gain = 1 - 2.0**-exponent  # of 2 000 more
    assert gain < after.late_gain < 5 * gain
    assert f"gained about {after.late_gain:.2f} nats" in page.longer_training(after)
    turned = dataclasses.replace(found, history=curve_of(8 + abs(STEPS - 700) / 1000))
    assert turned.late_gain == 0
    assert "would not help" in page.longer_training(turned)
    one = dataclasses.replace(found, history=curve_of([8.0], np.array([50])))
    assert one.late_gain is None
    assert "too few validations" in page.longer_training(one)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    ("stopped", "advice"), [("max_time", "again with more time"), ("interrupted", "without interr")]
)
def test_a_fit_that_was_cut_short_is_to_be_done_again(found, stopped, advice):
    cut = dataclasses.replace(found, stopped=stopped)
    assert advice in Reader(page.render(cut)).words
    history = found.history.assign(step=0)
    assert advice in page.longer_training(dataclasses.replace(cut, history=history))


def test_five_rows_have_a_report():
    frame = pd.DataFrame({"a": [1.5, 2.5, 3.5, 2.2, 9.1], "b": list("uvuvu")})
    causal = Causal(base="independent", width=8, depth=1)
    model = DiffusionDensity(denoiser=causal, max_steps=3, random_state=0).fit(frame)
    assert "Was training long enough?" in page.report(model, frame)


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.05, "use the p-values as they are"), (0.2, "calibrate anew"), (0.001, "used for the fit")],
)
def test_p_values_are_judged_by_their_range_on_both_sides(share, words):
    table = pd.DataFrame({"level": [0.05], "share": [share], "low": [0.02], "high": [0.08]})
    found = SimpleNamespace(alarms=SimpleNamespace(calibration=table))
    assert words in page.after_calibration(found)
