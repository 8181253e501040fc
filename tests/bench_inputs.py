"""Changes of input pipelines beside pipelines written by hand, and the bound beside a cached batch: prints both.

Run it alone on the machine: python tests/bench_inputs.py [datasets|scripts]
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
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


def datasets() -> None:
    """Elements a second as written, changed by an edit, and as somebody wrote it; in turns."""
    for name, (kind, by_hand) in BY_HAND.items():
        pipeline = pipeline_of(name)
        edits = next(one.edits for one in rewrites_of(pipeline, 2) if one.edits[0].kind == kind)
        written = opened(name, [stage.name for stage in pipeline.stages])
        hand = opened(by_hand, [])
        try:
            written.apply("changed", [edits], LIMIT_S)
            print(f"{name:24s} {kind:20s}", told(in_turns(written, hand)), flush=True)
        finally:
            written.close()
            hand.close()


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


def scripts() -> None:
    """The step if its input took no time, as it is measured and as a script with one cached batch has it."""
    for kind in ("fit", "loop", "dataset"):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "run.json"
            own = [step_ms(kind, "free") for _ in range(3)]
            command = [sys.executable, "-m", "graphlens", "run", "-o", str(place), str(SCRIPT), kind]
            subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
            own += [step_ms(kind, "free") for _ in range(3)]
            for row in json.loads(place.read_text())["input_rewrites"]:
                proof = row["proof"]
                if proof["after_ns"]:
                    print(
                        f"{kind:8s} {row['change']}: {proof['verdict']}, after {proof['after_ns'] / 1e6:.3f} ms",
                        flush=True,
                    )
            print(f"{kind:8s} by hand, one batch cached: {statistics.median(own):.3f} ms {own}", flush=True)


def step_ms(*words: str) -> float:
    done = subprocess.run([sys.executable, str(SCRIPT), *words], check=True, capture_output=True, text=True)
    found = re.search(r"step=([\d.e-]+)", done.stderr)
    assert found is not None
    return 1e3 * float(found[1])


if __name__ == "__main__":
    for what in sys.argv[1:] or ["datasets", "scripts"]:
        {"datasets": datasets, "scripts": scripts}[what]()
