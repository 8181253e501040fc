"""Facts are asked: each is derived once, a failing one is told, and other evidence keeps what it does not touch."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, fields, replace
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest

import graphlens.facts
from graphlens.children import ask_fusion
from graphlens.children.messages import RecordRequest
from graphlens.cli import main
from graphlens.config import Request, no_progress
from graphlens.errors import TargetError, UsageError
from graphlens.facts.core import Fact, FactError, Facts, fact
from graphlens.facts.graphs import executed_graph, judged_graph, origins, traced_graph
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import ledger, step_time
from graphlens.facts.time.quality import quality
from graphlens.facts.work.memory import peak_memory
from graphlens.ir.analysis import JUDGE, Target
from graphlens.ir.document import to_json
from graphlens.ir.evidence import Evidence
from graphlens.ir.fusion import FusionAnswer
from graphlens.ir.table import Table
from graphlens.loaders.capture.reading import evidence_of, open_capture
from graphlens.pipeline import analyze, whatif
from graphlens.pipeline.gather import Gathered
from graphlens.pipeline.judge import judge, judge_facts
from graphlens.pipeline.stages import through
from graphlens.rules import all_rules
from graphlens.testing.sketch import sketch

PACKAGE = Path(graphlens.facts.__file__).parents[1]
CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
TINY, TWO_DEVICES = CAPTURES / "tiny_cnn.capture", CAPTURES / "two_devices.capture"
EVIDENCE = Evidence(Target("t", "saved_model"), empty_call_ns=3, unprofiled_ns=(5, 7))


def of_package() -> dict[str, Fact[object]]:
    """Every fact of the package by its name."""
    modules = [
        import_module(found.name) for found in walk_packages(graphlens.facts.__path__, f"{graphlens.facts.__name__}.")
    ]
    return {value.name: value for module in modules for value in vars(module).values() if isinstance(value, Fact)}


FACTS = of_package()


@fact
def call_ns(facts: Facts) -> int | None:
    """Read from one part of the evidence."""
    return facts.evidence.empty_call_ns


@fact
def twice_call_ns(facts: Facts) -> int:
    """Read from the same part by way of another fact."""
    return 2 * (facts(call_ns) or 0)


@fact
def steps(facts: Facts) -> tuple[int, ...]:
    """Read from another part."""
    return facts.evidence.unprofiled_ns


@fact
def broken(facts: Facts) -> int:
    """Never derived."""
    return 1 // len(facts.evidence.replay)


@fact
def above_broken(facts: Facts) -> int:
    """Needs what cannot be derived."""
    return facts(broken) + 1


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each fact was derived, those of the package and those of this file."""
    counted: Counter[str] = Counter()

    def counting(one: Fact[object]) -> Callable[[Facts], object]:
        derive = one.derive

        def count(facts: Facts) -> object:
            counted[one.name] += 1
            return derive(facts)

        return count

    for one in [*FACTS.values(), call_ns, twice_call_ns, steps, broken, above_broken]:
        monkeypatch.setattr(one, "derive", counting(one))
    return counted


# -- asking -------------------------------------------------------------------------------------------------------


def test_a_fact_is_derived_once_whoever_asks(derived: Counter[str]) -> None:
    facts = Facts(EVIDENCE)
    assert [facts(twice_call_ns), facts(call_ns), facts(twice_call_ns)] == [6, 3, 6]
    assert derived == {"call_ns": 1, "twice_call_ns": 1}


def test_a_fact_that_fails_fails_once_for_everybody(derived: Counter[str]) -> None:
    facts = Facts(EVIDENCE)
    messages = []
    for one in (broken, above_broken, broken):
        with pytest.raises(FactError) as raised:
            facts(one)
        messages.append(str(raised.value))
    (message,) = set(messages)
    assert message.startswith("broken failed with ZeroDivisionError: integer division or modulo by zero (tests/test_")
    assert derived == {"broken": 1, "above_broken": 1}
    assert [str(error) for error in facts.errors] == [message], "one cause is one error"
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_what_fails_may_be_done_without() -> None:
    facts = Facts(EVIDENCE)
    assert facts.known(above_broken, None) is None
    assert facts.known(call_ns, None) == 3
    assert len(facts.errors) == 1


