"""Runs: which executions of which programs the events of a host belong to, whatever TensorFlow writes around them."""

from __future__ import annotations

from load_helpers import HostPlane

from graphlens.ir.run import NO_RUN, Profile, Run, Span
from graphlens.loaders.host_runs import Around

ORIGIN_NS = 1000  # what the times of a `HostPlane` count from
POOL = 7  # a thread of the executor


class Host(HostPlane):
    """Writes what TensorFlow writes down around the execution of a function."""

    def call(self, name, start_ns, end_ns, thread=1, how="notTraced-nonXla"):
        """Python calls a function, and the eager runtime executes it."""
        self.event(name.split("_")[2], start_ns, end_ns, thread=thread, tf_function_call=how)
        return self.event("EagerExecute", start_ns + 1, end_ns - 1, thread=thread, eager_op=name, is_func=1)

    def launch(self, start_ns, step_id, thread=1, end_ns=None):
        """`FunctionRun`, which returns at once."""
        return self.event("FunctionRun", start_ns, end_ns or start_ns + 1, thread=thread, id=step_id, _r=1)

    def executed(self, start_ns, end_ns, step_id, *ops, thread=POOL, iteration=0):
        """The executor runs ops one after the other, each for the same time."""
        self.event("ExecutorState::Process", start_ns, end_ns, thread=thread, id=step_id, iter_num=iteration)
        each = (end_ns - start_ns) // max(len(ops), 1)
        for number, op in enumerate(ops):
            self.event(op, start_ns + number * each, start_ns + (number + 1) * each, thread=thread)
        return self

    def element(self, time_ns, step_id, root=5, got=True, thread=90):
        """A request for an element; an iterator without one left says no size."""
        sized = {"element_size": 8} if got else {}
        self.event("IteratorGetNextOp::DoCompute", time_ns, time_ns + 4, thread=thread, id=step_id, **sized)
        return self.event("Iterator::Root", time_ns + 1, time_ns + 3, thread=thread, id=root)


def spans(profile: Profile) -> list[tuple[str, int, int]]:
    return [(run.program, run.start_ns - ORIGIN_NS, run.end_ns - ORIGIN_NS) for run in profile.runs]


def programs_of_ops(profile: Profile) -> list[str | None]:
    return [None if op.run == NO_RUN else profile.runs[op.run].program for op in profile.ops]


def windows(profile: Profile) -> list[tuple[int, int]]:
    (run,) = profile.runs
    return [(start - ORIGIN_NS, end - ORIGIN_NS) for start, end in run.iterations]


def test_a_run_lasts_as_long_as_the_call_around_it_and_not_as_its_launch():
    profile = Host().call("__inference_f_9", 0, 100).launch(5, -77).executed(20, 90, -77, "a:MatMul").read()
    assert spans(profile) == [("__inference_f_9", 0, 100)]
    assert programs_of_ops(profile) == ["__inference_f_9"]
    assert profile.executors[0].run == profile.functions[0].run == 0


def test_step_ids_are_used_again_and_may_be_negative():
    host = Host()
    for start_ns, name in ((0, "__inference_train_1"), (100, "__inference_test_2"), (200, "__inference_train_1")):
        host.call(name, start_ns, start_ns + 50).launch(start_ns + 5, -3).executed(
            start_ns + 10, start_ns + 40, -3, "a:Relu"
        )
    profile = host.read()
    assert programs_of_ops(profile) == ["__inference_train_1", "__inference_test_2", "__inference_train_1"]
    assert [op.run for op in profile.ops] == [0, 1, 2]


def test_what_the_graph_runner_folds_is_part_of_no_run():
    profile = Host().call("__inference_f_9", 0, 100).launch(5, 8).executed(20, 90, -1, "folded:Mul").read()
    assert [op.run for op in profile.ops] == [NO_RUN]
    assert len(profile.runs) == 1


def test_a_function_that_another_one_calls_runs_under_the_same_id_and_is_part_of_it():
    host = Host().call("__inference_f_9", 0, 100).launch(5, 8).executed(10, 30, 8, "a:Relu")
    profile = host.launch(31, 8, thread=POOL).executed(40, 60, 8, "inner/b:Relu").read()
    assert len(profile.runs) == 1
    assert programs_of_ops(profile) == ["__inference_f_9", "__inference_f_9"]


