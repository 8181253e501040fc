"""Inline the functions of a graph into one flat DAG, named the way the runtime names inlined ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from graphlens.ir.calls import DEPTH_LIMIT, Callees, Calls, never
from graphlens.ir.effects import acts
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import ARGUMENT, CONTROL, RETURN, Edge, Op
from graphlens.ir.ops import DATASET_LOOPS, OTHER_INPUT_FIRST
from graphlens.ir.table import Table, TableBuilder

_ABSENT: Final = -1  # where a local op has no op of its own in the flat graph


@dataclass(slots=True, eq=False)
class _Frame:
    """One dynamic instance of a function: where it was called from, and the prefix of its ops' names.

    ``flat`` says for each local position the one in the flat graph; ``called`` holds the frames of an op by role.
    ``given`` holds what the call site reads by input port, once it was asked for.
    """

    function: Function
    prefix: str
    parent: _Frame | None = None
    call_site: int = _ABSENT
    depth: int = 0
    flat: list[int] = field(default_factory=list)
    called: dict[tuple[int, str], _Frame] = field(default_factory=dict)
    given: Mapping[int, _Source] | None = None

    @property
    def table(self) -> Table:
        """The function's ops."""
        return self.function.graph


@dataclass(frozen=True, slots=True)
class _Source:
    """A tensor of one frame, by the position of the op that makes it."""

    frame: _Frame
    position: int
    port: int | None


def inline(graph: Graph, opaque: Callable[[Op], bool] = never, *, in_datasets: bool = False) -> Table:
    """Return the flat DAG of ``graph``, starting at its root function; the root's own graph when it calls nothing.

    Parameters
    ----------
    opaque
        Calls for which this is true stay as nodes and are not entered (an XLA cluster in an executed graph).
    in_datasets
        Whether the functions of loops over datasets that tf.data runs are entered as well.

    Raises
    ------
    TargetError
        When the flat graph would be larger than is judged (see :meth:`Calls.refuse_huge`).
    """
    inliner = _Inliner(graph, opaque, in_datasets)
    if not inliner.calls.of(graph.main):
        return graph.main.graph
    inliner.calls.refuse_huge()
    return inliner.run()


def effects(graph: Graph) -> frozenset[str]:
    """Return the ops of the flat graph that run for what they do, whether or not somebody reads what they give.

    A function that TensorFlow traced lists them; in a main graph and in a function without such a list, they are told
    by their types.
    """
    inliner = _Inliner(graph, never)
    found: list[int] = []
    for frame in inliner.frames():
        inliner.add_ops(frame)
        listed = frame.function.control_outputs or frame.table.where(acts)
        found += [at for name in listed if (at := frame.flat[frame.table.position(name)]) != _ABSENT]
    names = inliner.flat.table().names  # ops that would share a name have numbers
    return frozenset(names[at] for at in found)


