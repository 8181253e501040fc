"""Device planes: every kernel and every copy, once, with the op that it belongs to."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict

import big_profile
import pytest
from load_helpers import run_tensorflow
from oracles import device_lines
from real_inputs import REAL

from graphlens.ir.run import CopyEvent, DeviceEvent
from graphlens.loaders.schema import xspace
from graphlens.loaders.xplane import read_profile


class Device:
    """Writes the plane of one device event by event; a text statistic is a reference, as the profiler writes it."""

    def __init__(self, name="/device:GPU:0", space=None, **properties):
        self.space = space or xspace()()
        self.plane = self.space.planes.add(name=name)
        self.numbers: dict[str, int] = {}
        for stat, value in properties.items():
            self.plane.stats.add(metadata_id=self._stat(stat), int64_value=value)

    def _stat(self, name):
        number = self.numbers.setdefault(name, len(self.numbers) + 1)
        self.plane.stat_metadata[number].name = name
        return number

    def event(self, line, name, start_ns, end_ns, /, of_name=None, line_id=None, **stats):
        found = next((item for item in self.plane.lines if item.name == line), None)
        found = found or self.plane.lines.add(
            id=line_id if line_id is not None else len(self.plane.lines) + 10, name=line, timestamp_ns=1000
        )
        number = next((key for key, meta in self.plane.event_metadata.items() if meta.name == name), None)
        number = number or len(self.plane.event_metadata) + 1
        self.plane.event_metadata[number].name = name
        event = found.events.add(metadata_id=number, offset_ps=start_ns * 1000, duration_ps=(end_ns - start_ns) * 1000)
        for where, values in ((event, stats), (self.plane.event_metadata[number], of_name or {})):
            for stat, value in values.items():
                added = where.stats.add(metadata_id=self._stat(stat.replace("level_", "level ")))
                added.ref_value = self._stat(value)
        return self

    def read(self):
        return read_profile(self.space.SerializeToString())


def test_a_kernel_belongs_to_the_op_of_its_annotation():
    (kernel,) = (
        Device().event("Stream #13(Compute)", "sgemm", 5, 9, annotation="net/a:MatMul#shape=(half[4])#").read()
    ).kernels_on_device
    assert kernel == DeviceEvent("sgemm", "net/a", "MatMul", 1005, 1009, 0, "Stream #13(Compute)")


@pytest.mark.parametrize(
    ("stats", "node", "op"),
    [
        ({"annotation": "f:PartitionedCall#x=1#::net/a:Relu#shape=(a,b)#::#edge_name=ret_0#"}, "net/a", "Relu"),
        ({"tf_op": "net/a:Relu"}, "net/a", "Relu"),
        ({"level_0": "f:PartitionedCall", "level_1": "net/a:Relu"}, "net/a", "Relu"),
        ({"annotation": "", "level_0": "net/a:Relu"}, "net/a", "Relu"),
        ({"hlo_op": "fusion.2", "hlo_module": "cluster_0", "tf_op": "net/a:Relu"}, "cluster_0/fusion.2", "XlaKernel"),
        ({"annotation": "Thunk#hlo_op=dot.1,hlo_module=m#"}, "m/dot.1", "XlaKernel"),
        ({}, "", ""),
    ],
)
def test_the_op_of_a_kernel_is_found_wherever_the_profiler_wrote_it(stats, node, op):
    (kernel,) = Device().event("Stream #1(Compute)", "k", 0, 9, **stats).read().kernels_on_device
    assert (kernel.node, kernel.op) == (node, op)


def test_a_kernel_without_any_annotation_belongs_to_the_op_that_the_derived_line_shows():
    kernels = (
        Device()
        .event("Stream #1(Compute)", "k", 10, 20)
        .event("Stream #1(Compute)", "k", 30, 40)
        .event("TensorFlow Ops", "net/a:Relu", 10, 20, line_id=-559038734)
        .read()
    ).kernels_on_device
    assert [kernel.node for kernel in kernels] == ["net/a", ""]


def test_derived_lines_are_no_kernels():
    profile = (
        Device()
        .event("Stream #1(Compute)", "k", 0, 9, tf_op="a:Relu")
        .event("TensorFlow Name Scope", "a", 0, 9)
        .event("XLA Modules", "m", 0, 9)
        .event("XLA Ops - from #1", "m", 0, 9)
        .event("Something new", "x", 0, 9, line_id=-559038730)
        .event("Steps", "7", 0, 9)
        .read()
    )
    assert [kernel.name for kernel in profile.kernels_on_device] == ["k"]
    assert [(step.name, step.step_id, step.start_ns) for step in profile.devices[0].steps] == [("7", 7, 1000)]


def test_a_stream_may_hold_kernels_copies_and_bookkeeping():
    profile = (
        Device()
        .event("Stream #1(Compute,MemcpyD2H)", "k", 0, 9, tf_op="a:Relu")
        .event("Stream #1(Compute,MemcpyD2H)", "MemcpyD2H", 9, 12, memcpy_details="size:40 dest:0 async:1")
        .event("Stream #1(Compute,MemcpyD2H)", "Memset", 12, 13)
        .event("Stream #1(Compute,MemcpyD2H)", "MemoryAlloc", 13, 14)
        .read()
    )
    assert [kernel.name for kernel in profile.kernels_on_device] == ["k", "Memset"]
    assert [(copy.kind, copy.nbytes) for copy in profile.copies] == [("device-to-host", 40)]


def test_a_copy_names_its_op_its_tensor_and_both_ends():
    (copy,) = (
        Device()
        .event(
            "Stream #7(MemcpyH2D)", "MemcpyH2D", 1, 4,
            annotation="n/_11:_Recv#from=Identity,to=ret#::#edge_name=memtype_45_Identity#",
            memcpy_details="kind_src:pageable kind_dst:device size:5120 dest:0 async:1",
        )
        .read()
    ).copies  # fmt: skip
    assert copy == CopyEvent(
        "host-to-device", "n/_11", "_Recv", 1001, 1004, 0, "Stream #7(MemcpyH2D)", 5120, "Identity", "ret",
        "memtype_45_Identity",
    )  # fmt: skip


def test_amd_calls_copies_as_it_likes_and_leaves_the_metadata_of_annotations_apart():
    profile = (
        Device()
        .event(
            "Stream #0", "CopyHostToDevice", 1, 4, tf_op="n/_11:_Recv", edge_name="memtype_45_Identity",
            memcpy_details="kind:Unknown size:5120 dest:0 async:0", **{"from": "Identity", "to": "ret"},
        )
        .event("Stream #0", "Cijk_Ailk_Bljk_SB_MT64", 4, 9, tf_op="net/a:MatMul")
        .event("Stream #0", "SDMA", 9, 10, memcpy_details="kind:Unknown size:8 dest:0 async:0")
        .read()
    )  # fmt: skip
    assert [(copy.kind, copy.nbytes, copy.node, copy.src, copy.dst, copy.edge) for copy in profile.copies] == [
        ("host-to-device", 5120, "n/_11", "Identity", "ret", "memtype_45_Identity"),
        (None, 8, "", "", "", ""),
    ]
    assert [(kernel.name, kernel.node) for kernel in profile.kernels_on_device] == [("Cijk_Ailk_Bljk_SB_MT64", "net/a")]


def test_a_copy_that_does_not_say_its_way_or_its_size_is_kept_as_unknown():
    (copy,) = Device().event("Stream #7(Other)", "MemcpyOther", 1, 4).read().copies
    assert (copy.kind, copy.nbytes) == (None, None)


def test_a_device_without_events_is_listed_with_what_is_known_of_it():
    space = xspace()(hostnames=["worker-3"])
    Device("/device:GPU:0", space, clock_rate=1_530_000)
    Device("/device:GPU:1", space).event("Stream #1(Compute)", "k", 0, 9)
    Device("/device:CPU:0", space)
    profile = read_profile(space.SerializeToString())
    assert [(device.name, device.host, dict(device.properties)) for device in profile.devices] == [
        ("GPU:0", "worker-3", {"clock_rate": 1_530_000}),
        ("GPU:1", "worker-3", {}),
    ]
    assert [kernel.device for kernel in profile.kernels_on_device] == [1]
    assert profile.hosts == ("worker-3",)


def test_every_event_of_a_large_profile_is_read_once(tmp_path):
    """The file of the benchmark, at its smallest: 4,000 ops, one step on the host and two on eight devices."""
    big_profile.write(tmp_path / "p.xplane.pb", 1)
    profile = read_profile((tmp_path / "p.xplane.pb").read_bytes())
    assert (len(profile.ops), len(profile.executors), len(profile.steps)) == (4000, 4000, 1)
    assert (len(profile.kernels_on_device), len(profile.copies), len(profile.devices)) == (8000, 800, 8)
    assert {(kernel.node, kernel.op) for kernel in profile.kernels_on_device} == {(e.node, e.op) for e in profile.ops}
    assert all(copy.node and copy.nbytes is not None for copy in profile.copies)


# -- eight V100, recorded by somebody else ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert():
    data = (REAL / "gpu_bert_8xV100.xplane.pb").read_bytes()
    return read_profile(data), device_lines(data)


def test_every_memcpy_of_a_real_profile_is_accounted_for(bert):
    profile, by_plane = bert
    expected, sizes = Counter(), Counter()
    for plane, lines in by_plane.items():
        for line, events in lines.items():
            for name, start, end, stats in events:
                if name.startswith("Memcpy"):
                    expected[plane, line, name, start // 1000, end // 1000] += 1
                    sizes[plane, line] += int(re.match(r"size:(\d+)", stats["memcpy_details"])[1])
    names = {"host-to-device": "MemcpyH2D", "device-to-host": "MemcpyD2H"}
    planes = [f"/device:{device.name}" for device in profile.devices]
    assert (
        Counter(
            (planes[copy.device], copy.stream, names[copy.kind], copy.start_ns, copy.end_ns) for copy in profile.copies
        )
        == expected
    )
    ours = Counter()
    for copy in profile.copies:
        ours[planes[copy.device], copy.stream] += copy.nbytes
    assert ours == sizes
    by_stream = Counter((planes[copy.device], copy.stream) for copy in profile.copies)
    assert by_stream["/device:GPU:4", "Stream #135(MemcpyH2D)"] == 80
    assert by_stream["/device:GPU:4", "Stream #136(MemcpyD2H)"] == 12
    assert by_stream["/device:GPU:1", "Stream #123(MemcpyH2D)"] == 19


def test_every_memcpy_that_names_an_op_is_tied_to_it(bert):
    profile, by_plane = bert
    named = Counter(
        stats["level 0"]
        for lines in by_plane.values()
        for events in lines.values()
        for name, _, _, stats in events
        if name.startswith("Memcpy") and ":" in stats.get("level 0", "")
    )
    assert Counter(f"{copy.node}:{copy.op}" for copy in profile.copies if copy.node) == named
    assert named.total() == 36
    crossing = [copy for copy in profile.copies if copy.op in ("_Recv", "_HostRecv")]
    assert len(crossing) == 32
    assert all(copy.src and copy.dst and copy.edge for copy in crossing)


def test_kernel_times_equal_those_that_the_profiler_derived_itself(bert):
    """The file holds XProf's own line of TensorFlow ops, made when it was recorded."""
    profile, by_plane = bert
    theirs: dict[str, int] = defaultdict(int)
    for lines in by_plane.values():
        for name, start, end, _ in lines.get("TensorFlow Ops", ()):
            theirs[name] += end - start
    ours: dict[str, int] = defaultdict(int)
    for kernel in profile.kernels_on_device:
        ours[f"{kernel.node}:{kernel.op}"] += kernel.end_ns - kernel.start_ns
    assert set(ours) == set(theirs)
    for name, total_ps in theirs.items():
        assert ours[name] == pytest.approx(total_ps / 1000, rel=0.01), name


