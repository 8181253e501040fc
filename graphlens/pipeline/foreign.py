"""Profiles that were recorded elsewhere: alone, or joined to the graph of a target that is not run for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.ir.analysis import Target
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph
from graphlens.ir.replicas import Replicas
from graphlens.ir.run import Profile
from graphlens.loaders import sniff
from graphlens.loaders.profile_files import PROFILE_KINDS
from graphlens.loaders.profiles import files_of_hosts, read_recorded

# Up to as many hosts are laid on one clock and judged together, event by event; more are read one after the other.
MOST_AT_ONCE: Final = 8

NOT_RUN: Final = "a profile was given, so the model was not run"


@dataclass(frozen=True, slots=True)
class ForeignProfile:
    """A profile, the graph that ran and the modules of XLA where it holds them, and where it was read from.

    ``replicas`` are those of all hosts where the profile is that of one of many.
    """

    path: str
    kind: str
    profile: Profile
    executed: Graph | None
    modules: Mapping[str, Graph] = field(default_factory=dict)
    replicas: Replicas | None = None


def read(identified: sniff.Identified, path: str) -> ForeignProfile:
    """Read the profile that ``identified`` is.

    Raises
    ------
    TargetError
        When it is none, or is damaged.
    """
    if identified.kind not in PROFILE_KINDS:
        raise TargetError(
            f"'{path}' is no profile; pass a *.xplane.pb, the folder it lies in, a RunMetadata or a timeline"
        )
    if identified.path.is_dir() and len(files := files_of_hosts(identified.path)) > MOST_AT_ONCE:
        from graphlens.pipeline.fleet import read_fleet

        fleet = read_fleet(files)
        return ForeignProfile(
            path, identified.kind, fleet.shown.profile, None, fleet.shown.modules, replicas=fleet.replicas
        )
    recorded = read_recorded(identified.path, identified.kind)  # type: ignore[arg-type]
    return ForeignProfile(path, identified.kind, recorded.profile, _executed(recorded.partitions), recorded.modules)


def _executed(partitions: tuple[Any, ...]) -> Graph | None:
    from graphlens.loaders.partitions import merge_partitions

    return merge_partitions(list(partitions)) if partitions else None


def alone(foreign: ForeignProfile) -> Evidence:
    """Return the evidence of a profile for which no graph was given."""
    return joined(Evidence(Target(os.fspath(foreign.path), foreign.kind)), foreign)


def joined(evidence: Evidence, foreign: ForeignProfile) -> Evidence:
    """Return ``evidence`` with the profile in place of any run of its own.

    What an own run told of times is left out: it was another machine's.  Its shapes are kept.
    """
    profile = foreign.profile
    return replace(
        evidence,
        environment={**evidence.environment, **_environment(foreign)},
        executed=foreign.executed or evidence.executed,
        hlo={**evidence.hlo, **foreign.modules},
        profile=profile,
        replicas=foreign.replicas,
        profile_path=foreign.path,
        unprofiled_ns=(),
        replay={name: replace(record, durations_ns=()) for name, record in evidence.replay.items()},
        static_reason=None if foreign.executed or evidence.executed or foreign.modules else NOT_RUN,
        notes=tuple(dict.fromkeys((*evidence.notes, *profile.notes))),
    )


def _environment(foreign: ForeignProfile) -> Mapping[str, Any]:
    profile = foreign.profile
    devices = [f"{device.host} {device.name}".strip() for device in profile.devices]
    return {
        "profile": Path(foreign.path).name,
        **({"devices": devices} if devices else {}),
        **({"hosts": list(profile.hosts)} if profile.hosts else {}),
    }
