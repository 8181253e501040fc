"""What TensorFlow would run of a model file is found, wherever the file says it: without TensorFlow, on made files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from load_helpers import add_function, graph_def
from tensorboard.compat.proto import graph_pb2, meta_graph_pb2

from graphlens.loaders import savedmodel
from graphlens.loaders.schema import saved_model

PATH = "/home/somebody/.ssh/id_rsa"


def blockers(tmp_path: Path, *metas: Any, tag: str | None = None) -> list[str]:
    """Write a SavedModel and return the ops for which it must not be executed."""
    content = saved_model()(saved_model_schema_version=1, meta_graphs=metas)
    (tmp_path / "saved_model.pb").write_bytes(content.SerializeToString())
    found = savedmodel.load_saved_model(tmp_path, tag=tag).judged.all_blockers()
    return [name for name, _ in found]


def tf1(*nodes: tuple[str, str, tuple[str, ...]], tags: tuple[str, ...] = ("serve",)) -> Any:
    """A meta graph whose signature is ``y = Relu(x)``, with other nodes beside it."""
    graph = graph_def(("x", "Placeholder", ()), ("y", "Relu", ("x",)), ("evil", "WriteFile", ()), *nodes)
    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    meta.meta_info_def.tags.extend(tags)
    for side, name in (("inputs", "x"), ("outputs", "y")):
        info = getattr(meta.signature_def["serving_default"], side)[name]
        info.name, info.dtype = f"{name}:0", 1
    return meta


def tf2() -> Any:
    """A meta graph with a function per signature: ``good`` is harmless, ``evil`` writes a file."""
    meta = tf1(("call", "StatefulPartitionedCall", ("x",)))
    meta.graph_def.node[-1].attr["f"].func.name = "good"
    meta.signature_def["serving_default"].outputs["y"].name = "call:0"
    add_function(meta.graph_def, "good", [("relu", "Relu", ("x",))], ("x",), {"y": "relu:0"})
    add_function(meta.graph_def, "evil", [("write", "WriteFile", ("x", "x"))], ("x",))
    for name in ("good", "evil"):
        meta.object_graph_def.concrete_functions[name].SetInParent()
    root, signatures, good, evil, bare = (meta.object_graph_def.nodes.add() for _ in range(5))
    root.user_object.identifier = "_generic_user_object"
    signatures.user_object.identifier = "signature_map"
    good.bare_concrete_function.concrete_function_name = "good"
    evil.bare_concrete_function.concrete_function_name = "evil"
    bare.function.concrete_functions.append("evil")
    child(meta, ROOT, "signatures", SIGNATURES)
    child(meta, SIGNATURES, "serving_default", GOOD)
    return meta


ROOT, SIGNATURES, GOOD, EVIL, EVIL_GENERIC, NOTHING = range(6)


def child(meta: Any, parent: int, name: str, number: int) -> None:
    meta.object_graph_def.nodes[parent].children.add(local_name=name, node_id=number)


# -- TensorFlow 2: the object graph -----------------------------------------------------------------------------------


def test_a_harmless_model_has_no_blockers(tmp_path: Path) -> None:
    assert blockers(tmp_path, tf2()) == []


def test_the_signature_that_runs_is_the_object_graphs(tmp_path: Path) -> None:
    """The signature beside it, which other tools read, calls the harmless function."""
    meta = tf2()
    meta.object_graph_def.nodes[SIGNATURES].children[0].node_id = EVIL
    assert blockers(tmp_path, meta) == ["write"]
    assert savedmodel.load_saved_model(tmp_path).traced_root == "evil"


def test_a_public_function_is_for_users_to_call(tmp_path: Path) -> None:
    meta = tf2()
    child(meta, ROOT, "export_to_file", EVIL)
    child(meta, SIGNATURES, "other", EVIL)
    assert blockers(tmp_path, meta) == []


@pytest.mark.parametrize("name", ["_initialize", "_create_resource", "_restore_from_tensors", "_trackable_children"])
@pytest.mark.parametrize("number", [EVIL, EVIL_GENERIC])
def test_private_functions_are_tensorflows_to_call(tmp_path: Path, name: str, number: int) -> None:
    meta = tf2()
    child(meta, ROOT, name, number)
    assert blockers(tmp_path, meta) == ["write"]


def test_functions_list_their_traces_and_captures(tmp_path: Path) -> None:
    meta = tf2()
    child(meta, ROOT, "write", EVIL_GENERIC)
    child(meta, EVIL_GENERIC, "trace_0", EVIL)
    child(meta, EVIL, "capture_1", ROOT)
    assert blockers(tmp_path, meta) == []


def test_a_function_in_place_of_a_functions_own_method_is_called(tmp_path: Path) -> None:
    meta = tf2()
    child(meta, GOOD, "inference_fn", EVIL)
    assert blockers(tmp_path, meta) == ["write"]


def test_functions_that_restore_an_object_run_on_loading(tmp_path: Path) -> None:
    meta = tf2()
    meta.object_graph_def.nodes[ROOT].saveable_objects["state"].restore_function = EVIL
    meta.object_graph_def.nodes[ROOT].saveable_objects["state"].save_function = GOOD
    assert blockers(tmp_path, meta) == ["write"]


@pytest.mark.parametrize("number", [NOTHING, SIGNATURES])
def test_an_initializer_that_cannot_be_found_is_no_safe_one(tmp_path: Path, number: int) -> None:
    meta = tf2()
    child(meta, ROOT, "_initialize", number)
    assert blockers(tmp_path, meta) == ["_initialize"]


def test_an_initializer_whose_function_is_missing_is_no_safe_one(tmp_path: Path) -> None:
    meta = tf2()
    meta.object_graph_def.nodes[EVIL].bare_concrete_function.concrete_function_name = "nowhere"
    child(meta, ROOT, "_initialize", EVIL)
    assert blockers(tmp_path, meta) == ["_initialize"]


def test_a_private_function_that_was_never_traced_is_nothing_to_call(tmp_path: Path) -> None:
    meta = tf2()
    del meta.object_graph_def.nodes[EVIL_GENERIC].function.concrete_functions[:]
    child(meta, ROOT, "_helper", EVIL_GENERIC)
    assert blockers(tmp_path, meta) == []


def test_functions_that_may_be_swapped_for_one_another_are_all_judged(tmp_path: Path) -> None:
    """Grappler takes another function of the same interface where that suits the device better."""
    meta = tf2()
    for function in meta.graph_def.library.function:
        function.attr["api_implements"].s = b"lstm"
    assert blockers(tmp_path, meta) == ["write"]


def with_vocabulary() -> Any:
    """A table that is filled on loading from the file that the initializer's argument names."""
    meta = tf2()
    load = [("table", "HashTableV2", ()), ("fill", "InitializeTableFromTextFileV2", ("table:table_handle:0", "name"))]
    add_function(meta.graph_def, "fill_table", load, ("name",))
    table, initializer, name = (meta.object_graph_def.nodes.add() for _ in range(3))
    table.resource.SetInParent()
    initializer.function.concrete_functions.append("fill_table")
    meta.object_graph_def.concrete_functions["fill_table"].bound_inputs.append(len(meta.object_graph_def.nodes) - 1)
    child(meta, len(meta.object_graph_def.nodes) - 3, "_initialize", len(meta.object_graph_def.nodes) - 2)
    name.asset.asset_file_def_index = 0
    meta.asset_file_def.add(filename="words.txt")
    return meta


