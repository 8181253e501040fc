"""Changes of a script that the user wants measured, whatever was found: each becomes a finding with the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import Edit, JitCompile, ScriptSetting, SessionSetting
from graphlens.ir.settings import ONEDNN, lines_of
from graphlens.prove import questions

CODE: Final = "TRY"
RULE: Final = "asked-for"
_ALIKE: Final = frozenset({"steps_per_execution", "iterate"})  # which compute the same, op by op
_SNIPPETS: Final = {
    "jit_compile": "model.compile(..., jit_compile=True)    # or @tf.function(jit_compile=True)",
    "steps_per_execution": "model.compile(..., steps_per_execution={value})",
    "unroll": "keras.layers.LSTM(..., unroll=True)",
    "iterate": "for x in iter(dataset):",
    "mixed_precision": 'keras.mixed_precision.set_global_policy("{value}")',
}


def asked_for(words: Sequence[str]) -> tuple[Finding, ...]:
    """Return a question for each change, as it is written after ``--try``; each once."""
    return tuple(_question(word) for word in dict.fromkeys(words))


def is_asked_for(finding: Finding) -> bool:
    """Whether a finding is nothing that was found, but a change that the user wants measured."""
    return finding.code == CODE and finding.rule == RULE


def answered(finding: Finding, command: str, script: str) -> Finding:
    """Return the finding with the answer as its title, and the command that asks again, ``script`` at its end."""
    if not is_asked_for(finding):
        return finding
    word = str(finding.evidence["change"])
    again = f"{command} --try {word}{script}" if finding.proof.command else None
    proof = replace(finding.proof, command=again)
    return replace(finding, proof=proof, title=questions.answer(word, proof) or finding.title)


def _question(word: str) -> Finding:
    edit = edit_of(word)
    name, _, value = word.partition("=")
    snippet = "\n".join(lines_of([edit])) or _SNIPPETS.get(name, "").format(value=value)
    return Finding(
        code=CODE,
        rule=RULE,
        title=f"{word}: whether that pays, a measurement tells",
        nodes=(),
        evidence={"change": word},
        reason="No rule expects anything of it: it was asked for",
        saving=Saving(),
        fix=Fix(f"Set {word} where that is measured to pay", _safety(edit), (edit,), snippet),
        fingerprint=f"{CODE}:{word}",
    )


def edit_of(word: str) -> Edit:
    """Return the edit that a change is.

    >>> edit_of("intra_op=2")
    SessionSetting(environment={}, threads={'intra_op': 2})
    """
    name, _, value = word.partition("=")
    if name == "onednn":
        return SessionSetting({ONEDNN: value})
    if name in {"intra_op", "inter_op"}:
        return SessionSetting(threads={name: int(value)})
    if name == "jit_compile":
        return JitCompile()
    return ScriptSetting(name, value)  # type: ignore[arg-type]  # ``options.change`` has read it


def _safety(edit: Edit) -> Literal["exact", "tolerance", "manual"]:
    if not isinstance(edit, ScriptSetting):
        return "tolerance"
    return "manual" if edit.changes_numbers else "exact" if edit.option in _ALIKE else "tolerance"
