"""Damaged and hostile files: seeds are mutated, by bytes and by structure, and given to the command line.

    python tests/mutations.py [--count N] [--first N] [--processes N]

Every case has a number, by which it is made again: ``--first 4711 --count 1 --keep FOLDER`` leaves its file in FOLDER.
A case is good when the command ends with 0, 2 or 3 within ``LIMIT_S`` of CPU time, says at most one line on standard
error, and leaves all of its reports or none of them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

HOME = Path(__file__).parents[1]
FIXTURES = HOME / "fixtures"
SHARED = HOME.parent / "shared" / "real"  # for those who ask: a number stands for the same case everywhere
ALSO_SHARED = "GRAPHLENS_MUTATE_SHARED"
ANALYSIS = "analysis.json"
LIMIT_S = 10.0  # of CPU time for one case
MEMORY_BYTES = 6 << 30
LARGEST_SEED_BYTES = 600_000  # a case of a larger one takes seconds
GOOD_CODES = frozenset({0, 2, 3})
NUMBERS = (0, 1, -1, 2, 7, 255, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63), 10**30)
FLOATS = (0.0, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
WORDS = (
    "",
    "x",
    "^x",
    "x:0",
    "a/b/../c",
    "\ufeff",
    "\x1b[31m",
    "é" * 50,
    "n" * 5000,
    "<script>alert(1)</script>",
    "${T}",
)


@dataclass(frozen=True)
class Result:
    """What became of one case; ``problem`` is ``None`` for a good one."""

    case: int
    seed: str
    mutation: str
    code: int | None
    seconds: float
    problem: str | None = None


# -- seeds ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seed:
    """A good file: what it is called where, and its content."""

    origin: str
    name: str
    content: bytes

    @property
    def kind(self) -> str:
        """What the file is; cases are spread evenly over the kinds."""
        if self.name in {"run_meta", "timeline.json"} or "xplane" in self.name:
            return "profile"
        if self.name == ANALYSIS:
            return "analysis"
        return "model" if self.name.startswith("saved_model.") else Path(self.name).suffix


@cache
def seeds() -> dict[str, list[Seed]]:
    """Return the files that are mutated by their kinds; the same file beside the checkout and in it is one."""
    distinct = {seed.content: seed for seed in (*_found(), *_made()) if 0 < len(seed.content) <= LARGEST_SEED_BYTES}
    kinds: dict[str, list[Seed]] = {}
    for seed in distinct.values():
        kinds.setdefault(seed.kind, []).append(seed)
    return kinds


def _found() -> Iterator[Seed]:
    for root in [FIXTURES, *([SHARED] if os.environ.get(ALSO_SHARED) else [])]:
        for file in sorted(root.rglob("*")) if root.is_dir() else []:
            fits = file.suffix in {".capture", ".pb", ".pbtxt"} or file.name == "run_meta"
            if fits and file.is_file() and not {"bad", "variables", "assets"} & set(file.parts):
                yield Seed(str(file.relative_to(root)), file.name, file.read_bytes())


def _made() -> Iterator[Seed]:
    """Yield the parts of captures as files of their own, and small files of kinds that the folders hold none of."""
    for capture in sorted((HOME / "fixtures" / "captures").glob("*.capture")):
        with zipfile.ZipFile(capture) as archive:
            for part in {"traced.pb", "executed/0.pb", "profile.xplane.pb"} & set(archive.namelist()):
                name = f"{capture.stem}.{Path(part).name}"
                yield Seed(f"{capture.name}:{part}", name, archive.read(part))
    yield Seed("a timeline", "timeline.json", json.dumps({"traceEvents": list(_events())}).encode())
    yield Seed("an analysis", ANALYSIS, _analysis())
    yield Seed("functions that call functions", "saved_model.pb", _nested().SerializeToString())


def _analysis() -> bytes:
    import graphlens
    from graphlens.ir.document import to_json

    return to_json(graphlens.load(FIXTURES / "captures" / "while_if.capture").document).encode()


def _events() -> Iterator[dict[str, Any]]:
    yield {"name": "process_name", "ph": "M", "pid": 0, "args": {"name": "/device:GPU:0/stream:all Compute"}}
    for number in range(12):
        told = {"name": f"layer_{number}/conv", "op": "Conv2D", "input0": f"layer_{number - 1}/conv"}
        yield {"name": "Conv2D", "ph": "X", "pid": 0, "tid": 0, "ts": number * 10, "dur": 9, "cat": "Op", "args": told}


def _nested() -> Any:
    """Return a SavedModel of twelve functions, each of which calls the next one twice."""
    from graphlens.loaders.schema import saved_model

    message = saved_model()(saved_model_schema_version=1)
    meta = message.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    _add_call(meta.graph_def.node, "call", "f0", "x")
    for level in range(12):
        function = meta.graph_def.library.function.add()
        function.signature.name = f"f{level}"
        function.signature.input_arg.add(name="a", type=1)
        function.signature.output_arg.add(name="r", type=1)
        function.node_def.add(name="relu", op="Relu", input=["a"]).attr["T"].type = 1
        for side in ("left", "right") if level < 11 else ():
            _add_call(function.node_def, side, f"f{level + 1}", "relu:activations:0")
        function.ret["r"] = "relu:activations:0" if level == 11 else "left:output:0"
    signature = meta.signature_def["serving_default"]
    signature.inputs["x"].name, signature.inputs["x"].dtype = "x:0", 1
    signature.outputs["y"].name, signature.outputs["y"].dtype = "call:0", 1
    return message


def _add_call(nodes: Any, name: str, function: str, source: str) -> None:
    call = nodes.add(name=name, op="PartitionedCall", input=[source])
    call.attr["f"].func.name = function
    call.attr["Tin"].list.type.append(1)
    call.attr["Tout"].list.type.append(1)


def place_of(seed: Seed, folder: Path) -> tuple[Path, Path]:
    """Return where a mutated seed is written in ``folder``, and what the command is given."""
    if seed.name.startswith("saved_model."):
        return folder / "model" / seed.name, folder / "model"
    return folder / seed.name, folder / seed.name


# -- mutations -----------------------------------------------------------------------------------------------------


def mutate(content: bytes, name: str, choose: random.Random) -> tuple[str, bytes]:
    """Return what was done to ``content``, and what became of it."""
    if name.endswith(".capture") and choose.random() < 0.8:
        return _in_archive(content, choose)
    changed = choose.choice([_bytes_changed, *([_structure_changed] * 2 if _parser(name) else [])])
    return changed.__name__.strip("_"), changed(content, name, choose)


def _in_archive(content: bytes, choose: random.Random) -> tuple[str, bytes]:
    """Change one part of an archive, which is whole otherwise."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = choose.choice([*parts, "capture.json"])
    done, parts[name] = mutate(parts[name], name, choose)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for part, data in parts.items():
            archive.writestr(part, data)
    return f"{done} in {name}", packed.getvalue()


