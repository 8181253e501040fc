"""GraphDefs become DAGs of ops, whatever ops they hold."""

from __future__ import annotations

import contextlib

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_helpers import add_function, edges, graph_def
from oracles import node_counts, saved_model_graphs
from real_inputs import REAL

from graphlens.errors import TargetError
from graphlens.ir.nodes import Call, Edge, TensorSpec
from graphlens.loaders import graphdef
from graphlens.loaders.graphdef import build_graph, build_reachable, parse_graph_def, read_graph_def
from graphlens.loaders.partitions import merge_partitions


def test_inputs_become_data_and_control_edges_with_ports():
    graph = build_graph(graph_def(("a", "Split", ()), ("b", "NoOp", ()), ("c", "AddV2", ("a:1", "a", "^b")))).main.graph
    assert [edge for _, _, edge in graph.edges()] == [
        Edge("data", 1, 0),
        Edge("data", 0, 1),
        Edge("control", None, None),
    ]


def test_a_graph_of_more_ops_than_are_judged_is_refused_with_the_limit(monkeypatch):
    monkeypatch.setattr(graphdef, "OPS_LIMIT", 2)
    two = [("a", "NoOp", ()), ("b", "NoOp", ())]
    assert len(build_graph(graph_def(*two)).main.graph) == 2
    with pytest.raises(TargetError, match="the main graph holds 3 ops, and at most 2 are judged"):
        build_graph(graph_def(*two, ("c", "NoOp", ())))


def test_runtime_names_load():
    graph = build_graph(
        graph_def(("x/_12", "_Recv", ()), ("while/body/_1/y", "_MklNativeConv2D", ("x/_12", "^x/_12")))
    ).main.graph
    assert edges(graph) == {
        ("x/_12", "while/body/_1/y", "data"),
        ("x/_12", "while/body/_1/y", "control"),
    }


def test_known_ops_get_dtypes_shapes_and_defaults():
    message = graph_def(("bn", "FusedBatchNormV3", ()))
    attr = message.node[0].attr
    attr["T"].type, attr["U"].type = 19, 1
    for size in (4, 2, 2, 2, 2, 2):
        attr["_output_shapes"].list.shape.add().dim.add(size=size if size != 4 else -1)
    op = build_graph(message).main.graph.op("bn")
    assert op.outputs[:2] == (TensorSpec("float16", (None,)), TensorSpec("float32", (2,)))
    # SavedModels leave default attributes out: without them, this op would look like inference.
    assert op.attrs["is_training"] is True
    assert op.attrs["epsilon"] == 0.0001
    assert "_output_shapes" not in op.attrs


def test_unknown_ops_keep_what_the_graph_says():
    message = graph_def(("z", "Zorblax>Op", ()))
    message.node[0].attr["_output_shapes"].list.shape.add(unknown_rank=True)
    message.node[0].attr["blob"].s = b"\xff\x00"
    op = build_graph(message).main.graph.op("z")
    assert op.outputs == (TensorSpec("unknown", None),)
    assert op.attrs == {"blob": "\\xff\x00"}


@pytest.mark.parametrize(
    ("written", "decoded"),
    [
        ({"i": 7}, 7),
        ({"b": True}, True),
        ({"f": 0.001}, 0.001),
        ({"s": b"NHWC"}, "NHWC"),
        ({"type": 14}, "bfloat16"),
        ({"type": 101}, "float32"),
        ({"type": 4242}, "dtype4242"),
        ({"placeholder": "T"}, "${T}"),
        ({"list": {"i": [1, 2]}}, (1, 2)),
        ({"list": {"type": [1, 3]}}, ("float32", "int32")),
        ({"list": {}}, ()),
        ({"shape": {"dim": [{"size": -1}, {"size": 3}]}}, (None, 3)),
    ],
)
def test_attributes_are_decoded(written, decoded):
    from tensorboard.compat.proto import attr_value_pb2

    message = graph_def(("z", "Unregistered", ()))
    message.node[0].attr["value"].CopyFrom(attr_value_pb2.AttrValue(**written))
    assert build_graph(message).main.graph.op("z").attrs["value"] == decoded


def test_function_attributes_become_calls_with_roles():
    message = graph_def(
        ("if", "If", ()), ("case", "Case", ()), ("call", "PartitionedCall", ()), ("map", "MapDataset", ())
    )
    message.node[0].attr["then_branch"].func.name = "f"
    message.node[0].attr["else_branch"].func.name = "g"
    for name in ("f", "g"):
        message.node[1].attr["branches"].list.func.add(name=name)
    message.node[2].attr["f"].func.name = "f"
    message.node[3].attr["f"].func.name = "g"
    graph = build_graph(message).main.graph
    # By the names of the attributes: a protobuf hands them out in another order in every process.
    assert graph.op("if").calls == (Call("else", "g"), Call("then", "f"))
    assert graph.op("case").calls == (Call("branch_0", "f"), Call("branch_1", "g"))
    assert graph.op("call").calls == (Call("call", "f"),)
    assert graph.op("map").calls == (Call("dataset", "g"),)


