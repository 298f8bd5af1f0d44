"""Laws of codes: shares that add up, the way back, new codes of known prefixes, and what is not cut."""

import warnings

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.cli import main
from discrete_itd.detection.outside import RepeatedKeys
from discrete_itd.encoders import Codes, TableEncoder
from discrete_itd.encoders.codes import cuts_of, fit_codes, prefix_of, shape_of

REGIONS = np.array(["north", "east", "south", "west", "isles"])


def table(n=600, seed=0, *, n_codes=None, form="{:02d}{:03d}-{:03d}", related=True):
    """Regions, postcodes of ten prefixes, two for each region, and an amount; ``n_codes`` different ones at most."""
    rng = np.random.default_rng(seed)
    codes = np.random.default_rng(7).integers(0, [10, 1000, 1000], (n_codes or n, 3))
    if n_codes is None:
        codes = rng.integers(0, [10, 1000, 1000], (n, 3))
    chosen = codes[rng.integers(0, len(codes), n) if n_codes else np.arange(n)]
    region = REGIONS[chosen[:, 0] // 2] if related else rng.choice(REGIONS, n)
    text = [form.format(*code) for code in (chosen + np.array([10, 0, 0])).tolist()]
    return pd.DataFrame({"amount": rng.integers(0, 400, n) / 4, "code": text, "region": region})


def codec_of(frame, **how):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "left out")
        encoder = TableEncoder.fit(frame, leave_out=True, **how)
    found = [column.codec for column in encoder.schema if column.kind == "code"]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("form", "cut"),
    [("{:02d}{:03d}-{:03d}", 2), ("K{:02d} {:03d}{:03d}", 3), ("{:d}/{:d}/{:d}", -1)],
)
@pytest.mark.parametrize("n_codes", [None, 90])
def test_codes_are_cut_where_the_others_say_most_whatever_the_order(form, cut, n_codes):
    frame = table(form=form, n_codes=n_codes)
    codec = codec_of(frame)
    assert isinstance(codec, Codes)
    assert {prefix_of(code, codec.cut) for code in frame["code"]} == set(codec.prefixes)
    assert len(codec.prefixes) == 10
    assert codec.cut in (cut, abs(cut) + 1)
    assert bool(codec.codes) is (n_codes is not None)
    mixed = frame[["region", "code", "amount"]].sample(frac=1, random_state=1)
    assert codec_of(mixed) == codec


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_cut_that_no_column_tells_or_that_rows_are_numbered_by(seed):
    assert codec_of(table(seed=seed, related=False)) is None
    assert codec_of(table(seed=seed, related=False, n_codes=60)) is None
    few = table(seed=seed, n_codes=8)  # as levels, whole codes are told as well
    assert codec_of(few) is None
    numbered = table(seed=seed).sort_values("code")
    assert codec_of(numbered) is None


@pytest.mark.parametrize("n_codes", [None, 90, 400])
def test_shares_of_a_prefix_add_up_to_one_and_decoding_keeps_it(n_codes):
    frame = table(n_codes=n_codes)
    codec = codec_of(frame)
    values, level, share = codec.values()
    seen = np.bincount(level, share)
    np.testing.assert_allclose(seen + (np.array(codec.new) if codec.codes else 0), 1)
    encoder = TableEncoder.fit(frame, leave_out=True)
    cells = encoder.transform(frame)
    for rng in (None, np.random.default_rng(0)):
        back = encoder.inverse_transform(cells.x, rng=rng)
        np.testing.assert_array_equal(encoder.transform(back).x, cells.x)
        assert {*map(shape_of, back["code"])} <= set(codec.shapes)
        if codec.codes:
            assert set(back["code"]) <= set(frame["code"])
    if codec.codes:
        known = dict(zip(values, np.log(share), strict=True))
        own = cells.log_volume[:, encoder.names.index("code")]
        np.testing.assert_allclose(own, [known[code] for code in frame["code"]])
        drawn = encoder.inverse_transform(
            np.repeat(cells.x[:1], 4000, 0), rng=np.random.default_rng(1)
        )["code"].value_counts(normalize=True)
        of_prefix = level == cells.x[0, encoder.names.index("code")]
        wanted = pd.Series(share[of_prefix] / share[of_prefix].sum(), values[of_prefix])
        assert (drawn - wanted).abs().max() < 0.05


def test_a_new_code_of_a_known_prefix_is_not_unseen_and_one_of_another_shape_is():
    frame = table()
    model = DiffusionDensity(denoiser="tree", random_state=0).fit(frame)
    row = frame.iloc[[0]]
    new = row["code"].str[:2].iloc[0] + "987-654"
    assert new not in set(frame["code"])
    of_new, of_old, odd = (
        model.score_samples(row.assign(code=code))[0]
        for code in (new, row["code"].iloc[0], new.replace("-", "/"))
    )
    assert of_new == of_old > odd
    assert model.score_samples(row.assign(code="99123-456"))[0] < of_new - 2
    every = [f"{prefix}000-000" for prefix in range(10, 20)]
    total = np.exp(model.predict_log_density(row, "code", every)).sum(axis=1)
    assert 0.9 < total[0] <= 1
    draws = model.sample(50, random_state=0, given={"region": "isles"})
    assert {code[:2] for code in draws["code"]} <= {"18", "19"}
    filled = model.impute(frame.head(20).assign(code=None))
    assert {*zip(filled["code"].str[:2], filled["region"], strict=True)} <= {
        *zip(frame["code"].str[:2], frame["region"], strict=True)
    }


