"""Scores of stored models without torch are those of the estimators that wrote them."""

import json
import pickle
import subprocess
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import special

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch, light
from discrete_itd.cli.command import main
from discrete_itd.detection.answers import answers, checked_outputs
from discrete_itd.light.densities import log_between
from discrete_itd.recipes import BayesNet, Causal, Forest, Mixture, RowMixture, Trees
from discrete_itd.scale import BatchScoring
from discrete_itd.scale.batches import read_model

CAUSAL = Causal(1, width=16, depth=1)
RECIPES = {
    "independent": "independent",
    "tree": "tree",
    "bayes_net": BayesNet(),
    "mixture": Mixture(8),
    "forest": Forest(8),
    "causal": CAUSAL,
    "row_mixture": RowMixture(("independent", Mixture(4), Forest(4), CAUSAL)),
    "trees": Trees(3),
}
ROUNDED = {"rtol": 1e-8, "atol": 1e-8}  # of models in float64
SINGLE = {"rtol": 1e-6, "atol": 1e-5}  # torch computes those in float32 in float32


def table(n=400, seed=0, *, numbers=True):
    """Categories that depend on one another, ordinals, numbers and gaps."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 4, n)
    b = (a + rng.integers(0, 2, n)) % 4
    frame = pd.DataFrame(
        {
            "a": np.array(list("wxyz"))[a],
            "b": np.array(list("pqrs"))[b],
            "c": (a + b) % 3,
            "d": rng.choice([True, False], n),
        }
    )
    if numbers:
        frame["e"] = np.round(a + rng.normal(size=n), 4)
        frame["f"] = rng.gamma(2.0, size=n) + 2 * frame["e"]
    for j, name in enumerate(frame.columns[:-1]):
        frame[name] = frame[name].astype(object).mask(rng.random(n) < 0.03 * j)
    return frame.convert_dtypes()


def new_rows(frame):
    """Other rows: all kinds of gaps, unseen categories, and numbers far away."""
    new = table(60, 1, numbers="e" in frame)
    patterns = np.random.default_rng(2).random((40, new.shape[1])) < 0.4
    for i, hidden in enumerate(patterns):
        new.loc[i, list(new.columns[hidden])] = pd.NA
    new.loc[50, "a"] = "new"
    if "e" in new:
        new.loc[51, "e"] = 50.0
    return new


@pytest.fixture(
    scope="module", params=[*product(RECIPES, ["marginalise", "category"])], ids="-".join
)
def stored(request, tmp_path_factory):
    """A detector, the same without torch, and rows."""
    name, missing = request.param
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # as the tests themselves do
    frame = table(numbers=name != "bayes_net")
    density = DiffusionDensity(
        denoiser=RECIPES[name], missing=missing, max_steps=30, n_evaluations=4, random_state=0
    )
    detector = DiffusionOutlierDetector(
        density,
        contamination=0.1 if name == "mixture" else "auto",
        false_alarm_rate=0.05,
        random_state=0,
    ).fit(frame)
    torch.set_default_dtype(before)
    path = tmp_path_factory.mktemp("light") / "m.safetensors"
    detector.save(path, card=False)
    return detector, light.load(path), new_rows(frame)


def test_scores_are_those_of_the_detector(stored):
    detector, found, rows = stored
    np.testing.assert_allclose(found.score_samples(rows), detector.score_samples(rows), **ROUNDED)
    pd.testing.assert_frame_equal(found.explain(rows), detector.explain(rows), **ROUNDED)
    assert (found.p_values(rows) == detector.p_values(rows)).all()
    two = {"two_sided": True}
    assert (found.p_values(rows, **two) == detector.p_values(rows, **two)).all()
    assert (found.predict(rows) == detector.predict(rows)).all()
    pd.testing.assert_frame_equal(found.explain(), detector.explain())
    assert found.threshold_ == detector.threshold_
    assert found.threshold_at_rate(0.2) == detector.threshold_at_rate(0.2)
    below = found.decision_function(rows) < 0
    assert (below == (detector.decision_function(rows) < 0)).all()


def test_log_probabilities_are_those_of_the_density(stored):
    detector, found, rows = stored
    density, own = detector.density_, found.density_
    estimate, known = own.log_prob(rows), density.log_prob(rows)
    np.testing.assert_allclose(estimate.log_prob, known.log_prob, **ROUNDED)
    np.testing.assert_allclose(estimate.stderr, known.stderr, **ROUNDED)
    pd.testing.assert_frame_equal(own.explain(rows), density.explain(rows), **ROUNDED)
    given = own.log_prob(rows, ["a"]), density.log_prob(rows, ["a"])
    np.testing.assert_allclose(given[0].log_prob, given[1].log_prob, **ROUNDED)


def test_a_row_scores_alone_as_in_any_batch(stored):
    _, found, rows = stored
    whole = found.score_samples(rows)
    alone = [found.score_samples(rows[i : i + 1])[0] for i in range(0, len(rows), 7)]
    assert (whole[::7] == alone).all()
    row = rows.iloc[45].to_dict()
    assert found.score_samples(row)[0] == whole[45]
    assert found.score_samples(rows[:0]).shape == (0,)


def test_a_density_alone_an_array_and_high_cardinality(tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (200, 3))
    model = DiffusionDensity(denoiser="forest", random_state=0).fit(codes)
    model.save(tmp_path / "m", card=False)
    found = light.load(tmp_path / "m")
    np.testing.assert_allclose(found.score_samples(codes), model.score_samples(codes), **ROUNDED)
    with pytest.raises(ValueError, match="X has 2 features"):
        found.rows(codes[:, :2])
    wide = pd.DataFrame({"k": np.arange(3000) % 1500, "a": np.arange(3000) % 2}).astype(str)
    model = DiffusionDensity(denoiser="tree", column_types={"k": "nominal"}, random_state=0).fit(
        wide
    )
    model.save(tmp_path / "m", card=False)
    wide.loc[0, "k"] = "new"
    found = light.load(tmp_path / "m")
    np.testing.assert_allclose(found.score_samples(wide), model.score_samples(wide), **ROUNDED)


def test_refuses_what_it_does_not_compute(tmp_path):
    frame = table(120, numbers=False)
    path = tmp_path / "m"
    DiffusionDensity(denoiser="network", max_steps=2, random_state=0).fit(frame).save(
        path, card=False
    )
    with pytest.raises(light.NotCoveredError, match="a NeuralDenoiser needs torch"):
        light.load(path)
    detector = DiffusionOutlierDetector(
        denoiser="tree", given="d", false_alarm_rate=0.2, random_state=0
    )
    detector.fit(frame).save(path, card=False)
    with pytest.raises(light.NotCoveredError, match="given= needs torch"):
        light.load(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"m: .*damaged"):
        light.load(path)


def test_names_the_column_that_does_not_fit(tmp_path):
    frame = table(120)
    DiffusionDensity(denoiser="independent", random_state=0).fit(frame).save(
        tmp_path / "m", card=False
    )
    found = light.load(tmp_path / "m")
    with pytest.raises(ValueError, match="column 'b': the model knows it, the table lacks it"):
        found.score_samples({"a": "x"})
    row = frame.iloc[0].to_dict()
    with pytest.raises(ValueError, match="column 'e': expected numbers, got 'much'"):
        found.score_samples(row | {"e": "much"})
    with pytest.warns(UserWarning, match="ignoring 1 of 7 columns: z"):
        found.score_samples(row | {"z": 1})


def test_says_what_is_no_table(tmp_path):
    frame = pd.DataFrame({"a": ["x", "y"] * 20})
    DiffusionDensity(denoiser="tree", random_state=0).fit(frame).save(tmp_path / "m")
    scorer = light.load(tmp_path / "m")
    for X in (None, 3, [{"a": "x"}]):
        with pytest.raises(TypeError, match="table"):
            scorer.score_samples(X)
    for X in (np.array(["x"]), frame["a"], "x"):
        with pytest.raises(ValueError, match=r"X must be a table or an array \(N, C\), got"):
            scorer.score_samples(X)


def test_log_mass_between_bounds_is_scipys():
    low = np.array([-np.inf, -1.0, 1.0, 3.0, -40.0, 30.0, -np.inf, 0.0, -35.0])
    high = np.array([0.3, 1.0, 2.0, np.inf, -31.0, 41.0, np.inf, 1e-3, 9.0])
    above, below = special.log_ndtr(high), special.log_ndtr(low)
    flipped = special.log_ndtr(-low), special.log_ndtr(-high)
    more, less = (np.where(low > 0, f, t) for f, t in zip(flipped, (above, below), strict=True))
    expected = more + np.log(-np.expm1(less - more))
    np.testing.assert_allclose(log_between(low, high), expected, rtol=1e-9)


def test_constants_are_those_of_the_denoisers():
    from discrete_itd.denoisers import causal, marginal, neural, row_mixture
    from discrete_itd.light import densities, models
    from discrete_itd.models import model

    assert densities.WIDE_SD == marginal.WIDE_SD
    assert densities.LEAST_SHARE == row_mixture.LEAST_SHARE
    assert densities.N_REGRESSED == causal.N_REGRESSED
    assert models.LEARNED_GAPS == model.LEARNED_GAPS
    for name in ("SD", "LEAST_SD", "MOST_LOG_VARIANCE"):
        assert getattr(densities, name) == getattr(neural, name)


# a process in which none of them can be imported
WITHOUT = """
import sys
for name in ("torch", "sklearn", "scipy"):
    sys.modules[name] = None
