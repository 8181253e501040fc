"""A copy of a dataset's graph that is being changed: nodes are added, replaced, and put between others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.tf.datasets.nodes import DatasetGraph, is_dataset, producer
from graphlens.tf.datasets.reading import node_of, written_stages


class Draft:
    """A graph to change; ``graph_def`` is what has become of it."""

    def __init__(self, graph_def: Any) -> None:
        self.graph_def = type(graph_def)()
        self.graph_def.CopyFrom(graph_def)
        self.named = [stage.name for stage in written_stages(self.graph, {})]  # as long as nothing is changed

    @property
    def graph(self) -> DatasetGraph:
        """The graph as it is now."""
        return DatasetGraph.of(self.graph_def)

    def stage(self, name: str) -> Any:
        """Return the node of a stage; of the last one where the name is empty.

        Raises
        ------
        RewriteError
            If there is none: what a function makes for each element is no stage of its own here.
        """
        node = node_of(self.graph, name) if name else self.graph.root
        if node is None:
            raise RewriteError(f"the graph of the dataset has no stage '{name}' that could be changed")
        return node

    def number(self, value: int) -> str:
        """Add a constant number, and return its name."""
        return self._constant(tf.make_tensor_proto(value, tf.int64))

    def text(self, value: str) -> str:
        """Add a constant text, and return its name."""
        return self._constant(tf.make_tensor_proto(value, tf.string))

    def add(self, op: str, inputs: Sequence[str], like: Any | None = None) -> Any:
        """Add a node with inputs, and with the types and shapes of the elements of another one."""
        node = self.graph_def.node.add(name=self._unused(op), op=op, input=inputs)
        if like is not None:
            node.attr["output_types"].CopyFrom(
                like.attr["Toutput_types" if "Toutput_types" in like.attr else "output_types"]
            )
            node.attr["output_shapes"].CopyFrom(like.attr["output_shapes"])
        return node

    def put_behind(self, added: Any, node: Any) -> None:
        """Have whatever reads ``node`` read ``added``, which reads it itself."""
        for reader in self.graph.readers(node.name):
            if reader.name != added.name:
                redirect(reader, node.name, added.name)

    def replace(self, node: Any, op: str, inputs: Sequence[str]) -> None:
        """Make a node one of another type, with other inputs."""
        node.op = op
        del node.input[:]
        node.input.extend(inputs)

    def own_function(self, node: Any, name: str = "f") -> Any:
        """Give a node a copy of the function that it calls, which may be changed, and return it."""
        found = self.graph.functions[node.attr[name].func.name]
        copied = self.graph_def.library.function.add()
        copied.CopyFrom(found)
        copied.signature.name = self._unused(found.signature.name)
        node.attr[name].func.name = copied.signature.name
        return copied

    def only_reader(self, node: Any) -> Any | None:
        """Return the one dataset that reads a node; ``None`` where something else does, too."""
        readers = self.graph.readers(node.name)
        return readers[0] if len(readers) == 1 and is_dataset(readers[0]) else None

    def _constant(self, value: Any) -> str:
        node = self.graph_def.node.add(name=self._unused("Const"), op="Const")
        node.attr["value"].tensor.CopyFrom(value)
        node.attr["dtype"].type = value.dtype
        return str(node.name)

    def _unused(self, stem: str) -> str:
        taken = {node.name for node in self.graph_def.node}
        taken |= {function.signature.name for function in self.graph_def.library.function}
        return next(
            name for name in (f"{stem}_changed_{number}" for number in range(len(taken) + 1)) if name not in taken
        )


def redirect(node: Any, before: str, after: str) -> None:
    """Have a node read another one than before."""
    for position, name in enumerate(node.input):
        if producer(name) == before:
            node.input[position] = after
