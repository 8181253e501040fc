"""The sketch language: what is written is what the evidence holds."""

from __future__ import annotations

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.ledger import ledger, step_time
from graphlens.facts.time.quality import quality
from graphlens.ir.graph import data_inputs
from graphlens.ir.nodes import Call, TensorSpec
from graphlens.testing.sketch import STEPS, SketchError, sketch


def the_op(line: str):
    return sketch(line).traced.main.graph.op("a")


def test_outputs_device_and_attributes() -> None:
    op = the_op(
        "a = Split() float32[2,?] int64[] string[*] @GPU:1 {data_format: NHWC, perm: [0,2,1], flag: false, eps: 1e-3}"
    )
    assert op.type == "Split"
    assert op.outputs == (TensorSpec("float32", (2, None)), TensorSpec("int64", ()), TensorSpec("string"))
    assert op.device.endswith("/device:GPU:1")
    assert op.attrs == {"data_format": "NHWC", "perm": (0, 2, 1), "flag": False, "eps": 0.001}


def test_a_constant_has_values_size_and_digest() -> None:
    constant = the_op("a = Const() int32[3] = 1,2,3").constant
    assert (constant.values, constant.nbytes) == ((1, 2, 3), 12)
    assert the_op("a = Const() float32[9] {digest: d, nbytes: 5}").constant.digest == "d"


def test_equal_elements_make_equal_digests_and_nothing_else_does() -> None:
    graph = sketch("a = Const() int32[2] = 1,2\nb = Const() int32[2] = 1,2\nc = Const() int32[2]\nd = Const() int32[2]")
    digests = [graph.traced.main.graph.op(name).constant.digest for name in "abcd"]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_inputs_have_ports_and_control_dependencies_have_none() -> None:
    graph = sketch("x = A()\ny = B()\nz = C(x:2, ^y, y)").traced.main.graph
    assert [(src, edge.src_port, edge.dst_port) for src, edge in graph.in_edges("z")] == [("x", 2, 0), ("y", 0, 1)]
    assert graph.control_inputs("z") == ["y"]


def test_a_name_that_is_only_read_as_a_variable_is_one() -> None:
    main = sketch("w = ReadVariableOp(kernel) float32[3]").traced.main
    assert data_inputs(main.graph, "w") == ["kernel"]
    assert main.captures["kernel"].spec == TensorSpec("float32", (3,))
    assert main.inputs == ("kernel",)


def test_a_receive_is_joined_to_its_send_by_a_transfer() -> None:
    graph = sketch("x = A()\ns = _Send(x)\nr = _Recv(s) float32[4] @CPU:1").executed.main.graph
    assert dict(graph.out_edges("s"))["r"].kind == "transfer"


def test_a_repeated_line_stands_for_many_ops() -> None:
    assert len(sketch("x = A()\n*3 a# = Relu(x) 2us").traced.main.graph) == 4


def test_functions_are_called_by_name() -> None:
    graph = sketch("x = A()\nc = PartitionedCall(x) {call: f}\nfunction f:\ni = _Arg()\no = _Retval(i)").traced
    assert graph.main.graph.op("c").calls == (Call("call", "f"),)
    assert (graph.functions["f"].inputs, graph.functions["f"].outputs) == (("i",), ("o",))


def test_the_profile_goes_through_the_whole_pipeline_of_facts() -> None:
    facts = Facts(sketch("x = Placeholder() float32[4]\ny = Relu(x) 30us\nz = Tanh(y) 60us x3\ngap: 9us"))
    assert facts(timings).get("y").self_ns == 30_000
    assert facts(timings).get("z").calls_per_step == 3
    assert facts(timings).get("x") is None
    assert facts(step_time).median_ns == 100_000  # 90 us of ops, 9 us of gap, 1 us of dispatch
    assert {row.kind: row.ns for row in facts(ledger) if row.kind == "unattributed"} == {"unattributed": 9_000}
    assert facts(quality).join_rate == 1.0
    assert len(facts(attribution).wall_ns) == STEPS - 1, "the first step is left out as a slow one"


