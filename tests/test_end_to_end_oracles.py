"""The numbers against readers and counters that are not ours: XProf, a naive walker, TensorFlow's own FLOP counter."""

from __future__ import annotations

import json
import statistics
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from conftest import Analyzed, Record
from end_to_end import CAPTURES, python
from oracles import allocations_by_op, host_lines, is_op
from xprof_oracle import Rows, assert_xprof_agrees, host_rows, needs_xprof, our_rows

import graphlens
from graphlens.facts.time.attribution import attribution
from graphlens.ir.ops import runtime_type

# -- XProf ------------------------------------------------------------------------------------------------------------

PROFILE = "profile.xplane.pb"
FIXTURES = sorted(path.stem for path in CAPTURES.glob("*.capture"))
# Of an op that runs what XLA compiled, only what is not XLA's is its own: `test_jax_programs.py` walks these.
INTERPRETED = [name for name in FIXTURES if name != "jax2tf"]


def xprof_rows(captures: list[Path], folder: Path) -> list[Rows]:
    """Return XProf's rows of each capture's profile."""
    profiles = []
    for capture in captures:
        profiles.append(folder / capture.stem / PROFILE)
        profiles[-1].parent.mkdir()
        profiles[-1].write_bytes(profile_of(capture))
    return host_rows([[profile] for profile in profiles])


def profile_of(capture: Path) -> bytes:
    with zipfile.ZipFile(capture) as archive:
        return archive.read(PROFILE)


def rows_of(analysis: graphlens.Analysis) -> Rows:
    """Return those of the events that GraphLens joins."""
    assert analysis.facts is not None
    assert analysis.facts.evidence.profile is not None
    return our_rows(analysis.facts.evidence.profile.ops)


@needs_xprof
def test_xprof_counts_the_same_in_recorded_captures(tmp_path: Path) -> None:
    paths = [CAPTURES / f"{name}.capture" for name in INTERPRETED]
    for path, rows in zip(paths, xprof_rows(paths, tmp_path), strict=True):
        assert len(rows) > 1, path
        assert_xprof_agrees(rows, rows_of(graphlens.load(path)), allocations_by_op(profile_of(path)))


@needs_xprof
@pytest.mark.tf
def test_xprof_counts_the_same_in_fresh_recordings(capture_of: Record, analysis_of: Analyzed, tmp_path: Path) -> None:
    targets = ["demo", "lstm", "while_if", "fixtures.models:two_devices"]
    paths = [capture_of(target) for target in targets]
    for target, path, rows in zip(targets, paths, xprof_rows(paths, tmp_path), strict=True):
        assert_xprof_agrees(rows, rows_of(analysis_of(target)), allocations_by_op(profile_of(path)))


# -- a naive walker of the profile ------------------------------------------------------------------------------------

Event = tuple[str, int, int]
STEP = "graphlens_step"
DONE = "ExecutorState::ProcessAsync::Done"


def events_by_step(profile: bytes) -> list[list[list[Event]]]:
    """Return step -> thread -> events (name, start ps, end ps), without the first step."""
    lines = host_lines(profile)
    steps = sorted((start, end) for line in lines for name, start, end in line if name == STEP)
    return [
        [
            [event for event in line if start <= event[1] < end and (is_op(event[0]) or event[0] == DONE)]
            for line in lines
        ]
        for start, end in steps[1:]
    ]


def self_ps(event: Event, line: list[Event]) -> int:
    """Duration less that of the outermost events inside it; every pair of a thread is compared."""
    inner = [other for other in line if other != event and event[1] <= other[1] and other[2] <= event[2]]
    outermost = [one for one in inner if not any(o != one and o[1] <= one[1] and one[2] <= o[2] for o in inner)]
    return event[2] - event[1] - sum(end - start for _, start, end in outermost)


def walk(capture: Path) -> tuple[dict[str, list[tuple[int, int]]], int]:
    """Return event name -> (self ps, calls) of each step in which it was seen, and the number of steps."""
    steps = events_by_step(profile_of(capture))
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for lines in steps:
        total: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        for line in lines:
            for event in line:
                if is_op(event[0]):
                    total[event[0]] += self_ps(event, line)
                    calls[event[0]] += 1
        for name in calls:
            found[name].append((total[name], calls[name]))
    return found, len(steps)