def test_a_function_body_has_its_arguments_and_results_as_ops():
    message = graph_def()
    nodes = [("split", "Split", ("axis", "x")), ("identity", "Identity", ("split:output:1", "^x"))]
    function = add_function(message, "f", nodes, args=("axis", "x"), results={"identity": "identity:output:0"})
    function.node_def[0].attr["num_split"].i = 2
    function.node_def[0].attr["T"].type = 1
    function.control_ret["side"] = "split"
    body = build_graph(message).functions["f"]
    assert body.inputs == ("axis", "x")
    assert body.outputs == ("identity_Retval",), "the result may bear an op's name"
    assert body.control_outputs == ("split",)
    assert body.graph.in_edges("identity")[0][1] == Edge("data", 1, 0)
    assert ("identity", "identity_Retval", "data") in edges(body.graph)


def test_ports_of_unregistered_ops_are_unknown_unless_there_is_one_output():
    message = graph_def()
    nodes = [("many", "Zorblax", ()), ("one", "Zorblax", ()), ("sum", "AddV2", ("many:out:1", "one:out:0"))]
    function = add_function(message, "f", nodes)
    function.node_def[1].attr["_output_shapes"].list.shape.add()
    graph = build_graph(message).functions["f"].graph
    assert graph.in_edges("sum")[0][1].src_port is None
    assert graph.in_edges("sum")[1][1].src_port == 0


def test_only_reachable_functions_are_built():
    message = graph_def(("call", "PartitionedCall", ()))
    message.node[0].attr["f"].func.name = "f"
    add_function(message, "f", [])
    add_function(message, "unused", [])
    assert set(build_reachable(message).functions) == {"", "f"}
    assert set(build_graph(message).functions) == {"", "f", "unused"}


def test_a_missing_function_is_noted_and_a_missing_root_refused():
    message = graph_def(("call", "PartitionedCall", ()))
    message.node[0].attr["f"].func.name = "gone"
    note = "function 'gone' is called but not in the graph: what it does was not judged"
    assert note in build_reachable(message).notes
    assert note in build_graph(message).notes
    with pytest.raises(TargetError, match="no function 'nowhere'"):
        build_reachable(message, "nowhere")


def test_a_loop_becomes_a_dag_by_leaving_out_its_back_edge():
    graph = build_graph(
        graph_def(
            ("enter", "Enter", ()),
            ("merge", "Merge", ("enter", "next")),
            ("body", "AddV2", ("merge", "merge")),
            ("next", "NextIteration", ("body",)),
        )
    )
    assert nx.is_directed_acyclic_graph(graph.main.graph.networkx())
    assert ("next", "merge", "data") not in edges(graph.main.graph)
    assert graph.notes == (), "this is how loops are, no damage"


def test_ops_of_one_name_are_told_apart_by_numbers_however_many_they_are():
    graph = build_graph(graph_def(("a#3", "NoOp", ()), *[("a", "NoOp", ())] * 5))
    assert list(graph.main.graph) == ["a#3", "a", "a#2", "a#4", "a#5", "a#6"]


def test_damage_is_noted_and_counted():
    graph = build_graph(
        graph_def(("a", "Add", ("b", "missing")), ("b", "Add", ("a",)), ("a", "Mul", ()), ("c", "Add", ("gone:1",)))
    )
    assert set(graph.main.graph) == {"a", "b", "a#2", "c"}
    assert sorted(graph.notes) == [
        "the main graph: 1 edges close a cycle and were left out ('b' to 'a')",
        "the main graph: 1 ops share their name with another op and were renamed (a)",
        "the main graph: 2 inputs name ops that do not exist ('missing' read by 'a')",
    ]


NAMES = st.sampled_from(["a", "b", "c", "d/e", "f_1"])
INPUTS = st.builds(str.__add__, st.sampled_from(["", "^"]), st.builds(str.__add__, NAMES, st.sampled_from(["", ":1"])))
NODES = st.tuples(
    NAMES, st.sampled_from(["Add", "Merge", "NextIteration", "Zorblax", "f"]), st.lists(INPUTS, max_size=4)
)


