"""The nodes of a dataset's graph: which are datasets, and what their inputs and attributes say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

from graphlens.ir.ops import PYTHON
from graphlens.ir.optable import Argument, info_of
from graphlens.tf import private

_DATASET: Final = re.compile(r"Dataset(V\d+)?$")
_RANDOM: Final = re.compile(
    r"^(Random|Multinomial|(Parameterized)?TruncatedNormal|Rng|SampleDistorted|Stateful(Uniform|Standard|Trunc|Random))"
)
OPTIONS: Final = "OptionsDataset"
DEFAULT: Final = "default"  # of `deterministic`: as the options say


def is_dataset(node: Any) -> bool:
    """Whether a node of a graph is a dataset.

    >>> from types import SimpleNamespace
    >>> [is_dataset(SimpleNamespace(op=op)) for op in ("MapDataset", "BatchDatasetV2", "DatasetCardinality")]
    [True, True, False]
    """
    return _DATASET.search(node.op) is not None


def producer(name: str) -> str:
    """Return the node that an input names; ``MapDataset:handle:0`` of a function and ``^node`` too."""
    return name.lstrip("^").partition(":")[0]


def own_name(node: Any) -> str:
    """Return what profiles call the dataset of a node (``MapDataset:105``); empty where it has no name of its own."""
    return private.dataset_name(node.attr["metadata"].s) if "metadata" in node.attr else ""


@dataclass(frozen=True)
class DatasetGraph:
    """A serialized dataset, with its nodes and functions by their names."""

    graph_def: Any
    nodes: Mapping[str, Any]
    functions: Mapping[str, Any]

    @classmethod
    def of(cls, graph_def: Any) -> DatasetGraph:
        """Index a ``GraphDef``."""
        functions = {one.signature.name: one for one in graph_def.library.function}
        return cls(graph_def, {node.name: node for node in graph_def.node}, functions)

    def within(self, function: Any) -> DatasetGraph:
        """Return the body of a function as a graph of its own, beside the same functions."""
        return DatasetGraph(self.graph_def, {node.name: node for node in function.node_def}, self.functions)

    @property
    def datasets(self) -> list[Any]:
        """The datasets of the main graph, sources first, as they are written down."""
        return [node for node in self.graph_def.node if is_dataset(node)]

    @property
    def root(self) -> Any:
        """The dataset that is the result."""
        result = next(node for node in self.graph_def.node if node.op == "_Retval")
        return self.nodes[producer(result.input[0])]

    def argument(self, node: Any, name: str) -> str | None:
        """Return the input of a node that is its argument ``name``; ``None`` where it has no such one."""
        position = arguments_of(node).get(name)
        return None if position is None or position >= len(node.input) else node.input[position]

    def number(self, node: Any, name: str) -> int | None:
        """Return the value of an argument that is one constant number."""
        found = self.argument(node, name)
        constant = self.nodes.get(producer(found)) if found else None
        if constant is None or constant.op != "Const" or not tf.as_dtype(constant.attr["dtype"].type).is_integer:
            return None
        value = tf.make_ndarray(constant.attr["value"].tensor)
        return int(value) if value.size == 1 else None

    def inputs(self, node: Any) -> list[Any]:
        """Return the datasets that a dataset reads."""
        found = (self.nodes.get(producer(name)) for name in node.input if not name.startswith("^"))
        return [one for one in found if one is not None and is_dataset(one)]

    def readers(self, name: str) -> list[Any]:
        """Return the nodes of the main graph that read one."""
        return [node for node in self.graph_def.node if name in map(producer, node.input)]

    def called_by(self, node: Any) -> list[str]:
        """Return the functions that a node names itself."""
        return [name for name in _named_functions(node) if name in self.functions]

    def nodes_run_by(self, node: Any) -> Iterator[Any]:
        """Yield the nodes of the functions that a node calls, and of all that they call in turn.

        What a dataset that is made there calls for its own elements is left to that one.
        """
        seen: set[str] = set()
        waiting = self.called_by(node)
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for inner in self.functions[name].node_def:
                yield inner
                waiting += () if is_dataset(inner) else self.called_by(inner)
                if inner.op in self.functions:
                    waiting.append(inner.op)


def _named_functions(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            yield value.func.name
        elif kind == "list":
            yield from (one.name for one in value.list.func)


def arguments_of(node: Any) -> Mapping[str, int]:
    """Return the arguments of a node by their names, with the position of the first input that each takes."""
    found: dict[str, int] = {}
    position = 0
    info = info_of(node.op)
    for argument in () if info is None else info.inputs:
        found[argument.name] = position
        position += _count(node, argument)
    return found


def _count(node: Any, argument: Argument) -> int:
    if argument.type.startswith("*"):
        return len(node.attr[argument.type[1:]].list.type)
    return int(node.attr[argument.repeat].i) if argument.repeat else 1


def is_python(op: str) -> bool:
    """Whether an op calls back into Python."""
    return op in PYTHON


def is_random(op: str) -> bool:
    """Whether an op draws random numbers of a state that goes on from call to call.

    >>> is_random("RandomUniform"), is_random("StatelessRandomUniformV2"), is_random("RngReadAndSkip")
    (True, False, True)
    """
    return _RANDOM.match(op) is not None


def is_stateful(op: str) -> bool:
    """Whether TensorFlow says that an op has state; of what it does not know, nothing is claimed."""
    info = info_of(op)
    return info is not None and info.is_stateful
