"""The judge: needs, errors, severity, ranking, overlaps and fingerprints; finding and selecting rules."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import networkx as nx
import pytest

from graphlens.errors import UsageError
from graphlens.facts.core import Facts
from graphlens.facts.time.ledger import step_time
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.pipeline.judge import judge as judge_evidence
from graphlens.plugins import PluginError
from graphlens.rules import (
    EXECUTED,
    INFERENCE,
    PROFILE,
    Need,
    Rule,
    all_rules,
    find,
    found,
    judge,
    registry,
    rule,
    select,
)
from graphlens.rules.plugin_facts import PluginFacts
from graphlens.rules.runner import FIGURES_LIMIT, FINDINGS_LIMIT
from graphlens.testing.sketch import sketch

DOCUMENTED = Path(__file__).parents[1] / "docs" / "plugins.md"
FENCES = {"python": "```", "markdown": "~~~"}
PAGE = "Toy.\n\n" + "\n\n".join(f"## {heading}\n\ntext" for heading in registry.HEADINGS)
EXAMPLES = "\n\n```bad\nx = Relu()\n```\n\n```good\nx = Relu()\n```\n"
TWO_OPS = """
    x = Placeholder() float32[4]
    a = Relu(x) float32[4] 30us
    b = Relu(a) float32[4] 69us
"""


def toy(code: str, *findings: Finding, needs: tuple[Need, ...] = ()) -> Rule:
    """A rule that finds what it is told to."""

    def check(facts: Facts) -> Iterator[Finding]:
        yield from findings

    check.__doc__ = PAGE + EXAMPLES
    return rule(code, code.lower(), needs=needs)(check)


def about(*nodes: str, share: float | None = None, floor: str = "info") -> Finding:
    saving = Saving() if share is None else Saving(int(share * 1000), share, "modelled")
    return found(
        title="t",
        nodes=nodes,
        reason="r",
        fix=Fix("f", "exact"),
        saving=saving,
        floor=floor,  # type: ignore[arg-type]
    )


def facts(text: str = TWO_OPS) -> Facts:
    return Facts(sketch(text))


# -- judging ------------------------------------------------------------------------------------------------------


def test_a_rule_that_raises_is_an_error_and_the_others_still_run() -> None:
    def broken(facts: Facts) -> Iterator[Finding]:
        yield about("a")
        raise ZeroDivisionError("half way")

    broken.__doc__ = PAGE + EXAMPLES
    findings, statuses = judge(facts(), [rule("TOY001", "broken")(broken), toy("TOY002", about("a"))])
    assert [(status.rule, status.status) for status in statuses] == [("broken", "error"), ("toy002", "found")]
    assert re.search(r"ZeroDivisionError: half way \(tests/test_rules_framework.py:\d+\)", statuses[0].why)
    assert [finding.code for finding in findings] == ["TOY002"], "what a failing rule found so far is not trusted"


def test_a_rule_that_ends_the_program_is_an_error_like_any_other() -> None:
    def leaving(facts: Facts) -> Iterator[Finding]:
        yield about("a")
        sys.exit(7)

    leaving.__doc__ = PAGE + EXAMPLES
    _, statuses = judge(facts(), [rule("TOY001", "leaving")(leaving), toy("TOY002", about("a"))])
    assert [(status.rule, status.status) for status in statuses] == [("leaving", "error"), ("toy002", "found")]
    assert statuses[0].why.startswith("the rule failed with SystemExit: 7 (tests/test_rules_framework.py:")


def test_of_a_rule_that_finds_something_everywhere_so_much_is_kept_as_somebody_reads() -> None:
    asked = count()

    def endless(facts: Facts) -> Iterator[Finding]:
        for _ in asked:
            yield about("a")

    endless.__doc__ = PAGE + EXAMPLES
    findings, (status,) = judge(facts(), [rule("TOY001", "endless")(endless)])
    assert len(findings) == FINDINGS_LIMIT
    assert sum(finding.figure is not None for finding in findings) == FIGURES_LIMIT
    assert next(asked) == FINDINGS_LIMIT + 1, "it was asked for one more, and then no more"
    assert status.why == "1,000 findings, and more that were left out: 1000 a rule"


def test_every_rule_has_a_status_even_when_nothing_is_known() -> None:
    findings, statuses = judge(facts("static"), all_rules())
    assert [status.code for status in statuses] == [item.code for item in all_rules()]
    assert findings == []
    assert all(status.why and status.summary for status in statuses)


@pytest.mark.parametrize(
    ("need", "text", "why"),
    [
        (EXECUTED, "static\nx = Relu()", "nothing was executed: the sketch says static"),
        (PROFILE, "static\nx = Relu()", "nothing was executed"),
        (INFERENCE, "training\nx = Relu()", "the target trains"),
    ],
)
def test_an_unmet_need_makes_a_rule_not_applicable(need: Need, text: str, why: str) -> None:
    _, (status,) = judge(facts(text), [toy("TOY001", about("x"), needs=(need,))])
    assert status.status == "not-applicable"
    assert why in status.why


@pytest.mark.parametrize(
    ("share", "severity"), [(0.10, "high"), (0.099, "medium"), (0.03, "medium"), (0.005, "low"), (0.0049, "info")]
)
def test_severity_is_the_share_of_the_step_that_is_saved(share: float, severity: str) -> None:
    (finding,), _ = judge(facts(), [toy("TOY001", about("a", share=share, floor="medium"))])
    assert finding.severity == severity, "a known share leaves no room for a floor"


@pytest.mark.parametrize(
    ("floor", "severity"), [("info", "info"), ("low", "low"), ("medium", "medium"), ("high", "medium")]
)
def test_without_a_number_a_finding_is_medium_at_most(floor: str, severity: str) -> None:
    (finding,), _ = judge(facts(), [toy("TOY001", about("a", floor=floor))])
    assert finding.severity == severity


def test_findings_are_ranked_by_saving_and_unknown_ones_come_last() -> None:
    rules = [
        toy("TOY001", about("a", share=0.01)),
        toy("TOY002", about("a", floor="medium"), about("b", share=0.5)),
        toy("TOY003", about("b")),
    ]
    findings, _ = judge(facts(), rules)
    assert [finding.code for finding in findings] == ["TOY002", "TOY001", "TOY002", "TOY003"]


def test_what_is_slow_in_general_comes_behind_what_to_change_and_before_what_saves_nothing() -> None:
    general = replace(about("a", share=0.9), general=True)
    findings, _ = judge(
        facts(),
        [
            toy("TOY001", general),
            toy("TOY002", about("a", share=0.01)),
            toy("TOY003", about("b", floor="low"), about("x")),
        ],
    )
    assert [(finding.code, finding.severity) for finding in findings] == [
        ("TOY002", "low"), ("TOY003", "low"), ("TOY001", "high"), ("TOY003", "info")
    ]  # fmt: skip


NAMED = """
    x = Placeholder() float32[4]
    net/first/conv/a = Relu(x) float32[4] 30us
    net/first/bn/b = Relu(net/first/conv/a) float32[4] 40us
    net/second/conv/c = Relu(net/first/bn/b) float32[4] 50us
    net/third/conv/d = Relu(net/second/conv/c) float32[4] 10us
    net/fourth/conv/e = Relu(net/third/conv/d) float32[4] 10us
    net/fourth/bn/f = Relu(net/fourth/conv/e) float32[4] 10us
    gradient_tape/net/first/conv/ReluGrad = ReluGrad(net/fourth/bn/f, net/first/conv/a) float32[4] 90us
