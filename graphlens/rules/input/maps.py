"""Rules about the functions that a pipeline calls for each element, where they limit it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.input.verdict import (
    Verdict,
    changes_below,
    decoding_ops,
    is_cached,
    is_python,
    is_random,
    is_repeated,
    reader_of,
    verdict,
)
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import AddCache, ParallelMap, VectorizeMap
from graphlens.rules.input.waiting import evidence_of
from graphlens.rules.needs import INPUT
from graphlens.rules.registry import found, rule
from graphlens.units import format_ns

_MAPS: Final = ("Map", "MapAndBatch", "ParallelMapV2", "ParallelMap")
# Calling a function costs the pipeline 10 to 50 us: a thread is woken, an executor begun, a result copied.
CALL_NS: Final = 50_000
FEWEST_CALLS: Final = 8  # of a step, from which they are worth to be one


@rule("GL302", "sequential-map", needs=(INPUT,))
def sequential_map(facts: Facts) -> Iterator[Finding]:
    """A map that limits the pipeline and makes one element at a time, with cores to spare.

    ## What it finds

    Steps that wait for a map, be it fused with a batch or not, which was granted a parallelism of 1 and is not left to
    TensorFlow's tuning, on a machine with several cores.

    ## Why it costs

    One core makes all elements. TensorFlow makes maps parallel by itself only if their function has no state: one that
    draws a random number stays sequential, also where it is fused with the batch behind it under the same name as a
    parallel one.

    ## Example

    ```bad
    called: train_step dispatch 50us input 6ms python 50us
    pipeline: cores 4 | Prefetch buffer 2 <- MapAndBatch (MapDataset:1,BatchDatasetV2:2) 9ms parallel 1 random
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 3ms
    out = _Retval(y)
    ```

    ```good
    called: train_step dispatch 50us input 6ms python 50us
    pipeline: cores 4 | Prefetch buffer 2 <- MapAndBatch (MapDataset:1,BatchDatasetV2:2) 36ms parallel 4 autotune
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 3ms
    out = _Retval(y)
    ```

    ## Fix

    `dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)`. Elements keep their order; which random numbers each
    one gets is then no longer the same in every run.

    ## When it is fine

    When runs have to be repeatable to the last digit. A function of Python holds the interpreter's lock: several calls
    of it do not run at once (`python-input-function`).

    ## Source

    The chain of iterators in the profile, and the parallelism that it was granted. The saving is a bound: the work
    divided among the cores that the pipeline may use.
    """
    told = facts(verdict)
    if told is None or not told.waits or told.stage is None or told.stage.kind not in _MAPS:
        return
    stage, cores = told.stage, told.pipeline.details.get("cpu_budget")
    if (stage.parallelism or 1) > 1 or stage.autotune or cores == 1 or is_python(facts, told):
        return
    divided_ns = round((stage.step_ns or 0) * (1 - 1 / cores)) if isinstance(cores, int) and cores else told.wait_ns
    ns = min(told.wait_ns, divided_ns)
    yield found(
        title=f"{told.name} makes one element at a time, and steps wait for it",
        nodes=(),
        evidence={**evidence_of(told), "cpu_budget": cores},
        reason=(
            f"its own work takes {format_ns(stage.step_ns)} of each step on one core, and it was granted a parallelism "
            f"of 1{_why(facts, told)}"
        ),
        saving=Saving(ns, ns / told.period_ns, "bound"),
        fix=Fix(
            "Let the map make several elements at a time",
            "tolerance" if is_random(facts, told) else "exact",
            tuple(ParallelMap(name, reorders=is_random(facts, told)) for name in _map_of(told)),
            f"dataset.map({stage.function or 'function'}, num_parallel_calls=tf.data.AUTOTUNE)",
        ),
    )


def _why(facts: Facts, told: Verdict) -> str:
    if is_random(facts, told):
        return ": its function has state, or draws random numbers, which TensorFlow does not run in parallel by itself"
    return ""


def _map_of(told: Verdict) -> tuple[str, ...]:
    """Return the user's map among the stages that were fused."""
    names = told.stage.stages if told.stage else ()
    return tuple(name for name in names if "MapDataset" in name)[:1]


