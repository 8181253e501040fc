"""Who times scripts, with scripts that are answers: what is started, how long blocks are, and when it is enough."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graphlens.children.gate_messages import (
    AtGate,
    Over,
    RunBlock,
    RunSteps,
    RunToGate,
    TakeElements,
    Taken,
    TakeValues,
    Watched,
)
from graphlens.children.messages import Block, Done, Failure, Pair
from graphlens.children.start import ChildGone
from graphlens.cli import parser
from graphlens.command import script_command_of
from graphlens.config import Request
from graphlens.errors import UsageError
from graphlens.facts.core import Facts
from graphlens.ir.analysis import Proof
from graphlens.ir.edits import AddPrefetch, JitCompile, ScriptSetting, SessionSetting
from graphlens.ir.script import Script
from graphlens.ir.training import LayerScope
from graphlens.options import WordError, change
from graphlens.pipeline import tries
from graphlens.prove import script_runner
from graphlens.prove.runner import ORIGINAL, FailedError, GoneError
from graphlens.prove.script_runner import BLOCK_MS, DRAIN_MS, SHORTEST_BLOCK_MS, ScriptRun, ScriptRunner
from graphlens.rules.execution.granularity import op_overhead_bound
from graphlens.testing import sketch
from graphlens.tf.watch import gate as gate_module
from graphlens.tf.watch import outside, rounds, writes
from graphlens.tf.watch.gate import Gate

STEP_NS, ELEMENT_NS = 1_000_000, 700_000
AT_GATE = AtGate(8, 8, 5 * STEP_NS, STEP_NS, {}, accelerated=False, onednn=True, threads={})

# -- a runner whose scripts are answers -----------------------------------------------------------------------------


@dataclass
class Trials:
    """Starts scripts that stand still at ``gate`` and make ``blocks`` blocks before they are over."""

    gate: AtGate = AT_GATE
    blocks: int = 10**6
    elements: Block | Failure = field(default_factory=lambda: Block(ELEMENT_NS, ELEMENT_NS))
    asked: list[Any] = field(default_factory=list)
    started: int = 0

    def start(self, folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> OneTrial:
        self.started += 1
        return OneTrial(self, self.blocks)


@dataclass
class OneTrial:
    trials: Trials
    blocks_left: int

    def ask(self, request: Any, time_limit_s: float) -> Any:
        self.trials.asked.append(request)
        if isinstance(request, RunToGate):
            return self.trials.gate
        if isinstance(request, RunBlock):
            self.blocks_left -= 1
            if self.blocks_left < -1:
                raise ChildGone("its process ended")
            return Block(STEP_NS, STEP_NS) if self.blocks_left >= 0 else Over("the script came to its end")
        if isinstance(request, TakeElements):
            return self.trials.elements
        return {RunSteps: Block(STEP_NS, STEP_NS), TakeValues: Taken(0, 1)}.get(type(request), Done())

    def standing_still(self) -> AbstractContextManager[None]:
        return nullcontext()

    def end(self) -> None:
        pass


def runner_of(
    trials: Trials, folder: Path, monkeypatch: pytest.MonkeyPatch, *, of_input: bool = False, **run: Any
) -> ScriptRunner:
    monkeypatch.setattr(script_runner, "start", trials.start)
    watched = Watched("multi_step_on_iterator")
    return ScriptRunner(ScriptRun(("train.py",), watched, 2.0, **{"calls": 40, **run}), folder, of_input=of_input)


def test_blocks_are_short_enough_for_a_script_that_ends_and_whole_for_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for gate, expected in ((AT_GATE, SHORTEST_BLOCK_MS), (replace(AT_GATE, endless=True), BLOCK_MS)):
        trials = Trials(gate)
        runner = runner_of(trials, tmp_path, monkeypatch)
        runner.open(10.0)
        runner.apply("copy", (), 10.0)
        runner.time(ORIGINAL, "copy", 2, BLOCK_MS, 10.0)
        assert {one.ms for one in trials.asked if isinstance(one, RunBlock)} == {expected}


def test_scripts_that_are_over_are_started_again_as_long_as_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(blocks=3)
    runner = runner_of(trials, tmp_path, monkeypatch)
    runner.open(10.0)
    runner.apply("copy", (), 10.0)
    assert len(runner.time(ORIGINAL, "copy", 6, BLOCK_MS, 100.0)) == 6
    assert trials.started > 2
    begun = trials.started
    monkeypatch.setattr(runner, "_start_s", 60.0)
    for _ in range(2):  # it is not asked after its end, either
        assert runner.time(ORIGINAL, "copy", 6, BLOCK_MS, 100.0) == [], "there is no time for two starts of a minute"
    assert trials.started == begun


def test_elements_are_taken_in_turns_and_what_was_made_ahead_meanwhile_is_used_up_before_steps_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(replace(AT_GATE, endless=True))
    runner = runner_of(trials, tmp_path, monkeypatch, of_input=True)
    runner.open(10.0)
    runner.apply("copy", (), 10.0)
    runner.time(ORIGINAL, "copy", 2, BLOCK_MS, 10.0)
    one = Pair(ELEMENT_NS, ELEMENT_NS, ELEMENT_NS, ELEMENT_NS)
    assert runner.time_input(ORIGINAL, "copy", 2, BLOCK_MS, 10.0, edits=(AddPrefetch(),)) == [one, one]
    runner.time(ORIGINAL, "copy", 2, BLOCK_MS, 10.0)
    timed = [one for one in trials.asked if isinstance(one, (RunBlock, TakeElements))]
    steps = [RunBlock(DRAIN_MS), RunBlock(BLOCK_MS)] * 2 + [RunBlock(BLOCK_MS)] * 2  # those drained once, in two pairs
    assert timed == [*steps, *[TakeElements((AddPrefetch(),), BLOCK_MS)] * 4, *steps]
    trials.elements = Failure("its elements cannot be taken a second time: used up")
    with pytest.raises(FailedError, match="used up"):
        runner.time_input(ORIGINAL, "copy", 2, BLOCK_MS, 10.0, edits=())
    runner.drop("copy")
    with pytest.raises(GoneError):
        runner.time_input(ORIGINAL, "copy", 2, BLOCK_MS, 10.0, edits=())


def test_a_process_may_take_what_is_left_to_start_and_as_long_as_the_first_one_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(Trials(), tmp_path, monkeypatch)
    assert runner._limit_s(30.0) == 30.0 + 3 * 2.0, "nobody knows yet how long it takes"
    monkeypatch.setattr(runner, "_start_s", 5.0)
    assert runner._limit_s(60.0) == 60.0 - 20.0
    assert runner._limit_s(21.0) == 3 * 5.0


def test_a_trial_is_told_whether_the_script_may_do_again_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for allowed in (False, True):
        trials = Trials()
        runner_of(trials, tmp_path, monkeypatch, does_again=allowed).open(10.0)
        assert [one.does_again for one in trials.asked if isinstance(one, RunToGate)] == [allowed]


# -- the data of an epoch -------------------------------------------------------------------------------------------


class Silent:
    """A channel to nobody."""

    def receive(self) -> Any:
        raise AssertionError("nobody asks")

    def send(self, message: Any) -> None:
        raise AssertionError("nobody listens")


def test_an_epoch_is_gone_through_again_where_its_steps_are_timed_and_not_before() -> None:
    gate = Gate(RunToGate(Watched("step"), does_again=True), Silent(), {})

    def epoch(_self: object) -> Iterator[int]:
        yield from range(3)

    again = rounds.again(gate, epoch)
    assert list(again(None)) == [0, 1, 2], "the script is on its way to its gate"
    assert gate.may_do_again
    gate._has_stood = True
    assert not gate.may_do_again
    assert list(again(None)) == [0, 1, 2], "this one trains nothing: it evaluates"
    seen = []
    for batch in again(None):
        assert gate._rounds == 1
        gate._calls += 1
        seen.append(batch)
        if len(seen) == 8:
            break
    assert seen == [0, 1, 2, 0, 1, 2, 0, 1]


class Asking:
    """A channel to somebody who wants a block of steps."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def receive(self) -> Any:
        return RunBlock(BLOCK_MS)

    def send(self, message: Any) -> None:
        self.answers.append(message)


