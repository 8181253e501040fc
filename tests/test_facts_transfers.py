"""Copies: pairs of send and receive joined to what the device reports, every event once, with time and bytes."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_inputs import RealInputs

from graphlens.facts.clock.device_time import Busy
from graphlens.facts.copies.device_facts import device_uses
from graphlens.facts.copies.pairs import pairs_of
from graphlens.facts.copies.transfers import copies, transfers
from graphlens.facts.core import Facts
from graphlens.ir.analysis import Target
from graphlens.ir.devices import Copy
from graphlens.ir.evidence import Evidence
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.run import CopyEvent, DeviceEvent, OpEvent, Profile, ProfiledDevice, Span
from graphlens.loaders.graphdef import build_graph, read_graph_def
from graphlens.loaders.schema import xspace
from graphlens.loaders.step_stats import read_run_metadata
from graphlens.loaders.timeline import read_timeline
from graphlens.loaders.xplane import read_profile
from graphlens.rules import find as rules_find
from graphlens.testing.sketch import STEPS, sketch

# An op on the host between two on the GPU, and a shape that goes back and forth on the GPU itself.
THERE_AND_BACK = """
x = _Arg() float32[8,4] @GPU:0
a = Relu(x) float32[8,4] 10us @GPU:0
a/_1 = _Send(a) 1us @GPU:0 {tensor_name: edge_5_a}
a/_2 = _Recv(a/_1) float32[8,4] 4us {tensor_name: edge_5_a}
find = LookupTableFindV2(a/_2) int64[8] 20us
find/_3 = _Send(find) 1us {tensor_name: edge_6_find}
find/_4 = _Recv(find/_3) int64[8] 2us @GPU:0 {tensor_name: edge_6_find}
y = Cast(find/_4) float32[8] 10us @GPU:0
n = Shape(y) int32[1] 1us @GPU:0
n/_5 = _HostSend(n) 1us @GPU:0 {tensor_name: edge_7_n}
n/_6 = _Recv(n/_5) int32[1] 3us @GPU:0 {tensor_name: edge_7_n}
z = GatherV2(y, n/_6) float32[1] 10us @GPU:0
"""


def copies_of(text: str, **changes: Any) -> dict[str, Copy]:
    """The copies of a sketch, by the op that makes the tensor."""
    return {copy.src: copy for copy in Facts(sketch(text))(copies)}


def of_profile(*events: CopyEvent, **more: Any) -> tuple[Copy, ...]:
    """The copies of a profile of one GPU, without a graph."""
    devices = more.pop("devices", (ProfiledDevice("GPU:0", kind="GPU"),))
    return Facts(Evidence(Target("p", "profile"), profile=Profile(copies=events, devices=devices, **more)))(copies)


def upload(**words: Any) -> CopyEvent:
    return event("host-to-device", **words)


def download(**words: Any) -> CopyEvent:
    return event("device-to-host", **words)


def event(kind: Any, start_ns: int = 0, end_ns: int = 10, nbytes: int | None = 4, **words: Any) -> CopyEvent:
    named = {"node": "", "op": "", "device": 0, "stream": "Stream #14", **words}
    return CopyEvent(kind, start_ns=start_ns, end_ns=end_ns, nbytes=nbytes, **named)


# -- pairs of send and receive ------------------------------------------------------------------------------------


def test_a_copy_names_both_ends_direction_tensor_and_bytes() -> None:
    copies = copies_of(THERE_AND_BACK)
    assert {src: (copy.dst, copy.kind, copy.tensor, copy.bytes) for src, copy in copies.items()} == {
        "a": ("find", "device-to-host", "float32[8,4]", 128),
        "find": ("y", "host-to-device", "int64[8]", 64),
        "n": ("z", "host-to-device", "int32[1]", 4),
    }
    assert {copy.src_device[-5:] + " " + copy.dst_device[-5:] for copy in copies.values()} == {
        "GPU:0 CPU:0", "CPU:0 GPU:0", "GPU:0 GPU:0",
    }  # fmt: skip


def test_a_copy_says_why_and_which_op_is_at_fault() -> None:
    copies = copies_of(THERE_AND_BACK)
    assert {src: (copy.reason, copy.at_fault) for src, copy in copies.items()} == {
        "a": ("string/resource op", "find"),
        "find": ("string/resource op", "find"),
        "n": ("shape arithmetic", "n"),
    }


def test_a_copy_has_the_devices_own_time_stream_and_executions() -> None:
    copy = copies_of(THERE_AND_BACK)["a"]
    assert (copy.ns, copy.calls_per_step, copy.stream) == (4_000, 1.0, "device-to-host")
    assert (copy.events, copy.event_bytes) == (STEPS, STEPS * 128)
    assert copy.overlap_share == 0.0, "the sketch runs one thing after the other"


def test_a_control_dependency_is_no_tensor() -> None:
    (copy,) = Facts(
        sketch(
            """
            a = Relu() float32[8] @CPU:0
            a/_1 = Const(^a) float32[0] @CPU:0 {nbytes: 0}
            a/_2 = _Send(a/_1) @CPU:0
            a/_3 = _Recv(a/_2) float32[0] @CPU:1
            a/_4 = Identity(a/_3) @CPU:1
            b = Tanh(^a/_4) float32[8] @CPU:1
            """
        )
    )(copies)
    assert (copy.src, copy.dst, copy.kind, copy.bytes, copy.reason) == ("a", "b", "control", 0, None)


def test_a_graph_on_one_device_has_no_copies() -> None:
    eager = OpEvent("EagerCopyToDevice", "EagerCopyToDevice", 0, 900, 900, 0)
    evidence = sketch("x = _Arg() float32[8]\ny = Relu(x) float32[8] 3us")
    assert Facts(evidence)(copies) == ()
    assert Facts(Evidence(evidence.target, executed=evidence.executed, profile=Profile(ops=(eager,))))(copies) == ()


def test_a_copy_lies_on_the_critical_path_when_the_path_goes_over_it() -> None:
    text = """
    x = _Arg() float32[8] @CPU:0
    a = Relu(x) float32[8] {long} @CPU:0
    b = Tanh(x) float32[8] {short} @CPU:0
    a/_1 = _Send(a) not-seen @CPU:0
    a/_2 = _Recv(a/_1) float32[8] not-seen @CPU:1
    b/_1 = _Send(b) not-seen @CPU:0
    b/_2 = _Recv(b/_1) float32[8] not-seen @CPU:1
    c = AddV2(a/_2, b/_2) float32[8] 5us @CPU:1
    """.replace("{long}", "50us").replace("{short}", "2us")
    assert {src: copy.on_critical_path for src, copy in copies_of(text).items()} == {"a": True, "b": False}


def test_a_transfer_knows_its_send_and_receive() -> None:
    facts = Facts(sketch(THERE_AND_BACK))
    assert {transfer.copy.src: transfer.ops for transfer in facts(transfers)}["n"] == ("n/_5", "n/_6")


def test_the_copies_of_a_simulated_placement_come_after_those_that_ran() -> None:
    crossing = Facts(sketch(f"{THERE_AND_BACK}\nmodelled:\nm = MemcpyH2D() 9us {{src: p, dst: q, bytes: 999}}"))(copies)
    assert [copy.origin for copy in crossing] == ["measured"] * 3 + ["modelled"]


# -- joining --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        pytest.param({"node": "a/_2", "op": "_Recv", "edge": "edge_5_a", "src": "a", "dst": "find"}, id="all of it"),
        pytest.param({"node": "a/_2", "op": "_Recv"}, id="its receive"),
        pytest.param({"node": "a/_1", "op": "_Send", "edge": "edge_5_a"}, id="its send, as in RunMetadata"),
        pytest.param({"edge": "edge_5_a"}, id="its edge, as in a timeline"),
        pytest.param({"src": "a", "dst": "find"}, id="its ends"),
    ],
)
def test_an_event_is_joined_by_whatever_names_exactly_one_pair(words: dict[str, str]) -> None:
    assert joined_to(download(**words)) == "a"


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(upload(node="a/_2", op="_Recv"), id="another direction"),
        pytest.param(download(node="a/_2", op="_Recv", edge="edge_9_a"), id="another edge"),
        pytest.param(download(node="a/_2", op="_Recv", src="b"), id="another producer"),
        pytest.param(download(node="a/_2", op="_Recv", dst="b"), id="another reader"),
        pytest.param(download(node="a/_2", op="_Recv", device=1), id="another device"),
        pytest.param(download(), id="no name at all"),
    ],
)
def test_an_event_that_contradicts_a_pair_is_not_joined_to_it(found: CopyEvent) -> None:
    assert joined_to(found) is None


@pytest.mark.parametrize("reporting", [0, 1])
def test_either_of_two_accelerators_may_report_the_copy_between_them(reporting: int) -> None:
    evidence = sketch("a = Relu() float32[8] @GPU:0\ns = _Send(a) @GPU:0\nr = _Recv(s) float32[8] @GPU:1")
    devices = (ProfiledDevice("GPU:0", kind="GPU"), ProfiledDevice("GPU:1", kind="GPU"))
    profile = Profile(copies=(event("device-to-device", node="r", device=reporting),), devices=devices)
    (copy,) = Facts(Evidence(evidence.target, executed=evidence.executed, profile=profile))(copies)
    assert (copy.src, copy.kind, copy.events) == ("a", "device-to-device", 1)


def joined_to(found: CopyEvent) -> str | None:
    """The producer of the pair that an event is joined to, beside the graph of the first test."""
    evidence = sketch(THERE_AND_BACK)
    devices = (ProfiledDevice("GPU:0", kind="GPU"), ProfiledDevice("GPU:1", kind="GPU"))
    profile = Profile(copies=(found,), devices=devices)
    crossing = Facts(Evidence(evidence.target, executed=evidence.executed, profile=profile))(copies)
    (copy,) = (copy for copy in crossing if copy.events)
    return copy.src if copy.tensor else None


# Names of the sketch's graph, names of nothing, and no name, in every combination.
ANY_EVENT = st.builds(
    event,
    kind=st.sampled_from(["host-to-device", "device-to-host", "device-to-device", None]),
    start_ns=st.integers(0, 50),
    end_ns=st.integers(50, 90),
    nbytes=st.sampled_from([None, 4, 8]),
    node=st.sampled_from(["", "a/_1", "a/_2", "find/_4", "n/_6", "Conv2D"]),
    op=st.sampled_from(["", "_Recv", "_HostRecv", "MakeTensorFromProto", "Conv2D"]),
    src=st.sampled_from(["", "a", "find", "elsewhere"]),
    dst=st.sampled_from(["", "find", "y"]),
    edge=st.sampled_from(["", "edge_5_a", "edge_6_find", "memtype_1_a", "arg_0", "ret_1"]),
    device=st.integers(0, 1),
)


@given(st.lists(ANY_EVENT, max_size=40))
def test_every_event_belongs_to_exactly_one_copy_whatever_it_names(events: list[CopyEvent]) -> None:
    assert_accounted(events, _with_graph(events))


def _with_graph(events: Iterable[CopyEvent]) -> tuple[Copy, ...]:
    evidence = sketch(THERE_AND_BACK)
    devices = (ProfiledDevice("GPU:0", kind="GPU"), ProfiledDevice("GPU:1", kind="GPU"))
    profile = Profile(copies=tuple(events), devices=devices)
    return Facts(Evidence(evidence.target, executed=evidence.executed, profile=profile))(copies)


def assert_accounted(events: list[CopyEvent], copies: Iterable[Copy]) -> None:
    """Events and bytes of the copies sum up to those of the profile; where a size is unknown, so is the sum."""
    copies = [copy for copy in copies if copy.events]
    assert sum(copy.events for copy in copies) == len(events)
    if all(event.nbytes is not None for event in events):
        assert sum(copy.event_bytes for copy in copies) == sum(event.nbytes for event in events)
    else:
        assert any(copy.event_bytes is None for copy in copies)


# -- what an event says itself --------------------------------------------------------------------------------------

CAUSES = {
    "an upload of a constant": (upload(op="MakeTensorFromProto"), "constant on the host"),
    "a receive in host memory": (
        download(node="c/_9", op="_HostRecv", src="g", dst="i", edge="edge_7_g"),
        "int32/host-memory argument",
    ),
    "the memories of one device": (
        upload(node="n/_3", op="_Recv", src="i", dst="j", edge="memtype_4_i"),
        "int32/host-memory argument",
    ),
    "an argument of a call on a device": (download(node="call", op="RemoteCall", edge="arg_1"), "explicit device"),
    "a result of such a call": (upload(edge="ret_1"), None),
    "a feed of a session": (upload(edge="edge_553__arg_Placeholder_0_0"), "feed"),
    "a fetch of a session": (download(edge="edge_554_add_2"), "fetch"),
    "an op that uploads for its kernel": (upload(node="Conv2D", op="Conv2D"), None),
    "an op that reads back": (download(node="Where", op="Where"), None),
    "an output that is kept on the host": (
        upload(node="h/_8", op="_Recv", src="has", dst="p", edge="edge_3_has"),
        "int32/host-memory argument",
    ),
    "a copy without a direction": (event(None, node="concat", op="ConcatV2"), None),
    "no words at all": (upload(), None),
}
SEEN = {"_arg_Placeholder_0_0": "_Arg", "_retval_add_2_0_0": "_Retval", "has": "OptionalHasValue"}


@pytest.mark.parametrize("title", CAUSES)
def test_what_an_event_says_of_its_cause(title: str) -> None:
    found, reason = CAUSES[title]
    ops = tuple(OpEvent(name, op, 0, 1, 1, 0) for name, op in SEEN.items())
    (copy,) = of_profile(found, ops=ops)
    assert copy.reason == reason
    assert copy.detail or title == "no words at all"
    assert copy.events == 1


def test_the_graph_as_written_says_what_the_event_leaves_out() -> None:
    """A profile of another run: the producer's name leads to its readers, their arguments and requested devices."""
    written = sketch(
        """
        static
        x = Placeholder() int32[8]
        count = Cumsum(x) int32[8] {T: int32, Tidx: int32}
        more = AddV2(count, x) int32[8] {T: int32}
        a = Relu(x) float32[8] {T: float32}
        b = Tanh(a) float32[8] {T: float32} @CPU:0
        two = Tanh(a) float32[8] {T: float32}
        """
    ).traced
    profile = Profile(
        copies=(download(edge="edge_4_count"), download(edge="edge_5_a"), upload(edge="edge_6_more")),
        devices=(ProfiledDevice("GPU:0", kind="GPU"),),
    )
    crossing = Facts(Evidence(Target("p", "profile"), traced=written, profile=profile))(copies)
    assert {copy.src: (copy.reason, copy.at_fault) for copy in crossing} == {
        "count": ("int32/host-memory argument", "more"),
        "a": ("explicit device", "b"),
        "more": ("int32/host-memory argument", "more"),
    }


