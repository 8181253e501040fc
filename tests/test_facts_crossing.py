"""Why a tensor crosses: every reason of the closed list, from the least that proves it."""

from __future__ import annotations

from typing import get_args

import pytest

from graphlens.facts.copies.memcpy_causes import OFFLOADED
from graphlens.facts.crossing import UNKNOWN, Crossing, End, Memory, cause_of, device_kind, shape_ops
from graphlens.facts.placement.kernels import Kernel, KernelTable
from graphlens.facts.placement.registry import GpuKernels
from graphlens.ir.devices import CopyReason
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.testing.sketch import sketch

CPU, GPU = "/job:localhost/replica:0/task:0/device:CPU:0", "/job:localhost/replica:0/task:0/device:GPU:0"
FLOATS, INTS = TensorSpec("float32", (4, 8)), TensorSpec("int32", (8,))


# A registry of four ops: Relu has a float32 kernel, Fill reads its first argument on the host, Bucketize has none.
# GatherV2 takes either kind of index, but bool by int64 only.
FEW = GpuKernels(
    KernelTable(
        "2.21",
        {
            "Relu": (Kernel("GPU", (("T", frozenset({"float32"})),), frozenset(), 0, ""),),
            "Fill": (Kernel("GPU", (), frozenset({"dims"}), 0, ""),),
            "Bucketize": (Kernel("CPU", (), frozenset(), 0, ""),),
            "GatherV2": tuple(
                Kernel("GPU", (("Tindices", frozenset({index})), ("Tparams", frozenset({of}))), frozenset(), 0, "")
                for index, of in [("int32", "float32"), ("int64", "float32"), ("int64", "bool")]
            ),
        },
    )
)


def end(op_type: str, memory: Memory = "device", device: str = "", name: str = "", **more) -> End:
    attrs = more.pop("attrs", {})
    outputs = more.pop("outputs", ())
    op = Op(name or op_type.lower(), op_type, attrs=attrs, outputs=outputs)
    return End(op, memory, device or (CPU if memory == "host" else GPU), **more)


ON_HOST: Memory = "host"
CASES = {
    "feed": Crossing(end("_Arg", ON_HOST, name="image"), end("Conv2D"), FLOATS),
    "feed: an iterator": Crossing(end("IteratorGetNext", ON_HOST), end("Conv2D"), FLOATS),
    "fetch": Crossing(end("Relu"), end("_Retval", ON_HOST), FLOATS),
    "cross-replica": Crossing(
        end("Relu", name="a/Relu"), end("AddN", device=GPU[:-1] + "1", name="replica_1/a/AddN"), FLOATS
    ),
    "Python op": Crossing(end("EagerPyFunc", ON_HOST), end("Relu"), FLOATS),
    "string/resource op: a table": Crossing(end("LookupTableFindV2", ON_HOST), end("GatherV2"), TensorSpec("int64")),
    "string/resource op: its output": Crossing(
        end("Relu"), end("AsText", ON_HOST, outputs=(TensorSpec("string"),)), FLOATS
    ),
    "no kernel for this device and dtype": Crossing(end("Relu"), end("Bucketize", ON_HOST), FLOATS),
    "no kernel for this device and dtype: others have one": Crossing(
        end("Relu", ON_HOST, attrs={"T": "int32"}), end("Tanh"), INTS
    ),
    "no kernel for this device and dtype: of its group": Crossing(
        end("Relu"), end("Tanh", ON_HOST, held_by=Op("table", "Bucketize")), FLOATS
    ),
    "explicit device": Crossing(end("Relu"), end("Tanh", ON_HOST, requested="/CPU:0"), FLOATS),
    "explicit device: between equals": Crossing(
        end("Relu", ON_HOST), end("Tanh", ON_HOST, CPU[:-1] + "1", requested="/CPU:1"), FLOATS
    ),
    "shape arithmetic": Crossing(end("Shape", ON_HOST, GPU), end("GatherV2"), INTS, is_shape=True),
    "int32/host-memory argument": Crossing(end("Relu"), end("Tile", ON_HOST, GPU), INTS),
    "int32/host-memory argument: on the host": Crossing(end("Relu"), end("Fill", ON_HOST, port=0), INTS),
    "constant on the host": Crossing(end("Const", ON_HOST), end("AddV2"), FLOATS),
}


