"""SavedModels: signatures, roots, variables and captures, read without TensorFlow."""

from __future__ import annotations

import hashlib
import struct

import pytest
from load_helpers import add_function, graph_def, run_tensorflow
from oracles import saved_model_graphs, tensor_bytes
from real_inputs import REAL
from tensorboard.compat.proto import graph_pb2, meta_graph_pb2

from graphlens.errors import TargetError
from graphlens.ir.graph import Variable
from graphlens.ir.nodes import TensorSpec
from graphlens.loaders import savedmodel
from graphlens.loaders.graphdef import build_reachable
from graphlens.loaders.schema import saved_model


def meta_graph(message, tags=("serve",), **signatures):
    """Return a meta graph; ``signatures`` maps names to ``(input tensors, output tensors)``."""
    meta = meta_graph_pb2.MetaGraphDef(graph_def=message)
    meta.meta_info_def.tags.extend(tags)
    for name, (inputs, outputs) in signatures.items():
        for side, tensors in (("inputs", inputs), ("outputs", outputs)):
            for index, tensor in enumerate(tensors):
                info = getattr(meta.signature_def[name], side)[f"{side[:-1]}_{index}"]
                info.name, info.dtype = tensor, 1
    return meta


def write(folder, *meta_graphs):
    (folder / "saved_model.pb").write_bytes(
        saved_model()(saved_model_schema_version=1, meta_graphs=meta_graphs).SerializeToString()
    )
    return folder


TWO_PATHS = graph_def(
    ("x", "Placeholder", ()),
    ("a", "Relu", ("x",)),
    ("init", "NoOp", ()),
    ("b", "Neg", ("x", "^init")),
    ("save", "SaveV2", ()),
)


def test_a_tf1_signature_keeps_what_it_runs(tmp_path):
    model = savedmodel.load_saved_model(write(tmp_path, meta_graph(TWO_PATHS, one=(["x:0"], ["b:0"]))))
    assert set(model.graph.main.graph) == {"x", "init", "b"}
    assert (model.traced_root, model.graph.main.inputs, model.graph.main.outputs) == ("", ("x",), ("b",))
    assert model.signature == "one"


def test_a_tf1_loop_is_kept_whole(tmp_path):
    """The body is reached only through the back edge that the DAG leaves out."""
    loop = graph_def(
        ("enter", "Enter", ()),
        ("merge", "Merge", ("enter", "next")),
        ("switch", "Switch", ("merge",)),
        ("body", "Neg", ("switch:1",)),
        ("next", "NextIteration", ("body",)),
        ("exit", "Exit", ("switch",)),
    )
    model = savedmodel.load_saved_model(write(tmp_path, meta_graph(loop, s=([], ["exit:0"]))))
    assert len(model.graph.main.graph) == 6


def wrapped():
    message = graph_def(
        ("x", "Placeholder", ()), ("w", "VarHandleOp", ()), ("call", "StatefulPartitionedCall", ("x", "w"))
    )
    message.node[2].attr["f"].func.name = "signature_wrapper"
    wrapper = add_function(
        message,
        "signature_wrapper",
        [("inner", "PartitionedCall", ("x", "unknown"))],
        ("x", "unknown"),
        {"y": "inner:output:0"},
    )
    wrapper.node_def[0].attr["f"].func.name = "body"
    wrapper.node_def[0].attr["Tout"].list.type.append(1)
    add_function(message, "body", [("relu", "Relu", ("x",))], ("x", "w"), {"y": "relu:activations:0"})
    add_function(message, "never_called", [])
    return message


def test_a_tf2_signature_is_a_function(tmp_path):
    meta = meta_graph(wrapped(), serving_default=(["x:0"], ["call:0"]), other=([], ["w:0"]))
    variable = meta.object_graph_def.nodes.add().variable
    variable.name, variable.dtype, variable.trainable = "layer/w", 1, True
    meta.object_graph_def.concrete_functions["signature_wrapper"].bound_inputs.append(0)
    model = savedmodel.load_saved_model(write(tmp_path, meta))
    assert model.traced_root == model.graph.root == "signature_wrapper"
    assert set(model.graph.functions) == {"signature_wrapper", "body"}
    bound = Variable("layer/w", TensorSpec("float32", ()), trainable=True)
    assert model.graph.main.captures == {"unknown": bound}


