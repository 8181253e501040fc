"""Profiles: every number agrees with a naive second reader, and what is no op is never taken for one."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_helpers import HostPlane, run_tensorflow
from oracles import op_totals_ps, self_totals_ps
from real_inputs import REAL

from graphlens.errors import TargetError
from graphlens.ir.ops import runtime_type
from graphlens.loaders.annotations import split_op
from graphlens.loaders.xplane import read_profile


@pytest.mark.parametrize(
    "name",
    [
        "$file.py:12 fn",
        "EagerLocalExecute: MatMul",
        "KernelAndDeviceFunc::Run",
        "ExecutorState::Process",
        "ThreadpoolListener::Record",
        "end: MatMul:MatMul",
        "model.py:train",
        "Iterator::Root::Map",
        "no colon",
        ":Op",
        "node:",
    ],
)
def test_these_are_no_ops(name):
    assert split_op(name) == ("", "")


def test_an_op_type_may_contain_a_colon_where_the_profile_says_so():
    assert split_op("scope/node:lib>Op:v2", "lib>Op:v2") == ("scope/node", "lib>Op:v2")


def test_an_op_event_is_in_nanoseconds_on_the_lines_clock():
    (op,) = HostPlane().event("a/b:MatMul", 5, 9, thread=7).read().ops
    assert op[:6] == ("a/b", "MatMul", 1005, 1009, 4, 7)


def test_self_time_is_less_what_nested_ops_and_completions_took():
    profile = (
        HostPlane()
        .event("x/_1:_Send", 0, 100)
        .event("ExecutorState::ProcessAsync::Done", 10, 90, _c=5)
        .event("y:Relu", 20, 30)
        .event("z:Relu", 40, 60, thread=2)
        .read()
    )
    assert {op.node: op.self_ns for op in profile.ops} == {"x/_1": 20, "y": 10, "z": 20}


def test_executors_functions_steps_and_traces():
    profile = (
        HostPlane()
        .event("graphlens_step", 0, 50, step_num=3, _r=1)
        .event("train", 0, 60, step_num=8, _r=1)
        .event("FunctionRun", 5, 40, id=-9)
        .event("ExecutorState::Process", 6, 9, id=-9, iter_num=2)
        .event("f", 70, 99, tf_function_call="traced-nonXla")
        .event("f", 100, 110, tf_function_call="notTraced-nonXla")
        .event("dot.1", 50, 55, hlo_op="dot.1", hlo_module="m")
        .read()
    )
    assert [(step.name, step.step_id) for step in profile.steps] == [("graphlens_step", 3)]
    assert [function.step_id for function in profile.functions] == [-9]
    assert [(span.step_id, span.iteration) for span in profile.executors] == [(-9, 2)]
    assert [(kernel.hlo_op, kernel.hlo_module) for kernel in profile.kernels] == [("dot.1", "m")]


def test_the_programs_own_step_markers_count_where_there_are_no_others():
    profile = HostPlane().event("train", 0, 60, step_num=8, _r=1).event("Profiled batch", 60, 90, step_num=9).read()
    assert [step.name for step in profile.steps] == ["train", "Profiled batch"]


def test_an_async_op_lasts_from_its_start_to_its_completion_on_another_thread():
    profile = (
        HostPlane()
        .event("ExecutorState::ProcessAsync::Start", 10, 12, name="get_next", step_id=4, _p=77)
        .event("ExecutorState::ProcessAsync::Done", 50, 55, thread=2, _c=77)
        .event("ExecutorState::ProcessAsync::Start", 60, 61, name="never_done", step_id=4, _p=78)
        .read()
    )
    assert [(wait.name, wait.start_ns, wait.end_ns, wait.step_id) for wait in profile.waits] == [
        ("get_next", 1010, 1050, 4)
    ]


def test_lost_events_are_counted():
    host = HostPlane().event("a:Op", 0, 1)
    host.space.warnings.append("12 events dropped because the buffer was full")
    assert host.read().dropped == 12


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(1, 2)), max_size=14))
def test_self_times_of_nested_events_never_exceed_the_thread(spans):
    """Proper nesting only, as a thread's call stack gives it."""
    host, taken = HostPlane(), set()
    for index, (start, length, thread) in enumerate(spans):
        if _nests(start, start + length, taken_on(taken, thread)):
            taken.add((start, start + length, thread))
            host.event(f"op{index}:Op", start, start + length, thread)
    ops = host.read().ops
    for thread in (1, 2):
        covered = {at for start, end, on in taken if on == thread for at in range(start, end)}
        assert sum(op.self_ns for op in ops if op.thread == thread) == len(covered)


