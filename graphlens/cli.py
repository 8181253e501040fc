"""The command line: parse arguments, call the pipeline, print, and choose the exit code.

Only the standard library is imported at the top, so that ``graphlens --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from graphlens._version import __version__
from graphlens.config import (
    DEFAULT_PROOF_BUDGET_S,
    DEFAULT_SERVICE_DURATION_S,
    DEFAULT_STEPS,
    MOST_STEPS,
    Progress,
    Request,
    no_progress,
)
from graphlens.errors import GraphLensError, UsageError

if TYPE_CHECKING:
    from graphlens.pipeline.result import Analysis

OK, FINDINGS, USAGE, NOT_EXECUTED = 0, 1, 2, 3

_EXIT_CODES = """exit codes: 0 fine; 1 a finding at or above --fail-on stands; 2 wrong usage or unreadable target;
3 the model could not be executed (the static report is still written)"""

_FIX_EXIT_CODES = """exit codes: 0 written; 1 no fix was proven, so nothing was written; 2 wrong usage or unreadable
target; 3 the model could not be executed, or not be written with its fixes"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with _cleaning_up_when_terminated():
            code: int = options.run(options)
        sys.stdout.flush()  # a reader that went away is noticed here at the latest, not when Python ends
    except GraphLensError as error:
        print(f"graphlens: {_one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("graphlens: interrupted", file=sys.stderr)
        return 130
    except _Terminated:
        print("graphlens: terminated", file=sys.stderr)
        return 143
    except BrokenPipeError:
        # The reader of our output (`| head`) went away: not our error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code


# Asked to end, and its terminal was closed; `nohup` has the second one ignored, and so it stays.
_ENDS = ("SIGTERM", "SIGHUP")


class _Terminated(BaseException):
    """The program is to end; raised wherever the program is, so that what is half written goes and the child ends."""


@contextmanager
def _cleaning_up_when_terminated() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def terminate(_number: int, _frame: object) -> NoReturn:
        for number in before:  # cleaning up is not to be interrupted by the same again
            signal.signal(number, signal.SIG_IGN)
        raise _Terminated

    ends = [number for name in _ENDS if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in ends if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_line(message: str) -> str:
    """Put a message on one line, without what would steer a terminal: names in model files may hold anything."""
    return "".join(letter for letter in " ".join(message.split()) if letter.isprintable())


# -- commands -----------------------------------------------------------------------------------------------------


def _analyze(options: argparse.Namespace) -> int:
    from graphlens import pipeline

    if options.keep_logdir and (options.static or options.profile):
        given = "--static" if options.static else "--profile"
        raise UsageError(f"with {given} nothing is recorded, and --keep-logdir has no profile to leave anywhere")
    request, outputs = _request(options), options.output
    pipeline.check_outputs(outputs)
    with _progress() as progress:
        analysis = pipeline.analyze(request, progress)
        for path in outputs:
            analysis.save(path)
    _print_summary(analysis, outputs)
    return _print_kept(request) or _exit_code(analysis, options.fail_on)


def _record(options: argparse.Namespace) -> int:
    from graphlens import pipeline

    _check_record(options)
    request = _request(options)
    with _progress() as progress:
        if options.service:
            duration_s = options.duration or DEFAULT_SERVICE_DURATION_S
            pipeline.record_services(request, options.service, duration_s, options.output, progress)
        else:
            pipeline.record(request, options.output, progress)
    print(options.output)
    return _print_kept(request)


def _check_record(options: argparse.Namespace) -> None:
    if not options.target and options.service is None:
        raise UsageError("name a TARGET to execute, or with --service the programs to profile")
    if options.duration and options.service is None:
        raise UsageError("--duration is for --service; --steps says how many steps of a TARGET are profiled")


def _print_kept(request: Request) -> int:
    """Say where the profile was left; to have none although it was asked for is a failure."""
    if request.keep_run is None:
        return OK
    if request.keep_run.is_dir():
        print(request.keep_run)
        return OK
    print("graphlens: no profile was recorded, so --keep-logdir left none", file=sys.stderr)
    return NOT_EXECUTED


def _demo(options: argparse.Namespace) -> int:
    from graphlens import pipeline

    pipeline.check_outputs([options.output])
    with _progress() as progress:
        analysis = pipeline.demo(f"{os.path.splitext(options.output)[0]}-model", options.steps, progress)
        analysis.save(options.output)
    _print_summary(analysis, [options.output])
    print(os.path.abspath(options.output))
    return _exit_code(analysis, None)


def _fix(options: argparse.Namespace) -> int:
    from graphlens.pipeline import fixing

    with _progress() as progress:
        analysis, fixed = fixing.fix(_request(options), options.output, progress)
    if fixed is not None:
        print("\n".join(fixing.in_words(fixed)))
        return OK
    why = analysis.execution_error or fixing.why_nothing(analysis)
    if settings := fixing.settings_proven(fixing.proven(analysis)):
        why = f"what was proven is a setting and changes no graph; set for serving: {'; '.join(settings)}"
    print(f"graphlens: nothing was written: {_one_line(why)}", file=sys.stderr)
    return NOT_EXECUTED if analysis.execution_error else FINDINGS


def _rules(options: argparse.Namespace) -> int:
    from graphlens import rules

    if options.name:
        print(rules.explain(rules.find(options.name)))
        return OK
    for item in rules.all_rules():
        print(f"{item.code}  {item.name:28} {item.summary}")
    return OK


def _print_summary(analysis: Analysis, outputs: Sequence[str]) -> None:
    from graphlens.report.terminal import print_summary

    print_summary(analysis.document, outputs)


def _exit_code(analysis: Analysis, fail_on: str | None) -> int:
    """A model that was to be executed and was not is reported before any finding is."""
    if analysis.execution_error:
        print(f"graphlens: {_one_line(analysis.execution_error)}", file=sys.stderr)
        return NOT_EXECUTED
    return FINDINGS if fail_on and analysis.findings_at_or_above(fail_on) else OK


# -- arguments ----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line like all others; sub-commands are parsed by its class too."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"graphlens: {_one_line(message)}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="graphlens",
        description="Where a TensorFlow step spends its time, why, and what would make it faster.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"graphlens {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_analyze(commands)
    _add_record(commands)
    _add_fix(commands)
    _add_rules(commands)
    _add_demo(commands)
    return parser


def _add_analyze(commands: argparse._SubParsersAction[Any]) -> None:
    command = _command(commands, "analyze", _analyze, "execute a model, judge it, and write the report")
    _add_target(command)
    command.add_argument(
        "-o", "--output", metavar="FILE", action="append", default=[],
        help="write the report; the suffix picks the format (.html .json .txt); may be given several times",
    )  # fmt: skip
    command.add_argument("--static", action="store_true", help="never execute the model: judge the traced graph alone")
    command.add_argument(
        "--program", metavar="NAME",
        help="the program to judge where a recording holds several (default: the one with most time)",
    )  # fmt: skip
    command.add_argument(
        "--profile", metavar="PATH",
        help="judge TARGET with this profile of it instead of running it: a *.xplane.pb, the folder of a recording, "
        "a RunMetadata, a timeline or a trace.json.gz",
    )  # fmt: skip
    command.add_argument(
        "--assume-device", metavar="gpu[:NAME]",
        help="predict where the ops would be placed, and what would be copied, on a GPU that this machine lacks "
        "(gpu:A100, gpu:H100, gpu:L4, gpu:T4, gpu:V100; gpu alone is an A100)",
    )  # fmt: skip
    command.add_argument("--no-prove", action="store_true", help="do not apply and measure the fixes of what is found")
    _add_keep_logdir(command)
    _add_selection(command)
    command.add_argument(
        "--fail-on", choices=("low", "medium", "high"), help="exit 1 when a finding at or above this severity stands"
    )


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--select", metavar="RULES", type=_words, default=(), help="only these rules (codes, prefixes or names)"
    )
    command.add_argument("--ignore", metavar="RULES", type=_words, default=(), help="leave these rules out")


def _add_record(commands: argparse._SubParsersAction[Any]) -> None:
    summary = "execute a model, or profile programs that run elsewhere, and keep the evidence in one file"
    command = _command(commands, "record", _record, summary)
    _add_target(command, nargs="?", reads=_MODELS, budget=_GIVE_UP)
    command.add_argument("-o", "--output", metavar="FILE", required=True, help="the capture to write (.capture)")
    command.add_argument(
        "--service", metavar="grpc://HOST:PORT,...",
        help="execute nothing here: profile the running programs that have called "
        "tf.profiler.experimental.server.start(PORT), all at once; TARGET, if given, is the model that they run, "
        "and its graph is stored too",
    )  # fmt: skip
    command.add_argument(
        "--duration", metavar="S", type=_seconds,
        help=f"profile the services for S seconds (default {DEFAULT_SERVICE_DURATION_S:g})",
    )  # fmt: skip
    _add_keep_logdir(command)


def _add_keep_logdir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--keep-logdir", metavar="DIR",
        help="also leave the profile in DIR/plugins/profile/RUN, where `tensorboard --logdir DIR` and "
        "`xprof --logdir DIR` open it",
    )  # fmt: skip


def _add_fix(commands: argparse._SubParsersAction[Any]) -> None:
    command = _command(commands, "fix", _fix, "write the model with all fixes that were proven on it")
    command.epilog = _FIX_EXIT_CODES
    _add_target(command, reads=_MODELS)
    command.add_argument("-o", "--output", metavar="DIR", required=True, help="the SavedModel to write; must not exist")
    _add_selection(command)


def _add_rules(commands: argparse._SubParsersAction[Any]) -> None:
    command = _command(commands, "rules", _rules, "list the rules, or explain one")
    command.add_argument("name", metavar="NAME", nargs="?", help="code or name of a rule")


def _add_demo(commands: argparse._SubParsersAction[Any]) -> None:
    command = _command(commands, "demo", _demo, "build a small real model and analyze it")
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="graphlens-demo.html",
        help="the report to write; the model is kept beside it",
    )
    command.add_argument("--steps", metavar="N", type=_steps, default=DEFAULT_STEPS, help=argparse.SUPPRESS)


