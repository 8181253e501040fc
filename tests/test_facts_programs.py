"""Programs: which one is judged, what its steps are, and that a measurement which cannot be is not shown."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from graphlens.errors import UsageError
from graphlens.facts.clock.cycle import cycle_of
from graphlens.facts.core import Facts
from graphlens.facts.patterns.xla import blockers_of_step
from graphlens.facts.programs.judged_program import NO_FUNCTION, programs_of
from graphlens.facts.programs.program_names import base_name
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.paths import critical_path
from graphlens.facts.work.impossible import why_impossible
from graphlens.ir.analysis import Proof, Target
from graphlens.ir.document import to_json
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph
from graphlens.ir.inputs import InputRow
from graphlens.ir.program import Program
from graphlens.ir.run import SESSION, STEP_MARKER, OpEvent, Profile, Run, Span, Window
from graphlens.loaders.capture.reading import evidence_of, open_capture
from graphlens.pipeline.choosing import choose
from graphlens.pipeline.judge import judge
from graphlens.pipeline.proofs import made_up_told
from graphlens.testing.sketch import sketch

TRAIN, TEST = "__inference_multi_step_on_iterator_946", "__inference_multi_step_on_iterator_1183"
CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
MAP = "Iterator::Root::ParallelMapV2"


def op(node: str, run: int, start_ns: int, end_ns: int, thread: int = 7) -> OpEvent:
    return OpEvent(*node.split(":"), start_ns, end_ns, end_ns - start_ns, thread, run)  # type: ignore[call-arg,arg-type]


def recorded(*runs: Run, node: str = "a:MatMul", **more: object) -> Profile:
    """A profile of runs, each of which spends all its time in one op."""
    ops = tuple(op(node, number, run.start_ns, run.end_ns) for number, run in enumerate(runs))
    return Profile(**{"ops": ops, "runs": runs, **more})  # type: ignore[arg-type]


def steps(profile: Profile, wanted: str | None = None) -> list[tuple[int, int]]:
    judged = programs_of(profile, wanted).judged
    assert judged is not None
    return [(step.start_ns, step.end_ns) for step in judged.steps]


def trained_and_tested() -> Profile:
    """Two steps of training, one of validation, under one name in Python."""
    runs = (Run(TRAIN, 0, 40, 1), Run(TRAIN, 50, 90, 1), Run(TEST, 100, 110, 1))
    return Profile(
        ops=(
            op("gradient_tape/a:MatMul", 0, 0, 40),
            op("gradient_tape/a:MatMul", 1, 50, 90),
            op("a:MatMul", 2, 100, 110),
        ),
        runs=runs,
    )


# -- which program -------------------------------------------------------------------------------------------------


def test_training_and_validation_of_one_name_are_two_programs() -> None:
    found = programs_of(trained_and_tested()).all
    assert [(one.name, one.role, len(one.runs)) for one in found] == [(TRAIN, "step", 2), (TEST, "eval", 1)]


def test_the_program_with_most_time_is_judged_and_its_dataset_never_is() -> None:
    profile = recorded(Run(MAP, 0, 1000, 3), Run("__inference_f_1", 0, 100, 1), Run("__inference_g_2", 100, 300, 1))
    judged = programs_of(profile).judged
    assert judged is not None
    assert judged.name == "__inference_g_2"


def test_only_the_events_of_the_judged_program_are_left() -> None:
    profile = programs_of(trained_and_tested(), TEST).profile
    assert profile is not None
    assert [event.node for event in profile.ops] == ["a"]


def test_a_program_of_another_name_may_be_asked_for_by_a_part_of_it() -> None:
    assert steps(trained_and_tested(), "1183") == [(100, 110)]


def test_the_share_of_a_program_is_the_time_in_which_at_least_one_run_was_under_way() -> None:
    profile = recorded(
        Run("__inference_f_1", 0, 60, 1), Run("__inference_f_1", 30, 80, 2), Run("__inference_g_2", 80, 100, 1)
    )
    assert [one.share for one in programs_of(profile).all] == [0.8, 0.2]


def test_roles_are_told_by_name_and_by_what_ran() -> None:
    names = {
        "__inference_one_step_on_data_distributed_15": "predict",
        "__inference_signature_wrapper___call___69": "predict",
        "__inference_initialize_variables_3": "initialization",
        "__inference_my_step_3": "step",
        "__inference_one_step_on_data_10346": "eval",  # `test_on_batch`; that which predicts is never called by itself
        "Iterator::Root::Map": "dataset",
        "Iterator": "dataset",
        TEST: "eval",
    }
    for name, role in names.items():
        assert programs_of(recorded(Run(name, 0, 10, 1))).all[0].role == role, name
    trains = recorded(Run(TEST, 0, 10, 1), node="gradient_tape/a:Conv2DBackpropInput")
    assert programs_of(trains).all[0].role == "step"


def test_runs_without_a_name_are_of_one_program_when_they_run_the_same_ops() -> None:
    ops = [op(f"{scope}/{name}:Relu", run, 0, 10) for run, scope in enumerate("aab") for name in "xyz"]
    found = programs_of(Profile(ops=tuple(ops), runs=tuple(Run("", 10 * n, 10 * n + 9, 1) for n in range(3)))).all
    assert sorted(len(one.runs) for one in found) == [1, 2]


def test_what_a_session_fetches_for_different_ends_are_different_programs() -> None:
    """A session trains in one thread, and fills its queue in another."""
    runs = tuple(Run(SESSION, 10 * n, 10 * n + 9, n % 2) for n in range(6))
    ops = [op(f"{'enqueue' if n % 2 else name}:Op", n, 10 * n, 10 * n + 9) for n in range(6) for name in ("a", "b")]
    found = programs_of(Profile(ops=tuple(ops), runs=runs)).all
    assert [(one.name, len(one.runs)) for one in found] == [
        ("Session.run (2 ops, a among them)", 3),
        ("Session.run (1 ops, enqueue among them)", 3),
    ]
    unseen = Run(SESSION, 60, 69, 0)  # all that it ran was too cheap to be written down
    (alone,) = programs_of(Profile(ops=(op("a:Op", 0, 0, 9),), runs=(runs[0], unseen))).all
    assert (alone.name, len(alone.runs)) == (SESSION, 2)
    (alone,) = programs_of(Profile(ops=tuple(event for event in ops if not event.run % 2), runs=runs[:1])).all
    assert alone.name == SESSION


def test_a_name_in_python_has_neither_prefix_nor_number() -> None:
    assert [base_name(name) for name in (TRAIN, "Session.run")] == ["multi_step_on_iterator", "Session.run"]


# -- which steps ---------------------------------------------------------------------------------------------------


def test_runs_are_steps_but_for_those_that_traced_were_cut_off_or_found_the_end_of_the_data() -> None:
    profile = recorded(
        Run(TRAIN, 0, 90, 1, traced=True),
        Run(TRAIN, 100, 110, 1, elements=1),
        Run(TRAIN, 120, 121, 1, elements=0),
        Run("", 130, 140, 1, whole=False),
    )
    assert steps(profile) == [(100, 110)]
    (program,) = programs_of(profile).all
    assert (program.count, [trace.ns for trace in program.traces]) == (2, [90])


def test_the_only_call_is_a_step_although_it_was_traced() -> None:
    profile = recorded(Run(TRAIN, 0, 90, 1, traced=True))
    assert steps(profile) == [(0, 90)]
    assert programs_of(profile).notes == (
        "the call in which the function was traced or compiled (90 ns) counts as a step: no other was seen",
    )


def test_the_call_in_which_the_function_was_traced_is_told_apart() -> None:
    profile = recorded(Run(TRAIN, 0, 90, 1, traced=True), Run(TRAIN, 100, 110, 1))
    assert programs_of(profile).notes == (
        "the call in which the function was traced or compiled (90 ns) is told apart from the steps",
    )


def test_a_program_that_was_only_traced_gives_way_to_one_that_ran_again() -> None:
    retraced = recorded(Run("__inference_f_1", 0, 90, 1, traced=True), Run("__inference_f_2", 90, 99, 1))
    assert steps(retraced) == [(90, 99)]


def test_nothing_is_told_apart_from_steps_that_were_all_traced() -> None:
    (note,) = programs_of(recorded(Run(TRAIN, 0, 90, 1, traced=True))).notes
    assert "apart" not in note


def test_the_iterations_of_a_run_are_its_steps() -> None:
    loop = Run(TRAIN, 0, 100, 1, elements=2, iterations=(Window(10, 50), Window(50, 90)))
    assert steps(recorded(loop)) == [(10, 50), (50, 90)]


def test_of_a_loop_that_was_traced_the_first_iteration_alone_is_told_apart() -> None:
    loop = Run(TRAIN, 0, 100, 1, traced=True, elements=2, iterations=(Window(10, 50), Window(50, 90)))
    assert steps(recorded(loop)) == [(50, 90)]


def test_a_mark_around_a_call_is_the_step() -> None:
    marks = (Span("train", 0, 45, 1, 1), Span("train", 48, 95, 1, 2))
    assert steps(replace(trained_and_tested(), steps=marks)) == [(0, 45), (48, 95)]


def test_a_mark_around_several_steps_is_none() -> None:
    loop = Run(TRAIN, 5, 95, 1, elements=2, iterations=(Window(5, 50), Window(50, 95)))
    assert steps(recorded(loop, steps=(Span("Profiled batch", 0, 100, 1),))) == [(5, 50), (50, 95)]


def test_calls_that_are_marked_together_are_one_step() -> None:
    marks = (Span("train", 0, 95, 1, 1),)
    judged = programs_of(replace(trained_and_tested(), steps=marks)).judged
    assert judged is not None
    assert (len(judged.steps), judged.count) == (1, 1)


def test_of_marks_within_marks_those_that_hold_one_step_count() -> None:
    runs = [Run(TRAIN, 10 * n, 10 * n + 8, 1) for n in range(4)]
    inner = [Span("batch", 10 * n, 10 * n + 9, 1, n) for n in range(4)]
    epochs = [Span("epoch", 0, 20, 1, 0), Span("epoch", 20, 40, 1, 1)]
    assert steps(recorded(*runs, steps=(*inner, *epochs))) == [(0, 9), (10, 19), (20, 29), (30, 39)]


def test_a_mark_within_the_mark_of_one_step_is_a_part_of_it() -> None:
    parts = [Span("forward", 10 * n + 1, 10 * n + 5, 1, n) for n in range(2)]
    whole = [Span("train", 10 * n, 10 * n + 9, 1, n) for n in range(2)]
    runs = [Run(TRAIN, 10 * n + 2, 10 * n + 8, 1) for n in range(2)]
    assert steps(recorded(*runs, steps=(*parts, *whole))) == [(0, 9), (10, 19)]


def test_steps_of_validation_that_are_marked_under_another_name_are_none_of_training() -> None:
    runs = [Run("__inference_f_1", 10 * n, 10 * n + 8, 1) for n in range(4)]
    marks = [Span(f"{'train' if n < 3 else 'test'} {n}", 10 * n, 10 * n + 9, 1, n) for n in range(4)]
    assert steps(recorded(*runs, steps=tuple(marks))) == [(0, 9), (10, 19), (20, 29)]


def test_what_else_was_called_in_a_mark_is_part_of_the_step() -> None:
    runs = (Run("__inference_f_1", 0, 10, 1), Run("__inference_g_2", 10, 40, 1), Run(MAP, 0, 40, 3))
    kept = programs_of(recorded(*runs, steps=(Span("both", 0, 40, 1),))).profile
    assert kept is not None
    assert [event.run for event in kept.ops] == [0, 1]


def test_steps_that_graphlens_called_itself_are_what_it_marked() -> None:
    profile = recorded(Run(TRAIN, 5, 40, 1), steps=(Span(STEP_MARKER, 0, 50, 1),))
    assert programs_of(profile).profile is profile


def test_a_recording_in_which_no_function_was_called_has_no_program_to_judge() -> None:
    found = programs_of(recorded(Run(MAP, 0, 10, 3)))
    assert found.judged is None
    assert found.notes == (NO_FUNCTION,)
    analysis = judge(Evidence(Target("p", "xplane"), profile=recorded(Run(MAP, 0, 10, 3))))
    assert [row.role for row in analysis.document.programs] == ["dataset"]


def test_a_profile_without_runs_is_left_as_it_is() -> None:
    profile = Profile(ops=(OpEvent("a", "Relu", 0, 5, 5, 1),))
    assert programs_of(profile).profile is profile
    assert programs_of(None).profile is None


def test_overlapping_runs_of_two_threads_keep_their_own_ops() -> None:
    runs = (Run(TRAIN, 0, 100, 1), Run(TRAIN, 50, 150, 2))
    profile = Profile(ops=(op("a:MatMul", 0, 60, 90, 7), op("b:MatMul", 1, 70, 90, 8)), runs=runs)
    analysis = judge(Evidence(Target("p", "xplane"), profile=profile))
    step = analysis.step
    assert step is not None
    assert step.median_ns == 100
    assert sum(row.ns for row in analysis.ledger) == 100


def test_steps_of_several_threads_are_in_order_of_time() -> None:
    runs = (Run(TRAIN, 0, 10, 1), Run(TRAIN, 40, 50, 1), Run(TRAIN, 20, 30, 2))
    assert steps(recorded(*runs)) == [(0, 10), (20, 30), (40, 50)]


# -- cycles --------------------------------------------------------------------------------------------------------


def in_turn(*kinds: str, lengths_ns: dict[str, int]) -> tuple[list[Counter[str]], list[int]]:
    """Steps that run the ops of their kinds, letter by letter."""
    ran = [Counter(f"{kind}/{n}" for kind in (*step,) for n in range(5)) for step in kinds]
    return ran, [lengths_ns[step] for step in kinds]


def test_an_optimizer_in_every_fourth_step_makes_a_cycle() -> None:
    ran, lengths_ns = in_turn(*["f", "f", "f", "fo"] * 4, lengths_ns={"f": 100, "fo": 200})
    cycle = cycle_of(ran, lengths_ns)
    assert (cycle.length, cycle.mean_ns) == (4, 125)
    assert [(kind.count, kind.median_ns, kind.ops) for kind in cycle.kinds] == [(12, 100, 5), (4, 200, 10)]


def test_a_heavy_optimizer_in_every_fourth_step_contradicts_nothing() -> None:
    """Ops of 100 ns run in every step, three of 40 ns that wait for each other in every fourth."""
    chain = sketch(
        """
        executed:
            x = _Arg() float32[8,4]
            forward = Relu(x) float32[8,4] 10us
            a = Tanh(forward) float32[8,4] 10us
            b = Tanh(a) float32[8,4] 10us
            c = Tanh(b) float32[8,4] 10us
        """
    )
    starts_ns = [1000 * number for number in range(16)]
    ops = [op("forward:Relu", number, start, start + 100) for number, start in enumerate(starts_ns)]
    for number, start in list(enumerate(starts_ns))[3::4]:
        ops += [op(f"{n}:Tanh", number, start + 100 + 40 * k, start + 140 + 40 * k) for k, n in enumerate("abc")]
    runs = [Run(TRAIN, start, start + (220 if number % 4 == 3 else 100), 1) for number, start in enumerate(starts_ns)]
    profile = Profile(ops=tuple(ops), runs=tuple(runs))
    analysis = judge(replace(chain, profile=profile, unprofiled_ns=()))
    step, path = analysis.step, analysis.document.critical_path
    assert step is not None
    assert path is not None
    assert (step.median_ns, step.mean_ns, step.cycle) == (100, 130, 4)
    assert analysis.quality.grade != "none"
    assert path.ns <= step.median_ns


def test_the_mean_is_over_whole_cycles() -> None:
    ran, lengths_ns = in_turn(*["fo", "f"] * 3, "fo", lengths_ns={"f": 100, "fo": 200})
    assert cycle_of(ran, lengths_ns).mean_ns == 150


def test_ops_that_the_profiler_leaves_out_later_make_no_cycle() -> None:
    ran, lengths_ns = in_turn("fc", "fc", "fc", "f", "f", "f", lengths_ns={"f": 100, "fc": 100})
    assert cycle_of(ran, lengths_ns).kinds == ()


def test_a_few_ops_that_are_missing_at_random_make_no_cycle() -> None:
    ran, lengths_ns = in_turn(*["f"] * 8, lengths_ns={"f": 100})
    for step in (1, 4, 6):
        ran[step].popitem()
    assert cycle_of(ran, lengths_ns).kinds == ()


# -- what cannot be ------------------------------------------------------------------------------------------------

CHAIN = "x = Placeholder() float32[8]\ny = Relu(x) float32[8] 90us\nz = Tanh(y) float32[8] 90us"


def too_short(evidence: Evidence) -> Evidence:
    """The evidence with steps of a hundredth of their length, as a function's launch was once taken for one."""
    assert evidence.profile is not None
    steps = tuple(
        replace_end(step, step.start_ns + (step.end_ns - step.start_ns) // 100) for step in evidence.profile.steps
    )
    return replace(evidence, profile=replace(evidence.profile, steps=steps), unprofiled_ns=())


def replace_end(span: Span, end_ns: int) -> Span:
    return span._replace(end_ns=end_ns)


def test_a_step_that_is_shorter_than_what_runs_in_it_is_not_shown() -> None:
    analysis = judge(too_short(sketch(CHAIN)))
    assert analysis.quality.grade == "none"
    assert "is not one, so no time is shown" in analysis.quality.reasons[0]
    assert (analysis.step, analysis.ledger, analysis.document.critical_path) == (None, (), None)
    assert all(row.self_ns is None for row in analysis.document.ops)
    assert any(error.stage == "measure" for error in analysis.document.errors)
    assert all(finding.saving.ns is None for finding in analysis.findings)


def test_an_op_that_ran_for_longer_than_the_step_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Facts(sketch(CHAIN))(attribution)
    timings = {name: replace(timing, wall_share=1.2) for name, timing in found.timings.items()}
    monkeypatch.setattr(attribution, "derive", lambda _: replace(found, timings=timings))
    why = Facts(sketch(CHAIN))(why_impossible)
    assert why is not None
    assert "ran in 120 % of the step" in why


# Each of the two ops of the body runs three times, and hands on to the next iteration.
LOOP = """
x = Placeholder() float32[8]
e = Enter(x) float32[8]
m = Merge(e) float32[8] int32[]
p = Foo(m) bool[] 1us
s = Switch(m, p) float32[8] float32[8]
y = Relu(s:1) float32[8] 90us x3
z = Tanh(y) float32[8] 90us x3
n = NextIteration(z) float32[8]
o = Exit(s) float32[8]
"""


@pytest.mark.parametrize(("text", "contradicts"), [(LOOP, False), (CHAIN, True)])
def test_ops_of_different_iterations_do_not_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch, text: str, contradicts: bool
) -> None:
    """Iterations run side by side, so that what all of them take is more than the step."""
    found = Facts(sketch(text))(attribution)
    timings = {name: replace(timing, self_ns=2 * timing.self_ns) for name, timing in found.timings.items()}
    monkeypatch.setattr(attribution, "derive", lambda _: replace(found, timings=timings))
    why = Facts(sketch(text))(why_impossible)
    assert (why is not None and "a chain of ops that wait for each other takes" in why) == contradicts


