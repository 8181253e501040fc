"""Every call into TensorFlow that is not public, each detected before use.

A function that can be missing returns what it could do and leaves a *note* saying what its absence costs; notes end in
the report under ``quality.notes``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

NO_GRAPHS = (
    "This TensorFlow version does not hand out the graphs that ran (context.enable_run_metadata is gone): "
    "the traced graph is judged, and fused ops cannot be told from unfused ones."
)
NO_CACHE_RESET = (
    "This TensorFlow version cannot restart a warm function (context.clear_kernel_cache is gone): "
    "cheap ops may be missing from the profile."
)
NO_TRACES = (
    "This TensorFlow version does not say when it traces a function (Function._function_cache is gone): "
    "functions that are traced again and again are not found."
)
OPTIMIZER_SKIPPED = "The model's optimizer was left out: its class is not installed, and inference does not use it."


def _module(name: str) -> ModuleType | None:
    """Return a module of TensorFlow; what is imported already is looked up, for this is asked in every step."""
    if (module := sys.modules.get(name)) is not None:
        return module
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _eager_context() -> Any:
    module = _module("tensorflow.python.eager.context")
    return module.context() if module is not None and hasattr(module, "context") else None


def forget_warm_kernels() -> tuple[str, ...]:
    """Make TensorFlow instantiate functions anew, which resets the profiler's idea of which ops are cheap."""
    context = _eager_context()
    if not hasattr(context, "clear_kernel_cache"):
        return (NO_CACHE_RESET,)
    context.clear_kernel_cache()
    return ()


def start_collecting_graphs() -> tuple[str, ...]:
    """Have TensorFlow keep the graphs of every function that it instantiates from now on; returns notes."""
    context = _eager_context()
    if not _hands_out_graphs(context):
        return (NO_GRAPHS,)
    context.enable_run_metadata()
    context.export_run_metadata()  # drops what was collected before
    return ()


def stop_collecting_graphs() -> list[Any]:
    """Return the ``FunctionGraphs`` that were kept, and leave the process as it was."""
    context = _eager_context()
    if not _hands_out_graphs(context):
        return []
    try:
        return list(context.export_run_metadata().function_graphs)
    finally:
        context.disable_run_metadata()  # alone it goes on collecting every graph (TensorFlow 2.21)
        if hasattr(context, "disable_graph_collection"):
            context.disable_graph_collection()


def collected_graphs() -> list[Any]:
    """Return the ``FunctionGraphs`` that were kept since this was last asked; TensorFlow goes on keeping them."""
    context = _eager_context()
    return list(context.export_run_metadata().function_graphs) if _hands_out_graphs(context) else []


def _hands_out_graphs(context: Any) -> bool:
    return all(hasattr(context, name) for name in ("enable_run_metadata", "export_run_metadata"))


def is_executing_eagerly() -> bool:
    """Whether what is called now runs now, rather than being traced; a context that is not there yet is not made."""
    module = _module("tensorflow.python.eager.context")
    return module is not None and bool(module.executing_eagerly())


def called_back(token: str) -> Any | None:
    """Return the Python function that an op calls back by this token, ``None`` where it is gone."""
    registry = getattr(_module("tensorflow.python.ops.script_ops"), "_py_funcs", None)
    return None if registry is None else registry.get(token)


def is_building_graph() -> bool:
    """Whether what is called now is put into a graph of TensorFlow 1, rather than run or traced."""
    module = _module("tensorflow.python.framework.ops")
    return module is not None and not is_executing_eagerly() and not module.inside_function()


def runs_functions_eagerly() -> bool:
    """Whether TensorFlow was told to run the Python code of functions instead of tracing it."""
    module = _module("tensorflow.python.eager.polymorphic_function.eager_function_run")
    return module is not None and bool(module.functions_run_eagerly())


def function_being_traced() -> str:
    """Return the name of the function that is being traced, empty where what is called now runs now."""
    module = _module("tensorflow.python.framework.ops")
    if module is None or is_executing_eagerly():
        return ""
    return str(getattr(module.get_default_graph(), "name", "") or "")


def tracing_count(function: Any) -> int:
    """Return how often a function was traced; 0 for one that is no ``tf.function`` and is never traced again."""
    count = getattr(function, "experimental_get_tracing_count", None)
    return 0 if count is None else int(count())


def traces_of(function: Any) -> Any:
    """Return what holds the traces of a ``tf.function``, ``None`` for what has none."""
    return getattr(function, "_function_cache", None)


def types_traced(traces: Any) -> list[Any]:
    """Return the ``FunctionType`` of each of a function's traces, the latest one last."""
    return [function_type(concrete) for concrete in traces.values()]


