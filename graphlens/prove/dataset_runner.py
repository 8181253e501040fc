"""Who times the elements of a dataset: a process for each variant, which stands still while another one is timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from graphlens.children.messages import (
    Block,
    Calls,
    ChangeDataset,
    Compare,
    Comparison,
    Done,
    Observe,
    Open,
    OpenedTarget,
    Pair,
    RecordRequest,
    Refusal,
    TimeBlock,
)
from graphlens.children.start import Child, ChildGone, start
from graphlens.prove.runner import (
    ORIGINAL,
    Applied,
    Edits,
    FailedError,
    GoneError,
    NotOpenedError,
    Opening,
    RefusedError,
    TrialError,
    told,
)

CHILD_MODULE: Final = "graphlens.tf.trial.datasets"
ANSWERS: Final = (OpenedTarget, Calls, Comparison, Block, Done, Refusal)
# Several elements of most pipelines; shorter ones drown in what it takes to wake a process and use up its buffers.
BLOCK_MS: Final = 200.0
DIFFERS: Final = "two runs of the dataset itself differ, from the same seeds"
_ANSWER_S: Final = 120.0  # beyond a block, for slow elements


class DatasetRunner:
    """The runner that measures how fast elements come (``prove.runner.Runner``).

    Parameters
    ----------
    request
        What the recording child was asked for.
    folder
        An empty folder for the children's logs and outputs.
    stages
        The stages of the dataset as edits name them, sources first.
    rtol
        What the user allows elements to be off by; ``None``: by their types.
    """

    def __init__(
        self, request: RecordRequest, folder: Path, stages: Sequence[str] = (), rtol: float | None = None
    ) -> None:
        self._request, self._folder, self._rtol = request, folder, rtol
        self._stages = tuple(stages)
        self._children: dict[str, Child] = {}
        self._started = 0
        self._unedited: set[str] = set()
        self._differs = False

    def open(self, time_limit_s: float) -> Opening:
        """Open the dataset as it is, and keep its first elements."""
        begun_s = time.monotonic()
        try:
            self._made(ORIGINAL, (), time_limit_s)
            self._ask(ORIGINAL, Observe(ORIGINAL, self._outputs), time_limit_s)
        except TrialError as error:
            self.close()
            raise NotOpenedError(str(error)) from error
        return Opening(start_s=time.monotonic() - begun_s, overlaps=True)

    def apply(self, variant: str, fixes: Sequence[Edits], time_limit_s: float) -> Applied:
        """Make ``variant`` in a process of its own."""
        if ORIGINAL not in self._children:
            self.open(time_limit_s)
        calls = self._made(variant, fixes, time_limit_s)
        (self._unedited.discard if any(fixes) else self._unedited.add)(variant)
        return Applied(calls.first_ns, calls.second_ns)

    def _made(self, variant: str, fixes: Sequence[Edits], time_limit_s: float) -> Calls:
        self.drop(variant)
        self._started += 1
        edits = tuple(edit for group in fixes for edit in group)
        with self._alone():
            self._children[variant] = start(self._folder / f"trial-{self._started}", CHILD_MODULE, answers=ANSWERS)
            try:
                self._ask(variant, Open(self._request), time_limit_s)
                calls: Calls = self._ask(variant, ChangeDataset(edits, self._stages), time_limit_s)
            except RefusedError:
                self.drop(variant)
                raise
        return calls

    def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        """Compare the first elements; nothing is told by those of a dataset that differ from run to run."""
        if self._differs:
            return Comparison((), 0, uncompared=DIFFERS)
        found: Comparison = self._ask(variant, Compare(variant, computes_in, self._outputs, self._rtol), time_limit_s)
        self._differs = variant in self._unedited and not all(one.agrees for one in found.differences)
        return Comparison((), 0, uncompared=DIFFERS) if self._differs else found

    def compare_unchanged(self, time_limit_s: float) -> tuple[Comparison, str]:
        """Nothing is found out about rounding."""
        raise FailedError(f"elements are compared as they come ({time_limit_s:.0f} s were left)")

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        """Let the two give elements in turns."""
        end_s = time.monotonic() + time_limit_s
        timed: list[Pair] = []
        while len(timed) < pairs and time.monotonic() < end_s:
            timed.append(self._pair(before, after, block_ms, swapped=len(timed) % 2 == 1))
        return timed

    def _pair(self, before: str, after: str, block_ms: float, *, swapped: bool) -> Pair:
        names = (after, before) if swapped else (before, after)
        found = {name: self._block(name, block_ms) for name in names}
        first, second = found[before], found[after]
        return Pair(first.wall_ns, second.wall_ns, first.cpu_ns, second.cpu_ns)

    def _block(self, variant: str, block_ms: float) -> Block:
        with self._alone(variant):
            block: Block = self._ask(variant, TimeBlock(variant, block_ms), block_ms / 1e3 + _ANSWER_S)
        return block

    @contextmanager
    def _alone(self, variant: str = "") -> Iterator[None]:
        """Have all other variants stand still."""
        with ExitStack() as others:
            for name, child in self._children.items():
                if name != variant:
                    others.enter_context(child.standing_still())
            yield

    def drop(self, variant: str) -> None:
        """End the process of a variant."""
        child = self._children.pop(variant, None)
        if child is not None:
            child.cancel()

    def close(self) -> None:
        """End all of them."""
        for variant in list(self._children):
            self.drop(variant)

    @property
    def _outputs(self) -> str:
        return str(self._folder / "elements.npz")

    def _ask(self, variant: str, request: Any, time_limit_s: float) -> Any:
        child = self._children.get(variant)
        if child is None:
            raise GoneError("its process is gone")
        try:
            return told(child.ask(request, time_limit_s))
        except ChildGone as error:
            self.drop(variant)
            raise GoneError(str(error)) from error