@given(st.lists(NODES, max_size=8), st.lists(NODES, max_size=4))
def test_any_graph_gives_a_dag_that_keeps_every_node(main, body):
    message = graph_def(*main)
    add_function(message, "f", body, args=("a",), results={"r": "a"})
    graph = build_graph(message)
    assert len(graph.main.graph) == len(main)
    assert len(graph.functions["f"].graph) == len(body) + 2
    assert all(nx.is_directed_acyclic_graph(function.graph.networkx()) for function in graph.functions.values())


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=12))
def test_every_input_that_can_be_resolved_is_an_edge(inputs):
    """Inputs name earlier ops only, so that nothing has to be left out."""
    nodes = [(f"n{i}", "Add", tuple(f"n{j % i}" for j in wanted) if i else ()) for i, wanted in enumerate(inputs)]
    graph = build_graph(graph_def(*nodes))
    assert graph.main.graph.number_of_edges == sum(len(wanted) for _, _, wanted in nodes)
    assert graph.notes == ()


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_read(data):
    with contextlib.suppress(TargetError):
        build_graph(parse_graph_def(data, "random.pb"))


def test_text_with_fields_of_a_newer_tensorflow_loads():
    text = b'node { name: "a" op: "Op" shiny_new_field { x: 1 } }'
    assert set(build_graph(parse_graph_def(text, "g.pbtxt")).main.graph) == {"a"}


# -- partitions ---------------------------------------------------------------------------------------------------


def partition(device: str, *nodes: tuple[str, str, tuple[str, ...]]):
    message = graph_def(*nodes)
    for node in message.node:
        node.device = f"/job:localhost/replica:0/task:0/device:{device}"
        if node.op in ("_Send", "_Recv"):
            node.attr["tensor_name"].s = b"edge_1_x"
            node.attr["send_device"].s = b"CPU:0"
            node.attr["recv_device"].s = b"CPU:1"
    return message


def test_partitions_are_joined_at_their_transfers():
    graph = merge_partitions(
        [
            partition("CPU:0", ("x", "Relu", ()), ("x/_1", "_Send", ("x",))),
            partition("CPU:1", ("x/_2", "_Recv", ()), ("y", "Relu", ("x/_2",))),
        ]
    )
    assert ("x/_1", "x/_2", "transfer") in edges(graph.main.graph)
    assert graph.notes == ()


def test_ops_of_equal_name_get_their_device_appended():
    graph = merge_partitions([partition("CPU:0", ("c", "Const", ())), partition("CPU:1", ("c", "Const", ()))])
    assert set(graph.main.graph) == {"c", "c@CPU:1"}
    assert graph.main.graph.op("c@CPU:1").name == "c@CPU:1"


def test_a_receiver_without_sender_is_noted():
    graph = merge_partitions([partition("CPU:1", ("r", "_Recv", ()))])
    assert graph.notes == ("1 receiving ops have no sender in the captured partitions (r)",)


# -- real graphs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "main", "inner"), [("keras_imagenet_gpu.pbtxt", 2853, 106), ("gpu_run_metadata/graph.pbtxt", 31, 0)]
)
def test_real_text_graphs_load_whole(path, main, inner):
    message = read_graph_def(REAL / path)
    graph = build_graph(message)
    assert len(graph.main.graph) == main
    assert node_counts(message.SerializeToString())[:2] == (main, inner)
    assert graph.notes == ()


@pytest.mark.parametrize(
    "path",
    [
        "basic_pitch_savedmodel",
        "tfx_taxi_savedmodel",
        "half_plus_two_gpu_savedmodel/00000123",
        "malformed/bad_node_attr",
        "malformed/negative_shape",
    ],
)
def test_real_saved_models_keep_every_node_and_input(path):
    data = saved_model_graphs((REAL / path / "saved_model.pb").read_bytes())[0]
    graph = build_graph(parse_graph_def(data, path))
    main, inner, functions = node_counts(data)
    assert len(graph.main.graph) == main
    bodies = [function for name, function in graph.functions.items() if name]
    assert len(bodies) == functions
    assert sum(len(body.graph) - len(body.inputs) - len(body.outputs) for body in bodies) == inner
    assert graph.notes == ()
    ports = [edge.src_port for body in bodies for *_, edge in body.graph.edges() if edge.kind == "data"]
    assert None not in ports, "every op of these graphs is registered"


def test_debug_information_in_no_encoding_costs_the_source_lines():
    message = graph_def(("x", "Placeholder", ()))
    trace = b"\x12\x04\x0a\x02\x80x"  # GraphDebugInfo.traces, a map: one entry, whose key is no UTF-8
    message.MergeFromString(b"\x2a" + bytes([len(trace)]) + trace)  # GraphDef.debug_info
    graph = build_graph(message)
    assert list(graph.main.graph) == ["x"]
    assert graph.notes == ("source lines are not known: the debug information names ops in no encoding",)
