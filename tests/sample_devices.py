"""Hand-made facts about devices for the sample analysis: lanes, copies, replicas, a placement, a roofline, memory."""

from __future__ import annotations

from math import cos, exp
from typing import Any

from graphlens.ir.devices import (
    LANE_BINS,
    Copy,
    CopyCount,
    Counterfactual,
    DeviceRow,
    Distribution,
    HostRow,
    Island,
    Lane,
    LiveTensor,
    Memory,
    PlacedOp,
    Placement,
    ReplicaRow,
    Roof,
    Roofline,
    RoofPoint,
)

CPU = "/job:localhost/replica:0/task:0/device:CPU:0"
CPU1 = "/job:localhost/replica:0/task:0/device:CPU:1"
GPU = "/job:localhost/replica:0/task:0/device:GPU:0"
ROOT = "StatefulPartitionedCall/mobilenet_1"


def _wave(period: int, filled: float, level: float = 1.0) -> tuple[float, ...]:
    """Shares that are ``level`` for the first part of each period."""
    return tuple(level if index % period < filled * period else 0.0 for index in range(LANE_BINS))


DEVICES = (
    DeviceRow(
        "CPU:0", "worker-0", "CPU", 3120, 41_000_000, 39_400_000, 212_000_000, 4, 52_900_000,
        lanes=(Lane("compute", tuple(round(0.2 + 0.15 * cos(index / 9), 3) for index in range(LANE_BINS))),),
    ),
    DeviceRow(
        "GPU:0", "worker-0", "GPU", 12_480, 183_400_000, 181_100_000, 211_800_000, 4, 52_800_000, 92, 143_654_912,
        9_100_000, 0, {"compute capability": "7.0", "memory bandwidth": "900 GB/s"},
        (
            Lane("compute", _wave(60, 0.86, 0.97)),
            Lane("copy-in", _wave(60, 0.06, 0.8)),
            Lane("copy-out", tuple(0.5 if index % 60 == 52 else 0.0 for index in range(LANE_BINS))),
            Lane("collective", tuple(0.9 if 46 <= index % 60 < 52 else 0.0 for index in range(LANE_BINS))),
        ),
    ),
    DeviceRow(
        "GPU:1", "worker-0", "GPU", 12_204, 160_200_000, 158_300_000, 211_500_000, 4, 52_800_000, 40, 71_303_168,
        4_200_000, 1, {}, (Lane("compute", _wave(60, 0.75, 0.95)), Lane("copy-in", _wave(60, 0.04, 0.7))),
    ),
    DeviceRow(
        "GPU:0", "worker-1", "GPU", 12, 90_000, 90_000, 1_200_000, None, None, 0, None, None, 2, {},
        (Lane("compute", tuple(0.04 if index == 3 else 0.0 for index in range(LANE_BINS))),),
    ),
    DeviceRow("GPU:1", "worker-1", "GPU"),
)  # fmt: skip

DISTRIBUTION = Distribution(
    hosts=(
        HostRow("worker-0", 3, 4, 52_900_000, 339_400_000),
        HostRow("worker-1", 2, None, None, 90_000),
    ),
    replicas=(
        ReplicaRow(0, "worker-0", "GPU:0", 12_480, 181_100_000, 52_800_000),
        ReplicaRow(1, "worker-0", "GPU:1", 12_204, 158_300_000, 52_800_000),
        ReplicaRow(2, "worker-1", "GPU:0", 12, 90_000),
    ),
    imbalance=1.13,
    words="2 of 4 accelerators did nearly all of the work; worker-1 GPU:1 was empty",
)

COPIES = (
    Copy(
        f"{ROOT}/block_1_expand_BN/batchnorm/add_1", f"{ROOT}/block_1_relu/Relu6", CPU, CPU1, 4_816_896, 510_000,
        "explicit device", True, "host-to-host", "measured", "the layer block_1_relu is pinned to CPU:1", 1.0,
        "float32[1,112,112,96]", "worker thread 3", 0.25, 60, 289_013_760, f"{ROOT}/block_1_relu/Conv2D",
    ),
    Copy(f"{ROOT}/block_1_relu/Relu6", f"{ROOT}/block_2_expand/Conv2D", CPU1, CPU),
    Copy(
        f"{ROOT}/reshape/Shape", f"{ROOT}/reshape/strided_slice", GPU, CPU, 16, 21_000, "shape arithmetic", False,
        "device-to-host", "modelled", "Reshape keeps its shape operand in host memory", 4.0, "int32[4]",
    ),
    *(
        Copy(
            f"{ROOT}/block_{index}_mask/Less", f"{ROOT}/block_{index}_mask/Where", GPU, CPU, 1 << (10 + index), None,
            "no kernel for this device and dtype", None, "device-to-host", "modelled",
            "Where has no GPU kernel for bool", 1.0, f"bool[{1 << (10 + index)}]",
        )
        for index in range(1, 9)
    ),
)  # fmt: skip