def test_an_event_names_the_ends_that_it_knows() -> None:
    copies = of_profile(
        download(edge="edge_12_scope/Conv2D_1"), upload(node="Conv2D", op="Conv2D"), download(node="Where", op="Where")
    )
    assert {(copy.src, copy.dst) for copy in copies} == {("scope/Conv2D_1", ""), ("", "Conv2D"), ("Where", "")}
    assert {(copy.src_device, copy.dst_device) for copy in copies} == {("GPU:0", "CPU:0"), ("CPU:0", "GPU:0")}


def test_of_several_machines_that_of_the_device_is_named() -> None:
    devices = (ProfiledDevice("GPU:3", "worker-1", "GPU"),)
    (copy,) = of_profile(upload(), devices=devices, hosts=("worker-0", "worker-1"))
    assert (copy.src_device, copy.dst_device) == ("worker-1/CPU:0", "worker-1/GPU:3")


def test_a_copy_without_a_direction_claims_none() -> None:
    (copy,) = of_profile(event(None))
    assert (copy.kind, copy.src_device, copy.dst_device) == (None, "", "")


# -- time -----------------------------------------------------------------------------------------------------------


def test_numbers_are_per_step_and_what_lies_outside_of_the_steps_counts_zero() -> None:
    steps = (Span("step", 100, 200, 0), Span("step", 200, 300, 0))
    inside, outside = (
        {copy.dst: copy for copy in of_profile(*events, steps=steps)}[name]
        for name, events in (
            ("a", [upload(node="a", op="A", start_ns=start, end_ns=start + 10) for start in (110, 130, 210)]),
            ("b", [upload(node="b", op="B", start_ns=20, end_ns=25)]),
        )
    )
    assert (inside.calls_per_step, inside.ns) == (1.5, 15)
    assert (outside.calls_per_step, outside.ns, outside.events) == (0.0, 0, 1)


