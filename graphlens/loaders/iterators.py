"""The iterators of tf.data on a host plane: what each stage of the input pipelines did, whose functions ran for it.

A profile may hold a million events of iterators, so they are read, nested and summed as columns.  Three things make
stages of them: an element of an interleave has an iterator of its own, which is told together with its like; what
iterators are told apart by is used again, within one recording; and a stage that works ahead asks the one below it on
a thread of its own.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphlens.ir.columns import Codes, Ints, first_of, looked_up, numbered
from graphlens.ir.iterators import NO_STAGE, IteratorStage, user_stages
from graphlens.loaders.event_columns import PlaneEvents
from graphlens.loaders.planes import PS_PER_NS
from graphlens.loaders.stage_events import ELEMENTS, LEVEL, NAME, NO_EVENT, StageEvents

_NUMBER: Final = re.compile(r"\[(\d+|\*)\]$")
_AGAIN: Final = re.compile(r"Repeat\[\*\]$")  # what follows is made once, and iterated over again and again

_MADE: Final = "MakeIterator::"
_MADE_ROOT: Final = "MakeIterator::RootDataset"
# What TensorFlow puts around every pipeline, and no iterator is called after.
_AROUND: Final = frozenset(
    {"Root", "Model", "MaxIntraOpParallelism", "PrivateThreadPool", "Options", "FinalizeDataset"}
)
_OF_DATASET: Final = re.compile(r"Dataset(?=(V\d+)?$)")

_ID, _PARENT, _BUFFERED = "id", "parent_id", "buffered_elements"
_PARALLELISM: Final = "parallelism"
_AUTOTUNE, _LIMIT = "autotune", "buffer_limit"
_DETAILS: Final = frozenset({
    "cpu_budget", "ram_budget_megabytes", "ram_usage_megabytes", "threadpool_size", "intra_op_parallelism",
    "warm_start", "batch_size",
    "algorithm", "deterministic", "cycle_length", "block_length", "max_batch_results", "buffer_size",
    "buffer_output_elements", "prefetch_input_elements", "parallel_copy", "autotune_mode",
})  # fmt: skip
READ: Final = frozenset({_ID, _PARENT, NAME, _BUFFERED, _PARALLELISM, _AUTOTUNE, _LIMIT, *_DETAILS})


class Calls(NamedTuple):
    """Calls of functions by datasets, by ascending line and start, and how long each kept an executor at work."""

    line: Ints
    start_ps: Ints
    work_ns: Ints


# -- stages ---------------------------------------------------------------------------------------------------------


class Iterators(NamedTuple):
    """The stages of a plane, and for each event of ``StageEvents`` which of them it is of."""

    stages: tuple[IteratorStage, ...]
    stage: Ints


def made_roots(events: PlaneEvents, names: Mapping[int, str]) -> Sequence[tuple[int, str]]:
    """Return when pipelines were made anew, and what the first of their stages is called there."""
    made = {key: name for key, name in names.items() if name.startswith(_MADE)}
    places = np.flatnonzero(looked_up(events.name, dict.fromkeys(made, 1)) == 1)
    places = places[np.lexsort((-events.end_ps[places], events.start_ps[places], events.line[places]))]
    rows = zip(places.tolist(), events.name[places].tolist(), strict=True)
    found: list[tuple[int, str]] = []
    is_open = False
    for place, key in rows:
        kind = _OF_DATASET.sub("", made[key].removeprefix(_MADE))
        if made[key] == _MADE_ROOT:
            found.append((int(events.start_ns[place]), ""))
            is_open = True
        elif is_open and kind not in _AROUND:
            found[-1] = (found[-1][0], kind)
            is_open = False
    return sorted(found)


def iterators_of(
    found: StageEvents, calls: Calls, made: Sequence[tuple[int, str]] = (), first_stage: int = 0
) -> Iterators:
    """Return the stages that events are of.

    Parameters
    ----------
    calls
        The functions that were called for them.
    made
        As ``made_roots``.
    first_stage
        How many stages of other planes come before them.
    """
    if not len(found):
        return Iterators((), np.zeros(0, np.int64))
    ids, parents = found.numbers(_ID), found.numbers(_PARENT)
    chain = _chains(found, ids, parents, made)
    group = _in_order(found, chain, numbered(found.path, chain))
    return Iterators(_Summing(found, _Keys(ids, parents, chain, group), calls, first_stage).stages(), group)


def _in_order(found: StageEvents, chain: Ints, group: Ints) -> Ints:
    """Return the groups numbered by chain and path: what reads a stage comes before it."""
    first = first_of(group)
    keys = [
        (own, found.paths[path]) for own, path in zip(chain[first].tolist(), found.path[first].tolist(), strict=True)
    ]
    rank = np.empty(len(first), np.int64)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(first))
    return rank[group]


def _chains(found: StageEvents, ids: Ints, parents: Ints, made: Sequence[tuple[int, str]]) -> Ints:
    """Return the number of the chain that each event is of: one for each root in each of its lifetimes."""
    own = numbered(ids, parents)
    first = first_of(own)
    each = ids[first].tolist()
    above = dict(zip(each, parents[first].tolist(), strict=True))
    roots = Codes[int]()
    root = np.array([roots(_root_of(one, above)) for one in each], np.int64)[own]
    lifetime = np.zeros(len(found), np.int64)
    is_root = looked_up(found.path, {code: 1 for code, path in enumerate(found.paths) if _kind(path) == "Root"}) == 1
    names = np.full(len(found), NO_EVENT)
    names[is_root] = found.names_of(np.flatnonzero(is_root))
    order = np.argsort(root, kind="stable")
    for places in np.split(order, np.searchsorted(root[order], np.arange(1, len(roots.all)))):
        asked = places[is_root[places]]
        asked = asked[np.argsort(found.start_ns[asked], kind="stable")]
        borders = _borders(found.start_ns[asked], names[asked], made, _top(found, places))
        if borders:
            lifetime[places] = np.searchsorted(np.array(borders), found.start_ns[places], side="right")
    return numbered(root, lifetime)


def _root_of(one: int, above: Mapping[int, int]) -> int:
    """Return the topmost iterator above one; 0 is none."""
    seen = {one}
    while (parent := above.get(one, 0)) and parent not in seen:
        one = parent
        seen.add(one)
    return one


def _top(found: StageEvents, places: Ints) -> str:
    """Return what the first stage below the root is called."""
    parts = min((found.paths[code] for code in np.unique(found.path[places])), key=len).split(LEVEL)
    longer = next(
        (path for code in np.unique(found.path[places]) if len(path := found.paths[code].split(LEVEL)) > 2), parts
    )
    return _NUMBER.sub("", longer[2]) if len(longer) > 2 else ""


def _borders(start_ns: Ints, names: Ints, made: Sequence[tuple[int, str]], top: str) -> list[int]:
    """Return when lifetimes of a root after the first one begin: it is called otherwise, or was made anew."""
    moments = [moment for moment, kind in made if kind == top]
    found = []
    for (since_ns, before), (until_ns, after) in pairwise(zip(start_ns.tolist(), names.tolist(), strict=True)):
        last = bisect_right(moments, until_ns) - 1
        made_ns = moments[last] if last >= 0 and moments[last] > since_ns else None
        if made_ns is not None or before != after:
            found.append(until_ns if made_ns is None else made_ns)
    return found


class _Keys(NamedTuple):
    """Of each event: its iterator and what reads that, its chain, and its group."""

    ids: Ints
    parents: Ints
    chain: Ints
    group: Ints


class _Summing:
    """Sums the events of stages; every group of them becomes a stage."""

    def __init__(self, found: StageEvents, keys: _Keys, calls: Calls, first_stage: int) -> None:
        self.found = found
        self.ids, self.parents, self.chain, self.group = keys
        group = keys.group
        self.first_stage = first_stage
        self.size = int(group.max()) + 1
        self.first = first_of(group)
        self.duration_ps = found.end_ps - found.start_ps
        self.parent = self._parents()
        self.function_ns, self.function_runs = self._functions(calls)

    def stages(self) -> tuple[IteratorStage, ...]:
        found, group = self.found, self.group
        within = found.outer != NO_EVENT
        inner_ps = np.bincount(found.outer[within], self.duration_ps[within], len(found))
        elements = np.bincount(group, minlength=self.size)
        inclusive_ns = self._summed(self.duration_ps)
        self_ns = self._summed(np.maximum(0, self.duration_ps - inner_ps))
        buffered = np.bincount(group, found.numbers(_BUFFERED), self.size) / elements
        since_ns, until_ns = self._extents()
        threads = np.bincount(group[first_of(numbered(group, found.line))], minlength=self.size)
        told = found.stats_of(self._last())
        granted = self._granted()
        names = self._names(told)
        return tuple(
            _stage(
                told[number],
                IteratorStage(
                    path := found.paths[found.path[self.first[number]]],
                    _kind(path),
                    str(told[number].get(NAME, "")),
                    names[number],
                    self._position(int(self.parent[number])),
                    int(self.chain[self.first[number]]),
                    int(since_ns[number]),
                    int(until_ns[number]),
                    int(elements[number]),
                    int(inclusive_ns[number]),
                    int(self_ns[number]),
                    int(self.function_ns[number]) if self.function_runs[number] else None,
                    int(self.function_runs[number]) or None,
                    buffered=float(buffered[number]),
                    parallelism=int(granted[number]) if granted[number] > 0 else None,
                    threads=int(threads[number]),
                ),
            )
            for number in range(self.size)
        )

    def _granted(self) -> Ints:
        """Return the parallelism that each group told last; -1 where it told none."""
        parallelism = self.found.numbers(_PARALLELISM, NO_STAGE)
        order = np.argsort(self.found.start_ns, kind="stable")
        order = order[parallelism[order] > 0]
        last = np.full(self.size, NO_STAGE)
        last[self.group[order]] = parallelism[order]
        return last

    def _last(self) -> Ints:
        """Return the last event of each group."""
        order = np.argsort(self.found.start_ns, kind="stable")
        last = np.zeros(self.size, np.int64)
        last[self.group[order]] = order
        return last

    def _summed(self, values_ps: NDArray[Any]) -> Ints:
        return (np.bincount(self.group, values_ps, self.size) // PS_PER_NS).astype(np.int64)

    def _extents(self) -> tuple[Ints, Ints]:
        since_ns, until_ns = np.full(self.size, np.iinfo(np.int64).max), np.full(self.size, np.iinfo(np.int64).min)
        np.minimum.at(since_ns, self.group, self.found.start_ns)
        np.maximum.at(until_ns, self.group, self.found.end_ns)
        return since_ns, until_ns

    def _position(self, group: int) -> int | None:
        return None if group == NO_STAGE else group + self.first_stage

    def _parents(self) -> Ints:
        """Return the group that reads each one: that of the iterator which it names, else that of the path above."""
        chain, path = self.chain[self.first], self.found.path[self.first]
        codes = {name: code for code, name in enumerate(self.found.paths)}
        by_path = {key: number for number, key in enumerate(zip(chain.tolist(), path.tolist(), strict=True))}
        first = first_of(numbered(self.ids, self.group))
        rows = (column[first].tolist() for column in (self.chain, self.ids, self.group))
        by_id = {(own, iterator): number for own, iterator, number in zip(*rows, strict=True)}
        found = []
        for number, (one, code) in enumerate(zip(chain.tolist(), path.tolist(), strict=True)):
            named = by_id.get((one, int(self.parents[self.first[number]])), NO_STAGE)
            above = codes.get(_above(self.found.paths[code]), NO_STAGE)
            # What reads a stage comes before it: a damaged profile may say that two of them read each other.
            found.append(named if NO_STAGE < named < number else by_path.get((one, above), NO_STAGE))
        return np.array(found, np.int64)

    def _functions(self, calls: Calls) -> tuple[Ints, Ints]:
        """Return what the functions of each group took, and how often they ran."""
        event, is_below = self.found.callers(calls.line, calls.start_ps)
        known = event != NO_EVENT
        groups = self.group[event[known]]
        groups = np.where(is_below[known], self.parent[groups], groups)
        work_ns, counted = calls.work_ns[known], groups != NO_STAGE
        runs = np.bincount(groups[counted], minlength=self.size)
        return np.bincount(groups[counted], work_ns[counted], self.size).astype(np.int64), runs

    def _names(self, told: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, ...]]:
        """Return the user's stages of each group; what a function makes for each element is called after its stage."""
        paths = [self.found.paths[self.found.path[first]] for first in self.first]
        chains = self.chain[self.first].tolist()
        by_path = {key: number for number, key in enumerate(zip(chains, paths, strict=True))}
        known: dict[int, tuple[str, ...]] = {}

        def names_of(number: int) -> tuple[str, ...]:
            if number not in known:
                own = user_stages(str(told[number].get(NAME, "")))
                maker, rest = _made_by(paths[number])
                outer = by_path.get((chains[number], maker)) if maker else None
                if outer is not None and outer != number:
                    before = names_of(outer)[-1:] or (_kind(maker),)
                    own = tuple(f"{before[0]}/{name.partition(':')[0]}{_again(rest)}" for name in own)
                known[number] = own
            return known[number]

        return [names_of(number) for number in range(self.size)]


