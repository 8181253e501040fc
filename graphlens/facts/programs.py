"""The programs of a profile: which ran, how often, what a step of each is; and the profile of the one that is judged."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from graphlens.facts.devices import merged
from graphlens.ir.program import BY_IMPORTANCE, Role
from graphlens.ir.run import NO_RUN, KernelEvent, OpEvent, Profile, Run, Span, host_of_thread
from graphlens.units import format_ns

_FUNCTION_NAME = re.compile(r"^__(?:inference|forward|backward)_(?P<base>.*)_\d+$")
_STAGE = re.compile(r"^(Reduce)?Iterator::")
_CLUSTER = re.compile(r"^cluster_\d|^XlaCluster|^jit_")
_INITIALIZATION = re.compile(r"initializ|restore_variables|_creator$|_destroyer$", re.IGNORECASE)
# How Keras 3 calls what it runs: train and test are both `multi_step_on_iterator`, and only the ops tell them apart.
_EVAL = re.compile(r"test|eval|valid|multi_step_on_iterator", re.IGNORECASE)
_PREDICT = re.compile(r"predict|one_step_on_data|multi_step_on_data|signature_wrapper|restored_function_body")
_TRAINS = re.compile(r"gradient_tape/|(^|/)gradients/|:(\w*Grad|\w*Backprop\w*|(Resource)?(Sparse)?Apply[A-Z]\w*)$")

# Runs without a name are of one program when they share this part of their ops.  Branches of a condition and ops that
# the profiler dropped make less of a difference; two functions share hardly any name.
_SAME_OPS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Traced:
    """A run in which Python traced the function or XLA compiled it, and how long that took with the run itself."""

    ns: int


@dataclass(frozen=True, slots=True)
class ProgramRuns:
    """One program of a profile.

    Attributes
    ----------
    name, role
        The function's own name with its number (several hosts: that on the first), and what it is for.
    runs
        The positions of its runs in ``Profile.runs``, in time order.
    steps
        Its steps: the runs, or the iterations of the loops in them.  Without what only found the end of the data, was
        cut off, or was traced or compiled first.
    count
        How many steps there were, those told apart included.
    traces
        The runs that were traced or compiled.
    busy_ns
        For how long at least one of its runs was under way.
    share
        The same as a share of the profile's length.
    """

    name: str
    role: Role
    runs: tuple[int, ...]
    steps: tuple[Span, ...]
    count: int
    traces: tuple[Traced, ...]
    busy_ns: int
    share: float


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of a profile, the judged one first, and the profile of that one alone."""

    all: tuple[ProgramRuns, ...] = ()
    profile: Profile | None = None
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> ProgramRuns | None:
        """The program that is judged."""
        return self.all[0] if self.all else None


def programs_of(profile: Profile | None, wanted: str | None = None) -> Programs:
    """Return the programs of ``profile``; the one called ``wanted`` is judged, or the one with most time.

    Profiles that show no runs come back as they are, with no program.
    """
    if profile is None:
        return Programs()
    found = _ordered(_programs(profile), wanted)
    if not found:
        return Programs(profile=profile)
    windows = _windows(profile, found[0], wanted is not None)
    judged = replace(found[0], steps=windows)
    return Programs((judged, *found[1:]), _of_program(profile, judged), tuple(_notes(profile, judged)))