def test_a_profile_that_marks_no_steps_counts_as_one() -> None:
    (copy,) = of_profile(upload(start_ns=0, end_ns=7), upload(start_ns=20, end_ns=25))
    assert (copy.calls_per_step, copy.ns, copy.events) == (2.0, 12, 2)


def test_a_devices_own_steps_come_before_those_of_the_host() -> None:
    own = ProfiledDevice("GPU:0", kind="GPU", steps=(Span("1", 50, 90, 0),))
    (copy,) = of_profile(upload(start_ns=60), devices=(own,), steps=(Span("step", 100, 200, 0),))
    assert copy.calls_per_step == 1.0


def test_overlap_is_the_share_of_the_copy_during_which_the_same_device_computed() -> None:
    devices = (ProfiledDevice("GPU:0", kind="GPU"), ProfiledDevice("GPU:1", kind="GPU"))
    kernels = tuple(
        DeviceEvent("k", "k", "K", start, end, device, "s")
        for start, end, device in ((0, 4, 0), (2, 5, 0), (8, 30, 0), (5, 8, 1))
    )
    (copy,) = of_profile(upload(start_ns=0, end_ns=10), devices=devices, kernels_on_device=kernels)
    assert copy.overlap_share == pytest.approx(0.7)


def test_busy_time_equals_a_count_of_instants() -> None:
    dice = random.Random(3)
    for _ in range(50):
        kernels = [(start, start + dice.randrange(6)) for start in (dice.randrange(40) for _ in range(8))]
        instants = {instant for start, end in kernels for instant in range(start, end)}
        busy = Busy(kernels)
        for start, length in product(range(0, 50, 3), (0, 1, 7)):
            assert busy.within_ns(start, start + length) == len(instants & set(range(start, start + length)))
            following = [instant for instant in instants if instant >= start]
            assert busy.next_start_ns(start) == min(following, default=None)
            pieces = [instant for piece in busy.pieces(start, start + length) for instant in range(*piece)]
            assert pieces == sorted(instants & set(range(start, start + length)))


