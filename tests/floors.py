"""What reading costs at least: the floors that benchmarks compare with, each a command without any GraphLens in it.

``python tests/floors.py networkx MODEL`` parses a SavedModel and builds one ``networkx.MultiDiGraph`` per function;
``python tests/floors.py profile FILE`` parses an XPlane with TensorFlow's generated messages and walks over its events.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def build_networkx(model: Path) -> int:
    """Parse the SavedModel folder ``model``, build a graph of each of its functions, and return the number of ops."""
    import networkx as nx
    from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

    def graph_of(nodes: Iterable[Any]) -> nx.MultiDiGraph:
        graph = nx.MultiDiGraph()
        for node in nodes:
            graph.add_node(node.name, op=node.op)
        for node in nodes:
            for written in node.input:
                graph.add_edge(written.lstrip("^").split(":")[0], node.name)
        return graph

    meta_graph = MetaGraphDef.FromString(meta_graph_of((model / "saved_model.pb").read_bytes()))
    functions = [function.node_def for function in meta_graph.graph_def.library.function]
    graphs = [graph_of(nodes) for nodes in (meta_graph.graph_def.node, *functions)]
    return sum(map(len, graphs))


def meta_graph_of(saved_model: bytes) -> bytes:
    """Return the first MetaGraph (field 2) of a SavedModel as it is written; before it stands the version (field 1)."""
    at = 0
    while True:
        field, at = saved_model[at] >> 3, at + 1
        number, at = _varint(saved_model, at)
        if field == 2:
            return saved_model[at : at + number]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while True:
        byte, at = data[at], at + 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return number, at


def walk_profile(path: Path) -> int:
    """Parse the XPlane ``path``, read what each of its events and of their statistics says, and count the events."""
    count = total = 0
    space = generated_messages().XSpace.FromString(path.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                count += 1
                total += event.metadata_id + event.offset_ps + event.duration_ps
                for stat in event.stats:
                    kind = stat.WhichOneof("value")
                    if kind is not None:
                        total += stat.metadata_id + bool(getattr(stat, kind))
    assert total
    return count


def generated_messages() -> Any:
    """Return TensorFlow's module of an XPlane's messages: its file alone, as importing TensorFlow takes seconds."""
    found = importlib.util.find_spec("tensorflow")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "tsl" / "profiler" / "protobuf" / "xplane_pb2.py"
    spec = importlib.util.spec_from_file_location("xplane_pb2", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FLOORS: Mapping[str, Callable[[Path], int]] = {"networkx": build_networkx, "profile": walk_profile}

if __name__ == "__main__":
    print(FLOORS[sys.argv[1]](Path(sys.argv[2])))
