"""Trials of a dataset: one process for each variant, of which one takes elements while the others stand still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graphlens.children.messages import RecordRequest
from graphlens.ir.edits import EVERYWHERE, MergeConstants, NotDeterministic, ParallelMap
from graphlens.prove.bench import changes_numbers
from graphlens.prove.dataset_runner import DIFFERS, DatasetRunner
from graphlens.prove.runner import ORIGINAL, NotOpenedError, RefusedError

pytestmark = pytest.mark.tf

REPOSITORY = Path(__file__).parents[1]
LIMIT_S = 120.0
STAGES = ("RangeDataset:700", "MapDataset:701", "BatchDatasetV2:702")  # numbered in another process


def asked(name: str) -> RecordRequest:
    return RecordRequest(f"fixtures.datasets:{name}", "callable", import_path=str(REPOSITORY))


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatasetRunner]:
    monkeypatch.chdir(REPOSITORY)
    made = DatasetRunner(asked("sequential_map"), tmp_path, STAGES)
    yield made
    made.close()


def test_a_change_is_compared_and_timed_beside_the_original(runner: DatasetRunner) -> None:
    opening = runner.open(LIMIT_S)
    assert opening.apart
    assert opening.overlaps  # the CPU has no less to do
    runner.apply("fixed", [(ParallelMap(STAGES[1], 4),)], LIMIT_S)
    compared = runner.compare("fixed", None, LIMIT_S)
    assert [(one.output, one.max_abs) for one in compared.differences] == [("element", 0.0)]
    assert compared.inputs > 10
    pairs = runner.time(ORIGINAL, "fixed", 2, 50.0, LIMIT_S)
    assert len(pairs) == 2
    # Four records are read for an element, each of which takes its time, whatever else the machine does.
    assert all(pair.before_ns > 4 * 4e6 for pair in pairs)
    with pytest.raises(RefusedError, match="is no change of an input pipeline"):
        runner.apply("other", [(MergeConstants(EVERYWHERE),)], LIMIT_S)


def test_a_dataset_that_is_empty_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(NotOpenedError, match="the dataset has no element"):
        DatasetRunner(asked("empty"), tmp_path).open(LIMIT_S)


def test_a_dataset_that_ends_elsewhere_is_no_equal_of_the_original(tmp_path: Path) -> None:
    import tensorflow as tf

    from graphlens.tf.trial import datasets

    def compared(count: int, of: int) -> tuple[int, list[str | None]]:
        file = str(tmp_path / "elements.npz")
        datasets.observe(datasets.Session(dataset=tf.data.Dataset.range(of)), ORIGINAL, file)
        found = datasets.compare(datasets.Session(dataset=tf.data.Dataset.range(count)), "changed", None, file)
        return found.inputs, [one.mismatch for one in found.differences]

    assert compared(3, of=3) == (3, [None])
    assert compared(5, of=3) == (3, ["the original ends after 3 elements"])
    assert compared(2, of=3) == (3, ["it ends after 2 elements"])
    most = datasets.MOST_COMPARED
    assert compared(most + 9, of=most + 5) == (most, [None]), "of long ones the beginning is compared"


def test_elements_in_another_order_are_a_change_of_numbers() -> None:
    assert changes_numbers([(NotDeterministic(),)])
    assert changes_numbers([(ParallelMap("MapDataset:1", reorders=True),)])
    assert not changes_numbers([(ParallelMap("MapDataset:1"),)])
    assert DIFFERS