PLACEMENT = Placement(
    device="GPU:0 (V100)",
    table="2.21",
    stage="executed",
    ops_on_device=702,
    ops_on_host=31,
    copies=CopyCount(12, 15, 0, 6_291_456, 1_340_000),
    ops=(
        PlacedOp(f"{ROOT}/Conv1/convolution", "Conv2D", "GPU:0"),
        PlacedOp(f"{ROOT}/table/LookupTableFindV2", "LookupTableFindV2", "CPU:0", "no GPU kernel for string keys"),
        PlacedOp(f"{ROOT}/reshape/Shape", "Shape", "CPU:0", "its consumers read shapes in host memory"),
    ),
    islands=(
        Island(
            (f"{ROOT}/table/LookupTableFindV2", f"{ROOT}/table/Cast", f"{ROOT}/table/GatherV2"),
            "LookupTableFindV2 has no GPU kernel: its keys are strings",
            "string/resource op",
            copies=3,
        ),
        Island((f"{ROOT}/Print",), "PrintV2 runs on the host only", None, copies=1),
    ),
    counterfactuals=(
        Counterfactual(
            "static-batch",
            "Give the batch a fixed size, so that shapes are constants",
            CopyCount(12, 15, 0, 6_291_456, 1_340_000),
            CopyCount(12, 0, 0, 6_291_216, 1_050_000),
            "tf.TensorSpec((8, 224, 224, 3), tf.float32)",
            "all 15 copies to the host carry shapes",
        ),
        Counterfactual(
            "lookup-outside",
            "Look the words up before the model",
            CopyCount(12, 15, 0, 6_291_456, 1_340_000),
            CopyCount(9, 15, 0, 6_290_000, None),
        ),
    ),
    not_covered=("ops inside XLA clusters", "copies between GPUs of one machine"),
    assumed=("1 input (image) is taken to be on the device when the step starts",),
)

ROOFLINE = Roofline(
    Roof(121_000_000_000.0, 19_400_000_000.0, "float32", 2),
    (
        RoofPoint(f"{ROOT}/Conv1_relu/Relu6", "_FusedConv2D", 21_676_032, 2_212_000, 1_301_000, 0.14),
        *(
            RoofPoint(
                f"{ROOT}/block_{index}_project/Conv2D", "Conv2D", 45_000_000 // index, 3_900_000 // index ** 2,
                1_000_000 // index, round(0.2 + 0.6 * exp(-index / 4), 3),
            )
            for index in range(1, 13)
        ),
        RoofPoint(f"{ROOT}/block_1_expand_BN/batchnorm/mul_1", "Mul", 1_204_224, 9_633_792, 551_000, 0.9),
        RoofPoint(f"{ROOT}/pad/Pad", "Pad", 0, 4_816_896, 320_000, 0.78),
    ),
)  # fmt: skip

MEMORY = Memory(
    peak_bytes=38_535_168,
    at_op=f"{ROOT}/block_1_relu/Relu6",
    curve=tuple(
        38_535_168
        if index == 42
        else int(38_535_168 * (0.1 + 0.75 * exp(-(((index - 40) / 30) ** 2)) + 0.02 * (index % 7)))
        for index in range(150)
    ),
    alive=(
        LiveTensor(f"{ROOT}/block_1_expand_BN/batchnorm/add_1", "float32[1,112,112,96]", 4_816_896),
        LiveTensor(f"{ROOT}/block_1_relu/Relu6", "float32[1,112,112,96]", 4_816_896),
    ),
    weights_bytes=14_155_776,
    unknown=7,
)


def hostile_parts(names: tuple[str, ...]) -> dict[str, Any]:
    """Return every part of a document that speaks of devices, its texts taken from ``names``."""
    bad = "".join(names)
    count = CopyCount(1, 2, 3, 4, 5)
    return {
        "copies": tuple(
            Copy(name, name, name, name, 1, 1, "feed", True, detail=name, tensor=name, stream=name, at_fault=bad)
            for name in names
        ),
        "devices": tuple(
            DeviceRow(name, name, name, 1, 1, 1, 1, properties={name: name}, lanes=(Lane("compute", (0.5, 1.0)),))
            for name in names
        ),
        "distribution": Distribution(
            tuple(HostRow(name, 1) for name in names),
            tuple(ReplicaRow(index, name, name) for index, name in enumerate(names)),
            0.5,
            bad,
        ),
        "placement": Placement(
            bad, bad, "traced", 1, 1, count,
            tuple(PlacedOp(name, name, name, name) for name in names),
            tuple(Island(names, name, "feed", 1) for name in names),
            (Counterfactual("move-device", bad, count, CopyCount(0, 0), bad, bad),),
            names,
        ),
        "roofline": Roofline(
            Roof(1e9, 1e9, bad), tuple(RoofPoint(name, name, 10 * i + 1, 10, 10, 0.5) for i, name in enumerate(names))
        ),
        "memory": Memory(10, bad, (1, 10, 5), tuple(LiveTensor(name, name, 1) for name in names), 5, 1),
    }  # fmt: skip
