"""The command line: exit codes, one-line messages, reports written whole or not at all.  No TensorFlow is executed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import Command
from end_to_end import CAPTURES, REPOSITORY, Outcome, assert_one_line, assert_refused, files_in, write_saved_model
from real_inputs import RealInputs

from graphlens import cli
from graphlens.cli import commands
from graphlens.cli import progress as line
from graphlens.config import MOST_STEPS, Request
from graphlens.loaders.sniff import Identified
from graphlens.pipeline.recorder import child_request

TINY = CAPTURES / "tiny_cnn.capture"
ALWAYS_FINDS = CAPTURES / "float64.capture"
BAD = REPOSITORY / "fixtures" / "bad"
SCHEMA = json.loads((REPOSITORY / "graphlens" / "schema" / "analysis.v1.json").read_text())


# -- targets that cannot be read --------------------------------------------------------------------------------------


def empty_folder(place: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def text_file(place: Path) -> Path:
    (place / "notes.txt").write_text("Buy milk.\n")
    return place / "notes.txt"


def truncated_model(place: Path) -> Path:
    folder = write_saved_model(place / "cut", [("x", "Placeholder", ()), ("y", "Relu", ("x",))])
    whole = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(whole[: len(whole) // 2])
    return folder


def profile(place: Path) -> Path:
    with zipfile.ZipFile(TINY) as archive:
        return Path(archive.extract("profile.xplane.pb", place))


def earlier_analysis(place: Path) -> Path:
    (place / "report.json").write_text('{"schema_version": 1, "graphlens_version": "0.1"}')
    return place / "report.json"


def script(place: Path) -> Path:
    (place / "train.py").write_text("print('training')\n")
    return place / "train.py"


@pytest.mark.parametrize("static", [(), ("--static",)], ids=["", "static"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty_folder, "is an empty folder"),
        (text_file, "is a text file, but no graph"),
        (truncated_model, "is damaged"),
        (earlier_analysis, "is an analysis already"),
        (script, "is a Python script"),
        (lambda place: place / "nowhere", "does not exist"),
        (lambda place: "", "no target was given"),
    ],
)
def test_an_unreadable_target_is_refused(
    run: Command, tmp_path: Path, make: Callable[[Path], object], message: str, static: tuple[str, ...]
) -> None:
    target = make(tmp_path)
    before = files_in(tmp_path)
    outcome = run("analyze", target, "-o", "report.html", "-o", "report2.json", *static)
    assert_refused(outcome, message, tmp_path, before)


@pytest.mark.parametrize("name", sorted(path.name for path in BAD.iterdir() if path.name != "expected.json"))
def test_every_bad_file_is_refused(run: Command, tmp_path: Path, name: str) -> None:
    expected = json.loads((BAD / "expected.json").read_text())[name]
    assert_refused(run("analyze", BAD / name, "-o", "report.html"), expected, tmp_path, set())


def test_damaged_real_files_are_refused(run: Command, tmp_path: Path, shared_real: RealInputs) -> None:
    target = shared_real / "malformed" / "corrupt_tpu.xplane.pb"
    assert_refused(run("analyze", target, "-o", "report.html"), "is damaged", tmp_path, set())


@pytest.mark.parametrize("name", ["bad_node_attr", "negative_shape"])
def test_what_only_tensorflow_rejects_is_read(run: Command, tmp_path: Path, shared_real: RealInputs, name: str) -> None:
    outcome = run("analyze", shared_real / "malformed" / name, "--static", "-o", "report.json")
    assert outcome.code == 0
    assert json.loads((tmp_path / "report.json").read_text())["graphs"]["traced"]["nodes"] > 0


# -- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("analyse", TINY), "invalid choice: 'analyse'"),
        (("analyze",), "the following arguments are required: TARGET"),
        (("analyze", TINY, "--shape", "1,2,3"), "'1,2,3' is not of the form NAME=1,224,224,3"),
        (("analyze", TINY, "--shape", "x=1,two"), "'x=1,two' is not of the form"),
        (("analyze", TINY, "--shape", "x=-1"), "'x=-1' is not of the form"),
        (("analyze", TINY, "--steps", "0"), "'0' is not a whole number from 1"),
        (("analyze", TINY, "--steps", "many"), "'many' is not a whole number from 1"),
        (("analyze", TINY, "--steps", MOST_STEPS + 1), f"at most {MOST_STEPS}"),
        (("analyze", TINY, "--batch", "-1"), "'-1' is not a whole number from 1"),
        (("analyze", TINY, "--time-budget", "-5"), "'-5' is not a number of seconds"),
        (("analyze", TINY, "--time-budget", "inf"), "'inf' is not a number of seconds"),
        (("analyze", TINY, "--fail-on", "critical"), "invalid choice: 'critical'"),
        (("analyze", TINY, "--select", "GL999"), "no rule is called 'GL999'"),
        (("analyze", TINY, "--ignore", "unfolded-batchnorm"), "did you mean 'unfolded-batch-norm'"),
        (("analyze", TINY, "-o"), "expected one argument"),
        (("analyze", TINY, "-o", "report.docx"), "end the file's name in .html, .json, .txt"),
        (("analyze", TINY, "-o", "report"), "end the file's name in .html, .json, .txt"),
        (("analyze", TINY, "-o", "missing/report.html"), "the folder of 'missing/report.html' does not exist"),
        (("record", TINY, "-o", "again.capture"), "is a recording already"),
        (("record", TINY, "-o", "missing/again.capture"), "the folder of 'missing/again.capture' does not exist"),
        (("record", TINY, "-o", "report.html"), "end it in .capture"),
        (("record", TINY), "the following arguments are required: -o/--output"),
        (("rules", "GL999"), "no rule is called 'GL999'"),
        (("demo", "-o", "missing/report.html"), "does not exist"),
    ],
    ids=lambda value: " ".join(map(str, value[:1] + value[2:])) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_line(run: Command, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    assert_refused(run(*arguments), message, tmp_path, set())


def test_a_folder_is_no_report(run: Command, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    assert_refused(run("analyze", TINY, "-o", "report.html"), "is a folder", tmp_path, {"report.html"})


def test_a_bad_output_is_found_before_a_bad_target(run: Command) -> None:
    """The outputs are checked first, because recording a target can take minutes."""
    assert "report.docx" in run("analyze", "nowhere", "-o", "report.docx").err


@pytest.mark.parametrize("option", ["--signature", "--tag"])
def test_a_target_without_signatures_and_tags_is_given_none(run: Command, tmp_path: Path, option: str) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    outcome = run("analyze", "model.h5", option, "serve")
    assert outcome.code == 2
    assert outcome.err == (
        f"graphlens: 'model.h5' has no signatures and tags: leave out {option}, or name a SavedModel\n"
    )


@pytest.mark.parametrize("option", [("--signature", "other"), ("--tag", "gpu")])
def test_an_unknown_signature_or_tag_names_those_there_are(
    run: Command, tmp_path: Path, option: tuple[str, str]
) -> None:
    folder = write_saved_model(tmp_path / "model", [("x", "Placeholder", ()), ("y", "Relu", ("x",))])
    before = files_in(tmp_path)
    outcome = run("analyze", folder, "--static", "-o", "report.html", *option)
    known = "serving_default" if option[0] == "--signature" else "serve"
    assert_refused(outcome, f"pass {option[0]} with one of: {known}", tmp_path, before)


# -- exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "code"), [("low", 1), ("medium", 0), ("high", 0)])
def test_fail_on_counts_findings_at_or_above_it(run: Command, tmp_path: Path, bound: str, code: int) -> None:
    outcome = run("analyze", ALWAYS_FINDS, "--select", "GL501", "--fail-on", bound, "-o", "report.json")
    severities = [finding["severity"] for finding in json.loads((tmp_path / "report.json").read_text())["findings"]]
    assert severities == ["low"]
    assert outcome.code == code
    assert outcome.err == ""


def test_a_rule_that_is_left_out_fails_nothing(run: Command) -> None:
    assert run("analyze", ALWAYS_FINDS, "--fail-on", "low", "--ignore", "GL").code == 0


@pytest.mark.parametrize("content", [b"no archive", b"PK\x03\x04 and no more"])
def test_inputs_that_cannot_be_read_are_wrong_usage_before_tensorflow_starts(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    gathering = sys.modules[child_request.__module__]
    monkeypatch.setattr(gathering, "start_recorder", lambda *_, **__: pytest.fail("a child was started"))
    folder = write_saved_model(tmp_path / "model", [("x", "Placeholder", ()), ("y", "Relu", ("x",))])
    (tmp_path / "in.npz").write_bytes(content)
    before = files_in(tmp_path)
    outcome = run("analyze", folder, "--inputs", "in.npz", "-o", "report.json")
    assert_refused(outcome, "--inputs in.npz: not a readable .npz file", tmp_path, before)


def test_names_in_a_model_cannot_steer_the_terminal(run: Command, tmp_path: Path) -> None:
    """A title change, a bell, a cleared screen, and a direction override, as a signature's name."""
    folder = write_saved_model(tmp_path / "model", [("x", "Placeholder", ()), ("y", "Relu", ("x",))])
    file = folder / "saved_model.pb"
    evil = "\x1b]0;mew\x07\x1b[2J\u202e".encode()
    assert len(evil) == len(b"serving_default")
    file.write_bytes(file.read_bytes().replace(b"serving_default", evil))
    outcome = run("analyze", folder, "--signature", "none", "--static")
    assert_one_line(outcome)
    assert "[2J" in outcome.err, "the name is there, without what makes it work"
    assert all(letter.isprintable() for letter in outcome.err.rstrip("\n"))


