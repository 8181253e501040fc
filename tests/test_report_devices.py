"""What reports show of devices: lanes, copies and their groups, a what-if placement, the roofline, memory, replicas."""

import re
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest

from graphlens.ir.devices import Copy, CopyCount, DeviceRow, Lane, Memory, Roof, Roofline, RoofPoint
from graphlens.report import view_copies
from graphlens.report.figures import draw
from graphlens.report.html import render
from graphlens.report.ink import TONES, ink_of
from graphlens.report.plots import LANE_HEIGHT, lane, memory_curve
from graphlens.report.roofline_plot import Dot, roofline_plot
from graphlens.report.scopes import Scope, scope_of
from graphlens.report.terminal import render as render_text
from graphlens.report.view import view_of
from tests import sample_devices, sample_document

RICH = sample_document.RICH
VIEW = view_of(RICH)


def of(**parts):
    """The view of the sample with other parts."""
    return view_of(replace(RICH, **parts))


# -- devices -------------------------------------------------------------------------------------------------


def test_devices_are_shown_by_machine_and_empty_ones_in_words():
    hosts = VIEW.devices.hosts
    assert [(host.host, [device.name for device in host.devices], host.idle) for host in hosts] == [
        ("worker-0", ["CPU:0", "GPU:0", "GPU:1"], ()),
        ("worker-1", ["GPU:0"], ("GPU:1",)),
    ]
    assert hosts[1].idle_words == "nothing ran on this device during the profile"
    assert VIEW.devices.summary == "5 devices, 1 of them empty: nothing ran there"


def test_a_lane_says_the_mean_of_what_it_draws():
    busiest = VIEW.devices.hosts[0].devices[1]
    assert [(lane.words, lane.share) for lane in busiest.lanes] == [
        ("compute", "84 %"),
        ("copies in", "5.3 %"),
        ("copies out", "0.8 %"),
        ("collectives", "9.0 %"),
    ]


def test_one_processor_makes_no_section():
    alone = DeviceRow("CPU:0", kind="CPU", kernels=10, lanes=(Lane("compute", (0.5,)),))
    assert of(devices=(alone,)).devices is None
    assert of(devices=()).devices is None
    assert of(devices=(replace(alone, name="GPU:0", kind="GPU"),)).devices is not None


def test_equal_hardware_is_said_once_and_with_units():
    properties = {"memory_size": 16 << 30, "clock_rate": 1_530_000, "core_count": 80}
    rows = tuple(DeviceRow(f"GPU:{index}", kind="GPU", properties=properties) for index in range(3))
    ((names, said),) = of(devices=rows).devices.hardware
    assert names == "GPU:0, GPU:1, GPU:2"
    assert [(label, cell.text) for label, cell in said] == [
        ("memory size", "16.0 GiB"),
        ("clock rate", "1.53 GHz"),
        ("core count", "80"),
    ]


def test_a_lane_is_one_path_of_steps():
    svg = ElementTree.fromstring(lane((0.0, 0.5, 0.5, 1.0, 0.0001), "compute", "GPU:0", "steps"))
    (path,) = svg.iter("path")
    assert path.get("d") == f"M0 {LANE_HEIGHT}V20H1V10H3V0H4V18H5V{LANE_HEIGHT}z"
    assert (svg.get("aria-label"), svg.findtext("desc")) == ("GPU:0", "steps")


def test_every_device_keeps_its_tone_and_the_host_comes_first():
    tones = ink_of(RICH).tones
    assert [tones[name] for name in ("CPU:0", "CPU:1", "GPU:0", "GPU:1")] == [0, 1, 2, 3]
    many = replace(RICH, devices=tuple(DeviceRow(f"GPU:{index}", kind="GPU") for index in range(12)))
    assert max(ink_of(many).tones.values()) == TONES - 1


# -- copies --------------------------------------------------------------------------------------------------


def test_copies_are_grouped_by_direction_and_reason_with_measured_ones_first():
    assert [(group.reason, group.count, group.size, group.modelled) for group in VIEW.copies.groups] == [
        ("explicit device", "1", "4.59 MiB", False),
        ("reason unknown", "1", "unknown", False),
        ("shape arithmetic", "1", "64 B", True),
        ("no kernel for this device and dtype", "8", "510 KiB", True),
    ]


def test_a_sum_says_what_it_leaves_out():
    copies = tuple(Copy("a", "b", "/gpu:0", "/cpu:0", size, 10, calls_per_step=1.0) for size in (1024, None))
    (group,) = of(copies=copies).copies.groups
    assert (group.size, group.time) == ("1.00 KiB (1 unknown)", "20 ns")


def test_copies_outside_of_the_steps_say_so():
    (row,) = of(
        copies=(Copy("a", "b", "/gpu:0", "/cpu:0", 8, calls_per_step=0.0, events=3, event_bytes=24),)
    ).copies.rows
    assert row.events == "3 events in the profile, 24 B, outside of the steps"


