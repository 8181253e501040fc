"""Rules about products on hardware that multiplies half precision on units of their own."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from graphlens.facts.core import Facts
from graphlens.facts.flat.names import without_replica
from graphlens.facts.graphs import judged_graph, judged_stage
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.savings import saving_at, saving_without
from graphlens.facts.work import hardware
from graphlens.facts.work.costs import cost_of
from graphlens.facts.work.hardware import KnownGpu
from graphlens.facts.work.kernel_work import alike_kernels
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.devices import short_device
from graphlens.ir.graph import input_specs
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import family
from graphlens.rules.needs import GRAPH, Need
from graphlens.rules.registry import found, rule
from graphlens.units import counted

# Peaks of dense products by NVIDIA's datasheets, float16 over what float32 runs as: V100 125 to 15.7 and T4 65 to 8.1
# TFLOP/s; with TensorFloat-32 A100 312 to 156, H100 989 to 495, L4 121 to 60; without it A100 312 to 19.5.
TENSOR_CORE_SPEEDUP: Final = 8.0
OVER_TF32_SPEEDUP: Final = 2.0
OVER_PLAIN_FLOAT32_SPEEDUP: Final = 16.0
# Intel gives 1,024 bfloat16 operations a cycle and core with AMX; two units of AVX-512 do 64 in float32.
AMX_SPEEDUP: Final = 16.0

# A product of fewer operations takes less than 0.1 us on any of these GPUs: launching it is dearer.
SMALLEST_PRODUCT_FLOPS: Final = 1_000_000
NOTABLE_SHARE: Final = 0.01  # of the step
# Sizes that fill whole 16-byte words (NVIDIA, "Matrix Multiplication Background User's Guide", tensor core
# requirements).  Of smaller dimensions than 64, filling up to the next multiple would add a tenth and more to the work.
WORD_BYTES: Final = 16
SMALLEST_PADDED_SIZE: Final = 64
OPS_LISTED: Final = 20
KERNELS_LISTED: Final = 5

# What NVIDIA's libraries put into the names of their kernels: `volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_nn`,
# `turing_h1688gemm`, `sm80_xmma_gemm_bf16bf16_bf16f32_f32`, `cutlass_80_tensorop_s1688gemm` (TensorFloat-32 from
# Ampere on), `volta_sgemm_128x64_nn`, `ampere_scudnn_128x64_relu`, `implicit_convolve_sgemm`.  884, 1688 and 16816 are
# the tiles of a tensor core instruction; the letter before them is the type that is summed up in.
_HALF_KERNEL = re.compile(r"fp16|bf16|f16f16|bfloat16|__half|hgemm|hcudnn|[hs]884|h1688|turing_s1688|[hs]16816")
_TF32_KERNEL = re.compile(r"tf32|s1688")
_FLOAT32_KERNEL = re.compile(r"sgemm|scudnn|f32f32_f32f32")

_PRODUCTS: Final = frozenset({"matmul", "convolution"})
_FLOAT32: Final = "float32"
_HALVES: Final = frozenset({"float16", "bfloat16"})


class _Target(NamedTuple):
    """Devices of one kind on which half precision is faster: what they are, the type, and the factor at most.

    Of an ``assumed`` device no time is known.
    """

    devices: tuple[str, ...]
    words: str
    dtype: str
    speedup: float
    snippet: str
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class _Product:
    """One matrix product or convolution, the type it multiplied in, and the kernels whose names say so."""

    name: str
    type: str
    dtype: str
    kernels: tuple[str, ...] = ()


def _why_no_half(facts: Facts) -> str:
    known = facts(hardware.gpus)
    if known:
        said = ", ".join(f"{gpu.name} ({_capability(gpu)})" for gpu in known)
        return f"no tensor cores are known of {said}"
    features = facts(hardware.cpu_features)
    if features is None:
        return "it is not known what the hardware of the run multiplies fastest"
    return "the processor has no AMX, and without it bfloat16 was measured to be slower than float32"


def _capability(gpu: KnownGpu) -> str:
    if gpu.capability is None:
        return "compute capability unknown"
    return f"compute capability {gpu.capability[0]}.{gpu.capability[1]}"


HALF_PRECISION = Need(
    "a device that multiplies half precision faster", lambda facts: bool(list(_targets(facts))), _why_no_half
)
TENSOR_CORES = Need(
    "a GPU with tensor cores",
    lambda facts: any(gpu.has_tensor_cores for gpu in facts(hardware.gpus)),
    lambda facts: _why_no_half(facts) if facts(hardware.gpus) else "no GPU with tensor cores is known",
)


@rule("GL502", "full-precision-matmul", needs=(HALF_PRECISION,))
def full_precision_matmul(facts: Facts) -> Iterator[Finding]:
    """Matrix products and convolutions in float32 on a device that multiplies half precision several times as fast.

    ## What it finds

    Products and convolutions that run in `float32` on a GPU with tensor cores (compute capability 7.0 and higher), or
    on a processor with AMX, and take a hundredth of the step and more; with `--assume-device` those that would. Where
    the profile names the kernels, these decide: an op whose kernel multiplies `float16` is not reported, whatever the
    graph says.

    ## Why it costs

    Tensor cores multiply `float16` up to 8 times as fast as the GPU's other units multiply `float32` (V100, T4), and
    twice as fast as TensorFloat-32 (from A100 on, where TensorFlow uses it by default). The tensors need half of the
    bytes as well.

    ## Example

    ```bad
    gpu: 7.0
    x = _Arg() float32[512,1024] @GPU:0
    w = _Arg() float32[1024,1024] @GPU:0
    y = MatMul(x, w) float32[512,1024] 900us @GPU:0 {T: float32, kernel: volta_sgemm_128x64_nn}
    z = Relu(y) float32[512,1024] 100us @GPU:0
    ```

    ```good
    gpu: 7.0
    x = _Arg() float16[512,1024] @GPU:0
    w = _Arg() float16[1024,1024] @GPU:0
    y = MatMul(x, w) float16[512,1024] 200us @GPU:0 {T: float16, kernel: volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_nn}
    z = Relu(y) float16[512,1024] 100us @GPU:0
    ```

    ## Fix

    On GPUs train with Keras' policy `mixed_float16`, which keeps the weights in `float32` and scales the loss. A
    trained model can be converted by the graph optimizer's `auto_mixed_precision`. On a processor with AMX let it use
    `auto_mixed_precision_onednn_bfloat16`. Compare accuracy afterwards.

    ## When it is fine

    Where the digits are needed, or where the products are so small that launching them takes longer. On processors
    without AMX the rule does not apply: there `bfloat16` made four networks slower (0.58 to 0.92 of the speed on a
    processor with AVX-512).

    ## Source

    Compute capability from the profile or the recording; types from kernel names, else from the ops' attributes. The
    saving is a bound: the ratio of the peaks that the makers publish.
    """
    for target in _targets(facts):
        products = [one for one in _products(facts, target.devices) if one.dtype in (_FLOAT32, "tf32")]
        if products:
            finding = _full_precision_finding(facts, target, products)
            if finding.saving.share is None or finding.saving.share >= NOTABLE_SHARE:
                yield finding


def _targets(facts: Facts) -> Iterator[_Target]:
    """Yield the devices that did work of the step and on which half precision is faster."""
    for gpus in _alike(facts):
        speedup = OVER_TF32_SPEEDUP if gpus[0].has_tf32 else TENSOR_CORE_SPEEDUP
        words = f"{_called(gpus)} with tensor cores ({_capability(gpus[0])})"
        snippet = 'keras.mixed_precision.set_global_policy("mixed_float16")'
        yield _Target(_names(gpus), words, "float16", speedup, snippet, gpus[0].assumed)
    if hardware.AMX in (facts(hardware.cpu_features) or ()):
        option = '{"auto_mixed_precision_onednn_bfloat16": True}'
        snippet = f"tf.config.optimizer.set_experimental_options({option})"
        yield _Target(("CPU",), "a processor with AMX", "bfloat16", AMX_SPEEDUP, snippet)


def _alike(facts: Facts) -> Iterator[Sequence[KnownGpu]]:
    """Yield the GPUs with tensor cores, those of one generation together; the assumed one is alone."""
    generations: dict[object, list[KnownGpu]] = defaultdict(list)
    for gpu in facts(hardware.gpus):
        if gpu.has_tensor_cores:
            generations[gpu.assumed, gpu.capability].append(gpu)
    yield from generations.values()


def _names(gpus: Sequence[KnownGpu]) -> tuple[str, ...]:
    return tuple(gpu.name for gpu in gpus)


def _called(gpus: Sequence[KnownGpu]) -> str:
    if gpus[0].assumed:
        return f"an assumed {gpus[0].name}"
    return gpus[0].name if len(gpus) == 1 else f"{len(gpus)} GPUs"


def _products(facts: Facts, devices: Sequence[str]) -> Iterator[_Product]:
    """Yield the large products that ran on ``devices``, with the type that their kernels, else attributes, tell."""
    kernels = _kernels(facts, devices)
    ran = {**{name: op.type for name, op in _placed(facts, devices)}, **{name: op for name, op, _ in kernels}}
    telling = {name: tuple(kernel for kernel in found if _dtype_of_kernels([kernel])) for name, _, found in kernels}
    for name, op_type in ran.items():
        dtype = _dtype_of_kernels(telling.get(name, ())) or _dtype_of_op(facts, name)
        if dtype is not None and _is_large(facts, name):
            yield _Product(name, op_type, dtype, telling.get(name, ()))


def _kernels(facts: Facts, devices: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Return the products that the profile saw on ``devices``: name, type, and their kernels, the longest first."""
    profile = facts.evidence.profile
    spent: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for kernel, device, _, ns in facts(alike_kernels):
        if profile and _is_product(kernel.op) and profile.devices[device].name in devices:
            spent[_timed_as(facts, kernel.node), kernel.op][kernel.name] += ns
    return [(name, op, [kernel for kernel, _ in names.most_common()]) for (name, op), names in spent.items()]