def test_all_eight_devices_are_listed(bert):
    profile, _ = bert
    kernels = Counter(kernel.device for kernel in profile.kernels_on_device)
    assert [device.name for device in profile.devices] == [f"GPU:{number}" for number in range(8)]
    assert kernels == {4: 665, 6: 665}
    assert [len(device.steps) for device in profile.devices] == [0, 0, 0, 0, 1, 0, 1, 0]
    assert profile.devices[0].properties["memory_bandwidth"] == 898_048_000_000


# Writes XProf's rows of ops on devices: [[type, name, occurrences, total self time in us], …].
XPROF = """
import json, sys
from xprof.convert import raw_to_tool_data
data, _ = raw_to_tool_data.xspace_to_tool_data([sys.argv[1] + "/renamed.xplane.pb"], "framework_op_stats", {})
rows = [[cell["v"] for cell in row["c"]] for row in json.loads(data)[0]["rows"]]
found = [[row[2], row[3], row[4], row[7]] for row in rows if row[1] == "Device" and row[2] != "IDLE"]
open(sys.argv[1] + "/rows.json", "w").write(json.dumps(found))
"""


@pytest.mark.tf
def test_kernel_times_equal_those_that_xprof_of_today_sums_up(bert, tmp_path):
    """XProf does not know the old name of the statistic that ties a kernel to its op, so that is renamed for it.

    Its table ends after 500 ops of the devices.
    """
    pytest.importorskip("xprof")
    space = xspace().FromString((REAL / "gpu_bert_8xV100.xplane.pb").read_bytes())
    for plane in space.planes:
        for meta in plane.stat_metadata.values():
            meta.name = "tf_op" if meta.name == "level 0" else meta.name
    (tmp_path / "renamed.xplane.pb").write_bytes(space.SerializeToString())
    run_tensorflow(XPROF, tmp_path)
    theirs = json.loads((tmp_path / "rows.json").read_text())
    ours: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for event in (*bert[0].kernels_on_device, *bert[0].copies):
        if event.op:
            total = ours[event.op if event.node else "Unknown", event.node or event.op]
            total[0] += 1
            total[1] += event.end_ns - event.start_ns
    assert len(theirs) == 499, "and one row of idle time"
    for kind, name, count, self_us in theirs:
        assert ours[kind, name][0] == count, name
        assert ours[kind, name][1] == pytest.approx(self_us * 1000, rel=0.01), name
