"""The terminal summary: a golden text of 80 columns, plain without a terminal, safe with hostile names."""

import io
import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from graphlens.ir.analysis import Proof
from graphlens.report.terminal import print_summary, render
from tests import sample_document, sample_proofs

GOLDEN = Path(__file__).parent / "snapshots" / "summary.txt"


class FakeTerminal(io.StringIO):
    """A text stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


def ascii_stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


def test_the_summary_is_as_it_was():
    text = render(sample_document.RICH, ["out/report.html"])
    if os.environ.get("GRAPHLENS_UPDATE"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8"), "run GRAPHLENS_UPDATE=1 pytest and read the difference"


def test_the_step_comes_first_then_the_best_finding_with_its_proof_then_the_rest():
    text = render(sample_proofs.TOGETHER)
    order = (
        "\nStep ",
        "\nProven ",
        "\nFindings: ",
        "GL203",
        "Proof: proven",
        "Why: ",
        "\nWhere the step goes",
        "Slowest ops",
    )
    places = [text.index(words) for words in (*order, "\nThe measurement and the machine")]
    assert places == sorted(places)
    assert text[: text.index("\nFindings: ")].count("\n") <= 12


@pytest.mark.parametrize("outputs", [(), ("report.html",)])
def test_what_to_do_next_stands_apart_from_what_is_above_it(outputs: tuple[str, ...]):
    *_, above, apply = render(sample_proofs.TOGETHER, outputs).splitlines()
    assert apply.startswith("Apply:  graphlens fix")
    assert above == ("Report: report.html" if outputs else "")


def test_no_line_is_longer_than_80_columns():
    assert max(map(len, render(sample_document.RICH).splitlines())) <= 80


def test_nothing_measured_reads_so_and_never_as_zero():
    text = render(sample_document.STATIC)
    assert "not measured" in text
    assert "saving unknown" in text
    assert "0 ns" not in text
    assert "Where the step goes" not in text
    assert "not executed: --static was given" in text


def test_rules_that_were_asked_for_and_found_nothing_say_so():
    text = render(replace(sample_document.STATIC, findings=(), rules=sample_document.RICH.rules[2:4]))
    assert "GL207 redundant-transpose passed: 12 transposes, each with a consumer of its" in text
    assert "GL301 input-bound not applicable: the target has no input pipeline" in text


def test_a_fix_that_was_not_tried_says_why_only_where_it_could_have_been():
    proof = Proof("not-run", "a capture holds no weights")
    by_hand = replace(sample_document.INFO, proof=Proof("not-run", "only a person can make this change"))
    text = render(replace(sample_document.RICH, findings=(replace(sample_document.HIGH, proof=proof), by_hand)))
    assert "Proof: not run; a capture holds no weights" in text
    assert "only a person" not in text


def test_colour_is_for_terminals_only(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = FakeTerminal(), io.StringIO()
    print_summary(sample_document.RICH, file=terminal)
    print_summary(sample_document.RICH, file=pipe)
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b" not in pipe.getvalue()


def test_no_color_is_obeyed(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = FakeTerminal()
    print_summary(sample_document.RICH, file=terminal)
    assert "\x1b[3" not in terminal.getvalue()


def test_a_stream_that_knows_only_ascii_gets_only_ascii():
    for document in (sample_document.RICH, sample_document.hostile()):
        stream = ascii_stream()
        print_summary(document, file=stream)
        stream.flush()
        assert stream.buffer.getvalue().isascii()
    assert "####" in print_ascii(sample_document.RICH)


def print_ascii(document):
    stream = ascii_stream()
    print_summary(document, file=stream)
    stream.flush()
    return stream.buffer.getvalue().decode()


def steering(text):
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def test_names_cannot_steer_the_terminal():
    text = render(sample_document.hostile(), list(sample_document.HOSTILE_NAMES))
    assert steering(text) == {"\n"}
    assert "�[31mred" in text
    assert "[bold red]markup[/] :smile: [link=https://example.com]x[/link]" in text


def test_names_bring_no_colour_and_no_link_of_their_own(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = FakeTerminal()
    print_summary(sample_document.hostile(), file=terminal)
    assert steering(re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())) == {"\n"}


def test_which_of_several_signatures_was_taken_is_among_the_first_lines():
    why = "predict, which of 2 has most ops (10); --signature NAME takes another one: add (1)"
    document = replace(sample_document.RICH, target=replace(sample_document.RICH.target, chosen=why))
    head = " ".join(" ".join(render(document).split()).split()[:60])
    assert f"Signature {why}" in head
    assert "Signature" not in render(sample_document.RICH)
