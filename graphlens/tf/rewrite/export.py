"""Write programs as one SavedModel: a signature each, with the same names, types and shapes, sharing their variables.

What is not an attribute of the exported object cannot be saved, so it holds exactly what the programs use: variables,
tables and asset files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from keyword import iskeyword
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens import workplace
from graphlens.errors import RewriteError, UsageError, first_line
from graphlens.ir.edits import Edit
from graphlens.loaders.signatures import CALL, DEFAULT
from graphlens.tf.open import saved_models, targets
from graphlens.tf.open.opened import LOAD_FAILURES
from graphlens.tf.rewrite import building, flatten, leftovers, nodes
from graphlens.tf.rewrite.lifting import Lifted
from graphlens.tf.rewrite.program import Binding, Program, extract, of_function, output_names
from graphlens.tf.rewrite.registry import apply

# Loading a SavedModel puts the ops of a signature below a call of this name; so does the one that we write.
_CALL = "StatefulPartitionedCall/"

Edits = Sequence[Edit]


class _Exported(tf.Module):  # type: ignore[misc]
    """The root of a written SavedModel; who loads it finds ``variables``, ``tables`` and ``assets``."""

    variables: Any = None  # shadows the property, so that a list of them is saved under this name

    def __init__(self, variables: Sequence[Any], tables: Sequence[Any], assets: Sequence[Any]) -> None:
        super().__init__(name="graphlens_rewritten")
        self.variables, self.tables, self.assets = list(variables), list(tables), list(assets)


def write_saved_model(
    source: str | Path,
    edits_by_signature: Mapping[str, Edits],
    directory: str | Path,
    *,
    kind: str = "saved_model",
    tag: str | None = None,
    trust: bool = False,
) -> tuple[str, ...]:
    """Write the model at ``source`` with edits applied, all its signatures included.

    Parameters
    ----------
    source
        A target that GraphLens opens.
    edits_by_signature
        Signature -> edits; signatures that are not named are written as they are.  What has no signatures (a Keras
        file, a function) is written with ``serving_default``.
    directory
        The new SavedModel; must not exist.
    kind, tag, trust
        As for ``targets.open_target``.

    Returns
    -------
    tuple[str, ...]
        Notes on what the reader should know.

    Raises
    ------
    RewriteError
        If an edit does not fit, or the model holds what cannot be written.
    UsageError
        If ``directory`` exists, or a signature does not.
    """
    refuse_existing(Path(directory))
    with _opened(str(source), kind, tag, trust) as (programs, owner, notes):
        if CALL in edits_by_signature and CALL not in programs:
            # What calling the object runs becomes the default signature of what is written.
            edits_by_signature = {DEFAULT: edits_by_signature[CALL]}
        unknown = sorted(set(edits_by_signature) - set(programs))
        if unknown:
            raise UsageError(f"{source} has no signature '{unknown[0]}'; it has {', '.join(sorted(programs))}")
        written = export(_edited(programs, edits_by_signature), directory, owner)
        left = _taken_along(Path(source), Path(directory), tag, owner) if kind == "saved_model" else ()
        return (*notes, *written, *left)


def _taken_along(source: Path, directory: Path, tag: str | None, loaded: Any) -> tuple[str, ...]:
    leftovers.copy_extra_files(source, directory)
    return tuple(leftovers.left_behind(source, tag, loaded))


def refuse_existing(directory: Path) -> None:
    """Refuse to write over anything."""
    if directory.exists() or directory.is_symlink():
        raise UsageError(f"{directory} exists already: choose another folder, or remove it")


def _edited(programs: Mapping[str, Program], edits_by_signature: Mapping[str, Edits]) -> dict[str, Program]:
    """Return the programs with their edits; another name of an edited function stays another name of it."""
    edited = {name: apply(programs[name], edits) for name, edits in edits_by_signature.items()}
    for name, program in programs.items():
        twins = (other for other in edits_by_signature if is_same_function(program, programs[other]))
        if name not in edited:
            twin = next(twins, None)
            edited[name] = program if twin is None else edited[twin]
    return edited


def is_same_function(one: Program, other: Program) -> bool:
    """Whether two programs compute the same from the same inputs and variables (Keras exports one under two names)."""

    def bound(program: Program) -> list[tuple[str, int]]:
        return sorted((name, id(binding.value)) for name, binding in program.bindings.items())

    return (
        (one.names, one.outputs, output_names(one)) == (other.names, other.outputs, output_names(other))
        and one.signature == other.signature
        and bound(one) == bound(other)
        and one.graph.SerializeToString(deterministic=True) == other.graph.SerializeToString(deterministic=True)
    )


@contextmanager
def _opened(
    source: str, kind: str, tag: str | None, trust: bool
) -> Iterator[tuple[dict[str, Program], Any, tuple[str, ...]]]:
    if kind != "saved_model":
        opened = targets.open_target(source, kind, tag=tag, trust=trust)
        yield {DEFAULT: extract(opened)}, opened.owner, opened.notes
        return
    with saved_models.loaded_saved_model(source, tag) as (loaded, notes):
        functions = saved_models.signatures_in(loaded, source)
        if functions:
            programs = {name: of_function(function) for name, function in functions.items()}
        else:
            programs = {DEFAULT: extract(targets.open_target(source, kind, tag=tag))}
        yield agreeing_on_writes(programs), loaded, notes


def agreeing_on_writes(programs: Mapping[str, Program]) -> dict[str, Program]:
    """Return programs that know of each other's writes: what one assigns is no constant in another."""
    written = {id(program.bindings[name].value) for program in programs.values() for name in program.written}
    return {
        name: replace(
            program,
            written=program.written
            | {placeholder for placeholder, held in program.bindings.items() if id(held.value) in written},
        )
        for name, program in programs.items()
    }


