"""Watch a running program: record a window of its calls, with the graphs of what was called."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from graphlens.collector import collector_unmoved
from graphlens.errors import first_line
from graphlens.ir.capture import CapturedTarget
from graphlens.ir.eager import READ
from graphlens.ir.run import EAGER_LOOP
from graphlens.ir.script import Script
from graphlens.loaders.capture.collecting import Context
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf import private
from graphlens.tf.record import environment
from graphlens.tf.record.collectors.profile import Profile
from graphlens.tf.watch import programs
from graphlens.tf.watch.callees import Callees
from graphlens.tf.watch.calls import Call, Called, CallLog, Made
from graphlens.tf.watch.datasets import IteratedDatasets
from graphlens.tf.watch.eager import EagerLoops, Gradients
from graphlens.tf.watch.marks import Mark, is_recorded
from graphlens.tf.watch.rows import RowAccesses
from graphlens.tf.watch.stack import user_line
from graphlens.tf.watch.window import LONG_LOOP_NS, Window

# Who catches even what ``sys.exit`` raises, and calls again and again, would do so for ever.
_MOST_STOPS: Final = 100
REFUSED: Final = "TensorFlow's profiler did not start: Another profiler is running, the program's own"
CUT: Final = "the program started TensorFlow's profiler, of which there is one, before all calls were recorded"


class Watch:
    """Is told of every call of a program (``hooks.Caller``), and leaves what it records in a folder.

    What the program does is not touched: no function is called, traced or instantiated anew on its behalf.

    Parameters
    ----------
    stops
        Whether the program ends once its steady calls were recorded, as if it had called ``sys.exit(0)`` after the
        last of them: what it has to close is closed, and what it registered with ``atexit`` is called.  Each of its
        threads that calls TensorFlow ends so.
    """

    def __init__(self, folder: Path, name: str, steps: int, *, stops: bool = False) -> None:
        self._folder, self._name = folder, name
        self._window = Window(steps)
        self._lock = threading.RLock()
        self._process = os.getpid()  # one that is forked is another program, which nobody reads
        self._thread = threading.local()
        self._context: Context | None = None
        self._profile = Profile()
        self._recorded, self._seen = Callees(), Callees(are_held=False)
        self._profiles = 0
        self._is_cut = self._is_refused = False
        self._collected: list[Any] = []  # TensorFlow hands out the graphs of a function once, whatever is recorded then
        self._log = CallLog()
        self._recording_begun_ns = 0
        self._recorded_ns = 0
        self._is_unwritten = False
        self._eager_steps = 0
        self._rows = RowAccesses()
        self._datasets = IteratedDatasets()
        self._is_over = self._is_given_up = False
        self._eager = EagerLoops()
        self._stops_left = _MOST_STOPS if stops else 0

    # -- what hooks tell ----------------------------------------------------------------------------------------

    def function(self, function: Any, call: Callable[[], Any]) -> Any:
        """Run a call of a function; one within a trace, or within another call, is part of that."""
        is_built = private.is_building_graph()
        if not self._is_outermost() or not (is_built or private.is_executing_eagerly()):
            return call()
        with self._lock:
            called = self._log.of_function(function)
        return self._called(called, function, call, runs=not is_built)

    def traced(self, traces: Any, concrete: Any) -> None:
        """Note that this thread has traced a function in the call that it makes."""
        if getattr(self._thread, "key", None) is not None:
            self._thread.made.append(Made(traces, len(traces), concrete))

    def execution(self, concrete: Any) -> None:
        """Keep what is executed while a recording is made; begin one with a loop that may be called only once."""
        key = getattr(self._thread, "key", None)
        if key is None or not private.is_executing_eagerly():
            return
        if self._thread.concrete is None or private.is_initialization(self._thread.concrete):
            self._thread.concrete = concrete
        begun_ns = time.perf_counter_ns()
        with self._lock:
            may_begin = self._context is not None and not private.is_initialization(concrete)
            if may_begin and self._may_record() and self._window.opens_within(key, partial(programs.is_loop, concrete)):
                self._begin()
            self._keep(key, concrete)
        self._thread.own_ns += time.perf_counter_ns() - begun_ns  # what watching takes is no part of the call

    def _keep(self, function: Hashable, callee: Any) -> None:
        """Keep what is called for its graph: of the traces of a function a few, and as long as it is recorded.

        Before that it is no more than remembered: what the program lets go of is not held for it.
        """
        if self._window.is_open:
            self._recorded.add(function, callee)
        elif not self._profiles:
            self._seen.add(function, callee)

    def gradient(self, tape: Any, call: Callable[[], Any]) -> Any:
        """Compute gradients; in an eager loop, a step begins with that."""
        gradients = self._eager.asks(tape) if self._runs_eagerly() else None
        if gradients is None:
            return call()
        with self._eager_step(gradients) if gradients.begins else gradients.mark():
            return call()

    def read(self, how: str, call: Callable[[], Any]) -> Any:
        """Make a value of Python of a tensor; while a recording is made, that is marked with the user's line."""
        if not is_recorded() or getattr(self._thread, "reads", False) or not self._is_outermost():
            return call()
        source = user_line()
        self._thread.reads = True  # one way of reading uses another
        try:
            with Mark(READ, how, source) if source else nullcontext():
                return call()
        finally:
            self._thread.reads = False

    def session(self, session: Any, fetches: Any, call: Callable[[], Any]) -> Any:
        """Run a call of a Session; what fetches something else is another program."""
        if not self._is_outermost():
            return call()
        with self._lock:
            called = self._log.of_session(session, programs.key_of(fetches))

        def marked() -> Any:
            with Mark("session"):  # no event of TensorFlow shows what converting feeds and fetches takes
                return call()

        return self._called(called, session, marked)

    def profiler(self, call: Callable[[], Any]) -> Any:
        """Let the program have the profiler, of which there is one: a recording ends with the calls that it has."""
        with self._lock:
            if self._profile.is_running and os.getpid() == self._process:  # while it starts itself, it is not yet
                self._end(is_cut=True)
        return call()

    def rows(self, variable: Any, method: str) -> None:
        """Note of which variables rows were read or written by their numbers, once each."""
        self._rows.note(variable, method)

    def iterates(self, dataset: Any) -> None:
        """Note which datasets are iterated over."""
        self._datasets.note(dataset)

    def finish(self) -> None:
        """End a recording that the program's own end has cut off, and say what was seen and cannot be recorded."""
        with self._lock:
            if os.getpid() != self._process or self._is_given_up:
                return
            if self._window.holds_less:
                self._drop()
            elif self._window.is_open:
                self._end()
            if self._context is not None and not self._profiles:
                self._recorded, self._is_unwritten = self._seen, True
                self._read_pipelines()
            if self._is_unwritten:
                self._write()
            self._say_what_is_missing()
            self._save()

    def _say_what_is_missing(self) -> None:
        if self._is_refused and not self._profiles:
            self._capture().fail("profile", REFUSED)
        elif self._is_cut:
            self._capture().note(CUT)

    # -- an eager loop ------------------------------------------------------------------------------------------

    def _runs_eagerly(self) -> bool:
        """Whether what is called now is part of no function; one that TensorFlow is told to run eagerly is none."""
        if self._is_over or os.getpid() != self._process or not private.is_executing_eagerly():
            return False
        return self._is_outermost() or private.runs_functions_eagerly()

    def _eager_step(self, gradients: Gradients) -> Mark:
        """Begin a step, with which the one before ends: it is marked in the recording that ends, too."""
        with self._lock:
            self._capture()
            self._eager_steps += 1
            if gradients.step_ns is not None:
                self._eager.ended(gradients.step_ns, recorded=self._window.is_open)
            if gradients.step_ns is not None and self._closes(gradients):
                gradients.mark().end()
                self._end()
            if self._may_record() and self._window.opens_before(EAGER_LOOP):
                self._begin()
        self._stop_if_recorded()
        return gradients.mark()

    def _closes(self, gradients: Gradients) -> bool:
        return self._window.closes_after(EAGER_LOOP, gradients.step_ns or 0, traced=False)

    def leave(self) -> None:
        """Do nothing but the calls from now on, and have TensorFlow keep no graphs any more."""
        with self._lock:
            self._is_over = True
            self._collected = []
            private.stop_collecting_graphs()

    def give_up(self, error: Exception) -> None:
        """Watch no more, and say why: whatever failed of it, the program goes on."""
        why = f"watching the program failed, and ended with that: {type(error).__name__}: {first_line(error)}"
        self.leave()
        with self._lock:
            self._is_given_up = True
            self._datasets.let_go()
            if self._window.is_open:
                self._window.close(is_cut=True)
            with suppress(Exception):  # it may be what failed
                self._profile.cancel()
            try:
                self._capture().fail("watch", why)
            except (TypeError, ValueError, OSError):  # what was found out of the script may be what cannot be written
                self._forget_the_script()

    def _forget_the_script(self) -> None:
        capture = self._capture()
        capture.manifest = replace(capture.manifest, script=Script(), pipelines=())
        with suppress(OSError):  # a full disk, say: nothing can be told
            capture.save()

    @property
    def has_recorded(self) -> bool:
        """Whether a recording of steady calls is complete."""
        return self._window.has_recorded_enough

    # -- a call -------------------------------------------------------------------------------------------------

    def _is_outermost(self) -> bool:
        is_within = getattr(self._thread, "key", None) is not None
        return not (is_within or self._is_over) and os.getpid() == self._process

    def _called(self, called: Called, callee: Any, call: Callable[[], Any], *, runs: bool = True) -> Any:
        """Run a call, and count it; only one that ``runs`` something, and puts it into no graph, may be recorded."""
        if runs:
            self._before(called.function, callee)
        self._thread.key, self._thread.concrete, self._thread.own_ns = called.function, None, 0
        self._thread.made = []
        begun_ns = time.perf_counter_ns()
        try:
            returned = call()
        finally:
            ns = time.perf_counter_ns() - begun_ns - self._thread.own_ns
            ended = Call(self._thread.concrete, self._thread.made, begun_ns, ns, call)
            self._thread.key, self._thread.concrete, self._thread.made = None, None, []
            with self._lock:
                traced = self._log.ended(called, callee, ended)
                if runs and self._window.closes_after(called.function, ns, traced=traced):
                    self._end()
        self._stop_if_recorded()
        return returned

    def _stop_if_recorded(self) -> None:
        if self._stops_left > 0 and self.has_recorded:
            self._stops_left -= 1
            raise SystemExit(0)

    def _before(self, key: Hashable, callee: Any) -> None:
        with self._lock:
            self._capture()
            if self._may_record() and self._window.opens_before(key):
                self._begin()
            if private.is_session(callee):
                self._keep(key, callee)

    def _may_record(self) -> bool:
        """Whether the program has not the profiler itself just now: it may be done with it some calls later."""
        is_taken = is_recorded() and not self._window.is_open
        self._is_refused |= is_taken
        return not is_taken

    def _capture(self) -> CaptureDirectory:
        if self._context is None:
            self._context = Context(CaptureDirectory(self._folder, CapturedTarget(self._name, "script")))
            self._context.capture.note(*private.start_collecting_graphs())
        return self._context.capture

    # -- the recording ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        assert self._context is not None
        self._recorded, self._is_unwritten = Callees(), False
        self._log.recording_changes()
        with self._context.capture.attempt("pipelines"):
            self._datasets.keep()
        self._profile = Profile()
        self._profile.start(self._context)
        self._recording_begun_ns = time.perf_counter_ns()

    def _end(self, *, is_cut: bool = False) -> None:
        assert self._context is not None
        with collector_unmoved():
            self._log.recording_changes()
            self._window.close(is_cut=is_cut)
            self._is_cut = is_cut
            self._recorded_ns = time.perf_counter_ns() - self._recording_begun_ns
            with self._context.capture.attempt("profile"), self._context.capture.stage("profile"):
                self._profiles += self._profile.stop(self._context)
            self._read_pipelines()
            self._is_unwritten = True
            if self._window.has_recorded_steady_calls or self._recorded_ns >= LONG_LOOP_NS:
                self._write()  # else steady calls will hardly be long in coming

    def _drop(self) -> None:
        """End a recording that tells less than the one before, which is written."""
        assert self._context is not None
        self._log.recording_changes()
        self._window.close()
        self._datasets.let_go()
        with self._context.capture.attempt("profile"):
            self._profile.drop()

    def _read_pipelines(self) -> None:
        """Read the datasets that were iterated over: the script may be done with them by the time it is written."""
        capture = self._capture()
        with capture.attempt("pipelines"):
            pipelines, notes = self._datasets.pipelines()
            capture.note(*notes)
            capture.manifest = replace(capture.manifest, pipelines=pipelines)
        self._datasets.let_go()

    def _write(self) -> None:
        """Write the graphs of what was recorded, and let go of them: the program may want their memory."""
        assert self._context is not None
        capture = self._context.capture
        self._is_unwritten = False
        with capture.attempt("graphs"), capture.stage("graphs"):
            self._collected = [*private.collected_graphs(), *self._collected]  # of equal ones the latest is taken
            programs.write(capture, self._recorded.alive(), self._collected)
        self._recorded = Callees()
        self._save()

    def _save(self) -> None:
        """Write what is known so far: a program that is killed leaves that."""
        capture = self._capture()
        with capture.attempt("script"):
            capture.note(*self._log.notes)
            script = self._log.script(self._recorded_ns, self._eager_steps)
            capture.manifest = replace(
                capture.manifest,
                environment=environment.describe(),
                script=replace(script, row_accesses=self._rows.seen),
                unprofiled_ns=self._eager.unprofiled_ns,
            )
            capture.save()