def _timed_as(facts: Facts, node: str) -> str:
    """Return the name under which an op of the profile was timed: the model's, without that of a replica."""
    return node if node in facts(attribution).timings else without_replica(node)


def _placed(facts: Facts, devices: Sequence[str]) -> Iterator[tuple[str, Op]]:
    """Yield the products that ran on ``devices`` (``CPU``: on any processor), or would run on an assumed one."""
    placement = facts.evidence.placement
    graph = facts(judged_graph)
    if placement is not None and placement.device in devices:
        on_host = {one.name for one in placement.ops if one.device.startswith("CPU")}
        products = graph.where(_is_product)
        yield from ((name, graph.op(name)) for name in products if name not in on_host)
    elif facts(judged_stage) == "executed":
        for name in graph.where(_is_product):
            device = short_device(graph.op(name).device)
            if device in devices or device.partition(":")[0] in devices:
                yield name, graph.op(name)


def _is_product(op_type: str) -> bool:
    """Tell whether an op multiplies matrices; a depthwise convolution does not, it has one channel at a time."""
    return family(op_type) in _PRODUCTS and "Depthwise" not in op_type


def _dtype_of_kernels(names: Iterable[str]) -> str | None:
    """Return the type that kernels multiply in; one that multiplies half precision is enough to say so.

    >>> _dtype_of_kernels(["volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_nn"]), _dtype_of_kernels(["volta_sgemm_32x128"])
    ('float16', 'float32')
    >>> _dtype_of_kernels(["cutlass_80_tensorop_s1688gemm_128x256_nn"]), _dtype_of_kernels(["splitKreduce_kernel"])
    ('tf32', None)
    """
    for pattern, dtype in ((_HALF_KERNEL, "float16"), (_TF32_KERNEL, "tf32"), (_FLOAT32_KERNEL, _FLOAT32)):
        if any(pattern.search(name) for name in names):
            return dtype
    return None