def _bytes_changed(content: bytes, _name: str, choose: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(choose.choice([1, 1, 2, 5, 20])):
        at = choose.randrange(len(data) + 1)
        end = min(len(data), at + choose.choice([1, 1, 2, 8, 200]))
        way = choose.randrange(7)
        if way == 0 and at < len(data):
            data[at] ^= 1 << choose.randrange(8)
        elif way == 1:
            data[at:end] = choose.randbytes(end - at)
        elif way == 2:
            data[at:at] = choose.randbytes(choose.choice([1, 4, 100]))
        elif way == 3:
            del data[at:end]
        elif way == 4:
            data[at:at] = data[at:end]
        elif way == 5:
            data[at:end] = b"\xff" * 9 + b"\x01"
        elif choose.random() < 0.3:
            del data[at:]
    return bytes(data)


def _structure_changed(content: bytes, name: str, choose: random.Random) -> bytes:
    parser = _parser(name)
    assert parser is not None
    structure, written = parser(content)
    words = WORDS if isinstance(structure, (dict, list)) else (*WORDS, *_words_in(structure, choose))
    for _ in range(choose.choice([1, 1, 2, 4, 10])):
        if isinstance(structure, (dict, list)):
            _change_json(structure, choose)
        else:
            _change_message(structure, choose, words)
    return written(structure)


Parser = Callable[[bytes], tuple[Any, Callable[[Any], bytes]]]


def _parser(name: str) -> Parser | None:
    """Return what reads a file of that name, with what writes it again."""
    from tensorboard.compat.proto import config_pb2, graph_pb2

    from graphlens.loaders.schema import saved_model, xspace

    if name.endswith(".json"):
        return lambda data: (json.loads(data), lambda made: json.dumps(made).encode())
    if name.endswith(".pbtxt"):
        return _text_parser(saved_model() if name.startswith("saved_model") else graph_pb2.GraphDef)
    if name.endswith("xplane.pb"):
        return _binary_parser(xspace())
    if name == "run_meta":
        return _binary_parser(config_pb2.RunMetadata)
    if name.endswith(".pb"):
        return _binary_parser(saved_model() if name.startswith("saved_model") else graph_pb2.GraphDef)
    return None


def _binary_parser(kind: Any) -> Parser:
    return lambda data: (kind.FromString(data), lambda made: bytes(made.SerializePartialToString()))


def _text_parser(kind: Any) -> Parser:
    from google.protobuf import text_format

    return lambda data: (
        text_format.Parse(data.decode(), kind(), allow_unknown_field=True),
        lambda made: text_format.MessageToString(made).encode(),
    )


# -- mutations of protobuf messages --------------------------------------------------------------------------------


def _change_message(message: Any, choose: random.Random, words: Sequence[str]) -> None:
    """Go down to a field at random, and change it."""
    while True:
        fields = message.ListFields()
        if not fields:
            return
        field, value = choose.choice(fields)
        inner = _inner(field, value, choose)
        if inner is None or choose.random() < 0.15:
            break
        message = inner
    with contextlib.suppress(ValueError, TypeError, OverflowError):  # the field does not take that value
        _change_field(message, field, value, choose, words)


def _inner(field: Any, value: Any, choose: random.Random) -> Any:
    if _is_map(field):
        entry = value[choose.choice(sorted(value))]
        return entry if hasattr(entry, "ListFields") else None
    if field.message_type is None:
        return None
    return choose.choice(value) if _is_repeated(value) else value


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes)) and not hasattr(value, "ListFields")


