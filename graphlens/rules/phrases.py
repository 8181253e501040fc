"""Words and sums that several rules share, and the layer that a title names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat import scopes
from graphlens.facts.graphs import judged_stage
from graphlens.facts.programs.judged_program import judged_profile
from graphlens.facts.time.attribution import Attribution, attribution
from graphlens.facts.training.executed import layer_names, layer_of_op

# A scope that so many of the ops with a layer lie in is the model itself, and tells no layer from another.
_OF_THE_MODEL: Final = 0.9
# A finding about more than this share of several layers is about the model.
_MOST_LAYERS: Final = 0.5
# More layers than these are counted after the slowest.
_LAYERS_NAMED: Final = 2

# Why Grappler does not fold a tensor that a function has captured.
CAPTURED = (
    "tensors that the function has captured, which are handed to it as arguments in every call: Grappler takes them "
    "for inputs"
)


class Wrapper(NamedTuple):
    """A layer around another that prepares its weights in training: what it is for, and how it is taken off."""

    name: str
    snippet: str


# By what the TensorFlow Model Optimization Toolkit (0.8) puts before the name of the layer that it wraps.
_WRAPPERS: Final[Mapping[str, Wrapper]] = {
    "prune_low_magnitude_": Wrapper(
        "the pruning wrappers", "model = tfmot.sparsity.keras.strip_pruning(model)  # of tensorflow_model_optimization"
    ),
    "cluster_": Wrapper(
        "the clustering wrappers",
        "model = tfmot.clustering.keras.strip_clustering(model)  # of tensorflow_model_optimization",
    ),
}


def wrapper_of(layers: Iterable[str]) -> Wrapper | None:
    """Return which wrapper the layers are of, by their names, where all are of one.

    >>> wrapper_of(["net/prune_low_magnitude_dense", "net/prune_low_magnitude_conv"]).name
    'the pruning wrappers'
    >>> wrapper_of(["net/cluster_dense", "net/dense"]), wrapper_of([])
    (None, None)
    """
    names = {layer.rpartition("/")[2] for layer in layers}
    found = {next((start for start in _WRAPPERS if name.startswith(start)), "") for name in names}
    return _WRAPPERS.get(found.pop()) if len(found) == 1 else None


def with_stage(facts: Facts, cause: str) -> str:
    """Add to a reason what it means that nothing was measured, where that is so."""
    measured = facts(judged_stage) == "executed" or facts(judged_profile) is not None
    return cause if measured else f"{cause}; nothing was executed, so the saving is unknown"


def by_cause(causes: Iterable[str]) -> str:
    """Write the causes of several things, the commonest first; with their counts where they differ.

    >>> by_cause(["rain", "snow", "rain"]), by_cause(["rain"])
    ('2 of 3: rain; 1 of 3: snow', 'rain')
    """
    counts = Counter(causes)
    of_all = f" of {counts.total()}: "
    return "; ".join(f"{count}{of_all}{cause}" if len(counts) > 1 else cause for cause, count in counts.most_common())


def known_sum(values: Iterable[int | None]) -> int | None:
    """Sum what is known; ``None`` when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


# -- layers -------------------------------------------------------------------------------------------------------


def named_by_layer(facts: Facts, title: str, nodes: Sequence[str], stage: str) -> str:
    """Put the layers of ``nodes``, the slowest first, in front of ``title``, where it does not name them already.

    ``stage`` is the graph that ``nodes`` are of.  Where they are of most layers, or one is of none, no layer is named.
    """
    where = _where(facts, nodes, stage)
    return title if not where or where in title else f"{where}: {_continued(title)}"


def _where(facts: Facts, nodes: Sequence[str], stage: str) -> str:
    of_model = facts(model_scope)
    own = Counter[tuple[str, ...]]()
    seen = facts.known(attribution, Attribution()).timings
    for name in nodes:
        path = _path(layer_of_op(facts, name, stage))[len(of_model) :]
        own[path] += seen[name].self_ns if name in seen else 0
    if () in own:
        return ""
    if len(own) > max(1, _MOST_LAYERS * facts(layer_count)):
        return ""
    called = ["/".join(path) for path, _ in own.most_common()]
    if len(own) <= _LAYERS_NAMED:
        return " and ".join(called)
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*own, strict=False))]
    return "/".join(shared) or f"{called[0]} and {len(called) - 1} more layers"


@fact
def model_scope(facts: Facts) -> tuple[str, ...]:
    """The scopes that nearly all layers of the model lie in; empty where there are none."""
    paths = [path for layer in set(facts(layer_names)) if (path := _path(layer))]
    shared: list[str] = []
    while paths:
        scope, count = Counter(path[len(shared)] for path in paths).most_common(1)[0]
        inside = [path for path in paths if path[len(shared)] == scope]
        if count < _OF_THE_MODEL * len(paths) or len(inside) < _LAYERS_NAMED:
            break
        shared.append(scope)
        paths = [path for path in inside if len(path) > len(shared)]
    return tuple(shared)


@fact
def layer_count(facts: Facts) -> int:
    """How many layers the model has."""
    inside = len(facts(model_scope))
    return len({path[inside:] for layer in set(facts(layer_names)) if (path := _path(layer))[inside:]})


def _path(layer: str | None) -> tuple[str, ...]:
    path = tuple(layer.split("/")) if layer else ()
    return path[1:] if path and path[0] in scopes.GRADIENT_SCOPES else path


def _continued(title: str) -> str:
    """Let a title go on after a colon: its first word begins small, unless it is a name."""
    first, second = title[:1], title[1:2]
    return first.lower() + title[1:] if second.islower() or second == " " else title