"""


def without_torch(code, *args):
    """Run code in a process without torch, scikit-learn and scipy; its output."""
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *map(str, args)], capture_output=True, text=True
    )
    assert not found.returncode, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a detector and a density, and rows without gaps, which a causal network scores by itself."""
    at = tmp_path_factory.mktemp("models")
    complete = table(200).dropna().astype({"c": int})
    density = DiffusionDensity(denoiser=CAUSAL, max_steps=5, random_state=0)
    detector = DiffusionOutlierDetector(density, false_alarm_rate=0.05, random_state=0)
    detector.fit(complete).save(at / "m", card=False)
    detector.density_.save(at / "d", card=False)
    complete.to_csv(at / "t.csv", index=False)
    complete.to_pickle(at / "t")
    return at


@pytest.mark.single_precision
def test_a_detector_scores_without_torch(folder):
    code = """
import pandas as pd
from discrete_itd import light
scores = light.load(sys.argv[1]).score_samples(pd.read_pickle(sys.argv[2]))
print(scores.tolist())
"""
    found = json.loads(without_torch(code, folder / "m", folder / "t"))
    known = DiffusionOutlierDetector.load(folder / "m").score_samples(pd.read_pickle(folder / "t"))
    np.testing.assert_allclose(found, known, **SINGLE)


