"""What EM and scores of a mixture whose numbers depend on one another cost, and its nats, in two checkouts.

    python -m tests.benchmarks.mixtures CHECKOUT
    python -m tests.benchmarks.mixtures CHECKOUT cardio odd:SalesPerformance --gaps 0.1

The companion of a causal network (``QUICK_MIXTURE``) is fitted to a random half of the normal rows of a numeric table
(to the training rows of one of OddBench), in this checkout and in another one, each in a process of one thread.
Seconds are processor time: of EM with its evaluations, and from rows a second of log-probabilities and of factors by
column, of 2 000 normal rows at most that took no part in the fit. Nats are theirs; the difference is that of each row.
AUROC is by the log-probability alone. With ``--gaps``, such a share of the cells is missing at random.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from tests.benchmarks import data
from tests.benchmarks.tables import machine, markdown

TABLES = ("pendigits", "cardio", "annthyroid", "shuttle", "vowels", "glass", "Wilt")
COARSE = (
    "odd:SalesPerformance",
    "odd:WineClassification",
    "odd:HospitalPayment",
    "odd:UsageFrequency",
)
SCORED = 2000
CODE = "from tests.benchmarks.mixtures import print_measured; print_measured({!r}, {!r})"


def main() -> None:
    """Print a line per table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="another checkout, which has this script too")
    parser.add_argument("tables", nargs="*", default=[*TABLES, *COARSE])
    parser.add_argument("--gaps", type=float, default=0.0)
    options = parser.parse_args()
    print(machine())
    header = ["table", "rows × numbers", "EM, s", "log-probabilities / s", "factors / s"]
    header += ["nats", "difference", "AUROC × 100"]
    lines, here = [], Path(__file__).parents[2]
    for name in options.tables:
        other, own = (measured(place, name, options.gaps) for place in (options.checkout, here))
        more = np.subtract(own["nats"], other["nats"])
        both = [
            f"{one[key]:,.{digits}f}"
            for key, digits in (("em", 2), ("log_prob", 0), ("log_factors", 0))
            for one in (other, own)
        ]
        pairs = [f"{a} → {b}" for a, b in zip(both[::2], both[1::2], strict=True)]
        error = more.std(ddof=1) / np.sqrt(len(more))
        nats, auroc = (f"{np.mean(own['nats']):.3f}", f"{other['auroc']:.1f} → {own['auroc']:.1f}")
        lines.append([name, own["size"], *pairs, nats, f"{more.mean():+.3f} ± {error:.3f}", auroc])
        print(lines[-1], flush=True)
    print(markdown(header, lines))


def measured(checkout: Path, name: str, gaps: float) -> dict[str, Any]:
    """The measures of one table by the code of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE.format(name, gaps)]
    out = subprocess.run(
        command, cwd=checkout, env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(out.stdout.splitlines()[-1])


def rows_of(name: str, gaps: float) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rows to fit to, other normal ones, and anomalies."""
    rng = np.random.default_rng(0)
    if name.startswith("odd:"):
        table = data.load_odd(name.removeprefix("odd:"))
        is_odd = np.asarray(table.is_odd)
        parts = [table.train, table.test.loc[~is_odd], table.test.loc[is_odd]]
    else:
        rows, labels = data.load_numeric(name)
        normal = rng.permutation(np.flatnonzero(labels == 0))[:12_000]
        half = len(normal) // 2
        places = normal[:half], normal[half:], np.flatnonzero(labels == 1)
        parts = [pd.DataFrame(rows[place]) for place in places]
    if gaps:
        parts = [pd.DataFrame(part.mask(rng.random(part.shape) < gaps)) for part in parts]
    fit, new, odd = (pd.DataFrame(part) for part in parts)
    return fit, new.head(SCORED), odd.head(SCORED)


def print_measured(name: str, gaps: float) -> None:
    """Print the measures as JSON."""
    import torch

    from discrete_itd import DiffusionDensity
    from discrete_itd.models import decoder_mixture
    from discrete_itd.models.networks import QUICK_MIXTURE

    seconds, refine = [], decoder_mixture.refine

    def timed(*args: Any, **how: Any) -> Any:
        start = time.process_time()
        refined = refine(*args, **how)
        seconds.append(time.process_time() - start)
        return refined

    decoder_mixture.refine = timed
    fit, new, odd = rows_of(name, gaps)
    density = DiffusionDensity(denoiser=QUICK_MIXTURE, random_state=0).fit(fit)
    denoiser, nats = density.denoiser_, [-density.score_samples(part) for part in (new, odd)]
    out: dict[str, Any] = {"em": sum(seconds), "nats": nats[0].tolist()}
    is_odd = np.repeat([0, 1], [len(part) for part in nats])
    out["auroc"] = 100 * roc_auc_score(is_odd, np.concatenate(nats))
    x = density.rows(new).x
    with torch.inference_mode():
        for method in ("log_prob", "log_factors"):
            start = time.process_time()
            getattr(denoiser, method)(x)
            out[method] = len(x) / (time.process_time() - start)
    out["size"] = f"{len(fit):,} × {len(denoiser.codebook.reals)}"
    print(json.dumps(out))


if __name__ == "__main__":
    main()
