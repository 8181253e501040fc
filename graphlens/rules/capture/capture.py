"""Rules about the evidence itself: what was not attributed, not stable, or not joined."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import joined_loosely, judged_graph
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import ledger, step_time, step_times_ns
from graphlens.facts.time.quality import quality
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.run import stat_of
from graphlens.rules.needs import EXECUTED, PROFILE, TIMING
from graphlens.rules.registry import found, rule
from graphlens.units import format_ns, format_share

# Real models leave less than 15 % unattributed; a fifth of the step could hide the largest cause of all.
UNATTRIBUTED_SHARE: Final = 0.20

# On a busy two-core machine, steps of one and the same function spread (p10 to p90) by about a fifth of their median.
# With a third, a difference of 10 %, the bound of a "high" finding, can no longer be told from noise.
UNSTABLE_SPREAD: Final = 0.33
FEWEST_STEPS: Final = 5  # below, a spread says nothing

# Joins of TensorFlow 2.21 profiles reach 0.97 and more; what is lost below 0.95 is a graph that was not captured.
JOIN_RATE: Final = 0.95
UNJOINED_NAMES_LISTED: Final = 10


_NOTHING_ON_ANY_THREAD: Final = (
    "the function was running, but no thread showed an op or the executor: work changes hands between threads, another "
    "program has the processor, or a library works without leaving events"
)
_NOTHING_SHOWN: Final = (
    "the profile shows neither a kernel nor a copy nor an op in this time: the program did something else, waited, or "
    "what it did leaves no events"
)


@rule("GL001", "unattributed-time", needs=(PROFILE,))
def unattributed_time(facts: Facts) -> Iterator[Finding]:
    """A large part of the step in which nothing that is known was running.

    ## What it finds

    Steps in which more than a fifth of the wall time belongs neither to an op, nor to the executor, nor to the call
    of the function: a function is running, but no thread shows what.

    ## Why it costs

    It may cost nothing, or be the largest cause of all: the other findings can only rank what was seen. Shares and
    savings stay right; they are shares of the whole step.

    ## Example

    ```bad
    x = Placeholder() float32[8]
    y = Relu(x) float32[8] 50us
    gap: 50us
    ```

    ```good
    x = Placeholder() float32[8]
    y = Relu(x) float32[8] 50us
    gap: 5us
    ```

    ## Fix

    Record again with nothing else running on the machine. Where it stays: threads that hand work to each other (many
    small ops on several threads), or libraries with threads of their own, which leave no events in the profile.

    ## When it is fine

    On a machine with fewer free cores than TensorFlow has threads: the time is that of other programs.

    ## Source

    The ledger: intervals of op events, asynchronous waits, executor runs and function runs of the profiled steps.
    """
    row = next((row for row in facts(ledger) if row.kind == "unattributed"), None)
    step = facts(step_time)
    if row is None or step is None or not step.median_ns or row.ns < UNATTRIBUTED_SHARE * step.median_ns:
        return
    share = row.ns / step.median_ns
    yield found(
        title=f"{format_share(share)} of the step is not attributed to anything",
        nodes=(),
        evidence={"unattributed_ns": row.ns, "step_ns": step.median_ns, "share": share},
        reason=_NOTHING_SHOWN if facts(joined_loosely) else _NOTHING_ON_ANY_THREAD,
        fix=Fix("Record again on an idle machine, or with fewer threads than free cores", "manual"),
    )


@rule("GL002", "unstable-timing", needs=(TIMING,))
def unstable_timing(facts: Facts) -> Iterator[Finding]:
    """Steps of the same function on the same inputs take very different times.

    ## What it finds

    A step time whose spread from the 10th to the 90th percentile is more than a third of the median.

    ## Why it costs

    Nothing by itself, but differences smaller than the spread cannot be told from chance: neither before and after a
    change, nor between two machines.

    ## Example

    ```bad
    x = Placeholder() float32[8]
    y = Relu(x) float32[8] 90us
    unprofiled: 90us 91us 95us 140us 190us 92us 230us 91us
    ```

    ```good
    x = Placeholder() float32[8]
    y = Relu(x) float32[8] 90us
    unprofiled: 90us 91us 95us 92us 90us 92us 93us 91us
    ```

    ## Fix

    Record more steps, on a machine with nothing else to do. When the first half of the steps is slower than the
    second, the machine was still warming up: use more warm-up steps.

    ## When it is fine

    When the work depends on the input, as with strings, ragged tensors and loops, and the inputs really differ.

    ## Source

    The wall times of the steps without the profiler, or with it where there are no others.
    """
    by_host = facts(step_times_ns)
    measured = [(stat_of(times_ns), host) for host, times_ns in by_host.items()]
    worst, host = max(((stat, host) for stat, host in measured if stat), key=lambda item: item[0].spread)
    if worst.n < FEWEST_STEPS or worst.spread <= UNSTABLE_SPREAD:
        return
    times_ns = by_host[host]
    half = len(times_ns) // 2
    where = f" on {host}" if len(measured) > 1 else ""
    yield found(
        title=f"Step times spread from {format_ns(worst.p10_ns)} to {format_ns(worst.p90_ns)} (p10 to p90){where}",
        nodes=(),
        evidence={
            "spread": worst.spread,
            "steps": worst.n,
            "first_half_median_ns": round(median(times_ns[:half])),
            "second_half_median_ns": round(median(times_ns[half:])),
        },
        reason=f"the spread is {format_share(worst.spread)} of the median {format_ns(worst.median_ns)}: other work on "
        "the machine, a changing clock rate, or work that depends on the input",
        fix=Fix("Record more steps on an idle machine", "manual"),
    )


@rule("GL003", "unmatched-profile", needs=(EXECUTED, PROFILE))
def unmatched_profile(facts: Facts) -> Iterator[Finding]:
    """Measured op time that belongs to no op of the captured graphs.

    ## What it finds

    A profile of which more than 5 % of the op time could not be joined to an executed op and on to an op as written.

    ## Why it costs

    What is not joined has no layer, no source and no finding: the ranking may miss the most expensive op.

    ## Example

    ```bad
    x = Placeholder() float32[8]
    y = Relu(x) float32[8] 50us
    unmatched:
    z = Softmax() 50us
    ```

    ```good
    x = Placeholder() float32[8]
    y = Relu(x) float32[8] 50us
    ```

    ## Fix

    Record profile and graphs in one go (`graphlens record`). With a profile of your own, check that it is of this
    model and of this version of it.

    ## When it is fine

    When the rest is the input pipeline: functions that `tf.data` maps run in the same process, but are no part of the
    step's graph.

    ## Source

    Names of the op events against names of the executed graph, and the origins of its ops in the traced graph.
    """
    rate = facts(quality).join_rate
    if rate is None or rate >= JOIN_RATE:
        return
    rest = facts(attribution).unjoined
    graph = facts(judged_graph)
    yield found(
        title=f"{format_share(1 - rate)} of the measured op time belongs to no op of the graph",
        nodes=[item.name for item in rest if item.name in graph],
        evidence={
            "join_rate": rate,
            "unjoined_ns": {f"{item.name} ({item.op})": item.ns for item in rest[:UNJOINED_NAMES_LISTED]},
            "unjoined_names": len(rest),
        },
        reason="these events name ops that are in no captured graph, or whose origin in the graph as written is not "
        "known: another function ran in the same process, or the profile is of another version of the model",
        fix=Fix("Record the profile and the graphs together: graphlens record", "manual"),
    )
