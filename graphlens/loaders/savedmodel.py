"""Models on disk to ``ir``: SavedModel, MetaGraph and GraphDef, without TensorFlow and without their weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.ir.calls import Calls
from graphlens.ir.graph import Function, Graph, input_specs
from graphlens.loaders import binding, judged, objects, writers
from graphlens.loaders.entrances import entrances, op_counts, ops_of_steps
from graphlens.loaders.files import looks_like_text, parse_message, parse_text, read_bytes
from graphlens.loaders.graphdef import MAIN, build_graph, build_reachable, parse_graph_def
from graphlens.loaders.judged import NOTHING, Judged
from graphlens.loaders.schema import saved_model
from graphlens.loaders.signatures import (
    CALL,
    Signature,
    Tensor,
    called_by,
    choose,
    op_name,
    signatures_of,
    upstream,
    wrapping_call,
)
from graphlens.loaders.tensors import strip_weights

BINARY: Final = "saved_model.pb"
TEXT: Final = "saved_model.pbtxt"
SPLIT: Final = "saved_model.cpb"
DEBUG_INFO: Final = Path("debug", "saved_model_debug_info.pb")
SERVE: Final = frozenset({"serve"})


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One way to run a model file, as far as it can be read without running it.

    Attributes
    ----------
    graph
        The functions that a step can reach; its root is what the chosen signature runs.
    traced_root
        The root's name in ``graph_def``; ``""`` is the main graph.
    reread
        Reads the ``GraphDef`` message and the file's digest again: the message takes more memory than the graph.
    signature
        The chosen signature's name; ``None`` for files that have none.
    chosen
        Which of several signatures that is, why, and which there are else; ``None`` where nobody had to choose.
    judged
        What TensorFlow runs while it loads the model and in a step, for those who judge whether it may.
    is_text
        Whether the file is text, which TensorFlow has to be told.
    """

    graph: Graph
    traced_root: str
    reread: Callable[[], tuple[Any, str]]
    digest: str
    signature: str | None = None
    chosen: str | None = None
    signatures: tuple[Signature, ...] = ()
    tags: tuple[str, ...] = ()
    judged: Judged = NOTHING
    is_text: bool = False
    notes: tuple[str, ...] = ()

    @property
    def graph_def(self) -> bytes:
        """The ``GraphDef`` that ``graph`` was built from, without weights; made on demand, since few need it.

        Raises
        ------
        TargetError
            When the file is another one by now.
        """
        message, digest = self.reread()
        if digest != self.digest:
            raise TargetError("the model's file changed while it was read; run the command again")
        return _reduced(message, self.graph).SerializeToString()  # type: ignore[no-any-return]


# -- SavedModel ---------------------------------------------------------------------------------------------------


def list_signatures(path: str | os.PathLike[str]) -> list[tuple[tuple[str, ...], tuple[Signature, ...]]]:
    """Return ``(tags, signatures)`` of every meta graph of the SavedModel folder ``path``."""
    message, _ = _read_saved_model(Path(path))
    return [(_tags(meta_graph), signatures_of(meta_graph)) for meta_graph in message.meta_graphs]


def load_saved_model(
    path: str | os.PathLike[str], signature: str | None = None, tag: str | None = None, *, is_run: bool = True
) -> LoadedModel:
    """Load one signature of the SavedModel folder ``path``.

    Parameters
    ----------
    signature
        Its name; by default ``serving_default``, else the only one, else the one with most ops.
    tag
        The meta graph's tags, separated by commas, where there are several meta graphs.
    is_run
        Whether it is to be executed; what is only judged needs no signature.

    Raises
    ------
    TargetError
        When the files are damaged, or the signature or tag does not exist.
    """
    folder = Path(path)
    message, digest = _read_saved_model(folder)
    meta_graph = _choose_meta_graph(message.meta_graphs, tag, folder)
    signatures = signatures_of(meta_graph)
    debug_info, debug_notes = _debug_info(folder / DEBUG_INFO)
    graph = _called_graph(meta_graph, debug_info) if not signatures and signature in (None, CALL) else None
    chosen: Signature | None = None
    why, note = None, None
    if graph is not None:
        chosen = _call_signature(graph)
    elif signatures or signature is not None or is_run:
        counts = partial(op_counts, meta_graph, signatures, has_objects=_has_objects(message))
        chosen, why = choose(signatures, signature, folder, counts)
        graph = _signature_graph(meta_graph, chosen, debug_info, _has_objects(message))
    else:
        graph, note = _graph_without_signature(meta_graph, debug_info)
    Calls(graph).refuse_huge()
    notes = [*([note] if note else []), *graph.notes, *writers.note_of(graph.main.captures), *debug_notes]
    return LoadedModel(
        graph=graph,
        traced_root=graph.root,
        reread=partial(_graph_def_of_saved_model, folder, tag),
        digest=digest,
        signature=chosen.name if chosen else None,
        chosen=why,
        signatures=signatures or ((chosen,) if chosen else ()),
        tags=_tags(meta_graph),
        judged=judged.of_saved_model(meta_graph, graph, _has_objects(message)),
        notes=tuple(notes),
    )


