"""Inline the functions of a graph into one flat DAG, named the way the runtime names inlined ops."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import networkx as nx

from graphlens.errors import TargetError
from graphlens.facts.renames import as_written
from graphlens.ir.graph import (
    ARGUMENT,
    CONTROL,
    RETURN,
    Edge,
    Function,
    Graph,
    Op,
    TensorSpec,
    in_edges,
    op_of,
)
from graphlens.ir.ops import is_variable_write
from graphlens.ir.run import ReplayRecord

# A library of a few nested functions can denote exponentially many ops; a flat graph beyond this is refused.
FLAT_OPS_LIMIT: Final = 3_000_000
FLAT_CALLS_LIMIT: Final = 300_000
DEPTH_LIMIT: Final = 100

# Call sites that disappear when inlined; conditionals and loops stay as nodes beside their inlined bodies.
_PLAIN_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "RemoteCall"})
_BODY_ROLES = re.compile(r"^(then|else|cond|body|branch_\d+)$")
_COUNTER_SEGMENT = re.compile(r"/_\d+(?=/)")

# Scopes that TensorFlow's own ops open inside a layer; they do not name a layer.
_OP_SCOPE = re.compile(
    r"^(batchnorm|BatchNorm|moments|[Tt]ensordot|FusedBatchNormV3|softmax_cross_entropy|dropout|Cast)(_\d+)?$"
)
_CALL_SEGMENT = re.compile(r"^(Stateful)?PartitionedCall(_\d+)?$|^_\d+$")


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """One dynamic instance of a function: where it was called from, and the prefix of its ops' names."""

    function: Function
    prefix: str
    parent: _Frame | None = None
    call_site: str = ""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class _Source:
    """A tensor of one frame."""

    frame: _Frame
    node: str
    port: int | None


def never(_: Op) -> bool:
    """Keep no call opaque: the default of :func:`inline`."""
    return False


def inline(graph: Graph, opaque: Callable[[Op], bool] = never) -> nx.MultiDiGraph:
    """Return the flat DAG of ``graph``, starting at its root function; the root's own graph when it calls nothing.

    Parameters
    ----------
    opaque
        Calls for which this is true stay as nodes and are not entered (an XLA cluster in an executed graph).

    Raises
    ------
    TargetError
        When the flat graph would hold more than ``FLAT_OPS_LIMIT`` ops or ``FLAT_CALLS_LIMIT`` calls.
    """
    inliner = _Inliner(graph, opaque)
    return inliner.run() if inliner.has_calls() else graph.main.graph


