"""Rules about functions that are traced again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.programs.watched import Watched, watched
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.script import (
    ANOTHER_CONTEXT,
    ANOTHER_OBJECT,
    DATA_TYPE,
    MADE_ANEW,
    NOT_DIVIDED,
    PYTHON_VALUE,
    SHAPE,
    Script,
    ScriptTrace,
)
from graphlens.rules.needs import WATCHED
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_ns, format_share

# A function that serves two or three kinds of batches is traced for each of them once, and that is what tracing is for.
FEWEST_RETRACES: Final = 3
# Of a script's time: what costs less is lost in how it starts.
NOTABLE_SHARE: Final = 0.01
CHANGES_LISTED: Final = 5

# What changed -> (how the title says it, what to do, how that is written).
_CAUSES: Final[Mapping[str, tuple[str, str, str]]] = {
    PYTHON_VALUE: (
        "{argument} is a Python value that changes",
        "Pass {argument} as a tensor: a Python value is a part of the graph, and each new one needs a graph of its own",
        "{function}(..., {argument}=tf.constant({argument}))  # or tf.convert_to_tensor, a tf.Variable, a NumPy array",
    ),
    NOT_DIVIDED: (
        "{argument} has lost its fixed batch",
        "Drop the last batch if it is smaller, or keep the number of samples a multiple of the batch",
        "dataset = dataset.batch(batch_size, drop_remainder=True)",
    ),
    SHAPE: (
        "the shape of {argument} changes",
        "Say which sizes differ from call to call, or let TensorFlow find it out, or pad batches to few sizes",
        "@tf.function(reduce_retracing=True)  # or input_signature=[tf.TensorSpec([None, ...], dtype), ...]",
    ),
    DATA_TYPE: (
        "the data type of {argument} changes",
        "Convert {argument} to one data type before the call",
        "{function}(..., {argument}=tf.cast({argument}, tf.float32))  # to the one type that it is to have",
    ),
    ANOTHER_OBJECT: (
        "{argument} is a new object in each call",
        "Make the object once and pass it again, or pass the tensors that are taken from it: each trace is kept",
        "config = Config()  # once, before the loop\nfor batch in dataset:\n    {function}(batch, config)",
    ),
    MADE_ANEW: (
        "the tf.function is made anew",
        "Make the function once, outside of the loop",
        "step = tf.function({function})  # once, before the loop\nfor batch in dataset:\n    step(batch)",
    ),
    ANOTHER_CONTEXT: (
        "it is called in one graph, or strategy, after the other",
        "Build one graph and run it again, or call the function outside of graphs of TensorFlow 1",
        "{function}(...)  # not within `with tf.Graph().as_default():`, which has traces of its own each time",
    ),
}
# Those that say nothing of an argument.
_OF_FUNCTION: Final = (MADE_ANEW, ANOTHER_CONTEXT)
_OTHERWISE: Final = (
    "{argument} is handed over in another form",
    "Hand over the same kinds of arguments in each call: tensors in one structure, of one data type",
    "@tf.function(input_signature=[...])  # then a call of another kind is an error, and not a trace",
)


@rule("GL401", "retracing", needs=(WATCHED,))
def retracing(facts: Facts) -> Iterator[Finding]:
    """Functions that Python traces again and again, because what they are handed is of another kind each time.

    ## What it finds

    A `tf.function` of a script that was run under `graphlens run`, which was traced three times and more for a call
    that fits no earlier trace, at a cost of 1 % of the script's time and more. The finding names the argument that
    changed and how: another Python value, shape, data type or structure, a new object, a batch that is fixed no longer
    since it does not divide the number of samples, or the function itself made anew. One finding for each function.

    ## Why it costs

    A trace runs the whole Python function op by op, builds a graph, optimizes it and makes it known to the runtime:
    tens of milliseconds for a small step, seconds for a large model, where the step itself takes less than one. Each
    trace is kept for as long as the function lives, with the graph and all that it captures.

    TensorFlow warns of it twice in a process, and only where one call in two is traced; of one in ten it never does.

    ## Example

    ```bad
    training
    calls: 300 in 3s
    traces: 1 first 90ms; 30 retrace 40ms rate: the Python value 0.1 became 0.2
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 200us
    out = _Retval(y)
    ```

    ```good
    training
    calls: 300 in 3s
    traces: 1 first 90ms; 1 variables 80ms
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 200us
    out = _Retval(y)
    ```

    ## Fix

    Pass tensors in place of Python values, say with `input_signature` which sizes are open (or let
    `reduce_retracing=True` find it out), make batches of one size (`drop_remainder=True`), and make each function once,
    outside of loops. The finding has the lines for what was seen.

    ## When it is fine

    When the script is short, or the function serves a few kinds of batches, each of which comes again and again. Not
    reported are first traces, a second one for the variables that the first has created, the first call of validation,
    and what Keras and `reduce_retracing` trace once to take all shapes.

    ## Source

    All calls of the script, counted by the place where the Python function is written. What changed is the difference
    between the types for which a trace and the one before were made. A trace costs its call, less the median call
    without one; of a function that is traced in every call, less the time from the first op of a recorded call to the
    end of the last.
    """
    for one in facts(watched):
        lost_ns, count = _lost_ns(one), _count(one)
        script = facts.evidence.script
        share = lost_ns / script.ns if lost_ns is not None and script is not None and script.ns else None
        if _is_notable(one.retraces, share if share is not None or script is None else _most(one, script)):
            yield _finding(facts, one, count, lost_ns, share)


def _is_notable(retraces: Sequence[ScriptTrace], share: float | None) -> bool:
    is_of_dataset = any(NOT_DIVIDED in line for trace in retraces for line in trace.changed)
    if len(retraces) < (1 if is_of_dataset else FEWEST_RETRACES):
        return False
    return share is None or share >= NOTABLE_SHARE


def _most(one: Watched, script: Script) -> float | None:
    """Return the share of the script's time that traces can have taken at most: all of the calls in which they were."""
    return sum(trace.ns for trace in one.retraces) / script.ns if script.ns else None


