"""Replicas: what each does in a step, what their exchanges cost, and who waits for whom, in recordings of real ones."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from line_counts import lines_of, what_grows_faster
from load_helpers import HostPlane

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.replicas.intervals import Instants
from graphlens.facts.replicas.replicas import exchanges, replicas
from graphlens.facts.training.phases import phases
from graphlens.facts.training.shares import training
from graphlens.ir.replicas import Replicas, ReplicaStep
from graphlens.ir.run import Span, host_of_thread
from graphlens.loaders.capture import reading
from graphlens.loaders.collectives import Executed, collectives_of
from graphlens.loaders.schema import xspace
from graphlens.pipeline.choosing import choose
from graphlens.rules import all_rules, judge, select
from graphlens.testing.sketch import sketch

RECORDED = Path(__file__).parents[1] / "fixtures" / "replicas"
# `mirrored.py loop collective uneven slow`: two replicas, the second sleeps 20 ms in each step.
MIRRORED = "mirrored.capture"
# `multi_worker.py loop serve slow`: two workers, the second sleeps 20 ms in each step.
WORKERS = "workers.capture"
# `parameter_server.py serve`: the coordinator and two workers.
SERVERS = "servers.capture"
SLEEP_NS = 20_000_000


@cache
def recorded(name: str) -> Facts:
    evidence = reading.evidence_of(reading.open_capture(RECORDED / name))
    return Facts(choose(evidence, None) if evidence.programs else evidence)


def replicas_of(name: str) -> Replicas:
    found = recorded(name)(replicas)
    assert found is not None
    return found


def parts_ns(row: ReplicaStep) -> int:
    return row.work_ns + row.communication_ns + row.waiting_ns + row.other_ns


@pytest.mark.parametrize("name", [MIRRORED, WORKERS, SERVERS])
def test_the_parts_of_each_step_sum_to_it(name: str) -> None:
    for row in replicas_of(name).replicas:
        assert parts_ns(row) == row.step_ns > 0
        assert min(row.work_ns, row.communication_ns, row.waiting_ns, row.other_ns) >= 0


@pytest.mark.parametrize("name", [MIRRORED, WORKERS])
def test_waiting_for_the_replica_that_sleeps_is_booked_on_the_other_one(name: str) -> None:
    found = replicas_of(name)
    first, second = found.replicas
    assert found.slowest == 1
    assert second.work_ns > SLEEP_NS > 5 * first.work_ns
    assert first.waiting_ns > 0.9 * SLEEP_NS > 10 * second.waiting_ns
    assert found.slow_ops[0].op == "PyFunc"
    titles = [one.title for one in judge(recorded(name), select(all_rules(), ["GL703"]))[0]]
    assert titles[0].startswith("Replica 0 ")
    assert "for replica 1" in titles[0]


def least_by_hand(name: str) -> list[int]:
    """What each exchange takes at least: from when a replica's op starts until it is done, read off the raw events."""
    capture = reading.open_capture(RECORDED / name)
    (part,) = [one for one in capture.names if one.endswith("xplane.pb")]
    (plane,) = [one for one in xspace().FromString(capture.part(part)).planes if one.name == "/host:CPU"]
    starts, spent = {}, defaultdict(list)
    events = [told for line in plane.lines for told in events_of(plane, line)]
    for kind, now, stats in events:
        if kind.endswith("ProcessAsync::Start") and stats.get("kernel_type") == "CollectiveReduceV2":
            starts[stats["_p"]] = now, stats["step_id"]
    for kind, now, stats in events:
        if kind.endswith("ProcessAsync::Done") and stats.get("_c") in starts:
            begun, step = starts[stats["_c"]]
            spent[step].append(now - begun)
    return sorted(min(both) for both in spent.values() if len(both) == 2)


def events_of(plane, line):
    """Yield name, start in nanoseconds and statistics of each event of a line."""
    names = {key: meta.name for key, meta in plane.stat_metadata.items()}
    for event in line.events:
        stats = {}
        for stat in event.stats:
            which = stat.WhichOneof("value")
            value = getattr(stat, which) if which else None
            stats[names[stat.metadata_id]] = names[value] if which == "ref_value" else value
        yield plane.event_metadata[event.metadata_id].name, line.timestamp_ns + event.offset_ps // 1000, stats


