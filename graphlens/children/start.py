"""The parent's side of recording: start the child, send it the request, watch it, and say how it ended.

Standard library only: the parent never imports TensorFlow.
"""

from __future__ import annotations

import json
import os
import queue
import signal as signals
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LOG_NAME = "stderr.txt"
XLA_DUMP = "xla.part"  # the child reads it there and removes it
TEMPORARY = "temporary.part"  # where the child and the program in it put temporary files: they go with the recording
RECORDED = "recorded"  # what the child says when all is written
USAGE_EXIT_CODE = 2
_POLL_S = 0.2
_END_GRACE_S = 5.0  # for a child that has closed its channel and is unloading libraries
# What every child runs first.  `-c` puts the current folder, where a model file may lie beside Python files that its
# author chose, in front of everything; PYTHONSAFEPATH would keep it out from Python 3.11 on only.
_BOOTSTRAP = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from graphlens.children import orphan; orphan.watch(); "
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
        """Whether the recording is complete."""
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
    """A running child; ``messages`` receives its progress lines, then ``None``."""

    process: subprocess.Popen[str]
    directory: Path
    messages: queue.SimpleQueue[dict[str, Any] | None]

    def send(self, request: Mapping[str, Any]) -> None:
        """Send the one request; a child that is already gone is reported by ``wait``."""
        with suppress(OSError):  # BrokenPipeError; on Windows EINVAL
            _stdin(self).write(json.dumps(dict(request)) + "\n")
            _stdin(self).close()

    def ask(self, request: Mapping[str, Any], time_limit_s: float) -> dict[str, Any]:
        """Send one of several requests, and return the one message with which the child answers.

        Raises
        ------
        ChildGone
            If it ends instead, or takes longer than ``time_limit_s``; it is ended then, and all it started.
        """
        deadline_s = time.monotonic() + time_limit_s
        with suppress(OSError):  # BrokenPipeError; on Windows EINVAL
            _stdin(self).write(json.dumps(dict(request)) + "\n")
            _stdin(self).flush()
        answer = next(_received(self, deadline_s), None)
        if answer is not None:
            return answer
        timed_out = time.monotonic() >= deadline_s
        if not timed_out:
            _ended(self.process, _END_GRACE_S)
        _kill(self.process)
        raise ChildGone(f"it took longer than {time_limit_s:.0f} s" if timed_out else _end_of(self), timed_out)

    def cancel(self) -> None:
        """Tell the child that there is nothing to do, and end it."""
        _kill(self.process)

    def wait(self, on_progress: OnProgress | None = None, time_limit_s: float | None = None) -> Outcome:
        """Wait for the end, at most ``time_limit_s``; the child and its children never outlive this call."""
        deadline_s = float("inf") if time_limit_s is None else time.monotonic() + time_limit_s
        last: dict[str, Any] = {}
        try:
            for message in _received(self, deadline_s):
                last = message
                if "error" not in message and on_progress is not None:
                    on_progress(message["progress"], message["done"], message["of"])
            in_time = time.monotonic() < deadline_s
            ended = _ended(self.process, min(_END_GRACE_S, max(0.0, deadline_s - time.monotonic())))
        finally:
            _kill(self.process)
        if ended:
            return _outcome(self, last.get("error"))
        return _unended(self, last, in_time, time_limit_s)


def start(directory: Path, env: Mapping[str, str] | None = None, module: str = "graphlens.tf.record.child") -> Child:
    """Start the child, which imports TensorFlow and then waits for its request.

    Parameters
    ----------
    directory
        Where the capture's parts are written; made if it does not exist.
    env
        Additional environment variables.
    module
        What the child runs.
    """
    directory = Path(directory).absolute()
    (directory / TEMPORARY).mkdir(parents=True, exist_ok=True)
    with (directory / LOG_NAME).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOTSTRAP, module, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(directory, env or {}),
            text=True,
            encoding="utf-8",
            start_new_session=True,  # so that the child and whatever it starts can be ended together
        )
    messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, messages), daemon=True).start()
    return Child(process, directory, messages)


def _environment(directory: Path, extra: Mapping[str, str]) -> dict[str, str]:
    env = dict(os.environ)
    env.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    env["KERAS_BACKEND"] = "tensorflow"
    # TensorFlow writes what it traced into files and removes them at its end, which a child that is killed never does.
    env["TMPDIR"] = str(directory / TEMPORARY)
    # An empty entry would stand for the current folder (see `_BOOTSTRAP`); for a callable the request names that.
    own = env.get("PYTHONPATH", "").split(os.pathsep)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [_source_checkout(), *own]))
    dump = f"--xla_dump_to={directory / XLA_DUMP} --xla_dump_hlo_as_text"
    env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {dump}".strip()
    env.update(extra)
    return env


def _source_checkout() -> str | None:
    """Return the folder that holds this package, unless it is installed where Python looks anyway."""
    home = Path(__file__).resolve().parents[2]
    return None if home.name in {"site-packages", "dist-packages"} else str(home)


def _read(stream: IO[str], messages: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in stream:
        try:
            messages.put(json.loads(line))
        except ValueError:
            continue  # a child that dies while it writes leaves half a line
    messages.put(None)


def _received(child: Child, deadline_s: float) -> Iterator[dict[str, Any]]:
    """Yield messages until the child closes the channel, ends, or the time is up."""
    while time.monotonic() < deadline_s:
        try:
            message = child.messages.get(timeout=min(_POLL_S, max(0.0, deadline_s - time.monotonic())))
        except queue.Empty:
            if child.process.poll() is not None:
                return
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


def _unended(child: Child, last: Mapping[str, Any], in_time: bool, time_limit_s: float | None) -> Outcome:
    """Say how a child did that had to be ended; one that was done and was only unloading libraries did well."""
    if last.get("progress") == RECORDED:
        return Outcome(0)
    if "error" in last:
        return Outcome(last.get("exit", 1), message=last["error"])
    code = child.process.returncode
    if in_time:
        message = f"the recording process stopped answering: {_last_words(child.directory)}"
        return Outcome(code, _signal_name(code), message=message)
    given = "it was given" if time_limit_s is None else f"of {time_limit_s:g} s that it was given"
    message = f"recording took longer than the time {given}, and was stopped; raise --time-budget"
    return Outcome(code, _signal_name(code), True, message)


def _outcome(child: Child, error: str | None) -> Outcome:
    code = child.process.returncode
    name = _signal_name(code)
    if name is not None:
        return Outcome(code, name, False, _death(name, child.directory))
    if code != 0 and error is None:
        error = f"the recording process ended with code {code}: {_last_words(child.directory)}"
    return Outcome(code, None, False, error or "")


def _end_of(child: Child) -> str:
    """Say in one line how a child that answers requests came to its end."""
    code = child.process.returncode
    name = _signal_name(code)
    if name == "SIGKILL":
        return "its process was killed (out of memory?)"
    how = f"crashed ({name})" if name is not None else f"ended with code {code}"
    return f"its process {how}: {_last_words(child.directory)}"


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
    return f"the recording process crashed ({name}): {_last_words(directory)}"


def _last_words(directory: Path) -> str:
    """Condense the end of the child's log to the one line that says most."""
    try:
        text = (directory / LOG_NAME).read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("    ")]
    telling = [line for line in lines if "Error" in line or "Check failed" in line or line.startswith(("F0", "F1"))]
    return (telling or lines or ["it left no message"])[-1][:300]
