"""Captures: what a recording leaves, as a folder or as one file, read back into evidence without TensorFlow."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from graphlens.errors import TargetError
from graphlens.ir.analysis import Target
from graphlens.ir.calls import Calls
from graphlens.ir.capture import MAIN, CapturedInput, CapturedProgram, CapturedRoof, CapturedVariable, Manifest, new_id
from graphlens.ir.devices import Roof
from graphlens.ir.evidence import Evidence
from graphlens.ir.failure import AnalysisError
from graphlens.ir.graph import Graph, Variable
from graphlens.ir.inputs import MADE_UP, InputOrigin, InputRow
from graphlens.ir.nodes import ARGUMENT, Constant, Op, TensorSpec
from graphlens.ir.ops import FED
from graphlens.ir.program import Program
from graphlens.ir.run import ReplayRecord
from graphlens.loaders.capture.manifest import read_manifest
from graphlens.loaders.capture.parts import HLO_FOLDER, MANIFEST, OPTIMIZED, PROFILE, REPLAY, TRACED, folder_of
from graphlens.loaders.events import Recorded
from graphlens.loaders.files import ARCHIVE_ERRORS, MESSAGE_LIMIT_BYTES

Part = TypeVar("Part")

# What a capture says of where a value came from -> the same in the analysis; the last one is of earlier versions.
_ORIGINS: Mapping[str, InputOrigin] = {"given": "given", "example": "example", MADE_UP: MADE_UP, "made": MADE_UP}


@dataclass(frozen=True, slots=True)
class Capture:
    """An opened capture: its manifest, and where its parts are.

    ``names`` lists the parts with ``/`` between folders, whatever the machine.
    """

    path: Path
    manifest: Manifest
    names: frozenset[str]

    def part(self, name: str) -> bytes:
        """Return one part.

        Raises
        ------
        TargetError
            When the part is missing or damaged.
        """
        if name not in self.names:
            raise TargetError(f"'{self.path}' has no part '{name}'; record it again")
        with readable(self.path):
            return _read(self.path, name)


def open_capture(path: str | os.PathLike[str]) -> Capture:
    """Open the capture in ``path``, a file or a folder.

    Raises
    ------
    TargetError
        When it is no capture, is damaged, or was written by a newer GraphLens.
    """
    place = Path(path)
    if not place.exists():
        raise TargetError(f"'{place}' does not exist")
    with readable(place):
        names = frozenset(_names(place))
        if MANIFEST not in names:
            raise TargetError(f"'{place}' is no capture: it holds no {MANIFEST}")
        raw = _read(place, MANIFEST)
    return Capture(place, read_manifest(raw, place), names)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what damaged archives and files raise into one line."""
    try:
        yield
    except ARCHIVE_ERRORS as error:
        raise TargetError(f"'{path}' is damaged ({error}); copy or record it again") from error


def _names(path: Path) -> list[str]:
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    with zipfile.ZipFile(path) as archive:
        _refuse_huge(path, sum(entry.file_size for entry in archive.infolist()))
        return archive.namelist()


def _read(path: Path, name: str) -> bytes:
    """Read one part, whose size is known before: a small archive can claim to hold any amount of zeros."""
    if path.is_dir():
        _refuse_huge(path, (path / name).stat().st_size)
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
        _refuse_huge(path, entry.file_size)
        with archive.open(entry) as part:
            data = part.read(entry.file_size + 1)
        if len(data) != entry.file_size:
            raise zipfile.BadZipFile(f"{name} is not as large as the archive says")
        return data


def _refuse_huge(path: Path, size: int) -> None:
    if size > MESSAGE_LIMIT_BYTES:
        raise TargetError(f"'{path}' unpacks to {size >> 30} GiB, which no recording leaves; record it again")


# -- evidence -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Salvage:
    """Reads part by part; a damaged part costs that part, and says so."""

    capture: Capture
    errors: list[AnalysisError] = field(default_factory=list)

    def take(self, name: str, read: Callable[[], Part], otherwise: Part) -> Part:
        try:
            return read()
        except TargetError as error:
            self.errors.append(AnalysisError("read", f"{name}: {error}"))
            return otherwise


