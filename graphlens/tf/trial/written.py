"""The variables that a step writes: put back before each comparison, and compared like outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class State:
    """Variables by a name for each, and the values that they had when the model was opened."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Any) -> State:
        """Return what a program writes, as it is now."""
        variables = dict(_named(program))
        return cls(variables, {name: variable.read_value() for name, variable in variables.items()})

    def restore(self) -> None:
        """Put the values back."""
        for name, variable in self.variables.items():
            variable.assign(self.values[name])

    def read(self) -> dict[str, Any]:
        """Return the values of now, by names that tell them from outputs."""
        return {f"{name}, as the step leaves it": variable.read_value() for name, variable in self.variables.items()}

    def only(self, other: State) -> State:
        """Return the part that ``other`` has under the same names, too: names may be lost on the way to disk."""
        common = {name: variable for name, variable in self.variables.items() if name in other.variables}
        return State(common, self.values)


def variables_of(program: Any) -> dict[str, Any]:
    """Return all variables of a program by their place in it, which is the same whenever the target is opened."""
    return {name: one.value for name, one in program.bindings.items() if one.kind == "variable"}


def _named(program: Any) -> Iterator[tuple[str, Any]]:
    held = [program.bindings[name] for name in sorted(program.written)]
    count = Counter(binding.name for binding in held)
    for number, binding in enumerate(held):
        name = binding.name if count[binding.name] == 1 else f"{binding.name}#{number}"
        yield f"variable '{name}'", binding.value
