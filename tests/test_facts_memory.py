"""Live tensors over the order of a step, counted by hand: every tensor here is so many KiB."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.work.memory import lives, peak_memory
from graphlens.ir.devices import LANE_BINS, Memory
from graphlens.testing.sketch import sketch

KIB = 1024


def memory_of(text: str) -> Memory:
    found = Facts(sketch(text))(peak_memory)
    assert found is not None
    return found


def test_a_chain_needs_two_neighbours_at_once() -> None:
    """x (4, held by the caller) is there always; a (8) and b (4) meet while b is made, then b and c (2)."""
    memory = memory_of(
        """
        x = Placeholder() float32[1024]
        a = MatMul(x) float32[2048] 5us
        b = MatMul(a) float32[1024] 5us
        c = MatMul(b) float32[512] 5us
        """
    )
    assert memory.curve == (4 * KIB, 12 * KIB, 16 * KIB, 10 * KIB)
    assert (memory.peak_bytes, memory.at_op) == (16 * KIB, "b")
    assert [(one.op, one.bytes) for one in memory.alive] == [("a", 8 * KIB), ("x", 4 * KIB), ("b", 4 * KIB)]
    assert memory.alive[0].tensor == "float32[2048]"
    assert (memory.origin, memory.unknown, memory.weights_bytes, memory.device) == ("modelled", 0, None, "CPU")


def test_a_tensor_lives_until_its_last_reader() -> None:
    """a (4) waits for the sum at the end, beside b and c (4 each); the caller's x (4) is the fourth."""
    memory = memory_of(
        """
        x = Placeholder() float32[1024]
        a = MatMul(x) float32[1024] 5us
        b = MatMul(a) float32[1024] 5us
        c = MatMul(b) float32[1024] 5us
        d = MatMul(c, a) float32[1024] 5us
        """
    )
    assert memory.curve == (4 * KIB, 8 * KIB, 12 * KIB, 16 * KIB, 16 * KIB)


def test_a_result_lives_to_the_end() -> None:
    memory = memory_of(
        """
        x = Placeholder() float32[256]
        a = MatMul(x) float32[1024] 5us
        b = MatMul(a) float32[1024] 5us
        c = MatMul(b) float32[1024] 5us
        r = _Retval(a)
        """
    )
    assert memory.curve == (KIB, 5 * KIB, 5 * KIB, 9 * KIB, 13 * KIB)  # x, a, its return, b, c


def test_views_share_the_memory_of_what_they_show() -> None:
    """The only buffers are x and a: their views keep a alive, and are no tensors of their own."""
    memory = memory_of(
        """
        x = Placeholder() float32[1024]
        s = Const() int32[2]
        a = MatMul(x) float32[1024] 5us
        v = Reshape(a, s) float32[32,32]
        i = Identity(v) float32[32,32]
        b = MatMul(x) float32[1024] 5us
        c = MatMul(i) float32[1024] 5us
        """
    )
    assert memory.curve[-2:] == (12 * KIB, 12 * KIB)  # x, a and b; x, a and c
    assert {one.op for one in memory.alive} == {"x", "a", "b"}


def test_an_elementwise_op_overwrites_an_input_that_nobody_reads_after_it() -> None:
    reused = "x = Placeholder() float32[256]\na = MatMul(x) float32[1024] 5us\nb = Relu(a) float32[1024] 5us\n"
    assert memory_of(reused + "c = MatMul(b) float32[256] 5us").curve == (KIB, 5 * KIB, 5 * KIB, 6 * KIB)
    reshaped = "x = Placeholder() float32[256]\na = MatMul(x) float32[1024] 5us\nv = Reshape(a) float32[4,256]\n"
    assert memory_of(reshaped + "b = _MklSoftmax(v) float32[4,256] 5us").peak_bytes == 5 * KIB
    read_again = reused + "c = MatMul(b, a) float32[256] 5us"
    assert memory_of(read_again).peak_bytes == 10 * KIB  # x 1, a 4, b 4, c 1


