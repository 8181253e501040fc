"""What a graph holds that nobody can look into is said: programs that are data, ops of other packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from load_helpers import graph_def

import graphlens
from graphlens.config import Request
from graphlens.ir import foreign_ops, stablehlo
from graphlens.ir.optable import table
from graphlens.pipeline import analyze

# As JAX 0.10.2 writes it: MLIR's magic number, a version, the producer; op names between zero bytes.
BYTECODE = b"ML\xefR\rStableHLO_v1.15.0\x00\x01\x1d\x05" + b"\x00func_v1\x00sine_v1\x00dot_general_v2\x00"
NEWER = BYTECODE + b"composite_v2\x00"


def file_with(folder: Path, *modules: bytes, platforms: tuple[bytes, ...] = (b"CPU",)) -> Path:
    """Write a graph of ops that hold these programs, one after another."""
    names = [f"call{number}" for number in range(len(modules))]
    message = graph_def(
        ("x", "Placeholder", ()),
        *((name, "XlaCallModule", (source,)) for name, source in zip(names, ["x", *names], strict=False)),
        ("y", "Identity", (names[-1],)),
    )
    for node in message.node:
        node.attr["dtype" if node.op == "Placeholder" else "T"].type = 1
    for node, module in zip(message.node[1:], modules, strict=False):
        node.attr["module"].s = module
        node.attr["version"].i = 10
        node.attr["platforms"].list.s.extend(platforms)
        node.attr["Tin"].list.type.append(1)
        node.attr["Tout"].list.type.append(1)
        node.attr["Sout"].list.shape.add().dim.add(size=4)
    file = folder / "jax.pb"
    file.write_bytes(message.SerializeToString())
    return file


def notes_of(file: Path) -> tuple[str, ...]:
    return graphlens.load(file).document.quality.notes


def test_a_program_in_an_op_is_said_to_be_unseen(tmp_path: Path) -> None:
    (note,) = notes_of(file_with(tmp_path, BYTECODE))
    size = f"{len(BYTECODE)} B"
    assert note == (
        f"1 op holds a StableHLO program (CPU, {size}, written by StableHLO 1.15.0) that was not looked into"
    )


def test_programs_that_are_alike_are_listed_once(tmp_path: Path) -> None:
    (note,) = notes_of(file_with(tmp_path, BYTECODE, BYTECODE, b'module { "func" }', platforms=()))
    assert note.startswith("3 ops hold StableHLO programs (any device, ")
    assert note.count("StableHLO 1.15.0") == 1
    assert "any device, 17 B)" in note


def test_a_program_that_is_newer_than_tensorflow_is_known_to_fail(tmp_path: Path) -> None:
    assert notes_of(file_with(tmp_path, NEWER))[1] == (
        "the first call of 'call0' fails: its program was written by StableHLO 1.15.0 and holds composite_v2; "
        "TensorFlow 2.21 reads 1.13.7: export with an older JAX or run a newer TensorFlow"
    )


@pytest.mark.parametrize(
    ("module", "tensorflow"),
    [
        (BYTECODE, "2.21.0"),  # newer too, but of what it uses TensorFlow has it all
        (NEWER, "2.99.0"),  # nobody knows yet what it reads
        (NEWER.replace(b"1.15.0", b"1.13.0"), "2.21.0"),
        (b"composite_v2", "2.21.0"),
    ],
)
def test_nothing_is_said_against_a_program_of_which_nothing_is_known(module: bytes, tensorflow: str) -> None:
    program = stablehlo.program_of({"module": stablehlo.summary(module)})
    assert program is not None
    assert stablehlo.why_unreadable(program, tensorflow) is None


def placed(file: Path) -> Any:
    return analyze(Request.of(str(file), static=True, assume_device="gpu")).document.placement


def test_a_program_for_cpus_alone_is_not_counted_on_a_gpu(tmp_path: Path) -> None:
    refused = placed(file_with(tmp_path, BYTECODE))
    taken = placed(file_with(tmp_path, BYTECODE, platforms=(b"CPU", b"CUDA")))
    assert (refused.ops_on_device, refused.ops_on_host) == (1, 2), "the program, and what hands its result on"
    assert (taken.ops_on_device, taken.ops_on_host) == (3, 0)
    (line,) = [line for line in refused.not_covered if "StableHLO" in line]
    assert line.startswith("1 op (call0) with a StableHLO program for CPU alone: taken to be on the host")
    assert not [line for line in taken.not_covered if "StableHLO" in line]


def test_all_foreign_ops_are_named_with_the_package_that_brings_them(tmp_path: Path) -> None:
    kinds = ["CaseFoldUTF8", "SimpleMLInferenceOpWithHandle", "SomebodysOp", "RougeL", "Relu", "CaseFoldUTF8"]
    message = graph_def(*((f"op{number}", kind, ()) for number, kind in enumerate(kinds)))
    (tmp_path / "g.pb").write_bytes(message.SerializeToString())
    assert notes_of(tmp_path / "g.pb") == (
        "5 ops are of types that TensorFlow does not have: CaseFoldUTF8, RougeL (tensorflow-text); "
        "SimpleMLInferenceOpWithHandle (ydf-tf); SomebodysOp (of an unknown package); what they do was not judged",
    )
    assert foreign_ops.how_to_register(foreign_ops.foreign(kinds)) == (
        "pip install tensorflow-text ydf-tf (of the version of TensorFlow), and name the Python module that registers "
        "them with --import MODULE"
    )


def test_no_op_of_tensorflow_is_taken_for_one_of_another_package() -> None:
    assert [kind for kind in table() if foreign_ops.package_of(kind)] == []
