"""The trial child process applies edits and takes times as it is told.

Every line of standard input is a request ``{"command": NAME, ...}`` and gets one line back; what the user's program
prints goes to stderr.  This side decides nothing.

========  ==========================================================  ===============================================
command   arguments                                                   answer
========  ==========================================================  ===============================================
open      request (as the recording child's), threads (pool -> size)   accelerated, onednn, threads
apply     variant, edits (groups of edits, applied one after another)  first_call_ns, second_call_ns, compiled
compare   variant, computes_in, outputs (those of another process)    differences, inputs, unstable
observe   variant, file (for the outputs, see ``tf.trial.exchange``)        (nothing)
time      before, after, pairs, block_ms                              pairs of [wall, wall, CPU, CPU] ns per call
block     variant, block_ms                                           wall_ns, cpu_ns per call
drop      variant                                                     (nothing)
load      variant, request (of another target with the same inputs)    (nothing)
write     request, edits (by signature), directory                    notes
quit                                                                  (nothing)
========  ==========================================================  ===============================================

``original`` is the variant as it was opened.  ``{"refused": why, "edit": number}`` says which group of edits cannot be
applied, ``{"failed": why}`` that TensorFlow failed; the child serves on after both.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from graphlens.children.channel import reserve_stdout
from graphlens.children.start import XLA_DUMP
from graphlens.errors import GraphLensError, RewriteError
from graphlens.tf.errors import first_line
from graphlens.tf.importing import import_tensorflow
from graphlens.tf.trial.written import State

ORIGINAL: Final = "original"
RANDOM_INPUTS: Final = 2  # sets of inputs to compare on beside the target's own
# The original is called again where a variant disagrees with it: perhaps it disagrees with itself, too.
MOST_REPEATS: Final = 40
LEAST_REPEATS: Final = 3
REPEATS_S: Final = 3.0  # beyond the least
WARM_UP_MS: Final = 30.0  # after the first calls, before the calls of a block are counted

PROBED: Final = ", before its last squashing op"  # after the name of an output

Answer = dict[str, Any]
Observer = Callable[[Sequence[Any]], dict[str, Any]]


@dataclass(frozen=True)
class Variant:
    """A program ready to run: ``call`` takes tensors, ``step`` runs it on the target's own inputs.

    ``state`` is what it writes; the variants of one model share it.
    """

    program: Any
    call: Callable[[Sequence[Any]], Any]
    step: Callable[[], Any]
    state: State = field(default_factory=State)


@dataclass
class Session:
    """What is open, and the variants made of it so far."""

    directory: Path
    prepared: Any = None
    owner: Any = None
    variants: dict[str, Variant] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)  # variant -> calls per block
    probe: Any = None  # the original's, built once


class _Refusal(Exception):
    """Edits that cannot be applied, and the number of their group."""

    def __init__(self, why: str, edit: int | None) -> None:
        super().__init__(why)
        self.edit = edit


def main(arguments: list[str]) -> int:
    """Serve requests until there are no more."""
    session = Session(Path(arguments[0]))
    emit = reserve_stdout()
    failure = import_tensorflow()
    for line in sys.stdin:
        request = json.loads(line)
        command = request.pop("command")
        if command == "quit":
            break
        emit({"failed": str(failure)} if failure is not None else answer(session, command, request))
    return 0


def answer(session: Session, command: str, request: Mapping[str, Any]) -> Answer:
    """Carry out one request; every failure becomes an answer."""
    try:
        return COMMANDS[command](session, **request)
    except _Refusal as refusal:
        return {"refused": str(refusal), "edit": refusal.edit}
    except GraphLensError as error:
        return {"failed": str(error)}
    except Exception as error:  # the last line of defence: the parent shows one line, stderr.txt has the rest
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {first_line(error)}"}


# -- open and apply -------------------------------------------------------------------------------------------------


def open_target(session: Session, request: dict[str, Any], threads: Mapping[str, int]) -> Answer:
    """Open the target with thread pools of the sizes in ``threads``, make its inputs, and run it once."""
    import tensorflow as tf

    from graphlens.loaders.capture.writing import CaptureDirectory
    from graphlens.tf import private
    from graphlens.tf.record import child, clock, environment, measure

    environment.set_threads(threads)
    opened = child.open_requested(request)
    capture = CaptureDirectory(session.directory / "opened", {key: request.get(key) for key in ("kind", "signature")})
    prepared = measure.prepare(opened, child.plan_of(request, session.directory), capture)
    session.prepared, session.owner, session.probe = prepared, opened, None
    session.variants.clear()
    session.calls.clear()
    call = shortest_call(prepared.traced)
    session.variants[ORIGINAL] = Variant(None, call, clock.synchronous(lambda: call(prepared.tensors)))
    with suppress(_Refusal):  # it is said when a copy is asked for
        _program(session)  # before the first step, which may write its state
    _timed(session.variants[ORIGINAL].step)
    accelerated = bool(tf.config.list_logical_devices("GPU"))
    return {"accelerated": accelerated, "onednn": private.onednn_enabled(), "threads": environment.threads()}


def shortest_call(traced: Any) -> Callable[[Sequence[Any]], Any]:
    """Return the shortest way into a function, the same for original and copies, so that no wrapper is measured."""
    from graphlens.tf import private

    return private.flat_call(traced.concrete) or traced.call


def apply(session: Session, variant: str, edits: Sequence[Sequence[Mapping[str, Any]]]) -> Answer:
    """Make a variant, and call it twice."""
    from graphlens.tf.record import clock
    from graphlens.tf.trial import compilation

    program = _edited(_program(session), edits)
    call = shortest_call(_built(program))
    step = clock.synchronous(lambda: call(session.prepared.tensors))
    made = Variant(program, call, step, session.variants[ORIGINAL].state)
    dump = session.directory / XLA_DUMP
    compilation.forget(dump)
    first_ns, second_ns = (_timed(made.step)[0] for _ in range(2))
    session.variants[variant] = made
    compiled = compilation.summary(program, dump)
    return {"first_call_ns": first_ns, "second_call_ns": second_ns, "compiled": compiled}


def _program(session: Session) -> Any:
    from graphlens.tf import rewrite

    original = session.variants[ORIGINAL]
    if original.program is None:
        traced = session.prepared.traced
        opened = replace(session.owner, trace=lambda _: traced)  # traced once is enough
        try:
            program = rewrite.extract(opened, session.prepared.specs)
        except RewriteError as error:
            raise _Refusal(str(error), None) from error
        session.variants[ORIGINAL] = replace(original, program=program, state=State.of(program))
        return program
    return original.program


def _edited(program: Any, groups: Sequence[Sequence[Mapping[str, Any]]]) -> Any:
    from graphlens.tf import rewrite

    for number, edits in enumerate(groups):
        try:
            program = rewrite.apply(program, edits)
        except RewriteError as error:
            raise _Refusal(str(error), number) from error
    return program


def _built(program: Any) -> Any:
    from graphlens.tf import rewrite

    try:
        return rewrite.build(program)
    except RewriteError as error:
        raise _Refusal(str(error), None) from error


def drop(session: Session, variant: str) -> Answer:
    """Forget a variant and free what it holds."""
    session.variants.pop(variant, None)
    session.calls.pop(variant, None)
    gc.collect()
    return {}


# -- compare --------------------------------------------------------------------------------------------------------


def compare(session: Session, variant: str, computes_in: str | None, outputs: str | None = None) -> Answer:
    """Compare a variant's outputs with the original's, and the original's with its own, on several inputs.

    Every call begins with the same values of the variables that the program writes, and what it wrote counts as
    output.  Where an output comes out of a final softmax or sigmoid, which squeezes differences, what goes into it is
    compared too.  ``outputs`` is the file with the outputs of a variant of another process.
    """
    from graphlens.tf.trial import comparison

    before, after = _observers(session, variant) if outputs is None else _observers_across(session, Path(outputs))
    differences: list[Any] = []
    unstable: list[Any] = []
    sets = _input_sets(session)
    for tensors in sets:
        reference = before(tensors)
        rows = comparison.compare(reference, after(tensors), computes_in)
        repeats = MOST_REPEATS if any(map(comparison.disagrees, rows)) else 1
        unstable += _changes(reference, partial(before, tensors), repeats)
        differences += rows
    return {
        "differences": comparison.worst(differences),
        "unstable": comparison.worst(unstable),
        "inputs": len(sets),
    }


def _changes(reference: Mapping[str, Any], again: Callable[[], Mapping[str, Any]], repeats: int) -> list[Any]:
    """Return the outputs in which a program differs from itself, called again until it does or time is up.

    A number drawn at random may be the same twice and another one the third time, in which a fix would be blamed.
    """
    from graphlens.tf.trial import comparison

    end_s = time.monotonic() + REPEATS_S
    for number in range(repeats):
        found = [row for row in comparison.compare(reference, again()) if comparison.disagrees(row)]
        if found or (number + 1 >= LEAST_REPEATS and time.monotonic() > end_s):
            return found
    return []


def _input_sets(session: Session) -> list[Sequence[Any]]:
    """Return the target's own inputs, and random ones as far as the original can digest them."""
    prepared = session.prepared
    random = [prepared.random_tensors(seed) for seed in range(1, RANDOM_INPUTS + 1)] if prepared.tensors else []
    original = session.variants[ORIGINAL]
    return [prepared.tensors, *(tensors for tensors in random if _digests(original, tensors))]


