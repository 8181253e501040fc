"""Tensors that a function has captured: the same in every call, and an input to no one but Grappler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphlens import cli
from graphlens.errors import RewriteError
from graphlens.ir.edits import ConstantToVariable, FoldConstant, FoldInputAffine, FreezeVariables, MergeConstants, Ops

pytestmark = pytest.mark.tf

MIB = 1 << 20


def findings(tmp_path: Path, target: str | Path, *options: str) -> dict[str, Any]:
    """Return code -> finding of an analysis of a file by the command line, without proofs."""
    report = tmp_path / "report.json"
    assert cli.main(["analyze", str(target), "-o", str(report), "--no-prove", *options]) == 0
    return {found["code"]: found for found in json.loads(report.read_text())["findings"]}


@pytest.fixture
def saved(tf: Any, tmp_path: Path) -> Path:
    """A model that captures a table of 1 MiB, and normalizes an image by captured numbers before it is convolved."""

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.table = tf.constant(np.random.default_rng(0).normal(size=(512, 512)).astype("float32"))
            self.mean, self.deviation = tf.constant([1.0, 2.0, 3.0]), tf.constant([4.0, 5.0, 6.0])
            self.kernel = tf.Variable(tf.ones((3, 3, 3, 512)))

        @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3))])
        def __call__(self, image: Any) -> Any:
            seen = tf.nn.conv2d((image - self.mean) / self.deviation, self.kernel, 1, "VALID")
            return tf.matmul(tf.reduce_mean(seen, (1, 2)), tf.nn.softmax(self.table))

    model = Model()
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.__call__)
    return tmp_path / "model"


def test_a_saved_model_tells_its_captured_tensors_without_tensorflow(saved: Path, tmp_path: Path) -> None:
    found = findings(tmp_path, saved, "--static")
    assert found["GL602"]["evidence"]["bytes"] == MIB
    assert "captured" in found["GL602"]["reason"]
    assert found["GL210"]["evidence"]["groups"][0][0].endswith("Softmax")
    assert found["GL214"]["evidence"]["op_types"] == {"Sub": 1, "RealDiv": 1}


def test_the_recording_tells_them_too_and_leaves_their_values_behind(saved: Path, tmp_path: Path) -> None:
    capture = tmp_path / "model.capture"
    assert cli.main(["record", str(saved), "-o", str(capture), "--steps", "3"]) == 0
    found = findings(tmp_path, capture)
    assert "captured" in found["GL210"]["reason"]
    assert found["GL214"]["evidence"]["ops_that_vanish"] == 2
    assert found["GL602"]["evidence"]["bytes"] == MIB
    assert capture.stat().st_size < MIB / 4


def test_a_live_function_holds_what_it_captures_in_memory_and_in_no_graph(tf: Any) -> None:
    import graphlens

    table = tf.constant(np.ones((512, 512), "float32"))
    weights = tf.Variable(tf.ones((4, 512)))
    function = tf.function(lambda x: x @ weights @ tf.nn.softmax(table))
    found = {item.code for item in graphlens.analyze(function, inputs=(tf.ones((8, 4)),), steps=3).findings}
    assert "GL210" in found
    assert "GL602" not in found


@pytest.mark.parametrize("how", ["a file", "a recording"])
def test_permutations_that_a_function_captured_are_known(tf: Any, tmp_path: Path, how: str) -> None:
    """onnx2tf 2.6 hands them to the function that it writes, beside the weights."""

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.there, self.back = tf.constant([0, 3, 1, 2]), tf.constant([0, 2, 3, 1])
            self.slope, self.kernel = tf.constant(np.full((3, 1, 1), 0.2, "float32")), tf.ones((3, 3, 3, 3)) / 9

        @tf.function(input_signature=[tf.TensorSpec((1, 16, 16, 3))])
        def __call__(self, image: Any) -> Any:
            seen = tf.transpose(tf.nn.conv2d(image, self.kernel, 1, "SAME"), self.there)
            seen = tf.maximum(seen, 0.0) + self.slope * tf.minimum(seen, 0.0)
            return tf.nn.conv2d(tf.transpose(seen, self.back), self.kernel, 1, "SAME")

    model, target = Model(), tmp_path / "model"
    tf.saved_model.save(model, str(target), signatures=model.__call__)
    options = ["--static"]
    if how == "a recording":
        options, target = [], tmp_path / "model.capture"
        assert cli.main(["record", str(tmp_path / "model"), "-o", str(target), "--steps", "3"]) == 0
    found = findings(tmp_path, target, *options, "--select", "GL207")["GL207"]
    assert len(found["evidence"]["regions"][0]["vanishing"]) == 2
    assert "Minimum" in found["reason"]


# -- edits ----------------------------------------------------------------------------------------------------------


def test_a_captured_tensor_can_be_kept_in_a_variable(lab: Any, tf: Any) -> None:
    table = tf.constant(lab.random(16, 16))
    traced = lab.trace(lambda x: x @ table, lab.random(2, 16))
    (name,) = [name for name, held in traced.program.bindings.items() if held.kind == "constant"]
    edited = traced.edited(ConstantToVariable(Ops((name,))))
    assert edited.difference == 0
    assert [held.kind for held in edited.program.bindings.values()] == ["weight"]


def test_equal_captured_tensors_are_kept_once(lab: Any, tf: Any) -> None:
    first, second = tf.ones(200), tf.ones(200)  # up to 128 elements, TensorFlow makes constants of what is captured
    traced = lab.trace(lambda x: x * first + second, lab.random(3, 200))
    names = [name for name, held in traced.program.bindings.items() if held.kind == "constant"]
    edited = traced.edited(MergeConstants(Ops(tuple(names))))
    assert edited.difference == 0
    assert lab.types(edited.program)["Placeholder"] == 2, "the input and one of them"


def test_what_is_made_of_captured_tensors_is_computed_once(lab: Any, tf: Any) -> None:
    table = tf.constant(lab.random(16, 16))
    traced = lab.trace(lambda x: x @ tf.nn.softmax(table), lab.random(2, 16))
    edited = traced.edited(FoldConstant())
    assert edited.difference == 0
    assert "Softmax" not in edited.types


def test_an_input_is_normalized_by_the_weights(lab: Any, tf: Any) -> None:
    mean, deviation = tf.constant([1.0, 2.0, 3.0]), tf.constant([4.0, 5.0, 6.0])
    kernel = lab.variable(3, 3, 3, 4)
    traced = lab.trace(lambda x: tf.nn.conv2d((x - mean) / deviation, kernel, 1, "VALID"), lab.random(1, 8, 8, 3))
    edited = traced.edited(FoldInputAffine())
    assert edited.difference < 1e-5
    assert not {"Sub", "RealDiv"} & set(edited.types)


# -- the rule and its edit agree about what is written --------------------------------------------------------------


def test_a_variable_that_a_function_in_a_loop_reads_is_not_written(lab: Any, tf: Any) -> None:
    weights = lab.variable(4, 4)
    layer = tf.function(lambda x: x @ weights)

    def model(x: Any, times: Any) -> Any:
        for _ in tf.range(times):
            x = layer(x)
        return x @ tf.nn.softmax(weights)

    traced = lab.trace(tf.function(model), lab.random(2, 4), np.int32(2))
    assert traced.program.written == frozenset()
    edited = traced.edited(FoldConstant())
    assert edited.difference == 0
    assert "Softmax" not in edited.types


def test_a_variable_that_a_function_in_a_loop_writes_is_written(lab: Any, tf: Any) -> None:
    weights = lab.variable(4, 4)
    decay = tf.function(lambda: weights.assign(weights * 0.5))

    def model(x: Any, times: Any) -> Any:
        for _ in tf.range(times):
            decay()
        return x @ tf.nn.softmax(weights)

    traced = lab.trace(tf.function(model), lab.random(2, 4), np.int32(2))
    assert len(traced.program.written) == 1
    with pytest.raises(RewriteError, match="never to be written"):
        traced.edited(FreezeVariables())


def test_a_refusal_says_what_may_change(lab: Any, tf: Any) -> None:
    counter, weights = tf.Variable(1.0, name="counter"), lab.variable(4)
    lab.KEPT.append(counter)

    def model(x: Any) -> Any:
        counter.assign_add(1.0)
        return {"a": tf.exp(x) * weights, "b": tf.exp(tf.sin(counter))}

    traced = lab.trace(model, lab.random(2, 4))
    exps = lab.named(traced.program, "Exp")
    said = []
    for name in exps:
        with pytest.raises(RewriteError) as caught:
            traced.edited(FoldConstant(Ops((name,))))
        said.append(str(caught.value))
    assert said[0].endswith("which is an input")
    assert said[1].endswith("which is a read of 'counter', a variable that may be written")


@pytest.fixture
def trained(tf: Any, tmp_path: Path) -> Path:
    """A model whose file also holds a signature that trains it, by a function that a loop calls, and one that reads."""

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kernel = tf.Variable(tf.ones((64, 64)), name="kernel")
            self.offset = tf.Variable(tf.ones((64, 64)), name="offset")

        @tf.function(input_signature=[tf.TensorSpec((1, 64))])
        def serve(self, x: Any) -> Any:
            return {"y": x @ tf.exp(tf.sin(self.kernel)) @ tf.nn.softmax(self.offset)}

        @tf.function
        def decay(self, rate: Any) -> None:
            self.kernel.assign_sub(rate * self.kernel)

        @tf.function(input_signature=[tf.TensorSpec(()), tf.TensorSpec((), tf.int32)])
        def train(self, rate: Any, times: Any) -> Any:
            for _ in tf.range(times):
                self.decay(rate)
            return {"size": tf.reduce_sum(self.kernel)}

        @tf.function(input_signature=[])
        def largest(self) -> Any:
            return {"largest": tf.reduce_max(self.offset)}

    model = Model()
    signatures = {"serving_default": model.serve, "train": model.train, "largest": model.largest}
    tf.saved_model.save(model, str(tmp_path / "trained"), signatures=signatures)
    return tmp_path / "trained"


def test_what_another_signature_writes_is_not_folded_and_it_is_said_who_writes(trained: Path, tmp_path: Path) -> None:
    found = findings(tmp_path, trained, "--static")
    assert [group[-1].rpartition("/")[2] for group in found["GL210"]["evidence"]["groups"]] == ["Softmax"]
    assert found["GL215"]["evidence"]["groups"][0][-1].endswith("Exp")
    assert "('train')" in found["GL215"]["reason"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert any("1 variable of 2 may be written by another signature" in note for note in report["quality"]["notes"])


def test_what_another_signature_writes_in_one_of_several_branches_is_written(tmp_path: Path, tf: Any) -> None:
    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kernel = tf.Variable(tf.ones((64, 64)), name="kernel")

        @tf.function(input_signature=[tf.TensorSpec((1, 64))])
        def serve(self, x: Any) -> Any:
            return {"y": x @ tf.exp(tf.sin(self.kernel))}

        @tf.function(input_signature=[tf.TensorSpec((), tf.int32)])
        def train(self, which: Any) -> Any:
            branches = [self.kernel.read_value, lambda: self.kernel.assign(self.kernel * 2.0)]
            return {"size": tf.reduce_sum(tf.switch_case(which, branches))}

    model, folder = Model(), tmp_path / "switched"
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve, "train": model.train})
    found = findings(tmp_path, folder, "--static")
    assert "GL210" not in found
    assert "('train')" in found["GL215"]["reason"]


def test_the_written_file_folds_what_the_rule_named_and_leaves_the_rest(trained: Path, tmp_path: Path, tf: Any) -> None:
    from graphlens.tf.rewrite.export import write_saved_model

    found = findings(tmp_path, trained, "--static")
    (group,) = found["GL210"]["evidence"]["groups"]
    write_saved_model(str(trained), {"serving_default": [FoldConstant(Ops(tuple(group)))]}, str(tmp_path / "fixed"))
    before, after = tf.saved_model.load(str(trained)), tf.saved_model.load(str(tmp_path / "fixed"))
    x = tf.ones((1, 64))
    for _ in range(2):  # the second time after a step of training, which both have to notice
        one, other = (model.signatures["serving_default"](x)["y"] for model in (before, after))
        np.testing.assert_array_equal(one, other)
        for model in (before, after):
            model.signatures["train"](rate=tf.constant(0.1), times=tf.constant(2))


# -- weights that are prepared in every call ------------------------------------------------------------------------


def test_a_clustered_weight_is_stored_to_the_last_bit(lab: Any, tf: Any) -> None:
    weights, centroids = lab.variable(16, 8), tf.Variable(np.linspace(0.5, 1.5, 8).astype("float32"))
    indices = tf.Variable(tf.zeros((16, 8), tf.int64))
    lab.KEPT.extend([centroids, indices])

    def model(x: Any) -> Any:
        nearest = tf.argmin(tf.abs(tf.expand_dims(weights, -1) - centroids), axis=-1)
        indices.assign(nearest)
        return x @ (tf.gather(centroids, nearest) * tf.sign(weights))

    traced = lab.trace(model, lab.random(2, 16))
    assert lab.types(traced.program)["ResourceGather"] == 1
    prepared = [node.name for node in traced.program.graph.node if node.op in ("Mul", "ArgMin")]
    edited = traced.edited(FoldConstant(Ops(tuple(prepared))))
    assert edited.difference == 0
    assert not {"ResourceGather", "Sub", "Abs", "ArgMin", "Sign", "Mul"} & set(edited.types)
    assert edited.types["AssignVariableOp"] == 1, "what a call writes stays as it was"


def test_rows_of_a_variable_that_is_written_are_computed_in_each_call(lab: Any, tf: Any) -> None:
    table = lab.variable(16, 8)

    def model(x: Any) -> Any:
        table.assign(table * 0.5)
        return x @ tf.nn.softmax(tf.gather(table, tf.range(8)))

    traced = lab.trace(model, lab.random(2, 8))
    (softmax,) = lab.named(traced.program, "Softmax")
    with pytest.raises(RewriteError, match="a variable that may be written"):
        traced.edited(FoldConstant(Ops((softmax,))))


def test_wrappers_of_pruning_are_named_with_what_they_write(tf: Any, tmp_path: Path) -> None:
    class Pruned(tf.Module):  # type: ignore[misc]
        """As the TensorFlow Model Optimization Toolkit wraps a layer: the mask is applied to the variable itself."""

        def __init__(self) -> None:
            super().__init__("prune_low_magnitude_dense")
            self.kernel = tf.Variable(tf.ones((64, 64)), name="dense/kernel")
            self.mask = tf.Variable(tf.eye(64), trainable=False, name="prune_low_magnitude_dense/mask")
            self.calls = tf.Variable(0, trainable=False, dtype=tf.int64)

        @tf.function(input_signature=[tf.TensorSpec((1, 64))])
        def __call__(self, x: Any) -> Any:
            with tf.name_scope("net/prune_low_magnitude_dense/"):
                self.calls.assign_add(1)
                self.kernel.assign(self.kernel * self.mask)
                return tf.matmul(x, self.kernel)

    model = Pruned()
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.__call__)
    found = findings(tmp_path, tmp_path / "model", "--static")
    (variable,) = found["GL407"]["evidence"]["variables"]
    assert (variable["variable"], variable["bytes"]) == ("dense/kernel", 64 * 64 * 4)
    assert variable["layer"] == "net/prune_low_magnitude_dense"
    assert found["GL407"]["fix"]["snippet"].startswith("model = tfmot.sparsity.keras.strip_pruning(model)")
    assert found["GL215"]["evidence"]["wrapper"] == "the pruning wrappers"


def test_what_a_function_finds_out_in_each_call_is_not_found_out_for_us(tf: Any) -> None:
    """The number of the next collective is found so: asked for once too often, a worker waits for ever."""
    from tensorflow.python.framework import ops

    from graphlens.tf import private
    from graphlens.tf.record.graphs import captured_tensors

    asked: list[int] = []

    def next_number() -> Any:
        asked.append(len(asked))
        return tf.constant(asked[-1])

    held = tf.constant([5, 6])

    @tf.function
    def numbered(x: Any) -> Any:
        return x + held + ops.get_default_graph().capture_call_time_value(next_number, tf.TensorSpec((), tf.int32))

    concrete = numbered.get_concrete_function(tf.TensorSpec((), tf.int32))
    asked.clear()
    (argument,) = private.arguments(concrete)
    (first, _), (later, placeholder) = private.captures(concrete)
    assert (argument.dtype, first is held, later is placeholder) == (tf.int32, True, True)
    assert len(captured_tensors(concrete)) == 1
    assert private.variables(concrete) == []
    assert asked == []
    assert [numbered(tf.constant(1)).numpy().tolist() for _ in range(2)] == [[6, 7], [7, 8]]