def _dtype_of_op(facts: Facts, name: str) -> str | None:
    graph = facts(judged_graph)
    if name not in graph:
        return None
    op = graph.op(name)
    declared = op.attrs.get("T")
    return str(declared) if declared else next((spec.dtype for spec in op.outputs), None)


def _is_large(facts: Facts, name: str) -> bool:
    graph = facts(judged_graph)
    flops = cost_of(graph, name).flops if name in graph else None
    return flops is None or flops >= SMALLEST_PRODUCT_FLOPS


def _full_precision_finding(facts: Facts, target: _Target, products: Sequence[_Product]) -> Finding:
    names = [product.name for product in products]
    kernels = Counter(kernel for product in products for kernel in product.kernels[:1])
    types = Counter(product.type for product in products)
    plain = any(product.dtype == _FLOAT32 and product.kernels for product in products)
    speedup = OVER_PLAIN_FLOAT32_SPEEDUP if plain and target.speedup == OVER_TF32_SPEEDUP else target.speedup
    return found(
        title=f"{counted(len(products), 'product')} in float32 on {target.words}",
        nodes=names,
        evidence={
            "devices": list(target.devices),
            "faster_type": target.dtype,
            "speedup_at_most": speedup,
            "op_types": dict(types.most_common(OPS_LISTED)),
            "kernels": dict(kernels.most_common(KERNELS_LISTED)),
        },
        reason=_full_precision_reason(kernels, products, target, speedup),
        saving=Saving() if target.assumed else _bound(saving_at(facts, dict.fromkeys(names, 1 / speedup))),
        fix=Fix(f"Multiply in {target.dtype}, and compare accuracy", "manual", snippet=target.snippet),
        floor="low",
    )


def _full_precision_reason(kernels: Counter[str], products: Sequence[_Product], target: _Target, speedup: float) -> str:
    said = f"their kernels ({next(iter(kernels))}, …) say so" if kernels else "their type attribute says so"
    tf32 = "as TensorFloat-32 " if any(product.dtype == "tf32" for product in products) else ""
    return (
        f"they multiply float32 {tf32}({said}); the peak of {target.dtype} is up to {speedup:.0f} times as high there"
    )


def _bound(saving: Saving) -> Saving:
    return saving if saving.share is None else replace(saving, origin="bound")


