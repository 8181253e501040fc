"""The parent's side of Grappler beside a GPU: send placed graphs to a child that has TensorFlow, get back what remains.

Standard library only: the parent never imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from graphlens.children.messages import Failure, PlacedGraph
from graphlens.children.start import Child, ChildGone, start
from graphlens.errors import ExecutionError

_MODULE: Final = "graphlens.tf.probe.placement_child"
# Of which TensorFlow's import takes about ten; Grappler took 8 s for 11,000 ops.
TIME_LIMIT_S: Final = 120.0
# The child needs no device, and looking for one costs seconds.
_ENVIRONMENT: Final[Mapping[str, str]] = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True, slots=True)
class Change:
    """What is changed about a graph before Grappler sees it.

    ``shapes`` gives arguments a shape, ``cut`` names ops that become arguments, ``pin_to_host`` lets Grappler move
    small integer ops to the host.
    """

    shapes: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    cut: Sequence[str] = ()
    pin_to_host: bool = False


NO_CHANGE: Final = Change()


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A child that runs Grappler on one graph, placed in several ways."""

    child: Child
    graph: Path
    numbers: Iterator[int] = field(default_factory=count)

    def optimized(self, devices: Mapping[str, str], architecture: str, change: Change = NO_CHANGE) -> bytes:
        """Return the graph, serialized and without weights, as Grappler leaves it.

        Parameters
        ----------
        devices
            Op -> ``GPU`` or ``CPU``.

        Raises
        ------
        ExecutionError
            When TensorFlow cannot do it, or is gone.
        """
        result = self.child.directory / f"optimized_{next(self.numbers)}.pb"
        request = PlacedGraph(
            graph=str(self.graph),
            result=str(result),
            devices=devices,
            architecture=architecture,
            shapes={name: tuple(shape) for name, shape in change.shapes.items()},
            cut=tuple(change.cut),
            pin_to_host=change.pin_to_host,
        )
        try:
            answer = self.child.ask(request, TIME_LIMIT_S)
        except ChildGone as error:
            raise ExecutionError(f"Grappler gave no answer: {error}") from error
        if isinstance(answer, Failure):
            raise ExecutionError(answer.why)
        return result.read_bytes()


@contextmanager
def optimizer(graph: bytes, folder: Path) -> Iterator[Optimizer]:
    """Yield a child that answers for ``graph`` (a serialized GraphDef), which it finds in ``folder``."""
    child = start(folder, _MODULE, _ENVIRONMENT)
    try:
        file = child.directory / "graph.pb"
        file.write_bytes(graph)
        yield Optimizer(child, file)
    finally:
        child.cancel()