def test_progress_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with line.shown() as progress:
        progress("proving \x1b]0;owned\x07", 1, 2)
    shown = terminal.getvalue().replace("\r\x1b[K", "")
    assert (shown.isprintable(), "proving" in shown) == (True, True)


def test_a_long_stage_counts_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(line, "_TICK_S", 0.005)
    monkeypatch.setattr(line, "_SHOWN_FROM_S", 0)
    with line.shown() as progress:
        progress("proving GL203 (1 of 2)", 0, 0)
        while terminal.getvalue().count("proving GL203 (1 of 2) … 0 s") < 3:
            time.sleep(0.005)
    assert terminal.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(("kind", "folder"), [("saved_model", None), ("keras", None), ("callable", os.getcwd())])
def test_only_a_callable_is_looked_for_in_the_current_folder(kind: Any, folder: str | None) -> None:
    asked = child_request(Request.of("target"), Identified(kind, Path("target")), "record")
    assert asked.import_path == folder


def test_an_unsafe_model_is_read_but_not_executed(run: Command, tmp_path: Path) -> None:
    nodes = [("name", "Placeholder", ()), ("content", "ReadFile", ("name",)), ("out", "Identity", ("content",))]
    folder = write_saved_model(tmp_path / "reads", nodes)
    outcome = run("analyze", folder, "--select", "GL901", "-o", "report.json", "-o", "report.html")
    assert outcome.code == 3
    assert_one_line(Outcome(3, "", outcome.err))
    assert "op 'content' ReadFile reads files; pass --trust to execute it anyway" in outcome.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(finding["code"], finding["nodes"]) for finding in report["findings"]] == [("GL901", ["content"])]
    assert report["step"] is None
    assert report["quality"]["grade"] == "none"
    assert [error["stage"] for error in report["errors"]] == ["execute"]
    assert "--trust" in (tmp_path / "report.html").read_text()


