"""Where the time goes from the start of one step to the start of the next, in rows that sum to it exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphlens.facts.clock.periods import period_ns_of
from graphlens.facts.core import Facts, fact
from graphlens.facts.time.ledger import apportion
from graphlens.facts.time.recorded import recorded_parts, stretches
from graphlens.facts.time.unrecorded import Rest, rest, unrecorded
from graphlens.ir.run import LedgerRow
from graphlens.ir.training import Period


@fact
def period(facts: Facts) -> Period | None:
    """The period of the judged program's steps; ``None`` where fewer than two of them follow each other.

    Its length is what the script itself needed while nothing was recorded, as far as that was seen.  How it is divided
    is that of the middle half of those that were recorded; of all, in whole cycles, where steps do different work by
    turns, so that none of it is lost.
    """
    recorded, whole = facts(stretches), facts(recorded_parts)
    if not recorded or whole is None:
        return None
    from graphlens.facts.time.around import EXECUTOR, OPS  # needs numpy, which graphs alone do not

    ns, n = facts(unrecorded) or (period_ns_of(recorded), 0)
    rows = _rows(ns, _while_unrecorded(whole, facts(rest)))
    executor_ns = sum(row.ns for row in rows if row.category in (OPS, EXECUTOR))
    return Period(ns, n or sum(one.steps for one in recorded), rows, executor_ns, period_ns_of(recorded))


def _while_unrecorded(parts_ns: Mapping[str, float], alone: Rest) -> Mapping[str, float]:
    """Return the parts of a recorded period in the proportions that they have while nothing is recorded."""
    from graphlens.facts.time.around import INPUT

    total_ns = sum(parts_ns.values())
    if not parts_ns.get(INPUT) or parts_ns[INPUT] >= total_ns:
        return parts_ns
    share = alone.told(parts_ns[INPUT] / total_ns)
    return {**parts_ns, INPUT: (total_ns - parts_ns[INPUT]) * share / (1 - share)}


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a period is the call of the step itself, and by row what is neither that nor the executor's work."""

    call_ns: int = 0
    others_ns: Mapping[str, int] = field(default_factory=dict)


@fact
def parts_of_period(facts: Facts) -> Parts:
    """The period told apart by what several steps in one call would save, and what not."""
    whole = facts(period)
    if whole is None:
        return Parts()
    from graphlens.facts.time.around import DISPATCH, EAGER, EXECUTOR, OPS

    call = (DISPATCH, EAGER)
    rest = {row.category: row.ns for row in whole.rows if row.category not in (*call, OPS, EXECUTOR)}
    return Parts(sum(row.ns for row in whole.rows if row.category in call), rest)


def _rows(ns: int, parts_ns: Mapping[str, float]) -> tuple[LedgerRow, ...]:
    shares = apportion(ns, list(parts_ns.values()))
    rows = [_row(category, share) for category, share in zip(parts_ns, shares, strict=True) if share]
    return tuple(sorted(rows, key=lambda row: (row.kind != "op", row.kind == "unattributed", -row.ns)))


def _row(category: str, ns: int) -> LedgerRow:
    from graphlens.facts.time.around import HANDOFF, OPS

    return LedgerRow(category, ns, "unattributed" if category == HANDOFF else "op" if category == OPS else "overhead")