def _digests(original: Variant, tensors: Sequence[Any]) -> bool:
    import tensorflow as tf

    try:
        original.call(tensors)
    except tf.errors.OpError:
        return False
    return True


def _observers(session: Session, variant: str) -> tuple[Observer, Observer]:
    """Return what gives the named outputs of the original and of the variant, and what goes into final squashing."""
    before, after = _program(session), session.variants[variant].program
    kept, changed = session.variants[ORIGINAL].state, session.variants[variant].state
    first = _named(session.variants[ORIGINAL].call, before, kept.only(changed))
    second = _named(session.variants[variant].call, after, changed.only(kept))
    names = _squashed(before) & _squashed(after)
    # XLA compiles a function as a whole and for seconds: nothing in it is changed by us, its outputs tell enough.
    if not names or after.compiled:
        return first, second
    return _joined(first, _probe_of_original(session), names), _joined(second, _probe(after, changed), names)


def _probe_of_original(session: Session) -> Observer:
    if session.probe is None:
        session.probe = _probe(_program(session), session.variants[ORIGINAL].state)
    probe: Observer = session.probe
    return probe


def _observers_across(session: Session, outputs: Path) -> tuple[Observer, Observer]:
    """Return the same, where the variant ran in another process: what gives its outputs is a file."""
    from graphlens.tf.trial import exchange

    known = exchange.read(outputs)
    names = {name.removesuffix(PROBED) for found in known.values() for name in found if name.endswith(PROBED)}
    first = _named(session.variants[ORIGINAL].call, _program(session), session.variants[ORIGINAL].state)
    before = _joined(first, _probe_of_original(session), names) if names else first
    return before, lambda tensors: dict(exchange.outputs_on(tensors, known))


