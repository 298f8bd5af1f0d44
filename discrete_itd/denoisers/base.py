"""The interface of denoisers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from discrete_itd.channel.codebook import Codebook, State
from discrete_itd.channel.noise import RowNoise
from discrete_itd.channel.posterior import GaussianPosterior, Posterior

if TYPE_CHECKING:
    from discrete_itd.denoisers.marginal import MarginalDenoiser

Config = Mapping[str, Any]  # arguments of a constructor, read from JSON
Tensors = Mapping[str, Tensor]  # a ``state_dict``

ESTIMATORS = ("closed_form", "path", "integral")  # see Denoiser.estimators
# Batch sizes are multiples of BLOCK rows, so that no row's rounding depends on the size of its batch: kernels of MKL
# take four rows at a time, and a single row costs as much as a block.
BLOCK = 8
CACHED, LARGE = 1 << 20, 1 << 24  # most floats of a batch: in a processor's cache; in memory
DRAWN = 2048  # most rows that are drawn in one call
SCORED_AT_ONCE = 2048  # rows in one call of a scorer
# Matrices are widened with zeros to WIDENED columns and FEWEST_NUMBERS numbers: below these, rows of a product are
# summed in different orders, by torch's kernel for small products (400 multiplications of a block) among others.
WIDENED, FEWEST_NUMBERS = 16, 400 // BLOCK


def filled(x: Tensor, block: int = BLOCK) -> Tensor:
    """Rows, the last one repeated until they are a multiple of ``block``: a product of one row rounds differently."""
    lacking = -len(x) % block if len(x) else 0
    return torch.cat([x, x[-1:].expand(lacking, *x.shape[1:])]) if lacking else x


def in_blocks(
    call: Callable[..., Tensor], x: Tensor, *more: Tensor, batch_size: int
) -> Iterator[Tensor]:
    """Results of ``call`` on batches of rows of ``x`` and of each of ``more``, (N, ...).

    A matrix product of one row may sum in another order than one of many rows, and so round differently. Every call
    therefore gets a multiple of ``BLOCK`` rows (or of ``batch_size``, if smaller), padded with copies of the last.
    """
    block = min(BLOCK, batch_size)
    size = batch_size // block * block
    for part in zip(*(t.split(size) for t in (x, *more)), strict=True):
        yield call(*(filled(t, block) for t in part))[: len(part[0])]


def row_product(x: Tensor, w: Tensor) -> Tensor:
    """``x @ w``, each row of which depends only on that row of ``x``: (..., B, K) and (..., K, N) to (..., B, N).

    If N is small, libraries choose the order of summation by the position of a row; columns of zeros prevent this.
    """
    k, n = w.shape[-2:]
    lacking = max(WIDENED, -(-FEWEST_NUMBERS // max(1, k))) - n
    return x @ w if lacking <= 0 else (x @ nn.functional.pad(w, (0, lacking)))[..., :n]


def added(terms: Tensor) -> Tensor:
    """Sum over the first axis, term by term: torch's order of summation depends on the sizes of other axes."""
    total, *others = terms.unbind(0)
    for term in others:
        total = total + term
    return total


