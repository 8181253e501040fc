"""A runner without TensorFlow: programs are speeds, the machine is a noise, and the clock is a number."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphlens.children.messages import Comparison, Compiled, Difference, Pair
from graphlens.ir.edits import ChangeDtype, JitCompile, SessionSetting
from graphlens.ir.settings import is_setting
from graphlens.prove.runner import ORIGINAL, Applied, Edits, GoneError, NotOpenedError, Opening, RefusedError

Noise = Callable[[random.Random], tuple[float, float]]  # logarithms by which a block's wall and CPU time are off

AGREES = Difference("y", "float32", 1e-5, 1e-7, 1e-7)


def quiet(_: random.Random) -> tuple[float, float]:
    """A machine of one's own."""
    return 0.0, 0.0


def shared(noise: random.Random) -> tuple[float, float]:
    """A machine that others use: wall time is off by 10 % and at times by far more, CPU time by 4 %."""
    burst = 5 if noise.random() < 0.1 else 1
    return noise.gauss(0, 0.1) * burst, noise.gauss(0, 0.04)


class Wandering:
    """A machine whose speed drifts for minutes, wall and CPU time together."""

    def __init__(self) -> None:
        self.mood = 0.0

    def __call__(self, noise: random.Random) -> tuple[float, float]:
        self.mood = 0.9 * self.mood + math.sqrt(1 - 0.81) * noise.gauss(0, 0.1)
        return self.mood + noise.gauss(0, 0.05), 0.5 * self.mood + noise.gauss(0, 0.03)


class Neighbour:
    """Another process that takes half a core, in pieces of 2 to 200 ms: a block beside it takes longer by its share."""

    BLOCK_S = 0.02

    def __init__(self) -> None:
        self.busy, self.left_s = False, 0.0

    def __call__(self, noise: random.Random) -> tuple[float, float]:
        share = self._share(noise)
        return math.log1p(0.6 * share) + noise.gauss(0, 0.03), 0.05 * share + noise.gauss(0, 0.015)

    def _share(self, noise: random.Random) -> float:
        """Return for which part of the next block it is busy."""
        togo_s, beside_s = self.BLOCK_S, 0.0
        while togo_s > 0:
            if self.left_s <= 0:
                self.busy, self.left_s = not self.busy, noise.uniform(0.002, 0.2)
            span_s = min(togo_s, self.left_s)
            beside_s += span_s if self.busy else 0.0
            self.left_s, togo_s = self.left_s - span_s, togo_s - span_s
        return beside_s / self.BLOCK_S


