"""Candidates made by hand: which is chosen, which answers beside it, and which member a mixture answers by."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch

from discrete_itd.channel import Codebook, ColumnPoints
from discrete_itd.denoisers import CausalDenoiser, MarginalDenoiser, RowMixtureDenoiser
from discrete_itd.models.comparison import CandidateModel, CandidateTable
from discrete_itd.models.fitting import FitPlan, Recipe
from discrete_itd.models.held_out import TrainingRows
from discrete_itd.training.loop import TrainingPlan

BOOK = Codebook([ColumnPoints("simplex", 2)])
N = 400


class Fitted(MarginalDenoiser):
    """Independent columns that are exact or not, and cost what they are said to."""

    def __init__(self, p, *, exact=True, work=1):
        super().__init__(BOOK, torch.tensor([p, 1 - p], dtype=BOOK.dtype))
        self.exact, self._work = exact, work

    @property
    def closed_form(self):
        return True

    @property
    def score_work(self):
        return self._work


def held_out(denoiser):
    return -denoiser.log_prob(torch.zeros(N, 1, dtype=torch.float64)).double()


def table_of(*candidates):
    x = torch.zeros(N, 1, dtype=torch.float64)
    table = CandidateTable(TrainingRows(Fitted(0.5), x, x, torch.Generator()))
    table.candidates = list(candidates)
    return table


def behind(best, stderrs, seed=0):
    """Nats of a model that is so many paired standard errors behind another one, (N,)."""
    gap = torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gap = (gap - gap.mean()) / gap.std()
    return best + gap + stderrs / math.sqrt(N)


@pytest.mark.parametrize(
    ("stderrs", "chosen"), [(0.5, "cheap"), (0.95, "cheap"), (1.05, "best"), (3.0, "best")]
)
def test_property_a_cheaper_model_is_taken_within_one_paired_standard_error(stderrs, chosen):
    """Of the mean difference over rows, whatever rows cost by themselves."""
    nats = 50 * torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    best = CandidateModel("best", Fitted(0.5, work=10), nats, 0.0)
    cheap = CandidateModel("cheap", Fitted(0.5, work=5), behind(nats, stderrs), 0.0)
    hopeless = CandidateModel("hopeless", Fitted(0.5, work=1), nats + 5, 0.0)
    for candidates in ((best, cheap, hopeless), (hopeless, cheap, best)):
        table = table_of(*candidates)
        assert table.cheapest().label == chosen
    equal = CandidateModel("equal", Fitted(0.5, work=10), nats.clone(), 0.0)
    assert table_of(best, equal).cheapest() is best
    assert table_of(equal, best).cheapest() is equal


def test_property_shares_of_the_anomaly_score_add_up_to_one():
    """Where two candidates are one denoiser, too, as of recipes that found nothing to learn."""
    nats = torch.ones(N, dtype=torch.float64)
    chosen = CandidateModel("independent", Fitted(0.5), nats, 0.0)
    same = CandidateModel("mixture", chosen.denoiser, nats, 0.0, scores=True)
    other = CandidateModel("forest", Fitted(0.5), nats + 1, 0.0, scores=True)
    base = CandidateModel("tree", Fitted(0.5), nats, 0.0)
    for order in itertools.permutations((chosen, same, other, base)):  # no matter which comes first
        fitted = table_of(*order).settle(chosen)
        assert fitted.members == (other.denoiser,)
        assert fitted.shares == pytest.approx((1 / (1 + math.exp(-1)), 1 / (1 + math.e)))


def test_property_what_has_no_voice_is_missed_in_no_result():
    """Neither the shares of the score nor the weights of the mixture change where it is one more candidate."""
    generator, voices = torch.Generator().manual_seed(0), []
    for mean in (0.0, 2.0, 4.0, 9.0, 15.0) * 4:
        nats = 20 + 3 * torch.randn(4, N, generator=generator, dtype=torch.float64)
        nats[3] += mean
        *others, late = [
            CandidateModel(f"model {i}", Fitted(0.5), n, 0.0, scores=True)
            for i, n in enumerate(nats)
        ]
        table = table_of(*others)
        voices.append(table.has_voice(late.nats, late.mean))
        if not voices[-1]:
            share, weight = (
                table.settle(table.mixture()).candidates[k] for k in ("share", "weight")
            )
            table.candidates.append(late)
            fitted = table.settle(table.mixture()).candidates
            assert fitted["share"].tolist() == pytest.approx([*share, 0.0])
            assert fitted["weight"].tolist() == pytest.approx([*weight, 0.0], abs=1e-3)
    assert 0 < sum(voices) < len(voices)
    # some rows that no other predicts are reason enough
    late = torch.where(torch.arange(N) % 9 == 0, 0.0, 90.0).double()
    assert late.mean() > 60
    assert table.has_voice(late, 60.0)
    assert not table.has_voice(late + 90, 60.0)
    assert table.has_voice(late + 90, 22.0)  # in the best case
    assert table_of().has_voice(late, 60.0)


def test_the_companion_is_the_best_that_hears_every_column():
    """Of the exact candidates, and of what answers for those that are not."""
    nats = torch.ones(N, dtype=torch.float64)
    chosen = CandidateModel("causal", Fitted(0.9, exact=False), nats, 0.0)
    worse, better = Fitted(0.2), Fitted(0.6)
    for of_fit, best in ((0.3, 0.6), (0.8, 0.8)):
        for order in ((worse, better), (better, worse)):
            exact = [CandidateModel(f"exact {i}", d, held_out(d), 0.0) for i, d in enumerate(order)]
            table = table_of(chosen, *exact)
            table.companions = [Fitted(of_fit)]
            fitted = table.settle(chosen)
            assert fitted.denoiser is chosen.denoiser
            assert fitted.companion.log_probs.exp()[0].item() == pytest.approx(best)
            assert fitted.candidates["chosen"].tolist() == [True, False, False]
    fitted = table_of(chosen, exact[0]).settle(exact[0])
    assert fitted.companion is None  # what is exact answers by itself


def test_the_companion_mixes_exact_models_that_err_differently():
    """It is exact itself, and there though only single models and a causal network were candidates."""
    first = torch.arange(N) % 2 == 0
    nats = torch.where(first, 0.3, 2.0).double()
    exact = [
        CandidateModel(f"exact {i}", Fitted(0.6), n, 0.0) for i, n in enumerate((nats, 2.3 - nats))
    ]
    table = table_of(
        *exact, CandidateModel("causal", Fitted(0.9, exact=False), nats / 4 + 0.1, 0.0)
    )
    companion = table.settle(table.candidates[-1]).companion
    assert isinstance(companion, RowMixtureDenoiser)
    assert companion.exact
    assert len(companion.members) == 2
    assert companion.log_weights.exp().tolist() == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.mark.parametrize(
    ("exact", "main"), [("-EE", 1), ("--E", 2), ("---", 0), ("EEE", 0), ("E-E", 0)]
)
def test_a_mixture_answers_by_its_best_exact_member(exact, main):
    """By its best member, if none is exact. Here each one is worse than those before it."""
    random = torch.Generator().manual_seed(0)
    nats = torch.rand(3, N, generator=random, dtype=torch.float64) * 4
    nats += torch.tensor([[1.0], [1.3], [1.6]])
    assert (nats.mean(1).diff() > 0).all()
    members = [
        CandidateModel(f"no. {i}", Fitted(0.5, exact=e == "E"), nats[i], 0.0)
        for i, e in enumerate(exact)
    ]
    found = table_of(*members).mixture().denoiser
    assert len(found.members) == 3
    assert found.main == main


def test_properties_weights_of_a_mixture_have_the_largest_likelihood_of_pairs():
    """At the maximum each member's mean share is its weight; the nats are those of the weighted probabilities."""
    random = torch.Generator().manual_seed(3)
    nats = 4 * torch.rand(3, N, generator=random, dtype=torch.float64).square()
    nats[1] = 4 - nats[0]  # it is probable where the first member is not
    table = table_of(*(CandidateModel(f"no. {i}", Fitted(0.5), n, 0.0) for i, n in enumerate(nats)))
    mixture = table.mixture()
    weights = torch.tensor([mixture.denoiser.weights], dtype=torch.float64).T
    joint = weights.log() - nats
    torch.testing.assert_close(mixture.nats, -joint.logsumexp(0))
    torch.testing.assert_close(joint.softmax(0).mean(1), weights[:, 0], atol=2e-3, rtol=0)


