"""Which variables had rows read or written by their numbers: TensorFlow copies them at whole reads from then on."""

from __future__ import annotations

from typing import Any, Final

from graphlens.ir.script import RowAccess
from graphlens.tf import private

# The first such op of a variable switches it for good (``EnsureSparseVariableAccess`` of TensorFlow's
# ``resource_variable_ops.cc``): a read has to copy from then on, as rows may change under it.
_READS: Final = {"sparse_read": "ResourceGather", "gather_nd": "ResourceGatherNd"}


class RowAccesses:
    """What was seen of each variable first."""

    def __init__(self) -> None:
        self._first: dict[str, RowAccess] = {}

    @property
    def seen(self) -> tuple[RowAccess, ...]:
        """The variables, in the order in which it was seen of them."""
        return tuple(self._first.values())

    def note(self, variable: Any, method: str) -> None:
        """Note that rows of a variable are about to be read or written, by one of ``hooks.ROW_METHODS``."""
        key = private.unique_id(variable)
        if key and key not in self._first:
            self._first[key] = RowAccess(key, op_of(method), private.function_being_traced())


def op_of(method: str) -> str:
    """Return the type of the op that a method of a variable makes.

    >>> op_of("sparse_read"), op_of("scatter_sub"), op_of("scatter_nd_update")
    ('ResourceGather', 'ResourceScatterSub', 'ResourceScatterNdUpdate')
    """
    return _READS.get(method) or "Resource" + "".join(part.capitalize() for part in method.split("_"))
