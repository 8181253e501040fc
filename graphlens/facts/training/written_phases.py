"""The phase of every op of a training step as written, by what it is made of and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final

from graphlens.facts.training.gradients import gradient_name, gradient_ops
from graphlens.facts.training.scoping import outer_scope
from graphlens.facts.training.walking import Walk
from graphlens.ir.ops import (
    CONDITIONALS,
    CONSTANTS,
    LOOPS,
    PASSES,
    REDUCTIONS,
    REFERENCE_VARIABLES,
    RETURNS,
    VARIABLE_HANDLES,
    family,
)
from graphlens.ir.ops import SUMS as ADDITIONS
from graphlens.ir.table import Table
from graphlens.ir.training import PHASES, Phase

_RANK: Final[Mapping[Phase, int]] = {phase: rank for rank, phase in enumerate(PHASES)}
# Between the last op that a gradient reads and the loss stand ops like these: their gradients need no value of them.
_ENDS: Final = REDUCTIONS | PASSES | ADDITIONS | {"AddN"}
_DECIDED: Final = CONDITIONALS | LOOPS
_BODIES: Final = ("then/", "else/", "branch_", "body/", "cond/")


def phases_of(walk: Walk, trainable: Collection[int], is_of_layer: Callable[[int], bool]) -> list[Phase | None]:
    """Return the phase of each op; all ``None`` for a graph without gradients that writes nothing.

    Parameters
    ----------
    trainable
        Where the handles of variables come from that are declared to be trained; others are told by what is done.
    is_of_layer
        Whether an op is known to belong to a layer.
    """
    return _Step(walk, frozenset(trainable), is_of_layer).phases()


@dataclass(frozen=True, eq=False)
class _Step:
    """One training step; what its ops are to each other is found out once."""

    plain: Walk
    declared: frozenset[int]
    is_of_layer: Callable[[int], bool]

    @property
    def graph(self) -> Table:
        return self.plain.graph

    # -- sets of ops ----------------------------------------------------------------------------------------------

    @cached_property
    def backward(self) -> frozenset[int]:
        return gradient_ops(self.plain)

    @cached_property
    def walk(self) -> Walk:
        """The edges, and what goes through variables that only the optimizer and metrics keep something in.

        The weights are none of these: in a step of several, all that is read after an update would be made of it.
        """
        return self.plain.carried_by([one for one in self.plain.writes if not self._is_read_before_gradients(one)])

    def _is_read_before_gradients(self, variable: int) -> bool:
        return any(self.before_gradients[read] for read in self._reads(variable))

    @cached_property
    def after_gradients(self) -> bytearray:
        return self.walk.descendants(self.backward)

    @cached_property
    def before_gradients(self) -> bytearray:
        return self.plain.ancestors(self.backward)

    @cached_property
    def of_data(self) -> bytearray:
        """What changes from step to step with what the program is fed, and draws: nothing made of variables alone."""
        handles = self.walk.reads.keys() | self.walk.writes.keys()
        still = CONSTANTS | VARIABLE_HANDLES | REFERENCE_VARIABLES
        bodies, before = self.graph.bodies, self.walk.before
        fed = (at for at in range(len(bodies)) if not before[at] and at not in handles and bodies[at].type not in still)
        return self.walk.descendants(chain(fed, self._draws()))

    def _draws(self) -> Iterator[int]:
        """Yield what draws numbers: the shape of the noise that a generator is fed may be a constant."""
        for kind, positions in self.graph.by_type.items():
            if family(kind) == "random":
                yield from positions

    @cached_property
    def trained(self) -> frozenset[int]:
        """The variables that are trained: what gradients are written into, and the gradients were made of."""
        written = {variable for write, variable in self.walk.written.items() if self.after_gradients[write]}
        inferred = set(filter(self._is_read_before_gradients, written))
        return (self.declared & self.walk.reads.keys()) | inferred

    def _reads(self, variable: int) -> Sequence[int]:
        return self.plain.reads.get(variable, ())

    @cached_property
    def gradient_writes(self) -> frozenset[int]:
        """The ops that write what is made of gradients, or that are run or not as gradients decide."""
        decided = [
            f"{self.graph.names[at]}/"
            for at in self.graph.positions_of(CONDITIONALS)
            if any(self.after_gradients[source] for source in self._decides(at))
        ]
        return frozenset(
            at
            for at in self.walk.written
            if self.after_gradients[at] or any(self.graph.names[at].startswith(scope) for scope in decided)
        )

    def _decides(self, conditional: int) -> Iterable[int]:
        return (source for source, edge in self.graph.inputs_at(conditional) if edge.dst_port == 0)

    # -- what variables are for -----------------------------------------------------------------------------------

    @cached_property
    def optimizer_writes(self) -> frozenset[int]:
        """Writes of the optimizer: of trained variables, of what these are made of next time, and of their averages."""
        trained = [at for at in self.gradient_writes if self.walk.written[at] in self.trained]
        leads = self.walk.ancestors(trained)
        found = set(trained)
        pending = [at for at in self.walk.written if at not in found]
        while True:
            more = [at for at in pending if self._serves(at, leads)]
            if not more:
                return frozenset(found | {at for at in pending if self._is_average(at)})
            found.update(more)
            pending = [at for at in pending if at not in found]
            leads = self.walk.ancestors(found)

    def _serves(self, write: int, leads: bytearray) -> bool:
        variable = self.walk.written[write]
        reads = self._reads(variable)
        if self._decided_by_gradients(write):
            return True  # as the factor that losses are scaled by, which goes into gradients as well
        if self._is_read_before_gradients(variable):  # else a layer's own, as the seed of a dropout
            return variable in self.trained and self._is_made_of_variables(write)
        if write in self.gradient_writes:
            return not reads or any(leads[read] for read in reads)
        return bool(reads) and any(leads[read] for read in reads) and not self.of_data[write]

    def _decided_by_gradients(self, write: int) -> bool:
        return write in self.gradient_writes and not self.after_gradients[write]

    def _is_made_of_variables(self, write: int) -> bool:
        """Whether what is written was kept in a variable: weights that are set to their averages, say."""
        return not self.of_data[write] and any(self._of_variables[source] for source in self.walk.before[write][1:])

    @cached_property
    def _of_variables(self) -> bytearray:
        return self.walk.descendants(read for reads in self.walk.reads.values() for read in reads)

    @cached_property
    def _of_trained(self) -> bytearray:
        return self.walk.descendants(read for variable in self.trained for read in self._reads(variable))

    def _is_average(self, write: int) -> bool:
        """Whether nothing but variables that are trained goes into a variable: an average of weights, a limit."""
        if self.of_data[write] or not self.backward:
            return False
        return any(self._of_trained[source] for source in self.walk.before[write][1:])

    # -- the phases -----------------------------------------------------------------------------------------------

    def phases(self) -> list[Phase | None]:
        found: list[Phase | None] = [None] * len(self.graph)
        if not self.backward and not self.walk.written:
            return found
        for position, phase in self._told():
            if found[position] is None:
                found[position] = phase
        self._handed_back(found)
        self._composite(found)
        return [phase or "other" for phase in found]

    def _told(self) -> Iterator[tuple[int, Phase]]:
        """Yield phases of ops, those that count first."""
        yield from self._by_type()
        yield from ((at, "backward") for at in sorted(self.backward))
        yield from self._of_loss()
        yield from self._of_optimizer()
        yield from self._of_state()

    def _by_type(self) -> Iterator[tuple[int, Phase]]:
        for kind, positions in self.graph.by_type.items():
            told: Phase | None = _PHASE_OF_FAMILY.get(family(kind))
            if told is not None:
                yield from ((at, told) for at in positions)

    def _of_loss(self) -> Iterator[tuple[int, Phase]]:
        made = self.walk.ancestors(self._differentiated())
        for at in range(len(self.graph)):
            if made[at] and self.of_data[at]:
                yield at, "forward" if self.is_of_model(at) else "loss"

    def _differentiated(self) -> Iterator[int]:
        """Yield ops of which the loss is made: what gradients read, what they are called after, and what ends in it."""
        names = self.graph.names
        told = [name for at in self.backward if (name := gradient_name(names[at])) is not None]
        called = {name.forward for name in told if name.scope}
        ends = None if any(not name.scope for name in told) else _ENDS  # a loss in no scope may end in anything
        first = min(self.backward, default=0)
        read = {at for at in range(len(names)) if self.before_gradients[at] and at not in self.backward}
        for at in range(len(names)):
            if at in read:
                yield at
            elif self.after_gradients[at] or not self.of_data[at] or at in self.walk.written:
                continue
            elif names[at] in called or (at < first and self._ends_in_loss(at, read, ends)):
                read.add(at)
                yield at

    def _ends_in_loss(self, at: int, read: Collection[int], ends: Collection[str] | None) -> bool:
        """Whether an op that was written before any gradient goes on with what gradients read."""
        sources, kind = self.walk.before[at], self.graph.bodies[at].type
        if not sources or (ends is not None and kind not in ends) or kind in RETURNS:
            return False
        return all(one in read or not self.of_data[one] for one in sources)

    def is_of_model(self, at: int) -> bool:
        """Whether an op is of the model rather than of the loss or a metric: a layer's, or weights go in after it."""
        return bool(self._before_weights[at]) or self.is_of_layer(at) or self._scope(at) in self._scopes_of_model

    def _scope(self, at: int) -> str:
        return outer_scope(self.graph.names[at])

    @cached_property
    def _scopes_of_model(self) -> frozenset[str]:
        return frozenset(map(self._scope, self._weighted)) - {""}

    @cached_property
    def _before_weights(self) -> bytearray:
        return self.walk.ancestors(self._weighted)

    @cached_property
    def _weighted(self) -> Sequence[int]:
        """Ops in which data meets a trained variable, before any gradient."""
        weights = self._weights()
        return [
            at
            for at in range(len(self.graph))
            if self.of_data[at]
            and not self.after_gradients[at]
            and any(weights[source] for source in self.walk.before[at])
        ]

    def _weights(self) -> bytearray:
        """Mark trained variables as they are read, cast and reshaped; a norm of them is no weight but a penalty."""
        graph, found = self.graph, bytearray(len(self.graph))
        pending = [read for variable in self.trained for read in self._reads(variable)]
        while pending:
            at = pending.pop()
            op = graph.bodies[at]
            if found[at] or (self.of_data[at] and op.type not in _GATHERS) or op.type in REDUCTIONS:
                continue
            found[at] = 1
            pending += self.walk.after[at]
        return found

    def _of_optimizer(self) -> Iterator[tuple[int, Phase]]:
        deciders = [at for at in self.graph.positions_of(_DECIDED) if self._holds(at, self.optimizer_writes)]
        leads = self.walk.ancestors([*self.optimizer_writes, *self._predicates(deciders)])
        yield from ((at, "optimizer") for at in sorted(self.optimizer_writes))
        for at in range(len(self.graph)):
            if leads[at] and self.after_gradients[at]:
                yield at, "optimizer"

    def _predicates(self, deciders: Iterable[int]) -> Iterator[int]:
        for at in deciders:
            if self.graph.bodies[at].type in CONDITIONALS:
                yield from self._decides(at)

    def _holds(self, at: int, ops: Iterable[int]) -> bool:
        scope = f"{self.graph.names[at]}/"
        return any(self.graph.names[one].startswith(scope) for one in ops)

    def _of_state(self) -> Iterator[tuple[int, Phase]]:
        """Yield ops that lead to what a layer keeps for itself, and to metrics, whose results are read from these."""
        others = [at for at in self.walk.written if at not in self.optimizer_writes]
        kept = [at for at in others if self._is_kept(at)]
        metrics = [at for at in others if at not in set(kept)]
        yield from ((at, "forward") for at in kept)
        yield from ((at, "metrics") for at in metrics)
        yield from self._made_for(self.walk.ancestors(kept), "forward")
        yield from self._made_for(self.walk.ancestors(metrics), "metrics")
        results = {read for write in metrics for read in self._reads(self.walk.written[write])}
        shown = self.walk.descendants(results)
        yield from ((at, "metrics") for at in range(len(shown)) if shown[at])
        for at in range(len(self.graph)):
            if self.of_data[at] and not self.after_gradients[at] and self.is_of_model(at):
                yield at, "forward"

    def _made_for(self, marked: bytearray, phase: Phase) -> Iterator[tuple[int, Phase]]:
        for at in range(len(marked)):
            if marked[at] and self.of_data[at]:
                yield at, "forward" if self.is_of_model(at) else phase

    def _is_kept(self, write: int) -> bool:
        read_before = self._is_read_before_gradients(self.walk.written[write])
        return read_before or self.is_of_layer(write) or self._scope(write) in self._scopes_of_model

    def _handed_back(self, found: list[Phase | None]) -> None:
        """Give ops that serve others, as constants do, the phase of those: the first, where they are of several."""
        for at in reversed(self.graph.order):
            if found[at] is None:
                phases = [phase for reader in self.walk.after[at] if (phase := found[reader]) not in (None, "other")]
                found[at] = min(phases, key=_rank, default=None)

    def _composite(self, found: list[Phase | None]) -> None:
        """Give what stands for bodies their phase, where it is the same for all that is in them."""
        places = {self.graph.names[at]: at for at in self.graph.positions_of(_DECIDED)}
        held: dict[int, set[Phase | None]] = {at: set() for at in places.values()}
        for at, name in enumerate(self.graph.names if places else ()):
            if at not in held:
                for place in _holders(name):
                    if place in places:
                        held[places[place]].add(found[at])
        for at, phases in held.items():
            phases -= {None, "other"}
            found[at] = phases.pop() if len(phases) == 1 else "other" if phases else found[at]


_PHASE_OF_FAMILY: Final[Mapping[str, Phase]] = {"input": "input", "collective": "communication"}
_GATHERS: Final = frozenset({"ResourceGather", "ResourceGatherNd", "GatherV2", "Gather", "GatherNd"})


def _rank(phase: Phase) -> int:
    return _RANK[phase]


def _holders(name: str) -> Iterator[str]:
    """Yield the names of the conditionals and loops that an op may stand in."""
    for part in range(1, len(name)):
        if name[part - 1] == "/" and name.startswith(_BODIES, part):
            yield name[: part - 1]