def test_what_a_fact_has_to_say_to_the_user_is_no_defect() -> None:
    @fact
    def too_large(facts: Facts) -> int:
        raise TargetError("the graph is too large; analyze a smaller signature")

    facts = Facts(EVIDENCE)
    for _ in range(2):
        with pytest.raises(TargetError, match="analyze a smaller signature"):
            facts.known(too_large, None)
    assert facts.errors == ()


def test_a_fact_that_needs_itself_says_so() -> None:
    @fact
    def chicken(facts: Facts) -> int:
        return facts(egg)

    @fact
    def egg(facts: Facts) -> int:
        return facts(chicken)

    with pytest.raises(FactError, match="chicken failed with RecursionError: it asks for itself, by way of egg"):
        Facts(EVIDENCE)(chicken)


def test_a_fact_is_neither_called_nor_a_generator() -> None:
    with pytest.raises(TypeError, match="not callable"):
        call_ns(Facts(EVIDENCE))  # type: ignore[operator]

    @fact
    def generated(facts: Facts) -> Iterator[int]:
        yield 1

    with pytest.raises(FactError, match="generated failed with TypeError: it can be read only once; let it return a t"):
        Facts(EVIDENCE)(generated)


def test_a_fact_may_not_read_on_when_it_is_derived() -> None:
    """Else nobody would know what it rests on."""

    @fact
    def later(facts: Facts) -> Callable[[], object]:
        return lambda: (facts.evidence.notes, facts.evidence.replay)

    with pytest.raises(RuntimeError, match="later is derived already"):
        Facts(EVIDENCE)(later)()


# -- other evidence -----------------------------------------------------------------------------------------------


def test_other_evidence_drops_what_rests_on_a_part_that_changed_and_nothing_else(derived: Counter[str]) -> None:
    facts = Facts(EVIDENCE)
    assert (facts(twice_call_ns), facts(steps), facts.known(broken, 0)) == (6, (5, 7), 0)
    other = facts.with_(replace(EVIDENCE, empty_call_ns=4))
    assert (other(twice_call_ns), other(steps), other.known(broken, 0)) == (8, (5, 7), 0)
    assert derived == {"call_ns": 2, "twice_call_ns": 2, "steps": 1, "broken": 1}
    assert len(other.errors) == 1, "a failure is kept like any other answer"
    assert (facts(twice_call_ns), facts.evidence.empty_call_ns) == (6, 3), "the first ones stay what they were"


def test_what_is_no_part_of_the_evidence_may_rest_on_all_of_it() -> None:
    @fact
    def about_main(facts: Facts) -> bool:
        return facts.evidence.is_about_main

    facts = Facts(EVIDENCE)
    assert facts(about_main)
    assert about_main not in facts.with_(replace(EVIDENCE, notes=("a",)))._answers


def without(evidence: Evidence, part: Field[Any]) -> Evidence:
    """The evidence without one of its parts; the target, which is never missing, is another one."""
    if part.name == "target":
        return replace(evidence, target=Target("another", "saved_model"))
    empty = part.default if part.default_factory is MISSING else part.default_factory()
    return replace(evidence, **{part.name: empty})


@pytest.mark.parametrize("path", [TINY, TWO_DEVICES], ids=lambda path: path.stem)
def test_what_is_kept_is_what_would_be_derived_anew(path: Path) -> None:
    """Whichever part is taken away: the document is that of somebody who never knew of it."""
    evidence = evidence_of(open_capture(path))
    warm = Facts(evidence)
    judge_facts(warm)
    for one in FACTS.values():
        warm.known(one, None)
    for part in fields(Evidence):
        changed = without(evidence, part)
        assert to_json(judge_facts(warm.with_(changed)).document) == to_json(judge(changed).document), part.name


