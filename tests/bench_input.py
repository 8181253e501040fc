"""Benchmark of the verdict on input: each slow stage in each loop, beside the script's own clock and XProf's word."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import big_profile

from graphlens.facts.time.around import INPUT as WAITING

ROOT: Final = Path(__file__).parents[1]
SCRIPTS: Final = ROOT / "fixtures" / "scripts"

OFF: Final = 0.15  # how far the wait may be from the script's own clock
LOOPS: Final = ("custom", "fit", "iterator", "dataset")
# Where the slow stage is -> how its name ends, and the rules of which one has to say what to do.
MODES: Final = {
    "batch": ("MapDataset", {"GL302"}),
    "prefetch": ("MapDataset", {"GL302"}),
    "interleave": ("/MapDataset", {"GL302"}),
    "cache": ("MapDataset", {"GL302"}),
    "zip": ("MapDataset", {"GL302"}),
    "generator": ("/GeneratorDataset", {"GL305"}),
    "python": ("MapDataset", {"GL305"}),
    "decode": ("MapDataset", {"GL306"}),
}  # fmt: skip

XPROF: Final = """
import sys
from xprof.convert import raw_to_tool_data
data = raw_to_tool_data.xspace_to_tool_data([sys.argv[1]], "input_pipeline_analyzer", {})[0]
print(data.decode() if isinstance(data, bytes) else data)
"""


class Judged(NamedTuple):
    """What was found of one script: its analysis, what it says itself run alone, and XProf's word on the profile."""

    document: dict[str, Any]
    told: dict[str, float]
    xprof: str


def table(_: Path) -> str:
    """Return the whole matrix as text."""
    return "\n".join(_rows())


def _rows() -> Iterator[str]:
    yield f"input pipelines (goal: the right stage, its rule, wait within {OFF:.0%} of the script's own; fixed: silent)"
    for loop in LOOPS:
        for mode in MODES:
            yield _row(mode, loop, _judged(mode, loop, "slow"))
            fixed = _judged(mode, loop, "fixed")
            said = ", ".join(finding["code"] for finding in _findings(fixed.document)) or "silent"
            yield f"  {mode} {loop} fixed: {said}"


def _row(mode: str, loop: str, judged: Judged) -> str:
    pipeline = judged.document["input"][0]
    limiting = pipeline["limiting"]
    stage = pipeline["stages"][limiting] if limiting is not None else {"name": "no stage", "stages": []}
    ours_ms = _waits_ms(judged.document)
    theirs_ms = judged.told["wait_ms"]
    ending, rules = MODES[mode]
    names = [re.sub(r":\d+$", "", name) for name in stage["stages"]]
    is_right = any(name.endswith(ending) for name in names)
    codes = {finding["code"] for finding in _findings(judged.document)}
    return (
        f"  {mode} {loop}: waits {ours_ms:.2f} ms, its own clock {theirs_ms:.2f} ms ({ours_ms / theirs_ms:.2f}x); "
        f"{stage['name']} {'(right)' if is_right else '(WRONG)'}; {', '.join(sorted(codes))} "
        f"{'(right)' if rules <= codes else '(WRONG)'}; XProf: {judged.xprof}"
    )


def _waits_ms(document: dict[str, Any]) -> float:
    rows = document["period"]["rows"]
    return sum(row["ns"] for row in rows if row["category"] == WAITING) / 1e6


def _findings(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [finding for finding in document["findings"] if finding["code"].startswith("GL3")]


def _judged(*arguments: str) -> Judged:
    with tempfile.TemporaryDirectory() as temporary:
        analysis, capture = Path(temporary, "a.json"), Path(temporary, "a.capture")
        told = _clock(*arguments)
        alike = [*arguments, str(told["accelerator_ms"])]
        command = ["-m", "graphlens", "run", "--no-prove", f"-o{analysis}", f"-o{capture}", "slow_input.py", *alike]
        _ran(command)
        document = json.loads(analysis.read_text("utf-8"))
        return Judged(document, told, _xprof(capture, Path(temporary)))


def _clock(*arguments: str) -> dict[str, float]:
    """Return what the script says of its times, run without us."""
    return {name: float(ms) for name, ms in re.findall(r"(\w+_ms)=([\d.]+)", _ran(["slow_input.py", *arguments]))}


def _ran(command: Sequence[str]) -> str:
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=SCRIPTS, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)}: {ran.stderr[-2000:]}")
    return ran.stderr


def _xprof(capture: Path, folder: Path) -> str:
    """Return what XProf's analyzer of input pipelines concludes."""
    with zipfile.ZipFile(capture) as packed:
        name = next(name for name in packed.namelist() if name.endswith(".xplane.pb"))
        profile = folder / "host.xplane.pb"
        profile.write_bytes(packed.read(name))
    ran = subprocess.run([sys.executable, "-c", XPROF, str(profile)], capture_output=True, text=True, check=False)
    return _conclusion(ran.stdout) if not ran.returncode else "failed"


def _conclusion(text: str) -> str:
    try:
        tables: Sequence[Any] = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError):
        return "no answer"
    said = [part.get("p", {}) for part in tables if isinstance(part, dict)]
    words = [
        value
        for part in said
        for key, value in part.items()
        if "conclusion" in key or key in ("input_percent", "summary_nextstep")
    ]
    return re.sub(r"<[^>]*>", "", "; ".join(map(str, words)))[:200] or "nothing"


# -- a million events -------------------------------------------------------------------------------------------------

DEPTH: Final = 60  # stages, every tenth of which works ahead on a thread of its own
_KINDS: Final = ("Map", "Filter", "Shuffle", "Take", "BatchV2")


def write_iterators(path: Path, count: int) -> int:
    """Write a profile of some ``count`` events of a pipeline of ``DEPTH`` stages; return how many there are."""
    plane = big_profile.Plane(1, "/host:CPU")
    paths = ["Iterator::Root"]
    for number in range(1, DEPTH):
        paths.append(f"{paths[-1]}::{_KINDS[number % 5] if number % 10 else 'Prefetch'}")
    stages = [_stage(plane, path, number) for number, path in enumerate(paths)]
    asked = plane.template("IteratorGetNextOp::DoCompute", 260_000, plane.counting("element_size", 100))
    starts = [0, *(number for number, path in enumerate(paths) if path.endswith("::Prefetch")), DEPTH]
    total = 0
    for line, (first, last) in enumerate(itertools.pairwise(starts)):
        own = [asked, *stages[first:last]] if line == 0 else stages[first:last]
        events = big_profile.laid_out(own, count // DEPTH, 1_000, 300_000)
        total += plane.line(line + 1, f"tf_data_{line}", events)
    path.write_bytes(big_profile.content(1, b"".join(plane.encoded())))
    return total


def _stage(plane: big_profile.Plane, path: str, number: int) -> tuple[bytes, bytes]:
    told = plane.counting("id", 1_000 + number) + plane.referring("name", f"Dataset:{number}")
    if number:
        told += plane.counting("parent_id", 999 + number)
    if path.endswith("::Prefetch"):
        told += plane.counting("buffer_limit", 4) + plane.counting("buffered_elements", 1)
    return plane.template(path, 1_000 * (250 - 2 * number), told)
