"""Planes of TPUs: every instruction, run and copy, once; and what a device that waits for copies is told to do."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from functools import cache

import oracles
import pytest
from real_inputs import REAL

from graphlens.facts.copies.device_facts import device_rows
from graphlens.facts.core import Facts
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time.ledger import ledger, step_time
from graphlens.facts.time.quality import quality
from graphlens.facts.work.roofline import roofline, time_at_roof_ns
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.instructions import HOST_COPY
from graphlens.ir.run import NO_RUN
from graphlens.loaders import sniff
from graphlens.loaders.schema import hlo_proto, xspace
from graphlens.loaders.xplane import read_profile, read_recording
from graphlens.pipeline import foreign
from graphlens.pipeline.judge import judge
from graphlens.report.view_copies import copies_view

MS = 1_000_000
PROGRAM = "jit_step(17)"

# As XLA writes them: `S(5)` behind a layout is the memory of the host, `S(1)` that on the chip.
FETCH = "%copy-start.1 = (f32[1024]{0}, f32[1024]{0:S(5)}, u32[]{:S(2)}) copy-start(f32[1024]{0:S(5)} %weights)"
FETCHED = "%copy-done.1 = f32[1024]{0} copy-done((f32[1024]{0}, f32[1024]{0:S(5)}, u32[]{:S(2)}) %copy-start.1)"
ADD = "%add_fusion.2 = f32[1024]{0} fusion(f32[1024]{0} %copy-done.1), kind=kLoop, calls=%fused"
STORE = "%copy-start.3 = (f32[1024]{0:S(5)}, f32[1024]{0}, u32[]{:S(2)}) copy-start(f32[1024]{0} %add_fusion.2)"
STORED = "%copy-done.3 = f32[1024]{0:S(5)} copy-done((f32[1024]{0:S(5)}, f32[1024]{0}, u32[]{:S(2)}) %copy-start.3)"
WORK = {"flops": 1024, "bytes_accessed": 8192}
CATEGORIES = {FETCH: "copy-start", FETCHED: "copy-done", ADD: "loop fusion", STORE: "copy-start", STORED: "copy-done"}


class Tpu:
    """Writes the plane of one TPU: what all events of a name share stands with the name, as the profiler writes it."""

    def __init__(self, number=0, space=None, **properties):
        self.space = space or xspace()()
        self.plane = self.space.planes.add(name=f"/device:TPU:{number}")
        self._write(self.plane.stats, properties)

    def _stat(self, name):
        known = next((key for key, meta in self.plane.stat_metadata.items() if meta.name == name), None)
        number = known or len(self.plane.stat_metadata) + 1
        self.plane.stat_metadata[number].name = name
        return number

    def _write(self, stats, values):
        for name, value in values.items():
            kind = {int: "int64_value", float: "double_value", str: "str_value"}[type(value)]
            stats.add(metadata_id=self._stat(name), **{kind: value})

    def _event(self, line, name, start_ns, end_ns, display="", **shared):
        found = next((item for item in self.plane.lines if item.name == line), None)
        found = found or self.plane.lines.add(id=len(self.plane.lines) + 1, name=line)
        known = next((key for key, meta in self.plane.event_metadata.items() if meta.name == name), None)
        number = known or len(self.plane.event_metadata) + 1
        if known is None:
            self.plane.event_metadata[number].name = name
            self.plane.event_metadata[number].display_name = display
            self._write(self.plane.event_metadata[number].stats, shared)
        return found.events.add(metadata_id=number, offset_ps=start_ns * 1000, duration_ps=(end_ns - start_ns) * 1000)

    def run(self, start_ns, end_ns, program=PROGRAM, number=1):
        self._write(self._event("XLA Modules", program, start_ns, end_ns).stats, {"run_id": number})
        return self

    def op(self, text, start_ns, end_ns, **shared):
        category = {"hlo_category": CATEGORIES[text]} if text in CATEGORIES else {}
        self._event("XLA Ops", text, start_ns, end_ns, **{**category, **shared})
        return self

    def other(self, line, name, start_ns, end_ns, **shared):
        self._event(line, name, start_ns, end_ns, **shared)
        return self

    def offloading(self, start_ns=0):
        """Add a run of 100 ms: 40 of waiting for the weights, 10 of adding, 50 of waiting until the sum is stored."""
        at = [start_ns + part * MS for part in (0, 40, 50, 100)]
        return (
            self.run(at[0], at[3])
            .op(FETCH, at[0], at[0])
            .op(FETCHED, at[0], at[1])
            .op(
                ADD,
                at[1],
                at[2],
                tf_op="jit(step)/add:",
                source="/home/me/train.py:29",
                flops=1024,
                bytes_accessed=8192,
            )
            .op(STORE, at[2], at[2])
            .op(STORED, at[2], at[3])
        )

    def read(self):
        return read_profile(self.space.SerializeToString())


def facts_of(profile):
    return Facts(Evidence(Target("a profile", "xplane"), profile=profile, profile_path="a profile"))


# -- instructions and programs ------------------------------------------------------------------------------------


def test_instructions_are_kernels_and_a_loop_is_what_runs_in_it():
    profile = (
        Tpu()
        .run(0, 100, "jit_step")
        .op("while.1", 0, 60)
        .op("fusion.1", 0, 20, tf_op="body/a:MatMul")
        .op("fusion.1", 20, 40)
        .op("copy.3", 60, 70)
        .other("Async XLA Ops", "copy-start", 0, 90)
        .other("Overlay", "an overlay", 0, 90)
        .other("XLA TraceMe", "barrier-cores", 0, 90)
        .other("Steps", "3", 0, 100)
        .read()
    )
    assert [(kernel.name, kernel.node, kernel.op) for kernel in profile.kernels_on_device] == [
        ("fusion.1", "body/a", "MatMul"),  # what TensorFlow made is called as in its graph
        ("fusion.1", "body/a", "MatMul"),
        ("copy.3", "jit_step/copy.3", "XlaKernel"),
    ]
    assert [(device.name, device.steps[0].step_id) for device in profile.devices] == [("TPU:0", 3)]


def test_an_instruction_without_duration_hides_none_around_it():
    profile = Tpu().run(0, 100).op("a.1", 0, 50).op("b.2", 0, 0).op("c.3", 50, 50).op("d.4", 50, 100).read()
    assert Counter(kernel.name for kernel in profile.kernels_on_device) == Counter(["a.1", "b.2", "c.3", "d.4"])


def test_an_instruction_carries_its_work_its_source_and_its_run():
    profile = Tpu().offloading().read()
    (kernel,) = (kernel for kernel in profile.kernels_on_device if kernel.category == "loop fusion")
    assert (kernel.name, kernel.node, kernel.op) == ("add_fusion.2", "jit_step/add_fusion.2", "XlaKernel")
    assert (kernel.flops, kernel.nbytes, kernel.made_of, kernel.run) == (1024, 8192, "add", 0)
    told = profile.instructions[kernel.node]
    assert (told.op_name, told.source, told.output) == ("jit(step)/add", "/home/me/train.py:29", "float32[1024]")


def test_a_profile_that_says_nothing_of_the_work_leaves_it_unknown():
    (kernel,) = Tpu().op("fusion.1", 0, 9).read().kernels_on_device
    assert (kernel.flops, kernel.nbytes, kernel.category, kernel.run) == (None, None, "", NO_RUN)


def test_runs_are_those_of_all_programs_and_steps_are_runs_of_the_longest():
    profile = (
        Tpu()
        .run(0, 10, "jit_init(1)", number=5)
        .op("fusion.9", 2, 8)
        .run(20, 50, "jit_step(2)", number=6)
        .op("fusion.1", 20, 49)
        .run(50, 85, "jit_step(2)", number=7)
        .op("fusion.1", 51, 84)
        .read()
    )
    assert [(run.program, run.start_ns, run.end_ns, run.step_id, run.device) for run in profile.runs] == [
        ("jit_init(1)", 0, 10, 5, 0),
        ("jit_step(2)", 20, 50, 6, 0),
        ("jit_step(2)", 50, 85, 7, 0),
    ]
    assert [(step.name, step.start_ns, step.end_ns) for step in profile.devices[0].steps] == [
        ("jit_step", 20, 50),
        ("jit_step", 50, 85),
    ]
    assert [(kernel.node, profile.runs[kernel.run].step_id) for kernel in profile.kernels_on_device] == [
        ("jit_init/fusion.9", 5),
        ("jit_step/fusion.1", 6),
        ("jit_step/fusion.1", 7),
    ]


def test_runs_of_several_devices_are_told_apart():
    second = Tpu(1, Tpu(0).run(0, 50).op("fusion.1", 0, 50).space)
    profile = second.run(7, 57).op("fusion.1", 7, 57).read()
    assert {(kernel.device, profile.runs[kernel.run].device) for kernel in profile.kernels_on_device} == {
        (0, 0),
        (1, 1),
    }


def test_two_programs_of_one_name_keep_their_instructions_apart():
    profile = Tpu().run(0, 10, "jit_f(1)").op("a.1", 0, 9).run(10, 20, "jit_f(2)").op("a.1", 10, 19).read()
    assert [kernel.node for kernel in profile.kernels_on_device] == ["jit_f(1)/a.1", "jit_f(2)/a.1"]


def test_programs_are_rows_with_the_one_of_the_steps_first():
    profile = (
        Tpu().run(0, 9, "jit_init(1)").run(20, 50, "jit_step(2)").run(50, 80, "jit_step(2)").op("a", 20, 80).read()
    )
    assert [(one.name, one.role, len(one.runs)) for one in facts_of(profile)(programs).all] == [
        ("jit_step", "step", 2),
        ("jit_init", "cluster", 1),
    ]


# -- copies ---------------------------------------------------------------------------------------------------------


def test_a_copy_lasts_from_its_start_to_the_end_of_the_wait_for_it():
    fetch, store = Tpu().offloading().read().copies
    assert (fetch.kind, fetch.start_ns, fetch.end_ns, fetch.nbytes) == ("host-to-device", 0, 40 * MS, 4096)
    assert (fetch.node, fetch.src, fetch.dst) == (
        "jit_step/copy-start.1", "jit_step/weights", "jit_step/add_fusion.2",
    )  # fmt: skip
    assert (store.kind, store.start_ns, store.end_ns, store.nbytes) == ("device-to-host", 50 * MS, 100 * MS, 4096)
    assert (store.node, store.src, store.dst) == ("jit_step/copy-start.3", "jit_step/add_fusion.2", "")


def test_the_line_of_copies_tells_the_same_where_a_device_has_it():
    shown = (
        Tpu().offloading().other("Async XLA Ops", FETCH, 0, 40 * MS).other("Async XLA Ops", STORE, 50 * MS, 100 * MS)
    )
    assert [copy._replace(stream="") for copy in shown.read().copies] == [
        copy._replace(stream="") for copy in Tpu().offloading().read().copies
    ]


def test_a_copy_whose_start_was_not_recorded_is_as_long_as_the_wait():
    (copy,) = Tpu().run(0, 50).op(FETCHED, 10, 40).read().copies
    assert (copy.kind, copy.start_ns, copy.end_ns, copy.nbytes, copy.src) == ("host-to-device", 10, 40, 4096, "")


def test_a_copy_that_starts_at_the_instant_of_its_wait_is_one_copy():
    (copy,) = Tpu().run(0, 50).op(FETCHED, 10, 40).op(FETCH, 10, 10).read().copies
    assert (copy.node, copy.start_ns, copy.end_ns) == ("jit_step/copy-start.1", 10, 40)


def test_a_copy_to_memory_on_the_chip_stays_within_the_device():
    prefetch = FETCH.replace(":S(5)", ":T(1024)").replace("(f32[1024]{0},", "(f32[1024]{0:S(1)},")
    (copy,) = Tpu().run(0, 50).other("Async XLA Ops", prefetch, 0, 9, hlo_category="copy-start").read().copies
    assert copy.kind == "device-to-device"


def test_other_asynchronous_instructions_are_no_copies():
    profile = Tpu().run(0, 50).other("Async XLA Ops", "all-gather-start.1", 0, 9, hlo_category="all-gather").read()
    assert profile.copies == ()


# -- graphs -----------------------------------------------------------------------------------------------------


def with_modules(tpu, *programs, damaged=False):
    """Add the modules of the offloading program under several names, one of which may hold other bytes."""
    proto = hlo_proto()()
    proto.hlo_module.name, proto.hlo_module.entry_computation_id = "jit_step", 1
    main = proto.hlo_module.computations.add(name="main", id=1, root_id=6)
    chain = (("weights", "parameter"), ("copy-start.1", "copy-start"), ("copy-done.1", "copy-done"))
    chain += (
        ("add_fusion.2", "fusion"),
        ("copy-start.3", "copy-start"),
        ("copy-done.3", "copy-done"),
        ("out", "tuple"),
    )
    for number, (name, opcode) in enumerate(chain):
        instruction = main.instructions.add(name=name, opcode=opcode, id=number)
        instruction.operand_ids.extend([number - 1] if number else [])
        instruction.shape.element_type = 11  # float32
        instruction.shape.dimensions.append(1024)
    main.instructions[0].metadata.op_name = "params['w']"
    plane = tpu.space.planes.add(name="/host:metadata")
    plane.stat_metadata[1].name = "Hlo Proto"
    for number, program in enumerate(programs, start=1):
        plane.event_metadata[number].name = program
        data = b"\xff\xff" if damaged else proto.SerializeToString()
        plane.event_metadata[number].stats.add(metadata_id=1, bytes_value=data)
    return read_recording(tpu.space.SerializeToString())


def test_the_module_that_ran_is_the_graph():
    modules = with_modules(Tpu().offloading(), PROGRAM, "jit_never_ran(4)").modules
    assert list(modules) == ["jit_step"]
    graph = modules["jit_step"].main.graph
    assert graph.successors("add_fusion.2") == ["copy-start.3"]
    assert (graph.op("weights").type, graph.op("weights").attrs["op_name"]) == (
        "parameter", "params['w']",
    )  # fmt: skip
    assert str(graph.op("add_fusion.2").outputs[0]) == "float32[1024]"


def test_a_program_that_ran_outside_of_the_steps_is_not_judged_with_them():
    modules = with_modules(Tpu().run(-9, -1, "jit_init(3)").offloading(), PROGRAM, "jit_init(3)").modules
    assert list(modules) == ["jit_step"]


def test_what_tensorflow_compiled_is_joined_to_its_own_graph():
    recorded = with_modules(Tpu().run(0, 100).op("fusion.1", 0, 90, tf_op="body/a:MatMul"), PROGRAM)
    assert recorded.modules == {}
    assert [kernel.node for kernel in recorded.profile.kernels_on_device] == ["body/a"]


def test_a_damaged_module_leaves_the_events():
    recorded = with_modules(Tpu().offloading(), PROGRAM, damaged=True)
    assert recorded.modules == {}
    assert len(recorded.profile.kernels_on_device) == 5


def test_an_instruction_runs_as_what_its_compiler_calls_it():
    recorded = with_modules(Tpu().offloading(), PROGRAM)
    evidence = Evidence(
        Target("a profile", "xplane"), profile=recorded.profile, hlo=recorded.modules, profile_path="a profile"
    )
    rows = {row.name: row for row in Facts(evidence)(op_rows)}
    assert (rows["jit_step/add_fusion.2"].op, rows["jit_step/add_fusion.2"].executed_as) == ("fusion", "loop fusion")
    assert rows["jit_step/copy-done.1"].category == HOST_COPY
    assert (rows["jit_step/add_fusion.2"].flops, rows["jit_step/add_fusion.2"].bytes) == (1024, 8192)
    assert rows["jit_step/add_fusion.2"].source == "/home/me/train.py:29"


# -- what a device that waits does ----------------------------------------------------------------------------------


def offloading(steps=6, **properties):
    tpu = Tpu(**properties)
    for step in range(steps):
        tpu.offloading(step * 100 * MS)
    return tpu


def test_waiting_for_a_copy_is_no_computing():
    facts = facts_of(offloading().read())
    assert {row.category: row.ns for row in facts(ledger)} == {HOST_COPY: 90 * MS, "elementwise and other": 10 * MS}
    (device,) = facts(device_rows)
    assert (device.kernel_ns, device.busy_ns, device.wait_ns) == (600 * MS, 60 * MS, 540 * MS)
    assert [lane.kind for lane in device.lanes] == ["compute", "copy-in", "copy-out"]
    assert device.flops == 6 * 1024


def test_the_first_finding_names_what_is_kept_in_host_memory_and_who_uses_it():
    recorded = with_modules(offloading(), PROGRAM)
    evidence = Evidence(
        Target("a profile", "xplane"), profile=recorded.profile, hlo=recorded.modules, profile_path="a profile"
    )
    finding = judge(evidence).findings[0]
    assert (finding.code, finding.severity) == ("GL101", "high")
    assert finding.saving.share == pytest.approx(0.9)
    assert finding.evidence["bytes_per_step"] == 2 * 4096
    assert "argument params['w'] of jit_step is kept in host memory" in finding.reason
    assert "add_fusion.2 (jit(step)/add, train.py:29) reads it on the device" in finding.reason
    assert "result 0 of jit_step is kept in host memory" in finding.reason
    assert {"jit_step/weights", "jit_step/copy-start.1", "jit_step/add_fusion.2"} <= set(finding.nodes)


def test_a_device_whose_program_waits_for_copies_waits_neither_for_the_host_nor_for_work():
    codes = {finding.code for finding in judge(facts_of(offloading().read()).evidence).findings}
    assert "GL101" in codes
    assert not codes & {"GL105", "GL106"}


def test_devices_out_of_step_are_divided_one_by_one():
    """The second one adds while the first one waits: both wait for 90 ms of 100, although one of them always adds."""
    tpu = offloading()
    second = Tpu(1, tpu.space)
    for step in range(6):
        second.offloading(step * 100 * MS + 10 * MS)
    facts = facts_of(second.read())
    assert {row.category: row.ns for row in facts(ledger)} == {HOST_COPY: 90 * MS, "elementwise and other": 10 * MS}
    assert facts(step_time).n == 2 * 5, "each device has its own steps, and its first one is left out"
    title = judge(facts.evidence).findings[0].title
    assert title.startswith("2 tensors go between host and each of 2 devices each step (8.00 KiB each)")


@pytest.mark.parametrize(("gap_ms", "told"), [(0, False), (100, True)])
def test_time_between_the_runs_of_a_device_is_told(gap_ms, told):
    tpu = Tpu()
    for step in range(6):
        tpu.offloading(step * (100 + gap_ms) * MS)
    notes = facts_of(tpu.read())(quality).notes
    assert any("run the program in 56 % of the time" in note for note in notes) is told
    assert facts_of(tpu.read())(step_time).median_ns == 100 * MS


def test_the_figure_of_copies_shows_the_time_of_an_op_on_each_device():
    tpu = offloading()
    second = Tpu(1, tpu.space)
    for step in range(6):
        second.offloading(step * 100 * MS)
    groups = copies_view(judge(facts_of(second.read()).evidence).document).groups
    (group,) = (group for group in groups if group.kind == "host to device")
    assert {node.name: node.self_ns for node in group.figure.nodes if node.role == "context"} == {
        "jit_step/add_fusion.2 (TPU:0)": 10 * MS, "jit_step/add_fusion.2 (TPU:1)": 10 * MS,
    }  # fmt: skip


def test_instructions_are_compared_with_the_peaks_that_the_plane_states():
    tpu = Tpu(peak_teraflops_per_second=918.0, peak_hbm_bw_gigabytes_per_second=1638.0)
    for at in range(0, 600 * MS, 100 * MS):
        tpu.run(at, at + 100 * MS).op(FETCH, at, at).op(FETCHED, at, at + 40 * MS)
        tpu.op(ADD, at + 40 * MS, at + 50 * MS, **WORK)
        tpu.op(
            "all-reduce.5", at + 50 * MS, at + 100 * MS, hlo_category="all-reduce", flops=8, bytes_accessed=8_000_000
        )
    compared = facts_of(tpu.read())(roofline)
    assert (compared.roof.flops_per_s, compared.roof.bytes_per_s) == (918e12, 1638e9)
    assert (compared.roof.origin, compared.roof.device) == ("static", "TPU:0")
    assert [point.op for point in compared.points] == ["jit_step/add_fusion.2"], "neither copies nor collectives"
    (point,) = compared.points
    assert point.share == pytest.approx(time_at_roof_ns(compared.roof, 1024, 8192) / (10 * MS))


def test_what_is_faster_than_the_memory_is_not_compared_with_it():
    tpu = Tpu(peak_teraflops_per_second=1.0, peak_hbm_bw_gigabytes_per_second=1.0)
    for step in range(4):
        tpu.run(step * 100, step * 100 + 100).op("fusion.1", step * 100, step * 100 + 100, flops=8, bytes_accessed=1000)
    assert facts_of(tpu.read())(roofline).points == ()


@pytest.mark.parametrize(("told", "compared"), [({}, False), ({"flops": 8}, True)])
def test_an_instruction_of_which_no_operations_are_told_is_not_compared(told, compared):
    tpu = Tpu(peak_teraflops_per_second=1.0, peak_hbm_bw_gigabytes_per_second=1.0)
    for at in range(0, 400 * MS, 100 * MS):
        tpu.run(at, at + 100 * MS).op("fusion.1", at, at + 100 * MS, bytes_accessed=1000, **told)
    assert bool(facts_of(tpu.read())(roofline).points) is compared


def test_a_plane_that_states_no_peaks_has_no_roof():
    assert facts_of(offloading().read())(roofline) is None


def test_a_matrix_product_that_a_tpu_calls_a_convolution_is_a_matrix_product():
    profile = (
        Tpu()
        .run(0, 100)
        .op("fusion.1", 0, 60, hlo_category="convolution fusion", tf_op="jit(f)/jit(main)/dot_general:")
        .op("fusion.2", 60, 90, hlo_category="convolution fusion", tf_op="jit(f)/conv_general_dilated:")
        .op("all-reduce.3", 90, 100, hlo_category="all-reduce")
        .read()
    )
    assert {row.category: row.ns for row in facts_of(profile)(ledger)} == {
        "matmul": 60, "convolution": 30, "collective": 10,
    }  # fmt: skip


def test_a_trace_tells_of_each_event_what_a_plane_tells_of_its_name(tmp_path):
    """The ``trace.json.gz`` of the same program: names are shown ones, and the statistics are texts of every event."""
    events = [
        {"ph": "M", "pid": 3, "name": "process_name", "args": {"name": "/device:TPU:0"}},
        *({"ph": "M", "pid": 3, "tid": tid, "name": "thread_name", "args": {"name": name}}
          for tid, name in ((1, "XLA Modules"), (2, "XLA Ops"))),
        {"ph": "X", "pid": 3, "tid": 1, "ts": 0, "dur": 100, "name": PROGRAM, "args": {"run_id": "3"}},
        {"ph": "X", "pid": 3, "tid": 2, "ts": 0, "dur": 40, "name": "copy-done.1",
         "args": {"long_name": FETCHED, "hlo_category": "copy-done"}},
        {"ph": "X", "pid": 3, "tid": 2, "ts": 40, "dur": 60, "name": "add_fusion.2",
         "args": {"long_name": ADD, "hlo_category": "loop fusion", "flops": "1024", "bytes_accessed": "8192"}},
    ]  # fmt: skip
    path = tmp_path / "host.trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    profile = foreign.read(sniff.identify(str(path)), str(path)).profile
    assert [(kernel.node, kernel.category, kernel.flops, kernel.nbytes) for kernel in profile.kernels_on_device] == [
        ("jit_step/copy-done.1", "copy-done", None, None),
        ("jit_step/add_fusion.2", "loop fusion", 1024, 8192),
    ]
    assert [(copy.kind, copy.nbytes) for copy in profile.copies] == [("host-to-device", 4096)]


# -- four TPU v6e, recorded by somebody else ------------------------------------------------------------------------

OFFLOAD = "tpu_v6e_offload.xplane.pb"
DEVICES = [f"TPU:{number}" for number in range(4)]


@cache
def real():
    """The document of the file, its profile, and the events and their statistics as a second reader finds them."""
    data = (REAL / OFFLOAD).read_bytes()
    profile = foreign.read(sniff.identify(str(REAL / OFFLOAD)), str(REAL / OFFLOAD))
    return (
        judge(foreign.alone(profile)).document,
        profile.profile,
        oracles.device_lines(data),
        oracles.statistics_of_names(data),
    )


def lines_of(device):
    return real()[2][f"/device:{device}"]


def row_of(device):
    return next(row for row in real()[0].devices if row.name == device)


@pytest.mark.parametrize("device", DEVICES)
def test_kernels_and_their_time_equal_a_raw_walk(device):
    events = lines_of(device)["XLA Ops"]
    assert (row_of(device).kernels, len(events)) == (1504 if device == "TPU:0" else 1503,) * 2
    assert row_of(device).kernel_ns == pytest.approx(sum(end - start for _, start, end, _ in events) / 1000, abs=2000)
    ours = Counter(kernel.name for kernel in real()[1].kernels_on_device if kernel.device == DEVICES.index(device))
    assert ours == Counter(re.match(r"%([^\s=]+) = ", name)[1] for name, *_ in events)


@pytest.mark.parametrize("device", DEVICES)
def test_waits_are_the_time_of_the_raw_copy_done_events(device):
    ps = sum(end - start for name, start, end, _ in lines_of(device)["XLA Ops"] if name.startswith("%copy-done"))
    starts = sum(end - start for name, start, end, _ in lines_of(device)["XLA Ops"] if name.startswith("%copy-start"))
    assert row_of(device).wait_ns == pytest.approx((ps + starts) / 1000, abs=2000)
    assert ps / 1e12 == pytest.approx(76.1, abs=0.1)


@pytest.mark.parametrize("device", DEVICES)
def test_copies_and_their_bytes_equal_a_raw_walk(device):
    """One device shows its copies on a line of their own, all show the instructions that start and await them."""
    lines = lines_of(device)
    starts = [name for name, *_ in lines["XLA Ops"] if name.startswith("%copy-start")]
    assert len(starts) == row_of(device).copies == 600
    assert len(lines.get("Async XLA Ops", ())) == (600 if device == "TPU:0" else 0)
    sizes = [4 * eval(re.search(r"f32\[([\d,]+)\]", name)[1].replace(",", "*")) for name in starts]
    assert row_of(device).copy_bytes == sum(sizes)
    to_host = [name for name in starts if re.match(r"%\S+ = \(f32\[[\d,]+\]\{[^}]*S\(5\)\}", name)]
    ours = [copy for copy in real()[1].copies if copy.device == DEVICES.index(device)]
    assert Counter(copy.kind for copy in ours) == {
        "device-to-host": len(to_host), "host-to-device": len(starts) - len(to_host),
    }  # fmt: skip


def test_what_instructions_tell_of_copies_is_what_the_line_of_copies_shows():
    """Between a start and its wait lies what the profiler drew as one event: so it may be drawn where it was not."""
    shown = sorted((start // 1000, end // 1000) for _, start, end, _ in lines_of("TPU:0")["Async XLA Ops"])
    space = xspace().FromString((REAL / OFFLOAD).read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            if line.name == "Async XLA Ops":
                del line.events[:]
    paired = [copy for copy in read_profile(space.SerializeToString()).copies if copy.device == 0]
    assert sorted((copy.start_ns, copy.end_ns) for copy in paired) == [
        pytest.approx(span, abs=1) for span in shown
    ]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_flops_are_the_sum_over_executions(device):
    told = real()[3][f"/device:{device}"]
    flops = sum(told[name]["flops"] for name, *_ in lines_of(device)["XLA Ops"] if "flops" in told[name])
    assert row_of(device).flops == flops == 303 * 5 * 1024 * 1024 * 256


@pytest.mark.parametrize("device", DEVICES)
def test_runs_and_steps_are_the_raw_modules(device):
    modules = Counter(name for name, *_ in lines_of(device)["XLA Modules"])
    number = DEVICES.index(device)
    assert Counter(run.program for run in real()[1].runs if run.device == number) == modules
    assert modules.total() == (105 if device == "TPU:0" else 103)
    assert row_of(device).steps == modules["jit_f(12190760917235803885)"] == 100


def test_all_four_devices_are_busy():
    assert all(row.busy_ns and not row.busy_ns > row.span_ns for row in real()[0].devices)
    assert real()[0].distribution.words == "all four devices were busy for the same time"


def test_the_first_finding_is_the_copies_with_their_bytes():
    """Each run of each device moves three arrays of 5 GiB from the host and three back: 30 GiB."""
    finding = real()[0].findings[0]
    assert (finding.code, finding.severity) == ("GL101", "high")
    assert finding.evidence["bytes_per_device"] == 6 * 5_368_709_120
    assert finding.evidence["bytes_per_step"] == 4 * 6 * 5_368_709_120
    assert 0.96 <= finding.saving.share < 0.98
    assert "(30.0 GiB each)" in finding.title
    for words in ("argument ws[0] of jit_f", "result 2 of jit_f", "jit(f)/jit(main)/add", "stress_test.py:29"):
        assert words in finding.reason


def test_the_ledger_is_the_time_of_the_raw_instructions_in_the_steps():
    ledger = {row.category: row.ns for row in real()[0].ledger}
    assert sum(ledger.values()) == real()[0].step.median_ns
    waits = fusions = 0
    for device in DEVICES:
        for name, start, end, _ in lines_of(device)["XLA Ops"]:
            waits += (end - start) * name.startswith("%copy-done")
            fusions += (end - start) * name.startswith("%broadcast_add_fusion")
    runs = sum(
        end - start
        for device in DEVICES
        for name, start, end, _ in lines_of(device)["XLA Modules"]
        if name.startswith("jit_f(")
    )
    step_ns = real()[0].step.median_ns
    # The ledger is that of the typical steps, in the middle by length; the raw sums are those of all of them.
    assert ledger[HOST_COPY] / step_ns == pytest.approx(waits / runs, abs=0.005)
    assert ledger["elementwise and other"] / step_ns == pytest.approx(fusions / runs, abs=0.005)


def test_no_share_is_above_one():
    document = real()[0]
    rows = [row for row in document.ops if row.wall_share is not None]
    assert sum(row.wall_share for row in rows) <= 1
    assert all(point.share <= 1 for point in document.roofline.points)
    assert all(finding.saving.share is None or finding.saving.share <= 1 for finding in document.findings)
    assert all(copy.overlap_share is None or copy.overlap_share <= 1 for copy in document.copies)
    assert all(row.share <= 1 for row in document.programs)
    assert document.critical_path.ns <= document.step.median_ns


def test_the_roof_is_the_one_that_the_plane_states():
    roofline = real()[0].roofline
    assert (roofline.roof.flops_per_s, roofline.roof.bytes_per_s) == pytest.approx((918e12, 1637.993152512e9))
    told = real()[3]["/device:TPU:0"]
    for point in roofline.points:
        name = next(name for name in told if name.startswith(f"%{point.op.rpartition('/')[2]} = "))
        assert (point.flops, point.bytes) == (told[name]["flops"], told[name]["bytes_accessed"])
        assert 0.7 < point.share < 1
    assert len(roofline.points) == 3
