"""A small language in which a graph and its timing are written as text, for the examples and cases of rules.

One line is one op::

    x    = Placeholder() float32[1,8,8,4]
    w    = ReadVariableOp(filter) float32[3,3,4,8]
    conv = Conv2D(x, w) float32[1,8,8,8] 80us {data_format: NHWC}
    mul  = Mul(conv, gamma:1, ^w) float32[1,8,8,8] 20us @CPU:1 x2
    perm = Const() int32[4] = 0,3,1,2
    out  = _Retval(mul)

After the inputs come, in any order: the outputs' dtypes and shapes (``?`` is an unknown size, ``[*]`` an unknown
rank), the self time per step, the device, ``xN`` calls per step, ``not-seen`` (the profiler missed it), and attributes
in braces (``call``, ``then``, ``else``, ``cond`` and ``body`` name functions; ``digest`` and ``nbytes`` describe a
constant).  A constant's elements follow ``=``; an ``_Arg`` with elements or ``nbytes`` is a tensor that the function
has captured.  An op without a time that a profiler can see takes 1 us.  A name that is read as a variable but defined
nowhere is one.  ``*300 a# = Relu(x) 1us`` stands for 300 ops, ``#`` counting from 1.

An op of an accelerator (``@GPU:0``) is one kernel there (``kernel`` in its braces names it), and a tensor that a
receive takes from another memory is one copy of that device.  A line of type ``MemcpyH2D``, ``MemcpyD2H`` or
``MemcpyD2D`` is no op but a copy that belongs to none; its braces may hold ``node``, ``op``, ``src``, ``dst``, ``edge``
and ``bytes``.

Sections, each ending with a colon: ``traced:`` and ``executed:`` where the two graphs differ (otherwise both are the
same), ``function NAME:`` for a function body of the graph above it, ``unmatched:`` for events of ops in no graph,
``modelled:`` for the copies of a placement on a GPU that the machine does not have (lines of type ``MemcpyH2D``, …).
Settings, one a line: ``static`` (nothing was executed), ``training``, ``gap: 50us`` (time per step in which nothing
is known to run), ``unprofiled: 90us 100us`` (wall times of steps without the profiler), ``eager: 30us
train.py:12 step`` (the steps are those of an eager loop, which has no graph: what dispatching each op takes, the
line and the function in which gradients are asked for, and ``keras`` where Keras was told to run eagerly), and
with that ``read: 5us train.py:30 __float__`` (what reading a tensor at the end of each step takes).  Settings of the
machine:
``roof: 100 GFLOP/s 20 GB/s`` (measured on the processor; ``@GPU:0`` after it says where else), ``cpu: avx2 amx_bf16``
(what it can do), ``memory: 8192 MiB``, ``gpu: 7.0 16384 MiB`` (compute capability and memory of every GPU), ``assume:
T4`` (a GPU that it does not have).  Of a script that was watched: ``calls: 300 in 3s`` (of its function
``train_step``), ``traces: 1 first 90ms; 30 retrace 40ms rate: the Python value 1 became 2`` (`` | `` is between the
arguments that changed), ``called: train_step dispatch 90us input 5us python 20us steps 8 reduces`` (the steps are calls
of that function: what the call itself, waiting for input and Python between two calls take, each of which may be left
out; how many steps a call makes, and that tf.data loops over them).  ``pipeline: cores 4 | Prefetch buffer 2 <- Map
(MapDataset:1) 9ms parallel 1 random`` is what those calls read, its last stage first: what runs, the user's stages,
what one element takes, and words (``x256``: so many elements for one of the whole; ``batch 8``, ``parallel``,
``buffer``; ``autotune``, ``python``, ``random``, ``rows`` where a function does the same to each row of a batch, ``ops
DecodeJpeg``).  ``replicas`` lets each processor (``@CPU:1``) run
its ops while the others run theirs, and collectives end when the last one has got there.  A line that starts with
``//`` is a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from graphlens.ir.analysis import Target
from graphlens.ir.devices import Copy
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Function, Graph, Variable
from graphlens.ir.nodes import ARGUMENT, CONTROL, RETURN, Call, Constant, Edge, Op, TensorSpec
from graphlens.ir.ops import ASYNCHRONOUS, CONSTANTS, RECEIVES, UNTRACED, VARIABLE_READS, is_variable_write
from graphlens.ir.run import OpEvent, Profile, Span
from graphlens.ir.table import TableBuilder
from graphlens.testing.sketch_called import Called, called_profile
from graphlens.testing.sketch_devices import MEMCPYS, Timed, Wiring, modelled, placement, reported
from graphlens.testing.sketch_eager import eager_profile
from graphlens.testing.sketch_machine import environment_of, gpu_properties_of, is_machine, roof_of
from graphlens.testing.sketch_pipeline import is_pipeline, with_pipeline
from graphlens.testing.sketch_replicas import TimedOp, replicated_profile
from graphlens.testing.sketch_script import is_script, script_of

STEPS: Final = 5  # few, but enough that the first may be dropped as a slow one
DEFAULT_OP_NS: Final = 1_000
_DISPATCH_NS: Final = 500  # before and after the function's run, within the step
_UNIT_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DEVICE: Final = "/job:localhost/replica:0/task:0/device:"
_ROLES: Final = ("call", "then", "else", "cond", "body")

_OP = re.compile(r"^(?P<name>[^\s=]+)\s*=\s*(?P<type>[\w>]+)\((?P<inputs>[^)]*)\)\s*(?P<rest>.*)$")
_REPEAT = re.compile(r"^\*(\d+)\s+(.*)$")
_ATTRS = re.compile(r"\{(.*)\}")
_SPEC = re.compile(r"^(?P<dtype>[a-z][a-z0-9_]*)\[(?P<dims>[^\]]*)\]$")
_TIME = re.compile(r"^(\d+(?:\.\d+)?)(ns|us|ms|s)$")
_CALLS = re.compile(r"^x(\d+)$")


class SketchError(ValueError):
    """A line of a sketch cannot be understood; the message quotes it."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One op as written: the op itself, its inputs as written, and its timing."""

    op: Op
    inputs: tuple[str, ...]
    self_ns: int | None
    calls: int