def test_what_lies_between_two_rounds_over_the_data_is_timed_with_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes 10 ms, each epoch of 20 another 500 ms to begin: a block of 50 ms has none of those."""
    now_ns = [0]

    def tick() -> int:
        return now_ns[0]

    def pass_ms(ms: int) -> None:
        now_ns[0] += ms * 1_000_000

    def epoch(_self: object) -> Iterator[int]:
        pass_ms(500)
        yield from range(20)

    monkeypatch.setattr(gate_module, "time", SimpleNamespace(perf_counter_ns=tick, process_time_ns=tick))
    channel = Asking()
    gate = Gate(RunToGate(Watched("step", called_again=False), at_step=1), channel, {})
    for _ in zip(rounds.again(gate, epoch)(None), range(200), strict=False):
        gate._held_up(lambda: pass_ms(10), lambda: 0)
    blocks = [answer for answer in channel.answers if isinstance(answer, Block)]
    assert len(blocks) > 20
    assert {round(block.wall_ns) for block in blocks} == {10_000_000}
    assert {round(block.cpu_ns) for block in blocks} == {10_000_000}


class EnoughError(Exception):
    """Nobody asks for more."""


class AskingTwice(Asking):
    """A channel to somebody who wants two blocks."""

    def receive(self) -> Any:
        if len(self.answers) > 2:
            raise EnoughError
        return RunBlock(1.0)


@pytest.mark.parametrize(
    ("loops", "uses_up", "is_made_again"),
    [(True, False, True), (False, False, False), (True, True, False)],
    ids=["a loop over the data it is given", "a step that is given data", "a loop whose data are used up"],
)
def test_only_a_loop_over_data_that_last_is_made_again_for_the_script(
    loops: bool, uses_up: bool, is_made_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_is_given_data", lambda _call: True)
    gate = Gate(RunToGate(Watched("epoch"), at_step=1), AskingTwice(), {})
    monkeypatch.setattr(gate, "_is_loop", lambda: loops)
    steps = [0]
    monkeypatch.setattr(gate, "_steps", lambda: steps[0])

    def epoch() -> None:
        time.sleep(0.0006)
        steps[0] += 1 if not uses_up or steps[0] < 1 else 0

    made = 0
    with contextlib.suppress(EnoughError):
        for made in range(1, 10):  # noqa: B007
            gate._held_up(epoch, lambda: 0)
    assert (made == 2) == is_made_again, "the script makes one on the way to its gate, and that one"


# -- what is written past Python ------------------------------------------------------------------------------------

HOMES = ("/tmp/own/",)
FILES = "tensorflow.python.lib.io._pywrap_file_io"


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "told"),
    [
        ("WritableFile", (b"/data/a", b"w"), {}, "writes the file '/data/a'"),
        ("WritableFile", (b"/tmp/own/a", b"w"), {}, ""),
        ("CopyFile", (b"/tmp/own/a", b"/data/b", True), {}, "writes the file '/data/b'"),
        ("TrackableSaver.save", (), {"file_prefix": "/data/ck"}, "saves a checkpoint '/data/ck'"),
        ("Saver.save", ("session", "/data/ck"), {}, "saves a checkpoint '/data/ck'"),
        ("create_file_writer_v2", ("/data/logs",), {}, "writes summaries to '/data/logs'"),
        ("CacheDataset.__init__", ("dataset", ""), {}, ""),
        ("CacheDataset.__init__", ("dataset", "/data/cache"), {}, "caches a dataset in '/data/cache'"),
        ("File.__init__", ("/data/w.h5", "w"), {}, "writes the file '/data/w.h5'"),
        ("File.__init__", ("/data/w.h5",), {"mode": "a"}, "writes the file '/data/w.h5'"),
        ("File.__init__", ("/data/w.h5",), {}, ""),
        ("File.__init__", (object(), "w"), {}, ""),
        ("WritableFile", ("ram://a", "w"), {}, ""),
    ],
)
def test_what_tensorflow_and_h5py_write_is_said_in_words(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], told: str
) -> None:
    owner, _, method = name.rpartition(".")
    (writer,) = [one for one in writes._WRITERS if (one.owner, one.name) == (owner, method)]
    assert writes.deed(writer, args, kwargs, HOMES) == told


def test_a_file_is_where_the_open_folder_is_that_it_is_named_by(tmp_path: Path) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    try:
        homes = (f"{os.path.realpath(tmp_path)}{os.sep}",)
        assert not outside.is_outside("within", homes, number)
        assert outside.is_outside("within", homes)
    finally:
        os.close(number)


# -- a short loop over time -----------------------------------------------------------------------------------------

RECURRENT = """
x = Placeholder() float32[4]
*30 model/lstm/a# = Tanh(x) float32[4] 20us x{steps}
y = MatMul(x, x) float32[4,4] 50us
"""


def fix_of(steps: int, *, kind: str = "LSTM", is_script: bool = True) -> Any:
    evidence = replace(
        sketch(RECURRENT.replace("{steps}", str(steps))),
        scopes={"model/lstm": LayerScope("model/lstm", kind)},
        script=Script() if is_script else None,
    )
    (found,) = op_overhead_bound(Facts(evidence))
    return found.fix


def test_the_short_loop_of_a_recurrent_layer_is_to_be_unrolled() -> None:
    fix = fix_of(12)
    assert fix.edits == (ScriptSetting("unroll"),)
    assert fix.summary == "Unroll the loop over 12 steps of time: give the layer LSTM unroll=True"


def test_a_long_loop_another_layer_or_a_model_without_its_script_is_not() -> None:
    assert fix_of(100).edits == (JitCompile(),)
    assert fix_of(12, kind="Dense").edits == (JitCompile(),)
    assert fix_of(12, is_script=False).edits == (JitCompile(),)


# -- what the user wants tried --------------------------------------------------------------------------------------


def test_a_change_that_is_asked_for_is_a_question_and_its_answer_the_title() -> None:
    assert [tries.edit_of(word) for word in ("onednn=0", "intra_op=2", "unroll", "mixed_precision=mixed_bfloat16")] == [
        SessionSetting({"TF_ENABLE_ONEDNN_OPTS": "0"}),
        SessionSetting(threads={"intra_op": 2}),
        ScriptSetting("unroll"),
        ScriptSetting("mixed_precision", "mixed_bfloat16"),
    ]
    (asked,) = tries.asked_for(["onednn=0", "onednn=0"])
    refuted = replace(asked, proof=Proof("refuted", "slower", speedup=0.8, ci95=(0.7, 0.9), command="graphlens run"))
    told = tries.answered(refuted, "graphlens run", " train.py")
    assert told.title == "onednn=0 makes this step 1.2 times slower here: 0.80x [0.70, 0.90]"
    assert told.proof.command == "graphlens run --try onednn=0 train.py"
    assert tries.asked_for(["mixed_precision=mixed_bfloat16"])[0].fix.safety == "manual"


def test_the_line_that_asks_again_gives_the_script_nothing_but_its_own_words() -> None:
    request = Request.of("train.py", rtol=0.01, select=("GL402",), tries=("unroll",))
    words = ("train.py", "--name", "a run", "--select", "best")
    before, after = script_command_of(request.but(select=(), tries=()), words, reruns=True)
    given = parser().parse_args(shlex.split(f"{before} --select GL203{after}")[1:])
    assert ([given.script, *given.words], given.rtol, given.rerun) == ([*words], 0.01, True)
    assert tuple(given.select) == ("GL203",)


@pytest.mark.parametrize("word", ["faster", "unroll=1", "steps_per_execution", "steps_per_execution=many", "onednn="])
def test_what_is_no_change_is_refused_by_name(word: str) -> None:
    with pytest.raises(WordError):
        change(word)


def test_what_is_asked_for_and_nothing_measured_contradict_each_other() -> None:
    given = parser().parse_args(["run", "--no-prove", "--try", "unroll", __file__])
    with pytest.raises(UsageError, match="leave one of them out"):
        given.run(given)
