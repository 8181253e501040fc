"""Rules about Python code that a graph calls back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph, origins, traced_graph
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.ledger import step_time
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.nodes import PythonFunction
from graphlens.ir.ops import PYTHON
from graphlens.rules.needs import GRAPH
from graphlens.rules.registry import found, rule
from graphlens.units import format_ns

_CALLED: Final = {
    "EagerPyFunc": "tf.py_function",
    "PyFunc": "tf.numpy_function",
    "PyFuncStateless": "tf.numpy_function",
}


@rule("GL403", "python-callback", needs=(GRAPH,))
def python_callback(facts: Facts) -> Iterator[Finding]:
    """Python functions that the step's graph calls back (`tf.py_function`, `tf.numpy_function`).

    ## What it finds

    `EagerPyFunc` and `PyFunc` ops in the graph that is judged: the Python function that each calls and where that is
    written, the line that put the op there, and the time that it took. Those of a `tf.data` pipeline are in the
    pipeline's functions, and not here.

    ## Why it costs

    The op waits for Python's global lock, copies its inputs to the host and makes objects of them, and runs code that
    no other thread of Python can run beside. What XLA compiles may hold no such op, and neither may an exported model.

    ## Example

    ```bad
    x = Placeholder() float32[1024]
    y = EagerPyFunc(x) float32[1024] 300us
    z = Relu(y) float32[1024] 5us
    ```

    ```good
    x = Placeholder() float32[1024]
    y = Tanh(x) float32[1024] 10us
    z = Relu(y) float32[1024] 5us
    ```

    ## Fix

    Write the function with TensorFlow's ops. What only prepares the input belongs before `Dataset.prefetch`; what only
    reports belongs between steps, where it is called from Python anyway.

    ## When it is fine

    When the function is called rarely, or no op can do what it does.

    ## Source

    Op types of the judged graph. The saving is a bound: the ops in its place take time as well.
    """
    graph = facts(judged_graph)
    for name in graph.of_types(PYTHON):
        yield _finding(facts, name)


def _finding(facts: Facts, name: str) -> Finding:
    op, timing, step = facts(judged_graph).op(name), facts(timings).get(name), facts(step_time)
    called = _CALLED.get(op.type, op.type)
    source, function = _source(facts, name), facts.evidence.callbacks.get(str(op.attrs.get("token", "")))
    at = f" at {source}" if source else ""
    took = f": {format_ns(timing.self_ns)} a step" if timing is not None else ""
    saving = Saving()
    if timing is not None and timing.wall_share is not None and step is not None:
        saving = Saving(int(timing.wall_share * step.median_ns), timing.wall_share, "bound")
    return found(
        title=f"The step calls {_named(function)} back{took} ({called})",
        nodes=(name,),
        evidence={
            "op": name,
            "called_by": called,
            "source": source,
            "function": function.name if function else None,
            "function_source": (function.source or None) if function else None,
            "self_ns": timing.self_ns if timing else None,
        },
        reason=f"{name} ({op.type}{at}) runs {_told(function)} under the interpreter's lock, on the host",
        saving=saving,
        fix=Fix(f"Write {_told(function)} with TensorFlow's ops, or call it between steps", "manual"),
        floor="low",
    )


def _named(function: PythonFunction | None) -> str:
    return f"Python's '{function.name}'" if function else "Python"


def _told(function: PythonFunction | None) -> str:
    if function is None:
        return "the Python function"
    return f"'{function.name}' ({function.source})" if function.source else f"'{function.name}'"


def _source(facts: Facts, name: str) -> str | None:
    """Return the line that put the op into the graph as written, from which the one that ran comes."""
    written = facts(traced_graph)
    sources = [name, *facts(origins).get(name, ())] if written is not None else []
    lines = (written.op(source).source for source in sources if written is not None and source in written)
    return next(filter(None, lines), None)
