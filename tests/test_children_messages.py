"""Messages between parents and children arrive as they were sent, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from graphlens.children.messages import (
    Apply,
    Calls,
    Comparison,
    Compiled,
    Difference,
    Done,
    Failure,
    Load,
    MessageError,
    Pair,
    Pairs,
    PlacedGraph,
    Progress,
    RecordRequest,
    from_line,
    to_line,
)
from graphlens.ir.edits import FoldAffine, Ops, OtherEdit
from graphlens.ir.fusion import Chain, ChainOp, Surrounding
from graphlens.ir.nodes import TensorSpec

REQUEST = RecordRequest("m", "saved_model", shapes={"x": (2, 3)}, steps=5, time_budget_s=60.0, trust=True, mode="trace")
CONV = ChainOp("c", "Conv2D", "base", (("x", 0),), {"strides": (1, 1), "T": "half"}, TensorSpec("half", (None,)))
MESSAGES = [
    Progress("profiling", 1, 2),
    Done(),
    Failure("no\nluck", 3),
    REQUEST,
    PlacedGraph("a.pb", "b.pb", {"op": "GPU"}, "8.0", {"x": (None, 3)}, ("cut",), pin_to_host=True),
    Load("written", REQUEST),
    Apply("fixed", ((FoldAffine("a", Ops(("b",), traced=())), OtherEdit("stranger", {"places": ("a", "b")})), ())),
    Calls(12, 7, Compiled(3, 4)),
    Calls(12, 7),
    Comparison((Difference("y", "float32", 1e-5, 0.0, float("inf")), Difference("z", "bool", 0, mismatch="gone")), 3),
    Pairs((Pair(1.0, 2.0, 3.0, 4.0),)),
    Chain("k", "conv", (CONV,), (Surrounding("consumer", "c", "peek", "Softmax"),)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Any) -> None:
    line = to_line(message)
    assert "\n" not in line
    assert from_line(line, [Progress, *{type(one) for one in MESSAGES} - {Progress}]) == message


@pytest.mark.parametrize(
    "line",
    [
        '{"message": "Progr',
        "[" * 100_000,
        "a user's print",
        "[1]",
        "7",
        '{"message": "Stranger"}',
        '{"what": "profiling"}',
        '{"message": ["Progress"], "what": "profiling"}',
        '{"message": "Progress"}',
        '{"message": "Progress", "what": 7}',
        '{"message": "Progress", "what": "profiling", "done": true}',
        '{"message": "Progress", "what": "profiling", "more": 1}',
    ],
)
def test_what_is_no_message_is_none(line: str) -> None:
    with pytest.raises(MessageError):
        from_line(line, [Progress])


def test_what_does_not_fit_is_named_with_its_place() -> None:
    line = to_line(Pairs((Pair(1.0, 2.0, 3.0, 4.0),))).replace("3.0", '"3"')
    with pytest.raises(MessageError, match=r'pairs\[0\]\.before_cpu_ns is "3", expected number'):
        from_line(line, [Pairs])
