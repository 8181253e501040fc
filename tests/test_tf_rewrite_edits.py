"""The edits other than folding: what vanishes, that the numbers stay, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edit_data import from_data
from graphlens.ir.edits import (
    ChangeDtype,
    ConstantToVariable,
    FoldAffine,
    FoldConstant,
    FreezeVariables,
    HoistInvariant,
    JitCompile,
    MergeConstants,
    Ops,
    PlaceOps,
    RemoveCasts,
    RemoveDebugOps,
    RemoveDropout,
    RemoveTransposes,
    ShareComputation,
    SumByAddN,
    UseMovingStatistics,
)

pytestmark = pytest.mark.tf


def refusal(traced: Any, **edit: Any) -> str:
    with pytest.raises(RewriteError) as caught:
        traced.edited(from_data(edit))
    return str(caught.value)


# -- where values are kept ------------------------------------------------------------------------------------------


def test_frozen_variables_are_constants_of_the_same_name(lab: Any, tf: Any) -> None:
    weights = lab.variable(4, 3)
    traced = lab.trace(lambda x: tf.matmul(x, weights), lab.random(2, 4))
    (read,) = lab.named(traced.program, "ReadVariableOp")
    edited = traced.edited(FreezeVariables())
    assert edited.difference == 0
    assert edited.types["ReadVariableOp"] == 0
    assert read in lab.named(edited.program, "Const")


def test_a_variable_that_is_written_cannot_be_frozen(lab: Any, tf: Any) -> None:
    counter = tf.Variable(1.0)
    lab.KEPT.append(counter)

    def counts(x: Any) -> Any:
        counter.assign_add(1.0)
        return x + counter

    assert "no variable" in refusal(lab.trace(counts, lab.random(2, 4)), edit="freeze-variables")


def test_a_variable_that_a_loop_writes_cannot_be_frozen(lab: Any, tf: Any) -> None:
    total = tf.Variable(1.0)
    lab.KEPT.append(total)

    def adds_up(x: Any) -> Any:
        tf.while_loop(lambda i: i < 3, lambda i: (i + tf.cast(total.assign_add(1.0) * 0, tf.int32) + 1,), (0,))
        return x + total

    assert "no variable" in refusal(lab.trace(adds_up, lab.random(2, 4)), edit="freeze-variables")


def test_more_than_a_graph_holds_is_refused(lab: Any, tf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphlens.tf.rewrite import freeze

    monkeypatch.setattr(freeze, "CONSTANT_BYTES_LIMIT", 1000)
    weights = lab.variable(100, 100)
    traced = lab.trace(lambda x: tf.matmul(x, weights), lab.random(2, 100))
    assert "2 GB" in refusal(traced, edit="freeze-variables")


def test_what_depends_on_variables_alone_is_computed_once(lab: Any, tf: Any) -> None:
    variance, gamma = lab.variable(8), lab.variable(8)
    traced = lab.trace(lambda x: x * (tf.math.rsqrt(variance + 1e-3) * gamma), lab.random(2, 8))
    (scale,) = (name for name in lab.named(traced.program, "Mul") if "1" not in name.rpartition("/")[2])
    edited = traced.edited(FoldConstant(Ops((scale,)), freeze=True))
    assert edited.difference == 0
    assert edited.types == {"Placeholder": 1, "Const": 1, "Mul": 1, "Identity": 1}


def test_a_big_result_stays_a_variable(lab: Any, tf: Any) -> None:
    weights = lab.variable(256, 256)
    edited = lab.trace(lambda x: tf.matmul(x, tf.sqrt(weights)), lab.random(2, 256)).edited(FoldConstant())
    assert edited.difference == 0
    assert edited.types["Sqrt"] == edited.types["Const"] == 0
    assert edited.types["ReadVariableOp"] == 1
    assert [variable.shape for variable in edited.built.concrete.variables] == [(256, 256)]


def test_what_depends_on_an_input_is_not_computed_before(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: tf.sqrt(x, name="root"), np.abs(lab.random(2, 4)))
    assert refusal(traced, edit="fold-constant", ops=["root"]) == "'root' depends on 'x', which is an input"


def test_equal_constants_are_kept_once(lab: Any, tf: Any) -> None:
    table = lab.random(16, 16)
    traced = lab.trace(
        lambda x: tf.matmul(tf.matmul(x, tf.constant(table, name="a")), tf.constant(table, name="b")), lab.random(2, 16)
    )
    edited = traced.edited(MergeConstants(Ops(("a", "b"))))
    assert edited.difference == 0
    assert lab.named(edited.program, "Const") == ["a"]


def test_different_constants_are_not_merged(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: x * tf.constant(2.0, name="a") + tf.constant(3.0, name="b"), lab.random(2, 4))
    assert "not equal" in refusal(traced, edit="merge-constants", ops=["a", "b"])


def test_a_sum_of_two_branches_becomes_what_grappler_takes_into_the_convolution(lab: Any, tf: Any) -> None:
    weights, bias = lab.variable(3, 3, 4, 4), lab.variable(4)

    def block(x: Any) -> Any:
        return tf.nn.relu(tf.add(tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME"), bias), x, name="sum"))

    edited = lab.trace(block, lab.random(2, 6, 6, 4)).edited(SumByAddN(Ops(traced=("sum",))))
    assert edited.difference < 1e-6
    assert (edited.types["AddN"], edited.types["AddV2"]) == (1, 0)


@pytest.mark.parametrize(
    ("name", "shapes"),
    {"broadcast": ((2, 1, 4), (2, 3, 4)), "two open batches": ((2, 4), (2, 4)), "rank": ((2, 4), (2, 2, 4))}.items(),
)
def test_a_sum_that_may_broadcast_stays(lab: Any, tf: Any, name: str, shapes: Any) -> None:
    traced = lab.trace(lambda x, y: tf.add(x, y, name="sum"), *(lab.random(*shape) for shape in shapes))
    assert "AddN does not broadcast" in refusal(traced, edit="sum-by-add-n", ops=["sum"]), name


def test_a_constant_becomes_a_variable(lab: Any, tf: Any) -> None:
    table = lab.random(16, 16)
    traced = lab.trace(lambda x: tf.matmul(x, tf.constant(table, name="table")), lab.random(2, 16))
    edited = traced.edited(ConstantToVariable(Ops(("table",))))
    assert edited.difference == 0
    assert lab.named(edited.program, "ReadVariableOp") == ["table"]
    assert len(edited.built.concrete.variables) == 1


# -- transposes -----------------------------------------------------------------------------------------------------


def around(tf: Any, inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that goes to channels-first, computes, and comes back."""

    def function(x: Any) -> Any:
        y = inner(tf.transpose(x, [0, 3, 1, 2], name="there"))
        return tf.transpose(y, [0, 2, 3, 1], name="back")

    return function


