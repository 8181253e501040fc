"""The protobuf messages that ``tensorboard`` does not bring: SavedModel, XPlane, profiler service, under our own names.

They are built from the tables below, so they fit every protobuf runtime (generated code is tied to one) and never
meet TensorFlow's own descriptors, which may live in the same process.  The numbers are those of TensorFlow's
``.proto`` files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

# field -> (number, type); a type in brackets is repeated, one in braces a map from int64, other names are messages.
Table = Mapping[str, Mapping[str, tuple[int, str]]]

XPLANE: Table = {
    "XSpace": {
        "planes": (1, "[XPlane]"),
        "errors": (2, "[string]"),
        "warnings": (3, "[string]"),
        "hostnames": (4, "[string]"),
    },
    "XPlane": {
        "id": (1, "int64"),
        "name": (2, "string"),
        "lines": (3, "[XLine]"),
        "event_metadata": (4, "{XEventMetadata}"),
        "stat_metadata": (5, "{XStatMetadata}"),
        "stats": (6, "[XStat]"),
    },
    "XLine": {
        "id": (1, "int64"),
        "name": (2, "string"),
        "timestamp_ns": (3, "int64"),
        "events": (4, "[XEvent]"),
        "duration_ps": (9, "int64"),
        "display_id": (10, "int64"),
        "display_name": (11, "string"),
    },
    "XEvent": {
        "metadata_id": (1, "int64"),
        "offset_ps": (2, "int64"),
        "duration_ps": (3, "int64"),
        "stats": (4, "[XStat]"),
        "num_occurrences": (5, "int64"),
    },
    "XStat": {
        "metadata_id": (1, "int64"),
        "double_value": (2, "double"),
        "uint64_value": (3, "uint64"),
        "int64_value": (4, "int64"),
        "str_value": (5, "string"),
        "bytes_value": (6, "bytes"),
        "ref_value": (7, "uint64"),
    },
    "XEventMetadata": {
        "id": (1, "int64"),
        "name": (2, "string"),
        "metadata": (3, "bytes"),
        "display_name": (4, "string"),
        "stats": (5, "[XStat]"),
        "child_id": (6, "[int64]"),
    },
    "XStatMetadata": {"id": (1, "int64"), "name": (2, "string"), "description": (3, "string")},
}
_XSTAT_VALUES = ("double_value", "uint64_value", "int64_value", "str_value", "bytes_value", "ref_value")

# What is read of a module of XLA, of some forty fields that an instruction may have.
HLO: Table = {
    "HloProto": {"hlo_module": (1, "HloModuleProto")},
    "HloModuleProto": {
        "name": (1, "string"),
        "entry_computation_name": (2, "string"),
        "computations": (3, "[HloComputationProto]"),
        "entry_computation_id": (6, "int64"),
    },
    "HloComputationProto": {
        "name": (1, "string"),
        "instructions": (2, "[HloInstructionProto]"),
        "id": (5, "int64"),
        "root_id": (6, "int64"),
    },
    "HloInstructionProto": {
        "name": (1, "string"),
        "opcode": (2, "string"),
        "shape": (3, "ShapeProto"),
        "metadata": (7, "OpMetadata"),
        "parameter_number": (9, "int64"),
        "window": (15, "WindowProto"),
        "convolution_dimension_numbers": (16, "ConvolutionDimensionNumbers"),
        "custom_call_target": (28, "string"),
        "dot_dimension_numbers": (30, "DotDimensionNumbers"),
        "id": (35, "int64"),
        "operand_ids": (36, "[int64]"),
        "control_predecessor_ids": (37, "[int64]"),
        "called_computation_ids": (38, "[int64]"),
    },
    "OpMetadata": {
        "op_type": (1, "string"),
        "op_name": (2, "string"),
        "source_file": (3, "string"),
        "source_line": (4, "int32"),
    },
    "WindowProto": {"dimensions": (1, "[WindowDimension]")},
    "WindowDimension": {"size": (1, "int64")},
    "ConvolutionDimensionNumbers": {"kernel_output_feature_dimension": (4, "int64")},
    "DotDimensionNumbers": {"lhs_contracting_dimensions": (1, "[int64]")},
    "ShapeProto": {
        "element_type": (2, "int32"),
        "dimensions": (3, "[int64]"),
        "tuple_shapes": (4, "[ShapeProto]"),
    },
}

SAVED_MODEL: Table = {
    "SavedModel": {
        "saved_model_schema_version": (1, "int64"),
        "meta_graphs": (2, "[.tensorboard.MetaGraphDef]"),
    }
}

# What servers log of a request, and read for warming up.  Tensors and examples stay bytes: who feeds them reads them.
PREDICTION_LOG: Table = {
    "PredictionLog": {
        "classify_log": (2, "RequestOnExamplesLog"),
        "regress_log": (3, "RequestOnExamplesLog"),
        "multi_inference_log": (4, "MultiInferenceLog"),
        "session_run_log": (5, "SessionRunLog"),
        "predict_log": (6, "PredictLog"),
        "predict_streamed_log": (7, "PredictStreamedLog"),
    },
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "RequestOnExamplesLog": {"request": (1, "RequestOnExamples")},
    "RequestOnExamples": {"model_spec": (1, "ModelSpec"), "input": (2, "Input")},
    "MultiInferenceLog": {"request": (1, "MultiInferenceRequest")},
    "MultiInferenceRequest": {"tasks": (1, "[InferenceTask]"), "input": (2, "Input")},
    "InferenceTask": {"model_spec": (1, "ModelSpec")},
    "Input": {"example_list": (1, "ExampleList"), "example_list_with_context": (2, "ExampleList")},
    "ExampleList": {"examples": (1, "[bytes]"), "context": (2, "bytes")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictStreamedLog": {"request": (1, "[PredictRequest]")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "[NamedTensor]")},
    "SessionRunLog": {"request": (1, "SessionRunRequest")},
    "SessionRunRequest": {"model_spec": (1, "ModelSpec"), "feed": (2, "[NamedTensor]")},
    "NamedTensor": {"name": (1, "string"), "tensor": (2, "bytes")},
}

# What TensorFlow's profiler service takes and gives.  An answer's profile stays bytes: it is stored, not read.
PROFILER_SERVICE: Table = {
    "ProfileOptions": {
        "include_dataset_ops": (1, "bool"),
        "host_tracer_level": (2, "uint32"),
        "device_tracer_level": (3, "uint32"),
        "python_tracer_level": (4, "uint32"),
        "version": (5, "uint32"),
        "enable_hlo_proto": (7, "bool"),
        "duration_ms": (9, "uint64"),
    },
    "ProfileRequest": {
        "duration_ms": (1, "uint64"),
        "opts": (4, "ProfileOptions"),
        "repository_root": (5, "string"),
        "session_id": (6, "string"),
        "host_name": (7, "string"),
        "emit_xspace": (9, "bool"),
    },
    "ProfileResponse": {"empty_trace": (7, "bool"), "xspace": (8, "bytes")},
}


@lru_cache(maxsize=1)
def xspace() -> type[Any]:
    """Return the message class of a profile."""
    return xspace_part("XSpace")


def xspace_part(name: str) -> type[Any]:
    """Return the message class of a part of a profile: ``XPlane``, ``XEvent``, …."""
    return _message_class(_xspace_pool(), f"graphlens.xplane.{name}")


@lru_cache(maxsize=1)
def _xspace_pool() -> Any:
    return _pool_of(XPLANE)


@lru_cache(maxsize=1)
def xspace_of_bytes() -> type[Any]:
    """Return that of a profile whose events stay bytes: ``loaders.event_columns`` reads a million of them at once."""
    line = {**XPLANE["XLine"], "events": (4, "[bytes]")}
    return _message_class(_pool_of({**XPLANE, "XLine": line}), "graphlens.xplane.XSpace")


def _pool_of(table: Table) -> Any:
    from google.protobuf import descriptor_pool

    file = _file("graphlens/xplane.proto", "graphlens.xplane", table)
    _make_oneof(next(message for message in file.message_type if message.name == "XStat"), "value", _XSTAT_VALUES)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


@lru_cache(maxsize=1)
def hlo_proto() -> type[Any]:
    """Return the message class of a module of XLA, as profiles hold it."""
    from google.protobuf import descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file("graphlens/hlo.proto", "graphlens.hlo", HLO).SerializeToString())
    return _message_class(pool, "graphlens.hlo.HloProto")


@lru_cache(maxsize=1)
def prediction_log() -> type[Any]:
    """Return the message class of a logged request to a server."""
    from google.protobuf import descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    file = _file("graphlens/prediction_log.proto", "graphlens.prediction_log", PREDICTION_LOG)
    pool.AddSerializedFile(file.SerializeToString())
    return _message_class(pool, "graphlens.prediction_log.PredictionLog")


@lru_cache(maxsize=1)
def profile_request() -> type[Any]:
    """Return the message class of what TensorFlow's profiler service is asked."""
    return _message_class(_profiler_service(), "graphlens.profiler_service.ProfileRequest")


