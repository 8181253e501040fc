"""What the tests of rewrites share: trace a small function, edit its copy, run both on the same inputs.

Importing this imports TensorFlow, so tests get it by the fixture ``lab``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens.ir.edits import Edit
from graphlens.ir.settings import ONEDNN
from graphlens.tf import private, rewrite
from graphlens.tf.rewrite.program import of_function

__all__ = ["of_function", "rewrite"]

RANDOM = np.random.default_rng(11)
SECOND_RUN = "GRAPHLENS_TEST_WITH_THE_OTHER_KERNELS"
KEPT: list[Any] = []  # functions refer to their variables weakly


def random(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Random numbers around zero."""
    return RANDOM.normal(0, 1, shape).astype(dtype)


def variable(*shape: int, dtype: str = "float32") -> tf.Variable:
    """A variable of random numbers; positive, so that it can be a variance."""
    made = tf.Variable(RANDOM.uniform(0.5, 1.5, shape).astype(dtype))
    KEPT.append(made)
    return made


@dataclass(frozen=True)
class Traced:
    """A function and example arguments; ``program`` is its copy."""

    concrete: Any
    examples: Sequence[Any]
    program: rewrite.Program

    def edited(self, *edits: Edit) -> Edited:
        """Apply edits to the copy and run both functions."""
        program = rewrite.apply(self.program, edits)
        built = rewrite.build(program)
        before, after = self.concrete(*self.examples), built.call(self.examples)
        tf.nest.assert_same_structure(before, after)
        pairs = zip(tf.nest.flatten(before), tf.nest.flatten(after), strict=True)
        return Edited(program, built, max((difference(one, other) for one, other in pairs), default=0.0))


@dataclass(frozen=True)
class Edited:
    """An edited copy, and how far its outputs are from the original's (relative to the largest)."""

    program: rewrite.Program
    built: Any
    difference: float

    @property
    def types(self) -> Counter[str]:
        """The op types of the edited graph."""
        return types(self.program)

    @property
    def names(self) -> set[str]:
        """The names of the edited graph's ops."""
        return {node.name for node in self.program.graph.node}


def types(program: rewrite.Program) -> Counter[str]:
    """Count the op types of a program."""
    return Counter(node.op for node in program.graph.node)


def named(program: rewrite.Program, op: str) -> list[str]:
    """Return the names of the ops of one type."""
    return [node.name for node in program.graph.node if node.op == op]


def difference(one: Any, other: Any) -> float:
    """Return the largest difference relative to the largest number; infinite where something else differs."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return float("inf")
    if not one.dtype.is_floating:
        return 0.0 if np.array_equal(one.numpy(), other.numpy()) else float("inf")
    first, second = (np.asarray(tensor.numpy(), np.float64) for tensor in (one, other))
    return float(np.abs(first - second).max() / max(np.abs(first).max(), 1e-30)) if first.size else 0.0


def trace(function: Callable[..., Any], *examples: Any) -> Traced:
    """Trace a Python function for arguments like ``examples``."""
    tensors = [tf.convert_to_tensor(example) for example in examples]
    concrete = tf.function(function, autograph=False).get_concrete_function(
        *[tf.TensorSpec([None, *tensor.shape[1:]] if tensor.shape.rank else [], tensor.dtype) for tensor in tensors]
    )
    return Traced(concrete, tensors, of_function(concrete))


def ran_as(built: Any, examples: Sequence[Any]) -> Counter[str]:
    """Return the op types that Grappler leaves to execute."""
    private.forget_warm_kernels()
    private.start_collecting_graphs()
    built.call(examples)
    graphs = private.stop_collecting_graphs()
    (ran,) = graphs
    return Counter(node.op for node in ran.post_optimization_graph.node)


def assert_holds_with_the_other_kernels(test_file: str) -> None:
    """Run a file of tests once more: with oneDNN if it is off here, and without it if it is on."""
    if SECOND_RUN in os.environ:
        return  # this is that run
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test_file],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env={
            **os.environ,
            ONEDNN: "0" if private.onednn_enabled() else "1",
            SECOND_RUN: "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-3000:]
