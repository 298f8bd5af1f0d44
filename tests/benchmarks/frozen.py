"""Scores to the last bit: write them with one version of the package, compare them with another.

``PYTHONPATH`` chooses the package, so that the file asks the same questions of two checkouts::

    PYTHONPATH=../before python -P tests/benchmarks/frozen.py --write before.npz
    PYTHONPATH=. python -P tests/benchmarks/frozen.py --compare before.npz

It runs on one thread, since sums depend on their order. Bits agree only between runs on one kind of processor with one
version of torch.
"""

import argparse
import fnmatch
import hashlib
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.frozen import FrozenEstimator

import discrete_itd
from discrete_itd import DiffusionDensity, DiffusionOutlierDetector
from discrete_itd.datasets import load_car, load_digits, load_mushroom
from discrete_itd.images import ImageDensity
from discrete_itd.recipes import BayesNet, Causal, Mixture, RowMixture, Trees

STEPS = 100
ROWS, ASKED = 500, 40  # rows to fit and rows to ask about
TRANSLATION = {"column_types": "columns", "n_evaluations": "n_calls", "handle_unknown": "unseen"}


def density(**options):
    """A DiffusionDensity of either version: the names of its parameters are those that it has."""
    known = DiffusionDensity().get_params()
    return DiffusionDensity(
        **{name if name in known else TRANSLATION[name]: value for name, value in options.items()}
    )


def mixed():
    """Nominal, ordinal, continuous, integer, bool and date columns that depend on a class; with gaps."""
    rng = np.random.default_rng(0)
    n = ROWS + ASKED
    k = rng.integers(4, size=n)
    table = pd.DataFrame(
        {
            "word": np.array(["low", "mid", "top", "peak"])[(k + (rng.random(n) < 0.1)) % 4],
            "shop": [f"shop {i}" for i in rng.zipf(1.6, n).clip(max=40)],
            "grade": pd.Categorical(np.array([*"dcba"])[k], [*"dcba"], ordered=True),
            "size": rng.normal(k, 0.4),
            "weight": np.exp(rng.normal(k / 2, 0.3)),
            "count": pd.array(rng.poisson(k + 1), dtype="Int64"),
            "flag": rng.random(n) < 0.2 + 0.2 * k,
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 400, n), unit="D"),
        }
    )
    for column, share in (("word", 0.1), ("size", 0.2), ("count", 0.1), ("day", 0.05)):
        table.loc[rng.random(n) < share, column] = None
    return table


def numeric():
    """Correlated real columns and the four columns of a one-hot group."""
    rng = np.random.default_rng(1)
    n = ROWS + ASKED
    k = rng.integers(4, size=n)
    reals = rng.normal(size=(n, 5)) @ rng.normal(size=(5, 5)) + k[:, None]
    table = pd.DataFrame(reals, columns=list("abcde")).round(3)
    return table.assign(**{f"k_{i}": (k == i).astype(int) for i in range(4)})


def rows_of(table, n=ROWS + ASKED):
    return table.sample(n, random_state=0).reset_index(drop=True)


def tables():
    """Table, a column whose probabilities are asked for, and options of the density, by name."""
    digits = rows_of(load_digits())
    digits = digits[[c for i, c in enumerate(digits) if i % 5 == 1]]
    return {
        "mushroom": (rows_of(load_mushroom()).iloc[:, ::2], "class", {}),
        "car": (rows_of(load_car()), "class", {}),
        "digits": (digits, digits.columns[-1], {}),
        "mixed": (mixed(), "word", {}),
        "mixed_category": (mixed(), "word", {"missing": "category"}),
        "numeric": (numeric(), "k_1", {}),
    }


RECIPES = {
    "auto": "auto",
    "tree": "tree",
    "mixture": "mixture",
    "rows": RowMixture((Causal(width=32, base="independent"), Trees(3), Mixture(8), BayesNet())),
}
# Each table meets the default, and each of the other recipes meets at least two tables.
FITS = {
    "mushroom": ("auto", "tree", "mixture", "rows"),
    "car": ("auto", "tree", "rows"),
    "digits": ("auto", "mixture"),
    "mixed": ("auto", "tree", "mixture", "rows"),
    "mixed_category": ("auto", "tree"),
    "numeric": ("auto", "mixture", "rows"),
}


