"""Steps that XLA compiled in part or as a whole, end to end on TensorFlow: where their time goes, and what it is.

One child process builds, records and profiles everything, and times the same calls with a clock of its own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from end_to_end import python
from oracles import host_lines

import graphlens
from graphlens.facts.clock.steps import length_ns, steps_of, typical
from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.programs.judged_program import judged_profile
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time.ledger import ledger, step_time
from graphlens.facts.time.paths import critical_path
from graphlens.facts.time.quality import quality
from graphlens.loaders import savedmodel, sniff
from graphlens.loaders.capture.reading import evidence_of, open_capture
from graphlens.pipeline import foreign

pytestmark = pytest.mark.tf

STEPS = 8

BUILD = """
import json, sys, time
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
from graphlens.children.messages import RecordRequest
from graphlens.tf.record import child

folder, steps = Path(sys.argv[1]), int(sys.argv[2])
clock = {}

def timed(name, call):
    call()
    clock[name] = []
    for _ in range(steps):
        start = time.perf_counter()
        call()
        clock[name].append((time.perf_counter() - start) * 1e9)

def record(name, **asked):
    request = RecordRequest(str(folder / name), "saved_model", steps=steps, **asked)
    assert child.serve(request, folder / f"{name}.parts", lambda message: None) == 0, name

class Twice(tf.Module):
    "Calls one compiled function at two places."

    def __init__(self):
        super().__init__()
        self.first = tf.Variable(tf.random.normal((256, 256)) / 16)
        self.second = tf.Variable(tf.random.normal((256, 256)) / 16)

    @tf.function(jit_compile=True)
    def dense(self, x, kernel):
        return tf.nn.gelu(x @ kernel)

    @tf.function(input_signature=[tf.TensorSpec((512, 256), tf.float32, name="x")])
    def __call__(self, x):
        return {"y": tf.reduce_sum(self.dense(tf.nn.softmax(self.dense(x, self.first)), self.second), 1)}

class Whole(tf.Module):
    "Is compiled as a whole."

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal((512, 512)) / 23)

    @tf.function(jit_compile=True)
    def __call__(self, x):
        for _ in range(3):
            x = tf.tanh(x @ self.kernel)
        return x

twice = Twice()
tf.saved_model.save(twice, str(folder / "twice"), signatures=twice.__call__)
record("twice")

keras.utils.set_random_seed(0)
layers = keras.layers
grouped = keras.Sequential([
    keras.Input((34, 34, 32)),
    layers.Conv2D(48, 3, groups=4, activation="relu", name="first"),
    layers.Conv2D(48, 3, groups=4, activation="relu", name="second"),
    layers.GlobalAveragePooling2D(),
    layers.Dense(10),
])
grouped.export(str(folder / "grouped"), verbose=False)
record("grouped", batch=24)

images = np.random.default_rng(0).random((24 * steps, 34, 34, 32)).astype(np.float32)
grouped.predict(images[:24], batch_size=24, verbose=0)
tf.profiler.experimental.start(str(folder / "predict"))
grouped.predict(images, batch_size=24, verbose=0)
tf.profiler.experimental.stop()

whole = Whole()
batch = tf.random.normal((256, 512))
whole(batch)
tf.profiler.experimental.start(str(folder / "whole"))
timed("whole profiled", lambda: whole(batch).numpy())
tf.profiler.experimental.stop()

(folder / "clock.json").write_text(json.dumps(clock))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the child left captures, profiles and its clock."""
    folder = tmp_path_factory.mktemp("compiled")
    build(folder)
    return folder


def build(folder: Path) -> None:
    python("-c", BUILD, str(folder), str(STEPS))


@pytest.fixture(scope="module")
def facts_of(built: Path) -> Any:
    """The facts of a recording or a profile."""
    return cache(lambda name: facts_in(built / name))


def facts_in(path: Path) -> Facts:
    if path.suffix != ".parts":
        return Facts(foreign.alone(foreign.read(sniff.identify(str(path)), str(path))))
    evidence = evidence_of(open_capture(path))
    return Facts(replace(evidence, traced=savedmodel.load_saved_model(path.with_suffix("")).graph))


@pytest.fixture(scope="module")
def clock_ns(built: Path) -> dict[str, list[float]]:
    """The child's own clock around each of its calls, in nanoseconds."""
    return json.loads((built / "clock.json").read_text())


