"""The checks for parts of one's own: the library's parts pass them, and each fails for a part that is broken."""

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
    Posterior,
)
from discrete_itd.channel.schedules import column_ranks
from discrete_itd.denoisers import BayesNetDenoiser, Denoiser, MarginalDenoiser
from discrete_itd.testing import check_denoiser
from tests.support import SupportDenoiser

KINDS = [
    "network", "stranger", "marginals", "oracle", "mixture", "correlated", "tree", "trees", "bayes_net", "forest",
    "exact mixture", "nested", "causal on marginals", "causal on bayes_net",
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
    def infer(self, y, snr):
        log_mass, q = super().infer(y, snr)
        flat = CategoricalPosterior(self.codebook.levels, q.categorical.logits * 0.9)
        return log_mass, Posterior(self.codebook, flat)


class TooProbable(BayesNetDenoiser):
    def log_prob(self, x):
        return super().log_prob(x) + 0.01


class ZeroFilled(BayesNetDenoiser):
    """Takes a missing cell for the first category."""

    def log_prob(self, x):
        return super().log_prob(x.nan_to_num(0.0))


class OrderedPath(BayesNetDenoiser):
    """Exact on the way down, but with columns that depend on how many are known."""

    def forward(self, y, snr):
        q = super().forward(y, snr)
        logits = q.categorical.logits * torch.where(snr.isinf().sum(1, keepdim=True) == 1, 0.5, 1.0)
        return Posterior(self.codebook, CategoricalPosterior(self.codebook.levels, logits))


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
    OrderedPath: "any_order",
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


@pytest.mark.parametrize("name", [*SCHEDULES, "doubling"])
@pytest.mark.parametrize("n_columns", [2, 5])
def test_schedules_climb_by_the_row_alone(name, n_columns):
    """From zero, in every step of a complete row, to all known if and only if they say so, whatever stands beside."""
    schedule = {**SCHEDULES, "doubling": DoublingSchedule}[name](n_columns)
    generator = torch.Generator().manual_seed(0)
    free = torch.rand(5, n_columns, generator=generator) < 0.6
    known = ~free & (torch.rand(5, n_columns, generator=generator) < 0.5)
    free[0], known[0] = True, False
    rank = column_ranks(schedule, torch.rand(5, n_columns, generator=generator), free, known)
    n_free = free.sum(1, keepdim=True)
    own, before = (rank >= 0) & (rank < n_free), schedule.snr(0, rank, n_free)
    assert not before[own].any()
    for step in range(1, schedule.n_steps + 1):
        snr = schedule.snr(step, rank, n_free)
        assert (snr >= before)[own].all()
        assert (snr > before)[0].any()
        assert schedule.noisy or (snr.isinf() | (snr == 0))[own].all()
        alone = [schedule.snr(step, rank[[i]], n_free[[i]]) for i in range(5)]
        assert torch.equal(torch.cat(alone), snr)
        before = snr
    assert bool(before[own].isinf().all()) == schedule.complete
