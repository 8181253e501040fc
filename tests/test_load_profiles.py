"""Profiles of other kinds than one XPlane: RunMetadata, timelines, traces, and the files of several hosts."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from load_helpers import run_tensorflow
from real_inputs import REAL
from tensorboard.compat.proto import config_pb2
from test_load_xplane import HostPlane

import graphlens
from graphlens.errors import TargetError
from graphlens.ir.ops import COMPOSITE
from graphlens.ir.run import host_of_thread
from graphlens.loaders import timeline
from graphlens.loaders.annotations import Cause
from graphlens.loaders.device_lists import Record, events_of
from graphlens.loaders.profiles import read_recorded
from graphlens.loaders.sniff import identify
from graphlens.loaders.timeline import read_timeline
from graphlens.loaders.xplane import read_recordings


def read(path):
    """Read a profile as the command line does: what it is, is told by its content."""
    found = identify(path)
    return read_recorded(found.path, found.kind)


# -- RunMetadata --------------------------------------------------------------------------------------------------


class Run:
    """Writes a RunMetadata record by record; times are in microseconds."""

    def __init__(self):
        self.message = config_pb2.RunMetadata()

    def record(self, device, name, start, end, label=""):
        stats = next((item for item in self.message.step_stats.dev_stats if item.device == device), None)
        stats = stats or self.message.step_stats.dev_stats.add(device=device)
        stats.node_stats.add(
            node_name=name, timeline_label=label, all_start_micros=start, op_end_rel_micros=end - start,
            all_end_rel_micros=end - start,
        )  # fmt: skip
        return self

    def read(self, folder):
        (folder / "run_meta").write_bytes(self.message.SerializeToString())
        return read(folder / "run_meta").profile


def test_a_kernel_in_the_list_of_all_streams_is_counted_once(tmp_path):
    run = Run()
    for stream in ("stream:all", "stream:12"):
        run.record(f"/gpu:0/{stream}", "Conv2D", 10, 19, "Conv2D:Conv2D regs:17 shm:0")
    run.record("/gpu:0/stream:all", "Relu", 30, 31, "Relu:Relu regs:8 shm:0")
    profile = run.read(tmp_path)
    assert [(k.node, k.start_ns, k.stream) for k in profile.kernels_on_device] == [
        ("Conv2D", 10_000, "stream:12"),
        ("Relu", 30_000, "stream:all"),
    ]
    assert [(device.name, device.kind) for device in profile.devices] == [("GPU:0", "GPU")]


def test_the_list_of_copies_says_which_records_of_a_stream_are_copies(tmp_path):
    run = Run()
    for part in ("memcpy", "stream:7"):
        run.record(f"/device:GPU:1/{part}", "Conv2D", 5, 7, "Conv2D:Conv2D num_bytes: 112 destination: 0")
    profile = run.read(tmp_path)
    (copy,) = profile.copies
    assert not profile.kernels_on_device
    assert (copy.kind, copy.node, copy.nbytes, copy.stream) == (None, "Conv2D", 112, "stream:7")


def test_what_the_host_executed_are_ops_and_those_at_the_same_time_ran_on_threads_of_their_own(tmp_path):
    cpu = "/job:localhost/replica:0/task:0/cpu:0"
    profile = (
        Run().record(cpu, "a", 0, 10, "a = MatMul(x, y)").record(cpu, "b", 5, 15, "b = Relu(a)")
        .record(cpu, "c", 20, 30, "c = my>Op(b)").read(tmp_path)
    )  # fmt: skip
    assert [(op.node, op.op, op.self_ns) for op in profile.ops] == [
        ("a", "MatMul", 10_000),
        ("b", "Relu", 10_000),
        ("c", "my>Op", 10_000),
    ]
    a, b, c = (op.thread for op in profile.ops)
    assert a != b
    assert c in (a, b)
    assert not profile.devices, "a processor is no accelerator"


def test_a_call_has_the_time_in_which_it_was_under_way_and_none_of_its_ops_was(tmp_path):
    """Its record lasts from its start to the end of what it runs: 100 us, of which two ops take 70."""
    cpu = "/device:CPU:0"
    profile = (
        Run().record(cpu, "call", 0, 100, "call = StatefulPartitionedCall(x)").record(cpu, "a", 10, 40, "a = MatMul(x)")
        .record(cpu, "b", 50, 90, "b = Relu(a)").record(cpu, "c", 100, 120, "c = Relu(call)").read(tmp_path)
    )  # fmt: skip
    own = [(op.start_ns // 1000, op.end_ns // 1000, op.resumed) for op in profile.ops if op.node == "call"]
    assert own == [(0, 10, False), (40, 50, True), (90, 100, True)]
    assert sum(op.self_ns for op in profile.ops) == 120_000, "every instant is counted once"
    assert not profile.notes


def test_a_call_beside_which_other_ops_ran_all_the_while_was_seen_for_no_time(tmp_path):
    cpu = "/device:CPU:0"
    profile = (
        Run().record(cpu, "call", 10, 60, "call = PartitionedCall(x)").record(cpu, "a", 0, 70, "a = MatMul(x)")
        .read(tmp_path)
    )  # fmt: skip
    assert {op.node: op.self_ns for op in profile.ops} == {"a": 70_000, "call": 0}


def test_of_calls_in_each_other_the_inner_one_has_what_no_op_took(tmp_path):
    cpu = "/device:CPU:0"
    profile = (
        Run().record(cpu, "outer", 0, 100, "outer = PartitionedCall(x)").record(cpu, "if", 20, 60, "if = If(c, x)")
        .record(cpu, "a", 30, 50, "a = MatMul(x)").read(tmp_path)
    )  # fmt: skip
    own = Counter()
    for op in profile.ops:
        own[op.node] += op.self_ns // 1000
    assert own == {"outer": 60, "if": 20, "a": 20}


def test_a_function_of_tensorflow_1_is_called_by_its_name(tmp_path):
    run = (
        Run().record("/device:CPU:0", "f_1", 0, 100, "f_1 = Twice(x)").record("/device:CPU:0", "a", 0, 90, "a = Mul(x)")
    )
    run.message.partition_graphs.add().library.function.add().signature.name = "Twice"
    assert {op.node: op.self_ns for op in run.read(tmp_path).ops} == {"a": 90_000, "f_1": 10_000}


def test_of_a_loop_whose_ops_left_no_records_is_said_that_its_time_is_theirs(tmp_path):
    profile = Run().record("/device:CPU:0", "while", 0, 100, "while = While(x)").read(tmp_path)
    assert [(op.node, op.self_ns) for op in profile.ops] == [("while", 100_000)]
    assert profile.notes == ("what these calls and loops ran left no records, and counts as their own time: while",)


RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["MatMul", "Relu", "If", "While", "PartitionedCall"]), st.integers(0, 40), st.integers(1, 30)
    ),
    max_size=8,
)


@given(RECORDS)
def test_every_instant_of_a_call_is_its_own_or_that_of_something_within(records):
    """Against a look at each microsecond: a call has it when no op runs and no call that began later is under way."""
    lists = {"/device:CPU:0": [
        Record(f"n{number}", kind, Cause(), "", "", start, start + length)
        for number, (kind, start, length) in enumerate(records)
    ]}  # fmt: skip
    expected = Counter()
    for at in range(80):
        running = [record for record in lists["/device:CPU:0"] if record.start_ns <= at < record.end_ns]
        ops = [record for record in running if record.op not in COMPOSITE]
        latest = max((record.start_ns for record in running), default=0)
        if running and not ops:
            expected[latest] += 1
        expected.update(record.name for record in ops)
    found = Counter()
    started = {record.name: record.start_ns for record in lists["/device:CPU:0"] if record.op in COMPOSITE}
    for op in events_of(lists).ops:
        found[started.get(op.node, op.node)] += op.self_ns
    assert found == expected


def test_devices_of_several_tasks_keep_their_host(tmp_path):
    run = Run()
    for task in (0, 1):
        worker = f"/job:worker/replica:0/task:{task}"
        run.record(f"{worker}/device:GPU:0/stream:1", "a", 0, 1, "gemm regs:1@@a:MatMul#x=1#")
        run.record(f"{worker}/device:CPU:0", "b", 0, 1, "b = Relu(a)")
    profile = run.read(tmp_path)
    assert [host_of_thread(op.thread) for op in profile.ops] == [0, 1]
    assert profile.hosts == ("worker/0", "worker/1")
    assert [(device.host, device.name) for device in profile.devices] == [("worker/0", "GPU:0"), ("worker/1", "GPU:0")]
    assert {(k.name, k.node) for k in profile.kernels_on_device} == {("gemm", "a")}


def test_nanoseconds_count_where_they_are_recorded(tmp_path):
    run = Run().record("/device:CPU:0", "a", 1, 2, "a = Relu(x)")
    node = run.message.step_stats.dev_stats[0].node_stats[0]
    node.all_start_nanos, node.op_start_rel_nanos, node.op_end_rel_nanos = 1234, 10, 70
    (op,) = run.read(tmp_path).ops
    assert (op.start_ns, op.end_ns) == (1244, 1304)


@pytest.mark.parametrize("start_us", [2**63 - 1, -(2**63), 0])
@pytest.mark.parametrize("end_us", [2**63 - 1, -(2**63)])
def test_times_that_no_clock_shows_are_cut_to_what_64_bits_hold(tmp_path, start_us, end_us):
    run = Run().record("/device:CPU:0", "a", 1, 2, "a = Relu(x)").record("/device:CPU:0", "b", 1, 2, "b = Relu(a)")
    for node in run.message.step_stats.dev_stats[0].node_stats:
        node.all_start_micros, node.op_end_rel_micros = start_us, end_us
    for op in run.read(tmp_path).ops:
        assert 0 <= op.start_ns <= op.end_ns < 2**63 - 1
    assert graphlens.load(tmp_path / "run_meta").document.errors == ()


def test_a_run_without_a_trace_says_how_to_get_one(tmp_path):
    run = Run()
    run.message.step_stats.dev_stats.add(device="/device:CPU:0")
    with pytest.raises(TargetError, match=r"holds no step; run with RunOptions\(trace_level"):
        run.read(tmp_path)


RECORD = """
import sys, tensorflow as tf
v1 = tf.compat.v1
with tf.Graph().as_default(), v1.Session() as session:
    x = v1.placeholder(tf.float32, (64, 64), name="x")
    y = tf.nn.relu(tf.matmul(x, x, name="product"), name="out")
    metadata = v1.RunMetadata()
    options = v1.RunOptions(trace_level=v1.RunOptions.SOFTWARE_TRACE, output_partition_graphs=True)
    session.run(y, {x: [[1.0] * 64] * 64}, options=options, run_metadata=metadata)
