"""The command that measures a proof again: what a shell makes of it is what was asked for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphlens.cli import parser
from graphlens.cli.arguments import request_of
from graphlens.command import command_of
from graphlens.config import MOST_STEPS, OPTIONS, Request
from graphlens.ir.analysis import Proof
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
    command = command_of(Request.of(path))
    assert command.isprintable()
    assert words_of(command) == ["graphlens", "analyze", path]


# What an option takes as a word, and gives back as it was: anything that a shell can hand over.
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
NAMES = st.text(st.characters(exclude_categories=("Cs", "Z", "Cc"), exclude_characters=","), min_size=1, max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "target": TEXTS.filter(lambda text: not text.startswith("-")),
    "signature": TEXTS,
    "tag": TEXTS,
    "inputs": TEXTS,
    "shapes": st.dictionaries(TEXTS.filter(bool), st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=3),
    "batch": st.integers(1, 1000),
    "steps": st.integers(1, MOST_STEPS),
    "time_budget_s": st.floats(1e-3, 1e6),
    "trust": st.booleans(),
    "static": st.booleans(),
    "profile": TEXTS,
    "program": TEXTS,
    "assume_device": TEXTS,
    "prove": st.booleans(),
    "rtol": st.floats(1e-15, 0.9),
    "imports": st.lists(st.from_regex(r"[a-z_]{1,4}(\.[a-z_]{1,4})?", fullmatch=True), min_size=1, max_size=3).map(
        tuple
    ),
    "warm_up_request": st.integers(0, 1000),
    "select": st.lists(NAMES, max_size=3).map(tuple),
    "ignore": st.lists(NAMES, max_size=3).map(tuple),
}
REQUESTS = st.fixed_dictionaries(
    {"target": VALUES["target"]},
    optional={name: values for name, values in VALUES.items() if name != "target"},
).map(lambda values: Request.of(**values))


OF_SCRIPTS_ONLY = {"tries"}  # `graphlens run` takes them, which no finding says to type again


def test_every_field_of_a_request_is_typed_or_set_by_the_program() -> None:
    names = {name for name, _ in Request.of("").values()}
    assert VALUES.keys() == OPTIONS.keys() - OF_SCRIPTS_ONLY
    assert names - OPTIONS.keys() == {"keep_run", "keep_unplaced"}


@given(REQUESTS)
def test_the_command_asks_for_the_same_request(asked: Request) -> None:
    words = shlex_like(command_of(asked))
    assert request_of(parser().parse_args(words[1:])) == asked


def shlex_like(command: str) -> list[str]:
    """Take a line apart as a shell does; starting one for every example would take minutes."""
    return [_plain(word) for word in re.findall(r"""((?:\$'(?:\\.|[^'\\])*'|'[^']*'|"[^"]*"|[^\s'"])+)""", command)]


def _plain(word: str) -> str:
    if not word.startswith("$'"):
        return shlex.split(word)[0]
    escaped = os.fsencode(word[2:-1])
    return os.fsdecode(re.sub(rb"\\x(..)", lambda match: bytes.fromhex(match[1].decode()), escaped))


@pytest.mark.parametrize("word", ["-x", "-1", "--static", "- a\n"])
def test_what_looks_like_an_option_is_none(word: str) -> None:
    asked = Request.of("m", signature=word, shapes={word: (1,)}, profile=word, select=(word.strip(),))
    assert request_of(parser().parse_args(words_of(command_of(asked))[1:])) == asked
    assert words_of(command_of(Request.of(word)))[2:] == [f"./{word}"]


def test_options_that_change_what_is_measured_are_repeated() -> None:
    asked = Request.of(
        "my model", signature="pre dict", tag="serve,gpu", inputs="in.npz", shapes={"x": (1, 2), "y": ()}, batch=8,
        time_budget_s=300.0, trust=True, steps=7, ignore=("GL501", "GL4"), assume_device="gpu:T4", profile="p q",
    )  # fmt: skip
    read_back = request_of(parser().parse_args(words_of(command_of(asked))[1:]))
    assert read_back == asked


def test_what_is_only_told_of_a_model_is_not_asked_of_the_command_that_writes_it() -> None:
    asked = Request.of("a b", assume_device="gpu:T4", program="it's", steps=7)
    written = proof_view(Proof("proven", "faster", command=f"{command_of(asked)} --select GL203")).apply
    assert written == "graphlens fix 'a b' --steps 7 --select GL203 -o improved"
    parser().parse_args(words_of(written)[1:])


def test_the_command_that_writes_the_fix_asks_for_the_same_model() -> None:
    asked = Request.of("it's", signature="predict", shapes={"x": (1, 2)})
    proof = Proof("proven", "faster", command=f"{command_of(asked)} --select GL203")
    written = proof_view(proof).apply
    assert written is not None
    options = parser().parse_args(words_of(written)[1:])
    assert (options.target, options.signature, options.shapes) == ("it's", "predict", [("x", (1, 2))])
    assert (options.select, options.output) == (("GL203",), "improved")
