"""The columnar graph against networkx, on random DAGs: every question has the same answer."""

from __future__ import annotations

import copy
import pickle

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphlens.ir.nodes import CONTROL, Edge, Op
from graphlens.ir.table import NO_OPS, Table, TableBuilder

TYPES = ("Relu", "Add", "Const")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Table, nx.MultiDiGraph]:
    """The same ops and edges, added in the same random order, as a table and as networkx's graph."""
    size = draw(st.integers(0, 7))
    builder, graph = TableBuilder(), nx.MultiDiGraph()
    for number in range(size):
        op = Op(f"op{number}", draw(st.sampled_from(TYPES)))
        builder.add_op(op)
        graph.add_node(op.name, op=op)
    pairs = [(low, high) for low in range(size) for high in range(low + 1, size)]
    edges = st.sampled_from([CONTROL, Edge("data", 0, 0), Edge("data", 1, 1), Edge("transfer", 0, 0)])
    chosen = st.lists(st.tuples(st.sampled_from(pairs), edges), max_size=15) if pairs else st.just([])
    for (low, high), edge in draw(chosen):
        builder.add_edge(f"op{low}", f"op{high}", edge)
        graph.add_edge(f"op{low}", f"op{high}", edge=edge)
    return builder.table(), graph


@given(graphs())
def test_the_table_answers_as_networkx_does(case: tuple[Table, nx.MultiDiGraph]) -> None:
    table, graph = case
    assert list(table) == list(graph)
    assert list(table.edges()) == list(graph.edges(data="edge"))
    assert table.number_of_edges == graph.number_of_edges()
    for name in graph:
        assert table.op(name) is graph.nodes[name]["op"]
        assert table.predecessors(name) == list(graph.predecessors(name))
        assert table.successors(name) == list(graph.successors(name))
        assert table.in_degree(name) == graph.in_degree(name)
        assert table.has_readers(name) == bool(graph.out_degree(name))
        assert table.out_edges(name) == [(dst, edge) for _, dst, edge in graph.out_edges(name, data="edge")]
        controls = [src for src, _, edge in graph.in_edges(name, data="edge") if edge.kind == "control"]
        assert sorted(table.control_inputs(name)) == sorted(controls)


@given(graphs())
def test_networkx_is_handed_the_same_graph(case: tuple[Table, nx.MultiDiGraph]) -> None:
    table, graph = case
    handed = table.networkx()
    assert type(handed) is nx.MultiDiGraph
    assert dict(handed.nodes(data="op")) == dict(graph.nodes(data="op"))
    assert list(handed.edges(keys=True, data="edge")) == list(graph.edges(keys=True, data="edge"))
    assert [list(handed.predecessors(name)) for name in handed] == [list(graph.predecessors(name)) for name in graph]
    assert table.networkx() is handed
    with pytest.raises(nx.NetworkXError):
        handed.add_node("another")


@given(graphs())
def test_the_order_respects_every_edge(case: tuple[Table, nx.MultiDiGraph]) -> None:
    table, graph = case
    rank = {table.names[position]: index for index, position in enumerate(table.order)}
    assert sorted(rank) == sorted(graph)
    assert all(rank[src] < rank[dst] for src, dst in graph.edges())


@given(graphs(), st.sets(st.sampled_from(TYPES)))
def test_ops_are_found_by_type_in_their_order(case: tuple[Table, nx.MultiDiGraph], types: set[str]) -> None:
    table, graph = case
    expected = [name for name, op in graph.nodes(data="op") if op.type in types]
    assert table.of_types(types) == expected
    assert table.where(lambda kind: kind in types) == expected


@given(graphs(), st.sets(st.integers(0, 6)))
def test_a_part_keeps_the_edges_within(case: tuple[Table, nx.MultiDiGraph], kept: set[int]) -> None:
    table, graph = case
    names = {f"op{number}" for number in kept}
    part, expected = table.only(names.__contains__), graph.subgraph(names)
    assert list(part) == [name for name in graph if name in expected]
    assert sorted(map(repr, part.edges())) == sorted(map(repr, expected.edges(data="edge")))


def test_inputs_come_by_port_and_control_edges_are_none() -> None:
    builder = TableBuilder()
    for name in "abc":
        builder.add_op(Op(name, "Relu"))
    builder.add_edge("a", "c", Edge("data", 0, 1))
    builder.add_edge("a", "c", Edge("control", None, None))
    builder.add_edge("b", "c", Edge("data", 2, 0))
    table = builder.table()
    assert table.in_edges("c") == [("b", Edge("data", 2, 0)), ("a", Edge("data", 0, 1))]
    assert table.control_inputs("c") == ["a"]


def test_a_copy_and_a_pickle_of_a_table_tell_control_edges_as_well() -> None:
    builder = TableBuilder()
    for name in "abc":
        builder.add_op(Op(name, "Relu"))
    builder.add_edge("a", "c", Edge("control", None, None))
    builder.add_edge("b", "c", Edge("data", 1, 0))
    table = builder.table()
    for again in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert again.control_inputs("c") == ["a"]
        assert again.in_edges("c") == [("b", Edge("data", 1, 0))]
        assert again.op("b") == table.op("b")


def test_an_op_under_another_name_gets_that_name_when_it_is_asked_for() -> None:
    builder = TableBuilder()
    builder.add_op(Op("x", "Relu", attrs={"T": "float32"}), "call/x")
    table = builder.table()
    assert table.op("call/x") == Op("call/x", "Relu", attrs={"T": "float32"})
    assert "x" not in table
    assert table.get("x") is None


def test_ops_of_one_name_are_told_apart_and_keep_their_edges() -> None:
    builder = TableBuilder()
    first, second, third = (builder.add_op(Op("x", kind)) for kind in ("Relu", "Neg", "Abs"))
    builder.connect(first, third, Edge("data"))
    builder.connect(second, third, Edge("data", 0, 1))
    table = builder.table()
    assert [(name, op.name, op.type) for name, op in table.items()] == [
        ("x", "x", "Relu"),
        ("x#2", "x#2", "Neg"),
        ("x#3", "x#3", "Abs"),
    ]
    assert table.predecessors("x#3") == ["x", "x#2"]


def test_other_ops_can_stand_in_place_and_the_table_stays() -> None:
    builder = TableBuilder()
    builder.add_op(Op("x", "Relu"))
    table = builder.table()
    changed = table.with_ops({"x": Op("x", "Neg")})
    assert (table.op("x").type, changed.op("x").type) == ("Relu", "Neg")
    assert changed.of_types({"Neg"}) == ["x"]
    assert table.of_types({"Neg"}) == []


def test_a_table_without_ops_is_no_special_case() -> None:
    assert (len(NO_OPS), list(NO_OPS.edges()), list(NO_OPS.order), len(NO_OPS.networkx())) == (0, [], [], 0)
