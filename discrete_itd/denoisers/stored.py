"""Denoisers as plain data: what kind of denoiser it is, as JSON data, and its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from discrete_itd.channel.codebook import Codebook
from discrete_itd.denoisers.base import Denoiser, ExactDenoiser
from discrete_itd.denoisers.bayes_net import BayesNetDenoiser
from discrete_itd.denoisers.ensemble import EnsembleDenoiser
from discrete_itd.denoisers.marginal import MarginalDenoiser
from discrete_itd.denoisers.mixture import MixtureDenoiser
from discrete_itd.denoisers.neural import NeuralDenoiser
from discrete_itd.denoisers.one_hot import JoinedDenoiser, Joining
from discrete_itd.denoisers.tree import TreeDenoiser

MOST_MEMBERS = 64  # of an ensemble in a file


def denoiser_to_json(denoiser: Denoiser) -> dict[str, Any]:
    """What :func:`denoiser_from_json` needs besides the ``state_dict``; TypeError for a foreign denoiser."""
    if isinstance(denoiser, MarginalDenoiser):
        return {"kind": "marginals"}
    if isinstance(denoiser, MixtureDenoiser | TreeDenoiser):
        kind = "mixture" if isinstance(denoiser, MixtureDenoiser) else "trees"
        return {"kind": kind, "rest": denoiser.rest is not None}
    if isinstance(denoiser, BayesNetDenoiser):
        parents = [list(above) for above in denoiser.parents]
        return {"kind": "bayes_net", "rest": denoiser.rest is not None, "parents": parents}
    if isinstance(denoiser, JoinedDenoiser):
        joining = denoiser.joining
        return {
            "kind": "joined",
            "groups": [list(group) for group in joining.groups],
            "patterns": [[list(p) for p in own] for own in joining.patterns],
            "inner": denoiser_to_json(denoiser.inner),
        }
    if isinstance(denoiser, NeuralDenoiser):
        return {
            "kind": "network",
            "architecture": denoiser.architecture,
            "width": denoiser.width,
            "depth": denoiser.depth,
            "dropout": denoiser.dropout,
            "base": denoiser_to_json(denoiser.base),
        }
    if isinstance(denoiser, EnsembleDenoiser):
        members = [denoiser_to_json(member) for member in denoiser.members]
        return {"kind": "ensemble", "members": members}
    raise TypeError(f"a denoiser of type {type(denoiser).__name__} cannot be kept")


def denoiser_from_json(
    data: Mapping[str, Any], codebook: Codebook, tensors: Mapping[str, Tensor]
) -> Denoiser:
    """Make the denoiser whose ``state_dict`` was ``tensors``, to the last bit.

    Parameters
    ----------
    data : mapping
        From :func:`denoiser_to_json`.
    codebook : Codebook
        Of the floating type of the tensors.
    tensors : mapping from name to Tensor

    Raises
    ------
    LookupError, RuntimeError, TypeError, ValueError
        If the tensors are not those of such a denoiser.
    """
    kind = data["kind"]
    if kind == "marginals":
        log_probs, mixture = tensors["log_probs"], tensors["mixture"]
        words = [tensors[f"words_{i}"].exp() for i in range(len(codebook.vocabularies))]
        denoiser: Denoiser = MarginalDenoiser(codebook, log_probs.exp(), mixture, words)
    elif kind in ("mixture", "trees"):
        rest = _rest(data, codebook, tensors)
        weights = tensors["log_weights"].exp()
        if kind == "mixture":
            mean, var = tensors["means"], tensors["var"]
            own = (mean, var) if mean.shape[1] else (None, None)
            denoiser = MixtureDenoiser(codebook, weights, tensors["log_probs"].exp(), *own, rest)
        else:
            tables = tensors["log_tables"].exp()
            denoiser = TreeDenoiser(codebook, tensors["parents"], tables, weights, rest)
    elif kind == "bayes_net":
        rest = _rest(data, codebook, tensors)
        tables = [tensors[f"log_table_{j}"].exp() for j in range(len(data["parents"]))]
        denoiser = BayesNetDenoiser(codebook, data["parents"], tables, rest)
    elif kind == "joined":
        joining = Joining(codebook, data["groups"], data["patterns"])
        inner = denoiser_from_json(data["inner"], joining.codebook, _within(tensors, "inner"))
        rest = _rest({"rest": True}, codebook, tensors)
        if not isinstance(inner, ExactDenoiser) or rest is None:
            raise TypeError("a denoiser of joined columns has an exact one of these")
        denoiser = JoinedDenoiser(joining, inner, rest)
    elif kind == "network":
        base = denoiser_from_json(data["base"], codebook, _within(tensors, "base"))
        denoiser = _network(data, base, tensors)
    elif kind == "ensemble":
        if not 1 <= len(data["members"]) <= MOST_MEMBERS:
            raise ValueError(f"{len(data['members'])} members")
        members = [
            denoiser_from_json(member, codebook, _within(tensors, f"members.{i}"))
            for i, member in enumerate(data["members"])
        ]
        _share_bases(members)
        weights = {name: tensors[name] for name in ("logsnr", "noisy", "known")}
        denoiser = EnsembleDenoiser(members, **weights)
    else:
        raise ValueError(f"a denoiser of kind {kind!r}")
    denoiser.load_state_dict(dict(tensors))  # exactly: exponentials and sums have rounded them
    return denoiser


def _share_bases(members: Iterable[Denoiser]) -> None:
    """Let networks that correct equal bases correct the same one, as when they were fitted."""
    bases: list[Denoiser] = []
    for member in members:
        if isinstance(member, NeuralDenoiser):
            same = (base for base in bases if _equal(base, member.base))
            member.base = next(same, member.base)
            bases.append(member.base)


def _equal(a: Denoiser, b: Denoiser) -> bool:
    if denoiser_to_json(a) != denoiser_to_json(b):
        return False
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def _rest(
    data: Mapping[str, Any], codebook: Codebook, tensors: Mapping[str, Tensor]
) -> MarginalDenoiser | None:
    """The independent columns beside those that an exact denoiser speaks of."""
    if not data["rest"]:
        return None
    rest = denoiser_from_json({"kind": "marginals"}, codebook, _within(tensors, "rest"))
    assert isinstance(rest, MarginalDenoiser)
    return rest


def _network(data: Mapping[str, Any], base: Denoiser, tensors: Mapping[str, Tensor]) -> Denoiser:
    """The network of the sizes that are told, if the tensors are of these: before memory is asked for."""
    width, depth, architecture = data["width"], data["depth"], data["architecture"]
    first = tensors["network.enter.weight" if architecture == "mlp" else "network.enter"]
    if first.shape[0 if architecture == "mlp" else -1] != width:
        raise ValueError(f"the network's width is {width}, its weights' another")
    blocks = {name.split(".")[2] for name in tensors if name.startswith("network.blocks.")}
    if len(blocks) != depth:
        raise ValueError(f"the network's depth is {depth}, its weights' another")
    denoiser = NeuralDenoiser(
        base, architecture=architecture, width=width, depth=depth, dropout=data["dropout"]
    )
    return denoiser.to(first.dtype)


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part, by the names that they have there."""
    return {
        k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")
    }


def floating_type(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The floating type of a denoiser's tensors; LookupError if there are none."""
    types = [t.dtype for t in tensors.values() if t.is_floating_point()]
    return types[0]
