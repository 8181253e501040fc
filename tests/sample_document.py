"""Hand-made analyses that hold every kind of thing a report must show; their facts are invented."""

from __future__ import annotations

from typing import Literal

from graphlens.ir.analysis import Document, Figure, FigureNode, Finding, Fix, Proof, Quality, RuleStatus, Saving, Target
from graphlens.ir.edits import OtherEdit
from graphlens.ir.failure import AnalysisError
from graphlens.ir.inputs import InputRow
from graphlens.ir.measured import CriticalPath, GraphSize, OpRow, ProgramRow, ProgramTrace, StepTime
from graphlens.ir.run import LedgerRow
from tests import sample_devices

CPU = "/job:localhost/replica:0/task:0/device:CPU:0"
CPU1 = "/job:localhost/replica:0/task:0/device:CPU:1"
ROOT = "StatefulPartitionedCall/mobilenet_1"

STEP = StepTime(23_550_000, 22_910_000, 24_800_000, 100, "measured", 24_100_000, 30)

LEDGER = (
    LedgerRow("Convolution", 12_346_000),
    LedgerRow("Depthwise convolution", 5_120_400),
    LedgerRow("Normalization", 2_310_000),
    LedgerRow("Activation", 904_000),
    LedgerRow("Data movement", 310_600),
    LedgerRow("Op dispatch", 1_204_000, "overhead"),
    LedgerRow("Function call", 342_000, "overhead"),
    LedgerRow("Not attributed", 1_013_000, "unattributed"),
)

BATCH_NORM_LAYERS = tuple(f"block_{index}_expand_BN" for index in range(1, 17))
BATCH_NORM_OPS = tuple(f"{ROOT}/{layer}/batchnorm/mul_1" for layer in BATCH_NORM_LAYERS)

BATCH_NORM_FIGURE = Figure(
    stage="executed",
    nodes=(
        FigureNode(
            f"{ROOT}/block_1_depthwise/depthwise",
            "DepthwiseConv2dNative",
            "context",
            1_091_000,
            CPU,
            "float32[1,112,112,96]",
        ),
        FigureNode(f"{ROOT}/block_1_expand_BN/batchnorm/mul", "Mul", "context", None, CPU, "float32[96]"),
        FigureNode(BATCH_NORM_OPS[0], "Mul", "subject", 151_000, CPU, "float32[1,112,112,96]"),
        FigureNode(
            f"{ROOT}/block_1_expand_BN/batchnorm/add_1",
            "AddV2",
            "subject",
            148_000,
            CPU,
            "float32[1,112,112,96]",
        ),
        FigureNode(f"{ROOT}/block_1_relu/Relu6", "Relu6", "context", 43_000, CPU1, "float32[1,112,112,96]"),
        FigureNode(f"{ROOT}/Print", "PrintV2", "context", None, CPU, None),
    ),
    edges=(
        (f"{ROOT}/block_1_depthwise/depthwise", BATCH_NORM_OPS[0], "data"),
        (f"{ROOT}/block_1_expand_BN/batchnorm/mul", BATCH_NORM_OPS[0], "data"),
        (BATCH_NORM_OPS[0], f"{ROOT}/block_1_expand_BN/batchnorm/add_1", "data"),
        (f"{ROOT}/block_1_expand_BN/batchnorm/add_1", f"{ROOT}/block_1_relu/Relu6", "transfer"),
        (BATCH_NORM_OPS[0], f"{ROOT}/Print", "control"),
    ),
    omitted=4,
)

