"""The input pipeline of a sketch: what its stages did, as a profile would tell, and what the user wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from graphlens.ir.evidence import Evidence
from graphlens.ir.iterators import InputRequest, IteratorStage
from graphlens.ir.pipelines import WrittenPipeline, WrittenStage
from graphlens.ir.run import Activity

_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000}
_AHEAD: Final = ("Prefetch", "Parallel", "MapAndBatch")
_STAGE: Final = re.compile(r"(?P<kind>\w+)(?: \((?P<names>[^)]*)\))?(?P<rest>(?: [\w.]+)*)")
_FLAGS: Final = frozenset({"python", "random", "rows", "autotune"})
_CORES: Final = re.compile(r"cores (\d+) \| ")


class Stage(NamedTuple):
    """One stage as it is written: its kind, the user's stages, and words that follow."""

    kind: str
    names: tuple[str, ...]
    words: tuple[str, ...]

    def number(self, word: str, otherwise: int) -> int:
        """Return the number behind a word."""
        return int(self.words[self.words.index(word) + 1]) if word in self.words else otherwise

    @property
    def element_ns(self) -> int:
        """What one of its elements takes."""
        times = (re.fullmatch(r"(\d+)(ns|us|ms)", word) for word in self.words)
        return next((int(time[1]) * _NS[time[2]] for time in times if time), 0)

    @property
    def per_element(self) -> int:
        """How many of its elements one of the whole pipeline takes."""
        return next((int(word[1:]) for word in self.words if re.fullmatch(r"x\d+", word)), 1)

    @property
    def ops(self) -> tuple[str, ...]:
        """The types of the ops of its function."""
        return (self.words[self.words.index("ops") + 1],) if "ops" in self.words else ()


def is_pipeline(text: str) -> bool:
    """Tell whether ``text`` is written as a pipeline has to be."""
    return all(_STAGE.fullmatch(part) for part in _CORES.sub("", text).split(" <- "))


def with_pipeline(evidence: Evidence, text: str) -> Evidence:
    """Return the evidence of calls with the pipeline that they read: what they wait for input is asked of it."""
    profile = evidence.profile
    if not text or profile is None:
        return evidence
    cores = _CORES.match(text)
    stages = tuple(_stages(_CORES.sub("", text)))
    waits = [one for one in profile.activities if one.kind == "input"]
    iterators = tuple(_iterators(stages, waits, int(cores[1]) if cores else 2))
    requests = tuple(InputRequest(one.start_ns, one.end_ns, one.thread, one.run, 0, True) for one in waits)
    written = WrittenPipeline("train", tuple(_written(stages)))
    return replace(evidence, profile=replace(profile, iterators=iterators, requests=requests), pipelines=(written,))


def _stages(text: str) -> Iterator[Stage]:
    for part in text.split(" <- "):
        said = _STAGE.fullmatch(part)
        assert said is not None
        names = tuple(filter(None, (said["names"] or "").split(",")))
        yield Stage(said["kind"], names, tuple(said["rest"].split()))


def _iterators(stages: Sequence[Stage], waits: Sequence[Activity], cores: int) -> Iterator[IteratorStage]:
    count, waited_ns = len(waits), sum(one.end_ns - one.start_ns for one in waits)
    path = "Iterator::Root"
    yield IteratorStage(
        path, "Root", elements=count, inclusive_ns=waited_ns, details={"cpu_budget": cores, "threadpool_size": cores}
    )
    for number, stage in enumerate(stages):
        path = f"{path}::{stage.kind}"
        elements, is_ahead = count * stage.per_element, stage.kind.startswith(_AHEAD)
        calls = elements * stage.number("batch", 1)
        work_ns = elements * stage.element_ns
        details = {"batch_size": stage.number("batch", 1)} if stage.kind == "MapAndBatch" else {}
        yield IteratorStage(
            path,
            stage.kind,
            ",".join(stage.names),
            stage.names,
            number,
            elements=elements,
            inclusive_ns=waited_ns if number == 0 else work_ns,
            self_ns=waited_ns if is_ahead else work_ns,
            function_ns=work_ns if is_ahead and work_ns else None,
            function_runs=calls if is_ahead and work_ns else None,
            parallelism=stage.number("parallel", 0) or None,
            autotune=True if "autotune" in stage.words else None,
            buffer_limit=stage.number("buffer", 0) or None,
            details=details,
        )


def _written(stages: Sequence[Stage]) -> Iterator[WrittenStage]:
    for stage in reversed(stages):
        for name in stage.names:
            is_map = "Map" in name
            yield WrittenStage(
                name,
                name.partition(":")[0],
                source="train.py:5",
                function="prepare" if is_map else "",
                ops=stage.ops if is_map else (),
                batch_size=stage.number("batch", 0) or None,
                python="python" in stage.words and is_map,
                random="random" in stage.words and is_map,
                per_element="rows" in stage.words and is_map,
            )
