"""What edits must not lose: effects and their order, branches that are not taken, exact texts, and open lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphlens.errors import RewriteError
from graphlens.ir.edit_data import own_edits
from graphlens.ir.edits import (
    ChangeDtype,
    FoldAffine,
    FoldConstant,
    HoistInvariant,
    MergeConstants,
    Ops,
    RemoveDebugOps,
    RemoveTransposes,
    SumByAddN,
)

pytestmark = pytest.mark.tf


def wrapped(lab: Any, tf: Any, function: Callable[..., Any], *examples: Any) -> Any:
    """Trace as TensorFlow 1 does: nothing runs that no output leads back to, and branches are ops of the graph."""
    tensors = [tf.convert_to_tensor(example) for example in examples]
    concrete = tf.compat.v1.wrap_function(function, [tf.TensorSpec(one.shape, one.dtype) for one in tensors])
    lab.KEPT.append(concrete)
    return lab.Traced(concrete, tensors, lab.of_function(concrete))


# -- effects --------------------------------------------------------------------------------------------------------


def counting(tf: Any, counter: Any, inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A step that counts its calls, where only the first op of ``inner`` waits for the counting."""

    def step(x: Any) -> Any:
        counted = tf.raw_ops.AssignAddVariableOp(resource=counter.handle, value=1.0)
        return inner(x, counted)

    return step


def transposed_twice(tf: Any, x: Any, counted: Any) -> Any:
    with tf.control_dependencies([counted]):
        y = tf.transpose(x)
    return tf.transpose(y) * 1.5


def cast_twice(tf: Any, x: Any, counted: Any) -> Any:
    with tf.control_dependencies([counted]):
        y = tf.cast(x, tf.float64)
    return tf.cast(y, tf.float32) * 1.5


def computed_from_constants(tf: Any, x: Any, counted: Any) -> Any:
    with tf.control_dependencies([counted]):
        y = tf.constant(2.0) * tf.constant(4.0)
    return tf.sqrt(y) * x


def computed_twice(tf: Any, x: Any, counted: Any) -> Any:
    with tf.control_dependencies([counted]):
        y = tf.sqrt(tf.abs(x))
    return y + tf.sqrt(tf.abs(x))


@pytest.mark.parametrize(
    ("edit", "inner"),
    {
        "remove-transposes": transposed_twice,
        "remove-casts": cast_twice,
        "fold-constant": computed_from_constants,
        "share-computation": computed_twice,
    }.items(),
)
def test_what_only_a_removed_op_waited_for_still_runs(lab: Any, tf: Any, edit: str, inner: Any) -> None:
    counter = lab.variable()
    step = counting(tf, counter, lambda x, counted: inner(tf, x, counted))
    traced = wrapped(lab, tf, step, lab.random(3, 4))
    copy, edited = (
        lab.rewrite.build(lab.rewrite.apply(traced.program, edits)) for edits in ([], [own_edits()[edit]()])
    )
    assert np.array_equal(copy.call(traced.examples), edited.call(traced.examples))
    counter.assign(0.0)
    edited.call(traced.examples)
    assert counter.numpy() == 1.0


def test_who_read_a_removed_op_waits_for_what_it_waited_for(lab: Any, tf: Any) -> None:
    counter = lab.variable()

    def reads_after(x: Any, counted: Any) -> Any:
        y = transposed_twice(tf, x, counted)
        with tf.control_dependencies([y]):
            return y + tf.raw_ops.ReadVariableOp(resource=counter.handle, dtype=tf.float32)

    traced = wrapped(lab, tf, counting(tf, counter, reads_after), lab.random(3, 4))
    edited = lab.rewrite.build(lab.rewrite.apply(traced.program, [RemoveTransposes()]))
    counter.assign(10.0)
    assert np.allclose(edited.call(traced.examples), traced.examples[0] * 1.5 + 11.0)


def test_a_summary_that_is_returned_is_no_debug_op(lab: Any, tf: Any) -> None:
    def summary(x: Any) -> Any:
        return tf.compat.v1.summary.scalar("mean", tf.reduce_mean(x))

    with pytest.raises(RewriteError, match="is read, so it cannot be left out"):
        wrapped(lab, tf, summary, lab.random(3)).edited(RemoveDebugOps())


def test_doubles_that_a_step_stores_stay_doubles(lab: Any, tf: Any) -> None:
    stored = lab.variable(dtype="float64")

    def step(x: Any) -> Any:
        wide = tf.cast(x, tf.float64) * 3.0
        stored.assign(tf.reduce_mean(wide))
        return tf.cast(wide * stored, tf.float32)

    edited = lab.trace(step, lab.random(3, 4)).edited(ChangeDtype(from_="float64", to="float32"))
    assert edited.difference < 1e-6
    assert edited.types["AssignVariableOp"] == 1