@rule("GL303", "unvectorized-map", needs=(INPUT,))
def unvectorized_map(facts: Facts) -> Iterator[Finding]:
    """A cheap function that is called for every element before a batch, and could be called once for the batch.

    ## What it finds

    Steps that wait for a map before a batch whose function takes less than 50 us, less than calling it costs, where
    the function does the same to each row of a batch as to an element.

    ## Why it costs

    Each call wakes a thread, starts an executor and copies its result into the batch. With the batch first the function
    runs once for all of its elements, and its ops work on large arrays.

    ## Example

    ```bad
    called: train_step dispatch 50us input 3ms python 50us
    pipeline: MapAndBatch (MapDataset:1,BatchDatasetV2:2) 5ms batch 256 parallel 1 rows <- TensorSlice x256 1us
    x   = Placeholder() float32[256,64]
    y   = Relu(x) float32[256,64] 3ms
    out = _Retval(y)
    ```

    ```good
    called: train_step dispatch 50us input 3ms python 50us
    pipeline: MapAndBatch (MapDataset:1,BatchDatasetV2:2) 5ms batch 256 parallel 1 <- TensorSlice x256 1us
    x   = Placeholder() float32[256,64]
    y   = Relu(x) float32[256,64] 3ms
    out = _Retval(y)
    ```

    ## Fix

    `dataset.batch(size).map(function)`, with a function that takes a batch.

    ## When it is fine

    When elements have different shapes, or the function looks at a whole element: decoding, cropping, sorting.

    ## Source

    The runs of the function in the profile, and its ops as written. The saving is a bound: as if the calls of single
    elements cost nothing.
    """
    told = facts(verdict)
    if told is None or not told.waits or told.stage is None or told.stage.kind not in _MAPS:
        return
    size, reader = _batch_size(told), reader_of(told)
    is_batched = told.stage.kind == "MapAndBatch" or (reader is not None and "Batch" in reader.kind)
    if (
        not size
        or size < FEWEST_CALLS
        or not is_batched
        or told.written is None
        or told.written.per_element is not True
    ):
        return
    one_ns = (told.stage.work_ns or 0) / (size if told.stage.kind == "MapAndBatch" else 1)
    if is_python(facts, told) or is_random(facts, told) or one_ns >= CALL_NS:
        return
    yield found(
        title=f"{told.name} takes {format_ns(round(one_ns))} and is called for each of {size} elements of a batch",
        nodes=(),
        evidence={**evidence_of(told), "batch_size": size, "call_ns": round(one_ns)},
        reason="calling a function costs the pipeline more than this one takes; it may be given whole batches as well",
        saving=Saving(told.wait_ns, told.share, "bound"),
        fix=Fix(
            "Batch first, and let the function take batches",
            "tolerance",
            tuple(VectorizeMap(name) for name in _map_of(told)),
            f"dataset.batch({size}).map({told.stage.function or 'function'})",
        ),
    )


def _batch_size(told: Verdict) -> int | None:
    """Return how many elements the batch takes that the limiting stage makes."""
    own = set(told.stage.stages if told.stage else ())
    reader = reader_of(told)
    names = own.union(reader.stages if reader else ())
    return next((one.batch_size for one in told.pipeline.written if one.name in names and one.batch_size), None)


