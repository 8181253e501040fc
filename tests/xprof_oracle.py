"""What XProf's own converters find in a profile, as an oracle: they share nothing with GraphLens but the file."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from end_to_end import python

from graphlens.ir.run import OpEvent

# Prints for each group of profiles, which are the hosts of one run, what a tool makes of it.
XPROF = """
import json, sys
from xprof.convert import raw_to_tool_data
for group in json.loads(sys.argv[2]):
    data, _ = raw_to_tool_data.xspace_to_tool_data(group, sys.argv[1], {})
    print(json.dumps(json.loads(data)))
"""

# (name, type) -> occurrences, summed self time and summed total time in nanoseconds.
Rows = dict[tuple[str, str], tuple[int, float, float]]

needs_xprof = pytest.mark.skipif(find_spec("xprof") is None, reason="needs tensorboard-plugin-profile")


def tool_data(tool: str, groups: Sequence[Sequence[Path]]) -> list[Any]:
    """Return what XProf's ``tool`` says of each group of profiles; it writes its caches beside them."""
    asked = json.dumps([[str(path) for path in group] for group in groups])
    return [json.loads(line) for line in python("-c", XPROF, tool, asked).splitlines() if line.startswith(("[", "{"))]


def host_rows(groups: Sequence[Sequence[Path]]) -> list[Rows]:
    """Return XProf's rows of the ops that ran on the host."""
    rows = []
    for data in tool_data("framework_op_stats", groups):
        cells = [[cell["v"] for cell in row["c"]] for row in data[0]["rows"]]
        rows.append(
            {(cell[3], cell[2]): (int(cell[4]), cell[7] * 1e3, cell[5] * 1e3) for cell in cells if cell[1] == "Host"}
        )
    return rows


def our_rows(events: Iterable[OpEvent]) -> Rows:
    """Return the same of the events that GraphLens joins."""
    rows: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for event in events:
        row = rows[event.node, event.op]
        row[0] += 1
        row[1] += event.self_ns
        row[2] += event.end_ns - event.start_ns
    return {key: (int(count), self_ns, total_ns) for key, (count, self_ns, total_ns) in rows.items()}


def assert_xprof_agrees(xprof: Rows, ours: Rows, allocations: Counter[str]) -> None:
    """The same ops, as often, and as long to a nanosecond an event (ours are whole), but for four things.

    XProf adds a row for idle time.  It counts the launch of an XLA program as an op, whose kernels we count instead.
    It leaves in a `_Send` what its receiver does before the send returns, which we give to the receiver.
    It counts each memory event of an op (where oneDNN is on) as one more occurrence, of no time.
    """
    launches = {key for key in xprof if key[0] == key[1] and key[0].startswith("__inference_")}
    assert set(xprof) - {("IDLE", "IDLE")} - launches == set(ours)
    for key, (count, self_ns, total_ns) in ours.items():
        there = xprof[key]
        assert there[0] == count + allocations[key[0]], key
        assert abs(there[2] - total_ns) <= count + 1, key
        if key[1] == "_Send":
            assert self_ns <= there[1] + 1, key
        else:
            assert abs(there[1] - self_ns) <= count + 1, key
