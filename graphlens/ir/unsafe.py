"""Which ops of a graph reach out of it: to files, to the network, to Python, or to another process.

The list was made by going through every op that TensorFlow 2.21 registers. An op that TensorFlow does not know is not
unsafe by that alone; one from the TensorFlow I/O library, whose names begin with ``IO>``, is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import ARGUMENT, Op
from graphlens.ir.ops import PLAIN_CALLS
from graphlens.ir.table import Table

READS_FILES: Final = "reads files"
WRITES_FILES: Final = "writes files"
NETWORK: Final = "uses the network"
PYTHON: Final = "runs Python code of this process"
PROCESS: Final = "changes this process or another one"
HIDDEN: Final = "runs a program that stands in data, where nobody can judge it"

# Types that loaders put in place of an input whose value they know the origin of; no graph that runs holds them.
OWN_FILE: Final = "_OwnFile"  # TensorFlow feeds it with the name of a file that belongs to the model
WRITTEN_VALUE: Final = "_WrittenValue"  # TensorFlow feeds it with what the model's file says

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
            r"|SnapshotChunkDataset|SnapshotDatasetReader|SnapshotNestedDatasetReader|DTensorRestoreV2"
            r"|LoadAndRemapMatrix|GenerateVocabRemapping|Skipgram|InitializeTRTResource",
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
        # A serialized graph, iterator or engine; the gradient function is named in a table beside the graph.
        (HIDDEN, r"DatasetFromGraph|DeserializeIterator|TRTEngineOp|SymbolicGradient"),
    )
)
_TENSORFLOW_IO: Final = re.compile(r"^(IO>|IO_|KafkaDataset|KinesisDataset|Ignite)")
_TABLE_FROM_FILE: Final = re.compile(r"^InitializeTableFromTextFile(V2)?$")
_RESTORE: Final = re.compile(r"^Restore(V2|Slice)?$")
_DEBUG: Final = re.compile(r"^(Debug(Identity|NanCount|NumericSummary|GradientIdentity)\w*|Copy|CopyHost)$")
_FILE_CACHE: Final = re.compile(r"^CacheDataset(V2)?$")
_EXCHANGE: Final = re.compile(r"^_?(Host)?(Send|Recv)$")
_PROTO: Final = re.compile(r"^(DecodeProto(V2)?|EncodeProto)$")
_IN_MEMORY_PROTO: Final = re.compile(r"^($|local://$|bytes://)")
_MACHINE: Final = re.compile(r"/job:[^/]+(/replica:[^/]+)?(/task:[^/]+)?")
_FILLED_IN: Final = "${"  # how loaders write an attribute whose value the caller of the function gives

# Ops that hand a file name on, and which of their inputs are names; ``None`` stands for all.
_NAME_BUILDERS: Final[Mapping[str, tuple[int, ...] | None]] = {
    "Identity": (0,),
    "Reshape": (0,),
    "ShardedFilename": (0,),
    "Select": (1, 2),
    "SelectV2": (1, 2),
    "StringJoin": None,
    "Pack": None,
}
_GIVEN: Final = frozenset({"Placeholder", ARGUMENT, OWN_FILE})  # where names come from that the caller chose
_UNKNOWN: Final = "?"


def unsafe_ops(graph: Graph) -> list[tuple[str, str]]:
    """Return ``(name, why)`` of every op that reaches out of the graph.

    Looked through are the root and all functions it can call.  The name is that of the op in the root function, or
    ``function/op`` for an op of another function.
    """
    library = _Library.of(graph)
    return [
        (name if function == graph.root else f"{function}/{name}", why)
        for function in library.reachable
        for name, why in _unsafe_in(library, function)
    ]


def refusal(blockers: Iterable[tuple[str, str]]) -> str | None:
    """Say in one line that a model with these ``(name, why)`` is not executed; ``None`` when there are none."""
    listed = list(blockers)
    if not listed:
        return None
    name, why = listed[0]
    more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
    return f"not executed: op '{name}'{more} {why}; pass --trust to execute it anyway"


def reachable_functions(graph: Graph) -> list[str]:
    """Return the root and all functions that it can call, directly or not, in the order met."""
    return list(_Library.of(graph).reachable)


def unsafe_reason(graph: Table, name: str) -> str | None:
    """Say what the op reaches, or ``None`` when it stays inside the graph."""
    alone = _Library("", {"": Function("", graph)}, ("",), {})
    return _reason(alone, "", name, graph.op(name))


# -- functions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Library:
    """The functions that a root can reach, and for each of them the ``(function, op)`` that may call it."""

    root: str
    functions: Mapping[str, Function]
    reachable: tuple[str, ...]
    call_sites: Mapping[str, list[tuple[str, str]]]

    @classmethod
    def of(cls, graph: Graph) -> _Library:
        """Walk ``graph`` from its root."""
        sites: dict[str, list[tuple[str, str]]] = {graph.root: []}
        pending = [graph.root]
        for function in pending:  # grows while it is walked
            for name, called in _calls_in(graph, function):
                if called not in sites:
                    sites[called] = []
                    pending.append(called)
                sites[called].append((function, name))
        return cls(graph.root, graph.functions, tuple(pending), sites)


def _calls_in(graph: Graph, function: str) -> Iterator[tuple[str, str]]:
    """Yield ``(op, function)`` of the ops of one function that may call another."""
    table = graph.functions[function].graph
    called = {
        (op.type, id(op.attrs)): known
        for op in table.kinds
        if (known := [name for name in _named_by(op) if name in graph.functions])
    }
    if called:
        yield from ((op.name, name) for op in table.ops() for name in called.get((op.type, id(op.attrs)), ()))


def _named_by(op: Op) -> Mapping[str, None]:
    return dict.fromkeys((op.type, *(call.function for call in op.calls), *_functions_in(op.attrs)))


def _functions_in(attrs: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text attributes, among which may be names of functions that a loader did not decode as calls."""
    for value in attrs.values():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, str):
                yield item
            elif isinstance(item, Mapping) and isinstance(item.get("name"), str):
                yield item["name"]