"""
A, B, C, D = "net/first/conv/a", "net/first/bn/b", "net/second/conv/c", "net/third/conv/d"


@pytest.mark.parametrize(
    ("nodes", "title"),
    [
        ([A], "first/conv: an op is slow"),
        (["gradient_tape/net/first/conv/ReluGrad"], "first/conv: an op is slow"),
        ([A, C], "second/conv and first/conv: an op is slow"),
        ([C, A, D], "second/conv and 2 more layers: an op is slow"),
        ([A, B, C, D], "An op is slow"),  # most of the six layers: the model is meant
        (["x"], "An op is slow"),
        (["x", A], "An op is slow"),
        ([], "An op is slow"),
    ],
)
def test_a_title_names_the_layer_the_slowest_first(nodes: list[str], title: str) -> None:
    (finding,), _ = judge(facts(NAMED), [toy("TOY001", replace(about(*nodes), title="An op is slow"))])
    assert finding.title == title


def test_a_title_that_names_its_layer_is_left_as_it_is() -> None:
    (finding,), _ = judge(facts(NAMED), [toy("TOY001", replace(about(A), title="GPU:0 waits in first/conv"))])
    assert finding.title == "GPU:0 waits in first/conv"


def test_layers_of_one_scope_are_named_by_it() -> None:
    text = NAMED + "\n".join(f"    net/block/l{at}/g = Relu(x) float32[4] 10us" for at in range(8))
    nodes = [f"net/block/l{at}/g" for at in range(4)]
    (finding,), _ = judge(facts(text), [toy("TOY001", replace(about(*nodes), title="GPU kernels are slow"))])
    assert finding.title == "block: GPU kernels are slow"


def test_findings_about_the_same_ops_name_each_other_by_rank() -> None:
    rules = [toy("TOY001", about("a", "b", share=0.3)), toy("TOY002", about("b", share=0.2)), toy("TOY003", about("x"))]
    findings, _ = judge(facts(), rules)
    assert [finding.shares_ops_with for finding in findings] == [("TOY002#2",), ("TOY001#1",), ()]


def test_a_finding_gets_a_figure_with_its_ops_as_subjects() -> None:
    (finding,), _ = judge(facts(), [toy("TOY001", about("b"))])
    assert finding.figure is not None
    assert {(node.name, node.role) for node in finding.figure.nodes} >= {("b", "subject"), ("a", "context")}


def test_a_static_finding_is_about_the_traced_graph() -> None:
    (finding,), _ = judge(facts("static" + TWO_OPS), [toy("TOY001", about("b"))])
    assert finding.stage == "traced"


# -- fingerprints -------------------------------------------------------------------------------------------------


def fingerprint(text: str, *nodes: str) -> str:
    (finding,), _ = judge(facts(text), [toy("TOY001", about(*nodes))])
    return finding.fingerprint


def test_a_fingerprint_ignores_times_sizes_and_uids() -> None:
    before = fingerprint(
        "net_1/bn_12/a = Relu() float32[4] 5us\nnet_1/bn_12/b = Tanh() 7us", "net_1/bn_12/a", "net_1/bn_12/b"
    )
    after = fingerprint(
        "net_7/bn_3/a = Relu() float32[64] 50us\nnet_7/bn_3/b = Tanh() 1us", "net_7/bn_3/a", "net_7/bn_3/b"
    )
    assert before == after


def test_a_fingerprint_tells_scopes_and_types_apart() -> None:
    prints = {
        fingerprint("net/a = Relu()", "net/a"),
        fingerprint("other/a = Relu()", "other/a"),
        fingerprint("net/a = Tanh()", "net/a"),
    }
    assert len(prints) == 3


def test_findings_of_one_fingerprint_are_numbered_by_their_ops_whatever_they_save() -> None:
    text = "net/a = Relu() 5us\nnet/b = Relu() 7us\nother/c = Tanh()"
    for saved in ((0.1, 0.2), (0.2, 0.1)):
        rule = toy("TOY001", about("net/b", share=saved[0]), about("net/a", share=saved[1]), about("other/c"))
        found, _ = judge(facts(text), [rule])
        assert {finding.nodes: finding.ordinal for finding in found} == {("net/a",): 1, ("net/b",): 2, ("other/c",): 1}
        assert len({(finding.fingerprint, finding.ordinal) for finding in found}) == len(found)


# -- declaring and finding rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name", "page", "message"),
    [
        ("toy1", "a-name", PAGE + EXAMPLES, "rule code"),
        ("TOY001", "A_Name", PAGE + EXAMPLES, "kebab"),
        ("TOY001", "a-name", "Just a line.", "headings"),
        ("TOY001", "a-name", PAGE, "`bad` example"),
    ],
)
def test_a_rule_without_its_page_cannot_be_declared(code: str, name: str, page: str, message: str) -> None:
    def check(facts: Facts) -> Iterator[Finding]:
        yield from ()

    check.__doc__ = page
    with pytest.raises(ValueError, match=message):
        rule(code, name)(check)


def names(rules: tuple[Rule, ...]) -> list[str]:
    return [item.code for item in rules]


def test_rules_are_selected_by_code_prefix_and_name() -> None:
    rules = (toy("TOY001"), toy("TOY002"), toy("TOY101"))
    assert names(select(rules)) == ["TOY001", "TOY002", "TOY101"]
    assert names(select(rules, ["TOY0"])) == ["TOY001", "TOY002"]
    assert names(select(rules, ["toy101", "TOY002"])) == ["TOY002", "TOY101"]
    assert names(select(rules, [], ["TOY0"])) == ["TOY101"]


def test_the_longer_selector_wins_and_ignoring_wins_a_tie() -> None:
    rules = (toy("TOY001"), toy("TOY002"))
    assert names(select(rules, ["TOY001"], ["TOY0"])) == ["TOY001"]
    assert names(select(rules, ["TOY"], ["toy002"])) == ["TOY001"]
    assert names(select(rules, ["TOY001"], ["toy001"])) == []


@pytest.mark.parametrize(("wrong", "nearest"), [("unfolded-batchnorm", "unfolded-batch-norm"), ("GL299", "GL")])
def test_an_unknown_selector_offers_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{nearest}"):
        select(all_rules(), [wrong])
    with pytest.raises(UsageError, match="no rule is called"):
        find(wrong)


def test_a_prefix_that_matches_nothing_is_refused_in_ignore_too() -> None:
    with pytest.raises(UsageError, match="no rule is called 'XY'"):
        select(all_rules(), [], ["XY"])


# -- plug-ins -----------------------------------------------------------------------------------------------------


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What the entry points of the group ``graphlens.rules`` load; fill it before asking for the rules."""
    loaded: list[object] = []

    def load_group(group: str) -> Iterator[object]:
        assert group == "graphlens.rules"
        for item in loaded:
            if isinstance(item, Exception):
                raise item
            yield item

    monkeypatch.setattr(registry, "load_group", load_group)
    all_rules.cache_clear()
    yield loaded
    all_rules.cache_clear()


