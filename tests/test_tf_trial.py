"""Trials in a real child: wrong rewrites, deadly rewrites and prints of the user are planted, and none gets through."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphlens.children.messages import Difference, RecordRequest
from graphlens.ir.analysis import Finding, Fix, Proof, Saving
from graphlens.ir.edits import JitCompile, OtherEdit
from graphlens.prove import Plan, TrialRunner, prove
from graphlens.prove.runner import GoneError, NotOpenedError, RefusedError, TrialError
from graphlens.tf import comparison
from graphlens.tf.trial import child as trial

# An installed distribution with an entry point of the group `graphlens.rewrites`, as others would write one.
PLANTED = """
import os, signal, time
import dataclasses, typing
import tensorflow as tf
from graphlens.errors import RewriteError
from graphlens.ir.edits import EVERYWHERE, Where
from graphlens.tf.rewrite import Draft, named, nodes, rewrite

def nothing(draft, edit):
    print("a rewrite that talks to standard output")

def permute(draft, edit):
    "Swap the channels of the first kernel: same shapes, same speed, wrong numbers."
    conv = next(name for name in draft if draft.node(name).op == "Conv2D")
    kernel = draft.node(conv).input[1]
    axis = draft.constant("permuted/axis", __import__("numpy").asarray([3], "int32"))
    flip = nodes.make("ReverseV2", "permuted", [kernel, axis], T=tf.float32, Tidx=tf.int32)
    draft.set_input(conv, 1, nodes.tensor(draft.add(flip)))

def die(draft, edit):
    os.kill(os.getpid(), signal.SIGKILL)

def crash(draft, edit):
    os.abort()

def hang(draft, edit):
    time.sleep(600)

def refuse(draft, edit):
    raise RewriteError("'conv' feeds more than the norm")

def blunder(draft, edit):
    {}["key"]

def miscount(draft, edit):
    "Every step counts for two: no output tells, only the variable does."
    add = next(name for name in draft if draft.node(name).op == "AssignAddVariableOp")
    draft.set_input(add, 1, draft.constant("two", __import__("numpy").asarray(2, "int64")))

def rename(draft, edit):
    draft.node("there is no such op")

@dataclasses.dataclass(frozen=True)
class Check:
    kind: typing.ClassVar[str] = "test-check"
    where: Where = EVERYWHERE
    least: int = 1

@rewrite
def check(draft: Draft, edit: Check) -> None:
    if len(named(edit)) < edit.least:
        raise RewriteError(f"{len(named(edit))} of at least {edit.least} ops are named")

def compiler(act):
    "Have the step compiled, by a compiler that does something else when it is called."
    def rewrite(draft, edit):
        from graphlens.tf import private
        draft.compiled = True
        call = private.flat_call
        def planted(concrete):
            return (lambda tensors: act()) if private.is_jit_compiled(concrete) else call(concrete)
        private.flat_call = planted
    return rewrite

def planted(name, change):
    change.__annotations__["edit"] = dataclasses.make_dataclass(name, (), namespace={"kind": f"test-{name}"})
    return rewrite(change)

for change in (nothing, permute, die, crash, hang, refuse, blunder, miscount, rename):
    globals()[change.__name__] = planted(change.__name__, change)
compiler_hangs = planted("compiler-hangs", compiler(lambda: time.sleep(600)))
compiler_dies = planted("compiler-dies", compiler(os.abort))
"""
METADATA = "Metadata-Version: 2.1\nName: planted-rewrites\nVersion: 1.0\n"
ENTRY_POINTS = "[graphlens.rewrites]\nplanted = planted_rewrites\n"

# The user's own program: it prints while it is imported, traced and called.
PROGRAM = """
import tensorflow as tf
print("importing")

@tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32, name="x")])
def talkative(x):
    print("tracing")
    tf.print("running", output_stream="file:///dev/stdout")
    return {"y": x * 2.0, "label": tf.argmax(x, 1), "name": tf.fill([1], "ok")}

@tf.function(input_signature=[tf.TensorSpec((None, 8), tf.float32, name="x")])
def random(x):
    return x + tf.random.uniform((8,))

steps = tf.Variable(0, dtype=tf.int64, name="steps")
weights = tf.Variable(tf.ones((8, 1)), name="weights")

