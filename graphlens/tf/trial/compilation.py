"""What XLA compiled of a program: how many of its ops, and into how many fused kernels."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from graphlens.children.messages import Compiled
from graphlens.ir.ops import ARGUMENTS, PASSES, PLACEHOLDERS, PLAIN_CALLS, RETURNS
from graphlens.loaders.functions import called
from graphlens.tf.record.collectors import hlo
from graphlens.tf.rewrite import nodes

_MUST_COMPILE: Final = "_XlaMustCompile"
# They compute nothing: the frame of a function, its constants, the reads of its variables, what hands on a tensor.
_FRAME: Final = ARGUMENTS | RETURNS | PLACEHOLDERS | {"NoOp"}
_NO_WORK: Final = _FRAME | PASSES | {"Const"} | nodes.READS
_FUSION: Final = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = .*? fusion\(", re.MULTILINE)


def forget(dump: Path) -> None:
    """Remove what XLA has written to its dump so far."""
    shutil.rmtree(dump, ignore_errors=True)


def summary(program: Any, dump: Path) -> Compiled | None:
    """Return how much of a program XLA compiled since the dump was forgotten, ``None`` when nothing.

    The ops of functions count where they are called, those of a loop once.
    """
    library = {function.signature.name: function.node_def for function in program.graph.library.function}
    calls = [node for node in program.graph.node if _must_compile(node)]
    if not program.compiled and not calls:
        return None
    of_ops = _working(program.graph.node, library)
    ops = of_ops if program.compiled else _working(calls, library)
    return Compiled(ops, of_ops, _fusions(dump))


def _must_compile(node: Any) -> bool:
    return _MUST_COMPILE in node.attr and bool(node.attr[_MUST_COMPILE].b)


def _working(graph_nodes: Iterable[Any], library: Mapping[str, Any]) -> int:
    return sum(node.op not in _NO_WORK for node in _all_of(graph_nodes, library))


def _all_of(graph_nodes: Iterable[Any], library: Mapping[str, Any]) -> Iterator[Any]:
    """Yield nodes with those of the functions they call; a plain call is its function, and a function is met once."""
    met: set[str] = set()
    todo = list(graph_nodes)
    while todo:
        node = todo.pop()
        functions = [name for name in called(node) if name in library]
        if not functions or node.op not in PLAIN_CALLS:
            yield node
        for name in functions:
            if name not in met:
                met.add(name)
                todo.extend(library[name])


def _fusions(dump: Path) -> int | None:
    """Count the fused kernels in what XLA wrote, and remove it."""
    texts = hlo.dumped(dump)
    forget(dump)
    return sum(len(_FUSION.findall(text)) for text in texts) if texts else None