def taken_on(taken, thread):
    return [(start, end) for start, end, on in taken if on == thread]


def _nests(start, end, others):
    return all(
        e <= start or end <= s or (s <= start and end <= e) or (start <= s and e <= end) for s, e in others
    ) and ((start, end) not in others)


@given(st.binary(max_size=80))
def test_random_bytes_are_refused_or_read(data):
    with contextlib.suppress(TargetError):
        read_profile(data)


def test_a_corrupt_profile_is_refused_in_one_line():
    with pytest.raises(TargetError, match="the profile is damaged") as refusal:
        read_profile((REAL / "malformed/corrupt_tpu.xplane.pb").read_bytes())
    assert "\n" not in str(refusal.value)


def agrees_with_the_oracle(data):
    profile = read_profile(data)
    totals = defaultdict(lambda: [0, 0, 0])
    for op in profile.ops:
        total = totals[f"{op.node}:{op.op}"]
        total[0] += 1
        total[1] += op.end_ns - op.start_ns
        total[2] += op.self_ns
    expected, self_times = op_totals_ps(data), self_totals_ps(data)
    assert set(totals) == set(expected)
    for name, (count, total_ps) in expected.items():
        assert totals[name][0] == count
        # Each event's ends are cut to whole nanoseconds.
        assert abs(totals[name][1] - total_ps / 1000) <= count
        assert abs(totals[name][2] - self_times[name] / 1000) <= count
    return profile


@pytest.mark.heavy
def test_a_real_gpu_profiles_host_plane_agrees_with_the_oracle():
    profile = agrees_with_the_oracle((REAL / "gpu_bert_8xV100.xplane.pb").read_bytes())
    assert len(profile.ops) > 5000


RECORD = """
import sys, tensorflow as tf
folder = sys.argv[1]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

@tf.function
def step(x):
    with tf.device("CPU:0"):
        a = tf.matmul(x, x)
    with tf.device("CPU:1"):
        b = tf.nn.relu(tf.matmul(a, a))
    for _ in tf.range(4):
        b = tf.matmul(b, b) * 0.01
    return b + a

x = tf.random.normal((96, 96))
step(x)
tf.profiler.experimental.start(folder)
for number in range(6):
    with tf.profiler.experimental.Trace("graphlens_step", step_num=number, _r=1):
        step(x)
step(tf.random.normal((8, 8)))
tf.profiler.experimental.stop()
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    run_tensorflow(RECORD, folder)
    (file,) = folder.glob("**/*.xplane.pb")
    return file.read_bytes()


@pytest.mark.tf
def test_a_recorded_profile_agrees_with_the_oracle(recorded):
    profile = agrees_with_the_oracle(recorded)
    assert [step.step_id for step in profile.steps] == list(range(6))
    assert [run.traced for run in profile.runs].count(True) == 1, "the call with another shape"
    assert {runtime_type(op.op) for op in profile.ops} >= {"MatMul", "_Send"}


@pytest.mark.tf
def test_every_op_runs_inside_an_executor_of_a_known_function(recorded):
    profile = read_profile(recorded)
    runs = {run.step_id for run in profile.functions}
    spans = [span for span in profile.executors if span.step_id in runs]
    sends = [op for op in profile.ops if op.op == "_Send"]
    assert sends
    for op in sends:
        assert any(s.thread == op.thread and s.start_ns <= op.start_ns and op.end_ns <= s.end_ns for s in spans)
    assert {wait.step_id for wait in profile.waits} <= runs
    assert {span.iteration for span in spans} >= {0, 1, 2, 3}


@pytest.mark.heavy
def test_a_hundred_thousand_events_are_read_fast():
    host = HostPlane()
    for index in range(100_000):
        host.event(f"layer_{index % 700}/op:Relu", index * 10, index * 10 + 8, thread=1)
    data = host.space.SerializeToString()
    start = time.process_time()
    assert len(read_profile(data).ops) == 100_000
    assert time.process_time() - start < 3, "goal: 0.7 s on a desktop machine"