@tf.function(input_signature=[tf.TensorSpec((4, 8), tf.float32, name="x")])
def training(x):
    "One step of training, which counts itself: loss, weights and count are others each time."
    steps.assign_add(1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((x @ weights) ** 2)
    weights.assign_sub(0.1 * tape.gradient(loss, weights))
    return {"loss": loss}

kernel = tf.Variable(tf.random.normal((3, 3, 3, 8)), name="kernel")  # other values whenever it is imported
bias = tf.Variable(tf.zeros(8), name="bias")

@tf.function(input_signature=[tf.TensorSpec((8, 64, 64, 3), tf.float32, name="x")], autograph=False)
def normalized(x):
    "A normalization takes away what a bias adds: its gradient is nothing but rounding."
    with tf.GradientTape() as tape:
        y = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)
        y = tf.compat.v1.nn.fused_batch_norm(y, tf.ones(8), tf.zeros(8), is_training=True)[0]
        loss = tf.reduce_mean(tf.nn.relu(y) ** 3)
    bias.assign_sub(tape.gradient(loss, bias))
    return {"loss": loss}

@tf.function(input_signature=[tf.TensorSpec((4, 8), tf.float32, name="x")])
def listing(x):
    return {"list": tf.raw_ops.TensorListFromTensor(tensor=x, element_shape=[8])}

@tf.function(input_signature=[tf.TensorSpec((), tf.int32, name="n")])
def picky(n):
    "Runs on the input given, and fails on any other."
    tf.debugging.assert_equal(n, 41)
    return n + 1
"""
LIMIT_S = 120.0
ROOT = Path(__file__).parents[1]  # the children run what stands here, not what is installed


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the child's path with rewrites and programs."""
    folder = tmp_path_factory.mktemp("planted")
    info = folder / "planted_rewrites-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "planted_rewrites.py").write_text(PLANTED)
    (folder / "programs.py").write_text(PROGRAM)
    return folder


def runner_of(planted: Path, logs: Path, target: str, kind: str, **request: Any) -> TrialRunner:
    asked = RecordRequest(target, kind, import_path=str(planted), **request)
    return TrialRunner(asked, logs, {"PYTHONPATH": os.pathsep.join([str(planted), str(ROOT)])})


@pytest.fixture(scope="module")
def cnn(planted: Path, small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialRunner]:
    """A small convolutional network, open."""
    runner = runner_of(planted, tmp_path_factory.mktemp("logs"), str(small_models / "tiny_cnn"), "saved_model")
    runner.open(LIMIT_S)
    yield runner
    runner.close()


def edit(name: str) -> list[OtherEdit]:
    return [OtherEdit(f"test-{name}")]


# -- comparing, without TensorFlow ----------------------------------------------------------------------------------


@dataclass
class Tensor:
    """As much of a tensor as the comparison looks at."""

    array: np.ndarray
    named: str = ""

    @property
    def dtype(self) -> Any:
        return SimpleNamespace(name=self.named or self.array.dtype.name)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def numpy(self) -> np.ndarray:
        return self.array


def compared(before: Any, after: Any, dtype: str = "float32", computes_in: str | None = None) -> Difference:
    first, second = (Tensor(np.asarray(values, dtype)) for values in (before, after))
    (found,) = comparison.compare({"y": first}, {"y": second}, comparison.Allowed(computes_in))
    return found


@pytest.mark.parametrize(
    ("dtype", "difference", "agrees"),
    [("float32", 9e-5, True), ("float32", 2e-4, False), ("float64", 1e-10, False), ("float16", 0.05, True)],
)
def test_differences_are_relative_to_the_largest_value(dtype: str, difference: float, agrees: bool) -> None:
    found = compared([0.0, 1.0, -10.0], [difference, 1.0, -10.0], dtype)
    assert found.max_abs == pytest.approx(difference, rel=1e-3)
    assert found.max_rel == pytest.approx(difference / 10, rel=1e-3)
    assert found.agrees is agrees


def test_the_tolerance_is_that_of_the_type_the_fix_computes_in() -> None:
    assert compared([1.0], [1.0 + 1e-7], "float64", "float32").agrees
    assert not compared([1.0], [1.0 + 1e-7], "float64").agrees


@pytest.mark.parametrize(
    ("before", "after", "dtype", "mismatch"),
    [
        ([1, 2, 3], [1, 2, 4], "int64", "1 of 3 values are not equal"),
        ([b"a"], [b"b"], "object", "1 of 1 values are not equal"),
        ([1.0, np.nan], [np.nan, 1.0], "float32", "NaN or infinity stand"),
        ([1.0, 2.0], [1.0, np.inf], "float32", "NaN or infinity stand where there were numbers"),
        ([np.inf], [-np.inf], "float32", "NaN or infinity stand in other places"),
        ([0.0, 0.0], [0.0, 1e-9], "float32", "nothing but zeros"),
        ([1.0, 2.0], [[1.0, 2.0]], "float32", "its shape (2,) became (1, 2)"),
    ],
)
def test_what_no_number_can_say_is_said_in_words(before: Any, after: Any, dtype: str, mismatch: str) -> None:
    found = compared(before, after, dtype)
    assert mismatch in (found.mismatch or "")
    assert not found.agrees


