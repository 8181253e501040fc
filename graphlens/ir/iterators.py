"""Iterators of tf.data as a profile shows them: what each stage of a chain did, and what was asked of the chain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

NO_STAGE: Final = -1  # in the place of a position in ``Profile.iterators``

_FUSED: Final = re.compile(r"fused\((.*)\)")
_ADDED: Final = re.compile(r"\w+/.*")  # by a rewrite, which names what it adds after itself


def user_stages(name: str) -> tuple[str, ...]:
    """Return the user's stages that an executed one stands for, as its name in the profile says; none for an added one.

    >>> user_stages("fused(MapDataset:1,BatchDatasetV2:2)"), user_stages("MapDataset:105")
    (('MapDataset:1', 'BatchDatasetV2:2'), ('MapDataset:105',))
    >>> user_stages("inject/prefetch_BatchDatasetV2/_5")
    ()
    """
    fused = _FUSED.fullmatch(name)
    return tuple(part for part in (fused[1].split(",") if fused else [name]) if part and not _ADDED.fullmatch(part))


@dataclass(frozen=True, slots=True)
class IteratorStage:
    """One stage of a chain that ran: what its iterator did, summed over the events of one lifetime.

    Elements of an interleave are made by iterators of their own, which are told together.

    Attributes
    ----------
    path
        Where it stands in its chain, without the numbers of elements (``Iterator::Root::Prefetch::ParallelMapV2``).
    kind
        What it is called there: the last part of the path.
    name
        What the profile calls it, which the user's ``stages`` are read from.
    stages
        The user's stages: several where they were fused, none where TensorFlow added it.
    parent
        The position in ``Profile.iterators`` of what reads it; ``None`` for the root of a chain.
    chain
        The number of its chain: the same for all stages below one root in one lifetime.
    start_ns, end_ns
        From its first event to the end of its last one.
    elements
        How many it was asked for.
    inclusive_ns
        How long the requests took, their waiting for other stages and threads included.
    self_ns
        The same without what the stages that it reads took on the same thread: its own work and its waiting for
        threads of its own.
    function_ns, function_runs
        What the runs of its function took, on all threads, and how many there were; ``None`` where it has none.
    waiting_ns
        How long its requests waited for an element that was not ready; ``None`` where it makes none ahead.
    produced, consumed
        How many elements its threads made, and how many of them were taken; ``None`` where it makes none ahead.
    buffered
        How many elements lay ready on average when one was asked for; ``None`` where that is not told.
    parallelism, autotune, buffer_limit
        As granted while it ran: the last values that were told.
    threads
        On how many threads its events were.
    details
        What else the profile tells of it: ``cpu_budget``, ``threadpool_size``, ``ram_usage_megabytes``,
        ``deterministic``, …
    """

    path: str
    kind: str
    name: str = ""
    stages: tuple[str, ...] = ()
    parent: int | None = None
    chain: int = 0
    start_ns: int = 0
    end_ns: int = 0
    elements: int = 0
    inclusive_ns: int = 0
    self_ns: int = 0
    function_ns: int | None = None
    function_runs: int | None = None
    waiting_ns: int | None = None
    produced: int | None = None
    consumed: int | None = None
    buffered: float | None = None
    parallelism: int | None = None
    autotune: bool | None = None
    buffer_limit: int | None = None
    threads: int = 1
    details: Mapping[str, Any] = field(default_factory=dict)


class InputRequest(NamedTuple):
    """One request for an element of a dataset, as the step makes it.

    ``stage`` is the position in ``Profile.iterators`` of what answered it, ``run`` that in ``Profile.runs`` of the run
    that asked (-1: none known, or Python itself), ``got`` whether there was an element (``None``: not told).
    """

    start_ns: int
    end_ns: int
    thread: int
    run: int = -1
    stage: int = NO_STAGE
    got: bool | None = None
