"""Outputs that differ: what rounding may do is told with the speed, and what is noise in the original is no fault."""

from __future__ import annotations

import pytest

from graphlens.children.messages import Comparison, Difference
from graphlens.ir.analysis import Finding, Fix, Proof, Saving
from graphlens.prove import prove
from graphlens.prove.runner import GoneError
from tests.fake_runner import FakeEdit, FakeRunner

ROUNDED = Difference("logits", "float32", 1e-5, 4e-3, 9e-4)
NOISE = Difference("variable 'bias'", "float32", 1e-5, 2e-6, 0.39)
STEADY = Difference("loss", "float32", 1e-5, 1e-7, 1e-7)
UNCHANGED = (Difference("variable 'bias'", "float32", 1e-5, 8e-7, 0.33), STEADY)


def proof_of(runner: FakeRunner, faster: float = 1.5) -> Proof:
    return found_by(runner, faster).proof


def found_by(runner: FakeRunner, faster: float = 1.5) -> Finding:
    fix = Fix("s", "tolerance", (FakeEdit("fold", faster),))
    finding = Finding("GL501", "float64-op", "t", (), {}, "r", Saving(None, 0.3, "modelled"), fix, severity="high")
    return prove([finding], runner, step_ns=20_000_000, clock=runner.clock).findings[0]


def asked_for_floors(runner: FakeRunner) -> int:
    return sum(command == "compare unchanged" for command, _ in runner.log)


# -- faster, with other numbers -------------------------------------------------------------------------------------


def test_faster_and_rounded_otherwise_is_a_verdict_of_its_own_with_both_numbers() -> None:
    found = found_by(FakeRunner(differences={"fold": ROUNDED}))
    assert found.proof.verdict == "changes-numbers"
    assert (found.proof.max_rel_diff, found.proof.tolerance) == (9e-4, 1e-5)
    assert found.proof.speedup == pytest.approx(1.5, rel=0.01)
    assert found.proof.why.startswith("measured faster: wall time 1.50x")
    assert "but outputs differ: 'logits' (float32) by 0.004, which is 0.0009 of its largest value" in found.proof.why
    assert found.proof.why.endswith("applied only where --rtol allows that")
    assert found.saving.origin == "measured"


def test_it_is_not_applied_with_others() -> None:
    runner = FakeRunner(differences={"fold": ROUNDED})
    fixes = [Fix("s", "tolerance", (FakeEdit(kind, 1.5),)) for kind in ("fold", "freeze", "hoist")]
    findings = [Finding(f"GL{n}", "r", "t", (), {}, "r", Saving(None, 0.3), fix) for n, fix in enumerate(fixes, 201)]
    joint = prove(findings, runner, step_ns=20_000_000, clock=runner.clock, asked=["GL2"]).joint_proof
    assert joint is not None
    assert {part[:5] for part in joint.parts} == {"GL202", "GL203"}


@pytest.mark.parametrize(("faster", "verdict"), [(1.0, "refuted"), (0.5, "refuted")])
def test_what_is_not_even_faster_is_refuted_and_tells_the_difference_too(faster: float, verdict: str) -> None:
    proof = proof_of(FakeRunner(differences={"fold": ROUNDED}), faster)
    assert proof.verdict == verdict
    assert "outputs differ: 'logits'" in proof.why


def test_beyond_what_rounding_does_it_is_another_result_and_not_timed() -> None:
    proof = proof_of(FakeRunner(differences={"fold": Difference("logits", "float32", 1e-5, 0.5, 0.06)}))
    assert (proof.verdict, proof.speedup) == ("failed", None)


def test_one_output_that_is_wrong_is_not_hidden_by_another_that_is_rounded() -> None:
    class Both(FakeRunner):
        def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
            found = super().compare(variant, computes_in, time_limit_s)
            label = Difference("label", "int64", 0.0, mismatch="1 of 4 values are not equal")
            return Comparison((ROUNDED, label), 3) if variant == "fixed" else found

    proof = proof_of(Both())
    assert proof.verdict == "failed"
    assert "'label'" in proof.why


# -- noise around zero ----------------------------------------------------------------------------------------------


def test_what_is_noise_in_the_unchanged_program_is_no_fault_of_a_fix() -> None:
    """A bias before a normalization: 0.39 off with the fix, and 0.33 off without it under other threads."""
    runner = FakeRunner(differences={"fold": NOISE}, unchanged=UNCHANGED)
    proof = proof_of(runner)
    assert proof.verdict == "proven"
    assert (proof.output, proof.max_rel_diff) == ("variable 'bias'", 0.39)
    assert proof.tolerance == pytest.approx(3.3)
    assert (proof.floor_rel_diff, proof.floor_from) == (0.33, "1 thread for an op")


def test_a_floor_lets_nothing_through_that_is_far_beyond_it_or_has_none() -> None:
    far = Difference("variable 'bias'", "float32", 1e-5, 2e-5, 3.9)
    assert proof_of(FakeRunner(differences={"fold": far}, unchanged=UNCHANGED)).verdict == "failed"
    loss = Difference("loss", "float32", 1e-5, 0.3, 0.39)
    proof = proof_of(FakeRunner(differences={"fold": loss}, unchanged=UNCHANGED))
    assert (proof.verdict, proof.tolerance, proof.floor_rel_diff) == ("failed", 1e-5, None)


def test_a_difference_beyond_its_floor_is_told_beside_it() -> None:
    floor = (Difference("logits", "float32", 1e-5, 1e-4, 2e-5), STEADY)
    proof = proof_of(FakeRunner(differences={"fold": ROUNDED}, unchanged=floor))
    assert proof.verdict == "changes-numbers"
    assert "0.0002 is allowed (unchanged and with 1 thread for an op it differs by 2e-05)" in proof.why


def test_where_all_is_noise_nothing_is_claimed() -> None:
    class AllNoise(FakeRunner):
        def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
            found = super().compare(variant, computes_in, time_limit_s)
            return Comparison((NOISE,), 3) if variant == "fixed" else found

    proof = proof_of(AllNoise(unchanged=UNCHANGED[:1]))
    assert proof.verdict == "inconclusive"
    assert "all outputs are noise, 'variable 'bias'' too (unchanged and with 1 thread" in proof.why


def test_floors_are_found_once_and_only_when_an_output_disagrees() -> None:
    agreeing = FakeRunner()
    proof_of(agreeing)
    assert asked_for_floors(agreeing) == 0
    runner = FakeRunner(differences={"fold": NOISE, "freeze": NOISE}, unchanged=UNCHANGED)
    fixes = [Fix("s", "tolerance", (FakeEdit(kind, 1.5),)) for kind in ("fold", "freeze")]
    findings = [Finding(f"GL{n}", "r", "t", (), {}, "r", Saving(None, 0.3), fix) for n, fix in enumerate(fixes, 201)]
    outcome = prove(findings, runner, step_ns=20_000_000, clock=runner.clock, asked=["GL2"])
    assert [one.proof.verdict for one in outcome.findings] == ["proven", "proven"]
    assert asked_for_floors(runner) == 1


def test_where_no_floor_can_be_found_the_tolerance_is_that_of_the_type() -> None:
    proof = proof_of(FakeRunner(differences={"fold": NOISE}, unchanged=GoneError("its process was killed")))
    assert (proof.verdict, proof.tolerance) == ("failed", 1e-5)
    assert "by how much the unchanged program is off is not known: its process was killed" in proof.why
