"""Identifiers and free text have no place in a model, unless they are wanted there."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity
from discrete_itd.cli.filling import given_row
from discrete_itd.encoders import TableEncoder
from discrete_itd.storage.values import flatten, unflatten
from discrete_itd.validation import from_shell

RNG = np.random.default_rng(0)
N = 500
REMARKS = ["would like to be called back", "has sent all the papers", "no answer at the telephone"]


def remarks(share):
    """Sentences of which a share have a number of their own."""
    own = RNG.random(N) < share
    return [
        f"{RNG.choice(REMARKS)} {i if new else ''}" for i, new in zip(range(N), own, strict=True)
    ]


def text(values):
    return pd.Series(values, dtype="str")


DAYS = list(pd.date_range("2024-01-01", periods=N - 60).strftime("%d.%m.%Y"))
COLUMNS = {
    "codes with gaps between": ([f"KA-{100_000 + 7 * i}" for i in range(N)], "identifiers"),
    "running numbers": (np.arange(N), "identifiers"),
    "in any order, with steps": (7000 + 9 * RNG.permutation(N), "identifiers"),
    "with a gap, as floats": (np.where(np.arange(N) == 3, np.nan, np.arange(N)), "identifiers"),
    "some rows twice": (np.append(np.arange(N - 20), np.arange(20)), "identifiers"),
    "long numbers": (10**15 + RNG.integers(0, 10**15, N), "identifiers"),
    "sentences": (remarks(0.3), "free text"),
    "sentences that all differ": (remarks(1.0), "free text"),
    "hashes": ([f"{i * 2**100:036x}" for i in range(N)], "identifiers"),
    "telephone numbers": (
        [f"0{6 + i % 2} 12 34 {i % 90:02} {i // 2 % 97:02}" for i in range(N)],
        "identifiers",
    ),
    "few sentences": (remarks(0.05), None),
    "measured, none twice": (RNG.integers(0, 10**9, N), None),
    "measured, some twice": (np.append(one := RNG.integers(0, 10**9, N - 25), one[:25]), None),
    "counts": (RNG.poisson(20_000, N), None),
    "real numbers": (RNG.normal(size=N), None),
    "codes, some rows twice": ([f"KA-{i % (N - 40)}" for i in range(N)], "identifiers"),
    "customers, one in five again": ([f"KA-{i % (N - 100)}" for i in range(N)], None),
    "times of day": ([f"{h:02}:{m:02}" for h, m in RNG.integers(0, (24, 60), (N, 2))], None),
    "times of day, none twice": ([f"{7 * i % 24}:{i % 60:02}" for i in range(110)], None),
    "dates and a placeholder": (["00.00.0000"] * 60 + DAYS, None),
    "dates that could be either": (
        [f"{a:02}.{b:02}.{c}" for a in range(1, 10) for b in range(1, 10) for c in (2023, 2024)],
        None,
    ),
    "numbers and an error": ([*(f"{i},5" for i in range(N)), "?"], None),
    "as many words": ([f"k{i % (N // 2)}" for i in range(N)], None),
    "categories": (pd.Categorical([f"k{i}" for i in range(N)]), None),
    "times": (pd.date_range("2024-01-01", periods=N), None),
    "truth values": (np.arange(N) % 2 == 0, None),
    "a constant": (["EUR"] * N, None),
}


def fitted(frame, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        encoder = TableEncoder.fit(frame, leave_out=True, **options)
    return encoder, [str(w.message) for w in said]


def test_identifiers_and_free_text_are_told_from_what_is_learned_from():
    for values in COLUMNS.values():
        cells, why = values
        frame = pd.DataFrame({"a": cells, "b": np.arange(len(cells)) % 3})
        encoder, said = fitted(frame)
        said = [t for t in said if "though it looks like" not in t and " missing" not in t]
        assert [column.why for column in encoder.left_out] == ([why] if why else [])
        assert encoder.names == (["b"] if why else ["a", "b"])
        assert [t.startswith("left out of the model: 'a'") for t in said] == [True] * bool(why)
        assert encoder.describe()["column"].tolist() == ["a", "b"]
        kept, said = fitted(frame, columns={"a": "nominal"} if why == "free text" else {"a": None})
        if why == "free text":
            assert kept.names == ["a", "b"]
            assert not said
        few, _ = fitted(frame[:99])
        assert few.names == ["a", "b"]  # too few rows to tell


def test_a_table_of_nothing_else_keeps_it_and_an_array_keeps_all():
    frame = pd.DataFrame({"a": np.arange(N), "b": [f"k{i}" for i in range(N)]})
    encoder, said = fitted(frame)
    assert encoder.names == ["a", "b"]
    assert all("looks like identifiers" in t for t in said)
    encoder, said = fitted(pd.DataFrame({0: np.arange(N), 1: 0}), from_array=True)
    assert encoder.names == [0, 1]
    assert len(said) == 1


def table(n=N):
    return pd.DataFrame(
        {
            "id": [f"KA-{7 * i}" for i in range(n)],
            "a": np.arange(n) % 3,
            "remark": (REMARKS * n)[: n // 2] + [f"was told of number {i}" for i in range(n - n // 2)],
            "b": np.where(np.arange(n) % 3 == 0, "x", "y"),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    with pytest.warns(UserWarning, match="left out of the model: 'id'.*'remark'") as said:
        fitted = DiffusionDensity(denoiser="tree", random_state=0).fit(table())
    assert len(said) == 1
    return fitted


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_new_tables_may_have_them_or_not(model, tmp_path):
    frame = table()
    nats = model.score_samples(frame)
    without = frame.drop(columns=["id", "remark"])
    assert (model.score_samples(without) == nats).all()
    assert (model.score_samples(frame.assign(id=1, remark=None)) == nats).all()
    assert (model.score_samples(frame[["b", "remark", "a"]][["a", "b"]]) == nats).all()
    assert (model.score_samples(frame.to_numpy()) == nats).all()  # by position
    assert model.n_features_in_ == 4
    assert list(model.feature_names_in_) == list(frame.columns)
    assert list(model.sample(2, random_state=0).columns) == ["a", "b"]
    assert model.encoder_.all_names == ["id", "a", "remark", "b"]
    model.save(tmp_path / "m.safetensors")
    again = DiffusionDensity.load(tmp_path / "m.safetensors")
    assert again.encoder_.left_out == model.encoder_.left_out
    assert (again.score_samples(frame) == nats).all()
    assert "left out: identifiers" in (tmp_path / "m.safetensors.md").read_text()


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_filled_tables_have_them_as_they_were(model):
    frame = table()
    gaps = frame.assign(b=frame["b"].where(np.arange(N) > 5))
    pd.testing.assert_frame_equal(model.impute(gaps), frame)
    filled = model.impute(gaps.to_numpy(dtype=object))
    assert (filled == frame.to_numpy(dtype=object)).all()


def test_what_may_be_amounts_can_be_kept_as_such():
    amounts = 1000 + 3 * RNG.permutation(N)
    for cells in (amounts, text(amounts.astype(str)), text([None, "NA", *amounts[2:].astype(str)])):
        frame = pd.DataFrame({"cents": cells, "b": 0})
        encoder, said = fitted(frame)
        assert encoder.names == ["b"]
        assert "column_types={'cents': 'nominal'} (or 'continuous', of amounts) keeps" in said[0]
        with from_shell():
            assert "--column cents=nominal (or continuous, of" in fitted(frame)[1][0]
        kept, _ = fitted(frame, columns={"cents": "continuous"})
        assert kept.schema[0].kind == "continuous"
        data, tensors = flatten(encoder)
        again = unflatten(TableEncoder, (json.loads(json.dumps(data)), tensors))
        assert again.left_out == encoder.left_out


ASKS = {
    "log_prob": (lambda m, t: m.log_prob(t, given=["id"]), "named in given=, but "),
    "sample": (lambda m, _: m.sample(2, given={"id": "KA-7"}), "named in given=, but "),
    "predict_proba": (lambda m, t: m.predict_proba(t, "id"), ""),
    "rows": (lambda m, t: m.rows(t, ignore="id"), "named in ignore=, but "),
    "of rows": (lambda m, t: m.rows(m.rows(t), ignore="id"), "named in ignore=, but "),
}


@pytest.mark.parametrize("case", ASKS.values(), ids=ASKS)
def test_who_asks_for_a_column_that_is_left_out_is_told_how_to_keep_it(model, case):
    ask, where = case
    keeps = r"a fit with column_types=\{'id': 'nominal'\} .*keeps it"
    words = rf"column 'id': {where}left out of the model, as it looks like identifiers; {keeps}"
    with pytest.raises(ValueError, match=words):
        ask(model, table())
    with pytest.raises(ValueError, match=r"column 'c': .*the model has no such column"):
        model.sample(2, given={"c": 1})


def test_who_asks_in_the_shell_is_told_its_option(model):
    keeps = r"a fit with --column id=nominal .*keeps it"
    with from_shell(), pytest.raises(ValueError, match=f"'id': named in --given, but .*; {keeps}"):
        given_row(model, {"id": "1"})


def test_a_stream_leaves_out_the_same(model):
    frame = table()
    with pytest.warns(UserWarning, match="left out of the model"):
        streamed = DiffusionDensity(denoiser="tree", random_state=0).fit([frame[:200], frame[200:]])
    assert streamed.encoder_.left_out == model.encoder_.left_out
