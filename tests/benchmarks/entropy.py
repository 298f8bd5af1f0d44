"""Densities of known entropy: how far the estimates of exact and of trained denoisers are from the truth.

    python -m tests.benchmarks.entropy --max-time 60

Gaussians with a random covariance, and mixtures of four Gaussians of independent columns, in 2, 16 and 256
dimensions. The exact denoiser is asked through the same estimators as any other; the trained one is a network on
independent columns. The error is the mean over test rows of the estimate less the true log-density, with its standard
error: 0 is perfect, positive is pessimistic.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.covariance import oas
from torch import Tensor

from discrete_itd import DiffusionDensity
from discrete_itd.channel import Quadrature
from discrete_itd.channel.codebook import Codebook, ColumnPoints
from discrete_itd.denoisers import Denoiser, MarginalDenoiser, MixtureDenoiser
from discrete_itd.likelihood import Estimate, integral_log_prob, path_log_prob
from discrete_itd.recipes import Network
from discrete_itd.training import pilot_quadrature
from tests.benchmarks.tables import machine, markdown, mean_and_error


def main() -> None:
    """One line for each truth, dimension, denoiser and estimator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-time", type=float, default=60.0, help="seconds of each training")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 16, 256])
    parser.add_argument("--truths", nargs="+", default=["Gaussian", "mixture"])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--tests", type=int, default=200)
    options = parser.parse_args()
    print(machine(), flush=True)
    lines = []
    for kind in options.truths:
        for d in options.dimensions:
            truth = (gaussian if kind == "Gaussian" else mixture)(d)
            rng = np.random.default_rng(1)
            rows = draw(truth, options.rows + options.tests, rng)
            train, test = rows[: options.rows], rows[options.rows :]
            true = truth.log_prob(test).double()

            def line(who: str, what: str, e: Estimate, kind=kind, d=d, true=true) -> None:
                gap = (true - e.log_prob).numpy()
                mean, error = mean_and_error(gap)
                entropy = f"{-float(true.mean()):.2f}"
                lines.append(
                    [
                        kind,
                        d,
                        entropy,
                        who,
                        what,
                        f"{mean:.3f}",
                        f"{error:.3f}",
                        f"{float(e.stderr.mean()):.3f}",
                    ]
                )
                print("  ", *lines[-1], flush=True)

            generator = torch.Generator().manual_seed(0)
            quadrature = pilot_quadrature(truth, train, generator)
            wide = Quadrature(quadrature.edges, torch.ones(len(quadrature.edges) - 1))
            baselines: list[tuple[str, Denoiser]] = [("independent", marginals(truth, train))]
            if d > 2 or kind == "mixture":
                full = one_class(d, train.mean(0).numpy(), oas(train.numpy())[0])
                baselines.append(("full covariance", full))
            for name, baseline in baselines:
                e = integral_log_prob(
                    truth, test, wide, baseline=baseline, n_points=256, generator=generator
                )
                line("exact", f"integral (4), {name}", e)
            for n_steps in (8, 32):
                steps = quadrature.schedule(n_steps)
                line(
                    "exact",
                    f"path (6), {n_steps} steps x 4",
                    path_log_prob(truth, test, steps, generator=generator),
                )
            model = DiffusionDensity(
                denoiser=Network(base="independent"), max_time=options.max_time, max_steps=1_000_000,
                n_evaluations=128, schedule=quadrature.schedule(32), random_state=0,
            ).fit(train.numpy())  # fmt: skip
            e = model.log_prob(test.numpy())
            line(
                "trained",
                f"path (6), {model.model_.schedule.n_steps} steps",
                Estimate(*map(torch.from_numpy, e)),
            )
            rows = model.rows(test.numpy())
            x, volume = rows.x, rows.log_volume
            quadrature = pilot_quadrature(model.denoiser_, x, generator)
            e = integral_log_prob(
                model.denoiser_,
                x,
                quadrature,
                baseline=model.model_.marginals,
                n_points=256,
                generator=generator,
            )
            unit = torch.from_numpy(volume.sum(1))
            line("trained", "integral (4), independent", Estimate(e.log_prob + unit, e.stderr))
    header = [
        "truth",
        "columns",
        "entropy",
        "denoiser",
        "estimator",
        "too long by, nats",
        "s.e.",
        "stderr of a row",
    ]
    print(f"\n{markdown(header, lines)}")


def book(d: int) -> Codebook:
    return Codebook([ColumnPoints("real")] * d)


def gaussian(d: int) -> MixtureDenoiser:
    """A Gaussian whose columns have a variance of about a quarter, most of it in a few directions."""
    rng = np.random.default_rng(0)
    v, _ = np.linalg.qr(rng.normal(size=(d, d)))
    variances = np.geomspace(1.0, 0.02, d)
    variances *= 0.25 * d / variances.sum()
    return one_class(d, np.zeros(d), (v * variances) @ v.T)


def one_class(d: int, mean: np.ndarray, covariance: np.ndarray) -> MixtureDenoiser:
    """A mixture of one dense class: the Gaussian."""
    center, chol = (torch.from_numpy(t)[None] for t in (mean, np.linalg.cholesky(covariance)))
    return MixtureDenoiser(book(d), center.new_ones(1), center.new_ones(1, 0), center, chol=chol)


def mixture(d: int) -> MixtureDenoiser:
    """Four Gaussians of independent columns, which overlap in each column."""
    rng = np.random.default_rng(0)
    means = torch.from_numpy(rng.normal(size=(4, d)) * 0.4).float()
    var = torch.from_numpy(rng.uniform(0.02, 0.1, size=(4, d))).float()
    empty = torch.zeros(4, 0)
    return MixtureDenoiser(book(d), torch.tensor([0.4, 0.3, 0.2, 0.1]), empty, means, var)


def draw(truth: Denoiser, n: int, rng: np.random.Generator) -> Tensor:
    """Rows of the truth."""
    assert isinstance(truth, MixtureDenoiser)
    if truth.chol.numel():
        covariance = (truth.chol[0] @ truth.chol[0].T).double().numpy()
        return torch.from_numpy(rng.multivariate_normal(np.zeros(len(covariance)), covariance, n))
    p = truth.log_weights.exp().double().numpy()
    pick = rng.choice(len(p), size=n, p=p / p.sum())
    means, var = truth.means.double().numpy()[pick], truth.var.double().numpy()[pick]
    return torch.from_numpy(means + np.sqrt(var) * rng.normal(size=means.shape))


def marginals(truth: Denoiser, x: Tensor) -> MarginalDenoiser:
    """One Gaussian for each column."""
    var, mean = x.var(0), x.mean(0)
    parts = torch.stack([torch.zeros_like(var), mean, var])[:, :, None]
    return MarginalDenoiser(truth.codebook, torch.zeros(0), parts)


if __name__ == "__main__":
    main()