@dataclass
class Clock:
    """Time that passes when somebody says so."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class FakeEdit:
    """Multiplies the speed, and that of the CPU by another factor where one is given."""

    kind: str
    faster: float = 1.0
    cpu_faster: float | None = None


@dataclass(frozen=True)
class FakeCompiling(JitCompile):
    """What has XLA compile the step."""

    faster: float = 1.0


@dataclass(frozen=True)
class FakeRetyping(ChangeDtype):
    """What has the program compute in another type."""

    faster: float = 1.0


@dataclass(frozen=True)
class FakeSetting(SessionSetting):
    """A setting of the process."""

    faster: float = 1.0


@dataclass
class FakeRunner:
    """Edits with a factor ``faster`` multiply the speed; ``faults`` and ``differences`` go by kind of edit.

    ``clashes`` are factors of speed that come on top where all edits of a set are applied, ``compiled`` what XLA is
    said to have compiled by the edit ``jit-compile``.
    ``cpu_faster`` is the factor of CPU time where it differs.  ``log`` is what was asked for.
    """

    clock: Clock = field(default_factory=Clock)
    noise: Noise = quiet
    seed: int = 0
    call_ms: float = 20.0
    build_s: float = 2.0
    rebuilt_faster: float = 1.0  # what copying a program does to its speed, edited or not
    second_faster: float = 1.0  # what running in a second process does to it
    faults: Mapping[str, Exception] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    clashes: Mapping[frozenset[str], float] = field(default_factory=dict)
    compiled: Compiled | None = None
    unstable: tuple[Difference, ...] = ()
    unchanged: tuple[Difference, ...] | Exception = ()  # the original against itself under other threads
    accelerated: bool = False
    opens: bool = True
    start_s: float | None = None  # where each variant is a process of its own
    longer_ns: int | None = None
    log: list[tuple[str, Any]] = field(default_factory=list)
    is_open: bool = False
    variants: dict[str, Sequence[Edits]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def open(self, time_limit_s: float) -> Opening:
        self.log.append(("open", None))
        if not self.opens:
            raise NotOpenedError("no such model")
        self.is_open = True
        self.variants = {ORIGINAL: ()}
        self.clock.now_s += self.start_s or 0.0
        return Opening(self.accelerated, self.start_s)

    def apply(self, variant: str, fixes: Sequence[Edits], time_limit_s: float) -> Applied:
        names = [edit.kind for edits in fixes for edit in edits]
        self.log.append(("apply", names))
        if not self.is_open:
            self.open(time_limit_s)
        self.clock.now_s += self.build_s if self.start_s is None else self.start_s
        for number, edits in enumerate(fixes):
            for edit in edits:
                self._fail(edit.kind, number)
        self.variants[variant] = fixes
        compiled = self.compiled if "jit-compile" in names else None
        where = "a setting" if any(is_setting(edit) for edits in fixes for edit in edits) else ""
        return Applied(500_000_000, round(self.call_ms * 1e6), compiled, where, self.longer_ns)

    def _fail(self, name: str, number: int) -> None:
        fault = self.faults.get(name)
        if isinstance(fault, GoneError):
            self.is_open = False
        if isinstance(fault, RefusedError):
            raise RefusedError(str(fault), number)
        if fault is not None:
            raise fault

    def compare(self, variant: str, computes_in: str | None, time_limit_s: float) -> Comparison:
        self.log.append(("compare", computes_in))
        names = [edit.kind for edits in self.variants[variant] for edit in edits]
        rows = tuple(self.differences[name] for name in names if name in self.differences)
        return Comparison((AGREES, *rows), 3, self.unstable)

    def compare_unchanged(self, time_limit_s: float) -> tuple[Comparison, str]:
        self.log.append(("compare unchanged", None))
        self.clock.now_s += 12.0
        if isinstance(self.unchanged, Exception):
            raise self.unchanged
        return Comparison(self.unchanged, 3), "1 thread for an op"

    def time(self, before: str, after: str, pairs: int, block_ms: float, time_limit_s: float) -> list[Pair]:
        self.log.append(("time", pairs))
        return [self._pair(before, after, block_ms, number % 2 == 1) for number in range(pairs)]

    def _pair(self, before: str, after: str, block_ms: float, swapped: bool) -> Pair:
        names = [after, before] if swapped else [before, after]
        times = [self._block(name, block_ms) for name in names]
        (wall_a, cpu_a), (wall_b, cpu_b) = reversed(times) if swapped else times
        return Pair(wall_a, wall_b, cpu_a, cpu_b)

    def _block(self, variant: str, block_ms: float) -> tuple[float, float]:
        wall_noise, cpu_noise = self.noise(self.random)
        wall_ms = self.call_ms / self._speed(variant, "faster") * math.exp(wall_noise)
        cpu_ms = 1.5 * self.call_ms / self._speed(variant, "cpu_faster") * math.exp(cpu_noise)
        self.clock.now_s += max(block_ms, wall_ms) / 1e3
        return wall_ms * 1e6, cpu_ms * 1e6

    def _speed(self, variant: str, key: str) -> float:
        edits = [edit for edits in self.variants[variant] for edit in edits]
        own = math.prod(getattr(edit, key, None) or getattr(edit, "faster", 1.0) for edit in edits)
        names = {edit.kind for edit in edits}
        own *= math.prod(factor for together, factor in self.clashes.items() if together <= names)
        own *= self.second_faster if any(map(is_setting, edits)) else 1.0
        return own if variant == ORIGINAL else own * self.rebuilt_faster

    def drop(self, variant: str) -> None:
        self.variants.pop(variant, None)

    def close(self) -> None:
        self.is_open = False
        self.log.append(("close", None))
