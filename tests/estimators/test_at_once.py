"""Several threads, and several processes, that ask one model at the same time: the answers of one alone."""

import multiprocessing
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.recipes import Forest, Mixture, Network
from tests.examples import levels

pytestmark = pytest.mark.single_precision


def table(n, seed=0):
    rows = levels(n, seed)[["word", "whole", "size"]]
    names = [f"w{k}" for k in np.random.default_rng(seed + 9).integers(0, 60, n)]
    return rows.assign(size=rows["size"].mask(rows.index % 7 == 0), id=names)


EXACT = {
    "tree": "tree",
    "bayes_net": "bayes_net",
    "mixture": Mixture(2, max_steps=9),
    "forest": Forest(2),
}
NETWORK = Network(width=4, depth=1, base="independent")
QUICK = {"max_steps": 3, "n_evaluations": 8, "random_state": 0}


def make(name):
    if name == "detector":
        density = DiffusionDensity(denoiser="tree", random_state=0)
        return DiffusionOutlierDetector(density, random_state=0)
    return DiffusionDensity(denoiser=EXACT.get(name, NETWORK), **QUICK)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("tree", marks=pytest.mark.slow),
        pytest.param("bayes_net", marks=pytest.mark.slow),
        pytest.param("mixture", marks=pytest.mark.slow),
        "forest",
        pytest.param("network", marks=pytest.mark.slow),
        "detector",
    ],
)
def saved(request, tmp_path_factory):
    """The class of a model and its file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few rows of calibration
        model = make(request.param).fit(table(200))
    path = tmp_path_factory.mktemp("saved") / "m"
    model.save(path)
    return type(model), path


def questions(model):
    """Everything that may be asked, on rows of different numbers."""
    few, many = table(5, seed=1), table(30, seed=2)
    asked = [lambda: model.score_samples(few), lambda: model.score_samples(many)]
    asked += [lambda: model.explain(few).to_numpy(), lambda: model.explain(many).to_numpy()]
    if isinstance(model, DiffusionOutlierDetector):
        asked += [lambda: model.p_values(many), lambda: model.reasons(few)["nats"].to_numpy()]
        return asked
    asked += [lambda: model.sample(20, random_state=1)["size"].to_numpy()]
    asked += [lambda: model.impute(few)["size"].to_numpy()]
    return asked


def answers(cls, path):
    return [ask() for ask in questions(cls.load(path))]


def test_threads_that_ask_one_model_get_the_answers_of_one(saved):
    """From the first question on, when whatever a model keeps is still to be made."""
    cls, path = saved
    alone = answers(cls, path)
    model, ready = cls.load(path), threading.Barrier(2)
    asked = questions(model)

    def work(start):
        ready.wait(20)
        return {i: asked[i]() for i in np.roll(np.arange(len(asked)), -start).tolist()}

    with ThreadPoolExecutor(2) as pool:
        for got in pool.map(work, [0, 1]):
            for i, expected in enumerate(alone):
                np.testing.assert_array_equal(got[i], expected)


@pytest.mark.slow  # torch is imported twice more
def test_processes_that_ask_one_file_get_the_answers_of_one(saved):
    cls, path = saved
    alone = answers(cls, path)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for got in pool.map(answers, [cls] * 4, [path] * 4):
            for mine, expected in zip(got, alone, strict=True):
                np.testing.assert_array_equal(mine, expected)
