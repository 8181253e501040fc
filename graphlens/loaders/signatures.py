"""Signatures of a model: their inputs and outputs, which one is meant, and which part of the graph it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.ops import PLAIN_CALLS
from graphlens.loaders.attrs import dtype_name, shape_of

DEFAULT: Final = "serving_default"
CALL: Final = "__call__"  # the name under which a model without signatures is run
_NAMED: Final = 5  # signatures that a sentence names
# Signatures that TensorFlow itself adds; nobody calls them to get a result.
INTERNAL: Final = frozenset({"__saved_model_init_op", "__saved_model_train_op"})


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: its name in the signature, what it is, and the tensors of the graph that hold it."""

    name: str
    spec: TensorSpec
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call the model."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def signatures_of(meta_graph: Any) -> tuple[Signature, ...]:
    """Return the signatures that a user can ask for, sorted by name."""
    defined = meta_graph.signature_def
    return tuple(
        Signature(name, _tensors(defined[name].inputs), _tensors(defined[name].outputs))
        for name in sorted(defined)
        if name not in INTERNAL
    )


def _tensors(infos: Mapping[str, Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, TensorSpec(dtype_name(infos[name].dtype), shape_of(infos[name].tensor_shape)), _names(infos[name]))
        for name in sorted(infos)
    )


def _names(info: Any) -> tuple[str, ...]:
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        sparse = info.coo_sparse
        return (sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name)
    if kind == "composite_tensor":
        return tuple(name for component in info.composite_tensor.components for name in _names(component))
    return (info.name,) if info.name else ()


def choose(
    signatures: Sequence[Signature],
    wanted: str | None,
    path: object,
    op_counts: Callable[[], Mapping[str, int]],
) -> tuple[Signature, str | None]:
    """Return the signature to run, and when it had to be picked among several, which one was and why.

    ``op_counts`` gives the work that each of several can reach: the largest one is what such a model is for.

    Raises
    ------
    TargetError
        When ``wanted`` is not there, or there is none at all.
    """
    named = {signature.name: signature for signature in signatures}
    if wanted is not None:
        if wanted not in named:
            raise TargetError(f"'{path}' has no signature '{wanted}'; pass --signature with one of: {_list(named)}")
        return named[wanted], None
    if not named:
        raise TargetError(
            f"'{path}' has no signature to run; save it again with tf.saved_model.save(model, path, signatures=...), "
            "or judge its graph as it is with --static"
        )
    if DEFAULT in named or len(named) == 1:
        return named.get(DEFAULT, signatures[0]), None
    return _largest(signatures, op_counts())


def _largest(signatures: Sequence[Signature], op_counts: Mapping[str, int]) -> tuple[Signature, str]:
    ordered = sorted(signatures, key=lambda one: (not one.outputs, -op_counts[one.name]))
    first, *others = ordered
    named = ", ".join(f"{one.name} ({op_counts[one.name]:,})" for one in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return first, (
        f"{first.name}, which of {len(signatures)} has most ops ({op_counts[first.name]:,}); "
        f"--signature NAME takes another one: {named}{more}"
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "(there is none)"


def wrapping_call(signature: Signature, nodes: Iterable[Any]) -> Any | None:
    """Return the main graph's call of a TF2 signature's function, ``None`` where the ops stand there (TF1).

    ``nodes`` are the main graph's nodes.
    """
    producers = {name.split(":")[0] for output in signature.outputs for name in output.tensors}
    if len(producers) != 1:
        return None
    producer = producers.pop()
    node = next((node for node in nodes if node.name == producer), None)
    return node if node is not None and node.op in PLAIN_CALLS and called_by(node) else None


def called_by(node: Any) -> str | None:
    """Return the function that a call calls, ``None`` where it does not say one."""
    return str(node.attr["f"].func.name) or None if "f" in node.attr else None


def upstream(tensors: Iterable[str], nodes: Mapping[str, Any]) -> set[str]:
    """Return the ops that make ``tensors``, and all that these depend on, around loops too."""
    pending = list(tensors)
    needed: set[str] = set()
    while pending:
        written = pending.pop()
        name = written if written in nodes else op_name(written)
        if name in nodes and name not in needed:
            needed.add(name)
            pending.extend(nodes[name].input)
    return needed


def op_name(tensor: str) -> str:
    """Return the op of a tensor or of a control input.

    >>> op_name("scope/add:1"), op_name("^init")
    ('scope/add', 'init')
    """
    return tensor.removeprefix("^").split(":")[0]
