"""A fitted model as plain data and tensors, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from discrete_itd.channel import check_schedule
from discrete_itd.denoisers import Denoiser, MarginalDenoiser
from discrete_itd.encoders import TableEncoder
from discrete_itd.models.cost import Cost
from discrete_itd.models.held_out import HeldOut
from discrete_itd.models.model import Model
from discrete_itd.storage.configs import (
    CLASS,
    denoiser_from_config,
    floating_type,
    schedule_from_config,
    to_config,
    within,
)
from discrete_itd.storage.files import TIMINGS, State
from discrete_itd.storage.schema import building, check_fields, check_table
from discrete_itd.training.loop import seeded

HEADER = {
    "schema": list,
    "schedule": dict,
    "denoiser": dict,
    "seed": int,
    "history": dict,
    "path_table": dict,
    "members": dict,
    "stopped": str,
    "held_out": dict,
}
# columns of tables that differ between equal fits
TIMED = ("seconds", "fit_seconds", "microseconds")


def model_state(model: Model) -> State:
    """Plain JSON data and CPU tensors from which :func:`model_from_state` makes an equal model."""
    parts = {"denoiser": model.denoiser, "marginals": model.marginals}
    if model.companion is not None:
        parts["companion"] = model.companion
    tensors = {
        f"{part}.{k}": v.detach().cpu().clone()
        for part, module in parts.items()
        for k, v in module.state_dict().items()
    }
    tables = {
        "history": model.history,
        "path_table": model.schedule_table,
        "members": model.members,
    }
    if model.candidates is not None:
        tables["candidates"] = model.candidates
    timings: dict[str, Any] = {
        name: frame.filter(TIMED).to_dict("list") for name, frame in tables.items()
    }
    if model.cost is not None:
        timings["cost"] = model.cost.to_json()
    header = {
        "schema": model.encoder.to_list(),
        "schedule": to_config(model.schedule),
        **{p: to_config(module) for p, module in parts.items() if p != "marginals"},
        "seed": model.seed,
        **{
            name: frame.assign(**dict.fromkeys(timings[name], None)).to_dict("list")
            for name, frame in tables.items()
        },
        "stopped": model.stopped,
        "held_out": model.held_out.to_json(),
        TIMINGS: timings,
    }
    return header, tensors


def model_from_state(
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    device: torch.device,
    trusted: Iterable[type] = (),
) -> Model:
    """The model that :func:`model_state` wrote; ValueError naming what is wrong if it did not.

    Parameters
    ----------
    header, tensors
        The state.
    device : torch.device
    trusted : iterable of type
        Classes of denoisers and schedules that the state may name besides those of the library.
    """
    check_fields(header, HEADER)
    timings = header.get(TIMINGS, {})
    check_fields(timings, {})

    def table(name: str) -> pd.DataFrame:
        columns = check_table(header[name], name)
        timed = check_table(timings.get(name, {}), name)
        for column in set(columns).intersection(TIMED):
            found = timed.get(column, columns[column])
            with building(f"{name}: {column}"):
                columns[column] = [math.nan if x is None else float(x) for x in found]
        return pd.DataFrame(check_table(columns, name))

    with building("schema"):
        encoder = TableEncoder.from_list(header["schema"])
    with building("schedule"):
        schedule = schedule_from_config(header["schedule"], trusted)
        check_schedule(schedule, len(encoder.owner))
    own, base = within(tensors, "denoiser"), within(tensors, "marginals")
    codebook = encoder.codebook().to(floating_type(own))

    def built(part: str) -> Denoiser:
        with (
            building(part),
            seeded(0, torch.device("cpu")),
        ):  # initial weights, which are replaced
            weights = within(tensors, part)
            made = denoiser_from_config(header[part], codebook, weights, trusted)
        return made.to(device).eval().requires_grad_(False)

    denoiser = built("denoiser")
    marginals = denoiser_from_config({CLASS: MarginalDenoiser.__name__}, codebook, base)
    assert isinstance(marginals, MarginalDenoiser)
    return Model(
        encoder=encoder,
        denoiser=denoiser,
        marginals=marginals.to(device),
        schedule=schedule,
        seed=header["seed"],
        history=table("history"),
        schedule_table=table("path_table"),
        members=table("members"),
        stopped=header["stopped"],
        candidates=table("candidates") if "candidates" in header else None,
        companion=built("companion") if "companion" in header else None,
        held_out=HeldOut.from_json(header["held_out"]),
        cost=Cost.from_json(timings["cost"]) if "cost" in timings else None,
    )