HIGH = Finding(
    code="GL203",
    rule="unfolded-batch-norm",
    title="16 batch normalizations run as separate multiplications and additions",
    nodes=BATCH_NORM_OPS,
    evidence={
        "layers": BATCH_NORM_LAYERS,
        "measured_self_ns": 2_310_000,
        "share_of_step": 0.098,
        "moved_bytes": 154_140_672,
        "extra_flops": 38_535_168,
        "convolution_has_one_consumer": True,
        "constant_operands": None,
        "epsilon": 0.001,
        "per_layer": (
            {"layer": "block_1_expand_BN", "self_ns": 299_000, "output": "float32[1,112,112,96]"},
            {"layer": "block_2_expand_BN", "self_ns": 188_000, "output": "float32[1,56,56,144]"},
            {"layer": "block_3_expand_BN", "self_ns": None, "output": "float32[1,56,56,144]"},
        ),
        "checked": {
            "folded_by_the_runtime": False,
            "step_ns": {"median": 23_550_000, "p90": 24_800_000},
        },
    },
    reason=(
        "Scale and offset are variables, not constants: the runtime folds a batch normalization into the "
        "convolution before it only when its operands are known before the first step."
    ),
    saving=Saving(2_780_000, 0.118, "modelled"),
    fix=Fix(
        summary="Freeze the variables, so that the scale is folded into the weights of each convolution.",
        safety="tolerance",
        edits=(OtherEdit("fold-batch-norm", {"layers": BATCH_NORM_LAYERS}),),
        snippet=(
            "from tensorflow.python.framework.convert_to_constants import (\n"
            "    convert_variables_to_constants_v2,\n)\n\n"
            "frozen = convert_variables_to_constants_v2(model.signatures['serving_default'])"
        ),
    ),
    severity="high",
    proof=Proof(
        "proven",
        "faster in all 41 pairs, outputs agree",
        speedup=1.124,
        ci95=(1.097, 1.151),
        pairs=41,
        aa_ci95=(0.991, 1.008),
        max_abs_diff=3.1e-6,
        max_rel_diff=8.4e-5,
        tolerance=1e-4,
        cpu_speedup=1.118,
        cpu_ci95=(1.102, 1.131),
        aa_cpu_ci95=(0.996, 1.005),
        before_ns=23_600_000,
        after_ns=21_000_000,
        cpu_before_ns=22_900_000,
        cpu_after_ns=20_500_000,
        spent_s=14.2,
        output="output_0",
        output_dtype="float32",
        expected_share=0.101,
        command="graphlens analyze models/mobilenet_v2 --batch 8 --select GL203",
    ),
    figure=BATCH_NORM_FIGURE,
    shares_ops_with=("GL212#3",),
    fingerprint="3f1c9a",
)

MEDIUM = Finding(
    code="GL103",
    rule="device-device-copy",
    title="An activation of 4.6 MiB crosses from CPU:0 to CPU:1 and back in every step",
    nodes=(f"{ROOT}/block_1_relu/Relu6",),
    evidence={"copied_bytes": 4_816_896, "copies_per_step": 2, "reasons": ("explicit device",)},
    reason="The layer block_1_relu is pinned to CPU:1 by a device scope in the program.",
    saving=Saving(1_020_000, 0.043, "bound"),
    fix=Fix("Remove the device scope around block_1_relu.", "exact"),
    severity="medium",
    proof=Proof("refuted", "applied, and it gave nothing here", 1.002, (0.994, 1.011), 60, (0.99, 1.01)),
    fingerprint="77ab01",
)

LOW = Finding(
    code="GL212",
    rule="op-overhead-bound",
    title="282 ops cost less than their dispatch",
    nodes=(*BATCH_NORM_OPS[:2], f"{ROOT}/Print"),
    evidence={"ops": 282, "dispatch_ns": 1_204_000},
    reason="Each op is scheduled on its own; the work inside is shorter than the scheduling.",
    saving=Saving(270_000, 0.011, "modelled"),
    fix=Fix("Compile the function with jit_compile=True.", "tolerance", snippet="@tf.function(jit_compile=True)"),
    severity="low",
    shares_ops_with=("GL203#1",),
    fingerprint="90dd21",
)

INFO = Finding(
    code="GL602",
    rule="embedded-constant",
    title="A constant of 2.0 MiB is stored in the graph",
    nodes=(f"{ROOT}/anchors",),
    evidence={"constant_bytes": 2_097_152},
    reason="It was captured as a numpy array while the function was traced.",
    saving=Saving(),
    fix=Fix("Make it a variable of the model.", "manual"),
    stage="traced",
)


