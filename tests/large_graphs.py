"""Graphs of any size, made of copies of one: a SavedModel of nested functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from graphlens.ir.optable import Argument, table

FLOAT = 1  # tensorflow.DataType


def write_nested_saved_model(graph: Path, folder: Path, functions: int, at_least: int) -> int:
    """Write a SavedModel whose main graph calls the first of ``functions``, and each of them the next.

    Every function holds copies of ``graph``, at least ``at_least`` ops; returns the number of ops in all of them.
    """
    from bench import saved_model_bytes
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

    source = GraphDef.FromString(graph.read_bytes())
    copies = -(-at_least // len(source.node))
    meta = MetaGraphDef()
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.library.CopyFrom(source.library)
    main = meta.graph_def
    main.node.add(name="x", op="Placeholder").attr["dtype"].type = FLOAT
    _call(main.node.add(), "level0", "x")
    for level in range(functions):
        called = f"level{level + 1}" if level + 1 < functions else None
        _write_function(main.library.function.add(), f"level{level}", source.node, copies, called)
    meta.signature_def["serving_default"].inputs["x"].name = "x:0"
    meta.signature_def["serving_default"].outputs["y"].name = "call:0"
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(saved_model_bytes(meta.SerializeToString()))
    return len(main.node) + sum(len(function.node_def) for function in main.library.function)


def _call(node: Any, function: str, argument: str) -> None:
    node.name, node.op = "call", "PartitionedCall"
    node.input.append(argument)
    node.attr["f"].func.name = function
    node.attr["Tin"].list.type.append(FLOAT)
    node.attr["Tout"].list.type.append(FLOAT)


def _write_function(function: Any, name: str, nodes: Iterable[Any], copies: int, called: str | None) -> None:
    """Fill in a function that takes ``x``, runs all copies of ``nodes`` for what they do, and returns ``y``."""
    function.signature.name = name
    function.signature.input_arg.add(name="x", type=FLOAT)
    function.signature.output_arg.add(name="y", type=FLOAT)
    outputs = {node.name: list(_outputs(node)) for node in nodes}
    for copy in range(copies):
        for node in nodes:
            added = function.node_def.add()
            added.CopyFrom(node)
            added.name = f"copy{copy}/{node.name}"
            del added.input[:]
            added.input.extend(_within(written, f"copy{copy}/", outputs) for written in node.input)
    read = {written.lstrip("^").split(":")[0] for node in function.node_def for written in node.input}
    for node in function.node_def:
        if node.name not in read:
            function.signature.control_output.append(node.name)
            function.control_ret[node.name] = node.name
    if called is None:
        function.node_def.add(name="last", op="Identity", input=["x"]).attr["T"].type = FLOAT
    else:
        _call(function.node_def.add(), called, "x")
    function.ret["y"] = "last:output:0" if called is None else "call:output:0"


def _within(written: str, scope: str, outputs: dict[str, list[str]]) -> str:
    """Say in the words of a function what an op of a graph reads: an output has the name of its argument there."""
    if written.startswith("^"):
        return f"^{scope}{written[1:]}"
    name, _, port = written.partition(":")
    return f"{scope}{name}:{outputs[name][int(port or 0)]}"


def _outputs(node: Any) -> Iterator[str]:
    for argument in table()[node.op].outputs:
        for index in range(_count(node, argument)):
            yield f"{argument.name}:{index}"


def _count(node: Any, argument: Argument) -> int:
    if argument.type.startswith("*"):
        return len(node.attr[argument.type[1:]].list.type)
    return node.attr[argument.repeat].i if argument.repeat else 1