def test_python_may_prepare_a_call_by_another_one():
    """The first call of a training step creates variables, by a function of its own, within Python's call."""
    host = Host().event("step", 0, 200, tf_function_call="traced-nonXla")
    host.event("EagerExecute", 10, 30, eager_op="__inference_initialize_variables_4", is_func=1)
    profile = host.event("EagerExecute", 120, 190, eager_op="__inference_step_7", is_func=1).read()
    assert spans(profile) == [("__inference_initialize_variables_4", 10, 30), ("__inference_step_7", 0, 200)]
    assert [run.traced for run in profile.runs] == [False, True]


def test_what_a_server_of_the_same_process_executes_for_a_call_is_part_of_it():
    host = Host().call("__inference_f_9", 0, 100)  # the coordinator only asks for it
    host.event("EagerExecute", 20, 80, thread=5, eager_op="__inference_f_9", is_func=1).launch(25, -7, thread=5)
    profile = host.executed(30, 70, -7, "a:MatMul").read()
    assert spans(profile) == [("__inference_f_9", 0, 100)]
    assert programs_of_ops(profile) == ["__inference_f_9"]


def test_a_call_in_which_xla_compiles_is_told_apart():
    host = Host().call("__inference_f_9", 0, 100).event("CpuCompiler::CompileCpuExecutable", 5, 90)
    assert [run.traced for run in host.call("__inference_f_9", 100, 110).read().runs] == [True, False]


def test_what_xla_compiles_for_one_thread_tells_apart_no_call_of_another():
    host = Host().call("__inference_f_9", 0, 100).event("CpuCompiler::CompileCpuExecutable", 5, 90)
    assert [run.traced for run in host.call("__inference_g_2", 0, 100, thread=2).read().runs] == [True, False]


def test_a_compilation_on_a_thread_of_its_own_belongs_to_the_only_call_meanwhile():
    host = Host().call("__inference_f_9", 0, 100).call("__inference_f_9", 100, 200)
    runs = host.event("CpuCompiler::CompileCpuExecutable", 5, 90, thread=8).read().runs
    assert [run.traced for run in runs] == [True, False]


def test_an_op_of_the_eager_runtime_is_no_run():
    assert Host().event("EagerExecute", 0, 10, eager_op="MatMul", is_func=0).read().runs == ()


def test_a_session_runs_under_the_id_that_it_names():
    profile = Host().event("SessionRun", 0, 50, id=3, _r=1).executed(5, 40, 3, "y:MatMul").read()
    assert spans(profile) == [("Session.run", 0, 50)]
    assert [op.run for op in profile.ops] == [0]


def test_a_function_that_is_compiled_as_a_whole_is_part_of_its_run():
    host = Host().call("__inference_f_9", 0, 100).event("__inference_f_9:__inference_f_9", 10, 90)
    assert [span.run for span in host.read().functions] == [0]


def test_a_compiled_function_that_no_op_called_is_part_of_the_session_around_it():
    host = Host().event("SessionRun", 0, 100, id=-44).event("CpuExecutable::ExecuteAsyncOnStream", 10, 90)
    assert [span.run for span in host.read().executions] == [0]


def test_what_the_profile_cut_off_is_not_whole():
    host = Host().executed(0, 30, 4, "a:Relu")  # its call began before the profile
    host.call("__inference_f_9", 40, 100).launch(45, 5).executed(50, 90, 5, "a:Relu")
    profile = host.launch(110, 6).executed(115, 130, 6, "a:Relu").read()  # its call ended after the profile
    assert [(run.program, run.whole) for run in profile.runs] == [("__inference_f_9", True), ("", False), ("", False)]


def test_programs_that_python_never_called_last_until_their_last_executor_ends():
    host = Host().launch(0, 4).executed(5, 30, 4, "a:Relu").executed(20, 60, 4, "b:Relu", thread=8)
    profile = host.launch(70, 4).executed(75, 90, 4, "a:Relu").read()
    assert spans(profile) == [("", 0, 60), ("", 70, 90)]
    assert all(run.whole for run in profile.runs)