def test_the_memories_of_one_device_are_two_sides():
    copy = Copy("Shape", "Concat", "/gpu:0", "/gpu:0", 16, 10, kind="device-to-host", calls_per_step=1.0)
    document = replace(sample_document.STATIC, copies=(copy,))
    (row,), (group,) = view_of(document).copies.rows, view_of(document).copies.groups
    assert (row.src_device, row.dst_device) == ("GPU:0", "GPU:0 host memory")
    assert [(key.device, key.tone) for key in ink_of(document).keys(group.figure)] == [
        ("GPU:0 host memory", 0),
        ("GPU:0", 1),
    ]


def test_replicas_with_ops_of_one_name_are_drawn_apart():
    copies = tuple(
        Copy("RemoteCall", "Identity", f"/gpu:{index % 2}", "/cpu:0", 8, 10 - index, calls_per_step=1.0)
        for index in range(3)
    )
    (group,) = of(copies=copies).copies.groups
    assert [node.name for node in group.figure.nodes] == ["RemoteCall (GPU:0)", "RemoteCall (GPU:1)", "Identity"]
    assert group.sizes == {
        ("RemoteCall (GPU:0)", "Identity"): "2 copies",
        ("RemoteCall (GPU:1)", "Identity"): "8 B",
    }


def test_names_leave_out_the_scope_that_all_share():
    first = VIEW.copies.rows[0]
    assert VIEW.copies.scope == Scope(f"{sample_devices.ROOT}/")
    assert (first.src, first.dst) == ("block_1_expand_BN/batchnorm/add_1", "block_1_relu/Relu6")


def test_names_outside_of_the_scope_stay_whole():
    scope = scope_of([*(f"model/{layer}/x" for layer in range(12)), "image"])
    assert scope == Scope("model/", "…/")
    assert [scope.short(name) for name in ("model/1/x", "image")] == ["…/1/x", "image"]
    assert scope.note == "…/ stands for"


def test_copies_beyond_the_limit_are_counted(monkeypatch):
    monkeypatch.setattr(view_copies, "COPY_LIMIT", 4)
    copies = view_of(RICH).copies
    assert len(copies.rows) == 4
    assert copies.note == "7 more copies in the JSON report."


def test_a_group_is_drawn_with_both_sides_and_what_crosses():
    group = VIEW.copies.groups[2]
    svg = draw(group.figure, ink=ink_of(RICH))
    assert isinstance(svg, str)
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert {"Shape", "GPU:0", "strided_slice", "CPU:0", " 16 B "} <= set(texts) | {f" {text} " for text in texts}
    assert "subject untimed dev2" in svg
    assert "context untimed dev0" in svg
    assert VIEW.copies.groups[3].note == "2 more copies of this group not drawn."


# -- placement -----------------------------------------------------------------------------------------------


def test_the_placement_counts_ops_and_copies():
    assert [(fact.label, fact.value, fact.detail) for fact in VIEW.placement.facts[:3]] == [
        ("On the device", "702 ops", "have a kernel there"),
        ("On the host", "31 ops", "in 2 islands"),
        ("Copies per step", "27", "12 to the device, 15 back"),
    ]


def test_a_change_shows_before_and_after_and_marks_what_got_less():
    first, second = VIEW.placement.counterfactuals
    assert [(cell.before, cell.after, cell.better) for cell in first.cells] == [
        ("12", "12", False),
        ("15", "0", True),
        ("6.00 MiB", "6.00 MiB", False),
        ("1.34 ms", "1.05 ms", True),
    ]
    assert second.cells[3].after == "unknown"


def test_a_placement_without_copies_says_so():
    nothing = replace(
        sample_devices.PLACEMENT, ops_on_host=0, islands=(), counterfactuals=(), copies=CopyCount(0, 0, 0, 0, 0)
    )
    facts = of(placement=nothing).placement.facts
    assert [(fact.value, fact.detail) for fact in facts[1:]] == [
        ("0 ops", "everything has a kernel"),
        ("0", "nothing crosses"),
    ]


def test_copies_between_devices_get_a_column_when_there_are_any():
    tried = replace(sample_devices.PLACEMENT.counterfactuals[0], after=CopyCount(1, 1, 2))
    placement = of(placement=replace(sample_devices.PLACEMENT, counterfactuals=(tried,))).placement
    assert placement.between
    assert placement.counterfactuals[0].cells[2].after == "2"


# -- roofline ------------------------------------------------------------------------------------------------


def coordinates(svg, name):
    """Centre of the dot of an op."""
    (dot,) = [dot for dot in svg.iter("circle") if dot.findtext("title").startswith(f"{name}:")]
    return float(dot.get("cx")), float(dot.get("cy"))


def roof_points(svg):
    (roof,) = [path for path in svg.iter("path") if path.get("class") == "roof"]
    return [tuple(map(float, pair.split())) for pair in roof.get("d")[1:].split("L")]


