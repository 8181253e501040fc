"""Judging a graph of twice the size is at most twice the work, by the lines that are executed (``line_counts``).

A small graph is judged in several copies, and in twice as many.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from large_measured import recorded, repeated
from line_counts import lines_of, what_grows_faster
from load_helpers import graph_def
from test_rules_cases import CASES

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.ir.evidence import Evidence
from graphlens.ir.table import Table
from graphlens.loaders.graphdef import build_graph
from graphlens.pipeline.judge import judge
from graphlens.rules import all_rules, find
from graphlens.rules import judge as judge_by
from graphlens.testing.sketch import sketch

FIXTURES = Path(__file__).parents[1] / "fixtures"

MOST_WALKS = 2  # of the whole graph by one rule, once the facts are known
MOST_VISITS = 3.0  # of each op by one rule, once the facts are known
MOST_VISITS_STATIC = 10.0  # of each op by all facts and rules about a graph that nobody ran; about 5 when written
MOST_VISITS_MEASURED = 50.0  # about 30 when written
MOST_TABLE_BYTES = 600  # an op with its edges in a table; about 400 when written
MOST_FACTS_BYTES = 900  # per op, of what is kept of a graph that nobody ran; about 400 when written

FOUND = [(code, case) for code, cases in sorted(CASES.items()) for case in cases if case.expected["expect"] == "found"]


def growth(evidence: Evidence, copies: int, run: Callable[[Evidence], Any], **how: bool) -> dict[str, tuple[int, int]]:
    run(evidence)  # what is read, imported and compiled once is no growth
    once, twice = (repeated(evidence, count, **how) for count in (copies, 2 * copies))
    return what_grows_faster(lines_of(lambda: run(once)), lines_of(lambda: run(twice)))


def test_a_walk_of_the_graph_for_each_op_is_noticed() -> None:
    def walk(evidence: Evidence) -> None:
        assert evidence.traced is not None
        for name in evidence.traced.main.graph:
            _ = [other for other in evidence.traced.main.graph.ops() if other.name == name]

    assert growth(recorded(FIXTURES / "captures" / "tiny_cnn.capture"), 2, walk)


@pytest.mark.parametrize(("code", "case"), FOUND, ids=[f"{code}: {case.title}" for code, case in FOUND])
def test_a_rule_with_twice_the_findings_is_at_most_twice_the_work(code: str, case: Any) -> None:
    assert not growth(sketch(case.sketch), 8, lambda evidence: judge_by(Facts(evidence), [find(code)]))


@pytest.mark.parametrize("in_turn", [False, True], ids=["side by side", "in turn"])
@pytest.mark.parametrize("name", ["captures/train_step", "captures/lstm", "captures/while_if", "fake_gpu/transformer"])
def test_judging_a_measured_graph_of_twice_the_size_is_at_most_twice_the_work(name: str, in_turn: bool) -> None:
    assert not growth(recorded(FIXTURES / f"{name}.capture"), 2, judge, in_turn=in_turn)


# -- walks ----------------------------------------------------------------------------------------------------------

WALKS = ("ops", "items", "edges", "__iter__")
VISITS = ("op_at", "inputs_at")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often tables were asked for all their ops, or for one."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        ask = getattr(Table, name)

        def asks(table: Table, *arguments: Any) -> Any:
            counted[name] += 1
            return ask(table, *arguments)

        return asks

    for name in (*WALKS, *VISITS):
        monkeypatch.setattr(Table, name, counting(name))
    return counted


def total(counted: Counter[str], names: Sequence[str]) -> int:
    return sum(counted[name] for name in names)


@pytest.mark.parametrize("name", ["captures/train_step", "fake_gpu/transformer"])
def test_a_rule_walks_the_graph_hardly_ever_once_the_facts_are_known(name: str, asked: Counter[str]) -> None:
    facts = Facts(repeated(recorded(FIXTURES / f"{name}.capture"), 2))
    judge_by(facts, all_rules())
    ops = len(facts(judged_graph))
    for rule in all_rules():
        asked.clear()
        judge_by(facts, [rule])
        assert total(asked, WALKS) <= MOST_WALKS, rule.name
        assert total(asked, VISITS) <= MOST_VISITS * ops, rule.name


def static(name: str) -> Evidence:
    known = recorded(FIXTURES / f"{name}.capture")
    return replace(known, executed=None, optimized=None, profile=None, replay={}, unprofiled_ns=())


@pytest.mark.parametrize("name", ["captures/train_step", "captures/lstm", "fake_gpu/transformer"])
def test_an_op_is_looked_at_a_few_times_by_all_rules_together(name: str, asked: Counter[str]) -> None:
    evidence = recorded(FIXTURES / f"{name}.capture")
    for known, most in ((evidence, MOST_VISITS_MEASURED), (static(name), MOST_VISITS_STATIC)):
        several = repeated(known, 2)
        ops = len(Facts(several)(judged_graph))
        asked.clear()
        judge(several)
        assert total(asked, VISITS) <= most * ops


# -- memory ---------------------------------------------------------------------------------------------------------


def bytes_of(make: Callable[[], Any]) -> tuple[int, Any]:
    """Return the bytes that what is made keeps, and it."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        return tracemalloc.get_traced_memory()[0], made
    finally:
        tracemalloc.stop()


def test_an_op_takes_a_few_hundred_bytes_in_a_table_and_in_all_that_is_found_of_it() -> None:
    known = static("captures/train_step")
    judge(known)
    once, twice = (bytes_of(lambda copies=copies: repeated(known, copies)) for copies in (4, 8))
    ops = 4 * len(Facts(known)(judged_graph))
    assert twice[0] - once[0] <= MOST_TABLE_BYTES * ops
    small, large = (bytes_of(lambda evidence=evidence: judge(evidence))[0] for _, evidence in (once, twice))
    assert large - small <= MOST_FACTS_BYTES * ops


def test_ops_of_one_name_are_told_apart_at_once() -> None:
    def lines(count: int) -> Counter[CodeType]:
        damaged = graph_def(*[("a", "NoOp", ())] * count)
        return lines_of(lambda: build_graph(damaged))

    assert what_grows_faster(lines(1000), lines(2000)) == {}


@pytest.mark.parametrize("kind", ["", "^"])
def test_the_edges_into_an_op_with_many_inputs_are_each_looked_at_once(kind: str) -> None:
    def lines(count: int) -> Counter[CodeType]:
        read = [("sum", "AddN", tuple(f"{kind}x{number}" for number in range(count)))]
        graph = build_graph(
            graph_def(*((f"x{number}", "Placeholder", ()) for number in range(count)), *read)
        ).main.graph
        return lines_of(lambda: list(graph.edges()))

    assert what_grows_faster(lines(1000), lines(2000)) == {}