def evidence_of(capture: Capture) -> Evidence:
    """Return what ``capture`` says; parts that cannot be read are missing, with an error that says why."""
    salvage, manifest = _Salvage(capture), capture.manifest
    main = _main_program(salvage)
    others = tuple(_program(salvage, listed) for listed in manifest.programs if not listed.main)
    recording = salvage.take("profile", lambda: _recording(capture), None)
    profile = recording.profile if recording else None
    no_replay: dict[str, ReplayRecord] = {}
    replay = salvage.take("replay", lambda: _replay(capture), no_replay)
    return Evidence(
        target=_target(capture),
        environment=manifest.environment,
        traced=main.traced,
        optimized=main.optimized,
        executed=main.executed,
        profile=profile,
        profile_path=_recorded_elsewhere(manifest),
        # A clock that stood still has timed nothing.
        unprofiled_ns=tuple(ns for ns in manifest.unprofiled_ns if ns > 0),
        empty_call_ns=manifest.empty_call_ns,
        replay=replay,
        renamed=main.renamed,
        scopes=main.scopes,
        hlo={**(recording.modules if recording else {}), **main.hlo},
        training=manifest.training,
        static_reason=_static_reason(manifest, main.executed),
        notes=(*_notes(manifest, (main.traced, main.executed)), *(profile.notes if profile else ())),
        errors=(*manifest.errors, *salvage.errors),
        roof=_roof(manifest.roof),
        programs=(*_told(main, manifest), *others) if manifest.programs else (),
        inputs=main.inputs,
        fed=main.fed,
        judged=main.id if manifest.programs else None,
        script=manifest.script,
        pipelines=manifest.pipelines,
        callbacks=manifest.callbacks,
    )


def _recorded_elsewhere(manifest: Manifest) -> str | None:
    """Return where the profile comes from when it was not recorded together with the graphs."""
    return ", ".join(host.name for host in manifest.hosts) or None


def _target(capture: Capture) -> Target:
    target = capture.manifest.target
    return Target(
        target.path or str(capture.path), target.kind or "capture", target.signature, target.digest, target.chosen
    )


def _static_reason(manifest: Manifest, executed: Graph | None) -> str | None:
    if executed is not None:
        return None
    failed = next((error.message for error in manifest.errors), "the capture holds no executed graph")
    return manifest.static_reason or failed


def _notes(manifest: Manifest, graphs: Sequence[Graph | None]) -> tuple[str, ...]:
    read = [note for graph in graphs if graph is not None for note in graph.notes]
    return tuple(dict.fromkeys([*manifest.notes, *read]))


def _roof(measured: CapturedRoof | None) -> Roof | None:
    """Return the machine's roof; captures of before it was measured have none."""
    if measured is None:
        return None
    return Roof(
        flops_per_s=measured.flops_per_s,
        bytes_per_s=measured.bytes_per_s,
        dtype=measured.dtype,
        threads=measured.threads,
        device=measured.device,
    )


# -- programs -----------------------------------------------------------------------------------------------------


def _main_program(salvage: _Salvage) -> Program:
    """Return the program whose parts lie at the top; its fields stand at the top of the manifest."""
    manifest = salvage.capture.manifest
    listed = manifest.main or CapturedProgram(new_id(MAIN, [one.id for one in manifest.programs]), main=True)
    described = replace(
        listed,
        signature=listed.signature or manifest.target.signature,
        training=manifest.training,
        traced_root=manifest.traced_root,
        variables=manifest.variables,
        captured=manifest.captured,
        captured_numbers=manifest.captured_numbers,
        executed=manifest.executed,
        executed_root_arguments=manifest.executed_root_arguments,
        executed_captured=manifest.executed_captured,
        executed_captured_numbers=manifest.executed_captured_numbers,
        renamed=manifest.renamed,
        scopes=manifest.scopes,
        inputs=manifest.inputs,
    )
    return _program(salvage, described)


def _told(main: Program, manifest: Manifest) -> tuple[Program, ...]:
    """Return the main program where there is one: of a script all programs are alike."""
    is_known = manifest.main is not None or main.traced is not None or main.executed is not None
    return (main,) if is_known else ()


def _program(salvage: _Salvage, listed: CapturedProgram) -> Program:
    """Return one program; a damaged part costs that part of that program."""
    capture, folder = salvage.capture, "" if listed.main else folder_of(listed.id)
    of_it = "" if listed.main else f" of program {listed.id}"
    return Program(
        id=listed.id,
        name=listed.name,
        role=listed.role,
        signature=listed.signature,
        traced=salvage.take(f"traced graph{of_it}", lambda: _traced(capture, folder, listed), None),
        optimized=salvage.take(f"optimized graph{of_it}", lambda: _graph(capture, folder + OPTIMIZED), None),
        executed=salvage.take(f"executed graph{of_it}", lambda: _executed(capture, listed), None),
        training=listed.training,
        main=listed.main,
        hlo=_modules(salvage, folder),
        renamed=listed.renamed,
        scopes=listed.scopes,
        inputs=tuple(TensorSpec(fed.dtype, fed.shape) for fed in listed.inputs),
        fed=tuple(_input_rows(listed.inputs)),
    )


def _input_rows(inputs: Sequence[CapturedInput]) -> Iterator[InputRow]:
    """Yield what was fed, as far as its origin is known."""
    for fed in inputs:
        origin = _ORIGINS.get(fed.origin)
        if origin is not None:
            yield InputRow(fed.name, fed.dtype, fed.shape, fed.range, origin, fed.source, fed.decides, fed.loop)


