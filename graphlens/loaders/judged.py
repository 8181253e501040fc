"""The graphs that TensorFlow would run for a model, with the origin of what it feeds them: what a judge has to see.

TensorFlow runs more than a signature: loading a model fills its tables, restores its variables, and calls whatever the
file says belongs to that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

from graphlens.ir.graph import Graph
from graphlens.ir.nodes import ARGUMENT, Op
from graphlens.ir.unsafe import OWN_FILE, WRITTEN_VALUE, unsafe_ops
from graphlens.loaders import objects
from graphlens.loaders.graphdef import build_each, build_graph, build_reachable
from graphlens.loaders.signatures import op_name, upstream

Blocker = tuple[str, str]  # the name of something, and why the model must not be executed for it

_INIT_SIGNATURE: Final = "__saved_model_init_op"
_MAIN_OPS: Final = ("saved_model_main_op", "legacy_init_op")
_TABLES: Final = "table_initializer"
_LOCAL_VARIABLES: Final = "local_variables"
_ASSETS: Final = "saved_model_assets"
_INTERFACE: Final = "api_implements"  # of functions that Grappler swaps for one another
_FEEDABLE: Final = frozenset({"Const", "Placeholder", "PlaceholderWithDefault"})
_MISSING: Final = "would run while the model is loaded, but its function is not in the file"
_OUTSIDE: Final = "names a file outside of the model"


@dataclass(frozen=True, slots=True)
class Judged:
    """What runs while the model is loaded, what a step runs, and what already speaks against running anything."""

    on_load: tuple[Graph, ...] = ()
    on_run: tuple[Graph, ...] = ()
    blockers: tuple[Blocker, ...] = ()

    def all_blockers(self) -> list[Blocker]:
        """Return everything for which the model must not be executed."""
        found = [blocker for graph in (*self.on_load, *self.on_run) for blocker in unsafe_ops(graph)]
        return [*self.blockers, *found]


NOTHING: Final = Judged()


def of_saved_model(meta_graph: Any, graph: Graph, has_objects: bool) -> Judged:
    """Return what TensorFlow runs of ``meta_graph``, and of the signature whose graph is ``graph``.

    ``has_objects`` says that TensorFlow follows the object graph; otherwise it follows names in the main graph.
    """
    outside = tuple((asset.filename, _OUTSIDE) for asset in assets(meta_graph) if not _is_inside(asset.filename))
    library = {item.signature.name for item in meta_graph.graph_def.library.function}
    on_run = (_signature_marked(graph, meta_graph), *interchangeable(meta_graph.graph_def))
    if not has_objects:
        return Judged(tuple(_of_main_graph(meta_graph)), on_run, outside)
    called = objects.functions_on_load(meta_graph.object_graph_def)
    missing = tuple((name, _MISSING) for name, function in called if function not in library)
    functions = dict.fromkeys(function for _, function in called if function in library)
    initializers = build_each(meta_graph.graph_def, map(str, functions))
    return Judged(tuple(_initializer(meta_graph, graph) for graph in initializers), on_run, (*outside, *missing))


def of_graph_file(graph_def: Any, graph: Graph) -> Judged:
    """Return what runs of a graph in a file of its own: everything in it, savers included."""
    return Judged(on_run=(graph, *interchangeable(graph_def)))


def of_traced(graph_def: Any) -> Judged:
    """Return what runs of a function that TensorFlow has traced or loaded; its captures count as given."""
    return of_graph_file(graph_def, build_graph(graph_def))


def interchangeable(graph_def: Any) -> tuple[Graph, ...]:
    """Return the functions that TensorFlow may run in place of others, which no call leads to."""
    names = [item.signature.name for item in graph_def.library.function if _INTERFACE in item.attr]
    return tuple(_marked(graph, _written_argument) for graph in build_each(graph_def, names)) if names else ()


# -- the object graph ---------------------------------------------------------------------------------------------


def _initializer(meta_graph: Any, graph: Graph) -> Graph:
    """Everything that an initializer gets is said by the file; only assets are the model's own files."""
    own = _own_files(meta_graph, graph)
    return _marked(graph, lambda op: OWN_FILE if op.name in own else _written_argument(op))


