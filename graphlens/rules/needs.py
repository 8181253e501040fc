"""What a rule can ask for before it is run; with an unmet need it is listed as not applicable, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphlens.facts.copies.device_facts import device_uses
from graphlens.facts.copies.reads import reads
from graphlens.facts.copies.transfers import accelerators
from graphlens.facts.core import Facts
from graphlens.facts.graphs import is_training, judged_graph, judged_stage, traced_graph
from graphlens.facts.input.verdict import verdict
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import step_time
from graphlens.facts.time.period import period
from graphlens.facts.work.roofline import roofline


@dataclass(frozen=True, slots=True)
class Need:
    """One requirement.

    Attributes
    ----------
    name
        How rule pages name it.
    met
        Whether the facts fulfil it.
    why_not
        What to say, in one clause, when they do not.
    """

    name: str
    met: Callable[[Facts], bool]
    why_not: Callable[[Facts], str]


def _not_executed(facts: Facts) -> str:
    if facts.evidence.profile is not None:
        return "the executed graph is not known: the profile does not hold it"
    return f"nothing was executed: {facts.evidence.static_reason or 'only a graph is known'}"


def _not_compared(facts: Facts) -> str:
    compared = facts(roofline)
    if compared is None:
        return "what the machine can do at best was not measured"
    return f"no op of known work ran on {compared.roof.device} in {compared.roof.dtype}"


GRAPH = Need("a graph", lambda facts: len(facts(judged_graph)) > 0, lambda _: "no graph is known")
TRACED = Need(
    "the traced graph", lambda facts: facts(traced_graph) is not None, lambda _: "the graph as written is not known"
)
EXECUTED = Need("the executed graph", lambda facts: facts(judged_stage) == "executed", _not_executed)
TIMING = Need("step times", lambda facts: facts(step_time) is not None, _not_executed)
PROFILE = Need(
    "a profile",
    lambda facts: bool(facts(attribution).wall_ns),
    lambda facts: _not_executed(facts) if facts(step_time) is None else "no profile of a step is known",
)
ROOF = Need(
    "the machine's measured roof",
    lambda facts: (compared := facts(roofline)) is not None and bool(compared.points),
    _not_compared,
)
ACCELERATOR = Need(
    "an accelerator",
    lambda facts: bool(facts(accelerators)),
    lambda _: "no accelerator took part; --assume-device gpu simulates one",
)
WAITS = Need(
    "an accelerator, or a script that was watched",
    lambda facts: bool(facts(accelerators) or facts(reads)),
    ACCELERATOR.why_not,
)
DEVICE_STEPS = Need(
    "steps on an accelerator",
    lambda facts: bool(facts(device_uses)),
    lambda facts: (
        "the profile marks no steps in which an accelerator ran" if facts(accelerators) else "no accelerator ran"
    ),
)
WATCHED = Need(
    "a script that was watched",
    lambda facts: facts.evidence.script is not None,
    lambda _: "no script was watched: graphlens run counts all calls of one",
)
FOREIGN = Need(
    "a model that GraphLens runs",
    lambda facts: facts.evidence.script is None,
    lambda _: "the target is a program of one's own, which does as much without GraphLens",
)
PERIOD = Need(
    "steps that a program of its own calls",
    lambda facts: facts(period) is not None,
    lambda _: "no program called a function again and again: GraphLens called it, or nobody did",
)
INPUT = Need(
    "steps that read an input pipeline",
    lambda facts: facts(verdict) is not None,
    lambda facts: (
        PERIOD.why_not(facts)
        if facts(period) is None
        else "no step was recorded that read an input pipeline in its steady state"
    ),
)
INFERENCE = Need("an inference graph", lambda facts: not facts(is_training), lambda _: "the target trains")
