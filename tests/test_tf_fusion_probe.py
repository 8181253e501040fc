"""The experiments with real processes: Grappler's and XLA's own word on small chains."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphlens.children import ask_fusion
from graphlens.facts.core import Facts
from graphlens.facts.patterns.experiments import chains_to_probe
from graphlens.ir.fusion import FusionAnswer, Obstacle
from graphlens.ir.settings import ONEDNN
from graphlens.testing.sketch import sketch

pytestmark = pytest.mark.tf

MODEL = """
    x     = Placeholder() float32[4,8,8,4]
    w     = ReadVariableOp(filter) float32[3,3,4,8]
    b     = ReadVariableOp(offset) float32[8]
    conv  = Conv2D(x, w) float32[4,8,8,8] {T: float32, data_format: NHWC, strides: [1,1,1,1], padding: SAME}
    bias  = BiasAdd(conv, b) float32[4,8,8,8] {T: float32}
    act   = Relu(bias) float32[4,8,8,8] {T: float32}
    peek  = Softmax(conv) float32[4,8,8,8] {T: float32}
    wide  = ReadVariableOp(other) float32[3,3,8,8]
    kept  = Conv2D(act, wide) float32[4,8,8,8] {T: float32, data_format: NHWC, strides: [1,1,1,1], padding: SAME}
    gate  = BiasAdd(kept, b) float32[4,8,8,8] {T: float32}
    half  = Sigmoid(gate) float32[4,8,8,8] {T: float32}
    swish = Mul(gate, half) float32[4,8,8,8] {T: float32}
    text  = AsString(swish) string[4,8,8,8] {T: float32}
    bare  = StringLength(text) int32[4,8,8,8]
    one   = _Retval(bare)
    two   = _Retval(peek)
    plain = Conv2D(x, w) float32[4,8,8,8] {T: float32, data_format: NHWC, strides: [1,1,1,1], padding: SAME}
    moved = AddV2(plain, b) float32[4,8,8,8] {T: float32}
    left  = Relu(moved) float32[4,8,8,8] {T: float32}
    half4 = ReadVariableOp(part) float32[3,3,2,8]
    parts = Conv2D(x, half4) float32[4,8,8,8] {T: float32, data_format: NHWC, strides: [1,1,1,1], padding: SAME}
    added = AddV2(parts, b) float32[4,8,8,8] {T: float32}
    right = Relu(added) float32[4,8,8,8] {T: float32}
    three = _Retval(left)
    four  = _Retval(right)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FusionAnswer]:
    """What the processes say where oneDNN is off, as it is on many processors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ONEDNN, "0")
        return ask_fusion.probe(Facts(sketch(MODEL))(chains_to_probe), tmp_path_factory.mktemp("logs"))


def kinds(answer: FusionAnswer) -> list[list[str]]:
    return [[item.kind for item in some] for some in answer.changes]


def test_a_second_reader_is_named(answers: dict[str, FusionAnswer]) -> None:
    assert answers["conv:conv"].changes == ((Obstacle("consumer", "peek", "Softmax"),),)


def test_swish_is_taken_in_by_onednn_only(answers: dict[str, FusionAnswer]) -> None:
    assert kinds(answers["conv:kept"]) == [["onednn"], ["activation"]]


def test_onednn_takes_a_variable_for_a_bias_however_it_is_added(answers: dict[str, FusionAnswer]) -> None:
    assert kinds(answers["conv:plain"]) == [["addition"], ["onednn"]]


def test_a_grouped_convolution_is_told_apart_since_it_has_no_fused_kernel_without_onednn(
    answers: dict[str, FusionAnswer],
) -> None:
    """With ``BiasAdd``, which Grappler would fuse as in the ordinary one, every call would fail."""
    assert kinds(answers["conv:parts"]) == [["onednn"]]


def test_the_compiler_confirms_the_registry(answers: dict[str, FusionAnswer]) -> None:
    assert answers["xla:AsString:"].verdict == "unsupported", answers["xla:AsString:"]


def test_nothing_is_started_for_nothing(tmp_path: Path) -> None:
    assert ask_fusion.probe([], tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_dies_answers_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ask_fusion, "_MODULE", "graphlens.no_such_module")
    assert ask_fusion.probe(Facts(sketch(MODEL))(chains_to_probe), tmp_path) == {}