def shares(facts: Facts) -> dict[str, float]:
    """Category of the ledger -> share of the step; rows of overhead go by their first word."""
    total = sum(row.ns for row in facts(ledger))
    return {row.category.partition(":")[0]: row.ns / total for row in facts(ledger)}


# -- two calls of one function -------------------------------------------------------------------------------------


def test_two_calls_of_one_function_are_two_kernels_at_two_call_sites(facts_of):
    facts = facts_of("twice.parts")
    products = [row for row in facts(op_rows) if row.timing == "kernel" and row.category == "matmul"]
    assert [row.calls_per_step for row in products] == [1.0, 1.0]
    assert {facts(judged_graph).op(row.name).attrs["hlo_call"] for row in products} == {row.scope for row in products}
    assert len({row.scope for row in products}) == 2


def test_calls_of_compiled_functions_have_no_time(facts_of):
    for name in ("twice.parts", "grouped.parts"):
        calls = [row for row in facts_of(name)(op_rows) if (row.executed_as or "").endswith("(XLA)")]
        assert len(calls) == 2
        assert [row.self_ns for row in calls] == [None, None]


def test_no_op_takes_longer_than_the_step(facts_of):
    for name in ("twice.parts", "grouped.parts", "predict", "whole"):
        facts = facts_of(name)
        longest = max(row.self_ns for row in facts(op_rows) if row.self_ns)
        assert longest <= (facts(step_time).profiled_median_ns or facts(step_time).median_ns)


def test_the_flops_of_a_compiled_product_are_those_of_its_shapes(facts_of):
    products = [row for row in facts_of("twice.parts")(op_rows) if row.executed_as == "XLA dot"]
    assert [row.flops for row in products] == [2 * 512 * 256 * 256] * 2


def test_each_instruction_stands_for_ops_of_its_own_call(facts_of):
    facts = facts_of("twice.parts")
    compiled = [row for row in facts(op_rows) if row.timing == "kernel"]
    assert compiled
    for row in compiled:
        assert row.origin
        assert all(name.startswith(f"{row.scope}/") for name in row.origin)
    assert facts(quality).join_rate >= 0.99


def test_the_critical_path_of_a_partly_compiled_step_leads_through_both_calls(facts_of):
    """One reads what the other gives: nothing of it can run side by side."""
    facts = facts_of("twice.parts")
    on_path = {facts(judged_graph).op(name).attrs.get("hlo_call") for name in facts(critical_path).ops}
    assert len(on_path - {None}) == 2


# -- grouped convolutions -------------------------------------------------------------------------------------------