def _unsafe_in(library: _Library, function: str) -> Iterator[tuple[str, str]]:
    table = library.functions[function].graph
    suspects = {(op.type, id(op.attrs)) for op in table.kinds if _may_be_unsafe(op)}
    for op in table.ops() if suspects else ():
        why = _reason(library, function, op.name, op) if (op.type, id(op.attrs)) in suspects else None
        if why:
            yield op.name, why


# -- one op -------------------------------------------------------------------------------------------------------


def _may_be_unsafe(op: Op) -> bool:
    """Tell whether type and attributes make an op unsafe, or its inputs have to be looked at."""
    by_names = _RESTORE.match(op.type) or _TABLE_FROM_FILE.match(op.type) or _FILE_CACHE.match(op.type)
    return bool(by_names or _reason_of_type(op.type) or _reason_of_attributes(op))


def _reason(library: _Library, function: str, name: str, op: Op) -> str | None:
    return _reason_of_type(op.type) or _reason_of_attributes(op) or _reason_of_names(library, function, name, op)


@lru_cache(maxsize=4096)  # graphs hold many ops of few types
def _reason_of_type(op_type: str) -> str | None:
    for why, types in _ALWAYS:
        if types.match(op_type):
            return f"{op_type} {why}"
    if _TENSORFLOW_IO.match(op_type):
        return f"{op_type} is an op of TensorFlow I/O, which reads files and uses the network"
    return None


