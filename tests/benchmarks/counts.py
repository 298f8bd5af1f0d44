"""Tables of a known law: code lengths of the default model and its parts beside the truth.

    python -m tests.benchmarks.counts
    python -m tests.benchmarks.counts --laws zeta --recipes independent forest
    python -m tests.benchmarks.counts --given --recipes forest auto
    python -m tests.benchmarks.counts --networks asia sachs --rows 1000 10000 --recipes auto "hill climbing"

Six laws of whole numbers, those of ItDPDM (arXiv:2505.05082), whose log-masses are known: 10 000 rows to fit to and as
many to test. ``excess`` are the nats of a test row above those of the truth, with the standard error of the paired
difference; ``largest`` and ``truth`` are the log-masses of the largest training number.

With ``--given``, tables of ``N_SMALL`` rows hold a category and a count, an age, a price or a code whose law depends on
it: excess over the truth where the numbers are levels, where they are continuous, and as the fit chooses.

With ``--networks``, the tables are drawn from published Bayesian networks: excess over the truth of 5 000 other rows.
The recipe "hill climbing" is pgmpy's, by BIC.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import betaln, gammaln, zeta

from discrete_itd import DiffusionDensity
from tests.benchmarks.tables import machine, markdown
from tests.networks import BayesianNetwork, load_bayesian_network

N = 10_000
N_SMALL, N_GROUPS = 500, 5  # rows of a table with a category, and its categories
PRIORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # equivalent sample sizes of hill climbing
RECIPES = ("independent", "forest", "mixture", "auto")


def log_beta_negative_binomial(k, r, a, b):
    """Log-masses of failures before r successes, whose probability has the beta distribution (a, b)."""
    return gammaln(r + k) - gammaln(k + 1) - gammaln(r) + betaln(a + r, b + k) - betaln(a, b)


def poisson_mixture(k):
    """Log-masses of three Poisson laws."""
    parts = [np.log(w) + stats.poisson(m).logpmf(k) for w, m in ((0.3, 5), (0.5, 40), (0.2, 200))]
    return np.logaddexp.reduce(parts)


LAWS = {
    "Poisson mixture": (
        lambda rng, n: rng.poisson(rng.choice([5, 40, 200], n, p=[0.3, 0.5, 0.2])),
        poisson_mixture,
    ),
    "zero-inflated": (
        lambda rng, n: rng.poisson(100, n) * (rng.random(n) < 0.4),
        lambda k: np.logaddexp(
            np.log(0.4) + stats.poisson(100).logpmf(k), np.where(k == 0, np.log(0.6), -np.inf)
        ),
    ),
    "negative binomial": (
        lambda rng, n: rng.negative_binomial(1.5, 1.5 / 91.5, n),
        lambda k: stats.nbinom(1.5, 1.5 / 91.5).logpmf(k),
    ),
    "beta-negative-binomial": (
        lambda rng, n: rng.negative_binomial(5, rng.beta(3, 2, n)),
        lambda k: log_beta_negative_binomial(k, 5, 3, 2),
    ),
    "Yule-Simon": (
        lambda rng, n: stats.yulesimon(1.5).rvs(n, random_state=rng),
        lambda k: np.log(1.5) + betaln(k, 2.5),
    ),
    "zeta": (lambda rng, n: rng.zipf(1.7, n), lambda k: -1.7 * np.log(k) - np.log(zeta(1.7))),
}


MEANS = np.array([3, 8, 15, 30, 50])
GROUP_PRICES = np.array(
    [0.99, 1.49, 2.99, 4.99, 7.99, 9.99, 12.99, 14.99, 19.99, 24.99, 29.99, 39.99]
)
GROUP_PRICES = np.concatenate([GROUP_PRICES, 10 * GROUP_PRICES + 0.09])
SHARES = np.random.default_rng(0).dirichlet(np.ones(len(GROUP_PRICES)), N_GROUPS)
CODES = np.random.default_rng(1).choice(100_000, 100, replace=False)
CODE_SHARES = np.random.default_rng(2).dirichlet(np.full(100, 0.5), N_GROUPS)


def from_list(values, shares):
    """Draws from a list of values by shares (G, K) of each group, and their log-masses."""

    def draw(rng, group):
        below = shares.cumsum(1)[group] < rng.random((len(group), 1))
        return values[below.sum(1).clip(max=len(values) - 1)]

    def log_mass(numbers, group):
        place = (numbers[:, None] == values).argmax(1)
        return np.log(shares[group, place])

    return draw, log_mass


GIVEN_LAWS = {
    "Poisson": (
        lambda rng, group: rng.poisson(MEANS[group]),
        lambda k, group: stats.poisson(MEANS[group]).logpmf(k),
    ),
    "negative binomial": (
        lambda rng, group: rng.negative_binomial(2, 2 / (2 + MEANS[group])),
        lambda k, group: stats.nbinom(2, 2 / (2 + MEANS[group])).logpmf(k),
    ),
    "rounded normal (ages)": (
        lambda rng, group: rng.normal(25 + 8 * group, 6.0).round(),
        lambda k, group: np.log(
            np.diff(stats.norm.cdf([k - 0.5, k + 0.5], 25 + 8 * group, 6.0), axis=0)[0]
        ),
    ),
    "prices": from_list(GROUP_PRICES, SHARES),
    "codes": from_list(CODES, CODE_SHARES),
}


def lines_given(recipes: list[str]) -> list[dict[str, object]]:
    """A line for each law of :data:`GIVEN_LAWS` and recipe."""
    lines = []
    for name, (draw, log_mass) in GIVEN_LAWS.items():
        rng, parts = np.random.default_rng(0), []
        for n in (N_SMALL, 4000):
            group = rng.integers(0, N_GROUPS, n)
            numbers = draw(rng, group)
            frame = pd.DataFrame({"group": np.array([*"abcde"])[group], "number": numbers})
            parts.append((frame, log_mass(numbers, group) - np.log(N_GROUPS)))
        (train, _), (test, truth) = parts
        for recipe in recipes:
            line: dict[str, object] = {"law": name, "recipe": recipe}
            for title, types in (
                ("as levels", {"number": "ordinal"}),
                ("as numbers", {"number": "continuous"}),
                ("as chosen", None),
            ):
                clock = time.process_time()
                model = DiffusionDensity(denoiser=recipe, column_types=types, random_state=0).fit(
                    train
                )
                column = model.encoder_.schema[1]
                step = getattr(column.codec, "step", 1.0)  # masses of both
                gap = truth - model.score_samples(test) - np.log(step)
                line[title] = f"{gap.mean():+.3f} ± {gap.std() / np.sqrt(len(gap)):.3f}"
                if types is None:
                    line["chosen"], line["CPU-s"] = column.kind, time.process_time() - clock
            lines.append(line)
            print(line, flush=True)
    return lines


def hill_climbing(train: pd.DataFrame, states: dict[str, tuple]) -> BayesianNetwork:
    """A network of pgmpy's search, its prior's equivalent sample size chosen on a tenth of the rows."""
    from pgmpy.causal_discovery import HillClimbSearch

    order = np.random.default_rng(0).permutation(len(train))
    held_out, rows = (train.iloc[part] for part in np.split(order, [len(train) // 10]))
    search = HillClimbSearch("bic-d", max_indegree=5, return_type="dag", show_progress=False)
    graph = search.fit(rows).causal_graph_
    parents = {name: sorted(graph.predecessors(name)) for name in states}

    def with_prior(size: float) -> BayesianNetwork:
        tables = {}
        for name in states:
            family = [*parents[name], name]
            counts = np.zeros([len(states[n]) for n in family])
            np.add.at(counts, tuple(pd.Index(states[n]).get_indexer(rows[n]) for n in family), 1)
            tables[name] = counts + size / counts.size
            tables[name] /= tables[name].sum(-1, keepdims=True)
        return BayesianNetwork(states, tables, parents)

    return max(map(with_prior, PRIORS), key=lambda n: n.log_prob(held_out).mean())


def lines_of_networks(names: list[str], sizes: list[int], recipes: list[str]) -> list[dict]:
    """A line for each published network, number of rows to fit to, and recipe."""
    lines = []
    for name, n, recipe in itertools.product(names, sizes, recipes):
        network = load_bayesian_network(name)
        test, clock = network.sample(5000, random_state=1), time.process_time()
        rows = network.sample(n, random_state=0)
        if recipe == "hill climbing":
            score = hill_climbing(rows.astype(object), network.states).log_prob
        else:
            score = DiffusionDensity(denoiser=recipe, random_state=0).fit(rows).score_samples
        seconds, truth = time.process_time() - clock, network.log_prob(test)
        gap = truth - score(test)
        lines.append({
            "network": name,
            "rows": n,
            "nats": -truth.mean(),
            "recipe": recipe,
            "excess": f"{gap.mean():.4f} ± {gap.std() / np.sqrt(len(gap)):.4f}",
            "CPU-s": seconds,
        })  # fmt: skip
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Print a line for each law and recipe."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=LAWS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--given", action="store_true", help="small tables with a category")
    parser.add_argument("--networks", nargs="+", default=[], help="of pgmpy, such as asia")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000], help="of networks")
    asked, lines = parser.parse_args(), []
    if asked.given or asked.networks:
        if asked.given:
            lines = lines_given(asked.recipes)
        else:
            lines = lines_of_networks(asked.networks, asked.rows, asked.recipes)
        print(machine())
        print(markdown(list(lines[0]), [list(line.values()) for line in lines]))
        return
    for name in asked.laws:
        draw, log_mass = LAWS[name]
        rng = np.random.default_rng(0)
        train, test = (draw(rng, N).astype(np.int64) for _ in range(2))
        frame = pd.DataFrame({"count": train})
        truth = log_mass(test.astype(float))
        top = np.array([train.max()])
        for recipe in asked.recipes:
            clock = time.process_time()
            model = DiffusionDensity(
                denoiser=recipe, column_types={"count": "continuous"}, random_state=0
            ).fit(frame)
            seconds = time.process_time() - clock
            gap = truth - model.score_samples(pd.DataFrame({"count": test}))
            lines.append({
                "law": name,
                "nats": -truth.mean(),
                "recipe": recipe,
                "excess": f"{gap.mean():+.4f} ± {gap.std() / np.sqrt(N):.4f}",
                "largest": float(model.score_samples(pd.DataFrame({"count": top}))[0]),
                "truth": float(log_mass(top.astype(float))[0]),
                "CPU-s": seconds,
            })  # fmt: skip
            print(lines[-1], flush=True)
    print(machine())
    print(markdown(list(lines[0]), [list(line.values()) for line in lines]))


if __name__ == "__main__":
    main()