def function_type(concrete: Any) -> Any:
    """Return the ``FunctionType`` for which a ``ConcreteFunction`` was traced, ``None`` where there is none."""
    return getattr(concrete, "function_type", None)


def has_created_variables(function: Any) -> bool:
    """Whether a ``tf.function`` created variables when it was traced first: then it has to be traced once more."""
    return bool(getattr(function, "_created_variables", None))


def is_initialization(concrete: Any) -> bool:
    """Whether TensorFlow made this function itself, to set the variables that a first trace has created."""
    return function_name(concrete).startswith("__inference_initialize_variables_")


def is_relaxing(function: Any) -> bool:
    """Whether a ``tf.function`` takes more than it is given when it is traced again (``reduce_retracing``)."""
    return bool(getattr(function, "_reduce_retracing", False))


def python_name(function: Any) -> str:
    """Return the name of the Python function behind a ``tf.function`` or a ``ConcreteFunction``.

    >>> from types import SimpleNamespace
    >>> python_name(SimpleNamespace(name=b"__inference_step_12"))
    'step'
    """
    name = getattr(getattr(function, "python_function", None), "__name__", None) or getattr(function, "__name__", None)
    return str(name) if name else base_name(function_name(function))


def base_name(concrete_name: str) -> str:
    """Return what a ``ConcreteFunction``'s name has of the Python function's.

    >>> base_name("__inference_step_12")
    'step'
    """
    return concrete_name.removeprefix("__inference_").rstrip("0123456789").removesuffix("_")


def eagerly() -> AbstractContextManager[Any]:
    """Return a context in which ops run when they are called, also where a program has turned that off."""
    module = _module("tensorflow.python.eager.context")
    mode = getattr(module, "eager_mode", None)
    context: AbstractContextManager[Any] = nullcontext() if mode is None else mode()
    return context


def is_session(called: Any) -> bool:
    """Whether this is a Session of TensorFlow 1."""
    return hasattr(called, "run") and hasattr(called, "graph")


def captures(concrete: Any) -> list[tuple[Any, Any]]:
    """Return ``(outer tensor, placeholder inside)`` of everything a ``ConcreteFunction`` captures.

    Of what is found out anew in each call the placeholder stands for the outer one, too.
    """
    held = _held(concrete)
    inner = concrete.inputs[len(concrete.inputs) - len(held) :]
    return [(own if outer is None else outer, own) for outer, own in zip(held, inner, strict=True)]


def _held(concrete: Any) -> list[Any]:
    """Return the outer tensors that a ``ConcreteFunction`` captures, ``None`` for what is found out in each call.

    Asked for all of them, TensorFlow finds that out as if the function were called.  The number of the next collective
    is such a value: this process would then wait for others that have not counted it.
    """
    held = getattr(concrete, "_captured_inputs", None)
    later = getattr(concrete.graph, "deferred_internal_captures", None)
    if held is None or later is None or not any(map(callable, held)):
        return list(concrete.captured_inputs)
    import tensorflow as tf

    placeholders = tf.nest.flatten(list(later), expand_composites=True)
    return [*(outer for outer in held if not callable(outer)), *([None] * len(placeholders))]


def arguments(concrete: Any) -> list[Any]:
    """Return the placeholders of a ``ConcreteFunction`` that a caller feeds, in order."""
    return list(concrete.inputs[: len(concrete.inputs) - len(_held(concrete))])


def argument_names(concrete: Any) -> list[str]:
    """Return the keyword under which each argument of a signature is passed, in the order of its placeholders."""
    keywords = getattr(concrete, "_arg_keywords", None)
    if keywords:
        return list(keywords)
    return [tensor.op.name for tensor in arguments(concrete)]


def living_variables(concrete: Any) -> list[Any]:
    """Return the variables that a ``ConcreteFunction`` uses and that are still there.

    Asked for all of them, TensorFlow raises where one has been deleted, and so has the model of many a function that
    was called before.
    """
    references = getattr(concrete.graph, "_weak_variables", None)
    if references is None:
        return list(concrete.graph.variables)
    return [variable for reference in references if (variable := reference()) is not None]


def variables_by_handle(concrete: Any) -> Mapping[int, Any]:
    """Return the variables that a ``ConcreteFunction`` uses, by the identity of their handle."""
    return {id(variable.handle): variable for variable in living_variables(concrete) if hasattr(variable, "handle")}


def unique_id(variable: Any) -> str:
    """Return what no other variable of the process has, whatever its name; empty where TensorFlow does not say it."""
    return str(getattr(variable, "_unique_id", ""))


def variables(concrete: Any) -> list[Any]:
    """Return the variables of a ``ConcreteFunction``, in the order in which it came to use them."""
    by_handle = variables_by_handle(concrete)
    return [by_handle[id(outer)] for outer in _held(concrete) if id(outer) in by_handle]