def test_a_vocabulary_of_the_models_own_is_no_blocker(tmp_path: Path) -> None:
    assert blockers(tmp_path, with_vocabulary()) == []


@pytest.mark.parametrize("filename", ["../../../etc/passwd", PATH, "C:\\secret.txt", "a/../../b", "\\\\host\\share"])
def test_an_asset_that_is_not_in_the_models_folder_is_somebody_elses(tmp_path: Path, filename: str) -> None:
    meta = with_vocabulary()
    meta.asset_file_def[0].filename = filename
    assert blockers(tmp_path, meta) == [filename]


def test_a_constant_that_is_passed_as_an_assets_name_is_no_asset(tmp_path: Path) -> None:
    meta = with_vocabulary()
    meta.object_graph_def.nodes[-1].constant.operation = "path"
    assert blockers(tmp_path, meta) == ["fill"]


def test_a_constant_that_a_signature_captures_is_no_name_from_its_caller(tmp_path: Path) -> None:
    meta = with_vocabulary()
    meta.object_graph_def.nodes[SIGNATURES].children[0].node_id = len(meta.object_graph_def.nodes) - 2
    assert blockers(tmp_path, meta) == []
    meta.object_graph_def.nodes[-1].constant.operation = "path"
    assert set(blockers(tmp_path, meta)) == {"fill"}


