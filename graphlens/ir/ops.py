"""What is known of TensorFlow's op types by name alone: families, and which never run as a timed kernel.

Only facts that several layers share live here.  An op type that is in no set is simply unknown: nothing is assumed.
"""

from __future__ import annotations

import re
from functools import cache

from graphlens.ir.instructions import ELEMENTWISE, family_of

# The runtime never emits an event for these (executor.cc: `IsExpensive()` is false, or they are no kernels at all).
UNTRACED = frozenset(
    """_Arg _Retval _DeviceArg _DeviceRetval Const HostConst NoOp Switch RefSwitch _SwitchN Merge RefMerge Enter
    RefEnter Exit RefExit NextIteration RefNextIteration LoopCond ControlTrigger Identity RefIdentity IdentityN
    Reshape Shape ShapeN Size Rank Squeeze ExpandDims Placeholder PlaceholderWithDefault StopGradient
    PreventGradient VarHandleOp _VarHandlesOp VariableV2 Variable SnapshotV2 _HostCast _ParallelConcatStart""".split()
)

# The same for instructions of XLA: they name or rename buffers, and no thunk runs for them.
UNTRACED_INSTRUCTIONS = frozenset("parameter constant tuple get-tuple-element bitcast".split())

# These complete on another thread; the profiler shows a start and a done, not an interval under the op's name.
ASYNCHRONOUS = frozenset(
    """_Recv _HostRecv Recv IteratorGetNext IteratorGetNextAsOptional IteratorGetNextSync
    MultiDeviceIteratorGetNextFromShard ReduceDataset PartitionedCall StatefulPartitionedCall RemoteCall
    CollectiveReduceV2 CollectiveReduceV3 CollectiveReduce CollectiveGatherV2 CollectiveBcastSendV2
    CollectiveBcastRecvV2 If While Case StatelessIf StatelessWhile StatelessCase MapDefun XlaLaunch XlaRun
    _XlaRun""".split()
)

# These complete when what they call does: its time is theirs, and they have none of their own.
COMPOSITE = frozenset(
    """PartitionedCall StatefulPartitionedCall RemoteCall If While Case StatelessIf StatelessWhile StatelessCase
    MapDefun XlaLaunch XlaRun _XlaRun""".split()
)

# What the partitioner puts in where a tensor changes its device; each is named after the op that makes the tensor.
TRANSFERS = frozenset("_Send _Recv _HostSend _HostRecv Send Recv".split())

CONTROL_FLOW = frozenset(
    """Switch RefSwitch _SwitchN Merge RefMerge Enter RefEnter Exit RefExit NextIteration RefNextIteration
    LoopCond""".split()
)

CONSTANTS = frozenset({"Const", "HostConst"})
VARIABLE_READS = frozenset({"ReadVariableOp", "_ReadVariablesOp", "ResourceGather", "ResourceGatherNd"})
VARIABLE_WRITES = re.compile(
    r"^(Assign\w*VariableOp|AssignVariableXlaConcatND|Resource(Sparse)?Apply\w+|ResourceScatter\w+|ResourceStridedSliceAssign"
    r"|Assign|AssignAdd|AssignSub|(Sparse)?Apply[A-Z]\w*|Scatter(Add|Sub|Update|Mul|Div|Min|Max|NdUpdate|NdAdd|NdSub))$"
)