def convolutions_in(profile: bytes) -> list[tuple[int, int]]:
    """Return start and end of each call of a convolution, in nanoseconds since the first.

    It returns at once; other threads work until its end is marked, which may be after the caller went on.
    """
    events = sorted((event for line in host_lines(profile) for event in line), key=lambda event: event[1])
    starts, marks, ends = (
        [event for event in events if event[0] == name]
        for name in ("convolution.1", "end: convolution.1", "CpuExecutable::ExecuteAsyncOnStream")
    )
    called = zip(starts, marks, ends, strict=True)
    first_ps = starts[0][1]
    return [
        ((start - first_ps) // 1000, (min(mark, end) - first_ps) // 1000)
        for (_, start, _), (_, mark, _), (_, _, end) in called
    ]


@pytest.mark.parametrize("name", ["grouped.parts", "predict"])
def test_a_grouped_convolution_lasts_until_other_threads_have_done_its_work(facts_of, built, name):
    (profile,) = (built / name).rglob("*.xplane.pb")
    kernels = sorted(facts_of(name)(judged_profile).kernels, key=lambda kernel: kernel.start_ns)
    read_ns = [time_ns - kernels[0].start_ns for kernel in kernels for time_ns in (kernel.start_ns, kernel.end_ns)]
    written_ns = [time_ns for times_ns in convolutions_in(profile.read_bytes()) for time_ns in times_ns]
    assert len(kernels) == 2 * STEPS
    assert read_ns == pytest.approx(written_ns, abs=2)


@pytest.mark.parametrize("name", ["grouped.parts", "predict"])
def test_while_a_grouped_convolution_works_the_step_is_at_nothing_else(facts_of, name):
    """Above all it does not wait for the executor, which has nothing to do meanwhile."""
    facts = facts_of(name)
    profile = facts(judged_profile)
    steps = typical(steps_of(profile))
    worked_ns = sum(
        kernel.end_ns - kernel.start_ns
        for kernel in profile.kernels
        if any(step.start_ns <= kernel.start_ns < step.end_ns for step in steps)
    )
    assert shares(facts)["convolution"] == pytest.approx(worked_ns / sum(map(length_ns, steps)), rel=0.01)


def test_the_flops_of_a_grouped_convolution_count_the_channels_of_a_group(facts_of):
    rows = [row for row in facts_of("grouped.parts")(op_rows) if row.executed_as == "XLA convolution"]
    first, second = 2 * (24 * 32 * 32 * 48) * (3 * 3 * 32 // 4), 2 * (24 * 30 * 30 * 48) * (3 * 3 * 48 // 4)
    assert sorted(row.flops for row in rows) == [first, second]


def test_each_grouped_convolution_is_joined_to_its_own_layer(facts_of):
    rows = [row for row in facts_of("grouped.parts")(op_rows) if row.executed_as == "XLA convolution"]
    layers = {row.flops: row.layer.rpartition("/")[2].removesuffix("_1") for row in rows}
    assert [layers[flops] for flops in sorted(layers)] == ["first", "second"]
    assert all(row.op == "Conv2D" for row in rows)


@pytest.mark.parametrize("name", ["grouped.parts", "predict"])
def test_a_reader_sees_that_keras_compiled_the_convolutions(facts_of, name):
    notes = " ".join(facts_of(name)(quality).notes)
    assert "compiled by XLA, and timed by their instructions: _conv_xla (2 calls" in notes
    assert "Keras' own" in notes


# -- compiled as a whole ---------------------------------------------------------------------------------------------


def test_a_function_that_is_compiled_as_a_whole_goes_to_its_products(facts_of):
    """Beside the executor: on a busy machine it waits between two thunks for a thread of the pool."""
    facts = facts_of("whole")
    ops = {row.category: row.ns for row in facts(ledger) if row.kind == "op"}
    assert ops["matmul"] >= 0.7 * sum(ops.values())


def test_the_instructions_of_a_compiled_function_take_what_the_call_takes(facts_of, clock_ns):
    """Never more than that call, and most of one that was not held up; those on other threads are among them."""
    profile = facts_of("whole")(judged_profile)
    taken = [
        sum(k.end_ns - k.start_ns for k in profile.kernels if span.start_ns <= k.start_ns < span.end_ns)
        for span in profile.executions[-STEPS:]
    ]
    calls_ns = clock_ns["whole profiled"]
    assert all(inside <= call for inside, call in zip(taken, calls_ns, strict=True))
    assert max(inside / call for inside, call in zip(taken, calls_ns, strict=True)) >= 0.6


def test_each_instruction_of_a_compiled_function_runs_once_a_call(facts_of):
    kernels = [row for row in facts_of("whole")(op_rows) if row.timing == "kernel"]
    assert [row.calls_per_step for row in kernels] == [1.0] * len(kernels)
    assert sum(row.category == "matmul" for row in kernels) == 3


def test_a_document_says_the_same(built):
    analysis = graphlens.load(built / "grouped.parts")
    assert any("_conv_xla" in note for note in analysis.document.quality.notes)
