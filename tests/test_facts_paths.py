"""The critical path against a brute force over all paths, on random DAGs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphlens.facts.time.paths import heaviest_path, length_ns, slacks_ns
from graphlens.ir.nodes import Edge, Op
from graphlens.ir.table import Table, TableBuilder


@st.composite
def weighted_dags(draw: st.DrawFn) -> tuple[Table, dict[str, int]]:
    """Up to seven ops; every edge points from a lower to a higher number, so the graph is acyclic."""
    size = draw(st.integers(1, 7))
    graph = TableBuilder()
    for index in range(size):
        graph.add_op(Op(f"op{index}", "Relu"))
    for low in range(size):
        for high in range(low + 1, size):
            if draw(st.booleans()):
                graph.add_edge(f"op{low}", f"op{high}", Edge("data"))
    table = graph.table()
    weights = {name: draw(st.integers(1, 50)) for name in table if draw(st.booleans())}
    return table, weights


def all_paths(graph: Table) -> list[list[str]]:
    """Every path, found by naive recursion."""

    def from_(name: str) -> list[list[str]]:
        return [[name]] + [[name, *rest] for successor in set(graph.successors(name)) for rest in from_(successor)]

    return [path for name in graph for path in from_(name)]


def weight(path: list[str], weights: dict[str, int]) -> int:
    return sum(weights.get(name, 0) for name in path)


@given(weighted_dags())
def test_no_path_is_longer_than_the_critical_path(case: tuple[Table, dict[str, int]]) -> None:
    graph, weights = case
    longest = max(weight(path, weights) for path in all_paths(graph))
    assert length_ns(graph, weights) == longest
    found = heaviest_path(graph, weights)
    assert (found is None) == (not weights)
    if found:
        assert found.ns == longest == weight(list(found.ops), weights)


@given(weighted_dags())
def test_slack_is_how_much_an_op_may_grow(case: tuple[Table, dict[str, int]]) -> None:
    graph, weights = case
    before = length_ns(graph, weights)
    for name, slack in slacks_ns(graph, weights).items():
        grown = weights.get(name, 0) + slack
        assert length_ns(graph, {**weights, name: grown}) == before
        assert length_ns(graph, {**weights, name: grown + 1}) == before + 1