@pytest.mark.parametrize("kind", ["one op", "a gate", "a channel scale", "nothing"])
def test_transposes_around_elementwise_ops_go(lab: Any, tf: Any, kind: str) -> None:
    per_channel = lab.variable(3, 1, 1)
    inner = {
        "one op": tf.nn.relu,
        "a gate": lambda y: y * tf.sigmoid(y) + 1.0,
        "a channel scale": lambda y: tf.tanh(y * per_channel),
        "nothing": lambda y: y,
    }[kind]
    edited = lab.trace(around(tf, inner), lab.random(2, 4, 5, 3)).edited(RemoveTransposes(Ops(("there", "back"))))
    assert edited.difference == 0
    assert edited.types["Transpose"] == 0


def test_an_op_whose_axes_mean_something_keeps_the_transposes(lab: Any, tf: Any) -> None:
    traced = lab.trace(around(tf, tf.nn.softmax), lab.random(2, 4, 5, 3))
    assert "Softmax" in refusal(traced, edit="remove-transposes", ops=["there", "back"])


# -- types ----------------------------------------------------------------------------------------------------------


def test_a_cast_there_and_back_goes(lab: Any, tf: Any) -> None:
    traced = lab.trace(
        lambda x: tf.cast(tf.reshape(tf.cast(x, tf.float64, name="there"), [-1]), tf.float32, name="back") + 1.0,
        lab.random(2, 4),
    )
    edited = traced.edited(RemoveCasts(Ops(("there", "back"))))
    assert edited.difference == 0
    assert edited.types["Cast"] == 0


