"""`graphlens fix` writes a model that a fresh process finds equal, and leaves nothing behind when it cannot."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from graphlens.cli import main
from graphlens.config import Request, no_progress
from graphlens.errors import ExecutionError, UsageError
from graphlens.ir.analysis import Finding, Fix, Proof, Saving, Target
from graphlens.ir.evidence import Evidence
from graphlens.loaders import sniff
from graphlens.pipeline import fixing
from graphlens.pipeline.gather import Gathered, child_request

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny_cnn"
    subprocess.run([sys.executable, str(ROOT / "fixtures/models.py"), "tiny_cnn", str(path)], check=True, cwd=ROOT)
    return path


def gathered(model: Path, folder: Path) -> Gathered:
    """What a recording would have left for the writer: how a child opens the target."""
    request = Request(str(model), signature="serving_default")
    opened_as = child_request(request, sniff.identify(str(model)), "record")
    return Gathered(Evidence(Target(str(model), "saved_model")), folder, opened_as=opened_as)


def finding(*edits: dict[str, object]) -> Finding:
    fix = Fix("fold", "tolerance", edits)
    return Finding("GL203", "unfolded-batch-norm", "t", (), {}, "r", Saving(), fix, proof=Proof("proven", "said so"))


def test_the_written_model_is_read_back_and_equal(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "fixed"
    target.parent.mkdir()
    chosen = [finding({"edit": "fold-affine"})]
    fixed = fixing._written(gathered(model, tmp_path), chosen, target, no_progress)
    assert (target / "saved_model.pb").is_file()
    assert list(target.parent.iterdir()) == [target], "nothing else is left beside it"
    assert fixed.difference.agrees
    assert fixed.bytes_before is not None
    assert fixed.bytes_after <= 1.1 * fixed.bytes_before
    words = "\n".join(fixing.in_words(fixed))
    assert "GL203 unfolded-batch-norm" in words
    assert "allowed" in words


def test_nothing_is_left_when_an_edit_does_not_fit(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "fixed"
    target.parent.mkdir()
    with pytest.raises(ExecutionError, match="could not be written"):
        fixing._written(gathered(model, tmp_path), [finding({"edit": "no-such-edit"})], target, no_progress)
    assert list(target.parent.iterdir()) == []


def test_an_existing_folder_is_not_touched(model: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        fixing.fix(Request(str(model)), str(tmp_path), no_progress)
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.parametrize(("name", "content"), [("a.xplane.pb", b"\x0a\x08\x12\x06/host:"), ("capture.json", b"{}")])
def test_a_recording_is_refused_before_any_work(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["fix", str(tmp_path / name), "-o", str(tmp_path / "fixed")]) == 2
    message = capsys.readouterr().err
    assert "holds no weights to write; name the model itself" in message
    assert message.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["fix", "--help"])
    shown = capsys.readouterr().out
    assert "capture" not in shown
    assert "profile," not in shown


def test_without_a_proven_fix_nothing_is_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rule of this selection finds anything in the model, so there is nothing to prove."""
    assert main(["fix", str(model), "-o", str(tmp_path / "fixed"), "--select", "GL501", "--steps", "3"]) == 1
    assert "nothing was written: no rule found anything to fix" in capsys.readouterr().err
    assert not (tmp_path / "fixed").exists()


def test_only_what_was_proven_is_applied() -> None:
    """Of two fixes that were proven alone and not together, the one that gives more is applied."""
    first, second = finding({"edit": "a"}), replace(finding({"edit": "b"}), code="GL207")
    refuted = replace(finding({"edit": "c"}), proof=Proof("refuted", "slower"))
    analysis = _analysis((first, second, refuted), Proof("inconclusive", "noise"))
    assert fixing.proven(analysis) == (first,)
    together = _analysis((first, second, refuted), Proof("proven", "both", parts=("GL203#1", "GL207#2")))
    assert fixing.proven(together) == (first, second)


def _analysis(findings: tuple[Finding, ...], joint: Proof) -> fixing.Analysis:
    from graphlens.ir.analysis import Document, Quality

    document = Document(Target("m", "saved_model"), {}, Quality("good"), {}, "0", findings=findings, joint_proof=joint)
    return fixing.Analysis(document)