def test_a_plugin_adds_the_rules_of_its_module(plugins: list[object]) -> None:
    plugins.append(SimpleNamespace(first=toy("ACME001"), second=toy("ACME002"), other=3))
    plugins.append(toy("ZED001"))
    assert {"ACME001", "ACME002", "ZED001", "GL203"} <= {item.code for item in all_rules()}


def documented_code(language: str) -> list[str]:
    fence = FENCES[language]
    text = DOCUMENTED.read_text(encoding="utf-8")
    return re.findall(rf"^{fence}{language}\n(.*?)^{fence}$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def documented(plugins: list[object]) -> ModuleType:
    """The module that the documentation of plug-ins shows, installed."""
    source, *_ = documented_code("python")
    module = ModuleType("acme_rules")
    exec(compile(source, str(DOCUMENTED), "exec"), vars(module))
    plugins.append(module)
    return module


def test_every_documented_fact_is_where_the_page_says_and_can_be_asked_for() -> None:
    facts = Facts(sketch(TWO_OPS))
    asks = re.findall(r"^\| .*`facts\(.*", DOCUMENTED.read_text(encoding="utf-8"), re.MULTILINE)
    paths = [path for line in asks for path in re.findall(r"`facts\(([\w.]+)\)`", line)]
    assert len(paths) == 14
    for path in paths:
        module, _, name = path.rpartition(".")
        facts(getattr(import_module(f"graphlens.facts.{module}"), name))


def test_the_documented_plugin_finds_its_bad_example_and_not_its_good_one(documented: ModuleType) -> None:
    old_blur = find("ACME001")
    (finding,), (status,) = judge(Facts(sketch(old_blur.examples["bad"])), [old_blur])
    assert (finding.nodes, status.status, finding.severity) == (("y",), "found", "high")
    assert finding.saving.ns
    assert judge(Facts(sketch(old_blur.examples["good"])), [old_blur])[0] == []
    assert [loaded.code for loaded in select(all_rules(), ["ACME"])] == ["ACME001"]


def test_the_documented_tests_of_the_plugin_pass(
    documented: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, source, *_ = documented_code("python")
    (cases,) = documented_code("markdown")
    (tmp_path / "acme_cases.md").write_text(cases, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "acme_rules", documented)
    names: dict[str, Any] = {}
    exec(compile(source, str(DOCUMENTED), "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()
    monkeypatch.setattr(find("ACME001").check, "__code__", (lambda facts: iter(())).__code__)
    with pytest.raises(AssertionError, match="ACME001: the bad example is passed"):
        tests[0]()


def test_a_fact_of_a_plugin_that_fails_is_told_like_any_other(
    documented: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(facts: Facts) -> tuple[str, ...]:
        return facts.graph  # type: ignore[attr-defined, no-any-return]  # facts are asked, they have no members

    monkeypatch.setattr(documented.acme_blurs, "derive", fail)
    document = judge_evidence(sketch(find("ACME001").examples["bad"])).document
    (message,) = (error.message for error in document.errors)
    assert message.startswith("acme_blurs failed with AttributeError: 'Facts' object has no attribute 'graph' (")
    failed = [status for status in document.rules if status.status == "error"]
    assert [(status.code, status.why) for status in failed] == [("ACME001", "it needs acme_blurs, which failed")]


def test_a_finding_of_a_plugin_that_no_document_can_hold_is_an_error_of_its_rule(
    documented: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    blurs = documented.old_blur
    broken = replace(blurs, check=lambda facts: (replace(f, evidence={"of": {1}}) for f in blurs.check(facts)))
    findings, (status,) = judge(Facts(sketch(blurs.examples["bad"])), [broken])
    assert findings == []
    assert status.status == "error"
    assert status.why.startswith("the rule failed with TypeError: evidence.of of a finding is a set, which JSON cannot")


# Everything that a rule could read before facts were asked.
MEMBERS = """traced executed stage graph order programs profile origins renamed executed_by attribution joined_loosely
step step_times_ns ledger quality path_weights_ns critical_path path_ns slack_ns call_share kernel_work roofline
roof_shares memory constant_ops frozen_ops affine_chains dataflow fusion_candidates unfused kernels copies transfers
accelerators syncs device_uses device_busy device_running device_windows devices distribution training op_rows
evidence""".split()
OF_OPS = "op timing layer flops bytes told".split()


def test_a_rule_of_a_plugin_reads_what_it_could_always_read() -> None:
    read: dict[str, object] = {}

    def check(facts: Any) -> Iterator[Finding]:
        read.update({name: getattr(facts, name) for name in MEMBERS})
        read.update({name: getattr(facts, name)("b") for name in OF_OPS})
        read["figure_after"] = facts.figure_after(facts.figure(["b"]), ["b"])
        yield found(title="t", nodes=["b"], reason="r", fix=Fix("f", "exact"), saving=facts.saving(["b"]))
        assert facts.saving_at({"b": 0.5}).share == pytest.approx(facts.saving(["b"]).share / 2, rel=0.02)

    check.__doc__ = PAGE + EXAMPLES
    needs = (EXECUTED, Need("ops", lambda facts: facts.graph.number_of_nodes() > 2, lambda _: ""))  # type: ignore[attr-defined]
    (finding,), (status,) = judge(facts(), [rule("TOY001", "reader", needs=needs)(check)])
    assert (status.status, finding.saving.share) == ("found", pytest.approx(0.69, abs=0.01))
    assert read["stage"] == "executed"
    assert {name for name, value in read.items() if value is None} <= {"roofline", "distribution", "layer"}
    assert (read["op"].type, read["timing"].self_ns) == ("Relu", 69_000)  # type: ignore[attr-defined]
    assert (read["flops"], read["bytes"]) == (4, 32)


def test_a_rule_of_a_plugin_is_handed_networkx_graphs_with_ops_and_edges() -> None:
    seen = PluginFacts(facts())
    for graph in (seen.graph, seen.traced, seen.executed):
        assert isinstance(graph, nx.MultiDiGraph)
        assert {name: op.type for name, op in graph.nodes(data="op")} == {"x": "Placeholder", "a": "Relu", "b": "Relu"}
        assert [(src, dst, edge.kind, edge.dst_port) for src, dst, edge in graph.edges(data="edge")] == [
            ("x", "a", "data", 0),
            ("a", "b", "data", 0),
        ]
    assert seen.graph is seen.graph, "made once"
    assert seen(step_time) == seen.step


def test_a_member_that_never_was_is_refused_with_what_to_do() -> None:
    with pytest.raises(AttributeError, match="no member 'slowest'; ask for a fact as facts"):
        _ = PluginFacts(facts()).slowest


def test_a_rule_of_ours_is_handed_the_facts_themselves() -> None:
    one = facts()
    assert find("GL203").seen(one) is one
    assert isinstance(toy("TOY001").seen(one), PluginFacts)


def test_a_plugin_that_fails_to_load_is_named(plugins: list[object]) -> None:
    plugins.append(PluginError("plug-in 'acme' of 'acme-rules' failed to load (boom); update or uninstall it"))
    with pytest.raises(UsageError, match="acme-rules"):
        all_rules()


def test_a_plugin_may_not_use_the_reserved_prefix(plugins: list[object]) -> None:
    plugins.append(toy("GL999"))
    with pytest.raises(UsageError, match="reserved prefix"):
        all_rules()


def test_two_rules_may_not_share_a_name(plugins: list[object]) -> None:
    plugins.extend([toy("ACME001"), replace(toy("ACME002"), name="acme001")])
    with pytest.raises(UsageError, match="two rules have the name 'acme001'"):
        all_rules()
