"""Changes of the input of a script, tried on the script and on its pipeline alone, beside what it is known to wait."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "fixtures" / "scripts" / "waits_for_records.py"
TIMEOUT_S = 900
READ_NS = 4 * 5_000_000  # what a batch waits where its records are read one after another


@pytest.mark.tf
@pytest.mark.heavy
def test_a_parallel_map_is_measured_in_elements_of_the_pipeline_and_in_steps(tmp_path: Path) -> None:
    place = tmp_path / "r.json"
    command = [sys.executable, "-m", "graphlens", "run", "-o", str(place), str(SCRIPT), "loop"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S, cwd=REPOSITORY)
    rewrites: list[dict[str, Any]] = json.loads(place.read_text("utf-8"))["input_rewrites"]
    (parallel,) = [one for one in rewrites if [edit["edit"] for edit in one["edits"]] == ["parallel-map"]]
    alone, steps = parallel["alone"], parallel["proof"]
    assert alone["verdict"] == "proven"
    assert alone["before_ns"] > READ_NS > alone["after_ns"]
    assert steps["before_ns"] > READ_NS, "a step waits for its batch"
    assert alone["ci95"][0] > alone["aa_ci95"][1]
    (bound,) = [one for one in rewrites if any(edit["edit"] == "script-setting" for edit in one["edits"])]
    assert bound["alone"] is None
    assert "the pipeline alone:" in done.stdout + done.stderr