def read_saved_model(folder: Path) -> Any:
    """Return the ``SavedModel`` message of a folder.

    Raises
    ------
    TargetError
        When there is none, or it is damaged.
    """
    return _read_saved_model(folder)[0]


def _graph_def_of_saved_model(folder: Path, tag: str | None) -> tuple[Any, str]:
    message, digest = _read_saved_model(folder)
    return _choose_meta_graph(message.meta_graphs, tag, folder).graph_def, digest


def _read_saved_model(folder: Path) -> tuple[Any, str]:
    file = next((folder / name for name in (BINARY, TEXT) if (folder / name).is_file()), None)
    if file is None:
        if (folder / SPLIT).is_file():
            raise TargetError(
                f"'{folder}' is split into {SPLIT}, which GraphLens does not read; save it without splitting"
            )
        raise TargetError(f"'{folder}' holds no {BINARY}; name the folder of a SavedModel")
    data = read_bytes(file)
    # TensorFlow goes by the name: what it would run is what must be read here.
    parse = parse_text if file.name == TEXT else parse_message
    if file.name == BINARY and looks_like_text(data):
        raise TargetError(f"'{file}' is text, which TensorFlow reads under the name {TEXT} only; rename it")
    message: Any = parse(saved_model(), data, file, "a SavedModel")
    if not message.meta_graphs:
        raise TargetError(f"'{file}' holds no graph; export the model again")
    return message, hashlib.sha256(data).hexdigest()


def _has_objects(message: Any) -> bool:
    """TensorFlow follows the object graph of a file that holds one graph, and the main graph's names otherwise."""
    return len(message.meta_graphs) == 1 and message.meta_graphs[0].HasField("object_graph_def")


def _tags(meta_graph: Any) -> tuple[str, ...]:
    return tuple(sorted(meta_graph.meta_info_def.tags))


def _choose_meta_graph(meta_graphs: Sequence[Any], tag: str | None, folder: Path) -> Any:
    listed = "; ".join(",".join(_tags(meta_graph)) or "'' (no tag)" for meta_graph in meta_graphs)
    if tag is not None:
        wanted = {part.strip() for part in tag.split(",") if part.strip()}
        fitting = [meta_graph for meta_graph in meta_graphs if set(_tags(meta_graph)) == wanted]
        if not fitting:
            which = f"tagged '{tag}'" if wanted else "without a tag, which --tag '' asks for"
            raise TargetError(f"'{folder}' has no graph {which}; pass --tag with one of: {listed}")
        return fitting[0]
    if len(meta_graphs) == 1:
        return meta_graphs[0]
    serving = [meta_graph for meta_graph in meta_graphs if set(_tags(meta_graph)) == SERVE]
    if len(serving) != 1:
        raise TargetError(f"'{folder}' has several graphs; pass --tag with one of: {listed}")
    return serving[0]


def _debug_info(file: Path) -> tuple[Any, list[str]]:
    if not file.is_file():
        return None, []
    from tensorboard.compat.proto import graph_debug_info_pb2

    try:
        return parse_message(graph_debug_info_pb2.GraphDebugInfo, read_bytes(file), file, "debug information"), []
    except TargetError as error:
        return None, [f"source lines are not known: {error}"]


# -- the part of the graph that a signature runs ------------------------------------------------------------------


