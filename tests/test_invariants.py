"""What no analysis may say: a share above 1, a path above its step, rows that do not add up, more time than there was.

Held by every committed capture, every golden, and every profile in ``../shared/real`` that is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from end_to_end import CAPTURES
from real_inputs import REAL

import graphlens
from graphlens.facts.core import Facts
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import step_time
from graphlens.ir.evidence import Evidence
from graphlens.ir.run import OpEvent, Profile, Span
from graphlens.pipeline.judge import judge
from graphlens.report.terminal import render

GOLDENS = sorted((Path(__file__).parent / "snapshots").glob("*.json"))
RECORDED = sorted(CAPTURES.glob("*.capture"))
# Target, and the profile that it is judged with.
PROFILES = {
    "gpu_bert_8xV100": ("gpu_bert_8xV100.xplane.pb", None),
    "tpu_v6e_offload": ("tpu_v6e_offload.xplane.pb", None),
    "kittibox_gpu": ("kittibox_gpu.timeline.json", None),
    "gpu_run_metadata": ("gpu_run_metadata/graph.pbtxt", "gpu_run_metadata/run_meta"),
}

# A key that has one of these words holds a part of a whole.
PARTS = re.compile(r"(^|_)(share|rate|coverage|fraction|utilization|busy)(_|$)")
# What may be above 1, and why.  Measures that are no part of a whole (``stability``, ``profiler_overhead``,
# ``imbalance``, ``spread``) have none of the words.
ABOVE_ONE = {
    "roof_share": "the roof is that of the memory; tensors that come from a cache come faster",
    "reached_share": "as roof_share, in the evidence of GL505",
    "roofline.points.share": "as roof_share",
}
NO_PARTS = {"clock_rate": "a frequency, which a profile states of a device"}

# The medians of ops need not add up to the median of the steps.
MEDIANS_DIFFER = 1.05


# -- what is held ---------------------------------------------------------------------------------------------------


def violations(document: dict[str, Any], threads: int | None = None) -> list[str]:
    """Return in words what of a document cannot be; ``threads`` ran the ops of its step (``None``: not known)."""
    return [
        *_parts_above_the_whole(document),
        *_path_above_the_step(document),
        *_rows_that_do_not_add_up(document),
        *_more_time_than_there_was(document, threads),
        *_faster_than_the_machine(document),
    ]


def _numbers(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _numbers(value, (*path, str(key)))
    elif isinstance(node, list):
        for value in node:
            yield from _numbers(value, path)
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield path, node


def _parts_above_the_whole(document: dict[str, Any]) -> Iterator[str]:
    for path, number in _numbers(document):
        name = ".".join(path)
        may_exceed = any(name == key or name.endswith(f".{key}") for key in ABOVE_ONE)
        if not PARTS.search(path[-1]) or path[-1] in NO_PARTS or path[-1].endswith("_ns"):
            continue
        if number < 0 or (number > 1 and not may_exceed):
            yield f"{name} is {number}"


def _path_above_the_step(document: dict[str, Any]) -> Iterator[str]:
    path, step = document["critical_path"], document["step"]
    if path and step and path["ns"] > step["median_ns"]:
        yield f"the critical path of {path['ns']} ns is longer than the step of {step['median_ns']} ns"


def _rows_that_do_not_add_up(document: dict[str, Any]) -> Iterator[str]:
    rows, step = document["ledger"], document["step"]
    yield from (f"the ledger's row {row['category']} is {row['ns']} ns" for row in rows if row["ns"] < 0)
    total_ns = sum(row["ns"] for row in rows)
    if rows and (step is None or total_ns != step["median_ns"]):
        yield f"the ledger's rows are {total_ns} ns together, the step is {step and step['median_ns']} ns"


def _more_time_than_there_was(document: dict[str, Any], threads: int | None) -> Iterator[str]:
    """Of an op that runs in some steps only, its part in the usual step counts; the replay's times are inflated.

    Where only executables were seen and no op of a thread, at least one thread ran them.
    """
    step, ops = document["step"], document.get("ops")
    if ops is None or threads is None:
        return
    timed = [op for op in ops if op["self_ns"] is not None and op["timing"] != "replay"]
    total_ns = sum(op["self_ns"] * min(1, op["calls_per_step"]) for op in timed)
    usual_ns = (step.get("mean_ns") or step["profiled_median_ns"] or step["median_ns"]) if step else 0
    there_was_ns = max(1, threads) * usual_ns
    if total_ns > MEDIANS_DIFFER * there_was_ns:
        yield f"ops take {total_ns:.0f} ns together, {max(1, threads)} threads had {there_was_ns} ns"


def _faster_than_the_machine(document: dict[str, Any]) -> Iterator[str]:
    """A cache is faster than the memory, but nothing computes faster than the machine."""
    roofline = document["roofline"]
    for point in roofline["points"] if roofline else ():
        least_ns = point["flops"] / roofline["roof"]["flops_per_s"] * 1e9
        if least_ns > point["ns"]:
            yield f"{point['op']} took {point['ns']} ns, the machine needs {least_ns:.0f} ns for its operations"


# -- by whom ----------------------------------------------------------------------------------------------------------


@cache
def captured(path: Path) -> graphlens.Analysis:
    return graphlens.load(path)


def checked(analysis: graphlens.Analysis) -> list[str]:
    assert analysis.facts is not None
    return violations(json.loads(analysis.to_json()), analysis.facts(attribution).threads)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_capture_says_nothing_that_cannot_be(path: Path) -> None:
    assert captured(path).step is not None
    assert checked(captured(path)) == []


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_a_golden_says_nothing_that_cannot_be(path: Path) -> None:
    assert violations(json.loads(path.read_text("utf-8"))) == []


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_of_somebody_else_says_nothing_that_cannot_be(name: str) -> None:
    target, profile = (part and REAL / part for part in PROFILES[name])
    assert checked(graphlens.analyze(target, profile=profile, static=profile is None)) == []


# -- that it can fail -------------------------------------------------------------------------------------------------

Doctoring = Callable[[dict[str, Any]], None]


def _doctored(path: str, value: Any) -> Doctoring:
    """Return what puts ``value`` at ``path`` of a document (numbers are positions in lists)."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]

    def put(document: dict[str, Any]) -> None:
        node: Any = document
        for part in parents:
            node = node[part]
        node[last] = value

    return put


