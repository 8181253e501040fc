"""The trial process of a dataset: it holds one variant of it, and takes elements as it is told.

Requests are those of ``graphlens.tf.trial.child``.  Each variant has a process of its own, which its parent has stand
still while another one is timed: the threads of a pipeline go on making elements when nobody takes them.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from graphlens.children.messages import (
    Block,
    Calls,
    ChangeDataset,
    Compare,
    Comparison,
    Difference,
    Done,
    Observe,
    Open,
    OpenedTarget,
    RecordRequest,
    TimeBlock,
)
from graphlens.collector import collector_paused
from graphlens.errors import ExecutionError, RewriteError
from graphlens.ir.edits import AddCache, Edit
from graphlens.tf.trial.serving import Refused, serve

SEED: Final = 0
# What is compared: enough to see an order that changes and a batch that is not full, and no more than fits in memory.
MOST_COMPARED: Final = 64  # elements
COMPARED_S: Final = 4.0
MOST_COMPARED_BYTES: Final = 1 << 27
END: Final[Mapping[str, Any]] = {}  # in the place of the element after the last one
FILLING_S: Final = 60.0
MOST_KEPT_BYTES: Final = 4 << 30

CACHE_TOO_LARGE: Final = "what it keeps is more than {0} GiB, and the cache is not full yet"
CACHE_NOT_FULL: Final = "the first epoch, which fills the cache, took longer than {0:.0f} s"


@dataclass
class Session:
    """The dataset as it was opened, and the variant of it that elements are taken from."""

    original: Any = None
    dataset: Any = None
    elements: Any = None
    fills: bool = False  # a cache, in its first epoch
    warm: bool = False


def main(_arguments: list[str]) -> int:
    """Serve requests until there are no more."""
    return serve(COMMANDS, Session())


def open_target(session: Session, request: RecordRequest, threads: Mapping[str, int]) -> OpenedTarget:
    """Open the dataset; whatever it draws at random is the same in each process."""
    from graphlens.tf import private
    from graphlens.tf.record import child, environment

    environment.set_threads(threads)
    seed()
    session.original = child.open_requested(request).owner
    return OpenedTarget(False, private.onednn_enabled(), environment.threads())


def seed() -> None:
    """Have everything random begin alike in every trial, unless the program has it begin otherwise itself."""
    import numpy as np
    import tensorflow as tf

    random.seed(SEED)
    np.random.seed(SEED)
    tf.random.set_seed(SEED)


def change(session: Session, edits: Sequence[Edit], stages: Sequence[str]) -> Calls:
    """Make the variant of the dataset: a copy of its graph with edits applied; take two elements of it."""
    from graphlens.tf.datasets import changing, serializing
    from graphlens.tf.open.datasets import Elements

    try:
        graph = changing.changed(serializing.graph_of(session.original), edits, stages)
    except (RewriteError, serializing.TooLargeError) as error:
        raise Refused(str(error)) from error
    copied = serializing.dataset_of(graph, session.original.element_spec)
    session.dataset = changing.with_options(copied, edits)
    session.fills = any(isinstance(edit, AddCache) for edit in edits)
    session.elements, session.warm = Elements(session.dataset), False
    first_ns, second_ns = (_timed(session.elements.next) for _ in range(2))
    return Calls(first_ns, second_ns)


# -- compare --------------------------------------------------------------------------------------------------------


def observe(session: Session, variant: str, file: str, values: str | None = None) -> Done:  # noqa: ARG001
    """Write the first elements, for the process that compares them; a dataset that ends among them ends with none."""
    from graphlens.tf import exchange

    exchange.write(Path(file), [(_place(number), one) for number, one in enumerate(_observed(session.dataset))])
    return Done()


def compare(
    session: Session, variant: str, computes_in: str | None, outputs: str | None = None, rtol: float | None = None
) -> Comparison:
    """Compare the first elements with those in the file ``outputs``, which another process wrote."""
    from graphlens.tf import comparison, exchange

    assert outputs is not None, variant
    before, allowed = exchange.read(Path(outputs)), comparison.Allowed(computes_in, rtol)
    after = _first(session.dataset, len(before))
    found: list[Difference] = []
    elements = 0
    for number in range(len(before)):
        expected, tensors = exchange.outputs_on(_place(number), before), next(after, END)
        differences = comparison.compare(expected, tensors, allowed)
        found += differences if bool(expected) == bool(tensors) else _of_length(differences, number, bool(tensors))
        elements += bool(expected)
    return Comparison(comparison.worst(found), elements)


def _of_length(differences: Sequence[Difference], elements: int, is_longer: bool) -> list[Difference]:
    """Return what differs where one of two datasets has an element and the other one is over."""
    shorter = "the original" if is_longer else "it"
    return [replace(one, mismatch=f"{shorter} ends after {elements} elements") for one in differences]


def _place(number: int) -> tuple[Any, ...]:
    """Return what an element is known by in a file of outputs."""
    import tensorflow as tf

    return (tf.constant(number),)


def _observed(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the first elements, as many as are to be compared, and where the dataset ends among them its end."""
    end_s, nbytes = time.monotonic() + COMPARED_S, 0
    for count, element in enumerate(_first(dataset, MOST_COMPARED), start=1):
        yield element
        nbytes += sum(tensor.shape.num_elements() * max(1, tensor.dtype.size) for tensor in element.values())
        if count == MOST_COMPARED or time.monotonic() > end_s or nbytes > MOST_COMPARED_BYTES:
            return
    yield END


def _first(dataset: Any, count: int) -> Iterator[Mapping[str, Any]]:
    """Yield the tensors of the first elements by their names."""
    import tensorflow as tf

    from graphlens.tf import private

    names = private.paths_in(dataset.element_spec)
    for element in dataset.take(count):
        yield dict(zip(names, tf.nest.flatten(element, expand_composites=True), strict=True))


# -- time -----------------------------------------------------------------------------------------------------------


def time_block(session: Session, variant: str, block_ms: float) -> Block:  # noqa: ARG001
    """Take elements for a while, as fast as they come, and say what one takes."""
    from graphlens.tf.open.datasets import timed_block

    with collector_paused():
        session.elements.stood_still()
        _warm_up(session)
        return timed_block(session.elements, block_ms)


def _warm_up(session: Session) -> None:
    if session.warm:
        return
    if session.fills:
        _fill(session.dataset)
    session.elements.warm_up()
    session.warm = True


def _fill(dataset: Any) -> None:
    """Take all elements of one epoch: those of the next come out of the cache.

    Raises
    ------
    ExecutionError
        If that takes too long, or holds too much.
    """
    end_s, before = time.monotonic() + FILLING_S, _resident_bytes()
    for _ in dataset:
        if time.monotonic() > end_s:
            raise ExecutionError(CACHE_NOT_FULL.format(FILLING_S))
        if _resident_bytes() - before > MOST_KEPT_BYTES:
            raise ExecutionError(CACHE_TOO_LARGE.format(MOST_KEPT_BYTES >> 30))


def _resident_bytes() -> int:
    """Return how much memory this process has; 0 where the system does not say so."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096


def _timed(work: Callable[[], Any]) -> int:
    begun_ns = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - begun_ns


COMMANDS: Final[Mapping[type[Any], Callable[..., Any]]] = {
    Open: open_target,
    ChangeDataset: change,
    Compare: compare,
    Observe: observe,
    TimeBlock: time_block,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