@dataclass(slots=True)
class _Text:
    """A sketch split into its parts: op lines per ``(stage, function)``, and the settings."""

    lines: dict[tuple[str, str], list[_Line]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def has(self, stage: str) -> bool:
        return any(key[0] == stage for key in self.lines)

    def body(self, stage: str) -> list[_Line]:
        return self.lines.get((stage, ""), [])


def sketch(text: str) -> Evidence:
    """Build the evidence that ``text`` describes.

    Raises
    ------
    SketchError
        When a line is not understood, or reads a name that no line defines.

    Examples
    --------
    >>> evidence = sketch('''
    ...     x = Placeholder() float32[4]
    ...     y = Relu(x) float32[4] 3us
    ... ''')
    >>> [(source, name) for source, name, _ in evidence.executed.main.graph.edges()], evidence.profile.ops[0].self_ns
    ([('x', 'y')], 3000)
    """
    parts = _parse(text)
    stage = "executed" if parts.has("executed") else "both"
    traced = _graph(parts, "traced" if parts.has("traced") else "both")
    target = Target("sketch", "sketch")
    training = True if "training" in parts.settings else None
    copies = tuple(_modelled(line) for line in parts.body("modelled"))
    assumed = parts.settings.get("assume", "GPU" if parts.has("modelled") else "")
    placed = placement(assumed, copies) if assumed else None
    if "static" in parts.settings:
        return Evidence(
            target,
            traced=traced,
            training=training,
            static_reason="the sketch says static",
            script=script_of(parts.settings),
            environment=environment_of(parts.settings),
            placement=placed,
            placement_copies=copies,
        )
    timed = [*parts.body(stage), *parts.body("unmatched")]
    if "eager" in parts.settings:
        ops = [(line.op.type, line.self_ns or 0, line.calls) for line in timed]
        gap_ns = _nanoseconds(parts.settings.get("gap", "0ns"))
        dispatch, *told = parts.settings["eager"].split()
        read, *line = parts.settings.get("read", "0ns").split()
        profile = eager_profile(ops, (_nanoseconds(dispatch), *told), (_nanoseconds(read), *line), gap_ns)
        return Evidence(target, profile=profile, unprofiled_ns=_unprofiled_ns(parts))
    found = Evidence(
        target,
        traced=traced,
        executed=_placed(_graph(parts, stage)),
        environment=environment_of(parts.settings),
        profile=_called(parts.settings, timed)
        or _replicated(parts.settings, timed)
        or _profile(timed, _nanoseconds(parts.settings.get("gap", "0ns")), gpu_properties_of(parts.settings)),
        unprofiled_ns=_unprofiled_ns(parts),
        training=training,
        roof=roof_of(parts.settings),
        script=script_of(parts.settings),
        placement=placed,
        placement_copies=copies,
    )
    return with_pipeline(found, parts.settings.get("pipeline", ""))


def _unprofiled_ns(parts: _Text) -> tuple[int, ...]:
    return tuple(_nanoseconds(word) for word in parts.settings.get("unprofiled", "").split())


def _called(settings: Mapping[str, str], lines: Sequence[_Line]) -> Profile | None:
    called = Called.read(settings.get("called", ""))
    ops = [(line.op.name, line.op.type, line.self_ns) for line in lines if line.self_ns is not None]
    return called_profile(called, ops) if called else None


def _replicated(settings: Mapping[str, str], lines: Sequence[_Line]) -> Profile | None:
    if "replicas" not in settings:
        return None
    host = f"{_DEVICE}CPU:0"
    return replicated_profile(
        [TimedOp(line.op.name, line.op.type, line.op.device or host, line.inputs, line.self_ns) for line in lines]
    )


def _modelled(line: _Line) -> Copy:
    host, device = _DEVICE + "CPU:0", _DEVICE + "GPU:0"
    ends = (device, host) if line.op.type == "MemcpyD2H" else (host, device)
    return modelled(line.op, line.self_ns, *ends)


# -- reading ------------------------------------------------------------------------------------------------------


def _parse(text: str) -> _Text:
    parts = _Text()
    stage, function = "both", ""
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("//"):
            continue
        if line in ("traced:", "executed:", "unmatched:", "modelled:"):
            stage, function = line[:-1], ""
        elif line.startswith("function ") and line.endswith(":"):
            function = line[len("function ") : -1].strip()
        elif _OP.match(line) or _REPEAT.match(line):
            parts.lines.setdefault((stage, function), []).extend(_op_lines(line))
        else:
            key, _, value = (part.strip() for part in line.partition(":"))
            parts.settings[_setting(key, value, line)] = value
    return parts


def _setting(key: str, value: str, line: str) -> str:
    is_called = key == "called" and Called.read(value) is not None
    is_called |= key == "pipeline" and is_pipeline(value)
    is_known = is_called or is_machine(key, value) or is_script(key, value)
    if key not in ("static", "training", "gap", "unprofiled", "eager", "read", "replicas") and not is_known:
        raise SketchError(f"neither an op, a section nor a setting: {line!r}")
    return key


def _op_lines(line: str) -> Iterator[_Line]:
    repeated = _REPEAT.match(line)
    if repeated is None:
        yield _op_line(line)
        return
    for number in range(1, int(repeated[1]) + 1):
        yield _op_line(repeated[2].replace("#", str(number)))


def _op_line(line: str) -> _Line:
    match = _OP.match(line)
    if match is None:
        raise SketchError(f"not an op: {line!r}")
    rest, attrs = _take_attrs(match["rest"])
    rest, _, values = rest.partition("=")
    specs: list[TensorSpec] = []
    found: dict[str, Any] = {}
    for word in rest.split():
        spec = _spec(word)
        if spec:
            specs.append(spec)
        else:
            found.update(_mark(word, line))
    calls = tuple(Call(role, attrs.pop(role)) for role in _ROLES if role in attrs)
    is_captured = match["type"] == ARGUMENT and (values or "nbytes" in attrs)
    constant = _constant(specs, attrs, values, line) if match["type"] in CONSTANTS or is_captured else None
    device = found.get("device", "")
    op = Op(match["name"], match["type"], device, tuple(specs), attrs, calls, constant)
    inputs = tuple(word.strip() for word in match["inputs"].split(",") if word.strip())
    default_ns = None if op.type in UNTRACED or "not-seen" in found else DEFAULT_OP_NS
    return _Line(op, inputs, found.get("self_ns", default_ns), found.get("calls", 1))


def _mark(word: str, line: str) -> dict[str, Any]:
    """Read one word after the inputs: a time, a device, a number of calls or ``not-seen``."""
    if _TIME.match(word):
        return {"self_ns": _nanoseconds(word)}
    if word.startswith("@"):
        return {"device": word[1:] if word.startswith("@/") else _DEVICE + word[1:]}
    calls = _CALLS.match(word)
    if calls:
        return {"calls": int(calls[1])}
    if word == "not-seen":
        return {word: True}
    raise SketchError(f"{word!r} is no dtype, time, device or mark in {line!r}")


def _spec(word: str) -> TensorSpec | None:
    match = _SPEC.match(word)
    if match is None:
        return None
    if match["dims"] == "*":
        return TensorSpec(match["dtype"])
    sizes = [size for size in match["dims"].split(",") if size]
    return TensorSpec(match["dtype"], tuple(None if size == "?" else int(size) for size in sizes))


def _nanoseconds(word: str) -> int:
    match = _TIME.match(word)
    if match is None:
        raise SketchError(f"{word!r} is no time; write 20us, 1.5ms or 300ns")
    return round(float(match[1]) * _UNIT_NS[match[2]])


def _take_attrs(rest: str) -> tuple[str, dict[str, Any]]:
    match = _ATTRS.search(rest)
    if match is None:
        return rest, {}
    pairs = (pair.partition(":") for pair in re.split(r",\s*(?![^\[]*\])", match[1]) if pair.strip())
    return rest[: match.start()] + rest[match.end() :], {key.strip(): _value(text) for key, _, text in pairs}


def _value(text: str) -> Any:
    text = text.strip()
    if text.startswith("["):
        return tuple(_value(part) for part in text[1:-1].split(",") if part.strip())
    if text in ("true", "false"):
        return text == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _constant(specs: Sequence[TensorSpec], attrs: dict[str, Any], values: str, line: str) -> Constant:
    elements = tuple(_value(word) for word in values.split(",")) if values.strip() else None
    nbytes = attrs.pop("nbytes", specs[0].nbytes if specs else None)
    # Two constants are the same value only when the sketch says so, by elements or by digest.
    content = values.strip() or line
    digest = str(attrs.pop("digest", sha256(content.encode()).hexdigest()[:16]))
    return Constant(nbytes, elements, digest)


# -- graphs -------------------------------------------------------------------------------------------------------


def _graph(parts: _Text, stage: str) -> Graph:
    functions = {
        name: _function(name, [line for line in lines if line.op.type not in MEMCPYS])
        for (of, name), lines in parts.lines.items()
        if of == stage
    }
    functions.setdefault("", _function("", []))
    return Graph("", functions)


def _function(name: str, lines: Sequence[_Line]) -> Function:
    graph = TableBuilder()
    captures = _variables(lines)
    for variable in captures:
        graph.add_op(Op(variable, ARGUMENT, outputs=(TensorSpec("resource", ()),)))
    for line in lines:
        if line.op.name in graph:
            raise SketchError(f"{line.op.name!r} is defined twice")
        graph.add_op(line.op)
    for line in lines:
        _connect(graph, line)
    arguments = tuple(captures) + _of_type(lines, ARGUMENT)
    return Function(name, graph.table(), arguments, _of_type(lines, RETURN), captures)


def _variables(lines: Sequence[_Line]) -> Mapping[str, Variable]:
    """Return the variables that are read or written, but defined by no line."""
    defined = {line.op.name for line in lines}
    found: dict[str, Variable] = {}
    for line in lines:
        if line.op.type in VARIABLE_READS or is_variable_write(line.op.type):
            for name in line.inputs[:1]:
                if name not in defined:
                    spec = line.op.outputs[0] if line.op.outputs else TensorSpec("float32")
                    found.setdefault(name, Variable(name, spec))
    return found


def _connect(graph: TableBuilder, line: _Line) -> None:
    port = 0
    for written in line.inputs:
        source, _, src_port = written.lstrip("^").partition(":")
        if source not in graph:
            raise SketchError(f"{line.op.name!r} reads {source!r}, which no line defines")
        if written.startswith("^"):
            graph.add_edge(source, line.op.name, CONTROL)
            continue
        is_transfer = line.op.type in RECEIVES
        edge = Edge("transfer" if is_transfer else "data", int(src_port or 0), port)
        graph.add_edge(source, line.op.name, edge)
        port += 1


def _of_type(lines: Iterable[_Line], op_type: str) -> tuple[str, ...]:
    return tuple(line.op.name for line in lines if line.op.type == op_type)


def _placed(graph: Graph) -> Graph:
    """Give every op of an executed graph a device, as TensorFlow does."""
    return replace(graph, functions={name: _on_host(function) for name, function in graph.functions.items()})


def _on_host(function: Function) -> Function:
    unplaced = {op.name: replace(op, device=_DEVICE + "CPU:0") for op in function.graph.ops() if not op.device}
    return replace(function, graph=function.graph.with_ops(unplaced))


# -- timing -------------------------------------------------------------------------------------------------------


def _profile(lines: Sequence[_Line], gap_ns: int, gpu: Mapping[str, object]) -> Profile:
    """Lay the ops of ``STEPS`` identical steps out one after the other, inside step, function and executor spans."""
    threads = {device: number for number, device in enumerate(dict.fromkeys(line.op.device for line in lines))}
    timed = [line for line in lines if line.self_ns is not None]
    events: list[Timed] = []
    steps, functions, executors = [], [], []
    now_ns = 0
    for number in range(1, STEPS + 1):
        start_ns = now_ns + _DISPATCH_NS
        one_step = list(_events(timed, start_ns))
        end_ns = one_step[-1].end_ns if one_step else start_ns
        events += one_step
        executors.append(Span("executor", start_ns, end_ns, 0, number))
        functions.append(Span("function", start_ns, end_ns + gap_ns, 0, number))
        steps.append(Span("step", now_ns, end_ns + gap_ns + _DISPATCH_NS, 0, number))
        now_ns = steps[-1].end_ns
    wiring = Wiring({line.op.name: line.op for line in lines}, {line.op.name: line.inputs for line in lines})
    devices, kernels, copies = reported(events, wiring, gpu)
    ops = [event for event in events if event.op.type not in MEMCPYS]
    return Profile(
        ops=tuple(_op_event(event, threads) for event in ops if event.op.type not in ASYNCHRONOUS),
        steps=tuple(steps),
        executors=tuple(executors),
        functions=tuple(functions),
        waits=tuple(_wait(event, threads) for event in ops if event.op.type in ASYNCHRONOUS),
        devices=devices,
        kernels_on_device=kernels,
        copies=copies,
    )


def _events(lines: Sequence[_Line], start_ns: int) -> Iterator[Timed]:
    for line in lines:
        for _ in range(line.calls):
            end_ns = start_ns + (line.self_ns or 0) // line.calls
            yield Timed(line.op, start_ns, end_ns)
            start_ns = end_ns


def _op_event(event: Timed, threads: Mapping[str, int]) -> OpEvent:
    op, start_ns, end_ns = event
    return OpEvent(op.name, op.type, start_ns, end_ns, end_ns - start_ns, threads[op.device])


def _wait(event: Timed, threads: Mapping[str, int]) -> Span:
    op, start_ns, end_ns = event
    return Span(f"{op.name}:{op.type}", start_ns, end_ns, threads[op.device])
