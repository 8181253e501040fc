"""The one way to start a child process: start it, send it requests, watch it, and say how it ended.

Standard library only: a parent never imports TensorFlow.
"""

from __future__ import annotations

import os
import queue
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from graphlens.children.messages import Done, Failure, MessageError, Progress, from_line, to_line

LOG_NAME = "stderr.txt"
XLA_DUMP = "xla.part"  # the child reads it there and removes it
TEMPORARY = "temporary.part"  # where the child and the program in it put temporary files: they go with the directory
USAGE_EXIT_CODE = 2
_POLL_S = 0.2
_END_GRACE_S = 5.0  # for a child that has closed its channel and is unloading libraries
# What every child runs first.  `-c` puts the current folder, where a model file may lie beside Python files that its
# author chose, in front of everything; PYTHONSAFEPATH would keep it out from Python 3.11 on only.
_BOOTSTRAP = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from graphlens.children import orphan; orphan.watch(int(sys.argv.pop(1)), int(sys.argv.pop(1))); "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_LOG_TAIL_BYTES = 16 << 10

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the child ended.  ``message`` is one line for the user, empty when all went well."""

    returncode: int
    signal: str | None = None
    timed_out: bool = False
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether all that was asked for is done."""
        return self.returncode == 0 and not self.timed_out

    @property
    def usage_error(self) -> bool:
        """Whether the child refused what it was asked for, an input for instance."""
        return self.returncode == USAGE_EXIT_CODE


class ChildGone(Exception):
    """The child ended before it answered; the message says how."""

    def __init__(self, message: str, timed_out: bool) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True)
class Child:
    """A running child; ``messages`` receives what it says, then ``None``.

    The child and all it started are ended when ``lifeline`` is closed, by whatever ends this process if need be.
    """

    process: subprocess.Popen[str]
    directory: Path
    messages: queue.SimpleQueue[Any]
    lifeline: IO[bytes]

    def send(self, request: Any) -> None:
        """Send a request; a child that is already gone is reported by whoever waits for it."""
        with suppress(OSError):  # BrokenPipeError; on Windows EINVAL
            _stdin(self).write(to_line(request) + "\n")
            _stdin(self).flush()

    def ask(self, request: Any, time_limit_s: float) -> Any:
        """Send one of several requests, and return the one message with which the child answers.

        Raises
        ------
        ChildGone
            If it ends instead, or takes longer than ``time_limit_s``; it is ended then, and all it started.
        """
        deadline_s = time.monotonic() + time_limit_s
        self.send(request)
        answer = next(_received(self, deadline_s), None)
        if answer is not None:
            return answer
        timed_out = time.monotonic() >= deadline_s
        if not timed_out:
            _ended(self.process, _END_GRACE_S)
        self.cancel()
        raise ChildGone(f"it took longer than {time_limit_s:.0f} s" if timed_out else _end_of(self), timed_out)

    def answers(self, time_limit_s: float) -> list[Any]:
        """Return what the child says until it ends, or the time is up; it is ended then."""
        try:
            return list(_received(self, time.monotonic() + time_limit_s))
        finally:
            self.cancel()

    def standing_still(self) -> AbstractContextManager[None]:
        """Have the child and all it started do nothing meanwhile, where the system can; its memory stays."""
        return standing_still(self.process.pid)

    def cancel(self) -> None:
        """Tell the child that there is nothing (more) to do, and end it with all it started; harmless afterwards."""
        _kill(self.process)
        self.lifeline.close()

    def wait(self, on_progress: OnProgress | None = None, time_limit_s: float | None = None) -> Outcome:
        """Wait for the end, at most ``time_limit_s``; the child and its children never outlive this call."""
        deadline_s = float("inf") if time_limit_s is None else time.monotonic() + time_limit_s
        last: Any = None
        try:
            for message in _received(self, deadline_s):
                last = message
                if isinstance(message, Progress) and on_progress is not None:
                    on_progress(message.what, message.done, message.of)
            in_time = time.monotonic() < deadline_s
            ended = _ended(self.process, min(_END_GRACE_S, max(0.0, deadline_s - time.monotonic())))
        finally:
            self.cancel()
        if ended:
            return _outcome(self, last)
        return _unended(self, last, in_time, time_limit_s)


@contextmanager
def standing_still(group: int) -> Iterator[None]:
    """Have a group of processes do nothing meanwhile, where the system can; harmless where it has ended."""
    stops = hasattr(signals, "SIGSTOP")
    with suppress(ProcessLookupError):
        if stops:
            os.killpg(group, signals.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            if stops:
                os.killpg(group, signals.SIGCONT)


def start(
    directory: Path,
    module: str,
    env: Mapping[str, str] | None = None,
    *,
    answers: Sequence[type] = (),
    dumps_xla: bool = False,
) -> Child:
    """Start a child, which imports what it needs and then waits for its request.

    Parameters
    ----------
    directory
        Where it leaves files, its log included; made if it does not exist.
    module
        What the child runs.
    env
        Additional environment variables.
    answers
        The classes of the messages that it sends, beside ``Progress``, ``Done`` and ``Failure``.
    dumps_xla
        Whether XLA writes down what it makes, into ``XLA_DUMP``.
    """
    directory = Path(directory).absolute()
    (directory / TEMPORARY).mkdir(parents=True, exist_ok=True)
    held, lifeline = os.pipe()
    command = [sys.executable, "-c", _BOOTSTRAP, str(os.getpid()), str(held), module, str(directory)]
    environment = {**_environment(directory, dumps_xla), **(env or {})}
    environment["PYTHONPATH"] = _without_current_folder(environment["PYTHONPATH"])
    with (directory / LOG_NAME).open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # so that the child and whatever it starts can be ended together
                pass_fds=(held,) if os.name == "posix" else (),
            )
        finally:
            os.close(held)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    assert process.stdout is not None
    expected = (Progress, Done, Failure, *answers)
    threading.Thread(target=_read, args=(process.stdout, messages, expected), daemon=True).start()
    return Child(process, directory, messages, os.fdopen(lifeline, "wb", buffering=0))