def test_calls_of_several_threads_overlap_and_keep_their_ops():
    host = Host().call("__inference_f_9", 0, 100).launch(5, 4).executed(10, 90, 4, "a:Relu", thread=7)
    profile = (
        host.call("__inference_f_9", 50, 150, thread=2)
        .launch(55, 5, thread=2)
        .executed(60, 140, 5, "a:Relu", thread=8)
        .read()
    )
    assert [op.run for op in profile.ops] == [0, 1]


# -- datasets ------------------------------------------------------------------------------------------------------


def test_a_function_of_a_dataset_is_called_after_its_stage():
    host = Host().event("Iterator::Root::Prefetch::Map", 0, 50, thread=3)
    profile = (
        host.event("InstantiatedCapturedFunction::Run", 5, 40, thread=3, id=-9).executed(6, 39, -9, "mul:Mul").read()
    )
    assert spans(profile) == [("Iterator::Root::Prefetch::Map", 5, 40)]


def test_a_stage_that_works_ahead_calls_next_to_where_it_asks_the_stage_below():
    host = Host().event("Iterator::Root::ParallelMapV2::Zip[0]::Range", 0, 5, thread=3)
    host.event("InstantiatedCapturedFunction::RunAsync", 6, 7, thread=3, id=-9).executed(8, 30, -9, "mul:Mul")
    assert spans(host.read()) == [("Iterator::Root::ParallelMapV2::Zip[0]", 6, 30)]


def test_elements_are_numbered_in_the_names_of_stages_and_inputs_too():
    host = Host().event("Iterator::Root::Zip[1]::FlatMap[17]::Map", 0, 50, thread=3)
    profile = host.event("InstantiatedCapturedFunction::Run", 5, 40, thread=3, id=-9).read()
    assert profile.runs[0].program == "Iterator::Root::Zip[1]::FlatMap::Map"


def test_a_run_counts_the_elements_that_it_was_handed():
    host = Host().call("__inference_f_9", 0, 100).launch(5, 4).element(10, 4)
    profile = host.call("__inference_f_9", 100, 110).launch(105, 5).element(106, 5, got=False).read()
    assert [run.elements for run in profile.runs] == [1, 0]


def test_one_element_of_each_of_two_datasets_is_one_step():
    host = Host().call("__inference_f_9", 0, 100).launch(5, 4)
    (run,) = host.element(10, 4, root=5).element(20, 4, root=6, thread=91).read().runs
    assert (run.elements, run.iterations) == (1, ())


def test_where_no_size_of_an_element_is_ever_said_each_request_counts():
    host = Host().call("__inference_f_9", 0, 100).launch(5, 4)
    assert host.element(10, 4, got=False).read().runs[0].elements == 1


# -- loops ---------------------------------------------------------------------------------------------------------


def looping(iterations: int, *, elements: int | None = None) -> Host:
    """A function whose loop takes 100 ns an iteration; what it reads ahead it asks for at once."""
    host = Host().call("__inference_f_9", 0, 10 + 100 * iterations).launch(2, 4)
    for number in range(elements if elements is not None else iterations):
        host.element(3 + 5 * number, 4)
    return host


def test_iterations_end_with_the_ops_that_run_once_in_each():
    host = looping(3)
    for number in range(3):
        host.executed(10 + 100 * number, 110 + 100 * number, 4, "while/a:MatMul", "while/b:Relu", iteration=number)
    assert windows(host.read()) == [(0, 110), (110, 210), (210, 310)]


def test_a_loop_within_an_iteration_divides_nothing():
    host = looping(2)
    for number in range(2):
        host.executed(10 + 100 * number, 60 + 100 * number, 4, "while/a:MatMul", iteration=number)
        for inner in range(5):
            start_ns = 60 + 100 * number + 10 * inner
            host.executed(start_ns, start_ns + 10, 4, "while/inner/c:MatMul", iteration=inner)
    assert windows(host.read()) == [(0, 60), (60, 160)]