def _reason_of_attributes(op: Op) -> str | None:
    """Judge ops that are unsafe only with certain attributes."""
    if any(isinstance(value, str) and value.startswith(_FILLED_IN) for value in op.attrs.values()):
        return f"{op.type} has an attribute that its caller fills in, which cannot be judged"
    if _DEBUG.match(op.type):
        return _debug_reason(op)
    if _EXCHANGE.match(op.type) and _leaves_machine(op):
        return f"{op.type} {NETWORK}: its other end is in another process"
    if op.type == "PrintV2" and str(op.attrs.get("output_stream", "")).startswith("file:"):
        return f"{op.type} {WRITES_FILES}"
    reads = (
        (op.type == "FixedUnigramCandidateSampler" and op.attrs.get("vocab_file"))
        or (op.type == "TensorSliceDataset" and op.attrs.get("is_files"))
        or (_PROTO.match(op.type) and not _IN_MEMORY_PROTO.match(str(op.attrs.get("descriptor_source", ""))))
    )
    return f"{op.type} {READS_FILES}" if reads else None


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


# -- file names ---------------------------------------------------------------------------------------------------


def _reason_of_names(library: _Library, function: str, name: str, op: Op) -> str | None:
    """Judge ops by the file name that they are given."""
    if _RESTORE.match(op.type) and _origins(library, function, name, 0) != {OWN_FILE}:
        return f"{op.type} {READS_FILES}"
    if _TABLE_FROM_FILE.match(op.type) and not _origins(library, function, name, 1) <= _GIVEN:
        return f"{op.type} {READS_FILES}: the name is computed or written in the graph, and is no asset"
    if _FILE_CACHE.match(op.type) and not _is_memory_cache(library.functions[function].graph, name):
        return f"{op.type} {WRITES_FILES}: it may cache to a file"
    return None


def _origins(library: _Library, function: str, name: str, port: int) -> set[str]:
    """Return the types of the ops from which the name at input ``port`` is made, through builders and calls."""
    origins: set[str] = set()
    pending = _producers(library, function, name, port)
    seen: set[tuple[str, str]] = set()
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        if place[1] == _UNKNOWN:
            origins.add(_UNKNOWN)
            continue
        op = library.functions[place[0]].graph.op(place[1])
        if op.type in _NAME_BUILDERS:
            pending += _names_into(library, *place, _NAME_BUILDERS[op.type])
        elif op.type == ARGUMENT and place[0] != library.root:
            pending += _arguments(library, *place)
        else:
            origins.add(op.type)
    return origins


def _producers(library: _Library, function: str, name: str, port: int) -> list[tuple[str, str]]:
    edges = library.functions[function].graph.in_edges(name)
    return [(function, src) for src, edge in edges if edge.dst_port == port] or [(function, _UNKNOWN)]


def _names_into(library: _Library, function: str, name: str, ports: tuple[int, ...] | None) -> list[tuple[str, str]]:
    if ports is None:
        edges = library.functions[function].graph.in_edges(name)
        return [(function, src) for src, _ in edges] or [(function, _UNKNOWN)]
    return [producer for port in ports for producer in _producers(library, function, name, port)]


def _arguments(library: _Library, function: str, name: str) -> list[tuple[str, str]]:
    """Return what every caller passes for an argument; calls that shift their arguments are not followed."""
    inputs = library.functions[function].inputs
    sites = library.call_sites.get(function, [])
    plain = all(_is_plain_call(library, site, function) for site in sites)
    if not sites or not plain or name not in inputs:
        return [(function, _UNKNOWN)]
    port = inputs.index(name)
    return [producer for caller, call in sites for producer in _producers(library, caller, call, port)]


def _is_plain_call(library: _Library, site: tuple[str, str], function: str) -> bool:
    op = library.functions[site[0]].graph.op(site[1])
    called = {call.function for call in op.calls}
    single = all(library.functions[function].graph.op(name).outputs for name in library.functions[function].inputs)
    return single and called <= {function} and op.type in {*PLAIN_CALLS, function}


def _is_memory_cache(graph: Table, name: str) -> bool:
    """Tell whether the file name of a cache is known to be empty."""
    names = [graph.op(src).constant for src, edge in graph.in_edges(name) if edge.dst_port == 1]
    return bool(names) and all(constant is not None and constant.nbytes == 0 for constant in names)
