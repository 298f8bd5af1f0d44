"""Laws of the Bayesian networks of the tests, and what the loaders promise about their tables."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from discrete_itd.datasets import load_adult, load_car, load_mushroom
from tests.networks import BayesianNetwork


def random_network(rng):
    """Six variables of 1 to 4 states, up to three parents each, some probabilities zero."""
    names = [f"v{j}" for j in range(6)]
    states = {name: [f"{name}_{k}" for k in range(rng.integers(1, 5))] for name in names}
    parents = {
        name: [names[i] for i in rng.permutation(j)[: rng.integers(0, 4)]]
        for j, name in enumerate(names)
    }
    cpts = {}
    for name in names:
        table = rng.exponential(size=[len(states[v]) for v in (*parents[name], name)])
        table[..., 1:] *= rng.random(table[..., 1:].shape) > 0.2
        cpts[name] = table / table.sum(axis=-1, keepdims=True)
    return BayesianNetwork(states, cpts, parents)


def all_rows(network):
    rows = itertools.product(*(network.states[name] for name in network.variables))
    return pd.DataFrame(list(rows), columns=list(network.variables))


def naive_log_prob(network, X):
    result = []
    for _, row in X.iterrows():
        prob = 1.0
        for name in network.variables:
            table = network.cpts[name]
            for other in (*network.parents[name], name):
                table = table[network.states[other].index(row[other])]
            prob *= table
        result.append(math.log(prob) if prob > 0 else -math.inf)
    return np.array(result)


# --- Bayesian networks: laws


@pytest.mark.parametrize("seed", range(3))
def test_mass_sums_to_one_and_equals_the_naive_product(seed):
    network = random_network(np.random.default_rng(seed))
    X = all_rows(network)
    log_prob = network.log_prob(X)
    assert log_prob.shape == (len(X),)
    assert log_prob.dtype == np.float64
    assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(log_prob, naive_log_prob(network, X), rtol=1e-12)


# --- the tables


LOADERS = {
    "adult": (load_adult, (32561, 13), "income"),
    "car": (load_car, (1728, 7), "class"),
    "mushroom": (load_mushroom, (8124, 23), "class"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_tables_have_the_promised_form(name):
    load, shape, label = LOADERS[name]
    table = load()
    assert table.shape == shape
    assert not table.isna().to_numpy().any()
    assert table.columns.is_unique
    assert table.columns[-1] == label
    for column in table:
        dtype = table[column].dtype
        if isinstance(dtype, pd.CategoricalDtype):
            assert set(table[column].unique()) == set(dtype.categories)
        else:
            assert dtype in (np.dtype(bool), np.dtype(np.int64))
    assert isinstance(table[label].dtype, pd.CategoricalDtype)


def test_mushroom():
    table = load_mushroom()
    assert table["class"].value_counts().to_dict() == {"edible": 4208, "poisonous": 3916}
    assert table["stalk_root"].value_counts().to_dict()["unknown"] == 2480
    assert table["bruises"].dtype == bool
    assert table["bruises"].value_counts().to_dict() == {False: 4748, True: 3376}
    ordered = [column for column in table if getattr(table[column].dtype, "ordered", False)]
    assert ordered == ["gill_spacing", "gill_size", "ring_number"]
    assert len(table.drop_duplicates()) == len(table)
    # A foul smell never comes from an edible one: the words sit in the right columns.
    assert set(table.loc[table["odor"] == "foul", "class"]) == {"poisonous"}


def test_car_is_the_complete_product():
    X = load_car()
    y = X.pop("class")
    assert all(X[column].cat.ordered for column in X)
    assert y.cat.categories.tolist() == ["unacceptable", "acceptable", "good", "very good"]
    assert len(X.drop_duplicates()) == len(X)
    assert math.prod(len(X[column].cat.categories) for column in X) == len(X)
    assert set(y[X["safety"] == "low"]) == {"unacceptable"}


def test_adult():
    table = load_adult()
    integers = table.select_dtypes("int64").columns.tolist()
    assert integers == ["age", "capital_gain", "capital_loss", "hours_per_week"]
    assert table["education"].cat.ordered
    assert len(table["education"].cat.categories) == 16
    assert table["income"].value_counts().to_dict() == {"<=50K": 24720, ">50K": 7841}
    assert table["native_country"].value_counts().to_dict()["unknown"] == 583


# --- networks from pgmpy