# -- profiles that others made --------------------------------------------------------------------------------------


def raw_memcpys(path: Path) -> list[tuple[str, str, str, int]]:
    """Device, stream, name and bytes of every memcpy event, straight from the protobuf."""
    found = []
    for plane in xspace().FromString(path.read_bytes()).planes:
        stats = {key: meta.name for key, meta in plane.stat_metadata.items()}
        for line in plane.lines if "GPU" in plane.name else ():
            for item in line.events:
                name = plane.event_metadata[item.metadata_id].name
                words = [stat.str_value or stats.get(stat.ref_value, "") for stat in item.stats
                         if stats[stat.metadata_id] == "memcpy_details"]  # fmt: skip
                if name.startswith("Memcpy"):
                    size = next(word for word in words[0].split() if word.startswith("size:"))
                    found.append((plane.name[-5:], line.name, name, int(size.removeprefix("size:"))))
    return found


@pytest.fixture(scope="module")
def bert(shared_real: RealInputs) -> tuple[tuple[Copy, ...], list[tuple[str, str, str, int]]]:
    path = shared_real / "gpu_bert_8xV100.xplane.pb"
    facts = Facts(Evidence(Target("bert", "xplane"), profile=read_profile(path.read_bytes())))
    return facts(copies), raw_memcpys(path)


