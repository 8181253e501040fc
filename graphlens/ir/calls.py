"""Which calls vanish when the functions of a graph are inlined, and how many ops that gives: by arithmetic alone.

A library of 30 functions, each of which calls the next one twice, is a file of 20 kB and a flat graph of a billion ops;
one whose function calls itself denotes no finite graph at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.errors import TargetError
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import ARGUMENT, RETURN, Op
from graphlens.ir.ops import DATASET_LOOPS, PLAIN_CALLS
from graphlens.ir.table import OPS_LIMIT

FLAT_OPS_LIMIT: Final = OPS_LIMIT
FLAT_CALLS_LIMIT: Final = 100_000  # the models at hand enter some hundreds
DEPTH_LIMIT: Final = 100  # of calls within calls; programs that people write stay below 20

# Call sites that disappear when inlined; conditionals and loops stay as nodes beside their inlined bodies.
_PLAIN_CALLS: Final = PLAIN_CALLS | {"RemoteCall"}
_BODY_ROLES: Final = re.compile(r"^(then|else|cond|body|branch_\d+)$")

Callees = Sequence[tuple[str, Function]]


@dataclass(frozen=True, slots=True)
class FlatSize:
    """What a graph becomes when its functions are inlined.

    Attributes
    ----------
    ops, calls
        The ops of the flat graph, and how many calls are entered.
    is_cut
        Whether calls nest deeper than ``DEPTH_LIMIT``: those below stay ops.
    """

    ops: int
    calls: int
    is_cut: bool


def never(_: Op) -> bool:
    """Keep no call opaque."""
    return False


class Calls:
    """The calls of a graph that are entered, and the ones that are not because a function would contain itself.

    Parameters
    ----------
    opaque
        Calls for which this is true are not entered.
    in_datasets
        Whether the functions of the loops over datasets that tf.data runs are entered.
    """

    def __init__(self, graph: Graph, opaque: Callable[[Op], bool] = never, in_datasets: bool = False) -> None:
        # The main graph has no name: an op whose type or callee is empty, in a damaged file, does not call it.
        self._library = {name: function for name, function in graph.functions.items() if name}
        self._root = graph.main
        self._opaque = opaque
        self._in_datasets = in_datasets
        self._named: dict[str, Mapping[int, Callees]] = {}
        self._entered: dict[str, Mapping[int, Callees]] = {}
        self.recursive = self._closing()

    def of(self, function: Function) -> Mapping[int, Callees]:
        """Return position -> the functions that the op there calls and that are inlined, with their roles.

        A call that leads back to a function that it stands in is not among them: it stays an op.
        """
        found = self._entered.get(function.name)
        if found is None:
            found = self._entered[function.name] = dict(self._entered_in(function))
        return found

    def _entered_in(self, function: Function) -> Iterator[tuple[int, Callees]]:
        for position, called in self._called_in(function).items():
            if not any((function.name, callee.name) in self.recursive for _, callee in called):
                yield position, called

    def _called_in(self, function: Function) -> Mapping[int, Callees]:
        found = self._named.get(function.name)
        if found is None:
            found = self._named[function.name] = self._look(function)
        return found

    def _look(self, function: Function) -> Mapping[int, Callees]:
        table = function.graph
        if not any(op.calls or op.type in self._library for op in table.kinds):
            return {}
        calls = ((position, self._called(op)) for position, op in enumerate(table.ops()))
        return {position: called for position, called in calls if called}

    def _called(self, op: Op) -> Callees:
        if not op.calls and op.type not in self._library:
            return ()
        if self._opaque(op):
            return ()
        if op.type in self._library:  # a TF1 call: the function's name is the op's type
            return [("call", self._library[op.type])]
        return [
            (call.role, self._library[call.function])
            for call in op.calls
            if call.function in self._library
            and (
                (call.role == "call" and op.type in _PLAIN_CALLS)
                or _BODY_ROLES.match(call.role)
                or (self._in_datasets and op.type in DATASET_LOOPS)
            )
        ]

    def _closing(self) -> frozenset[tuple[str, str]]:
        """Pairs of caller and callee where the callee is already being entered, on a walk from the root."""
        done: set[str] = set()
        on_path = {self._root.name}
        closing: set[tuple[str, str]] = set()
        stack = [(self._root, self._callees(self._root))]
        while stack:
            function, callees = stack[-1]
            callee = next(callees, None)
            if callee is None:
                stack.pop()
                on_path.discard(function.name)
                done.add(function.name)
            elif callee.name in on_path:
                closing.add((function.name, callee.name))
            elif callee.name not in done:
                on_path.add(callee.name)
                stack.append((callee, self._callees(callee)))
        return frozenset(closing)

    def _callees(self, function: Function) -> Iterator[Function]:
        listed = {callee.name: callee for called in self._called_in(function).values() for _, callee in called}
        return iter(listed.values())

    def notes(self) -> list[str]:
        """Return in words which calls stay ops although the functions that they call are known."""
        cut = f"calls nest deeper than {DEPTH_LIMIT} functions: those below that stay ops"
        closing = [_in_words(caller, callee) for caller, callee in sorted(self.recursive)]
        return [cut, *closing] if self.flat_size().is_cut else closing

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def flat_size(self) -> FlatSize:
        """Return what inlining gives, without doing it: level by level, how often each function is entered."""
        ops = len(self._root.graph) - self._plain_calls(self._root)
        calls = 0
        level: Counter[str] = Counter({self._root.name: 1})
        functions = {self._root.name: self._root, **self._library}
        for _ in range(DEPTH_LIMIT):
            below: Counter[str] = Counter()
            for name, times in level.items():
                for called in self.of(functions[name]).values():
                    for _, callee in called:
                        below[callee.name] += times
            calls += sum(below.values())
            ops += sum(times * self._own_ops(functions[name]) for name, times in below.items())
            level = below
        kept = sum(times * self._plain_calls(functions[name]) for name, times in level.items())
        return FlatSize(ops + kept, calls, is_cut=any(self.of(functions[name]) for name in level))

    def refuse_huge(self) -> None:
        """Refuse what would be too large once it is inlined, before anything is.

        Raises
        ------
        TargetError
            When the flat graph would hold more than ``FLAT_OPS_LIMIT`` ops or ``FLAT_CALLS_LIMIT`` calls.
        """
        size = self.flat_size()
        if size.ops > FLAT_OPS_LIMIT or size.calls > FLAT_CALLS_LIMIT:
            raise TargetError(
                f"the graph denotes more than {FLAT_OPS_LIMIT:,} ops or {FLAT_CALLS_LIMIT:,} calls once its functions "
                "are inlined; analyze a smaller signature"
            )

    def _own_ops(self, function: Function) -> int:
        joints = len(function.graph.positions_of({ARGUMENT, RETURN}))
        return len(function.graph) - joints - self._plain_calls(function)

    def _plain_calls(self, function: Function) -> int:
        return sum(any(role == "call" for role, _ in called) for called in self.of(function).values())


def _in_words(caller: str, callee: str) -> str:
    way = "" if caller == callee else f", by way of '{caller}'"
    return f"function '{callee}' calls itself{way}: that call stays an op, and what it does again is in no figure"