# -- TensorFlow 1: names in the main graph ----------------------------------------------------------------------------


def test_what_a_tf1_signature_does_not_need_is_no_blocker(tmp_path: Path) -> None:
    assert blockers(tmp_path, tf1()) == []


def in_collection(meta: Any, key: str) -> None:
    meta.collection_def[key].node_list.value.append("evil")


def as_signature(meta: Any) -> None:
    meta.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "evil"


def as_restoring(meta: Any) -> None:
    meta.saver_def.restore_op_name = "evil"


def as_local_variable(meta: Any) -> None:
    from tensorboard.compat.proto.variable_pb2 import VariableDef

    variable = VariableDef(variable_name="v:0", initializer_name="evil")
    meta.collection_def["local_variables"].bytes_list.value.append(variable.SerializeToString())


@pytest.mark.parametrize(
    "place",
    [
        as_signature,
        as_restoring,
        as_local_variable,
        lambda meta: in_collection(meta, "saved_model_main_op"),
        lambda meta: in_collection(meta, "legacy_init_op"),
        lambda meta: in_collection(meta, "table_initializer"),
    ],
)
def test_all_ways_to_run_an_op_on_loading(tmp_path: Path, place: Any) -> None:
    meta = tf1()
    place(meta)
    assert blockers(tmp_path, meta) == ["evil"]


def test_an_op_that_only_the_back_edge_of_a_loop_leads_to(tmp_path: Path) -> None:
    loop = (
        ("enter", "Enter", ()),
        ("merge", "Merge", ("enter", "next")),
        ("switch", "Switch", ("merge",)),
        ("next", "NextIteration", ("switch:1", "^evil")),
        ("exit", "Exit", ("switch",)),
    )
    meta = tf1(*loop)
    meta.collection_def["saved_model_main_op"].node_list.value.append("exit")
    assert blockers(tmp_path, meta) == ["evil"]


def restoring(*more: str) -> Any:
    """The saver as TensorFlow 1 writes it; ``more`` inputs of the op that restores all."""
    saver = (
        ("save/Const", "Const", ()),
        ("save/RestoreV2", "RestoreV2", ("save/Const", "names", "slices")),
        ("names", "Const", ()),
        ("slices", "Const", ()),
        ("assign", "AssignVariableOp", ("handle", "save/RestoreV2")),
        ("handle", "VarHandleOp", ()),
        ("save/restore_all", "NoOp", ("^assign", *more)),
    )
    meta = tf1(*saver)
    meta.saver_def.restore_op_name, meta.saver_def.filename_tensor_name = "save/restore_all", "save/Const:0"
    return meta


def test_restoring_the_models_own_variables_is_no_blocker(tmp_path: Path) -> None:
    assert blockers(tmp_path, restoring()) == []


def test_what_restoring_waits_for_runs_too(tmp_path: Path) -> None:
    assert blockers(tmp_path, restoring("^evil")) == ["evil"]


