"""Inlining: names follow the runtime's, edges cross calls, and nothing is lost or invented."""

from __future__ import annotations

import random
from dataclasses import replace

import networkx as nx
import pytest

from graphlens.errors import TargetError
from graphlens.facts.core import Facts
from graphlens.facts.flat import scopes as flat
from graphlens.facts.flat.inlining import effects, inline
from graphlens.facts.flat.names import Names
from graphlens.facts.graphs import judged_graph
from graphlens.facts.patterns.dataflow import dataflow
from graphlens.ir import calls
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Function, Graph, data_inputs
from graphlens.ir.nodes import Call, Edge, Op
from graphlens.ir.table import Table, TableBuilder
from graphlens.testing.sketch import sketch


def function(name: str, ops: list[Op], edges: list[tuple[str, str, int, int]]) -> Function:
    graph = TableBuilder()
    for op in ops:
        graph.add_op(op)
    for src, dst, src_port, dst_port in edges:
        graph.add_edge(src, dst, Edge("data", src_port, dst_port))
    inputs = tuple(op.name for op in ops if op.type == "_Arg")
    outputs = tuple(op.name for op in ops if op.type == "_Retval")
    return Function(name, graph.table(), inputs, outputs)


def swap() -> Function:
    """A function that returns its two arguments in the other order, the first one through a Relu."""
    ops = [Op("a", "_Arg"), Op("b", "_Arg"), Op("relu", "Relu"), Op("r0", "_Retval"), Op("r1", "_Retval")]
    return function("swap", ops, [("a", "relu", 0, 0), ("b", "r0", 0, 0), ("relu", "r1", 0, 0)])


def test_a_call_vanishes_and_its_ops_carry_its_name() -> None:
    ops = [Op("x", "Placeholder"), Op("y", "Placeholder"), Op("call", "PartitionedCall", calls=(Call("call", "swap"),))]
    ops += [Op("first", "Neg"), Op("second", "Abs")]
    edges = [("x", "call", 0, 0), ("y", "call", 0, 1), ("call", "first", 0, 0), ("call", "second", 1, 0)]
    graph = inline(Graph("", {"": function("", ops, edges), "swap": swap()}))
    assert set(graph) == {"x", "y", "call/relu", "first", "second"}
    assert data_inputs(graph, "first") == ["y"]
    assert data_inputs(graph, "second") == ["call/relu"]
    assert data_inputs(graph, "call/relu") == ["x"]


def test_a_function_called_twice_is_two_instances() -> None:
    calls = [Op(name, "StatefulPartitionedCall", calls=(Call("call", "swap"),)) for name in ("one", "two")]
    ops = [Op("x", "Placeholder"), *calls, Op("out", "Neg")]
    edges = [("x", "one", 0, 0), ("x", "one", 0, 1), ("one", "two", 0, 0), ("one", "two", 1, 1), ("two", "out", 1, 0)]
    graph = inline(Graph("", {"": function("", ops, edges), "swap": swap()}))
    assert {"one/relu", "two/relu"} <= set(graph)
    assert data_inputs(graph, "out") == ["two/relu"]
    assert data_inputs(graph, "two/relu") == ["x"]


def test_an_op_that_is_called_as_one_of_a_function_will_be_stays_another_op() -> None:
    ops = [Op("x", "Placeholder"), Op("call", "PartitionedCall", calls=(Call("call", "swap"),))]
    ops += [Op("call/relu", "Tanh"), Op("first", "Neg"), Op("second", "Abs")]
    edges = [("x", "call/relu", 0, 0), ("call/relu", "call", 0, 0), ("x", "call", 0, 1), ("call", "second", 1, 0)]
    graph = inline(Graph("", {"": function("", ops, [*edges, ("call/relu", "first", 0, 0)]), "swap": swap()}))
    assert {name: op.type for name, op in graph.items() if "relu" in name} == {
        "call/relu": "Tanh",
        "call/relu#2": "Relu",
    }
    assert data_inputs(graph, "first") == ["call/relu"]
    assert data_inputs(graph, "call/relu#2") == ["call/relu"]
    assert data_inputs(graph, "second") == ["call/relu#2"]


