"""Phases and layers of a step that XLA compiled: its instructions are joined to the ops that they were made of."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.flat.instruction_origins import Origins
from graphlens.facts.graphs import origins
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.training.executed import layer_of_op
from graphlens.facts.training.shares import training
from graphlens.ir.evidence import Evidence
from graphlens.ir.nodes import Call
from graphlens.ir.run import KernelEvent, Profile, Span
from graphlens.ir.training import LayerScope
from graphlens.loaders.hlo import read_hlo
from graphlens.testing.sketch import sketch

MODULE = "a_inference_step_9__.1"
LAYERS = {"net_1/fc_1": LayerScope("net/fc", "Dense", "train.py:7"), "net_1/fc_1_2": LayerScope("net/fc_1", "Dense")}

# Two layers of which the first ends in a Tanh, a loss, their gradients, and the first one's update by SGD.
WRITTEN = """
    executed:
        x = _Arg() float32[8,4]
        call = StatefulPartitionedCall(x) float32[] not-seen
    traced:
        x = Placeholder() float32[8,4]
        call/net_1/fc_1/Read/ReadVariableOp = ReadVariableOp(first) float32[4,16]
        call/net_1/fc_1/MatMul = MatMul(x, call/net_1/fc_1/Read/ReadVariableOp) float32[8,16]
        call/net_1/fc_1/Tanh = Tanh(call/net_1/fc_1/MatMul) float32[8,16]
        call/net_1/fc_1_2/Read/ReadVariableOp = ReadVariableOp(second) float32[16]
        call/net_1/fc_1_2/Mul = Mul(call/net_1/fc_1/Tanh, call/net_1/fc_1_2/Read/ReadVariableOp) float32[8,16]
        call/axes = Const() int32[2] = 0,1
        call/loss = Sum(call/net_1/fc_1_2/Mul, call/axes) float32[]
        call/ones = Const() float32[] = 1
        call/gradient_tape/Tile = Tile(call/ones, call/axes) float32[8,16]
        call/gradient_tape/net_1/fc_1_2/Mul/Mul = Mul(call/gradient_tape/Tile, call/net_1/fc_1_2/Read/ReadVariableOp)
        call/gradient_tape/net_1/fc_1/TanhGrad = TanhGrad(call/net_1/fc_1/Tanh, call/gradient_tape/net_1/fc_1_2/Mul/Mul)
        call/gradient_tape/net_1/fc_1/MatMul/MatMul = MatMul(x, call/gradient_tape/net_1/fc_1/TanhGrad) float32[4,16]
        call/rate = Const() float32[] = 0.1
        call/sgd/mul = Mul(call/gradient_tape/net_1/fc_1/MatMul/MatMul, call/rate) float32[4,16]
        call/sgd/AssignSubVariableOp = AssignSubVariableOp(first, call/sgd/mul)
"""

# The gradient of the kernel has lost its name, which its transpose in the fusion of the update still has.
HLO = """HloModule a_inference_step_9__.1

%fused_forward (p.0: f32[8,16], p.1: f32[16]) -> f32[8,16] {
  %p.0 = f32[8,16] parameter(0)
  %p.1 = f32[16] parameter(1)
  %tanh.1 = f32[8,16] tanh(%p.0), @net_1/fc_1/Tanh
  %spread = f32[8,16] broadcast(%p.1), dimensions={1}, @net_1/fc_1_2/Mul
  %first = f32[8,16] multiply(%tanh.1, %spread), @net_1/fc_1_2/Mul
  %twice = f32[8,16] add(%first, %first), @net_1/fc_1_2/Mul
  ROOT %again = f32[8,16] add(%twice, %first), @net_1/fc_1_2/Mul
}

