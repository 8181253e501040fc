"""The period against the scripts' own clock, and its rows against what the scripts are known to spend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from graphlens.facts.time import around

REPOSITORY = Path(__file__).parents[1]
TIMEOUT_S = 300

# Each prints the median period of its steps, without the first ones and the thirty that are recorded.
CLOCK = """
import os, statistics, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
begun = []
def report():
    periods = [after - before for before, after in zip(begun, begun[1:])]
    print(statistics.median(periods[60:]) * 1e9)
"""
FEEDS = """
import numpy as np, tensorflow.compat.v1 as tf
tf.disable_eager_execution()
fed = tf.placeholder(tf.float32, (None, 1000))
total = tf.reduce_sum(fed)
batch = np.ones((4000, 1000))  # of another type: it is converted in every call
with tf.Session() as session:
    for _ in range(150):
        begun.append(time.perf_counter())
        session.run(total, {fed: batch})
report()
"""
WAITS = """
import tensorflow as tf
def slow():
    for number in range(150):
        time.sleep(0.008)
        yield [float(number)]
step = tf.function(lambda x: tf.reduce_sum(x * x))
dataset = tf.data.Dataset.from_generator(slow, output_signature=tf.TensorSpec((1,)))
for x in dataset:
    begun.append(time.perf_counter())
    step(x)
    time.sleep(0.002)
report()
"""


class Reported(NamedTuple):
    """What a script printed of itself, and what GraphLens says of it."""

    period_ns: float
    period: dict[str, Any]

    def share(self, category: str) -> float:
        return sum(row["ns"] for row in self.period["rows"] if row["category"] == category) / self.period["ns"]


def reported(place: Path, text: str) -> Reported:
    (place / "script.py").write_text(CLOCK + text, "utf-8")
    command = [
        sys.executable,
        "-m",
        "graphlens",
        "run",
        "--no-prove",
        "-o",
        str(place / "r.json"),
        str(place / "script.py"),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    document = json.loads((place / "r.json").read_text("utf-8"))
    period = document["period"]
    assert sum(row["ns"] for row in period["rows"]) == period["ns"]
    assert document["timeline"]["ns"] > 0
    return Reported(float(done.stdout), period)


@pytest.mark.tf
def test_most_of_a_session_that_is_fed_much_is_feeds_and_the_period_is_that_of_the_script(tmp_path: Path) -> None:
    """No event of TensorFlow shows the conversion of what is fed: it lies between the call and ``SessionRun``."""
    found = reported(tmp_path, FEEDS)
    assert found.period["ns"] == pytest.approx(found.period_ns, rel=0.1)
    assert found.period["n"] > 100, "of the steps that were not recorded"
    assert found.share(around.FEEDING) > 0.4
    assert found.share(around.OPS) < 0.4


@pytest.mark.tf
def test_a_loop_that_waits_for_a_slow_generator_waits_for_input(tmp_path: Path) -> None:
    """The generator takes 8 ms, 2 of which pass while Python sleeps: asked ahead by one element, a step waits for 6."""
    found = reported(tmp_path, WAITS)
    assert found.period["ns"] == pytest.approx(found.period_ns, rel=0.1)
    assert found.period["executor_ns"] < 0.1 * found.period["ns"]
    assert found.share(around.INPUT) > 0.5
    assert found.share(around.INPUT) + found.share(around.PYTHON) > 0.85
