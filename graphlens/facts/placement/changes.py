"""What could be changed about a model so that less is copied, found in its placed graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from graphlens.facts.placement.groups import device_name
from graphlens.facts.placement.kernels import CPU
from graphlens.facts.placement.netlist import Netlist
from graphlens.facts.placement.placer import Placed
from graphlens.ir.devices import Copy, CopyCount, Counterfactual
from graphlens.ir.nodes import ARGUMENT, Op, TensorSpec
from graphlens.ir.ops import LOOKUPS
from graphlens.units import few

_MOST_NAMED: Final = 3  # names of ops in a sentence


@dataclass(frozen=True, slots=True)
class Trial:
    """One change, ready to be tried: the graph to place, and what Grappler has to be told.

    ``shapes`` gives arguments a shape, ``cut`` names ops that become arguments, ``pin_to_host`` switches an option on.
    """

    change: Literal["static-batch", "pin-to-host", "move-device", "lookup-outside"]
    words: str
    snippet: str
    netlist: Netlist
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    cut: tuple[str, ...] = ()
    pin_to_host: bool = False

    def outcome(self, before: CopyCount, after: CopyCount) -> Counterfactual:
        """Return what the change gave."""
        return Counterfactual(self.change, self.words, before, after, self.snippet)

    def failed(self, before: CopyCount, why: str) -> Counterfactual:
        """Return that it could not be tried: the copies stay what they are."""
        return Counterfactual(self.change, self.words, before, before, self.snippet, why)


def trials(
    netlist: Netlist, placed: Mapping[str, Placed], found: Sequence[Copy], fed: Mapping[str, TensorSpec]
) -> tuple[Trial, ...]:
    """Return the changes that apply to a placed graph; none when it copies nothing.

    Parameters
    ----------
    fed
        Argument -> what it was in the run.
    """
    if not any(copy.kind in ("host-to-device", "device-to-host") for copy in found):
        return ()
    possible = (_static(netlist, fed), _pinned(netlist), _moved(netlist, placed), _looked_up(netlist, placed))
    return tuple(trial for trial in possible if trial is not None)


def _static(netlist: Netlist, fed: Mapping[str, TensorSpec]) -> Trial | None:
    """Inputs of a shape that is open get the one that they had in the run."""
    arguments = [op for op in netlist.ops if op.name in fed]
    if not any(_is_open(op) for op in arguments):
        return None
    known = {op.name: fed[op.name].shape or () for op in arguments}
    specs = [f"tf.TensorSpec({shape}, tf.{fed[name].dtype})" for name, shape in known.items()]
    named = few((f"{name} as {list(shape)}" for name, shape in known.items()), _MOST_NAMED)
    words = f"static shapes instead of dynamic ones: {named}"
    return Trial("static-batch", words, f"@tf.function(input_signature=[{', '.join(specs)}])", netlist, shapes=known)


def _is_open(op: Op) -> bool:
    return not op.outputs or op.outputs[0].elements is None


def _pinned(netlist: Netlist) -> Trial:
    snippet = 'tf.config.optimizer.set_experimental_options({"pin_to_host_optimization": True})'
    words = "TensorFlow's option to keep small integer ops on the host, which is off by default"
    return Trial("pin-to-host", words, snippet, netlist, pin_to_host=True)


def _moved(netlist: Netlist, placed: Mapping[str, Placed]) -> Trial | None:
    """Ops that the program puts on the host, without that request."""
    asked = [op for op in netlist.ops if _asks_for_host(op) and placed[op.name].cause != "argument"]
    if not asked:
        return None
    names = {op.name for op in asked}
    ops = tuple(replace(op, device="") if op.name in names else op for op in netlist.ops)
    words = f"without the explicit host device of {few((op.name for op in asked), _MOST_NAMED)}"
    return Trial("move-device", words, "# remove `with tf.device('CPU:0'):` around them", Netlist(ops, netlist.wires))


def _asks_for_host(op: Op) -> bool:
    return bool(op.device) and device_name(op.device).type == CPU


def _looked_up(netlist: Netlist, placed: Mapping[str, Placed]) -> Trial | None:
    """Table lookups done by the caller: their results become inputs."""
    found = [op for op in netlist.ops if op.type in LOOKUPS and placed[op.name].device == CPU]
    if not found:
        return None
    names = tuple(op.name for op in found)
    ops = tuple(_argument(op) if op.name in names else op for op in netlist.ops)
    wires = tuple(wire for wire in netlist.wires if netlist.ops[wire.dst].name not in names)
    words = f"the table lookup outside of the model: the caller hands over the result of {few(names, _MOST_NAMED)}"
    return Trial("lookup-outside", words, "ids = table.lookup(words)\nmodel(ids)", Netlist(ops, wires), cut=names)


def _argument(op: Op) -> Op:
    return replace(op, type=ARGUMENT, device="", attrs={"T": op.attrs.get("Tout", "unknown")})
