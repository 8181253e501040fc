"""When a script is recorded: told by the calls that it makes."""

from __future__ import annotations

from graphlens.tf.watch.window import LONG_CALL_NS, LONGEST_WINDOW_NS, PATIENCE_CALLS, Window

MS = 1_000_000


def called(window: Window, *calls: tuple[str, int]) -> list[int]:
    """Make calls of programs that last some milliseconds; returns the numbers of those that are recorded."""
    recorded = []
    for number, (program, ms) in enumerate(calls):
        window.opens_before(program)
        if window.is_open:
            recorded.append(number)
        if window.closes_after(program, ms * MS, traced=number == 0):
            window.close()
    return recorded


def test_a_program_is_recorded_once_three_calls_in_a_row_traced_nothing() -> None:
    assert called(Window(5), *[("train", 2)] * 20) == [4, 5, 6, 7, 8]


def test_a_call_that_traces_again_starts_the_count_anew() -> None:
    window = Window(2)
    for traced in (True, False, False, True, False, False, False):
        assert not window.opens_before("train")
        assert not window.closes_after("train", MS, traced=traced)
    assert window.opens_before("train")


def test_long_calls_are_not_waited_for() -> None:
    window = Window(30)
    window.closes_after("epoch", LONG_CALL_NS, traced=True)
    assert not window.opens_before("epoch")
    window.closes_after("epoch", LONG_CALL_NS, traced=False)
    assert window.opens_before("epoch")


def test_what_else_is_called_meanwhile_is_recorded_and_does_not_count() -> None:
    calls = [("train", 2)] * 4 + [("train", 2), ("metric", 1)] * 10
    assert called(Window(3), *calls) == [4, 5, 6, 7, 8]


def test_the_preparation_of_the_data_gives_way_to_what_takes_more_time() -> None:
    calls = [("prepare", 2)] * 10 + [("train", 20)] * 10
    assert called(Window(2), *calls) == [4, 5, 13, 14]


def test_a_program_that_takes_less_time_than_the_recorded_one_is_not_recorded() -> None:
    assert called(Window(2), *[("train", 20)] * 10, *[("evaluate", 2)] * 20) == [4, 5]


def test_an_evaluation_between_epochs_is_never_recorded_in_place_of_the_training() -> None:
    """All evaluations together take more than the training did when its recording ended."""
    epochs = [*[("train", 20)] * 10, *[("evaluate", 20)] * 5] * 20
    assert called(Window(2), *epochs) == [4, 5]


def test_a_recording_of_slow_steps_ends_in_time() -> None:
    window = Window(30)
    for _ in range(4):
        window.closes_after("train", MS, traced=False)
    assert window.opens_before("train")
    assert not window.closes_after("train", LONGEST_WINDOW_NS // 2, traced=False)
    assert window.closes_after("train", LONGEST_WINDOW_NS // 2, traced=False)


def test_a_loop_is_recorded_from_its_first_call_and_once_more_when_it_is_steady() -> None:
    window = Window(2)
    assert window.opens_within("epoch", lambda: True)
    assert window.closes_after("epoch", 50 * MS, traced=True)
    window.close()
    assert not window.opens_within("epoch", lambda: True)
    assert called(window, *[("epoch", 50)] * 8) == [4, 5]


def test_a_program_without_a_loop_is_recorded_when_it_is_steady_alone() -> None:
    assert not Window(2).opens_within("train", lambda: False)


def test_the_graph_of_a_program_is_looked_through_once() -> None:
    """Writing down the graph of a large step takes longer than the step."""
    asked = []

    def is_loop() -> bool:
        asked.append(len(asked))
        return False

    window = Window(2)
    for _ in range(10):
        window.opens_before("train")
        window.opens_within("train", is_loop)
        if window.closes_after("train", MS, traced=False):
            window.close()
    assert len(asked) == 1


def test_what_is_traced_in_every_call_is_recorded_all_the_same_after_some_calls() -> None:
    window = Window(2)
    for _ in range(PATIENCE_CALLS):
        assert not window.opens_before("train")
        window.closes_after("train", MS, traced=True)
    assert window.opens_before("train")


def test_what_is_traced_in_every_call_weighs_all_its_time() -> None:
    """Else the first steady program of a millisecond would be recorded in its place."""
    window = Window(1)
    for _ in range(PATIENCE_CALLS):
        window.closes_after("train", 50 * MS, traced=True)
    assert window.opens_before("train")
    window.closes_after("train", 50 * MS, traced=True)
    window.close()
    for _ in range(2 * PATIENCE_CALLS):
        assert not window.opens_before("metric")
        window.closes_after("metric", MS, traced=False)


def test_a_program_that_is_not_called_again_does_not_leave_its_recording_open() -> None:
    calls = [("prepare", 1)] * 6 + [("train", 20)] * 30
    assert called(Window(4), *calls) == [4, 5, *range(6, 14), *range(14, 18)]
