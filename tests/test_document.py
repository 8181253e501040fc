"""The analysis document as JSON: nothing is lost, nothing wrong is read, and the committed schema is fresh."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphlens.errors import TargetError
from graphlens.ir import document as codec
from graphlens.ir.analysis import Document, Finding, Fix, Proof, Quality, Saving, Target
from graphlens.ir.document import from_json, json_schema, to_json
from graphlens.ir.edits import OtherEdit
from graphlens.ir.measured import CriticalPath, GraphSize, OpRow
from tests import sample_document

SCHEMA = Path(codec.__file__).parents[1] / "schema" / "analysis.v1.json"
SAMPLES = [sample_document.RICH, sample_document.STATIC, sample_document.hostile()]

counts = st.none() | st.integers(0, 1 << 50)
shares = st.none() | st.floats(0, 1)
words = st.text(max_size=12)
free = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 50), 1 << 50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
intervals = st.none() | st.tuples(st.floats(0, 2), st.floats(0, 2))
proofs = st.builds(Proof, st.sampled_from(["proven", "not-run"]), words, speedup=shares, ci95=intervals)
findings = st.builds(
    Finding,
    words,
    words,
    words,
    st.lists(words, max_size=3).map(tuple),
    st.dictionaries(words, free, max_size=3),
    words,
    st.builds(Saving, counts, shares, st.sampled_from(["measured", "modelled", "bound", "unknown"])),
    st.builds(Fix, words, st.sampled_from(["exact", "manual"]), st.just((OtherEdit("x"),)), st.none() | words),
    proof=proofs,
)
documents = st.builds(
    Document,
    st.builds(Target, words, words, st.none() | words),
    st.dictionaries(words, free, max_size=3),
    st.builds(Quality, st.sampled_from(["good", "none"]), shares, reasons=st.lists(words, max_size=2).map(tuple)),
    st.dictionaries(words, st.builds(GraphSize, *[st.integers(0, 9)] * 3), max_size=2),
    words,
    ops=st.lists(st.builds(OpRow, words, words, words, self_ns=counts, calls_per_step=shares), max_size=3).map(tuple),
    critical_path=st.none() | st.builds(CriticalPath, st.integers(0, 9), st.lists(words, max_size=2).map(tuple)),
    findings=st.lists(findings, max_size=2).map(tuple),
)


@given(documents)
def test_what_is_written_is_read_back_equal(document):
    text = to_json(document)
    assert from_json(text) == document
    assert to_json(from_json(text)) == text


@pytest.mark.parametrize("document", SAMPLES)
def test_samples_survive_the_round_trip_and_fit_the_committed_schema(document):
    text = to_json(document)
    assert from_json(text) == document
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(json.loads(text))


def test_fields_are_written_in_the_order_of_the_class():
    written = list(json.loads(to_json(sample_document.RICH)))
    assert written == [field.name for field in fields(Document)]


def test_the_committed_schema_is_fresh():
    fresh = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("GRAPHLENS_UPDATE"):
        SCHEMA.write_text(fresh, "utf-8")
    assert SCHEMA.read_text("utf-8") == fresh, "run GRAPHLENS_UPDATE=1 pytest tests/test_document.py"
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_schema_refuses_unknown_fields_and_wrong_words():
    data = json.loads(to_json(sample_document.RICH))
    check = jsonschema.Draft202012Validator(json_schema())
    assert not check.is_valid({**data, "surprise": 1})
    assert not check.is_valid({**data, "quality": {"grade": "excellent"}})


def test_numbers_that_are_none_become_null():
    nan = float("nan")
    quality = Quality("fair", join_rate=nan)
    proof = Proof("failed", "", ci95=(nan, 1.0))
    finding = replace(sample_document.LOW, evidence={"ratio": nan, "all": (float("inf"), 1.0)}, proof=proof)
    data = json.loads(to_json(replace(sample_document.RICH, quality=quality, findings=(finding,))))
    assert data["quality"]["join_rate"] is None
    assert data["findings"][0]["proof"]["ci95"] is None
    assert data["findings"][0]["evidence"] == {"ratio": None, "all": [None, 1.0]}


def test_evidence_that_json_cannot_say_is_refused_with_its_place():
    finding = replace(sample_document.LOW, evidence={"shape": ({"of": {1, 2}},)})
    with pytest.raises(TypeError, match=r"findings\[0\]\.evidence\.shape\[0\]\.of is a set"):
        to_json(replace(sample_document.RICH, findings=(finding,)))


def test_a_newer_schema_version_says_to_update():
    newer = to_json(sample_document.STATIC).replace('"schema_version": 1', '"schema_version": 2')
    with pytest.raises(TargetError, match=r"version 2 .*update GraphLens"):
        from_json(newer)


def test_an_older_document_is_upgraded_step_by_step(monkeypatch):
    """Two imagined versions back: each upgrade sees the document of exactly its own version."""
    monkeypatch.setattr(codec, "SCHEMA_VERSION", 3)
    seen = []

    def upgrade(data):
        seen.append(data["schema_version"])
        return {**data, "schema_version": data["schema_version"] + 1}

    assert from_json(to_json(sample_document.STATIC), {1: upgrade, 2: upgrade}).schema_version == 3
    assert seen == [1, 2]
    with pytest.raises(TargetError, match="version 2 can no longer be read"):
        from_json(to_json(sample_document.STATIC), {1: upgrade})


def test_fields_added_by_a_newer_release_are_left_out():
    data = json.loads(to_json(sample_document.STATIC))
    data["new_field"] = data["target"]["new_field"] = 1
    assert from_json(json.dumps(data)) == sample_document.STATIC


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("[1, 2]", "no schema_version"),
        ('{"a": 1}', "no schema_version"),
        ("[" * 100_000, "no JSON"),
        ('{"schema_version": NaN}', "NaN is not a JSON number"),
        ('{"schema_version": "1"}', 'schema_version is "1"'),
        ('{"schema_version": true}', "schema_version is true"),
        ('{"schema_version": 1}', "target is missing"),
        ('{"schema_version": 1, "target": []}', r"target is \[\], expected object"),
        ('{"schema_version": 1, "target": ' + "[" * 900 + "]" * 900 + "}", "target is .*, expected object"),
        ('{"schema_version": 1, "target": {"path": 1}}', "target.path is 1, expected string"),
        ('{"schema_version": 1, "target": {"path": "p"}}', "target.kind is missing"),
    ],
)
def test_what_is_no_analysis_is_refused_in_one_line(text, message):
    with pytest.raises(TargetError, match=message) as caught:
        from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [52, 300, 900])
def test_evidence_that_is_nested_too_deeply_to_be_shown_is_refused(depth):
    text = to_json(sample_document.RICH).replace(
        '"evidence": {', f'"evidence": {{"deep": {"[" * depth + "]" * depth}, '
    )
    with pytest.raises(TargetError, match=r"findings\[0\]\.evidence\.deep is nested more than 50 times"):
        from_json(text)


def test_a_whole_number_that_no_float_holds_is_refused():
    text = to_json(sample_document.RICH).replace('"median_ns": ', '"median_ns": 1' + "0" * 400, 1)
    with pytest.raises(TargetError, match="expected a number that a float can hold"):
        from_json(text)


def test_a_wrong_value_deep_inside_is_named():
    text = to_json(sample_document.RICH).replace('"severity": "medium"', '"severity": "terrible"')
    with pytest.raises(TargetError, match=r'findings\[1\]\.severity is "terrible", expected one of high'):
        from_json(text)
