"""A recording of more hosts than are held at once: each is read, summed up and let go, and one is then shown whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import intern
from typing import Final

from graphlens.collector import collect_new
from graphlens.errors import TargetError
from graphlens.facts.flat.names import Names
from graphlens.facts.programs.judged_program import programs_of
from graphlens.facts.replicas.observed import OneHost, observed
from graphlens.facts.replicas.placed import Placed
from graphlens.facts.replicas.together import Together
from graphlens.ir.replicas import Replicas
from graphlens.ir.run import Profile
from graphlens.loaders.events import Recorded
from graphlens.loaders.files import read_bytes
from graphlens.loaders.hosts import PROFILE_SUFFIX
from graphlens.loaders.xplane import read_recording

ONE_OF_MANY: Final = (
    "the profiles of {count} hosts were read one after the other: steps, work, exchanges and waiting of all are "
    "compared, and everything else that is told is that of {host}, {why}; name the file of another host to have it told"
)
SLOWEST: Final = "which the others wait for"
MIDDLE: Final = "whose step is the median of all"
NO_STEPS: Final = "no step with an op was seen on {count} of the hosts: {names}"
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Fleet:
    """What was read of many hosts: the recording of one, and the replicas of all."""

    shown: Recorded
    replicas: Replicas | None


def read_fleet(files: Sequence[Path]) -> Fleet:
    """Read one profile for each host, no more than one of them at a time.

    Raises
    ------
    TargetError
        When one is damaged, or none holds a step.
    """
    seen, without = [], []
    for file in files:
        one = _summed_up(file)
        collect_new()  # readers are cycles, and hold all events of a profile
        if one is None:
            without.append(_name(file))
        else:
            seen.append((file, one))
    if not seen:
        raise TargetError(f"no step with an op was seen on any of {len(files)} hosts; record while they compute")
    together = Together([one for _, one in seen]).replicas("multi-worker")
    file, why = _to_show([file for file, _ in seen], [len(one.replicas) for _, one in seen], together)
    notes = [ONE_OF_MANY.format(count=len(files), host=_name(file), why=why)]
    if without:
        names = ", ".join(without[:_NAMED]) + (" …" if len(without) > _NAMED else "")
        notes.append(NO_STEPS.format(count=len(without), names=names))
    return Fleet(_with_notes(_read(file), notes), together)


def _name(file: Path) -> str:
    return file.name.removesuffix(PROFILE_SUFFIX)


def _read(file: Path) -> Recorded:
    recorded = read_recording(read_bytes(file))
    # Files are told apart by their names: two tasks of one machine call it the same.
    return recorded._replace(profile=replace(recorded.profile, hosts=(_name(file),)))


def _with_notes(recorded: Recorded, notes: Sequence[str]) -> Recorded:
    profile = recorded.profile
    return recorded._replace(profile=replace(profile, notes=(*notes, *profile.notes)))


def _summed_up(file: Path) -> OneHost | None:
    """Return what a host shows of its replicas; its events are let go."""
    try:
        profile = programs_of(_read(file).profile).profile
    except TargetError as error:
        raise TargetError(f"{_name(file)}: {error}") from error
    if profile is None:
        return None
    names = Names(None, loosely=True)
    found = observed(profile, profile.steps, Placed.of(None, names, _kinds(profile)), None)
    return None if found is None else _sharing_names(found)


def _kinds(profile: Profile) -> Sequence[tuple[str, str]]:
    return getattr(profile.ops, "kinds", ())


def _sharing_names(host: OneHost) -> OneHost:
    """Return a summary whose ops are called by the same words as those of other hosts: names are most of it."""
    replicas = [
        replace(one, op_ns={(intern(name), intern(op)): ns for (name, op), ns in one.op_ns.items()})
        for one in host.replicas
    ]
    return replace(host, replicas=replicas)


def _to_show(files: Sequence[Path], counts: Sequence[int], found: Replicas) -> tuple[Path, str]:
    """Return the host that is shown whole: the one that the others wait for, else that of the median step."""
    owner = list(_owners(files, counts))
    if found.slowest is not None:
        return owner[found.slowest], SLOWEST
    by_step = sorted(range(len(owner)), key=lambda number: found.replicas[number].step_ns)
    return owner[by_step[len(by_step) // 2]], MIDDLE


def _owners(files: Sequence[Path], counts: Sequence[int]) -> Iterator[Path]:
    for file, count in zip(files, counts, strict=True):
        yield from (file for _ in range(count))
