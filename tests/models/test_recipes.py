"""Recipes: names, checks, copies, JSON."""

import copy
import dataclasses
import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import LAW
from sklearn.base import clone

from discrete_itd import DiffusionDensity
from discrete_itd.models.fitting import MOST_NETWORKS
from discrete_itd.recipes import (
    NAMES,
    RECIPES,
    Auto,
    Best,
    Causal,
    Forest,
    Independent,
    Mixture,
    Network,
    RowMixture,
    Tree,
    recipe,
)
from discrete_itd.storage.values import flatten, unflatten

pytestmark = pytest.mark.single_precision

COUNTS = st.integers(1, int(Forest.bounds["n_trees"][1]))
EXACT = st.one_of(
    st.sampled_from(["independent", "tree", "mixture"]),
    st.just(Independent()),
    st.just(Tree()),
    st.builds(Mixture, COUNTS),
    st.builds(Forest, COUNTS, st.none() | st.integers(5, 99)),
)
NETWORKS = st.builds(
    Network,
    width=st.integers(1, 512),
    depth=st.integers(0, 9),
    dropout=st.floats(0, 0.99),
    base=st.just("auto") | EXACT,
)
SINGLE = (
    st.sampled_from(sorted(set(NAMES) - {"row_mixture", "auto", "best", "causal", "network"}))
    | EXACT
)
SEVERAL = st.lists(SINGLE, min_size=1, max_size=4)
WHOLE = st.sampled_from(["auto", "best", "causal", "row_mixture"]) | st.builds(
    Causal, COUNTS.map(lambda n: n % 8 + 1)
)
ANY = SINGLE | WHOLE | NETWORKS | SEVERAL | st.builds(RowMixture, SEVERAL.map(tuple))


def test_a_name_is_its_recipe():
    for name in NAMES:
        made = recipe(name)
        assert type(made) in RECIPES
        assert recipe(made) == made


def test_what_names_stand_for():
    assert recipe("auto") == Auto()
    assert recipe("network") == Network()
    assert recipe("tree") == Tree()
    assert type(recipe("mixture")) is Mixture
    assert len(recipe("row_mixture").members) > 1


@LAW
@given(ANY)
def test_a_recipe_is_checked_once(denoiser):
    made = recipe(denoiser)
    assert recipe(made) == made
    assert recipe(copy.deepcopy(denoiser)) == made
    assert recipe(pickle.loads(pickle.dumps(denoiser))) == made
    assert hash(made) == hash(recipe(denoiser))  # one that is asked for again is found


def made_of(data):
    return unflatten(object, (data, {}), classes=RECIPES)


@LAW
@given(ANY)
def test_what_was_asked_for_survives_json(denoiser):
    data, _ = flatten(denoiser)
    back = made_of(json.loads(json.dumps(data, allow_nan=False)))
    assert back == denoiser
    assert type(back) is type(denoiser)
    assert recipe(back) == recipe(denoiser)


def test_numbers_of_numpy_are_numbers():
    odd = Network(
        width=np.int32(4), depth=np.int64(2), dropout=np.float32(0.5), base=Forest(np.int16(3))
    )
    plain = Network(width=4, depth=2, dropout=0.5, base=Forest(3))
    assert recipe(odd) == plain
    assert made_of(json.loads(json.dumps(flatten(odd)[0]))) == plain
    kept, _ = flatten(RowMixture((Best(np.int32(2)), Mixture(np.int64(5)))))
    assert made_of(json.loads(json.dumps(kept))) == RowMixture((Best(2), Mixture(5)))


def test_members_are_names_recipes_or_both():
    members = (Auto(), Causal(width=8), Tree())
    assert recipe(["auto", Causal(width=8), "tree"]) == RowMixture(members)
    assert recipe(("auto", Causal(width=8), Tree())) == RowMixture(members)
    assert recipe(RowMixture(["auto", Causal(width=8), "tree"])) == RowMixture(members)
    assert recipe(["tree"]) == RowMixture((Tree(),))