@pytest.mark.parametrize("values", [[1.5, np.nan, np.inf], [0.0, 0.0], []])
def test_what_is_equal_agrees(values: list[float]) -> None:
    assert compared(values, values).agrees


def test_an_output_that_is_missing_or_of_another_type_disagrees() -> None:
    one, other = Tensor(np.ones(1, "float32")), Tensor(np.ones(1, "float64"))
    mismatches = {found.output: found.mismatch for found in comparison.compare({"y": one, "z": one}, {"y": other})}
    assert mismatches == {"y": "its type became float64", "z": "it is missing"}


def test_over_several_inputs_the_worst_difference_counts() -> None:
    (worst,) = comparison.worst([compared([1.0], [1.0 + difference]) for difference in (0.0, 0.5, 0.1)])
    assert worst.max_rel == pytest.approx(0.5)


def test_blocks_are_timed_in_the_order_a_b_b_a() -> None:
    called: list[str] = []

    def step(name: str) -> trial.Variant:
        return trial.Variant(None, lambda _: None, lambda: called.append(name))

    session = trial.Session(Path(), variants={"a": step("a"), "b": step("b")}, calls={"a": 1, "b": 2})
    pairs = [trial._pair(*(trial._block(session, name, 1.0) for name in "ab"), swapped) for swapped in (False, True)]
    assert called == ["a", "b", "b", "b", "b", "a"]
    assert all(pair.before_ns > 0 and pair.after_ns > 0 for pair in pairs)


# -- one command after another --------------------------------------------------------------------------------------


@pytest.mark.tf
def test_an_unedited_copy_gives_the_same_outputs_and_logits(cnn: TrialRunner) -> None:
    applied = cnn.apply("copy", [edit("nothing")], LIMIT_S)
    assert applied.first_call_ns > applied.second_call_ns > 0
    compared = cnn.compare("copy", None, LIMIT_S)
    assert compared.inputs == 3
    assert compared.unstable == ()
    assert all(one.agrees for one in compared.differences)
    assert {one.tolerance for one in compared.differences} == {1e-5}


@pytest.mark.tf
def test_pairs_are_timed_by_both_clocks(cnn: TrialRunner) -> None:
    cnn.apply("copy", [], LIMIT_S)
    pairs = cnn.time("original", "copy", 4, 20, LIMIT_S)
    assert len(pairs) == 4
    for pair in pairs:
        assert all(0 < ns < 1e9 for ns in (pair.before_ns, pair.after_ns, pair.before_cpu_ns, pair.after_cpu_ns))


@pytest.mark.tf
def test_a_permuted_weight_is_caught(cnn: TrialRunner) -> None:
    cnn.apply("wrong", [edit("permute")], LIMIT_S)
    wrong = [one for one in cnn.compare("wrong", None, LIMIT_S).differences if not one.agrees]
    assert wrong
    assert all(one.max_rel is not None and one.max_rel > 1e-3 for one in wrong)


@pytest.mark.tf
def test_a_refusal_names_its_fix_and_the_child_serves_on(cnn: TrialRunner) -> None:
    with pytest.raises(RefusedError, match="feeds more than the norm") as refused:
        cnn.apply("x", [edit("nothing"), edit("refuse")], LIMIT_S)
    assert refused.value.edit == 1
    with pytest.raises(TrialError, match="KeyError"):
        cnn.apply("x", [edit("blunder")], LIMIT_S)
    with pytest.raises(RefusedError, match="no rewrite 'unheard-of'"):
        cnn.apply("x", [[OtherEdit("unheard-of")]], LIMIT_S)
    with pytest.raises(RefusedError, match="is no 'test-check': 'opss' is no key of it; did you mean 'ops'"):
        cnn.apply("x", [[OtherEdit("test-check", {"opss": ["conv"]})]], LIMIT_S)
    with pytest.raises(RefusedError, match="1 of at least 2 ops are named"):
        cnn.apply("x", [[OtherEdit("test-check", {"ops": ["conv"], "least": 2})]], LIMIT_S)
    assert cnn.apply("x", [], LIMIT_S).second_call_ns > 0