def capture(graph: Any, held: Any, name: str) -> Any:
    """Return the placeholder by which the function being traced in ``graph`` reads a variable or an eager tensor."""
    if hasattr(held, "handle"):
        graph.watch_variable(held)  # so that the function lists it among its variables
        held = held.handle
    return graph.capture(held, name=name)


def register_functions(library: Any) -> None:
    """Make the functions of an imported graph known to the runtime; importing makes them known to the graph only."""
    context = _eager_context()
    for function in library.function:
        if not context.has_function(function.signature.name):
            context.add_function_def(function)


def debug_information(function: str) -> Any | None:
    """Return the ``GraphDebugInfo`` of a function that this process traced, ``None`` where TensorFlow has none."""
    import tensorflow as tf

    context = _eager_context()
    if not hasattr(context, "get_graph_debug_info"):
        return None
    try:
        return context.get_graph_debug_info(function)
    except tf.errors.NotFoundError:  # known to its graph only
        return None


def flat_call(concrete: Any) -> Callable[[Any], Any] | None:
    """Return the call of a ``ConcreteFunction`` that takes its tensors, flat, without looking at their structure."""
    if not hasattr(concrete, "_call_flat"):
        return None
    return lambda tensors: concrete._call_flat(list(tensors), concrete.captured_inputs)


def keras_inputs(model: Any) -> Any | None:
    """Return the nest of symbolic inputs that a functional or sequential Keras model was built on."""
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        structure = getattr(getattr(model, "_functional", None), "_inputs_struct", None)
    return structure if structure is not None else getattr(model, "inputs", None) or None


def function_name(concrete: Any) -> str:
    """Return the name under which the runtime knows a ``ConcreteFunction``."""
    name = concrete.name
    return name.decode() if isinstance(name, bytes) else str(name)


def is_jit_compiled(function: Any) -> bool:
    """Whether a ``tf.function`` or ``ConcreteFunction`` is compiled by XLA as a whole."""
    if getattr(function, "_jit_compile", None):
        return True
    attributes = getattr(getattr(function, "function_def", None), "attr", {})
    return "_XlaMustCompile" in attributes and bool(attributes["_XlaMustCompile"].b)


def optimized_hlo(concrete: Any, arguments_fed: list[Any]) -> str | None:
    """Return the optimized HLO of an XLA-compiled function, or ``None`` where TensorFlow cannot say it."""
    module = _module("tensorflow.python.eager.polymorphic_function.compiler_ir")
    if module is None or not hasattr(module, "from_concrete_function"):
        return None
    import tensorflow as tf

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in arguments_fed]
    text = module.from_concrete_function(concrete, specs)(stage="optimized_hlo")
    return text.decode() if isinstance(text, bytes) else str(text)


def is_registered(op: str) -> bool:
    """Whether this process knows the op type; so it does where nobody can be asked."""
    registry = _module("tensorflow.python.framework.op_def_registry")
    return registry is None or registry.get(op) is not None


def has_kernel(op: str) -> bool | None:
    """Whether this TensorFlow can run ops of type ``op`` anywhere, ``None`` where it does not say."""
    module = _module("tensorflow.python.framework.kernels")
    if module is None or not hasattr(module, "get_registered_kernels_for_op"):
        return None
    return len(module.get_registered_kernels_for_op(op).kernel) > 0


def onednn_enabled() -> bool | None:
    """Whether the CPU kernels of oneDNN are in use, ``None`` where TensorFlow does not say."""
    module = _module("tensorflow.python.util._pywrap_util_port") or _module(
        "tensorflow.python.platform._pywrap_util_port"
    )
    probe = getattr(module, "IsMklEnabled", None)
    return None if probe is None else bool(probe())


def stand_in_for_missing_optimizer() -> bool:
    """Let SavedModels load whose Keras 2 optimizer has slot variables but no class here; returns whether it can.

    Keras 2 writes its optimizer as a revivable object.  Without ``tf_keras`` TensorFlow revives it as a plain object
    and then fails on ``add_slot``; a stand-in that makes the slots is all the loader needs.
    """
    registry = _module("tensorflow.python.saved_model.revived_types")
    tracking = _module("tensorflow.python.trackable.autotrackable")
    if registry is None or tracking is None or not hasattr(registry, "register_revived_type"):
        return False
    if "optimizer" not in registry.registered_identifiers():
        _register_stand_in(registry, tracking.AutoTrackable)
    return True


