"""The command that measures a proof again: what a shell makes of it is what was asked for."""

from __future__ import annotations

import os
import subprocess

import pytest

from graphlens.cli import _parser, _request
from graphlens.config import Request
from graphlens.ir.analysis import Proof
from graphlens.pipeline.proofs import command_of
from graphlens.report.view_proofs import proof_view

HOSTILE = [
    "a b'; rm -rf x",
    'a"b',
    "$(touch x)",
    "`touch x`",
    "a\nb",
    "\x1b[31mred",
    "\u202egnp",
    "a\\n'b\t",
    "a;b&c|d",
    "é/日本",
]


def words_of(command: str) -> list[str]:
    """Return the words into which a real shell splits ``command``."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_reaches_the_program_as_it_is(path: str) -> None:
    command = command_of(Request(path))
    assert command.isprintable()
    assert words_of(command) == ["graphlens", "analyze", path]


def test_options_that_change_what_is_measured_are_repeated() -> None:
    asked = Request(
        "my model", signature="pre dict", tag="serve,gpu", inputs="in.npz", shapes={"x": (1, 2), "y": ()}, batch=8,
        time_budget_s=300.0, trust=True,
    )  # fmt: skip
    read_back = _request(_parser().parse_args(words_of(command_of(asked))[1:]))
    assert read_back == asked


def test_the_command_that_writes_the_fix_asks_for_the_same_model() -> None:
    asked = Request("it's", signature="predict", shapes={"x": (1, 2)})
    proof = Proof("proven", "faster", command=f"{command_of(asked)} --select GL203")
    written = proof_view(proof).apply
    assert written is not None
    options = _parser().parse_args(words_of(written)[1:])
    assert (options.target, options.signature, options.shape) == ("it's", "predict", [("x", (1, 2))])
    assert (options.select, options.output) == (("GL203",), "improved")
