"""A script that ends before its calls are steady, or has the profiler itself: what is known of it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphlens.tf.watch.window import MOST_CUTS, Window

MS = 1_000_000

TWICE = """
import tensorflow as tf
weights = tf.Variable(tf.ones((64, 64)))
@tf.function
def step(features, times):
    for _ in range(times):
        features = features @ weights
    weights.assign_sub(0.1 * features)
    return tf.reduce_sum(features)
def gone():
    tf.function(lambda x: x + 1.0)(tf.ones(3))
gone()
for times in (1, 2):
    print(float(step(tf.ones((64, 64)), times)))
"""


def run(place: Path, script: str, *options: str) -> tuple[str, dict[str, Any]]:
    (place / "script.py").write_text(script, "utf-8")
    command = [sys.executable, "-m", "graphlens", "run", *options, "-o", "r.json", "script.py"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    return done.stdout, json.loads((place / "r.json").read_text("utf-8"))


@pytest.mark.tf
def test_of_a_script_of_few_calls_the_calls_the_traces_and_the_graphs_are_told(tmp_path: Path) -> None:
    out, document = run(tmp_path, TWICE)
    assert len(out.split()) == 2
    why = "the script ended before anything was called often enough to be recorded"
    assert why in document["quality"]["reasons"][0]
    assert any(error["message"].startswith(why) for error in document["errors"])
    first, second, gone = document["programs"]
    assert (first["id"], first["calls"], first["runs"], first["step"]) == ("step", 2, None, None)
    assert [trace["kind"] for trace in first["traces"]] == ["first", "retrace"]
    assert second["graphs"]["traced"]["nodes"] > first["graphs"]["traced"]["nodes"]
    assert (gone["calls"], gone["graphs"]) == (1, {}), "what the script let go of was not held for its graph"
    assert document["graphs"]["executed"]["nodes"] > 5
    assert document["period"] is None
    assert all(finding["proof"]["outcome"] == "not-run" for finding in document["findings"])


def window() -> Window:
    made = Window(5)
    for _ in range(4):
        made.closes_after("train", MS, traced=False)
    return made


def test_a_recording_that_was_cut_off_is_made_again_some_times() -> None:
    cut = window()
    for _ in range(MOST_CUTS):
        assert cut.opens_before("train")
        cut.closes_after("train", MS, traced=False)
        cut.close(is_cut=True)
        assert not cut.has_recorded_steady_calls
    assert cut.opens_before("train")
    cut.close(is_cut=True)
    assert cut.has_recorded_steady_calls
    assert not cut.opens_before("train")


def test_a_recording_that_is_whole_is_not_made_again() -> None:
    whole = window()
    assert whole.opens_before("train")
    whole.close()
    assert not whole.opens_before("train")


TAKES_IT = """
import tensorflow as tf
step = tf.function(lambda x: tf.reduce_sum(x @ x))
def steps(count):
    return [float(step(tf.ones([8, 8]) * i)) for i in range(count)]
steps(10)
tf.profiler.experimental.start("own")
print(steps(4)[-1])
tf.profiler.experimental.stop()
steps(60)
"""


@pytest.mark.tf
def test_what_the_profiler_of_the_script_cut_off_is_recorded_afterwards(tmp_path: Path) -> None:
    out, document = run(tmp_path, TAKES_IT)
    assert out == "4608.0\n"
    assert list((tmp_path / "own").rglob("*.xplane.pb"))
    assert document["programs"][0]["runs"] == 30


ENDS_WHILE_IT_IS_RECORDED = """
import tensorflow as tf
weights = tf.Variable(tf.ones((32, 32)))
def halve(row):
    return row / 2
def double(row):
    return row * 2
@tf.function
def epoch(data, *, last):
    total = 0.0
    for rows in data["rows"]:
        total += tf.reduce_sum(rows @ weights)
    for rows in iter(last):
        total += tf.reduce_sum(rows @ weights)
    return total
def main():
    rows = tf.data.Dataset.from_tensor_slices(tf.ones((64, 8, 32)))
    first = rows.map(halve)
    second = rows.map(double)
    for _ in range(6):
        loss = epoch({"rows": first}, last=second)
    print(float(loss))
main()
"""


@pytest.mark.tf
def test_the_datasets_of_a_function_that_ends_with_the_script_are_told_by_their_lines(tmp_path: Path) -> None:
    out, document = run(tmp_path, ENDS_WHILE_IT_IS_RECORDED, "--no-prove")
    assert out == "1310720.0\n"
    lines = ENDS_WHILE_IT_IS_RECORDED.splitlines()
    told = {
        stage["function"]: lines[int(stage["source"].rpartition(":")[2]) - 1].strip()
        for pipeline in document["input"]
        for stage in pipeline["stages"]
        if stage["function"] and stage["origin"] == "measured"
    }
    assert told == {"halve": "first = rows.map(halve)", "double": "second = rows.map(double)"}


BREAKS_THE_WATCH = """
from graphlens.tf.watch import datasets
def fails(self):
    raise RuntimeError("no luck")
datasets.IteratedDatasets.pipelines = fails
import tensorflow as tf
step = tf.function(lambda x: tf.reduce_sum(x @ x))
print([float(step(tf.ones([8, 8]))) for _ in range(40)][-1])
"""


@pytest.mark.tf
def test_what_fails_within_the_watch_does_not_reach_the_script(tmp_path: Path) -> None:
    out, document = run(tmp_path, BREAKS_THE_WATCH, "--no-prove")
    assert out == "512.0\n"
    assert document["programs"][0]["runs"] == 30
    assert any("RuntimeError: no luck" in error["message"] for error in document["errors"])
