"""`graphlens fix` writes a model that a fresh process finds equal, and leaves nothing behind when it cannot."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphlens.children.messages import Difference
from graphlens.cli import main
from graphlens.cli.fixed import in_words
from graphlens.config import Request, no_progress
from graphlens.errors import ExecutionError, UsageError
from graphlens.ir.analysis import Finding, Fix, Proof, Saving, Target
from graphlens.ir.edits import FoldAffine, OtherEdit
from graphlens.ir.evidence import Evidence
from graphlens.loaders import sniff
from graphlens.loaders.savedmodel import load_saved_model
from graphlens.pipeline import fixing
from graphlens.pipeline.gather import Gathered
from graphlens.pipeline.recorder import child_request

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny_cnn"
    subprocess.run([sys.executable, str(ROOT / "fixtures/models.py"), "tiny_cnn", str(path)], check=True, cwd=ROOT)
    return path


def gathered(model: Path, folder: Path) -> Gathered:
    """What a recording would have left for the writer: how a child opens the target."""
    request = Request.of(str(model), signature="serving_default")
    opened_as = child_request(request, sniff.identify(str(model)), "record")
    return Gathered(Evidence(Target(str(model), "saved_model")), folder, opened_as=opened_as)


def finding(*edits: dict[str, object]) -> Finding:
    fix = Fix("fold", "tolerance", edits)
    return Finding("GL203", "unfolded-batch-norm", "t", (), {}, "r", Saving(), fix, proof=Proof("proven", "said so"))


def test_the_written_model_is_read_back_and_equal(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "fixed"
    target.parent.mkdir()
    chosen = [finding(FoldAffine())]
    fixed = fixing._written(gathered(model, tmp_path), chosen, target, no_progress)
    assert (target / "saved_model.pb").is_file()
    assert list(target.parent.iterdir()) == [target], "nothing else is left beside it"
    assert fixed.difference.agrees
    assert fixed.again.pairs is not None
    assert fixed.again.speedup is not None
    assert fixed.again.aa_ci95 is not None, "beside the noise of A against A"
    assert fixed.bytes_before is not None
    assert fixed.bytes_after <= 1.1 * fixed.bytes_before
    words = "\n".join(in_words(fixed))
    assert "GL203 unfolded-batch-norm" in words
    assert "allowed" in words


def test_nothing_is_left_when_an_edit_does_not_fit(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "fixed"
    target.parent.mkdir()
    with pytest.raises(ExecutionError, match="could not be written"):
        fixing._written(gathered(model, tmp_path), [finding(OtherEdit("no-such-edit"))], target, no_progress)
    assert list(target.parent.iterdir()) == []


def test_an_existing_folder_is_not_touched(model: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        fixing.fix(Request.of(str(model)), str(tmp_path), no_progress)
    assert (tmp_path / "kept").read_text() == "mine"


def test_what_would_be_in_the_way_is_found_before_any_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to nowhere, the model's own folder, a folder that is missing, and one that is read-only."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    cases = {
        tmp_path / "link": "exists; name a folder that does not",
        model / "fixed": "is inside the model itself",
        tmp_path / "missing" / "fixed": "create it first",
    }
    for output, words in cases.items():
        with pytest.raises(UsageError, match=words):
            fixing.fix(Request.of(str(model)), str(output), no_progress)
    monkeypatch.setattr(fixing.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="nothing can be written to its folder"):
        fixing.fix(Request.of(str(model)), str(tmp_path / "fixed"), no_progress)
    assert [one.name for one in tmp_path.iterdir()] == ["link"]


TWO_SIGNATURES = """
import sys
import tensorflow as tf

class Two(tf.Module):
    def __init__(self):
        self.kernel = tf.Variable(tf.random.stateless_normal((3, 3, 3, 4), (1, 2)))
        self.scale = tf.Variable([1.0, 2.0, 3.0, 4.0])

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32, name="image")], autograph=False)
    def scaled(self, image):
        return {"features": tf.nn.conv2d(image, self.kernel, 1, "SAME") * self.scale}

    @tf.function(input_signature=[tf.TensorSpec((2,), tf.string, name="text")], autograph=False)
    def lengths(self, text):
        return {"length": tf.strings.length(text)}

