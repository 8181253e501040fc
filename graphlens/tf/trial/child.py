"""The trial child process applies edits and takes times as it is told.

Each request (``children.messages``) gets one answer; what the user's program prints goes to stderr.  This side decides
nothing.  ``original`` is the variant as it was opened.  A ``Refusal`` says which group of edits cannot be applied, a
``Failure`` that TensorFlow failed; the child serves on after both.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from graphlens.children.messages import (
    Apply,
    Block,
    Calls,
    Compare,
    Comparison,
    Difference,
    Done,
    Drop,
    Keep,
    Load,
    Observe,
    Open,
    OpenedTarget,
    Pair,
    Pairs,
    RecordRequest,
    TimeBlock,
    TimePairs,
    Write,
    Written,
)
from graphlens.children.start import XLA_DUMP
from graphlens.collector import collector_paused
from graphlens.errors import RewriteError
from graphlens.ir.capture import CapturedTarget
from graphlens.ir.edits import Edit
from graphlens.tf.trial.serving import Refused, serve
from graphlens.tf.trial.written import State, variables_of

ORIGINAL: Final = "original"
RANDOM_INPUTS: Final = 2  # sets of inputs to compare on beside the target's own
# The original is called again where a variant disagrees with it: perhaps it disagrees with itself, too.
MOST_REPEATS: Final = 40
LEAST_REPEATS: Final = 3
REPEATS_S: Final = 3.0  # beyond the least
WARM_UP_MS: Final = 30.0  # after the first calls, before the calls of a block are counted

PROBED: Final = ", before its last squashing op"  # after the name of an output

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


def main(arguments: list[str]) -> int:
    """Serve requests until there are no more."""
    return serve(COMMANDS, Session(Path(arguments[0])))


# -- open and apply -------------------------------------------------------------------------------------------------


def open_target(session: Session, request: RecordRequest, threads: Mapping[str, int]) -> OpenedTarget:
    """Open the target with thread pools of the sizes in ``threads``, make its inputs, and run it once."""
    import tensorflow as tf

    from graphlens.loaders.capture.writing import CaptureDirectory
    from graphlens.tf import private
    from graphlens.tf.record import child, clock, environment, preparing

    environment.set_threads(threads)
    opened = child.open_requested(request)
    capture = CaptureDirectory(session.directory / "opened", CapturedTarget(None, request.kind, request.signature))
    prepared = preparing.prepare(opened, child.plan_of(request, session.directory), capture)
    session.prepared, session.owner, session.probe = prepared, opened, None
    session.variants.clear()
    session.calls.clear()
    call = shortest_call(prepared.traced)
    session.variants[ORIGINAL] = Variant(None, call, clock.synchronous(lambda: call(prepared.tensors)))
    with suppress(Refused):  # it is said when a copy is asked for
        _program(session)  # before the first step, which may write its state
    _timed(session.variants[ORIGINAL].step)
    accelerated = bool(tf.config.list_logical_devices("GPU"))
    return OpenedTarget(accelerated, private.onednn_enabled(), environment.threads())


def shortest_call(traced: Any) -> Callable[[Sequence[Any]], Any]:
    """Return the shortest way into a function, the same for original and copies, so that no wrapper is measured."""
    from graphlens.tf import private

    return private.flat_call(traced.concrete) or traced.call


def apply(session: Session, variant: str, edits: Sequence[Sequence[Edit]]) -> Calls:
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
    return Calls(first_ns, second_ns, compilation.summary(program, dump))


def _program(session: Session) -> Any:
    from graphlens.tf import rewrite

    original = session.variants[ORIGINAL]
    if original.program is None:
        traced = session.prepared.traced
        opened = replace(session.owner, trace=lambda _: traced)  # traced once is enough
        try:
            program = rewrite.extract(opened, session.prepared.specs)
        except RewriteError as error:
            raise Refused(str(error)) from error
        session.variants[ORIGINAL] = replace(original, program=program, state=State.of(program))
        return program
    return original.program


def _edited(program: Any, groups: Sequence[Sequence[Edit]]) -> Any:
    from graphlens.tf import rewrite

    for number, edits in enumerate(groups):
        try:
            program = rewrite.apply(program, edits)
        except RewriteError as error:
            raise Refused(str(error), number) from error
    return program


def _built(program: Any) -> Any:
    from graphlens.tf import rewrite

    try:
        return rewrite.build(program)
    except RewriteError as error:
        raise Refused(str(error)) from error


def drop(session: Session, variant: str) -> Done:
    """Forget a variant and free what it holds."""
    session.variants.pop(variant, None)
    session.calls.pop(variant, None)
    gc.collect()
    return Done()


# -- compare --------------------------------------------------------------------------------------------------------


def compare(
    session: Session, variant: str, computes_in: str | None, outputs: str | None = None, rtol: float | None = None
) -> Comparison:
    """Compare a variant's outputs with the original's, and the original's with its own, on several inputs.

    Every call begins with the same values of the variables that the program writes, and what it wrote counts as
    output.  Where an output comes out of a final softmax or sigmoid, which squeezes differences, what goes into it is
    compared too.  ``outputs`` is the file with the outputs of a variant of another process.
    """
    from graphlens.tf import comparison

    allowed = comparison.Allowed(computes_in, rtol)
    before, after = _observers(session, variant) if outputs is None else _observers_across(session, Path(outputs))
    differences: list[Difference] = []
    unstable: list[Difference] = []
    sets = _input_sets(session)
    for tensors in sets:
        reference = before(tensors)
        found = comparison.compare(reference, after(tensors), allowed)
        repeats = 1 if all(one.agrees for one in found) else MOST_REPEATS
        unstable += _changes(reference, partial(before, tensors), repeats)
        differences += found
    return Comparison(comparison.worst(differences), len(sets), comparison.worst(unstable))


def _changes(reference: Mapping[str, Any], again: Callable[[], Mapping[str, Any]], repeats: int) -> list[Difference]:
    """Return the outputs in which a program differs from itself, called again until it does or time is up.

    A number drawn at random may be the same twice and another one the third time, in which a fix would be blamed.
    """
    from graphlens.tf import comparison

    end_s = time.monotonic() + REPEATS_S
    for number in range(repeats):
        found = [one for one in comparison.compare(reference, again()) if not one.agrees]
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
    from graphlens.tf import exchange

    known = exchange.read(outputs)
    names = {name.removesuffix(PROBED) for found in known.values() for name in found if name.endswith(PROBED)}
    first = _named(session.variants[ORIGINAL].call, _program(session), session.variants[ORIGINAL].state)
    before = _joined(first, _probe_of_original(session), names) if names else first
    return before, lambda tensors: dict(exchange.outputs_on(tensors, known))


def keep(session: Session, file: str) -> Done:
    """Write the values of the original's variables, for a process that is to begin with the same."""
    from graphlens.tf import exchange

    program = _program(session)
    session.variants[ORIGINAL].state.restore()
    exchange.write_values(Path(file), {name: one.read_value() for name, one in variables_of(program).items()})
    return Done()