def with_table():
    """Return a graph that hands a constant of 1,000 elements to its signature's function, in the place of ``w``."""
    message = wrapped()
    table = message.node.add(name="table", op="Const")
    held = table.attr["value"].tensor
    held.dtype, held.tensor_content = 1, struct.pack("<1000f", *range(1000))
    held.tensor_shape.dim.add(size=1000)
    message.node[2].input[1] = "table"
    return message


def test_a_captured_tensor_is_followed_from_the_object_graph_to_the_constant_of_the_main_graph(tmp_path):
    meta = meta_graph(with_table(), serving_default=(["x:0"], ["call:0"]))
    root = meta.object_graph_def.nodes.add()  # number 0, where TensorFlow keeps the signatures
    root.children.add(node_id=2, local_name="signatures")
    meta.object_graph_def.nodes.add().constant.operation = "table"
    meta.object_graph_def.nodes.add().children.add(node_id=3, local_name="serving_default")
    function = meta.object_graph_def.nodes.add().bare_concrete_function
    function.concrete_function_name = "signature_wrapper"
    meta.object_graph_def.concrete_functions["signature_wrapper"].bound_inputs.append(1)
    graph = savedmodel.load_saved_model(write(tmp_path, meta)).graph
    held = graph.main.graph.op("unknown")
    assert (held.type, held.constant.nbytes, held.constant.values) == ("_Arg", 4000, None)
    assert held.outputs == (TensorSpec("float32", (1000,)),)
    assert graph.main.graph.op("x").constant is None, "what a caller feeds is no constant"


def test_a_file_without_objects_says_in_its_main_graph_what_a_signature_is_handed(tmp_path):
    meta = meta_graph(with_table(), serving_default=(["x:0"], ["call:0"]))
    other = meta_graph(graph_def(), tags=())  # of two graphs, TensorFlow goes by names
    graph = savedmodel.load_saved_model(write(tmp_path, meta, other)).graph
    assert graph.main.graph.op("unknown").constant.nbytes == 4000


def test_a_file_without_objects_names_the_variables_that_a_signature_is_handed(tmp_path):
    message = wrapped()
    message.node[1].attr["shared_name"].s = b"layer/w"
    message.node[1].attr["dtype"].type = 1
    meta = meta_graph(message, serving_default=(["x:0"], ["call:0"]))
    other = meta_graph(graph_def(), tags=())
    graph = savedmodel.load_saved_model(write(tmp_path, meta, other)).graph
    assert graph.main.captures == {"unknown": Variable("layer/w", TensorSpec("float32", ()), trainable=None)}


def test_the_capture_graph_is_the_same_graph(tmp_path):
    model = savedmodel.load_saved_model(write(tmp_path, meta_graph(wrapped(), s=(["x:0"], ["call:0"]))))
    again = build_reachable(graph_pb2.GraphDef.FromString(model.graph_def), model.traced_root)
    assert {name: set(function.graph) for name, function in again.functions.items()} == {
        name: set(function.graph) for name, function in model.graph.functions.items()
    }


SIGNATURES = {"b_sig": ([], ["b:0"]), "a_sig": ([], ["a:0"])}


def test_the_default_signature(tmp_path):
    def chosen(**signatures):
        return savedmodel.load_saved_model(write(tmp_path, meta_graph(TWO_PATHS, **signatures)))

    assert chosen(**SIGNATURES, serving_default=([], ["a:0"])).signature == "serving_default"
    assert chosen(b_sig=SIGNATURES["b_sig"], __saved_model_init_op=([], ["init"])).signature == "b_sig"
    several = chosen(**SIGNATURES, nothing=(["x:0"], []))
    assert several.signature == "a_sig"  # both have one op; the third returns nothing
    assert several.chosen == (
        "a_sig, which of 3 has most ops (1); --signature NAME takes another one: b_sig (1), nothing (0)"
    )
    assert chosen(**SIGNATURES, serving_default=([], ["b:0"])).chosen is None