def _register_stand_in(registry: ModuleType, trackable: type) -> None:
    import tensorflow as tf

    class Optimizer(trackable):  # type: ignore[misc]
        """Stands in for an optimizer whose class is not installed."""

        def add_slot(self, var: Any, slot_name: str) -> Any:
            return tf.Variable(tf.zeros_like(var), trainable=False, name=slot_name)

        def _create_or_restore_slot_variable(self, **_: Any) -> None:
            """Slots keep their zeros: nothing that is measured reads them."""

    registration = registry.VersionedTypeRegistration(
        object_factory=lambda _: Optimizer(), version=2, min_producer_version=1, min_consumer_version=1
    )
    registry.register_revived_type("optimizer", lambda value: isinstance(value, Optimizer), [registration])


# -- datasets ------------------------------------------------------------------------------------------------------


def is_dataset(value: Any) -> bool:
    """Whether this is a dataset of ``tf.data``, of either version."""
    module = _module("tensorflow.python.data.ops.dataset_ops")
    return module is not None and isinstance(value, module.DatasetV2)


def is_dataset_type(kind: type) -> bool:
    """Whether objects of a type are datasets; what has nothing to do with TensorFlow need not be asked further."""
    return hasattr(kind, "_variant_tensor")


def dataset_of_iterator(value: Any) -> Any | None:
    """Return the dataset of an iterator that Python has made of it; ``None`` for all else."""
    return getattr(value, "_dataset", None) if hasattr(type(value), "_create_iterator") else None


def serialized_dataset(dataset: Any) -> bytes:
    """Return the graph of a dataset as a serialized ``GraphDef``; state that it refers to is left out."""
    import tensorflow as tf

    graph = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor, external_state_policy=_IGNORE, strip_device_assignment=False
    )
    return bytes(graph.numpy())


_IGNORE = 1  # of state outside: no warning, and no error


def rewritten_dataset(dataset: Any, rewrites: Sequence[str]) -> bytes:
    """Return the same of a dataset as TensorFlow's graph ``rewrites`` change it."""
    import tensorflow as tf

    flat = {"output_types": dataset._flat_types, "output_shapes": dataset._flat_shapes}
    variant = tf.raw_ops.OptimizeDatasetV2(
        input_dataset=dataset._variant_tensor,
        optimizations_enabled=list(rewrites),
        optimizations_disabled=[],
        optimizations_default=[],
        **flat,
    )
    graph = tf.raw_ops.DatasetToGraphV2(
        input_dataset=variant, external_state_policy=_IGNORE, strip_device_assignment=True
    )
    return bytes(graph.numpy())


def dataset_of_graph(graph: bytes, element_spec: Any) -> Any:
    """Return the dataset of a serialized graph."""
    import tensorflow as tf

    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph)
    return tf.data.experimental.from_variant(variant, element_spec)


def is_eager_tensor(tensor: Any) -> bool:
    """Whether a tensor has a value now, and is no part of a graph."""
    return hasattr(tensor, "_numpy")


def dataset_inputs(dataset: Any) -> list[Any]:
    """Return the datasets that a dataset reads."""
    return list(dataset._inputs())


def dataset_variant(dataset: Any) -> Any:
    """Return the tensor that stands for a dataset: two Python objects may share one."""
    return dataset._variant_tensor


def dataset_tensors(dataset: Any) -> list[Any]:
    """Return the tensors that a dataset holds itself, as ``from_tensor_slices`` does."""
    return list(getattr(dataset, "_tensors", ()))


def dataset_options(options: Any) -> Any:
    """Return ``tf.data.Options`` as a message that lists those that were set."""
    return options._to_proto()


def paths_in(structure: Any) -> list[str]:
    """Return where each tensor of a structure stands, flat: by the keys of dictionaries, else by its place.

    >>> import tensorflow as tf
    >>> paths_in(({"image": tf.TensorSpec(()), "size": tf.TensorSpec(())}, tf.TensorSpec(())))
    ['0/image', '0/size', '1']
    """
    import tensorflow as tf

    module = _module("tensorflow.python.util.nest")
    if module is None or not hasattr(module, "flatten_with_joined_string_paths"):
        return [str(place) for place, _ in enumerate(tf.nest.flatten(structure, expand_composites=True))]
    found = module.flatten_with_joined_string_paths(structure, expand_composites=True)
    return [path or "element" for path, _ in found]


def lines_of_function(function: str) -> Mapping[str, str]:
    """Return the user's lines of the ops of a function that this process traced, ``file:line`` by the op's name."""
    from graphlens.loaders.sources import source_lines

    info = debug_information(function)
    return {} if info is None else source_lines(info, None).get("", {})


def dataset_name(metadata: bytes) -> str:
    """Return the name that a dataset is known by in profiles, from what its node has of it."""
    module = _module("tensorflow.core.framework.dataset_metadata_pb2")
    return "" if module is None else str(module.Metadata.FromString(metadata).name.decode("utf-8", "replace"))