def test_a_chain_through_the_copies_of_an_unrolled_loop_is_none_of_a_step() -> None:
    """Each copy runs in one of the steps of a call: together they take as long as these."""
    graph = sketch("x = Placeholder() float32[8]\nm = Tanh(x) float32[8]\nm_1 = Tanh(m) float32[8]").executed
    run = Run("__inference_steps_1", 0, 100, 1, elements=2, iterations=(Window(0, 50), Window(50, 100)))
    ops = tuple(OpEvent(name, "Tanh", at, at + 45, 45, 7, 0) for name, at in (("m", 0), ("m_1", 50)))
    facts = Facts(Evidence(Target("t", "script"), executed=graph, profile=Profile(runs=(run,), ops=ops)))
    assert facts(why_impossible) is None
    path = facts(critical_path)
    assert path is not None
    assert path.ns <= 50


def test_the_same_steps_at_full_length_are_shown() -> None:
    assert judge(sketch(CHAIN)).quality.grade != "none"


def test_lost_events_are_told() -> None:
    evidence = sketch(CHAIN)
    assert evidence.profile is not None
    lossy = replace(evidence, profile=replace(evidence.profile, dropped=12))
    assert any("lost 12 events" in reason for reason in judge(lossy).quality.reasons)


# -- graphs of several programs ------------------------------------------------------------------------------------