def test_a_code_of_another_region_alarms_and_its_reason_names_the_prefix(tmp_path):
    frame = table(500)
    detector = DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(frame)
    new = table(300, 5)
    wrong = new.assign(code=new["code"].to_numpy()[np.roll(np.arange(300), 1)])
    wrong = wrong[REGIONS[(wrong["code"].str[:2].astype(int) - 10) // 2] != wrong["region"]]
    assert np.mean(detector.predict(new) == -1) < 0.06
    assert np.median(detector.score_samples(wrong)) < np.quantile(detector.score_samples(new), 0.02)
    first = detector.reasons(wrong.head(20), k=1)
    assert set(first["column"]) <= {"code", "region"}
    assert first.loc[first["column"] == "code", "expected"].str.endswith("…").all()
    detector.save(tmp_path / "m")
    again = DiffusionOutlierDetector.load(tmp_path / "m")
    np.testing.assert_array_equal(again.score_samples(new), detector.score_samples(new))
    assert "codes: the first" in detector.density_.encoder_.describe()["read"].str.cat()


def test_what_others_do_not_tell_of_a_code_is_no_part_of_the_score():
    frame = table(900, n_codes=120)
    detector = DiffusionOutlierDetector(denoiser="tree", random_state=0).fit(frame)
    codec = detector.density_.encoder_.schema[1].codec
    by_prefix = pd.Series(codec.codes).groupby([code[:2] for code in codec.codes]).agg(list)
    first, second = next(codes[:2] for codes in by_prefix if len(codes) > 1)
    row = frame.iloc[[0]]
    scores = detector.score_samples(pd.concat([row.assign(code=first), row.assign(code=second)]))
    assert scores[0] == scores[1]


def test_codes_may_be_declared_or_refused_and_errors_name_the_column():
    frame = table(40, related=False)
    asked = codec_of(frame, columns={"code": "code"})
    assert isinstance(asked, Codes)
    with_gaps = frame.assign(code=frame["code"].where(frame.index % 5 > 0))
    absent = codec_of(with_gaps, columns={"code": {"kind": "code", "missing": "category"}})
    assert absent.absent_level == len(absent.prefixes)
    nominal = TableEncoder.fit(table(), {"code": "nominal"}, leave_out=True)
    assert nominal.schema[1].kind == "nominal"
    with pytest.raises(ValueError, match="column 'amount': codes are text, got"):
        TableEncoder.fit(frame, {"amount": "code"})
    refitted = TableEncoder.fit(table(), leave_out=True).refit(table(300, 3))
    assert refitted.schema[1].codec.cut == codec_of(table()).cut


def test_words_and_free_shapes_are_no_codes():
    counts = np.ones(30, int)
    assert not cuts_of([f"{'word' * (1 + k)}" for k in range(30)], counts)
    shapes = ["".join(np.random.default_rng(k).choice(list("a1-"), 12)) for k in range(300)]
    assert not cuts_of(shapes, np.ones(300, int))
    codec = fit_codes([f"{k % 3}-{k:02d}" for k in range(30)], counts, 1)
    assert codec.n_levels == 3


def test_a_key_that_repeats_though_none_did_in_training_is_said(tmp_path, capsys):
    frame = table(300, related=False).assign(
        id=[f"x{k:04d}" for k in range(300)], often=[f"y{k - (k == 7)}" for k in range(300)]
    )
    how = {"false_alarm_rate": 0.05, "random_state": 0}
    with pytest.warns(UserWarning, match="left out"):
        detector = DiffusionOutlierDetector(denoiser="independent", **how).fit(frame)
    new = frame.head(40).assign(often="y1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.predict(new)
    again = new.assign(id=[*new["id"].iloc[:39], "x0003"])
    with pytest.warns(UserWarning, match="'id' .1 rows, the first with 'x0003'.$"):
        detector.predict(again)
    for parts in (1, 3, 40):
        keys = RepeatedKeys(detector.density_.encoder_, again.columns)
        for rows in np.array_split(np.arange(40), parts):
            keys.add(again.iloc[rows])
        assert keys.sentence().endswith("columns 'id' (1 rows, the first with 'x0003')")
    detector.save(tmp_path / "m")
    again.to_csv(tmp_path / "t.csv", index=False)
    main(
        [
            "score",
            *(str(tmp_path / name) for name in ("m", "t.csv")),
            "--out",
            str(tmp_path / "s.csv"),
        ]
    )
    assert "columns 'id' (1 rows, the first with 'x0003')" in capsys.readouterr().err


def test_documents_numbered_by_year_are_not_cut_but_tables_sorted_by_region_are():
    frame = table()
    by_region = frame.sort_values("region", kind="stable")
    assert codec_of(by_region) == codec_of(frame)
    typo = frame["code"].where(frame.index != 300, "K" + frame["code"].str[1:])
    assert codec_of(frame.assign(code=typo)).cut == codec_of(frame).cut
    year = 2015 + np.arange(len(frame)) // 60
    rest = frame["code"].str[3:]
    numbered = frame.assign(code=[f"{y}-{r}" for y, r in zip(year, rest, strict=True)], region=year)
    assert codec_of(numbered) is None


def test_errors_on_declared_codes_name_the_cell_that_is_none():
    frame = table(60)
    with pytest.warns(UserWarning, match="every cell is missing"):
        assert codec_of(frame.assign(code=None), columns={"code": "code"}) is None
    odd = frame.assign(code=frame["code"].where(frame.index != 9, 7))
    with pytest.raises(ValueError, match="column 'code': codes are text, got 7; make"):
        TableEncoder.fit(odd, {"code": "code"})
    with pytest.raises(TypeError, match=r"column 'code': argument must be .*got \['a'\]"):
        TableEncoder.fit(frame, {"code": "code"}).transform(frame.head(1).assign(code=[["a"]]))
