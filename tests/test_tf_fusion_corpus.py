"""A hundred graphs with a planted reason for not being fused: the experiments find that reason, oneDNN on and off.

The oracle is the table of ``fusion_corpus``: what TensorFlow 2.21 was seen to do with each graph as a whole, and which
property of it was planted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CORPUS = Path(__file__).parent / "fusion_corpus.py"

pytestmark = pytest.mark.tf
each_setting = pytest.mark.parametrize("setting", ["off", "on"])


@cache
def answers(setting: str) -> list[dict[str, Any]]:
    onednn = {"off": "0", "on": "1"}[setting]
    run = subprocess.run(
        [sys.executable, str(CORPUS)],
        capture_output=True,
        text=True,
        check=False,
        cwd=CORPUS.parents[1],
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def said(answer: dict[str, Any]) -> set[str]:
    """What was found, in the words of the table: one entry for each alternative."""
    if "verdict" not in answer:
        return {f"not one candidate but {answer['candidates']}"}
    if answer["verdict"] == "explained":
        return {"+".join(sorted({kind for kind, _, _ in some})) for some in answer["changes"]}
    return {"fused" if answer["verdict"] == "fuses" else answer["verdict"]}


@each_setting
def test_the_planted_reason_comes_back(setting: str) -> None:
    wrong = {
        answer["name"]: (answer[setting], said(answer))
        for answer in answers(setting)
        if not said(answer) & set(answer[setting].split("|"))
    }
    assert wrong == {}
    assert len(answers(setting)) >= 100


@each_setting
def test_tensorflow_can_call_whatever_is_said_to_be_one_kernel(setting: str) -> None:
    """Grappler also makes kernels that TensorFlow does not have: what the model's author would change would fail."""
    failed = {answer["name"]: answer["without_kernel"] for answer in answers(setting) if answer.get("without_kernel")}
    assert failed == {}
    assert sum(answer.get("called", 0) for answer in answers(setting)) >= 50


@each_setting
def test_an_obstacle_names_the_op_that_was_planted(setting: str) -> None:
    by_name = {answer["name"]: answer for answer in answers(setting)}

    def ops(name: str) -> set[tuple[str, str]]:
        return {(op, found) for some in by_name[name]["changes"] for _, op, found in some}

    assert ops("conv read by Shape") == {("Shape", "Shape")}
    assert ops("Transpose between") == {("transpose", "Transpose")}
    assert ("Assert/Assert", "Assert") in ops("an assertion waits for the conv")
    assert ops("bias fetched") == {("result_1", "")}
    assert ("Tanh", "Tanh") in ops("read twice, then tanh")