def export(programs: Mapping[str, Program], directory: str | Path, owner: Any = None) -> tuple[str, ...]:
    """Write ``programs`` by the name of their signature; ``owner`` is the object whose tables and assets they use.

    Raises
    ------
    RewriteError
        If a program holds on to something that cannot be saved.
    """
    directory = Path(directory)
    refuse_existing(directory)
    lifted = Lifted()
    distinct = {id(program): lifted.program(program) for program in programs.values()}
    ready = _sharing_weights({key: _with_names_as_loaded(program) for key, program in distinct.items()})
    root = _root(ready.values(), [*lifted.tables, *_parts(owner)])
    functions = {key: _signature(program) for key, program in ready.items()}
    signatures = {name: functions[id(program)] for name, program in programs.items()}
    directory.parent.mkdir(parents=True, exist_ok=True)
    with workplace.beside(directory) as folder:
        made = folder / directory.name
        _save(root, made, signatures)
        os.replace(made, directory)
    return tuple(dict.fromkeys(note for program in ready.values() for note in program.notes))


def _save(root: Any, folder: Path, signatures: Mapping[str, Any]) -> None:
    try:
        tf.saved_model.save(root, str(folder), signatures=dict(signatures))
    except (*LOAD_FAILURES, AssertionError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RewriteError(f"TensorFlow cannot save the rewritten model: {first_line(error)}") from error


def _signature(program: Program) -> Any:
    """Return the program as a function of keywords that returns a dictionary, which is what a signature is."""
    names = _output_keys(program)
    keywords = [_keyword(name, index) for index, name in enumerate(program.names)]

    def serve(**tensors: Any) -> dict[str, Any]:
        outputs = building.imported(program, [tensors[keyword] for keyword in keywords])
        return dict(zip(names, outputs, strict=True))

    specs = {
        keyword: tf.TensorSpec(spec.shape, spec.dtype, name=name)
        for keyword, name, spec in zip(keywords, program.names, program.signature, strict=True)
    }
    function = tf.function(serve, autograph=False, jit_compile=program.compiled or None)
    return building.concrete_of(function, (), specs)


def _keyword(name: str, index: int) -> str:
    """Return the keyword for an input; its name in the signature may be one that Python cannot pass."""
    return name if name.isidentifier() and not iskeyword(name) else f"argument_{index}"


def _output_keys(program: Program) -> list[str]:
    names = output_names(program)
    keys = [name.replace("/", "_") for name in names]
    return keys if len(set(keys)) == len(keys) else [f"output_{index}" for index in range(len(keys))]


# -- variables, tables, assets --------------------------------------------------------------------------------------


def _sharing_weights(programs: Mapping[int, Program]) -> dict[int, Program]:
    """Return the programs with variables for new weights, one for all equal ones."""
    pool: dict[tuple[str, str], Any] = {}
    return {
        number: replace(program, bindings={name: _pooled(held, pool) for name, held in program.bindings.items()})
        for number, program in programs.items()
    }


def _pooled(binding: Binding, pool: dict[tuple[str, str], Any]) -> Binding:
    if binding.kind != "weight":
        return binding
    value = np.ascontiguousarray(binding.value)
    key = (binding.name, hashlib.sha256(value.tobytes() + str((value.dtype, value.shape)).encode()).hexdigest())
    if key not in pool:
        pool[key] = building.variable(binding)
    return Binding("variable", pool[key], binding.name)


def _root(programs: Iterable[Program], parts: Sequence[Any]) -> Any:
    held = [binding for program in programs for binding in _used(program)]
    variables = _unique(binding.value for binding in held if binding.kind == "variable")
    handles = _unique(binding.value for binding in held if binding.kind == "resource")
    tables = [_table(handle, parts) for handle in handles]
    constants = {id(binding.value) for binding in held if binding.kind == "constant"}
    assets = [part for part in parts if isinstance(part, tf.saved_model.Asset)]
    needed = assets if tables else [asset for asset in assets if id(asset.asset_path) in constants]
    return _Exported(variables, tables, needed)


def _used(program: Program) -> Iterator[Binding]:
    read = {nodes.source(ref) for node in program.graph.node for ref in node.input}
    yield from (binding for name, binding in program.bindings.items() if name in read)


def _unique(things: Iterable[Any]) -> list[Any]:
    return list({id(thing): thing for thing in things}.values())


def _table(handle: Any, parts: Sequence[Any]) -> Any:
    for part in parts:
        if getattr(part, "resource_handle", None) is handle:
            return part
    raise RewriteError("the model uses a table or another resource that belongs to no object to be saved with it")


def _parts(owner: Any) -> Iterator[Any]:
    """Yield everything trackable that belongs to the owner of a function (or to the owners, of a tuple)."""
    for one in owner if isinstance(owner, tuple) else (owner,):
        root = getattr(one, "__self__", one)
        try:
            yield from tf.train.TrackableView(root).descendants()
        except (AttributeError, TypeError, ValueError):  # a plain function has no parts
            continue


# -- names ----------------------------------------------------------------------------------------------------------


def _with_names_as_loaded(program: Program) -> Program:
    """Take the call that loading adds off the names, so that the written model's ops are called like the original's."""
    known = {node.name for node in program.graph.node}
    short = {
        name: name[len(_CALL) :]
        for name in known
        if name.startswith(_CALL) and name[len(_CALL) :] not in known and name[len(_CALL) :] not in program.names
    }
    if not short:
        return program
    return renamed(program, lambda name: short.get(name, name))


def renamed(program: Program, new_name: Callable[[str], str]) -> Program:
    """Return the program with other names for its ops (placeholders included)."""

    def ref(old: str) -> str:
        return (
            f"^{new_name(old[1:])}"
            if nodes.is_control(old)
            else nodes.tensor(new_name(nodes.source(old)), nodes.port(old))
        )

    graph = flatten.graph_of(program.graph.node, program.graph.library.function, program.graph.versions)
    for node in graph.node:
        node.name = new_name(node.name)
        inputs = [ref(old) for old in node.input]
        del node.input[:]
        node.input.extend(inputs)
        if "_class" in node.attr:
            places = [place.decode().removeprefix("loc:@") for place in node.attr["_class"].list.s]
            node.attr["_class"].list.s[:] = [f"loc:@{new_name(place)}".encode() for place in places]
    return replace(
        program,
        graph=graph,
        arguments=tuple(map(new_name, program.arguments)),
        outputs=tuple(map(ref, program.outputs)),
        effects=tuple(map(new_name, program.effects)),
        bindings={new_name(name): binding for name, binding in program.bindings.items()},
        shapes={new_name(name): shapes for name, shapes in program.shapes.items()},
        written=frozenset(map(new_name, program.written)),
    )
