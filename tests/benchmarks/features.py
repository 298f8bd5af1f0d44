"""What this and other packages answer: the cells of `PEERS.md` that were run.

    python -m tests.benchmarks.features [discrete_itd PyOD nonconform scikit-learn SPFlow UnmaskingTrees]

A table of one column of numbers and one of three categories, which are letters where a package takes strings, and codes
elsewhere. A cell is yes, no, a number, or the error that the package raised; "-" where it has no such function. Those
that are not installed are named and left out. TabPFN (its weights lie behind a login), PyJuice (kernels for GPUs), DQX
(for its licence), MaskDiff-AD and the paper's code (no packages) are not asked here, but were read.
"""

from __future__ import annotations

import argparse
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

LETTERS = np.array(["a", "b", "c"])


def codes(n_rows: int = 400, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """Numbers, whose mean depends on the category, and codes of the categories, (N, 2)."""
    rng = np.random.default_rng(seed)
    category = rng.integers(0, 3, n_rows)
    return np.column_stack([rng.normal(size=n_rows) + 2 * category + shift, category])


def frame(x: np.ndarray) -> pd.DataFrame:
    letters = [None if np.isnan(code) else LETTERS[int(code)] for code in x[:, 1]]
    return pd.DataFrame({"number": x[:, 0], "letter": letters})


TRAIN, INLIERS, SHIFTED = codes(), codes(1000, seed=1), codes(200, seed=2, shift=3.0)
MIXED = np.concatenate([codes(100, seed=3), codes(20, seed=4, shift=12.0)])  # inliers, anomalies
GRID = np.linspace(-10.0, 14.0, 481)
CELLS = np.array([[number, code] for code in range(3) for number in GRID])
WITH_GAP = np.array([[4.0, np.nan]])
COMPLETIONS = np.array([[4.0, 0.0], [4.0, 1.0], [4.0, 2.0]])


def mass(log_density: np.ndarray) -> str:
    """A density integrated over the numbers, and summed over the categories where it has them."""
    return f"{np.exp(log_density).sum() * (GRID[1] - GRID[0]):.2f}"


def summed(joint: np.ndarray, marginal: np.ndarray) -> bool:
    """Whether the probabilities of a row's completions add up to that of the row with the gap."""
    return np.isclose(np.exp(joint).sum(), np.exp(marginal).sum(), rtol=1e-3)


def passed(estimator: Any) -> str:
    """How many of scikit-learn's checks an estimator passes, of those that it does not skip."""
    status = [r["status"] for r in check_estimator(estimator, on_fail=None)]
    return f"{status.count('passed')} of {len(status) - status.count('skipped')}"


def piped(estimator: Any) -> bool:
    pipeline = make_pipeline(FunctionTransformer(), estimator).fit(TRAIN)
    score = "score_samples" if hasattr(pipeline, "score_samples") else "decision_function"
    return len(getattr(pipeline, score)(TRAIN)) == len(TRAIN)


# What is asked, of which function below, and how its answer is judged.
QUESTIONS = {
    "mass of all rows": ("density", lambda f: mass(f(CELLS))),
    "a missing cell is summed over": ("density", lambda f: summed(f(COMPLETIONS), f(WITH_GAP))),
    "conditionals sum to one": ("conditional", lambda f: np.isclose(sum(f()), 1.0, rtol=1e-3)),
    "reasons add up to the score": ("reasons", lambda f: np.allclose(*f(), atol=1e-4)),
    "draws a missing category": ("letters", lambda f: set(f(20)) <= {0, 1, 2}),
    "draws rows, categories too": ("rows", lambda f: set(f(50)) == {0, 1, 2}),
    "inliers with p ≤ 0.1": ("p_values", lambda f: f"{np.mean(f(INLIERS) <= 0.1):.3f}"),
    "at an FDR of 0.1: found of 20, false": (
        "discoveries",
        lambda f: "{1}, {0}".format(*map(np.sum, np.split(f(MIXED), [100]))),
    ),
    "first alarm after a shift": ("alarm", lambda f: f"row {f(SHIFTED)}"),
    "takes strings": ("estimators", lambda f: bool(f()[0].fit(frame(TRAIN)))),
    "last step of a Pipeline": ("estimators", lambda f: piped(f()[0])),
    "passes scikit-learn's checks": ("estimators", lambda f: "; ".join(map(passed, f()))),
}


def ours() -> dict[str, Any]:
    from discrete_itd import DiffusionDensity, DiffusionOutlierDetector, DriftWatch

    model = DiffusionDensity(denoiser="mixture", random_state=0).fit(frame(TRAIN))
    detector = DiffusionOutlierDetector(denoiser="mixture", random_state=0).fit(frame(TRAIN))
    watch, index = DriftWatch(detector, level=0.01), LETTERS.tolist().index
    density, gap = lambda x: model.score_samples(frame(x)), frame(WITH_GAP)
    draws = lambda n: [  # noqa: E731
        model.impute(gap, method="sample", random_state=seed) for seed in range(n)
    ]
    return {
        "estimators": lambda: [
            DiffusionDensity(denoiser="tree"),
            DiffusionOutlierDetector(denoiser="independent"),
        ],
        "density": density,
        "conditional": lambda: np.exp(model.log_prob(frame(COMPLETIONS), given=["number"])[0]),
        "reasons": lambda: (-model.explain(frame(MIXED)).sum(axis=1), density(MIXED)),
        "letters": lambda n: [index(draw["letter"].item()) for draw in draws(n)],
        "rows": lambda n: map(index, model.sample(n, random_state=0)["letter"]),
        "p_values": lambda x: detector.p_values(frame(x)),
        "discoveries": lambda x: detector.discoveries(frame(x), fdr=0.1),
        "alarm": lambda x: watch.update(frame(x)) is not None and watch.alarm_.row,
    }


def pyod() -> dict[str, Any]:
    from pyod.models.ecod import ECOD
    from pyod.models.gmm import GMM
    from pyod.models.hbos import HBOS
    from pyod.models.iforest import IForest
    from pyod.models.knn import KNN

    ecod = ECOD().fit(TRAIN)
    return {
        "estimators": lambda: [ECOD(), GMM(), HBOS(), IForest(), KNN()],
        "reasons": lambda: (ecod.O.sum(axis=1), ecod.decision_scores_),
    }


def nonconform() -> dict[str, Any]:
    from nonconform import ConformalDetector, Split
    from nonconform.martingales import AlarmConfig, SimpleJumperMartingale
    from nonconform.monitoring import ExchangeabilityMonitor

    forest, split = IsolationForest(random_state=0), Split(n_calib=0.3)
    fresh = lambda: ConformalDetector(detector=forest, strategy=split, seed=0)  # noqa: E731
    model = fresh().fit(TRAIN)
    jumper = SimpleJumperMartingale(alarm_config=AlarmConfig(restarted_ville_threshold=100))
    watch = ExchangeabilityMonitor.from_split_detector(model, martingale=jumper, seed=0)
    return {
        "estimators": lambda: [fresh()],
        "p_values": model.compute_p_values,
        "discoveries": lambda x: model.select(x, alpha=0.1),
        "alarm": lambda x: [bool(s.triggered_alarms) for s in watch.update_many(x)].index(True),
    }


def scikit_learn() -> dict[str, Any]:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    mixture = GaussianMixture(3, random_state=0).fit(TRAIN)
    imputer = IterativeImputer(sample_posterior=True, random_state=0).fit(TRAIN)
    return {
        "estimators": lambda: [GaussianMixture(3, random_state=0)],
        "density": mixture.score_samples,
        "letters": lambda n: [imputer.transform(WITH_GAP)[0, 1] for _ in range(n)],
        "rows": lambda n: mixture.sample(n)[0][:, 1],
    }


def spflow() -> dict[str, Any]:
    """A mixture of products whose leaves were chosen by hand: `learn_spn` rejects a categorical leaf."""
    import torch
    from spflow.interfaces.sklearn import SPFlowDensityEstimator
    from spflow.learn import expectation_maximization
    from spflow.measures import conditional_probability as p
    from spflow.meta.data.scope import Scope
    from spflow.modules.leaves import Categorical, Normal
    from spflow.modules.products import Product
    from spflow.modules.sums import Sum

    torch.manual_seed(0)
    number = Normal(scope=Scope([0]), out_channels=4)
    letter = Categorical(scope=Scope([1]), K=3, out_channels=4)
    model = Sum(inputs=Product(inputs=[number, letter]), out_channels=1).double()
    gap = torch.as_tensor(WITH_GAP)
    expectation_maximization(model, torch.as_tensor(TRAIN), max_steps=20)
    return {
        "estimators": lambda: [SPFlowDensityEstimator()],
        "density": lambda x: model.log_likelihood(torch.as_tensor(x)).detach().numpy(),
        "conditional": lambda: [
            p(model, y_index=1, y_value=k, evidence=gap).item() for k in range(3)
        ],
        "letters": lambda n: model.sample_with_evidence(gap.repeat(n, 1))[:, 1].tolist(),
        "rows": lambda n: model.sample(num_samples=n)[:, 1].tolist(),
    }


def unmasking_trees() -> dict[str, Any]:
    from utrees import KDIQuantizer, UnmaskingTrees

    if not hasattr(KDIQuantizer, "_validate_data"):  # a method that scikit-learn 1.6 deprecated
        KDIQuantizer._validate_data = lambda self, X, **how: validate_data(self, X, **how)
    fresh = lambda: UnmaskingTrees(duplicate_K=3, random_state=0)  # noqa: E731
    model = fresh().fit(TRAIN.copy(), quantize_cols=["continuous", "categorical"])
    return {
        "estimators": lambda: [fresh()],
        "density": model.score_samples,
        "letters": lambda n: model.impute(n, WITH_GAP)[:, 0, 1],
        "rows": lambda n: model.generate(n)[:, 1],
    }


PACKAGES = {  # module, distribution, what can be asked
    "discrete_itd": ("discrete_itd", "discrete-itd", ours),
    "PyOD": ("pyod", "pyod", pyod),
    "nonconform": ("nonconform", "nonconform", nonconform),
    "scikit-learn": ("sklearn", "scikit-learn", scikit_learn),
    "SPFlow": ("spflow", "spflow", spflow),
    "UnmaskingTrees": ("utrees", "utrees", unmasking_trees),
}


def answer(functions: dict[str, Any], name: str, judge: Any) -> str:
    if name not in functions:
        return "-"
    try:
        value = judge(functions[name])
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        return f"no: {type(error).__name__}"
    return value if isinstance(value, str) else "yes" if value else "no"


def main() -> None:
    """Print one table, a column for each package that is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", nargs="*", metavar="package", help=", ".join(PACKAGES))
    warnings.simplefilter("ignore")
    columns = {}
    for name in parser.parse_args().packages or PACKAGES:
        module, distribution, prepare = PACKAGES[name]
        if find_spec(module) is None:
            print(f"skipped {name}: it is not installed")
            continue
        functions = prepare()
        title = f"{name} {version(distribution)}"
        columns[title] = [answer(functions, *question) for question in QUESTIONS.values()]
    print("\n| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for text, *cells in zip(QUESTIONS, *columns.values(), strict=True):
        print("| " + " | ".join([text, *cells]) + " |")


if __name__ == "__main__":
    main()
