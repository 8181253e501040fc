"""Run TensorFlow's own graph optimizer, Grappler, on a graph, as the runtime would on a processor or a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final

from graphlens.errors import ExecutionError

CPU: Final = "/job:localhost/replica:0/task:0/device:CPU:0"
GPU: Final = "/job:localhost/replica:0/task:0/device:GPU:0"
# What the virtual devices are said to be; what Grappler does depends on their type and architecture, not on these.
_CORES: Final = 2
_MEGAHERTZ: Final = 2000
_GPU_MULTIPROCESSORS: Final = 80
_MODULES: Final = ("tensorflow.python.grappler.tf_optimizer", "tensorflow.python.grappler.cluster")


def optimize(graph_def: Any, fetches: Sequence[str], device: str = CPU) -> Any:
    """Return ``graph_def`` as Grappler leaves it when ``fetches`` (names of nodes) are asked for.

    Nodes without a device are put on ``device``: Grappler's remapper fuses nothing whose device it cannot tell.  A
    node whose device is ``"none"`` is left without one, for experiments with exactly that.

    Raises
    ------
    ExecutionError
        When this TensorFlow does not let Python run Grappler, or Grappler refuses the graph.
    """
    return _optimized(_meta_graph(graph_def, fetches, device), _config(), [_processor(device)])


def optimize_placed(graph_def: Any, fetches: Sequence[str], architecture: str, *, pin_to_host: bool = False) -> Any:
    """Return ``graph_def``, whose nodes are placed on ``CPU`` and ``GPU``, as Grappler leaves it beside such a GPU.

    Parameters
    ----------
    architecture
        The GPU's compute capability, as ``8.0``: the layout of convolutions depends on it.
    pin_to_host
        Let Grappler move small integer ops to the host (``pin_to_host_optimization``, off by default).

    Raises
    ------
    ExecutionError
        When this TensorFlow does not let Python run Grappler, or Grappler refuses the graph.
    """
    config = _config()
    if pin_to_host:
        from tensorflow.core.protobuf import rewriter_config_pb2

        options = config.graph_options.rewrite_options
        options.pin_to_host_optimization = rewriter_config_pb2.RewriterConfig.ON
    return _optimized(_meta_graph(graph_def, fetches, CPU), config, [_processor(CPU), _accelerator(architecture)])


def _optimized(meta_graph: Any, config: Any, devices: Sequence[Any]) -> Any:
    tf_optimizer, cluster = _private_modules()
    try:
        return tf_optimizer.OptimizeGraph(config, meta_graph, cluster=cluster.Cluster(devices=list(devices)))
    except Exception as error:  # Grappler's bindings raise whatever status the C++ side returns
        raise ExecutionError(f"Grappler refused the graph: {str(error).splitlines()[0][:200]}") from error


def _private_modules() -> tuple[Any, Any]:
    try:
        tf_optimizer, cluster = (importlib.import_module(name) for name in _MODULES)
    except ImportError as error:
        raise ExecutionError(f"this TensorFlow does not let Python run Grappler ({error})") from error
    if not hasattr(tf_optimizer, "OptimizeGraph") or not hasattr(cluster, "Cluster"):
        raise ExecutionError("this TensorFlow does not let Python run Grappler (OptimizeGraph is gone)")
    return tf_optimizer, cluster


def _meta_graph(graph_def: Any, fetches: Sequence[str], device: str) -> Any:
    from tensorflow.core.protobuf import meta_graph_pb2

    meta_graph = meta_graph_pb2.MetaGraphDef()
    meta_graph.graph_def.CopyFrom(graph_def)
    for node in meta_graph.graph_def.node:
        node.device = "" if node.device == "none" else node.device or device
    # Grappler takes what it has to keep from the collection of training ops.
    meta_graph.collection_def["train_op"].node_list.value.extend(fetches)
    return meta_graph


def _config() -> Any:
    from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1  # graphs of less than four nodes are not optimized otherwise
    options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.TWO
    return config


def _processor(device: str) -> Any:
    from tensorflow.core.protobuf import device_properties_pb2

    properties = device_properties_pb2.DeviceProperties(type="CPU", num_cores=_CORES, frequency=_MEGAHERTZ)
    return device_properties_pb2.NamedDevice(name=device, properties=properties)


def _accelerator(architecture: str) -> Any:
    from tensorflow.core.protobuf import device_properties_pb2

    properties = device_properties_pb2.DeviceProperties(
        type="GPU", vendor="NVIDIA", num_cores=_GPU_MULTIPROCESSORS, frequency=_MEGAHERTZ
    )
    properties.environment["architecture"] = architecture
    return device_properties_pb2.NamedDevice(name=GPU, properties=properties)
