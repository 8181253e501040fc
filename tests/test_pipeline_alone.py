"""The pipeline of a script alone: when it is timed, of what, and in whose time; scripts are numbers here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from graphlens.children.messages import Comparison, Pair
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import AddPrefetch, Edit, ParallelMap, ScriptSetting
from graphlens.prove import Plan, alone, prove
from graphlens.prove.alone import PipelineAlone
from graphlens.prove.bench import COPY, FIXED
from graphlens.prove.prover import Outcome
from graphlens.prove.runner import Applied, Edits, FailedError, GoneError, Opening
from tests.fake_runner import Clock, FakeRunner

PREFETCH, PARALLEL = AddPrefetch(), ParallelMap("MapDataset:1")
ELEMENT_NS = 5_000_000.0


@dataclass
class FakeScripts:
    """A script whose steps are all alike, and whose pipeline is twice as fast where its map is parallel."""

    steps: FakeRunner = field(default_factory=FakeRunner)
    fault: Exception | None = None
    pair_s: float = 0.5
    asked: list[tuple[str, Edits]] = field(default_factory=list)

    def time_input(
        self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float, *, edits: Edits
    ) -> list[Pair]:
        assert {before, after} <= self.steps.variants.keys(), "both are still there"
        self.asked.append((after, edits))
        self.steps.clock.now_s += self.pair_s * pairs
        if self.fault is not None:
            raise self.fault
        after_ns = ELEMENT_NS / (2 if after == FIXED and PARALLEL in edits else 1)
        return [Pair(ELEMENT_NS, after_ns, ELEMENT_NS, after_ns)] * pairs

    def open(self, time_limit_s: float) -> Opening:
        return self.steps.open(time_limit_s)

    def apply(self, variant: str, fixes: Any, time_limit_s: float) -> Applied:
        return self.steps.apply(variant, fixes, time_limit_s)

    def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        return self.steps.compare(variant, computes_in, time_limit_s)

    def compare_unchanged(self, time_limit_s: float) -> tuple[Comparison, str]:
        return self.steps.compare_unchanged(time_limit_s)

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        return self.steps.time(before, after, pairs, block_ms, time_limit_s)

    def drop(self, variant: str) -> None:
        self.steps.drop(variant)

    def close(self) -> None:
        self.steps.close()


def finding(edit: Edit) -> Finding:
    return Finding(
        "GL3", "r", edit.kind, (), {}, "", Saving(share=0.5), Fix("s", "tolerance", (edit,)), severity="high"
    )


def tried(scripts: FakeScripts, *edits: Edit, budget_s: float = 100.0) -> tuple[PipelineAlone, Outcome]:
    clock = scripts.steps.clock
    runner = PipelineAlone(scripts, (PREFETCH,), budget_s, clock=clock)
    plan = Plan(budget_s=60.0, min_pairs=8)
    return runner, prove([finding(edit) for edit in edits], runner, plan, clock=runner.time_without)


def test_a_against_a_comes_first_and_then_each_change_while_its_process_is_there() -> None:
    scripts = FakeScripts()
    runner, outcome = tried(scripts, PREFETCH, PARALLEL)
    assert list(dict.fromkeys(scripts.asked)) == [
        (COPY, (PREFETCH,)),
        *((FIXED, one.fix.edits) for one in (finding(PREFETCH), finding(PARALLEL))),
    ]
    parallel, prefetch = runner.proofs[(PARALLEL,)], runner.proofs[(PREFETCH,)]
    assert (parallel.verdict, parallel.before_ns, parallel.after_ns, parallel.speedup) == (
        "proven", 5_000_000, 2_500_000, pytest.approx(2.0),
    )  # fmt: skip
    assert parallel.aa_ci95 == (1.0, 1.0)
    assert prefetch.verdict == "refuted"
    assert {one.proof.verdict for one in outcome.findings} == {"refuted"}, "of steps, which are as long as before"


def test_what_is_no_change_of_a_pipeline_is_timed_by_its_steps_only() -> None:
    scripts = FakeScripts()
    runner, _ = tried(scripts, ScriptSetting("served_input"))
    assert {after for after, _ in scripts.asked} == {COPY}
    assert runner.proofs == {}


def test_steps_lose_no_time_to_it() -> None:
    with_it, without = FakeScripts(), FakeScripts()
    runner, outcome = tried(with_it, PREFETCH)
    _, other = tried(without, PREFETCH, budget_s=0.0)
    assert runner.spent_s == pytest.approx(with_it.pair_s * (runner.proofs[(PREFETCH,)].pairs + 1) * 2)
    assert outcome == other
    assert with_it.steps.log == without.steps.log


def test_where_its_time_is_spent_that_is_said() -> None:
    scripts = FakeScripts()
    runner, _ = tried(scripts, PREFETCH, budget_s=alone.LEAST_S / 2)
    assert scripts.asked == []
    assert (runner.proofs[(PREFETCH,)].verdict, runner.proofs[(PREFETCH,)].why) == ("not-run", alone.NO_TIME)


def test_what_gives_its_elements_only_once_is_told_in_words() -> None:
    runner, outcome = tried(FakeScripts(fault=FailedError("its elements cannot be taken a second time: …")), PREFETCH)
    proof = runner.proofs[(PREFETCH,)]
    assert (proof.verdict, proof.why) == ("not-run", "its elements cannot be taken a second time: …")
    assert proof.before_ns is proof.after_ns is None
    assert outcome.findings[0].proof.verdict == "refuted", "its steps were timed"


def test_what_hung_once_is_not_asked_again() -> None:
    scripts = FakeScripts(fault=GoneError("it took longer than 30 s"))
    runner, _ = tried(scripts, PREFETCH, PARALLEL)
    assert len(scripts.asked) == 1
    assert {one.why for one in runner.proofs.values()} == {alone.HUNG.format("it took longer than 30 s")}


def test_without_a_against_a_nothing_is_proven() -> None:
    scripts = FakeScripts(FakeRunner(Clock()))
    runner = PipelineAlone(scripts, (), 100.0, clock=scripts.steps.clock)
    runner.open(1.0)
    runner.apply(FIXED, [(PARALLEL,)], 1.0)
    runner.time("original", FIXED, 2, 200.0, 1.0)
    runner.drop(FIXED)
    proof = runner.proofs[(PARALLEL,)]
    assert (proof.verdict, proof.speedup) == ("inconclusive", pytest.approx(2.0))
    assert "no A against A" in proof.why