@pytest.mark.tf
def test_what_the_users_program_prints_stays_out_of_the_channel(planted: Path, tmp_path: Path) -> None:
    runner = runner_of(planted, tmp_path, "programs:talkative", "callable")
    try:
        runner.open(LIMIT_S)
        runner.apply("copy", [edit("nothing")], LIMIT_S)
        compared = runner.compare("copy", None, LIMIT_S)
    finally:
        runner.close()
    assert {(one.output, one.tolerance) for one in compared.differences} == {("y", 1e-5), ("label", 0), ("name", 0)}
    assert all(one.agrees for one in compared.differences)
    assert "tracing" in (tmp_path / "trial-1" / "stderr.txt").read_text()


@pytest.mark.tf
def test_outputs_that_change_from_call_to_call_are_said_to(planted: Path, tmp_path: Path) -> None:
    runner = runner_of(planted, tmp_path, "programs:random", "callable")
    try:
        runner.open(LIMIT_S)
        runner.apply("copy", [], LIMIT_S)
        assert runner.compare("copy", None, LIMIT_S).unstable
    finally:
        runner.close()


def test_what_happens_to_agree_twice_is_called_again() -> None:
    draws = iter([0, 0, 0, 0, 1])
    again = lambda: {"rare": Tensor(np.asarray(next(draws)))}  # noqa: E731
    (found,) = trial._changes(again(), again, repeats=10)
    assert found.mismatch == "1 of 1 values are not equal"
    assert trial._changes({"y": Tensor(np.ones(2))}, lambda: {"y": Tensor(np.ones(2))}, repeats=10) == []


@pytest.mark.tf
def test_a_step_that_writes_variables_is_compared_from_the_same_values_and_by_what_it_writes(
    planted: Path, tmp_path: Path
) -> None:
    runner = runner_of(planted, tmp_path, "programs:training", "callable")
    try:
        runner.open(LIMIT_S)
        runner.apply("copy", [], LIMIT_S)
        runner.time("original", "copy", 2, 5.0, LIMIT_S)
        compared = runner.compare("copy", None, LIMIT_S)
        runner.apply("wrong", [edit("miscount")], LIMIT_S)
        wrong = runner.compare("wrong", None, LIMIT_S)
    finally:
        runner.close()
    assert compared.unstable == wrong.unstable == ()
    assert {one.output for one in compared.differences} == {
        "loss",
        "variable 'steps', as the step leaves it",
        "variable 'weights', as the step leaves it",
    }
    assert all(one.agrees for one in compared.differences)
    assert [one.output for one in wrong.differences if not one.agrees] == ["variable 'steps', as the step leaves it"]


@pytest.mark.tf
def test_the_unchanged_program_is_run_with_other_threads_from_the_same_values_but_for_a_bit(
    planted: Path, tmp_path: Path
) -> None:
    runner = runner_of(planted, tmp_path, "programs:normalized", "callable")
    try:
        runner.open(LIMIT_S)
        compared, source = runner.compare_unchanged(LIMIT_S)
        runner.apply("copy", [], LIMIT_S)
        copied = runner.compare("copy", None, LIMIT_S)
    finally:
        runner.close()
    floors = {one.output: one.max_rel for one in compared.differences}
    assert source.endswith("for an op and variables off by their last bit")
    assert all(one.agrees for one in copied.differences), "in one process nothing differs"
    bias = floors["variable 'bias', as the step leaves it"]
    assert bias is not None
    assert bias > 0.01, "other threads add up the noise in another order"
    loss = floors["loss"]
    assert loss is not None
    assert loss < 1e-3, "the weights were handed over: others, and nothing seeds them, give another loss altogether"


@pytest.mark.tf
@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16"])
def test_a_variable_of_any_type_is_off_by_its_last_bit(kind: str) -> None:
    """Half of its numbers are the next larger one, half the next smaller one; what has no fraction stays."""
    import tensorflow as tf

    from graphlens.tf import exchange

    ones = tf.ones([64], kind)
    off = {float(number) for number in tf.cast(exchange.nudged(ones), tf.float64).numpy() - 1}
    step = float(np.finfo(tf.as_dtype(kind).as_numpy_dtype).eps) if kind != "bfloat16" else 2.0**-7
    assert off == {step, -step}
    assert exchange.nudged(tf.range(3)).numpy().tolist() == [0, 1, 2]


@pytest.mark.tf
def test_outputs_without_values_are_named(planted: Path, tmp_path: Path) -> None:
    runner = runner_of(planted, tmp_path, "programs:listing", "callable")
    try:
        runner.open(LIMIT_S)
        runner.apply("copy", [], LIMIT_S)
        with pytest.raises(TrialError, match="output 'list' is a variant"):
            runner.compare("copy", None, LIMIT_S)
    finally:
        runner.close()


