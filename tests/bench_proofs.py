"""Benchmarks of proofs and fixes: what `graphlens fix` gives on real networks, and how honest its claims are.

Each function returns the lines to print; `tests/bench.py` calls them.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphlens.config import Request
from graphlens.ir.analysis import Proof
from graphlens.loaders import sniff
from graphlens.pipeline.recorder import child_request
from graphlens.prove import Plan, TrialRunner
from graphlens.prove.bench import opened, prepared, timed, tried
from graphlens.prove.experiment import Budget

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable

# Loads both models and knows nothing of GraphLens: ratio of CPU times in interleaved pairs, and how far the outputs
# are apart.  The networks end in a softmax: their logarithms without the mean are the logits without theirs.
COMPARE = """
import json, sys, time
import numpy as np, tensorflow as tf
models = [tf.saved_model.load(path) for path in sys.argv[1:3]]
runs = [model.signatures["serving_default"] for model in models]
((name, spec),) = runs[0].structured_input_signature[1].items()
random = np.random.default_rng(3)
x = tf.constant(random.random([size or 1 for size in spec.shape], np.float32) * float(sys.argv[3]))
def logits(run):
    (output,) = run(**{name: x}).values()
    logs = np.log(output.numpy().astype(np.float64))
    return logs - logs.mean()
before, after = map(logits, runs)
spent = [[], []]
for pair in range(40):
    for side in (0, 1) if pair % 2 else (1, 0):
        start = time.process_time()
        for _ in range(3):
            runs[side](**{name: x})
        spent[side].append(time.process_time() - start)
