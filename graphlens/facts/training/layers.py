"""The layer of every op as written: by what was noted while it was traced, else by the variables that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.training.phases import written_phases
from graphlens.facts.training.scopes import layer_scopes, layers_by_scope, step_walk, trained_handles, variable_paths
from graphlens.facts.training.walking import Walk
from graphlens.ir.training import LayerScope, Phase

_SEVERAL: Final = -2  # an op of the optimizer that serves several variables
_NONE: Final = -1


@fact
def written_layers(facts: Facts) -> Mapping[str, LayerScope]:
    """Op as written -> its layer, in every phase of a step; ops of which none is known are absent.

    A gradient is of the layer of its forward op, and what the optimizer does of the one whose variable it updates.
    """
    if not facts(layer_scopes):
        return {}
    walk, phase_of, found = facts(step_walk), facts(written_phases), list(facts(layers_by_scope))
    names = walk.graph.names
    if phase_of:
        owners = _owners(walk, [phase_of.get(name) for name in names], facts(trained_handles))
        known, paths = {one.path: one for one in found if one is not None}, facts(variable_paths)
        layer_of = {one: _of_variable(walk, one, found, known, paths.get(one, "")) for one in set(owners) if one >= 0}
        found = [layer_of.get(owner, layer) for owner, layer in zip(owners, found, strict=True)]
        _hand_back(walk, found, [phase_of.get(name) for name in names])
    return {name: layer for name, layer in zip(names, found, strict=True) if layer is not None}


# -- the optimizer ------------------------------------------------------------------------------------------------


def _owners(walk: Walk, phases: Sequence[Phase | None], trained: frozenset[int]) -> Sequence[int]:
    """Return for each op of the optimizer the one trained variable that it serves, by where the handle comes from."""
    slots = [one for one in walk.writes if one not in trained]
    walk = walk.carried_by(slots)
    owners = [_NONE] * len(phases)
    for at in reversed(walk.graph.order):
        if phases[at] == "optimizer":
            variable = walk.written.get(at, _NONE)
            owners[at] = variable if variable in trained else _one([owners[reader] for reader in walk.after[at]])
    for at in walk.graph.order:  # what is kept for next time serves whom its value serves now
        if phases[at] == "optimizer" and owners[at] == _NONE:
            owners[at] = _one([owners[source] for source in walk.before[at]])
    return owners


def _one(owners: Sequence[int]) -> int:
    distinct = set(owners) - {_NONE}
    return distinct.pop() if len(distinct) == 1 else _SEVERAL if distinct else _NONE


def _of_variable(
    walk: Walk, variable: int, layers: Sequence[LayerScope | None], known: Mapping[str, LayerScope], path: str
) -> LayerScope | None:
    """Return the layer that reads a variable; where none does under its own name, the one that its path tells."""
    readers = (layers[read] for read in walk.reads.get(variable, ()))
    return next(filter(None, readers), None) or next(filter(None, map(known.get, _parents(path))), None)


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


def _hand_back(walk: Walk, layers: list[LayerScope | None], phases: Sequence[Phase | None]) -> None:
    """Give sums of gradients, which stand in no scope, to the layer that they are handed back to."""
    for at in reversed(walk.graph.order):
        if phases[at] == "backward" and layers[at] is None:
            readers = {layers[reader] for reader in walk.after[at]}
            layers[at] = readers.pop() if len(readers) == 1 else None
