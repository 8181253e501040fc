"""How much memory the tensors of a step need at once: their lives over the order in which the ops ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from statistics import median
from typing import Final

from graphlens.facts.clock.steps import steps_of
from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.executed import HLO_MODULE
from graphlens.facts.graphs import executed_graph, judged_graph, op_order
from graphlens.facts.programs.judged_program import judged_profile
from graphlens.ir.devices import LANE_BINS, LiveTensor, Memory, short_device
from graphlens.ir.nodes import Op, Tensor, TensorSpec
from graphlens.ir.ops import (
    BINARY,
    CONSTANTS,
    FED,
    MERGES,
    RECEIVES,
    REFERENCE_VARIABLES,
    RETURNS,
    UNARY,
    VIEWS,
    WHOLE_READS,
    runtime_type,
)
from graphlens.ir.run import Profile
from graphlens.ir.table import Table

HOST: Final = "CPU"  # one memory for all logical processors of a machine
LISTED_TENSORS: Final = 40  # of those alive at the peak, the largest
# Of the ops that make tensors in a memory; with more, what is left out may well be larger than what is counted: ops of
# open sizes are the large ones (they follow the batch), those of known sizes are scalars and shapes.
MOST_UNKNOWN: Final = 0.25
# Of the peak: what tensors of open sizes weigh at one row, one element along each open dimension. Batches are of tens
# to hundreds of rows, so that with more at one row what is left out may be as large as all that is counted.
MOST_OPEN: Final = 0.01

_PAIRED_VIEWS: Final = frozenset({"IdentityN"})  # every output is the input of the same number
# Weights are no tensors of the step: they are there before it and after it, and are counted apart.
_WEIGHTS: Final = CONSTANTS | WHOLE_READS | REFERENCE_VARIABLES
_HANDLES: Final = frozenset({"resource"})

# Kernels of these ask for their output in place of an input of the same type and size that nobody else reads
# (TensorFlow's `forward_input_or_allocate_output`; the elementwise ones in `UnaryOp`, `BinaryOp` and `numeric_op.h`).
_IN_PLACE: Final = (
    UNARY
    | BINARY
    | frozenset(
        """AddN Atan2 BiasAdd BitwiseAnd BitwiseOr BitwiseXor EluGrad FloorDiv FloorMod InvGrad LeakyReluGrad
        LogSoftmax LogicalAnd LogicalOr Mod MulNoNan ReciprocalGrad Relu6Grad ReluGrad RsqrtGrad SeluGrad SigmoidGrad
        Softmax SoftplusGrad SoftsignGrad SqrtGrad TanhGrad TruncateDiv TruncateMod Xdivy Xlog1py Xlogy""".split()
    )
)


@dataclass(slots=True)
class Buffer:
    """The memory of one tensor, needed from position ``born`` to position ``dies`` of the order, both included."""

    tensor: Tensor
    spec: TensorSpec
    nbytes: int
    born: int
    dies: int


@dataclass(frozen=True, slots=True)
class Lives:
    """All buffers of a step, the order of the ops that decides how long each lives, and ops of unknown output size.

    ``open_bytes`` holds what each of the latter makes at one element along every open dimension.
    """

    order: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    unknown: frozenset[str]
    open_bytes: Mapping[str, int]


@fact
def peak_memory(facts: Facts) -> Memory | None:
    """Return the estimate for the memory that is scarcest: the fullest accelerator's, else the host's.

    Left out are what kernels allocate for themselves, and tensors whose size is not known.  ``None`` when those are
    of more than ``MOST_UNKNOWN`` of the ops there or weigh more than ``MOST_OPEN`` of the peak at one row already (a
    training step with an open batch: what is known of it are its weights' gradients), and when nothing ran: a peak
    depends on the order in which ops do.
    """
    if facts(executed_graph) is None and facts(judged_profile) is None:
        return None
    found = facts(lives)
    spaces: dict[str, list[Buffer]] = defaultdict(list)
    graph = facts(judged_graph)
    for buffer in found.buffers:
        spaces[space_of(graph.op(buffer.tensor.op))].append(buffer)
    estimates = [_estimate(facts, found, space, buffers) for space, buffers in spaces.items()]
    scarcest = max(estimates, key=lambda one: (one.device != HOST, one.peak_bytes), default=None)
    return scarcest if scarcest and _is_known(facts, scarcest, spaces[scarcest.device]) else None


def _is_known(facts: Facts, estimate: Memory, buffers: Sequence[Buffer]) -> bool:
    makers, graph = {buffer.tensor.op for buffer in buffers}, facts(judged_graph)
    sizes = facts(lives).open_bytes.items()
    open_bytes = sum(nbytes for name, nbytes in sizes if space_of(graph.op(name)) == estimate.device)
    few = estimate.unknown <= MOST_UNKNOWN * (estimate.unknown + len(makers))
    return few and open_bytes <= MOST_OPEN * estimate.peak_bytes


def space_of(op: Op) -> str:
    """Return the memory in which an op's outputs are: the accelerator's, or the host's."""
    device = short_device(op.device)
    return HOST if not device or device.startswith(HOST) else device


def live_bytes(buffers: Sequence[Buffer], length: int) -> list[int]:
    """Return the bytes alive at each of ``length`` positions."""
    change = [0] * (length + 1)
    for buffer in buffers:
        change[buffer.born] += buffer.nbytes
        change[buffer.dies + 1] -= buffer.nbytes
    return list(accumulate(change[:-1]))


def _estimate(facts: Facts, found: Lives, space: str, buffers: Sequence[Buffer]) -> Memory:
    curve = live_bytes(buffers, len(found.order))
    at = max(range(len(curve)), key=curve.__getitem__)
    alive = sorted((one for one in buffers if one.born <= at <= one.dies), key=lambda one: -one.nbytes)
    graph = facts(judged_graph)
    return Memory(
        peak_bytes=curve[at],
        at_op=found.order[at],
        curve=_coarse(curve),
        alive=tuple(LiveTensor(one.tensor.op, str(one.spec), one.nbytes) for one in alive[:LISTED_TENSORS]),
        weights_bytes=_weights_bytes(facts, space),
        unknown=sum(space_of(graph.op(name)) == space for name in found.unknown),
        device=space,
    )


def _coarse(curve: Sequence[int]) -> tuple[int, ...]:
    """Return the largest value of each of at most ``LANE_BINS`` equal stretches."""
    bins = min(len(curve), LANE_BINS)
    bounds = [len(curve) * index // bins for index in range(bins + 1)]
    return tuple(max(curve[start:end]) for start, end in pairwise(bounds))


def _weights_bytes(facts: Facts, space: str) -> int | None:
    """Return the bytes of the variables and constants that the step reads; ``None`` when none is known."""
    sizes: dict[str, int | None] = {}
    graph = facts(judged_graph)
    for name in graph.of_types(_WEIGHTS):
        op = graph.op(name)
        if space_of(op) != space:
            continue
        inputs = graph.in_edges(name)
        sizes[inputs[0][0] if inputs else name] = op.outputs[0].nbytes if op.outputs else None
    known = [size for size in sizes.values() if size is not None]
    return sum(known) if known else None


# -- lives --------------------------------------------------------------------------------------------------------


@fact
def lives(facts: Facts) -> Lives:
    """Return what the step's tensors need, and when; instructions of XLA are left out, which plans its own buffers."""
    return _Walk(facts(judged_graph), _order(facts)).run()


class _Walk:
    """One walk along the order; what an op needs to know of the ones before it is kept here."""

    def __init__(self, graph: Table, order: Sequence[str]) -> None:
        self.ops = {name: graph.op(name) for name in order}
        self.inputs = {name: _inputs(graph, name) for name in order}
        self.last = len(order) - 1
        self.roots: dict[Tensor, tuple[Tensor, ...]] = {}  # a tensor -> those whose memory it is
        self.buffers: dict[Tensor, Buffer] = {}
        self.unknown: set[str] = set()
        self.open_bytes: defaultdict[str, int] = defaultdict(int)

    def run(self) -> Lives:
        for position, name in enumerate(self.ops):
            self._make(name, position)
            for buffer in self._read(name):
                buffer.dies = position
        self._keep_what_the_caller_holds()
        self._reuse()
        return Lives(tuple(self.ops), tuple(self.buffers.values()), frozenset(self.unknown), dict(self.open_bytes))

    def _make(self, name: str, position: int) -> None:
        """Add the outputs of an op: what they are views of, or a buffer of their own."""
        op = self.ops[name]
        for port in range(max(len(op.outputs), 1)):
            tensor = Tensor(name, port)
            viewed = dict.fromkeys(root for source in self._viewed(op, port) for root in self._roots_of(source))
            self.roots[tensor] = tuple(viewed) or (tensor,)
            if not viewed and port < len(op.outputs) and op.type not in _WEIGHTS:
                self._allocate(tensor, op.outputs[port], position)

    def _allocate(self, tensor: Tensor, spec: TensorSpec, position: int) -> None:
        if spec.dtype in _HANDLES:
            return
        if spec.nbytes is None:
            self.unknown.add(tensor.op)
            self.open_bytes[tensor.op] += _at_one_row(spec)
        else:
            self.buffers[tensor] = Buffer(tensor, spec, spec.nbytes, position, position)

    def _viewed(self, op: Op, port: int) -> Sequence[Tensor]:
        """Return the inputs whose memory an output is."""
        inputs = self.inputs[op.name]
        if op.type in VIEWS or (op.type in RECEIVES and self._stays(op)):
            return inputs[:1]
        if op.type in MERGES:  # whichever came; the other output is a number
            return inputs
        return inputs[port : port + 1] if op.type in _PAIRED_VIEWS else ()

    def _stays(self, op: Op) -> bool:
        """What was received is a view of what was sent, unless it comes from another memory."""
        return all(space_of(self.ops[source.op]) == space_of(op) for source in self.inputs[op.name])

    def _roots_of(self, tensor: Tensor) -> tuple[Tensor, ...]:
        found = self.roots.get(tensor)
        if found is None:  # more outputs than the graph says: those of a view are its first one
            op = self.ops[tensor.op]
            found = self.roots.get(Tensor(tensor.op, 0), ()) if op.type in VIEWS else ()
            self.unknown.update(() if found else (tensor.op,))
        return found

    def _read(self, name: str) -> Iterator[Buffer]:
        for source in self.inputs[name]:
            for root in self._roots_of(source):
                if root in self.buffers:
                    yield self.buffers[root]
                elif not self.ops[root.op].outputs and self.ops[root.op].type not in _WEIGHTS:
                    self.unknown.add(root.op)

    def _keep_what_the_caller_holds(self) -> None:
        """The caller holds the arguments during the whole step, and gets the results at its end."""
        for buffer in self.buffers.values():
            if self.ops[buffer.tensor.op].type in FED:
                buffer.born, buffer.dies = 0, self.last
        for name, op in self.ops.items():
            if op.type in RETURNS:
                for buffer in self._read(name):
                    buffer.dies = self.last

    def _reuse(self) -> None:
        """Let ops that can work in place take over the memory of an input that ends with them."""
        for position, (name, op) in enumerate(self.ops.items()):
            made = self.buffers.get(Tensor(name, 0)) if runtime_type(op.type) in _IN_PLACE else None
            if made and any(self._can_become(ended, made, position) for ended in self._read(name)):
                made.born = position + 1  # at its own position it is the input, which is counted already

    def _can_become(self, ended: Buffer, made: Buffer, position: int) -> bool:
        maker = self.ops[ended.tensor.op]
        return (
            ended.dies == position
            and (ended.spec.dtype, ended.nbytes) == (made.spec.dtype, made.nbytes)  # a view has another shape
            and maker.type not in FED
            and space_of(maker) == space_of(self.ops[made.tensor.op])
        )


def _at_one_row(spec: TensorSpec) -> int:
    """Return the bytes of a tensor with one element along each open dimension; 0 where not even the rank is known."""
    if spec.shape is None:
        return 0
    return replace(spec, shape=tuple(1 if size is None else size for size in spec.shape)).nbytes or 0


def _inputs(graph: Table, name: str) -> tuple[Tensor, ...]:
    return tuple(Tensor(source, edge.src_port or 0) for source, edge in graph.in_edges(name))


# -- order --------------------------------------------------------------------------------------------------------


def _order(facts: Facts) -> list[str]:
    """Return the ops by their first start in the profile; those that were not seen come right after what they read."""
    profile = facts(judged_profile)
    starts = _first_starts(profile) if profile else {}
    when: dict[str, float] = {}
    graph = facts(judged_graph)
    for name in _ran(facts, starts):
        sources = graph.predecessors(name)
        before = max((when[source] for source in sources if source in when), default=float("-inf"))
        when[name] = max(starts.get(name, before), before)
    return sorted(
        (name for name in when if HLO_MODULE not in graph.op(name).attrs),
        key=lambda name: (when[name], facts(op_order)[name]),
    )


def _ran(facts: Facts, seen: Iterable[str]) -> list[str]:
    """Return the ops of the step: of a graph as written, those that a given profile saw and what they read.

    Such a graph may hold the initializers and other programs beside the one that ran.
    """
    order = facts(op_order)
    names = list(order)
    if facts(executed_graph) is not None or facts(judged_profile) is None:
        return names
    ran = {name for name in seen if name in order}
    graph = facts(judged_graph)
    for name in reversed(names):
        if name in ran:
            ran.update(source for source, _ in graph.in_edges(name))
    return [name for name in names if name in ran]


def _first_starts(profile: Profile) -> Mapping[str, float]:
    """Return node -> the median over the steps of its first start since the step began."""
    from graphlens.ir.columns import OpEvents  # needs numpy, which graphs alone do not

    windows = [step.start_ns for step in steps_of(profile).windows] or [0]
    per_node: dict[str, list[int]] = defaultdict(list)
    for node, step, start_ns in OpEvents.of(profile.ops).first_after(windows):
        per_node[node].append(start_ns - windows[step])
    return {node: median(found) for node, found in per_node.items()}
