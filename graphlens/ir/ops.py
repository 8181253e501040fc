"""The catalogue of op types: what is known of an op by its type alone, each trait under one name.

What only one rule or formula decides for itself stays there, put together from these.  What follows from TensorFlow's
registry is in :mod:`graphlens.ir.effects`.  An op type that is in no set is simply unknown: nothing is assumed.
"""

from __future__ import annotations

import re
from functools import cache

from graphlens.ir.instructions import ELEMENTWISE, family_of

# -- the frame of a function, constants and variables --------------------------------------------------------------

ARGUMENTS = frozenset({"_Arg", "_DeviceArg"})
RETURNS = frozenset({"_Retval", "_DeviceRetval"})
PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
FED = ARGUMENTS | PLACEHOLDERS  # what the caller gives

CONSTANTS = frozenset({"Const", "HostConst"})
REFERENCE_VARIABLES = frozenset({"Variable", "VariableV2"})  # of TensorFlow 1: the op gives the variable itself
VARIABLE_HANDLES = frozenset({"VarHandleOp", "_VarHandlesOp"})
WHOLE_READS = frozenset({"ReadVariableOp", "_ReadVariablesOp"})  # of all elements
VARIABLE_READS = WHOLE_READS | {"ResourceGather", "ResourceGatherNd"}
# What may be done with a variable's handle without changing the variable; of every other op it is assumed.
HANDLE_READS = VARIABLE_READS | {"VariableShape", "VarIsInitializedOp"}
VARIABLE_WRITES = re.compile(
    r"^(Assign\w*VariableOp|AssignVariableXlaConcatND|Resource(Sparse)?Apply\w+|ResourceScatter\w+|ResourceStridedSliceAssign"
    r"|StridedSliceAssign|(Resource)?CountUpTo|Assign|AssignAdd|AssignSub|(Sparse)?Apply[A-Z]\w*"
    r"|Scatter(Add|Sub|Update|Mul|Div|Min|Max|Nd(Update|Add|Sub|Min|Max)))$"
)
LOOKUPS = frozenset({"LookupTableFind", "LookupTableFindV2"})

# -- control flow, calls and what goes between devices -------------------------------------------------------------

PLAIN_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
CONDITIONALS = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
LOOPS = frozenset({"While", "StatelessWhile"})
SWITCHES = frozenset({"Switch", "RefSwitch", "_SwitchN"})
MERGES = frozenset({"Merge", "RefMerge"})
ENTERS = frozenset({"Enter", "RefEnter"})
EXITS = frozenset({"Exit", "RefExit"})
NEXT_ITERATIONS = frozenset({"NextIteration", "RefNextIteration"})
# Of TensorFlow 1 and of lowered loops: a tensor may be dead, or one of many iterations'.
CONTROL_FLOW = SWITCHES | MERGES | ENTERS | EXITS | NEXT_ITERATIONS | {"LoopCond"}
# Who has what these give has the handle of the variable that they got.
HANDS_ON_HANDLES = CONTROL_FLOW | {"Identity", "IdentityN", "StopGradient"}
# These decide on the host what runs next.
DECIDERS = SWITCHES | CONDITIONALS | LOOPS | {"LoopCond"}

SENDS = frozenset({"_Send", "_HostSend", "Send"})
RECEIVES = frozenset({"_Recv", "_HostRecv", "Recv"})
# What the partitioner puts in where a tensor changes its device; each is named after the op that makes the tensor.
TRANSFERS = SENDS | RECEIVES
# Calls and conditionals whose first input is no argument of the function: where it runs, or which one.
OTHER_INPUT_FIRST = CONDITIONALS | {"RemoteCall"}
# Calls of a function that is not run as part of the graph: what it reads and writes is not seen.
WHOLE_CALLS = PLAIN_CALLS | {"RemoteCall", "TPUPartitionedCall", "XlaLaunch", "XlaLaunchV2", "_XlaCompile", "_XlaRun"}
# These hold a whole program of another framework (StableHLO), which XLA compiles.
PROGRAMS = frozenset({"XlaCallModule"})
PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "PyCall"})

# -- what hands its input on, or looks at no element of it ---------------------------------------------------------

# These give what they get, and Grappler removes them before it fuses anything.
PASSES = frozenset({"Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot"})
RESHAPES = frozenset({"Reshape", "Squeeze", "ExpandDims"})
SHAPE_READERS = frozenset({"Shape", "ShapeN", "Size", "Rank"})  # their result is in host memory on every device
# These hand on the buffer of their first input at every output.
VIEWS = (
    SWITCHES | ENTERS | EXITS | NEXT_ITERATIONS | SENDS | RESHAPES | (PASSES - {"IdentityN"})
    | {"RefIdentity", "Bitcast", "CheckNumerics", "LoopCond"}
)  # fmt: skip

# -- arithmetic ----------------------------------------------------------------------------------------------------