def test_an_unsafe_model_can_be_judged_statically(run: Command, tmp_path: Path) -> None:
    nodes = [("name", "Placeholder", ()), ("content", "ReadFile", ("name",))]
    folder = write_saved_model(tmp_path / "reads", nodes)
    assert run("analyze", folder, "--static").code == 0
    assert run("analyze", folder, "--static", "--fail-on", "medium").code == 1


def test_a_failed_recording_leaves_no_file(run: Command, tmp_path: Path) -> None:
    folder = write_saved_model(tmp_path / "reads", [("name", "Placeholder", ()), ("content", "ReadFile", ("name",))])
    before = files_in(tmp_path)
    outcome = run("record", folder, "-o", "out.capture")
    assert outcome.code == 3
    assert_one_line(outcome)
    assert files_in(tmp_path) == before


# -- reports ----------------------------------------------------------------------------------------------------------


def test_one_analysis_writes_every_format(run: Command, tmp_path: Path) -> None:
    outcome = run("analyze", TINY, "-o", "r.html", "-o", "r.json", "-o", "r.txt")
    assert outcome.code == 0
    assert outcome.err == ""
    assert files_in(tmp_path) == {"r.html", "r.json", "r.txt"}
    document = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(document, SCHEMA)
    assert sum(row["ns"] for row in document["ledger"]) == document["step"]["median_ns"]
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    for text in (page, (tmp_path / "r.txt").read_text(), outcome.out):
        assert "unfolded-batch-norm" in text