def test_random_doubles_are_drawn_as_doubles(lab: Any, tf: Any) -> None:
    def noisy(x: Any) -> Any:
        return x + tf.cast(tf.random.stateless_normal(tf.shape(x), [1, 2], dtype=tf.float64) * 2.0, tf.float32)

    edited = lab.trace(noisy, lab.random(3, 4)).edited(ChangeDtype(from_="float64", to="float32"))
    assert edited.difference < 1e-6


# -- branches of TensorFlow 1 ---------------------------------------------------------------------------------------


def branching(tf: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Callable[[Any], Any]:
    """Either of two constants' computations, as TensorFlow 1 writes a conditional: what is not taken is dead."""

    def step(x: Any) -> Any:
        positive = tf.reduce_sum(x) > 0.0
        pivot = tf.raw_ops.Switch(data=positive, pred=positive)
        with tf.control_dependencies([tf.identity(pivot.output_true)]):
            first = yes()
        with tf.control_dependencies([tf.identity(pivot.output_false)]):
            second = no()
        return tf.raw_ops.Merge(inputs=[first, second]).output * 1.5

    return step


@pytest.mark.parametrize("edit", ["fold-constant", "share-computation", "merge-constants", "freeze-variables"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_branch_that_is_not_taken_stays_dead(lab: Any, tf: Any, edit: str, sign: float) -> None:
    held = lab.variable(2)

    def read() -> Any:
        return tf.raw_ops.ReadVariableOp(resource=held.handle, dtype=tf.float32)

    step = branching(
        tf,
        lambda: tf.sqrt(tf.constant([2.0]) * tf.constant([3.0])) + read(),
        lambda: tf.sqrt(tf.constant([2.0]) * tf.constant([3.0])) - read(),
    )
    traced = wrapped(lab, tf, step, np.full(3, sign, "float32"))
    if edit == "merge-constants":
        assert traced.edited(own_edits()[edit]()).difference == 0
    else:
        with pytest.raises(RewriteError):
            traced.edited(own_edits()[edit]())


@pytest.fixture
def written_by_tensorflow_1(lab: Any, tf: Any, tmp_path: Path) -> Callable[[Callable[..., Any]], Any]:
    """Writes a step of TensorFlow 1 as a SavedModel, and opens it as a function."""
    v1 = tf.compat.v1

    def opened(step: Callable[..., Any]) -> Any:
        folder = str(tmp_path / step.__name__)
        v1.disable_control_flow_v2()
        try:
            with v1.Graph().as_default(), v1.Session() as session:
                x = v1.placeholder(tf.float32, [3], name="x")
                held = v1.get_variable("held", initializer=np.array([1.0, 2.0, 3.0], "float32"), use_resource=True)
                y = tf.identity(step(x, held))
                session.run(v1.global_variables_initializer())
                v1.saved_model.simple_save(session, folder, {"x": x}, {"y": y})
        finally:
            v1.enable_control_flow_v2()
        loaded = tf.saved_model.load(folder)
        lab.KEPT.append(loaded)
        return loaded.signatures["serving_default"]

    return opened


def test_variables_that_branches_of_tensorflow_1_read_are_read_there(
    lab: Any, tf: Any, written_by_tensorflow_1: Any
) -> None:
    function = written_by_tensorflow_1(
        lambda x, held: tf.compat.v1.cond(tf.reduce_sum(x) > 0.0, lambda: x * held[0], lambda: x - held[1])
    )
    program = lab.of_function(function)
    assert lab.types(program)["Merge"] == 1
    for edits in ([], [MergeConstants()]):
        built = lab.rewrite.build(lab.rewrite.apply(program, edits))
        for sign in (1.0, -1.0):
            x = tf.fill([3], sign)
            assert np.array_equal(function(x=x)["y"], built.call([x])["y"])


def test_what_tracing_would_put_in_a_wrong_order_is_refused(lab: Any, tf: Any, written_by_tensorflow_1: Any) -> None:
    def writes_after(x: Any, held: Any) -> Any:
        either = tf.compat.v1.cond(tf.reduce_sum(x) > 0.0, lambda: x + held, lambda: x)
        with tf.control_dependencies([either]):
            return either + held.assign_add([1.0] * 3)

    def loops(x: Any, held: Any) -> Any:
        return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 1.5), (0, x))[1]

    for step, reason in ((writes_after, "is written, and used in a branch"), (loops, "enters a loop")):
        with pytest.raises(RewriteError, match=reason):
            lab.of_function(written_by_tensorflow_1(step))


# -- exact values ---------------------------------------------------------------------------------------------------


def test_a_text_keeps_the_zero_byte_at_its_end(lab: Any, tf: Any) -> None:
    def joined(x: Any) -> Any:
        return tf.strings.join([x, tf.strings.join([tf.constant("a\0"), tf.constant("b\0")])])

    assert lab.trace(joined, np.array("text", object)).edited(FoldConstant()).difference == 0


def test_what_a_file_holds_is_no_constant(lab: Any, tf: Any, tmp_path: Any) -> None:
    (tmp_path / "text").write_text("one")

    def read(x: Any) -> Any:
        return tf.strings.join([x, tf.io.read_file(tf.constant(str(tmp_path / "text")))])

    with pytest.raises(RewriteError):
        lab.trace(read, np.array("text", object)).edited(FoldConstant())


# -- open lengths ---------------------------------------------------------------------------------------------------


def test_rows_that_were_left_out_on_one_side_only_keep_a_sum_from_addn(lab: Any, tf: Any) -> None:
    for some in (lambda x: x[:1], lambda x: tf.boolean_mask(x, x[:, 0] > 1e9), lambda x: tf.concat([x, x], 0)[:1]):
        traced = lab.trace(lambda x, some=some: tf.add(x, some(x), name="sum"), lab.random(3, 4))
        with pytest.raises(RewriteError, match="may differ in shape"):
            traced.edited(SumByAddN(Ops(("sum",))))


def test_a_sum_of_branches_with_the_same_rows_becomes_addn(lab: Any, tf: Any) -> None:
    kernel, bias = lab.variable(3, 3, 4, 4), lab.variable(4)

    def block(x: Any) -> Any:
        y = tf.nn.relu(tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), kernel, 1, "VALID") + bias)
        z = tf.reshape(tf.matmul(tf.reshape(y, [-1, 4]), kernel[0, 0]), [-1, 5, 5, 4])
        gate = tf.reshape(tf.sigmoid(tf.reduce_mean(z, [1, 2])), [-1, 1, 1, 4])
        return tf.add(y * x, z * tf.reduce_mean(x) * gate, name="sum")

    edited = lab.trace(block, lab.random(2, 5, 5, 4)).edited(SumByAddN(Ops(("sum",))))
    assert edited.difference < 1e-6
    assert edited.types["AddN"] == 1