def test_every_memcpy_of_bert_is_accounted_for_by_stream_and_bytes(bert: Any) -> None:
    copies, raw = bert
    events, nbytes = Counter(), Counter()
    for copy in copies:
        events[copy.stream] += copy.events
        nbytes[copy.stream] += copy.event_bytes
    raw_bytes: Counter[str] = Counter()
    for _, stream, _, size in raw:
        raw_bytes[stream] += size
    assert events == Counter(stream for _, stream, _, _ in raw)
    assert nbytes == raw_bytes
    assert (events["Stream #135(MemcpyH2D)"], events["Stream #136(MemcpyD2H)"]) == (80, 12)


def test_what_ran_in_a_step_of_bert_is_told_from_what_was_uploaded_before(bert: Any) -> None:
    busiest = [copy for copy in bert[0] if "GPU:4" in copy.src_device + copy.dst_device]
    inside = [copy for copy in busiest if copy.calls_per_step]
    assert Counter(copy.kind for copy in inside for _ in range(copy.events)) == {
        "host-to-device": 11,
        "device-to-host": 12,
    }
    assert {copy.reason for copy in busiest if not copy.calls_per_step} == {"constant on the host", None}


def test_the_copies_of_bert_are_tied_to_ops_and_explained_where_the_event_tells(bert: Any) -> None:
    downloads = [copy for copy in bert[0] if copy.src_device.endswith("GPU:4") and copy.kind == "device-to-host"]
    assert Counter(copy.reason for copy in downloads for _ in range(copy.events)) == {
        "int32/host-memory argument": 10,
        "explicit device": 2,
    }
    assert all(copy.at_fault for copy in downloads)
    ends = {(copy.src, copy.dst) for copy in bert[0]}
    assert {("RemoteCall", "Identity_1"), ("OptionalHasValue_5", "cond_4/switch_pred/_50")} <= ends
    unexplained = [copy for copy in bert[0] if copy.reason is None and not copy.detail]
    assert sum(copy.events for copy in unexplained) == 4, "four events name nothing at all"