def loop_graph() -> Graph:
    body = function(
        "body",
        [Op("i", "_Arg"), Op("add", "AddV2"), Op("r", "_Retval")],
        [("i", "add", 0, 0), ("i", "add", 0, 1), ("add", "r", 0, 0)],
    )
    cond = function(
        "cond", [Op("i", "_Arg"), Op("less", "Less"), Op("r", "_Retval")], [("i", "less", 0, 0), ("less", "r", 0, 0)]
    )
    loop = Op("while", "StatelessWhile", calls=(Call("cond", "cond"), Call("body", "body")))
    main = function(
        "", [Op("x", "Placeholder"), loop, Op("out", "Neg")], [("x", "while", 0, 0), ("while", "out", 0, 0)]
    )
    return Graph("", {"": main, "body": body, "cond": cond})


def test_a_loop_is_a_dag_with_its_bodies_before_it() -> None:
    graph = inline(loop_graph())
    assert set(graph) == {"x", "while", "while/body/add", "while/cond/less", "out"}
    assert nx.is_directed_acyclic_graph(graph.networkx())
    assert nx.has_path(graph.networkx(), "x", "while/body/add")
    assert nx.has_path(graph.networkx(), "while/body/add", "while")
    assert data_inputs(graph, "out") == ["while"]


def test_the_branches_of_a_conditional_take_the_inputs_after_the_predicate() -> None:
    conditional = Op("cond", "StatelessIf", calls=(Call("then", "swap"), Call("else", "swap")))
    ops = [Op("predicate", "Placeholder"), Op("x", "Placeholder"), Op("y", "Placeholder"), conditional]
    edges = [("predicate", "cond", 0, 0), ("x", "cond", 0, 1), ("y", "cond", 0, 2)]
    graph = inline(Graph("", {"": function("", ops, edges), "swap": swap()}))
    assert data_inputs(graph, "cond/then/relu") == ["x"]
    assert data_inputs(graph, "cond/else/relu") == ["x"]


def test_a_remote_call_hands_on_the_inputs_after_the_device_that_it_names() -> None:
    call = Op("call", "RemoteCall", calls=(Call("call", "swap"),))
    ops = [Op("device", "Const"), Op("x", "Placeholder"), Op("y", "Placeholder"), call, Op("out", "Neg")]
    edges = [("device", "call", 0, 0), ("x", "call", 0, 1), ("y", "call", 0, 2), ("call", "out", 0, 0)]
    graph = inline(Graph("", {"": function("", ops, edges), "swap": swap()}))
    assert data_inputs(graph, "call/relu") == ["x"]
    assert data_inputs(graph, "out") == ["y"]


def test_what_a_function_lists_runs_for_its_effect_whatever_its_type() -> None:
    """TensorFlow's own word goes before the type of an op; a main graph and a function without a list have none."""
    ops = [Op("a", "_Arg"), Op("told", "SomebodysOp"), Op("not_told", "Print"), Op("r", "_Retval")]
    listing = function("listing", ops, [("a", "told", 0, 0), ("a", "not_told", 0, 0), ("a", "r", 0, 0)])
    silent = replace(listing, name="silent")
    calls = [Op(name, "PartitionedCall", calls=(Call("call", name),)) for name in ("listing", "silent")]
    main = function("", [Op("x", "Placeholder"), *calls, Op("check", "Assert")], [("x", "listing", 0, 0)])
    library = {"": main, "listing": replace(listing, control_outputs=("told",)), "silent": silent}
    assert effects(Graph("", library)) == {"listing/told", "silent/not_told", "check"}
    library[""] = replace(main, control_outputs=("listing",))  # the call is no op of the flat graph, its effects are
    assert effects(Graph("", library)) == {"listing/told", "silent/not_told"}


def test_effects_have_the_names_of_the_flat_graph_where_two_ops_would_share_one() -> None:
    """An op `a/check` beside a call `a`, in whose function an op is called `check`."""
    main = function("", [Op("a", "PartitionedCall", calls=(Call("call", "f"),)), Op("a/check", "Assert")], [])
    graph = Graph("", {"": main, "f": function("f", [Op("check", "Assert"), Op("no", "Neg")], [])})
    assert effects(graph) == {"a/check", "a/check#2"}
    assert set(inline(graph)) == {"a/check", "a/check#2", "a/no"}


