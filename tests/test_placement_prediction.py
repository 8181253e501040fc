"""What is said of a simulated placement: copies with bytes, time, count and reason, islands, changes, limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from placement_lab import KERNELS, function_of, netlist

from graphlens.errors import UsageError
from graphlens.facts.placement import assigned_on_gpu, changes, limits, netlist_of, pinning, place, prediction
from graphlens.facts.placement.counts import Executions, loops
from graphlens.facts.placement.gpus import GPUS, PCIE_LATENCY_NS, gpu_named
from graphlens.facts.placement.prediction import Simulated
from graphlens.ir.devices import Copy
from graphlens.ir.graph import Function
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.run import ReplayRecord

A100 = GPUS["A100"]

LOOKUP = """
    table = _Arg() T=resource
    words = _Arg() T=string
    default = Const() dtype=int64
    find = LookupTableFindV2(table, words, default) Tin=string Tout=int64
    weights = _Arg() T=resource _handle_dtypes=float32
    rows = ResourceGather(weights, find) dtype=float32 Tindices=int64
    result = _Retval(rows) T=float32
"""


def simulated(text: str, shapes: dict[str, tuple[int, ...]] | None = None) -> Simulated:
    """Place the graph of ``text``; ``shapes`` says the first output's of some ops."""
    function = _with_shapes(function_of(text), shapes or {})
    net = netlist_of(function)
    placed = place(net, KERNELS, assigned_on_gpu(net))
    return Simulated(net, placed, function, {name: item.device for name, item in placed.items()}, KERNELS)


def _with_shapes(function: Function, shapes: dict[str, tuple[int, ...]]) -> Function:
    ops = {name: function.graph.op(name) for name in shapes}
    shaped = {name: replace(op, outputs=(TensorSpec(op.outputs[0].dtype, shapes[name]),)) for name, op in ops.items()}
    return replace(function, graph=function.graph.with_ops(shaped))


def only(found: tuple[Copy, ...]) -> Copy:
    """The one copy there is."""
    (copy,) = found
    return copy


# -- copies --------------------------------------------------------------------------------------------------------


def test_a_copy_has_bytes_time_and_reason():
    copy = only(prediction.copies(simulated(LOOKUP, {"find": (32, 20)}), A100, {}))
    assert (copy.src, copy.dst, copy.kind) == ("find", "rows", "host-to-device")
    assert (copy.tensor, copy.bytes, copy.calls_per_step) == ("int64[32,20]", 5120, 1)
    assert copy.ns == PCIE_LATENCY_NS + round(5120 / 31.5e9 * 1e9)
    assert (copy.origin, copy.reason, copy.at_fault) == ("modelled", "string/resource op", "find")
    assert copy.src_device.endswith("CPU:0")
    assert copy.dst_device.endswith("GPU:0")


def test_a_size_that_is_not_known_is_not_guessed():
    copy = only(prediction.copies(simulated(LOOKUP), A100, {}))
    assert (copy.bytes, copy.ns) == (None, None)
    counted = prediction.count([copy])
    assert (counted.host_to_device, counted.bytes, counted.ns) == (1, None, None)


