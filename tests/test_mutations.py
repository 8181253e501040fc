"""Files that are damaged or hostile end with one line or a report, soon, and leave nothing half-written."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import mutations
import pytest

from graphlens import cli

CASES = 300


def test_mutated_files_end_with_a_report_or_one_line() -> None:
    results = list(mutations.run(range(CASES)))
    assert [result for result in results if result.problem] == []
    assert [result.case for result in results] == list(range(CASES))
    ended = Counter(result.code for result in results)
    assert ended[0] > CASES // 5, "most mutations are subtle enough to be judged"
    assert ended[2] > CASES // 10, "and many are not"
    print(mutations.summary(results))


def test_seeds_are_of_every_kind() -> None:
    assert set(mutations.seeds()) == {".capture", ".pb", ".pbtxt", "analysis", "model", "profile"}


def raises(_words: list[str]) -> int:
    raise ValueError("a defect")


def hangs(_words: list[str]) -> int:
    while True:
        sum(range(100_000))


def talks(_words: list[str]) -> int:
    print("one\ntwo", file=sys.stderr)
    return 2


def leaves(words: list[str]) -> int:
    Path(words[words.index("-o") + 1]).with_suffix(".unfinished").write_text("half")
    return 2


def lies(words: list[str]) -> int:
    for number, word in enumerate(words):
        if word == "-o":
            Path(words[number + 1]).write_text("{")
    return 0


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (raises, "ValueError: a defect"),
        (hangs, "took more than"),
        (talks, "said one\ntwo"),
        (leaves, "left ['report.unfinished'] with exit code 2"),
        (lies, "wrote JSON that is none"),
        (lambda _: 1, "ended with 1"),
        (lambda _: 0, "left [] with exit code 0"),
    ],
)
def test_a_case_that_goes_wrong_is_noticed(does, said, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cli, "main", does)
    monkeypatch.setattr(mutations, "LIMIT_S", 0.2)
    assert said in (mutations.run_case(1, tmp_path).problem or "")


WORKER = """
import os, sys
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    print(number, flush=True)
    if number == 1:
        os.abort()
    print('{"case": %d, "seed": "", "mutation": "", "code": 0, "seconds": 0}' % number, flush=True)
"""


def test_a_process_that_is_killed_costs_its_case_alone(monkeypatch, tmp_path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(mutations, "__file__", str(script))
    results = list(mutations.run(range(3)))
    assert [(result.case, result.problem) for result in results] == [
        (0, None),
        (1, "its process ended with -6"),
        (2, None),
    ]
