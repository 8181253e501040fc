"""The chains that ran, each as the stages of one pipeline: their own work, and how much of it a step needs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.input.waits import fills_cache, judged_requests
from graphlens.ir.iterators import IteratorStage
from graphlens.ir.run import Profile

# They hand out what threads of their own make: who asks them waits, and what they ask is done elsewhere.
_AHEAD: Final = re.compile(r"^(\w*Prefetch|MapAndBatch|(Legacy)?Parallel\w+)(V\d+)?$")
_FUSED: Final = "MapAndBatch"
_SEVERAL_INPUTS: Final = re.compile(r"^(Legacy)?ParallelInterleave")
# A cache is two iterators, of which the inner one does all there is to do.
_WRAPPERS: Final = frozenset({"Root", "MemoryCache"})
_ELEMENTS: Final = "[*]"


@dataclass(frozen=True, slots=True)
class Chain:
    """One pipeline as it ran, whatever the number of times that it was iterated over.

    Attributes
    ----------
    stages
        Its stages, the one first that the steps ask; iterators of several lifetimes are summed.
    reads
        The positions among them of those that each one reads.
    requests
        How many elements the judged program was handed.
    details
        What the root tells of the whole.
    lifetimes
        How often it was made while it was recorded.
    """

    stages: tuple[Ran, ...]
    reads: tuple[tuple[int, ...], ...]
    requests: int
    details: Mapping[str, Any]
    lifetimes: int = 1

    @property
    def limiting(self) -> int | None:
        """The position of the stage whose own work takes most of a step; ``None`` where no stage's is known."""
        known = [number for number, stage in enumerate(self.stages) if stage.element_ns and not stage.fills]
        return max(known, key=lambda number: self.stages[number].element_ns or 0, default=None)


@dataclass(frozen=True, slots=True)
class Ran:
    """One stage of a chain: its iterator, summed, and what follows of its work.

    Attributes
    ----------
    work_ns
        What making one of its elements takes of its own work; ``None`` where that cannot be told.
    at_once
        How many of its elements are made at the same time.
    needed
        How many of its elements one element of the whole pipeline takes.
    fills
        Whether it ran to fill a cache only.
    """

    stage: IteratorStage
    work_ns: float | None
    at_once: int
    needed: float
    fills: bool

    @property
    def element_ns(self) -> float | None:
        """What it takes of the time of one element of the whole pipeline."""
        return None if self.work_ns is None else self.work_ns * self.needed / self.at_once

    @property
    def waits_ns(self) -> float | None:
        """For how long of that whoever asked it waited; ``None`` where it does its work then."""
        stage = self.stage
        return stage.self_ns / stage.elements * self.needed if works_ahead(stage.kind) and stage.elements else None


def works_ahead(kind: str) -> bool:
    """Tell whether stages of a kind make elements before they are asked for them."""
    return _AHEAD.match(kind) is not None


@fact
def chains(facts: Facts) -> tuple[Chain, ...]:
    """The pipelines that the judged program read, the one first that it read most from."""
    profile, requests = facts.evidence.profile, facts(judged_requests)
    if profile is None or not profile.iterators:
        return ()
    asked: dict[int, int] = defaultdict(int)
    for request in requests:
        if request.stage >= 0 and request.got is not False:
            asked[request.stage] += 1
    found = [_chain(profile, heads, asked) for heads in _alike(profile, asked).values()]
    return tuple(sorted((chain for chain in found if chain.stages), key=lambda chain: -chain.requests))


def _alike(profile: Profile, asked: Mapping[int, int]) -> Mapping[tuple[Any, ...], list[int]]:
    """Return what was asked, by pipeline: the same one is made again for each epoch."""
    found: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for head in asked:
        stage = profile.iterators[head]
        found[stage.path, stage.name].append(head)
    return found


def _chain(profile: Profile, heads: Sequence[int], asked: Mapping[int, int]) -> Chain:
    below = _below(profile)
    groups: dict[str, list[int]] = {}
    details: dict[str, Any] = {}
    for head in heads:
        for position in _all_below(below, head):
            stage = profile.iterators[position]
            if stage.kind == "Root":
                details.update(stage.details)
            if stage.kind not in _WRAPPERS:
                groups.setdefault(stage.path, []).append(position)
        details = details or _root_details(profile, head)
    number_of = {position: number for number, members in enumerate(groups.values()) for position in members}
    parents = [_parent(profile, members[0], number_of) for members in groups.values()]
    reads = tuple(
        tuple(number for number, parent in enumerate(parents) if parent == own) for own in range(len(parents))
    )
    summed = [_summed([profile.iterators[position] for position in members]) for members in groups.values()]
    is_filling = [_fills(profile, members[0]) for members in groups.values()]
    stages = _ran(summed, parents, is_filling, details.get("threadpool_size"))
    return Chain(tuple(stages), reads, sum(asked[head] for head in heads), details, len(heads))


def _below(profile: Profile) -> Mapping[int, list[int]]:
    below: dict[int, list[int]] = defaultdict(list)
    for position, stage in enumerate(profile.iterators):
        if stage.parent is not None:
            below[stage.parent].append(position)
    return below