def two_programs() -> Evidence:
    train, test = (
        sketch(CHAIN).executed,
        sketch("x = Placeholder() float32[8]\nw = Exp(x) float32[8]").executed,
    )
    programs = (Program("train", TRAIN, executed=train), Program("test", TEST, executed=test))
    return Evidence(Target("job", "capture"), profile=trained_and_tested(), programs=programs)


def ops_of(graph: Graph | None) -> set[str]:
    assert graph is not None
    return set(graph.main.graph)


@pytest.mark.parametrize(("wanted", "own"), [(None, "z"), ("test", "w"), (TEST, "w"), (TRAIN, "z")])
def test_the_judged_program_is_judged_with_its_own_graphs(wanted: str | None, own: str) -> None:
    assert own in ops_of(choose(two_programs(), wanted).executed)


def test_a_program_whose_graph_is_not_known_is_not_explained_by_that_of_another() -> None:
    evidence = two_programs()
    assert choose(replace(evidence, programs=evidence.programs[1:])).executed is None


def test_a_program_that_did_not_run_is_refused_with_those_that_did() -> None:
    with pytest.raises(UsageError, match=r"--program nothing is no program that ran; there are: .*946.*1183"):
        choose(two_programs(), "nothing")
    with pytest.raises(UsageError, match="is a part of 2 names"):
        choose(replace(two_programs(), programs=()), "multi_step")


