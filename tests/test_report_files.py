"""Choosing a report by suffix, and writing files that appear whole or not at all."""

import json
import os

import pytest

from graphlens import report
from graphlens.errors import UsageError
from tests import sample_document


@pytest.mark.parametrize("path", ["a.html", "A.HTML", "some.folder/b.json", ".txt", ".html"])
def test_the_suffix_picks_the_report(path):
    assert callable(report.reporter_for(path))


@pytest.mark.parametrize("path", ["a.sarif", "a.md", "report", "html", "a.html.gz"])
def test_an_unknown_suffix_lists_those_that_exist(path):
    with pytest.raises(UsageError, match=r"\.html, \.json, \.txt"):
        report.reporter_for(path)


@pytest.mark.parametrize("suffix", list(report.REPORTERS))
@pytest.mark.parametrize("document", [sample_document.RICH, sample_document.STATIC, sample_document.hostile()])
def test_every_report_writes_every_document(tmp_path, suffix, document):
    path = tmp_path / f"report{suffix}"
    report.write(document, path)
    assert path.read_bytes().decode("utf-8")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", list(report.REPORTERS))
def test_equal_documents_give_equal_bytes(suffix):
    render = report.reporter_for(suffix)
    assert list(render(sample_document.RICH)) == list(render(sample_document.RICH))


def test_a_written_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    report.write(sample_document.STATIC, path)
    assert json.loads(path.read_text("utf-8"))["target"]["path"] == "keras_imagenet_gpu.pbtxt"


def test_a_failing_report_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(source, destination):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UsageError, match="No space left on device"):
        report.write(sample_document.STATIC, tmp_path / "a.json")
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match=r"cannot write .*choose another place"):
        report.write(sample_document.STATIC, tmp_path / "missing" / "a.json")