def test_a_whole_judgement_with_probe_and_placement_derives_every_fact_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, derived: Counter[str]
) -> None:
    """All but those that rest on what probe and placement found out."""
    evidence = evidence_of(open_capture(TINY))
    assert evidence.executed is not None
    request = Request.of(str(TINY), assume_device="gpu")
    gathered = Gathered(evidence, tmp_path, None, RecordRequest(str(TINY), "saved_model"), TINY)
    asked: list[Sequence[object]] = []

    def probe(chains: Sequence[object], folder: Path) -> dict[str, FusionAnswer]:
        asked.append(chains)
        return {}

    monkeypatch.setattr(ask_fusion, "probe", probe)
    monkeypatch.setattr("graphlens.pipeline.proofs.chains_to_probe", _with_a_chain(monkeypatch))
    monkeypatch.setattr(whatif, "_installed", lambda: None)
    monkeypatch.setattr("graphlens.pipeline.proofs.with_proofs", lambda request, gathered, analysis, progress: analysis)
    analysis = through(request, gathered, no_progress).judged
    assert len(asked) == 1, "the probe was asked"
    assert analysis.document.placement is not None, "the placement is there"
    assert {status.status for status in analysis.document.rules} <= {"found", "passed", "not-applicable"}
    once = {name for name, count in derived.items() if count == 1}
    assert {one.name for one in (traced_graph, executed_graph, origins, attribution, ledger, judged_graph)} <= once
    again = {name for name, count in derived.items() if count > 1}
    assert again <= {"unfused"}, "rests on the answers of the probe"
    assert max(derived.values()) <= 2


def _with_a_chain(monkeypatch: pytest.MonkeyPatch) -> Fact[object]:
    """The chains to probe, and one more where the capture gives none."""
    real = FACTS["chains_to_probe"]
    derive = real.derive
    monkeypatch.setattr(real, "derive", lambda facts: (*derive(facts), object()))  # type: ignore[misc]
    return real


# -- what fails is told -------------------------------------------------------------------------------------------


def plant(monkeypatch: pytest.MonkeyPatch, one: Fact[object]) -> list[str]:
    """Let a fact fail; the list tells whether anybody asked."""
    asked: list[str] = []

    def fail(facts: Facts) -> object:
        asked.append(one.name)
        raise LookupError("planted")

    monkeypatch.setattr(one, "derive", fail)
    return asked


