"""The input of a script alone: elements of what it iterates over, taken while it stands still.

Where its input is changed, what it made itself gives the changed elements when it is iterated over (``inputs``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from graphlens.children.gate_messages import TakeElements
from graphlens.children.messages import Block, Failure
from graphlens.collector import collector_paused
from graphlens.errors import ExecutionError, RewriteError, first_line
from graphlens.ir.edits import Edit
from graphlens.tf import private

if TYPE_CHECKING:
    from graphlens.tf.open.datasets import Elements

MOST_KEPT: Final = 6  # those for training and for validation, and a few more
NOT_FOUND: Final = "no dataset that the script iterates over from Python can be changed so"
USED_UP: Final = "its source gives its elements once, and the script has taken them"
NOT_AGAIN: Final = "its elements cannot be taken a second time: {0}"


class InputAlone:
    """The datasets that a script iterated over last, and iterators over them that are not its own."""

    def __init__(self) -> None:
        self._begun: list[Any] = []  # kept: often nothing but the loop holds one
        self._elements: dict[int, Elements] = {}  # by dataset; what was iterated over is kept, and so are those
        self._of: tuple[tuple[Edit, ...], Elements] | None = None

    def note(self, dataset: Any) -> None:
        """Note that the script begins to iterate over a dataset; what a function makes of one is none of its own."""
        if not private.is_eager_tensor(private.dataset_variant(dataset)):
            return
        others = [one for one in self._begun if one is not dataset]
        self._begun = [*others, dataset][-MOST_KEPT:]

    def answer(self, request: TakeElements) -> Block | Failure:
        """Take elements of the dataset that is meant; of one that gives them only once, say so."""
        from graphlens.tf.open.datasets import timed_block

        with private.eagerly(), collector_paused():
            try:
                elements = self._asked_for(request.edits)
                if elements is None:
                    return Failure(NOT_FOUND)
                elements.stood_still()
                return timed_block(elements, request.ms)
            except ExecutionError:
                return Failure(USED_UP)
            except Exception as error:  # whatever its source says to it
                return Failure(NOT_AGAIN.format(_said(error)))

    def _asked_for(self, edits: tuple[Edit, ...]) -> Elements | None:
        """Return the elements to take, warmed up where they are not those of the last block."""
        if self._of is None or self._of[0] != edits:
            from graphlens.tf.open.datasets import Elements

            dataset = next((one for one in reversed(self._begun) if _fits(one, edits)), None)
            if dataset is None:
                return None
            elements = self._elements.setdefault(id(dataset), Elements(dataset))
            elements.stood_still()
            elements.warm_up()
            self._of = edits, elements
        return self._of[1]


def _said(error: Exception) -> str:
    """Return what a source says in one line, without the node that it is called by.

    >>> _said(ValueError("{{function_node next}} ValueError: the socket is taken"))
    'ValueError: the socket is taken'
    """
    return first_line(ExecutionError(_NODES.sub("", str(error)).strip()))


_NODES: Final = re.compile(r"\{\{\w+ [^}]*\}\}")


def _fits(dataset: Any, edits: tuple[Edit, ...]) -> bool:
    """Whether a dataset can be changed so; each can be left as it is."""
    if not edits:
        return True
    from graphlens.tf.datasets import changing, serializing

    try:
        changing.changed(serializing.graph_of(dataset), edits)
    except (RewriteError, serializing.TooLargeError):
        return False
    return True
