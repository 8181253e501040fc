"""Graphs with a planted reason for not being fused, each built by TensorFlow, and what became of them.

``python tests/fusion_corpus.py`` builds every pattern, looks for its chain in the graph as written, runs the
experiments on it, calls whatever they say is one kernel, and prints one JSON line per pattern.
``test_tf_fusion_corpus.py`` runs it with oneDNN on and off.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphlens.facts.patterns.dataflow import dataflow
from graphlens.facts.patterns.fusion import fusion_candidates

# What is expected: "fused" (in the model as it is), "unsupported", or the kinds of obstacles that one alternative of
# the answer must name, joined by "+".  "|" separates what is right on some processors and wrong on others.
FUSED = "fused"
UNSUPPORTED = "unsupported"
BY_PROCESSOR = "fused|dtype"  # oneDNN computes with 16-bit numbers only where the processor does


@dataclass(frozen=True)
class Row:
    """One pattern: what is planted, with oneDNN off and on."""

    name: str
    build: Callable[..., Any]
    off: str
    on: str
    inputs: Mapping[str, tuple[tuple[int | None, ...] | None, str]]
    kind: str = "conv"
    device: str | None = None


IMAGE = {"x": ((2, 16, 16, 8), "float32")}
ROWS = {"x": ((4, 32), "float32")}
TOKENS = {"x": ((2, 16, 32), "float32")}


def rows() -> list[Row]:
    """Return the whole table; importing TensorFlow is left to whoever asks for it."""
    import numpy as np
    import tensorflow as tf

    v1, random = tf.compat.v1, np.random.default_rng(7)

    def numbers(*shape: int, dtype: str = "float32") -> Any:
        return tf.constant(random.uniform(0.5, 1.5, shape), dtype)

    def conv(x: Any, size: int = 3, **given: Any) -> Any:
        return tf.nn.conv2d(x, numbers(size, size, 8, 8, dtype=x.dtype.name), 1, "SAME", **given)

    def bias(x: Any, count: int = 8, **given: Any) -> Any:
        return tf.nn.bias_add(x, numbers(count, dtype=x.dtype.name), **given)

    def norm(x: Any, training: bool = False) -> Any:
        return v1.nn.fused_batch_norm(
            x,
            numbers(8),
            numbers(8),
            None if training else numbers(8),
            None if training else numbers(8),
            is_training=training,
        )[0]

    def product(x: Any, columns: int = 16) -> Any:
        return tf.matmul(x, numbers(int(x.shape[-1] or 32), columns, dtype=x.dtype.name))

    def swish(x: Any) -> Any:
        return x * tf.sigmoid(x)

    def gelu(x: Any) -> Any:
        return tf.nn.gelu(x)

    def gelu_tanh(x: Any) -> Any:
        return tf.nn.gelu(x, approximate=True)

    def hard_swish(x: Any) -> Any:
        return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)

    def hard_swish_named_first(x: Any) -> Any:
        y = tf.nn.bias_add(conv(x), numbers(8), name="layer")
        return y * tf.multiply(tf.nn.relu6(y + 3.0), 1.0 / 6.0, name="activation")

    def mish(x: Any) -> Any:
        return x * tf.tanh(tf.math.softplus(x))

    def after(reader: Callable[[Any], Any], rest: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Read the convolution a second time, beside the chain."""

        def build(x: Any) -> Any:
            y = conv(x)
            return rest(y), reader(y)

        return build

    def biased_and_read(x: Any) -> Any:
        y = bias(conv(x))
        return tf.nn.relu(y), tf.reduce_sum(tf.exp(y))

    def biased_and_fetched(x: Any) -> Any:
        y = bias(conv(x))
        return tf.nn.relu(y), y

    def checked(x: Any) -> Any:
        y = conv(x)
        with tf.control_dependencies([y]):
            tf.debugging.Assert(tf.reduce_all(tf.less(x, 9.0)), ["too large"])
        return tf.nn.relu(bias(y))

    def waits_for_a_check(x: Any) -> Any:
        y = bias(conv(x))
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(tf.less(x, 9.0)), ["too large"])]):
            return tf.nn.relu(y)

    def waits_for_nothing(x: Any) -> Any:
        y = bias(conv(x))
        with tf.control_dependencies([tf.no_op()]):
            return tf.nn.relu(y)

    def other_device(x: Any) -> Any:
        y = bias(conv(x))
        with tf.device("CPU:1"):
            return tf.nn.relu(y)

    def channels_first(x: Any) -> Any:
        y = tf.nn.conv2d(x, numbers(3, 3, 8, 8), 1, "SAME", data_format="NCHW")
        return tf.nn.relu(tf.nn.bias_add(y, numbers(8), data_format="NCHW"))

    weights, *vectors = (tf.Variable(numbers(*shape)) for shape in ((3, 3, 8, 8), (8,), (8,), (8,), (8,)))

    def with_variables(x: Any) -> Any:
        return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME"), vectors[0]))

    def with_variable_norm(x: Any) -> Any:
        return tf.nn.relu(v1.nn.fused_batch_norm(conv(x), *map(tf.convert_to_tensor, vectors), is_training=False)[0])

    def attention(x: Any, *, mask: bool, scale: bool = True) -> Any:
        keys = x * 2.0 + 1.0
        scores = tf.matmul(x, keys, transpose_b=True)
        scores = scores * 0.25 if scale else scores
        scores = scores + tf.exp(x[:, :1, ..., :1]) if mask else scores
        return tf.matmul(tf.nn.softmax(scores), tf.exp(x))

    def einsum_attention(x: Any) -> Any:
        heads = tf.reshape(x, (2, 16, 4, 8))
        scores = tf.einsum("aecd,abcd->acbe", tf.exp(heads), heads) * 0.25
        return tf.einsum(
            "acbe,aecd->abcd", tf.nn.softmax(scores + tf.exp(heads[:, 0, 0, 0])[:, None, None, None]), heads
        )

    def layer_norm(x: Any) -> Any:
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        scale = tf.math.rsqrt(variance + 1e-3) * numbers(32)
        return x * scale + (numbers(32) - mean * scale)

    def layer_norm_by_difference(x: Any) -> Any:
        mean = tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), -1, keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-3) * numbers(32) + numbers(32)

    def naive_softmax(x: Any) -> Any:
        e = tf.exp(x - tf.reduce_max(x, -1, keepdims=True))
        return e / tf.reduce_sum(e, -1, keepdims=True)

    relu = tf.nn.relu
    table: list[Row] = []

    def row(name: str, build: Any, off: str, on: str, inputs: Any = IMAGE, kind: str = "conv", **more: Any) -> None:
        table.append(Row(name, build, off, on, inputs, kind, **more))

    def dense(name: str, build: Any, off: str, on: str, inputs: Any = ROWS) -> None:
        row(name, build, off, on, inputs, "matmul")

    # -- activations behind a bias or a normalization
    for label, activation in (("relu", relu), ("relu6", tf.nn.relu6), ("elu", tf.nn.elu), ("leaky", tf.nn.leaky_relu)):
        row(f"conv+bias+{label}", lambda x, f=activation: f(bias(conv(x))), FUSED, FUSED)
        row(f"conv+bn+{label}", lambda x, f=activation: f(norm(conv(x))), FUSED, FUSED)
        dense(f"matmul+bias+{label}", lambda x, f=activation: f(bias(product(x), 16)), FUSED, FUSED)
    for label, activation, conv_on, norm_on, product_on in (
        ("tanh", tf.tanh, "activation", "activation", FUSED),
        ("sigmoid", tf.sigmoid, "activation", "activation", FUSED),
        ("swish", swish, FUSED, FUSED, "activation"),
        ("gelu exact", gelu, "activation", "activation", FUSED),
        ("gelu tanh", gelu_tanh, "activation", "activation", FUSED),
        ("hard swish", hard_swish, FUSED, "activation", "activation"),
        ("mish", mish, FUSED, "activation", "activation"),
        ("selu", tf.nn.selu, "activation", "activation", "activation"),
    ):
        row(f"conv+bias+{label}", lambda x, f=activation: f(bias(conv(x))), "activation", conv_on)
        row(f"conv+bn+{label}", lambda x, f=activation: f(norm(conv(x))), "activation", norm_on)
        dense(f"matmul+bias+{label}", lambda x, f=activation: f(bias(product(x), 16)), "activation", product_on)
    row("conv+bias+hard swish named before its argument", hard_swish_named_first, "activation", "name")
    row("relu as Maximum", lambda x: tf.maximum(bias(conv(x)), 0.0), "activation", "activation")
    for label, alone, on in (
        ("swish", swish, FUSED),
        ("mish", mish, FUSED),
        ("gelu exact", gelu, UNSUPPORTED),
        ("gelu tanh", gelu_tanh, UNSUPPORTED),
        ("hard swish", hard_swish, UNSUPPORTED),
        ("softmax", naive_softmax, UNSUPPORTED),
    ):
        row(f"{label} alone", lambda x, f=alone: f(tf.sin(x)), UNSUPPORTED, on, ROWS, "activation")

    # -- kernels
    row("conv+bias", lambda x: bias(conv(x)), FUSED, FUSED)
    row("conv1x1+bias+relu", lambda x: relu(bias(conv(x, 1))), FUSED, FUSED)
    row("conv+bn", lambda x: norm(conv(x)), FUSED, FUSED)
    row("pad+conv+bias+relu", lambda x: relu(bias(conv(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])))), FUSED, FUSED)
    row("conv+AddV2(vector)+relu", lambda x: relu(conv(x) + numbers(8)), "addition", FUSED)
    added = lambda x: relu(tf.nn.conv2d(x, weights, 1, "SAME") + vectors[0])  # noqa: E731
    row("conv+AddV2(variable)+relu", added, "addition", FUSED)
    row("conv+AddV2(1,1,1,C)+relu", lambda x: relu(conv(x) + numbers(1, 1, 1, 8)), "addition", FUSED)
    row("conv+bias+add+relu", lambda x: relu(bias(conv(x)) + tf.exp(x)), UNSUPPORTED, "residual")
    row("conv+bias+add", lambda x: bias(conv(x)) + tf.exp(x), UNSUPPORTED, "residual")
    depthwise = lambda x: tf.nn.depthwise_conv2d(x, numbers(3, 3, 8, 1), [1, 1, 1, 1], "SAME")  # noqa: E731
    row("depthwise+bias", lambda x: bias(depthwise(x)), UNSUPPORTED, FUSED)
    row("depthwise+bias+relu6", lambda x: tf.nn.relu6(bias(depthwise(x))), UNSUPPORTED, FUSED)
    row("depthwise+bn+relu6", lambda x: tf.nn.relu6(norm(depthwise(x))), UNSUPPORTED, UNSUPPORTED)
    around = [[0, 0], [1, 2], [1, 2], [0, 0]]
    depthwise_padded = lambda x: tf.nn.depthwise_conv2d(x, numbers(3, 3, 8, 1), [1, 1, 1, 1], around)  # noqa: E731
    row("depthwise with explicit padding+bias", lambda x: bias(depthwise_padded(x)), UNSUPPORTED, UNSUPPORTED)
    volume = {"x": ((1, 8, 8, 8, 4), "float32")}
    row(
        "conv3d+bias+relu",
        lambda x: relu(bias(tf.nn.conv3d(x, numbers(3, 3, 3, 4, 8), [1] * 5, "SAME"))),
        UNSUPPORTED,
        FUSED,
        volume,
    )
    row(
        "conv1d(squeeze)+bias+relu",
        lambda x: relu(bias(tf.nn.conv1d(x, numbers(3, 32, 8), 1, "SAME"))),
        "bridge",
        "bridge",
        TOKENS,
    )
    row(
        "transposed conv+bias+relu",
        lambda x: relu(bias(tf.nn.conv2d_transpose(x, numbers(3, 3, 8, 8), (2, 32, 32, 8), 2))),
        UNSUPPORTED,
        UNSUPPORTED,
    )
    dense("matmul+bias", lambda x: bias(product(x), 16), FUSED, FUSED)
    dense("matmul+AddV2(vector)+relu", lambda x: relu(product(x) + numbers(16)), "addition", FUSED)
    matrix = tf.Variable(numbers(32, 8))
    dense("matmul+AddV2(variable)+relu", lambda x: relu(tf.matmul(x, matrix) + vectors[0]), "addition", FUSED)
    dense("matmul+bias+add", lambda x: bias(product(x), 16) + tf.exp(x[:, :16]), UNSUPPORTED, "residual")
    dense(
        "tensordot+bias+relu", lambda x: relu(bias(tf.tensordot(x, numbers(32, 16), 1), 16)), "bridge", "bridge", TOKENS
    )
    dense(
        "batch matmul+bias+relu",
        lambda x: relu(bias(tf.matmul(x, numbers(2, 32, 16)), 16)),
        UNSUPPORTED,
        UNSUPPORTED,
        TOKENS,
    )
    dense("batch matmul of one matrix+bias", lambda x: bias(product(x), 16), "rank", "rank", TOKENS)
    dense(
        "einsum+bias+relu",
        lambda x: relu(bias(tf.einsum("bij,jk->bik", x, numbers(32, 16)), 16)),
        UNSUPPORTED,
        UNSUPPORTED,
        TOKENS,
    )

    # -- decomposed layers
    row("layer norm (moments)", layer_norm, UNSUPPORTED, UNSUPPORTED, TOKENS, "layer-norm")
    row("layer norm (difference)", layer_norm_by_difference, UNSUPPORTED, UNSUPPORTED, TOKENS, "layer-norm")
    heads = {"x": ((2, 4, 16, 8), "float32")}
    row("attention, masked", lambda x: attention(x, mask=True), UNSUPPORTED, FUSED, heads, "attention")
    row("attention, no mask", lambda x: attention(x, mask=False), UNSUPPORTED, "no-mask", heads, "attention")
    row("attention of one head", lambda x: attention(x, mask=True), UNSUPPORTED, UNSUPPORTED, TOKENS, "attention")
    row("attention by einsum", einsum_attention, UNSUPPORTED, "einsum", TOKENS, "attention")

    # -- near misses
    row("conv read twice", after(lambda y: tf.reduce_sum(tf.exp(y)), lambda y: relu(bias(y))), "consumer", "consumer")
    open_image = {"x": ((None, None, None, 8), "float32")}
    row("conv read by Shape", after(tf.shape, lambda y: relu(bias(y))), "consumer", "consumer", open_image)
    row("bias read twice", biased_and_read, "consumer", "consumer")
    row("bias fetched", biased_and_fetched, "fetched", "fetched")
    for dtype, off, on in (
        ("float64", FUSED, "dtype"),
        ("bfloat16", "dtype", BY_PROCESSOR),
        ("float16", "dtype", BY_PROCESSOR),
    ):
        row(dtype, lambda x: relu(bias(conv(x))), off, on, {"x": ((2, 16, 16, 8), dtype)})
    for dtype, on in (("float64", "dtype"), ("bfloat16", BY_PROCESSOR), ("float16", BY_PROCESSOR)):
        dense(f"matmul {dtype}", lambda x: relu(bias(product(x), 16)), "dtype", on, {"x": ((4, 32), dtype)})
    row("NCHW", channels_first, "layout", FUSED, {"x": ((2, 8, 16, 16), "float32")})
    row("variable weights and bias", with_variables, FUSED, FUSED)
    row("conv+bn variable statistics", with_variable_norm, FUSED, FUSED)
    row("conv+bn in training", lambda x: relu(norm(conv(x), training=True)), "training", "training")
    row("dynamic batch", lambda x: relu(bias(conv(x))), FUSED, FUSED, {"x": ((None, 16, 16, 8), "float32")})
    row(
        "residual of unknown shapes",
        lambda x, other: relu(bias(conv(x)) + other),
        UNSUPPORTED,
        "residual",
        {"x": ((None, None, None, 8), "float32"), "other": ((None, None, None, 8), "float32")},
    )
    row("Identity between", lambda x: relu(tf.identity(bias(tf.identity(conv(x))))), FUSED, FUSED)
    row("Reshape between", lambda x: relu(bias(tf.reshape(conv(x), (2, 256, 8)))), "bridge", "bridge")
    row("Transpose between", lambda x: relu(bias(tf.transpose(conv(x), (0, 2, 1, 3)))), "bridge", "bridge")
    row(
        "Cast between",
        lambda x: relu(bias(tf.cast(tf.cast(conv(x), tf.float16), tf.float32))),
        "bridge",
        "bridge",
    )
    row("waits for nothing", waits_for_nothing, FUSED, FUSED)
    row("waits for an assertion", waits_for_a_check, "control-in", "control-in")
    row("an assertion waits for the conv", checked, "control-out", "control-out")
    row("no device", lambda x: relu(bias(conv(x))), "device", "device", device="")
    row("relu on another device", other_device, FUSED, FUSED)
    row(
        "weights from outside",
        lambda x, w: relu(bias(tf.nn.conv2d(x, w, 1, "SAME"))),
        FUSED,
        FUSED,
        {**IMAGE, "w": ((3, 3, 8, 8), "float32")},
    )
    row("dilated", lambda x: relu(bias(conv(x, dilations=2))), FUSED, FUSED)
    grouped = lambda x: tf.nn.conv2d(x, numbers(3, 3, 4, 8), 1, "SAME")  # noqa: E731
    row("grouped", lambda x: relu(bias(grouped(x))), UNSUPPORTED, FUSED)
    row("grouped+bn+relu", lambda x: relu(norm(grouped(x))), UNSUPPORTED, FUSED)
    row("grouped+AddV2+relu", lambda x: relu(grouped(x) + numbers(8)), UNSUPPORTED, FUSED)
    row("dropout of inference between", lambda x: relu(tf.identity(bias(conv(x)))), FUSED, FUSED)

    # -- two at once
    row(
        "Reshape between, bias by AddV2",
        lambda x: relu(tf.reshape(conv(x), (2, 256, 8)) + numbers(8)),
        "addition+bridge",
        "bridge",
    )
    dense(
        "Reshape between, float64",
        lambda x: bias(tf.reshape(product(x), (2, 2, 16)), 16),
        "bridge+dtype",
        "bridge+dtype",
        {"x": ((4, 32), "float64")},
    )
    row(
        "read twice, then tanh",
        after(tf.exp, lambda y: tf.tanh(bias(y))),
        "activation+consumer",
        "activation+consumer",
    )
    return table