%fused_update (p.2: f32[16,4], p.3: f32[4,16]) -> f32[4,16] {
  %p.2 = f32[16,4] parameter(0)
  %p.3 = f32[4,16] parameter(1)
  %turned = f32[4,16] transpose(%p.2), dimensions={1,0}, @gradient_tape/net_1/fc_1/MatMul/MatMul
  %scaled = f32[4,16] multiply(%turned, %turned), @sgd/mul
  ROOT %less = f32[4,16] subtract(%p.3, %scaled), @sgd/AssignSubVariableOp
}

ENTRY %main (arg0.1: f32[8,4], arg1.1: f32[4,16], arg2.1: f32[16]) -> f32[4,16] {
  %arg0.1 = f32[8,4] parameter(0)
  %arg1.1 = f32[4,16] parameter(1)
  %arg2.1 = f32[16] parameter(2)
  %dot.1 = f32[8,16] dot(%arg0.1, %arg1.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}, @net_1/fc_1/MatMul
  %fusion.2 = f32[8,16] fusion(%dot.1, %arg2.1), kind=kLoop, calls=%fused_forward, @net_1/fc_1_2/Mul
  %copy.3 = f32[8,16] copy(%fusion.2)
  %dot.4 = f32[16,4] dot(%copy.3, %arg0.1), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  ROOT %fusion.5 = f32[4,16] fusion(%dot.4, %arg1.1), kind=kLoop, calls=%fused_update, @sgd/AssignSubVariableOp
}
"""
TIMES_US = {"dot.1": 40, "fusion.2": 20, "copy.3": 3, "dot.4": 25, "fusion.5": 10}


def evidence() -> Evidence:
    told = sketch(WRITTEN)
    graph = told.executed.main.graph
    op = graph.op("call")
    called = replace(op, attrs={**op.attrs, "_XlaMustCompile": True}, calls=(Call("call", "__inference_step_9"),))
    main = replace(told.executed.main, graph=graph.with_ops({"call": called}))
    _, module = read_hlo(re.sub(r"@([\w/]+)", r'metadata={op_name="\1"}', HLO))
    return replace(
        told,
        executed=replace(told.executed, functions={**told.executed.functions, "": main}),
        hlo={MODULE: module},
        profile=profile(),
        unprofiled_ns=(),
        scopes=LAYERS,
        training=None,
    )


def profile() -> Profile:
    kernels, now_ns = [], 1_000
    for name, us in TIMES_US.items():
        kernels.append(KernelEvent(name, name, MODULE, now_ns, now_ns + us * 1000, 1, call="call"))
        now_ns += us * 1000
    return Profile(
        steps=(Span("step", 0, 100_000, 1),),
        executors=(Span("ExecutorState::Process", 0, 100_000, 1),),
        kernels=tuple(kernels),
        executions=(Span("call", 1_000, now_ns, 1),),
    )


@pytest.fixture(scope="module")
def facts() -> Facts:
    return Facts(evidence())


def test_phases_sum_to_the_time_of_the_instructions(facts: Facts) -> None:
    found = facts(training)
    assert sum(row.ns for row in found.phases) == found.op_ns == 98_000
    assert found.given_share == 1.0


def test_a_fusion_of_two_layers_is_divided_as_its_operations_are(facts: Facts) -> None:
    """One operation in four of the forward fusion is the first layer's; a copy is whose its value is next."""
    found = facts(training)
    layers = {row.layer: row.phases_ns for row in found.layers}
    assert layers["net/fc_1"] == {"forward": 15_000}
    assert layers["net/fc"] == {"forward": 40_000 + 5_000, "backward": 25_000 + 3_000}
    assert {row.phase: row.ns for row in found.phases}["optimizer"] == 10_000
    assert found.divided_share == pytest.approx(20 / 98)


def test_an_instruction_without_a_name_is_the_op_that_its_value_is_called_next(facts: Facts) -> None:
    assert facts(origins)["call/dot.4"] == ("call/gradient_tape/net_1/fc_1/MatMul/MatMul",)