def test_asynchronous_ops_are_waits_and_not_events() -> None:
    profile = sketch("x = A() 1us\ns = _Send(x) 2us\nr = _Recv(s) 40us").profile
    assert {event.node for event in profile.ops} == {"x", "s"}
    assert {span.name for span in profile.waits} == {"r:_Recv"}


def test_an_op_is_not_seen_when_the_sketch_says_so_or_no_profiler_could() -> None:
    facts = Facts(sketch("x = Relu() not-seen\ny = Relu(x)\nz = Identity(y)"))
    assert [facts(timings).get(name) is None for name in "xyz"] == [True, False, True]


def test_devices_run_on_threads_of_their_own() -> None:
    events = sketch("a = A() 1us @CPU:0\nb = B() 1us @CPU:1").profile.ops
    assert len({event.thread for event in events}) == 2


def test_an_accelerator_reports_kernels_and_what_was_received_from_another_memory() -> None:
    profile = sketch(
        """
        x = _Arg() float32[8]
        x/_1 = _Send(x)
        x/_2 = _Recv(x/_1) float32[8] 4us @GPU:0
        y = Relu(x/_2) float32[8] 10us @GPU:0
        up = MemcpyH2D() 2us @GPU:0 {node: Conv2D, bytes: 112}
        """
    ).profile
    assert [(device.name, device.kind) for device in profile.devices] == [("GPU:0", "GPU")]
    assert {(kernel.node, kernel.end_ns - kernel.start_ns) for kernel in profile.kernels_on_device} == {("y", 10_000)}
    first, second = profile.copies[:2]
    assert (first.kind, first.node, first.src, first.dst, first.nbytes) == ("host-to-device", "x/_2", "x", "y", 32)
    assert (second.kind, second.node, second.src, second.nbytes) == ("host-to-device", "Conv2D", "", 112)
    assert len(profile.copies) == 2 * STEPS


def test_processors_report_neither_kernels_nor_copies() -> None:
    profile = sketch("x = A()\ns = _Send(x)\nr = _Recv(s) float32[4] 3us @CPU:1\ny = B(r) @CPU:1").profile
    assert (profile.devices, profile.kernels_on_device, profile.copies) == ((), (), ())


def test_modelled_copies_come_with_a_placement() -> None:
    evidence = sketch(
        "static\nx = A()\nmodelled:\nc = MemcpyD2H() 9us {src: x, dst: y, bytes: 4, reason: shape arithmetic}"
    )
    (copy,) = evidence.placement_copies
    assert (copy.origin, copy.src_device[-5:], copy.reason, copy.ns) == ("modelled", "GPU:0", "shape arithmetic", 9_000)
    assert evidence.placement.copies.device_to_host == 1


def test_static_and_training_and_unprofiled() -> None:
    static = sketch("static\nx = A()")
    assert (static.executed, static.profile, bool(static.static_reason)) == (None, None, True)
    evidence = sketch("training\nunprofiled: 1us 2us\nx = A()")
    assert (evidence.training, evidence.unprofiled_ns) == (True, (1_000, 2_000))


def test_two_sections_make_two_graphs() -> None:
    evidence = sketch(
        "traced:\na = Conv2D()\nb = Relu(a)\nexecuted:\nb = _FusedConv2D() 5us\nunmatched:\ng = Foo() 3us"
    )
    assert set(evidence.traced.main.graph) == {"a", "b"}
    assert set(evidence.executed.main.graph) == {"b"}
    assert {event.node for event in evidence.profile.ops} == {"b", "g"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = Relu(b)", "'a' reads 'b', which no line defines"),
        ("a = A()\na = B()", "'a' is defined twice"),
        ("what is this", "neither an op, a section nor a setting"),
        ("a = A() 30hours", "'30hours' is no dtype"),
        ("gap: long", "'long' is no time"),
    ],
)
def test_what_is_not_understood_is_quoted(text: str, message: str) -> None:
    with pytest.raises(SketchError, match=message):
        sketch(text)
