"""States of earlier releases as this one reads them: one table of old names, and what else has changed.

Format 2 holds networks on independent columns only, whose tensors have no prefix. Format 3 names kinds of denoisers,
schedules and recipes, where format 4 names their classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from discrete_itd.storage.configs import CLASS, MAPPING
from discrete_itd.storage.files import State

# kinds whose class is not their own name in camel case
DENOISERS = {"marginals": "marginal", "trees": "tree", "joined": "one_hot", "network": "neural"}
PARAMETERS = {
    "columns": "column_types",
    "unseen": "handle_unknown",
    "path": "schedule",
    "n_calls": "n_evaluations",
}
FALLBACK = {CLASS: "MarginalDenoiser"}


def upgraded(state: State) -> State:
    """The state of a density or detector of format 2 or 3 as one of format 4.

    Data that make no sense are passed on as they are, for the checks of the present format to refuse.
    """
    header, tensors = dict(state[0]), state[1]
    if isinstance(header.get("parameters"), Mapping):
        header["parameters"] = upgraded_parameters(header["parameters"], _parameter)
    if isinstance(header.get("density"), Mapping):  # a detector
        inner = {
            k.removeprefix("density."): v for k, v in tensors.items() if k.startswith("density.")
        }
        header["density"], inner = upgraded((dict(header["density"]), inner))
        others = {k: v for k, v in tensors.items() if not k.startswith("density.")}
        return header, others | {f"density.{k}": v for k, v in inner.items()}
    if "network" in header:  # format 2
        own = header.pop("network")
        kept = {"kind": "network", "dropout": 0.1}
        kept |= {"base": {"kind": "marginals"}, **(own if isinstance(own, Mapping) else {})}
        header |= {"denoiser": kept, "members": {}}
        marginals = {f"marginals.{k[5:]}": v for k, v in tensors.items() if k.startswith("base.")}
        tensors = {f"denoiser.{k}": v for k, v in tensors.items()} | marginals
    header["denoiser"] = _denoiser(header.get("denoiser"))
    header["schedule"] = _named(header.get("schedule"), "Schedule")
    return header, {name.replace(".rest.", ".fallback."): t for name, t in tensors.items()}


def upgraded_parameters(
    parameters: Mapping[str, Any], value: Callable[[str, Any], Any] = lambda _, v: v
) -> dict[str, Any]:
    """An estimator's constructor arguments under their present names.

    Parameters
    ----------
    parameters : mapping
    value : callable
        Makes the present value of an old name and value.
    """
    out = {PARAMETERS.get(name, name): value(name, v) for name, v in parameters.items()}
    if out.get("handle_unknown") == "raise":
        out["handle_unknown"] = "error"
    if "width" in out:  # format 2
        sizes = {"width": out.pop("width"), "depth": out.pop("depth", None)}
        out["denoiser"] = {CLASS: "Network", "base": "independent", **sizes}
    return out


def _parameter(name: str, value: Any) -> Any:
    """A parameter in a header."""
    if name in ("columns", "column_types"):
        return {CLASS: MAPPING, "items": value} if isinstance(value, list) else value
    if name == "density" and isinstance(value, Mapping):
        return {CLASS: "DiffusionDensity", **upgraded_parameters(value, _parameter)}
    if name == "denoiser":
        return _recipe(value)
    return _named(value, "Schedule") if name in ("path", "schedule") else value


def _named(data: Any, suffix: str = "") -> Any:
    """Data of an object, with its class in place of its kind."""
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
        return data
    others = {name: value for name, value in data.items() if name != "kind"}
    return {CLASS: data["kind"].title().replace("_", "") + suffix, **others}


def _recipe(data: Any) -> Any:
    if isinstance(data, list):
        return [_recipe(member) for member in data]
    if not isinstance(data, Mapping):
        return data
    old = {name: _recipe(value) for name, value in data.items()}
    if old.get("kind") == "network":  # sizes were None by default
        old = {k: v for k, v in old.items() if v is not None and (k, v) != ("architecture", "mlp")}
    return _named(old)


def _denoiser(data: Any) -> Any:
    if isinstance(data, list):
        return [_denoiser(member) for member in data]
    if not isinstance(data, Mapping):
        return data
    kind, nested = data.get("kind"), ("base", "inner", "members")
    out = {name: _denoiser(v) if name in nested else v for name, v in data.items()}
    if "rest" in out or kind == "joined":
        out["fallback"] = FALLBACK if out.pop("rest", True) else None
    if isinstance(kind, str):
        out["kind"] = DENOISERS.get(kind, kind)
    return _named(out, "Denoiser")
