"""Benchmarks as ratios within one run: `make bench`.  Nothing is asserted; goals are printed beside the figures."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import bench_compiled
import bench_hosts
import bench_input
import bench_inputs
import bench_proofs
import bench_retraces
import bench_scripts
import bench_trials
import big_profile
import large_graphs

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable

LOAD_AND_RUN = """
import sys, time, numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
run = model.signatures["serving_default"]
name, spec = next(iter(run.structured_input_signature[1].items()))
x = tf.constant(np.random.default_rng(0).random([1 if d is None else d for d in spec.shape], np.float32))
for _ in range(int(sys.argv[2])):
    run(**{name: x})
"""


def seconds(command: Sequence[str], repeats: int) -> float:
    """Return the median wall time of ``command``."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_and_seconds(command: Sequence[str]) -> tuple[float, int]:
    """Return wall time and peak resident bytes of one run of ``command`` (Linux and macOS)."""
    script = (
        "import resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(time.perf_counter() - start, peak * (1 if sys.platform == 'darwin' else 1024))"
    )
    run = subprocess.run([PYTHON, "-c", script, *command], check=True, capture_output=True, text=True, cwd=ROOT)
    elapsed, peak = run.stdout.split()
    return float(elapsed), int(peak)


class Run(NamedTuple):
    """What a command took, as medians of several runs: wall time, and peak resident bytes."""

    seconds: float
    peak_bytes: float

    def against(self, other: Run) -> str:
        """Say what this run takes as multiples of ``other``."""
        return (
            f"{self.seconds / other.seconds:.2f}x time ({self.seconds:.1f} s / {other.seconds:.1f} s), "
            f"{self.peak_bytes / other.peak_bytes:.2f}x memory"
        )


def interleaved(ours: Sequence[str], other: Sequence[str], repeats: int) -> tuple[Run, Run]:
    """Run two commands in turns, and return the medians of each: what else the machine does meets both."""
    runs = [(peak_and_seconds(ours), peak_and_seconds(other)) for _ in range(repeats)]
    first, second = (Run(*map(statistics.median, zip(*column, strict=True))) for column in zip(*runs, strict=True))
    return first, second


def build(name: str, folder: Path, kind: str) -> Path:
    """Build one of the fixture models, once."""
    path = folder / (f"{name}.pb" if kind == "graph_def" else name)
    if path.exists():
        return path
    command = [PYTHON, "fixtures/models.py", name, str(path), "--format", kind]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return path


def help_against_bare_python(_: Path) -> str:
    bare = seconds([PYTHON, "-c", "pass"], 9)
    helped = seconds([PYTHON, "-m", "graphlens", "--help"], 9)
    return f"--help: {helped / bare:.1f}x bare python ({helped * 1e3:.0f} ms / {bare * 1e3:.0f} ms)"


def static_against_import(folder: Path) -> str:
    model = build("resnet50_train", folder, "graph_def")
    static = [PYTHON, "-m", "graphlens", "analyze", "--static", str(model)]
    ours, imported = interleaved(static, [PYTHON, "-c", "import tensorflow"], 5)
    return (
        f"analyze --static of the ResNet50 training step: {ours.seconds / imported.seconds:.2f}x `import tensorflow` "
        f"({ours.seconds:.1f} s / {imported.seconds:.1f} s; goal 0.25x)"
    )


def static_of_a_small_model(folder: Path) -> str:
    """A graph of a few dozen ops: what the command costs before it reads anything."""
    model = build("tiny_cnn", folder, "saved_model")
    static = [PYTHON, "-m", "graphlens", "analyze", "--static", str(model)]
    bare = [PYTHON, "-c", "from tensorboard.compat.proto import meta_graph_pb2"]
    ours, floor = interleaved(static, bare, 9)
    return (
        f"analyze --static of a small SavedModel: {ours.seconds:.2f} s (goal 0.6 s), "
        f"{ours.seconds / floor.seconds:.1f}x python that imports protobuf's messages"
    )


def analyze_against_script(folder: Path) -> str:
    model = build("mobilenet_v2", folder, "saved_model")
    script = [PYTHON, "-c", LOAD_AND_RUN, str(model), "60"]
    command = [PYTHON, "-m", "graphlens", "analyze", "--no-prove", str(model), "-o", str(folder / "report.html")]
    pairs = [(seconds(command, 1), seconds(script, 1)) for _ in range(3)]
    ratio = statistics.median(ours / plain for ours, plain in pairs)
    ours, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
    return (
        f"analyze of MobileNetV2: {ratio:.2f}x a script that loads it and runs 60 steps "
        f"({ours:.1f} s / {plain:.1f} s; goal 1.5x)"
    )


