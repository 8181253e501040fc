"""Candidates for fusion, the changes that are tried on them, and what the rules say of the answers; no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from graphlens.children import ask_fusion
from graphlens.children.messages import from_line, to_line
from graphlens.facts.core import Facts
from graphlens.facts.patterns.experiments import chains_to_probe
from graphlens.facts.patterns.fusion import fusion_candidates, unfused
from graphlens.ir.analysis import Finding
from graphlens.ir.edits import Ops, SinkReshape, SumByAddN
from graphlens.ir.fusion import (
    COMPILE,
    Chain,
    FusionAnswer,
    Obstacle,
    Surrounding,
    answer_for,
)
from graphlens.rules import find, judge
from graphlens.testing.sketch import sketch
from graphlens.tf.probe.fusion_child import explain
from graphlens.tf.probe.relax import relaxations

CONV = """
    x    = Placeholder() float32[1,8,8,4]
    w    = Const() float32[3,3,4,8]
    b    = Const() float32[8]
    conv = Conv2D(x, w) float32[1,8,8,8] 80us {data_format: NHWC, T: float32}
    bias = BiasAdd(conv, b) float32[1,8,8,8] 20us {data_format: NHWC, T: float32}
    act  = Tanh(bias) float32[1,8,8,8] 20us {T: float32}
    out  = _Retval(act)
"""


MATMUL = """
    x       = Placeholder() float32[32,16]
    w       = Const() float32[16,8]
    b       = Const() float32[8]
    size    = Const() int32[3] = [4, 8, 8]
    product = MatMul(x, w) float32[32,8] 80us {T: float32}
    r       = Reshape(product, size) float32[4,8,8] 1us {T: float32}
    bias    = BiasAdd(r, b) float32[4,8,8] 20us {data_format: NHWC, T: float32}
    out     = _Retval(bias)
