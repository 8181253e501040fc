"""What fails in watching a program is never the program's: its call is made once, and ends as it would alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from graphlens.ir.script import DEEDS
from graphlens.pipeline.watched import noted_failure
from graphlens.tf.watch import hooks, script
from graphlens.tf.watch.harmless import Harmless
from graphlens.tf.watch.outside import homes
from graphlens.tf.watch.script import Late, _note


class Failing:
    """A watch that fails before or after the call that it is told of, or asks the program to end."""

    def __init__(self, *, before: BaseException | None = None, after: BaseException | None = None) -> None:
        self._before, self._after = before, after
        self.given_up: list[Exception] = []

    def function(self, function: Any, call: Callable[[], Any]) -> Any:
        if self._before is not None:
            raise self._before
        returned = call()
        if self._after is not None:
            raise self._after
        return returned

    def gradient(self, tape: Any, call: Callable[[], Any]) -> Any:
        return self.function(tape, call)

    def session(self, session: Any, fetches: Any, call: Callable[[], Any]) -> Any:
        return self.function(session, call)

    def profiler(self, call: Callable[[], Any]) -> Any:
        return self.function(None, call)

    def read(self, how: str, call: Callable[[], Any]) -> Any:
        return self.function(how, call)

    def execution(self, concrete: Any) -> None:
        self.function(concrete, lambda: None)

    def traced(self, traces: Any, concrete: Any) -> None:
        self.function(concrete, lambda: None)

    def rows(self, variable: Any, method: str) -> None:
        self.function(variable, lambda: None)

    def iterates(self, dataset: Any) -> None:
        self.function(dataset, lambda: None)

    def give_up(self, error: Exception) -> None:
        self.given_up.append(error)


class Program:
    """Counts its calls."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls, self.error = 0, error

    def __call__(self, x: int) -> int:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return x + 1


WAYS: dict[str, Callable[[Harmless, Callable[[], Any]], Any]] = {
    "function": lambda harmless, call: harmless.function(None, call),
    "gradient": lambda harmless, call: harmless.gradient(None, call),
    "session": lambda harmless, call: harmless.session(None, None, call),
    "profiler": lambda harmless, call: harmless.profiler(call),
    "read": lambda harmless, call: harmless.read("numpy", call),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_watch_that_fails_is_given_up_and_the_call_is_made_once(way: str, when: str) -> None:
    failing, program = Failing(**{when: ValueError("ours")}), Program()
    assert WAYS[way](Harmless(failing), partial(program, 1)) == 2
    assert program.calls == 1
    assert [str(error) for error in failing.given_up] == ["ours"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [KeyError("its own"), SystemExit(3), KeyboardInterrupt()])
def test_what_the_program_raises_is_raised(way: str, error: BaseException) -> None:
    failing, program = Failing(), Program(error)
    with pytest.raises(type(error)) as raised:
        WAYS[way](Harmless(failing), partial(program, 1))
    assert raised.value is error
    assert (program.calls, failing.given_up) == (1, [])


def test_what_the_program_raises_is_raised_also_where_the_watch_fails_over_it() -> None:
    class FailingOver(Failing):
        def function(self, function: Any, call: Callable[[], Any]) -> Any:
            try:
                return call()
            finally:
                raise ValueError("ours")

    failing, program = FailingOver(), Program(KeyError("its own"))
    with pytest.raises(KeyError, match="its own") as raised:
        Harmless(failing).function(None, partial(program, 1))
    assert raised.value.__context__ is None
    assert [str(error) for error in failing.given_up] == ["ours"]


def test_a_program_that_is_to_stop_stops() -> None:
    failing = Failing(after=SystemExit(0))
    with pytest.raises(SystemExit):
        Harmless(failing).function(None, partial(Program(), 1))
    assert failing.given_up == []


def test_what_is_only_told_fails_in_silence() -> None:
    failing = Failing(before=ValueError("ours"))
    harmless = Harmless(failing)
    harmless.execution(None)
    harmless.traced(None, None)
    harmless.rows(None, "gather")
    harmless.iterates(None)
    assert len(failing.given_up) == 4


@pytest.mark.parametrize("way", WAYS)
def test_a_watch_that_cannot_even_be_given_up_leaves_the_program_alone(way: str) -> None:
    class Hopeless(Failing):
        def give_up(self, error: Exception) -> None:
            raise AttributeError("nothing can be told") from error

    program = Program()
    harmless = Harmless(Hopeless(before=ValueError("ours")))
    assert WAYS[way](harmless, partial(program, 1)) == 2
    harmless.execution(None)
    assert program.calls == 1


def test_a_watch_that_cannot_be_made_is_told_once_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "graphlens.tf.watch.watch", None)  # importing it fails
    late, program = Late(tmp_path, "train.py", 3), Program()
    harmless = Harmless(late)
    assert [harmless.function(None, partial(program, 1)) for _ in range(2)] == [2, 2]
    told = noted_failure(tmp_path)
    assert told.startswith("watching the program failed before anything was recorded: ")
    assert "graphlens.tf.watch.watch" in told
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="watching the program failed"):
        late.rows(None, "gather_nd")


def test_what_cannot_be_noted_of_the_script_is_no_error_of_its_own(tmp_path: Path) -> None:
    late = Late(tmp_path, "train.py", 3)
    _note(tmp_path, late, "writes the file 'caf\udce9'")  # a name that is no UTF-8
    assert (tmp_path / DEEDS).read_text("utf-8") == "writes the file 'caf\\udce9'\n"
    _note(tmp_path / "removed", late, "forks")


def test_who_has_no_home_can_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # of whom no file of the system tells
    with pytest.raises(RuntimeError):
        Path.home()
    assert all(folder.endswith(os.sep) for folder in homes("/own", caches=True))


def test_the_arguments_of_a_call_can_still_be_seen() -> None:
    seen: list[Any] = []

    class Looking(Failing):
        def function(self, function: Any, call: Any) -> Any:
            seen.append((call.func, call.args))
            return call()

    program = Program()
    assert Harmless(Looking()).function(None, partial(program, 1)) == 2
    assert seen == [(program, (1,))]


def test_what_is_told_of_an_error_has_no_call_of_what_watches(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither has what Python tells before it: an error that was raised while another one was handled."""

    def raises(_: object) -> None:
        raise ValueError("its own")

    called = hooks._function(raises, Harmless(Failing()))

    def handles_it() -> None:
        try:
            called(object())
        except ValueError as error:
            raise KeyError("of the script") from error

    with pytest.raises(KeyError) as raised:
        handles_it()
    script._tell(raised.value)
    told = capsys.readouterr().err
    assert "its own" in told
    assert "of the script" in told
    assert "in raises\n" in told
    assert told.count("in handles_it\n") == 2
    assert os.path.join("tf", "watch") not in told