def test_a_loop_within_an_iteration_is_no_reason_to_count_fewer():
    """Its ops run in iterations of their own numbers: those of the loop that are beyond them did no less."""
    host = looping(8)
    for number in range(8):
        host.executed(10 + 100 * number, 12 + 100 * number, 4, "while/a:Less", iteration=number)
        for inner in range(5):
            ops = ("while/inner/b:MatMul", "while/inner/c:Tanh", "while/inner/d:Tanh")
            start_ns = 12 + 100 * number + 18 * inner
            host.executed(start_ns, start_ns + 18, 4, *ops, iteration=inner)
        host.executed(102 + 100 * number, 110 + 100 * number, 4, "while/e:Sum", iteration=number)
    assert windows(host.read()) == [(0, 110), *((10 + 100 * n, 110 + 100 * n) for n in range(1, 8))]


def test_an_inner_loop_that_takes_the_elements_is_divided_by_its_own_ops():
    host = looping(6)
    for number in range(6):
        host.executed(10 + 100 * number, 110 + 100 * number, 4, "while/inner/a:MatMul", iteration=number % 3)
    assert windows(host.read()) == [(0, 110), *((10 + 100 * n, 110 + 100 * n) for n in range(1, 6))]


def test_the_copies_of_an_unrolled_loop_are_told_by_their_numbers():
    host = looping(3)
    for number, suffix in enumerate(("", "_2", "_4")):
        host.executed(10 + 100 * number, 110 + 100 * number, 4, f"cond{suffix}/a:MatMul")
    assert windows(host.read()) == [(0, 110), (110, 210), (210, 310)]


def test_iterations_that_run_at_the_same_time_take_their_mean():
    host = looping(4)
    for number in range(4):
        start_ns = 10 + 50 * number
        host.executed(start_ns, start_ns + 200, 4, "while/a:MatMul", thread=10 + number, iteration=number)
    lengths = {end - start for start, end in windows(host.read())}
    assert max(lengths) - min(lengths) <= 1


def test_an_iteration_that_ends_before_the_one_before_it_is_still_a_step():
    host = looping(8)
    for number in range(8):
        start_ns, end_ns = 10 + 100 * number, 110 + 100 * number
        start_ns, end_ns = (250, 300) if number == 3 else (start_ns, end_ns)
        host.executed(start_ns, end_ns, 4, "while/a:MatMul", thread=10 + number, iteration=number)
    assert len(windows(host.read())) == 8


def test_a_loop_that_is_left_early_was_handed_more_than_it_used():
    host = looping(3, elements=4)
    for number in range(3):
        ops = ("while/a:MatMul", "while/b:Relu", "while/c:Relu")
        host.executed(10 + 100 * number, 109 + 100 * number, 4, *ops, iteration=number)
    host.executed(309, 310, 4, "while/d:Less", iteration=3)
    assert len(windows(host.read())) == 3


def test_a_loop_that_tf_data_runs_is_divided_where_its_body_begins():
    host = Host().call("__inference_f_9", 0, 400).launch(2, 4)
    host.event("ReduceDatasetOp::DoCompute", 5, 390, thread=3, id=4)
    for number in range(3):
        start_ns = 50 + 100 * number
        host.event("ReduceIterator::Root::Prefetch::Scan", start_ns, start_ns + 90, thread=4)
        host.event("ReduceIterator::Root::Prefetch::Scan::Map", start_ns, start_ns + 9, thread=4)
        host.event("InstantiatedCapturedFunction::Run", start_ns + 1, start_ns + 8, thread=4, id=-50 - number)
        host.event("InstantiatedCapturedFunction::Run", start_ns + 20, start_ns + 80, thread=4, id=-60 - number)
        host.executed(start_ns + 25, start_ns + 75, -60 - number, "a:MatMul", thread=5)
    profile = host.read()
    body, *mapped = profile.runs
    assert [(start - ORIGIN_NS, end - ORIGIN_NS) for start, end in body.iterations] == [
        (70, 170),
        (170, 270),
        (270, 330),
    ]
    assert programs_of_ops(profile) == ["__inference_f_9"] * 3  # the body of the loop is the function's
    assert {run.program for run in mapped} == {"ReduceIterator::Root::Prefetch::Scan::Map"}
    # Where it runs no body, the loop asks for the next element.
    assert [(one.kind, one.name, one.start_ns - ORIGIN_NS, one.end_ns - ORIGIN_NS) for one in profile.activities] == [
        ("input", "ReduceDataset", 5, 70),
        ("input", "ReduceDataset", 130, 170),
        ("input", "ReduceDataset", 230, 270),
    ]
    assert [one.run for one in profile.activities] == [0, 0, 0]


