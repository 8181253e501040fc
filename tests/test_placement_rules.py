"""Each rule of the simulated placer and partitioner on a few ops; without a rule the answer is another one."""

from __future__ import annotations

import pytest
from placement_lab import KERNELS, arrows, devices, netlist, placed, sent

from graphlens.errors import UsageError
from graphlens.facts.placement import Rules, assigned_as_dumped, device_name, table_for
from graphlens.facts.placement.groups import ANYWHERE, DeviceName
from graphlens.ir.nodes import Op

CPU0 = "/job:localhost/replica:0/task:0/device:CPU:0"

# -- kernels -------------------------------------------------------------------------------------------------------


def test_a_kernel_fits_when_all_its_constraints_hold():
    assert KERNELS.kernel(Op("x", "MatMul", attrs={"T": "float32"}), "GPU") is not None
    assert KERNELS.kernel(Op("x", "MatMul", attrs={"T": "int32"}), "GPU") is None
    assert KERNELS.refused(Op("x", "MatMul", attrs={"T": "int32"}), "GPU") == {"T": "int32"}
    assert KERNELS.kernel(Op("x", "MatMul"), "GPU") is None  # an attribute that is not there fits nothing


def test_every_dtype_of_a_list_has_to_fit():
    both = Op("x", "IdentityN", attrs={"T": ("float32", "string")})
    assert KERNELS.kernel(both, "CPU") is not None


def test_a_devices_own_kernel_comes_before_the_default_one():
    own = KERNELS.kernel(Op("x", "Identity", attrs={"T": "float32"}), "GPU")
    shared = KERNELS.kernel(Op("x", "Const", attrs={"dtype": "int32"}), "GPU")
    assert own is not None
    assert own.device == "GPU"
    assert shared is not None
    assert (shared.device, shared.host_arguments) == ("DEFAULT", {"output"})


def test_labelled_kernels_are_for_ops_that_ask_for_them():
    named = Op("x", "KernelLabel", attrs={"_kernel": "overload_1"})
    assert KERNELS.kernel(named, "CPU") is not None
    assert KERNELS.kernel(Op("x", "KernelLabelRequired"), "CPU") is None


def test_a_version_without_a_table_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"TensorFlow 2\.7: GraphLens has the kernels of 2\.21"):
        table_for("2.7.1")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", ANYWHERE),
        ("/job:localhost/replica:0/task:0/device:GPU:0", DeviceName("GPU", 0)),
        ("/device:CPU:0", DeviceName("CPU", 0)),
        ("/gpu:1", DeviceName("GPU", 1)),
        ("GPU", DeviceName("GPU", None)),
        ("/device:GPU:*", DeviceName("GPU", None)),
        ("/job:worker/task:1", ANYWHERE),
    ],
)
def test_device_names(text: str, name: DeviceName):
    assert device_name(text) == name


# -- arguments -----------------------------------------------------------------------------------------------------


def test_arguments_live_where_their_values_are():
    assert devices("""
        image = _Arg() T=float32
        text = _Arg() T=string
        label = _Arg() T=int32
        weight = _Arg() T=resource _handle_dtypes=float32
        counter = _Arg() T=resource _handle_dtypes=int32
        table = _Arg() T=resource
    """) == {"image": "GPU", "text": "CPU", "label": "CPU", "weight": "GPU", "counter": "CPU", "table": "CPU"}


def test_a_handle_without_a_dtype_is_known_by_its_reader():
    text = "v = _Arg() T=resource\nalias = Identity(v) T=resource\nread = ReadVariableOp(alias) dtype=float32"
    assert devices(text) == {"v": "GPU", "alias": "GPU", "read": "GPU"}


LOOP = f"""
    n = _Arg() T=int32
    x = _Arg() T=float32
    enter_n = Enter(n) T=int32 @{CPU0}
    enter_x = Enter(x) T=float32 @{CPU0}
    merge_n = Merge(enter_n, next_n) T=int32 N=2 @{CPU0}
    merge_x = Merge(enter_x, next_x) T=float32 N=2 @{CPU0}
    limit = Const() dtype=int32
    less = Less(merge_n, limit) T=int32
    again = LoopCond(less)
    switch_n = Switch(merge_n, again) T=int32 @{CPU0}
    switch_x = Switch(merge_x, again) T=float32 @{CPU0}
    grown = Exp(switch_x:1) T=float32
    next_n = NextIteration(switch_n:1) T=int32 @{CPU0}
    next_x = NextIteration(grown) T=float32 @{CPU0}
    exit_x = Exit(switch_x) T=float32 @{CPU0}
"""