def _change_field(message: Any, field: Any, value: Any, choose: random.Random, words: Sequence[str]) -> None:
    way = choose.random()
    if way < 0.2:
        message.ClearField(field.name)
    elif _is_map(field):
        keys = sorted(value)
        _copy(value, choose.choice(keys), choose.choice([*keys, *words]))
    elif _is_repeated(value):
        _change_repeated(value, field, choose, words)
    elif field.message_type is not None:
        value.MergeFrom(type(value).FromString(value.SerializeToString()))
    else:
        setattr(message, field.name, _scalar(value, choose, words))


def _copy(values: Any, source: Any, target: Any) -> None:
    if hasattr(values[source], "ListFields"):
        values[target].CopyFrom(values[source])
    else:
        values[target] = values[source]


def _change_repeated(values: Any, field: Any, choose: random.Random, words: Sequence[str]) -> None:
    at, other = choose.randrange(len(values)), choose.randrange(len(values))
    way = choose.randrange(4)
    if way == 0:
        del values[at]
    elif field.message_type is not None:
        if way == 1:
            values.add().CopyFrom(values[at])
        elif way == 2:
            values[at].MergeFrom(type(values[other]).FromString(values[other].SerializeToString()))
        else:
            values[at].CopyFrom(type(values[other]).FromString(values[other].SerializeToString()))
    elif way == 1:
        values.append(values[at])
    elif way == 2:
        values[at] = values[other]
    else:
        values[at] = _scalar(values[at], choose, words)


def _scalar(value: Any, choose: random.Random, words: Sequence[str]) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return choose.choice([*NUMBERS, value + 1, value - 1, value * 1000])
    if isinstance(value, float):
        return choose.choice(FLOATS)
    if isinstance(value, bytes):
        return choose.choice([b"", b"\xff\xfe", value + value, choose.randbytes(20)])
    return choose.choice([*words, value + "x", value[: len(value) // 2]])


def _words_in(message: Any, choose: random.Random) -> list[str]:
    """Return some of the names in a message, found by going down at random: what may stand for one another."""
    found = []
    for _ in range(40):
        inner = message
        while inner is not None and (fields := inner.ListFields()):
            field, value = choose.choice(fields)
            found += [value] if isinstance(value, str) else []
            inner = _inner(field, value, choose) if _is_map(field) or field.message_type is not None else None
    return found


# -- mutations of JSON ---------------------------------------------------------------------------------------------


def _change_json(node: Any, choose: random.Random) -> None:
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = choose.choice(keys)
        if not isinstance(node[key], (dict, list)) or choose.random() < 0.15:
            break
        node = node[key]
    way = choose.randrange(5)
    if way == 0:
        del node[key]
    elif way == 1:
        node[key] = node[choose.choice(keys)]
    elif way == 2 and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = choose.choice([*NUMBERS, *FLOATS, *WORDS, None, True, [], {}, [[]], {"x": []}])


# -- one case ------------------------------------------------------------------------------------------------------


class TookTooLongError(BaseException):
    """Raised by the clock in whatever runs; nothing that guards against errors takes it for one."""


def run_case(number: int, folder: Path) -> Result:
    """Make the case of that number in ``folder``, which is empty, and give it to the command line."""
    choose = random.Random(number)
    seed = choose.choice(seeds()[choose.choice(sorted(seeds()))])
    mutation, content = mutate(seed.content, seed.name, choose)
    file, target = place_of(seed, folder)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    if seed.name == ANALYSIS:
        return _result_of_loading(number, seed, mutation, file, folder)
    reports = [folder / "report.json", folder / "report.html"] if choose.random() < 0.2 else [folder / "report.json"]
    options = [word for report in reports for word in ("-o", str(report))]
    if choose.random() < 0.1:
        options += ["--assume-device", "gpu"]
    before = time.process_time()
    code, problem = _command(["analyze", str(target), "--static", *options])
    problem = problem or _left(folder, file, reports, code)
    return Result(number, seed.origin, mutation, code, round(time.process_time() - before, 2), problem)


def _result_of_loading(number: int, seed: Seed, mutation: str, file: Path, folder: Path) -> Result:
    """Load an analysis, and write it again; it is no target of the command line."""
    before = time.process_time()

    def reread() -> int:
        import graphlens
        from graphlens.errors import GraphLensError

        try:
            graphlens.load(file).save(folder / "again.html")
        except GraphLensError as error:
            print(error, file=sys.stderr)
            return 2
        return 0

    code, problem = _guarded(reread)
    left = sorted(path.name for path in folder.iterdir() if path != file)
    if problem is None and left != ([] if code else ["again.html"]):
        problem = f"left {left}"
    return Result(number, seed.origin, mutation, code, round(time.process_time() - before, 2), problem)


def _end(_number: int, _frame: object) -> NoReturn:
    raise TookTooLongError


def _command(words: list[str]) -> tuple[int | None, str | None]:
    from graphlens import cli

    return _guarded(lambda: cli.main(words))


def _guarded(run: Callable[[], int]) -> tuple[int | None, str | None]:
    from graphlens import cli

    said, told = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGPROF, _end)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(said):
            code = run()
    except TookTooLongError:
        return None, f"took more than {LIMIT_S:.0f} s: {_where()}"
    except BaseException:
        return None, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if code not in GOOD_CODES:
        return code, f"ended with {code}: {said.getvalue()[:300]}"
    if len(said.getvalue().splitlines()) > 1 or "Traceback" in said.getvalue() or cli.OUT_OF_MEMORY in said.getvalue():
        return code, f"said {said.getvalue()[:2000]}"
    return code, None


def _where() -> str:
    frames = traceback.extract_tb(sys.exc_info()[2])
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-12:]))