@pytest.mark.tf
def test_inputs_that_the_original_cannot_digest_are_not_compared_on(planted: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", n=np.int32(41))
    runner = runner_of(planted, tmp_path / "logs", "programs:picky", "callable", inputs=str(tmp_path / "inputs.npz"))
    try:
        runner.open(LIMIT_S)
        runner.apply("copy", [], LIMIT_S)
        compared = runner.compare("copy", None, LIMIT_S)
    finally:
        runner.close()
    assert compared.inputs == 1
    assert [one.agrees for one in compared.differences] == [True]


@pytest.mark.tf
def test_a_target_that_cannot_be_opened_says_why(planted: Path, tmp_path: Path) -> None:
    runner = runner_of(planted, tmp_path, "programs:missing", "callable")
    with pytest.raises(NotOpenedError, match="has no 'missing'"):
        runner.open(LIMIT_S)


@pytest.mark.tf
def test_a_child_that_hangs_is_ended(planted: Path, small_models: Path, tmp_path: Path) -> None:
    runner = runner_of(planted, tmp_path, str(small_models / "tiny_cnn"), "saved_model")
    runner.open(LIMIT_S)
    with pytest.raises(GoneError, match="took longer than 2 s"):
        runner.apply("x", [edit("hang")], 2.0)
    runner.close()


@pytest.mark.tf
def test_what_xla_compiled_is_counted(cnn: TrialRunner) -> None:
    applied = cnn.apply("compiled", [[JitCompile()]], LIMIT_S)
    assert applied.compiled is not None
    assert applied.compiled.ops == applied.compiled.of_ops > 10
    assert applied.compiled.fusions is not None
    assert 0 < applied.compiled.fusions < applied.compiled.ops
    assert applied.compile_ns is not None
    assert 0 < applied.compile_ns < applied.first_call_ns
    assert all(one.agrees for one in cnn.compare("compiled", None, LIMIT_S).differences)
    assert cnn.apply("copy", [], LIMIT_S).compiled is None


@pytest.mark.tf
def test_a_compiler_that_hangs_or_dies_is_ended_and_the_next_fix_is_tried(cnn: TrialRunner) -> None:
    with pytest.raises(GoneError, match="took longer than 3 s"):
        cnn.apply("x", [edit("compiler-hangs")], 3.0)
    cnn.open(LIMIT_S)
    with pytest.raises(GoneError, match="SIGABRT"):
        cnn.apply("x", [edit("compiler-dies")], LIMIT_S)
    assert cnn.apply("x", [], LIMIT_S).second_call_ns > 0


# -- the whole prover -----------------------------------------------------------------------------------------------


def finding(code: str, *names: str) -> Finding:
    edits = tuple(one for name in names for one in edit(name))
    return Finding(
        code, code, code, (), {}, "", Saving(None, 0.3, "modelled"), Fix("", "exact", edits), severity="high"
    )


@pytest.mark.tf
def test_wrong_and_deadly_fixes_fail_and_the_next_one_is_tried(
    planted: Path, small_models: Path, tmp_path: Path
) -> None:
    runner = runner_of(planted, tmp_path, str(small_models / "tiny_cnn"), "saved_model")
    codes = {"GL203": "die", "GL207": "crash", "GL208": "permute", "GL210": "nothing"}
    outcome = prove([finding(code, name) for code, name in codes.items()], runner, Plan(budget_s=900, max_pairs=20))
    proofs = {one.code: one.proof for one in outcome.findings}
    assert {code: proof.verdict for code, proof in proofs.items() if code != "GL210"} == {
        "GL203": "failed",
        "GL207": "failed",
        "GL208": "failed",
    }
    assert "killed" in proofs["GL203"].why
    assert "SIGABRT" in proofs["GL207"].why
    assert_names_output_and_difference(proofs["GL208"])
    assert proofs["GL210"].verdict in {"refuted", "inconclusive"}
    assert proofs["GL210"].pairs
    assert outcome.joint_proof is not None
    assert outcome.joint_proof.verdict == "not-run"


def assert_names_output_and_difference(proof: Proof) -> None:
    assert proof.output
    assert f"'{proof.output}' (float32)" in proof.why
    assert proof.max_rel_diff is not None
    assert f"{proof.max_rel_diff:.2g} of its largest value where 1e-05 is allowed" in proof.why


# -- layers ---------------------------------------------------------------------------------------------------------


def test_the_deciding_side_needs_the_standard_library_only() -> None:
    code = "import sys, graphlens.prove; print({'tensorflow', 'numpy', 'networkx', 'google'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
