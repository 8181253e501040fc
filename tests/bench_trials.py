"""Benchmark of trials of scripts: changes that are often advised, measured on the scripts in `fixtures`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphlens.children.gate_messages import Watched
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import Edit, JitCompile, ScriptSetting, SessionSetting
from graphlens.prove import Plan, prove
from graphlens.prove.script_runner import BLOCK_MS, ScriptRun, ScriptRunner

SCRIPTS = Path(__file__).parents[1] / "fixtures" / "scripts"
BUDGET_S = 120.0  # of each change, A against A included
FIT = Watched("multi_step_on_iterator")
EPOCH = Watched("whole_loop", called_again=True)

ADVICE: tuple[tuple[str, Watched, int, Edit], ...] = (
    ("keras_fit.py mlp", FIT, 400, ScriptSetting("steps_per_execution", "8")),
    ("keras_fit.py lstm", FIT, 400, ScriptSetting("unroll")),
    ("keras_fit.py lstm", FIT, 400, JitCompile()),
    ("custom_loop.py dataset", EPOCH, 3, ScriptSetting("iterate")),
    ("custom_loop.py function", Watched("step"), 240, JitCompile()),
    ("recommender.py", FIT, 400, ScriptSetting("sparse_optimizer")),
    ("keras_fit.py cnn", FIT, 400, JitCompile()),
    ("keras_fit.py cnn", FIT, 400, ScriptSetting("mixed_precision", "mixed_bfloat16")),
    ("keras_fit.py cnn", FIT, 400, SessionSetting({"TF_ENABLE_ONEDNN_OPTS": "0"})),
    ("session_loop.py", Watched(""), 240, SessionSetting(threads={"intra_op": 4})),
)


def trials_of_scripts(_: Path) -> str:
    """Return one line for each change: on which script, and what came of it."""
    return "trials of scripts, two processes in turns:\n" + "\n".join(_lines())


def _lines() -> Iterator[str]:
    for words, watched, calls, edit in ADVICE:
        script, *arguments = words.split()
        run = ScriptRun((str(SCRIPTS / script), *arguments), watched, 20.0, calls)
        fix = Fix("try it", "tolerance", (edit,))
        asked = Finding("GL000", "advice", "advice", ("all",), {}, "", Saving(None, 0.1, "bound"), fix, severity="high")
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(budget_s=BUDGET_S, block_ms=BLOCK_MS)
            proof = prove([asked], ScriptRunner(run, Path(folder)), plan).findings[0].proof
        yield f"  {words:24} {_words(edit):32} {proof.verdict:15} {proof.pairs or 0:3} pairs; {proof.why}"


def _words(edit: Edit) -> str:
    if isinstance(edit, ScriptSetting):
        return f"{edit.option} {edit.value}".strip()
    if isinstance(edit, SessionSetting):
        return ", ".join(f"{name}={value}" for name, value in {**edit.environment, **edit.threads}.items())
    return "jit_compile"
