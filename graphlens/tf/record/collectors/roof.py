"""What this machine can do at best, in TensorFlow's own kernels and threads: operations and bytes per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import tensorflow as tf

from graphlens.ir.capture import CapturedRoof
from graphlens.loaders.capture.collecting import Context
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf.record.clock import synchronous
from graphlens.tf.record.collectors.executed import ExecutedGraphs
from graphlens.tf.record.environment import usable_cores
from graphlens.units import format_share

DTYPE: Final = "float32"
# Products of square matrices grow from the first side by doubling until one of them takes that long: by then all
# threads are busy and what a call costs by itself has vanished.  On two cores that ends at 2048.
FIRST_SIDE: Final = 512
LAST_SIDE: Final = 16_384
LONG_PRODUCT_S: Final = 0.03
# The best of several short repeats is what the machine can do; the others had to share it with somebody.  When even the
# best one had to, all of it is done once more, unless the first round took long already.
REPEATS: Final = 3
PRODUCT_S: Final = 0.08
STREAM_S: Final = 0.2
ROUNDS: Final = 2
UNDISTURBED_SHARE: Final = 0.9
SECONDS: Final = 2.0  # what both rounds take on two busy cores, tracing included
SHARE_OF_TIME: Final = 0.25  # of the time left that all this may use
# The two tensors of the stream are together four times as large as all caches, so that nearly nothing is found in them.
CACHE_MULTIPLE: Final = 4
SMALLEST_STREAM_BYTES: Final = 64 << 20
LARGEST_STREAM_BYTES: Final = 512 << 20

_CACHES: Final = "/sys/devices/system/cpu/cpu*/cache/index*"
_SIZE_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Roof:
    """Measures, after the program, the roof of the device on which most of it ran; nothing where that is not known."""

    stage = "roof"

    def __init__(self, executed: ExecutedGraphs) -> None:
        self._executed = executed

    def start(self, context: Context) -> None:
        """The program has the machine for itself."""

    def stop(self, context: Context) -> bool:
        if not self._executed.partitions:
            return False
        context.progress("measuring the machine", 0, 1)
        if SHARE_OF_TIME * context.seconds_left() < SECONDS:
            context.capture.note("The time budget was too short to measure what this machine can do at best.")
        else:
            _write(context.capture, _main_device(self._executed.partitions))
        return True

    def cancel(self) -> None:
        """Nothing has to be ended."""


def _write(capture: CaptureDirectory, device: str) -> None:
    measured = measure(device)
    capture.manifest = replace(capture.manifest, roof=measured.roof)
    if measured.undisturbed is not None and measured.undisturbed < UNDISTURBED_SHARE:
        capture.note(
            f"While the machine's roof was measured, other programs had {format_share(1 - measured.undisturbed)} of "
            "the processors: the roof is too low, and ops look closer to it than they are."
        )
    if _stream_bytes() < CACHE_MULTIPLE * cache_bytes() // 2:
        capture.note("The caches of this machine are so large that its memory bandwidth was measured partly in them.")


class Measured(NamedTuple):
    """A roof as data, and which share of its threads' time this process got in the best repeat (None: not a CPU)."""

    roof: CapturedRoof
    undisturbed: float | None


@cache
def measure(device: str) -> Measured:
    """Return the roof of ``device`` (``CPU:0``); it is measured once in a process.

    Operations per second are those of the fastest of a few products of square matrices, a multiply and an add counted
    as two; bytes per second are those of adding one large tensor to another in place, two reads and one write.
    """
    threads = _threads() if device.startswith("CPU") else None
    with tf.device(device):
        flops, streams = _rates(threads)
    roof = CapturedRoof(max(flops).per_s, max(streams).per_s, DTYPE, threads, device)
    return Measured(roof, _share_of_threads(max(flops), threads))


class _Rate(NamedTuple):
    """Work per second of wall time, and seconds of CPU time per second of wall time, in the fastest repeat."""

    per_s: float
    busy: float


