"""Words that rules share: what they say of a measurement is so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_stage
from graphlens.ir.run import OpEvent, Profile, Run
from graphlens.rules.phrases import with_stage
from graphlens.testing.sketch import sketch

STATIC = sketch("static\ny = Relu()")
RAN = Profile(ops=(OpEvent("y", "Relu", 0, 9, 10, 0, 0),), runs=(Run("__inference_f_1", 0, 9, 0),))


@pytest.mark.parametrize(("profile", "is_said"), [(None, True), (RAN, False)])
def test_that_nothing_was_executed_is_said_only_where_nothing_was_measured(
    profile: Profile | None, is_said: bool
) -> None:
    """A profile that was recorded elsewhere measured the traced graph, though nothing was executed here."""
    facts = Facts(replace(STATIC, profile=profile))
    assert facts(judged_stage) == "traced"
    assert ("nothing was executed" in with_stage(facts, "a cause")) is is_said
