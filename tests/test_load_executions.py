"""Thunks of compiled functions: each belongs to one execution and to the op that called it, on whatever thread it ran.

The profiles are written event by event, in the order in which XLA:CPU was seen to leave them (TensorFlow 2.21).
"""

from __future__ import annotations

from collections import Counter

from test_load_xplane import HostPlane

from graphlens.ir.run import NO_RUN, OpEvent, Profile, Span
from graphlens.loaders.host_executions import EXECUTION, assemble
from graphlens.loaders.host_executions import Compiled as Seen

MODULE = "a_inference_f_68__.1"
POOL = 7  # a thread of the pool, which runs on while the caller waits


class Compiled(HostPlane):
    """Writes the events of compiled functions; links are numbered as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.links = 0

    def call(self, name: str, start_ns: int, end_ns: int, thread: int = 1) -> None:
        """An op that runs a compiled function asynchronously: its start lasts as long as the execution."""
        self.links += 1
        start = {"name": name, "kernel_type": "StatefulPartitionedCall", "_p": self.links}
        self.event("ExecutorState::ProcessAsync::Start", start_ns, end_ns, thread, **start)
        self.event("ExecutorState::ProcessAsync::Done", end_ns, end_ns + 1, thread, _c=self.links)

    def execution(self, start_ns: int, end_ns: int, thread: int = 1) -> None:
        self.event("CpuExecutable::ExecuteAsyncOnStream", start_ns, end_ns, thread)

    def thunk(
        self, name: str, start_ns: int, end_ns: int, done_ns: int | None = None, thread: int = 1, module: str = MODULE
    ) -> None:
        """A thunk, with the mark of its end where that is not the end of its event."""
        self.links += 1
        self.event(name, start_ns, end_ns, thread, hlo_op=name, hlo_module=module, _p=self.links)
        if done_ns is not None:
            self.event(f"end: {name}", done_ns, done_ns, POOL, _c=self.links)


def stretches(profile: Profile) -> list[tuple[str, str, int, int]]:
    """Return call, instruction, start and end of every stretch, in microseconds from the start of the line."""
    return [(k.call, k.hlo_op, (k.start_ns - 1000) // 1000, (k.end_ns - 1000) // 1000) for k in profile.kernels]


def us(count: int) -> int:
    return count * 1000


def test_a_thunk_that_works_on_other_threads_lasts_until_it_is_done():
    """The convolution returns after 150 us, and its caller waits for it until the execution ends."""
    plane = Compiled()
    plane.call("net/conv/call", us(0), us(1000))
    plane.execution(us(20), us(980))
    plane.thunk("convolution.1", us(50), us(200), done_ns=us(990))
    assert stretches(plane.read()) == [("net/conv/call", "convolution.1", 50, 980)]


def test_what_runs_on_a_thread_of_the_pool_belongs_to_the_execution_of_its_module():
    plane = Compiled()
    plane.call("first", us(0), us(500))
    plane.execution(us(0), us(500))
    plane.thunk("dot.1", us(0), us(100))
    plane.thunk("fusion.2", us(100), us(110), done_ns=us(460))
    plane.thunk("dot.3", us(150), us(450), thread=POOL)
    plane.thunk("dot.1", us(300), us(400), thread=9, module="another")
    assert sorted(stretches(plane.read())) == [
        ("", "dot.1", 300, 400),
        ("first", "dot.1", 0, 100),
        ("first", "dot.3", 150, 450),
        ("first", "fusion.2", 100, 150),  # its mark comes late: what follows it had begun long before
    ]


def test_late_marks_at_the_end_of_a_sequence_are_no_work():
    """Marks of thunks that were done long ago come when the callbacks return."""
    plane = Compiled()
    plane.call("first", us(0), us(500))
    plane.execution(us(0), us(500))
    plane.thunk("fusion.1", us(0), us(10), done_ns=us(214))
    plane.thunk("dot.2", us(20), us(200), thread=POOL)
    assert stretches(plane.read()) == [("first", "fusion.1", 0, 20), ("first", "dot.2", 20, 200)]


def test_a_thunk_was_done_when_what_waited_for_it_began_though_its_end_is_marked_after_all_of_that():
    """As a second convolution leaves it, which the callback of the first one called on a thread of the pool."""
    plane = Compiled()
    plane.call("first", us(0), us(900))
    plane.execution(us(0), us(900))
    plane.thunk("convolution.1", us(10), us(50), done_ns=us(254))
    plane.thunk("tanh.2", us(200), us(250), thread=POOL)
    plane.thunk("convolution.3", us(250), us(253), done_ns=us(814), thread=POOL)
    plane.thunk("tanh.4", us(600), us(700), thread=POOL)
    plane.thunk("dot.5", us(700), us(750), thread=POOL)
    assert stretches(plane.read()) == [
        ("first", "convolution.1", 10, 200),
        ("first", "tanh.2", 200, 250),
        ("first", "convolution.3", 250, 600),
        ("first", "tanh.4", 600, 700),
        ("first", "dot.5", 700, 750),
    ]


def test_what_runs_at_once_after_a_thunk_returned_did_not_wait_for_it():
    """The thread of the pool calls another thunk, and then helps with the work of the first."""
    plane = Compiled()
    plane.call("first", us(0), us(900))
    plane.execution(us(0), us(900))
    plane.thunk("dot.0", us(0), us(10))
    plane.thunk("convolution.1", us(10), us(50), done_ns=us(800), thread=POOL)
    plane.thunk("tanh.2", us(51), us(250), thread=POOL)
    assert stretches(plane.read()) == [
        ("first", "dot.0", 0, 10),
        ("first", "convolution.1", 10, 51),
        ("first", "tanh.2", 51, 250),
        ("first", "convolution.1", 250, 800),
    ]


def test_of_two_thunks_at_work_the_one_called_last_is_at_work_until_it_is_done_and_then_the_other():
    plane = Compiled()
    plane.call("first", us(0), us(900))
    plane.execution(us(0), us(900))
    plane.thunk("long.1", us(0), us(10), done_ns=us(800))
    plane.thunk("short.2", us(10), us(20), done_ns=us(300))
    profile = plane.read()
    assert stretches(profile) == [
        ("first", "long.1", 0, 10),
        ("first", "short.2", 10, 300),
        ("first", "long.1", 300, 800),
    ]
    assert [kernel.resumed for kernel in profile.kernels] == [False, False, True]


def test_a_thunk_that_calls_others_is_without_them():
    plane = Compiled()
    plane.execution(us(0), us(100))
    plane.thunk("while.1", us(0), us(100))
    plane.thunk("add.2", us(10), us(40))
    plane.thunk("add.2", us(50), us(90))
    profile = plane.read()
    own = [(start, end) for _, name, start, end in stretches(profile) if name == "while.1"]
    assert own == [(0, 10), (40, 50), (90, 100)]
    begun = [kernel.hlo_op for kernel in profile.kernels if not kernel.resumed]
    assert begun == ["while.1", "add.2", "add.2"]


def test_each_call_of_one_function_has_its_own_thunks():
    """Both run at the same time, and both go on in the pool: each has run what the other one has not."""
    plane = Compiled()
    for name, thread, offset in (("a/call", 1, 0), ("b/call", 2, 50)):
        plane.call(name, us(offset), us(900), thread)
        plane.execution(us(offset), us(900), thread)
        plane.thunk("dot.1", us(offset), us(200 + offset), thread=thread)
    plane.thunk("dot.2", us(200), us(600), thread=POOL)
    plane.thunk("dot.2", us(250), us(650), thread=8)
    assert sorted(stretches(plane.read())) == [
        ("a/call", "dot.1", 0, 200),
        ("a/call", "dot.2", 200, 600),
        ("b/call", "dot.1", 50, 250),
        ("b/call", "dot.2", 250, 650),
    ]


def test_an_op_that_runs_a_compiled_function_has_only_what_is_not_the_functions():
    plane = Compiled()
    plane.event("cluster/run:_XlaRun", us(0), us(100))
    plane.execution(us(10), us(95))
    plane.thunk("dot.1", us(20), us(90))
    profile = plane.read()
    assert [(op.node, op.self_ns) for op in profile.ops] == [("cluster/run", us(15))]
    assert stretches(profile) == [("cluster/run", "dot.1", 20, 90)]
    assert [(span.name, span.end_ns - span.start_ns) for span in profile.executions] == [("cluster/run", us(85))]


def test_a_function_that_is_compiled_as_a_whole_is_called_by_no_op():
    plane = Compiled()
    plane.event("__inference_f_68:__inference_f_68", us(0), us(100))
    plane.execution(us(10), us(95))
    plane.thunk("dot.1", us(20), us(90))
    assert stretches(plane.read()) == [("", "dot.1", 20, 90)]


def test_thunks_without_an_execution_are_kept_as_they_are():
    plane = Compiled()
    plane.thunk("dot.1", us(20), us(90), done_ns=us(500))
    assert stretches(plane.read()) == [("", "dot.1", 20, 90)]


def test_modules_of_one_name_that_were_made_for_several_shapes_are_told_apart():
    plane = Compiled()
    for number, program in enumerate((0, 1, 0)):
        start_ns = us(1000 * number)
        plane.execution(start_ns, start_ns + us(900))
        plane.event("dot.1", start_ns + us(10), start_ns + us(800), hlo_op="dot.1", hlo_module="m", program_id=program)
    assert [kernel.hlo_module for kernel in plane.read().kernels] == ["m(0)", "m(1)", "m(0)"]


def test_a_module_that_is_the_only_one_of_its_name_has_no_number():
    plane = Compiled()
    plane.event("dot.1", us(10), us(800), hlo_op="dot.1", hlo_module="m", program_id=7)
    assert [kernel.hlo_module for kernel in plane.read().kernels] == ["m"]


def test_executions_that_no_op_called_do_not_look_at_all_ops_before_them():
    """The first op of the thread is long over: whoever looks at all of them again for each execution never ends."""
    seen = Counter[str]()

    class Op(OpEvent):
        @property
        def end_ns(self):
            seen[self.node] += 1
            return self[3]

    ops = [Op(f"op{number}", "Relu", 10 * number, 10 * number + 5, 5, 1) for number in range(300)]
    executions = [Span(EXECUTION, 10 * number + 6, 10 * number + 9, 1) for number in range(300)]
    placed, _ = assemble(Seen(executions=executions), ops, lambda _: NO_RUN)
    assert {span.name for span in placed} == {""}
    assert max(seen.values()) < 10