def test_the_programs_of_an_analysis_are_in_its_document() -> None:
    document = json.loads(to_json(judge(choose(two_programs())).document))
    train, test = document["programs"]
    assert (train["name"], train["role"], train["runs"], train["steps"]) == (TRAIN, "step", 2, 2)
    assert (train["step"]["median_ns"], test["step"]["median_ns"]) == (40, 10)
    assert train["graphs"]["executed"]["nodes"] == 3
    assert test["graphs"]["executed"]["nodes"] == 2


@pytest.mark.parametrize(("end_ns", "is_told"), [(30, False), (100, True)])
def test_what_a_call_does_outside_of_its_loop_is_told_where_it_is_much(end_ns: int, is_told: bool) -> None:
    loop = Run("__inference_loop_1", 0, end_ns, 0, iterations=((0, 10), (10, 18), (18, 30)))
    ops = tuple(OpEvent("m", "MatMul", start_ns, start_ns + 8, 10, 0, 0) for start_ns in (0, 10, 18))
    notes = programs_of(Profile(runs=(loop,), ops=ops)).notes
    told = "70 ns of 100 ns of the call lie before, between or after the iterations of its loop"
    assert notes == ((told,) if is_told else ())


def fed(loop: bool) -> InputRow:
    return InputRow("n", "int32", (), (1, 1), "made-up", "", "how often the loop while runs", loop)


