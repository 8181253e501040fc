"""Rules about what a model does besides computing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import traced_graph
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.unsafe import unsafe_ops, unsafe_reason
from graphlens.rules.needs import FOREIGN, TRACED
from graphlens.rules.registry import found, rule
from graphlens.units import counted

OPS_LISTED: Final = 50


@rule("GL901", "unsafe-op", needs=(TRACED, FOREIGN))
def unsafe_op(facts: Facts) -> Iterator[Finding]:
    """Ops that reach out of the graph: to files, to the network, to Python, or to another process.

    ## What it finds

    Ops that read or write files, run Python code, use the network or call another process, in all functions that the
    model can call. Custom ops that TensorFlow does not know are not reported for that alone.

    ## Why it costs

    A model is a program. One that touches files or the network does so with the rights of whoever runs it, and may
    give other results elsewhere. GraphLens executes such a model file only with `--trust`.

    ## Example

    ```bad
    name = Const() string[]
    data = ReadFile(name) string[]
    out  = _Retval(data)
    ```

    ```good
    data = Placeholder() string[]
    out  = _Retval(data)
    ```

    ## Fix

    Read the file outside of the model and feed its content, or store it as an asset or a variable. Replace Python
    functions by TensorFlow ops.

    ## When it is fine

    When you know the model's author and what it does. Vocabulary tables that read an asset of the SavedModel itself
    are not reported.

    ## Source

    Types and attributes of the ops of the graph as written, against the list in `graphlens/ir/unsafe.py`. The
    severity is medium at most, because no time is saved.
    """
    listed = unsafe_ops(facts.evidence.traced) if facts.evidence.traced else []
    if not listed:
        return
    graph = facts(traced_graph)
    nodes = [name for name in graph if unsafe_reason(graph, name)] if graph is not None else []
    kinds = Counter(why for _, why in listed)
    yield found(
        title=f"{counted(len(listed), 'op')} of the model reach{'es' if len(listed) == 1 else ''} out of the graph",
        nodes=nodes or [name for name, _ in listed],
        evidence={"ops": dict(listed[:OPS_LISTED]), "kinds": dict(kinds.most_common())},
        reason="; ".join(kinds),
        fix=Fix("Do it outside of the model, or run it with --trust when you know what it does", "manual"),
        stage="traced",
        floor="medium",
    )
