"""The profile of a function that a script calls in a sketch: what its call takes, and what lies between two calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from graphlens.ir.ops import LOOP_OVER_DATASET
from graphlens.ir.run import Activity, OpEvent, Profile, Run, Span, Window

_CALLS: Final = 6  # of which the first is left out, and the last has no period
_PYTHON, _EXECUTOR, _INPUT = 1, 2, 3
_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000}
_PART: Final = r"(?: {} (?P<{}>\d+(?:ns|us|ms)))?"
CALLED: Final = re.compile(
    r"(?P<name>\w+)"
    + "".join(_PART.format(part, part) for part in ("dispatch", "input", "python"))
    + r"(?: steps (?P<steps>\d+))?(?P<reduces> reduces)?"
)


class Called(NamedTuple):
    """What is said of the calls: the function, the time of each part in nanoseconds, the steps that one makes."""

    name: str
    dispatch_ns: int
    input_ns: int
    python_ns: int
    steps: int
    reduces: bool

    @staticmethod
    def read(text: str) -> Called | None:
        """Return what ``text`` says; ``None`` where it is not written as it has to be."""
        said = CALLED.fullmatch(text)
        if said is None:
            return None
        dispatch_ns, input_ns, python_ns = (_nanoseconds(said[part]) for part in ("dispatch", "input", "python"))
        name, steps, reduces = f"__inference_{said['name']}_12", int(said["steps"] or 1), said["reduces"] is not None
        return Called(name, dispatch_ns, input_ns, python_ns, steps, reduces)


def _nanoseconds(word: str | None) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", word or "0ns").groups()  # type: ignore[union-attr]  # see CALLED
    return int(number) * _NS[unit]


def called_profile(called: Called, ops: Sequence[tuple[str, str, int]]) -> Profile:
    """Return the profile of calls that run ``ops`` (name, type, time per step) one after the other in each step."""
    runs: list[Run] = []
    events: list[OpEvent] = []
    executors: list[Span] = []
    waits: list[Activity] = []
    now_ns = 0
    for number in range(_CALLS):
        start_ns = now_ns
        now_ns += called.dispatch_ns
        windows = []
        for _ in range(called.steps):
            begun_ns = now_ns
            name = LOOP_OVER_DATASET if called.reduces else "input"
            waits.append(Activity("input", name, now_ns, now_ns + called.input_ns, _INPUT, number))
            now_ns += called.input_ns
            ran = list(_events(ops, now_ns, number))
            now_ns = ran[-1].end_ns if ran else now_ns
            executors.append(Span("executor", begun_ns + called.input_ns, now_ns, _EXECUTOR, number, run=number))
            events += ran
            windows.append(Window(begun_ns, now_ns))
        several = called.steps > 1
        run = Run(called.name, start_ns, now_ns, _PYTHON, elements=called.steps if several else None)
        runs.append(run._replace(iterations=tuple(windows) if several else ()))
        now_ns += called.python_ns
    return Profile(ops=tuple(events), executors=tuple(executors), runs=tuple(runs), activities=tuple(waits))


def _events(ops: Sequence[tuple[str, str, int]], now_ns: int, run: int) -> Iterator[OpEvent]:
    for name, kind, ns in ops:
        yield OpEvent(name, kind, now_ns, now_ns + ns, ns, _EXECUTOR, run)
        now_ns += ns