def test_a_layer_has_one_name_wherever_it_is_told(facts: Facts) -> None:
    """Its ops stand in the scope `fc_1`, which is the name of another layer."""
    rows = {row.name: row.layer for row in facts(op_rows)}
    for name in ("call/dot.1", "call/dot.4", "call/copy.3"):
        assert layer_of_op(facts, name) == rows[name] == "net/fc"
    assert layer_of_op(facts, "call/net_1/fc_1/Tanh", "traced") == "net/fc"


def test_a_gradient_is_of_the_line_of_its_forward_op(facts: Facts) -> None:
    rows = {row.name: row for row in facts(op_rows)}
    assert rows["call/dot.4"].forward == "call/dot.1"
    assert rows["call/dot.4"].source == rows["call/dot.1"].source == "train.py:7", "where its layer was made"
    assert rows["call/fusion.5"].source is None, "that is the optimizer's"


def test_ops_in_the_body_of_a_loop_are_known_by_their_names_in_there() -> None:
    told = evidence()
    written = sketch(
        """
        call/net_1/loop = While(x) {body: looped, cond: decides} not-seen
        x = Placeholder() float32[8,4]
        function looped:
            a = _Arg() float32[8,4]
            net_1/loop/MatMul = MatMul(a, a)
            r = _Retval(net_1/loop/MatMul)
        function decides:
            b = _Arg() float32[8,4]
            s = _Retval(b)
        """
    )
    _, module = read_hlo(re.sub(r"@([\w/]+)", r'metadata={op_name="\1"}', HLO.replace("fc_1/MatMul", "loop/MatMul")))
    found = Facts(replace(told, traced=written.executed, hlo={MODULE: module}))(origins)
    assert found["call/dot.1"] == ("call/net_1/loop/body/net_1/loop/MatMul",)


def test_what_xla_puts_into_a_loop_belongs_to_the_loop() -> None:
    """The copy of its state hands on what several ops read: no single one of them."""
    _, module = read_hlo(
        """\
HloModule looped

%body (state.1: (f32[8,4])) -> (f32[8,4]) {
  %state.1 = (f32[8,4]) parameter(0)
  %gte.1 = f32[8,4] get-tuple-element((f32[8,4]) %state.1), index=0
  %copy.1 = f32[8,4] copy(f32[8,4] %gte.1)
  %exp.1 = f32[8,4] exponential(f32[8,4] %copy.1), metadata={op_name="net/loop/Exp"}
  %tanh.1 = f32[8,4] tanh(f32[8,4] %copy.1), metadata={op_name="net/loop/Tanh"}
  %add.1 = f32[8,4] add(f32[8,4] %exp.1, f32[8,4] %tanh.1), metadata={op_name="net/loop/add"}
  ROOT %tuple.1 = (f32[8,4]) tuple(f32[8,4] %add.1)
}

%condition (state.2: (f32[8,4])) -> pred[] {
  %state.2 = (f32[8,4]) parameter(0)
  ROOT %going.1 = pred[] constant(true)
}

ENTRY %main (x.1: f32[8,4]) -> (f32[8,4]) {
  %x.1 = f32[8,4] parameter(0)
  %copy.2 = f32[8,4] copy(f32[8,4] %x.1)
  %tuple.2 = (f32[8,4]) tuple(f32[8,4] %copy.2)
  ROOT %while.1 = (f32[8,4]) while((f32[8,4]) %tuple.2), condition=%condition, body=%body, metadata={op_name="net/loop"}
}
"""
    )
    found, body = Origins(module), module.functions["body"].graph
    assert found.of(body.op("copy.1")) == ("net/loop",)
    assert found.operations(body.op("copy.1")) == {"net/loop": 1}, "and so do its layer and its phase"
    assert found.of(body.op("exp.1")) == ("net/loop/Exp",)
    assert found.of(body.op("gte.1")) == ()
    assert found.of(module.functions[module.root].graph.op("copy.2")) == ("net/loop",), "called after what reads it"