open(sys.argv[1] + "/run_meta", "wb").write(metadata.SerializeToString())
from tensorflow.python.client.timeline import Timeline
open(sys.argv[1] + "/timeline.json", "w").write(Timeline(metadata.step_stats).generate_chrome_trace_format())
"""


@pytest.mark.tf
def test_what_tensorflow_of_today_records_is_read_with_its_partitions(tmp_path):
    run_tensorflow(RECORD, tmp_path)
    found = read(tmp_path / "run_meta")
    assert {"product", "out"} <= {op.node for op in found.profile.ops}
    assert "product" in {node.name for partition in found.partitions for node in partition.node}
    timeline = read(tmp_path / "timeline.json").profile
    assert {op.node for op in timeline.ops} == {op.node for op in found.profile.ops}
    document = graphlens.analyze(tmp_path / "run_meta").document
    assert document.graphs["executed"].nodes > 0, "it holds the graph that ran"
    assert document.quality.join_rate == 1.0
    assert {row.name for row in document.ops if row.self_ns} >= {"product", "out"}


CALLS = """
import sys, tensorflow as tf
v1 = tf.compat.v1
with tf.Graph().as_default(), v1.Session() as session:
    x = v1.placeholder(tf.float32, (640, 640), name="x")
    @tf.function(experimental_attributes={"_noinline": True})
    def called(x):
        return tf.matmul(x, x, name="within")
    y = tf.nn.relu(called(x) + called(x * 2.0), name="out")
    metadata = v1.RunMetadata()
    options = v1.RunOptions(trace_level=v1.RunOptions.SOFTWARE_TRACE, output_partition_graphs=True)
    for _ in range(2):
        session.run(y, {x: [[1.0] * 640] * 640}, options=options, run_metadata=metadata)
