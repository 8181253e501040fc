"""What to do about copies between host and device, by their cause; with what a simulation says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import origins
from graphlens.ir.analysis import Fix
from graphlens.ir.devices import Copy, CopyCount, CopyReason, Counterfactual
from graphlens.ir.edits import Ops, PlaceOps
from graphlens.units import counted

_PIN: Final = 'tf.config.optimizer.set_experimental_options({"pin_to_host_optimization": True})'
_FIXES: Final[Mapping[CopyReason | None, tuple[str, str | None]]] = {
    "shape arithmetic": (
        "Give the batch and other sizes fixed values, so that shapes are known before the step",
        "@tf.function(input_signature=[tf.TensorSpec((32, 128), tf.int64)])  # no None",
    ),
    "int32/host-memory argument": (
        "Keep index tensors int64, or let Grappler run small integer ops on the host",
        f"ids = tf.cast(ids, tf.int64)  # once, where they are made\n# or\n{_PIN}",
    ),
    "constant on the host": (
        "Hold the constant as int64 or float, which the device keeps, or let Grappler run its readers on the host",
        _PIN,
    ),
    "string/resource op": (
        "Move the lookup out of the model, into the input pipeline",
        "dataset = dataset.map(lambda text: vocabulary(text))  # the model takes the ids",
    ),
    "Python op": ("Write it in TensorFlow ops, or run it in the input pipeline", None),
    "explicit device": ("Drop the tf.device around the ops named", None),
    "fetch": ("Return fewer or smaller results, or keep them on the device until they are needed", None),
    "cross-replica": ("Reduce over replicas with a collective instead of through the host", None),
    "kept in host memory": (
        "Keep in device memory what fits there, offload less or in half precision, or give the device more to compute "
        "per byte, so that the copies overlap with it",
        None,
    ),
    None: ("Find the code that copies: record again with the graph, or profile a single step", None),
}

_SMALL_VALUES: Final = ("Let Grappler run the small ops that make or read these values on the host", _PIN)


def fix_for(facts: Facts, copies: Sequence[Copy]) -> Fix:
    """Return the fix for the cause: where the simulation tried it, with what became of all copies of the step."""
    summary, snippet = _advice(copies)
    tried = _best_change(facts, copies)
    if tried is not None:
        summary += f" (simulated: {_count(tried.before)} → {_count(tried.after)})"
        return Fix(summary, "manual", (), tried.snippet)
    edits = _edits(facts, copies)
    return Fix(summary, "tolerance" if edits else "manual", edits, snippet)


def _edits(facts: Facts, copies: Sequence[Copy]) -> tuple[PlaceOps, ...]:
    """Drop the explicit devices: only a run on this machine's own devices can be tried again without them."""
    if copies[0].reason != "explicit device" or copies[0].origin == "modelled" or facts.evidence.profile_path:
        return ()
    sources = facts(origins)
    written = [name for copy in copies for name in sources.get(copy.at_fault or "", ())]
    return (PlaceOps(Ops(tuple(dict.fromkeys(written))), device=""),) if written else ()


def _advice(copies: Sequence[Copy]) -> tuple[str, str | None]:
    """Return what to do about the cause in words, and in code."""
    are_indexes = all((copy.tensor or "int").startswith("int") for copy in copies)
    if copies[0].reason == "int32/host-memory argument" and not are_indexes:
        return _SMALL_VALUES
    return _FIXES[copies[0].reason]


def _count(count: CopyCount) -> str:
    return counted(_left(count), "copy", "copies")


# The change to a simulated placement that answers to a cause.
_CHANGES: Final[Mapping[str, frozenset[str]]] = {
    "shape arithmetic": frozenset({"static-batch", "pin-to-host"}),
    "int32/host-memory argument": frozenset({"pin-to-host"}),
    "constant on the host": frozenset({"pin-to-host"}),
    "string/resource op": frozenset({"lookup-outside"}),
    "explicit device": frozenset({"move-device"}),
}


def _changes(facts: Facts, copies: Sequence[Copy]) -> list[Counterfactual]:
    """Return the changes that answer to the cause, where the simulation tried any."""
    placement = facts.evidence.placement
    if placement is None or copies[0].origin != "modelled":
        return []
    wanted = _CHANGES.get(copies[0].reason or "", frozenset())
    return [item for item in placement.counterfactuals if item.change in wanted]


def _best_change(facts: Facts, copies: Sequence[Copy]) -> Counterfactual | None:
    """Return the change that leaves the fewest copies; ``None`` when none leaves fewer than there are."""
    best = min(_changes(facts, copies), key=lambda item: _left(item.after), default=None)
    return best if best is not None and _left(best.after) < _left(best.before) else None


def _left(count: CopyCount) -> int:
    return count.host_to_device + count.device_to_host


def simulated_changes(facts: Facts, copies: Sequence[Copy]) -> Mapping[str, Any]:
    """Return what the simulation says of each change that answers to the cause."""
    tried = [
        {
            "change": item.words,
            "host_to_device": f"{item.before.host_to_device} → {item.after.host_to_device}",
            "device_to_host": f"{item.before.device_to_host} → {item.after.device_to_host}",
        }
        for item in _changes(facts, copies)
    ]
    return {"simulated_changes": tried} if tried else {}