def test_a_shape_is_turned_back_with_its_tensor(lab: Any, tf: Any) -> None:
    """After the transposes are gone, a row is no column any more, and the sum broadcasts as it did."""

    def step(row: Any, column: Any) -> Any:
        return tf.transpose(tf.nn.relu(tf.transpose(row, [0, 2, 1])), [0, 2, 1]) + column

    traced = lab.trace(step, lab.random(1, 1, 4), lab.random(1, 4, 1))
    edited = traced.edited(RemoveTransposes())
    assert edited.difference == 0
    with pytest.raises(RewriteError):
        lab.rewrite.apply(edited.program, [SumByAddN()])


# -- other kinds of numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "shift"), {"complex64": 1 + 2j, "int32": 2**30}.items())
def test_shifts_of_integers_and_complex_numbers_are_not_added_up(lab: Any, tf: Any, dtype: str, shift: Any) -> None:
    def step(x: Any) -> Any:
        y = tf.matmul(x, tf.constant(np.eye(2), dtype), name="layer")
        for _ in range(3):
            y = tf.nn.bias_add(y, tf.constant([shift] * 2, dtype))
        return y

    with pytest.raises(RewriteError, match=f"'layer' computes in {dtype}"):
        lab.trace(step, np.ones((2, 2), dtype)).edited(FoldAffine(where=Ops(("layer",))))


# -- loops that run no iteration ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["quotient", "second", "first"])
def test_what_fails_without_an_iteration_stays_in_the_loop(lab: Any, tf: Any, kind: str) -> None:
    def step(x: Any) -> Any:
        rows = tf.shape(x)[0]
        each = {
            "quotient": lambda: tf.cast(100 // rows, tf.float32),
            "second": lambda: tf.gather(x, 1)[0],
            "first": lambda: x[0, 0],
        }[kind]
        return tf.while_loop(lambda i, _: i < rows, lambda i, y: (i + 1, y + tf.exp(each())), [0, 0.0])[1]

    with pytest.raises(RewriteError, match="the same in every iteration"):
        lab.trace(step, lab.random(0, 4)).edited(HoistInvariant())