def _left(folder: Path, file: Path, reports: list[Path], code: int | None) -> str | None:
    """Say what is wrong with the files that the command left."""
    left = {path for path in folder.rglob("*") if path.is_file()} - {file}
    if left != (set(reports) if code != 2 else set()):
        return f"left {sorted(path.name for path in left)} with exit code {code}"
    if code == 2:
        return None
    try:
        document = json.loads(reports[0].read_text(encoding="utf-8"))
    except ValueError as error:
        return f"wrote JSON that is none: {error}"
    broken = [error for error in document["errors"] if error["stage"] == "rules"]
    broken += [rule for rule in document["rules"] if rule["status"] == "error"]
    return f"a rule or a fact failed: {broken[0]}" if broken else None


# -- many cases ----------------------------------------------------------------------------------------------------


def work(numbers: range, keep: Path | None) -> None:
    """Run cases in this process, and print each before (its number) and after it was run (its result)."""

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    channel = os.fdopen(os.dup(1), "w")
    for number in numbers:
        print(number, file=channel, flush=True)
        folder = keep or Path(tempfile.mkdtemp(prefix="mutation-"))
        try:
            print(json.dumps(asdict(run_case(number, folder))), file=channel, flush=True)
        finally:
            if keep is None:
                shutil.rmtree(folder)


def run(numbers: range, keep: Path | None = None) -> Iterator[Result]:
    """Run cases in a process of their own, which is started again after one that kills it."""
    following = numbers.start
    while following < numbers.stop:
        command = [sys.executable, __file__, "--work", str(following), str(numbers.stop)]
        command += ["--keep", str(keep)] if keep else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            started = None
            for line in process.stdout:
                if line.startswith("{"):
                    yield Result(**json.loads(line))
                    started = None
                else:
                    started = int(line)
                    following = started + 1
        if started is not None:
            yield Result(started, "?", "?", None, 0.0, f"its process ended with {process.returncode}")
        elif process.returncode:
            raise RuntimeError(f"the process that runs the cases ended with {process.returncode}")
        else:
            return


def summary(results: list[Result]) -> str:
    """Return the counts in one line."""
    codes = Counter(result.code for result in results)
    ended = ", ".join(f"{count} ended with {code}" for code, count in sorted(codes.items(), key=str))
    slowest = max((result.seconds for result in results), default=0.0)
    problems = sum(result.problem is not None for result in results)
    return f"{len(results)} mutated files: {ended}; slowest {slowest:.1f} s; {problems} problems"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--work", nargs=2, type=int)
    given = parser.parse_args()
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
    if given.work:
        work(range(*given.work), given.keep)
        return 0
    results = []
    for result in run(range(given.first, given.first + given.count), given.keep):
        results.append(result)
        if result.problem:
            print(f"{result.case} {result.seed}: {result.mutation}\n  {result.problem}", flush=True)
    print(summary(results))
    return any(result.problem for result in results)


if __name__ == "__main__":
    sys.exit(main())