def _environment(directory: Path, dumps_xla: bool) -> dict[str, str]:
    env = dict(os.environ)
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    env["KERAS_BACKEND"] = "tensorflow"
    # TensorFlow writes what it traced into files and removes them at its end, which a child that is killed never does.
    env["TMPDIR"] = str(directory / TEMPORARY)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [_source_checkout(), env.get("PYTHONPATH", "")]))
    if dumps_xla:
        dump = f"--xla_dump_to={directory / XLA_DUMP} --xla_dump_hlo_as_text"
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {dump}".strip()
    return env


def _without_current_folder(path: str) -> str:
    """Leave out empty entries, which stand for the current folder (see `_BOOTSTRAP`); a request names that if need be.

    >>> _without_current_folder(os.pathsep.join(["", "/mine", ""]))
    '/mine'
    """
    return os.pathsep.join(filter(None, path.split(os.pathsep)))


def _source_checkout() -> str | None:
    """Return the folder that holds this package, unless it is installed where Python looks anyway."""
    home = Path(__file__).resolve().parents[2]
    return None if home.name in {"site-packages", "dist-packages"} else str(home)


def _read(stream: IO[str], messages: queue.SimpleQueue[Any], expected: Sequence[type]) -> None:
    for line in stream:
        with suppress(MessageError):  # a child that dies while it writes leaves half a line
            messages.put(from_line(line, expected))
    messages.put(None)


def _received(child: Child, deadline_s: float) -> Iterator[Any]:
    """Yield messages until the child closes the channel, ends, or the time is up."""
    has_ended = False
    while time.monotonic() < deadline_s:
        try:
            message = child.messages.get(timeout=min(_POLL_S, max(0.0, deadline_s - time.monotonic())))
        except queue.Empty:
            if has_ended:
                return
            has_ended = child.process.poll() is not None  # its last words may be on their way
            continue
        if message is None:
            return
        yield message


def _ended(process: subprocess.Popen[str], grace_s: float) -> bool:
    """Whether the process ends by itself now that its channel is closed (it may be unloading libraries)."""
    try:
        process.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(process: subprocess.Popen[str]) -> None:
    """End the child with all it started; harmless when it has ended."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signals.SIGKILL)
        else:
            process.kill()
    process.wait()


def _stdin(child: Child) -> IO[str]:
    assert child.process.stdin is not None
    return child.process.stdin


# -- how it ended --------------------------------------------------------------------------------------------------


def _unended(child: Child, last: Any, in_time: bool, time_limit_s: float | None) -> Outcome:
    """Say how a child did that had to be ended; one that was done and was only unloading libraries did well."""
    if isinstance(last, Done):
        return Outcome(0)
    if isinstance(last, Failure):
        return Outcome(last.exit_code, message=last.why)
    code = child.process.returncode
    if in_time:
        message = f"the recording process stopped answering: {last_words(child.directory)}"
        return Outcome(code, _signal_name(code), message=message)
    given = "it was given" if time_limit_s is None else f"of {time_limit_s:g} s that it was given"
    message = f"recording took longer than the time {given}, and was stopped; raise --time-budget"
    return Outcome(code, _signal_name(code), True, message)


def _outcome(child: Child, last: Any) -> Outcome:
    error = last.why if isinstance(last, Failure) else None
    code = child.process.returncode
    name = _signal_name(code)
    if name is not None:
        return Outcome(code, name, False, _death(name, child.directory))
    if code != 0 and error is None:
        error = f"the recording process ended with code {code}: {last_words(child.directory)}"
    return Outcome(code, None, False, error or "")


def _end_of(child: Child) -> str:
    """Say in one line how a child that answers requests came to its end."""
    code = child.process.returncode
    name = _signal_name(code)
    if name == "SIGKILL":
        return "its process was killed (out of memory?)"
    how = f"crashed ({name})" if name is not None else f"ended with code {code}"
    return f"its process {how}: {last_words(child.directory)}"


def _signal_name(returncode: int) -> str | None:
    if returncode >= 0:
        return None
    try:
        return signals.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def _death(name: str, directory: Path) -> str:
    if name == "SIGKILL":
        return "the recording process was killed (out of memory?): try a smaller --batch, or --static"
    return f"the recording process crashed ({name}): {last_words(directory)}"


def last_words(directory: Path) -> str:
    """Condense the end of the child's log to the one line that says most."""
    try:
        text = (directory / LOG_NAME).read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("    ")]
    telling = [line for line in lines if "Error" in line or "Check failed" in line or line.startswith(("F0", "F1"))]
    return (telling or lines or ["it left no message"])[-1][:300]
