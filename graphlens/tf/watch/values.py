"""The variables of a program that stands still: kept, exchanged with another run of it, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

from graphlens.children.gate_messages import AtGate, CompareValues, KeepValues, Taken, TakeValues
from graphlens.children.messages import Comparison, Done
from graphlens.tf import comparison, exchange, private
from graphlens.tf.record import environment

_COUNTERS: Final = frozenset(
    {"iteration", "iterations", "iter", "global_step"}
)  # of Keras, its ancestors, TensorFlow 1


def answer(request: KeepValues | TakeValues | CompareValues, program: Any) -> Any:
    """Do what is asked for with the variables of ``program``, a ``ConcreteFunction`` or a Session."""
    with private.eagerly():
        return _answered(request, _Held(program))


def _answered(request: KeepValues | TakeValues | CompareValues, held: _Held) -> Any:
    if isinstance(request, KeepValues):
        exchange.write_values(Path(request.file), held.values())
        return Done()
    if isinstance(request, TakeValues):
        return _taken(held, exchange.read_values(Path(request.file)), nudged=request.nudged)
    allowed = comparison.Allowed(request.computes_in, request.rtol)
    before, after = exchange.read_values(Path(request.file)), held.values()
    # A variation may hold more, such as the scale of a loss.
    shared = {name: value for name, value in before.items() if name in after}
    found = comparison.compare(shared, {name: after[name] for name in shared}, allowed)
    return Comparison(tuple(found), 1)


def _taken(held: _Held, values: Mapping[str, Any], *, nudged: bool) -> Taken:
    now = held.values()
    fitting = [name for name, value in values.items() if name in now and now[name].shape == value.shape]
    different = [name for name in fitting if not np.array_equal(now[name].numpy(), values[name].numpy())]
    for name in fitting if nudged else different:
        held.assign(name, exchange.nudged(values[name]) if nudged else values[name])
    return Taken(len(different), len(fitting))


def at_gate(step: int, calls: int, took_ns: tuple[int, int], applied: Mapping[str, int]) -> AtGate:
    """Say where a script stands still, and what of TensorFlow it runs on."""
    accelerated = bool(tf.config.list_logical_devices("GPU"))
    onednn, threads = private.onednn_enabled(), environment.threads()
    return AtGate(step, calls, *took_ns, dict(applied), accelerated, onednn, threads)


def counted_steps(concrete: Any) -> int | None:
    """Return how often an optimizer says that it was called, ``None`` where nothing of the function counts."""
    counts = [
        int(variable.numpy())
        for variable in private.variables(concrete)
        if _last_name(variable) in _COUNTERS and variable.dtype.is_integer and variable.shape.rank == 0
    ]
    return max(counts, default=None)


def _last_name(variable: Any) -> str:
    return str(variable.name).removesuffix(":0").rpartition("/")[2]


class _Held:
    """The variables of a program by name; those of one name are numbered in their order."""

    def __init__(self, program: Any) -> None:
        self._session = program if private.is_session(program) else None
        of = program.graph.get_collection("variables") if self._session is not None else private.variables(program)
        self.variables: dict[str, Any] = {}
        for variable in of:
            name = str(variable.name).removesuffix(":0")
            number = sum(known.partition("#")[0] == name for known in self.variables)
            self.variables[f"{name}#{number}" if number else name] = variable

    def values(self) -> Mapping[str, Any]:
        """Return what they hold."""
        if self._session is None:
            return {name: tf.convert_to_tensor(variable) for name, variable in self.variables.items()}
        read = self._session.run(list(self.variables.values()))
        return {name: tf.convert_to_tensor(value) for name, value in zip(self.variables, read, strict=True)}

    def assign(self, name: str, value: Any) -> None:
        """Give a variable a value."""
        if self._session is None:
            self.variables[name].assign(value)
        else:
            self.variables[name].load(value.numpy(), self._session)