def test_a_cast_that_rounds_goes_only_when_it_is_named(lab: Any, tf: Any) -> None:
    traced = lab.trace(
        lambda x: tf.cast(tf.cast(x, tf.float16, name="there"), tf.float32, name="back"), lab.random(2, 4)
    )
    refusal(traced, edit="remove-casts")
    assert 0 < traced.edited(RemoveCasts(Ops(("there", "back")))).difference < 1e-3


def test_a_cast_to_integers_rounds_on_purpose(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: tf.cast(tf.cast(x, tf.int32, name="there"), tf.float32, name="back"), lab.random(2, 4))
    refusal(traced, edit="remove-casts", ops=["there", "back"])


def test_an_island_of_doubles_computes_in_floats(lab: Any, tf: Any) -> None:
    weights = lab.variable(4, 4, dtype="float64")

    def island(x: Any) -> Any:
        wide = tf.matmul(tf.cast(x, tf.float64), weights, name="product") + np.float64(0.5)
        return tf.cast(tf.nn.softmax(wide), tf.float32)

    traced = lab.trace(island, lab.random(3, 4))
    edited = traced.edited(ChangeDtype(from_="float64", to="float32"))
    assert edited.difference < 1e-6
    assert edited.types["Cast"] == 0
    assert {node.attr["T"].type for node in edited.program.graph.node if "T" in node.attr} == {
        tf.float32.as_datatype_enum
    }


def test_inputs_and_outputs_keep_their_type(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: tf.nn.relu(x * np.float64(3), name="out"), lab.random(3, 4, dtype="float64"))
    edited = traced.edited(ChangeDtype(from_="float64", to="float32"))
    assert edited.difference < 1e-6  # which compares types too
    assert edited.types["Cast"] == 2


# -- inference ------------------------------------------------------------------------------------------------------


def test_checks_and_prints_go_with_what_they_alone_need(lab: Any, tf: Any) -> None:
    import sys

    def checked(x: Any) -> Any:
        tf.debugging.assert_less(x, 1e9, message="too big")
        tf.print("sum", tf.reduce_sum(x), output_stream=sys.stderr)
        return tf.nn.relu(tf.debugging.check_numerics(x, "not finite"))

    edited = lab.trace(checked, lab.random(2, 4)).edited(RemoveDebugOps())
    assert edited.difference == 0
    assert edited.types == {"Placeholder": 1, "Relu": 1, "Identity": 1, "NoOp": 1} or edited.types == {
        "Placeholder": 1,
        "Relu": 1,
        "Identity": 1,
    }


def test_a_check_that_an_op_waits_for_by_name_goes(lab: Any, tf: Any) -> None:
    def checked(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_max(x) < 1e9, [x])]):
            return tf.exp(x)

    edited = lab.trace(checked, lab.random(2, 4)).edited(RemoveDebugOps())
    assert edited.difference == 0
    assert edited.types["If"] == edited.types["Max"] == 0


def test_an_op_that_is_no_check_is_not_taken_out(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: tf.nn.relu(x, name="relu"), lab.random(2, 4))
    assert "no check" in refusal(traced, edit="remove-debug-ops", ops=["relu"])


def test_a_conditional_that_does_more_than_check_stays(lab: Any, tf: Any) -> None:
    state = tf.Variable(0.0)
    lab.KEPT.append(state)

    def assigns(x: Any) -> Any:
        tf.cond(tf.reduce_sum(x) > 0, lambda: state.assign(1.0), lambda: state.assign(2.0))
        return x + 1.0

    refusal(lab.trace(assigns, lab.random(2, 4)), edit="remove-debug-ops")


@pytest.mark.parametrize("kind", ["today's", "TensorFlow 1's"])
def test_dropout_hands_on_its_input(lab: Any, tf: Any, kind: str) -> None:
    def old(x: Any) -> Any:
        return (x / 0.75) * tf.floor(0.75 + tf.random.uniform(tf.shape(x)))

    dropout = old if kind == "TensorFlow 1's" else lambda x: tf.nn.dropout(x, 0.25)
    traced = lab.trace(lambda x: tf.nn.relu(dropout(x)), lab.random(4, 8))
    program = lab.rewrite.apply(traced.program, [RemoveDropout()])
    assert set(lab.types(program)) <= {"Placeholder", "Relu", "Identity", "NoOp"}
    found = lab.rewrite.build(program).call(traced.examples)
    assert np.array_equal(found.numpy(), np.maximum(traced.examples[0].numpy(), 0))