two = Two()
tf.saved_model.save(two, sys.argv[1], signatures={"serving_default": two.scaled, "lengths": two.lengths})
"""


def test_the_signatures_that_were_not_measured_are_compared_too(tmp_path: Path) -> None:
    path = tmp_path / "two"
    subprocess.run([sys.executable, "-c", TWO_SIGNATURES, str(path)], check=True, capture_output=True)
    told = replace(gathered(path, tmp_path / "work"), loaded=load_saved_model(path))
    fixed = fixing._written(told, [finding(FoldAffine())], tmp_path / "fixed", no_progress)
    assert fixed.signatures == 2
    assert not any("not compared" in note for note in fixed.notes)
    assert "of 2 signatures" in "\n".join(in_words(fixed))


def test_the_second_measurement_says_what_it_does_not_confirm(model: Path) -> None:
    def said(low: float, high: float, verdict: Any, why: str = "") -> str:
        again = Proof(
            verdict, why, before_ns=2_000_000, after_ns=1_900_000, speedup=1.1, ci95=(low, high),
            cpu_before_ns=4_000_000, cpu_after_ns=3_000_000, cpu_speedup=1.3,
        )  # fmt: skip
        agrees = Difference("y", "float32", 1e-5, 0.0, 0.0)
        left_out = (replace(finding(OtherEdit("b")), code="GL207"),)
        proof = Proof("proven", "measured faster: wall time 1.20x")
        return "\n".join(in_words(fixing.Fixed("d", (finding(),), agrees, again, 9, 8, proof=proof, left_out=left_out)))

    sure = said(1.05, 1.15, "proven")
    assert "wall time  2.00 ms -> 1.90 ms a step; pair by pair 1.10x, 95 % in [1.05, 1.15]" in sure
    assert "CPU time   4.00 ms -> 3.00 ms a step; pair by pair 1.30x\n" in sure
    assert "note" not in sure
    assert "proven     measured faster: wall time 1.20x" in sure
    assert "left out   GL207 unfolded-batch-norm: proven alone" in sure
    assert "does not confirm the proof, which rests on the first: noise" in said(0.98, 1.3, "inconclusive", "noise")
    assert "is slower now" in said(0.8, 0.9, "refuted", "slower")


SLOWER = Proof(
    "inconclusive", "neither is shown: CPU time 0.96x [0.90, 1.00]", speedup=1.02, ci95=(0.97, 1.08),
    cpu_speedup=0.96, cpu_ci95=(0.9, 1.0),
)  # fmt: skip


@pytest.mark.parametrize("force", [False, True])
def test_what_the_second_measurement_does_not_confirm_is_written_by_force_only(
    force: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out" / "fixed"
    target.parent.mkdir()
    monkeypatch.setattr(fixing, "_timed", lambda *_: SLOWER)

    def fix(*_: object, force: bool) -> tuple[Any, fixing.Fixed]:
        told = gathered(model, tmp_path)
        asked = fixing.Asked(force=force)
        return None, fixing._written(told, [finding(FoldAffine())], target, no_progress, asked)

    monkeypatch.setattr(fixing, "fix", fix)
    code = main(["fix", str(model), "-o", str(target), *(["--force"] if force else [])])
    printed = capsys.readouterr()
    assert "does not confirm the proof, which rests on the first" in printed.out
    assert (code, list(target.parent.iterdir())) == ((0, [target]) if force else (1, []))
    if not force:
        assert f"{target} (not written)" in printed.out
        assert printed.err.startswith(
            "graphlens: nothing was written: measuring it once more does not confirm the gain"
        )
        assert "--force writes it all the same" in printed.err


@pytest.mark.parametrize(
    ("verdict", "wall", "cpu", "confirmed"),
    [
        ("proven", (1.05, 1.2), (1.05, 1.2), True),
        ("inconclusive", (1.01, 1.3), (1.02, 1.1), True),  # the same sign once more is what a repetition has to show
        ("inconclusive", (0.99, 1.3), (1.02, 1.1), False),
        ("inconclusive", (1.01, 1.3), (0.90, 1.0), False),
        ("refuted", (0.9, 0.95), (0.9, 0.95), False),
        ("inconclusive", None, None, False),
    ],
)
def test_a_gain_is_confirmed_where_all_of_both_intervals_is_a_gain(
    verdict: Any, wall: Any, cpu: Any, confirmed: bool
) -> None:
    again = Proof(verdict, "", ci95=wall, cpu_ci95=cpu)
    agrees = Difference("y", "float32", 1e-5, 0.0, 0.0)
    assert fixing.Fixed("d", (), agrees, again, 9, 8).is_confirmed is confirmed


def test_what_could_not_be_timed_again_is_told_and_has_no_numbers() -> None:
    again = Proof("inconclusive", "the original's own outputs change")
    agrees = Difference("y", "float32", 1e-5, 0.0, 0.0)
    words = "\n".join(in_words(fixing.Fixed("d", (finding(),), agrees, again, 9, 8)))
    assert "a step" not in words
    assert "rests on the first: the original's own outputs change" in words


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
    first, second = finding(OtherEdit("a")), replace(finding(OtherEdit("b")), code="GL207")
    refuted = replace(finding(OtherEdit("c")), proof=Proof("refuted", "slower"))
    analysis = _analysis((first, second, refuted), Proof("inconclusive", "noise"))
    assert fixing.proven(analysis) == (first,)
    together = _analysis((first, second, refuted), Proof("proven", "both", parts=("GL203#1", "GL207#2")))
    assert fixing.proven(together) == (first, second)


def _analysis(findings: tuple[Finding, ...], joint: Proof) -> fixing.Analysis:
    from graphlens.ir.analysis import Document, Quality

    document = Document(Target("m", "saved_model"), {}, Quality("good"), {}, "0", findings=findings, joint_proof=joint)
    return fixing.Analysis(document)