def finite_log(values: Tensor) -> Tensor:
    """Logarithm of non-negative numbers, clamped to the smallest normal float."""
    return values.clamp_min(torch.finfo(values.dtype).tiny).log()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear`` in a step of training, on CPUs by oneDNN: there MKL makes no use of AVX-512.

    That is so on processors of AMD, where a product of float32 takes half the time.
    """
    if (
        x.device.type != "cpu"
        or x.dtype != torch.float32
        or not torch.backends.mkldnn.is_available()
    ):
        return nn.functional.linear(x, weight, bias)
    return nn.functional.linear(x.to_mkldnn(), weight, bias).to_dense()


def log_sum_exp(values: Tensor, dim: int) -> Tensor:
    """``torch.logsumexp`` without subnormal numbers, which are slow: terms are at least the largest minus 80 nats."""
    top = values.detach().amax(dim, keepdim=True)
    total = (values - top).clamp_min(-80.0).exp().sum(dim).log() + top.squeeze(dim)
    return torch.where(top.squeeze(dim).isfinite(), total, top.squeeze(dim))


def rows_at_once(n: int) -> int:
    """The largest power of two up to n, at least 1: batches of this size do not split a :data:`BLOCK`."""
    return 1 << max(0, n.bit_length() - 1)


class Denoiser(nn.Module):
    """A map from the state of the channel to a posterior over the clean row.

    Parameters
    ----------
    codebook : Codebook
        The points of the table's categories.

    Attributes
    ----------
    exact : bool
        Whether the posterior follows from a distribution whose log-probability :meth:`log_prob` returns. On a path
        through known and unknown cells (6) then gives this log-probability to rounding, in any order; the integral (3)
        gives it within its error, a noisy path in the limit of many steps. False by default.
    own_reals : bool
        Whether continuous columns depend on others: then it cannot be the base of a network. Else their posteriors are
        those of the ``independent_part``. False by default.
    independent : bool
        Whether the columns of that distribution are independent, so that a path of one step is exact.
    own_order : tuple of int, optional
        The order of the columns in which a causal denoiser conditions each on those before it. Along it, path (6) and
        integral (3) are its closed form; at other states it ignores what comes later. None by default.
    isotropic : bool
        Whether only states are admissible in which all columns but the leading ones have the same SNR.
    closed_form : bool
        Whether :meth:`log_prob` and :meth:`log_factors` are defined: rows are then scored by them and not by paths. By
        default, whether it is exact.
    ancestral : bool
        Whether :meth:`draw` is defined: whole rows are then drawn by it and not along a path. False by default.

    Notes
    -----
    Any map is admissible: the score it leads to is a valid code length by inequality (5) of
    :mod:`discrete_itd.likelihood`, and its path a normalised probability mass (6). A better map gives shorter codes.

    To write a denoiser, define :meth:`forward`, or :meth:`infer` if it is exact. It can be saved if the arguments of
    its constructor are attributes of the same names: plain JSON values, denoisers, or tensors of the ``state_dict``.
    Else define :meth:`config` or :meth:`from_config`. ``DiffusionDensity.load(path, trusted=[MyDenoiser])`` then reads
    the file.

    Examples
    --------
    >>> class Sharpened(Denoiser):
    ...     "The posterior of another denoiser, whose logits are multiplied by a number."
    ...     def __init__(self, codebook, base, factor):
    ...         super().__init__(codebook)
    ...         self.base, self.factor = base, factor
    ...     def forward(self, y, snr):
    ...         q = self.base(y, snr)
    ...         categorical = type(q.categorical)(self.codebook.levels, q.categorical.logits * self.factor)
    ...         return Posterior(self.codebook, categorical)
    """

    exact: bool = False
    own_reals: bool = False
    independent: bool = False
    own_order: tuple[int, ...] | None = None
    isotropic: bool = False
    ancestral: bool = False

    def __init__(self, codebook: Codebook) -> None:
        super().__init__()
        self.codebook = codebook

    @property
    def closed_form(self) -> bool:
        return self.exact

    @property
    def estimators(self) -> tuple[str, ...]:
        """Which of ``ESTIMATORS`` apply to rows: where there is a closed form, those that agree with it."""
        if self.own_order is not None or self.exact:
            return ESTIMATORS
        return ESTIMATORS[:1] if self.closed_form else ESTIMATORS[1:]

    def forward(self, y: Tensor, snr: Tensor) -> Posterior:
        """Posterior given the state ``y`` (B, D) and ``snr`` (B, C); of an exact denoiser by :meth:`infer`."""
        return self.infer(y, snr)[1]

    def infer(self, y: Tensor, snr: Tensor) -> tuple[Tensor, Posterior]:
        r"""Log-probability (B,), nats, of a state's evidence, and the posterior given it; an exact denoiser has both.

        The former is :math:`\log \sum_x P(x) \prod_j e^{\ell_j(x_j)}` with the :meth:`evidence` of noisy columns, of a
        continuous one :math:`-\gamma_j (x_j - y_j / \gamma_j)^2 / 2`, and the log-probability of known cells: up to a
        constant that depends on the state alone, the same for all exact denoisers of a codebook, 0 where no cell is
        noisy.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form")

    def evidence(self, y: Tensor, snr: Tensor) -> Tensor:
        """Evidence (2) of a state about each level, 0 at the likeliest one of a column: (B, T), nats."""
        levels = self.codebook.levels
        evidence = levels.evidence(y[:, : levels.n_coords], snr[:, self.codebook.finite])
        return levels.below_peak(evidence)

    def given(self, x: Tensor) -> Posterior:
        """The posterior of rows ``x`` (B, C), NaN where a cell is unknown, given their known cells."""
        book, rows = self.codebook, filled(x)
        state = State.start(book, book.embed(rows), ~rows.isnan())
        return self(*state).rows(slice(len(x)))

    def marginals(self) -> Posterior:
        """The posterior of one row with no known cell."""
        like = self.codebook.known_snr
        return self(like.new_zeros(1, self.codebook.n_coords), torch.zeros_like(like[None]))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of rows ``x`` (B, C) in closed form, missing cells left out: (B,), nats.

        Only a denoiser with a ``closed_form`` has one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form")

    def log_probs_before(self, x: Tensor, last: Sequence[int]) -> Tensor:
        """Log-probabilities of rows ``x`` (B, C) without the columns ``last``, and as these join them one by one.

        (1 + K, B), float64, nats, of an exact denoiser. The last ones are those of :meth:`log_prob`, but for the order
        in which dependent numbers are rounded. By default a call of it for each of the columns.
        """
        log_probs, known = [self.log_prob(x).double()], x.clone()
        for j in reversed(last):
            has_cell = torch.nonzero(~known[:, j].isnan()).flatten()
            known[:, j] = torch.nan
            log_prob = log_probs[0].clone()
            if len(has_cell):
                rows = filled(known[has_cell])
                log_prob[has_cell] = self.log_prob(rows).double()[: len(has_cell)]
            log_probs.insert(0, log_prob)
        return torch.stack(log_probs)

    def log_probs_with(self, x: Tensor, row: Tensor, column: Tensor, values: Tensor) -> Tensor:
        """:meth:`log_prob` of rows ``x[row]`` with other ``values`` in one ``column`` each, all (n,): float64, (n,)."""

        def call(row: Tensor, column: Tensor, values: Tensor) -> Tensor:
            return self.log_prob(x[row].scatter_(1, column[:, None], values[:, None])).double()

        parts = in_blocks(call, row, column, values, batch_size=SCORED_AT_ONCE)
        return torch.cat([x.new_zeros(0), *parts])

    def log_factors(self, x: Tensor) -> Tensor:
        r"""The factors of :meth:`log_prob` by the chain rule, in an order of the denoiser's choice, or their mean.

        :math:`\log P(x_j \mid x_i, i \text{ before } j)` of rows ``x`` (B, C), float64: (B, C), nats; zero where a cell
        is missing, NaN in ``x``. Rows sum to the log-probability. By default factors are differences of C
        log-probabilities, each of one more column, an indicator directly before its column.
        """
        out = x.new_zeros(x.shape)
        seen, before = torch.full_like(x, torch.nan), x.new_zeros(len(x))
        for j in self.codebook.in_order(range(x.shape[1])):
            seen[:, j] = x[:, j]
            after = self.log_prob(seen).to(out)
            out[:, j], before = after - before, after
        return out.masked_fill(x.isnan(), 0.0)

    def components(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Log-weights (Z,) of a mixture of products, and log-probabilities (B, C, Z) of the cells of rows ``x`` (B, C).

        Zero where a cell is missing. None (default) if it is no mixture, or its posterior given one cell is as cheap.
        """
        return None

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Rows drawn from the distribution of :meth:`log_prob`, at about the cost of their scores: float64, (n, C).

        Only an ``ancestral`` denoiser has it. Each conditional distribution is normalised without the level of unseen
        categories. The ``generator`` is on the device of the denoiser.
        """
        raise NotImplementedError(f"{type(self).__name__} does not draw rows by itself")

    def constants(self, x: Tensor) -> tuple[Tensor, ...]:
        """Results on rows ``x`` (B, C) that do not depend on trained weights, for :meth:`log_prob`: B rows each.

        Training keeps them for all rows, if they fit in memory, instead of computing them for every batch.
        """
        return ()

    @torch.no_grad()
    def complete(self, x: Tensor, n_draws: int, salt: int) -> Tensor:
        """Rows whose missing cells are drawn together, given the other cells: float64, (B, M, C).

        M draws of each row ``x`` (B, C), NaN in the cells to be drawn, depend on the row and the seed ``salt`` alone.
        An exact denoiser draws from its conditional distribution, unseen categories included. By default columns are
        drawn one after the other, by a call each.
        """
        book = self.codebook
        out = x.repeat_interleave(n_draws, 0)
        noise = RowNoise(out, torch.arange(n_draws, device=x.device).repeat(len(x)), salt)
        for j in book.in_order(range(book.n_columns)):
            rows = torch.nonzero(out[:, j].isnan()).flatten()
            for part in rows.split(self.rows_at_once):
                u, v = noise.uniform(j, 2)[part].unbind(1)
                out[part, j] = self.given(out[part]).at_uniform(j, u, v)
        return out.unflatten(0, (len(x), n_draws))

    def completing(self, x: Tensor, known: dict[Denoiser, Completing], salt: int) -> Completing:
        """The joint distribution of the missing cells of each row ``x`` (B, C); ``salt`` is a seed.

        Only an ``exact`` denoiser draws from it; of others there are the log-probabilities of completed rows. What is
        ``known`` of these rows by some denoisers is not computed again; what is new is added.
        """
        return known.setdefault(self, Completing(self, x))

    @torch.no_grad()
    def leave_one_out(self, x: Tensor, asked: Tensor) -> Posterior:
        """The distribution of each cell of rows given the other known cells of its row.

        Parameters
        ----------
        x : Tensor of float64, shape (B, C)
            Rows; NaN where a cell is not known.
        asked : Tensor of bool, shape (B, C)
            The cells whose distributions are needed; those of other cells have no meaning.

        Notes
        -----
        By default each cell takes a state of its own. Define this method if a closed form is cheaper.
        """

        def cells() -> Iterator[tuple[Tensor, Tensor, Tensor | GaussianPosterior]]:
            for j in torch.nonzero(asked.any(0)).flatten().tolist():
                for rows in torch.nonzero(asked[:, j]).flatten().split(self.rows_at_once):
                    known = x[rows]
                    known[:, j] = torch.nan
                    q = self.given(known)
                    is_number = j not in self.codebook.place
                    yield rows, torch.full_like(rows, j), q.number(j) if is_number else q.column(j)

        return self.marginals().expand(len(x)).with_cells(cells())

    def preceding(self, x: Tensor, order: Sequence[int] | None = None) -> Posterior:
        """A distribution of every cell that depends on the known cells before it in an order alone.

        In the :attr:`own_order` it is the conditional distribution. In other orders it serves as the base of a
        :class:`~discrete_itd.denoisers.causal.CausalDenoiser`, and should be the conditional distribution where that
        costs no more than a score of the row: in the order of :meth:`natural_order`.

        Parameters
        ----------
        x : Tensor of float64, shape (B, C)
            Rows; NaN where a cell is not known.
        order : sequence of int, optional
            A permutation of the columns; by default :attr:`own_order`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no distributions along an order")

    def natural_order(self, generator: torch.Generator) -> list[int]:
        """A random order of the columns in which :meth:`preceding` is cheap and nearly conditional."""
        n = self.codebook.n_columns
        return torch.randperm(n, generator=generator, device=generator.device).tolist()

    # -- saving ---------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor besides ``codebook``: plain values, and denoisers, alone or in lists.

        By default they are the attributes of these names but for tensors. Tensors of a nested denoiser must have its
        argument's name as a prefix, as those of an attribute of that name have.
        """
        cls, names = type(self), inspect.signature(type(self)).parameters
        args = {name: getattr(self, name) for name in names if hasattr(self, name)}
        lacking = ["codebook"] * ("codebook" not in names) + [n for n in names if n not in args]
        if lacking and cls.from_config.__func__ is Denoiser.from_config.__func__:
            raise NotImplementedError(
                f"{cls.__name__} cannot be saved: its constructor needs a codebook and arguments that are attributes,"
                f" which {lacking[0]!r} is not; else define config() and from_config()"
            )
        args.pop("codebook", None)
        return {name: value for name, value in args.items() if not isinstance(value, Tensor)}

    @classmethod
    def from_config(
        cls,
        config: Config,
        codebook: Codebook,
        tensors: Tensors,
    ) -> Self:
        """A denoiser of the same shape as the one that was saved.

        By default it is made from :meth:`config` and from tensors with the names of arguments. In ``config``, as read
        from JSON, each nested denoiser is a function from a codebook; ``codebook`` has the floating type of
        ``tensors``, the ``state_dict``, which the caller loads afterwards. Files may be damaged: compare sizes with the
        tensors before allocating memory. Arguments that do not fit together raise a LookupError,
        RuntimeError, TypeError or ValueError.
        """
        arguments = {name: with_codebook(value, codebook) for name, value in config.items()}
        saved = {n: tensors[n] for n in inspect.signature(cls).parameters if n in tensors}
        return cls(codebook, **arguments, **saved).to(codebook.dtype)

    # -- sizes ----------------------------------------------------------------------------------

    @property
    def independent_part(self) -> MarginalDenoiser | None:
        """Its denoiser of independent columns: itself, or the ``fallback`` for columns that the model leaves out."""
        return getattr(self, "fallback", None)

    @property
    def independent_columns(self) -> Tensor:
        """Which columns are independent of all others: bool, (C,), on the CPU."""
        out = torch.full((self.codebook.n_columns,), self.independent)
        if self.independent_part is not None and not self.own_reals:
            out[self.codebook.reals.cpu()] = True
        return out

    @property
    def row_work(self) -> int:
        """Approximate number of floats computed for a row's posterior, to which time is proportional."""
        return self.codebook.work

    @property
    def rows_at_once(self) -> int:
        """Most rows whose posteriors one call computes, so that memory is bounded."""
        return max(16, min(DRAWN, 2 * LARGE // self.row_work))

    @property
    def score_work(self) -> int:
        """Approximate number of multiplications in :meth:`log_prob` of a row, by which candidates count as cheap."""
        return self.n_parameters

    def equals(self, other: Denoiser) -> bool:
        """Whether another denoiser is of the same class, with the same :meth:`config` and ``state_dict``."""
        if type(self) is not type(other) or self.config() != other.config():
            return False
        ours, theirs = self.state_dict(), other.state_dict()
        return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)

    @cached_property
    def n_parameters(self) -> int:
        """Number of floats in its ``state_dict``."""
        tensors = self.state_dict().values()
        return sum(t.numel() for t in tensors if t.is_floating_point())


class Completing:
    """The missing cells of rows ``x`` (B, C), NaN there, given the others: many draws of each row, and their scores."""

    def __init__(self, denoiser: Denoiser, x: Tensor) -> None:
        self.denoiser, self.x = denoiser, x
        self._last: tuple[Tensor, Tensor] | None = None

    @cached_property
    def log_prob(self) -> Tensor:
        """Log-probability of the known cells: float64, (B,), nats."""
        return self.denoiser.log_prob(filled(self.x)).double()[: len(self.x)]

    def draw(self, n_draws: int, salt: int) -> Tensor:
        """:meth:`Denoiser.complete`, (B, M, C)."""
        return self.denoiser.complete(self.x, n_draws, salt)

    def log_joint(self, completions: Tensor) -> Tensor:
        """Log-probabilities of completed rows (B, M, C), kept until others are asked for: float64, (B, M), nats."""
        if self._last is None or self._last[0] is not completions:
            self._last = completions, self._log_joint(completions)
        return self._last[1]

    def _log_joint(self, completions: Tensor) -> Tensor:
        rows = completions.flatten(0, 1)
        parts = in_blocks(self.denoiser.log_prob, rows, batch_size=SCORED_AT_ONCE)
        return torch.cat([rows.new_zeros(0), *parts]).double().view(completions.shape[:2])


def held_out_nats(denoiser: Denoiser, x: Tensor) -> float:
    """Mean code length of rows ``x`` (N, C) in closed form, nats per row."""
    return -float(denoiser.log_prob(x).double().mean())


def with_codebook(value: Any, codebook: Codebook) -> Any:
    """A value of a config with its nested denoisers built for a codebook."""
    if isinstance(value, list | tuple):
        return [with_codebook(item, codebook) for item in value]
    return value(codebook) if callable(value) else value


def checked(
    name: str, value: Tensor | None, shape: tuple[int, ...], *, positive: bool = False
) -> Tensor:
    """The tensor (None: an empty one); ValueError unless it has this shape and finite, or positive, numbers."""
    value = torch.zeros(shape) if value is None and 0 in shape else value
    got = None if value is None else tuple(value.shape)
    wanted = "positive" if positive else "finite"
    if value is None or got != shape:
        raise ValueError(f"{name} must be {wanted} numbers of shape {shape}, got {got}")
    if not bool(value.isfinite().all()) or (positive and not bool((value > 0).all())):
        raise ValueError(f"{name} must be {wanted} numbers")
    return value


# -- draws ------------------------------------------------------------------------------------------


def cumulative(log_probs: Tensor) -> Tensor:
    """Cumulative probabilities along the last axis, in double; the last one is 1, without rounding."""
    p = torch.softmax(log_probs.double(), -1).cumsum(-1)
    return p / p[..., -1:]


def inverse_cdf(cdf: Tensor, generator: torch.Generator) -> Tensor:
    """One draw for each row of cumulative probabilities (n, K): int64, (n,)."""
    shape = (len(cdf), 1)
    u = torch.rand(shape, generator=generator, device=cdf.device, dtype=cdf.dtype)
    return (u >= cdf).sum(1)