def test_dropout_of_a_dropout_hands_on_the_input_of_the_first(lab: Any, tf: Any) -> None:
    def twice(x: Any) -> Any:
        return tf.nn.dropout(tf.nn.dropout(x, 0.2), 0.5) + 1.0

    traced = lab.trace(twice, lab.random(2, 4))
    built = lab.rewrite.build(lab.rewrite.apply(traced.program, [RemoveDropout()]))
    assert np.array_equal(built.call(traced.examples).numpy(), traced.examples[0].numpy() + 1)


def test_random_noise_is_no_dropout(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: x * tf.random.uniform(tf.shape(x)), lab.random(4, 8))
    refusal(traced, edit="remove-dropout")


def test_a_batch_norm_that_trains_uses_what_it_stored(lab: Any, tf: Any) -> None:
    mean, variance = lab.variable(4), lab.variable(4)
    gamma, beta = lab.variable(4), lab.variable(4)

    def trains(x: Any) -> Any:
        y, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, is_training=True)
        mean.assign_sub((mean - batch_mean) * 0.01)
        variance.assign_sub((variance - batch_variance) * 0.01)
        return y

    traced = lab.trace(trains, lab.random(2, 4, 4, 4))
    program = lab.rewrite.apply(traced.program, [UseMovingStatistics()])
    expected = tf.compat.v1.nn.fused_batch_norm(traced.examples[0], gamma, beta, mean, variance, is_training=False)[0]
    before = mean.numpy().copy()
    found = lab.rewrite.build(program).call(traced.examples)
    assert lab.difference(expected, found) < 1e-6
    assert np.array_equal(mean.numpy(), before)


def test_a_batch_norm_that_stores_nothing_is_refused(lab: Any, tf: Any) -> None:
    def trains(x: Any) -> Any:
        return tf.compat.v1.nn.fused_batch_norm(x, tf.ones(4), tf.zeros(4), is_training=True)[0]

    assert "never updates" in refusal(lab.trace(trains, lab.random(2, 4, 4, 4)), edit="use-moving-statistics")


# -- repeated and invariant work ------------------------------------------------------------------------------------


def test_what_is_computed_twice_is_computed_once(lab: Any, tf: Any) -> None:
    weights = lab.variable(4, 4)
    traced = lab.trace(
        lambda x: tf.matmul(x, weights, name="first") + tf.nn.relu(tf.matmul(x, weights, name="second")),
        lab.random(2, 4),
    )
    edited = traced.edited(ShareComputation(Ops(("first", "second"))))
    assert edited.difference == 0
    assert lab.named(edited.program, "MatMul") == ["first"]
    assert traced.edited(ShareComputation()).types["MatMul"] == 1


def test_what_differs_is_not_shared(lab: Any, tf: Any) -> None:
    def both(x: Any) -> Any:
        return tf.matmul(x, x, transpose_b=True, name="first"), tf.matmul(x, x, transpose_a=True, name="second")

    traced = lab.trace(both, lab.random(4, 4))
    assert "not compute the same" in refusal(traced, edit="share-computation", ops=["first", "second"])


def test_random_numbers_are_never_shared(lab: Any, tf: Any) -> None:
    traced = lab.trace(
        lambda x: x + tf.random.uniform([4], name="first") - tf.random.uniform([4], name="second"), lab.random(2, 4)
    )
    refusal(traced, edit="share-computation")


def looping(lab: Any, tf: Any) -> Any:
    weights = lab.variable(8, 8)

    def function(x: Any) -> Any:
        def body(i: Any, state: Any, given: Any) -> Any:
            return i + 1, tf.tanh(state + tf.matmul(given, weights, name="projected")), given

        return tf.while_loop(lambda i, *_: i < 5, body, (0, tf.zeros_like(x), x))[1]

    return lab.trace(function, lab.random(3, 8))