@lru_cache(maxsize=1)
def profile_response() -> type[Any]:
    """Return the message class of what it answers."""
    return _message_class(_profiler_service(), "graphlens.profiler_service.ProfileResponse")


@lru_cache(maxsize=1)
def _profiler_service() -> Any:
    from google.protobuf import descriptor_pool

    file = _file("graphlens/profiler_service.proto", "graphlens.profiler_service", PROFILER_SERVICE)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


@lru_cache(maxsize=1)
def saved_model() -> type[Any]:
    """Return the message class of ``saved_model.pb``; its meta graphs are ``tensorboard``'s."""
    from google.protobuf import descriptor_pool
    from tensorboard.compat.proto import meta_graph_pb2

    file = _file("graphlens/saved_model.proto", "graphlens.saved_model", SAVED_MODEL)
    file.dependency.append(meta_graph_pb2.DESCRIPTOR.name)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return _message_class(pool, "graphlens.saved_model.SavedModel")


def _message_class(pool: Any, name: str) -> type[Any]:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))  # type: ignore[no-any-return]


def _file(name: str, package: str, table: Table) -> Any:
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message_name, columns in table.items():
        message = file.message_type.add(name=message_name)
        for column, (number, kind) in columns.items():
            _add_field(message, f".{package}", column, number, kind)
    return file


def _add_field(message: Any, package: str, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if kind[0] in "[{" else field.LABEL_OPTIONAL
    inner = kind.strip("[]{}")
    if kind.startswith("{"):
        entry = _add_map_entry(message, package, name, inner)
        inner = f"{package}.{message.name}.{entry}"
    _set_type(field, package, inner)


def _add_map_entry(message: Any, package: str, name: str, value: str) -> str:
    # protobuf wants this very name for the entry of a map field.
    entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
    entry.options.map_entry = True
    _add_field(entry, package, "key", 1, "int64")
    _add_field(entry, package, "value", 2, value)
    return str(entry.name)


def _set_type(field: Any, package: str, kind: str) -> None:
    scalar = f"TYPE_{kind.upper()}"
    if kind[0].islower():
        field.type = getattr(field, scalar)
    else:
        field.type = field.TYPE_MESSAGE
        field.type_name = kind if kind.startswith(".") else f"{package}.{kind}"


def _make_oneof(message: Any, name: str, members: tuple[str, ...]) -> None:
    message.oneof_decl.add(name=name)
    for field in message.field:
        if field.name in members:
            field.oneof_index = 0