def test_an_op_is_alive_that_is_listed_and_one_that_is_not_is_dead_whatever_its_type() -> None:
    ops = [Op("a", "_Arg"), Op("made", "Exp"), Op("told", "SomebodysOp"), Op("not_told", "Print"), Op("r", "_Retval")]
    edges = [("a", "made", 0, 0), ("made", "told", 0, 0), ("a", "not_told", 0, 0), ("a", "r", 0, 0)]
    body = function("", ops, edges)

    def alive(*listed: str) -> set[str]:
        traced = Graph("", {"": replace(body, control_outputs=listed)})
        flow = Facts(Evidence(Target("t", "callable"), traced=traced))(dataflow)
        assert flow is not None
        return set(flow.inputs)

    assert alive("told") == {"a", "made", "told", "r"}
    assert alive() == {"a", "not_told", "r"}  # nothing is listed: the types decide


def test_a_function_that_calls_itself_does_not_hang() -> None:
    again = Op("again", "PartitionedCall", calls=(Call("call", "f"),))
    body = function("f", [Op("a", "_Arg"), again, Op("r", "_Retval")], [("a", "again", 0, 0), ("again", "r", 0, 0)])
    main = function("", [Op("x", "Placeholder"), Op("start", "PartitionedCall", calls=(Call("call", "f"),))], [])
    whole = Graph("", {"": main, "f": body})
    graph = inline(whole)
    assert nx.is_directed_acyclic_graph(graph.networkx())
    assert set(graph) == {"x", "start/again"}
    assert graph.op("start/again").type == "PartitionedCall"
    assert calls.Calls(whole).notes() == [
        "function 'f' calls itself: that call stays an op, and what it does again is in no figure"
    ]


def calling(name: str, *callees: str, more: int = 1) -> Function:
    ops = [Op(f"op{number}", "Relu") for number in range(more)]
    called = [Op(f"c{n}", "PartitionedCall", calls=(Call("call", callee),)) for n, callee in enumerate(callees)]
    return function(name, ops + called, [])


def test_of_functions_that_call_each_other_the_call_that_leads_back_stays() -> None:
    library = {"": calling("", "f"), "f": calling("f", "g"), "g": calling("g", "h", "f"), "h": calling("h")}
    graph = Graph("", library)
    assert set(inline(graph)) == {"op0", "c0/op0", "c0/c0/op0", "c0/c0/c0/op0", "c0/c0/c1"}
    assert calls.Calls(graph).notes()[0].startswith("function 'f' calls itself, by way of 'g'")


@pytest.mark.parametrize("seed", range(20))
def test_the_size_is_known_before_anything_is_inlined(seed: int) -> None:
    choose = random.Random(seed)
    names = [f"f{number}" for number in range(6)]
    library = {
        name: calling(name, *choose.choices(names, k=choose.choice([0, 0, 1, 2])), more=choose.randrange(4))
        for name in names
    }
    library[""] = calling("", *choose.choices(names, k=3))
    graph = Graph("", library)
    assert calls.Calls(graph).flat_size().ops == len(inline(graph))


def test_calls_nested_deeper_than_the_limit_stay_ops_and_are_counted_as_such() -> None:
    depth = calls.DEPTH_LIMIT + 5
    library = {f"f{level}": calling(f"f{level}", f"f{level + 1}") for level in range(depth)}
    graph = Graph("f0", library)
    size = calls.Calls(graph).flat_size()
    assert size.is_cut
    assert size.ops == len(inline(graph))
    assert size.calls == calls.DEPTH_LIMIT
    assert calls.Calls(graph).notes() == ["calls nest deeper than 100 functions: those below that stay ops"]


def test_a_billion_ops_are_refused_without_making_any() -> None:
    library = {f"f{level}": calling(f"f{level}", *[f"f{level + 1}"] * 2) for level in range(30)}
    library["f30"] = calling("f30")
    assert calls.Calls(Graph("f0", library)).flat_size().ops == 2**31 - 1
    with pytest.raises(TargetError, match=r"more than 3,000,000 ops .*; analyze a smaller signature"):
        inline(Graph("f0", library))


def test_exponential_nesting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FLAT_OPS_LIMIT", 1000)
    library = {
        f"f{level}": function(
            f"f{level}",
            [Op(side, "PartitionedCall", calls=(Call("call", f"f{level + 1}"),)) for side in ("left", "right")],
            [],
        )
        for level in range(20)
    }
    library["f20"] = function("f20", [Op("leaf", "Relu")], [])
    with pytest.raises(TargetError, match="smaller signature"):
        inline(Graph("f0", library))