def _count(one: Watched) -> int:
    """Return how often the function was traced without need; of many traces the log has the first ones alone."""
    return max(one.function.traces - (len(one.traces) - len(one.retraces)), len(one.retraces))


def _lost_ns(one: Watched) -> int | None:
    known = [trace.lost_ns for trace in one.retraces if trace.lost_ns is not None]
    return round(sum(known) / len(known) * _count(one)) if known else None


def _finding(facts: Facts, one: Watched, count: int, lost_ns: int | None, share: float | None) -> Finding:
    function, causes = one.function, Counter(_cause(trace) for trace in one.retraces)
    (argument, cause), _ = causes.most_common(1)[0]
    says, advice, snippet = _CAUSES.get(cause, _OTHERWISE)
    words = {"argument": argument or "an argument", "function": function.name}
    each_ns = [trace.lost_ns for trace in one.retraces if trace.lost_ns is not None]
    changed = [line for trace in one.retraces for line in trace.changed]
    return found(
        title=f"'{function.name}' was traced again in {count} of {counted(function.calls, 'call')}: "
        f"{says.format(**words)}",
        nodes=(),
        evidence={
            "function": function.name,
            "source": function.source or None,
            "calls": function.calls,
            "retraces": count,
            "lost_ns": lost_ns,
            "median_ns": round(median(each_ns)) if each_ns else None,
            "share_of_script": share,
            "arguments": [{"argument": name or None, "traces": traces} for (name, _), traces in causes.most_common()][
                :CHANGES_LISTED
            ],
            "changed": list(dict.fromkeys(changed))[:CHANGES_LISTED],
            "python_objects": function.objects,
        },
        reason=_reason(one, lost_ns, share, each_ns),
        saving=_saving(facts, one, lost_ns),
        fix=Fix(advice.format(**words), "manual", (), snippet.format(**words)),
        floor="medium",
    )


def _cause(trace: ScriptTrace) -> tuple[str, str]:
    """Return the argument and what about it changed; of several changes the first one."""
    line = trace.changed[0] if trace.changed else ""
    if line in _OF_FUNCTION:
        return "", line
    argument, _, what = line.partition(": ")
    if NOT_DIVIDED in line:
        return argument, NOT_DIVIDED
    return argument, next((kind for kind in _CAUSES if what.startswith(kind)), "")


def _reason(one: Watched, lost_ns: int | None, share: float | None, each_ns: Sequence[int]) -> str:
    where = f" ({one.function.source})" if one.function.source else ""
    example = next((trace.changed for trace in one.retraces if trace.changed), ())
    said = f"; for instance: {'; '.join(example)}" if example else ""
    if lost_ns is None:
        return f"no trace that it had fitted these calls{where}, and what a call takes without one was not seen{said}"
    part = f", {format_share(share)} of the script's time," if share is not None else ""
    return (
        f"no trace that it had fitted these calls{where}: each new one took {format_ns(round(median(each_ns)))} more "
        f"than a call without, {format_ns(lost_ns)}{part} in all{said}"
    )


def _saving(facts: Facts, one: Watched, lost_ns: int | None) -> Saving:
    """Return what a step would take less in the mean of all calls, where the function is the judged one."""
    judged = facts(programs).judged
    is_judged = judged.name in one.function.concretes if judged is not None else one is facts(watched)[0]
    if lost_ns is None or not is_judged or not one.function.calls:
        return Saving()
    return Saving(round(lost_ns / one.function.calls), min(lost_ns / max(one.function.ns, 1), 1.0), "measured")
