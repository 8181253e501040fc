"""RunMetadata and StepStats to a ``Profile``: what a session of TensorFlow 1, or a traced run, leaves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.loaders.annotations import Cause, is_copy, parse_annotation
from graphlens.loaders.device_lists import Record, events_of, place_of
from graphlens.loaders.events import Recorded
from graphlens.loaders.files import parse_message

_CALL = re.compile(r"^(?P<node>.*) = (?P<op>[\w>]+)\(.*\)", re.DOTALL)
NS_PER_US = 1000
_FARTHEST_NS: Final = 1 << 62  # a moment as clocks count, the year 2116
_LONGEST_NS: Final = 1 << 52  # 52 days, so that sums over thousands of records fit in 64 bits


def read_run_metadata(data: bytes, path: Path) -> Recorded:
    """Return what a serialized ``RunMetadata``, or its ``StepStats`` alone, holds.

    Raises
    ------
    TargetError
        When the bytes are damaged, or no step was recorded in them.
    """
    from tensorboard.compat.proto import config_pb2, step_stats_pb2

    message: Any = parse_message(config_pb2.RunMetadata, data, path, "a RunMetadata")
    stats = message.step_stats
    if not any(place_of(device.device) for device in stats.dev_stats):
        stats = parse_message(step_stats_pb2.StepStats, data, path, "a StepStats")
    lists = {device.device: [_record(node) for node in device.node_stats] for device in stats.dev_stats}
    functions = {function.signature.name for graph in message.partition_graphs for function in graph.library.function}
    events = events_of(lists, functions)
    if not events.ops and not events.kernels_on_device and not events.copies:
        raise TargetError(f"'{path}' holds no step; run with RunOptions(trace_level=RunOptions.FULL_TRACE)")
    return Recorded(events.profile(), tuple(message.partition_graphs))


def _record(node: Any) -> Record:
    start_ns, end_ns = _span_ns(node)
    label = node.timeline_label
    called = _CALL.match(label)
    if called:
        return Record(node.node_name, called["op"], Cause(), "", "", start_ns, end_ns)
    cause, kernel, details = read_label(label)
    op = node.node_name if is_copy(node.node_name) else cause.op or node.node_name
    return Record(node.node_name, op, cause, kernel, details, start_ns, end_ns)


def _span_ns(node: Any) -> tuple[int, int]:
    """Return when the op itself ran, cut to what a clock can show: what lies beyond is damaged."""
    start_ns, end_ns = _told_ns(node)
    start_ns = min(max(start_ns, 0), _FARTHEST_NS)
    return start_ns, min(max(end_ns, start_ns), start_ns + _LONGEST_NS)


def _told_ns(node: Any) -> tuple[int, int]:
    """Return when an op ran; records without nanoseconds are in microseconds, of which none is shorter."""
    if node.all_start_nanos:
        start, first, last = node.all_start_nanos, node.op_start_rel_nanos, node.op_end_rel_nanos
        last = last or node.all_end_rel_nanos
        return start + first, start + max(first, last)
    first, last = node.op_start_rel_micros, node.op_end_rel_micros or node.all_end_rel_micros
    start = node.all_start_micros * NS_PER_US
    return start + first * NS_PER_US, start + max(first, last) * NS_PER_US


def read_label(label: str) -> tuple[Cause, str, str]:
    """Split the label of a kernel or copy into its cause, the kernel's name, and details.

    >>> cause, kernel, details = read_label("Conv2D_1:Conv2D regs:17 shm:0 grid:1,1,1 block:1024,1,1")
    >>> cause.node, kernel, details
    ('Conv2D_1', '', 'regs:17 shm:0 grid:1,1,1 block:1024,1,1')
    >>> cause, kernel, details = read_label("gemm regs:17@@net/a:MatMul#shape=(float[2])#")
    >>> cause.node, kernel
    ('net/a', 'gemm')
    """
    described, at, annotation = label.partition("@@")
    if at:
        kernel, _, details = described.partition(" ")
        return parse_annotation(annotation), kernel, details
    annotation, _, details = label.partition(" ")
    return parse_annotation(annotation), "", details
