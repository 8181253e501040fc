"""The phases of a training step: by what ops are made of and what is made of them, whatever they are called."""

from __future__ import annotations

from collections.abc import Mapping

from graphlens.facts.core import Facts
from graphlens.facts.training.phases import written_phases
from graphlens.facts.training.shares import training
from graphlens.testing.sketch import sketch

# x @ w, squared and summed; its gradient; w -= rate * gradient.  A count of steps is kept, and how often x was large.
STEP = """
    x            = Placeholder() float32[8,4]
    read         = ReadVariableOp(w) float32[4,2] 1us
    product      = MatMul(x, read) float32[8,2] 30us
    square       = Square(product) float32[8,2] 2us
    axes         = Const() int32[2] = 0,1
    loss         = Sum(square, axes) float32[] 3us
    ones         = Const() float32[] = 1
    gradient_tape/Tile = Tile(ones, axes) float32[8,2] 1us
    gradient_tape/Mul = Mul(gradient_tape/Tile, product) float32[8,2] 4us
    gradient_tape/product/MatMul = MatMul(x, gradient_tape/Mul) float32[4,2] 50us
    rate_read    = ReadVariableOp(rate) float32[] 1us
    scaled       = Mul(gradient_tape/product/MatMul, rate_read) float32[4,2] 5us
    update       = AssignSubVariableOp(w, scaled) 6us
    large        = Greater(x, loss) bool[8,4] 2us
    counted      = Cast(large) float32[8,4] 2us
    number       = Sum(counted, axes) float32[] 2us
    count_up     = AssignAddVariableOp(large_ones, number) 1us
    out          = _Retval(loss)
"""


def phases(text: str) -> Mapping[str, str | None]:
    return Facts(sketch(text))(written_phases)


def test_a_step_without_any_scope_is_told_apart_by_reachability() -> None:
    found = phases(STEP)
    by_phase = {phase: {name for name in found if found[name] == phase} for phase in set(found.values())}
    assert by_phase["forward"] >= {"read", "product"}
    assert by_phase["loss"] >= {"square", "loss", "axes"}
    assert by_phase["backward"] == {
        "ones", "gradient_tape/Tile", "gradient_tape/Mul", "gradient_tape/product/MatMul",
    }  # fmt: skip
    assert by_phase["optimizer"] >= {"rate_read", "scaled", "update"}
    assert by_phase["metrics"] >= {"large", "counted", "number", "count_up"}


def test_what_a_generator_makes_of_noise_is_forward_as_what_is_made_of_data() -> None:
    """Of an adversarial pair one half of the step is fed nothing: its noise has the shape of a constant."""
    noise = "    shape = Const() int32[2] = 8,4\n    x = RandomStandardNormal(shape) float32[8,4] 5us\n"
    found = phases(STEP.replace("    x            = Placeholder() float32[8,4]\n", noise))
    assert found == {**phases(STEP), "shape": "forward", "x": "forward"}


def test_a_seed_that_a_layer_counts_up_is_the_layers_own() -> None:
    """What it decides goes into every gradient, and by these into the weights."""
    drawn = """
    seed         = ReadVariableOp(state) int32[2] 1us
    mask         = StatelessRandomUniformV2(seed) float32[8,4] 1us
    following    = AddV2(seed, axes) int32[2] 1us
    count_seed   = AssignVariableOp(state, following) 1us
    dropped      = Mul(x, mask) float32[8,4] 1us
    read         = """
    text = STEP.replace("    read         = ", drawn.removeprefix("\n"), 1).replace("MatMul(x,", "MatMul(dropped,")
    found = phases(text)
    assert {found[name] for name in ("seed", "mask", "following", "count_seed", "dropped")} == {"forward"}
    assert found["update"] == "optimizer"


def test_the_factor_of_a_loss_is_no_weight() -> None:
    """It is read before the gradients, and written as they decide: the loss is not of the model because of it."""
    scaled = """
    factor       = ReadVariableOp(loss_scale) float32[] 1us
    scaled_loss  = Mul(loss, factor) float32[] 1us
    ones         = """
    decided = """
    finite       = IsFinite(gradient_tape/product/MatMul) bool[4,2] 1us
    all_finite   = All(finite, axes) bool[] 1us
    grown        = If(all_finite, loss_scale, factor) 1us {then: grow, else: keep}
    rate_read    = """
    text = STEP.replace("    ones         = ", scaled.removeprefix("\n"), 1).replace("Tile(ones,", "Tile(scaled_seed,")
    text = text.replace(
        "    gradient_tape/Tile", "    scaled_seed = Mul(ones, factor) float32[] 1us\n    gradient_tape/Tile", 1
    )
    text = text.replace("    rate_read    = ", decided.removeprefix("\n"), 1)
    text += """
    function grow:
    handle = _Arg() resource[]
    value  = _Arg() float32[]
    twice  = AddV2(value, value) float32[] 1us
    assign = AssignVariableOp(handle, twice) 1us
    function keep:
    handle = _Arg() resource[]
    value  = _Arg() float32[]
    """
    found = phases(text)
    assert {found[name] for name in ("square", "loss", "scaled_loss")} == {"loss"}
    assert {found[name] for name in ("finite", "all_finite", "grown/then/assign", "grown")} == {"optimizer"}


def test_phases_sum_to_the_time_of_the_ops() -> None:
    found = Facts(sketch(STEP))(training)
    assert found is not None
    assert sum(row.ns for row in found.phases) == found.op_ns == 110_000
    assert {row.phase: row.ns for row in found.phases} == {
        "forward": 31_000, "loss": 5_000, "backward": 55_000, "optimizer": 12_000, "metrics": 7_000,
    }  # fmt: skip


def test_what_computes_no_gradient_has_no_phases() -> None:
    evidence = sketch("x = Placeholder() float32[8,4]\ny = Relu(x) float32[8,4] 5us\nout = _Retval(y)")
    assert Facts(evidence)(written_phases) == {}
    assert Facts(evidence)(training) is None


def test_a_layer_called_gradients_is_no_gradient() -> None:
    text = STEP.replace("product ", "gradients/product ").replace("(product)", "(gradients/product)")
    text = text.replace("Tile, product)", "Tile, gradients/product)")
    text = text.replace("gradient_tape/product/", "gradient_tape/gradients/product/")
    assert phases(text)["gradients/product"] == "forward"
