"""Benchmarks of changes of input pipelines: beside others written by hand, what is advised in vain, and the bound."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from graphlens.children.messages import RecordRequest
from graphlens.facts.patterns.input_rewrites import rewrites_of
from graphlens.prove.dataset_runner import BLOCK_MS, DatasetRunner
from graphlens.prove.runner import ORIGINAL

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "fixtures" / "scripts" / "waits_for_records.py"
BY_HAND = {
    "sequential_map": ("parallel-map", "parallel_map"),
    "unvectorized_map": ("vectorize-map", "vectorized_map"),
    "sequential_interleave": ("parallel-interleave", "parallel_interleave"),
    "repeated_decode": ("add-cache", "cached_decode"),
}
ROUNDS, LIMIT_S = 16, 300.0
# What textbooks advise for every pipeline, where it gives nothing or takes something.
IN_VAIN = ("cheap_random_map", "unprefetched", "good")


def pipeline_of(name: str) -> Any:
    """The pipeline of a fixture, as another process reads it."""
    from graphlens.config import Request
    from graphlens.pipeline.gather import gather

    request = Request.of(f"fixtures.datasets:{name}", static=True)
    with gather(request, lambda *_: None) as gathered:
        return gathered.evidence.pipelines[0]


def opened(name: str, stages: list[str]) -> DatasetRunner:
    asked = RecordRequest(f"fixtures.datasets:{name}", "callable", import_path=str(REPOSITORY))
    runner = DatasetRunner(asked, Path(tempfile.mkdtemp()), stages)
    runner.open(LIMIT_S)
    return runner


def by_hand(_: Path) -> str:
    """Return elements a second as written, changed by an edit, and as somebody wrote it; in turns."""
    return "\n".join(["input pipelines: written, changed, by hand (goal: changed / by hand within 10%)", *_by_hand()])


def _by_hand() -> Iterator[str]:
    for name, (kind, by_hand) in BY_HAND.items():
        pipeline = pipeline_of(name)
        edits = next(one.edits for one in rewrites_of(pipeline, 2) if one.edits[0].kind == kind)
        written = opened(name, [stage.name for stage in pipeline.stages])
        hand = opened(by_hand, [])
        try:
            written.apply("changed", [edits], LIMIT_S)
            yield f"  {name:24s} {kind:20s} {told(in_turns(written, hand))}"
        finally:
            written.close()
            hand.close()


def in_vain(folder: Path) -> str:
    """Return what is tried on pipelines that need none of it, and what came of it."""
    return "\n".join(["what is advised for every pipeline (goal: one is refuted)", *_in_vain(folder / "analysis.json")])


def _in_vain(place: Path) -> Iterator[str]:
    for name in IN_VAIN:
        command = [sys.executable, "-m", "graphlens", "analyze", f"fixtures.datasets:{name}", "-o", str(place)]
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
        for row in json.loads(place.read_text("utf-8"))["input_rewrites"]:
            proof = row["proof"]
            interval = "-".join(f"{end:.2f}" for end in proof.get("ci95") or ())
            yield f"  {name}: {row['change']}: {proof['verdict']} {proof.get('speedup')} [{interval}]"


def in_turns(written: DatasetRunner, hand: DatasetRunner) -> dict[str, list[float]]:
    takers = {"written": (written, ORIGINAL), "changed": (written, "changed"), "by hand": (hand, ORIGINAL)}
    found: dict[str, list[float]] = {name: [] for name in takers}
    for number in range(ROUNDS + 1):
        for name in sorted(takers, reverse=number % 2 == 1):
            runner, variant = takers[name]
            with ExitStack() as still:
                for child in (hand if runner is written else written)._children.values():
                    still.enter_context(child.standing_still())
                block = runner._block(variant, BLOCK_MS)
            if number:
                found[name].append(1e9 / block.wall_ns)
    return found


def told(found: dict[str, list[float]]) -> str:
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    rates = ", ".join(f"{name} {rate:.1f}/s" for name, rate in medians.items())
    return f"{rates}; changed / by hand {medians['changed'] / medians['by hand']:.3f}"


def bound(folder: Path) -> str:
    """Return the step if its input took no time, as it is measured and as a script with one cached batch has it."""
    return "\n".join(["the bound beside one batch cached by hand (goal: within 10%)", *_bounds(folder / "run.json")])


def _bounds(place: Path) -> Iterator[str]:
    for kind in ("fit", "loop", "dataset"):
        own = [step_ms(kind, "free") for _ in range(3)]
        command = [sys.executable, "-m", "graphlens", "run", "-o", str(place), str(SCRIPT), kind]
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
        own += [step_ms(kind, "free") for _ in range(3)]
        hand_ms = statistics.median(own)
        for row in json.loads(place.read_text("utf-8"))["input_rewrites"]:
            proof = row["proof"]
            after = f"{proof['after_ns'] / 1e6:.3f} ms" if proof["after_ns"] else "-"
            yield f"  {kind} {row['change']}: {proof['verdict']}, {after}; by hand {hand_ms:.3f} ms"


def step_ms(*words: str) -> float:
    done = subprocess.run([sys.executable, str(SCRIPT), *words], check=True, capture_output=True, text=True)
    found = re.search(r"step=([\d.e-]+)", done.stderr)
    assert found is not None
    return 1e3 * float(found[1])