_FAMILIES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("convolution", re.compile(r"Conv[23]D|DepthwiseConv|^Conv$|_FusedConv")),
    ("matmul", re.compile(r"MatMul|Einsum|XlaDot|^dot$")),
    ("recurrent", re.compile(r"LSTM|GRU|CudnnRNN")),
    ("collective", re.compile(r"^Collective|Nccl|AllReduce")),
    ("copy", re.compile(r"^_?(Host)?(Send|Recv)$|Memcpy|^Copy(Host)?$")),
    ("input", re.compile(r"Iterator|Dataset|^Parse|^Decode|ReadFile|Queue|TFRecord")),
    ("string", re.compile(r"String|Regex|Substr|LookupTable|Base64|Hash|Unicode|AsString")),
    ("normalization", re.compile(r"BatchNorm|LayerNorm|InstanceNorm|Lrn|^LRN|L2Normal")),
    ("pooling", re.compile(r"Pool")),
    ("optimizer", re.compile(r"^Resource(Sparse)?Apply|^Apply[A-Z]")),
    ("variable", re.compile(r"Variable|VarHandle|VarIsInit")),
    ("random", re.compile(r"Random|Multinomial|Dropout|StatelessTruncated")),
    (
        "data-movement",
        re.compile(
            r"Transpose|Concat|Pad|Slice|Gather|Scatter|^Pack$|^Unpack$|Split|Tile|Cast|BroadcastTo|Reverse|Reshape"
            r"|Squeeze|ExpandDims|Space(To|ToBatch)|BatchToSpace|DepthToSpace|Where|Unique|OneHot|Select|Roll|Fill"
            r"|^Identity|Snapshot|DeepCopy|TensorList|ResizeB|ResizeN|ToTf|MklToTf|Reorder"
        ),
    ),
    (
        "reduction",
        re.compile(
            r"^(_Mkl)?(Sum|Mean|Max|Min|Prod|All|Any|ArgMax|ArgMin|Cumsum|Cumprod|TopK\w*|Euclidean\w*|SegmentSum|UnsortedSegment\w*|Bincount|L2Loss)$"
        ),
    ),
    ("softmax", re.compile(r"Softmax|CrossEntropy")),
    (
        "control-flow",
        re.compile(
            r"^(Switch|Merge|Enter|Exit|NextIteration|LoopCond|While|If|Case|StatelessIf|StatelessWhile|PartitionedCall|StatefulPartitionedCall)$"
        ),
    ),
)


@cache
def family(op_type: str) -> str:
    """Return the family that an op type's time is booked under; what no pattern knows is ``elementwise and other``.

    TensorFlow begins its types with a capital letter, XLA writes its words small.

    >>> family("FusedBatchNormV3"), family("cudnn-conv"), family("custom-call (matmul)"), family("Kernel (matmul)")
    ('normalization', 'convolution', 'matmul', 'matmul')
    """
    told = next((name for name, pattern in _FAMILIES if pattern.search(op_type)), ELEMENTWISE)
    return family_of(op_type) if told == ELEMENTWISE and is_instruction(op_type) else told


def is_instruction(op_type: str) -> bool:
    """Tell whether a type is that of an instruction of XLA, or of a kernel that is known by its own name alone.

    >>> is_instruction("loop fusion"), is_instruction("Kernel (matmul)"), is_instruction("MatMul")
    (True, True, False)
    """
    return op_type[:1].islower() or op_type.startswith("Kernel (")


@cache
def runtime_type(op_type: str) -> str:
    """Strip the marks that oneDNN puts on a runtime op type: ``_MklNativeConv2D`` is a ``Conv2D``.

    >>> runtime_type("_MklNativeConv2D"), runtime_type("_MklMatMul"), runtime_type("_FusedConv2D"), runtime_type("Relu")
    ('Conv2D', 'MatMul', '_FusedConv2D', 'Relu')
    >>> runtime_type("_MklNativeFusedConv2D"), runtime_type("_MklNativeFusedBatchNormV3")
    ('_FusedConv2D', 'FusedBatchNormV3')
    """
    bare = re.sub(r"^_Mkl(Native)?", "", op_type)
    if bare == op_type:
        return op_type
    # A normalization is called fused as it is written; what Grappler has fused has an underscore.
    return f"_{bare}" if re.match(r"Fused(?!BatchNorm(Grad)?(V\d)?$)", bare) else bare


def is_convolution(op_type: str) -> bool:
    """Tell whether this op type computes a convolution (any rank, depthwise, fused, oneDNN, or a gradient of one)."""
    return family(op_type) == "convolution"


def is_matmul(op_type: str) -> bool:
    """Tell whether this op type computes a matrix product (batched, fused or through Einsum included)."""
    return family(op_type) == "matmul"


def is_variable_write(op_type: str) -> bool:
    """Tell whether this op type changes a variable."""
    return bool(VARIABLE_WRITES.match(op_type))