def gaps(table):
    """The same rows with a third of their cells missing, another third in each row."""
    hidden = (np.arange(len(table))[:, None] + np.arange(table.shape[1])) % 3 == 0
    return table.astype(object).mask(hidden)


def questions(model, table, column):
    """What is asked of a fitted density, by name."""
    few, holes = table[:20], gaps(table[:20])
    given = [table.columns[0]]
    return {
        "log_prob": lambda: model.log_prob(table),
        "log_prob_gaps": lambda: model.log_prob(holes),
        "log_prob_given": lambda: model.log_prob(few, given=given),
        "explain": lambda: model.explain(few),
        "impute": lambda: model.impute(holes),
        "predict_proba": lambda: model.predict_proba(few, column),
        "information": lambda: model.information(few[:5], about=table.columns[1]),
        "mse_curve": lambda: model.mse_curve(few, n_points=9),
        "sample": lambda: model.sample(10, random_state=0),
        "history": lambda: model.history_.drop(columns="seconds", errors="ignore"),
    }


def alarms(detector, table):
    """What is asked of a fitted detector, by name."""
    return {
        "score_samples": lambda: detector.score_samples(table),
        "p_values": lambda: detector.p_values(table),
        "predict": lambda: detector.predict(table),
        "offset": lambda: detector.offset_,
        "explain": lambda: detector.explain(table[:20]),
        "reasons": lambda: detector.reasons(table[:10]),
        "expected": lambda: detector.expected(table[:10]),
        "drift": lambda: drift_numbers(detector.drift(table)),
    }


def drift_numbers(drift):
    """The numbers of a Drift, whatever else it holds."""
    return [drift.p_value, *drift.columns.select_dtypes("number").to_numpy().ravel()]


def plain(answer):
    """An answer as an array that is equal if and only if the answer is equal to the last bit."""
    if isinstance(answer, tuple):
        return np.stack([np.asarray(part, dtype=np.float64) for part in answer])
    if isinstance(answer, pd.DataFrame) and not all(
        t.kind == "f" for t in map(np.dtype, kinds(answer))
    ):
        return np.array([[repr(cell) for cell in row] for row in answer.astype(object).to_numpy()])
    array = np.asarray(answer)
    return array.astype(np.float64) if array.dtype.kind in "fiub" else array.astype(str)


def kinds(frame):
    """The numpy dtypes of a frame's columns; object for an extension dtype."""
    return [t if isinstance(t, np.dtype) else np.dtype(object) for t in frame.dtypes]


def ask(answers, name, asked):
    for question, call in asked.items():
        try:
            answers[f"{name}/{question}"] = plain(call())
        except (
            Exception
        ) as error:  # a version without the question: it differs, and the others go on
            answers[f"{name}/{question}"] = np.array(f"{type(error).__name__}: {error}"[:300])


def images(answers):
    """An image density of levels and classes, one of values, both of networks that are hardly trained."""
    rng = np.random.default_rng(0)
    X = np.add.outer(rng.integers(5, size=80), rng.integers(4, size=(1, 3, 3)))
    labels = (X[:, 0, 0, 0] > 3).astype(int)
    bars = np.cumprod(1 - np.linspace(5e-4, 0.1, 100))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(11, 16), torch.nn.SiLU(), torch.nn.Linear(16, 9))

    def noise(noisy, time, classes=None):
        told = torch.zeros_like(time) if classes is None else classes
        told = torch.stack([time / 100, told.to(time)], 1).to(torch.float32)
        return net(torch.cat([noisy.float().flatten(1), told], 1)).view_as(noisy)

    kinds = {
        "levels": (X, {"n_levels": 8, "labels": labels, "n_classes": 2, "null_class": 2}),
        "values": (X / 2.0 - 1, {}),
    }
    for name, (rows, options) in kinds.items():
        model = ImageDensity.from_callable(
            noise, rows, prediction="epsilon", schedule=bars, n_knots=6, n_steps=6, **options
        )
        asked, told = rows[:20], labels[:20] if options else None
        both = ImageDensity.ensemble([model, model], rows, labels if options else None, n_steps=6)
        questions = {
            "log_prob": lambda: model.log_prob(asked, told),  # noqa: B023
            "integral": lambda: model.integral(asked, told, n_points=16),  # noqa: B023
            "sample": lambda: model.sample(5, random_state=0).astype(float),  # noqa: B023
            "ensemble": lambda: both.log_prob(asked, told),  # noqa: B023
        }
        if options:
            questions["bound"] = lambda: model.variational_bound(asked, told, n_times=10)  # noqa: B023
            questions["information"] = lambda: model.information(asked, told, n_points=8)  # noqa: B023
        ask(answers, f"images/{name}", questions)
    module = ImageDensity.from_callable(
        Image(net), X, prediction="epsilon", schedule=bars, n_knots=6, n_steps=6, n_levels=8
    )
    tuned = module.fine_tune(X, max_steps=20, learning_rate=1e-3)
    history = tuned.history.drop(columns="seconds").astype(float)
    ask(
        answers, "images/tuned", {"history": lambda: history, "log_prob": lambda: tuned.log_prob(X)}
    )