TOO_FAST = {"roof": {"flops_per_s": 1e9}, "points": [{"op": "Conv", "flops": 2_000, "ns": 1_000, "share": 2.0}]}


@pytest.mark.parametrize(
    ("doctoring", "words"),
    [
        (_doctored("programs.0.share", 1.2), "programs.share is 1.2"),
        (_doctored("ops.0.wall_share", 1.001), "ops.wall_share is 1.001"),
        (_doctored("quality.join_rate", 1.5), "quality.join_rate is 1.5"),
        (_doctored("quality.coverage", 1.5), "quality.coverage is 1.5"),
        (_doctored("quality.op_share", -0.1), "quality.op_share is -0.1"),
        (_doctored("findings.0.saving.share", 7.0), "findings.saving.share is 7.0"),
        (_doctored("findings.0.evidence", {"deep": [{"share_of_step": 3}]}), "evidence.deep.share_of_step is 3"),
        (_doctored("devices", [{"lanes": [{"busy": [0.5, 1.5]}]}]), "devices.lanes.busy is 1.5"),
        (_doctored("critical_path.ns", 10**12), "the critical path of 1000000000000 ns is longer than the step"),
        (_doctored("ledger.0.ns", -1), "is -1 ns"),
        (_doctored("ledger.0.ns", 1), "the ledger's rows are"),
        (_doctored("step", None), "the step is None ns"),
        (_doctored("ops.0.self_ns", 10**12), "ops take"),
        (_doctored("roofline", TOO_FAST), "Conv took 1000 ns, the machine needs 2000 ns"),
    ],
)
def test_a_document_that_says_what_cannot_be_is_found_out(doctoring: Doctoring, words: str) -> None:
    analysis = captured(CAPTURES / "tiny_cnn.capture")
    assert analysis.facts is not None
    document = json.loads(analysis.to_json())
    doctoring(document)
    assert any(words in violation for violation in violations(document, analysis.facts(attribution).threads))


@pytest.fixture(scope="module")
def too_short() -> Evidence:
    """A recording whose steps are taken for a hundredth of the longest op that runs in each."""
    facts = captured(CAPTURES / "tiny_cnn.capture").facts
    assert facts is not None
    profile = facts.evidence.profile
    assert profile is not None
    steps = tuple(_too_short(profile, step) for step in profile.steps)
    return replace(facts.evidence, profile=replace(profile, steps=steps), unprofiled_ns=())


def _too_short(profile: Profile, step: Span) -> Span:
    longest = max((op for op in profile.ops if step.start_ns <= op.start_ns < step.end_ns), key=_length_ns)
    return step._replace(start_ns=longest.start_ns, end_ns=longest.start_ns + max(1, _length_ns(longest) // 100))


def _length_ns(op: OpEvent) -> int:
    return op.end_ns - op.start_ns


def test_facts_of_steps_that_are_none_say_what_cannot_be(too_short: Evidence) -> None:
    facts = Facts(too_short)
    rows = json.loads(captured(CAPTURES / "tiny_cnn.capture").to_json())
    rows["step"] = {"median_ns": facts(step_time) and facts(step_time).median_ns, "profiled_median_ns": None}
    rows["ops"] = [
        {"self_ns": row.self_ns, "calls_per_step": row.calls_per_step, "timing": row.timing} for row in facts(op_rows)
    ]
    assert any("ops take" in violation for violation in violations(rows, facts(attribution).threads))


def test_an_analysis_of_steps_that_are_none_gives_an_alarm_and_no_number_of_the_step(too_short: Evidence) -> None:
    analysis = judge(too_short)
    document = analysis.document
    assert checked(analysis) == []
    assert document.quality.grade == "none"
    (error,) = document.errors
    assert error.stage == "measure"
    assert re.match(r"ops ran for .* on \d+ threads within \d+ steps of .* in all: .* no time is shown", error.message)
    assert (document.step, document.ledger, document.critical_path) == (None, (), None)
    assert {op.self_ns for op in document.ops} == {op.wall_share for op in document.ops} == {None}
    assert {finding.saving.ns for finding in document.findings} <= {None}
    assert [(row.step, row.share, row.runs) for row in document.programs] == [(None, None, None)]
    text = render(document)
    assert text.index("ALARM") < text.index("Step")
    after = text[text.index("no time") :]
    assert not re.search(r"\d (ns|us|ms|s)\b|\d %", after.partition("Notes")[0])