def test_dots_lie_under_the_roof_by_what_they_reached():
    """An op at all of the roof touches it, in both parts of it; one at a tenth lies one decade below."""
    dots = [
        Dot(0.1, 2e9, 1.0, "memory", "m"),
        Dot(100.0, 100e9, 0.5, "arithmetic", "a"),
        Dot(100.0, 10e9, 0.5, "slow", "s"),
    ]
    svg = ElementTree.fromstring(roofline_plot(dots, 100e9, 20e9, "the roof", "memory"))
    (start_x, start_y), (ridge_x, ridge_y), _ = roof_points(svg)
    x, y = coordinates(svg, "memory")
    assert y == pytest.approx(start_y + (ridge_y - start_y) * (x - start_x) / (ridge_x - start_x), abs=0.2)
    assert coordinates(svg, "arithmetic")[1] == pytest.approx(ridge_y, abs=0.2)
    decade = coordinates(svg, "slow")[1] - ridge_y
    ticks = {text.text: float(text.get("y")) for text in svg.iter("text")}
    assert decade == pytest.approx(ticks["10 GFLOP/s"] - ticks["100 GFLOP/s"], abs=0.2)


def label_box(label):
    """Left, right, top and bottom of a label in letters of 6 by 11 pixels."""
    x, y, width = float(label.get("x")), float(label.get("y")), 6 * len(label.text)
    left = {"name": x, "name end": x - width, "name middle": x - width / 2}[label.get("class")]
    return left, left + width, y - 11, y


def overlap(one, other):
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def test_labels_of_dots_on_one_spot_do_not_cover_each_other():
    dots = [Dot(10.0, 50e9, 1.0, f"op{index}", "w", f"label_{index}") for index in range(6)]
    svg = ElementTree.fromstring(roofline_plot(dots, 100e9, 20e9, "a", "b"))
    labels = [text for text in svg.iter("text") if text.get("class").startswith("name")]
    assert len(labels) == 6
    boxes = [label_box(label) for label in labels]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    assert [line for line in svg.iter("line") if line.get("class") == "leader"]


def test_ops_without_operations_are_in_the_table_only():
    assert VIEW.roofline.notes == ("1 op without operations or bytes not drawn.",)
    assert (VIEW.roofline.points[-1].type, VIEW.roofline.points[-1].rate) == ("Pad", "15.1 GB/s")
    assert VIEW.roofline.drawing.count("<circle") == len(VIEW.roofline.points) - 1


def test_a_roof_without_ops_makes_no_section():
    assert of(roofline=Roofline(Roof(1e9, 1e9))).roofline is None
    flat = Roofline(Roof(1e9, 1e9), (RoofPoint("a", "Pad", 0, 4, 10, 0.5),))
    assert of(roofline=flat).roofline.drawing is None


# -- memory --------------------------------------------------------------------------------------------------


def test_the_peak_is_marked_where_the_curve_is_highest():
    svg = ElementTree.fromstring(memory_curve((1 << 20, 4 << 20, 2 << 20), 4 << 20, "conv/Conv2D"))
    (peak,) = svg.iter("circle")
    (curve,) = [path for path in svg.iter("path") if path.get("class") == "curve"]
    assert curve.get("d")[1:].split("L")[1] == f"{peak.get('cx')} {peak.get('cy')}"
    texts = [text.text for text in svg.iter("text")]
    assert "4.00 MiB at conv/Conv2D" in texts
    assert {"1 MiB", "2 MiB", "3 MiB", "4 MiB"} <= set(texts)


def test_memory_is_an_estimate_and_says_what_it_leaves_out():
    assert (VIEW.memory.peak, VIEW.memory.at_op, VIEW.memory.weights) == ("36.8 MiB", "block_1_relu/Relu6", "13.5 MiB")
    assert VIEW.memory.notes == ("7 ops of unknown output size left out.",)
    assert of(memory=Memory(10, "a", (10,))).memory.drawing is None


# -- the page and the summary --------------------------------------------------------------------------------


def test_hosts_and_replicas_get_bars_beside_the_busiest():
    replicas = VIEW.distribution.replicas
    assert [(row.name, row.busy, row.width) for row in replicas] == [
        ("replica 0", "181 ms", 1000.0),
        ("replica 1", "158 ms", 874.1),
        ("replica 2", "90.0 us", 0.5),
    ]


def test_every_drawing_names_itself():
    page = render(RICH)
    drawings = re.findall(r"<svg [^>]*role=\"img\"[^>]*>", page)
    assert len(drawings) > 10
    assert all('aria-label="' in drawing for drawing in drawings)


@pytest.mark.parametrize("part", ["devices", "distribution", "placement", "roofline", "memory", "copies"])
def test_what_the_document_does_not_say_is_not_in_the_page(part):
    empty = replace(RICH, **{part: () if part in ("devices", "copies") else None})
    shown = re.findall(r'<(?:section|div class="body") id="(\w+)"', render(empty))
    assert part not in shown
    assert part in re.findall(r'<(?:section|div class="body") id="(\w+)"', render(RICH))


def test_the_summary_has_a_line_for_each():
    text = render_text(RICH)
    labels = [line.split(" ")[0] for line in text.splitlines() if line and not line.startswith(" ")]
    assert [label for label in labels if label in ("Devices", "Copies", "What-if", "Roofline", "Memory")] == [
        "Devices",
        "Copies",
        "What-if",
        "Roofline",
        "Memory",
    ]
    assert "modelled: 702 ops on it, 31 ops on the host" in re.sub(r"\s+", " ", text)
