"""The parent's side of the fusion experiments: send chains to children that have TensorFlow, and join the answers.

Standard library and ``ir`` only: the parent never imports TensorFlow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from graphlens.children.start import Child, start
from graphlens.ir import codec
from graphlens.ir.fusion import (
    CHANGES_THE_MODEL,
    COMPILE,
    Chain,
    FusionAnswer,
    Obstacle,
    answer_for,
    is_grouped,
    plain_names,
    renamed,
)
from graphlens.ir.settings import ONEDNN

DEFAULT_TIME_LIMIT_S: Final = 60.0  # of which TensorFlow's import takes about ten
_MODULE: Final = "graphlens.tf.probe.fusion_child"
_GRACE_S: Final = 20.0  # for the import, which the child's own clock does not count
_ONEDNN_OFF: Final = Obstacle("onednn", "", f"{ONEDNN}=0")


@dataclass(frozen=True, slots=True)
class _Setting:
    """What one process said: whether it had oneDNN, and its answers by key."""

    onednn: bool | None
    answers: Mapping[str, FusionAnswer]


def probe(chains: Sequence[Chain], folder: Path, time_limit_s: float = DEFAULT_TIME_LIMIT_S) -> dict[str, FusionAnswer]:
    """Find out why each of ``chains`` is not fused, or whether XLA compiles it; answers by the chains' keys.

    A chain that time did not allow for has no answer.  The children leave their logs in ``folder``.

    Two processes run at the same time: one as TensorFlow is set up here, one with oneDNN on.  Where oneDNN is off here
    and the second one fuses a chain, oneDNN is the first change that its answer names.
    """
    if not chains:
        return {}
    alike = _alike(chains)
    asked = [group[0] for group in alike]
    fusions = [chain for chain in asked if chain.kind != COMPILE]
    children = [_start(asked, folder / "as-set-up", {}, time_limit_s)]
    if fusions and os.environ.get(ONEDNN) != "1":
        children.append(_start(fusions, folder / "with-onednn", {ONEDNN: "1"}, time_limit_s))
    try:
        here, *others = [_finish(child, time_limit_s + _GRACE_S) for child in children]
    finally:
        for child in children:  # an interrupted parent leaves none behind
            child.cancel()
    found = _joined(here, others[0]) if others else here.answers
    return {
        chain.key: answer_for(found[group[0].key], group[0], chain)
        for group in alike
        if group[0].key in found
        for chain in group
    }


def _alike(chains: Iterable[Chain]) -> list[list[Chain]]:
    """Group chains that TensorFlow treats alike: names in the same order, and axes of other lengths only."""
    groups: dict[str, list[Chain]] = {}
    for chain in chains:
        names = plain_names(chain)
        plain = codec.encode(renamed(chain, "", names), exact=True)
        for op in plain["ops"]:
            op["values"] = None if op["values"] is None else "known"
            op["spec"] = op["spec"] and [op["spec"]["dtype"], _kinds_of_sizes(op["spec"]["shape"])]
        plain["sorted"] = [names[name] for name in sorted(names)]
        plain["grouped"] = is_grouped(chain)
        groups.setdefault(json.dumps(plain, sort_keys=True), []).append(chain)
    return list(groups.values())


def _kinds_of_sizes(shape: Sequence[int | None] | None) -> list[str] | None:
    if shape is None:
        return None
    return ["unknown" if size is None else "one" if size == 1 else "many" for size in shape]


# -- the processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Try the chains one after another, as far as time allows."""

    chains: tuple[Chain, ...]
    time_limit_s: float


@dataclass(frozen=True, slots=True)
class Onednn:
    """Whether the process of the experiments has oneDNN; it says so before its first answer."""

    enabled: bool | None


def _start(chains: Sequence[Chain], folder: Path, setting: Mapping[str, str], time_limit_s: float) -> Child:
    # The graph optimizer needs no device, and looking for one costs seconds.
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", **setting}
    child = start(folder, _MODULE, environment, answers=(Onednn, FusionAnswer))
    child.send(ProbeRequest(tuple(chains), time_limit_s))
    return child


def _finish(child: Child, limit_s: float) -> _Setting:
    """Collect a child's answers; what it did not say in time counts as not asked."""
    said = child.answers(limit_s)
    onednn = next((message.enabled for message in said if isinstance(message, Onednn)), None)
    return _Setting(onednn, {answer.key: answer for answer in said if isinstance(answer, FusionAnswer)})


# -- the answers ---------------------------------------------------------------------------------------------------


def _joined(here: _Setting, with_onednn: _Setting) -> Mapping[str, FusionAnswer]:
    if here.onednn is not False or not with_onednn.onednn:
        return here.answers
    return {key: _with_setting(answer, with_onednn.answers.get(key)) for key, answer in here.answers.items()}


def _with_setting(answer: FusionAnswer, other: FusionAnswer | None) -> FusionAnswer:
    """Add what oneDNN would change to an answer that was found without it; the least change comes first."""
    if other is None or answer.verdict in ("fuses", "failed"):
        return answer
    found = [()] if other.verdict == "fuses" else other.changes
    more = [(_ONEDNN_OFF, *some) for some in found if not any(set(known) <= set(some) for known in answer.changes)]
    changes = sorted((*answer.changes, *more), key=_extent)
    return replace(answer, verdict="explained" if changes else answer.verdict, changes=tuple(changes))


def _extent(obstacles: Sequence[Obstacle]) -> tuple[bool, int]:
    """How much a set of changes asks for: another model is more than any number of changes to this one."""
    return any(item.kind in CHANGES_THE_MODEL for item in obstacles), len(obstacles)
