"""The prover, with programs that are speeds: order, budget, what becomes of findings, and whose fault a failure is."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from graphlens.children.messages import Compiled, Difference
from graphlens.ir.analysis import Finding, Fix, Saving, Severity
from graphlens.ir.edits import Edit, SessionSetting
from graphlens.ir.settings import onednn_on
from graphlens.prove import Outcome, Plan, prove
from graphlens.prove.runner import FailedError, GoneError, RefusedError
from tests.fake_runner import FakeCompiling, FakeEdit, FakeRetyping, FakeRunner, FakeSetting, shared

STEP_NS = 20_000_000
PLAN = Plan(resamples=200)
WRONG = Difference("logits", "float32", 1e-5, 4.5, 0.23)


def finding(code: str, share: float | None, *edits: Edit, **changes: Any) -> Finding:
    severity: Severity = changes.pop("severity", "high")
    fix = Fix("do it", changes.pop("safety", "tolerance"), tuple(edits))
    saving = Saving(None if share is None else round(share * STEP_NS), share, "modelled")
    return Finding(code, f"rule-{code}", code, (code,), {}, "because", saving, fix, severity=severity, **changes)


FOLD = finding("GL203", 0.4, FakeEdit("fold", 1.8))
FREEZE = finding("GL210", 0.2, FakeEdit("freeze", 1.25))
XLA = finding("GL213", 0.5, FakeCompiling(faster=0.1))


def proven(*findings: Finding, runner: FakeRunner | None = None, **options: Any) -> Outcome:
    runner = runner or FakeRunner()
    return prove(findings, runner, PLAN, step_ns=STEP_NS, clock=runner.clock, **options)


def proof(outcome: Outcome, code: str) -> Any:
    return next(one.proof for one in outcome.findings if one.code == code)


# -- what becomes of a finding --------------------------------------------------------------------------------------


def test_a_proven_saving_takes_the_place_of_the_modelled_one() -> None:
    (found,) = proven(finding("GL203", 0.02, FakeEdit("fold", 2.0), severity="low")).findings
    assert found.proof.verdict == "proven"
    assert found.proof.speedup == pytest.approx(2.0)
    assert found.proof.cpu_speedup == pytest.approx(2.0)
    assert (found.proof.before_ns, found.proof.after_ns) == (20_000_000, 10_000_000)
    assert found.saving == Saving(10_000_000, pytest.approx(0.5), "measured")
    assert found.severity == "high"
    assert found.proof.expected_share == 0.02


def test_a_refuted_finding_is_information_and_comes_last() -> None:
    outcome = proven(XLA, finding("GL501", 0.01, severity="low"), FOLD)
    assert [one.code for one in outcome.findings] == ["GL203", "GL501", "GL213"]
    refuted = outcome.findings[-1]
    assert (refuted.proof.verdict, refuted.severity) == ("refuted", "info")
    assert refuted.proof.speedup == pytest.approx(0.1)
    assert refuted.saving == Saving(0, 0.0, "measured")


def test_what_cpu_time_refutes_saves_nothing_whatever_wall_time_says() -> None:
    def uneven(noise: random.Random) -> tuple[float, float]:
        return noise.gauss(0, 1.0), 0.0

    busy = FakeRunner(noise=uneven)
    (refuted,) = proven(finding("GL203", 0.4, FakeEdit("fold", 1.5, cpu_faster=0.8)), runner=busy).findings
    assert refuted.proof.verdict == "refuted"
    assert refuted.proof.speedup is not None
    assert refuted.proof.speedup > 1
    assert refuted.saving == Saving(0, 0.0, "measured")


def test_overlaps_are_named_by_their_new_rank() -> None:
    outcome = proven(
        finding("GL213", 0.5, FakeCompiling(faster=0.1)),
        finding("GL203", 0.4, FakeEdit("fold", 1.8)),
    )
    assert [one.shares_ops_with for one in outcome.findings] == [(), ()]
    both = [finding(code, 0.3, FakeEdit(code, faster)) for code, faster in (("GL213", 0.1), ("GL203", 1.8))]
    shared = [Finding(**{**{f: getattr(one, f) for f in one.__slots__}, "nodes": ("conv",)}) for one in both]
    assert [one.shares_ops_with for one in proven(*shared).findings] == [("GL213#2",), ("GL203#1",)]


def test_the_proof_says_how_to_measure_it_again() -> None:
    outcome = proven(FOLD, command="graphlens analyze model --batch 8")
    assert proof(outcome, "GL203").command == "graphlens analyze model --batch 8 --select GL203"
    outcome = proven(FOLD, command="graphlens run", script=" train.py --epochs 3")
    assert proof(outcome, "GL203").command == "graphlens run --select GL203 train.py --epochs 3"


# -- outputs --------------------------------------------------------------------------------------------------------


def test_a_wrong_rewrite_fails_and_names_output_and_difference() -> None:
    outcome = proven(FOLD, runner=FakeRunner(differences={"fold": WRONG}))
    failed = proof(outcome, "GL203")
    assert failed.verdict == "failed"
    assert failed.why == (
        "outputs differ: 'logits' (float32) by 4.5, which is 0.23 of its largest value where 1e-05 is allowed"
    )
    assert (failed.output, failed.max_rel_diff, failed.tolerance) == ("logits", 0.23, 1e-5)
    assert failed.speedup is None
    assert outcome.findings[0].saving == FOLD.saving


def test_what_cannot_be_compared_fails_with_its_reason() -> None:
    shape = Difference("y", "float32", 1e-5, mismatch="its shape (1, 2) became (2, 1)")
    failed = proof(proven(FOLD, runner=FakeRunner(differences={"fold": shape})), "GL203")
    assert failed.why == "outputs differ: 'y' (float32): its shape (1, 2) became (2, 1)"


def test_outputs_that_change_by_themselves_prove_nothing() -> None:
    outcome = proven(FOLD, runner=FakeRunner(unstable=(Difference("sample", "float32", 1e-5, 1.0, 0.5),)))
    assert proof(outcome, "GL203").verdict == "inconclusive"
    assert "change from call to call ('sample')" in proof(outcome, "GL203").why


def test_a_fix_is_as_exact_as_the_type_it_says_it_computes_in() -> None:
    runner = FakeRunner()
    proven(finding("GL501", 0.4, FakeRetyping(from_="float64", to="float32", faster=1.5)), runner=runner)
    assert ("compare", "float32") in runner.log


# -- faults ---------------------------------------------------------------------------------------------------------


def test_a_refused_rewrite_is_a_failed_proof() -> None:
    outcome = proven(FOLD, runner=FakeRunner(faults={"fold": RefusedError("'conv' is inside a loop")}))
    assert proof(outcome, "GL203").verdict == "failed"
    assert proof(outcome, "GL203").why == "the rewrite refused: 'conv' is inside a loop"


def test_a_child_that_dies_fails_its_fix_and_the_next_is_proven_in_another_one() -> None:
    dead = GoneError("its process was killed (out of memory?)")
    runner = FakeRunner(faults={"fold": dead})
    outcome = proven(FOLD, FREEZE, runner=runner)
    assert proof(outcome, "GL203").verdict == "failed"
    assert proof(outcome, "GL203").why == f"the trial of the fix came to no end: {dead}"
    assert proof(outcome, "GL210").verdict == "proven"
    assert sum(command == "open" for command, _ in runner.log) == 2


def test_tensorflows_own_failure_is_a_failed_proof() -> None:
    outcome = proven(XLA, runner=FakeRunner(faults={"jit-compile": FailedError("Detected unsupported operations")}))
    assert proof(outcome, "GL213").why == "TensorFlow failed on the changed program: Detected unsupported operations"


def test_a_target_that_cannot_be_opened_is_no_fixs_fault() -> None:
    outcome = proven(FOLD, FREEZE, runner=FakeRunner(opens=False))
    assert {one.proof.verdict for one in outcome.findings} == {"not-run"}
    assert "no such model" in proof(outcome, "GL203").why


def test_the_runner_is_closed_whatever_happens() -> None:
    runner = FakeRunner(faults={"fold": ZeroDivisionError()})
    with pytest.raises(ZeroDivisionError):
        proven(FOLD, runner=runner)
    assert runner.log[-1] == ("close", None)


# -- which, and in which order --------------------------------------------------------------------------------------


def test_the_most_promising_comes_first_and_compiling_is_dear() -> None:
    runner = FakeRunner()
    proven(finding("GL202", 0.1, FakeEdit("small", 1.2)), XLA, FOLD, runner=runner)
    alone = [names for command, names in runner.log if command == "apply" and len(names) == 1]
    assert alone == [["fold"], ["jit-compile"], ["small"]]


@pytest.mark.parametrize(
    ("left_out", "why"),
    [
        (finding("GL101", 0.5), "only a person can make this change"),
        (finding("GL404", 0.5, FakeEdit("remove-debug-ops", 2.0), safety="manual"), "safety: manual"),
        (finding("GL204", None, FakeEdit("fuse", 1.0), severity="info"), "`--select GL204` has it measured"),
    ],
    ids=["no edit", "manual", "information"],
)
def test_what_is_not_tried_says_why(left_out: Finding, why: str) -> None:
    runner = FakeRunner()
    (found,) = proven(left_out, runner=runner).findings
    assert found.proof.verdict == "not-run"
    assert why in found.proof.why
    assert runner.log == [("close", None)]


@pytest.mark.parametrize("asked", ["GL204", "GL2", "rule-GL204"])
def test_what_is_asked_for_is_tried(asked: str) -> None:
    outcome = proven(finding("GL204", None, FakeEdit("fuse", 1.0), severity="info"), asked=[asked])
    assert proof(outcome, "GL204").verdict == "refuted"


# -- budget ---------------------------------------------------------------------------------------------------------


def test_the_budget_is_kept_and_what_it_does_not_reach_says_so() -> None:
    runner = FakeRunner(build_s=5.0, call_ms=300.0)
    many = [finding(f"GL{number}", 0.3, FakeEdit(f"e{number}", 1.5)) for number in range(200, 220)]
    outcome = proven(*many, runner=runner)
    verdicts = [one.proof.verdict for one in outcome.findings]
    assert "proven" in verdicts
    assert "not-run" in verdicts
    assert "raise --time-budget" in next(one.proof.why for one in outcome.findings if one.proof.verdict == "not-run")
    assert runner.clock.now_s < PLAN.budget_s * 1.2


def test_of_a_script_opening_is_on_the_budget_and_nothing_is_started_that_cannot_end() -> None:
    runner = FakeRunner(start_s=8.0, call_ms=2.0)
    many = [finding(f"GL{number}", 0.3, FakeEdit(f"e{number}", 1.5)) for number in range(200, 206)]
    outcome = proven(*many, runner=runner)
    assert [one.proof.verdict for one in outcome.findings].count("not-run") >= 3
    assert runner.clock.now_s < PLAN.budget_s
    assert {one.proof.pairs for one in outcome.findings if one.proof.verdict != "not-run"} - {0, None}
    slow = FakeRunner(start_s=40.0, call_ms=2.0)
    (hopeless,) = proven(FOLD, runner=slow).findings
    assert hopeless.proof.verdict == "not-run"
    assert hopeless.proof.why.startswith("it takes 40 s to its first steady steps")
    assert slow.clock.now_s == 40.0


def test_what_the_user_names_has_the_first_turn() -> None:
    seen: list[str] = []
    small = finding("TRY", None, FakeEdit("small", 1.1), severity="info")
    proven(FOLD, small, asked=["TRY"], progress=lambda what, *_: seen.append(what))
    assert seen.index("proving TRY (1 of 2)") < seen.index("proving GL203 (2 of 2)")


def test_a_first_call_that_takes_longer_is_told_with_the_steps_that_earn_it_back() -> None:
    why = proof(proven(FOLD, runner=FakeRunner(longer_ns=4_000_000_000)), "GL203").why
    assert why.endswith("; its first call takes 4.00 s longer, which 450 steps earn back")
    assert "earn back" not in proof(proven(FOLD, runner=FakeRunner(longer_ns=5_000_000)), "GL203").why
    assert "earn back" not in proof(proven(XLA, runner=FakeRunner(longer_ns=4_000_000_000)), "GL213").why


def test_a_slow_model_has_its_noise_measured_nevertheless() -> None:
    outcome = proven(FOLD, runner=FakeRunner(call_ms=1000.0, build_s=3.0))
    assert proof(outcome, "GL203").verdict == "proven"


def test_a_hopelessly_slow_model_is_inconclusive() -> None:
    outcome = proven(FOLD, runner=FakeRunner(call_ms=20_000.0))
    assert proof(outcome, "GL203").verdict in {"inconclusive", "not-run"}


def test_a_quiet_machine_needs_few_pairs_and_slower_needs_fewer() -> None:
    outcome = proven(FOLD, XLA)
    assert PLAN.min_pairs <= proof(outcome, "GL203").pairs < PLAN.min_pairs + PLAN.round_pairs
    assert proof(outcome, "GL213").pairs < PLAN.min_pairs


def test_progress_is_shown_all_the_time() -> None:
    seen: list[tuple[str, int, int]] = []
    proven(FOLD, FREEZE, progress=lambda *one: seen.append(one))
    assert ("proving GL203 (1 of 2), pairs", 26, PLAN.max_pairs) in seen
    assert [what for what, done, _ in seen if done == 0] == [
        "opening the target for trials",
        "measuring the noise, A against A",
        "proving GL203 (1 of 2)",
        "proving GL210 (2 of 2)",
        "proving 2 proven fixes together",
    ]


# -- together -------------------------------------------------------------------------------------------------------


def test_all_proven_fixes_are_measured_once_more_at_once() -> None:
    runner = FakeRunner()
    outcome = proven(FREEZE, XLA, FOLD, runner=runner)
    joint = outcome.joint_proof
    assert joint is not None
    assert joint.verdict == "proven"
    assert joint.speedup == pytest.approx(1.8 * 1.25)
    assert joint.parts == ("GL203#1", "GL210#2")
    assert joint.command == "graphlens analyze TARGET --select GL203,GL210"
    assert ("apply", ["fold", "freeze"]) in runner.log


def test_a_single_proven_fix_is_not_measured_twice() -> None:
    runner = FakeRunner()
    joint = proven(XLA, FOLD, runner=runner).joint_proof
    assert joint is not None
    assert (joint.verdict, joint.parts) == ("proven", ("GL203#1",))
    assert sum(names == ["fold"] for command, names in runner.log if command == "apply") == 1


def test_nothing_proven_is_nothing_together() -> None:
    joint = proven(XLA).joint_proof
    assert joint is not None
    assert (joint.verdict, joint.parts) == ("not-run", ())


def test_nothing_tried_has_no_joint_proof() -> None:
    assert proven(finding("GL101", 0.5)).joint_proof is None


def test_a_fix_that_another_one_makes_impossible_is_left_out_by_name() -> None:
    class Jealous(FakeRunner):
        def _fail(self, name: str, number: int) -> None:
            if name == "freeze" and number > 0:
                raise RefusedError("'bn/scale' is gone", number)

    joint = proven(FOLD, FREEZE, finding("GL207", 0.1, FakeEdit("transpose", 1.1)), runner=Jealous()).joint_proof
    assert joint is not None
    assert joint.parts == ("GL203#1", "GL207#3")
    assert joint.speedup == pytest.approx(1.8 * 1.1)
    assert "GL210: 'bn/scale' is gone" in joint.why


def test_all_at_once_are_not_applied_where_one_of_them_is_faster_alone() -> None:
    runner = FakeRunner(clashes={frozenset({"fold", "freeze"}): 0.5})
    joint = proven(FOLD, FREEZE, runner=runner).joint_proof
    assert joint is not None
    assert (joint.verdict, joint.parts) == ("proven", ("GL203#1",))
    assert joint.speedup == pytest.approx(1.8)
    assert "left out: GL210, with which it would be 1.12x" in joint.why


# Rebuilding alone makes programs 4 % faster here, so that is noise; this fix stays below it, alone.
PADS = finding("GL201", 0.03, FakeEdit("pads", 0.995))


def test_what_is_not_shown_alone_gets_a_second_chance_on_top_of_the_proven_fixes() -> None:
    runner = FakeRunner(rebuilt_faster=1.04, clashes={frozenset({"fold", "pads"}): 1.1})
    outcome = proven(FOLD, PADS, runner=runner, command="graphlens analyze m")
    found = next(one for one in outcome.findings if one.code == "GL201")
    assert (found.proof.verdict, found.proof.on_top_of) == ("proven", ("GL203",))
    assert found.proof.speedup == pytest.approx(0.995 * 1.1)
    assert found.proof.why.startswith("on top of GL203: measured faster: wall time 1.09x")
    assert found.proof.why.endswith("(alone 1.03x [1.03, 1.03])")
    assert found.proof.command == "graphlens analyze m --select GL203,GL201"
    assert parts(outcome) == ("GL203#1", "GL201#2")
    assert outcome.joint_proof is not None
    assert outcome.joint_proof.speedup == pytest.approx(1.8 * 1.04 * 0.995 * 1.1)


def test_a_saving_on_top_of_others_is_a_share_of_the_original_step() -> None:
    runner = FakeRunner(rebuilt_faster=1.04, clashes={frozenset({"fold", "pads"}): 1.1})
    saving = next(one.saving for one in proven(FOLD, PADS, runner=runner).findings if one.code == "GL201")
    expected = (1 - 1 / (0.995 * 1.1)) / (1.8 * 1.04)
    assert saving.share == pytest.approx(expected)
    assert saving.ns == pytest.approx(expected * STEP_NS, rel=1e-6)


def test_what_gains_nothing_on_top_either_stays_inconclusive() -> None:
    outcome = proven(FOLD, PADS, runner=FakeRunner(rebuilt_faster=1.04))
    assert (proof(outcome, "GL201").verdict, proof(outcome, "GL201").on_top_of) == ("inconclusive", ())
    assert "; on top of GL203: " in proof(outcome, "GL201").why
    assert parts(outcome) == ("GL203#1",)


def test_a_question_keeps_its_turn() -> None:
    runner = FakeRunner(rebuilt_faster=1.04, clashes={frozenset({"fold", "pads"}): 1.1})
    plan = replace(PLAN, budget_s=40.0)
    outcome = prove([FOLD, PADS, question(0.1)], runner, plan, step_ns=STEP_NS, clock=runner.clock)
    assert proof(outcome, "GL213").verdict == "refuted"


def test_without_a_proven_fix_there_is_nothing_to_come_on_top_of() -> None:
    runner = FakeRunner(rebuilt_faster=1.04)
    assert proof(proven(PADS, runner=runner), "GL201").verdict == "inconclusive"
    assert sum(command == "apply" for command, _ in runner.log) == 2  # the copy, and the fix once


# -- whether compiling pays -----------------------------------------------------------------------------------------


def question(faster: float) -> Finding:
    """Nothing keeps XLA from compiling the step, and nobody claims that it pays."""
    return finding("GL213", None, FakeCompiling(faster=faster), severity="info")


def parts(outcome: Outcome) -> tuple[str, ...]:
    assert outcome.joint_proof is not None
    return outcome.joint_proof.parts


def test_a_question_is_asked_when_all_else_is_proven() -> None:
    runner = FakeRunner()
    outcome = proven(question(0.2), FOLD, FREEZE, runner=runner)
    applied = [names for command, names in runner.log if command == "apply"]
    assert applied == [[], ["fold"], ["freeze"], ["fold", "freeze"], ["jit-compile"]]
    assert parts(outcome) == ("GL203#1", "GL210#2")


def test_the_answer_is_the_title() -> None:
    titles = {faster: proven(question(faster)).findings[0].title for faster in (0.2, 1.0, 3.0)}
    assert titles == {
        0.2: "XLA makes this step 5.0 times slower here: 0.20x [0.20, 0.20]",
        1.0: "XLA gains nothing for this step here: 1.00x [1.00, 1.00]",
        3.0: "XLA makes this step 3.0 times as fast here: 3.00x [3.00, 3.00]",
    }


def test_an_answer_is_ranked_by_what_was_measured() -> None:
    (pays,), (does_not,) = proven(question(3.0)).findings, proven(question(0.2)).findings
    assert (pays.severity, pays.proof.verdict) == ("high", "proven")
    assert (does_not.severity, does_not.proof.verdict) == ("info", "refuted")


def test_the_proof_says_what_was_compiled_and_how_long_that_took() -> None:
    asked = proof(proven(question(3.0), runner=FakeRunner(compiled=Compiled(80, 88, 18))), "GL213")
    assert (asked.compile_ns, asked.compiled_ops, asked.program_ops, asked.fusions) == (480_000_000, 80, 88, 18)
    assert asked.why.endswith(
        "XLA compiled 80 of 88 ops to 18 fusions in 480 ms, once for every new shape of the inputs"
    )


@pytest.mark.parametrize(
    "fault",
    [GoneError("it took longer than 36 s"), GoneError("its process crashed (SIGABRT)"), FailedError("no XLA kernel")],
    ids=["hangs", "dies", "refused by the compiler"],
)
def test_a_compiler_that_fails_costs_no_other_fix_its_proof(fault: Exception) -> None:
    outcome = proven(FOLD, FREEZE, question(3.0), runner=FakeRunner(faults={"jit-compile": fault}))
    failed = next(one for one in outcome.findings if one.code == "GL213")
    assert (failed.proof.verdict, failed.severity) == ("failed", "info")
    assert str(fault) in failed.proof.why
    assert parts(outcome) == ("GL203#1", "GL210#2")


def test_without_time_the_question_stays_open() -> None:
    slow = FakeRunner(build_s=16.0, call_ms=300.0)
    outcome = proven(FOLD, question(3.0), runner=slow)
    assert proof(outcome, "GL203").verdict == "proven"
    assert proof(outcome, "GL213").verdict == "not-run"
    assert "raise --time-budget" in proof(outcome, "GL213").why


def test_a_noisy_fix_leaves_time_for_the_question() -> None:
    runner = FakeRunner(noise=shared, call_ms=130.0)
    outcome = proven(finding("GL203", 0.2, FakeEdit("fold", 1.04)), question(0.2), runner=runner)
    assert proof(outcome, "GL213").verdict == "refuted"
    assert runner.clock.now_s < PLAN.budget_s * 1.1


def test_an_answer_that_is_not_clear_says_so() -> None:
    (asked,) = proven(question(1.04), runner=FakeRunner(noise=shared)).findings
    assert asked.proof.verdict == "inconclusive"
    assert asked.title.startswith("Whether XLA makes this step faster is not clear here: 1.0")


@pytest.mark.parametrize(
    ("compiled", "clash", "applied"),
    [
        (1.5, 1.0, ("GL203#1", "GL213#2")),  # both gain, and more together
        (1.5, 0.5, ("GL203#1",)),  # the folded model is slower when compiled: the fold alone
        (3.0, 0.5, ("GL213#1",)),  # compiling alone gives more than both
        (3.0, 1 / 1.8, ("GL213#1", "GL203#2")),  # compiling gains what the fold gained: as fast, and nothing undone
    ],
)
def test_compiling_is_applied_with_the_others_only_where_it_is_faster_then(
    compiled: float, clash: float, applied: tuple[str, ...]
) -> None:
    runner = FakeRunner(clashes={frozenset({"fold", "jit-compile"}): clash})
    outcome = proven(FOLD, question(compiled), runner=runner)
    assert {one.proof.verdict for one in outcome.findings} == {"proven"}
    assert parts(outcome) == applied


def test_the_same_edits_are_measured_once() -> None:
    runner = FakeRunner()
    bound = finding("GL212", 0.5, FakeCompiling(faster=3.0))
    outcome = proven(question(3.0), bound, runner=runner)
    assert sum(names == ["jit-compile"] for command, names in runner.log if command == "apply") == 1
    assert proof(outcome, "GL213").speedup == proof(outcome, "GL212").speedup == pytest.approx(3.0)
    assert proof(outcome, "GL213").why.endswith("(measured with GL212, which proposes the same)")
    assert parts(outcome) == ("GL212#1",)


# -- settings -------------------------------------------------------------------------------------------------------

ONEDNN = finding("GL201", 0.3, FakeSetting(onednn_on().environment, faster=1.5))
NOISE_ACROSS = ("apply", [SessionSetting.kind])


def test_a_setting_is_judged_by_the_noise_between_two_processes() -> None:
    """Here a second process is faster by itself: a setting that is measured there has gained nothing by that."""
    runner = FakeRunner(second_faster=1.2)
    outcome = proven(finding("GL201", 0.3, FakeSetting(onednn_on().environment, faster=0.99)), FREEZE, runner=runner)
    assert proof(outcome, "GL201").aa_ci95 == pytest.approx((1.0, 1.2))
    assert proof(outcome, "GL201").verdict == "inconclusive"
    assert proof(outcome, "GL210").aa_ci95 == pytest.approx((1.0, 1.0))


def test_a_proven_setting_says_where_it_was_measured() -> None:
    found = proof(proven(ONEDNN), "GL201")
    assert (found.verdict, found.speedup) == ("proven", pytest.approx(1.5))
    assert found.why.endswith("; measured between two processes, the second with a setting")


def test_no_second_process_is_started_without_a_setting_and_its_noise_is_measured_once() -> None:
    runner = FakeRunner()
    proven(FOLD, FREEZE, runner=runner)
    assert NOISE_ACROSS not in runner.log
    other = finding("GL202", 0.2, FakeSetting(threads={"intra_op": 1}, faster=1.3))
    runner = FakeRunner()
    outcome = proven(ONEDNN, other, FREEZE, runner=runner)
    assert {one.proof.verdict for one in outcome.findings} == {"proven"}
    assert runner.log.count(NOISE_ACROSS) == 3, "the noise, and each of the two settings"


def test_a_setting_and_graph_edits_are_proven_together() -> None:
    runner = FakeRunner()
    joint = proven(ONEDNN, FOLD, runner=runner).joint_proof
    assert joint is not None
    assert (joint.verdict, joint.speedup) == ("proven", pytest.approx(1.5 * 1.8))
    assert ("apply", ["fold", SessionSetting.kind]) in runner.log


def test_a_setting_that_several_findings_ask_for_is_measured_once() -> None:
    runner = FakeRunner()
    outcome = proven(ONEDNN, replace(ONEDNN, code="GL202"), runner=runner)
    assert [one.proof.verdict for one in outcome.findings] == ["proven", "proven"]
    assert proof(outcome, "GL202").command.endswith("--select GL202")
    assert runner.log.count(NOISE_ACROSS) == 2, "the noise, and the setting"


def test_a_target_that_differs_from_process_to_process_is_no_settings_fault() -> None:
    other = FailedError("the target made other inputs in the second process")
    outcome = proven(ONEDNN, FREEZE, runner=FakeRunner(faults={SessionSetting.kind: other}))
    assert proof(outcome, "GL201").verdict == "not-run"
    assert "made other inputs" in proof(outcome, "GL201").why
    assert proof(outcome, "GL210").verdict == "proven"


def test_a_second_process_that_dies_of_the_setting_fails_it() -> None:
    class Deadly(FakeRunner):
        def _fail(self, name: str, number: int) -> None:
            if NOISE_ACROSS in self.log[:-1]:
                raise GoneError("its process crashed (SIGABRT)")

    failed = proof(proven(ONEDNN, runner=Deadly()), "GL201")
    assert failed.verdict == "failed"
    assert "SIGABRT" in failed.why


# -- accelerators ---------------------------------------------------------------------------------------------------


def test_on_an_accelerator_cpu_time_is_not_asked() -> None:
    waiting = finding("GL203", 0.4, FakeEdit("fold", 1.8, cpu_faster=1.0))
    assert proof(proven(waiting), "GL203").verdict == "inconclusive"
    on_gpu = proof(proven(waiting, runner=FakeRunner(accelerated=True)), "GL203")
    assert (on_gpu.verdict, on_gpu.cpu_speedup) == ("proven", None)
