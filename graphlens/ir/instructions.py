"""What the words of XLA tell: names of instructions and kernels, categories of its compiler; and their families."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

COPY_START: Final = "copy-start"
COPY_DONE: Final = "copy-done"

# The device runs these without computing: one hands a copy to the copy engine, the other waits until it is there.
WAITS: Final = frozenset({COPY_START, COPY_DONE})

ELEMENTWISE: Final = "elementwise and other"
CUSTOM_CALL: Final = "custom call"
HOST_COPY: Final = "copy between host and device"

_FINGERPRINT = re.compile(r"\(\d+\)$")  # behind the name of a module
# Numbers and marks that XLA's passes put behind the name of an instruction, and its backends behind that of a kernel.
_MARKS = re.compile(r"(\.(clone|remat\d*|\d+)|_\d+)+$")
# Kernels of libraries, and of the collectives: XLA calls them from instructions whose names may tell nothing.
_LIBRARIES: Final = (
    ("collective", re.compile(r"nccl|rccl", re.IGNORECASE)),
    (
        "convolution",
        re.compile(r"cudnn.*conv|scudnn|implicit_convolve|implicit_gemm|winograd|[dw]grad|miopen.*conv", re.IGNORECASE),
    ),
    ("matmul", re.compile(r"gemm|gemv|cublas|cutlass|^Cijk_|matmul|fmha|flash_(attn|fwd|bwd)|^nvjet_", re.IGNORECASE)),
)
# How XLA calls the kernels of its fusions on GPUs, which carry no other name where a profile has no annotations.
_FUSION_KERNEL = re.compile(r"^(loop|input|gemm|triton|wrapped|fused|cudnn|cublas|softmax)_\w+$|^(\w+_)?fusion$")

# Word by word, the first that fits: by the opcodes of HLO, the categories that its compiler gives to instructions, and
# the names that its passes give to fusions (after what they compute last) and to the calls of libraries.
_FAMILIES: Final = (
    ("collective", r"all[-_]?reduce|all[-_]?gather|reduce[-_]?scatter|all[-_]?to[-_]?all|collective|nccl|rccl|psum"),
    (HOST_COPY, r"^to (device|host)$"),
    ("copy", r"^within the device$|^copy-(start|done)|^(host )?(send|recv)(-done)?$|memcpy"),
    ("input", r"infeed|outfeed"),
    ("convolution", r"conv(olution)?(?![a-z])|cudnn-conv"),
    ("matmul", r"(?<![a-z])dot(?![a-z])|gemm|matmul|cublas|einsum|fmha|ragged-dot"),
    ("softmax", r"softmax"),
    ("normalization", r"batch-?norm|layer-?norm|cudnn-norm"),
    ("random", r"rng|random|threefry"),
    ("pooling", r"reduce-?window|select[-_]and[-_]scatter"),
    ("reduction", r"(?<![a-z])reduce(?![a-z])|^input fusion|topk|argm(in|ax)|cumsum|cumprod"),
    (
        "data-movement",
        r"^copy|transpose|concatenate|(?<![a-z])pad(?![a-z])|slice|gather|scatter|data formatting|reshape|bitcast|^sort"
        r"|(?<![a-z])(convert|broadcast|iota|reverse|copy|select)(_fusion|_element_type|_in_dim)?$",
    ),
    ("control-flow", r"^(while|conditional|call)$"),
    (CUSTOM_CALL, r"custom-?call|pallas|triton"),
)
_PATTERNS: Final = tuple((name, re.compile(pattern)) for name, pattern in _FAMILIES)

# They say that something was compiled or copied, and not what.
_OPEN = re.compile(
    r"^(copy-(start|done)|custom-call|custom fusion|output fusion|fusion|async-(start|done)|call|triton_kernel)"
)
# A TPU has no unit for matrix products but that of convolutions: XLA calls both by one word.
_CONVOLUTION = re.compile(r"^convolution")


@cache
def family_of(word: str) -> str:
    """Return the family of an instruction, by its opcode, its category or its name; a word in brackets decides.

    >>> family_of("copy-done (to host)"), family_of("copy-done (within the device)")
    ('copy between host and device', 'copy')
    >>> family_of("loop fusion"), family_of("cudnn-conv-bw-filter"), family_of("all-reduce"), family_of("copy-done")
    ('elementwise and other', 'convolution', 'collective', 'copy')
    >>> family_of("gemm_fusion_dot"), family_of("input_reduce_fusion"), family_of("loop_transpose_fusion")
    ('matmul', 'reduction', 'data-movement')
    >>> family_of("convolution fusion (dot_general)"), family_of("custom-call")
    ('matmul', 'custom call')
    """
    word, _, told = word.removesuffix(")").partition(" (")
    first = _first(told) if told else ELEMENTWISE
    return first if first != ELEMENTWISE else _first(word)


def _first(word: str) -> str:
    word = word.lower()
    return next((name for name, pattern in _PATTERNS if pattern.search(word)), ELEMENTWISE)


@cache
def bare_name(name: str) -> str:
    """Return the name of an instruction or a kernel without the numbers and marks behind it.

    >>> bare_name("%cudnn-conv-bw-input.7"), bare_name("input_reduce_fusion_92"), bare_name("fusion.3.remat2.clone")
    ('cudnn-conv-bw-input', 'input_reduce_fusion', 'fusion')
    """
    return _MARKS.sub("", name.removeprefix("%"))


@cache
def instruction_type(instruction: str, kernel: str, category: str = "", made_of: str = "") -> str:
    """Return what kind of instruction it is: the compiler's word, else the instruction's name without its number.

    A word that leaves it open (a call of a library, a fusion) is followed in brackets by what the kernel's name tells,
    or the op that the instruction was made of.

    >>> instruction_type("custom-call.5", "cutlass_80_tensorop_s1688gemm_128x256_16x3_nn_align4")
    'custom-call (matmul)'
    >>> instruction_type("fusion.3", "fusion_3", "convolution fusion", "dot_general")
    'convolution fusion (dot_general)'
    >>> instruction_type("copy-done.2", "copy-done.2", "copy-done", "to device")
    'copy-done (to device)'
    >>> instruction_type("loop_add_fusion.4", "loop_add_fusion_4", made_of="AddV2")
    'loop_add_fusion'
    """
    word = category or bare_name(instruction)
    if not (_OPEN.match(word) or (_CONVOLUTION.match(word) and category)):
        return word
    told = library_family(kernel) or made_of
    return f"{word} ({told})" if told else word


@cache
def library_family(kernel: str) -> str:
    """Return the family of a kernel that belongs to a library or a collective, empty for any other one.

    >>> library_family("ncclDevKernel_AllReduce_Sum_f32_RING_LL"), library_family("volta_scudnn_128x64_relu_medium")
    ('collective', 'convolution')
    >>> library_family("void tensorflow::BiasNCHWKernel<float>")
    ''
    """
    return next((name for name, pattern in _LIBRARIES if pattern.search(kernel)), "")


def fusion_kernel(kernel: str) -> str:
    """Return the name of a fusion that a kernel is called after, empty for any other kernel.

    >>> fusion_kernel("gemm_fusion_dot_6"), fusion_kernel("volta_sgemm_128x64_nn"), fusion_kernel("fusion_12")
    ('gemm_fusion_dot', '', 'fusion')
    """
    name = bare_name(kernel)
    return name if _FUSION_KERNEL.match(name) else ""


def is_wait(category: str) -> bool:
    """Tell whether an instruction of that category only starts or awaits a copy.

    >>> is_wait("copy-done"), is_wait("loop fusion")
    (True, False)
    """
    return category in WAITS


def without_fingerprint(program: str) -> str:
    """Return the name of a module without the number behind it, which tells apart those of one name.

    >>> without_fingerprint("jit_f(17)"), without_fingerprint("a_inference_f_28__.1")
    ('jit_f', 'a_inference_f_28__.1')
    """
    return _FINGERPRINT.sub("", program)


def module_names(programs: Iterable[str]) -> Mapping[str, str]:
    """Return what to put in front of the instructions of each program: its name, with the fingerprint where it must be.

    >>> dict(module_names(["jit_f(17)", "jit_g(18)", "jit_g(19)"]))
    {'jit_f(17)': 'jit_f', 'jit_g(18)': 'jit_g(18)', 'jit_g(19)': 'jit_g(19)'}
    """
    short = {program: without_fingerprint(program) for program in programs}
    count = Counter(short.values())
    return {program: name if count[name] == 1 else program for program, name in short.items()}
