"""Rules about compiling with XLA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.xla import TABLE_VERSION, Blocker, blockers_of_compiled, blockers_of_step, confirmed
from graphlens.ir.analysis import Finding, Fix, Severity
from graphlens.rules.needs import TRACED
from graphlens.rules.phrases import counted
from graphlens.rules.registry import found, rule

OPS_LISTED: Final = 50


@rule("GL213", "xla-blocker", needs=(TRACED,))
def xla_blocker(facts: Facts) -> Iterator[Finding]:
    """Ops that keep XLA from compiling a function.

    ## What it finds

    Ops for which XLA has no kernel, or none for their data type: strings, tables, prints, Python functions, parsing.
    Functions that ask for `jit_compile=True` are reported one by one; otherwise the whole step is, for information.

    ## Why it costs

    One such op makes a function with `jit_compile=True` fail, and cuts the clusters of automatic clustering in two. It
    costs nothing where nobody wants to compile.

    ## Example

    ```bad
    x    = Placeholder() float32[64]
    y    = Tanh(x) float32[64] 20us {T: float32}
    text = AsString(y) string[64] 20us {T: float32}
    out  = _Retval(text)
    ```

    ```good
    x   = Placeholder() float32[64]
    y   = Tanh(x) float32[64] 20us {T: float32}
    out = _Retval(y)
    ```

    ## Fix

    Keep the op outside the compiled function: look tables up and parse before it, print and format after it.

    ## When it is fine

    When the function is not meant to be compiled.

    ## Source

    TensorFlow's registry of XLA kernels for processors, as of version 2.21, shipped with GraphLens. Where TensorFlow
    is installed, one op of each kind is compiled alone: what compiles after all is not reported. What compiles alone
    can still fail in its place, in a loop with shapes that change for instance.
    """
    library = facts.evidence.traced
    compiled = blockers_of_compiled(library) if library is not None else {}
    for function, blockers in compiled.items():
        yield from _finding(facts, blockers, f"'{function}', which asks to be compiled", "medium")
    if not compiled and not facts.evidence.hlo:
        yield from _finding(facts, blockers_of_step(facts), "the step as a whole", "info")


def _finding(facts: Facts, blockers: Sequence[Blocker], what: str, floor: Severity) -> Iterator[Finding]:
    standing = [blocker for blocker in blockers if not _compiles(facts, blocker)]
    if not standing:
        return
    kinds = Counter(_kind(blocker) for blocker in standing)
    yield found(
        title=f"{counted(len(standing), 'op')} {'keeps' if len(standing) == 1 else 'keep'} XLA from compiling {what}",
        nodes=_nodes(facts, standing),
        stage=facts.stage,
        evidence={
            "ops": [blocker.name for blocker in standing[:OPS_LISTED]],
            "kinds": dict(kinds.most_common()),
            "compiled_alone": {_kind(item): _verdict(facts, item) for item in standing},
            "registry": TABLE_VERSION,
        },
        reason=f"XLA has no kernel for {', '.join(kind for kind, _ in kinds.most_common(5))}{_proof(facts, standing)}",
        fix=Fix("Keep these ops outside the function that is compiled", "manual"),
        floor=floor,
    )


def _compiles(facts: Facts, blocker: Blocker) -> bool:
    answer = confirmed(facts, blocker)
    return answer is not None and answer.verdict == "fuses"


def _kind(blocker: Blocker) -> str:
    return blocker.type if blocker.dtype is None else f"{blocker.type} of {blocker.dtype}"


def _verdict(facts: Facts, blocker: Blocker) -> str:
    answer = confirmed(facts, blocker)
    if answer is None:
        return "not tried"
    return f"refused: {answer.why}" if answer.verdict == "unsupported" else f"could not be tried: {answer.why}"


def _proof(facts: Facts, blockers: Sequence[Blocker]) -> str:
    refused = sum(
        _verdict(facts, item).startswith("refused") for item in {_kind(item): item for item in blockers}.values()
    )
    kinds = len({_kind(item) for item in blockers})
    return f" ({refused} of {counted(kinds, 'kind')} tried with the compiler and refused)" if refused else ""


def _nodes(facts: Facts, blockers: Sequence[Blocker]) -> list[str]:
    """Return the ops of the judged graph that run the blockers; those of a library function have no node of theirs."""
    names = [blocker.name for blocker in blockers]
    if facts.stage == "executed":
        names = [facts.executed_by.get(name, name) for name in names]
    return [name for name in dict.fromkeys(names) if name in facts.graph]