def _op_rows() -> tuple[OpRow, ...]:
    conv = OpRow(
        f"{ROOT}/Conv1_relu/Relu6", "Relu6", f"{ROOT}/Conv1_relu", CPU, "_FusedConv2D", 1_301_000, 1.0,
        21_676_032, 2_212_000, "model.py:41", "forward",
        (f"{ROOT}/Conv1/convolution", f"{ROOT}/Conv1/BiasAdd", f"{ROOT}/Conv1_relu/Relu6"),
        "profile", 0.055, "Conv1_relu", "Convolution", 0, "float32[1,112,112,32]",
    )  # fmt: skip
    muls = tuple(
        OpRow(
            name, "Mul", name.rpartition("/")[0], CPU, "Mul", 151_000 - 7_000 * index, 1.0,
            1_204_224, 9_633_792, None, "forward", (name,),
            "replay" if index == 3 else "profile", 0.0064, layer, "Normalization", 12_000 * index,
            "float32[1,112,112,96]",
        )
        for index, (name, layer) in enumerate(zip(BATCH_NORM_OPS, BATCH_NORM_LAYERS, strict=True))
    )  # fmt: skip
    unseen = OpRow(f"{ROOT}/Print", "PrintV2", ROOT, CPU)
    on_other = OpRow(
        f"{ROOT}/block_1_relu/Relu6", "Relu6", f"{ROOT}/block_1_relu", CPU1, "Relu6", 43_000, 1.0,
        timing="profile", wall_share=0.0018, layer="block_1_relu", category="Activation",
        output="float32[?,112,112,96]",
    )  # fmt: skip
    return (conv, *muls, on_other, unseen)


RICH = Document(
    target=Target("models/mobilenet_v2", "saved_model", "serving_default", "9f8d3c2b1a0e4f57"),
    environment={
        "tensorflow": "2.21.0",
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "cpu": "Example CPU @ 2.60GHz",
        "cores": 2,
        "devices": (CPU, CPU1),
        "onednn": True,
        "intra_op_threads": 0,
        "keras": None,
    },
    quality=Quality(
        "fair",
        join_rate=0.991,
        attributed_share=0.957,
        op_share=0.891,
        coverage=0.984,
        ops_seen=718,
        ops_replayed=6,
        ops_expected=730,
        stability=0.08,
        profiler_overhead=0.023,
        steps=30,
        reasons=("the step varies by 8.0 % between its 10th and 90th percentile",),
        notes=("oneDNN is on: fused ops carry names of their own",),
    ),
    graphs={
        "traced": GraphSize(1053, 1376, 3),
        "optimized": GraphSize(748, 1001, 1),
        "executed": GraphSize(733, 980, 2),
    },
    graphlens_version="0.1.0",
    step=STEP,
    ledger=LEDGER,
    ops=_op_rows(),
    critical_path=CriticalPath(
        20_940_000, (f"{ROOT}/Conv1_relu/Relu6", *BATCH_NORM_OPS[:9], f"{ROOT}/block_1_relu/Relu6")
    ),
    copies=sample_devices.COPIES,
    findings=(HIGH, MEDIUM, LOW, INFO),
    rules=(
        RuleStatus("GL103", "device-device-copy", "found", "1 finding", "A tensor crosses devices."),
        RuleStatus("GL203", "unfolded-batch-norm", "found", "1 finding"),
        RuleStatus("GL207", "redundant-transpose", "passed", "12 transposes, each with a consumer of its layout"),
        RuleStatus("GL301", "input-bound", "not-applicable", "the target has no input pipeline"),
        RuleStatus("GL501", "float64-op", "error", "KeyError: 'dtype'; report it with the capture"),
    ),
    errors=(AnalysisError("replay", "the replay took longer than 60 s; give --time-budget 120"),),
    devices=sample_devices.DEVICES,
    distribution=sample_devices.DISTRIBUTION,
    placement=sample_devices.PLACEMENT,
    roofline=sample_devices.ROOFLINE,
    memory=sample_devices.MEMORY,
    inputs=(
        InputRow("image", "float32", (1, 224, 224, 3), (0.00021, 0.99997), "made-up", "224 x 224 guessed"),
        InputRow("mask", "bool", (1, 50), (1, 1), "given"),
        InputRow("length", "int32", (), (1, 1), "made-up", "", "how often the loop while runs", loop=True),
        InputRow("text", "string", (None,), None, "example", "warm-up request 1 of 3"),
    ),
)  # fmt: skip