class _Inliner:
    """The state of one inlining; the walk needs the library, the frames met so far and the result at every turn."""

    def __init__(self, graph: Graph, opaque: Callable[[Op], bool], in_datasets: bool = False) -> None:
        self.calls = Calls(graph, opaque, in_datasets)
        self.root = _Frame(graph.main, "")
        self.flat = TableBuilder()
        self.arguments: dict[str, Mapping[int, int]] = {}

    def run(self) -> Table:
        frames = []
        for frame in self.frames():
            self.add_ops(frame)
            frames.append(frame)
        for frame in frames:
            self._add_edges(frame)
        return self.flat.table()

    def frames(self) -> Iterator[_Frame]:
        """Yield the root and every call that is inlined, outer ones first."""
        stack = [self.root]
        while stack:
            current = stack.pop()
            yield current
            stack.extend(self._enter(current))

    def _entered(self, frame: _Frame) -> Mapping[int, Callees]:
        return self.calls.of(frame.function) if frame.depth < DEPTH_LIMIT else {}

    def absent(self, frame: _Frame) -> set[int]:
        """Return the positions of a frame's ops that have no op in the flat graph: calls, and what joins functions."""
        entered = self._entered(frame).items()
        absent = {position for position, called in entered if any(role == "call" for role, _ in called)}
        if frame is not self.root:
            absent.update(frame.table.positions_of({ARGUMENT, RETURN}))
        return absent

    def add_ops(self, frame: _Frame) -> None:
        """Add the ops of a frame to the flat graph, without their edges."""
        absent = self.absent(frame)
        add, prefix = self.flat.add_op, frame.prefix
        named = zip(frame.table.names, frame.table.bodies, strict=True)
        frame.flat = [
            _ABSENT if position in absent else add(op, prefix + name) for position, (name, op) in enumerate(named)
        ]

    def _enter(self, frame: _Frame) -> Iterator[_Frame]:
        for position, called in self._entered(frame).items():
            name = frame.table.names[position]
            for role, function in called:
                middle = "" if role == "call" else "body/" if role == "dataset" else f"{role}/"
                child = _Frame(function, f"{frame.prefix}{name}/{middle}", frame, position, frame.depth + 1)
                frame.called[(position, role)] = child
                yield child

    # -- edges ----------------------------------------------------------------------------------------------------

    def _add_edges(self, frame: _Frame) -> None:
        table, flat = frame.table, frame.flat
        first, sources, links = table.first, table.sources, table.links
        connect = self.flat.connect
        for position, reader in enumerate(flat):
            if reader == _ABSENT:
                self._control_into_call(frame, position)
                continue
            for at in range(first[position], first[position + 1]):
                source = flat[sources[at]]
                if source != _ABSENT:
                    connect(source, reader, links[at])
                else:
                    self._link(_Source(frame, sources[at], links[at].src_port), reader, links[at])
        for position, called in self._entered(frame).items():
            self._close_bodies(frame, position, called)

    def _link(self, source: _Source, reader: int, edge: Edge) -> None:
        """Join a tensor that comes from another frame to the flat op that reads it."""
        for found in self._resolve(source):
            kept = edge if edge is CONTROL or found.port == edge.src_port else replace(edge, src_port=found.port)
            self._connect(found, reader, kept)

    def _connect(self, source: _Source, reader: int, edge: Edge) -> None:
        flat = source.frame.flat[source.position]
        if flat not in (reader, _ABSENT):
            self.flat.connect(flat, reader, edge)

    def _control_into_call(self, frame: _Frame, call_site: int) -> None:
        """A call waits for its control inputs: so do the ops of the callee that wait for nothing else."""
        child = frame.called.get((call_site, "call"))
        table = frame.table
        span = range(table.first[call_site], table.first[call_site + 1])
        awaited = [table.sources[at] for at in span if table.links[at] is CONTROL]
        if child is None or not awaited:
            return
        for position, op in enumerate(child.table.ops()):
            waits_for_nothing = child.table.first[position] == child.table.first[position + 1]
            if waits_for_nothing and op.type != "Const" and child.flat[position] != _ABSENT:
                for source in awaited:
                    self._link(_Source(frame, source, None), child.flat[position], CONTROL)

    def _close_bodies(self, frame: _Frame, position: int, called: Callees) -> None:
        """A conditional or loop is done when its bodies are: their results feed the node that stands for it."""
        for role, function in called:
            if role == "call":
                continue
            child = frame.called[(position, role)]
            for output in function.outputs:
                for src, edge in function.graph.inputs_at(function.graph.position(output)):
                    for source in self._resolve(_Source(child, src, edge.src_port)):
                        self._connect(source, frame.flat[position], Edge("data", source.port, None))

    def _resolve(self, source: _Source) -> list[_Source]:
        """Follow a tensor through calls and arguments to the ops of the flat graph that produce it."""
        pending, found = [source], []
        seen: set[tuple[int, int, int | None]] = set()
        while pending:
            item = pending.pop()
            key = (id(item.frame), item.position, item.port)
            if key in seen:
                continue
            seen.add(key)
            if item.frame.flat[item.position] != _ABSENT:
                found.append(item)
            elif (item.position, "call") in item.frame.called:
                pending.extend(self._results(item))
            else:
                pending.extend(self._argument(item))
        return found

    def _argument(self, item: _Source) -> Iterator[_Source]:
        frame, parent = item.frame, item.frame.parent
        number = self._numbered(frame.function).get(item.position)
        if parent is None or number is None:
            return
        if frame.given is None:
            read = reversed(parent.table.inputs_at(frame.call_site))
            frame.given = {edge.dst_port or 0: _Source(parent, src, edge.src_port) for src, edge in read}
        call = parent.table.op_at(frame.call_site)
        found = frame.given.get(_port(call, number, len(frame.function.inputs)))
        if found is not None:
            yield found

    def _numbered(self, function: Function) -> Mapping[int, int]:
        """Return position -> the number of the argument that is there."""
        known = self.arguments.get(function.name)
        if known is None:
            table = function.graph
            numbered = enumerate(function.inputs)
            known = {table.position(name): number for number, name in numbered if name in table}
            self.arguments[function.name] = known
        return known

    def _results(self, item: _Source) -> list[_Source]:
        """The tensors behind one output of a call, or all of them when the port is not known."""
        child = item.frame.called[(item.position, "call")]
        outputs = child.function.outputs
        chosen = outputs if item.port is None or item.port >= len(outputs) else (outputs[item.port],)
        return [
            _Source(child, src, edge.src_port)
            for output in chosen
            for src, edge in child.table.inputs_at(child.table.position(output))
        ]


def _port(call: Op, argument: int, arguments: int) -> int:
    """Return the input port of a call that gives its function an argument.

    A loop over a dataset gives the state, the parts of an element, and what the function captures; its inputs are the
    dataset, the state and the captured tensors.
    """
    if call.type not in DATASET_LOOPS:
        return argument + (1 if call.type in OTHER_INPUT_FIRST else 0)
    states, captured = (len(call.attrs.get(name, ())) for name in ("Tstate", "Targuments"))
    parts = arguments - states - captured
    if argument < states:
        return 1 + argument
    return 0 if argument < states + parts else 1 + argument - parts