def _signature_graph(meta_graph: Any, signature: Signature, debug_info: Any, has_objects: bool) -> Graph:
    """Return what TensorFlow runs: the object graph's function if it goes by that, else what the main graph calls."""
    graph_def = meta_graph.graph_def
    known = objects.signature_function(meta_graph.object_graph_def, signature.name) if has_objects else None
    call = wrapping_call(signature, graph_def.node)
    function = known or (None if call is None else called_by(call))
    library = {item.signature.name for item in graph_def.library.function}
    if function in library:
        bound = binding.by_objects(build_reachable(graph_def, str(function), debug_info), meta_graph)
        graph = writers.marked(bound, meta_graph, signature.name) if known else bound
        return graph if known or call is None else binding.at_call(graph, graph_def, call)
    graph = build_reachable(graph_def, MAIN, debug_info)
    return _pruned(graph, _needed(graph, signature, graph_def), signature)


def _needed(graph: Graph, signature: Signature, graph_def: Any) -> Collection[str]:
    """Return the ops that the outputs of ``signature`` depend on, and its inputs."""
    tensors = [name for tensor in (*signature.outputs, *signature.inputs) for name in tensor.tensors]
    if graph.notes:  # what the table leaves out, as an edge that closes a cycle, leads somewhere all the same
        return upstream(tensors, {node.name: node for node in graph_def.node})
    return _upstream_of(graph.main, tensors)


def _upstream_of(function: Function, tensors: Iterable[str]) -> Collection[str]:
    """Return the ops that make ``tensors``, and all that these depend on, around loops too."""
    table = function.graph
    back: dict[int, list[int]] = {}
    for source, name, _ in function.back_edges:
        back.setdefault(table.position(name), []).append(table.position(source))
    named = (written if written in table else op_name(written) for written in tensors)
    pending = [table.position(name) for name in dict.fromkeys(named) if name in table]
    needed = bytearray(len(table))
    for position in pending:
        needed[position] = True
    for position in pending:  # grows while it is walked
        for source in (*table.sources[table.first[position] : table.first[position + 1]], *back.get(position, ())):
            if not needed[source]:
                needed[source] = True
                pending.append(source)
    return {table.names[position] for position in pending}


def _called_graph(meta_graph: Any, debug_info: Any) -> Graph | None:
    """Return what calling the object runs, for a model that was saved without signatures."""
    function = objects.called_function(meta_graph.object_graph_def)
    if function not in {item.signature.name for item in meta_graph.graph_def.library.function}:
        return None
    return binding.by_objects(build_reachable(meta_graph.graph_def, str(function), debug_info), meta_graph)


def _graph_without_signature(meta_graph: Any, debug_info: Any) -> tuple[Graph, str]:
    """Return what can be judged of a model that cannot be called, and which that is: its graph, or its functions."""
    steps = ops_of_steps(meta_graph)
    functions = [] if steps else entrances(meta_graph)
    if not functions:
        whole = build_reachable(meta_graph.graph_def, MAIN, debug_info)
        main = replace(whole.main, graph=whole.main.graph.only(steps.__contains__)) if steps else whole.main
        judged_whole = replace(whole, functions={**whole.functions, whole.root: main})
        return judged_whole, "the model has no signature: its graph is judged as a whole"
    largest, *others = functions
    graph = binding.by_objects(build_reachable(meta_graph.graph_def, largest.function, debug_info), meta_graph)
    more = f"; not judged: {', '.join(one.name for one in others)}" if others else ""
    return graph, f"the model has no signature: of its functions the one with most ops is judged, {largest.name}{more}"


def _call_signature(graph: Graph) -> Signature:
    main = graph.main
    free = [name for name in main.inputs if name not in main.captures]
    inputs = tuple(Tensor(name, main.graph.op(name).outputs[0], ()) for name in free if main.graph.op(name).outputs)
    outputs = tuple(
        Tensor(name, spec, ())
        for name in main.outputs
        for spec in [*input_specs(main.graph, name), None][:1]
        if spec is not None
    )
    return Signature(CALL, inputs, outputs)


def _pruned(graph: Graph, needed: Collection[str], signature: Signature) -> Graph:
    """Keep of the main graph what ``signature`` runs."""
    main = graph.main.graph
    if len(needed) < len(main):
        main = main.only(needed.__contains__)
    inputs = _names(main, (name for tensor in signature.inputs for name in tensor.tensors))
    outputs = _names(main, (name for tensor in signature.outputs for name in tensor.tensors))
    functions = {**graph.functions, MAIN: replace(graph.main, graph=main, inputs=inputs, outputs=outputs)}
    reached = _reached(functions)
    missing = () if outputs else (f"signature '{signature.name}' names outputs that are not in the graph",)
    return Graph(MAIN, {name: functions[name] for name in functions if name in reached}, (*graph.notes, *missing))


