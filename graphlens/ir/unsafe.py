"""Which ops of a graph reach out of it: to files, to the network, to Python, or to another process.

The list was made by going through every op that TensorFlow 2.21 registers. An op that TensorFlow does not know is not
unsafe by that alone; one from the TensorFlow I/O library, whose names begin with ``IO>``, is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import networkx as nx

from graphlens.ir.graph import ARGUMENT, Graph, Op, data_inputs, op_of

READS_FILES: Final = "reads files"
WRITES_FILES: Final = "writes files"
NETWORK: Final = "uses the network"
PYTHON: Final = "runs Python code of this process"
PROCESS: Final = "changes this process or another one"

# Op types, by what they do.  A type is matched as a whole.
_ALWAYS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (why, re.compile(f"^({pattern})$"))
    for why, pattern in (
        (PYTHON, r"PyFunc|PyFuncStateless|EagerPyFunc|NumpyFunction|_?PyCall"),
        (
            READS_FILES,
            r"ReadFile|MatchingFiles|(Experimental)?MatchingFilesDataset|WholeFileReader(V2)?|TextLineReader(V2)?"
            r"|FixedLengthRecordReader(V2)?|TFRecordReader(V2)?|LMDBReader|RecordInput|ImmutableConst"
            r"|TextLineDataset(V2)?|TFRecordDataset(V2)?|FixedLengthRecordDataset(V2)?|(Experimental)?CSVDataset(V2)?"
            r"|(Experimental)?SqlDataset|(Experimental)?LMDBDataset|LoadDataset|ListSnapshotChunksDataset"
            r"|SnapshotChunkDataset|SnapshotDatasetReader|SnapshotNestedDatasetReader|Restore(V2|Slice)?"
            r"|DTensorRestoreV2|LoadAndRemapMatrix|GenerateVocabRemapping|Skipgram",
        ),
        (
            WRITES_FILES,
            r"WriteFile|Save(V2|Slices)?|MergeV2Checkpoints|SaveDataset(V2)?|(Experimental)?DatasetToTFRecord"
            r"|SnapshotDataset(V2)?|DistributedSave|DumpTensor|CalibrationStatisticsSaver|CreateSummary(File|Db)Writer"
            r"|Write(Audio|Graph|Histogram|Image|RawProto|Scalar)?Summary|ImportEvent"
            r"|(Experimental)?StatsAggregatorSetSummaryWriter",
        ),
        (
            NETWORK,
            r"DataServiceDataset(V\d)?|RegisterDataset(V2)?|Rpc(Call|Client|Server|ServerRegister|ServerStart|GetValue)"
            r"|TryRpc|Rpc|BigQuery\w*|ConfigureDistributedTPU|_ConfigureDistributedTPU|_WaitForDistributedTPU",
        ),
        (
            PROCESS,
            r"RemoteCall|FileSystemSetConfiguration|Abort|_?XlaHostCompute(Mlir)?|WorkerHeartbeat|ShutdownTPUSystem"
            r"|ShutdownDistributedTPU|_ShutdownDistributedTPU|_DisconnectHostFromDistributedTPUSystem",
        ),
    )
)
_TENSORFLOW_IO: Final = re.compile(r"^(IO>|IO_|KafkaDataset|KinesisDataset|Ignite)")
_TABLE_FROM_FILE: Final = re.compile(r"^InitializeTableFromTextFile(V2)?$")
_DEBUG: Final = re.compile(r"^(Debug(Identity|NanCount|NumericSummary|GradientIdentity)\w*|Copy|CopyHost)$")
_FILE_CACHE: Final = re.compile(r"^CacheDataset(V2)?$")
_EXCHANGE: Final = re.compile(r"^_?(Host)?(Send|Recv)$")
_SAVER_PART: Final = re.compile(r"^(Save(V2|Slices)?|Restore(V2|Slice)?|MergeV2Checkpoints)$")
_MACHINE: Final = re.compile(r"/job:[^/]+(/replica:[^/]+)?(/task:[^/]+)?")

# Names that TensorFlow's exporter gives to functions that `tf.saved_model.load` runs by itself.

# A constant that a loader overwrites with the path of a file inside the SavedModel.

# Ops that hand a file name on; what is behind them decides.
_NAME_BUILDERS: Final = frozenset(
    {"Identity", "StringJoin", "ShardedFilename", "Select", "SelectV2", "Pack", "Reshape"}
)


def unsafe_ops(graph: Graph) -> list[tuple[str, str]]:
    """Return ``(name, why)`` of every op that reaches out of the graph.

    Looked through are the root and all functions it can call.  The name is that of the op in the root function, or
    ``function/op`` for an op of another function.
    """
    return [
        (op.name if function == graph.root else f"{function}/{op.name}", why)
        for function in reachable_functions(graph)
        for op, why in _unsafe_in(graph.functions[function].graph, has_saver=graph.root == "")
    ]


def _unsafe_in(graph: nx.MultiDiGraph, has_saver: bool) -> Iterator[tuple[Op, str]]:
    for name, op in graph.nodes(data="op"):
        why = unsafe_reason(graph, name)
        # A SavedModel's main graph holds the saver beside the model; whoever saves or restores gives it a file name.
        if why and not (has_saver and _SAVER_PART.match(op.type) and _is_given_a_name(graph, name)):
            yield op, why


def reachable_functions(graph: Graph) -> list[str]:
    """Return the root and all functions that it can call, directly or not, in the order met."""
    found = {graph.root: None}
    pending = list(found)
    while pending:
        for _, op in graph.functions[pending.pop(0)].graph.nodes(data="op"):
            for name in (op.type, *(call.function for call in op.calls), *_functions_in(op.attrs)):
                if name in graph.functions and name not in found:
                    found[name] = None
                    pending.append(name)
    return list(found)


def _functions_in(attrs: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text attributes, among which may be names of functions that a loader did not decode as calls."""
    for value in attrs.values():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, str):
                yield item
            elif isinstance(item, Mapping) and isinstance(item.get("name"), str):
                yield item["name"]