def _take_over(session: Session, values: Path) -> None:
    """Give the original's variables the values in a file but for the last bit; they are its state from now on."""
    from graphlens.tf import exchange

    program = _program(session)
    exchange.assign_nudged(values, variables_of(program))
    session.variants[ORIGINAL] = replace(session.variants[ORIGINAL], state=State.of(program))


def observe(session: Session, variant: str, file: str, values: str | None = None) -> Done:
    """Write a variant's outputs, for the process that compares them."""
    from graphlens.tf import exchange

    if values is not None:
        _take_over(session, Path(values))
    _, after = _observers(session, variant)
    exchange.write(Path(file), [(tensors, after(tensors)) for tensors in _input_sets(session)])
    return Done()


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


def time_pairs(session: Session, before: str, after: str, pairs: int, block_ms: float) -> Pairs:
    """Time blocks in the order A B, B A, A B, …; always from the same state."""
    session.variants[before].state.restore()  # training goes on while it is timed: always from the same place
    with collector_paused():
        first, second = (_block(session, name, block_ms) for name in (before, after))
        return Pairs(tuple(_pair(first, second, number % 2 == 1) for number in range(pairs)))


def time_block(session: Session, variant: str, block_ms: float) -> Block:
    """Time one block, while another process with another variant is idle."""
    with collector_paused():
        block = _block(session, variant, block_ms)
        session.variants[variant].step()  # brings back into the caches what the other process has displaced
        return block()


def _pair(before: Callable[[], Block], after: Callable[[], Block], swapped: bool) -> Pair:
    if swapped:
        second, first = after(), before()
    else:
        first, second = before(), after()
    return Pair(first.wall_ns, second.wall_ns, first.cpu_ns, second.cpu_ns)


def _block(session: Session, name: str, block_ms: float) -> Callable[[], Block]:
    """Return what times as many calls as fill a block; they are counted once, when the program is warm."""
    step = session.variants[name].step
    if name not in session.calls:
        _repeat_for(step, WARM_UP_MS)
        session.calls[name] = _repeat_for(step, block_ms)
    count = session.calls[name]

    def block() -> Block:
        wall_ns, cpu_ns = _timed(lambda: _repeat(step, count))
        return Block(wall_ns / count, cpu_ns / count)

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


def write(_session: Session, request: RecordRequest, edits: Mapping[str, Sequence[Edit]], directory: str) -> Written:
    """Write the target as a SavedModel with the edits applied to its signatures."""
    from graphlens.tf import rewrite
    from graphlens.tf.record import child

    child.prepare_imports(request)
    try:
        notes = rewrite.write_saved_model(
            request.target, edits, directory, kind=request.kind, tag=request.tag, trust=request.trust
        )
    except RewriteError as error:
        raise Refused(str(error)) from error
    return Written(tuple(notes))


def load(session: Session, variant: str, request: RecordRequest) -> Done:
    """Open another target as a variant: it is compared and timed on the inputs of the first."""
    from graphlens.loaders.capture.writing import CaptureDirectory
    from graphlens.tf import rewrite
    from graphlens.tf.record import child, clock, preparing

    opened = child.open_requested(request)
    capture = CaptureDirectory(session.directory / variant, CapturedTarget(None, request.kind, request.signature))
    prepared = preparing.prepare(opened, child.plan_of(request, session.directory), capture)
    program = rewrite.extract(replace(opened, trace=lambda _: prepared.traced), prepared.specs)
    call = shortest_call(prepared.traced)
    step = clock.synchronous(lambda: call(session.prepared.tensors))
    session.variants[variant] = Variant(program, call, step, State.of(program))
    return Done()


COMMANDS: Final[Mapping[type[Any], Callable[..., Any]]] = {
    Open: open_target,
    Apply: apply,
    Compare: compare,
    Observe: observe,
    Keep: keep,
    TimePairs: time_pairs,
    TimeBlock: time_block,
    Drop: drop,
    Load: load,
    Write: write,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