_MODELS = "a SavedModel folder, a GraphDef (.pb .pbtxt), a MetaGraph, a .keras or .h5 file, or package.module:callable"
_TARGETS = (
    f"{_MODELS}; or a capture, or a profile (*.xplane.pb, the folder of a recording, a RunMetadata, a timeline or a "
    "trace.json.gz)"
)


_GIVE_UP = "give up executing after S seconds"
_GIVE_UP_AND_PROVE = (
    f"{_GIVE_UP} (the static report is still written), and spend at most S seconds on proofs "
    f"(default {DEFAULT_PROOF_BUDGET_S:.0f})"
)


def _add_target(
    command: argparse.ArgumentParser,
    nargs: str | None = None,
    reads: str = _TARGETS,
    budget: str = _GIVE_UP_AND_PROVE,
) -> None:
    command.add_argument("target", metavar="TARGET", nargs=nargs, help=reads)
    command.add_argument("--signature", metavar="NAME", help="the signature to run (default: serving_default)")
    command.add_argument("--tag", metavar="TAG", help="the tag of the MetaGraph (default: serve)")
    command.add_argument("--inputs", metavar="FILE.npz", help="one array per input name")
    command.add_argument(
        "--shape", metavar="NAME=1,224,224,3", type=_shape, action="append", default=[],
        help="shape of an input that the model leaves open; may be given several times",
    )  # fmt: skip
    command.add_argument("--batch", metavar="N", type=_positive, help="size of open leading dimensions (default: 1)")
    command.add_argument(
        "--steps", metavar="N", type=_steps, default=DEFAULT_STEPS,
        help=f"profiled steps (default {DEFAULT_STEPS}, at most {MOST_STEPS})",
    )  # fmt: skip
    command.add_argument("--time-budget", metavar="S", type=_seconds, help=budget)
    command.add_argument(
        "--trust", action="store_true", help="execute although the graph touches files, network or Python"
    )