@pytest.mark.parametrize(("loop", "grade"), [(True, "poor"), (False, "fair")])
def test_made_up_numbers_that_decide_the_work_of_a_step_cap_the_grade(loop: bool, grade: str) -> None:
    recorded = evidence_of(open_capture(CAPTURES / "while_if.capture"))
    assert judge(replace(recorded, fed=())).quality.grade == "fair"
    quality = judge(replace(recorded, fed=(fed(loop),))).quality
    assert quality.grade == grade
    assert (
        "'n' decides how often the loop while runs, and its value is made up: give it with --inputs FILE.npz"
        in quality.reasons
    )


def test_numbers_that_were_given_cap_nothing() -> None:
    known = InputRow("n", "int32", (), (200, 200), "given")
    document = judge(replace(sketch(CHAIN), fed=(known,))).document
    assert document.quality == judge(sketch(CHAIN)).quality
    assert document.inputs == (known,)


@pytest.mark.parametrize("verdict", ["proven", "refuted", "inconclusive"])
def test_a_proof_says_for_which_made_up_numbers_alone_it_holds(verdict: str) -> None:
    measured = Proof(verdict, "measured faster", speedup=2.2)  # type: ignore[arg-type]
    marked = made_up_told(measured, (fed(loop=True), InputRow("x", "float32", (1,), (0, 1), "made-up")))
    assert marked.why == "measured faster; this holds for n = 1, made up, which decides how often the loop while runs"
    assert marked.made_up == ("n",)


def test_a_proof_with_numbers_that_were_given_or_without_any_says_nothing() -> None:
    measured = Proof("proven", "measured faster", speedup=2.2)
    assert made_up_told(measured, (InputRow("n", "int32", (), (200, 200), "given"),)) == measured
    refused = Proof("failed", "the rewrite refused")
    assert made_up_told(refused, (fed(loop=True),)) == refused


def test_what_a_sessions_graph_holds_beside_its_step_keeps_xla_from_nothing() -> None:
    """It saves and initializes in the same graph; only what was seen to run is of the step."""
    evidence = sketch("""
        x    = Placeholder() float32[4]
        y    = AsString(x) string[4] 5us {T: float32}
        z    = Relu(x) float32[4] 5us
        name = Const() string[]
        save = SaveV2(name, x)
        """)
    runs = tuple(Run(SESSION, at, at + 90, 0) for at in (0, 100, 200))
    ops = tuple(op("y:AsString", run, 100 * run + 10, 100 * run + 80) for run in range(3))
    session = replace(evidence, executed=None, profile=Profile(runs=runs, ops=ops))
    assert {one.name for one in Facts(evidence)(blockers_of_step)} == {"y", "save"}
    assert {one.name for one in Facts(session)(blockers_of_step)} == {"y"}
