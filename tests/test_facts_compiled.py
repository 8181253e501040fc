"""Compiled functions in the executed graph: instructions per call, their FLOPs, and what they stand for.

FLOPs are counted by hand from the shapes in the text.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.flat.executed import is_module_of
from graphlens.facts.graphs import executed_graph, judged_graph, origins
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time import compiled
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.ledger import ledger
from graphlens.facts.time.paths import critical_path
from graphlens.facts.time.quality import quality
from graphlens.facts.work.costs import cost_of
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph
from graphlens.ir.nodes import Call, Op
from graphlens.ir.run import KernelEvent, OpEvent, Profile, Run, Span
from graphlens.loaders.hlo import read_hlo
from graphlens.testing.sketch import sketch

MODULE = "a_inference_f_68__.1"

TEXT = """HloModule a_inference_f_68__.1, is_scheduled=true

%add_f32 (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%fused_elementwise (p.0: f32[8,16]) -> f32[8,16] {
  %p.0 = f32[8,16]{1,0} parameter(0)
  %half = f32[] constant(0.5), @Mul/scaled
  %halves = f32[8,16]{1,0} broadcast(%half), dimensions={}, @Mul/scaled
  %scaled = f32[8,16]{1,0} multiply(%p.0, %halves), @Mul/scaled
  %exp = f32[8,16]{1,0} exponential(%scaled), @Softmax/soft
  ROOT %less = f32[8,16]{1,0} subtract(%exp, %scaled), @Softmax/soft
}

%fused_dot (p.1: f32[8,4], p.2: f32[4,16]) -> f32[8,16] {
  %p.1 = f32[8,4]{1,0} parameter(0)
  %p.2 = f32[4,16]{1,0} parameter(1)
  %product = f32[8,16]{1,0} dot(%p.1, %p.2), lhs_contracting_dims={1}, rhs_contracting_dims={0}, @MatMul/MatMul
  ROOT %positive = f32[8,16]{1,0} negate(%product), @Neg/Neg
}

%fused_sort (p.3: f32[8]) -> f32[8] {
  %p.3 = f32[8]{0} parameter(0)
  ROOT %sorted = f32[8]{0} sort(%p.3), dimensions={0}, to_apply=%add_f32
}

%called (p.4: f32[8]) -> f32[8] {
  %p.4 = f32[8]{0} parameter(0)
  ROOT %inner = f32[8]{0} sqrt(%p.4)
}

ENTRY %main (arg0.1: f32[8,4], arg1.1: f32[4,16], x: f32[2,10,10,12]) -> f32[8] {
  %arg0.1 = f32[8,4]{1,0} parameter(0)
  %arg1.1 = f32[4,16]{1,0} parameter(1)
  %x = f32[2,10,10,12]{3,2,1,0} parameter(2)
  %w = f32[3,3,4,24]{3,2,1,0} constant({...})
  %conv.1 = f32[2,8,8,24] convolution(%x, %w), window={size=3x3}, dim_labels=b01f_01io->b01f, feature_group_count=3
  %pooled = f32[2,4,4,24] reduce-window(%conv.1, %zero), window={size=1x2x2x1}, to_apply=%add_f32, @AvgPool/pool
  %dot.2 = f32[8,16]{1,0} fusion(%arg0.1, %arg1.1), kind=kCustom, calls=%fused_dot, @Neg/Neg
  %fusion.3 = f32[8,16]{1,0} fusion(%dot.2), kind=kLoop, calls=%fused_elementwise, @Softmax/soft
  %zero = f32[] constant(0)
  %reduce.4 = f32[8]{0} reduce(%fusion.3, %zero), dimensions={1}, to_apply=%add_f32, @Sum/Sum
  %copy.5 = f32[8]{0} copy(%reduce.4), @Sum/Sum
  %sort.6 = f32[8]{0} fusion(%copy.5), kind=kLoop, calls=%fused_sort
  ROOT %call.7 = f32[8]{0} call(%sort.6), to_apply=%called
}
"""
HLO = re.sub(r"@(\w+)/(\w+)", r'metadata={op_type="\1" op_name="\2"}', TEXT)

WRITTEN = """
    executed:
        x = _Arg() float32[8,4]
        a/call = StatefulPartitionedCall(x) float32[8] not-seen
        between = Relu(a/call) float32[8] 10us
        b/call = StatefulPartitionedCall(between) float32[8] not-seen
        y = Tanh(b/call) float32[8] 10us
    traced:
        x = Placeholder() float32[8,4]
        a/call/MatMul = MatMul(x) float32[8]
        between = Relu(a/call/MatMul) float32[8]
        b/call/MatMul = MatMul(between) float32[8]
        y = Tanh(b/call/MatMul) float32[8]
"""


def evidence(function: str = "__inference_f_68") -> Evidence:
    """Two calls of one compiled function, with another op between them and one after."""
    told = sketch(WRITTEN)
    calls = {name: compiled_call(told.executed.main.graph.op(name), function) for name in ("a/call", "b/call")}
    _, module = read_hlo(HLO)
    return with_ops(replace(told, hlo={MODULE: module}, profile=profile(), unprofiled_ns=()), calls)


def compiled_call(op: Op, function: str) -> Op:
    return replace(op, attrs={**op.attrs, "_XlaMustCompile": True}, calls=(Call("call", function),))


def with_ops(told: Evidence, ops: dict[str, Op]) -> Evidence:
    main = replace(told.executed.main, graph=told.executed.main.graph.with_ops(ops))
    return replace(told, executed=replace(told.executed, functions={**told.executed.functions, "": main}))


def profile(call: bool = True) -> Profile:
    """A step of 100 us, in which each call runs a product for 30 us and nothing else."""

    def thunk(name: str, start_us: int) -> KernelEvent:
        called = name if call else ""
        return KernelEvent("dot.2", "dot.2", MODULE, start_us * 1000, (start_us + 30) * 1000, 1, call=called)

    ops = [
        OpEvent("between", "Relu", 40_000, 50_000, 10_000, 1),
        OpEvent("y", "Tanh", 85_000, 95_000, 10_000, 1),
    ]
    spans = [Span("a/call", 2_000, 38_000, 1), Span("b/call", 52_000, 84_000, 1)]
    return Profile(
        ops=tuple(ops),
        steps=(Span("step", 0, 100_000, 1),),
        executors=(Span("ExecutorState::Process", 0, 100_000, 1),),
        kernels=(thunk("a/call", 5), thunk("b/call", 53)),
        executions=tuple(spans),
    )


@pytest.fixture(scope="module")
def facts() -> Facts:
    return Facts(evidence())


def test_every_call_has_instructions_of_its_own_with_a_kernel_each(facts):
    timed = {row.name: (row.self_ns, row.calls_per_step) for row in facts(op_rows) if row.timing == "kernel"}
    assert timed == {"a/call/dot.2": (30_000, 1.0), "b/call/dot.2": (30_000, 1.0)}


def test_each_instruction_is_joined_to_the_function_that_its_own_call_runs(facts):
    assert facts(origins)["a/call/dot.2"] == ("a/call/MatMul",)
    assert facts(origins)["b/call/dot.2"] == ("b/call/MatMul",)
    assert facts(quality).join_rate == 1.0


def test_a_call_has_no_time_of_its_own(facts):
    rows = {row.name: row for row in facts(op_rows)}
    assert [rows[name].self_ns for name in ("a/call", "b/call")] == [None, None]
    assert rows["a/call"].executed_as == "StatefulPartitionedCall (XLA)"
    assert rows["a/call/dot.2"].executed_as == "XLA fusion"


def test_the_time_of_an_executable_goes_to_its_instructions_and_the_rest_of_it_to_the_executor(facts):
    assert {row.category: row.ns for row in facts(ledger) if row.kind == "op"} == {
        "matmul": 60_000,
        "elementwise and other": 20_000,
    }
    assert [row.ns for row in facts(ledger) if row.kind == "overhead"] == [20_000]


def test_the_critical_path_leads_through_the_instructions(facts):
    assert facts(critical_path).ops == ("a/call/dot.2", "between", "b/call/dot.2", "y")
    assert facts(critical_path).ns == 80_000


def test_a_reader_is_told_what_is_compiled(facts):
    assert "compiled by XLA, and timed by their instructions: f (2 calls, 60 % of the step)" in facts(quality).notes


def test_the_replays_time_of_a_call_is_that_of_what_it_calls(facts):
    """A replay runs the call as a whole: its time would be counted beside that of the kernels."""
    from graphlens.ir.run import ReplayRecord

    replay = {name: ReplayRecord(name, 1, (6_800_000,)) for name in ("a/call", "between")}
    rows = {row.name: row for row in Facts(replace(evidence(), replay=replay))(op_rows)}
    assert rows["a/call"].self_ns is None
    assert max(row.self_ns or 0 for row in rows.values()) <= 100_000


def test_a_module_whose_thunks_say_no_call_is_joined_where_it_is_called_once():
    told = with_ops(evidence(), {"b/call": Op("b/call", "Identity")})
    facts = Facts(replace(told, profile=profile(call=False)))
    assert facts(timings).get("a/call/dot.2").calls_per_step == 2.0
    both = Facts(replace(evidence(), profile=profile(call=False)))
    assert both(timings).get("a/call/dot.2") is None
    assert both(timings).get("b/call/dot.2") is None


def test_a_module_that_nobody_is_known_to_call_is_joined_to_no_op():
    facts = Facts(replace(evidence("__inference_other_9"), profile=profile(call=False)))
    assert facts(origins)[f"{MODULE}/dot.2"] == ()
    assert facts(timings).get(f"{MODULE}/dot.2").calls_per_step == 2.0


def test_the_call_that_the_profile_saw_is_believed_where_names_say_nothing():
    facts = Facts(evidence("cluster_0"))
    assert facts(origins)["a/call/dot.2"] == ("a/call/MatMul",)


def test_a_function_that_ran_for_several_shapes_has_the_modules_that_ran_and_not_the_recorded_one_beside_them():
    told = evidence()
    first, second = told.profile.kernels
    ran = (first._replace(hlo_module=f"{MODULE}(0)"), second._replace(hlo_module=f"{MODULE}(1)"))
    modules = {kernel.hlo_module: told.hlo[MODULE] for kernel in ran}
    facts = Facts(replace(told, profile=replace(told.profile, kernels=ran, modules=modules)))
    instructions = [name for name, op in facts(executed_graph).items() if op.attrs.get("hlo_instruction") == "dot.2"]
    assert sorted(instructions) == ["a/call/dot.2", "b/call/dot.2"]


def test_what_another_program_ran_is_not_in_the_graph_of_this_one():
    told = evidence()
    other = "a_inference_g_9__.1"
    thunk = told.profile.kernels[0]._replace(hlo_module=other, run=1)
    shown = replace(
        told.profile,
        kernels=(*(kernel._replace(run=0) for kernel in told.profile.kernels), thunk),
        modules={other: told.hlo[MODULE]},
        runs=(Run("__inference_step_1", 0, 100_000, 1), Run("__inference_test_2", 0, 90_000, 2)),
        steps=(),
    )
    facts = Facts(replace(told, profile=shown))
    assert "a/call/dot.2" in facts(executed_graph)
    assert not [name for name in facts(executed_graph) if other in name]


def test_the_part_that_a_called_computation_runs_is_the_calls():
    told = evidence()
    kernel = told.profile.kernels[0]._replace(hlo_op="inner")
    facts = Facts(replace(told, profile=replace(told.profile, kernels=(kernel,))))
    assert facts(timings).get("a/call/call.7").self_ns == 30_000


@pytest.mark.parametrize(
    ("instruction", "flops"),
    [
        ("conv.1", 2 * (2 * 8 * 8 * 24) * (3 * 3 * 4)),
        ("pooled", (2 * 4 * 4 * 24) * (2 * 2)),
        ("dot.2", 2 * (8 * 16) * 4 + 8 * 16),
        ("fusion.3", 3 * (8 * 16)),
        ("reduce.4", 8 * 16),
        ("copy.5", 0),
        ("sort.6", None),
        ("call.7", 8),
        ("arg0.1", 0),
    ],
)
def test_flops_come_from_the_shapes_of_the_instruction(facts, instruction, flops):
    assert cost_of(facts(judged_graph), f"a/call/{instruction}").flops == flops


@pytest.mark.parametrize(
    ("instruction", "category"),
    [
        ("conv.1", "convolution"),
        ("pooled", "pooling"),
        ("dot.2", "matmul"),
        ("fusion.3", "softmax"),
        ("reduce.4", "reduction"),
        ("copy.5", "data-movement"),
    ],
)
def test_an_instruction_is_booked_under_the_op_that_most_of_its_work_is_of(facts, instruction, category):
    (row,) = (row for row in facts(op_rows) if row.name == f"a/call/{instruction}")
    assert row.category == category


@pytest.mark.parametrize(
    ("module", "function", "is_its"),
    [
        ("a_inference_f_68__.1", "__inference_f_68", True),
        ("a_inference_f_68__XlaMustCompile_true_config_proto_1__.1", "__inference_f_68", True),
        ("a_inference_f_68__.1", "__inference_f_6", False),
        ("a_inference_f_6__.1", "__inference_f_68", False),
        ("cluster_1__XlaCompiledKernel_true__.24", "cluster_1", True),
    ],
)
def test_modules_are_called_after_their_functions(module, function, is_its):
    assert is_module_of(module, function) is is_its


def test_a_profile_alone_says_what_its_instructions_are_by_the_modules_it_holds():
    _, module = read_hlo(HLO)
    alone = Evidence(sketch(WRITTEN).target, profile=replace(profile(), modules={MODULE: module}), profile_path="p")
    rows = {row.name: row for row in Facts(alone)(op_rows)}
    assert (rows["a/call/dot.2"].op, rows["a/call/dot.2"].category) == ("MatMul", "matmul")


def test_a_profile_of_another_run_is_joined_to_the_op_as_written_by_its_modules():
    _, module = read_hlo(HLO)
    told = Evidence(sketch(WRITTEN).target, traced=sketch(WRITTEN).traced, profile_path="p")
    facts = Facts(replace(told, profile=replace(profile(), modules={MODULE: module})))
    assert (
        facts(timings).get("a/call/MatMul") is None
    )  # the fusion is named after its last op, which this graph has not
    assert facts(timings).get("a/call/dot.2").self_ns == 30_000
    renamed = re.sub('(calls=%fused_dot.*?op_name=)"Neg"', r'\1"MatMul"', HLO)
    facts = Facts(replace(told, profile=replace(profile(), modules={MODULE: read_hlo(renamed)[1]})))
    assert facts(timings).get("a/call/MatMul").self_ns == 30_000


def test_without_modules_the_names_of_instructions_tell_what_they_can():
    alone = Evidence(sketch(WRITTEN).target, profile=profile(), profile_path="p")
    (row,) = (row for row in Facts(alone)(op_rows) if row.name == "a/call/dot.2")
    assert row.category == "matmul"


def test_functions_are_called_by_their_own_names(facts):
    (one,) = facts(compiled.compiled_functions)
    assert (one.function, one.calls) == ("f", ("a/call", "b/call"))
    assert one.share == pytest.approx(0.6)


def test_a_graph_is_compiled_as_a_whole_where_there_is_no_other():
    told = Evidence(sketch("x = Const()").target, traced=sketch("x = Placeholder()\nMatMul = MatMul(x)").traced)
    facts = Facts(replace(told, hlo={MODULE: read_hlo(HLO)[1]}))
    assert isinstance(told.traced, Graph)
    assert facts(origins)[f"{MODULE}/dot.2"] == ("MatMul",)
