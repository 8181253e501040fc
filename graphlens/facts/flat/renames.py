"""Which ops run under another name than the one they were written with, because the runtime needed that name itself.

TensorFlow makes a function of a graph before it runs it.  The function's arguments and results come first; they are
called like the ops that give them, in lower case and with ``_`` for what is no letter or digit.  An op whose name is
then taken gets a number: the last op of a frozen graph, ``output``, runs as ``output_0``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count, takewhile

from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Function, Graph
from graphlens.ir.ops import CONSTANTS, PLACEHOLDERS
from graphlens.ir.table import Table

# What is no function yet: the main graph of a file or of a Python function.
_MAIN = ""


def renamed_ops(evidence: Evidence) -> Mapping[str, str | None]:
    """Return runtime name -> name as written of the ops for which they differ.

    The recorder says which; for a profile of another run, and for a capture of before it was recorded, it is what
    TensorFlow's rule gives.  ``None`` is in the place of a name that may mean two ops.
    """
    if evidence.renamed is not None:
        return evidence.renamed
    return dict(_by_rule(evidence.traced)) if evidence.traced is not None else {}


def as_written(name: str, renamed: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the names that an op may have been written with, by the one under which it runs.

    >>> renamed = {"output_0": "output"}
    >>> list(as_written("output_0", renamed)), list(as_written("output", renamed))
    (['output'], ['output'])
    >>> list(as_written("output_0/MatMul", renamed))  # an op of its own, or one of the function that `output` calls
    ['output_0/MatMul', 'output/MatMul']
    """
    if name in renamed:
        yield from filter(None, (renamed[name],))
        return
    yield name
    scope, slash, rest = name.partition("/")
    if slash and renamed.get(scope):
        yield f"{renamed[scope]}/{rest}"


def _by_rule(traced: Graph) -> Iterator[tuple[str, str | None]]:
    """Yield ``(runtime name, name)`` of the ops of a main graph whose name an argument or a result takes.

    Which number an op gets is certain where nothing else is called so; else it hangs on the order of the ops, which is
    not that of the file.
    """
    graph = traced.main.graph
    if traced.root != _MAIN:
        return  # a function already: its ops have the names that they run under
    inputs, outputs = _arguments(traced.main), _results(traced.main)
    taken = Counter(normalized(name) for name in dict.fromkeys((*inputs, *outputs)))
    arguments = set(inputs)
    for name in sorted(filter(graph.__contains__, taken), key=graph.position):
        if name not in arguments:
            contested = [*takewhile(graph.__contains__, (f"{name}_{number}" for number in count()))]
            alone = taken[name] == 1 and not contested and not taken[f"{name}_0"]
            yield from [(f"{name}_0", name)] if alone else dict.fromkeys(contested).items()


def _arguments(function: Function) -> tuple[str, ...]:
    placeholders = function.graph.of_types(PLACEHOLDERS)
    return tuple(dict.fromkeys((*function.inputs, *placeholders)))


def _results(function: Function) -> tuple[str, ...]:
    """Return the results of a main graph: what nobody reads, where it names none."""
    return function.outputs or tuple(_sinks(function.graph))


def _sinks(graph: Table) -> Iterator[str]:
    for position, readers in enumerate(graph.following):
        if not readers and graph.bodies[position].type not in PLACEHOLDERS | CONSTANTS:
            yield graph.names[position]


def normalized(name: str) -> str:
    """Return a name as TensorFlow writes it for an argument or a result (``NodeNameMapping::Normalize``).

    >>> normalized("model/Dense_1"), normalized("_7x"), normalized("42")
    ('model_dense_1', 'x', 'unknown')
    """
    plain = re.sub(r"[^a-z0-9]", "_", name.lower())
    return re.sub(r"^[^a-z]+", "", plain) or "unknown"