def _traced(capture: Capture, folder: str, program: CapturedProgram) -> Graph | None:
    if folder + TRACED not in capture.names:
        return None
    graph = _reachable(capture, folder + TRACED, program.traced_root)
    return _holding(_with_captures(graph, program.variables), program.captured, program.captured_numbers)


def _graph(capture: Capture, name: str) -> Graph | None:
    return _reachable(capture, name, "") if name in capture.names else None


def _reachable(capture: Capture, name: str, root: str) -> Graph:
    from graphlens.loaders.graphdef import build_reachable, parse_graph_def

    graph = build_reachable(parse_graph_def(capture.part(name), name), root)
    Calls(graph).refuse_huge()
    return graph


def _executed(capture: Capture, program: CapturedProgram) -> Graph | None:
    from graphlens.loaders.graphdef import parse_graph_def
    from graphlens.loaders.partitions import merge_partitions

    if not program.executed:
        return None
    graph = merge_partitions([parse_graph_def(capture.part(name), name) for name in program.executed])
    bound = _with_captures(_with_inputs(graph, program.inputs), program.executed_root_arguments)
    return _holding(bound, program.executed_captured, program.executed_captured_numbers)


def _with_inputs(graph: Graph, inputs: Sequence[CapturedInput]) -> Graph:
    """Give the root's arguments, whose batch a model leaves open, the shapes that the recorder fed."""
    shaped: dict[str, Op] = {}
    for fed in inputs:
        op = graph.main.graph.get(fed.name)
        if op is None or fed.shape is None:
            continue
        if op.type == ARGUMENT and op.outputs and _may_be(op.outputs[0], fed.dtype, fed.shape):
            shaped[fed.name] = replace(op, outputs=(TensorSpec(op.outputs[0].dtype, fed.shape),))
    main = replace(graph.main, graph=graph.main.graph.with_ops(shaped))
    return replace(graph, functions={**graph.functions, graph.root: main})


def _may_be(spec: TensorSpec, dtype: str, shape: Sequence[int | None]) -> bool:
    if spec.dtype != dtype or (spec.shape is not None and len(spec.shape) != len(shape)):
        return False
    return all(known in (None, size) for known, size in zip(spec.shape or shape, shape, strict=True))


def _with_captures(graph: Graph, described: Mapping[str, CapturedVariable]) -> Graph:
    """Bind the root's arguments to the variables that the recorder found behind them."""
    bound = {name: _variable(entry) for name, entry in described.items() if name in graph.main.graph}
    if not bound:
        return graph
    main = replace(graph.main, captures={**graph.main.captures, **bound})
    return replace(graph, functions={**graph.functions, graph.root: main})


def _holding(graph: Graph, captured: Sequence[str], numbers: Mapping[str, tuple[int, ...]]) -> Graph:
    """Say of the root's arguments that are captured tensors that they hold one, and what, if it is a few axes."""
    main = graph.main.graph
    held = {
        name: replace(op, constant=_held(op, numbers.get(name)))
        for name in captured
        if (op := main.get(name)) and op.type in FED
    }
    functions = {**graph.functions, graph.root: replace(graph.main, graph=main.with_ops(held))}
    return replace(graph, functions=functions) if held else graph


def _held(op: Op, numbers: tuple[int, ...] | None) -> Constant:
    return Constant(op.outputs[0].nbytes if op.outputs else None, numbers)


def _variable(entry: CapturedVariable) -> Variable:
    return Variable(entry.name, TensorSpec(entry.dtype, entry.shape), entry.trainable, entry.written_by, entry.key)


# -- what was measured ----------------------------------------------------------------------------------------------


def _recording(capture: Capture) -> Recorded | None:
    from graphlens.loaders import xplane

    parts = profile_parts(capture)
    if PROFILE in parts.values():
        return xplane.read_recording(capture.part(PROFILE))
    return xplane.read_recordings({host: capture.part(part) for host, part in parts.items()}) if parts else None


def profile_parts(capture: Capture) -> dict[str, str]:
    """Return host -> part of the capture's profiles; the host of a local recording is empty."""
    if PROFILE in capture.names:
        return {"": PROFILE}
    return {host.name: host.profile for host in capture.manifest.hosts}


def _replay(capture: Capture) -> dict[str, ReplayRecord]:
    if REPLAY not in capture.names:
        return {}
    from graphlens.loaders.replay import read_replay

    return read_replay(capture.part(REPLAY))


def _modules(salvage: _Salvage, folder: str) -> dict[str, Graph]:
    modules: dict[str, Graph] = {}
    for name in sorted(name for name in salvage.capture.names if name.startswith(folder + HLO_FOLDER)):
        nothing: dict[str, Graph] = {}
        modules.update(salvage.take(name, partial(_hlo, salvage.capture, name), nothing))
    return modules


def _hlo(capture: Capture, name: str) -> dict[str, Graph]:
    from graphlens.loaders.hlo import read_hlo

    module, graph = read_hlo(capture.part(name).decode("utf-8", "replace"))
    return {module: graph}
