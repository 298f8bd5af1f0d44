"""The checks for parts of one's own: the library's parts pass them, and each fails for a part that is broken."""

import dataclasses

import numpy as np
import pytest
import torch
from laws import (
    SCHEDULES,
    Stranger,
    cases,
    make_book,
    make_denoiser,
    random_bayes_net,
    random_marginals,
    random_network,
)
from models.foreign import DoublingSchedule, LinearDenoiser

from discrete_itd.channel import (
    CategoricalPosterior,
    GaussianPosterior,
    IsotropicSchedule,
    Posterior,
)
from discrete_itd.denoisers import BayesNetDenoiser, CausalDenoiser, Denoiser, MarginalDenoiser
from discrete_itd.testing import check_denoiser, check_schedule
from tests.support import SupportDenoiser

KINDS = [
    "network", "stranger", "marginals", "oracle", "mixture", "tree", "trees", "bayes_net", "forest",
    "causal on marginals", "causal on bayes_net",
]  # fmt: skip
EXACT = {"missing_cells_are_summed_over", "posterior_is_enumerated", "any_order"}


@pytest.mark.parametrize(("name", "kind"), cases(KINDS))
def test_the_librarys_denoisers_have_every_property(device, name, kind):
    denoiser = make_denoiser(kind, make_book(name, device), 1)
    checked = check_denoiser(denoiser, trusted=[SupportDenoiser])
    assert {"shapes", "row_alone", "repeatable"} <= set(checked)
    assert (set(checked) >= EXACT) == (
        denoiser.exact and name in ("simplex", "line", "mixed", "open")
    )


def test_a_network_in_training_has_finite_gradients(device):
    net = LinearDenoiser(
        make_book("mixed", device),
        random_marginals(make_book("mixed", device), np.random.default_rng(0)),
    )
    assert check_denoiser(net.to(device), trusted=[LinearDenoiser])[-2:] == ["gradients", "stored"]


# -- broken denoisers ------------------------------------------------------------------------------


class Wrapped(Denoiser):
    """Another denoiser's posterior, changed."""

    def __init__(self, inner):
        super().__init__(inner.codebook)
        self.inner = inner

    def logits(self, logits, y, snr):
        return logits

    def posterior(self, logits):
        return Posterior(self.codebook, CategoricalPosterior(self.codebook.levels, logits))

    def forward(self, y, snr):
        return self.posterior(self.logits(self.inner(y, snr).categorical.logits, y, snr))


class NoPosterior(Wrapped):
    def forward(self, y, snr):
        return self.inner(y, snr).mean()


class NotNormalised(Wrapped):
    def posterior(self, logits):
        q = CategoricalPosterior(self.codebook.levels, logits + 0.01, normalised=True)
        return Posterior(self.codebook, q)


class Noisy(Wrapped):
    def logits(self, logits, y, snr):
        return logits + torch.randn_like(logits)


class Centred(Wrapped):
    def logits(self, logits, y, snr):
        return logits * y.mean(0).sum()


class Certain(Wrapped):
    """At a known cell its weight is multiplied by infinity over infinity."""

    def __init__(self, inner):
        super().__init__(inner)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def logits(self, logits, y, snr):
        share = (self.weight * snr / (1 + snr)).nan_to_num(1.0)
        return logits * self.codebook.levels.per_level(share)


class Forgetful(Wrapped):
    """Says nothing of its factor."""

    def __init__(self, codebook, inner, factor=1.0):
        super().__init__(inner)
        self.factor = factor

    def logits(self, logits, y, snr):
        return logits * self.factor

    def config(self):
        return {"inner": self.inner}


class FlatPosterior(BayesNetDenoiser):
    def infer(self, evidence):
        log_mass, logits = super().infer(evidence)
        return log_mass, logits * 0.9


class TooProbable(BayesNetDenoiser):
    def log_prob(self, x):
        return super().log_prob(x) + 0.01


class ZeroFilled(BayesNetDenoiser):
    """Takes a missing cell for the first category."""

    def log_prob(self, x):
        return super().log_prob(x.nan_to_num(0.0))


class FactorsOfGaps(BayesNetDenoiser):
    def log_factors(self, x):
        return super().log_factors(x) - x.isnan()


class OrderedPath(BayesNetDenoiser):
    """Exact on the way down, but with columns that depend on how many are known."""

    def forward(self, y, snr):
        q = super().forward(y, snr)
        logits = q.categorical.logits * torch.where(snr.isinf().sum(1, keepdim=True) == 1, 0.5, 1.0)
        return Posterior(self.codebook, CategoricalPosterior(self.codebook.levels, logits))


class HearsLater(BayesNetDenoiser):
    def preceding(self, x, order):
        q = super().preceding(x, order)
        logits = q.categorical.logits * (1 + x.nansum(1, keepdim=True))
        return Posterior(self.codebook, CategoricalPosterior(self.codebook.levels, logits))


class DrawsAlike(BayesNetDenoiser):
    def draw(self, n, generator, **how):
        return super().draw(1, generator, **how).expand(n, -1)


