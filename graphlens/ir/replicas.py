"""Replicas in the analysis: what each does in a step, what the exchange between them costs, and who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["mirrored", "multi-worker", "parameter-server"]


@dataclass(frozen=True, slots=True)
class ReplicaStep:
    """What one replica does in a step, in the mean over steps: the four parts sum to ``step_ns`` exactly.

    Attributes
    ----------
    number, host, device
        Which of all replicas it is, on which machine and on which of its devices; empty where nobody says.
    steps
        How many of its steps were seen, without a slow first one.
    step_ns
        From its first op of a step to its last one.
    work_ns
        While at least one of its ops ran that is no exchange with other replicas.
    communication_ns
        While nothing else of it ran, and an exchange was under way that all who take part in had reached.
    waiting_ns
        While nothing else of it ran, and it waited in an exchange that not all had reached.
    other_ns
        While nothing of it ran: scheduling, input, ops that are too cheap to be timed.
    awaited_ns
        How long others waited for it, all together and while nothing else of them ran; ``None`` where nobody was seen
        to.
    rows
        How many rows of the batch it is given as a rule; ``None`` where nobody says.
    empty_steps
        The steps in which it was given no row at all, and ran all the same.
    """

    number: int
    host: str
    device: str
    steps: int
    step_ns: int
    work_ns: int
    communication_ns: int
    waiting_ns: int
    other_ns: int
    awaited_ns: int | None = None
    rows: int | None = None
    empty_steps: int | None = None


@dataclass(frozen=True, slots=True)
class SlowOp:
    """An op that takes longer on one replica: ``ns`` there, ``others_ns`` in the median of the others."""

    name: str
    op: str
    ns: int
    others_ns: int


@dataclass(frozen=True, slots=True)
class RemoteCalls:
    """What the coordinator of a parameter server strategy has one worker do.

    Attributes
    ----------
    worker
        The host that runs what is asked for; empty where its profile is not known.
    calls
        How many calls the coordinator made, and of these ``joined`` could be tied to a step of the worker.
    call_ns
        The median of how long the coordinator waited for a call.
    step_ns
        The median of what the worker ran for it; ``None`` where no call was joined.
    overhead_ns
        The median of the difference: sending, receiving, and waiting for the worker to begin.
    """

    worker: str
    calls: int
    joined: int
    call_ns: int
    step_ns: int | None = None
    overhead_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas of the judged step.

    Attributes
    ----------
    strategy
        How they work together.
    replicas
        By their numbers.
    collectives
        How many exchanges each of them takes part in per step, in the mean.
    bytes
        What each of them hands over in these; ``None`` where a size is not known.
    collective_ns
        For how long an exchange is under way in a step that all who take part have reached: of each the least that any
        replica spends in it, for the rest of the time of the others is waiting for the last one.  Work that is done
        meanwhile is not subtracted.
    exposed_ns, waiting_ns
        The mean over replicas of their ``communication_ns`` and ``waiting_ns``.
    least_of
        ``replicas`` where the least is that over all who take part, ``steps`` where only one of them was recorded, and
        it is the least over steps: a bound from above of what the exchange costs.
    imbalance
        The work of the one with most over the mean of all, less 1 (0: balanced); ``None`` for one.
    slowest
        The number of the replica that others wait for, ``None`` where they take turns.
    slow_ops
        What takes longer on that one than on others, the most first.
    uneven_rows
        The rows of the steps in which a replica was given none, by replica, and how often: ``((1, 0), 3)``.
    words
        All that in a sentence.
    """

    strategy: Strategy
    replicas: tuple[ReplicaStep, ...] = ()
    collectives: float = 0.0
    bytes: int | None = None
    collective_ns: int | None = None
    exposed_ns: int | None = None
    waiting_ns: int | None = None
    least_of: Literal["replicas", "steps"] = "replicas"
    imbalance: float | None = None
    slowest: int | None = None
    slow_ops: tuple[SlowOp, ...] = ()
    uneven_rows: tuple[tuple[tuple[int, ...], int], ...] = ()
    remote: tuple[RemoteCalls, ...] = ()
    words: str = ""