@pytest.mark.parametrize("title", CASES)
def test_a_reason_and_the_op_at_fault(title: str) -> None:
    cause = cause_of(CASES[title], FEW)
    assert cause.reason == title.partition(":")[0]
    assert cause.detail
    assert cause.at_fault in cause.detail


def test_there_is_a_case_for_every_reason() -> None:
    # What a compiled program keeps in host memory is no edge between two ops: its own tests are those of TPUs.
    assert {title.partition(":")[0] for title in CASES} == set(get_args(CopyReason)) - {OFFLOADED}


def test_a_missing_kernel_is_named_with_the_types_that_have_one() -> None:
    cause = cause_of(CASES["no kernel for this device and dtype: others have one"], FEW)
    assert cause.detail == "relu (Relu) has no GPU kernel for T=int32 (there is one for T: float32)"
    cause = cause_of(CASES["no kernel for this device and dtype"], FEW)
    assert cause.detail == "bucketize (Bucketize) has no GPU kernel for any type"


@pytest.mark.parametrize(
    ("attrs", "told"),
    [
        ({"Taxis": "int32", "Tindices": "int64", "Tparams": "string"}, "Tparams=string (there is one for Tparams: "),
        ({"Taxis": "int32", "Tindices": "int32", "Tparams": "variant"}, "Tparams=variant (there is one for Tparams: "),
        ({"Tindices": "int16", "Tparams": "bool"}, "Tindices=int16 (there is one for Tindices: int32, int64)"),
        ({"Tindices": "int32", "Tparams": "bool"}, "Tparams=bool, Tindices=int32 (there is one for "),
    ],
    ids=["text", "a variant", "the index", "neither alone"],
)
def test_only_the_types_that_no_kernel_takes_are_at_fault(attrs: dict[str, str], told: str) -> None:
    cause = cause_of(Crossing(end("Relu"), end("GatherV2", ON_HOST, attrs=attrs), FLOATS), FEW)
    assert f"gatherv2 (GatherV2) has no GPU kernel for {told}" in (cause.detail or "")


def test_an_argument_in_host_memory_is_named() -> None:
    cause = cause_of(CASES["int32/host-memory argument: on the host"], FEW)
    assert cause.detail == "fill (Fill) reads input `dims` (int32) in host memory, also on an accelerator"


@pytest.mark.parametrize(
    "crossing",
    [
        pytest.param(Crossing(end("Relu", ON_HOST), end("Tanh"), FLOATS), id="an op on the host, and no registry"),
        pytest.param(
            Crossing(end("Relu", ON_HOST), end("Tanh", requested="/GPU:0"), FLOATS), id="the accelerator was asked for"
        ),
        pytest.param(Crossing(end("Const"), end("Tanh", ON_HOST), FLOATS), id="a constant on the accelerator"),
        pytest.param(Crossing(end("Relu"), end("Tanh", device=GPU[:-1] + "1"), FLOATS), id="two accelerators"),
    ],
)
def test_what_the_evidence_does_not_prove_stays_unknown(crossing: Crossing) -> None:
    assert cause_of(crossing) == UNKNOWN


def test_shapes_are_followed_through_arithmetic_and_no_further_than_a_value() -> None:
    graph = sketch(
        """
        x = Placeholder() float32[?,8]
        shape = Shape(x) int32[2]
        axis = Const() int32[] = 0
        size = GatherV2(shape, axis) int32[]
        both = Pack(size, axis) int32[2]
        y = Reshape(x, both) float32[?,8]
        mean = Mean(y, axis) float32[]
        """
    ).traced
    assert shape_ops(graph.main.graph) == {"shape", "size", "both"}


def test_a_shape_is_followed_across_devices() -> None:
    graph = sketch(
        "x = Relu() float32[?] @GPU:0\nn = Shape(x) int32[1] @GPU:0\nn/_1 = _HostSend(n) @GPU:0\n"
        "n/_2 = _Recv(n/_1) int32[1] @CPU:0\np = Prod(n/_2) int32[] @CPU:0"
    ).executed
    assert shape_ops(graph.main.graph) == {"n", "n/_1", "n/_2", "p"}


def test_the_type_of_a_device_in_every_spelling() -> None:
    assert [device_kind(name) for name in (CPU, GPU, "/gpu:0", "GPU:4", "/job:ps/task:0", "")] == [
        "CPU", "GPU", "GPU", "GPU", "", "",
    ]  # fmt: skip
