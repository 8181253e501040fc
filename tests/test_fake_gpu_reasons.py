"""Copies that ran on the fake GPU: every memcpy of its profile is tied to a send and receive, with a reason."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from fake_gpu.run import PROFILED_STEPS, Run

from graphlens.facts.copies.transfers import copies
from graphlens.facts.core import Facts
from graphlens.ir.analysis import Target
from graphlens.ir.devices import Copy
from graphlens.ir.evidence import Evidence
from graphlens.loaders.graphdef import build_graph
from graphlens.loaders.partitions import merge_partitions
from graphlens.loaders.schema import xspace
from graphlens.loaders.xplane import read_profile

pytestmark = pytest.mark.tf

INFERENCE = (
    "cnn lookup integers loop transformer transformer_static vectorization detection recurrent explicit_devices ragged "
    "state python_op train_step"
).split()
AS_WRITTEN = "initial"  # the dump of a function before anything was placed
OVER_THE_BUS = ("host-to-device", "device-to-host")


@pytest.fixture(scope="module")
def copies_of(on_fake_gpu: dict[str, Run]):
    """Judge a model's partitions and profile; each once."""

    @cache
    def copies_of_model(name: str) -> tuple[Copy, ...]:
        run = on_fake_gpu[name]
        evidence = Evidence(
            Target(name, "run"),
            {"tensorflow": "2.21.0"},
            traced=build_graph(run.graph(AS_WRITTEN)),
            executed=merge_partitions(list(run.partitions().values())),
            profile=read_profile(run.profile.read_bytes()),
        )
        return Facts(evidence)(copies)

    return copies_of_model


def raw_events(run: Run) -> Counter[str]:
    """Count the memcpy events of a profile by name, straight from the protobuf."""
    planes = xspace().FromString(run.profile.read_bytes()).planes
    names = (
        plane.event_metadata[event.metadata_id].name
        for plane in planes
        for line in plane.lines
        for event in line.events
    )
    return Counter(name for name in names if name.startswith("Memcpy"))


@pytest.mark.parametrize("name", INFERENCE)
def test_every_memcpy_is_accounted_for(copies_of, on_fake_gpu: dict[str, Run], name: str) -> None:
    raw = raw_events(on_fake_gpu[name])
    counted = Counter()
    for copy in copies_of(name):
        counted[copy.kind] += copy.events
    assert +counted == +Counter(
        {
            "host-to-device": raw["MemcpyH2D"],
            "device-to-host": raw["MemcpyD2H"],
            "device-to-device": raw["MemcpyD2D"],
        }
    )


@pytest.mark.parametrize("name", INFERENCE)
def test_every_send_between_memories_has_its_memcpys(copies_of, name: str) -> None:
    """As many as the tensor was sent: once a step, or once in each iteration of each step."""
    for copy in copies_of(name):
        if copy.tensor and copy.kind in OVER_THE_BUS:
            assert copy.events, copy
            assert copy.events % PROFILED_STEPS == 0, copy
        elif copy.tensor:
            assert copy.events == 0, copy


@pytest.mark.parametrize("name", INFERENCE)
def test_what_belongs_to_no_send_is_a_fetch_or_an_ops_own_code(
    copies_of, on_fake_gpu: dict[str, Run], name: str
) -> None:
    alone = [copy for copy in copies_of(name) if not copy.tensor and copy.kind != "control"]
    fetched = sum(copy.events for copy in alone if copy.kind == "device-to-host")
    assert fetched <= on_fake_gpu[name].report["fetches"] * PROFILED_STEPS
    assert all(copy.kind in ("device-to-host", "device-to-device") for copy in alone)


@pytest.mark.parametrize("name", INFERENCE)
def test_every_send_between_memories_has_a_reason(copies_of, name: str) -> None:
    unexplained = [copy for copy in copies_of(name) if copy.tensor and copy.kind in OVER_THE_BUS and not copy.reason]
    # The program created this variable on the host; the function that reads it does not say so.
    assert {copy.src for copy in unexplained} <= {"matmul_1/ReadVariableOp"}, unexplained


REASONS = {
    "lookup": {"string/resource op": 2, "int32/host-memory argument": 2},
    "python_op": {"Python op": 2},
    "transformer": {"shape arithmetic": 8, "int32/host-memory argument": 2, "constant on the host": 2, "feed": 1},
    "transformer_static": {"int32/host-memory argument": 2, "feed": 1},
    "detection": {"no kernel for this device and dtype": 5, "constant on the host": 1, "int32/host-memory argument": 3},
    "explicit_devices": {"explicit device": 5, "string/resource op": 1, "shape arithmetic": 1},
}


@pytest.mark.parametrize("name", REASONS)
def test_reasons_are_those_that_the_program_gives(copies_of, name: str) -> None:
    reasons = Counter(copy.reason for copy in copies_of(name) if copy.tensor and copy.kind in OVER_THE_BUS)
    del reasons[None]
    assert reasons == REASONS[name]