@pytest.mark.parametrize(
    "line",
    [
        "b = Relu(x) float32[1024] 5us",  # what the caller fed is not overwritten
        "b = Cast(a) int32[1024] 5us",  # another type
        "b = Softplus(w) float32[1024] 5us",  # a weight
    ],
)
def test_what_cannot_be_overwritten_is_not(line: str) -> None:
    text = f"""
        x = Placeholder() float32[1024]
        w = ReadVariableOp(v) float32[1024]
        a = MatMul(x) float32[1024] 5us
        {line}
        r = _Retval(b)
        """
    assert memory_of(text).peak_bytes == (12 if "Cast" in line else 8) * KIB


def test_weights_are_counted_apart_and_once() -> None:
    memory = memory_of(
        """
        x = Placeholder() float32[1024]
        k = Const() float32[512]
        w = ReadVariableOp(kernel) float32[2048]
        u = ReadVariableOp(kernel) float32[2048]
        a = MatMul(x, w) float32[1024] 5us
        b = MatMul(a, u, k) float32[1024] 5us
        """
    )
    assert memory.weights_bytes == 10 * KIB
    assert memory.peak_bytes == 12 * KIB


def test_an_unknown_size_is_left_out_and_counted() -> None:
    memory = memory_of(
        """
        x = Placeholder() float32[1024]
        a = Where(x) int64[?,1] 5us
        b = StringLower(a) string[4] 5us
        c = MatMul(b) float32[1024] 5us
        *4 d# = MatMul(c) float32[1] 5us
        """
    )
    assert (memory.peak_bytes, memory.unknown) == (8 * KIB + 4, 2)


def test_nothing_is_said_when_more_than_a_quarter_of_the_sizes_is_unknown() -> None:
    """A graph with an open batch: what is known are its scalars, which are no estimate of anything."""
    open_batch = "x = Placeholder() float32[?,8]\n*3 a# = MatMul(x) float32[?,8] 5us\n"
    assert Facts(sketch(open_batch + "*11 s# = Range(x) float32[4096] 5us"))(peak_memory) is None  # 4 of 15
    assert memory_of(open_batch + "*12 s# = Range(x) float32[4096] 5us").unknown == 4  # 4 of 16


