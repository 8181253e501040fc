"""Benchmarks of ``graphlens run``: each script of the fixtures alone and watched, in turns, as one table."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
SCRIPTS: Final = ROOT / "fixtures" / "scripts"
REPEATS: Final = 5

# What the watched script may take of what it takes alone, how far its step may be from its own clock, how much of the
# time of ops is to be joined to the graph, and how much of it given to a layer or a phase.
SLOWER, OFF, JOINED, GIVEN = 1.15, 0.10, 0.97, 0.95

# A script with its arguments -> how many steps the recording holds, and how many the clock ticks once for.
CASES: Final = {
    ("keras_fit.py", "mlp"): (30, 1),
    ("keras_fit.py", "cnn"): (30, 1),
    ("keras_fit.py", "cnn", "jit"): (30, 1),
    ("keras_fit.py", "lstm", "validate"): (30, 1),
    ("keras_fit.py", "lstm", "jit"): (30, 1),
    ("keras_fit.py", "mlp", "accumulate"): (30, 1),
    ("keras_fit.py", "mlp", "custom"): (30, 1),
    ("keras_fit.py", "mlp", "per_execution=8", "epochs=8"): (240, 8),
    ("keras_fit.py", "mlp", "per_execution=8", "unrolled=8", "epochs=8"): (240, 8),
    ("keras_fit.py", "mlp", "finite", "epochs=12"): (30, 1),
    ("keras_fit.py", "mlp", "unknown", "epochs=12"): (29, 1),
    ("custom_loop.py", "function"): (30, 1),
    ("custom_loop.py", "eager"): (30, 1),
    ("custom_loop.py", "dataset"): (240, 1),
    ("custom_loop.py", "iterator"): (240, 1),
    ("session_loop.py",): (30, 1),
    ("keras_calls.py", "train_on_batch"): (30, 1),
    ("keras_calls.py", "predict"): (30, 1),
}  # fmt: skip

# The whole command, from the start of Python until the script has ended: what judging takes is not the script's.  The
# folder of the recording goes with the next run.
WATCHED: Final = """
import os, sys
from graphlens.children import script
run = script.run
def ended(*given, **options):
    os._exit(run(*given, **options))
script.run = ended
from graphlens.__main__ import main
sys.argv[1:] = ["run", "--no-prove", *sys.argv[1:]]
sys.exit(main())
"""


class Timed(NamedTuple):
    """One run of a script: how long, what it printed, and the steps and their period by its own clock."""

    seconds: float
    printed: str
    code: int
    steps: int
    period_ms: float


def timed(command: Sequence[str]) -> Timed:
    begun_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    seconds = time.perf_counter() - begun_s
    found = re.search(r"steps=(\d+) period_ms=([\d.]+)", done.stderr)
    if found is None:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")
    return Timed(seconds, done.stdout, done.returncode, int(found[1]), float(found[2]))


def in_turns(words: Sequence[str]) -> tuple[list[Timed], list[Timed]]:
    """Run the script alone and watched, in turns, after one run of both that fills the caches."""
    script = [str(SCRIPTS / words[0]), *words[1:]]
    alone, watched = [], []
    for _ in range(REPEATS + 1):
        alone.append(timed([sys.executable, *script]))
        watched.append(timed([sys.executable, "-c", WATCHED, *script]))
    return alone[1:], watched[1:]


def judged(words: Sequence[str], folder: Path) -> tuple[Timed, dict[str, Any]]:
    report = folder / "report.json"
    command = [sys.executable, "-m", "graphlens", "run", "--no-prove", "-o", str(report)]
    outcome = timed([*command, str(SCRIPTS / words[0]), *words[1:]])
    return outcome, json.loads(report.read_text("utf-8"))


def row(words: Sequence[str], folder: Path) -> Iterator[str]:
    """Yield the cells of a script: figures, with an exclamation mark where they are not what they are to be."""
    steps, per_tick = CASES[tuple(words)]
    alone, watched = in_turns(words)
    ratio = statistics.median(one.seconds / other.seconds for one, other in zip(watched, alone, strict=True))
    outcome, document = judged(words, folder)
    same = {(one.printed, one.code, one.steps) for one in (*alone, *watched, outcome)}
    program, training = (document["programs"] or [{}])[0], document.get("training") or {}
    period_ms = ((document.get("period") or {}).get("ns") or 0) / 1e6
    off = period_ms * per_tick / outcome.period_ms - 1
    yield " ".join(words)
    yield f"{statistics.median(one.seconds for one in alone):.2f} s"
    yield told(f"{ratio:.2f}x", ratio <= SLOWER)
    yield told("same" if len(same) == 1 else "differs", len(same) == 1)
    yield told(str(program.get("steps")), program.get("steps") == steps)
    yield f"{outcome.period_ms / per_tick:.3f} ms"
    yield told(f"{off:+.1%}", abs(off) <= OFF)
    for share, goal in ((training.get("joined_share"), JOINED), (training.get("given_share"), GIVEN)):
        yield "-" if share is None else told(f"{share:.1%}", share >= goal)


def told(figure: str, is_good: bool) -> str:
    return figure if is_good else f"{figure} !"


HEADS: Final = ("script", "alone", "watched", "printed", "steps", "its period", "ours", "joined", "given")


def scripts(folder: Path) -> str:
    """Return the table of all scripts."""
    rows = [HEADS, *(tuple(row(words, folder)) for words in CASES)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)).rstrip() for one in rows)
    goals = f"goals: {SLOWER}x, same output, all steps, {OFF:.0%} of its period, {JOINED:.0%} joined, {GIVEN:.0%} given"
    return "\n".join(["scripts under graphlens run (median of pairs; ! misses a goal)", *lines, goals])