def observe(session: Session, variant: str, file: str) -> Answer:
    """Write a variant's outputs, for the process that compares them."""
    from graphlens.tf.trial import exchange

    _, after = _observers(session, variant)
    exchange.write(Path(file), [(tensors, after(tensors)) for tensors in _input_sets(session)])
    return {}


def _named(call: Callable[..., Any], program: Any, state: State) -> Observer:
    from graphlens.tf import rewrite

    names = rewrite.output_names(program)

    def observe(tensors: Sequence[Any]) -> dict[str, Any]:
        state.restore()
        return {**dict(zip(names, _leaves(call(tensors)), strict=True)), **state.read()}

    return observe


def _probe(program: Any, state: State) -> Observer:
    from graphlens.tf import rewrite

    probing = rewrite.probing(program)
    return _named(rewrite.build(probing).call, probing, state)


def _squashed(program: Any) -> set[str]:
    """Return the names of the outputs behind a final softmax or sigmoid."""
    from graphlens.tf import rewrite

    probing = rewrite.probing(program)
    probed = dict(zip(rewrite.output_names(probing), probing.outputs, strict=True))
    own = zip(rewrite.output_names(program), program.outputs, strict=True)
    return {name for name, ref in own if probed.get(name, ref) != ref}


def _joined(outputs: Observer, probe: Observer, names: set[str]) -> Observer:
    def observe(tensors: Sequence[Any]) -> dict[str, Any]:
        inner = {f"{name}{PROBED}": value for name, value in probe(tensors).items() if name in names}
        return {**outputs(tensors), **inner}

    return observe


def _leaves(outputs: Any) -> list[Any]:
    import tensorflow as tf

    return [leaf for leaf in tf.nest.flatten(outputs, expand_composites=True) if isinstance(leaf, tf.Tensor)]