# -- alignment ----------------------------------------------------------------------------------------------------


@rule("GL503", "misaligned-matmul", needs=(GRAPH, TENSOR_CORES))
def misaligned_matmul(facts: Facts) -> Iterator[Finding]:
    """Products on tensor cores whose rows do not fill whole 16-byte words.

    ## What it finds

    Matrix products and convolutions on a GPU with tensor cores with an innermost size of 64 and more (the last one of
    an operand or of the result; the channels of a convolution) that is no multiple of 8 in `float16` and `bfloat16`, or
    of 4 in `float32` where that runs as TensorFloat-32.

    ## Why it costs

    Tensor cores load 16 bytes at once. Rows of other lengths are loaded piece by piece by slower kernels, and libraries
    before cuBLAS 11 and cuDNN 7.6.3 do not use tensor cores for them at all.

    ## Example

    ```bad
    gpu: 7.0
    x = _Arg() float16[512,1024] @GPU:0
    w = _Arg() float16[1024,33708] @GPU:0
    y = MatMul(x, w) float16[512,33708] 900us @GPU:0 {T: float16}
    z = Relu(y) float16[512,33708] 100us @GPU:0
    ```

    ```good
    gpu: 7.0
    x = _Arg() float16[512,1024] @GPU:0
    w = _Arg() float16[1024,33712] @GPU:0
    y = MatMul(x, w) float16[512,33712] 300us @GPU:0 {T: float16}
    z = Relu(y) float16[512,33712] 100us @GPU:0
    ```

    ## Fix

    Pad the size to the next multiple where the layer is made: a vocabulary of 33,708 words becomes one of 33,712, with
    words that never occur. Choose the sizes of layers as multiples of 8, or better of 64.

    ## When it is fine

    Where the size is given from outside and the product takes little time.

    ## Source

    NVIDIA, "Matrix Multiplication Background User's Guide" and "Convolutional Layers User's Guide"; shapes and types of
    the judged graph. What it saves depends on the library's kernels and is not known.
    """
    for gpus in _alike(facts):
        products = [(name, op) for name, op in _placed(facts, _names(gpus)) if _is_large(facts, name)]
        uneven = {name: sizes for name, op in products if (sizes := _uneven_sizes(facts, op, gpus[0]))}
        if uneven and (gpus[0].assumed or _is_notable(facts, list(uneven))):
            yield _misaligned_finding(facts, gpus, uneven)


def _uneven_sizes(facts: Facts, op: Op, gpu: KnownGpu) -> Mapping[int, int]:
    """Return the innermost sizes that fill no whole words -> the next ones that do."""
    dtype = _dtype_of_op(facts, op.name)
    if dtype not in _HALVES and not (dtype == _FLOAT32 and gpu.has_tf32):
        return {}
    step = WORD_BYTES // (2 if dtype in _HALVES else 4)
    specs = [*input_specs(facts(judged_graph), op.name)[:2], *op.outputs[:1]]
    sizes = [size for spec in specs for size in _inner(op, spec)]
    return {size: size + -size % step for size in sizes if size >= SMALLEST_PADDED_SIZE and size % step}


def _inner(op: Op, spec: TensorSpec | None) -> Sequence[int]:
    """Return the innermost size of a tensor; in channels-first convolutions it is no channel, and tells nothing."""
    if spec is None or not spec.shape or op.attrs.get("data_format", "NHWC") not in ("NHWC", "NDHWC"):
        return ()
    return () if spec.shape[-1] is None else (spec.shape[-1],)


def _is_notable(facts: Facts, names: Sequence[str]) -> bool:
    share = saving_without(facts, names).share
    return share is None or share >= NOTABLE_SHARE


def _misaligned_finding(facts: Facts, gpus: Sequence[KnownGpu], uneven: Mapping[str, Mapping[int, int]]) -> Finding:
    sizes = {size: padded for one in uneven.values() for size, padded in one.items()}
    said = ", ".join(f"{size:,} (next: {padded:,})" for size, padded in sorted(sizes.items())[:OPS_LISTED])
    graph = facts(judged_graph)
    listed: list[dict[str, Any]] = [
        {"op": name, "output": ", ".join(map(str, graph.op(name).outputs)), "sizes": list(one)}
        for name, one in list(uneven.items())[:OPS_LISTED]
    ]
    return found(
        title=f"{counted(len(uneven), 'product')} on {_called(gpus)} with rows that fill no whole 16-byte words",
        nodes=list(uneven),
        evidence={
            "devices": list(_names(gpus)),
            "sizes": {str(size): padded for size, padded in sizes.items()},
            "ops": listed,
        },
        reason=f"tensor cores load 16 bytes at once, and these innermost sizes are no multiple of that: {said}",
        fix=Fix("Pad these sizes to the next multiple where the layers are made", "manual"),
        floor="low",
    )