@dataclass(frozen=True)
class Given(Recipe):
    denoiser: CausalDenoiser

    def fit(self, rows, plan):
        return self.denoiser


def test_properties_gaps_that_carry_information_are_summed_out_of_every_candidate():
    """A network that is fed with gaps is judged by the probability of the known cells, not by that given the gaps."""
    book = Codebook([ColumnPoints("simplex", 2)] * 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(2, (N, 2), generator=generator).double()
    base = MarginalDenoiser.fit(book, x)
    network = CausalDenoiser(base, [1, 0], width=8)
    torch.nn.init.normal_(network.network.leave.weight, generator=generator)
    network.requires_grad_(False).eval()
    sums = network.log_prob(torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).double())
    gaps = x.clone()
    gaps[::2, 1] = math.nan
    expected = -network.log_prob(x).double()
    expected[::2] = -sums.view(2, 2).logsumexp(1)[x[::2, 0].long()].double()
    for summed_out in ((), (1,)):
        rows = TrainingRows(base, gaps, gaps, generator, summed_out=summed_out)
        table = CandidateTable(rows)
        table.fit(Given(network), FitPlan(TrainingPlan(), 0))
        same = torch.allclose(table.candidates[0].nats, expected, atol=1e-4)
        assert same == bool(summed_out)