# -- time -----------------------------------------------------------------------------------------------------------


def time_pairs(session: Session, before: str, after: str, pairs: int, block_ms: float) -> Answer:
    """Time blocks in the order A B, B A, A B, …; each pair is (wall A, wall B, CPU A, CPU B) per call."""
    from graphlens.tf.record import clock

    session.variants[before].state.restore()  # training goes on while it is timed: always from the same place
    with clock.without_garbage_collection():
        first, second = (_block(session, name, block_ms) for name in (before, after))
        return {"pairs": [_pair(first, second, number % 2 == 1) for number in range(pairs)]}


def time_block(session: Session, variant: str, block_ms: float) -> Answer:
    """Time one block, while another process with another variant is idle."""
    from graphlens.tf.record import clock

    with clock.without_garbage_collection():
        block = _block(session, variant, block_ms)
        session.variants[variant].step()  # brings back into the caches what the other process has displaced
        wall_ns, cpu_ns = block()
    return {"wall_ns": wall_ns, "cpu_ns": cpu_ns}


Block = Callable[[], tuple[float, float]]


def _pair(first: Block, second: Block, swapped: bool) -> tuple[float, float, float, float]:
    if swapped:
        (wall_b, cpu_b), (wall_a, cpu_a) = second(), first()
    else:
        (wall_a, cpu_a), (wall_b, cpu_b) = first(), second()
    return wall_a, wall_b, cpu_a, cpu_b


def _block(session: Session, name: str, block_ms: float) -> Block:
    """Return what times as many calls as fill a block; they are counted once, when the program is warm."""
    step = session.variants[name].step
    if name not in session.calls:
        _repeat_for(step, WARM_UP_MS)
        session.calls[name] = _repeat_for(step, block_ms)
    count = session.calls[name]

    def block() -> tuple[float, float]:
        wall_ns, cpu_ns = _timed(lambda: _repeat(step, count))
        return wall_ns / count, cpu_ns / count

    return block


def _timed(work: Callable[[], Any]) -> tuple[int, int]:
    """Return wall time and CPU time (of all threads of this process) of ``work``."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    work()
    return time.perf_counter_ns() - wall, time.process_time_ns() - cpu


def _repeat(step: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        step()


def _repeat_for(step: Callable[[], Any], duration_ms: float) -> int:
    """Call ``step`` until ``duration_ms`` are over, and return how many calls that took."""
    end_ns = time.perf_counter_ns() + duration_ms * 1e6
    count = 0
    while count == 0 or time.perf_counter_ns() < end_ns:
        step()
        count += 1
    return count


# -- write and read back --------------------------------------------------------------------------------------------


def write(
    _session: Session, request: dict[str, Any], edits: Mapping[str, Sequence[Mapping[str, Any]]], directory: str
) -> Answer:
    """Write the target as a SavedModel with the edits applied to its signatures."""
    from graphlens.tf import rewrite

    try:
        notes = rewrite.write_saved_model(
            request["target"], edits, directory, kind=request["kind"], tag=request.get("tag"), trust=request["trust"]
        )
    except RewriteError as error:
        raise _Refusal(str(error), None) from error
    return {"notes": list(notes)}


def load(session: Session, variant: str, request: dict[str, Any]) -> Answer:
    """Open another target as a variant: it is compared and timed on the inputs of the first."""
    from graphlens.loaders.capture.writing import CaptureDirectory
    from graphlens.tf import rewrite
    from graphlens.tf.record import child, clock, measure

    opened = child.open_requested(request)
    capture = CaptureDirectory(session.directory / variant, {key: request.get(key) for key in ("kind", "signature")})
    prepared = measure.prepare(opened, child.plan_of(request, session.directory), capture)
    program = rewrite.extract(replace(opened, trace=lambda _: prepared.traced), prepared.specs)
    call = shortest_call(prepared.traced)
    step = clock.synchronous(lambda: call(session.prepared.tensors))
    session.variants[variant] = Variant(program, call, step, State.of(program))
    return {}


COMMANDS: Final[Mapping[str, Callable[..., Answer]]] = {
    "open": open_target,
    "apply": apply,
    "compare": compare,
    "observe": observe,
    "time": time_pairs,
    "block": time_block,
    "drop": drop,
    "load": load,
    "write": write,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
