"""Benchmark of what retraces cost: as GraphLens says it, beside the clock of the same script run without it."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
SCRIPT: Final = str(ROOT / "fixtures" / "scripts" / "retracing.py")
PAIRS: Final = 5
GOAL: Final = 0.20  # how far what is said may be from what the script's clock says

# What changes, and in one of how many steps: of one that changes in every step no usual step is known.
CASES: Final = (("value", "10"), ("value", "2"), ("shape", "2"), ("anew", "2"), ("object", "1"), ("anew", "1"))
HEADS: Final = ("what changes", "in one of", "alone", "watched", "ours", "ours / alone", "watched / alone, CPU")


class Clock(NamedTuple):
    """What a retrace took more than a usual step, in ms, by the script's clock and by that of all processors."""

    wall_ms: float
    cpu_ms: float


class Pair(NamedTuple):
    """The script alone and watched, one after the other, and what was said of it."""

    alone: Clock
    watched: Clock
    ours_ms: float


def retraces(folder: Path) -> str:
    """Return the table of all ways: figures of one retrace, medians of pairs."""
    usual = clock_of(ran([sys.executable, SCRIPT, "steady"]), Clock(0.0, 0.0), usual=True)
    rows = [HEADS, *(tuple(row(case, usual, folder / "report.json")) for case in CASES)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)).rstrip() for one in rows)
    return "\n".join([f"what a retrace costs (medians of {PAIRS} pairs; ! is off by more than {GOAL:.0%})", *lines])


def row(case: Sequence[str], usual: Clock, report: Path) -> Iterator[str]:
    pairs = [pair(case, usual, report) for _ in range(PAIRS + 1)][1:]  # the first fills the caches
    yield from case
    for figures in ([one.alone.wall_ms for one in pairs], [one.watched.wall_ms for one in pairs]):
        yield f"{statistics.median(figures):.2f} ms"
    yield f"{statistics.median(one.ours_ms for one in pairs):.2f} ms"
    off = statistics.median(one.ours_ms / one.alone.wall_ms for one in pairs) - 1
    yield f"{off:+.0%}{'' if abs(off) <= GOAL else ' !'}"
    yield f"{statistics.median(one.watched.cpu_ms / one.alone.cpu_ms for one in pairs) - 1:+.0%}"


def pair(case: Sequence[str], usual: Clock, report: Path) -> Pair:
    alone = clock_of(ran([sys.executable, SCRIPT, *case]), usual)
    command = [sys.executable, "-m", "graphlens", "run", "--no-prove", "-o", str(report)]
    watched = clock_of(ran([*command, SCRIPT, *case]), usual)
    findings = json.loads(report.read_text("utf-8"))["findings"]
    evidence = next(one["evidence"] for one in findings if one["code"] == "GL401")
    return Pair(alone, watched, evidence["lost_ns"] / evidence["retraces"] / 1e6)


def ran(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stderr


def clock_of(printed: str, usual_of_steady: Clock, *, usual: bool = False) -> Clock:
    """Read what the script says: a retrace, or ``usual`` steps of it."""
    figures = []
    for name, otherwise_ms in zip(("traced", "traced_cpu"), usual_of_steady, strict=True):
        found = re.search(rf"^{name}: steps=(\d+) ms=([\d.]+) usual_ms=([\d.]+)", printed, re.MULTILINE)
        if found is None:
            raise RuntimeError(printed[-500:])
        steps, ms, usual_ms = int(found[1]), float(found[2]), float(found[3])
        figures.append(usual_ms if usual else ms / steps - (usual_ms or otherwise_ms))
    return Clock(*figures)