def test_specs_of_a_sketch_are_those_of_the_tensor() -> None:
    (pair, *_) = pairs_of(sketch(THERE_AND_BACK).executed.main.graph)
    assert (pair.tensor, pair.edge, pair.accelerators) == (TensorSpec("float32", (8, 4)), "edge_5_a", {"GPU:0"})


def test_what_the_rules_say_of_bert(shared_real: RealInputs) -> None:
    """Three quarters of the step are computed on each of the two busy devices; six ran no kernel."""
    profile = read_profile((shared_real / "gpu_bert_8xV100.xplane.pb").read_bytes())
    facts = Facts(Evidence(Target("bert", "xplane"), profile=profile))
    assert [(use.device, round(use.busy_share, 2)) for use in facts(device_uses)] == [(4, 0.75), (6, 0.70)]
    assert list(rules_find("GL105")(facts)) == [], "kernels are launched ahead of the copies to the host"
    (idle,) = rules_find("GL106")(facts)
    assert idle.title == "6 accelerators of 8 ran no kernel"
    reasons = [finding.evidence["reason"] for finding in rules_find("GL101")(facts)]
    assert set(reasons) == {"int32/host-memory argument", "explicit device", None}


def test_the_memcpys_of_a_timeline_are_accounted_for(shared_real: RealInputs) -> None:
    """The lane `memcpy` of the file has 21 events; 10 of them are of ops that copy themselves, without a direction."""
    path = shared_real / "kittibox_gpu.timeline.json"
    events = json.loads(path.read_text())["traceEvents"]
    (lane,) = (e["pid"] for e in events if e["ph"] == "M" and e["args"].get("name") == "/device:GPU:0/memcpy Compute")
    raw = Counter(e["name"] for e in events if e["pid"] == lane and e["ph"] == "X")
    crossing = Facts(Evidence(Target("kitti", "timeline"), profile=read_timeline(path.read_bytes(), path)))(copies)
    counted: Counter[str | None] = Counter()
    for copy in crossing:
        counted[copy.kind] += copy.events
    assert sum(counted.values()) == sum(raw.values()) == 21
    assert (counted["host-to-device"], counted["device-to-host"]) == (raw["MEMCPYHtoD"], raw["MEMCPYDtoH"]) == (5, 6)
    assert {copy.src: copy.reason for copy in crossing if copy.reason} == {
        "_arg_Placeholder_0_0": "feed",
        "Validation/add_2": "fetch",
        "Validation/decoder/Reshape_21": "fetch",
    }


def test_the_memcpys_of_a_session_are_tied_to_its_graph(shared_real: RealInputs) -> None:
    folder = shared_real / "gpu_run_metadata"
    profile = read_run_metadata((folder / "run_meta").read_bytes(), folder / "run_meta").profile
    graph = build_graph(read_graph_def(folder / "graph.pbtxt"))
    crossing = Facts(Evidence(Target("session", "graph"), traced=graph, profile=profile))(copies)
    assert {(copy.src, copy.dst, copy.kind, copy.bytes, copy.reason) for copy in crossing} == {
        ("Conv2D_1", "", "device-to-host", 384, "fetch"),
        ("", "Conv2D", "host-to-device", 112, None),
    }