@pytest.mark.parametrize("name", INTERPRETED)
def test_every_ops_time_is_what_a_naive_walker_finds(name: str) -> None:
    """Self times are summed a step and the median is taken; every event of ours is rounded down to a nanosecond."""
    analysis = graphlens.load(CAPTURES / f"{name}.capture")
    types = dict(analysis.to_networkx("executed").nodes(data="op"))
    found, steps = walk(CAPTURES / f"{name}.capture")
    compared = 0
    for row in analysis.document.ops:
        seen = found.get(f"{row.name}:{types[row.name]}")
        if seen is None or row.timing != "profile":
            continue
        calls = sum(count for _, count in seen)
        assert row.calls_per_step == pytest.approx(calls / steps)
        expected_ns = statistics.median(total for total, _ in seen) / 1000
        assert row.self_ns == pytest.approx(expected_ns, abs=max(count for _, count in seen) + 1), row.name
        compared += 1
    assert compared > 0 or name == "jit_callable"


@pytest.mark.parametrize("name", [name for name in INTERPRETED if not name.startswith("jit")])
def test_the_joined_time_is_that_of_all_events(name: str) -> None:
    analysis = graphlens.load(CAPTURES / f"{name}.capture")
    assert analysis.facts is not None
    found, _ = walk(CAPTURES / f"{name}.capture")
    total_ns = sum(total for seen in found.values() for total, _ in seen) / 1000
    events = sum(count for seen in found.values() for _, count in seen)
    assert analysis.facts(attribution).event_ns == pytest.approx(total_ns, abs=events)


# -- FLOPs ------------------------------------------------------------------------------------------------------------

# Prints TensorFlow's own count by op type, of the signature frozen at batch 1.
TENSORFLOW_FLOPS = """
import json, sys
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
model = tf.saved_model.load(sys.argv[1])
run = model.signatures["serving_default"]
((name, spec),) = run.structured_input_signature[1].items()
one = tf.TensorSpec([size or 1 for size in spec.shape.as_list()], spec.dtype)
frozen = convert_variables_to_constants_v2(tf.function(lambda x: run(**{name: x})).get_concrete_function(one))
options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
counted = tf.compat.v1.profiler.profile(frozen.graph, cmd="op", options=options.with_empty_output().build())
flops, node = {}, counted
while node.children:  # each type hangs below the one before it
    (node,) = node.children
    flops[node.name] = node.float_ops
print(json.dumps(flops))
"""

PRODUCTS = ("Conv2D", "DepthwiseConv2dNative", "MatMul")


def tensorflow_flops(model: Path) -> dict[str, int]:
    return json.loads(python("-c", TENSORFLOW_FLOPS, str(model)).splitlines()[-1])  # type: ignore[no-any-return]


def our_flops(graph: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for _, data in graph.nodes(data=True):
        total[runtime_type(data["op"])] += data["flops"] or 0
    return total


@pytest.mark.tf
def test_flops_are_those_that_tensorflow_counts(analysis_of: Analyzed, small_models: Path) -> None:
    theirs = tensorflow_flops(small_models / "tiny_cnn")
    ours = our_flops(analysis_of("tiny.keras").to_networkx("traced"))
    assert {op: ours[op] for op in PRODUCTS} == {op: theirs[op] for op in PRODUCTS}
    assert ours["Conv2D"] == 2 * 32 * 32 * 8 * 3 * 3 * 3


@pytest.mark.tf
def test_executed_convolutions_count_the_same(analysis_of: Analyzed, small_models: Path) -> None:
    """The executed graph carries no shapes of its own: they come from the replay."""
    theirs = tensorflow_flops(small_models / "demo")
    ours = our_flops(analysis_of("demo").to_networkx("executed"))
    assert {op: ours[op] for op in PRODUCTS[:2]} == {op: theirs[op] for op in PRODUCTS[:2]}


# -- the second route -------------------------------------------------------------------------------------------------


@pytest.mark.tf
def test_a_replay_takes_about_as_long_as_the_profile_says(analysis_of: Analyzed) -> None:
    """Ops long enough to be measured well; the replay runs them in a Session, so only the order of size can agree."""
    analysis = analysis_of("demo")
    assert analysis.facts is not None
    replay = analysis.facts.evidence.replay
    ratios = {
        row.name: statistics.median(replay[row.name].durations_ns) / row.self_ns
        for row in analysis.document.ops
        if row.self_ns and row.self_ns > 20_000 and row.name in replay
    }
    assert len(ratios) >= 10
    print(f"replay / profile: median {statistics.median(ratios.values()):.2f} over {len(ratios)} ops")
    assert 1 / 2.5 < statistics.median(ratios.values()) < 2.5