def test_of_several_signatures_the_one_with_most_ops_is_taken(tmp_path):
    """Counted by hand: ``other`` runs a Neg and an Abs, ``call`` by way of two functions a Relu."""
    message = wrapped()
    message.node.add(name="neg", op="Neg", input=["x"])
    message.node.add(name="abs", op="Abs", input=["neg"])
    signatures = {"call": (["x:0"], ["call:0"]), "other": (["x:0"], ["abs:0"])}
    model = savedmodel.load_saved_model(write(tmp_path, meta_graph(message, **signatures)))
    assert model.chosen == "other, which of 2 has most ops (2); --signature NAME takes another one: call (1)"
    assert set(model.graph.main.graph) == {"x", "neg", "abs"}
    message.library.function[1].node_def.add(name="exp", op="Exp", input=["relu:activations:0"])
    message.library.function[1].node_def.add(name="log", op="Log", input=["exp:y:0"])
    model = savedmodel.load_saved_model(write(tmp_path, meta_graph(message, **signatures)))
    assert model.chosen == "call, which of 2 has most ops (3); --signature NAME takes another one: other (2)"
    assert model.graph.root == "signature_wrapper"


def test_a_sentence_names_the_largest_of_many_signatures(tmp_path):
    many = {f"s{number}": (["x:0"], ["a:0"]) for number in range(9)}
    chosen = savedmodel.load_saved_model(write(tmp_path, meta_graph(TWO_PATHS, **many))).chosen
    assert chosen.endswith(": s1 (1), s2 (1), s3 (1), s4 (1), s5 (1) and 3 more")


def test_what_is_only_judged_needs_no_signature(tmp_path):
    write(tmp_path, meta_graph(TWO_PATHS))
    with pytest.raises(TargetError, match="or judge its graph as it is with --static"):
        savedmodel.load_saved_model(tmp_path)
    model = savedmodel.load_saved_model(tmp_path, is_run=False)
    assert set(model.graph.main.graph) == {"x", "a", "init", "b"}, "saving is no part of a step"
    assert (model.signature, model.signatures) == (None, ())
    assert model.notes == ("the model has no signature: its graph is judged as a whole",)


def test_a_model_of_functions_alone_is_judged_by_the_largest(tmp_path):
    message = graph_def(("w", "VarHandleOp", ()), ("save", "SaveV2", ("w",)))
    add_function(message, "one", [("relu", "Relu", ("x",))], ("x",), {"y": "relu:activations:0"})
    two = [("exp", "Exp", ("x",)), ("log", "Log", ("exp:y:0",))]
    add_function(message, "two", two, ("x",), {"y": "log:y:0"})
    meta = meta_graph(message)
    root = meta.object_graph_def.nodes.add()
    for name, function in (("first", "one"), ("second", "two")):
        root.children.add(node_id=len(meta.object_graph_def.nodes), local_name=name)
        meta.object_graph_def.nodes.add().function.concrete_functions.append(function)
    write(tmp_path, meta)
    model = savedmodel.load_saved_model(tmp_path, is_run=False)
    assert model.traced_root == "two"
    assert model.notes == (
        "the model has no signature: of its functions the one with most ops is judged, second; not judged: first",
    )


def test_a_wrong_signature_or_tag_lists_the_right_ones(tmp_path):
    write(
        tmp_path, meta_graph(TWO_PATHS, ("serve", "gpu"), **SIGNATURES), meta_graph(TWO_PATHS, ("train",), **SIGNATURES)
    )
    with pytest.raises(TargetError, match=r"no signature 'c'; pass --signature with one of: a_sig, b_sig"):
        savedmodel.load_saved_model(tmp_path, "c", "train")
    with pytest.raises(TargetError, match=r"no graph tagged 'tpu'; pass --tag with one of: gpu,serve; train"):
        savedmodel.load_saved_model(tmp_path, tag="tpu")
    with pytest.raises(TargetError, match=r"no graph without a tag, which --tag '' asks for; pass --tag with one of: "):
        savedmodel.load_saved_model(tmp_path, tag="")
    with pytest.raises(TargetError, match=r"several graphs; pass --tag with one of"):
        savedmodel.load_saved_model(tmp_path)
    assert savedmodel.load_saved_model(tmp_path, tag="gpu,serve").tags == ("gpu", "serve")
    assert [tags for tags, _ in savedmodel.list_signatures(tmp_path)] == [("gpu", "serve"), ("train",)]