def broken_net(cls, book):
    net = random_bayes_net(book, np.random.default_rng(3))
    net.__class__ = cls
    return net


WRAPPED = {
    NoPosterior: "shapes",
    NotNormalised: "posterior_sums_to_one",
    Noisy: "repeatable",
    Centred: "row_alone",
    Certain: "gradients",
}
NETS = {
    FlatPosterior: "posterior_is_enumerated",
    TooProbable: "closed_form_sums_to_one",
    ZeroFilled: "missing_cells_are_summed_over",
    FactorsOfGaps: "factors",
    OrderedPath: "any_order",
    HearsLater: "preceding",
    DrawsAlike: "draws",
}


def lacks(name, denoiser, **options):
    with pytest.raises(
        AssertionError, match=rf"{type(denoiser).__name__} lacks the property '{name}'"
    ):
        check_denoiser(denoiser, properties=[name], **options)
    with pytest.raises(AssertionError, match="lacks the property"):
        check_denoiser(denoiser, **options)


@pytest.mark.parametrize("cls", WRAPPED)
def test_a_broken_posterior_is_found(device, cls):
    lacks(WRAPPED[cls], cls(random_network(make_book("mixed", device), 0)))


@pytest.mark.parametrize("cls", NETS)
def test_a_broken_exact_denoiser_is_found(device, cls):
    lacks(NETS[cls], broken_net(cls, make_book("mixed", device)))


def test_what_a_path_hears_twice_is_found(device):
    lacks("path_sums_to_one", NotNormalised(random_network(make_book("mixed", device), 0)))


def test_a_denoiser_that_is_not_stored_whole_is_found(device):
    book = make_book("mixed", device)
    marginals = random_marginals(book, np.random.default_rng(0))
    check_denoiser(Forgetful(book, marginals), trusted=[Forgetful])
    lacks("stored", Forgetful(book, marginals, 0.5), trusted=[Forgetful])
    lacks("stored", Forgetful(book, marginals), trusted=[])


def test_weights_and_variances_of_continuous_columns_are_checked(device):
    class Wide(MarginalDenoiser):
        def forward(self, y, snr):
            q = super().forward(y, snr)
            g = q.gaussian
            wide = GaussianPosterior(g.log_weight + 0.1, g.means, g.var, normalised=True)
            return Posterior(self.codebook, q.categorical, wide)

    denoiser = random_marginals(make_book("all kinds", device), np.random.default_rng(0))
    denoiser.__class__ = Wide
    lacks("posterior_sums_to_one", denoiser)


def test_unknown_properties_are_refused(device):
    with pytest.raises(ValueError, match=r"properties must be of \['shapes'.*got 'draws'"):
        check_denoiser(Stranger(make_book("mixed", device), 0), properties=["draws"])


# -- schedules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("n_columns", [2, 5])
def test_the_librarys_schedules_have_every_property(name, n_columns):
    schedule = SCHEDULES[name](n_columns)
    assert "climbs" in check_schedule(schedule, n_columns)
    assert check_schedule(DoublingSchedule(n_columns), n_columns)[-1] == "stored"


class Early(DoublingSchedule):
    def snr(self, step, rank, n_free):
        return super().snr(step + 1, rank, n_free)


class Falling(DoublingSchedule):
    def snr(self, step, rank, n_free):
        return super().snr(step, rank, n_free) if step < 2 else super().snr(0, rank, n_free)


class Idle(DoublingSchedule):
    def snr(self, step, rank, n_free):
        return super().snr(max(0, step - 1), rank, n_free)


class Blurred(DoublingSchedule):
    def snr(self, step, rank, n_free):
        return super().snr(step, rank, n_free).clamp_max(9.0 * step)


class Batched(IsotropicSchedule):
    def snr(self, step, rank, n_free):
        return super().snr(step, rank, n_free) * len(rank)


@dataclasses.dataclass(frozen=True)
class Half(DoublingSchedule):
    def __post_init__(self):
        object.__setattr__(self, "n_columns", self.n_columns // 2)

    @property
    def n_steps(self):
        return 1 + self.n_columns.bit_length()


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (Early, "climbs"),
        (Falling, "climbs"),
        (Idle, "climbs"),
        (Blurred, "climbs"),
        (Half, "stored"),
    ],
)
def test_a_broken_schedule_is_found(cls, name):
    with pytest.raises(AssertionError, match=rf"{cls.__name__} lacks the property '{name}'"):
        check_schedule(cls(5), 5)


def test_a_schedule_that_depends_on_its_batch_is_found():
    with pytest.raises(AssertionError, match="Batched lacks the property 'row_alone'"):
        check_schedule(Batched((1.0, 2.0)), 5)


def test_causal_denoisers_need_no_exactness(device):
    net = make_denoiser("causal on marginals", make_book("mixed", device))
    assert isinstance(net, CausalDenoiser)
    assert not EXACT & set(check_denoiser(net))