COMMAND = """
from discrete_itd.cli.command import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.single_precision
def test_the_command_scores_and_watches_without_torch(folder, capsys):
    table, out = folder / "t.csv", folder / "out.csv"
    text = without_torch(COMMAND, "score", folder / "m", table, "--out", out, "--explain")
    found = pd.read_csv(out)
    assert (
        main(
            [
                "score",
                str(folder / "m"),
                str(table),
                "--out",
                str(out),
                "--reasons",
                "1",
                "--explain",
            ]
        )
        == 0
    )
    assert text.splitlines() == capsys.readouterr().out.splitlines()
    known = pd.read_csv(out)[found.columns]
    pd.testing.assert_frame_equal(found, known, **SINGLE)
    assert (found["p_value"] == known["p_value"]).all()
    without_torch(COMMAND, "score", folder / "d", table, "--out", out)
    pd.testing.assert_frame_equal(pd.read_csv(out), known[["log_prob", "stderr"]], **SINGLE)
    for state in ("one", "two"):  # of which the second goes on with torch
        watch = ["watch", folder / "m", table, "--state", folder / state, "--out", out]
        without_torch(COMMAND, *watch)
    without_torch(COMMAND, "watch", folder / "m", table, "--state", folder / "one", "--out", out)
    one, rows = pd.read_csv(out), pd.read_csv(table).astype({"d": bool})
    watch = DriftWatch.load(folder / "two", DiffusionOutlierDetector.load(folder / "m"))
    two = watch.update(pd.read_pickle(folder / "t")[rows.columns]).reset_index(drop=True)
    pd.testing.assert_frame_equal(one, two, check_dtype=False)


WORKER = """
import pickle, pandas as pd
scoring = pickle.loads(bytes.fromhex(sys.argv[1]))
print(scoring(pd.read_pickle(sys.argv[2])).to_json(orient="values"))
"""


@pytest.mark.single_precision
def test_a_worker_scores_without_torch(folder):
    for model, outputs in (("d", None), ("m", ["score", "p_value", "alarm", "nats"])):
        scoring = BatchScoring(folder / model, outputs, keep=()).pinned(n_threads=1)
        found = json.loads(without_torch(WORKER, pickle.dumps(scoring).hex(), folder / "t"))
        known = answers_by_torch(folder / model, pd.read_pickle(folder / "t"), outputs)
        np.testing.assert_allclose(np.array(found, dtype=float), known.astype(float), **SINGLE)


def answers_by_torch(path, rows, outputs):
    """Results of a worker that has torch."""
    model = BatchScoring(path).model()
    encoded = getattr(model, "density_", model).rows(rows)
    return answers(model, encoded, checked_outputs(model, outputs)).to_numpy()


def test_many_rows_of_a_large_mixture_are_left_to_torch(tmp_path, monkeypatch):
    rows = table(200)
    density = DiffusionDensity(denoiser="mixture", random_state=0).fit(rows)
    density.save(tmp_path / "d", card=False)
    assert light.load(tmp_path / "d").keeps_pace
    assert isinstance(read_model(tmp_path / "d", light=True), light.LightDensity)
    monkeypatch.setattr("discrete_itd.light.densities.MOST_CLASSES", 1)
    assert isinstance(read_model(tmp_path / "d", light=True), DiffusionDensity)
    assert isinstance(read_model(tmp_path / "d", light=True, few=True), light.LightDensity)