def _stage(told: Mapping[str, Any], stage: IteratorStage) -> IteratorStage:
    """Return the stage with what was granted to it last, and what else its events tell."""
    autotune, limit = told.get(_AUTOTUNE), told.get(_LIMIT)
    return replace(
        stage,
        buffered=stage.buffered if limit is not None or _BUFFERED in told or stage.buffered else None,
        autotune=None if autotune is None else autotune == "true",
        buffer_limit=limit if isinstance(limit, int) else None,
        details={name: told[name] for name in sorted(_DETAILS & told.keys())},
    )


def _kind(path: str) -> str:
    """Return what a stage is called, without the number of the input that it is.

    >>> _kind("Iterator::Root::Zip[1]::ParallelMapV2")
    'ParallelMapV2'
    """
    return _NUMBER.sub("", path.rpartition(LEVEL)[2])


def _above(path: str) -> str:
    """Return the path of what reads a stage.

    >>> _above("Iterator::Root::ParallelInterleaveV4[*]::Map")
    'Iterator::Root::ParallelInterleaveV4'
    """
    return _NUMBER.sub("", path.rpartition(LEVEL)[0])


def _made_by(path: str) -> tuple[str, Sequence[str]]:
    """Return the path of the stage whose function made one, and what lies between them; none for most.

    >>> _made_by("Iterator::Root::Interleave[*]::Map::Map"), _made_by("Iterator::Root::FiniteRepeat[*]::Map")[0]
    (('Iterator::Root::Interleave', ['Map', 'Map']), '')
    """
    parts = path.split(LEVEL)
    for number in range(len(parts) - 2, -1, -1):
        if parts[number].endswith(ELEMENTS) and not _AGAIN.search(parts[number]):
            return _NUMBER.sub("", LEVEL.join(parts[: number + 1])), parts[number + 1 :]
    return "", ()


def _again(parts: Sequence[str]) -> str:
    """Return how the last of some stages is told apart from others of its kind."""
    count = sum(part == parts[-1] for part in parts)
    return f"#{count}" if count > 1 else ""