def test_restoring_from_another_file_reads_somebody_elses(tmp_path: Path) -> None:
    meta = restoring()
    meta.saver_def.filename_tensor_name = "names:0"
    assert blockers(tmp_path, meta) == ["save/RestoreV2"]


def test_among_several_graphs_tensorflow_goes_by_names_not_by_objects(tmp_path: Path) -> None:
    """The object graph is harmless, the restoring op that TensorFlow then runs is not."""
    meta = tf2()
    meta.saver_def.restore_op_name = "evil"
    assert blockers(tmp_path, meta) == []
    assert blockers(tmp_path, meta, tf1(tags=("train",)), tag="serve") == ["evil"]


# -- files of one graph -----------------------------------------------------------------------------------------------

SAVER = (("x", "Placeholder", ()), ("y", "Relu", ("x",)), ("name", "Placeholder", ()), ("save", "SaveV2", ("name",)))


def test_a_frozen_graph_runs_its_saver(tmp_path: Path) -> None:
    file = tmp_path / "frozen.pb"
    file.write_bytes(graph_def(*SAVER).SerializeToString())
    assert [name for name, _ in savedmodel.load_graph_def(file).judged.all_blockers()] == ["save"]


def test_a_meta_file_runs_its_saver_whatever_the_signature(tmp_path: Path) -> None:
    meta = tf1(*SAVER[2:])
    file = tmp_path / "model.meta"
    file.write_bytes(meta.SerializeToString())
    loaded = savedmodel.load_meta_graph(file)
    assert "save" not in loaded.graph.main.graph
    assert [name for name, _ in loaded.judged.all_blockers()] == ["evil", "save"]


def test_a_function_that_its_caller_completes_cannot_be_judged(tmp_path: Path) -> None:
    """`f` calls what the attribute `g` of the call says, which no other part of the graph mentions."""
    message = graph_def(("x", "Placeholder", ()), ("call", "PartitionedCall", ("x",)))
    message.node[1].attr["f"].func.name = "f"
    message.node[1].attr["f"].func.attr["g"].func.name = "evil"
    function = add_function(message, "f", [("inner", "PartitionedCall", ("x",))], ("x",))
    function.node_def[0].attr["f"].placeholder = "g"
    add_function(message, "evil", [("write", "WriteFile", ("x", "x"))], ("x",))
    file = tmp_path / "frozen.pb"
    file.write_bytes(message.SerializeToString())
    assert [name for name, _ in savedmodel.load_graph_def(file).judged.all_blockers()] == ["f/inner"]


# -- text and binary --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pb", "model.pbtxt", "model"])
@pytest.mark.parametrize("is_text", [True, False])
def test_a_graphs_content_decides_whether_it_is_text(tmp_path: Path, name: str, is_text: bool) -> None:
    message = graph_pb2.GraphDef()
    message.node.add(name="größe", op="Placeholder")
    data = 'node { name: "größe" op: "Placeholder" }'.encode() if is_text else message.SerializeToString()
    (tmp_path / name).write_bytes(data)
    loaded = savedmodel.load_graph_def(tmp_path / name)
    assert (loaded.is_text, list(loaded.graph.main.graph)) == (is_text, ["größe"])


def test_a_saved_models_name_decides_whether_it_is_text(tmp_path: Path) -> None:
    from google.protobuf import text_format

    from graphlens.errors import TargetError

    content = text_format.MessageToString(saved_model()(saved_model_schema_version=1, meta_graphs=[tf1()]))
    (tmp_path / "saved_model.pbtxt").write_text(content, encoding="utf-8")
    assert savedmodel.load_saved_model(tmp_path).signature == "serving_default"
    (tmp_path / "saved_model.pb").write_text(content, encoding="utf-8")
    with pytest.raises(TargetError, match=r"is text, which TensorFlow reads under the name saved_model\.pbtxt only"):
        savedmodel.load_saved_model(tmp_path)