"""


def chain_of(text: str) -> Chain:
    (chain,) = (chain for chain in Facts(sketch(text))(chains_to_probe) if chain.kind != COMPILE)
    return chain


def types(chain: Chain) -> list[str]:
    return [op.type for op in chain.core]


# -- candidates ----------------------------------------------------------------------------------------------------


def test_a_chain_is_cut_out_with_its_boundary() -> None:
    chain = chain_of(CONV)
    assert chain.key == "conv:conv"
    assert [(op.name, op.role) for op in chain.ops] == [
        ("x", "boundary"),
        ("w", "constant"),
        ("conv", "base"),
        ("b", "constant"),
        ("bias", "bias"),
        ("act", "activation"),
    ]
    assert chain.surroundings == ()


def test_what_else_touches_inner_results_is_named() -> None:
    chain = chain_of(
        CONV
        + """
    peek = Softmax(conv) float32[1,8,8,8]
    note = PrintV2(x, ^bias)
    seen = _Retval(peek)
    raw  = _Retval(bias)
    """
    )
    assert set(chain.surroundings) == {
        Surrounding("consumer", "conv", "peek", "Softmax"),
        Surrounding("fetched", "bias", "raw", ""),
        Surrounding("control-out", "bias", "note", "PrintV2"),
    }


def test_ops_that_pass_a_tensor_on_are_looked_through() -> None:
    """As in `tf.nn.silu`, whose custom gradient adds an ``IdentityN`` that also reads the input."""
    facts = Facts(
        sketch("""
        x    = Placeholder() float32[64,64]
        one  = Const() float32[] = 1
        y    = Exp(x) float32[64,64]
        beta = Mul(one, y) float32[64,64]
        gate = Sigmoid(beta) float32[64,64]
        mul  = Mul(y, gate) float32[64,64]
        both = IdentityN(mul, y, one) float32[64,64] float32[64,64] float32[]
        last = Identity(both) float32[64,64]
        out  = _Retval(last)
        """)
    )
    (candidate,) = facts(fusion_candidates)
    assert (candidate.name, set(candidate.core)) == ("swish", {"beta", "gate", "mul"})
    (chain,) = facts(chains_to_probe)
    assert chain.surroundings == ()


def test_a_sum_of_two_branches_belongs_to_one_of_them() -> None:
    facts = Facts(
        sketch("""
        x  = Placeholder() float32[1,8,8,4]
        w  = Const() float32[1,1,4,4]
        b  = Const() float32[4]
        c1 = Conv2D(x, w) float32[1,8,8,4]
        b1 = BiasAdd(c1, b) float32[1,8,8,4]
        c2 = Conv2D(x, w) float32[1,8,8,4]
        b2 = BiasAdd(c2, b) float32[1,8,8,4]
        s  = AddV2(b1, b2) float32[1,8,8,4]
        r  = Relu(s) float32[1,8,8,4]
        o  = _Retval(r)
        """)
    )
    assert [item.core for item in facts(fusion_candidates)] == [("c1", "b1"), ("c2", "b2", "s", "r")]


def test_a_compiled_chain_is_left_to_xla() -> None:
    evidence = sketch(f"traced:\n{CONV}\nexecuted:\n    x = _Arg() float32[1,8,8,4]\n    out = _Retval(x)")
    assert Facts(evidence)(unfused) == ()


# -- changes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "kind", "expected"),
    [
        ("Tanh", "Tanh", "activation", ["Conv2D", "BiasAdd", "Relu"]),
        ("BiasAdd(", "AddV2(", "addition", ["Conv2D", "BiasAdd", "Tanh"]),
        ("float32", "float64", "dtype", ["Conv2D", "BiasAdd", "Tanh"]),
    ],
)
def test_one_property_is_changed_at_a_time(old: str, new: str, kind: str, expected: list[str]) -> None:
    changes = {obstacle.kind: chain for obstacle, chain in relaxations(chain_of(CONV.replace(old, new)))}
    assert types(changes[kind]) == expected
    assert all("float64" not in op.attrs.values() for op in changes["dtype"].ops) if kind == "dtype" else True


def test_channels_first_becomes_channels_last_throughout() -> None:
    text = CONV.replace("NHWC", "NCHW").replace("[1,8,8,4]", "[1,4,6,7]").replace("T: f", "strides: [1,1,2,3], T: f", 1)
    ((_, chain),) = [item for item in relaxations(chain_of(text)) if item[0].kind == "layout"]
    ops = {op.name: op for op in chain.ops}
    assert ops["x"].spec is not None
    assert ops["x"].spec.shape == (1, 6, 7, 4)
    assert ops["conv"].attrs["strides"] == (1, 2, 3, 1)
    assert {ops[name].attrs["data_format"] for name in ("conv", "bias")} == {"NHWC"}


def test_a_bridge_is_left_out_with_what_only_it_read() -> None:
    text = CONV.replace(
        "bias = BiasAdd(conv, b) float32[1,8,8,8]",
        "size = Const() int32[3] = 1,64,8\n    flat = Reshape(conv, size) float32[1,64,8]\n"
        "    bias = BiasAdd(flat, b) float32[1,64,8]",
    )
    ((obstacle, chain),) = [item for item in relaxations(chain_of(text)) if item[0].kind == "bridge"]
    assert obstacle == Obstacle("bridge", "flat", "Reshape")
    assert {op.name for op in chain.ops} == {"x", "w", "conv", "b", "bias", "act"}


# -- the decision --------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    fused: bool
    types: tuple[str, ...] = ()


def kernel_that_takes(*allowed: str, only: Callable[[Chain], bool] = lambda _: True) -> Callable[..., Ran]:
    """An optimizer that fuses chains of these op types, when nothing else touches them."""

    def run(chain: Chain, around: Sequence[Surrounding]) -> Ran:
        return Ran(not around and only(chain) and set(types(chain)) <= set(allowed))

    return run


def test_the_single_change_that_helps_is_the_reason() -> None:
    answer = explain(chain_of(CONV), kernel_that_takes("Conv2D", "BiasAdd", "Relu"))
    assert answer.changes == ((Obstacle("activation", "act", "Tanh"),),)


def test_two_changes_are_tried_where_no_single_one_helps() -> None:
    answer = explain(chain_of(CONV.replace("BiasAdd(", "AddV2(")), kernel_that_takes("Conv2D", "BiasAdd", "Relu"))
    assert answer.changes == ((Obstacle("addition", "bias", "AddV2"), Obstacle("activation", "act", "Tanh")),)


def test_surroundings_are_named_where_the_chain_alone_is_fused() -> None:
    text = CONV + "    peek = Softmax(conv) float32[1,8,8,8]\n    seen = _Retval(peek)"
    answer = explain(chain_of(text), kernel_that_takes("Conv2D", "BiasAdd", "Tanh"))
    assert answer.changes == ((Obstacle("consumer", "peek", "Softmax"),),)


def test_nothing_is_claimed_where_nothing_helps() -> None:
    answer = explain(chain_of(CONV), kernel_that_takes())
    assert (answer.verdict, answer.changes) == ("unsupported", ())


def test_a_chain_that_is_fused_says_so() -> None:
    assert explain(chain_of(CONV), kernel_that_takes("Conv2D", "BiasAdd", "Tanh")).verdict == "fuses"


# -- on the wire ---------------------------------------------------------------------------------------------------


def test_chains_and_answers_survive_json() -> None:
    chain = chain_of(CONV + "    peek = Softmax(conv) float32[?,8,8,8]\n    seen = _Retval(peek)")
    assert from_line(to_line(chain), [Chain]) == chain
    answer = FusionAnswer("k", "explained", ((Obstacle("bridge", "a", "Reshape"),),), "why")
    assert from_line(to_line(answer), [FusionAnswer]) == answer


def test_an_answer_fits_every_chain_of_the_same_structure() -> None:
    chain = chain_of(CONV)
    other = chain_of(
        CONV.replace("conv ", "layer ").replace("(conv", "(layer").replace("act ", "end ").replace("(act", "(end")
    )
    answer = FusionAnswer(chain.key, "explained", ((Obstacle("activation", "act", "Tanh"),),))
    assert answer_for(answer, chain, other).changes == ((Obstacle("activation", "end", "Tanh"),),)


def test_layers_that_differ_in_size_only_are_asked_about_once() -> None:
    small, large = chain_of(CONV), chain_of(CONV.replace("8,8,8]", "16,16,8]"))
    open_batch = chain_of(CONV.replace("[1,8,8,8]", "[?,8,8,8]"))
    assert [len(group) for group in ask_fusion._alike([small, large, open_batch])] == [2, 1]


def test_onednn_is_named_first_where_it_asks_for_less() -> None:
    off = FusionAnswer("k", "explained", ((Obstacle("activation", "a", "Tanh"),),))
    with_onednn = ask_fusion._with_setting(off, FusionAnswer("k", "fuses"))
    assert [[item.kind for item in some] for some in with_onednn.changes] == [["onednn"], ["activation"]]
    needs_both = ask_fusion._with_setting(
        FusionAnswer("k", "unsupported"), FusionAnswer("k", "explained", ((Obstacle("residual", "s", "AddV2"),),))
    )
    assert [[item.kind for item in some] for some in needs_both.changes] == [["onednn", "residual"]]
    same_reason = FusionAnswer("k", "explained", ((Obstacle("bridge", "r", "Reshape"),),))
    assert ask_fusion._with_setting(same_reason, same_reason) == same_reason


# -- in words ------------------------------------------------------------------------------------------------------


def findings(text: str, answer: FusionAnswer, code: str = "GL201") -> list[Finding]:
    evidence = replace(sketch(text), fusion_answers={answer.key: answer})
    found, _ = judge(Facts(evidence), [find(code)])
    return found


def test_the_reason_names_the_op_and_what_to_change() -> None:
    text = CONV + "    peek = Softmax(conv) float32[1,8,8,8]\n    seen = _Retval(peek)"
    answer = FusionAnswer("conv:conv", "explained", ((Obstacle("consumer", "peek", "Softmax"),),))
    (finding,) = findings(text, answer)
    assert finding.reason == "Softmax 'peek' reads an inner result too; without that reader, Grappler fuses it"
    assert finding.fix.summary == "Let 'peek' read the end of the chain"
    assert (finding.saving.ns, finding.saving.origin) == (40_000, "bound")


def test_no_saving_is_promised_where_only_another_model_would_be_fused() -> None:
    (finding,) = findings(CONV, FusionAnswer("conv:conv", "explained", ((Obstacle("activation", "act", "Tanh"),),)))
    assert (finding.saving.ns, finding.severity) == (None, "info")
    assert "cannot take in Tanh" in finding.reason


def test_no_saving_is_promised_where_nothing_helps() -> None:
    (finding,) = findings(CONV, FusionAnswer("conv:conv", "unsupported"))
    assert (finding.saving.ns, finding.severity) == (None, "info")
    assert "no kernel" in finding.reason


def test_the_setting_is_the_snippet() -> None:
    (finding,) = findings(CONV, FusionAnswer("conv:conv", "explained", ((Obstacle("onednn", ""),),)))
    assert finding.fix.snippet == "export TF_ENABLE_ONEDNN_OPTS=1"
    assert finding.saving.ns == 40_000


def test_a_sum_of_branches_is_offered_as_an_edit_and_not_with_another_obstacle_beside_it() -> None:
    residual, bridge = Obstacle("residual", "sum", "AddV2"), Obstacle("bridge", "r", "Reshape")
    (finding,) = findings(CONV, FusionAnswer("conv:conv", "explained", ((residual,),)))
    assert (finding.fix.edits, finding.fix.safety) == ((SumByAddN(Ops(traced=("sum",))),), "tolerance")
    (finding,) = findings(CONV, FusionAnswer("conv:conv", "explained", ((residual, bridge),)))
    assert (finding.fix.edits, finding.fix.safety) == ((), "manual")


def test_a_reshape_behind_a_product_is_offered_as_an_edit_and_one_behind_a_convolution_is_not() -> None:
    bridge = (Obstacle("bridge", "r", "Reshape"),)
    (finding,) = findings(MATMUL, FusionAnswer("matmul:product", "explained", (bridge,)), "GL202")
    assert (finding.fix.edits, finding.fix.safety) == ((SinkReshape(Ops(traced=("r",))),), "tolerance")
    (finding,) = findings(CONV, FusionAnswer("conv:conv", "explained", (bridge,)))
    assert (finding.fix.edits, finding.fix.safety) == ((), "manual")


def test_without_an_experiment_it_says_so() -> None:
    found, _ = judge(Facts(sketch(CONV)), [find("GL201")])
    assert "was not probed" in found[0].reason
    assert found[0].evidence["probed"] is False


def test_a_model_that_was_not_run_is_judged_by_the_experiments() -> None:
    static = f"static\n{CONV}"
    (finding,) = findings(static, FusionAnswer("conv:conv", "explained", ((Obstacle("activation", "act", "Tanh"),),)))
    assert "nothing was executed" in finding.reason
    assert findings(static, FusionAnswer("conv:conv", "fuses")) == []


def test_what_compiles_after_all_is_no_blocker() -> None:
    text = "x = Placeholder() float32[8]\n y = AsString(x) string[8]\n o = _Retval(y)"
    key = "xla:AsString:"
    assert [chain.key for chain in Facts(sketch(text))(chains_to_probe)] == [key]
    assert findings(text, FusionAnswer(key, "fuses"), "GL213") == []
    (finding,) = findings(text, FusionAnswer(key, "unsupported", why="no kernel"), "GL213")
    assert finding.evidence["compiled_alone"] == {"AsString": "refused: no kernel"}