class _Inliner:
    """The state of one inlining; the walk needs the library, the frames met so far and the result at every turn."""

    def __init__(self, graph: Graph, opaque: Callable[[Op], bool]) -> None:
        self.library = graph.functions
        self.opaque = opaque
        self.root = _Frame(graph.main, "")
        self.frames: dict[tuple[int, str, str], _Frame] = {}
        self.inputs: dict[tuple[int, str], dict[int, _Source]] = {}
        self.flat = nx.MultiDiGraph()

    def has_calls(self) -> bool:
        return any(self._entered(self.root, op) for _, op in self.root.function.graph.nodes(data="op"))

    def run(self) -> nx.MultiDiGraph:
        for frame in list(self._walk(self.root)):
            self._add_edges(frame)
        return self.flat

    def _walk(self, frame: _Frame) -> Iterator[_Frame]:
        stack = [frame]
        while stack:
            current = stack.pop()
            yield current
            self._add_ops(current)
            stack.extend(self._callees(current))

    def _add_ops(self, frame: _Frame) -> None:
        nested = frame is not self.root
        for name, op in frame.function.graph.nodes(data="op"):
            if self._vanishes(frame, op) or (nested and op.type in (ARGUMENT, RETURN)):
                continue
            flat_name = frame.prefix + name
            self.flat.add_node(flat_name, op=replace(op, name=flat_name) if frame.prefix else op)
        if self.flat.number_of_nodes() > FLAT_OPS_LIMIT or len(self.frames) > FLAT_CALLS_LIMIT:
            raise TargetError(
                f"the graph denotes more than {FLAT_OPS_LIMIT:,} ops or {FLAT_CALLS_LIMIT:,} calls once its functions "
                "are inlined; analyze a smaller signature"
            )

    def _callees(self, frame: _Frame) -> Iterator[_Frame]:
        for name, op in frame.function.graph.nodes(data="op"):
            for role, function in self._entered(frame, op):
                middle = "" if role == "call" else f"{role}/"
                child = _Frame(function, f"{frame.prefix}{name}/{middle}", frame, name, frame.depth + 1)
                self.frames[(id(frame), name, role)] = child
                yield child

    def _entered(self, frame: _Frame, op: Op) -> list[tuple[str, Function]]:
        """Return the functions of ``op`` that are inlined, with their roles."""
        if not op.calls and op.type not in self.library:
            return []
        if frame.depth >= DEPTH_LIMIT or self.opaque(op):
            return []
        if op.type in self.library:  # a TF1 call: the function's name is the op's type
            return [("call", self.library[op.type])]
        return [
            (call.role, self.library[call.function])
            for call in op.calls
            if call.function in self.library
            and ((call.role == "call" and op.type in _PLAIN_CALLS) or _BODY_ROLES.match(call.role))
        ]

    def _vanishes(self, frame: _Frame, op: Op) -> bool:
        return any(role == "call" for role, _ in self._entered(frame, op))

    # -- edges ----------------------------------------------------------------------------------------------------

    def _add_edges(self, frame: _Frame) -> None:
        graph = frame.function.graph
        for src, dst, edge in graph.edges(data="edge"):
            op = op_of(graph, dst)
            if op.type == RETURN and frame is not self.root:
                continue
            if self._vanishes(frame, op):
                if edge.kind == "control":
                    self._control_into_call(frame, src, dst)
                continue
            if edge.kind == "control":
                self._link_control(frame, src, frame.prefix + dst)
            else:
                for source in self._resolve(_Source(frame, src, edge.src_port)):
                    self._link(source, frame.prefix + dst, edge)
        for name, op in graph.nodes(data="op"):
            self._close_bodies(frame, name, op)

    def _link(self, source: _Source, dst: str, edge: Edge) -> None:
        kept = edge if source.port == edge.src_port else replace(edge, src_port=source.port)
        src = source.frame.prefix + source.node
        if src != dst:
            self.flat.add_edge(src, dst, edge=kept)

    def _link_control(self, frame: _Frame, src: str, dst: str) -> None:
        for source in self._resolve(_Source(frame, src, None)):
            if source.frame.prefix + source.node != dst:
                self.flat.add_edge(source.frame.prefix + source.node, dst, edge=CONTROL)

    def _control_into_call(self, frame: _Frame, src: str, call_site: str) -> None:
        """A call waits for its control inputs: so do the ops of the callee that wait for nothing else."""
        child = self.frames[(id(frame), call_site, "call")]
        for name, op in child.function.graph.nodes(data="op"):
            inner = child.function.graph
            waits_for_nothing = op.type not in (ARGUMENT, RETURN, "Const") and not inner.in_degree(name)
            if waits_for_nothing and not self._vanishes(child, op):
                self._link_control(frame, src, child.prefix + name)

    def _close_bodies(self, frame: _Frame, name: str, op: Op) -> None:
        """A conditional or loop is done when its bodies are: their results feed the node that stands for it."""
        for role, function in self._entered(frame, op):
            if role == "call":
                continue
            child = self.frames[(id(frame), name, role)]
            for output in function.outputs:
                for src, edge in in_edges(function.graph, output):
                    for source in self._resolve(_Source(child, src, edge.src_port)):
                        self._link(source, frame.prefix + name, Edge("data", source.port, None))

    def _resolve(self, source: _Source) -> list[_Source]:
        """Follow a tensor through calls and arguments to the ops of the flat graph that produce it."""
        pending, found = [source], []
        seen: set[tuple[int, str, int | None]] = set()
        while pending:
            item = pending.pop()
            key = (id(item.frame), item.node, item.port)
            if key in seen:
                continue
            seen.add(key)
            op = op_of(item.frame.function.graph, item.node)
            if op.type == ARGUMENT and item.frame.parent is not None:
                pending.extend(self._argument(item))
            elif self._vanishes(item.frame, op):
                pending.extend(self._results(item))
            else:
                found.append(item)
        return found

    def _argument(self, item: _Source) -> list[_Source]:
        frame = item.frame
        assert frame.parent is not None
        position = frame.function.inputs.index(item.node) if item.node in frame.function.inputs else -1
        offset = 1 if op_of(frame.parent.function.graph, frame.call_site).type in _CONDITIONAL_TYPES else 0
        source = self._call_inputs(frame.parent, frame.call_site).get(position + offset)
        return [source] if source else []

    def _call_inputs(self, frame: _Frame, call_site: str) -> dict[int, _Source]:
        key = (id(frame), call_site)
        if key not in self.inputs:
            self.inputs[key] = {
                edge.dst_port or 0: _Source(frame, src, edge.src_port)
                for src, edge in in_edges(frame.function.graph, call_site)
            }
        return self.inputs[key]

    def _results(self, item: _Source) -> list[_Source]:
        """The tensors behind one output of a call, or all of them when the port is not known."""
        child = self.frames[(id(item.frame), item.node, "call")]
        outputs = child.function.outputs
        chosen = outputs if item.port is None or item.port >= len(outputs) else (outputs[item.port],)
        return [
            _Source(child, src, edge.src_port)
            for output in chosen
            for src, edge in in_edges(child.function.graph, output)
        ]


