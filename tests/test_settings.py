"""Settings as edits: merged, refused where they contradict each other, and typed by a person instead of written."""

from __future__ import annotations

from typing import Any

import pytest

from graphlens.errors import RewriteError
from graphlens.ir.analysis import Finding, Fix, Proof, Saving
from graphlens.ir.edits import FoldAffine, SessionSetting
from graphlens.ir.settings import graph_edits, lines_of, onednn_on, settings_of

ONE_THREAD = SessionSetting(threads={"intra_op": 1, "inter_op": 1})
FOLD = FoldAffine()


def test_settings_are_told_from_edits_of_the_graph() -> None:
    edits = [FOLD, onednn_on(), ONE_THREAD]
    assert graph_edits(edits) == (FOLD,)
    settings = settings_of(edits)
    assert settings is not None
    assert (settings.environment, settings.threads) == ({"TF_ENABLE_ONEDNN_OPTS": "1"}, {"intra_op": 1, "inter_op": 1})
    assert settings_of([FOLD]) is None


def test_what_to_type_is_a_line_of_the_shell_or_of_python() -> None:
    assert lines_of([onednn_on(), ONE_THREAD]) == (
        "export TF_ENABLE_ONEDNN_OPTS=1",
        "tf.config.threading.set_intra_op_parallelism_threads(1)",
        "tf.config.threading.set_inter_op_parallelism_threads(1)",
    )
    assert lines_of([SessionSetting(environment={"XLA_FLAGS": "--a --b"})]) == ("export XLA_FLAGS='--a --b'",)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"environment": {"TF_ENABLE_ONEDNN_OPTS": "0"}}, "TF_ENABLE_ONEDNN_OPTS cannot be 1 and 0"),
        ({"threads": {"intra_op": 2}}, "intra_op cannot be 1 and 2"),
    ],
)
def test_what_cannot_be_set_is_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(RewriteError, match=why):
        settings_of([onednn_on(), ONE_THREAD, SessionSetting(**more)])


@pytest.mark.parametrize("threads", [{"gpu": 1}, {"intra_op": -1}])
def test_there_are_two_thread_pools_and_no_negative_sizes(threads: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="knows no thread pool"):
        SessionSetting(threads=threads)


# -- graphlens fix --------------------------------------------------------------------------------------------------


def finding(code: str, *edits: Any, verdict: Any = "proven") -> Finding:
    fix = Fix("do it", "tolerance", edits)
    proof = Proof(verdict, "said so", command=f"graphlens analyze m --select {code}")
    return Finding(code, f"rule-{code}", code, (), {}, "because", Saving(), fix, proof=proof)


def test_a_setting_alone_writes_nothing_and_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graphlens.cli import main
    from graphlens.pipeline import fixing

    analysis = analysis_of(finding("GL201", onednn_on()))
    monkeypatch.setattr(fixing, "fix", lambda *_, **__: (analysis, None))
    assert main(["fix", "model", "-o", "fixed"]) == 1
    assert capsys.readouterr().err == (
        "graphlens: nothing was written: what was proven is a setting and changes no graph; "
        "set for serving: export TF_ENABLE_ONEDNN_OPTS=1\n"
    )


def test_beside_a_setting_the_graph_is_written_without_it() -> None:
    from graphlens.pipeline import fixing

    setting, fold = finding("GL201", onednn_on()), finding("GL203", FOLD)
    together = analysis_of(setting, fold, joint=Proof("proven", "both", parts=("GL201#1", "GL203#2")))
    assert fixing.proven(together) == (setting, fold)
    assert fixing.settings_proven(fixing.proven(together)) == ("export TF_ENABLE_ONEDNN_OPTS=1",)
    apart = analysis_of(setting, fold, joint=Proof("inconclusive", "noise"))
    assert fixing.proven(apart) == (fold,), "of two that were not proven together, the one that can be written"


def analysis_of(*findings: Finding, joint: Proof | None = None) -> Any:
    from graphlens.ir.analysis import Document, Quality, Target
    from graphlens.pipeline.result import Analysis

    document = Document(Target("m", "saved_model"), {}, Quality("good"), {}, "0", findings=findings, joint_proof=joint)
    return Analysis(document)


# -- the report -----------------------------------------------------------------------------------------------------


def test_the_report_says_what_to_set_where_a_setting_was_proven() -> None:
    from graphlens.report.view_findings import finding_views

    setting, fold = finding_views(analysis_of(finding("GL201", onednn_on()), finding("GL203", FOLD)).document)
    assert setting.proof.apply == "export TF_ENABLE_ONEDNN_OPTS=1"
    assert fold.proof.apply == "graphlens fix m --select GL203 -o improved"