BAD = [
    (RowMixture(("network",)), ValueError, "member 0: a network that conditions on all columns"),
    (["tree", Network()], ValueError, "member 1: a network that conditions on all columns"),
    (Best(0), ValueError, "n_orders must be from 1 to"),
    (Causal(base="causal"), ValueError, "base must be 'auto' or an exact denoiser"),
    ("grove", ValueError, " or a recipe, got 'grove'"),
    ("", ValueError, "got ''"),
    (None, TypeError, "denoiser must be one of ('auto', "),
    (8, TypeError, " or a recipe, got 8"),
    (Network, TypeError, "or a recipe, got <class"),
    ({"tree"}, TypeError, "or a recipe, got {'tree'}"),
    ([], ValueError, f"a mixture of rows has 1 to {MOST_NETWORKS} members, got 0"),
    (["tree"] * 65, ValueError, "members, got 65"),
    (RowMixture(()), ValueError, "members, got 0"),
    (RowMixture("tree"), TypeError, "members must be a tuple of recipes, got 'tree'"),
    (RowMixture(None), TypeError, "members must be a tuple of recipes, got None"),
    (["tree", "row_mixture"], ValueError, "member 1: a member of a mixture of rows cannot be one"),
    (["tree", ["tree"]], ValueError, "member 1: a member of a mixture of rows cannot be one"),
    (["tree", "trie"], ValueError, "member 1: denoiser must be one of"),
    ([Mixture(0)], ValueError, "member 0: n_components must be from 1"),
    ([3], TypeError, "or a recipe, got 3"),
    (Network(width=0), ValueError, "width must be from 1 to 65536, got 0"),
    (Network(width=2.5), TypeError, "width must be an integer, got 2.5"),
    (Network(depth=-1), ValueError, "depth must be from 0 to 65536, got -1"),
    (Network(dropout="little"), TypeError, "dropout must be a number, got 'little'"),
    (Network(dropout=1.0), ValueError, "dropout must be at least 0 and below 1, got 1.0"),
    (Network(dropout=-0.1), ValueError, "dropout must be at least 0 and below 1, got -0.1"),
    (Network(dropout=float("nan")), ValueError, "dropout must be finite, got nan"),
    (Network(base="grove"), ValueError, "base must be 'auto' or an exact denoiser, got 'grove'"),
    (Network(base=Network()), ValueError, "base must be 'auto' or an exact denoiser"),
    (Network(base=["tree"]), ValueError, "base must be 'auto' or an exact denoiser"),
    (Network(base=Mixture(0)), ValueError, "n_components must be from 1 to"),
    (Network(base=None), ValueError, "base must be 'auto' or an exact denoiser, got None"),
    ([Network(width=0)], ValueError, "width must be from 1"),
]


def test_recipes_that_make_no_sense():
    for denoiser, error, words in BAD:
        with pytest.raises(error, match=re.escape(words)):
            recipe(denoiser)
        rows = pd.DataFrame({"a": list("xy") * 5, "b": list("uvu") * 3 + ["v"]})
        with pytest.raises(error, match=re.escape(words)):
            DiffusionDensity(denoiser=denoiser).fit(rows)


def test_property_integers_of_a_recipe_are_within_its_bounds():
    """A Boolean, a float and text are none; None is one only where it is the default."""
    for made, name in [(r, name) for r in RECIPES for name in r.bounds]:
        least, most = made.bounds[name]
        for value in (least, most if most < np.inf else 10**6):
            assert recipe(made(**{name: value}))
        for value in (least - 1, *([most + 1] if most < np.inf else [])):
            with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
                recipe(made(**{name: value}))
        none = [None] if getattr(made, name) is not None else []
        for value in (float(least), True, "8", *none):
            with pytest.raises(TypeError, match=f"{name} must be an integer, got {value!r}"):
                recipe(made(**{name: value}))


@pytest.mark.parametrize(
    "data",
    [
        {"class": "Grove"},
        {"class": []},
        {"class": "Tree", "n_trees": 3},
        {"class": "RowMixture", "members": 3},
        {"class": "Network", "base": {"class": "Grove"}},
    ],
    ids=str,
)
def test_data_that_are_no_recipe_are_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011
        made_of(data)


# -- as a parameter of an estimator ----------------------------------------------------------------


@pytest.mark.parametrize(
    "denoiser",
    [
        "tree",
        Network(width=8),
        ["tree", Mixture(3, n_points=64, max_steps=40)],
        RowMixture(("tree",)),
    ],
    ids=str,
)
def test_an_estimator_holds_what_it_was_given(denoiser):
    model = DiffusionDensity(denoiser=denoiser)
    assert model.denoiser is denoiser
    assert model.get_params()["denoiser"] is denoiser
    again = clone(model)
    assert again.denoiser == denoiser
    assert type(again.denoiser) is type(denoiser)
    assert clone(DiffusionDensity()).set_params(denoiser=denoiser).denoiser is denoiser
    assert "".join(repr(denoiser).split()) in "".join(repr(model).split())


def test_a_recipe_is_a_value():
    assert Network() == Network() != Network(width=8)
    assert len({Forest(), Forest(32), Forest(2)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Network().width = 3


def test_every_recipe_has_a_name_for_people():
    unnamed = [r.__name__ for r in RECIPES if not r.name and "label" not in vars(r)]
    assert not unnamed