REASONS = {
    "feed": "n = _Arg() T=int32\ny = Cast(n) SrcT=int32 DstT=float32",
    "explicit device": "x = _Arg() T=float32\na = Relu(x) T=float32 @/device:CPU:0\nb = Exp(a) T=float32",
    "shape arithmetic": (
        "x = _Arg() T=float32\ns = Shape(x) T=float32 out_type=int32\n"
        "i = Const() dtype=int32\ng = GatherV2(s, i, i) Tparams=int32 Tindices=int32 Taxis=int32"
    ),
    "int32/host-memory argument": "x = _Arg() T=int64\nf = Fill(x, x) T=int64 index_type=int64",
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_copy_says_why(reason: str):
    found = prediction.copies(simulated(REASONS[reason]), A100, {})
    assert reason in {copy.reason for copy in found}


def test_the_host_argument_is_named():
    copy = next(iter(prediction.copies(simulated(REASONS["int32/host-memory argument"]), A100, {})))
    assert copy.detail is not None
    assert "`dims`" in copy.detail


LOOP = """
    n = Const() dtype=float32
    enter = Enter(n) T=float32 frame_name=outer
    merge = Merge(enter, next) T=float32 N=2
    less = Less(merge, merge) T=float32
    go = LoopCond(less)
    switch = Switch(merge, go) T=float32
    host = Exp(switch:1) T=float32 @/device:CPU:0
    next = NextIteration(host) T=float32
    exit = Exit(switch) T=float32
    after = Relu(exit) T=float32
"""


def test_copies_in_a_loop_run_once_an_iteration():
    seen = {"less": ReplayRecord("less", 4, (1,)), "host": ReplayRecord("host", 3, (1,), (("float32", (2,)),))}
    found = {(copy.src, copy.dst): copy for copy in prediction.copies(simulated(LOOP, {"host": (2,)}), A100, seen)}
    assert found["host", "next"].calls_per_step == 3
    assert found["less", "go"].calls_per_step == 4
    counted = prediction.count(found.values())
    assert (counted.host_to_device, counted.device_to_host) == (3, 4 + 4)  # back in; the condition, and into `host`


def test_of_a_loop_that_nobody_saw_the_count_is_not_known():
    counts = Executions(netlist(LOOP), {})
    assert (counts.of("host"), counts.of("after"), counts.of("n")) == (None, 1, 1)
    assert dict(zip((op.name for op in netlist(LOOP).ops), loops(netlist(LOOP)), strict=True))["exit"] == ("outer",)


def test_the_body_of_a_loop_that_was_not_lowered_is_in_it():
    text = "x = Const() dtype=float32\nw = While(x)\nw/body/y = Relu(x) T=float32\nz = Relu(x) T=float32"
    assert loops(netlist(text)) == [(), (), ("w",), ()]


# -- ops and islands -----------------------------------------------------------------------------------------------


def test_every_op_on_the_host_says_why():
    ops = {op.name: op for op in prediction.placed_ops(simulated(LOOKUP))}
    assert ops["rows"].why == ""
    assert ops["words"].why == "string values are kept in host memory"
    assert ops["table"].why == "what it refers to is on the host"
    assert ops["find"].why.startswith("find (LookupTableFindV2) works on strings")
    assert ops["default"].why == "it stays with find"


def test_what_works_on_the_host_is_an_island():
    text = """
        x = _Arg() T=float32
        a = Relu(x) T=float32 @/device:CPU:0
        b = Exp(a) T=float32 @/device:CPU:0
        c = Neg(b) T=float32
        n = _Arg() T=int32
    """
    placed = simulated(text)
    (island,) = prediction.islands(placed, prediction.copies(placed, A100, {}))
    assert island.ops == ("a", "b")
    assert (island.reason, island.copies) == ("explicit device", 2)
    assert island.why == "a is placed on /device:CPU:0 by name"


# -- changes -------------------------------------------------------------------------------------------------------


def tried(text: str, fed: dict[str, TensorSpec] | None = None) -> dict[str, changes.Trial]:
    """The changes that apply to the graph of ``text``."""
    placed = simulated(text)
    found = prediction.copies(placed, A100, {})
    return {trial.change: trial for trial in changes.trials(placed.before, placed.placed, found, fed or {})}


def test_a_lookup_can_go_outside():
    trial = tried(LOOKUP)["lookup-outside"]
    assert trial.cut == ("find",)
    net = trial.netlist
    assert place(net, KERNELS, assigned_on_gpu(net))["find"].device == "GPU"
    assert not net.into[net.index["find"]]


def test_an_explicit_host_device_can_be_removed():
    trial = tried("x = _Arg() T=float32\na = Relu(x) T=float32 @/device:CPU:0\nb = Exp(a) T=float32")["move-device"]
    assert "a" in trial.words
    net = trial.netlist
    assert place(net, KERNELS, assigned_on_gpu(net))["a"].device == "GPU"


def test_open_shapes_can_be_fixed_to_those_of_the_run():
    text = "n = _Arg() T=int32\ny = Cast(n) SrcT=int32 DstT=float32"
    trial = tried(text, {"n": TensorSpec("int32", (8, 16))})["static-batch"]
    assert trial.shapes == {"n": (8, 16)}
    assert trial.snippet == "@tf.function(input_signature=[tf.TensorSpec((8, 16), tf.int32)])"


def test_nothing_is_changed_where_nothing_is_copied():
    assert tried("x = _Arg() T=float32\ny = Relu(x) T=float32") == {}


def test_small_constants_stay_on_the_host_when_all_readers_take_them_there():
    text = """
        x = _Arg() T=float32
        axis = Const() dtype=int64
        mean = Mean(x, axis) T=float32 Tidx=int64
        used = Const() dtype=float32
        sum = AddV2(x, used) T=float32
    """
    placed = simulated(text, {"axis": (1,), "used": ()})
    moved = pinning.with_pinned_constants(placed.netlist, placed.devices, KERNELS)
    assert {name for name in moved if moved[name] != placed.devices[name]} == {"axis"}


# -- devices and limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "name"), [("gpu", "A100"), ("gpu:t4", "T4"), ("GPU:H100", "H100")])
def test_devices_by_name(asked: str, name: str):
    assert gpu_named(asked).name == name


@pytest.mark.parametrize("asked", ["tpu", "gpu:K80", "", "cpu:A100"])
def test_other_devices_are_refused_with_those_there_are(asked: str):
    with pytest.raises(UsageError, match="gpu:A100, gpu:H100, gpu:L4, gpu:T4, gpu:V100"):
        gpu_named(asked)


def test_limits_name_what_this_graph_meets():
    said = limits.not_covered(simulated("x = _Arg() T=float32\nw = While(x) T=float32\no = MyOp(x)"), ())
    assert any("While" not in line and "(w)" in line for line in said)
    assert any("MyOp" in line for line in said)
    assert said[-len(limits.ALWAYS) :] == limits.ALWAYS


INPUTS = """
x = _Arg() index=0 T=float32
ids = _Arg() index=1 T=int32
w = _Arg() index=2 T=resource _handle_dtypes=("float32",)
c = _Arg() index=3 T=float32
y = AddV2(x, c) T=float32
"""


def test_inputs_that_are_taken_to_be_on_the_device_are_told_with_what_copying_them_costs():
    """Of four arguments: the integers are in host memory anyway, and neither a variable nor a constant is fed."""
    fed = (TensorSpec("float32", (1000, 1000)), TensorSpec("int32", (8,)))
    (said,) = limits.assumed(simulated(INPUTS, {"x": (1000, 1000)}), fed, A100)
    assert said.startswith("1 input (x) is taken to be on the device when the step starts; handed over as an array")
    assert said.endswith("1 copy more a step, 3.81 MiB and 129 us")  # 4 MB at 31.5 GB/s, and 2.5 us for any copy


def test_of_inputs_of_unknown_size_no_cost_is_told():
    (said,) = limits.assumed(simulated("x = _Arg() index=0 T=float32"), (TensorSpec("float32", None),), A100)
    assert said.endswith("1 copy more a step")


def test_nothing_is_assumed_where_all_inputs_are_in_host_memory():
    fed = (TensorSpec("int32", (8,)),)
    assert limits.assumed(simulated("ids = _Arg() index=0 T=int32"), fed, A100) == ()