def test_what_no_iteration_changes_is_computed_before_the_loop(lab: Any, tf: Any) -> None:
    traced = looping(lab, tf)
    edited = traced.edited(HoistInvariant())
    assert edited.difference < 1e-6
    assert edited.types["MatMul"] == 1  # in front of the loop now
    inside = [node.op for function in edited.program.graph.library.function for node in function.node_def]
    assert "MatMul" not in inside
    assert "Tanh" in inside


def test_every_output_that_the_body_reads_is_computed_before_the_loop(lab: Any, tf: Any) -> None:
    """As the two biases of a GRU, which its cell splits in every iteration."""
    biases = lab.variable(3, 8)

    def function(x: Any) -> Any:
        def body(i: Any, state: Any) -> Any:
            first, _, last = tf.unstack(biases, name="biases")
            return i + 1, tf.tanh(state * first + last)

        return tf.while_loop(lambda i, *_: i < 5, body, (0, x))[1]

    traced = lab.trace(function, lab.random(3, 8))
    (loop,) = (node.name for node in traced.program.graph.node if "While" in node.op)
    edited = traced.edited(HoistInvariant(where=Ops((f"{loop}/body/while/biases",)), loop=loop))
    assert edited.difference < 1e-6
    assert edited.types["Unpack"] == 1
    inside = [node.op for function in edited.program.graph.library.function for node in function.node_def]
    assert "Unpack" not in inside


def test_a_named_op_is_hoisted_out_of_its_loop_only(lab: Any, tf: Any) -> None:
    traced = looping(lab, tf)
    (loop,) = (node.name for node in traced.program.graph.node if "While" in node.op)
    edited = traced.edited(HoistInvariant(where=Ops((f"{loop}/body/while/projected",)), loop=loop))
    assert edited.difference < 1e-6
    assert edited.types["MatMul"] == 1
    why = refusal(traced, edit="hoist-invariant", loop=loop, ops=[f"{loop}/body/while/Tanh"])
    assert "an iteration changes" in why


def nested(lab: Any, tf: Any) -> Any:
    """A loop of five rounds in one of three: `Sin` is the same in all, `Cos` in those of the inner loop."""
    weights = lab.variable(8, 8)

    def function(x: Any, given: Any) -> Any:
        def outer(i: Any, state: Any) -> Any:
            scaled = given * tf.cast(i, tf.float32)

            def inner(j: Any, state: Any) -> Any:
                matrix = tf.sin(given + weights, name="sin") + tf.cos(scaled, name="cos")
                return j + 1, tf.tanh(tf.matmul(state, matrix) + tf.cast(j, tf.float32))

            return i + 1, tf.while_loop(lambda j, *_: j < 5, inner, (0, state), name="inner")[1]

        return tf.while_loop(lambda i, *_: i < 3, outer, (0, x), name="outer")[1]

    return lab.trace(function, lab.random(3, 8), lab.random(8, 8))


def types_by_body(program: Any) -> dict[str, set[str]]:
    """What the bodies compute that a step runs: of the loop in the graph, and of the loop in its body."""
    library = {function.signature.name: function for function in program.graph.library.function}
    (loop,) = (node for node in program.graph.node if "While" in node.op)
    outer = library[loop.attr["body"].func.name]
    (loop,) = (node for node in outer.node_def if "While" in node.op)
    inner = library[loop.attr["body"].func.name]
    return {"outer": {node.op for node in outer.node_def}, "inner": {node.op for node in inner.node_def}}


def test_what_is_the_same_in_all_loops_around_it_is_taken_out_of_all(lab: Any, tf: Any) -> None:
    traced = nested(lab, tf)
    edited = traced.edited(HoistInvariant())
    assert edited.difference < 1e-6
    assert edited.types["Sin"] == 1
    found = types_by_body(edited.program)
    assert "Sin" not in found["outer"] | found["inner"]
    assert "Cos" in found["outer"] - found["inner"]


@pytest.mark.parametrize(("op", "leaves"), [("sin", {"Sin"}), ("cos", {"Cos"})])
def test_a_named_op_of_an_inner_loop_is_hoisted_as_far_as_it_can_be(
    lab: Any, tf: Any, op: str, leaves: set[str]
) -> None:
    traced = nested(lab, tf)
    before = types_by_body(traced.program)
    loop = "outer/body/outer/inner"
    edited = traced.edited(HoistInvariant(where=Ops((f"{loop}/body/outer/inner/{op}",)), loop=loop))
    assert edited.difference < 1e-6
    after = types_by_body(edited.program)
    assert leaves <= before["inner"] - after["inner"]
    assert ("Sin" in edited.types) == (op == "sin")
    assert ("Cos" in after["outer"]) == (op == "cos")


