"""Where a loop stands: in the graph, or in the body of another loop; what is taken out of it is put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from graphlens.ir.ops import LOOPS
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.draft import Draft

BODY: Final = "/body/"  # between the name of a loop and those of its body's ops, where calls are inlined


class Place(Protocol):
    """What is around a loop, in whose notation the loop's inputs are written; ``prefix`` is that of its ops' names."""

    @property
    def prefix(self) -> str:
        """What precedes the names of the ops here, where calls are inlined."""

    def add(self, node: Any, wanted: str) -> None:
        """Add a node under a name like ``wanted``, which it is given."""

    def ref(self, node: Any, port: int) -> str:
        """Return how an output of ``node`` is read here."""

    def is_unwritten(self, ref: str) -> bool:
        """Whether a handle is that of a variable which is known never to be written."""

    def set_inputs(self, node: Any, inputs: Sequence[str]) -> None:
        """Replace the inputs of a node."""


@dataclass(frozen=True)
class InGraph:
    """The graph itself."""

    draft: Draft
    prefix: str = ""

    def add(self, node: Any, wanted: str) -> None:
        node.name = self.draft.unused(wanted)
        self.draft.add(node)

    def ref(self, node: Any, port: int) -> str:
        return nodes.tensor(node.name, port)

    def is_unwritten(self, ref: str) -> bool:
        return self.draft.is_unwritten(nodes.source(ref))

    def set_inputs(self, node: Any, inputs: Sequence[str]) -> None:
        self.draft.set_inputs(node.name, inputs)


@dataclass(frozen=True)
class Loop:
    """A loop: its op, its body, which variables the body hands on unchanged (argument -> position), and its place."""

    node: Any
    body: Any
    constant: Mapping[str, int]
    place: Place

    @property
    def prefix(self) -> str:
        """What precedes the names of the ops of the body, where calls are inlined."""
        return f"{self.place.prefix}{self.node.name}{BODY}"

    @property
    def by_name(self) -> dict[str, Any]:
        """The ops of the body."""
        return {node.name: node for node in self.body.node_def}


@dataclass(frozen=True)
class InBody:
    """The body of a loop, which no other loop shares."""

    loop: Loop

    @property
    def prefix(self) -> str:
        return self.loop.prefix

    def add(self, node: Any, wanted: str) -> None:
        body = self.loop.body
        taken = {one.name for one in (*body.node_def, *body.signature.input_arg)}
        name, number = wanted, 0
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        node.name = name
        body.node_def.append(node)

    def ref(self, node: Any, port: int) -> str:
        """Return ``op:argument:index``, as functions write it."""
        argument, first = max(
            ((name, first) for name, first in nodes.output_offsets(node).items() if first <= port),
            key=lambda pair: pair[1],
        )
        return f"{node.name}:{argument}:{port - first}"

    def is_unwritten(self, ref: str) -> bool:
        """Whether the body hands the handle on, and it is unwritten where the loop gets it."""
        position = self.loop.constant.get(ref)
        return position is not None and self.loop.place.is_unwritten(nodes.data_inputs(self.loop.node)[position])

    def set_inputs(self, node: Any, inputs: Sequence[str]) -> None:
        del node.input[:]
        node.input.extend(inputs)


def loop_at(draft: Draft, node: Any, place: Place) -> Loop:
    """Return the loop whose op is ``node``."""
    body = draft.library[node.attr["body"].func.name]
    by_name = {inner.name: inner for inner in body.node_def}
    arguments = zip(body.signature.input_arg, body.signature.output_arg, strict=True)
    constant = {
        argument.name: position
        for position, (argument, result) in enumerate(arguments)
        if _handed_on(body.ret[result.name], by_name) == argument.name
    }
    return Loop(node, body, constant, place)


def _handed_on(ref: str, by_name: Mapping[str, Any]) -> str:
    while ref.partition(":")[0] in by_name and by_name[ref.partition(":")[0]].op == "Identity":
        ref = nodes.data_inputs(by_name[ref.partition(":")[0]])[0]
    return ref


def loops_in(body: Any) -> list[str]:
    """Return the loops that stand in the body of another one, by their names there."""
    return [node.name for node in body.node_def if node.op in LOOPS]


def inner_loop(draft: Draft, outer: Loop, name: str) -> Loop:
    """Return the loop ``name`` of the body of ``outer``, which is no other loop's any more."""
    body = own_copy(draft, outer.node, "body")
    own = Loop(outer.node, body, outer.constant, outer.place)
    return loop_at(draft, own.by_name[name], InBody(own))


def own_copy(draft: Draft, node: Any, role: str) -> Any:
    """Give a loop its own copy of its body or condition, which another loop may share."""
    old = draft.library[node.attr[role].func.name]
    copy = type(old)()
    copy.CopyFrom(old)
    number = len(draft.library)
    copy.signature.name = f"{old.signature.name}_hoisted_{number}"
    draft.library[copy.signature.name] = copy
    node.attr[role].func.name = copy.signature.name
    return copy
