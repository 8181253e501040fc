"""Changes of an input pipeline that may make it faster: which of them fit the stages as they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.ir.edits import (
    AddCache,
    AddPrefetch,
    Edit,
    InputThreads,
    NotDeterministic,
    ParallelInterleave,
    ParallelMap,
    VectorizeMap,
)
from graphlens.ir.pipelines import AUTOTUNE, WrittenPipeline, WrittenStage

_TUNED: Final = "tf.data.AUTOTUNE"
_MAPS: Final = frozenset({"MapDataset", "ParallelMapDatasetV2"})
_BATCHES: Final = frozenset({"BatchDatasetV2", "ParallelBatchDataset"})
# What comes in another order, or over again, in each epoch: what is kept behind them would not.
_CHANGING: Final = ("Shuffle", "Repeat", "Random", "Sample", "DirectedInterleave", "Cache", "Snapshot", "MemoryCache")
_OWN_THREADS: Final = "threading.private_threadpool_size"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A change that fits a pipeline.

    ``change`` is what is to be written in Python, ``source`` the user's line where it is.
    """

    change: str
    edits: tuple[Edit, ...]
    source: str = ""


def rewrites_of(pipeline: WrittenPipeline, cores: int) -> tuple[Rewrite, ...]:
    """Return the changes that fit a pipeline, those first that mostly give most; ``cores`` are those of the machine.

    What a library has made is not the user's to change.
    """
    stages = [one for one in pipeline.stages if not (one.library or "/" in one.name)]  # nor is what a function makes
    found = [
        *_vectorized(stages),
        *_cached(pipeline, stages),
        *_interleaved(stages, cores),
        *_parallel(pipeline, stages),
        *_unordered(stages),
        *_prefetched(pipeline, stages),
        *_threads(pipeline, stages, cores),
    ]
    return tuple(found)


def _vectorized(stages: Sequence[WrittenStage]) -> Iterator[Rewrite]:
    for stage, reader in _read_by_one(stages):
        if stage.kind in _MAPS and reader.kind in _BATCHES and stage.per_element:
            change = f".batch({_number(reader.batch_size)}).map({stage.function}), the batch before the map"
            yield Rewrite(change, (VectorizeMap(stage.name),), stage.source)


def _read_by_one(stages: Sequence[WrittenStage]) -> Iterator[tuple[WrittenStage, WrittenStage]]:
    """Yield each stage that one other reads, and that one."""
    for stage in stages:
        readers = [one for one in stages if stage.name in one.inputs]
        if len(readers) == 1:
            yield stage, readers[0]


def _number(value: int | None) -> str:
    return "…" if value is None else _TUNED if value == AUTOTUNE else str(value)


def _cached(pipeline: WrittenPipeline, stages: Sequence[WrittenStage]) -> Iterator[Rewrite]:
    """Yield a cache behind the last function whose results are the same in each epoch, unless something is kept."""
    if any("Cache" in stage.kind or "Snapshot" in stage.kind for stage in stages):
        return
    steady = _same_in_each_epoch({stage.name: stage for stage in pipeline.stages}, stages)
    computing = [stage for stage in steady if stage.function and stage.kind != "FilterDataset"]
    if computing:
        last = computing[-1]
        yield Rewrite(f".cache() behind .{_method(last)}({last.function})", (AddCache(last.name),), last.source)


def _same_in_each_epoch(known: Mapping[str, WrittenStage], stages: Sequence[WrittenStage]) -> list[WrittenStage]:
    same: dict[str, bool] = {}
    for stage in known.values():
        own = not (stage.random or stage.python or stage.kind.startswith(_CHANGING))
        same[stage.name] = own and all(same.get(name, False) for name in stage.inputs)
    return [stage for stage in stages if same[stage.name]]


def _method(stage: WrittenStage) -> str:
    return "interleave" if "Interleave" in stage.kind else "flat_map" if "FlatMap" in stage.kind else "map"


def _interleaved(stages: Sequence[WrittenStage], cores: int) -> Iterator[Rewrite]:
    """Yield interleaves that read one input at a time, with how many they mix.

    That is the number of cores where nobody has said it, and with ``num_parallel_calls=AUTOTUNE`` a third of them:
    elements would come in another order (``interleave_dataset_op.cc`` and ``parallel_interleave_dataset_op.cc``).
    """
    for stage in stages:
        if stage.kind == "InterleaveDataset":
            cycle = _number(cores if stage.cycle_length == AUTOTUNE else stage.cycle_length)
            change = f".interleave({stage.function}, cycle_length={cycle}, num_parallel_calls={_TUNED})"
            yield Rewrite(change, (ParallelInterleave(stage.name),), stage.source)


def _parallel(pipeline: WrittenPipeline, stages: Sequence[WrittenStage]) -> Iterator[Rewrite]:
    """Yield maps that are sequential and that TensorFlow does not make parallel by itself."""
    granted = {part: one.parallelism for one in pipeline.rewritten for part in one.made_of}
    for stage in stages:
        if stage.kind == "MapDataset" and granted.get(stage.name) in {None, 1}:
            edit = ParallelMap(stage.name, reorders=bool(stage.random))
            yield Rewrite(f".map({stage.function}, num_parallel_calls={_TUNED})", (edit,), stage.source)


def _unordered(stages: Sequence[WrittenStage]) -> Iterator[Rewrite]:
    if any(stage.parallelism not in {None, 1} and stage.deterministic for stage in stages):
        yield Rewrite("options.deterministic = False", (NotDeterministic(),))


def _prefetched(pipeline: WrittenPipeline, stages: Sequence[WrittenStage]) -> Iterator[Rewrite]:
    ends = {stages[-1].kind, pipeline.stages[-1].kind} if stages else set()
    if ends and "PrefetchDataset" not in ends:
        yield Rewrite(f".prefetch({_TUNED}) at the end", (AddPrefetch(),), stages[-1].source)


def _threads(pipeline: WrittenPipeline, stages: Sequence[WrittenStage], cores: int) -> Iterator[Rewrite]:
    if _OWN_THREADS not in pipeline.options and any(stage.function for stage in stages):
        yield Rewrite(f"options.{_OWN_THREADS} = {2 * cores}", (InputThreads(2 * cores),))