def test_lowered_loops_are_where_their_argument_is():
    found = devices(LOOP)
    assert {found[f"{op}_n"] for op in ("enter", "merge", "switch", "next")} == {"CPU"}
    assert {found[f"{op}_x"] for op in ("enter", "merge", "switch", "next", "exit")} == {"GPU"}


def test_a_dump_of_a_machine_with_a_gpu_says_where_arguments_are():
    net = netlist("x = _Arg() T=float32 @/device:CPU:0\ny = _Arg() T=float32 @/device:GPU:0")
    assert assigned_as_dumped(net) == {"x": "CPU", "y": "GPU"}


# -- groups and requests -------------------------------------------------------------------------------------------


def test_an_op_without_a_kernel_runs_on_the_host():
    found = placed("x = _Arg() T=float32\nd = EncodePng(x) T=uint8\nr = Relu(x) T=float32")
    assert (found["d"].device, found["d"].cause) == ("CPU", "no-kernel")
    assert (found["r"].device, found["r"].cause) == ("GPU", "default")


def test_ops_that_nobody_registered_run_on_the_host():
    assert placed("x = MyOwnOp()")["x"].device == "CPU"


def test_users_of_a_resource_go_where_it_is():
    text = """
        table = _Arg() T=resource
        keys = _Arg() T=int64
        default = _Arg() T=int64
        find = LookupTableFindV2(table, keys, default) Tin=int64 Tout=int64
        v = VarHandleOp() dtype=float32 @/device:CPU:0
        read = ReadVariableOp(v) dtype=float32 @/device:GPU:0
    """
    found = placed(text)
    assert found["find"].device == "CPU"
    assert (found["read"].device, found["read"].cause, found["read"].culprit) == ("CPU", "group", "v")
    assert devices(text, Rules(colocation=False))["read"] == "GPU"


def test_an_explicit_device_is_followed_where_there_is_a_kernel():
    text = """
        x = _Arg() T=float32
        a = Relu(x) T=float32 @/device:CPU:0
        b = EncodePng(x) T=uint8 @/device:GPU:0
        c = Relu(x) T=float32 @/device:GPU:7
    """
    found = placed(text)
    assert {name: (item.device, item.cause) for name, item in found.items() if name in "abc"} == {
        "a": ("CPU", "requested"),
        "b": ("CPU", "no-kernel"),
        "c": ("GPU", "default"),
    }
    assert devices(text, Rules(requests=False))["a"] == "GPU"


def test_a_class_keeps_ops_together_where_one_device_holds_both():
    text = """
        x = _Arg() T=float32
        a = Relu(x) T=float32 @/device:CPU:0
        b = Exp(x) T=float32 _class=loc:@a
        png = EncodePng(x) T=uint8
        c = Exp(x) T=float32 _class=loc:@png
    """
    found = placed(text)
    assert (found["b"].device, found["b"].culprit) == ("CPU", "a")
    assert (found["c"].device, found["c"].cause, found["c"].culprit) == ("CPU", "group", "png")
    assert devices(text, Rules(colocation=False))["b"] == "GPU"


def test_contradicting_requests_in_a_class_are_dropped():
    text = """
        x = _Arg() T=float32
        a = Relu(x) T=float32 @/device:CPU:0
        b = Exp(x) T=float32 @/device:GPU:0 _class=loc:@a
    """
    assert devices(text) == {"x": "GPU", "a": "GPU", "b": "GPU"}


# -- heuristics ----------------------------------------------------------------------------------------------------


def test_shapes_are_taken_where_the_tensor_is():
    text = "x = _Arg() T=string\nshape = Shape(x) T=string out_type=int32\nsize = Size(x) T=string out_type=int32"
    found = placed(text)
    assert (found["shape"].device, found["shape"].cause, found["shape"].culprit) == ("CPU", "follows-input", "x")
    assert devices(text, Rules(metadata=False))["shape"] == "GPU"


def test_a_plain_identity_stays_with_its_input():
    text = "x = _Arg() T=int32\nsame = Identity(x) T=int32\ny = Cast(same) SrcT=int32 DstT=float32"
    assert devices(text)["same"] == "CPU"
    assert devices(text, Rules(identity=False))["same"] == "GPU"


@pytest.mark.parametrize(
    "more",
    [
        "z = Neg(same) T=int32",  # a second reader
        "z = NoOp(^same)",  # a control dependency counts as one
    ],
)
def test_an_identity_with_two_readers_does_not(more: str):
    text = f"x = _Arg() T=int32\nsame = Identity(x) T=int32\ny = Cast(same) SrcT=int32 DstT=float32\n{more}"
    assert devices(text)["same"] == "GPU"


def test_an_identity_without_readers_stays_with_its_input():
    assert devices("x = _Arg() T=int32\nsame = Identity(x) T=int32")["same"] == "CPU"