def _names(main: Any, tensors: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in map(op_name, tensors) if name in main))


def _reached(functions: Mapping[str, Function]) -> set[str]:
    reached, pending = {MAIN}, [MAIN]
    while pending:
        graph = functions[pending.pop()].graph
        called = {call.function for op in graph.ops() for call in op.calls if call.function in functions}
        pending.extend(called - reached)
        reached |= called
    return reached


def _reduced(message: Any, graph: Graph) -> Any:
    """Return ``message`` without weights and without all that ``graph`` does not hold."""
    ops = graph.main.graph if graph.root == MAIN else ()
    return strip_weights(message, ops.__contains__, graph.functions.__contains__)


# -- single graphs ------------------------------------------------------------------------------------------------


def load_graph_def(path: str | os.PathLike[str]) -> LoadedModel:
    """Load the ``GraphDef`` in ``path``, binary or text: a frozen graph, or a graph as it ran.

    Raises
    ------
    TargetError
        When the file is damaged or holds no op.
    """
    file = Path(path)
    message, digest, is_text = _read_graph_def(file)
    if not message.node and not message.library.function:
        raise TargetError(f"'{file}' holds no op; export the graph again")
    graph = build_graph(message)
    Calls(graph).refuse_huge()
    return LoadedModel(
        graph,
        MAIN,
        lambda: _read_graph_def(file)[:2],
        digest,
        notes=(*graph.notes, *_uncalled(graph)),
        judged=judged.of_graph_file(message, graph),
        is_text=is_text,
    )


_NAMES_SHOWN: Final = 3


def _uncalled(graph: Graph) -> list[str]:
    """Say so where a file holds functions only: what is judged is its main graph, which has nothing in it."""
    if len(graph.main.graph):
        return []
    names = [name for name in graph.functions if name != MAIN]
    listed = ", ".join(f"'{name}'" for name in names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return [
        f"nothing was judged: the file's main graph is empty, and nothing in the file calls its functions ({listed}"
        f"{more}); export the model with the call of the one that is meant"
    ]


def _read_graph_def(file: Path) -> tuple[Any, str, bool]:
    data = read_bytes(file)
    return parse_graph_def(data, file), hashlib.sha256(data).hexdigest(), looks_like_text(data)


def load_meta_graph(path: str | os.PathLike[str], signature: str | None = None) -> LoadedModel:
    """Load the ``MetaGraphDef`` in ``path``, binary or text.

    Without a signature in the file, the whole main graph is the root.

    Raises
    ------
    TargetError
        When the file is damaged or has no signature of that name.
    """
    file = Path(path)
    meta_graph, digest, is_text = _read_meta_graph(file)
    signatures = signatures_of(meta_graph)
    whole = build_reachable(meta_graph.graph_def)
    if signatures or signature is not None:
        counts = partial(op_counts, meta_graph, signatures, has_objects=False)
        chosen, why = choose(signatures, signature, file, counts)
        graph, name = _signature_graph(meta_graph, chosen, None, has_objects=False), chosen.name
    else:
        graph, name, why = whole, None, None
    Calls(graph).refuse_huge()
    return LoadedModel(
        graph=graph,
        traced_root=graph.root,
        reread=lambda: _graph_def_of_meta_graph(file),
        digest=digest,
        signature=name,
        chosen=why,
        signatures=signatures,
        tags=_tags(meta_graph),
        notes=graph.notes,
        judged=judged.of_graph_file(meta_graph.graph_def, whole),
        is_text=is_text,
    )


def _read_meta_graph(file: Path) -> tuple[Any, str, bool]:
    from tensorboard.compat.proto import meta_graph_pb2

    data = read_bytes(file)
    is_text = looks_like_text(data)
    parse = parse_text if is_text else parse_message
    message = parse(meta_graph_pb2.MetaGraphDef, data, file, "a MetaGraph")
    return message, hashlib.sha256(data).hexdigest(), is_text


def _graph_def_of_meta_graph(file: Path) -> tuple[Any, str]:
    message, digest, _ = _read_meta_graph(file)
    return message.graph_def, digest
