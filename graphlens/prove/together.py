"""Which of the proven fixes to apply at once: all of them, unless some of them are faster without the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from graphlens.ir.analysis import Proof
from graphlens.prove.runner import RefusedError

NOTHING_PROVEN: Final = "no fix was proven alone, so there is nothing to prove together"
_GONE: Final = "left out, since it no longer applies after the others"

# Measures the fixes of these findings at once; raises ``RefusedError`` when one does not apply after the others.
Measure = Callable[[Sequence[int]], Proof]
Name = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Joint:
    """The findings whose fixes are applied together, by index, and what came of it."""

    members: tuple[int, ...]
    proof: Proof


def proven(alone: Mapping[int, Proof]) -> list[int]:
    """Return what was proven alone, the fastest first."""
    return sorted((index for index in alone if alone[index].verdict == "proven"), key=lambda i: -_gain(alone[i]))


def undecided(alone: Mapping[int, Proof]) -> list[int]:
    """Return what was timed alone with no clear outcome, the most promising first."""
    left = [index for index, proof in alone.items() if proof.verdict == "inconclusive" and proof.speedup is not None]
    return sorted(left, key=lambda index: -(alone[index].expected_share or 0.0))


def told_twice(on_top: Proof, alone: Proof, both: Proof) -> Proof:
    """Return what is to be said of a fix that was measured alone and on top of others, and with them if it gained.

    It is proven where all at once are, too.
    """
    others = ", ".join(on_top.on_top_of)
    if both.verdict == "proven":
        return replace(on_top, why=f"on top of {others}: {on_top.why} (alone {_numbers(alone)})")
    return replace(alone, why=f"{alone.why}; on top of {others}: {on_top.why}")


def joined(members: Sequence[int], alone: Mapping[int, Proof], measure: Measure, name: Name) -> Joint:
    """Prove ``members`` at once; one that another has made impossible is left out, all but one if they are slower."""
    kept, left_out = list(members), []
    while len(kept) > 1:
        try:
            joint = Joint(tuple(kept), measure(kept))
        except RefusedError as error:
            refused = kept.pop(-1 if error.edit is None else error.edit)
            left_out.append(f"{name(refused)}: {error}")
        else:
            return _noting(_or_the_best(joint, alone, name), _GONE, left_out)
    if not kept:
        return Joint((), Proof("not-run", NOTHING_PROVEN))
    return _noting(Joint((kept[0],), alone[kept[0]]), _GONE, left_out)


def extended(joint: Joint, index: int, alone: Mapping[int, Proof], measure: Measure, name: Name) -> Joint:
    """Add the fix ``index``, which may undo what the others gain, if with it they are faster; or take it alone."""
    if not joint.members:
        return Joint((index,), alone[index])
    members = tuple(sorted((*joint.members, index), key=lambda member: -_gain(alone[member])))
    try:
        both = Joint(members, measure(members))
    except RefusedError as error:
        both = Joint(joint.members, Proof("failed", str(error)))
    chosen = both if is_faster(both.proof, joint.proof) else joint
    if is_faster(alone[index], chosen.proof):
        others = ", ".join(name(other) for other in joint.members)
        with_them = "" if chosen is joint else f" (with them {_numbers(chosen.proof)})"
        return _noting(Joint((index,), alone[index]), "left out", [f"{others}, which alone give less{with_them}"])
    if chosen is both:
        return both
    return _noting(joint, "left out", [f"{name(index)}, with which it would be {_numbers(both.proof)}"])


def is_faster(one: Proof, other: Proof) -> bool:
    """Whether one proven program is faster than the other beyond the other's interval, by both clocks if both count."""
    if one.verdict != "proven" or one.speedup is None or other.ci95 is None or one.speedup <= other.ci95[1]:
        return False
    return one.cpu_speedup is None or other.cpu_ci95 is None or one.cpu_speedup > other.cpu_ci95[1]


def _or_the_best(joint: Joint, alone: Mapping[int, Proof], name: Name) -> Joint:
    best = max(joint.members, key=lambda index: _gain(alone[index]))
    if not is_faster(alone[best], joint.proof):
        return joint
    others = ", ".join(name(member) for member in joint.members if member != best)
    slower = f"{others}, with which it would be {_numbers(joint.proof)}"
    return _noting(Joint((best,), alone[best]), "left out", [slower])


def _gain(proof: Proof) -> float:
    return proof.speedup or 0.0


def _numbers(proof: Proof) -> str:
    if proof.speedup is None or proof.ci95 is None:
        return f"{proof.verdict}: {proof.why}"
    return f"{proof.speedup:.2f}x [{proof.ci95[0]:.2f}, {proof.ci95[1]:.2f}]"


def _noting(joint: Joint, what: str, left_out: Sequence[str]) -> Joint:
    if not left_out:
        return joint
    return replace(joint, proof=replace(joint.proof, why=f"{joint.proof.why}; {what}: {'; '.join(left_out)}"))