# -- what became of it ---------------------------------------------------------------------------------------------


def graph_of(row: Row) -> Any:
    """Trace a pattern and read it as GraphLens reads any function."""
    import tensorflow as tf

    from graphlens.loaders.graphdef import build_reachable, parse_graph_def

    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in row.inputs.items()]
    graph = tf.function(row.build).get_concrete_function(*specs).graph
    definition = graph.as_graph_def(add_shapes=True)
    for index, tensor in enumerate(graph.outputs):
        node = definition.node.add(name=f"result_{index}", op="_Retval", input=[tensor.name])
        node.attr["T"].type = tensor.dtype.as_datatype_enum
    return build_reachable(parse_graph_def(definition.SerializeToString(), row.name))


def answer_of(row: Row) -> dict[str, Any]:
    """Find the chain of a pattern and explain it."""
    from graphlens.facts.core import Facts
    from graphlens.facts.patterns.cutting import chain_of
    from graphlens.ir import codec
    from graphlens.ir.analysis import Target
    from graphlens.ir.evidence import Evidence
    from graphlens.tf.probe import chain_graph, fusion_child

    facts = Facts(Evidence(Target(row.name, "corpus"), traced=graph_of(row)))
    found = [item for item in facts(fusion_candidates) if item.kind == row.kind]
    if len(found) != 1 or facts(dataflow) is None:
        return {"name": row.name, "candidates": [f"{item.kind}: {item.name}" for item in facts(fusion_candidates)]}
    chain = chain_of(facts(dataflow), found[0], {})
    assert chain is not None
    if row.device is not None:
        chain = replace(chain, ops=tuple(replace(op, device=row.device) for op in chain.ops))
    calls = Calls()

    def run(chain: Any, surroundings: Any) -> Any:
        became = chain_graph.run(chain, surroundings)
        if became.fused and not is_in_half(chain):
            calls.check(*chain_graph.graph_of(chain, surroundings), became.types)
        return became

    answer = fusion_child.explain(chain, run)
    changes = [[[item.kind, item.op, item.found] for item in some] for some in answer.changes]
    return {
        "name": row.name,
        "candidate": found[0].name,
        "core": found[0].core,
        "called": calls.made,
        "without_kernel": calls.failed,
        **codec.encode(answer),
        "changes": changes,
    }