@rule("GL305", "python-input-function", needs=(INPUT,))
def python_input_function(facts: Facts) -> Iterator[Finding]:
    """A stage of the pipeline that calls Python for each element, and limits it.

    ## What it finds

    Steps that wait for a dataset `from_generator`, or for a map that calls `py_function` or `numpy_function`.

    ## Why it costs

    Python runs one thing at a time in a process: the pipeline's calls wait for each other and for the training loop,
    whatever parallelism was asked for. Each element is copied into a tensor besides.

    ## Example

    ```bad
    called: train_step dispatch 50us input 6ms python 50us
    pipeline: Prefetch buffer 2 <- Map (MapDataset:1) 9ms python
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 3ms
    out = _Retval(y)
    ```

    ```good
    called: train_step dispatch 50us input 6ms python 50us
    pipeline: Prefetch buffer 2 <- Map (MapDataset:1) 9ms
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 3ms
    out = _Retval(y)
    ```

    ## Fix

    Write the function with ops of TensorFlow, or prepare the data once, as TFRecord files or arrays. A generator that
    waits for something else can be one of several in a parallel `interleave`.

    ## When it is fine

    When the work is done by a library that releases Python's lock, and the call is made parallel.

    ## Source

    The chain of iterators in the profile (`Generator`), and the ops that functions ran (`PyFunc`, `EagerPyFunc`). The
    saving is a bound: input that costs nothing.
    """
    told = facts(verdict)
    if told is None or not told.waits or told.stage is None or not is_python(facts, told):
        return
    what = "is a Python generator" if told.stage.kind == "Generator" else "calls Python for each element"
    yield found(
        title=f"{told.name} {what}, and steps wait for it",
        nodes=(),
        evidence=evidence_of(told),
        reason=(
            f"an element takes {format_ns(told.stage.work_ns)} of Python, which runs one thing at a time: "
            f"{format_ns(told.stage.step_ns)} of each step"
        ),
        saving=Saving(told.wait_ns, told.share, "bound"),
        fix=Fix("Write the function with ops of TensorFlow, or prepare the data once", "manual"),
    )


@rule("GL306", "uncached-decode", needs=(INPUT,))
def uncached_decode(facts: Facts) -> Iterator[Finding]:
    """Data that is read or decoded again in every epoch, and limits the pipeline.

    ## What it finds

    Steps that wait for a map that decodes or parses (`DecodeJpeg`, `ParseExample`, `ReadFile`) without drawing random
    numbers, in a pipeline that is gone through several times and keeps nothing.

    ## Why it costs

    The same bytes become the same tensors, epoch after epoch.

    ## Example

    ```bad
    called: train_step dispatch 50us input 6ms python 50us
    pipeline: Prefetch buffer 2 <- FiniteRepeat 1us <- Map (MapDataset:1) 9ms ops DecodeJpeg
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 3ms
    out = _Retval(y)
    ```

    ```good
    called: train_step dispatch 50us input 6ms python 50us
    pipeline: Prefetch buffer 2 <- FiniteRepeat 1us <- Map (MapDataset:1) 9ms ops DecodeJpeg random
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 3ms
    out = _Retval(y)
    ```

    ## Fix

    `.cache()` behind the map that decodes, and before what is random: augmentation and shuffling.

    ## When it is fine

    When the decoded data does not fit into memory: `cache(path)` keeps it on a disk, `snapshot` between runs.

    ## Source

    The chain of iterators in the profile, and the ops that its functions ran. The saving is a bound: input that costs
    nothing.
    """
    told = facts(verdict)
    if told is None or not told.waits or told.stage is None:
        return
    ops = decoding_ops(facts, told)
    if not ops or is_random(facts, told) or is_cached(told) or not is_repeated(told):
        return
    yield found(
        title=f"{told.name} decodes the same data in every epoch ({', '.join(ops)}), and steps wait for it",
        nodes=(),
        evidence={**evidence_of(told), "ops": list(ops)},
        reason=f"{format_ns(told.stage.step_ns)} of each step are spent on what could be kept from the first epoch on",
        saving=Saving(told.wait_ns, told.share, "bound"),
        fix=_kept(told),
    )


def _kept(told: Verdict) -> Fix:
    """Return a cache behind the map; it would keep the order of one epoch as well, where that is another in each."""
    snippet = f"dataset.map({told.stage.function if told.stage and told.stage.function else 'decode'}).cache()"
    if changes_below(told):
        return Fix(
            "Keep what was decoded, if it fits into memory: decode first; shuffle and repeat behind the cache",
            "manual",
            snippet=f"{snippet}.shuffle(size)",
        )
    edits = tuple(AddCache(name) for name in _map_of(told))
    return Fix("Keep what was decoded: a cache behind the map, if it fits into memory", "exact", edits, snippet)
