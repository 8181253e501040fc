"""When a script is recorded: told by the calls that it makes."""

from __future__ import annotations

import threading

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


def test_a_validation_with_more_calls_than_the_training_does_not_end_its_recording_for_good() -> None:
    """The training is recorded anew, and through validations, once it is called after the one that seemed its end."""
    epochs = [*[("train", 20)] * 6, *[("validate", 1)] * 20] * 4
    recorded = called(Window(8), *epochs)
    assert recorded[:18] == [4, 5, *range(6, 22)]
    again = recorded[18:]
    assert again == list(range(again[0], again[-1] + 1))
    assert [epochs[number][0] for number in again].count("train") == 8


def test_a_program_that_is_called_once_in_many_calls_of_others_is_recorded_until_there_are_enough() -> None:
    calls = [*[("act", 1)] * 10, ("update", 100)] * 20
    recorded = called(Window(3), *calls)
    assert [calls[number][0] for number in recorded].count("update") == 3


def test_what_other_threads_call_does_not_end_a_recording_of_a_call_that_is_being_made() -> None:
    window = Window(2)
    assert window.opens_within("epoch", lambda: True)
    ended = []
    other = threading.Thread(
        target=lambda: ended.extend(window.closes_after("act", MS, traced=False) for _ in range(20))
    )
    other.start()
    other.join()
    assert ended == [False] * 20
    assert window.closes_after("epoch", 50 * MS, traced=True)


def test_a_script_is_not_over_with_a_recording_that_was_left_with_too_few_calls() -> None:
    window = Window(8)
    called(window, *[("train", 20)] * 5, *[("validate", 1)] * 20)
    assert window.has_recorded_steady_calls
    assert not window.has_recorded_enough
    called(window, *[("train", 20)] * 10)
    assert window.has_recorded_enough


def test_a_recording_that_the_end_of_the_script_cuts_off_is_known_to_hold_less_than_the_one_before() -> None:
    window = Window(8)
    called(window, *[("train", 20)] * 7, *[("validate", 1)] * 20)
    called(window, *[("train", 20)] * 2)
    assert window.holds_less
    called(window, ("train", 20))
    assert not window.holds_less
