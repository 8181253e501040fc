"""Rules about replicas: how they exchange gradients, what of that nothing hides, and who the others wait for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from statistics import median
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.replicas.replicas import Exchange, exchanges, replicas
from graphlens.facts.time.ledger import step_time
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.replicas import Replicas, ReplicaStep
from graphlens.rules.needs import EXECUTED, PROFILE, Need
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_bytes, format_count, format_ns, format_share

# Below this an all-reduce takes as long as agreeing on it does, whatever it carries.
SMALL_BYTES: Final = 1 << 20
# What one bucket may hold: PyTorch's DistributedDataParallel fills buckets of as much, TensorFlow's documentation packs
# 50 MB.
BUCKET_BYTES: Final = 25 << 20
# Two or three small exchanges (gradients, metrics, a norm) are what a packed step has.
FEWEST_SMALL: Final = 8
# Less than this is within what steps of one program differ by.
LEAST_SHARE: Final = 0.03
OPS_LISTED: Final = 64

REPLICAS = Need(
    "replicas that exchange something",
    lambda facts: facts(replicas) is not None,
    lambda _: "the step has no replicas, or nothing that they exchange was seen",
)


@rule("GL701", "unbucketed-all-reduce", needs=(EXECUTED, PROFILE, REPLICAS))
def unbucketed_all_reduce(facts: Facts) -> Iterator[Finding]:
    """Gradients that are reduced over replicas one by one, in many small all-reduces.

    ## What it finds

    Steps in which each replica takes part in eight or more all-reduces of less than 1 MiB, which fewer buckets of 25
    MiB would hold.

    ## Why it costs

    Before an all-reduce starts, all replicas have to agree that each of them has reached it, and then send at least one
    message around. For a small tensor that is nearly all of its time, and it is paid for each: the bytes of 48 biases
    are nothing, 48 rounds are not.

    ## Example

    ```bad
    replicas
    x  = _Arg() float32[64,64]
    a  = MatMul(x, x) float32[64,64] 500us
    *12 r# = CollectiveReduceV2(a) float32[64,64] 100us
    replica_1/a = MatMul(x, x) float32[64,64] 500us @CPU:1
    *12 s# = CollectiveReduceV2(replica_1/a) float32[64,64] 100us @CPU:1
    ```

    ```good
    replicas
    x  = _Arg() float32[64,64]
    a  = MatMul(x, x) float32[64,64] 500us
    r  = CollectiveReduceV2(a) float32[49152] 120us
    replica_1/a = MatMul(x, x) float32[64,64] 500us @CPU:1
    s  = CollectiveReduceV2(replica_1/a) float32[49152] 120us @CPU:1
    ```

    ## Fix

    Reduce all gradients in one call: `context.all_reduce("sum", gradients)` with the list in place of a loop over it,
    or leave it to `optimizer.apply_gradients`, which does so. A `tf.distribute.experimental.CommunicationOptions` with
    a small `bytes_per_pack` cuts what was packed into pieces again: leave it at 0, or set it to some ten megabytes.

    ## When it is fine

    When the all-reduces run while gradients of earlier layers are still computed, which hides them: the saving counts
    what nothing hides.

    ## Source

    The collectives of the profile, with the shapes that the executed graph gives them. The saving is a bound: as many
    of the small exchanges as buckets would spare, at what one of them costs at least, and no more than what the
    exchanges take while nothing else runs.
    """
    together, step = facts(replicas), facts(step_time)
    small = [one for one in facts(exchanges) if one.nbytes is not None and one.nbytes < SMALL_BYTES]
    count = sum(one.per_step for one in small)
    nbytes = round(sum(one.per_step * (one.nbytes or 0) for one in small))
    needed = max(1, ceil(nbytes / BUCKET_BYTES))
    if together is None or step is None or count < FEWEST_SMALL or needed >= count:
        return
    spared = count - needed
    each_ns = round(median(one.least_ns for one in small))
    saved_ns = round(spared * each_ns)
    if together.exposed_ns is not None:  # where it is not known what nothing hides, only what they cost bounds it
        saved_ns = min(saved_ns, together.exposed_ns)
    yield found(
        title=f"{format_count(round(count))} all-reduces of {format_bytes(round(nbytes / count))} on average in each "
        f"step of a replica, where {counted(needed, 'bucket')} would do",
        nodes=_in_graph(facts, small),
        evidence={
            "all_reduces_per_step": round(count, 2),
            "buckets": needed,
            "bytes_per_step": nbytes,
            "cost_of_one_ns": each_ns,
            "exposed_ns": together.exposed_ns,
            "ops": [{"op": one.name, "bytes": one.nbytes, "least_ns": one.least_ns} for one in small[:OPS_LISTED]],
        },
        reason=f"each is an exchange of its own, which takes {format_ns(each_ns)} at least whatever it carries",
        saving=_bound(saved_ns, step.median_ns),
        fix=Fix(
            "Hand all gradients to one all_reduce, or to the optimizer, instead of one after the other",
            "tolerance",
            snippet='gradients = tf.distribute.get_replica_context().all_reduce("sum", gradients)  # the whole list',
        ),
    )


@rule("GL702", "exposed-communication", needs=(PROFILE, REPLICAS))
def exposed_communication(facts: Facts) -> Iterator[Finding]:
    """Exchanges between replicas during which nothing is computed.

    ## What it finds

    Steps of which replicas spend 3 % or more in exchanges that all of them have reached, while no other op of theirs
    runs. Waiting for a replica that comes later is another finding (`replica-imbalance`).

    ## Why it costs

    What is exchanged while gradients of earlier layers are computed is free. What is exchanged when they are all done
    makes the step longer by as much, and more replicas do not shorten it.

    ## Example

    ```bad
    replicas
    x  = _Arg() float32[64,64]
    a  = MatMul(x, x) float32[64,64] 500us
    r  = CollectiveReduceV2(a) float32[64,64] 200us
    b  = MatMul(r, x) float32[64,64] 100us
    replica_1/a = MatMul(x, x) float32[64,64] 500us @CPU:1
    s  = CollectiveReduceV2(replica_1/a) float32[64,64] 200us @CPU:1
    replica_1/b = MatMul(s, x) float32[64,64] 100us @CPU:1
    ```

    ```good
    replicas
    x  = _Arg() float32[64,64]
    a  = MatMul(x, x) float32[64,64] 500us
    r  = CollectiveReduceV2(a) float32[64,64] 200us
    b  = MatMul(a, x) float32[64,64] 300us
    c  = MatMul(r, x) float32[64,64] 100us
    replica_1/a = MatMul(x, x) float32[64,64] 500us @CPU:1
    s  = CollectiveReduceV2(replica_1/a) float32[64,64] 200us @CPU:1
    replica_1/b = MatMul(replica_1/a, x) float32[64,64] 300us @CPU:1
    replica_1/c = MatMul(s, x) float32[64,64] 100us @CPU:1
    ```

    ## Fix

    Exchange less often or less: a larger batch for each replica, several batches for one update
    (`gradient_accumulation_steps`), gradients in half precision. Exchange earlier: with some ten megabytes of
    `bytes_per_pack` in `tf.distribute.experimental.CommunicationOptions` what is ready is sent while the rest is
    computed. Many small all-reduces are `unbucketed-all-reduce`.

    ## When it is fine

    When the model is so small that computing takes no longer than one exchange: then it needs no replicas.

    ## Source

    The collectives of the profile. Of one exchange the least time that any replica spends in it is its cost; the rest
    of the time of the others is waiting. Of the cost, what no op of the same replica overlaps is exposed. The saving is
    a bound: all that is exposed.
    """
    together, step = facts(replicas), facts(step_time)
    if together is None or step is None or not together.exposed_ns:
        return
    saving = _bound(together.exposed_ns, step.median_ns)
    if (saving.share or 0.0) < LEAST_SHARE:
        return
    cost_ns = together.collective_ns or 0
    hidden = max(0.0, 1 - together.exposed_ns / cost_ns) if cost_ns else None
    yield found(
        title=f"{_exchanging(together)} {format_ns(together.exposed_ns)} of each step "
        f"({format_share(saving.share or 0.0)}) while nothing is computed",
        nodes=_in_graph(facts, facts(exchanges)),
        evidence={
            "exposed_ns": together.exposed_ns,
            "cost_ns": together.collective_ns,
            "hidden_share": None if hidden is None else round(hidden, 4),
            "exchanges_per_step": together.collectives,
            "waiting_ns": together.waiting_ns,
            "least_of": together.least_of,
        },
        reason=_why_exposed(together, hidden),
        saving=saving,
        fix=Fix(
            "Let each replica compute more for one exchange (a larger batch, gradient accumulation), or send what is "
            "ready while the rest is computed",
            "manual",
        ),
    )


def _exchanging(together: Replicas) -> str:
    if together.strategy == "parameter-server":
        return "Receiving from parameter servers takes"
    count = len(together.replicas)
    return f"Exchanges between {count} replicas take" if count > 1 else "Exchanges with other replicas take"


@rule("GL703", "replica-imbalance", needs=(PROFILE, REPLICAS))
def replica_imbalance(facts: Facts) -> Iterator[Finding]:
    """A replica that the others wait for, or one that has nothing to do.

    ## What it finds

    A replica for which the others wait 3 % of the step or more, because it takes a tenth longer than they do to get to
    the exchanges; and steps in which a replica is given no row of the batch.

    ## Why it costs

    Replicas leave an all-reduce together: all of them take as long as the slowest one. A replica without rows runs the
    whole forward and backward pass all the same, over nothing.

    ## Example

    ```bad
    replicas
    x  = _Arg() float32[64,64]
    a  = MatMul(x, x) float32[64,64] 500us
    r  = CollectiveReduceV2(a) float32[64,64] 20us
    replica_1/a = MatMul(x, x) float32[64,64] 900us @CPU:1
    s  = CollectiveReduceV2(replica_1/a) float32[64,64] 20us @CPU:1
    ```

    ```good
    replicas
    x  = _Arg() float32[64,64]
    a  = MatMul(x, x) float32[64,64] 500us
    r  = CollectiveReduceV2(a) float32[64,64] 20us
    replica_1/a = MatMul(x, x) float32[64,64] 505us @CPU:1
    s  = CollectiveReduceV2(replica_1/a) float32[64,64] 20us @CPU:1
    ```

    ## Fix

    Look at what takes longer there: more rows, longer sequences, a Python function, another program on that machine, a
    slower device. Give every replica as many rows: a global batch that is a multiple of the replicas, and
    `drop_remainder=True`, or samples that fill the last batch.

    ## When it is fine

    When the last batch of an epoch is one of thousands.

    ## Source

    Who is the last one to reach an exchange spends the least time in it: the rest of the time of the others is waiting,
    and booked on them. Work is the time during which at least one op of a replica runs; between ops it is scheduled, or
    waits for input. Rows are told by the size of the elements that the datasets hand out. The saving is a bound: all
    that the others wait.
    """
    together, step = facts(replicas), facts(step_time)
    if together is None or step is None:
        return
    slow = next((row for row in together.replicas if row.number == together.slowest), None)
    if slow is not None:
        yield from _slow(together, slow, step.median_ns)
    if together.uneven_rows:
        yield _empty(together)


def _slow(together: Replicas, slow: ReplicaStep, step_ns: int) -> Iterator[Finding]:
    others = [row for row in together.replicas if row.number != slow.number]
    waiting_ns = round(sum(row.waiting_ns for row in others) / max(len(others), 1))
    saving = _bound(waiting_ns, step_ns)
    if (saving.share or 0.0) < LEAST_SHARE:
        return
    yield found(
        title=f"{_called(others)} {format_ns(waiting_ns)} of each step ({format_share(saving.share or 0.0)}) for "
        f"{_name(slow)}",
        nodes=(),
        evidence={
            "slowest": slow.number,
            "host": slow.host,
            "device": slow.device,
            "work_ns": slow.work_ns,
            "work_of_others_ns": round(median(row.work_ns for row in others)),
            "between_ops_ns": slow.other_ns,
            "between_ops_of_others_ns": round(median(row.other_ns for row in others)),
            "waiting_ns": waiting_ns,
            "imbalance": together.imbalance,
            "slow_ops": [
                {"op": one.name, "type": one.op, "ns": one.ns, "others_ns": one.others_ns} for one in together.slow_ops
            ],
        },
        reason=_why_slow(together, slow, others),
        saving=saving,
        fix=Fix("Find what takes longer on that replica, and give all of them the same work", "manual"),
    )


def _called(others: Sequence[ReplicaStep]) -> str:
    return f"{_name(others[0]).capitalize()} waits" if len(others) == 1 else f"{len(others)} replicas wait"


def _name(row: ReplicaStep) -> str:
    return f"replica {row.number}" + (f" ({row.host})" if row.host and not row.device else "")


def _why_slow(together: Replicas, slow: ReplicaStep, others: Sequence[ReplicaStep]) -> str:
    work_ns, other_ns = (round(median(getattr(row, part) for row in others)) for part in ("work_ns", "other_ns"))
    if slow.work_ns - work_ns < slow.other_ns - other_ns:
        return (
            f"it spends {format_ns(slow.other_ns)} of a step between its ops (scheduling, input, Python) where others "
            f"spend {format_ns(other_ns)}"
        )
    most = next(iter(together.slow_ops), None)
    told = f"it works for {format_ns(slow.work_ns)} of a step where others work for {format_ns(work_ns)}"
    if most is None:
        return told
    return f"{told}; {most.op} {most.name} takes {format_ns(most.ns)} there, {format_ns(most.others_ns)} elsewhere"


def _empty(together: Replicas) -> Finding:
    rows, often = together.uneven_rows[0]
    steps = sum(count for _, count in together.uneven_rows)
    empty = [number for number, count in enumerate(rows) if not count]
    names = f"replica {empty[0]}" if len(empty) == 1 else f"{len(empty)} of {len(rows)} replicas"
    given = ", ".join(map(str, rows))
    return found(
        title=f"{names.capitalize()} {'is' if len(empty) == 1 else 'are'} given no row in {counted(steps, 'step')}, "
        "and computes forward and backward all the same",
        nodes=(),
        evidence={
            "rows": [list(one) for one, _ in together.uneven_rows],
            "steps": [count for _, count in together.uneven_rows],
        },
        reason=f"a batch of {counted(sum(rows), 'row')} is split over {len(rows)} replicas as {given} "
        f"({counted(often, 'time')})",
        saving=Saving(),
        fix=Fix(
            "Make the last batch whole: drop_remainder=True, or a number of samples that the batch divides",
            "manual",
            snippet="dataset = dataset.batch(GLOBAL_BATCH, drop_remainder=True)",
        ),
    )


def _why_exposed(together: Replicas, hidden: float | None) -> str:
    each = f"{format_count(round(together.collectives))} of them cost {format_ns(together.collective_ns or 0)} at least"
    if together.least_of == "steps":
        return f"{each}, as far as one replica alone tells; nothing else ran meanwhile"
    if together.strategy == "parameter-server":
        each = f"{format_count(round(together.collectives))} tensors take {format_ns(together.collective_ns or 0)}"
    overlap = "none" if not hidden else format_share(hidden)
    return f"{each}, and {overlap} of that overlaps with other ops of the same replica"


def _bound(ns: int, step_ns: int) -> Saving:
    share = min(1.0, ns / step_ns) if step_ns else 0.0
    return Saving(round(share * step_ns), share, "bound")


def _in_graph(facts: Facts, found: Sequence[Exchange]) -> list[str]:
    graph = facts(judged_graph)
    return [one.name for one in found if one.name in graph]