def unsafe_reason(graph: nx.MultiDiGraph, name: str) -> str | None:
    """Say what the op reaches, or ``None`` when it stays inside the graph."""
    op = op_of(graph, name)
    return _reason_of_type(op.type) or _conditional_reason(graph, name, op)


@lru_cache(maxsize=4096)  # graphs hold many ops of few types
def _reason_of_type(op_type: str) -> str | None:
    for why, types in _ALWAYS:
        if types.match(op_type):
            return f"{op_type} {why}"
    if _TENSORFLOW_IO.match(op_type):
        return f"{op_type} is an op of TensorFlow I/O, which reads files and uses the network"
    return None


def _conditional_reason(graph: nx.MultiDiGraph, name: str, op: Op) -> str | None:
    """Judge ops that are unsafe only with certain attributes or inputs."""
    if _DEBUG.match(op.type):
        return _debug_reason(op)
    if _EXCHANGE.match(op.type) and _leaves_machine(op):
        return f"{op.type} {NETWORK}: its other end is in another process"
    if op.type == "PrintV2" and str(op.attrs.get("output_stream", "")).startswith("file:"):
        return f"{op.type} {WRITES_FILES}"
    return _named_file_reason(graph, name, op)


def _named_file_reason(graph: nx.MultiDiGraph, name: str, op: Op) -> str | None:
    """Judge ops that use a file only when they are given the name of one."""
    if op.type == "FixedUnigramCandidateSampler" and op.attrs.get("vocab_file"):
        return f"{op.type} {READS_FILES}"
    if _TABLE_FROM_FILE.match(op.type) and not _is_given_a_name(graph, name, position=1):
        return f"{op.type} {READS_FILES}: the name is computed or written in the graph, and is no asset"
    if _FILE_CACHE.match(op.type) and not _is_memory_cache(graph, name):
        return f"{op.type} {WRITES_FILES}: it may cache to a file"
    return None


def _debug_reason(op: Op) -> str | None:
    urls = " ".join(map(str, _as_tuple(op.attrs.get("debug_urls")) + _as_tuple(op.attrs.get("debug_ops_spec"))))
    if "grpc:" in urls:
        return f"{op.type} {NETWORK}"
    return f"{op.type} {WRITES_FILES}" if "file:" in urls else None


def _as_tuple(value: object) -> tuple[object, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _leaves_machine(op: Op) -> bool:
    ends = [_MACHINE.search(str(op.attrs.get(key, ""))) for key in ("send_device", "recv_device")]
    return bool(ends[0] and ends[1] and ends[0][0] != ends[1][0])


def _is_given_a_name(graph: nx.MultiDiGraph, name: str, position: int = 0) -> bool:
    """Tell whether the file name at input ``position`` comes from outside the graph.

    A loader feeds the names of a model's own assets in this way.
    """
    inputs = data_inputs(graph, name)
    pending = inputs[position : position + 1]
    while pending:
        op = op_of(graph, pending.pop())
        if op.type == ARGUMENT or op.type.startswith("Placeholder"):
            return True
        if op.type in _NAME_BUILDERS:
            pending += data_inputs(graph, op.name)[:1]
    return False


def _is_memory_cache(graph: nx.MultiDiGraph, name: str) -> bool:
    """Tell whether the file name of a cache is known to be empty."""
    inputs = data_inputs(graph, name)
    constant = op_of(graph, inputs[1]).constant if len(inputs) > 1 else None
    return constant is not None and constant.nbytes == 0
