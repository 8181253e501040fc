"""Writes a large XPlane as a GPU machine leaves it, byte by byte: a million messages would take minutes to fill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

DEVICES = 8
KINDS = ("Conv2D", "MatMul", "Relu", "AddV2", "Cast", "Mul", "FusedBatchNormV3", "BiasAdd")
OPS = 4_000  # ops of the model: what the names of events repeat
STEP_PS = 100_000_000_000


def varint(value: int) -> bytes:
    """Encode one number; negative ones take ten bytes."""
    encoded, value = b"", value & (1 << 64) - 1
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def number(field: int, value: int) -> bytes:
    """Encode a field that is a number."""
    return varint(field << 3) + varint(value)


def content(field: int, value: bytes) -> bytes:
    """Encode a field that is a text or a message."""
    return varint(field << 3 | 2) + varint(len(value)) + value


class Plane:
    """One plane while it is written; events are appended to lines as bytes."""

    def __init__(self, position: int, name: str) -> None:
        self.head = number(1, position) + content(2, name.encode())
        self.lines: list[bytes] = []
        self.names: dict[str, int] = {}
        self.stats: dict[str, int] = {}

    def stat(self, name: str) -> int:
        return self.stats.setdefault(name, len(self.stats) + 1)

    def referring(self, name: str, value: str) -> bytes:
        """A statistic whose value is the name of another one, as the profiler writes repeated texts."""
        return content(4, number(1, self.stat(name)) + number(7, self.stat(value)))

    def counting(self, name: str, value: int) -> bytes:
        return content(4, number(1, self.stat(name)) + number(4, value))

    def saying(self, name: str, value: str) -> bytes:
        return content(4, number(1, self.stat(name)) + content(5, value.encode()))

    def template(self, name: str, duration_ps: int, stats: bytes = b"") -> tuple[bytes, bytes]:
        """What comes before and after the start of an event of that name."""
        before = number(1, self.names.setdefault(name, len(self.names) + 1)) + b"\x10"
        return before, number(3, duration_ps) + stats

    def line(self, position: int, name: str, events: Iterable[bytes]) -> int:
        """Add a line and return the number of its events."""
        written = [content(4, event) for event in events]
        self.lines.append(number(1, position) + content(2, name.encode()) + number(3, 1000) + b"".join(written))
        return len(written)

    def encoded(self) -> Iterator[bytes]:
        yield self.head
        yield from (content(3, line) for line in self.lines)
        for field, table in ((4, self.names), (5, self.stats)):
            for name, key in table.items():
                yield content(field, number(1, key) + content(2, number(1, key) + content(2, name.encode())))


def laid_out(templates: Sequence[tuple[bytes, bytes]], steps: int, gap_ps: int, step_ps: int) -> Iterator[bytes]:
    """Yield the events of all steps, one after the other."""
    for step in range(steps):
        for position, (before, after) in enumerate(templates):
            yield before + varint(step * step_ps + position * gap_ps) + after


def write(path: Path, events: int) -> int:
    """Write a profile of about ``events`` events, half of them on the host; return how many there are."""
    names = [f"model/block_{index // 40}/layer_{index % 40}/{KINDS[index % 8]}" for index in range(OPS)]
    steps = max(1, round(events / (6.2 * OPS)))  # three events on the host, 3.2 on a device for each op of a step
    host = Plane(0, "/host:CPU")
    written = sum(host.line(1000 + thread, f"tf_Compute/{thread}", _host_events(host, names, steps)) for thread in (0,))
    planes = [host]
    for device in range(DEVICES):
        plane = Plane(device + 1, f"/device:GPU:{device}")
        written += _device_lines(plane, names[device::DEVICES], steps * 2)
        planes.append(plane)
    path.write_bytes(b"".join(content(1, b"".join(plane.encoded())) for plane in planes))
    return written


def _host_events(plane: Plane, names: Sequence[str], steps: int) -> Iterator[bytes]:
    templates = []
    for index, name in enumerate(names):
        kind = name.rpartition("/")[2]
        run = plane.counting("id", 7_000_000_000_000 + index % 5) + plane.counting("iter_num", 0)
        templates.append(plane.template("ExecutorState::Process", 9_000_000, run))
        shape = plane.saying("shape", "(float32[32,384,1024];float32[1024,4096];int32[2])")
        templates.append(plane.template(f"{name}:{kind}", 7_000_000, shape + plane.counting("group_id", 3)))
        outputs = plane.saying("kernel_name", name + "/of_a_longer_scope") + plane.counting("num_output_edges", 2)
        templates.append(plane.template("ExecutorPropagateOutputs", 900_000, run + outputs))
    # Its statistic makes every event worth a look that is neither an op nor of the executor.
    marker = plane.template("train", STEP_PS - 1000, plane.counting("step_num", 1) + plane.counting("_r", 1))
    return laid_out([marker, *templates], steps, 8_000_000, STEP_PS)


def _device_lines(plane: Plane, names: Sequence[str], steps: int) -> int:
    kernels, copies, ops = [], [], []
    for index, name in enumerate(names):
        kind = name.rpartition("/")[2]
        stats = (
            plane.counting("correlation_id", 100_000 + index)
            + plane.referring("annotation", f"{name}:{kind}#shape=(half[4,384,1024];half[])#")
            + plane.saying("context_id", "$$5")
            + plane.referring("kernel_details", f"regs:{16 + index % 9} shm:0 grid:160,1,1 block:1024,1,1")
            + plane.referring("tf_op", f"{name}:{kind}")
            + plane.counting("group_id", 3)
            + plane.counting("is_eager", 0)
            + plane.saying("shape", "(half[4,384,1024];half[1024,4096];half[4096];int32[2])")
            + plane.saying("theoretical_occupancy_pct", "100.000000")
        )
        kernels.append(plane.template(f"kernel_{index % 300}", 5_000_000, stats))
        long_name = plane.saying("long_name", f"{name}:{kind}")
        ops.append(plane.template(f"{name}:{kind}", 5_000_000, long_name + plane.counting("group_id", 3)))
        if index % 10 == 0:
            details = plane.saying("memcpy_details", f"kind_src:pageable kind_dst:device size:{index} dest:0 async:1")
            copies.append(plane.template("MemcpyH2D", 2_000_000, stats + details))
    return (
        (
            plane.line(13, "Stream #13(Compute)", laid_out(kernels, steps, 6_000_000, STEP_PS // 2))
            + plane.line(14, "Stream #14(MemcpyH2D)", laid_out(copies, steps, 60_000_000, STEP_PS // 2))
            + plane.line(-559038734, "TensorFlow Ops", laid_out(ops, steps // 2, 6_000_000, STEP_PS))
        )
        if steps
        else 0
    )
