"""Which scopes of a graph are a layer's: as noted while it was traced, else by the variables that are read there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph, traced_graph
from graphlens.facts.training.gradients import gradient_name
from graphlens.facts.training.scoping import outer_scope
from graphlens.facts.training.walking import Walk
from graphlens.ir.training import LayerScope


@fact
def step_walk(facts: Facts) -> Walk:
    """The graph as written, to be walked; the judged one where no other is known."""
    written = facts(traced_graph)
    return Walk.of(facts(judged_graph) if written is None else written)


@fact
def trained_handles(facts: Facts) -> frozenset[int]:
    """Where the handles of variables come from, in the walked graph, that are declared to be trained."""
    evidence, graph = facts.evidence, facts(step_walk).graph
    library = evidence.traced or evidence.executed
    captures = library.main.captures if library is not None else {}
    return frozenset(graph.position(name) for name, held in captures.items() if held.trainable and name in graph)


@fact
def layer_scopes(facts: Facts) -> Mapping[str, LayerScope]:
    """Scope, without the places that functions are called from -> the layer whose ops stand there."""
    noted = facts.evidence.scopes
    return _without_cells(noted) if noted else _by_variables(facts(step_walk), facts(variable_paths))


@fact
def layers_by_scope(facts: Facts) -> Sequence[LayerScope | None]:
    """The layer in whose scope each op as written stands, in the order of the walked graph; a gradient's forward op."""
    scopes = facts(layer_scopes)
    names = facts(step_walk).graph.names
    if not scopes:
        return [None] * len(names)
    of_scope: dict[str, LayerScope | None] = {}
    found: list[LayerScope | None] = []
    for name in names:
        told = gradient_name(name)
        scope = name.rpartition("/")[0] if told is None else told.forward
        if scope not in of_scope:
            of_scope[scope] = _layer_in(scope, scopes)
        found.append(of_scope[scope])
    return found


def _without_cells(noted: Mapping[str, LayerScope]) -> Mapping[str, LayerScope]:
    """Return the scopes with those of the cell of a recurrent layer given to the layer itself."""
    by_path = {layer.path: layer for layer in noted.values()}
    return {
        scope: by_path.get(layer.path.rpartition("/")[0], layer) if layer.kind.endswith("Cell") else layer
        for scope, layer in noted.items()
    }


@fact
def variable_paths(facts: Facts) -> Mapping[int, str]:
    """Where the handles of variables come from -> their paths."""
    evidence, graph = facts.evidence, facts(step_walk).graph
    library = evidence.traced or evidence.executed
    captures = library.main.captures if library is not None else {}
    return {graph.position(name): held.name for name, held in captures.items() if name in graph}


def _layer_in(scope: str, scopes: Mapping[str, LayerScope]) -> LayerScope | None:
    """Return the layer of a scope: the innermost of those that are opened where the first one is."""
    segments = scope.split("/")
    for start in range(len(segments)):
        for end in range(len(segments), start, -1):
            found = scopes.get("/".join(segments[start:end]))
            if found is not None:
                return found
    return None


# -- without notes ------------------------------------------------------------------------------------------------


def _by_variables(walk: Walk, paths: Mapping[int, str]) -> Mapping[str, LayerScope]:
    """Return the scopes in which variables are read, where these are numbered forms of the path of their layer."""
    found: dict[str, LayerScope | None] = {}
    for variable, path in paths.items():
        for read in walk.reads.get(variable, ()):
            name = walk.graph.names[read]
            scope = _scope_of(name, path.split("/")[:-1]) if gradient_name(name) is None else None
            if scope is not None:
                layer = LayerScope(path.rpartition("/")[0])
                found[scope] = layer if found.setdefault(scope, layer) == layer else None
    return {scope: layer for scope, layer in found.items() if layer is not None}


def _scope_of(name: str, layer: Sequence[str]) -> str | None:
    """Return the scope of a layer around an op that reads its variable: its path, each part maybe with a number.

    >>> _scope_of("PartitionedCall/sequential_1/dense_1_2/Cast/ReadVariableOp", ["sequential", "dense_1"])
    'sequential_1/dense_1_2'
    """
    outermost = outer_scope(name)
    if not outermost or not layer:
        return None
    segments = name.split("/")[len(outermost.split("/")) - 1 : -1]
    for start in range(len(segments) - len(layer) + 1):
        if all(map(_is_numbered, segments[start:], layer)):
            return "/".join(segments[: start + len(layer)])
    return None


def _is_numbered(scope: str, name: str) -> bool:
    return scope == name or bool(re.fullmatch(rf"{re.escape(name)}_\d+", scope))
