"""What a program can change about a program: one frozen dataclass for each kind of edit.

A plug-in brings a kind of edit as a frozen dataclass of its own, whose ``kind`` (a ``ClassVar``) no other has, and a
rewrite that says by its annotation which edit it applies (see ``graphlens.tf.rewrite.registry``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import NoneType
from typing import Any, ClassVar, Final, Literal, Protocol, get_args, runtime_checkable

from graphlens.ir.pipelines import AUTOTUNE

POOLS: Final = ("intra_op", "inter_op")  # TensorFlow's thread pools


class Edit(Protocol):
    """A change; ``kind`` is its name in documents."""

    @property
    def kind(self) -> str: ...


@runtime_checkable
class ChangesType(Protocol):
    """An edit after which the program computes in the type ``to``, which bounds how exact its outputs can be."""

    @property
    def to(self) -> str: ...


# -- where ---------------------------------------------------------------------------------------------------------


class Everywhere(Enum):
    """Wherever an edit applies: no op is named."""

    EVERYWHERE = "everywhere"


EVERYWHERE: Final = Everywhere.EVERYWHERE


@dataclass(frozen=True, slots=True)
class Ops:
    """Ops, one at least: as the graph of the finding calls them, and as the traced graph does, where that is known."""

    ops: tuple[str, ...] = ()
    traced: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.ops, tuple) or not isinstance(self.traced, (tuple, NoneType)):
            raise TypeError(
                f"ops are named in tuples, and not by {self.ops!r} and {self.traced!r}"
            )  # a name is no tuple
        if not self.names:
            raise ValueError("names no op")

    @property
    def names(self) -> tuple[str, ...]:
        """The ops as a rewrite looks for them."""
        return self.traced or self.ops


Where = Ops | Everywhere
Kept = Literal["constant", "variable"]  # how weights that an edit makes are kept


# -- the edits of this package -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FoldAffine:
    """Fold a scale and shift per channel into the layer before it.

    ``weights`` keeps the new weights as constant or variable, whatever the kind of layer; ``freeze`` tells whether
    variables are frozen by it.
    """

    kind: ClassVar[str] = "fold-affine"
    base: str | None = None
    where: Where = EVERYWHERE
    freeze: bool | None = None
    weights: Kept | None = None


@dataclass(frozen=True, slots=True)
class FoldInputAffine:
    """Fold a scale and shift per channel into the layer behind it; ``weights`` as in ``FoldAffine``."""

    kind: ClassVar[str] = "fold-input-affine"
    where: Where = EVERYWHERE
    weights: Kept | None = None


@dataclass(frozen=True, slots=True)
class FoldPadding:
    """Let convolutions add the zeros that pads put around their input."""

    kind: ClassVar[str] = "fold-padding"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class RemoveIdentities:
    """Leave out ops that only hand on their input."""

    kind: ClassVar[str] = "remove-identities"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class FreezeVariables:
    """Make constants of reads of variables that nobody writes."""

    kind: ClassVar[str] = "freeze-variables"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class FoldConstant:
    """Compute once, now, what depends on nothing that changes; ``freeze`` tells whether variables are frozen by it."""

    kind: ClassVar[str] = "fold-constant"
    where: Where = EVERYWHERE
    freeze: bool | None = None


@dataclass(frozen=True, slots=True)
class MergeConstants:
    """Keep equal constants once."""

    kind: ClassVar[str] = "merge-constants"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class ConstantToVariable:
    """Keep constants in variables that are not trained, outside the graph."""

    kind: ClassVar[str] = "constant-to-variable"
    where: Ops


@dataclass(frozen=True, slots=True)
class RemoveTransposes:
    """Cancel transposes that undo each other."""

    kind: ClassVar[str] = "remove-transposes"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class RemoveCasts:
    """Leave out casts after which a tensor is of the type that it came from."""

    kind: ClassVar[str] = "remove-casts"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class ChangeDtype:
    """Compute in the type ``to`` instead of ``from``; what enters and leaves is cast."""

    kind: ClassVar[str] = "change-dtype"
    where: Where = EVERYWHERE
    from_: str = field(kw_only=True)
    to: str = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class RemoveDebugOps:
    """Leave out checks, prints and summaries."""

    kind: ClassVar[str] = "remove-debug-ops"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class RemoveDropout:
    """Hand on what dropout would have masked, unscaled, as in inference."""

    kind: ClassVar[str] = "remove-dropout"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class UseMovingStatistics:
    """Normalize batches with the stored mean and variance, and stop updating them."""

    kind: ClassVar[str] = "use-moving-statistics"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class ShareComputation:
    """Compute once what several ops compute alike."""

    kind: ClassVar[str] = "share-computation"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class HoistInvariant:
    """Compute before a loop what is the same in each of its iterations."""

    kind: ClassVar[str] = "hoist-invariant"
    loop: str | Everywhere = EVERYWHERE
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class FlattenProduct:
    """Compute the product of a tensor of any rank with one matrix as the product of two matrices."""

    kind: ClassVar[str] = "flatten-product"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class SinkReshape:
    """Move reshapes between a matrix product and elementwise ops behind these."""

    kind: ClassVar[str] = "sink-reshape"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class SumByAddN:
    """Compute sums of two terms of one shape by ``AddN``, which Grappler takes into a convolution."""

    kind: ClassVar[str] = "sum-by-add-n"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class JitCompile:
    """Let XLA compile the ops named as one cluster, or the whole function."""

    kind: ClassVar[str] = "jit-compile"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class OrderNames:
    """Rename hard sigmoids whose name keeps Grappler from recognizing a hard swish."""

    kind: ClassVar[str] = "order-names"
    where: Where = EVERYWHERE


@dataclass(frozen=True, slots=True)
class PlaceOps:
    """Ask for another device; an empty one leaves the choice to TensorFlow."""

    kind: ClassVar[str] = "place-ops"
    where: Ops
    device: str


@dataclass(frozen=True, slots=True)
class SessionSetting:
    """Start the process with other settings, which change no graph (see ``ir.settings``).

    ``environment`` is set before TensorFlow is imported.  ``threads`` are the sizes of its pools (``intra_op``,
    ``inter_op``), set before it runs anything; 0 leaves the choice to TensorFlow.
    """

    kind: ClassVar[str] = "session-setting"
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pool, size in self.threads.items():
            if pool not in POOLS or size < 0:
                raise ValueError(
                    f"knows no thread pool '{pool}' of {size} threads; name {' or '.join(POOLS)}, and a size"
                )


# What of a script can be changed without touching its text: how it calls TensorFlow and Keras.
ScriptOption = Literal[
    "iterate", "jit_compile", "mixed_precision", "served_input", "sparse_optimizer", "steps_per_execution", "unroll"
]


@dataclass(frozen=True, slots=True)
class ScriptSetting:
    """Run the user's own script with one of its calls changed; it changes no graph that a rewrite could.

    Attributes
    ----------
    option
        ``iterate``: a function that loops over a dataset is given ``iter(dataset)``.  ``jit_compile``: of the model
        that is compiled, or of the ``tf.function`` named.  ``mixed_precision``: the global policy of Keras.
        ``served_input``: each dataset gives its first batches again and again, from memory, which tells what an input
        that takes no time would give; ``endless`` where a loop in Python goes over it.  ``sparse_optimizer``: gradients
        of embeddings update only the rows that they are about.  ``steps_per_execution``: of the model that is compiled.
        ``unroll``: of LSTM, GRU and SimpleRNN layers.
    value
        What it is set to, where it is more than switched on: ``8`` steps, the policy ``mixed_bfloat16``.
    function
        The name of the function that is meant, as Python has it; empty for whatever the option applies to.
    """

    kind: ClassVar[str] = "script-setting"
    option: ScriptOption
    value: str = ""
    function: str = ""

    @property
    def changes_numbers(self) -> bool:
        """Whether other numbers come out, by more than rounding may do, and as it is meant."""
        return self.option in {"mixed_precision", "served_input", "sparse_optimizer"}


# -- of an input pipeline ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParallelMap:
    """Have the map of a stage make several elements at a time.

    Attributes
    ----------
    stage
        As it is written, by the name that profiles have (``MapDataset:105``).
    parallelism
        How many; ``AUTOTUNE`` leaves that to TensorFlow.
    reorders
        Whether its function draws random numbers, or has other state, which elements then get in another order.
    """

    kind: ClassVar[str] = "parallel-map"
    stage: str
    parallelism: int = AUTOTUNE
    reorders: bool = False

    @property
    def changes_numbers(self) -> bool:
        """Whether other numbers come out, as it is meant."""
        return self.reorders


@dataclass(frozen=True, slots=True)
class VectorizeMap:
    """Have the batch behind the map of a stage come before it: its function gets batches instead of elements."""

    kind: ClassVar[str] = "vectorize-map"
    stage: str


@dataclass(frozen=True, slots=True)
class AddPrefetch:
    """Have elements of a stage made ahead; of the last one where none is named."""

    kind: ClassVar[str] = "add-prefetch"
    stage: str = ""
    buffer_size: int = AUTOTUNE


@dataclass(frozen=True, slots=True)
class AddCache:
    """Keep the elements of a stage in memory from the first epoch on."""

    kind: ClassVar[str] = "add-cache"
    stage: str


@dataclass(frozen=True, slots=True)
class ParallelInterleave:
    """Have the interleave of a stage read several of its inputs at a time, in the order that it has."""

    kind: ClassVar[str] = "parallel-interleave"
    stage: str
    parallelism: int = AUTOTUNE


@dataclass(frozen=True, slots=True)
class NotDeterministic:
    """Let stages that make several elements at a time hand out whichever is ready first."""

    kind: ClassVar[str] = "not-deterministic"

    @property
    def changes_numbers(self) -> bool:
        """Whether other numbers come out, as it is meant: the same elements in another order."""
        return True


@dataclass(frozen=True, slots=True)
class InputThreads:
    """Run the functions of a pipeline on so many threads of its own."""

    kind: ClassVar[str] = "input-threads"
    threads: int


InputEdit = ParallelMap | VectorizeMap | AddPrefetch | AddCache | ParallelInterleave | NotDeterministic | InputThreads


def is_of_input(edit: Edit) -> bool:
    """Whether an edit changes an input pipeline, and no graph of a program."""
    return isinstance(edit, get_args(InputEdit))


# -- the edits of others -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OtherEdit:
    """An edit of a kind that is not known here, as it is written."""

    kind: str
    content: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "edit" in self.content:
            raise ValueError("says its kind twice")