def test_an_exchange_costs_what_the_last_to_get_there_spends_in_it() -> None:
    profile = recorded(MIRRORED).evidence.profile
    assert profile is not None
    least: dict[int, int] = {}
    for one in profile.collectives:
        ns = one.end_ns - one.start_ns
        least[one.instance] = min(ns, least.get(one.instance, ns))
    by_hand = least_by_hand(MIRRORED)
    assert len(least) == len(by_hand)
    assert sorted(least.values()) == pytest.approx(by_hand, abs=2)  # picoseconds are cut off


def test_an_empty_replica_is_named_with_the_rows_of_its_batch() -> None:
    found = replicas_of(MIRRORED)
    assert [row.rows for row in found.replicas] == [32, 32]
    ((rows, often),) = found.uneven_rows
    assert rows == (1, 0)
    assert [row.empty_steps for row in found.replicas] == [0, often]
    findings, _ = judge(recorded(MIRRORED), select(all_rules(), ["GL703"]))
    (empty,) = [one for one in findings if "no row" in one.title]
    assert empty.title == f"Replica 1 is given no row in {often} steps, and computes forward and backward all the same"


def test_a_step_has_one_exchange_of_all_gradients_and_that_is_not_unbucketed() -> None:
    found = replicas_of(MIRRORED)
    assert found.collectives == 1.0
    assert found.bytes == (20 * 32 + 32 * 5 + 32 + 5) * 4
    assert {one.name for one in recorded(MIRRORED)(exchanges)} == {"CollectiveReduceV2", "CollectiveReduceV2_1"}
    findings, statuses = judge(recorded(MIRRORED), select(all_rules(), ["GL701"]))
    assert (findings, statuses[0].status) == ([], "passed")


def test_collectives_are_communication() -> None:
    facts = recorded(MIRRORED)
    phase = dict(zip(facts(judged_graph).names, facts(phases), strict=True))
    assert {phase["CollectiveReduceV2"], phase["CollectiveReduceV2_1"]} == {"communication"}
    told, costs = facts(training), [one.least_ns for one in facts(exchanges)]
    assert told is not None
    (communication,) = [row for row in told.phases if row.phase == "communication"]
    assert communication.ns >= sum(costs) > 0
    assert communication.ns < SLEEP_NS / 4  # what the other replica is waited for is in no phase
    assert sum(row.ns for row in told.phases) == told.op_ns


def test_workers_know_their_exchanges_by_the_same_numbers() -> None:
    profile = recorded(WORKERS).evidence.profile
    assert profile is not None
    takers = defaultdict(set)
    for one in profile.collectives:
        takers[one.instance].add(host_of_thread(one.thread))
    alone = [instance for instance, hosts in takers.items() if len(hosts) == 1]
    assert len(alone) <= 4  # those that the profiles of two workers cut off at either end
    assert len(takers) > 2 * len(alone)
    assert replicas_of(WORKERS).strategy == "multi-worker"


def test_calls_of_a_coordinator_are_tied_to_the_steps_of_its_workers() -> None:
    found, profile = replicas_of(SERVERS), recorded(SERVERS).evidence.profile
    assert profile is not None
    assert len(profile.hosts) == 3
    assert found.strategy == "parameter-server"
    assert [one.worker for one in found.remote] == list(profile.hosts[1:])
    for one in found.remote:
        assert one.calls - 2 <= one.joined > 3  # the profiles cut off some at either end
        assert one.step_ns is not None
        assert one.overhead_ns is not None
        assert 0 < one.step_ns < one.call_ns
        assert 0 < one.overhead_ns < one.call_ns


def test_a_coordinators_calls_are_no_steps() -> None:
    judged = recorded(SERVERS)(programs).judged
    profile = recorded(SERVERS).evidence.profile
    assert judged is not None
    assert profile is not None
    assert {host_of_thread(profile.runs[run].thread) for run in judged.runs} == {1, 2}
    assert [row.host for row in replicas_of(SERVERS).replicas] == list(profile.hosts[1:])


