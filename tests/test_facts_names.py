"""Names of a profile against graphs that it was not recorded with: never a guess, and never less than is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.flat.names import Names
from graphlens.facts.graphs import origins, traced_graph
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.quality import quality
from graphlens.ir.evidence import Evidence
from graphlens.ir.ops import TRANSFERS
from graphlens.loaders.capture import reading
from graphlens.testing.sketch import sketch

CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
# Compiled ones are left out: what an instruction of XLA belongs to stands in the compiled module alone.
WITH_ALL_GRAPHS = sorted(path.stem for path in CAPTURES.glob("*.capture") if not path.stem.startswith(("jit", "jax")))

WRITTEN = """
    x = Placeholder() float32[8]
    net/conv = Conv2D(x) float32[8]
    net/batchnorm/mul = Mul(net/conv) float32[8]
    net/add = AddV2(net/batchnorm/mul) float32[8]
    while/body/cell/MatMul = MatMul(net/add) float32[8]
    replica_1/own = Relu(x) float32[8]
"""


@cache
def names() -> Names:
    return Names(Facts(sketch(WRITTEN))(traced_graph), loosely=True)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("net/conv", "net/conv"),
        ("replica_3/net/conv", "net/conv"),
        ("gradient_tape/replica_3/net/conv", None),
        ("replica_1/own", "replica_1/own"),
        ("while/body/_1/cell/MatMul", "while/body/cell/MatMul"),
        ("replica_2/while/body/_17/cell/MatMul", "while/body/cell/MatMul"),
        ("net/batchnorm/ArithmeticOptimizer/HoistCommonFactor_mul", "net/batchnorm/mul"),
        ("net/conv-0-TransposeNHWCToNCHW-LayoutOptimizer", "net/conv"),
        ("another/conv", None),
        ("conv", "net/conv"),
    ],
)
def test_what_a_name_means_in_a_graph_that_was_not_executed(name, found):
    assert names().find(name, "Conv2D") == found


def test_a_transfer_is_not_the_op_whose_tensor_it_carries_but_belongs_to_the_graph():
    assert names().find("net/conv/_3", "_Recv") is None
    assert names().explains("net/conv/_3", "_Recv")
    assert not names().explains("elsewhere/_3", "_Recv")
    assert names().key("net/conv/_3", "_Recv") == "net/conv/_3"


def test_the_types_are_those_that_ran():
    names().key("net/add", "_FusedConv2D")
    assert names().types["net/add"] == "_FusedConv2D"


@cache
def recorded(name: str) -> Evidence:
    return reading.evidence_of(reading.open_capture(CAPTURES / f"{name}.capture"))


@pytest.mark.parametrize("name", WITH_ALL_GRAPHS)
def test_a_profile_joined_to_the_graph_as_written_gives_what_the_executed_graph_does(name):
    """The join through the executed graph and its origins is the oracle: another way to the same ops."""
    evidence = recorded(name)
    whole = Facts(evidence)
    without = replace(evidence, executed=None, profile_path="elsewhere", unprofiled_ns=(), replay={})
    found = Facts(without)(attribution).timings
    compared = 0
    for executed, timing in whole(attribution).timings.items():
        origin = whole(origins).get(executed)
        if origin and timing.source == "profile" and whole(attribution).op_types[executed] not in TRANSFERS:
            assert found[origin[-1]].self_ns == timing.self_ns, executed
            compared += 1
    assert compared >= 3
    assert Facts(without)(quality).join_rate == whole(quality).join_rate


def test_replicas_of_one_op_are_summed():
    evidence = recorded("tiny_cnn")
    ops = evidence.profile.ops
    twice = tuple(sorted((*ops, *(op._replace(node=f"replica_1/{op.node}") for op in ops)), key=lambda op: op.start_ns))
    alone = replace(evidence, executed=None, profile_path="elsewhere", unprofiled_ns=(), replay={})
    once = Facts(alone)(attribution).timings
    both = Facts(replace(alone, profile=replace(evidence.profile, ops=twice)))(attribution).timings
    assert set(both) == set(once)
    assert all(both[name].calls_per_step == 2 * timing.calls_per_step for name, timing in once.items())


def test_of_ops_that_differ_in_the_counters_of_lowering_alone_it_is_the_last_in_every_process():
    written = sketch("\n".join(f"while/body/_{number}/MatMul = MatMul()" for number in range(20)))
    assert Names(Facts(written)(traced_graph), loosely=True).find("while/body/_99/MatMul") == "while/body/_19/MatMul"