def test_an_op_that_left_its_loop_with_another_one_is_no_error(lab: Any, tf: Any) -> None:
    """`Sin` reads a sum, which goes with it: an edit that names the sum has nothing left to do."""
    traced = nested(lab, tf)
    loop = "outer/body/outer/inner"
    inside = f"{loop}/body/outer/inner"
    edits = [HoistInvariant(where=Ops((f"{inside}/{op}",)), loop=loop) for op in ("sin", "add")]
    assert traced.edited(*edits).difference < 1e-6
    hoisted = lab.rewrite.apply(traced.program, edits[:1])
    assert lab.types(lab.rewrite.apply(hoisted, edits[1:])) == lab.types(hoisted)


def test_an_op_of_an_inner_loop_that_its_iterations_change_stays(lab: Any, tf: Any) -> None:
    loop = "outer/body/outer/inner"
    why = refusal(nested(lab, tf), edit="hoist-invariant", loop=loop, ops=[f"{loop}/body/outer/inner/Tanh"])
    assert "an iteration changes" in why
    assert "inside a conditional or a call" in refusal(
        nested(lab, tf), edit="hoist-invariant", loop="outer/body/elsewhere", ops=["Tanh"]
    )


# -- who computes ---------------------------------------------------------------------------------------------------


def test_xla_compiles_the_function_or_a_part(lab: Any, tf: Any) -> None:
    weights = lab.variable(8, 8)

    def function(x: Any) -> Any:
        y = tf.nn.relu(tf.matmul(x, weights, name="product"), name="relu")
        return tf.reduce_sum(y * 2.0), y

    traced = lab.trace(function, lab.random(3, 8))
    whole = traced.edited(JitCompile())
    assert whole.difference < 1e-5
    assert lab.private.is_jit_compiled(whole.built.concrete)
    part = traced.edited(JitCompile(Ops(("product", "relu"))))
    assert part.difference < 1e-5
    assert not {"MatMul", "Relu"} & set(part.types)
    (call,) = (node for node in part.program.graph.node if node.op == "StatefulPartitionedCall")
    assert call.attr["_XlaMustCompile"].b


def test_a_part_with_a_hole_is_not_compiled(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: tf.exp(tf.sin(tf.cos(x, name="a"), name="b"), name="c"), lab.random(3, 8))
    assert "'b' lies between" in refusal(traced, edit="jit-compile", ops=["a", "c"])


def test_ops_are_placed(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: tf.exp(x, name="a"), lab.random(3, 8))
    edited = traced.edited(PlaceOps(Ops(("a",)), device="/device:CPU:0"))
    assert next(node.device for node in edited.program.graph.node if node.name == "a") == "/device:CPU:0"
    assert edited.difference == 0


# -- several edits --------------------------------------------------------------------------------------------------


def test_an_edit_whose_work_is_done_already_is_no_error(lab: Any, tf: Any) -> None:
    weights, variance = lab.variable(4, 4), lab.variable(4)
    traced = lab.trace(lambda x: tf.matmul(x, weights) * tf.math.rsqrt(variance, name="scale"), lab.random(2, 4))
    fold, store = FoldAffine(), FoldConstant(Ops(("scale",)))
    assert traced.edited(fold, store).difference < 1e-6
    folded = lab.rewrite.apply(traced.program, [fold])
    assert lab.types(lab.rewrite.apply(folded, [store])) == lab.types(folded)


def test_an_unknown_edit_names_the_known_ones(lab: Any, tf: Any) -> None:
    traced = lab.trace(lambda x: x + 1.0, lab.random(2))
    assert "fold-affine" in refusal(traced, edit="make-it-fast")


def test_an_op_that_is_not_there_is_named(lab: Any, tf: Any) -> None:
    traced = lab.trace(tf.exp, lab.random(2))
    assert "'nowhere'" in refusal(traced, edit="share-computation", ops=["nowhere", "Exp"])
