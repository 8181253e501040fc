"""Rules about compiling with XLA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import executed_by, judged_graph, judged_stage
from graphlens.facts.patterns.xla import (
    TABLE_VERSION,
    Blocker,
    blockers_of_compiled,
    blockers_of_step,
    compiles,
    confirmed,
    is_compiled_already,
    working_ops,
)
from graphlens.facts.time.ledger import step_time
from graphlens.ir.analysis import Finding, Fix, Severity
from graphlens.ir.edits import EVERYWHERE, JitCompile
from graphlens.rules.needs import TRACED
from graphlens.rules.registry import found, rule
from graphlens.units import counted

OPS_LISTED: Final = 50
# XLA gains by making one kernel of several ops: of a single one there is nothing to make.
FEWEST_OPS: Final = 2


@rule("GL213", "xla-blocker", needs=(TRACED,))
def xla_blocker(facts: Facts) -> Iterator[Finding]:
    """Ops that keep XLA from compiling a function; whether compiling the step pays, where none does.

    ## What it finds

    Ops for which XLA has no kernel, or none for their data type: strings, tables, prints, Python functions, parsing.
    Functions that ask for `jit_compile=True` are reported one by one; otherwise the whole step is, for information.

    Where no op is in the way and the model is executed, the step is compiled and measured against the one that is not.
    The finding is the answer, with the time that compiling took, the number of ops that were compiled, and the number
    of fusions that became of them. Nothing is asked where XLA compiles the step already.

    ## Why it costs

    An op without a kernel makes a function with `jit_compile=True` fail, and cuts the clusters of automatic clustering
    in two. It costs nothing where nobody wants to compile.

    Without XLA every op is a kernel of its own that reads and writes memory; XLA makes one loop of many. It also has
    other kernels for convolutions and products, which on a processor are often slower. Which of both weighs more, no
    rule can tell: recurrent networks became many times faster, networks with depthwise convolutions five times slower.

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

    Where compiling was measured to pay: `@tf.function(jit_compile=True)`. It is proven for the shapes of the inputs
    that were measured. Others compile anew, and may be faster or slower.

    ## When it is fine

    When the function is not meant to be compiled. Also when it pays, but the inputs come in many shapes: the first call
    with each of them takes as long as compiling, seconds for a large model, and a program that is started for a few
    calls never earns that back. Pad the inputs to a few shapes then.

    ## Source

    TensorFlow's registry of XLA kernels for processors, as of version 2.21, shipped with GraphLens. Where TensorFlow
    is installed, one op of each kind is compiled alone: what compiles after all is not reported. What compiles alone
    can still fail in its place, in a loop with shapes that change for instance: the proof then has the compiler's
    reason.
    """
    library = facts.evidence.traced
    compiled = blockers_of_compiled(library) if library is not None else {}
    for function, blockers in compiled.items():
        yield from _finding(facts, _standing(facts, blockers), f"'{function}', which asks to be compiled", "medium")
    if compiled or facts.evidence.hlo:
        return
    in_step = _standing(facts, facts(blockers_of_step))
    yield from _finding(facts, in_step, "the step as a whole", "info")
    if not in_step and _is_worth_asking(facts):
        yield _question(facts)


def _is_worth_asking(facts: Facts) -> bool:
    """Whether the step ran here, is not compiled already, and has more than one op."""
    ran = facts(step_time) is not None and facts.evidence.profile_path is None
    return ran and not facts(is_compiled_already) and facts(working_ops) >= FEWEST_OPS


def _question(facts: Facts) -> Finding:
    return found(
        title="XLA can compile the whole step; whether that pays, a measurement tells",
        nodes=(),
        stage=facts(judged_stage),
        evidence={"ops": facts(working_ops), "registry": TABLE_VERSION},
        reason="XLA has a kernel for every op. It makes few kernels of many ops, which saves their dispatch and memory "
        "traffic, but its convolutions and products are others than TensorFlow's: some models gain, others lose",
        fix=Fix(
            "Compile the step with XLA, where that is measured to pay; every new shape of the inputs compiles anew",
            "tolerance",
            (JitCompile(EVERYWHERE),),
            "@tf.function(jit_compile=True)",
        ),
    )


def _standing(facts: Facts, blockers: Sequence[Blocker]) -> list[Blocker]:
    """Return the blockers but those that the compiler took after all."""
    return [blocker for blocker in blockers if not compiles(facts, blocker)]


def _finding(facts: Facts, standing: Sequence[Blocker], what: str, floor: Severity) -> Iterator[Finding]:
    if not standing:
        return
    kinds = Counter(_kind(blocker) for blocker in standing)
    yield found(
        title=f"{counted(len(standing), 'op')} {'keeps' if len(standing) == 1 else 'keep'} XLA from compiling {what}",
        nodes=_nodes(facts, standing),
        stage=facts(judged_stage),
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
    ran_as = facts(executed_by)
    if facts(judged_stage) == "executed":
        names = [ran_as.get(name, name) for name in names]
    graph = facts(judged_graph)
    return [name for name in dict.fromkeys(names) if name in graph]