@pytest.mark.parametrize("name", sorted(FACTS))
@pytest.mark.parametrize("path", [TINY, TWO_DEVICES], ids=lambda path: path.stem)
def test_whichever_fact_fails_the_analysis_is_made_and_tells_it(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plant(monkeypatch, FACTS[name])
    document = judge(evidence_of(open_capture(path))).document
    told = [error.message for error in document.errors if error.stage == JUDGE]
    assert len(told) == len(asked) <= 1
    assert all(message.startswith(f"{name} failed with LookupError: planted (tests/") for message in told)
    assert [status.code for status in document.rules] == [rule.code for rule in all_rules()]
    assert all(name in status.why for status in document.rules if status.status == "error")
    json.loads(to_json(document))


@pytest.mark.parametrize("one", [attribution, ledger, peak_memory, quality, op_rows, judged_graph])
def test_the_report_of_an_analysis_with_a_failed_fact_is_written(
    one: Fact[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plant(monkeypatch, one) == []
    outputs = [tmp_path / name for name in ("report.json", "report.html", "report.txt")]
    code = main(["analyze", str(TINY), *(word for path in outputs for word in ("-o", str(path)))])
    assert code == 0
    shown = capsys.readouterr().out
    assert f"{one.name} failed with LookupError: planted" in " ".join(shown.split())
    assert ("Not known (grade: none)" in shown) == (one not in (op_rows, peak_memory)), "it rests on the others"
    assert "no step was executed" not in shown
    assert all(one.name in path.read_text(encoding="utf-8") for path in outputs)


def test_without_the_attribution_what_rests_on_the_graph_alone_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    before = judge(evidence_of(open_capture(TINY))).document
    plant(monkeypatch, attribution)
    after = judge(evidence_of(open_capture(TINY))).document
    assert (after.step, after.ledger, after.critical_path, after.quality.grade) == (None, (), None, "none")
    assert (after.graphs, len(after.ops)) == (before.graphs, len(before.ops))
    assert {(row.name, row.op, row.flops) for row in after.ops} == {(row.name, row.op, row.flops) for row in before.ops}
    assert {row.self_ns for row in after.ops} == {None}


def test_a_fact_that_fails_costs_only_the_rules_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = judge(evidence_of(open_capture(TINY))).document
    plant(monkeypatch, peak_memory)
    after = judge(evidence_of(open_capture(TINY))).document
    changed = {new.code: new for old, new in zip(before.rules, after.rules, strict=True) if old != new}
    assert {code: status.status for code, status in changed.items()} == {"GL601": "error"}
    assert changed["GL601"].why == "it needs peak_memory, which failed"
    assert (after.memory, after.step, after.findings) == (None, before.step, before.findings)


def test_an_impossible_measurement_is_judged_by_its_graphs_with_what_was_derived_of_them(derived: Counter[str]) -> None:
    evidence = sketch("x = Placeholder() float32[8]\ny = Relu(x) float32[8] 30us\nz = Tanh(y) float32[8] 60us")
    assert evidence.profile is not None
    longer = tuple(event._replace(end_ns=event.end_ns * 9, self_ns=event.self_ns * 9) for event in evidence.profile.ops)
    document = judge(replace(evidence, profile=replace(evidence.profile, ops=longer))).document
    assert [error.stage for error in document.errors] == ["measure"]
    assert document.step is None
    assert derived["traced_graph"] == 1
    assert derived[attribution.name] == derived[step_time.name] == 2


def test_a_target_that_is_too_large_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(facts: Facts) -> Table | None:
        raise TargetError("too large; analyze a smaller signature")

    monkeypatch.setattr(traced_graph, "derive", refuse)
    with pytest.raises(TargetError, match="a smaller signature"):
        analyze(Request.of(str(TINY)))


def test_a_failing_fact_before_the_placement_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, traced_graph)
    document = analyze(Request.of(str(TINY), assume_device="gpu")).document
    assert document.placement is None
    assert [error.stage for error in document.errors] == [JUDGE]
    with pytest.raises(UsageError):
        analyze(Request.of(str(TINY), assume_device="no such device"))


def test_a_placement_that_fails_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Evidence:
        raise LookupError("planted")

    monkeypatch.setattr(whatif, "_placed", fail)
    document = analyze(Request.of(str(TINY), assume_device="gpu")).document
    assert [error.stage for error in document.errors] == ["place"]
    assert document.errors[0].message.startswith("the placement failed with LookupError: planted (tests/")
    assert (document.placement, document.step) == (None, judge(evidence_of(open_capture(TINY))).step)


# -- networkx is for others ---------------------------------------------------------------------------------------


def test_no_rule_and_no_fact_of_ours_asks_for_networkx() -> None:
    """`Table.networkx` is made for users: rules of plug-ins are handed it, and `Analysis.to_networkx` makes another."""
    using = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "networkx"
    }
    assert using == {"rules/plugin_facts.py"}


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.capture")), ids=lambda path: path.stem)
def test_a_capture_is_judged_without_making_one_networkx_graph(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(table: Table) -> object:
        raise AssertionError("a rule of ours reads networkx")

    monkeypatch.setattr(Table, "networkx", refuse)
    statuses = judge(evidence_of(open_capture(path))).document.rules
    assert [status for status in statuses if status.status == "error"] == []