def _rates(threads: int | None) -> tuple[list[_Rate], list[_Rate]]:
    """Return what the products and the streams of each round reached."""
    # Traced, since the kernels of a graph are not those of eager calls: oneDNN's are twice as fast on some machines.
    signature = [tf.TensorSpec((None, None), DTYPE)] * 2
    product = tf.function(tf.linalg.matmul, input_signature=signature, autograph=False)
    flops: list[_Rate] = []
    streams: list[_Rate] = []
    start_s = time.perf_counter()
    for _ in range(ROUNDS):
        flops += _products(product)
        streams.append(_stream())
        undisturbed = _share_of_threads(max(flops), threads)
        alone = undisturbed is None or undisturbed >= UNDISTURBED_SHARE
        if alone or time.perf_counter() - start_s > SECONDS / ROUNDS:
            break
    return flops, streams


def _share_of_threads(rate: _Rate, threads: int | None) -> float | None:
    return rate.busy / threads if threads else None


def _main_device(partitions: Sequence[Any]) -> str:
    """Return the accelerator of the partition with most ops on one; a CPU where none is in use."""
    counts: dict[str, int] = {}
    for node in (node for partition in partitions for node in partition.node):
        device = node.device.rpartition("/device:")[2].upper()
        if device and not device.startswith("CPU"):
            counts[device] = counts.get(device, 0) + 1
    return max(counts, key=lambda device: counts[device], default="CPU:0")


def _threads() -> int | None:
    return tf.config.threading.get_intra_op_parallelism_threads() or usable_cores()


def _products(product: Callable[[Any, Any], Any]) -> Iterator[_Rate]:
    """Yield the operations per second of square products of growing size."""
    side = FIRST_SIDE
    while side <= LAST_SIDE:
        operand = tf.ones((side, side), DTYPE)
        wall_s, cpu_s = _fastest(partial(product, operand, operand), PRODUCT_S)
        yield _Rate(2 * side**3 / wall_s, cpu_s / wall_s)
        if wall_s > LONG_PRODUCT_S:
            return
        side *= 2


def _stream() -> _Rate:
    """Return the bytes per second of an addition in place: it reads two tensors, writes one, and allocates none."""
    elements = _stream_bytes() // tf.as_dtype(DTYPE).size
    addend, total = tf.ones((elements,), DTYPE), tf.Variable(tf.zeros((elements,), DTYPE), trainable=False)
    wall_s, cpu_s = _fastest(partial(total.assign_add, addend, read_value=False), STREAM_S)
    return _Rate(3 * elements * tf.as_dtype(DTYPE).size / wall_s, cpu_s / wall_s)


def _stream_bytes() -> int:
    """Return the size of one tensor of the stream."""
    wanted = CACHE_MULTIPLE * cache_bytes() // 2
    return min(max(wanted, SMALLEST_STREAM_BYTES), LARGEST_STREAM_BYTES)


def cache_bytes() -> int:
    """Return the size of all last-level caches of this machine, 0 where the system does not say."""
    largest: dict[tuple[int, str], int] = {}
    for folder in Path("/").glob(_CACHES.lstrip("/")):
        level, size, shared = (_line(folder / name) for name in ("level", "size", "shared_cpu_list"))
        if level.isdigit() and size[:-1].isdigit() and size[-1] in _SIZE_UNITS:
            largest[int(level), shared] = int(size[:-1]) * _SIZE_UNITS[size[-1]]
    last = max((level for level, _ in largest), default=0)
    return sum(size for (level, _), size in largest.items() if level == last)


def _line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _fastest(call: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Repeat ``call`` for about ``seconds`` after a first one; return wall and CPU seconds of the fastest repeat."""
    step = synchronous(call)
    step()
    timed: list[tuple[float, float]] = []
    deadline = time.perf_counter() + seconds
    while len(timed) < REPEATS or time.perf_counter() < deadline:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        step()
        timed.append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
    return min(timed)
