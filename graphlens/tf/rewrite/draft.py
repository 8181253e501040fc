"""A program while it is being edited: nodes by name, who reads them, and the edits that all rewrites are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.edits import EVERYWHERE, Edit, Ops
from graphlens.tf.rewrite import flatten, nodes
from graphlens.tf.rewrite.program import Binding, Program, pruned

# A protobuf cannot hold more than 2 GiB; what else is in a graph needs some of it.
CONSTANT_BYTES_LIMIT = 1_900_000_000


class Draft:
    """An editable copy of a program.  Reads are cheap; every change keeps the readers in step.

    Attributes
    ----------
    outputs
        The tensors returned.
    bindings
        What placeholders stand for; a rewrite adds the weights that it makes.
    gone_inside
        The ops that a rewrite took out of the bodies of loops, by their names where calls are inlined.
    has_dataflow
        Whether the graph branches as TensorFlow 1 did, so that an op with a control edge may be one that never runs.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._nodes: dict[str, Any] = {}
        self._readers: dict[str, dict[str, int]] = defaultdict(dict)
        self.outputs = list(program.outputs)
        self.effects = dict.fromkeys(program.effects)
        self.bindings = dict(program.bindings)
        self._shapes = dict(program.shapes)
        self.library = {function.signature.name: function for function in program.graph.library.function}
        self.compiled = program.compiled
        self.notes: list[str] = list(program.notes)
        self.gone_inside: set[str] = set()
        self._constant_bytes = 0
        self._places: dict[str, int] = {}
        self._early: set[str] = set()  # nodes that stand before an input of theirs
        self._changed: list[str] = []
        self._seen: dict[str, _Seen] = {}
        self.has_dataflow = any(map(nodes.is_dataflow, program.graph.node))
        self._given = frozenset(node.name for node in program.graph.node)
        for node in program.graph.node:
            copy = nodes.NodeDef()
            copy.CopyFrom(node)
            self.add(copy)

    def finished(self) -> Program:
        """Return the edited program, without what nobody needs any more."""
        graph = flatten.graph_of(list(self._nodes.values()), list(self.library.values()), self._program.graph.versions)
        program = replace(
            self._program,
            graph=graph,
            outputs=tuple(self.outputs),
            effects=(*self.effects, *self._orphaned_effects()),
            bindings=self.bindings,
            shapes=self._shapes,
            compiled=self.compiled,
            notes=tuple(self.notes),
        )
        program = replace(program, graph=pruned(program))
        gone = {node.name for node in self._program.graph.node} - {node.name for node in program.graph.node}
        return replace(program, vanished=program.vanished | gone | self.gone_inside)

    def _orphaned_effects(self) -> list[str]:
        """Return the ops with effects, not taken out, that ran only because something waited for them that is gone."""
        given = {node.name: node for node in self._program.graph.node}
        before = _needed(given, self._program.outputs, self._program.effects)
        after = _needed(self._nodes, self.outputs, self.effects)
        return [name for name, node in self._nodes.items() if name in before - after and nodes.has_effect(node)]

    # -- reading ---------------------------------------------------------------------------------------------------

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._nodes))

    def node(self, name: str) -> Any:
        """Return the node ``name``; an error names what is missing."""
        if name not in self._nodes:
            raise RewriteError(f"'{name}' is not an op of the traced graph (it may be inside a loop or a conditional)")
        return self._nodes[name]

    def find(self, name: str) -> str | None:
        """Return the flat name of an op that is named in full or by its name inside its function."""
        if name in self._nodes:
            return name
        ends = [known for known in self._nodes if known.endswith(f"/{name}")]
        return ends[0] if len(ends) == 1 else None

    def producer(self, ref: str) -> Any:
        """Return the node that a tensor comes from."""
        return self._nodes[nodes.source(ref)]

    def readers(self, name: str) -> list[str]:
        """Return the nodes that read an output of ``name`` or wait for it."""
        return list(self._readers[name])

    def reads(self, ref: str) -> list[str]:
        """Return the nodes that read the tensor ``ref``."""
        return [name for name in self._readers[nodes.source(ref)] if ref in self._nodes[name].input]

    def waiting(self, name: str) -> list[str]:
        """Return the nodes with a control edge from ``name``."""
        return [reader for reader in self._readers[name] if f"^{name}" in self._nodes[reader].input]

    def is_fetched(self, name: str) -> bool:
        """Whether the function returns an output of ``name``."""
        return any(nodes.source(ref) == name for ref in self.outputs)

    def is_done(self, names: Sequence[str]) -> bool:
        """Whether ops that an edit names were there and are needed no more, so that nothing is left to edit."""
        vanished = self._program.vanished | self.gone_inside
        return bool(names) and all(
            name in vanished or (name in self._given and not self.is_needed(name)) for name in names
        )

    def is_needed(self, name: str) -> bool:
        """Whether the outputs or effects need ``name``, as things stand: of what is not needed, little is read."""
        kept, todo, seen = self._kept(), [name] if name in self._nodes else [], {name}
        while todo:
            current = todo.pop()
            if current in kept:
                return True
            fresh = self._readers.get(current, {}).keys() - seen
            seen |= fresh
            todo += fresh
        return False

    def inputs_first(self, names: Iterable[str]) -> list[str]:
        """Return ``names`` in an order in which inputs come before their readers."""
        by_place = sorted(names, key=self._places.__getitem__)
        early = min(map(self._places.__getitem__, self._early), default=None)
        if early is None or not by_place or self._places[by_place[-1]] < early:  # as TensorFlow writes a graph
            return by_place
        wanted = set(by_place)
        return [name for name in nodes.inputs_first(self._nodes) if name in wanted]

    def before(self, name: str) -> set[str]:
        """Return the nodes that ``name`` is computed from, or waits for."""
        return _needed(self._nodes, [name], ()) - {name}

    def news(self, asker: str, ops: int = 1) -> list[str]:
        """Return the nodes that changed since ``asker`` last asked, and what is computed from them in so many ops.

        All nodes are news at first.  Whether a node is fetched, and whether it is run for its effect, count as a part
        of it.  What goes through the whole graph after one edit need look at these alone after the next.
        """
        before, now = self._seen.get(asker), _Seen(len(self._changed), self._kept())
        self._seen[asker] = now
        if before is None:
            return list(self._nodes)
        found = {*self._changed[before.changes :], *(before.kept ^ now.kept)}
        latest = found
        for _ in range(ops):
            latest = {reader for name in latest for reader in self._readers.get(name, ())} - found
            found |= latest
        return sorted(found & self._nodes.keys(), key=self._places.__getitem__)

    def _kept(self) -> frozenset[str]:
        return frozenset((*map(nodes.source, self.outputs), *self.effects))

    def only_reader(self, name: str) -> str | None:
        """Return the one op that reads the node's first output, if nothing else has anything to do with the node."""
        readers = self.readers(name)
        alone = len(readers) == 1 and not self.is_fetched(name) and name not in self.effects
        return readers[0] if alone and nodes.tensor(name) in self._nodes[readers[0]].input else None

    def shape(self, ref: str) -> Any:
        """Return what is known of a tensor's shape (a ``TensorShape``, of unknown rank when nothing)."""
        known = self._shapes.get(nodes.source(ref), ())
        index = nodes.port(ref)
        return tf.TensorShape(known[index]) if index < len(known) else tf.TensorShape(None)

    def dtype(self, ref: str) -> Any:
        """Return a tensor's type."""
        node = self.producer(ref)
        key = "dtype" if node.op in {"Placeholder", "Const"} else None
        return tf.as_dtype(node.attr[key].type if key else nodes.output_types(node)[nodes.port(ref)])

    def is_unwritten(self, placeholder: str) -> bool:
        """Whether a placeholder stands for a variable that is known never to be written."""
        binding = self.bindings.get(placeholder)
        is_variable = binding is not None and binding.kind in ("variable", "weight")
        return is_variable and placeholder not in self._program.written

    def is_captured(self, name: str) -> bool:
        """Whether an op stands for a tensor that the function has captured, the same in every call."""
        return name in self.bindings and self.bindings[name].kind == "constant"

    def constant_bytes(self) -> int:
        """Return how much of the graph constants take."""
        return self._constant_bytes

    # -- changing --------------------------------------------------------------------------------------------------

    def add(self, node: Any) -> str:
        """Add a node, which then belongs to the draft, or put it in place of the one of its name."""
        if node.name in self._nodes:
            self._forget(node.name)
        else:
            self._places[node.name] = len(self._changed)  # which only grows
        self._nodes[node.name] = node
        self._remember(node)
        return str(node.name)

    def set_shape(self, name: str, *shapes: Any) -> None:
        """Note the shapes that the outputs of a node, or the first of them, have now."""
        self._shapes[name] = shapes

    def set_inputs(self, name: str, inputs: Sequence[str]) -> None:
        """Replace the inputs of a node."""
        node = self.node(name)
        self._forget(name)
        del node.input[:]
        node.input.extend(inputs)
        self._remember(node)

    def set_input(self, name: str, index: int, ref: str) -> None:
        """Replace one input of a node."""
        inputs = list(self.node(name).input)
        inputs[index] = ref
        self.set_inputs(name, inputs)

    def redirect(self, old: str, new: str, only: Iterable[str] | None = None) -> None:
        """Let the readers of the tensor ``old`` (or those of them in ``only``) read ``new``."""
        chosen = set(self.reads(old)) & set(only) if only is not None else self.reads(old)
        for name in list(chosen):
            self.set_inputs(name, [new if ref == old else ref for ref in self._nodes[name].input])
        if only is None:
            self.outputs = [new if ref == old else ref for ref in self.outputs]

    def rename(self, old: str, new: str) -> None:
        """Give an op another name."""
        copy = nodes.NodeDef()
        copy.CopyFrom(self.node(old))
        copy.name = new
        self.add(copy)
        self._shapes[new] = self._shapes.get(old, ())
        for port in range(len(nodes.output_types(copy))):
            self.redirect(nodes.tensor(old, port), nodes.tensor(new, port))
        for reader in self.readers(old):
            self.set_inputs(reader, [f"^{new}" if ref == f"^{old}" else ref for ref in self._nodes[reader].input])
        if old in self.effects:
            self.effects = {new if effect == old else effect: None for effect in self.effects}
        self.remove(old)

    def bypass(self, name: str, ref: str | None = None) -> None:
        """Take an op out: who reads its first output reads ``ref`` (default: its first input) instead.

        Who read it or waited for it waits for what it waited for.
        """
        node = self.node(name)
        replacement = nodes.data_inputs(node)[0] if ref is None else ref
        waited = nodes.control_inputs(node)
        for reader in dict.fromkeys([*self.reads(nodes.tensor(name)), *self.waiting(name)]):
            self.wait_instead(reader, name, waited)
        self.redirect(nodes.tensor(name), replacement)
        self.effects.pop(name, None)
        if not self._readers[name] and not self.is_fetched(name):
            self.remove(name)

    def wait_instead(self, reader: str, name: str, others: Sequence[str]) -> None:
        """Let ``reader`` wait for what the control edges ``others`` name, and no more for ``name``."""
        kept = [ref for ref in self._nodes[reader].input if ref != f"^{name}"]
        self.set_inputs(reader, [*kept, *(edge for edge in others if edge not in kept)])

    def remove(self, name: str) -> None:
        """Remove an op that nobody reads."""
        self._forget(name)
        del self._nodes[name]
        self._early.discard(name)
        self.effects.pop(name, None)

    def unused(self, wanted: str) -> str:
        """Return ``wanted`` or the next name like it that no node has."""
        name, number = wanted, 0
        while name in self._nodes:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def constant(self, wanted: str, value: np.ndarray, like: Any = None) -> str:
        """Add a constant and return its tensor."""
        node = nodes.make("Const", self.unused(wanted), [], like)
        put_constant(node, value)
        self.set_shape(node.name, tf.TensorShape(value.shape))
        return nodes.tensor(self.add(node))

    def weight(self, wanted: str, value: np.ndarray, variable_name: str, like: Any = None) -> str:
        """Add a variable that holds ``value``, and return the tensor that reads it."""
        read = nodes.make("ReadVariableOp", self.unused(wanted), [], like)
        self.put_weight(read, value, variable_name)
        return nodes.tensor(read.name)

    def put_weight(self, read: Any, value: np.ndarray, variable_name: str) -> None:
        """Make ``read`` the read of a new variable, and add it."""
        handle = nodes.make("Placeholder", self.unused(f"{read.name}/resource"), [], dtype=tf.resource)
        handle.attr["shape"].shape.SetInParent()
        self.bindings[self.add(handle)] = Binding("weight", value, variable_name)
        nodes.set_attribute(read, "dtype", tf.as_dtype(value.dtype))
        read.input.insert(0, nodes.tensor(handle.name))
        self.set_shape(read.name, tf.TensorShape(value.shape))
        self.add(read)

    def _remember(self, node: Any) -> None:
        self._changed.append(node.name)
        place = self._places[node.name]
        if any(self._places.get(nodes.source(ref), place) >= place for ref in node.input):
            self._early.add(node.name)
        else:
            self._early.discard(node.name)
        self._constant_bytes += _stored_bytes(node)
        for ref in node.input:
            counts = self._readers[nodes.source(ref)]
            counts[node.name] = counts.get(node.name, 0) + 1

    def _forget(self, name: str) -> None:
        self._constant_bytes -= _stored_bytes(self._nodes[name])
        for ref in self._nodes[name].input:
            self._readers[nodes.source(ref)].pop(name, None)


