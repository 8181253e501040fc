"""Executed ops are traced back to what the author wrote: fused, inlined, lowered and rewritten ones."""

from __future__ import annotations

from graphlens.facts.flat.origins import resolve
from graphlens.ir.nodes import Edge, Op
from graphlens.ir.table import Table, TableBuilder


def dag(text: str) -> Table:
    """Build a graph from lines ``name = Type(input, …)``."""
    graph = TableBuilder()
    for line in text.strip().splitlines():
        name, _, call = (part.strip() for part in line.partition("="))
        kind, _, inputs = call.rstrip(")").partition("(")
        graph.add_op(Op(name, kind))
        for port, src in enumerate(filter(None, (item.strip() for item in inputs.split(",")))):
            graph.add_edge(src, name, Edge("data", 0, port))
    return graph.table()


TRACED = dag(
    """
    x = Placeholder()
    handle = Placeholder()
    kernel = ReadVariableOp(handle)
    bias = Const()
    conv = Conv2D(x, kernel)
    add = BiasAdd(conv, bias)
    relu = Relu(add)
    eps = Const()
    variance = Const()
    shifted = AddV2(variance, eps)
    out = Mul(relu, shifted)
    """
)


def test_a_fused_op_stands_for_all_it_absorbed() -> None:
    executed = dag(
        """
        x = _Arg()
        handle = _Arg()
        kernel = ReadVariableOp(handle)
        bias = Const()
        relu = _MklNativeFusedConv2D(x, kernel, bias)
        """
    )
    found = resolve(executed, TRACED)
    assert found["relu"] == ("conv", "add", "relu")
    assert found["kernel"] == ("kernel",)


def test_folded_constants_are_nobodys_origin() -> None:
    executed = dag(
        """
        relu = Relu()
        shifted = Const()
        out = Mul(relu, shifted)
        """
    )
    assert resolve(executed, TRACED)["out"] == ("out",)


def test_an_op_that_no_traced_op_explains_has_no_origin() -> None:
    executed = dag("Func/f/input/_3 = Identity()\nx = _Arg()")
    assert resolve(executed, TRACED)["Func/f/input/_3"] == ()


def test_instructions_of_xla_carry_the_names_within_their_function() -> None:
    traced = dag("call/MatMul = MatMul()\ncall/Relu = Relu(call/MatMul)\nMatMul = MatMul()")
    executed = TableBuilder()
    executed.add_op(Op("call", "PartitionedCall", attrs={"_XlaMustCompile": True}))
    attrs = {"hlo_origins": ("MatMul", "Relu", "unheard_of"), "hlo_call": "call"}
    executed.add_op(Op("call/fusion", "fusion", attrs=attrs))
    # They are the ops of the function that is called, never those of the same name elsewhere.
    assert resolve(executed.table(), traced)["call/fusion"] == ("call/MatMul", "call/Relu")


def test_grappler_names_are_undone() -> None:
    traced = dag(
        """
        net/x = Placeholder()
        net/MatMul = MatMul(net/x)
        net/add_1 = AddV2(net/MatMul)
        net/Relu = Relu(net/add_1)
        net/Tanh = Tanh(net/Relu)
        while/body/mul = Mul(net/x)
        """
    )
    executed = dag(
        """
        net/Tanh/unary_ops_composition = _UnaryOpsComposition()
        net/ArithmeticOptimizer/FoldTransposeIntoMatMul_MatMul = MatMul()
        net/ArithmeticOptimizer/AddOpsRewrite_add_1 = AddN()
        while/body/_12/mul = Mul()
        net/MatMul-0-TransposeNHWCToNCHW-LayoutOptimizer = Transpose()
        """
    )
    origins = resolve(executed, traced)
    assert origins["net/Tanh/unary_ops_composition"] == ("net/Relu", "net/Tanh")
    found = {name: origin[-1] for name, origin in origins.items()}
    assert found == {
        "net/Tanh/unary_ops_composition": "net/Tanh",
        "net/ArithmeticOptimizer/FoldTransposeIntoMatMul_MatMul": "net/MatMul",
        "net/ArithmeticOptimizer/AddOpsRewrite_add_1": "net/add_1",
        "while/body/_12/mul": "while/body/mul",
        "net/MatMul-0-TransposeNHWCToNCHW-LayoutOptimizer": "net/MatMul",
    }