ratios = [one / other for one, other in zip(*(times[4:] for times in spent))]
print(json.dumps([float(np.median(ratios)), float(abs(before - after).max() / abs(before).max())]))
"""
HIGHEST_INPUT = {"efficientnet_b0": 255}  # of a pixel; this network scales its inputs itself
GOALS = {"mobilenet_v2": 1.6, "resnet50": 1.4, "efficientnet_b0": 1.4}
BY_HAND = ("mobilenet_v2", "mobilenet", "efficientnet_b0", "densenet121", "resnet50")
MOST_OF_BY_HAND = 1.03
BUDGET_S = 300  # so that what is measured is what fixes give, and not what a busy machine has time for
MEAN_OF_BY_HAND = 0.93  # by what folding alone does not do: paddings, layouts, settings
CALIBRATED = ("mobilenet_v2", "resnet50", "efficientnet_b0", "lstm", "tiny_cnn", "float64")
RUNS_OF_NOTHING = 20


def graphlens(*arguments: str) -> str:
    """Run GraphLens and return what it prints."""
    return subprocess.run(
        [PYTHON, "-m", "graphlens", *arguments], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout


def size_of(folder: Path) -> int:
    """Return the bytes of all files below ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def fixed(name: str, model: Path) -> str:
    """Fix a network, and measure the result with a script that knows both from disk only."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "fixed"
        written = graphlens("fix", str(model), "-o", str(result))
        ratio, difference = compared(name, model, result)
        return (
            f"{name} fixed: {ratio:.2f}x less CPU time (goal {GOALS[name]}x), logits differ by {difference:.1e} "
            f"(goal 1e-5), {size_of(result) / size_of(model):.2f}x as large on disk (goal 1.1x); "
            f"applied: {applied_in(written)}"
        )


def applied_in(written: str) -> str:
    """Return what `graphlens fix` says that it has applied."""
    lines = [line.split(maxsplit=1)[1] for line in written.splitlines() if line.strip().startswith("applied")]
    return ", ".join(lines)


def compared(name: str, before: Path, after: Path) -> tuple[float, float]:
    """Return the ratio of the CPU times of two models of a network, and how far their logits are apart."""
    command = [PYTHON, "-c", COMPARE, str(before), str(after), str(HIGHEST_INPUT.get(name, 1))]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ratio, difference = json.loads(said.splitlines()[-1])
    return ratio, difference


def against_folding_by_hand(models: Sequence[tuple[str, Path, Path]]) -> Iterator[str]:
    """Fix networks, and hold each to its twin whose normalizations a person has folded."""
    ratios = []
    for name, model, twin in models:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder, "fixed")
            budget = ["--time-budget", str(BUDGET_S)]
            command = [PYTHON, "-m", "graphlens", "fix", str(model), "-o", str(result), *budget]
            run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
            if not result.exists():  # nothing was proven: what a user has then is the network as it was
                yield f"{name}: {run.stderr.strip().splitlines()[-1]}"
            ratio, difference = compared(name, result if result.exists() else model, twin)
            written = run.stdout
        ratios.append(ratio)
        yield (
            f"{name}: fixed / folded by hand {ratio:.2f} of the CPU time (goal {MOST_OF_BY_HAND}), logits differ by "
            f"{difference:.1e}; applied: {applied_in(written) or 'nothing'}"
        )
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    yield f"all {len(ratios)}: fixed / folded by hand {mean:.2f} in the geometric mean (next goal {MEAN_OF_BY_HAND})"


def calibration(models: Sequence[Path]) -> str:
    """Compare the saving that was modelled with the one that was proven, fix by fix."""
    lines, errors = [], []
    for model in models:
        for finding in analyzed(model)["findings"]:
            proof = finding["proof"]
            expected, measured = proof["expected_share"], finding["saving"]["share"]
            if proof["verdict"] == "proven" and expected is not None:
                errors.append(abs(expected - measured) / measured)
                lines.append(
                    f"  {model.name} {finding['code']}: modelled {expected:.1%}, proven {measured:.1%} "
                    f"({errors[-1]:.0%} off)"
                )
    middle = f"{statistics.median(errors):.0%}" if errors else "unknown"
    return "\n".join(
        [f"modelled against proven saving: median error {middle} over {len(errors)} fixes (goal 20%)", *lines]
    )


def analyzed(model: Path, *options: str) -> dict[str, Any]:
    """Return the report of a model with proofs."""
    with tempfile.TemporaryDirectory() as folder:
        graphlens("analyze", str(model), "-o", f"{folder}/report.json", *options)
        return json.loads(Path(folder, "report.json").read_text())  # type: ignore[no-any-return]


def runner_of(model: Path, folder: str) -> TrialRunner:
    """Return what applies fixes to a model, as the pipeline makes it."""
    request = Request.of(str(model), signature="serving_default")
    return TrialRunner(child_request(request, sniff.identify(str(model)), "record"), Path(folder))


def nothing_proven(model: Path) -> str:
    """Prove a fix that changes nothing again and again: each time against a new A-against-A of its own."""
    verdicts = Counter(proof.verdict for proof in proofs_of_nothing(model))
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    return f"a fix that changes nothing, {RUNS_OF_NOTHING} times on {model.name}: {counts} (goal: 0 proven)"


def proofs_of_nothing(model: Path) -> Iterator[Proof]:
    plan = Plan()
    with tempfile.TemporaryDirectory() as folder:
        runner = runner_of(model, folder)
        with_cpu = not opened(runner).accelerated
        for _ in range(RUNS_OF_NOTHING):
            bench = prepared(
                runner, plan, Budget(math.inf).slice(plan.budget_s), with_cpu=with_cpu, on_pairs=lambda _: None
            )
            yield tried(bench, [()], Budget(math.inf).slice(plan.budget_s), lambda _: None)
        runner.close()


# Networks that differ by the number of their like layers alone: the work that one has more is known.
TWINS = """
import sys
import numpy as np, tensorflow as tf
random = np.random.default_rng(0)
kernels = [tf.constant(random.normal(0, .08, (3, 3, 16, 16)).astype("float32")) for _ in range(int(sys.argv[2]))]
class Net(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((1, 112, 112, 16), tf.float32, name="x")], autograph=False)
    def run(self, x):
        for kernel in kernels:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        return {"y": x}
net = Net()
tf.saved_model.save(net, sys.argv[1], signatures={"serving_default": net.run})
"""
# Half of a core in pieces of 2 to 200 ms, as a neighbour would take it.
NEIGHBOUR = """
import os, random, time
while os.getppid() > 1:
    span_s = random.uniform(0.002, 0.2)
    end_s = time.perf_counter() + span_s
    while time.perf_counter() < end_s:
        pass
    time.sleep(span_s)