def test_a_meta_graph_without_signatures_is_whole(tmp_path):
    file = tmp_path / "model.meta"
    file.write_bytes(meta_graph(TWO_PATHS).SerializeToString())
    model = savedmodel.load_meta_graph(file)
    assert len(model.graph.main.graph) == 5
    assert model.signature is None


def test_a_frozen_graph(tmp_path):
    file = tmp_path / "frozen.pb"
    file.write_bytes(TWO_PATHS.SerializeToString())
    model = savedmodel.load_graph_def(file)
    assert (model.traced_root, len(model.graph.main.graph)) == ("", 5)
    assert model.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert graph_pb2.GraphDef.FromString(model.graph_def) == TWO_PATHS


def test_a_graph_without_ops_is_refused(tmp_path):
    file = tmp_path / "empty.pb"
    file.write_bytes(b"\x22\x03\x08\x9a\x0e")
    with pytest.raises(TargetError, match="holds no op"):
        savedmodel.load_graph_def(file)


# -- real models --------------------------------------------------------------------------------------------------


def test_a_keras_2_export():
    model = savedmodel.load_saved_model(REAL / "basic_pitch_savedmodel")
    assert model.signature == "serving_default"
    assert [(tensor.name, str(tensor.spec)) for tensor in model.signatures[0].inputs] == [
        ("input_2", "float32[?,43844,1]")
    ]
    assert [tensor.name for tensor in model.signatures[0].outputs] == ["contour", "note", "onset"]
    resources = [name for name in model.graph.main.inputs if model.graph.main.graph.op(name).attrs["T"] == "resource"]
    assert set(model.graph.main.captures) == set(resources)


@pytest.mark.parametrize("signature", ["classification", "predict", "regression", "serving_default"])
def test_every_signature_of_an_estimator_export(signature):
    model = savedmodel.load_saved_model(REAL / "tfx_taxi_savedmodel", signature)
    ops = {op.type for op in model.graph.main.graph.ops()}
    assert "ParseExampleV2" in ops or "ParseExample" in ops
    assert "SaveV2" not in ops


def test_an_explicit_gpu_is_kept_as_the_requested_device():
    model = savedmodel.load_saved_model(REAL / "half_plus_two_gpu_savedmodel/00000123")
    assert any("GPU:0" in op.device for op in model.graph.main.graph.ops())


@pytest.mark.parametrize("name", ["bad_node_attr", "negative_shape"])
def test_models_that_tensorflow_rejects_are_still_read(name):
    assert len(savedmodel.load_saved_model(REAL / "malformed" / name).graph.main.graph) > 5


def test_no_weight_leaves_the_model():
    path = REAL / "basic_pitch_savedmodel"
    whole = saved_model_graphs((path / "saved_model.pb").read_bytes())[0]
    assert max(tensor_bytes(whole)) > 30_000, "else this test shows nothing"
    assert max(tensor_bytes(savedmodel.load_saved_model(path).graph_def)) <= 256


# -- models of today's TensorFlow ---------------------------------------------------------------------------------