def test_constants_go_to_their_readers_when_these_agree():
    text = """
        texts = _Arg() T=string
        pattern = Const() dtype=string
        axis = Const() dtype=int32
        joined = ReduceJoin(texts, axis)
        both = Const() dtype=int32
        more = ReduceJoin(texts, both)
        x = _Arg() T=float32
        sum = Sum(x, both) T=float32 Tidx=int32
    """
    found = placed(text)
    assert (found["axis"].device, found["axis"].cause, found["axis"].culprit) == ("CPU", "follows-readers", "joined")
    assert found["both"].device == "GPU"
    assert devices(text, Rules(generators=False))["axis"] == "GPU"


def test_nothing_is_placed_where_it_has_no_kernel():
    for text in (LOOP, "x = _Arg() T=float32\nd = EncodePng(x) T=uint8\ns = Shape(d) T=string out_type=int64"):
        for name, device in devices(text).items():
            op = next(op for op in netlist(text).ops if op.name == name)
            assert KERNELS.kernel(op, device) is not None, name


# -- transfers -----------------------------------------------------------------------------------------------------

SHAPE_ARITHMETIC = """
    x = _Arg() T=float32
    shape = Shape(x) T=float32 out_type=int32
    axes = Const() dtype=int32
    axis = Const() dtype=int32
    dims = GatherV2(shape, axes, axis) Tparams=int32 Tindices=int32 Taxis=int32
    rest = Const() dtype=int32
    all = ConcatV2(dims, rest, axis) T=int32 N=2 Tidx=int32
    y = Reshape(x, all) T=float32 Tshape=int32
"""


def test_host_arguments_cross_although_both_ops_are_on_the_gpu():
    assert set(devices(SHAPE_ARITHMETIC).values()) == {"GPU"}
    assert arrows(SHAPE_ARITHMETIC) == [
        "shape -> dims host-to-device",
        "axes -> dims host-to-device",
        "dims -> all device-to-host",
    ]
    without = Rules(host_arguments=False)
    assert "dims -> all device-to-host" not in arrows(SHAPE_ARITHMETIC, without)


def test_a_tensor_crosses_once_for_all_its_readers():
    text = """
        n = _Arg() T=int32
        a = Cast(n) SrcT=int32 DstT=float32
        b = Cast(n) SrcT=int32 DstT=float16
        c = Neg(n) T=int32
    """
    assert arrows(text) == ["n -> a+b host-to-device", "n -> c host-to-host"]
    assert len(arrows(text, Rules(deduplication=False))) == 3


def test_a_control_dependency_between_devices_is_a_wait():
    text = "t = _Arg() T=string\np = PrintV2(t)\nx = _Arg() T=float32\ny = Relu(x, ^p) T=float32"
    assert [(item.kind, item.src_port, item.dtype) for item in sent(text)] == [("control", -1, None)]


def test_marked_arguments_are_in_host_memory():
    text = "x = _Arg() T=float32\ny = Identity(x) T=float32 _output_hostmem=0|0\nz = Relu(y) T=float32"
    assert arrows(text) == ["y -> z host-to-device"]


def test_resources_and_strings_never_leave_the_host():
    text = "v = VarHandleOp() dtype=float32\nread = ReadVariableOp(v) dtype=float32"
    assert set(devices(text).values()) == {"GPU"}
    assert arrows(text) == []


def test_a_loop_sends_its_condition_and_what_its_counter_says():
    assert arrows(LOOP) == ["merge_n -> less host-to-host", "again -> switch_n host-to-host"]


def test_the_way_back_of_a_loop_is_an_edge_too():
    text = """
        start = Const() dtype=float32
        enter = Enter(start) T=float32
        merge = Merge(enter, next) T=float32 N=2
        next = NextIteration(merge) T=float32 @/device:CPU:0
    """
    assert arrows(text) == ["next -> merge host-to-device", "merge -> next device-to-host"]


def test_the_other_side_of_a_loop_is_told_how_it_decides():
    text = f"""
        x = _Arg() T=float32
        enter = Enter(x) T=float32 frame_name=while @{CPU0}
        merge = Merge(enter, next) T=float32 N=2 @{CPU0}
        enough = IsFinite(merge) T=float32
        again = LoopCond(enough)
        switch = Switch(merge, again) T=float32 @{CPU0}
        text = AsString(switch:1) T=float32
        next = NextIteration(switch:1) T=float32 @{CPU0}
    """
    told = "again ->  host-to-host"  # only the partitioner's own loop on the host reads it
    assert told in arrows(text)
    assert told not in arrows(text, Rules(loops=False))