def test_nothing_is_said_when_one_row_of_what_is_unknown_is_no_small_part_of_the_peak() -> None:
    """A step with an open batch and an optimizer: most ops have known sizes, and the large ones have not."""
    step = (
        "x = Placeholder() float32[?,{row}]\na = MatMul(x) float32[?,{row}] 5us\n*20 g# = MatMul(a) float32[64,64] 5us"
    )
    peak = memory_of(step.format(row=4)).peak_bytes
    assert Facts(sketch(step.format(row=peak // 800 + 1)))(peak_memory) is None  # 2 tensors of 4 bytes an element
    assert memory_of(step.format(row=peak // 800)).peak_bytes == peak


def test_ops_are_in_the_order_in_which_they_began() -> None:
    """In the order of the text b and c are alive together; in the profile c ran after b had been read."""
    evidence = sketch(
        """
        x = Placeholder() float32[256]
        a = MatMul(x) float32[256] 5us
        b = MatMul(x) float32[1024] 5us
        d = MatMul(b) float32[256] 5us
        c = MatMul(x) float32[1024] 5us
        e = MatMul(c, d) float32[256] 5us
        """
    )
    assert Facts(evidence)(lives).order == ("x", "a", "b", "d", "c", "e")
    assert Facts(evidence)(peak_memory).peak_bytes == 6 * KIB + KIB  # type: ignore[union-attr]
    static = Facts(replace(evidence, executed=None, profile=None, static_reason="asked for"))
    assert static(peak_memory) is None  # a peak depends on the order in which ops run, and none did


def test_programs_that_did_not_run_need_no_memory() -> None:
    """A graph as written holds an initializer (64 KiB) beside the step; the profile saw the step's last op alone."""
    evidence = sketch("x = Placeholder() float32[1024]\na = MatMul(x) float32[1024]\nb = MatMul(a) float32[1024] 5us")
    written = sketch(
        """
        x = Placeholder() float32[1024]
        a = MatMul(x) float32[1024]
        b = MatMul(a) float32[1024]
        s = Placeholder() float32[1]
        initial = RandomStandardNormal(s) float32[16384]
        """
    )
    joined = replace(evidence, executed=None, traced=written.executed, profile_path="timeline.json")
    facts = Facts(joined)
    assert facts(lives).order == ("x", "a", "b")
    assert facts(peak_memory).peak_bytes == 12 * KIB  # type: ignore[union-attr]


def test_an_op_that_was_not_seen_comes_right_after_what_it_reads() -> None:
    order = Facts(
        sketch(
            """
                x = Placeholder() float32[256]
                a = MatMul(x) float32[256] 5us
                b = MatMul(x) float32[256] 5us
                c = MatMul(b) float32[256] 5us
                q = Shape(a) int32[1]
                """
        )
    )(lives).order
    assert order.index("q") == order.index("a") + 1


def test_host_and_accelerator_have_memories_of_their_own() -> None:
    memory = memory_of(
        """
        x    = _Arg() float32[4096] @CPU:0
        a    = MatMul(x) float32[1024] 5us @CPU:0
        a/_1 = _Send(a) 1us @CPU:0
        a/_2 = _Recv(a/_1) float32[1024] 2us @GPU:0
        b    = MatMul(a/_2) float32[512] 5us @GPU:0
        """
    )
    assert (memory.device, memory.peak_bytes) == ("GPU:0", 6 * KIB)
    assert {one.op for one in memory.alive} == {"a/_2", "b"}


def test_between_processors_the_buffer_is_handed_over() -> None:
    memory = memory_of(
        """
        x    = _Arg() float32[256] @CPU:0
        a    = MatMul(x) float32[1024] 5us @CPU:0
        a/_1 = _Send(a) 1us @CPU:0
        a/_2 = _Recv(a/_1) float32[1024] 2us @CPU:1
        b    = MatMul(a/_2) float32[512] 5us @CPU:1
        """
    )
    assert memory.peak_bytes == (1 + 4 + 2) * KIB


def test_a_long_curve_is_coarse_and_keeps_its_peak() -> None:
    lines = ["x = Placeholder() float32[256]", "a0 = MatMul(x) float32[256] 1us"]
    lines += [f"a{n} = MatMul(a{n - 1}) float32[{2048 if n == 777 else 256}] 1us" for n in range(1, 1500)]
    memory = memory_of("\n".join(lines))
    assert len(memory.curve) == LANE_BINS
    assert max(memory.curve) == memory.peak_bytes == (1 + 1 + 8) * KIB
    assert memory.curve.index(memory.peak_bytes) == 778 * LANE_BINS // 1501


def test_a_loop_is_one_iteration() -> None:
    """Switch, Merge, Enter and Exit are views; of the loop's tensors one product is alive at the peak."""
    memory = memory_of(
        """
        x = Placeholder() float32[1024]
        e = Enter(x) float32[1024]
        m = Merge(e) float32[1024] int32[]
        p = Foo(m) bool[] 1us
        s = Switch(m, p) float32[1024] float32[1024]
        b = MatMul(s:1) float32[1024] 5us x3
        n = NextIteration(b) float32[1024]
        o = Exit(s) float32[1024]
        r = _Retval(o)
        """
    )
    assert memory.peak_bytes == 8 * KIB
    assert [one.op for one in memory.alive] == ["x", "b"]


def test_nothing_is_said_without_a_single_size() -> None:
    assert Facts(sketch("x = Placeholder() float32[*]\ny = MatMul(x) float32[*] 5us"))(peak_memory) is None


def test_the_buffers_of_a_chain_do_not_overlap_more_than_they_must() -> None:
    found = Facts(sketch("x = Placeholder() float32[4]\na = MatMul(x) float32[4] 1us\nb = MatMul(a) float32[4] 1us"))(
        lives
    )
    inner = [one for one in found.buffers if one.tensor.op != "x"]
    assert all(first.dies == second.born for first, second in pairwise(inner))