@pytest.mark.parametrize(
    ("runtime", "traced"),
    [
        ("while/body/_1/cell/MatMul", "while/body/cell/MatMul"),
        ("cond/then/_139/Relu", "cond/then/Relu"),
        ("StatefulPartitionedCall/a/b", "StatefulPartitionedCall/a/b"),
    ],
)
def test_the_counters_of_lowering_are_dropped(runtime: str, traced: str) -> None:
    assert flat.canonical_name(runtime) == traced


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("StatefulPartitionedCall/StatefulPartitionedCall/net/conv_1/convolution", "net/conv_1"),
        ("StatefulPartitionedCall/net/bn/batchnorm/mul_1", "net/bn"),
        ("dense/MatMul", "dense"),
        ("MatMul", None),
    ],
)
def test_layers_are_scopes_without_call_sites(name: str, layer: str | None) -> None:
    assert flat.layer_of(name) == layer


def test_an_op_without_a_type_does_not_call_the_main_graph() -> None:
    ops = [Op("x", ""), Op("call", "PartitionedCall", calls=(Call("call", ""),)), Op("y", "Relu")]
    graph = inline(Graph("", {"": function("", ops, [("x", "y", 0, 0)])}))
    assert list(graph) == ["x", "call", "y"]


@pytest.mark.parametrize(
    ("lines", "trains"),
    [
        ("v = VarHandleOp() resource[]\na = ResourceApplyGradientDescent(v)", True),
        # Keras 3 writes with ops that anybody has; that there are gradients tells what for.
        ("v = VarHandleOp() resource[]\nadam/a = AssignSubVariableOp(v)\ngradient_tape/net/MatMul = MatMul()", True),
        ("v = VarHandleOp() resource[]\ncounter/a = AssignAddVariableOp(v)\nnet/MatMul = MatMul()", False),
        ("gradient_tape/net/MatMul = MatMul()", False),  # a saliency map: nothing is learned
    ],
)
def test_a_graph_trains_where_an_optimizer_writes_or_gradients_come_with_writes(lines: str, trains: bool) -> None:
    assert flat.is_training(Facts(sketch(f"static\n{lines}"))(judged_graph), None) is trains


LOOP_OVER_A_DATASET = """
    batches = Placeholder() variant[]
    start = Const() float32[]
    w = Placeholder() resource[]
    mul = Mul(start, start) float32[]
    scan = ScanDataset(batches, start, w) variant[] {f: step, Tstate: float32, Targuments: resource}
    loop = ReduceDataset(scan, start) float32[]
    function step:
        state = _Arg() float32[]
        features = _Arg() float32[8,4]
        targets = _Arg() int32[8]
        handle = _Arg() resource[]
        read = ReadVariableOp(handle) float32[4]
        mul = Mul(features, read) float32[8,4]
        less = Less(targets, state) bool[8]
        result = _Retval(mul)
"""


def test_a_loop_over_a_dataset_gives_its_body_the_state_an_element_and_what_it_captures() -> None:
    flat = in_dataset()
    assert flat.predecessors("scan/body/read") == ["w"]
    assert flat.predecessors("scan/body/mul") == ["batches", "scan/body/read"]
    assert flat.predecessors("scan/body/less") == ["batches", "start"]
    assert "scan/body/mul" not in inline(traced_loop()), "it is no part of the program where the runtime enters it not"


def test_ops_in_a_loop_over_a_dataset_are_known_before_those_around_it() -> None:
    assert Names(in_dataset()).find("mul") == "scan/body/mul"
    assert Names(in_dataset()).find("loop") == "loop"


def in_dataset() -> Table:
    return inline(traced_loop(), in_datasets=True)


def traced_loop() -> Graph:
    graph = sketch(LOOP_OVER_A_DATASET).traced
    scan = graph.main.graph.op("scan")
    attrs = {**scan.attrs, "Tstate": ("float32",), "Targuments": ("resource",)}
    called = replace(scan, attrs=attrs, calls=(Call("dataset", "step"),))
    main = replace(graph.main, graph=graph.main.graph.with_ops({"scan": called}))
    return replace(graph, functions={**graph.functions, graph.root: main})
