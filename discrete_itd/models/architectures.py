"""Which architecture a network has: a short training of each, at equal cost, on tables that attention may suit."""

from __future__ import annotations

from collections.abc import Callable

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers import NeuralDenoiser
from discrete_itd.models.bases import compare, worth_comparing
from discrete_itd.models.contract import FitPlan, TrainingRows

# attention costs the square of the columns
FEWEST_COLUMNS, MOST_COLUMNS = 8, 64
# each candidate gets this part (one in ...) of the steps, at most so many, or of the time
SHARE, STEPS = 30, 200


def choose_architecture(
    network: Callable[[str], NeuralDenoiser], rows: TrainingRows, plan: FitPlan
) -> tuple[str, float]:
    """The architecture that learns more at equal cost; "mlp" without a comparison where attention is unlikely to help.

    Parameters
    ----------
    network : callable
        Makes the untrained network of an architecture.
    rows : TrainingRows
    plan : FitPlan

    Returns
    -------
    architecture : {"mlp", "transformer"}
    time_share : float
        Share of the network's time that the comparison took.
    """
    if not may_suit(rows.codebook) or not worth_comparing(rows, plan, SHARE * STEPS // 4):
        return "mlp", 0.0
    mlp, transformer = network("mlp"), network("transformer")
    n_steps = min(STEPS, plan.training.max_steps // SHARE)
    fair = max(8, round(n_steps * operations(mlp) / operations(transformer)))
    won = compare(
        f"architecture of network {plan.index}",
        {"mlp": mlp, "transformer": transformer},
        {"mlp": n_steps, "transformer": fair},
        SHARE,
        rows,
        plan,
    )
    return won, 2 / SHARE


def may_suit(codebook: Codebook) -> bool:
    """Whether attention over the columns of a table is affordable and has something to attend to."""
    few = FEWEST_COLUMNS <= codebook.n_columns <= MOST_COLUMNS
    return few and not codebook.vocabularies


def operations(denoiser: NeuralDenoiser) -> float:
    """Multiplications of a network for one row: every weight once, or once for each column that shares it."""
    n_columns = denoiser.codebook.n_columns
    own = sum(p.numel() for p in denoiser.network.parameters())
    if denoiser.architecture == "mlp":
        return float(own)
    shared = sum(
        p.numel() for name, p in denoiser.network.named_parameters() if name.startswith("blocks.")
    )
    attention = 2 * n_columns**2 * denoiser.width * denoiser.depth
    return float(own + (n_columns - 1) * shared + attention)