EXPORT = """
import sys, numpy as np, tensorflow as tf, keras
folder = sys.argv[1]
inputs = keras.Input((8,), name="x")
model = keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs))
model.export(folder + "/exported", verbose=False)
tf.saved_model.save(model, folder + "/saved")

class Plain(tf.Module):
    def __init__(self):
        self.w = tf.Variable(np.eye(4, dtype="f"), name="w")
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64)), -1)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None], tf.string)])
    def __call__(self, x, keys):
        for _ in tf.range(3):
            x = tf.matmul(x, self.w)
        if tf.reduce_sum(x) > 0:
            x = -x
        return x, self.table.lookup(keys)

plain = Plain()
tf.saved_model.save(plain, folder + "/plain", signatures=plain.__call__,
                    options=tf.saved_model.SaveOptions(save_debug_info=True))
class Unsigned(tf.Module):
    @tf.function
    def __call__(self, x):
        return x + 1.0
unsigned = Unsigned()
unsigned(tf.zeros((2,)))
tf.saved_model.save(unsigned, folder + "/unsigned")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    run_tensorflow(EXPORT, folder)
    return folder


@pytest.mark.tf
@pytest.mark.parametrize("name", ["exported", "saved"])
def test_keras_3_models(exported, name):
    model = savedmodel.load_saved_model(exported / name)
    assert {variable.name: str(variable.spec) for variable in model.graph.main.captures.values()} == {
        "dense/kernel": "float32[8,3]",
        "dense/bias": "float32[3]",
    }
    assert model.notes == ()


@pytest.mark.tf
def test_control_flow_tables_and_source_lines(exported):
    model = savedmodel.load_saved_model(exported / "plain")
    roles = {
        call.role for function in model.graph.functions.values() for op in function.graph.ops() for call in op.calls
    }
    assert roles == {"call", "cond", "body", "then", "else"}
    assert [variable.name for variable in model.graph.main.captures.values()] == ["w"], "the table is no variable"
    assert any("_initializer_" in graph.root for graph in model.judged.on_load)
    lines = {
        op.source for function in model.graph.functions.values() for op in function.graph.ops() if op.type == "Neg"
    }
    negation = 1 + (exported / "script.py").read_text().splitlines().index("            x = -x")
    assert lines == {f"{exported / 'script.py'}:{negation}"}


@pytest.mark.tf
def test_a_model_without_signatures_is_what_calling_it_runs(exported):
    model = savedmodel.load_saved_model(exported / "unsigned")
    assert model.signature == "__call__"
    assert [(tensor.name, str(tensor.spec)) for tensor in model.signatures[0].inputs] == [("x", "float32[2]")]
    assert "AddV2" in {op.type for op in model.graph.main.graph.ops()}


def test_a_file_of_functions_alone_says_that_nothing_was_judged(tmp_path):
    message = graph_def()
    for name in ("f", "g", "h", "i"):
        add_function(message, name, [("r", "Relu", ("a",))], ("a",), {"o": "r:activations:0"})
    (tmp_path / "functions.pb").write_bytes(message.SerializeToString())
    loaded = savedmodel.load_graph_def(tmp_path / "functions.pb")
    assert loaded.notes == (
        "nothing was judged: the file's main graph is empty, and nothing in the file calls its functions ('f', 'g', "
        "'h' and 1 more); export the model with the call of the one that is meant",
    )


def test_a_function_that_calls_itself_is_noted_and_one_that_grows_without_bounds_is_refused(tmp_path):
    message = graph_def(("x", "Placeholder", ()), ("start", "f", ("x",)))
    add_function(message, "f", [("again", "f", ("a",))], ("a",), {"o": "again:o:0"})
    (tmp_path / "m.pb").write_bytes(message.SerializeToString())
    (note,) = savedmodel.load_graph_def(tmp_path / "m.pb").notes
    assert note.startswith("function 'f' calls itself: that call stays an op")
    message = graph_def(("x", "Placeholder", ()), ("start", "f0", ("x",)))
    for level in range(30):
        twice = [(side, f"f{level + 1}", ("a",)) for side in ("left", "right")]
        add_function(message, f"f{level}", twice, ("a",), {"o": "left:o:0"})
    add_function(message, "f30", [("r", "Relu", ("a",))], ("a",), {"o": "r:activations:0"})
    (tmp_path / "m.pb").write_bytes(message.SerializeToString())
    with pytest.raises(TargetError, match="once its functions are inlined"):
        savedmodel.load_graph_def(tmp_path / "m.pb")