def test_a_report_replaces_an_older_one(run: Command, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("old")
    assert run("analyze", TINY, "-o", "r.json").code == 0
    assert files_in(tmp_path) == {"r.json"}
    assert json.loads((tmp_path / "r.json").read_text())["schema_version"] == 1


def test_the_traced_graph_of_a_capture_is_judged_statically(run: Command, tmp_path: Path) -> None:
    with zipfile.ZipFile(TINY) as archive:
        archive.extract("traced.pb", tmp_path)
    outcome = run("analyze", "traced.pb", "--static", "-o", "r.json")
    assert outcome.code == 0
    document = json.loads((tmp_path / "r.json").read_text())
    assert (document["step"], document["ledger"], document["critical_path"]) == (None, [], None)
    assert all(op["self_ns"] is None for op in document["ops"])
    assert {finding["saving"]["origin"] for finding in document["findings"]} <= {"unknown"}
    assert {status["code"] for status in document["rules"]} >= {"GL203", "GL901"}


def test_static_reads_a_model_made_of_nothing_but_protobufs(run: Command, tmp_path: Path) -> None:
    nodes = [("x", "Placeholder", ()), ("a", "OpThatNobodyKnows", ("x",)), ("y", "Relu", ("a",))]
    outcome = run("analyze", write_saved_model(tmp_path / "model", nodes), "--static", "-o", "r.json")
    assert outcome.code == 0
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["graphs"]["traced"] == {"nodes": 3, "edges": 2, "functions": 0}
    assert {op["name"]: op["op"] for op in document["ops"]} == {name: op for name, op, _ in nodes}


# -- rules, help and pipes --------------------------------------------------------------------------------------------

# Codes never change their meaning and never go away; new ones may be added.
CODES = set("GL001 GL002 GL003 GL103 GL203 GL207 GL208 GL210 GL212 GL404 GL501 GL504 GL602 GL901".split())


def test_every_rule_is_listed_once(run: Command) -> None:
    outcome = run("rules")
    assert outcome.code == 0
    listed = [line.split()[0] for line in outcome.out.splitlines()]
    assert listed == sorted(set(listed))
    assert set(listed) >= CODES


@pytest.mark.parametrize("name", ["GL203", "unfolded-batch-norm"])
def test_a_rule_is_explained_by_code_and_by_name(run: Command, name: str) -> None:
    outcome = run("rules", name)
    assert outcome.code == 0
    assert outcome.out.startswith("# GL203 unfolded-batch-norm")
    assert "## Why it costs" in outcome.out


@pytest.mark.parametrize("command", [(), ("analyze",), ("record",), ("rules",), ("demo",)])
def test_help_says_the_exit_codes(run: Command, command: tuple[str, ...]) -> None:
    outcome = run(*command, "--help")
    assert outcome.code == 0
    assert "3 the model could not be executed" in " ".join(outcome.out.split())


def test_a_command_is_one_file(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found where the others are, and nothing else is told of it."""
    (tmp_path / "greet.py").write_text(
        "SUMMARY, PLACE = 'say hello', 25\n"
        "def add(parser): parser.add_argument('name')\n"
        "def run(given): print('hello', given.name); return 7\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    outcome = run("greet", "you")
    assert (outcome.code, outcome.out) == (7, "hello you\n")
    listed = re.findall(r"^    (\w+) ", run("--help").out, re.MULTILINE)
    assert listed == ["analyze", "run", "record", "greet", "fix", "rules", "demo"]


def test_the_version_is_printed(run: Command) -> None:
    import graphlens

    assert run("--version").out == f"graphlens {graphlens.__version__}\n"


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_goes_away_is_no_error(unbuffered: str) -> None:
    command, pipe = [sys.executable, "-m", "graphlens", "rules"], subprocess.PIPE
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=REPOSITORY, env=env) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: Any) -> int:
        raise MemoryError

    monkeypatch.setattr("graphlens.cli.commands.rules.run", fail)
    assert cli.main(["rules"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("graphlens: this process may not use as much memory as the target needs")
    assert message.count("\n") == 1