def test_a_step_without_replicas_has_none() -> None:
    facts = Facts(sketch("x = _Arg() float32[64]\na = Relu(x) float32[64] 10us"))
    assert facts(replicas) is None


def test_one_worker_alone_tells_its_exchanges_by_its_own_steps() -> None:
    """A single profile does not tell who else took part: the least over steps bounds the cost."""
    text = "replicas\nx = _Arg() float32[64]\na = Relu(x) float32[64] 10us\nr = CollectiveReduceV2(a) float32[64] 40us"
    found = Facts(sketch(text))(replicas)
    assert found is not None
    assert (found.least_of, len(found.replicas)) == ("steps", 1)
    assert (found.exposed_ns, found.waiting_ns) == (40_000, 0)


# -- sets of instants ---------------------------------------------------------------------------------------------


def instants(intervals: list[tuple[int, int]]) -> Instants:
    table = np.array(intervals, np.int64).reshape(-1, 2)
    return Instants.of(table[:, 0], table[:, 1])


def moments(intervals: list[tuple[int, int]]) -> set[int]:
    return {moment for start, end in intervals for moment in range(start, end)}


def as_set(found: Instants) -> set[int]:
    return moments(list(zip(found.start_ns.tolist(), found.end_ns.tolist(), strict=True)))


@pytest.mark.parametrize("seed", range(20))
def test_sets_of_instants_are_as_sets_of_moments(seed: int) -> None:
    rng = random.Random(seed)
    one, other = (
        [(start, start + rng.randrange(9)) for start in (rng.randrange(60) for _ in range(rng.randrange(9)))]
        for _ in range(2)
    )
    left, right = instants(one), instants(other)
    assert as_set(left) == moments(one)
    assert as_set(left.within(right)) == moments(one) & moments(other)
    assert as_set(left.without(right)) == moments(one) - moments(other)
    since, until = np.array([0, 10, 35]), np.array([10, 35, 80])
    lengths = [len(moments(one) & set(range(*window))) for window in zip(since, until, strict=True)]
    assert left.lengths_ns(since, until).tolist() == lengths
    assert all(left.start_ns[1:] > left.end_ns[:-1])


def test_a_collective_whose_number_is_none_is_no_exchange():
    plane = HostPlane()
    plane.event("CollectiveReduceV2:CollectiveReduceV2", 10, 20, instance_key="no number", group_key=1)
    plane.event("CollectiveReduceV2:CollectiveReduceV2", 30, 40, instance_key=7, group_key=1)
    assert [one.instance for one in plane.read().collectives] == [7]


def test_a_collective_lasts_for_as_long_as_the_waits_around_its_beginning_whatever_their_order():
    drawn = random.Random(7)

    def waits() -> list[Span]:
        starts = [drawn.randrange(40) for _ in range(drawn.randrange(12))]
        return [Span("n:Op", start, start + drawn.randrange(-3, 15), 0, step_id=5) for start in starts]

    for reached in (waits() for _ in range(300)):
        executed = [Executed("n", "Op", at, at + 2, 0, {"step_id": 5, "instance_key": 1}) for at in range(0, 60, 3)]
        for one, begun in zip(collectives_of(executed, reached, lambda *_: 0), executed, strict=True):
            around = [wait for wait in reached if wait.start_ns <= begun.start_ns <= wait.end_ns] or [begun]
            assert one.start_ns == min(wait.start_ns for wait in around)
            assert one.end_ns == max(wait.end_ns for wait in around)


def test_collectives_that_are_all_alike_as_in_a_damaged_profile_are_each_looked_up():
    def read(count: int) -> None:
        executed = [Executed("n", "Op", 50, 60, 0, {"instance_key": 1})] * count
        assert len(list(collectives_of(executed, [Span("n:Op", 0, 100, 0)] * count, lambda *_: 0))) == count

    assert what_grows_faster(lines_of(lambda: read(500)), lines_of(lambda: read(1000))) == {}