def test_a_reduction_within_the_pipeline_is_no_loop_of_the_function_around():
    """The map of the pipeline reduces another dataset for each element, on a thread of its own."""
    host = Host().call("__inference_f_9", 0, 400).launch(2, 4)
    host.event("ReduceDatasetOp::DoCompute", 5, 390, thread=3, id=4)
    for number in range(3):
        start_ns = 50 + 100 * number
        host.event("ReduceDatasetOp::DoCompute", start_ns, start_ns + 40, thread=8, id=-70 - number)
        for inner in range(4):
            inner_ns = start_ns + 2 + 8 * inner
            host.event("ReduceIterator::Root", inner_ns, inner_ns + 6, thread=8)
            host.event("InstantiatedCapturedFunction::Run", inner_ns + 1, inner_ns + 4, thread=8, id=-900 - inner)
        host.event("ReduceIterator::Root::Prefetch::Scan", start_ns, start_ns + 90, thread=4)
        host.event("InstantiatedCapturedFunction::Run", start_ns + 20, start_ns + 80, thread=4, id=-60 - number)
    loop, *reduced = host.read().runs
    between_ns = [(start - ORIGIN_NS, end - ORIGIN_NS) for start, end in loop.iterations]
    assert between_ns == [(70, 170), (170, 270), (270, 330)]
    assert {run.program for run in reduced} == {"ReduceIterator::Root"}


def test_a_function_that_an_iterator_calls_while_it_is_made_is_one_of_the_dataset():
    host = Host().event("InstantiatedCapturedFunction::Run", 5, 40, thread=3, id=-9).executed(6, 39, -9, "py:PyFunc")
    assert spans(host.read()) == [("Iterator", 5, 40)]


def test_a_moment_is_in_a_run_where_no_other_one_is_under_way():
    around = Around([Run("f", 0, 100, 1), Run("g", 10, 20, 2), Run("g", 20, 30, 2), Run("h", 110, 120, 1)])
    moments_ns = (-1, 0, 10, 20, 29, 30, 99, 100, 110, 120)
    assert [around.only(time_ns) for time_ns in moments_ns] == [-1, 0, -1, -1, -1, 0, 0, -1, 3, -1]


# -- damaged and large ones ----------------------------------------------------------------------------------------


def test_an_event_that_ends_before_it_begins_takes_no_time():
    host = Host().call("__inference_f_9", 0, 100).launch(5, -77).executed(20, 60, -77, "a:MatMul")
    profile = host.event("b:Relu", 70, 30, thread=POOL).read()
    (op,) = [op for op in profile.ops if op.node == "b"]
    assert (op.end_ns - op.start_ns, op.self_ns) == (0, 0)


def test_reading_takes_time_in_proportion_to_the_events(monkeypatch):
    """Counted in looks at a span, which no busy machine changes: four times the calls are not 16 times the work."""

    def looked_at(calls):
        host = Host()
        for number in range(calls):
            start_ns = 100 * number
            host.call("__inference_f_9", start_ns, start_ns + 90).launch(start_ns + 5, number + 1)
            host.element(start_ns + 10, number + 1)
            host.event("ReduceIterator::Root::Map", start_ns, start_ns + 90, thread=3)
            host.event("InstantiatedCapturedFunction::Run", start_ns + 20, start_ns + 30, thread=3, id=-number - 2)
            # What is launched again under the id of a run that is over.
            host.launch(start_ns + 95, number + 1, thread=4)
        count = 0
        plain = Span.start_ns

        def counted(span):
            nonlocal count
            count += 1
            return plain.__get__(span)

        with monkeypatch.context() as patched:
            patched.setattr(Span, "start_ns", property(counted))
            host.read()
        return count

    assert looked_at(400) < 6 * looked_at(100)
