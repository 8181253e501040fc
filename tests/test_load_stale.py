"""A file whose weights were replaced annotates the shapes of the old ones: those of the weights hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import text_format
from tensorboard.compat.proto import graph_pb2

from graphlens.facts.core import Facts
from graphlens.facts.rows.op_rows import shape_costs
from graphlens.ir.evidence import Evidence, Target
from graphlens.ir.graph import Function, Graph, Variable
from graphlens.ir.nodes import Constant, TensorSpec
from graphlens.loaders.graphdef import build_graph
from graphlens.loaders.stale import corrected_where_bound


def graph_of(*nodes: str) -> Graph:
    """Read nodes of ``name op(inputs) [annotated shape] attributes``."""
    return build_graph(text_format.Parse("".join(nodes), graph_pb2.GraphDef()))


def node(name: str, op: str, inputs: str = "", annotated: tuple[int, ...] | None = None, attrs: str = "") -> str:
    read = "".join(f'input: "{source}" ' for source in inputs.split())
    shapes = f'attr {{ key: "_output_shapes" value {{ list {{ {shape(annotated)} }} }} }}' if annotated else ""
    types = "".join(f'attr {{ key: "{key}" value {{ type: DT_FLOAT }} }}' for key in ("T", "dtype"))
    return f'node {{ name: "{name}" op: "{op}" {read}{shapes} {types} {attrs} }}\n'


def shape(sizes: tuple[int, ...]) -> str:
    return f"shape {{ {' '.join(f'dim {{ size: {size} }}' for size in sizes)} }}"


def constant(name: str, *sizes: int) -> str:
    value = f"tensor {{ dtype: DT_FLOAT tensor_{shape(sizes)} float_val: 1 }}"
    return f"""node {{ name: "{name}" op: "Const" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }}
        attr {{ key: "value" value {{ {value} }} }} }}\n"""


VARIABLE = f'attr {{ key: "shape" value {{ {shape((1, 1, 4, 4))} }} }}'
IMAGE = node("x", "Placeholder", annotated=(1, 10, 10, 4))


def outputs(graph: Graph) -> dict[str, Any]:
    return {op.name: op.outputs[0].shape for op in graph.main.graph.ops() if op.outputs}


def flops(graph: Graph) -> dict[str, int | None]:
    facts = Facts(Evidence(Target("x", "graph_def"), traced=graph))
    return dict(zip(graph.main.graph, (cost.flops for cost in facts(shape_costs)), strict=True))


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(constant("w", 1, 1, 4, 4) + node("r", "Identity", "w", (1, 1, 3, 4)), id="a constant"),
        pytest.param(
            constant("w", 1, 1, 4, 4)
            + node("i", "Identity", "w", (1, 1, 3, 4))
            + node("r", "StopGradient", "i", (1, 1, 3, 4)),
            id="a constant that is handed on twice",
        ),
        pytest.param(
            node("w", "VariableV2", attrs=VARIABLE) + node("r", "Identity", "w", (1, 1, 3, 4)), id="a variable"
        ),
        pytest.param(
            node("w", "VarHandleOp", attrs=VARIABLE) + node("r", "ReadVariableOp", "w", (1, 1, 3, 4)),
            id="a resource variable",
        ),
    ],
)
def test_four_channels_in_the_weights_win_over_three_that_are_annotated(weights: str) -> None:
    graph = graph_of(IMAGE, weights, node("y", "Conv2D", "x r", (1, 10, 10, 4)))
    assert outputs(graph)["r"] == (1, 1, 4, 4)
    assert flops(graph)["y"] == 2 * (10 * 10) * 4 * 4  # 3,200: pixels x channels in x channels out
    (note,) = graph.notes
    assert note.startswith("the main graph: annotated shapes contradict the weights, which hold (")
    assert note.endswith(" says float32[1,1,3,4], and is float32[1,1,4,4])")


def test_what_follows_from_the_weights_is_corrected_too() -> None:
    """Four channels out where three are annotated: as far as arithmetic tells, and unknown beyond."""
    graph = graph_of(
        IMAGE,
        constant("w", 1, 1, 4, 4),
        constant("b", 4),
        node("r", "Identity", "w", (1, 1, 4, 3)),
        node("conv", "Conv2D", "x r", (1, 10, 10, 3)),
        node("sum", "BiasAdd", "conv b", (1, 10, 10, 3)),
        node("relu", "Relu", "sum", (1, 10, 10, 3)),
        node("scaled", "Mul", "relu b", (1, 10, 10, 3)),
        node("pool", "MaxPool", "scaled", (1, 5, 5, 3)),
        node("other", "Relu", "x", (1, 10, 10, 4)),
    )
    found = outputs(graph)
    assert {found[name] for name in ("conv", "sum", "relu", "scaled")} == {(1, 10, 10, 4)}
    assert found["pool"] is None
    assert found["other"] == (1, 10, 10, 4)


def test_a_product_and_a_depthwise_convolution_follow_their_weights() -> None:
    graph = graph_of(
        IMAGE,
        constant("w", 3, 3, 4, 2),
        node("r", "Identity", "w", (3, 3, 4, 1)),
        node("depthwise", "DepthwiseConv2dNative", "x r", (1, 10, 10, 4)),
        node("rows", "Placeholder", annotated=(5, 7)),
        constant("m", 7, 9),
        node("s", "Identity", "m", (7, 8)),
        node("product", "MatMul", "rows s", (5, 8)),
    )
    assert outputs(graph)["depthwise"] == (1, 10, 10, 8)
    assert outputs(graph)["product"] == (5, 9)


@pytest.mark.parametrize("told", [(1, 1, 4, 4), (1, 1, -1, 4)], ids=["the same", "less"])
def test_annotations_that_agree_are_left_alone(told: tuple[int, ...]) -> None:
    graph = graph_of(IMAGE, constant("w", 1, 1, 4, 4), node("r", "Identity", "w", told), node("y", "Conv2D", "x r"))
    assert outputs(graph)["r"] == tuple(None if size < 0 else size for size in told)
    assert graph.notes == ()


def test_the_scalar_that_old_files_write_for_an_unknown_shape_is_no_weight() -> None:
    unknown = 'attr { key: "shape" value { shape { } } }'
    graph = graph_of(node("w", "VariableV2", attrs=unknown), node("r", "Identity", "w", (4, 4)))
    assert outputs(graph)["r"] == (4, 4)


def test_the_variable_or_constant_that_an_argument_is_bound_to_wins() -> None:
    """A function reads a variable and a captured tensor, each of four channels, and annotates three."""
    table = graph_of(
        node("w", "_Arg"),
        node("c", "_Arg"),
        node("r", "ReadVariableOp", "w", (1, 3)),
        node("i", "Identity", "c", (2, 3)),
    ).main.graph
    held = replace(table.op("c"), outputs=(TensorSpec("float32", (2, 4)),), constant=Constant(32, None))
    variable = Variable("kernel", TensorSpec("float32", (1, 4)))
    function = Function("f", table.with_ops({"c": held}), captures={"w": variable})
    graph = corrected_where_bound(Graph("f", {"f": function}))
    assert (outputs(graph)["r"], outputs(graph)["i"]) == ((1, 4), (2, 4))
    assert [note.partition(":")[0] for note in graph.notes] == ["function 'f'"]
