"""The catalogue of op types holds against TensorFlow's registry, and nothing of it is written a second time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphlens.ir import effects, ops
from graphlens.ir.optable import OpInfo, table

PACKAGE = Path(__file__).parents[1] / "graphlens"
TRAITS = {name: value for name, value in vars(ops).items() if isinstance(value, frozenset)}
PATTERNS = {name: value for name, value in vars(ops).items() if isinstance(value, re.Pattern)}
# Types that this TensorFlow does not register, and why they are listed all the same.
NOT_REGISTERED = {
    "PyCall": "of eager execution, which names it in profiles",
    "XlaRun": "of TensorFlow before 2.4, with a kernel under this name",
}
INSTRUCTIONS = {"UNTRACED_INSTRUCTIONS"}


def info(op_type: str) -> OpInfo:
    return table()[op_type]


@pytest.mark.parametrize("trait", sorted(TRAITS.keys() - INSTRUCTIONS))
def test_every_type_of_a_trait_is_one_that_tensorflow_registers(trait: str) -> None:
    assert TRAITS[trait] <= table().keys() | NOT_REGISTERED.keys()


def test_what_is_not_registered_is_listed_somewhere() -> None:
    assert NOT_REGISTERED.keys() <= frozenset().union(*TRAITS.values()) - table().keys()


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_each_pattern_names_registered_types(pattern: str) -> None:
    assert any(PATTERNS[pattern].match(op_type) for op_type in table())


def test_what_tensorflow_calls_stateful_is_not_pure() -> None:
    assert [name for name, op in table().items() if op.is_stateful and effects.is_pure(name)] == []
    assert sum(op.is_stateful for op in table().values()) == 555


def test_what_takes_or_gives_a_variable_or_calls_a_function_is_not_pure() -> None:
    opaque = {
        name
        for name, op in table().items()
        if op.calls or any(arg.is_ref or arg.type in ("=resource", "=variant") for arg in (*op.inputs, *op.outputs))
    }
    assert {"ReadVariableOp", "ApplyAdam", "TensorListStack", "MapDefun"} <= opaque
    assert [name for name in opaque if effects.is_pure(name)] == []


def test_nothing_is_claimed_of_a_type_that_tensorflow_does_not_know() -> None:
    assert not effects.is_pure("SomebodysOp")
    assert not effects.acts("SomebodysOp")


def test_what_acts_is_not_pure() -> None:
    both = [name for name in table() if effects.acts(name) and effects.is_pure(name)]
    assert both == []


@pytest.mark.parametrize(
    "op_type",
    [
        # Random numbers whose state is inside the op: two of them differ, although nothing in their names says so.
        *("TruncatedNormal", "UniformCandidateSampler", "CudnnRNNV3", "SampleDistortedBoundingBoxV2"),
        # Numbers of a seed that an op is handed: the same each time, which is not what is drawn for.
        *("StatelessRandomUniformV2", "StatelessMultinomial"),
        # Declared as stateless, and not pure: from outside, dead or alive, written into, waiting for others.
        *("Placeholder", "Switch", "InplaceAdd", "Batch", "ReadFile", "PyFuncStateless", "DebugIdentity"),
    ],
)
def test_these_are_not_pure(op_type: str) -> None:
    assert not effects.is_pure(op_type)


@pytest.mark.parametrize("op_type", ["MatMul", "TensorScatterAdd", "_FusedConv2D", "_MklNativeConv2D", "Cast"])
def test_these_are_pure(op_type: str) -> None:
    assert effects.is_pure(op_type)


def test_what_writes_a_variable_takes_it_and_acts() -> None:
    writes = [name for name in table() if ops.is_variable_write(name)]
    assert len(writes) == 92
    assert all(effects.acts(name) for name in writes)
    assert [
        name for name in writes if not (info(name).inputs[0].is_ref or info(name).inputs[0].type == "=resource")
    ] == []


def test_without_a_result_an_op_with_state_acts() -> None:
    silent = [name for name, op in table().items() if op.is_stateful and not op.outputs]
    assert {"Assert", "SaveV2", "QueueEnqueueV2", "_Retval", "_Send"} <= set(silent)
    assert all(effects.acts(name) for name in silent)


def test_what_acts_stays_and_so_does_what_comes_from_elsewhere() -> None:
    assert all(effects.stays(name) for name in table() if effects.acts(name))
    assert all(effects.stays(name) for name in ("IteratorGetNext", "QueueDequeueV2", "_Arg", "Unstage", "_Recv"))
    assert not any(effects.stays(name) for name in ("RandomUniform", "ReadVariableOp", "MatMul", "Const"))


@pytest.mark.parametrize(("trait", "count"), [("UNARY", 1), ("BINARY", 2)])
def test_elementwise_ops_have_this_many_inputs_and_one_output_of_their_type(trait: str, count: int) -> None:
    for op in map(info, TRAITS[trait]):
        assert len(op.inputs) == count
        assert {arg.type for arg in op.inputs} == {arg.type for arg in op.outputs}
        assert len(op.outputs) == 1


def test_views_and_passes_give_the_type_that_they_take() -> None:
    for name in ops.PASSES | ops.RESHAPES:
        assert info(name).inputs[0].type == info(name).outputs[0].type


# -- nothing twice -------------------------------------------------------------------------------------------------

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "ir" / "ops.py")


def sets_of_strings(source: str) -> Iterator[frozenset[str]]:
    """The sets, lists and tuples of strings that a module spells out, and the words of its texts."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Set, ast.Tuple, ast.List)):
            values = [item.value for item in node.elts if isinstance(item, ast.Constant)]
            if len(values) == len(node.elts) and all(isinstance(value, str) for value in values):
                yield frozenset(map(str, values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield frozenset(node.value.split())


def written_again(source: str) -> set[str]:
    """The traits that a module spells out instead of naming them."""
    return {
        trait
        for found in sets_of_strings(source)
        for trait, types in TRAITS.items()
        if len(found) > 1 and found == types
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_spells_out_a_trait_of_the_catalogue(path: Path) -> None:
    assert not written_again(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source", ['X = frozenset({"Add", "AddV2"})', 'if kind in ("AddV2", "Add"): pass', 'X = set("Add AddV2".split())']
)
def test_a_trait_that_is_spelt_out_is_seen(source: str) -> None:
    assert written_again(source) == {"SUMS"}


# -- nothing misspelt ----------------------------------------------------------------------------------------------

EVERY_MODULE = sorted(PACKAGE.rglob("*.py"))
AS_RUN = frozenset(map(ops.runtime_type, table()))  # without the marks of oneDNN


def misspelt(source: str) -> set[str]:
    """What stands among op types and is none: in sets most of whose words are types that TensorFlow registers."""
    registered = table().keys() | AS_RUN | NOT_REGISTERED.keys()
    mixed = [found for found in sets_of_strings(source) if 2 <= len(found & registered) >= len(found - registered)]
    return set().union(*(found - registered for found in mixed))


@pytest.mark.parametrize("path", EVERY_MODULE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_names_a_type_that_there_is_none_of(path: Path) -> None:
    assert not misspelt(path.read_text(encoding="utf-8"))


def test_a_type_that_is_misspelt_is_seen() -> None:
    assert misspelt('X = frozenset("Add AddV2 Substract".split())') == {"Substract"}