SUMS = frozenset({"Add", "AddV2"})
QUOTIENTS = frozenset({"RealDiv", "Div"})
SCALINGS = QUOTIENTS | {"Mul"}
SELECTIONS = frozenset({"Select", "SelectV2"})
COMPARISONS = frozenset({"Greater", "GreaterEqual", "Less", "LessEqual"})
# Of one tensor, each element by itself, and of two tensors that are broadcast to each other; all keep the type.
UNARY = frozenset(
    """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Digamma Elu Erf Erfc Erfinv Exp Expm1 Floor Inv Invert
    LeakyRelu Lgamma Log Log1p LogicalNot Ndtri Neg Reciprocal Relu Relu6 Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh
    Softplus Softsign Sqrt Square Tan Tanh""".split()
)
# Of one tensor as well: what converts or checks each element, or gives it as it is.
PER_ELEMENT = UNARY | {"Cast", "Identity", "StopGradient", "CheckNumerics"}
BINARY = SUMS | SCALINGS | frozenset("Sub Maximum Minimum DivNoNan Pow SquaredDifference".split())
ACTIVATIONS = frozenset("Relu Relu6 Elu LeakyRelu Tanh Sigmoid Selu Softplus".split())
REDUCTIONS = frozenset("Sum Mean Max Min Prod All Any ArgMax ArgMin BiasAddGrad Cumsum Cumprod L2Loss".split())

# -- layers --------------------------------------------------------------------------------------------------------

TRANSPOSED_CONVOLUTIONS = frozenset({"Conv2DBackpropInput", "Conv2DBackpropInputV2", "Conv3DBackpropInputV2"})
CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative", "Conv3D"})
BATCH_PRODUCTS = frozenset({"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"})
PRODUCTS = BATCH_PRODUCTS | {"MatMul", "Einsum"}
BATCH_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
BATCH_NORMS_AS_RUN = BATCH_NORMS | {"_FusedBatchNormEx"}  # with an activation or a sum, as Grappler makes them
PADS = frozenset({"Pad", "PadV2"})

# -- what is there to find mistakes --------------------------------------------------------------------------------

PRINTS = frozenset(
    """Print PrintV2 AudioSummary AudioSummaryV2 HistogramSummary ImageSummary ScalarSummary TensorSummary
    TensorSummaryV2 MergeSummary Timestamp""".split()
)
ASSERTIONS = frozenset({"Assert"})
CHECKS = frozenset({"CheckNumerics", "CheckNumericsV2"})
DEBUGGER = frozenset(
    """DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugGradientIdentity DebugGradientRefIdentity DebugNanCount
    DebugNumericSummary DebugNumericSummaryV2 DumpTensor CopyHost SleepOp SleepIdentityOp""".split()
)

# -- how the runtime treats them -----------------------------------------------------------------------------------

# The runtime never emits an event for these (executor.cc: `IsExpensive()` is false, or they are no kernels at all).
UNTRACED = (
    ARGUMENTS | RETURNS | PLACEHOLDERS | CONSTANTS | VARIABLE_HANDLES | REFERENCE_VARIABLES | CONTROL_FLOW
    | RESHAPES | SHAPE_READERS
    | frozenset(
        """NoOp ControlTrigger Identity RefIdentity IdentityN StopGradient PreventGradient _HostCast
        _ParallelConcatStart""".split()
    )
)  # fmt: skip
# The same for instructions of XLA: they name or rename buffers, and no thunk runs for them.
UNTRACED_INSTRUCTIONS = frozenset("parameter constant tuple get-tuple-element bitcast".split())

# These complete when what they call does: its time is theirs, and they have none of their own.
COMPOSITE = PLAIN_CALLS | CONDITIONALS | LOOPS | {"RemoteCall", "MapDefun", "XlaLaunch", "XlaRun", "_XlaRun"}
LOOP_OVER_DATASET = "ReduceDataset"  # within tf.data: AutoGraph makes one of `for x in dataset`
# The ops that it makes for that; the body of the loop is the function of the first one, which is then reduced.
DATASET_LOOPS = frozenset({"ScanDataset", LOOP_OVER_DATASET})
# These wait for the next element of a dataset, or for a loop over one that tf.data runs.
INPUT_REQUESTS = frozenset(
    """IteratorGetNext IteratorGetNextAsOptional IteratorGetNextSync MultiDeviceIteratorGetNextFromShard
    ReduceDataset""".split()
)
# These complete on another thread; the profiler shows a start and a done, not an interval under the op's name.
ASYNCHRONOUS = (
    COMPOSITE | RECEIVES | INPUT_REQUESTS
    | frozenset(
        """CollectiveReduceV2 CollectiveReduceV3 CollectiveReduce CollectiveGatherV2 CollectiveBcastSendV2
        CollectiveBcastRecvV2""".split()
    )
)  # fmt: skip

# -- families ------------------------------------------------------------------------------------------------------

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
