"""Diffusion models trained with diffusers, as they are, tuned, and together: bits per dimension on handwritten digits.

    python -m tests.benchmarks.images --train-time 300 --tune-time 120

Two models of scikit-learn's digits (8 x 8 pixels, 17 levels) are trained as the examples of diffusers train theirs,
saved with ``save_pretrained`` and read back: one of linear noise that predicts the noise, one of cosine noise that
predicts the velocity. Of 1 797 pictures 1 200 train them, 237 are held out (for calibration and the weights of
ensembles, and to stop tuning), 360 are tested. Then:

* bits per dimension by the integral (4) and the path (6), of the models as they are, tuned, and in ensembles;
  of independent pixels, and of exact models of this library fitted to the same pictures;
* the same integral by the procedure that was released with the paper, and how many network calls each needs for a
  standard error.

What was trained is kept in ``.cache/images``; ``--fresh`` begins anew.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from discrete_itd import DiffusionDensity
from discrete_itd.denoisers import Denoiser
from discrete_itd.images import ImageDensity
from discrete_itd.images.density import ImageEstimate
from discrete_itd.likelihood.integral import error_and_tail
from tests.benchmarks import tables
from tests.benchmarks.tables import machine, markdown, mean_and_error

KINDS = {
    "linear, noise": {"beta_schedule": "linear", "prediction_type": "epsilon"},
    "cosine, velocity": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
}


def main() -> None:
    """Train what is not kept, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-time", type=float, default=300.0, help="seconds of each model")
    parser.add_argument("--tune-time", type=float, default=120.0)
    parser.add_argument("--tests", type=int, default=360, help="pictures tested")
    parser.add_argument("--points", type=int, default=96, help="of an integral")
    parser.add_argument("--paths", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    try:
        import diffusers
    except ImportError:
        print('skipped: pip install "discrete-itd[diffusers]"')
        return
    print(machine(), f"diffusers {diffusers.__version__}", flush=True)
    X = load_digits().images.astype(int)
    X = X[np.random.default_rng(0).permutation(len(X))]
    train, valid, test = X[:1200], X[1200:1437], X[1437:][: options.tests]
    folder = tables.CACHE / "images"
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    models, lines = {}, []
    for name in KINDS:
        if not (folder / name / "done").exists():
            pretrain(folder / name, name, train, options)
        models[name] = adapted(folder / name / "last", valid, options.device)

    def line(name: str, what: str, score: Callable[[], ImageEstimate]) -> None:
        start = time.perf_counter()
        nats = -score().log_prob
        mean, error = mean_and_error(nats)
        bits = [f"{v / math.log(2) / 64:.3f}" for v in (mean, error)]
        lines.append([name, what, *bits, f"{mean:.2f}", f"{time.perf_counter() - start:.0f}"])
        print("  ", *lines[-1], flush=True)

    for name, model in models.items():
        line(name, "integral", lambda m=model: m.integral(test, n_points=options.points))
        line(name, "path", lambda m=model: m.log_prob(test, n_paths=options.paths))
    tuned = {}
    for name, model in models.items():
        start = time.perf_counter()
        tuned[name] = model.fine_tune(
            train, held_out=valid, max_time=options.tune_time, max_steps=1_000_000
        )
        minutes = (time.perf_counter() - start) / 60
        history = tuned[name].history
        gain = history.valid_nats.iloc[0] - history.valid_nats.min()
        print(
            f"   tuned {name}: {history.step.iloc[-1]} steps, {minutes:.1f} minutes, held-out nats"
            f" {history.valid_nats.iloc[0]:.2f} to {history.valid_nats.min():.2f}: {gain / minutes:.2f} a minute",
            flush=True,
        )
        name = f"{name}, tuned"
        line(name, "integral", lambda m=tuned: last(m).integral(test, n_points=options.points))
        line(name, "path", lambda m=tuned: last(m).log_prob(test, n_paths=options.paths))
    for name, members in (("both", models), ("both, tuned", tuned)):
        both = ImageDensity.ensemble(list(members.values()), valid)
        line(name, "integral", lambda m=both: m.integral(test, n_points=options.points))
        line(name, "path", lambda m=both: m.log_prob(test, n_paths=options.paths))
    first = next(iter(models.values()))
    base = first.denoiser.base
    line(
        "independent pixels",
        "closed form",
        lambda: ImageEstimate(base.log_prob(first.encode(test)).cpu().numpy(), None),
    )
    for kind in ("tree", "mixture", "bayes_net"):
        fitted = DiffusionDensity(denoiser=kind, random_state=0).fit(X[:1437].reshape(-1, 64))
        score = fitted.score_samples(test.reshape(-1, 64))
        line(
            f"{kind} of this library",
            "closed form",
            lambda s=score: ImageEstimate(s, None),
        )
    header = ["model", "estimate", "bits per dimension", "s.e.", "nats", "s"]
    print(f"\n{len(test)} test pictures\n\n{markdown(header, lines)}\n", flush=True)

    print(released_beside_ours(first, test[:100]), "\n", flush=True)


def last(models: dict[str, ImageDensity]) -> ImageDensity:
    """The model that was added last."""
    return list(models.values())[-1]


def pretrain(folder: Path, name: str, X: np.ndarray, options: argparse.Namespace) -> None:
    """Train a UNet as the example of diffusers for unconditional generation does, and save it here and there."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=8,
        block_out_channels=(16, 32), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).float().to(options.device)  # fmt: skip
    scheduler = DDPMScheduler(num_train_timesteps=1000, **KINDS[name])
    clean = torch.tensor(X[:, None] / 8 - 1, dtype=torch.float32, device=options.device)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=2e-3, betas=(0.95, 0.999), weight_decay=1e-6
    )
    average = EMAModel(
        unet.parameters(), decay=0.995, use_ema_warmup=True, inv_gamma=1.0, power=0.75
    )
    start, step = time.perf_counter(), 0
    rate = get_cosine_schedule_with_warmup(optimizer, 100, 5000)

    def save(target: Path) -> None:
        average.store(unet.parameters())
        average.copy_to(unet.parameters())
        unet.save_pretrained(target)
        scheduler.save_pretrained(target)
        average.restore(unet.parameters())

    while time.perf_counter() - start < options.train_time:
        pick = torch.randint(len(clean), (64,))
        picture = clean[pick]
        noise = torch.randn_like(picture)
        t = torch.randint(0, 1000, (64,), device=options.device)
        answer = unet(scheduler.add_noise(picture, noise, t), t).sample
        wanted = noise
        if scheduler.config.prediction_type == "v_prediction":
            wanted = scheduler.get_velocity(picture, noise, t)
        loss = torch.nn.functional.mse_loss(answer, wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        rate.step()
        average.step(unet.parameters())
        step += 1
    save(folder / "last")
    (folder / "done").touch()
    print(f"   trained {name}: {step} steps, loss {loss.item():.4f}", flush=True)


def adapted(folder: Path, valid: np.ndarray, device: str) -> ImageDensity:
    """A saved model, as a user reads it."""
    from diffusers import DDPMScheduler, UNet2DModel

    unet = UNet2DModel.from_pretrained(folder).float().to(device)
    return ImageDensity.from_diffusers(
        unet, DDPMScheduler.from_pretrained(folder), valid, n_levels=17
    )


# -- the procedure that was released with the paper -----------------------------------------------


@torch.no_grad()
def released(
    denoiser: Denoiser,
    x: Tensor,
    eigenvalues: Tensor,
    n_points: int,
    generator: torch.Generator,
    clip: float = 4.0,
) -> Tensor:
    r"""The integral (3) as in the code published with Kong et al. (2023): a naive reference.

    Points of logsnr are drawn from a logistic density that is cut at ``clip`` scales, one for all rows of the batch,
    whose place and scale come from the eigenvalues of the data's covariance; rows get fresh noise at each. Nothing is
    stratified, and the tails beyond are left out.

    Returns
    -------
    Tensor, shape (n_points, N)
        :math:`\tfrac12 w \gamma \|x - \hat x\|^2` of every point and row: the mean over points is -log P.
    """
    book = denoiser.codebook
    log = eigenvalues.log()
    loc, scale = -log.mean(), (1 + 3 / math.pi**2 * log.var()).sqrt()
    low, high = torch.sigmoid(torch.tensor([-clip, clip], dtype=torch.float64))
    u = low + (high - low) * torch.rand(n_points, generator=generator, dtype=torch.float64)
    logsnr = loc + scale * torch.logit(u)
    weight = scale * (high - low) / (u * (1 - u))
    points, out = book.embed(x), []
    for at, w in zip(logsnr.tolist(), weight.tolist(), strict=True):
        snr = math.exp(at)
        xi = torch.randn(points.shape, generator=generator, dtype=points.dtype)
        y = snr * points + math.sqrt(snr) * xi
        q = denoiser(y, torch.full(x.shape, snr).to(points))
        out.append(0.5 * w * snr * error_and_tail(q, x)[0])
    return torch.stack(out)


@torch.no_grad()
def tails(
    denoiser: Denoiser,
    x: Tensor,
    eigenvalues: Tensor,
    generator: torch.Generator,
    clip: float = 4.0,
) -> Tensor:
    """What :func:`released` leaves out: the nats of each row below its lowest SNR and beyond its highest, (N,)."""
    book, log = denoiser.codebook, eigenvalues.log()
    loc, scale = -log.mean(), (1 + 3 / math.pi**2 * log.var()).sqrt()
    low, high = (float((loc + s * clip * scale).exp()) for s in (-1, 1))
    points, nothing = book.embed(x), torch.zeros(x.shape).to(book.known_snr)
    left = low / 2 * error_and_tail(denoiser(torch.zeros_like(points), nothing), x)[0]
    xi = torch.randn(points.shape, generator=generator, dtype=points.dtype)
    state = high * points + math.sqrt(high) * xi, nothing + high
    return left + error_and_tail(denoiser(*state), x)[1]


def released_beside_ours(model: ImageDensity, test: np.ndarray, n_points: int = 1000) -> str:
    """A table of both: nats, standard error of a picture's estimate, calls, and calls for an error of one nat."""
    x = model.encode(test)
    points = model.denoiser.codebook.embed(x).double().cpu()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(points.T))
    eigenvalues = eigenvalues[eigenvalues > 1e-4 * eigenvalues.max()]
    f = released(
        model.denoiser, x, eigenvalues, n_points, torch.Generator().manual_seed(0)
    ).double()
    lines = []

    def line(name: str, log_prob: Tensor, calls: int, error: float) -> None:
        lines.append(
            [
                name,
                calls,
                *mean_and_error(-log_prob.cpu().numpy()),
                error,
                f"{calls * error**2:.0f}",
            ]
        )

    error = float((f.var(0) / n_points).mean().sqrt())
    line(f"released procedure, {n_points} points", -f.mean(0), n_points, error)
    beyond = tails(model.denoiser, x, eigenvalues, torch.Generator().manual_seed(1))
    line("the same, and the tails that it leaves out", -f.mean(0) - beyond, n_points, error)
    salts = range(6)
    for name, calls, score in (
        ("integral (4), 128 points", 128, lambda m: m.integral(test, n_points=128)),
        ("path (6), 32 steps x 4", 32 * 4, lambda m: m.log_prob(test, n_paths=4)),
    ):
        seed, each = model.random_state, []
        for model.random_state in salts:
            each.append(torch.from_numpy(score(model).log_prob))
        model.random_state = seed
        together = torch.stack(each)
        line(name, together.mean(0), calls, float(together.var(0).mean().sqrt()))
    header = [
        "estimator",
        "calls",
        "nats",
        "s.e. over pictures",
        "error of one picture",
        "calls for an error of one nat",
    ]
    return markdown(header, lines)


if __name__ == "__main__":
    main()