class Image(torch.nn.Module):
    """A network of rows as one of images without classes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, noisy, time):
        told = torch.stack([time / 100, torch.zeros_like(time)], 1).to(noisy)
        return self.net(torch.cat([noisy.flatten(1), told], 1)).view_as(noisy)


def fit_all(answers, only):
    """Fit every pair of table and recipe that a pattern of `only` matches, and ask."""
    for name, (table, column, options) in tables().items():
        fitted, asked = table[:ROWS], table[ROWS:].reset_index(drop=True)
        for recipe in FITS[name]:
            key = f"{name}/{recipe}"
            if not any(fnmatch.fnmatch(key, pattern) for pattern in only):
                continue
            start = time.process_time()
            model = density(
                denoiser=RECIPES[recipe],
                max_steps=STEPS,
                n_evaluations=32,
                device="cpu",
                random_state=0,
                **options,
            ).fit(fitted[: 2 * ROWS // 3] if recipe == "tree" else fitted)
            ask(answers, key, questions(model, asked, column))
            if recipe == "tree":  # the held-out rows calibrate the detector
                frozen = DiffusionOutlierDetector(FrozenEstimator(model), random_state=0)
                frozen.fit(fitted[2 * ROWS // 3 :])
                ask(answers, f"{key}/frozen_detector", alarms(frozen, asked))
            if recipe == "mixture":
                detector = DiffusionOutlierDetector(model, contamination=0.02, random_state=0)
                ask(answers, f"{key}/detector", alarms(detector.fit(fitted), asked))
            print(f"{key}: {time.process_time() - start:.1f} s", file=sys.stderr)


def compare(before, after, only):
    """Print what differs; return how many answers do."""
    differing = 0
    for key in sorted(set(before) | set(after)):
        if key not in before or key not in after:
            if key in before and not any(fnmatch.fnmatch(key, f"{p}*") for p in only):
                continue
            print(f"{key}: only {'before' if key in before else 'after'}")
            differing += 1
            continue
        a, b = before[key], after[key]
        if a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes():
            continue
        differing += 1
        if a.dtype.kind == b.dtype.kind == "f" and a.shape == b.shape:
            print(
                f"{key}: at most {np.nanmax(np.abs(a - b)):.3g} apart, of {np.nanmax(np.abs(a)):.3g}"
            )
        else:
            print(f"{key}: {describe(a)} before, {describe(b)} after")
    return differing


def describe(array):
    return str(array)[:200] if array.ndim == 0 else f"{array.dtype} of shape {array.shape}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="file to write the answers to")
    parser.add_argument("--compare", type=Path, help="file to compare the answers with")
    parser.add_argument(
        "--only",
        nargs="*",
        default=["*"],
        help="patterns of table/recipe, like 'mixed/*' 'images'",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"package: {Path(discrete_itd.__file__).parent}", file=sys.stderr)
    answers = {}
    if any(fnmatch.fnmatch("images", pattern) for pattern in options.only):
        images(answers)
    fit_all(answers, options.only)
    if options.write:
        np.savez_compressed(options.write, **answers)
    for key in sorted(answers) if not options.compare else ():
        digest = hashlib.sha256(answers[key].tobytes()).hexdigest()[:16]
        error = (
            f"  {answers[key]}" if answers[key].ndim == 0 and answers[key].dtype.kind == "U" else ""
        )
        print(f"{digest}  {key}{error}")
    if options.compare:
        with np.load(options.compare) as stored:
            before = {key: stored[key] for key in stored.files}
        differing = compare(before, answers, options.only)
        print(f"{len(answers)} answers, {differing} differ")
        sys.exit(bool(differing))


if __name__ == "__main__":
    main()