@dataclass(frozen=True)
class _Seen:
    """How a draft was when somebody looked at all of it: how often it had changed, and what nothing has to read."""

    changes: int
    kept: frozenset[str]


def _needed(by_name: Mapping[str, Any], outputs: Iterable[str], effects: Iterable[str]) -> set[str]:
    """Return the nodes that outputs and effects lead back to."""
    todo = [*(nodes.source(ref) for ref in outputs), *effects]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in by_name and name not in seen:
            seen.add(name)
            todo += [nodes.source(ref) for ref in by_name[name].input]
    return seen


def _stored_bytes(node: Any) -> int:
    return int(node.ByteSize()) if node.op == "Const" else 0


def put_constant(node: Any, value: np.ndarray) -> None:
    """Write ``value`` into a Const."""
    if value.nbytes > CONSTANT_BYTES_LIMIT:
        raise RewriteError(f"'{node.name}' would be a constant of {value.nbytes / 1e9:.1f} GB; a graph holds 2 GB")
    nodes.set_attribute(node, "dtype", tf.as_dtype(value.dtype) if value.dtype != object else tf.string)
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))


def named(edit: Edit) -> list[str]:
    """Return the ops that an edit names, as they are called in the traced graph; none where it is meant everywhere."""
    where = getattr(edit, "where", EVERYWHERE)
    return list(where.names) if isinstance(where, Ops) else []