def _signature_marked(graph: Graph, meta_graph: Any) -> Graph:
    """A signature gets its first arguments from its caller; those after them are bound to objects of the file."""
    bound = objects.arguments_by_origin(meta_graph.object_graph_def, graph.root, graph.main.inputs)
    own = _own_files(meta_graph, graph)
    handles = {name for name, number in bound.items() if objects.is_handle(meta_graph.object_graph_def, number)}
    written = set(bound) - own - handles
    if not written and not own:
        return graph
    marks = {**dict.fromkeys(written, WRITTEN_VALUE), **dict.fromkeys(own, OWN_FILE)}
    return _marked(graph, lambda op: marks.get(op.name))


def _own_files(meta_graph: Any, graph: Graph) -> set[str]:
    known = meta_graph.object_graph_def
    bound = objects.arguments_by_origin(known, graph.root, graph.main.inputs)
    numbers = {name: objects.asset_number(known, number) for name, number in bound.items()}
    return {name for name, number in numbers.items() if number in range(len(meta_graph.asset_file_def))}


def _written_argument(op: Op) -> str | None:
    return WRITTEN_VALUE if op.type == ARGUMENT else None


def _marked(graph: Graph, mark: Callable[[Op], str | None]) -> Graph:
    """Return a copy of ``graph`` in which the root's inputs say where their value comes from."""
    marks = ((op, mark(op)) for op in graph.main.graph.ops())
    main = graph.main.graph.with_ops(
        {op.name: replace(op, type=kind, constant=None) for op, kind in marks if kind is not None}
    )
    return replace(graph, functions={**graph.functions, graph.root: replace(graph.main, graph=main)})


# -- the main graph -----------------------------------------------------------------------------------------------


def _of_main_graph(meta_graph: Any) -> Iterator[Graph]:
    """What TensorFlow runs once: the restoring of variables, and the initialization, each with its own files."""
    saver = meta_graph.saver_def
    if saver.restore_op_name:
        yield _part_of_main(meta_graph, [saver.restore_op_name], [saver.filename_tensor_name])
    first = list(_main_ops(meta_graph))
    if first:
        yield _part_of_main(meta_graph, first, [asset.tensor_info.name for asset in assets(meta_graph)])


def _part_of_main(meta_graph: Any, fetched: Sequence[str], fed: Collection[str]) -> Graph:
    whole = meta_graph.graph_def
    needed = upstream(fetched, {node.name: node for node in whole.node})
    part = type(whole)(library=whole.library, node=[node for node in whole.node if node.name in needed])
    graph = build_reachable(part)
    given = {op_name(tensor) for tensor in fed}
    return _marked(graph, lambda op: OWN_FILE if op.name in given and op.type in _FEEDABLE else None)


def _main_ops(meta_graph: Any) -> Iterator[str]:
    """Yield what initializes the model, by whichever of the names that exporters have used."""
    collections, signatures = meta_graph.collection_def, meta_graph.signature_def
    for key in (*_MAIN_OPS, _TABLES):
        if key in collections:
            yield from collections[key].node_list.value
    if _INIT_SIGNATURE in signatures:
        yield from (info.name for info in signatures[_INIT_SIGNATURE].outputs.values())
    yield from (variable.initializer_name for variable in variables_in(meta_graph, _LOCAL_VARIABLES))


def variables_in(meta_graph: Any, key: str) -> Iterator[Any]:
    """Yield the variables that a collection lists."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto import variable_pb2

    if key not in meta_graph.collection_def:
        return
    for raw in meta_graph.collection_def[key].bytes_list.value:
        try:
            yield variable_pb2.VariableDef.FromString(raw)
        except DecodeError:  # other libraries put messages of their own under these keys
            continue


# -- assets -------------------------------------------------------------------------------------------------------


def assets(meta_graph: Any) -> Sequence[Any]:
    """Return the model's own files; older exporters list them in a collection only, which TensorFlow reads too."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.meta_graph_pb2 import AssetFileDef

    if meta_graph.asset_file_def or _ASSETS not in meta_graph.collection_def:
        return meta_graph.asset_file_def  # type: ignore[no-any-return]
    try:
        return [AssetFileDef.FromString(item.value) for item in meta_graph.collection_def[_ASSETS].any_list.value]
    except DecodeError:
        return ()


def _is_inside(filename: str) -> bool:
    """Tell whether a path stays in the folder that it is relative to, whatever the machine."""
    paths = (PurePosixPath(filename), PureWindowsPath(filename))
    return not any(path.is_absolute() or path.anchor or ".." in path.parts for path in paths)
