"""Denoisers and schedules that are no part of the library are saved, loaded, pickled and copied like its own."""

import copy
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from discrete_itd import DiffusionDensity
from discrete_itd.channel import CoordinateSchedule
from discrete_itd.channel.posterior import CategoricalPosterior, Posterior
from discrete_itd.denoisers import Denoiser
from discrete_itd.storage.values import flatten, unflatten


class Shifted(Denoiser):
    """The posterior of another denoiser, with logits that are shifted and multiplied."""

    def __init__(self, codebook, base, factor):
        super().__init__(codebook)
        self.base, self.factor = base, factor
        self.shift = torch.nn.Parameter(torch.zeros(codebook.levels.n_points))

    def forward(self, y, snr):
        logits = self.base(y, snr).categorical.logits * self.factor + self.shift
        return Posterior(self.codebook, CategoricalPosterior(self.codebook.levels, logits))


@dataclass(frozen=True)
class Halves:
    """Half of the columns, then the others."""

    n_columns: int
    n_steps = 2
    noisy = False
    complete = True
    order = None

    def snr(self, step, rank, n_free):
        return CoordinateSchedule(2).snr(step, rank, n_free)


ROWS = pd.DataFrame({"a": list("xyxxyx"), "b": [True, False] * 3, "c": list("uvvuvv")})


@pytest.fixture(scope="module")
def model():
    model = DiffusionDensity(denoiser="tree", n_evaluations=8, random_state=0).fit(ROWS)
    own = model.model_
    shifted = Shifted(own.denoiser.codebook, own.denoiser, 0.5)
    with torch.no_grad():
        shifted.shift.copy_(torch.linspace(-1, 1, len(shifted.shift)))
    shifted.eval().requires_grad_(False)
    model.model_ = replace(own, denoiser=shifted, schedule=Halves(3))
    return model


def test_a_file_is_read_with_the_classes_that_are_trusted(model, tmp_path):
    model.save(tmp_path / "m")
    back = DiffusionDensity.load(tmp_path / "m", trusted=[Shifted, Halves])
    np.testing.assert_array_equal(back.score_samples(ROWS), model.score_samples(ROWS))
    assert back.model_.schedule == Halves(3)
    assert isinstance(back.denoiser_, Shifted)


@pytest.mark.parametrize(("trusted", "name"), [([], "Shifted"), ([Shifted], "Halves")])
def test_a_class_that_is_not_trusted_is_refused_by_name(model, tmp_path, trusted, name):
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=rf"m: .*needs the class '{name}', .*trusted="):
        DiffusionDensity.load(tmp_path / "m", trusted=trusted)


def test_an_object_is_not_a_class(model, tmp_path):
    model.save(tmp_path / "m")
    with pytest.raises(TypeError, match="must hold classes"):
        DiffusionDensity.load(tmp_path / "m", trusted=[Halves(3)])
    with pytest.raises(TypeError, match="must be a list of classes, got the class Halves"):
        DiffusionDensity.load(tmp_path / "m", trusted=Halves)
    with pytest.raises(ValueError, match="expected a Denoiser, got a Shifted"):
        DiffusionDensity.load(tmp_path / "m", trusted=[Halves, type("Shifted", (), {})])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_pickles_and_copies_carry_their_classes(model, again):
    np.testing.assert_array_equal(again(model).score_samples(ROWS), model.score_samples(ROWS))


def test_a_denoiser_without_the_attribute_of_an_argument_is_refused_by_name(
    model, tmp_path, monkeypatch
):
    monkeypatch.delattr(model.denoiser_, "factor")
    with pytest.raises(NotImplementedError, match="Shifted cannot be saved"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("factor", "two"),
        ("factor", None),
        ("base", None),
        ("base", {"class": "list", "items": []}),
        ("width", 3),
    ],
)
def test_a_damaged_config_is_a_value_error(model, name, value):
    header, tensors = flatten(model)
    header["fitted"]["model"]["denoiser"][name] = value
    with pytest.raises(ValueError, match=r"^fitted"):
        unflatten(DiffusionDensity, (header, tensors), classes=[Shifted, Halves], try_out=True)
