"""The graph of columns: what is independent has no edge, and an edge has the nats that are known."""

import re
import sys
from collections.abc import Hashable

import numpy as np
import pandas as pd
import pytest

from discrete_itd import DiffusionDensity, find_graph
from discrete_itd.models.graph import ColumnGraph
from discrete_itd.plots import plot_graph
from discrete_itd.recipes import BayesNet, Causal, Forest, Mixture

pytestmark = pytest.mark.single_precision

KEPT = (
    0.7  # probability that a column of a chain keeps the value before it, else it has one of three
)
DENOISERS = {
    "bayes_net": BayesNet(),
    "mixture": Mixture(4, n_points=64, max_steps=40),
    "forest": Forest(n_trees=4),
    "members": [BayesNet(), Forest(n_trees=4)],
    "network": Causal(width=32, depth=1),  # whose companion answers
}


def chain(n, seed=0):
    """Three columns a -> b -> c, an independent one, the sum of a and this, and two numbers, of which one has gaps."""
    random = np.random.default_rng(seed)
    columns = [random.integers(3, size=n)]
    for _ in range(2):
        other = random.integers(3, size=n)
        columns.append(np.where(random.random(n) < KEPT, columns[-1], other))
    free = random.integers(4, size=n)
    names = dict(zip("abc", columns, strict=True)) | {"free": free, "sum": columns[0] + free}
    frame = pd.DataFrame(names).astype(str)
    x = random.normal(size=n)
    y = 0.8 * x + 0.6 * random.normal(size=n)
    return frame.assign(x=x, y=np.where(random.random(n) < 0.1, np.nan, y))


def skeleton(graph):
    return {frozenset(pair) for pair in graph.edges[["parent", "child"]].to_numpy().tolist()}


def random_graph(seed):
    """Edges from earlier to later columns, under names in another order."""
    random = np.random.default_rng(seed)
    names = [f"c{j}" for j in random.permutation(8)]
    pairs = [(names[i], names[j]) for j in range(8) for i in range(j) if random.random() < 0.3]
    lines = [
        (*pair, nats, 0.01) for pair, nats in zip(pairs, random.random(len(pairs)), strict=True)
    ]
    return ColumnGraph(
        sorted(names), pd.DataFrame(lines, columns=["parent", "child", "nats", "stderr"])
    )


def test_independent_columns_have_no_edge():
    n_edges = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        columns = {f"c{j}": random.integers(2 + j, size=200).astype(str) for j in range(5)}
        frame = pd.DataFrame(columns | {f"n{j}": random.normal(size=200) for j in range(3)})
        model = DiffusionDensity(denoiser=Forest(n_trees=2), random_state=0).fit(frame)
        n_edges += len(find_graph(frame, model).edges)
    assert n_edges <= 1


def test_a_chain_has_its_skeleton_and_the_nats_that_are_known():
    frame = chain(4000)[["a", "b", "c", "free"]]
    model = DiffusionDensity(denoiser="bayes_net", random_state=0).fit(frame)
    same = KEPT + (1 - KEPT) / 3
    other = (1 - same) / 2
    truth = np.log(3) + same * np.log(same) + 2 * other * np.log(other)
    for X in (frame, model.sample(4000, random_state=0)):
        graph = find_graph(X, model)
        assert skeleton(graph) == {frozenset("ab"), frozenset("bc")}
        assert (graph.edges["nats"] - truth).abs().max() < 4 * graph.edges["stderr"].max()


@pytest.mark.parametrize("name", DENOISERS)
def test_a_strength_is_the_mutual_information_given_the_other_parents(name):
    frame = chain(600)
    model = DiffusionDensity(denoiser=DENOISERS[name], max_steps=60, random_state=0).fit(frame)
    graph = find_graph(frame, model)
    assert {frozenset("ab"), frozenset("bc")} <= skeleton(graph)
    if name == "forest":
        assert frozenset("xy") in skeleton(graph)
    if name == "bayes_net":
        assert graph.edges["child"].duplicated().any()
    for edge in graph.edges.itertuples():
        parents = graph.edges.loc[graph.edges["child"] == edge.child, "parent"]
        others = [p for p in parents if p != edge.parent] or None
        whole = frame.dropna(subset=[edge.child, *parents])
        found = model.mutual_information(edge.parent, edge.child, others, X=whole)
        assert (edge.nats, edge.stderr) == pytest.approx(tuple(found), abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_each_column_is_below_its_parents(seed):
    graph = random_graph(seed)
    depth = {name: y for y, layer in enumerate(graph.layers()) for name in layer}
    assert set(depth) == set(graph.edges[["parent", "child"]].to_numpy().ravel())
    for edge in graph.edges.itertuples():
        assert depth[edge.parent] < depth[edge.child]
    texts = [text.get_text() for text in plot_graph(graph).texts]
    assert set(texts) >= set(depth)


def test_the_graph_is_written_for_networkx_and_graphviz():
    networkx = pytest.importorskip("networkx")
    graph = random_graph(0)
    graph.columns.append('say "a\\b"')  # without an edge
    found = graph.to_networkx()
    assert list(found) == graph.columns
    assert networkx.is_directed_acyclic_graph(found)
    edges = graph.edges.set_index(["parent", "child"])["nats"]
    assert {(p, c): nats for p, c, nats in found.edges(data="nats")} == edges.to_dict()
    dot = graph.to_dot()
    assert dot.count("->") == len(edges)
    assert r'8 [label="say \"a\\b\""]' in dot


def test_names_that_differ_by_spaces_have_other_labels():
    names: list[Hashable] = ["x", " x", "x ", "a b", "a  b", "a\nb", "a\u00a0b", " ", "  ", ""]
    edges = pd.DataFrame([("x", " x", 1.0, 0.1)], columns=["parent", "child", "nats", "stderr"])
    dot = ColumnGraph(names, edges).to_dot()
    labels = re.findall(r'^  \d+ \[label="(.*)"\]$', dot, re.MULTILINE)
    assert len(set(labels)) == len(names)
    assert labels[:4] == ["x", r"\\x20x", r"x\\x20", "a b"]


def test_a_density_that_is_not_fitted_is_fitted_to_the_table():
    frame, unfitted = chain(300), DiffusionDensity(denoiser="bayes_net")
    graph = find_graph(frame, unfitted, random_state=3)
    fitted = DiffusionDensity(denoiser="bayes_net", random_state=3).fit(frame)
    pd.testing.assert_frame_equal(graph.edges, find_graph(fitted.rows(frame), fitted).edges)
    assert not hasattr(unfitted, "model_")
    with pytest.raises(TypeError, match="density must be a DiffusionDensity, got str"):
        find_graph(frame, "bayes_net")


def test_without_networkx_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match="pip install networkx"):
        random_graph(0).to_networkx()