open(sys.argv[1] + "/run_meta", "wb").write(metadata.SerializeToString())
"""


@pytest.mark.tf
def test_calls_in_a_run_of_tensorflow_are_shorter_than_what_they_call_and_fit_into_the_step(tmp_path):
    run_tensorflow(CALLS, tmp_path)
    document = graphlens.analyze(tmp_path / "run_meta").document
    rows = {row.name: row for row in document.ops if row.self_ns is not None}
    calls = [row for row in rows.values() if row.op == "StatefulPartitionedCall" or row.op == "PartitionedCall"]
    assert len(calls) == 2, "also one that has no instant of its own"
    assert sum(row.self_ns for row in calls) < rows["within"].self_ns
    assert document.step is not None, "no contradiction: the calls do not hold the products a second time"
    assert document.critical_path.ns <= document.step.median_ns


def test_a_real_run_on_a_gpu():
    profile = read(REAL / "gpu_run_metadata/run_meta").profile
    assert Counter(kernel.node for kernel in profile.kernels_on_device) == {"Conv2D": 11, "Conv2D_1": 10}
    assert [(copy.kind, copy.node, copy.op, copy.nbytes, copy.src, copy.stream) for copy in profile.copies] == [
        ("host-to-device", "Conv2D", "Conv2D", 112, "", "stream:7"),
        ("device-to-host", "Conv2D_1/_0", "_Send", 384, "Conv2D_1", "stream:14"),
    ]
    assert {op.node: op.end_ns - op.start_ns for op in profile.ops if op.op == "Conv2D"} == {
        "Conv2D": 4_066_000,
        "Conv2D_1": 418_000,
    }


# -- timelines and traces -----------------------------------------------------------------------------------------


def test_a_real_timeline_of_tensorflow_1():
    """Against its own lists of all kernels and of all copies, which are not what is counted."""
    path = REAL / "kittibox_gpu.timeline.json"
    profile = read(path).profile
    events = json.loads(path.read_bytes())["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}

    def durations(process):
        return Counter(
            (event["args"]["name"], event["ts"] * 1000, event["dur"] * 1000)
            for event in events
            if event["ph"] == "X" and names[event["pid"]] == f"{process} Compute"
        )

    kernels = Counter((k.node, k.start_ns, k.end_ns - k.start_ns) for k in profile.kernels_on_device)
    assert kernels == durations("/device:GPU:0/stream:all")
    copies = Counter((c.node or c.edge, c.start_ns, c.end_ns - c.start_ns) for c in profile.copies)
    assert copies == durations("/device:GPU:0/memcpy")
    assert copies.total() == 21
    assert len(profile.ops) == 298, "295 of the GPU's executor, 3 of the processor's, without where each begins"
    assert [device.name for device in profile.devices] == ["GPU:0"]
    assert Counter(copy.kind for copy in profile.copies) == {"host-to-device": 5, "device-to-host": 6, None: 10}


def trace(*events, processes=None):
    named = [
        {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
        for pid, name in (processes or {1: "/device:GPU:0"}).items()
    ]
    return json.dumps({"traceEvents": [*named, *events]})


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"traceEvents": 3}',
        trace(processes={1: "python"}),
        trace({"ph": "X", "pid": 1, "ts": 1, "dur": 1, "name": "x"}, processes={1: "python", 2: "/x Compute"}),
    ],
)
def test_a_trace_of_something_else_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(TargetError) as refusal:
        read_recorded(tmp_path / "t.json", "timeline")
    assert "\n" not in str(refusal.value)


anything = st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3), st.just([]), st.just("\ud800"))


keys = ("tid", "ts", "dur", "name", "args")
events_of_anything = st.fixed_dictionaries(
    {"ph": st.just("X"), "pid": st.one_of(st.just(1), anything), **dict.fromkeys(keys, anything)}
)


@given(st.lists(events_of_anything))
@example([{"ph": "X", "pid": 1, "ts": 0.0, "dur": 9223372036855.0}])
@example([{"ph": "X", "pid": 1, "ts": 0.0}, {"ph": "X", "pid": 1, "ts": 9223372036855.0}])
def test_traces_with_anything_in_them_are_refused_or_read(events):
    for processes in ({1: "/device:GPU:0"}, {1: "/device:GPU:0 Compute"}):
        with contextlib.suppress(TargetError):
            read_timeline(trace(*events, processes=processes).encode(), Path("trace.json"))


TRACE_VIEWER = """
import sys
from xprof.convert import raw_to_tool_data
data, _ = raw_to_tool_data.xspace_to_tool_data([sys.argv[1] + "/bert.xplane.pb"], "trace_viewer", {})
open(sys.argv[1] + "/trace.json", "w").write(data)
"""


@pytest.mark.tf
def test_the_trace_that_xprof_makes_of_a_profile_says_the_same(tmp_path):
    pytest.importorskip("xprof")
    (tmp_path / "bert.xplane.pb").write_bytes((REAL / "gpu_bert_8xV100.xplane.pb").read_bytes())
    run_tensorflow(TRACE_VIEWER, tmp_path)
    with gzip.open(tmp_path / "worker.trace.json.gz", "wb") as file:
        file.write((tmp_path / "trace.json").read_bytes())
    found, original = read(tmp_path / "worker.trace.json.gz").profile, read(tmp_path / "bert.xplane.pb").profile
    assert found.kernels_on_device == original.kernels_on_device
    assert found.copies == original.copies
    assert found.ops == original.ops
    assert found.executors == original.executors
    assert [device.steps for device in found.devices][4][0][:3] == original.devices[4].steps[0][:3]


# -- several hosts ------------------------------------------------------------------------------------------------


def host(name="", started_ns=None, offset_ns=0, thread=7):
    plane = HostPlane().event("a:MatMul", offset_ns, offset_ns + 10, thread=thread)
    if name:
        plane.space.hostnames.append(name)
    if started_ns:
        environment = plane.space.planes.add(name="Task Environment")
        environment.stat_metadata[1].name = "profile_start_time"
        environment.stats.add(metadata_id=1, uint64_value=started_ns)
    return plane.space.SerializeToString()


def test_threads_of_several_hosts_are_kept_apart():
    profile = read_recordings({"a": host(), "b": host()}).profile
    assert profile.hosts == ("a", "b")
    assert [host_of_thread(op.thread) for op in profile.ops] == [0, 1]
    assert profile.ops[0].thread == 7


def test_hosts_lie_on_one_clock_by_the_moments_at_which_they_began():
    begin = 1_700_000_000_000_000_000
    profile = read_recordings({"a": host(started_ns=begin + 500), "b": host(started_ns=begin)}).profile
    assert [(host_of_thread(op.thread), op.start_ns) for op in profile.ops] == [(1, 1000), (0, 1500)]
    assert profile.notes[0].startswith("the clocks of 2 hosts are compared as they are")


def test_hosts_that_do_not_say_when_they_began_are_laid_side_by_side():
    profile = read_recordings({"a": host(started_ns=500), "b": host()}).profile
    assert [op.start_ns for op in profile.ops] == [1000, 1000]
    assert profile.notes[0].startswith("the profile does not say when each of its 2 hosts began")


@pytest.mark.parametrize(
    ("own", "found"),
    [
        (("a", "b"), ("a", "b")),
        (("vm", "vm"), ("localhost_6009", "localhost_6010")),
        (("a", ""), ("localhost_6009", "localhost_6010")),
    ],
    ids=["own names", "two tasks on one machine", "one that does not say"],
)
def test_the_files_of_one_recording_are_one_profile(tmp_path, own, found):
    for name, port in zip(own, ("6009", "6010"), strict=True):
        (tmp_path / f"localhost_{port}.xplane.pb").write_bytes(host(name))
    assert read(tmp_path).profile.hosts == found


def test_a_damaged_file_of_many_is_named():
    with pytest.raises(TargetError, match="the profile of worker_1 is damaged"):
        read_recordings({"worker_0": host("a"), "worker_1": host("b")[:-2]})


def test_of_several_recordings_the_newest_is_read_and_the_others_are_named(tmp_path):
    for position, run in enumerate(("2026_01_03_00_00_00", "2026_01_01_00_00_00", "2026_01_02_00_00_00")):
        folder = tmp_path / "plugins" / "profile" / run
        folder.mkdir(parents=True)
        (folder / "a.xplane.pb").write_bytes(host(f"host of {run}"))
        os.utime(folder / "a.xplane.pb", (position, position))  # copying leaves any time: the name decides
    profile = read(tmp_path).profile
    assert profile.hosts == ("host of 2026_01_03_00_00_00",)
    assert profile.notes[0].endswith(
        "read was the newest, 2026_01_03_00_00_00, and not 2026_01_01_00_00_00, 2026_01_02_00_00_00"
    )


def test_recordings_under_other_names_are_told_apart_by_their_files_times(tmp_path):
    for position, run in enumerate(("before", "after", "first")):
        (tmp_path / run).mkdir()
        (tmp_path / run / "a.xplane.pb").write_bytes(host(run))
        os.utime(tmp_path / run / "a.xplane.pb", (10 + position % 2, 10 + position % 2))
    assert read(tmp_path).profile.hosts == ("after",)


def test_a_trace_is_not_unpacked_beyond_what_could_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(timeline, "MOST_UNPACKED_BYTES", 1000)
    data = gzip.compress(b'{"traceEvents": []}' + b" " * 1000)
    with pytest.raises(TargetError, match="unpacks to more than"):
        timeline.read_timeline(data, tmp_path / "bomb.trace.json.gz")