def _all_below(below: Mapping[int, list[int]], head: int) -> Iterator[int]:
    """Yield a stage and all below it: what reads another one comes before it."""
    waiting = [head]
    while waiting:
        position = waiting.pop()
        yield position
        waiting.extend(reversed(below.get(position, ())))


def _root_details(profile: Profile, head: int) -> dict[str, Any]:
    """Return what is told of the whole that a stage is part of."""
    position: int | None = head
    while position is not None:
        stage = profile.iterators[position]
        if stage.kind == "Root":
            return dict(stage.details)
        position = stage.parent
    return {}


def _parent(profile: Profile, position: int, number_of: Mapping[int, int]) -> int | None:
    """Return the number of the stage that reads one, wrappers left out."""
    above = profile.iterators[position].parent
    while above is not None and above not in number_of:
        above = profile.iterators[above].parent
    return None if above is None else number_of[above]


def _fills(profile: Profile, position: int) -> bool:
    """Tell whether a stage, or one that it is read by, fills a cache."""
    above: int | None = position
    while above is not None:
        if fills_cache(profile, profile.iterators[above]):
            return True
        above = profile.iterators[above].parent
    return False


def _summed(members: Sequence[IteratorStage]) -> IteratorStage:
    """Return the iterators of several lifetimes as one: sums, and what was granted last."""
    from dataclasses import replace

    last = max(members, key=lambda stage: stage.end_ns)
    if len(members) == 1:
        return last
    runs = [stage.function_runs for stage in members if stage.function_runs is not None]
    function_ns = [stage.function_ns for stage in members if stage.function_ns is not None]
    elements = sum(stage.elements for stage in members)
    buffered = [stage.buffered * stage.elements for stage in members if stage.buffered is not None]
    return replace(
        last,
        start_ns=min(stage.start_ns for stage in members),
        elements=elements,
        inclusive_ns=sum(stage.inclusive_ns for stage in members),
        self_ns=sum(stage.self_ns for stage in members),
        function_ns=sum(function_ns) if function_ns else None,
        function_runs=sum(runs) if runs else None,
        buffered=sum(buffered) / elements if buffered and elements else None,
    )


def _ran(
    stages: Sequence[IteratorStage],
    parents: Sequence[int | None],
    is_filling: Sequence[bool],
    threads: int | None,
) -> list[Ran]:
    """Return the stages, readers first, with their work; functions share the ``threads`` of the pipeline."""
    found: list[Ran] = []
    for stage, parent, fills in zip(stages, parents, is_filling, strict=True):
        reader = None if parent is None else found[parent]
        needed = 1.0 if reader is None else reader.needed * _per_element(reader.stage, stage)
        at_once = _granted(stage, threads)
        if not works_ahead(stage.kind):  # it works on the thread of what asks it
            at_once = _inherited(stage, reader, threads)
        found.append(Ran(stage, _work_ns(stage), at_once, needed, fills))
    return found


def _granted(stage: IteratorStage, threads: int | None) -> int:
    granted = max(stage.parallelism or 1, 1)
    return min(granted, threads) if threads else granted


def _inherited(stage: IteratorStage, reader: Ran | None, threads: int | None) -> int:
    """Return on how many threads a stage is asked at once: an interleave asks several of its inputs in parallel."""
    if reader is None:
        return 1
    if not works_ahead(reader.stage.kind):
        return reader.at_once
    if not _SEVERAL_INPUTS.match(reader.stage.kind) or not stage.path.startswith(reader.stage.path + _ELEMENTS):
        return 1
    cycle = reader.stage.details.get("cycle_length")
    return max(1, min(_granted(reader.stage, threads), cycle if isinstance(cycle, int) and cycle > 0 else 1 << 30))


def _per_element(reader: IteratorStage, stage: IteratorStage) -> float:
    """Return how many elements of a stage one of its reader's takes.

    What works ahead has asked for more than it has handed out, as much as its buffer holds: that is no measure.
    """
    if reader.kind.startswith(_FUSED):
        return float(_batch_size(reader) or _ratio(stage.elements, reader.elements))
    if works_ahead(reader.kind):
        is_input = _SEVERAL_INPUTS.match(reader.kind) and not stage.path.startswith(reader.path + _ELEMENTS)
        return _ratio(stage.elements, reader.elements) if is_input else 1.0
    return _ratio(stage.elements, reader.elements)


def _ratio(elements: int, of: int) -> float:
    return elements / of if of else 1.0


def _batch_size(stage: IteratorStage) -> int | None:
    size = stage.details.get("batch_size")
    return size if isinstance(size, int) and size > 0 else None


def _work_ns(stage: IteratorStage) -> float | None:
    """Return what one element takes of a stage's own work.

    Who works ahead is known by the runs of its function; else a stage works while it is asked and asks no other.
    """
    if not works_ahead(stage.kind):
        return stage.self_ns / stage.elements if stage.elements else None
    if not stage.function_runs or stage.function_ns is None or _SEVERAL_INPUTS.match(stage.kind):
        return None
    per_element = (_batch_size(stage) or 1) if stage.kind.startswith(_FUSED) else 1
    return stage.function_ns / stage.function_runs * per_element