def _command(
    commands: argparse._SubParsersAction[Any],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary, epilog=_EXIT_CODES)
    command.set_defaults(run=run)
    return command


def _request(options: argparse.Namespace) -> Request:
    return Request(
        target=options.target or "",
        signature=options.signature,
        tag=options.tag,
        inputs=options.inputs,
        shapes=dict(options.shape),
        batch=options.batch,
        steps=options.steps,
        time_budget_s=options.time_budget,
        static=getattr(options, "static", False),
        prove=not getattr(options, "no_prove", False),
        trust=options.trust,
        profile=getattr(options, "profile", None),
        program=getattr(options, "program", None),
        select=getattr(options, "select", ()),
        ignore=getattr(options, "ignore", ()),
        keep_run=_new_run(getattr(options, "keep_logdir", None)),
        assume_device=getattr(options, "assume_device", None),
    )


def _new_run(folder: str | None) -> Path | None:
    if folder is None:
        return None
    from graphlens.pipeline import logdir

    return logdir.new_run(folder)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read one ``--shape``; ``NAME=`` is a scalar.

    >>> _shape("image=1,224,224,3")
    ('image', (1, 224, 224, 3))
    """
    name, separator, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(",") if size.strip())
    except ValueError:
        shape = (-1,)
    if not separator or not name or any(size < 0 for size in shape):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=1,224,224,3")
    return name, shape


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _steps(text: str) -> int:
    steps = _positive(text)
    if steps > MOST_STEPS:
        raise argparse.ArgumentTypeError(f"at most {MOST_STEPS}: beyond that the profiler drops cheap ops")
    return steps


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return seconds


# -- progress -----------------------------------------------------------------------------------------------------


class _progress:
    """Show one line of progress on standard error when it is a terminal, and wipe it afterwards.

    The line counts the seconds of its stage by itself, so that a long stage is not taken for a hang.
    """

    def __init__(self) -> None:
        self._stage, self._line, self._since_s = "", "", 0.0
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        if not sys.stderr.isatty():
            return no_progress
        self._ticker.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._ticker.is_alive():
            self._ticker.join()
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _show(self, what: str, done: int, of: int) -> None:
        if what != self._stage:
            self._stage, self._since_s = what, time.monotonic()
        self._line = f"{_one_line(what)}{f' {done}/{of}' if of else ''} …"
        self._print()

    def _print(self) -> None:
        passed_s = int(time.monotonic() - self._since_s)
        sys.stderr.write(f"\r\x1b[K{self._line}{f' {passed_s} s' if passed_s >= _SHOWN_FROM_S else ''}")
        sys.stderr.flush()

    def _tick(self) -> None:
        while not self._done.wait(_TICK_S):
            if self._line:
                self._print()


_TICK_S = 1.0
_SHOWN_FROM_S = 2  # seconds: a stage that is over at once needs no clock


if __name__ == "__main__":
    sys.exit(main())
