"""What a graph does with the handles of variables: which of these may be written, for all we know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphlens.ir.ops import CONDITIONALS, HANDLE_READS, HANDS_ON_HANDLES, LOOPS, PLAIN_CALLS
from graphlens.loaders.functions import called
from graphlens.tf.rewrite import nodes

# Ops that call functions -> which input is the functions' first argument.
_FIRST_ARGUMENT: Mapping[str, int] = {
    **dict.fromkeys(PLAIN_CALLS | LOOPS, 0),
    **dict.fromkeys(CONDITIONALS, 1),
}

Uses = Mapping[str, Sequence[tuple[Any, int]]]  # node -> who reads it, and at which input


def written(graph_nodes: Iterable[Any], library: Iterable[Any], handles: Iterable[str]) -> frozenset[str]:
    """Return those of ``handles``, which stand for variables, with which something else is done than reading.

    The judge decides the same of the graph that it sees (``facts.flat.constants``): who names one as never written must
    not meet an edit that says it may be.
    """
    reads = _Library({function.signature.name: function for function in library})
    uses = _uses(graph_nodes)
    return frozenset(name for name in handles if not reads.is_only_read(name, uses))


def _uses(graph_nodes: Iterable[Any]) -> Uses:
    found: dict[str, list[tuple[Any, int]]] = defaultdict(list)
    for node in graph_nodes:
        for index, ref in enumerate(nodes.data_inputs(node)):
            found[nodes.source(ref)].append((node, index))
    return found


class _Library:
    """Functions, and what is known of their arguments; a function that calls itself does what the rest of it does."""

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._functions = functions
        self._known: dict[tuple[str, int], bool] = {}
        self._uses: dict[str, Uses] = {}

    def is_only_read(self, name: str, uses: Uses) -> bool:
        """Whether nothing but reads of it is done with the handle that a node gives, in one body and what it calls."""
        pending, seen = [name], {name}
        while pending:
            for node, index in uses.get(pending.pop(), ()):
                if node.op in HANDS_ON_HANDLES and node.name not in seen:
                    seen.add(node.name)
                    pending.append(node.name)
                elif node.op not in HANDS_ON_HANDLES | HANDLE_READS and not self._only_reads(node, index):
                    return False
        return True

    def _only_reads(self, call: Any, index: int) -> bool:
        functions = list(called(call)) if call.op in _FIRST_ARGUMENT else []
        argument = index - _FIRST_ARGUMENT.get(call.op, 0)
        return bool(functions) and all(self._reads_argument(name, argument) for name in functions)

    def _reads_argument(self, name: str, argument: int) -> bool:
        function = self._functions.get(name)
        if function is None or not 0 <= argument < len(function.signature.input_arg):
            return False
        if (name, argument) not in self._known:
            self._known[name, argument] = True
            if name not in self._uses:
                self._uses[name] = _uses(function.node_def)
            handle = function.signature.input_arg[argument].name
            self._known[name, argument] = self.is_only_read(handle, self._uses[name])
        return self._known[name, argument]