def analyze_with_proofs(folder: Path) -> str:
    model = build("mobilenet_v2", folder, "saved_model")
    elapsed = seconds([PYTHON, "-m", "graphlens", "analyze", str(model), "-o", str(folder / "proven.html")], 1)
    return f"analyze of MobileNetV2 with proofs: {elapsed:.0f} s (goal 120 s)"


def large_saved_model(folder: Path) -> str:
    graph = build("resnet50_train", folder, "graph_def")
    nodes, larger = (write_large_saved_model(graph, folder / f"large{size}", size) for size in (150_000, 300_000))
    ours, floor = interleaved(static_of(folder / "large150000"), floor_of(folder / "large150000"), 5)
    twice, _ = interleaved(static_of(folder / "large300000"), [PYTHON, "-c", "pass"], 3)
    return (
        f"static analysis of {nodes:,} ops to html and json: {ours.against(floor)} of parsing it and building "
        f"networkx graphs (goals 1.5x time, 0.8x memory); {larger:,} ops take "
        f"{twice.seconds / ours.seconds:.2f}x as long (goal 2.1x)"
    )


def nested_functions(folder: Path) -> str:
    graph = build("resnet50_train", folder, "graph_def")
    ops = large_graphs.write_nested_saved_model(graph, folder / "nested", functions=8, at_least=37_000)
    ours, floor = interleaved(static_of(folder / "nested"), floor_of(folder / "nested"), 5)
    return (
        f"static analysis of {ops:,} ops in 8 nested functions to html and json: {ours.against(floor)} of parsing it "
        "and building networkx graphs (goal 2x time)"
    )


def a_million_ops(folder: Path) -> str:
    graph = build("resnet50_train", folder, "graph_def")
    ops = write_large_saved_model(graph, folder / "million", 1_000_000)
    elapsed, peak = peak_and_seconds(static_of(folder / "million"))
    return f"static analysis of {ops:,} ops to html and json: {elapsed:.0f} s, {peak / 2**30:.2f} GiB (goal 4 GiB)"