def is_in_half(chain: Any) -> bool:
    """Whether a chain computes in 16 bits: whether it can depends on the processor, and where not, the process ends."""
    return any(op.attrs.get("T") in {"float16", "bfloat16"} for op in chain.core)


class Calls:
    """What became of calling the graphs that are said to be one kernel, in a session of TensorFlow."""

    def __init__(self) -> None:
        self.made = 0
        self.failed: list[str] = []

    def check(self, graph_def: Any, fetches: list[str], became: tuple[str, ...]) -> None:
        """Call a graph as it is, and if that works, as Grappler changes it."""
        if self._error(graph_def, fetches, optimized=False) is None:
            self.made += 1
            error = self._error(graph_def, fetches, optimized=True)
            self.failed += [] if error is None else [f"{'+'.join(became)}: {error}"]

    @staticmethod
    def _error(graph_def: Any, fetches: list[str], *, optimized: bool) -> str | None:
        import numpy as np
        import tensorflow as tf

        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = not optimized
        config.graph_options.rewrite_options.min_graph_nodes = -1
        with tf.Graph().as_default() as graph:
            for node in graph_def.node:
                node.device = ""
            try:
                tf.import_graph_def(graph_def, name="")
            except ValueError as error:  # a chain need not be whole for Grappler: a statistic may have no numbers
                return str(error)
            inputs = [op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"]
            feeds = {one: np.ones([size or 4 for size in one.shape], one.dtype.as_numpy_dtype) for one in inputs}
            variables = [op for op in graph.get_operations() if op.type == "VarHandleOp"]
            initial = [tf.raw_ops.AssignVariableOp(resource=op.outputs[0], value=_ones(op)) for op in variables]
            with tf.compat.v1.Session(config=config) as session:
                session.run(initial)
                try:
                    session.run([graph.get_operation_by_name(name) for name in fetches], feeds)
                except tf.errors.OpError as error:
                    return str(error.message)
        return None


def _ones(variable: Any) -> Any:
    import tensorflow as tf

    return tf.ones([size.size for size in variable.get_attr("shape").dim], variable.get_attr("dtype"))


def main() -> None:
    """Print one line per pattern."""
    import os

    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for row in rows():
        channel.write(json.dumps({**answer_of(row), "off": row.off, "on": row.on}) + "\n")
        channel.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
