"""Whether XLA compiles one op alone: the registry says what should not work, the compiler what does not."""

from __future__ import annotations

from typing import Any, Final

from graphlens.errors import first_line
from graphlens.ir.fusion import Chain, ChainOp, FusionAnswer
from graphlens.tf.probe.chain_graph import node_of

# What the compiler says of an op that it has no kernel for, as opposed to inputs that the trial made wrongly.
_REFUSALS: Final = (
    "unsupported operations",
    "No registered",
    "not compilable",
    "DataTypeToPrimitiveType",
    "Unsupported type",
    "uncompilable",
)
_SIZE: Final = 2  # of axes whose length is not known
_NOT_MADE: Final = frozenset({"resource", "variant"})


def compile_alone(chain: Chain) -> FusionAnswer:
    """Compile the one op of ``chain``: ``unsupported`` when XLA refuses it, ``fuses`` when it does not."""
    import tensorflow as tf

    outside = [op for op in chain.ops if op.role == "boundary"]
    if any(op.spec is None or op.spec.dtype in _NOT_MADE for op in outside):
        return FusionAnswer(chain.key, "failed", why="its inputs cannot be made outside the model")
    try:
        function = tf.function(_importer(chain, outside), jit_compile=True)
        function.experimental_get_compiler_ir(*[_zeros(op) for op in outside])(stage="hlo")
    except Exception as error:  # the compiler's errors come as whatever Python makes of their status
        refused = any(text in str(error) for text in _REFUSALS)
        return FusionAnswer(chain.key, "unsupported" if refused else "failed", why=first_line(error))
    return FusionAnswer(chain.key, "fuses")


def _importer(chain: Chain, outside: list[ChainOp]) -> Any:
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    graph.node.extend(node_of(op) for op in chain.ops if op.role != "boundary")

    def call(*given: Any) -> Any:
        fed = {f"{op.name}:0": tensor for op, tensor in zip(outside, given, strict=True)}
        (op,) = tf.graph_util.import_graph_def(graph, fed, [chain.result], name="")
        if op.outputs:
            return list(op.outputs)
        with tf.control_dependencies([op]):
            return tf.constant(0)

    return call


def _zeros(op: ChainOp) -> Any:
    import tensorflow as tf

    assert op.spec is not None
    sizes = [_SIZE if size is None else size for size in op.spec.shape or ()]
    if op.spec.dtype == "string":
        return tf.fill(sizes, "")
    return tf.zeros(sizes, op.spec.dtype)