# The first input of these is the predicate or the index; the branches' arguments start at the second.
_CONDITIONAL_TYPES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})


def canonical_name(name: str) -> str:
    """Drop the counters that lowering puts into names: ``while/body/_1/add`` becomes ``while/body/add``.

    >>> canonical_name("while/body/_1/cell/MatMul"), canonical_name("a/_12")
    ('while/body/cell/MatMul', 'a/_12')
    """
    return _COUNTER_SEGMENT.sub("", name)


def layer_of(name: str, ops: Container[str] = ()) -> str | None:
    """Return the scope that names the layer of a flat op name, without call sites and scopes of single ops.

    ``ops`` are the names of all ops of the graph: a scope that is an op's name holds parts of that op.

    >>> layer_of("StatefulPartitionedCall/StatefulPartitionedCall/net/bn_1/batchnorm/mul_1")
    'net/bn_1'
    >>> layer_of("net/conv/convolution/ReadVariableOp", ops={"net/conv/convolution"})
    'net/conv'
    >>> layer_of("Relu") is None
    True
    """
    segments = name.split("/")[:-1]
    while segments and (_OP_SCOPE.match(segments[-1]) or "/".join(segments) in ops):
        segments.pop()
    return "/".join(part for part in segments if not _CALL_SEGMENT.match(part)) or None


def with_shapes(
    executed: nx.MultiDiGraph,
    traced: nx.MultiDiGraph | None,
    replay: Mapping[str, ReplayRecord],
    renamed: Mapping[str, str | None] = MappingProxyType({}),
) -> nx.MultiDiGraph:
    """Give ``executed`` its output shapes: observed by the replay first, else as far as traced."""
    observed = {canonical_name(name): record for name, record in replay.items()}
    static = {canonical_name(name): op for name, op in traced.nodes(data="op")} if traced is not None else {}
    for name, data in executed.nodes(data=True):
        outputs = _known_outputs(canonical_name(name), observed, static, renamed)
        if outputs and not _complete(data["op"].outputs):
            data["op"] = replace(data["op"], outputs=outputs)
    return executed


def _known_outputs(
    name: str, observed: Mapping[str, ReplayRecord], static: Mapping[str, Op], renamed: Mapping[str, str | None]
) -> tuple[TensorSpec, ...]:
    record = observed.get(name)
    if record and record.outputs:
        return tuple(TensorSpec(dtype, shape) for dtype, shape in record.outputs)
    return next((static[written].outputs for written in as_written(name, renamed) if written in static), ())


def _complete(outputs: tuple[TensorSpec, ...]) -> bool:
    return bool(outputs) and all(spec.elements is not None for spec in outputs)


def is_training(graph: nx.MultiDiGraph, declared: bool | None) -> bool:
    """Tell whether the flat graph trains; ``declared`` (from the recorder) wins where it is known."""
    if declared is not None:
        return declared
    return any("Apply" in op.type and is_variable_write(op.type) for _, op in graph.nodes(data="op"))


def is_compiled(op: Op) -> bool:
    """XLA runs such a call as a whole; the ops of its body never run one by one."""
    return bool(op.attrs.get("_XlaMustCompile"))
