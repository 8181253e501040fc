"""Op rows as columns: they are the same rows as a tuple, in JSON too, and reports never walk all of them twice."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphlens.errors import TargetError
from graphlens.ir import codec, op_rows
from graphlens.ir.document import from_json, to_json
from graphlens.ir.measured import OpRow
from graphlens.ir.op_rows import OpRows
from graphlens.ir.row_codec import CHUNK_ROWS, row_texts, rows_of
from graphlens.report import view_ops
from graphlens.report.view import view_of
from tests.sample_document import RICH

words = st.text(max_size=6)
counts = st.none() | st.integers(-(1 << 70), 1 << 70)
shares = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 9)
any_rows = st.lists(
    st.builds(
        OpRow,
        words,
        words,
        words,
        device=st.none() | words,
        self_ns=counts,
        calls_per_step=shares,
        origin=st.lists(words, max_size=2).map(tuple),
        timing=st.sampled_from([None, "profile", "replay", "kernel"]),
    ),
    max_size=5,
)


def written(rows: OpRows) -> list[str]:
    return [text for texts in row_texts(rows) for text in texts]


# -- the noun ----------------------------------------------------------------------------------------------------------


@given(any_rows)
def test_columns_are_the_rows_that_they_were_made_of(rows: list[OpRow]) -> None:
    table = OpRows.of(rows)
    assert list(table) == rows
    assert table == tuple(rows)
    assert tuple(rows) == table
    assert hash(table) == hash(tuple(rows))
    assert [table[position] for position in range(len(rows))] == rows
    assert table[1:3] == tuple(rows[1:3])
    assert eval(repr(table), {"OpRows": OpRows, "OpRow": OpRow}) == table


def test_a_column_that_says_nothing_is_not_held() -> None:
    table = OpRows.of([OpRow("a", "A", "", flops=1), OpRow("b", "B", "")])
    assert set(table.columns) == {"name", "op", "scope", "flops"}
    assert table.column("self_ns") == (None, None)
    assert table[:1].columns["flops"] == (1,)
    assert "flops" not in table[1:].columns


def test_rows_are_found_by_name() -> None:
    table = OpRows.of([OpRow("a", "A", ""), OpRow("b", "B", "")])
    assert table.find("b") == OpRow("b", "B", "")
    assert table.find("c") is None


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        OpRows({"name": ["a"], "op": ["A", "B"], "scope": [""]})


# -- as JSON -----------------------------------------------------------------------------------------------------------


@given(any_rows)
def test_the_text_of_a_row_is_that_of_its_record(rows: list[OpRow]) -> None:
    texts = [json.dumps(codec.encode(row), ensure_ascii=False) for row in rows]
    assert written(OpRows.of(rows)) == texts
    assert rows_of([json.loads(text) for text in texts]) == OpRows.of(rows)


def test_equal_numbers_that_are_written_differently_stay_apart() -> None:
    rows = OpRows.of([OpRow("a", "A", "", calls_per_step=zero) for zero in (0.0, -0.0, 0)])
    assert [json.loads(text)["calls_per_step"] for text in written(rows)] == [0.0, 0.0, 0.0]
    assert [re.findall(r'"calls_per_step": (\S+),', text) for text in written(rows)] == [["0.0"], ["-0.0"], ["0.0"]]


def test_rows_of_several_chunks_keep_their_order() -> None:
    rows = OpRows({name: [f"{name}{i}" for i in range(CHUNK_ROWS + 2)] for name in ("name", "op", "scope")})
    assert [json.loads(text)["name"] for text in written(rows)] == list(rows.column("name"))
    assert from_json(to_json(replace(RICH, ops=rows))).ops == rows


def test_numbers_that_are_none_become_null_in_rows() -> None:
    rows = OpRows.of([OpRow("a", "A", "", self_ns=float("nan"), wall_share=float("inf"), flops=float("inf"))])  # type: ignore[arg-type]
    data = json.loads(written(rows)[0])
    assert (data["self_ns"], data["wall_share"], data["flops"]) == (None, None, None)


def test_a_number_that_is_none_of_its_kind_is_refused_with_its_row() -> None:
    rows = OpRows.of([OpRow("a", "A", "", self_ns=1), OpRow("b", "B", "", self_ns="2")])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"ops\[1\]\.self_ns is '2', expected a whole number"):
        to_json(replace(RICH, ops=rows))


def test_rows_of_an_older_version_lack_fields_and_those_of_a_newer_one_have_more() -> None:
    read = rows_of([{"name": "a", "op": "A", "scope": "", "calls_per_step": 2, "to_come": 1}])
    assert read == (OpRow("a", "A", "", calls_per_step=2.0),)
    assert type(read[0].calls_per_step) is float


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (1, r"ops\[1\] is 1, expected object"),
        ({"op": "A", "scope": ""}, r"ops\[1\]\.name is missing"),
        ({"name": None, "op": "A", "scope": ""}, r"ops\[1\]\.name is null, expected string"),
        ({"name": "a", "op": "A", "scope": "", "self_ns": True}, r"ops\[1\]\.self_ns is true, expected integer"),
        ({"name": "a", "op": "A", "scope": "", "self_ns": 1.5}, r"ops\[1\]\.self_ns is 1.5, expected integer"),
        ({"name": "a", "op": "A", "scope": "", "wall_share": "1"}, r'ops\[1\]\.wall_share is "1", expected number'),
        (
            {"name": "a", "op": "A", "scope": "", "flops": 10**400},
            r"ops\[1\]\.flops is .*that a float can hold",
        ),
        ({"name": "a", "op": "A", "scope": "", "self_ns": -(10**400)}, r"ops\[1\]\.self_ns is .*that a float can hold"),
        ({"name": "a", "op": "A", "scope": "", "wall_share": 10**400}, r"ops\[1\]\.wall_share is .*finite number"),
        ({"name": "a", "op": "A", "scope": "", "origin": "xy"}, r'ops\[1\]\.origin is "xy", expected array'),
        ({"name": "a", "op": "A", "scope": "", "origin": [1]}, r"ops\[1\]\.origin\[0\] is 1, expected string"),
        ({"name": "a", "op": "A", "scope": "", "timing": "guess"}, r'ops\[1\]\.timing is "guess", expected one of'),
    ],
)
def test_a_wrong_value_in_a_row_is_named(row: Any, message: str) -> None:
    data = json.loads(to_json(RICH))
    data["ops"][1] = row
    with pytest.raises(TargetError, match=message):
        from_json(json.dumps(data))


def test_ops_that_are_no_list_are_refused() -> None:
    with pytest.raises(TargetError, match=r"ops is \{\}, expected array"):
        from_json(json.dumps({**json.loads(to_json(RICH)), "ops": {}}))


# -- what it costs -----------------------------------------------------------------------------------------------------


class Watched(Sequence[Any]):
    """A column that counts how many of its values were read one by one."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values, self.read = values, 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        self.read += len(self.values[index]) if isinstance(index, slice) else 1
        return self.values[index]

    def __iter__(self) -> Iterator[Any]:
        self.read += len(self.values)
        return iter(self.values)

    def count(self, value: Any) -> int:
        return list.count(list(self.values), value)


def watched(rows: int) -> OpRows:
    """Ops without a time, as a static analysis has them."""
    names = [f"model/layer_{i}/op" for i in range(rows)]
    columns = {
        "name": names,
        "op": ["Relu"] * rows,
        "scope": ["model"] * rows,
        "flops": [1] * rows,
        "device": ["CPU:0"] * rows,
    }
    return OpRows({name: Watched(values) for name, values in columns.items()})


@pytest.mark.parametrize("limit", [10, None])
def test_a_report_reads_whole_columns_a_few_times_and_makes_the_rows_that_it_shows(
    limit: int | None, monkeypatch
) -> None:
    """Names once for their positions; devices once for whether there are several; nothing else of ops not shown."""
    made = []
    monkeypatch.setattr(op_rows, "OpRow", lambda *args, **kwargs: made.append(args or kwargs) or OpRow(*args, **kwargs))
    rows = watched(20 * view_ops.ROW_LIMIT)
    view_of(replace(RICH, ops=rows), limit)
    read = {name: values.read / len(rows) for name, values in rows.columns.items()}
    assert read.pop("name") < 1.2
    assert read.pop("device") < 1.2
    assert all(share < 0.2 for share in read.values()), read
    assert len(made) < 2 * view_ops.ROW_LIMIT