"""
LAYERS, LAYERS_MORE = 25, 27
GAIN = LAYERS_MORE / LAYERS
RUNS_OF_A_GAIN, RUNS_OF_IDENTICAL = 20, 100


@contextmanager
def beside_a_neighbour() -> Iterator[None]:
    neighbour = subprocess.Popen([PYTHON, "-c", NEIGHBOUR])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def power(runs_of_a_gain: int = RUNS_OF_A_GAIN, runs_of_identical: int = RUNS_OF_IDENTICAL) -> str:
    """Prove a known gain, and none at all, again and again beside a process that takes half a core."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"more": LAYERS_MORE, "less": LAYERS, "same": LAYERS_MORE}
        models = {name: Path(folder, name) for name in sizes}
        for name, size in sizes.items():
            subprocess.run([PYTHON, "-c", TWINS, str(models[name]), str(size)], check=True, capture_output=True)
        with beside_a_neighbour():
            gained = list(proofs_of_twins(models["more"], models["less"], runs_of_a_gain))
            same = list(proofs_of_twins(models["more"], models["same"], runs_of_identical))
    return "\n".join(
        [
            f"a true {GAIN:.2f}x beside a process that takes half a core: {_counted(gained)} (goal: 80 % proven)",
            f"identical models beside it: {_counted(same)} (goal: 0 proven)",
        ]
    )


def _counted(proofs: Sequence[Proof]) -> str:
    counts = Counter(proof.verdict for proof in proofs)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "none"
    points = sorted(proof.speedup for proof in proofs if proof.speedup is not None)
    pairs = sorted(proof.pairs for proof in proofs if proof.pairs is not None)
    if not points:
        return verdicts
    ratios = f"ratios {points[0]:.3f} to {points[-1]:.3f}, median {points[len(points) // 2]:.3f}"
    return f"{verdicts} of {len(proofs)}; {ratios}; {pairs[len(pairs) // 2]} pairs each in the median"


def proofs_of_twins(before: Path, after: Path, runs: int) -> Iterator[Proof]:
    """Judge one model against another, each time by a new A-against-A, within the budget of one analysis."""
    plan = Plan()
    with tempfile.TemporaryDirectory() as folder:
        runner = runner_of(before, folder)
        with_cpu = not opened(runner).accelerated
        runner.load("twin", after, 600.0)
        for _ in range(runs):
            budget = Budget(math.inf).slice(plan.budget_s)
            bench = prepared(runner, plan, budget, with_cpu=with_cpu, on_pairs=lambda _: None)
            yield timed(bench, "twin", budget, lambda _: None)
        runner.close()


def compiled_by_xla(model: Path) -> str:
    """Have XLA compile the whole step, as is often advised: GL213 asks whether it pays."""
    return f"XLA on {model.name}: {_asked(model, 'GL213')}"


def one_kernel_for_layer_norm(model: Path) -> str:
    """Measure the edits of GL204: each layer normalization one kernel of XLA."""
    return f"layer normalizations of {model.name} as one kernel each: {_asked(model, 'GL204')}"


def sums_in_convolutions(model: Path) -> str:
    """Measure the edit of GL201 for residual sums, which shows where normalizations are folded already."""
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder, "folded")
        graphlens("fix", str(model), "-o", str(folded))
        return f"residual sums of the folded {model.name} by AddN: {_asked(folded, 'GL201')}"


def _asked(model: Path, rule: str) -> str:
    findings = [one for one in analyzed(model, "--select", rule)["findings"] if one["fix"]["edits"]]
    return "; ".join(in_words(one["proof"]["verdict"], one["severity"], one["proof"]["why"]) for one in findings)


def in_words(verdict: str, severity: str, why: str) -> str:
    return f"{verdict}, ranked as {severity}: {why}"


if __name__ == "__main__":
    print(power(*map(int, sys.argv[1:3])))