def large_measured_steps(folder: Path) -> str:
    """A recorded training step, and one that does the same five times: judged, without the recording."""
    capture = folder / "mobilenet_v2_train_step.capture"
    record = [PYTHON, "-m", "graphlens", "record", "fixtures.models:mobilenet_v2_train_step", "--steps", "5"]
    if not capture.exists():
        subprocess.run([*record, "-o", str(capture)], check=True, capture_output=True, cwd=ROOT)
    times = subprocess.run(
        [PYTHON, str(ROOT / "tests" / "large_measured.py"), str(capture), "1", "5"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout.splitlines()
    (ops, small), (more, large) = (map(float, line.split()) for line in times)
    return (
        f"judging a measured training step of {ops:,.0f} ops as executed: {small:.1f} s, of {more:,.0f} ops: "
        f"{large:.1f} s, {large / more / (small / ops):.2f}x as much per op (goal 1.5x: caches get colder)"
    )


def static_of(model: Path) -> Sequence[str]:
    """Return the command that analyzes ``model`` statically and writes what users keep, beside it."""
    outputs = (f"{model}.report{suffix}" for suffix in (".html", ".json"))
    return [PYTHON, "-m", "graphlens", "analyze", "--static", str(model), *(f"-o{path}" for path in outputs)]


def floor_of(model: Path) -> Sequence[str]:
    """Return the command that parses ``model`` and builds networkx graphs, nothing else."""
    return [PYTHON, str(ROOT / "tests" / "floors.py"), "networkx", str(model)]


def write_large_saved_model(graph: Path, folder: Path, at_least: int) -> int:
    """Write a SavedModel that holds copies of a graph, each under a scope of its own; return its number of nodes."""
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

    source = GraphDef.FromString(graph.read_bytes())
    meta = MetaGraphDef()
    meta.meta_info_def.tags.append("serve")
    copy = 0
    while len(meta.graph_def.node) < at_least:
        for node in source.node:
            added = meta.graph_def.node.add()
            added.CopyFrom(node)
            added.name = f"copy{copy}/{node.name}"
            del added.input[:]
            added.input.extend(
                f"^copy{copy}/{name[1:]}" if name.startswith("^") else f"copy{copy}/{name}" for name in node.input
            )
        copy += 1
    meta.graph_def.library.CopyFrom(source.library)
    read = {name.lstrip("^").split(":")[0] for node in meta.graph_def.node for name in node.input}
    outputs = meta.signature_def["serving_default"].outputs  # everything that nothing else reads
    for index, node in enumerate(node for node in meta.graph_def.node if node.name not in read):
        outputs[f"output_{index}"].name = f"{node.name}:0"
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(saved_model_bytes(meta.SerializeToString()))
    return len(meta.graph_def.node)


def saved_model_bytes(meta_graph: bytes) -> bytes:
    """Return a SavedModel message that holds one MetaGraph: field 1 is the schema's version, field 2 the MetaGraphs."""
    size, length = len(meta_graph), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x08\x01\x12" + length + bytes([size]) + meta_graph


CONVERT_PROFILE = """
import sys
from xprof.convert import raw_to_tool_data
raw_to_tool_data.xspace_to_tool_data([sys.argv[1]], "framework_op_stats", {})
"""


def large_xplane(folder: Path) -> str:
    path = folder / "large.xplane.pb"
    events = big_profile.write(path, 1_000_000)
    judged = [PYTHON, "-m", "graphlens", "analyze", str(path), *(f"-o{path}{suffix}" for suffix in (".html", ".json"))]
    ours, floor = interleaved(judged, [PYTHON, str(ROOT / "tests" / "floors.py"), "profile", str(path)], 5)
    theirs, their_peak = peak_and_seconds([PYTHON, "-c", CONVERT_PROFILE, str(path)])
    return (
        f"analysis of an XPlane of {events:,} events and {path.stat().st_size / 1e6:.0f} MB to html and json: "
        f"{ours.against(floor)} of walking over its messages (goal 2x time); XProf's framework_op_stats of it: "
        f"{theirs:.1f} s, {their_peak / 2**30:.2f} GiB"
    )


def many_iterators(folder: Path) -> str:
    path = folder / "iterators.xplane.pb"
    events = bench_input.write_iterators(path, 1_000_000)
    judged = [PYTHON, "-m", "graphlens", "analyze", str(path), *(f"-o{path}{suffix}" for suffix in (".html", ".json"))]
    ours, floor = interleaved(judged, [PYTHON, str(ROOT / "tests" / "floors.py"), "profile", str(path)], 5)
    return (
        f"analysis of {events:,} events of iterators, {bench_input.DEPTH} stages, to html and json: "
        f"{ours.against(floor)} of walking over its messages (goal 2x time)"
    )


def on_model(name: str, benchmark: Callable[[Path], str]) -> Callable[[Path], str]:
    """Return a benchmark of one fixture model."""
    return lambda folder: benchmark(build(name, folder, "saved_model"))


def calibration(folder: Path) -> str:
    return bench_proofs.calibration([build(name, folder, "saved_model") for name in bench_proofs.CALIBRATED])


def by_hand(folder: Path) -> str:
    models = []
    for name in bench_proofs.BY_HAND:
        twin = folder / f"{name}-by-hand"
        if not twin.exists():
            command = [PYTHON, "tests/folded_by_hand.py", name, str(twin)]
            subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        models.append((name, build(name, folder, "saved_model"), twin))
    return "\n".join(bench_proofs.against_folding_by_hand(models))


BENCHMARKS: dict[str, Callable[[Path], str]] = {
    "help": help_against_bare_python,
    "static": static_against_import,
    "small": static_of_a_small_model,
    "analyze": analyze_against_script,
    "proofs": analyze_with_proofs,
    "large": large_saved_model,
    "nested": nested_functions,
    "million": a_million_ops,
    "measured": large_measured_steps,
    "xplane": large_xplane,
    **{f"fix-{name}": on_model(name, partial(bench_proofs.fixed, name)) for name in bench_proofs.GOALS},
    "by-hand": by_hand,
    "calibration": calibration,
    "power": lambda _: bench_proofs.power(),
    "nothing": on_model("mobilenet_v2", bench_proofs.nothing_proven),
    "scripts": bench_scripts.scripts,
    "hosts": bench_hosts.many,
    "input": bench_input.table,
    "input-by-hand": bench_inputs.by_hand,
    "input-in-vain": bench_inputs.in_vain,
    "input-free": bench_inputs.bound,
    "iterators": many_iterators,
    "compiled": bench_compiled.grouped_convolutions,
    "retraces": bench_retraces.retraces,
    "xla": on_model("mobilenet_v2", bench_proofs.compiled_by_xla),
    "layer-norm": on_model("bert_encoder", bench_proofs.one_kernel_for_layer_norm),
    "residual": on_model("resnet50", bench_proofs.sums_in_convolutions),
    "trials": bench_trials.trials_of_scripts,
}


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which (default: all)")
    parser.add_argument("--models", metavar="FOLDER", type=Path, help="keep the models that are built, and use them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.models or Path(temporary)
        for name in options.names or BENCHMARKS:
            print(BENCHMARKS[name](folder), flush=True)


if __name__ == "__main__":
    main()