STATIC = Document(
    target=Target("keras_imagenet_gpu.pbtxt", "graph_def"),
    environment={},
    quality=Quality("none", reasons=("nothing was executed: --static was given",)),
    graphs={"traced": GraphSize(4, 3, 1)},
    graphlens_version="0.1.0",
    ops=(OpRow("conv/Conv2D", "Conv2D", "conv", flops=1_000_000), OpRow("pad", "Pad", "")),
    findings=(INFO,),
    rules=(RuleStatus("GL602", "embedded-constant", "found", "1 finding"),),
    errors=(AnalysisError("profile", "not executed: --static was given; leave it out to measure"),),
)

HOSTILE_NAMES = (
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(2)>',
    "a\nb\\N\\G",
    "{{7*7}}{% raw %}",
    'x"]; evil [label="hacked", URL="https://example.com"',
    "<b>html label</b>",
    "javascript:alert(3)",
    "\x1b[31mred\x1b[0m\x07\u202egnp",
    "日本語/µ",
    "<!--<script>alert(4)//-->",
    "]]><style>*{display:none}</style></svg></title></textarea>",
    "' onmouseover='alert(5)",
    "`alert(6)`${7*7}",
    "two\u2028lines\u2029\x85\x9b31m\x00",
    "\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\\x1b[2J",
    "\ud800\ufeff\u200b",
    "[bold red]markup[/] :smile: [link=https://example.com]x[/link]",
    "&lt;img src=x onerror=alert(8)&gt;",
    "a b'; touch hacked #",
    "n" * 300,
)


def hostile() -> Document:
    """Return a document whose every text tries to escape from its place."""
    bad = "".join(HOSTILE_NAMES)
    return Document(
        target=Target(bad, bad, bad, bad),
        environment={bad: bad, "devices": HOSTILE_NAMES},
        quality=Quality("poor", reasons=(bad,), notes=(bad,)),
        graphs={bad: GraphSize(1, 2, 3)},
        graphlens_version=bad,
        step=STEP,
        ledger=tuple(LedgerRow(name, 1000) for name in HOSTILE_NAMES),
        ops=tuple(
            OpRow(name, name, name, name, name, 5, 1.0, 1, 1, name, name, (name,), "profile", 0.1, name, name, 0, name)
            for name in HOSTILE_NAMES
        ),
        critical_path=CriticalPath(10, HOSTILE_NAMES),
        findings=tuple(_hostile_finding(name) for name in HOSTILE_NAMES),
        rules=tuple(RuleStatus(name, name, "error", name, name) for name in HOSTILE_NAMES),
        errors=tuple(AnalysisError(name, name) for name in HOSTILE_NAMES),
        joint_proof=_hostile_proof(bad, "proven"),
        programs=tuple(
            ProgramRow(name, name, "step", 1, 2, STEP, 0.5, traces=(ProgramTrace(name, 5),)) for name in HOSTILE_NAMES
        ),
        **sample_devices.hostile_parts(HOSTILE_NAMES),
    )


def _hostile_proof(name: str, verdict: Literal["proven", "failed"]) -> Proof:
    return Proof(
        verdict, name, speedup=2.0, ci95=(1.0, 3.0), pairs=1, aa_ci95=(1.0, 1.0), max_abs_diff=1.0, max_rel_diff=1.0,
        tolerance=1.0, output=name, output_dtype=name, command=f"graphlens analyze {name}", parts=(name, name),
    )  # fmt: skip


def _hostile_finding(name: str) -> Finding:
    nodes = tuple(FigureNode(other, name, "subject", 1, name, name) for other in HOSTILE_NAMES)
    edges = ((HOSTILE_NAMES[0], HOSTILE_NAMES[1], name), (HOSTILE_NAMES[2], name, "data"))
    return Finding(
        code=name,
        rule=name,
        title=name,
        nodes=HOSTILE_NAMES,
        evidence={name: name, "names": HOSTILE_NAMES, "rows": ({name: name},), "deep": {name: {name: (name,)}}},
        reason=name,
        saving=Saving(1000, 0.2, "modelled"),
        fix=Fix(name, "manual", (OtherEdit(name, {name: name}),), name),
        severity="high",
        proof=_hostile_proof(name, "failed"),
        figure=Figure(name, nodes, edges),
        figure_after=Figure(name, nodes[:2], edges[:1]),
        shares_ops_with=HOSTILE_NAMES,
        fingerprint=name,
    )
