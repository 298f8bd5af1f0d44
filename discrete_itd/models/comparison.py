"""Candidates: models of the same rows, compared on the same held-out rows by nats, work per row and time of the fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from discrete_itd.denoisers import Denoiser, RowMixtureDenoiser
from discrete_itd.denoisers.following import following
from discrete_itd.denoisers.row_mixture import fit_weights
from discrete_itd.likelihood.conditional import ConditionalDenoiser
from discrete_itd.models.fitting import FitPlan, Fitted, Recipe, fit_recipe
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.models.model import parts_of
from discrete_itd.progress import stage
from discrete_itd.training.loop import Report

LEAST_MEMBER_WEIGHT = 0.02  # a mixture of rows drops members of less weight
LEAST_SHARE = 0.05  # a model with a smaller share of the anomaly score is not worth its time


@dataclass(frozen=True, eq=False)
class CandidateModel:
    """A fitted model with a closed form: its held-out code lengths ``nats`` (N',), float64, and seconds of its fit.

    ``report`` describes its training, if any; ``members`` is empty unless it is a mixture of rows. One that ``scores``
    takes part in the anomaly score whichever is chosen.
    """

    label: str
    denoiser: Denoiser
    nats: Tensor
    fit_seconds: float
    report: Report | None = None
    members: tuple[CandidateModel, ...] = ()
    scores: bool = False

    @property
    def mean(self) -> float:
        return float(self.nats.mean())


@dataclass
class CandidateTable:
    """Fits candidates to rows, compares them and chooses among them."""

    rows: TrainingRows
    candidates: list[CandidateModel] = field(default_factory=list, init=False)
    companions: list[Denoiser] = field(default_factory=list, init=False)

    def fit(self, recipe: Recipe, plan: FitPlan, *, scores: bool = False) -> None:
        """Fit one more candidate, which may take part in the anomaly score; TypeError if it has no closed form."""
        label = recipe.label
        with stage(f"fitting {label}"):
            fitted = fit_recipe(recipe, self.rows, replace(plan, has_voice=self.has_voice))
        if not fitted.denoiser.closed_form:
            raise TypeError(f"{label}: its denoiser has no closed form")
        if same := sum(c.label.partition(" no. ")[0] == label for c in self.candidates):
            label = f"{label} no. {same + 1}"
        nats, fit = self._held_out(fitted.denoiser), (fitted.seconds, fitted.report)
        candidate = CandidateModel(label, fitted.denoiser, nats, *fit, scores=scores)
        self.candidates.append(candidate)
        if fitted.companion is not None:
            self.companions.append(fitted.companion)

    def _held_out(self, denoiser: Denoiser) -> Tensor:
        """Code lengths of held-out rows (N',), by the same probability for all candidates: of the known cells.

        A network is fed with gaps: where these carry information, P(cells | gaps) would be another one.
        """
        nats = self.rows.held_out(denoiser)
        if denoiser.exact or not self.rows.summed_out:
            return nats
        exact = [c for c in self.candidates if c.denoiser.exact and not c.members]
        proposal = min(exact, key=lambda c: c.mean).denoiser if exact else self.rows.marginals
        learned = [j not in self.rows.summed_out for j in range(self.rows.codebook.n_columns)]
        scorer = following(denoiser, self.rows.relations)
        return -ConditionalDenoiser(scorer, proposal, learned).score(self.rows.x_valid).log_prob

    def attempt(self, recipe: Recipe, plan: FitPlan, *, scores: bool = False) -> None:
        """Fit one more candidate; if there are others, one that fails, with a warning, or has no time is left out."""
        if not self.candidates:
            self.fit(recipe, plan, scores=scores)
        elif not plan.time_left:
            plan.left_out.append(recipe.label)
        else:
            there, left_out = self.candidates[:], len(plan.left_out)
            self.rows.attempt(recipe, recipe.label, partial(self.fit, recipe, plan, scores=scores))
            if len(plan.left_out) > left_out:
                # it had no time for a step: the network equals its start
                self.candidates = there

    def has_voice(self, nats: Tensor, hoped: float) -> bool:
        """Whether a candidate with these ``nats`` of the first held-out rows (n,) may have a part in any result.

        That is in the anomaly score, if its mean falls to ``hoped``, or in the mixture of rows of all candidates.
        """
        others = [c.nats[: len(nats)] for c in self.candidates if not c.members]
        if not others:
            return True
        behind = hoped - min(float(other.mean()) for other in others)
        log_probs = -torch.stack([*others, nats.to(others[0])], 1)
        return behind < -math.log(LEAST_SHARE) or bool(
            fit_weights(log_probs, least=LEAST_MEMBER_WEIGHT)[-1]
        )

    def mixture(self, among: list[CandidateModel] | None = None) -> CandidateModel:
        """The mixture of rows (10) of the candidates with the weights that fit held-out rows best.

        A single candidate with all the weight is returned itself.
        """
        among = self.candidates if among is None else among
        single = [c for c in among if not c.members]
        weights = fit_weights(-torch.stack([c.nats for c in single], 1), least=LEAST_MEMBER_WEIGHT)
        kept = [(c, w) for c, w in zip(single, weights.tolist(), strict=True) if w]
        if len(kept) == 1:
            return kept[0][0]
        parts = tuple(c for c, _ in kept)
        exact = [i for i, c in enumerate(parts) if c.denoiser.exact] or range(len(parts))
        main = min(exact, key=lambda i: parts[i].mean)
        members, kept_weights = [c.denoiser for c in parts], [w for _, w in kept]
        joint = torch.stack([math.log(w) - c.nats for c, w in kept], 1)
        reports = [c.report for c in parts if c.report is not None]
        return CandidateModel(
            " + ".join(c.label for c in parts),
            RowMixtureDenoiser(self.rows.codebook, members, kept_weights, main),
            -torch.logsumexp(joint, 1),  # (10), from the members' nats
            sum(c.fit_seconds for c in parts),
            reports[0] if reports else None,
            parts,
        )

    def add_mixtures(self) -> None:
        exact = [c for c in self.candidates if c.denoiser.exact]
        every = self.candidates[:]
        for among in (exact, every) if len(exact) < len(every) else (every,):
            self.add(self.mixture(among))

    def add(self, candidate: CandidateModel) -> CandidateModel:
        """Add a mixture unless an equal one exists; returns it."""
        for there in self.candidates:
            if there is candidate or (there.members and there.members == candidate.members):
                return there
        self.candidates.append(candidate)
        return candidate

    def cheapest(self) -> CandidateModel:
        """The candidate of least work within one paired standard error of the best; the first of equals."""
        best = min(self.candidates, key=lambda c: c.mean)
        near = [c for c in self.candidates if self._behind(c, best)[0] <= self._behind(c, best)[1]]
        return min(near or [best], key=lambda c: c.denoiser.score_work)

    def _behind(self, one: CandidateModel, best: CandidateModel) -> tuple[float, float]:
        """Mean difference of two candidates, nats per row, and its standard error over rows."""
        if one is best:
            return 0.0, 0.0
        gap = one.nats - best.nats
        return float(gap.mean()), float(gap.std() / math.sqrt(len(gap))) if len(gap) > 1 else 0.0

    def settle(self, chosen: CandidateModel) -> Fitted:
        """The fit that ends with a candidate: with the companion for conditionals that it cannot compute.

        Candidates that score take part in the anomaly score, each by the factor by which its mean held-out density is
        smaller.
        """
        weights = {chosen: 1.0}
        if isinstance(chosen.denoiser, RowMixtureDenoiser) and chosen.members:
            weights = dict(zip(chosen.members, chosen.denoiser.weights, strict=True))
        shares = self._shares(chosen)
        best = min(self.candidates, key=lambda c: c.mean)
        behind = [self._behind(c, best) for c in self.candidates]
        of_candidates = {
            "candidate": [c.label for c in self.candidates],
            "nats": [c.mean for c in self.candidates],
            "behind": [nats for nats, _ in behind],
            "stderr": [stderr for _, stderr in behind],
            "work": [c.denoiser.score_work for c in self.candidates],  # which decides
            "fit_seconds": [c.fit_seconds for c in self.candidates],
            "chosen": [c is chosen for c in self.candidates],
            "weight": [weights.get(c, 0.0) for c in self.candidates],
            "share": [shares.get(c, 0.0) for c in self.candidates],  # of the anomaly score
        }
        companion = None
        if not chosen.denoiser.exact:
            exact = {c.denoiser: c for c in self.candidates if c.denoiser.exact and not c.members}
            for d in self.companions:
                nats = self.rows.attempt(d, "a companion", partial(self.rows.held_out, d))
                if nats is not None:
                    exact.setdefault(d, CandidateModel("companion", d, nats, 0.0))
            if exact:
                companion = self.mixture(list(exact.values())).denoiser
        share_of = {c.denoiser: share for c, share in shares.items()}
        parts = parts_of(chosen.denoiser)
        members = tuple(d for d in share_of if d not in parts)
        return Fitted(
            chosen.denoiser,
            chosen.report,
            companion,
            pd.DataFrame(of_candidates),
            members,
            tuple(share_of.get(d, 0.0) for d in (*parts, *members)),
        )

    def _shares(self, chosen: CandidateModel) -> dict[CandidateModel, float]:
        """Shares of the anomaly score in proportion to exp(-held-out nats)."""
        # two candidates are one denoiser where neither found anything to learn
        scoring = [c for c in self.candidates if c.scores]
        every = list({c.denoiser: c for c in [*scoring, chosen]}.values())
        share = torch.softmax(-torch.tensor([c.mean for c in every]), 0).tolist()
        kept = {c: s for c, s in zip(every, share, strict=True) if s >= LEAST_SHARE or c is chosen}
        return {c: s / sum(kept.values()) for c, s in kept.items()}
